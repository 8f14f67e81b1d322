import type { OperationView } from '#control/operations/engine.ts'
import { jobTime } from './codec.ts'

/* Jobs are how the API shows operations. One store serves every dialect: volumes have jobs too, in the form of their own API
 * (times that are not known yet are empty text there, null here).
 *
 * Group jobs show one child per pair under `entities.sub_jobs`. The children are no operations: a group is switched as a
 * whole, so they share its fate. Their ids end in the pair's number, so that a child can be asked for by its id.
 * The children of a batch are operations, with jobs of their own. Jobs of pairs and single instances never have children, and nothing but
 * text in `entities`: typed clients decode it as a map of strings.
 */
interface JobSpec {
  readonly type: string
  /** Type of the children; null: none. */
  readonly child: string | null
  /** Code when the operation failed for a reason that has no code of its own. */
  readonly failure: string
  /** Codes of steps that have one of their own. */
  readonly steps?: Readonly<Record<string, string>>
  /** Class in the list of failed tasks; null: not listed there. */
  readonly failed: FailedTask | null
  /** Its children are operations of their own. */
  readonly batch?: true
}

export interface FailedTask {
  readonly status: string
  readonly resource:
    | 'server_groups'
    | 'replications'
    | 'protected_instances'
    | 'disaster_recovery_drills'
}

const group = (verb: string, failure: string, status: string, children = true): JobSpec => ({
  type: `${verb}ProtectionGroupNoCG`,
  child: children ? `${verb}ProtectionGroupRepNoCG` : null,
  failure,
  failed: { status, resource: 'server_groups' },
})

const pair = (type: string, failure: string, status: string): JobSpec => ({
  type,
  child: null,
  failure,
  failed: { status, resource: 'replications' },
})

const instance = (type: string, failure: string, status: string | null): JobSpec => ({
  type,
  child: null,
  failure,
  failed: status === null ? null : { status, resource: 'protected_instances' },
})

const batch = (type: string, failure: string): JobSpec => ({
  ...instance(type, failure, null),
  batch: true,
})

const volume = (type: string, failure: string): JobSpec => ({
  type,
  child: null,
  failure,
  failed: null,
})

/** Every kind of operation that this API shows. The others (the system's own) have no jobs. */
export const JOB_SPECS: Readonly<Record<string, JobSpec>> = {
  'group.create': group('create', 'SDRS.1014', 'createFail', false),
  'group.delete': group('delete', 'SDRS.1016', 'deleteFail', false),
  'group.start': group('start', 'SDRS.1027', 'startFail'),
  'group.reprotect': group('reprotect', 'SDRS.1032', 'reprotectFail'),
  'group.stop': group('stop', 'SDRS.1028', 'stopFail'),
  'group.reverse': group('reverse', 'SDRS.1029', 'reverseFail'),
  'group.failover': group('failover', 'SDRS.1030', 'failoverFail'),
  'drill.create': {
    type: 'createDisasterRecoveryDrill',
    child: null,
    failure: 'SDRS.1922',
    steps: { clone: 'SDRS.1905', release: 'SDRS.1906' },
    failed: { status: 'createFail', resource: 'disaster_recovery_drills' },
  },
  'drill.delete': {
    type: 'deleteDisasterRecoveryDrill',
    child: null,
    failure: 'SDRS.1923',
    steps: { snapshot: 'SDRS.1906' },
    failed: { status: 'deleteFail', resource: 'disaster_recovery_drills' },
  },
  'pair.create': pair('createReplicationPairNoCG', 'SDRS.1606', 'createFail'),
  'pair.delete': pair('deleteReplicationPairNoCG', 'SDRS.1607', 'deleteFail'),
  'pair.expand': pair('expandReplicationPairNew', 'SDRS.1820', 'expandFail'),
  'instance.create': instance('createProtectedInstanceNoCG', 'SDRS.1350', 'createFail'),
  'instance.create-many': batch('batchCreateProtectedInstanceNoCG', 'SDRS.0406'),
  'instance.delete': instance('deleteProtectedInstanceNoCG', 'SDRS.1351', 'deleteFail'),
  'instance.delete-many': batch('batchDeleteProtectedInstanceNoCG', 'SDRS.0406'),
  'instance.attach': instance('attachReplicationPairNew', 'SDRS.1821', 'attachFail'),
  'instance.detach': instance('detachReplicationPairNew', 'SDRS.1822', 'detachFail'),
  // There is no class for failed changes of NICs.
  'instance.add-nic': instance('addNicNew', 'SDRS.1312', null),
  'instance.delete-nic': instance('deleteNicNew', 'SDRS.1313', null),
  'instance.resize': instance('resizeProtectedInstanceNew', 'SDRS.1329', 'resizeFail'),
  'volume.create': volume('createVolume', 'EVS.2024'),
  'volume.create-filled': volume('createVolume', 'EVS.2024'),
  'volume.delete': volume('deleteVolume', 'EVS.2020'),
  'volume.extend': volume('extendVolume', 'EVS.2026'),
  'volume.retype': volume('retypeVolume', 'EVS.2050'),
  'volume.create-many': { ...volume('batchCreateVolume', 'EVS.2024'), batch: true },
}

