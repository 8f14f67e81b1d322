import type { Queries, Transaction } from '#control/store/store.ts'
import type { BackupWorkRow, ReplicaAdmissionRow } from '#control/store/tables/checkpoints.ts'

/* Work of backups that goes on by itself at an agent: where it was begun, so that whoever asks for it again asks the same one; and the copies of
 * other regions that were let in, whether they have become a backup or not. */

type Db = Queries | Transaction

export async function readBackupWork(db: Db, work: string): Promise<BackupWorkRow | undefined> {
  return await db.selectFrom('backup_works').selectAll().where('work', '=', work).executeTakeFirst()
}

/** Before the site hears of it. */
export async function noteBackupWork(tx: Transaction, row: BackupWorkRow): Promise<void> {
  const { site, place, updated_at } = row
  await tx
    .insertInto('backup_works')
    .values(row)
    .onConflict((c) => c.column('work').doUpdateSet({ site, place, updated_at }))
    .execute()
}

export async function forgetBackupWork(tx: Transaction, work: string): Promise<void> {
  await tx.deleteFrom('backup_works').where('work', '=', work).execute()
}

export async function readAdmission(
  db: Db,
  record: string,
): Promise<ReplicaAdmissionRow | undefined> {
  return await db
    .selectFrom('replica_admissions')
    .selectAll()
    .where('record', '=', record)
    .executeTakeFirst()
}

/** Lets a copy in, or in again. False: it was for another project, or has had its time. */
export async function admitRecord(
  tx: Transaction,
  row: Omit<ReplicaAdmissionRow, 'state'>,
): Promise<boolean> {
  const known = await readAdmission(tx, row.record)
  if (known === undefined) {
    await tx
      .insertInto('replica_admissions')
      .values({ ...row, state: 'open' })
      .execute()
    return true
  }
  if (known.project !== row.project || known.state === 'ended') return false
  await tx
    .updateTable('replica_admissions')
    .set({ admitted_at: row.admitted_at })
    .where('record', '=', row.record)
    .execute()
  return true
}

export async function setAdmission(
  tx: Transaction,
  record: string,
  state: ReplicaAdmissionRow['state'],
): Promise<void> {
  await tx.updateTable('replica_admissions').set({ state }).where('record', '=', record).execute()
}
