import { siteOfVault } from './vault-site.ts'
import { childrenStep, operation, step, type StepContext } from '../../operation.ts'
import { followWork } from './backup-work.ts'
import { sweepPolicy } from './retention.ts'
import { forgetOrphans, type Orphans } from './vault-orphans.ts'

/* Once a day: what policies let go is deleted, also of those that do not run, and what is in the vault for no backup; then the vault gives back the space of
 * what was deleted. */

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
    step<Upkeep, Collected>('collect', { act: collect }),
  ],
  failed: async () => {},
})

interface Collected {
  readonly freed_bytes: number
  /** Left out by an older release. */
  readonly orphans?: Orphans
}

async function collect(ctx: StepContext<Upkeep>): Promise<Collected> {
  const { services, signal, input } = ctx
  const site = siteOfVault(services, '')
  const orphans = await forgetOrphans(ctx, site)
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
  return { freed_bytes: info.freed_bytes, orphans }
}
