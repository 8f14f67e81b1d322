import Type from 'typebox'
import { changePort } from '#control/operations/definitions/networks/network-requests.ts'
import type { Api } from '../http/dialect.ts'
import { type Query, valueOf } from '../http/page.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { optional } from '../http/validation.ts'
import { loadPort, loadPorts, portObject } from '../network/views.ts'
import type { VpcServices } from './services.ts'
import { refuse } from './errors.ts'
import { pageRows } from './lists.ts'

/** NICs of servers. They come and go with servers. */
const PortPath = Type.Object({ project_id: Type.String(), port_id: Type.String() })

const PortBody = Type.Object({
  port: Type.Object({
    name: optional(Type.String({ maxLength: 255 })),
    security_groups: optional(Type.Array(Type.String(), { maxItems: 50 })),
    allowed_address_pairs: optional(Type.Array(Type.Unknown())),
  }),
})

export function portRoutes(app: Api, services: VpcServices): void {
  const base = '/v1/:project_id/ports'
  const { db } = services.store

  app.get(base, async (request) => {
    const query = request.query as Query
    const [server, network] = [valueOf(query, 'device_id'), valueOf(query, 'network_id')]
    const found = (await loadPorts(db, projectOf(request)))
      .map(portObject)
      .filter(
        (port) =>
          (server === undefined || port.device_id === server) &&
          (network === undefined || port.network_id === network),
      )
    return { ports: pageRows(found, query) }
  })

  app.get(`${base}/:port_id`, { schema: { params: PortPath } }, async (request) => {
    const view = await loadPort(db, projectOf(request), request.params.port_id)
    if (view === undefined) throw refuse('VPC.0202')
    return { port: portObject(view) }
  })

  app.put(
    `${base}/:port_id`,
    { schema: { params: PortPath, body: PortBody }, config: { audit: 'port.update' } },
    async (request) => {
      const { port_id: id } = request.params
      const project = projectOf(request)
      auditTarget(request, id)
      const { name, security_groups: groups, allowed_address_pairs: pairs } = request.body.port
      if ((pairs ?? []).length > 0) {
        const why = 'allowed_address_pairs: a NIC sends under its own address only.'
        throw refuse('VPC.0101', why)
      }
      const outcome = await changePort(services, project, id, {
        ...(typeof name === 'string' ? { name } : {}),
        ...(groups === undefined || groups === null ? {} : { securityGroups: groups }),
      })
      if (!outcome.ok) {
        throw outcome.refusal === 'PORT_UNKNOWN'
          ? refuse('VPC.0202')
          : refuse('VPC.0101', 'security_groups: one of them does not exist.')
      }
      const view = await loadPort(db, project, id)
      if (view === undefined) throw refuse('VPC.0202')
      return { port: portObject(view) }
    },
  )
}
