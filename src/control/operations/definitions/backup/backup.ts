import { assert } from '#base/assert.ts'
import { Fault, fault, isFault } from '#base/fault.ts'
import { derivedId } from '#base/ids.ts'
import { schedulesOf } from '#control/resources/backup-plans.ts'
import { rateOf } from '#control/resources/backup-rates.ts'
import {
  forgetBackupWork,
  noteBackupWork,
  readBackupWork,
} from '#control/resources/backup-works.ts'
import {
  GROUP_TYPE,
  insertDiskBackups,
  newestItemOf,
  readCheckpoint,
  readItem,
  updateItem,
} from '#control/resources/checkpoints.ts'
import { readGroup } from '#control/resources/groups.ts'
import { addChore } from '#control/resources/surroundings.ts'
import { refusalCode } from '#control/sites/client.ts'
import { bit } from '#control/store/bit.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { CheckpointRow, DiskBackupRow } from '#control/store/tables/checkpoints.ts'
import type { BackupInfo } from '#wire/site/backups.ts'
import { childrenStep, operation, step, type StepContext } from '../../operation.ts'
import { type BackupSource, backupSources, type BackupSources } from './backup-source.ts'
import { type DiskNow, groupSources } from './backup-target.ts'
import { letRestoresEnd } from './backup-turns.ts'
import { BACKUP_WORK_SILENT, beginLog, endLog, followWork, workCode } from './backup-work.ts'
import { sweepPolicy } from './retention.ts'

/* Backups of servers: one operation for each, and one above them for a run of a policy, which ends with the sweep of what the policy lets go.
 *
 * Backups and restores of one server run one after the other: they have the resource `server-backup` in common. A backup that asks for
 * changes since the one before waits for that one; when there is none, or it is gone from the vault, the agent reads everything.
 */

export const SERVER_BACKUP_RESOURCE = 'server-backup'
export const POLICY_RUN_RESOURCE = 'backup-policy'

const MIB = 1024 * 1024

export const BACKUP_GROUP_GONE = fault({
  code: 'BACKUP_GROUP_GONE',
  retry: 'never',
  text: 'The protection group, or all of its disks, went away before its backup began.',
  hint: 'Nothing was backed up.',
})

export interface BackupServer {
  readonly item: string
  /** False: everything is read and nothing of an earlier backup is built on. */
  readonly incremental: boolean
  /** Bytes per second; 0: no limit. */
  readonly rateBytes: number
}

interface Chosen {
  /** `kept` is not there in what an older release stored. */
  readonly disks: readonly (Omit<DiskNow, 'kept'> & { readonly kept?: string })[]
  readonly sources: readonly BackupSource[]
  readonly parent: string | null
}

interface Taken {
  readonly info: BackupInfo
  readonly site: string
  /** Of the source; left out by an older release. */
  readonly place?: number
}

type Context = StepContext<BackupServer>

export const backupServer = operation<BackupServer>('backup.server', {
  version: 1,
  steps: [
    step<BackupServer, Chosen>('choose', {
      cancellable: true,
      act: async (ctx) => {
        const { services, resourceId, input } = ctx
        return await services.store.read(async (db) => {
          const item = await readItem(db, input.item)
          const { disks, sources } = await sourcesOf(db, item?.resource_type, resourceId)
          const newest = input.incremental ? await newestItemOf(db, resourceId) : undefined
          return { disks, sources, parent: newest?.vault_checkpoint ?? null }
        })
      },
      record: async (tx, ctx, { disks }) => {
        const volumes = disks.map(({ volume }) => volume)
        await letRestoresEnd(tx, ctx.resourceId, volumes)
        const now = ctx.services.clock.wallMs()
        const item = await readItem(tx, ctx.input.item)
        await updateItem(tx, ctx.input.item, { status: 'protecting' }, now)
        const checkpoint =
          item === undefined ? undefined : await readCheckpoint(tx, item.checkpoint)
        await beginLog(
          tx,
          ctx.id,
          {
            project: ctx.project ?? '',
            operation_type: 'protect',
            checkpoint: item?.checkpoint ?? null,
            plan: checkpoint?.plan ?? null,
            schedule: checkpoint === undefined ? null : await scheduleOfRun(tx, checkpoint),
          },
          now,
        )
      },
    }),
    step<BackupServer, Taken>('take', {
      cancellable: true,
      weight: 20,
      act: take,
      record: recordTaken,
    }),
  ],
  failed: async (tx, ctx, failure) => {
    const now = ctx.services.clock.wallMs()
    const chosen = ctx.results['choose'] as Chosen | undefined
    await endWorks(tx, ctx, chosen?.sources ?? [])
    await updateItem(
      tx,
      ctx.input.item,
      {
        status: 'error',
        fail_op: 'backup',
        fail_code: failure.code,
        fail_reason: failure.message.slice(0, 1_000),
        finished_at: now,
      },
      now,
    )
    await endLog(tx, ctx.id, 'error', failure.message, now)
  },
})

