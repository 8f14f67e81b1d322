import { newId } from '#base/ids.ts'
import { drillInVpc, rememberDrillNetwork } from '#control/resources/drills.ts'
import {
  findVpc,
  insertSubnet,
  insertVpc,
  listPorts,
  listSubnets,
} from '#control/resources/networks.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { SubnetRow } from '#control/store/tables/networks.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'

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

export type FittingNetwork =
  | {
      readonly ok: true
      readonly vpc: string
      /** By subnet of production: the one with its range. */
      readonly subnets: ReadonlyMap<string, string>
    }
  | { readonly ok: false; readonly refusal: DrillNetworkRefusal }

const refuse = (refusal: DrillNetworkRefusal): FittingNetwork => ({ ok: false, refusal })

/** Whether drill servers with these NICs can be in the VPC. */
export async function fittingNetwork(
  db: Queries | Transaction,
  { project, vpc: own }: ProtectionGroupRow,
  nics: readonly WantedNic[],
  vpc: string,
): Promise<FittingNetwork> {
  if (vpc === own) return refuse('DRILL_VPC_OF_GROUP')
  if ((await findVpc(db, project, vpc)) === undefined) return refuse('DRILL_VPC_UNKNOWN')
  if ((await drillInVpc(db, vpc)) !== null) return refuse('DRILL_VPC_IN_USE')
  const there = (await listSubnets(db, project)).filter((subnet) => subnet.vpc === vpc)
  if (there.length === 0) return refuse('DRILL_VPC_NO_SUBNETS')
  const subnets = new Map<string, string>()
  const gateways = new Map<string, string>()
  for (const { subnet } of nics) {
    const same = there.find(({ cidr }) => cidr === subnet.cidr)
    if (same === undefined) return refuse('DRILL_VPC_NO_RANGE')
    subnets.set(subnet.id, same.id)
    gateways.set(same.id, same.gateway)
  }
  const taken = new Set(
    (await listPorts(db, project)).map((port) => `${port.subnet} ${port.address}`),
  )
  const isTaken = ({ subnet, address }: WantedNic) => {
    const place = subnets.get(subnet.id) ?? ''
    return gateways.get(place) === address || taken.has(`${place} ${address}`)
  }
  return nics.some(isTaken) ? refuse('DRILL_ADDRESS_TAKEN') : { ok: true, vpc, subnets }
}

/** Makes one, in the transaction of the request, whose quotas were checked. */
export async function makeNetwork(
  tx: Transaction,
  group: ProtectionGroupRow,
  nics: readonly WantedNic[],
  nowMs: number,
): Promise<{ readonly vpc: string; readonly subnets: ReadonlyMap<string, string> }> {
  const { project } = group
  const wanted = [...new Map(nics.map(({ subnet }) => [subnet.id, subnet])).values()]
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
  const subnets = new Map<string, string>()
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
    subnets.set(subnet.id, row.id)
  }
  await rememberDrillNetwork(tx, group.id, id)
  return { vpc: id, subnets }
}
