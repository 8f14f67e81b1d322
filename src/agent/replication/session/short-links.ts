/* Links that end as soon as they are up: the peer cannot do anything with them, and says so each time. Without a pause the two sides
 * would do nothing but shake hands and write log lines.
 *
 *     link ended ─┬─ it stood for a while ─► the next dial is made at once, and the end is news
 *                 └─ it did not ───────────► each pause is twice the one before; the end is news once per reason
 */

/** A link that ends sooner was of no use to anybody. */
const SHORT_MS = 1_000
const DIAL_DELAY_MIN_MS = 50
/** Nobody answers: it costs only a packet to look. */
const UNREACHED_MAX_MS = 1_000
/** The peer answers, and the link comes to nothing. */
const SHORT_MAX_MS = 2_000

/** How a dial ended: no connection, a refusal, or a link that stood for so many ms. */
export type DialOutcome = 'unreached' | 'refused' | number

export class DialPace {
  #delayMs = DIAL_DELAY_MIN_MS / 2

  /** How long to wait before the next dial, ms. */
  after(outcome: DialOutcome): number {
    if (typeof outcome === 'number' && outcome >= SHORT_MS) this.#delayMs = DIAL_DELAY_MIN_MS
    else {
      const max = outcome === 'unreached' ? UNREACHED_MAX_MS : SHORT_MAX_MS
      this.#delayMs = Math.min(this.#delayMs * 2, max)
    }
    return this.#delayMs
  }
}

/** Kinds of reasons that are remembered. */
const TOLD_MAX = 16

/** Whether an operator should read of the end of a link, or has done so already. */
export class LinkNews {
  readonly #told = new Set<string>()

  /** `livedMs`: how long the link stood. Numbers in the reason (of frames, of bytes) do not make it another one. */
  isNews(reason: string, livedMs: number): boolean {
    if (livedMs >= SHORT_MS || this.#told.size >= TOLD_MAX) this.#told.clear()
    const kind = reason.replaceAll(/\d+/g, '#')
    const again = this.#told.has(kind)
    this.#told.add(kind)
    return !again
  }
}
