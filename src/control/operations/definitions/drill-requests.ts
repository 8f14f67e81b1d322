import { assert } from '#base/assert.ts'
import { newId } from '#base/ids.ts'
import {
  DRILL_RESOURCE,
  drillStatus,
  findDrill,
  insertDrill,
  listDrills,
  moveDrill,
  updateDrill,
} from '#control/resources/drills.ts'
import { drAz, findGroup, volumeAt } from '#control/resources/groups.ts'
import { drServer, productionServer } from '#control/resources/instances.ts'
import { createPort, listSubnets, portsOf } from '#control/resources/networks.ts'
import { disksOf, insertServer, putDiskIn } from '#control/resources/servers.ts'
import { quotaLimit, quotaUsed } from '#control/resources/surroundings.ts'
import { insertVolume, readVolumes } from '#control/resources/volumes.ts'
import { bit } from '#control/store/bit.ts'
import { toJson } from '#control/store/json.ts'
import type { Transaction } from '#control/store/store.ts'
import type { DrillDiskRow, DrillRow, DrillServerRow } from '#control/store/tables/drills.ts'
import type {
  ProtectionGroupRow,
  ReplicationPairRow,
  VolumeRow,
} from '#control/store/tables/resources.ts'
import type { ProtectedInstanceRow, ServerRow } from '#control/store/tables/servers.ts'
import { DRILLS_PER_PROJECT_MAX, type DrillRefusal, judgeDrill, mayDelete } from '#domain/drill.ts'
import type { GroupStatus } from '#domain/protection-group.ts'
import { fits } from '#domain/quota.ts'
import type { DrillOptions } from './drill-facts.ts'
import { type DrillNetworkRefusal, planDrillNetwork, type WantedNic } from './drill-networks.ts'
import { deleteDrill } from './drill-end.ts'
import { createDrill } from './drills.ts'
import { readServers } from './instance-facts.ts'
import { type Outcome, type RequestServices, refused } from './requests.ts'
import { groupFacts } from './sync-views.ts'

/* What is checked before a drill begins, and the rows that stand from then on: one server for each protected instance with the flavor of the
 * server that would take over, the addresses of the one that runs, and a copy of every disk. */

export interface NewDrillRequest {
  readonly project: string
  readonly user: string
  readonly group: string
  readonly name: string
  /** null: one is made for the group, or used again. */
  readonly vpc: string | null
  readonly options: DrillOptions
  readonly schedule: string | null
  /** It is deleted by itself when its report is written. */
  readonly autoDelete: boolean
}

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

export interface AcceptedDrill {
  readonly drill: DrillRow
  readonly operation: string
}

/** Checks everything and makes the rows, or changes nothing. */
export async function requestDrill(
  services: RequestServices,
  request: NewDrillRequest,
): Promise<Outcome<AcceptedDrill, CreateDrillRefusal>> {
  try {
    return await services.store.write(async (tx) => ({
      ok: true,
      ...(await submitDrill(tx, services, request)),
    }))
  } catch (error) {
    if (error instanceof DrillRefused) return refused(error.refusal)
    throw error
  }
}

/** Ends the transaction: some rows were made before the reason showed. */
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

