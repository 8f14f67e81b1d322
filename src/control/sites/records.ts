import type { AloneWork, Lease, Ownership, OwnershipState } from '#domain/ownership.ts'
import { fromJson, toJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { OwnershipRow } from '#control/store/tables/sites.ts'

/* Ownership records as rows. */

/** Turns a stored lease into one of this host's CLOCK_BOOTTIME. */
export type LeaseReader = (row: OwnershipRow) => Lease | null

/** Sessions in one statement: both engines limit the number of parameters. */
const SESSIONS_PER_QUERY = 500

export function findRecord(
  db: Queries | Transaction,
  session: string,
): Promise<OwnershipRow | undefined> {
  return db.selectFrom('ownership').selectAll().where('session', '=', session).executeTakeFirst()
}

export async function recordsOf(
  db: Queries,
  sessions: readonly string[],
): Promise<{ session: string; epoch: number }[]> {
  const found: { session: string; epoch: number }[] = []
  for (let from = 0; from < sessions.length; from += SESSIONS_PER_QUERY) {
    const rows = await db
      .selectFrom('ownership')
      .select(['session', 'epoch'])
      .where('session', 'in', sessions.slice(from, from + SESSIONS_PER_QUERY))
      .execute()
    found.push(...rows)
  }
  return found
}

/** Records with a lease whose end is a time of another boot. */
export function foreignLeases(db: Queries, bootId: string): Promise<OwnershipRow[]> {
  return db
    .selectFrom('ownership')
    .selectAll()
    .where('lease_holder', 'is not', null)
    .where('lease_boot_id', '<>', bootId)
    .execute()
}

export function recordsDoubtedAt(
  db: Queries,
  site: string,
  mark: string,
): Promise<{ session: string }[]> {
  return db
    .selectFrom('ownership')
    .select('session')
    .where('history_mark', '<>', mark)
    .where((eb) => eb.or([eb('writer', '=', site), eb('replica', '=', site)]))
    .execute()
}

export const toRecord = (row: OwnershipRow, readLease: LeaseReader): Ownership => ({
  session: row.session,
  epoch: row.epoch,
  state: row.state as OwnershipState,
  writer: row.writer,
  replica: row.replica,
  lease: readLease(row),
  alone: row.alone === null ? null : fromJson<AloneWork>(row.alone),
  mode: row.mode as Ownership['mode'],
  preferred: row.preferred,
  incarnation: row.incarnation,
  attempt: row.attempt,
})

export interface Change {
  /** The move; kept in the history when it changed the epoch, the trust or the arbitration. */
  readonly kind: string
  readonly askedBy: string
  readonly bootId: string
  readonly leaseMs: number
  readonly at: number
  readonly historyMark?: string
  readonly heard?: string
}

/** Replaces the row by `record`, and adds to the history what changed more than the lease. */
export async function saveRecord(
  tx: Transaction,
  row: OwnershipRow,
  record: Ownership,
  change: Change,
): Promise<void> {
  const { lease } = record
  await tx
    .updateTable('ownership')
    .set({
      epoch: record.epoch,
      state: record.state,
      writer: record.writer,
      replica: record.replica,
      mode: record.mode,
      preferred: record.preferred,
      incarnation: record.incarnation,
      attempt: record.attempt,
      lease_holder: lease?.holder ?? null,
      lease_ends_boot_ms: lease?.endsBootMs ?? null,
      lease_boot_id: lease === null ? null : change.bootId,
      lease_ms: lease === null ? null : change.leaseMs,
      alone: record.alone === null ? null : toJson(record.alone),
      serial: row.serial + 1,
      history_mark: change.historyMark ?? row.history_mark,
      heard: change.heard ?? row.heard,
      updated_at: change.at,
    })
    .where('session', '=', row.session)
    .where('serial', '=', row.serial)
    .execute()
  const trustChanged = change.historyMark !== undefined && change.historyMark !== row.history_mark
  const modeChanged = record.mode !== row.mode || record.preferred !== row.preferred
  if (record.epoch === row.epoch && !trustChanged && !modeChanged) return
  await tx
    .insertInto('ownership_changes')
    .values({
      session: row.session,
      epoch: record.epoch,
      kind: change.kind,
      state: record.state,
      writer: record.writer,
      replica: record.replica,
      attempt: record.attempt,
      asked_by: change.askedBy,
      incarnation: record.incarnation,
      at: change.at,
    })
    .execute()
}
