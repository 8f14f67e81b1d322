import type {
  BackupRefusal,
  DeletionRefusal,
  RunRefusal,
} from '#control/operations/definitions/backup/backup-requests.ts'
import type { PolicyRefusal } from '#control/operations/definitions/backup/policy-requests.ts'
import type {
  ItemReplicationRefusal,
  PolicyReplicationRefusal,
} from '#control/operations/definitions/backup/replica-requests.ts'
import type { RestoreRefusal } from '#control/operations/definitions/backup/restore-requests.ts'
import type { Refusal } from '../http/refusal.ts'
import { type CsbsCode, refuse, refuseAs } from './errors.ts'

/* What requests are refused for, in the codes of the service. One reason may have another code depending on what was asked. */

type Said = CsbsCode | readonly [CsbsCode, string]

const said = (one: Said): Refusal =>
  typeof one === 'string' ? refuse(one) : refuse(one[0], one[1])

const BACKUP: Record<BackupRefusal, Said> = {
  SERVER_UNKNOWN: 'CSBS.6000',
  SERVER_STATE: 'CSBS.6005',
  SERVER_WITHOUT_DISKS: 'CSBS.6007',
  BACKUPS_FULL: 'CSBS.9006',
  TAGS_FULL: 'CSBS.7000',
}
export const backupCode = (refusal: BackupRefusal): CsbsCode => codeOf(BACKUP[refusal])
export const backupRefused = (refusal: BackupRefusal): Refusal => said(BACKUP[refusal])

const RUN: Record<RunRefusal, Said> = {
  POLICY_UNKNOWN: 'CSBS.3000',
  PROVIDER_OTHER: ['CSBS.9001', 'The provider in the path is not that of the policy.'],
  SERVER_NOT_OF_POLICY: ['CSBS.9001', 'resources: a server is not of this policy.'],
  MANUAL_RUN_ACTIVE: 'CSBS.1001',
  SCHEDULED_RUN_ACTIVE: 'CSBS.6030',
  NO_SERVER: 'CSBS.6032',
  BACKUPS_FULL: 'CSBS.9006',
}
export const runRefused = (refusal: RunRefusal): Refusal => said(RUN[refusal])

const DELETION: Record<DeletionRefusal, Said> = {
  CHECKPOINT_UNKNOWN: 'CSBS.3001',
  ITEM_UNKNOWN: 'CSBS.3001',
  ITEM_BUSY: 'CSBS.2003',
  ITEM_STATE: 'CSBS.2003',
  ITEM_IN_IMAGE: 'CSBS.8007',
  ITEM_ATTACHED: ['CSBS.2003', 'The backup is attached over NBD. Detach it first.'],
  ITEM_REPLICA: 'CSBS.2003',
}
export const deletionRefused = (refusal: DeletionRefusal): Refusal => said(DELETION[refusal])

const RESTORE: Record<RestoreRefusal, Said> = {
  CHECKPOINT_UNKNOWN: 'CSBS.3001',
  ITEM_UNKNOWN: 'CSBS.3001',
  ITEM_BUSY: 'CSBS.2003',
  ITEM_STATE: 'CSBS.4000',
  ITEM_IN_IMAGE: 'CSBS.4000',
  ITEM_ATTACHED: 'CSBS.4000',
  ITEM_REPLICA: 'CSBS.4000',
  TARGET_UNKNOWN: 'CSBS.6000',
  TARGET_STATE: 'CSBS.6015',
  TARGET_ZONE: 'CSBS.6025',
  BACKUP_NOT_OF_ITEM: 'CSBS.6017',
  BACKUPS_UNMAPPED: 'CSBS.6018',
  SERVER_WITHOUT_DISKS: 'CSBS.6020',
  DISK_NOT_ATTACHED: 'CSBS.6014',
  DISK_SHARED: 'CSBS.6021',
  DISK_IS_SYSTEM: 'CSBS.6023',
  DISK_TOO_SMALL: 'CSBS.6024',
}
export const restoreCode = (refusal: RestoreRefusal): CsbsCode => codeOf(RESTORE[refusal])
export const restoreRefused = (refusal: RestoreRefusal): Refusal => said(RESTORE[refusal])

const POLICY: Record<PolicyRefusal, Said> = {
  POLICY_UNKNOWN: 'CSBS.3000',
  POLICIES_FULL: 'CSBS.0001',
  NAME_TAKEN: 'CSBS.9007',
  TAGS_FULL: 'CSBS.7000',
  SERVER_UNKNOWN: 'CSBS.6000',
  SERVER_TAKEN: 'CSBS.6004',
  TOO_MANY_SERVERS: ['CSBS.9001', 'resources: at most 64 servers.'],
  PATTERN: [
    'CSBS.9001',
    'pattern: a calendar with one daily or weekly rule, at most 24 instants a day and an hour between two of them.',
  ],
  DEFINITION: [
    'CSBS.9001',
    'operation_definition: slots need a timezone (UTC+08:00), a replication a region of the capabilities and a project.',
  ],
  SCHEDULES: [
    'CSBS.9001',
    'scheduled_operations: one backup operation, and at most one replication operation.',
  ],
  SCHEDULE_UNKNOWN: ['CSBS.9001', 'scheduled_operations: the policy has no such operation.'],
  RUN_ACTIVE: 'CSBS.2004',
}
export const policyRefused = (refusal: PolicyRefusal): Refusal => said(POLICY[refusal])

const REPLICATION: Record<
  Exclude<PolicyReplicationRefusal | ItemReplicationRefusal, 'PROJECT_OTHER'>,
  Said
> = {
  POLICY_UNKNOWN: 'CSBS.3000',
  PROVIDER_OTHER: ['CSBS.9001', 'The provider in the path is not that of the policy.'],
  REGION_OTHER: ['CSBS.9001', 'destination_region: not a region that backups can be copied to.'],
  MANUAL_REPLICATION_ACTIVE: 'CSBS.6031',
  ITEM_UNKNOWN: 'CSBS.3001',
  ITEM_BUSY: 'CSBS.2003',
  ITEM_STATE: ['CSBS.9001', 'The state of the backup does not allow a copy.'],
  ITEM_IN_IMAGE: 'CSBS.2003',
  ITEM_ATTACHED: 'CSBS.2003',
  ITEM_REPLICA: ['CSBS.9001', 'A replica is not copied on.'],
  COPY_EXISTS: ['CSBS.9001', 'That region has this backup already, or is receiving it.'],
}
export const replicationRefused = (
  refusal: PolicyReplicationRefusal | ItemReplicationRefusal,
): Refusal =>
  refusal === 'PROJECT_OTHER'
    ? refuseAs(403, 'CSBS.9001', 'destination_project_id: not a project for backups of this one.')
    : said(REPLICATION[refusal])

const codeOf = (one: Said): CsbsCode => (typeof one === 'string' ? one : one[0])

/** Over a quota, the older API answers 413. */
export const asKarbor = (refusal: Refusal): Refusal =>
  refusal.code === 'CSBS.9006' ? refuseAs(413, 'CSBS.9006', refusal.message) : refusal
