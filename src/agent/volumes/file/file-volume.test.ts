import assert from 'node:assert/strict'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  statfsSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { LOCKED } from '#base/system/files.ts'
import { type FileRanges, NO_FILE_RANGES, systemFileRanges } from '#base/system/libc.ts'
import { SIZE_MISMATCH, VOLUME_FAILED, VOLUME_NO_SPACE, VOLUME_UNKNOWN } from '../faults.ts'
import { forgetLeftCopy, type VolumeStore } from '../volume-store.ts'
import { type VolumeMaker, volumeContract } from '../volume.contract.ts'
import { openFileVolumeStore } from './file-volume-store.ts'

const log = createLog('test', 'silent')
const MIB = 1024 * 1024
const TMPFS = 0x01021994
const inMemory = (path: string) => existsSync(path) && statfsSync(path).type === TMPFS
const NO_SHM = inMemory('/dev/shm') && !inMemory(tmpdir()) ? false : 'no /dev/shm in memory here'
const BOOT = join(tmpdir(), `holdfast-boot-${process.pid}`)
const ID = '0b7e3b7e-6a53-4a0e-8b0b-6f6a5f1d2c3b'

const openStore = (
  directory: string,
  ranges: FileRanges = systemFileRanges(),
  bootDirectories = [BOOT],
) =>
  openFileVolumeStore({ directory, log, wallMs: () => 1_700_000_000_000, ranges, bootDirectories })

async function maker(ranges: FileRanges, holes: boolean): Promise<VolumeMaker> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-volume-'))
  let store = await openStore(directory, ranges)
  return {
    holes,
    async make(sizeBytes) {
      await store.create(ID, sizeBytes, { mode: 'standalone' })
      return store.open(ID)
    },
    async reopen() {
      await store.close()
      store = await openStore(directory, ranges)
      return store.open(ID)
    },
    async clean() {
      await store.close()
      await rm(directory, { recursive: true })
    },
  }
}

volumeContract('file', () => maker(systemFileRanges(), true))
volumeContract('file on a file system without holes', () => maker(NO_FILE_RANGES, false))

let directory: string
let store: VolumeStore
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'holdfast-store-'))
  store = await openStore(directory)
})
afterEach(async () => {
  await store.close()
  await rm(directory, { recursive: true })
})
const restart = async () => {
  await store.close()
  store = await openStore(directory)
}
const standalone = { mode: 'standalone' } as const

test('creating the same volume again changes nothing, another size is refused', async () => {
  const [first, second] = await Promise.all([
    store.create(ID, MIB, standalone),
    store.create(ID, MIB, { mode: 'standby', reason: 'late' }),
  ])
  assert.deepEqual(first, second)
  assert.deepEqual(second.serving, standalone)
  await assert.rejects(store.create(ID, 2 * MIB, standalone), (error) =>
    isFault(error, SIZE_MISMATCH),
  )
})

test('records survive a restart', async () => {
  await store.create(ID, MIB, standalone)
  const serving = { mode: 'session', session: 'group', pair: 'pair' } as const
  const record = await store.setServing(ID, serving)
  await restart()
  assert.deepEqual(store.record(ID), record)
  assert.deepEqual(store.list(), [record])
  assert.deepEqual(record.serving, serving)
})

test('a limit is kept through restarts, growth and changes of serving, and an older order changes nothing', async () => {
  await store.create(ID, MIB, standalone)
  assert.equal(store.record(ID)?.limit, undefined)
  const limit = { revision: 7, iops: 100, bytesPerSecond: null, readOnly: true }
  await store.setLimit(ID, limit)
  await store.setLimit(ID, { revision: 6, iops: null, bytesPerSecond: 5, readOnly: false })
  await store.setServing(ID, { mode: 'standby', reason: 'elsewhere' })
  await store.extend(ID, 2 * MIB)
  await restart()
  assert.deepEqual(store.record(ID)?.limit, limit)
})

