import type { Clock } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { newId } from '#base/ids.ts'
import { listPacks } from '../backup/index-objects.ts'
import { OBJECT_HELD, OBJECT_RETAINED } from '../faults.ts'
import { manifestKey, REVOKED } from '../format/manifest.ts'
import { movesKey } from '../format/moves.ts'
import { packKey } from '../format/pack.ts'
import type { Keyring } from '../keys/keyring.ts'
import { COLLECT_GRACE_MS, COLLECT_USED_MIN, LEASE_EXPIRY_MS } from '../limits.ts'
import type { ListedObject, ObjectStore } from '../object-store.ts'
import { becomeCollector, COLLECTOR_KEY } from './collector.ts'
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
import { LEASE_PREFIX, leaseSession, takeLease } from './leases.ts'
import { listLocks, lockedUntil, retainLocked } from './locks.ts'
import { createMarks, type Marks } from './mark.ts'
import { rescue } from './rescue.ts'
import { tidyIndexes } from './tidy-indexes.ts'
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
  /** Objects that the store itself keeps for now, by retention; a later collection asks again. */
  readonly retained: string[]
  /** Objects that it keeps because somebody has set a legal hold. */
  readonly held: string[]
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
  readonly result: Omit<Collected, 'retained' | 'held'>
  readonly retained: Set<string>
  readonly held: Set<string>
  readonly signal: AbortSignal | undefined
  say(text: string): void
}

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
      },
      retained: new Set(),
      held: new Set(),
    }
    // A deleted checkpoint frees its packs in the round after it.
    for (let round = 0; round < ROUNDS_MAX; round++) {
      const before = collecting.result.checkpointsDeleted
      await collectRound(collecting)
      if (collecting.result.checkpointsDeleted === before) break
    }
    await deleted(collecting, COLLECTOR_KEY)
    const { result, retained, held } = collecting
    return { ...result, retained: [...retained], held: [...held] }
  } finally {
    await lease.release()
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
  await tidyIndexes(
    collecting,
    (key) => deleted(collecting, key),
    (text) => collecting.say(text),
  )
  // Only of packs that were gone before the marking began: those that went meanwhile were marked as packs.
  for (const hex of marks.unread.size > 0 ? [] : moves) {
    if (!packs.has(hex) && !marks.moved.has(hex))
      await deleted(collecting, movesKey(Buffer.from(hex, 'hex')))
  }
}

/** False: the store keeps it; whatever says that it is to go stays, so that a later collection asks again. */
async function deleted({ store, retained, held }: Collecting, key: string): Promise<boolean> {
  try {
    await store.delete(key)
    return true
  } catch (error) {
    if (isFault(error, OBJECT_RETAINED)) retained.add(key)
    else if (isFault(error, OBJECT_HELD)) held.add(key)
    else throw error
    return false
  }
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
    await deleted(collecting, key)
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
      await deleted(collecting, forgottenKey(id))
      continue
    }
    if ((await store.stat(manifestKey(id))) !== undefined) {
      if (!(await deleted(collecting, manifestKey(id)))) continue
      result.checkpointsDeleted++
    }
    for await (const { key } of listLocks(store, id)) await deleted(collecting, key)
    await deleted(collecting, forgottenKey(id))
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
    const bytes = await rescue(collecting, partly, packs, marks)
    if (bytes === undefined) {
      collecting.say('another collector is at work: the rest is left to it')
      return false
    }
    result.bytesWritten += bytes
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
  if (all && !(await anyLeft(store, list))) {
    await removeCondemned(list, (key) => deleted(collecting, key))
  }
  return true
}

/** Manifests that the store keeps: their list stays as well. */
async function anyLeft(store: ObjectStore, { manifests }: Condemned): Promise<boolean> {
  for (const id of manifests) {
    if ((await store.stat(forgottenKey(id))) !== undefined) return true
  }
  return false
}

async function listMoves(store: ObjectStore): Promise<string[]> {
  const hexes: string[] = []
  for await (const { key } of store.list('moves/')) hexes.push(key.slice('moves/'.length))
  return hexes
}
