/**
 * Every code of the published table: produced in its situation, or in the list of those that never come, with the reason. The API over rows, and a
 * queue of operations that nobody works through; sites are scripted reports.
 */
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, mock, test } from 'node:test'
import { Fault } from '#base/fault.ts'
import { newId } from '#base/ids.ts'
import { SDRS_CODES } from '#control/api/sdrs/errors.ts'
import { JOB_SPECS } from '#control/api/sdrs/jobs.ts'
import { OPERATIONS_FULL } from '#control/operations/engine.ts'
import { insertSubnet, insertVpc } from '#control/resources/networks.ts'
import { setQuotaLimit } from '#control/resources/surroundings.ts'
import { OWNERSHIP_WAIT } from '#control/sites/witness.ts'
import { STORE_BUSY } from '#control/store/store.ts'
import type { QuotaKind } from '#domain/quota.ts'
import { ApiLab, type Reply } from '../support/api.ts'
import { assertGo, SDRS_FLAT_JOB, SDRS_JOB } from '../support/go-types.ts'
import { insertRows, instanceRow, pairRow, volumeRow } from '../support/group-rows.ts'
import {
  NEVER,
  neverAsPage,
  OTHER_STATUS,
  occurringAsPage,
  otherStatusAsPage,
  PUBLISHED,
} from '../support/sdrs-codes.ts'
import { type Protected, SdrsWorld } from '../support/sdrs-world.ts'

let lab: ApiLab
let world: SdrsWorld

before(async () => {
  lab = await ApiLab.start()
  world = await SdrsWorld.start(lab)
})
after(async () => await lab.stop())

type Method = 'GET' | 'POST' | 'PUT' | 'DELETE'
type Asked = readonly [method: Method, path: string, body?: unknown]
type Situation = () => Asked | Promise<Asked>

const GROUPS = 'server-groups'
const PAIRS = 'replications'
const INSTANCES = 'protected-instances'
const DRILLS = 'disaster-recovery-drills'

const newGroup = (over: object = {}): Asked => [
  'POST',
  GROUPS,
  {
    server_group: {
      name: 'g',
      source_availability_zone: 'az1',
      target_availability_zone: 'az2',
      domain_id: world.domain,
      source_vpc_id: world.vpc,
      ...over,
    },
  },
]
const act = (group: string, action: string, value: unknown = {}): Asked => [
  'POST',
  `${GROUPS}/${group}/action`,
  { [`${action}-server-group`]: value },
]
const newPair = async (over: object = {}, disk: object = {}): Promise<Asked> => {
  const group = await world.group()
  const volume = volumeRow(world.project, 'az1', disk)
  await insertRows(lab.store, { volumes: [volume] })
  const body = { server_group_id: group.id, volume_id: volume.id, name: 'p', ...over }
  return ['POST', PAIRS, { replication: body }]
}
const newInstance = async (over: object = {}, change: object = {}): Promise<Asked> => {
  const group = await world.group()
  const { server } = await world.machine(change)
  const body = { server_group_id: group.id, server_id: server, name: 'i', ...over }
  return ['POST', INSTANCES, { protected_instance: body }]
}
const newDrill = (group: string, over: object = {}): Asked => [
  'POST',
  DRILLS,
  { disaster_recovery_drill: { server_group_id: group, name: 'd', ...over } },
]
const attach = (instance: string, pair: string, device = '/dev/vdb'): Asked => [
  'POST',
  `${INSTANCES}/${instance}/attachreplication`,
  { replicationAttachment: { replication_id: pair, device } },
]
const nic = (instance: string, over: object = {}): Asked => [
  'POST',
  `${INSTANCES}/${instance}/nic`,
  { subnet_id: subnet(), ...over },
]
const resize = (instance: string, over: object = { flavorRef: 't2.small' }): Asked => [
  'POST',
  `${INSTANCES}/${instance}/resize`,
  { resize: over },
]
const tag = (instance: string, key: unknown, value: unknown): Asked => [
  'POST',
  `${INSTANCES}/${instance}/tags`,
  { tag: { key, value } },
]
const tags = (instance: string, body: unknown): Asked => [
  'POST',
  `${INSTANCES}/${instance}/tags/action`,
  body,
]
const query = (body: object): Asked => [
  'POST',
  `${INSTANCES}/resource_instances/action`,
  { action: 'filter', ...body },
]
const expand = (pair: string, size = 2): Asked => [
  'POST',
  `${PAIRS}/${pair}/action`,
  { 'extend-replication': { new_size: size } },
]