test('what an ended session left in a volume is known after a restart, until the volume is served or changed in another way', async () => {
  const left = { session: 's', epoch: 7, torn: true }
  const standby = { mode: 'standby', reason: 'ended' } as const
  await store.create(ID, MIB, standalone)
  await store.setServing(ID, { ...standby, left })
  await store.extend(ID, 2 * MIB)
  await restart()
  assert.deepEqual(store.record(ID)?.serving, { ...standby, left })
  await forgetLeftCopy(store, ID)
  await restart()
  assert.deepEqual(store.record(ID)?.serving, standby)
})

test('a volume can be opened by many and is one object', async () => {
  await store.create(ID, MIB, standalone)
  const [one, two] = await Promise.all([store.open(ID), store.open(ID)])
  assert.equal(one, two)
})

test('extending grows the open volume and its record, shrinking changes nothing', async () => {
  await store.create(ID, MIB, standalone)
  const volume = await store.open(ID)
  volume.writeSync(Buffer.from('end'), 0, 3, MIB - 3)
  const record = await store.extend(ID, 3 * MIB)
  assert.equal(record.sizeBytes, 3 * MIB)
  assert.equal(volume.sizeBytes, 3 * MIB)
  assert.equal((await store.extend(ID, MIB)).sizeBytes, 3 * MIB)
  const tail = Buffer.alloc(6)
  await volume.read(tail, 0, 6, MIB - 3)
  assert.equal(tail.toString(), 'end\0\0\0')
  await restart()
  assert.equal((await store.open(ID)).sizeBytes, 3 * MIB)
})

test('an extension that was cut off before its record leaves the old size', async () => {
  await store.create(ID, MIB, standalone)
  truncateSync(join(directory, ID, 'data'), 2 * MIB)
  await restart()
  const volume = await store.open(ID)
  assert.equal(volume.sizeBytes, MIB)
  assert.equal(volume.failed, undefined)
})

test('deleting is final, and deleting what is not there changes nothing', async () => {
  await store.create(ID, MIB, standalone)
  const volume = await store.open(ID)
  await store.delete(ID)
  await store.delete(ID)
  assert.equal(store.record(ID), undefined)
  assert.throws(() => volume.writeSync(Buffer.from('x'), 0, 1, 0))
  await assert.rejects(store.open(ID), (error) => isFault(error, VOLUME_UNKNOWN))
  assert.deepEqual(await readdir(directory), ['lock'])
  await store.create(ID, MIB, standalone)
})

test('half made and half deleted volumes are swept away at the next start', async () => {
  await store.create(ID, MIB, standalone)
  mkdirSync(join(directory, '.new-a'))
  mkdirSync(join(directory, '.gone-b'))
  writeFileSync(join(directory, '.gone-b', 'data'), 'x')
  await restart()
  assert.deepEqual((await readdir(directory)).toSorted(), [ID, 'lock'])
})

test('a volume without a readable record stops the store from opening', async () => {
  await store.create(ID, MIB, standalone)
  await store.close()
  writeFileSync(join(directory, ID, 'meta.json'), '{"format":1,')
  await assert.rejects(openStore(directory), /meta\.json/)
  writeFileSync(join(directory, ID, 'meta.json'), '{"format":3}')
  await assert.rejects(openStore(directory), /format 3/)
})

test('a second process cannot open the store', async () => {
  await assert.rejects(openStore(directory), (error) => isFault(error, LOCKED))
})

test('a data file that lost bytes fails the volume, durably', async () => {
  await store.create(ID, 2 * MIB, standalone)
  truncateSync(join(directory, ID, 'data'), MIB)
  const volume = await store.open(ID)
  assert.match(volume.failed ?? '', /the data file has 1048576 bytes/)
  assert.throws(
    () => volume.writeSync(Buffer.from('x'), 0, 1, 0),
    (error) => isFault(error, VOLUME_FAILED),
  )
  await restart()
  assert.match(store.record(ID)?.failed ?? '', /the data file has/)
})

