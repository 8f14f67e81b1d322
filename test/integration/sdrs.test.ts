import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { newId } from '#base/ids.ts'
import { setQuotaLimit } from '#control/resources/surroundings.ts'
import { GROUP_STATUSES } from '#domain/protection-group.ts'
import { PAIR_STATUSES } from '#domain/replication-pair.ts'
import { PROJECT, Region, STRANGE_PROJECT } from '../support/region.ts'

/** What the API refuses, and how it answers lists; every answer is held against the contract. */
let region: Region
let volume: string
let group: string
let pair: string
let domain: string

before(async () => {
  region = await Region.start()
  volume = await region.volume('data')
  group = await region.group('prod.db_1-a')
  pair = await region.pair(group, volume, 'disk-1')
  domain = await region.domain()
})
after(async () => await region.stop())

const GROUPS = '/v1/{project}/server-groups'
const PAIRS = '/v1/{project}/replications'

/** Sends what must be refused: the code is the documented one, and nothing changed. */
async function refused(
  method: string,
  path: string,
  body: unknown,
  code: string,
  status = 400,
): Promise<void> {
  const before = await region.snapshot()
  const reply = await region.call(method, path, body)
  const where = `${method} ${path} ${JSON.stringify(body)} → ${JSON.stringify(reply.body)}`
  assert.equal(reply.body?.error?.code, code, where)
  assert.equal(reply.status, status, where)
  assert.equal(reply.body.error_code, code)
  assert.ok(reply.body.error.message.length > 0)
  assert.equal(await region.snapshot(), before, `${where} changed something`)
}

const newGroup = (over: object) => ({
  server_group: {
    name: 'g',
    source_availability_zone: 'az1',
    target_availability_zone: 'az2',
    domain_id: domain,
    source_vpc_id: region.vpc,
    ...over,
  },
})

test('a wrong value in any field of a new group has its code and changes nothing', async () => {
  const cases: [object, string][] = [
    [{ name: '' }, 'SDRS.0202'],
    [{ name: 'x'.repeat(65) }, 'SDRS.0202'],
    [{ name: 'a b' }, 'SDRS.0202'],
    [{ name: 'ä' }, 'SDRS.0202'],
    [{ name: 'a\n' }, 'SDRS.0202'],
    [{ name: 7 }, 'SDRS.0201'],
    [{ name: null }, 'SDRS.0201'],
    [{ description: 'ä'.repeat(33) }, 'SDRS.0212'],
    [{ description: '<b>' }, 'SDRS.0212'],
    [{ description: 7 }, 'SDRS.0201'],
    [{ source_availability_zone: 'az3' }, 'SDRS.0203'],
    [{ target_availability_zone: 'az1' }, 'SDRS.0203'],
    [{ target_availability_zone: '' }, 'SDRS.0203'],
    [{ domain_id: 'x' }, 'SDRS.0205'],
    [{ domain_id: newId() }, 'SDRS.0205'],
    [{ source_vpc_id: 'x' }, 'SDRS.0204'],
    [{ source_vpc_id: newId().slice(1) }, 'SDRS.0204'],
    [{ source_vpc_id: newId() }, 'SDRS.0204'],
    [{ dr_type: 'copy' }, 'SDRS.0201'],
  ]
  for (const [over, code] of cases) await refused('POST', GROUPS, newGroup(over), code)
  for (const body of [undefined, null, [], 'x', 7, {}, { server_group: null }]) {
    await refused('POST', GROUPS, body, 'SDRS.0201')
  }
})

test('unknown members of a request are ignored, and null counts as absent', async () => {
  const body = newGroup({ server_type: 'ECS', description: null, dr_type: null, shoe_size: 44 })
  const job = await region.job('POST', GROUPS, { ...body, more: true })
  assert.equal(job.job_type, 'createProtectionGroupNoCG')
  const made = await region.show(job.entities.server_group_id)
  assert.equal(made.description, null)
  await region.job('DELETE', `${GROUPS}/${made.id}`)
})

