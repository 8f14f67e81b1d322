/** Every filter and every form of paging of every list, over rows that nobody made: the API over SQLite, no sites. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { newHexId, newId } from '#base/ids.ts'
import { findImageByName } from '#control/resources/images.ts'
import { forgetEnded } from '#control/operations/records.ts'
import type { OperationRow } from '#control/store/tables/operations.ts'
import { INSTANCE_STATUSES } from '#domain/protected-instance.ts'
import { ApiLab } from '../support/api.ts'
import { disksOfPairs, groupRow, insertRows, instanceRow, pairRow } from '../support/group-rows.ts'
import { operationRow } from '../support/operation-rows.ts'
import { insertServers } from '../support/server-rows.ts'

let lab: ApiLab
let token: string
let project: string
/** Names by list, in the order of the list. */
const all = {
  'server-groups': ['Alpha', 'beta', 'gamma', 'a_b', 'axb', 'delta'],
  replications: ['p1', 'p2', 'p3', 'p4'],
  'protected-instances': ['i1', 'i2', 'i3', 'i4'],
  'task-center/failure-jobs': ['Epsilon', 'Zeta'],
} as const
type List = keyof typeof all
const id = new Map<string, string>()
const of = (name: string): string => id.get(name) ?? assert.fail(name)
const ordinals = { next: 1 }

before(async () => {
  lab = await ApiLab.start()
  project = lab.admin.project_id
  token = await lab.adminToken()
  await seed()
})
after(async () => await lab.stop())

async function seed(): Promise<void> {
  await lab.call({ url: `/v1/${project}/vpcs`, headers: { 'x-auth-token': token } })
  const image = await findImageByName(lab.store.db, 'holdfast-tiny')
  await insertServers(lab.store, project, 5, image?.id ?? '')
  const servers = await lab.store.db.selectFrom('servers').select('id').execute()
  const server = () => servers.pop()?.id ?? newId()
  // Two of one moment: the smaller id is first.
  const [first = '', second = ''] = [newId(), newId()].toSorted()
  const groups = [
    groupRow(project, { name: 'Alpha', created_at: 50 }),
    groupRow(project, { name: 'beta', status: 'protected', station: 'target', created_at: 40 }),
    groupRow(project, { name: 'gamma', status: 'error-starting', created_at: 30 }),
    groupRow(project, { name: 'a_b', status: 'failed-over', created_at: 20, id: first }),
    groupRow(project, { name: 'axb', status: 'deleting', created_at: 20, id: second }),
    groupRow(project, { name: 'delta', status: 'error-reversing', created_at: 10 }),
  ]
  for (const group of groups) id.set(group.name, group.id).set(`group ${group.name}`, group.id)
  const [alpha, beta] = groups
  assert.ok(alpha !== undefined && beta !== undefined)
  // Made over another API: in none of these lists.
  const foreign = groupRow(project, { name: 'foreign', form: 'evs' })
  const instances = [
    instanceRow(alpha, {
      name: 'i1',
      created_at: 9,
      source_server: server(),
      target_server: server(),
    }),
    instanceRow(alpha, {
      name: 'i2',
      created_at: 8,
      source_server: server(),
      target_server: server(),
    }),
    instanceRow(beta, { name: 'i3', created_at: 7, status: 'protected', source_server: server() }),
    instanceRow(beta, { name: 'i4', created_at: 6, status: 'creating' }),
  ]
  for (const instance of instances) id.set(instance.name, instance.id)
  const attached = (instance: string) =>
    JSON.stringify([{ instance: of(instance), device: '/dev/vda' }])
  const pairs = [
    pairRow(alpha, 1, { name: 'p1', created_at: 9, attachments: attached('i1') }),
    pairRow(alpha, 2, {
      name: 'p2',
      created_at: 8,
      status: 'error',
      failure_detail: 'x',
      attachments: attached('i2'),
    }),
    pairRow(beta, 1, {
      name: 'p3',
      created_at: 7,
      status: 'protected',
      attachments: attached('i3'),
    }),
    pairRow(beta, 2, { name: 'p4', created_at: 6, status: 'extending' }),
  ]
  for (const pair of pairs) id.set(pair.name, pair.id)
  const others = [pairRow(foreign, 1, { name: 'p-foreign' })]
  await insertRows(lab.store, {
    protection_groups: [...groups, foreign],
    replication_pairs: [...pairs, ...others],
    protected_instances: instances,
    volumes: disksOfPairs(alpha, [...pairs, ...others]),
  })
  id.set('foreign', foreign.id).set('p-foreign', others[0]?.id ?? '')
  await insertOperations([
    failure('group.delete', 'foreign', foreign.id),
    failure('pair.delete', 'p-foreign', of('Alpha')),
    failure('group.delete', 'Zeta', of('beta')),
    failure('group.create', 'Epsilon', of('Alpha')),
    failure('group.start', 'Alpha', of('Alpha')),
    failure('pair.create', 'p1', of('Alpha')),
    failure('pair.expand', 'p4', of('beta'), 'cancelled'),
    failure('instance.delete', 'i3', of('beta')),
    failure('instance.resize', 'i1', of('Alpha')),
    failure('pair.delete', 'p1', of('Alpha'), 'succeeded'),
    failure('volume.create', 'disk', of('Alpha')),
    failure('instance.create-many', 'batch', of('Alpha')),
  ])
}

