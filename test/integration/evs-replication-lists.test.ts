import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { BasicCredentials } from '@huaweicloud/huaweicloud-sdk-core/auth/BasicCredentials.js'
import { HcClient } from '@huaweicloud/huaweicloud-sdk-core/HcClient.js'
import { DefaultHttpClient } from '@huaweicloud/huaweicloud-sdk-core/http/DefaultHttpClient.js'
import { imageId } from '#control/resources/images.ts'
import { ApiLab, REGION } from '../support/api.ts'
import { assertGo, type GoType } from '../support/go-types.ts'
import { disksOfPairs, groupRow, insertRows, pairRow, volumeRow } from '../support/group-rows.ts'
import { insertServers } from '../support/server-rows.ts'
import { OpenStack } from '../support/openstack-cli.ts'

/**
 * Lists of replication pairs and consistency groups over rows that nobody made, and what clients with types of their own do with them: the Node
 * SDK, which signs its requests, openstacksdk, and Go's decoder.
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
