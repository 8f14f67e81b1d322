import { createChunkSource } from '../chunks/chunk-source.ts'
import { HEADER_KEY } from '../keys/header.ts'
import { KEYRING_PREFIX, type Keyring } from '../keys/keyring.ts'
import { SLOT_PREFIX } from '../keys/slots.ts'
import { decodeManifest, type Manifest, manifestKey } from '../format/manifest.ts'
import { movesKey } from '../format/moves.ts'
import { packKey } from '../format/pack.ts'
import { ifPresent, type ObjectStore } from '../object-store.ts'
import { readNode } from '../tree/node-reader.ts'
import { visitTree } from '../tree/walk.ts'

/* A lock is an empty object whose name says until when; the latest one holds. There is no way to take one back. Where the store offers retention of
 * its own, every object that the checkpoint needs gets it as well, and then not even the store's owner can delete them. */

const LOCK_PREFIX = 'locks/'

export const listLocks = (
  store: ObjectStore,
  checkpoint: string,
): ReturnType<ObjectStore['list']> => store.list(`${LOCK_PREFIX}${checkpoint}/`)

/** End of the lock in ms since 1970, or 0. */
export async function lockedUntil(store: ObjectStore, checkpoint: string): Promise<number> {
  let untilMs = 0
  for await (const { key } of listLocks(store, checkpoint)) {
    const found = Number(key.slice(key.lastIndexOf('/') + 1))
    if (Number.isSafeInteger(found)) untilMs = Math.max(untilMs, found)
  }
  return untilMs
}

export async function lockCheckpoint(
  { store, keyring }: { readonly store: ObjectStore; readonly keyring: Keyring },
  manifest: Manifest,
  untilMs: number,
): Promise<void> {
  const key = `${LOCK_PREFIX}${manifest.id}/${untilMs}`
  await store.put(key, new Uint8Array(0), { ifAbsent: true })
  await retainNeeded({ store, keyring }, manifest, untilMs)
}

/** Tells a store that can retain by itself what a checkpoint needs. */
async function retainNeeded(
  { store, keyring }: { readonly store: ObjectStore; readonly keyring: Keyring },
  manifest: Manifest,
  untilMs: number,
): Promise<void> {
  const { retain } = store
  if (retain === undefined) return
  const key = `${LOCK_PREFIX}${manifest.id}/${untilMs}`
  const source = createChunkSource(store, keyring)
  const needed = new Set<string>([key, HEADER_KEY, manifestKey(manifest.id)])
  for (const prefix of [KEYRING_PREFIX, SLOT_PREFIX]) {
    for await (const object of store.list(prefix)) needed.add(object.key)
  }
  const packs = new Set<string>()
  for await (const object of store.list('packs/')) packs.add(object.key.slice(-32))
  // What was moved is in use at its new place, although the old one may still be there.
  for await (const object of store.list('moves/')) packs.delete(object.key.slice(-32))
  const nodes = new Set<string>()
  for (const volume of manifest.volumes) {
    await visitTree(
      { root: volume.root, blocks: Math.ceil(volume.sizeBytes / manifest.blockBytes) },
      {
        readNode: (entry, level) => readNode(source, entry, level),
        async enter(entry, level) {
          const place = await source.follow(entry, packs)
          for (let at = entry; !at.pack.equals(place.pack); at = source.step(at)) {
            needed.add(movesKey(at.pack))
          }
          needed.add(packKey(place.pack))
          if (level < 0) return false
          const name = entry.id.toString('latin1')
          if (nodes.has(name)) return false
          nodes.add(name)
          return true
        },
      },
    )
  }
  for (const object of needed) await retain(object, untilMs)
}

/** Once more for all checkpoints that are locked: a collector has moved some of what they need. */
export async function retainLocked(
  deps: { readonly store: ObjectStore; readonly keyring: Keyring },
  nowMs: number,
): Promise<void> {
  const { store, keyring } = deps
  if (store.retain === undefined) return
  const locked = new Set<string>()
  for await (const { key } of store.list(LOCK_PREFIX)) {
    const [, id = '', until = ''] = key.split('/')
    if (Number(until) > nowMs) locked.add(id)
  }
  for (const id of locked) {
    const object = await ifPresent(store.get(manifestKey(id)))
    // Locked while it was being deleted, or by hand: there is nothing to keep.
    if (object === undefined) continue
    await retainNeeded(deps, decodeManifest(keyring, id, object), await lockedUntil(store, id))
  }
}
