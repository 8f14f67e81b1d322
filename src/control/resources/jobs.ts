import type { Queries, Transaction } from '#control/store/store.ts'

/** Queries for the list of failed operations, and for ids that are derived from an operation's. */
type Db = Queries | Transaction

/** Failed operations of the project that somebody has taken off the list. */
export async function dismissedFailures(db: Db, project: string): Promise<Set<string>> {
  const rows = await db
    .selectFrom('dismissed_failures')
    .select('operation')
    .where('project', '=', project)
    .execute()
  return new Set(rows.map((row) => row.operation))
}

/** Takes operations off the list; the operations and what they worked on stay as they are. */
export async function dismissFailures(
  tx: Transaction,
  project: string,
  operations: readonly string[],
): Promise<void> {
  for (const operation of operations) {
    await tx
      .insertInto('dismissed_failures')
      .values({ operation, project })
      .onConflict((conflict) => conflict.column('operation').doNothing())
      .execute()
  }
}

/** The project's operation whose id begins so. Prefixes have 96 random bits: there is at most one. */
export async function operationByPrefix(
  db: Db,
  project: string,
  prefix: string,
): Promise<string | undefined> {
  const row = await db
    .selectFrom('operations')
    .select('id')
    .where('id', '>=', prefix)
    .where('id', '<', `${prefix}g`)
    .where('project', '=', project)
    .executeTakeFirst()
  return row?.id
}
