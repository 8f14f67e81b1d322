import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { requestGroupCommand } from '#control/operations/definitions/protection/group-requests.ts'
import { PROJECT, Region, type Reply } from '../support/region.ts'

/**
 * Replication pairs and consistency groups of the volume API on real agents, with data: the life of both, what each action does to the
 * disks of both sites, and what is refused. Every answer is held against the contract by the region.
 */
let region: Region
before(async () => {
  region = await Region.start()
})
after(async () => await region.stop())

const PAIRS = '/v2/{project}/os-vendor-replications'
const GROUPS = '/v2/{project}/os-vendor-replication-consistency-groups'

const body = (site: string, ids: readonly string[], more: object = {}) => ({
  replication: {
    name: 'pair',
    description: 'two disks',
    volume_ids: ids,
    priority_station: site,
    replication_model: 'hypermetro',
    ...more,
  },
})

async function write(site: string, name: string, text: string): Promise<void> {
  const client = await region.nbd(site, name)
  await client.write(4096, Buffer.from(text.padEnd(512)), { fua: true })
  await client.disconnect()
}

async function read(site: string, name: string): Promise<string> {
  const client = await region.nbd(site, name)
  const data = await client.read(4096, 512)
  await client.disconnect()
  return data.toString().trimEnd()
}

async function showPair(id: string): Promise<Reply['body']> {
  return (await region.ok('GET', `${PAIRS}/${id}`)).replication
}

async function showGroup(id: string): Promise<Reply['body']> {
  return (await region.ok('GET', `${GROUPS}/${id}`)).replication_consistency_group
}

type Shown = Readonly<Record<string, unknown>>

/** Polls as the documents tell clients to, and fails on any state that should not be seen on the way. */
async function until(
  show: () => Promise<Shown>,
  wanted: Shown,
  passing: readonly string[] = [],
): Promise<Shown> {
  let last: Shown = {}
  const want = JSON.stringify(wanted)
  await region.until(want, async () => {
    last = await show()
    const seen = Object.keys(wanted).map((key) => last[key])
    const known = new Set([...Object.values(wanted), ...passing])
    assert.ok(
      seen.every((value) => known.has(value)),
      `on the way to ${want}: ${JSON.stringify(last)}`,
    )
    return Object.entries(wanted).every(([key, value]) => last[key] === value)
  })
  return last
}

const ACTIVE = { status: 'available', replication_status: 'active' }
const PAUSED = { status: 'available', replication_status: 'active-stopped' }

const OVER = { status: 'failovered', replication_status: 'active-stopped' }

const pairActive = (id: string) =>
  until(() => showPair(id), ACTIVE, ['creating', null as unknown as string, 'copying'])
const groupActive = (id: string, passing: readonly string[] = []) =>
  until(() => showGroup(id), ACTIVE, ['creating', null as unknown as string, 'copying', ...passing])

interface Made {
  readonly pair: string
  readonly az1: string
  readonly az2: string
}

/** A pair with production at az1, in sync. */
async function makePair(name: string, more: object = {}): Promise<Made> {
  const az1 = await region.volume(`${name}-1`)
  const az2 = await region.volume(`${name}-2`, 1, 'az2')
  const made = await region.ok('POST', PAIRS, body('az1', [az1, az2], { name, ...more }), 202)
  const pair = made.replication.id as string
  await pairActive(pair)
  return { pair, az1, az2 }
}

async function makeGroup(name: string, pairs: readonly string[], more: object = {}) {
  const { replication_consistency_group: made } = await region.ok(
    'POST',
    GROUPS,
    {
      replication_consistency_group: {
        name,
        description: '',
        replication_ids: pairs,
        priority_station: 'az1',
        replication_model: 'hypermetro',
        ...more,
      },
    },
    202,
  )
  assert.equal(made.status, 'creating')
  await groupActive(made.id)
  return made.id as string
}

const act = async (group: string, action: string, value: unknown = null) =>
  await region.ok('POST', `${GROUPS}/${group}/action`, {
    [`os-${action}-replication-consistency-group`]: value,
  })

