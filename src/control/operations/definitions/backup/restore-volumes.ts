import { Fault } from '#base/fault.ts'
import { rateOf } from '#control/resources/backup-rates.ts'
import { readItem, SERVER_TYPE, updateItem, VOLUME_TYPE } from '#control/resources/checkpoints.ts'
import { settleRestore } from '#control/resources/restores.ts'
import { readServer, SERVER_RESOURCE, updateServer } from '#control/resources/servers.ts'
import { addChore } from '#control/resources/surroundings.ts'
import { moveVolume, readVolume, readVolumes } from '#control/resources/volumes.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import { GIB } from '#domain/volume.ts'
import type { RestoreInfo } from '#wire/site/backups.ts'
import { childrenStep, operation, step, type StepContext } from '../../operation.ts'
import { placeOf } from './backup-target.ts'
import { letBackupsEnd } from './backup-turns.ts'
import { beginLog, endLog } from './backup-work.ts'
import { RESTORE_TARGET_GONE, workOf, writeBack } from './restore-work.ts'
import { startServer, stopServer } from '../servers/servers.ts'
import { limitVolume } from '../volumes/volumes.ts'
import { VOLUME_RESOURCE } from '../volumes/volume-requests.ts'
import { ownerOf } from '../protection/session.ts'

/* Some or all disks of a backup are written to volumes: to new ones, which are made for it, or to those that are there. Servers that have one of them are
 * off meanwhile, all of them from before the first byte until after the last: what belongs together is seen together.
 *
 * New volumes are `creating` until they hold everything; when it fails they are `error` and can only be deleted. Whatever happens, the backup is available
 * again afterwards. */

export interface RestoreVolumes {
  readonly restore: string
  readonly item: string
  /** null: the volumes say where they are. Set when they are made for it. */
  readonly site: string | null
  readonly disks: readonly VolumeToRestore[]
  /** That have one of the volumes. */
  readonly servers: readonly string[]
  readonly powerOn: boolean
  /** Bytes per second that were asked for; 0: what the region allows. */
  readonly rateBytes: number
}

export interface VolumeToRestore {
  /** As the vault names the disk. */
  readonly name: string
  readonly volume: string
  readonly sizeGb: number
}

type Context = StepContext<RestoreVolumes>

export const restoreVolumes = operation<RestoreVolumes>('backup.restore-volumes', {
  version: 1,
  steps: [
    step<RestoreVolumes>('begin', { record: begin }),
    step<RestoreVolumes>('create', {
      act: async (ctx) => {
        const { site, disks } = ctx.input
        if (site === null) return
        for (const { volume, sizeGb } of disks) {
          const made = { volume, size_bytes: sizeGb * GIB, serving: 'standalone' as const }
          const request = { ...made, owner: ownerOf(ctx) }
          await ctx.services.sites.command(site, 'volume.create', request, { signal: ctx.signal })
        }
      },
    }),
    childrenStep('power_off', {
      submit: async (tx, ctx, submit) => {
        for (const id of ctx.input.servers) {
          const server = await readServer(tx, id)
          if (server === undefined || server.status === 'stopped' || server.task !== null) continue
          await updateServer(tx, id, { task: 'powering-off' }, ctx.services.clock.wallMs())
          await submit(stopServer, { ...about(ctx, id), input: { already: false, hard: false } })
        }
      },
    }),
    step<RestoreVolumes, RestoreInfo>('write', { weight: 20, act: write }),
    childrenStep('limits', {
      submit: async (tx, ctx, submit) => {
        if (ctx.input.site === null) return
        for (const { volume } of ctx.input.disks) {
          const limited = { project: ctx.project, resourceType: VOLUME_RESOURCE }
          await submit(limitVolume, { ...limited, resourceId: volume, input: {} })
        }
      },
    }),
    childrenStep('power_on', {
      submit: async (tx, ctx, submit) => {
        for (const id of ctx.input.powerOn ? ctx.input.servers : []) {
          const server = await readServer(tx, id)
          if (server?.status !== 'stopped' || server.task !== null) continue
          await updateServer(tx, id, { task: 'powering-on' }, ctx.services.clock.wallMs())
          await submit(startServer, { ...about(ctx, id), input: { already: false } })
        }
      },
      // The data is back all the same.
      ended: async (tx, ctx, children) => {
        for (const child of children.filter(({ status }) => status !== 'succeeded')) {
          const reason = `All disks were restored. The server did not start: ${child.failReason ?? ''}`
          const key = `${SERVER_TYPE}#${child.resourceId}`
          const change = { key, status: 'restoring', reason } as const
          await settleRestore(tx, ctx.input.restore, change, ctx.services.clock.wallMs())
        }
      },
    }),
    step<RestoreVolumes>('finish', {
      record: async (tx, ctx) => {
        const now = ctx.services.clock.wallMs()
        if (ctx.input.site !== null) {
          for (const { volume } of ctx.input.disks) await moveVolume(tx, volume, 'available', now)
        }
        const done = { status: 'available', fail_op: null, fail_code: null, fail_reason: null }
        await updateItem(tx, ctx.input.item, { ...done, progress: 100 }, now)
        await settle(tx, ctx, 'available', null, now)
        await endLog(tx, ctx.id, 'success', null, now)
      },
    }),
  ],
  failed: async (tx, ctx, failure) => {
    const now = ctx.services.clock.wallMs()
    const message = failure.message.slice(0, 1_000)
    const { site, disks, item } = ctx.input
    if (failure.step === 'write') {
      const at = site ?? (await placeHere(tx, disks[0]?.volume ?? ''))?.site
      const request = { restore: workOf(ctx) }
      if (at !== undefined)
        await addChore(tx, { site: at, command: 'restore.cancel', request }, now)
    }
    for (const { volume } of site === null ? [] : disks) {
      if ((await readVolume(tx, volume))?.status === 'creating') {
        await moveVolume(tx, volume, 'error', now)
      }
    }
    const failed = { fail_op: 'restore', fail_code: failure.code, fail_reason: message }
    await updateItem(tx, item, { ...failed, status: 'available', progress: 100 }, now)
    await settle(tx, ctx, 'error', message, now)
    await endLog(tx, ctx.id, 'fail', message, now)
  },
})

