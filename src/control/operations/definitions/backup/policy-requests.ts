import { newId } from '#base/ids.ts'
import {
  definitionOf,
  deletePlanRows,
  findPlan,
  insertPlan,
  insertSchedule,
  insertTrigger,
  listPlans,
  type OperationDefinition,
  type PlanResource,
  policyOfServer,
  readTrigger,
  schedulesOf,
  scheduleOf,
  setPlanResources,
  updatePlan,
  updateSchedule,
} from '#control/resources/backup-plans.ts'
import { findServer } from '#control/resources/servers.ts'
import { deleteAllTags, setTags } from '#control/resources/tags.ts'
import { bit } from '#control/store/bit.ts'
import { toJson } from '#control/store/json.ts'
import type { Transaction } from '#control/store/store.ts'
import type {
  BackupPlanRow,
  BackupScheduleRow,
  BackupTriggerRow,
} from '#control/store/tables/checkpoints.ts'
import {
  nextInstant,
  POLICIES_PER_USER_MAX,
  SERVERS_PER_POLICY_MAX,
  WINDOW_DEFAULT_S,
  zoneMinutes,
} from '#domain/backup-policy.ts'
import { backupRecurrence } from '#domain/recurrence.ts'
import { type Tag, TAGS_MAX } from '#domain/tag.ts'
import { runOf } from './backup-requests.ts'
import type { BackupServices } from './backup-rows.ts'
import { type Outcome, refused } from '../requests.ts'

/* Policies are made, changed and deleted at once; nothing of it needs a site. */

export interface PolicyServices extends BackupServices {
  /** Names of the regions that copies can go to. */
  readonly destinations: readonly string[]
}

export interface NewSchedule {
  readonly name: string | null
  readonly description: string | null
  readonly enabled: boolean
  readonly operationType: 'backup' | 'replication'
  readonly definition: OperationDefinition
  readonly pattern: string
}

export interface NewPolicy {
  readonly project: string
  readonly user: string
  readonly name: string
  readonly description: string | null
  readonly provider: string
  readonly parameters: unknown
  readonly resources: readonly PlanResource[]
  readonly schedules: readonly NewSchedule[]
  readonly tags: readonly Tag[]
}

export type PolicyRefusal =
  | 'POLICY_UNKNOWN'
  | 'POLICIES_FULL'
  | 'NAME_TAKEN'
  | 'TAGS_FULL'
  | 'SERVER_UNKNOWN'
  /** It belongs to another policy. */
  | 'SERVER_TAKEN'
  | 'TOO_MANY_SERVERS'
  /** The calendar text, or the density of what it says. */
  | 'PATTERN'
  /** Slots without a time zone, a zone that is none, or a region that copies cannot go to. */
  | 'DEFINITION'
  /** Not one backup operation and at most one replication. */
  | 'SCHEDULES'
  | 'SCHEDULE_UNKNOWN'
  | 'RUN_ACTIVE'

export async function requestPolicy(
  services: PolicyServices,
  policy: NewPolicy,
): Promise<Outcome<{ readonly policy: BackupPlanRow }, PolicyRefusal>> {
  const { store, clock } = services
  return await store.write(
    async (tx): Promise<Outcome<{ readonly policy: BackupPlanRow }, PolicyRefusal>> => {
      const { project, name } = policy
      if (policy.tags.length > TAGS_MAX) return refused('TAGS_FULL')
      const existing = await listPlans(tx, project, 'policy')
      if (existing.some((one) => one.name === name)) return refused('NAME_TAKEN')
      const own = existing.filter(({ user_id }) => user_id === policy.user)
      if (own.length >= POLICIES_PER_USER_MAX) return refused('POLICIES_FULL')
      const kinds = policy.schedules.map(({ operationType }) => operationType)
      if (kinds.filter((kind) => kind === 'backup').length !== 1) return refused('SCHEDULES')
      if (kinds.filter((kind) => kind === 'replication').length > 1) return refused('SCHEDULES')
      const now = clock.wallMs()
      const row: BackupPlanRow = {
        id: newId(),
        project,
        user_id: policy.user,
        form: 'policy',
        name,
        description: policy.description,
        provider: policy.provider,
        status: 'suspended',
        parameters: toJson(policy.parameters),
        created_at: now,
        updated_at: now,
      }
      const wrong = await resourcesRefusal(tx, project, row.id, policy.resources)
      if (wrong !== null) return refused(wrong)
      for (const schedule of policy.schedules) {
        const refusal = definitionRefusal(services, schedule.definition, schedule.operationType)
        if (refusal !== null) return refused(refusal)
        if (!backupRecurrence(schedule.pattern).ok) return refused('PATTERN')
      }
      await insertPlan(tx, row)
      await setPlanResources(tx, row, policy.resources)
      for (const schedule of policy.schedules) await insertWithTrigger(tx, row, schedule, now)
      const of = { kind: 'backup_policy', project, resource: row.id } as const
      await setTags(tx, of, policy.tags)
      return { ok: true, policy: row }
    },
  )
}

