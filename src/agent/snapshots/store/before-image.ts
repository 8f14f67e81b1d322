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
 * A batch is preserved in two steps, and only then may its blocks be changed:
 *
 *     data of all blocks; head and records of the batch ──► fdatasync of both files at once ──► held, in memory
 *
 * The next batch begins when the one before it is durable, so its head vouches for all before it. Power loss can tear only the last batch, and nobody
 * relied on that one unless all of it is there. So at the next opening the blocks of the last batch are read and compared with their checksums: all
 * of them are held, or none, because then the volume still has them. What lies behind is cut off.
 *
 * A record that does not check in front of a head that does is no torn one: the disk has changed what it held. What stood behind it is not known, the volume
 * may have lost it, and so the image is worth nothing. Of a sealed map nothing is ever torn, and its blocks are looked at when they are read.
 *
 * A batch that failed (no space) is overwritten by the next one. Where that one is shorter, records of the failed one stay behind it: they have no
 * head, and so are not read.
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
    const opened: StoreFile[] = []
    try {
      const found = await BeforeImage.#load(disk, paths, expected, opened)
      if (!(found instanceof BeforeImage)) await settleAll(opened.map((file) => file.close()))
      return found
    } catch (error) {
      await Promise.allSettled(opened.map((file) => file.close()))
      throw error
    }
  }

  static async #load(
    disk: StoreDisk,
    paths: ImagePaths,
    expected: MapState,
    opened: StoreFile[],
  ): Promise<BeforeImage | { readonly problem: string }> {
    const map = await disk.open(paths.map, 'existing')
    opened.push(map)
    const head = Buffer.alloc(MAP_HEADER_BYTES)
    await map.read(head, 0)
    const header = decodeMapHeader(head)
    if (header?.state !== expected || header.blockBytes !== SNAPSHOT_BLOCK_BYTES) {
      return { problem: header === null ? 'its map is damaged' : `its map says ${header.state}` }
    }
    const data = await disk.open(paths.data, 'existing')
    opened.push(data)
    const table = new BlockTable(header.sizeBytes, header.blockBytes)
    const { sure, last, stoppedAt } = await loadBatches(map, table)
    if (stoppedAt !== null && (expected === 'sealed' || (await isVouchedFor(map, stoppedAt)))) {
      return { problem: `record ${stoppedAt} of its map is damaged` }
    }
    // Of a sealed one everything was durable before it counted: a block that is not what it was is damage, and an error when it is read.
    const whole = last !== null && (expected === 'sealed' || (await isThere(data, last, table)))
    if (whole) hold(table, last)
    // A batch has its head and its records. An empty one stays too: it vouches for those before it.
    const records = whole ? sure + 1 + last.length : sure
    const image = new BeforeImage(table, data, map, records)
    if ((await map.size()) > image.#at(records)) {
      await map.truncate(image.#at(records))
      await map.datasync()
    }
    // A process that died in the middle of a batch may have written all of it and synced nothing; from now on it is relied on.
    if (whole && last.length > 0 && expected === 'following') {
      await settleAll([map.datasync(), data.datasync()])
    }
    return image
  }

  /**
   * Preserves blocks that are not held yet, in ascending order; durable and held when it resolves. `bytes` may be longer than the block at
   * the end of the snapshot: only what belongs to it is kept. Rejects with a system error, and then holds nothing more than before.
   */
  async preserve(images: readonly BlockImage[]): Promise<void> {
    assert(!this.#writing, 'one batch at a time')
    this.#writing = true
    try {
      const records = recordsOf(images, this.table)
      const log = encodeBatch(records, this.#records)
      const writes = dataRuns(images, this.table).map(({ offset, bytes }) =>
        this.#data.write(bytes, offset),
      )
      await settleAll([...writes, this.#map.write(log, this.#at(this.#records))])
      const syncs = [this.#map.datasync()]
      if (writes.length > 0) syncs.push(this.#data.datasync())
      await settleAll(syncs)
      this.#records += 1 + records.length
      hold(this.table, records)
    } finally {
      this.#writing = false
    }
  }

  /** Vouches for all that is held: from now on what cannot be read is damage, and not a batch that was torn. Durable. */
  async settle(): Promise<void> {
    await this.preserve([])
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

function hold(table: BlockTable, records: readonly MapRecord[]): void {
  for (const { kind, block, value } of records) {
    if (kind === 'data') table.set(block, 'data', value)
    else if (kind === 'hole') {
      for (let hole = block; hole < block + value; hole++) table.set(hole, 'hole', 0)
    }
  }
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

/** A head and its records, for the place `index`. */
export function encodeBatch(records: readonly MapRecord[], index: number): Buffer {
  const log = Buffer.alloc((1 + records.length) * MAP_RECORD_BYTES)
  encodeMapRecord(log, 0, index, { kind: 'batch', block: 0, value: records.length })
  records.forEach((record, i) => {
    encodeMapRecord(log, (i + 1) * MAP_RECORD_BYTES, index + 1 + i, record)
  })
  return log
}

interface Batches {
  /** Records of all batches but the last, heads included. They are held. */
  readonly sure: number
  /** Records of the last batch, without its head; null when there is none or it is torn. */
  readonly last: readonly MapRecord[] | null
  /** Place of the first record that says nothing where it stands; null: the map was read to its end. */
  readonly stoppedAt: number | null
}

async function loadBatches(map: StoreFile, table: BlockTable): Promise<Batches> {
  const step = Buffer.alloc(RECORDS_PER_STEP * MAP_RECORD_BYTES)
  let sure = 0
  let begun = false
  let batch: MapRecord[] = []
  /** Of the batch; those that have been read are in it. */
  let count = 0
  let records = 0
  for (;;) {
    const got = await map.read(step, MAP_HEADER_BYTES + records * MAP_RECORD_BYTES)
    const whole = Math.floor(got / MAP_RECORD_BYTES)
    for (let i = 0; i < whole; i++) {
      const record = decodeMapRecord(step, i * MAP_RECORD_BYTES, records)
      const inside = batch.length < count
      if (record === null || (record.kind === 'batch') === inside || !fits(record, table)) {
        return { sure, last: inside || !begun ? null : batch, stoppedAt: records }
      }
      if (inside) batch.push(record)
      else {
        hold(table, batch)
        begun = true
        sure = records
        batch = []
        count = record.value
      }
      records++
    }
    if (whole < RECORDS_PER_STEP) {
      const torn = batch.length < count
      return { sure, last: torn || !begun ? null : batch, stoppedAt: torn ? records : null }
    }
  }
}

/** Whether a head that checks lies at `from` or behind: it was written when everything before it was durable. */
async function isVouchedFor(map: StoreFile, from: number): Promise<boolean> {
  const step = Buffer.alloc(RECORDS_PER_STEP * MAP_RECORD_BYTES)
  for (let records = from; ; records += RECORDS_PER_STEP) {
    const got = await map.read(step, MAP_HEADER_BYTES + records * MAP_RECORD_BYTES)
    const whole = Math.floor(got / MAP_RECORD_BYTES)
    for (let i = 0; i < whole; i++) {
      const record = decodeMapRecord(step, i * MAP_RECORD_BYTES, records + i)
      if (record?.kind === 'batch') return true
    }
    if (whole < RECORDS_PER_STEP) return false
  }
}

const fits = ({ kind, block, value }: MapRecord, table: BlockTable): boolean =>
  kind === 'batch' || block + (kind === 'hole' ? value : 1) <= table.blocks

/** Whether what the records say is what the file holds. */
async function isThere(
  data: StoreFile,
  records: readonly MapRecord[],
  table: BlockTable,
): Promise<boolean> {
  for (const { kind, block, value } of records) {
    if (kind !== 'data') continue
    const bytes = Buffer.alloc(table.length(block))
    await data.read(bytes, block * SNAPSHOT_BLOCK_BYTES)
    if (crc32c(bytes) !== value) return false
  }
  return true
}

/** All of them have ended, then the first failure: nothing may go on with memory that the caller takes back. */
export async function settleAll(work: readonly Promise<unknown>[]): Promise<void> {
  for (const outcome of await Promise.allSettled(work)) {
    if (outcome.status === 'rejected') throw outcome.reason
  }
}
