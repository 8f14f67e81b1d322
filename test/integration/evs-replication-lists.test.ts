import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { BasicCredentials } from '@huaweicloud/huaweicloud-sdk-core/auth/BasicCredentials.js'
import { HcClient } from '@huaweicloud/huaweicloud-sdk-core/HcClient.js'
import { DefaultHttpClient } from '@huaweicloud/huaweicloud-sdk-core/http/DefaultHttpClient.js'
import { newId } from '#base/ids.ts'
import { gatherPairs } from '#control/operations/definitions/consistency-groups.ts'
import { imageId } from '#control/resources/images.ts'
import { readMeta } from '#control/store/meta.ts'
import type { VolumeRow } from '#control/store/tables/resources.ts'
import { ApiLab, REGION } from '../support/api.ts'
import { assertGo, type GoType } from '../support/go-types.ts'
import {
  disksOfPairs,
  groupRow,
  insertGroupsInSync,
  insertRows,
  ownershipRow,
  pairRow,
  reportOf,
  volumeRow,
} from '../support/group-rows.ts'
import { insertServers } from '../support/server-rows.ts'
import { OpenStack } from '../support/openstack-cli.ts'

/**
 * Lists of replication pairs and consistency groups over rows that nobody made, and what clients with types of their own do with them: the Node
 * SDK, which signs its requests, openstacksdk, and Go's decoder. No operation runs, so also what is refused before one would, and what is answered when none ends.
 */
let lab: ApiLab
let token: string
let project: string
let seeded: ReturnType<typeof seed>

before(async () => {
  lab = await ApiLab.start()
  token = await lab.adminToken()
  project = lab.admin.project_id
  seeded = seed()
  await insertRows(lab.store, seeded.rows)
})
after(async () => await lab.stop())

type Shown = Readonly<Record<string, unknown>>

const AT = Date.UTC(2024, 0, 2, 3, 4, 5)

function seed() {
  const row = { created_at: AT, updated_at: AT }
  const paused = groupRow(project, { ...row, form: 'evs', name: 'paused' })
  const over = groupRow(project, {
    ...row,
    form: 'evs',
    name: 'over',
    status: 'failed-over',
    station: 'target',
    created_at: AT + 5_000,
    updated_at: AT + 9_000,
  })
  const alone = groupRow(project, { ...row, form: 'lone', name: 'alone', status: 'protected' })
  const sdrs = groupRow(project, { ...row, name: 'theirs' })
  const common = { ...row, never_replicated: 0 } as const
  const pairs = [
    pairRow(paused, 1, { ...common, name: 'a', progress: 100, created_at: AT + 1_000 }),
    pairRow(paused, 2, { ...common, name: 'b', progress: 9, created_at: AT + 2_000 }),
    pairRow(over, 1, { ...common, name: 'c', status: 'failed-over', created_at: AT + 3_000 }),
    pairRow(alone, 1, { ...common, name: 'd', status: 'error', failure_detail: 'DR_DISK_IN_USE' }),
    pairRow(sdrs, 1, { ...row, name: 'e', created_at: AT + 4_000 }),
  ] as const
  const groups = [paused, over, alone, sdrs]
  const free = [volumeRow(project, 'az1'), volumeRow(project, 'az2')]
  const disks = groups.flatMap((group) =>
    disksOfPairs(
      group,
      pairs.filter((pair) => pair.group_id === group.id),
    ),
  )
  const rows = { protection_groups: groups, replication_pairs: pairs, volumes: [...disks, ...free] }
  return { rows, pairs, paused, over, sdrs, free: free.map(({ id }) => id) }
}

const PAIRS = () => `/v2/${project}/os-vendor-replications`
const GROUPS = () => `/v2/${project}/os-vendor-replication-consistency-groups`

async function get(url: string, status = 200) {
  const reply = await lab.call({ url, headers: { 'x-auth-token': token } }, 'evs')
  assert.equal(reply.status, status, reply.text)
  return reply.body as Record<string, Record<string, unknown>[]> & {
    readonly error: { readonly code: string }
  }
}

