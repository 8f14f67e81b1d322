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

/** The page, and the number of all rows. `query` has the rows as `r`. `order`: the column that says which are newer. */
export async function pageOf<DB, TB extends keyof DB, Row>(
  query: SelectQueryBuilder<DB, TB, Row>,
  { limit, offset, marker }: PageWanted,
  order: 'created_at' | 'ordinal' = 'created_at',
): Promise<ListPage<Row>> {
  const newer = sql.ref(`r.${order}`)
  const counted = await query
    .clearSelect()
    .select(sql<number>`count(*)`.as('count'))
    .executeTakeFirstOrThrow()
  const { count } = counted as { count: number | string }
  let after = query
  if (marker !== undefined) {
    const last = await query
      .clearSelect()
      .select(sql<number>`${newer}`.as('at'))
      .where(sql<boolean>`r.id = ${marker}`)
      .executeTakeFirst()
    if (last === undefined) return { rows: [], count: Number(count) }
    const { at } = last as { at: number }
    after = query.where(sql<boolean>`(${newer} < ${at} or (${newer} = ${at} and r.id > ${marker}))`)
  }
  const rows =
    limit === 0
      ? []
      : await after.orderBy(newer, 'desc').orderBy(sql`r.id`).limit(limit).offset(offset).execute()
  return { rows, count: Number(count) }
}

/** The page of rows that are in their order already; for what the database cannot filter. */
export function cut<Row extends { readonly id: string }>(
  rows: readonly Row[],
  { limit, offset, marker }: PageWanted,
): Row[] {
  const at = marker === undefined ? -1 : rows.findIndex((row) => row.id === marker)
  if (marker !== undefined && at < 0) return []
  return rows.slice(at + 1 + offset, at + 1 + offset + limit)
}
