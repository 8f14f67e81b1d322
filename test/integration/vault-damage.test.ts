/** Whatever is wrong with any object is found, named, and never restored as if it were right. */
import assert from 'node:assert/strict'
import { randomBytes, randomUUID } from 'node:crypto'
import { readFile, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { Fault } from '#base/fault.ts'
import { leaseKey } from '#vault/collect/leases.ts'
import type { BackupSession } from '#vault/backup/session.ts'
import { openDirStore } from '#vault/dir/dir-store.ts'
import { OBJECT_RETAINED } from '#vault/faults.ts'
import { readEntry } from '#vault/format/entry.ts'
import { manifestKey } from '#vault/format/manifest.ts'
import { packKey } from '#vault/format/pack.ts'
import type { ObjectStore } from '#vault/object-store.ts'
import { initVault, openVault } from '#vault/vault.ts'
import {
  assertRestores,
  assertWhole,
  backUp,
  type BackedUp,
  BLOCK,
  changeBlocks,
  CHEAP,
  deps,
  dirVault,
  keysOf,
  makeImage,
  randomFrom,
  reopen,
  restoreImage,
  SECRET,
  withDirectory,
} from './vault-kit.ts'

/** Checkpoints that share packs, some of which were moved; two keys of each sort. */
async function build(directory: string): Promise<BackedUp[]> {
  const vault = await dirVault(directory)
  const random = randomFrom(21)
  const image = makeImage(60 * BLOCK, random)
  const first = await backUp(vault, image, { packBytes: 512 * 1024 })
  const blocks = changeBlocks(image, 0.5, random)
  const second = await backUp(vault, image, { parent: first.id, blocks, packBytes: 512 * 1024 })
  const more = changeBlocks(image, 0.5, random)
  await vault.rotateDataKey()
  await vault.addKey({ kind: 'passphrase', passphrase: 'second' }, { argon: CHEAP })
  const third = await backUp(vault, image, { parent: second.id, blocks: more })
  await vault.forget(first.id)
  await vault.collect({ graceMs: 0, usedMin: 0.9 })
  await vault.lock(second.id, Date.now() + 60_000)
  return [second, third]
}

const RUNNING = '99999999-2222-4333-8444-555555555555'

/** Besides, two lists of what is to be deleted, and a session that they wait for. */
async function buildAll(directory: string): Promise<BackedUp[]> {
  const done = await build(directory)
  const vault = await reopen(directory)
  await vault.store.put(leaseKey(RUNNING), Buffer.from('{"kind":"backup"}'))
  for (const seed of [24, 25]) {
    const gone = await backUp(vault, makeImage(8 * BLOCK, randomFrom(seed)))
    await vault.forget(gone.id)
    const { waitingFor } = await vault.collect({ graceMs: 0, usedMin: 0.9 })
    assert.deepEqual(waitingFor, [RUNNING])
  }
  return done
}

/** Every kind of object that has a content of which something depends, and whether a vault without it still opens. */
const KINDS: readonly { readonly prefix: string; readonly opens: boolean }[] = [
  { prefix: 'vault.json', opens: false },
  { prefix: 'keys/', opens: true },
  { prefix: 'keyring/', opens: true },
  { prefix: 'packs/', opens: true },
  { prefix: 'index/', opens: true },
  { prefix: 'manifests/', opens: true },
  { prefix: 'moves/', opens: true },
  { prefix: 'condemned/', opens: true },
  { prefix: 'waiting/', opens: true },
]

const flip = (good: Buffer, at: number): Buffer => {
  const bad = Buffer.from(good)
  bad[at] = (bad[at] as number) ^ 4
  return bad
}

/** What becomes of an object; `other` is another one of its kind, where there is one. */
const DAMAGES: readonly {
  readonly name: string
  readonly make: (good: Buffer, other: Buffer | undefined) => Buffer | undefined
}[] = [
  { name: 'its first byte flipped', make: (good) => flip(good, 0) },
  {
    name: 'a byte of its header flipped',
    make: (good) => flip(good, Math.min(20, good.length - 1)),
  },
  { name: 'a byte in the middle flipped', make: (good) => flip(good, good.length >> 1) },
  { name: 'its last byte but one flipped', make: (good) => flip(good, good.length - 2) },
  { name: 'nothing left', make: () => Buffer.alloc(0) },
  { name: 'one byte left', make: (good) => good.subarray(0, 1) },
  { name: 'eight bytes left', make: (good) => good.subarray(0, 8) },
  { name: 'half of it left', make: (good) => good.subarray(0, good.length >> 1) },
  { name: 'its last two bytes missing', make: (good) => good.subarray(0, -2) },
  { name: 'zeroes instead', make: (good) => Buffer.alloc(good.length) },
  { name: 'another one of its kind instead', make: (_, other) => other },
]

test('each kind of object in each way damaged is found and named; what is whole is restored, and nothing wrong ever is', () =>
  withDirectory(async (directory) => {
    const done = await buildAll(directory)
    const keys = await keysOf((await reopen(directory)).store)
    for (const { prefix, opens } of KINDS) {
      const [key, second] = keys.filter((one) => one.startsWith(prefix))
      assert.ok(key !== undefined, `the vault has ${prefix}`)
      assert.equal(second === undefined, prefix === 'vault.json', `the vault has two ${prefix}`)
      const path = join(directory, key)
      const good = await readFile(path)
      const other = second === undefined ? undefined : await readFile(join(directory, second))
      for (const { name, make } of DAMAGES) {
        const bad = make(good, other)
        if (bad === undefined) continue
        await writeFile(path, bad)
        const where = `${key} with ${name}`
        const opened = await judgeDamaged(directory, done, where, key)
        // The slot may be the only one that this passphrase opens.
        assert.ok(opened || !opens || prefix === 'keys/', `${where}: the vault opens`)
      }
      await writeFile(path, good)
    }
    // And undamaged it is whole.
    const whole = await (await reopen(directory)).verify({ data: true })
    assert.deepEqual(whole.damage, [])
  }))

test('a checkpoint with a damaged node can be deleted and collected, and hides nothing of one that shares its other nodes', () =>
  withDirectory(async (directory) => {
    const vault = await dirVault(directory)
    // A root over a node of 1024 blocks, which both checkpoints share, and one of 6.
    const image = makeImage(1030 * BLOCK, randomFrom(28))
    const first = await backUp(vault, image, { packBytes: 512 * 1024 })
    image.fill(7, 1029 * BLOCK)
    const second = await backUp(vault, image, { parent: first.id, blocks: [1029] })
    const root = readEntry(
      (await vault.checkpoint(first.id)).manifest.volumes[0]?.root as Buffer,
      0,
    )
    const path = join(directory, packKey(root.pack))
    await writeFile(path, flip(await readFile(path), root.offset + 20))
    const damaged = await reopen(directory)
    await assert.rejects(damaged.collect({ graceMs: 0, usedMin: 0.99 }), /VAULT_DAMAGED/)
    await damaged.forget(first.id)
    const { checkpointsDeleted } = await damaged.collect({ graceMs: 0, usedMin: 0.99 })
    assert.equal(checkpointsDeleted, 1)
    await assertRestores(await reopen(directory), second)
    await assertWhole(await reopen(directory))
  }))

test('what a running backup needs through a damaged parent stays, also when the parent is deleted; the collection after its end sweeps', (t) =>
  withDirectory(async (directory) => {
    const block = 4096
    const node = 1024 * block
    const store = await openDirStore(directory, { create: true })
    const vault = await initVault(deps(store), SECRET, { argon: CHEAP, blockBytes: block })
    const image = Buffer.alloc(2 * node)
    const sessions: BackupSession[] = []
    t.after(async () => {
      for (const session of sessions) await session.abandon()
    })
    const begin = async (parent?: string) => {
      const session = await vault.begin({ threads: 1, ...(parent === undefined ? {} : { parent }) })
      sessions.push(session)
      return session
    }
    const begun = async (parent: string | undefined, writes: readonly [number, number][]) => {
      const session = await begin(parent)
      const writer = await session.openVolume({ id: 'vol', sizeBytes: image.length })
      for (const [at, blocks] of writes) {
        const bytes = randomBytes(blocks * block)
        bytes.copy(image, at)
        await writer.write(at, bytes)
      }
      const commit = async (): Promise<BackedUp> => {
        await writer.finish()
        const { id } = await session.commit()
        await session.abandon()
        return { id, image: Buffer.from(image) }
      }
      return { session, writer, commit }
    }
    const oldest = await (await begun(undefined, [[node, 100]])).commit()
    const packs = await keysOf(store, 'packs/')
    // A tenth of the oldest pack stays in use.
    const parent = await (
      await begun(oldest.id, [
        [0, 10],
        [node, 90],
      ])
    ).commit()
    await vault.forget(oldest.id)
    const early = await begin()
    await vault.collect({ graceMs: 0 })
    const late = await begin()
    await early.abandon()
    // The oldest checkpoint goes, and its pack is condemned, and waits for a backup.
    const { checkpointsDeleted, waitingFor } = await vault.collect({ graceMs: 0 })
    assert.deepEqual([checkpointsDeleted, waitingFor], [1, [late.id]])
    const child = await begun(parent.id, [
      [0, 1],
      [node, 1],
    ])
    await child.writer.drain()
    await late.abandon()
    // Now the list is ripe, and of the child's parent, which is deleted, nothing can be read below the root.
    const { volumes } = (await vault.checkpoint(parent.id)).manifest
    const root = readEntry(volumes[0]?.root as Buffer, 0)
    const path = join(directory, packKey(root.pack))
    await writeFile(path, flip(await readFile(path), root.offset + 20))
    await vault.forget(parent.id)
    const said: string[] = []
    const waits = await vault.collect({ graceMs: 0, progress: (text) => said.push(text) })
    assert.deepEqual([waits.packsDeleted, waits.packsRewritten], [0, 0])
    assert.deepEqual(waits.waitingFor, [child.session.id])
    assert.ok(waits.bytesWaiting >= 100 * block, `${waits.bytesWaiting} bytes wait`)
    assert.ok(said.some((text) => text.includes(parent.id)))
    const done = await child.commit()
    // Nor does a manifest stop it that the store itself keeps.
    const key = manifestKey(parent.id)
    const keeping: ObjectStore = {
      ...store,
      async delete(object) {
        if (object === key) throw new Fault(OBJECT_RETAINED, `deleting ${key}`)
        await store.delete(object)
      },
    }
    const swept = await (await openVault(deps(keeping), SECRET)).collect({ graceMs: 0 })
    assert.deepEqual([swept.retained, swept.waitingFor], [[key], []])
    assert.ok(swept.packsRewritten > 0)
    assert.equal((await vault.collect({ graceMs: 0 })).checkpointsDeleted, 1)
    const left = await keysOf(store, 'packs/')
    assert.ok(packs.every((key) => !left.includes(key)))
    await assertRestores(await reopen(directory), done)
    await assertWhole(await reopen(directory))
  }))

test('backups and collections go on beside a damaged list of a collector, and build on nothing that it may name', () =>
  withDirectory(async (directory) => {
    const done = await buildAll(directory)
    const { store } = await reopen(directory)
    const [list = ''] = await keysOf(store, 'condemned/')
    const good = await readFile(join(directory, list))
    await writeFile(join(directory, list), flip(good, good.length >> 1))
    const told: string[] = []
    const vault = await reopen(directory)
    const image = (done[1] as BackedUp).image
    const repeated = await backUp(vault, image, { damaged: ({ message }) => told.push(message) })
    assert.ok(told.some((text) => text.includes(list)))
    const { storedBytes } = (await vault.checkpoint(repeated.id)).manifest
    assert.ok(storedBytes > 400_000, `${storedBytes} bytes were stored anew`)
    await assert.rejects(vault.collect({ graceMs: 0 }), new RegExp(list))
    await writeFile(join(directory, list), good)

    // Whom a collector waits for is found out again, and what `collector` says is not needed.
    for (const key of await keysOf(store, 'waiting/')) {
      await writeFile(join(directory, key), Buffer.alloc(0))
    }
    for (const bad of ['', '{', '{"session":"../x"}', '[]', 'null']) {
      await store.put('collector', Buffer.from(bad))
      const { waitingFor } = await (await reopen(directory)).collect({ graceMs: 0 })
      assert.deepEqual(waitingFor, [RUNNING], bad)
    }
    await writeFile(join(directory, 'leases', RUNNING), Buffer.alloc(0))
    await store.delete(leaseKey(RUNNING))
    await (await reopen(directory)).collect({ graceMs: 0 })
    assert.deepEqual(await keysOf(store, 'condemned/'), [])
    const again = await reopen(directory)
    for (const one of [...done, repeated]) await assertRestores(again, one)
    await assertWhole(again)
  }))

test('a manifest of which nothing is left is damaged, and not taken for a backup that was revoked', () =>
  withDirectory(async (directory) => {
    const vault = await dirVault(directory)
    const { id } = await backUp(vault, makeImage(10 * BLOCK, randomFrom(26)))
    const revoked = randomUUID()
    assert.equal(await vault.revoke(revoked), true)
    assert.equal(await vault.revoke(revoked), true)
    assert.equal(await vault.revoke(id), false)
    assert.deepEqual(await vault.checkpointIds(), [id])
    await assertWhole(vault)
    const packs = await keysOf(vault.store, 'packs/')
    const path = join(directory, 'manifests', id)
    const good = await readFile(path)
    for (const bad of [Buffer.alloc(0), good.subarray(0, 8)]) {
      await writeFile(path, bad)
      const damaged = (await vault.verify()).damage.map(({ object }) => object)
      assert.deepEqual(damaged, [`manifests/${id}`])
      await assert.rejects(vault.collect({ graceMs: 0 }), new RegExp(`manifests/${id}`))
      assert.deepEqual(await keysOf(vault.store, 'packs/'), packs, 'nothing was deleted')
    }
    await writeFile(path, good)
    await assertWhole(await reopen(directory))
    // Who gives it up can: the rest is collected again, and stays whole.
    const other = await backUp(vault, makeImage(10 * BLOCK, randomFrom(27)))
    await writeFile(path, flip(good, good.length >> 1))
    await vault.forget(id)
    await assert.rejects(vault.forget(revoked), /CHECKPOINT_UNKNOWN/)
    assert.equal((await vault.collect({ graceMs: 0 })).checkpointsDeleted, 1)
    assert.equal(await vault.revoke(revoked), true)
    await assertWhole(vault)
    await assertRestores(vault, other)
  }))

test('a missing pack or manifest is found, and the checkpoints and ranges that need it are named', () =>
  withDirectory(async (directory) => {
    const done = await build(directory)
    const keys = await keysOf((await reopen(directory)).store, 'packs/')
    for (const key of keys) {
      const path = join(directory, key)
      const good = await readFile(path)
      await unlink(path)
      const report = await (await reopen(directory)).verify()
      assert.ok(
        report.damage.some((one) => one.object === key),
        key,
      )
      assert.ok(report.affected.length > 0)
      for (const { checkpoint, ranges } of report.affected) {
        assert.ok(done.some(({ id }) => id === checkpoint))
        assert.ok(ranges.length > 0)
      }
      await writeFile(path, good)
    }
    assert.deepEqual((await (await reopen(directory)).verify({ data: true })).damage, [])
  }))

test('what can still be read is salvaged, and exactly the lost ranges are told', () =>
  withDirectory(async (directory) => {
    const vault = await dirVault(directory)
    const image = makeImage(60 * BLOCK, randomFrom(23))
    const { id } = await backUp(vault, image, { packBytes: 512 * 1024 })
    const [key = ''] = await keysOf(vault.store, 'packs/')
    const path = join(directory, key)
    const bytes = await readFile(path)
    bytes[5000] = (bytes[5000] as number) ^ 1
    await writeFile(path, bytes)
    const lost: [number, number][] = []
    const restored = Buffer.from(image)
    const checkpoint = await (await reopen(directory)).checkpoint(id)
    const written = new Set<number>()
    await checkpoint.restore(
      'vol',
      {
        async write(offset, data) {
          data.copy(restored, offset)
          for (let at = 0; at < data.length; at += BLOCK) written.add((offset + at) / BLOCK)
        },
      },
      { damaged: (_, offset, length) => lost.push([offset, length]) },
    )
    assert.ok(restored.equals(image))
    assert.ok(lost.length > 0)
    for (const [offset, length] of lost) {
      assert.equal(length, BLOCK)
      assert.ok(!written.has(offset / BLOCK))
    }
  }))

/** False: the vault does not open any more. */
async function judgeDamaged(
  directory: string,
  done: readonly BackedUp[],
  where: string,
  key: string,
): Promise<boolean> {
  let vault
  try {
    vault = await reopen(directory)
  } catch (error) {
    assert.ok(error instanceof Fault, `${where}: ${String(error)}`)
    assert.ok(error.message.includes(key), `${where}: named in ${error.message}`)
    return false
  }
  const report = await vault.verify({ data: true })
  assert.ok(
    report.damage.some(({ object }) => object === key),
    `${where}: verify names it, but says ${JSON.stringify(report.damage)}`,
  )
  for (const { id, image } of done) {
    try {
      assert.ok((await restoreImage(vault, id)).equals(image), `${where}: ${id}`)
    } catch (error) {
      assert.ok(error instanceof Fault, `${where}: ${String(error)}`)
      assert.ok(error.message.includes(key), `${where}: named in ${error.message}`)
      const hurt = report.affected.some(({ checkpoint }) => checkpoint === id)
      const unread = report.damage.some(({ object }) => object === `manifests/${id}`)
      assert.ok(hurt || unread, `${where}: verify tells that ${id} is hurt`)
    }
  }
  return true
}
