import { Fault, isFault } from '#base/fault.ts'
import { type ChunkSource, createChunkSource } from '../chunks/chunk-source.ts'
import { isLacking, VAULT_DAMAGED } from '../faults.ts'
import type { Entry } from '../format/entry.ts'
import {
  checkpointIdOf,
  decodeManifest,
  isRevokedSize,
  MANIFEST_PREFIX,
  manifestKey,
  REVOKED,
} from '../format/manifest.ts'
import { packKey } from '../format/pack.ts'
import type { Keyring } from '../keys/keyring.ts'
import type { ObjectStore } from '../object-store.ts'
import { readForgotten } from './condemned.ts'
import { readNode } from '../tree/node-reader.ts'
import { visitTree } from '../tree/walk.ts'

/* What is in use: goes through the trees of all checkpoints, each shared node once. It only ever adds, so marking again after a while costs only the new
 * checkpoints, and errs on the side of keeping. Anything unreadable ends it: what hangs on a damaged node is not known to be unused.
 * Except where the checkpoint is being deleted: nobody restores it any more. A backup that was based on it before refers by itself to what it needs, but only once it has
 * committed: until then nothing may be swept with these marks. */

export interface PackUse {
  /** One bit per slot. */
  slots: Uint8Array
  bytes: number
}

export interface Marks {
  /** By hex id of packs that are there. */
  readonly uses: ReadonlyMap<string, PackUse>
  /** Hex ids of packs that are gone, and whose `moves` are needed to read some checkpoint. */
  readonly moved: ReadonlySet<string>
  /** Damaged checkpoints that are being deleted, of which not all is marked. While a backup may be based on one, no pack is known to be unused. */
  readonly unread: ReadonlySet<string>
  /** Marks what all checkpoints use that are in the store now. `packs`: those that are there, newly listed. */
  mark(packs: Packs): Promise<void>
}

type Packs = ReadonlySet<string> | ReadonlyMap<string, unknown>

export const inUse = (use: PackUse | undefined, slot: number): boolean =>
  use !== undefined && ((use.slots[slot >> 3] ?? 0) & (1 << (slot & 7))) !== 0

/** `leftOut`: checkpoints of which nothing is marked, damaged or not. */
export function createMarks(
  store: ObjectStore,
  keyring: Keyring,
  leftOut: ReadonlySet<string> = new Set(),
): Marks {
  const uses = new Map<string, PackUse>()
  const moved = new Set<string>()
  const seenManifests = new Set<string>()
  const seenNodes = new Set<string>()
  const unread = new Set<string>()
  const source: ChunkSource = createChunkSource(store, keyring)

  function use(place: Entry): void {
    const hex = place.pack.toString('hex')
    let found = uses.get(hex)
    if (found === undefined) uses.set(hex, (found = { slots: new Uint8Array(32), bytes: 0 }))
    const byte = place.slot >> 3
    if (byte >= found.slots.length) {
      const larger = new Uint8Array(Math.max(byte + 1, found.slots.length * 2))
      larger.set(found.slots)
      found.slots = larger
    }
    const bit = 1 << (place.slot & 7)
    if (((found.slots[byte] ?? 0) & bit) !== 0) return
    found.slots[byte] = (found.slots[byte] ?? 0) | bit
    found.bytes += place.length
  }

  async function presentPlace(entry: Entry, packs: Packs, checkpoint: string): Promise<Entry> {
    for (let before: Entry | undefined; ; ) {
      const place = await source.follow(entry, packs)
      if (packs.has(place.pack.toString('hex'))) return place
      // A checkpoint that was committed since `packs` were listed has newer ones.
      if ((await store.stat(packKey(place.pack))) !== undefined) return place
      // Another collector may have rewritten it between the two looks: then it is followed there.
      if (before?.pack.equals(place.pack) === true) throw missingPack(place, checkpoint)
      before = place
    }
  }

  async function markOne(
    id: string,
    object: Buffer,
    packs: Packs,
    passed: Set<string>,
  ): Promise<void> {
    const manifest = decodeManifest(keyring, id, object)
    for (const volume of manifest.volumes) {
      await visitTree(
        { root: volume.root, blocks: Math.ceil(volume.sizeBytes / manifest.blockBytes) },
        {
          readNode: (entry, level) => readNode(source, entry, level),
          async enter(entry, level) {
            // The pack belongs to it: two backups at once may store the same node, each with its own places.
            const name =
              level < 0 ? '' : `${entry.id.toString('latin1')}${entry.pack.toString('latin1')}`
            if (level >= 0 && (seenNodes.has(name) || passed.has(name))) return false
            const known = source.locate(entry)
            const there = packs.has(known.pack.toString('hex'))
            const place = there ? known : await presentPlace(entry, packs, id)
            for (let at = entry; !at.pack.equals(place.pack); at = source.step(at)) {
              moved.add(at.pack.toString('hex'))
            }
            use(place)
            if (level >= 0) passed.add(name)
            return level >= 0
          },
        },
      )
    }
  }

  return {
    uses,
    moved,
    unread,
    async mark(packs) {
      const forgotten = await readForgotten(store)
      for await (const { key, bytes } of store.list(MANIFEST_PREFIX)) {
        const id = checkpointIdOf(key)
        if (id === undefined || seenManifests.has(id) || leftOut.has(id)) continue
        const passed = new Set<string>()
        try {
          const object = await store.get(manifestKey(id))
          const revoked = isRevokedSize(bytes) && object.equals(REVOKED)
          if (!revoked) await markOne(id, object, packs, passed)
        } catch (error) {
          // Deleted meanwhile by another collector, and what it used with it.
          if (isLacking(error) && (await store.stat(manifestKey(id))) === undefined) continue
          if (!forgotten.has(id) || !isFault(error, VAULT_DAMAGED)) throw error
          unread.add(id)
          continue
        }
        // Only when all below them has been marked: what is damaged may lie between.
        for (const name of passed) seenNodes.add(name)
        seenManifests.add(id)
      }
    },
  }
}

const missingPack = (place: Entry, checkpoint: string): Fault =>
  new Fault(
    VAULT_DAMAGED,
    `marking what checkpoint ${checkpoint} uses: ${packKey(place.pack)} is missing. Nothing was deleted`,
    { object: packKey(place.pack), checkpoint },
  )
