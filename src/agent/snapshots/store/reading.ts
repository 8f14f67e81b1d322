import { openSync } from 'node:fs'
import { assert } from '#base/assert.ts'
import type { Log } from '#base/log.ts'
import type { FileRanges } from '#base/system/libc.ts'
import { FileVolume } from '#agent/volumes/file/file-volume.ts'
import type { Volume } from '#agent/volumes/volume.ts'
import type { SnapshotView } from '../snapshots.ts'
import type { Entry } from './entry.ts'
import { imageView } from './image-view.ts'
import type { StoredVolume } from './record.ts'

/* Views of snapshots: of a clone its file, of a before-image what was preserved and, where nothing was, the volume. */

export interface ViewParts {
  readonly ranges: FileRanges
  readonly log: Log
  /** The volume that a snapshot follows, which is open then. */
  readonly liveVolume: (volume: string) => Volume | null
}

/** Reads a volume as it was. Refuses, also later, when the snapshot cannot be read any more. */
export function openView(entry: Entry, volume: string, parts: ViewParts): SnapshotView {
  const stored = entry.volume(volume)
  const sealed = entry.isSealed
  const refusal = () => entry.refusal(sealed)
  const now = refusal()
  if (now !== undefined) throw now
  const image = entry.images.get(volume)
  if (image !== undefined) {
    const live = sealed ? null : parts.liveVolume(volume)
    assert(sealed || live !== null, 'a snapshot that follows its volume has it open')
    return imageView({ image, live, refusal })
  }
  return openClone(entry, stored, refusal, parts)
}

function openClone(
  entry: Entry,
  { volume, sizeBytes }: StoredVolume,
  refusal: () => Error | undefined,
  { ranges, log }: ViewParts,
): SnapshotView {
  const path = entry.dataPath(volume)
  const clone = new FileVolume({
    id: path,
    fd: openSync(path, 'r'),
    sizeBytes,
    failed: undefined,
    ranges,
    onFailed: (reason) => log.error({ path, reason }, 'a clone cannot be read'),
  })
  entry.views.add(clone)
  const checked = async <T>(work: () => Promise<T>): Promise<T> => {
    const before = refusal()
    if (before !== undefined) throw before
    const result = await work()
    const after = refusal()
    if (after !== undefined) throw after
    return result
  }
  return {
    sizeBytes,
    readCached: (buf, bufOffset, length, offset) =>
      refusal() === undefined && clone.readCached(buf, bufOffset, length, offset),
    read: (buf, bufOffset, length, offset) =>
      checked(() => clone.read(buf, bufOffset, length, offset)),
    extents: (offset, length, countMax) => checked(() => clone.extents(offset, length, countMax)),
    close: async () => {
      entry.views.delete(clone)
      await clone.close()
    },
  }
}
