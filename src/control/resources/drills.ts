import { assert } from '#base/assert.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type {
  DrillDiskRow,
  DrillReportRow,
  DrillRow,
  DrillScheduleRow,
  DrillServerRow,
} from '#control/store/tables/drills.ts'
import { DRILL_MOVES, type DrillStatus, type WaitingDrill } from '#domain/drill.ts'
import { DRILL_SERVER_MOVES, type DrillServerState } from '#domain/drill-run.ts'
import { type ListPage, pageOf, type PageWanted } from './pages.ts'
import { hasName } from './protection-lists.ts'

/** Queries about drills, their reports and schedules. Every one that serves a caller is bound to the caller's project. */
type Db = Queries | Transaction

export const DRILL_RESOURCE = 'drill'

export const drillStatus = (row: Pick<DrillRow, 'status'>): DrillStatus => row.status as DrillStatus

export async function findDrill(
  db: Db,
  project: string,
  id: string,
): Promise<DrillRow | undefined> {
  return await db
    .selectFrom('drills')
    .selectAll()
    .where('project', '=', project)
    .where('id', '=', id)
    .executeTakeFirst()
}

/** For operations, which know the drill and not the caller. */
export async function readDrill(db: Db, id: string): Promise<DrillRow | undefined> {
  return await db.selectFrom('drills').selectAll().where('id', '=', id).executeTakeFirst()
}

/** Newest first, then by id; those that were given up among them. */
export async function listDrills(db: Db, project: string): Promise<DrillRow[]> {
  return await db
    .selectFrom('drills')
    .selectAll()
    .where('project', '=', project)
    .orderBy('created_at', 'desc')
    .orderBy('id')
    .execute()
}

export interface DrillFilter {
  readonly status?: string | undefined
  /** Part of the name, without regard to case. */
  readonly name?: string | undefined
  readonly groups?: readonly string[] | undefined
  readonly vpc?: string | undefined
}

export async function pageOfDrills(
  db: Db,
  project: string,
  { status, name, groups, vpc }: DrillFilter,
  page: PageWanted,
): Promise<ListPage<DrillRow>> {
  let query = db
    .selectFrom('drills as r')
    .selectAll('r')
    .where('r.project', '=', project)
    .where('r.forced_at', 'is', null)
  if (status !== undefined) query = query.where('r.status', '=', status)
  if (name !== undefined) query = query.where(hasName(name))
  if (vpc !== undefined) query = query.where('r.vpc', '=', vpc)
  // An empty list of a query is no SQL.
  if (groups !== undefined)
    query = query.where('r.group_id', 'in', groups.length === 0 ? [''] : groups)
  return await pageOf(query, page)
}

/** How many drills each of these groups has, without those that were given up; groups without one are left out. */
export async function countDrills(
  db: Db,
  groups: readonly string[],
): Promise<ReadonlyMap<string, number>> {
  const found = new Map<string, number>()
  for (let at = 0; at < groups.length; at += 500) {
    const rows = await db
      .selectFrom('drills')
      .select((eb) => ['group_id', eb.fn.countAll<number>().as('count')])
      .where('group_id', 'in', groups.slice(at, at + 500))
      .where('forced_at', 'is', null)
      .groupBy('group_id')
      .execute()
    for (const row of rows) found.set(row.group_id, Number(row.count))
  }
  return found
}

/** Without those that were given up. */
export async function drillsOfGroup(db: Db, group: string): Promise<DrillRow[]> {
  return await db
    .selectFrom('drills')
    .selectAll()
    .where('group_id', '=', group)
    .where('forced_at', 'is', null)
    .execute()
}

/** All that are being made, or wait for it, of all projects. */
export async function drillsInTheMaking(db: Db): Promise<WaitingDrill[]> {
  return await db
    .selectFrom('drills')
    .select(['id', 'az', 'began_at', 'created_at'])
    .where('status', '=', 'creating')
    .execute()
}

/** Those that are being made or deleted by no operation: nothing would ever end them, and they would keep others from their turn. */
export async function drillsAdrift(
  db: Db,
): Promise<readonly Pick<DrillRow, 'id' | 'project' | 'status'>[]> {
  return await db
    .selectFrom('drills')
    .select(['id', 'project', 'status'])
    .where('status', 'in', ['creating', 'deleting'])
    .where(
      'id',
      'not in',
      db
        .selectFrom('operations')
        .select('resource_id')
        .where('resource_type', '=', DRILL_RESOURCE)
        .where('status', 'in', ['pending', 'running']),
    )
    .execute()
}

/** Those whose report is written and that nobody keeps, or that were given up. */
export async function drillsToEnd(db: Db): Promise<DrillRow[]> {
  return await db
    .selectFrom('drills')
    .selectAll()
    .where((eb) => eb.or([eb('auto_delete', '=', 1), eb('forced_at', 'is not', null)]))
    .where('status', 'in', ['available', 'error', 'error-deleting'])
    .execute()
}