let subnetOfProject: string | undefined
const subnet = (): string => subnetOfProject ?? assert.fail('the subnet is known')

const change = async (
  table: 'protection_groups' | 'protected_instances' | 'replication_pairs' | 'volumes' | 'servers',
  id: string,
  columns: object,
): Promise<void> => {
  await lab.store.write((tx) => tx.updateTable(table).set(columns).where('id', '=', id).execute())
}
const full = async (kind: QuotaKind, run: () => Asked | Promise<Asked>): Promise<Asked> => {
  const asked = await run()
  await lab.store.write((tx) => setQuotaLimit(tx, world.project, kind, 0))
  return asked
}
const free = async (): Promise<void> => {
  await lab.store.write((tx) => tx.deleteFrom('quotas').execute())
}
/** A group that replicates, all servers off. */
const inSync = async (session: Parameters<SdrsWorld['replicate']>[1] = {}): Promise<Protected> => {
  const made = await world.protect({
    group: { status: 'protected' },
    production: { status: 'stopped', power: 'off' },
  })
  await world.replicate(made, session)
  return made
}
/** A group with a drill; the drill's row. */
const withDrill = async (status: string, made?: Protected, vpc = newId()) => {
  const { group } = made ?? (await inSync())
  const id = newId()
  await lab.store.write((tx) =>
    tx
      .insertInto('drills')
      .values({
        id,
        project: world.project,
        group_id: group.id,
        name: 'd',
        status,
        az: 'az2',
        vpc,
        snapshot: newId(),
        user_id: 'u',
        options: '{}',
        schedule: null,
        auto_delete: 0,
        findings: null,
        failure_detail: null,
        created_at: 1,
        updated_at: 1,
      })
      .execute(),
  )
  return { id, group }
}
const vpcOf = async (...cidrs: string[]): Promise<string> => {
  const id = newId()
  await lab.store.write(async (tx) => {
    const shared = { project: world.project, created_at: 1, description: '' }
    await insertVpc(tx, { ...shared, id, name: 'drill', cidr: '10.0.0.0/8' })
    for (const cidr of cidrs) {
      await insertSubnet(tx, {
        ...shared,
        id: newId(),
        neutron_subnet: newId(),
        vpc: id,
        name: newId().slice(0, 8),
        cidr,
        gateway: cidr.replace(/\d+\/.*/, '1'),
        dhcp: 1,
        dns: '[]',
        az: null,
      })
    }
  })
  return id
}
const busy = async (over: Parameters<SdrsWorld['protect']>[0]) =>
  (await world.protect(over)).instance.id
const plain = async () => (await world.protect()).instance.id
/** All tests of tags on one instance: none of them changes it. */
let tagged: string | undefined
const ofTags = async () => (tagged ??= await plain())
const pairOf = async (over: object = {}, group: object = {}) =>
  (await world.pair(await world.group(group), 1, over)).id

