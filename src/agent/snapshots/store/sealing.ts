import { type FileHandle, open, rm } from 'node:fs/promises'
import { crc32c } from '@node-rs/crc32'
import { readWhole } from '#base/system/whole-io.ts'
import { SNAPSHOT_BLOCK_BYTES, type Range } from '../snapshots.ts'
import { encodeBatch } from './before-image.ts'
import { rangesOf } from './block-table.ts'
import type { StoreDisk } from './disk.ts'
import type { Entry } from './entry.ts'
import { encodeMapHeader, MAP_HEADER_BYTES, MAP_RECORD_BYTES, type MapRecord } from './map-log.ts'
import type { StoredVolume } from './record.ts'
import type { SnapshotGuard } from './snapshot-guard.ts'

/* Sealing: of a snapshot stay some ranges, as a sparse file and a map of them.
 *
 *     write ID/VOLUME.kept for all volumes, durably ─► record `sealing`, durably ─► no longer followed ─► give the rest back ─► record `sealed`
 *
 * The map is written before anything is given back, so that giving back can be repeated. */

const RECORDS_PER_STEP = 65_536
const ZERO_BLOCK = Buffer.alloc(SNAPSHOT_BLOCK_BYTES)

/** What stays of a volume, in order. */
export async function keepOf(
  entry: Entry,
  { volume, sizeBytes }: StoredVolume,
  ranges: readonly Range[] | undefined,
): Promise<readonly MapRecord[]> {
  const image = entry.images.get(volume)
  if (image === undefined) {
    const file = await open(entry.dataPath(volume), 'r')
    try {
      return await recordsOfClone(file, sizeBytes, blocksIn(ranges ?? [], sizeBytes))
    } finally {
      await file.close()
    }
  }
  const { table } = image
  const wanted = ranges === undefined ? undefined : new Set(blocksIn(ranges, sizeBytes))
  const records: MapRecord[] = []
  for (const block of table.held()) {
    if (wanted?.has(block) === false) continue
    const kind = table.kind(block) === 'hole' ? 'hole' : 'data'
    records.push({ kind, block, value: kind === 'hole' ? 1 : table.checksum(block) })
  }
  return records
}

/** Numbers of the blocks that the ranges touch, ascending, each once. */
function blocksIn(ranges: readonly Range[], sizeBytes: number): number[] {
  const blocks: number[] = []
  for (const { offset, length } of [...ranges].sort((a, b) => a.offset - b.offset)) {
    const end = Math.min(offset + length, sizeBytes)
    const first = Math.floor(offset / SNAPSHOT_BLOCK_BYTES)
    for (
      let block = Math.max(first, (blocks.at(-1) ?? -1) + 1);
      block * SNAPSHOT_BLOCK_BYTES < end;
      block++
    ) {
      blocks.push(block)
    }
  }
  return blocks
}

async function recordsOfClone(
  file: FileHandle,
  sizeBytes: number,
  blocks: readonly number[],
): Promise<MapRecord[]> {
  const records: MapRecord[] = []
  const buf = Buffer.alloc(SNAPSHOT_BLOCK_BYTES)
  for (const block of blocks) {
    const offset = block * SNAPSHOT_BLOCK_BYTES
    const bytes = buf.subarray(0, Math.min(SNAPSHOT_BLOCK_BYTES, sizeBytes - offset))
    if ((await readWhole(file, bytes, offset)) < bytes.length) {
      throw new Error('the clone is shorter than its volume was')
    }
    const zero = bytes.equals(ZERO_BLOCK.subarray(0, bytes.length))
    records.push({ kind: zero ? 'hole' : 'data', block, value: zero ? 1 : crc32c(bytes) })
  }
  return records
}

/** Durable when it resolves, but for the entry in its folder. */
export async function writeKept(
  disk: StoreDisk,
  path: string,
  sizeBytes: number,
  records: readonly MapRecord[],
): Promise<void> {
  // A first attempt may have been cut off.
  await rm(path, { force: true })
  const file = await disk.open(path, 'create')
  try {
    const header = { state: 'sealed', sizeBytes, blockBytes: SNAPSHOT_BLOCK_BYTES } as const
    await file.write(encodeMapHeader(header), 0)
    let index = 0
    const append = async (step: readonly MapRecord[]): Promise<void> => {
      await file.write(encodeBatch(step, index), MAP_HEADER_BYTES + index * MAP_RECORD_BYTES)
      index += 1 + step.length
    }
    for (let at = 0; at < records.length; at += RECORDS_PER_STEP) {
      await append(records.slice(at, at + RECORDS_PER_STEP))
    }
    // An empty batch vouches for those before it: they are durable before the file counts at all.
    await append([])
    await file.datasync()
  } finally {
    await file.close()
  }
}

/** Gives back what is not kept. The images of the entry are those of its kept maps. */
export async function trim(disk: StoreDisk, entry: Entry): Promise<void> {
  for (const { volume } of entry.stored.volumes) {
    const table = entry.images.get(volume)?.table
    if (table === undefined) continue
    const file = await disk.open(entry.dataPath(volume), 'existing')
    try {
      let at = 0
      for (const { offset, length } of rangesOf(table.held(), table)) {
        if (offset > at) await file.punch(at, offset - at)
        at = offset + length
      }
      await file.truncate(at)
      await file.truncate(table.sizeBytes)
      await file.datasync()
    } finally {
      await file.close()
    }
    await rm(entry.imagePaths(volume).map, { force: true })
  }
}

/** Runs `work` while no batch of any of the guards runs. */
export async function inTurnOfAll<T>(
  guards: readonly SnapshotGuard[],
  work: () => Promise<T>,
): Promise<T> {
  const [first, ...rest] = guards
  if (first === undefined) return await work()
  return await first.exclusively(() => inTurnOfAll(rest, work))
}
