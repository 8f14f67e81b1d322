import assert from 'node:assert/strict'
import { ftruncateSync, openSync } from 'node:fs'
import { mkdtemp, rm, unlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { fileShape } from '#base/system/file-shape.ts'
import { NO_FILE_RANGES } from '#base/system/libc.ts'
import { FileVolume } from './file-volume.ts'

const KIB = 1024

async function made(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-prepare-'))
  const path = join(directory, 'data')
  // No FileHandle: the volume closes the descriptor, and a handle would close it once more when it is collected.
  const fd = openSync(path, 'w+')
  ftruncateSync(fd, 1024 * KIB)
  const given: number[] = []
  /** For each look at the file, what had been given to the disk before. */
  const looked: number[] = []
  const volume = new FileVolume({
    id: 'v',
    fd,
    sizeBytes: 1024 * KIB,
    failed: undefined,
    ranges: {
      ...NO_FILE_RANGES,
      startWriteback: (of) => void given.push(of),
      shape: (of) => {
        looked.push(given.length)
        return fileShape(of)
      },
    },
    onFailed: () => undefined,
  })
  t.after(async () => {
    await volume.close()
    await rm(directory, { recursive: true })
  })
  const write = (bytes: number) => volume.writeSync(Buffer.alloc(bytes, 1), 0, bytes, 0)
  return { volume, given, looked, write, path }
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

test('the disk has what is dirty before the file is looked at, and a file that is gone fails the flush all the same', async (t) => {
  const { volume, given, looked, write, path } = await made(t)
  write(4 * KIB)
  await volume.flush()
  assert.equal(given.length, 1)
  assert.ok(looked.length > 0)
  assert.ok(looked.every((before) => before === 1))
  await unlink(path)
  write(4 * KIB)
  await assert.rejects(Promise.all([volume.flush(), volume.flush()]), /removed/)
  assert.match(volume.failed ?? '', /removed/)
  await assert.rejects(volume.flush(), /removed/)
})
