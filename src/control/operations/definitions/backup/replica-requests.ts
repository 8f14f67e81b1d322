import { derivedId, newId } from '#base/ids.ts'
import { findPlan } from '#control/resources/backup-plans.ts'
import {
  findItem,
  insertRecord,
  itemFacts,
  recordsOf,
  SERVER_TYPE,
  showCopy,
} from '#control/resources/checkpoints.ts'
import type { RegionClient } from '#control/sites/regions.ts'
import { bit } from '#control/store/bit.ts'
import type { Transaction } from '#control/store/store.ts'
import type { CheckpointItemRow, ReplicationRecordRow } from '#control/store/tables/checkpoints.ts'
import { decideItem, type ItemRefusal } from '#domain/checkpoint.ts'
import type { BackupServices } from './backup-rows.ts'
import { REPLICATION_RESOURCE, replicateItem } from './replica.ts'
import { noteGoneReplicas } from './replica-presence.ts'
import { type Outcome, refused } from '../requests.ts'

/* Copies to another region: what is chosen and refused where they come from. replica-arrivals.ts has the other end. */

export interface RegionServices extends BackupServices {
  /** Name of this region. */
  readonly region: string
  /** Names of those that copies can go to. */
  readonly destinations: readonly string[]
  /** Whether backups of a project may go to a project of another region. Left out: nobody is asked before the copy itself is. */
  readonly mayCopy?:
    | ((region: string, source: string, destination: string) => Promise<boolean>)
    | undefined
  /** Asks another region. Left out: a copy that was made there is taken to be there. */
  readonly otherRegions?: Pick<RegionClient, 'call'> | undefined
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

async function mayGo(
  { destinations, mayCopy }: RegionServices,
  { region, sourceProject, project }: Destination & { readonly sourceProject: string },
): Promise<boolean> {
  // An unknown region is refused as such.
  if (mayCopy === undefined || !destinations.includes(region)) return true
  return await mayCopy(region, sourceProject, project)
}

// ---------------------------------------------------------------- all of a policy

export interface PolicyReplication extends Destination {
  readonly sourceProject: string
  readonly policy: string
  readonly provider: string
  /** Only marks who asked. */
  readonly scheduled: boolean
  /** True: a plan of the ancestor will do as well as a policy. Default false. */
  readonly anyPlan?: boolean
}

export type PolicyReplicationRefusal =
  | 'POLICY_UNKNOWN'
  | 'PROVIDER_OTHER'
  | 'REGION_OTHER'
  /** Of the other region, and not for this one's backups. */
  | 'PROJECT_OTHER'
  /** One that a person asked for is under way. */
  | 'MANUAL_REPLICATION_ACTIVE'

export async function requestPolicyReplication(
  services: RegionServices,
  request: PolicyReplication,
): Promise<Outcome<{ readonly chosen: readonly ChosenItem[] }, PolicyReplicationRefusal>> {
  if (!(await mayGo(services, request))) return refused('PROJECT_OTHER')
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
  const plan = await findPlan(tx, project, policy, request.anyPlan === true ? undefined : 'policy')
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
  | 'PROJECT_OTHER'
  | ItemRefusal
  /** It is there, or on its way. */
  | 'COPY_EXISTS'

export async function requestItemReplication(
  services: RegionServices,
  request: ItemReplication,
): Promise<Outcome<{ readonly record: string }, ItemReplicationRefusal>> {
  if (!(await mayGo(services, request))) return refused('PROJECT_OTHER')
  await noteGoneReplicas(services, request)
  return await services.store.write(async (tx) => {
    const item = await findItem(tx, request.sourceProject, request.item)
    if (item === undefined) return refused('ITEM_UNKNOWN')
    if (!services.destinations.includes(request.region)) return refused('REGION_OTHER')
    const records = (await recordsOf(tx, [item.id])).get(item.id) ?? []
    const there = records.some(
      (one) =>
        one.destination_region === request.region &&
        one.gone_at === null &&
        HAS_OR_GETS.includes(one.status),
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
