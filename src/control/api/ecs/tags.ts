import { changeServer } from '#control/operations/definitions/servers/server-requests.ts'
import { findServer } from '#control/resources/servers.ts'
import { deleteTags, setTags, tagsOf } from '#control/resources/tags.ts'
import { isTagKey, isTagValue, type Tag, TAGS_MAX } from '#domain/tag.ts'
import { inputWith } from '../compute/input.ts'
import type { ComputeServices } from '../compute/services.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { badRequest, refusalOf, refuse } from './errors.ts'
import { ServerPath, serverView } from './lookup.ts'

/** Tags of a server, and whether it is started elsewhere when its host fails: stored and shown, since a site is one host here. */
const input = inputWith(badRequest)

export function tagRoutes(app: Api, services: ComputeServices): void {
  const base = '/v1/:project_id/cloudservers/:server_id'
  const { store } = services

  app.get(`${base}/tags`, { schema: { params: ServerPath } }, async (request) => {
    const row = await findServer(store.db, projectOf(request), request.params.server_id)
    if (row === undefined) throw refuse('Ecs.0114')
    return { tags: await tagsOf(store.db, 'server', row.id) }
  })

  app.post(
    `${base}/tags/action`,
    { schema: { params: ServerPath }, config: { audit: 'server.tags' } },
    async (request, reply) => {
      const project = projectOf(request)
      const { server_id: resource } = request.params
      auditTarget(request, resource)
      const body = input.members({ body: request.body }, 'body')
      const action = input.text(body, 'action')
      if (action !== 'create' && action !== 'delete') throw badRequest('action: create or delete.')
      const tags = input.objects(body, 'tags').map((tag): Tag => {
        const key = input.text(tag, 'key')
        const value = input.optionalText(tag, 'value') ?? ''
        if (!isTagKey(key) || !isTagValue(value)) {
          throw badRequest('tags: keys of 1 to 127 characters and values of at most 255.')
        }
        return { key, value }
      })
      if (tags.length === 0) throw badRequest('tags: at least one is required.')
      await store.write(async (tx) => {
        if ((await findServer(tx, project, resource)) === undefined) throw refuse('Ecs.0114')
        const of = { kind: 'server', project, resource } as const
        if (action === 'delete') {
          const keys = tags.map(({ key }) => key)
          await deleteTags(tx, of, keys)
        } else if (!(await setTags(tx, of, tags))) {
          throw badRequest(`A server has at most ${TAGS_MAX} tags.`)
        }
      })
      return await reply.code(204).send()
    },
  )

  app.get(`${base}/autorecovery`, { schema: { params: ServerPath } }, async (request) => {
    const { server } = await serverView(services, projectOf(request), request.params.server_id)
    return { support_auto_recovery: server.auto_recovery === 1 ? 'true' : 'false' }
  })

  app.put(
    `${base}/autorecovery`,
    { schema: { params: ServerPath }, config: { audit: 'server.auto-recovery' } },
    async (request, reply) => {
      const { server_id: id } = request.params
      auditTarget(request, id)
      const body = input.members({ body: request.body }, 'body')
      if (body['support_auto_recovery'] === undefined) {
        throw badRequest('support_auto_recovery: true or false.')
      }
      const autoRecovery = input.boolean(body, 'support_auto_recovery', false)
      const outcome = await changeServer(services, projectOf(request), id, { autoRecovery })
      if (!outcome.ok) throw refusalOf(outcome.refusal)
      return await reply.code(204).send()
    },
  )
}
