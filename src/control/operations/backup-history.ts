import type { Store, Transaction } from '#control/store/store.ts'

/* What was done with backups is remembered for a while, and then forgotten: operation logs, restores, verifications, and copies that failed or whose
 * source is gone. A record of a copy that is there stays as long as its source does: it says that nothing has to be sent again. */

export const HISTORY_DAYS = 90
const HISTORY_MS = HISTORY_DAYS * 86_400_000
/** Of one transaction, so that nobody waits long for it. */
const AT_ONCE = 500

/** Forgets what ended longer ago than that. Answers how many entries went. */
export async function forgetBackupHistory(store: Store, nowMs: number): Promise<number> {
  const before = nowMs - HISTORY_MS
  let gone = 0
  for (const forgetOld of [oldLogs, oldRestores, oldVerifications, oldRecords]) {
    for (;;) {
      const count = await store.write((tx) => forgetOld(tx, before))
      gone += count
      if (count < AT_ONCE) break
    }
  }
  return gone
}

async function oldLogs(tx: Transaction, before: number): Promise<number> {
  return await forget(
    tx,
    'backup_logs',
    tx.selectFrom('backup_logs').select('id').where('ended_at', '<', before),
  )
}

async function oldRestores(tx: Transaction, before: number): Promise<number> {
  return await forget(tx, 'restores', ended(tx, 'restores', before))
}

async function oldVerifications(tx: Transaction, before: number): Promise<number> {
  return await forget(tx, 'verifications', ended(tx, 'verifications', before))
}

const ended = (tx: Transaction, table: 'restores' | 'verifications', before: number) =>
  tx
    .selectFrom(table)
    .select('id')
    .where('status', 'in', ['success', 'fail'])
    .where('updated_at', '<', before)

async function oldRecords(tx: Transaction, before: number): Promise<number> {
  const old = tx
    .selectFrom('replication_records')
    .leftJoin('checkpoint_items', 'checkpoint_items.id', 'replication_records.item')
    .select('replication_records.id')
    .where('replication_records.status', 'in', ['success', 'fail', 'skip'])
    .where('replication_records.updated_at', '<', before)
    .where((eb) =>
      eb.or([
        eb('replication_records.status', '<>', 'success'),
        eb('checkpoint_items.id', 'is', null),
      ]),
    )
  return await forget(tx, 'replication_records', old)
}

/** Deletes the first of the rows that `old` finds in `table`. Answers how many went. */
async function forget(
  tx: Transaction,
  table: 'backup_logs' | 'restores' | 'verifications' | 'replication_records',
  old: { limit(rows: number): { execute(): Promise<{ id: string }[]> } },
): Promise<number> {
  const ids = (await old.limit(AT_ONCE).execute()).map(({ id }) => id)
  if (ids.length > 0) await tx.deleteFrom(table).where('id', 'in', ids).execute()
  return ids.length
}
