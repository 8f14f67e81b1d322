import { type Clock, sleep } from '#base/clock.ts'

/** Keeps work at a rate: whoever was faster waits. What was not used is not saved up. */
export class Pace {
  readonly #clock: Clock
  readonly #rateBytes: number
  #freeAtMs = 0

  /** `rateBytes` per second; 0: no limit. */
  constructor(clock: Clock, rateBytes: number) {
    this.#clock = clock
    this.#rateBytes = rateBytes
  }

  /** To be called after so many bytes; settles when more may follow. Rejects with the signal's reason. */
  async spent(bytes: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.#rateBytes === 0) return
    const now = this.#clock.bootMs()
    this.#freeAtMs = Math.max(now, this.#freeAtMs) + (bytes / this.#rateBytes) * 1000
    const waitMs = this.#freeAtMs - now
    if (waitMs >= 1) await sleep(this.#clock, waitMs, signal)
  }
}
