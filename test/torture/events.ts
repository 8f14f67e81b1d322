import type { Clock } from '#base/clock.ts'

/** What happened, in order. Kept short: a violation shows the events around it. */
export interface Event {
  /** Since the beginning of the run. */
  readonly atMs: number
  readonly what: string
}

export interface Violation {
  readonly atMs: number
  readonly round: number
  readonly what: string
  /** The events before it. */
  readonly around: readonly Event[]
}

const AROUND = 40
const KEPT = 2_000

export class Events {
  readonly #clock: Clock
  readonly #beganMs: number
  readonly #say: (line: string) => void
  #events: Event[] = []
  readonly violations: Violation[] = []
  round = 0

  constructor(clock: Clock, say: (line: string) => void) {
    this.#clock = clock
    this.#beganMs = clock.bootMs()
    this.#say = say
  }

  get nowMs(): number {
    return Math.round(this.#clock.bootMs() - this.#beganMs)
  }

  add(what: string): void {
    const event = { atMs: this.nowMs, what }
    this.#events.push(event)
    if (this.#events.length > KEPT) this.#events = this.#events.slice(-KEPT / 2)
    this.#say(`${(event.atMs / 1000).toFixed(3).padStart(9)} ${what}`)
  }

  violation(what: string): void {
    // One mistake shows itself many times; the first ones tell the most.
    if (this.violations.length < 20) {
      this.violations.push({
        atMs: this.nowMs,
        round: this.round,
        what,
        around: this.#events.slice(-AROUND),
      })
    }
    this.add(`VIOLATION: ${what}`)
  }
}
