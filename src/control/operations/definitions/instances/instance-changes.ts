import { assert } from '#base/assert.ts'
import { toJson } from '#control/store/json.ts'
import {
  findPair,
  findPairOf,
  movePair,
  pairStatus,
  updatePair,
  volumeAt,
} from '#control/resources/groups.ts'
import {
  drServer,
  findInstance,
  moveInstance,
  type PairAttachment,
  pairAttachments,
  productionServer,
  updateInstance,
} from '#control/resources/instances.ts'
import {
  createPort,
  findPort,
  findSubnet,
  movePort,
  portsOf,
  updatePort,
} from '#control/resources/networks.ts'
import {
  disksOf,
  putDiskIn,
  readServer,
  setDiskState,
  updateServer,
} from '#control/resources/servers.ts'
import { deleteTags, setTags } from '#control/resources/tags.ts'
import { readVolume } from '#control/resources/volumes.ts'
import type { Transaction } from '#control/store/store.ts'
import type { ProtectionGroupRow, ReplicationPairRow } from '#control/store/tables/resources.ts'
import type { ProtectedInstanceRow, ServerRow } from '#control/store/tables/servers.ts'
import {
  decideInstance,
  type InstanceCommandKind,
  type InstanceRefusal,
} from '#domain/protected-instance.ts'
import type { PairStatus } from '#domain/replication-pair.ts'
import { normaliseDevice, ROOT_DEVICE } from '#domain/server-disks.ts'
import type { Tag } from '#domain/tag.ts'
import { DISKS_MAX, NICS_MAX } from '#wire/site/servers.ts'
import { attachPair, detachPair } from './instance-disks.ts'
import { flavorSuits, instanceFacts, isOff, powerBook } from './instance-facts.ts'
import { addNic, deleteNic, resizeInstance } from './instance-nics.ts'
import { INSTANCE_RESOURCE, instanceEntities } from './instances.ts'
import { type Outcome, type RequestServices, refused } from '../requests.ts'
import { raiseGeneration } from '../servers/server-definition.ts'

/* What happens to a protected instance between its beginning and its end: disks and NICs that come and go, flavors, tags, its name. */

interface Ready {
  readonly instance: ProtectedInstanceRow
  readonly group: ProtectionGroupRow
  /** The two servers by their role now; undefined: gone. */
  readonly production: ServerRow | undefined
  readonly dr: ServerRow | undefined
}

/** Looks the instance up and judges what its own state and its group's say. */
async function ready(
  tx: Transaction,
  project: string,
  id: string,
  kind: Exclude<InstanceCommandKind, 'delete'>,
): Promise<Outcome<Ready, 'INSTANCE_UNKNOWN' | InstanceRefusal>> {
  const instance = await findInstance(tx, project, id)
  if (instance === undefined) return refused('INSTANCE_UNKNOWN')
  const { facts, group } = await instanceFacts(tx, instance)
  const decision = decideInstance(facts, { kind })
  if (!decision.ok) return decision
  return {
    ok: true,
    instance,
    group,
    production: await readServer(tx, productionServer(group, instance)),
    dr: await readServer(tx, drServer(group, instance)),
  }
}

export interface AcceptedChange {
  readonly operation: string
}

// ---------------------------------------------------------------- disks

export type AttachPairRefusal =
  | 'INSTANCE_UNKNOWN'
  | InstanceRefusal
  | 'PAIR_UNKNOWN'
  | 'PAIR_STATE'
  | 'PAIR_OTHER_GROUP'
  | 'PAIR_ATTACHED'
  | 'DEVICE_WRONG'
  | 'DEVICE_TAKEN'
  | 'TOO_MANY_DISKS'
  | 'DISK_NOT_AVAILABLE'
  | 'SERVER_BUSY'

