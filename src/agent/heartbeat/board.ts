/* Memory that the main thread and the heartbeat thread share, so that each can tell the other a time without waiting for it.
 *
 * A cell holds one moment in microseconds of CLOCK_BOOTTIME, which is the same clock in both threads. One side writes a cell,
 * the other reads it; a 64-bit atomic store is never seen half done.
 */

const NEVER = 0n

/** One moment, written by one thread and read by the other. */
export class MomentCell {
  static readonly BYTES = 8
  readonly #cell: BigInt64Array<SharedArrayBuffer>

  constructor(memory: SharedArrayBuffer, index = 0) {
    this.#cell = new BigInt64Array(memory, index * MomentCell.BYTES, 1)
  }

  /** `bootMs`: CLOCK_BOOTTIME, ms. */
  set(bootMs: number): void {
    Atomics.store(this.#cell, 0, BigInt(Math.max(1, Math.round(bootMs * 1000))))
  }

  /** CLOCK_BOOTTIME, ms; null: never set. */
  get(): number | null {
    const value = Atomics.load(this.#cell, 0)
    return value === NEVER ? null : Number(value) / 1000
  }
}

/** What is known of one process that beats: written by the heartbeat thread, read by the main thread. */
export class PeerCells {
  static readonly BYTES = 2 * MomentCell.BYTES
  /** When the peer was last certain to hear us and be heard. */
  readonly heard: MomentCell
  /** When the peer's data plane last moved, as far as this side knows. */
  readonly moved: MomentCell

  constructor(memory: SharedArrayBuffer) {
    this.heard = new MomentCell(memory, 0)
    this.moved = new MomentCell(memory, 1)
  }
}
