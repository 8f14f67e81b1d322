import { Fault, fault, isFault } from '#base/fault.ts'
import { sleep } from '#base/clock.ts'
import { addChore } from '#control/resources/surroundings.ts'
import { readOwnership } from '#control/resources/sync.ts'
import { refusalCode, SITE_BUSY, SITE_NEVER_SEEN, SITE_UNREACHABLE } from '#control/sites/client.ts'
import type { VerifyRun } from '#wire/site/verify.ts'
import { CANCELLED } from '../../claim.ts'
import { operation, step, type StepContext } from '../../operation.ts'
import { theRecord } from './session.ts'

/* Verification of a group: the agent at the writing site compares, this operation asks it how far it is.
 *
 * The request is repeated again and again under the operation's own id, and each repetition tells the state. So nothing is lost when any
 * process dies; and when the sides are switched meanwhile, the new writer takes the request for a new one and begins from the start.
 *
 * It has a resource of its own: a failover must not queue behind a verification that takes hours.
 */

export const VERIFY_RESOURCE = 'group-verify'

export const VERIFY_NOT_PROTECTED = fault({
  code: 'VERIFY_NOT_PROTECTED',
  retry: 'never',
  text: 'Replication of the group has ended, so there are no two sides to compare.',
  hint: 'Start the protection of the group, then verify again.',
})
export const VERIFY_ENDED_EARLY = fault({
  code: 'VERIFY_ENDED_EARLY',
  retry: 'never',
  text: 'The verification ended before everything was compared.',
  hint: 'Verify again. What it had found until then stays on show.',
})

const POLL_MS = 500

export interface VerifyGroup {
  /** Bytes per second; 0: no limit but that clients go first. */
  readonly rateBytes: number
  readonly repair: boolean
}

type Result = Pick<VerifyRun, 'compared_bytes' | 'mismatched_bytes' | 'repaired_bytes'>

export const verifyGroup = operation<VerifyGroup>('group.verify', {
  version: 1,
  steps: [
    step<VerifyGroup, Result>('compare', {
      cancellable: true,
      act: (ctx) => compare(ctx),
      entities: (_, { compared_bytes, mismatched_bytes, repaired_bytes }) => ({
        compared_bytes,
        mismatched_bytes,
        repaired_bytes,
      }),
    }),
  ],
  failed: async (tx, ctx, failure) => {
    if (failure.code !== CANCELLED) return
    const record = (await readOwnership(tx, [ctx.resourceId])).get(ctx.resourceId)
    if (record === undefined || record.state === 'closed') return
    // The agent goes on by itself, so it has to be told, also when it is silent just now.
    await addChore(
      tx,
      {
        site: record.writer,
        command: 'session.verify_cancel',
        request: { session: ctx.resourceId, run: ctx.id },
      },
      ctx.services.clock.wallMs(),
    )
  },
})

async function compare(ctx: StepContext<VerifyGroup>): Promise<Result> {
  const { services, signal } = ctx
  for (;;) {
    const run = await ask(ctx)
    if (run !== null) {
      if (run.total_bytes > 0) await ctx.progress((100 * run.compared_bytes) / run.total_bytes)
      if (run.state === 'done') return run
      if (run.ended_at !== null) {
        throw new Fault(
          VERIFY_ENDED_EARLY,
          `verifying group ${ctx.resourceId}: ${run.reason ?? run.state}`,
        )
      }
    }
    await sleep(services.clock, POLL_MS, signal)
  }
}

/** null: the writer cannot be asked now; it may go on all the same. */
async function ask(ctx: StepContext<VerifyGroup>): Promise<VerifyRun | null> {
  const { services, signal, input, resourceId: session } = ctx
  const record = await theRecord(services, session)
  const doing = `verifying group ${session}`
  if (record.state === 'closed') throw new Fault(VERIFY_NOT_PROTECTED, doing)
  try {
    const status = await services.sites.command(
      record.writer,
      'session.verify',
      {
        session,
        epoch: record.epoch,
        run: ctx.id,
        rate_bytes: input.rateBytes,
        repair: input.repair,
      },
      { signal },
    )
    return status.run
  } catch (error) {
    const code = refusalCode(error)
    // The sides are being switched, or the agent has not heard of it yet.
    const settling = code === 'STALE_EPOCH' || code === 'NOT_WRITER' || code === 'SESSION_UNKNOWN'
    const away = [SITE_UNREACHABLE, SITE_NEVER_SEEN, SITE_BUSY].some((kind) => isFault(error, kind))
    if (!settling && !away) throw error
    return null
  }
}
