import { assert } from '#base/assert.ts'
import { newId } from '#base/ids.ts'
import { findImage } from '#control/resources/images.ts'
import { findSnapshot, snapshotStatus, snapshotVolumes } from '#control/resources/snapshots.ts'
import { quotaLimit, quotaUsed } from '#control/resources/surroundings.ts'
import { setTags } from '#control/resources/tags.ts'
import {
  findVolume,
  insertVolume,
  listVolumeTypes,
  readVolume,
} from '#control/resources/volumes.ts'
import type { Transaction } from '#control/store/store.ts'
import type { VolumeRow } from '#control/store/tables/resources.ts'
import { fits } from '#domain/quota.ts'
import type { Tag } from '#domain/tag.ts'
import { DEFAULT_VOLUME_TYPE } from '#domain/volume-type.ts'
import { VOLUME_HAS_DATA } from '#domain/volume.ts'
import { type Outcome, type RequestServices, refused } from '../requests.ts'
import { createFilledVolume, type VolumeSource } from './volume-filling.ts'
import { type AcceptedVolume, VOLUME_RESOURCE } from './volume-requests.ts'
import { createVolume, createVolumes, VOLUME_BATCH } from './volumes.ts'

/* New volumes: empty ones, or with the content of a snapshot, of another volume or of an image. What is checked, and the rows that stand from then on. */

export interface NewVolumeRequest {
  readonly project: string
  readonly user: string
  readonly name: string | null
  readonly description: string | null
  /** null: that of the source. */
  readonly sizeGb: number | null
  /** null: the default. */
  readonly type: string | null
  /** null: that of the source, else the first site. */
  readonly az: string | null
  readonly metadata: Readonly<Record<string, string>>
  readonly multiattach: boolean
  /** What it is filled with; null: zeroes. */
  readonly source: { readonly kind: VolumeSource['kind']; readonly id: string } | null
  /** Checked, see src/domain/tag.ts. Default: none. */
  readonly tags?: readonly Tag[]
}

export interface AcceptedVolumes {
  readonly volumes: readonly AcceptedVolume[]
  /** Ends when all of them have: of one volume its own, of several their parent. */
  readonly operation: string
}

export type CreateVolumeRefusal =
  | 'AZ_UNKNOWN'
  | 'TYPE_UNKNOWN'
  | 'QUOTA_VOLUMES'
  | 'QUOTA_GIGABYTES'
  | 'SIZE_MISSING'
  | SourceRefusal

type SourceRefusal =
  | 'SNAPSHOT_UNKNOWN'
  | 'SNAPSHOT_NOT_AVAILABLE'
  | 'SOURCE_VOLUME_UNKNOWN'
  | 'SOURCE_VOLUME_NOT_READY'
  | 'IMAGE_UNKNOWN'
  | 'SIZE_BELOW_SOURCE'
  | 'SOURCE_OTHER_AZ'

/** What a new volume is filled with, as the operation needs it, and what follows from it. */
interface Content {
  readonly source: VolumeSource | null
  readonly az: string
  readonly sizeGb: number
  readonly bootable: boolean
  readonly image: string | null
  readonly snapshot: string | null
}

/** One volume, or `count` of them with numbered names: all or none. */
export async function requestVolumes(
  services: RequestServices,
  request: NewVolumeRequest,
  count: number,
): Promise<Outcome<AcceptedVolumes, CreateVolumeRefusal>> {
  const { store, operations, clock, sites } = services
  if (request.az !== null && !sites.includes(request.az)) return refused('AZ_UNKNOWN')
  return await store.write(async (tx) => {
    const types = (await listVolumeTypes(tx)).map(({ name }) => name)
    const type = request.type ?? DEFAULT_VOLUME_TYPE
    if (!types.includes(type)) return refused('TYPE_UNKNOWN')
    const content = await contentOf(tx, request, sites[0] ?? '')
    if (typeof content === 'string') return refused(content)
    const { project } = request
    const full = await quotaRefusal(tx, project, count, content.sizeGb)
    if (full !== null) return refused(full)
    const accepted: AcceptedVolume[] = []
    const parent = await batchOf(tx, operations, project, count)
    for (let index = 1; index <= count; index++) {
      const name =
        count === 1 || request.name === null
          ? request.name
          : `${request.name}-${String(index).padStart(4, '0')}`
      const { az, sizeGb, bootable, image, snapshot, source } = content
      const row = { ...request, id: newId(), name, type, az, sizeGb, bootable, image, snapshot }
      const volume = await insertVolume(tx, { ...row, pair: null }, clock.wallMs())
      await setTags(tx, { kind: 'volume', project, resource: volume.id }, request.tags ?? [])
      const submit = {
        project,
        ...(parent === null ? {} : { parent }),
        resourceType: VOLUME_RESOURCE,
        resourceId: volume.id,
        entities: { volume_id: volume.id, volume_type: type, name: name ?? '', size: sizeGb },
      }
      const operation =
        source === null
          ? await operations.submit(tx, createVolume, { ...submit, input: { az, sizeGb } })
          : await operations.submit(tx, createFilledVolume, {
              ...submit,
              input: { az, sizeGb, source },
            })
      accepted.push({ volume, operation })
    }
    const operation = parent ?? accepted[0]?.operation
    assert(operation !== undefined, 'at least one volume is asked for')
    return { ok: true, volumes: accepted, operation }
  })
}