export async function requestPairAttachment(
  services: RequestServices,
  project: string,
  id: string,
  wanted: { readonly pair: string; readonly device: string },
): Promise<Outcome<AcceptedChange, AttachPairRefusal>> {
  const { store, operations, clock } = services
  return await store.write(async (tx) => {
    const instance = await findInstance(tx, project, id)
    if (instance === undefined) return refused('INSTANCE_UNKNOWN')
    const pair = (await findPairOf(tx, project, wanted.pair, ['sdrs']))?.pair
    if (pair === undefined) return refused('PAIR_UNKNOWN')
    const device = normaliseDevice(wanted.device)
    if (device === null) return refused('DEVICE_WRONG')
    const found = await ready(tx, project, id, 'attach')
    if (!found.ok) return found
    const { group, production, dr } = found
    const refusal = await judgeAttachment(tx, found, pair, device)
    if (refusal !== null) return refused(refusal)
    assert(production !== undefined && dr !== undefined, 'an instance that is well has two servers')
    const now = clock.wallMs()
    const attachments: PairAttachment[] = [...pairAttachments(pair), { instance: id, device }]
    await updatePair(tx, pair.id, { attachments: toJson(attachments) }, now)
    await movePair(tx, pair.id, 'attaching', now)
    for (const server of [production, dr]) {
      const volume = await readVolume(tx, volumeAt(group, pair, server.az))
      assert(volume !== undefined, 'a pair has two volumes')
      await putDiskIn(
        tx,
        { server, volume, device, bootIndex: null, deleteWithServer: false, state: 'attaching' },
        now,
      )
      await raiseGeneration(tx, server.id)
    }
    const operation = await operations.submit(tx, attachPair, {
      project,
      resourceType: INSTANCE_RESOURCE,
      resourceId: id,
      input: { pair: pair.id },
      entities: { ...instanceEntities(instance), replication_pair_id: pair.id },
    })
    return { ok: true, operation }
  })
}

async function judgeAttachment(
  tx: Transaction,
  { instance, group, production, dr }: Ready,
  pair: ReplicationPairRow,
  device: string,
): Promise<AttachPairRefusal | null> {
  if (pair.group_id !== instance.group_id) return 'PAIR_OTHER_GROUP'
  if (pair.status !== 'available' && pair.status !== 'protected') return 'PAIR_STATE'
  if (production === undefined || dr === undefined) return 'INSTANCE_STATE'
  const volume = await readVolume(tx, volumeAt(group, pair, production.az))
  assert(volume !== undefined, 'a pair has two volumes')
  const attachments = pairAttachments(pair)
  const again = attachments.some((one) => one.instance === instance.id)
  if (again || (attachments.length > 0 && volume.multiattach === 0)) return 'PAIR_ATTACHED'
  const shared = volume.multiattach === 1 && volume.status === 'in-use'
  if (volume.status !== 'available' && !shared) return 'DISK_NOT_AVAILABLE'
  if (production.task !== null || !STEADY.has(production.status)) return 'SERVER_BUSY'
  for (const disks of (await disksOf(tx, [production.id, dr.id])).values()) {
    if (disks.some((disk) => disk.device === device)) return 'DEVICE_TAKEN'
    if (disks.length >= DISKS_MAX) return 'TOO_MANY_DISKS'
  }
  return null
}

const STEADY: ReadonlySet<string> = new Set(['active', 'stopped'])

export type DetachPairRefusal =
  | 'INSTANCE_UNKNOWN'
  | InstanceRefusal
  | 'PAIR_UNKNOWN'
  | 'PAIR_NOT_ATTACHED'
  | 'PAIR_STATE'
  | 'SYSTEM_DISK_IN_USE'

/** States of a pair that it may be detached in. */
const DETACH_FROM: ReadonlySet<PairStatus> = new Set([
  'available',
  'protected',
  'failed-over',
  'error-attaching',
  'error-detaching',
  'error-starting',
  'error-stopping',
  'error-reversing',
  'error-failing-over',
  'error-deleting',
  'error-reprotecting',
  'error-extending',
  'invalid',
  'fault',
])

