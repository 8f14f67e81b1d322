import Type from 'typebox'
import type { OperationView } from '#control/operations/engine.ts'
import { dismissFailures, dismissedFailures, operationByPrefix } from '#control/resources/jobs.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { isId } from './codec.ts'
import {
  failureJobObject,
  isBatch,
  JOB_SPECS,
  jobObject,
  SUB_JOB_PREFIX,
  subJobObject,
} from './jobs.ts'
import { LIMIT_MAX, nameMatches, one, pageOf, pageRows, type Query } from './lists.ts'
import { hasServerJobs, isServerJob, serverJobObject } from './server-jobs.ts'
import type { SdrsContext } from './services.ts'
import { Refusal } from '../http/refusal.ts'

/** Jobs and the list of failed ones: `/v1/{project}/jobs`, `/v1/{project}/task-center`. */
const JobPath = Type.Object({ project_id: Type.String(), job_id: Type.String() })
const FailurePath = Type.Object({ project_id: Type.String(), failure_job_id: Type.String() })
const GroupPath = Type.Object({ project_id: Type.String(), server_group_id: Type.String() })

/** Failed operations looked at; older ones are not shown. */
const FAILURES_MAX = 1_000

/** Sub-jobs of one job. */
const CHILDREN_MAX = 1_000

const FAILURE_STATUSES = [
  'createFail',
  'deleteFail',
  'attachFail',
  'detachFail',
  'expandFail',
  'resizeFail',
  'startFail',
  'stopFail',
  'reverseFail',
  'failoverFail',
  'reprotectFail',
]
const RESOURCE_TYPES = [
  'server_groups',
  'protected_instances',
  'replications',
  'disaster_recovery_drills',
]

export function taskRoutes(app: Api, context: SdrsContext): void {
  const { services, refuse } = context

  app.get('/v1/:project_id/jobs/:job_id', { schema: { params: JobPath } }, async (request) => {
    const project = projectOf(request)
    const { job_id: id } = request.params
    const job = (await findJob(project, id)) ?? (await findSubJob(project, id))
    if (job === null) throw new Refusal(404, 'Common.0011', 'There is no such job.')
    return job
  })

  async function findJob(project: string, id: string) {
    const operation = await services.operations.get(id)
    if (operation === null || operation.project !== project) return null
    if (isServerJob(operation)) return await findServerJob(operation)
    if (!isBatch(operation)) return jobObject(operation)
    const children = await services.operations.list({ parent: id, limit: LIMIT_MAX })
    return jobObject(operation, children.toReversed())
  }

  async function findServerJob(operation: OperationView) {
    const children = hasServerJobs(operation)
      ? await services.operations.list({ parent: operation.id, limit: CHILDREN_MAX })
      : []
    return serverJobObject(operation, children.toReversed())
  }

  async function findSubJob(project: string, id: string) {
    if (!/^[0-9a-f]{32}$/.test(id)) return null
    const prefix = id.slice(0, SUB_JOB_PREFIX)
    const parent = await operationByPrefix(services.store.db, project, prefix)
    const operation = parent === undefined ? null : await services.operations.get(parent)
    return operation === null ? null : subJobObject(operation, id)
  }

  app.get('/v1/:project_id/task-center/failure-jobs', async (request) => {
    const query = request.query as Query
    const page = pageOf(query, refuse)
    const status = choice(query, 'failure_status', FAILURE_STATUSES)
    const type = choice(query, 'resource_type', RESOURCE_TYPES)
    const name = one(query, 'resource_name') || undefined
    const group = one(query, 'server_group_id') || undefined
    const unfiltered = [status, type, name, group].every((value) => value === undefined)
    const failures = (await listFailures(projectOf(request))).filter(
      ({ operation, entry }) =>
        (status === undefined || entry.failure_status === status) &&
        (type === undefined || entry.resource_type === type) &&
        (name === undefined || nameMatches(entry.resource_name ?? '', name)) &&
        (group === undefined || (isInside(operation) && groupOf(operation) === group)) &&
        (!unfiltered || !isInside(operation)),
    )
    const rows = failures.map(({ entry }) => ({ id: entry.job_id, entry }))
    return {
      failure_jobs: pageRows(rows, page).map(({ entry }) => entry),
      count: rows.length,
    }
  })

  app.delete(
    '/v1/:project_id/task-center/failure-jobs/batch',
    { config: { audit: 'failed-task.purge' } },
    async (request, reply) => {
      await purge(projectOf(request), (operation) => !isInside(operation))
      return await reply.code(204).send()
    },
  )

  app.delete(
    '/v1/:project_id/task-center/failure-jobs/:failure_job_id',
    { schema: { params: FailurePath }, config: { audit: 'failed-task.delete' } },
    async (request, reply) => {
      const { failure_job_id: id } = request.params
      auditTarget(request, id)
      // Documents name a job here and show a resource: both are taken. Deleting what is gone is no mistake.
      await purge(
        projectOf(request),
        (operation) => operation.id === id || operation.resourceId === id,
      )
      return await reply.code(204).send()
    },
  )

  app.delete(
    '/v1/:project_id/task-center/:server_group_id/failure-jobs/batch',
    { schema: { params: GroupPath }, config: { audit: 'failed-task.purge' } },
    async (request, reply) => {
      const { server_group_id: group } = request.params
      if (!isId(group)) throw refuse('SDRS.0207')
      auditTarget(request, group)
      await purge(
        projectOf(request),
        (operation) => isInside(operation) && groupOf(operation) === group,
      )
      return await reply.code(204).send()
    },
  )

  async function listFailures(project: string) {
    const dismissed = await dismissedFailures(services.store.db, project)
    const operations = await services.operations.list({
      project,
      status: ['failed', 'cancelled'],
      limit: FAILURES_MAX,
    })
    return operations.flatMap((operation) => {
      const entry = dismissed.has(operation.id) ? null : failureJobObject(operation)
      return entry === null ? [] : [{ operation, entry }]
    })
  }

  async function purge(project: string, wanted: (operation: OperationView) => boolean) {
    const failures = await listFailures(project)
    const ids = failures.filter(({ operation }) => wanted(operation)).map((one) => one.operation.id)
    await services.store.write((tx) => dismissFailures(tx, project, ids))
  }

  function choice(query: Query, name: string, known: readonly string[]): string | undefined {
    const value = one(query, name)
    if (value === undefined || value === '') return undefined
    if (!known.includes(value)) throw refuse('SDRS.0201', `${name}: unknown value.`)
    return value
  }
}

/** Work inside an existing group: everything but the creation and deletion of the group itself. */
const isInside = (operation: OperationView): boolean =>
  operation.kind !== 'group.create' &&
  operation.kind !== 'group.delete' &&
  JOB_SPECS[operation.kind] !== undefined

const groupOf = (operation: OperationView): unknown => operation.entities['server_group_id']