/** What made it run; null: somebody did, or a plan has several and it may have been any. */
async function scheduleOfRun(
  tx: Transaction,
  { plan, scheduled }: CheckpointRow,
): Promise<string | null> {
  if (plan === null || scheduled === 0) return null
  const [one, ...others] = (await schedulesOf(tx, plan)).filter(
    ({ operation_type }) => operation_type !== 'replication',
  )
  return others.length === 0 ? (one?.id ?? null) : null
}

/** All disks of a server, or of a group. */
async function sourcesOf(
  db: Queries,
  type: string | undefined,
  id: string,
): Promise<Pick<BackupSources, 'disks' | 'sources'>> {
  if (type !== GROUP_TYPE) return await backupSources(db, id)
  const group = await readGroup(db, id)
  const sources = group === undefined ? null : await groupSources(db, group)
  if (sources === null) throw new Fault(BACKUP_GROUP_GONE, `backing up group ${id}`)
  return sources
}

const chosenBy = (ctx: Context): Chosen => ctx.results['choose'] as Chosen

/** Each place that is tried is other work. */
const workId = (item: string, source: number): string =>
  source === 0 ? item : derivedId(`backup ${item} at its own site`)

/** What an agent has under way would go on and leave a checkpoint that nobody knows. */
async function endWorks(
  tx: Transaction,
  ctx: Context,
  sources: readonly BackupSource[],
): Promise<void> {
  const now = ctx.services.clock.wallMs()
  for (const [place, { site }] of sources.entries()) {
    const request = { backup: workId(ctx.input.item, place) }
    await addChore(tx, { site, command: 'backup.cancel', request }, now)
  }
  await forgetBackupWork(tx, ctx.input.item)
}

/** Tries the places in their order. Where it was begun is noted before the site hears of it: a control plane that goes on asks there, and not once more elsewhere. */
async function take(ctx: Context): Promise<Taken> {
  const { sources, parent } = chosenBy(ctx)
  const { services, input, signal, resourceId } = ctx
  const item = await readItem(services.store.db, input.item)
  const group = item?.resource_type === GROUP_TYPE
  const rate = await rateOf(services.store.db, 'backup', input.rateBytes)
  const labels = {
    item: input.item,
    [group ? 'group' : 'server']: resourceId,
    [group ? 'group_name' : 'server_name']: (item?.resource_name ?? '').slice(0, 255),
    name: (item?.name ?? '').slice(0, 255),
    project: ctx.project ?? '',
    ...(item?.policy === null || item === undefined ? {} : { policy: item.policy }),
  }
  const noted = await readBackupWork(services.store.db, input.item)
  for (let place = noted?.place ?? 0; ; place++) {
    const source = sources[place]
    assert(source !== undefined, 'a server that is backed up has a site')
    const last = place === sources.length - 1
    await services.store.write((tx) =>
      noteBackupWork(tx, {
        work: input.item,
        site: source.site,
        place,
        updated_at: services.clock.wallMs(),
      }),
    )
    try {
      const info = await followWork(
        ctx,
        `backing up ${group ? 'group' : 'server'} ${resourceId} at ${source.site}`,
        () =>
          services.sites.command(
            source.site,
            'backup.start',
            {
              backup: workId(input.item, place),
              volumes: [...source.volumes],
              names: [...source.names],
              ...(source.session === undefined ? {} : { session: source.session }),
              parent,
              labels,
              rate_bytes: rate,
            },
            { signal },
          ),
        (progress) => showProgress(ctx, { progress }),
        // Nobody waits for a side that need not be asked.
        () => !last && !services.agents.heard(source.site),
      )
      return { info, site: source.site, place }
    } catch (error) {
      const code = isFault(error, BACKUP_WORK_SILENT)
        ? error.code
        : (refusalCode(error) ?? workCode(error))
      if (last || code === null || !ELSEWHERE.has(code)) throw error
      const said = { item: input.item, site: source.site, code }
      services.log.info(said, 'a backup is taken at the production side')
    }
  }
}

