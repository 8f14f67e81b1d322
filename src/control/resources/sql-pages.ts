import { type Expression, type SelectQueryBuilder, type SqlBool, sql } from 'kysely'

/* Pages of lists that may be ordered by several keys, made by the database: rows behind a marker, in the order, so many of them. */

/** By what rows are ordered: in the database, and in a row that is here. */
export type Columns<Row, Key extends string> = Record<
  Key,
  readonly [Expression<string | number>, (row: Row) => string | number]
>

export interface Order<Key> {
  readonly key: Key
  readonly descending: boolean
}

export interface SqlPage<Row, Key> {
  readonly limit: number
  readonly offset: number
  /** Only what comes after it in the order. */
  readonly after: Row | null
  readonly orders: readonly Order<Key>[]
}

/** The id settles ties, in the direction of the first key, which the indexes have as well. */
const withId = <Key extends string>(orders: readonly Order<Key | 'id'>[]): Order<Key | 'id'>[] =>
  orders.some(({ key }) => key === 'id')
    ? [...orders]
    : [...orders, { key: 'id', descending: orders[0]?.descending ?? true }]

export async function rowsOfPage<DB, TB extends keyof DB, Row, Key extends string>(
  query: SelectQueryBuilder<DB, TB, Row>,
  columns: Columns<Row, Key | 'id'>,
  page: SqlPage<Row, Key | 'id'>,
): Promise<Row[]> {
  const orders = withId<Key>(page.orders)
  let select = query
  if (page.after !== null) select = select.where(behind(columns, orders, page.after))
  for (const { key, descending } of orders) {
    select = select.orderBy(columns[key][0], descending ? 'desc' : 'asc')
  }
  return (await select.limit(page.limit).offset(page.offset).execute()) as Row[]
}

function behind<Row, Key extends string>(
  columns: Columns<Row, Key>,
  orders: readonly Order<Key>[],
  after: Row,
): Expression<SqlBool> {
  const alternatives = orders.map(({ key, descending }, index) => {
    const [column, value] = columns[key]
    const equal = orders.slice(0, index).map((order) => {
      const [other, otherValue] = columns[order.key]
      return sql<SqlBool>`${other} = ${otherValue(after)}`
    })
    const further = sql<SqlBool>`${column} ${sql.raw(descending ? '<' : '>')} ${value(after)}`
    return sql<SqlBool>`(${sql.join([...equal, further], sql` and `)})`
  })
  return sql<SqlBool>`(${sql.join(alternatives, sql` or `)})`
}
