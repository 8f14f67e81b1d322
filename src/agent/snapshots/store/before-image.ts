import { crc32c } from '@node-rs/crc32'
import { assert } from '#base/assert.ts'
import { Fault } from '#base/fault.ts'
import { SNAPSHOT_BROKEN } from '../faults.ts'
import { SNAPSHOT_BLOCK_BYTES } from '../snapshots.ts'
import { BlockTable } from './block-table.ts'
import type { StoreDisk, StoreFile } from './disk.ts'
import {
  decodeMapHeader,
  decodeMapRecord,
  encodeMapHeader,
  encodeMapRecord,
  MAP_HEADER_BYTES,
  MAP_RECORD_BYTES,
  type MapRecord,
  type MapState,
} from './map-log.ts'

/* What one volume held in blocks that were changed since a snapshot of it.
 *
 *     VOLUME.data   sparse; a preserved block lies at its own offset
 *     VOLUME.map    which blocks are preserved, with their checksums (map-log.ts)
 *
 * A batch is preserved in three steps, and only then may its blocks be changed:
 *
 *     data of all blocks, a commit record, records of all blocks ──► fdatasync of both files at once ──► held, in memory
 *
 * The next batch begins when the one before it is durable; its commit record says so. So power loss can tear only what is behind the last commit
 * record, and nobody relied on that unless all of it is there. At the next opening its blocks are read and compared with their checksums; those that fail are
 * not held: the volume still has them. Records behind a torn one are cut off.
 *
 * A batch that failed (no space) leaves records that the next one overwrites. One of them that survives says the truth all the same: what it
 * names had not been changed when it was read, and was verified.
 */

/** Records read and written at a time. */
const RECORDS_PER_STEP = 65_536

/** One block of a batch. `bytes` null: it reads as zeroes. */
export interface BlockImage {
  readonly block: number
  readonly bytes: Buffer | null
}

export interface ImagePaths {
  readonly data: string
  readonly map: string
}

export class BeforeImage {
  readonly table: BlockTable
  readonly #data: StoreFile
  readonly #map: StoreFile
  /** Records in the map. */
  #records: number
  /** One batch at a time. */
  #writing = false
  #closed = false

  private constructor(table: BlockTable, data: StoreFile, map: StoreFile, records: number) {
    this.table = table
    this.#data = data
    this.#map = map
    this.#records = records
  }

  /** An empty one, its content durable; that its files exist is durable when their folder is. */
  static async create(
    disk: StoreDisk,
    paths: ImagePaths,
    sizeBytes: number,
    state: MapState = 'following',
  ): Promise<BeforeImage> {
    const map = await disk.open(paths.map, 'create')
    const data = await disk.open(paths.data, 'create')
    const header = { state, sizeBytes, blockBytes: SNAPSHOT_BLOCK_BYTES }
    await map.write(encodeMapHeader(header), 0)
    await data.truncate(sizeBytes)
    await Promise.all([map.datasync(), data.datasync()])
    return new BeforeImage(new BlockTable(sizeBytes, SNAPSHOT_BLOCK_BYTES), data, map, 0)
  }

  /** The one of these files as far as it is whole, or why it is worth nothing. Rejects with a system error. */
  static async open(
    disk: StoreDisk,
    paths: ImagePaths,
    expected: MapState,
  ): Promise<BeforeImage | { readonly problem: string }> {
    const map = await disk.open(paths.map, 'existing')
    const head = Buffer.alloc(MAP_HEADER_BYTES)
    await map.read(head, 0)
    const header = decodeMapHeader(head)
    if (header?.state !== expected || header.blockBytes !== SNAPSHOT_BLOCK_BYTES) {
      await map.close()
      return { problem: header === null ? 'its map is damaged' : `its map says ${header.state}` }
    }
    const data = await disk.open(paths.data, 'existing')
    const table = new BlockTable(header.sizeBytes, header.blockBytes)
    const loaded = await loadRecords(map, table)
    const image = new BeforeImage(table, data, map, loaded.records)
    await image.#admit(loaded.unsure)
    if ((await map.size()) > loaded.endBytes) {
      await map.truncate(loaded.endBytes)
      await map.datasync()
    }
    return image
  }

