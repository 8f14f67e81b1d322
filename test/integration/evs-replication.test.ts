import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { requestGroupCommand } from '#control/operations/definitions/protection/group-requests.ts'
import {
  ACTIVE,
  EvsReplications,
  GROUPS,
  type Made,
  OVER,
  PAIRS,
  PAUSED,
  pairOf,
} from '../support/evs-replications.ts'
import { PROJECT, Region } from '../support/region.ts'
import { testRefusals } from './evs-replication/refusals.ts'

/**
 * Replication pairs and consistency groups of the volume API on real agents, with data: the life of both, what each action does to the
 * disks of both sites, and what is refused. Every answer is held against the contract by the region.
 */
let region: Region
let evs: EvsReplications
before(async () => {
  region = await Region.start()
  evs = new EvsReplications(region)
})
after(async () => await region.stop())

const STAMP = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}$/

test('a pair of two disks replicates by itself, and leaves both behind with their data', async () => {
  const az1 = await region.volume('alone-1')
  const az2 = await region.volume('alone-2', 1, 'az2')
  await region.write('az1', az1, 'before the pair')
  await region.write('az2', az2, 'is overwritten')
  const request = pairOf('az1', [az2, az1])
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
  const shown = await evs.pairActive(made.id)
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
  await region.write('az1', made.id, 'through the pair')
  assert.equal(await region.read('az1', az1), 'through the pair')
  await evs.deletePair(made.id)
  assert.equal(await region.read('az1', az1), 'through the pair')
  assert.equal(await region.read('az2', az2), 'through the pair')
})

test('a consistency group goes through every action back to nothing, and the data of both its pairs with it', async () => {
  const one = await evs.makePair('life-a')
  const two = await evs.makePair('life-b')
  await region.write('az1', one.pair, 'a0')
  await region.write('az1', two.pair, 'b0')
  const group = await evs.makeGroup('life', [one.pair, two.pair])
  const both = async (site: 'az1' | 'az2', text: string) => {
    const other = site === 'az1' ? 'az2' : 'az1'
    assert.deepEqual(
      [await region.read(site, one.pair), await region.read(site, two.pair)],
      [`a${text}`, `b${text}`],
    )
    await region.refuses(other, one.pair)
    await region.refuses(other, two[other])
  }
  const writeBoth = async (site: string, text: string) => {
    await region.write(site, one.pair, `a${text}`)
    await region.write(site, two.pair, `b${text}`)
  }
  assert.deepEqual((await evs.showGroup(group)).replication_ids, [one.pair, two.pair])
  assert.equal((await evs.showPair(one.pair)).replication_consistency_group_id, group)
  await both('az1', '0')
  await writeBoth('az1', '1')

  await evs.act(group, 'reverse')
  const reversed = await evs.groupActive(group, ['reversing'])
  assert.equal(reversed['priority_station'], 'az2')
  assert.equal((await evs.showPair(two.pair)).priority_station, 'az2')
  assert.equal((await evs.showPair(one.pair)).volume_ids, `${one.az1},${one.az2}`)
  await both('az2', '1')
  await writeBoth('az2', '2')

  await evs.act(group, 'failover')
  const over = await evs.until(
    () => evs.showGroup(group),
    { status: 'failovered', replication_status: 'active-stopped' },
    ['failovering', 'active', 'inactive', 'copying'],
  )
  assert.equal(over['priority_station'], 'az1')
  await both('az1', '2')
  await writeBoth('az1', '3')
  await evs.refused(409, 'EVS.5400', 'POST', `${GROUPS}/${group}/action`, {
    'os-sync-replication-consistency-group': null,
  })

  await evs.act(group, 'reprotect')
  await evs.groupActive(group, ['failovered'])
  await both('az1', '3')

  await evs.act(group, 'stop')
  await evs.until(() => evs.showGroup(group), PAUSED)
  await evs.until(() => evs.showPair(one.pair), PAUSED)
  assert.equal((await evs.showPair(one.pair)).progress, '100')
  await writeBoth('az1', '4')
  await evs.act(group, 'stop', {})
  await evs.act(group, 'sync')
  assert.equal((await evs.showGroup(group)).replication_status, 'copying')
  await evs.groupActive(group)
  await evs.act(group, 'sync')
  await evs.act(group, 'failover', {})
  await evs.until(() => evs.showGroup(group), { status: 'failovered' }, ['failovering'])
  await both('az2', '4')
  await evs.act(group, 'reprotect', {})
  await evs.groupActive(group, ['failovered'])
  await evs.act(group, 'reverse', {})
  await evs.groupActive(group, ['reversing'])
  await both('az1', '4')
  await evs.removeGroup(group)
  for (const disk of [one.az1, one.az2]) {
    assert.equal(await region.read(disk === one.az1 ? 'az1' : 'az2', disk), 'a4')
  }
})

