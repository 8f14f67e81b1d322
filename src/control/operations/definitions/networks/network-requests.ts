import { newId } from '#base/ids.ts'
import {
  cidrOf,
  createPort,
  defaultSubnetId,
  defaultVpcId,
  deletePort,
  deleteSubnetRow,
  deleteVpcRow,
  ensureDefaults,
  findPort,
  findSubnet,
  findVpc,
  groupIds,
  insertSubnet,
  insertVpc,
  isFreePort,
  listSubnets,
  type NewPortOutcome,
  readPort,
  updatePort,
  updateSubnet,
  updateVpc,
} from '#control/resources/networks.ts'
import { quotaLimit, quotaUsed } from '#control/resources/surroundings.ts'
import { deleteAllTags } from '#control/resources/tags.ts'
import { bit } from '#control/store/bit.ts'
import { toJson } from '#control/store/json.ts'
import type { Transaction } from '#control/store/store.ts'
import type { PortRow, SubnetRow, VpcRow } from '#control/store/tables/networks.ts'
import {
  contains,
  formatAddress,
  formatCidr,
  isVpcRange,
  parseAddress,
  parseCidr,
  type SubnetFault,
  subnetFault,
} from '#domain/network.ts'
import { fits, type NetworkQuotaKind } from '#domain/quota.ts'
import { type Outcome, type RequestServices, refused } from '../requests.ts'

/* VPCs, subnets and ports change in the database alone: no site has to do anything, so there are no operations. What is
 * in use is never taken away; the default ones of a project are never either, because whoever names no network
 * means them. */

type Services = Pick<RequestServices, 'store' | 'clock'>

/** Sees that the default networks of a project are there, for readers. */
export async function provideDefaults(
  { store }: Pick<Services, 'store'>,
  project: string,
): Promise<void> {
  const there = await findVpc(store.db, project, defaultVpcId(project))
  if (there === undefined) await store.write((tx) => ensureDefaults(tx, project))
}

/** True when the project has all it may have of a kind. */
export async function isFull(
  tx: Transaction,
  project: string,
  kind: NetworkQuotaKind,
  more = 1,
): Promise<boolean> {
  const used = await quotaUsed(tx, project, kind)
  return !fits(await quotaLimit(tx, project, kind), used, more)
}

// ---------------------------------------------------------------- VPCs

export interface NewVpcRequest {
  readonly project: string
  readonly name: string
  readonly description: string
  readonly cidr: string
}

/** RANGE: malformed, not private, or of a size that no VPC has. */
export type NewVpcRefusal = 'RANGE' | 'QUOTA_VPCS'

export async function requestVpc(
  { store, clock }: Services,
  request: NewVpcRequest,
): Promise<Outcome<{ readonly vpc: VpcRow }, NewVpcRefusal>> {
  const cidr = parseCidr(request.cidr)
  if (cidr === null || !isVpcRange(cidr)) return refused('RANGE')
  const { project, name, description } = request
  return await store.write(async (tx) => {
    await ensureDefaults(tx, project)
    if (await isFull(tx, project, 'vpcs')) return refused('QUOTA_VPCS')
    const id = newId()
    const created_at = clock.wallMs()
    const vpc: VpcRow = { id, project, name, description, cidr: formatCidr(cidr), created_at }
    await insertVpc(tx, vpc)
    return { ok: true, vpc }
  })
}

export interface VpcChange {
  readonly name?: string
  readonly description?: string
  readonly cidr?: string
}

/** RANGE_IN_USE: a subnet would be outside. */
export type VpcChangeRefusal = 'VPC_UNKNOWN' | 'RANGE' | 'RANGE_IN_USE'

export async function changeVpc(
  { store }: Services,
  project: string,
  id: string,
  change: VpcChange,
): Promise<Outcome<{ readonly vpc: VpcRow }, VpcChangeRefusal>> {
  return await store.write(async (tx) => {
    await ensureDefaults(tx, project)
    const vpc = await findVpc(tx, project, id)
    if (vpc === undefined) return refused('VPC_UNKNOWN')
    if (change.cidr !== undefined && change.cidr !== vpc.cidr) {
      const cidr = parseCidr(change.cidr)
      if (cidr === null || !isVpcRange(cidr)) return refused('RANGE')
      const subnets = (await listSubnets(tx, project)).filter((subnet) => subnet.vpc === id)
      if (!subnets.every((subnet) => contains(cidr, cidrOf(subnet)))) return refused('RANGE_IN_USE')
    }
    await updateVpc(tx, id, change)
    return { ok: true, vpc: { ...vpc, ...change } }
  })
}

