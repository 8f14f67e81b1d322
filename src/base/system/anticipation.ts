import { availableParallelism } from 'node:os'

/* Staying awake for what is about to come.
 *
 * A process that sleeps in the kernel is woken 5 to 50 us after the bytes it waits for have arrived, most on virtual machines whose
 * idle processors are given back to the host. For a client that waits for each write, that is most of the time the write takes. So
 * whoever expects something says so, and the event loop then looks for it again and again instead of sleeping:
 *
 *     expect ──► turn, turn, turn ... ──► came                 the loop serves everything else meanwhile
 *        └── the last wait was longer than the window: sleeps as ever
 *
 * It costs processor time, and is therefore bounded twice: by the window, and by what the last wait of the same kind took. Where the
 * answer is further away than the window (another city, a slow disk), or nobody asks, the loop sleeps.
 */

/** With one core, whoever is awake keeps the expected from happening. */
const CORES = availableParallelism()

/** What the loop is awake for. */
const awaited = new Set<Anticipation>()
let turning = false

const turn = (): void => {
  const now = performance.now()
  for (const one of awaited) if (one.overAtMs <= now) awaited.delete(one)
  if (awaited.size > 0) setImmediate(turn)
  else turning = false
}

/** One kind of event that comes again and again, waited for by one party at a time. */
export class Anticipation {
  readonly #windowMs: number
  #sinceMs = 0
  #lastMs = 0
  /** When the loop gives up, in milliseconds of `performance.now`. */
  overAtMs = 0

  /** `windowMs`: longest wait that the loop stays awake for. */
  constructor(windowMs: number) {
    this.#windowMs = CORES > 1 ? windowMs : 0
  }

  /** The event may come any moment. Hot path. */
  expect(): void {
    const now = performance.now()
    // What was expected before and has not come takes at least this long.
    if (this.#sinceMs !== 0) this.#lastMs = now - this.#sinceMs
    this.#sinceMs = now
    if (!this.willing) return
    this.overAtMs = now + this.#windowMs
    awaited.add(this)
    if (turning) return
    turning = true
    setImmediate(turn)
  }

  /** It came. Without `expect` before it, nothing. */
  came(): void {
    if (this.#sinceMs === 0) return
    awaited.delete(this)
    this.#lastMs = performance.now() - this.#sinceMs
    this.#sinceMs = 0
  }

  /** Whether the next `expect` keeps the loop awake. */
  get willing(): boolean {
    return this.#lastMs <= this.#windowMs && this.#windowMs > 0
  }
}
