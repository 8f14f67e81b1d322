import { derivedId, newId } from '#base/ids.ts'
import { findPlan } from '#control/resources/backup-plans.ts'
import {
  findItem,
  insertCheckpoint,
  insertDiskBackups,
  insertItem,
  insertRecord,
  itemFacts,
  readItem,
  recordsOf,
  SERVER_TYPE,
  showCopy,
} from '#control/resources/checkpoints.ts'
import { setTags } from '#control/resources/tags.ts'
import type { SiteClient } from '#control/sites/client.ts'
import { bit } from '#control/store/bit.ts'
import { toJson } from '#control/store/json.ts'
import type { Transaction } from '#control/store/store.ts'
import type {
  CheckpointItemRow,
  CheckpointRow,
  ReplicationRecordRow,
} from '#control/store/tables/checkpoints.ts'
import { decideItem, type ItemRefusal } from '#domain/checkpoint.ts'
import type { AdmissionRequest, ReplicaDescription } from '#wire/replica.ts'
import type { ReplicaAdmission } from '#wire/site/backups.ts'
import type { Static } from 'typebox'
import type { OperationServices } from '../services.ts'
import { type BackupServices, roomFor } from './backup-rows.ts'
import { REPLICATION_RESOURCE, replicateItem } from './replica.ts'
import { type Outcome, refused } from './requests.ts'
import { siteOfVault } from './vault-site.ts'

/* Copies to another region as both ends see them: what is chosen and refused at the source, and what the destination makes of it. */

export interface RegionServices extends BackupServices {
  /** Name of this region. */
  readonly region: string
  /** Names of those that copies can go to. */
  readonly destinations: readonly string[]
}

export interface Destination {
  readonly region: string
  readonly project: string
  readonly accelerate: boolean
}

export interface ChosenItem {
  readonly item: string
  readonly record: string
}

// ---------------------------------------------------------------- all of a policy

export interface PolicyReplication extends Destination {
  readonly sourceProject: string
  readonly policy: string
  readonly provider: string
  /** Only marks who asked. */
  readonly scheduled: boolean
}

export type PolicyReplicationRefusal =
  | 'POLICY_UNKNOWN'
  | 'PROVIDER_OTHER'
  | 'REGION_OTHER'
  /** One that a person asked for is under way. */
  | 'MANUAL_REPLICATION_ACTIVE'

export async function requestPolicyReplication(
  services: RegionServices,
  request: PolicyReplication,
): Promise<Outcome<{ readonly chosen: readonly ChosenItem[] }, PolicyReplicationRefusal>> {
  return await services.store.write((tx) => beginPolicyReplication(tx, services, request))
}

/**
 * The available originals of a policy with their system disk that have neither a copy in that region nor one on its way, the oldest
 * first. None is fine.
 */
export async function beginPolicyReplication(
  tx: Transaction,
  services: RegionServices,
  request: PolicyReplication,
): Promise<Outcome<{ readonly chosen: readonly ChosenItem[] }, PolicyReplicationRefusal>> {
  const { sourceProject: project, policy, region } = request
  const plan = await findPlan(tx, project, policy, 'policy')
  if (plan === undefined) return refused('POLICY_UNKNOWN')
  if (plan.provider !== request.provider) return refused('PROVIDER_OTHER')
  if (!services.destinations.includes(region)) return refused('REGION_OTHER')
  const active = await tx
    .selectFrom('replication_records')
    .select('id')
    .where('policy', '=', policy)
    .where('destination_region', '=', region)
    .where('scheduled', '=', 0)
    .where('status', 'in', ['waiting_replicate', 'replicating'])
    .limit(1)
    .executeTakeFirst()
  if (active !== undefined) return refused('MANUAL_REPLICATION_ACTIVE')
  const items = await itemsToCopy(tx, project, policy, region)
  const chosen: ChosenItem[] = []
  for (const item of items) {
    const record = await beginCopy(tx, services, item, request, {
      policy,
      scheduled: request.scheduled,
    })
    chosen.push({ item: item.id, record })
  }
  return { ok: true, chosen }
}

