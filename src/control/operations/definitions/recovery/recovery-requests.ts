import { findGroup, groupStatus } from '#control/resources/groups.ts'
import { instancesOfGroup } from '#control/resources/instances.ts'
import {
  deletePlan,
  findPlan,
  openRuns,
  pageOfRuns,
  putPlan,
  type StoredRun,
} from '#control/resources/recovery.ts'
import { toJson } from '#control/store/json.ts'
import type { RecoveryPlanRow } from '#control/store/tables/recovery.ts'
import type { ProtectedInstanceRow } from '#control/store/tables/servers.ts'
import { GROUP_TRANSIENT } from '#domain/protection-group.ts'
import { type PlanFault, planFaults, type RecoveryPlan } from '#domain/recovery-plan.ts'
import type { Probe } from '#wire/site/probes.ts'
import { type PlanDocument, storedPlan, toDocument, toPlan } from './plan-format.ts'
import { commandRun, submitRecovery } from './recovery.ts'
import { type Outcome, type RequestServices, refused } from '../requests.ts'

/* What is asked of recovery plans, and of the runs that follow them. */

type Services = Pick<RequestServices, 'store' | 'clock' | 'operations'>

export type PlanRefusal =
  | 'GROUP_UNKNOWN'
  | 'PLAN_UNFIT'
  /** A name that several instances of the group have. */
  | 'NAME_AMBIGUOUS'

export interface PlanView {
  readonly row: RecoveryPlanRow
  readonly plan: RecoveryPlan<Probe>
  /** By id, those of the group as it is now. */
  readonly names: ReadonlyMap<string, string>
}

/** Null: the group has no plan. Undefined: there is no such group. */
export async function showPlan(
  { store }: Pick<Services, 'store'>,
  project: string,
  group: string,
): Promise<PlanView | null | undefined> {
  return await store.read(async (db) => {
    if ((await findGroup(db, project, group)) === undefined) return undefined
    const row = await findPlan(db, group)
    if (row === undefined) return null
    const instances = await instancesOfGroup(db, group)
    return {
      row,
      plan: storedPlan(row.plan),
      names: new Map(instances.map(({ id, name }) => [id, name])),
    }
  })
}

/** Stores a plan that can be followed to its end, in the place of the one before. A run under way goes on by the plan that it began with. */
export async function storePlan(
  { store, clock }: Services,
  project: string,
  id: string,
  document: PlanDocument,
  by: string,
): Promise<
  Outcome<object, PlanRefusal> & {
    readonly faults?: readonly PlanFault[]
    readonly name?: string
  }
> {
  return await store.write(async (tx) => {
    const group = await findGroup(tx, project, id)
    if (group === undefined) return refused('GROUP_UNKNOWN')
    const instances = await instancesOfGroup(tx, id)
    const ambiguous = namesIn(document).find(
      (text) =>
        !instances.some((one) => one.id === text) &&
        instances.filter((one) => one.name === text).length > 1,
    )
    if (ambiguous !== undefined) return { ...refused('NAME_AMBIGUOUS' as const), name: ambiguous }
    const plan = toPlan(document, (text) => idOf(instances, text))
    const settings = Object.keys(document.instances ?? {}).map((text) => idOf(instances, text))
    const faults: PlanFault[] = [
      ...planFaults(plan, new Set(instances.map((one) => one.id))),
      ...settings
        .filter((one, index) => settings.indexOf(one) !== index)
        .map((instance) => ({ code: 'INSTANCE_TWICE' as const, instance })),
    ]
    if (faults.length > 0) return { ...refused('PLAN_UNFIT' as const), faults }
    const now = clock.wallMs()
    const text = toJson(toDocument(plan))
    await putPlan(tx, { group_id: id, project, plan: text, updated_by: by, updated_at: now })
    return { ok: true }
  })
}

