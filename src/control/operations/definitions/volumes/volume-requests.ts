import { newId } from '#base/ids.ts'
import { toJson } from '#control/store/json.ts'
import { quotaLimit, quotaUsed } from '#control/resources/surroundings.ts'
import {
  type Attachment,
  attachmentsOf,
  findVolume,
  listVolumeTypes,
  metadataOf,
  moveVolume,
  updateVolume,
  volumeFacts,
} from '#control/resources/volumes.ts'
import { readServer, serversOfVolume } from '#control/resources/servers.ts'
import { orderLimit } from '#control/resources/volume-limits.ts'
import type { Transaction } from '#control/store/store.ts'
import type { VolumeRow } from '#control/store/tables/resources.ts'
import { fits } from '#domain/quota.ts'
import { decideVolume, type VolumeRefusal } from '#domain/volume.ts'
import { mayRetype } from '#domain/volume-type.ts'
import { type Outcome, type RequestServices, refused } from '../requests.ts'
import { isWritable } from '../servers/server-volumes.ts'
import { deleteVolume, extendVolume, limitVolume, retypeVolume } from './volumes.ts'

export const VOLUME_RESOURCE = 'volume'

export interface AcceptedVolume {
  readonly volume: VolumeRow
  readonly operation: string
}

export type VolumeRequestRefusal =
  | 'VOLUME_UNKNOWN'
  | 'QUOTA_GIGABYTES'
  | 'SERVER_STATE'
  | VolumeRefusal

export async function requestVolumeDeletion(
  services: RequestServices,
  project: string,
  id: string,
): Promise<Outcome<AcceptedVolume, VolumeRequestRefusal>> {
  const { store, operations, clock } = services
  return await store.write(async (tx) => {
    const volume = await findVolume(tx, project, id)
    if (volume === undefined) return refused('VOLUME_UNKNOWN')
    const decision = decideVolume(volumeFacts(volume), { kind: 'delete' })
    if (!decision.ok) return decision
    await moveVolume(tx, id, 'deleting', clock.wallMs())
    const operation = await operations.submit(tx, deleteVolume, {
      project,
      resourceType: VOLUME_RESOURCE,
      resourceId: id,
      input: { az: volume.az },
      entities: {
        volume_id: id,
        volume_type: volume.volume_type,
        name: volume.name ?? '',
        size: volume.size_gb,
      },
    })
    return { ok: true, volume, operation }
  })
}

export async function requestVolumeExtension(
  services: RequestServices,
  project: string,
  id: string,
  newSizeGb: number,
): Promise<Outcome<AcceptedVolume, VolumeRequestRefusal>> {
  const { store, operations, clock } = services
  return await store.write(async (tx) => {
    const volume = await findVolume(tx, project, id)
    if (volume === undefined) return refused('VOLUME_UNKNOWN')
    const decision = decideVolume(volumeFacts(volume), { kind: 'extend', newSizeGb })
    if (!decision.ok) return decision
    if (!(await serversAreSettled(tx, id))) return refused('SERVER_STATE')
    const used = await quotaUsed(tx, project, 'gigabytes')
    const limit = await quotaLimit(tx, project, 'gigabytes')
    if (!fits(limit, used, newSizeGb - volume.size_gb)) return refused('QUOTA_GIGABYTES')
    await moveVolume(tx, id, 'extending', clock.wallMs())
    const operation = await operations.submit(tx, extendVolume, {
      project,
      resourceType: VOLUME_RESOURCE,
      resourceId: id,
      input: { az: volume.az, newSizeGb },
      entities: {
        volume_id: id,
        volume_type: volume.volume_type,
        name: volume.name ?? '',
        size: newSizeGb,
      },
    })
    return { ok: true, volume, operation }
  })
}

/** A disk does not grow under a server that is being made, or of which nobody knows what it does. */
export async function serversAreSettled(tx: Transaction, volume: string): Promise<boolean> {
  for (const { server } of await serversOfVolume(tx, volume)) {
    const row = await readServer(tx, server)
    if (row?.status === 'building' || row?.status === 'error') return false
  }
  return true
}