/** What a restore says of, in the words of its answer. */
export const restoredKeys = ({ servers, disks }: Pick<RestoreVolumes, 'servers' | 'disks'>) => [
  ...servers.map((id) => `${SERVER_TYPE}#${id}`),
  ...disks.map(({ volume }) => `${VOLUME_TYPE}#${volume}`),
]

async function settle(
  tx: Transaction,
  ctx: Context,
  status: 'available' | 'error',
  reason: string | null,
  now: number,
): Promise<void> {
  for (const key of restoredKeys(ctx.input)) {
    await settleRestore(tx, ctx.input.restore, { key, status, reason }, now)
  }
}

const about = (ctx: Context, server: string) => ({
  project: ctx.project,
  resourceType: SERVER_RESOURCE,
  resourceId: server,
  entities: { server_id: server },
})

async function begin(tx: Transaction, ctx: Context): Promise<void> {
  const { input } = ctx
  const volumes = input.disks.map(({ volume }) => volume)
  if (input.site === null) await letBackupsEnd(tx, volumes)
  const now = ctx.services.clock.wallMs()
  const item = await readItem(tx, input.item)
  await updateItem(tx, input.item, { status: 'restoring' }, now)
  const entry = {
    project: ctx.project ?? '',
    operation_type: 'restore',
    checkpoint: item?.checkpoint ?? null,
    restore: input.restore,
  }
  await beginLog(tx, ctx.id, entry, now)
}

async function placeHere(db: Queries | Transaction, volume: string) {
  const row = await readVolume(db, volume)
  return row === undefined ? undefined : ((await placeOf(db, row)) ?? undefined)
}

async function write(ctx: Context): Promise<RestoreInfo> {
  return await writeBack(ctx, `restoring backup ${ctx.input.item}`, await targetOf(ctx))
}

/** Found anew at each try: a group may have been switched since. Throws RESTORE_TARGET_GONE. */
async function targetOf(ctx: Context) {
  const { services, input } = ctx
  return await services.store.read(async (db) => {
    const gone = () => new Fault(RESTORE_TARGET_GONE, `restoring backup ${input.item}`)
    const checkpoint = (await readItem(db, input.item))?.vault_checkpoint ?? null
    if (checkpoint === null) throw gone()
    const rate_bytes = await rateOf(db, 'restore', input.rateBytes)
    if (input.site !== null) {
      const volumes = input.disks.map(({ name, volume }) => ({
        name,
        volume,
        pair: null,
        blank: true,
      }))
      return { site: input.site, checkpoint, volumes, rate_bytes }
    }
    const rows = await readVolumes(
      db,
      input.disks.map(({ volume }) => volume),
    )
    const sites = new Set<string>()
    const volumes = []
    for (const { name, volume } of input.disks) {
      const row = rows.get(volume)
      const place = row === undefined ? null : await placeOf(db, row)
      if (place === null) throw gone()
      sites.add(place.site)
      volumes.push({ name, volume: place.volume.id, pair: place.pair, blank: false })
    }
    const [site, ...others] = sites
    if (site === undefined || others.length > 0) throw gone()
    return { site, checkpoint, volumes, rate_bytes }
  })
}
