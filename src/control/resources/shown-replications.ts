import type { Queries, Transaction } from '#control/store/store.ts'
import type { ShownReplicationRow } from '#control/store/tables/resources.ts'

/* How pairs and groups were last shown, for the API that shows a time of change. See `stampOf` (#domain/shown-stamp.ts). */
type Db = Queries | Transaction

export async function readShown(
  db: Db,
  ids: readonly string[],
): Promise<Map<string, ShownReplicationRow>> {
  const found = new Map<string, ShownReplicationRow>()
  // Both engines bound the number of parameters of a statement.
  for (let at = 0; at < ids.length; at += 500) {
    const rows = await db
      .selectFrom('shown_replications')
      .selectAll()
      .where('id', 'in', ids.slice(at, at + 500))
      .execute()
    for (const row of rows) found.set(row.id, row)
  }
  return found
}

/** Of two that look at once, the one that looked later is kept. What was deleted since it was looked at is not written down again. */
export async function writeShown(
  tx: Transaction,
  rows: readonly ShownReplicationRow[],
): Promise<void> {
  for (let at = 0; at < rows.length; at += 100) {
    const part = rows.slice(at, at + 100)
    const there = await existing(
      tx,
      part.map(({ id }) => id),
    )
    const kept = part.filter(({ id }) => there.has(id))
    if (kept.length === 0) continue
    await tx
      .insertInto('shown_replications')
      .values(kept)
      .onConflict((conflict) =>
        conflict
          .column('id')
          .doUpdateSet((eb) => ({
            shown: eb.ref('excluded.shown'),
            changed_at: eb.ref('excluded.changed_at'),
          }))
          .whereRef('shown_replications.changed_at', '<=', 'excluded.changed_at'),
      )
      .execute()
  }
}

async function existing(tx: Transaction, ids: readonly string[]): Promise<ReadonlySet<string>> {
  const pairs = tx.selectFrom('replication_pairs').select('id').where('id', 'in', ids)
  const groups = tx.selectFrom('protection_groups').select('id').where('id', 'in', ids)
  return new Set([...(await pairs.execute()), ...(await groups.execute())].map(({ id }) => id))
}
