/**
 * Protected instances over the API, against the contract: real state, operations, volumes and replication at two agents, whose guests
 * are lines in memory. What real guests do is in protected-servers.test.ts.
 */
import assert from 'node:assert/strict'
import { after, before, beforeEach, test } from 'node:test'
import { newId } from '#base/ids.ts'
import { systemClock } from '#base/system/clock.ts'
import type { RequestServices } from '#control/operations/definitions/requests.ts'
import {
  type NewServerDisk,
  requestPower,
  requestServerDeletion,
  requestServers,
} from '#control/operations/definitions/server-requests.ts'
import { findImageByName } from '#control/resources/images.ts'
import { defaultSubnetId, insertSubnet, insertVpc, portsOf } from '#control/resources/networks.ts'
import { disksOf, readServer } from '#control/resources/servers.ts'
import { setQuotaLimit } from '#control/resources/surroundings.ts'
import { readVolume } from '#control/resources/volumes.ts'
import type { PortRow } from '#control/store/tables/networks.ts'
import type { ServerRow } from '#control/store/tables/servers.ts'
import { INSTANCE_STATUSES } from '#domain/protected-instance.ts'
import { type FakeGuests, fakeGuests } from '../support/fake-guests.ts'
import { PROJECT, Region, type Reply } from '../support/region.ts'

let region: Region
let services: RequestServices
let image: string
const sites: Readonly<Record<'az1' | 'az2', FakeGuests>> = { az1: fakeGuests(), az2: fakeGuests() }

before(async () => {
  region = await Region.start({ servers: sites })
  const { store, operations, agents } = region.plane
  services = {
    store,
    operations,
    agents,
    clock: systemClock,
    sites: ['az1', 'az2'],
    agentSilenceMs: 1_000,
  }
  image = (await findImageByName(store.db, 'holdfast-tiny'))?.id ?? ''
})
after(async () => await region.stop())
beforeEach(() => {
  for (const site of Object.values(sites)) site.refusing.clear()
})

const INSTANCES = '/v1/{project}/protected-instances'
const GROUPS = '/v1/{project}/server-groups'

// ---------------------------------------------------------------- servers

const blank = (over: Partial<NewServerDisk> = {}): NewServerDisk => ({
  source: { kind: 'blank' },
  sizeGb: 1,
  bootIndex: null,
  device: null,
  deleteWithServer: false,
  type: null,
  ...over,
})

async function server(
  name: string,
  disks: readonly NewServerDisk[] = [],
  az = 'az1',
): Promise<ServerRow> {
  const request = {
    project: PROJECT,
    user: 'c'.repeat(32),
    name,
    description: null,
    az,
    flavor: 't2.micro',
    image,
    disks,
    nics: [],
    keyName: null,
    metadata: {},
    tags: {},
    autoRecovery: false,
  }
  const outcome = await requestServers(services, request, 1)
  assert.ok(outcome.ok, JSON.stringify(outcome))
  const view = await region.plane.operations.waitFor(outcome.operation)
  assert.equal(view.status, 'succeeded', view.failReason ?? '')
  return await row(outcome.servers[0]?.id ?? '')
}

async function row(id: string): Promise<ServerRow> {
  const found = await readServer(services.store.db, id)
  assert.ok(found !== undefined)
  return found
}

async function power(id: string, kind: 'start' | 'stop'): Promise<string | null> {
  const outcome = await requestPower(services, PROJECT, id, { kind, hard: true })
  if (!outcome.ok) return outcome.refusal
  if (outcome.operation !== null) {
    const view = await region.plane.operations.waitFor(outcome.operation)
    assert.equal(view.status, 'succeeded', view.failReason ?? '')
  }
  return null
}

const ports = async (id: string): Promise<readonly PortRow[]> =>
  (await portsOf(services.store.db, [id])).get(id) ?? []
const disks = async (id: string) => (await disksOf(services.store.db, [id])).get(id) ?? []
const devices = async (id: string) =>
  (await disks(id)).map(({ device, state }) => `${device} ${state}`)

/** As the agent of a site has it. */
const guestAt = (site: 'az1' | 'az2', id: string) => sites[site].guests.get(id)
const nicsAt = (site: 'az1' | 'az2', id: string) =>
  guestAt(site, id)?.definition.nics.map(({ mac, address }) => `${mac} ${address}`)

// ---------------------------------------------------------------- instances

const wish = (group: string, id: string, over: object = {}) => ({
  protected_instance: { server_group_id: group, server_id: id, name: 'inst', ...over },
})

async function protect(group: string, id: string, over: object = {}): Promise<string> {
  const job = await region.job('POST', INSTANCES, wish(group, id, over))
  assert.equal(job.job_type, 'createProtectedInstanceNoCG')
  return job.entities.protected_instance_id as string
}

const show = async (id: string): Promise<Reply['body']> =>
  (await region.ok('GET', `${INSTANCES}/${id}`)).protected_instance

const pairsOf = async (id: string): Promise<Reply['body'][]> => {
  const { attachment } = await show(id)
  return await Promise.all(
    attachment.map((one: { replication: string }) => region.showPair(one.replication)),
  )
}

/** Everything that a request could change. */
async function everything(): Promise<string> {
  const { db } = services.store
  const rows = await Promise.all([
    db
      .selectFrom('servers')
      .select(['id', 'status', 'task', 'flavor', 'generation', 'instance'])
      .orderBy('id')
      .execute(),
    db.selectFrom('server_disks').selectAll().orderBy('volume').orderBy('server').execute(),
    db.selectFrom('ports').selectAll().orderBy('id').execute(),
    db.selectFrom('tags').selectAll().orderBy('resource').orderBy('key').execute(),
    db.selectFrom('protected_instances').selectAll().orderBy('id').execute(),
  ])
  return JSON.stringify(rows) + (await region.snapshot())
}

/** Sends what must be refused: the code is the documented one, and nothing changed. */
async function refused(
  method: string,
  path: string,
  body: unknown,
  code: string,
  status = 400,
): Promise<void> {
  const before = await everything()
  const reply = await region.call(method, path, body)
  const where = `${method} ${path} ${JSON.stringify(body)} → ${JSON.stringify(reply.body)}`
  assert.equal(reply.body?.error?.code, code, where)
  assert.equal(reply.status, status, where)
  assert.equal(reply.body.error_code, code)
  assert.equal(await everything(), before, `${where} changed something`)
}

async function inSync(id: string): Promise<void> {
  for (const { id: pair } of await pairsOf(id)) await region.inSync(pair)
}

async function dropGroup(group: string): Promise<void> {
  await region.job('DELETE', `${GROUPS}/${group}`)
}

