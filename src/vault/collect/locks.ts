import { createChunkSource } from '../chunks/chunk-source.ts'
import { HEADER_KEY } from '../keys/header.ts'
import { KEYRING_PREFIX, type Keyring } from '../keys/keyring.ts'
import { SLOT_PREFIX } from '../keys/slots.ts'
import { type Manifest, manifestKey } from '../format/manifest.ts'
import { movesKey } from '../format/moves.ts'
import { packKey } from '../format/pack.ts'
import type { ObjectStore } from '../object-store.ts'
import { readNode } from '../tree/node-reader.ts'
import { visitTree } from '../tree/walk.ts'

/* A lock is an empty object whose name says until when; the latest one holds. There is no way to take one back. Where the store offers retention of
 * its own, every object that the checkpoint needs gets it as well, and then not even the store's owner can delete them. */

const LOCK_PREFIX = 'locks/'

/** End of the lock in ms since 1970, or 0. */
export async function lockedUntil(store: ObjectStore, checkpoint: string): Promise<number> {
  let untilMs = 0
  for await (const { key } of store.list(`${LOCK_PREFIX}${checkpoint}/`)) {
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
  const { retain } = store
  if (retain === undefined) return
  const source = createChunkSource(store, keyring)
  const needed = new Set<string>([key, HEADER_KEY, manifestKey(manifest.id)])
  for (const prefix of [KEYRING_PREFIX, SLOT_PREFIX]) {
    for await (const object of store.list(prefix)) needed.add(object.key)
  }
  const packs = new Set<string>()
  for await (const object of store.list('packs/')) packs.add(object.key.slice(-32))
  const nodes = new Set<string>()
  for (const volume of manifest.volumes) {
    await visitTree(
      { root: volume.root, blocks: Math.ceil(volume.sizeBytes / manifest.blockBytes) },
      {
        readNode: (entry, level) => readNode(source, entry, level),
        async enter(entry, level) {
          const place = await source.follow(entry, packs)
          if (!place.pack.equals(entry.pack)) needed.add(movesKey(entry.pack))
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

export async function removeLocks(store: ObjectStore, checkpoint: string): Promise<void> {
  for await (const { key } of store.list(`${LOCK_PREFIX}${checkpoint}/`)) await store.delete(key)
}
