import Type, { type Static } from 'typebox'
import {
  changePort,
  deleteFreePort,
  requestPort,
} from '#control/operations/definitions/networks/network-requests.ts'
import { findSubnet, type NewPortRefusal } from '#control/resources/networks.ts'
import type { Api } from '../http/dialect.ts'
import { type Query, valuesOf } from '../http/page.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { optional } from '../http/validation.ts'
import { loadPort, loadPorts, portObject } from '../network/views.ts'
import type { NeutronServices } from './services.ts'
import { type NeutronType, refuse } from './errors.ts'
import { listOf } from './lists.ts'

/* NICs of servers. Most come and go with their server; one that is made here waits for a server to be created with it, and
 * is free again when that server goes. */
const PortPath = Type.Object({ port_id: Type.String() })

/** What creation and change have in common. */
const Common = {
  name: optional(Type.String({ maxLength: 255 })),
  security_groups: optional(Type.Array(Type.String(), { maxItems: 50 })),
  allowed_address_pairs: optional(Type.Array(Type.Unknown())),
  port_security_enabled: optional(Type.Boolean()),
  admin_state_up: optional(Type.Boolean()),
}
const FixedIp = Type.Object({
  subnet_id: optional(Type.String()),
  ip_address: optional(Type.String()),
})
const CreateBody = Type.Object({
  port: Type.Object({
    ...Common,
    network_id: Type.String(),
    fixed_ips: optional(Type.Array(FixedIp, { maxItems: 1 })),
    mac_address: optional(Type.String()),
    device_id: optional(Type.String()),
  }),
})
const UpdateBody = Type.Object({ port: Type.Object(Common) })

export function portRoutes(app: Api, services: NeutronServices): void {
  const base = '/v2.0/ports'
  const { db } = services.store
  const show = async (project: string, id: string) => {
    const view = await loadPort(db, project, id)
    if (view === undefined) throw refuse('PortNotFound', `Port ${id} could not be found.`)
    return { port: portObject(view) }
  }

  app.get(base, async (request) => {
    const addresses = valuesOf(request.query as Query, 'fixed_ips')
    const ports = (await loadPorts(db, projectOf(request)))
      .map(portObject)
      .filter((port) => port.fixed_ips.some((fixed) => isWanted(fixed, addresses)))
    return listOf(request, services, 'ports', ports)
  })

  app.get(`${base}/:port_id`, { schema: { params: PortPath } }, async (request) =>
    show(projectOf(request), request.params.port_id),
  )

  app.post(
    base,
    { schema: { body: CreateBody }, config: { audit: 'port.create' } },
    async (request, reply) => {
      const project = projectOf(request)
      const { port } = request.body
      refuseUnkept(port)
      if ((port.mac_address ?? '') !== '') throw refuse('InvalidInput', 'mac_address: is chosen.')
      if ((port.device_id ?? '') !== '') {
        throw refuse('InvalidInput', 'device_id: create the server with this port instead.')
      }
      const [fixed] = port.fixed_ips ?? []
      const wanted = fixed?.subnet_id ?? null
      if (wanted !== null && wanted !== '') {
        const subnet = await findSubnet(db, project, port.network_id)
        if (subnet?.neutron_subnet !== wanted) {
          throw refuse('InvalidInput', 'fixed_ips: the subnet is not one of the network.')
        }
      }
      const address = fixed?.ip_address ?? null
      const outcome = await requestPort(services, {
        project,
        subnet: port.network_id,
        address: address === '' ? null : address,
        securityGroups: port.security_groups ?? [],
        name: port.name ?? '',
      })
      if (!outcome.ok) throw refuse(...CREATE_TYPES[outcome.refusal])
      auditTarget(request, outcome.port.id)
      void reply.code(201)
      return await show(project, outcome.port.id)
    },
  )

  app.put(
    `${base}/:port_id`,
    { schema: { params: PortPath, body: UpdateBody }, config: { audit: 'port.update' } },
    async (request) => {
      const { port_id: id } = request.params
      const project = projectOf(request)
      auditTarget(request, id)
      refuseUnkept(request.body.port)
      const { name, security_groups: groups } = request.body.port
      const outcome = await changePort(services, project, id, {
        ...(typeof name === 'string' ? { name } : {}),
        ...(groups === undefined || groups === null ? {} : { securityGroups: groups }),
      })
      if (!outcome.ok) {
        throw refuse(outcome.refusal === 'PORT_UNKNOWN' ? 'PortNotFound' : 'SecurityGroupNotFound')
      }
      return await show(project, id)
    },
  )

  app.delete(
    `${base}/:port_id`,
    { schema: { params: PortPath }, config: { audit: 'port.delete' } },
    async (request, reply) => {
      const { port_id: id } = request.params
      auditTarget(request, id)
      const outcome = await deleteFreePort(services, projectOf(request), id)
      if (!outcome.ok) {
        throw refuse(outcome.refusal === 'PORT_UNKNOWN' ? 'PortNotFound' : 'PortInUse')
      }
      return await reply.code(204).send()
    },
  )
}

/** Promising it and not doing it would be worse than refusing. */
function refuseUnkept(port: Static<typeof UpdateBody>['port']): void {
  if ((port.allowed_address_pairs ?? []).length > 0) {
    throw refuse('InvalidInput', 'allowed_address_pairs: a NIC sends under its own address only.')
  }
  if (port.port_security_enabled === false) {
    throw refuse('InvalidInput', 'port_security_enabled: a NIC sends under its own address only.')
  }
  if (port.admin_state_up === false) {
    throw refuse('InvalidInput', 'admin_state_up: a port cannot be switched off.')
  }
}

const CREATE_TYPES: Readonly<Record<NewPortRefusal, readonly [NeutronType, string?]>> = {
  SUBNET_UNKNOWN: ['NetworkNotFound'],
  ADDRESS_OUTSIDE: ['InvalidInput', 'fixed_ips: no host address of the subnet.'],
  ADDRESS_TAKEN: ['IpAddressAlreadyAllocated'],
  SUBNET_FULL: ['IpAddressGenerationFailure'],
  GROUP_UNKNOWN: ['SecurityGroupNotFound'],
  QUOTA_PORTS: ['OverQuota', 'The quota of ports is used up.'],
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