async function dropServers(...ids: string[]): Promise<void> {
  const outcome = await requestServerDeletion(services, PROJECT, ids, { deleteVolumes: true })
  assert.ok(outcome.ok, JSON.stringify(outcome))
  const view = await region.plane.operations.waitFor(outcome.operation)
  assert.equal(view.status, 'succeeded', view.failReason ?? '')
}

// ---------------------------------------------------------------- life

test('an instance is made of a running server: a stopped one at the other site, a pair for each disk, one identity', async () => {
  const web = await server('web', [blank({ device: '/dev/vdc' })])
  const group = await region.group('g')
  const tags = [{ key: 'team', value: 'blue' }]
  const job = await region.job('POST', INSTANCES, wish(group, web.id, { description: 'x', tags }))
  const id = job.entities.protected_instance_id as string
  assert.deepEqual(Object.keys(job.entities).toSorted(), [
    'native_server_id',
    'protected_instance_id',
    'server_group_id',
  ])
  const shown = await show(id)
  assert.deepEqual(
    { ...shown, created_at: '', updated_at: '', attachment: [] },
    {
      id,
      name: 'inst',
      description: 'x',
      server_group_id: group,
      status: 'available',
      progress: 0,
      source_server: web.id,
      target_server: job.entities.native_server_id,
      created_at: '',
      updated_at: '',
      priority_station: 'source',
      attachment: [],
      tags,
      metadata: {},
    },
  )
  assert.match(shown.created_at, /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}$/)
  assert.deepEqual(
    shown.attachment.map((one: { device: string }) => one.device),
    ['/dev/vda', '/dev/vdc'],
  )
  const dr = await row(shown.target_server)
  assert.deepEqual(
    [dr.name, dr.az, dr.flavor, dr.status, dr.task, dr.power, dr.instance],
    ['web', 'az2', 't2.micro', 'stopped', null, 'off', id],
  )
  assert.equal((await row(web.id)).instance, id)
  assert.equal((await row(web.id)).status, 'active')
  assert.deepEqual(await devices(dr.id), ['/dev/vda attached', '/dev/vdc attached'])
  assert.deepEqual(await devices(web.id), await devices(dr.id))
  for (const disk of await disks(dr.id)) {
    assert.equal((await readVolume(services.store.db, disk.volume))?.status, 'in-use')
  }
  for (const pair of await pairsOf(id)) {
    assert.equal(pair.status, 'available')
    assert.equal(pair.attachment[0].protected_instance, id)
    assert.ok(pair.name.startsWith('inst-vd'))
  }
  const [production, spare] = [await ports(web.id), await ports(dr.id)]
  assert.equal(production.length, 1)
  assert.equal(spare.length, 1)
  assert.equal(spare[0]?.subnet, production[0]?.subnet)
  assert.notEqual(spare[0]?.mac, production[0]?.mac)
  const counted = await region.show(group)
  assert.equal(counted.protected_instance_num, 1)
  assert.equal(counted.replication_num, 2)

  assert.equal(await power(dr.id, 'start'), 'SERVER_NOT_PRODUCTION')
  const removal = await requestServerDeletion(services, PROJECT, [web.id], { deleteVolumes: false })
  assert.deepEqual(removal, { ok: false, refusal: 'SERVER_PROTECTED' })
  await refused('DELETE', `${GROUPS}/${group}`, undefined, 'SDRS.1001')
  const [first] = shown.attachment
  await refused('DELETE', `/v1/{project}/replications/${first.replication}`, {}, 'SDRS.1605')

  const gone = await region.job('DELETE', `${INSTANCES}/${id}`)
  assert.equal(gone.job_type, 'deleteProtectedInstanceNoCG')
  assert.deepEqual(gone.entities, { server_group_id: group, protected_instance_id: id })
  await refused('GET', `${INSTANCES}/${id}`, undefined, 'SDRS.1320', 404)
  // The server of the DR site and its disks stay as plain ones.
  const kept = await row(dr.id)
  assert.equal(kept.instance, null)
  assert.deepEqual(await devices(dr.id), ['/dev/vda attached', '/dev/vdc attached'])
  assert.equal(await power(dr.id, 'start'), null)
  assert.equal((await region.show(group)).replication_num, 0)
  await dropGroup(group)
  await dropServers(web.id, dr.id)
})

test('with delete_target_server the server of the DR site goes with its disks and its NIC', async () => {
  const web = await server('web')
  const group = await region.group('g')
  const id = await protect(group, web.id)
  const { target_server: dr } = await show(id)
  const [disk] = await disks(dr)
  const [spare] = await ports(dr)
  await region.job('DELETE', `${INSTANCES}/${id}`, {
    delete_target_server: true,
    delete_target_eip: true,
  })
  assert.equal(await readServer(services.store.db, dr), undefined)
  assert.equal(guestAt('az2', dr), undefined)
  assert.equal(await readVolume(services.store.db, disk?.volume ?? ''), undefined)
  const { db } = services.store
  const left = await db
    .selectFrom('ports')
    .select('id')
    .where('id', '=', spare?.id ?? '')
    .execute()
  assert.deepEqual(left, [])
  assert.equal((await row(web.id)).instance, null)
  assert.equal((await row(web.id)).status, 'active')
  await dropGroup(group)
  await dropServers(web.id)
})

