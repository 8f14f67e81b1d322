import { Fault, fault } from '#base/fault.ts'
import { readDrill } from '#control/resources/drills.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { DrillRow } from '#control/store/tables/drills.ts'
import type { DrillStep } from '#wire/reports/drill-report.ts'
import { findOperation } from '../../records.ts'

export const DRILL_GONE = fault({
  code: 'DRILL_GONE',
  retry: 'never',
  text: 'The drill was deleted meanwhile.',
  hint: 'Nothing is left to be done.',
})

export async function theDrill(db: Queries | Transaction, id: string): Promise<DrillRow> {
  const row = await readDrill(db, id)
  if (row === undefined) throw new Fault(DRILL_GONE, `working on drill ${id}`)
  return row
}

/**
 * What the steps of an operation that have ended took. Each begins where the one before it ended, by what was stored with their ends: a step
 * that was begun again after a crash counts with what the crash has cost.
 */
export async function stepTimes(
  db: Queries | Transaction,
  operation: string,
): Promise<readonly DrillStep[]> {
  const row = await findOperation(db, operation)
  if (row === undefined) return []
  const ended = await db
    .selectFrom('operation_steps')
    .select(['name', 'end_at'])
    .where('operation', '=', operation)
    .orderBy('step')
    .execute()
  let started_at = row.created_at
  return ended.map(({ name, end_at }) => {
    const step = { name, started_at, ms: Math.max(0, end_at - started_at) }
    started_at = end_at
    return step
  })
}
