import type { NewVolumeData } from '#agent/volumes/volume-store.ts'
import type { CloneProgress, SnapshotView } from '../snapshots.ts'

export interface CloneOptions {
  readonly owner?: string
  readonly onProgress?: (progress: CloneProgress) => void
  readonly signal?: AbortSignal
}

const STEP_BYTES = 1024 * 1024
const ZEROES = Buffer.alloc(STEP_BYTES)
/** Extents asked for at a time. */
const EXTENTS_COUNT = 1024

/** Copies what is data; holes, and data that is nothing but zeroes, stay holes. */
export async function fillByCopy(
  view: SnapshotView,
  data: NewVolumeData,
  { onProgress, signal }: CloneOptions,
): Promise<void> {
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
        if (!bytes.equals(ZEROES.subarray(0, length))) await data.write(step, 0, length, at)
        at += length
        onProgress?.({ copiedBytes: at, totalBytes })
      }
      at = end
    }
    onProgress?.({ copiedBytes: at, totalBytes })
  }
}
