import koffi from 'koffi'
import { systemError } from './system-error.ts'

/* Files that share their space until one of them is written: the FICLONERANGE call of XFS and Btrfs. Node's copyFile can do the same, but
 * deletes the target when it fails, and the target may be a volume. */

/** _IOW(0x94, 13, struct file_clone_range): source descriptor, its offset, its length, offset in the target; 64 bits each. */
const FICLONERANGE = 0x4020940d

type Ioctl = (fd: number, request: number, argument: Buffer) => number
type Callback = (error: Error | null, result: number) => void
type Asynchronous = { async(fd: number, request: number, argument: Buffer, done: Callback): void }

let ioctl: (Ioctl & Asynchronous) | undefined

/**
 * In the thread pool: makes the beginning of `target` share the bytes of `source`, all or the first `length`. Dirty pages of the source are
 * written to the disk first; that and the number of extents is what it costs (seconds for a large, dirty, fragmented file), and nobody can write
 * to either file meanwhile. The data of the target is replaced extent by extent, not at one moment. Neither file is durable by it.
 *
 * Rejects with a system error whose `code` is EOPNOTSUPP, EXDEV, EINVAL, ENOTTY or ENOSYS where it cannot be done.
 */
export function cloneFile(target: number, source: number, length = 0): Promise<void> {
  try {
    ioctl ??= koffi
      .load(null)
      .func('int ioctl(int fd, unsigned long request, void *argument)') as unknown as Ioctl &
      Asynchronous
  } catch (error) {
    return Promise.reject(
      Object.assign(new Error('libc is not available', { cause: error }), { code: 'ENOSYS' }),
    )
  }
  const call = ioctl
  const range = Buffer.alloc(32)
  range.writeBigInt64LE(BigInt(source), 0)
  range.writeBigUInt64LE(BigInt(length), 16)
  return new Promise((resolve, reject) => {
    call.async(target, FICLONERANGE, range, (error, result) => {
      if (error !== null) return reject(error)
      if (result === 0) return resolve()
      // The error number stayed in the pool's thread. Repeating what failed is harmless and tells the number.
      if (call(target, FICLONERANGE, range) === 0) return resolve()
      reject(systemError('ioctl FICLONERANGE', koffi.errno()))
    })
  })
}

const CANNOT = new Set(['EOPNOTSUPP', 'ENOTSUP', 'EXDEV', 'EINVAL', 'ENOTTY', 'ENOSYS'])

/** The file system cannot clone these files, and never will. */
export const cannotClone = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && CANNOT.has(String(error.code))
