import { Fault, fault } from '#base/fault.ts'
import { newId } from '#base/ids.ts'
import {
  attachmentOf,
  type CheckpointAttachment,
} from '#control/resources/checkpoint-attachments.ts'
import { readItem, updateItem } from '#control/resources/checkpoints.ts'
import { addChore, dropChores } from '#control/resources/surroundings.ts'
import { toJson } from '#control/store/json.ts'
import type { Transaction } from '#control/store/store.ts'
import type { CheckpointItemRow } from '#control/store/tables/checkpoints.ts'
import type { VaultAttachment } from '#wire/site/backups.ts'
import { operation, step, type StepContext } from '../../operation.ts'
import { findItemOrOnly } from './backup-requests.ts'
import { type Outcome, type RequestServices, refused } from '../requests.ts'
import { ownerOf } from '../protection/session.ts'

/* Instant access: the disks of a backup are read over NBD straight from the vault, and nothing is written back first. They are exports of one site's agent,
 * read-only, for the project alone, until they are detached. A backup that is attached is not deleted, by people or by policies.
 *
 * Each attachment has an id, under which the site ends it: what one that failed left to be cleaned up there may be heard long after the next one was made. */

export const ATTACHMENT_RESOURCE = 'backup-attachment'

export const CHECKPOINT_GONE = fault({
  code: 'CHECKPOINT_GONE',
  retry: 'never',
  text: 'The backup went away before it was attached.',
  hint: 'List the backups, and attach another one.',
})

export interface AttachCheckpoint {
  readonly item: string
  readonly site: string
  /** Left out by an older release. */
  readonly attachment?: string
}

type Context = StepContext<AttachCheckpoint>

export const attachCheckpoint = operation<AttachCheckpoint>('backup.attach', {
  version: 1,
  steps: [
    step<AttachCheckpoint, VaultAttachment>('attach', {
      act: async (ctx) =>
        await ctx.services.sites.command(
          ctx.input.site,
          'vault.attach',
          { checkpoint: await checkpointOf(ctx), owner: ownerOf(ctx), ...named(ctx.input) },
          { signal: ctx.signal },
        ),
      record: (tx, ctx, { exports }) =>
        note(tx, ctx, {
          ...(ctx.input.attachment === undefined ? {} : { id: ctx.input.attachment }),
          site: ctx.input.site,
          exports,
          leaving: false,
        }),
    }),
  ],
  failed: async (tx, ctx) => {
    const checkpoint = (await readItem(tx, ctx.input.item))?.vault_checkpoint ?? null
    if (checkpoint !== null) {
      // What the agent may have noted all the same.
      const { site } = ctx.input
      const request = { checkpoint, ...named(ctx.input) }
      await addChore(tx, { site, command: 'vault.detach', request }, ctx.services.clock.wallMs())
    }
    await note(tx, ctx, null)
  },
})

export const detachCheckpoint = operation<AttachCheckpoint>('backup.detach', {
  version: 1,
  steps: [
    step<AttachCheckpoint>('detach', {
      act: async (ctx) => {
        const request = { checkpoint: await checkpointOf(ctx), ...named(ctx.input) }
        await ctx.services.sites.command(ctx.input.site, 'vault.detach', request, {
          signal: ctx.signal,
        })
      },
      record: (tx, ctx) => note(tx, ctx, null),
    }),
  ],
  failed: async (tx, ctx) => {
    const item = await readItem(tx, ctx.input.item)
    const before = item === undefined ? null : attachmentOf(item)
    if (before !== null) await note(tx, ctx, { ...before, leaving: false })
  },
})

const named = ({ attachment }: AttachCheckpoint) => (attachment === undefined ? {} : { attachment })

async function checkpointOf(ctx: Context): Promise<string> {
  const item = await readItem(ctx.services.store.db, ctx.input.item)
  const checkpoint = item?.vault_checkpoint ?? null
  if (checkpoint === null) throw new Fault(CHECKPOINT_GONE, `of backup ${ctx.input.item}`)
  return checkpoint
}

async function note(
  tx: Transaction,
  ctx: Context,
  attachment: CheckpointAttachment | null,
): Promise<void> {
  const change = { attachment: attachment === null ? null : toJson(attachment) }
  await updateItem(tx, ctx.input.item, change, ctx.services.clock.wallMs())
}

// ---------------------------------------------------------------- requests

type Services = Pick<RequestServices, 'store' | 'operations' | 'clock' | 'sites'>

export type AttachmentRefusal =
  | 'ITEM_UNKNOWN'
  /** It holds nothing yet, or it is being deleted. */
  | 'ITEM_STATE'
  | 'ATTACHED_ALREADY'
  | 'NOT_ATTACHED'
  | 'SITE_UNKNOWN'

export interface AcceptedAttachment {
  readonly item: CheckpointItemRow
  readonly operation: string
}

const READABLE: ReadonlySet<string> = new Set(['available', 'waiting_restore', 'restoring'])

/** `site`: whose agent offers it; null: that of the server, where this region has it. */
export async function requestAttach(
  { store, operations, clock, sites }: Services,
  project: string,
  id: string,
  site: string | null,
): Promise<Outcome<AcceptedAttachment, AttachmentRefusal>> {
  return await store.write(async (tx) => {
    const item = await findItemOrOnly(tx, project, id)
    if (item === undefined) return refused('ITEM_UNKNOWN')
    if (!READABLE.has(item.status) || item.vault_checkpoint === null) return refused('ITEM_STATE')
    if (item.attachment !== null) return refused('ATTACHED_ALREADY')
    const home = sites.includes(item.resource_az) ? item.resource_az : (sites[0] ?? '')
    const at = site ?? home
    if (!sites.includes(at)) return refused('SITE_UNKNOWN')
    const attempt = newId()
    const attachment = toJson({ id: attempt, site: at, exports: null, leaving: false })
    await updateItem(tx, item.id, { attachment }, clock.wallMs())
    // What an older release left to be done there names no attachment: it would take this one down.
    const nameless = { checkpoint: item.vault_checkpoint }
    await dropChores(tx, { site: at, command: 'vault.detach', request: nameless })
    const operation = await operations.submit(tx, attachCheckpoint, {
      project,
      resourceType: ATTACHMENT_RESOURCE,
      resourceId: item.id,
      input: { item: item.id, site: at, attachment: attempt },
      entities: { checkpoint_item_id: item.id },
    })
    return { ok: true, item: { ...item, attachment }, operation }
  })
}

export async function requestDetach(
  { store, operations, clock }: Services,
  project: string,
  id: string,
): Promise<Outcome<AcceptedAttachment, AttachmentRefusal>> {
  return await store.write(async (tx) => {
    const item = await findItemOrOnly(tx, project, id)
    if (item === undefined) return refused('ITEM_UNKNOWN')
    const before = attachmentOf(item)
    if (before === null) return refused('NOT_ATTACHED')
    const attachment = toJson({ ...before, leaving: true })
    await updateItem(tx, item.id, { attachment }, clock.wallMs())
    const operation = await operations.submit(tx, detachCheckpoint, {
      project,
      resourceType: ATTACHMENT_RESOURCE,
      resourceId: item.id,
      input: {
        item: item.id,
        site: before.site,
        ...(before.id === undefined ? {} : { attachment: before.id }),
      },
      entities: { checkpoint_item_id: item.id },
    })
    return { ok: true, item: { ...item, attachment }, operation }
  })
}
