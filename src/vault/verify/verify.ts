import { Fault } from '#base/fault.ts'
import { INDEX_PREFIX, listPacks, readFooter, readIndex } from '../backup/index-objects.ts'
import { type ChunkSource, createChunkSource } from '../chunks/chunk-source.ts'
import {
  CONDEMNED_PREFIX,
  readForgotten,
  readList,
  readSessions,
  WAITING_PREFIX,
} from '../collect/condemned.ts'
import { OBJECT_MISSING } from '../faults.ts'
import { type Entry, FLAG_NODE } from '../format/entry.ts'
import {
  checkpointIdOf,
  decodeManifest,
  isRevokedSize,
  type Manifest,
  MANIFEST_PREFIX,
  manifestKey,
  REVOKED,
} from '../format/manifest.ts'
import { movesKey } from '../format/moves.ts'
import { decodePackHeader, PACK_HEADER_BYTES, packKey, type PackRecord } from '../format/pack.ts'
import { createHasher, openRecord } from '../format/record.ts'
import { HEADER_KEY, parseHeader } from '../keys/header.ts'
import {
  blockNaming,
  KEYRING_PREFIX,
  type Keyring,
  nodeNaming,
  recordKey,
} from '../keys/keyring.ts'
import { decodeSlot, SLOT_PREFIX } from '../keys/slots.ts'
import type { ObjectStore } from '../object-store.ts'
import { NODE_BYTES_MAX, readNode } from '../tree/node-reader.ts'
import { visitTree } from '../tree/walk.ts'

/* Proves a vault, or names what is wrong with it: every object that is damaged or missing, and every checkpoint, volume and range that cannot be
 * read because of it.
 *
 * Structure: all small objects open, all packs have a whole header and footer, all trees can be walked, and every entry names a record that its
 * pack's footer lists under the same id at the same place. Data: besides, every record of every pack is read, decrypted, and
 * its content compared with its name. A pack is read once however many checkpoints use it. */

export interface VerifyOptions {
  /** Read everything instead of the structure only. */
  readonly data?: boolean
  /** Only this checkpoint and what it needs. */
  readonly checkpoint?: string
  readonly signal?: AbortSignal
  readonly progress?: (done: number, total: number) => void
}

export interface Damage {
  readonly object: string
  readonly kind:
    | 'header'
    | 'key'
    | 'index'
    | 'manifest'
    | 'condemned'
    | 'moves'
    | 'pack'
    | 'record'
    | 'node'
  readonly what: string
  readonly slot?: number
  readonly chunk?: string
}

export interface Affected {
  readonly checkpoint: string
  readonly volume: string
  /** Ranges in bytes that cannot be read; neighbours are joined, and those after the first hundred only counted. */
  readonly ranges: { readonly offset: number; readonly length: number }[]
  rangesMore: number
}

export interface VerifyReport {
  readonly checkpoints: number
  readonly packs: number
  readonly bytesRead: number
  readonly damage: readonly Damage[]
  readonly affected: readonly Affected[]
}

const RANGES_MAX = 100

export interface VerifyDeps {
  readonly store: ObjectStore
  readonly keyring: Keyring
  readonly blockBytes: number
}

/** A collection may overtake a verification, which then looks once more: what it misses has been deleted or moved, and is no damage. */
const ATTEMPTS_MAX = 3

export async function verifyVault(deps: VerifyDeps, options: VerifyOptions): Promise<VerifyReport> {
  for (let attempt = 1; ; attempt++) {
    const before = await listPacks(deps.store)
    const report = await verifyOnce(deps, options)
    if (report.damage.length === 0 || attempt === ATTEMPTS_MAX) return report
    const after = await listPacks(deps.store)
    if ([...before.keys()].every((hex) => after.has(hex))) return report
  }
}

