import koffi from 'koffi'
import { type FileShape, fileShape } from './file-shape.ts'
import { systemError } from './system-error.ts'

/* System calls on file ranges that Node has no function for. Each costs about a microsecond of call overhead, the
 * work in the kernel comes on top: punching 1 MiB takes 0.1 to 0.7 ms.
 *
 * Everything here works on one open file descriptor and may fail with EOPNOTSUPP on file systems that lack the operation
 * (and everywhere when libc cannot be loaded): callers have another way then. */

const KEEP_SIZE = 1
const PUNCH_HOLE = 2
const ZERO_RANGE = 16
const SEEK_DATA = 3
const SEEK_HOLE = 4
const ADVICE_RANDOM = 1
const RWF_NOWAIT = 8
const SYNC_FILE_RANGE_WRITE = 2

export interface FileRanges {
  /** Gives the range back to the file system; it reads as zeroes. The size stays. */
  punchHoleSync(fd: number, offset: number, length: number): void
  /** Makes the range read as zeroes and reserves its space. The size stays. */
  zeroRangeSync(fd: number, offset: number, length: number): void
  /** The same two in the thread pool. */
  punchHole(fd: number, offset: number, length: number): Promise<void>
  zeroRange(fd: number, offset: number, length: number): Promise<void>
  /** First offset at or behind `offset` that holds data, or undefined when only a hole follows. */
  seekData(fd: number, offset: number): number | undefined
  /** First offset at or behind `offset` that lies in a hole; the end of the file counts as one. */
  seekHole(fd: number, offset: number): number
  /** Tells the kernel not to read ahead, and so not to cache the file in large folios: on ext4 these make later
   *  small writes 5 to 15 times slower. */
  adviseRandom(fd: number): void
  /** Begins to write what is dirty to the disk and does not wait for it; nothing is durable by it. Takes some 30 us for a
   *  page, more for many. A file system that cannot do it does nothing. */
  startWriteback(fd: number): void
  /** The same in the thread pool. Resolves when all of it has been given to the disk's queue. */
  startWritebackInPool(fd: number): Promise<void>
  /** Reads what the page cache holds and never waits for the disk. Bytes read, from the beginning of the range; 0 when
   *  the first page is not there. `buf` must not be resizable. */
  readCached(fd: number, buf: Uint8Array, bufOffset: number, length: number, offset: number): number
  /** Names and length, and nothing that would make later writes of the file dearer. */
  shape(fd: number): FileShape
}

type Fallocate = (fd: number, mode: number, offset: number, length: number) => number
type Lseek = (fd: number, offset: number, whence: number) => number | bigint
type Fadvise = (fd: number, offset: number, length: number, advice: number) => number
type SyncFileRange = (fd: number, offset: number, length: number, flags: number) => number
type AsynchronousSync = {
  async(fd: number, offset: number, length: number, flags: number, done: Callback): void
}
type Preadv2 = (fd: number, iov: Buffer, count: number, offset: number, flags: number) => number
type Callback = (error: Error | null, result: number) => void
type Asynchronous = { async(fd: number, mode: number, at: number, n: number, done: Callback): void }

