import { type SqlBool, sql } from 'kysely'
import { fromJson, toJson } from '#control/store/json.ts'
import { bit } from '#control/store/bit.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { OperationRow } from '#control/store/tables/operations.ts'
import type { ChildOutcome } from './operation.ts'

/* Every query of the engine, by name. Times are wall clock, milliseconds; `token` names one claim by one process. */

/** A claim seen from outside: it is broken only if it still looks exactly like this. */
export interface ForeignLease {
  readonly id: string
  readonly lease_owner: string
  readonly lease_beat: number
}

/** Steps back of the wall clock: a back-off that seems to lie further ahead than this is over. */
const RUN_AT_BELIEVED_MS = 3_600_000

/**
 * Operations that may run now, oldest first. Out of the unfinished ones these wait: leased by a living process; backing
 * off; joining children that have not ended; and, unless they have begun already, those whose resource is taken.
 *
 * A resource is taken by another operation on it that runs, or that waits and was submitted earlier. An operation's own
 * parent and root do not count. For a sub-operation only waiting ones of its own family count: its parent
 * holds the resource already, and others that wait behind the parent must not stop the child the parent waits for.
 */
export function dueOperations(
  db: Queries | Transaction,
  known: readonly string[],
  now: number,
  dead: readonly ForeignLease[],
  limit: number,
): Promise<{ id: string }[]> {
  return db
    .selectFrom('operations as o')
    .select('o.id')
    .where('o.status', 'in', ['pending', 'running'])
    .where(sql<string>`o.kind || '/' || o.version`, 'in', [...known])
    .where((eb) =>
      eb.or([
        eb('o.lease_owner', 'is', null),
        ...dead.map((lease) =>
          eb.and([
            eb('o.id', '=', lease.id),
            eb('o.lease_owner', '=', lease.lease_owner),
            eb('o.lease_beat', '=', lease.lease_beat),
          ]),
        ),
      ]),
    )
    .where((eb) =>
      eb.or([eb('o.run_at', '<=', now), eb('o.run_at', '>', now + RUN_AT_BELIEVED_MS)]),
    )
    .where(
      sql<SqlBool>`(o.joining = 0 or not exists (
        select 1 from operations c where c.parent = o.id and c.status in ('pending', 'running')))`,
    )
    .where(
      sql<SqlBool>`(o.status = 'running' or not exists (
        select 1 from operations b
        where b.resource_type = o.resource_type and b.resource_id = o.resource_id
          and b.status in ('pending', 'running')
          and b.id <> o.id and b.id <> o.root and (o.parent is null or b.id <> o.parent)
          and (b.status = 'running' or ((o.parent is null or b.root = o.root)
            and (b.ordinal < o.ordinal or (b.ordinal = o.ordinal and b.id < o.id))))))`,
    )
    .orderBy('o.ordinal')
    .orderBy('o.id')
    .limit(limit)
    .execute()
}

/** The number of the next submission: above that of every one whose transaction has ended, whatever the clock says. */
export async function nextOrdinal(tx: Transaction): Promise<number> {
  const last = await tx
    .selectFrom('operations')
    .select('ordinal')
    .orderBy('ordinal', 'desc')
    .limit(1)
    .executeTakeFirst()
  return (last?.ordinal ?? 0) + 1
}

export async function claim(tx: Transaction, id: string, token: string, now: number) {
  await tx
    .updateTable('operations')
    .set((eb) => ({
      status: 'running',
      lease_owner: token,
      lease_beat: eb('lease_beat', '+', 1),
      lease_beat_at: now,
      attempts: eb('attempts', '+', 1),
      run_at: 0,
      begin_at: eb.fn.coalesce('begin_at', eb.val(now)),
    }))
    .where('id', '=', id)
    .execute()
}

/** Renews the claims; the answer lacks those that are no longer ours. */
export function beat(tx: Transaction, tokens: readonly string[], now: number) {
  return tx
    .updateTable('operations')
    .set((eb) => ({ lease_beat: eb('lease_beat', '+', 1), lease_beat_at: now }))
    .where('lease_owner', 'in', [...tokens])
    .returning(['lease_owner', 'cancel_wanted'])
    .execute()
}

/** Claims that are not among `tokens`. */
export async function foreignLeases(
  db: Queries,
  tokens: readonly string[],
): Promise<ForeignLease[]> {
  let query = db
    .selectFrom('operations')
    .select(['id', 'lease_owner', 'lease_beat'])
    .where('status', 'in', ['pending', 'running'])
    .where('lease_owner', 'is not', null)
    .$narrowType<{ lease_owner: string }>()
  if (tokens.length > 0) query = query.where('lease_owner', 'not in', [...tokens])
  return await query.execute()
}

export function findOperation(
  db: Queries | Transaction,
  id: string,
): Promise<OperationRow | undefined> {
  return db.selectFrom('operations').selectAll().where('id', '=', id).executeTakeFirst()
}