/** What is asked in which situation. The number of the code is the key. */
const SITUATIONS: Readonly<Record<string, Situation>> = {
  '0201': () => ['POST', GROUPS, {}],
  '0202': () => newGroup({ name: 'a b' }),
  '0203': () => newGroup({ target_availability_zone: 'az3' }),
  '0204': () => newGroup({ source_vpc_id: newId() }),
  '0205': () => newGroup({ domain_id: newId() }),
  '0206': () => act(newId(), 'begin'),
  '0207': () => ['GET', `${GROUPS}/x`],
  '0208': () => ['GET', `${INSTANCES}/x`],
  '0209': () => ['GET', `${GROUPS}?status=x`],
  '0210': () => newInstance({ server_id: 'x' }),
  '0211': () => newPair({ volume_id: 'x' }),
  '0212': () => newGroup({ description: '<' }),
  '0213': () => ['GET', `${PAIRS}/x`],
  '0216': async () => act((await inSync()).group.id, 'reverse', { priority_station: 'source' }),
  '0219': async () => nic(await plain(), { ip_address: '10.255.255.1' }),
  '0221': () => ['GET', `${GROUPS}?limit=x`],
  '0222': () => ['GET', `${GROUPS}?offset=x`],
  '0223': async () => ['POST', `${INSTANCES}/${await plain()}/nic/delete`, { nic_id: 'x' }],
  '0226': () => ['GET', `${PAIRS}?server_group_ids=${Array.from({ length: 31 }, newId).join(',')}`],
  '0305': () => full('server_groups', () => newGroup()),
  '0306': () => full('replications', () => newPair()),
  '1001': async () => ['DELETE', `${GROUPS}/${(await world.protect()).group.id}`],
  '1002': async () => act((await world.group()).id, 'stop'),
  '1003': async () => {
    const group = await world.group()
    await withDrill('available', { group } as Protected)
    return ['DELETE', `${GROUPS}/${group.id}`]
  },
  '1010': async () => {
    const group = await world.group()
    await world.pair(group, 1)
    return ['DELETE', `${GROUPS}/${group.id}`]
  },
  '1013': () => ['GET', `${GROUPS}/${newId()}`],
  '1024': async () => newPair({ server_group_id: (await world.group({ status: 'starting' })).id }),
  '1301': async () => [
    'DELETE',
    `${INSTANCES}/${await busy({ instance: { status: 'resizing' } })}`,
  ],
  '1303': async () => {
    const [method, path, body] = await newInstance()
    const { server_id } = (body as { protected_instance: { server_id: string } }).protected_instance
    await change('servers', server_id, { az: 'az2' })
    return [method, path, body]
  },
  '1304': () => newInstance({}, { vpc: newId() }),
  '1305': async () => newInstance({ server_id: (await world.protect()).production.server }),
  '1310': async () => ['POST', `${INSTANCES}/${await plain()}/nic/delete`, { nic_id: newId() }],
  '1311': async () => {
    const { instance, production } = await world.protect()
    return ['POST', `${INSTANCES}/${instance.id}/nic/delete`, { nic_id: production.port }]
  },
  '1312': () => full('ports', () => newInstance()),
  '1314': async () => {
    const { group, dr } = await inSync()
    await lab.store.write(async (tx) => {
      await tx.deleteFrom('server_disks').where('server', '=', dr.server).execute()
      await tx.deleteFrom('servers').where('id', '=', dr.server).execute()
    })
    return act(group.id, 'failover')
  },
  '1316': async () => resize(await plain()),
  '1319': async () => {
    const made = await world.protect({ group: { status: 'protected' } })
    await world.replicate(made)
    return act(made.group.id, 'reverse', { priority_station: 'target' })
  },
  '1320': () => ['GET', `${INSTANCES}/${newId()}`],
  '1321': async () => {
    const [method, path, body] = await newInstance()
    const { server_id } = (body as { protected_instance: { server_id: string } }).protected_instance
    await lab.store.write((tx) =>
      tx.deleteFrom('server_disks').where('server', '=', server_id).execute(),
    )
    return [method, path, body]
  },
  '1324': async () => {
    const instance = { status: 'protected' }
    return ['DELETE', `${INSTANCES}/${await busy({ group: { status: 'starting' }, instance })}`]
  },
  '1326': () => newInstance({ server_id: newId() }),
  '1327': async () => nic(await busy({ instance: { status: 'resizing' } })),
  '1328': async () => resize(await busy({ instance: { status: 'nic-creating' } })),
  '1330': async () => {
    const id = await busy({ group: { station: 'target' } })
    return ['DELETE', `${INSTANCES}/${id}`, { delete_target_server: true }]
  },
  '1333': () => newInstance({}, { status: 'error' }),
  '1334': async () => {
    const { instance } = await world.protect()
    const taken = await lab.store.db
      .selectFrom('ports')
      .select('address')
      .where('subnet', '=', subnet())
      .executeTakeFirstOrThrow()
    return nic(instance.id, { ip_address: taken.address })
  },
  '1335': async () => nic(await plain(), { subnet_id: newId() }),
  '1339': async () => {
    const [method, path, body] = await newInstance()
    const { server_id } = (body as { protected_instance: { server_id: string } }).protected_instance
    await lab.store.write((tx) =>
      tx
        .updateTable('server_disks')
        .set({ device: '/dev/vdb', boot_index: null })
        .where('server', '=', server_id)
        .execute(),
    )
    return [method, path, body]
  },
  '1340': async () => {
    const id = await plain()
    for (let more = 0; more < 7; more++) {
      await world.ok(...nic(id))
      await change('protected_instances', id, { status: 'available' })
    }
    return nic(id)
  },
  '1341': async () => {
    const off = { status: 'stopped', power: 'off' }
    return resize(await busy({ production: off }), { flavorRef: 't2.micro' })
  },
  '1342': async () => {
    const off = { status: 'stopped', power: 'off' }
    const on = { status: 'active', power: 'running' }
    const made = await world.protect({ group: { status: 'protected' }, production: off, dr: on })
    await world.replicate(made)
    return act(made.group.id, 'reverse', { priority_station: 'target' })
  },
  '1353': () => newInstance({ flavorRef: 'huge' }),
  '1356': async () => resize(await plain(), { production_flavorRef: 'huge' }),
  '1358': async () => {
    const group = await world.group()
    const many = Array.from({ length: 1_000 }, () => instanceRow(group))
    await insertRows(lab.store, { protected_instances: many })
    return await newInstance({ server_group_id: group.id })
  },
  '1601': async () => expand(await pairOf({ status: 'starting' })),
  '1603': async () => {
    const { group, instance } = await world.protect()
    const pair = await world.pair(group, 2)
    return attach(instance.id, pair.id, '/dev/vda')
  },
  '1604': async () => {
    const { group, instance } = await world.protect()
    const pair = await world.pair(group, 2)
    return ['DELETE', `${INSTANCES}/${instance.id}/detachreplication/${pair.id}`]
  },
  '1605': async () => ['DELETE', `${PAIRS}/${(await world.protect()).pair.id}`],
  '1608': () => ['GET', `${PAIRS}/${newId()}`],
  '1611': async () => attach(await plain(), await pairOf()),
  '1801': () => newPair({}, { status: 'in-use' }),
  '1803': () => newPair({ volume_id: newId() }),
  '1806': async () => {
    const { server, volume } = await world.machine()
    await change('volumes', volume, { multiattach: 1 })
    return await newInstance({ server_id: server })
  },
  '1809': async () => {
    const id = await pairOf({}, { station: 'target' })
    return ['DELETE', `${PAIRS}/${id}`, { replication: { delete_target_volume: true } }]
  },
  '1810': () => newPair({}, { az: 'az2' }),
  '1811': () => newPair({}, { pair: newId() }),
  '1817': async () => {
    const { group } = await world.protect()
    const pair = await world.pair(group, 2)
    await change('volumes', pair.source_volume, { status: 'attaching' })
    return expand(pair.id)
  },
  '1823': async () => {
    const { group } = await inSync()
    await world.report(['az2'])
    return act(group.id, 'stop')
  },
  '1824': async () => {
    const { group } = await inSync({ session: { link: 'down' } })
    return act(group.id, 'failover')
  },
  '1825': async () => {
    const [method, path, body] = await newPair()
    const { volume_id } = (body as { replication: { volume_id: string } }).replication
    const { id } = await withDrill('available')
    await lab.store.write((tx) =>
      tx
        .insertInto('drill_disks')
        .values({
          volume: volume_id,
          drill: id,
          pair: newId(),
          source: newId(),
          size_gb: 1,
          cloned: 1,
        })
        .execute(),
    )
    return [method, path, body]
  },
  '1830': async () => {
    const { group } = await inSync({ state: 'resyncing' })
    return act(group.id, 'stop')
  },
  '1900': () => ['GET', `${DRILLS}/x`],
  '1901': () => ['GET', `${DRILLS}/null`],
  '1902': () => ['GET', `${DRILLS}/${newId()}`],
  '1907': async () => newDrill((await inSync()).group.id, { drill_vpc_id: world.vpc }),
  '1908': async () => newDrill((await inSync()).group.id, { drill_vpc_id: await vpcOf() }),
  '1909': async () =>
    newDrill((await inSync()).group.id, { drill_vpc_id: await vpcOf('10.9.0.0/24') }),
  '1910': async () => {
    const { group, production } = await inSync()
    const { cidr } = await lab.store.db
      .selectFrom('subnets')
      .select('cidr')
      .where('id', '=', subnet())
      .executeTakeFirstOrThrow()
    const vpc = await vpcOf(cidr)
    await lab.store.write(async (tx) => {
      const { address } = await tx
        .selectFrom('ports')
        .select('address')
        .where('id', '=', production.port)
        .executeTakeFirstOrThrow()
      await tx.updateTable('subnets').set({ gateway: address }).where('vpc', '=', vpc).execute()
    })
    return newDrill(group.id, { drill_vpc_id: vpc })
  },
  '1911': async () => {
    const { group, production } = await inSync()
    await lab.store.write((tx) =>
      tx.deleteFrom('ports').where('id', '=', production.port).execute(),
    )
    return newDrill(group.id)
  },
  '1913': async () => ['DELETE', `${DRILLS}/${(await withDrill('creating')).id}`],
  '1921': async () => {
    const vpc = await vpcOf('10.8.0.0/24')
    await withDrill('available', undefined, vpc)
    return newDrill((await inSync()).group.id, { drill_vpc_id: vpc })
  },
  '1922': async () => {
    const { group } = await inSync()
    return await full('volumes', () => newDrill(group.id))
  },
  '1928': async () => newDrill((await inSync()).group.id, { drill_vpc_id: newId() }),
  '1929': async () => {
    const { group } = await inSync()
    return await full('vpcs', () => newDrill(group.id))
  },
  '1930': async () => {
    const { group } = await inSync()
    return await full('subnets', () => newDrill(group.id))
  },
  '2201': async () => tags(await ofTags(), { action: 'x', tags: [] }),
  '2202': async () => tags(await ofTags(), { action: 'create', tags: [] }),
  '2203': async () => {
    const many = Array.from({ length: 21 }, (_, at) => ({ key: `k${at}`, value: 'v' }))
    return tags(await ofTags(), { action: 'create', tags: many })
  },
  '2204': async () => tag(await ofTags(), ' k', 'v'),
  '2205': async () => tag(await ofTags(), '', 'v'),
  '2206': async () => ['DELETE', `${INSTANCES}/${await ofTags()}/tags/none`],
  '2207': async () => tag(await ofTags(), 'k', 'v '),
  '2208': async () => tag(await ofTags(), 'k', null),
  '2209': async () => {
    const twice = [
      { key: 'k', value: 'v' },
      { key: 'k', value: 'w' },
    ]
    return tags(await ofTags(), { action: 'create', tags: twice })
  },
  '2210': () => query({ action: 'x' }),
  '2211': () => query({ action: 'count', limit: '1' }),
  '2212': () => query({ matches: [] }),
  '2213': () => query({ matches: [{ key: '', value: 'x' }] }),
  '2214': () => query({ matches: [{ key: 'id', value: 'x' }] }),
  '2215': () =>
    query({
      matches: [
        { key: 'resource_name', value: 'x' },
        { key: 'resource_name', value: 'y' },
      ],
    }),
  '2216': () => query({ matches: [{ key: 'resource_name' }] }),
  '2217': () => query({ matches: [{ key: 'resource_name', value: 'x'.repeat(256) }] }),
  '2218': () =>
    query({ tags: [{ key: 'k', values: Array.from({ length: 21 }, (_, at) => `${at}`) }] }),
  '2219': () => query({ tags: [{ key: 'k', values: ['v', 'v'] }] }),
  '2220': () => query({ limit: '0' }),
  '2221': async () => tag(await busy({ instance: { status: 'creating' } }), 'k', 'v'),
  '2222': async () => [
    'DELETE',
    `${INSTANCES}/${await busy({ instance: { status: 'error' } })}/tags/k`,
  ],
}

