import { assert } from '#base/assert.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { ProtectionGroupRow, ReplicationPairRow } from '#control/store/tables/resources.ts'
import {
  GROUP_MOVES,
  type GroupForm,
  type GroupStatus,
  type Station,
} from '#domain/protection-group.ts'
import { PAIR_MOVES, type PairStatus } from '#domain/replication-pair.ts'

/** Queries about protection groups and their pairs. Every one that serves a caller is bound to the caller's project. */
type Db = Queries | Transaction

/** The group's resource type: operations on one group run one after the other. */
export const GROUP_RESOURCE = 'protection-group'

export const groupStatus = (row: ProtectionGroupRow): GroupStatus => row.status as GroupStatus
export const groupForm = (row: Pick<ProtectionGroupRow, 'form'>): GroupForm => row.form as GroupForm
export const groupStation = (row: ProtectionGroupRow): Station => row.station as Station
export const pairStatus = (row: Pick<ReplicationPairRow, 'status'>): PairStatus =>
  row.status as PairStatus

/** The site that the group's records name as production, and the other one. */
export const productionAz = (row: ProtectionGroupRow): string =>
  row.station === 'source' ? row.source_az : row.target_az
export const drAz = (row: ProtectionGroupRow): string =>
  row.station === 'source' ? row.target_az : row.source_az

/** The pair's disk at a site of its group. */
export const volumeAt = (
  group: ProtectionGroupRow,
  pair: ReplicationPairRow,
  az: string,
): string => (az === group.source_az ? pair.source_volume : pair.target_volume)

/** `form`: groups of other APIs are not found. Default: all. */
export async function findGroup(
  db: Db,
  project: string,
  id: string,
  form?: GroupForm,
): Promise<ProtectionGroupRow | undefined> {
  const row = await db
    .selectFrom('protection_groups')
    .selectAll()
    .where('project', '=', project)
    .where('id', '=', id)
    .executeTakeFirst()
  return form === undefined || row?.form === form ? row : undefined
}

/** For operations, which know the group and not the caller. */
/** Whether one of these groups is in one of these states. Groups of other projects count as absent. */
export async function anyGroupIs(
  db: Db,
  project: string,
  ids: readonly string[],
  statuses: readonly GroupStatus[],
): Promise<boolean> {
  // Both engines bound the number of parameters of a statement.
  for (let at = 0; at < ids.length; at += 500) {
    const row = await db
      .selectFrom('protection_groups')
      .select('id')
      .where('project', '=', project)
      .where('id', 'in', ids.slice(at, at + 500))
      .where('status', 'in', [...statuses])
      .executeTakeFirst()
    if (row !== undefined) return true
  }
  return false
}

export async function readGroup(db: Db, id: string): Promise<ProtectionGroupRow | undefined> {
  return await db
    .selectFrom('protection_groups')
    .selectAll()
    .where('id', '=', id)
    .executeTakeFirst()
}

/** `form`: groups of other APIs are left out. Default: all. */
export async function listGroups(
  db: Db,
  project: string,
  form?: GroupForm,
): Promise<ProtectionGroupRow[]> {
  const query = db.selectFrom('protection_groups').selectAll().where('project', '=', project)
  return await (form === undefined ? query : query.where('form', '=', form)).execute()
}

/** Of all projects, for the reconciler. */
export async function listAllGroups(db: Db): Promise<ProtectionGroupRow[]> {
  return await db.selectFrom('protection_groups').selectAll().orderBy('id').execute()
}

export async function insertGroup(tx: Transaction, row: ProtectionGroupRow): Promise<void> {
  await tx.insertInto('protection_groups').values(row).execute()
}

/** Moves along the table of moves, or stays. A repeated step finds the state it made and changes nothing. */
export async function moveGroup(
  tx: Transaction,
  id: string,
  to: GroupStatus,
  nowMs: number,
): Promise<void> {
  const row = await readGroup(tx, id)
  assert(row !== undefined, 'a group with an operation exists')
  if (row.status === to) return
  assert(
    GROUP_MOVES[groupStatus(row)].includes(to),
    `a group does not move from ${row.status} to ${to}`,
  )
  await updateGroup(tx, id, { status: to }, nowMs)
}

export async function updateGroup(
  tx: Transaction,
  id: string,
  change: Partial<Omit<ProtectionGroupRow, 'id' | 'project' | 'created_at' | 'updated_at'>>,
  nowMs: number,
): Promise<void> {
  await tx
    .updateTable('protection_groups')
    .set({ ...change, updated_at: nowMs })
    .where('id', '=', id)
    .execute()
}