test('what speaks against a new instance has the documented code, and nothing changes', async () => {
  const web = await server('web')
  const elsewhere = await server('elsewhere', [], 'az2')
  const group = await region.group('g')
  const cases: [object, string][] = [
    [{ name: '' }, 'SDRS.0202'],
    [{ name: 'a b' }, 'SDRS.0202'],
    [{ name: 7 }, 'SDRS.0201'],
    [{ description: '<' }, 'SDRS.0212'],
    [{ server_group_id: 'x' }, 'SDRS.0207'],
    [{ server_group_id: newId() }, 'SDRS.1013'],
    [{ server_id: 'x' }, 'SDRS.0210'],
    [{ server_id: newId() }, 'SDRS.1326'],
    [{ server_id: elsewhere.id }, 'SDRS.1303'],
    [{ flavorRef: 'huge' }, 'SDRS.1353'],
    [{ primary_subnet_id: newId() }, 'SDRS.1335'],
    [{ primary_subnet_id: 'x' }, 'SDRS.1335'],
    [{ primary_subnet_id: defaultSubnetId(PROJECT), primary_ip_address: '10.1.1.1' }, 'SDRS.0219'],
    [{ primary_subnet_id: defaultSubnetId(PROJECT), primary_ip_address: 'here' }, 'SDRS.0219'],
    [
      {
        primary_subnet_id: defaultSubnetId(PROJECT),
        primary_ip_address: (await ports(web.id))[0]?.address,
      },
      'SDRS.1334',
    ],
    [{ tags: [{ key: 'a' }] }, 'SDRS.2208'],
    [{ tags: [{ key: '', value: 'x' }] }, 'SDRS.2205'],
    [{ tags: [{ key: ' a', value: 'x' }] }, 'SDRS.2204'],
    [{ tags: [{ key: 'a', value: 'x '.repeat(200) }] }, 'SDRS.2207'],
    [{ tags: Array.from({ length: 2 }, () => ({ key: 'a', value: 'x' })) }, 'SDRS.2209'],
    [{ tags: Array.from({ length: 11 }, (_, at) => ({ key: `k${at}`, value: 'x' })) }, 'SDRS.2203'],
  ]
  for (const [over, code] of cases)
    await refused('POST', INSTANCES, wish(group, web.id, over), code)
  for (const body of [undefined, null, [], {}, { protected_instance: {} }]) {
    await refused('POST', INSTANCES, body, 'SDRS.0201')
  }

  const { store } = services
  const write = store.write.bind(store)
  const change = async (columns: Partial<ServerRow>) =>
    await write((tx) => tx.updateTable('servers').set(columns).where('id', '=', web.id).execute())
  await change({ vpc: newId() })
  await refused('POST', INSTANCES, wish(group, web.id), 'SDRS.1304')
  await change({ vpc: web.vpc, status: 'error' })
  await refused('POST', INSTANCES, wish(group, web.id), 'SDRS.1333')
  await change({ status: 'active', task: 'powering-off' })
  await refused('POST', INSTANCES, wish(group, web.id), 'SDRS.1333')
  await change({ task: null })
  const [disk] = await disks(web.id)
  assert.ok(disk !== undefined)
  const disksAs = async (columns: object) =>
    await write((tx) =>
      tx.updateTable('server_disks').set(columns).where('server', '=', web.id).execute(),
    )
  await disksAs({ boot_index: null, device: '/dev/vdb' })
  await refused('POST', INSTANCES, wish(group, web.id), 'SDRS.1339')
  await disksAs({ boot_index: 0, device: '/dev/vda', state: 'detaching' })
  await refused('POST', INSTANCES, wish(group, web.id), 'SDRS.1801')
  await disksAs({ state: 'attached' })
  const volumeAs = async (columns: object) =>
    await write((tx) =>
      tx.updateTable('volumes').set(columns).where('id', '=', disk.volume).execute(),
    )
  await volumeAs({ multiattach: 1 })
  await refused('POST', INSTANCES, wish(group, web.id), 'SDRS.1806')
  await volumeAs({ multiattach: 0, pair: newId() })
  await refused('POST', INSTANCES, wish(group, web.id), 'SDRS.1811')
  await volumeAs({ pair: null })
  await write((tx) => tx.deleteFrom('server_disks').where('server', '=', web.id).execute())
  await refused('POST', INSTANCES, wish(group, web.id), 'SDRS.1321')
  await write((tx) => tx.insertInto('server_disks').values(disk).execute())

  const used = (await region.ok('GET', '/v1/{project}/sdrs/quotas')).quotas.resources.find(
    ({ type }: { type: string }) => type === 'replications',
  ).used
  await write((tx) => setQuotaLimit(tx, PROJECT, 'replications', used))
  await refused('POST', INSTANCES, wish(group, web.id), 'SDRS.0306')
  await write((tx) => setQuotaLimit(tx, PROJECT, 'replications', -1))

  const groupIs = async (status: string) =>
    await write((tx) =>
      tx.updateTable('protection_groups').set({ status }).where('id', '=', group).execute(),
    )
  for (const status of ['creating', 'starting', 'failed-over', 'error-reversing']) {
    await groupIs(status)
    await refused('POST', INSTANCES, wish(group, web.id), 'SDRS.1024')
  }
  await groupIs('available')
  const id = await protect(group, web.id)
  await refused('POST', INSTANCES, wish(group, web.id), 'SDRS.1305')
  await region.job('DELETE', `${INSTANCES}/${id}`, { delete_target_server: true })
  await dropGroup(group)
  await dropServers(web.id, elsewhere.id)
})

test('the server of the DR site gets the subnet, address and flavor that were chosen for it', async () => {
  const web = await server('web')
  const group = await region.group('g')
  const subnet = newId()
  const vpc = (await ports(web.id))[0]
  assert.ok(vpc !== undefined)
  await services.store.write((tx) =>
    insertSubnet(tx, {
      id: subnet,
      neutron_subnet: newId(),
      project: PROJECT,
      vpc: web.vpc,
      name: 'other',
      description: '',
      cidr: '192.168.77.0/24',
      gateway: '192.168.77.1',
      dhcp: 1,
      dns: '[]',
      az: null,
      created_at: 1,
    }),
  )
  const id = await protect(group, web.id, {
    primary_subnet_id: subnet,
    primary_ip_address: '192.168.77.9',
    flavorRef: 't2.small',
  })
  const dr = (await show(id)).target_server
  assert.equal((await row(dr)).flavor, 't2.small')
  assert.deepEqual(
    (await ports(dr)).map(({ address }) => address),
    ['192.168.77.9'],
  )
  assert.equal(guestAt('az2', dr)?.definition.memory_mb, 512)
  await region.job('DELETE', `${INSTANCES}/${id}`, { delete_target_server: true })
  await dropGroup(group)
  await dropServers(web.id)
})

