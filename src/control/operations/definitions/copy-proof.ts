import type { Queries, Transaction } from '#control/store/store.ts'
import type { OperationStatus } from '#control/store/tables/operations.ts'
import { rebuildPair } from './rebuild.ts'

/* What a report proves about a copy that was replaced by an empty one.
 *
 * A report is up to a second old, and may be of the copy before: of all that a site can say, "it has all of this pair" is what a rebuild
 * makes untrue. So as long as a rebuild is at work no report counts; the operation ends well only when the DR side itself has said, asked
 * then, that it has recorded the new copy as whole. After one that was given up, only a report counts that was begun behind its end.
 */

/** The newest rebuild of a pair's copy that was begun. */
export interface Rebuild {
  readonly status: OperationStatus
  /** Wall clock, ms; null: it is at work. */
  readonly endAt: number | null
}

/** Longer than a report is on its way, and than two clocks of control planes are apart, ms. */
const REPORT_LATE_MS = 10_000

/** The copy is being replaced: even a rise of the record's may have been with the one before, only the DR side itself knows. */
export const isAtWork = (rebuild: Rebuild | undefined): boolean => rebuild?.endAt === null

/** `receivedMs`: wall clock, when the report came. */
export function isOfThisCopy(rebuild: Rebuild | undefined, receivedMs: number): boolean {
  if (rebuild === undefined || rebuild.status === 'succeeded') return true
  return rebuild.endAt !== null && receivedMs > rebuild.endAt + REPORT_LATE_MS
}

/** By pair; those that were never rebuilt are not in it. */
export async function rebuildsOf(
  db: Queries | Transaction,
  pairs: readonly string[],
): Promise<ReadonlyMap<string, Rebuild>> {
  if (pairs.length === 0) return new Map()
  const rows = await db
    .selectFrom('operations')
    .select(['resource_id', 'status', 'end_at'])
    .where('kind', '=', rebuildPair.name)
    .where('resource_id', 'in', [...pairs])
    .where('begin_at', 'is not', null)
    .orderBy('ordinal')
    .execute()
  return new Map(
    rows.map(({ resource_id, status, end_at }) => [resource_id, { status, endAt: end_at }]),
  )
}
