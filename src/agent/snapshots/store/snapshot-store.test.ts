import assert from 'node:assert/strict'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { systemFileRanges } from '#base/system/libc.ts'
import { VOLUME_CLOSED, VOLUME_NO_SPACE } from '#agent/volumes/faults.ts'
import {
  SNAPSHOT_BROKEN,
  SNAPSHOT_BUSY,
  SNAPSHOT_FAILED,
  SNAPSHOT_LIMIT,
  SNAPSHOT_NO_SPACE,
} from '../faults.ts'
import { SNAPSHOT_BLOCK_BYTES, type SnapshotPurpose } from '../snapshots.ts'
import { assertSame, contentOf, guardedWrite, snapshotsContract } from '../snapshots.contract.ts'
import { decodeSnapshot, encodeSnapshot } from './record.ts'
import type { StoreDisk, StoreFile } from './disk.ts'
import { type StoreWorld, worldIn } from './snapshot-store.contract.ts'
import { systemDisk } from './system-disk.ts'

snapshotsContract('before-images', 'before_image', () => worldIn(tmpdir()))

const BLOCK = SNAPSHOT_BLOCK_BYTES
const SIZE = 8 * BLOCK

type Call = 'write' | 'datasync'
/** The real disk, whose calls on the stores of before-images fail by plan. */
function faultyDisk(plan: (call: Call, path: string) => string | undefined): StoreDisk {
  const real = systemDisk(systemFileRanges())
  const check = (call: Call, path: string): void => {
    const code = plan(call, path)
    if (code !== undefined) throw Object.assign(new Error(`${code}: planned`), { code })
  }
  return {
    async open(path, create) {
      const file: StoreFile = await real.open(path, create)
      return {
        ...file,
        async write(buf, offset) {
          check('write', path)
          await file.write(buf, offset)
        },
        async datasync() {
          check('datasync', path)
          await file.datasync()
        },
      }
    },
  }
}

interface Faulty {
  readonly world: StoreWorld
  /** Which errno the files whose name ends so fail with. */
  fail: { readonly call: Call; readonly ending: string; readonly code: string } | undefined
}

async function faultyWorld(): Promise<Faulty> {
  const state: { fail: Faulty['fail'] } = { fail: undefined }
  const disk = faultyDisk((call, path) =>
    state.fail?.call === call && path.endsWith(state.fail.ending) ? state.fail.code : undefined,
  )
  const world = await worldIn(tmpdir(), { disk })
  await world.volumes.create('v1', SIZE, { mode: 'standalone' })
  return {
    world,
    get fail() {
      return state.fail
    },
    set fail(next) {
      state.fail = next
    },
  }
}

const take = ({ snapshots }: StoreWorld, purpose: SnapshotPurpose, id = 's1') =>
  snapshots.take({ id, purpose, volumes: ['v1'] })

test('without space the snapshot of a user fails visibly, and the write goes on', async (t) => {
  const faulty = await faultyWorld()
  const { world } = faulty
  t.after(() => world.clean())
  const volume = await world.volumes.open('v1')
  await guardedWrite(volume, 0, Buffer.alloc(SIZE, 1))
  await take(world, 'user')
  faulty.fail = { call: 'write', ending: '.data', code: 'ENOSPC' }
  await guardedWrite(volume, 100, Buffer.alloc(10, 2))
  assert.equal((await contentOf(volume))[100], 2)
  assert.equal(world.snapshots.show('s1')?.state, 'failed')
  assert.match(world.snapshots.show('s1')?.reason ?? '', /ENOSPC/)
  await assert.rejects(world.snapshots.open('s1', 'v1'), (error) => isFault(error, SNAPSHOT_FAILED))
  await assert.rejects(world.snapshots.rollback('s1'), (error) => isFault(error, SNAPSHOT_FAILED))
  assert.equal(volume.guard(0, SIZE), null)
  await world.restart()
  assert.equal(world.snapshots.show('s1')?.state, 'failed')
  await world.snapshots.delete('s1')
  assert.deepEqual(world.snapshots.list(), [])
})

