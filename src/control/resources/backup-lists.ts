import { sql } from 'kysely'
import type { Queries } from '#control/store/store.ts'
import type {
  BackupLogRow,
  BackupPlanRow,
  BackupScheduleRow,
  BackupTriggerRow,
  ReplicationRecordRow,
  RestoreRow,
  VerificationRow,
} from '#control/store/tables/checkpoints.ts'
import type { ServerRow } from '#control/store/tables/servers.ts'
import { type Columns, rowsOfPage, type SqlPage } from './sql-pages.ts'

/* Lists of what surrounds backups, of one project each. The database filters, orders and cuts them. */

export type ListKey = 'created_at' | 'id' | 'status' | 'name'

/** Left out: any. */
export type Filters<Name extends string> = Readonly<Partial<Record<Name, string | undefined>>>

interface Made {
  readonly id: string
  readonly status: string
  readonly created_at: number
}

/** What has no name is ordered by its id instead. */
const nameless = <Row extends Made>(): Columns<Row, ListKey> => ({
  created_at: [sql.ref('created_at'), (row) => row.created_at],
  id: [sql.ref('id'), (row) => row.id],
  status: [sql.ref('status'), (row) => row.status],
  name: [sql.ref('id'), (row) => row.id],
})

export async function listRestores(
  db: Queries,
  project: string,
  { status }: Filters<'status'>,
  page: SqlPage<RestoreRow, ListKey>,
): Promise<RestoreRow[]> {
  let query = db.selectFrom('restores').selectAll().where('project', '=', project)
  if (status !== undefined) query = query.where('status', '=', status)
  return await rowsOfPage(query, nameless<RestoreRow>(), page)
}

export async function listVerifications(
  db: Queries,
  project: string,
  { status }: Filters<'status'>,
  page: SqlPage<VerificationRow, ListKey>,
): Promise<VerificationRow[]> {
  let query = db.selectFrom('verifications').selectAll().where('project', '=', project)
  if (status !== undefined) query = query.where('status', '=', status)
  return await rowsOfPage(query, nameless<VerificationRow>(), page)
}

const LOG_COLUMNS: Columns<BackupLogRow, ListKey> = {
  created_at: [sql.ref('started_at'), (row) => row.started_at],
  id: [sql.ref('id'), (row) => row.id],
  status: [sql.ref('status'), (row) => row.status],
  name: [sql.ref('operation_type'), (row) => row.operation_type],
}
export type LogFilter = 'checkpoint' | 'plan' | 'restore' | 'status'

export async function listLogs(
  db: Queries,
  project: string,
  filters: Filters<LogFilter>,
  page: SqlPage<BackupLogRow, ListKey>,
): Promise<BackupLogRow[]> {
  let query = db.selectFrom('backup_logs').selectAll().where('project', '=', project)
  for (const column of ['checkpoint', 'plan', 'restore', 'status'] as const) {
    const value = filters[column]
    if (value !== undefined) query = query.where(column, '=', value)
  }
  return await rowsOfPage(query, LOG_COLUMNS, page)
}

export const RECORD_KEYS = ['created_at', 'updated_at', 'status', 'id'] as const
export type RecordKey = (typeof RECORD_KEYS)[number]
const RECORD_COLUMNS: Columns<ReplicationRecordRow, RecordKey> = {
  created_at: [sql.ref('created_at'), (row) => row.created_at],
  updated_at: [sql.ref('updated_at'), (row) => row.updated_at],
  status: [sql.ref('status'), (row) => row.status],
  id: [sql.ref('id'), (row) => row.id],
}
const RECORD_FILTERS = ['status', 'item', 'checkpoint', 'destination_region', 'policy'] as const
export type RecordFilter = (typeof RECORD_FILTERS)[number]

/** The page, and how many there are on all pages together. `from` and `to` of the creation, ms since 1970, both included. */
export async function listRecords(
  db: Queries,
  project: string,
  filters: Filters<RecordFilter> & {
    readonly from?: number | undefined
    readonly to?: number | undefined
  },
  page: SqlPage<ReplicationRecordRow, RecordKey>,
): Promise<{ readonly rows: ReplicationRecordRow[]; readonly count: number }> {
  let query = db.selectFrom('replication_records').where('project', '=', project)
  for (const column of RECORD_FILTERS) {
    const value = filters[column]
    if (value !== undefined) query = query.where(column, '=', value)
  }
  if (filters.from !== undefined) query = query.where('created_at', '>=', filters.from)
  if (filters.to !== undefined) query = query.where('created_at', '<=', filters.to)
  const counted = await query
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .executeTakeFirstOrThrow()
  const rows = await rowsOfPage(query.selectAll(), RECORD_COLUMNS, page)
  return { rows, count: Number(counted.count) }
}