test('a new group comes back as it was given', async () => {
  const shown = await region.show(group)
  assert.deepEqual(
    { ...shown, created_at: '', updated_at: '' },
    {
      id: group,
      name: 'prod.db_1-a',
      description: null,
      status: 'available',
      progress: 0,
      source_availability_zone: 'az1',
      target_availability_zone: 'az2',
      domain_id: domain,
      domain_name: 'local-1-az1-az2',
      priority_station: 'source',
      protected_instance_num: 0,
      replication_num: 1,
      disaster_recovery_drill_num: 0,
      protected_status: null,
      replication_status: null,
      health_status: null,
      source_vpc_id: region.vpc,
      target_vpc_id: region.vpc,
      test_vpc_id: null,
      dr_type: 'migration',
      server_type: 'ECS',
      created_at: '',
      updated_at: '',
      protection_type: 'replication-pair',
      replication_model: null,
    },
  )
  assert.match(shown.created_at, /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}$/)
})

test('a wrong value in any field of a new pair has its code and changes nothing', async () => {
  const free = await region.volume('free')
  const elsewhere = await region.volume('elsewhere', 1, 'az2')
  const body = (over: object) => ({
    replication: { server_group_id: group, volume_id: free, name: 'p', ...over },
  })
  const cases: [object, string][] = [
    [{ name: '' }, 'SDRS.0202'],
    [{ name: 'ß' }, 'SDRS.0202'],
    [{ name: 7 }, 'SDRS.0201'],
    [{ description: '>' }, 'SDRS.0212'],
    [{ server_group_id: 'x' }, 'SDRS.0207'],
    [{ server_group_id: newId() }, 'SDRS.1013'],
    [{ volume_id: 'x' }, 'SDRS.0211'],
    [{ volume_id: newId() }, 'SDRS.1803'],
    [{ volume_id: volume }, 'SDRS.1811'],
    [{ volume_id: elsewhere }, 'SDRS.1810'],
  ]
  for (const [over, code] of cases) await refused('POST', PAIRS, body(over), code)
  for (const wrong of [undefined, [], { replication: [] }, { replication: {} }]) {
    await refused('POST', PAIRS, wrong, 'SDRS.0201')
  }
  await region.ok(
    'POST',
    `/v2/{project}/volumes/${free}/action`,
    { 'os-attach': { instance_uuid: newId(), mountpoint: '/dev/vdb' } },
    202,
  )
  await refused('POST', PAIRS, body({}), 'SDRS.1801')
})

test('a pair shows its disks, its model and the size as a number', async () => {
  const shown = await region.showPair(pair)
  const [source, target] = shown.volume_ids.split(',')
  assert.equal(source, volume)
  const dr = (await region.ok('GET', `/v2/{project}/volumes/${target}`)).volume
  assert.equal(dr.availability_zone, 'az2')
  assert.equal(dr.name, 'data')
  assert.equal(shown.replication_model, 'hypermetro')
  assert.equal(shown.fault_level, '0')
  assert.deepEqual(shown.attachment, [])
  assert.deepEqual(shown.record_metadata, {
    multiattach: false,
    bootable: false,
    volume_size: 1,
    volume_type: 'SSD',
  })
  assert.match(shown.created_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$/)
})

test('a disk of a pair is neither deleted nor extended on its own', async () => {
  const target = (await region.showPair(pair)).volume_ids.split(',')[1]
  for (const disk of [volume, target]) {
    const deletion = await region.call('DELETE', `/v2/{project}/volumes/${disk}`)
    assert.equal(deletion.body.error.code, 'EVS.2089')
    const extension = await region.call('POST', `/v2/{project}/volumes/${disk}/action`, {
      'os-extend': { new_size: 2 },
    })
    assert.equal(extension.body.error.code, 'EVS.2089')
  }
})