  /** Holds those of the last batch whose data is there. */
  async #admit(unsure: readonly MapRecord[]): Promise<void> {
    for (const { kind, block, value } of unsure) {
      if (kind === 'hole') {
        holdHoles(this.table, block, value)
        continue
      }
      const bytes = Buffer.alloc(this.table.length(block))
      await this.#data.read(bytes, block * SNAPSHOT_BLOCK_BYTES)
      if (crc32c(bytes) === value) this.table.set(block, 'data', value)
    }
  }

  /**
   * Preserves blocks that are not held yet, in ascending order; durable and held when it resolves. `bytes` may be longer than the block at
   * the end of the snapshot: only what belongs to it is kept. Rejects with a system error, and then holds nothing more than before.
   */
  async preserve(images: readonly BlockImage[]): Promise<void> {
    assert(!this.#writing, 'one batch at a time')
    this.#writing = true
    try {
      const records = [COMMIT, ...recordsOf(images, this.table)]
      const log = Buffer.alloc(records.length * MAP_RECORD_BYTES)
      records.forEach((record, i) => {
        encodeMapRecord(log, i * MAP_RECORD_BYTES, this.#records + i, record)
      })
      const writes = dataRuns(images, this.table).map(({ offset, bytes }) =>
        this.#data.write(bytes, offset),
      )
      await settleAll([...writes, this.#map.write(log, this.#at(this.#records))])
      const syncs = [this.#map.datasync()]
      if (writes.length > 0) syncs.push(this.#data.datasync())
      await settleAll(syncs)
      this.#records += records.length
      for (const { kind, block, value } of records) {
        if (kind === 'data') this.table.set(block, 'data', value)
        if (kind === 'hole') holdHoles(this.table, block, value)
      }
    } finally {
      this.#writing = false
    }
  }

  #at(record: number): number {
    return MAP_HEADER_BYTES + record * MAP_RECORD_BYTES
  }

  /** The bytes of a block that is held. Rejects with SNAPSHOT_BROKEN when they are not what was preserved. */
  async readBlock(block: number): Promise<Buffer> {
    const bytes = Buffer.alloc(this.table.length(block))
    if (this.table.kind(block) === 'hole') return bytes
    let cause: unknown
    try {
      await this.#data.read(bytes, block * SNAPSHOT_BLOCK_BYTES)
    } catch (error) {
      cause = error
    }
    if (cause === undefined && crc32c(bytes) === this.table.checksum(block)) return bytes
    throw new Fault(SNAPSHOT_BROKEN, 'reading a preserved block', { block }, cause)
  }

  /** Durable: this image is not whole. Needs no space. */
  async markFailed(): Promise<void> {
    const { sizeBytes, blockBytes } = this.table
    await this.#map.write(encodeMapHeader({ state: 'failed', sizeBytes, blockBytes }), 0)
    await this.#map.datasync()
  }

  /** Gives the space of what was preserved back: after `markFailed`. */
  async empty(): Promise<void> {
    await this.#data.truncate(0)
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.#map.close()
    await this.#data.close()
  }
}

/** Goes before each batch: whatever is in the map by then is durable. */
const COMMIT: MapRecord = { kind: 'commit', block: 0, value: 0 }

function holdHoles(table: BlockTable, first: number, count: number): void {
  for (let block = first; block < first + count; block++) table.set(block, 'hole', 0)
}

/** The records, each run of holes as one. */
function recordsOf(images: readonly BlockImage[], table: BlockTable): MapRecord[] {
  const records: { kind: 'data' | 'hole'; block: number; value: number }[] = []
  for (const { block, bytes } of images) {
    const last = records.at(-1)
    if (bytes !== null) {
      const value = crc32c(bytes.subarray(0, table.length(block)))
      records.push({ kind: 'data', block, value })
    } else if (last?.kind === 'hole' && last.block + last.value === block) last.value++
    else records.push({ kind: 'hole', block, value: 1 })
  }
  return records
}

/** Neighbours whose bytes lie side by side in memory become one write. */
function dataRuns(
  images: readonly BlockImage[],
  table: BlockTable,
): { readonly offset: number; readonly bytes: Buffer }[] {
  const runs: { offset: number; bytes: Buffer }[] = []
  for (const { block, bytes } of images) {
    if (bytes === null) continue
    const offset = block * table.blockBytes
    const own = bytes.subarray(0, table.length(block))
    const last = runs.at(-1)
    if (
      last !== undefined &&
      last.offset + last.bytes.length === offset &&
      last.bytes.buffer === own.buffer &&
      last.bytes.byteOffset + last.bytes.length === own.byteOffset
    ) {
      last.bytes = Buffer.from(own.buffer, last.bytes.byteOffset, last.bytes.length + own.length)
    } else runs.push({ offset, bytes: own })
  }
  return runs
}

interface Loaded {
  readonly records: number
  readonly endBytes: number
  /** Behind the last commit. */
  readonly unsure: readonly MapRecord[]
}

async function loadRecords(map: StoreFile, table: BlockTable): Promise<Loaded> {
  const step = Buffer.alloc(RECORDS_PER_STEP * MAP_RECORD_BYTES)
  let unsure: MapRecord[] = []
  let records = 0
  for (let torn = false; !torn; ) {
    const got = await map.read(step, MAP_HEADER_BYTES + records * MAP_RECORD_BYTES)
    const whole = Math.floor(got / MAP_RECORD_BYTES)
    for (let i = 0; i < whole && !torn; i++) {
      const record = decodeMapRecord(step, i * MAP_RECORD_BYTES, records)
      if (record === null || !fits(record, table)) {
        torn = true
        break
      }
      records++
      if (record.kind !== 'commit') unsure.push(record)
      else {
        for (const { kind, block, value } of unsure) {
          if (kind === 'data') table.set(block, 'data', value)
          else holdHoles(table, block, value)
        }
        unsure = []
      }
    }
    if (whole < RECORDS_PER_STEP) break
  }
  return { records, endBytes: MAP_HEADER_BYTES + records * MAP_RECORD_BYTES, unsure }
}

const fits = ({ kind, block, value }: MapRecord, table: BlockTable): boolean =>
  kind === 'commit' || block + (kind === 'hole' ? value : 1) <= table.blocks

/** All of them have ended, then the first failure: nothing may go on writing from a buffer that the caller takes back. */
async function settleAll(work: readonly Promise<unknown>[]): Promise<void> {
  for (const outcome of await Promise.allSettled(work)) {
    if (outcome.status === 'rejected') throw outcome.reason
  }
}
