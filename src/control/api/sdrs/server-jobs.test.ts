import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { OperationView } from '#control/operations/engine.ts'
import { isServerJob, serverJobObject } from './server-jobs.ts'

const operation = (over: Partial<OperationView>): OperationView => ({
  id: 'a'.repeat(32),
  kind: 'server.create',
  version: 1,
  project: 'p',
  resourceType: 'server',
  resourceId: 's1',
  parent: null,
  input: {},
  status: 'succeeded',
  step: null,
  progress: 100,
  errorCode: null,
  failReason: null,
  failedStep: null,
  entities: { server_id: 's1', name: 'web' },
  createdAt: 1_000,
  beginAt: 2_000,
  endAt: 3_000,
  ...over,
})

test('a job of several servers has one sub-job for each, and nothing but text in their entities', () => {
  const parent = operation({ kind: 'server.create-many', entities: {} })
  const children = ['s1', 's2'].map((server_id) =>
    operation({ entities: { server_id, name: 'web', size: 4 } }),
  )
  const job = serverJobObject(parent, children)
  assert.equal(job?.entities.sub_jobs_total, 2)
  assert.deepEqual(
    job?.entities.sub_jobs.map((one) => one.entities),
    [{ server_id: 's1' }, { server_id: 's2' }],
  )
  assert.equal(job?.end_time, '1970-01-01T00:00:03.000Z')
})

test('a job of one server is its own sub-job, so that a client finds the server where it looks', () => {
  const job = serverJobObject(operation({ kind: 'server.start' }), [])
  assert.equal(job?.entities.sub_jobs[0]?.entities['server_id'], 's1')
})

test('a failed job says which fault it was and why', () => {
  const failed = { status: 'failed', errorCode: 'NO_MEMORY', failReason: 'too small' } as const
  const job = serverJobObject(operation({ kind: 'server.start', ...failed }), [])
  assert.equal(job?.status, 'FAIL')
  assert.equal(job?.error_code, 'Ecs.0208')
  assert.equal(job?.fail_reason, 'NO_MEMORY: too small')
  assert.equal(job?.entities.sub_jobs[0]?.entities['errorcode_message'], 'NO_MEMORY: too small')
})

test('operations on other things are no jobs of servers', () => {
  assert.equal(isServerJob(operation({ kind: 'volume.create' })), false)
  assert.equal(serverJobObject(operation({ kind: 'volume.create' }), []), null)
})