test('several instances are made and deleted at once, all or none, and their job has a child for each', async () => {
  const servers = [await server('one'), await server('two')]
  const group = await region.group('g')
  const body = (over: object = {}) => ({
    protected_instances: {
      name_prefix: 'batch',
      server_group_id: group,
      servers: servers.map(({ id }) => ({ server_id: id })),
      ...over,
    },
  })
  const missing = [...servers.map(({ id }) => ({ server_id: id })), { server_id: newId() }]
  await refused('POST', `${INSTANCES}/batch`, body({ servers: missing }), 'SDRS.1326')
  await refused('POST', `${INSTANCES}/batch`, body({ servers: [] }), 'SDRS.0201')
  await refused('POST', `${INSTANCES}/batch`, body({ name_prefix: 'x'.repeat(60) }), 'SDRS.0202')
  const many = Array.from({ length: 21 }, () => ({ server_id: newId() }))
  await refused('POST', `${INSTANCES}/batch`, body({ servers: many }), 'SDRS.0201')

  const job = await region.job('POST', `${INSTANCES}/batch`, body())
  assert.equal(job.job_type, 'batchCreateProtectedInstanceNoCG')
  assert.equal(job.entities.server_group_id, group)
  const made = job.entities.sub_jobs
  assert.equal(made.length, 2)
  for (const sub of made) {
    assert.equal(sub.job_type, 'createProtectedInstanceNoCG')
    assert.equal(sub.status, 'SUCCESS')
    assert.deepEqual(await region.ok('GET', `/v1/{project}/jobs/${sub.job_id}`), sub)
    for (const value of Object.values(sub.entities)) assert.equal(typeof value, 'string')
  }
  const { protected_instances: listed } = await region.ok('GET', INSTANCES)
  assert.deepEqual(listed.map(({ name }: { name: string }) => name).toSorted(), [
    'batch-0001',
    'batch-0002',
  ])
  const ids = made.map((sub: Reply['body']) => sub.entities.protected_instance_id)
  const deletion = (list: readonly string[]) => ({
    protected_instances: list.map((id) => ({ id })),
    delete_target_server: true,
  })
  await refused('POST', `${INSTANCES}/delete`, deletion([...ids, newId()]), 'SDRS.1320')
  await refused('POST', `${INSTANCES}/delete`, deletion([]), 'SDRS.0201')
  await refused('POST', `${INSTANCES}/delete`, deletion(['x']), 'SDRS.0208')
  const gone = await region.job('POST', `${INSTANCES}/delete`, deletion(ids))
  assert.equal(gone.job_type, 'batchDeleteProtectedInstanceNoCG')
  assert.equal(gone.entities.sub_jobs.length, 2)
  assert.equal((await region.ok('GET', INSTANCES)).count, 0)
  await dropGroup(group)
  await dropServers(...servers.map(({ id }) => id))
})

test('a creation that fails leaves an instance that can be deleted, and its server stays as it was', async () => {
  const web = await server('web')
  const group = await region.group('g')
  sites.az2.refusing.set('server.define', 100)
  const job = await region.jobEnd('POST', INSTANCES, wish(group, web.id))
  sites.az2.refusing.clear()
  assert.equal(job.status, 'FAIL')
  assert.equal(job.error_code, 'SDRS.1350')
  const id = job.entities.protected_instance_id as string
  assert.equal((await show(id)).status, 'error')
  assert.equal((await row(web.id)).status, 'active')
  const failures = await region.ok(
    'GET',
    `/v1/{project}/task-center/failure-jobs?resource_type=protected_instances`,
  )
  assert.equal(failures.count, 1)
  assert.equal(failures.failure_jobs[0].failure_status, 'createFail')
  assert.equal(failures.failure_jobs[0].resource_id, id)
  await refused('POST', `${INSTANCES}/${id}/tags`, { tag: { key: 'a', value: 'b' } }, 'SDRS.2221')
  await refused('DELETE', `${INSTANCES}/${id}/tags/a`, undefined, 'SDRS.2222')
  await region.job('DELETE', `${INSTANCES}/${id}`, { delete_target_server: true })
  await region.ok('DELETE', '/v1/{project}/task-center/failure-jobs/' + id, undefined, 204)
  await dropGroup(group)
  await dropServers(web.id)
})

test('instances are listed by every filter, in pages and by marker', async () => {
  const [one, two] = [await server('one'), await server('two')]
  const [g1, g2] = [await region.group('g1'), await region.group('g2')]
  const a = await protect(g1, one.id, { name: 'Alpha' })
  const b = await protect(g2, two.id, { name: 'beta' })
  const names = async (query: string): Promise<string[]> => {
    const { protected_instances: rows, count } = await region.ok('GET', `${INSTANCES}?${query}`)
    assert.ok(count >= rows.length)
    return rows.map(({ name }: { name: string }) => name)
  }
  const cases: [string, string[]][] = [
    ['', ['beta', 'Alpha']],
    ['name=LPH', ['Alpha']],
    ['status=available', ['beta', 'Alpha']],
    ['status=protected', []],
    ['query_type=status_abnormal', []],
    ['query_type=general', ['beta', 'Alpha']],
    ['availability_zone=az1', ['beta', 'Alpha']],
    ['availability_zone=az2', []],
    [`server_group_id=${g1}`, ['Alpha']],
    [`server_group_ids=%5B%22${g1}%22%2C%22${g2}%22%5D`, ['beta', 'Alpha']],
    [`server_group_ids=${g2}&server_group_id=${g1}`, ['beta']],
    [`protected_instance_ids=['${a}']`, ['Alpha']],
    [`protected_instance_ids=['${a}']&server_group_id=${g2}`, ['beta']],
    ['limit=1', ['beta']],
    ['limit=1&offset=1', ['Alpha']],
    ['offset=5', []],
    ['limit=0', []],
    [`limit=1&marker=${b}`, ['Alpha']],
    [`marker=${newId()}`, []],
  ]
  for (const [query, expected] of cases) assert.deepEqual(await names(query), expected, query)
  const ids = Array.from({ length: 31 }, newId).join(',')
  for (const [query, code] of [
    ['limit=1001', 'SDRS.0221'],
    ['offset=-1', 'SDRS.0222'],
    ['status=gone', 'SDRS.0209'],
    ['query_type=stop_protected', 'SDRS.0201'],
    [`protected_instance_ids=${ids}`, 'SDRS.0226'],
  ] as const) {
    await refused('GET', `${INSTANCES}?${query}`, undefined, code)
  }
  const { replications } = await region.ok(
    'GET',
    `/v1/{project}/replications?protected_instance_id=${a}`,
  )
  assert.equal(replications.length, 1)
  assert.equal((await region.call('GET', INSTANCES, undefined, 'stranger')).status, 403)

  const renamed = await region.ok('PUT', `${INSTANCES}/${a}`, {
    protected_instance: { name: 'gamma' },
  })
  assert.equal(renamed.protected_instance.name, 'gamma')
  await refused('PUT', `${INSTANCES}/${a}`, { protected_instance: { name: 'ä' } }, 'SDRS.0202')
  for (const [id, group] of [
    [a, g1],
    [b, g2],
  ] as const) {
    await region.job('DELETE', `${INSTANCES}/${id}`, { delete_target_server: true })
    await dropGroup(group)
  }
  await dropServers(one.id, two.id)
})

// ---------------------------------------------------------------- disks