export async function deleteGroupRow(tx: Transaction, id: string): Promise<void> {
  await tx.deleteFrom('protection_groups').where('id', '=', id).execute()
  await tx.deleteFrom('shown_replications').where('id', '=', id).execute()
}

// ---------------------------------------------------------------- pairs

/** A pair's API is its group's, see `findPairOf`. */
export async function findPair(
  db: Db,
  project: string,
  id: string,
): Promise<ReplicationPairRow | undefined> {
  return await db
    .selectFrom('replication_pairs')
    .selectAll()
    .where('project', '=', project)
    .where('id', '=', id)
    .executeTakeFirst()
}

/** A pair and its group, if that is of one of the forms. */
export async function findPairOf(
  db: Db,
  project: string,
  id: string,
  forms: readonly GroupForm[],
): Promise<{ readonly pair: ReplicationPairRow; readonly group: ProtectionGroupRow } | undefined> {
  const pair = await findPair(db, project, id)
  const group = pair === undefined ? undefined : await readGroup(db, pair.group_id)
  if (pair === undefined || group === undefined) return undefined
  return forms.includes(groupForm(group)) ? { pair, group } : undefined
}

export async function readPair(db: Db, id: string): Promise<ReplicationPairRow | undefined> {
  return await db
    .selectFrom('replication_pairs')
    .selectAll()
    .where('id', '=', id)
    .executeTakeFirst()
}

/** In the order of the session's stream. */
export async function pairsOfGroup(db: Db, group: string): Promise<ReplicationPairRow[]> {
  return await db
    .selectFrom('replication_pairs')
    .selectAll()
    .where('group_id', '=', group)
    .orderBy('member')
    .execute()
}

export async function listPairs(db: Db, project: string): Promise<ReplicationPairRow[]> {
  return await db
    .selectFrom('replication_pairs')
    .selectAll()
    .where('project', '=', project)
    .execute()
}

export async function insertPair(tx: Transaction, row: ReplicationPairRow): Promise<void> {
  await tx.insertInto('replication_pairs').values(row).execute()
}

/** Moves along the table of moves, or stays. A pair that is gone stays gone. */
export async function movePair(
  tx: Transaction,
  id: string,
  to: PairStatus,
  nowMs: number,
): Promise<void> {
  const row = await readPair(tx, id)
  if (row === undefined || row.status === to) return
  assert(
    PAIR_MOVES[pairStatus(row)].includes(to),
    `a pair does not move from ${row.status} to ${to}`,
  )
  await updatePair(tx, id, { status: to }, nowMs)
}

export async function updatePair(
  tx: Transaction,
  id: string,
  change: Partial<
    Omit<ReplicationPairRow, 'id' | 'project' | 'group_id' | 'created_at' | 'updated_at'>
  >,
  nowMs: number,
): Promise<void> {
  await tx
    .updateTable('replication_pairs')
    .set({ ...change, updated_at: nowMs })
    .where('id', '=', id)
    .execute()
}

/** Another group gets the pair, under the next number of its session; the pair is in no session then. */
export async function placePair(
  tx: Transaction,
  pair: ReplicationPairRow,
  from: ProtectionGroupRow,
  to: string,
  nowMs: number,
): Promise<void> {
  const group = await readGroup(tx, to)
  assert(group !== undefined, 'the group that a pair goes to exists')
  assert(pair.in_session === 0, 'a pair that goes elsewhere is in no session')
  const source = volumeAt(from, pair, group.source_az)
  const target = volumeAt(from, pair, group.target_az)
  assert(source !== target, 'both groups join the same two sites')
  // The roles of the sites may be the other way round there; how the disks were named stays.
  const swapped = source !== pair.source_volume
  await tx
    .updateTable('replication_pairs')
    .set({
      group_id: to,
      member: group.next_member,
      source_volume: source,
      target_volume: target,
      target_first: swapped === (pair.target_first === 1) ? 0 : 1,
      added_epoch: 0,
      blank_epoch: null,
      updated_at: nowMs,
    })
    .where('id', '=', pair.id)
    .execute()
  await updateGroup(tx, to, { next_member: group.next_member + 1 }, nowMs)
}

export async function deletePairRow(tx: Transaction, id: string): Promise<void> {
  await tx.deleteFrom('replication_pairs').where('id', '=', id).execute()
  await tx.deleteFrom('shown_replications').where('id', '=', id).execute()
}
