import { Fault } from '#base/fault.ts'
import type { ApiSession } from './api.ts'
import { JOB_FAILED } from './faults.ts'
import { waitFor, type WaitOptions } from './sdrs.ts'
import { allPages } from './pages.ts'

/* Backups, policies, restores and copies, over the interface of the backup service. */

const id = encodeURIComponent

export const SERVER_TYPE = 'OS::Nova::Server'
/** The one provider of server backups. */
export const PROVIDER = 'fc4d5750-22e7-4798-8a46-f48f62c4c1da'
const PROVIDER_PATH = `/v1/{project}/providers/${PROVIDER}`

export interface DiskBackup {
  readonly id: string
  readonly name: string
  readonly bootable: boolean
  readonly source_volume_id: string
  /** GiB. */
  readonly source_volume_size: number
}

export interface CopyRecord {
  readonly id: string
  readonly status: string
  readonly destination_region: string
  readonly destination_project_id: string
  readonly destination_checkpoint_item_id: string | null
  readonly extra_info: { readonly progress: number; readonly fail_reason: string | null }
}

export interface Backup {
  readonly id: string
  readonly checkpoint_id: string
  readonly name: string
  readonly description: string
  readonly status: string
  readonly resource_id: string
  /** `OS::Nova::Server`, or Holdfast's own for groups. */
  readonly resource_type: string
  readonly created_at: string
  readonly protected_at: string | null
  readonly expired_at: string | null
  readonly periodic_type: string | null
  readonly extend_info: {
    readonly auto_trigger: boolean
    readonly copy_status: string
    readonly copy_from: string
    readonly fail_op: string
    readonly fail_reason: string
    readonly image_type: string
    readonly incremental: boolean
    readonly progress: number
    readonly resource_az: string
    readonly resource_name: string
    /** MiB. */
    readonly size: number
    /** Longest wait of a write because of it; absent in older servers. */
    readonly stall_ms?: number | null
    readonly volume_backups: readonly DiskBackup[]
  }
  readonly replication_records: readonly CopyRecord[]
}

export interface Checkpoint {
  readonly id: string
  readonly status: string
  readonly created_at: string
  readonly protection_plan: { readonly id: string; readonly name: string }
}

export interface Policy {
  readonly id: string
  readonly name: string
  readonly description: string
  readonly resources: readonly { readonly id: string; readonly name: string }[]
  readonly scheduled_operations: readonly {
    readonly id: string
    readonly name: string
    readonly enabled: boolean
    readonly operation_type: string
    readonly operation_definition: Readonly<Record<string, unknown>>
    readonly trigger: { readonly properties: { readonly pattern: string } }
  }[]
}

export interface Restore {
  readonly id: string
  readonly status: string
  readonly resources_status: Readonly<Record<string, string>>
  readonly resources_reason: Readonly<Record<string, string>>
}

// ---------------------------------------------------------------- backups

export interface BackupFilter {
  readonly server?: string
  readonly policy?: string
  readonly status?: string
  readonly checkpoint?: string
}

/** Newest first, all pages. */
export async function listBackups(api: ApiSession, filter: BackupFilter): Promise<Backup[]> {
  return await allPages(api, '/v1/{project}/checkpoint_items', 'checkpoint_items', [
    ['resource_id', filter.server],
    ['policy_id', filter.policy],
    ['status', filter.status],
    ['checkpoint_id', filter.checkpoint],
  ])
}

export async function showBackup(api: ApiSession, backup: string): Promise<Backup> {
  const path = `/v1/{project}/checkpoint_items/${id(backup)}`
  return (await api.get<{ checkpoint_item: Backup }>(path)).checkpoint_item
}

export interface NewBackup {
  readonly server: string
  readonly name?: string
  readonly description?: string
  readonly incremental: boolean
}

/** Answers the backup that was begun. */
export async function createBackup(api: ApiSession, wanted: NewBackup): Promise<Backup> {
  const { checkpoint } = await api.post<{ checkpoint: Checkpoint }>(
    `${PROVIDER_PATH}/resources/${id(wanted.server)}/action`,
    {
      protect: {
        incremental: wanted.incremental,
        ...(wanted.name === undefined ? {} : { backup_name: wanted.name }),
        ...(wanted.description === undefined ? {} : { description: wanted.description }),
      },
    },
  )
  const [backup] = await listBackups(api, { checkpoint: checkpoint.id })
  if (backup === undefined) throw new Fault(JOB_FAILED, `backing up ${wanted.server}: it is gone`)
  return backup
}

