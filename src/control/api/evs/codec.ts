import { attachmentsOf, metadataOf } from '#control/resources/volumes.ts'
import type { VolumeRow, VolumeTypeRow } from '#control/store/tables/resources.ts'
import type { Tag } from '#domain/tag.ts'

/** From rows to the API's objects. The API's own words stop here. */

/** `2024-01-02T03:04:05.123456`, UTC; a zone suffix breaks typed clients. */
export const evsTime = (ms: number): string => `${new Date(ms).toISOString().slice(0, 23)}000`

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
export const isVolumeId = (value: unknown): value is string =>
  typeof value === 'string' && UUID.test(value)

/** What links are made of. */
export interface LinkBase {
  readonly origin: string
  /** `v2` or `v3`: the version under which the caller came. */
  readonly version: string
  readonly project: string
}

const links = (base: LinkBase, id: string) => [
  { href: `${base.origin}/${base.version}/${base.project}/volumes/${id}`, rel: 'self' },
  { href: `${base.origin}/${base.project}/volumes/${id}`, rel: 'bookmark' },
]

export const volumeSummary = (row: VolumeRow, base: LinkBase) => ({
  id: row.id,
  links: links(base, row.id),
  name: row.name,
})

/** As answered to creation and update: without the extension attributes. */
export const volumeCreated = (row: VolumeRow, base: LinkBase) => ({
  id: row.id,
  links: links(base, row.id),
  name: row.name,
  status: row.status,
  attachments: attachmentsOf(row).map((one) => ({
    server_id: one.server,
    attachment_id: one.id,
    attached_at: evsTime(one.at),
    host_name: one.host,
    volume_id: row.id,
    device: one.device,
    id: row.id,
  })),
  availability_zone: row.az,
  source_volid: null,
  snapshot_id: row.snapshot,
  description: row.description,
  created_at: evsTime(row.created_at),
  updated_at: evsTime(row.updated_at),
  volume_type: row.volume_type,
  size: row.size_gb,
  bootable: row.bootable === 1 ? 'true' : 'false',
  encrypted: false,
  metadata: metadataOf(row),
  multiattach: row.multiattach === 1,
  shareable: row.multiattach === 1,
  user_id: row.user_id,
  replication_status: 'disabled',
  consistencygroup_id: null,
  storage_cluster_id: null,
})

export const volumeDetail = (row: VolumeRow, base: LinkBase) => ({
  ...volumeCreated(row, base),
  volume_image_metadata: row.image === null ? {} : { image_id: row.image },
  'os-vol-tenant-attr:tenant_id': row.project,
  'os-vol-host-attr:host': `${row.az}#${row.volume_type}`,
  'os-vol-mig-status-attr:migstat': null,
  'os-vol-mig-status-attr:name_id': null,
  'os-volume-replication:extended_status': null,
  'os-volume-replication:driver_data': null,
})

export const nativeVolume = (row: VolumeRow, base: LinkBase, tags: readonly Tag[]) => ({
  ...volumeDetail(row, base),
  service_type: 'EVS',
  tags: Object.fromEntries(tags.map(({ key, value }) => [key, value])),
  wwn: null,
  enterprise_project_id: null,
  serial_number: null,
  dedicated_storage_id: null,
  dedicated_storage_name: null,
})

export const typeObject = (row: VolumeTypeRow, sites: readonly string[]) => ({
  id: row.id,
  name: row.name,
  description: row.description,
  qos_specs_id: null,
  is_public: true,
  extra_specs: {
    volume_backend_name: row.name,
    'availability-zone': sites.join(','),
    'RESKEY:availability_zones': sites.join(','),
  },
})
