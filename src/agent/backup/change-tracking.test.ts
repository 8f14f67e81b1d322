/** What was tracked never leaves out a change: whatever is done to the volumes, a checkpoint holds what they held at its moment. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { createLog } from '#base/log.ts'
import { guardedWrite, guardedZero } from '#agent/snapshots/snapshots.contract.ts'
import { BlockSet } from '#agent/replication/copy/block-set.ts'
import type { Volume } from '#agent/volumes/volume.ts'
import { BackupWorld, restoredImage } from './backups.contract.ts'
import { decodeSets, encodeSets } from './change-file.ts'
import { openChangeTracking } from './change-tracking.ts'

const BLOCK = 64 * 1024
const SIZES = { v1: 24 * BLOCK + 1536, v2: 9 * BLOCK } as const
const NAMES = ['v1', 'v2'] as const

function randomFrom(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

async function withWorld(act: (world: BackupWorld) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-backups-'))
  const world = await BackupWorld.open(directory)
  try {
    for (const id of NAMES) await world.volumes.create(id, SIZES[id], { mode: 'standalone' }, 'me')
    await act(world)
  } finally {
    await world.stop()
    await rm(directory, { recursive: true, force: true })
  }
}

const contentOf = (volume: Volume): Buffer => {
  const bytes = Buffer.alloc(volume.sizeBytes)
  volume.readSync(bytes, 0, bytes.length, 0)
  return bytes
}

interface Made {
  readonly checkpoint: string
  readonly manner: string
  readonly readBytes: number
}

/** Backs up both volumes, with writers at work while it runs, and compares what the vault has with what there was at the moment. */
async function backUp(
  world: BackupWorld,
  parent: string | null,
  meanwhile: () => Promise<void> = async () => undefined,
): Promise<Made> {
  const backup = randomUUID()
  const open = await Promise.all(NAMES.map((id) => world.volumes.open(id)))
  let expected: Buffer[] = []
  // The moment is where the snapshot begins to be there; nobody writes in this test until then.
  const before = open.map(contentOf)
  await world.command('backup.start', {
    backup,
    volumes: [...NAMES],
    names: [...NAMES],
    parent,
    labels: { test: 'yes' },
    rate_bytes: 0,
  })
  while (world.snapshots.show(backup) === undefined) {
    const info = await world.command('backup.show', { backup })
    if (info.state !== 'running') break
    await new Promise((resolve) => setImmediate(resolve))
  }
  expected = before
  await meanwhile()
  const info = await world.ended('backup.start', {
    backup,
    volumes: [...NAMES],
    names: [...NAMES],
    parent,
    labels: { test: 'yes' },
    rate_bytes: 0,
  })
  assert.equal(info.state, 'done', info.reason ?? '')
  assert.equal(world.snapshots.show(backup), undefined)
  const vault = await world.vault()
  for (const [i, name] of NAMES.entries()) {
    const found = await restoredImage(vault, info.checkpoint ?? '', name)
    const at = found.findIndex((byte, place) => byte !== expected[i]?.[place])
    assert.ok(found.equals(expected[i] as Buffer), `${name} differs at ${at} (${info.manner})`)
  }
  return { checkpoint: info.checkpoint ?? '', manner: info.manner, readBytes: info.read_bytes }
}

/** One of the ways in which the content of a volume changes. */
async function change(world: BackupWorld, random: (below: number) => number): Promise<void> {
  const volume = await world.volumes.open(NAMES[random(2)] ?? 'v1')
  const size = volume.sizeBytes
  const offset = random(size - 512)
  const length = Math.min(1 + random(random(4) === 0 ? 300_000 : 9000), size - offset)
  switch (random(8)) {
    case 0:
      return await guardedZero(volume, offset, length, true)
    case 1:
      return await guardedZero(volume, offset, length, false)
    case 2:
      return await volume.zero(offset, length, random(2) === 0)
    case 3: {
      const id = `u${random(1e9)}`
      await world.snapshots.take({ id, purpose: 'user', volumes: [volume.id] })
      for (let i = random(4); i >= 0; i--) {
        await guardedWrite(volume, random(size - 8192), Buffer.alloc(8192, 1 + random(255)))
      }
      await world.snapshots.rollback(id)
      return await world.snapshots.delete(id)
    }
    case 4:
      if (random(3) === 0) await world.volumes.extend(volume.id, size + BLOCK + 512 * random(4))
      return
    default:
      return await guardedWrite(volume, offset, Buffer.alloc(length, 1 + random(255)))
  }
}

