import { fromJson, toJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type {
  BackupPlanResourceRow,
  BackupPlanRow,
  BackupScheduleRow,
  BackupTriggerRow,
} from '#control/store/tables/checkpoints.ts'
import { type Schedule, zoneMinutes } from '#domain/backup-policy.ts'
import { backupRecurrence } from '#domain/recurrence.ts'
import type { RetentionRule } from '#domain/retention.ts'

/** Queries about backup policies, plans, triggers and schedules. Every one that serves a caller is bound to the caller's project. */
type Db = Queries | Transaction

export type PlanForm = 'policy' | 'plan'

/** What a schedule does, as it was given. Members that were not given are absent. */
export interface OperationDefinition {
  readonly max_backups?: number
  readonly retention_duration_days?: number
  readonly permanent?: boolean
  readonly day_backups?: number
  readonly week_backups?: number
  readonly month_backups?: number
  readonly year_backups?: number
  readonly timezone?: string
  readonly destination_region?: string
  readonly destination_project_id?: string
  readonly enable_acceleration?: boolean
}

export const definitionOf = (row: Pick<BackupScheduleRow, 'definition'>): OperationDefinition =>
  fromJson<OperationDefinition>(row.definition)

export function retentionOf(definition: OperationDefinition): RetentionRule {
  return {
    permanent: definition.permanent ?? false,
    maxBackups: definition.max_backups ?? -1,
    maxDays: definition.retention_duration_days ?? -1,
    slots: {
      day: definition.day_backups ?? 0,
      week: definition.week_backups ?? 0,
      month: definition.month_backups ?? 0,
      year: definition.year_backups ?? 0,
    },
    zoneMinutes: zoneMinutes(definition.timezone ?? '') ?? 0,
  }
}

/** null: the pattern is not one that this service runs by (a trigger of the older API may hold anything). */
export function scheduleOf(trigger: BackupTriggerRow): Schedule | null {
  const parsed = backupRecurrence(trigger.pattern)
  if (!parsed.ok) return null
  return {
    rule: parsed.rule,
    anchorMs: trigger.start_at,
    endMs: trigger.end_at,
    windowMs: trigger.window_s * 1_000,
  }
}

// ---------------------------------------------------------------- plans

/** `form`: others are not found. Default: all. */
export async function findPlan(
  db: Db,
  project: string,
  id: string,
  form?: PlanForm,
): Promise<BackupPlanRow | undefined> {
  const row = await db
    .selectFrom('backup_plans')
    .selectAll()
    .where('project', '=', project)
    .where('id', '=', id)
    .executeTakeFirst()
  return form === undefined || row?.form === form ? row : undefined
}

/** For operations, which know the plan and not the caller. */
export async function readPlan(db: Db, id: string): Promise<BackupPlanRow | undefined> {
  return await db.selectFrom('backup_plans').selectAll().where('id', '=', id).executeTakeFirst()
}

/** Newest first, then by id. */
export async function listPlans(
  db: Db,
  project: string,
  form?: PlanForm,
): Promise<BackupPlanRow[]> {
  const query = db
    .selectFrom('backup_plans')
    .selectAll()
    .where('project', '=', project)
    .orderBy('created_at', 'desc')
    .orderBy('id', 'desc')
  return await (form === undefined ? query : query.where('form', '=', form)).execute()
}

export async function insertPlan(tx: Transaction, row: BackupPlanRow): Promise<void> {
  await tx.insertInto('backup_plans').values(row).execute()
}

export async function updatePlan(
  tx: Transaction,
  id: string,
  change: Partial<Pick<BackupPlanRow, 'name' | 'description' | 'status' | 'parameters'>>,
  nowMs: number,
): Promise<void> {
  await tx
    .updateTable('backup_plans')
    .set({ ...change, updated_at: nowMs })
    .where('id', '=', id)
    .execute()
}

/** With everything that goes with it. What it made stays, and is no longer removed by itself. */
export async function deletePlanRows(tx: Transaction, id: string): Promise<void> {
  await keepForGood(tx, id)
  await tx.deleteFrom('backup_schedules').where('plan', '=', id).execute()
  await tx.deleteFrom('backup_triggers').where('plan', '=', id).execute()
  await tx.deleteFrom('backup_plan_resources').where('plan', '=', id).execute()
  await tx.deleteFrom('backup_plans').where('id', '=', id).execute()
}

/** What a plan made is no longer removed by itself, and does not say that it will be. */
export async function keepForGood(tx: Transaction, plan: string): Promise<void> {
  await tx
    .updateTable('checkpoint_items')
    .set({ expires_at: null })
    .where('policy', '=', plan)
    .where('expires_at', 'is not', null)
    .execute()
}

/** In the order given. */
export async function planResources(db: Db, plan: string): Promise<BackupPlanResourceRow[]> {
  return await db
    .selectFrom('backup_plan_resources')
    .selectAll()
    .where('plan', '=', plan)
    .orderBy('place')
    .execute()
}

export interface PlanResource {
  readonly id: string
  readonly type: string
  readonly name: string
  readonly extraInfo: unknown
}

/** In the place of those that there were. */
export async function setPlanResources(
  tx: Transaction,
  plan: Pick<BackupPlanRow, 'id' | 'project'>,
  resources: readonly PlanResource[],
): Promise<void> {
  await tx.deleteFrom('backup_plan_resources').where('plan', '=', plan.id).execute()
  for (const [place, { id, type, name, extraInfo }] of resources.entries()) {
    const row = { plan: plan.id, resource: id, project: plan.project, place, type, name }
    await tx
      .insertInto('backup_plan_resources')
      .values({ ...row, extra_info: toJson(extraInfo ?? {}) })
      .execute()
  }
}

/** The policy that a server belongs to; plans of the older API do not count. */
export async function policyOfServer(db: Db, server: string): Promise<string | null> {
  const row = await db
    .selectFrom('backup_plan_resources')
    .innerJoin('backup_plans', 'backup_plans.id', 'backup_plan_resources.plan')
    .select('backup_plans.id')
    .where('backup_plan_resources.resource', '=', server)
    .where('backup_plans.form', '=', 'policy')
    .executeTakeFirst()
  return row?.id ?? null
}

// ---------------------------------------------------------------- schedules

export async function schedulesOf(db: Db, plan: string): Promise<BackupScheduleRow[]> {
  return await db
    .selectFrom('backup_schedules')
    .selectAll()
    .where('plan', '=', plan)
    .orderBy('created_at')
    .orderBy('id')
    .execute()
}

export async function readTrigger(db: Db, id: string): Promise<BackupTriggerRow | undefined> {
  return await db.selectFrom('backup_triggers').selectAll().where('id', '=', id).executeTakeFirst()
}

export async function readSchedule(db: Db, id: string): Promise<BackupScheduleRow | undefined> {
  return await db.selectFrom('backup_schedules').selectAll().where('id', '=', id).executeTakeFirst()
}

export async function insertTrigger(tx: Transaction, row: BackupTriggerRow): Promise<void> {
  await tx.insertInto('backup_triggers').values(row).execute()
}

export async function insertSchedule(tx: Transaction, row: BackupScheduleRow): Promise<void> {
  await tx.insertInto('backup_schedules').values(row).execute()
}

export async function updateSchedule(
  tx: Transaction,
  id: string,
  change: Partial<
    Pick<BackupScheduleRow, 'name' | 'description' | 'enabled' | 'definition' | 'next_at'>
  >,
  nowMs: number,
): Promise<void> {
  await tx
    .updateTable('backup_schedules')
    .set({ ...change, updated_at: nowMs })
    .where('id', '=', id)
    .execute()
}

/** Enabled ones whose instant has come, the longest waiting first. */
export async function dueSchedules(
  db: Db,
  nowMs: number,
  limit: number,
): Promise<BackupScheduleRow[]> {
  return await db
    .selectFrom('backup_schedules')
    .selectAll()
    .where('enabled', '=', 1)
    .where('next_at', '<=', nowMs)
    .orderBy('next_at')
    .orderBy('id')
    .limit(limit)
    .execute()
}

/** Enabled ones that wait for a later instant, or for none, by id, behind `after`. */
export async function waitingSchedules(
  db: Db,
  nowMs: number,
  after: string,
  limit: number,
): Promise<BackupScheduleRow[]> {
  return await db
    .selectFrom('backup_schedules')
    .selectAll()
    .where('enabled', '=', 1)
    .where('id', '>', after)
    .where((eb) => eb.or([eb('next_at', 'is', null), eb('next_at', '>', nowMs)]))
    .orderBy('id')
    .limit(limit)
    .execute()
}
