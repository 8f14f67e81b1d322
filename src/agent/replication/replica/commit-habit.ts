/* Whether what is written to one volume is flushed soon afterwards, a little at a time, and from far enough away that the disk can be at it meanwhile.
 *
 *     write ─► acknowledgement ─► given to the disk ............... FLUSH ─► fdatasync finds it there
 *                                       └ the acknowledgement travels to the client, and the client's flush back ┘
 *
 * A log of transactions looks like this. Where the client is near, the flush is here before anything can be done for it, and the work would only
 * take the processor from it; so it is done when the last flush came that much later than what it was for.
 */

/** A flush that comes sooner has not left time to prepare it. */
const SOONEST_MS = 0.5
/** One that comes later is no part of the same commit, and is in no hurry. */
const LATEST_MS = 200
/** More is a batch: the disk takes longer for it than the way there and back, and it may be overwritten before it is flushed. */
const COMMIT_BYTES_MAX = 64 * 1024

export class CommitHabit {
  #wroteMs = Number.NEGATIVE_INFINITY
  #commits = false

  /** Something was written. True: a flush is expected, and there is time until it comes. */
  wrote(nowMs: number): boolean {
    this.#wroteMs = nowMs
    return this.#commits
  }

  /** A flush came, for `dirtyBytes` that were written since the one before. */
  flushed(nowMs: number, dirtyBytes: number): void {
    const afterMs = nowMs - this.#wroteMs
    this.#commits = dirtyBytes <= COMMIT_BYTES_MAX && afterMs >= SOONEST_MS && afterMs <= LATEST_MS
  }
}