async function gone(path: string): Promise<void> {
  await region.until(`${path} is gone`, async () => (await region.call('GET', path)).status === 404)
}

async function deletePair(id: string): Promise<void> {
  await region.ok('DELETE', `${PAIRS}/${id}`, undefined, 202)
  await gone(`${PAIRS}/${id}`)
}

/** Pauses, takes all pairs out, deletes the group and the pairs. */
async function removeGroup(group: string): Promise<void> {
  const { replication_ids: pairs } = await showGroup(group)
  await act(group, 'stop')
  const change = { remove_replication_ids: pairs }
  await region.ok('PUT', `${GROUPS}/${group}`, { replication_consistency_group: change }, 202)
  await until(() => showGroup(group), { status: 'available' }, ['updating'])
  await region.ok('DELETE', `${GROUPS}/${group}`, undefined, 202)
  await gone(`${GROUPS}/${group}`)
  for (const pair of pairs) await deletePair(pair)
}

/** No operation is at work any more: what a group shows is true a moment before the operation that made it so has ended. */
async function quiet(): Promise<void> {
  const { db } = region.plane.store
  await region.until('nothing is at work', async () => {
    const ended = ['succeeded', 'failed', 'cancelled'] as const
    const query = db.selectFrom('operations').select('id').where('status', 'not in', ended)
    return (await query.executeTakeFirst()) === undefined
  })
}

/** Refused with this status and code, and nothing has changed. */
async function refused(
  status: number,
  code: string,
  method: string,
  path: string,
  request?: unknown,
): Promise<string> {
  await quiet()
  const before = await region.snapshot()
  const reply = await region.call(method, path, request)
  assert.equal(reply.status, status, `${method} ${path}: ${JSON.stringify(reply.body)}`)
  assert.equal(reply.body.error.code, code, JSON.stringify(reply.body))
  assert.ok(
    (await region.snapshot()) === before,
    `${method} ${path} was refused and changed something`,
  )
  return reply.body.error.message as string
}

const STAMP = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}$/

test('a pair of two disks replicates by itself, and leaves both behind with their data', async () => {
  const az1 = await region.volume('alone-1')
  const az2 = await region.volume('alone-2', 1, 'az2')
  await write('az1', az1, 'before the pair')
  await write('az2', az2, 'is overwritten')
  const request = body('az1', [az2, az1])
  const { replication: made } = await region.ok('POST', PAIRS, request, 202)
  assert.deepEqual(
    { ...made, id: '', created_at: '' },
    {
      id: '',
      name: 'pair',
      description: 'two disks',
      status: 'creating',
      replication_consistency_group_id: null,
      volume_ids: `${az2}, ${az1}`,
      priority_station: 'az1',
      created_at: '',
      updated_at: null,
    },
  )
  assert.match(made.created_at, STAMP)
  const shown = await pairActive(made.id)
  assert.match(String(shown['updated_at']), STAMP)
  assert.deepEqual(
    { ...shown, created_at: '', updated_at: '' },
    {
      ...made,
      status: 'available',
      volume_ids: `${az2},${az1}`,
      created_at: '',
      updated_at: '',
      replication_model: 'hypermetro',
      replication_status: 'active',
      progress: '100',
      failure_detail: null,
      record_metadata: '{"volume_size":1,"volume_type":"SSD","multiattach":false}',
      fault_level: '0',
    },
  )
  await region.refuses('az2', az2)
  await write('az1', made.id, 'through the pair')
  assert.equal(await read('az1', az1), 'through the pair')
  await deletePair(made.id)
  assert.equal(await read('az1', az1), 'through the pair')
  assert.equal(await read('az2', az2), 'through the pair')
})

