import assert from 'node:assert/strict'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import type { Range, Snapshots, SnapshotView } from '#agent/snapshots/snapshots.ts'
import { openSnapshots } from '#agent/snapshots/store/snapshot-store.ts'
import { openFileVolumeStore } from '#agent/volumes/file/file-volume-store.ts'
import type { Volume } from '#agent/volumes/volume.ts'
import type { VolumeStore } from '#agent/volumes/volume-store.ts'
import { differingRanges } from './differing-ranges.ts'
import { type Divergences, type KeepDivergence, openDivergences } from './divergences.ts'
import { DIVERGENCE_NOT_READY, DIVERGENCE_UNKNOWN, RANGE_NOT_KEPT } from './faults.ts'
import { encodeRecord } from './record.ts'

const BLOCK = 64 * 1024
const SIZE = 4 * 1024 * 1024
const log = createLog('test', 'silent')

let root: string
let volumes: VolumeStore
let snapshots: Snapshots
let divergences: Divergences

async function open(): Promise<void> {
  volumes = await openFileVolumeStore({
    directory: join(root, 'volumes'),
    log,
    wallMs: () => systemClock.wallMs(),
  })
  const clock = systemClock
  snapshots = await openSnapshots({ directory: join(root, 'snapshots'), volumes, clock, log })
  divergences = await openDivergences({
    directory: join(root, 'divergences'),
    snapshots,
    volumes,
    clock,
    log,
  })
}

async function close(): Promise<void> {
  await snapshots.close()
  await volumes.close()
}

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'holdfast-divergence-'))
  await open()
  for (const id of ['one', 'two']) {
    await volumes.create(id, SIZE, { mode: 'standalone' }, 'project')
  }
})
afterEach(async () => {
  await close()
  await rm(root, { recursive: true, force: true })
})

async function write(id: string, block: number, fill: number): Promise<void> {
  const volume = await volumes.open(id)
  const offset = block * BLOCK
  for (let wait = volume.guard(offset, BLOCK); wait !== null; wait = volume.guard(offset, BLOCK)) {
    await wait
  }
  volume.writeSync(Buffer.alloc(BLOCK, fill), 0, BLOCK, offset)
}

const request = (ranges: { one: Range[] | null; two: Range[] | null }): KeepDivergence => ({
  snapshot: 'kept-1',
  session: 'session',
  site: 'az1',
  winner: 'az2',
  baseEpoch: 2,
  epoch: 5,
  why: 'az1 had acknowledged writes that az2 never had.',
  volumes: [
    { volume: 'one', pair: 'pair-one', ranges: ranges.one },
    { volume: 'two', pair: 'pair-two', ranges: ranges.two },
  ],
})

/** Blocks 1, 2 and 7 hold the loser's data; the resync overwrites 1, 2 and 3. */
async function diverged(): Promise<void> {
  for (const block of [1, 2, 7]) await write('one', block, 0xaa)
  await snapshots.take({ id: 'kept-1', purpose: 'kept', volumes: ['one', 'two'] })
  for (const block of [1, 2, 3]) await write('one', block, 0xbb)
}

const own = [{ offset: BLOCK, length: 2 * BLOCK }]

test('a record holds the bytes that were overwritten, inside the ranges that the loser had changed', async () => {
  await diverged()
  const record = await divergences.keep(request({ one: own, two: [] }))
  assert.ok(record !== null)
  assert.deepEqual([record.state, record.owner, record.site], ['kept', 'project', 'az1'])
  assert.deepEqual(
    record.volumes.map(({ volume, ranges, bytes }) => [volume, ranges, bytes]),
    [
      ['one', 1, 2 * BLOCK],
      ['two', 0, 0],
    ],
  )
  assert.deepEqual(divergences.ranges('kept-1', 'one'), own)
  const data = await divergences.read('kept-1', 'one', BLOCK + 100, BLOCK)
  assert.deepEqual(data, Buffer.alloc(BLOCK, 0xaa))
  // What is written later changes nothing about it.
  await write('one', 1, 0xcc)
  assert.deepEqual(await divergences.read('kept-1', 'one', BLOCK, BLOCK), Buffer.alloc(BLOCK, 0xaa))
  assert.deepEqual(await divergences.keep(request({ one: own, two: [] })), record)
})

test('without knowledge of the loser everything that the resync overwrote is kept', async () => {
  await diverged()
  const record = await divergences.keep(request({ one: null, two: null }))
  assert.equal(record?.volumes[0]?.bytes, 3 * BLOCK)
  assert.deepEqual(divergences.ranges('kept-1', 'one'), [{ offset: BLOCK, length: 3 * BLOCK }])
})

