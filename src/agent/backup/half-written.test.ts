/** What is half written is nobody's backup, and is written by one at a time. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { Fault, isFault } from '#base/fault.ts'
import { VOLUME_BUSY } from '#agent/replication/faults.ts'
import { guardedWrite } from '#agent/snapshots/snapshots.contract.ts'
import { BackupWorld } from './backups.contract.ts'

const SIZE = 4 * 1024 * 1024

let directory = ''
let world: BackupWorld
let checkpoint = ''

const backupOf = (volume: string) => ({
  backup: randomUUID(),
  volumes: [volume],
  names: ['v'],
  parent: null,
  labels: {},
  rate_bytes: 0,
})
const restoreTo = (volume: string, rate_bytes = 0) => ({
  restore: randomUUID(),
  checkpoint,
  volumes: [{ name: 'v', volume, pair: null, blank: false }],
  rate_bytes,
})
const isBusy = (error: unknown) => isFault(error, VOLUME_BUSY)

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'holdfast-half-'))
  world = await BackupWorld.open(directory)
  for (const id of ['v', 'w']) await world.volumes.create(id, SIZE, { mode: 'standalone' }, 'me')
  for (let at = 0; at < SIZE; at += 65_536) {
    await guardedWrite(await world.volumes.open('v'), at, Buffer.alloc(65_536, 1 + at / 65_536))
  }
  checkpoint = (await world.ended('backup.start', backupOf('v'))).checkpoint ?? ''
})
after(async () => {
  await world.stop()
  await rm(directory, { recursive: true, force: true })
})

test('what is set back or filled is neither restored to nor backed up', async () => {
  world.half = (volumes) => {
    if (volumes.includes('w')) throw new Fault(VOLUME_BUSY, 'volume w')
  }
  try {
    await assert.rejects(world.command('restore.start', restoreTo('w')), isBusy)
    const { state, code, checkpoint: made } = await world.ended('backup.start', backupOf('w'))
    assert.deepEqual([state, code, made], ['failed', 'VOLUME_BUSY', null])
    assert.deepEqual(world.snapshots.list(), [])
  } finally {
    world.half = () => undefined
  }
  assert.equal((await world.ended('restore.start', restoreTo('w'))).state, 'done')
})

test('what is being restored is not backed up, nor changed, from the request on', async () => {
  const request = restoreTo('w', 65_536)
  await world.command('restore.start', request)
  assert.throws(() => world.part.refuseWhileRestoring(['w']), isBusy)
  const { state, code } = await world.ended('backup.start', backupOf('w'))
  assert.deepEqual([state, code], ['failed', 'VOLUME_BUSY'])
  assert.deepEqual(world.snapshots.list(), [])
  assert.equal((await world.ended('backup.start', backupOf('v'))).state, 'done')
  await world.command('restore.cancel', { restore: request.restore })
  world.part.refuseWhileRestoring(['w'])
})

test('what a restore left half written stays closed under an agent without a vault, until the restore is given up', async () => {
  const request = restoreTo('w', 65_536)
  await world.command('restore.start', request)
  await world.stop()
  world.hasVault = false
  await world.start()
  assert.throws(() => world.part.refuseWhileRestoring(['w']), isBusy)
  const refusal = { refusal: 'policy', reason: 'it is being restored from a checkpoint' }
  assert.deepEqual(world.exports.open('w'), refusal)
  const given = { restore: request.restore }
  assert.equal((await world.command('restore.cancel', given)).state, 'cancelled')
  world.part.refuseWhileRestoring(['w'])
  await assert.rejects(world.command('backup.start', backupOf('v')), /NO_VAULT/)
  await world.stop()
  world.hasVault = true
  await world.start()
  assert.equal((await world.command('restore.show', given)).state, 'cancelled')
})
