/** Every kind of answer, decoded as strictly as Go decodes it: over rows, so that each has all of its members. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { newId } from '#base/ids.ts'
import { rememberRpoPoint } from '#control/resources/rpo.ts'
import { setTags } from '#control/resources/tags.ts'
import { ApiLab } from '../support/api.ts'
import {
  assertGo,
  type GoType,
  SDRS_DOMAIN,
  SDRS_DRILL,
  SDRS_FAILURE_JOB,
  SDRS_FLAT_JOB,
  SDRS_GROUP,
  SDRS_INSTANCE,
  SDRS_JOB,
  SDRS_PAIR,
  SDRS_QUOTAS,
  SDRS_RPO,
  sdrsPage,
} from '../support/go-types.ts'
import { drillRow } from '../support/group-rows.ts'
import { type Protected, SdrsWorld } from '../support/sdrs-world.ts'

let lab: ApiLab
let world: SdrsWorld
let made: Protected
const drill = newId()

before(async () => {
  lab = await ApiLab.start()
  world = await SdrsWorld.start(lab)
  made = await world.protect({
    group: { status: 'protected', description: 'text' },
    production: { status: 'stopped', power: 'off' },
  })
  await world.replicate(made)
  const { project } = world
  await lab.store.write(async (tx) => {
    const resource = { kind: 'instance', project, resource: made.instance.id } as const
    await setTags(tx, resource, [{ key: 'k', value: 'v' }])
    await rememberRpoPoint(tx, { project, pointAt: 300_000, behind: 3 }, 300_001)
    await tx
      .insertInto('drills')
      .values(drillRow(made.group, { id: drill }))
      .execute()
  })
  // One that failed.
  const pair = await world.pair(await world.group({ name: 'other' }), 1)
  const { job_id } = await world.ok('DELETE', `replications/${pair.id}`)
  await lab.operations.cancel(job_id as string)
})
after(async () => await lab.stop())

/** A typed client stops at null where it goes through a list. */
const LISTS = new Set(['attachment', 'tags', 'drill_servers', 'sub_jobs', 'resources'])

function listsAreLists(value: unknown, at = ''): void {
  if (typeof value !== 'object' || value === null) return
  for (const [key, member] of Object.entries(value)) {
    if (LISTS.has(key)) assert.ok(Array.isArray(member), `${at}.${key}`)
    listsAreLists(member, `${at}.${key}`)
  }
}

test('lists and single resources have the types that typed clients declare, and lists are never null', async () => {
  const { group, pair, instance } = made
  const one = (member: string, of: GoType): GoType => ({ struct: { [member]: of } })
  for (const [path, type, member] of [
    ['active-domains', { struct: { domains: { list: SDRS_DOMAIN } } }, 'domains'],
    ['server-groups', sdrsPage('server_groups', SDRS_GROUP), 'server_groups'],
    [`server-groups/${group.id}`, one('server_group', SDRS_GROUP), 'server_group'],
    ['replications', sdrsPage('replications', SDRS_PAIR), 'replications'],
    [`replications/${pair.id}`, one('replication', SDRS_PAIR), 'replication'],
    ['protected-instances', sdrsPage('protected_instances', SDRS_INSTANCE), 'protected_instances'],
    [
      `protected-instances/${instance.id}`,
      one('protected_instance', SDRS_INSTANCE),
      'protected_instance',
    ],
    [
      'disaster-recovery-drills',
      sdrsPage('disaster_recovery_drills', SDRS_DRILL),
      'disaster_recovery_drills',
    ],
    [
      `disaster-recovery-drills/${drill}`,
      one('disaster_recovery_drill', SDRS_DRILL),
      'disaster_recovery_drill',
    ],
    [
      'task-center/failure-jobs?resource_type=replications',
      sdrsPage('failure_jobs', SDRS_FAILURE_JOB),
      'failure_jobs',
    ],
    [
      'resource/rpo-statistics',
      sdrsPage('resource_rpo_statistics', SDRS_RPO),
      'resource_rpo_statistics',
    ],
    ['sdrs/quotas', SDRS_QUOTAS, 'quotas'],
  ] as const) {
    const body = (await world.ok('GET', path)) as Record<string, unknown>
    assertGo(type, body)
    listsAreLists(body, path)
    const shown = body[member]
    assert.ok(Array.isArray(shown) ? shown.length > 0 : typeof shown === 'object', path)
  }
  const renamed = await world.ok('PUT', `replications/${pair.id}`, { replication: { name: 'n' } })
  assertGo(one('replication', SDRS_PAIR), renamed)
})

test('a disk id list is one text of two ids, and numbers and switches are no text', async () => {
  const { replication } = await world.ok('GET', `replications/${made.pair.id}`)
  assert.equal(replication.volume_ids.split(',').length, 2)
  assert.equal(replication.fault_level, '0')
  assert.equal(replication.record_metadata.multiattach, false)
  assert.equal(replication.progress, 100)
})

test('a job of a group has flat children, also while it waits; each answers to its own id', async () => {
  const { job_id } = await world.ok('POST', `server-groups/${made.group.id}/action`, {
    'reverse-server-group': { priority_station: 'target' },
  })
  const job = await world.ok('GET', `jobs/${job_id}`)
  assertGo(SDRS_JOB, job)
  assert.equal(job.status, 'INIT')
  assert.equal(job.end_time, null)
  const [child] = job.entities.sub_jobs
  assertGo(SDRS_FLAT_JOB, child)
  assert.deepEqual(await world.ok('GET', `jobs/${child.job_id}`), child)
  await lab.operations.cancel(job_id as string)
})

test('a batch has a flat job for each instance, and each is asked for by its own id', async () => {
  const group = await world.group({ name: 'batch' })
  const servers = [await world.machine(), await world.machine()]
  const { job_id } = await world.ok('POST', 'protected-instances/batch', {
    protected_instances: {
      name_prefix: 'web',
      server_group_id: group.id,
      servers: servers.map(({ server }) => ({ server_id: server })),
    },
  })
  const job = await world.ok('GET', `jobs/${job_id}`)
  assertGo(SDRS_JOB, job)
  assert.equal(job.entities.server_group_id, group.id)
  assert.equal(job.entities.sub_jobs.length, 2)
  for (const child of job.entities.sub_jobs) {
    assertGo(SDRS_FLAT_JOB, child)
    assert.ok(child.entities.protected_instance_id)
    assert.deepEqual(await world.ok('GET', `jobs/${child.job_id}`), child)
  }
  // What the batch is about is shown at once, in its order.
  const list = await world.ok('GET', `protected-instances?server_group_id=${group.id}`)
  assert.deepEqual(
    list.protected_instances
      .map(({ name, status }: Record<string, string>) => [name, status])
      .toSorted(),
    [
      ['web-0001', 'creating'],
      ['web-0002', 'creating'],
    ],
  )
})