export type RetypeRefusal = VolumeRequestRefusal | 'TYPE_UNKNOWN' | 'TYPE_NOT_HIGHER'

/** Moves a volume to a higher type while it is used. What its clients may do changes with it, as soon as its site knows. */
export async function requestRetype(
  services: RequestServices,
  project: string,
  id: string,
  type: string,
): Promise<Outcome<AcceptedVolume, RetypeRefusal>> {
  const { store, operations, clock } = services
  return await store.write(async (tx) => {
    const volume = await findVolume(tx, project, id)
    if (volume === undefined) return refused('VOLUME_UNKNOWN')
    const decision = decideVolume(volumeFacts(volume), { kind: 'retype' })
    if (!decision.ok) return decision
    const types = await listVolumeTypes(tx)
    const to = types.find((one) => one.name === type || one.id === type)?.name
    if (to === undefined) return refused('TYPE_UNKNOWN')
    const from = volume.volume_type
    if (!mayRetype(from, to)) return refused('TYPE_NOT_HIGHER')
    await updateVolume(tx, id, { volume_type: to }, clock.wallMs())
    const operation = await operations.submit(tx, retypeVolume, {
      project,
      resourceType: VOLUME_RESOURCE,
      resourceId: id,
      input: { from, to },
      entities: {
        volume_id: id,
        volume_type: to,
        name: volume.name ?? '',
        size: volume.size_gb,
      },
    })
    return { ok: true, volume, operation }
  })
}

/** Whether clients may change the volume. In force as soon as its site knows; refused for one side of a pair, which the other would not know of. */
export async function requestReadOnly(
  services: RequestServices,
  project: string,
  id: string,
  readOnly: boolean,
): Promise<Outcome<AcceptedVolume, VolumeRequestRefusal>> {
  const { store, operations, clock } = services
  return await store.write(async (tx) => {
    const volume = await findVolume(tx, project, id)
    if (volume === undefined) return refused('VOLUME_UNKNOWN')
    if (volume.pair !== null) return refused('VOLUME_PAIRED')
    const now = clock.wallMs()
    await orderLimit(tx, volume, now, readOnly)
    const metadata = { ...metadataOf(volume), readonly: readOnly ? 'True' : 'False' }
    await updateVolume(tx, id, { metadata: toJson(metadata) }, now)
    const operation = await operations.submit(tx, limitVolume, {
      project,
      resourceType: VOLUME_RESOURCE,
      resourceId: id,
      input: {},
      entities: { volume_id: id },
    })
    return { ok: true, volume, operation }
  })
}

export interface VolumeChange {
  readonly name?: string | null
  readonly description?: string | null
  /** Null removes a key; keys that are not named stay. */
  readonly metadata?: Readonly<Record<string, string | null>>
  readonly bootable?: boolean
}

/** Renames and the like: done at once. */
export async function changeVolume(
  services: RequestServices,
  project: string,
  id: string,
  change: VolumeChange,
): Promise<Outcome<{ readonly volume: VolumeRow }, 'VOLUME_UNKNOWN'>> {
  return await services.store.write(async (tx) => {
    const before = await findVolume(tx, project, id)
    if (before === undefined) return refused('VOLUME_UNKNOWN')
    const { name, description, metadata, bootable } = change
    await updateVolume(
      tx,
      id,
      {
        ...(name === undefined ? {} : { name }),
        ...(description === undefined ? {} : { description }),
        ...(metadata === undefined
          ? {}
          : { metadata: toJson(mergeMetadata(metadataOf(before), metadata)) }),
        ...(bootable === undefined ? {} : { bootable: bootable ? (1 as const) : (0 as const) }),
      },
      services.clock.wallMs(),
    )
    const volume = await findVolume(tx, project, id)
    return volume === undefined ? refused('VOLUME_UNKNOWN') : { ok: true, volume }
  })
}

