import type { Store } from '#control/store/store.ts'

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
  for (const forget of [oldLogs, oldRestores, oldVerifications, oldRecords]) {
    for (;;) {
      const count = await forget(store, before)
      gone += count
      if (count < AT_ONCE) break
    }
  }
  return gone
}

async function oldLogs(store: Store, before: number): Promise<number> {
  return await store.write(async (tx) => {
    const rows = await tx
      .selectFrom('backup_logs')
      .select('id')
      .where('ended_at', '<', before)
      .limit(AT_ONCE)
      .execute()
    const ids = rows.map(({ id }) => id)
    if (ids.length > 0) await tx.deleteFrom('backup_logs').where('id', 'in', ids).execute()
    return ids.length
  })
}

async function oldRestores(store: Store, before: number): Promise<number> {
  return await store.write(async (tx) => {
    const rows = await tx
      .selectFrom('restores')
      .select('id')
      .where('status', 'in', ['success', 'fail'])
      .where('updated_at', '<', before)
      .limit(AT_ONCE)
      .execute()
    const ids = rows.map(({ id }) => id)
    if (ids.length > 0) await tx.deleteFrom('restores').where('id', 'in', ids).execute()
    return ids.length
  })
}

async function oldVerifications(store: Store, before: number): Promise<number> {
  return await store.write(async (tx) => {
    const rows = await tx
      .selectFrom('verifications')
      .select('id')
      .where('status', 'in', ['success', 'fail'])
      .where('updated_at', '<', before)
      .limit(AT_ONCE)
      .execute()
    const ids = rows.map(({ id }) => id)
    if (ids.length > 0) await tx.deleteFrom('verifications').where('id', 'in', ids).execute()
    return ids.length
  })
}

async function oldRecords(store: Store, before: number): Promise<number> {
  return await store.write(async (tx) => {
    const rows = await tx
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
      .limit(AT_ONCE)
      .execute()
    const ids = rows.map(({ id }) => id)
    if (ids.length > 0) await tx.deleteFrom('replication_records').where('id', 'in', ids).execute()
    return ids.length
  })
}
