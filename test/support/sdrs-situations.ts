/** Which request in which situation comes to which code of SDRS. The number of the code is the key. */
import { newId } from '#base/ids.ts'
import { insertRows, instanceRow } from './group-rows.ts'
import { DRILLS, GROUPS, INSTANCES, PAIRS, type SdrsAsks, type Situation } from './sdrs-asks.ts'
import type { Protected } from './sdrs-world.ts'

export function sdrsSituations(ask: SdrsAsks): Readonly<Record<string, Situation>> {
  return {
    '0201': () => ['POST', GROUPS, {}],
    '0202': () => ask.newGroup({ name: 'a b' }),
    '0203': () => ask.newGroup({ target_availability_zone: 'az3' }),
    '0204': () => ask.newGroup({ source_vpc_id: newId() }),
    '0205': () => ask.newGroup({ domain_id: newId() }),
    '0206': () => ask.act(newId(), 'begin'),
    '0207': () => ['GET', `${GROUPS}/x`],
    '0208': () => ['GET', `${INSTANCES}/x`],
    '0209': () => ['GET', `${GROUPS}?status=x`],
    '0210': () => ask.newInstance({ server_id: 'x' }),
    '0211': () => ask.newPair({ volume_id: 'x' }),
    '0212': () => ask.newGroup({ description: '<' }),
    '0213': () => ['GET', `${PAIRS}/x`],
    '0216': async () =>
      ask.act((await ask.inSync()).group.id, 'reverse', { priority_station: 'source' }),
    '0219': async () => ask.nic(await ask.plain(), { ip_address: '10.255.255.1' }),
    '0221': () => ['GET', `${GROUPS}?limit=x`],
    '0222': () => ['GET', `${GROUPS}?offset=x`],
    '0223': async () => ['POST', `${INSTANCES}/${await ask.plain()}/nic/delete`, { nic_id: 'x' }],
    '0226': () => [
      'GET',
      `${PAIRS}?server_group_ids=${Array.from({ length: 31 }, newId).join(',')}`,
    ],
    '0305': () => ask.full('server_groups', () => ask.newGroup()),
    '0306': () => ask.full('replications', () => ask.newPair()),
    '1001': async () => ['DELETE', `${GROUPS}/${(await ask.world.protect()).group.id}`],
    '1002': async () => ask.act((await ask.world.group()).id, 'stop'),
    '1003': async () => {
      const group = await ask.world.group()
      await ask.withDrill('available', { group } as Protected)
      return ['DELETE', `${GROUPS}/${group.id}`]
    },
    '1010': async () => {
      const group = await ask.world.group()
      await ask.world.pair(group, 1)
      return ['DELETE', `${GROUPS}/${group.id}`]
    },
    '1013': () => ['GET', `${GROUPS}/${newId()}`],
    '1024': async () =>
      ask.newPair({ server_group_id: (await ask.world.group({ status: 'starting' })).id }),
    '1301': async () => [
      'DELETE',
      `${INSTANCES}/${await ask.busy({ instance: { status: 'resizing' } })}`,
    ],
    '1303': async () => {
      const [method, path, body] = await ask.newInstance()
      const { server_id } = (body as { protected_instance: { server_id: string } })
        .protected_instance
      await ask.change('servers', server_id, { az: 'az2' })
      return [method, path, body]
    },
    '1304': () => ask.newInstance({}, { vpc: newId() }),
    '1305': async () =>
      ask.newInstance({ server_id: (await ask.world.protect()).production.server }),
    '1310': async () => [
      'POST',
      `${INSTANCES}/${await ask.plain()}/nic/delete`,
      { nic_id: newId() },
    ],
    '1311': async () => {
      const { instance, production } = await ask.world.protect()
      return ['POST', `${INSTANCES}/${instance.id}/nic/delete`, { nic_id: production.port }]
    },
    '1312': () => ask.full('ports', () => ask.newInstance()),
    '1314': async () => {
      const { group, dr } = await ask.inSync()
      await ask.world.lab.store.write(async (tx) => {
        await tx.deleteFrom('server_disks').where('server', '=', dr.server).execute()
        await tx.deleteFrom('servers').where('id', '=', dr.server).execute()
      })
      return ask.act(group.id, 'failover')
    },
    '1316': async () => ask.resize(await ask.plain()),
    '1319': async () => {
      const made = await ask.world.protect({ group: { status: 'protected' } })
      await ask.world.replicate(made)
      return ask.act(made.group.id, 'reverse', { priority_station: 'target' })
    },
    '1320': () => ['GET', `${INSTANCES}/${newId()}`],
    '1321': async () => {
      const [method, path, body] = await ask.newInstance()
      const { server_id } = (body as { protected_instance: { server_id: string } })
        .protected_instance
      await ask.world.lab.store.write((tx) =>
        tx.deleteFrom('server_disks').where('server', '=', server_id).execute(),
      )
      return [method, path, body]
    },
    '1324': async () => {
      const instance = { status: 'protected' }
      return [
        'DELETE',
        `${INSTANCES}/${await ask.busy({ group: { status: 'starting' }, instance })}`,
      ]
    },
    '1326': () => ask.newInstance({ server_id: newId() }),
    '1327': async () => ask.nic(await ask.busy({ instance: { status: 'resizing' } })),
    '1328': async () => ask.resize(await ask.busy({ instance: { status: 'nic-creating' } })),
    '1330': async () => {
      const id = await ask.busy({ group: { station: 'target' } })
      return ['DELETE', `${INSTANCES}/${id}`, { delete_target_server: true }]
    },
    '1333': () => ask.newInstance({}, { status: 'error' }),
    '1334': async () => {
      const { instance } = await ask.world.protect()
      const taken = await ask.world.lab.store.db
        .selectFrom('ports')
        .select('address')
        .where('subnet', '=', ask.subnet)
        .executeTakeFirstOrThrow()
      return ask.nic(instance.id, { ip_address: taken.address })
    },
    '1335': async () => ask.nic(await ask.plain(), { subnet_id: newId() }),
    '1339': async () => {
      const [method, path, body] = await ask.newInstance()
      const { server_id } = (body as { protected_instance: { server_id: string } })
        .protected_instance
      await ask.world.lab.store.write((tx) =>
        tx
          .updateTable('server_disks')
          .set({ device: '/dev/vdb', boot_index: null })
          .where('server', '=', server_id)
          .execute(),
      )
      return [method, path, body]
    },
    '1340': async () => {
      const id = await ask.plain()
      for (let more = 0; more < 7; more++) {
        await ask.world.ok(...ask.nic(id))
        await ask.change('protected_instances', id, { status: 'available' })
      }
      return ask.nic(id)
    },
    '1341': async () => {
      const off = { status: 'stopped', power: 'off' }
      return ask.resize(await ask.busy({ production: off }), { flavorRef: 't2.micro' })
    },
    '1342': async () => {
      const off = { status: 'stopped', power: 'off' }
      const on = { status: 'active', power: 'running' }
      const made = await ask.world.protect({
        group: { status: 'protected' },
        production: off,
        dr: on,
      })
      await ask.world.replicate(made)
      return ask.act(made.group.id, 'reverse', { priority_station: 'target' })
    },
    '1353': () => ask.newInstance({ flavorRef: 'huge' }),
    '1356': async () => ask.resize(await ask.plain(), { production_flavorRef: 'huge' }),
    '1358': async () => {
      const group = await ask.world.group()
      const many = Array.from({ length: 1_000 }, () => instanceRow(group))
      await insertRows(ask.world.lab.store, { protected_instances: many })
      return await ask.newInstance({ server_group_id: group.id })
    },
    '1601': async () => ask.expand(await ask.pairOf({ status: 'starting' })),
    '1603': async () => {
      const { group, instance } = await ask.world.protect()
      const pair = await ask.world.pair(group, 2)
      return ask.attach(instance.id, pair.id, '/dev/vda')
    },
    '1604': async () => {
      const { group, instance } = await ask.world.protect()
      const pair = await ask.world.pair(group, 2)
      return ['DELETE', `${INSTANCES}/${instance.id}/detachreplication/${pair.id}`]
    },
    '1605': async () => ['DELETE', `${PAIRS}/${(await ask.world.protect()).pair.id}`],
    '1608': () => ['GET', `${PAIRS}/${newId()}`],
    '1611': async () => ask.attach(await ask.plain(), await ask.pairOf()),
    '1801': () => ask.newPair({}, { status: 'in-use' }),
    '1803': () => ask.newPair({ volume_id: newId() }),
    '1806': async () => {
      const { server, volume } = await ask.world.machine()
      await ask.change('volumes', volume, { multiattach: 1 })
      return await ask.newInstance({ server_id: server })
    },
    '1809': async () => {
      const id = await ask.pairOf({}, { station: 'target' })
      return ['DELETE', `${PAIRS}/${id}`, { replication: { delete_target_volume: true } }]
    },
    '1810': () => ask.newPair({}, { az: 'az2' }),
    '1811': () => ask.newPair({}, { pair: newId() }),
    '1817': async () => {
      const { group } = await ask.world.protect()
      const pair = await ask.world.pair(group, 2)
      await ask.change('volumes', pair.source_volume, { status: 'attaching' })
      return ask.expand(pair.id)
    },
    '1823': async () => {
      const { group } = await ask.inSync()
      await ask.world.report(['az2'])
      return ask.act(group.id, 'stop')
    },
    '1824': async () => {
      const { group } = await ask.inSync({ session: { link: 'down' } })
      return ask.act(group.id, 'failover')
    },
    '1825': async () => {
      const [method, path, body] = await ask.newPair()
      const { volume_id } = (body as { replication: { volume_id: string } }).replication
      const { id } = await ask.withDrill('available')
      await ask.world.lab.store.write((tx) =>
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
      const { group } = await ask.inSync({ state: 'resyncing' })
      return ask.act(group.id, 'stop')
    },
    '1900': () => ['GET', `${DRILLS}/x`],
    '1901': () => ['GET', `${DRILLS}/null`],
    '1902': () => ['GET', `${DRILLS}/${newId()}`],
    '1907': async () =>
      ask.newDrill((await ask.inSync()).group.id, { drill_vpc_id: ask.world.vpc }),
    '1908': async () =>
      ask.newDrill((await ask.inSync()).group.id, { drill_vpc_id: await ask.vpcOf() }),
    '1909': async () =>
      ask.newDrill((await ask.inSync()).group.id, { drill_vpc_id: await ask.vpcOf('10.9.0.0/24') }),
    '1910': async () => {
      const { group, production } = await ask.inSync()
      const { cidr } = await ask.world.lab.store.db
        .selectFrom('subnets')
        .select('cidr')
        .where('id', '=', ask.subnet)
        .executeTakeFirstOrThrow()
      const vpc = await ask.vpcOf(cidr)
      await ask.world.lab.store.write(async (tx) => {
        const { address } = await tx
          .selectFrom('ports')
          .select('address')
          .where('id', '=', production.port)
          .executeTakeFirstOrThrow()
        await tx.updateTable('subnets').set({ gateway: address }).where('vpc', '=', vpc).execute()
      })
      return ask.newDrill(group.id, { drill_vpc_id: vpc })
    },
    '1911': async () => {
      const { group, production } = await ask.inSync()
      await ask.world.lab.store.write((tx) =>
        tx.deleteFrom('ports').where('id', '=', production.port).execute(),
      )
      return ask.newDrill(group.id)
    },
    '1913': async () => ['DELETE', `${DRILLS}/${(await ask.withDrill('creating')).id}`],
    '1921': async () => {
      const vpc = await ask.vpcOf('10.8.0.0/24')
      await ask.withDrill('available', undefined, vpc)
      return ask.newDrill((await ask.inSync()).group.id, { drill_vpc_id: vpc })
    },
    '1922': async () => {
      const { group } = await ask.inSync()
      return await ask.full('volumes', () => ask.newDrill(group.id))
    },
    '1928': async () => ask.newDrill((await ask.inSync()).group.id, { drill_vpc_id: newId() }),
    '1929': async () => {
      const { group } = await ask.inSync()
      return await ask.full('vpcs', () => ask.newDrill(group.id))
    },
    '1930': async () => {
      const { group } = await ask.inSync()
      return await ask.full('subnets', () => ask.newDrill(group.id))
    },
    '2201': async () => ask.tags(await ask.ofTags(), { action: 'x', tags: [] }),
    '2202': async () => ask.tags(await ask.ofTags(), { action: 'create', tags: [] }),
    '2203': async () => {
      const many = Array.from({ length: 21 }, (_, at) => ({ key: `k${at}`, value: 'v' }))
      return ask.tags(await ask.ofTags(), { action: 'create', tags: many })
    },
    '2204': async () => ask.tag(await ask.ofTags(), ' k', 'v'),
    '2205': async () => ask.tag(await ask.ofTags(), '', 'v'),
    '2206': async () => ['DELETE', `${INSTANCES}/${await ask.ofTags()}/tags/none`],
    '2207': async () => ask.tag(await ask.ofTags(), 'k', 'v '),
    '2208': async () => ask.tag(await ask.ofTags(), 'k', null),
    '2209': async () => {
      const twice = [
        { key: 'k', value: 'v' },
        { key: 'k', value: 'w' },
      ]
      return ask.tags(await ask.ofTags(), { action: 'create', tags: twice })
    },
    '2210': () => ask.query({ action: 'x' }),
    '2211': () => ask.query({ action: 'count', limit: '1' }),
    '2212': () => ask.query({ matches: [] }),
    '2213': () => ask.query({ matches: [{ key: '', value: 'x' }] }),
    '2214': () => ask.query({ matches: [{ key: 'id', value: 'x' }] }),
    '2215': () =>
      ask.query({
        matches: [
          { key: 'resource_name', value: 'x' },
          { key: 'resource_name', value: 'y' },
        ],
      }),
    '2216': () => ask.query({ matches: [{ key: 'resource_name' }] }),
    '2217': () => ask.query({ matches: [{ key: 'resource_name', value: 'x'.repeat(256) }] }),
    '2218': () =>
      ask.query({ tags: [{ key: 'k', values: Array.from({ length: 21 }, (_, at) => `${at}`) }] }),
    '2219': () => ask.query({ tags: [{ key: 'k', values: ['v', 'v'] }] }),
    '2220': () => ask.query({ limit: '0' }),
    '2221': async () => ask.tag(await ask.busy({ instance: { status: 'creating' } }), 'k', 'v'),
    '2222': async () => [
      'DELETE',
      `${INSTANCES}/${await ask.busy({ instance: { status: 'error' } })}/tags/k`,
    ],
  }
}

/** Jobs that fail: an administrator takes them back before they begin. The code is that of what they were to do. */
export function sdrsFailedJobs(ask: SdrsAsks): Readonly<Record<string, Situation>> {
  return {
    '1014': () => ask.newGroup(),
    '1016': async () => ['DELETE', `${GROUPS}/${(await ask.world.group()).id}`],
    '1027': async () => {
      const group = await ask.world.group()
      await ask.world.pair(group, 1)
      return ask.act(group.id, 'start')
    },
    '1028': async () => ask.act((await ask.inSync()).group.id, 'stop'),
    '1029': async () =>
      ask.act((await ask.inSync()).group.id, 'reverse', { priority_station: 'target' }),
    '1030': async () => ask.act((await ask.inSync()).group.id, 'failover'),
    '1032': async () => {
      const group = await ask.world.group({ status: 'failed-over', station: 'target' })
      await ask.world.pair(group, 1, { status: 'failed-over' })
      return ask.act(group.id, 'start')
    },
    '1312': async () => ask.nic(await ask.plain()),
    '1313': async () => {
      const { instance } = await ask.world.protect()
      const { job_id } = await ask.world.ok(...ask.nic(instance.id))
      const job = await ask.world.ok('GET', `jobs/${job_id}`)
      await ask.change('protected_instances', instance.id, { status: 'available' })
      return ['POST', `${INSTANCES}/${instance.id}/nic/delete`, { nic_id: job.entities.nic_id }]
    },
    '1329': async () => {
      const off = { status: 'stopped', power: 'off' }
      return ask.resize(await ask.busy({ production: off }))
    },
    '1350': () => ask.newInstance(),
    '1351': async () => ['DELETE', `${INSTANCES}/${await ask.plain()}`],
    '1606': () => ask.newPair(),
    '1607': async () => ['DELETE', `${PAIRS}/${await ask.pairOf()}`],
    '1820': async () => ask.expand(await ask.pairOf()),
    '1821': async () => {
      const { group, instance } = await ask.world.protect()
      const pair = await ask.world.pair(group, 2)
      return ask.attach(instance.id, pair.id)
    },
    '1822': async () => {
      const { instance, pair } = await ask.world.protect({
        production: { status: 'stopped', power: 'off' },
      })
      return ['DELETE', `${INSTANCES}/${instance.id}/detachreplication/${pair.id}`]
    },
    '1922': async () => ask.newDrill((await ask.inSync()).group.id),
    '1923': async () => ['DELETE', `${DRILLS}/${(await ask.withDrill('available')).id}`],
    '0406': async () => {
      const [, , body] = await ask.newInstance()
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