test('a consistency group goes through every action back to nothing, and the data of both its pairs with it', async () => {
  const one = await makePair('life-a')
  const two = await makePair('life-b')
  await write('az1', one.pair, 'a0')
  await write('az1', two.pair, 'b0')
  const group = await makeGroup('life', [one.pair, two.pair])
  const both = async (site: 'az1' | 'az2', text: string) => {
    const other = site === 'az1' ? 'az2' : 'az1'
    assert.deepEqual(
      [await read(site, one.pair), await read(site, two.pair)],
      [`a${text}`, `b${text}`],
    )
    await region.refuses(other, one.pair)
    await region.refuses(other, two[other])
  }
  const writeBoth = async (site: string, text: string) => {
    await write(site, one.pair, `a${text}`)
    await write(site, two.pair, `b${text}`)
  }
  assert.deepEqual((await showGroup(group)).replication_ids, [one.pair, two.pair])
  assert.equal((await showPair(one.pair)).replication_consistency_group_id, group)
  await both('az1', '0')
  await writeBoth('az1', '1')

  await act(group, 'reverse')
  const reversed = await groupActive(group, ['reversing'])
  assert.equal(reversed['priority_station'], 'az2')
  assert.equal((await showPair(two.pair)).priority_station, 'az2')
  assert.equal((await showPair(one.pair)).volume_ids, `${one.az1},${one.az2}`)
  await both('az2', '1')
  await writeBoth('az2', '2')

  await act(group, 'failover')
  const over = await until(
    () => showGroup(group),
    { status: 'failovered', replication_status: 'active-stopped' },
    ['failovering', 'active', 'inactive', 'copying'],
  )
  assert.equal(over['priority_station'], 'az1')
  await both('az1', '2')
  await writeBoth('az1', '3')
  await refused(409, 'EVS.5400', 'POST', `${GROUPS}/${group}/action`, {
    'os-sync-replication-consistency-group': null,
  })

  await act(group, 'reprotect')
  await groupActive(group, ['failovered'])
  await both('az1', '3')

  await act(group, 'stop')
  await until(() => showGroup(group), PAUSED)
  await until(() => showPair(one.pair), PAUSED)
  assert.equal((await showPair(one.pair)).progress, '100')
  await writeBoth('az1', '4')
  await act(group, 'stop', {})
  await act(group, 'sync')
  assert.equal((await showGroup(group)).replication_status, 'copying')
  await groupActive(group)
  await act(group, 'sync')
  await act(group, 'failover', {})
  await until(() => showGroup(group), { status: 'failovered' }, ['failovering'])
  await both('az2', '4')
  await act(group, 'reprotect', {})
  await groupActive(group, ['failovered'])
  await act(group, 'reverse', {})
  await groupActive(group, ['reversing'])
  await both('az1', '4')
  await removeGroup(group)
  for (const disk of [one.az1, one.az2]) {
    assert.equal(await read(disk === one.az1 ? 'az1' : 'az2', disk), 'a4')
  }
})

test('pairs come into a paused group and leave it, and what leaves replicates by itself again', async () => {
  const first = await makePair('come-a')
  const second = await makePair('come-b')
  const group = await makeGroup('come', [first.pair])
  await write('az1', second.pair, 'b')
  const update = (change: object) => [
    'PUT',
    `${GROUPS}/${group}`,
    { replication_consistency_group: change },
  ]
  const put = update({ add_replication_ids: [second.pair] }) as [string, string, object]
  assert.match(await refused(409, 'EVS.5400', ...put), /os-stop/)
  // A name alone needs no pause.
  const rename = update({ name: 'renamed', description: 'why' }) as [string, string, object]
  const renamed = await region.ok(...rename, 202)
  assert.equal(renamed.replication_consistency_group.status, 'available')
  assert.equal((await showGroup(group)).name, 'renamed')

  await act(group, 'stop')
  await write('az1', first.az1, 'a while paused')
  const added = await region.ok(...put, 202)
  assert.equal(added.replication_consistency_group.status, 'updating')
  await until(() => showGroup(group), PAUSED, ['updating'])
  assert.deepEqual((await showGroup(group)).replication_ids, [first.pair, second.pair])
  await until(() => showPair(second.pair), PAUSED)
  await act(group, 'sync')
  await groupActive(group)
  await act(group, 'reverse')
  await groupActive(group, ['reversing'])
  assert.equal(await read('az2', first.pair), 'a while paused')
  assert.equal(await read('az2', second.pair), 'b')

  // The pair that leaves keeps production where the group has it.
  await act(group, 'stop')
  await write('az2', first.az2, 'a at the other site')
  const leave = update({ remove_replication_ids: [first.pair] }) as [string, string, object]
  await region.ok(...leave, 202)
  await until(() => showGroup(group), PAUSED, ['updating'])
  const alone = await pairActive(first.pair)
  assert.equal(alone['replication_consistency_group_id'], null)
  assert.equal(alone['priority_station'], 'az2')
  assert.equal(alone['volume_ids'], `${first.az1},${first.az2}`)
  assert.equal(await read('az2', first.pair), 'a at the other site')

  // A new group of it has its sites the other way round, and the disks are named as ever.
  const { replication_consistency_group: other } = await region.ok(
    'POST',
    GROUPS,
    {
      replication_consistency_group: {
        replication_ids: [first.pair],
        priority_station: 'az2',
        replication_model: 'hypermetro',
      },
    },
    202,
  )
  await groupActive(other.id)
  assert.equal((await showPair(first.pair)).volume_ids, `${first.az1},${first.az2}`)
  await act(other.id, 'failover')
  await until(() => showGroup(other.id), { status: 'failovered' }, ['failovering'])
  assert.equal(await read('az1', first.pair), 'a at the other site')
  await act(other.id, 'reprotect')
  await groupActive(other.id, ['failovered'])
  await removeGroup(other.id)
  await removeGroup(group)
})

