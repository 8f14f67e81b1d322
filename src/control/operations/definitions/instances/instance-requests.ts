import { assert } from '#base/assert.ts'
import { newId } from '#base/ids.ts'
import { isDrillVolume } from '#control/resources/drills.ts'
import {
  drAz,
  findGroup,
  groupStation,
  groupStatus,
  pairsOfGroup,
  productionAz,
  readPair,
  updatePair,
  volumeAt,
} from '#control/resources/groups.ts'
import { insertInstance, instancesOfGroup, pairAttachments } from '#control/resources/instances.ts'
import { createPort, findSubnet, portsOf } from '#control/resources/networks.ts'
import {
  disksOf,
  findServer,
  insertServer,
  putDiskIn,
  updateServer,
} from '#control/resources/servers.ts'
import { quotaLimit, quotaUsed } from '#control/resources/surroundings.ts'
import { setTags } from '#control/resources/tags.ts'
import { readVolumes } from '#control/resources/volumes.ts'
import { toJson } from '#control/store/json.ts'
import type { Transaction } from '#control/store/store.ts'
import type { ProtectionGroupRow, VolumeRow } from '#control/store/tables/resources.ts'
import type {
  ProtectedInstanceRow,
  ServerDiskRow,
  ServerRow,
} from '#control/store/tables/servers.ts'
import { batchName, INSTANCES_PER_GROUP, pairNameFor } from '#domain/protected-instance.ts'
import { fits } from '#domain/quota.ts'
import { GROUP_STATES_FOR_CREATE, PAIRS_OF_GROUP_MAX } from '#domain/replication-pair.ts'
import { ROOT_DEVICE } from '#domain/server-disks.ts'
import type { Tag } from '#domain/tag.ts'
import { allOrNothing } from '../all-or-nothing.ts'
import { flavorSuits } from './instance-facts.ts'
import {
  createInstance,
  createInstances,
  INSTANCE_BATCH,
  INSTANCE_RESOURCE,
  instanceEntities,
} from './instances.ts'
import { creationOf, insertNewPair, pairEntities } from '../protection/pair-requests.ts'
import { type Outcome, type RequestServices, refused } from '../requests.ts'

/* The beginning of protected instances. Their end is in instance-deletion-requests.ts, what happens in between in instance-changes.ts. */

export interface NewInstanceRequest {
  readonly project: string
  readonly user: string
  readonly group: string
  /** The production server. */
  readonly server: string
  readonly name: string
  readonly description: string | null
  /** Of the spare NIC; null: the subnet of the production server's primary NIC. */
  readonly subnet: string | null
  /** Only together with a subnet; null: a free one. */
  readonly address: string | null
  /** Of the server at the DR site; null: the production server's. */
  readonly flavor: string | null
  readonly tags: readonly Tag[]
}

export interface AcceptedInstance {
  readonly instance: ProtectedInstanceRow
  readonly operation: string
}

export type CreateInstanceRefusal =
  | 'GROUP_UNKNOWN'
  | 'GROUP_STATE'
  | 'GROUP_FULL'
  | 'SERVER_UNKNOWN'
  | 'SERVER_STATE'
  | 'SERVER_NOT_IN_PRODUCTION_AZ'
  | 'SERVER_OTHER_VPC'
  | 'SERVER_PROTECTED'
  | 'SERVER_WITHOUT_DISK'
  | 'SERVER_WITHOUT_SYSTEM_DISK'
  | 'DISK_SHARED'
  | 'DISK_NOT_AVAILABLE'
  | 'DISK_PAIRED'
  | 'DISK_OF_DRILL'
  | 'FLAVOR_UNSUITABLE'
  | 'SUBNET_UNKNOWN'
  | 'SUBNET_FULL'
  | 'ADDRESS_OUTSIDE'
  | 'ADDRESS_TAKEN'
  | 'QUOTA_PORTS'
  | 'QUOTA_PAIRS'
  | 'TOO_MANY_TAGS'

export async function requestInstance(
  services: RequestServices,
  request: NewInstanceRequest,
): Promise<Outcome<AcceptedInstance, CreateInstanceRefusal>> {
  return await allOrNothing(services, (tx) => createIn(tx, services, request, null))
}

/** One instance for each server, with numbered names: all or none. */
export async function requestInstances(
  services: RequestServices,
  request: Omit<NewInstanceRequest, 'server' | 'name' | 'address' | 'flavor'>,
  prefix: string,
  servers: readonly Pick<NewInstanceRequest, 'server' | 'address' | 'flavor'>[],
): Promise<
  Outcome<
    { readonly instances: readonly AcceptedInstance[]; readonly operation: string },
    CreateInstanceRefusal
  >