export async function drillInVpc(db: Db, vpc: string): Promise<string | null> {
  const row = await db.selectFrom('drills').select('id').where('vpc', '=', vpc).executeTakeFirst()
  return row?.id ?? null
}

/** True for a volume that a drill made. It never becomes a side of a pair. */
export async function isDrillVolume(db: Db, volume: string): Promise<boolean> {
  const row = await db
    .selectFrom('drill_disks')
    .select('drill')
    .where('volume', '=', volume)
    .executeTakeFirst()
  return row !== undefined
}

/** Of these drills, in the order of their instances' creation. */
export async function drillServers(
  db: Db,
  drills: readonly string[],
): Promise<ReadonlyMap<string, readonly DrillServerRow[]>> {
  const found = new Map<string, DrillServerRow[]>(drills.map((id) => [id, []]))
  for (let at = 0; at < drills.length; at += 500) {
    const rows = await db
      .selectFrom('drill_servers')
      .selectAll()
      .where('drill', 'in', drills.slice(at, at + 500))
      .orderBy('name')
      .orderBy('instance')
      .execute()
    for (const row of rows) found.get(row.drill)?.push(row)
  }
  return found
}

export async function drillDisks(db: Db, drill: string): Promise<DrillDiskRow[]> {
  return await db
    .selectFrom('drill_disks')
    .selectAll()
    .where('drill', '=', drill)
    .orderBy('volume')
    .execute()
}

// ---------------------------------------------------------------- changes

export async function insertDrill(
  tx: Transaction,
  drill: DrillRow,
  servers: readonly DrillServerRow[],
  disks: readonly DrillDiskRow[],
): Promise<void> {
  await tx.insertInto('drills').values(drill).execute()
  for (const row of servers) await tx.insertInto('drill_servers').values(row).execute()
  for (const row of disks) await tx.insertInto('drill_disks').values(row).execute()
}

/** Moves along the table of moves, or stays. */
export async function moveDrill(
  tx: Transaction,
  id: string,
  to: DrillStatus,
  change: Partial<Pick<DrillRow, 'failure_detail' | 'findings' | 'auto_delete' | 'forced_at'>>,
  nowMs: number,
): Promise<void> {
  const row = await readDrill(tx, id)
  assert(row !== undefined, 'a drill with an operation exists')
  assert(
    row.status === to || DRILL_MOVES[drillStatus(row)].includes(to),
    `a drill does not move from ${row.status} to ${to}`,
  )
  await updateDrill(tx, id, { ...change, status: to }, nowMs)
}

export async function updateDrill(
  tx: Transaction,
  id: string,
  change: Partial<Omit<DrillRow, 'id' | 'project' | 'group_id' | 'created_at' | 'updated_at'>>,
  nowMs: number,
): Promise<void> {
  await tx
    .updateTable('drills')
    .set({ ...change, updated_at: nowMs })
    .where('id', '=', id)
    .execute()
}

/** Moves a server of a drill from a state, once: whoever comes again, or late, changes nothing. */
export async function moveDrillServer(
  tx: Transaction,
  { drill, instance }: Pick<DrillServerRow, 'drill' | 'instance'>,
  from: DrillServerState,
  to: DrillServerState,
  change: Partial<Omit<DrillServerRow, 'drill' | 'instance' | 'server' | 'name' | 'state'>>,
): Promise<void> {
  assert(DRILL_SERVER_MOVES[from].includes(to), `a server does not move from ${from} to ${to}`)
  await tx
    .updateTable('drill_servers')
    .set({ ...change, state: to })
    .where('drill', '=', drill)
    .where('instance', '=', instance)
    .where('state', '=', from)
    .execute()
}

/** What probes of a server have found, while it is looked at. */
export async function noteProbes(
  tx: Transaction,
  { drill, instance }: Pick<DrillServerRow, 'drill' | 'instance'>,
  probes: string,
): Promise<void> {
  await tx
    .updateTable('drill_servers')
    .set({ probes })
    .where('drill', '=', drill)
    .where('instance', '=', instance)
    .where('state', '=', 'probing')
    .execute()
}

export async function noteCloned(tx: Transaction, volume: string): Promise<void> {
  await tx.updateTable('drill_disks').set({ cloned: 1 }).where('volume', '=', volume).execute()
}

export async function deleteDrillRows(tx: Transaction, id: string): Promise<void> {
  await tx.deleteFrom('drill_disks').where('drill', '=', id).execute()
  await tx.deleteFrom('drill_servers').where('drill', '=', id).execute()
  await tx.deleteFrom('drills').where('id', '=', id).execute()
}

// ---------------------------------------------------------------- networks

