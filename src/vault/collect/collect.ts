import { randomBytes } from 'node:crypto'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { isUuid, newId } from '#base/ids.ts'
import {
  INDEX_PREFIX,
  listPacks,
  putIndex,
  readFooter,
  readIndex,
} from '../backup/index-objects.ts'
import { createChunkSource } from '../chunks/chunk-source.ts'
import { createPackWriter } from '../chunks/pack-writer.ts'
import { COLLECTOR_BUSY } from '../faults.ts'
import { FLAG_NODE } from '../format/entry.ts'
import { manifestKey, REVOKED } from '../format/manifest.ts'
import { encodeMoves, type Move, movesKey } from '../format/moves.ts'
import { packKey } from '../format/pack.ts'
import { createSealer } from '../format/record.ts'
import { type Keyring, recordKey, sealWith } from '../keys/keyring.ts'
import { COLLECT_GRACE_MS, COLLECT_USED_MIN, LEASE_EXPIRY_MS } from '../limits.ts'
import { ifPresent, type ListedObject, type ObjectStore } from '../object-store.ts'
import { NODE_BYTES_MAX } from '../tree/node-reader.ts'
import {
  type Condemned,
  forgottenKey,
  putCondemned,
  putWaiting,
  readCondemned,
  readForgotten,
  readWaiting,
  removeCondemned,
} from './condemned.ts'
import { LEASE_PREFIX, leaseKey, leaseSession, takeLease } from './leases.ts'
import { deleteUnlessRetained, lockedUntil, removeLocks, retainLocked } from './locks.ts'
import { createMarks, inUse, type Marks } from './mark.ts'
import { abandoned, sessionPrefixes, unfinishedUploads } from './uploads.ts'

/* Deletes what no checkpoint needs, while backups run. Nothing below depends on clocks or on how long anything takes.
 *
 *   condemn   write down which packs are to go (`condemned/X`). A backup puts its lease and then reads these lists, and builds on
 *             nothing in them; so whoever may still build on such a pack has had a lease before the list was there.
 *   wait      read the leases, after that. Remember them (`waiting/X`). The list is ripe when all of them have ended: each has
 *             committed by then, or never will. One that is not renewed for long is revoked: its manifest's place is filled.
 *   mark      read all checkpoints. Of a ripe list's packs, everything that will ever be referred to is referred to now.
 *   sweep     copy what is in use of them into new packs, write down where it went (`moves/P`), delete the packs, then the list.
 *
 * A condemned pack is never pardoned, so a collector that was suspended at any point and goes on later deletes only what is
 * rightly deleted. A killed one leaves lists that the next one carries on with. A pack that has been moved counts as gone from then on, there or
 * not: what is in use of it is in use at its new place, which would pass for unused otherwise, and go as well. A backup's parent stays as long as the backup: deleted checkpoints
 * go through the same waiting, and count as in use until they are gone. One of which not all can be read cannot count so: nothing is swept until its
 * backups have ended. Locked ones never go. */

export interface CollectOptions {
  /** Packs younger than this are left alone. Default 1 h. */
  readonly graceMs?: number
  /** A lease older than this ends its session. Default 30 min. */
  readonly leaseExpiryMs?: number
  /** Packs of which a smaller share is in use are rewritten. Default 0.5. */
  readonly usedMin?: number
  readonly progress?: (text: string) => void
  /** Ends the collection between two steps; the next one carries on. */
  readonly signal?: AbortSignal
}

export interface Collected {
  checkpointsDeleted: number
  packsDeleted: number
  packsRewritten: number
  bytesFreed: number
  bytesWritten: number
  /** Sessions that were taken for dead. */
  readonly revoked: string[]
  /** Running sessions that something waits for. */
  waitingFor: string[]
  /** Bytes of packs that will go when those have ended. */
  bytesWaiting: number
  /** Objects that the store itself keeps for now; a later collection asks again. */
  readonly retained: string[]
}

interface CollectDeps {
  readonly store: ObjectStore
  readonly keyring: Keyring
  readonly clock: Clock
  readonly blockBytes: number
}

interface Collecting extends CollectDeps {
  readonly id: string
  readonly storeMs: number
  readonly graceMs: number
  readonly leaseExpiryMs: number
  readonly usedMin: number
  readonly result: Collected
  readonly signal: AbortSignal | undefined
  say(text: string): void
}

const COLLECTOR_KEY = 'collector'
const ROUNDS_MAX = 3

