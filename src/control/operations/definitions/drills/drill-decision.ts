import { drillNetwork, listDrills } from '#control/resources/drills.ts'
import { drAz, findGroup, volumeAt } from '#control/resources/groups.ts'
import { drServer, productionServer } from '#control/resources/instances.ts'
import { listSubnets, portsOf } from '#control/resources/networks.ts'
import { disksOf } from '#control/resources/servers.ts'
import { quotaLimit, quotaUsed } from '#control/resources/surroundings.ts'
import { readVolumes } from '#control/resources/volumes.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type {
  ProtectionGroupRow,
  ReplicationPairRow,
  VolumeRow,
} from '#control/store/tables/resources.ts'
import type { ProtectedInstanceRow, ServerRow } from '#control/store/tables/servers.ts'
import { DRILLS_PER_PROJECT_MAX, type DrillRefusal, judgeDrill } from '#domain/drill.ts'
import type { GroupStatus } from '#domain/protection-group.ts'
import { fits, type QuotaKind } from '#domain/quota.ts'
import type { DrillOptions } from './drill-facts.ts'
import { type DrillNetworkRefusal, fittingNetwork, type WantedNic } from './drill-networks.ts'
import { readServers } from '../instances/instance-facts.ts'
import { groupFacts, type SyncSources } from '../protection/sync-views.ts'

/* Whether a drill can be made, and of what. The request and its preflight both go by this, so that one does not accept what the other refuses.
 * It only reads. */

export type CreateDrillRefusal =
  | 'GROUP_UNKNOWN'
  | DrillRefusal
  | DrillNetworkRefusal
  /** A protected server has no NIC in the VPC of its group. */
  | 'DRILL_NIC_MISSING'
  /** Probes are named for an instance that the group has not. */
  | 'DRILL_PROBES_UNKNOWN'
  | 'QUOTA_DRILLS'
  | 'QUOTA_INSTANCES'
  | 'QUOTA_VOLUMES'
  | 'QUOTA_GIGABYTES'
  | 'QUOTA_PORTS'

/** Ends the transaction: nothing is made. */
export class DrillRefused extends Error {
  override readonly name = 'DrillRefused'
  readonly refusal: CreateDrillRefusal
  constructor(refusal: CreateDrillRefusal) {
    super(refusal)
    this.refusal = refusal
  }
}

const refuse = (refusal: CreateDrillRefusal): never => {
  throw new DrillRefused(refusal)
}

type Db = Queries | Transaction

export interface WantedDrill {
  readonly project: string
  readonly group: string
  /** null: one is made for the group, or used again. */
  readonly vpc: string | null
  readonly options: DrillOptions
}

export interface PlannedDisk {
  readonly pair: ReplicationPairRow
  /** The disk at the DR site. */
  readonly volume: VolumeRow
}

export interface PlannedServer {
  readonly instance: ProtectedInstanceRow
  /** The production server. */
  readonly like: ServerRow
  readonly flavor: string
  readonly nics: readonly WantedNic[]
  /** A shared disk is one of several servers. */
  readonly disks: readonly (PlannedDisk & {
    readonly device: string
    readonly bootIndex: number | null
  })[]
}

export interface DrillPlan {
  readonly group: ProtectionGroupRow
  readonly servers: readonly PlannedServer[]
  /** Every disk of the group, once. */
  readonly disks: readonly PlannedDisk[]
  /** The VPC that fits; null: one is to be made. */
  readonly network: { readonly vpc: string; readonly subnets: ReadonlyMap<string, string> } | null
}

/** Commands are repeated for longer than a site may be silent for a moment; this one is away. */
const SILENT_MS = 10_000

