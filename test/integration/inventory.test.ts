/** Networks, ports and tags as rows, on both engines, and with two control planes on one database. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { newId } from '#base/ids.ts'
import {
  provideDefaults,
  requestSubnet,
  requestVpc,
} from '#control/operations/definitions/networks/network-requests.ts'
import { requestSecurityGroup } from '#control/operations/definitions/networks/security-group-requests.ts'
import {
  createPort,
  defaultSecurityGroupId,
  defaultSubnetId,
  defaultVpcId,
  deletePort,
  findSubnet,
  movePort,
  type NewPort,
  type NewPortOutcome,
  portsOf,
  readPort,
  securityGroupsOf,
} from '#control/resources/networks.ts'
import {
  deleteAllTags,
  deleteTags,
  projectTags,
  queryByTags,
  setTags,
  tagsByResource,
  tagsOf,
} from '#control/resources/tags.ts'
import type { PortRow } from '#control/store/tables/networks.ts'
import { isMac } from '#domain/network.ts'
import { TAGS_MAX } from '#domain/tag.ts'
import { ApiLab } from '../support/api.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'

const started = await startPostgres()
const postgres: Postgres | null = 'missing' in started ? null : started
const shared = { skip: 'missing' in started ? started.missing : false }

/** Two control planes where the engine can be shared, otherwise one. */
type Planes = readonly [ApiLab, ...ApiLab[]]
let sqlite: Planes
let pair: Planes | null = null
before(async () => {
  sqlite = [await ApiLab.start()]
  if (postgres === null) return
  const database = await postgres.database('inventory')
  const one = await ApiLab.start({ database })
  pair = [one, await ApiLab.start({ database, beside: one })]
})
after(async () => {
  for (const lab of [...(pair ?? []).toReversed(), ...sqlite]) await lab.stop()
  await postgres?.stop()
})

/** Runs the same test on each engine that there is. */
function onBoth(title: string, run: (planes: Planes) => Promise<void>): void {
  test(`SQLite: ${title}`, async () => await run(sqlite))
  test(`PostgreSQL: ${title}`, shared, async () => {
    assert.ok(pair !== null)
    await run(pair)
  })
}

let serial = 0
const newProject = async (lab: ApiLab) => await lab.project(`inventory-${++serial}`)

async function port(lab: ApiLab, project: string, over: Partial<NewPort> = {}) {
  const request: NewPort = {
    project,
    subnet: null,
    address: null,
    server: null,
    place: 0,
    securityGroups: [],
    deleteWithServer: true,
    name: '',
    ...over,
  }
  return await lab.store.write((tx) => createPort(tx, request, lab.clock.wallMs()))
}

function made(outcome: NewPortOutcome): PortRow {
  assert.ok(outcome.ok, JSON.stringify(outcome))
  return outcome.port
}

/** A subnet with 13 addresses for servers. */
async function smallSubnet(lab: ApiLab, project: string): Promise<string> {
  const common = { project, name: 'small', description: '' }
  const vpc = await requestVpc(lab, { ...common, cidr: '10.0.0.0/24' })
  assert.ok(vpc.ok)
  const subnet = await requestSubnet(lab, {
    ...common,
    vpc: vpc.vpc.id,
    cidr: '10.0.0.0/28',
    gateway: '10.0.0.1',
    dhcp: true,
    dns: [],
    az: null,
  })
  assert.ok(subnet.ok)
  return subnet.subnet.id
}

onBoth(
  'a port in no particular subnet is in the default one, which comes with it',
  async ([lab]) => {
    const project = await newProject(lab)
    const first = made(await port(lab, project))
    assert.equal(first.subnet, defaultSubnetId(project))
    assert.equal(first.address, '192.168.0.2')
    assert.ok(isMac(first.mac))
    assert.deepEqual(securityGroupsOf(first), [defaultSecurityGroupId(project)])
    const subnet = await findSubnet(lab.store.db, project, defaultSubnetId(project))
    assert.equal(subnet?.vpc, defaultVpcId(project))
    const byNeutron = await findSubnet(lab.store.db, project, subnet?.neutron_subnet ?? '')
    assert.deepEqual(byNeutron, subnet)
    assert.deepEqual(await readPort(lab.store.db, first.id), first)
  },
)

onBoth('what a port cannot be is refused, and makes nothing', async ([lab]) => {
  const project = await newProject(lab)
  const other = await newProject(lab)
  const subnet = await smallSubnet(lab, project)
  const foreign = await smallSubnet(lab, other)
  const taken = made(await port(lab, project, { subnet, address: '10.0.0.5' }))
  for (const name of ['twin', 'twin', 'single']) {
    assert.ok((await requestSecurityGroup(lab, { project, name, description: '' })).ok)
  }
  for (const [over, refusal] of [
    [{ subnet: newId() }, 'SUBNET_UNKNOWN'],
    [{ subnet: 'small' }, 'SUBNET_UNKNOWN'],
    [{ subnet: foreign }, 'SUBNET_UNKNOWN'],
    [{ subnet, address: '10.0.0.0' }, 'ADDRESS_OUTSIDE'],
    [{ subnet, address: '10.0.0.15' }, 'ADDRESS_OUTSIDE'],
    [{ subnet, address: '10.0.0.16' }, 'ADDRESS_OUTSIDE'],
    [{ subnet, address: 'x' }, 'ADDRESS_OUTSIDE'],
    [{ subnet, address: '10.0.0.1' }, 'ADDRESS_TAKEN'],
    [{ subnet, address: taken.address }, 'ADDRESS_TAKEN'],
    [{ subnet, securityGroups: ['absent'] }, 'GROUP_UNKNOWN'],
    [{ subnet, securityGroups: ['default', 'twin'] }, 'GROUP_UNKNOWN'],
    [{ subnet, securityGroups: [defaultSecurityGroupId(other)] }, 'GROUP_UNKNOWN'],
  ] as const) {
    const outcome = await port(lab, project, over)
    assert.deepEqual(outcome, { ok: false, refusal }, JSON.stringify(over))
  }
  const named = made(await port(lab, project, { subnet, securityGroups: ['single', 'default'] }))
  assert.equal(securityGroupsOf(named)[1], defaultSecurityGroupId(project))
})

