import { sql } from 'kysely'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { ProtectionGroupRow, ReplicationPairRow } from '#control/store/tables/resources.ts'
import type { ProtectedInstanceRow } from '#control/store/tables/servers.ts'
import type { GroupForm } from '#domain/protection-group.ts'
import type { Tag } from '#domain/tag.ts'
import { pairAttachments, type PairGist } from './instances.ts'
import { type ListPage, pageOf, type PageWanted } from './pages.ts'

/* Pages of groups, pairs and instances of one project, for lists that may have ten thousand rows: the database filters, counts and cuts, and
 * gives out the page only. Newest first, then by id, so that pages neither overlap nor leave gaps; the indexes are in that order.
 *
 * A pair or instance is listed by the API that its group was made with. In most projects all groups are of one form, and then nothing is
 * compared for it.
 */
type Db = Queries | Transaction

export interface ListFilter {
  readonly form: GroupForm
  /** One of these states. */
  readonly statuses?: readonly string[] | undefined
  /** Part of the name, without regard to case. */
  readonly name?: string | undefined
  /** Site that is production now. */
  readonly az?: string | undefined
}

// ---------------------------------------------------------------- groups

export interface GroupFilter extends ListFilter {
  /** Older than this, and no drill of it was made or reported since. */
  readonly noDrillSince?: number | undefined
}

export async function pageOfGroups(
  db: Db,
  project: string,
  filter: GroupFilter,
  page: PageWanted,
): Promise<ListPage<ProtectionGroupRow>> {
  const { form, noDrillSince: since } = filter
  let query = db
    .selectFrom('protection_groups as r')
    .selectAll('r')
    .where('r.project', '=', project)
    .where('r.form', '=', form)
  if (filter.statuses !== undefined)
    query = query.where('r.status', 'in', orNothing(filter.statuses))
  if (filter.name !== undefined) query = query.where(hasName(filter.name))
  if (filter.az !== undefined) query = query.where(isProduction('r', filter.az))
  if (since !== undefined) {
    query = query
      .where('r.created_at', '<=', since)
      .where('r.id', 'not in', drillsSince(db, 'drills', project, since))
      .where('r.id', 'not in', drillsSince(db, 'drill_reports', project, since))
  }
  return await pageOf(query, page)
}

// ---------------------------------------------------------------- pairs

export interface PairFilter extends ListFilter {
  readonly groups?: readonly string[] | undefined
  /** Attached to one of these instances. */
  readonly instances?: readonly string[] | undefined
}

export async function pageOfPairs(
  db: Db,
  project: string,
  filter: PairFilter,
  page: PageWanted,
): Promise<ListPage<ReplicationPairRow>> {
  const { groups, instances } = filter
  const few = groups !== undefined || instances !== undefined
  let query = db.selectFrom('replication_pairs as r').selectAll('r').where(inProject(project, few))
  if (groups !== undefined) query = query.where('r.group_id', 'in', orNothing(groups))
  if (instances !== undefined) {
    // A pair is attached to instances of its own group only: so the few pairs of a few groups are looked at.
    const of = db
      .selectFrom('protected_instances')
      .select('group_id')
      .where('project', '=', project)
      .where('id', 'in', orNothing(instances))
    query = query
      .where('r.group_id', 'in', of)
      .where((eb) => eb.or(instances.map((id) => eb('r.attachments', 'like', `%"${id}"%`))))
  }
  if (filter.statuses !== undefined)
    query = query.where('r.status', 'in', orNothing(filter.statuses))
  if (filter.name !== undefined) query = query.where(hasName(filter.name))
  if (filter.az !== undefined) {
    query = query.where('r.group_id', 'in', groupsAt(db, project, filter.az))
  }
  if (await hasOtherForms(db, project, filter.form)) {
    query = query.where('r.group_id', 'in', groupsOf(db, project, filter.form))
  }
  return await pageOf(query, page)
}

// ---------------------------------------------------------------- instances

export interface InstanceFilter extends ListFilter {
  readonly groups?: readonly string[] | undefined
  readonly ids?: readonly string[] | undefined
}

export async function pageOfInstances(
  db: Db,
  project: string,
  filter: Omit<InstanceFilter, 'form'>,
  page: PageWanted,
): Promise<ListPage<ProtectedInstanceRow>> {
  const { groups, ids } = filter
  const few = groups !== undefined || ids !== undefined
  let query = db
    .selectFrom('protected_instances as r')
    .selectAll('r')
    .where(inProject(project, few))
  if (groups !== undefined) query = query.where('r.group_id', 'in', orNothing(groups))
  if (ids !== undefined) query = query.where('r.id', 'in', orNothing(ids))
  if (filter.statuses !== undefined)
    query = query.where('r.status', 'in', orNothing(filter.statuses))
  if (filter.name !== undefined) query = query.where(hasName(filter.name))
  if (filter.az !== undefined) {
    query = query.where('r.group_id', 'in', groupsAt(db, project, filter.az))
  }
  return await pageOf(query, page)
}

// ---------------------------------------------------------------- what is shown beside a page

/** Both engines bound the number of parameters of a statement. */
const AT_ONCE = 500

/** What the state of a group's replication is judged by. */
export type SyncGist = Pick<
  ReplicationPairRow,
  'id' | 'group_id' | 'in_session' | 'progress' | 'added_epoch'
>

/** Every pair of these groups, in no particular order. */
export async function syncGistsOf(db: Db, groups: readonly string[]): Promise<SyncGist[]> {
  const found: SyncGist[] = []
  for (let at = 0; at < groups.length; at += AT_ONCE) {
    const rows = await db
      .selectFrom('replication_pairs')
      .select(['id', 'group_id', 'in_session', 'progress', 'added_epoch'])
      .where('group_id', 'in', groups.slice(at, at + AT_ONCE))
      .execute()
    for (const row of rows) found.push(row)
  }
  return found
}

