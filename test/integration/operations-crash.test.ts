import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { RunningAgent } from '#agent/agent.ts'
import { connectNbd } from '#client/nbd/client.ts'
import { operationKinds } from '#control/operations/definitions/list.ts'
import { defaultVpcId } from '#control/resources/networks.ts'
import { makeCertificates, PROJECT, startRegionAgent } from '../support/region-parts.ts'
import { fakeGuests } from '../support/fake-guests.ts'
import { consistencyLife } from './crash/consistency.ts'
import { drillLife } from './crash/drills.ts'
import { ProtectedServer } from './crash/instances.ts'
import { type Answer, Lives } from './crash/lives.ts'
import { serverLife } from './crash/servers.ts'

/**
 * The control plane dies by SIGKILL at every boundary of every step of every operation, once each, in the middle of one long story over
 * two real agents. It is started again each time, and every operation still ends where it should, with the data in place. A kind of
 * operation that the story does not come across fails it.
 */
let directory: string
let lives: Lives
const agents: RunningAgent[] = []
/** Guests of both sites: what a real one does is tested elsewhere. */
const guests = { az1: fakeGuests(), az2: fakeGuests() }

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hf-'))
  await makeCertificates(directory)
  lives = await Lives.begin(directory)
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

const VOLUMES = '/v2/{project}/volumes'
const GROUPS = '/v1/{project}/server-groups'
const PAIRS = '/v1/{project}/replications'
const SNAPSHOTS = '/api/v1/snapshots'

/** The row of this name, in the list at `path`; null: not there, or nobody answers. */
async function named(path: string, member: string, name: string): Promise<Answer['body']> {
  const rows = await lives.get(path, member)
  return rows?.find((row: { name: string }) => row.name === name) ?? null
}

async function create(
  path: string,
  list: string,
  member: string,
  name: string,
  body: object,
  status: string,
): Promise<string> {
  const find = async () => await named(list, member, name)
  await lives.change('POST', path, body, async () => ((await find()) === null ? null : true))
  const row = await lives.until(`${name} is ${status}`, async () => {
    const found = await find()
    assert.ok(!String(found?.status).startsWith('error'), JSON.stringify(found))
    return found?.status === status ? found : null
  })
  return row.id as string
}

const volume = async (name: string) =>
  await create(
    VOLUMES,
    `${VOLUMES}/detail`,
    'volumes',
    name,
    { volume: { name, size: 1, availability_zone: 'az1' } },
    'available',
  )

const pair = async (group: string, disk: string, name: string, status: string) =>
  await create(
    PAIRS,
    PAIRS,
    'replications',
    name,
    { replication: { server_group_id: group, volume_id: disk, name } },
    status,
  )

async function settled(group: string, status: string, station: string): Promise<void> {
  await lives.until(`the group is ${status}`, async () => {
    const shown = await lives.get(`${GROUPS}/${group}`, 'server_group')
    assert.ok(!String(shown?.status).startsWith('error'), JSON.stringify(shown))
    return shown?.status === status && shown.priority_station === station ? true : null
  })
}

async function act(
  group: string,
  body: object,
  via: string,
  status: string,
  station: string,
): Promise<void> {
  await lives.change('POST', `${GROUPS}/${group}/action`, body, async () => {
    const shown = await lives.get(`${GROUPS}/${group}`, 'server_group')
    if (shown === null) return null
    return shown.status === via || (shown.status === status && shown.priority_station === station)
  })
  await settled(group, status, station)
}

async function inSync(id: string): Promise<void> {
  await lives.until(`${id} is in sync`, async () => {
    const shown = await lives.get(`${PAIRS}/${id}`, 'replication')
    return shown?.replication_status === 'active' ? true : null
  })
}

async function remove(path: string, body?: unknown): Promise<void> {
  const gone = async () => {
    const answer = await lives.ask('GET', path)
    return answer === null ? null : answer.status === 404
  }
  await lives.change('DELETE', path, body, async () => {
    const answer = await lives.ask('GET', path)
    if (answer === null) return null
    if (answer.status === 404) return true
    return JSON.stringify(answer.body).includes('"status":"deleting"')
  })
  await lives.until(`${path} is gone`, async () => ((await gone()) === true ? true : null))
}

interface Operation {
  readonly id: string
  readonly kind: string
  readonly resource_id: string
  readonly status: string
  readonly fail_reason: string | null
  readonly entities: Readonly<Record<string, unknown>>
}

