import { assert } from '#base/assert.ts'
import { Fault } from '#base/fault.ts'
import { hasCode } from '#base/system/files.ts'
import { VOLUME_NO_SPACE } from '#agent/volumes/faults.ts'
import type { Volume, VolumeGuard } from '#agent/volumes/volume.ts'
import { SNAPSHOT_BROKEN } from '../faults.ts'
import { SNAPSHOT_BLOCK_BYTES } from '../snapshots.ts'
import { type BeforeImage, type BlockImage, settleAll } from './before-image.ts'
import { LookingAhead } from './looking-ahead.ts'

/* What stands between the writers of one volume and its snapshots.
 *
 *   before(range) ──► gate closed? (clones are being made, a rollback runs) ──► wait until it is open
 *                 ──► a follower lacks a block of it? ──► queue the block ──► batch ──► preserved, durable ──► the writer asks again
 *                 ──► null
 *
 * One batch at a time; everybody who asks while it runs shares the next one, and so one fdatasync. Between the reading of a block for a batch
 * and its being held nobody can change it, because everybody who wants to is waiting for that batch. Work that must not meet a batch (sealing)
 * takes its turn with `exclusively`.
 *
 * Followers do not share what they preserve: each can be deleted without touching the others.
 *
 * For followers that ask for it, the blocks that a stretch of changes will come to next are preserved ahead, in batches of their own, so that who
 * changes them need not wait (looking-ahead.ts).
 */

/** Blocks of one batch: 16 MiB, which a writer waits for at most twice. */
const BATCH_BLOCKS_MAX = 256
/** Blocks of one batch ahead, 8 MiB, and how many of them ahead. */
const AHEAD_BLOCKS = 128
const AHEAD_STEPS_MAX = 4
/** Read and written at a time. */
const PIECE_BYTES = 1024 * 1024
/** Memory of pieces that is kept for reuse, one for all volumes: as much as two batches ahead take. Fresh memory for each batch would keep the garbage
 *  collector busier than the copying. */
const IDLE_PIECES_MAX = 16
const idlePieces: Buffer[] = []
const PIECE_BLOCKS = PIECE_BYTES / SNAPSHOT_BLOCK_BYTES
/** What `readCached` reads at once. */
const CACHED_PIECE_BYTES = 128 * 1024
const ZERO_BLOCK = Buffer.alloc(SNAPSHOT_BLOCK_BYTES)

/** A snapshot that lives from the volume. */
export interface Follower {
  readonly image: BeforeImage
  /** Bytes of the file system that it must leave alone. */
  readonly reserveBytes: number
  /** May hold blocks that were not changed: some are preserved ahead. */
  readonly ahead: boolean
  /**
   * A block could not be preserved. Resolves with null when the snapshot has been given up, durably, and does not follow any more; with a Fault when
   * the volume must not be changed instead.
   */
  lost(error: Error): Promise<Error | null>
}

interface Batch {
  readonly blocks: Set<number>
  /** Nobody has asked for these blocks yet. */
  readonly ahead: boolean
  readonly promise: Promise<void>
  resolve(): void
  reject(error: Error): void
}

interface Gate {
  readonly promise: Promise<void>
  open(): void
  /** When the first writer came to it; ms of `nowMs`. */
  firstMs: number | undefined
}

export class SnapshotGuard implements VolumeGuard {
  readonly volume: Volume
  readonly #nowMs: () => number
  readonly #freeBytes: () => Promise<number>
  #followers: readonly Follower[] = []
  readonly #ahead = new LookingAhead(AHEAD_BLOCKS, AHEAD_STEPS_MAX)
  #gate: Gate | null = null
  #refusal: Error | null = null
  readonly #queue: Batch[] = []
  /** The batch that a block is in, running or queued. */
  readonly #batchOf = new Map<number, Batch>()
  #turn: Promise<unknown> = Promise.resolve()
  #planned = false

  constructor(volume: Volume, nowMs: () => number, freeBytes: () => Promise<number>) {
    this.volume = volume
    this.#nowMs = nowMs
    this.#freeBytes = freeBytes
  }

  get idle(): boolean {
    return this.#followers.length === 0 && this.#gate === null && this.#refusal === null
  }

