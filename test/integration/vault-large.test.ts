/** A volume of 10 TiB in bounded memory, and writers that run at once. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as wait } from 'node:timers/promises'
import { isFault } from '#base/fault.ts'
import { CHECKPOINT_UNKNOWN, OBJECT_MISSING } from '#vault/faults.ts'
import {
  assertRestores,
  assertWhole,
  backUp,
  type BackedUp,
  BLOCK,
  changeBlocks,
  dirVault,
  fillBlock,
  makeImage,
  randomFrom,
  reopen,
  withDirectory,
} from './vault-kit.ts'

const TIB = 1024 ** 4

test('a sparse volume of 10 TiB is backed up, changed, verified and restored within 512 MB', () =>
  withDirectory(async (directory) => {
    const vault = await dirVault(directory)
    const random = randomFrom(41)
    const sizeBytes = 10 * TIB
    const content = new Map<number, Buffer>()
    let peak = 0
    const look = () => (peak = Math.max(peak, process.memoryUsage().rss))
    let parent: string | undefined
    const ids: string[] = []
    for (let round = 0; round < 2; round++) {
      const session = await vault.begin(parent === undefined ? {} : { parent })
      const writer = await session.openVolume({ id: 'vol', sizeBytes })
      // What is a hole in the volume now: half of it, with some of the blocks of before.
      await writer.zero(0, sizeBytes / 2)
      for (const block of content.keys()) {
        if (block * BLOCK < sizeBytes / 2) content.delete(block)
      }
      const places = Array.from({ length: 150 }, () => Math.floor((random() * sizeBytes) / BLOCK))
      for (const block of places.toSorted((a, b) => a - b)) {
        const data = Buffer.alloc(BLOCK)
        fillBlock(data, random)
        content.set(block, data)
        await writer.write(block * BLOCK, data)
        look()
      }
      await writer.finish()
      parent = (await session.commit()).id
      ids.push(parent)
    }
    const checkpoint = await (await reopen(directory)).checkpoint(ids[1] ?? '')
    let zeroes = 0
    let written = 0
    await checkpoint.restore('vol', {
      async write(offset, data) {
        look()
        for (let at = 0; at < data.length; at += BLOCK) {
          const expected = content.get((offset + at) / BLOCK)
          assert.ok(expected?.equals(data.subarray(at, at + BLOCK)))
          written += BLOCK
        }
      },
      async zero(_, length) {
        zeroes += length
      },
    })
    assert.equal(zeroes + written, sizeBytes)
    await assertWhole(vault)
    await vault.forget(ids[0] ?? '')
    await vault.collect({ graceMs: 0 })
    await assertWhole(vault)
    look()
    assert.ok(peak < 512e6, `${Math.round(peak / 1e6)} MB at most`)
  }))

test('three writers and a collector at once: every checkpoint that is listed is whole', () =>
  withDirectory(async (directory) => {
    await dirVault(directory)
    const done: BackedUp[] = []
    let running = 3
    const write = async (seed: number) => {
      const vault = await reopen(directory)
      const random = randomFrom(seed)
      // All begin with the same image, so they meet in the same chunks.
      const image = makeImage(40 * BLOCK, randomFrom(7))
      for (let round = 0; round < 5; round++) {
        changeBlocks(image, 0.2, random)
        const parent = random() < 0.7 ? done.at(-1)?.id : undefined
        try {
          const packBytes = 300_000
          done.push(
            await backUp(vault, image, { packBytes, ...(parent === undefined ? {} : { parent }) }),
          )
          const victim = done[Math.floor(random() * done.length)]
          if (random() < 0.4 && victim !== undefined) await vault.forget(victim.id)
        } catch (error) {
          // The parent, or the victim, was deleted by somebody else.
          if (!isFault(error, CHECKPOINT_UNKNOWN) && !isFault(error, OBJECT_MISSING)) throw error
        }
      }
      running--
    }
    const collectAll = async () => {
      const vault = await reopen(directory)
      while (running > 0) {
        await vault.collect({ graceMs: 0, usedMin: 0.9 })
        await wait(1)
      }
    }
    await Promise.all([write(1), write(2), write(3), collectAll()])
    const vault = await reopen(directory)
    const listed = new Set((await vault.checkpoints()).map(({ id }) => id))
    const left = done.filter(({ id }) => listed.has(id))
    assert.ok(left.length > 0)
    for (const one of left) await assertRestores(vault, one)
    await vault.collect({ graceMs: 0, usedMin: 0.9 })
    for (const one of left) await assertRestores(vault, one)
    await assertWhole(vault)
  }))
