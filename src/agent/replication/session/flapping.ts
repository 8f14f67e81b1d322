/**
 * How long a link must have been up before the next rise is begun.
 *
 * A link that is lost within a minute of a rise makes the next one wait longer: 0, 2, 4, 8 ... 60 s. One that held for a minute is
 * forgiven. Replicas catch up meanwhile and clients notice nothing; only the epochs, and the held moment of each loss, are saved.
 */
const SOON_MS = 60_000
const FIRST_MS = 2_000
const MAX_MS = 60_000

export class Flapping {
  #risenMs: number | null = null
  #waitMs = 0

  risen(nowMs: number): void {
    this.#risenMs = nowMs
  }

  /** Losses between two rises say nothing new. */
  lost(nowMs: number): void {
    if (this.#risenMs === null) return
    const soon = nowMs - this.#risenMs < SOON_MS
    this.#risenMs = null
    this.#waitMs = soon ? Math.min(MAX_MS, Math.max(FIRST_MS, this.#waitMs * 2)) : 0
  }

  get waitMs(): number {
    return this.#waitMs
  }
}
