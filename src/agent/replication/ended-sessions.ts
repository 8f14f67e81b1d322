import type { EndedSession, Report } from '#wire/site/witness.ts'

/* Sessions that are over at this site, of which the record that ended them is all that is left.
 *
 * Each report says which they are, because a witness that is restored from before such an end must hear of it. There may be many after
 * years, and a report is made every second: so it names so many at a time, in the order of their ids and going round, and from where to where it
 * goes. Of an id within these bounds that is not named the witness knows that there is no such session here; of others it waits to hear.
 */

/** Named in one report: some 60 KiB. */
export const ENDED_IN_REPORT_MAX = 500

export type EndedPart = Pick<Report, 'ended' | 'ended_after' | 'ended_up_to'>

export class EndedSessions {
  readonly #sessions = new Map<
    string,
    { readonly told: EndedSession; readonly quietAtMs: number }
  >()
  readonly #most: number
  /** Last id that a report has named; null: the next one begins at the beginning. */
  #after: string | null = null

  constructor(most = ENDED_IN_REPORT_MAX) {
    this.#most = most
  }

  /** `quietAtMs`: CLOCK_BOOTTIME from which on no writer of the other site can still answer because it was in touch with this one (`Silence`). */
  set(one: EndedSession, quietAtMs: number): void {
    this.#sessions.set(one.session, { told: one, quietAtMs })
  }

  delete(session: string): void {
    this.#sessions.delete(session)
  }

  /** Of the record that ended it, or that was made of it since; undefined: no such session has ended here. */
  epochOf(session: string): number | undefined {
    return this.#sessions.get(session)?.told.epoch
  }

  /**
   * Whether the writer of the other site may still answer at `nowMs`, by the record that ended the session here. Until it cannot, nobody may be given the
   * volumes of this site: a session that ended may have done so without that writer's hearing of it.
   */
  otherMayAnswer(session: string, site: string, nowMs: number): boolean {
    const known = this.#sessions.get(session)
    return known !== undefined && known.told.writer !== site && nowMs < known.quietAtMs
  }

  /** What the next report says. */
  part(): EndedPart {
    const all = [...this.#sessions.keys()]
    if (all.length <= this.#most) return { ended: this.#named(all) }
    const after = this.#after
    const left = all.filter((id) => after === null || id > after).sort()
    const ids = left.slice(0, this.#most)
    const upTo = ids.length < left.length ? (ids.at(-1) ?? null) : null
    this.#after = upTo
    return {
      ended: this.#named(ids),
      ...(after === null ? {} : { ended_after: after }),
      ...(upTo === null ? {} : { ended_up_to: upTo }),
    }
  }

  #named(ids: readonly string[]): EndedSession[] {
    return ids.flatMap((id) => this.#sessions.get(id)?.told ?? [])
  }
}