const namesIn = ({ waves = [], instances = {} }: PlanDocument): string[] => [
  ...waves.flatMap((wave) => wave.instances),
  ...Object.entries(instances).flatMap(([name, { after = [] }]) => [name, ...after]),
]

const idOf = (instances: readonly ProtectedInstanceRow[], text: string): string =>
  instances.find((one) => one.id === text || one.name === text)?.id ?? text

export async function removePlan(
  { store }: Services,
  project: string,
  group: string,
): Promise<Outcome<object, 'GROUP_UNKNOWN' | 'PLAN_UNKNOWN'>> {
  return await store.write(async (tx) => {
    if ((await findGroup(tx, project, group)) === undefined) return refused('GROUP_UNKNOWN')
    return (await deletePlan(tx, group)) ? { ok: true } : refused('PLAN_UNKNOWN')
  })
}

// ---------------------------------------------------------------- runs

export interface RunsPage {
  readonly runs: readonly StoredRun[]
  readonly names: ReadonlyMap<string, string>
  /** There are older ones. */
  readonly more: boolean
}

/** Of the group, newest first, from behind `marker` on. */
export async function showRuns(
  { store }: Pick<Services, 'store'>,
  project: string,
  group: string,
  page: { readonly limit: number; readonly marker?: string | undefined },
): Promise<Outcome<RunsPage, 'GROUP_UNKNOWN' | 'MARKER_UNKNOWN'>> {
  return await store.read(async (db) => {
    if ((await findGroup(db, project, group)) === undefined) return refused('GROUP_UNKNOWN')
    const found = await pageOfRuns(db, group, page)
    if (found === undefined) return refused('MARKER_UNKNOWN')
    const instances = await instancesOfGroup(db, group)
    return { ok: true, ...found, names: new Map(instances.map(({ id, name }) => [id, name])) }
  })
}

export type RecoverRefusal =
  | 'GROUP_UNKNOWN'
  | 'GROUP_STATE'
  | 'GROUP_WITHOUT_INSTANCES'
  /** One is under way: continue or abort it. */
  | 'RECOVERY_RUNS'

/** Starts the servers of the production site in the order of the plan: what was aborted, or those that are not ready. */
export async function requestRecovery(
  { store, clock, operations }: Services,
  project: string,
  id: string,
): Promise<Outcome<{ readonly operation: string }, RecoverRefusal>> {
  return await store.write(async (tx) => {
    const group = await findGroup(tx, project, id)
    if (group === undefined) return refused('GROUP_UNKNOWN')
    if (GROUP_TRANSIENT.has(groupStatus(group))) return refused('GROUP_STATE')
    if ((await instancesOfGroup(tx, id)).length === 0) return refused('GROUP_WITHOUT_INSTANCES')
    if ((await openRuns(tx, id)).length > 0) return refused('RECOVERY_RUNS')
    const operation = await submitRecovery(
      tx,
      operations,
      (kind, request) => operations.submit(tx, kind, request),
      group,
      'operator',
      clock.wallMs(),
    )
    return { ok: true, operation }
  })
}

export type RunCommandRefusal =
  | 'GROUP_UNKNOWN'
  | 'RECOVERY_UNKNOWN'
  | 'RUN_ENDED'
  | 'RUN_NOT_PAUSED'

/** To the run of the group that is under way. */
export async function requestRunCommand(
  { store, operations }: Services,
  project: string,
  group: string,
  kind: 'continue' | 'abort',
  by: string,
): Promise<Outcome<{ readonly operation: string }, RunCommandRefusal>> {
  return await store.write(async (tx) => {
    if ((await findGroup(tx, project, group)) === undefined) return refused('GROUP_UNKNOWN')
    const run = (await openRuns(tx, group)).at(-1)
    if (run === undefined) return refused('RECOVERY_UNKNOWN')
    const refusal = await commandRun(tx, operations, run.id, kind, by)
    return refusal === null ? { ok: true, operation: run.id } : refused(refusal)
  })
}
