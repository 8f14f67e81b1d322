import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { Fault, type FaultKind, isFault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { type Divergences, openDivergences } from '#agent/divergence/divergences.ts'
import { DIVERGENCE_UNKNOWN } from '#agent/divergence/faults.ts'
import { ExportTable } from '#agent/nbd/exports.ts'
import { NOT_CONSISTENT, VOLUME_BUSY } from '#agent/replication/faults.ts'
import { SNAPSHOT_BUSY, SNAPSHOT_UNKNOWN } from '#agent/snapshots/faults.ts'
import type { Snapshots } from '#agent/snapshots/snapshots.ts'
import { openSnapshots } from '#agent/snapshots/store/snapshot-store.ts'
import { VOLUME_UNKNOWN } from '#agent/volumes/faults.ts'
import { openFileVolumeStore } from '#agent/volumes/file/file-volume-store.ts'
import type { VolumeStore } from '#agent/volumes/volume-store.ts'
import type { SessionStatus } from '#wire/site/witness.ts'
import { divergenceCommands } from './divergence-commands.ts'
import { type CloneCommands, cloneCommands } from './clone-commands.ts'
import { type SnapshotCommands, snapshotCommands } from './snapshot-commands.ts'
import { volumeCommands } from './volume-commands.ts'

const BLOCK = 64 * 1024
const SIZE = 2 * 1024 * 1024

let root: string
let volumes: VolumeStore
let snapshots: Snapshots
let divergences: Divergences
let exports: ExportTable
let statuses: SessionStatus[]
let half: (ids: readonly string[]) => void
let commands: SnapshotCommands
let clones: CloneCommands

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'holdfast-commands-'))
  const log = createLog('test', 'silent')
  const clock = systemClock
  const at = (name: string) => join(root, name)
  volumes = await openFileVolumeStore({ directory: at('volumes'), log, wallMs: () => 0 })
  snapshots = await openSnapshots({ directory: at('snapshots'), volumes, clock, log })
  const directory = at('divergences')
  divergences = await openDivergences({ directory, snapshots, volumes, clock, log })
  exports = new ExportTable()
  statuses = []
  half = () => undefined
  commands = snapshotCommands({
    snapshots,
    volumes,
    exports,
    statuses: () => statuses,
    refuseWhileHalf: (ids) => half(ids),
  })
  const plain = volumeCommands(volumes, exports)
  clones = cloneCommands({ snapshots, volumes, plain, clock })
  await volumes.create('plain', SIZE, { mode: 'standalone' }, 'mine')
})
afterEach(async () => {
  await snapshots.close()
  await volumes.close()
  await rm(root, { recursive: true, force: true })
})

const is = (kind: FaultKind) => (error: unknown) => isFault(error, kind)

async function write(fill: number): Promise<void> {
  const volume = await volumes.open('plain')
  for (let wait = volume.guard(0, BLOCK); wait !== null; wait = volume.guard(0, BLOCK)) await wait
  volume.writeSync(Buffer.alloc(BLOCK, fill), 0, BLOCK, 0)
}

async function first(id = 'plain'): Promise<number> {
  const byte = Buffer.alloc(1)
  await (await volumes.open(id)).read(byte, 0, 1, 0)
  return byte[0] as number
}

const session = (role: 'writer' | 'replica', consistent: boolean): SessionStatus =>
  ({
    session: 's',
    epoch: 4,
    role,
    consistent,
    sequence: 17,
    members: [{ volume: 'plain' }],
  }) as unknown as SessionStatus

test('a volume goes back to its snapshot and is served again, and taking it twice is taking it once', async () => {
  await write(1)
  const taken = await commands.create({ snapshot: 'snap', volumes: ['plain'] })
  assert.deepEqual([taken.info.state, taken.moments], ['ready', []])
  await write(2)
  assert.deepEqual(await commands.create({ snapshot: 'snap', volumes: ['plain'] }), {
    ...taken,
    info: { ...taken.info, volumes: commands.list({ snapshot: 'snap' }).snapshots[0]?.volumes },
  })
  await commands.rollback({ snapshot: 'snap' })
  assert.equal(await first(), 1)
  assert.ok(!('refusal' in exports.open('plain')))
  await commands.delete({ snapshot: 'snap' })
  await commands.delete({ snapshot: 'snap' })
  assert.deepEqual(commands.list({}).snapshots, [])
  await assert.rejects(commands.rollback({ snapshot: 'snap' }), is(SNAPSHOT_UNKNOWN))
})