> {
  return await allOrNothing(services, async (tx) => {
    const operation = await services.operations.submit(tx, createInstances, {
      project: request.project,
      resourceType: INSTANCE_BATCH,
      resourceId: newId(),
      input: {},
      entities: { server_group_id: request.group, name: prefix },
    })
    const instances: AcceptedInstance[] = []
    for (const [index, one] of servers.entries()) {
      const name = batchName(prefix, index + 1)
      const outcome = await createIn(tx, services, { ...request, ...one, name }, operation)
      if (!outcome.ok) return outcome
      instances.push(outcome)
    }
    return { ok: true, instances, operation }
  })
}

// ---------------------------------------------------------------- create

interface Found {
  readonly group: ProtectionGroupRow
  readonly server: ServerRow
  readonly disks: readonly { readonly row: ServerDiskRow; readonly volume: VolumeRow }[]
}

async function createIn(
  tx: Transaction,
  services: RequestServices,
  request: NewInstanceRequest,
  parent: string | null,
): Promise<Outcome<AcceptedInstance, CreateInstanceRefusal>> {
  const { operations, clock } = services
  const { project } = request
  const found = await judge(tx, request)
  if (!found.ok) return found
  const { group, server, disks } = found
  const now = clock.wallMs()
  const id = newId()
  const dr: ServerRow = {
    ...server,
    id: newId(),
    user_id: request.user,
    az: drAz(group),
    flavor: request.flavor ?? server.flavor,
    status: 'building',
    task: 'spawning',
    generation: 1,
    power: 'off',
    power_at: now,
    fault: null,
    instance: id,
    launched_at: null,
    created_at: now,
    updated_at: now,
  }
  await insertServer(tx, dr)
  await updateServer(tx, server.id, { instance: id }, now)
  const spare = await spareFor(tx, request, server, dr, now)
  if (!spare.ok) return spare

  const creations = []
  for (const { row, volume } of disks) {
    const attachments = [{ instance: id, device: row.device }]
    const known = volume.pair === null ? undefined : await readPair(tx, volume.pair)
    const made =
      known === undefined
        ? await insertNewPair(
            tx,
            {
              project,
              user: request.user,
              group,
              volume,
              name: pairNameFor(request.name, row.device),
              description: null,
              attachments,
              madeBy: id,
            },
            now,
          )
        : null
    if (known !== undefined)
      await updatePair(tx, known.id, { attachments: toJson(attachments) }, now)
    const pair = made?.pair ?? known
    assert(pair !== undefined, 'the disk is in a pair')
    const drVolume = made?.dr ?? (await theVolume(tx, volumeAt(group, pair, dr.az)))
    await putDiskIn(
      tx,
      {
        server: dr,
        volume: drVolume,
        device: row.device,
        bootIndex: row.boot_index,
        deleteWithServer: row.delete_with_server === 1,
        state: 'attaching',
      },
      now,
    )
    if (made !== null) {
      creations.push({
        id: pair.id,
        creation: creationOf(pair, drVolume),
        entities: pairEntities(pair),
      })
    }
  }

  const fromSource = group.station === 'source'
  const instance: ProtectedInstanceRow = {
    id,
    project,
    group_id: group.id,
    name: request.name,
    description: request.description,
    status: 'creating',
    source_server: fromSource ? server.id : dr.id,
    target_server: fromSource ? dr.id : server.id,
    spare_port: spare.port,
    failure_detail: null,
    created_at: now,
    updated_at: now,
  }
  await insertInstance(tx, instance)
  if (!(await setTags(tx, { kind: 'instance', project, resource: id }, request.tags))) {
    return refused('TOO_MANY_TAGS')
  }
  const operation = await operations.submit(tx, createInstance, {
    project,
    resourceType: INSTANCE_RESOURCE,
    resourceId: id,
    input: { pairs: creations, station: groupStation(group), drServer: dr.id },
    entities: { ...instanceEntities(instance), native_server_id: dr.id },
    ...(parent === null ? {} : { parent }),
  })
  return { ok: true, instance, operation }
}

