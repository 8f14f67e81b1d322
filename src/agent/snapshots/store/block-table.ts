import { assert } from '#base/assert.ts'
import type { Range } from '../snapshots.ts'

/* Which blocks of a volume a before-image holds, in memory: a byte and a checksum per block, in pages that exist once one of their blocks
 * does. 20 KiB for each 256 MiB that were touched. */

const PAGE_BLOCKS = 4096
const ABSENT = 0
const DATA = 1
const HOLE = 2

interface Page {
  readonly kinds: Uint8Array
  readonly checksums: Uint32Array
}

export type BlockKind = 'data' | 'hole'

export class BlockTable {
  readonly sizeBytes: number
  readonly blockBytes: number
  /** Blocks of the volume. */
  readonly blocks: number
  readonly #pages = new Map<number, Page>()
  #count = 0

  constructor(sizeBytes: number, blockBytes: number) {
    this.sizeBytes = sizeBytes
    this.blockBytes = blockBytes
    this.blocks = Math.ceil(sizeBytes / blockBytes)
  }

  /** Blocks held. */
  get count(): number {
    return this.#count
  }

  has(block: number): boolean {
    return this.#kind(block) !== ABSENT
  }

  kind(block: number): BlockKind | undefined {
    const kind = this.#kind(block)
    return kind === ABSENT ? undefined : kind === DATA ? 'data' : 'hole'
  }

  checksum(block: number): number {
    const page = this.#pages.get(Math.floor(block / PAGE_BLOCKS))
    assert(page !== undefined, 'only blocks that are held have a checksum')
    return page.checksums[block % PAGE_BLOCKS] as number
  }

  /** Whether a block of [first, last] inside the volume's size is not held. */
  lacks(first: number, last: number): boolean {
    const end = Math.min(last, this.blocks - 1)
    for (let block = first; block <= end; block++) {
      if (this.#kind(block) === ABSENT) return true
    }
    return false
  }

  /** Whether one of [first, last] is held. */
  touches(first: number, last: number): boolean {
    for (let block = first; block <= last; block++) if (this.#kind(block) !== ABSENT) return true
    return false
  }

  set(block: number, kind: BlockKind, checksum: number): void {
    assert(block >= 0 && block < this.blocks, 'a block lies inside its volume')
    const index = Math.floor(block / PAGE_BLOCKS)
    let page = this.#pages.get(index)
    if (page === undefined) {
      page = { kinds: new Uint8Array(PAGE_BLOCKS), checksums: new Uint32Array(PAGE_BLOCKS) }
      this.#pages.set(index, page)
    }
    const at = block % PAGE_BLOCKS
    if (page.kinds[at] === ABSENT) this.#count++
    page.kinds[at] = kind === 'data' ? DATA : HOLE
    page.checksums[at] = checksum
  }

  /** Held blocks in order. */
  *held(): Generator<number> {
    for (const index of [...this.#pages.keys()].sort((a, b) => a - b)) {
      const { kinds } = this.#pages.get(index) as Page
      for (let at = 0; at < PAGE_BLOCKS; at++) {
        if (kinds[at] !== ABSENT) yield index * PAGE_BLOCKS + at
      }
    }
  }

  /** Bytes of a block: the last one may be short. */
  length(block: number): number {
    return Math.min(this.blockBytes, this.sizeBytes - block * this.blockBytes)
  }

  get heldBytes(): number {
    if (this.#count === 0) return 0
    const short = this.blocks * this.blockBytes - this.sizeBytes
    return this.#count * this.blockBytes - (this.has(this.blocks - 1) ? short : 0)
  }

  ranges(): Range[] {
    return rangesOf(this.held(), this)
  }

  #kind(block: number): number {
    const page = this.#pages.get(Math.floor(block / PAGE_BLOCKS))
    return page === undefined ? ABSENT : (page.kinds[block % PAGE_BLOCKS] as number)
  }
}

/** Blocks in order as ranges of bytes. */
export function rangesOf(blocks: Iterable<number>, table: BlockTable): Range[] {
  const ranges: { offset: number; length: number }[] = []
  for (const block of blocks) {
    const offset = block * table.blockBytes
    const last = ranges.at(-1)
    if (last !== undefined && last.offset + last.length === offset) {
      last.length += table.length(block)
    } else ranges.push({ offset, length: table.length(block) })
  }
  return ranges
}
