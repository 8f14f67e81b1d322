import Type from 'typebox'
import type { OperationView } from '#control/operations/engine.ts'
import {
  dismissFailures,
  type FailureFilter,
  operationByPrefix,
  pageOfFailures,
} from '#control/resources/jobs.ts'
import { fromJson } from '#control/store/json.ts'
import type { OperationRow } from '#control/store/tables/operations.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { isId } from './codec.ts'
import {
  type FailedOperation,
  type FailedTask,
  failureJobObject,
  isBatch,
  JOB_SPECS,
  jobObject,
  SUB_JOB_PREFIX,
  subJobObject,
} from './jobs.ts'
import { LIMIT_MAX, pageOf, type Query, text } from './lists.ts'
import { hasServerJobs, isServerJob, serverJobObject } from './server-jobs.ts'
import type { SdrsContext } from './services.ts'
import { Refusal } from '../http/refusal.ts'

/** Jobs and the list of failed ones: `/v1/{project}/jobs`, `/v1/{project}/task-center`. */
const JobPath = Type.Object({ project_id: Type.String(), job_id: Type.String() })
const FailurePath = Type.Object({ project_id: Type.String(), failure_job_id: Type.String() })
const GroupPath = Type.Object({ project_id: Type.String(), server_group_id: Type.String() })

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
    const resource = choice(query, 'resource_type', RESOURCE_TYPES)
    const name = text(query, 'resource_name')
    const group = text(query, 'server_group_id')
    const unfiltered = [status, resource, name, group].every((value) => value === undefined)
    const kinds = [...TASKS].flatMap(([kind, task]) => {
      const wanted =
        (status === undefined || task.status === status) &&
        (resource === undefined || task.resource === resource) &&
        // Without a filter the list is about groups as such; with a group, about what is inside of it.
        (unfiltered ? OF_GROUPS.has(kind) : group === undefined || !OF_GROUPS.has(kind))
      return wanted ? [kind] : []
    })
    if (kinds.length === 0 || (group !== undefined && !isId(group))) {
      return { failure_jobs: [], count: 0 }
    }
    const filter = { kinds, name, group: group?.toLowerCase() }
    const { rows, count } = await services.store.read((db) =>
      pageOfFailures(db, projectOf(request), filter, page),
    )
    return { failure_jobs: rows.map((row) => failureJobObject(toFailed(row))), count }
  })

  app.delete(
    '/v1/:project_id/task-center/failure-jobs/batch',
    { config: { audit: 'failed-task.purge' } },
    async (request, reply) => {
      await purge(projectOf(request), { kinds: [...OF_GROUPS] })
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
      const filter = { kinds: [...TASKS.keys()], operationOrResource: id.toLowerCase() }
      await purge(projectOf(request), filter)
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
      await purge(projectOf(request), { kinds: INSIDE, group: group.toLowerCase() })
      return await reply.code(204).send()
    },
  )

  const purge = async (project: string, filter: FailureFilter) =>
    await services.store.write((tx) => dismissFailures(tx, project, filter))

  function choice(query: Query, name: string, known: readonly string[]): string | undefined {
    const value = text(query, name)
    if (value === undefined) return undefined
    if (!known.includes(value))
      throw refuse('SDRS.0201', `The ${name} is none that this list knows.`)
    return value
  }
}

/** Kinds of operations whose failures are listed, with their class. */
const TASKS: ReadonlyMap<string, FailedTask> = new Map(
  Object.entries(JOB_SPECS).flatMap(([kind, { failed }]) =>
    failed === null ? [] : [[kind, failed] as const],
  ),
)

/** The beginning and the end of a group. All others are work inside an existing one. */
const OF_GROUPS: ReadonlySet<string> = new Set(['group.create', 'group.delete'])
const INSIDE = [...TASKS.keys()].filter((kind) => !OF_GROUPS.has(kind))

const toFailed = (row: OperationRow): FailedOperation => ({
  id: row.id,
  kind: row.kind,
  resourceId: row.resource_id,
  status: row.status,
  errorCode: row.error_code,
  failReason: row.fail_reason,
  failedStep: row.failed_step,
  entities: fromJson<Record<string, unknown>>(row.entities),
  createdAt: row.created_at,
  beginAt: row.begin_at,
})
