import assert from 'node:assert/strict'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { arrangeArbitration } from '#control/operations/definitions/protection/arbitration.ts'
import { backupState, restoreState } from '#control/store/backup.ts'
import { readMeta } from '#control/store/meta.ts'
import { Region } from '../support/region.ts'

/** A control plane restored from a backup older than the last switch, with agents that know better. */
let region: Region
before(async () => {
  region = await Region.start()
})
after(async () => await region.stop())

/** The control plane comes back with the state of `file`; `meanwhile` happens while there is none. */
async function restore(file: string, meanwhile = async () => {}): Promise<void> {
  await region.restartControl(async () => {
    await meanwhile()
    const database = join(region.directory, 'control', 'state.db')
    for (const suffix of ['', '-wal', '-shm']) await rm(`${database}${suffix}`, { force: true })
    const log = createLog('test', 'silent')
    await restoreState({ url: `sqlite:${database}`, clock: systemClock, log }, file)
  })
}

test('after a restore to before a switch the witness takes the truth over from the agents, and no write is lost', async () => {
  const volume = await region.volume('data')
  const group = await region.group()
  const pair = await region.pair(group, volume)
  await region.act(group, 'start-server-group')
  await region.inSync(pair)
  await region.write('az1', pair, 'before the backup')

  const file = join(region.directory, 'backup')
  await backupState(region.plane.store, file, systemClock)
  const saved = await region.plane.witness.record(group)
  assert.equal(saved?.writer, 'az1')
  const { incarnation } = await readMeta(region.plane.store.db)

  await region.act(group, 'reverse-server-group', { priority_station: 'target' })
  await region.inSync(pair)
  await region.write('az2', pair, 'after the switch')
  const truth = await region.plane.witness.record(group)
  assert.ok(truth !== null && truth.epoch > saved.epoch && truth.writer === 'az2')

  await restore(file)
  const { witness, store } = region.plane
  assert.notEqual((await readMeta(store.db)).incarnation, incarnation)

  const epoch = saved.epoch
  await region.until('the record is the agents’ again', async () => {
    const failover = { kind: 'failover', epoch, attempt: 'too-late-attempt', force: true } as const
    const answer = await witness.ask(group, { ...failover, consent: true }, 'test')
    assert.ok(answer?.ok === false, 'nothing is granted for the past')
    return answer.record.epoch > truth.epoch
  })
  const record = await witness.record(group)
  assert.deepEqual([record?.writer, record?.state], ['az2', 'in_sync'])
  assert.equal(await region.read('az2', pair), 'after the switch')
  await region.refuses('az1', pair)
  await region.until('the group’s row follows the record', async () => {
    const { status, priority_station } = await region.show(group)
    return status === 'protected' && priority_station === 'target'
  })
  await region.inSync(pair)
})

test('a backup from before the start of protection: the group is protected again, with its pairs, and switches', async () => {
  const volume = await region.volume('early')
  const group = await region.group('early')
  const pair = await region.pair(group, volume, 'early')
  const file = join(region.directory, 'early-backup')
  await backupState(region.plane.store, file, systemClock)
  await region.act(group, 'start-server-group')
  await region.inSync(pair)
  await region.write('az1', pair, 'while protected')

  await restore(file)
  await region.until('it is protected', async () => {
    return (await region.show(group)).status === 'protected'
  })
  await region.inSync(pair)
  await region.act(group, 'reverse-server-group', { priority_station: 'target' })
  assert.equal(await region.read('az2', pair), 'while protected')
})

test('a preferred site that goes on alone is taken over as solo by a control plane that is restored meanwhile', async () => {
  const volume = await region.volume('alone')
  const group = await region.group('alone')
  const pair = await region.pair(group, volume, 'alone')
  await region.act(group, 'start-server-group')
  await region.inSync(pair)
  const file = join(region.directory, 'alone-backup')
  await backupState(region.plane.store, file, systemClock)
  const { witness, sites } = region.plane
  const wanted = { mode: 'static-priority', preferred: 'az1' } as const
  await arrangeArbitration({ witness, commands: sites, clock: systemClock }, group, wanted, 'test')
  await region.inSync(pair)

  await restore(file, async () => {
    await region.stopSite('az2')
    await region.write('az1', pair, 'alone')
  })
  await region.startSite('az2')
  await region.inSync(pair)
  const changes = await region.plane.store.db
    .selectFrom('ownership_changes')
    .select(['kind', 'state', 'writer'])
    .where('session', '=', group)
    .orderBy('epoch')
    .execute()
  const adopted = changes.find(({ kind }) => kind === 'adopt')
  assert.deepEqual(adopted, { kind: 'adopt', state: 'solo', writer: 'az1' })
  assert.equal((await region.plane.witness.record(group))?.mode, 'static-priority')
  assert.equal(await region.read('az1', pair), 'alone')
})