test('an id that is malformed or names nothing has the code of its kind', async () => {
  const kinds = [
    ['server-groups', 'SDRS.0207', 'SDRS.1013'],
    ['replications', 'SDRS.0213', 'SDRS.1608'],
    ['protected-instances', 'SDRS.0208', 'SDRS.1320'],
    ['disaster-recovery-drills', 'SDRS.1900', 'SDRS.1902'],
  ] as const
  for (const [kind, malformed, absent] of kinds) {
    for (const method of ['GET', 'DELETE']) {
      const path = `/v1/{project}/${kind}`
      // A blank in the place of a drill's id is a missing one, with a code of its own.
      const blank = kind === 'disaster-recovery-drills' ? [] : ['%20']
      for (const id of ['some-name', '1', 'x'.repeat(500), newId().slice(1), ...blank]) {
        await refused(method, `${path}/${id}`, undefined, malformed)
      }
      await refused(method, `${path}/${newId()}`, undefined, absent, 404)
    }
  }
  const rename = { server_group: { name: 'n' } }
  await refused('PUT', `${GROUPS}/${newId()}`, rename, 'SDRS.1013', 404)
  await refused('PUT', `${PAIRS}/${newId()}`, { replication: { name: 'n' } }, 'SDRS.1608', 404)
  const start = { 'start-server-group': {} }
  await refused('POST', `${GROUPS}/${newId()}/action`, start, 'SDRS.1013', 404)
  const expand = { 'extend-replication': { new_size: 2 } }
  await refused('POST', `${PAIRS}/${newId()}/action`, expand, 'SDRS.1608', 404)
})

test('an action is exactly one known key with an object or null', async () => {
  const path = `${GROUPS}/${group}/action`
  const bodies: unknown[] = [
    undefined,
    null,
    [],
    'start-server-group',
    {},
    { 'begin-server-group': {} },
    { 'start-server-group': {}, 'stop-server-group': {} },
    { 'start-server-group': {}, more: 1 },
    { 'start-server-group': 'now' },
    { 'start-server-group': [] },
    { 'failover-server-group': { force: 'yes' } },
  ]
  for (const body of bodies) await refused('POST', path, body, 'SDRS.0206')
  for (const station of [undefined, null, 'az2', 'Target', 7]) {
    const body = { 'reverse-server-group': { priority_station: station } }
    await refused('POST', path, body, 'SDRS.0216')
  }
})

test('an available group is neither stopped, reversed nor failed over', async () => {
  const path = `${GROUPS}/${group}/action`
  await refused('POST', path, { 'stop-server-group': {} }, 'SDRS.1002')
  await refused('POST', path, { 'failover-server-group': {} }, 'SDRS.1002')
  await refused('POST', path, { 'failover-server-group': { force: true } }, 'SDRS.1002')
  const reverse = { 'reverse-server-group': { priority_station: 'target' } }
  await refused('POST', path, reverse, 'SDRS.1002')
})

test('a group with a pair is not deleted, one without a pair is not started', async () => {
  await refused('DELETE', `${GROUPS}/${group}`, undefined, 'SDRS.1010')
  const empty = await region.group('empty')
  await refused('POST', `${GROUPS}/${empty}/action`, { 'start-server-group': {} }, 'SDRS.1002')
  const job = await region.job('DELETE', `${GROUPS}/${empty}`)
  assert.equal(job.job_type, 'deleteProtectionGroupNoCG')
})

