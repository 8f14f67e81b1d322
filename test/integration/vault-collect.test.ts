/** Collections that are cut off between any two requests to the store, once and again. */
import assert from 'node:assert/strict'
import { randomBytes, randomUUID } from 'node:crypto'
import { cp } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import type { BackupSession } from '#vault/backup/session.ts'
import { openDirStore } from '#vault/dir/dir-store.ts'
import { BACKUP_REVOKED } from '#vault/faults.ts'
import { manifestKey, REVOKED } from '#vault/format/manifest.ts'
import type { ObjectStore } from '#vault/object-store.ts'
import { openVault } from '#vault/vault.ts'
import {
  assertRestores,
  assertWhole,
  backUp,
  type BackedUp,
  BLOCK,
  changeBlocks,
  deps,
  dirVault,
  keysOf,
  makeImage,
  randomFrom,
  reopen,
  SECRET,
  withDirectory,
} from './vault-kit.ts'

/** Everything that can be collected is, also a pack of which only little is unused. */
const EAGER = { graceMs: 0, leaseExpiryMs: -1, usedMin: 0.95 }

/** A vault with a deleted checkpoint, whose packs are partly used by those that stay. */
async function partlyUsed(directory: string): Promise<BackedUp[]> {
  const vault = await dirVault(directory)
  const random = randomFrom(11)
  const image = makeImage(12 * BLOCK, random)
  const done: BackedUp[] = []
  for (let i = 0; i < 3; i++) {
    const blocks = i === 0 ? undefined : changeBlocks(image, 0.5, random)
    done.push(
      await backUp(vault, image, {
        packBytes: 100_000,
        ...(blocks === undefined ? {} : { blocks, parent: done.at(-1)?.id ?? '' }),
      }),
    )
  }
  const ids = done.map(({ id }) => id)
  const held = async () => await Promise.all([...ids, randomUUID()].map((id) => vault.holds(id)))
  assert.deepEqual(await held(), [...ids.map(() => true), false])
  await vault.forget(done[0]?.id ?? '')
  assert.deepEqual(await held(), [false, ...ids.slice(1).map(() => true), false])
  return done.slice(1)
}

const bound = (store: ObjectStore): ObjectStore => ({
  name: store.name,
  put: (key, body, options) => store.put(key, body, options),
  delete: (key) => store.delete(key),
  get: (key, range) => store.get(key, range),
  stat: (key) => store.stat(key),
  list: (prefix) => store.list(prefix),
  close: () => store.close(),
})

/** Carries out so many changes of the store, and refuses everything after that, as to one who was killed. */
function cutOff(store: ObjectStore, changes: number): { store: ObjectStore; count(): number } {
  let count = 0
  const gone = () => new Error('killed')
  const change = async <T>(act: () => Promise<T>): Promise<T> => {
    if (count >= changes) throw gone()
    count++
    return await act()
  }
  return {
    count: () => count,
    store: {
      ...bound(store),
      put: (key, body, options) => change(() => store.put(key, body, options)),
      delete: (key) => change(() => store.delete(key)),
    },
  }
}

/** Its read of this number is answered as the store was before `act`. */
function overtakenAt(
  plain: ObjectStore,
  pause: number,
  act: () => Promise<void>,
): { store: ObjectStore; reads(): number } {
  let reads = 0
  const overtaken = async <T>(answer: Promise<T>): Promise<T> => {
    await Promise.allSettled([answer])
    if (++reads === pause) await act()
    return await answer
  }
  return {
    reads: () => reads,
    store: {
      ...bound(plain),
      get: (...asked) => overtaken(plain.get(...asked)),
      stat: (key) => overtaken(plain.stat(key)),
    },
  }
}

async function collectUntil(directory: string, changes: number): Promise<number> {
  const limited = cutOff(await openDirStore(directory), changes)
  const vault = await openVault(deps(limited.store), SECRET)
  try {
    await vault.collect(EAGER)
  } catch (error) {
    assert.match(String(error), /killed/)
  }
  return limited.count()
}

async function assertNothingLost(directory: string, kept: readonly BackedUp[]): Promise<void> {
  const vault = await reopen(directory)
  await assertWhole(vault)
  for (const one of kept) await assertRestores(vault, one)
}

