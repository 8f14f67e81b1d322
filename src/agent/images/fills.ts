import { mkdir, open, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { assert } from '#base/assert.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { writeFileWhole } from '#base/system/files.ts'
import { systemFileRanges } from '#base/system/libc.ts'
import { Turns } from '#base/turns.ts'
import { IMAGE_FAILED } from '#agent/compute/faults.ts'
import type { ExportTable } from '#agent/nbd/exports.ts'
import { localDevice } from '#agent/nbd/local-device.ts'
import { VOLUME_BUSY } from '#agent/replication/faults.ts'
import { SIZE_MISMATCH, VOLUME_FAILED, VOLUME_UNKNOWN } from '#agent/volumes/faults.ts'
import type { VolumeStore } from '#agent/volumes/volume-store.ts'
import type { CommandRequest } from '#wire/site/commands.ts'
import type { FillInfo } from '#wire/site/servers.ts'
import { copyImage } from './copy-image.ts'
import { decodeFill, EARLIER_MAX, encodeFill, type FillRecord } from './fill-record.ts'
import type { Library, ReadyImage } from './library.ts'

/* Filling volumes with images.
 *
 *     (new) ──► waiting ──────────► filling ──────────────────► filled
 *                 │  for the image     │  record durable before     record durable after the data,
 *                 │                    │  the first byte is written  before a client may open the volume
 *                 ▼                    ▼
 *          given up, the volume     the volume stays closed; the same request again, or a start
 *          is served as before      of the agent, goes on where the record says
 *
 * While a volume is waiting or filling its export refuses, and whatever else would change or serve it is refused with VOLUME_BUSY. Its
 * deletion is not: that ends the fill. A request that ended is remembered, so that its late repetition cannot overwrite what a guest has
 * written since.
 *
 * A failure is told to the next repetition of the request, once; the one after it is a new attempt.
 */

/** Copied at a time; others wait. More would only take the disk from each other. */
const COPIES_MAX = 2

const WHY_CLOSED = 'it is being filled with an image'

export interface Fills {
  /** Goes on with what was cut off. After the plain exports are in place and before a client can open them. */
  start(): Promise<void>
  fill(request: CommandRequest<'volume.fill'>): Promise<FillInfo>
  /** Throws VOLUME_BUSY while one of the volumes is not whole. */
  refuseWhileFilling(volumes: readonly string[]): void
  /** Deletes the volume by `work`; its fill ends before, and is forgotten afterwards. */
  aroundDeletion<T>(volume: string, work: () => Promise<T>): Promise<T>
  close(): Promise<void>
}

export interface FillsOptions {
  readonly directory: string
  readonly volumes: VolumeStore
  readonly exports: ExportTable
  readonly library: Library
  /** A volume that snapshots live from is not filled. */
  readonly hasSnapshots: (volume: string) => boolean
  readonly log: Log
}

interface Running {
  readonly stop: AbortController
  readonly done: Promise<void>
  doneBytes: number
  totalBytes: number
}

/** Reads what was noted; throws for a record that cannot be read, because its volume may be half an image. */
export async function openFills(options: FillsOptions): Promise<Fills> {
  const { directory, volumes } = options
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const records = new Map<string, FillRecord>()
  for (const name of await readdir(directory)) {
    const path = join(directory, name)
    if (!name.endsWith('.json') || name.startsWith('.')) {
      await rm(path, { force: true })
      continue
    }
    let record: FillRecord
    try {
      record = decodeFill(await readFile(path, 'utf8'))
    } catch (error) {
      throw new Fault(VOLUME_FAILED, `reading ${path}: ${String(error)}`, { path }, error)
    }
    if (volumes.record(record.volume) === undefined) await rm(path, { force: true })
    else records.set(record.volume, record)
  }
  return new FillStore(options, records)
}

class FillStore implements Fills {
  readonly #options: FillsOptions
  readonly #records: Map<string, FillRecord>
  readonly #running = new Map<string, Running>()
  /** What became of requests and was not told yet, by volume. */
  readonly #troubles = new Map<string, { readonly fill: string; readonly error: Fault }>()
  readonly #ranges = systemFileRanges()
  readonly #copies = new Turns(COPIES_MAX)

  constructor(options: FillsOptions, records: Map<string, FillRecord>) {
    this.#options = options
    this.#records = records
  }

  async start(): Promise<void> {
    for (const record of this.#records.values()) {
      if (record.state === 'filled') continue
      this.#options.exports.refuse(record.volume, WHY_CLOSED)
      this.#options.log.info({ volume: record.volume, image: record.image }, 'going on with a fill')
      this.#run(record)
    }
  }

  async fill({ volume, image, fill }: CommandRequest<'volume.fill'>): Promise<FillInfo> {
    const trouble = this.#troubles.get(volume)
    if (trouble?.fill === fill) {
      this.#troubles.delete(volume)
      throw trouble.error
    }
    if (this.#isKnown(volume, fill)) return this.#goOn(volume, image, fill)
    const { state, size_bytes } = await this.#options.library.show(image)
    // The same request may have come twice at once.
    if (this.#isKnown(volume, fill)) return this.#goOn(volume, image, fill)
    const known = this.#records.get(volume)
    this.#mayFill(volume, state === 'ready' ? size_bytes : 0)
    const record: FillRecord = {
      volume,
      fill,
      image,
      state: 'waiting',
      sha256: '',
      totalBytes: 0,
      doneBytes: 0,
      earlier: earlierOf(known),
    }
    this.#options.exports.refuse(volume, WHY_CLOSED)
    this.#run(record, known)
    return this.#info(record)
  }

  #isKnown(volume: string, fill: string): boolean {
    const record = this.#records.get(volume)
    return record?.fill === fill || record?.earlier.includes(fill) === true
  }

  #goOn(volume: string, image: string, fill: string): FillInfo {
    const record = this.#records.get(volume)
    if (record?.fill !== fill) {
      return { volume, image, state: 'filled', done_bytes: 0, total_bytes: 0 }
    }
    if (record.state !== 'filled' && !this.#running.has(volume)) this.#run(record)
    return this.#info(record)
  }

  #mayFill(volume: string, bytes: number): void {
    const { volumes, exports, hasSnapshots } = this.#options
    const doing = `filling volume ${volume}`
    const record = volumes.record(volume)
    if (record === undefined) throw new Fault(VOLUME_UNKNOWN, doing)
    if (record.failed !== null) throw new Fault(VOLUME_FAILED, `${doing}: ${record.failed}`)
    const busy = (reason: string) => new Fault(VOLUME_BUSY, `${doing}: ${reason}`, { volume })
    if (record.serving.mode !== 'standalone') throw busy('it is not served by itself')
    if (this.#running.has(volume)) throw busy('it is being filled by another request')
    if (exports.connectionCount(volume) > 0) throw busy('a client has it open')
    if (hasSnapshots(volume)) throw busy('it has snapshots')
    this.#checkSize(volume, bytes)
  }

  #checkSize(volume: string, bytes: number): void {
    const record = this.#options.volumes.record(volume)
    if (record === undefined) throw new Fault(VOLUME_UNKNOWN, `filling volume ${volume}`)
    if (record.sizeBytes >= bytes) return
    const doing = `filling volume ${volume} of ${record.sizeBytes} bytes with an image of ${bytes}`
    throw new Fault(SIZE_MISMATCH, doing)
  }

  #info({ volume, image, state, doneBytes, totalBytes }: FillRecord): FillInfo {
    const running = this.#running.get(volume)
    return {
      volume,
      image,
      state: state === 'filled' ? 'filled' : 'filling',
      done_bytes: running?.doneBytes ?? doneBytes,
      total_bytes: running?.totalBytes ?? totalBytes,
    }
  }

  /** `before`: what was known of the volume until now, to be known again when nothing comes of this. */
  #run(record: FillRecord, before?: FillRecord): void {
    const { volume } = record
    assert(!this.#running.has(volume), 'a volume is filled by one request at a time')
    this.#records.set(volume, record)
    const stop = new AbortController()
    const done = this.#work(record, stop.signal)
      .catch((error: unknown) => this.#failed(record, before, error, stop.signal))
      .finally(() => this.#running.delete(volume))
    const { doneBytes, totalBytes } = record
    this.#running.set(volume, { stop, done, doneBytes, totalBytes })
  }

  async #work(record: FillRecord, signal: AbortSignal): Promise<void> {
    const { library, volumes, log } = this.#options
    const { volume } = record
    await this.#persist(record)
    const ready = await unlessStopped(() => library.provide(record.image), signal)
    const { sizeBytes, sha256 } = ready.record
    this.#checkSize(volume, sizeBytes)
    await this.#copies.take(signal)
    try {
      // Another image of the same name than the one that was begun: from the beginning.
      const from = record.sha256 === sha256 ? record.doneBytes : 0
      const filling: FillRecord = {
        ...record,
        state: 'filling',
        sha256,
        totalBytes: sizeBytes,
        doneBytes: from,
      }
      await this.#persist(filling)
      await this.#copy(filling, ready, signal)
      await this.#persist({ ...filling, state: 'filled', doneBytes: sizeBytes })
    } finally {
      this.#copies.give()
    }
    log.info({ volume, image: record.image, bytes: sizeBytes }, 'volume is filled')
    if (volumes.record(volume) !== undefined) await this.#serve(volume)
  }

  async #copy(record: FillRecord, { path }: ReadyImage, signal: AbortSignal): Promise<void> {
    const { volume, totalBytes } = record
    const show = this.#running.get(volume)
    if (show !== undefined) show.totalBytes = totalBytes
    const target = await this.#options.volumes.open(volume)
    const source = await open(path, 'r')
    try {
      await copyImage({
        source,
        volume: target,
        from: record.doneBytes,
        end: totalBytes,
        ranges: this.#ranges,
        signal,
        onDurable: async (doneBytes) => {
          if (show !== undefined) show.doneBytes = doneBytes
          await this.#persist({ ...record, doneBytes })
        },
      })
    } finally {
      await source.close()
    }
  }

  async #failed(
    record: FillRecord,
    before: FillRecord | undefined,
    error: unknown,
    signal: AbortSignal,
  ): Promise<void> {
    if (signal.aborted) return
    const { log } = this.#options
    const { volume, fill, image } = record
    if (!isFault(error) && !isOfSystem(error)) throw error
    const told = isFault(error)
      ? error
      : new Fault(IMAGE_FAILED, `copying image ${image}: ${String(error)}`, {}, error)
    log.error({ volume, image, err: error }, 'a volume could not be filled')
    const untouched = this.#records.get(volume)?.state === 'waiting'
    if (untouched) {
      // The note goes first: with it, the next start would fill a volume that a client has written to since.
      if (before === undefined) await this.#removeNote(volume)
      else await writeFileWhole(this.#path(volume), encodeFill(before), 0o600)
      if (before === undefined || before.state === 'filled') await this.#serve(volume)
    }
    // Told when all that is done. Repetitions until here see a fill that is under way.
    this.#troubles.set(volume, { fill, error: told })
    if (!untouched) return
    if (before === undefined) this.#records.delete(volume)
    else this.#records.set(volume, before)
  }

  async #serve(volume: string): Promise<void> {
    const { volumes, exports } = this.#options
    const record = volumes.record(volume)
    if (record === undefined || record.serving.mode !== 'standalone') return
    if (record.failed !== null) return exports.refuse(volume, `failed: ${record.failed}`)
    const opened = await volumes.open(volume)
    if (volumes.record(volume) !== undefined) exports.serve(volume, localDevice(opened))
  }

  #path(volume: string): string {
    return join(this.#options.directory, `${volume}.json`)
  }

  async #persist(record: FillRecord): Promise<void> {
    await writeFileWhole(this.#path(record.volume), encodeFill(record), 0o600)
    this.#records.set(record.volume, record)
  }

  /** Durably: a note that came back after a power loss would be carried out. */
  async #removeNote(volume: string): Promise<void> {
    await rm(this.#path(volume), { force: true })
    const directory = await open(this.#options.directory, 'r')
    try {
      await directory.sync()
    } finally {
      await directory.close()
    }
  }

  refuseWhileFilling(volumes: readonly string[]): void {
    const busy = volumes.find((id) => {
      const record = this.#records.get(id)
      return record !== undefined && record.state !== 'filled'
    })
    if (busy === undefined) return
    throw new Fault(VOLUME_BUSY, `volume ${busy}: ${WHY_CLOSED}`, { volume: busy })
  }

  async aroundDeletion<T>(volume: string, work: () => Promise<T>): Promise<T> {
    const running = this.#running.get(volume)
    running?.stop.abort()
    await running?.done
    const result = await work()
    this.#troubles.delete(volume)
    if (this.#records.delete(volume)) await this.#removeNote(volume)
    return result
  }

  async close(): Promise<void> {
    const running = [...this.#running.values()]
    for (const one of running) one.stop.abort()
    await Promise.all(running.map(({ done }) => done))
  }
}

const earlierOf = (known: FillRecord | undefined): readonly string[] => {
  if (known === undefined) return []
  const ended = known.state === 'filled' ? [known.fill] : []
  return [...ended, ...known.earlier].slice(0, EARLIER_MAX)
}

const isOfSystem = (error: unknown): boolean => error instanceof Error && 'code' in error

/** The image goes on being made when the fill is stopped: others may want it. */
async function unlessStopped<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted()
  return await new Promise<T>((resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
    work().then(resolve, reject)
  })
}
