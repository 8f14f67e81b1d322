/** One bit wrong anywhere is found, named, and never restored as if it were right. */
import assert from 'node:assert/strict'
import { readFile, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { Fault } from '#base/fault.ts'
import {
  backUp,
  type BackedUp,
  BLOCK,
  changeBlocks,
  dirVault,
  keysOf,
  makeImage,
  randomFrom,
  reopen,
  restoreImage,
  withDirectory,
} from './vault-kit.ts'

async function build(directory: string): Promise<BackedUp[]> {
  const vault = await dirVault(directory)
  const random = randomFrom(21)
  const image = makeImage(60 * BLOCK, random)
  const first = await backUp(vault, image, { packBytes: 512 * 1024 })
  const blocks = changeBlocks(image, 0.5, random)
  const second = await backUp(vault, image, { parent: first.id, blocks, packBytes: 512 * 1024 })
  const more = changeBlocks(image, 0.5, random)
  const third = await backUp(vault, image, { parent: second.id, blocks: more })
  await vault.forget(first.id)
  await vault.collect({ graceMs: 0, usedMin: 0.9 })
  return [second, third]
}

test('a flipped bit in any object is found and the object named; what is restored is right or refused', () =>
  withDirectory(async (directory) => {
    const done = await build(directory)
    const keys = await keysOf((await reopen(directory)).store)
    for (const kind of [
      'vault.json',
      'keys/',
      'keyring/',
      'packs/',
      'index/',
      'manifests/',
      'moves/',
    ]) {
      assert.ok(
        keys.some((key) => key.startsWith(kind)),
        `the vault has ${kind}`,
      )
    }
    const random = randomFrom(22)
    for (const key of keys) {
      const path = join(directory, key)
      const good = await readFile(path)
      if (good.length === 0) continue
      for (let i = 0; i < 3; i++) {
        const bad = Buffer.from(good)
        const at = Math.floor(random() * bad.length)
        bad[at] = (bad[at] as number) ^ (1 << Math.floor(random() * 8))
        await writeFile(path, bad)
        await judgeDamaged(directory, done, `${key}, byte ${at} of ${good.length}`, key)
      }
      await writeFile(path, good)
    }
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

async function judgeDamaged(
  directory: string,
  done: readonly BackedUp[],
  where: string,
  key: string,
): Promise<void> {
  let vault
  try {
    vault = await reopen(directory)
  } catch (error) {
    assert.ok(error instanceof Fault, `${where}: ${String(error)}`)
    assert.ok(error.message.includes(key), `${where}: named in ${error.message}`)
    return
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
    }
  }
}
