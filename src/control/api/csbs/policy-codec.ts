import {
  definitionOf,
  type OperationDefinition,
  planResources,
  readTrigger,
  schedulesOf,
} from '#control/resources/backup-plans.ts'
import { tagsOf } from '#control/resources/tags.ts'
import { fromJson } from '#control/store/json.ts'
import type { Queries } from '#control/store/store.ts'
import type {
  BackupPlanRow,
  BackupScheduleRow,
  BackupTriggerRow,
} from '#control/store/tables/checkpoints.ts'
import { blankTime, naiveTime } from '../backup/times.ts'

/**
 * Policies as the service shows them. `text`: numbers and yes or no of the operation definition as text, which is what writes answer;
 * `native`: as what they are. Never both in one answer: one client tries all-text first and all-native then.
 */
export async function policyObjects(
  db: Queries,
  rows: readonly BackupPlanRow[],
  kind: 'text' | 'native',
) {
  const shown = []
  for (const row of rows) shown.push(await policyObject(db, row, kind))
  return shown
}

async function policyObject(db: Queries, row: BackupPlanRow, kind: 'text' | 'native') {
  const resources = await planResources(db, row.id)
  const schedules = await schedulesOf(db, row.id)
  const triggers = await Promise.all(schedules.map(({ trigger_id }) => readTrigger(db, trigger_id)))
  return {
    id: row.id,
    name: row.name,
    description: row.description ?? '',
    // Whatever its schedules say: clients wait for this one.
    status: 'suspended',
    created_at: naiveTime(row.created_at),
    project_id: row.project,
    provider_id: row.provider,
    parameters: fromJson<Record<string, unknown>>(row.parameters),
    resources: resources.map(({ resource, type, name, extra_info }) => ({
      id: resource,
      type,
      name,
      extra_info: fromJson<Record<string, unknown>>(extra_info),
    })),
    scheduled_operations: schedules.flatMap((schedule, index) => {
      const trigger = triggers[index]
      return trigger === undefined ? [] : [scheduleObject(row, schedule, trigger, kind)]
    }),
    tags: await tagsOf(db, 'backup_policy', row.id),
  }
}

const scheduleObject = (
  plan: BackupPlanRow,
  schedule: BackupScheduleRow,
  trigger: BackupTriggerRow,
  kind: 'text' | 'native',
) => ({
  id: schedule.id,
  name: schedule.name,
  description: schedule.description ?? '',
  enabled: schedule.enabled === 1,
  operation_type: schedule.operation_type,
  operation_definition: {
    ...definitionObject(definitionOf(schedule), kind),
    plan_id: plan.id,
    provider_id: plan.provider,
  },
  trigger: {
    id: trigger.id,
    name: trigger.name,
    type: 'time',
    properties: {
      pattern: trigger.pattern,
      start_time: blankTime(trigger.start_at),
      format: trigger.format,
    },
  },
  trigger_id: trigger.id,
})

function definitionObject(definition: OperationDefinition, kind: 'text' | 'native') {
  if (kind === 'native') return definition
  const asText = (value: string | number | boolean): string => {
    if (typeof value === 'boolean') return value ? 'True' : 'False'
    return String(value)
  }
  return Object.fromEntries(
    Object.entries(definition).map(([name, value]) => [
      name,
      asText(value as string | number | boolean),
    ]),
  )
}
