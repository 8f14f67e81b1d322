import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { locate } from '#control/operations/definitions/directory.ts'
import { PROJECT, Region } from '../support/region.ts'

/** The life of groups on real agents, with data: protect, switch, fail over, come back, and sites that are away. */
const MIB = 1024 * 1024
/** Bytes per second of copies: nothing of what most tests write, and time enough to die in the middle of one. */
const COPY_RATE = 2 * MIB
const run = promisify(execFile)

let region: Region
before(async () => {
  region = await Region.start({ agent: { syncRateBytes: COPY_RATE } })
})
after(async () => await region.stop())

const ACTION = (group: string) => `/v1/{project}/server-groups/${group}/action`

/** A protected group of one pair that is in sync. */
async function protectedGroup(name: string) {
  const volume = await region.volume(name)
  const group = await region.group(name)
  const pair = await region.pair(group, volume, name)
  await region.act(group, 'start-server-group')
  await region.inSync(pair)
  const target = (await region.showPair(pair)).volume_ids.split(',')[1] as string
  return { volume, target, group, pair }
}

async function remove({ group, pair }: { group: string; pair: string }): Promise<void> {
  await region.job('DELETE', `/v1/{project}/replications/${pair}`, {})
  await region.job('DELETE', `/v1/{project}/server-groups/${group}`)
}

async function refusal(group: string, body: object): Promise<string> {
  const before = await region.snapshot()
  const reply = await region.call('POST', ACTION(group), body)
  assert.equal(reply.status, 400, JSON.stringify(reply.body))
  assert.equal(await region.snapshot(), before)
  return reply.body.error.code as string
}

test('a group goes from creation through every switch back to nothing, and its data with it', async () => {
  const volume = await region.volume('data')
  const group = await region.group()
  const pair = await region.pair(group, volume)
  const target = (await region.showPair(pair)).volume_ids.split(',')[1] as string
  assert.equal((await region.show(group)).status, 'available')
  assert.equal((await region.showPair(pair)).replication_status, 'inactive')
  await region.write('az1', volume, 'before protection')
  await region.refuses('az2', target)

  const start = await region.act(group, 'start-server-group')
  assert.equal(start.job_type, 'startProtectionGroupNoCG')
  const [sub] = start.entities.sub_jobs
  assert.equal(sub.job_type, 'startProtectionGroupRepNoCG')
  assert.equal(sub.entities.replication_pair_id, pair)
  assert.deepEqual(await region.ok('GET', `/v1/{project}/jobs/${sub.job_id}`), sub)
  assert.equal((await region.show(group)).status, 'protected')
  await region.inSync(pair)
  await region.refuses('az2', target)
  await region.refuses('az2', pair)
  await region.write('az1', pair, 'while protected')

  await region.act(group, 'reverse-server-group', { priority_station: 'target' })
  const reversed = await region.show(group)
  assert.deepEqual([reversed.status, reversed.priority_station], ['protected', 'target'])
  assert.equal((await region.showPair(pair)).priority_station, 'target')
  assert.equal(await region.read('az2', pair), 'while protected')
  await region.refuses('az1', pair)
  await region.inSync(pair)
  await region.write('az2', pair, 'after the switch')
  const again = { 'reverse-server-group': { priority_station: 'target' } }
  assert.equal(await refusal(group, again), 'SDRS.0216')
  const deletion = await region.call('DELETE', `/v1/{project}/replications/${pair}`, {
    replication: { delete_target_volume: true },
  })
  assert.equal(deletion.body.error.code, 'SDRS.1809')

  await region.act(group, 'failover-server-group')
  const over = await region.show(group)
  assert.deepEqual([over.status, over.priority_station], ['failed-over', 'source'])
  assert.equal((await region.showPair(pair)).replication_status, 'active-stopped')
  assert.equal(await region.read('az1', pair), 'after the switch')
  await region.refuses('az2', pair)
  assert.equal(await refusal(group, { 'stop-server-group': {} }), 'SDRS.1002')
  await region.write('az1', pair, 'after the failover')

  const reprotect = await region.act(group, 'start-server-group')
  assert.equal(reprotect.job_type, 'reprotectProtectionGroupNoCG')
  await region.inSync(pair)

  await region.act(group, 'stop-server-group')
  assert.equal((await region.show(group)).status, 'available')
  const stopped = await region.showPair(pair)
  assert.deepEqual([stopped.replication_status, stopped.progress], ['active-stopped', 100])
  assert.equal(await region.read('az1', volume), 'after the failover')
  await region.refuses('az2', target)

  const gone = await region.job('DELETE', `/v1/{project}/replications/${pair}`, {
    replication: { delete_target_volume: true },
  })
  assert.deepEqual(gone.entities, {
    server_group_id: group,
    replication_pair_id: pair,
    volume_ids: `${volume},${target}`,
  })
  assert.equal((await region.call('GET', `/v2/{project}/volumes/${target}`)).status, 404)
  await region.job('DELETE', `/v1/{project}/server-groups/${group}`)
  assert.equal((await region.call('GET', `/v1/{project}/server-groups/${group}`)).status, 404)
  assert.equal(await region.read('az1', volume), 'after the failover')
})