/** The operation if `token` still holds it and it still stands at `step`; otherwise undefined. */
export function findHeld(tx: Transaction, id: string, token: string, step: number) {
  return tx
    .selectFrom('operations')
    .selectAll()
    .where('id', '=', id)
    .where('lease_owner', '=', token)
    .where('step', '=', step)
    .executeTakeFirst()
}

export async function stepResults(db: Queries, id: string): Promise<Record<string, unknown>> {
  const rows = await db
    .selectFrom('operation_steps')
    .select(['name', 'result'])
    .where('operation', '=', id)
    .orderBy('step')
    .execute()
  return Object.fromEntries(rows.map(({ name, result }) => [name, fromJson<unknown>(result)]))
}

/** Gives the claim back; the operation is due again at `runAt`. */
export async function release(
  tx: Transaction,
  token: string,
  change: {
    readonly run_at: number
    readonly fail_reason?: string | null
    readonly error_code?: string
    readonly failed_step?: string | null
    readonly joining?: 0 | 1
    readonly progress?: number
  },
) {
  await tx
    .updateTable('operations')
    .set({ ...change, lease_owner: null })
    .where('lease_owner', '=', token)
    .execute()
}

export async function childOutcomes(tx: Transaction, parent: string) {
  return await tx
    .selectFrom('operations')
    .select([
      'id',
      'kind',
      'resource_type',
      'resource_id',
      'status',
      'progress',
      'error_code',
      'fail_reason',
    ])
    .where('parent', '=', parent)
    .orderBy('ordinal')
    .orderBy('id')
    .execute()
}

export const toOutcome = (
  row: Awaited<ReturnType<typeof childOutcomes>>[number],
): ChildOutcome => ({
  id: row.id,
  kind: row.kind,
  resourceType: row.resource_type,
  resourceId: row.resource_id,
  status: row.status as ChildOutcome['status'],
  errorCode: row.error_code,
  failReason: row.fail_reason,
})

/** Waiting operations that nobody's parent made, for the queue's limit. */
export async function countWaiting(tx: Transaction): Promise<number> {
  const { count } = await tx
    .selectFrom('operations')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('status', '=', 'pending')
    .where('parent', 'is', null)
    .executeTakeFirstOrThrow()
  return count
}

/** `run_at` of an operation that was woken since it was claimed. */
const WOKEN = -1

/** Those that back off or wait may run now. One that runs at this moment, and finds that it has to wait, looks once more. */
export async function wakeOperations(
  tx: Transaction,
  operations: readonly string[],
): Promise<void> {
  for (let from = 0; from < operations.length; from += 500) {
    await tx
      .updateTable('operations')
      .set({ run_at: WOKEN })
      .where('id', 'in', operations.slice(from, from + 500))
      .where('status', 'in', ['pending', 'running'])
      .execute()
  }
}

/**
 * Releases a claim as if it had not been made. Woken meanwhile, the operation is due at once. `looked`: the step has come as far as to wait for
 * others, so what it failed at before is over and counts no more.
 */
export async function giveBack(
  tx: Transaction,
  token: string,
  runAt: number,
  looked = false,
): Promise<void> {
  await tx
    .updateTable('operations')
    .set((eb) => ({
      lease_owner: null,
      run_at: sql<number>`case when run_at = ${sql.lit(WOKEN)} then 0 else cast(${runAt} as bigint) end`,
      attempts: looked ? 0 : eb('attempts', '-', 1),
    }))
    .where('lease_owner', '=', token)
    .execute()
}

/** What others are to see of an operation before its present step has ended. */
export async function addEntities(
  tx: Transaction,
  id: string,
  more: Readonly<Record<string, unknown>>,
): Promise<void> {
  const row = await findOperation(tx, id)
  if (row === undefined) return
  const entities = toJson({ ...fromJson<object>(row.entities), ...more })
  await tx.updateTable('operations').set({ entities }).where('id', '=', id).execute()
}

export async function wantCancel(tx: Transaction, id: string) {
  await tx
    .updateTable('operations')
    .set({ cancel_wanted: bit(true), run_at: 0 })
    .where('id', '=', id)
    .execute()
}

/** Deletes families of operations whose topmost one ended before `endedBefore`. Returns how many were topmost. */
export async function forgetEnded(
  tx: Transaction,
  endedBefore: number,
  limit: number,
): Promise<number> {
  const roots = await tx
    .selectFrom('operations')
    .select('id')
    .where('parent', 'is', null)
    .where('status', 'in', ['succeeded', 'failed', 'cancelled'])
    .where('end_at', '<', endedBefore)
    .limit(limit)
    .execute()
  if (roots.length === 0) return 0
  const family = tx
    .selectFrom('operations')
    .select('id')
    .where(
      'root',
      'in',
      roots.map(({ id }) => id),
    )
  await tx.deleteFrom('operation_steps').where('operation', 'in', family).execute()
  // What somebody took off the list of failed ones refers to them.
  await tx.deleteFrom('dismissed_failures').where('operation', 'in', family).execute()
  await tx
    .deleteFrom('operations')
    .where(
      'root',
      'in',
      roots.map(({ id }) => id),
    )
    .execute()
  return roots.length
}
