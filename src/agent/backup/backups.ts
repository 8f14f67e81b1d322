import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { assert } from '#base/assert.ts'
import type { Clock } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { hasCode, writeFileWhole } from '#base/system/files.ts'
import { BACKUP_REVOKED, CHECKPOINT_UNKNOWN, OBJECT_MISSING, VAULT_DAMAGED } from '#vault/faults.ts'
import type { BackupSession } from '#vault/backup/session.ts'
import type { Manifest } from '#vault/format/manifest.ts'
import type { Vault } from '#vault/vault.ts'
import type { BackupRequest } from '#wire/site/backups.ts'
import type { SessionStatus } from '#wire/site/witness.ts'
import { type BlockSet, blockCount } from '#agent/replication/copy/block-set.ts'
import { NOT_CONSISTENT } from '#agent/replication/faults.ts'
import type { Snapshots } from '#agent/snapshots/snapshots.ts'
import { VOLUME_FAILED, VOLUME_UNKNOWN } from '#agent/volumes/faults.ts'
import type { VolumeStore } from '#agent/volumes/volume-store.ts'
import { type BackupRecord, newBackup } from './backup-record.ts'
import { decodeSets, encodeSets } from './change-file.ts'
import type { ChangeTracking, Kept } from './change-tracking.ts'
import { BACKUP_REFUSED, COPY_BEHIND, SNAPSHOT_LOST } from './faults.ts'
import { Pace } from './pace.ts'
import { readVolume } from './read-volume.ts'
import type { RegionVault } from './region-vault.ts'
import { vaultThreads } from './threads.ts'
import { openWorks, type Running, type Works } from './works.ts'

/* Backups of volumes of this site.
 *
 *   note ──► snapshot ──► what changed, durable ──► note the attempt ──► read, store ──► commit ──► note the checkpoint ──► snapshot gone
 *
 * Killed before the snapshot: it is taken when the agent is back. Later: the same snapshot is read again; chunks that the vault got before
 * are found there by their names. The attempt that was killed is revoked first: either it had committed, or it never will.
 *
 * What is read: with a parent in the vault and a segment since it (change-tracking.ts) what changed; with a parent only, everything, compared with the
 * parent; else everything. Which of them it was is told, and never decides what the checkpoint holds. */

/** One at a time: each may take all the memory that the vault's own page speaks of. */
const AT_ONCE_MAX = 1
/** A collector that takes a backup for dead is rare; one that does so again and again is a fault of the store's clock. */
const ATTEMPTS_MAX = 3
/** The label by which exports of a checkpoint know whose it is. */
export const OWNER_LABEL = 'owner'

export interface BackupsParts {
  readonly directory: string
  readonly vault: RegionVault
  readonly volumes: VolumeStore
  readonly snapshots: Snapshots
  readonly tracking: ChangeTracking
  readonly statuses: () => readonly SessionStatus[]
  /** Throws while one of the volumes is half written: restored, filled, or set back to a snapshot. */
  readonly refuseWhileHalf: (volumes: readonly string[]) => void
  readonly clock: Clock
  readonly log: Log
}

export interface Backups {
  readonly works: Works<BackupRecord>
  start(request: BackupRequest): Promise<BackupRecord>
}

export async function openBackups(parts: BackupsParts): Promise<Backups> {
  const works = await openWorks<BackupRecord>({
    directory: parts.directory,
    what: 'backup',
    clock: parts.clock,
    log: parts.log,
    atOnceMax: AT_ONCE_MAX,
    run: (running) => new Backup(parts, running).carryOut(),
    async ended({ id, request, checkpoint }) {
      if (checkpoint === null) {
        for (const volume of request.volumes) parts.tracking.abandoned(volume, id)
      }
      await rm(changesPath(parts, id), { force: true })
      await deleteSnapshot(parts.snapshots, id)
    },
    roomNeeded: ({ id }) => deleteSnapshot(parts.snapshots, id),
  })
  return {
    works,
    start: (request) =>
      works.begin(request.backup, () => {
        refuse(parts, request)
        return newBackup(request, parts.clock)
      }),
  }
}

