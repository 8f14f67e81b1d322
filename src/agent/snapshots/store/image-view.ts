import { assert } from '#base/assert.ts'
import type { Extent, Volume } from '#agent/volumes/volume.ts'
import { SNAPSHOT_BLOCK_BYTES, type SnapshotView } from '../snapshots.ts'
import type { BeforeImage } from './before-image.ts'

/* A volume as a before-image remembers it: blocks that are held come from there, the others from the live volume.
 *
 * A read of the live volume takes time, and a writer may get its turn in it. That shows: before a block is overwritten it becomes held. So
 * after every look at the live volume the blocks are looked up again, and those that became held are read once more.
 *
 * Without a live volume (a sealed snapshot) what is not held reads as zeroes.
 */

const RUN_BLOCKS_MAX = 64

export interface ImageViewParts {
  readonly image: BeforeImage
  readonly live: Volume | null
  /** The Fault with which the snapshot refuses now: it was deleted, sealed, failed. */
  readonly refusal: () => Error | undefined
}

export function imageView(parts: ImageViewParts): SnapshotView {
  return new ImageView(parts)
}

class ImageView implements SnapshotView {
  readonly #image: BeforeImage
  readonly #live: Volume | null
  readonly #refusal: () => Error | undefined

  constructor({ image, live, refusal }: ImageViewParts) {
    this.#image = image
    this.#live = live
    this.#refusal = refusal
  }

  get sizeBytes(): number {
    return this.#image.table.sizeBytes
  }

  readCached(buf: Uint8Array, bufOffset: number, length: number, offset: number): boolean {
    this.#check(offset, length)
    if (length === 0 || this.#live === null || this.#refusal() !== undefined) return false
    const { first, last } = blocksOf(offset, length)
    if (this.#image.table.touches(first, last)) return false
    return this.#live.readCached(buf, bufOffset, length, offset)
  }

  async read(buf: Uint8Array, bufOffset: number, length: number, offset: number): Promise<void> {
    this.#check(offset, length)
    const end = offset + length
    for (let at = offset; at < end; ) {
      this.#orRefuse()
      const run = this.#runAt(at, end)
      const into = bufOffset + (at - offset)
      if (run.held) await this.#readHeld(buf, into, run.length, at)
      else if (this.#live === null) buf.fill(0, into, into + run.length)
      else {
        await this.#live.read(buf, into, run.length, at)
        this.#orRefuse()
        const { first, last } = blocksOf(at, run.length)
        if (this.#image.table.touches(first, last)) continue
      }
      at += run.length
    }
    this.#orRefuse()
  }

  async #readHeld(buf: Uint8Array, into: number, length: number, offset: number): Promise<void> {
    const end = offset + length
    for (let at = offset; at < end; ) {
      const block = Math.floor(at / SNAPSHOT_BLOCK_BYTES)
      const skip = at - block * SNAPSHOT_BLOCK_BYTES
      const take = Math.min(SNAPSHOT_BLOCK_BYTES - skip, end - at)
      const bytes = await this.#readBlock(block)
      buf.set(bytes.subarray(skip, skip + take), into + (at - offset))
      at += take
    }
  }

  async #readBlock(block: number): Promise<Buffer> {
    try {
      return await this.#image.readBlock(block)
    } catch (error) {
      // A snapshot that was deleted meanwhile has closed its files.
      throw this.#refusal() ?? error
    }
  }

  /** The longest range from `at` on whose blocks are all held, or all not. */
  #runAt(at: number, end: number): { readonly held: boolean; readonly length: number } {
    const { table } = this.#image
    const first = Math.floor(at / SNAPSHOT_BLOCK_BYTES)
    const held = table.has(first)
    let next = first + 1
    while (
      next < first + RUN_BLOCKS_MAX &&
      next * SNAPSHOT_BLOCK_BYTES < end &&
      table.has(next) === held
    ) {
      next++
    }
    return { held, length: Math.min(next * SNAPSHOT_BLOCK_BYTES, end) - at }
  }

  async extents(
    offset: number,
    length: number,
    countMax = Number.POSITIVE_INFINITY,
  ): Promise<readonly Extent[]> {
    this.#check(offset, length)
    const found: { offset: number; length: number; hole: boolean }[] = []
    const add = (extent: Extent) => {
      const last = found.at(-1)
      if (last !== undefined && last.hole === extent.hole) last.length += extent.length
      else found.push({ ...extent })
    }
    const end = offset + length
    for (let at = offset; at < end && found.length <= countMax; ) {
      this.#orRefuse()
      const block = Math.floor(at / SNAPSHOT_BLOCK_BYTES)
      const kind = this.#image.table.kind(block)
      const run = this.#runAt(at, end)
      if (kind !== undefined || this.#live === null) {
        const step = Math.min((block + 1) * SNAPSHOT_BLOCK_BYTES, end) - at
        const one = run.held ? step : run.length
        add({ offset: at, length: one, hole: kind !== 'data' })
        at += one
        continue
      }
      const live = await this.#live.extents(at, run.length)
      this.#orRefuse()
      const { first, last } = blocksOf(at, run.length)
      if (this.#image.table.touches(first, last)) continue
      for (const extent of live) add(extent)
      at += run.length
    }
    // The last one may go on behind what was looked at; what is told of it is true.
    return found.length > countMax ? found.slice(0, countMax) : found
  }

  /** Its files belong to the snapshot. */
  close(): Promise<void> {
    return Promise.resolve()
  }

  #orRefuse(): void {
    const refusal = this.#refusal()
    if (refusal !== undefined) throw refusal
  }

  #check(offset: number, length: number): void {
    assert(
      offset >= 0 && length >= 0 && offset + length <= this.sizeBytes,
      'a request lies inside its snapshot',
    )
  }
}

function blocksOf(
  offset: number,
  length: number,
): { readonly first: number; readonly last: number } {
  return {
    first: Math.floor(offset / SNAPSHOT_BLOCK_BYTES),
    last: Math.floor((offset + length - 1) / SNAPSHOT_BLOCK_BYTES),
  }
}