const failing = (code: string): FileRanges => ({
  ...systemFileRanges(),
  punchHoleSync() {
    throw Object.assign(new Error(`${code}: made up`), { code })
  },
})

test('a lost write is sticky: all later I/O is refused, also after a restart', async () => {
  await store.close()
  store = await openStore(directory, failing('EIO'))
  await store.create(ID, MIB, standalone)
  const volume = await store.open(ID)
  const failed = (error: unknown) => isFault(error, VOLUME_FAILED)
  assert.throws(() => volume.zeroSync(0, 4096, true), failed)
  assert.match(readFileSync(join(directory, ID, 'failed'), 'utf8'), /EIO/)
  assert.throws(() => volume.writeSync(Buffer.from('x'), 0, 1, 0), failed)
  await assert.rejects(volume.read(Buffer.alloc(1), 0, 1, 0), failed)
  await assert.rejects(volume.flush(), failed)
  await store.setServing(ID, { mode: 'standby', reason: 'broken' })
  await restart()
  const again = await store.open(ID)
  assert.match(again.failed ?? '', /EIO/)
  await assert.rejects(again.flush(), failed)
  await store.delete(ID)
  await store.create(ID, MIB, standalone)
  assert.equal(store.record(ID)?.failed, null)
})

describe('a failure that its own disk does not take', () => {
  afterEach(() => rm(BOOT, { recursive: true, force: true }))
  const isFailed = (error: unknown) => isFault(error, VOLUME_FAILED)
  const blocked = () => join(directory, ID, 'failed')
  const lose = async () => {
    await store.close()
    store = await openStore(directory, failing('EIO'))
    await store.create(ID, MIB, standalone)
    // A directory in the place of the mark: no file can be made there.
    mkdirSync(blocked())
    const volume = await store.open(ID)
    assert.throws(() => volume.zeroSync(0, 4096, true), isFailed)
    rmdirSync(blocked())
  }

  test('is noted for the time of the boot, and stored when the disk is back', async () => {
    assert.equal(existsSync(BOOT), false, 'made only when it is needed')
    await lose()
    assert.equal(existsSync(blocked()), false)
    assert.equal(statSync(BOOT).mode & 0o777, 0o700)
    await restart()
    assert.match(store.record(ID)?.failed ?? '', /EIO/)
    await assert.rejects((await store.open(ID)).flush(), isFailed)
    assert.match(readFileSync(blocked(), 'utf8'), /EIO/)
    assert.deepEqual(readdirSync(BOOT), [])
    await restart()
    assert.match(store.record(ID)?.failed ?? '', /EIO/)
  })

  test('is over when the volume is deleted, and says nothing of another one', async () => {
    await lose()
    const [mark] = readdirSync(BOOT)
    const text = readFileSync(join(BOOT, mark as string), 'utf8')
    await store.delete(ID)
    assert.deepEqual(readdirSync(BOOT), [])
    await store.create(ID, MIB, standalone)
    writeFileSync(join(BOOT, mark as string), text.replace('1700000000000', '1600000000000'))
    await restart()
    assert.equal(store.record(ID)?.failed, null)
    assert.deepEqual(readdirSync(BOOT), [])
    // One that cannot be read may be of this volume.
    writeFileSync(join(BOOT, mark as string), text.slice(0, 9))
    await restart()
    assert.equal(store.record(ID)?.failed, 'unknown reason')
  })

  test('is not noted where others may write', async () => {
    mkdirSync(BOOT, { mode: 0o755 })
    await lose()
    assert.deepEqual(readdirSync(BOOT), [])
    await assert.rejects((await store.open(ID)).flush(), isFailed)
  })

  test('goes to a place in memory before any other', { skip: NO_SHM }, async () => {
    const shm = `/dev/shm/holdfast-test-${process.pid}`
    try {
      await store.close()
      store = await openStore(directory, failing('EIO'), [BOOT, shm])
      await store.create(ID, MIB, standalone)
      mkdirSync(blocked())
      const volume = await store.open(ID)
      assert.throws(() => volume.zeroSync(0, 4096, true), isFailed)
      rmdirSync(blocked())
      assert.equal(existsSync(BOOT), false)
      assert.equal(readdirSync(shm).length, 1)
    } finally {
      rmSync(shm, { recursive: true, force: true })
    }
  })
})

