/* Whether what is written to one volume is flushed soon afterwards, a little at a time, and from far enough away that the disk can be at it meanwhile.
 *
 *     write ─► acknowledgement ─► made durable ..................... FLUSH ─► answered
 *                                       └ the acknowledgement travels to the client, and the client's flush back ┘
 *
 * A log of transactions looks like this. Where the client is near, the flush is here before anything can be done for it, and the work would only
 * take the processor from it; so it is done when the last flush came that much later than what it was for.
 *
 * A client that writes more than once for each flush would find its disk busy with the first write when it asks for the last: what it writes is only
 * given to the disk, and made durable by the flush.
 */

/** A flush that comes sooner has not left time to prepare it. */
const SOONEST_MS = 0.5
/** One that comes sooner finds its fdatasync under way, and has waited for the processor with it. */
const SOONEST_WHOLLY_MS = 0.8
/** One that comes later is no part of the same commit, and is in no hurry. */
const LATEST_MS = 200
/** More is a batch: the disk takes longer for it than the way there and back, and it may be overwritten before it is flushed. */
const COMMIT_BYTES_MAX = 64 * 1024

/** What comes after a write: nothing that is known of; a flush, but more writes before it or too soon; a flush, and nothing before it. */
export type Expected = 'nothing' | 'more' | 'flush'

export class CommitHabit {
  #wroteMs = Number.NEGATIVE_INFINITY
  /** Arrivals of writes since the last flush. */
  #arrivals = 0
  /** What the last flush told: of how many arrivals a commit is made; 0: there are no commits. */
  #usual = 0
  /** The last flush left time for an fdatasync. */
  #timely = false

  /** Something was written by all that arrived together. */
  wrote(nowMs: number): Expected {
    this.#wroteMs = nowMs
    this.#arrivals++
    if (this.#usual === 0) return 'nothing'
    return this.#timely && this.#usual === 1 && this.#arrivals === 1 ? 'flush' : 'more'
  }

  /** A flush came, for `dirtyBytes` that were written since the one before and are not durable yet. */
  flushed(nowMs: number, dirtyBytes: number): void {
    const afterMs = nowMs - this.#wroteMs
    const commits = dirtyBytes <= COMMIT_BYTES_MAX && afterMs >= SOONEST_MS && afterMs <= LATEST_MS
    this.#usual = commits ? this.#arrivals : 0
    this.#timely = afterMs >= SOONEST_WHOLLY_MS
    this.#arrivals = 0
  }
}