test('a collection that is killed after any of its changes is carried on with by the next, and nothing in use goes', () =>
  withDirectory(async (directory) => {
    const before = join(directory, 'before')
    const kept = await partlyUsed(before)
    const whole = join(directory, 'whole')
    await cp(before, whole, { recursive: true })
    const changes = await collectUntil(whole, Number.POSITIVE_INFINITY)
    assert.ok(changes > 10, `a collection of ${changes} changes`)
    for (let first = 0; first < changes; first++) {
      const at = join(directory, `killed-${first}`)
      await cp(before, at, { recursive: true })
      await collectUntil(at, first)
      await assertNothingLost(at, kept)
      // The next one is killed as well, somewhere else.
      await collectUntil(at, (first * 7) % changes)
      await collectUntil(at, Number.POSITIVE_INFINITY)
      await assertNothingLost(at, kept)
      const vault = await reopen(at)
      assert.deepEqual(await keysOf(vault.store, 'condemned/'), [], `killed after ${first}`)
      assert.deepEqual(await keysOf(vault.store, 'leases/'), [], `killed after ${first}`)
    }
  }))

test('a collector that was suspended at any of its changes, while another took its place, goes on without harm', () =>
  withDirectory(async (directory) => {
    const before = join(directory, 'before')
    const kept = await partlyUsed(before)
    const whole = join(directory, 'whole')
    await cp(before, whole, { recursive: true })
    const changes = await collectUntil(whole, Number.POSITIVE_INFINITY)
    for (let pause = 1; pause < changes; pause++) {
      const at = join(directory, `suspended-${pause}`)
      await cp(before, at, { recursive: true })
      const plain = await openDirStore(at)
      let count = 0
      // Its change is carried out, and then somebody else collects before it hears of that.
      const suspending: ObjectStore = {
        ...bound(plain),
        async put(key, body, options) {
          const put = await plain.put(key, body, options)
          if (++count === pause) await collectUntil(at, Number.POSITIVE_INFINITY)
          return put
        },
        async delete(key) {
          await plain.delete(key)
          if (++count === pause) await collectUntil(at, Number.POSITIVE_INFINITY)
        },
      }
      await (await openVault(deps(suspending), SECRET)).collect(EAGER)
      await assertNothingLost(at, kept)
      await collectUntil(at, Number.POSITIVE_INFINITY)
      await assertNothingLost(at, kept)
    }
  }))

test('a collector that was suspended at any of its reads, while a checkpoint was deleted and collected, finds nothing damaged', () =>
  withDirectory(async (directory) => {
    const before = join(directory, 'before')
    const [goes, stays] = await partlyUsed(before)
    assert.ok(goes !== undefined && stays !== undefined)
    let reads = 0
    for (let pause = 1; pause === 1 || pause <= reads; pause += 2) {
      const at = join(directory, `read-${pause}`)
      await cp(before, at, { recursive: true })
      const plain = await openDirStore(at)
      const overtaken = overtakenAt(plain, pause, async () => {
        await (await reopen(at)).forget(goes.id)
        await collectUntil(at, Number.POSITIVE_INFINITY)
      })
      await (await openVault(deps(overtaken.store), SECRET)).collect(EAGER)
      await assertNothingLost(at, [stays])
      reads = overtaken.reads()
    }
    assert.ok(reads > 20)
  }))

test('a checkpoint that is committed behind the list of packs, and deleted and collected before it is marked, is not taken for damaged', () =>
  withDirectory(async (directory) => {
    const vault = await dirVault(directory)
    const stays = await backUp(vault, makeImage(4 * BLOCK, randomFrom(1)))
    const plain = await openDirStore(directory)
    const before = await keysOf(plain, 'packs/')
    const goes = await backUp(vault, makeImage(4 * BLOCK, randomFrom(2)))
    const ofGoes = new Set((await keysOf(plain, 'packs/')).filter((key) => !before.includes(key)))
    let collected = false
    const behind: ObjectStore = {
      ...bound(plain),
      async *list(prefix) {
        for await (const one of plain.list(prefix)) if (!ofGoes.has(one.key)) yield one
      },
      async stat(key) {
        if (ofGoes.has(key) && !collected) {
          collected = true
          await (await reopen(directory)).forget(goes.id)
          await collectUntil(directory, Number.POSITIVE_INFINITY)
        }
        return await plain.stat(key)
      },
    }
    await (await openVault(deps(behind), SECRET)).collect(EAGER)
    assert.ok(collected)
    await assertNothingLost(directory, [stays])
  }))

