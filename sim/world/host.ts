import type { Clock } from '#base/clock.ts'
import type { Random } from './random.ts'
import type { Timeline } from './timeline.ts'

/* Machines and processes.
 *
 * A host has a boot clock with its own start and its own speed, and a boot id. A process runs on a host until it dies;
 * each start makes a new `Process`, and whatever was planned for a dead one never happens. A paused process (SIGSTOP, a
 * stopped virtual machine, a thread that hangs in the kernel) gets everything that was meant for it when it goes on: first
 * what came from outside, then its own overdue timers, which is the order that hurts most.
 */

/** Speeds of boot clocks differ by less than this share. Leases allow for 1.25 %, contact for 5 %. */
export const CLOCK_SPEED_SPREAD = 0.004

export class Host {
  readonly name: string
  readonly #timeline: Timeline
  readonly #random: Random
  bootId = ''
  powered = true
  #bootAtMs = 0
  #bootOffsetMs = 0
  #speed = 1
  #boots = 0
  #wallOffsetMs = 0

  constructor(name: string, timeline: Timeline, random: Random) {
    this.name = name
    this.#timeline = timeline
    this.#random = random
    this.boot()
  }

  /** Power on: another boot id, the boot clock begins again near zero. */
  boot(): void {
    this.powered = true
    this.bootId = `${this.name}-boot-${++this.#boots}`
    this.#bootAtMs = this.#timeline.nowMs
    this.#bootOffsetMs = this.#random.between(1_000, 100_000)
    this.#speed = 1 + this.#random.between(-CLOCK_SPEED_SPREAD, CLOCK_SPEED_SPREAD) / 2
  }

  bootMs(): number {
    return this.#bootOffsetMs + (this.#timeline.nowMs - this.#bootAtMs) * this.#speed
  }

  /** The boot clock's reading at true time `atMs` of this boot. */
  bootMsAt(atMs: number): number {
    return this.#bootOffsetMs + (atMs - this.#bootAtMs) * this.#speed
  }

  wallMs(): number {
    return 1_700_000_000_000 + this.#timeline.nowMs + this.#wallOffsetMs
  }

  /** Somebody sets the wall clock. Nothing that is promised may depend on it. */
  jumpWall(byMs: number): void {
    this.#wallOffsetMs += byMs
  }

  /** True milliseconds in which the boot clock advances by `delayMs`. */
  trueMs(delayMs: number): number {
    return delayMs / this.#speed
  }
}

export class Process implements Clock {
  readonly host: Host
  readonly #timeline: Timeline
  alive = true
  paused = false
  readonly #waiting: (() => void)[] = []
  readonly #overdue: (() => void)[] = []
  /** Told once when the process is no more; the kernel closes its connections then. */
  readonly onDeath: (() => void)[] = []

  constructor(host: Host, timeline: Timeline) {
    this.host = host
    this.#timeline = timeline
  }

  /** Hands an event from outside to the process: at once, at the end of its pause, or never. */
  deliver(action: () => void): void {
    if (!this.alive) return
    if (this.paused) this.#waiting.push(action)
    else action()
  }

  pause(): void {
    this.paused = true
  }

  resume(): void {
    if (!this.alive || !this.paused) return
    this.paused = false
    const all = [...this.#waiting.splice(0), ...this.#overdue.splice(0)]
    for (const action of all) this.deliver(action)
  }

  kill(): void {
    if (!this.alive) return
    this.alive = false
    for (const tell of this.onDeath.splice(0)) tell()
  }

  bootMs(): number {
    return this.host.bootMs()
  }

  wallMs(): number {
    return this.host.wallMs()
  }

  after(delayMs: number, fire: () => void): () => void {
    let cancelled = false
    const run = () => {
      if (!cancelled && this.alive) fire()
    }
    this.#timeline.after(this.host.trueMs(Math.max(0, delayMs)), () => {
      if (cancelled || !this.alive) return
      if (this.paused) this.#overdue.push(run)
      else fire()
    })
    return () => {
      cancelled = true
    }
  }
}
