import { dirname } from 'node:path'
import { once } from 'node:events'
import { type FileHandle, open, stat } from 'node:fs/promises'
import { Fault } from '#base/fault.ts'
import { isAligned, openDirect, writeDirect } from '#base/system/direct-io.ts'
import { hasCode, syncDirectory } from '#base/system/files.ts'
import { writeWhole } from '#base/system/whole-io.ts'
import { RESTORE_TARGET_EXISTS } from '../faults.ts'
import type { Checkpoint, RestoreOptions } from '../restore/checkpoint.ts'

/* Writes a volume to a file or block device, or to a stream. */

export interface RestoreFileOptions
  extends Pick<RestoreOptions, 'progress' | 'damaged' | 'threads' | 'signal'> {
  readonly overwrite: boolean
}

/** Durable when it settles. A new file stays sparse where the volume is zero. */
export async function restoreToFile(
  checkpoint: Checkpoint,
  volume: string,
  path: string,
  options: RestoreFileOptions,
): Promise<{ readonly bytes: number }> {
  const size = checkpoint.manifest.volumes.find((one) => one.id === volume)?.sizeBytes ?? 0
  const device = await isBlockDevice(path)
  let file
  let direct: FileHandle | undefined
  try {
    file = await open(path, options.overwrite ? (device ? 'r+' : 'w') : 'wx', 0o600)
  } catch (error) {
    if (!hasCode(error, 'EEXIST')) throw error
    throw new Fault(RESTORE_TARGET_EXISTS, `restoring to ${path}`, { path }, error)
  }
  try {
    if (!device) await file.truncate(size)
    const zeroes = Buffer.alloc(1024 * 1024)
    const target = file
    direct = await openDirect(path, 'write')
    const write = async (offset: number, data: Buffer) => {
      let done = 0
      if (direct !== undefined && isAligned(data, offset)) {
        done = await writeDirect(direct, data, offset)
      }
      await writeWhole(target, data, offset + done, done, data.length - done)
    }
    await checkpoint.restore(
      volume,
      {
        write,
        ...(device
          ? {
              zero: async (offset: number, length: number) => {
                for (let at = 0; at < length; at += zeroes.length) {
                  await write(offset + at, zeroes.subarray(0, Math.min(zeroes.length, length - at)))
                }
              },
            }
          : {}),
      },
      options,
    )
    await file.sync()
    // A new file is durable with its name.
    if (!device) await syncDirectory(dirname(path))
  } finally {
    await direct?.close()
    await file.close()
  }
  return { bytes: size }
}

async function isBlockDevice(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isBlockDevice()
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return false
    throw error
  }
}

/** All bytes in order; waits while the reader is slow. */
export async function restoreToStream(
  checkpoint: Checkpoint,
  volume: string,
  out: NodeJS.WritableStream,
): Promise<void> {
  for await (const piece of checkpoint.stream(volume)) {
    if (!out.write(piece)) await once(out, 'drain')
  }
}