/** For whoever has a transaction of its own. Throws DrillRefused. */
export async function submitDrill(
  tx: Transaction,
  services: RequestServices,
  request: NewDrillRequest,
): Promise<AcceptedDrill> {
  const { project, user } = request
  const now = services.clock.wallMs()
  const plan = await makePlan(tx, services, request)
  const { group } = plan
  const nics = plan.servers.flatMap((server) => server.nics)
  const network = await planDrillNetwork(tx, group, nics, request.vpc, now)
  if (!network.ok) return refuse(network.refusal)
  const az = drAz(group)
  const drill: DrillRow = {
    id: newId(),
    project,
    group_id: group.id,
    name: request.name,
    status: 'creating',
    az,
    vpc: network.vpc,
    snapshot: newId(),
    user_id: user,
    options: toJson(request.options),
    schedule: request.schedule,
    auto_delete: bit(request.autoDelete),
    findings: null,
    failure_detail: null,
    created_at: now,
    updated_at: now,
  }
  const servers: DrillServerRow[] = []
  const disks: DrillDiskRow[] = []
  const makeDisk = async ({ pair, volume }: PlannedDisk): Promise<VolumeRow> => {
    const made = await insertVolume(
      tx,
      {
        id: newId(),
        project,
        user,
        name: volume.name,
        description: null,
        sizeGb: volume.size_gb,
        type: volume.volume_type,
        az,
        metadata: {},
        bootable: volume.bootable === 1,
        multiattach: false,
        pair: null,
        image: volume.image,
      },
      now,
    )
    disks.push({
      volume: made.id,
      drill: drill.id,
      pair: pair.id,
      source: volume.id,
      size_gb: volume.size_gb,
    })
    return made
  }
  for (const one of plan.servers) {
    const server: ServerRow = {
      id: newId(),
      project,
      user_id: user,
      name: one.like.name,
      description: null,
      az,
      vpc: network.vpc,
      flavor: one.flavor,
      image: one.like.image,
      key_name: one.like.key_name,
      status: 'building',
      task: 'spawning',
      generation: 1,
      power: 'off',
      power_at: 0,
      fault: null,
      metadata: toJson({}),
      auto_recovery: 0,
      instance: null,
      launched_at: null,
      created_at: now,
      updated_at: now,
    }
    await insertServer(tx, server)
    servers.push({
      drill: drill.id,
      instance: one.instance.id,
      server: server.id,
      name: server.name,
    })
    for (const disk of one.disks) {
      const { device, bootIndex } = disk
      const volume = await makeDisk(disk)
      const place = { server, volume, device, bootIndex, deleteWithServer: false }
      await putDiskIn(tx, { ...place, state: 'attaching' }, now)
    }
    for (const [place, nic] of one.nics.entries()) {
      const subnet = network.subnets.get(nic.subnet.id)
      assert(subnet !== undefined, 'the network was planned for every NIC')
      const port = {
        project,
        subnet: subnet.id,
        address: nic.address,
        server: server.id,
        place,
        securityGroups: [],
        deleteWithServer: true,
        name: '',
      }
      const made = await createPort(tx, port, now)
      if (made.ok) continue
      return refuse(made.refusal === 'QUOTA_PORTS' ? 'QUOTA_PORTS' : 'DRILL_ADDRESS_TAKEN')
    }
  }
  for (const loose of plan.loose) await makeDisk(loose)
  await insertDrill(tx, drill, servers, disks)
  const operation = await services.operations.submit(tx, createDrill, {
    project,
    resourceType: DRILL_RESOURCE,
    resourceId: drill.id,
    input: {},
    entities: drillEntities(drill),
  })
  return { drill, operation }
}

const drillEntities = ({ id, group_id, name }: DrillRow) => ({
  disaster_recovery_drill_id: id,
  server_group_id: group_id,
  name,
})

// ---------------------------------------------------------------- checks

interface PlannedDisk {
  readonly pair: ReplicationPairRow
  /** The disk at the DR site. */
  readonly volume: VolumeRow
}

interface PlannedServer {
  readonly instance: ProtectedInstanceRow
  /** The production server. */
  readonly like: ServerRow
  readonly flavor: string
  readonly nics: readonly WantedNic[]
  readonly disks: readonly (PlannedDisk & {
    readonly device: string
    readonly bootIndex: number | null
  })[]
}

interface Plan {
  readonly group: ProtectionGroupRow
  readonly servers: readonly PlannedServer[]
  /** Of pairs that no instance has. */
  readonly loose: readonly PlannedDisk[]
}

