import { Fault, isFault } from '#base/fault.ts'
import { sleep } from '#base/clock.ts'
import { drAz, readPair, updatePair, volumeAt } from '#control/resources/groups.ts'
import type { Transaction } from '#control/store/store.ts'
import { SITE_BUSY, SITE_NEVER_SEEN, SITE_UNREACHABLE } from '#control/sites/client.ts'
import { operation, step, type StepContext } from '../../operation.ts'
import { tellLimit } from '../volumes/volumes.ts'
import type { PairInput } from './pairs.ts'
import { GROUP_MOVED_ON, openAt, theGroup, theRecord, withRecord } from './session.ts'

/* Rebuild of a copy: the DR side's volume is replaced by an empty one, which joins the running session by a first copy.
 *
 *     forget_copy ─► the pair counts as never copied ─► replace ─► copy (only watched; the session does it)
 *
 * First of all it is written down that there is no copy: a failover that comes between must not take the old copy's word for the new one.
 */

export interface RebuildPair extends PairInput {
  /** Also a copy that is good. */
  readonly force: boolean
}

const POLL_MS = 500

export const rebuildPair = operation<RebuildPair>('pair.rebuild', {
  version: 2,
  steps: [
    step<RebuildPair, number>('forget_copy', {
      act: async (ctx) => {
        const { group } = await protectedPair(ctx)
        return (await theRecord(ctx.services, group.id)).epoch
      },
      record: (tx, ctx, epoch) => countAsUncopied(tx, ctx, epoch),
    }),
    step<RebuildPair, number>('replace', {
      act: async (ctx) => {
        const { group, pair } = await protectedPair(ctx)
        const site = drAz(group)
        return await withRecord(ctx, group.id, async (record) => {
          if (record.state === 'closed' || record.replica !== site) {
            throw new Fault(GROUP_MOVED_ON, `rebuilding pair ${pair.id}`)
          }
          await openAt(ctx, group, site)
          await ctx.services.sites.command(
            site,
            'volume.rebuild',
            {
              volume: volumeAt(group, pair, site),
              session: group.id,
              epoch: record.epoch,
              rebuild: ctx.id,
              force: ctx.input.force,
            },
            { signal: ctx.signal },
          )
          // The empty volume knows nothing of what clients may do with it.
          await tellLimit(ctx, volumeAt(group, pair, site))
          return record.epoch
        })
      },
      // The sites may have risen since; that was with the copy of before.
      record: (tx, ctx, epoch) => countAsUncopied(tx, ctx, epoch),
    }),
    step('copy', { cancellable: true, weight: 20, act: (ctx) => copied(ctx) }),
  ],
  // The copy goes on in the session, whether it is watched or not.
  failed: async () => {},
})

/** A rise above `epoch`, or a report about the new copy, proves the pair again. */
const countAsUncopied = (tx: Transaction, ctx: StepContext<RebuildPair>, epoch: number) =>
  updatePair(tx, ctx.resourceId, { added_epoch: epoch }, ctx.services.clock.wallMs())

async function protectedPair(ctx: StepContext<RebuildPair>) {
  const { db } = ctx.services.store
  const group = await theGroup(db, ctx.input.group)
  const pair = await readPair(db, ctx.resourceId)
  if (group.status !== 'protected' || pair === undefined || pair.in_session !== 1) {
    throw new Fault(GROUP_MOVED_ON, `rebuilding pair ${ctx.resourceId}`)
  }
  return { group, pair }
}

/** Until the DR side has recorded that it has all of it. The writer's word could be of the copy before. */
async function copied(ctx: StepContext<RebuildPair>): Promise<void> {
  const { services, signal } = ctx
  for (;;) {
    const { group } = await protectedPair(ctx)
    const { writer, replica } = await theRecord(services, group.id)
    const there = await memberAt(ctx, group.id, replica)
    if (there?.joined === true) return
    const here = await memberAt(ctx, group.id, writer)
    if (here !== undefined && !here.joined) {
      await ctx.progress((100 * here.copied_bytes) / Math.max(1, here.size_bytes))
    }
    await sleep(services.clock, POLL_MS, signal)
  }
}

/** The pair as a site tells it; undefined: it cannot be asked now. */
async function memberAt(ctx: StepContext<RebuildPair>, session: string, site: string) {
  try {
    const status = await ctx.services.sites.command(
      site,
      'session.show',
      { session },
      { signal: ctx.signal },
    )
    return status.members.find(({ pair }) => pair === ctx.resourceId)
  } catch (error) {
    const away = [SITE_UNREACHABLE, SITE_NEVER_SEEN, SITE_BUSY].some((kind) => isFault(error, kind))
    if (!away) throw error
    return undefined
  }
}
