import { assert } from '#base/assert.ts'
import { fromJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { SnapshotRow } from '#control/store/tables/snapshots.ts'
import { SNAPSHOT_MOVES, type SnapshotStatus } from '#domain/snapshot.ts'

/** Queries about snapshots. Every one that serves a caller is bound to the caller's project. */
type Db = Queries | Transaction

/** What the agent said when it was taken, as it said it. */
export interface SnapshotFacts {
  readonly info: {
    /** Wall clock of the site, ms. */
    readonly taken_at: number
    /** Longest wait of a write because of it, ms. */
    readonly stall_ms: number
    readonly volumes: readonly {
      readonly volume: string
      readonly kind: string
      readonly size_bytes: number
      readonly kept_bytes: number
    }[]
  }
  /** Of the session that served the volumes; empty: none did. */
  readonly moments: readonly {
    readonly session: string
    readonly epoch: number
    readonly sequence: number
  }[]
}

export const snapshotStatus = (row: SnapshotRow): SnapshotStatus => row.status as SnapshotStatus
export const snapshotVolumes = (row: SnapshotRow): string[] => fromJson<string[]>(row.volumes)
export const snapshotMetadata = (row: SnapshotRow): Record<string, string> =>
  fromJson<Record<string, string>>(row.metadata)
export const snapshotFacts = (row: SnapshotRow): SnapshotFacts | null =>
  row.facts === null ? null : fromJson<SnapshotFacts>(row.facts)

export async function findSnapshot(
  db: Db,
  project: string,
  id: string,
): Promise<SnapshotRow | undefined> {
  return await db
    .selectFrom('snapshots')
    .selectAll()
    .where('project', '=', project)
    .where('id', '=', id)
    .executeTakeFirst()
}

/** For operations, which know the snapshot and not the caller. */
export async function readSnapshot(db: Db, id: string): Promise<SnapshotRow | undefined> {
  return await db.selectFrom('snapshots').selectAll().where('id', '=', id).executeTakeFirst()
}

/** Newest first. */
export async function listSnapshots(db: Db, project: string): Promise<SnapshotRow[]> {
  return await db
    .selectFrom('snapshots')
    .selectAll()
    .where('project', '=', project)
    .orderBy('created_at', 'desc')
    .orderBy('id')
    .execute()
}

export async function countSnapshots(db: Db, project: string): Promise<number> {
  const row = await db
    .selectFrom('snapshots')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('project', '=', project)
    .executeTakeFirst()
  return Number(row?.count ?? 0)
}

export async function insertSnapshot(tx: Transaction, row: SnapshotRow): Promise<void> {
  await tx.insertInto('snapshots').values(row).execute()
}

export async function changeSnapshotTexts(
  tx: Transaction,
  id: string,
  change: Partial<Pick<SnapshotRow, 'name' | 'description' | 'metadata'>>,
  nowMs: number,
): Promise<void> {
  await tx
    .updateTable('snapshots')
    .set({ ...change, updated_at: nowMs })
    .where('id', '=', id)
    .execute()
}

/** Moves along the table of moves, or stays. One that is gone stays gone. */
export async function moveSnapshot(
  tx: Transaction,
  id: string,
  to: SnapshotStatus,
  change: Partial<Pick<SnapshotRow, 'facts' | 'failure_detail'>>,
  nowMs: number,
): Promise<void> {
  const row = await readSnapshot(tx, id)
  if (row === undefined) return
  assert(
    row.status === to || SNAPSHOT_MOVES[snapshotStatus(row)].includes(to),
    `a snapshot does not move from ${row.status} to ${to}`,
  )
  await tx
    .updateTable('snapshots')
    .set({ ...change, status: to, updated_at: nowMs })
    .where('id', '=', id)
    .execute()
}

export async function deleteSnapshotRow(tx: Transaction, id: string): Promise<void> {
  await tx.deleteFrom('snapshots').where('id', '=', id).execute()
}