export async function requestPairDetachment(
  services: RequestServices,
  project: string,
  id: string,
  pairId: string,
): Promise<Outcome<AcceptedChange, DetachPairRefusal>> {
  const { store, operations, clock } = services
  return await store.write(async (tx) => {
    const instance = await findInstance(tx, project, id)
    if (instance === undefined) return refused('INSTANCE_UNKNOWN')
    const pair = await findPair(tx, project, pairId)
    if (pair === undefined) return refused('PAIR_UNKNOWN')
    const attachment = pairAttachments(pair).find((one) => one.instance === id)
    if (attachment === undefined) return refused('PAIR_NOT_ATTACHED')
    const found = await ready(tx, project, id, 'detach')
    if (!found.ok) return found
    const { group, production, dr } = found
    if (!DETACH_FROM.has(pairStatus(pair))) return refused('PAIR_STATE')
    const power = powerBook(services)
    if (
      attachment.device === ROOT_DEVICE &&
      production !== undefined &&
      !isOff(production, power(production))
    ) {
      return refused('SYSTEM_DISK_IN_USE')
    }
    const now = clock.wallMs()
    await movePair(tx, pair.id, 'detaching', now)
    for (const server of [production, dr]) {
      if (server === undefined) continue
      await setDiskState(tx, server.id, volumeAt(group, pair, server.az), 'detaching', now)
      await raiseGeneration(tx, server.id)
    }
    const operation = await operations.submit(tx, detachPair, {
      project,
      resourceType: INSTANCE_RESOURCE,
      resourceId: id,
      input: { pair: pair.id },
      entities: { ...instanceEntities(instance), replication_pair_id: pair.id },
    })
    return { ok: true, operation }
  })
}

// ---------------------------------------------------------------- NICs

export type AddNicRefusal =
  | 'INSTANCE_UNKNOWN'
  | InstanceRefusal
  | 'SUBNET_UNKNOWN'
  | 'SUBNET_FULL'
  | 'ADDRESS_OUTSIDE'
  | 'ADDRESS_TAKEN'
  | 'GROUP_UNKNOWN'
  | 'TOO_MANY_NICS'

export interface NewNic {
  readonly subnet: string
  readonly address: string | null
  readonly securityGroups: readonly string[]
}

export async function requestNic(
  services: RequestServices,
  project: string,
  id: string,
  nic: NewNic,
): Promise<Outcome<AcceptedChange & { readonly port: string }, AddNicRefusal>> {
  const { store, operations, clock } = services
  return await store.write(async (tx) => {
    const found = await ready(tx, project, id, 'add-nic')
    if (!found.ok) return found
    const { instance, group, production } = found
    if (production === undefined) return refused('INSTANCE_NIC_STATE')
    const subnet = await findSubnet(tx, project, nic.subnet)
    if (subnet === undefined || subnet.vpc !== group.vpc) return refused('SUBNET_UNKNOWN')
    const ports = (await portsOf(tx, [production.id])).get(production.id) ?? []
    if (ports.length >= NICS_MAX) return refused('TOO_MANY_NICS')
    const place = Math.max(-1, ...ports.map((port) => port.place)) + 1
    const now = clock.wallMs()
    const made = await createPort(
      tx,
      {
        project,
        subnet: subnet.id,
        address: nic.address,
        server: production.id,
        place,
        securityGroups: nic.securityGroups,
        deleteWithServer: true,
        name: '',
      },
      now,
    )
    if (!made.ok) return refused(made.refusal === 'QUOTA_PORTS' ? 'TOO_MANY_NICS' : made.refusal)
    await raiseGeneration(tx, production.id)
    await moveInstance(tx, id, 'nic-creating', now)
    const operation = await operations.submit(tx, addNic, {
      project,
      resourceType: INSTANCE_RESOURCE,
      resourceId: id,
      input: { port: made.port.id, place, callers: false },
      entities: { ...instanceEntities(instance), nic_id: made.port.id },
    })
    return { ok: true, operation, port: made.port.id }
  })
}

export type DeleteNicRefusal = 'INSTANCE_UNKNOWN' | InstanceRefusal | 'NIC_UNKNOWN' | 'NIC_PRIMARY'

export async function requestNicDeletion(
  services: RequestServices,
  project: string,
  id: string,
  portId: string,
): Promise<Outcome<AcceptedChange, DeleteNicRefusal>> {
  const { store, operations, clock } = services
  return await store.write(async (tx) => {
    const found = await ready(tx, project, id, 'delete-nic')
    if (!found.ok) return found
    const { instance, production } = found
    const port = await findPort(tx, project, portId)
    if (production === undefined || port === undefined || port.server !== production.id) {
      return refused('NIC_UNKNOWN')
    }
    const [primary] = (await portsOf(tx, [production.id])).get(production.id) ?? []
    if (primary?.id === port.id) return refused('NIC_PRIMARY')
    // The row keeps the address until the guest has released the NIC.
    await movePort(tx, port.id, null, port.place)
    // Nobody else takes it meanwhile.
    await updatePort(tx, port.id, { deleteWithServer: true })
    await raiseGeneration(tx, production.id)
    await moveInstance(tx, id, 'nic-deleting', clock.wallMs())
    const operation = await operations.submit(tx, deleteNic, {
      project,
      resourceType: INSTANCE_RESOURCE,
      resourceId: id,
      input: { port: port.id, place: port.place, callers: port.delete_with_server === 0 },
      entities: { ...instanceEntities(instance), nic_id: port.id },
    })
    return { ok: true, operation }
  })
}