async function insertWithTrigger(
  tx: Transaction,
  plan: BackupPlanRow,
  schedule: NewSchedule,
  now: number,
): Promise<void> {
  const trigger: BackupTriggerRow = {
    id: newId(),
    project: plan.project,
    plan: plan.id,
    name: 'default',
    pattern: schedule.pattern,
    format: 'ical',
    start_at: now,
    end_at: null,
    window_s: WINDOW_DEFAULT_S,
    created_at: now,
  }
  await insertTrigger(tx, trigger)
  const id = newId()
  await insertSchedule(tx, {
    id,
    project: plan.project,
    plan: plan.id,
    trigger_id: trigger.id,
    name: schedule.name ?? `${schedule.operationType}_${id.slice(0, 4)}`,
    description: schedule.description,
    operation_type: schedule.operationType,
    enabled: bit(schedule.enabled),
    definition: toJson(schedule.definition),
    next_at: firstInstant(trigger, now),
    created_at: now,
    updated_at: now,
  })
}

/** What a trigger waits for; null: nothing. */
export function firstInstant(trigger: BackupTriggerRow, nowMs: number): number | null {
  const schedule = scheduleOf(trigger)
  return schedule === null ? null : nextInstant(schedule, nowMs)
}

async function resourcesRefusal(
  tx: Transaction,
  project: string,
  policy: string,
  resources: readonly PlanResource[],
): Promise<'SERVER_UNKNOWN' | 'SERVER_TAKEN' | 'TOO_MANY_SERVERS' | null> {
  const ids = resources.map(({ id }) => id)
  if (ids.length > SERVERS_PER_POLICY_MAX) return 'TOO_MANY_SERVERS'
  if (new Set(ids).size !== ids.length) return 'SERVER_TAKEN'
  for (const id of ids) {
    if ((await findServer(tx, project, id)) === undefined) return 'SERVER_UNKNOWN'
    const other = await policyOfServer(tx, id)
    if (other !== null && other !== policy) return 'SERVER_TAKEN'
  }
  return null
}

function definitionRefusal(
  { destinations }: PolicyServices,
  definition: OperationDefinition,
  kind: string,
): 'DEFINITION' | null {
  const slots = [
    definition.day_backups,
    definition.week_backups,
    definition.month_backups,
    definition.year_backups,
  ]
  const zone = definition.timezone
  if (zone === undefined && slots.some((slot) => slot !== undefined)) return 'DEFINITION'
  if (zone !== undefined && zoneMinutes(zone) === null) return 'DEFINITION'
  if (kind !== 'replication') return null
  const { destination_region: region, destination_project_id: project } = definition
  if (region === undefined || project === undefined) return 'DEFINITION'
  return destinations.includes(region) ? null : 'DEFINITION'
}

// ---------------------------------------------------------------- change

/** Members that are left out stay as they are. */
export interface PolicyChange {
  readonly name?: string
  readonly description?: string | null
  readonly resources?: readonly PlanResource[]
  readonly schedules?: readonly ScheduleChange[]
}

export interface ScheduleChange {
  readonly id: string
  readonly name?: string
  readonly description?: string | null
  readonly enabled?: boolean
  /** Members that are left out keep their values: a client that names one number must not take away what keeps other backups. */
  readonly definition?: OperationDefinition
  readonly pattern?: string
}

