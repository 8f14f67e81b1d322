import Type from 'typebox'
import {
  addInstanceTags,
  removeInstanceTags,
  type TagRefusal,
} from '#control/operations/definitions/instances/instance-changes.ts'
import { findInstance, listInstances } from '#control/resources/instances.ts'
import { projectTags, tagsByResource, tagsOf } from '#control/resources/tags.ts'
import { matchesTags, TAGS_MAX } from '#domain/tag.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { optional } from '../http/validation.ts'
import type { SdrsCode } from './errors.ts'
import { instanceObjects } from './instance-views.ts'
import { instanceIdOf, STATE_CODES } from './instances.ts'
import type { SdrsContext } from './services.ts'
import { keyFrom, tagFrom, TagInput, tagsFrom } from './tag-input.ts'
import { tagQueryFrom } from './tag-query.ts'

/** Tags of protected instances, and how instances are found by them. */
const TAGS = '/v1/:project_id/protected-instances/:protected_instance_id/tags'
const Path = Type.Object({ project_id: Type.String(), protected_instance_id: Type.String() })
const KeyPath = Type.Object({
  project_id: Type.String(),
  protected_instance_id: Type.String(),
  key: Type.String(),
})
const AddBody = Type.Object({ tag: TagInput })
const ActionBody = Type.Object({
  action: optional(Type.String()),
  tags: optional(Type.Array(TagInput)),
})

const CODES = {
  ...STATE_CODES,
  TOO_MANY_TAGS: 'SDRS.2203',
  TAG_UNKNOWN: 'SDRS.2206',
} as const satisfies Record<TagRefusal, SdrsCode>

export function instanceTagRoutes(app: Api, { services, refuse }: SdrsContext): void {
  const instanceId = instanceIdOf(refuse)

  app.get('/v1/:project_id/protected-instances/tags', async (request) => ({
    tags: await projectTags(services.store.db, projectOf(request), 'instance'),
  }))

  app.get(TAGS, { schema: { params: Path } }, async (request) => {
    const id = instanceId(request.params.protected_instance_id)
    return await services.store.read(async (db) => {
      if ((await findInstance(db, projectOf(request), id)) === undefined) throw refuse('SDRS.1320')
      return { tags: await tagsOf(db, 'instance', id) }
    })
  })

  app.post(
    TAGS,
    { schema: { params: Path, body: AddBody }, config: { audit: 'protected-instance.add-tags' } },
    async (request, reply) => {
      const id = instanceId(request.params.protected_instance_id)
      auditTarget(request, id)
      const tag = tagFrom(request.body.tag, refuse)
      const outcome = await addInstanceTags(services, projectOf(request), id, [tag])
      if (!outcome.ok) throw refuse(CODES[outcome.refusal])
      return await reply.code(204).send()
    },
  )

  app.post(
    `${TAGS}/action`,
    { schema: { params: Path, body: ActionBody }, config: { audit: 'protected-instance.tags' } },
    async (request, reply) => {
      const id = instanceId(request.params.protected_instance_id)
      const { action, tags } = request.body
      auditTarget(request, id, { action })
      if (action !== 'create' && action !== 'delete') throw refuse('SDRS.2201')
      if (tags === undefined || tags === null || tags.length === 0) throw refuse('SDRS.2202')
      if (tags.length > TAGS_MAX) throw refuse('SDRS.2203')
      const project = projectOf(request)
      const outcome =
        action === 'create'
          ? await addInstanceTags(services, project, id, tagsFrom(tags, refuse))
          : await removeInstanceTags(services, project, id, keysOf(tags), false)
      if (!outcome.ok) throw refuse(CODES[outcome.refusal])
      return await reply.code(204).send()
    },
  )

  /** Keys that are to go need not follow the rules of new ones. */
  const keysOf = (tags: readonly TagInput[]): string[] =>
    tags.map(({ key }) => {
      if (typeof key !== 'string' || key.trim() === '') throw refuse('SDRS.2205')
      return key
    })

  app.delete(
    `${TAGS}/:key`,
    { schema: { params: KeyPath }, config: { audit: 'protected-instance.delete-tag' } },
    async (request, reply) => {
      const id = instanceId(request.params.protected_instance_id)
      const key = keyFrom(request.params.key, refuse)
      auditTarget(request, id, { key })
      const outcome = await removeInstanceTags(services, projectOf(request), id, [key], true)
      if (!outcome.ok) throw refuse(CODES[outcome.refusal])
      return await reply.code(204).send()
    },
  )

  app.post(
    '/v1/:project_id/protected-instances/resource_instances/action',
    {
      schema: { body: Type.Record(Type.String(), Type.Unknown()) },
      config: { role: 'reader', query: true },
    },
    async (request) => {
      const wanted = tagQueryFrom(request.body, refuse)
      const project = projectOf(request)
      return await services.store.read(async (db) => {
        const tags = await tagsByResource(db, project, 'instance')
        const rows = (await listInstances(db, project)).filter(
          (row) =>
            (wanted.name === null || wanted.name(row.name)) &&
            matchesTags(tags.get(row.id) ?? [], wanted.query),
        )
        if (wanted.page === null) return { total_count: rows.length }
        const { offset, limit } = wanted.page
        const shown = rows.slice(offset, offset + limit)
        const objects = await instanceObjects(db, services, shown)
        return {
          resources: objects.map((detail, index) => ({
            resource_id: detail.id,
            resource_name: detail.name,
            resource_detail: {
              ...detail,
              // One client wants numbers here, and nobody else reads them.
              created_at: shown[index]?.created_at ?? 0,
              updated_at: shown[index]?.updated_at ?? 0,
            },
            tags: detail.tags,
          })),
          total_count: rows.length,
        }
      })
    },
  )
}
