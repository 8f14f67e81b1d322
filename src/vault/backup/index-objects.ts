import { randomBytes } from 'node:crypto'
import { Fault } from '#base/fault.ts'
import type { WrittenPack } from '../chunks/pack-writer.ts'
import type { KnownTable } from '../chunks/known-table.ts'
import { VAULT_DAMAGED } from '../faults.ts'
import { PACK_ID_BYTES } from '../format/entry.ts'
import {
  decodePackRecords,
  decodePackTrailer,
  encodePackRecords,
  FOOTER_ENTRY_BYTES,
  PACK_TRAILER_BYTES,
  packIdOf,
  packKey,
  packRecordsAt,
  type PackRecord,
} from '../format/pack.ts'
import { type Keyring, sealWith, unsealWith } from '../keys/keyring.ts'
import type { ObjectStore } from '../object-store.ts'

/* Index objects repeat the footers of many packs, so that a backup learns what the vault holds from a few reads. They are a help only:
 * packs that none of them covers are read at their footers, and one that is damaged or lost costs time, no data. */

export const INDEX_PREFIX = 'index/'

export interface IndexedPack {
  readonly id: Buffer
  readonly records: readonly PackRecord[]
}

export async function putIndex(
  store: ObjectStore,
  keyring: Keyring,
  packs: readonly (WrittenPack | IndexedPack)[],
): Promise<string> {
  const key = `${INDEX_PREFIX}${randomBytes(16).toString('hex')}`
  const content = Buffer.concat(
    packs.flatMap(({ id, records }) => [id, encodePackRecords(records)]),
  )
  await store.put(key, sealWith(keyring, 'index', key, content), { ifAbsent: true })
  return key
}

/** Throws VAULT_DAMAGED. */
export async function readIndex(
  store: ObjectStore,
  keyring: Keyring,
  key: string,
): Promise<IndexedPack[]> {
  const content = await openIndex(store, keyring, key)
  return [...listsIn(content, key)].map(({ id, list }) => ({
    id,
    records: decodePackRecords(list),
  }))
}

const openIndex = async (store: ObjectStore, keyring: Keyring, key: string): Promise<Buffer> =>
  unsealWith(keyring, 'index', key, await store.get(key))

interface PackList {
  readonly id: Buffer
  readonly list: Buffer
}

/** Throws VAULT_DAMAGED. */
function* listsIn(content: Buffer, key: string): Generator<PackList> {
  for (let at = 0; at < content.length; ) {
    const id = content.subarray(at, at + PACK_ID_BYTES)
    at += PACK_ID_BYTES
    const { list, next } = packRecordsAt(content, at, key)
    yield { id, list }
    at = next
  }
}

const FOOTER_GUESS_BYTES = 64 * 1024

/** Reads the list of records at a pack's end. Throws VAULT_DAMAGED. */
export async function readFooter(
  store: ObjectStore,
  keyring: Keyring,
  id: Buffer,
  bytes: number,
): Promise<PackRecord[]> {
  return decodePackRecords(await openFooter(store, keyring, id, bytes))
}

/** The list as it is encoded. Throws VAULT_DAMAGED. */
async function openFooter(
  store: ObjectStore,
  keyring: Keyring,
  id: Buffer,
  bytes: number,
): Promise<Buffer> {
  const name = packKey(id)
  const guess = Math.min(bytes, FOOTER_GUESS_BYTES)
  let end = await store.get(name, { offset: bytes - guess, length: guess })
  const { footerBytes, records: count } = decodePackTrailer(
    end.subarray(Math.max(0, end.length - PACK_TRAILER_BYTES)),
    name,
  )
  const wanted = footerBytes + PACK_TRAILER_BYTES
  if (wanted > bytes) throw damaged(name)
  if (wanted > end.length) end = await store.get(name, { offset: bytes - wanted, length: wanted })
  const footer = end.subarray(end.length - wanted, end.length - PACK_TRAILER_BYTES)
  const content = unsealWith(keyring, 'footer', name, footer)
  const { list, next } = packRecordsAt(content, 0, name)
  if (list.length !== count * FOOTER_ENTRY_BYTES || next !== content.length) throw damaged(name)
  return list
}

const damaged = (name: string): Fault =>
  new Fault(VAULT_DAMAGED, `reading ${name}: its end does not fit it`, { object: name })

export async function listPacks(store: ObjectStore): Promise<Map<string, number>> {
  const packs = new Map<string, number>()
  for await (const { key, bytes } of store.list('packs/')) {
    const id = packIdOf(key)
    if (id !== undefined) packs.set(id.toString('hex'), bytes)
  }
  return packs
}

/** Fills the table with the chunks of `packs`, newest index first. What cannot be read is told to `damaged` and left out. */
export async function loadKnown(
  store: ObjectStore,
  keyring: Keyring,
  table: KnownTable,
  packs: ReadonlyMap<string, number>,
  damagedObject: (fault: Fault) => void,
): Promise<void> {
  const left = new Set(packs.keys())
  const attempt = async (read: () => Promise<readonly PackList[]>) => {
    try {
      for (const { id, list } of await read()) {
        if (left.delete(id.toString('hex'))) table.insertPack(id, list)
      }
    } catch (error) {
      // Also an object that a collector replaced meanwhile.
      if (!(error instanceof Fault)) throw error
      damagedObject(error)
    }
  }
  const objects = []
  for await (const object of store.list(INDEX_PREFIX)) objects.push(object)
  objects.sort((a, b) => b.modifiedMs - a.modifiedMs)
  for (const { key } of objects) {
    if (left.size === 0) break
    await attempt(async () => [...listsIn(await openIndex(store, keyring, key), key)])
  }
  for (const hex of left) {
    const id = Buffer.from(hex, 'hex')
    const bytes = packs.get(hex) ?? 0
    await attempt(async () => [{ id, list: await openFooter(store, keyring, id, bytes) }])
  }
}