// ---------------------------------------------------------------- flavors

export interface NewFlavors {
  /** Null: as it is. */
  readonly production: string | null
  readonly dr: string | null
}

export type ResizeRefusal =
  | 'INSTANCE_UNKNOWN'
  | InstanceRefusal
  | 'PRODUCTION_FLAVOR_UNSUITABLE'
  | 'DR_FLAVOR_UNSUITABLE'
  | 'SERVER_RUNS'
  | 'FLAVOR_SAME'

export async function requestInstanceResize(
  services: RequestServices,
  project: string,
  id: string,
  wanted: NewFlavors,
): Promise<Outcome<AcceptedChange, ResizeRefusal>> {
  const { store, operations, clock } = services
  return await store.write(async (tx) => {
    const found = await ready(tx, project, id, 'resize')
    if (!found.ok) return found
    const { instance, production, dr } = found
    const suits = async (server: ServerRow | undefined, flavor: string | null) =>
      flavor === null || (await flavorSuits(tx, server ?? { image: null }, flavor))
    if (!(await suits(production, wanted.production)))
      return refused('PRODUCTION_FLAVOR_UNSUITABLE')
    if (!(await suits(dr, wanted.dr))) return refused('DR_FLAVOR_UNSUITABLE')
    const power = powerBook(services)
    const flavors: { server: string; flavor: string }[] = []
    for (const [server, flavor] of [
      [production, wanted.production],
      [dr, wanted.dr],
    ] as const) {
      if (flavor === null) continue
      if (server === undefined) return refused('INSTANCE_STATE')
      if (!isOff(server, power(server))) return refused('SERVER_RUNS')
      if (server.flavor !== flavor) flavors.push({ server: server.id, flavor })
    }
    if (flavors.length === 0) return refused('FLAVOR_SAME')
    const now = clock.wallMs()
    // Nobody starts them meanwhile.
    for (const { server } of flavors) await updateServer(tx, server, { task: 'resizing' }, now)
    await moveInstance(tx, id, 'resizing', now)
    const operation = await operations.submit(tx, resizeInstance, {
      project,
      resourceType: INSTANCE_RESOURCE,
      resourceId: id,
      input: { flavors },
      entities: instanceEntities(instance),
    })
    return { ok: true, operation }
  })
}

// ---------------------------------------------------------------- name and tags

export async function renameInstance(
  services: RequestServices,
  project: string,
  id: string,
  name: string,
): Promise<Outcome<object, 'INSTANCE_UNKNOWN'>> {
  return await services.store.write(async (tx) => {
    if ((await findInstance(tx, project, id)) === undefined) return refused('INSTANCE_UNKNOWN')
    await updateInstance(tx, id, { name }, services.clock.wallMs())
    return { ok: true }
  })
}

export type TagRefusal = 'INSTANCE_UNKNOWN' | InstanceRefusal | 'TOO_MANY_TAGS' | 'TAG_UNKNOWN'

export async function addInstanceTags(
  services: RequestServices,
  project: string,
  id: string,
  tags: readonly Tag[],
): Promise<Outcome<object, TagRefusal>> {
  return await services.store.write(async (tx) => {
    const found = await ready(tx, project, id, 'add-tags')
    if (!found.ok) return found
    const fit = await setTags(tx, { kind: 'instance', project, resource: id }, tags)
    return fit ? { ok: true } : refused('TOO_MANY_TAGS')
  })
}

/** `strict`: refuses when one of the keys is not there. */
export async function removeInstanceTags(
  services: RequestServices,
  project: string,
  id: string,
  keys: readonly string[],
  strict: boolean,
): Promise<Outcome<object, TagRefusal>> {
  return await services.store.write(async (tx) => {
    const found = await ready(tx, project, id, 'delete-tags')
    if (!found.ok) return found
    const deleted = await deleteTags(tx, { kind: 'instance', project, resource: id }, keys)
    return strict && deleted === 0 ? refused('TAG_UNKNOWN') : { ok: true }
  })
}
