import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { assert } from '#base/assert.ts'
import type { Clock } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { readTextIfPresent, syncDirectory, writeFileWhole } from '#base/system/files.ts'
import { VOLUME_UNKNOWN } from '#agent/volumes/faults.ts'
import type { VolumeStore } from '#agent/volumes/volume-store.ts'
import { SNAPSHOT_UNKNOWN } from '#agent/snapshots/faults.ts'
import type { Range, Snapshots } from '#agent/snapshots/snapshots.ts'
import { differingRanges } from './differing-ranges.ts'
import { DIVERGENCE_NOT_READY, DIVERGENCE_UNKNOWN, RANGE_NOT_KEPT } from './faults.ts'
import { decodeRecord, encodeRecord, type StoredRecord, type StoredVolume } from './record.ts'

/* Divergence records: what this site had acknowledged alone, and a resync has overwritten with the data of the site that wrote on.
 *
 *     keep ─► manifest "keeping", fsynced ─► snapshot sealed to the ranges ─► manifest "kept" ─► ... an operator ... ─► delete
 *                      └───────────────── a crash: done again at the next start ──────┘
 *
 * From the manifest's first fsync on the record exists, and the snapshot is its: whoever gave it away does not touch it any more. A record is
 * never deleted by the software, whatever space it takes; its ranges read for ever as the losing site had them.
 *
 * When the snapshot is gone or failed, there is nothing left to keep. The record then says `lost`, and why: that something was discarded must
 * not be discarded quietly as well.
 *
 * Limits: a record costs the bytes of its ranges (whole 64 KiB blocks) on the file system of the volumes, and nothing bounds how many records
 * there are but that space. One manifest names at most 1,024 volumes.
 */

export interface KeepDivergence {
  /** A snapshot of purpose `kept`, ready or already sealed. Its id becomes the record's. */
  readonly snapshot: string
  readonly session: string
  /** This site, whose writes they are, and the one whose data came over them. */
  readonly site: string
  readonly winner: string
  /** Epoch of the last rise that both sides took part in. */
  readonly baseEpoch: number
  /** Epoch under which the resync ended. */
  readonly epoch: number
  /** A sentence for people. */
  readonly why: string
  readonly volumes: readonly {
    readonly volume: string
    readonly pair: string
    /** What this site changed alone (its change map); null: not known, then everything that is not the same any more is kept. */
    readonly ranges: readonly Range[] | null
  }[]
}

export interface Divergences {
  /**
   * Makes the snapshot a record. Durable when it resolves; again with the same snapshot: no change. Resolves null when nothing differs: then
   * snapshot and record are gone. A crash in the middle is mended by the next opening.
   */
  keep(request: KeepDivergence): Promise<StoredRecord | null>
  list(): readonly StoredRecord[]
  show(id: string): StoredRecord | undefined
  /** Kept ranges of a volume, in order. Faults: DIVERGENCE_UNKNOWN, DIVERGENCE_NOT_READY. */
  ranges(id: string, volume: string): readonly Range[]
  /** Bytes as they were. Faults: as `ranges`, and RANGE_NOT_KEPT. */
  read(id: string, volume: string, offset: number, length: number): Promise<Buffer>
  /** Snapshot and record go for good. An unknown id changes nothing. */
  delete(id: string): Promise<void>
}

export interface DivergencesParts {
  /** Becomes the folder of the manifests. */
  readonly directory: string
  readonly snapshots: Snapshots
  readonly volumes: VolumeStore
  readonly clock: Clock
  readonly log: Log
}

const ID = /^[0-9a-zA-Z-]{1,64}$/
const SUFFIX = '.json'

/** Loads the records and finishes what a crash has interrupted. Before the sessions start. */
export async function openDivergences(parts: DivergencesParts): Promise<Divergences> {
  await mkdir(parts.directory, { recursive: true, mode: 0o700 })
  const records = new Map<string, StoredRecord>()
  for (const name of await readdir(parts.directory)) {
    if (!name.endsWith(SUFFIX) || name.startsWith('.')) continue
    const path = join(parts.directory, name)
    const record = decodeRecord((await readTextIfPresent(path)) ?? '')
    if (record === undefined || `${record.divergence}${SUFFIX}` !== name) {
      // The bytes are still in the sealed snapshot of that id; the page on formats says how to get at them.
      parts.log.error({ path }, 'a divergence manifest cannot be read, left alone')
      continue
    }
    records.set(record.divergence, record)
  }
  const store = new DivergenceStore(parts, records)
  await store.resume()
  return store
}

