import { assert } from '#base/assert.ts'
import { fault, Fault } from '#base/fault.ts'
import {
  GROUP_RESOURCE,
  drAz,
  groupStatus,
  moveGroup,
  movePair,
  pairStatus,
  placePair,
  productionAz,
  readGroup,
  readPair,
  updatePair,
} from '#control/resources/groups.ts'
import { readOwnership } from '#control/resources/sync.ts'
import type { Arbitration } from '#control/sites/witness.ts'
import type { Transaction } from '#control/store/store.ts'
import type { GroupStatus } from '#domain/protection-group.ts'
import { followsGroup } from '#domain/replication-pair.ts'
import {
  childrenStep,
  type Failure,
  operation,
  type Step,
  step,
  type StepContext,
  type SubmitChild,
} from '../../operation.ts'
import { forgetGroup } from './forget-group.ts'
import { failed, settle } from './group-settle.ts'
import { stopGroup } from './groups.ts'
import { insertLoneGroup, startApart } from './lone-pairs.ts'
import { registerGroup, theGroup } from './session.ts'

/* How pairs that work alone come together in a group with one order of writes, and part again.
 *
 *   gather    both sites are there → the pairs' own sessions stop → the pairs are the group's → the group starts
 *   regroup   both sites are there → the own sessions of those that come stop → they come, others leave and start alone
 *
 * A session is of one group for ever: what its two sides know about each other (epochs, maps, numbers of writes) means nothing to another. So a pair
 * that changes its group ends one session and begins another, in which its disks are compared block by block. Between the two it is a pair that is
 * paused: production goes on, and the DR disk stays what it was.
 *
 * The rows change hands in one transaction, after everything that can fail. Until then a pair belongs to its lone group, which is `updating`, so
 * that nobody else begins anything with it. When the operation fails, each of them becomes again what it was.
 */

export const SITES_NOT_BOTH_HEARD = fault({
  code: 'SITES_NOT_BOTH_HEARD',
  retry: 'later',
  text: 'Nothing is heard from one of the two sites.',
  hint: 'Pairs come into a group and leave it while both sites are there. Bring the site back, then repeat.',
})

/** A pair that comes, out of its lone group. */
export interface Newcomer {
  readonly pair: string
  readonly lone: string
  /** The lone group's state when it was asked for; absent in operations of older releases. */
  readonly was?: GroupStatus
}

export interface GatherPairs {
  readonly newcomers: readonly Newcomer[]
  /** Default: by the witness. */
  readonly arbitration?: Arbitration
}

export const gatherPairs = operation<GatherPairs>('group.gather', {
  version: 1,
  steps: [
    step('register', { record: registerGroup }),
    bothSites(),
    pauseNewcomers(),
    childrenStep('gather', {
      submit: async (tx, ctx, submit) => {
        await takeIn(tx, ctx)
        await settle(tx, ctx, 'create', 'to')
        await startApart(tx, ctx, submit, ctx.resourceId)
      },
    }),
  ],
  failed: async (tx, ctx, failure, submit) => await givenUp(tx, ctx, failure, submit, 'create'),
})

export interface Regroup {
  readonly newcomers: readonly Newcomer[]
  /** Pairs that leave. */
  readonly leavers: readonly string[]
}

export const regroupPairs = operation<Regroup>('group.regroup', {
  version: 1,
  steps: [
    bothSites(),
    pauseNewcomers(),
    childrenStep('regroup', {
      submit: async (tx, ctx, submit) => {
        await takeIn(tx, ctx)
        for (const pair of ctx.input.leavers) await letGo(tx, ctx, submit, pair)
        await settle(tx, ctx, 'update', 'to')
      },
    }),
  ],
  failed: async (tx, ctx, failure, submit) => await givenUp(tx, ctx, failure, submit, 'update'),
})

type Context = StepContext<{ readonly newcomers: readonly Newcomer[] }>

/** A silent site could not end the sessions that it has, and would not begin others before it has. */
function bothSites<Input>(): Step<Input> {
  return step('both_sites', {
    retry: { attemptsMax: 5 },
    act: async (ctx) => {
      const { agents, store } = ctx.services
      const group = await theGroup(store.db, ctx.resourceId)
      const silent = [group.source_az, group.target_az].find((site) => !agents.heard(site))
      if (silent === undefined) return
      throw new Fault(SITES_NOT_BOTH_HEARD, `regrouping ${group.id}: ${silent}`, { site: silent })
    },
  })
}

/**
 * By the operation that stops any group. Also of one that is paused already: a pause that failed half way may have left a session behind at a
 * site, which nobody would know of any more when its group is gone.
 */