async function verifyOnce(deps: VerifyDeps, options: VerifyOptions): Promise<VerifyReport> {
  const damage: Damage[] = []
  await verifySmall(deps, damage)
  const manifests = await readManifests(deps, options.checkpoint, damage)
  const packs = await listPacks(deps.store)
  const source = createChunkSource(deps.store, deps.keyring)
  const needed =
    options.checkpoint === undefined ? undefined : await packsOf(source, packs, manifests)
  const checker = createPackChecker(deps, packs, damage, options)
  const bytesRead = await checker.run(needed)
  const affected: Affected[] = []
  for (const manifest of manifests) {
    options.signal?.throwIfAborted()
    await verifyTrees(source, manifest, packs, checker, damage, affected)
  }
  return {
    checkpoints: manifests.length,
    packs: needed?.size ?? packs.size,
    bytesRead,
    damage,
    affected,
  }
}

async function tell(
  damage: Damage[],
  object: string,
  kind: Damage['kind'],
  act: () => unknown,
): Promise<boolean> {
  try {
    await act()
    return true
  } catch (error) {
    if (!(error instanceof Fault)) throw error
    damage.push({ object, kind, what: whatOf(error) })
    return false
  }
}

const whatOf = (fault: Fault): string =>
  fault.message.slice(fault.code.length + 2).split('. ')[0] ?? ''

/** Header, key slots, data keys, indexes, lists of the collector. */
async function verifySmall({ store, keyring }: VerifyDeps, damage: Damage[]): Promise<void> {
  await tell(damage, HEADER_KEY, 'header', async () => parseHeader(await store.get(HEADER_KEY)))
  for await (const { key } of store.list(SLOT_PREFIX)) {
    await tell(damage, key, 'key', async () => decodeSlot(await store.get(key), key))
  }
  const readable = new Set(keyring.all().map((key) => `${KEYRING_PREFIX}${key.id.toString('hex')}`))
  for await (const { key } of store.list(KEYRING_PREFIX)) {
    if (!readable.has(key))
      damage.push({ object: key, kind: 'key', what: `opening ${key}: it does not authenticate` })
  }
  for await (const { key } of store.list(INDEX_PREFIX)) {
    await tell(damage, key, 'index', () => readIndex(store, keyring, key))
  }
  await verifyCondemned(store, keyring, damage)
}

async function verifyCondemned(
  store: ObjectStore,
  keyring: Keyring,
  damage: Damage[],
): Promise<void> {
  for await (const { key } of store.list(CONDEMNED_PREFIX)) {
    await tell(damage, key, 'condemned', () => readList(store, keyring, key))
  }
  for await (const { key } of store.list(WAITING_PREFIX)) {
    await tell(damage, key, 'condemned', () => readSessions(store, keyring, key))
  }
}

async function readManifests(
  { store, keyring }: VerifyDeps,
  only: string | undefined,
  damage: Damage[],
): Promise<Manifest[]> {
  const forgotten = await readForgotten(store)
  const manifests: Manifest[] = []
  for await (const { key, bytes } of store.list(MANIFEST_PREFIX)) {
    const id = checkpointIdOf(key)
    if (id === undefined) continue
    if (only !== undefined && id !== only) continue
    await tell(damage, key, 'manifest', async () => {
      const object = await store.get(manifestKey(id))
      if (isRevokedSize(bytes) && object.equals(REVOKED)) return
      const manifest = decodeManifest(keyring, id, object)
      // What only this one needs is nobody's loss any more.
      if (!forgotten.has(id)) manifests.push(manifest)
    })
  }
  return manifests
}

async function packsOf(
  source: ChunkSource,
  packs: ReadonlyMap<string, number>,
  manifests: readonly Manifest[],
): Promise<Map<string, number>> {
  const needed = new Map<string, number>()
  for (const manifest of manifests) {
    for (const volume of manifest.volumes) {
      await visitTree(treeOf(manifest, volume), {
        readNode: (entry, level) => orUndefined(() => readNode(source, entry, level)),
        async enter(entry) {
          const place = await orUndefined(() => source.follow(entry, packs))
          const hex = place?.pack.toString('hex') ?? ''
          const bytes = packs.get(hex)
          if (bytes !== undefined) needed.set(hex, bytes)
          return true
        },
      })
    }
  }
  return needed
}

