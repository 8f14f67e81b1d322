import { findVolume } from '#control/resources/volumes.ts'
import { deleteTags, setTags, tagsOf } from '#control/resources/tags.ts'
import { isTagKey, isTagValue, type Tag, TAGS_MAX } from '#domain/tag.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { isVolumeId } from './codec.ts'
import { refuse } from './errors.ts'
import { isMembers, type Members } from './input.ts'
import type { EvsServices } from './services.ts'
import { VolumePath } from './volumes.ts'

/** Tags of disks, which one provider reads for every disk. */
export function tagRoutes(app: Api, services: EvsServices): void {
  const { store } = services
  for (const version of ['v2', 'v2.1', 'v3']) {
    for (const form of ['os-vendor-volumes', 'cloudvolumes']) {
      const base = `/${version}/:project_id/${form}/:volume_id/tags`

      app.get(base, { schema: { params: VolumePath } }, async (request) => {
        const { volume_id: id } = request.params
        const project = projectOf(request)
        const row = isVolumeId(id) ? await findVolume(store.db, project, id) : undefined
        if (row === undefined) throw refuse('EVS.5404')
        return { tags: await tagsOf(store.db, 'volume', id) }
      })

      app.post(
        `${base}/action`,
        { schema: { params: VolumePath }, config: { audit: 'volume.tags' } },
        async (request, reply) => {
          const { volume_id: id } = request.params
          auditTarget(request, id)
          const body: unknown = request.body
          const action = isMembers(body) ? body['action'] : null
          if (!isMembers(body) || (action !== 'create' && action !== 'delete')) {
            throw refuse('EVS.5400', 'action: create or delete.')
          }
          const tags = tagList(body['tags'])
          const project = projectOf(request)
          await store.write(async (tx) => {
            if (!isVolumeId(id) || (await findVolume(tx, project, id)) === undefined) {
              throw refuse('EVS.5404')
            }
            const of = { kind: 'volume', project, resource: id } as const
            if (action === 'delete') {
              const keys = tags.map(({ key }) => key)
              await deleteTags(tx, of, keys)
            } else if (!(await setTags(tx, of, tags))) {
              throw refuse('EVS.1061')
            }
          })
          return await reply.code(204).send()
        },
      )
    }
  }
}

function tagList(value: unknown): Tag[] {
  if (!Array.isArray(value) || value.length === 0) {
    throw refuse('EVS.5400', 'tags: a list of at least one is required.')
  }
  return value.map((tag: unknown) => {
    if (!isMembers(tag)) throw refuse('EVS.5400', 'tags: must be objects with key and value.')
    return tagFrom(tag['key'], tag['value'] ?? '')
  })
}

/** `tags` of a creation: a map of keys to values. */
export function tagMap(members: Members): Tag[] {
  const value = members['tags'] ?? null
  if (value === null) return []
  if (!isMembers(value)) throw refuse('EVS.1018', 'tags: must be an object.')
  const tags = Object.entries(value).map(([key, text]) => tagFrom(key, text ?? ''))
  if (tags.length > TAGS_MAX) throw refuse('EVS.1061')
  return tags
}

function tagFrom(key: unknown, value: unknown): Tag {
  if (typeof key === 'string' && typeof value === 'string' && isTagKey(key) && isTagValue(value)) {
    return { key, value }
  }
  throw refuse('EVS.1062')
}
