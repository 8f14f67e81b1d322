import Type from 'typebox'
import { changeServer } from '#control/operations/definitions/servers/server-requests.ts'
import { findServer, serverMetadataOf } from '#control/resources/servers.ts'
import { inputWith } from '../compute/input.ts'
import type { ComputeServices } from '../compute/services.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { badRequest, notFound } from './errors.ts'
import { refusalOf, ServerPath } from './lookup.ts'

/** The metadata of one server as a resource of its own; the openstack command sets and unsets properties here. */
const KeyPath = Type.Object({ ...ServerPath.properties, key: Type.String() })

const input = inputWith(badRequest)

export function metadataRoutes(app: Api, services: ComputeServices): void {
  const base = '/v2.1/:project_id/servers/:server_id/metadata'
  const config = { audit: 'server.metadata' }

  async function read(project: string, id: string): Promise<Record<string, string>> {
    const row = await findServer(services.store.db, project, id)
    if (row === undefined) throw notFound('There is no such server.')
    return serverMetadataOf(row)
  }
  async function change(
    project: string,
    id: string,
    metadata: Readonly<Record<string, string | null>>,
  ): Promise<Record<string, string>> {
    const outcome = await changeServer(services, project, id, { metadata })
    if (!outcome.ok) throw refusalOf(outcome.refusal)
    return serverMetadataOf(outcome.server)
  }
  function given(body: unknown): Record<string, string> {
    const metadata = input.textMap({ metadata: input.members(body, 'metadata') }, 'metadata')
    return metadata ?? {}
  }

  app.get(base, { schema: { params: ServerPath } }, async (request) => ({
    metadata: await read(projectOf(request), request.params.server_id),
  }))

  app.post(base, { schema: { params: ServerPath }, config }, async (request) => {
    const { server_id: id } = request.params
    auditTarget(request, id)
    return { metadata: await change(projectOf(request), id, given(request.body)) }
  })

  app.put(base, { schema: { params: ServerPath }, config }, async (request) => {
    const { server_id: id } = request.params
    auditTarget(request, id)
    const wanted = given(request.body)
    const project = projectOf(request)
    const gone = Object.keys(await read(project, id)).map((key) => [key, null] as const)
    return { metadata: await change(project, id, { ...Object.fromEntries(gone), ...wanted }) }
  })

  app.get(`${base}/:key`, { schema: { params: KeyPath } }, async (request) => {
    const { server_id: id, key } = request.params
    const metadata = await read(projectOf(request), id)
    const value = Object.hasOwn(metadata, key) ? metadata[key] : undefined
    if (value === undefined) throw notFound('The server has no such metadata.')
    return { meta: { [key]: value } }
  })

  app.put(`${base}/:key`, { schema: { params: KeyPath }, config }, async (request) => {
    const { server_id: id, key } = request.params
    auditTarget(request, id)
    const meta = input.textMap({ meta: input.members(request.body, 'meta') }, 'meta') ?? {}
    const value = Object.hasOwn(meta, key) ? meta[key] : undefined
    if (value === undefined || Object.keys(meta).length !== 1) {
      throw badRequest('meta: exactly the key of the path.')
    }
    await change(projectOf(request), id, { [key]: value })
    return { meta: { [key]: value } }
  })

  app.delete(`${base}/:key`, { schema: { params: KeyPath }, config }, async (request, reply) => {
    const { server_id: id, key } = request.params
    auditTarget(request, id)
    const project = projectOf(request)
    if (!Object.hasOwn(await read(project, id), key)) {
      throw notFound('The server has no such metadata.')
    }
    await change(project, id, { [key]: null })
    return await reply.code(204).send()
  })
}
