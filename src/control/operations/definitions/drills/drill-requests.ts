import { assert } from '#base/assert.ts'
import { newId } from '#base/ids.ts'
import {
  DRILL_RESOURCE,
  drillStatus,
  findDrill,
  insertDrill,
  moveDrill,
  updateDrill,
} from '#control/resources/drills.ts'
import { drAz } from '#control/resources/groups.ts'
import { createPort } from '#control/resources/networks.ts'
import { insertServer, putDiskIn } from '#control/resources/servers.ts'
import { insertVolume } from '#control/resources/volumes.ts'
import { bit } from '#control/store/bit.ts'
import { toJson } from '#control/store/json.ts'
import type { Transaction } from '#control/store/store.ts'
import type { DrillDiskRow, DrillRow, DrillServerRow } from '#control/store/tables/drills.ts'
import type { VolumeRow } from '#control/store/tables/resources.ts'
import type { ServerRow } from '#control/store/tables/servers.ts'
import { mayDelete } from '#domain/drill.ts'
import {
  type CreateDrillRefusal,
  DrillRefused,
  planDrill,
  type WantedDrill,
} from './drill-decision.ts'
import { deleteDrill } from './drill-end.ts'
import { makeNetwork } from './drill-networks.ts'
import { createDrill } from './drills.ts'
import { type Outcome, type RequestServices, refused } from '../requests.ts'

/* The rows that stand from the request of a drill on, when drill-decision.ts has nothing against it: one server for each protected instance with the flavor of the
 * server that would take over, the addresses of the one that runs, and a copy of every disk. */

export interface NewDrillRequest extends WantedDrill {
  readonly user: string
  readonly name: string
  readonly schedule: string | null
  /** It is deleted by itself when its report is written. */
  readonly autoDelete: boolean
}

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

/** For whoever has a transaction of its own. Throws DrillRefused. */
export async function submitDrill(
  tx: Transaction,
  services: RequestServices,
  request: NewDrillRequest,
): Promise<AcceptedDrill> {
  const { project, user } = request
  const now = services.clock.wallMs()
  const plan = await planDrill(tx, services, request)
  const { group } = plan
  const nics = plan.servers.flatMap((server) => server.nics)
  const network = plan.network ?? (await makeNetwork(tx, group, nics, now))
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
    began_at: null,
    plan: null,
    forced_at: null,
    created_at: now,
    updated_at: now,
  }
  const servers: DrillServerRow[] = []
  const disks: DrillDiskRow[] = []
  // A disk that several servers share is copied once, and shared by their copies.
  const copies = new Map<string, VolumeRow>()
  for (const { pair, volume } of plan.disks) {
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
        multiattach: volume.multiattach === 1,
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
      cloned: 0,
    })
    copies.set(volume.id, made)
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
      state: 'waiting',
      asked_at: null,
      started_at: null,
      settled_at: null,
      reason: null,
      probes: '[]',
    })
    for (const { volume: source, device, bootIndex } of one.disks) {
      const volume = copies.get(source.id)
      assert(volume !== undefined, 'every disk of the group is copied')
      const place = { server, volume, device, bootIndex, deleteWithServer: false }
      await putDiskIn(tx, { ...place, state: 'attaching' }, now)
    }
    for (const [place, nic] of one.nics.entries()) {
      const subnet = network.subnets.get(nic.subnet.id)
      assert(subnet !== undefined, 'the network was planned for every NIC')
      const port = {
        project,
        subnet,
        address: nic.address,
        server: server.id,
        place,
        securityGroups: [],
        deleteWithServer: true,
        name: '',
      }
      const made = await createPort(tx, port, now)
      if (!made.ok) throw new DrillRefused('DRILL_ADDRESS_TAKEN')
    }
  }
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

// ---------------------------------------------------------------- changes

export type DrillChangeRefusal = 'DRILL_UNKNOWN' | 'DRILL_STATE'

/** `force`: it ends although its site is silent, with what is left there in its report. */
export async function requestDrillDeletion(
  services: Pick<RequestServices, 'store' | 'operations' | 'clock'>,
  project: string,
  id: string,
  force = false,
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
      input: { force },
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