/** Everything that speaks against it, in the documented order: what there is, its state, what it depends on, quotas. */
async function judge(
  tx: Transaction,
  request: NewInstanceRequest,
): Promise<Outcome<Found, CreateInstanceRefusal>> {
  const { project } = request
  const group = await findGroup(tx, project, request.group, 'sdrs')
  if (group === undefined) return refused('GROUP_UNKNOWN')
  const server = await findServer(tx, project, request.server)
  if (server === undefined) return refused('SERVER_UNKNOWN')
  if (!GROUP_STATES_FOR_CREATE.has(groupStatus(group))) return refused('GROUP_STATE')
  if (server.instance !== null) return refused('SERVER_PROTECTED')
  if ((server.status !== 'active' && server.status !== 'stopped') || server.task !== null) {
    return refused('SERVER_STATE')
  }
  if (server.az !== productionAz(group)) return refused('SERVER_NOT_IN_PRODUCTION_AZ')
  if (server.vpc !== group.vpc) return refused('SERVER_OTHER_VPC')
  const rows = (await disksOf(tx, [server.id])).get(server.id) ?? []
  if (rows.length === 0) return refused('SERVER_WITHOUT_DISK')
  if (!rows.some((row) => row.boot_index === 0 || row.device === ROOT_DEVICE)) {
    return refused('SERVER_WITHOUT_SYSTEM_DISK')
  }
  const volumes = await readVolumes(
    tx,
    rows.map((row) => row.volume),
  )
  const disks = []
  for (const row of rows) {
    const volume = volumes.get(row.volume)
    assert(volume !== undefined, 'a disk in a server is a volume')
    const refusal = await judgeDisk(tx, group, row, volume)
    if (refusal !== null) return refused(refusal)
    disks.push({ row, volume })
  }
  if (!(await flavorSuits(tx, server, request.flavor ?? server.flavor))) {
    return refused('FLAVOR_UNSUITABLE')
  }
  if (request.subnet !== null) {
    const subnet = await findSubnet(tx, project, request.subnet)
    if (subnet === undefined || subnet.vpc !== group.vpc) return refused('SUBNET_UNKNOWN')
  }
  if ((await instancesOfGroup(tx, group.id)).length >= INSTANCES_PER_GROUP) {
    return refused('GROUP_FULL')
  }
  const more = disks.filter(({ volume }) => volume.pair === null).length
  if ((await pairsOfGroup(tx, group.id)).length + more > PAIRS_OF_GROUP_MAX) {
    return refused('GROUP_FULL')
  }
  const used = await quotaUsed(tx, project, 'replications')
  if (!fits(await quotaLimit(tx, project, 'replications'), used, more)) {
    return refused('QUOTA_PAIRS')
  }
  return { ok: true, group, server, disks }
}

async function judgeDisk(
  tx: Transaction,
  group: ProtectionGroupRow,
  row: ServerDiskRow,
  volume: VolumeRow,
): Promise<CreateInstanceRefusal | null> {
  if (volume.multiattach === 1) return 'DISK_SHARED'
  if (row.state !== 'attached' || volume.status !== 'in-use') return 'DISK_NOT_AVAILABLE'
  if (await isDrillVolume(tx, volume.id)) return 'DISK_OF_DRILL'
  if (volume.pair === null) return null
  // A pair that is left of an earlier instance of this server is used again.
  const pair = await readPair(tx, volume.pair)
  const free =
    pair !== undefined &&
    pair.group_id === group.id &&
    pairAttachments(pair).length === 0 &&
    (pair.status === 'available' || pair.status === 'protected')
  return free ? null : 'DISK_PAIRED'
}

async function theVolume(tx: Transaction, id: string): Promise<VolumeRow> {
  const volume = (await readVolumes(tx, [id])).get(id)
  assert(volume !== undefined, 'a pair has two volumes')
  return volume
}

/** The NIC that the server of the DR site shows while it is not production. */
async function spareFor(
  tx: Transaction,
  request: NewInstanceRequest,
  server: ServerRow,
  dr: ServerRow,
  now: number,
): Promise<Outcome<{ readonly port: string | null }, CreateInstanceRefusal>> {
  const primary = (await portsOf(tx, [server.id])).get(server.id)?.[0]
  const subnet = request.subnet ?? primary?.subnet
  if (subnet === undefined) return { ok: true, port: null }
  const made = await createPort(
    tx,
    {
      project: request.project,
      subnet,
      address: request.subnet === null ? null : request.address,
      server: dr.id,
      place: 0,
      securityGroups: [],
      deleteWithServer: true,
      name: '',
    },
    now,
  )
  if (made.ok) return { ok: true, port: made.port.id }
  assert(made.refusal !== 'GROUP_UNKNOWN', 'the default security group exists')
  return refused(made.refusal)
}
