import { randomBytes } from 'node:crypto'
import type { BackupSession } from '#vault/backup/session.ts'
import type { VolumeWriter } from '#vault/backup/volume-writer.ts'
import { FLAG_ZSTD } from '#vault/format/entry.ts'
import type { Manifest } from '#vault/format/manifest.ts'
import { openRecord } from '#vault/format/record.ts'
import {
  HAVE_BLOCKS_MAX,
  type NamedBlock,
  type Put,
  type PutRecord,
} from '#wire/replica/messages.ts'
import { Refusal } from './refusal.ts'

/* A checkpoint that comes in from another region: a backup whose blocks arrive by name.
 *
 *     have   known here ──► referred to at once          unknown ──► wanted, once: later blocks of that name wait for the same record
 *     put    opened, which authenticates it ──► written to every block that waits for it
 *
 * The chunks get their names anew from what arrived, so a source that says wrong things hurts nobody's chunks but its own replica.
 *
 * Durable: what was flushed. That is done after every hundredth of what has arrived, at least, so that a killed process has little sent to it again. */

const FLUSH_BYTES_MIN = 512 * 1024
const FLUSH_SHARE = 0.01
/** Blocks that wait for records that were asked for and have not come. A source has a few requests under way. */
const PROMISED_MAX = 64 * HAVE_BLOCKS_MAX
/** Records opened in one turn of the loop. */
const RECORDS_PER_TURN = 4

export interface IncomingParts {
  readonly session: BackupSession
  readonly blockBytes: number
  readonly volumes: readonly { readonly id: string; readonly sizeBytes: number }[]
  readonly based: boolean
}

export class IncomingTransfer {
  readonly #parts: IncomingParts
  readonly #done = new Set<number>()
  #current: { readonly volume: number; readonly writer: VolumeWriter } | undefined
  /** By name: the blocks of the current volume that wait for a record. */
  readonly #promised = new Map<string, number[]>()
  /** All of them together. */
  #waiting = 0
  /** Names whose records are on their way to the vault, which does not know them yet. */
  readonly #written = new Set<string>()
  #tail: Promise<unknown> = Promise.resolve()
  #arrived = 0
  #durable = 0
  #token = newToken()

  constructor(parts: IncomingParts) {
    this.#parts = parts
  }

  get token(): string {
    return this.#token
  }

  get session(): string {
    return this.#parts.session.id
  }

  get arrivedBytes(): number {
    return this.#arrived
  }

  get based(): boolean {
    return this.#parts.based
  }

