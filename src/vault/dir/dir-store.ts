import { randomBytes } from 'node:crypto'
import {
  type FileHandle,
  link,
  mkdir,
  open,
  readdir,
  rename,
  rm,
  stat,
  unlink,
} from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { assert } from '#base/assert.ts'
import { Fault } from '#base/fault.ts'
import {
  alignedBuffer,
  DIRECT_BYTES,
  isAligned,
  isUnfitForDirect,
  openDirect,
  wholePages,
  writeDirect,
} from '#base/system/direct-io.ts'
import { hasCode, syncDirectory } from '#base/system/files.ts'
import { readWhole, writeWhole } from '#base/system/whole-io.ts'
import { OBJECT_MISSING, VAULT_STORE_FAILED, VAULT_DAMAGED } from '../faults.ts'
import { DIRECT_PIECE_MIN } from '../limits.ts'
import {
  asPieces,
  isObjectKey,
  type ListedObject,
  type ObjectKey,
  type ObjectStat,
  type ObjectStore,
  type PutOptions,
} from '../object-store.ts'

/* A vault in a directory: an object is a file.
 *
 *   put           write tmp/RANDOM, fdatasync it, then link(2) it to its name (ifAbsent) or rename(2) it over, then fsync the directory.
 *                 link refuses an existing name, on NFS too, so it has exactly one winner.
 *   crash         leaves files in tmp/ at most. Whoever opens the store removes those that are older than a day.
 *   directories   are made when first needed, and their parents are synced before anything in them counts.
 */

const TEMPORARY = 'tmp'
const TEMPORARY_AGE_MS = 24 * 60 * 60_000
const STAT_AT_A_TIME = 64

/** The system calls that decide what survives; tests replace them by a disk that forgets what was not synced. */
export interface DirDisk {
  open(path: string, flags: string): Promise<DirFile>
  link(from: string, to: string): Promise<void>
  rename(from: string, to: string): Promise<void>
  unlink(path: string): Promise<void>
  mkdir(path: string): Promise<void>
  syncDirectory(path: string): Promise<void>
}

export interface DirFile {
  writev(pieces: readonly Uint8Array[]): Promise<void>
  datasync(): Promise<void>
  close(): Promise<void>
}

export const systemDisk: DirDisk = {
  async open(path, flags) {
    const handle = await open(path, flags, 0o600)
    return {
      writev: (pieces) => writeAll(path, handle, pieces),
      datasync: () => handle.datasync(),
      close: () => handle.close(),
    }
  },
  link,
  rename,
  unlink,
  mkdir: (path) => mkdir(path, { mode: 0o700 }),
  syncDirectory,
}

async function writeAll(
  path: string,
  handle: FileHandle,
  pieces: readonly Uint8Array[],
): Promise<void> {
  let position = 0
  for (const piece of pieces) {
    const large = piece.byteLength >= DIRECT_PIECE_MIN && isAligned(piece, position)
    const done = large ? await writePages(path, piece, position) : 0
    await writeWhole(handle, piece, position + done, done, piece.byteLength - done)
    position += piece.byteLength
  }
}

/** Bytes written, whole pages from the beginning; 0 where the file system cannot do it. */
async function writePages(path: string, piece: Uint8Array, position: number): Promise<number> {
  const handle = await openDirect(path, 'write')
  if (handle === undefined) return 0
  try {
    return await writeDirect(handle, piece, position)
  } finally {
    await handle.close()
  }
}

/** Opens a directory as a store; it is made when `create` is set. `wallMs`: the time, to know which leftovers are old. */
export async function openDirStore(
  root: string,
  options: { readonly create?: boolean; readonly disk?: DirDisk; readonly wallMs?: number } = {},
): Promise<ObjectStore> {
  const disk = options.disk ?? systemDisk
  const made = new Set<string>()
  const pathOf = (key: ObjectKey) => {
    assert(isObjectKey(key), `${key} is an object key`)
    return join(root, key)
  }
  if (options.create === true) await makeDirectory(root)
  if (options.wallMs !== undefined) await removeLeftovers(options.wallMs)

  async function makeDirectory(path: string): Promise<void> {
    if (made.has(path)) return
    try {
      await disk.mkdir(path)
    } catch (error) {
      if (hasCode(error, 'ENOENT') && dirname(path) !== path) {
        await makeDirectory(dirname(path))
        await makeDirectory(path)
        return
      }
      if (!hasCode(error, 'EEXIST')) throw error
    }
    // Also when it existed: whoever made it may have been killed before this.
    await disk.syncDirectory(dirname(path))
    made.add(path)
  }

  async function removeLeftovers(wallMs: number): Promise<void> {
    for (const name of await namesIn(join(root, TEMPORARY))) {
      const path = join(root, TEMPORARY, name)
      const facts = await statFile(path)
      if (facts !== undefined && facts.modifiedMs < wallMs - TEMPORARY_AGE_MS) {
        await rm(path, { force: true })
      }
    }
  }

  async function writeTemporary(pieces: readonly Uint8Array[]): Promise<string> {
    const directory = join(root, TEMPORARY)
    await makeDirectory(directory)
    const path = join(directory, randomBytes(12).toString('hex'))
    const file = await disk.open(path, 'wx')
    try {
      await file.writev(pieces)
      await file.datasync()
    } catch (error) {
      await file.close()
      await rm(path, { force: true })
      throw error
    }
    await file.close()
    return path
  }

  return {
    name: root,
    async put(key, body, { ifAbsent = false }: PutOptions = {}) {
      const path = pathOf(key)
      return await guarded(`storing ${key}`, key, async () => {
        const temporary = await writeTemporary(asPieces(body))
        await makeDirectory(dirname(path))
        try {
          if (ifAbsent) {
            await disk.link(temporary, path)
            await disk.unlink(temporary)
          } else await disk.rename(temporary, path)
        } catch (error) {
          await rm(temporary, { force: true })
          if (!ifAbsent || !hasCode(error, 'EEXIST')) throw error
          // The winner may not have synced it yet, and we must not build on what can still vanish.
          await disk.syncDirectory(dirname(path))
          return false
        }
        await disk.syncDirectory(dirname(path))
        return true
      })
    },
    async get(key, range, into) {
      return await guarded(`reading ${key}`, key, () => readObject(pathOf(key), key, range, into))
    },
    async stat(key) {
      return await guarded(`looking at ${key}`, key, () => statFile(pathOf(key)))
    },
    list: (prefix) => listFiles(root, prefix),
    async delete(key) {
      await guarded(`deleting ${key}`, key, async () => {
        try {
          await disk.unlink(pathOf(key))
        } catch (error) {
          if (hasCode(error, 'ENOENT')) return
          throw error
        }
        await disk.syncDirectory(dirname(pathOf(key)))
      })
    },
    close() {
      made.clear()
    },
  }
}

