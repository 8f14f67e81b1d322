import { assert } from '#base/assert.ts'
import { newId } from '#base/ids.ts'
import { fromJson, toJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { VolumeRow } from '#control/store/tables/resources.ts'
import type { KeypairRow, ServerDiskRow, ServerRow } from '#control/store/tables/servers.ts'
import {
  SERVER_MOVES,
  type ServerFacts,
  type ServerStatus,
  type ServerTask,
} from '#domain/server.ts'
import type { VolumeStatus } from '#domain/volume.ts'
import { mayRun } from './instances.ts'
import { attachmentsOf, readVolume, updateVolume } from './volumes.ts'

/** Queries about servers and their disks. Every one that serves a caller is bound to the caller's project. */
type Db = Queries | Transaction

export const SERVER_RESOURCE = 'server'

/** Why a status is an error, or why the last start or stop failed. */
export interface ServerFault {
  /** Of the fault catalogue, or the agent's own code of a refusal. */
  readonly code: string
  readonly message: string
  /** Wall clock, ms. */
  readonly at: number
  /** True: the server is whole. Its status follows what its site says of it next. */
  readonly passing: boolean
}

export const faultOf = (row: Pick<ServerRow, 'fault'>): ServerFault | null =>
  row.fault === null ? null : fromJson<ServerFault>(row.fault)

export const serverMetadataOf = (row: ServerRow): Record<string, string> =>
  fromJson<Record<string, string>>(row.metadata)

export const serverStatus = (row: Pick<ServerRow, 'status'>): ServerStatus =>
  row.status as ServerStatus
export const serverTask = (row: Pick<ServerRow, 'task'>): ServerTask | null =>
  row.task as ServerTask | null

export async function findServer(
  db: Db,
  project: string,
  id: string,
): Promise<ServerRow | undefined> {
  return await db
    .selectFrom('servers')
    .selectAll()
    .where('project', '=', project)
    .where('id', '=', id)
    .executeTakeFirst()
}

/** For operations, which know the server and not the caller. */
export async function readServer(db: Db, id: string): Promise<ServerRow | undefined> {
  return await db.selectFrom('servers').selectAll().where('id', '=', id).executeTakeFirst()
}

/** Newest first, then by id. */
export async function listServers(db: Db, project: string): Promise<ServerRow[]> {
  return await db
    .selectFrom('servers')
    .selectAll()
    .where('project', '=', project)
    .orderBy('created_at', 'desc')
    .orderBy('id')
    .execute()
}

/** Of these servers, each one's disks in the order of their devices. A server without disks has an empty list. */
export async function disksOf(
  db: Db,
  servers: readonly string[],
): Promise<Map<string, ServerDiskRow[]>> {
  const found = new Map<string, ServerDiskRow[]>(servers.map((id) => [id, []]))
  for (let from = 0; from < servers.length; from += IDS_PER_QUERY) {
    const rows = await db
      .selectFrom('server_disks')
      .selectAll()
      .where('server', 'in', servers.slice(from, from + IDS_PER_QUERY))
      .orderBy('device')
      .execute()
    for (const row of rows) found.get(row.server)?.push(row)
  }
  return found
}

/** Both engines limit the number of parameters of a statement. */
const IDS_PER_QUERY = 500

export async function serversOfVolume(db: Db, volume: string): Promise<ServerDiskRow[]> {
  return await db
    .selectFrom('server_disks')
    .selectAll()
    .where('volume', '=', volume)
    .orderBy('server')
    .execute()
}

export async function listKeypairs(db: Db, project: string): Promise<KeypairRow[]> {
  return await db
    .selectFrom('keypairs')
    .selectAll()
    .where('project', '=', project)
    .orderBy('name')
    .execute()
}

export async function findKeypair(
  db: Db,
  project: string,
  name: string,
): Promise<KeypairRow | undefined> {
  return await db
    .selectFrom('keypairs')
    .selectAll()
    .where('project', '=', project)
    .where('name', '=', name)
    .executeTakeFirst()
}

// ---------------------------------------------------------------- changes

export async function insertServer(tx: Transaction, row: ServerRow): Promise<void> {
  await tx.insertInto('servers').values(row).execute()
}

/** Changes columns. A change of status has to be a move of the table. */
export async function updateServer(
  tx: Transaction,
  id: string,
  change: Partial<Omit<ServerRow, 'id' | 'project' | 'created_at' | 'updated_at'>>,
  nowMs: number,
): Promise<void> {
  if (change.status !== undefined) {
    const row = await readServer(tx, id)
    if (row === undefined) return
    const to = change.status as ServerStatus
    assert(
      row.status === to || SERVER_MOVES[serverStatus(row)].includes(to),
      `a server does not move from ${row.status} to ${to}`,
    )
  }
  await tx
    .updateTable('servers')
    .set({ ...change, updated_at: nowMs })
    .where('id', '=', id)
    .execute()
}

/** The row and its tags. Its disks and ports were taken out before. */
export async function deleteServerRow(tx: Transaction, id: string): Promise<void> {
  await tx.deleteFrom('tags').where('kind', '=', 'server').where('resource', '=', id).execute()
  await tx.deleteFrom('servers').where('id', '=', id).execute()
}

/** What decisions about a server need to know. */
export async function serverFacts(db: Db, row: ServerRow): Promise<ServerFacts> {
  return {
    status: serverStatus(row),
    task: serverTask(row),
    protected: row.instance !== null,
    production: (await isProduction(db, row)) && (await mayRun(db, row)),
  }
}

/** False: a group that it, or a disk of it, belongs to has its production at another site. */
async function isProduction(db: Db, { id, az, instance }: ServerRow): Promise<boolean> {
  const groups = await db
    .selectFrom('server_disks')
    .innerJoin('volumes', 'volumes.id', 'server_disks.volume')
    .innerJoin('replication_pairs', 'replication_pairs.id', 'volumes.pair')
    .innerJoin('protection_groups', 'protection_groups.id', 'replication_pairs.group_id')
    .select(['station', 'source_az', 'target_az'])
    .where('server_disks.server', '=', id)
    .execute()
  if (instance !== null) {
    const own = await db
      .selectFrom('protected_instances')
      .innerJoin('protection_groups', 'protection_groups.id', 'protected_instances.group_id')
      .select(['station', 'source_az', 'target_az'])
      .where('protected_instances.id', '=', instance)
      .execute()
    groups.push(...own)
  }
  return groups.every(
    (group) => az === (group.station === 'source' ? group.source_az : group.target_az),
  )
}

// ---------------------------------------------------------------- disks

/* A disk in a server is said twice: by its row in server_disks, and by the attachments and the status of the volume, as the volume
 * dialects show it. The functions below are the only ones that write either, so that the two agree in every committed state.
 *
 *     row            volume shows
 *     attaching      attaching     (or what it was: in-use by another server, creating)
 *     attached       in-use
 *     detaching      detaching
 *     gone           available
 */

export type DiskState = 'attaching' | 'attached' | 'detaching'

export interface NewServerDiskRow {
  readonly server: ServerRow
  readonly volume: VolumeRow
  readonly device: string
  readonly bootIndex: number | null
  readonly deleteWithServer: boolean
  readonly state: DiskState
}

export async function putDiskIn(
  tx: Transaction,
  { server, volume, device, bootIndex, deleteWithServer, state }: NewServerDiskRow,
  nowMs: number,
): Promise<ServerDiskRow> {
  assert(server.az === volume.az, 'a disk is at the site of its server')
  const row: ServerDiskRow = {
    volume: volume.id,
    server: server.id,
    project: server.project,
    device,
    boot_index: bootIndex,
    state,
    delete_with_server: deleteWithServer ? 1 : 0,
    created_at: nowMs,
  }
  await tx.insertInto('server_disks').values(row).execute()
  const attachment = {
    id: newId(),
    server: server.id,
    device,
    host: server.az,
    mode: 'rw',
    at: nowMs,
  }
  const before = attachmentsOf((await readVolume(tx, volume.id)) ?? volume)
  await showInVolume(tx, volume.id, [...before, attachment], nowMs)
  return row
}

export async function setDiskState(
  tx: Transaction,
  server: string,
  volume: string,
  state: DiskState,
  nowMs: number,
): Promise<void> {
  await tx
    .updateTable('server_disks')
    .set({ state })
    .where('server', '=', server)
    .where('volume', '=', volume)
    .execute()
  const row = await readVolume(tx, volume)
  if (row !== undefined) await showInVolume(tx, volume, attachmentsOf(row), nowMs)
}

/** One that is not in the server changes nothing. */
export async function takeDiskOut(
  tx: Transaction,
  server: string,
  volume: string,
  nowMs: number,
): Promise<void> {
  await tx
    .deleteFrom('server_disks')
    .where('server', '=', server)
    .where('volume', '=', volume)
    .execute()
  const row = await readVolume(tx, volume)
  if (row === undefined) return
  const left = attachmentsOf(row).filter((one) => one.server !== server)
  await showInVolume(tx, volume, left, nowMs)
}

/** Statuses that say where the volume is; others say what is being done to it, or what went wrong, and stay. */
const PLACED: ReadonlySet<string> = new Set<VolumeStatus>([
  'available',
  'attaching',
  'in-use',
  'detaching',
])

async function showInVolume(
  tx: Transaction,
  volume: string,
  attachments: ReturnType<typeof attachmentsOf>,
  nowMs: number,
): Promise<void> {
  const row = await readVolume(tx, volume)
  if (row === undefined) return
  const states = (await serversOfVolume(tx, volume)).map((disk) => disk.state)
  await updateVolume(
    tx,
    volume,
    {
      attachments: toJson(attachments),
      ...(PLACED.has(row.status) ? { status: placed(states, attachments.length) } : {}),
    },
    nowMs,
  )
}

/** `attachments`: how many, those included that were recorded by hand for servers which are not ours. */
function placed(states: readonly string[], attachments: number): VolumeStatus {
  if (attachments === 0) return 'available'
  if (attachments > states.length || states.includes('attached')) return 'in-use'
  return states.includes('attaching') ? 'attaching' : 'detaching'
}