test('a pair is attached to the running server and to its stand-in under one name, and detached again', async () => {
  const web = await server('web')
  const [group, other] = [await region.group('g'), await region.group('other')]
  const id = await protect(group, web.id)
  const dr = (await show(id)).target_server
  const data = await region.volume('data')
  const pair = await region.pair(group, data, 'data')
  const foreign = await region.pair(other, await region.volume('foreign'), 'foreign')
  const attach = (over: object = {}) => ({
    replicationAttachment: { replication_id: pair, device: '/dev/sdb', ...over },
  })
  const path = `${INSTANCES}/${id}/attachreplication`
  for (const [over, code] of [
    [{ replication_id: 'x' }, 'SDRS.0213'],
    [{ replication_id: newId() }, 'SDRS.1608'],
    [{ replication_id: foreign }, 'SDRS.1611'],
    [{ device: '/dev/hda' }, 'SDRS.0201'],
    [{ device: '/dev/vda' }, 'SDRS.1603'],
    [{ device: 7 }, 'SDRS.0201'],
  ] as const) {
    await refused('POST', path, attach(over), code)
  }
  await refused('POST', path, {}, 'SDRS.0201')
  const absent = `${INSTANCES}/${newId()}/attachreplication`
  await refused('POST', absent, attach(), 'SDRS.1320', 404)

  const job = await region.job('POST', path, attach())
  assert.equal(job.job_type, 'attachReplicationPairNew')
  assert.deepEqual(job.entities, {
    server_group_id: group,
    protected_instance_id: id,
    replication_pair_id: pair,
  })
  assert.deepEqual((await show(id)).attachment[1], { replication: pair, device: '/dev/vdb' })
  assert.deepEqual((await region.showPair(pair)).attachment, [
    { device: '/dev/vdb', protected_instance: id },
  ])
  assert.equal((await region.showPair(pair)).status, 'available')
  for (const [site, machine] of [
    ['az1', web.id],
    ['az2', dr],
  ] as const) {
    assert.deepEqual(await devices(machine), ['/dev/vda attached', '/dev/vdb attached'])
    assert.equal(guestAt(site, machine)?.definition.disks[1]?.device, '/dev/vdb')
  }
  await refused('POST', path, attach({ device: '/dev/vdc' }), 'SDRS.1603')
  await refused('DELETE', `/v1/{project}/replications/${pair}`, {}, 'SDRS.1605')

  const detach = (pairId: string) => `${INSTANCES}/${id}/detachreplication/${pairId}`
  await refused('DELETE', detach('x'), undefined, 'SDRS.0213')
  await refused('DELETE', detach(newId()), undefined, 'SDRS.1608', 404)
  await refused('DELETE', detach(foreign), undefined, 'SDRS.1604')
  const system = (await show(id)).attachment[0].replication
  await refused('DELETE', detach(system), undefined, 'SDRS.1316')
  const end = await region.job('DELETE', detach(pair))
  assert.equal(end.job_type, 'detachReplicationPairNew')
  assert.equal((await show(id)).attachment.length, 1)
  assert.deepEqual(await devices(web.id), ['/dev/vda attached'])
  assert.deepEqual(await devices(dr), ['/dev/vda attached'])
  assert.equal((await readVolume(services.store.db, data))?.status, 'available')
  assert.equal(guestAt('az1', web.id)?.definition.disks.length, 1)

  // A guest that does not let go: the pair says so, and detaching is repeated.
  await region.job('POST', path, attach())
  assert.equal(await power(web.id, 'stop'), null)
  await region.job('DELETE', detach(system))
  await region.job('DELETE', detach(pair))
  for (const one of [pair, system, foreign])
    await region.job('DELETE', `/v1/{project}/replications/${one}`)
  await region.job('DELETE', `${INSTANCES}/${id}`)
  await dropGroup(group)
  await dropGroup(other)
  await dropServers(web.id, dr)
})

test('a disk that the guest does not take leaves the pair in error, and detaching it makes that good', async () => {
  const web = await server('web')
  const group = await region.group('g')
  const id = await protect(group, web.id)
  const pair = await region.pair(group, await region.volume('data'), 'data')
  sites.az1.refusing.set('server.define', 100)
  const job = await region.jobEnd('POST', `${INSTANCES}/${id}/attachreplication`, {
    replicationAttachment: { replication_id: pair, device: '/dev/vdb' },
  })
  sites.az1.refusing.clear()
  assert.equal(job.error_code, 'SDRS.1821')
  assert.equal((await region.showPair(pair)).status, 'error-attaching')
  assert.equal((await show(id)).status, 'available')
  await region.job('DELETE', `${INSTANCES}/${id}/detachreplication/${pair}`)
  const left = await region.showPair(pair)
  assert.deepEqual([left.status, left.attachment], ['available', []])
  assert.deepEqual(await devices(web.id), ['/dev/vda attached'])
  await region.job('DELETE', `/v1/{project}/replications/${pair}`, {
    replication: { delete_target_volume: true },
  })
  await region.job('DELETE', `${INSTANCES}/${id}`, { delete_target_server: true })
  await dropGroup(group)
  await dropServers(web.id)
})

test('an instance that goes keeps the pairs that were made without it, and a later one takes them again', async () => {
  const web = await server('web')
  const group = await region.group('g')
  const id = await protect(group, web.id)
  const pair = await region.pair(group, await region.volume('data'), 'data')
  await region.job('POST', `${INSTANCES}/${id}/attachreplication`, {
    replicationAttachment: { replication_id: pair, device: '/dev/vdb' },
  })
  await region.job('DELETE', `${INSTANCES}/${id}`, { delete_target_server: true })
  const left = await region.showPair(pair)
  assert.deepEqual([left.status, left.attachment], ['available', []])
  // A disk that may be in use is not pulled out of the production server.
  assert.deepEqual(await devices(web.id), ['/dev/vda attached', '/dev/vdb attached'])
  const again = await protect(group, web.id)
  const attachment = (await show(again)).attachment
  assert.deepEqual(
    attachment.map(({ replication }: { replication: string }) => replication === pair),
    [false, true],
  )
  await region.job('DELETE', `${INSTANCES}/${again}`, { delete_target_server: true })
  await region.job('DELETE', `/v1/{project}/replications/${pair}`, {
    replication: { delete_target_volume: true },
  })
  await dropGroup(group)
  await dropServers(web.id)
})

// ---------------------------------------------------------------- NICs and flavors

