import { BLOCKS_PER_REGION } from '#wire/link/changes.ts'
import { BLOCK_BYTES } from '#wire/link/frame.ts'
import { BlockSet, blockCount } from './block-set.ts'

/* What is left to be copied of one member, in blocks of 64 KiB. A block is in one of two sets at most:
 *
 *     send       known to have changed: goes out without a question
 *     compare    may have changed: its checksum is compared first
 *
 * A block leaves its set when a copy takes it, and comes back when the copy was stopped before the replica had it.
 */

export interface CopyRun {
  readonly offset: number
  readonly length: number
  readonly compare: boolean
}

export class CopyTodo {
  readonly send: BlockSet
  readonly compare: BlockSet
  #sizeBytes: number

  constructor(sizeBytes: number) {
    this.#sizeBytes = sizeBytes
    this.send = new BlockSet(blockCount(sizeBytes))
    this.compare = new BlockSet(blockCount(sizeBytes))
  }

  /** Blocks left. */
  get count(): number {
    return this.send.count + this.compare.count
  }

  sendRange(offset: number, length: number): void {
    if (length === 0) return
    this.send.addRange(offset, length)
    if (this.compare.count > 0) {
      const end = Math.floor((offset + length - 1) / BLOCK_BYTES) + 1
      this.compare.deleteBlocks(Math.floor(offset / BLOCK_BYTES), end)
    }
  }

  compareRange(offset: number, length: number): void {
    if (length === 0) return
    const end = Math.floor((offset + length - 1) / BLOCK_BYTES) + 1
    for (let block = Math.floor(offset / BLOCK_BYTES); block < end; ) {
      const known = this.send.next(block)
      const stop = known < 0 ? end : Math.min(known, end)
      this.compare.addBlocks(block, stop)
      block = known < 0 ? end : Math.max(stop, this.send.runEnd(known, end))
    }
  }

  /** Everything, compared, but for what is known to have changed. */
  compareAll(): void {
    this.compareRange(0, this.#sizeBytes)
  }

  /** Bits of blocks to be sent, from block `first` on, and of regions to be compared. `first` is the first block of a region. */
  addBits(first: number, send: Uint8Array, compare: Uint8Array): void {
    this.send.addBits(send, first)
    for (let block = this.send.next(first); block >= 0 && this.compare.count > 0; ) {
      const end = this.send.runEnd(block, this.send.blocks)
      this.compare.deleteBlocks(block, end)
      block = this.send.next(end)
    }
    for (let i = 0; i < compare.length * 8; i++) {
      if ((((compare[i >> 3] as number) >> (i & 7)) & 1) === 0) continue
      this.compareRegion(first / BLOCKS_PER_REGION + i)
    }
  }

  compareRegion(region: number): void {
    const offset = region * BLOCKS_PER_REGION * BLOCK_BYTES
    if (offset >= this.#sizeBytes) return
    this.compareRange(offset, Math.min(BLOCKS_PER_REGION * BLOCK_BYTES, this.#sizeBytes - offset))
  }

  /**
   * Takes neighbouring blocks of one kind out, at or behind byte `from`, at most `lengthMax` bytes, a multiple of the block; null when
   * there is nothing behind it.
   */
  take(from: number, lengthMax: number): CopyRun | null {
    const start = Math.ceil(from / BLOCK_BYTES)
    const send = this.send.next(start)
    const compare = this.compare.next(start)
    if (send < 0 && compare < 0) return null
    const compares = send < 0 || (compare >= 0 && compare < send)
    const set = compares ? this.compare : this.send
    const first = compares ? compare : send
    const end = set.runEnd(first, first + Math.max(1, Math.floor(lengthMax / BLOCK_BYTES)))
    set.deleteBlocks(first, end)
    const offset = first * BLOCK_BYTES
    return {
      offset,
      length: Math.min(end * BLOCK_BYTES, this.#sizeBytes) - offset,
      compare: compares,
    }
  }

  putBack({ offset, length, compare }: CopyRun): void {
    if (compare) this.compareRange(offset, length)
    else this.sendRange(offset, length)
  }

  clear(): void {
    this.send.clear()
    this.compare.clear()
  }

  /** The volume has grown. The new part reads as zeroes on both sides. */
  grow(sizeBytes: number): void {
    if (sizeBytes <= this.#sizeBytes) return
    this.#sizeBytes = sizeBytes
    this.send.grow(blockCount(sizeBytes))
    this.compare.grow(blockCount(sizeBytes))
  }
}