  get volumesDone(): number[] {
    return [...this.#done]
  }

  /** The source begins again, over another line: what it was asked for before will not come. */
  reopen(): Promise<void> {
    this.#token = newToken()
    return this.#inTurn(async () => {
      this.#promised.clear()
      this.#waiting = 0
    })
  }

  have(volume: number, blocks: readonly NamedBlock[]): Promise<boolean[]> {
    return this.#inTurn(async () => {
      const writer = await this.#writer(volume)
      const wanted: boolean[] = []
      for (const { block, id } of blocks) {
        this.#lengthOf(volume, block)
        wanted.push(!(await this.#refer(writer, block, id)) && this.#promise(block, id))
      }
      return wanted
    })
  }

  put({ volume, keys, items }: Put): Promise<number> {
    return this.#inTurn(async () => {
      const writer = await this.#writer(volume)
      for (const [i, item] of items.entries()) {
        if (i % RECORDS_PER_TURN === 0) await nextTurn()
        if (item.kind === 'record') await this.#take(volume, writer, item, keys[item.key] as Buffer)
        else await this.#zero(volume, writer, item.block, item.count)
      }
      const waiting = this.#arrived - this.#durable
      if (waiting >= Math.max(FLUSH_BYTES_MIN, this.#arrived * FLUSH_SHARE)) await this.#flush()
      return this.#durable
    })
  }

  endVolume(volume: number): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#done.has(volume)) return
      const writer = await this.#writer(volume)
      if (this.#promised.size > 0) throw new Refusal(409, 'RECORDS_MISSING', 'records are missing')
      await writer.finish()
      this.#written.clear()
      this.#done.add(volume)
      this.#current = undefined
    })
  }

  /** The checkpoint exists, durably, when it settles. */
  finish(): Promise<Manifest> {
    const { session, volumes } = this.#parts
    return this.#inTurn(async () => {
      if (this.#done.size !== volumes.length) {
        throw new Refusal(409, 'VOLUMES_MISSING', 'not all volumes have arrived')
      }
      return await session.commit()
    })
  }

  /** Keeps what has arrived. */
  async close(): Promise<void> {
    await this.#inTurn(async () => {
      await this.#flush().catch(() => undefined)
      await this.#parts.session.abandon()
    })
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#tail.then(work, work)
    this.#tail = result.catch(() => undefined)
    return result
  }

  async #writer(volume: number): Promise<VolumeWriter> {
    const about = this.#parts.volumes[volume]
    if (about === undefined || this.#done.has(volume)) {
      throw new Refusal(409, 'WRONG_VOLUME', `volume ${volume} takes no more blocks`)
    }
    if (this.#current === undefined) {
      this.#current = { volume, writer: await this.#parts.session.openVolume(about) }
    }
    if (this.#current.volume !== volume) {
      throw new Refusal(409, 'WRONG_VOLUME', 'volumes come one after the other')
    }
    return this.#current.writer
  }

  /** Bytes of a block; refuses what is not one. */
  #lengthOf(volume: number, block: number): number {
    const { blockBytes, volumes } = this.#parts
    const left = (volumes[volume]?.sizeBytes ?? 0) - block * blockBytes
    if (!Number.isSafeInteger(block) || left <= 0) {
      throw new Refusal(400, 'WRONG_BLOCK', `block ${block} is not in volume ${volume}`)
    }
    return Math.min(blockBytes, left)
  }

  async #refer(writer: VolumeWriter, block: number, id: Buffer): Promise<boolean> {
    const { session, blockBytes } = this.#parts
    if (this.#written.has(nameOf(id))) await this.#drain(writer)
    return session.known(id) && (await writer.reference(block * blockBytes, id))
  }

  /** False: the record was asked for before. */
  #promise(block: number, id: Buffer): boolean {
    if (this.#waiting >= PROMISED_MAX) {
      throw new Refusal(503, 'TRANSFER_BUSY', 'too many records were asked for and have not come')
    }
    this.#waiting++
    const name = nameOf(id)
    const waiting = this.#promised.get(name)
    if (waiting === undefined) this.#promised.set(name, [block])
    else waiting.push(block)
    return waiting === undefined
  }

  async #take(volume: number, writer: VolumeWriter, item: PutRecord, key: Buffer): Promise<void> {
    const { blockBytes } = this.#parts
    const bytes = opened(key, item, blockBytes)
    const name = nameOf(item.id)
    if (bytes === undefined) {
      throw new Refusal(422, 'RECORD_DAMAGED', item.id.toString('hex'))
    }
    // Asked for by an earlier line, or by nobody: the block that it came with gets it all the same.
    const waiting = this.#promised.get(name)
    const blocks = waiting ?? [item.block]
    this.#promised.delete(name)
    this.#waiting -= waiting?.length ?? 0
    for (const block of blocks) {
      if (this.#lengthOf(volume, block) !== bytes.length) {
        throw new Refusal(400, 'WRONG_BLOCK', `block ${block} has another length`)
      }
      await writer.write(block * blockBytes, bytes)
    }
    this.#written.add(name)
    this.#arrived += item.bytes.length
  }

  async #zero(volume: number, writer: VolumeWriter, first: number, count: number): Promise<void> {
    if (count === 0) return
    const { blockBytes } = this.#parts
    const end = (first + count - 1) * blockBytes + this.#lengthOf(volume, first + count - 1)
    await writer.zero(first * blockBytes, end - first * blockBytes)
  }

  async #drain(writer: VolumeWriter): Promise<void> {
    await writer.drain()
    this.#written.clear()
  }

  async #flush(): Promise<void> {
    const arrived = this.#arrived
    if (this.#current !== undefined) await this.#drain(this.#current.writer)
    await this.#parts.session.flush()
    this.#durable = arrived
  }
}

const newToken = (): string => randomBytes(24).toString('base64url')
const nameOf = (id: Buffer): string => id.toString('latin1')
const nextTurn = () => new Promise<void>((resolve) => setImmediate(resolve))

/** The content of a record; undefined when it does not open, or is no block. */
function opened(
  key: Buffer,
  { id, flags, bytes }: PutRecord,
  bytesMax: number,
): Buffer | undefined {
  if (flags !== 0 && flags !== FLAG_ZSTD) return undefined
  try {
    return openRecord(key, id, flags, bytes, bytesMax)
  } catch {
    return undefined // authentic, and not what zstd made
  }
}