const names = async (query: string, list = 'replications', base = PAIRS()) =>
  ((await get(`${base}?${query}`))[list] ?? []).map((one) => one['name']).join('')

test('pairs are filtered, sorted and paged, newest first unless asked otherwise', async () => {
  const [a, b, c, , e] = seeded.pairs
  assert.equal(await names(''), 'ecbad')
  assert.equal(await names('sort_dir=asc'), 'dabce')
  assert.equal(await names('sort_key=name&sort_dir=asc'), 'abcde')
  assert.equal(
    await names('sort_key=progress&sort_dir=asc&status=available').then((all) => all.at(-1)),
    'a',
  )
  assert.equal(await names('name=a'), 'a')
  assert.equal(await names('status=error'), 'd')
  assert.equal(await names('priority_station=az2'), 'c')
  assert.equal(await names(`replication_consistency_group_id=${seeded.paused.id}`), 'ba')
  assert.equal(await names(`volume_id=${b.target_volume}`), 'b')
  assert.equal(await names(`volume_ids=${a.source_volume},%20${a.target_volume}`), 'a')
  assert.equal(await names('changes-since=2024-01-02T03:04:09'), 'ec')
  assert.equal(await names('changes-since=2024-01-02T04:04:09%2B01:00'), 'ec')
  assert.equal(await names('limit=2'), 'ec')
  assert.equal(await names(`limit=2&marker=${c.id}`), 'ba')
  assert.equal(await names(`marker=${e.id}&offset=1`), 'bad')
  assert.equal(await names("all_tenants=1&metadata={'k':'v'}&sort=created_at:desc"), 'ecbad')
  for (const [query, code] of [
    ['limit=0', 'EVS.5400'],
    ['limit=x', 'EVS.5400'],
    ['limit=1001', 'EVS.2142'],
    ['offset=-1', 'EVS.5400'],
    ['marker=x', 'EVS.1024'],
    ['sort_key=shoe', 'EVS.1039'],
    ['sort_dir=up', 'EVS.1040'],
    ['changes-since=yesterday', 'EVS.5400'],
  ] as const) {
    assert.equal((await get(`${PAIRS()}?${query}`, 400)).error.code, code, query)
  }
})

test('groups are listed as pairs are, with what their pairs come to', async () => {
  const list = 'replication_consistency_groups'
  const of = async (query: string) => await names(query, list, GROUPS())
  const [a] = seeded.pairs
  assert.equal(await of(''), 'overpaused')
  assert.equal(await of('sort_key=name'), 'pausedover')
  assert.equal(await of('status=failovered'), 'over')
  assert.equal(await of('priority_station=az1'), 'paused')
  assert.equal(await of(`volume_id=${a.source_volume}`), 'paused')
  assert.equal(await of('name=ove'), '')
  assert.equal(await of('changes-since=2024-01-02T03:04:10'), 'over')
  assert.equal((await get(`${GROUPS()}?sort_key=progress`, 400)).error.code, 'EVS.1039')
  const { [list]: shown = [] } = await get(GROUPS())
  assert.deepEqual(
    shown.map((one) => [one['status'], one['replication_status'], one['priority_station']]),
    [
      ['failovered', 'active-stopped', 'az2'],
      ['available', 'inactive', 'az1'],
    ],
  )
  const pairs = (await get(`${PAIRS()}?sort_key=name&sort_dir=asc`))['replications'] ?? []
  assert.deepEqual(
    pairs.map((one) => [one['replication_status'], one['progress'], one['failure_detail']]),
    [
      ['active-stopped', '100', null],
      ['inactive', '9', null],
      ['active-stopped', '0', null],
      ['error', null, '37100058'],
      ['inactive', null, null],
    ],
  )
})

const text = (...members: readonly string[]) =>
  Object.fromEntries(members.map((name) => [name, 'string' as const]))
