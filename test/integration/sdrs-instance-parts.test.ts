/** Disks, NICs, flavors and tags of protected instances over the API. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { newId } from '#base/ids.ts'
import type { RequestServices } from '#control/operations/definitions/requests.ts'
import { defaultSubnetId, insertSubnet, insertVpc } from '#control/resources/networks.ts'
import { readVolume } from '#control/resources/volumes.ts'
import { INSTANCES, instanceLab } from '../support/instance-lab.ts'
import { PROJECT, type Region, type Reply } from '../support/region.ts'

const kit = instanceLab()
const {
  sites,
  server,
  row,
  power,
  ports,
  devices,
  guestAt,
  nicsAt,
  protect,
  show,
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