/** What only concerns the side that was asked. */
const ELSEWHERE: ReadonlySet<string> = new Set([
  BACKUP_WORK_SILENT.code,
  'COPY_BEHIND',
  'NOT_CONSISTENT',
  'NO_VAULT',
  'SNAPSHOT_BUSY',
  'SNAPSHOT_FAILED',
  'SNAPSHOT_LIMIT',
  'SNAPSHOT_LOST',
  'SNAPSHOT_NO_SPACE',
  'VOLUME_CLOSED',
  'VOLUME_FAILED',
  'VOLUME_READ_ERROR',
  'VOLUME_UNKNOWN',
])

async function showProgress(ctx: Context, change: { readonly progress: number }): Promise<void> {
  const { store, clock } = ctx.services
  await store.write((tx) => updateItem(tx, ctx.input.item, change, clock.wallMs()))
}

async function recordTaken(tx: Transaction, ctx: Context, taken: Taken): Promise<void> {
  const { info, place = 0 } = taken
  const now = ctx.services.clock.wallMs()
  await endWorks(tx, ctx, chosenBy(ctx).sources.slice(0, place))
  const item = await readItem(tx, ctx.input.item)
  if (item === undefined) return
  const { disks } = chosenBy(ctx)
  const incremental = info.manner !== 'full'
  const seconds = Math.max(info.duration_ms, 1) / 1_000
  const saved = info.total_bytes === 0 ? 0 : 1 - info.stored_bytes / info.total_bytes
  const figures = {
    incremental: bit(incremental),
    space_saving: Math.max(0, Math.min(100, Math.round(100 * saved))),
  }
  await updateItem(
    tx,
    item.id,
    {
      ...figures,
      status: 'available',
      progress: 100,
      size_mb: disks.reduce((total, { sizeGb }) => total + sizeGb * 1024, 0),
      average_speed: Math.round(info.done_bytes / 1024 / seconds),
      vault_checkpoint: info.checkpoint,
      stall_us: Math.round(1_000 * info.stall_ms),
      taken_at: info.taken_at === null ? now : Math.round(info.taken_at),
      finished_at: now,
    },
    now,
  )
  await insertDiskBackups(
    tx,
    disks.map(
      (disk, place): DiskBackupRow => ({
        id: derivedId(`backup of ${disk.volume} in ${item.id}`),
        item: item.id,
        project: item.project,
        place,
        name: `${item.name}_${disk.name ?? disk.volume}`.slice(0, 255),
        system: bit(disk.system),
        size_gb: disk.sizeGb,
        size_mb: disk.sizeGb * 1024,
        ...figures,
        average_speed: Math.round(info.done_bytes / MIB / seconds),
        volume: disk.kept ?? disk.volume,
        volume_name: disk.name,
      }),
    ),
  )
  await endLog(tx, ctx.id, 'available', null, now)
}

// ---------------------------------------------------------------- runs

export interface RunPolicy {
  readonly checkpoint: string
  readonly scheduled: boolean
}

/** Waits for the backups that were submitted with it, and lets go what the policy lets go. What failed is said by the items. */
export const runPolicy = operation<RunPolicy>('backup.run', {
  version: 1,
  steps: [
    childrenStep('servers', { weight: 20, submit: async () => {}, ended: async () => {} }),
    childrenStep('retention', {
      submit: (tx, ctx, submit) =>
        sweepPolicy(tx, ctx.resourceId, ctx.services.clock.wallMs(), submit),
      ended: async () => {},
    }),
  ],
  failed: async () => {},
})
