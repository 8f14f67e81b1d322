import { itemsOf, SERVER_TYPE } from '#control/resources/checkpoints.ts'
import { toJson } from '#control/store/json.ts'
import { operation, step, type StepContext } from '../../operation.ts'
import { beginLog, endLog, followWork } from './backup-work.ts'
import { siteOfVault } from './vault-site.ts'

/* Whether a checkpoint could be restored: the vault is checked, and every backup of the checkpoint must be among what is whole. */

export const VERIFICATION_RESOURCE = 'backup-verification'

export interface VerifyCheckpoint {
  readonly checkpoint: string
}

type Context = StepContext<VerifyCheckpoint>
/** By id in the vault: what is wrong with those of this checkpoint that are not whole. */
type Found = Readonly<Record<string, string>>

export const verifyCheckpoint = operation<VerifyCheckpoint>('backup.verify', {
  version: 1,
  steps: [
    step<VerifyCheckpoint>('begin', {
      record: (tx, ctx) =>
        beginLog(
          tx,
          ctx.id,
          {
            project: ctx.project ?? '',
            operation_type: 'verify',
            checkpoint: ctx.input.checkpoint,
          },
          ctx.services.clock.wallMs(),
        ),
    }),
    step<VerifyCheckpoint, Found>('check', {
      act: check,
      record: async (tx, ctx, damaged) => {
        const items = await itemsOf(tx, ctx.input.checkpoint)
        const statuses: Record<string, string> = {}
        const reasons: Record<string, string> = {}
        for (const { resource, vault_checkpoint: stored } of items) {
          const reason = stored === null ? 'Nothing of it is in the vault.' : damaged[stored]
          const key = `${SERVER_TYPE}#${resource}`
          statuses[key] = reason === undefined ? 'available' : 'error'
          if (reason !== undefined) reasons[key] = reason
        }
        const good = items.length > 0 && Object.keys(reasons).length === 0
        await settle(tx, ctx, good ? 'success' : 'fail', statuses, reasons)
      },
    }),
  ],
  failed: (tx, ctx, failure) =>
    settle(tx, ctx, 'fail', {}, { vault: failure.message.slice(0, 1_000) }),
})

async function check(ctx: Context): Promise<Found> {
  const { services, signal, resourceId, input } = ctx
  const site = siteOfVault(services, '')
  const info = await followWork(
    ctx,
    `verifying the vault at ${site}`,
    async () => {
      const request = { verify: resourceId, data: false }
      const info = await services.sites.command(site, 'vault.verify', request, { signal })
      return { ...info, total_bytes: 0, done_bytes: 0 }
    },
    async () => {},
  )
  // The vault is that of all projects: what is said of others' goes no further.
  const found: Record<string, string> = {}
  for (const { vault_checkpoint: stored } of await itemsOf(services.store.db, input.checkpoint)) {
    if (stored === null) continue
    if (info.damaged_checkpoints.includes(stored)) {
      found[stored] = info.reasons?.[stored] ?? 'It cannot be read whole.'
    } else if (!(await isListed(ctx, site, stored)))
      found[stored] = 'It is not in the vault any more.'
  }
  return found
}

/** What is not there at all is not damaged. */
async function isListed({ services, signal }: Context, site: string, checkpoint: string) {
  const request = { checkpoint, limit: 1 }
  const listed = await services.sites.command(site, 'vault.list', request, { signal })
  return listed.checkpoints.length > 0
}

async function settle(
  tx: Parameters<typeof endLog>[0],
  ctx: Context,
  status: 'success' | 'fail',
  statuses: Readonly<Record<string, string>>,
  reasons: Readonly<Record<string, string>>,
): Promise<void> {
  const now = ctx.services.clock.wallMs()
  await tx
    .updateTable('verifications')
    .set({
      status,
      resources_status: toJson(statuses),
      resources_reason: toJson(reasons),
      updated_at: now,
    })
    .where('id', '=', ctx.resourceId)
    .execute()
  await endLog(tx, ctx.id, status, Object.values(reasons)[0] ?? null, now)
}
