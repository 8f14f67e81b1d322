import { openSync } from 'node:fs'
import { open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { assert } from '#base/assert.ts'
import { cannotClone } from '#base/system/clone.ts'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { hasCode, readTextIfPresent, writeFileWhole } from '#base/system/files.ts'
import { type FileRanges, systemFileRanges } from '#base/system/libc.ts'
import { FileVolume } from '#agent/volumes/file/file-volume.ts'
import { VOLUME_CLOSED, VOLUME_FAILED, VOLUME_UNKNOWN } from '#agent/volumes/faults.ts'
import type { VolumeStore } from '#agent/volumes/volume-store.ts'
import {
  SNAPSHOT_BROKEN,
  SNAPSHOT_BUSY,
  SNAPSHOT_EXISTS,
  SNAPSHOT_FAILED,
  SNAPSHOT_LIMIT,
  SNAPSHOT_NO_SPACE,
  SNAPSHOT_UNKNOWN,
  VOLUME_HAS_SNAPSHOTS,
} from '../faults.ts'
import type {
  Range,
  Snapshot,
  SnapshotKind,
  Snapshots,
  SnapshotView,
  TakeSnapshot,
} from '../snapshots.ts'
import { BeforeImage } from './before-image.ts'
import { type CloneOptions, fillByCopy } from './cloning.ts'
import {
  abandonSnapshot,
  beginSnapshot,
  findSnapshots,
  publishSnapshot,
  removeRest,
  syncDirectory,
  unpublishSnapshot,
} from './directories.ts'
import type { StoreDisk } from './disk.ts'
import { Entry } from './entry.ts'
import { Guards } from './guards.ts'
import { imageView } from './image-view.ts'
import {
  type CloneTarget,
  flushAhead,
  letWritersGo,
  makeClones,
  openTargets,
  stopWriters,
} from './moment.ts'
import { decodeSnapshot, encodeSnapshot, type StoredSnapshot } from './record.ts'
import { rollBackVolume } from './rollback.ts'
import { keepOf, trim, writeKept } from './sealing.ts'
import { type Follower, refusalOf, type SnapshotGuard } from './snapshot-guard.ts'
import { systemDisk } from './system-disk.ts'

/* The snapshots of one agent, in a folder beside its volumes (docs/formats/snapshot-store.md).
 *
 *     DIR/ID/snapshot.json     the record; replaced as a whole. A snapshot exists exactly when DIR/ID does
 *            VOLUME.data       reflink: the clone · before_image: preserved blocks at their own offsets, sparse
 *            VOLUME.map        before_image: which blocks, with checksums
 *            VOLUME.kept       sealed: which blocks were kept
 *
 * Order of every change: what it needs is durable → the record or the rename says so, durably → writers are let go their way. A snapshot stops
 * following its volumes only after its record says that it need not.
 */

/** Snapshots of one volume, sealed ones not counted. Kept ones are always taken. */
const PER_VOLUME_MAX = 32
/** Snapshots of one agent. */
const COUNT_MAX = 1024
/** Left for the volumes by all snapshots but kept ones. */
const RESERVE_BYTES = 256 * 1024 * 1024
const ID = /^[0-9a-zA-Z-]{1,64}$/

export interface SnapshotStoreOptions {
  /** On the file system of the volumes, or there will be no clones. */
  readonly directory: string
  readonly volumes: VolumeStore
  readonly clock: Clock
  readonly log: Log
  /** Default 256 MiB. */
  readonly reserveBytes?: number
  /** Flush before writers are stopped. Default true; without it a clone shows what that is good for. */
  readonly flushAhead?: boolean
  /** The snapshot was deleted, sealed or given up: whoever serves it ends that. */
  readonly onEnded?: (id: string) => void
  /** Default: the system's. */
  readonly disk?: StoreDisk
  readonly ranges?: FileRanges
}

/** Recovers first: when it resolves, half-taken snapshots are gone, half-done rollbacks are finished (or their volumes refuse to open), and
 *  everything that has to be preserved is guarded. To be awaited before anybody opens a volume. */
export async function openSnapshots(options: SnapshotStoreOptions): Promise<Snapshots> {
  const store = new SnapshotStore(options)
  await store.recover()
  return store
}

class SnapshotStore implements Snapshots {
  readonly #directory: string
  readonly #volumes: VolumeStore
  readonly #clock: Clock
  readonly #log: Log
  readonly #reserveBytes: number
  readonly #flushAhead: boolean
  readonly #onEnded: (id: string) => void
  readonly #ranges: FileRanges
  readonly #disk: StoreDisk
  readonly #guards: Guards
  readonly #entries = new Map<string, Entry>()
  /** Being taken, by id. */
  readonly #taking = new Map<string, { request: TakeSnapshot; done: Promise<Snapshot> }>()
  /** Volumes that are being set back, and to which snapshot. */
  readonly #settingBack = new Map<string, string>()
  readonly #views = new Set<FileVolume>()
  /** Gates are closed, and turns taken, by one at a time. */
  #stopping: Promise<unknown> = Promise.resolve()
  #clones: boolean | undefined

  constructor(options: SnapshotStoreOptions) {
    this.#directory = options.directory
    this.#volumes = options.volumes
    this.#clock = options.clock
    this.#log = options.log
    this.#reserveBytes = options.reserveBytes ?? RESERVE_BYTES
    this.#flushAhead = options.flushAhead ?? true
    this.#onEnded = options.onEnded ?? (() => undefined)
    this.#ranges = options.ranges ?? systemFileRanges()
    this.#disk = options.disk ?? systemDisk(this.#ranges)
    this.#guards = new Guards(
      options.volumes,
      () => this.#clock.bootMs(),
      () => this.#volumes.freeBytes(),
    )
  }

  // -- start and end --------------------------------------------------------------------------------------------------

  async recover(): Promise<void> {
    for (const id of await findSnapshots(this.#directory)) {
      const entry = await this.#load(id)
      this.#entries.set(id, entry)
      try {
        await this.#openImages(entry)
        if (entry.stored.state === 'ready') await this.#followAll(entry)
      } catch (error) {
        // Volumes that are half set back are worse than a snapshot that is not whole: these wait for the repeat, which fails as well.
        if (entry.stored.state !== 'rolling_back') this.#failed(entry, String(error))
        else this.#log.error({ snapshot: id, err: error }, 'a snapshot cannot be read')
      }
    }
    for (const entry of this.#entries.values()) {
      const { id, stored } = entry
      if (stored.state === 'sealing') await this.#finishSealing(entry)
      if (stored.state !== 'rolling_back') continue
      this.#log.warn({ snapshot: id }, 'finishing a rollback that was cut off')
      try {
        await this.#rollBack(entry)
      } catch (error) {
        // Its volumes refuse to open until a repeat succeeds; the others are served.
        for (const { volume } of stored.volumes) this.#settingBack.set(volume, id)
        this.#log.error({ snapshot: id, err: error }, 'the rollback could not be finished')
      }
    }
    this.#volumes.setKeeper({
      mayDelete: (volume) => {
        const snapshots = this.ofVolume(volume)
        if (snapshots.length === 0) return undefined
        return new Fault(VOLUME_HAS_SNAPSHOTS, `deleting volume ${volume}`, { snapshots })
      },
      mayOpen: (volume) => this.#busy(volume),
    })
  }

  async #load(id: string): Promise<Entry> {
    const directory = join(this.#directory, id)
    const text = (await readTextIfPresent(join(directory, 'snapshot.json'))) ?? ''
    const decoded = decodeSnapshot(text)
    if (!('problem' in decoded) && decoded.id === id) return new Entry(directory, decoded)
    const reason = 'problem' in decoded ? decoded.problem : `it is the record of ${decoded.id}`
    this.#log.error({ snapshot: id, reason }, 'the record of a snapshot is damaged')
    return new Entry(directory, {
      id,
      purpose: 'user',
      state: 'failed',
      reason: `its record is damaged: ${reason}`,
      takenMs: 0,
      stallMs: 0,
      volumes: [],
    })
  }

  async #openImages(entry: Entry): Promise<void> {
    const { stored } = entry
    if (stored.state === 'failed') return
    for (const { volume, kind } of stored.volumes) {
      if (!entry.isSealed && kind === 'reflink') continue
      const found = await this.#openImage(entry, volume)
      if (found instanceof BeforeImage) {
        entry.images.set(volume, found)
        continue
      }
      throw new Error(`volume ${volume}: ${found.problem}`)
    }
  }

  async #openImage(
    entry: Entry,
    volume: string,
  ): Promise<BeforeImage | { readonly problem: string }> {
    if (!entry.isSealed && this.#volumes.record(volume) === undefined) {
      return { problem: 'the volume is gone' }
    }
    try {
      return entry.isSealed
        ? await BeforeImage.open(this.#disk, entry.keptPaths(volume), 'sealed')
        : await BeforeImage.open(this.#disk, entry.imagePaths(volume), 'following')
    } catch (error) {
      return { problem: String(error) }
    }
  }

  async #followAll(entry: Entry): Promise<void> {
    for (const [volume, image] of entry.images) {
      const guard = await this.#guards.hold(volume)
      guard.follow(this.#followerOf(entry, image))
      this.#guards.release(volume)
    }
  }

  async close(): Promise<void> {
    await this.#guards.shut((volume) => new Fault(VOLUME_CLOSED, `volume ${volume}`))
    for (const entry of this.#entries.values()) {
      entry.gone = true
      for (const image of entry.images.values()) await image.close()
    }
    for (const view of this.#views) await view.close()
  }

  // -- what is there --------------------------------------------------------------------------------------------------

  list(): readonly Snapshot[] {
    return [...this.#entries.values()].map((entry) => entry.show())
  }

  show(id: string): Snapshot | undefined {
    return this.#entries.get(id)?.show()
  }

  ofVolume(volume: string): readonly string[] {
    const standing = [...this.#entries.values()].filter(
      ({ isSealed, stored }) => !isSealed && stored.volumes.some((one) => one.volume === volume),
    )
    const taking = [...this.#taking.values()].filter(({ request }) =>
      request.volumes.includes(volume),
    )
    return [...standing.map(({ id }) => id), ...taking.map(({ request }) => request.id)]
  }

  changedRanges(id: string, volume: string): readonly Range[] | null {
    const entry = this.#entry(id)
    entry.volume(volume)
    return entry.images.get(volume)?.table.ranges() ?? null
  }

  open(id: string, volume: string): Promise<SnapshotView> {
    return Promise.resolve().then(() => this.#open(id, volume))
  }

  #open(id: string, volume: string): SnapshotView {
    const entry = this.#entry(id)
    const stored = entry.volume(volume)
    const sealed = entry.isSealed
    const refusal = () => entry.refusal(sealed)
    const now = refusal()
    if (now !== undefined) throw now
    const image = entry.images.get(volume)
    if (image !== undefined) {
      const live = sealed ? null : (this.#guards.get(volume)?.volume ?? null)
      assert(sealed || live !== null, 'a snapshot that follows its volume has it open')
      return imageView({ image, live, refusal })
    }
    return this.#openClone(entry.dataPath(volume), stored.sizeBytes, refusal)
  }

  #openClone(path: string, sizeBytes: number, refusal: () => Error | undefined): SnapshotView {
    const clone = new FileVolume({
      id: path,
      fd: openSync(path, 'r'),
      sizeBytes,
      failed: undefined,
      ranges: this.#ranges,
      onFailed: (reason) => this.#log.error({ path, reason }, 'a clone cannot be read'),
    })
    this.#views.add(clone)
    const checked = async <T>(work: () => Promise<T>): Promise<T> => {
      const before = refusal()
      if (before !== undefined) throw before
      const result = await work()
      const after = refusal()
      if (after !== undefined) throw after
      return result
    }
    return {
      sizeBytes,
      readCached: (buf, bufOffset, length, offset) =>
        refusal() === undefined && clone.readCached(buf, bufOffset, length, offset),
      read: (buf, bufOffset, length, offset) =>
        checked(() => clone.read(buf, bufOffset, length, offset)),
      extents: (offset, length, countMax) => checked(() => clone.extents(offset, length, countMax)),
      close: async () => {
        this.#views.delete(clone)
        await clone.close()
      },
    }
  }

  #entry(id: string): Entry {
    const entry = this.#entries.get(id)
    if (entry === undefined) throw new Fault(SNAPSHOT_UNKNOWN, `snapshot ${id}`, { snapshot: id })
    return entry
  }

  #busy(volume: string): Error | undefined {
    const snapshot = this.#settingBack.get(volume)
    return snapshot === undefined ? undefined : busyFault(volume, snapshot)
  }

  // -- take -----------------------------------------------------------------------------------------------------------

  async take(request: TakeSnapshot): Promise<Snapshot> {
    const { id, purpose } = request
    assert(ID.test(id), 'an id is checked before it becomes a path')
    const volumes = [...new Set(request.volumes)]
    assert(volumes.length > 0, 'a snapshot is of something')
    const taking = this.#taking.get(id)
    const known = this.#entries.get(id)?.stored
    const before = taking?.request ?? known
    if (before !== undefined) {
      const names = before.volumes.map((one) => (typeof one === 'string' ? one : one.volume))
      if (before.purpose !== purpose || !sameNames(names, volumes)) {
        throw new Fault(SNAPSHOT_EXISTS, `taking snapshot ${id}`)
      }
      return taking === undefined ? this.#entry(id).show() : await taking.done
    }
    for (const volume of volumes) this.#assertMayTake(request, volume)
    const done = this.#take({ ...request, volumes })
    this.#taking.set(id, { request: { ...request, volumes }, done })
    try {
      return await done
    } finally {
      this.#taking.delete(id)
    }
  }

  #assertMayTake({ id, purpose }: TakeSnapshot, volume: string): void {
    const record = this.#volumes.record(volume)
    const doing = `taking snapshot ${id} of volume ${volume}`
    if (record === undefined) throw new Fault(VOLUME_UNKNOWN, doing)
    if (record.failed !== null) throw new Fault(VOLUME_FAILED, doing, { reason: record.failed })
    const busy = this.#busy(volume)
    if (busy !== undefined) throw busy
    if (purpose === 'kept') return
    const count = this.#entries.size + this.#taking.size
    if (this.ofVolume(volume).length >= PER_VOLUME_MAX || count >= COUNT_MAX) {
      throw new Fault(SNAPSHOT_LIMIT, doing, { per_volume: PER_VOLUME_MAX, all: COUNT_MAX })
    }
  }

  async #take(request: TakeSnapshot): Promise<Snapshot> {
    const { id, volumes } = request
    const held: { readonly volume: string; readonly guard: SnapshotGuard }[] = []
    try {
      for (const volume of volumes) held.push({ volume, guard: await this.#guards.hold(volume) })
      this.#clones ??= await this.#volumes.canClone(this.#directory)
      const attempt = new Taking(await beginSnapshot(this.#directory, id), request)
      try {
        return await this.#finishTaking(attempt, held)
      } catch (error) {
        attempt.entry.gone = true
        for (const { volume, guard } of held) {
          const image = attempt.entry.images.get(volume)
          if (image === undefined) continue
          guard.unfollow(image)
          await guard.exclusively(() => image.close())
        }
        await abandonSnapshot(this.#directory, id)
        throw error
      } finally {
        for (const { file } of attempt.clones) await file.close()
      }
    } catch (error) {
      if (!isNoSpace(error)) throw error
      throw new Fault(SNAPSHOT_NO_SPACE, `taking snapshot ${id}`, {}, error)
    } finally {
      for (const { volume } of held) this.#guards.release(volume)
    }
  }

  async #finishTaking(attempt: Taking, held: readonly Held[]): Promise<Snapshot> {
    const { entry, request } = attempt
    const { id } = request
    const kind: SnapshotKind = this.#clones === true ? 'reflink' : 'before_image'
    if (request.purpose !== 'kept' && (await this.#volumes.freeBytes()) < this.#reserveBytes) {
      throw new Fault(SNAPSHOT_NO_SPACE, `taking snapshot ${id}`, { reserve: this.#reserveBytes })
    }
    await this.#prepare(attempt, held, kind)
    const guards = held.map(({ guard }) => guard)
    if (kind === 'reflink' && this.#flushAhead) await flushAhead(guards.map(({ volume }) => volume))
    await this.#aloneStopping(() => this.#arm(attempt, held))

    // Everything up to the moment: clones have it when they are durable, the others live from the volumes.
    for (const { file } of attempt.clones) await file.sync()
    for (const { guard } of held) await guard.volume.flush()
    this.#assertNotFailed(entry)
    await writeFileWhole(join(attempt.directory, 'snapshot.json'), encodeSnapshot(entry.stored))
    await publishSnapshot(this.#directory, id)
    this.#entries.set(id, entry)
    this.#log.info({ snapshot: id, kind, stall_ms: entry.stored.stallMs }, 'snapshot taken')
    return entry.show()
  }

  #assertNotFailed({ stored }: Entry): void {
    if (stored.state !== 'failed') return
    throw new Fault(SNAPSHOT_NO_SPACE, `taking snapshot ${stored.id}`, { reason: stored.reason })
  }

  /** Its files, in the folder that is not published yet. Paths of before-images are right even after the rename: their files stay open. */
  async #prepare(attempt: Taking, held: readonly Held[], kind: SnapshotKind): Promise<void> {
    const { directory, entry } = attempt
    const files = new Entry(directory, entry.stored)
    if (kind === 'reflink') {
      const targets = held.map(({ volume, guard }) => ({
        volume: guard.volume,
        path: files.dataPath(volume),
      }))
      attempt.clones = await openTargets(targets)
      return
    }
    for (const { volume, guard } of held) {
      const { sizeBytes } = guard.volume
      const image = await BeforeImage.create(this.#disk, files.imagePaths(volume), sizeBytes)
      entry.images.set(volume, image)
    }
  }

  async #arm(attempt: Taking, held: readonly Held[]): Promise<void> {
    const guards = held.map(({ guard }) => guard)
    for (const { volume } of held) {
      const busy = this.#busy(volume)
      if (busy !== undefined) throw busy
    }
    const reflink = attempt.clones.length > 0
    const mustStop = reflink || guards.some(({ volume }) => volume.changesEnded() !== null)
    try {
      if (mustStop) await stopWriters(guards)
      while (!reflink && (await this.#growImages(attempt, held))) continue
      attempt.atMoment(held, this.#clock.wallMs(), reflink ? 'reflink' : 'before_image')
      if (!reflink) this.#follow(attempt, held)
      else if (!(await makeClones(attempt.clones))) await this.#fallBack(attempt, held)
    } finally {
      const stallMs = letWritersGo(guards)
      attempt.entry.stored = { ...attempt.entry.stored, stallMs }
    }
  }

  /** Volumes may grow until the moment. True: one had, and then another may have while its image was made. */
  async #growImages({ entry, directory }: Taking, held: readonly Held[]): Promise<boolean> {
    const grown = held.find(
      ({ volume, guard }) => entry.images.get(volume)?.table.sizeBytes !== guard.volume.sizeBytes,
    )
    if (grown === undefined) return false
    const { volume, guard } = grown
    const paths = new Entry(directory, entry.stored).imagePaths(volume)
    await entry.images.get(volume)?.close()
    await rm(paths.data)
    await rm(paths.map)
    entry.images.set(volume, await BeforeImage.create(this.#disk, paths, guard.volume.sizeBytes))
    return true
  }

  #follow({ entry }: Taking, held: readonly Held[]): void {
    for (const { volume, guard } of held) {
      const image = entry.images.get(volume)
      assert(image !== undefined, 'the image of each volume was prepared')
      guard.follow(this.#followerOf(entry, image))
    }
  }

  /** The probe could be cloned and this could not. Writers are stopped all the while, which is once in the life of an agent. */
  async #fallBack(attempt: Taking, held: readonly Held[]): Promise<void> {
    this.#clones = false
    this.#log.warn({ snapshot: attempt.request.id }, 'volumes cannot be cloned here after all')
    for (const { file } of attempt.clones.splice(0)) await file.close()
    const directory = await beginSnapshot(this.#directory, attempt.request.id)
    assert(directory === attempt.directory, 'a snapshot is taken in one folder')
    await this.#prepare(attempt, held, 'before_image')
    attempt.setKind('before_image')
    this.#follow(attempt, held)
  }

  // -- following ------------------------------------------------------------------------------------------------------

  #followerOf(entry: Entry, image: BeforeImage): Follower {
    return {
      image,
      reserveBytes: entry.stored.purpose === 'kept' ? 0 : this.#reserveBytes,
      lost: (error) => this.#lost(entry, image, error),
    }
  }

  async #lost(entry: Entry, image: BeforeImage, error: Error): Promise<Error | null> {
    if (entry.gone || entry.isSealed) return null
    const { id, purpose, state } = entry.stored
    // One that volumes are being set back to is needed until that is done.
    if ((purpose === 'kept' && state !== 'failed') || state === 'rolling_back') {
      this.#log.error({ snapshot: id, err: error }, 'a block cannot be preserved, not written')
      return refusalOf(error, id)
    }
    try {
      await image.markFailed()
    } catch (cause) {
      return new Fault(SNAPSHOT_BROKEN, `giving up snapshot ${id}`, { snapshot: id }, cause)
    }
    this.#failed(entry, `a block could not be preserved: ${error.message}`)
    return null
  }

  /** Its mark is durable, or it is being loaded. */
  #failed(entry: Entry, reason: string): void {
    const { id, state } = entry.stored
    if (state === 'failed') return
    entry.stored = { ...entry.stored, state: 'failed', reason }
    this.#log.error({ snapshot: id, reason }, 'snapshot failed')
    this.#onEnded(id)
    this.#unfollow(entry)
    // What follows saves space and tells the reason after a restart; the mark alone is enough for what matters.
    void entry.inTurn(async () => {
      try {
        for (const image of entry.images.values()) await image.empty()
        if (this.#entries.get(id) === entry) await this.#persist(entry, {})
      } catch (error) {
        this.#log.warn({ snapshot: id, err: error }, 'a failed snapshot still takes its space')
      }
    })
  }

  #unfollow(entry: Entry): void {
    for (const [volume, image] of entry.images) {
      this.#guards.get(volume)?.unfollow(image)
      this.#guards.tidy(volume)
    }
  }

  async #persist(entry: Entry, change: Partial<StoredSnapshot>): Promise<void> {
    const next = { ...entry.stored, ...change }
    await writeFileWhole(entry.recordPath, encodeSnapshot(next), 0o600)
    // It may have failed while this was written; the mark in its map counts.
    if (entry.stored.state !== 'failed') entry.stored = next
  }

  #aloneStopping<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#stopping.then(work)
    this.#stopping = result.catch(() => undefined)
    return result
  }

  // -- delete ---------------------------------------------------------------------------------------------------------

  async delete(id: string): Promise<void> {
    await this.#taking.get(id)?.done.catch(() => undefined)
    const entry = this.#entries.get(id)
    if (entry === undefined) return
    await entry.inTurn(async () => {
      if (entry.gone) return
      entry.assertIdle('deleting')
      await unpublishSnapshot(this.#directory, id)
      entry.gone = true
      this.#entries.delete(id)
      this.#onEnded(id)
      for (const [volume, image] of entry.images) {
        const guard = this.#guards.get(volume)
        guard?.unfollow(image)
        if (guard === undefined) await image.close()
        else await guard.exclusively(() => image.close())
        this.#guards.tidy(volume)
      }
      await removeRest(this.#directory, id)
    })
  }

  // -- rollback -------------------------------------------------------------------------------------------------------

  async rollback(id: string): Promise<void> {
    const entry = this.#entry(id)
    await entry.inTurn(() => this.#rollBack(entry))
  }

  async #rollBack(entry: Entry): Promise<void> {
    entry.assertWhole('rolling back to')
    const held = await this.#holdForRollback(entry)
    try {
      await this.#aloneStopping(async () => {
        for (const { volume } of held) {
          const other = this.#settingBack.get(volume)
          if (other !== undefined && other !== entry.id) throw busyFault(volume, other)
        }
        for (const { volume } of held) this.#settingBack.set(volume, entry.id)
        await stopWriters(held.map(({ guard }) => guard))
      })
      await this.#setBack(entry, held)
    } finally {
      for (const { volume } of held) this.#guards.release(volume)
    }
  }

  async #holdForRollback(entry: Entry): Promise<Held[]> {
    const held: Held[] = []
    // A repeat may open what nobody else may.
    const own = entry.stored.volumes.filter(
      ({ volume }) => this.#settingBack.get(volume) === entry.id,
    )
    for (const { volume } of own) this.#settingBack.delete(volume)
    try {
      for (const { volume } of entry.stored.volumes) {
        held.push({ volume, guard: await this.#guards.hold(volume) })
      }
      return held
    } catch (error) {
      for (const { volume } of held) this.#guards.release(volume)
      throw error
    } finally {
      for (const { volume } of own) this.#settingBack.set(volume, entry.id)
    }
  }

  async #setBack(entry: Entry, held: readonly Held[]): Promise<void> {
    const guards = held.map(({ guard }) => guard)
    try {
      // Batches that were under way may still fail the snapshot.
      for (const { guard } of held) await guard.exclusively(() => Promise.resolve())
      entry.assertWhole('rolling back to')
      for (const image of entry.images.values()) await image.settle()
      await this.#persist(entry, { state: 'rolling_back' })
      for (const { volume, guard } of held) {
        await rollBackVolume({ entry, stored: entry.volume(volume), guard, log: this.#log })
      }
      for (const { guard } of held) await guard.volume.flush()
      await this.#persist(entry, { state: 'ready' })
    } catch (error) {
      if (entry.stored.state === 'rolling_back') {
        for (const { volume, guard } of held) guard.refuse(busyFault(volume, entry.id))
        throw error
      }
      this.#endSettingBack(held)
      letWritersGo(guards)
      throw error
    }
    for (const { volume, guard } of held) {
      const image = entry.images.get(volume)
      // One that was found in the middle of this at a start does not follow yet.
      if (image !== undefined && !guard.follows(image)) guard.follow(this.#followerOf(entry, image))
    }
    this.#endSettingBack(held)
    letWritersGo(guards)
    this.#log.info({ snapshot: entry.id }, 'volumes were rolled back')
  }

  #endSettingBack(held: readonly Held[]): void {
    for (const { volume } of held) this.#settingBack.delete(volume)
  }

  // -- seal -----------------------------------------------------------------------------------------------------------

  async seal(
    id: string,
    ranges: Readonly<Record<string, readonly Range[]>> = {},
  ): Promise<Snapshot> {
    const entry = this.#entry(id)
    return await entry.inTurn(async () => {
      if (entry.isSealed) return entry.show()
      entry.assertIdle('sealing')
      entry.assertWhole('sealing')
      const guards = [...entry.images.keys()].flatMap((volume) => this.#guards.get(volume) ?? [])
      await this.#aloneStopping(() => inTurnOfAll(guards, () => this.#beginSealing(entry, ranges)))
      await this.#finishSealing(entry)
      return entry.show()
    })
  }

  /** No batch runs meanwhile, so what is written down is what was preserved up to the step in which it stops following. */
  async #beginSealing(
    entry: Entry,
    ranges: Readonly<Record<string, readonly Range[]>>,
  ): Promise<void> {
    for (const stored of entry.stored.volumes) {
      const keep = await keepOf(entry, stored, ranges[stored.volume])
      await writeKept(this.#disk, entry.keptPaths(stored.volume).map, stored.sizeBytes, keep)
    }
    await syncDirectory(entry.directory)
    await this.#persist(entry, { state: 'sealing' })
    if (entry.stored.state === 'failed') throw new Fault(SNAPSHOT_FAILED, `sealing ${entry.id}`)
    this.#onEnded(entry.id)
    this.#unfollow(entry)
  }

  async #finishSealing(entry: Entry): Promise<void> {
    for (const image of entry.images.values()) await image.close()
    entry.images.clear()
    await this.#openImages(entry)
    await trim(this.#disk, entry)
    await this.#persist(entry, { state: 'sealed' })
  }

  // -- clone ----------------------------------------------------------------------------------------------------------

  async clone(
    id: string,
    volume: string,
    newVolume: string,
    options: CloneOptions = {},
  ): Promise<void> {
    const entry = this.#entry(id)
    entry.assertWhole('cloning')
    const { sizeBytes, kind } = entry.volume(volume)
    const serving = { mode: 'standby', reason: `clone of snapshot ${id}` } as const
    const { owner = this.#volumes.record(volume)?.owner ?? '' } = options
    await this.#volumes.create(newVolume, sizeBytes, serving, owner, async (data) => {
      if (kind === 'reflink') {
        const file = await open(entry.dataPath(volume), 'r')
        try {
          await data.cloneFrom(file.fd, (await file.stat()).size === sizeBytes ? 0 : sizeBytes)
          return
        } catch (error) {
          if (!cannotClone(error)) throw error
        } finally {
          await file.close()
        }
      }
      const view = await this.open(id, volume)
      try {
        await fillByCopy(view, data, options)
      } finally {
        await view.close()
      }
    })
  }
}

interface Held {
  readonly volume: string
  readonly guard: SnapshotGuard
}

/** A snapshot that is being taken. */
class Taking {
  readonly directory: string
  readonly request: TakeSnapshot
  readonly entry: Entry
  clones: CloneTarget[] = []

  constructor(directory: string, request: TakeSnapshot) {
    this.directory = directory
    this.request = request
    const { id, purpose } = request
    this.entry = new Entry(join(directory, '..', id), {
      id,
      purpose,
      state: 'ready',
      reason: null,
      takenMs: 0,
      stallMs: 0,
      volumes: [],
    })
  }

  atMoment(held: readonly Held[], takenMs: number, kind: SnapshotKind): void {
    this.request.atMoment?.()
    const volumes = held.map(({ volume, guard }) => {
      const image = this.entry.images.get(volume)
      return { volume, kind, sizeBytes: image?.table.sizeBytes ?? guard.volume.sizeBytes }
    })
    this.entry.stored = { ...this.entry.stored, takenMs, volumes }
  }

  setKind(kind: SnapshotKind): void {
    const volumes = this.entry.stored.volumes.map((one) => ({ ...one, kind }))
    this.entry.stored = { ...this.entry.stored, volumes }
  }
}

/** Runs `work` while no batch of any of the guards runs. */
async function inTurnOfAll<T>(
  guards: readonly SnapshotGuard[],
  work: () => Promise<T>,
): Promise<T> {
  const [first, ...rest] = guards
  if (first === undefined) return await work()
  return await first.exclusively(() => inTurnOfAll(rest, work))
}

const busyFault = (volume: string, snapshot: string): Fault =>
  new Fault(SNAPSHOT_BUSY, `using volume ${volume}`, { snapshot, volume })

const sameNames = (a: readonly string[], b: readonly string[]): boolean =>
  a.length === b.length && a.every((name) => b.includes(name))

const isNoSpace = (error: unknown): boolean => hasCode(error, 'ENOSPC') || hasCode(error, 'EDQUOT')