test('a pair whose own session is stopped already comes into a group, and is equal again there', async () => {
  const made = await makePair('stopped')
  const { plane } = region
  await quiet()
  const { group_id: lone } = await plane.store.db
    .selectFrom('replication_pairs')
    .select('group_id')
    .where('id', '=', made.pair)
    .executeTakeFirstOrThrow()
  const services = { ...plane, ...plane.services, agentSilenceMs: 1_000, sites: ['az1', 'az2'] }
  const stopped = await requestGroupCommand(services, PROJECT, lone, { kind: 'stop' })
  assert.ok(stopped.ok, JSON.stringify(stopped))
  await plane.operations.waitFor(stopped.operation)
  await until(() => showPair(made.pair), PAUSED)
  await write('az1', made.az1, 'while stopped')
  const group = await makeGroup('stopped', [made.pair])
  await act(group, 'failover')
  await until(() => showGroup(group), { status: 'failovered' }, ['failovering'])
  assert.equal(await read('az2', made.pair), 'while stopped')
  await act(group, 'reprotect')
  await groupActive(group, ['failovered'])
  await removeGroup(group)
})

test('both disks of several pairs grow in one call, in either form of it, and the states stay', async () => {
  const first = await makePair('grow-a')
  const second = await makePair('grow-b')
  const group = await makeGroup('grow', [first.pair, second.pair])
  const extend = (value: object) => ({ 'os-extend-replication-volumes': value })
  const path = `${GROUPS}/${group}/action`
  const sizes = async ({ az1, az2 }: Made) => {
    const shown = [az1, az2].map((id) => region.ok('GET', `/v2/{project}/volumes/${id}`))
    return (await Promise.all(shown)).map(({ volume }) => volume.size)
  }
  const list = [
    { id: first.pair, new_size: 2 },
    { id: second.pair, new_size: 3 },
  ]
  assert.equal((await region.call('POST', path, extend({ replications: list }))).status, 200)
  assert.deepEqual(
    [await sizes(first), await sizes(second)],
    [
      [2, 2],
      [3, 3],
    ],
  )
  await until(() => showGroup(group), ACTIVE)
  const client = await region.nbd('az1', first.pair)
  assert.equal(client.sizeBytes, 2 * 1_073_741_824)
  await client.write(client.sizeBytes - 4096, Buffer.alloc(4096, 7))
  await client.disconnect()
  await refused(400, 'EVS.1015', 'POST', path, extend({ replications: list }))
  await refused(400, 'EVS.1015', 'POST', path, extend({ id: second.pair, new_size: 2 }))
  await refused(400, 'EVS.1010', 'POST', path, extend({ id: second.pair, new_size: 40_000 }))
  await refused(400, 'EVS.5400', 'POST', path, extend({ id: group, new_size: 4 }))
  // A part that is done already does not stand against the rest.
  list[1] = { id: second.pair, new_size: 4 }
  await region.ok('POST', path, extend({ replications: list }))
  await act(group, 'stop')
  await region.ok('POST', path, extend({ id: first.pair, new_size: 3 }))
  assert.deepEqual(
    [await sizes(first), await sizes(second)],
    [
      [3, 3],
      [4, 4],
    ],
  )
  await until(() => showGroup(group), PAUSED)
  await act(group, 'sync')
  await groupActive(group)
  await act(group, 'failover')
  await until(() => showGroup(group), { status: 'failovered' }, ['failovering'])
  await refused(409, 'EVS.5400', 'POST', path, extend({ id: first.pair, new_size: 5 }))
  const other = await region.nbd('az2', first.pair)
  assert.deepEqual(await other.read(2 * 1_073_741_824 - 4096, 4096), Buffer.alloc(4096, 7))
  await other.disconnect()
  await act(group, 'reprotect')
  await groupActive(group, ['failovered'])
  await removeGroup(group)
})

