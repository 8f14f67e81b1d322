import { fromJson, toJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { RestoreRow } from '#control/store/tables/checkpoints.ts'

/** Queries about restores. Every one that serves a caller is bound to the caller's project. */
type Db = Queries | Transaction

export async function readRestore(db: Db, id: string): Promise<RestoreRow | undefined> {
  return await db.selectFrom('restores').selectAll().where('id', '=', id).executeTakeFirst()
}

export async function insertRestore(tx: Transaction, row: RestoreRow): Promise<void> {
  await tx.insertInto('restores').values(row).execute()
}

export interface RestoredResource {
  /** `type#id` */
  readonly key: string
  readonly status: 'restoring' | 'available' | 'error'
  /** null: what was said before stays. */
  readonly reason: string | null
}

/** Says how one resource of a restore stands. The restore has ended when all have, and well when all have ended well. */
export async function settleRestore(
  tx: Transaction,
  id: string,
  { key, status, reason }: RestoredResource,
  nowMs: number,
): Promise<void> {
  const row = await readRestore(tx, id)
  if (row === undefined) return
  const statuses = { ...fromJson<Record<string, string>>(row.resources_status), [key]: status }
  const reasons = {
    ...fromJson<Record<string, string>>(row.resources_reason),
    ...(reason === null ? {} : { [key]: reason }),
  }
  const all = Object.values(statuses)
  await tx
    .updateTable('restores')
    .set({
      resources_status: toJson(statuses),
      resources_reason: toJson(reasons),
      status: all.includes('restoring')
        ? 'in_progress'
        : all.includes('error')
          ? 'fail'
          : 'success',
      updated_at: nowMs,
    })
    .where('id', '=', id)
    .execute()
}
