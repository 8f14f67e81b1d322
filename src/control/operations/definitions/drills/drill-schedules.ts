import { newId } from '#base/ids.ts'
import {
  deleteScheduleRow,
  findSchedule,
  insertSchedule,
  listSchedules,
  updateSchedule,
} from '#control/resources/drills.ts'
import { findGroup } from '#control/resources/groups.ts'
import { instancesOfGroup } from '#control/resources/instances.ts'
import { findVpc } from '#control/resources/networks.ts'
import { bit } from '#control/store/bit.ts'
import { toJson } from '#control/store/json.ts'
import type { Transaction } from '#control/store/store.ts'
import type { DrillScheduleRow } from '#control/store/tables/drills.ts'
import { SCHEDULES_PER_PROJECT_MAX } from '#domain/drill.ts'
import { nextAfter, type RecurrenceRefusal, recurrence } from '#domain/recurrence.ts'
import type { DrillOptions } from './drill-facts.ts'
import { type Outcome, type RequestServices, refused } from '../requests.ts'

/* When drills begin by themselves. They are carried out by drill-clock.ts. */

type Services = Pick<RequestServices, 'store' | 'clock'>

export interface ScheduleParts {
  readonly name: string
  /** RFC 5545, see src/domain/recurrence.ts. */
  readonly rule: string
  readonly zone: string
  readonly options: DrillOptions
  readonly vpc: string | null
  readonly enabled: boolean
  readonly runMissed: boolean
}

export type ScheduleRefusal =
  | 'SCHEDULE_UNKNOWN'
  | 'GROUP_UNKNOWN'
  | 'DRILL_PROBES_UNKNOWN'
  | 'DRILL_VPC_UNKNOWN'
  | 'DRILL_VPC_OF_GROUP'
  | 'QUOTA_SCHEDULES'
  | `RULE_${RecurrenceRefusal}`
  /** The rule never comes to pass. */
  | 'RULE_NEVER'

export async function createSchedule(
  { store, clock }: Services,
  place: { readonly project: string; readonly user: string; readonly group: string },
  parts: ScheduleParts,
): Promise<Outcome<{ readonly schedule: DrillScheduleRow }, ScheduleRefusal>> {
  const { project, user, group } = place
  const now = clock.wallMs()
  const next = nextOf(parts, now, now)
  if (typeof next === 'string') return refused(next)
  return await store.write(async (tx) => {
    const unfit = await unfitFor(tx, project, group, parts)
    if (unfit !== null) return refused(unfit)
    if ((await listSchedules(tx, project)).length >= SCHEDULES_PER_PROJECT_MAX) {
      return refused('QUOTA_SCHEDULES')
    }
    const schedule: DrillScheduleRow = {
      id: newId(),
      project,
      group_id: group,
      anchor_at: now,
      user_id: user,
      last_at: null,
      last_drill: null,
      last_outcome: null,
      last_reason: null,
      last_result: null,
      created_at: now,
      ...columnsOf(parts, next, now),
    }
    await insertSchedule(tx, schedule)
    return { ok: true, schedule }
  })
}

/** What is left out stays. A change of the rule keeps its anchor, see src/domain/recurrence.ts. */
export async function changeSchedule(
  { store, clock }: Services,
  project: string,
  id: string,
  change: (before: DrillScheduleRow) => ScheduleParts,
): Promise<Outcome<{ readonly schedule: DrillScheduleRow }, ScheduleRefusal>> {
  const now = clock.wallMs()
  return await store.write(async (tx) => {
    const before = await findSchedule(tx, project, id)
    if (before === undefined) return refused('SCHEDULE_UNKNOWN')
    const parts = change(before)
    const next = nextOf(parts, before.anchor_at, now)
    if (typeof next === 'string') return refused(next)
    const unfit = await unfitFor(tx, project, before.group_id, parts)
    if (unfit !== null) return refused(unfit)
    const columns = columnsOf(parts, next, now)
    await updateSchedule(tx, id, columns)
    return { ok: true, schedule: { ...before, ...columns } }
  })
}

export async function removeSchedule(
  { store }: Pick<Services, 'store'>,
  project: string,
  id: string,
): Promise<Outcome<object, 'SCHEDULE_UNKNOWN'>> {
  return await store.write(async (tx) => {
    if ((await findSchedule(tx, project, id)) === undefined) return refused('SCHEDULE_UNKNOWN')
    await deleteScheduleRow(tx, id)
    return { ok: true }
  })
}

/** What no drill of the schedule could ever get past as things are; what may be otherwise by then is judged then. */
async function unfitFor(
  tx: Transaction,
  project: string,
  id: string,
  { options, vpc }: ScheduleParts,
): Promise<ScheduleRefusal | null> {
  const group = await findGroup(tx, project, id, 'sdrs')
  if (group === undefined) return 'GROUP_UNKNOWN'
  const known = new Set(['*', ...(await instancesOfGroup(tx, id)).map((instance) => instance.id)])
  if (Object.keys(options.probes).some((name) => !known.has(name))) return 'DRILL_PROBES_UNKNOWN'
  if (vpc === null) return null
  if (vpc === group.vpc) return 'DRILL_VPC_OF_GROUP'
  return (await findVpc(tx, project, vpc)) === undefined ? 'DRILL_VPC_UNKNOWN' : null
}

/** Wall clock, ms; null: never again. */
export function nextTime(
  { rule, zone, anchor_at }: Pick<DrillScheduleRow, 'rule' | 'zone' | 'anchor_at'>,
  nowMs: number,
): number | null {
  const parsed = recurrence(rule, zone)
  // It was checked when it was stored; a later release that takes less lets it rest.
  return parsed.ok ? nextAfter(parsed.rule, anchor_at, nowMs) : null
}

function nextOf(
  { rule, zone }: ScheduleParts,
  anchorMs: number,
  nowMs: number,
): number | ScheduleRefusal {
  const parsed = recurrence(rule, zone)
  if (!parsed.ok) return `RULE_${parsed.refusal}`
  return nextAfter(parsed.rule, anchorMs, nowMs) ?? 'RULE_NEVER'
}

const columnsOf = (parts: ScheduleParts, next: number, now: number) => ({
  name: parts.name,
  rule: parts.rule,
  zone: parts.zone,
  options: toJson(parts.options),
  vpc: parts.vpc,
  enabled: bit(parts.enabled),
  run_missed: bit(parts.runMissed),
  next_at: next,
  updated_at: now,
})