/** Operations of `kind` on `resource`, newest first; null: nobody answers. */
async function operationsOf(kind: string, resource: string): Promise<Operation[] | null> {
  const path = `/api/v1/operations?resource_id=${resource}&limit=1000`
  const rows = (await lives.get(path, 'operations')) as Operation[] | null
  return rows?.filter((row) => row.kind === kind) ?? null
}

/** Begins an operation over our own API, just once, and waits for its good end. */
async function carryOut(
  kind: string,
  resource: string,
  method: string,
  path: string,
  body?: unknown,
): Promise<Operation> {
  await lives.change(method, path, body, async () => {
    const begun = await operationsOf(kind, resource)
    return begun === null ? null : begun.length > 0
  })
  return await lives.until(`${kind} has ended`, async () => {
    const begun = (await operationsOf(kind, resource)) ?? []
    assert.ok(begun.length < 2, `${kind} was begun twice`)
    const [one] = begun
    if (one === undefined || one.status === 'pending' || one.status === 'running') return null
    assert.equal(one.status, 'succeeded', JSON.stringify(one))
    return one
  })
}

async function mark(site: string, name: string, text: string): Promise<void> {
  const client = await connectNbd({ unix: join(directory, site, 'nbd.sock') }, { exportName: name })
  await client.write(8192, Buffer.from(text.padEnd(512)), { fua: true })
  await client.disconnect()
}

async function marked(site: string, name: string): Promise<string> {
  const client = await connectNbd({ unix: join(directory, site, 'nbd.sock') }, { exportName: name })
  const data = await client.read(8192, 512)
  await client.disconnect()
  return data.toString().trimEnd()
}

/** A disk of another type, then read-only, then copied; and several made at once. */
async function volumeLife(): Promise<void> {
  const typed = await volume('typed')
  const action = `${VOLUMES}/${typed}/action`
  await carryOut('volume.retype', typed, 'POST', action, { 'os-retype': { new_type: 'ESSD' } })
  const readonly = { 'os-update_readonly_flag': { readonly: true } }
  await carryOut('volume.limit', typed, 'POST', action, readonly)
  const filled = await create(
    VOLUMES,
    `${VOLUMES}/detail`,
    'volumes',
    'filled',
    { volume: { name: 'filled', size: 1, source_volid: typed, availability_zone: 'az1' } },
    'available',
  )
  const find = async (name: string) => await named(`${VOLUMES}/detail`, 'volumes', name)
  const many = { name: 'many', size: 1, count: 2, availability_zone: 'az1', volume_type: 'SSD' }
  await lives.change('POST', '/v3/{project}/cloudvolumes', { volume: many }, async () =>
    (await find('many-0001')) === null ? null : true,
  )
  const made = ['many-0001', 'many-0002'].map(
    async (name) =>
      await lives.until(`${name} is available`, async () => {
        const found = await find(name)
        return found?.status === 'available' ? (found.id as string) : null
      }),
  )
  for (const id of [typed, filled, ...(await Promise.all(made))]) await remove(`${VOLUMES}/${id}`)
}

/** Recoveries die in operations-crash-recovery.test.ts, backups in operations-crash-backups.test.ts. */
const ELSEWHERE = /^(group\.recover|server\.recover|backup\..*)$/

