import { newId } from '#base/ids.ts'
import { drillInVpc, drillNetwork, rememberDrillNetwork } from '#control/resources/drills.ts'
import {
  findVpc,
  insertSubnet,
  insertVpc,
  listPorts,
  listSubnets,
} from '#control/resources/networks.ts'
import type { Transaction } from '#control/store/store.ts'
import type { SubnetRow } from '#control/store/tables/networks.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import { isFull } from './network-requests.ts'

/* The network of a drill: another VPC with the same ranges, so that drill servers have the addresses of production and reach only each
 * other. A VPC is an isolated domain at every site, which is all that isolation needs.
 *
 * Without a VPC in the request one is made for the group, and used again by its next drill: it is kept when a drill ends, and a schedule would
 * otherwise leave one behind each time.
 */

export type DrillNetworkRefusal =
  | 'DRILL_VPC_UNKNOWN'
  | 'DRILL_VPC_OF_GROUP'
  | 'DRILL_VPC_IN_USE'
  | 'DRILL_VPC_NO_SUBNETS'
  | 'DRILL_VPC_NO_RANGE'
  | 'DRILL_ADDRESS_TAKEN'
  | 'QUOTA_VPCS'
  | 'QUOTA_SUBNETS'

/** A NIC of a production server that the drill server is to have as well. */
export interface WantedNic {
  readonly subnet: SubnetRow
  readonly address: string
}

export type DrillNetwork =
  | {
      readonly ok: true
      readonly vpc: string
      /** By subnet of production. */
      readonly subnets: ReadonlyMap<string, SubnetRow>
    }
  | { readonly ok: false; readonly refusal: DrillNetworkRefusal }

const refuse = (refusal: DrillNetworkRefusal): DrillNetwork => ({ ok: false, refusal })

/** Finds or makes the network, in the transaction of the request. */
export async function planDrillNetwork(
  tx: Transaction,
  group: ProtectionGroupRow,
  nics: readonly WantedNic[],
  given: string | null,
  nowMs: number,
): Promise<DrillNetwork> {
  if (given !== null) return await fitting(tx, group, nics, given)
  const kept = await drillNetwork(tx, group.id)
  const again = kept === null ? null : await fitting(tx, group, nics, kept)
  return again?.ok === true ? again : await make(tx, group, nics, nowMs)
}

async function fitting(
  tx: Transaction,
  { project, vpc: own }: ProtectionGroupRow,
  nics: readonly WantedNic[],
  vpc: string,
): Promise<DrillNetwork> {
  if (vpc === own) return refuse('DRILL_VPC_OF_GROUP')
  if ((await findVpc(tx, project, vpc)) === undefined) return refuse('DRILL_VPC_UNKNOWN')
  if ((await drillInVpc(tx, vpc)) !== null) return refuse('DRILL_VPC_IN_USE')
  const there = (await listSubnets(tx, project)).filter((subnet) => subnet.vpc === vpc)
  if (there.length === 0) return refuse('DRILL_VPC_NO_SUBNETS')
  const subnets = new Map<string, SubnetRow>()
  for (const { subnet } of nics) {
    const same = there.find(({ cidr }) => cidr === subnet.cidr)
    if (same === undefined) return refuse('DRILL_VPC_NO_RANGE')
    subnets.set(subnet.id, same)
  }
  const taken = new Set(
    (await listPorts(tx, project)).map((port) => `${port.subnet} ${port.address}`),
  )
  const isTaken = ({ subnet, address }: WantedNic) => {
    const place = subnets.get(subnet.id)
    return place?.gateway === address || taken.has(`${place?.id} ${address}`)
  }
  return nics.some(isTaken) ? refuse('DRILL_ADDRESS_TAKEN') : { ok: true, vpc, subnets }
}

async function make(
  tx: Transaction,
  group: ProtectionGroupRow,
  nics: readonly WantedNic[],
  nowMs: number,
): Promise<DrillNetwork> {
  const { project } = group
  const wanted = [...new Map(nics.map(({ subnet }) => [subnet.id, subnet])).values()]
  if (await isFull(tx, project, 'vpcs')) return refuse('QUOTA_VPCS')
  if (await isFull(tx, project, 'subnets', wanted.length)) return refuse('QUOTA_SUBNETS')
  const origin = await findVpc(tx, project, group.vpc)
  const id = newId()
  const name = `drill-${group.name}`.slice(0, 64)
  const description = 'Isolated network of drills'
  await insertVpc(tx, {
    id,
    project,
    name,
    cidr: origin?.cidr ?? wanted[0]?.cidr ?? '10.0.0.0/8',
    description,
    created_at: nowMs,
  })
  const subnets = new Map<string, SubnetRow>()
  for (const [index, subnet] of wanted.entries()) {
    const row: SubnetRow = {
      ...subnet,
      id: newId(),
      neutron_subnet: newId(),
      vpc: id,
      // Names of subnets are unique in a project.
      name: `drill-${id.slice(0, 8)}-${index + 1}`,
      description,
      az: null,
      created_at: nowMs,
    }
    await insertSubnet(tx, row)
    subnets.set(subnet.id, row)
  }
  await rememberDrillNetwork(tx, group.id, id)
  return { ok: true, vpc: id, subnets }
}
