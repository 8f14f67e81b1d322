/**
 * The right to acknowledge without the peer, until a moment on CLOCK_BOOTTIME. Whoever releases anything asks
 * `valid` with a fresh clock reading: a flag set by a timer would still say yes after the event loop stood still.
 */
export class Lease {
  #untilMs = 0

  /** `sentMs`: reading from before the request was sent, so that the holder never counts longer than the witness. */
  granted(sentMs: number, leaseMs: number): void {
    this.#untilMs = Math.max(this.#untilMs, sentMs + leaseMs)
  }

  /** Given up: the session no longer acknowledges alone. */
  end(): void {
    this.#untilMs = 0
  }

  valid(nowMs: number): boolean {
    return nowMs < this.#untilMs
  }

  get untilMs(): number {
    return this.#untilMs
  }
}
