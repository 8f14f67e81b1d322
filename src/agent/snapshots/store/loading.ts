import { join } from 'node:path'
import type { Log } from '#base/log.ts'
import { readTextIfPresent } from '#base/system/files.ts'
import type { VolumeStore } from '#agent/volumes/volume-store.ts'
import { BeforeImage } from './before-image.ts'
import type { StoreDisk } from './disk.ts'
import { Entry } from './entry.ts'
import { decodeSnapshot } from './record.ts'

/* Snapshots as a start finds them. */

/** A snapshot as its folder says it is; one whose record is damaged counts as failed. `parent`: the folder of all snapshots. */
export async function loadEntry(parent: string, id: string, log: Log): Promise<Entry> {
  const directory = join(parent, id)
  const text = (await readTextIfPresent(join(directory, 'snapshot.json'))) ?? ''
  const decoded = decodeSnapshot(text)
  if (!('problem' in decoded) && decoded.id === id) return new Entry(directory, decoded)
  const reason = 'problem' in decoded ? decoded.problem : `it is the record of ${decoded.id}`
  log.error({ snapshot: id, reason }, 'the record of a snapshot is damaged')
  return new Entry(directory, {
    id,
    purpose: 'user',
    state: 'failed',
    reason: `its record is damaged: ${reason}`,
    takenMs: 0,
    stallMs: 0,
    volumes: [],
  })
}

/** Opens what an entry has on the disk besides clones. Throws what is wrong with it. */
export async function openImages(
  entry: Entry,
  disk: StoreDisk,
  volumes: VolumeStore,
): Promise<void> {
  const { stored } = entry
  if (stored.state === 'failed') return
  for (const { volume, kind } of stored.volumes) {
    if (!entry.isSealed && kind === 'reflink') continue
    const found = await openImage(entry, disk, volumes, volume)
    if (found instanceof BeforeImage) {
      entry.images.set(volume, found)
      continue
    }
    throw new Error(`volume ${volume}: ${found.problem}`)
  }
}

async function openImage(
  entry: Entry,
  disk: StoreDisk,
  volumes: VolumeStore,
  volume: string,
): Promise<BeforeImage | { readonly problem: string }> {
  if (!entry.isSealed && volumes.record(volume) === undefined) {
    return { problem: 'the volume is gone' }
  }
  try {
    return entry.isSealed
      ? await BeforeImage.open(disk, entry.keptPaths(volume), 'sealed')
      : await BeforeImage.open(disk, entry.imagePaths(volume), 'following')
  } catch (error) {
    return { problem: String(error) }
  }
}