test('a NIC comes to the running production server and goes, the primary one stays', async () => {
  const web = await server('web')
  const group = await region.group('g')
  const id = await protect(group, web.id)
  const subnet = defaultSubnetId(PROJECT)
  const elsewhere = { vpc: newId(), subnet: newId() }
  await services.store.write(async (tx) => {
    const common = { project: PROJECT, name: 'away', description: '', created_at: 1 }
    await insertVpc(tx, { ...common, id: elsewhere.vpc, cidr: '10.0.0.0/16' })
    await insertSubnet(tx, {
      ...common,
      id: elsewhere.subnet,
      neutron_subnet: newId(),
      vpc: elsewhere.vpc,
      cidr: '10.0.0.0/24',
      gateway: '10.0.0.1',
      dhcp: 1,
      dns: '[]',
      az: null,
    })
  })
  const path = `${INSTANCES}/${id}/nic`
  const [primary] = await ports(web.id)
  for (const [body, code] of [
    [{}, 'SDRS.0201'],
    [{ subnet_id: 'x' }, 'SDRS.1335'],
    [{ subnet_id: newId() }, 'SDRS.1335'],
    [{ subnet_id: elsewhere.subnet }, 'SDRS.1335'],
    [{ subnet_id: subnet, ip_address: '10.0.0.9' }, 'SDRS.0219'],
    [{ subnet_id: subnet, ip_address: primary?.address }, 'SDRS.1334'],
    [{ subnet_id: subnet, security_groups: [{ id: newId() }] }, 'SDRS.0201'],
  ] as const) {
    await refused('POST', path, body, code)
  }
  const job = await region.job('POST', path, { subnet_id: subnet, ip_address: '192.168.3.3' })
  assert.equal(job.job_type, 'addNicNew')
  const nic = job.entities.nic_id as string
  const worn = await ports(web.id)
  assert.deepEqual(
    worn.map(({ id: port }) => port),
    [primary?.id, nic],
  )
  assert.equal(nicsAt('az1', web.id)?.[1], `${worn[1]?.mac} 192.168.3.3`)
  assert.equal((await show(id)).status, 'available')
  const removal = `${path}/delete`
  await refused('POST', removal, { nic_id: 'x' }, 'SDRS.0223')
  await refused('POST', removal, { nic_id: newId() }, 'SDRS.1310')
  await refused('POST', removal, { nic_id: primary?.id }, 'SDRS.1311')
  const dr = (await show(id)).target_server
  await refused('POST', removal, { nic_id: (await ports(dr))[0]?.id }, 'SDRS.1310')
  const gone = await region.job('POST', removal, { nic_id: nic })
  assert.equal(gone.job_type, 'deleteNicNew')
  assert.equal(nicsAt('az1', web.id)?.length, 1)
  assert.equal((await ports(web.id)).length, 1)

  // A site that refuses: the instance is as it was, and so is the network.
  sites.az1.refusing.set('server.define', 100)
  const failed = await region.jobEnd('POST', path, { subnet_id: subnet })
  sites.az1.refusing.clear()
  assert.equal(failed.error_code, 'SDRS.1312')
  assert.equal((await show(id)).status, 'available')
  assert.equal((await ports(web.id)).length, 1)
  for (let count = 1; count < 8; count++) await region.job('POST', path, { subnet_id: subnet })
  await refused('POST', path, { subnet_id: subnet }, 'SDRS.1340')
  await region.job('DELETE', `${INSTANCES}/${id}`, { delete_target_server: true })
  await dropGroup(group)
  await dropServers(web.id)
})

test('the flavors of stopped servers change, together or each alone', async () => {
  const web = await server('web')
  const group = await region.group('g')
  const id = await protect(group, web.id)
  const dr = (await show(id)).target_server
  const path = `${INSTANCES}/${id}/resize`
  const resize = (flavors: object) => ({ resize: flavors })
  await refused('POST', path, resize({}), 'SDRS.0201')
  await refused('POST', path, resize({ flavorRef: 'huge' }), 'SDRS.1356')
  await refused('POST', path, resize({ dr_flavorRef: 'huge' }), 'SDRS.1353')
  await refused('POST', path, resize({ flavorRef: 't2.small' }), 'SDRS.1316')
  await refused('POST', path, resize({ dr_flavorRef: 't2.micro' }), 'SDRS.1341')
  const alone = await region.job('POST', path, resize({ dr_flavorRef: 't2.small' }))
  assert.equal(alone.job_type, 'resizeProtectedInstanceNew')
  assert.deepEqual(alone.entities, { server_group_id: group, protected_instance_id: id })
  assert.deepEqual([(await row(web.id)).flavor, (await row(dr)).flavor], ['t2.micro', 't2.small'])
  assert.equal(guestAt('az2', dr)?.definition.memory_mb, 512)
  assert.equal(await power(web.id, 'stop'), null)
  await region.job('POST', path, resize({ flavorRef: 's2.medium.1', dr_flavorRef: 't2.nano' }))
  for (const machine of [web.id, dr]) assert.equal((await row(machine)).flavor, 's2.medium.1')
  assert.equal(guestAt('az1', web.id)?.definition.memory_mb, 1_024)
  assert.equal((await row(web.id)).task, null)

  sites.az2.refusing.set('server.define', 100)
  const failed = await region.jobEnd('POST', path, resize({ dr_flavorRef: 't2.nano' }))
  sites.az2.refusing.clear()
  assert.equal(failed.error_code, 'SDRS.1329')
  assert.equal((await show(id)).status, 'error-resizing')
  assert.equal((await row(dr)).task, null)
  await region.job('POST', path, resize({ dr_flavorRef: 't2.micro' }))
  assert.equal((await show(id)).status, 'available')
  await region.job('DELETE', `${INSTANCES}/${id}`, { delete_target_server: true })
  await dropGroup(group)
  await dropServers(web.id)
})

// ---------------------------------------------------------------- tags