test('that a snapshot failed is durable even when its record could not be written', async (t) => {
  const faulty = await faultyWorld()
  const { world } = faulty
  t.after(() => world.clean())
  const volume = await world.volumes.open('v1')
  await guardedWrite(volume, 0, Buffer.alloc(SIZE, 1))
  await take(world, 'user')
  const record = join(world.directory, 'snapshots', 's1', 'snapshot.json')
  const before = readFileSync(record)
  faulty.fail = { call: 'write', ending: '.data', code: 'ENOSPC' }
  await guardedWrite(volume, 100, Buffer.alloc(10, 2))
  faulty.fail = undefined
  await world.snapshots.close()
  writeFileSync(record, before)
  await world.restart()
  assert.equal(world.snapshots.show('s1')?.state, 'failed')
})

test('without space a kept copy stays whole: the write is refused until there is space', async (t) => {
  const faulty = await faultyWorld()
  const { world } = faulty
  t.after(() => world.clean())
  const volume = await world.volumes.open('v1')
  await guardedWrite(volume, 0, Buffer.alloc(SIZE, 1))
  const before = await contentOf(volume)
  await take(world, 'kept')
  for (const ending of ['.data', '.map']) {
    for (const call of ['write', 'datasync'] as const) {
      faulty.fail = { call, ending, code: 'ENOSPC' }
      await assert.rejects(guardedWrite(volume, 100, Buffer.alloc(10, 2)), (error) =>
        isFault(error, VOLUME_NO_SPACE),
      )
    }
  }
  assert.equal(world.snapshots.show('s1')?.state, 'ready')
  faulty.fail = undefined
  await guardedWrite(volume, 100, Buffer.alloc(10, 2))
  assertSame(await contentOf(await world.snapshots.open('s1', 'v1')), before, 'kept copy')
  await world.restart()
  assertSame(await contentOf(await world.snapshots.open('s1', 'v1')), before, 'after a restart')
})

test('a broken disk under a kept copy refuses the write for good, and fails the snapshot of a user', async (t) => {
  const faulty = await faultyWorld()
  const { world } = faulty
  t.after(() => world.clean())
  const volume = await world.volumes.open('v1')
  await guardedWrite(volume, 0, Buffer.alloc(SIZE, 1))
  await take(world, 'kept')
  await take(world, 'user', 's2')
  faulty.fail = { call: 'datasync', ending: '.data', code: 'EIO' }
  await assert.rejects(guardedWrite(volume, 0, Buffer.alloc(10, 2)), (error) =>
    isFault(error, SNAPSHOT_BROKEN),
  )
  assert.equal(world.snapshots.show('s1')?.state, 'ready')
  assert.equal(world.snapshots.show('s2')?.state, 'failed')
})

test('when even the mark of the failure cannot be stored, the write is refused', async (t) => {
  const faulty = await faultyWorld()
  const { world } = faulty
  t.after(() => world.clean())
  const volume = await world.volumes.open('v1')
  await guardedWrite(volume, 0, Buffer.alloc(SIZE, 1))
  await take(world, 'user')
  faulty.fail = { call: 'datasync', ending: '.map', code: 'EIO' }
  await assert.rejects(guardedWrite(volume, 0, Buffer.alloc(10, 2)), (error) =>
    isFault(error, SNAPSHOT_BROKEN),
  )
  assert.equal((await contentOf(volume))[0], 1)
})

test('the reserve of the file system is for kept copies only', async (t) => {
  const world = await worldIn(tmpdir(), { reserveBytes: Number.MAX_SAFE_INTEGER })
  t.after(() => world.clean())
  await world.volumes.create('v1', SIZE, { mode: 'standalone' })
  await assert.rejects(take(world, 'user'), (error) => isFault(error, SNAPSHOT_NO_SPACE))
  assert.deepEqual(world.snapshots.list(), [])
  await take(world, 'kept')
  const volume = await world.volumes.open('v1')
  await guardedWrite(volume, 0, Buffer.alloc(10, 1))
})

test('a volume has a limited number of snapshots, and kept copies are always taken', async (t) => {
  const world = await worldIn(tmpdir())
  t.after(() => world.clean())
  await world.volumes.create('v1', SIZE, { mode: 'standalone' })
  for (let i = 0; i < 32; i++) await take(world, 'backup', `s${i}`)
  await assert.rejects(take(world, 'user', 'more'), (error) => isFault(error, SNAPSHOT_LIMIT))
  await take(world, 'kept', 'kept')
})