test('a full disk refuses the write and nothing else', async () => {
  await store.close()
  store = await openStore(directory, failing('ENOSPC'))
  await store.create(ID, MIB, standalone)
  const volume = await store.open(ID)
  assert.throws(
    () => volume.zeroSync(0, 4096, true),
    (error) => isFault(error, VOLUME_NO_SPACE),
  )
  assert.equal(volume.failed, undefined)
  assert.equal(existsSync(join(directory, ID, 'failed')), false)
  volume.writeSync(Buffer.from('x'), 0, 1, 0)
  await volume.flush()
})

test('a guard is asked before each step of a long zero, and a refusal ends it', async () => {
  await store.create(ID, 16 * MIB, standalone)
  const volume = await store.open(ID)
  volume.writeSync(Buffer.alloc(MIB, 1), 0, MIB, 0)
  const asked: number[] = []
  const waited = new Set<number>()
  volume.attachGuard({
    before(offset, length) {
      if (offset >= 8 * MIB) return Promise.reject(new Error('full'))
      if (waited.has(offset)) return null
      waited.add(offset)
      asked.push(offset, length)
      return Promise.resolve()
    },
  })
  await assert.rejects(volume.zero(0, 16 * MIB, true), /full/)
  assert.deepEqual(asked, [0, 4 * MIB, 4 * MIB, 4 * MIB])
  volume.attachGuard(null)
  assert.equal(volume.guard(0, 16 * MIB), null)
  await volume.zero(0, 16 * MIB, true)
})

test('the end of a step of zeroing can be waited for', async () => {
  await store.create(ID, 64 * MIB, standalone)
  const volume = await store.open(ID)
  assert.equal(volume.changesEnded(), null)
  let ended = false
  const zeroing = volume.zero(0, 64 * MIB, false).then(() => (ended = true))
  const step = volume.changesEnded()
  assert.ok(step !== null)
  await step
  await zeroing
  assert.ok(ended)
  assert.equal(volume.changesEnded(), null)
})

test('a volume that is created with content exists with all of it or not at all', async () => {
  await assert.rejects(
    store.create(ID, MIB, standalone, '', async (data) => {
      await data.write(Buffer.from('half'), 0, 4, 0)
      throw new Error('cut off')
    }),
    /cut off/,
  )
  assert.equal(store.record(ID), undefined)
  await store.create(ID, MIB, standalone, '', (data) =>
    data.write(Buffer.from('.whole.'), 1, 5, 100),
  )
  await restart()
  const found = Buffer.alloc(7)
  await (await store.open(ID)).read(found, 0, 7, 99)
  assert.equal(found.toString(), '\0whole\0')
})

test('a keeper refuses deletion and opening with its own fault', async () => {
  await store.create(ID, MIB, standalone)
  const refusal = new Error('needed')
  store.setKeeper({ mayDelete: () => refusal, mayOpen: () => refusal })
  await assert.rejects(store.delete(ID), /needed/)
  await assert.rejects(store.open(ID), /needed/)
  store.setKeeper({ mayDelete: () => undefined, mayOpen: () => undefined })
  await store.delete(ID)
})

test('a volume that is given up refuses everything, also after a restart', async () => {
  await store.create(ID, MIB, standalone)
  const volume = await store.open(ID)
  await store.fail(ID, 'half restored')
  assert.throws(
    () => volume.writeSync(Buffer.alloc(1), 0, 1, 0),
    (error) => isFault(error, VOLUME_FAILED),
  )
  await restart()
  assert.equal(store.record(ID)?.failed, 'half restored')
})
