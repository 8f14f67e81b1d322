import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { findPlan, listPlans } from '#control/resources/backup-plans.ts'
import { findItem } from '#control/resources/checkpoints.ts'
import {
  deleteTags,
  projectTags,
  setTags,
  type TaggedKind,
  tagsByResource,
  tagsOf,
} from '#control/resources/tags.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import { matchesTags, type Tag } from '#domain/tag.ts'
import { itemObjects } from '../backup/codec.ts'
import { type CsbsCode, invalid, refuse } from '../backup/errors.ts'
import {
  envelope,
  isAnyUuid,
  isMembers,
  listMember,
  type Members,
  objectList,
  tagList,
  tagOf,
  TAGS_MAX,
} from '../backup/input.ts'
import type { BackupApiServices } from '../backup/services.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { tagQueryFrom } from './tag-query.ts'

/* Tags of backups and of policies: the same routes twice. */

interface Tagged {
  readonly kind: Extract<TaggedKind, 'backup' | 'backup_policy'>
  readonly base: string
  readonly absent: CsbsCode
  exists(db: Queries | Transaction, project: string, id: string): Promise<boolean>
  /** All of a project, newest first. */
  all(
    db: Queries,
    project: string,
  ): Promise<readonly { readonly id: string; readonly name: string }[]>
  /** What is shown of these. */
  details(
    db: Queries,
    services: BackupApiServices,
    ids: readonly string[],
  ): Promise<ReadonlyMap<string, object>>
}

const BACKUPS: Tagged = {
  kind: 'backup',
  base: '/v1/:project_id/csbs_backup',
  absent: 'CSBS.3001',
  exists: async (db, project, id) => (await findItem(db, project, id)) !== undefined,
  all: async (db, project) =>
    await db
      .selectFrom('checkpoint_items')
      .select(['id', 'name'])
      .where('project', '=', project)
      .orderBy('created_at', 'desc')
      .orderBy('id', 'desc')
      .execute(),
  async details(db, { region }, ids) {
    const found = new Map<string, object>()
    for (let from = 0; from < ids.length; from += IDS_PER_QUERY) {
      const rows = await db
        .selectFrom('checkpoint_items')
        .selectAll()
        .where('id', 'in', ids.slice(from, from + IDS_PER_QUERY))
        .execute()
      for (const shown of await itemObjects(db, region, rows)) found.set(shown.id, shown)
    }
    return found
  },
}

/** Both engines limit the number of parameters of a statement. */
const IDS_PER_QUERY = 500

const POLICIES: Tagged = {
  kind: 'backup_policy',
  base: '/v1/:project_id/csbs_backup_policy',
  absent: 'CSBS.3000',
  exists: async (db, project, id) => (await findPlan(db, project, id, 'policy')) !== undefined,
  all: async (db, project) => await listPlans(db, project, 'policy'),
  // Always empty, by contract.
  details: async (_db, _services, ids) => new Map(ids.map((id) => [id, {}])),
}

const Path = Type.Object({ resource_id: Type.String() })
const KeyPath = Type.Object({ resource_id: Type.String(), key: Type.String() })

export function tagRoutes(app: Api, services: BackupApiServices): void {
  tagsOfKind(app, services, BACKUPS)
  tagsOfKind(app, services, POLICIES)
}