test('many writers share syncs, holes take no space, and zeroes count as holes', async (t) => {
  let syncs = 0
  const disk = faultyDisk((call) => {
    if (call === 'datasync') syncs++
    return undefined
  })
  const world = await worldIn(tmpdir(), { disk })
  t.after(() => world.clean())
  await world.volumes.create('v1', 256 * BLOCK, { mode: 'standalone' })
  const volume = await world.volumes.open('v1')
  await guardedWrite(volume, 0, Buffer.alloc(64 * BLOCK, 1))
  await guardedWrite(volume, 64 * BLOCK, Buffer.alloc(64 * BLOCK))
  await take(world, 'user')
  syncs = 0
  await Promise.all(
    Array.from({ length: 64 }, (_, i) => guardedWrite(volume, i * BLOCK, Buffer.alloc(512, 2))),
  )
  assert.ok(syncs <= 4, `${syncs} syncs for 64 writes that came together`)
  const data = join(world.directory, 'snapshots', 's1', 'v1.data')
  const takenBytes = statSync(data).blocks * 512
  for (let i = 64; i < 256; i++) await guardedWrite(volume, i * BLOCK, Buffer.alloc(512, 2))
  assert.equal(statSync(data).blocks * 512, takenBytes)
  assert.equal(world.snapshots.show('s1')?.volumes[0]?.keptBytes, 256 * BLOCK)
})

/** As a process leaves a record that is killed in a rollback. */
function setRollingBack(path: string): void {
  const found = decodeSnapshot(readFileSync(path, 'utf8'))
  assert.ok(!('problem' in found))
  writeFileSync(path, encodeSnapshot({ ...found, state: 'rolling_back' }))
}

test('a rollback that was cut off is finished at the next start, before anybody can open the volume', async (t) => {
  const world = await worldIn(tmpdir())
  t.after(() => world.clean())
  await world.volumes.create('v1', SIZE, { mode: 'standalone' })
  const volume = await world.volumes.open('v1')
  await guardedWrite(volume, 0, Buffer.alloc(SIZE, 1))
  await take(world, 'user')
  await guardedWrite(volume, 0, Buffer.alloc(4 * BLOCK, 2))
  // As a process leaves it that is killed when the first block is back.
  const record = join(world.directory, 'snapshots', 's1', 'snapshot.json')
  volume.writeSync(Buffer.alloc(BLOCK, 1), 0, BLOCK, 0)
  await world.snapshots.close()
  setRollingBack(record)
  await world.restart()
  assert.equal(world.snapshots.show('s1')?.state, 'ready')
  assertSame(await contentOf(await world.volumes.open('v1')), Buffer.alloc(SIZE, 1), 'rolled back')
  assert.ok((await world.volumes.open('v1')).guard(5 * BLOCK, 1) !== null)
})

test('a rollback that cannot be finished keeps the volume from being opened, and a repeat mends it', async (t) => {
  const world = await worldIn(tmpdir())
  t.after(() => world.clean())
  await world.volumes.create('v1', SIZE, { mode: 'standalone' })
  const volume = await world.volumes.open('v1')
  await guardedWrite(volume, 0, Buffer.alloc(SIZE, 1))
  await take(world, 'user')
  await guardedWrite(volume, 0, Buffer.alloc(4 * BLOCK, 2))
  // The batch after it says that the one before it was durable: what is missing of that one is damage.
  await guardedWrite(volume, 6 * BLOCK, Buffer.alloc(1, 2))
  const data = join(world.directory, 'snapshots', 's1', 'v1.data')
  const preserved = readFileSync(data)
  const record = join(world.directory, 'snapshots', 's1', 'snapshot.json')
  await world.snapshots.close()
  setRollingBack(record)
  writeFileSync(data, Buffer.concat([Buffer.alloc(4 * BLOCK, 7), preserved.subarray(4 * BLOCK)]))
  await world.restart()
  const busy = (error: unknown) => isFault(error, SNAPSHOT_BUSY) || isFault(error, SNAPSHOT_BROKEN)
  assert.equal(world.snapshots.show('s1')?.state, 'rolling_back')
  await assert.rejects(world.volumes.open('v1'), busy)
  await assert.rejects(world.snapshots.rollback('s1'), busy)
  writeFileSync(data, preserved)
  await world.restart()
  assert.equal(world.snapshots.show('s1')?.state, 'ready')
  assertSame(await contentOf(await world.volumes.open('v1')), Buffer.alloc(SIZE, 1), 'mended')
})