const COMMON = text('id', 'name', 'description', 'status', 'priority_station', 'created_at')
const SHOWN = text('updated_at', 'replication_model', 'replication_status', 'failure_detail')
const GO_PAIR: GoType = {
  struct: {
    ...COMMON,
    ...SHOWN,
    ...text('replication_consistency_group_id', 'volume_ids', 'progress', 'fault_level'),
    record_metadata: 'any',
  },
}
const GO_GROUP: GoType = {
  struct: { ...COMMON, ...SHOWN, ...text('fault_level'), replication_ids: { list: 'string' } },
}

test('a decoder as strict as that of Go takes every pair and group', async () => {
  assertGo({ list: GO_PAIR }, (await get(PAIRS()))['replications'])
  assertGo({ list: GO_GROUP }, (await get(GROUPS()))['replication_consistency_groups'])
})

test('a pair that was asked for by a signed request is shown as being created from the first look on', async () => {
  const origin = await lab.listen()
  const quiet = () => {}
  const settings = {
    disableSslVerification: false,
    axiosRequestConfig: {},
    logger: { debug: quiet, info: quiet, warn: quiet, error: quiet } as never,
  }
  const credential = new BasicCredentials()
    .withAk(lab.admin.access_key)
    .withSk(lab.admin.secret_key)
    .withProjectId(project)
  const client = new HcClient(new DefaultHttpClient(settings, [origin]), settings)
    .withCredential(credential)
    .withEndpoints([origin])
  const send = async (method: string, url: string, data: Record<string, unknown> = {}) =>
    (await client.sendRequest({
      method,
      url,
      contentType: 'application/json',
      queryParams: {},
      pathParams: {},
      headers: {},
      data,
    })) as unknown as { replication: Record<string, unknown>; httpStatusCode: number }
  const made = await send('POST', '/v2/{project_id}/os-vendor-replications', {
    replication: {
      volume_ids: seeded.free,
      priority_station: 'az1',
      replication_model: 'hypermetro',
    },
  })
  assert.equal(made.httpStatusCode, 202)
  const path = `/v2/{project_id}/os-vendor-replications/${String(made.replication['id'])}`
  const { replication } = await send('GET', path)
  assert.deepEqual(
    [replication['status'], replication['replication_status'], replication['progress']],
    ['creating', null, null],
  )
  assert.equal(replication['volume_ids'], seeded.free.join(','))
  assertGo(GO_PAIR, replication)
})

test('the DR disk may be in a server that is stopped, and not in one that runs', async () => {
  const { db } = lab.store
  await insertServers(lab.store, project, 1, imageId('holdfast-tiny'))
  const server = await db.selectFrom('servers').selectAll().executeTakeFirstOrThrow()
  const disk = await db.selectFrom('server_disks').selectAll().executeTakeFirstOrThrow()
  const production = volumeRow(project, 'az2')
  await insertRows(lab.store, { volumes: [production] })
  const create = async () =>
    await lab.call(
      {
        method: 'POST',
        url: PAIRS(),
        headers: { 'x-auth-token': token },
        body: {
          replication: {
            volume_ids: [production.id, disk.volume],
            priority_station: 'az2',
            replication_model: 'hypermetro',
          },
        },
      },
      'evs',
    )
  const refused = await create()
  assert.equal(refused.status, 409, refused.text)
  assert.match(refused.text, /37100058/)
  const off = { status: 'stopped', power: 'off' }
  await lab.store.write(async (tx) => {
    await tx.updateTable('servers').set(off).where('id', '=', server.id).execute()
  })
  assert.equal((await create()).status, 202)
  const taken = await create()
  assert.deepEqual([taken.status, /EVS\.2089/.test(taken.text)], [400, true])
})

const post = async (url: string, body: unknown, status: number) => {
  const reply = await lab.call(
    { method: 'POST', url, headers: { 'x-auth-token': token }, body },
    'evs',
  )
  assert.equal(reply.status, status, reply.text)
  return reply.body as { readonly error?: { readonly code: string; readonly message: string } }
}