test('what cannot be a pair, a group or an action is refused with its reason, and changes nothing', async () => {
  const made = await makePair('guards-a')
  const third = await region.volume('guards-c')
  const large = await region.volume('guards-large', 2, 'az2')
  const free = await region.volume('guards-free', 1, 'az2')
  const unknown = '00000000-0000-4000-8000-000000000000'
  const pairWith = async (status: number, code: string, ids: unknown, more: object = {}) =>
    await refused(status, code, 'POST', PAIRS, body('az1', ids as string[], more))
  await pairWith(404, 'EVS.5404', [third, unknown])
  await pairWith(400, 'EVS.5400', [third, made.az1])
  await pairWith(400, 'EVS.2089', [third, made.az2])
  await pairWith(400, 'EVS.2089', [made.az1, free])
  assert.match(await pairWith(400, 'EVS.5400', [third, large]), /37100041/)
  const flag = async (readonly: boolean) =>
    await region.ok(
      'POST',
      `/v2/{project}/volumes/${free}/action`,
      { 'os-update_readonly_flag': { readonly } },
      202,
    )
  await flag(true)
  assert.match(await pairWith(409, 'EVS.5400', [third, free]), /read-only/)
  await flag(false)
  await pairWith(400, 'EVS.5400', [third, free], { priority_station: 'az3' })
  await pairWith(400, 'EVS.5400', [third, free], { replication_model: 'async' })
  await pairWith(400, 'EVS.5400', [third])
  await pairWith(400, 'EVS.5400', [third, third])
  await pairWith(400, 'EVS.5400', `${third},${free}`)
  await pairWith(400, 'EVS.1003', [third, free], { name: 'é'.repeat(128) })
  await pairWith(400, 'EVS.5400', [third, free], { arbitration: { mode: 'dice' } })
  await refused(400, 'EVS.5400', 'POST', PAIRS, { pair: {} })
  await refused(400, 'EVS.2089', 'DELETE', `/v2/{project}/volumes/${made.az2}`)
  await refused(400, 'EVS.2089', 'POST', `/v2/{project}/volumes/${made.az1}/action`, {
    'os-extend': { new_size: 2 },
  })
  const attached = { 'os-attach': { instance_uuid: unknown, mountpoint: '/dev/vdb' } }
  await region.ok('POST', `/v2/{project}/volumes/${free}/action`, attached, 202)
  assert.match(await pairWith(409, 'EVS.5400', [third, free]), /37100058/)

  const groupOf = async (status: number, code: string, ids: unknown, more: object = {}) =>
    await refused(status, code, 'POST', GROUPS, {
      replication_consistency_group: {
        replication_ids: ids,
        priority_station: 'az1',
        replication_model: 'hypermetro',
        ...more,
      },
    })
  await groupOf(400, 'EVS.5400', [])
  await groupOf(404, 'EVS.5404', [unknown])
  await groupOf(400, 'EVS.5400', [made.pair], { priority_station: 'az2' })
  await groupOf(400, 'EVS.5400', [made.pair, made.pair])
  const group = await makeGroup('guards', [made.pair])
  await groupOf(409, 'EVS.5400', [made.pair])
  await refused(409, 'EVS.5400', 'DELETE', `${PAIRS}/${made.pair}`)
  await refused(409, 'EVS.5400', 'DELETE', `${GROUPS}/${group}`)
  const path = `${GROUPS}/${group}/action`
  const action = (name: string) => ({ [`os-${name}-replication-consistency-group`]: null })
  await refused(409, 'EVS.5400', 'POST', path, action('reprotect'))
  await refused(400, 'EVS.5400', 'POST', path, action('explode'))
  await refused(400, 'EVS.5400', 'POST', path, { ...action('sync'), ...action('stop') })
  await refused(404, 'EVS.5404', 'POST', `${GROUPS}/${unknown}/action`, action('sync'))
  await write('az1', made.pair, 'before the pause')
  await act(group, 'stop')
  await refused(409, 'EVS.5400', 'POST', path, action('reverse'))
  assert.match(await refused(409, 'EVS.5400', 'POST', path, action('failover')), /paused.*force/)
  await refused(400, 'EVS.5400', 'PUT', `${GROUPS}/${group}`, {
    replication_consistency_group: { remove_replication_ids: [unknown] },
  })
  await refused(400, 'EVS.5400', 'PUT', `${GROUPS}/${group}`, {
    replication_consistency_group: {},
  })

  // By force it goes to what the DR disks held then, and what production wrote since is kept until somebody deletes it.
  await write('az1', made.az1, 'after the pause')
  await act(group, 'failover', { force: true })
  const over = await until(() => showGroup(group), OVER, ['failovering', 'available'])
  assert.equal(over['priority_station'], 'az2')
  assert.equal(await read('az2', made.az2), 'before the pause')
  await region.refuses('az1', made.az1)
  await write('az2', made.az2, 'at the other site')
  await act(group, 'reprotect')
  await groupActive(group, ['failovered', 'active-stopped', 'inactive'])
  assert.equal(await read('az2', made.pair), 'at the other site')
  await region.refuses('az1', made.az1)
  const kept = region.plane.store.db
    .selectFrom('snapshots')
    .select(['site', 'volumes', 'status'])
    .where('group_id', '=', group)
  assert.deepEqual(await kept.execute(), [
    { site: 'az1', volumes: JSON.stringify([made.az1]), status: 'available' },
  ])
  await act(group, 'stop')

  for (const [method, way, status] of [
    ['GET', `${PAIRS}/detail`, 404],
    ['GET', `${GROUPS}/detail`, 404],
    ['PUT', `${PAIRS}/${made.pair}`, 405],
    ['POST', `${PAIRS}/${made.pair}/action`, 404],
  ] as const) {
    assert.equal((await region.call(method, way, method === 'GET' ? undefined : {})).status, status)
  }
  for (const way of [`${PAIRS}/${made.pair}`, `${GROUPS}/${group}`]) {
    const strange = way.replace('{project}', 'b'.repeat(32))
    assert.equal((await region.call('GET', strange, undefined, 'stranger')).status, 404)
    assert.equal((await region.call('DELETE', way, undefined, 'reader')).status, 403)
  }
  await removeGroup(group)
})