test('a standby volume that goes back to a snapshot is no copy of an ended session any more', async () => {
  const standby = { mode: 'standby', reason: 'ended' } as const
  await commands.create({ snapshot: 'snap', volumes: ['plain'] })
  await volumes.setServing('plain', { ...standby, left: { session: 's', epoch: 7 } })
  await commands.rollback({ snapshot: 'snap' })
  assert.deepEqual(volumes.record('plain')?.serving, standby)
})

test('nobody may serve or change a volume while it is being set back', async () => {
  await write(1)
  await commands.create({ snapshot: 'snap', volumes: ['plain'] })
  const rolling = commands.rollback({ snapshot: 'snap' })
  assert.throws(() => commands.refuseWhileRolling(['other', 'plain']), is(SNAPSHOT_BUSY))
  await assert.rejects(commands.rollback({ snapshot: 'snap' }), is(SNAPSHOT_BUSY))
  await rolling
  commands.refuseWhileRolling(['plain'])
})

test('the moment of a snapshot is the number of the session, and a torn replica has none', async () => {
  statuses = [session('writer', false)]
  const { moments } = await commands.create({ snapshot: 'one', volumes: ['plain'] })
  assert.deepEqual(moments, [{ session: 's', epoch: 4, sequence: 17 }])
  statuses = [session('replica', true)]
  await commands.create({ snapshot: 'two', volumes: ['plain'] })
  statuses = [session('replica', false)]
  const torn = commands.create({ snapshot: 'three', volumes: ['plain'] })
  await assert.rejects(torn, is(NOT_CONSISTENT))
  const unknown = commands.create({ snapshot: 'four', volumes: ['plain', 'none'] })
  await assert.rejects(unknown, is(VOLUME_UNKNOWN))
})

test('a restore or a resync that begins while a snapshot is being taken leaves none', async () => {
  let looks = 0
  // Nothing at the request, something at the moment.
  half = (ids) => {
    assert.deepEqual(ids, ['plain'])
    if (++looks === 2) throw new Fault(VOLUME_BUSY, 'it is being restored')
  }
  const request = { snapshot: 'snap', volumes: ['plain'] }
  await assert.rejects(commands.create(request), is(VOLUME_BUSY))
  looks = 0
  half = () => {
    if (++looks === 1) statuses = [session('replica', true)]
    else statuses = [session('replica', false)]
  }
  await assert.rejects(commands.create(request), is(NOT_CONSISTENT))
  assert.equal(looks, 2)
  assert.deepEqual(snapshots.list(), [])
  // Asked again when it is over, it is taken as if nothing had been.
  half = () => undefined
  statuses = []
  assert.equal((await commands.create(request)).info.state, 'ready')
})

test('what a session serves is not rolled back, and its kept copies are no snapshots of users', async () => {
  await commands.create({ snapshot: 'snap', volumes: ['plain'] })
  await volumes.setServing('plain', { mode: 'session', session: 's', pair: 'p' })
  await assert.rejects(commands.rollback({ snapshot: 'snap' }), is(VOLUME_BUSY))
  await snapshots.take({ id: 'kept', purpose: 'kept', volumes: ['plain'] })
  await commands.delete({ snapshot: 'kept' })
  assert.ok(snapshots.show('kept') !== undefined)
  assert.deepEqual(
    commands.list({}).snapshots.map((one) => one.snapshot),
    ['snap'],
  )
  await assert.rejects(commands.rollback({ snapshot: 'kept' }), is(SNAPSHOT_UNKNOWN))
})

