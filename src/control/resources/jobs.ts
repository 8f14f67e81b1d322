import { type SqlBool, sql } from 'kysely'
import { fromJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { OperationRow } from '#control/store/tables/operations.ts'
import { cut, type ListPage, pageOf, type PageWanted } from './pages.ts'

/* Queries for the list of failed operations, and for ids that are derived from an operation's. */
type Db = Queries | Transaction

/** Failed operations of a project on what the disaster recovery API made, that nobody has taken off the list. */
export interface FailureFilter {
  /** At least one. */
  readonly kinds: readonly string[]
  /** Only those whose entities name this group. */
  readonly group?: string | undefined
  /** Only this operation, or those on this resource. */
  readonly operationOrResource?: string | undefined
}

const failures = (db: Db, project: string, filter: FailureFilter) => {
  const { kinds, group, operationOrResource: id } = filter
  let query = db
    .selectFrom('operations as r')
    .where('r.project', '=', project)
    .where('r.status', 'in', ['failed', 'cancelled'])
    .where('r.kind', 'in', [...kinds])
    .where(sql<SqlBool>`not exists (select 1 from dismissed_failures d where d.operation = r.id)`)
  // What another API did to its own groups and pairs is its business.
  query = query
    .where(
      sql<SqlBool>`not exists (select 1 from protection_groups g
        where g.id = r.resource_id and g.form <> 'sdrs')`,
    )
    .where(
      sql<SqlBool>`not exists (select 1 from replication_pairs p join protection_groups g on g.id = p.group_id
        where p.id = r.resource_id and g.form <> 'sdrs')`,
    )
  if (group !== undefined) {
    query = query.where('r.entities', 'like', `%"server_group_id":"${group}"%`)
  }
  if (id !== undefined) {
    query = query.where((eb) => eb.or([eb('r.id', '=', id), eb('r.resource_id', '=', id)]))
  }
  return query
}

/** Newest first. `name`: part of what the entities have as the name, without regard to case. */
export async function pageOfFailures(
  db: Db,
  project: string,
  filter: FailureFilter & { readonly name?: string | undefined },
  page: PageWanted,
): Promise<ListPage<OperationRow>> {
  const { name } = filter
  const query = failures(db, project, filter).selectAll('r')
  if (name === undefined) return await pageOf(query, page, 'ordinal')
  // Few operations fail, and of these few are looked for by name: their names are taken out of the text here.
  const all = await failures(db, project, filter)
    .select(['r.id', 'r.entities'])
    .orderBy('r.ordinal', 'desc')
    .orderBy('r.id')
    .execute()
  const named = all.filter(({ entities }) => nameIn(entities).includes(name.toLowerCase()))
  const wanted = cut(named, page).map(({ id }) => id)
  const { rows } = await pageOf(
    query.where('r.id', 'in', ['', ...wanted]),
    { limit: wanted.length, offset: 0 },
    'ordinal',
  )
  return { rows, count: named.length }
}

function nameIn(entities: string): string {
  const { name } = fromJson<{ name?: unknown }>(entities)
  return typeof name === 'string' ? name.toLowerCase() : ''
}

/** Takes operations off the list; the operations and what they worked on stay as they are. Returns how many. */
export async function dismissFailures(
  tx: Transaction,
  project: string,
  filter: FailureFilter,
): Promise<number> {
  const { numInsertedOrUpdatedRows } = await tx
    .insertInto('dismissed_failures')
    .columns(['operation', 'project'])
    .expression(
      failures(tx, project, filter).select(['r.id', sql<string>`${project}`.as('project')]),
    )
    .executeTakeFirstOrThrow()
  return Number(numInsertedOrUpdatedRows)
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
