import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { RunningAgent } from '#agent/agent.ts'
import { recoverGroup, recoverServer } from '#control/operations/definitions/recovery/recovery.ts'
import { defaultVpcId } from '#control/resources/networks.ts'
import { fakeGuests } from '../support/fake-guests.ts'
import { makeCertificates, PROJECT, startRegionAgent } from '../support/region-parts.ts'
import { ProtectedServer } from './crash/instances.ts'
import { Lives } from './crash/lives.ts'
import { eachScriptRan, goOn, makeScripts, planRecovery } from './crash/recovery.ts'

/**
 * A group with a recovery plan is switched while the control plane dies by SIGKILL at every boundary of the recovery, and of the steps of the
 * switches that move the station and lead to it. The other steps of the switches know nothing of a plan: the control plane dies at each of
 * them in operations-crash.test.ts.
 */
const POINTS =
  /^(group\.recover|server\.recover|group\.failover (open_dr|start)|group\.reverse (open_writer|start)) ?/

let directory: string
let lives: Lives
const agents: RunningAgent[] = []
const guests = { az1: fakeGuests(), az2: fakeGuests() }

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hf-'))
  await makeCertificates(directory)
  await makeScripts(directory)
  lives = await Lives.begin(directory, POINTS)
  for (const site of ['az1', 'az2'] as const) {
    const { internalPort } = lives
    agents.push(await startRegionAgent(directory, site, internalPort, {}, guests[site]))
  }
})

after(async () => {
  await lives.end()
  for (const agent of agents) await agent.close()
  await rm(directory, { recursive: true, force: true })
})

const GROUPS = '/v1/{project}/server-groups'

async function makeGroup(): Promise<string> {
  const [domain] = await lives.until('the domain', async () =>
    lives.get('/v1/{project}/active-domains', 'domains'),
  )
  const body = {
    server_group: {
      name: 'group',
      source_availability_zone: 'az1',
      target_availability_zone: 'az2',
      domain_id: domain.id,
      source_vpc_id: defaultVpcId(PROJECT),
      start_servers: true,
    },
  }
  const listed = async () => {
    const rows = await lives.get(GROUPS, 'server_groups')
    return rows === null ? null : rows.length > 0
  }
  await lives.change('POST', GROUPS, body, listed)
  return await lives.until('the group is there', async () => {
    const [row] = (await lives.get(GROUPS, 'server_groups')) ?? []
    return row?.status === 'available' ? (row.id as string) : null
  })
}

async function act(group: string, body: object, via: string, status: string, station: string) {
  const show = async () => await lives.get(`${GROUPS}/${group}`, 'server_group')
  const is = (shown: { status: string; priority_station: string }) =>
    shown.status === status && shown.priority_station === station
  await lives.change('POST', `${GROUPS}/${group}/action`, body, async () => {
    const shown = await show()
    return shown === null ? null : shown.status === via || is(shown)
  })
  await lives.until(`the group is ${status}`, async () => {
    const shown = await show()
    assert.ok(!String(shown?.status).startsWith('error'), JSON.stringify(shown))
    return shown !== null && is(shown) ? true : null
  })
}

const inSync = async (group: string) =>
  await lives.until('the group is in sync', async () => {
    const found = await lives.get(`/api/v1/groups/${group}`, 'group')
    return found?.sync === 'in_sync' ? true : null
  })

test('a group with a recovery plan is switched and its servers come back, wherever the control plane is killed', async (t) => {
  const group = await makeGroup()
  const shielded = await ProtectedServer.make(lives, guests, group)
  await planRecovery(lives, group, shielded.id)
  await act(group, { 'start-server-group': {} }, 'starting', 'protected', 'source')
  await inSync(group)
  await act(group, { 'failover-server-group': {} }, 'failing-over', 'failed-over', 'target')
  await goOn(lives, group, 'failover', 1)
  await shielded.runsAt('az2')
  await act(group, { 'start-server-group': {} }, 'reprotecting', 'protected', 'target')
  await inSync(group)
  await shielded.stopAt('az2')
  const reverse = { 'reverse-server-group': { priority_station: 'source' } }
  await act(group, reverse, 'reversing', 'protected', 'source')
  await goOn(lives, group, 'reverse', 2)
  await shielded.runsAt('az1')
  await eachScriptRan(directory, 2)

  const passed = (await readFile(lives.visited, 'utf8')).split('\n')
  const points = [recoverGroup, recoverServer].flatMap(({ name, steps }) =>
    steps.flatMap((step) => [
      `${name} ${step.name} after-act`,
      `${name} ${step.name} after-record`,
    ]),
  )
  assert.deepEqual(
    points.filter((point) => !passed.includes(point)),
    [],
    'every boundary of a recovery was crashed at',
  )
  for (const kind of ['group.failover', 'group.reverse']) {
    assert.ok(
      passed.some((point) => point.startsWith(kind)),
      kind,
    )
  }
  t.diagnostic(`${lives.count} lives`)
})
