import { closeSync, fsyncSync, openSync, writeSync as writeFileSync } from 'node:fs'
import { mkdir, open, readdir, rename, rm, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { assert } from '#base/assert.ts'
import { Fault } from '#base/fault.ts'
import {
  hasCode,
  lockFile,
  readTextIfPresent,
  syncDirectory,
  writeFileWhole,
} from '#base/system/files.ts'
import { cannotClone, cloneFile } from '#base/system/clone.ts'
import { type FileRanges, systemFileRanges } from '#base/system/libc.ts'
import { hasNoRoom, writeWhole } from '#base/system/whole-io.ts'
import type { Log } from '#base/log.ts'
import {
  SIZE_MISMATCH,
  VOLUME_FAILED,
  VOLUME_NO_SPACE,
  VOLUME_READ_ERROR,
  VOLUME_UNKNOWN,
} from '../faults.ts'
import type { ChangeWatcher, Volume } from '../volume.ts'
import type {
  Serving,
  VolumeFiller,
  VolumeKeeper,
  VolumeLimit,
  VolumeRecord,
  VolumeStore,
} from '../volume-store.ts'
import { BootMarks, usualBootDirectories } from './boot-marks.ts'
import { FileVolume } from './file-volume.ts'
import { decodeMeta, encodeMeta } from './meta.ts'

/* A directory of volumes.
 *
 *     DIR/lock                 held as long as the store is open: two processes on one volume would destroy it
 *     DIR/ID/meta.json         replaced as a whole, never edited
 *     DIR/ID/data              sparse, as long as the volume
 *     DIR/ID/failed            there exactly when the copy is failed, holds the reason; a file of its own so that no
 *                              change of the record that is under way can undo it. A disk that does not even take this
 *                              one has its mark elsewhere until it does: boot-marks.ts
 *     DIR/.new-ID              being created; worth nothing before its rename to DIR/ID
 *     DIR/.gone-ID             being deleted; worth nothing after its rename from DIR/ID
 *
 * A volume exists exactly when DIR/ID does. Both kinds of leftovers are removed at the next opening. A folder without readable
 * meta.json is damage, not a leftover: the store refuses to open, because starting without it would look like a volume
 * that was never there. A data file that is gone or too short is not as bad: that copy is failed, and the others are served.
 */

export interface FileVolumeStoreOptions {
  readonly directory: string
  readonly log: Log
  readonly wallMs: () => number
  /** Default: the system's. */
  readonly ranges?: FileRanges
  /** Where a failure is noted that the volume's own disk does not take: places in memory. Default: the usual ones. */
  readonly bootDirectories?: readonly string[]
  /** Is told of every change of a volume. */
  readonly watcher?: ChangeWatcher
}

interface Entry {
  record: VolumeRecord
  volume: FileVolume | undefined
  opening: Promise<FileVolume> | undefined
  /** Changes of one volume wait for each other. */
  tail: Promise<unknown>
}

/** An empty file can be cloned by file systems that cannot clone. */
const PROBE_BYTES = 64 * 1024
const ID = /^[0-9a-zA-Z][0-9a-zA-Z-]{0,63}$/

export async function openFileVolumeStore(options: FileVolumeStoreOptions): Promise<VolumeStore> {
  const { directory } = options
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const lock = lockFile(join(directory, 'lock'))
  try {
    const entries = new Map<string, Entry>()
    for (const name of await readdir(directory)) {
      if (name === 'lock') continue
      if (name.startsWith('.new-') || name.startsWith('.gone-')) {
        await rm(join(directory, name), { recursive: true, force: true })
        continue
      }
      const record = await readRecord(directory, name)
      entries.set(name, entryOf(record))
    }
    const directories = options.bootDirectories ?? usualBootDirectories()
    const marks = new BootMarks({ directories, store: directory, log: options.log })
    return new FileVolumeStore(options, entries, marks, () => lock.release())
  } catch (error) {
    lock.release()
    throw error
  }
}

const entryOf = (record: VolumeRecord): Entry => ({
  record,
  volume: undefined,
  opening: undefined,
  tail: Promise.resolve(),
})

async function readRecord(directory: string, name: string): Promise<VolumeRecord> {
  const path = join(directory, name, 'meta.json')
  const decoded = decodeMeta((await readTextIfPresent(path)) ?? '')
  if ('problem' in decoded) {
    throw new Fault(VOLUME_FAILED, `reading ${path}: ${decoded.problem}`, { path })
  }
  if (decoded.id !== name) {
    throw new Fault(VOLUME_FAILED, `reading ${path}: it is the record of ${decoded.id}`, { path })
  }
  const failed = await readTextIfPresent(join(directory, name, 'failed'))
  return failed === undefined ? decoded : { ...decoded, failed: failed.trim() || 'unknown reason' }
}

class FileVolumeStore implements VolumeStore {
  readonly #directory: string
  readonly #log: Log
  readonly #wallMs: () => number
  readonly #ranges: FileRanges
  readonly #entries: Map<string, Entry>
  readonly #marks: BootMarks
  readonly #unlock: () => void
  readonly #watcher: ChangeWatcher | undefined
  #keeper: VolumeKeeper | undefined
  #closed = false

  constructor(
    options: FileVolumeStoreOptions,
    entries: Map<string, Entry>,
    marks: BootMarks,
    unlock: () => void,
  ) {
    this.#directory = options.directory
    this.#log = options.log
    this.#wallMs = options.wallMs
    this.#ranges = options.ranges ?? systemFileRanges()
    this.#entries = entries
    this.#marks = marks
    this.#unlock = unlock
    this.#watcher = options.watcher
    this.#takeMarks()
  }

  /** What an earlier process noted in memory goes where it belongs, if the disk takes it by now. */
  #takeMarks(): void {
    for (const [id, { reason, createdMs }] of this.#marks.all()) {
      const entry = this.#entries.get(id)
      const isOf =
        entry !== undefined && (createdMs ?? entry.record.createdMs) === entry.record.createdMs
      if (!isOf || entry.record.failed !== null) this.#marks.remove(id)
      else this.#persistFailure(entry, reason)
    }
  }

  record(id: string): VolumeRecord | undefined {
    return this.#entries.get(id)?.record
  }

  list(): readonly VolumeRecord[] {
    return [...this.#entries.values()].map((entry) => entry.record)
  }

  async create(
    id: string,
    sizeBytes: number,
    serving: Serving,
    owner = '',
    fill?: VolumeFiller,
  ): Promise<VolumeRecord> {
    assert(ID.test(id), 'a volume id is checked before it becomes a path')
    assert(Number.isSafeInteger(sizeBytes) && sizeBytes > 0, 'a size is a positive whole number')
    const known = this.#entries.get(id)
    if (known !== undefined) {
      await known.tail.catch(() => undefined)
      if (this.#entries.get(id) === known) return sameSize(known.record, sizeBytes)
      return this.create(id, sizeBytes, serving, owner, fill)
    }
    const record = { id, sizeBytes, createdMs: this.#wallMs(), owner, serving, failed: null }
    const entry = entryOf(record)
    // From here on a second create of the same id waits for this one.
    this.#entries.set(id, entry)
    return this.#inTurn(entry, async () => {
      try {
        await needsRoom(`creating volume ${id}`, () => this.#makeFiles(record, fill))
        return record
      } catch (error) {
        this.#entries.delete(id)
        throw error
      }
    })
  }

  async #makeFiles(record: VolumeRecord, fill: VolumeFiller | undefined): Promise<void> {
    const fresh = join(this.#directory, `.new-${record.id}`)
    try {
      await this.#publish(fresh, record, fill)
    } catch (error) {
      // A disk that does not even let it go: the next start sweeps it away.
      await rm(fresh, { recursive: true, force: true }).catch(noop)
      throw error
    }
  }

  async #publish(
    fresh: string,
    record: VolumeRecord,
    fill: VolumeFiller | undefined,
  ): Promise<void> {
    await rm(fresh, { recursive: true, force: true })
    await mkdir(fresh, { mode: 0o700 })
    const data = await open(join(fresh, 'data'), 'wx', 0o600)
    try {
      await data.truncate(record.sizeBytes)
      await fill?.({
        cloneFrom: (fd, length) => cloneFile(data.fd, fd, length),
        write: (buf, bufOffset, length, offset) => writeWhole(data, buf, offset, bufOffset, length),
        flush: () => data.datasync(),
      })
      await data.sync()
    } finally {
      await data.close()
    }
    await writeFileWhole(join(fresh, 'meta.json'), encodeMeta(record), 0o600)
    await rename(fresh, this.#path(record.id))
    try {
      await syncDirectory(this.#directory)
    } catch (error) {
      // Nobody is told of it, so it is not to be there, nor in the way of the next attempt.
      await rename(this.#path(record.id), fresh)
      throw error
    }
  }

  async open(id: string): Promise<Volume> {
    const entry = this.#entry(id)
    return this.#inTurn(entry, () => {
      const refusal = this.#keeper?.mayOpen(id)
      if (refusal !== undefined) throw refusal
      return this.#openFile(entry)
    })
  }

  async #openFile(entry: Entry): Promise<FileVolume> {
    if (entry.volume !== undefined) return entry.volume
    const { id, sizeBytes, failed } = entry.record
    this.#entry(id)
    const path = this.#path(id, 'data')
    // Longer than the record says: an extension that did not come to its end. It counts only once the record is written; the next one cuts its rest off.
    const found = await sizeOf(path)
    let reason = failed
    if (reason === null && (found ?? 0) < sizeBytes) {
      reason =
        found === undefined
          ? 'the data file is gone'
          : `the data file has ${found} bytes, the volume ${sizeBytes}`
      this.#persistFailure(entry, reason)
    }
    // A failed volume does no I/O, but for being asked what space it takes.
    const fd = openData(id, found === undefined ? '/dev/null' : path)
    entry.volume = new FileVolume({
      id,
      fd,
      sizeBytes,
      failed: reason ?? undefined,
      ranges: this.#ranges,
      onFailed: (cause) => this.#persistFailure(entry, cause),
      ...(this.#watcher === undefined ? {} : { watch: this.#watcher.opened(id) }),
    })
    return entry.volume
  }

  setServing(id: string, serving: Serving): Promise<VolumeRecord> {
    const entry = this.#entry(id)
    return this.#inTurn(entry, async () => {
      this.#entry(id)
      if (JSON.stringify(entry.record.serving) === JSON.stringify(serving)) return entry.record
      return this.#replace(entry, { ...entry.record, serving })
    })
  }

  setLimit(id: string, limit: VolumeLimit): Promise<VolumeRecord> {
    const entry = this.#entry(id)
    return this.#inTurn(entry, async () => {
      this.#entry(id)
      if ((entry.record.limit?.revision ?? -1) >= limit.revision) return entry.record
      return this.#replace(entry, { ...entry.record, limit })
    })
  }

  extend(id: string, sizeBytes: number): Promise<VolumeRecord> {
    const entry = this.#entry(id)
    return this.#inTurn(entry, async () => {
      this.#entry(id)
      if (sizeBytes <= entry.record.sizeBytes) return entry.record
      const volume = await this.#openFile(entry)
      await volume.prepareSize(sizeBytes)
      const record = await this.#replace(entry, { ...entry.record, sizeBytes })
      // Not before: what is written behind an end that the record does not know would be gone with the process.
      volume.grown(sizeBytes)
      return record
    })
  }

  async delete(id: string): Promise<void> {
    const entry = this.#entries.get(id)
    if (entry === undefined) return
    await this.#inTurn(entry, async () => {
      if (this.#entries.get(id) !== entry) return
      const refusal = this.#keeper?.mayDelete(id)
      if (refusal !== undefined) throw refusal
      await entry.volume?.close()
      entry.volume = undefined
      const gone = join(this.#directory, `.gone-${id}`)
      await rm(gone, { recursive: true, force: true })
      // Somebody may have done so before: then nothing is left to be deleted.
      await renameIfPresent(this.#path(id), gone)
      this.#entries.delete(id)
      this.#watcher?.deleted(id)
      await syncDirectory(this.#directory)
      this.#marks.remove(id)
      await rm(gone, { recursive: true, force: true })
    })
  }

  async fail(id: string, reason: string): Promise<void> {
    const entry = this.#entry(id)
    await this.#inTurn(entry, async () => {
      this.#entry(id)
      const volume = await this.#openFile(entry)
      volume.fail(reason)
    })
  }

  setKeeper(keeper: VolumeKeeper): void {
    this.#keeper = keeper
  }

  async canClone(directory: string): Promise<boolean> {
    const source = join(this.#directory, '.new-clone-source')
    const target = join(directory, '.new-clone-target')
    const from = await open(source, 'w+', 0o600)
    const to = await open(target, 'w+', 0o600)
    try {
      await from.write(Buffer.alloc(PROBE_BYTES, 1))
      await cloneFile(to.fd, from.fd)
      return true
    } catch (error) {
      if (cannotClone(error)) return false
      throw error
    } finally {
      await from.close()
      await to.close()
      await rm(source, { force: true })
      await rm(target, { force: true })
    }
  }

  async freeBytes(): Promise<number> {
    const { bavail, bsize } = await statfs(this.#directory)
    return bavail * bsize
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    for (const entry of this.#entries.values()) {
      await this.#inTurn(entry, async () => entry.volume?.close())
    }
    this.#unlock()
  }

  #entry(id: string): Entry {
    const entry = this.#entries.get(id)
    if (entry === undefined) throw new Fault(VOLUME_UNKNOWN, `volume ${id}`, { volume: id })
    return entry
  }

  #inTurn<T>(entry: Entry, work: () => T | Promise<T>): Promise<T> {
    const result = entry.tail.then(work, work)
    entry.tail = result
    return result
  }

  async #replace(entry: Entry, changed: VolumeRecord): Promise<VolumeRecord> {
    const path = this.#path(changed.id, 'meta.json')
    try {
      await needsRoom(`recording volume ${changed.id}`, () =>
        writeFileWhole(path, encodeMeta(changed), 0o600),
      )
    } catch (error) {
      if (!hasCode(error, 'ENOENT')) throw error
      // Repeating it would not bring them back.
      const volume = await this.#openFile(entry)
      volume.fail('its files are gone')
      throw new Fault(VOLUME_FAILED, `volume ${changed.id}: its files are gone`, { path }, error)
    }
    entry.record = { ...changed, failed: entry.record.failed }
    return entry.record
  }

  /** Synchronous, because the failure must be on disk before any later request of this volume is answered. */
  #persistFailure(entry: Entry, reason: string): void {
    const { id } = entry.record
    entry.record = { ...entry.record, failed: reason }
    this.#log.error({ volume: id, reason }, 'volume failed, refusing all its I/O')
    try {
      const fd = openSync(this.#path(id, 'failed'), 'w', 0o600)
      try {
        writeFileSync(fd, `${reason}\n`)
        fsyncSync(fd)
      } finally {
        closeSync(fd)
      }
      const directory = openSync(this.#path(id), 'r')
      try {
        fsyncSync(directory)
      } finally {
        closeSync(directory)
      }
      this.#marks.remove(id)
    } catch (error) {
      // The disk that just failed may well refuse this too.
      this.#log.error({ volume: id, err: error }, 'failure mark could not be stored on its disk')
      this.#persistInMemory(entry, reason)
    }
  }

  #persistInMemory({ record: { id, createdMs } }: Entry, reason: string): void {
    try {
      this.#marks.store(id, { reason, createdMs })
    } catch (error) {
      // It still holds until the process ends.
      this.#log.fatal({ volume: id, err: error }, 'failure mark could not be stored anywhere')
    }
  }

  #path(id: string, ...names: string[]): string {
    return join(this.#directory, id, ...names)
  }
}

function sameSize(record: VolumeRecord, sizeBytes: number): VolumeRecord {
  if (record.sizeBytes === sizeBytes) return record
  const detail = { size_bytes: record.sizeBytes, asked_bytes: sizeBytes }
  throw new Fault(SIZE_MISMATCH, `creating volume ${record.id}`, detail)
}

const noop = () => undefined

/** A disk that is full is worth a repeat. */
async function needsRoom<T>(doing: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!hasNoRoom(error)) throw error
    throw new Fault(VOLUME_NO_SPACE, doing, {}, error)
  }
}

/** undefined: there is no such file. */
async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined
    throw new Fault(VOLUME_READ_ERROR, `looking at ${path}`, {}, error)
  }
}

function openData(id: string, path: string): number {
  try {
    return openSync(path, 'r+')
  } catch (error) {
    throw new Fault(VOLUME_READ_ERROR, `opening volume ${id}`, { path }, error)
  }
}

async function renameIfPresent(from: string, to: string): Promise<void> {
  try {
    await rename(from, to)
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) throw error
  }
}