/** Throws DrillRefused. */
export async function planDrill(
  db: Db,
  services: SyncSources,
  { project, group: id, options, vpc }: WantedDrill,
): Promise<DrillPlan> {
  const group = (await findGroup(db, project, id, 'sdrs')) ?? refuse('GROUP_UNKNOWN')
  const site = drAz(group)
  const { facts, pairs, instances } = await groupFacts(db, services, group)
  const usable = pairs.filter(({ status }) => status !== 'error')
  const refusal = judgeDrill({
    group: group.status as GroupStatus,
    usablePairs: usable.length,
    copiedPairs: usable.filter((pair) => pair.never_replicated === 0).length,
    busyPairs: facts.busyPairs,
    busyInstances: facts.busyInstances,
    brokenInstances: facts.brokenInstances,
    sync: facts.sync,
    siteHeard: (services.agents.at(site)?.ageMs ?? Number.POSITIVE_INFINITY) <= SILENT_MS,
    copyFailed: services.agents.session(group.id, site)?.status.unfit === 'failed',
  })
  if (refusal !== null) refuse(refusal)
  const known = new Set(['*', ...instances.map((instance) => instance.id)])
  if (Object.keys(options.probes).some((name) => !known.has(name))) refuse('DRILL_PROBES_UNKNOWN')
  const volumes = await readVolumes(
    db,
    usable.map((pair) => volumeAt(group, pair, site)),
  )
  const diskOf = (pair: ReplicationPairRow): PlannedDisk => {
    const volume = volumes.get(volumeAt(group, pair, site))
    return volume === undefined ? refuse('DRILL_INSTANCE_BROKEN') : { pair, volume }
  }
  const byVolume = new Map(usable.map(diskOf).map((disk) => [disk.volume.id, disk]))
  const servers = await planServers(db, group, instances, byVolume)
  const disks = [...byVolume.values()]
  await checkQuotas(db, project, servers, disks)
  const nics = servers.flatMap((server) => server.nics)
  return { group, servers, disks, network: await findNetwork(db, group, nics, vpc) }
}

async function findNetwork(
  db: Db,
  group: ProtectionGroupRow,
  nics: readonly WantedNic[],
  given: string | null,
): Promise<DrillPlan['network']> {
  const { project } = group
  const wanted = given ?? (await drillNetwork(db, group.id))
  if (wanted !== null) {
    const found = await fittingNetwork(db, group, nics, wanted)
    if (found.ok) return found
    if (given !== null) return refuse(found.refusal)
  }
  if (!(await fitsQuota(db, project, 'vpcs', 1))) refuse('QUOTA_VPCS')
  const subnets = new Set(nics.map(({ subnet }) => subnet.id)).size
  if (!(await fitsQuota(db, project, 'subnets', subnets))) refuse('QUOTA_SUBNETS')
  return null
}

const fitsQuota = async (db: Db, project: string, kind: QuotaKind, more: number) =>
  fits(await quotaLimit(db, project, kind), await quotaUsed(db, project, kind), more)

async function planServers(
  db: Db,
  group: ProtectionGroupRow,
  instances: readonly ProtectedInstanceRow[],
  pairs: ReadonlyMap<string, PlannedDisk>,
): Promise<PlannedServer[]> {
  const subnets = new Map(
    (await listSubnets(db, group.project)).map((subnet) => [subnet.id, subnet]),
  )
  const running = instances.map((instance) => productionServer(group, instance))
  const waiting = instances.map((instance) => drServer(group, instance))
  const rows = await readServers(db, [...running, ...waiting])
  const ports = await portsOf(db, running)
  const disks = await disksOf(db, waiting)
  return instances.map((instance) => {
    const production = rows.get(productionServer(group, instance))
    const standby = rows.get(drServer(group, instance))
    if (production === undefined || standby === undefined) return refuse('DRILL_INSTANCE_BROKEN')
    const nics = (ports.get(production.id) ?? []).flatMap(({ subnet: id, address }) => {
      const subnet = subnets.get(id)
      return subnet?.vpc === group.vpc ? [{ subnet, address }] : []
    })
    if (nics.length === 0) refuse('DRILL_NIC_MISSING')
    return {
      instance,
      like: production,
      flavor: standby.flavor,
      nics,
      disks: (disks.get(standby.id) ?? []).flatMap(({ volume, device, boot_index }) => {
        const disk = pairs.get(volume)
        return disk === undefined ? [] : [{ ...disk, device, bootIndex: boot_index }]
      }),
    }
  })
}

async function checkQuotas(
  db: Db,
  project: string,
  servers: readonly PlannedServer[],
  disks: readonly PlannedDisk[],
): Promise<void> {
  if ((await listDrills(db, project)).length >= DRILLS_PER_PROJECT_MAX) refuse('QUOTA_DRILLS')
  const gigabytes = disks.reduce((sum, { volume }) => sum + volume.size_gb, 0)
  const ports = servers.reduce((sum, { nics }) => sum + nics.length, 0)
  const wanted = [
    ['instances', servers.length, 'QUOTA_INSTANCES'],
    ['volumes', disks.length, 'QUOTA_VOLUMES'],
    ['gigabytes', gigabytes, 'QUOTA_GIGABYTES'],
    ['ports', ports, 'QUOTA_PORTS'],
  ] as const
  for (const [kind, more, refusal] of wanted) {
    if (!(await fitsQuota(db, project, kind, more))) refuse(refusal)
  }
}
