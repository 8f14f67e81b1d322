import { type Expression, type SqlBool, sql } from 'kysely'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { CheckpointItemRow } from '#control/store/tables/checkpoints.ts'

/* Lists of backups, made by the database: there may be a hundred thousand of them in a project. */
type Db = Queries | Transaction

export const ITEM_KEYS = [
  'created_at',
  'updated_at',
  'name',
  'status',
  'protected_at',
  'id',
] as const
export type ItemKey = (typeof ITEM_KEYS)[number]

export interface ItemFilter {
  /** null: of all projects. */
  readonly project: string | null
  readonly status?: string | undefined
  /** Part of it. */
  readonly name?: string | undefined
  readonly resourceName?: string | undefined
  readonly az?: string | undefined
  readonly resource?: string | undefined
  readonly resourceType?: string | undefined
  readonly policy?: string | undefined
  readonly checkpoint?: string | undefined
  readonly address?: string | undefined
  readonly replica?: boolean | undefined
  /** Of the moment that the backup shows, ms since 1970; both included. */
  readonly from?: number | undefined
  readonly to?: number | undefined
}

export interface ItemPage {
  readonly limit: number
  readonly offset: number
  /** Only what comes after it in the order. */
  readonly after: CheckpointItemRow | null
  readonly orders: readonly { readonly key: ItemKey; readonly descending: boolean }[]
}

const COLUMNS: Record<ItemKey, Expression<string | number>> = {
  created_at: sql.ref('created_at'),
  updated_at: sql.ref('updated_at'),
  name: sql.ref('name'),
  status: sql.ref('status'),
  protected_at: sql`coalesce(taken_at, 0)`,
  id: sql.ref('id'),
}

const valueOf = (row: CheckpointItemRow, key: ItemKey): string | number =>
  key === 'protected_at' ? (row.taken_at ?? 0) : row[key]

export async function listItems(
  db: Db,
  filter: ItemFilter,
  page: ItemPage,
): Promise<CheckpointItemRow[]> {
  // The id settles ties, in the direction of the first key, which the index has as well.
  const tie = { key: 'id', descending: page.orders[0]?.descending ?? true } as const
  const orders = page.orders.some(({ key }) => key === 'id') ? page.orders : [...page.orders, tie]
  let query = db.selectFrom('checkpoint_items').selectAll()
  for (const condition of conditionsOf(filter)) query = query.where(condition)
  if (page.after !== null) query = query.where(behind(orders, page.after))
  for (const { key, descending } of orders) {
    query = query.orderBy(COLUMNS[key], descending ? 'desc' : 'asc')
  }
  return await query.limit(page.limit).offset(page.offset).execute()
}

export async function countItems(db: Db, filter: ItemFilter): Promise<number> {
  let query = db.selectFrom('checkpoint_items').select((eb) => eb.fn.countAll<number>().as('count'))
  for (const condition of conditionsOf(filter)) query = query.where(condition)
  return Number((await query.executeTakeFirstOrThrow()).count)
}

function behind(orders: ItemPage['orders'], after: CheckpointItemRow): Expression<SqlBool> {
  const alternatives = orders.map(({ key, descending }, index) => {
    const equal = orders
      .slice(0, index)
      .map((order) => sql<SqlBool>`${COLUMNS[order.key]} = ${valueOf(after, order.key)}`)
    const further = sql<SqlBool>`${COLUMNS[key]} ${sql.raw(descending ? '<' : '>')} ${valueOf(after, key)}`
    return sql<SqlBool>`(${sql.join([...equal, further], sql` and `)})`
  })
  return sql<SqlBool>`(${sql.join(alternatives, sql` or `)})`
}

function conditionsOf(filter: ItemFilter): Expression<SqlBool>[] {
  const found: Expression<SqlBool>[] = []
  const equal = (column: string, value: string | number | null | undefined) => {
    if (value !== undefined && value !== null) found.push(sql`${sql.ref(column)} = ${value}`)
  }
  const like = (column: string, part: string | undefined) => {
    if (part === undefined) return
    const pattern = `%${part.toLowerCase().replaceAll(/[\\%_]/g, '\\$&')}%`
    found.push(sql`lower(${sql.ref(column)}) like ${pattern} escape '\\'`)
  }
  equal('project', filter.project)
  equal('status', filter.status)
  equal('resource_az', filter.az)
  equal('resource', filter.resource)
  equal('resource_type', filter.resourceType)
  equal('policy', filter.policy)
  equal('checkpoint', filter.checkpoint)
  equal('address', filter.address)
  equal('replica', filter.replica === undefined ? undefined : Number(filter.replica))
  like('name', filter.name)
  like('resource_name', filter.resourceName)
  const moment = sql`coalesce(taken_at, created_at)`
  if (filter.from !== undefined) found.push(sql`${moment} >= ${filter.from}`)
  if (filter.to !== undefined) found.push(sql`${moment} <= ${filter.to}`)
  return found
}
