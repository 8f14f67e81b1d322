import { type Expression, type SqlBool, sql } from 'kysely'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { CheckpointItemRow, CheckpointRow } from '#control/store/tables/checkpoints.ts'
import { type Columns, rowsOfPage, type SqlPage } from './sql-pages.ts'

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
  /** `backup` or `replication`; there are no others. */
  readonly imageType?: string | undefined
  /** Of the moment that the backup shows, ms since 1970; both included. */
  readonly from?: number | undefined
  readonly to?: number | undefined
}

/** In the order of what `replica` is for them; of any other there are none. */
const IMAGE_TYPES = ['backup', 'replication']

export type ItemPage = SqlPage<CheckpointItemRow, ItemKey>

const COLUMNS: Columns<CheckpointItemRow, ItemKey> = {
  created_at: [sql.ref('created_at'), (row) => row.created_at],
  updated_at: [sql.ref('updated_at'), (row) => row.updated_at],
  name: [sql.ref('name'), (row) => row.name],
  status: [sql.ref('status'), (row) => row.status],
  protected_at: [sql`coalesce(taken_at, 0)`, (row) => row.taken_at ?? 0],
  id: [sql.ref('id'), (row) => row.id],
}

export async function listItems(
  db: Db,
  filter: ItemFilter,
  page: ItemPage,
): Promise<CheckpointItemRow[]> {
  let query = db.selectFrom('checkpoint_items').selectAll()
  for (const condition of conditionsOf(filter)) query = query.where(condition)
  return await rowsOfPage(query, COLUMNS, page)
}

export async function countItems(db: Db, filter: ItemFilter): Promise<number> {
  let query = db.selectFrom('checkpoint_items').select((eb) => eb.fn.countAll<number>().as('count'))
  for (const condition of conditionsOf(filter)) query = query.where(condition)
  return Number((await query.executeTakeFirstOrThrow()).count)
}

// ---------------------------------------------------------------- checkpoints

const CHECKPOINT_COLUMNS: Columns<CheckpointRow, CheckpointKey> = {
  created_at: [sql.ref('created_at'), (row) => row.created_at],
  id: [sql.ref('id'), (row) => row.id],
  status: [sql.ref('status'), (row) => row.status],
  // What it is called stands in its plan, behind the plan's id.
  name: [sql.ref('plan_snapshot'), (row) => row.plan_snapshot],
}
export type CheckpointKey = 'created_at' | 'id' | 'status' | 'name'

export interface CheckpointFilter {
  readonly project: string
  readonly provider: string
  readonly plan?: string | undefined
  readonly status?: string | undefined
  /** When it was made, ms since 1970; both included. */
  readonly from?: number | undefined
  readonly to?: number | undefined
}

export async function listCheckpoints(
  db: Db,
  filter: CheckpointFilter,
  page: SqlPage<CheckpointRow, CheckpointKey>,
): Promise<CheckpointRow[]> {
  let query = db
    .selectFrom('checkpoints')
    .selectAll()
    .where('project', '=', filter.project)
    .where('provider', '=', filter.provider)
  if (filter.plan !== undefined) query = query.where('plan', '=', filter.plan)
  if (filter.status !== undefined) query = query.where('status', '=', filter.status)
  if (filter.from !== undefined) query = query.where('created_at', '>=', filter.from)
  if (filter.to !== undefined) query = query.where('created_at', '<=', filter.to)
  return await rowsOfPage(query, CHECKPOINT_COLUMNS, page)
}

function conditionsOf(filter: ItemFilter): Expression<SqlBool>[] {
  const found: Expression<SqlBool>[] = []
  const equal = (column: string, value: string | number | null | undefined) => {
    if (value !== undefined && value !== null) found.push(sql`${sql.ref(column)} = ${value}`)
  }
  const like = (column: string, part: string | undefined) => {
    if (part === undefined) return
    const pattern = `%${part.replaceAll(/[\\%_]/g, '\\$&')}%`
    // Both by the database: what it takes for the small letter of an umlaut differs.
    found.push(sql`lower(${sql.ref(column)}) like lower(cast(${pattern} as text)) escape '\\'`)
  }
  equal('project', filter.project)
  equal('status', filter.status)
  equal('resource_az', filter.az)
  equal('resource', filter.resource)
  equal('resource_type', filter.resourceType)
  equal('policy', filter.policy)
  equal('checkpoint', filter.checkpoint)
  equal('address', filter.address)
  const { imageType } = filter
  equal('replica', imageType === undefined ? undefined : IMAGE_TYPES.indexOf(imageType))
  like('name', filter.name)
  like('resource_name', filter.resourceName)
  const moment = sql`coalesce(taken_at, created_at)`
  if (filter.from !== undefined) found.push(sql`${moment} >= ${filter.from}`)
  if (filter.to !== undefined) found.push(sql`${moment} <= ${filter.to}`)
  return found
}