/** Faults that have a published code of their own. */
const FAULT_CODES: Readonly<Record<string, string>> = {
  DR_SIDE_NOT_IN_SYNC: 'SDRS.1830',
  DR_SIDE_EMPTY: 'SDRS.1830',
  DR_SIDE_FAILED: 'SDRS.1824',
  PREFERRED_SITE_MAY_RUN: 'SDRS.1824',
  PRODUCTION_SERVER_RUNS: 'SDRS.1319',
  REPLICATION_NOT_ESTABLISHED: 'SDRS.1824',
  HOLD_NOT_DRAINED: 'SDRS.1824',
  // The database and the sites do not agree yet on who may write: after a restore, until both sites have spoken.
  OWNERSHIP_WAIT: 'SDRS.1015',
}

const STATUSES = {
  pending: 'INIT',
  running: 'RUNNING',
  succeeded: 'SUCCESS',
  failed: 'FAIL',
  cancelled: 'FAIL',
} as const

/** True for a job whose children are asked for separately, see `jobObject`. */
export const isBatch = (operation: OperationView): boolean =>
  JOB_SPECS[operation.kind]?.batch === true

/** The job of an operation, or null when this API does not show its kind. `operations`: the children of a batch, in their order. */
export function jobObject(operation: OperationView, operations: readonly OperationView[] = []) {
  const spec = JOB_SPECS[operation.kind]
  if (spec === undefined) return null
  const common = jobFields(operation, spec)
  if (operation.kind.startsWith('volume.')) return volumeJob(operation, spec, operations)
  const entities = stringEntities(operation)
  if (spec.batch === true) {
    const sub_jobs = operations.flatMap((one) => {
      const of = JOB_SPECS[one.kind]
      return of === undefined ? [] : [{ ...jobFields(one, of), entities: stringEntities(one) }]
    })
    return { ...common, entities: { ...entities, sub_jobs } }
  }
  const children = childrenOf(operation)
  if (spec.child === null || children.length === 0) return { ...common, entities }
  const sub_jobs = children.map((child) => childJob(operation, spec, child))
  return { ...common, entities: { ...entities, sub_jobs } }
}

/** One child of a group's job, by its own id. */
export function subJobObject(operation: OperationView, id: string) {
  const spec = JOB_SPECS[operation.kind]
  const child = childrenOf(operation).find((one) => subJobId(operation.id, one.member) === id)
  if (spec === undefined || spec.child === null || child === undefined) return null
  return childJob(operation, spec, child)
}

/** Characters of a job's id that its children share. */
export const SUB_JOB_PREFIX = 24

const subJobId = (operation: string, member: number): string =>
  operation.slice(0, SUB_JOB_PREFIX) + member.toString(16).padStart(32 - SUB_JOB_PREFIX, '0')

