import {
  findPort,
  listPorts,
  listSubnets,
  portsOf,
  securityGroupsOf,
} from '#control/resources/networks.ts'
import type { Queries } from '#control/store/store.ts'
import type { PortRow, SecurityGroupRuleRow, SubnetRow } from '#control/store/tables/networks.ts'

/* What both network dialects show in the same form: ports and rules. One is the older form of the other. */

/** `2024-01-02T03:04:05Z` */
export const networkTime = (ms: number): string => `${new Date(ms).toISOString().slice(0, 19)}Z`

/** A port and what is shown with it. */
export interface PortView {
  readonly port: PortRow
  readonly subnet: SubnetRow | undefined
  /** Of the server that wears it; null: none does. */
  readonly server: { readonly az: string; readonly power: string } | null
  /** The first NIC of its server. */
  readonly primary: boolean
}

/** Newest first. */
export async function loadPorts(db: Queries, project: string): Promise<PortView[]> {
  return await viewsOf(db, project, await listPorts(db, project))
}

export async function loadPort(
  db: Queries,
  project: string,
  id: string,
): Promise<PortView | undefined> {
  const port = await findPort(db, project, id)
  return port === undefined ? undefined : (await viewsOf(db, project, [port]))[0]
}

async function viewsOf(
  db: Queries,
  project: string,
  ports: readonly PortRow[],
): Promise<PortView[]> {
  const subnets = new Map((await listSubnets(db, project)).map((row) => [row.id, row]))
  const ids = ports.flatMap(({ server }) => (server === null ? [] : [server]))
  const rows = await db
    .selectFrom('servers')
    .select(['id', 'az', 'power'])
    .where('project', '=', project)
    .execute()
  const servers = new Map(rows.map((row) => [row.id, row]))
  const nics = await portsOf(db, ids)
  return ports.map((port) => ({
    port,
    subnet: subnets.get(port.subnet),
    server: port.server === null ? null : (servers.get(port.server) ?? null),
    primary: port.server !== null && nics.get(port.server)?.[0]?.id === port.id,
  }))
}

export const portObject = ({ port, subnet, server, primary }: PortView) => ({
  id: port.id,
  name: port.name,
  network_id: port.subnet,
  mac_address: port.mac,
  fixed_ips: [{ subnet_id: subnet?.neutron_subnet ?? port.subnet, ip_address: port.address }],
  device_id: port.server ?? '',
  device_owner: server === null ? '' : `compute:${server.az}`,
  status: server?.power === 'running' ? 'ACTIVE' : 'DOWN',
  admin_state_up: true,
  tenant_id: port.project,
  project_id: port.project,
  security_groups: securityGroupsOf(port),
  allowed_address_pairs: [],
  extra_dhcp_opts: [],
  'binding:vnic_type': 'normal',
  'binding:vif_details': { primary_interface: primary },
  'binding:profile': {},
  dns_assignment: [],
  dns_name: '',
  port_security_enabled: true,
  created_at: networkTime(port.created_at),
  updated_at: networkTime(port.created_at),
})

export const ruleObject = (rule: SecurityGroupRuleRow) => ({
  id: rule.id,
  description: rule.description,
  security_group_id: rule.security_group,
  direction: rule.direction,
  ethertype: rule.ethertype,
  protocol: rule.protocol,
  port_range_min: rule.port_min,
  port_range_max: rule.port_max,
  remote_ip_prefix: rule.remote_prefix,
  remote_group_id: rule.remote_group,
  tenant_id: rule.project,
  project_id: rule.project,
  created_at: networkTime(rule.created_at),
  updated_at: networkTime(rule.created_at),
})
