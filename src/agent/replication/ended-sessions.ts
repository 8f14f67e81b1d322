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
  readonly #sessions = new Map<string, EndedSession>()
  readonly #most: number
  /** Last id that a report has named; null: the next one begins at the beginning. */
  #after: string | null = null

  constructor(most = ENDED_IN_REPORT_MAX) {
    this.#most = most
  }

  set(one: EndedSession): void {
    this.#sessions.set(one.session, one)
  }

  delete(session: string): void {
    this.#sessions.delete(session)
  }

  /** Of the record that ended it, or that was made of it since; undefined: no such session has ended here. */
  epochOf(session: string): number | undefined {
    return this.#sessions.get(session)?.epoch
  }

  /** What the next report says. */
  part(): EndedPart {
    if (this.#sessions.size <= this.#most) return { ended: [...this.#sessions.values()] }
    const after = this.#after
    const left = [...this.#sessions.keys()].filter((id) => after === null || id > after).sort()
    const ids = left.slice(0, this.#most)
    const upTo = ids.length < left.length ? (ids.at(-1) ?? null) : null
    this.#after = upTo
    return {
      ended: ids.flatMap((id) => this.#sessions.get(id) ?? []),
      ...(after === null ? {} : { ended_after: after }),
      ...(upTo === null ? {} : { ended_up_to: upTo }),
    }
  }
}
