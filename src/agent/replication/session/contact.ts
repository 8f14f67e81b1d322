/**
 * The writer's side of contact: how long the replica's last answer lets it go on answering clients.
 *
 * Together with `Silence` this keeps two sites from answering at the same time without asking anybody: an answer of
 * the replica at time T can extend the writer's right to at most T + silence, because the writer counts from before it
 * sent the heartbeat that was answered; and a replica that becomes writer first waits longer than that.
 */
export class Contact {
  readonly #silenceMs: number
  #heardMs = Number.NEGATIVE_INFINITY

  constructor(silenceMs: number) {
    this.#silenceMs = silenceMs
  }

  /** `sentMs`: this side's clock when it sent the heartbeat that the peer has now answered. */
  heard(sentMs: number): void {
    if (sentMs > this.#heardMs) this.#heardMs = sentMs
  }

  /** Forgets the peer: another epoch, or another role. */
  end(): void {
    this.#heardMs = Number.NEGATIVE_INFINITY
  }

  valid(nowMs: number): boolean {
    return nowMs < this.#heardMs + this.#silenceMs
  }

  /** Milliseconds since the answered heartbeat was sent; null when none was. */
  silenceMs(nowMs: number): number | null {
    return this.#heardMs === Number.NEGATIVE_INFINITY ? null : Math.max(0, nowMs - this.#heardMs)
  }
}

/** Two clocks may run this much apart over one silence; the rest covers timer and rounding error. */
const DRIFT_FACTOR = 1.05
const MARGIN_MS = 100

/** The replica's side: when the writer it last answered has certainly stopped answering clients. */
export class Silence {
  readonly #silenceMs: number
  #answeredMs: number

  /** A process that has just started cannot know what its predecessor answered, so it counts from its start. */
  constructor(silenceMs: number, startedMs: number) {
    this.#silenceMs = silenceMs
    this.#answeredMs = startedMs
  }

  /** Call before the answer is handed to the socket. */
  answered(nowMs: number): void {
    if (nowMs > this.#answeredMs) this.#answeredMs = nowMs
  }

  /** When it answered last, or began; this host's CLOCK_BOOTTIME, ms. */
  get answeredMs(): number {
    return this.#answeredMs
  }

  /** The old writer has said, on its disk, that it answers nothing any more: nothing is left to wait for. */
  endBy(nowMs: number): void {
    this.#answeredMs = Math.min(
      this.#answeredMs,
      nowMs - this.#silenceMs * DRIFT_FACTOR - MARGIN_MS,
    )
  }

  overAtMs(): number {
    return this.#answeredMs + this.#silenceMs * DRIFT_FACTOR + MARGIN_MS
  }
}
