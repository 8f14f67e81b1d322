import { mkdir, open } from 'node:fs/promises'
import { join } from 'node:path'
import { writeFileWhole } from '#base/system/files.ts'
import { isFault } from '#base/fault.ts'
import type { ApiSession } from '#client/api.ts'
import { API_REFUSED } from '#client/faults.ts'
import {
  type Divergence,
  DOWNLOAD_BYTES_MAX,
  downloadRange,
  type KeptRange,
} from '#client/protection.ts'

/* A divergence record on the disk of whoever looks into it:
 *
 *     DIR/manifest.json            the record, and for every file what it is; written last, so that a directory with one is complete
 *     DIR/VOLUME.raw               sparse: as long as the volume, every kept range at its place, holes elsewhere
 *     DIR/VOLUME/OFFSET-LENGTH     ranges: one file per kept range
 *
 * A hole of the sparse form is not known to have been zeroes: only the ranges of the manifest are the losing site's data.
 *
 * A block that the losing site's disk has damaged since takes no other with it: it stays a hole, and the manifest names it as unreadable.
 */

/** What of a record is damaged on its own. */
const BLOCK_BYTES = 64 * 1024

export type ExportFormat = 'sparse' | 'ranges'

export interface ExportedVolume {
  readonly volume: string
  readonly pair: string
  readonly size_bytes: number
  readonly bytes: number
  readonly ranges: readonly KeptRange[]
}

interface Unreadable extends KeptRange {
  readonly volume: string
}

/** Resolves with what could not be read; the manifest names it too. */
export async function exportDivergence(options: {
  readonly api: ApiSession
  readonly record: Divergence
  readonly volumes: readonly ExportedVolume[]
  /** Must not exist. */
  readonly directory: string
  readonly format: ExportFormat
  readonly onBytes: (done: number) => void
}): Promise<readonly Unreadable[]> {
  const { api, record, volumes, directory, format, onBytes } = options
  await mkdir(directory, { mode: 0o700 })
  let done = 0
  const unreadable: Unreadable[] = []
  const files = []
  for (const { volume, ranges, size_bytes: sizeBytes } of volumes) {
    const copy = async (path: string, range: KeptRange, base: number): Promise<void> => {
      const file = await open(path, format === 'sparse' ? 'r+' : 'wx', 0o600)
      try {
        const end = range.offset + range.length
        let step = DOWNLOAD_BYTES_MAX
        for (let at = range.offset; at < end; ) {
          const length = Math.min(step, end - at)
          const data = await readable(api, record.id, volume, { offset: at, length })
          if (data === null && length > BLOCK_BYTES) {
            step = BLOCK_BYTES
            continue
          }
          if (data === null) unreadable.push({ volume, offset: at, length })
          else await file.write(data, 0, data.length, at - base)
          at += length
          done += length
          onBytes(done)
        }
        // Also where its end could not be read.
        if (format === 'ranges') await file.truncate(range.length)
        await file.sync()
      } finally {
        await file.close()
      }
    }
    if (format === 'ranges') {
      await mkdir(join(directory, volume), { mode: 0o700 })
      for (const range of ranges) {
        const name = join(volume, `${range.offset}-${range.length}`)
        await copy(join(directory, name), range, range.offset)
        files.push({ file: name, volume, ...range })
      }
      continue
    }
    const name = `${volume}.raw`
    const file = await open(join(directory, name), 'wx', 0o600)
    await file.truncate(sizeBytes)
    await file.close()
    for (const range of ranges) await copy(join(directory, name), range, 0)
    files.push({ file: name, volume, ranges })
  }
  const about = { format: 'holdfast-divergence', version: 1, layout: format, record }
  const manifest = { ...about, files, unreadable }
  await writeFileWhole(
    join(directory, 'manifest.json'),
    `${JSON.stringify(manifest, null, 2)}\n`,
    0o600,
  )
  return unreadable
}

/** null: damaged at the site that keeps it. */
async function readable(
  api: ApiSession,
  divergence: string,
  volume: string,
  range: KeptRange,
): Promise<Uint8Array | null> {
  try {
    return await downloadRange(api, divergence, volume, range)
  } catch (error) {
    if (isFault(error, API_REFUSED) && error.detail['code'] === 'SNAPSHOT_BROKEN') return null
    throw error
  }
}