function jobFields(operation: OperationView, spec: JobSpec) {
  const failure = failureOf(operation, spec)
  return {
    job_id: operation.id,
    job_type: spec.type,
    status: STATUSES[operation.status],
    begin_time: jobTime(operation.beginAt ?? operation.createdAt),
    end_time: operation.endAt === null ? null : jobTime(operation.endAt),
    error_code: failure?.code ?? null,
    fail_reason: failure?.reason ?? null,
  }
}

/** What is shown of an operation that failed. */
export type FailedOperation = Pick<
  OperationView,
  | 'id'
  | 'kind'
  | 'resourceId'
  | 'status'
  | 'errorCode'
  | 'failReason'
  | 'failedStep'
  | 'entities'
  | 'createdAt'
  | 'beginAt'
>

/** Null unless it failed. One command line splits the reason at `error : ` and decodes the rest as JSON. */
export function failureOf(
  operation: FailedOperation,
  spec: JobSpec,
): { readonly code: string; readonly reason: string } | null {
  if (STATUSES[operation.status] !== 'FAIL') return null
  const ofStep = spec.steps?.[operation.failedStep ?? '']
  const code = FAULT_CODES[operation.errorCode ?? ''] ?? ofStep ?? spec.failure
  const text = (operation.failReason ?? 'no reason was stored').replaceAll('error : ', 'error: ')
  const step = camel(operation.failedStep ?? 'submit')
  const detail = JSON.stringify({ badRequest: { message: text, code: 400 } })
  return { code, reason: `${step}-fail:${code}:${operation.errorCode ?? ''} error : ${detail}` }
}

const camel = (name: string): string =>
  name
    .split('_')
    .map((word) => word.charAt(0).toUpperCase() + word.slice(1))
    .join('')

interface Child {
  readonly id: string
  readonly member: number
}

function childrenOf(operation: OperationView): readonly Child[] {
  const { pairs } = operation.entities
  return Array.isArray(pairs) ? (pairs as Child[]) : []
}

function childJob(operation: OperationView, spec: JobSpec, child: Child) {
  return {
    ...jobFields(operation, spec),
    job_id: subJobId(operation.id, child.member),
    job_type: spec.child ?? spec.type,
    entities: { ...stringEntities(operation), replication_pair_id: child.id },
  }
}

const SHOWN = [
  'server_group_id',
  'protected_instance_id',
  'replication_pair_id',
  'disaster_recovery_drill_id',
  'volume_ids',
  'native_server_id',
  'nic_id',
  'given_up_at_least',
]

function stringEntities(operation: OperationView): Record<string, string> {
  return Object.fromEntries(
    SHOWN.flatMap((key) => {
      const value = operation.entities[key]
      return typeof value === 'string' ? [[key, value]] : []
    }),
  )
}

/** In the form of the volume API, whose times are text even when there are none. */
function volumeJob(
  operation: OperationView,
  spec: JobSpec,
  operations: readonly OperationView[],
): ReturnType<typeof jobFields> & { readonly entities: object } {
  const common = jobFields(operation, spec)
  const entities =
    spec.batch === true
      ? { sub_jobs: operations.map((one) => volumeJob(one, JOB_SPECS[one.kind] ?? spec, [])) }
      : volumeEntities(operation)
  return { ...common, end_time: common.end_time ?? '', entities }
}

function volumeEntities(operation: OperationView): Record<string, unknown> {
  const { volume_id, volume_type, name, size } = operation.entities
  return { volume_id, volume_type, name, size }
}

/** An entry of the list of failed tasks, or null when the operation is none. */
export function failureJobObject(operation: FailedOperation) {
  const spec = JOB_SPECS[operation.kind]
  if (spec === undefined || spec.failed === null) return null
  const failure = failureOf(operation, spec)
  if (failure === null) return null
  const { name } = operation.entities
  return {
    job_status: 'FAIL' as const,
    resource_id: operation.resourceId,
    resource_name: typeof name === 'string' ? name : null,
    resource_type: spec.failed.resource,
    failure_status: spec.failed.status,
    job_id: operation.id,
    job_type: spec.type,
    begin_time: jobTime(operation.beginAt ?? operation.createdAt),
    error_code: failure.code,
    fail_reason: failure.reason,
  }
}
