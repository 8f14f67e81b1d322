import { newHexId, newId } from '#base/ids.ts'
import { insertItem, SERVER_TYPE } from '#control/resources/checkpoints.ts'
import { portsOf } from '#control/resources/networks.ts'
import { classedLimit } from '#control/resources/quota-classes.ts'
import { findServer } from '#control/resources/servers.ts'
import { quotaLimit, quotaUsed } from '#control/resources/surroundings.ts'
import { bit } from '#control/store/bit.ts'
import { toJson } from '#control/store/json.ts'
import type { Transaction } from '#control/store/store.ts'
import type {
  BackupPlanRow,
  CheckpointItemRow,
  CheckpointRow,
} from '#control/store/tables/checkpoints.ts'
import type { ServerRow } from '#control/store/tables/servers.ts'
import { findFlavor } from '#domain/flavor.ts'
import { fits, UNLIMITED } from '#domain/quota.ts'
import { backupServer, SERVER_BACKUP_RESOURCE } from './backup.ts'
import { serverDisks } from './backup-source.ts'
import { type DiskNow, runningServer } from './backup-target.ts'
import type { RequestServices } from '../requests.ts'

/* Rows of backups that are about to be made, the operations that make them, and whether there is room for them. */

export type BackupServices = Pick<RequestServices, 'store' | 'operations' | 'clock'>

export function checkpointRow(
  of: {
    readonly project: string
    readonly provider: string
    readonly plan: unknown
    readonly planId: string | null
    readonly scheduled?: boolean
    readonly extraInfo?: unknown
  },
  now: number,
): CheckpointRow {
  return {
    id: newId(),
    project: of.project,
    provider: of.provider,
    plan: of.planId,
    plan_snapshot: toJson(of.plan),
    status: 'protecting',
    scheduled: bit(of.scheduled ?? false),
    extra_info: of.extraInfo === undefined ? null : toJson(of.extraInfo),
    created_at: now,
    updated_at: now,
  }
}

interface ItemDetails {
  readonly name: string | null
  readonly description: string | null
  readonly policy: BackupPlanRow | null
  readonly scheduled?: boolean
}

/** null: there is no such server any more. */
export async function newItem(
  tx: Transaction,
  checkpoint: CheckpointRow,
  serverId: string,
  { name, description, policy, scheduled = false }: ItemDetails,
  now: number,
): Promise<CheckpointItemRow | null> {
  const named = await findServer(tx, checkpoint.project, serverId)
  if (named === undefined) return null
  const server = await runningServer(tx, named)
  const disks = await serverDisks(tx, server.id)
  const [port] = (await portsOf(tx, [server.id])).get(server.id) ?? []
  const row = itemRow(
    {
      checkpoint,
      resource: { type: SERVER_TYPE, id: named.id, name: named.name, az: server.az },
      name,
      description,
      policy: policy?.id ?? null,
      scheduled,
      sizeMb: disks.reduce((total, { sizeGb }) => total + sizeGb * 1024, 0),
      backupData: backupData(server, disks, port?.address ?? null),
      address: port?.address ?? null,
    },
    now,
  )
  await insertItem(tx, row)
  return row
}

export interface NewItem {
  readonly checkpoint: CheckpointRow
  readonly resource: {
    readonly type: string
    readonly id: string
    readonly name: string
    readonly az: string
  }
  /** null: one is made up. */
  readonly name: string | null
  readonly description: string | null
  readonly policy: string | null
  readonly scheduled: boolean
  readonly sizeMb: number
  readonly backupData: unknown
  readonly address: string | null
}

/** Of a backup that is about to be made. */
export function itemRow(of: NewItem, now: number): CheckpointItemRow {
  const { checkpoint, resource, scheduled } = of
  return {
    id: newId(),
    checkpoint: checkpoint.id,
    project: checkpoint.project,
    name: of.name ?? `${scheduled ? 'autobk' : 'manualbk'}_${newHexId().slice(0, 4)}`,
    description: of.description,
    status: 'protecting',
    resource_type: resource.type,
    resource: resource.id,
    resource_name: resource.name,
    resource_az: resource.az,
    policy: of.policy,
    scheduled: bit(scheduled),
    replica: 0,
    copy_from: null,
    incremental: 0,
    progress: 0,
    size_mb: of.sizeMb,
    average_speed: 0,
    space_saving: 0,
    copy_status: 'na',
    fail_op: null,
    fail_code: null,
    fail_reason: null,
    backup_data: toJson(of.backupData),
    address: of.address,
    images: toJson([]),
    periodic_type: null,
    expires_at: null,
    vault_checkpoint: null,
    operation: '',
    stall_us: null,
    attachment: null,
    source_policy: null,
    taken_at: null,
    finished_at: null,
    created_at: now,
    updated_at: now,
  }
}

/** In the form that the API shows it: numbers are numbers there, and everything else is text. */
function backupData(server: ServerRow, disks: readonly DiskNow[], address: string | null) {
  const flavor = findFlavor(server.flavor)
  return {
    __openstack_region_name: server.az,
    cloudservicetype: 'server',
    disk: disks.find(({ system }) => system)?.sizeGb ?? 0,
    imagetype: server.image === null ? '' : 'gold',
    ram: flavor?.memoryMb ?? 0,
    vcpus: flavor?.vcpus ?? 0,
    eip: '',
    private_ip: address ?? '',
  }
}

export const tagged = (item: CheckpointItemRow) =>
  ({ kind: 'backup', project: item.project, resource: item.id }) as const

export async function submitBackup(
  tx: Transaction,
  { operations }: BackupServices,
  item: CheckpointItemRow,
  incremental: boolean,
  { parent, rateBytes = 0 }: { readonly parent?: string; readonly rateBytes?: number } = {},
): Promise<string> {
  return await operations.submit(tx, backupServer, {
    project: item.project,
    resourceType: SERVER_BACKUP_RESOURCE,
    resourceId: item.resource,
    input: { item: item.id, incremental, rateBytes },
    entities: { checkpoint_id: item.checkpoint, checkpoint_item_id: item.id },
    ...(parent === undefined ? {} : { parent }),
  })
}

export async function nameOperation(
  tx: Transaction,
  item: string,
  operation: string,
): Promise<void> {
  await tx.updateTable('checkpoint_items').set({ operation }).where('id', '=', item).execute()
}

/** Whether one more checkpoint with so many backups, and their gigabytes, is within the project's quotas. */
export async function roomFor(
  tx: Transaction,
  project: string,
  more: { readonly backups: number; readonly sizeMb: number },
): Promise<boolean> {
  const wanted = [
    ['backups', more.backups],
    ['backup_capacity', Math.ceil(more.sizeMb / 1024)],
  ] as const
  for (const [kind, count] of wanted) {
    const limit = await quotaLimit(tx, project, kind)
    // Counting costs time when there are many.
    if (limit !== UNLIMITED && !fits(limit, await quotaUsed(tx, project, kind), count)) return false
  }
  const limit = await classedLimit(tx, project, 'checkpoints')
  return limit === UNLIMITED || fits(limit, await quotaUsed(tx, project, 'checkpoints'))
}

export async function sizeMbOf(tx: Transaction, servers: readonly string[]): Promise<number> {
  const sizes = await Promise.all(servers.map((server) => serverDisks(tx, server)))
  return sizes.flat().reduce((total, { sizeGb }) => total + sizeGb * 1024, 0)
}
