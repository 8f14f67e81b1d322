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

interface Watch {
  answer: ProbeAnswer
  /** CLOCK_BOOTTIME, ms. */
  askedMs: number
  readonly end: AbortController
}

export class Watches {
  readonly #clock: Clock
  readonly #turns = new Turns(LOOKS_AT_ONCE)
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
   * at any more.
   */
  ask(key: string, look: () => Promise<ProbeAnswer>): ProbeAnswer {
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
    void this.#follow(key, watch, look)
    return watch.answer
  }

  close(): void {
    this.#closed = true
    for (const { end } of this.#watches.values()) end.abort(new Error('the agent ends'))
    this.#watches.clear()
  }

  async #follow(key: string, watch: Watch, look: () => Promise<ProbeAnswer>): Promise<void> {
    const { signal } = watch.end
    try {
      while (!watch.answer.ok && !this.#isForgotten(watch)) {
        await this.#turns.take(signal)
        try {
          watch.answer = await look()
        } finally {
          this.#turns.give()
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
