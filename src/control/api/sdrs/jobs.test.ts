import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { OperationView } from '#control/operations/engine.ts'
import { operationKinds } from '#control/operations/definitions/list.ts'
import { failureJobObject, JOB_SPECS, jobObject, SUB_JOB_PREFIX, subJobObject } from './jobs.ts'
import { isServerJob } from './server-jobs.ts'

const ID = '0123456789abcdef0123456789abcdef'

const operation = (over: Partial<OperationView> = {}): OperationView => ({
  id: ID,
  kind: 'group.stop',
  version: 1,
  project: 'p',
  resourceType: 'protection-group',
  resourceId: 'g',
  parent: null,
  input: {},
  status: 'running',
  step: 'close_dr',
  progress: 50,
  errorCode: null,
  failReason: null,
  failedStep: null,
  entities: {
    server_group_id: 'g',
    name: 'group',
    pairs: [
      { id: 'pair-1', member: 1 },
      { id: 'pair-2', member: 300 },
    ],
  },
  createdAt: 0,
  beginAt: 1_000,
  endAt: null,
  ...over,
})

/** Asked for through Holdfast's own API, which shows them as operations. The published dialects have no such jobs. */
const NATIVE = new Set([
  'group.verify',
  'pair.rebuild',
  'snapshot.create',
  'snapshot.delete',
  'snapshot.rollback',
  // The read-only flag of a disk, whose action answers with nothing.
  'volume.limit',
  'group.recover',
  'server.recover',
  // Of the volume API's pairs and of backups, which have no jobs.
  'pair.connect',
  'group.gather',
  'group.regroup',
  'group.failover-paused',
])

test('every kind of operation that a published API can start is shown as a job', () => {
  for (const { name } of operationKinds) {
    const shown = JOB_SPECS[name] !== undefined || isServerJob(operation({ kind: name }))
    assert.equal(shown, !NATIVE.has(name) && !name.startsWith('backup.'), name)
  }
})

test('states and times are those of the API', () => {
  const shown = {
    pending: 'INIT',
    running: 'RUNNING',
    succeeded: 'SUCCESS',
    failed: 'FAIL',
  } as const
  for (const [status, job] of Object.entries(shown)) {
    const view = operation({ status: status as OperationView['status'] })
    assert.equal(jobObject(view)?.status, job)
  }
  assert.equal(jobObject(operation({ status: 'cancelled' }))?.status, 'FAIL')
  assert.equal(jobObject(operation())?.begin_time, '1970-01-01T00:00:01.000Z')
  assert.equal(jobObject(operation())?.end_time, null)
  assert.equal(jobObject(operation({ kind: 'volume.create' }))?.end_time, '')
})

test('a group job has one child per pair, and each can be asked for by its id', () => {
  const entities = jobObject(operation())?.entities as { sub_jobs: { job_id: string }[] }
  assert.equal(entities.sub_jobs.length, 2)
  for (const child of entities.sub_jobs) {
    assert.match(child.job_id, /^[0-9a-f]{32}$/)
    assert.equal(child.job_id.slice(0, SUB_JOB_PREFIX), ID.slice(0, SUB_JOB_PREFIX))
    assert.deepEqual(subJobObject(operation(), child.job_id), child)
  }
  assert.equal(subJobObject(operation(), ID), null)
})

test('entities of pair jobs hold nothing but text', () => {
  const entities = { replication_pair_id: 'p', server_group_id: 'g', volume_ids: 'a,b', name: 'n' }
  for (const kind of ['pair.create', 'pair.delete', 'pair.expand']) {
    const shown = jobObject(operation({ kind, entities: { ...entities, pairs: [{ id: 'x' }] } }))
    assert.deepEqual(shown?.entities, {
      server_group_id: 'g',
      replication_pair_id: 'p',
      volume_ids: 'a,b',
    })
  }
})

test('entities of jobs of one instance hold nothing but text, a batch has its children', () => {
  const entities = { server_group_id: 'g', protected_instance_id: 'i', nic_id: 'n', name: 'x' }
  for (const kind of ['create', 'delete', 'attach', 'detach', 'add-nic', 'delete-nic', 'resize']) {
    const shown = jobObject(operation({ kind: `instance.${kind}`, entities }))
    const { name: _, ...text } = entities
    assert.deepEqual(shown?.entities, text, kind)
  }
  const child = operation({ kind: 'instance.create', entities })
  const parent = operation({ kind: 'instance.create-many', entities: { server_group_id: 'g' } })
  const shown = jobObject(parent, [child])
  assert.equal(shown?.job_type, 'batchCreateProtectedInstanceNoCG')
  assert.deepEqual(shown?.entities, { server_group_id: 'g', sub_jobs: [jobObject(child)] })
  const types = [
    ['instance.create', 'createProtectedInstanceNoCG'],
    ['instance.delete', 'deleteProtectedInstanceNoCG'],
    ['instance.delete-many', 'batchDeleteProtectedInstanceNoCG'],
    ['instance.attach', 'attachReplicationPairNew'],
    ['instance.detach', 'detachReplicationPairNew'],
    ['instance.add-nic', 'addNicNew'],
    ['instance.delete-nic', 'deleteNicNew'],
    ['instance.resize', 'resizeProtectedInstanceNew'],
  ] as const
  for (const [kind, type] of types) assert.equal(jobObject(operation({ kind }))?.job_type, type)
})

test('a failure has a published code and a reason that one client takes apart', () => {
  const failed = operation({
    status: 'failed',
    errorCode: 'SITE_UNREACHABLE',
    failReason: 'an error : inside "quotes"',
    failedStep: 'close_dr',
    endAt: 2_000,
  })
  const job = jobObject(failed)
  assert.equal(job?.error_code, 'SDRS.1028')
  const parts = job?.fail_reason?.split('error : ') ?? []
  assert.equal(parts.length, 2)
  assert.ok(parts[0]?.startsWith('CloseDr-fail:SDRS.1028:'))
  const detail = JSON.parse(parts[1] ?? '') as { badRequest: { message: string; code: number } }
  assert.equal(detail.badRequest.code, 400)
  assert.ok(detail.badRequest.message.includes('"quotes"'))
  const unsynced = jobObject({ ...failed, errorCode: 'DR_SIDE_NOT_IN_SYNC' })
  assert.equal(unsynced?.error_code, 'SDRS.1830')
})

test('only failures of groups, pairs and instances stand in the list of failed tasks', () => {
  const failed = operation({ status: 'failed', errorCode: 'X', failReason: 'r', endAt: 1 })
  assert.equal(failureJobObject(failed)?.failure_status, 'stopFail')
  assert.equal(failureJobObject(failed)?.resource_name, 'group')
  assert.equal(failureJobObject(operation()), null)
  assert.equal(failureJobObject({ ...failed, kind: 'volume.create' }), null)
  const resized = failureJobObject({ ...failed, kind: 'instance.resize' })
  assert.deepEqual(
    [resized?.resource_type, resized?.failure_status],
    ['protected_instances', 'resizeFail'],
  )
  // There is no class for NICs, and a batch fails by its children.
  for (const kind of ['instance.add-nic', 'instance.delete-nic', 'instance.create-many']) {
    assert.equal(failureJobObject({ ...failed, kind }), null)
  }
})
