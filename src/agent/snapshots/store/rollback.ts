import { type FileHandle, open } from 'node:fs/promises'
import { cannotClone } from '#base/system/clone.ts'
import { Fault } from '#base/fault.ts'
import { readWhole } from '#base/system/whole-io.ts'
import type { Log } from '#base/log.ts'
import { type Volume, ZERO_SYNC_BYTES_MAX } from '#agent/volumes/volume.ts'
import { SNAPSHOT_BROKEN } from '../faults.ts'
import { SNAPSHOT_BLOCK_BYTES } from '../snapshots.ts'
import type { BeforeImage } from './before-image.ts'
import type { Entry } from './entry.ts'
import type { StoredVolume } from './record.ts'
import type { SnapshotGuard } from './snapshot-guard.ts'

/* Setting one volume back to a snapshot. Nobody else changes it: the gate is closed. Every step may be done twice, so after a crash the
 * whole is done again. Other snapshots of the volume preserve what they need first, as before any other write. */

const STEP_BYTES = 1024 * 1024
/** Written between two flushes, so that the page cache does not fill up with what the disk has yet to take. */
const FLUSH_BYTES = 64 * 1024 * 1024
const ZEROES = Buffer.alloc(SNAPSHOT_BLOCK_BYTES)

export interface RollBackParts {
  readonly entry: Entry
  readonly stored: StoredVolume
  readonly guard: SnapshotGuard
  readonly log: Log
}

export async function rollBackVolume({ entry, stored, guard, log }: RollBackParts): Promise<void> {
  const image = entry.images.get(stored.volume)
  if (image !== undefined) await fromImage(image, guard)
  else if (stored.kind === 'before_image') {
    throw new Fault(SNAPSHOT_BROKEN, `rolling back volume ${stored.volume}`)
  } else {
    const file = await open(entry.dataPath(stored.volume), 'r')
    try {
      await fromClone(file, stored.sizeBytes, guard, log)
    } finally {
      await file.close()
    }
  }
  await clearTail(stored.sizeBytes, guard)
}

async function fromImage(image: BeforeImage, guard: SnapshotGuard): Promise<void> {
  const flush = flusher(guard.volume)
  for (const block of image.table.held()) {
    const offset = block * SNAPSHOT_BLOCK_BYTES
    const bytes = await image.readBlock(block)
    await guard.preserve(offset, bytes.length)
    if (image.table.kind(block) === 'hole') guard.volume.zeroSync(offset, bytes.length, true)
    else guard.volume.writeSync(bytes, 0, bytes.length, offset)
    await flush(bytes.length)
  }
}

async function fromClone(
  file: FileHandle,
  sizeBytes: number,
  guard: SnapshotGuard,
  log: Log,
): Promise<void> {
  let at = 0
  // A clone cannot end in the middle of a block of the file system when the volume goes on behind it.
  const whole = sizeBytes - (sizeBytes % SNAPSHOT_BLOCK_BYTES)
  if (!guard.hasFollowers && whole > 0) {
    try {
      await guard.volume.cloneFrom(file.fd, whole)
      at = whole
    } catch (error) {
      if (!cannotClone(error)) throw error
      log.warn({ volume: guard.volume.id, err: error }, 'rolling back by copying')
    }
  }
  await copyDifferences(file, at, sizeBytes, guard)
}

async function copyDifferences(
  file: FileHandle,
  from: number,
  end: number,
  guard: SnapshotGuard,
): Promise<void> {
  const { volume } = guard
  const flush = flusher(volume)
  const wanted = Buffer.allocUnsafeSlow(STEP_BYTES)
  const there = Buffer.allocUnsafeSlow(STEP_BYTES)
  for (let at = from; at < end; at += STEP_BYTES) {
    const length = Math.min(STEP_BYTES, end - at)
    await readClone(file, wanted.subarray(0, length), at)
    await volume.read(there, 0, length, at)
    for (let skip = 0; skip < length; skip += SNAPSHOT_BLOCK_BYTES) {
      const size = Math.min(SNAPSHOT_BLOCK_BYTES, length - skip)
      const block = wanted.subarray(skip, skip + size)
      if (block.equals(there.subarray(skip, skip + size))) continue
      await guard.preserve(at + skip, size)
      if (block.equals(ZEROES.subarray(0, size))) volume.zeroSync(at + skip, size, true)
      else volume.writeSync(block, 0, size, at + skip)
      await flush(size)
    }
  }
}

/** What the volume has grown by since. */
async function clearTail(sizeBytes: number, guard: SnapshotGuard): Promise<void> {
  const { volume } = guard
  for (let at = sizeBytes; at < volume.sizeBytes; ) {
    // In long steps where nobody has to preserve anything.
    const most = guard.hasFollowers ? ZERO_SYNC_BYTES_MAX : Number.POSITIVE_INFINITY
    const length = Math.min(most, volume.sizeBytes - at)
    await guard.preserve(at, length)
    await volume.zero(at, length, true, 'unguarded')
    at += length
  }
}

async function readClone(clone: FileHandle, into: Buffer, offset: number): Promise<void> {
  if ((await readWhole(clone, into, offset)) < into.length) {
    throw new Error('the clone is shorter than its volume was')
  }
}

function flusher(volume: Volume): (bytes: number) => Promise<void> {
  let left = FLUSH_BYTES
  return async (bytes) => {
    left -= bytes
    if (left > 0) return
    left = FLUSH_BYTES
    await volume.flush()
  }
}