interface Range {
  readonly offset: number
  readonly length: number
}

async function readObject(
  path: string,
  key: ObjectKey,
  range: Range | undefined,
  into: Buffer | undefined,
): Promise<Buffer> {
  if (range !== undefined && range.length >= DIRECT_PIECE_MIN) {
    const bytes = await readDirect(path, key, range, into)
    if (bytes !== undefined) return bytes
  }
  const handle = await open(path, 'r')
  try {
    const { offset, length } = range ?? { offset: 0, length: (await handle.stat()).size }
    // Its own memory, so that it can be handed to a thread.
    const buffer = Buffer.allocUnsafeSlow(length)
    if ((await readWhole(handle, buffer, offset)) < length) throw tooShort(key)
    return buffer
  } finally {
    await handle.close()
  }
}

/** The pages that the range touches, past the cache; undefined where the file system cannot do it. */
async function readDirect(
  path: string,
  key: ObjectKey,
  { offset, length }: Range,
  into: Buffer | undefined,
): Promise<Buffer | undefined> {
  const before = offset - wholePages(offset)
  const needed = before + length
  const bytes = wholePages(needed + DIRECT_BYTES - 1)
  const fits = into !== undefined && into.length >= bytes && isAligned(into, 0)
  const target = fits ? into.subarray(0, bytes) : alignedBuffer(bytes)
  const handle = await openDirect(path, 'read')
  if (handle === undefined) return undefined
  try {
    if ((await readWhole(handle, target, offset - before, needed)) < needed) throw tooShort(key)
    return target.subarray(before, needed)
  } catch (error) {
    if (isUnfitForDirect(error)) return undefined
    throw error
  } finally {
    await handle.close()
  }
}

const tooShort = (key: ObjectKey): Fault =>
  new Fault(VAULT_DAMAGED, `reading ${key}: it is too short`, { object: key })

async function statFile(path: string): Promise<ObjectStat | undefined> {
  try {
    const facts = await stat(path)
    return { bytes: facts.size, modifiedMs: facts.mtimeMs }
  } catch (error) {
    if (hasCode(error, 'ENOENT') || hasCode(error, 'ENOTDIR')) return undefined
    throw error
  }
}

async function namesIn(path: string): Promise<string[]> {
  try {
    return await readdir(path)
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return []
    throw error
  }
}

async function* listFiles(root: string, prefix: string): AsyncGenerator<ListedObject> {
  let entries
  try {
    entries = await readdir(join(root, prefix), { withFileTypes: true })
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return
    throw error
  }
  const files: string[] = []
  for (const entry of entries) {
    if (entry.isDirectory()) {
      if (prefix === '' && entry.name === TEMPORARY) continue
      yield* listFiles(root, `${prefix}${entry.name}/`)
    } else if (entry.isFile()) files.push(`${prefix}${entry.name}`)
  }
  for (let at = 0; at < files.length; at += STAT_AT_A_TIME) {
    const some = files.slice(at, at + STAT_AT_A_TIME)
    const facts = await Promise.all(some.map((key) => statFile(join(root, key))))
    for (const [i, key] of some.entries()) {
      const found = facts[i]
      if (found !== undefined) yield { key, ...found } // otherwise deleted meanwhile
    }
  }
}

async function guarded<T>(doing: string, key: ObjectKey, act: () => Promise<T>): Promise<T> {
  try {
    return await act()
  } catch (error) {
    if (error instanceof Fault) throw error
    if (hasCode(error, 'ENOENT')) throw new Fault(OBJECT_MISSING, doing, { object: key }, error)
    if (error instanceof Error && 'code' in error) {
      throw new Fault(VAULT_STORE_FAILED, `${doing}: ${error.message}`, { object: key }, error)
    }
    throw error
  }
}
