import type { FileShape } from '#base/system/file-shape.ts'
import type { FileRanges } from '#base/system/libc.ts'

export const CUT_OFF = 'the data file is shorter than the volume'

export interface Gone {
  readonly reason: string
  readonly cause: unknown
}

/** The shape of a volume's file, or why it is lost: it has no name any more, is shorter than the volume, or its file system does not tell. Takes a
 *  microsecond, and out of cold caches 15. */
export function fileThere(ranges: FileRanges, fd: number, sizeBytes: number): FileShape | Gone {
  let found: FileShape
  try {
    found = ranges.shape(fd)
  } catch (error) {
    // A file system that has shut itself down has thrown away what it had not written.
    return { reason: `statx failed: ${String(error)}`, cause: error }
  }
  if (found.nlink === 0) return { reason: 'the data file was removed', cause: undefined }
  if (found.size < sizeBytes) return { reason: CUT_OFF, cause: undefined }
  return found
}
