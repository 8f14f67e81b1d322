import { fromJson } from '#control/store/json.ts'
import type {
  CheckpointItemRow,
  CheckpointRow,
  DiskBackupRow,
  ReplicationRecordRow,
  RestoreRow,
} from '#control/store/tables/checkpoints.ts'
import { diskBackupsOf, recordsOf } from '#control/resources/checkpoints.ts'
import { tagsByResourceIn } from '#control/resources/tags.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { Tag } from '#domain/tag.ts'
import { naiveOrNull, naiveTime } from './times.ts'

/* Backups as both dialects show them. Strictly typed clients read these: whole numbers stay whole, texts are texts and not null, times have no zone. */

/** Digits as text, for a client that reads nothing else; the words go into the description. */
const FAIL_CODE = '9999'

export interface ItemSurroundings {
  readonly region: string
  readonly disks: readonly DiskBackupRow[]
  readonly records: readonly ReplicationRecordRow[]
  readonly tags: readonly Tag[]
}

export function itemObject(row: CheckpointItemRow, around: ItemSurroundings) {
  const { fail_op, fail_code, fail_reason } = row
  return {
    id: row.id,
    checkpoint_id: row.checkpoint,
    name: row.name,
    description: row.description ?? '',
    status: row.status,
    resource_id: row.resource,
    resource_type: row.resource_type,
    created_at: naiveTime(row.created_at),
    updated_at: naiveTime(row.updated_at),
    protected_at: naiveOrNull(row.taken_at),
    expired_at: naiveOrNull(row.expires_at),
    periodic_type: row.periodic_type,
    progress: row.progress,
    extend_info: {
      auto_trigger: row.scheduled === 1,
      average_speed: row.average_speed,
      copy_from: row.copy_from ?? '',
      copy_status: row.copy_status,
      fail_code: fail_code === null ? {} : { Code: FAIL_CODE, Description: fail_code },
      fail_op: fail_op ?? '',
      fail_reason: fail_reason ?? '',
      finished_at: naiveOrNull(row.finished_at),
      hypervisor_type: 'QEMU',
      image_type: row.replica === 1 ? 'replication' : 'backup',
      incremental: row.incremental === 1,
      os_images_data: fromJson<string[]>(row.images).map((image_id) => ({ image_id })),
      progress: row.progress,
      resource_az: row.resource_az,
      resource_name: row.resource_name,
      resource_type: row.resource_type,
      size: row.size_mb,
      space_saving_ratio: row.space_saving,
      // Not published; unknown members are passed over by every client.
      stall_ms: row.stall_us === null ? null : row.stall_us / 1_000,
      support_lld: false,
      supported_restore_mode: row.replica === 1 ? 'na' : 'backup',
      taskid: row.operation,
      volume_backups: around.disks.map((disk) => diskObject(disk, row)),
    },
    backup_data: fromJson<Record<string, unknown>>(row.backup_data),
    tags: [...around.tags],
    replication_records: around.records.map((record) => recordObject(record, around.region)),
  }
}

function diskObject(disk: DiskBackupRow, item: CheckpointItemRow) {
  return {
    id: disk.id,
    name: disk.name,
    status: item.status,
    image_type: item.replica === 1 ? 'replication' : 'backup',
    incremental: disk.incremental === 1,
    bootable: disk.system === 1,
    snapshot_id: '',
    size: disk.size_mb,
    average_speed: disk.average_speed,
    space_saving_ratio: disk.space_saving,
    source_volume_id: disk.volume,
    source_volume_name: disk.volume_name ?? '',
    source_volume_size: disk.size_gb,
  }
}

export function recordObject(row: ReplicationRecordRow, region: string) {
  return {
    id: row.id,
    status: row.status,
    source_region: region,
    source_project_id: row.project,
    source_checkpoint_id: row.checkpoint,
    source_checkpoint_item_id: row.item,
    destination_region: row.destination_region,
    destination_project_id: row.destination_project,
    destination_checkpoint_id: row.destination_checkpoint,
    destination_checkpoint_item_id: row.destination_item,
    plan_id: row.policy,
    created_at: naiveTime(row.created_at),
    extra_info: {
      progress: row.progress,
      fail_code: row.fail_code ?? '',
      fail_reason: row.fail_reason ?? '',
      auto_trigger: row.scheduled === 1,
    },
  }
}

/** With everything that is shown of them, in their order. */
export async function itemObjects(
  db: Queries | Transaction,
  region: string,
  rows: readonly CheckpointItemRow[],
) {
  const ids = rows.map(({ id }) => id)
  const [disks, records, tags] = await Promise.all([
    diskBackupsOf(db, ids),
    recordsOf(db, ids),
    tagsByResourceIn(db, 'backup', ids),
  ])
  return rows.map((row) =>
    itemObject(row, {
      region,
      disks: disks.get(row.id) ?? [],
      records: records.get(row.id) ?? [],
      tags: tags.get(row.id) ?? [],
    }),
  )
}

export interface PlanSnapshot {
  readonly id: string
  readonly name: string
  readonly provider_id: string
  readonly resources: readonly {
    readonly id: string
    readonly type: string
    readonly name: string
    readonly extra_info: unknown
  }[]
}

/** `graph`: one client parses it always, so it gets a text; the published answers have none. */
export const checkpointObject = (row: CheckpointRow, graph: 'text' | 'none' = 'none') => ({
  id: row.id,
  project_id: row.project,
  status: row.status,
  created_at: naiveTime(row.created_at),
  resource_graph: graph === 'text' ? '[]' : null,
  protection_plan: fromJson<PlanSnapshot>(row.plan_snapshot),
  extra_info: row.extra_info,
})

export const restoreObject = (row: RestoreRow) => ({
  id: row.id,
  project_id: row.project,
  provider_id: row.provider,
  checkpoint_id: row.checkpoint,
  restore_target: row.target,
  parameters: fromJson<Record<string, unknown>>(row.parameters),
  status: row.status,
  resources_status: fromJson<Record<string, string>>(row.resources_status),
  resources_reason: fromJson<Record<string, string>>(row.resources_reason),
})