test('pairs come into a paused group and leave it, and what leaves replicates by itself again', async () => {
  const first = await evs.makePair('come-a')
  const second = await evs.makePair('come-b')
  const group = await evs.makeGroup('come', [first.pair])
  await region.write('az1', second.pair, 'b')
  const update = (change: object) => [
    'PUT',
    `${GROUPS}/${group}`,
    { replication_consistency_group: change },
  ]
  const put = update({ add_replication_ids: [second.pair] }) as [string, string, object]
  assert.match(await evs.refused(409, 'EVS.5400', ...put), /os-stop/)
  // A name alone needs no pause.
  const rename = update({ name: 'renamed', description: 'why' }) as [string, string, object]
  const renamed = await region.ok(...rename, 202)
  assert.equal(renamed.replication_consistency_group.status, 'available')
  assert.equal((await evs.showGroup(group)).name, 'renamed')

  await evs.act(group, 'stop')
  await region.write('az1', first.az1, 'a while paused')
  const added = await region.ok(...put, 202)
  assert.equal(added.replication_consistency_group.status, 'updating')
  await evs.until(() => evs.showGroup(group), PAUSED, ['updating'])
  assert.deepEqual((await evs.showGroup(group)).replication_ids, [first.pair, second.pair])
  await evs.until(() => evs.showPair(second.pair), PAUSED)
  await evs.act(group, 'sync')
  await evs.groupActive(group)
  await evs.act(group, 'reverse')
  await evs.groupActive(group, ['reversing'])
  assert.equal(await region.read('az2', first.pair), 'a while paused')
  assert.equal(await region.read('az2', second.pair), 'b')

  // The pair that leaves keeps production where the group has it.
  await evs.act(group, 'stop')
  await region.write('az2', first.az2, 'a at the other site')
  const leave = update({ remove_replication_ids: [first.pair] }) as [string, string, object]
  await region.ok(...leave, 202)
  await evs.until(() => evs.showGroup(group), PAUSED, ['updating'])
  const alone = await evs.pairActive(first.pair)
  assert.equal(alone['replication_consistency_group_id'], null)
  assert.equal(alone['priority_station'], 'az2')
  assert.equal(alone['volume_ids'], `${first.az1},${first.az2}`)
  assert.equal(await region.read('az2', first.pair), 'a at the other site')

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
  await evs.groupActive(other.id)
  assert.equal((await evs.showPair(first.pair)).volume_ids, `${first.az1},${first.az2}`)
  await evs.act(other.id, 'failover')
  await evs.until(() => evs.showGroup(other.id), { status: 'failovered' }, ['failovering'])
  assert.equal(await region.read('az1', first.pair), 'a at the other site')
  await evs.act(other.id, 'reprotect')
  await evs.groupActive(other.id, ['failovered'])
  await evs.removeGroup(other.id)
  await evs.removeGroup(group)
})

test('a pair whose own session is stopped already comes into a group, and is equal again there', async () => {
  const made = await evs.makePair('stopped')
  const { plane } = region
  await evs.quiet()
  const { group_id: lone } = await plane.store.db
    .selectFrom('replication_pairs')
    .select('group_id')
    .where('id', '=', made.pair)
    .executeTakeFirstOrThrow()
  const services = { ...plane, ...plane.services, agentSilenceMs: 1_000, sites: ['az1', 'az2'] }
  const stopped = await requestGroupCommand(services, PROJECT, lone, { kind: 'stop' })
  assert.ok(stopped.ok, JSON.stringify(stopped))
  await plane.operations.waitFor(stopped.operation)
  await evs.until(() => evs.showPair(made.pair), PAUSED)
  await region.write('az1', made.az1, 'while stopped')
  const group = await evs.makeGroup('stopped', [made.pair])
  await evs.act(group, 'failover')
  await evs.until(() => evs.showGroup(group), { status: 'failovered' }, ['failovering'])
  assert.equal(await region.read('az2', made.pair), 'while stopped')
  await evs.act(group, 'reprotect')
  await evs.groupActive(group, ['failovered'])
  await evs.removeGroup(group)
})

