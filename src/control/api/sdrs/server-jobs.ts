import type { OperationView } from '#control/operations/engine.ts'
import { jobTime } from './codec.ts'

/* Jobs of servers, which are in the same store as those of groups and volumes, in the form of the server API.
 *
 * Typed clients read `entities.sub_jobs[0].entities.server_id` of a job that ended well without looking how many there are. So every
 * server job has at least one: those of a batch are its operations, the only one of a single operation is that operation itself.
 */
interface ServerJobSpec {
  readonly type: string
  /** Type of a sub-job. */
  readonly child: string
  /** Code when it failed. */
  readonly failure: string
}

const spec = (type: string, child: string, failure: string): ServerJobSpec => ({
  type,
  child,
  failure,
})

const SPECS: Readonly<Record<string, ServerJobSpec>> = {
  'server.create-many': spec('createServer', 'createSingleServer', 'Ecs.0202'),
  'server.create': spec('createSingleServer', 'createSingleServer', 'Ecs.0202'),
  'server.delete-many': spec('deleteServer', 'deleteSingleServer', 'Ecs.0211'),
  'server.delete': spec('deleteSingleServer', 'deleteSingleServer', 'Ecs.0211'),
  'server.power-many': spec('batchServerAction', 'serverAction', 'Ecs.0208'),
  'server.start': spec('startServer', 'startSingleServer', 'Ecs.0208'),
  'server.stop': spec('stopServer', 'stopSingleServer', 'Ecs.0209'),
  'server.reboot': spec('rebootServer', 'rebootSingleServer', 'Ecs.0210'),
  'server.attach': spec('attachVolume', 'attachVolume', 'Ecs.0212'),
  'server.detach': spec('detachVolume', 'detachVolume', 'Ecs.0213'),
}

const MANY: ReadonlySet<string> = new Set([
  'server.create-many',
  'server.delete-many',
  'server.power-many',
])

export const isServerJob = ({ kind }: OperationView): boolean => SPECS[kind] !== undefined

/** True: its children are operations, to be given to `serverJobObject`. */
export const hasServerJobs = ({ kind }: OperationView): boolean => MANY.has(kind)

const STATUSES = {
  pending: 'INIT',
  running: 'RUNNING',
  succeeded: 'SUCCESS',
  failed: 'FAIL',
  cancelled: 'FAIL',
} as const

/** `children`: those of a batch, in the order in which they were submitted. Null: no job of a server. */
export function serverJobObject(operation: OperationView, children: readonly OperationView[]) {
  const of = SPECS[operation.kind]
  if (of === undefined) return null
  const subs = hasServerJobs(operation) ? children : [operation]
  return {
    ...jobFields(operation, of.type, of.failure),
    entities: {
      ...(hasServerJobs(operation) ? {} : stringEntities(operation)),
      sub_jobs_total: subs.length,
      sub_jobs: subs.map((one) => ({
        ...jobFields(one, of.child, of.failure),
        entities: stringEntities(one),
      })),
    },
  }
}

function jobFields(operation: OperationView, job_type: string, failure: string) {
  const status = STATUSES[operation.status]
  const failed = status === 'FAIL'
  return {
    job_id: operation.id,
    job_type,
    status,
    begin_time: jobTime(operation.beginAt ?? operation.createdAt),
    end_time: operation.endAt === null ? null : jobTime(operation.endAt),
    error_code: failed ? failure : null,
    fail_reason: failed ? reasonOf(operation) : null,
  }
}

const reasonOf = ({ errorCode, failReason }: OperationView): string =>
  `${errorCode ?? 'CANCELLED'}: ${failReason ?? 'no reason was stored'}`

function stringEntities(operation: OperationView): Record<string, string> {
  const entities = Object.fromEntries(
    ['server_id', 'volume_id', 'device'].flatMap((key) => {
      const value = operation.entities[key]
      return typeof value === 'string' ? [[key, value]] : []
    }),
  ) as Record<string, string>
  return operation.status === 'failed'
    ? { ...entities, errorcode_message: reasonOf(operation) }
    : entities
}