  follow(follower: Follower): void {
    this.#followers = [...this.#followers, follower]
  }

  unfollow(image: BeforeImage): void {
    this.#followers = this.#followers.filter((follower) => follower.image !== image)
  }

  follows(image: BeforeImage): boolean {
    return this.#followers.some((follower) => follower.image === image)
  }

  get hasFollowers(): boolean {
    return this.#followers.length > 0
  }

  // -- the gate -------------------------------------------------------------------------------------------------------

  /** Nobody changes the volume from this step on, but for what is under way off the loop (`Volume.changesEnded`). */
  closeGate(): void {
    assert(this.#gate === null, 'a gate is closed by one at a time')
    let open: () => void = () => undefined
    const promise = new Promise<void>((resolve) => (open = resolve))
    this.#gate = { promise, open, firstMs: undefined }
    this.#refusal = null
  }

  /** Longest time that a writer waited at the gate, ms. */
  openGate(): number {
    const gate = this.#gate
    if (gate === null) return 0
    this.#gate = null
    gate.open()
    return gate.firstMs === undefined ? 0 : this.#nowMs() - gate.firstMs
  }

  /** Nobody may change the volume until the gate has been closed again. */
  refuse(error: Error): void {
    this.#refusal = error
    this.openGate()
  }

  /** Takes a refusal back. */
  allow(): void {
    this.#refusal = null
  }

  before(offset: number, length: number): Promise<void> | null {
    if (this.#gate !== null) {
      this.#gate.firstMs ??= this.#nowMs()
      return this.#gate.promise
    }
    if (this.#refusal !== null) return refused(this.#refusal)
    return this.#wait(offset, length)
  }

  // -- preserving -----------------------------------------------------------------------------------------------------

  /** For a rollback, which holds the gate: every follower has what it needs of the range. */
  async preserve(offset: number, length: number): Promise<void> {
    for (;;) {
      const wait = this.#wait(offset, length)
      if (wait === null) return
      await wait
    }
  }

  #wait(offset: number, length: number): Promise<void> | null {
    if (length === 0) return null
    const first = Math.floor(offset / SNAPSHOT_BLOCK_BYTES)
    const last = Math.floor((offset + length - 1) / SNAPSHOT_BLOCK_BYTES)
    const lacks = this.#followers.some(({ image }) => image.table.lacks(first, last))
    const wait = lacks ? this.#join(first, last) : null
    // Behind what is waited for.
    if (this.#followers.some((follower) => follower.ahead)) this.#lookAhead(first, last)
    return wait
  }

  #lookAhead(first: number, last: number): void {
    const stretch = this.#ahead.asked(first, last)
    if (stretch === null) return
    const end = Math.min(stretch.first + stretch.count, this.#blocks)
    const batch = newBatch(true)
    for (let block = stretch.first; block < end; block++) {
      if (this.#batchOf.has(block) || !this.#isLacking(block, true)) continue
      batch.blocks.add(block)
      this.#batchOf.set(block, batch)
    }
    if (batch.blocks.size > 0) this.#push(batch)
  }

  get #blocks(): number {
    return Math.ceil(this.volume.sizeBytes / SNAPSHOT_BLOCK_BYTES)
  }

  #isLacking(block: number, ahead: boolean): boolean {
    return this.#followers.some(
      (follower) => (!ahead || follower.ahead) && follower.image.table.lacks(block, block),
    )
  }

  #join(first: number, last: number): Promise<void> {
    let batch: Batch | undefined
    for (let block = first; block <= last; block++) {
      if (!this.#isLacking(block, false)) continue
      const planned = this.#batchOf.get(block) ?? this.#enqueue(block)
      // Batches run in order, so the one that was made last ends last.
      if (batch === undefined || this.#isLater(planned, batch)) batch = planned
    }
    assert(batch !== undefined, 'a range that waits has a block to wait for')
    return batch.promise
  }

  #isLater(a: Batch, b: Batch): boolean {
    return this.#queue.indexOf(a) > this.#queue.indexOf(b)
  }