test('both disks of several pairs grow in one call, in either form of it, and the states stay', async () => {
  const first = await evs.makePair('grow-a')
  const second = await evs.makePair('grow-b')
  const group = await evs.makeGroup('grow', [first.pair, second.pair])
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
  await evs.until(() => evs.showGroup(group), ACTIVE)
  const client = await region.nbd('az1', first.pair)
  assert.equal(client.sizeBytes, 2 * 1_073_741_824)
  await client.write(client.sizeBytes - 4096, Buffer.alloc(4096, 7))
  await client.disconnect()
  await evs.refused(400, 'EVS.1015', 'POST', path, extend({ replications: list }))
  await evs.refused(400, 'EVS.1015', 'POST', path, extend({ id: second.pair, new_size: 2 }))
  await evs.refused(400, 'EVS.1010', 'POST', path, extend({ id: second.pair, new_size: 40_000 }))
  await evs.refused(400, 'EVS.5400', 'POST', path, extend({ id: group, new_size: 4 }))
  // A part that is done already does not stand against the rest.
  list[1] = { id: second.pair, new_size: 4 }
  await region.ok('POST', path, extend({ replications: list }))
  await evs.act(group, 'stop')
  await region.ok('POST', path, extend({ id: first.pair, new_size: 3 }))
  assert.deepEqual(
    [await sizes(first), await sizes(second)],
    [
      [3, 3],
      [4, 4],
    ],
  )
  await evs.until(() => evs.showGroup(group), PAUSED)
  await evs.act(group, 'sync')
  await evs.groupActive(group)
  await evs.act(group, 'failover')
  await evs.until(() => evs.showGroup(group), { status: 'failovered' }, ['failovering'])
  await evs.refused(409, 'EVS.5400', 'POST', path, extend({ id: first.pair, new_size: 5 }))
  const other = await region.nbd('az2', first.pair)
  assert.deepEqual(await other.read(2 * 1_073_741_824 - 4096, 4096), Buffer.alloc(4096, 7))
  await other.disconnect()
  await evs.act(group, 'reprotect')
  await evs.groupActive(group, ['failovered'])
  await evs.removeGroup(group)
})

testRefusals(() => evs)

test('a pair of SDRS is shown here and not managed, and the other way round', async () => {
  const volume = await region.volume('theirs')
  const sdrs = await region.group('theirs')
  const theirs = await region.pair(sdrs, volume, 'theirs')
  const ours = await evs.makePair('ours')
  const shown = await evs.showPair(theirs)
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
  assert.match(await evs.refused(409, 'EVS.5400', 'DELETE', `${PAIRS}/${theirs}`), /SDRS/)
  await evs.refused(409, 'EVS.5400', 'POST', GROUPS, {
    replication_consistency_group: {
      replication_ids: [theirs],
      priority_station: 'az1',
      replication_model: 'hypermetro',
    },
  })
  const action = { 'os-sync-replication-consistency-group': null }
  await evs.refused(404, 'EVS.5404', 'POST', `${GROUPS}/${sdrs}/action`, action)
  assert.equal((await region.call('GET', `${GROUPS}/${sdrs}`)).status, 404)

  const group = await evs.makeGroup('ours', [ours.pair])
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
  await evs.refused(404, 'SDRS.1608', 'GET', `/v1/{project}/replications/${ours.pair}`)
  await evs.refused(404, 'SDRS.1608', 'DELETE', `/v1/{project}/replications/${ours.pair}`, {})
  await evs.refused(404, 'SDRS.1013', 'GET', `/v1/{project}/server-groups/${group}`)
  await evs.refused(404, 'SDRS.1013', 'POST', `/v1/{project}/server-groups/${group}/action`, {
    'stop-server-group': {},
  })
  const taken = { replication: { server_group_id: sdrs, volume_id: ours.az1, name: 'taken' } }
  await evs.refused(400, 'SDRS.1811', 'POST', '/v1/{project}/replications', taken)
  await evs.refused(400, 'EVS.2089', 'POST', PAIRS, pairOf('az1', [volume, ours.az2]))
  await evs.removeGroup(group)
  await region.job('DELETE', `/v1/{project}/replications/${theirs}`, {})
  await region.job('DELETE', `/v1/{project}/server-groups/${sdrs}`)
})

test('the arbitration of a group is chosen when it is made, and its preferred site is the priority station', async () => {
  const mode = { arbitration: { mode: 'static-priority' } }
  const made = await evs.makePair('prefers', mode)
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
  const group = await evs.makeGroup('prefers', [made.pair])
  assert.deepEqual(await recordOf(group), ['witness', 'az1'])
  await evs.removeGroup(group)

  const again = await evs.makePair('prefers-2')
  const other = await evs.makeGroup('prefers-2', [again.pair], mode)
  assert.deepEqual(await recordOf(other), ['static-priority', 'az1'])
  await evs.act(other, 'reverse')
  await evs.groupActive(other, ['reversing'])
  await region.until('the other site is preferred', async () => {
    return JSON.stringify(await recordOf(other)) === '["static-priority","az2"]'
  })
  await evs.groupActive(other)
  await evs.removeGroup(other)
})

