import { Fault, fault } from '#base/fault.ts'
import { rateOf } from '#control/resources/backup-rates.ts'
import {
  diskBackupsOf,
  itemStatus,
  readItem,
  readRecord,
  updateRecord,
} from '#control/resources/checkpoints.ts'
import {
  forgetBackupWork,
  noteBackupWork,
  readBackupWork,
} from '#control/resources/backup-works.ts'
import { addChore } from '#control/resources/surroundings.ts'
import { tagsOf } from '#control/resources/tags.ts'
import { REGION_DENIED, REGION_UNKNOWN, type RegionClient } from '#control/sites/regions.ts'
import { fromJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { CheckpointItemRow, ReplicationRecordRow } from '#control/store/tables/checkpoints.ts'
import { AdmissionAnswer, ReplicaAnswer, type ReplicaDescription } from '#wire/replica.ts'
import type { ReplicaInfo } from '#wire/site/backups.ts'
import { operation, step, type StepContext } from '../../operation.ts'
import type { OperationServices } from '../../services.ts'
import { beginLog, endLog, followWork } from './backup-work.ts'
import { Tickets } from './replica-tickets.ts'
import { siteOfVault } from './vault-site.ts'

/* A backup is copied to another region: that region lets the copy in, the sites send what its vault lacks, and it is told whose backup this
 * is. Only then is there a checkpoint, as good as any other of that region.
 *
 * Copies of one server's backups to one region are made one after the other, so that each finds the one before it there. The record's id names the
 * copy at the agents of both regions and in the other control plane, so every step may be repeated.
 */

export const REPLICATION_RESOURCE = 'backup-replication'

export const REPLICA_SOURCE_GONE = fault({
  code: 'REPLICA_SOURCE_GONE',
  retry: 'never',
  text: 'The backup went away before its turn came.',
  hint: 'There is nothing left to copy.',
})

export interface ReplicateItem {
  readonly record: string
  /** Name of the region that sends. */
  readonly region: string
}

type Context = StepContext<ReplicateItem>

export const replicateItem = operation<ReplicateItem>('backup.replicate', {
  version: 1,
  steps: [
    step<ReplicateItem>('begin', {
      cancellable: true,
      record: async (tx, ctx) => {
        const { record, item } = await about(tx, ctx)
        const now = ctx.services.clock.wallMs()
        await updateRecord(tx, record.id, { status: 'replicating' }, now)
        const entry = { project: item.project, checkpoint: item.checkpoint, plan: record.policy }
        await beginLog(tx, ctx.id, { ...entry, operation_type: 'copy' }, now)
      },
    }),
    step<ReplicateItem, ReplicaInfo>('send', {
      cancellable: true,
      weight: 20,
      act: send,
      record: async (tx, ctx, info) => {
        await updateRecord(
          tx,
          ctx.input.record,
          {
            destination_vault_checkpoint: info.checkpoint,
            sent_bytes: Math.round(info.sent_bytes),
            missing_bytes: Math.round(info.missing_bytes),
          },
          ctx.services.clock.wallMs(),
        )
      },
    }),
    step<ReplicateItem, ReplicaAnswer['replica']>('register', {
      act: register,
      // All the bytes are there: half an hour of the other region's absence is no reason to send them again.
      retry: { attemptsMax: 45, pauseFirstMs: 500, pauseMostMs: 60_000 },
      record: async (tx, ctx, replica) => {
        const now = ctx.services.clock.wallMs()
        const change = {
          status: 'success',
          progress: 100,
          destination_checkpoint: replica.checkpoint_id,
          destination_item: replica.checkpoint_item_id,
        }
        await updateRecord(tx, ctx.input.record, change, now)
        await forgetBackupWork(tx, ctx.input.record)
        await endLog(tx, ctx.id, 'finished', null, now)
      },
    }),
  ],
  failed: async (tx, ctx, failure) => {
    const now = ctx.services.clock.wallMs()
    const message = failure.message.slice(0, 1_000)
    const begun = await readBackupWork(tx, ctx.input.record)
    if (begun !== undefined) {
      const request = { replica: ctx.input.record }
      await addChore(tx, { site: begun.site, command: 'replica.cancel', request }, now)
      await forgetBackupWork(tx, ctx.input.record)
    }
    const gone = failure.code === REPLICA_SOURCE_GONE.code
    const change = { fail_code: failure.code, fail_reason: message }
    await updateRecord(tx, ctx.input.record, { ...change, status: gone ? 'skip' : 'fail' }, now)
    await endLog(tx, ctx.id, 'error', message, now)
  },
})

async function about(
  db: Queries | Transaction,
  ctx: Context,
): Promise<{ record: ReplicationRecordRow; item: CheckpointItemRow; checkpoint: string }> {
  const record = await readRecord(db, ctx.input.record)
  const item = record === undefined ? undefined : await readItem(db, record.item)
  const checkpoint = item?.vault_checkpoint ?? null
  const usable = item !== undefined && itemStatus(item) === 'available'
  if (record === undefined || !usable || checkpoint === null) {
    throw new Fault(REPLICA_SOURCE_GONE, `copying for record ${ctx.input.record}`)
  }
  return { record, item, checkpoint }
}

function regionsOf({ regions }: OperationServices): RegionClient {
  if (regions === undefined) throw new Fault(REGION_UNKNOWN, 'copying a backup')
  return regions
}

async function send(ctx: Context): Promise<ReplicaInfo> {
  const { services, signal, input } = ctx
  const { record, item, checkpoint } = await about(services.store.db, ctx)
  await refuseForeign(ctx, record, item)
  const base = await baseOf(services.store.db, record, item)
  const rate = await rateOf(services.store.db, 'copy', 0)
  const site = await siteOf(ctx, item.resource_az)
  const tickets = new Tickets(services.clock, () => admit(ctx, record, item))
  return await followWork(
    ctx,
    `copying backup ${item.id} to ${record.destination_region}`,
    async () => {
      const { target } = await tickets.current()
      const info = await services.sites.command(
        site,
        'replica.start',
        {
          replica: input.record,
          checkpoint,
          base,
          target,
          accelerate: record.accelerate === 1,
          rate_bytes: rate,
        },
        { signal },
      )
      return tickets.wasRefused(info) ? { ...info, state: 'running' as const } : info
    },
    async (progress) => {
      await services.store.write((tx) =>
        updateRecord(tx, input.record, { progress }, services.clock.wallMs()),
      )
    },
  )
}

/** The account may be that of many tenants, and the project that one of them has named anybody's. */
async function refuseForeign(
  { services }: Context,
  { destination_region: region, destination_project: project }: ReplicationRecordRow,
  item: CheckpointItemRow,
): Promise<void> {
  if (await regionsOf(services).mayCopy(region, item.project, project)) return
  throw new Fault(
    REGION_DENIED,
    `copying backups of project ${item.project} to project ${project} of ${region}, which the list of copies does not name`,
  )
}

/** The site that sends, for as long as it takes: noted before it hears of it, so that nobody else is asked to send the same, and it is the one to hear of an end. */
async function siteOf({ services, input }: Context, preferred: string): Promise<string> {
  const noted = await readBackupWork(services.store.db, input.record)
  if (noted !== undefined) return noted.site
  const site = siteOfVault(services, preferred)
  const now = services.clock.wallMs()
  await services.store.write((tx) =>
    noteBackupWork(tx, { work: input.record, site, place: 0, updated_at: now }),
  )
  return site
}

async function admit(
  ctx: Context,
  record: ReplicationRecordRow,
  item: CheckpointItemRow,
): Promise<AdmissionAnswer['admission']> {
  const { admission } = await regionsOf(ctx.services).call({
    region: record.destination_region,
    project: record.destination_project,
    method: 'POST',
    path: `/api/v1/replicas/${record.id}/admission`,
    body: { source_region: ctx.input.region, size_mb: item.size_mb },
    answer: AdmissionAnswer,
    signal: ctx.signal,
  })
  return admission
}

/** The latest earlier backup of the same server that is in both vaults. */
async function baseOf(
  db: Queries,
  record: ReplicationRecordRow,
  item: CheckpointItemRow,
): Promise<{ checkpoint: string; replica_checkpoint: string } | null> {
  const row = await db
    .selectFrom('replication_records')
    .innerJoin('checkpoint_items', 'checkpoint_items.id', 'replication_records.item')
    .select(['checkpoint_items.vault_checkpoint', 'destination_vault_checkpoint'])
    .where('replication_records.project', '=', item.project)
    .where('destination_region', '=', record.destination_region)
    .where('replication_records.status', '=', 'success')
    // What the other region is known to have let go is not built on there, nor is what is being sent once more.
    .where('replication_records.gone_at', 'is', null)
    .where('replication_records.item', '!=', item.id)
    .where('checkpoint_items.resource', '=', item.resource)
    .where('checkpoint_items.taken_at', '<=', item.taken_at ?? 0)
    .orderBy('checkpoint_items.taken_at', 'desc')
    .limit(1)
    .executeTakeFirst()
  const [here, there] = [row?.vault_checkpoint ?? null, row?.destination_vault_checkpoint ?? null]
  return here === null || there === null ? null : { checkpoint: here, replica_checkpoint: there }
}

async function register(ctx: Context): Promise<ReplicaAnswer['replica']> {
  const { services, input, results } = ctx
  const { db } = services.store
  const record = await readRecord(db, input.record)
  const item = record === undefined ? undefined : await readItem(db, record.item)
  const sent = results['send'] as ReplicaInfo
  if (record === undefined || item === undefined || sent.checkpoint === null) {
    throw new Fault(REPLICA_SOURCE_GONE, `telling the other region of record ${input.record}`)
  }
  const body = await describe(db, record, item, input.region, sent.checkpoint)
  const { replica } = await regionsOf(services).call({
    region: record.destination_region,
    project: record.destination_project,
    method: 'PUT',
    path: `/api/v1/replicas/${record.id}`,
    body,
    answer: ReplicaAnswer,
    signal: ctx.signal,
  })
  return replica
}

async function describe(
  db: Queries,
  record: ReplicationRecordRow,
  item: CheckpointItemRow,
  region: string,
  checkpoint: string,
): Promise<ReplicaDescription> {
  const disks = (await diskBackupsOf(db, [item.id])).get(item.id) ?? []
  return {
    source_region: region,
    checkpoint,
    name: record.name ?? item.name,
    description: record.description ?? item.description,
    resource_id: item.resource,
    resource_name: item.resource_name,
    resource_type: item.resource_type,
    resource_az: item.resource_az,
    incremental: item.incremental === 1,
    scheduled: item.scheduled === 1,
    // What people sent, only people remove.
    source_policy: record.scheduled === 1 && item.scheduled === 1 ? record.policy : null,
    size_mb: item.size_mb,
    average_speed: item.average_speed,
    space_saving: item.space_saving,
    backup_data: fromJson<Record<string, unknown>>(item.backup_data),
    address: item.address,
    taken_at: item.taken_at ?? item.created_at,
    tags: await tagsOf(db, 'backup', item.id),
    disks: disks.map((disk) => ({
      volume: disk.volume,
      volume_name: disk.volume_name,
      name: disk.name,
      system: disk.system === 1,
      size_gb: disk.size_gb,
      size_mb: disk.size_mb,
    })),
  }
}
