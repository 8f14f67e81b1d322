import assert from 'node:assert/strict'
import { openSync } from 'node:fs'
import { mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test, type TestContext } from 'node:test'
import { isFault } from '#base/fault.ts'
import { type FileRanges, NO_FILE_RANGES, systemFileRanges } from '#base/system/libc.ts'
import { VOLUME_FAILED } from '../faults.ts'
import { FileVolume } from './file-volume.ts'

const KIB = 1024
const SIZE = 1024 * KIB

interface Made {
  readonly volume: FileVolume
  /** Reasons of failures, as they were made durable. */
  readonly failures: string[]
  /** Told to whoever watches the volume. */
  readonly changed: [number, number][]
  /** How often a flush or an fdatasync has looked at the file. */
  looks: number
}

function made(t: TestContext, fd: number, ranges: FileRanges, cleanUp: () => unknown): Made {
  const failures: string[] = []
  const changed: [number, number][] = []
  const found: Made = {
    looks: 0,
    failures,
    changed,
    volume: new FileVolume({
      id: 'v',
      fd,
      sizeBytes: SIZE,
      failed: undefined,
      ranges: {
        ...ranges,
        shape: (of) => {
          found.looks++
          return ranges === NO_FILE_RANGES ? { nlink: 1, size: SIZE } : ranges.shape(of)
        },
      },
      onFailed: (reason) => void failures.push(reason),
      watch: { changed: (offset, length) => void changed.push([offset, length]) },
    }),
  }
  t.after(async () => {
    await found.volume.close()
    await cleanUp()
  })
  return found
}

/** On a file that takes every write, and of which no fdatasync succeeds. */
const onBrokenDisk = (t: TestContext): Made =>
  made(t, openSync('/dev/zero', 'r+'), NO_FILE_RANGES, () => undefined)

async function onFile(t: TestContext): Promise<Made> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-lost-'))
  const file = await open(join(directory, 'data'), 'w+')
  await file.truncate(SIZE)
  // The volume closes it.
  const fd = openSync(join(directory, 'data'), 'r+')
  await file.close()
  return made(t, fd, systemFileRanges(), () => rm(directory, { recursive: true }))
}

const isFailed = (error: unknown): boolean => isFault(error, VOLUME_FAILED)

describe('an fdatasync that fails', () => {
  for (const ahead of [false, true]) {
    test(`fails the volume for good${ahead ? ', also when it was begun before its flush came' : ''}: what it had accepted may be gone`, async (t) => {
      const { volume, failures } = onBrokenDisk(t)
      volume.writeSync(Buffer.alloc(512), 0, 512, 0)
      if (ahead) volume.prepareFlush(true)
      const flushes = await Promise.allSettled([volume.flush(), volume.flush()])
      for (const one of flushes) assert.ok(one.status === 'rejected' && isFailed(one.reason))
      assert.match(failures[0] ?? '', /fdatasync failed/)
      assert.equal(failures.length, 1)
      // The kernel would call the next one a success.
      await assert.rejects(volume.flush(), isFailed)
      assert.throws(() => volume.writeSync(Buffer.alloc(512), 0, 512, 0), isFailed)
      await assert.rejects(volume.read(Buffer.alloc(512), 0, 512, 0), isFailed)
    })
  }

  test('is not the only one that fails: neither does one succeed during which a write was lost', async (t) => {
    const { volume } = await onFile(t)
    volume.writeSync(Buffer.alloc(512, 1), 0, 512, 0)
    const flush = volume.flush()
    volume.fail('a write was lost')
    await assert.rejects(flush, isFailed)
  })
})

describe('an fdatasync that was begun ahead', () => {
  const changes = {
    'a write': ({ volume }: Made) => volume.writeSync(Buffer.alloc(512, 2), 0, 512, 512),
    zeroes: ({ volume }: Made) => volume.zeroSync(0, 4096, true),
    'zeroes that keep their space': ({ volume }: Made) => volume.zeroSync(0, 4096, false),
    'a long zero': ({ volume }: Made) => volume.zero(0, 64 * KIB, true),
  }
  for (const [what, change] of Object.entries(changes)) {
    test(`does not answer for ${what} behind it`, async (t) => {
      const all = await onFile(t)
      const { volume, changed } = all
      volume.writeSync(Buffer.alloc(4096, 1), 0, 4096, 0)
      volume.prepareFlush(true)
      const told = changed.length
      await change(all)
      assert.equal(changed.length, told + 1, 'who watches the volume is told')
      all.looks = 0
      await volume.flush()
      assert.equal(all.looks, 2, 'the flush has an fdatasync of its own')
    })
  }

  test('does not answer for a long zero that was under way when it began', async (t) => {
    const all = await onFile(t)
    const { volume } = all
    const zero = volume.zero(0, 512 * KIB, true)
    volume.writeSync(Buffer.alloc(4096, 1), 0, 4096, 0)
    volume.prepareFlush(true)
    await zero
    all.looks = 0
    await volume.flush()
    assert.equal(all.looks, 2)
  })

  test('answers for what was written before it', async (t) => {
    const all = await onFile(t)
    const { volume } = all
    volume.writeSync(Buffer.alloc(4096, 1), 0, 4096, 0)
    volume.prepareFlush(true)
    all.looks = 0
    await volume.flush()
    assert.equal(all.looks, 1)
  })
})