test('a divergence record exists for the project that owns the volumes, and for no other', async () => {
  await write(1)
  await snapshots.take({ id: 'kept', purpose: 'kept', volumes: ['plain'] })
  await write(2)
  await divergences.keep({
    snapshot: 'kept',
    session: 's',
    site: 'az1',
    winner: 'az2',
    baseEpoch: 1,
    epoch: 3,
    why: 'az1 went on alone',
    volumes: [{ volume: 'plain', pair: 'p', ranges: null }],
  })
  const asked = divergenceCommands(divergences)
  assert.equal(asked.list({ owner: 'mine' }).divergences[0]?.divergence, 'kept')
  assert.deepEqual(asked.list({ owner: 'mine', session: 'other' }).divergences, [])
  assert.deepEqual(asked.list({ owner: 'theirs' }).divergences, [])
  const at = { divergence: 'kept', volume: 'plain' }
  const page = { ...at, from: 0, limit: 10 }
  const piece = { ...at, offset: 0, length: BLOCK }
  assert.deepEqual(asked.show({ ...page, owner: 'mine' }).ranges, [{ offset: 0, length: BLOCK }])
  assert.deepEqual(asked.show({ ...page, owner: 'mine', from: 1 }).ranges, [])
  const { data } = await asked.read({ ...piece, owner: 'mine' })
  assert.deepEqual(Buffer.from(data, 'base64'), Buffer.alloc(BLOCK, 1))
  assert.throws(() => asked.show({ ...page, owner: 'theirs' }), is(DIVERGENCE_UNKNOWN))
  await assert.rejects(asked.read({ ...piece, owner: 'theirs' }), is(DIVERGENCE_UNKNOWN))
  await assert.rejects(
    asked.delete({ divergence: 'kept', owner: 'theirs' }),
    is(DIVERGENCE_UNKNOWN),
  )
  await asked.delete({ divergence: 'kept', owner: 'mine' })
  await asked.delete({ divergence: 'kept', owner: 'mine' })
  assert.deepEqual(divergences.list(), [])
})

test('a clone is a volume of its own: served, writable, and free of the snapshot that it was made from', async () => {
  await write(1)
  await commands.create({ snapshot: 'drill', volumes: ['plain'], purpose: 'drill' })
  const request = { snapshot: 'drill', volume: 'plain', new_volume: 'copy', owner: 'mine' }
  await write(2)
  const made = await clones.clone(request)
  assert.deepEqual(made, { volume: 'copy', state: 'cloned', copied_bytes: SIZE, total_bytes: SIZE })
  assert.equal(await first('copy'), 1)
  assert.ok(!('refusal' in exports.open('copy')))
  assert.equal(volumes.record('copy')?.owner, 'mine')
  const copy = await volumes.open('copy')
  copy.writeSync(Buffer.alloc(BLOCK, 9), 0, BLOCK, 0)
  assert.deepEqual(await clones.clone(request), made, 'asked again it stays as it is')
  assert.equal(await first('copy'), 9)
  assert.equal(await first(), 2)
  assert.equal(commands.list({ snapshot: 'drill' }).snapshots[0]?.purpose, 'drill')
  await commands.delete({ snapshot: 'drill' })
  assert.deepEqual(await clones.clone(request), made)
  assert.equal(await first('copy'), 9)
})

test('a clone that was made and not served yet, when the agent died, is served by the next request', async () => {
  await commands.create({ snapshot: 'drill', volumes: ['plain'], purpose: 'drill' })
  await snapshots.clone('drill', 'plain', 'copy', { owner: 'mine' })
  assert.equal(volumes.record('copy')?.serving.mode, 'standby')
  await clones.clone({ snapshot: 'drill', volume: 'plain', new_volume: 'copy', owner: 'mine' })
  assert.equal(volumes.record('copy')?.serving.mode, 'standalone')
})

test('what cannot be cloned is refused, and leaves nothing', async () => {
  const request = { snapshot: 'none', volume: 'plain', new_volume: 'copy', owner: 'mine' }
  await assert.rejects(clones.clone(request), is(SNAPSHOT_UNKNOWN))
  await commands.create({ snapshot: 'drill', volumes: ['plain'], purpose: 'drill' })
  const other = { ...request, snapshot: 'drill', volume: 'else' }
  await assert.rejects(clones.clone(other), is(SNAPSHOT_UNKNOWN))
  assert.equal(volumes.record('copy'), undefined)
})
