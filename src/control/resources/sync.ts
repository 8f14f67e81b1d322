import type { Queries, Transaction } from '#control/store/store.ts'
import type { OwnershipRow } from '#control/store/tables/sites.ts'

/** Queries about ownership records, for those who only look. Only the witness changes them. */
type Db = Queries | Transaction

export async function readOwnership(
  db: Db,
  sessions: readonly string[],
): Promise<Map<string, OwnershipRow>> {
  const found = new Map<string, OwnershipRow>()
  // Both engines bound the number of parameters of a statement.
  for (let at = 0; at < sessions.length; at += 500) {
    const rows = await db
      .selectFrom('ownership')
      .selectAll()
      .where('session', 'in', sessions.slice(at, at + 500))
      .execute()
    for (const row of rows) found.set(row.session, row)
  }
  return found
}

/** Epoch of the last rise to in sync; null: never. A rise proves that every member was copied in full. */
export async function latestRise(db: Db, session: string): Promise<number | null> {
  const row = await db
    .selectFrom('ownership_changes')
    .select((eb) => eb.fn.max('epoch').as('epoch'))
    .where('session', '=', session)
    .where('kind', '=', 'rise')
    .executeTakeFirst()
  return row?.epoch ?? null
}

/** When the record of each session last changed, wall clock. Sessions that never opened are left out. */
export async function latestChanges(
  db: Db,
  sessions: readonly string[],
): Promise<Map<string, number>> {
  const found = new Map<string, number>()
  for (let at = 0; at < sessions.length; at += 500) {
    const rows = await db
      .selectFrom('ownership_changes')
      .select((eb) => ['session', eb.fn.max('at').as('at')])
      .where('session', 'in', sessions.slice(at, at + 500))
      .groupBy('session')
      .execute()
    for (const row of rows) found.set(row.session, Number(row.at))
  }
  return found
}

/** How the attempt ends that closes the record of a paused group again, whose failover was given up: that is no new pause. */
export const CLOSED_AGAIN = '.again'

/** Since when a group is paused whose production is `writer`, wall clock; null: never. */
export async function latestPause(db: Db, session: string, writer: string): Promise<number | null> {
  const row = await db
    .selectFrom('ownership_changes')
    .select((eb) => eb.fn.max('at').as('at'))
    .where('session', '=', session)
    .where('state', '=', 'closed')
    .where('writer', '=', writer)
    .where('attempt', 'not like', `%${CLOSED_AGAIN}`)
    .executeTakeFirst()
  const at = row?.at ?? null
  return at === null ? null : Number(at)
}