test('what keeps a disk from growing by itself keeps it from growing in its group', async () => {
  const [a, b] = seeded.pairs
  const { paused } = seeded
  const change = async (id: string, over: Partial<VolumeRow>) =>
    await lab.store.write((tx) =>
      tx.updateTable('volumes').set(over).where('id', '=', id).execute(),
    )
  const extend = async (newSizeGb: number, status: number) => {
    const value = { replications: [a, b].map(({ id }) => ({ id, new_size: newSizeGb })) }
    const body = { 'os-extend-replication-volumes': value }
    return (await post(`${GROUPS()}/${paused.id}/action`, body, status)).error
  }
  const plain = { status: 'available', bootable: 0, multiattach: 0 } as const
  for (const disk of [a.source_volume, b.target_volume]) {
    for (const [over, newSizeGb, code] of [
      [{ bootable: 1 }, 1_025, 'EVS.1010'],
      [{}, 32_769, 'EVS.1010'],
      [{ status: 'in-use', multiattach: 1 }, 2, 'EVS.1065'],
      [{ status: 'attaching' }, 2, 'EVS.1048'],
    ] as const) {
      await change(disk, { ...plain, ...over })
      assert.equal((await extend(newSizeGb, 400))?.code, code, JSON.stringify(over))
    }
    await change(disk, plain)
  }
  const server = await lab.store.db
    .selectFrom('server_disks')
    .select(['server', 'volume'])
    .executeTakeFirstOrThrow()
  const hold = async (volume: string) =>
    await lab.store.write((tx) =>
      tx.updateTable('server_disks').set({ volume }).where('server', '=', server.server).execute(),
    )
  const serverIs = async (status: string) =>
    await lab.store.write((tx) => tx.updateTable('servers').set({ status }).execute())
  await hold(b.target_volume)
  await serverIs('error')
  assert.equal((await extend(2, 400))?.code, 'EVS.1066')
  await hold(server.volume)
  await serverIs('stopped')
})

test('what sites say or no longer say changes the time of change with what is shown, and only then', async () => {
  const made = await insertGroupsInSync(lab.store, project, { groups: 1, pairsPerGroup: 2 })
  const [group] = made.groups
  assert.ok(group !== undefined)
  await lab.store.write((tx) =>
    tx.updateTable('protection_groups').set({ form: 'evs' }).where('id', '=', group.id).execute(),
  )
  const report = async () => await lab.agents.receive(reportOf('az1', made.sessions))
  type Look = readonly [unknown, unknown, unknown]
  const looks = async () => {
    const list = (await get(`${PAIRS()}?replication_consistency_group_id=${group.id}`))[
      'replications'
    ]
    const shown = (await get(`${GROUPS()}/${group.id}`)) as unknown as Record<string, Shown>
    const all = [...(list ?? []), shown['replication_consistency_group'] ?? {}]
    return all.map(
      (one): Look => [one['replication_status'], one['fault_level'], one['updated_at'] ?? ''],
    )
  }
  const since = async (time: unknown) =>
    (await get(`${PAIRS()}?changes-since=${String(time)}`))['replications']
      ?.map((one) => one['id'])
      .sort()
  const ids = made.pairs.map(({ id }) => id).sort()
  const passed = async (wanted: Look, before: readonly Look[]) => {
    lab.clock.advance(5_000)
    const now = await looks()
    for (const [at, [status, level, time]] of now.entries()) {
      assert.deepEqual([status, level], [wanted[0], wanted[1]])
      assert.ok(
        String(time) > String(before[at]?.[2]),
        `${String(time)} after ${String(before[at]?.[2])}`,
      )
    }
    // Nothing has changed since: the time stands, also for who asks what has changed.
    lab.clock.advance(500)
    if (wanted[0] === 'active') await report()
    assert.deepEqual(await looks(), now)
    assert.deepEqual(await since(now[0]?.[2]), ids)
    return now
  }
  await report()
  const first = await looks()
  assert.deepEqual(first[0]?.slice(0, 2), ['active', '0'])
  const silent = await passed(['inactive', '2', null], first)
  lab.clock.advance(5_000)
  await report()
  const heard = await looks()
  assert.deepEqual(heard[2]?.slice(0, 2), ['active', '0'])
  assert.ok(heard.every((one, at) => String(one[2]) > String(silent[at]?.[2])))
  await passed(['inactive', '2', null], heard)
  await lab.store.write(async (tx) => {
    await tx.deleteFrom('replication_pairs').where('group_id', '=', group.id).execute()
    await tx.deleteFrom('protection_groups').where('id', '=', group.id).execute()
  })
})