async function makePlan(
  tx: Transaction,
  services: RequestServices,
  { project, group: id, options }: NewDrillRequest,
): Promise<Plan> {
  const group = (await findGroup(tx, project, id, 'sdrs')) ?? refuse('GROUP_UNKNOWN')
  const { facts, pairs, instances } = await groupFacts(tx, services, group)
  const usable = pairs.filter(({ status }) => status !== 'error')
  const refusal = judgeDrill({
    group: group.status as GroupStatus,
    usablePairs: usable.length,
    copiedPairs: usable.filter((pair) => pair.never_replicated === 0).length,
    busyPairs: facts.busyPairs,
    busyInstances: facts.busyInstances,
    brokenInstances: facts.brokenInstances,
    sync: facts.sync,
  })
  if (refusal !== null) refuse(refusal)
  const known = new Set(['*', ...instances.map((instance) => instance.id)])
  if (Object.keys(options.probes).some((name) => !known.has(name))) refuse('DRILL_PROBES_UNKNOWN')
  const volumes = await readVolumes(
    tx,
    usable.map((pair) => volumeAt(group, pair, drAz(group))),
  )
  const diskOf = (pair: ReplicationPairRow): PlannedDisk => {
    const volume = volumes.get(volumeAt(group, pair, drAz(group)))
    return volume === undefined ? refuse('DRILL_INSTANCE_BROKEN') : { pair, volume }
  }
  const disksByVolume = new Map(usable.map(diskOf).map((disk) => [disk.volume.id, disk]))
  const servers = await planServers(tx, group, instances, disksByVolume)
  const placed = new Set(servers.flatMap(({ disks }) => disks.map(({ volume }) => volume.id)))
  const loose = [...disksByVolume.values()].filter(({ volume }) => !placed.has(volume.id))
  await checkQuotas(tx, project, servers, loose)
  return { group, servers, loose }
}

async function planServers(
  tx: Transaction,
  group: ProtectionGroupRow,
  instances: readonly ProtectedInstanceRow[],
  pairs: ReadonlyMap<string, PlannedDisk>,
): Promise<PlannedServer[]> {
  const subnets = new Map(
    (await listSubnets(tx, group.project)).map((subnet) => [subnet.id, subnet]),
  )
  const running = instances.map((instance) => productionServer(group, instance))
  const waiting = instances.map((instance) => drServer(group, instance))
  const rows = await readServers(tx, [...running, ...waiting])
  const ports = await portsOf(tx, running)
  const disks = await disksOf(tx, waiting)
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
  tx: Transaction,
  project: string,
  servers: readonly PlannedServer[],
  loose: readonly PlannedDisk[],
): Promise<void> {
  if ((await listDrills(tx, project)).length >= DRILLS_PER_PROJECT_MAX) refuse('QUOTA_DRILLS')
  const disks = [...servers.flatMap((server) => server.disks), ...loose]
  const gigabytes = disks.reduce((sum, { volume }) => sum + volume.size_gb, 0)
  const wanted = [
    ['instances', servers.length, 'QUOTA_INSTANCES'],
    ['volumes', disks.length, 'QUOTA_VOLUMES'],
    ['gigabytes', gigabytes, 'QUOTA_GIGABYTES'],
  ] as const
  for (const [kind, more, refusal] of wanted) {
    const used = await quotaUsed(tx, project, kind)
    if (!fits(await quotaLimit(tx, project, kind), used, more)) refuse(refusal)
  }
}

// ---------------------------------------------------------------- changes

export type DrillChangeRefusal = 'DRILL_UNKNOWN' | 'DRILL_STATE'

export async function requestDrillDeletion(
  services: Pick<RequestServices, 'store' | 'operations' | 'clock'>,
  project: string,
  id: string,
): Promise<Outcome<AcceptedDrill, DrillChangeRefusal>> {
  const { store, operations, clock } = services
  return await store.write(async (tx) => {
    const drill = await findDrill(tx, project, id)
    if (drill === undefined) return refused('DRILL_UNKNOWN')
    if (!mayDelete(drillStatus(drill))) return refused('DRILL_STATE')
    await moveDrill(tx, id, 'deleting', { failure_detail: null }, clock.wallMs())
    const operation = await operations.submit(tx, deleteDrill, {
      project,
      resourceType: DRILL_RESOURCE,
      resourceId: id,
      input: {},
      entities: drillEntities(drill),
    })
    return { ok: true, drill: { ...drill, status: 'deleting' }, operation }
  })
}

export async function renameDrill(
  { store, clock }: Pick<RequestServices, 'store' | 'clock'>,
  project: string,
  id: string,
  name: string,
): Promise<Outcome<object, 'DRILL_UNKNOWN'>> {
  return await store.write(async (tx) => {
    if ((await findDrill(tx, project, id)) === undefined) return refused('DRILL_UNKNOWN')
    await updateDrill(tx, id, { name }, clock.wallMs())
    return { ok: true }
  })
}