function pauseNewcomers<Input extends { readonly newcomers: readonly Newcomer[] }>(): Step<Input> {
  return childrenStep<Input>('pause', {
    weight: 2,
    submit: async (tx, ctx, submit) => {
      const now = ctx.services.clock.wallMs()
      for (const { pair, lone } of ctx.input.newcomers) {
        const { epoch } = await recordOf(tx, lone)
        if (epoch === 0) continue
        await moveGroup(tx, lone, 'stopping', now)
        await movePair(tx, pair, 'stopping', now)
        await submit(stopGroup, {
          project: ctx.project,
          resourceType: GROUP_RESOURCE,
          resourceId: lone,
          input: { reserved: true },
        })
      }
    },
  })
}

async function takeIn(tx: Transaction, ctx: Context): Promise<void> {
  const now = ctx.services.clock.wallMs()
  for (const { pair: id, lone } of ctx.input.newcomers) {
    // One that could not be started the last time is as good as paused.
    await updatePair(tx, id, { in_session: 0, status: 'available' }, now)
    const pair = await readPair(tx, id)
    assert(pair !== undefined, 'a pair whose group is being updated exists')
    await placePair(tx, pair, await theGroup(tx, lone), ctx.resourceId, now)
    await forgetGroup(tx, ctx, lone)
  }
}

/** The pair gets a session of its own, with the group's arbitration, and is copied anew: the group's production goes on being its own. */
async function letGo(
  tx: Transaction,
  ctx: StepContext<Regroup>,
  submit: SubmitChild,
  id: string,
): Promise<void> {
  const { witness, clock } = ctx.services
  const now = clock.wallMs()
  const group = await theGroup(tx, ctx.resourceId)
  const pair = await readPair(tx, id)
  assert(pair !== undefined, 'a pair whose group is being updated exists')
  const { project, name } = pair
  const [production, dr] = [productionAz(group), drAz(group)]
  const lone = await insertLoneGroup(
    tx,
    { project, name, production, dr, domain: group.domain },
    now,
  )
  const { mode, preferred } = await recordOf(tx, group.id)
  await witness.register(tx, lone.id, production, dr, { mode, preferred })
  await placePair(tx, pair, group, lone.id, now)
  const usable = followsGroup(pairStatus(pair))
  await moveGroup(tx, lone.id, usable ? 'available' : 'error', now)
  if (usable) await startApart(tx, ctx, submit, lone.id)
}

/**
 * What a lone group that stays by itself is to be again: paused if it was paused, or was to be; replicating if it was, or was to be. `runs`: its
 * record is open, so its session was not ended on the way. `start`: the operation that starts groups brings it there, and says so if it cannot.
 */
export function restored(
  was: GroupStatus | undefined,
  runs: boolean,
): 'protected' | 'available' | 'start' {
  if (was === 'error-starting') return 'start'
  if (runs) return 'protected'
  return was === 'protected' ? 'start' : 'available'
}

/** Nothing has changed hands. Each newcomer becomes again what it was. */
async function givenUp(
  tx: Transaction,
  ctx: Context,
  failure: Failure,
  submit: SubmitChild,
  name: 'create' | 'update',
): Promise<void> {
  const now = ctx.services.clock.wallMs()
  for (const { pair: id, lone, was } of ctx.input.newcomers) {
    const group = await readGroup(tx, lone)
    if (group === undefined) continue
    // Its pause failed: the record is closed, and a site may not have heard of it yet.
    if (groupStatus(group) === 'error-stopping') await moveGroup(tx, lone, 'updating', now)
    else if (groupStatus(group) !== 'updating') continue
    const { epoch, state } = await recordOf(tx, lone)
    const to = restored(was, epoch > 0 && state !== 'closed')
    if (to === 'start') {
      await moveGroup(tx, lone, 'available', now)
      await startApart(tx, ctx, submit, lone)
      continue
    }
    await moveGroup(tx, lone, to, now)
    const pair = await readPair(tx, id)
    // A pause that failed has not said how equal the disks were: 99 is as near as one can know.
    const left = to === 'available' && pair?.in_session === 1
    const ended = left ? { in_session: 0 as const, progress: Math.min(pair.progress, 99) } : {}
    await updatePair(tx, id, { status: to, ...ended }, now)
  }
  await failed(name)(tx, ctx, failure)
}

async function recordOf(tx: Transaction, session: string) {
  const row = (await readOwnership(tx, [session])).get(session)
  assert(row !== undefined, 'the session of a group is registered with the witness')
  return { ...row, mode: row.mode as Arbitration['mode'] }
}