test('renaming changes the name and nothing else', async () => {
  const before = await region.show(group)
  const { server_group } = await region.ok('PUT', `${GROUPS}/${group}`, {
    server_group: { name: 'renamed', description: 'ignored' },
  })
  assert.deepEqual(server_group, {
    ...before,
    name: 'renamed',
    updated_at: server_group.updated_at,
  })
  await region.ok('PUT', `${GROUPS}/${group}`, { server_group: { name: before.name } })
  for (const [name, code] of [
    ['', 'SDRS.0202'],
    ['a/b', 'SDRS.0202'],
    [null, 'SDRS.0201'],
    [[], 'SDRS.0201'],
  ]) {
    await refused('PUT', `${GROUPS}/${group}`, { server_group: { name } }, code as string)
    await refused('PUT', `${PAIRS}/${pair}`, { replication: { name } }, code as string)
  }
  const renamed = await region.ok('PUT', `${PAIRS}/${pair}`, { replication: { name: 'disk-9' } })
  assert.equal(renamed.replication.name, 'disk-9')
})

test('an expansion names a larger size in gigabytes', async () => {
  const path = `${PAIRS}/${pair}/action`
  for (const body of [undefined, {}, { grow: {} }, { 'extend-replication': 5 }]) {
    await refused('POST', path, body, 'SDRS.0206')
  }
  for (const new_size of [undefined, null, '2', 0, -1, 1, 1.9, 32_769, 1e99]) {
    await refused('POST', path, { 'extend-replication': { new_size } }, 'SDRS.0201')
  }
})

test('the deletion of a pair takes a wrong group and wrong flags amiss', async () => {
  const path = `${PAIRS}/${pair}`
  const body = (replication: unknown) => ({ replication })
  await refused('DELETE', path, body({ server_group_id: newId() }), 'SDRS.1611')
  await refused('DELETE', path, body({ server_group_id: 'x' }), 'SDRS.0207')
  await refused('DELETE', path, body({ delete_target_volume: 'true' }), 'SDRS.0201')
  await refused('DELETE', path, body(7), 'SDRS.0201')
})

test('lists filter by everything that is documented', async () => {
  const count = async (query: string) => {
    const list = await region.ok('GET', `${GROUPS}?${query}`)
    assert.equal(list.count, list.server_groups.length)
    return list.count as number
  }
  assert.equal(await count(''), 1)
  assert.equal(await count('name=PROD'), 1)
  assert.equal(await count('name=other'), 0)
  assert.equal(await count('status=available'), 1)
  assert.equal(await count('status=protected'), 0)
  assert.equal(await count('availability_zone=az1'), 1)
  assert.equal(await count('availability_zone=az2'), 0)
  assert.equal(await count('query_type=stop_protected'), 1)
  assert.equal(await count('query_type=%20stop_protected'), 1)
  assert.equal(await count('query_type=status_abnormal'), 0)
  assert.equal(await count('query_type=period_no_dr_drill'), 0)
  assert.equal(await count('query_type=general&query_type='), 1)
  assert.equal(await count('unknown=1'), 1)
  for (const status of GROUP_STATUSES) await count(`status=${status}`)
  await refused('GET', `${GROUPS}?status=unknown`, undefined, 'SDRS.0209')
  await refused('GET', `${GROUPS}?query_type=unknown`, undefined, 'SDRS.0201')
})

test('lists of pairs filter by group, instance, state and site', async () => {
  const count = async (query: string) =>
    (await region.ok('GET', `${PAIRS}?${query}`)).count as number
  const encode = encodeURIComponent
  assert.equal(await count(`server_group_id=${group}`), 1)
  assert.equal(await count(`server_group_id=${newId()}`), 0)
  assert.equal(await count(`server_group_ids=${encode(`["${group}","${newId()}"]`)}`), 1)
  assert.equal(await count(`server_group_ids=${encode(`['${group}']`)}`), 1)
  assert.equal(await count(`server_group_ids=${encode(`[${group}]`)}`), 1)
  assert.equal(await count(`server_group_ids=${newId()}&server_group_ids=${group}`), 1)
  assert.equal(await count(`server_group_ids=${newId()}&server_group_id=${group}`), 0)
  assert.equal(await count(`protected_instance_id=${newId()}`), 0)
  assert.equal(await count(`name=disk`), 1)
  assert.equal(await count('availability_zone=az1'), 1)
  assert.equal(await count('query_type=status_abnormal'), 0)
  for (const status of PAIR_STATUSES) {
    assert.equal(await count(`status=${status}`), status === 'available' ? 1 : 0, status)
  }
  const many = Array.from({ length: 31 }, () => newId()).join(',')
  await refused('GET', `${PAIRS}?server_group_ids=[${many}]`, undefined, 'SDRS.0226')
  await refused('GET', `${PAIRS}?status=syncing`, undefined, 'SDRS.0209')
})

