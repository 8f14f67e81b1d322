import assert from 'node:assert/strict'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { systemClock } from '#base/system/clock.ts'
import { agentRefusal, agentSessions, promoteSession } from '#client/agent-door.ts'
import { arrangeArbitration } from '#control/operations/definitions/protection/arbitration.ts'
import { preflight } from '#control/operations/definitions/recovery/preflight.ts'
import { readGroup } from '#control/resources/groups.ts'
import { Region } from '../support/region.ts'

/** Link losses, forced failovers, arbitration and break-glass, from the API down to the disks of two real agents. */
let region: Region
before(async () => {
  region = await Region.start({ agent: { soloDelayMs: 200 } })
})
after(async () => await region.stop())

const ACTION = (group: string) => `/v1/{project}/server-groups/${group}/action`

async function protectedGroup(name: string) {
  const volume = await region.volume(name)
  const group = await region.group(name)
  const pair = await region.pair(group, volume, name)
  await region.act(group, 'start-server-group')
  await region.inSync(pair)
  return { group, pair }
}

async function write(site: string, name: string, fill: number): Promise<void> {
  const client = await region.nbd(site, name)
  await client.write(0, Buffer.alloc(4096, fill))
  await client.flush()
  await client.disconnect()
}

async function read(site: string, name: string): Promise<number | undefined> {
  const client = await region.nbd(site, name)
  const data = await client.read(0, 4096)
  await client.disconnect()
  return data[0]
}

const recordOf = async (group: string) => {
  const record = await region.plane.witness.record(group)
  assert.ok(record !== null)
  return record
}
const inState = (group: string, state: string) =>
  region.until(`${group} is ${state}`, async () => (await recordOf(group)).state === state)
const kindsOf = async (group: string) => {
  const rows = await region.plane.store.db
    .selectFrom('ownership_changes')
    .select('kind')
    .where('session', '=', group)
    .orderBy('epoch')
    .execute()
  return rows.map(({ kind }) => kind)
}
async function look(group: string, force: boolean, preferredOff = false) {
  const row = await readGroup(region.plane.store.db, group)
  assert.ok(row !== undefined)
  const { store, agents, witness } = region.plane
  const services = { store, agents, witness, clock: systemClock, agentSilenceMs: 1_000 }
  return await preflight(services, row, { kind: 'failover', force, preferredOff })
}

test('a group whose DR site is lost goes on alone, says so, and comes back by itself', async () => {
  const { group, pair } = await protectedGroup('lost')
  await region.stopSite('az2')
  await write('az1', pair, 1)
  await inState(group, 'solo')
  await region.until('fault level 5', async () => (await region.showPair(pair)).fault_level === '5')
  const shown = await region.showPair(pair)
  assert.equal(shown.replication_status, 'inactive')
  assert.ok(shown.progress < 100)
  const found = await look(group, true)
  assert.equal(found.refusal, 'DR_SITE_SILENT')
  assert.ok(found.freezes)
  assert.deepEqual(found.needs, ['force'])

  await region.startSite('az2')
  await region.inSync(pair)
  assert.equal((await region.showPair(pair)).fault_level, '0')
  assert.deepEqual((await kindsOf(group)).slice(0, 3), ['open', 'rise', 'solo'])
  assert.equal((await recordOf(group)).alone, null)
})

test('a writer that is alone and alive gives up at once when it is asked, and the job says what was given up', async () => {
  const { group, pair } = await protectedGroup('forced')
  await region.stopSite('az2')
  await write('az1', pair, 2)
  const { state, alone } = await recordOf(group)
  assert.equal(state, 'solo')
  assert.ok(alone !== null, 'the first lease was asked for with the figures')
  // What was held until it went alone counts: the write before this was answered by nothing else.
  await region.until(
    'it has told',
    async () => ((await recordOf(group)).alone?.bytes ?? 0) >= 4_096,
  )
  const { givenUp } = await look(group, true)
  assert.equal(givenUp?.kind, 'at_least')
  assert.ok((givenUp?.bytes ?? 0) >= 4_096)
  await write('az1', pair, 3)
  // A DR side that is back catches up; the failover comes first or not, and either is consistent.
  await region.startSite('az2')
  await region.until('heard', async () => region.plane.agents.heard('az2'))
  const job = await region.act(group, 'failover-server-group', { force: true })
  assert.match(String(job.entities.given_up_at_least), /^(At least|Nothing|Whatever)/)
  const kinds = await kindsOf(group)
  assert.deepEqual(kinds.slice(-2), ['freeze', 'failover'])
  await region.refuses('az1', pair)
  const value = await read('az2', pair)
  assert.ok(value === 0 || value === 2 || value === 3, String(value))
  await region.act(group, 'start-server-group')
  await region.inSync(pair)
  assert.equal(await read('az2', pair), value)
})

