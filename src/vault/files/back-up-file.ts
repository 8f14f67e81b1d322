import { open } from 'node:fs/promises'
import { Fault } from '#base/fault.ts'
import { readWhole } from '#base/system/whole-io.ts'
import { BACKUP_MISUSED } from '../faults.ts'
import type { BackupOptions, BackupProgress } from '../backup/session.ts'
import type { Manifest } from '../format/manifest.ts'
import { EAGER_BYTES } from '../limits.ts'
import type { Vault } from '../vault.ts'

/* Backs up one file or block device that nobody writes to meanwhile. */

export interface BackUpFileOptions extends BackupOptions {
  readonly volume: string
  /** With a parent: [offset, length] of what may have changed. Without: everything is read. */
  readonly ranges?: readonly (readonly [number, number])[]
  readonly progress?: (bytesDone: number, bytesTotal: number, bytesStored: number) => void
}

const READ_BYTES = 4 * 1024 * 1024

export async function backUpFile(
  vault: Vault,
  path: string,
  options: BackUpFileOptions,
): Promise<{ readonly manifest: Manifest; readonly progress: BackupProgress }> {
  const file = await open(path, 'r')
  try {
    const sizeBytes = await sizeOf(file)
    const ranges = wholeBlocks(
      options.ranges ?? [[0, sizeBytes]],
      sizeBytes,
      vault.header.block_bytes,
    )
    const total = ranges.reduce((sum, [, length]) => sum + length, 0)
    const session = await vault.begin({ ...options, eager: total > EAGER_BYTES })
    try {
      const writer = await session.openVolume({ id: options.volume, sizeBytes })
      let done = 0
      for (const [offset, length] of ranges) {
        for (let at = offset; at < offset + length; at += READ_BYTES) {
          const bytes = Math.min(READ_BYTES, offset + length - at)
          await writer.writeFrom(at, bytes, async (target, from) => {
            if ((await readWhole(file, target, from)) === target.length) return
            throw new Fault(BACKUP_MISUSED, `backing up ${path}: it became shorter meanwhile`)
          })
          done += bytes
          options.progress?.(done, total, session.progress().bytesStored)
        }
      }
      await writer.finish()
      const manifest = await session.commit()
      return { manifest, progress: session.progress() }
    } finally {
      await session.abandon()
    }
  } finally {
    await file.close()
  }
}

type File = Awaited<ReturnType<typeof open>>

/** Block devices have no size of their own in stat; reading their end tells it. */
async function sizeOf(file: File): Promise<number> {
  const facts = await file.stat()
  if (!facts.isBlockDevice()) return facts.size
  const probe = Buffer.alloc(1)
  let low = 0
  let high = Number.MAX_SAFE_INTEGER
  while (low < high) {
    const middle = low + Math.floor((high - low) / 2)
    const { bytesRead } = await file.read(probe, 0, 1, middle)
    if (bytesRead === 1) low = middle + 1
    else high = middle
  }
  return low
}

/** Ranges widened to blocks, in order, without overlaps, inside the volume. */
export function wholeBlocks(
  ranges: readonly (readonly [number, number])[],
  sizeBytes: number,
  blockBytes: number,
): [number, number][] {
  const result: [number, number][] = []
  for (const [offset, length] of ranges.toSorted((a, b) => a[0] - b[0])) {
    if (length === 0 || offset >= sizeBytes) continue
    const from = Math.floor(offset / blockBytes) * blockBytes
    const end = Math.min(sizeBytes, Math.ceil((offset + length) / blockBytes) * blockBytes)
    const last = result.at(-1)
    if (last !== undefined && from <= last[0] + last[1]) last[1] = Math.max(last[1], end - last[0])
    else result.push([from, end - from])
  }
  return result
}
