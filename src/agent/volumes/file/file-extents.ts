import { hasCode } from '#base/system/files.ts'
import type { FileRanges } from '#base/system/libc.ts'
import type { Extent } from '../volume.ts'

/** The stretch of data or hole that begins at `offset`, up to `end`; where holes cannot be asked for all of it is data. Throws a system error. */
export function extentAt(ranges: FileRanges, fd: number, offset: number, end: number): Extent {
  try {
    const data = ranges.seekData(fd, offset) ?? end
    if (data > offset) return { offset, length: Math.min(data, end) - offset, hole: true }
    const hole = ranges.seekHole(fd, offset)
    return { offset, length: Math.min(hole, end) - offset, hole: false }
  } catch (error) {
    if (!isUnsupported(error)) throw error
    return { offset, length: end - offset, hole: false }
  }
}

/** The file system has no such operation. */
export const isUnsupported = (error: unknown): boolean =>
  hasCode(error, 'EOPNOTSUPP') || hasCode(error, 'ENOTSUP') || hasCode(error, 'ENOSYS')
