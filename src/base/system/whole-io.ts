import { readSync, writeSync } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { hasCode } from './files.ts'

/* Reading and writing all of a range, or an error.
 *
 * The kernel may do a part of what it is asked for and say how much: a write on a disk that is just becoming full, a read that meets a bad sector
 * behind good ones. The error comes with the next call only. Who takes the part for the whole reads zeroes where the disk has failed, or
 * takes half a record for one that is stored. */

/** Fills `buf` from byte `position` on. Bytes read: less than asked for only where the file ends. Throws a system error. */
export function readWholeSync(fd: number, buf: Uint8Array, position: number): number {
  let done = 0
  while (done < buf.length) {
    const got = readSync(fd, buf, done, buf.length - done, position + done)
    if (got === 0) break
    done += got
  }
  return done
}

/** Writes `buf[start, start + length)`, all of it unless it says otherwise, at byte `position`. Throws a system error; what lies there is undefined then. */
export function writeWholeSync(
  fd: number,
  buf: Uint8Array,
  position: number,
  start = 0,
  length = buf.length,
): void {
  for (let done = 0; done < length; ) {
    done += writeSync(fd, buf, start + done, length - done, position + done)
  }
}

/** As `readWholeSync`, in the thread pool. Content with the first `needed` bytes: past the page cache the end of a file is met only once. */
export async function readWhole(
  file: FileHandle,
  buf: Uint8Array,
  position: number,
  needed = buf.length,
): Promise<number> {
  let done = 0
  while (done < needed) {
    const { bytesRead } = await file.read(buf, done, buf.length - done, position + done)
    if (bytesRead === 0) break
    done += bytesRead
  }
  return done
}

/** As `writeWholeSync`, in the thread pool. */
export async function writeWhole(
  file: FileHandle,
  buf: Uint8Array,
  position: number,
  start = 0,
  length = buf.length,
): Promise<void> {
  for (let done = 0; done < length; ) {
    const at = start + done
    const { bytesWritten } = await file.write(buf, at, length - done, position + done)
    done += bytesWritten
  }
}

/** A write, truncation or new file that there is no room for: nothing that the disk had accepted before is lost. EFBIG: the file system, or
 *  a limit of the process (RLIMIT_FSIZE), has no files as long as that. Of an fsync it says the contrary. */
export const hasNoRoom = (error: unknown): boolean =>
  hasCode(error, 'ENOSPC') || hasCode(error, 'EDQUOT') || hasCode(error, 'EFBIG')
