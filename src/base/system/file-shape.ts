import { fstatSync } from 'node:fs'
import koffi from 'koffi'
import { hasCode } from './files.ts'
import { systemError } from './system-error.ts'

/* Names and length of an open file, without asking for its times.
 *
 * Since Linux 6.13 the time of change of a file that somebody has asked for is exact the next time it changes, and in steps of some milliseconds otherwise. So a
 * file that is looked at with fstat before each flush has its inode changed by each write, and each fdatasync writes it: a second trip to the disk, and
 * the journal of the file system. `statx` is told what is wanted. */

const AT_EMPTY_PATH = 0x1000
const STATX_NLINK = 0x4
const STATX_SIZE = 0x200
const WANTED = STATX_NLINK | STATX_SIZE
/** `struct statx` is 256 bytes long. */
const STATX_BYTES = 256
const MASK_AT = 0
const NLINK_AT = 16
const SIZE_AT = 40

export interface FileShape {
  /** 0: the file has no name any more. */
  readonly nlink: number
  /** Bytes. */
  readonly size: number
}

type Statx = (fd: number, path: string, flags: number, mask: number, out: Buffer) => number

const out = Buffer.alloc(STATX_BYTES)
/** null: there is none here; undefined: not looked for yet. */
let statx: Statx | null | undefined

function load(): Statx | null {
  try {
    return koffi
      .load(null)
      .func(
        'int statx(int fd, const char *path, int flags, unsigned int mask, void *out)',
      ) as unknown as Statx
  } catch {
    return null
  }
}

/** Takes a microsecond. Throws a system error. */
export function fileShape(fd: number): FileShape {
  statx ??= load()
  if (statx === null) return fstatSync(fd)
  if (statx(fd, '', AT_EMPTY_PATH, WANTED, out) === 0) {
    // A file system that does not tell one of them leaves its bit out.
    if ((out.readUInt32LE(MASK_AT) & WANTED) !== WANTED) return fstatSync(fd)
    return { nlink: out.readUInt32LE(NLINK_AT), size: Number(out.readBigUInt64LE(SIZE_AT)) }
  }
  const error = systemError('statx', koffi.errno())
  // Refused by an old kernel or a sandbox.
  if (['ENOSYS', 'EPERM', 'EINVAL'].some((code) => hasCode(error, code))) {
    statx = null
    return fstatSync(fd)
  }
  throw error
}
