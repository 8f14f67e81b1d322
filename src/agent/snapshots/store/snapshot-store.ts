import { assert } from '#base/assert.ts'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { hasCode, syncDirectory, writeFileWhole } from '#base/system/files.ts'
import { type FileRanges, systemFileRanges } from '#base/system/libc.ts'
import { VOLUME_CLOSED, VOLUME_FAILED, VOLUME_UNKNOWN } from '#agent/volumes/faults.ts'
import type { VolumeFiller, VolumeStore } from '#agent/volumes/volume-store.ts'
import {
  SNAPSHOT_EXISTS,
  SNAPSHOT_FAILED,
  SNAPSHOT_LIMIT,
  SNAPSHOT_NO_SPACE,
  SNAPSHOT_UNKNOWN,
  VOLUME_HAS_SNAPSHOTS,
} from '../faults.ts'
import type { Range, Snapshot, Snapshots, SnapshotView, TakeSnapshot } from '../snapshots.ts'
import { type CloneOptions, fillFromSnapshot } from './cloning.ts'
import {
  abandonSnapshot,
  findSnapshots,
  publishSnapshot,
  removeRest,
  unpublishSnapshot,
} from './directories.ts'
import type { StoreDisk } from './disk.ts'
import type { Entry } from './entry.ts'
import { Following } from './following.ts'
import { Guards } from './guards.ts'
import { loadEntry, openImages } from './loading.ts'
import { flushAhead } from './moment.ts'
import { openView, type ViewParts } from './reading.ts'
import { encodeSnapshot } from './record.ts'
import { inTurnOfAll, keepOf, trim, writeKept } from './sealing.ts'
import { SettingBack } from './setting-back.ts'
import { systemDisk } from './system-disk.ts'
import { type Held, Taking } from './taking.ts'

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
  readonly #disk: StoreDisk
  readonly #guards: Guards
  readonly #entries = new Map<string, Entry>()
  /** Being taken, by id. */
  readonly #taking = new Map<string, { request: TakeSnapshot; done: Promise<Snapshot> }>()
  readonly #following: Following
  readonly #settingBack: SettingBack
  readonly #views: ViewParts
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
    const ranges = options.ranges ?? systemFileRanges()
    this.#disk = options.disk ?? systemDisk(ranges)
    this.#guards = new Guards(
      options.volumes,
      () => this.#clock.bootMs(),
      () => this.#volumes.freeBytes(),
    )
    this.#following = new Following({
      guards: this.#guards,
      log: this.#log,
      reserveBytes: this.#reserveBytes,
      onEnded: this.#onEnded,
      isListed: (entry) => this.#entries.get(entry.id) === entry,
    })
    this.#views = {
      ranges,
      log: this.#log,
      liveVolume: (volume) => this.#guards.get(volume)?.volume ?? null,
    }
    this.#settingBack = new SettingBack({
      guards: this.#guards,
      log: this.#log,
      aloneStopping: (work) => this.#aloneStopping(work),
      persist: (entry, change) => this.#following.persist(entry, change),
      follow: (entry, held, image) => this.#following.follow(entry, held, image),
    })
  }

  // -- start and end --------------------------------------------------------------------------------------------------

  async recover(): Promise<void> {
    for (const id of await findSnapshots(this.#directory)) {
      const entry = await loadEntry(this.#directory, id, this.#log)
      this.#entries.set(id, entry)
      try {
        await openImages(entry, this.#disk, this.#volumes)
        if (entry.stored.state === 'ready') await this.#followAll(entry)
      } catch (error) {
        // Volumes that are half set back are worse than a snapshot that is not whole: these wait for the repeat, which fails as well.
        if (entry.stored.state !== 'rolling_back') this.#following.failed(entry, String(error))
        else this.#log.error({ snapshot: id, err: error }, 'a snapshot cannot be read')
      }
    }
    for (const entry of this.#entries.values()) {
      const { id, stored } = entry
      if (stored.state === 'sealing') await this.#finishSealing(entry)
      if (stored.state !== 'rolling_back') continue
      this.#log.warn({ snapshot: id }, 'finishing a rollback that was cut off')
      try {
        await this.#settingBack.run(entry)
      } catch (error) {
        // Its volumes refuse to open until a repeat succeeds; the others are served.
        this.#settingBack.claim(entry)
        this.#log.error({ snapshot: id, err: error }, 'the rollback could not be finished')
      }
    }
    this.#volumes.setKeeper({
      mayDelete: (volume) => {
        const snapshots = this.ofVolume(volume)
        if (snapshots.length === 0) return undefined
        return new Fault(VOLUME_HAS_SNAPSHOTS, `deleting volume ${volume}`, { snapshots })
      },
      mayOpen: (volume) => this.#settingBack.busy(volume),
    })
  }

  async #followAll(entry: Entry): Promise<void> {
    for (const [volume, image] of entry.images) {
      const guard = await this.#guards.hold(volume)
      this.#following.follow(entry, { volume, guard }, image)
      this.#guards.release(volume)
    }
  }

  async close(): Promise<void> {
    await this.#guards.shut((volume) => new Fault(VOLUME_CLOSED, `volume ${volume}`))
    for (const entry of this.#entries.values()) {
      entry.gone = true
      for (const image of entry.images.values()) await image.close()
      await entry.closeViews()
    }
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
    return Promise.resolve().then(() => openView(this.#entry(id), volume, this.#views))
  }

  #entry(id: string): Entry {
    const entry = this.#entries.get(id)
    if (entry === undefined) throw new Fault(SNAPSHOT_UNKNOWN, `snapshot ${id}`, { snapshot: id })
    return entry
  }

  #assertNotBusy(volume: string): void {
    const busy = this.#settingBack.busy(volume)
    if (busy !== undefined) throw busy
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
    this.#assertNotBusy(volume)
    if (purpose === 'kept') return
    const count = this.#entries.size + this.#taking.size
    if (this.ofVolume(volume).length >= PER_VOLUME_MAX || count >= COUNT_MAX) {
      throw new Fault(SNAPSHOT_LIMIT, doing, { per_volume: PER_VOLUME_MAX, all: COUNT_MAX })
    }
  }

  async #take(request: TakeSnapshot): Promise<Snapshot> {
    const { id, volumes } = request
    const held: Held[] = []
    try {
      for (const volume of volumes) held.push({ volume, guard: await this.#guards.hold(volume) })
      return await this.#takeOf(request, held)
    } catch (error) {
      if (!isNoSpace(error)) throw error
      throw new Fault(SNAPSHOT_NO_SPACE, `taking snapshot ${id}`, {}, error)
    } finally {
      for (const { volume } of held) this.#guards.release(volume)
    }
  }

  async #takeOf(request: TakeSnapshot, held: readonly Held[]): Promise<Snapshot> {
    const { id, purpose } = request
    if (purpose !== 'kept' && (await this.#volumes.freeBytes()) < this.#reserveBytes) {
      throw new Fault(SNAPSHOT_NO_SPACE, `taking snapshot ${id}`, { reserve: this.#reserveBytes })
    }
    const taking = new Taking({
      directory: this.#directory,
      request,
      held,
      disk: this.#disk,
      wallMs: () => this.#clock.wallMs(),
      follow: (entry, one, image) => this.#following.follow(entry, one, image),
      onCannotClone: () => {
        this.#clones = false
        this.#log.warn({ snapshot: id }, 'volumes cannot be cloned here after all')
      },
    })
    try {
      this.#clones ??= await this.#volumes.canClone(this.#directory)
      await taking.prepare(this.#clones ? 'reflink' : 'before_image')
      if (this.#clones && this.#flushAhead) {
        await flushAhead(held.map(({ guard }) => guard.volume))
      }
      await this.#aloneStopping(() => {
        for (const { volume } of held) this.#assertNotBusy(volume)
        return taking.arm()
      })
      await taking.makeDurable()
      const { entry } = taking
      if (entry.stored.state === 'failed') {
        const { reason } = entry.stored
        throw new Fault(SNAPSHOT_NO_SPACE, `taking snapshot ${id}`, { reason })
      }
      await writeFileWhole(taking.recordPath, encodeSnapshot(entry.stored), 0o600)
      await publishSnapshot(this.#directory, id)
      this.#entries.set(id, entry)
      const { stallMs } = entry.stored
      this.#log.info({ snapshot: id, reflink: this.#clones, stall_ms: stallMs }, 'snapshot taken')
      return entry.show()
    } catch (error) {
      await this.#abandon(taking.entry)
      throw error
    } finally {
      await taking.closeClones()
    }
  }

  /** Its folder goes first: a snapshot that is found at the next start must have followed its volumes until then. */
  async #abandon(entry: Entry): Promise<void> {
    try {
      await abandonSnapshot(this.#directory, entry.id)
    } catch (error) {
      this.#log.error({ snapshot: entry.id, err: error }, 'a snapshot cannot be given up')
      this.#entries.set(entry.id, entry)
      return
    }
    entry.gone = true
    await this.#following.closeImages(entry)
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
      if (entry.stored.state === 'rolling_back') await this.#giveUpVolumes(entry)
      await unpublishSnapshot(this.#directory, id)
      entry.gone = true
      this.#entries.delete(id)
      this.#onEnded(id)
      await this.#following.closeImages(entry)
      await entry.closeViews()
      await removeRest(this.#directory, id)
    })
  }

  /** Of a rollback that cannot be finished: they are neither what they were nor what they should become. */
  async #giveUpVolumes(entry: Entry): Promise<void> {
    for (const { volume } of entry.stored.volumes) {
      if (this.#volumes.record(volume) === undefined) continue
      await this.#volumes.fail(volume, `half rolled back to snapshot ${entry.id}, which is gone`)
    }
    this.#settingBack.giveUp(entry)
  }

  // -- rollback -------------------------------------------------------------------------------------------------------

  async rollback(id: string): Promise<void> {
    const entry = this.#entry(id)
    await entry.inTurn(() => this.#settingBack.run(entry))
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
      const follows = (volume: string) => entry.images.has(volume)
      // Clones do not change any more, so nobody has to wait while they are read.
      await this.#writeKept(entry, ranges, (volume) => !follows(volume))
      await this.#aloneStopping(() =>
        inTurnOfAll(guards, async () => {
          await this.#writeKept(entry, ranges, follows)
          await this.#beginSealing(entry)
        }),
      )
      await this.#finishSealing(entry)
      return entry.show()
    })
  }

  /** No batch runs meanwhile, so what is written down is what was preserved up to the step in which it stops following. */
  async #beginSealing(entry: Entry): Promise<void> {
    await syncDirectory(entry.directory)
    await this.#following.persist(entry, { state: 'sealing' })
    if (entry.stored.state === 'failed') throw new Fault(SNAPSHOT_FAILED, `sealing ${entry.id}`)
    this.#onEnded(entry.id)
    this.#following.unfollow(entry)
  }

  async #writeKept(
    entry: Entry,
    ranges: Readonly<Record<string, readonly Range[]>>,
    which: (volume: string) => boolean,
  ): Promise<void> {
    for (const stored of entry.stored.volumes.filter(({ volume }) => which(volume))) {
      const keep = await keepOf(entry, stored, ranges[stored.volume])
      await writeKept(this.#disk, entry.keptPaths(stored.volume).map, stored.sizeBytes, keep)
    }
  }

  async #finishSealing(entry: Entry): Promise<void> {
    await entry.closeViews()
    for (const image of entry.images.values()) await image.close()
    entry.images.clear()
    await openImages(entry, this.#disk, this.#volumes)
    await trim(this.#disk, entry)
    await this.#following.persist(entry, { state: 'sealed' })
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
    const stored = entry.volume(volume)
    const serving = { mode: 'standby', reason: `clone of snapshot ${id}` } as const
    const { owner = this.#volumes.record(volume)?.owner ?? '' } = options
    const open = () => this.open(id, volume)
    const fill: VolumeFiller = (data) => fillFromSnapshot(entry, stored, open, data, options)
    await this.#volumes.create(newVolume, stored.sizeBytes, serving, owner, fill)
  }
}

const sameNames = (a: readonly string[], b: readonly string[]): boolean =>
  a.length === b.length && a.every((name) => b.includes(name))

const isNoSpace = (error: unknown): boolean => hasCode(error, 'ENOSPC') || hasCode(error, 'EDQUOT')
