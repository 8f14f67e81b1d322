/** The vault as a whole, in a directory. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault } from '#base/fault.ts'
import {
  assertRestores,
  assertWhole,
  backUp,
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
import { initVault, openVault } from '#vault/vault.ts'
import { openDirStore } from '#vault/dir/dir-store.ts'

const refused = (code: string) => (error: unknown) => error instanceof Fault && error.code === code

test('a volume is restored byte for byte, whole and in parts, by whoever has the passphrase', () =>
  withDirectory(async (directory) => {
    const random = randomFrom(1)
    const image = makeImage(70 * BLOCK + 12_345, random)
    const done = await backUp(await dirVault(directory), image)
    const vault = await reopen(directory)
    await assertRestores(vault, done)
    const checkpoint = await vault.checkpoint(done.id)
    for (let i = 0; i < 50; i++) {
      const offset = Math.floor(random() * image.length)
      const length = Math.floor(random() * (image.length - offset))
      const bytes = await checkpoint.read('vol', offset, length)
      assert.ok(bytes.equals(image.subarray(offset, offset + length)))
    }
    const streamed: Buffer[] = []
    for await (const piece of checkpoint.stream('vol')) streamed.push(piece)
    assert.ok(Buffer.concat(streamed).equals(image))
    await assertWhole(vault)
  }))

test('an incremental reads only changed blocks, shares the rest, and grows with its volume', () =>
  withDirectory(async (directory) => {
    const vault = await dirVault(directory)
    const random = randomFrom(2)
    // Across a page boundary of the tree, and then across a level.
    const image = makeImage(1000 * BLOCK, random)
    const first = await backUp(vault, image)
    const blocks = changeBlocks(image, 0.02, random)
    const second = await backUp(vault, image, { parent: first.id, blocks })
    const larger = Buffer.concat([image, makeImage(300 * BLOCK + 77, random)])
    const more = Array.from({ length: 301 }, (_, i) => 1000 + i)
    const third = await backUp(vault, larger, { parent: second.id, blocks: more })
    const fourth = await backUp(vault, larger, { parent: third.id, blocks: [] })
    const again = await reopen(directory)
    for (const done of [first, second, third, fourth]) await assertRestores(again, done)
    const [, two, , four] = await again.checkpoints()
    assert.ok((two?.storedBytes ?? 0) < (blocks.length + 2) * BLOCK)
    assert.equal(four?.storedBytes, 0)
    await assertWhole(again)
  }))

test('equal blocks are stored once, across volumes and backups, also without a parent', () =>
  withDirectory(async (directory) => {
    const vault = await dirVault(directory)
    const image = makeImage(100 * BLOCK, randomFrom(3))
    await backUp(vault, image)
    const before = (await keysOf(vault.store, 'packs/')).length
    const again = await backUp(vault, image, { volume: 'other' })
    const { manifest } = await vault.checkpoint(again.id)
    assert.equal(manifest.storedBytes, 0)
    assert.equal((await keysOf(vault.store, 'packs/')).length, before)
    assert.ok((await restoreImage(vault, again.id, 'other')).equals(image))
  }))

test('no plain byte and no name of a volume reaches the store', () =>
  withDirectory(async (directory) => {
    const vault = await dirVault(directory)
    const image = Buffer.alloc(4 * BLOCK)
    for (let at = 0; at < image.length; at += 24) image.write('the quick brown fox 1234', at)
    await backUp(vault, image, { volume: 'secret-volume', labels: { server: 'secret-server' } })
    for (const key of await keysOf(vault.store)) {
      const bytes = await vault.store.get(key)
      assert.ok(!bytes.includes('quick brown'), key)
      assert.ok(!bytes.includes('secret-'), key)
    }
  }))

test('keys: several open the vault, one can be removed but not the last, data keys rotate without rewriting', () =>
  withDirectory(async (directory) => {
    const vault = await dirVault(directory)
    const image = makeImage(50 * BLOCK, randomFrom(4))
    const first = await backUp(vault, image)
    const [old] = await vault.keys()
    await assert.rejects(vault.removeKey(old?.id ?? ''), refused('VAULT_KEY_REFUSED'))
    const file = { kind: 'key-file', content: Buffer.alloc(32, 7) } as const
    await vault.addKey(file, { label: 'file' })
    await vault.removeKey(old?.id ?? '')
    await vault.rotateDataKey()
    const packs = await keysOf(vault.store, 'packs/')
    changeBlocks(image, 0.3, randomFrom(5))
    const second = await backUp(vault, image, { parent: first.id })

    const store = await openDirStore(directory)
    await assert.rejects(openVault(deps(store), SECRET), refused('VAULT_KEY_WRONG'))
    const other = { kind: 'key-file', content: Buffer.alloc(32, 8) } as const
    await assert.rejects(openVault(deps(store), other), refused('VAULT_KEY_WRONG'))
    const opened = await openVault(deps(store), file)
    for (const done of [first, second]) await assertRestores(opened, done)
    for (const key of packs) assert.ok(await store.stat(key), `${key} was not rewritten`)
    await assertWhole(opened)
    await assert.rejects(initVault(deps(store), SECRET, { argon: CHEAP }), refused('VAULT_EXISTS'))
  }))

test('a deleted checkpoint gives its space back, the others stay whole, and half used packs are rewritten', () =>
  withDirectory(async (directory) => {
    const vault = await dirVault(directory)
    const random = randomFrom(6)
    const image = makeImage(300 * BLOCK, random)
    const kept = []
    let parent: string | undefined
    for (let i = 0; i < 6; i++) {
      const blocks = i === 0 ? undefined : changeBlocks(image, 0.5, random)
      const done = await backUp(vault, image, {
        packBytes: 512 * 1024,
        ...(parent === undefined ? {} : { parent }),
        ...(blocks === undefined ? {} : { blocks }),
      })
      kept.push(done)
      parent = done.id
    }
    for (const i of [0, 1, 3]) await vault.forget(kept[i]?.id ?? '')
    assert.equal((await vault.checkpoints()).length, 3)
    const result = await vault.collect({ graceMs: 0 })
    assert.equal(result.checkpointsDeleted, 3)
    assert.ok(result.packsRewritten > 0)
    assert.ok(result.bytesFreed > result.bytesWritten)
    const again = await reopen(directory)
    for (const i of [2, 4, 5]) await assertRestores(again, kept[i] as (typeof kept)[number])
    await assertWhole(again)
    // What was moved can be moved again, and a backup finds it.
    const repeat = await backUp(again, image)
    assert.ok((await again.checkpoint(repeat.id)).manifest.storedBytes < 200_000)
    await again.forget(kept[2]?.id ?? '')
    await again.forget(kept[4]?.id ?? '')
    await again.collect({ graceMs: 0, usedMin: 0.9 })
    await assertRestores(again, kept[5] as (typeof kept)[number])
    await assertRestores(again, repeat)
    await again.forget(kept[5]?.id ?? '')
    await again.forget(repeat.id)
    await again.collect({ graceMs: 0 })
    assert.deepEqual(await keysOf(again.store, 'packs/'), [])
    assert.deepEqual(await keysOf(again.store, 'moves/'), [])
    assert.deepEqual(await keysOf(again.store, 'condemned/'), [])
  }))

test('a locked checkpoint is not deleted, and its lock never becomes shorter', () =>
  withDirectory(async (directory) => {
    const vault = await dirVault(directory)
    const done = await backUp(vault, makeImage(10 * BLOCK, randomFrom(7)))
    const untilMs = Date.now() + 3_600_000
    assert.equal(await vault.lock(done.id, untilMs), untilMs)
    assert.equal(await vault.lock(done.id, untilMs - 1000), untilMs)
    await assert.rejects(vault.forget(done.id), refused('CHECKPOINT_LOCKED'))
    // Even when somebody wrote the mark by hand.
    await vault.store.put(`forgotten/${done.id}`, new Uint8Array(0))
    await vault.collect({ graceMs: 0 })
    await assertRestores(vault, done)
    assert.equal((await vault.checkpoints()).length, 1)
  }))

test('a checkpoint goes to another vault under its chunk names, and later ones send only what is missing', () =>
  withDirectory(async (directory) => {
    const source = await dirVault(`${directory}/source`)
    const target = await dirVault(`${directory}/target`)
    await target.adoptDataKeys(source.dataKeys())
    const dataKey = target.dataKeys().find(({ origin }) => origin === source.header.id)
    assert.ok(dataKey !== undefined)
    const random = randomFrom(8)
    // Larger than a page of the tree, and it grows into a second level.
    let image = makeImage(900 * BLOCK, random)
    const first = await backUp(source, image)
    image = Buffer.concat([image, makeImage(200 * BLOCK, random)])
    const blocks = [3, 7, 500, ...Array.from({ length: 200 }, (_, i) => 900 + i)]
    for (const block of [3, 7, 500]) image.fill(block, block * BLOCK, block * BLOCK + BLOCK)
    const second = await backUp(source, image, { parent: first.id, blocks })

    const copy = async (id: string, base?: { readonly id: string; readonly copy: string }) => {
      const from = await source.checkpoint(id)
      const session = await target.begin({
        dataKey,
        threads: 1,
        ...(base === undefined ? {} : { parent: base.copy }),
      })
      const size = from.manifest.volumes[0]?.sizeBytes ?? 0
      try {
        const writer = await session.openVolume({ id: 'vol', sizeBytes: size })
        const before = base === undefined ? undefined : (await source.checkpoint(base.id)).manifest
        let sent = 0
        for await (const item of before === undefined
          ? from.blocks('vol')
          : from.changes('vol', before)) {
          const offset = item.block * BLOCK
          if (item.kind === 'zero') {
            if (before !== undefined) await writer.zero(offset, item.count * BLOCK)
          } else if (!(await writer.reference(offset, item.entry.id))) {
            sent++
            await writer.write(offset, await from.readBlock(item.entry))
          }
        }
        await writer.finish()
        return { copy: (await session.commit()).id, sent }
      } finally {
        await session.abandon()
      }
    }
    const one = await copy(first.id)
    const two = await copy(second.id, { id: first.id, copy: one.copy })
    assert.ok(two.sent > 100 && two.sent <= blocks.length, `${two.sent} blocks were sent`)
    assert.equal((await copy(second.id)).sent, 0)
    const reopened = await reopen(`${directory}/target`)
    assert.ok((await restoreImage(reopened, one.copy)).equals(first.image))
    assert.ok((await restoreImage(reopened, two.copy)).equals(second.image))
    await assertWhole(reopened)
  }))

test('blocks may come in any order, also back and forth over the nodes of the tree', () =>
  withDirectory(async (directory) => {
    const vault = await dirVault(directory)
    const image = makeImage(1500 * BLOCK, randomFrom(9))
    const blocks = [1400, 2, 1300, 3, 1499, 0, 1100, 4, 1024, 1023]
    const expected = Buffer.alloc(image.length)
    for (const block of blocks) {
      image.copy(expected, block * BLOCK, block * BLOCK, block * BLOCK + BLOCK)
    }
    const session = await vault.begin({ threads: 1 })
    try {
      const writer = await session.openVolume({ id: 'vol', sizeBytes: image.length })
      for (const block of blocks) {
        await writer.write(block * BLOCK, image.subarray(block * BLOCK, block * BLOCK + BLOCK))
        // Sends the batch, so that every block is applied by itself.
        await writer.zero(500 * BLOCK, BLOCK)
      }
      await writer.finish()
      const { id } = await session.commit()
      await assertRestores(vault, { id, image: expected })
    } finally {
      await session.abandon()
    }
    await assertWhole(vault)
  }))