type Waiting<T> = Omit<WaitOptions, 'onState'> & { readonly onState?: (state: T) => void }

/** Settles when it is made. Throws JOB_FAILED when it cannot be. */
export async function waitForBackup(
  api: ApiSession,
  backup: string,
  options: Waiting<Backup>,
): Promise<Backup> {
  const ended = await settled(api, backup, ['waiting_protect', 'protecting'], options)
  if (ended.status === 'available') return ended
  throw new Fault(JOB_FAILED, `backup ${backup}: ${ended.extend_info.fail_reason}`, { backup })
}

async function settled(
  api: ApiSession,
  backup: string,
  passing: readonly string[],
  options: Waiting<Backup>,
): Promise<Backup> {
  return await waitFor(
    `backup ${backup}`,
    async () => {
      const state = await showBackup(api, backup)
      options.onState?.(state)
      return state
    },
    (state) => !passing.includes(state.status),
    { clock: options.clock, limitMs: options.limitMs },
  )
}

export async function deleteBackup(api: ApiSession, backup: Backup): Promise<void> {
  const query = new URLSearchParams({ checkpoint_items: backup.id })
  await api.delete(`${PROVIDER_PATH}/checkpoints/${id(backup.checkpoint_id)}?${query.toString()}`)
}

// ---------------------------------------------------------------- restores

export interface RestoreTo {
  readonly server: string
  readonly powerOn: boolean
  readonly volumes: readonly { readonly backup_id: string; readonly volume_id: string }[]
}

export async function restoreBackup(
  api: ApiSession,
  backup: Backup,
  to: RestoreTo,
): Promise<Restore> {
  const { restore } = await api.post<{ restore: Restore }>('/v1/{project}/restores', {
    restore: {
      checkpoint_id: backup.checkpoint_id,
      provider_id: PROVIDER,
      parameters: {
        checkpoint_item_id: backup.id,
        power_on: to.powerOn,
        targets: { server_id: to.server, volumes: to.volumes },
      },
    },
  })
  return restore
}

/** Settles when it is done. Throws JOB_FAILED when it failed. */
export async function waitForRestore(
  api: ApiSession,
  restore: string,
  options: Waiting<Restore>,
): Promise<Restore> {
  const ended = await waitFor(
    `restore ${restore}`,
    async () => {
      const path = `/v1/{project}/restores/${id(restore)}`
      const state = (await api.get<{ restore: Restore }>(path)).restore
      options.onState?.(state)
      return state
    },
    (state) => state.status !== 'in_progress',
    { clock: options.clock, limitMs: options.limitMs },
  )
  if (ended.status === 'success') return ended
  const reason = Object.values(ended.resources_reason).join(' ')
  throw new Fault(JOB_FAILED, `restore ${restore}: ${reason}`, { restore })
}

// ---------------------------------------------------------------- copies

export interface CopyTo {
  readonly region: string
  readonly project: string
  readonly accelerate: boolean
}

const destination = (to: CopyTo) => ({
  destination_region: to.region,
  destination_project_id: to.project,
  enable_acceleration: to.accelerate,
})

/** Answers the id of the record. */
export async function copyBackup(api: ApiSession, backup: string, to: CopyTo): Promise<string> {
  const { replication } = await api.post<{ replication: { replication_record_id: string } }>(
    `${PROVIDER_PATH}/checkpoint_items/${id(backup)}/replicate`,
    { replication: destination(to) },
  )
  return replication.replication_record_id
}

export interface ChosenCopy {
  readonly checkpoint_item_id: string
  readonly replication_record_id: string
}

export async function copyPolicy(
  api: ApiSession,
  policy: string,
  to: CopyTo,
): Promise<readonly ChosenCopy[]> {
  const { replication } = await api.post<{
    replication: { checkpoint_items: readonly ChosenCopy[] }
  }>(`${PROVIDER_PATH}/checkpoints/replicate`, {
    replication: { ...destination(to), policy_id: policy },
  })
  return replication.checkpoint_items
}

