import Type from 'typebox'
import {
  changeSubnet,
  deleteSubnet,
  provideDefaults,
  requestSubnet,
} from '#control/operations/definitions/networks/network-requests.ts'
import { dnsOf, findSubnet, listSubnets } from '#control/resources/networks.ts'
import type { SubnetRow } from '#control/store/tables/networks.ts'
import type { Api } from '../http/dialect.ts'
import { type Query, valueOf } from '../http/page.ts'
import type { Refusal } from '../http/refusal.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { optional } from '../http/validation.ts'
import type { VpcServices } from './services.ts'
import { refuse, type VpcCode } from './errors.ts'
import { pageRows } from './lists.ts'
import { Description, Name } from './vpcs.ts'

const SubnetPath = Type.Object({ project_id: Type.String(), subnet_id: Type.String() })
const PlacePath = Type.Object({
  project_id: Type.String(),
  vpc_id: Type.String(),
  subnet_id: Type.String(),
})

/** Longest list of DNS servers. */
const DNS_MAX = 5

/** What creation and change have in common. */
const Common = {
  description: optional(Description),
  dhcp_enable: optional(Type.Boolean()),
  ipv6_enable: optional(Type.Boolean()),
  primary_dns: optional(Type.String()),
  secondary_dns: optional(Type.String()),
  dnsList: optional(Type.Array(Type.String(), { maxItems: DNS_MAX })),
}

const CreateBody = Type.Object({
  subnet: Type.Object({
    ...Common,
    name: Type.String({ minLength: 1, maxLength: 64 }),
    cidr: Type.String(),
    gateway_ip: Type.String(),
    vpc_id: Type.String(),
    availability_zone: optional(Type.String({ maxLength: 64 })),
  }),
})

const UpdateBody = Type.Object({ subnet: Type.Object({ ...Common, name: optional(Name) }) })

function subnetObject(row: SubnetRow) {
  const dns = dnsOf(row)
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    cidr: row.cidr,
    gateway_ip: row.gateway,
    dhcp_enable: row.dhcp === 1,
    ipv6_enable: false,
    primary_dns: dns[0] ?? '',
    secondary_dns: dns[1] ?? '',
    dnsList: dns,
    availability_zone: row.az ?? '',
    vpc_id: row.vpc,
    status: 'ACTIVE',
    neutron_network_id: row.id,
    neutron_subnet_id: row.neutron_subnet,
    extra_dhcp_opts: [],
  }
}

/** The list counts when there is one; otherwise the two members of old clients. Undefined: neither is given. */
function dnsFrom(given: {
  readonly primary_dns?: string | null
  readonly secondary_dns?: string | null
  readonly dnsList?: readonly string[] | null
}): readonly string[] | undefined {
  const { primary_dns: first, secondary_dns: second, dnsList } = given
  if (dnsList !== undefined && dnsList !== null) return dnsList.filter((text) => text !== '')
  if (typeof first !== 'string' && typeof second !== 'string') return undefined
  return [first, second].filter((text): text is string => typeof text === 'string' && text !== '')
}

function refuseIpv6(wanted: boolean | null | undefined): void {
  if (wanted === true) throw refuse('VPC.0101', 'ipv6_enable: IPv6 is not offered by this server.')
}