test('tags are added, replaced, listed and removed, each mistake with its code', async () => {
  const [one, two] = [await server('one'), await server('two')]
  const group = await region.group('g')
  const a = await protect(group, one.id, { name: 'web-a', tags: [{ key: 'env', value: 'prod' }] })
  const b = await protect(group, two.id, { name: 'web-b' })
  const tags = `${INSTANCES}/${a}/tags`
  await region.ok('POST', tags, { tag: { key: 'team', value: 'blue' } }, 204)
  await region.ok('POST', tags, { tag: { key: 'team', value: 'red' } }, 204)
  assert.deepEqual((await region.ok('GET', tags)).tags, [
    { key: 'env', value: 'prod' },
    { key: 'team', value: 'red' },
  ])
  const action = (name: unknown, list: unknown) => ({ action: name, tags: list })
  await region.ok(
    'POST',
    `${INSTANCES}/${b}/tags/action`,
    action('create', [
      { key: 'env', value: 'test' },
      { key: 'owner ship', value: '' },
    ]),
    204,
  )
  await region.ok(
    'POST',
    `${INSTANCES}/${b}/tags/action`,
    action('delete', [{ key: 'owner ship' }, { key: 'nobody has it' }]),
    204,
  )
  const many = Array.from({ length: 20 }, (_, at) => ({ key: `k${at}`, value: 'x' }))
  for (const [body, code] of [
    [{ tag: { key: '', value: 'x' } }, 'SDRS.2205'],
    [{ tag: { value: 'x' } }, 'SDRS.2205'],
    [{ tag: { key: 'k'.repeat(128), value: 'x' } }, 'SDRS.2204'],
    [{ tag: { key: 'k', value: null } }, 'SDRS.2208'],
    [{ tag: { key: 'k', value: ' x' } }, 'SDRS.2207'],
    [{ tag: 7 }, 'SDRS.0201'],
  ] as const) {
    await refused('POST', tags, body, code)
  }
  for (const [body, code] of [
    [action('replace', many), 'SDRS.2201'],
    [{ tags: many }, 'SDRS.2201'],
    [action('create', []), 'SDRS.2202'],
    [action('create', undefined), 'SDRS.2202'],
    [action('create', many), 'SDRS.2203'],
    [action('create', [many[0], many[0]]), 'SDRS.2209'],
    [action('create', [{ key: 'k' }]), 'SDRS.2208'],
    [action('delete', [{ key: '' }]), 'SDRS.2205'],
  ] as const) {
    await refused('POST', `${tags}/action`, body, code)
  }
  await refused('GET', `${INSTANCES}/${newId()}/tags`, undefined, 'SDRS.1320', 404)
  await refused('DELETE', `${tags}/nobody`, undefined, 'SDRS.2206', 404)
  await region.ok('POST', tags, { tag: { key: 'a/b c', value: 'x' } }, 204)
  await region.ok('DELETE', `${tags}/a%2Fb%20c`, undefined, 204)
  assert.deepEqual((await region.ok('GET', `${INSTANCES}/tags`)).tags, [
    { key: 'env', values: ['prod', 'test'] },
    { key: 'team', values: ['red'] },
  ])

  const query = `${INSTANCES}/resource_instances/action`
  const find = async (body: object): Promise<string[]> => {
    const { resources, total_count } = await region.ok('POST', query, { action: 'filter', ...body })
    const { total_count: counted } = await region.ok('POST', query, { action: 'count', ...body })
    assert.equal(total_count, counted)
    return resources.map((found: Reply['body']) => {
      assert.equal(typeof found.resource_detail.created_at, 'number')
      assert.deepEqual(found.tags, found.resource_detail.tags)
      return found.resource_name
    })
  }
  const env = (...values: string[]) => [{ key: 'env', values }]
  for (const [body, expected] of [
    [{}, ['web-b', 'web-a']],
    [{ tags: env() }, ['web-b', 'web-a']],
    [{ tags: env('prod', 'nothing') }, ['web-a']],
    [{ tags: [...env('*es'), { key: 'team', values: [] }] }, []],
    [{ tags_any: [...env('test'), { key: 'team', values: [] }] }, ['web-b', 'web-a']],
    [{ not_tags: env('prod') }, ['web-b']],
    [{ not_tags_any: [{ key: 'team', values: [] }] }, ['web-b']],
    [{ matches: [{ key: 'resource_name', value: 'B-' }] }, ['web-b', 'web-a']],
    [{ matches: [{ key: 'resource_name', value: '-A' }] }, ['web-a']],
    [{ matches: [{ key: 'resource_name', value: '' }] }, []],
  ] as const) {
    assert.deepEqual(await find(body), expected, JSON.stringify(body))
  }
  const paged = await region.ok('POST', query, { action: 'filter', limit: '1', offset: 1 })
  assert.deepEqual([paged.resources.length, paged.total_count], [1, 2])
  for (const [body, code] of [
    [{ action: 'sort' }, 'SDRS.2210'],
    [{ action: 'count', limit: '1' }, 'SDRS.2211'],
    [{ action: 'filter', limit: 0 }, 'SDRS.2220'],
    [{ action: 'filter', limit: '1001' }, 'SDRS.2220'],
    [{ action: 'filter', offset: '-1' }, 'SDRS.0222'],
    [{ action: 'filter', tags: [{ key: ' ', values: [] }] }, 'SDRS.2205'],
    [{ action: 'filter', tags: [...env(), ...env()] }, 'SDRS.2209'],
    [{ action: 'filter', tags: env('*') }, 'SDRS.2207'],
    [{ action: 'filter', tags: env('a', 'a') }, 'SDRS.2219'],
    [
      { action: 'filter', tags: env(...Array.from({ length: 21 }, (_, at) => `v${at}`)) },
      'SDRS.2218',
    ],
    [
      {
        action: 'filter',
        tags: Array.from({ length: 21 }, (_, at) => ({ key: `k${at}`, values: [] })),
      },
      'SDRS.2203',
    ],
    [{ action: 'filter', matches: [] }, 'SDRS.2212'],
    [{ action: 'filter', matches: [{ key: '', value: 'x' }] }, 'SDRS.2213'],
    [{ action: 'filter', matches: [{ key: 'id', value: 'x' }] }, 'SDRS.2214'],
    [
      {
        action: 'filter',
        matches: Array.from({ length: 2 }, () => ({ key: 'resource_name', value: 'x' })),
      },
      'SDRS.2215',
    ],
    [{ action: 'filter', matches: [{ key: 'resource_name' }] }, 'SDRS.2216'],
    [
      { action: 'filter', matches: [{ key: 'resource_name', value: 'x'.repeat(256) }] },
      'SDRS.2217',
    ],
    [{ action: 'filter', tags: 'x' }, 'SDRS.0201'],
  ] as const) {
    await refused('POST', query, body, code)
  }
  for (const id of [a, b]) {
    await region.job('DELETE', `${INSTANCES}/${id}`, { delete_target_server: true })
  }
  assert.deepEqual((await region.ok('GET', `${INSTANCES}/tags`)).tags, [])
  await dropGroup(group)
  await dropServers(one.id, two.id)
})

// ---------------------------------------------------------------- switches

/** `mac address` of every NIC, as the database has it. */
const worn = async (id: string) => (await ports(id)).map(({ mac, address }) => `${mac} ${address}`)