/** Settles when this copy of the backup has ended. Throws JOB_FAILED when it failed. */
export async function waitForCopy(
  api: ApiSession,
  backup: string,
  record: string,
  options: Waiting<CopyRecord>,
): Promise<CopyRecord> {
  const ended = await waitFor(
    `copy ${record}`,
    async () => {
      const { replication_records: records } = await showBackup(api, backup)
      const state = records.find((one) => one.id === record)
      if (state !== undefined) options.onState?.(state)
      return state
    },
    (state) => state === undefined || ENDED.has(state.status),
    { clock: options.clock, limitMs: options.limitMs },
  )
  if (ended?.status === 'success') return ended
  const reason = ended?.extra_info.fail_reason ?? 'the backup is gone'
  throw new Fault(JOB_FAILED, `copy ${record} of backup ${backup}: ${reason}`, { record })
}

const ENDED = new Set(['success', 'fail', 'skip'])

// ---------------------------------------------------------------- checkpoints

export async function listCheckpoints(api: ApiSession, plan?: string): Promise<Checkpoint[]> {
  return await allPages(api, `${PROVIDER_PATH}/checkpoints`, 'checkpoints', [['plan_id', plan]])
}

export async function showCheckpoint(api: ApiSession, checkpoint: string): Promise<Checkpoint> {
  const path = `${PROVIDER_PATH}/checkpoints/${id(checkpoint)}`
  return (await api.get<{ checkpoint: Checkpoint }>(path)).checkpoint
}

export async function deleteCheckpoint(api: ApiSession, checkpoint: string): Promise<void> {
  await api.delete(`${PROVIDER_PATH}/checkpoints/${id(checkpoint)}`)
}

// ---------------------------------------------------------------- policies

export async function listPolicies(api: ApiSession): Promise<Policy[]> {
  return await allPages(api, '/v1/{project}/policies', 'policies')
}

export async function showPolicy(api: ApiSession, policy: string): Promise<Policy> {
  return (await api.get<{ policy: Policy }>(`/v1/{project}/policies/${id(policy)}`)).policy
}

export interface NewPolicy {
  readonly name: string
  readonly description?: string
  readonly servers: readonly string[]
  /** `FREQ=DAILY;BYHOUR=3;BYMINUTE=0` */
  readonly rule: string
  readonly enabled: boolean
  /** max_backups, retention_duration_days, slots, timezone. */
  readonly definition: Readonly<Record<string, unknown>>
}

const calendarOf = (rule: string): string =>
  `BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nRRULE:${rule}\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n`

export async function createPolicy(api: ApiSession, wanted: NewPolicy): Promise<Policy> {
  const { policy } = await api.post<{ policy: Policy }>('/v1/{project}/policies', {
    policy: {
      name: wanted.name,
      ...(wanted.description === undefined ? {} : { description: wanted.description }),
      provider_id: PROVIDER,
      parameters: { common: {} },
      resources: wanted.servers.map((server) => ({
        id: server,
        type: 'OS::Nova::Server',
        name: server,
      })),
      scheduled_operations: [
        {
          enabled: wanted.enabled,
          operation_type: 'backup',
          operation_definition: wanted.definition,
          trigger: { properties: { pattern: calendarOf(wanted.rule) } },
        },
      ],
    },
  })
  return policy
}

export async function enablePolicy(
  api: ApiSession,
  policy: Policy,
  enabled: boolean,
): Promise<void> {
  await api.put(`/v1/{project}/policies/${id(policy.id)}`, {
    policy: {
      scheduled_operations: policy.scheduled_operations.map((one) => ({ id: one.id, enabled })),
    },
  })
}

export async function deletePolicy(api: ApiSession, policy: string): Promise<void> {
  await api.delete(`/v1/{project}/policies/${id(policy)}`)
}

/** Answers what the run makes. */
export async function runPolicy(api: ApiSession, policy: string): Promise<Checkpoint> {
  const { checkpoint } = await api.post<{ checkpoint: Checkpoint }>(
    `${PROVIDER_PATH}/checkpoints`,
    { checkpoint: { plan_id: policy, parameters: { auto_trigger: false } } },
  )
  return checkpoint
}
