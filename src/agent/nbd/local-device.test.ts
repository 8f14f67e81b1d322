import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { Fault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { VOLUME_FAILED, VOLUME_NO_SPACE } from '#agent/volumes/faults.ts'
import { openFileVolumeStore } from '#agent/volumes/file/file-volume-store.ts'
import type { Volume } from '#agent/volumes/volume.ts'
import { Io, IO_ERRORS, type IoError, type IoKind } from './device.ts'
import { localDevice } from './local-device.ts'
import { SlabPool } from './slab.ts'

const MIB = 1024 * 1024

async function opened(t: { after(work: () => Promise<void>): void }): Promise<{
  volume: Volume
  readonly ask: (kind: IoKind, offset: number, length: number, fua?: boolean) => Promise<IoError>
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
    ask: (kind, offset, length, fua = false) =>
      new Promise((resolve) => {
        const io = new Io({ done: (_io, error) => resolve(error) })
        Object.assign(io, { kind, offset, length, slab, at: 0, mayUnmap: true, fua })
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

for (const [what, kind, length] of [
  ['write', 'write', 4096],
  ['zero', 'zero', 4096],
  ['long zero', 'zero', 2 * MIB],
] as const) {
  test(`a ${what} with FUA is answered behind an fdatasync that began after it, and fails with it`, async (t) => {
    const { volume, ask } = await opened(t)
    volume.writeSync(Buffer.alloc(2 * MIB, 9), 0, 2 * MIB, 0)
    let byte = -1
    let ended = false
    t.mock.method(volume, 'flush', async () => {
      const found = Buffer.alloc(1)
      volume.readSync(found, 0, 1, length - 1)
      byte = found[0] as number
      await new Promise((resolve) => setImmediate(resolve))
      ended = true
    })
    assert.equal(await ask(kind, 0, length, false), 0)
    assert.deepEqual([byte, ended], [-1, false], 'nobody has asked for it')
    assert.equal(await ask(kind, 0, length, true), 0)
    assert.deepEqual([byte, ended], [kind === 'write' ? 5 : 0, true])
    t.mock.method(volume, 'flush', () => Promise.reject(new Fault(VOLUME_FAILED, 'fdatasync')))
    assert.equal(await ask(kind, 0, length, true), IO_ERRORS.EIO)
  })
}