test('a range that is not kept is refused, as is an unknown record or volume', async () => {
  await diverged()
  await divergences.keep(request({ one: own, two: [] }))
  const outside = divergences.read('kept-1', 'one', 2 * BLOCK, 2 * BLOCK)
  await assert.rejects(outside, (error) => isFault(error, RANGE_NOT_KEPT))
  for (const [id, volume] of [
    ['kept-2', 'one'],
    ['kept-1', 'three'],
  ] as const) {
    assert.throws(
      () => divergences.ranges(id, volume),
      (error) => isFault(error, DIVERGENCE_UNKNOWN),
    )
  }
})

test('when nothing was overwritten there is no record, and the snapshot is gone', async () => {
  await snapshots.take({ id: 'kept-1', purpose: 'kept', volumes: ['one', 'two'] })
  assert.equal(await divergences.keep(request({ one: own, two: null })), null)
  assert.deepEqual([divergences.list(), snapshots.show('kept-1')], [[], undefined])
})

test('records and their bytes survive a restart, and a deleted one stays deleted', async () => {
  await diverged()
  await divergences.keep(request({ one: own, two: [] }))
  await close()
  await open()
  assert.deepEqual(
    divergences.list().map(({ divergence, state }) => [divergence, state]),
    [['kept-1', 'kept']],
  )
  assert.deepEqual(await divergences.read('kept-1', 'one', BLOCK, BLOCK), Buffer.alloc(BLOCK, 0xaa))
  await divergences.delete('kept-1')
  await divergences.delete('kept-1')
  assert.equal(snapshots.show('kept-1'), undefined)
  await close()
  await open()
  assert.deepEqual(divergences.list(), [])
  assert.deepEqual(await readdir(join(root, 'divergences')), [])
})

test('a crash at any moment of keeping is mended by the next opening', async () => {
  await diverged()
  const record = await divergences.keep(request({ one: own, two: [] }))
  const path = join(root, 'divergences', 'kept-1.json')
  assert.ok(record !== null)
  const keeping = encodeRecord({
    ...record,
    state: 'keeping',
    volumes: record.volumes.map((one) => ({
      ...one,
      ranges: 0,
      bytes: 0,
      wanted: one.volume === 'one' ? [...own] : [],
    })),
  })
  // After the seal, before the last manifest.
  await close()
  await writeFile(path, keeping)
  await open()
  assert.deepEqual(divergences.show('kept-1'), record)
  await divergences.delete('kept-1')

  // After the first manifest, before the seal.
  await diverged()
  await close()
  await writeFile(path, keeping)
  await open()
  assert.deepEqual(divergences.show('kept-1'), record)
  assert.equal(snapshots.show('kept-1')?.state, 'sealed')
})

test('what could not be kept is on record as lost, with the reason', async () => {
  const record = await divergences.keep(request({ one: own, two: [] }))
  assert.deepEqual([record?.state, record?.reason], ['lost', 'its snapshot is gone'])
  assert.throws(
    () => divergences.ranges('kept-1', 'one'),
    (error) => isFault(error, DIVERGENCE_NOT_READY),
  )
  await close()
  await open()
  assert.equal(divergences.show('kept-1')?.state, 'lost')
})

test('a record does not go on saying that it keeps what is not there any more', async () => {
  await diverged()
  assert.equal((await divergences.keep(request({ one: own, two: [] })))?.state, 'kept')
  await close()
  await rm(join(root, 'snapshots', 'kept-1'), { recursive: true })
  for (let start = 1; start <= 2; start++) {
    await open()
    const found = divergences.show('kept-1')
    assert.deepEqual([found?.state, found?.reason], ['lost', 'its snapshot is gone'])
    await close()
  }
  await open()
  await divergences.delete('kept-1')
  assert.deepEqual(divergences.list(), [])
})

test('a manifest that cannot be read is left alone, and the others are there', async () => {
  await diverged()
  await divergences.keep(request({ one: own, two: [] }))
  await close()
  await writeFile(join(root, 'divergences', 'other.json'), '{"version":2}')
  await open()
  assert.equal(divergences.list().length, 1)
  assert.ok((await readdir(join(root, 'divergences'))).includes('other.json'))
})

test('differing blocks are found by their bytes, holes and the end of a volume included', async () => {
  const size = 2 * 1024 * 1024 + 512
  const was = Buffer.alloc(size)
  const is = Buffer.alloc(size)
  was.fill(1, 3 * BLOCK, 5 * BLOCK)
  is.fill(1, 3 * BLOCK, 4 * BLOCK)
  is[size - 1] = 9
  const side = (bytes: Buffer) => ({
    sizeBytes: size,
    read: async (buf: Uint8Array, at: number, length: number, offset: number) => {
      buf.set(bytes.subarray(offset, offset + length), at)
    },
    extents: async (offset: number, length: number) => {
      const hole = bytes.subarray(offset, offset + length).every((byte) => byte === 0)
      return [{ offset, length, hole }]
    },
  })
  const found = await differingRanges(
    side(was) as unknown as SnapshotView,
    side(is) as unknown as Volume,
  )
  assert.deepEqual(found, [
    { offset: 4 * BLOCK, length: BLOCK },
    { offset: 32 * BLOCK, length: 512 },
  ])
})
