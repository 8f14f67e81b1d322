import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import koffi from 'koffi'
import { hasCode } from './files.ts'
import { writeWhole } from './whole-io.ts'

/* Reading and writing large pieces past the page cache.
 *
 * What is written once and not read soon, such as a pack of a vault, gains nothing from the cache: it is copied there into pages that have to be found
 * first, pushes out what somebody reads, and is written to the disk only when somebody waits for it. In virtual machines, whose free pages
 * the host has taken back, this takes a second of processor time for half a GiB. Past the cache it takes a twentieth.
 *
 * It asks for memory, offsets and lengths in whole pages, and not all file systems can do it: callers have the usual way besides. Both ways may be used on
 * one file as long as they do not meet in a page. What is durable is as always what was synced. */

/** Covers the logical block size of every disk in use. */
export const DIRECT_BYTES = 4096

/** Whether a piece can be read or written past the cache at `position`, but for what `wholePages` leaves over. */
export const isAligned = (bytes: Uint8Array, position: number): boolean =>
  position % DIRECT_BYTES === 0 && addressOf(bytes) % DIRECT_BYTES === 0

export const wholePages = (length: number): number => length - (length % DIRECT_BYTES)

/** Memory that begins with a page; not zeroed. Where addresses cannot be had it begins anywhere. */
export function alignedBuffer(length: number): Buffer {
  const memory = Buffer.allocUnsafeSlow(length + DIRECT_BYTES)
  const skip = toNextPage(memory)
  return memory.subarray(skip, skip + length)
}

/** Memory that threads share; it lies at one address for all of them. */
export interface SharedPiece {
  readonly memory: SharedArrayBuffer
  /** Where the piece begins, with a page. */
  readonly offset: number
  readonly length: number
}

export function alignedShared(length: number): SharedPiece {
  if (length === 0) return { memory: new SharedArrayBuffer(0), offset: 0, length }
  const memory = new SharedArrayBuffer(length + DIRECT_BYTES)
  return { memory, offset: toNextPage(new Uint8Array(memory)), length }
}

const toNextPage = (bytes: Uint8Array): number =>
  (DIRECT_BYTES - (addressOf(bytes) % DIRECT_BYTES)) % DIRECT_BYTES

/** A multiple of a page plus one where addresses cannot be had. */
function addressOf(bytes: Uint8Array): number {
  try {
    return Number(BigInt(koffi.address(bytes)) % BigInt(DIRECT_BYTES))
  } catch {
    return 1
  }
}

/** Opens a file that exists past the cache, for reading or writing; undefined where its file system has no such way. */
export async function openDirect(
  path: string,
  access: 'read' | 'write',
): Promise<FileHandle | undefined> {
  const flags = access === 'read' ? constants.O_RDONLY : constants.O_WRONLY
  try {
    return await open(path, flags | constants.O_DIRECT)
  } catch (error) {
    if (isUnfitForDirect(error)) return undefined
    throw error
  }
}

/** Writes the whole pages of an aligned piece; bytes written, 0 where the file system refuses. Throws a system error. */
export async function writeDirect(
  file: FileHandle,
  piece: Uint8Array,
  position: number,
): Promise<number> {
  const length = wholePages(piece.byteLength)
  try {
    await writeWhole(file, piece, position, 0, length)
    return length
  } catch (error) {
    // Also when it began and met the end of the disk in the middle of a page: the usual way tells what it is.
    if (isUnfitForDirect(error)) return 0
    throw error
  }
}

/** A file system may allow to open a file so and then refuse the piece. ENOTSUP is what Node calls EOPNOTSUPP. */
export const isUnfitForDirect = (error: unknown): boolean =>
  ['EINVAL', 'ENOTSUP', 'EOPNOTSUPP'].some((code) => hasCode(error, code))
