import { definitionOf, retentionOf } from '#control/resources/backup-plans.ts'
import { REGION_UNKNOWN } from '#control/sites/regions.ts'
import type { Transaction } from '#control/store/store.ts'
import type { BackupScheduleRow } from '#control/store/tables/checkpoints.ts'
import { Fault } from '#base/fault.ts'
import type { RetentionRule } from '#domain/retention.ts'
import { RetentionAnswer, type RetentionRequest } from '#wire/replica.ts'
import type { OperationEngine } from '../../engine.ts'
import { operation, step } from '../../operation.ts'
import type { BackupServices } from './backup-rows.ts'
import { sweepItems } from './retention.ts'

/* What a policy's replication keeps in the other region. The rule is this region's, the backups are that one's: it is told the rule at each instant of the
 * schedule, and lets go what the rule does not keep of the copies that this schedule sent. What people sent there, only people remove; and nothing depends
 * on what is still here of the sources. */

export const REPLICA_RETENTION_RESOURCE = 'backup-replica-retention'

export interface SweepReplicas {
  readonly region: string
  readonly project: string
  readonly request: RetentionRequest
}

interface Swept {
  readonly removed: number
}

export const sweepReplicas = operation<SweepReplicas>('backup.sweep-replicas', {
  version: 1,
  steps: [
    step<SweepReplicas, Swept>('tell', {
      act: async ({ services, input, signal }) => {
        const { region, project, request: body } = input
        const doing = `telling ${region} what policy ${body.policy} keeps`
        if (services.regions === undefined) throw new Fault(REGION_UNKNOWN, doing)
        const path = '/api/v1/replicas/retention'
        const to = { region, project, method: 'POST', path, body } as const
        const { removed } = await services.regions.call({ ...to, answer: RetentionAnswer, signal })
        return { removed }
      },
    }),
  ],
  failed: async () => {},
})

/** Begins the sweep of one schedule; a rule that lets nothing go is not told. */
export async function submitReplicaSweep(
  tx: Transaction,
  operations: OperationEngine,
  schedule: BackupScheduleRow,
  region: string,
): Promise<void> {
  const definition = definitionOf(schedule)
  const rule = retentionOf(definition)
  const to = definition.destination_region
  const project = definition.destination_project_id
  const bounded = rule.maxBackups > 0 || rule.maxDays > 0
  if (rule.permanent || !bounded || to === undefined || project === undefined) return
  await operations.submit(tx, sweepReplicas, {
    project: schedule.project,
    resourceType: REPLICA_RETENTION_RESOURCE,
    resourceId: schedule.id,
    input: {
      region: to,
      project,
      request: {
        source_region: region,
        policy: schedule.plan,
        rule: {
          max_backups: rule.maxBackups,
          max_days: rule.maxDays,
          slots: { ...rule.slots },
          zone_minutes: rule.zoneMinutes,
        },
      },
    },
  })
}

// ---------------------------------------------------------------- at the destination

/** Begins to delete what a policy of another region lets go of its copies in this project. Answers how many. The same again finds nothing more. */
export async function letReplicasGo(
  { store, operations, clock }: BackupServices,
  project: string,
  { source_region: region, policy, rule }: RetentionRequest,
): Promise<number> {
  const kept: RetentionRule = {
    permanent: false,
    maxBackups: rule.max_backups,
    maxDays: rule.max_days,
    slots: rule.slots,
    zoneMinutes: rule.zone_minutes,
  }
  return await store.write(async (tx) => {
    const items = await tx
      .selectFrom('checkpoint_items')
      .selectAll()
      .where('source_policy', '=', policy)
      .where('project', '=', project)
      .where('copy_from', '=', region)
      .where('replica', '=', 1)
      .execute()
    let removed = 0
    for (const some of Map.groupBy(items, ({ resource }) => resource).values()) {
      removed += await sweepItems(tx, some, kept, clock.wallMs(), async (kind, request) => {
        const { apart: _, ...wanted } = request
        return await operations.submit(tx, kind, wanted)
      })
    }
    return removed
  })
}