test('production dies in the copy after a stop and a start: the other site has every byte of the moment of the stop', async () => {
  const made = await protectedGroup('restarted')
  const atDr = join(region.directory, 'az2', 'volumes', made.target, 'data')
  const atStop = join(region.directory, 'at-stop')
  await region.write('az1', made.pair, 'one')
  await region.act(made.group, 'stop-server-group')
  const stoppedMs = Date.now()
  await run('cp', ['--sparse=always', atDr, atStop])
  await region.write('az1', made.volume, 'two')
  const client = await region.nbd('az1', made.volume)
  for (let at = 0; at < 64 * MIB; at += 2 * MIB) await client.write(at, randomBytes(MIB))
  await client.disconnect()
  await region.act(made.group, 'start-server-group')
  await region.until('the middle of the copy', async () => {
    const [here, there] = ['az1', 'az2'].map((site) =>
      region.plane.agents.session(made.group, site),
    )
    return (here?.status.copy_sent_bytes ?? 0) > MIB && typeof there?.status.kept === 'string'
  })
  await region.stopSite('az1')
  assert.equal(await refusal(made.group, { 'failover-server-group': {} }), 'SDRS.1830')
  const job = await region.act(made.group, 'failover-server-group', { force: true })
  await region.startSite('az1')
  await region.until('heard', async () => region.plane.agents.heard('az1'))
  // Behind it nothing was ever written.
  await run('cmp', ['-n', String(64 * MIB), atDr, atStop])
  const { given_up_at_least: said } = job.entities
  // Whether production has told the witness of writes before it died or not.
  const since =
    /^(?:At least [1-9]\d* bytes|Whatever) .* since ([-\d:.T]+Z)/.exec(said)?.[1] ?? said
  assert.ok(Date.parse(since) <= stoppedMs, `since ${since}, stopped at ${stoppedMs}`)
  await remove(made)
})

test('both disks of a pair grow, while its group is off and while it replicates', async () => {
  const volume = await region.volume('grows')
  const group = await region.group('grows')
  const pair = await region.pair(group, volume, 'grows')
  const expand = async (new_size: number) => {
    const job = await region.job('POST', `/v1/{project}/replications/${pair}/action`, {
      'extend-replication': { new_size },
    })
    assert.equal(job.job_type, 'expandReplicationPairNew')
    const { volume_ids, record_metadata } = await region.showPair(pair)
    assert.equal(record_metadata.volume_size, Math.trunc(new_size))
    for (const id of volume_ids.split(',')) {
      const shown = await region.ok('GET', `/v2/{project}/volumes/${id}`)
      assert.equal(shown.volume.size, Math.trunc(new_size))
    }
  }
  await expand(2)
  await region.act(group, 'start-server-group')
  await region.inSync(pair)
  await expand(3.7)
  assert.equal((await region.showPair(pair)).status, 'protected')
  const client = await region.nbd('az1', pair)
  assert.equal(client.sizeBytes, 3 * 1_073_741_824)
  await client.write(2 * 1_073_741_824, Buffer.alloc(4096, 7))
  await client.disconnect()
  await region.act(group, 'failover-server-group')
  const other = await region.nbd('az2', pair)
  assert.deepEqual(await other.read(2 * 1_073_741_824, 4096), Buffer.alloc(4096, 7))
  await other.disconnect()
  await remove({ group, pair })
})

test('a pair added to a protected group copies by itself, and the first one stays in sync', async () => {
  const made = await protectedGroup('grown')
  const volume = await region.volume('second')
  await region.write('az1', volume, 'second disk')
  const second = await region.pair(made.group, volume, 'second')
  assert.equal((await region.showPair(second)).status, 'protected')
  await region.inSync(second)
  await region.inSync(made.pair)
  await region.write('az1', second, 'replicated')
  await region.act(made.group, 'failover-server-group')
  assert.equal(await region.read('az2', second), 'replicated')
  await region.job('DELETE', `/v1/{project}/replications/${second}`, {})
  await remove(made)
})

test('a pair leaves a protected group: its disks become plain ones, the others go on', async () => {
  const made = await protectedGroup('shrinks')
  const volume = await region.volume('leaves')
  const second = await region.pair(made.group, volume, 'leaves')
  await region.inSync(second)
  await region.write('az1', second, 'kept on both')
  const [, target] = (await region.showPair(second)).volume_ids.split(',')
  await region.job('DELETE', `/v1/{project}/replications/${second}`)
  assert.equal(await region.read('az1', volume), 'kept on both')
  assert.equal(await region.read('az2', target), 'kept on both')
  await region.inSync(made.pair)
  assert.equal((await region.show(made.group)).replication_num, 1)
  await region.job('DELETE', `/v1/{project}/replications/${made.pair}`)
  const empty = await region.show(made.group)
  assert.deepEqual([empty.status, empty.replication_num], ['protected', 0])
  const third = await region.pair(made.group, await region.volume('third'), 'third')
  await region.inSync(third)
  await remove({ group: made.group, pair: third })
})