test('a record that is left frozen is thawed: production goes on alone, and the group comes back in sync', async () => {
  const { group, pair } = await protectedGroup('thawed')
  const { epoch } = await recordOf(group)
  const freeze = { kind: 'freeze', epoch, attempt: 'nobody-goes-on-with-this' } as const
  await region.plane.witness.change(group, freeze, 'test')
  assert.equal((await region.showPair(pair)).fault_level, '2')
  await region.inSync(pair)
  assert.deepEqual((await kindsOf(group)).slice(2, 4), ['freeze', 'thaw'])
  await write('az1', pair, 4)
})

test('the arbitration of a group in sync is changed by its writer, and its silent preferred site needs a statement', async () => {
  const { group, pair } = await protectedGroup('preferred')
  const { witness, sites } = region.plane
  const services = { witness, commands: sites, clock: systemClock }
  const wanted = { mode: 'static-priority', preferred: 'az1' } as const
  const record = await arrangeArbitration(services, group, wanted, 'test')
  assert.deepEqual(
    [record.mode, record.preferred, record.state],
    ['static-priority', 'az1', 'in_sync'],
  )
  await region.inSync(pair)
  await write('az1', pair, 5)

  await region.stopSite('az1')
  const codeOf = async (value: object) => {
    const reply = await region.call('POST', ACTION(group), { 'failover-server-group': value })
    return reply.body.error.code as string
  }
  assert.equal(await codeOf({}), 'SDRS.1824')
  assert.equal(await codeOf({ force: true }), 'SDRS.1824')
  assert.equal(await codeOf({ preferred_site_is_off: true }), 'SDRS.1824')
  assert.equal(await codeOf({ force: true, preferred_site_is_off: 1 }), 'SDRS.0206')
  assert.deepEqual((await look(group, true)).needs, ['force', 'preferred_off'])
  assert.equal((await look(group, true, true)).refusal, null)
  await region.act(group, 'failover-server-group', { force: true, preferred_site_is_off: true })
  assert.equal(await read('az2', pair), 5)
  await region.startSite('az1')
  await region.until('heard', async () => region.plane.agents.heard('az1'))
  await region.act(group, 'start-server-group')
  await region.inSync(pair)
})

test('break-glass at the surviving host makes it the writer, the witness learns of it, and the group follows', async () => {
  const { group, pair } = await protectedGroup('glass')
  await write('az1', pair, 6)
  const socket = join(region.directory, 'az2', 'agent.sock')
  assert.equal((await stat(socket)).mode & 0o777, 0o600)
  await region.stopSite('az1')
  const before = (await agentSessions(socket)).sessions.find((one) => one.session === group)
  assert.deepEqual([before?.role, before?.consistent], ['replica', true])
  await assert.rejects(promoteSession(socket, group, false), (error) => {
    assert.equal(agentRefusal(error), 'WRONG_STATE')
    return true
  })
  const command = { session: group, force: true }
  await assert.rejects(region.plane.sites.command('az2', 'session.promote', command), {
    code: 'SITE_REFUSED',
  })
  const after = await promoteSession(socket, group, true)
  assert.ok(after.epoch > 1_000_000)
  assert.equal(await read('az2', pair), 6)
  await region.until('the group follows', async () => {
    const { status, priority_station } = await region.show(group)
    return status === 'failed-over' && priority_station === 'target'
  })
  const record = await recordOf(group)
  assert.deepEqual([record.state, record.writer], ['failed_over', 'az2'])
  await write('az2', pair, 7)

  await region.startSite('az1')
  await region.until('heard', async () => region.plane.agents.heard('az1'))
  await region.refuses('az1', pair)
  await region.act(group, 'start-server-group')
  await region.inSync(pair)
  await region.act(group, 'reverse-server-group', { priority_station: 'source' })
  assert.equal(await read('az1', pair), 7)
})
