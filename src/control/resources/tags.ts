import type { Queries, Transaction } from '#control/store/store.ts'
import { matchesTags, type Tag, type TagQuery, TAGS_MAX } from '#domain/tag.ts'

/** Tags of whatever can be tagged. Callers look up the resource in the caller's project first. */
type Db = Queries | Transaction

export type TaggedKind =
  | 'server'
  | 'volume'
  | 'instance'
  | 'vpc'
  | 'subnet'
  | 'security_group'
  | 'backup'
  | 'backup_policy'

export interface TaggedResource {
  readonly kind: TaggedKind
  readonly project: string
  /** Its id. */
  readonly resource: string
}

/** By key. */
export async function tagsOf(db: Db, kind: TaggedKind, resource: string): Promise<Tag[]> {
  return await db
    .selectFrom('tags')
    .select(['key', 'value'])
    .where('kind', '=', kind)
    .where('resource', '=', resource)
    .orderBy('key')
    .execute()
}

/** Tags of every tagged resource of a kind in a project, by key; resources without tags have no entry. */
export async function tagsByResource(
  db: Db,
  project: string,
  kind: TaggedKind,
): Promise<ReadonlyMap<string, readonly Tag[]>> {
  const found = new Map<string, Tag[]>()
  const rows = await db
    .selectFrom('tags')
    .select(['resource', 'key', 'value'])
    .where('project', '=', project)
    .where('kind', '=', kind)
    .orderBy('key')
    .execute()
  group(found, rows)
  return found
}

function group(
  found: Map<string, Tag[]>,
  rows: readonly { readonly resource: string; readonly key: string; readonly value: string }[],
): void {
  for (const { resource, key, value } of rows) {
    const tags = found.get(resource)
    if (tags === undefined) found.set(resource, [{ key, value }])
    else tags.push({ key, value })
  }
}

/**
 * Adds tags; those of known keys get the new value. False, and nothing changes, when the resource would have more than
 * TAGS_MAX. Keys and values have been checked, see src/domain/tag.ts.
 */
export async function setTags(
  tx: Transaction,
  of: TaggedResource,
  tags: readonly Tag[],
): Promise<boolean> {
  const known = await tagsOf(tx, of.kind, of.resource)
  const keys = new Set([...known, ...tags].map(({ key }) => key))
  if (keys.size > TAGS_MAX) return false
  for (const { key, value } of tags) {
    await tx
      .insertInto('tags')
      .values({ kind: of.kind, resource: of.resource, project: of.project, key, value })
      .onConflict((conflict) =>
        conflict.columns(['kind', 'resource', 'key']).doUpdateSet({ value }),
      )
      .execute()
  }
  return true
}

/** How many of the keys there were. */
export async function deleteTags(
  tx: Transaction,
  of: TaggedResource,
  keys: readonly string[],
): Promise<number> {
  if (keys.length === 0) return 0
  const { numDeletedRows } = await tx
    .deleteFrom('tags')
    .where('kind', '=', of.kind)
    .where('resource', '=', of.resource)
    .where('key', 'in', [...keys])
    .executeTakeFirst()
  return Number(numDeletedRows)
}

/** When the resource itself goes. */
export async function deleteAllTags(
  tx: Transaction,
  kind: TaggedKind,
  resource: string,
): Promise<void> {
  await tx.deleteFrom('tags').where('kind', '=', kind).where('resource', '=', resource).execute()
}

/** Every key that resources of a kind have in a project, with its different values; both in order. */
export async function projectTags(
  db: Db,
  project: string,
  kind: TaggedKind,
): Promise<{ readonly key: string; readonly values: readonly string[] }[]> {
  const values = new Map<string, Set<string>>()
  for (const tags of (await tagsByResource(db, project, kind)).values()) {
    for (const { key, value } of tags) values.set(key, (values.get(key) ?? new Set()).add(value))
  }
  return [...values]
    .map(([key, found]) => ({ key, values: [...found].toSorted() }))
    .toSorted((a, b) => (a.key < b.key ? -1 : 1))
}

/** Those of `resources` whose tags match, in their order, with all their tags. */
export async function queryByTags(
  db: Db,
  project: string,
  kind: TaggedKind,
  resources: readonly string[],
  query: TagQuery,
): Promise<{ readonly resource: string; readonly tags: readonly Tag[] }[]> {
  const byResource = await tagsByResource(db, project, kind)
  return resources
    .map((resource) => ({ resource, tags: byResource.get(resource) ?? [] }))
    .filter(({ tags }) => matchesTags(tags, query))
}

/** Tags of these resources, by key; resources without tags have no entry. */
export async function tagsByResourceIn(
  db: Db,
  kind: TaggedKind,
  resources: readonly string[],
): Promise<ReadonlyMap<string, readonly Tag[]>> {
  const found = new Map<string, Tag[]>()
  for (let from = 0; from < resources.length; from += IDS_PER_QUERY) {
    const rows = await db
      .selectFrom('tags')
      .select(['resource', 'key', 'value'])
      .where('kind', '=', kind)
      .where('resource', 'in', resources.slice(from, from + IDS_PER_QUERY))
      .orderBy('key')
      .execute()
    group(found, rows)
  }
  return found
}

/** Both engines limit the number of parameters of a statement. */
const IDS_PER_QUERY = 500
