/** Protected instances over the API: made, listed, renamed and deleted, one by one and in batches. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { newId } from '#base/ids.ts'
import type { RequestServices } from '#control/operations/definitions/requests.ts'
import { requestServerDeletion } from '#control/operations/definitions/servers/server-requests.ts'
import { defaultSubnetId, insertSubnet } from '#control/resources/networks.ts'
import { readServer } from '#control/resources/servers.ts'
import { setQuotaLimit } from '#control/resources/surroundings.ts'
import { readVolume } from '#control/resources/volumes.ts'
import type { ServerRow } from '#control/store/tables/servers.ts'
import { GROUPS, INSTANCES, instanceLab } from '../support/instance-lab.ts'
import { PROJECT, type Region, type Reply } from '../support/region.ts'

const kit = instanceLab()
const {
  sites,
  blank,
  server,
  row,
  power,
  ports,
  disks,
  devices,
  guestAt,
  wish,
  protect,
  show,
  pairsOf,
  refused,
  dropGroup,
  dropServers,
} = kit
let region: Region
let services: RequestServices

before(async () => {
  ;({ region, services } = await kit.start())
})
after(async () => await region.stop())

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