function failure(
  kind: string,
  name: string,
  group: string,
  status: OperationRow['status'] = 'failed',
): OperationRow {
  const operation = newHexId()
  id.set(`${kind} ${name}`, operation)
  const failed = status === 'failed'
  return operationRow({
    id: operation,
    ordinal: ordinals.next++,
    kind,
    project,
    resource_type: kind.replace(/\..*/, ''),
    resource_id: id.get(name) ?? newId(),
    status,
    error_code: failed ? 'SITE_UNREACHABLE' : null,
    fail_reason: failed ? 'The agent of the site did not answer.' : null,
    failed_step: null,
    entities: JSON.stringify({ server_group_id: group, name }),
  })
}

const insertOperations = async (rows: readonly OperationRow[]): Promise<void> =>
  await lab.store.write(async (tx) => {
    for (let at = 0; at < rows.length; at += 100) {
      await tx
        .insertInto('operations')
        .values(rows.slice(at, at + 100))
        .execute()
    }
  })

interface Listed {
  readonly names: readonly string[]
  readonly ids: readonly string[]
  readonly count: number
  readonly statuses: readonly string[]
}

async function list(of: List, query: string): Promise<Listed> {
  const url = `/v1/${project}/${of}?${query}`
  const reply = await lab.call({ url, headers: { 'x-auth-token': token } }, 'sdrs')
  assert.equal(reply.status, 200, `${url}: ${reply.text}`)
  const { count, ...members } = reply.body as Record<string, unknown> & { count: number }
  const [rows = []] = Object.values(members) as Record<string, string>[][]
  return {
    count,
    names: rows.map((row) => row['name'] ?? row['resource_name'] ?? ''),
    ids: rows.map((row) => row['id'] ?? row['job_id'] ?? ''),
    statuses: rows.map((row) => row['status'] ?? ''),
  }
}

async function refusal(of: List, query: string): Promise<string> {
  const url = `/v1/${project}/${of}?${query}`
  const reply = await lab.call({ url, headers: { 'x-auth-token': token } }, 'sdrs')
  assert.equal(reply.status, 400, `${url}: ${reply.text}`)
  return reply.body.error.code as string
}

const LISTS = Object.keys(all) as List[]

for (const name of LISTS) {
  test(`${name}: every form of paging`, async () => {
    const names: readonly string[] = all[name]
    const { ids } = await list(name, '')
    const last = ids.at(-1) ?? ''
    for (const [query, expected] of [
      ['', names],
      ['limit=1', names.slice(0, 1)],
      ['limit=1&limit=2', names.slice(0, 1)],
      ['limit=1&offset=1', names.slice(1, 2)],
      ['offset=1', names.slice(1)],
      [`offset=${names.length}`, []],
      ['offset=9007199254740991', []],
      ['limit=0', []],
      ['limit=1000', names],
      ['limit=&offset=&marker=', names],
      [`marker=${ids[0]}`, names.slice(1)],
      [`marker=${ids[0]}&limit=1`, names.slice(1, 2)],
      [`marker=${ids[0]}&limit=1&offset=1`, names.slice(2, 3)],
      [`marker=${last}`, []],
      [`marker=${newId()}`, []],
      ["marker=no'id", []],
      ['Limit=1&sort_key=name&shoe_size=44', names],
    ] as const) {
      const found = await list(name, query)
      assert.deepEqual(found.names, expected, query)
      assert.equal(found.count, names.length, query)
    }
    for (const limit of ['-1', '1001', 'x', '1.5', '1e3', '%20', '9'.repeat(30)]) {
      assert.equal(await refusal(name, `limit=${limit}`), 'SDRS.0221', limit)
    }
    for (const offset of ['-1', 'x', '0.5', '9'.repeat(30)]) {
      assert.equal(await refusal(name, `offset=${offset}`), 'SDRS.0222', offset)
    }
  })
}

