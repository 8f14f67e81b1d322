import { type FileHandle, open } from 'node:fs/promises'
import { hasCode } from '#base/system/files.ts'
import type { FileRanges } from '#base/system/libc.ts'
import { readWhole, writeWhole } from '#base/system/whole-io.ts'
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
    write: (buf, offset) => writeWhole(file, buf, offset),
    read: (buf, offset) => readWhole(file, buf, offset),
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
