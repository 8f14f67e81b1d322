import { unlinkSync } from 'node:fs'
import { mkdir, open, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { writeFileWhole } from '#base/system/files.ts'
import { BLOCK_BYTES } from '#wire/link/frame.ts'
import { BlockSet, blockCount } from '#agent/replication/copy/block-set.ts'
import type { ChangeWatch, ChangeWatcher } from '#agent/volumes/volume.ts'
import type { VolumeStore } from '#agent/volumes/volume-store.ts'
import { decodeSets, encodeSets } from './change-file.ts'

/* Which 64 KiB blocks of a volume have changed since a backup read it, so that the next one reads nothing else.
 *
 *      moment of backup A        moment of backup B          now
 *   ───────────┼──────── segment A ────────┼──── segment B ────►  a change goes into the last segment only
 *
 * A change since A is one in segment A or in a later one. A backup that comes to nothing gives its segment to the one before.
 *
 * The hook is the volume itself: writes, zeroes, trims, what a resync applies, restores and rollbacks all end in the few methods of `FileVolume`
 * that change its file, and each of them tells its watch first. Nobody who writes has to remember anything.
 *
 * A segment is true only as long as nothing was missed, so it lives in memory, and on the disk only between a clean stop and the next start: the file
 * is written when the volume is flushed and nobody writes any more, with a stamp of the volume's own file, and it is removed, durably, before a
 * volume can be opened again. After a crash or a power loss there is no file, and nobody finds one that is older than a change. What is not known to be
 * unchanged is read: no segment, a backup compares everything with its parent.
 *
 * A volume and its replica are kept under one name, and the replicas of two volumes may change places. So a segment tells not only in which checkpoint
 * its backup ended, but as what: under which name, and with which tree. Whoever builds on the checkpoint compares both with what the manifest says.
 */

/** Backups of one volume that can be built on, the running one included. At the limit the oldest is forgotten. Bounds memory: 2 MiB each for a TiB. */
const SEGMENTS_MAX = 4
const FILE = /^([0-9a-zA-Z-]{1,64})\.blocks$/

/** What a volume was at the moment of a backup, as the vault has it. */
export interface Kept {
  readonly checkpoint: string
  /** Of the volume, in the checkpoint. */
  readonly name: string
  /** Of its tree, hex. */
  readonly root: string
}

interface Segment {
  readonly backup: string
  /** null: the backup runs. */
  kept: Kept | null
  readonly set: BlockSet
}

interface About {
  readonly volume: string
  readonly created_ms: number
  readonly stamp: string
  readonly segments: readonly { readonly backup: string; readonly kept: Kept | null }[]
}

class Tracked implements ChangeWatch {
  segments: Segment[] = []
  /** Where the segments were saved, from then on. */
  savedAt: string | undefined

  changed(offset: number, length: number): void {
    const last = this.segments.at(-1)
    if (last === undefined || length === 0) return
    if (this.savedAt !== undefined) this.#spoil(this.savedAt)
    if (offset + length > last.set.blocks * BLOCK_BYTES) {
      last.set.grow(blockCount(offset + length))
    }
    last.set.addRange(offset, length)
  }

  /** Nobody should write once it was saved; if somebody does, what was saved is not true any more. */
  #spoil(path: string): void {
    this.savedAt = undefined
    unlinkSync(path)
  }
}

export interface ChangeTrackingOptions {
  readonly directory: string
  readonly log: Log
}

