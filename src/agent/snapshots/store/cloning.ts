import { open as openPath } from 'node:fs/promises'
import { cannotClone } from '#base/system/clone.ts'
import { type Clock, sleep } from '#base/clock.ts'
import type { NewVolumeData } from '#agent/volumes/volume-store.ts'
import type { CloneProgress, SnapshotView } from '../snapshots.ts'
import type { Entry } from './entry.ts'
import type { StoredVolume } from './record.ts'

export interface CloneOptions {
  readonly owner?: string
  readonly onProgress?: (progress: CloneProgress) => void
  readonly signal?: AbortSignal
  /**
   * Others write to the same disk and must not notice: what was copied goes to the disk in small pieces, and the disk is theirs for as long as each
   * piece took.
   */
  readonly gentle?: Clock
}

const STEP_BYTES = 1024 * 1024
/** More that waits for the disk makes everybody else's flush wait for all of it. */
const PIECE_BYTES = 2 * 1024 * 1024
/** A disk that is busy with others for longer is not waited for twice as long. */
const PAUSE_MS_MAX = 500
const ZEROES = Buffer.alloc(STEP_BYTES)
/** Extents asked for at a time. */
const EXTENTS_COUNT = 1024

/** Copies what is data; holes, and data that is nothing but zeroes, stay holes. */
async function fillByCopy(
  view: SnapshotView,
  data: NewVolumeData,
  { onProgress, signal, gentle }: CloneOptions,
): Promise<void> {
  let unflushedBytes = 0
  let pieceMs = gentle?.bootMs() ?? 0
  const giveWay = async (clock: Clock): Promise<void> => {
    await data.flush()
    unflushedBytes = 0
    await sleep(clock, Math.min(PAUSE_MS_MAX, clock.bootMs() - pieceMs), signal)
    pieceMs = clock.bootMs()
  }
  const totalBytes = view.sizeBytes
  const step = Buffer.allocUnsafeSlow(STEP_BYTES)
  for (let at = 0; at < totalBytes; ) {
    const extents = await view.extents(at, totalBytes - at, EXTENTS_COUNT)
    for (const extent of extents) {
      const end = extent.offset + extent.length
      while (!extent.hole && at < end) {
        signal?.throwIfAborted()
        const length = Math.min(STEP_BYTES, end - at)
        await view.read(step, 0, length, at)
        const bytes = step.subarray(0, length)
        if (!bytes.equals(ZEROES.subarray(0, length))) {
          await data.write(step, 0, length, at)
          unflushedBytes += length
        }
        if (gentle !== undefined && unflushedBytes >= PIECE_BYTES) await giveWay(gentle)
        at += length
        onProgress?.({ copiedBytes: at, totalBytes })
      }
      at = end
    }
    onProgress?.({ copiedBytes: at, totalBytes })
  }
}

/** By sharing the space of the clone where there is one and the file system can, else by copying. `open`: a view of the volume in the snapshot. */
export async function fillFromSnapshot(
  entry: Entry,
  { volume, sizeBytes, kind }: StoredVolume,
  open: () => Promise<SnapshotView>,
  data: NewVolumeData,
  options: CloneOptions,
): Promise<void> {
  if (kind === 'reflink') {
    const file = await openPath(entry.dataPath(volume), 'r')
    try {
      await data.cloneFrom(file.fd, (await file.stat()).size === sizeBytes ? 0 : sizeBytes)
      return
    } catch (error) {
      if (!cannotClone(error)) throw error
    } finally {
      await file.close()
    }
  }
  const view = await open()
  try {
    await fillByCopy(view, data, options)
  } finally {
    await view.close()
  }
}