export type VpcDeletionRefusal = 'VPC_UNKNOWN' | 'VPC_IS_DEFAULT' | 'VPC_IN_USE'

/** In use: it has subnets, or a server or a protection group is bound to it. */
export async function deleteVpc(
  { store }: Services,
  project: string,
  id: string,
): Promise<Outcome<object, VpcDeletionRefusal>> {
  return await store.write(async (tx) => {
    await ensureDefaults(tx, project)
    if ((await findVpc(tx, project, id)) === undefined) return refused('VPC_UNKNOWN')
    if (id === defaultVpcId(project)) return refused('VPC_IS_DEFAULT')
    for (const table of ['subnets', 'servers', 'protection_groups'] as const) {
      const user = await tx
        .selectFrom(table)
        .select('id')
        .where('vpc', '=', id)
        .limit(1)
        .executeTakeFirst()
      if (user !== undefined) return refused('VPC_IN_USE')
    }
    await deleteVpcRow(tx, id)
    await deleteAllTags(tx, 'vpc', id)
    return { ok: true }
  })
}

// ---------------------------------------------------------------- subnets

export interface NewSubnetRequest {
  readonly project: string
  readonly vpc: string
  readonly name: string
  readonly description: string
  readonly cidr: string
  readonly gateway: string
  readonly dhcp: boolean
  /** Addresses, in order. */
  readonly dns: readonly string[]
  readonly az: string | null
}

export type NewSubnetRefusal =
  | 'VPC_UNKNOWN'
  | 'RANGE'
  | 'DNS'
  | SubnetFault
  | 'NAME_TAKEN'
  | 'QUOTA_SUBNETS'

export async function requestSubnet(
  { store, clock }: Services,
  request: NewSubnetRequest,
): Promise<Outcome<{ readonly subnet: SubnetRow }, NewSubnetRefusal>> {
  const { project } = request
  const cidr = parseCidr(request.cidr)
  if (cidr === null) return refused('RANGE')
  const gateway = parseAddress(request.gateway)
  if (gateway === null) return refused('GATEWAY')
  if (!areAddresses(request.dns)) return refused('DNS')
  return await store.write(async (tx) => {
    await ensureDefaults(tx, project)
    const vpc = await findVpc(tx, project, request.vpc)
    if (vpc === undefined) return refused('VPC_UNKNOWN')
    const all = await listSubnets(tx, project)
    const siblings = all.filter((subnet) => subnet.vpc === vpc.id).map(cidrOf)
    const fault = subnetFault({ cidr, gateway }, cidrOf(vpc), siblings)
    if (fault !== null) return refused(fault)
    if (all.some(({ name }) => name === request.name)) return refused('NAME_TAKEN')
    if (await isFull(tx, project, 'subnets')) return refused('QUOTA_SUBNETS')
    const subnet: SubnetRow = {
      id: newId(),
      neutron_subnet: newId(),
      project,
      vpc: vpc.id,
      name: request.name,
      description: request.description,
      cidr: formatCidr(cidr),
      gateway: formatAddress(gateway),
      dhcp: bit(request.dhcp),
      dns: toJson(request.dns),
      az: request.az,
      created_at: clock.wallMs(),
    }
    await insertSubnet(tx, subnet)
    return { ok: true, subnet }
  })
}

const areAddresses = (texts: readonly string[]): boolean =>
  texts.every((text) => parseAddress(text) !== null)

export interface SubnetChange {
  readonly name?: string
  readonly description?: string
  readonly dhcp?: boolean
  readonly dns?: readonly string[]
}

export type SubnetChangeRefusal = 'SUBNET_UNKNOWN' | 'DNS' | 'NAME_TAKEN'