async function quotaRefusal(
  tx: Transaction,
  project: string,
  count: number,
  sizeGb: number,
): Promise<'QUOTA_VOLUMES' | 'QUOTA_GIGABYTES' | null> {
  const volumes = await quotaUsed(tx, project, 'volumes')
  if (!fits(await quotaLimit(tx, project, 'volumes'), volumes, count)) return 'QUOTA_VOLUMES'
  const gigabytes = await quotaUsed(tx, project, 'gigabytes')
  const limit = await quotaLimit(tx, project, 'gigabytes')
  return fits(limit, gigabytes, count * sizeGb) ? null : 'QUOTA_GIGABYTES'
}

/** The operation that several wait under; null: there is only one. */
async function batchOf(
  tx: Transaction,
  operations: RequestServices['operations'],
  project: string,
  count: number,
): Promise<string | null> {
  if (count === 1) return null
  return await operations.submit(tx, createVolumes, {
    project,
    resourceType: VOLUME_BATCH,
    resourceId: newId(),
    input: {},
  })
}

async function contentOf(
  tx: Transaction,
  request: NewVolumeRequest,
  firstSite: string,
): Promise<Content | CreateVolumeRefusal> {
  const { source, project, sizeGb, az } = request
  const none = { image: null, snapshot: null, bootable: false }
  switch (source?.kind) {
    case undefined:
      if (sizeGb === null) return 'SIZE_MISSING'
      return { ...none, source: null, az: az ?? firstSite, sizeGb }
    case 'image': {
      const image = await findImage(tx, source?.id ?? '')
      if (image === undefined) return 'IMAGE_UNKNOWN'
      const size = sizeGb ?? image.min_disk_gb
      if (size < image.min_disk_gb) return 'SIZE_BELOW_SOURCE'
      const from = { kind: 'image', content: image.content } as const
      const made = { bootable: true, image: image.id, snapshot: null }
      return { ...made, source: from, az: az ?? firstSite, sizeGb: size }
    }
    case 'snapshot': {
      const snapshot = await findSnapshot(tx, project, source?.id ?? '')
      const [volume, second] = snapshot === undefined ? [] : snapshotVolumes(snapshot)
      if (snapshot === undefined || volume === undefined || second !== undefined) {
        return 'SNAPSHOT_UNKNOWN'
      }
      if (snapshotStatus(snapshot) !== 'available') return 'SNAPSHOT_NOT_AVAILABLE'
      const of = await readVolume(tx, volume)
      const from = { kind: 'snapshot', snapshot: snapshot.id, volume } as const
      const made = { ...madeFrom(of), snapshot: snapshot.id }
      return fit(request, { ...made, source: from, az: snapshot.site, sizeGb: snapshot.size_gb })
    }
    case 'volume': {
      const volume = await findVolume(tx, project, source?.id ?? '')
      if (volume === undefined) return 'SOURCE_VOLUME_UNKNOWN'
      if (!VOLUME_HAS_DATA.has(volume.status)) return 'SOURCE_VOLUME_NOT_READY'
      const from = { kind: 'volume', volume: volume.id } as const
      const made = { ...madeFrom(volume), snapshot: null }
      return fit(request, { ...made, source: from, az: volume.az, sizeGb: volume.size_gb })
    }
  }
}

/** A copy boots when the original does, and is of the same image. */
const madeFrom = (volume: VolumeRow | undefined) => ({
  bootable: volume?.bootable === 1,
  image: volume?.image ?? null,
})

function fit({ sizeGb, az }: NewVolumeRequest, found: Content): Content | CreateVolumeRefusal {
  if (az !== null && az !== found.az) return 'SOURCE_OTHER_AZ'
  if (sizeGb !== null && sizeGb < found.sizeGb) return 'SIZE_BELOW_SOURCE'
  return { ...found, sizeGb: sizeGb ?? found.sizeGb }
}