export async function collect(deps: CollectDeps, options: CollectOptions): Promise<Collected> {
  const { store, clock } = deps
  const id = newId()
  const leaseExpiryMs = options.leaseExpiryMs ?? LEASE_EXPIRY_MS
  const lease = await takeLease(
    store,
    clock,
    id,
    { kind: 'collect', pid: process.pid },
    () => undefined,
  )
  try {
    await becomeCollector(store, id, lease.storeMs, leaseExpiryMs)
    const collecting: Collecting = {
      ...deps,
      id,
      storeMs: lease.storeMs,
      leaseExpiryMs,
      graceMs: options.graceMs ?? COLLECT_GRACE_MS,
      usedMin: options.usedMin ?? COLLECT_USED_MIN,
      say: options.progress ?? (() => undefined),
      signal: options.signal,
      result: {
        checkpointsDeleted: 0,
        packsDeleted: 0,
        packsRewritten: 0,
        bytesFreed: 0,
        bytesWritten: 0,
        revoked: [],
        waitingFor: [],
        bytesWaiting: 0,
        retained: [],
      },
    }
    // A deleted checkpoint frees its packs in the round after it.
    for (let round = 0; round < ROUNDS_MAX; round++) {
      const before = collecting.result.checkpointsDeleted
      await collectRound(collecting)
      if (collecting.result.checkpointsDeleted === before) break
    }
    await store.delete(COLLECTOR_KEY)
    return collecting.result
  } finally {
    await lease.release()
  }
}

/** Two at once would do no harm, only the same work twice. */
async function becomeCollector(
  store: ObjectStore,
  id: string,
  storeMs: number,
  expiryMs: number,
): Promise<void> {
  const body = Buffer.from(`${JSON.stringify({ session: id })}\n`)
  if (await store.put(COLLECTOR_KEY, body, { ifAbsent: true })) return
  const other = await otherCollector(store)
  const theirs = other === undefined ? undefined : await store.stat(leaseKey(other))
  if (theirs !== undefined && storeMs - theirs.modifiedMs <= expiryMs) {
    throw new Fault(COLLECTOR_BUSY, 'collecting', { session: other })
  }
  await store.put(COLLECTOR_KEY, body)
}