async function orUndefined<T>(act: () => Promise<T>): Promise<T | undefined> {
  try {
    return await act()
  } catch (error) {
    if (error instanceof Fault) return undefined // it is told by the walk that names ranges
    throw error
  }
}

const treeOf = (manifest: Manifest, volume: Manifest['volumes'][number]) => ({
  root: volume.root,
  blocks: Math.ceil(volume.sizeBytes / manifest.blockBytes),
})

interface PackChecker {
  /** Checks the packs, all or these; answers the bytes read. */
  run(only: ReadonlyMap<string, number> | undefined): Promise<number>
  /** What is wrong with a record, or undefined. Knows the footers of packs. */
  wrong(place: Entry): Promise<string | undefined>
}

const FOOTERS_KEPT = 512
const READ_BYTES = 4 * 1024 * 1024

function createPackChecker(
  deps: VerifyDeps,
  packs: ReadonlyMap<string, number>,
  damage: Damage[],
  options: VerifyOptions,
): PackChecker {
  const { store, keyring, blockBytes } = deps
  const badPacks = new Map<string, string>()
  const badRecords = new Map<string, Set<number>>()
  const footers = new Map<string, readonly PackRecord[]>()

  async function footerOf(hex: string): Promise<readonly PackRecord[]> {
    const known = footers.get(hex)
    if (known !== undefined) return known
    const records = await readFooter(store, keyring, Buffer.from(hex, 'hex'), packs.get(hex) ?? 0)
    footers.set(hex, records)
    if (footers.size > FOOTERS_KEPT) footers.delete(footers.keys().next().value as string)
    return records
  }

  async function checkPack(hex: string): Promise<number> {
    const name = packKey(Buffer.from(hex, 'hex'))
    try {
      const head = await store.get(name, { offset: 0, length: PACK_HEADER_BYTES })
      const header = decodePackHeader(head, name)
      const dataKey = keyring.byId(header.keyId, name)
      const records = await footerOf(hex)
      if (options.data !== true) return 0
      const naming = {
        block: createHasher(blockNaming(dataKey)),
        node: createHasher(nodeNaming(dataKey)),
      }
      const key = recordKey(dataKey, header.salt)
      return await checkRecords(name, hex, records, (record, bytes) => {
        const chunk = openRecord(
          key,
          record.id,
          record.flags,
          bytes,
          Math.max(blockBytes, NODE_BYTES_MAX),
        )
        if (chunk === undefined) return false
        const hasher = (record.flags & FLAG_NODE) === 0 ? naming.block : naming.node
        return hasher.id(chunk).equals(record.id)
      })
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      // A pack that a collector has rewritten meanwhile is gone and not missed.
      if (
        error.code === OBJECT_MISSING.code &&
        (await store.stat(movesKey(Buffer.from(hex, 'hex')))) !== undefined
      )
        return 0
      badPacks.set(hex, whatOf(error))
      damage.push({ object: name, kind: 'pack', what: whatOf(error) })
      return 0
    }
  }

  async function checkRecords(
    name: string,
    hex: string,
    records: readonly PackRecord[],
    opens: (record: PackRecord, bytes: Buffer) => boolean,
  ): Promise<number> {
    let read = 0
    for (let first = 0; first < records.length; ) {
      const offset = (records[first] as PackRecord).offset
      let end = first
      let length = 0
      while (end < records.length) {
        const record = records[end] as PackRecord
        if (end > first && record.offset + record.length - offset > READ_BYTES) break
        length = record.offset + record.length - offset
        end++
      }
      const bytes = await store.get(name, { offset, length })
      read += length
      for (let slot = first; slot < end; slot++) {
        const record = records[slot] as PackRecord
        const at = record.offset - offset
        let good = false
        try {
          good = opens(record, bytes.subarray(at, at + record.length))
        } catch {
          good = false // it authenticates, but does not decompress
        }
        if (good) continue
        const bad = badRecords.get(hex) ?? new Set()
        badRecords.set(hex, bad.add(slot))
        const chunk = record.id.toString('hex')
        damage.push({
          object: name,
          kind: 'record',
          what: `record ${slot} does not open`,
          slot,
          chunk,
        })
      }
      first = end
    }
    return read
  }

  return {
    async run(only) {
      const list = [...(only ?? packs).keys()]
      let bytes = 0
      for (const [i, hex] of list.entries()) {
        options.signal?.throwIfAborted()
        bytes += await checkPack(hex)
        options.progress?.(i + 1, list.length)
      }
      return bytes
    },
    async wrong(place) {
      const hex = place.pack.toString('hex')
      if (!packs.has(hex)) return `${packKey(place.pack)} is missing`
      const record = badPacks.has(hex) ? undefined : (await footerOf(hex))[place.slot]
      if (badRecords.get(hex)?.has(place.slot) === true) return `record ${place.slot} is damaged`
      // Without a footer the records may still be good; reading them decides.
      if (badPacks.has(hex)) return badPacks.get(hex)
      const fits =
        record?.id.equals(place.id) === true &&
        record.offset === place.offset &&
        record.length === place.length &&
        record.flags === place.flags
      return fits ? undefined : `${packKey(place.pack)} has something else in record ${place.slot}`
    },
  }
}