/** `$NAME` stands for the id of that name. */
const FILTERS: Readonly<Record<List, readonly (readonly [string, readonly string[]])[]>> = {
  'server-groups': [
    ['name=LPH', ['Alpha']],
    ['name=', all['server-groups']],
    ['name=a_b', ['a_b']],
    ['name=%25', []],
    ['name=%5C', []],
    ['name=foreign', []],
    ["name=a'", []],
    ['status=available', ['Alpha']],
    ['status=reversing', []],
    ['status=', all['server-groups']],
    ['availability_zone=az1', ['Alpha', 'gamma', 'a_b', 'axb', 'delta']],
    ['availability_zone=az2', ['beta']],
    ['availability_zone=nowhere', []],
    ['query_type=status_abnormal', ['gamma', 'delta']],
    ['query_type=stop_protected', ['Alpha', 'gamma']],
    ['query_type=%20stop_protected', ['Alpha', 'gamma']],
    ['query_type=general', all['server-groups']],
    ['query_type=', all['server-groups']],
    ['query_type=status_abnormal&status=error-starting', ['gamma']],
    ['query_type=stop_protected&status=protected', []],
    ['name=a&availability_zone=az1&status=failed-over', ['a_b']],
    // Of the year 1970, all of them.
    ['query_type=period_no_dr_drill', all['server-groups']],
  ],
  replications: [
    ['name=P', all.replications],
    ['name=p4', ['p4']],
    ['status=protected', ['p3']],
    ['status=extending', ['p4']],
    ['availability_zone=az1', ['p1', 'p2']],
    ['availability_zone=az2', ['p3', 'p4']],
    ['query_type=status_abnormal', ['p2']],
    ['server_group_id=$Alpha', ['p1', 'p2']],
    ['server_group_id=$ALPHA', ['p1', 'p2']],
    ['server_group_id=nothing', []],
    ['server_group_ids=%5B%22$Alpha%22%2C%22$beta%22%5D', all.replications],
    ["server_group_ids=['$Alpha', 'unknown']", ['p1', 'p2']],
    ['server_group_ids=[$beta]', ['p3', 'p4']],
    ['server_group_ids=$Alpha&server_group_ids=$beta', all.replications],
    ['server_group_ids=[$beta]&server_group_id=$Alpha', ['p3', 'p4']],
    ['server_group_ids=[unknown]&server_group_id=$Alpha', []],
    ['protected_instance_id=$i1', ['p1']],
    ['protected_instance_ids=$i1,$i3', ['p1', 'p3']],
    ['protected_instance_ids=[$i3]&protected_instance_id=$i1', ['p3']],
    ['protected_instance_id=$i1&server_group_id=$beta', []],
    ['protected_instance_id=%25', []],
    ['server_group_id=$Alpha&status=error&name=p', ['p2']],
  ],
  'protected-instances': [
    ['name=I2', ['i2']],
    ['status=available', ['i1']],
    ['status=fault', ['i2']],
    ['status=invalid', ['i3']],
    ['status=protected', []],
    ['status=creating', ['i4']],
    ['status=creating&limit=1&offset=1', []],
    ['availability_zone=az1', ['i1', 'i2']],
    ['availability_zone=az2', ['i3', 'i4']],
    ['query_type=status_abnormal', ['i2', 'i3']],
    ['query_type=status_abnormal&limit=1', ['i2']],
    ['query_type=status_abnormal&marker=$i2', ['i3']],
    ['query_type=status_abnormal&status=fault', ['i2']],
    ['server_group_id=$Alpha', ['i1', 'i2']],
    ['server_group_ids=[$beta]&server_group_id=$Alpha', ['i3', 'i4']],
    ["protected_instance_ids=['$i1','$i4']", ['i1', 'i4']],
    ['protected_instance_ids=$i1&protected_instance_ids=$i2', ['i1', 'i2']],
    ['protected_instance_ids=[$i1]&server_group_id=$beta', ['i3', 'i4']],
    ['server_group_ids=[unknown]', []],
  ],
  'task-center/failure-jobs': [
    ['server_group_id=$Alpha', ['i1', 'p1', 'Alpha']],
    ['server_group_id=$beta', ['i3', 'p4']],
    ['server_group_id=nothing', []],
    [`server_group_id=${newId()}`, []],
    ['failure_status=createFail', ['p1', 'Epsilon']],
    ['failure_status=createFail&server_group_id=$Alpha', ['p1']],
    ['failure_status=expandFail', ['p4']],
    ['failure_status=reprotectFail', []],
    ['resource_type=server_groups', ['Alpha', 'Epsilon', 'Zeta']],
    ['resource_type=replications', ['p4', 'p1']],
    ['resource_type=protected_instances', ['i1', 'i3']],
    ['resource_type=disaster_recovery_drills', []],
    ['resource_type=replications&failure_status=startFail', []],
    ['resource_name=P', ['p4', 'p1', 'Alpha', 'Epsilon']],
    ['resource_name=P&limit=2&offset=1', ['p1', 'Alpha']],
    ['resource_name=p&server_group_id=$beta', ['p4']],
    ['resource_name=server_group_id', []],
    ['failure_status=&resource_type=&resource_name=&server_group_id=', ['Epsilon', 'Zeta']],
  ],
}