/** The same, with what lists of instances need as well. */
export async function pairGistsOf(db: Db, groups: readonly string[]): Promise<PairGist[]> {
  const found: PairGist[] = []
  for (let at = 0; at < groups.length; at += AT_ONCE) {
    const rows = await db
      .selectFrom('replication_pairs')
      .select(['id', 'group_id', 'status', 'attachments', 'in_session', 'progress', 'added_epoch'])
      .where('group_id', 'in', groups.slice(at, at + AT_ONCE))
      .execute()
    for (const row of rows) found.push(row)
  }
  return found
}

export async function readGroups(
  db: Db,
  ids: readonly string[],
): Promise<ReadonlyMap<string, ProtectionGroupRow>> {
  const found = new Map<string, ProtectionGroupRow>()
  for (let at = 0; at < ids.length; at += AT_ONCE) {
    const rows = await db
      .selectFrom('protection_groups')
      .selectAll()
      .where('id', 'in', ids.slice(at, at + AT_ONCE))
      .execute()
    for (const row of rows) found.set(row.id, row)
  }
  return found
}

/** How many instances each of these groups has; groups without one are left out. */
export async function countInstancesOf(
  db: Db,
  groups: readonly string[],
): Promise<ReadonlyMap<string, number>> {
  const found = new Map<string, number>()
  for (let at = 0; at < groups.length; at += AT_ONCE) {
    const rows = await db
      .selectFrom('protected_instances')
      .select((eb) => ['group_id', eb.fn.countAll<number>().as('count')])
      .where('group_id', 'in', groups.slice(at, at + AT_ONCE))
      .groupBy('group_id')
      .execute()
    for (const row of rows) found.set(row.group_id, Number(row.count))
  }
  return found
}

/** Those of these servers that exist. */
export async function existingServers(
  db: Db,
  ids: readonly string[],
): Promise<ReadonlySet<string>> {
  const found = new Set<string>()
  for (let at = 0; at < ids.length; at += AT_ONCE) {
    const rows = await db
      .selectFrom('servers')
      .select('id')
      .where('id', 'in', ids.slice(at, at + AT_ONCE))
      .execute()
    for (const { id } of rows) found.add(id)
  }
  return found
}

/** By key; instances without tags have no entry. */
export async function tagsOfInstances(
  db: Db,
  ids: readonly string[],
): Promise<ReadonlyMap<string, readonly Tag[]>> {
  const found = new Map<string, Tag[]>()
  for (let at = 0; at < ids.length; at += AT_ONCE) {
    const rows = await db
      .selectFrom('tags')
      .select(['resource', 'key', 'value'])
      .where('kind', '=', 'instance')
      .where('resource', 'in', ids.slice(at, at + AT_ONCE))
      .orderBy('key')
      .execute()
    for (const { resource, key, value } of rows) {
      found.set(resource, [...(found.get(resource) ?? []), { key, value }])
    }
  }
  return found
}

/** Ids of a project's instances with an attached pair in one of these states. */
export async function instancesWithPairs(
  db: Db,
  project: string,
  statuses: readonly string[],
): Promise<ReadonlySet<string>> {
  const rows = await db
    .selectFrom('replication_pairs')
    .select('attachments')
    .where('project', '=', project)
    .where('status', 'in', [...statuses])
    .where('attachments', '<>', '[]')
    .execute()
  return new Set(rows.flatMap((row) => pairAttachments(row).map(({ instance }) => instance)))
}

// ---------------------------------------------------------------- parts of queries

/**
 * `few`: something else picks the few rows that count. Then the column is hidden from the planner, which would go through all rows of the
 * project in their order rather than sort a few of them.
 */
const inProject = (project: string, few: boolean) =>
  few ? sql<boolean>`r.project || '' = ${project}` : sql<boolean>`r.project = ${project}`

/** Names have letters, digits, dots, underscores and hyphens; what is searched for may be anything. */
export const hasName = (part: string) => {
  const pattern = `%${part.toLowerCase().replaceAll(/[\\%_]/g, '\\$&')}%`
  return sql<boolean>`lower(r.name) like ${pattern} escape '\\'`
}

const isProduction = (alias: string, az: string) => {
  const column = (name: string) => sql.ref(`${alias}.${name}`)
  return sql<boolean>`case ${column('station')} when 'source' then ${column('source_az')} else ${column('target_az')} end = ${az}`
}

const drillsSince = (db: Db, table: 'drills' | 'drill_reports', project: string, sinceMs: number) =>
  db
    .selectFrom(table)
    .select('group_id')
    .where('project', '=', project)
    .where('created_at', '>', sinceMs)

const groupsAt = (db: Db, project: string, az: string) =>
  db
    .selectFrom('protection_groups as g')
    .select('g.id')
    .where('g.project', '=', project)
    .where(isProduction('g', az))

const groupsOf = (db: Db, project: string, form: GroupForm) =>
  db
    .selectFrom('protection_groups as g')
    .select('g.id')
    .where('g.project', '=', project)
    .where('g.form', '=', form)

async function hasOtherForms(db: Db, project: string, form: GroupForm): Promise<boolean> {
  const other = await db
    .selectFrom('protection_groups as g')
    .select('g.id')
    .where('g.project', '=', project)
    .where('g.form', '<>', form)
    .limit(1)
    .executeTakeFirst()
  return other !== undefined
}

/** An empty list is no SQL. */
const orNothing = (ids: readonly string[]): readonly string[] => (ids.length === 0 ? [''] : ids)