/** undefined: it has just ended, or what it put cannot be read any more. */
async function otherCollector(store: ObjectStore): Promise<string | undefined> {
  const body = await ifPresent(store.get(COLLECTOR_KEY))
  if (body === undefined) return undefined
  try {
    const other: unknown = JSON.parse(body.toString())
    const session = (other as { readonly session?: unknown } | null)?.session
    return typeof session === 'string' && isUuid(session) ? session : undefined
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}

async function collectRound(collecting: Collecting): Promise<void> {
  const { store, keyring, result } = collecting
  const uploads = await unfinishedUploads(store, (text) => collecting.say(text))
  const live = await liveSessions(collecting)
  for (const upload of abandoned(uploads, live, collecting)) {
    collecting.say(`${upload.key} was never put as a whole: its parts are dropped`)
    await upload.abort()
  }
  const lists = await readCondemned(store, keyring)
  const moves = await listMoves(store)
  const packs = await listPacksWithAge(store)
  const moved = new Set(moves)
  let marks = createMarks(store, keyring)
  collecting.signal?.throwIfAborted()
  collecting.say('marking what the checkpoints use')
  await marks.mark(without(packs, moved))

  const condemned = new Set(lists.flatMap((list) => list.packs))
  const going = new Set(lists.flatMap((list) => list.manifests))
  const forgotten = [...(await readForgotten(store))].filter((id) => !going.has(id))
  const wasted = wastedPacks(collecting, packs, marks, condemned, live)
  if (wasted.length > 0 || forgotten.length > 0) {
    lists.push(await putCondemned(store, keyring, { packs: wasted, manifests: forgotten }))
  }

  const ripe = await ripeLists(collecting, lists)
  const bytesOf = (these: readonly Condemned[]) =>
    these.flatMap((list) => list.packs).reduce((sum, hex) => sum + (packs.get(hex)?.bytes ?? 0), 0)
  result.bytesWaiting = bytesOf(lists.filter((list) => !ripe.includes(list)))
  if (ripe.length > 0) {
    const before = result.checkpointsDeleted
    for (const list of ripe) await deleteManifests(collecting, list)
    // What the store keeps of these, and cannot be read: nobody does any more, and no backup is based on it. A locked one is not being deleted any more.
    const ended = new Set(ripe.flatMap((list) => list.manifests))
    const deleting = await readForgotten(store)
    const leftOut = new Set([...marks.unread].filter((id) => ended.has(id) && deleting.has(id)))
    // From the beginning, so that nothing is rescued for the sake of what is gone.
    if (result.checkpointsDeleted > before || leftOut.size > 0) {
      marks = createMarks(store, keyring, leftOut)
    }
    await marks.mark(without(await listPacks(store), moved))
  }
  if (marks.unread.size > 0) {
    // A backup that is based on one of these refers through it to what nobody has marked.
    const ids = [...marks.unread].join(', ')
    collecting.say(
      `no pack goes until backups that may be based on what is damaged have ended: ${ids}`,
    )
    result.bytesWaiting += bytesOf(ripe)
  } else {
    for (const list of ripe) {
      if (!(await sweep(collecting, list, marks))) break
    }
  }
  await tidyIndexes(collecting)
  // Only of packs that were gone before the marking began: those that went meanwhile were marked as packs.
  for (const hex of marks.unread.size > 0 ? [] : moves) {
    if (!packs.has(hex) && !marks.moved.has(hex))
      await deleted(collecting, movesKey(Buffer.from(hex, 'hex')))
  }
}

/** False: the store keeps it; whatever says that it is to go stays, so that a later collection asks again. */
async function deleted({ store, result }: Collecting, key: string): Promise<boolean> {
  const retained = await deleteUnlessRetained(store, key)
  if (retained !== undefined && !result.retained.includes(retained)) result.retained.push(retained)
  return retained === undefined
}

/** Sessions other than this one; those that are not renewed any more are revoked first. */
async function liveSessions(collecting: Collecting): Promise<Set<string>> {
  const { store, id, storeMs, leaseExpiryMs, result } = collecting
  const live = new Set<string>()
  for await (const { key, modifiedMs } of store.list(LEASE_PREFIX)) {
    const session = leaseSession(key)
    if (session === id) continue
    if (storeMs - modifiedMs <= leaseExpiryMs) {
      live.add(session)
      continue
    }
    // Whoever comes first at this key decides: from here on the session cannot commit, or it has.
    await store.put(manifestKey(session), REVOKED, { ifAbsent: true })
    await store.delete(key)
    result.revoked.push(session)
  }
  return live
}

async function listPacksWithAge(store: ObjectStore): Promise<Map<string, ListedObject>> {
  const packs = new Map<string, ListedObject>()
  for await (const object of store.list('packs/')) packs.set(object.key.slice(-32), object)
  return packs
}

function wastedPacks(
  { storeMs, graceMs, usedMin }: Collecting,
  packs: ReadonlyMap<string, ListedObject>,
  marks: Marks,
  condemned: ReadonlySet<string>,
  live: ReadonlySet<string>,
): string[] {
  const prefixes = sessionPrefixes(live)
  return [...packs]
    .filter(([hex, { bytes, modifiedMs }]) => {
      if (condemned.has(hex) || Math.max(0, storeMs - modifiedMs) < graceMs) return false
      // Of a running backup: nothing refers to it yet. This saves work; safe it would be either way.
      if (prefixes.has(hex.slice(0, 16))) return false
      return (marks.uses.get(hex)?.bytes ?? 0) < usedMin * bytes
    })
    .map(([hex]) => hex)
}

/** Lists whose sessions have all ended. */
async function ripeLists(
  { store, keyring, id, result }: Collecting,
  lists: readonly Condemned[],
): Promise<Condemned[]> {
  const ripe: Condemned[] = []
  const waitingFor = new Set<string>()
  for (const list of lists) {
    // Read after the list was put, each time: what is remembered can only be too many.
    const running = new Set<string>()
    for await (const { key } of store.list(LEASE_PREFIX)) running.add(leaseSession(key))
    running.delete(id)
    const remembered = await readWaiting(store, keyring, list)
    if (remembered === undefined) await putWaiting(store, keyring, list, [...running])
    const left = (remembered ?? [...running]).filter((session) => running.has(session))
    if (left.length === 0) ripe.push(list)
    for (const session of left) waitingFor.add(session)
  }
  result.waitingFor = [...waitingFor]
  return ripe
}

async function deleteManifests(collecting: Collecting, list: Condemned): Promise<void> {
  const { store, clock, storeMs, result } = collecting
  // A clock of this machine that is ahead ends no lock, where the store has one of its own.
  const nowMs = Math.min(clock.wallMs(), storeMs)
  for (const id of list.manifests) {
    if ((await lockedUntil(store, id)) > nowMs) {
      await store.delete(forgottenKey(id))
      continue
    }
    if ((await store.stat(manifestKey(id))) !== undefined) {
      if (!(await deleted(collecting, manifestKey(id)))) continue
      result.checkpointsDeleted++
    }
    for (const key of await removeLocks(store, id)) result.retained.push(key)
    await store.delete(forgottenKey(id))
  }
}

const without = <T>(packs: ReadonlyMap<string, T>, moved: ReadonlySet<string>): Map<string, T> =>
  new Map([...packs].filter(([hex]) => !moved.has(hex)))

/** False: another collector is at it too, and the marks do not know of the places that it chose. Nothing is swept with them any more. */
async function sweep(collecting: Collecting, list: Condemned, marks: Marks): Promise<boolean> {
  const { store, result } = collecting
  const packs = await listPacks(store)
  const there = list.packs.filter((hex) => packs.has(hex))
  const partly = there.filter((hex) => (marks.uses.get(hex)?.bytes ?? 0) > 0)
  if (partly.length > 0) {
    if (!(await rescue(collecting, partly, packs, marks))) {
      collecting.say('another collector is at work: the rest is left to it')
      return false
    }
    await retainLocked(collecting, collecting.storeMs)
  }
  let all = true
  for (const hex of there) {
    collecting.signal?.throwIfAborted()
    if (!(await deleted(collecting, packKey(Buffer.from(hex, 'hex'))))) {
      all = false
      continue
    }
    result.bytesFreed += packs.get(hex) ?? 0
    if (partly.includes(hex)) result.packsRewritten++
    else result.packsDeleted++
  }
  if (there.length > 0) collecting.say(`${there.length} packs deleted`)
  if (all && !(await anyLeft(store, list))) await removeCondemned(store, list)
  return true
}

/** Manifests that the store keeps: their list stays as well. */
async function anyLeft(store: ObjectStore, { manifests }: Condemned): Promise<boolean> {
  for (const id of manifests) {
    if ((await store.stat(forgottenKey(id))) !== undefined) return true
  }
  return false
}

/**
 * Copies what is in use of these packs into new ones, and says where it went. All durable when it settles. False: somebody else has said
 * so for one of them, since the marking.
 */
async function rescue(
  { store, keyring, id, result, blockBytes, signal }: Collecting,
  hexes: readonly string[],
  packs: ReadonlyMap<string, number>,
  marks: Marks,
): Promise<boolean> {
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
    moves.set(hex, moved)
  }
  await writer.flush()
  const stored = writer.takeStored()
  if (stored.length > 0) await putIndex(store, keyring, stored)
  for (const [hex, moved] of moves) {
    const key = movesKey(Buffer.from(hex, 'hex'))
    const body = sealWith(keyring, 'moves', key, encodeMoves(moved))
    if (!(await store.put(key, body, { ifAbsent: true }))) return false
  }
  result.bytesWritten += writer.bytesStored
  return true
}