test('the identity of a server goes where production goes, and nothing runs at the other site', async () => {
  const web = await server('web')
  const group = await region.group('g')
  const id = await protect(group, web.id)
  const dr = (await show(id)).target_server
  await region.act(group, 'start-server-group')
  assert.equal((await show(id)).status, 'protected')
  await inSync(id)
  assert.equal((await show(id)).progress, 100)
  const [identity, spare] = [await worn(web.id), await worn(dr)]

  const action = `${GROUPS}/${group}/action`
  const reverse = (to: string) => ({ 'reverse-server-group': { priority_station: to } })
  await refused('POST', action, reverse('target'), 'SDRS.1319')
  assert.equal(await power(web.id, 'stop'), null)
  await region.act(group, 'reverse-server-group', { priority_station: 'target' })
  const turned = await show(id)
  assert.deepEqual([turned.status, turned.priority_station], ['protected', 'target'])
  assert.deepEqual([turned.source_server, turned.target_server], [web.id, dr])
  assert.deepEqual([await worn(dr), await worn(web.id)], [identity, spare])
  assert.deepEqual([nicsAt('az2', dr), nicsAt('az1', web.id)], [identity, spare])
  assert.equal((await row(dr)).status, 'stopped')
  assert.equal(await power(web.id, 'start'), 'SERVER_NOT_PRODUCTION')
  assert.equal(await power(dr, 'start'), null)
  await inSync(id)
  await refused('DELETE', `${INSTANCES}/${id}`, { delete_target_server: true }, 'SDRS.1330')
  await refused('POST', action, reverse('source'), 'SDRS.1319')
  assert.equal(await power(dr, 'stop'), null)
  await region.act(group, 'reverse-server-group', { priority_station: 'source' })
  assert.deepEqual([await worn(web.id), await worn(dr)], [identity, spare])

  assert.equal(await power(web.id, 'start'), null)
  await inSync(id)
  await region.act(group, 'failover-server-group')
  const over = await show(id)
  assert.deepEqual([over.status, over.priority_station], ['failed-over', 'target'])
  assert.equal(guestAt('az1', web.id)?.power, 'off')
  assert.deepEqual([await worn(dr), await worn(web.id)], [identity, []])
  assert.deepEqual([nicsAt('az2', dr), nicsAt('az1', web.id)], [identity, []])
  assert.equal((await row(web.id)).status, 'stopped')
  assert.equal(await power(web.id, 'start'), 'SERVER_NOT_PRODUCTION')
  assert.equal(await power(dr, 'start'), null)
  await refused(
    'POST',
    `${INSTANCES}/${id}/resize`,
    { resize: { flavorRef: 't2.nano' } },
    'SDRS.1328',
  )
  await refused('POST', `${INSTANCES}/${id}/nic`, { subnet_id: newId() }, 'SDRS.1327')

  await region.act(group, 'start-server-group')
  assert.equal((await show(id)).status, 'protected')
  assert.deepEqual(await worn(web.id), spare)
  assert.deepEqual(nicsAt('az1', web.id), spare)
  await inSync(id)
  assert.equal(await power(dr, 'stop'), null)
  await region.act(group, 'reverse-server-group', { priority_station: 'source' })
  await inSync(id)
  await region.act(group, 'stop-server-group')
  assert.equal((await show(id)).status, 'available')
  await region.job('DELETE', `${INSTANCES}/${id}`, { delete_target_server: true })
  await dropGroup(group)
  await dropServers(web.id)
})

test('a site that was dead in a failover powers its old servers off when it is back; servers start by themselves if the group wants that', async () => {
  const web = await server('web')
  const made = await region.job('POST', GROUPS, {
    server_group: {
      name: 'g',
      source_availability_zone: 'az1',
      target_availability_zone: 'az2',
      domain_id: await region.domain(),
      source_vpc_id: region.vpc,
      start_servers: true,
    },
  })
  const group = made.entities.server_group_id as string
  const id = await protect(group, web.id)
  const dr = (await show(id)).target_server
  await region.act(group, 'start-server-group')
  await inSync(id)
  const [identity, spare] = [await worn(web.id), await worn(dr)]
  await region.stopSite('az1')
  await region.act(group, 'failover-server-group')
  assert.deepEqual(await worn(dr), identity)
  assert.equal((await row(dr)).status, 'active')
  assert.equal(guestAt('az2', dr)?.power, 'running')
  assert.equal(guestAt('az1', web.id)?.power, 'running', 'nobody could tell it')
  const action = `${GROUPS}/${group}/action`
  await region.startSite('az1')
  await region.until('the old server is off', async () => guestAt('az1', web.id)?.power === 'off')
  await region.until('the old server has no NIC', async () => nicsAt('az1', web.id)?.length === 0)
  await region.until('the control plane knows', async () => {
    const reply = await region.call('POST', action, { 'start-server-group': {} })
    if (reply.status === 200) await region.plane.operations.waitFor(reply.body.job_id as string)
    else assert.equal(reply.body.error.code, 'SDRS.1342')
    return reply.status === 200
  })
  assert.equal((await show(id)).status, 'protected')
  assert.deepEqual(await worn(web.id), spare)
  await inSync(id)
  await region.act(group, 'stop-server-group')
  await region.job('DELETE', `${INSTANCES}/${id}`)
  // Production is where it was: its server has the identity, the other one the spare NIC.
  assert.deepEqual([await worn(dr), await worn(web.id)], [identity, spare])
  assert.equal((await row(dr)).status, 'active')
  await dropGroup(group)
  await dropServers(web.id, dr)
})

test('every state of an instance is one of the contract, and the forbidden ones refuse', async () => {
  const web = await server('web')
  const group = await region.group('g')
  const id = await protect(group, web.id)
  const { store } = services
  for (const status of INSTANCE_STATUSES) {
    if (status === 'invalid' || status === 'fault') continue
    await store.write((tx) =>
      tx.updateTable('protected_instances').set({ status }).where('id', '=', id).execute(),
    )
    // Held against the contract on the way.
    assert.equal((await show(id)).status, status)
    const { count } = await region.ok(
      'GET',
      `${INSTANCES}?status=${status}&server_group_id=${group}`,
    )
    assert.equal(count, 1)
    const well = status === 'available' || status === 'protected'
    if (!well) {
      await refused('POST', `${INSTANCES}/${id}/nic`, { subnet_id: newId() }, 'SDRS.1327')
      await refused('POST', `${INSTANCES}/${id}/nic/delete`, { nic_id: newId() }, 'SDRS.1327')
    }
    if (!well && status !== 'error-resizing') {
      await refused(
        'POST',
        `${INSTANCES}/${id}/resize`,
        { resize: { flavorRef: 't2.nano' } },
        'SDRS.1328',
      )
    }
    if (
      ['creating', 'deleting', 'nic-creating', 'resizing', 'starting', 'failing-over'].includes(
        status,
      )
    ) {
      await refused('DELETE', `${INSTANCES}/${id}`, undefined, 'SDRS.1301')
    }
  }
  await store.write((tx) =>
    tx
      .updateTable('protected_instances')
      .set({ status: 'available' })
      .where('id', '=', id)
      .execute(),
  )
  const [{ replication }] = (await show(id)).attachment
  const pairIs = async (status: string) =>
    await store.write((tx) =>
      tx.updateTable('replication_pairs').set({ status }).where('id', '=', replication).execute(),
    )
  await pairIs('error')
  assert.equal((await show(id)).status, 'fault')
  assert.equal(
    (await region.ok('GET', `${INSTANCES}?query_type=status_abnormal&server_group_id=${group}`))
      .count,
    1,
  )
  await pairIs('available')
  await region.job('DELETE', `${INSTANCES}/${id}`, { delete_target_server: true })
  await dropGroup(group)
  await dropServers(web.id)
})