for (const name of LISTS) {
  test(`${name}: every filter`, async () => {
    for (const [pattern, expected] of FILTERS[name]) {
      const query = pattern
        .replace('$ALPHA', () => of('group Alpha').toUpperCase())
        .replaceAll(/\$(\w+)/g, (_, key: string) =>
          of(id.has(`group ${key}`) ? `group ${key}` : key),
        )
      const found = await list(name, query)
      assert.deepEqual(found.names, expected, query)
      if (!/limit|marker|offset/.test(query)) assert.equal(found.count, expected.length, query)
    }
  })
}

test('values that no filter knows are refused with the code of the filter', async () => {
  const many = Array.from({ length: 31 }, newId).join(',')
  for (const [name, query, code] of [
    ['server-groups', 'status=gone', 'SDRS.0209'],
    ['server-groups', 'query_type=gone', 'SDRS.0201'],
    ['replications', 'status=gone', 'SDRS.0209'],
    ['replications', 'query_type=stop_protected', 'SDRS.0201'],
    ['replications', `server_group_ids=[${many}]`, 'SDRS.0226'],
    ['replications', `protected_instance_ids=${many}`, 'SDRS.0226'],
    ['protected-instances', 'status=gone', 'SDRS.0209'],
    ['protected-instances', 'query_type=stop_protected', 'SDRS.0201'],
    ['protected-instances', `protected_instance_ids=${many}`, 'SDRS.0226'],
    ['task-center/failure-jobs', 'failure_status=gone', 'SDRS.0201'],
    ['task-center/failure-jobs', 'resource_type=protectedInstance', 'SDRS.0201'],
  ] as const) {
    assert.equal(await refusal(name, query), code, `${name} ${query}`)
  }
})

test('the states of instances that are listed are the ones that filters take', async () => {
  const { statuses } = await list('protected-instances', '')
  assert.deepEqual(statuses, ['available', 'fault', 'invalid', 'creating'])
  let found = 0
  for (const status of INSTANCE_STATUSES) {
    const { names } = await list('protected-instances', `status=${status}`)
    found += names.length
  }
  assert.equal(found, statuses.length)
})

