import { newId } from '#base/ids.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { RpoPointRow } from '#control/store/tables/rpo.ts'
import { type ListPage, pageOf, type PageWanted } from './pages.ts'

/* The history of recovery points, see src/control/operations/rpo-watch.ts. */
type Db = Queries | Transaction

/** Of one project, newest first. `from` and `to`: when the record was made, wall clock in ms, both included. */
export async function pageOfRpoPoints(
  db: Db,
  project: string,
  period: { readonly from?: number | undefined; readonly to?: number | undefined },
  page: PageWanted,
): Promise<ListPage<RpoPointRow>> {
  let query = db.selectFrom('rpo_points as r').selectAll('r').where('r.project', '=', project)
  if (period.from !== undefined) query = query.where('r.created_at', '>=', period.from)
  if (period.to !== undefined) query = query.where('r.created_at', '<=', period.to)
  return await pageOf(query, page)
}

/** Raises what is remembered of a stretch of time to `behind`; makes the record when there is none yet. */
export async function rememberRpoPoint(
  tx: Transaction,
  point: { readonly project: string; readonly pointAt: number; readonly behind: number },
  now: number,
): Promise<void> {
  const { project, pointAt, behind } = point
  await tx
    .insertInto('rpo_points')
    .values({ id: newId(), project, point_at: pointAt, behind, created_at: now, updated_at: now })
    // Another control plane on the same database may have looked as well.
    .onConflict((conflict) =>
      conflict
        .columns(['project', 'point_at'])
        .doUpdateSet({ behind, updated_at: now })
        .where('rpo_points.behind', '<', behind),
    )
    .execute()
}

/** Deletes records that were made before a time. */
export async function forgetRpoPoints(tx: Transaction, before: number): Promise<void> {
  await tx.deleteFrom('rpo_points').where('created_at', '<', before).execute()
}