test('a pair of SDRS is shown here and not managed, and the other way round', async () => {
  const volume = await region.volume('theirs')
  const sdrs = await region.group('theirs')
  const theirs = await region.pair(sdrs, volume, 'theirs')
  const ours = await makePair('ours')
  const shown = await showPair(theirs)
  assert.equal(shown.replication_consistency_group_id, null)
  assert.deepEqual(JSON.parse(shown.record_metadata), {
    volume_size: 1,
    volume_type: 'SSD',
    multiattach: false,
    managed_by: 'sdrs',
    server_group_id: sdrs,
  })
  const { replications } = await region.ok('GET', `${PAIRS}?name=theirs`)
  assert.deepEqual(replications, [shown])
  assert.match(await refused(409, 'EVS.5400', 'DELETE', `${PAIRS}/${theirs}`), /SDRS/)
  await refused(409, 'EVS.5400', 'POST', GROUPS, {
    replication_consistency_group: {
      replication_ids: [theirs],
      priority_station: 'az1',
      replication_model: 'hypermetro',
    },
  })
  const action = { 'os-sync-replication-consistency-group': null }
  await refused(404, 'EVS.5404', 'POST', `${GROUPS}/${sdrs}/action`, action)
  assert.equal((await region.call('GET', `${GROUPS}/${sdrs}`)).status, 404)

  const group = await makeGroup('ours', [ours.pair])
  const { server_groups } = await region.ok('GET', '/v1/{project}/server-groups')
  assert.deepEqual(
    server_groups.map((one: { id: string }) => one.id),
    [sdrs],
  )
  const listed = await region.ok('GET', '/v1/{project}/replications')
  assert.deepEqual(
    listed.replications.map((one: { id: string }) => one.id),
    [theirs],
  )
  await refused(404, 'SDRS.1608', 'GET', `/v1/{project}/replications/${ours.pair}`)
  await refused(404, 'SDRS.1608', 'DELETE', `/v1/{project}/replications/${ours.pair}`, {})
  await refused(404, 'SDRS.1013', 'GET', `/v1/{project}/server-groups/${group}`)
  await refused(404, 'SDRS.1013', 'POST', `/v1/{project}/server-groups/${group}/action`, {
    'stop-server-group': {},
  })
  const taken = { replication: { server_group_id: sdrs, volume_id: ours.az1, name: 'taken' } }
  await refused(400, 'SDRS.1811', 'POST', '/v1/{project}/replications', taken)
  await refused(400, 'EVS.2089', 'POST', PAIRS, body('az1', [volume, ours.az2]))
  await removeGroup(group)
  await region.job('DELETE', `/v1/{project}/replications/${theirs}`, {})
  await region.job('DELETE', `/v1/{project}/server-groups/${sdrs}`)
})