test('failed tasks are taken off the list one by one, by group and all, and what they were about stays', async () => {
  const remove = async (path: string) => {
    const url = `/v1/${project}/task-center/${path}`
    const reply = await lab.call(
      { method: 'DELETE', url, headers: { 'x-auth-token': token } },
      'sdrs',
    )
    assert.equal(reply.status, 204, reply.text)
  }
  const names = async (query: string) => (await list('task-center/failure-jobs', query)).names
  const group = of('group Alpha')
  await remove(`failure-jobs/${of('instance.resize i1')}`)
  assert.deepEqual(await names(`server_group_id=${group}`), ['p1', 'Alpha'])
  // By the resource: what it is called in the example of the documents.
  await remove(`failure-jobs/${of('p1')}`)
  assert.deepEqual(await names(`server_group_id=${group}`), ['Alpha'])
  await remove(`failure-jobs/${newHexId()}`)
  await remove('failure-jobs/batch')
  assert.deepEqual(await names(''), [])
  assert.deepEqual(await names(`server_group_id=${group}`), ['Alpha'])
  await remove(`${group}/failure-jobs/batch`)
  assert.deepEqual(await names('resource_type=server_groups'), [])
  assert.deepEqual(await names(`server_group_id=${of('beta')}`), ['i3', 'p4'])
  const { names: pairs } = await list('replications', `server_group_id=${group}`)
  assert.deepEqual(pairs, ['p1', 'p2'])
  const job = of('instance.resize i1')
  const url = `/v1/${project}/jobs/${job}`
  const reply = await lab.call({ url, headers: { 'x-auth-token': token } }, 'sdrs')
  assert.equal(reply.body.status, 'FAIL')
  // What was taken off the list does not keep old operations from being forgotten.
  await lab.store.write((tx) => forgetEnded(tx, 3, 100))
  assert.equal((await lab.call({ url, headers: { 'x-auth-token': token } })).status, 404)
})

test('a marker that vanished ends the list; what is left is paged from its beginning', async () => {
  const { ids } = await list('server-groups', 'limit=2')
  const [, second = ''] = ids
  await lab.store.write(async (tx) => {
    await tx.deleteFrom('protected_instances').where('group_id', '=', second).execute()
    await tx.deleteFrom('replication_pairs').where('group_id', '=', second).execute()
    await tx.deleteFrom('protection_groups').where('id', '=', second).execute()
  })
  const found = await list('server-groups', `limit=2&marker=${second}`)
  assert.deepEqual([found.names, found.count], [[], 5])
  assert.deepEqual((await list('server-groups', `marker=${ids[0]}&limit=1`)).names, ['gamma'])
})

test('lists of a thousand and one end at a thousand, and go on from there in every way', async () => {
  const stray = await lab.project('local-1_large')
  project = stray
  token = (await lab.userWith('operator', stray)).token
  const groups = Array.from({ length: 1_001 }, (_, at) =>
    groupRow(stray, { name: `g${at}`, created_at: at >> 1 }),
  )
  const pairs = groups.map((group, at) =>
    pairRow(group, 1, { name: `p${at}`, created_at: at >> 1 }),
  )
  const instances = groups.map((group, at) =>
    instanceRow(group, { name: `i${at}`, created_at: at >> 1 }),
  )
  const [any] = groups
  assert.ok(any !== undefined)
  await insertRows(lab.store, {
    protection_groups: groups,
    replication_pairs: pairs,
    protected_instances: instances,
    volumes: disksOfPairs(any, pairs),
  })
  await insertOperations(groups.map((group) => failure('group.create', group.name, group.id)))
  for (const name of LISTS) {
    const first = await list(name, '')
    assert.deepEqual([first.ids.length, first.count], [1_000, 1_001], name)
    const rest = await list(name, 'offset=1000')
    assert.deepEqual([rest.ids.length, rest.count], [1, 1_001], name)
    assert.equal(new Set([...first.ids, ...rest.ids]).size, 1_001, name)
    assert.deepEqual((await list(name, `marker=${first.ids.at(-1)}`)).ids, rest.ids, name)
    assert.deepEqual((await list(name, 'offset=1001')).ids, [], name)
    // As two widespread clients page: by what they have, and by the last id they saw.
    const byMarker: string[] = []
    for (let page = await list(name, 'limit=300'); page.ids.length > 0; ) {
      byMarker.push(...page.ids)
      page = await list(name, `limit=300&marker=${byMarker.at(-1)}`)
    }
    assert.deepEqual(byMarker, [...first.ids, ...rest.ids], name)
  }
  const invalid = await list('protected-instances', 'status=invalid&limit=1')
  assert.deepEqual([invalid.ids.length, invalid.count], [1, 1_001])
})
