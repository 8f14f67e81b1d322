/** Which request in which situation comes to which code of SDRS. The number of the code is the key. */
import { newId } from '#base/ids.ts'
import { insertRows, instanceRow } from './group-rows.ts'
import { DRILLS, GROUPS, INSTANCES, PAIRS, type SdrsAsks, type Situation } from './sdrs-asks.ts'
import type { Protected, SdrsWorld } from './sdrs-world.ts'

export function sdrsSituations(
  world: SdrsWorld,
  asks: SdrsAsks,
): Readonly<Record<string, Situation>> {
  const {
    newGroup,
    act,
    newPair,
    newInstance,
    newDrill,
    attach,
    nic,
    resize,
    tag,
    tags,
    query,
    expand,
    change,
    full,
    inSync,
    withDrill,
    vpcOf,
    busy,
    plain,
    ofTags,
    pairOf,
  } = asks
  return {
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
    '0226': () => [
      'GET',
      `${PAIRS}?server_group_ids=${Array.from({ length: 31 }, newId).join(',')}`,
    ],
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
    '1024': async () =>
      newPair({ server_group_id: (await world.group({ status: 'starting' })).id }),
    '1301': async () => [
      'DELETE',
      `${INSTANCES}/${await busy({ instance: { status: 'resizing' } })}`,
    ],
    '1303': async () => {
      const [method, path, body] = await newInstance()
      const { server_id } = (body as { protected_instance: { server_id: string } })
        .protected_instance
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
      await world.lab.store.write(async (tx) => {
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
      const { server_id } = (body as { protected_instance: { server_id: string } })
        .protected_instance
      await world.lab.store.write((tx) =>
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
      const taken = await world.lab.store.db
        .selectFrom('ports')
        .select('address')
        .where('subnet', '=', asks.subnet)
        .executeTakeFirstOrThrow()
      return nic(instance.id, { ip_address: taken.address })
    },
    '1335': async () => nic(await plain(), { subnet_id: newId() }),
    '1339': async () => {
      const [method, path, body] = await newInstance()
      const { server_id } = (body as { protected_instance: { server_id: string } })
        .protected_instance
      await world.lab.store.write((tx) =>
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
      await insertRows(world.lab.store, { protected_instances: many })
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
      await world.lab.store.write((tx) =>
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
      const { cidr } = await world.lab.store.db
        .selectFrom('subnets')
        .select('cidr')
        .where('id', '=', asks.subnet)
        .executeTakeFirstOrThrow()
      const vpc = await vpcOf(cidr)
      await world.lab.store.write(async (tx) => {
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
      await world.lab.store.write((tx) =>
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
}

/** Jobs that fail: an administrator takes them back before they begin. The code is that of what they were to do. */
export function sdrsFailedJobs(
  world: SdrsWorld,
  asks: SdrsAsks,
): Readonly<Record<string, Situation>> {
  const {
    newGroup,
    act,
    newPair,
    newInstance,
    newDrill,
    attach,
    nic,
    resize,
    expand,
    change,
    inSync,
    withDrill,
    busy,
    plain,
    pairOf,
  } = asks
  return {
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
}