/** The VPC that was made for drills of a group; null: none. */
export async function drillNetwork(db: Db, group: string): Promise<string | null> {
  const row = await db
    .selectFrom('drill_networks')
    .select('vpc')
    .where('group_id', '=', group)
    .executeTakeFirst()
  return row?.vpc ?? null
}

export async function rememberDrillNetwork(
  tx: Transaction,
  group: string,
  vpc: string,
): Promise<void> {
  await tx
    .insertInto('drill_networks')
    .values({ group_id: group, vpc })
    .onConflict((conflict) => conflict.column('group_id').doUpdateSet({ vpc }))
    .execute()
}

// ---------------------------------------------------------------- reports

/** The end of the chain; null: there is none yet. */
export async function lastReport(db: Db): Promise<Pick<DrillReportRow, 'ordinal' | 'hash'> | null> {
  const row = await db
    .selectFrom('drill_reports')
    .select(['ordinal', 'hash'])
    .orderBy('ordinal', 'desc')
    .limit(1)
    .executeTakeFirst()
  return row ?? null
}

export async function insertReport(tx: Transaction, row: DrillReportRow): Promise<void> {
  await tx.insertInto('drill_reports').values(row).execute()
}

export type ReportEntry = Omit<DrillReportRow, 'document'>

/** Newest first, without their documents. `drill`: only its. */
export async function listReports(
  db: Db,
  project: string,
  { drill, limit }: { readonly drill?: string; readonly limit: number },
): Promise<ReportEntry[]> {
  const query = db
    .selectFrom('drill_reports')
    .select(['ordinal', 'drill', 'group_id', 'project', 'stage', 'hash', 'created_at'])
    .where('project', '=', project)
    .orderBy('ordinal', 'desc')
    .limit(limit)
  return await (drill === undefined ? query : query.where('drill', '=', drill)).execute()
}

/** The newest of a drill, or the one of this place in the chain. */
export async function findReport(
  db: Db,
  project: string,
  wanted: { readonly drill: string; readonly stage?: string } | { readonly ordinal: number },
): Promise<DrillReportRow | undefined> {
  let query = db
    .selectFrom('drill_reports')
    .selectAll()
    .where('project', '=', project)
    .orderBy('ordinal', 'desc')
    .limit(1)
  if ('stage' in wanted) query = query.where('stage', '=', wanted.stage)
  return await ('drill' in wanted
    ? query.where('drill', '=', wanted.drill)
    : query.where('ordinal', '=', wanted.ordinal)
  ).executeTakeFirst()
}

// ---------------------------------------------------------------- schedules

export async function findSchedule(
  db: Db,
  project: string,
  id: string,
): Promise<DrillScheduleRow | undefined> {
  return await db
    .selectFrom('drill_schedules')
    .selectAll()
    .where('project', '=', project)
    .where('id', '=', id)
    .executeTakeFirst()
}

export async function listSchedules(db: Db, project: string): Promise<DrillScheduleRow[]> {
  return await db
    .selectFrom('drill_schedules')
    .selectAll()
    .where('project', '=', project)
    .orderBy('created_at', 'desc')
    .orderBy('id')
    .execute()
}

/** Of all projects: those whose time has come. */
export async function dueSchedules(db: Db, nowMs: number): Promise<DrillScheduleRow[]> {
  return await db
    .selectFrom('drill_schedules')
    .selectAll()
    .where('enabled', '=', 1)
    .where('next_at', '<=', nowMs)
    .orderBy('next_at')
    .execute()
}

export async function insertSchedule(tx: Transaction, row: DrillScheduleRow): Promise<void> {
  await tx.insertInto('drill_schedules').values(row).execute()
}

export async function updateSchedule(
  tx: Transaction,
  id: string,
  change: Partial<Omit<DrillScheduleRow, 'id' | 'project' | 'group_id' | 'created_at'>>,
): Promise<void> {
  await tx.updateTable('drill_schedules').set(change).where('id', '=', id).execute()
}

/** What the last drill of a schedule has come to. */
export async function noteScheduleResult(
  tx: Transaction,
  schedule: string,
  drill: string,
  last_result: string,
): Promise<void> {
  await tx
    .updateTable('drill_schedules')
    .set({ last_result })
    .where('id', '=', schedule)
    .where('last_drill', '=', drill)
    .execute()
}

export async function deleteScheduleRow(tx: Transaction, id: string): Promise<void> {
  await tx.deleteFrom('drill_schedules').where('id', '=', id).execute()
}

/** When a group goes. */
export async function forgetGroupOfDrills(tx: Transaction, group: string): Promise<void> {
  await tx.deleteFrom('drill_schedules').where('group_id', '=', group).execute()
  await tx.deleteFrom('drill_networks').where('group_id', '=', group).execute()
}