test('the arbitration of a group is chosen when it is made, and its preferred site is the priority station', async () => {
  const mode = { arbitration: { mode: 'static-priority' } }
  const made = await makePair('prefers', mode)
  const { db } = region.plane.store
  const recordOf = async (session: string) => {
    const record = await region.plane.witness.record(session)
    return [record?.mode, record?.preferred]
  }
  const lone = async () => {
    const query = db.selectFrom('replication_pairs').select('group_id').where('id', '=', made.pair)
    return (await query.executeTakeFirstOrThrow()).group_id
  }
  assert.deepEqual(await recordOf(await lone()), ['static-priority', 'az1'])
  // A group has its own: by the witness, unless it says otherwise.
  const group = await makeGroup('prefers', [made.pair])
  assert.deepEqual(await recordOf(group), ['witness', 'az1'])
  await removeGroup(group)

  const again = await makePair('prefers-2')
  const other = await makeGroup('prefers-2', [again.pair], mode)
  assert.deepEqual(await recordOf(other), ['static-priority', 'az1'])
  await act(other, 'reverse')
  await groupActive(other, ['reversing'])
  await region.until('the other site is preferred', async () => {
    return JSON.stringify(await recordOf(other)) === '["static-priority","az2"]'
  })
  await groupActive(other)
  await removeGroup(other)
})