  #enqueue(block: number): Batch {
    let batch = this.#queue.at(-1)
    if (batch === undefined || batch.ahead || batch.blocks.size >= BATCH_BLOCKS_MAX) {
      batch = newBatch(false)
      this.#push(batch)
    }
    batch.blocks.add(block)
    this.#batchOf.set(block, batch)
    return batch
  }

  #push(batch: Batch): void {
    this.#queue.push(batch)
    if (this.#planned) return
    this.#planned = true
    void this.exclusively(() => this.#runNext())
  }

  /** Runs `work` when no batch runs, and lets none begin before it has ended. */
  exclusively<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work)
    this.#turn = result.then(noop, noop)
    return result
  }

  async #runNext(): Promise<void> {
    this.#planned = false
    const batch = this.#queue.shift()
    if (batch === undefined) return
    const blocks = [...batch.blocks].sort((a, b) => a - b)
    let problem: Error | null = null
    try {
      problem = await this.#carryOut(blocks, batch.ahead)
    } finally {
      for (const block of blocks) this.#batchOf.delete(block)
      if (this.#queue.length > 0 && !this.#planned) {
        this.#planned = true
        void this.exclusively(() => this.#runNext())
      }
    }
    if (problem === null) batch.resolve()
    else batch.reject(problem)
  }

  /** null, or why the blocks must not be changed. */
  async #carryOut(blocks: readonly number[], ahead: boolean): Promise<Error | null> {
    const followers = this.#followers.filter(
      (follower) =>
        (!ahead || follower.ahead) &&
        blocks.some((block) => follower.image.table.lacks(block, block)),
    )
    if (followers.length === 0) return null
    const pieces: Buffer[] = []
    try {
      const free = await this.#freeBytes()
      const images = await this.#read(blocks, pieces)
      return await worst(followers.map((follower) => this.#give(follower, images, free)))
    } catch (error) {
      return await worst(followers.map((follower) => follower.lost(error as Error)))
    } finally {
      for (const piece of pieces) {
        if (idlePieces.length < IDLE_PIECES_MAX) idlePieces.push(piece)
      }
    }
  }

  async #give(
    follower: Follower,
    images: readonly BlockImage[],
    freeBytes: number,
  ): Promise<Error | null> {
    const { image, reserveBytes } = follower
    const wanted = images.filter(({ block }) => image.table.lacks(block, block))
    const bytes = wanted.reduce((sum, one) => sum + (one.bytes?.length ?? 0), 0)
    try {
      if (bytes > 0 && freeBytes - bytes < reserveBytes) throw noSpace()
      await image.preserve(wanted)
      return null
    } catch (error) {
      return await follower.lost(error as Error)
    }
  }

  /** What the blocks hold, ascending; its bytes lie in `pieces`, which are the caller's, also when this fails. */
  async #read(blocks: readonly number[], pieces: Buffer[]): Promise<BlockImage[]> {
    const { volume } = this
    const extents: { first: number; count: number; hole: boolean }[] = []
    for (const { first, count } of runsOf(blocks)) {
      const offset = first * SNAPSHOT_BLOCK_BYTES
      const length = Math.min(count * SNAPSHOT_BLOCK_BYTES, volume.sizeBytes - offset)
      extents.push(...byBlocks(await volume.extents(offset, length)))
    }
    const images: BlockImage[] = []
    // From the first one on nothing may fail before all have ended: they fill memory that is given back.
    const reads: Promise<void>[] = []
    for (const { first, count, hole } of extents) {
      const end = first + count
      if (hole) for (let block = first; block < end; block++) images.push({ block, bytes: null })
      for (let block = first; block < end && !hole; block += PIECE_BLOCKS) {
        const piece = idlePieces.pop() ?? Buffer.allocUnsafeSlow(PIECE_BYTES)
        pieces.push(piece)
        const blocksHere = Math.min(PIECE_BLOCKS, end - block)
        reads.push(this.#readPiece(piece, block, blocksHere))
        for (let i = 0; i < blocksHere; i++) images.push(imageIn(piece, block, i, volume))
      }
    }
    await settleAll(reads)
    return images
      .sort((a, b) => a.block - b.block)
      .map((image) => (isZero(image.bytes) ? { block: image.block, bytes: null } : image))
  }

  async #readPiece(bytes: Buffer, block: number, count: number): Promise<void> {
    const { volume } = this
    const offset = block * SNAPSHOT_BLOCK_BYTES
    const length = Math.min(count * SNAPSHOT_BLOCK_BYTES, volume.sizeBytes - offset)
    let at = 0
    while (at < length) {
      const step = Math.min(CACHED_PIECE_BYTES, length - at)
      if (!volume.readCached(bytes, at, step, offset + at)) break
      at += step
    }
    if (at < length) await volume.read(bytes, at, length - at, offset + at)
  }
}