/** Jobs that fail: an administrator takes them back before they begin. The code is that of what they were to do. */
const FAILED_JOBS: Readonly<Record<string, Situation>> = {
  '1014': () => newGroup(),
  '1016': async () => ['DELETE', `${GROUPS}/${(await world.group()).id}`],
  '1027': async () => {
    const group = await world.group()
    await world.pair(group, 1)
    return act(group.id, 'start')
  },
  '1028': async () => act((await inSync()).group.id, 'stop'),
  '1029': async () => act((await inSync()).group.id, 'reverse', { priority_station: 'target' }),
  '1030': async () => act((await inSync()).group.id, 'failover'),
  '1032': async () => {
    const group = await world.group({ status: 'failed-over', station: 'target' })
    await world.pair(group, 1, { status: 'failed-over' })
    return act(group.id, 'start')
  },
  '1312': async () => nic(await plain()),
  '1313': async () => {
    const { instance } = await world.protect()
    const { job_id } = await world.ok(...nic(instance.id))
    const job = await world.ok('GET', `jobs/${job_id}`)
    await change('protected_instances', instance.id, { status: 'available' })
    return ['POST', `${INSTANCES}/${instance.id}/nic/delete`, { nic_id: job.entities.nic_id }]
  },
  '1329': async () => {
    const off = { status: 'stopped', power: 'off' }
    return resize(await busy({ production: off }))
  },
  '1350': () => newInstance(),
  '1351': async () => ['DELETE', `${INSTANCES}/${await plain()}`],
  '1606': () => newPair(),
  '1607': async () => ['DELETE', `${PAIRS}/${await pairOf()}`],
  '1820': async () => expand(await pairOf()),
  '1821': async () => {
    const { group, instance } = await world.protect()
    const pair = await world.pair(group, 2)
    return attach(instance.id, pair.id)
  },
  '1822': async () => {
    const { instance, pair } = await world.protect({
      production: { status: 'stopped', power: 'off' },
    })
    return ['DELETE', `${INSTANCES}/${instance.id}/detachreplication/${pair.id}`]
  },
  '1922': async () => newDrill((await inSync()).group.id),
  '1923': async () => ['DELETE', `${DRILLS}/${(await withDrill('available')).id}`],
  '0406': async () => {
    const [, , body] = await newInstance()
    const one = (body as { protected_instance: { server_group_id: string; server_id: string } })
      .protected_instance
    const many = {
      name_prefix: 'b',
      server_group_id: one.server_group_id,
      servers: [{ server_id: one.server_id }],
    }
    return ['POST', `${INSTANCES}/batch`, { protected_instances: many }]
  },
}

