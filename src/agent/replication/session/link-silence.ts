/* Whether a link that says nothing is dead, or its peer busy.
 *
 *     nothing for peer_silence ─► does the process there still beat? ── no ──► lost
 *                                        │ yes
 *                                        └─► does that explain the silence? ── no ──► lost (the link is broken, the process is not)
 *                                                     │ yes, and not yet for busy_max
 *                                                     └─► busy: the link is kept, the writer holds
 *
 * What explains a silence: the peer's data plane did not move (its loop waited in a write, or its stream for a disk), or this side's own
 * did not, so that what arrived has not been looked at. When whoever was stuck moves again, the link gets one more peer_silence to show it.
 *
 * Decides about the link only. The right to answer clients is contact's and the lease's, and beats do not extend it: they come from a
 * thread that knows neither epoch nor role, and a replica may have been promoted by the time its main thread moves again.
 */

/** The beats of one process, as agent/heartbeat has them. */
export interface BeatWatch {
  life(): { readonly heardMs: number; readonly stuckMs: number } | null
  end(): void
}

/** What the sessions of an agent use of its heartbeat thread. */
export interface PeerBeats {
  /** Where peers dial for beats. */
  readonly port: number
  /** The data plane moves; called once per heartbeat interval. */
  moved(): void
  /** `run`: the process at the other end of a link. `dial`: where it takes beats, on the side that dials the link. */
  watch(run: string, dial: { readonly host: string; readonly port: number } | null): BeatWatch
}

export interface LinkSilenceParts {
  /** null: this agent has no beats, and a silent link is lost. */
  readonly watch: BeatWatch | null
  readonly peerSilenceMs: number
  /** Longest silence that beats can excuse, ms. */
  readonly busyMaxMs: number
  /** CLOCK_BOOTTIME, ms. */
  readonly now: number
}

export type Verdict = 'heard' | 'busy' | 'lost'

export class LinkSilence {
  readonly #parts: LinkSilenceParts
  /** When one of the two sides was last known not to move. */
  #stuckMs = Number.NEGATIVE_INFINITY
  #judgedMs: number
  #verdict: Verdict = 'heard'

  constructor(parts: LinkSilenceParts) {
    this.#parts = parts
    this.#judgedMs = parts.now
  }

  /** The last verdict was that the peer is busy. */
  get busy(): boolean {
    return this.#verdict === 'busy'
  }

  /** Several times per peer_silence. `silentMs`: since the link last showed life. `ownWork`: this side's stream waits for a disk. */
  judge(now: number, silentMs: number, ownWork: boolean): Verdict {
    this.#verdict = this.#judge(now, silentMs, ownWork)
    this.#judgedMs = now
    return this.#verdict
  }

  #judge(now: number, silentMs: number, ownWork: boolean): Verdict {
    const { watch, peerSilenceMs, busyMaxMs } = this.#parts
    const life = watch?.life() ?? null
    // Shorter than the silence, so that what falls into the same time as the silence is seen; longer than beats need to arrive.
    const stuckMs = peerSilenceMs / 2
    const ownGap = now - this.#judgedMs > stuckMs
    if (ownWork || ownGap || (life !== null && life.stuckMs > stuckMs)) this.#stuckMs = now
    if (silentMs <= peerSilenceMs) return 'heard'
    if (life === null || life.heardMs > peerSilenceMs || silentMs > busyMaxMs) return 'lost'
    return now - this.#stuckMs <= peerSilenceMs ? 'busy' : 'lost'
  }

  /** The link is over. */
  end(): void {
    this.#parts.watch?.end()
  }
}
