import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Clock } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { VOLUME_READ_ERROR } from '../faults.ts'
import { openFileVolumeStore } from '../file/file-volume-store.ts'
import { volumeContract } from '../volume.contract.ts'
import type { Volume } from '../volume.ts'
import { delayedVolume } from './delay.ts'
import { faultyVolume } from './fault.ts'

const ID = 'wrapped'
const atOnce: Clock = {
  wallMs: () => 0,
  bootMs: () => 0,
  after(_delayMs, fire) {
    setImmediate(fire)
    return () => {}
  },
}

function wrapped(wrap: (inner: Volume) => Volume) {
  return async () => {
    const directory = await mkdtemp(join(tmpdir(), 'holdfast-wrap-'))
    const open = () =>
      openFileVolumeStore({ directory, log: createLog('test', 'silent'), wallMs: () => 0 })
    let store = await open()
    return {
      holes: true,
      async make(sizeBytes: number) {
        await store.create(ID, sizeBytes, { mode: 'standalone' })
        return wrap(await store.open(ID))
      },
      async reopen() {
        await store.close()
        store = await open()
        return wrap(await store.open(ID))
      },
      async clean() {
        await store.close()
        await rm(directory, { recursive: true })
      },
    }
  }
}

volumeContract(
  'fault wrapper without faults',
  wrapped((inner) => faultyVolume(inner, () => undefined)),
)
volumeContract(
  'delay wrapper',
  wrapped((inner) => delayedVolume(inner, atOnce, { readMs: 1, zeroMs: 1, flushMs: 1 })),
)

test('a planned fault hits the call it was planned for and no other', async () => {
  const made = await wrapped((inner) =>
    faultyVolume(inner, (call, offset) =>
      call === 'read' && offset === 4096 ? new Fault(VOLUME_READ_ERROR, 'as planned') : undefined,
    ),
  )()
  const volume = await made.make(1024 * 1024)
  const buf = Buffer.alloc(4096)
  await volume.read(buf, 0, 4096, 0)
  await assert.rejects(volume.read(buf, 0, 4096, 4096), (error) =>
    isFault(error, VOLUME_READ_ERROR),
  )
  const outcome = await new Promise<Error | null>((resolve) => {
    volume.readThen(buf, 0, 4096, 4096, resolve)
  })
  assert.ok(isFault(outcome, VOLUME_READ_ERROR))
  volume.writeSync(buf, 0, 4096, 4096)
  await volume.close()
  await made.clean()
})
