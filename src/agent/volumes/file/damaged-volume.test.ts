/** What becomes of a volume whose file somebody, or the disk, has done something to; and of changes that there is no room for. */
import assert from 'node:assert/strict'
import { existsSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { systemFileRanges } from '#base/system/libc.ts'
import { withFilesUpTo } from '../../../../test/support/file-limit.ts'
import { VOLUME_FAILED, VOLUME_NO_SPACE } from '../faults.ts'
import type { VolumeStore } from '../volume-store.ts'
import { openFileVolumeStore } from './file-volume-store.ts'

const log = createLog('test', 'silent')
const KIB = 1024
const ONE = 'one'
const TWO = 'two'
const standalone = { mode: 'standalone' } as const
const standby = { mode: 'standby', reason: 'elsewhere' } as const
const isFailed = (error: unknown) => isFault(error, VOLUME_FAILED)
const isFull = (error: unknown) => isFault(error, VOLUME_NO_SPACE)

let directory: string
let store: VolumeStore
/** Looking at a data file fails. */
let broken: boolean
const system = systemFileRanges()
const ranges = {
  ...system,
  shape(fd: number) {
    if (broken) throw Object.assign(new Error('EIO: i/o error, statx'), { code: 'EIO' })
    return system.shape(fd)
  },
}
const wallMs = () => 1_700_000_000_000
const openStore = () => openFileVolumeStore({ directory, log, wallMs, ranges, bootDirectories: [] })
beforeEach(async () => {
  broken = false
  directory = await mkdtemp(join(tmpdir(), 'holdfast-damaged-'))
  store = await openStore()
})
afterEach(async () => {
  await store.close()
  await rm(directory, { recursive: true })
})
const restart = async () => {
  await store.close()
  store = await openStore()
}
const data = (id: string) => join(directory, id, 'data')
const failedMark = (id: string) => readFileSync(join(directory, id, 'failed'), 'utf8')

describe('a data file that', () => {
  test('vanished while no agent ran fails its volume, durably, and no other', async () => {
    await store.create(ONE, 64 * KIB, standalone)
    await store.create(TWO, 64 * KIB, standalone)
    await store.close()
    rmSync(data(ONE))
    store = await openStore()
    const volume = await store.open(ONE)
    assert.match(volume.failed ?? '', /the data file is gone/)
    await assert.rejects(volume.flush(), isFailed)
    assert.equal(await volume.allocatedBytes(), 0)
    await (await store.open(TWO)).flush()
    assert.match(failedMark(ONE), /gone/)
    // It does not come back by being found again: what it holds then is anybody's guess.
    await restart()
    writeFileSync(data(ONE), Buffer.alloc(64 * KIB))
    assert.match((await store.open(ONE)).failed ?? '', /gone/)
    await store.delete(ONE)
    await store.create(ONE, 64 * KIB, standalone)
    assert.equal((await store.open(ONE)).failed, undefined)
  })

  test('is removed while it is open fails the flush that would have called it durable', async () => {
    await store.create(ONE, 64 * KIB, standalone)
    const volume = await store.open(ONE)
    volume.writeSync(Buffer.from('x'), 0, 1, 0)
    await volume.flush()
    rmSync(data(ONE))
    volume.writeSync(Buffer.from('y'), 0, 1, 0)
    await assert.rejects(volume.flush(), isFailed)
    await assert.rejects(volume.flush(), isFailed)
    assert.throws(() => volume.writeSync(Buffer.from('z'), 0, 1, 0), isFailed)
    assert.match(failedMark(ONE), /removed/)
  })

  for (const [who, ask] of [
    ['a read', () => store.open(ONE).then((volume) => volume.read(Buffer.alloc(KIB), 0, KIB, 0))],
    [
      'a read on the loop',
      () => store.open(ONE).then((volume) => volume.readSync(Buffer.alloc(KIB), 0, KIB, 0)),
    ],
    ['a flush', () => store.open(ONE).then((volume) => volume.flush())],
    ['a look for holes', () => store.open(ONE).then((volume) => volume.extents(0, 64 * KIB))],
  ] as const) {
    test(`is cut off while it is open fails the volume: ${who} finds out`, async () => {
      await store.create(ONE, 64 * KIB, standalone)
      const volume = await store.open(ONE)
      volume.writeSync(Buffer.alloc(64 * KIB, 7), 0, 64 * KIB, 0)
      truncateSync(data(ONE), 512)
      await assert.rejects(ask(), isFailed)
      // What is still there is not served any more, and no write makes the file look whole again.
      await assert.rejects(volume.read(Buffer.alloc(1), 0, 1, 0), isFailed)
      assert.throws(() => volume.writeSync(Buffer.from('z'), 0, 1, 64 * KIB - 1), isFailed)
      await restart()
      assert.match(store.record(ONE)?.failed ?? '', /shorter/)
    })
  }

  for (const ahead of [false, true]) {
    test(`cannot be looked at any more fails its volume for good${ahead ? ', also when the flush was prepared' : ''}`, async () => {
      await store.create(ONE, 64 * KIB, standalone)
      const volume = await store.open(ONE)
      volume.writeSync(Buffer.from('x'), 0, 1, 0)
      broken = true
      if (ahead) volume.prepareFlush(true)
      else await assert.rejects(volume.flush(), isFailed)
      broken = false
      // The file system is mended, and what it threw away is still gone.
      await assert.rejects(volume.flush(), isFailed)
      assert.match(failedMark(ONE), /EIO/)
    })
  }

  test('is gone with its whole folder fails the change of its record as well', async () => {
    await store.create(ONE, 64 * KIB, standalone)
    rmSync(join(directory, ONE), { recursive: true })
    await assert.rejects(store.setServing(ONE, standby), isFailed)
    assert.match(store.record(ONE)?.failed ?? '', /gone/)
    assert.deepEqual(store.record(ONE)?.serving, standalone)
  })

  test('is gone with its whole folder can still be deleted and made anew', async () => {
    await store.create(ONE, 64 * KIB, standalone)
    rmSync(join(directory, ONE), { recursive: true })
    await store.delete(ONE)
    assert.equal(store.record(ONE), undefined)
    await store.create(ONE, 64 * KIB, standalone)
    await (await store.open(ONE)).flush()
  })
})

describe('a change that there is no room for', () => {
  test('is refused when a volume is extended, and fails no copy', async () => {
    await store.create(ONE, 64 * KIB, standalone)
    const volume = await store.open(ONE)
    volume.writeSync(Buffer.from('x'), 0, 1, 0)
    await withFilesUpTo(128 * KIB, () => assert.rejects(store.extend(ONE, 1024 * KIB), isFull))
    assert.equal(volume.failed, undefined)
    assert.equal(volume.sizeBytes, 64 * KIB)
    await volume.flush()
    await store.extend(ONE, 1024 * KIB)
    assert.equal(volume.sizeBytes, 1024 * KIB)
  })

  test('is refused when only the record of an extension has none: the volume stays as long as its record says, and later grows by zeroes', async () => {
    const tail = () => readFileSync(data(ONE)).subarray(64)
    await store.create(ONE, 64, standalone)
    const volume = await store.open(ONE)
    await withFilesUpTo(130, () => assert.rejects(store.extend(ONE, 128), isFull))
    assert.equal(store.record(ONE)?.sizeBytes, 64)
    assert.equal(volume.sizeBytes, 64)
    assert.equal(tail().length, 64, 'the file is as long already')
    // Whatever lies there was never acknowledged.
    writeFileSync(data(ONE), Buffer.alloc(128, 7))
    await volume.flush()
    await restart()
    const again = await store.open(ONE)
    assert.equal(again.sizeBytes, 64)
    await store.extend(ONE, 128)
    assert.equal(again.sizeBytes, 128)
    assert.deepEqual(tail(), Buffer.alloc(64))
    assert.deepEqual(readFileSync(data(ONE)).subarray(0, 64), Buffer.alloc(64, 7))
  })

  test('is refused when a volume is made, whichever of its files it is, and nothing of it is left', async () => {
    for (const sizeBytes of [64 * KIB, 64]) {
      await withFilesUpTo(100, () =>
        assert.rejects(store.create(ONE, sizeBytes, standalone), isFull),
      )
      assert.deepEqual(await readdir(directory), ['lock'])
      await store.create(ONE, sizeBytes, standalone)
      await store.delete(ONE)
    }
  })

  test('is refused when a record changes: the old one counts, and no half of the new one is left', async () => {
    await store.create(ONE, 64, standalone)
    await withFilesUpTo(100, () => assert.rejects(store.setServing(ONE, standby), isFull))
    assert.deepEqual(store.record(ONE)?.serving, standalone)
    assert.deepEqual((await readdir(join(directory, ONE))).toSorted(), ['data', 'meta.json'])
    await restart()
    assert.deepEqual(store.record(ONE)?.serving, standalone)
    await store.setServing(ONE, standby)
    assert.deepEqual(store.record(ONE)?.serving, standby)
  })

  test('is refused in the middle of a write, which is then not carried out in part and called done', async () => {
    await store.create(ONE, 64 * KIB, standalone)
    const volume = await store.open(ONE)
    await withFilesUpTo(5000, async () => {
      const write = () => volume.writeSync(Buffer.alloc(8 * KIB, 1), 0, 8 * KIB, 0)
      assert.throws(write, isFull)
    })
    assert.equal(volume.failed, undefined)
    assert.equal(existsSync(join(directory, ONE, 'failed')), false)
    await volume.flush()
  })
})
