import type { Site } from '../lab/lab.ts'

/* Whether two sites ever answer for the same group.
 *
 * From outside, the right to answer can only move with an operation that somebody asked for. So each answer of a site that is not
 * the one that answered last needs such an operation, not used by an earlier move, and it must have been given after
 * the last answer of the other site.
 *
 * An answer was given between the moment when its request was sent and the one when it was seen. A request may wait for long at a
 * site that holds; but what is given is seen at once, by however much this process was late itself. So the answer is dated
 * `SEEN_WITHIN_MS` before it was seen at the earliest.
 */

/** Longest delay between an answer and this process seeing it, above which a run says so (`late`). */
export const SEEN_WITHIN_MS = 400

export interface Answer {
  readonly site: Site
  readonly kind: 'read' | 'write' | 'flush'
  readonly sentMs: number
  readonly seenMs: number
}

export interface Trespass {
  readonly answer: Answer
  /** Of the other site, given before. */
  readonly before: Answer
}

export class Authority {
  /** Who answered last, and its latest answer. */
  #holder: Answer | undefined
  /** Operations asked for that give the right to `to`. */
  #moves: { readonly to: Site; readonly askedMs: number }[] = []
  readonly #onTrespass: (trespass: Trespass) => void
  #moved = 0

  constructor(onTrespass: (trespass: Trespass) => void) {
    this.#onTrespass = onTrespass
  }

  /** How often the right to answer was seen to move. */
  get moved(): number {
    return this.#moved
  }

  /** Call before an operation is asked for that makes `to` the writer. */
  mayMove(to: Site, nowMs: number): void {
    this.#moves.push({ to, askedMs: nowMs })
  }

  /** All is quiet, and `site` has the right: what was asked for and did not happen will not happen any more. */
  settled(site: Site): void {
    this.#moves = []
    if (this.#holder?.site !== site) this.#holder = undefined
  }

  answered(answer: Answer): void {
    const holder = this.#holder
    if (holder === undefined || holder.site === answer.site) {
      this.#holder = holder === undefined || answer.seenMs >= holder.seenMs ? answer : holder
      return
    }
    const givenMs = Math.max(answer.sentMs, answer.seenMs - SEEN_WITHIN_MS)
    // It may have been given before the other site took over: then it is an old answer, and the holder stays.
    if (givenMs <= this.#tookOverMs) return
    const move = this.#moves.findIndex(
      ({ to, askedMs }) => to === answer.site && askedMs <= answer.seenMs,
    )
    if (move < 0 || answer.seenMs < holder.sentMs) {
      this.#onTrespass({ answer, before: holder })
      return
    }
    this.#moves.splice(0, move + 1)
    this.#moved++
    this.#holder = answer
    this.#tookOverMs = answer.seenMs
  }

  /** When the present holder's first answer was seen. */
  #tookOverMs = 0
}
