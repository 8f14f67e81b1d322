import { assert } from '#base/assert.ts'
import { fromJson, toJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type {
  RecoveryPlanRow,
  RecoveryRunRow,
  RecoveryServerRow,
} from '#control/store/tables/recovery.ts'
import {
  hasEnded,
  type Pause,
  type RecoveryPlan,
  type Run,
  type RunState,
  SERVER_RECOVERY_MOVES,
  serversOf,
  type ServerState,
} from '#domain/recovery-plan.ts'

/** Queries about recovery plans and the runs that followed them. */
type Db = Queries | Transaction

export async function findPlan(db: Db, group: string): Promise<RecoveryPlanRow | undefined> {
  return await db
    .selectFrom('recovery_plans')
    .selectAll()
    .where('group_id', '=', group)
    .executeTakeFirst()
}

export async function putPlan(tx: Transaction, row: RecoveryPlanRow): Promise<void> {
  const { group_id: _, ...change } = row
  await tx
    .insertInto('recovery_plans')
    .values(row)
    .onConflict((conflict) => conflict.column('group_id').doUpdateSet(change))
    .execute()
}

/** False: there was none. */
export async function deletePlan(tx: Transaction, group: string): Promise<boolean> {
  const gone = await tx
    .deleteFrom('recovery_plans')
    .where('group_id', '=', group)
    .returning('group_id')
    .execute()
  return gone.length > 0
}

/** Everything that recovery and automatic failover know of a group that is deleted. */
export async function forgetRecovery(tx: Transaction, group: string): Promise<void> {
  await deletePlan(tx, group)
  const runs = tx.selectFrom('recovery_runs').select('id').where('group_id', '=', group)
  await tx.deleteFrom('recovery_servers').where('run', 'in', runs).execute()
  await tx.deleteFrom('recovery_runs').where('group_id', '=', group).execute()
  await tx.deleteFrom('automatic_failover_verdicts').where('group_id', '=', group).execute()
  await tx.deleteFrom('automatic_failovers').where('group_id', '=', group).execute()
}

// ---------------------------------------------------------------- runs

/** Servers on one page of runs, unless a single run has more: what each of them printed may be kilobytes. */
const PAGE_SERVERS_MAX = 1_000

/** Of one group, newest first, from behind `marker` on; undefined: the group has no run of that id. */
export async function pageOfRuns(
  db: Db,
  group: string,
  { limit, marker }: { readonly limit: number; readonly marker?: string | undefined },
): Promise<{ readonly runs: readonly StoredRun[]; readonly more: boolean } | undefined> {
  let query = db
    .selectFrom('recovery_runs as r')
    .selectAll('r')
    .select((eb) =>
      eb
        .selectFrom('recovery_servers as s')
        .whereRef('s.run', '=', 'r.id')
        .select((count) => count.fn.countAll<number>().as('count'))
        .as('server_count'),
    )
    .where('r.group_id', '=', group)
    .orderBy('r.started_at', 'desc')
    .orderBy('r.id')
    .limit(limit + 1)
  if (marker !== undefined) {
    const last = await db
      .selectFrom('recovery_runs')
      .select(['id', 'started_at'])
      .where('id', '=', marker)
      .where('group_id', '=', group)
      .executeTakeFirst()
    if (last === undefined) return undefined
    query = query.where((eb) =>
      eb.or([
        eb('r.started_at', '<', last.started_at),
        eb.and([eb('r.started_at', '=', last.started_at), eb('r.id', '>', last.id)]),
      ]),
    )
  }
  const rows = await query.execute()
  let servers = 0
  const fitting = rows.slice(0, limit).filter(({ server_count }, index) => {
    servers += Number(server_count)
    return index === 0 || servers <= PAGE_SERVERS_MAX
  })
  const runs: StoredRun[] = []
  for (const { server_count: _, ...row } of fitting) {
    runs.push({ row, servers: await serversOfRun(db, row.id) })
  }
  return { runs, more: runs.length < rows.length }
}

/** Of each group the newest are kept, however old they are. */
export const RUNS_KEPT = 20
/** Older runs are kept for so long after their end. */
export const RUNS_KEPT_MS = 90 * 86_400_000
/** However young they are, no group has more. */
export const RUNS_MAX = 500
/** Deleted at once, with the making of a run; the rest with the next. */
const FORGOTTEN_AT_ONCE = 50

/** Deletes the runs of the group that ended long ago, oldest first. Returns how many. */
export async function forgetOldRuns(
  tx: Transaction,
  group: string,
  nowMs: number,
): Promise<number> {
  const ended = await tx
    .selectFrom('recovery_runs')
    .select(['id', 'ended_at'])
    .where('group_id', '=', group)
    .where('ended_at', 'is not', null)
    .orderBy('started_at', 'desc')
    .orderBy('id')
    .execute()
  const old = ended
    .filter(
      ({ ended_at }, index) =>
        index >= RUNS_MAX || (index >= RUNS_KEPT && (ended_at ?? 0) < nowMs - RUNS_KEPT_MS),
    )
    .slice(-FORGOTTEN_AT_ONCE)
    .map(({ id }) => id)
  if (old.length === 0) return 0
  await tx.deleteFrom('recovery_servers').where('run', 'in', old).execute()
  await tx.deleteFrom('recovery_runs').where('id', 'in', old).execute()
  return old.length
}

/** Those of the group that have not come to their end. */
export async function openRuns(db: Db, group: string): Promise<RecoveryRunRow[]> {
  const rows = await db
    .selectFrom('recovery_runs')
    .selectAll()
    .where('group_id', '=', group)
    .where('ended_at', 'is', null)
    .orderBy('started_at')
    .execute()
  return rows.filter(({ state }) => !hasEnded(state as RunState))
}

export async function serversOfRun(db: Db, run: string): Promise<RecoveryServerRow[]> {
  return await db
    .selectFrom('recovery_servers')
    .selectAll()
    .where('run', '=', run)
    .orderBy('place')
    .execute()
}

export interface StoredRun {
  readonly row: RecoveryRunRow
  readonly servers: readonly RecoveryServerRow[]
}

export async function readRun(db: Db, id: string): Promise<StoredRun | undefined> {
  const row = await db
    .selectFrom('recovery_runs')
    .selectAll()
    .where('id', '=', id)
    .executeTakeFirst()
  return row === undefined ? undefined : { row, servers: await serversOfRun(db, id) }
}

export async function readRunServer(
  db: Db,
  run: string,
  instance: string,
): Promise<RecoveryServerRow | undefined> {
  return await db
    .selectFrom('recovery_servers')
    .selectAll()
    .where('run', '=', run)
    .where('instance', '=', instance)
    .executeTakeFirst()
}

/** A stored run as the rules see it. */
export const toRun = ({ row, servers }: StoredRun, plan: RecoveryPlan): Run => ({
  state: row.state as RunState,
  pauses: fromJson<Pause[]>(row.pauses),
  passed: fromJson<number[]>(row.passed),
  waves: plan.waves,
  servers: serversOf(
    plan,
    servers.map(({ instance, state }) => ({ instance, state: state as ServerState })),
  ),
})

export async function insertRun(
  tx: Transaction,
  row: RecoveryRunRow,
  servers: readonly RecoveryServerRow[],
): Promise<void> {
  await tx.insertInto('recovery_runs').values(row).execute()
  for (const server of servers) await tx.insertInto('recovery_servers').values(server).execute()
}

/** What the rules made of the run; its servers have rows of their own. */
export async function saveRun(
  tx: Transaction,
  id: string,
  { state, pauses, passed }: Run,
  more: Partial<Pick<RecoveryRunRow, 'touched_by'>> = {},
): Promise<void> {
  await tx
    .updateTable('recovery_runs')
    .set({ state, pauses: toJson(pauses), passed: toJson(passed), ...more })
    .where('id', '=', id)
    .execute()
}

export async function endRun(tx: Transaction, id: string, nowMs: number): Promise<void> {
  await tx.updateTable('recovery_runs').set({ ended_at: nowMs }).where('id', '=', id).execute()
}

/** Changes columns. A change of state has to be a move of the table. */
export async function updateRunServer(
  tx: Transaction,
  row: Pick<RecoveryServerRow, 'run' | 'instance' | 'state'>,
  change: Partial<Omit<RecoveryServerRow, 'run' | 'instance' | 'server' | 'place'>>,
): Promise<void> {
  const { state: to } = change
  assert(
    to === undefined || SERVER_RECOVERY_MOVES[row.state as ServerState].includes(to as ServerState),
    `a server of a recovery does not move from ${row.state} to ${to}`,
  )
  await tx
    .updateTable('recovery_servers')
    .set(change)
    .where('run', '=', row.run)
    .where('instance', '=', row.instance)
    .execute()
}

/** How long each of these servers took from its start until it was ready, the last time that it was; milliseconds. */
export async function lastReadyTimes(
  db: Db,
  servers: readonly string[],
): Promise<ReadonlyMap<string, number>> {
  const found = new Map<string, number>()
  for (let from = 0; from < servers.length; from += 500) {
    const rows = await db
      .selectFrom('recovery_servers')
      .select(['server', 'started_at', 'ready_at'])
      .where('server', 'in', servers.slice(from, from + 500))
      .where('state', '=', 'ready')
      .where('started_at', 'is not', null)
      .where('ready_at', 'is not', null)
      .orderBy('started_at')
      .execute()
    for (const { server, started_at, ready_at } of rows) {
      found.set(server, (ready_at ?? 0) - (started_at ?? 0))
    }
  }
  return found
}

/** How long the newest servers that became ready took from their start, of any group; milliseconds. */
export async function readyTimes(db: Db, limit: number): Promise<readonly number[]> {
  const rows = await db
    .selectFrom('recovery_servers')
    .select(['started_at', 'ready_at'])
    .where('state', '=', 'ready')
    .where('started_at', 'is not', null)
    .where('ready_at', 'is not', null)
    .orderBy('ready_at', 'desc')
    .limit(limit)
    .execute()
  return rows.map(({ started_at, ready_at }) => Math.max(0, (ready_at ?? 0) - (started_at ?? 0)))
}