test('a lost DR site forbids a failover, a lost production site advises it, and a site that is away fails what needs both', async () => {
  const made = await evs.makePair('trouble-a')
  const lone = await evs.makePair('trouble-b')
  const az1 = await region.volume('trouble-c')
  const az2 = await region.volume('trouble-d', 1, 'az2')
  const group = await evs.makeGroup('trouble', [made.pair])
  const path = `${GROUPS}/${group}/action`
  const failover = { 'os-failover-replication-consistency-group': null }
  const reprotect = { 'os-reprotect-replication-consistency-group': null }
  const faultLevel = (level: string) =>
    region.until(`fault level ${level}`, async () => {
      const { fault_level: seen } = await evs.showGroup(group)
      return seen === level && (await evs.showPair(made.pair)).fault_level === level
    })
  await region.write('az1', made.pair, 'acknowledged')

  await region.stopSite('az2')
  await faultLevel('5')
  assert.equal((await evs.showGroup(group)).replication_status, 'inactive')
  assert.notEqual((await evs.showPair(made.pair)).progress, '100')
  await evs.refused(409, 'EVS.5400', 'POST', path, failover)
  await evs.refused(409, 'EVS.5400', 'POST', path, {
    'os-failover-replication-consistency-group': { force: true },
  })
  const failed = (await region.ok('POST', PAIRS, pairOf('az1', [az1, az2]), 202)).replication.id
  const pairError = await evs.until(() => evs.showPair(failed), { status: 'error' }, ['creating'])
  assert.deepEqual(
    [pairError['failure_detail'], pairError['replication_status'], pairError['progress']],
    ['37100043', 'error', null],
  )
  await evs.deletePair(failed)
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
  const groupError = await evs.until(() => evs.showGroup(none.id), { status: 'error' }, [
    'creating',
  ])
  assert.deepEqual([groupError['failure_detail'], groupError['replication_ids']], ['37100043', []])
  await region.ok('DELETE', `${GROUPS}/${none.id}`, undefined, 202)
  await evs.gone(`${GROUPS}/${none.id}`)
  const kept = await evs.showPair(lone.pair)
  assert.deepEqual([kept.status, kept.replication_consistency_group_id], ['available', null])
  assert.equal(await region.read('az1', made.pair), 'acknowledged')
  await region.startSite('az2')
  await region.until('both are in sync again', async () => {
    const shown = [await evs.showPair(lone.pair), await evs.showPair(made.pair)]
    return shown.every((one) => one.replication_status === 'active')
  })

  const paused = await evs.makeGroup('trouble-paused', [lone.pair])
  await region.write('az1', lone.pair, 'before the pause')
  await evs.act(paused, 'stop')
  await region.write('az1', lone.az1, 'after the pause')

  await region.stopSite('az1')
  await faultLevel('2')
  await evs.refused(409, 'EVS.5400', 'POST', path, {
    'os-stop-replication-consistency-group': null,
  })
  await evs.act(group, 'failover')
  const over = await evs.until(() => evs.showGroup(group), { status: 'failovered' }, [
    'failovering',
  ])
  assert.deepEqual([over['priority_station'], over['fault_level']], ['az2', '0'])
  assert.equal(await region.read('az2', made.pair), 'acknowledged')
  await region.write('az2', made.pair, 'at the other site')
  assert.match(await evs.refused(409, 'EVS.5400', 'POST', path, reprotect), /az1/)
  const pausedPath = `${GROUPS}/${paused}/action`
  assert.match(await evs.refused(409, 'EVS.5400', 'POST', pausedPath, failover), /since .*"force"/)
  await evs.act(paused, 'failover', { force: true })
  await evs.until(() => evs.showGroup(paused), OVER, ['failovering', 'available'])
  assert.equal(await region.read('az2', lone.az2), 'before the pause')
  await region.write('az2', lone.az2, 'without production')
  await region.startSite('az1')
  await region.until('az1 is heard', async () => region.plane.agents.heard('az1'))
  // It waits until what the old production wrote has been kept.
  await evs.act(paused, 'reprotect')
  await evs.groupActive(paused, ['failovered', 'active-stopped', 'inactive'])
  await region.refuses('az1', lone.az1)
  assert.equal(await region.read('az2', lone.pair), 'without production')
  const snapshots = region.plane.store.db.selectFrom('snapshots').select('status')
  const { status } = await snapshots.where('group_id', '=', paused).executeTakeFirstOrThrow()
  assert.equal(status, 'available')
  await evs.act(group, 'reprotect')
  await evs.groupActive(group, ['failovered', 'inactive'])
  await evs.act(group, 'reverse')
  await evs.groupActive(group, ['reversing'])
  assert.equal(await region.read('az1', made.pair), 'at the other site')
  await evs.removeGroup(group)
})