export function subnetRoutes(app: Api, services: VpcServices): void {
  const base = '/v1/:project_id/subnets'
  const place = '/v1/:project_id/vpcs/:vpc_id/subnets/:subnet_id'
  const { db } = services.store

  app.post(
    base,
    { schema: { body: CreateBody }, config: { audit: 'subnet.create' } },
    async (request) => {
      const { subnet } = request.body
      refuseIpv6(subnet.ipv6_enable)
      const { availability_zone: az } = subnet
      const outcome = await requestSubnet(services, {
        project: projectOf(request),
        vpc: subnet.vpc_id,
        name: subnet.name,
        description: subnet.description ?? '',
        cidr: subnet.cidr,
        gateway: subnet.gateway_ip,
        dhcp: subnet.dhcp_enable ?? true,
        dns: dnsFrom(subnet) ?? [],
        az: az === undefined || az === '' ? null : az,
      })
      if (!outcome.ok) throw subnetRefusal(outcome.refusal)
      auditTarget(request, outcome.subnet.id)
      return { subnet: subnetObject(outcome.subnet) }
    },
  )

  app.get(base, async (request) => {
    const project = projectOf(request)
    await provideDefaults(services, project)
    const vpc = valueOf(request.query as Query, 'vpc_id')
    const rows = (await listSubnets(db, project)).filter(
      (row) => vpc === undefined || row.vpc === vpc,
    )
    return { subnets: pageRows(rows, request.query).map(subnetObject) }
  })

  app.get(`${base}/:subnet_id`, { schema: { params: SubnetPath } }, async (request) => {
    const { subnet_id: id } = request.params
    const project = projectOf(request)
    await provideDefaults(services, project)
    const row = await findSubnet(db, project, id)
    // By its own id alone: Neutron's name for it belongs to another API.
    if (row?.id !== id) throw refuse('VPC.0202')
    return { subnet: subnetObject(row) }
  })

  app.put(
    place,
    { schema: { params: PlacePath, body: UpdateBody }, config: { audit: 'subnet.update' } },
    async (request) => {
      const { vpc_id: vpc, subnet_id: id } = request.params
      auditTarget(request, id)
      const { subnet } = request.body
      refuseIpv6(subnet.ipv6_enable)
      const { name, description, dhcp_enable: dhcp } = subnet
      const dns = dnsFrom(subnet)
      const outcome = await changeSubnet(
        services,
        projectOf(request),
        { vpc, subnet: id },
        {
          ...(typeof name === 'string' && name !== '' ? { name } : {}),
          ...(typeof description === 'string' ? { description } : {}),
          ...(typeof dhcp === 'boolean' ? { dhcp } : {}),
          ...(dns === undefined ? {} : { dns }),
        },
      )
      if (!outcome.ok) throw subnetRefusal(outcome.refusal)
      return { subnet: subnetObject(outcome.subnet) }
    },
  )

  app.delete(
    place,
    { schema: { params: PlacePath }, config: { audit: 'subnet.delete' } },
    async (request, reply) => {
      const { vpc_id: vpc, subnet_id: id } = request.params
      auditTarget(request, id)
      const outcome = await deleteSubnet(services, projectOf(request), { vpc, subnet: id })
      if (!outcome.ok) throw subnetRefusal(outcome.refusal)
      return await reply.code(204).send()
    },
  )
}

const REFUSALS = {
  VPC_UNKNOWN: ['VPC.0202', 'The VPC does not exist.'],
  SUBNET_UNKNOWN: ['VPC.0202', undefined],
  RANGE: ['VPC.0101', 'cidr: a network in the form 192.168.0.0/24, no bit set behind the prefix.'],
  TOO_SMALL: ['VPC.0101', 'cidr: a prefix of at most 28.'],
  OUTSIDE_VPC: ['VPC.0101', 'cidr: not inside the range of the VPC.'],
  OVERLAP: ['VPC.0204', undefined],
  GATEWAY: ['VPC.0101', 'gateway_ip: a host address inside the subnet.'],
  DNS: ['VPC.0101', 'DNS servers: IPv4 addresses.'],
  NAME_TAKEN: ['VPC.0206', undefined],
  QUOTA_SUBNETS: ['VPC.0114', 'The quota of subnets is used up.'],
  SUBNET_IS_DEFAULT: ['VPC.0203', undefined],
  SUBNET_IN_USE: ['VPC.0208', undefined],
} as const satisfies Record<string, readonly [VpcCode, string | undefined]>

function subnetRefusal(refusal: keyof typeof REFUSALS): Refusal {
  const [code, message] = REFUSALS[refusal]
  return refuse(code, message)
}