function refuse({ volumes, statuses }: BackupsParts, request: BackupRequest): void {
  const { volumes: ids, names } = request
  const differ = (list: readonly string[]) => new Set(list).size === list.length
  if (ids.length !== names.length || !differ(ids) || !differ(names)) {
    throw new Fault(BACKUP_REFUSED, 'each volume has one name of its own')
  }
  for (const id of ids) {
    const record = volumes.record(id)
    if (record === undefined) throw new Fault(VOLUME_UNKNOWN, `backing up volume ${id}`)
    if (record.failed !== null) throw new Fault(VOLUME_FAILED, `backing up volume ${id}`)
  }
  const unfit = unfitCopy(statuses(), request)
  if (unfit !== undefined) throw unfit
}

/**
 * Why what this side holds of the volumes is no backup: a session has no copy of one moment here, or one that the writer may have left behind.
 * In sync and in touch, the copy has every write that was acknowledged. What was to be read as the copy of a session is nothing without it: closed while the
 * backup waited its turn, it leaves the disks as they were then, and nobody says of them how old they are.
 */
export function unfitCopy(
  statuses: readonly SessionStatus[],
  { volumes: ids, session }: Pick<BackupRequest, 'volumes' | 'session'>,
): Fault | undefined {
  const copies = statuses.filter(
    ({ role, members }) => role !== 'writer' && members.some(({ volume }) => ids.includes(volume)),
  )
  const torn = copies.find(({ consistent }) => !consistent)
  if (torn !== undefined) {
    return new Fault(NOT_CONSISTENT, `backing up volumes of session ${torn.session}`)
  }
  const behind = copies.find((one) => !isUpToDate(one))
  if (behind !== undefined) {
    return new Fault(COPY_BEHIND, `backing up volumes of session ${behind.session}`)
  }
  if (session === undefined) return undefined
  const has = (id: string) =>
    copies.some((one) => one.session === session && one.members.some(({ volume }) => volume === id))
  const left = ids.find((id) => !has(id))
  if (left === undefined) return undefined
  return new Fault(COPY_BEHIND, `backing up volume ${left}: session ${session} does not follow it`)
}

const isUpToDate = ({ role, state, link, out_of_touch_ms: outMs }: SessionStatus): boolean =>
  role === 'replica' && state === 'in_sync' && link === 'up' && outMs === null

const changesPath = ({ directory }: BackupsParts, id: string) => join(directory, `${id}.blocks`)

async function deleteSnapshot(snapshots: Snapshots, id: string): Promise<void> {
  if (snapshots.show(id)?.purpose === 'backup') await snapshots.delete(id)
}

/** What is said of the sets of a running backup. */
interface About {
  readonly backup: string
  readonly volumes: readonly { readonly volume: string; readonly since: Kept }[]
}

interface Base {
  readonly manifest: Manifest
  /** By place in the request; undefined: the whole volume. */
  readonly changed: readonly (BlockSet | undefined)[]
}

class Backup {
  readonly #parts: BackupsParts
  readonly #running: Running<BackupRecord>
  readonly #pace: Pace
  #blockBytes = 0

  constructor(parts: BackupsParts, running: Running<BackupRecord>) {
    this.#parts = parts
    this.#running = running
    this.#pace = new Pace(parts.clock, this.#request.rate_bytes)
  }

