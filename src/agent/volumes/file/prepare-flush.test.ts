import assert from 'node:assert/strict'
import { mkdtemp, open, rm, unlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { NO_FILE_RANGES } from '#base/system/libc.ts'
import { FileVolume } from './file-volume.ts'

const KIB = 1024

async function made(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-prepare-'))
  const path = join(directory, 'data')
  const file = await open(path, 'w+')
  await file.truncate(1024 * KIB)
  const { fd } = file
  const given: number[] = []
  const volume = new FileVolume({
    id: 'v',
    fd,
    sizeBytes: 1024 * KIB,
    failed: undefined,
    ranges: { ...NO_FILE_RANGES, startWriteback: (of) => void given.push(of) },
    onFailed: () => undefined,
  })
  t.after(async () => {
    await volume.close()
    await rm(directory, { recursive: true })
  })
  const write = (bytes: number) => volume.writeSync(Buffer.alloc(bytes, 1), 0, bytes, 0)
  return { volume, given, write, path }
}

test('what little is dirty is given to the disk once, and again only after more was written', async (t) => {
  const { volume, given, write } = await made(t)
  volume.prepareFlush(false)
  assert.equal(given.length, 0, 'nothing is dirty')
  write(4 * KIB)
  volume.prepareFlush(false)
  volume.prepareFlush(false)
  await volume.flush()
  assert.equal(given.length, 1)
  write(4 * KIB)
  volume.prepareFlush(false)
  write(4 * KIB)
  await volume.flush()
  assert.equal(given.length, 3)
})

test('much is not given to the disk by the loop, and nothing of a volume that has failed', async (t) => {
  const { volume, given, write } = await made(t)
  write(65 * KIB)
  volume.prepareFlush(false)
  await volume.flush()
  write(4 * KIB)
  volume.fail('its disk')
  volume.prepareFlush(false)
  assert.equal(given.length, 0)
})

test('what little is dirty is made durable by the first preparation, and the flush waits for that instead of giving the disk anything', async (t) => {
  const { volume, given, write } = await made(t)
  write(4 * KIB)
  volume.prepareFlush(true)
  assert.equal(volume.dirtyBytes, 0, 'the sync has begun')
  assert.equal(given.length, 1)
  volume.prepareFlush(true)
  await volume.flush()
  assert.equal(given.length, 1)
  write(65 * KIB)
  volume.prepareFlush(true)
  assert.equal(volume.dirtyBytes, 65 * KIB, 'much is left to the flush')
})

test('a flush is not answered by its preparation when the data file was removed since', async (t) => {
  const { volume, write, path } = await made(t)
  write(4 * KIB)
  volume.prepareFlush(true)
  await unlink(path)
  await assert.rejects(volume.flush(), /removed/)
})
