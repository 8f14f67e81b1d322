import { fault } from '#base/fault.ts'
import { updateItem } from '#control/resources/checkpoints.ts'
import type { RestoreInfo } from '#wire/site/backups.ts'
import type { CommandRequest } from '#wire/site/commands.ts'
import type { StepContext } from '../../operation.ts'
import { followWork } from './backup-work.ts'

/* What the forms of restores have in common: the work at the site that writes. */

export const RESTORE_TARGET_GONE = fault({
  code: 'RESTORE_TARGET_GONE',
  retry: 'never',
  text: 'The server, one of its disks, or the backup went away before it was written.',
  hint: 'Nothing was changed. Attach the disks again, or choose others.',
})

type Context = StepContext<{ readonly item: string }>

/** An operation's id with the hyphens of a UUID: a restore of several items is several works. */
export const workOf = ({ id }: Pick<Context, 'id'>): string =>
  [id.slice(0, 8), id.slice(8, 12), id.slice(12, 16), id.slice(16, 20), id.slice(20)].join('-')

/** Where a backup is written, and how fast it may be. */
type RestoreAt = Omit<CommandRequest<'restore.start'>, 'restore'> & { readonly site: string }

/** The site writes and checks every block; the backup shows how far that is. Faults as `followWork`. */
export async function writeBack(
  ctx: Context,
  doing: string,
  { site, ...request }: RestoreAt,
): Promise<RestoreInfo> {
  const { services, input, signal } = ctx
  return await followWork(
    ctx,
    `${doing} at ${site}`,
    () =>
      services.sites.command(
        site,
        'restore.start',
        { restore: workOf(ctx), ...request },
        { signal },
      ),
    async (progress) => {
      await services.store.write((tx) =>
        updateItem(tx, input.item, { progress }, services.clock.wallMs()),
      )
    },
  )
}
