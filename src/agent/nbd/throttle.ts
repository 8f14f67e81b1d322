import type { Clock } from '#base/clock.ts'
import { type Device, type Io, IO_ERRORS } from './device.ts'

/* What clients of a volume may ask of it per second, and whether they may change it.
 *
 *     connection ─► LimitedDevice ─► the device that serves: local, or of a session
 *                        │ ▲
 *                        ▼ │ in order, as the bucket fills
 *                     waiting
 *
 * A volume without limits has no LimitedDevice: its connections talk to the device itself.
 *
 * The bucket holds what the volume may do in BURST_MS. A request may begin while there is anything in it and takes all that it costs, so the
 * bucket may go below nothing and the next one waits for longer: a request of any size gets through, and the mean is exact. Idle time is worth
 * BURST_MS and no more.
 *
 * A read or write costs one operation and its bytes, in parts of at most 1 MiB, as large requests reach devices in parts. Zeroing and trimming
 * cost one operation: they move no data. Flushes and questions about extents cost nothing and pass those that wait, which is theirs
 * by right: a flush is about what was answered before it.
 *
 * Who takes the export away (a role that switches, a client that is dropped) does not wait for the bucket: what waits then is carried out at once,
 * on credit.
 */

/** Long against the delays of timers, which would otherwise cost throughput; short against what people notice as a burst. */
export const BURST_MS = 100
/** Longest sleep: a wait that a new limit shortens is looked at again by then, and no sum of debts makes a timer overflow. */
const SLEEP_MS_MAX = 1_000

export interface Limit {
  /** Requests per second, of either direction; null: no limit. */
  readonly iops: number | null
  /** Bytes per second, of both directions together; null: no limit. */
  readonly bytesPerSecond: number | null
  /** Whoever changes anything gets EPERM. */
  readonly readOnly: boolean
}

export const isNoLimit = ({ iops, bytesPerSecond, readOnly }: Limit): boolean =>
  iops === null && bytesPerSecond === null && !readOnly

/** One for a volume, under whatever names it is exported. */
export class Bucket {
  readonly clock: Clock
  #limit: Limit
  #operations = 0
  #bytes = 0
  #filledMs: number

  constructor(clock: Clock, limit: Limit) {
    this.clock = clock
    this.#limit = limit
    this.#filledMs = clock.bootMs()
    this.#operations = fullOf(limit.iops)
    this.#bytes = fullOf(limit.bytesPerSecond)
  }

  get limit(): Limit {
    return this.#limit
  }

  /** Debts are forgotten: they were made under another limit. */
  set limit(limit: Limit) {
    this.#limit = limit
    this.#filledMs = this.clock.bootMs()
    this.#operations = fullOf(limit.iops)
    this.#bytes = fullOf(limit.bytesPerSecond)
  }

  /** Milliseconds until a request may begin; 0: now. */
  waitMs(): number {
    const { iops, bytesPerSecond } = this.#limit
    const nowMs = this.clock.bootMs()
    const passedMs = nowMs - this.#filledMs
    this.#filledMs = nowMs
    let waitMs = 0
    if (iops !== null) {
      this.#operations = Math.min(fullOf(iops), this.#operations + (iops * passedMs) / 1000)
      if (this.#operations <= 0) waitMs = (1 - this.#operations) * (1000 / iops)
    }
    if (bytesPerSecond !== null) {
      const full = fullOf(bytesPerSecond)
      this.#bytes = Math.min(full, this.#bytes + (bytesPerSecond * passedMs) / 1000)
      if (this.#bytes <= 0) {
        waitMs = Math.max(waitMs, (1 - this.#bytes) * (1000 / bytesPerSecond))
      }
    }
    return waitMs
  }

  take(operations: number, bytes: number): void {
    this.#operations -= operations
    this.#bytes -= bytes
  }
}

/** At least one, so that the slowest limit still lets one request begin. */
const fullOf = (perSecond: number | null): number =>
  perSecond === null ? 0 : Math.max(1, (perSecond * BURST_MS) / 1000)

const CHANGES: ReadonlySet<Io['kind']> = new Set(['write', 'zero'])

export class LimitedDevice implements Device {
  readonly inner: Device
  readonly #bucket: Bucket
  /** Reads, writes and zeroes in the order of their arrival. */
  #waiting: Io[] = []
  #cancel: (() => void) | undefined

  constructor(inner: Device, bucket: Bucket) {
    this.inner = inner
    this.#bucket = bucket
  }

  get sizeBytes(): number {
    return this.inner.sizeBytes
  }

  get readOnly(): boolean {
    return this.#bucket.limit.readOnly || this.inner.readOnly === true
  }

  /** Requests that wait for the bucket. */
  get waiting(): number {
    return this.#waiting.length
  }

  submit(batch: readonly Io[], count: number): void {
    const passing: Io[] = []
    const { readOnly } = this.#bucket.limit
    for (let i = 0; i < count; i++) {
      const io = batch[i] as Io
      if (io.kind === 'flush' || io.kind === 'extents') passing.push(io)
      else if (readOnly && CHANGES.has(io.kind)) io.complete(IO_ERRORS.EPERM)
      else this.#waiting.push(io)
    }
    this.#let(passing)
  }

  /** Everything that waits is carried out now. */
  release(): void {
    this.#cancel?.()
    this.#cancel = undefined
    const all = this.#waiting
    this.#waiting = []
    for (const io of all) this.#charge(io)
    if (all.length > 0) this.inner.submit(all, all.length)
  }

  /** Submits what may pass, behind `passing`, and comes back when more may. */
  #let(passing: Io[]): void {
    let at = 0
    let waitMs = 0
    while (at < this.#waiting.length) {
      waitMs = this.#bucket.waitMs()
      if (waitMs > 0) break
      // The parts of one large write stay together.
      for (let more = true; more && at < this.#waiting.length; at++) {
        const io = this.#waiting[at] as Io
        this.#charge(io)
        passing.push(io)
        more = io.more
      }
    }
    this.#waiting = at === 0 ? this.#waiting : this.#waiting.slice(at)
    if (this.#waiting.length > 0 && this.#cancel === undefined) {
      const sleepMs = Math.min(SLEEP_MS_MAX, Math.max(1, Math.ceil(waitMs)))
      this.#cancel = this.#bucket.clock.after(sleepMs, () => {
        this.#cancel = undefined
        this.#let([])
      })
    }
    if (passing.length > 0) this.inner.submit(passing, passing.length)
  }

  #charge({ kind, length }: Io): void {
    this.#bucket.take(1, kind === 'zero' ? 0 : length)
  }
}