/** The subnet must be in this VPC. Servers learn about it when their definition is written the next time. */
export async function changeSubnet(
  { store }: Services,
  project: string,
  place: { readonly vpc: string; readonly subnet: string },
  change: SubnetChange,
): Promise<Outcome<{ readonly subnet: SubnetRow }, SubnetChangeRefusal>> {
  const { name, description, dhcp, dns } = change
  if (dns !== undefined && !areAddresses(dns)) return refused('DNS')
  return await store.write(async (tx) => {
    await ensureDefaults(tx, project)
    const all = await listSubnets(tx, project)
    const subnet = all.find((one) => one.id === place.subnet && one.vpc === place.vpc)
    if (subnet === undefined) return refused('SUBNET_UNKNOWN')
    if (all.some((one) => one.id !== subnet.id && one.name === name)) return refused('NAME_TAKEN')
    const columns = {
      ...(name === undefined ? {} : { name }),
      ...(description === undefined ? {} : { description }),
      ...(dhcp === undefined ? {} : { dhcp: bit(dhcp) }),
      ...(dns === undefined ? {} : { dns: toJson(dns) }),
    }
    await updateSubnet(tx, subnet.id, columns)
    return { ok: true, subnet: { ...subnet, ...columns } }
  })
}

export type SubnetDeletionRefusal = 'SUBNET_UNKNOWN' | 'SUBNET_IS_DEFAULT' | 'SUBNET_IN_USE'

/** In use: it has ports. */
export async function deleteSubnet(
  { store }: Services,
  project: string,
  place: { readonly vpc: string; readonly subnet: string },
): Promise<Outcome<object, SubnetDeletionRefusal>> {
  return await store.write(async (tx) => {
    await ensureDefaults(tx, project)
    const subnet = await findSubnet(tx, project, place.subnet)
    if (subnet?.id !== place.subnet || subnet.vpc !== place.vpc) return refused('SUBNET_UNKNOWN')
    if (subnet.id === defaultSubnetId(project)) return refused('SUBNET_IS_DEFAULT')
    const port = await tx
      .selectFrom('ports')
      .select('id')
      .where('subnet', '=', subnet.id)
      .limit(1)
      .executeTakeFirst()
    if (port !== undefined) return refused('SUBNET_IN_USE')
    await deleteSubnetRow(tx, subnet.id)
    await deleteAllTags(tx, 'subnet', subnet.id)
    return { ok: true }
  })
}

// ---------------------------------------------------------------- ports

export interface NewPortRequest {
  readonly project: string
  readonly subnet: string
  /** Null: the lowest one that is free. */
  readonly address: string | null
  readonly securityGroups: readonly string[]
  readonly name: string
}

/** Makes a port that waits for a server, and outlives it. */
export async function requestPort(
  { store, clock }: Services,
  request: NewPortRequest,
): Promise<NewPortOutcome> {
  const port = { ...request, server: null, place: 0, deleteWithServer: false }
  return await store.write((tx) => createPort(tx, port, clock.wallMs()))
}

/** In use: a server wears it, or it belongs to one. */
export async function deleteFreePort(
  { store }: Services,
  project: string,
  id: string,
): Promise<Outcome<object, 'PORT_UNKNOWN' | 'PORT_IN_USE'>> {
  return await store.write(async (tx) => {
    const port = await findPort(tx, project, id)
    if (port === undefined) return refused('PORT_UNKNOWN')
    if (!isFreePort(port)) return refused('PORT_IN_USE')
    await deletePort(tx, id)
    return { ok: true }
  })
}

export interface PortChange {
  readonly name?: string
  /** Ids, in order; none: the default group. */
  readonly securityGroups?: readonly string[]
}

export async function changePort(
  { store }: Services,
  project: string,
  id: string,
  change: PortChange,
): Promise<Outcome<{ readonly port: PortRow }, 'PORT_UNKNOWN' | 'GROUP_UNKNOWN'>> {
  const { name, securityGroups: given } = change
  return await store.write(async (tx) => {
    await ensureDefaults(tx, project)
    if ((await findPort(tx, project, id)) === undefined) return refused('PORT_UNKNOWN')
    const groups = given === undefined ? undefined : await groupIds(tx, project, given)
    if (groups === null) return refused('GROUP_UNKNOWN')
    await updatePort(tx, id, {
      ...(name === undefined ? {} : { name }),
      ...(groups === undefined ? {} : { securityGroups: groups }),
    })
    const port = await readPort(tx, id)
    return port === undefined ? refused('PORT_UNKNOWN') : { ok: true, port }
  })
}