/** Loads libc; on systems where that fails every operation throws EOPNOTSUPP. */
export function systemFileRanges(): FileRanges {
  let library: ReturnType<typeof koffi.load>
  try {
    library = koffi.load(null)
  } catch {
    return NO_FILE_RANGES
  }
  const fallocate = library.func(
    'int fallocate64(int fd, int mode, int64_t offset, int64_t length)',
  ) as unknown as Fallocate & Asynchronous
  const lseek = library.func(
    'int64_t lseek64(int fd, int64_t offset, int whence)',
  ) as unknown as Lseek
  const fadvise = library.func(
    'int posix_fadvise64(int fd, int64_t offset, int64_t length, int advice)',
  ) as unknown as Fadvise
  const syncFileRange = library.func(
    'int sync_file_range(int fd, int64_t offset, int64_t length, unsigned int flags)',
  ) as unknown as SyncFileRange & AsynchronousSync
  const preadv2 = library.func(
    'int64_t preadv64v2(int fd, void *iov, int count, int64_t offset, int flags)',
  ) as unknown as Preadv2
  const vector = ioVector()

  const changeSync = (fd: number, mode: number, offset: number, length: number): void => {
    if (fallocate(fd, mode, offset, length) !== 0) throw systemError('fallocate', koffi.errno())
  }
  const change = (fd: number, mode: number, offset: number, length: number): Promise<void> =>
    new Promise((resolve, reject) => {
      fallocate.async(fd, mode, offset, length, (error, result) => {
        if (error !== null) reject(error)
        else if (result === 0) resolve()
        // The error number stayed in the pool's thread. Repeating it here is harmless and tells the number.
        else {
          try {
            changeSync(fd, mode, offset, length)
            resolve()
          } catch (failure) {
            reject(failure as Error)
          }
        }
      })
    })
  return {
    punchHoleSync: (fd, offset, length) => changeSync(fd, KEEP_SIZE | PUNCH_HOLE, offset, length),
    zeroRangeSync: (fd, offset, length) => changeSync(fd, KEEP_SIZE | ZERO_RANGE, offset, length),
    punchHole: (fd, offset, length) => change(fd, KEEP_SIZE | PUNCH_HOLE, offset, length),
    zeroRange: (fd, offset, length) => change(fd, KEEP_SIZE | ZERO_RANGE, offset, length),
    seekData(fd, offset) {
      const at = Number(lseek(fd, offset, SEEK_DATA))
      if (at >= 0) return at
      const errno = koffi.errno()
      if (errno === koffi.os.errno['ENXIO']) return undefined
      throw systemError('lseek', errno)
    },
    seekHole(fd, offset) {
      const at = Number(lseek(fd, offset, SEEK_HOLE))
      if (at < 0) throw systemError('lseek', koffi.errno())
      return at
    },
    adviseRandom: (fd) => void fadvise(fd, 0, 0, ADVICE_RANDOM),
    startWriteback: (fd) => void syncFileRange(fd, 0, 0, SYNC_FILE_RANGE_WRITE),
    startWritebackInPool: (fd) =>
      // Whether it could be done says the fdatasync that follows.
      new Promise((resolve) =>
        syncFileRange.async(fd, 0, 0, SYNC_FILE_RANGE_WRITE, () => resolve()),
      ),
    readCached(fd, buf, bufOffset, length, offset) {
      const got = Number(preadv2(fd, vector(buf, bufOffset, length), 1, offset, RWF_NOWAIT))
      if (got >= 0) return got
      const errno = koffi.errno()
      if (errno === koffi.os.errno['EAGAIN']) return 0
      throw systemError('preadv2', errno)
    },
    shape: fileShape,
  }
}

/** One `struct iovec`, filled in by hand: building it from an object costs more than the read itself. Where a buffer lies
 *  in memory is asked once per buffer; it does not move, and it lives at least as long as the call that is given it. */
function ioVector(): (buf: Uint8Array, bufOffset: number, length: number) => Buffer {
  const bytes = Buffer.alloc(16)
  const addresses = new WeakMap<ArrayBufferLike, number>()
  return (buf, bufOffset, length) => {
    let base = addresses.get(buf.buffer)
    if (base === undefined) {
      base = Number(koffi.address(new Uint8Array(buf.buffer)))
      addresses.set(buf.buffer, base)
    }
    const address = base + buf.byteOffset + bufOffset
    const low = address >>> 0
    bytes.writeUInt32LE(low, 0)
    bytes.writeUInt32LE((address - low) / 0x100000000, 4)
    bytes.writeUInt32LE(length, 8)
    return bytes
  }
}

const unsupported = (): NodeJS.ErrnoException =>
  Object.assign(new Error('EOPNOTSUPP: libc is not available'), { code: 'EOPNOTSUPP' })

/** A file system without holes; also for testing what happens on one. */
export const NO_FILE_RANGES: FileRanges = {
  punchHoleSync() {
    throw unsupported()
  },
  zeroRangeSync() {
    throw unsupported()
  },
  punchHole: () => Promise.reject(unsupported()),
  zeroRange: () => Promise.reject(unsupported()),
  seekData() {
    throw unsupported()
  },
  seekHole() {
    throw unsupported()
  },
  adviseRandom() {},
  startWriteback() {},
  startWritebackInPool: () => Promise.resolve(),
  readCached() {
    throw unsupported()
  },
  shape: fileShape,
}