test('a lock whose checkpoint is gone keeps no collection from retaining what it moves for the others', () =>
  withDirectory(async (directory) => {
    const [kept] = await partlyUsed(directory)
    const retained: string[] = []
    const store: ObjectStore = {
      ...bound(await openDirStore(directory)),
      retain: async (key) => void retained.push(key),
    }
    const untilMs = Date.now() + 3_600_000
    await store.put(`locks/${randomUUID()}/${untilMs}`, new Uint8Array(0))
    const vault = await openVault(deps(store), SECRET)
    await vault.lock(kept?.id ?? '', untilMs)
    retained.length = 0
    assert.ok((await vault.collect(EAGER)).packsRewritten > 0)
    assert.ok(retained.some((key) => key.startsWith('moves/')))
  }))

test('what is condemned waits for a backup that knew it before, and one that begins while it goes builds on none of it', () =>
  withDirectory(async (directory) => {
    const vault = await dirVault(directory)
    const image = randomBytes(12 * BLOCK)
    const half = 6 * BLOCK
    const sessions: BackupSession[] = []
    const begin = async (store: ObjectStore) => {
      const opened = await openVault(deps(store), SECRET)
      const session = await opened.begin({ threads: 1, packBytes: 150_000 })
      sessions.push(session)
      const writer = await session.openVolume({ id: 'vol', sizeBytes: image.length })
      return { session, writer }
    }
    try {
      // One index object tells of packs that are in use and of others to which nothing refers.
      const made = await begin(vault.store)
      await made.writer.write(0, image)
      await made.writer.drain()
      await made.writer.zero(half, half)
      await made.writer.finish()
      await made.session.commit()
      await made.session.abandon()
      const packs = await keysOf(vault.store, 'packs/')
      const early = await begin(vault.store)
      for (let i = 0; i < 2; i++) {
        const { waitingFor } = await vault.collect({ graceMs: 0 })
        assert.deepEqual(waitingFor, [early.session.id])
        assert.deepEqual(await keysOf(vault.store, 'packs/'), packs)
      }
      // Between two reads of one that begins, the early one ends, and what waited for it goes.
      let overtaken = false
      const overtake = async () => {
        if (overtaken) return
        overtaken = true
        await early.session.abandon()
        assert.ok((await vault.collect({ graceMs: 0 })).packsDeleted > 0)
      }
      const late = await begin({
        ...vault.store,
        async *list(prefix) {
          yield* vault.store.list(prefix)
          if (prefix === 'packs/' || prefix === 'condemned/') await overtake()
        },
      })
      assert.ok(overtaken)
      await late.writer.write(0, image)
      await late.writer.finish()
      const { id } = await late.session.commit()
      await assertRestores(vault, { id, image })
      await assertWhole(await reopen(directory))
    } finally {
      for (const session of sessions) await session.abandon()
    }
  }))

test('a backup that a collector took for dead makes no checkpoint, however far it had come', () =>
  withDirectory(async (directory) => {
    const vault = await dirVault(directory)
    const session = await vault.begin({ threads: 1 })
    try {
      const writer = await session.openVolume({ id: 'vol', sizeBytes: 4 * BLOCK })
      await writer.write(0, randomBytes(4 * BLOCK))
      await writer.finish()
      assert.deepEqual((await vault.collect(EAGER)).revoked, [session.id])
      await assert.rejects(session.commit(), (error) => isFault(error, BACKUP_REVOKED))
      assert.ok((await vault.store.get(manifestKey(session.id))).equals(REVOKED))
      assert.deepEqual(await vault.checkpointIds(), [])
    } finally {
      await session.abandon()
    }
  }))

test('a verification and a restore that a whole collection overtakes at any moment find nothing wrong', () =>
  withDirectory(async (directory) => {
    const before = join(directory, 'before')
    const kept = await partlyUsed(before)
    let reads = 0
    for (let pause = 1; pause === 1 || pause <= reads; pause += 6) {
      const at = join(directory, `read-${pause}`)
      await cp(before, at, { recursive: true })
      const plain = await openDirStore(at)
      const overtaken = overtakenAt(plain, pause, async () => {
        await collectUntil(at, Number.POSITIVE_INFINITY)
      })
      const vault = await openVault(deps(overtaken.store), SECRET)
      await assertWhole(vault)
      for (const one of kept) await assertRestores(vault, one)
      reads = overtaken.reads()
    }
    assert.ok(reads > 20)
  }))