const MAY_HAVE_CHILDREN = /ProtectionGroup|^batch|Drill$/

/** Begins with a capital, ends with a stop. */
const SENTENCE = /^[A-Z].*[.!?}]$/s

const assertRefused = (reply: Reply, code: string, where: string) => {
  const body = reply.body as {
    error: { code: string; message: string }
    error_code: string
    error_msg: string
  }
  assert.equal(body?.error?.code, `SDRS.${code}`, `${where}: ${JSON.stringify(body)}`)
  const status = OTHER_STATUS.get(code)?.[0] ?? PUBLISHED.get(code)
  assert.equal(reply.status, status, where)
  assert.deepEqual([body.error_code, body.error_msg], [body.error.code, body.error.message])
  assert.match(body.error.message, SENTENCE)
}

test('every refusal comes in its situation, with the published code and status and a sentence', async () => {
  const made = await world.machine()
  const row = await lab.store.db
    .selectFrom('ports')
    .select('subnet')
    .where('id', '=', made.port)
    .executeTakeFirstOrThrow()
  subnetOfProject = row.subnet
  for (const [code, situation] of Object.entries(SITUATIONS)) {
    const [method, path, body] = await situation()
    const reply = await world.call(method, path, body)
    assertRefused(reply, code, `${code}: ${method} ${path} ${JSON.stringify(body)}`)
    await free()
  }
})