async function itemsToCopy(
  tx: Transaction,
  project: string,
  policy: string,
  region: string,
): Promise<CheckpointItemRow[]> {
  return await tx
    .selectFrom('checkpoint_items')
    .selectAll()
    .where('project', '=', project)
    .where('policy', '=', policy)
    .where('status', '=', 'available')
    .where('replica', '=', 0)
    .where('resource_type', '=', SERVER_TYPE)
    .where('vault_checkpoint', 'is not', null)
    .where((eb) =>
      eb.exists(
        eb
          .selectFrom('disk_backups')
          .select('disk_backups.id')
          .whereRef('disk_backups.item', '=', 'checkpoint_items.id')
          .where('disk_backups.system', '=', 1),
      ),
    )
    .where((eb) =>
      eb.not(
        eb.exists(
          eb
            .selectFrom('replication_records')
            .select('replication_records.id')
            .whereRef('replication_records.item', '=', 'checkpoint_items.id')
            .where('destination_region', '=', region)
            .where('replication_records.status', 'in', HAS_OR_GETS),
        ),
      ),
    )
    .orderBy('taken_at')
    .orderBy('id')
    .execute()
}

const HAS_OR_GETS = ['waiting_replicate', 'replicating', 'success']

// ---------------------------------------------------------------- one backup

export interface ItemReplication extends Destination {
  readonly sourceProject: string
  readonly item: string
  readonly name: string | null
  readonly description: string | null
}

export type ItemReplicationRefusal =
  | 'ITEM_UNKNOWN'
  | 'REGION_OTHER'
  | ItemRefusal
  /** It is there, or on its way. */
  | 'COPY_EXISTS'

export async function requestItemReplication(
  services: RegionServices,
  request: ItemReplication,
): Promise<Outcome<{ readonly record: string }, ItemReplicationRefusal>> {
  return await services.store.write(async (tx) => {
    const item = await findItem(tx, request.sourceProject, request.item)
    if (item === undefined) return refused('ITEM_UNKNOWN')
    if (!services.destinations.includes(request.region)) return refused('REGION_OTHER')
    const records = (await recordsOf(tx, [item.id])).get(item.id) ?? []
    const there = records.some(
      (one) => one.destination_region === request.region && HAS_OR_GETS.includes(one.status),
    )
    if (there) return refused('COPY_EXISTS')
    const decision = decideItem(itemFacts(item), 'replicate')
    if (!decision.ok) return decision
    const record = await beginCopy(tx, services, item, request, {
      policy: null,
      scheduled: false,
      name: request.name,
      description: request.description,
    })
    return { ok: true, record }
  })
}

async function beginCopy(
  tx: Transaction,
  { operations, clock, region }: RegionServices,
  item: CheckpointItemRow,
  destination: Destination,
  more: {
    readonly policy: string | null
    readonly scheduled: boolean
    readonly name?: string | null
    readonly description?: string | null
  },
): Promise<string> {
  const now = clock.wallMs()
  const record: ReplicationRecordRow = {
    id: newId(),
    project: item.project,
    item: item.id,
    checkpoint: item.checkpoint,
    policy: more.policy,
    status: 'waiting_replicate',
    destination_region: destination.region,
    destination_project: destination.project,
    destination_checkpoint: null,
    destination_item: null,
    destination_vault_checkpoint: null,
    scheduled: bit(more.scheduled),
    accelerate: bit(destination.accelerate),
    name: more.name ?? null,
    description: more.description ?? null,
    progress: 0,
    sent_bytes: 0,
    missing_bytes: 0,
    fail_code: null,
    fail_reason: null,
    gone_at: null,
    created_at: now,
    updated_at: now,
  }
  await insertRecord(tx, record)
  await showCopy(tx, item.id, now)
  await operations.submit(tx, replicateItem, {
    project: item.project,
    resourceType: REPLICATION_RESOURCE,
    resourceId: derivedId(`copies of ${item.resource} to ${destination.region}`),
    input: { record: record.id, region },
    entities: { replication_record_id: record.id, checkpoint_item_id: item.id },
  })
  return record.id
}

// ---------------------------------------------------------------- at the destination

export type AdmissionRefusal = 'BACKUPS_FULL'

/** Lets one copy in, as far as the quota allows. The ticket is good for a limited time; asking again is fine. */
export async function admitReplica(
  services: Pick<OperationServices, 'store' | 'agents'> & { readonly sites: SiteClient },
  project: string,
  record: string,
  { size_mb }: AdmissionRequest,
): Promise<Outcome<{ readonly admission: Static<typeof ReplicaAdmission> }, AdmissionRefusal>> {
  const room = await services.store.write(async (tx) => {
    const known = await readItem(tx, replicaItemId(record))
    return known !== undefined || (await roomFor(tx, project, { backups: 1, sizeMb: size_mb }))
  })
  if (!room) return refused('BACKUPS_FULL')
  const site = siteOfVault(services, '')
  const labels = { owner: project, replica: record }
  const admission = await services.sites.command(site, 'replica.admit', {
    replica: record,
    labels,
  })
  return { ok: true, admission }
}

