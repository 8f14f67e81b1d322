import { type FileHandle, open } from 'node:fs/promises'
import { hasCode } from '#base/system/files.ts'
import type { FileRanges } from '#base/system/libc.ts'
import type { StoreDisk, StoreFile } from './disk.ts'

/** Files of the real disk. */
export function systemDisk(ranges: FileRanges): StoreDisk {
  return {
    async open(path, create) {
      return fileOf(await open(path, create === 'create' ? 'wx+' : 'r+', 0o600), ranges)
    },
  }
}

function fileOf(file: FileHandle, ranges: FileRanges): StoreFile {
  return {
    async write(buf, offset) {
      for (let done = 0; done < buf.length; ) {
        const left = buf.length - done
        done += (await file.write(buf, done, left, offset + done)).bytesWritten
      }
    },
    async read(buf, offset) {
      let done = 0
      while (done < buf.length) {
        const { bytesRead } = await file.read(buf, done, buf.length - done, offset + done)
        if (bytesRead === 0) break
        done += bytesRead
      }
      return done
    },
    datasync: () => file.datasync(),
    size: async () => (await file.stat()).size,
    truncate: (sizeBytes) => file.truncate(sizeBytes),
    async punch(offset, length) {
      try {
        await ranges.punchHole(file.fd, offset, length)
      } catch (error) {
        if (!hasCode(error, 'EOPNOTSUPP') && !hasCode(error, 'ENOTSUP')) throw error
      }
    },
    close: () => file.close(),
  }
}