test('deleting a snapshot whose rollback cannot be finished fails its volumes', async (t) => {
  const world = await worldIn(tmpdir())
  t.after(() => world.clean())
  await world.volumes.create('v1', SIZE, { mode: 'standalone' })
  const volume = await world.volumes.open('v1')
  await guardedWrite(volume, 0, Buffer.alloc(SIZE, 1))
  await take(world, 'user')
  await guardedWrite(volume, 0, Buffer.alloc(4 * BLOCK, 2))
  await guardedWrite(volume, 6 * BLOCK, Buffer.alloc(1, 2))
  const data = join(world.directory, 'snapshots', 's1', 'v1.data')
  writeFileSync(data, Buffer.concat([Buffer.alloc(BLOCK, 7), readFileSync(data).subarray(BLOCK)]))
  await assert.rejects(world.snapshots.rollback('s1'), (error) => isFault(error, SNAPSHOT_BROKEN))
  await assert.rejects(world.volumes.open('v1'), (error) => isFault(error, SNAPSHOT_BUSY))
  await assert.rejects(guardedWrite(volume, 0, Buffer.alloc(1)), (error) =>
    isFault(error, SNAPSHOT_BUSY),
  )
  await world.snapshots.delete('s1')
  assert.match(world.volumes.record('v1')?.failed ?? '', /half rolled back/)
  await world.restart()
  assert.match(world.volumes.record('v1')?.failed ?? '', /half rolled back/)
  await world.volumes.delete('v1')
})

test('a write that waits while the store is closed is refused, not let through', async (t) => {
  const world = await worldIn(tmpdir())
  t.after(() => world.clean())
  await world.volumes.create('v1', SIZE, { mode: 'standalone' })
  const volume = await world.volumes.open('v1')
  await guardedWrite(volume, 0, Buffer.alloc(SIZE, 1))
  await take(world, 'user')
  const writes = Array.from({ length: 8 }, (_, i) =>
    guardedWrite(volume, i * BLOCK, Buffer.alloc(BLOCK, 2)).catch((error: unknown) => {
      assert.ok(isFault(error, VOLUME_CLOSED))
    }),
  )
  await world.snapshots.close()
  await Promise.all(writes)
  await world.restart()
  assertSame(
    await contentOf(await world.snapshots.open('s1', 'v1')),
    Buffer.alloc(SIZE, 1),
    'the snapshot',
  )
})

test('leftovers of a take or a delete that was cut off are gone after a start', async (t) => {
  const world = await worldIn(tmpdir())
  t.after(() => world.clean())
  await world.volumes.create('v1', SIZE, { mode: 'standalone' })
  await take(world, 'user')
  const snapshots = join(world.directory, 'snapshots')
  await world.snapshots.close()
  for (const name of ['.new-a', '.gone-b']) writeFileSync(join(snapshots, name), '')
  await world.restart()
  assert.deepEqual(
    world.snapshots.list().map(({ id }) => id),
    ['s1'],
  )
  assert.equal(existsSync(join(snapshots, '.new-a')), false)
  assert.equal(existsSync(join(snapshots, '.gone-b')), false)
})

test('a snapshot whose record is damaged is shown as failed and does not stop the start', async (t) => {
  const world = await worldIn(tmpdir())
  t.after(() => world.clean())
  await world.volumes.create('v1', SIZE, { mode: 'standalone' })
  await take(world, 'user')
  await world.snapshots.close()
  writeFileSync(join(world.directory, 'snapshots', 's1', 'snapshot.json'), '{')
  await world.restart()
  assert.equal(world.snapshots.show('s1')?.state, 'failed')
  await world.snapshots.delete('s1')
})

test('a long zero under way is waited for at the moment, and the rest of it preserves first', async (t) => {
  const world = await worldIn(tmpdir())
  t.after(() => world.clean())
  await world.volumes.create('v1', 256 * BLOCK, { mode: 'standalone' })
  const volume = await world.volumes.open('v1')
  await guardedWrite(volume, 0, Buffer.alloc(256 * BLOCK, 1))
  const zeroing = volume.zero(0, 256 * BLOCK, true)
  await take(world, 'user')
  const view = await world.snapshots.open('s1', 'v1')
  const first = await contentOf(view)
  await zeroing
  assertSame(await contentOf(view), first, 'while and after')
})