test('a lost DR site forbids a failover, a lost production site advises it, and a site that is away fails what needs both', async () => {
  const made = await makePair('trouble-a')
  const lone = await makePair('trouble-b')
  const az1 = await region.volume('trouble-c')
  const az2 = await region.volume('trouble-d', 1, 'az2')
  const group = await makeGroup('trouble', [made.pair])
  const path = `${GROUPS}/${group}/action`
  const failover = { 'os-failover-replication-consistency-group': null }
  const reprotect = { 'os-reprotect-replication-consistency-group': null }
  const faultLevel = (level: string) =>
    region.until(`fault level ${level}`, async () => {
      const { fault_level: seen } = await showGroup(group)
      return seen === level && (await showPair(made.pair)).fault_level === level
    })
  await write('az1', made.pair, 'acknowledged')

  await region.stopSite('az2')
  await faultLevel('5')
  assert.equal((await showGroup(group)).replication_status, 'inactive')
  assert.notEqual((await showPair(made.pair)).progress, '100')
  await refused(409, 'EVS.5400', 'POST', path, failover)
  await refused(409, 'EVS.5400', 'POST', path, {
    'os-failover-replication-consistency-group': { force: true },
  })
  const failed = (await region.ok('POST', PAIRS, body('az1', [az1, az2]), 202)).replication.id
  const pairError = await until(() => showPair(failed), { status: 'error' }, ['creating'])
  assert.deepEqual(
    [pairError['failure_detail'], pairError['replication_status'], pairError['progress']],
    ['37100043', 'error', null],
  )
  await deletePair(failed)
  const { replication_consistency_group: none } = await region.ok(
    'POST',
    GROUPS,
    {
      replication_consistency_group: {
        name: 'none',
        replication_ids: [lone.pair],
        priority_station: 'az1',
        replication_model: 'hypermetro',
      },
    },
    202,
  )
  const groupError = await until(() => showGroup(none.id), { status: 'error' }, ['creating'])
  assert.deepEqual([groupError['failure_detail'], groupError['replication_ids']], ['37100043', []])
  await region.ok('DELETE', `${GROUPS}/${none.id}`, undefined, 202)
  await gone(`${GROUPS}/${none.id}`)
  const kept = await showPair(lone.pair)
  assert.deepEqual([kept.status, kept.replication_consistency_group_id], ['available', null])
  assert.equal(await read('az1', made.pair), 'acknowledged')
  await region.startSite('az2')
  await region.until('both are in sync again', async () => {
    const shown = [await showPair(lone.pair), await showPair(made.pair)]
    return shown.every((one) => one.replication_status === 'active')
  })

  const paused = await makeGroup('trouble-paused', [lone.pair])
  await write('az1', lone.pair, 'before the pause')
  await act(paused, 'stop')
  await write('az1', lone.az1, 'after the pause')

  await region.stopSite('az1')
  await faultLevel('2')
  await refused(409, 'EVS.5400', 'POST', path, {
    'os-stop-replication-consistency-group': null,
  })
  await act(group, 'failover')
  const over = await until(() => showGroup(group), { status: 'failovered' }, ['failovering'])
  assert.deepEqual([over['priority_station'], over['fault_level']], ['az2', '0'])
  assert.equal(await read('az2', made.pair), 'acknowledged')
  await write('az2', made.pair, 'at the other site')
  assert.match(await refused(409, 'EVS.5400', 'POST', path, reprotect), /az1/)
  const pausedPath = `${GROUPS}/${paused}/action`
  assert.match(await refused(409, 'EVS.5400', 'POST', pausedPath, failover), /since .*"force"/)
  await act(paused, 'failover', { force: true })
  await until(() => showGroup(paused), OVER, ['failovering', 'available'])
  assert.equal(await read('az2', lone.az2), 'before the pause')
  await write('az2', lone.az2, 'without production')
  await region.startSite('az1')
  await region.until('az1 is heard', async () => region.plane.agents.heard('az1'))
  // It waits until what the old production wrote has been kept.
  await act(paused, 'reprotect')
  await groupActive(paused, ['failovered', 'active-stopped', 'inactive'])
  await region.refuses('az1', lone.az1)
  assert.equal(await read('az2', lone.pair), 'without production')
  const snapshots = region.plane.store.db.selectFrom('snapshots').select('status')
  const { status } = await snapshots.where('group_id', '=', paused).executeTakeFirstOrThrow()
  assert.equal(status, 'available')
  await act(group, 'reprotect')
  await groupActive(group, ['failovered', 'inactive'])
  await act(group, 'reverse')
  await groupActive(group, ['reversing'])
  assert.equal(await read('az1', made.pair), 'at the other site')
  await removeGroup(group)
})
