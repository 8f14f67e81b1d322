import { type SelectQueryBuilder, sql } from 'kysely'

/* Pages of long lists: the database counts and cuts. Newest first, then by id. */

export interface PageWanted {
  readonly limit: number
  readonly offset: number
  /** Rows after that one only. One that is not among the matching rows ends the list: starting anew would repeat rows for ever. */
  readonly marker?: string | undefined
}

export interface ListPage<Row> {
  readonly rows: readonly Row[]
  /** Of all that match, on whatever page. */
  readonly count: number
}

/** The page, and the number of all rows. `query` has the rows as `r`. */
export async function pageOf<DB, TB extends keyof DB, Row>(
  query: SelectQueryBuilder<DB, TB, Row>,
  { limit, offset, marker }: PageWanted,
): Promise<ListPage<Row>> {
  const counted = await query
    .clearSelect()
    .select(sql<number>`count(*)`.as('count'))
    .executeTakeFirstOrThrow()
  const { count } = counted as { count: number | string }
  let after = query
  if (marker !== undefined) {
    const last = await query
      .clearSelect()
      .select(sql<number>`r.created_at`.as('created_at'))
      .where(sql<boolean>`r.id = ${marker}`)
      .executeTakeFirst()
    if (last === undefined) return { rows: [], count: Number(count) }
    const { created_at: at } = last as { created_at: number }
    after = query.where(
      sql<boolean>`(r.created_at < ${at} or (r.created_at = ${at} and r.id > ${marker}))`,
    )
  }
  const rows =
    limit === 0
      ? []
      : await after
          .orderBy(sql`r.created_at`, 'desc')
          .orderBy(sql`r.id`)
          .limit(limit)
          .offset(offset)
          .execute()
  return { rows, count: Number(count) }
}
