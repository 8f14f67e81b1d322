import { assert } from '#base/assert.ts'
import { fromJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type {
  CheckpointItemRow,
  CheckpointRow,
  DiskBackupRow,
  ReplicationRecordRow,
} from '#control/store/tables/checkpoints.ts'
import {
  checkpointStatus,
  COPY_OF,
  COPYING_STATUSES,
  copyingStatus,
  ITEM_MOVES,
  type CopyStatus,
  type ItemFacts,
  type ItemStatus,
  RECORD_MOVES,
  type RecordStatus,
} from '#domain/checkpoint.ts'

/** Queries about checkpoints, their items, and copies of them. Every one that serves a caller is bound to the caller's project. */
type Db = Queries | Transaction

export const SERVER_TYPE = 'OS::Nova::Server'
/** All disks of a protection group at one moment: an extension, so no published word. */
export const GROUP_TYPE = 'Holdfast::ProtectionGroup'
export const VOLUME_TYPE = 'OS::Cinder::Volume'

export const itemStatus = (row: Pick<CheckpointItemRow, 'status'>): ItemStatus =>
  row.status as ItemStatus

export const imagesOf = (row: Pick<CheckpointItemRow, 'images'>): string[] =>
  fromJson<string[]>(row.images)

export const itemFacts = (row: CheckpointItemRow): ItemFacts => ({
  status: itemStatus(row),
  copy: row.copy_status as CopyStatus,
  replica: row.replica === 1,
  images: imagesOf(row).length,
  stored: row.vault_checkpoint !== null,
  attached: row.attachment !== null,
})

// ---------------------------------------------------------------- checkpoints

export async function findCheckpoint(
  db: Db,
  project: string,
  id: string,
): Promise<CheckpointRow | undefined> {
  const row = await readCheckpoint(db, id)
  return row?.project === project ? row : undefined
}

/** For operations, and for who has to know whether it exists in another project. */
export async function readCheckpoint(db: Db, id: string): Promise<CheckpointRow | undefined> {
  return await db.selectFrom('checkpoints').selectAll().where('id', '=', id).executeTakeFirst()
}

export async function insertCheckpoint(tx: Transaction, row: CheckpointRow): Promise<void> {
  await tx.insertInto('checkpoints').values(row).execute()
}

/** Brings a checkpoint's status to those of its items; without items it is gone. Called after every change of one. */
export async function settleCheckpoint(tx: Transaction, id: string, nowMs: number): Promise<void> {
  const items = await itemsOf(tx, id)
  if (items.length === 0) {
    await tx.deleteFrom('checkpoints').where('id', '=', id).execute()
    return
  }
  const status = checkpointStatus(
    items.map(itemStatus),
    items.some((item) => item.fail_op === 'delete'),
  )
  let query = tx
    .updateTable('checkpoints')
    .set({ status, updated_at: nowMs })
    .where('id', '=', id)
    .where('status', '<>', status)
  // A copy of all of it shows until its items are something else than available.
  if (status === 'available') query = query.where('status', 'not in', [...COPYING_STATUSES])
  await query.execute()
}

/** The copy of a checkpoint as a whole, as its items stand. `begun`: by this request; otherwise only where one has begun. */
export async function settleCopy(
  tx: Transaction,
  id: string,
  nowMs: number,
  begun = false,
): Promise<void> {
  const row = await readCheckpoint(tx, id)
  const copied = row !== undefined && COPYING_STATUSES.has(row.status)
  if (row === undefined || !(copied || (begun && row.status === 'available'))) return
  const items = await itemsOf(tx, id)
  const status = copyingStatus(items.map(itemFacts))
  await tx
    .updateTable('checkpoints')
    .set({ status, updated_at: nowMs })
    .where('id', '=', id)
    .where('status', '<>', status)
    .execute()
}

// ---------------------------------------------------------------- items

export async function findItem(
  db: Db,
  project: string,
  id: string,
): Promise<CheckpointItemRow | undefined> {
  const row = await readItem(db, id)
  return row?.project === project ? row : undefined
}

/** For operations, which know the item and not the caller. */
export async function readItem(db: Db, id: string): Promise<CheckpointItemRow | undefined> {
  return await db.selectFrom('checkpoint_items').selectAll().where('id', '=', id).executeTakeFirst()
}

/** Oldest first. */
export async function itemsOf(db: Db, checkpoint: string): Promise<CheckpointItemRow[]> {
  return await db
    .selectFrom('checkpoint_items')
    .selectAll()
    .where('checkpoint', '=', checkpoint)
    .orderBy('created_at')
    .orderBy('id')
    .execute()
}

export async function insertItem(tx: Transaction, row: CheckpointItemRow): Promise<void> {
  await tx.insertInto('checkpoint_items').values(row).execute()
}

type ItemChange = Partial<
  Omit<CheckpointItemRow, 'id' | 'project' | 'checkpoint' | 'created_at' | 'updated_at'>
>

/** Changes columns, and the status of its checkpoint with its own. A change of status has to be a move of the table. */
export async function updateItem(
  tx: Transaction,
  id: string,
  change: ItemChange,
  nowMs: number,
): Promise<void> {
  const row = await readItem(tx, id)
  if (row === undefined) return
  if (change.status !== undefined && change.status !== row.status) {
    assert(
      ITEM_MOVES[itemStatus(row)].includes(change.status as ItemStatus),
      `a checkpoint item does not move from ${row.status} to ${change.status}`,
    )
  }
  await tx
    .updateTable('checkpoint_items')
    .set({ ...change, updated_at: nowMs })
    .where('id', '=', id)
    .execute()
  if (change.status !== undefined) await settleCheckpoint(tx, row.checkpoint, nowMs)
}

/** With its disk backups and tags, and the checkpoint when it was its last. Records of copies stay: the copies do. */
export async function deleteItemRows(tx: Transaction, id: string, nowMs: number): Promise<void> {
  const row = await readItem(tx, id)
  if (row === undefined) return
  await tx.deleteFrom('disk_backups').where('item', '=', id).execute()
  await tx.deleteFrom('tags').where('kind', '=', 'backup').where('resource', '=', id).execute()
  await tx.deleteFrom('checkpoint_items').where('id', '=', id).execute()
  await settleCheckpoint(tx, row.checkpoint, nowMs)
}

/** The newest complete backup of a server that is in the vault here, for the next one to build on. */
export async function newestItemOf(db: Db, server: string): Promise<CheckpointItemRow | undefined> {
  return await db
    .selectFrom('checkpoint_items')
    .selectAll()
    .where('resource', '=', server)
    .where('replica', '=', 0)
    .where('vault_checkpoint', 'is not', null)
    .where('status', 'in', ['available', 'waiting_restore', 'restoring'])
    .orderBy('taken_at', 'desc')
    .orderBy('id', 'desc')
    .limit(1)
    .executeTakeFirst()
}

export async function insertDiskBackups(
  tx: Transaction,
  rows: readonly DiskBackupRow[],
): Promise<void> {
  if (rows.length > 0)
    await tx
      .insertInto('disk_backups')
      .values([...rows])
      .execute()
}

/** Of these items, each one's disk backups in the order of the disks. */
export async function diskBackupsOf(
  db: Db,
  items: readonly string[],
): Promise<Map<string, DiskBackupRow[]>> {
  const found = new Map<string, DiskBackupRow[]>(items.map((id) => [id, []]))
  for (let from = 0; from < items.length; from += IDS_PER_QUERY) {
    const rows = await db
      .selectFrom('disk_backups')
      .selectAll()
      .where('item', 'in', items.slice(from, from + IDS_PER_QUERY))
      .orderBy('place')
      .execute()
    for (const row of rows) found.get(row.item)?.push(row)
  }
  return found
}

/** Both engines limit the number of parameters of a statement. */
const IDS_PER_QUERY = 500

// ---------------------------------------------------------------- copies

export async function readRecord(db: Db, id: string): Promise<ReplicationRecordRow | undefined> {
  return await db
    .selectFrom('replication_records')
    .selectAll()
    .where('id', '=', id)
    .executeTakeFirst()
}

/** Of these items, each one's records, oldest first. */
export async function recordsOf(
  db: Db,
  items: readonly string[],
): Promise<Map<string, ReplicationRecordRow[]>> {
  const found = new Map<string, ReplicationRecordRow[]>(items.map((id) => [id, []]))
  for (let from = 0; from < items.length; from += IDS_PER_QUERY) {
    const rows = await db
      .selectFrom('replication_records')
      .selectAll()
      .where('item', 'in', items.slice(from, from + IDS_PER_QUERY))
      .orderBy('created_at')
      .orderBy('id')
      .execute()
    for (const row of rows) found.get(row.item)?.push(row)
  }
  return found
}

export async function insertRecord(tx: Transaction, row: ReplicationRecordRow): Promise<void> {
  await tx.insertInto('replication_records').values(row).execute()
}

type RecordChange = Partial<
  Omit<ReplicationRecordRow, 'id' | 'project' | 'item' | 'created_at' | 'updated_at'>
>

/** Changes columns; the item shows how its latest copy stands. A change of status has to be a move of the table. */
export async function updateRecord(
  tx: Transaction,
  id: string,
  change: RecordChange,
  nowMs: number,
): Promise<void> {
  const row = await readRecord(tx, id)
  if (row === undefined) return
  const from = row.status as RecordStatus
  const to = (change.status ?? from) as RecordStatus
  assert(
    from === to || RECORD_MOVES[from].includes(to),
    `a copy does not move from ${from} to ${to}`,
  )
  await tx
    .updateTable('replication_records')
    .set({ ...change, updated_at: nowMs })
    .where('id', '=', id)
    .execute()
  if (from !== to) await showCopy(tx, row.item, nowMs)
}

/** A copy under way shows before those that have ended, and of these the latest. */
export async function showCopy(tx: Transaction, item: string, nowMs: number): Promise<void> {
  const records = (await recordsOf(tx, [item])).get(item) ?? []
  const active = records.find(({ status }) => status === 'replicating')
  const waiting = records.find(({ status }) => status === 'waiting_replicate')
  const shown = active ?? waiting ?? records.at(-1)
  const copy_status = shown === undefined ? 'na' : COPY_OF[shown.status as RecordStatus]
  await updateItem(tx, item, { copy_status }, nowMs)
  const row = await readItem(tx, item)
  if (row !== undefined) await settleCopy(tx, row.checkpoint, nowMs)
}