const replicaItemId = (record: string): string => derivedId(`replica ${record}`)
const replicaCheckpointId = (record: string): string => derivedId(`checkpoint of replica ${record}`)

/**
 * Makes a copy that has arrived a backup of this project. The same again changes nothing. What the vault says of the checkpoint decides: only the one that was
 * let in for this project under this record becomes its backup, whatever the caller names.
 */
export async function registerReplica(
  services: Pick<BackupServices, 'store' | 'clock'> &
    Pick<OperationServices, 'agents'> & {
      readonly sites: SiteClient
      readonly provider: string
    },
  project: string,
  record: string,
  description: ReplicaDescription,
): Promise<Outcome<{ readonly checkpoint: string; readonly item: string }, 'REPLICA_NOT_HERE'>> {
  const ids = { checkpoint: replicaCheckpointId(record), item: replicaItemId(record) }
  const { checkpoint } = description
  const listed = await services.sites.command(siteOfVault(services, ''), 'vault.list', {
    checkpoint,
    limit: 1,
  })
  const labels = listed.checkpoints.find((one) => one.checkpoint === checkpoint)?.labels
  if (labels?.['owner'] !== project || labels['replica'] !== record) {
    return refused('REPLICA_NOT_HERE')
  }
  await services.store.write(async (tx) => {
    if ((await readItem(tx, ids.item)) !== undefined) return
    const now = services.clock.wallMs()
    await insertCheckpoint(
      tx,
      checkpointOf(description, ids.checkpoint, project, services.provider, now),
    )
    await insertItem(tx, itemOf(description, ids, project, now))
    await insertDiskBackups(
      tx,
      description.disks.map((disk, place) => ({
        id: derivedId(`disk ${disk.volume} of replica ${record}`),
        item: ids.item,
        project,
        place,
        name: disk.name,
        system: bit(disk.system),
        size_gb: disk.size_gb,
        size_mb: disk.size_mb,
        incremental: bit(description.incremental),
        average_speed: 0,
        space_saving: description.space_saving,
        volume: disk.volume,
        volume_name: disk.volume_name,
      })),
    )
    await setTags(tx, { kind: 'backup', project, resource: ids.item }, description.tags)
  })
  return { ok: true, ...ids }
}

function checkpointOf(
  { resource_id, resource_name, resource_type }: ReplicaDescription,
  id: string,
  project: string,
  provider: string,
  now: number,
): CheckpointRow {
  return {
    id,
    project,
    provider,
    plan: null,
    plan_snapshot: toJson({
      id: `fake_${id}`,
      name: `server protect plan for ${resource_id}`,
      provider_id: provider,
      resources: [{ id: resource_id, type: resource_type, name: resource_name, extra_info: {} }],
    }),
    status: 'available',
    scheduled: 0,
    extra_info: null,
    created_at: now,
    updated_at: now,
  }
}

function itemOf(
  of: ReplicaDescription,
  ids: { readonly checkpoint: string; readonly item: string },
  project: string,
  now: number,
): CheckpointItemRow {
  return {
    id: ids.item,
    checkpoint: ids.checkpoint,
    project,
    name: of.name,
    description: of.description,
    status: 'available',
    resource_type: of.resource_type,
    resource: of.resource_id,
    resource_name: of.resource_name,
    resource_az: of.resource_az,
    // It is nobody's policy here: nothing removes it but a person.
    policy: null,
    scheduled: bit(of.scheduled),
    replica: 1,
    copy_from: of.source_region,
    incremental: bit(of.incremental),
    progress: 100,
    size_mb: of.size_mb,
    average_speed: of.average_speed,
    space_saving: of.space_saving,
    copy_status: 'na',
    fail_op: null,
    fail_code: null,
    fail_reason: null,
    backup_data: toJson(of.backup_data),
    address: of.address,
    images: toJson([]),
    periodic_type: null,
    expires_at: null,
    vault_checkpoint: of.checkpoint,
    operation: '',
    stall_us: null,
    attachment: null,
    source_policy: of.source_policy ?? null,
    taken_at: of.taken_at,
    finished_at: now,
    created_at: now,
    updated_at: now,
  }
}
