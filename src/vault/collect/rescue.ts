import { randomBytes } from 'node:crypto'
import { putIndex, readFooter } from '../backup/index-objects.ts'
import { createChunkSource } from '../chunks/chunk-source.ts'
import { createPackWriter } from '../chunks/pack-writer.ts'
import { isLacking } from '../faults.ts'
import { FLAG_NODE } from '../format/entry.ts'
import { encodeMoves, type Move, movesKey } from '../format/moves.ts'
import { packKey } from '../format/pack.ts'
import { createSealer } from '../format/record.ts'
import { type Keyring, recordKey, sealWith } from '../keys/keyring.ts'
import type { ObjectStore } from '../object-store.ts'
import { NODE_BYTES_MAX } from '../tree/node-reader.ts'
import { inUse, type Marks } from './mark.ts'

/* What is in use of packs that are to go. No tree is written again: whoever looks for a record at its old place is told the new one by `moves/PACK`. */

interface Rescuing {
  readonly store: ObjectStore
  readonly keyring: Keyring
  /** Session of the collector. */
  readonly id: string
  readonly blockBytes: number
  readonly signal: AbortSignal | undefined
}

/**
 * Copies what is in use of these packs into new ones, and says where it went. All durable when it settles. Answers the bytes that it wrote; undefined: somebody else
 * has said where something went, or deleted it, since the marking.
 */
export async function rescue(
  { store, keyring, id, blockBytes, signal }: Rescuing,
  hexes: readonly string[],
  packs: ReadonlyMap<string, number>,
  marks: Pick<Marks, 'uses'>,
): Promise<number | undefined> {
  const source = createChunkSource(store, keyring)
  const bytesMax = Math.max(NODE_BYTES_MAX, blockBytes)
  const salt = randomBytes(32)
  const sealer = createSealer(recordKey(keyring.current, salt), 0, 1)
  const sessionId = Buffer.from(id.replaceAll('-', ''), 'hex')
  const writer = createPackWriter({
    store,
    keyring,
    keyId: keyring.current.id,
    salt,
    sessionId,
  })
  const moves = new Map<string, Move[]>()
  for (const hex of hexes) {
    signal?.throwIfAborted()
    const pack = Buffer.from(hex, 'hex')
    try {
      moves.set(hex, await copyUsed(hex, pack))
    } catch (error) {
      if (isLacking(error) && (await isGone(store, pack))) return undefined
      throw error
    }
  }
  await writer.flush()
  const stored = writer.takeStored()
  if (stored.length > 0) await putIndex(store, keyring, stored)
  for (const [hex, moved] of moves) {
    const key = movesKey(Buffer.from(hex, 'hex'))
    const body = sealWith(keyring, 'moves', key, encodeMoves(moved))
    if (!(await store.put(key, body, { ifAbsent: true }))) return undefined
  }
  return writer.bytesStored

  async function copyUsed(hex: string, pack: Buffer): Promise<Move[]> {
    const records = await readFooter(store, keyring, pack, packs.get(hex) ?? 0)
    const moved: Move[] = []
    for (const [slot, record] of records.entries()) {
      if (!inUse(marks.uses.get(hex), slot)) continue
      const chunk = await source.read({ ...record, pack, slot }, bytesMax)
      const sealed = sealer.seal(record.id, chunk, record.flags & FLAG_NODE)
      const entry = writer.add(record.id, sealed.bytes, sealed.length, sealed.flags)
      moved.push({ ...entry, from: slot })
      await writer.ready()
    }
    return moved
  }
}

/** Another collector has rewritten this pack, or deleted it because nothing needs it any more. */
const isGone = async (store: ObjectStore, pack: Buffer): Promise<boolean> =>
  (await store.stat(movesKey(pack))) !== undefined ||
  (await store.stat(packKey(pack))) === undefined
