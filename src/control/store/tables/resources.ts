import type { Bit } from '../bit.ts'

/** What users make: volumes, protection groups and their pairs, and what these refer to. */
export interface ResourceTables {
  volumes: VolumeRow
  volume_types: VolumeTypeRow
  volume_limits: VolumeLimitRow
  protection_groups: ProtectionGroupRow
  replication_pairs: ReplicationPairRow
  shown_replications: ShownReplicationRow
  active_domains: ActiveDomainRow
  quotas: QuotaRow
  site_chores: SiteChoreRow
  dismissed_failures: DismissedFailureRow
}

export interface VolumeRow {
  /** UUID; also the volume's name at its site's agent and of its NBD export. */
  id: string
  project: string
  name: string | null
  description: string | null
  size_gb: number
  volume_type: string
  /** The site that holds it. Never changes. */
  az: string
  /** See src/domain/volume.ts. */
  status: string
  /** JSON object of strings. */
  metadata: string
  bootable: Bit
  multiattach: Bit
  /** JSON array: {id, server, device, host, mode, at}. */
  attachments: string
  /** The pair it is a side of; null: none. */
  pair: string | null
  /** The image that it was filled with when it was made; null: none. */
  image: string | null
  /** The snapshot that it was filled from when it was made; null: none. */
  snapshot: string | null
  user_id: string
  created_at: number
  updated_at: number
}

export interface VolumeTypeRow {
  id: string
  name: string
  description: string
  /** JSON, TypeLimits of src/domain/volume-type.ts; null: nothing is limited. */
  limits: string | null
  created_at: number
}

/** How a pair or a group of the volume API was last shown. One that nobody has looked at has none. */
export interface ShownReplicationRow {
  /** Of the pair or the group. */
  id: string
  /** What is compared at the next look, JSON. */
  shown: string
  /** Since when it is shown so. */
  changed_at: number
}

/** The last order about a volume to the site that holds it. Volumes that never had a limit have none. */
export interface VolumeLimitRow {
  volume: string
  /** Requests per second; null: no limit. */
  iops: number | null
  /** null: no limit. */
  bytes_per_second: number | null
  /** What a user asked for; 1: clients may not change anything. */
  read_only: Bit
  /** Only grows, so that a late order does not undo a later one. Wall clock, ms, or one more than before. */
  revision: number
}

export interface ProtectionGroupRow {
  /** UUID; also the id of the replication session and of the witness's record. */
  id: string
  project: string
  /** The API that it was made with, see src/domain/protection-group.ts. */
  form: string
  name: string
  description: string | null
  /** See src/domain/protection-group.ts. */
  status: string
  /** `source` or `target`: which of the two sites is production now. */
  station: string
  /** Station that a reversal is making, or failed to make, production; null: none. */
  reversing_to: string | null
  /** Roles given at creation; never change. */
  source_az: string
  target_az: string
  domain: string
  vpc: string
  /** 1: the servers of the new production site are started by a failover or reversal. */
  start_servers: Bit
  /** Number for the next pair's place in the session. Only ever grows, so that no number is given twice. */
  next_member: number
  /** Why the last thing that was asked of it failed; null: it did not, or it is shown elsewhere. */
  failure_detail: string | null
  created_at: number
  updated_at: number
}

export interface ReplicationPairRow {
  /** UUID; also the name of the NBD export that either side offers. */
  id: string
  project: string
  group_id: string
  name: string
  description: string | null
  /** See src/domain/replication-pair.ts. */
  status: string
  /** The disks in the group's source and target site. */
  source_volume: string
  target_volume: string
  /** 1: whoever made the pair named the target disk first, and is answered in that order. */
  target_first: Bit
  /** Place in the session's stream; unique in the group for ever. */
  member: number
  /** 1: it belongs to the session that runs or should run. */
  in_session: Bit
  /** Epoch under which it was added to the running session; a rise after it proves that it was copied. */
  added_epoch: number
  /**
   * Epoch up to which the DR disk is known to hold nothing but zeroes, so that holes need not be copied; null: not
   * known. Set when the pair first joins a session: from the next epoch on anything may have been written.
   */
  blank_epoch: number | null
  /** 1: the DR disk was created empty for this pair and has never been in a session. */
  never_replicated: Bit
  /** 0-100 when replication last stopped; shown while none runs. */
  progress: number
  /** JSON array: {instance, device}. */
  attachments: string
  /** Why the status is `error`; null otherwise. */
  failure_detail: string | null
  /** The protected instance that it was made with, and goes with; null: it was made on its own. */
  made_by: string | null
  created_at: number
  updated_at: number
}

/** Two sites that replicate to each other. */
export interface ActiveDomainRow {
  id: string
  name: string
  description: string
  local_az: string
  remote_az: string
  created_at: number
}

/** Limits that differ from the defaults of src/domain/quota.ts. */
export interface QuotaRow {
  project: string
  kind: string
  /** -1: unlimited. */
  quota_limit: number
}

/** A command that a silent site still has to carry out; repeated until it answers. */
export interface SiteChoreRow {
  id: string
  site: string
  /** Name of the command, see src/wire/site/commands.ts. */
  command: string
  /** JSON of its request. */
  request: string
  created_at: number
  /** Rises with each chore: the order in which they are carried out. */
  ordinal: number
  attempts: number
  last_error: string | null
}

/** A failed operation that somebody took off the list of failed tasks. */
export interface DismissedFailureRow {
  operation: string
  project: string
}
