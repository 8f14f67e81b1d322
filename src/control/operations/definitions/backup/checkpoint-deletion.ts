import { deleteItemRows, readItem, updateItem } from '#control/resources/checkpoints.ts'
import type { Transaction } from '#control/store/store.ts'
import type { CheckpointItemRow } from '#control/store/tables/checkpoints.ts'
import { operation, step, type StepContext } from '../../operation.ts'
import { beginLog, endLog } from './backup-work.ts'
import { siteOfVault } from './vault-site.ts'

/* The end of a backup. Five of a project are deleted at once and the others wait: each has one of five lanes as its resource. */

export const DELETION_RESOURCE = 'backup-deletion'
export const DELETIONS_AT_ONCE = 5

export const laneOf = (project: string, item: string): string =>
  `${project}/${Number.parseInt(item.slice(0, 4), 16) % DELETIONS_AT_ONCE}`

export interface DeleteItem {
  readonly item: string
}

type Context = StepContext<DeleteItem>

export const deleteItem = operation<DeleteItem>('backup.delete', {
  version: 1,
  steps: [
    step<DeleteItem>('begin', {
      record: async (tx, ctx) => {
        const item = await readItem(tx, ctx.input.item)
        if (item === undefined) return
        const now = ctx.services.clock.wallMs()
        await updateItem(tx, item.id, { status: 'deleting' }, now)
        const entry = { project: item.project, checkpoint: item.checkpoint, plan: item.policy }
        await beginLog(tx, ctx.id, { ...entry, operation_type: 'delete' }, now)
      },
    }),
    step<DeleteItem>('forget', {
      act: async (ctx) => {
        const item = await readItem(ctx.services.store.db, ctx.input.item)
        const checkpoint = item?.vault_checkpoint ?? null
        if (item === undefined || checkpoint === null) return
        const site = siteOfVault(ctx.services, item.resource_az)
        await ctx.services.sites.command(
          site,
          'vault.forget',
          { checkpoint },
          { signal: ctx.signal },
        )
      },
      record: async (tx, ctx) => {
        const now = ctx.services.clock.wallMs()
        await deleteItemRows(tx, ctx.input.item, now)
        await endLog(tx, ctx.id, 'deleted', null, now)
      },
    }),
  ],
  failed: async (tx, ctx, failure) => {
    const now = ctx.services.clock.wallMs()
    await failDeletion(tx, ctx, failure.code, failure.message)
    await endLog(tx, ctx.id, 'error-deleting', failure.message, now)
  },
})

async function failDeletion(
  tx: Transaction,
  ctx: Context,
  fail_code: string,
  message: string,
): Promise<void> {
  const change: Partial<CheckpointItemRow> = {
    status: 'error',
    fail_op: 'delete',
    fail_code,
    fail_reason: message.slice(0, 1_000),
  }
  await updateItem(tx, ctx.input.item, change, ctx.services.clock.wallMs())
}
