import { fromJson, toJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type {
  AutomaticFailoverRow,
  AutomaticFailoverVerdictRow,
} from '#control/store/tables/recovery.ts'
import type { AutomaticDecision } from '#domain/automatic-failover.ts'

/** Queries about automatic failover: which groups do it, and why each did or did not. */
type Db = Queries | Transaction

/** Verdicts kept of one group; older ones go. */
const VERDICTS_MAX = 500

export async function findAutomatic(
  db: Db,
  group: string,
): Promise<AutomaticFailoverRow | undefined> {
  return await db
    .selectFrom('automatic_failovers')
    .selectAll()
    .where('group_id', '=', group)
    .executeTakeFirst()
}

export async function enabledAutomatics(db: Db): Promise<AutomaticFailoverRow[]> {
  return await db
    .selectFrom('automatic_failovers')
    .selectAll()
    .where('enabled', '=', 1)
    .orderBy('group_id')
    .execute()
}

export async function insertAutomatic(tx: Transaction, row: AutomaticFailoverRow): Promise<void> {
  await tx.insertInto('automatic_failovers').values(row).execute()
}

/** Changes the row if it still is what the caller has read; false: somebody else was first. */
export async function updateAutomatic(
  tx: Transaction,
  row: Pick<AutomaticFailoverRow, 'group_id' | 'serial'>,
  change: Partial<Omit<AutomaticFailoverRow, 'group_id' | 'project' | 'serial'>>,
): Promise<boolean> {
  const changed = await tx
    .updateTable('automatic_failovers')
    .set({ ...change, serial: row.serial + 1 })
    .where('group_id', '=', row.group_id)
    .where('serial', '=', row.serial)
    .returning('group_id')
    .execute()
  return changed.length > 0
}

/** As it is compared and stored with the row. */
export const verdictText = ({ verdict, reasons }: AutomaticDecision): string =>
  toJson([verdict, ...reasons])

export const verdictOf = (row: AutomaticFailoverRow): readonly string[] =>
  fromJson<string[]>(row.verdict)

export async function addVerdict(
  tx: Transaction,
  group: string,
  { verdict, reasons }: AutomaticDecision,
  facts: unknown,
  at: number,
  operation: string | null,
): Promise<void> {
  const last = await tx
    .selectFrom('automatic_failover_verdicts')
    .select((eb) => eb.fn.max('ordinal').as('ordinal'))
    .where('group_id', '=', group)
    .executeTakeFirst()
  const ordinal = Number(last?.ordinal ?? 0) + 1
  const row: AutomaticFailoverVerdictRow = {
    group_id: group,
    ordinal,
    at,
    verdict,
    reasons: toJson(reasons),
    facts: toJson(facts),
    operation,
  }
  await tx.insertInto('automatic_failover_verdicts').values(row).execute()
  await tx
    .deleteFrom('automatic_failover_verdicts')
    .where('group_id', '=', group)
    .where('ordinal', '<=', ordinal - VERDICTS_MAX)
    .execute()
}

/** Newest first. */
export async function listVerdicts(
  db: Db,
  group: string,
  limit: number,
): Promise<AutomaticFailoverVerdictRow[]> {
  return await db
    .selectFrom('automatic_failover_verdicts')
    .selectAll()
    .where('group_id', '=', group)
    .orderBy('ordinal', 'desc')
    .limit(limit)
    .execute()
}