test('every operation ends in its declared state, wherever the control plane is killed', async () => {
  const disk = await volume('first')
  await lives.change(
    'POST',
    `${VOLUMES}/${disk}/action`,
    { 'os-extend': { new_size: 2 } },
    async () => {
      const shown = await lives.get(`${VOLUMES}/${disk}`, 'volume')
      return shown === null ? null : shown.size === 2 || shown.status === 'extending'
    },
  )
  await lives.until('the volume has grown', async () => {
    const shown = await lives.get(`${VOLUMES}/${disk}`, 'volume')
    return shown?.size === 2 && shown.status === 'available' ? true : null
  })
  await mark('az1', disk, 'story')
  const taken = await create(
    SNAPSHOTS,
    SNAPSHOTS,
    'snapshots',
    'taken',
    { name: 'taken', volumes: [disk] },
    'available',
  )
  await mark('az1', disk, 'a mistake')
  await carryOut('snapshot.rollback', taken, 'POST', `${SNAPSHOTS}/${taken}/rollback`, {})
  assert.equal(await marked('az1', disk), 'story')
  await lives.until('the snapshot is still there', async () => {
    const shown = await lives.get(`${SNAPSHOTS}/${taken}`, 'snapshot')
    return shown?.status === 'available' ? true : null
  })
  await carryOut('snapshot.delete', taken, 'DELETE', `${SNAPSHOTS}/${taken}`)
  await lives.until('the snapshot is gone', async () => {
    const answer = await lives.ask('GET', `${SNAPSHOTS}/${taken}`)
    return answer?.status === 404 ? true : null
  })

  const [domain] = await lives.until('the domain', async () =>
    lives.get('/v1/{project}/active-domains', 'domains'),
  )
  const group = await create(
    GROUPS,
    GROUPS,
    'server_groups',
    'group',
    {
      server_group: {
        name: 'group',
        source_availability_zone: 'az1',
        target_availability_zone: 'az2',
        domain_id: domain.id,
        source_vpc_id: defaultVpcId(PROJECT),
        // So that a failover freezes first: the preferred site could go on by itself.
        arbitration: { mode: 'static-priority', preferred_site: 'az1' },
        start_servers: true,
      },
    },
    'available',
  )
  const first = await pair(group, disk, 'first', 'available')
  const shielded = await ProtectedServer.make(lives, guests, group)
  await shielded.change(first)
  await act(group, { 'start-server-group': {} }, 'starting', 'protected', 'source')
  await inSync(first)
  const rebuild = { force: true }
  await carryOut('pair.rebuild', first, 'POST', `/api/v1/pairs/${first}/rebuild`, rebuild)
  await inSync(first)
  const verify = `/api/v1/groups/${group}/verify`
  const verified = await carryOut('group.verify', group, 'POST', verify, {})
  assert.equal(verified.entities['mismatched_bytes'], 0)
  assert.equal(verified.entities['compared_bytes'], 3 * 1024 ** 3)
  const second = await pair(group, await volume('second'), 'second', 'protected')
  await inSync(second)
  await lives.change(
    'POST',
    `${PAIRS}/${first}/action`,
    { 'extend-replication': { new_size: 3 } },
    async () => {
      const shown = await lives.get(`${PAIRS}/${first}`, 'replication')
      if (shown === null) return null
      return shown.status === 'extending' || shown.record_metadata.volume_size === 3
    },
  )
  await lives.until('the pair has grown', async () => {
    const shown = await lives.get(`${PAIRS}/${first}`, 'replication')
    return shown?.status === 'protected' && shown.record_metadata.volume_size === 3 ? true : null
  })
  await inSync(first)
  await inSync(second)
  await drillLife(lives, group, guests.az2)
  await mark('az1', first, 'in step')
  await act(group, { 'failover-server-group': {} }, 'failing-over', 'failed-over', 'target')
  assert.equal(await marked('az2', first), 'in step')
  await shielded.runsAt('az2')
  await mark('az2', first, 'failed over')
  await act(group, { 'start-server-group': {} }, 'reprotecting', 'protected', 'target')
  await inSync(first)
  await inSync(second)
  await shielded.stopAt('az2')
  const reverse = { 'reverse-server-group': { priority_station: 'source' } }
  await act(group, reverse, 'reversing', 'protected', 'source')
  assert.equal(await marked('az1', first), 'failed over')
  await shielded.runsAt('az1')
  await mark('az1', first, 'reversed')
  await inSync(first)
  await inSync(second)
  await shielded.remove()
  await remove(`${PAIRS}/${second}`, { replication: { delete_target_volume: true } })
  await act(group, { 'stop-server-group': {} }, 'stopping', 'available', 'source')
  assert.equal(await marked('az1', disk), 'reversed')
  await remove(`${PAIRS}/${first}`, {})
  await remove(`${GROUPS}/${group}`)
  await remove(`${VOLUMES}/${disk}`)
  await consistencyLife(lives, { mark, marked })
  await serverLife(lives, guests.az1)
  await volumeLife()

  const points = operationKinds
    .filter(({ name }) => !ELSEWHERE.test(name))
    // Nobody submits those of earlier releases any more.
    .filter(
      ({ name, version }) =>
        !operationKinds.some((later) => later.name === name && later.version > version),
    )
    .flatMap(({ name, steps }) =>
      steps.flatMap((step) => [
        `${name} ${step.name} after-act`,
        `${name} ${step.name} after-record`,
      ]),
    )
  const passed = new Set((await readFile(lives.visited, 'utf8')).split('\n'))
  assert.deepEqual(
    points.filter((point) => !passed.has(point)),
    [],
    'every boundary of every registered kind was crashed at',
  )
  assert.ok(lives.count > points.length, `${lives.count} lives`)
})
