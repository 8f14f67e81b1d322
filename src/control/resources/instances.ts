import { assert } from '#base/assert.ts'
import { fromJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { ProtectionGroupRow, ReplicationPairRow } from '#control/store/tables/resources.ts'
import type { ProtectedInstanceRow, ServerRow } from '#control/store/tables/servers.ts'
import { INSTANCE_MOVES, type InstanceStatus, identityMoves } from '#domain/protected-instance.ts'
import type { GroupStatus } from '#domain/protection-group.ts'
import { readGroup } from './groups.ts'

/** Queries about protected instances. Every one that serves a caller is bound to the caller's project. */
type Db = Queries | Transaction

export const instanceStatus = (row: ProtectedInstanceRow): InstanceStatus =>
  row.status as InstanceStatus

export async function findInstance(
  db: Db,
  project: string,
  id: string,
): Promise<ProtectedInstanceRow | undefined> {
  return await db
    .selectFrom('protected_instances')
    .selectAll()
    .where('project', '=', project)
    .where('id', '=', id)
    .executeTakeFirst()
}

/** For operations, which know the instance and not the caller. */
export async function readInstance(db: Db, id: string): Promise<ProtectedInstanceRow | undefined> {
  return await db
    .selectFrom('protected_instances')
    .selectAll()
    .where('id', '=', id)
    .executeTakeFirst()
}

/** Newest first, then by id: the order of the list. */
export async function listInstances(db: Db, project: string): Promise<ProtectedInstanceRow[]> {
  return await db
    .selectFrom('protected_instances')
    .selectAll()
    .where('project', '=', project)
    .orderBy('created_at', 'desc')
    .orderBy('id')
    .execute()
}

export async function instancesOfGroup(db: Db, group: string): Promise<ProtectedInstanceRow[]> {
  return await db
    .selectFrom('protected_instances')
    .selectAll()
    .where('group_id', '=', group)
    .orderBy('created_at')
    .orderBy('id')
    .execute()
}

export async function insertInstance(tx: Transaction, row: ProtectedInstanceRow): Promise<void> {
  await tx.insertInto('protected_instances').values(row).execute()
}

/** Moves along the table of moves, or stays. One that is gone stays gone. */
export async function moveInstance(
  tx: Transaction,
  id: string,
  to: InstanceStatus,
  nowMs: number,
): Promise<void> {
  const row = await readInstance(tx, id)
  if (row === undefined || row.status === to) return
  assert(
    INSTANCE_MOVES[instanceStatus(row)].includes(to),
    `an instance does not move from ${row.status} to ${to}`,
  )
  await updateInstance(tx, id, { status: to }, nowMs)
}

export async function updateInstance(
  tx: Transaction,
  id: string,
  change: Partial<
    Omit<ProtectedInstanceRow, 'id' | 'project' | 'group_id' | 'created_at' | 'updated_at'>
  >,
  nowMs: number,
): Promise<void> {
  await tx
    .updateTable('protected_instances')
    .set({ ...change, updated_at: nowMs })
    .where('id', '=', id)
    .execute()
}

export async function deleteInstanceRow(tx: Transaction, id: string): Promise<void> {
  await tx.deleteFrom('protected_instances').where('id', '=', id).execute()
}

// ---------------------------------------------------------------- servers of an instance

type Roles = Pick<ProtectionGroupRow, 'station'>
type Servers = Pick<ProtectedInstanceRow, 'source_server' | 'target_server'>

/** The server that runs, or may be started. */
export const productionServer = (group: Roles, instance: Servers): string =>
  group.station === 'source' ? instance.source_server : instance.target_server

/** The server that waits. */
export const drServer = (group: Roles, instance: Servers): string =>
  group.station === 'source' ? instance.target_server : instance.source_server

/** The servers stay off while the group is being switched. */
const SWITCHING: ReadonlySet<GroupStatus> = new Set(['reversing', 'failing-over'])

/**
 * Whether a server may run where it is: not protected, or at the production site of a group that is not being switched. An instance that
 * was never complete, or is being taken apart, has its production server at the site where it was when that began.
 */
export async function mayRun(db: Db, server: Pick<ServerRow, 'id' | 'instance'>): Promise<boolean> {
  if (server.instance === null) return true
  const instance = await readInstance(db, server.instance)
  if (instance === undefined) return true
  const group = await readGroup(db, instance.group_id)
  assert(group !== undefined, 'an instance has a group')
  if (!identityMoves(instanceStatus(instance))) return wearsProduction(db, instance, server.id)
  if (SWITCHING.has(group.status as GroupStatus)) return false
  return productionServer(group, instance) === server.id
}

/** Without a move of its ports, the server that does not show the spare one is the one that was production. */
async function wearsProduction(
  db: Db,
  instance: ProtectedInstanceRow,
  server: string,
): Promise<boolean> {
  if (instance.spare_port === null) return server === instance.source_server
  const spare = await db
    .selectFrom('ports')
    .select('server')
    .where('id', '=', instance.spare_port)
    .executeTakeFirst()
  return spare?.server !== server
}

// ---------------------------------------------------------------- pairs of an instance

/** An entry of a pair's `attachments`. */
export interface PairAttachment {
  readonly instance: string
  readonly device: string
}

export const pairAttachments = (pair: Pick<ReplicationPairRow, 'attachments'>): PairAttachment[] =>
  pair.attachments === '[]' ? [] : fromJson<PairAttachment[]>(pair.attachments)

export interface AttachedPair<Pair = ReplicationPairRow> {
  readonly pair: Pair
  readonly device: string
}

/** What a list of instances needs of their pairs. */
export type PairGist = Pick<
  ReplicationPairRow,
  'id' | 'group_id' | 'status' | 'attachments' | 'in_session' | 'progress' | 'added_epoch'
>

/** Ids of a project's instances of which a server is gone. */
export async function brokenInstances(db: Db, project: string): Promise<ReadonlySet<string>> {
  const rows = await db
    .selectFrom('protected_instances')
    .leftJoin('servers as source', 'source.id', 'protected_instances.source_server')
    .leftJoin('servers as target', 'target.id', 'protected_instances.target_server')
    .select('protected_instances.id')
    .where('protected_instances.project', '=', project)
    .where((eb) => eb.or([eb('source.id', 'is', null), eb('target.id', 'is', null)]))
    .execute()
  return new Set(rows.map(({ id }) => id))
}

/** Attached pairs by instance, each in the order of the device names. */
export function pairsByInstance<Pair extends Pick<ReplicationPairRow, 'attachments'>>(
  pairs: readonly Pair[],
): ReadonlyMap<string, readonly AttachedPair<Pair>[]> {
  const found = new Map<string, AttachedPair<Pair>[]>()
  for (const pair of pairs) {
    for (const { instance, device } of pairAttachments(pair)) {
      const list = found.get(instance) ?? []
      list.push({ pair, device })
      found.set(instance, list)
    }
  }
  for (const list of found.values()) {
    list.sort((a, b) => (a.device < b.device ? -1 : a.device > b.device ? 1 : 0))
  }
  return found
}

export const attachedPairs = (
  pairs: readonly ReplicationPairRow[],
  instance: string,
): readonly AttachedPair[] => pairsByInstance(pairs).get(instance) ?? []

/** Those that were made with the instance and belong to nobody else: they go with it. */
export const ownPairs = (
  pairs: readonly ReplicationPairRow[],
  instance: string,
): readonly AttachedPair[] =>
  attachedPairs(pairs, instance).filter(
    ({ pair }) => pair.made_by === instance && pairAttachments(pair).length === 1,
  )
