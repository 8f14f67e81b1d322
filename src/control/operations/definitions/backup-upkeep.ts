import { siteOfVault } from './vault-site.ts'
import { childrenStep, operation, step, type StepContext } from '../operation.ts'
import { followWork } from './backup-work.ts'
import { sweepPolicy } from './retention.ts'

/* Once a day: what policies let go is deleted, also of those that do not run, and the vault gives back the space of what was deleted. */

export const UPKEEP_RESOURCE = 'backup-upkeep'

export interface Upkeep {
  /** UUID; names the collection at the agent. */
  readonly collect: string
}

export const backupUpkeep = operation<Upkeep>('backup.upkeep', {
  version: 1,
  steps: [
    childrenStep('retention', {
      submit: async (tx, ctx, submit) => {
        const plans = await tx.selectFrom('backup_plans').select('id').orderBy('id').execute()
        for (const { id } of plans) {
          await sweepPolicy(tx, id, ctx.services.clock.wallMs(), submit)
        }
      },
      ended: async () => {},
    }),
    step<Upkeep, { readonly freed_bytes: number }>('collect', { act: collect }),
  ],
  failed: async () => {},
})

async function collect(ctx: StepContext<Upkeep>): Promise<{ readonly freed_bytes: number }> {
  const { services, signal, input } = ctx
  const site = siteOfVault(services, '')
  const info = await followWork(
    ctx,
    `collecting the vault at ${site}`,
    async () => {
      const info = await services.sites.command(
        site,
        'vault.collect',
        { collect: input.collect },
        { signal },
      )
      return { ...info, total_bytes: 0, done_bytes: 0 }
    },
    async () => {},
  )
  return { freed_bytes: info.freed_bytes }
}