function tagsOfKind(app: Api, services: BackupApiServices, of: Tagged): void {
  const { store } = services
  const { kind, base } = of
  const one = `${base}/:resource_id/tags`
  const audit = kind === 'backup' ? 'backup.tags' : 'backup-policy.tags'

  app.get(`${base}/tags`, async (request) => ({
    tags: await projectTags(store.db, projectOf(request), kind),
  }))

  app.get(one, { schema: { params: Path } }, async (request) => {
    const id = idOf(request, of)
    return await store.read(async (db) => {
      if (!(await of.exists(db, projectOf(request), id))) throw refuse(of.absent)
      return { tags: await tagsOf(db, kind, id) }
    })
  })

  app.post(one, { schema: { params: Path }, config: { audit } }, async (request, reply) => {
    await add(services, of, request, [tagOf(envelope(request.body, 'tag'))])
    return await reply.code(204).send()
  })

  app.post(
    `${one}/action`,
    { schema: { params: Path }, config: { audit } },
    async (request, reply) => {
      const body = isMembers(request.body) ? request.body : {}
      const { action } = body
      if (action === 'create') {
        await add(services, of, request, tagList(listMember(body, 'tags')))
      } else if (action === 'delete') {
        await remove(services, of, request, removalsOf(body))
      } else {
        throw invalid('action: create or delete.')
      }
      return await reply.code(204).send()
    },
  )

  app.delete(
    `${one}/:key`,
    { schema: { params: KeyPath }, config: { audit } },
    async (request, reply) => {
      const key = request.params.key.trim()
      if (key === '') throw invalid('key: at least one character.')
      if ((await remove(services, of, request, [{ key, value: null }])) === 0) {
        throw refuse('CSBS.7001')
      }
      return await reply.code(204).send()
    },
  )

  app.post(
    `${base}/resource_instances/action`,
    { config: { role: 'reader', query: true } },
    async (request) => {
      const { query, name, page } = tagQueryFrom(request.body)
      const project = projectOf(request)
      return await store.read(async (db) => {
        const tags = await tagsByResource(db, project, kind)
        const found = (await of.all(db, project)).filter(
          (row) => name(row.name) && matchesTags(tags.get(row.id) ?? [], query),
        )
        if (page === null) return { total_count: found.length }
        const shown = found.slice(page.offset, page.offset + page.limit)
        const details = await of.details(
          db,
          services,
          shown.map(({ id }) => id),
        )
        return {
          resources: shown.map((row) => ({
            resource_id: row.id,
            resource_name: row.name,
            resource_detail: details.get(row.id) ?? {},
            tags: [...(tags.get(row.id) ?? [])],
          })),
          total_count: found.length,
        }
      })
    },
  )
}

function idOf(request: FastifyRequest, of: Tagged): string {
  const { resource_id: id } = request.params as { resource_id: string }
  auditTarget(request, id)
  if (!isAnyUuid(id)) throw refuse(of.absent)
  return id.toLowerCase()
}

async function add(
  { store }: BackupApiServices,
  of: Tagged,
  request: FastifyRequest,
  tags: readonly Tag[],
): Promise<void> {
  const id = idOf(request, of)
  const project = projectOf(request)
  const outcome = await store.write(async (tx) => {
    if (!(await of.exists(tx, project, id))) return 'absent'
    const known = await tagsOf(tx, of.kind, id)
    const keys = new Set([...known, ...tags].map(({ key }) => key))
    if (keys.size > TAGS_MAX) return 'full'
    await setTags(tx, { kind: of.kind, project, resource: id }, tags)
    return 'done'
  })
  if (outcome === 'absent') throw refuse(of.absent)
  if (outcome === 'full') throw refuse('CSBS.7000')
}

interface Removal {
  readonly key: string
  /** Only when the tag has this value; null: whatever it has. */
  readonly value: string | null
}

function removalsOf(body: Members): Removal[] {
  const list = objectList(body, 'tags')
  if (list.length === 0) throw invalid('tags: at least one.')
  if (list.length > TAGS_MAX) throw refuse('CSBS.7000')
  return list.map(({ key, value = null }) => {
    if (typeof key !== 'string' || key === '' || key.length > 127) {
      throw invalid('key: 1 to 127 characters.')
    }
    if (value !== null && (typeof value !== 'string' || value.length > 255)) {
      throw invalid('value: at most 255 characters.')
    }
    return { key, value }
  })
}

/** How many there were. */
async function remove(
  { store }: BackupApiServices,
  of: Tagged,
  request: FastifyRequest,
  removals: readonly Removal[],
): Promise<number> {
  const id = idOf(request, of)
  const project = projectOf(request)
  const removed = await store.write(async (tx) => {
    if (!(await of.exists(tx, project, id))) return null
    const known = new Map((await tagsOf(tx, of.kind, id)).map(({ key, value }) => [key, value]))
    const keys = removals
      .filter(({ key, value }) => known.has(key) && (value === null || known.get(key) === value))
      .map(({ key }) => key)
    return await deleteTags(tx, { kind: of.kind, project, resource: id }, keys)
  })
  if (removed === null) throw refuse(of.absent)
  return removed
}