test('the directory names the side that may write', async () => {
  const made = await protectedGroup('where')
  const where = async (id: string) => await locate(region.plane.services, PROJECT, id)
  const at = async (id: string) => {
    const found = await where(id)
    return found.kind === 'served' ? `${found.site} ${found.export === id}` : found.kind
  }
  assert.equal(await at(made.pair), 'az1 true')
  assert.equal(await at(made.volume), 'az1 true')
  assert.equal(await at(made.target), 'refused')
  assert.equal(await at('00000000-0000-4000-8000-000000000000'), 'unknown')
  await region.act(made.group, 'failover-server-group')
  assert.equal(await at(made.pair), 'az2 true')
  assert.equal(await at(made.volume), 'refused')
  assert.equal(await at(made.target), 'az2 true')
  await region.stopSite('az2')
  const silent = await where(made.pair)
  assert.ok(silent.kind === 'refused' && silent.reason.includes('az2'))
  await region.startSite('az2')
  await region.until('heard', async () => region.plane.agents.heard('az2'))
  await remove(made)
})

test('a dead production site is shown, failed over from, and protected again when it is back', async () => {
  const made = await protectedGroup('disaster')
  await region.write('az1', made.pair, 'acknowledged')
  await region.stopSite('az1')
  const shown = await region.showPair(made.pair)
  assert.deepEqual([shown.fault_level, shown.replication_status], ['2', 'inactive'])
  assert.notEqual(shown.progress, 100)
  assert.equal(await refusal(made.group, { 'stop-server-group': {} }), 'SDRS.1823')
  const reverse = { 'reverse-server-group': { priority_station: 'target' } }
  assert.equal(await refusal(made.group, reverse), 'SDRS.1823')

  await region.act(made.group, 'failover-server-group')
  assert.equal(await region.read('az2', made.pair), 'acknowledged')
  await region.write('az2', made.pair, 'at the other site')

  const failed = await region.jobEnd('POST', ACTION(made.group), { 'start-server-group': {} })
  assert.equal(failed.status, 'FAIL')
  assert.equal(failed.error_code, 'SDRS.1032')
  const [, detail] = failed.fail_reason.split('error : ')
  assert.equal(JSON.parse(detail).badRequest.code, 400)
  assert.equal((await region.show(made.group)).status, 'error-reprotecting')
  assert.equal((await region.showPair(made.pair)).status, 'error-reprotecting')
  assert.equal(await region.read('az2', made.pair), 'at the other site')
  const tasks = '/v1/{project}/task-center'
  const listed = await region.ok('GET', `${tasks}/failure-jobs?server_group_id=${made.group}`)
  assert.equal(listed.count, 1)
  assert.equal(listed.failure_jobs[0].failure_status, 'reprotectFail')
  assert.equal((await region.ok('GET', `${tasks}/failure-jobs`)).count, 0)
  await region.ok('DELETE', `${tasks}/${made.group}/failure-jobs/batch`, undefined, 204)
  const after = await region.ok('GET', `${tasks}/failure-jobs?server_group_id=${made.group}`)
  assert.equal(after.count, 0)

  await region.startSite('az1')
  await region.refuses('az1', made.pair)
  // What the attempt has set going comes to its end by itself.
  await region.until('protected', async () => {
    return (await region.show(made.group)).status === 'protected'
  })
  assert.equal((await region.showPair(made.pair)).status, 'protected')
  await region.inSync(made.pair)
  await region.act(made.group, 'reverse-server-group', { priority_station: 'source' })
  assert.equal(await region.read('az1', made.pair), 'at the other site')
  await remove(made)
})

test('a group stops while its DR site is away, and the site learns of it when it returns', async () => {
  const made = await protectedGroup('halfway')
  const second = await protectedGroup('deleted')
  await region.stopSite('az2')
  await region.act(made.group, 'stop-server-group')
  await region.write('az1', made.volume, 'alone')
  const job = await region.job('DELETE', `/v1/{project}/replications/${second.pair}`, {
    replication: { delete_target_volume: true },
  })
  assert.equal(job.entities.replication_pair_id, second.pair)
  await region.job('DELETE', `/v1/{project}/server-groups/${second.group}`)
  await region.startSite('az2')
  await region.until('the sessions are gone at the DR site', async () => {
    const { agents } = region.plane
    const known = [made.group, second.group].some((id) => agents.session(id, 'az2') !== null)
    return agents.heard('az2') && !known
  })
  await region.until('the chores are done', async () => {
    return (
      (await region.plane.store.db.selectFrom('site_chores').selectAll().execute()).length === 0
    )
  })
  await region.refuses('az2', made.target)
  await region.act(made.group, 'start-server-group')
  await region.inSync(made.pair)
  await region.act(made.group, 'failover-server-group')
  assert.equal(await region.read('az2', made.pair), 'alone')
  await remove(made)
})
