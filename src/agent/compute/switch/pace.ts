/* How much of the switch's time one NIC may have: a bucket of deliveries that fills steadily. A frame for one receiver costs one, a frame
 * for everybody costs as many as there are. While the bucket is empty the NIC's frames are not read: they wait in the kernel's
 * small queue, then in the guest, so a fast sender is slowed and loses nothing. */

export interface Pace {
  readonly perSecond: number
  /** The bucket's size: what may come at once after a silence. */
  readonly burst: number
}

/** A delivery takes the switch 3 to 5 us (measured, frames of 64 to 1442 bytes), so one NIC gets at most a fifth of a core; with full
 *  frames these are 55 MB/s. */
export const PACE: Pace = { perSecond: 40_000, burst: 4_000 }

export class Bucket {
  readonly #pace: Pace
  #level: number
  #filledMs: number

  constructor(pace: Pace, nowMs: number) {
    this.#pace = pace
    this.#level = pace.burst
    this.#filledMs = nowMs
  }

  /** `cost` may be more than there is: the debt is waited for afterwards. */
  take(cost: number): void {
    this.#level -= cost
  }

  /** How long to wait before the next frame, ms; 0: none. */
  waitMs(nowMs: number): number {
    const { perSecond, burst } = this.#pace
    const passedMs = Math.max(0, nowMs - this.#filledMs)
    this.#filledMs = nowMs
    this.#level = Math.min(burst, this.#level + (passedMs * perSecond) / 1000)
    return this.#level >= 1 ? 0 : Math.ceil(((1 - this.#level) * 1000) / perSecond)
  }
}
