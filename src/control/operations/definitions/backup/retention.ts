import { definitionOf, retentionOf, schedulesOf } from '#control/resources/backup-plans.ts'
import { imagesOf, itemFacts, updateItem } from '#control/resources/checkpoints.ts'
import type { Transaction } from '#control/store/store.ts'
import type { CheckpointItemRow } from '#control/store/tables/checkpoints.ts'
import { decideItem } from '#domain/checkpoint.ts'
import { expiryOf, retained, type RetentionRule } from '#domain/retention.ts'
import type { SubmitChild } from '../../operation.ts'
import { DELETION_RESOURCE, deleteItem, laneOf } from './checkpoint-deletion.ts'

/* Carries out what src/domain/retention.ts decides: right after every run of a policy, and once a day for all of them. */

/** Operations that make backups; others have no retention here. */
const MAKES_BACKUPS: ReadonlySet<string> = new Set(['backup', 'retention_protect'])

/** Begins to delete what a policy lets go, and says of the rest until when it stays. A policy that is gone lets nothing go. */
export async function sweepPolicy(
  tx: Transaction,
  policy: string,
  nowMs: number,
  submit: SubmitChild,
): Promise<void> {
  const schedule = (await schedulesOf(tx, policy)).find(({ operation_type }) =>
    MAKES_BACKUPS.has(operation_type),
  )
  if (schedule === undefined) return
  const rule = retentionOf(definitionOf(schedule))
  const items = await tx
    .selectFrom('checkpoint_items')
    .selectAll()
    .where('policy', '=', policy)
    .where('replica', '=', 0)
    .execute()
  const byServer = Map.groupBy(items, ({ resource }) => resource)
  for (const some of byServer.values()) await sweepItems(tx, some, rule, nowMs, submit)
}

/** Of one server. Replicas count from the moment that they show. Answers how many are let go. */
export async function sweepItems(
  tx: Transaction,
  items: readonly CheckpointItemRow[],
  rule: RetentionRule,
  nowMs: number,
  submit: SubmitChild,
): Promise<number> {
  const { remove, kept } = retained(
    items.map((item) => ({
      id: item.id,
      createdAt: momentOf(item),
      status: item.status,
      scheduled: item.scheduled === 1,
      images: imagesOf(item).length,
    })),
    rule,
    nowMs,
  )
  const going = new Set(remove)
  let gone = 0
  for (const item of items) {
    // What is copied or attached is still read; the next sweep finds it again.
    if (going.has(item.id) && decideItem(itemFacts(item), 'delete').ok) {
      gone += 1
      await updateItem(tx, item.id, { status: 'waiting_delete' }, nowMs)
      await submit(deleteItem, {
        project: item.project,
        resourceType: DELETION_RESOURCE,
        resourceId: laneOf(item.project, item.id),
        input: { item: item.id },
        entities: { checkpoint_item_id: item.id },
      })
      continue
    }
    const periodic_type = kept.get(item.id) ?? null
    const expires_at =
      item.scheduled === 1 && periodic_type === null ? expiryOf(momentOf(item), rule) : null
    if (item.periodic_type === periodic_type && item.expires_at === expires_at) continue
    await updateItem(tx, item.id, { periodic_type, expires_at }, nowMs)
  }
  return gone
}

/** A replica may have come long after its moment. */
const momentOf = (item: CheckpointItemRow): number =>
  item.replica === 1 ? (item.taken_at ?? item.created_at) : item.created_at