onBoth(
  'a given MAC is kept, and the ports of a server stand in the order of their places',
  async ([lab]) => {
    const project = await newProject(lab)
    const [server, another] = [newId(), newId()]
    const mac = `fa:16:3e:00:00:0${++serial % 10}`
    const second = made(await port(lab, project, { server, place: 1 }))
    const first = made(await port(lab, project, { server, place: 0, mac }))
    assert.equal(first.mac, mac)
    const ids = async (of: readonly string[]) => {
      const found = await portsOf(lab.store.db, of)
      return of.map((one) => (found.get(one) ?? []).map(({ id }) => id))
    }
    assert.deepEqual(await ids([server, another]), [[first.id, second.id], []])
    await lab.store.write((tx) => movePort(tx, first.id, another, 4))
    await lab.store.write((tx) => movePort(tx, second.id, null, 0))
    assert.deepEqual(await ids([server, another]), [[], [first.id]])
    const moved = await readPort(lab.store.db, first.id)
    assert.deepEqual([moved?.mac, moved?.address, moved?.place], [mac, first.address, 4])
    assert.deepEqual(await portsOf(lab.store.db, []), new Map())
  },
)

onBoth('ports asked for side by side get an address each, until there is none', async (planes) => {
  const [lab] = planes
  const project = await newProject(lab)
  const subnet = await smallSubnet(lab, project)
  for (let at = 0; at < 8; at++) made(await port(lab, project, { subnet }))
  const outcomes = await Promise.all(
    Array.from({ length: 8 }, async (_, at) => {
      return await port(planes[at % planes.length] ?? lab, project, { subnet })
    }),
  )
  const ports = outcomes.flatMap((one) => (one.ok ? [one.port] : []))
  assert.equal(ports.length, 5, 'of 13 addresses eight were taken')
  assert.equal(new Set(ports.map(({ address }) => address)).size, 5)
  assert.equal(new Set(ports.map(({ mac }) => mac)).size, 5)
  for (const one of outcomes) if (!one.ok) assert.equal(one.refusal, 'SUBNET_FULL')
  const [gone] = ports
  assert.ok(gone !== undefined)
  await lab.store.write((tx) => deletePort(tx, gone.id))
  assert.equal(made(await port(lab, project, { subnet })).address, gone.address)
})

onBoth(
  'the default networks are made once, whoever asks and how many at a time',
  async (planes) => {
    const project = await newProject(planes[0])
    await Promise.all(
      Array.from({ length: 8 }, async (_, at) => {
        await provideDefaults(planes[at % planes.length] ?? planes[0], project)
      }),
    )
    const { db } = planes[0].store
    for (const [table, count] of [
      ['vpcs', 1],
      ['subnets', 1],
      ['security_groups', 1],
      ['security_group_rules', 4],
    ] as const) {
      const rows = await db.selectFrom(table).select('id').where('project', '=', project).execute()
      assert.equal(rows.length, count, table)
    }
  },
)

onBoth(
  'tags replace each other by key, have a limit, and find what carries them',
  async ([lab]) => {
    const { store } = lab
    const project = await newProject(lab)
    const [one, two, none] = [newId(), newId(), newId()]
    const set = async (resource: string, tags: Record<string, string>) => {
      const list = Object.entries(tags).map(([key, value]) => ({ key, value }))
      return await store.write((tx) => setTags(tx, { kind: 'server', project, resource }, list))
    }
    assert.ok(await set(one, { env: 'test', owner: 'a' }))
    assert.ok(await set(one, { env: 'production' }))
    assert.ok(await set(two, { env: 'test' }))
    assert.deepEqual(await tagsOf(store.db, 'server', one), [
      { key: 'env', value: 'production' },
      { key: 'owner', value: 'a' },
    ])
    assert.deepEqual(await tagsOf(store.db, 'volume', one), [])
    assert.deepEqual(await projectTags(store.db, project, 'server'), [
      { key: 'env', values: ['production', 'test'] },
      { key: 'owner', values: ['a'] },
    ])
    const found = await queryByTags(store.db, project, 'server', [two, none, one], {
      tagsAny: [{ key: 'env', values: ['test'] }],
    })
    assert.deepEqual(found, [{ resource: two, tags: [{ key: 'env', value: 'test' }] }])

    const keys = Array.from({ length: TAGS_MAX }, (_, at) => [`k${at}`, ''])
    assert.equal(await set(one, Object.fromEntries(keys)), false)
    assert.equal((await tagsOf(store.db, 'server', one)).length, 2)
    assert.ok(await set(none, Object.fromEntries(keys)))
    assert.ok(await set(none, { k0: 'changed' }))

    const of = { kind: 'server', project, resource: one } as const
    const remove = async (...names: string[]) =>
      await store.write((tx) => deleteTags(tx, of, names))
    assert.equal(await remove('env', 'absent'), 1)
    assert.equal(await remove(), 0)
    for (const resource of [one, two, none]) {
      await store.write((tx) => deleteAllTags(tx, 'server', resource))
    }
    assert.equal((await tagsByResource(store.db, project, 'server')).size, 0)
  },
)