  get #request(): BackupRequest {
    return this.#running.record.request
  }

  async carryOut(): Promise<void> {
    const vault = await this.#parts.vault.open()
    this.#blockBytes = vault.header.block_bytes
    if (await this.#wasCommitted(vault)) return
    await this.#takeSnapshot()
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#attempt(vault)
      } catch (error) {
        if (!isFault(error, BACKUP_REVOKED) || attempt === ATTEMPTS_MAX) throw error
        this.#parts.log.warn({ backup: this.#request.backup }, 'a backup was revoked: once more')
      }
    }
  }

  /** A process that was killed around its commit cannot know; the manifest does. */
  async #wasCommitted(vault: Vault): Promise<boolean> {
    const { attempt } = this.#running.record
    if (attempt === null || (await vault.revoke(attempt))) return false
    this.#committed((await vault.checkpoint(attempt)).manifest)
    return true
  }

  async #takeSnapshot(): Promise<void> {
    const { snapshots, tracking, volumes } = this.#parts
    const { record, signal } = this.#running
    const { backup } = this.#request
    if (record.takenMs !== null) {
      const found = snapshots.show(backup)
      if (found === undefined || found.state !== 'ready') {
        throw new Fault(SNAPSHOT_LOST, `going on with backup ${backup}: ${found?.reason ?? 'gone'}`)
      }
      return
    }
    signal.throwIfAborted()
    const taken = await snapshots.take({
      id: backup,
      purpose: 'backup',
      volumes: this.#request.volumes,
      atMoment: () => {
        this.#refuseUnfit()
        for (const id of this.#request.volumes) {
          tracking.begin(id, volumes.record(id)?.sizeBytes ?? 0, backup)
        }
      },
    })
    await Promise.all([
      // Killed before they are kept, it reads everything.
      this.#keepChanges(),
      this.#running.persist({
        takenMs: taken.takenMs,
        stallMs: taken.stallMs,
        totalBytes: taken.volumes.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      }),
    ])
  }

  /** Throws when the volumes are no backup as they are at this moment. */
  #refuseUnfit(): void {
    const { refuseWhileHalf, statuses } = this.#parts
    refuseWhileHalf(this.#request.volumes)
    const unfit = unfitCopy(statuses(), this.#request)
    if (unfit !== undefined) throw unfit
  }

  /** The segments die with the process; the backup does not. */
  async #keepChanges(): Promise<void> {
    const { backup, parent, volumes } = this.#request
    if (parent === null) return
    const known = volumes.flatMap((volume) => {
      const found = this.#parts.tracking.between(volume, parent, backup)
      return found === undefined ? [] : [{ volume, ...found }]
    })
    const about: About = {
      backup,
      volumes: known.map(({ volume, since }) => ({ volume, since })),
    }
    const bytes = encodeSets(
      about,
      known.map(({ set }) => set),
    )
    await writeFileWhole(changesPath(this.#parts, backup), bytes, 0o600)
  }

  async #base(vault: Vault): Promise<Base | undefined> {
    const { backup, parent, volumes } = this.#request
    if (parent === null) return undefined
    let manifest: Manifest
    try {
      manifest = (await vault.checkpoint(parent)).manifest
    } catch (error) {
      if (!isFault(error, CHECKPOINT_UNKNOWN) && !isFault(error, VAULT_DAMAGED)) throw error
      this.#parts.log.warn({ backup, parent, err: error }, 'the parent of a backup cannot be used')
      return undefined
    }
    const sizes = new Map(
      this.#parts.snapshots.show(backup)?.volumes.map((one) => [one.volume, one.sizeBytes]),
    )
    const usable = this.#request.names.every((name, i) => {
      const before = manifest.volumes.find((one) => one.id === name)
      return before === undefined || before.sizeBytes <= (sizes.get(volumes[i] ?? '') ?? 0)
    })
    if (!usable || manifest.blockBytes !== vault.header.block_bytes) return undefined
    return { manifest, changed: await this.#changedSince(manifest) }
  }

  async #changedSince(manifest: Manifest): Promise<(BlockSet | undefined)[]> {
    const { backup, volumes, names } = this.#request
    const none = volumes.map(() => undefined)
    let bytes: Buffer
    try {
      bytes = await readFile(changesPath(this.#parts, backup))
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return none
      throw error
    }
    const decoded = decodeSets(bytes)
    if (decoded === undefined) return none
    const about = decoded.about as About
    return volumes.map((volume, i) => {
      const before = manifest.volumes.find(({ id }) => id === names[i])
      const at = about.volumes.findIndex((one) => one.volume === volume)
      const [since, set] = [about.volumes[at]?.since, decoded.sets[at]]
      if (before === undefined || since === undefined || set === undefined) return undefined
      // The changes are of this volume since it was that one: another volume's content may stand under its name by now.
      if (since.checkpoint !== manifest.id || since.name !== before.id) return undefined
      if (since.root !== before.root.toString('hex')) return undefined
      // Its last block may have been a short one, and the volume may have grown since.
      set.grow(blockCount(before.sizeBytes))
      set.addBlocks(blockCount(before.sizeBytes) - 1, blockCount(before.sizeBytes))
      return set
    })
  }

  async #attempt(vault: Vault): Promise<void> {
    const base = await this.#base(vault)
    try {
      await this.#readAll(vault, base)
    } catch (error) {
      // Deleted, or found damaged, while it was built on. What was stored is found again.
      const gone = isFault(error, CHECKPOINT_UNKNOWN) || isFault(error, OBJECT_MISSING)
      if (base === undefined || !(gone || isFault(error, VAULT_DAMAGED))) throw error
      const { backup, parent } = this.#request
      this.#parts.log.warn({ backup, parent, err: error }, 'building on nothing instead')
      await this.#readAll(vault, undefined)
    }
  }

  async #readAll(vault: Vault, base: Base | undefined): Promise<void> {
    const { record } = this.#running
    const known = base !== undefined && base.changed.every((set) => set !== undefined)
    const manner = base === undefined ? 'full' : known ? 'changes' : 'scan'
    this.#running.note({ manner, doneBytes: 0, readBytes: 0, storedBytes: 0 })
    const session = await vault.begin({
      ...(base === undefined ? {} : { parent: base.manifest.id }),
      labels: this.#labels(),
      createdMs: record.takenMs ?? 0,
      threads: vaultThreads(),
      // This is the thread that clients are answered by.
      inlineBatches: 0,
      damaged: (fault) => this.#parts.log.warn({ err: fault }, 'an object of the vault is damaged'),
    })
    try {
      // Known before there can be a checkpoint of this attempt.
      const [noted, read] = await Promise.allSettled([
        this.#running.persist({ attempt: session.id }),
        this.#readInto(session, base),
      ])
      for (const one of [read, noted]) if (one.status === 'rejected') throw one.reason
      this.#committed(await session.commit())
    } catch (error) {
      // What was read is not read again by whoever goes on.
      if (this.#running.signal.aborted) await session.flush().catch(() => undefined)
      throw error
    } finally {
      await session.abandon()
    }
  }

  #labels(): Record<string, string> {
    const { labels, volumes } = this.#request
    const owners = new Set(volumes.map((id) => this.#parts.volumes.record(id)?.owner ?? ''))
    const [owner = ''] = owners
    return owners.size === 1 && owner !== '' ? { ...labels, [OWNER_LABEL]: owner } : labels
  }

  async #readInto(session: BackupSession, base: Base | undefined): Promise<void> {
    const { snapshots } = this.#parts
    const { signal } = this.#running
    const { backup, volumes, names } = this.#request
    for (const [i, volume] of volumes.entries()) {
      const view = await snapshots.open(backup, volume)
      try {
        const name = names[i] ?? volume
        const changed = base?.changed[i]
        const writer = await session.openVolume({ id: name, sizeBytes: view.sizeBytes })
        const before = this.#running.record.doneBytes
        const hasBase = base?.manifest.volumes.some(({ id }) => id === name) === true
        await readVolume({
          view,
          writer,
          blockBytes: this.#blockBytes,
          hasBase,
          ...(changed === undefined ? {} : { changed }),
          onRead: async (bytes) => {
            const { readBytes } = this.#running.record
            const storedBytes = session.progress().bytesStored
            this.#running.note({ readBytes: readBytes + bytes, storedBytes })
            await this.#pace.spent(bytes, signal)
          },
          onDone: (bytes) => this.#running.note({ doneBytes: before + bytes }),
          signal,
        })
        await writer.finish()
      } finally {
        await view.close()
      }
    }
  }

  /** Durable with the end of the work; until then `attempt` leads to it. */
  #committed({ id, storedBytes, volumes: kept }: Manifest): void {
    const { backup, volumes, names } = this.#request
    for (const [i, volume] of volumes.entries()) {
      const name = names[i] ?? volume
      const root = kept.find((one) => one.id === name)?.root.toString('hex')
      assert(root !== undefined, 'a checkpoint holds what was backed up')
      this.#parts.tracking.committed(volume, backup, { checkpoint: id, name, root })
    }
    const { totalBytes } = this.#running.record
    this.#running.note({ checkpoint: id, storedBytes, doneBytes: totalBytes })
  }
}