test('a group whose pairs are as many as one session has takes no instance with another disk', async () => {
  const group = await world.group()
  const pairs = Array.from({ length: 1_023 }, (_, at) => pairRow(group, at + 1))
  await insertRows(lab.store, { replication_pairs: pairs })
  const [method, path, body] = await newInstance({ server_group_id: group.id })
  await insertRows(lab.store, { replication_pairs: [pairRow(group, 1_024)] })
  assertRefused(await world.call(method, path, body), '1358', 'no place for its disk')
})

test('who calls, and a service that cannot answer, have their codes', async () => {
  const ask = async (project: string, token?: string, method: 'GET' | 'POST' = 'GET') => {
    const headers = token === undefined ? {} : { 'x-auth-token': token }
    const body = method === 'POST' ? { body: newGroup()[2] } : {}
    return await lab.call({ method, url: `/v1/${project}/${GROUPS}`, headers, ...body }, 'sdrs')
  }
  const reader = await lab.userWith('reader', world.project)
  assertRefused(await ask(newId().replaceAll('-', ''), world.token), '0001', 'foreign project')
  assertRefused(await ask(world.project), '0002', 'no token')
  assertRefused(await ask(world.project, reader.token, 'POST'), '0005', 'reader')
  for (const [code, error] of [
    ['0008', new Fault(STORE_BUSY, 'writing')],
    ['0404', new Fault(OPERATIONS_FULL, 'submitting')],
    ['0013', new Error('a mistake')],
  ] as const) {
    const broken = mock.method(lab.operations, 'submit', () => Promise.reject(error))
    assertRefused(await ask(world.project, world.token, 'POST'), code, code)
    broken.mock.restore()
  }
})

