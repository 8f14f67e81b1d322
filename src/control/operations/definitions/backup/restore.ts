import { Fault } from '#base/fault.ts'
import { rateOf } from '#control/resources/backup-rates.ts'
import { readItem, SERVER_TYPE, updateItem } from '#control/resources/checkpoints.ts'
import { settleRestore } from '#control/resources/restores.ts'
import { readServer, SERVER_RESOURCE, updateServer } from '#control/resources/servers.ts'
import { addChore } from '#control/resources/surroundings.ts'
import type { ServerRow } from '#control/store/tables/servers.ts'
import type { RestoreInfo } from '#wire/site/backups.ts'
import { childrenStep, operation, step, type StepContext } from '../../operation.ts'
import { serverDisks } from './backup-source.ts'
import { letBackupsEnd } from './backup-turns.ts'
import { beginLog, endLog } from './backup-work.ts'
import { RESTORE_TARGET_GONE, workOf, writeBack } from './restore-work.ts'
import { startServer, stopServer } from '../servers/servers.ts'

/* A backup is written back to the disks of a server: the server is switched off, the site writes and checks every block, and the
 * server is switched on when that was wished for. Whatever happens, the backup is available again afterwards. */

export interface RestoreItem {
  readonly restore: string
  readonly item: string
  readonly powerOn: boolean
  /** Disks as the vault names them, and where each is written. */
  readonly disks: readonly { readonly name: string; readonly volume: string }[]
  /** Bytes per second that were asked for; left out or 0: what the region allows. */
  readonly rateBytes?: number
}

type Context = StepContext<RestoreItem>

const keyOf = (ctx: Context): string => `${SERVER_TYPE}#${ctx.resourceId}`

export const restoreItem = operation<RestoreItem>('backup.restore', {
  version: 1,
  steps: [
    step<RestoreItem>('begin', {
      record: async (tx, ctx) => {
        const disks = await serverDisks(tx, ctx.resourceId)
        await letBackupsEnd(
          tx,
          disks.map(({ volume }) => volume),
        )
        const now = ctx.services.clock.wallMs()
        const item = await readItem(tx, ctx.input.item)
        await updateItem(tx, ctx.input.item, { status: 'restoring' }, now)
        const entry = {
          project: ctx.project ?? '',
          operation_type: 'restore',
          checkpoint: item?.checkpoint ?? null,
          restore: ctx.input.restore,
        }
        await beginLog(tx, ctx.id, entry, now)
      },
    }),
    childrenStep('power_off', {
      submit: async (tx, ctx, submit) => {
        const server = await readServer(tx, ctx.resourceId)
        if (server === undefined || server.status === 'stopped' || server.task !== null) return
        const now = ctx.services.clock.wallMs()
        await updateServer(tx, server.id, { task: 'powering-off' }, now)
        await submit(stopServer, { ...about(server), input: { already: false, hard: false } })
      },
    }),
    step<RestoreItem, RestoreInfo>('write', {
      weight: 20,
      act: write,
    }),
    childrenStep('power_on', {
      submit: async (tx, ctx, submit) => {
        const server = await readServer(tx, ctx.resourceId)
        if (!ctx.input.powerOn || server?.status !== 'stopped' || server.task !== null) return
        const now = ctx.services.clock.wallMs()
        await updateServer(tx, server.id, { task: 'powering-on' }, now)
        await submit(startServer, { ...about(server), input: { already: false } })
      },
      // The data is back all the same.
      ended: async (tx, ctx, children) => {
        const failed = children.find(({ status }) => status !== 'succeeded')
        if (failed === undefined) return
        const reason = `All disks were restored. The server did not start: ${failed.failReason ?? ''}`
        const change = { key: keyOf(ctx), status: 'available', reason } as const
        await settleRestore(tx, ctx.input.restore, change, ctx.services.clock.wallMs())
      },
    }),
    step<RestoreItem>('finish', {
      record: async (tx, ctx) => {
        const now = ctx.services.clock.wallMs()
        const done = { status: 'available', fail_op: null, fail_code: null, fail_reason: null }
        await updateItem(tx, ctx.input.item, { ...done, progress: 100 }, now)
        await settleRestore(
          tx,
          ctx.input.restore,
          { key: keyOf(ctx), status: 'available', reason: null },
          now,
        )
        await endLog(tx, ctx.id, 'success', null, now)
      },
    }),
  ],
  failed: async (tx, ctx, failure) => {
    const now = ctx.services.clock.wallMs()
    const message = failure.message.slice(0, 1_000)
    if (failure.step === 'write') {
      const server = await readServer(tx, ctx.resourceId)
      const request = { restore: workOf(ctx) }
      if (server !== undefined) {
        await addChore(tx, { site: server.az, command: 'restore.cancel', request }, now)
      }
    }
    const failed = { fail_op: 'restore', fail_code: failure.code, fail_reason: message }
    await updateItem(tx, ctx.input.item, { ...failed, status: 'available', progress: 100 }, now)
    const change = { key: keyOf(ctx), status: 'error', reason: message } as const
    await settleRestore(tx, ctx.input.restore, change, now)
    await endLog(tx, ctx.id, 'fail', message, now)
  },
})

const about = (server: ServerRow) => ({
  project: server.project,
  resourceType: SERVER_RESOURCE,
  resourceId: server.id,
  entities: { server_id: server.id, name: server.name },
})

async function write(ctx: Context): Promise<RestoreInfo> {
  const { services, input } = ctx
  const target = await targetOf(ctx)
  const rate = await rateOf(services.store.db, 'restore', input.rateBytes ?? 0)
  return await writeBack(ctx, `restoring server ${ctx.resourceId}`, { ...target, rate_bytes: rate })
}

async function targetOf(ctx: Context) {
  const { services, input, resourceId } = ctx
  return await services.store.read(async (db) => {
    const item = await readItem(db, input.item)
    const server = await readServer(db, resourceId)
    const disks = new Map((await serverDisks(db, resourceId)).map((disk) => [disk.volume, disk]))
    const checkpoint = item?.vault_checkpoint ?? null
    const volumes = input.disks.flatMap(({ name, volume }) => {
      const disk = disks.get(volume)
      return disk === undefined ? [] : [{ name, volume, pair: disk.pair, blank: false }]
    })
    if (server === undefined || checkpoint === null || volumes.length !== input.disks.length) {
      throw new Fault(RESTORE_TARGET_GONE, `restoring backup ${input.item} to ${resourceId}`)
    }
    return { site: server.az, checkpoint, volumes }
  })
}