function mergeMetadata(
  before: Readonly<Record<string, string>>,
  change: Readonly<Record<string, string | null>>,
): Record<string, string> {
  const merged = Object.entries({ ...before, ...change })
  return Object.fromEntries(merged.filter((entry): entry is [string, string] => entry[1] !== null))
}

/** A server announces that it will use the volume, or that it will not after all. */
export async function reserveVolume(
  services: RequestServices,
  project: string,
  id: string,
  kind: 'reserve' | 'unreserve',
): Promise<Outcome<object, VolumeRequestRefusal>> {
  return await services.store.write(async (tx) => {
    const volume = await findVolume(tx, project, id)
    if (volume === undefined) return refused('VOLUME_UNKNOWN')
    if (kind === 'reserve' && !(await isWritable(tx, volume))) return refused('VOLUME_PAIRED')
    const decision = decideVolume(volumeFacts(volume), { kind })
    if (!decision.ok) return decision
    if (kind === 'unreserve' && (await isInServer(tx, id))) return refused('VOLUME_ATTACH_STATE')
    if (decision.via !== null) await moveVolume(tx, id, decision.via, services.clock.wallMs())
    return { ok: true }
  })
}

/** One of our servers has it, gets it, or gives it back. */
const isInServer = async (tx: Transaction, volume: string): Promise<boolean> =>
  (await serversOfVolume(tx, volume)).length > 0

/** Records that a server elsewhere uses the volume. Nothing happens at the site: clients find the export by its id. */
export async function attachVolume(
  services: RequestServices,
  project: string,
  id: string,
  attachment: Omit<Attachment, 'id' | 'at'>,
): Promise<Outcome<object, VolumeRequestRefusal>> {
  const { store, clock } = services
  return await store.write(async (tx) => {
    const volume = await findVolume(tx, project, id)
    if (volume === undefined) return refused('VOLUME_UNKNOWN')
    // Nobody can open the DR disk of a pair.
    if (!(await isWritable(tx, volume))) return refused('VOLUME_PAIRED')
    const decision = decideVolume(volumeFacts(volume), { kind: 'attach' })
    if (!decision.ok) return decision
    // Our own servers get disks from their own requests, which tell the guest.
    const ours = (await readServer(tx, attachment.server)) !== undefined
    if (ours || (volume.multiattach !== 1 && (await isInServer(tx, id)))) {
      return refused('VOLUME_ATTACH_STATE')
    }
    const attachments = [
      ...attachmentsOf(volume),
      { ...attachment, id: newId(), at: clock.wallMs() },
    ]
    await updateVolume(
      tx,
      id,
      { attachments: toJson(attachments), status: 'in-use' },
      clock.wallMs(),
    )
    return { ok: true }
  })
}

/** Forgets one attachment, or all of them when none is named. */
export async function detachVolume(
  services: RequestServices,
  project: string,
  id: string,
  attachment: string | null,
): Promise<Outcome<object, VolumeRequestRefusal>> {
  const { store, clock } = services
  return await store.write(async (tx) => {
    const volume = await findVolume(tx, project, id)
    if (volume === undefined) return refused('VOLUME_UNKNOWN')
    const decision = decideVolume(volumeFacts(volume), { kind: 'detach' })
    if (!decision.ok) return decision
    const all = attachmentsOf(volume)
    const left = attachment === null ? [] : all.filter((one) => one.id !== attachment)
    if (left.length === all.length) return refused('VOLUME_NOT_ATTACHED')
    const disks = await serversOfVolume(tx, id)
    if (disks.some(({ server }) => !left.some((one) => one.server === server))) {
      return refused('VOLUME_ATTACH_STATE')
    }
    const status = left.length > 0 ? 'in-use' : 'available'
    await updateVolume(tx, id, { attachments: toJson(left), status }, clock.wallMs())
    return { ok: true }
  })
}