test('every job that fails has the code of what it was to do, and a reason that one client can take apart', async () => {
  for (const [code, situation] of Object.entries(FAILED_JOBS)) {
    const [method, path, body] = await situation()
    const { job_id } = await world.ok(method, path, body)
    await lab.operations.cancel(job_id as string)
    const job = await world.ok('GET', `jobs/${job_id}`)
    assert.deepEqual([job.status, job.error_code], ['FAIL', `SDRS.${code}`], `${code}: ${path}`)
    assertGo(MAY_HAVE_CHILDREN.test(job.job_type as string) ? SDRS_JOB : SDRS_FLAT_JOB, job)
    const parts = (job.fail_reason as string).split('error : ')
    assert.equal(parts.length, 2, job.fail_reason)
    const { badRequest } = JSON.parse(parts[1] ?? '') as {
      badRequest: { message: string; code: number }
    }
    assert.match(badRequest.message, SENTENCE)
    assert.equal(badRequest.code, 400)
  }
})

test('an action that the witness could not allow in time says that the group is inconsistent', async () => {
  const { id } = await world.group()
  const { job_id } = await world.ok('DELETE', `${GROUPS}/${id}`)
  const failed = { status: 'failed', error_code: OWNERSHIP_WAIT.code, end_at: 1 } as const
  await lab.store.write((tx) =>
    tx.updateTable('operations').set(failed).where('id', '=', job_id).execute(),
  )
  assert.equal((await world.ok('GET', `jobs/${job_id}`)).error_code, 'SDRS.1015')
})

/** Codes of the tests above that have no row. */
const ELSEWHERE = ['0001', '0002', '0005', '0008', '0013', '0404', '1015']

/** Codes of jobs that fail in a step of their own, which tests with real sites produce. */
const BY_STEPS = Object.values(JOB_SPECS).flatMap(({ steps = {} }) => Object.values(steps))

test('every published code is produced or stands in the list of those that never come, and none in both', () => {
  const produced = new Set([
    ...Object.keys(SITUATIONS),
    ...Object.keys(FAILED_JOBS),
    ...BY_STEPS.map((code) => code.replace('SDRS.', '')),
    ...ELSEWHERE,
  ])
  const never = NEVER.flatMap(([codes]) => codes.split(' '))
  assert.deepEqual(
    never.filter((code) => produced.has(code)),
    [],
  )
  assert.equal(new Set(never).size, never.length)
  assert.deepEqual([...produced, ...never].toSorted(), [...PUBLISHED.keys()].toSorted())
})

test('the program knows no code that is not produced here', () => {
  const produced = new Set([...Object.keys(SITUATIONS), ...Object.keys(FAILED_JOBS), ...ELSEWHERE])
  const known = [
    ...Object.keys(SDRS_CODES),
    ...Object.values(JOB_SPECS).map(({ failure }) => failure),
  ].filter((code) => code.startsWith('SDRS.'))
  assert.deepEqual(
    known.filter((code) => !produced.has(code.replace('SDRS.', ''))),
    [],
  )
})

const root = join(import.meta.dirname, '../..')

test('the page of the API lists the codes that come and those that never do, as they are here', () => {
  const page = readFileSync(join(root, 'docs/compatibility/sdrs.md'), 'utf8')
  for (const list of [occurringAsPage(), otherStatusAsPage(), neverAsPage()]) {
    assert.ok(page.includes(list), `the page has to say:\n${list}`)
  }
})

test('no message sends anybody to a support desk, and every one is a sentence', () => {
  for (const [code, [, message]] of Object.entries(SDRS_CODES)) {
    assert.match(message, SENTENCE, code)
  }
  const sources = globSync('src/{control,base,domain}/**/*.ts', { cwd: root })
  const found = sources.filter((path) =>
    /(?:contact|call|ask)\b[^'`\n]{0,40}\bsupport\b|technical support/i.test(
      readFileSync(join(root, path), 'utf8'),
    ),
  )
  assert.deepEqual(found, [])
})