const PLAN_COLUMNS: Columns<BackupPlanRow, ListKey> = {
  ...nameless<BackupPlanRow>(),
  name: [sql.ref('name'), (row) => row.name],
}

export async function listPlansPaged(
  db: Queries,
  project: string,
  filters: Filters<'name' | 'status' | 'description'>,
  page: SqlPage<BackupPlanRow, ListKey>,
): Promise<BackupPlanRow[]> {
  let query = db.selectFrom('backup_plans').selectAll().where('project', '=', project)
  for (const column of ['name', 'status', 'description'] as const) {
    const value = filters[column]
    if (value !== undefined) query = query.where(column, '=', value)
  }
  return await rowsOfPage(query, PLAN_COLUMNS, page)
}

const TRIGGER_COLUMNS: Columns<BackupTriggerRow, ListKey> = {
  created_at: [sql.ref('created_at'), (row) => row.created_at],
  id: [sql.ref('id'), (row) => row.id],
  status: [sql.ref('id'), (row) => row.id],
  name: [sql.ref('name'), (row) => row.name],
}

export async function listTriggers(
  db: Queries,
  project: string,
  { name }: Filters<'name'>,
  page: SqlPage<BackupTriggerRow, ListKey>,
): Promise<BackupTriggerRow[]> {
  let query = db.selectFrom('backup_triggers').selectAll().where('project', '=', project)
  if (name !== undefined) query = query.where('name', '=', name)
  return await rowsOfPage(query, TRIGGER_COLUMNS, page)
}

const SCHEDULE_COLUMNS: Columns<BackupScheduleRow, ListKey> = {
  created_at: [sql.ref('created_at'), (row) => row.created_at],
  id: [sql.ref('id'), (row) => row.id],
  status: [sql.ref('enabled'), (row) => row.enabled],
  name: [sql.ref('name'), (row) => row.name],
}

export async function listSchedules(
  db: Queries,
  project: string,
  filters: Filters<'name' | 'operation_type' | 'trigger_id'>,
  page: SqlPage<BackupScheduleRow, ListKey>,
): Promise<BackupScheduleRow[]> {
  let query = db.selectFrom('backup_schedules').selectAll().where('project', '=', project)
  for (const column of ['name', 'operation_type', 'trigger_id'] as const) {
    const value = filters[column]
    if (value !== undefined) query = query.where(column, '=', value)
  }
  return await rowsOfPage(query, SCHEDULE_COLUMNS, page)
}

const SERVER_COLUMNS: Columns<ServerRow, ListKey> = {
  ...nameless<ServerRow>(),
  name: [sql.ref('name'), (row) => row.name],
}

/** Servers that could be backed up. */
export async function listProtectables(
  db: Queries,
  project: string,
  { status }: Filters<'status'>,
  page: SqlPage<ServerRow, ListKey>,
): Promise<ServerRow[]> {
  let query = db.selectFrom('servers').selectAll().where('project', '=', project)
  if (status !== undefined) query = query.where('status', '=', status)
  return await rowsOfPage(query, SERVER_COLUMNS, page)
}

/** Both engines limit the number of parameters of a statement. */
const IDS_PER_QUERY = 500

export interface ProtectableDisk {
  readonly server: string
  readonly volume: string
  readonly name: string | null
}

/** The disks that guests have, of these servers, in the order of their devices. */
export async function protectableDisks(
  db: Queries,
  servers: readonly string[],
): Promise<ReadonlyMap<string, readonly ProtectableDisk[]>> {
  const found: ProtectableDisk[] = []
  for (let from = 0; from < servers.length; from += IDS_PER_QUERY) {
    const rows = await db
      .selectFrom('server_disks')
      .innerJoin('volumes', 'volumes.id', 'server_disks.volume')
      .select(['server_disks.server', 'server_disks.volume', 'volumes.name'])
      .where('server_disks.server', 'in', servers.slice(from, from + IDS_PER_QUERY))
      .where('server_disks.state', '=', 'attached')
      .orderBy('server_disks.device')
      .execute()
    found.push(...rows)
  }
  return Map.groupBy(found, ({ server }) => server)
}