test('pages are stable, by offset and by marker, and count is the number of matches', async () => {
  const made = [group]
  for (const name of ['page-1', 'page-2', 'page-3']) made.push(await region.group(name))
  const all = await region.ok('GET', GROUPS)
  assert.equal(all.count, 4)
  const ids = all.server_groups.map((one: { id: string }) => one.id)
  assert.deepEqual(new Set(ids), new Set(made))
  const byOffset: string[] = []
  for (let offset = 0; ; offset += 2) {
    const page = await region.ok('GET', `${GROUPS}?limit=2&offset=${offset}`)
    assert.equal(page.count, 4)
    if (page.server_groups.length === 0) break
    byOffset.push(...page.server_groups.map((one: { id: string }) => one.id))
  }
  assert.deepEqual(byOffset, ids)
  const byMarker: string[] = []
  for (let marker = ''; ; ) {
    const query = marker === '' ? 'limit=3' : `limit=3&marker=${marker}`
    const page = await region.ok('GET', `${GROUPS}?${query}`)
    if (page.server_groups.length === 0) break
    byMarker.push(...page.server_groups.map((one: { id: string }) => one.id))
    marker = byMarker.at(-1) ?? ''
  }
  assert.deepEqual(byMarker, ids)
  assert.equal((await region.ok('GET', `${GROUPS}?limit=0`)).count, 4)
  for (const limit of ['-1', '1001', 'x', '1.5', '9'.repeat(30)]) {
    await refused('GET', `${GROUPS}?limit=${limit}`, undefined, 'SDRS.0221')
  }
  for (const offset of ['-1', 'x', '0.5']) {
    await refused('GET', `${GROUPS}?offset=${offset}`, undefined, 'SDRS.0222')
  }
  for (const id of made.slice(1)) await region.job('DELETE', `${GROUPS}/${id}`)
})

test('quotas count, and what exceeds them is refused', async () => {
  const { quotas } = await region.ok('GET', '/v1/{project}/sdrs/quotas')
  const used = quotas.resources.map((one: { type: string; used: number }) => [one.type, one.used])
  assert.deepEqual(used, [
    ['server_groups', 1],
    ['replications', 1],
  ])
  const { store } = region.plane
  const limit = async (kind: 'server_groups' | 'replications') =>
    await store.write((tx) => setQuotaLimit(tx, PROJECT, kind, 1))
  await limit('server_groups')
  await refused('POST', GROUPS, newGroup({}), 'SDRS.0305')
  await limit('replications')
  const disk = await region.volume('over')
  const body = { replication: { server_group_id: group, volume_id: disk, name: 'p' } }
  await refused('POST', PAIRS, body, 'SDRS.0306')
  await store.write(async (tx) => {
    await tx.deleteFrom('quotas').execute()
  })
})

test('drills and recovery points that there are none of are empty lists', async () => {
  const drills = await region.ok('GET', '/v1/{project}/disaster-recovery-drills')
  assert.deepEqual(drills, { disaster_recovery_drills: [], count: 0 })
  const rpo = await region.ok('GET', '/v1/{project}/resource/rpo-statistics')
  assert.equal(rpo.count, 0)
})