class DivergenceStore implements Divergences {
  readonly #parts: DivergencesParts
  readonly #records: Map<string, StoredRecord>
  /** Changes of one record wait for each other. */
  readonly #tails = new Map<string, Promise<unknown>>()

  constructor(parts: DivergencesParts, records: Map<string, StoredRecord>) {
    this.#parts = parts
    this.#records = records
  }

  async resume(): Promise<void> {
    for (const record of this.#records.values()) {
      if (record.state === 'keeping') await this.#finish(record)
      else if (record.state === 'kept') await this.#confirm(record)
    }
  }

  keep(request: KeepDivergence): Promise<StoredRecord | null> {
    assert(ID.test(request.snapshot), 'the id of a snapshot is checked before it becomes a path')
    return this.#inTurn(request.snapshot, async () => {
      const known = this.#records.get(request.snapshot)
      if (known !== undefined && known.state !== 'keeping') return known
      return await this.#finish(known ?? (await this.#begin(request)))
    })
  }

  async #begin(request: KeepDivergence): Promise<StoredRecord> {
    const { snapshots, volumes, clock } = this.#parts
    const { snapshot, session, site, winner, baseEpoch, epoch, why } = request
    const taken = snapshots.show(snapshot)
    const stored: StoredVolume[] = request.volumes.map(({ volume, pair, ranges }) => ({
      volume,
      pair,
      size_bytes: taken?.volumes.find((one) => one.volume === volume)?.sizeBytes ?? 0,
      ranges: 0,
      bytes: 0,
      wanted: ranges === null ? null : merged(ranges),
    }))
    const owner = request.volumes
      .map(({ volume }) => volumes.record(volume)?.owner)
      .find((one) => one !== undefined)
    const record: StoredRecord = {
      version: 2,
      divergence: snapshot,
      session,
      site,
      winner,
      owner: owner ?? '',
      base_epoch: baseEpoch,
      epoch,
      at: clock.wallMs(),
      why: why.slice(0, 500),
      state: 'keeping',
      reason: null,
      volumes: stored,
    }
    await this.#write(record)
    return record
  }

  /** From "keeping" to its end; every step may run twice. */
  async #finish(record: StoredRecord): Promise<StoredRecord | null> {
    const { snapshots, log } = this.#parts
    const { divergence: id, session } = record
    const taken = snapshots.show(id)
    if (taken === undefined || taken.state === 'failed') {
      const reason = taken === undefined ? 'its snapshot is gone' : (taken.reason ?? 'it failed')
      log.error({ session, divergence: id, reason }, 'what diverged here could not be kept')
      return await this.#write({ ...record, state: 'lost', reason, volumes: settled(record, {}) })
    }
    if (taken.state !== 'sealed') await snapshots.seal(id, await this.#wanted(record))
    const kept: Record<string, readonly Range[]> = {}
    for (const { volume } of record.volumes)
      kept[volume] = snapshots.changedRanges(id, volume) ?? []
    if (Object.values(kept).every((ranges) => ranges.length === 0)) {
      await this.#remove(id)
      return null
    }
    const volumes = settled(record, kept)
    const bytes = volumes.reduce((sum, one) => sum + one.bytes, 0)
    log.warn({ session, divergence: id, bytes }, 'writes that only this site had are kept')
    return await this.#write({ ...record, state: 'kept', volumes })
  }

  /** A record whose snapshot is not there, or damaged, does not go on saying that it keeps something. */
  async #confirm(record: StoredRecord): Promise<void> {
    const { snapshots, log } = this.#parts
    const { divergence: id, session } = record
    const taken = snapshots.show(id)
    if (taken !== undefined && taken.state !== 'failed') return
    const reason = taken === undefined ? 'its snapshot is gone' : (taken.reason ?? 'it failed')
    log.error({ session, divergence: id, reason }, 'what diverged here is lost')
    await this.#write({ ...record, state: 'lost', reason })
  }

  /** What to seal to, by volume. A volume that is left out keeps all that its before-images have. */
  async #wanted(record: StoredRecord): Promise<Record<string, readonly Range[]>> {
    const { snapshots, volumes } = this.#parts
    const { divergence: id } = record
    const wanted: Record<string, readonly Range[]> = {}
    for (const { volume, wanted: given } of record.volumes) {
      if (given !== null) wanted[volume] = given
      else if (snapshots.changedRanges(id, volume) === null) {
        const view = await snapshots.open(id, volume)
        try {
          wanted[volume] =
            volumes.record(volume) === undefined
              ? [{ offset: 0, length: view.sizeBytes }]
              : await differingRanges(view, await volumes.open(volume))
        } finally {
          await view.close()
        }
      }
    }
    return wanted
  }

  list(): readonly StoredRecord[] {
    return [...this.#records.values()].sort((a, b) => a.at - b.at)
  }

  show(id: string): StoredRecord | undefined {
    return this.#records.get(id)
  }

  ranges(id: string, volume: string): readonly Range[] {
    const record = this.#records.get(id)
    if (record === undefined || !record.volumes.some((one) => one.volume === volume)) {
      throw new Fault(DIVERGENCE_UNKNOWN, `divergence ${id}, volume ${volume}`)
    }
    if (record.state !== 'kept') {
      throw new Fault(DIVERGENCE_NOT_READY, `divergence ${id} is ${record.state}`)
    }
    return this.#parts.snapshots.changedRanges(id, volume) ?? []
  }

  async read(id: string, volume: string, offset: number, length: number): Promise<Buffer> {
    const ranges = this.ranges(id, volume)
    const inside = ranges.some(
      (range) => offset >= range.offset && offset + length <= range.offset + range.length,
    )
    if (!inside) throw new Fault(RANGE_NOT_KEPT, `[${offset}, ${offset + length}) of ${volume}`)
    const view = await this.#parts.snapshots.open(id, volume)
    try {
      const data = Buffer.allocUnsafe(length)
      await view.read(data, 0, length, offset)
      return data
    } finally {
      await view.close()
    }
  }

  delete(id: string): Promise<void> {
    return this.#inTurn(id, async () => {
      if (this.#records.has(id)) await this.#remove(id)
    })
  }

  /** The snapshot first: a manifest without one is a record that says so, a snapshot without manifest would be forgotten space. */
  async #remove(id: string): Promise<void> {
    try {
      await this.#parts.snapshots.delete(id)
    } catch (error) {
      if (!isFault(error, SNAPSHOT_UNKNOWN) && !isFault(error, VOLUME_UNKNOWN)) throw error
    }
    await rm(this.#path(id), { force: true })
    // Or a loss of power would bring back a record of what is gone.
    await syncDirectory(this.#parts.directory)
    this.#records.delete(id)
  }

  async #write(record: StoredRecord): Promise<StoredRecord> {
    await writeFileWhole(this.#path(record.divergence), encodeRecord(record), 0o600)
    this.#records.set(record.divergence, record)
    return record
  }

  #path(id: string): string {
    return join(this.#parts.directory, `${id}${SUFFIX}`)
  }

  #inTurn<T>(id: string, work: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(id) ?? Promise.resolve()
    const result = before.then(work, work)
    this.#tails.set(id, result)
    const clear = () => {
      if (this.#tails.get(id) === result) this.#tails.delete(id)
    }
    result.then(clear, clear)
    return result
  }
}

function settled(
  record: StoredRecord,
  kept: Readonly<Record<string, readonly Range[]>>,
): StoredVolume[] {
  return record.volumes.map((one) => {
    const ranges = kept[one.volume] ?? []
    const bytes = ranges.reduce((sum, range) => sum + range.length, 0)
    return { ...one, ranges: ranges.length, bytes, wanted: [] }
  })
}

/** In order, neighbours as one. */
function merged(ranges: readonly Range[]): { offset: number; length: number }[] {
  const result: { offset: number; length: number }[] = []
  for (const { offset, length } of ranges.toSorted((a, b) => a.offset - b.offset)) {
    const last = result.at(-1)
    if (last !== undefined && last.offset + last.length >= offset) {
      last.length = Math.max(last.length, offset + length - last.offset)
    } else if (length > 0) result.push({ offset, length })
  }
  return result
}
