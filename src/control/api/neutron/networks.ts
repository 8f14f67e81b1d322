import Type from 'typebox'
import { provideDefaults } from '#control/operations/definitions/networks/network-requests.ts'
import { cidrOf, dnsOf, findSubnet, listSubnets } from '#control/resources/networks.ts'
import type { SubnetRow } from '#control/store/tables/networks.ts'
import { formatAddress, lastOf, parseAddress } from '#domain/network.ts'
import type { Api } from '../http/dialect.ts'
import { projectOf } from '../http/request.ts'
import { networkTime } from '../network/views.ts'
import type { NeutronServices } from './services.ts'
import { refuse } from './errors.ts'
import { listOf } from './lists.ts'

/* A subnet of a VPC is a network with one subnet here. Both have the same name: clients look networks up by name, and
 * servers show their addresses under it. */

const NetworkPath = Type.Object({ network_id: Type.String() })
const SubnetPath = Type.Object({ subnet_id: Type.String() })

const networkObject = (row: SubnetRow, sites: readonly string[]) => ({
  id: row.id,
  name: row.name,
  description: row.description,
  status: 'ACTIVE',
  admin_state_up: true,
  shared: false,
  'router:external': false,
  subnets: [row.neutron_subnet],
  tenant_id: row.project,
  project_id: row.project,
  mtu: 1500,
  availability_zone_hints: [],
  availability_zones: [...sites],
  port_security_enabled: true,
  tags: [],
  created_at: networkTime(row.created_at),
  updated_at: networkTime(row.created_at),
})

const subnetObject = (row: SubnetRow) => ({
  id: row.neutron_subnet,
  name: row.name,
  description: row.description,
  network_id: row.id,
  cidr: row.cidr,
  gateway_ip: row.gateway,
  ip_version: 4,
  enable_dhcp: row.dhcp === 1,
  allocation_pools: poolsOf(row),
  dns_nameservers: dnsOf(row),
  host_routes: [],
  tenant_id: row.project,
  project_id: row.project,
  tags: [],
  created_at: networkTime(row.created_at),
  updated_at: networkTime(row.created_at),
})

/** What servers may wear: everything between the network's own address and the broadcast but for the gateway. */
function poolsOf(row: SubnetRow): { start: string; end: string }[] {
  const cidr = cidrOf(row)
  const gateway = parseAddress(row.gateway) ?? cidr.first
  const [low, high] = [cidr.first + 1, lastOf(cidr) - 1]
  return [
    [low, gateway - 1],
    [gateway + 1, high],
  ].flatMap(([start = 0, end = 0]) =>
    start > end ? [] : [{ start: formatAddress(start), end: formatAddress(end) }],
  )
}

export function networkRoutes(app: Api, services: NeutronServices): void {
  const { db } = services.store
  const all = async (project: string): Promise<SubnetRow[]> => {
    await provideDefaults(services, project)
    return await listSubnets(db, project)
  }

  app.get('/v2.0/networks', async (request) => {
    const rows = await all(projectOf(request))
    const networks = rows.map((row) => networkObject(row, services.sites))
    return listOf(request, services, 'networks', networks)
  })
  app.get('/v2.0/networks/:network_id', { schema: { params: NetworkPath } }, async (request) => {
    const project = projectOf(request)
    const { network_id: id } = request.params
    await provideDefaults(services, project)
    const row = await findSubnet(db, project, id)
    if (row?.id !== id) throw refuse('NetworkNotFound', `Network ${id} could not be found.`)
    return { network: networkObject(row, services.sites) }
  })

  app.get('/v2.0/subnets', async (request) =>
    listOf(request, services, 'subnets', (await all(projectOf(request))).map(subnetObject)),
  )
  app.get('/v2.0/subnets/:subnet_id', { schema: { params: SubnetPath } }, async (request) => {
    const project = projectOf(request)
    const { subnet_id: id } = request.params
    await provideDefaults(services, project)
    const row = await findSubnet(db, project, id)
    if (row?.neutron_subnet !== id) {
      throw refuse('SubnetNotFound', `Subnet ${id} could not be found.`)
    }
    return { subnet: subnetObject(row) }
  })
}