async function verifyTrees(
  source: ChunkSource,
  manifest: Manifest,
  packs: ReadonlyMap<string, number>,
  checker: PackChecker,
  damage: Damage[],
  affected: Affected[],
): Promise<void> {
  const missing = new Set<string>()
  for (const volume of manifest.volumes) {
    const hurt: Affected = { checkpoint: manifest.id, volume: volume.id, ranges: [], rangesMore: 0 }
    const hurtAt = (firstBlock: number, blocks: number) => {
      const offset = firstBlock * manifest.blockBytes
      const length = Math.min(blocks * manifest.blockBytes, volume.sizeBytes - offset)
      const last = hurt.ranges.at(-1)
      if (last !== undefined && last.offset + last.length === offset) {
        hurt.ranges[hurt.ranges.length - 1] = { offset: last.offset, length: last.length + length }
      } else if (hurt.ranges.length < RANGES_MAX) hurt.ranges.push({ offset, length })
      else hurt.rangesMore++
    }
    const note = (object: string, what: string, kind: Damage['kind']) => {
      if (missing.has(object) || damage.some((one) => one.object === object)) return
      missing.add(object)
      damage.push({ object, kind, what })
    }
    let current = 0
    await visitTree(treeOf(manifest, volume), {
      async readNode(entry, level) {
        try {
          return await readNode(source, entry, level)
        } catch (error) {
          if (!(error instanceof Fault)) throw error
          note(packKey(entry.pack), whatOf(error), 'node')
          hurtAt(current, 1024 ** (level + 1))
          return undefined
        }
      },
      async enter(entry, level, first) {
        current = first
        let what: string | undefined
        let object = packKey(entry.pack)
        try {
          const place = await source.follow(entry, packs)
          object = packKey(place.pack)
          what = await checker.wrong(place)
        } catch (error) {
          if (!(error instanceof Fault)) throw error
          what = whatOf(error)
          object = movesKey(entry.pack)
        }
        if (what === undefined) return true
        note(object, what, level < 0 ? 'pack' : 'node')
        hurtAt(first, 1024 ** (level + 1))
        return false
      },
    })
    if (hurt.ranges.length > 0) affected.push(hurt)
  }
}
