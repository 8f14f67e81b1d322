import Type from 'typebox'
import { findServer } from '#control/resources/servers.ts'
import { deleteAllTags, deleteTags, setTags, tagsOf } from '#control/resources/tags.ts'
import { isTagKey, isTagValue, TAGS_MAX } from '#domain/tag.ts'
import type { ComputeServices } from '../compute/services.ts'
import { tagText } from '../compute/words.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { inputWith } from '../compute/input.ts'
import { badRequest, notFound, refuse } from './errors.ts'
import { ServerPath } from './lookup.ts'

/* Tags of servers as this API has them: plain text. The inventory has keys with values, so `a=b` is the value b under the key a, and
 * what has no equals sign is a key without value. */
const input = inputWith(badRequest)

function tagFrom(value: unknown): readonly [string, string] {
  if (typeof value !== 'string') throw badRequest('tags: must be text.')
  const at = value.indexOf('=')
  const key = at < 0 ? value : value.slice(0, at)
  const text = at < 0 ? '' : value.slice(at + 1)
  if (!isTagKey(key) || !isTagValue(text)) {
    throw badRequest('tags: keys of 1 to 127 characters and values of at most 255.')
  }
  return [key, text]
}

export function tagsFrom(values: readonly unknown[]): Record<string, string> {
  const tags = Object.fromEntries(values.map(tagFrom))
  if (Object.keys(tags).length > TAGS_MAX) throw badRequest(`tags: at most ${TAGS_MAX}.`)
  return tags
}

export function tagRoutes(app: Api, services: ComputeServices): void {
  const { store } = services
  const base = '/v2.1/:project_id/servers/:server_id/tags'
  const TagPath = Type.Object({ ...ServerPath.properties, tag: Type.String() })
  const audited = { config: { audit: 'server.tags' } }
  const shown = async (server: string) =>
    (await tagsOf(store.db, 'server', server)).map(({ key, value }) => tagText([key, value]))
  async function serverOf(project: string, id: string): Promise<string> {
    const row = await findServer(store.db, project, id)
    if (row === undefined) throw notFound()
    return row.id
  }

  app.get(base, { schema: { params: ServerPath } }, async (request) => ({
    tags: await shown(await serverOf(projectOf(request), request.params.server_id)),
  }))

  app.put(base, { schema: { params: ServerPath }, ...audited }, async (request) => {
    const project = projectOf(request)
    const id = await serverOf(project, request.params.server_id)
    auditTarget(request, id)
    const body = request.body
    const tags = tagsFrom(input.list((body ?? {}) as Record<string, unknown>, 'tags'))
    await store.write(async (tx) => {
      await deleteAllTags(tx, 'server', id)
      const rows = Object.entries(tags).map(([key, value]) => ({ key, value }))
      await setTags(tx, { kind: 'server', project, resource: id }, rows)
    })
    return { tags: await shown(id) }
  })

  app.delete(base, { schema: { params: ServerPath }, ...audited }, async (request, reply) => {
    const id = await serverOf(projectOf(request), request.params.server_id)
    auditTarget(request, id)
    await store.write((tx) => deleteAllTags(tx, 'server', id))
    return await reply.code(204).send()
  })

  app.get(`${base}/:tag`, { schema: { params: TagPath } }, async (request, reply) => {
    const id = await serverOf(projectOf(request), request.params.server_id)
    if (!(await shown(id)).includes(request.params.tag)) throw notFound()
    return await reply.code(204).send()
  })

  app.put(`${base}/:tag`, { schema: { params: TagPath }, ...audited }, async (request, reply) => {
    const project = projectOf(request)
    const id = await serverOf(project, request.params.server_id)
    auditTarget(request, id)
    const [key, value] = tagFrom(request.params.tag)
    const known = (await shown(id)).includes(request.params.tag)
    const of = { kind: 'server', project, resource: id } as const
    const fits = await store.write((tx) => setTags(tx, of, [{ key, value }]))
    if (!fits) throw refuse(400, `A server has at most ${TAGS_MAX} tags.`)
    return await reply.code(known ? 204 : 201).send()
  })

  app.delete(
    `${base}/:tag`,
    { schema: { params: TagPath }, ...audited },
    async (request, reply) => {
      const project = projectOf(request)
      const id = await serverOf(project, request.params.server_id)
      auditTarget(request, id)
      if (!(await shown(id)).includes(request.params.tag)) throw notFound()
      const [key] = tagFrom(request.params.tag)
      await store.write((tx) => deleteTags(tx, { kind: 'server', project, resource: id }, [key]))
      return await reply.code(204).send()
    },
  )
}