for (const seed of [1, 2, 3, 4]) {
  test(`random changes, restarts and crashes: each checkpoint is its moment, seed ${seed}`, () =>
    withWorld(async (world) => {
      const random = randomFrom(seed)
      const made: string[] = []
      let tracked = new Set<string>()
      for (let round = 0; round < 14; round++) {
        for (let i = random(6); i >= 0; i--) await change(world, random)
        const dice = random(7)
        if (dice <= 1) {
          await world.stop(dice === 0 ? 'crash' : 'stop')
          if (dice === 0) tracked = new Set()
          await world.start()
          continue
        }
        if (dice === 2) {
          // Comes to nothing, at some point.
          const backup = randomUUID()
          const names = [...NAMES]
          const request = { backup, volumes: names, names, parent: null, labels: {}, rate_bytes: 1 }
          await world.command('backup.start', request)
          for (let i = random(30); i > 0; i--) await new Promise((r) => setImmediate(r))
          await world.command('backup.cancel', { backup })
          // It takes one of the places in which segments are kept.
          if (tracked.size > 2) tracked = new Set([...tracked].slice(-2))
          continue
        }
        const parent =
          made.length === 0 || random(6) === 0
            ? null
            : (made.at(-1 - random(Math.min(2, made.length))) ?? null)
        const one = await backUp(world, parent, async () => {
          for (let i = random(3); i > 0; i--) await change(world, random)
        })
        if (parent === null) assert.equal(one.manner, 'full')
        else assert.equal(one.manner, tracked.has(parent) ? 'changes' : 'scan')
        made.push(one.checkpoint)
        tracked = new Set([...tracked, one.checkpoint].slice(-3))
      }
    }))
}