test('pairs that were to come into a group that fails are what they were: paused, replicating, or set going again', async () => {
  const now = lab.clock.wallMs()
  const { history_mark } = await readMeta(lab.store.db)
  /** What it was, what the operation left of it, and what it is to be. */
  const cases = [
    ['protected', 'updating', 'in_sync', 'protected', 'protected', 1, 'protected'],
    ['protected', 'updating', 'closed', 'available', 'starting', 0, 'starting'],
    ['protected', 'error-stopping', 'closed', 'error-stopping', 'starting', 1, 'starting'],
    ['available', 'updating', 'closed', 'available', 'available', 0, 'available'],
    ['error-stopping', 'error-stopping', 'closed', 'error-stopping', 'available', 1, 'available'],
    ['error-stopping', 'error-stopping', 'solo', 'error-stopping', 'protected', 1, 'protected'],
    ['error-starting', 'updating', 'resyncing', 'error-starting', 'starting', 1, 'starting'],
    ['error-starting', 'updating', 'closed', 'available', 'starting', 0, 'starting'],
  ] as const
  const group = groupRow(project, { form: 'evs', status: 'creating', name: 'failing' })
  const lones = cases.map(([, status]) =>
    groupRow(project, { form: 'lone', status, name: 'failing' }),
  )
  const pairs = cases.map(([, , , status, , in_session], at) =>
    pairRow(lones[at] ?? group, 1, { status, in_session, progress: 100, never_replicated: 0 }),
  )
  await insertRows(lab.store, { protection_groups: [group, ...lones], replication_pairs: pairs })
  const started: string[] = []
  const newcomers = cases.map(([was], at) => ({
    was,
    pair: pairs[at]?.id ?? '',
    lone: lones[at]?.id ?? '',
  }))
  const failure = { code: 'SUB_OPERATION_FAILED', message: 'no', step: 'pause' }
  await lab.store.write(async (tx) => {
    for (const [at, [, , state]] of cases.entries()) {
      const row = ownershipRow(lones[at] ?? group, history_mark, state)
      await tx.insertInto('ownership').values(row).execute()
    }
    const services = { clock: lab.clock }
    const context = { services, resourceId: group.id, input: { newcomers } } as never
    await gatherPairs.failed(tx, context, failure, async (kind, { resourceId, apart }) => {
      assert.deepEqual([kind.name, apart], ['group.start', true])
      started.push(resourceId)
      return newId()
    })
  })
  const { db } = lab.store
  for (const [at, [, , , , status, , pairStatus]] of cases.entries()) {
    const [lone, pair] = [lones[at]?.id ?? '', pairs[at]?.id ?? '']
    const found = await db
      .selectFrom('protection_groups')
      .selectAll()
      .where('id', '=', lone)
      .executeTakeFirstOrThrow()
    const own = await db
      .selectFrom('replication_pairs')
      .selectAll()
      .where('id', '=', pair)
      .executeTakeFirstOrThrow()
    assert.deepEqual([found.status, own.status], [status, pairStatus], JSON.stringify(cases[at]))
    assert.equal(started.includes(lone), status === 'starting')
    if (status === 'available') assert.equal(own.in_session, 0)
    assert.ok(found.updated_at >= now)
  }
  const failed = await db
    .selectFrom('protection_groups')
    .selectAll()
    .where('id', '=', group.id)
    .executeTakeFirstOrThrow()
  assert.deepEqual([failed.status, failed.failure_detail], ['error', failure.code])
  await lab.store.write(async (tx) => {
    const ids = pairs.map(({ id }) => id)
    await tx.deleteFrom('replication_pairs').where('id', 'in', ids).execute()
    await tx.deleteFrom('protection_groups').where('name', '=', 'failing').execute()
  })
})

