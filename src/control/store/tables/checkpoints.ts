import type { Bit } from '../bit.ts'

/** Backups of servers: the policies that make them, what was made, what was restored and copied. The bytes are in the vault of the region. */
export interface CheckpointTables {
  backup_plans: BackupPlanRow
  backup_plan_resources: BackupPlanResourceRow
  backup_triggers: BackupTriggerRow
  backup_schedules: BackupScheduleRow
  checkpoints: CheckpointRow
  checkpoint_items: CheckpointItemRow
  disk_backups: DiskBackupRow
  replication_records: ReplicationRecordRow
  restores: RestoreRow
  backup_logs: BackupLogRow
  verifications: VerificationRow
  backup_rates: BackupRateRow
  backup_works: BackupWorkRow
  replica_admissions: ReplicaAdmissionRow
}

/** What is backed up together. A policy has schedules of its own; a plan of the older API refers to nothing, and schedules refer to it. */
export interface BackupPlanRow {
  /** UUID. */
  id: string
  project: string
  user_id: string
  /** `policy` or `plan`: by which API it was made. Names of policies are unique in a project. */
  form: string
  name: string
  description: string | null
  provider: string
  /** `suspended` or `started`. */
  status: string
  /** JSON object, as given. */
  parameters: string
  created_at: number
  updated_at: number
}

/** One server, mostly; a policy has at most one of each. */
export interface BackupPlanResourceRow {
  plan: string
  resource: string
  project: string
  /** From 0, in the order given. */
  place: number
  type: string
  name: string
  /** JSON object, as given. */
  extra_info: string
}

export interface BackupTriggerRow {
  id: string
  project: string
  /** The policy that it was made with and goes with; null: made on its own. */
  plan: string | null
  name: string
  /** As given. */
  pattern: string
  /** `ical` or `calendar`, as given. */
  format: string
  /** Anchor of the rule, see src/domain/recurrence.ts. */
  start_at: number
  end_at: number | null
  window_s: number
  created_at: number
}

/** What a trigger sets going: a run of a plan, or a replication of what a policy made. */
export interface BackupScheduleRow {
  id: string
  project: string
  plan: string
  trigger_id: string
  name: string
  description: string | null
  /** `backup` or `replication`; `protect` or `retention_protect` when made by the older API. */
  operation_type: string
  enabled: Bit
  /** JSON, see `OperationDefinition` of src/control/resources/backup-plans.ts. */
  definition: string
  /** The instant that it waits for; null: none will come. Only changed by compare-and-set. */
  next_at: number | null
  created_at: number
  updated_at: number
}

/** What one run made. */
export interface CheckpointRow {
  id: string
  project: string
  provider: string
  /** The policy or plan; null: a single server was backed up without one. */
  plan: string | null
  /** JSON {id, name, provider_id, resources} as they were when it ran. */
  plan_snapshot: string
  /** See src/domain/checkpoint.ts; `wait_copying`, `copying`, `finished` while and after all of it is copied. */
  status: string
  scheduled: Bit
  /** JSON object, or null. */
  extra_info: string | null
  created_at: number
  updated_at: number
}

/** One server at one moment. */
export interface CheckpointItemRow {
  id: string
  checkpoint: string
  project: string
  name: string
  description: string | null
  /** See src/domain/checkpoint.ts. */
  status: string
  resource_type: string
  /** The server, which may be gone. */
  resource: string
  resource_name: string
  resource_az: string
  /** The policy that made it; null: none. Stays when the policy goes. */
  policy: string | null
  scheduled: Bit
  /** 1: it came from another region. */
  replica: Bit
  /** Region it came from; null: this one. */
  copy_from: string | null
  incremental: Bit
  /** Percent. */
  progress: number
  /** Of all disks. */
  size_mb: number
  /** kB per second. */
  average_speed: number
  /** Percent that did not have to be stored. */
  space_saving: number
  copy_status: string
  /** `backup`, `restore`, `delete`, `copy`: what failed last; null: nothing. */
  fail_op: string | null
  fail_code: string | null
  fail_reason: string | null
  /** JSON, the server's description at that moment. */
  backup_data: string
  address: string | null
  /** JSON array of image ids. */
  images: string
  /** The slot that keeps it: `day`, `week`, `month`, `year`; null: none. */
  periodic_type: string | null
  /** When its policy lets it go; null: not by age. */
  expires_at: number | null
  /** Id in the vault of this region; null: not there yet. */
  vault_checkpoint: string | null
  /** The operation that made it. */
  operation: string
  /** Longest wait of a write because of it, microseconds; null: not made here, or not yet. */
  stall_us: number | null
  /** JSON, see `attachmentOf` of src/control/resources/checkpoint-attachments.ts; null: attached nowhere. */
  attachment: string | null
  /** Of a replica: the policy of the source region whose schedule sent it, and may let it go; null: only people do. */
  source_policy: string | null
  /** The moment that it shows; null until then. */
  taken_at: number | null
  finished_at: number | null
  created_at: number
  updated_at: number
}

