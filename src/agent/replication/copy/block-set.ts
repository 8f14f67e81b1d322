import { assert } from '#base/assert.ts'
import { BLOCK_BYTES } from '#wire/link/frame.ts'

/* A set of 64 KiB blocks of one volume, one bit each: 2 MiB for a volume of 1 TiB, of which only the pages that were ever
 * touched take memory. Searching skips 32 blocks at a time. */

const WORD = 32

export const blockCount = (sizeBytes: number): number => Math.ceil(sizeBytes / BLOCK_BYTES)

export class BlockSet {
  #words: Uint32Array
  #blocks: number
  #count = 0

  constructor(blocks: number) {
    this.#blocks = blocks
    this.#words = new Uint32Array(Math.ceil(blocks / WORD))
  }

  /** Blocks in the set. */
  get count(): number {
    return this.#count
  }

  /** Blocks of the volume. */
  get blocks(): number {
    return this.#blocks
  }

  has(block: number): boolean {
    return (((this.#words[block >>> 5] ?? 0) >>> (block & 31)) & 1) === 1
  }

  add(block: number): void {
    if (block >= this.#blocks || this.has(block)) return
    const at = block >>> 5
    this.#words[at] = (this.#words[at] as number) | (1 << (block & 31))
    this.#count++
  }

  delete(block: number): void {
    if (block >= this.#blocks || !this.has(block)) return
    const at = block >>> 5
    this.#words[at] = (this.#words[at] as number) & ~(1 << (block & 31))
    this.#count--
  }

  /** Adds blocks [first, end), as far as the volume has them. */
  addBlocks(first: number, end: number): void {
    const last = Math.min(end, this.#blocks)
    for (let block = first; block < last; ) {
      if ((block & 31) === 0 && last - block >= WORD) {
        const at = block >>> 5
        this.#count += WORD - ones(this.#words[at] as number)
        this.#words[at] = 0xffff_ffff
        block += WORD
      } else this.add(block++)
    }
  }

  deleteBlocks(first: number, end: number): void {
    const last = Math.min(end, this.#blocks)
    for (let block = first; block < last; ) {
      if ((block & 31) === 0 && last - block >= WORD) {
        const at = block >>> 5
        this.#count -= ones(this.#words[at] as number)
        this.#words[at] = 0
        block += WORD
      } else this.delete(block++)
    }
  }

  /** Adds every block that bytes [offset, offset + length) touch. */
  addRange(offset: number, length: number): void {
    if (length === 0) return
    this.addBlocks(
      Math.floor(offset / BLOCK_BYTES),
      Math.floor((offset + length - 1) / BLOCK_BYTES) + 1,
    )
  }

  addAll(): void {
    this.addBlocks(0, this.#blocks)
  }

  clear(): void {
    this.#words.fill(0)
    this.#count = 0
  }

  /** Adds what `bits` names: bit n of it, least significant first, is block `first` + n. `first` is a multiple of 8. */
  addBits(bits: Uint8Array, first: number): void {
    assert(first % 8 === 0, 'bits begin at a whole byte')
    for (let i = 0; i < bits.length; i++) {
      const byte = bits[i] as number
      if (byte === 0) continue
      for (let bit = 0; bit < 8; bit++) {
        if (((byte >>> bit) & 1) === 1) this.add(first + i * 8 + bit)
      }
    }
  }

  /** The first block of the set at or behind `from`; -1 when there is none. */
  next(from: number): number {
    if (from >= this.#blocks || this.#count === 0) return -1
    let at = from >>> 5
    let word = ((this.#words[at] as number) >>> (from & 31)) << (from & 31)
    while (word === 0) {
      if (++at >= this.#words.length) return -1
      word = this.#words[at] as number
    }
    return at * WORD + 31 - Math.clz32(word & -word)
  }

  /** End of the run of set blocks that begins at `from`, at most `limit`. */
  runEnd(from: number, limit: number): number {
    let block = from
    const end = Math.min(limit, this.#blocks)
    while (block < end && this.has(block)) block++
    return block
  }

  /** Makes room for more blocks. */
  grow(blocks: number): void {
    if (blocks <= this.#blocks) return
    const words = new Uint32Array(Math.ceil(blocks / WORD))
    words.set(this.#words)
    this.#words = words
    this.#blocks = blocks
  }
}

/** Bits set in a word of 32. */
function ones(word: number): number {
  let n = word - ((word >>> 1) & 0x5555_5555)
  n = (n & 0x3333_3333) + ((n >>> 2) & 0x3333_3333)
  return Math.imul((n + (n >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24
}
