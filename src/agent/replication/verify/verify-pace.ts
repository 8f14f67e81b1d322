import type { SessionCore } from '../core.ts'

/* How fast a verification goes: clients first. While they write, it pauses after each step as long as the step took. A rate limit holds on top of
 * that. That clients write is seen from the numbers given out, less the blocks that the verification itself has sent for repair.
 */

/** Clients count as active this long after their last write. */
const ACTIVE_MS = 100
export const PAUSE_MS_MAX = 250

export class VerifyPace {
  readonly #core: SessionCore
  #nextAllowedMs = 0
  #lastSequence = 0
  #lastWriteMs = Number.NEGATIVE_INFINITY
  #repairedFrames = 0

  constructor(core: SessionCore) {
    this.#core = core
  }

  /** A block was sent again: one number is no client's. */
  repaired(): void {
    this.#repairedFrames++
  }

  clientsAreActive(): boolean {
    const now = this.#core.now()
    const sequence = this.#core.session.gate.sequence - this.#repairedFrames
    if (sequence !== this.#lastSequence) {
      this.#lastSequence = sequence
      this.#lastWriteMs = now
    }
    return now - this.#lastWriteMs < ACTIVE_MS
  }

  /** Before the next step, after one of `bytes` that took `tookMs`. `rateBytes` per second; 0: no limit. */
  waitMs(bytes: number, tookMs: number, rateBytes: number): number {
    const now = this.#core.now()
    const pause = this.clientsAreActive() ? Math.min(PAUSE_MS_MAX, Math.max(1, tookMs)) : 0
    if (rateBytes <= 0) return pause
    this.#nextAllowedMs = Math.max(now, this.#nextAllowedMs) + (bytes / rateBytes) * 1_000
    return Math.max(pause, this.#nextAllowedMs - now)
  }
}