/** Block `first + index`, of those that were read into `bytes` from block `first` on. */
function imageIn(bytes: Buffer, first: number, index: number, { sizeBytes }: Volume): BlockImage {
  const block = first + index
  const length = Math.min(SNAPSHOT_BLOCK_BYTES, sizeBytes - block * SNAPSHOT_BLOCK_BYTES)
  const at = index * SNAPSHOT_BLOCK_BYTES
  return { block, bytes: bytes.subarray(at, at + length) }
}

/** A rejection that need not be looked at: who asks early does not wait. */
function refused(error: Error): Promise<void> {
  const promise = Promise.reject<void>(error)
  promise.catch(noop)
  return promise
}

function newBatch(ahead: boolean): Batch {
  let resolve: () => void = noop
  let reject: (error: Error) => void = noop
  const promise = new Promise<void>((done, failed) => {
    resolve = done
    reject = failed
  })
  // Who asks early does not wait; whoever writes asks again.
  promise.catch(noop)
  return { blocks: new Set(), ahead, promise, resolve, reject }
}

const noop = () => {}

/** What a writer is told when a snapshot that must not be lost cannot preserve a block. */
export function refusalOf(error: Error, snapshot: string): Error {
  const full = hasCode(error, 'ENOSPC') || hasCode(error, 'EDQUOT')
  const doing = `preserving what snapshot ${snapshot} needs`
  if (error instanceof Fault) return error
  return full
    ? new Fault(VOLUME_NO_SPACE, doing, { snapshot }, error)
    : new Fault(SNAPSHOT_BROKEN, doing, { snapshot }, error)
}

const noSpace = (): Error =>
  Object.assign(new Error('the rest of the file system is reserved'), { code: 'ENOSPC' })

const isZero = (bytes: Buffer | null): boolean =>
  bytes !== null && bytes.equals(ZERO_BLOCK.subarray(0, bytes.length))

/** The first refusal of all, once all have answered. */
async function worst(answers: readonly Promise<Error | null>[]): Promise<Error | null> {
  const refusals = await Promise.all(answers)
  return refusals.find((refusal) => refusal !== null) ?? null
}

function runsOf(blocks: readonly number[]): { readonly first: number; readonly count: number }[] {
  const runs: { first: number; count: number }[] = []
  for (const block of blocks) {
    const last = runs.at(-1)
    if (last !== undefined && last.first + last.count === block) last.count++
    else runs.push({ first: block, count: 1 })
  }
  return runs
}

/** Extents that begin at a block boundary, as whole blocks: a block with any data in it is data. */
function byBlocks(
  extents: readonly { readonly offset: number; readonly length: number; readonly hole: boolean }[],
): { first: number; count: number; hole: boolean }[] {
  const found: { first: number; count: number; hole: boolean }[] = []
  const add = (first: number, end: number, hole: boolean) => {
    const last = found.at(-1)
    if (end <= first) return
    if (last !== undefined && last.hole === hole) last.count += end - first
    else found.push({ first, count: end - first, hole })
  }
  let next = Math.floor((extents[0]?.offset ?? 0) / SNAPSHOT_BLOCK_BYTES)
  const lastEnd = (extents.at(-1)?.offset ?? 0) + (extents.at(-1)?.length ?? 0)
  for (const { offset, length, hole } of extents) {
    const end = offset + length
    if (hole) {
      // The end of the volume is the end of its last block, however short that is.
      const whole =
        end === lastEnd
          ? Math.ceil(end / SNAPSHOT_BLOCK_BYTES)
          : Math.floor(end / SNAPSHOT_BLOCK_BYTES)
      add(next, whole, true)
      next = Math.max(next, whole)
    } else {
      const covered = Math.ceil(end / SNAPSHOT_BLOCK_BYTES)
      add(next, covered, false)
      next = Math.max(next, covered)
    }
  }
  return found
}