describe('what is tracked', () => {
  test('an increment reads the blocks that changed and no others, also after a stop in order', () =>
    withWorld(async (world) => {
      const volume = await world.volumes.open('v1')
      await guardedWrite(volume, 0, Buffer.alloc(20 * BLOCK, 7))
      const first = await backUp(world, null)
      assert.equal(first.manner, 'full')
      await guardedWrite(volume, 5 * BLOCK + 100, Buffer.alloc(100, 1))
      await world.stop()
      await world.start()
      const again = await world.volumes.open('v1')
      await guardedWrite(again, 11 * BLOCK - 1, Buffer.alloc(2, 2))
      const second = await backUp(world, first.checkpoint)
      assert.equal(second.manner, 'changes')
      // Three blocks of v1, and the last block of each volume, which might have been a short one.
      assert.equal(second.readBytes, 3 * BLOCK + 1536 + BLOCK)
    }))

  test('after a crash everything is compared, and what equals the parent is not stored again', () =>
    withWorld(async (world) => {
      const volume = await world.volumes.open('v1')
      await guardedWrite(volume, 0, Buffer.alloc(20 * BLOCK, 7))
      const first = await backUp(world, null)
      await world.stop('crash')
      await world.start()
      const second = await backUp(world, first.checkpoint)
      assert.equal(second.manner, 'scan')
      const root = async (id: string) =>
        (await (await world.vault()).checkpoint(id)).manifest.volumes.map((one) =>
          one.root.toString('hex'),
        )
      assert.deepEqual(await root(second.checkpoint), await root(first.checkpoint))
    }))

  test('a volume whose file was changed while no agent had it open is read as a whole', () =>
    withWorld(async (world) => {
      await guardedWrite(await world.volumes.open('v2'), 0, Buffer.alloc(BLOCK, 7))
      const first = await backUp(world, null)
      await world.stop()
      await writeFile(join(world.directory, 'volumes', 'v2', 'data'), 'by hand', { flag: 'r+' })
      await world.start()
      assert.equal((await backUp(world, first.checkpoint)).manner, 'scan')
    }))

  test('a volume of the same name that was made anew is read as a whole', () =>
    withWorld(async (world) => {
      await guardedWrite(await world.volumes.open('v2'), 0, Buffer.alloc(BLOCK, 7))
      const first = await backUp(world, null)
      await world.volumes.delete('v2')
      await world.volumes.create('v2', SIZES.v2, { mode: 'standalone' })
      assert.equal((await backUp(world, first.checkpoint)).manner, 'scan')
    }))

  test('a volume that the parent holds under the name of another one is read as a whole', () =>
    withWorld(async (world) => {
      const [one, two] = [await world.volumes.open('v1'), await world.volumes.open('v2')]
      await guardedWrite(one, 0, Buffer.alloc(BLOCK, 7))
      await guardedWrite(two, 0, Buffer.alloc(BLOCK, 8))
      await world.volumes.extend('v2', one.sizeBytes)
      const before = { v1: contentOf(one), v2: contentOf(two) }
      const first = await backUp(world, null)
      // As after the copies of two disks at the other side have changed places, and were found equal to their new ones.
      const info = await world.ended('backup.start', {
        backup: randomUUID(),
        volumes: ['v1', 'v2'],
        names: ['v2', 'v1'],
        parent: first.checkpoint,
        labels: {},
        rate_bytes: 0,
      })
      assert.equal(info.manner, 'scan')
      const vault = await world.vault()
      const found = (name: string) => restoredImage(vault, info.checkpoint ?? '', name)
      assert.ok((await found('v2')).equals(before.v1))
      assert.ok((await found('v1')).equals(before.v2))
    }))

  test('every damaged byte of a file is noticed', async () => {
    const set = new BlockSet(1000)
    set.addBlocks(3, 400)
    set.add(999)
    const bytes = encodeSets({ of: 'v1' }, [set])
    const read = decodeSets(bytes)
    assert.deepEqual(read?.about, { of: 'v1' })
    assert.equal(read?.sets[0]?.count, set.count)
    assert.equal(read?.sets[0]?.next(400), 999)
    for (let at = 0; at < bytes.length; at++) {
      const damaged = Buffer.from(bytes)
      damaged[at] = (damaged[at] ?? 0) ^ 0x10
      assert.equal(decodeSets(damaged), undefined, `byte ${at}`)
    }
    for (let end = 0; end < bytes.length; end++) {
      assert.equal(decodeSets(bytes.subarray(0, end)), undefined)
    }
  })

  test('between a start and the next stop there is no file that a crash could leave', () =>
    withWorld(async (world) => {
      await backUp(world, null)
      await world.stop()
      const changes = join(world.directory, 'backup', 'changes')
      assert.deepEqual((await readdir(changes)).toSorted(), ['v1.blocks', 'v2.blocks'])
      assert.ok((await readFile(join(changes, 'v1.blocks'))).length > 0)
      await world.start()
      assert.deepEqual(await readdir(changes), [])
    }))

  test('what changed between two moments of one backup, of which the first came to nothing, is in it', () =>
    withWorld(async (world) => {
      const tracking = await openChangeTracking({
        directory: join(world.directory, 'others'),
        log: createLog('test', 'silent'),
      })
      const kept = { checkpoint: 'c1', name: 'v1', root: '00' }
      tracking.begin('v1', SIZES.v1, 'first')
      tracking.committed('v1', 'first', kept)
      const watch = tracking.opened('v1')
      watch.changed(BLOCK, 1)
      // The disk was full after the moment, and the agent stopped: the backup goes on at its next start, with a moment of its own.
      tracking.begin('v1', SIZES.v1, 'second')
      watch.changed(5 * BLOCK, 1)
      tracking.begin('v1', SIZES.v1, 'second')
      watch.changed(7 * BLOCK, 1)
      const { set } = tracking.between('v1', 'c1', 'second') ?? { set: new BlockSet(0) }
      assert.deepEqual([set.next(0), set.next(2), set.next(6)], [1, 5, -1])
    }))
})
