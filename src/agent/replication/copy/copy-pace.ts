/* How much of a copy may be on its way at one time.
 *
 * The copy shares one stream, one disk and one event loop with the writes of clients, and those go first. What the copy puts on the way is
 * what a client's write has to wait for, so the window of unacknowledged copy bytes follows how long the copy's own frames take to
 * be acknowledged: as TCP Vegas does, against the shortest time seen.
 *
 *     nobody writes              the window grows by what is acknowledged, up to WINDOW_MAX: the link, or the disk, is the limit
 *     clients write              it grows slowly while frames take at most TARGET_MS longer than the shortest time, and shrinks by a
 *                                quarter per round when they take longer, down to WINDOW_MIN
 *
 * A fixed rate, if there is one, is kept besides. Decides; reads no clock of its own.
 */

/** Longest range of one step, and longest frame of a copy: what a client's write may find before it in the stream. */
export const COPY_STEP_BYTES = 512 * 1024
export const WINDOW_MIN = 256 * 1024
export const WINDOW_MAX = 16 * 1024 * 1024
const WINDOW_START = 2 * 1024 * 1024
/** Longest time that the copy should add to a client's write while the link is otherwise idle, ms. */
const TARGET_MS = 2
/** A client counts as writing this long after its last write, ms. */
const FOREGROUND_MS = 250
const STEPS_BUSY = 2
export const STEPS_MAX = 8
/** Bytes that the window grows by per round while clients write. */
const STEP_BYTES = 128 * 1024
/** The shortest time is forgotten at this rate per round, so that a link that has become slower is not held against it for ever. */
const BASE_GROWTH = 1.001

interface Sent {
  readonly seq: number
  readonly bytes: number
  readonly atMs: number
}

export class CopyPace {
  #window = WINDOW_START
  #inFlight = 0
  #sent: Sent[] = []
  #baseMs = Number.POSITIVE_INFINITY
  #foregroundMs = Number.NEGATIVE_INFINITY
  /** The window shrinks once per round: when something is acknowledged that was sent after the last time. */
  #shrunkAtMs = Number.NEGATIVE_INFINITY
  #nextAllowedMs = 0

  /** Copy bytes that are not acknowledged. */
  get inFlightBytes(): number {
    return this.#inFlight
  }

  get windowBytes(): number {
    return this.#window
  }

  /** There is room for more. */
  get open(): boolean {
    return this.#inFlight === 0 || this.#inFlight < this.#window
  }

  /** Bytes that one step should take at most. */
  stepBytes(now: number): number {
    const share = this.#busy(now) ? this.#window / 4 : this.#window / 2
    return Math.min(COPY_STEP_BYTES, Math.max(64 * 1024, share))
  }

  /** Steps that may be under way: reading and comparing take the disk and the loop from clients. */
  steps(now: number): number {
    return this.#busy(now) ? STEPS_BUSY : STEPS_MAX
  }

  /** Milliseconds until the fixed rate allows more; 0: now. */
  waitMs(now: number): number {
    return Math.max(0, this.#nextAllowedMs - now)
  }

  /** A client has written. */
  foreground(now: number): void {
    this.#foregroundMs = now
  }

  /** A frame of the copy was numbered `seq`. `rateBytes` per second, 0: no limit. */
  sent(seq: number, bytes: number, now: number, rateBytes: number): void {
    this.#sent.push({ seq, bytes, atMs: now })
    this.#inFlight += bytes
    if (rateBytes > 0) {
      this.#nextAllowedMs = Math.max(now, this.#nextAllowedMs) + (bytes / rateBytes) * 1_000
    } else this.#nextAllowedMs = now
  }

  /** The replica holds everything up to `seq`. */
  acknowledged(seq: number, now: number): void {
    let settled = 0
    let bytes = 0
    while (settled < this.#sent.length) {
      const first = this.#sent[settled] as Sent
      if (first.seq > seq) break
      bytes += first.bytes
      settled++
    }
    if (settled === 0) return
    const last = this.#sent[settled - 1] as Sent
    this.#sent.splice(0, settled)
    this.#inFlight -= bytes
    this.#adapt(now - last.atMs, last.atMs, bytes, now)
  }

  #busy(now: number): boolean {
    return now - this.#foregroundMs < FOREGROUND_MS
  }

  #adapt(tookMs: number, sentMs: number, bytes: number, now: number): void {
    this.#baseMs = Math.min(this.#baseMs * BASE_GROWTH, tookMs)
    if (!this.#busy(now)) {
      this.#window = Math.min(WINDOW_MAX, this.#window + bytes)
      return
    }
    if (tookMs <= this.#baseMs + TARGET_MS) {
      this.#window = Math.min(WINDOW_MAX, this.#window + (STEP_BYTES * bytes) / this.#window)
    } else if (sentMs > this.#shrunkAtMs) {
      this.#window = Math.max(WINDOW_MIN, this.#window * 0.75)
      this.#shrunkAtMs = now
    }
  }
}