const INDEX_OBJECTS_MAX = 32
const RECORDS_PER_INDEX = 64 * 1024

/** Index objects without packs go, and many small ones become few. */
async function tidyIndexes(collecting: Collecting): Promise<void> {
  const { store, keyring } = collecting
  const packs = await listPacks(store)
  const keys: string[] = []
  for await (const { key } of store.list(INDEX_PREFIX)) keys.push(key)
  const covered = new Set<string>()
  const small: string[] = []
  for (const key of keys) {
    let indexed
    try {
      indexed = await readIndex(store, keyring, key)
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      // It only repeats footers, so there is nothing to lose.
      collecting.say(`an index object is damaged and was removed: ${error.message}`)
      await store.delete(key)
      continue
    }
    const left = indexed.filter(({ id }) => {
      const hex = id.toString('hex')
      return packs.has(hex) && !covered.has(hex)
    })
    for (const { id } of left) covered.add(id.toString('hex'))
    const records = left.reduce((sum, pack) => sum + pack.records.length, 0)
    if (records === 0) await store.delete(key)
    else if (left.length < indexed.length / 2 || records < RECORDS_PER_INDEX / 2) small.push(key)
  }
  if (small.length <= INDEX_OBJECTS_MAX) return
  collecting.say(`joining ${small.length} index objects`)
  let group: string[] = []
  let joined: Awaited<ReturnType<typeof readIndex>> = []
  const flush = async () => {
    if (joined.length > 0) await putIndex(store, keyring, joined)
    for (const key of group) await store.delete(key)
    group = []
    joined = []
  }
  for (const key of small) {
    const indexed = await readIndex(store, keyring, key)
    joined.push(...indexed.filter(({ id }) => packs.has(id.toString('hex'))))
    group.push(key)
    if (joined.reduce((sum, pack) => sum + pack.records.length, 0) >= RECORDS_PER_INDEX)
      await flush()
  }
  await flush()
}

async function listMoves(store: ObjectStore): Promise<string[]> {
  const hexes: string[] = []
  for await (const { key } of store.list('moves/')) hexes.push(key.slice('moves/'.length))
  return hexes
}