export interface DiskBackupRow {
  id: string
  item: string
  project: string
  place: number
  name: string
  system: Bit
  size_gb: number
  size_mb: number
  incremental: Bit
  /** MB per second. */
  average_speed: number
  space_saving: number
  /** The disk's name in the vault, which is that of the production disk. */
  volume: string
  volume_name: string | null
}

/** One copy of one item to one region. Stays when the item goes: it says what is elsewhere. */
export interface ReplicationRecordRow {
  id: string
  project: string
  item: string
  checkpoint: string
  policy: string | null
  /** See src/domain/checkpoint.ts. */
  status: string
  destination_region: string
  destination_project: string
  destination_checkpoint: string | null
  destination_item: string | null
  /** What the checkpoint is called in the other vault; null: not there. */
  destination_vault_checkpoint: string | null
  scheduled: Bit
  accelerate: Bit
  /** Wanted name and description there; null: those of the item. */
  name: string | null
  description: string | null
  progress: number
  sent_bytes: number
  missing_bytes: number
  fail_code: string | null
  fail_reason: string | null
  /** When the copy was found to be gone from its region; null: it was not. */
  gone_at: number | null
  created_at: number
  updated_at: number
}

export interface RestoreRow {
  id: string
  project: string
  provider: string
  checkpoint: string
  /** null: of the older API, all of the checkpoint. */
  item: string | null
  /** `in_progress`, `success`, `fail`. */
  status: string
  target: string | null
  /** JSON, as given. */
  parameters: string
  /** JSON objects by `type#id`. */
  resources_status: string
  resources_reason: string
  created_at: number
  updated_at: number
}

export interface BackupLogRow {
  id: string
  project: string
  /** `protect`, `restore`, `delete`, `verify`, `copy`. */
  operation_type: string
  checkpoint: string | null
  plan: string | null
  provider: string | null
  restore: string | null
  schedule: string | null
  /** Of the checkpoint or restore, as it ended; `in_progress` before. */
  status: string
  started_at: number
  ended_at: number | null
  error_info: string | null
  extra_info: string | null
}

export interface VerificationRow {
  id: string
  project: string
  provider: string
  checkpoint: string
  parameters: string
  status: string
  resources_status: string
  resources_reason: string
  created_at: number
  updated_at: number
}

/** Most bytes per second of one kind of work of this region; without a row as fast as it goes. */
export interface BackupRateRow {
  /** `backup`, `restore` or `copy`. */
  kind: string
  bytes_per_second: number
}

/** Where named work was begun, until it has ended. */
export interface BackupWorkRow {
  /** The item that is backed up, or the record of the copy. */
  work: string
  site: string
  /** Of a backup: which of the sites that were chosen, from 0. */
  place: number
  updated_at: number
}

/** A copy that another region was allowed to send. */
export interface ReplicaAdmissionRow {
  /** That of the sender. */
  record: string
  /** Whose backup it becomes, and nobody else's. */
  project: string
  source_region: string
  size_mb: number
  /** `open` · `registered`: it has become a backup · `ended`: it has not, and what came of it may go. */
  state: 'open' | 'registered' | 'ended'
  /** The last time. */
  admitted_at: number
}
