import type { Bit } from '../bit.ts'

/** Networks of projects. A VPC is an isolated domain, a subnet one network in it, a port an identity that a server wears. */
export interface NetworkTables {
  vpcs: VpcRow
  subnets: SubnetRow
  ports: PortRow
  security_groups: SecurityGroupRow
  security_group_rules: SecurityGroupRuleRow
}

export interface VpcRow {
  id: string
  project: string
  name: string
  cidr: string
  description: string
  created_at: number
}

export interface SubnetRow {
  /** UUID; id of the subnet in the VPC API and of the network in Neutron's. */
  id: string
  /** UUID of the subnet in Neutron's API. */
  neutron_subnet: string
  project: string
  vpc: string
  /** Unique in the project: clients look networks up by it. */
  name: string
  description: string
  cidr: string
  gateway: string
  dhcp: Bit
  /** JSON array of addresses. */
  dns: string
  /** Text only; null: every site. */
  az: string | null
  created_at: number
}

export interface PortRow {
  /** UUID. */
  id: string
  project: string
  name: string
  subnet: string
  /** `fa:16:3e:...`, stable for the port's life; unique in the region. */
  mac: string
  /** IPv4; unique in the subnet. */
  address: string
  /** The server that wears it; null: none. Moves with the production role of a protected instance. */
  server: string | null
  /** Order of the server's NICs; the lowest is the primary one. */
  place: number
  /** JSON array of ids. */
  security_groups: string
  delete_with_server: Bit
  created_at: number
}

export interface SecurityGroupRow {
  id: string
  project: string
  name: string
  description: string
  created_at: number
}

/** Stored and shown; see docs/compatibility for what enforces it. */
export interface SecurityGroupRuleRow {
  id: string
  project: string
  security_group: string
  /** ingress, egress */
  direction: string
  /** IPv4, IPv6 */
  ethertype: string
  protocol: string | null
  port_min: number | null
  port_max: number | null
  remote_prefix: string | null
  remote_group: string | null
  description: string
  created_at: number
}
