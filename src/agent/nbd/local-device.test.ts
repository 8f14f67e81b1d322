import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { Fault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { VOLUME_NO_SPACE } from '#agent/volumes/faults.ts'
import { openFileVolumeStore } from '#agent/volumes/file/file-volume-store.ts'
import type { Volume } from '#agent/volumes/volume.ts'
import { Io, IO_ERRORS, type IoError, type IoKind } from './device.ts'
import { localDevice } from './local-device.ts'
import { SlabPool } from './slab.ts'

const MIB = 1024 * 1024

async function opened(t: { after(work: () => Promise<void>): void }): Promise<{
  volume: Volume
  readonly ask: (kind: IoKind, offset: number, length: number) => Promise<IoError>
}> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-local-device-'))
  const log = createLog('test', 'silent')
  const store = await openFileVolumeStore({
    directory: join(directory, 'volumes'),
    log,
    wallMs: () => 0,
  })
  t.after(async () => {
    await store.close()
    await rm(directory, { recursive: true })
  })
  await store.create('v', 8 * MIB, { mode: 'standalone' })
  const volume = await store.open('v')
  const device = localDevice(volume)
  const slab = new SlabPool({ slabBytes: 2 * MIB, idleCountMax: 1 }).take()
  slab.bytes.fill(5, 0, 4096)
  return {
    volume,
    ask: (kind, offset, length) =>
      new Promise((resolve) => {
        const io = new Io({ done: (_io, error) => resolve(error) })
        Object.assign(io, { kind, offset, length, slab, at: 0, mayUnmap: true })
        io.arm()
        device.submit([io], 1)
      }),
  }
}

test('a write or zero waits for the guard, asks again, and only then changes the volume', async (t) => {
  const { volume, ask } = await opened(t)
  const before: string[] = []
  let round = 0
  volume.attachGuard({
    before(offset) {
      if (round++ % 3 === 2) return null
      const found = Buffer.alloc(1)
      volume.readSync(found, 0, 1, offset)
      before.push(`${offset}:${found[0]}`)
      return Promise.resolve()
    },
  })
  assert.equal(await ask('write', 4096, 4096), 0)
  assert.equal(await ask('zero', 4096, 4096), 0)
  assert.deepEqual(before, ['4096:0', '4096:0', '4096:5', '4096:5'])
})

test('what the guard refuses is not changed, and the client is told why', async (t) => {
  const { volume, ask } = await opened(t)
  volume.attachGuard({
    before: () => Promise.reject(new Fault(VOLUME_NO_SPACE, 'preserving')),
  })
  assert.equal(await ask('write', 0, 4096), IO_ERRORS.ENOSPC)
  assert.equal(await ask('zero', 0, 4096), IO_ERRORS.ENOSPC)
  assert.equal(await ask('zero', 0, 4 * MIB), IO_ERRORS.ENOSPC)
  const found = Buffer.alloc(1)
  volume.readSync(found, 0, 1, 0)
  assert.equal(found[0], 0)
})
