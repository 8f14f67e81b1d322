import { randomBytes } from 'node:crypto'
import { assert } from '#base/assert.ts'
import { Fault } from '#base/fault.ts'
import { VAULT_STORE_FAILED } from '../faults.ts'
import { type Entry, RECORD_BYTES_MAX } from '../format/entry.ts'
import {
  encodePackHeader,
  encodePackRecords,
  encodePackTrailer,
  PACK_HEADER_BYTES,
  packKey,
  type PackRecord,
} from '../format/pack.ts'
import { sealWith, type Keyring } from '../keys/keyring.ts'
import { PACK_BYTES, PACK_RECORDS_MAX, PACKS_IN_FLIGHT } from '../limits.ts'
import type { ObjectStore } from '../object-store.ts'
import { restingBuffers } from './resting-memory.ts'

/* Collects records into packs and stores these in the background, a few at a time. What `add` returned counts only when `flush` has settled: all
 * packs are durable then. The first failure is kept: every later call gives it again, so nothing is committed after it. */

export interface WrittenPack {
  readonly id: Buffer
  readonly records: readonly PackRecord[]
  readonly bytes: number
}

export interface PackWriter {
  /** Takes a copy of the pieces. */
  add(id: Buffer, pieces: readonly Buffer[], length: number, flags: number): Entry
  /** A record that is not in the store yet, as a view that holds until the next await; undefined when its pack is. */
  pending(entry: Entry): Buffer | undefined
  /** Waits while too many packs are on their way. To be called between batches. */
  ready(): Promise<void>
  /** Stores what is left; all packs are durable when it settles. */
  flush(): Promise<void>
  /** Packs that became durable since the last call. Forgotten here, so that memory stays bounded. */
  takeStored(): WrittenPack[]
  /** Records of the packs that `takeStored` would answer. */
  readonly recordsStored: number
  /** Bytes of all packs that were closed so far. */
  readonly bytesStored: number
}

export interface PackWriterSetup {
  readonly store: ObjectStore
  readonly keyring: Keyring
  /** The data key that the salt was used with. */
  readonly keyId: Buffer
  readonly salt: Buffer
  readonly sessionId: Buffer
  readonly packBytes?: number
}

export function createPackWriter(setup: PackWriterSetup): PackWriter {
  const packBytes = setup.packBytes ?? PACK_BYTES
  const bufferBytes = packBytes + Math.floor(RECORD_BYTES_MAX / 8)
  let stored: WrittenPack[] = []
  let recordsStored = 0
  const flying = new Set<Promise<void>>()
  const unstored = new Map<string, Buffer>()
  let failure: Error | undefined
  let bytesStored = 0
  let open: { id: Buffer; buffer: Buffer; end: number; records: PackRecord[] } | undefined

  function begin() {
    // Session first: the collector sees from the name whose pack it is.
    const id = Buffer.concat([setup.sessionId.subarray(0, 8), randomBytes(8)])
    const buffer = restingBuffers.take(bufferBytes)
    const header = { packId: id, ...setup }
    encodePackHeader(header).copy(buffer)
    return { id, buffer, end: PACK_HEADER_BYTES, records: [] }
  }

  function closePack(): void {
    if (open === undefined) return
    const { id, buffer, end, records } = open
    open = undefined
    const key = packKey(id)
    const footer = sealWith(setup.keyring, 'footer', key, encodePackRecords(records))
    const trailer = encodePackTrailer(footer.length, records.length)
    const bytes = end + footer.length + trailer.length
    bytesStored += bytes
    unstored.set(id.toString('hex'), buffer)
    const storing = setup.store
      .put(key, [buffer.subarray(0, end), footer, trailer], { ifAbsent: true })
      .then(async (first) => {
        // Ids are random, so one that exists is our own: the store was slow to answer and its client asked twice.
        if (!first && (await setup.store.stat(key))?.bytes !== bytes) {
          throw new Fault(VAULT_STORE_FAILED, `storing ${key}: another pack of this id exists`)
        }
        unstored.delete(id.toString('hex'))
        stored.push({ id, records, bytes })
        recordsStored += records.length
        if (buffer.length === bufferBytes) restingBuffers.rest(buffer)
      })
      .catch((error: unknown) => {
        failure ??= error instanceof Error ? error : new Error(String(error))
      })
      .finally(() => flying.delete(storing))
    flying.add(storing)
  }

  function check(): void {
    if (failure !== undefined) throw failure
  }

  return {
    takeStored() {
      const taken = stored
      stored = []
      recordsStored = 0
      return taken
    },
    get recordsStored() {
      return recordsStored
    },
    get bytesStored() {
      return bytesStored
    },
    add(id, pieces, length, flags) {
      check()
      assert(length <= RECORD_BYTES_MAX, 'a record fits its length field')
      if (open !== undefined && open.end + length > open.buffer.length) closePack()
      open ??= begin()
      if (open.end + length > open.buffer.length) {
        open.buffer = Buffer.concat([open.buffer.subarray(0, open.end), Buffer.alloc(length)])
      }
      const entry: Entry = {
        id,
        pack: open.id,
        slot: open.records.length,
        offset: open.end,
        length,
        flags,
      }
      for (const piece of pieces) open.end += piece.copy(open.buffer, open.end)
      assert(open.end === entry.offset + length, 'the pieces are as long as they say')
      open.records.push({ id, offset: entry.offset, length, flags })
      if (open.end >= packBytes || open.records.length >= PACK_RECORDS_MAX) closePack()
      return entry
    },
    pending({ pack, offset, length }) {
      const buffer =
        open?.id.equals(pack) === true ? open.buffer : unstored.get(pack.toString('hex'))
      return buffer?.subarray(offset, offset + length)
    },
    async ready() {
      while (flying.size >= PACKS_IN_FLIGHT) await Promise.race(flying)
      check()
    },
    async flush() {
      closePack()
      await Promise.all(flying)
      check()
    },
  }
}
