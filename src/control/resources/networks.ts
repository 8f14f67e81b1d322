import { assert } from '#base/assert.ts'
import { derivedId, newId } from '#base/ids.ts'
import { type Bit, bit } from '#control/store/bit.ts'
import { fromJson, toJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { PortRow, SubnetRow, VpcRow } from '#control/store/tables/networks.ts'
import {
  type Cidr,
  chooseAddress,
  formatAddress,
  holds,
  isHostAddress,
  isMac,
  MACS,
  macOf,
  parseAddress,
  parseCidr,
} from '#domain/network.ts'
import { fits } from '#domain/quota.ts'
import { insertSecurityGroup, securityGroupsNamed } from './security-groups.ts'
import { quotaLimit, quotaUsed } from './surroundings.ts'

/* Networks of projects: VPCs, subnets and ports.
 *
 * Each project has a VPC, a subnet and a security group named `default` from the beginning. Their ids follow from the
 * project's, so they are known before the rows are written and two control planes cannot make two of them; the rows
 * are written together by whoever needs them first, and they are never deleted. */
type Db = Queries | Transaction

// ---------------------------------------------------------------- defaults

const DEFAULT_NAME = 'default'
const DEFAULT_VPC_CIDR = '192.168.0.0/16'
/** 4093 addresses for servers: more than any default quota lets a project have. */
const DEFAULT_SUBNET_CIDR = '192.168.0.0/20'
const DEFAULT_GATEWAY = '192.168.0.1'

export const defaultVpcId = (project: string): string => derivedId(`default vpc of ${project}`)
export const defaultSubnetId = (project: string): string =>
  derivedId(`default subnet of ${project}`)
export const defaultSecurityGroupId = (project: string): string =>
  derivedId(`default security group of ${project}`)

/** True once the rows of `ensureDefaults` are there. */
export const hasDefaults = async (db: Db, project: string): Promise<boolean> =>
  (await findVpc(db, project, defaultVpcId(project))) !== undefined

/** Default VPC, subnet and security group exist afterwards. */
export async function ensureDefaults(tx: Transaction, project: string): Promise<void> {
  if (await hasDefaults(tx, project)) return
  const known = await tx
    .selectFrom('projects')
    .select('created_at')
    .where('id', '=', project)
    .executeTakeFirst()
  const created_at = known?.created_at ?? 0
  const vpc = defaultVpcId(project)
  const common = { project, name: DEFAULT_NAME, description: '', created_at }
  await insertVpc(tx, { ...common, id: vpc, cidr: DEFAULT_VPC_CIDR })
  await insertSubnet(tx, {
    ...common,
    id: defaultSubnetId(project),
    neutron_subnet: derivedId(`default neutron subnet of ${project}`),
    vpc,
    cidr: DEFAULT_SUBNET_CIDR,
    gateway: DEFAULT_GATEWAY,
    dhcp: 1,
    dns: '[]',
    az: null,
  })
  await insertSecurityGroup(tx, { ...common, id: defaultSecurityGroupId(project) })
}

// ---------------------------------------------------------------- VPCs

/** Oldest first: the default one is the first. */
export async function listVpcs(db: Db, project: string): Promise<VpcRow[]> {
  const rows = await db
    .selectFrom('vpcs')
    .selectAll()
    .where('project', '=', project)
    .orderBy('created_at')
    .orderBy('id')
    .execute()
  const id = defaultVpcId(project)
  return [...rows.filter((row) => row.id === id), ...rows.filter((row) => row.id !== id)]
}

export async function findVpc(db: Db, project: string, id: string): Promise<VpcRow | undefined> {
  return await db
    .selectFrom('vpcs')
    .selectAll()
    .where('project', '=', project)
    .where('id', '=', id)
    .executeTakeFirst()
}

export async function insertVpc(tx: Transaction, row: VpcRow): Promise<void> {
  await tx.insertInto('vpcs').values(row).execute()
}

export async function updateVpc(
  tx: Transaction,
  id: string,
  change: Partial<Pick<VpcRow, 'name' | 'description' | 'cidr'>>,
): Promise<void> {
  if (Object.keys(change).length === 0) return
  await tx.updateTable('vpcs').set(change).where('id', '=', id).execute()
}

export async function deleteVpcRow(tx: Transaction, id: string): Promise<void> {
  await tx.deleteFrom('vpcs').where('id', '=', id).execute()
}

// ---------------------------------------------------------------- subnets

/** Newest first. */
export async function listSubnets(db: Db, project: string): Promise<SubnetRow[]> {
  return await db
    .selectFrom('subnets')
    .selectAll()
    .where('project', '=', project)
    .orderBy('created_at', 'desc')
    .orderBy('id')
    .execute()
}

/** By its id, which is the network's in Neutron, or by the id of Neutron's subnet. */
export async function findSubnet(
  db: Db,
  project: string,
  id: string,
): Promise<SubnetRow | undefined> {
  return await db
    .selectFrom('subnets')
    .selectAll()
    .where('project', '=', project)
    .where((eb) => eb.or([eb('id', '=', id), eb('neutron_subnet', '=', id)]))
    .executeTakeFirst()
}

export async function insertSubnet(tx: Transaction, row: SubnetRow): Promise<void> {
  await tx.insertInto('subnets').values(row).execute()
}

export async function updateSubnet(
  tx: Transaction,
  id: string,
  change: Partial<Pick<SubnetRow, 'name' | 'description' | 'dhcp' | 'dns'>>,
): Promise<void> {
  if (Object.keys(change).length === 0) return
  await tx.updateTable('subnets').set(change).where('id', '=', id).execute()
}

export async function deleteSubnetRow(tx: Transaction, id: string): Promise<void> {
  await tx.deleteFrom('subnets').where('id', '=', id).execute()
}

/** DNS servers of a subnet, in order. */
export const dnsOf = (row: SubnetRow): string[] => fromJson<string[]>(row.dns)

/** The range of a VPC or subnet. Rows are checked before they are stored. */
export function cidrOf(row: { readonly cidr: string }): Cidr {
  const cidr = parseCidr(row.cidr)
  assert(cidr !== null, 'a stored network has a range')
  return cidr
}

// ---------------------------------------------------------------- ports

/** Newest first. */
export async function listPorts(db: Db, project: string): Promise<PortRow[]> {
  return await db
    .selectFrom('ports')
    .selectAll()
    .where('project', '=', project)
    .orderBy('created_at', 'desc')
    .orderBy('id')
    .execute()
}

export async function findPort(db: Db, project: string, id: string): Promise<PortRow | undefined> {
  return await db
    .selectFrom('ports')
    .selectAll()
    .where('project', '=', project)
    .where('id', '=', id)
    .executeTakeFirst()
}

/** For operations, which know the port and not the caller. */
export async function readPort(db: Db, id: string): Promise<PortRow | undefined> {
  return await db.selectFrom('ports').selectAll().where('id', '=', id).executeTakeFirst()
}

/** NICs of servers in the order of their places; each of `servers` has an entry. */
export async function portsOf(
  db: Db,
  servers: readonly string[],
): Promise<ReadonlyMap<string, readonly PortRow[]>> {
  const found = new Map<string, PortRow[]>(servers.map((server) => [server, []]))
  for (const part of chunksOf([...found.keys()])) {
    const rows = await db
      .selectFrom('ports')
      .selectAll()
      .where('server', 'in', part)
      .orderBy('place')
      .orderBy('id')
      .execute()
    for (const row of rows) if (row.server !== null) found.get(row.server)?.push(row)
  }
  return found
}

/** Both engines bound the number of parameters of a query. */
const PART = 500
const chunksOf = (ids: readonly string[]): string[][] =>
  Array.from({ length: Math.ceil(ids.length / PART) }, (_, at) =>
    ids.slice(at * PART, (at + 1) * PART),
  )

/** Ids of the security groups of a port, in the order in which they were given. */
export const securityGroupsOf = (row: PortRow): string[] => fromJson<string[]>(row.security_groups)

/** A caller made it and no server wears it: the others belong to a server or an instance, also while nobody wears them. */
export const isFreePort = (row: PortRow): boolean =>
  row.server === null && row.delete_with_server === 0

export interface NewPort {
  readonly project: string
  /** Id of a subnet, or of Neutron's subnet; null: the project's default one, which is made when needed. */
  readonly subnet: string | null
  /** Null: the lowest one that is free. */
  readonly address: string | null
  /** One that no port has. Left out: such a one is found. */
  readonly mac?: string
  readonly server: string | null
  readonly place: number
  /** Ids, or names that only one group of the project has; none: the default group. */
  readonly securityGroups: readonly string[]
  /** The port goes when its server is deleted. */
  readonly deleteWithServer: boolean
  readonly name: string
}

/** ADDRESS_OUTSIDE: no address, or not one that a server may wear in this subnet. QUOTA_PORTS: the project has its share. */
export type NewPortRefusal =
  | 'SUBNET_UNKNOWN'
  | 'ADDRESS_OUTSIDE'
  | 'ADDRESS_TAKEN'
  | 'SUBNET_FULL'
  | 'GROUP_UNKNOWN'
  | 'QUOTA_PORTS'

export type NewPortOutcome =
  | { readonly ok: true; readonly port: PortRow }
  | { readonly ok: false; readonly refusal: NewPortRefusal }

const refused = (refusal: NewPortRefusal): NewPortOutcome => ({ ok: false, refusal })

/** Makes a port, or changes nothing. */
export async function createPort(
  tx: Transaction,
  request: NewPort,
  nowMs: number,
): Promise<NewPortOutcome> {
  const { project } = request
  await ensureDefaults(tx, project)
  const subnet = await findSubnet(tx, project, request.subnet ?? defaultSubnetId(project))
  if (subnet === undefined) return refused('SUBNET_UNKNOWN')
  const groups = await groupIds(tx, project, request.securityGroups)
  if (groups === null) return refused('GROUP_UNKNOWN')
  const used = await quotaUsed(tx, project, 'ports')
  if (!fits(await quotaLimit(tx, project, 'ports'), used)) return refused('QUOTA_PORTS')
  const address = await addressFor(tx, subnet, request.address)
  if (typeof address === 'string') return refused(address)
  assert(request.mac === undefined || isMac(request.mac), 'a given MAC is one of ours')
  const port: PortRow = {
    id: newId(),
    project,
    name: request.name,
    subnet: subnet.id,
    mac: request.mac ?? (await freeMac(tx)),
    address: formatAddress(address),
    server: request.server,
    place: request.place,
    security_groups: toJson(groups),
    delete_with_server: bit(request.deleteWithServer),
    created_at: nowMs,
  }
  await tx.insertInto('ports').values(port).execute()
  return { ok: true, port }
}

/** Ids for ids and names, in order and each once; null: one of them names no group, or more than one. */
export async function groupIds(
  db: Db,
  project: string,
  given: readonly string[],
): Promise<string[] | null> {
  if (given.length === 0) return [defaultSecurityGroupId(project)]
  const ids: string[] = []
  for (const name of new Set(given)) {
    const [group, another] = await securityGroupsNamed(db, project, name)
    if (group === undefined || another !== undefined) return null
    if (!ids.includes(group.id)) ids.push(group.id)
  }
  return ids
}

async function addressFor(
  tx: Transaction,
  subnet: SubnetRow,
  wanted: string | null,
): Promise<number | 'ADDRESS_OUTSIDE' | 'ADDRESS_TAKEN' | 'SUBNET_FULL'> {
  const cidr = cidrOf(subnet)
  const gateway = parseAddress(subnet.gateway)
  assert(gateway !== null && holds(cidr, gateway), 'a stored subnet has its gateway inside')
  const rows = await tx
    .selectFrom('ports')
    .select('address')
    .where('subnet', '=', subnet.id)
    .execute()
  const taken = new Set(rows.map((row) => parseAddress(row.address) ?? -1))
  if (wanted === null) return chooseAddress(cidr, gateway, taken) ?? 'SUBNET_FULL'
  const address = parseAddress(wanted)
  if (address === null || !isHostAddress(cidr, address)) return 'ADDRESS_OUTSIDE'
  return address === gateway || taken.has(address) ? 'ADDRESS_TAKEN' : address
}

/** Starts at a random one and goes on to the next while somebody has it. */
async function freeMac(tx: Transaction): Promise<string> {
  const start = Number.parseInt(newId().slice(-6), 16)
  for (let step = 0; step < MACS; step++) {
    const mac = macOf((start + step) % MACS)
    const owner = await tx
      .selectFrom('ports')
      .select('id')
      .where('mac', '=', mac)
      .executeTakeFirst()
    if (owner === undefined) return mac
  }
  assert(false, 'a region has fewer ports than there are MACs')
}

/** Gives a port to a server, or to none. */
export async function movePort(
  tx: Transaction,
  portId: string,
  server: string | null,
  place: number,
): Promise<void> {
  await tx.updateTable('ports').set({ server, place }).where('id', '=', portId).execute()
}

export async function updatePort(
  tx: Transaction,
  id: string,
  change: {
    readonly name?: string
    readonly securityGroups?: readonly string[]
    readonly deleteWithServer?: boolean
  },
): Promise<void> {
  const { name, securityGroups, deleteWithServer } = change
  const columns: { name?: string; security_groups?: string; delete_with_server?: Bit } = {
    ...(name === undefined ? {} : { name }),
    ...(securityGroups === undefined ? {} : { security_groups: toJson(securityGroups) }),
    ...(deleteWithServer === undefined ? {} : { delete_with_server: bit(deleteWithServer) }),
  }
  if (Object.keys(columns).length === 0) return
  await tx.updateTable('ports').set(columns).where('id', '=', id).execute()
}

export async function deletePort(tx: Transaction, portId: string): Promise<void> {
  await tx.deleteFrom('ports').where('id', '=', portId).execute()
}