export async function changePolicy(
  services: PolicyServices,
  project: string,
  id: string,
  change: PolicyChange,
): Promise<Outcome<{ readonly policy: BackupPlanRow }, PolicyRefusal>> {
  const { store, clock } = services
  return await store.write(
    async (tx): Promise<Outcome<{ readonly policy: BackupPlanRow }, PolicyRefusal>> => {
      const before = await findPlan(tx, project, id, 'policy')
      if (before === undefined) return refused('POLICY_UNKNOWN')
      const { name, description, resources } = change
      if (name !== undefined && name !== before.name) {
        const others = await listPlans(tx, project, 'policy')
        if (others.some((one) => one.name === name)) return refused('NAME_TAKEN')
      }
      if (resources !== undefined) {
        const wrong = await resourcesRefusal(tx, project, id, resources)
        if (wrong !== null) return refused(wrong)
      }
      const schedules = new Map((await schedulesOf(tx, id)).map((row) => [row.id, row]))
      for (const one of change.schedules ?? []) {
        const refusal = scheduleRefusal(services, schedules.get(one.id), one)
        if (refusal !== null) return refused(refusal)
      }
      const now = clock.wallMs()
      const texts = {
        ...(name === undefined ? {} : { name }),
        ...(description === undefined ? {} : { description }),
      }
      if (Object.keys(texts).length > 0) await updatePlan(tx, id, texts, now)
      if (resources !== undefined) await setPlanResources(tx, before, resources)
      for (const one of change.schedules ?? []) {
        const row = schedules.get(one.id)
        if (row !== undefined) await changeSchedule(tx, row, one, now)
      }
      return { ok: true, policy: { ...before, ...texts } }
    },
  )
}

function scheduleRefusal(
  services: PolicyServices,
  row: BackupScheduleRow | undefined,
  change: ScheduleChange,
): 'SCHEDULE_UNKNOWN' | 'DEFINITION' | 'PATTERN' | null {
  if (row === undefined) return 'SCHEDULE_UNKNOWN'
  if (change.pattern !== undefined && !backupRecurrence(change.pattern).ok) return 'PATTERN'
  if (change.definition === undefined) return null
  return definitionRefusal(services, merged(row, change.definition), row.operation_type)
}

const merged = (row: BackupScheduleRow, change: OperationDefinition): OperationDefinition => ({
  ...definitionOf(row),
  ...change,
})

/** The anchor stays. What the schedule waits for is found anew, so nothing that lies behind is made up for. */
async function changeSchedule(
  tx: Transaction,
  row: BackupScheduleRow,
  { name, description, enabled, definition, pattern }: ScheduleChange,
  now: number,
): Promise<void> {
  if (pattern !== undefined) {
    await tx
      .updateTable('backup_triggers')
      .set({ pattern })
      .where('id', '=', row.trigger_id)
      .execute()
  }
  const trigger = await readTrigger(tx, row.trigger_id)
  const again = pattern !== undefined || (enabled === true && row.enabled === 0)
  await updateSchedule(
    tx,
    row.id,
    {
      ...(name === undefined ? {} : { name }),
      ...(description === undefined ? {} : { description }),
      ...(enabled === undefined ? {} : { enabled: bit(enabled) }),
      ...(definition === undefined ? {} : { definition: toJson(merged(row, definition)) }),
      ...(again && trigger !== undefined ? { next_at: firstInstant(trigger, now) } : {}),
    },
    now,
  )
}

// ---------------------------------------------------------------- deletion

/** What it made stays, and is no longer removed by itself. */
export async function deletePolicy(
  { store }: Pick<BackupServices, 'store'>,
  project: string,
  id: string,
): Promise<Outcome<object, 'POLICY_UNKNOWN' | 'RUN_ACTIVE'>> {
  return await store.write(
    async (tx): Promise<Outcome<object, 'POLICY_UNKNOWN' | 'RUN_ACTIVE'>> => {
      if ((await findPlan(tx, project, id, 'policy')) === undefined)
        return refused('POLICY_UNKNOWN')
      if ((await runOf(tx, id)) !== 'nobody') return refused('RUN_ACTIVE')
      await deletePlanRows(tx, id)
      await deleteAllTags(tx, 'backup_policy', id)
      return { ok: true }
    },
  )
}