test('jobs are answered to their project only, and an unknown one is 404', async () => {
  const { job_id } = await region.ok('POST', GROUPS, newGroup({ name: 'gone' }))
  await region.plane.operations.waitFor(job_id)
  const job = await region.ok('GET', `/v1/{project}/jobs/${job_id}`)
  assert.equal(job.status, 'SUCCESS')
  assert.equal(job.error_code, null)
  assert.equal(job.fail_reason, null)
  const strange = await region.call(
    'GET',
    `/v1/${STRANGE_PROJECT}/jobs/${job_id}`,
    undefined,
    'stranger',
  )
  assert.equal(strange.status, 404)
  for (const id of ['x', 'f'.repeat(32), newId()]) {
    assert.equal((await region.call('GET', `/v1/{project}/jobs/${id}`)).status, 404)
  }
  await region.job('DELETE', `${GROUPS}/${job.entities.server_group_id}`)
})

test('another project sees and changes nothing', async () => {
  const strange = async (method: string, path: string, body?: unknown) =>
    await region.call(method, path.replace('{project}', STRANGE_PROJECT), body, 'stranger')
  assert.equal((await strange('GET', GROUPS)).body.count, 0)
  assert.equal((await strange('GET', PAIRS)).body.count, 0)
  assert.equal((await strange('GET', '/v2/{project}/volumes')).body.volumes.length, 0)
  const before = await region.snapshot()
  for (const [method, path, body] of [
    ['GET', `${GROUPS}/${group}`, undefined],
    ['PUT', `${GROUPS}/${group}`, { server_group: { name: 'mine' } }],
    ['DELETE', `${GROUPS}/${group}`, undefined],
    ['POST', `${GROUPS}/${group}/action`, { 'start-server-group': {} }],
    ['GET', `${PAIRS}/${pair}`, undefined],
    ['PUT', `${PAIRS}/${pair}`, { replication: { name: 'mine' } }],
    ['DELETE', `${PAIRS}/${pair}`, undefined],
    ['POST', `${PAIRS}/${pair}/action`, { 'extend-replication': { new_size: 9 } }],
    ['GET', `/v2/{project}/volumes/${volume}`, undefined],
    ['DELETE', `/v2/{project}/volumes/${volume}`, undefined],
    ['POST', `/v2/{project}/volumes/${volume}/action`, { 'os-extend': { new_size: 9 } }],
  ] as const) {
    assert.equal((await strange(method, path, body)).status, 404, `${method} ${path}`)
    const foreign = await region.call(method, path, body, 'stranger')
    assert.ok([400, 403, 404].includes(foreign.status), `${method} ${path}: ${foreign.status}`)
  }
  assert.equal(await region.snapshot(), before)
})

test('a reader looks and changes nothing', async () => {
  const before = await region.snapshot()
  for (const [method, path, body] of [
    ['POST', GROUPS, newGroup({})],
    ['PUT', `${GROUPS}/${group}`, { server_group: { name: 'n' } }],
    ['DELETE', `${GROUPS}/${group}`, undefined],
    ['POST', `${GROUPS}/${group}/action`, { 'start-server-group': {} }],
    ['DELETE', `${PAIRS}/${pair}`, undefined],
    ['POST', '/v2/{project}/volumes', { volume: { size: 1, availability_zone: 'az1' } }],
  ] as const) {
    const reply = await region.call(method, path, body, 'reader')
    assert.equal(reply.status, 403, `${method} ${path}: ${JSON.stringify(reply.body)}`)
  }
  assert.equal((await region.call('GET', GROUPS, undefined, 'reader')).status, 200)
  assert.equal(await region.snapshot(), before)
})

test('without a token everything but the versions is 401', async () => {
  for (const path of [GROUPS, PAIRS, '/v1/{project}/jobs/x', '/v2/{project}/volumes']) {
    assert.equal((await region.call('GET', path, undefined, '')).status, 401, path)
    assert.equal((await region.call('GET', path, undefined, 'wrong')).status, 401, path)
  }
  for (const path of ['/v1', '/v2']) {
    assert.equal((await region.call('GET', path, undefined, '')).status, 200, path)
  }
})
