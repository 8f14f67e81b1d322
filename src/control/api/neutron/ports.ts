import Type from 'typebox'
import type { Api } from '../http/dialect.ts'
import { type Query, valuesOf } from '../http/page.ts'
import { projectOf } from '../http/request.ts'
import { loadPort, loadPorts, portObject } from '../network/views.ts'
import type { NeutronServices } from './dialect.ts'
import { refuse } from './errors.ts'
import { listOf } from './lists.ts'

/** NICs of servers, to be looked at: they come and go with servers. */
const PortPath = Type.Object({ port_id: Type.String() })

export function portRoutes(app: Api, services: NeutronServices): void {
  const { db } = services.store

  app.get('/v2.0/ports', async (request) => {
    const addresses = valuesOf(request.query as Query, 'fixed_ips')
    const ports = (await loadPorts(db, projectOf(request)))
      .map(portObject)
      .filter((port) => port.fixed_ips.some((fixed) => isWanted(fixed, addresses)))
    return listOf(request, services, 'ports', ports)
  })

  app.get('/v2.0/ports/:port_id', { schema: { params: PortPath } }, async (request) => {
    const { port_id: id } = request.params
    const view = await loadPort(db, projectOf(request), id)
    if (view === undefined) throw refuse('PortNotFound', `Port ${id} could not be found.`)
    return { port: portObject(view) }
  })
}

/** `subnet_id=...` and `ip_address=...`: of each kind that is named, one has to fit. */
function isWanted(
  fixed: { readonly subnet_id: string; readonly ip_address: string },
  conditions: readonly string[],
): boolean {
  return (['subnet_id', 'ip_address'] as const).every((member) => {
    const wanted = conditions
      .filter((condition) => condition.startsWith(`${member}=`))
      .map((condition) => condition.slice(member.length + 1))
    return wanted.length === 0 || wanted.includes(fixed[member])
  })
}