/** Takes what an earlier process left. To be called before the volumes are opened. */
export async function openChangeTracking(options: ChangeTrackingOptions): Promise<ChangeTracking> {
  const { directory } = options
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const found = new Map<string, Buffer>()
  for (const name of await readdir(directory)) {
    const volume = FILE.exec(name)?.[1]
    if (volume !== undefined) found.set(volume, await readFile(join(directory, name)))
    await rm(join(directory, name), { force: true })
  }
  const handle = await open(directory, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
  return new ChangeTracking(options, found)
}

export class ChangeTracking implements ChangeWatcher {
  readonly #directory: string
  readonly #log: Log
  readonly #tracked = new Map<string, Tracked>()
  #found: ReadonlyMap<string, Buffer>

  constructor(options: ChangeTrackingOptions, found: ReadonlyMap<string, Buffer>) {
    this.#directory = options.directory
    this.#log = options.log
    this.#found = found
  }

  opened(volume: string): ChangeWatch {
    return this.#of(volume)
  }

  deleted(volume: string): void {
    // An open volume keeps its watch until it is closed.
    const tracked = this.#tracked.get(volume)
    if (tracked !== undefined) tracked.segments = []
    this.#tracked.delete(volume)
  }

  #of(volume: string): Tracked {
    const known = this.#tracked.get(volume)
    if (known !== undefined) return known
    const made = new Tracked()
    this.#tracked.set(volume, made)
    return made
  }

  /** Believes what was found, as far as the volumes are what they were then. To be called before anybody changes one. */
  async confirm(volumes: VolumeStore): Promise<void> {
    for (const [volume, bytes] of this.#found) {
      const reason = await this.#confirmOne(volumes, volume, bytes)
      if (reason !== undefined) {
        this.#log.info({ volume, reason }, 'the next backup reads the whole volume')
      }
    }
    this.#found = new Map()
  }

  async #confirmOne(
    volumes: VolumeStore,
    volume: string,
    bytes: Buffer,
  ): Promise<string | undefined> {
    const decoded = decodeSets(bytes)
    if (decoded === undefined) return 'what was tracked is damaged'
    const about = decoded.about as About
    const record = volumes.record(volume)
    if (record === undefined || about.volume !== volume) return 'it is gone'
    if (record.createdMs !== about.created_ms) return 'it is another volume of this name'
    if (record.failed !== null) return 'it is failed'
    const found = await stampOf(volumes, volume)
    if (found !== about.stamp) return 'its file was changed while no agent had it open'
    this.#of(volume).segments = about.segments.map(({ backup, kept }, i) => ({
      backup,
      kept,
      set: decoded.sets[i] ?? new BlockSet(0),
    }))
    return undefined
  }

  /** In the step that is the moment of the backup. An earlier moment of it is none: its snapshot came to nothing, and the agent stopped before the backup did. */
  begin(volume: string, sizeBytes: number, backup: string): void {
    this.abandoned(volume, backup)
    const tracked = this.#of(volume)
    tracked.segments.push({ backup, kept: null, set: new BlockSet(blockCount(sizeBytes)) })
    if (tracked.segments.length > SEGMENTS_MAX) tracked.segments.shift()
  }

  /** What has changed between a checkpoint and the moment of a backup, and what the volume was in that checkpoint; undefined: not known. */
  between(
    volume: string,
    checkpoint: string,
    backup: string,
  ): { readonly since: Kept; readonly set: BlockSet } | undefined {
    const segments = this.#tracked.get(volume)?.segments ?? []
    const from = segments.findIndex((one) => one.kept?.checkpoint === checkpoint)
    const to = segments.findIndex((one) => one.backup === backup)
    const since = segments[from]?.kept ?? null
    if (since === null || to <= from) return undefined
    const sum = new BlockSet(0)
    for (const { set } of segments.slice(from, to)) addAll(sum, set)
    return { since, set: sum }
  }

  /** The backup has become a checkpoint. */
  committed(volume: string, backup: string, kept: Kept): void {
    const segment = this.#tracked.get(volume)?.segments.find((one) => one.backup === backup)
    if (segment !== undefined) segment.kept = kept
  }

  /** The backup has become nothing. */
  abandoned(volume: string, backup: string): void {
    const segments = this.#tracked.get(volume)?.segments ?? []
    const at = segments.findIndex((one) => one.backup === backup)
    const segment = segments[at]
    if (segment === undefined || segment.kept !== null) return
    const before = segments[at - 1]
    if (before !== undefined) addAll(before.set, segment.set)
    segments.splice(at, 1)
  }

  /** Nobody changes the volumes any more. Durable when it settles; what cannot be made durable is forgotten. */
  async save(volumes: VolumeStore): Promise<void> {
    for (const [volume, tracked] of this.#tracked) {
      const record = volumes.record(volume)
      if (tracked.segments.length === 0 || record === undefined || record.failed !== null) continue
      try {
        await this.#saveOne(volumes, volume, tracked, record.createdMs)
      } catch (error) {
        this.#log.warn({ volume, err: error }, 'the next backup reads the whole volume')
      }
    }
  }

  async #saveOne(
    volumes: VolumeStore,
    volume: string,
    tracked: Tracked,
    createdMs: number,
  ): Promise<void> {
    const opened = await volumes.open(volume)
    // After a power loss the volume must still be what these segments were counted on.
    await opened.flush()
    const about: About = {
      volume,
      created_ms: createdMs,
      stamp: await opened.stamp(),
      segments: tracked.segments.map(({ backup, kept }) => ({ backup, kept })),
    }
    const sets = tracked.segments.map(({ set }) => set)
    const path = join(this.#directory, `${volume}.blocks`)
    await writeFileWhole(path, encodeSets(about, sets), 0o600)
    tracked.savedAt = path
  }
}

/** undefined: the volume cannot be opened, and says so to whoever needs it. */
async function stampOf(volumes: VolumeStore, volume: string): Promise<string | undefined> {
  try {
    return await (await volumes.open(volume)).stamp()
  } catch (error) {
    if (isFault(error)) return undefined
    throw error
  }
}

function addAll(target: BlockSet, other: BlockSet): void {
  target.grow(other.blocks)
  for (let from = other.next(0); from >= 0; ) {
    const end = other.runEnd(from, other.blocks)
    target.addBlocks(from, end)
    from = other.next(end)
  }
}
