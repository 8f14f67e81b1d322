import { itemsOf, SERVER_TYPE } from '#control/resources/checkpoints.ts'
import { toJson } from '#control/store/json.ts'
import type { VaultVerifyInfo } from '#wire/site/backups.ts'
import { operation, step, type StepContext } from '../operation.ts'
import { beginLog, endLog, followWork } from './backup-work.ts'
import { siteOfVault } from './vault-site.ts'

/* Whether a checkpoint could be restored: the vault is checked, and every backup of the checkpoint must be among what is whole. */

export const VERIFICATION_RESOURCE = 'backup-verification'

export interface VerifyCheckpoint {
  readonly checkpoint: string
}

type Context = StepContext<VerifyCheckpoint>
type Found = Pick<VaultVerifyInfo, 'damaged_checkpoints' | 'damages'>

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
      record: async (tx, ctx, { damaged_checkpoints: damaged, damages }) => {
        const items = await itemsOf(tx, ctx.input.checkpoint)
        const statuses: Record<string, string> = {}
        const reasons: Record<string, string> = {}
        for (const { resource, vault_checkpoint: stored } of items) {
          const whole = stored !== null && !damaged.includes(stored)
          const key = `${SERVER_TYPE}#${resource}`
          statuses[key] = whole ? 'available' : 'error'
          if (!whole) reasons[key] = damages[0] ?? 'Nothing of it is in the vault.'
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
  const { services, signal, resourceId } = ctx
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
  return { damaged_checkpoints: info.damaged_checkpoints, damages: info.damages }
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