/** The answer to a request that waits, with the clock moving on until it is there. */
async function patiently<T>(request: Promise<T>): Promise<T> {
  let done = false
  void request.finally(() => (done = true)).catch(() => {})
  while (!done) {
    lab.clock.advance(1_000)
    await new Promise((resolve) => setImmediate(resolve))
  }
  return await request
}

test('what still starts or stops after the wait is answered with 503, once for all groups, and never for those of others', async () => {
  const other = await lab.project('elsewhere')
  const make = (form: 'evs' | 'lone', status: string, of = project) =>
    groupRow(of, { form, status, name: 'slow' })
  const stopping = make('evs', 'stopping')
  const starting = make('evs', 'starting')
  const theirs = make('evs', 'starting', other)
  const lones = [make('lone', 'starting'), make('lone', 'stopping'), make('lone', 'starting')]
  const pairs = lones.map((lone) => pairRow(lone, 1, { status: lone.status }))
  await insertRows(lab.store, {
    protection_groups: [stopping, starting, theirs, ...lones],
    replication_pairs: pairs,
    volumes: lones.flatMap((lone, at) => disksOfPairs(lone, pairs.slice(at, at + 1))),
  })
  const action = (name: string) => ({ [`os-${name}-replication-consistency-group`]: null })
  const act = (id: string, name: string, status: number) =>
    post(`${GROUPS()}/${id}/action`, action(name), status)
  const grow = { 'os-extend-replication-volumes': { id: newId(), new_size: 2 } }
  const group = {
    replication_ids: pairs.map(({ id }) => id),
    priority_station: 'az1',
    replication_model: 'hypermetro',
  }
  const before = lab.clock.wallMs()
  for (const request of [
    act(stopping.id, 'stop', 503),
    act(starting.id, 'stop', 503),
    act(starting.id, 'failover', 503),
    post(`${GROUPS()}/${starting.id}/action`, grow, 503),
    post(GROUPS(), { replication_consistency_group: group }, 503),
  ]) {
    const { error } = await patiently(request)
    assert.equal(error?.code, 'EVS.5503')
    assert.match(error?.message ?? '', /paused.*Repeat/)
  }
  assert.ok(lab.clock.wallMs() > before + 20_000, 'the clock was waited for')
  await patiently(act(starting.id, 'sync', 200))

  // Not one poll: the clock stands.
  for (const id of [theirs.id, newId()]) {
    assert.equal((await act(id, 'stop', 404)).error?.code, 'EVS.5404')
    assert.equal((await post(`${GROUPS()}/${id}/action`, grow, 404)).error?.code, 'EVS.5404')
  }
  await lab.store.write(async (tx) => {
    const ids = pairs.map(({ id }) => id)
    await tx.deleteFrom('replication_pairs').where('id', 'in', ids).execute()
    await tx.deleteFrom('protection_groups').where('name', '=', 'slow').execute()
  })
})

test('openstacksdk finds the service in the catalogue and reads both lists', {
  skip: OpenStack.missing(),
}, async () => {
  const address = lab.app.server.address()
  assert.ok(typeof address === 'object' && address !== null)
  const url = `http://127.0.0.1:${address.port}`
  const openstack = await OpenStack.start({ ...lab.admin, url, region: REGION, regions: [] })
  try {
    const script = `
connection = openstack.connect()
found = []
for path, key in (('/os-vendor-replications', 'replications'), ('/os-vendor-replication-consistency-groups', 'replication_consistency_groups')):
    reply = connection.session.get(path, endpoint_filter={'service_type': 'volumev2'})
    found.append([key, reply.status_code, len(reply.json()[key])])
print(json.dumps(found))
`
    assert.deepEqual(await openstack.sdk(script), [
      ['replications', 200, 7],
      ['replication_consistency_groups', 200, 2],
    ])
    assert.deepEqual(openstack.offences, [])
  } finally {
    await openstack.stop()
  }
})
