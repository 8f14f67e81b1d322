import { type Clock, sleep } from '#base/clock.ts'
import { Turns } from '#base/turns.ts'
import type { ProbeAnswer } from '#wire/site/probes.ts'

/* Looks at guests that go on between two questions, so that the moment of a success is known to a fraction of a second however many probes are
 * asked for, in whatever order, and whoever was away meanwhile. A watch ends with its success, with its guest, or when nobody has asked for it
 * for a while. */

/** Between two looks of one watch. */
const AGAIN_MS = 250
/** Without a question for so long, nobody wants to know any more. Longer than the restart of a control plane. */
export const WATCH_KEPT_MS = 60_000
/** Watches at a time, successes that are still asked for among them. A further one is refused in words, and asked for again by whoever wants it. */
export const WATCHES_MAX = 4_096
/** Looks under way at a time: each may hold the answer of a guest, up to 1 MiB of console or of its agent. */
const LOOKS_AT_ONCE = 32
/** Those that may last for many seconds have places of their own: they keep no short one waiting, whose moment is measured. */
const LONG_LOOKS_AT_ONCE = 32
/** And of one guest: one that hangs on everything it is asked takes few of them from the guests of others. */
const LONG_LOOKS_OF_ONE = 2

interface Watch {
  answer: ProbeAnswer
  /** CLOCK_BOOTTIME, ms. */
  askedMs: number
  readonly end: AbortController
}

export class Watches {
  readonly #clock: Clock
  readonly #turns = new Turns(LOOKS_AT_ONCE)
  readonly #longTurns = new Turns(LONG_LOOKS_AT_ONCE)
  /** Of guests with a long watch. */
  readonly #guests = new Map<string, { readonly turns: Turns; watches: number }>()
  readonly #watches = new Map<string, Watch>()
  #closed = false

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get size(): number {
    return this.#watches.size
  }

  /**
   * What is known, at once. The first question begins the watch; `look` is called again and again, and rejects when there is nothing to look
   * at any more. `long`: the guest of a look that may take many seconds; null: it is over in a moment.
   */
  ask(key: string, long: string | null, look: () => Promise<ProbeAnswer>): ProbeAnswer {
    this.#forget()
    const known = this.#watches.get(key)
    if (known !== undefined) {
      known.askedMs = this.#clock.bootMs()
      return known.answer
    }
    if (this.#closed || this.#watches.size >= WATCHES_MAX)
      return not('too many probes at this site')
    const watch: Watch = {
      answer: not('the first look is under way'),
      askedMs: this.#clock.bootMs(),
      end: new AbortController(),
    }
    this.#watches.set(key, watch)
    void this.#followIn(key, watch, long, look)
    return watch.answer
  }

  close(): void {
    this.#closed = true
    for (const { end } of this.#watches.values()) end.abort(new Error('the agent ends'))
    this.#watches.clear()
  }

  async #followIn(
    key: string,
    watch: Watch,
    long: string | null,
    look: () => Promise<ProbeAnswer>,
  ): Promise<void> {
    if (long === null) return await this.#follow(key, watch, [this.#turns], look)
    const guest = this.#guests.get(long) ?? { turns: new Turns(LONG_LOOKS_OF_ONE), watches: 0 }
    this.#guests.set(long, guest)
    guest.watches++
    // The guest's own first: who waits for that holds no place of the others.
    await this.#follow(key, watch, [guest.turns, this.#longTurns], look)
    if (--guest.watches === 0) this.#guests.delete(long)
  }

  async #follow(
    key: string,
    watch: Watch,
    places: readonly Turns[],
    look: () => Promise<ProbeAnswer>,
  ): Promise<void> {
    const { signal } = watch.end
    try {
      while (!watch.answer.ok && !this.#isForgotten(watch)) {
        const taken: Turns[] = []
        try {
          for (const turns of places) {
            await turns.take(signal)
            taken.push(turns)
          }
          watch.answer = await look()
        } finally {
          for (const turns of taken) turns.give()
        }
        if (!watch.answer.ok) await sleep(this.#clock, AGAIN_MS, signal)
      }
    } catch {
      // The guest is gone, or the watch is. Whoever still asks begins another, and is told why there is nothing to look at.
      if (this.#watches.get(key) === watch) this.#watches.delete(key)
    }
  }

  #isForgotten({ askedMs }: Watch): boolean {
    return this.#clock.bootMs() - askedMs > WATCH_KEPT_MS
  }

  #forget(): void {
    for (const [key, watch] of this.#watches) {
      if (!this.#isForgotten(watch)) continue
      this.#watches.delete(key)
      watch.end.abort(new Error('nobody asks any more'))
    }
  }
}

const not = (detail: string): ProbeAnswer => ({
  ok: false,
  detail,
  since_start_ms: null,
  output: '',
})
