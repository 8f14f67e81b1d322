import type { Volume } from '#agent/volumes/volume.ts'
import { type Range, SNAPSHOT_BLOCK_BYTES, type SnapshotView } from '#agent/snapshots/snapshots.ts'

/* Which blocks of a snapshot are not what the live volume holds now: for the snapshots that cannot tell (reflink). Reads both where either has
 * data; bytes are compared as they are, without checksums. */

const STEP_BYTES = 1024 * 1024

export async function differingRanges(view: SnapshotView, volume: Volume): Promise<Range[]> {
  const found: { offset: number; length: number }[] = []
  const size = Math.min(view.sizeBytes, volume.sizeBytes)
  const before = Buffer.allocUnsafeSlow(STEP_BYTES)
  const now = Buffer.allocUnsafeSlow(STEP_BYTES)
  for (let at = 0; at < size; at += STEP_BYTES) {
    const length = Math.min(STEP_BYTES, size - at)
    const [was] = await view.extents(at, length, 1)
    const [is] = await volume.extents(at, length, 1)
    const holes = [was, is].every((one) => one?.hole === true && one.length === length)
    if (holes) continue
    await view.read(before, 0, length, at)
    await volume.read(now, 0, length, at)
    for (let block = 0; block < length; block += SNAPSHOT_BLOCK_BYTES) {
      const end = Math.min(block + SNAPSHOT_BLOCK_BYTES, length)
      if (before.compare(now, block, end, block, end) === 0) continue
      const last = found.at(-1)
      if (last !== undefined && last.offset + last.length === at + block) last.length += end - block
      else found.push({ offset: at + block, length: end - block })
    }
  }
  if (view.sizeBytes > size) found.push({ offset: size, length: view.sizeBytes - size })
  return found
}
