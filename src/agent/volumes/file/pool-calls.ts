import { type BigIntStats, close, fdatasync, fstat, fsync, ftruncate } from 'node:fs'
import { promisify } from 'node:util'

/** Calls of a volume's file that may wait for the disk, in the thread pool. Reject with a system error. */

export const fdatasyncInPool = promisify(fdatasync)
export const fsyncInPool = promisify(fsync)
export const ftruncateInPool = promisify(ftruncate)
export const fstatInPool = promisify(fstat)
export const closeInPool = promisify(close)

/** With times of nanoseconds. */
export const bigFstatInPool = (fd: number): Promise<BigIntStats> =>
  new Promise((resolve, reject) => {
    fstat(fd, { bigint: true }, (error, stats) => (error === null ? resolve(stats) : reject(error)))
  })
