import { Fault } from '#base/fault.ts'
import {
  drAz,
  moveGroup,
  pairsOfGroup,
  pairStatus,
  productionAz,
  updatePair,
} from '#control/resources/groups.ts'
import type { Arbitration } from '#control/sites/witness.ts'
import type { Transaction } from '#control/store/store.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import type { Ownership } from '#domain/ownership.ts'
import { followsGroup } from '#domain/replication-pair.ts'
import {
  type OperationKind,
  operation,
  type Step,
  step,
  type StepContext,
} from '../../operation.ts'
import { forgetGroup } from './forget-group.ts'
import { type CopyForecast, copyOnReturn } from '../recovery/preflight.ts'
import { foretell } from '../recovery/forecast.ts'
import { failed, OPEN_RETRY, settle, swapStation } from './group-settle.ts'
import { wearSpares } from '../instances/instance-identity.ts'
import { defineServers, serversAreOff, startServers } from '../instances/instance-switch.ts'
import {
  changeRecord,
  COURTESY_MS,
  endSession,
  established,
  HOLD_NOT_DRAINED,
  openAt,
  registerGroup,
  theGroup,
  theRecord,
  unlessSilent,
  withRecord,
} from './session.ts'

/* Operations on protection groups, but for failover.ts. The request has moved group and pairs to their transient state already.
 *
 *   start      choose members → record open → replica → writer → link works
 *   reprotect  choose members → record reprotect → replica → writer → link works
 *   stop       record closed → production plain → DR refuses
 *   reverse    servers are off → hold → record reverse → old writer becomes replica → new writer serves, roles swap
 *              → both sites' servers are defined for their new roles → started, if the group is to
 *
 * `in_session` of a pair is set before any agent hears of it and cleared before any agent drops it, so that the
 * reconciler and a repeated step agree on what the session should be.
 */

type Nothing = Readonly<Record<string, never>>

export interface CreateGroup {
  /** Default: by the witness. */
  readonly arbitration?: Arbitration
}

export const createGroup: OperationKind<CreateGroup> = operation('group.create', {
  version: 1,
  steps: [
    step('register', {
      record: async (tx, ctx) => {
        await registerGroup(tx, ctx)
        await settle(tx, ctx, 'create', 'to')
      },
    }),
  ],
  failed: failed('create'),
})

export const deleteGroup: OperationKind<Nothing> = operation('group.delete', {
  version: 1,
  steps: [
    closeRecord(),
    step('forget', { record: (tx, ctx) => forgetGroup(tx, ctx, ctx.resourceId) }),
  ],
  failed: failed('delete'),
})

// ---------------------------------------------------------------- start, reprotect

export const startGroup: OperationKind<Nothing> = operation('group.start', {
  version: 1,
  steps: [
    chooseMembers(),
    step<Nothing, Ownership>('open_record', {
      act: async (ctx) => {
        const group = await theGroup(ctx.services.store.db, ctx.resourceId)
        return await changeRecord(ctx, group.id, isOpen(group), (record) =>
          openRequest(ctx, group, record),
        )
      },
      record: (tx, ctx, record) => rememberOpening(tx, ctx, record),
    }),
    ...openBothSides('start'),
  ],
  failed: failed('start'),
})

export const reprotectGroup: OperationKind<Nothing> = operation('group.reprotect', {
  version: 1,
  steps: [
    chooseMembers(),
    step<Nothing, Ownership>('reprotect_record', {
      act: async (ctx) => {
        const group = await theGroup(ctx.services.store.db, ctx.resourceId)
        return await changeRecord(ctx, group.id, isOpen(group), (record) =>
          record.state === 'closed'
            ? openRequest(ctx, group, record)
            : { kind: 'reprotect', epoch: record.epoch, attempt: ctx.attemptId },
        )
      },
    }),
    ...openBothSides('reprotect'),
    defineServers(),
  ],
  failed: failed('reprotect'),
})

const openRequest = (
  ctx: StepContext<unknown>,
  group: ProtectionGroupRow,
  { epoch, mode, preferred }: Ownership,
) => ({
  kind: 'open' as const,
  epoch,
  attempt: ctx.attemptId,
  writer: productionAz(group),
  replica: drAz(group),
  mode,
  preferred,
})

const isOpen =
  (group: ProtectionGroupRow) =>
  (record: Ownership): boolean =>
    (record.state === 'resyncing' || record.state === 'in_sync') &&
    record.writer === productionAz(group)

/**
 * Every pair with two usable disks joins. The others (failed creations) stay out until they are deleted. What will be copied is
 * announced before anything is: without a common history that is everything.
 */
function chooseMembers(): Step<Nothing> {
  return step<Nothing, CopyForecast>('choose_members', {
    act: async (ctx) => {
      await foretell(ctx, 'start')
      const { services } = ctx
      const group = await theGroup(services.store.db, ctx.resourceId)
      const pairs = await pairsOfGroup(services.store.db, group.id)
      const record = await theRecord(services, group.id)
      const said = (site: string) => services.agents.session(group.id, site)?.status ?? null
      const copy = pairs.every((pair) => pair.never_replicated === 1)
        ? 'first'
        : record.state === 'closed'
          ? 'full'
          : copyOnReturn(said(productionAz(group)), said(drAz(group)))
      if (copy === 'full') {
        services.log.warn(
          { group: group.id, operation: ctx.id },
          'the two sites have no common history: all blocks are going to be compared',
        )
      }
      return copy
    },
    entities: (_, copy) => ({ copy }),
    record: async (tx, ctx) => {
      const now = ctx.services.clock.wallMs()
      for (const pair of await pairsOfGroup(tx, ctx.resourceId)) {
        const joins = followsGroup(pairStatus(pair)) ? 1 : 0
        if (pair.in_session !== joins) await updatePair(tx, pair.id, { in_session: joins }, now)
      }
    },
  })
}

/** From this epoch on the copy is unproved, and a DR disk that was never used is known to be empty only here. */
async function rememberOpening(
  tx: Transaction,
  ctx: StepContext<unknown>,
  record: Ownership,
): Promise<void> {
  const now = ctx.services.clock.wallMs()
  for (const pair of await pairsOfGroup(tx, ctx.resourceId)) {
    if (pair.in_session === 0) continue
    const blank = pair.never_replicated === 1 ? record.epoch : null
    await updatePair(
      tx,
      pair.id,
      { added_epoch: record.epoch, blank_epoch: blank, never_replicated: 0, progress: 0 },
      now,
    )
  }
}

function openBothSides(name: 'start' | 'reprotect'): Step<Nothing>[] {
  return [
    step('open_replica', {
      retry: OPEN_RETRY,
      act: async (ctx) => {
        const group = await theGroup(ctx.services.store.db, ctx.resourceId)
        await openAt(ctx, group, drAz(group))
      },
    }),
    step('open_writer', {
      retry: OPEN_RETRY,
      act: async (ctx) => {
        const group = await theGroup(ctx.services.store.db, ctx.resourceId)
        await openAt(ctx, group, productionAz(group))
      },
    }),
    step('establish', {
      retry: { attemptsMax: 5 },
      act: async (ctx) => {
        const group = await theGroup(ctx.services.store.db, ctx.resourceId)
        await established(ctx, group.id, productionAz(group))
      },
      record: async (tx, ctx) => {
        await wearSpares(tx, await theGroup(tx, ctx.resourceId))
        await settle(tx, ctx, name, 'to')
      },
    }),
  ]
}

// ---------------------------------------------------------------- stop

/** Result of closing: whether both sides were known to be equal at that moment. */
interface Closed {
  readonly record: Ownership
  readonly inSync: boolean
}

export interface StopGroup {
  /** By an operation that goes on with the group when it is stopped: it stays `updating`, so that nobody else begins anything with it. */
  readonly reserved?: true
}

function closeRecord(): Step<StopGroup> {
  return step<StopGroup, Closed>('close_record', {
    act: async (ctx) => {
      // Of the record that the witness closed, not of one that was read before: a drop may have come in between.
      let inSync = false
      const record = await changeRecord(
        ctx,
        ctx.resourceId,
        ({ state }) => state === 'closed',
        ({ epoch, state }) => {
          inSync = state === 'in_sync'
          return { kind: 'close', epoch, attempt: ctx.attemptId }
        },
      )
      return { record, inSync }
    },
  })
}

function closeAt(name: string, site: (group: ProtectionGroupRow) => string): Step<StopGroup> {
  return step(name, {
    act: async (ctx) => {
      const group = await theGroup(ctx.services.store.db, ctx.resourceId)
      await unlessSilent(ctx, site(group), () => endSession(ctx, group.id, site(group)))
    },
  })
}

export const stopGroup: OperationKind<StopGroup> = operation('group.stop', {
  version: 1,
  steps: [
    closeRecord(),
    closeAt('close_production', productionAz),
    closeAt('close_dr', drAz),
    step('settle', {
      record: async (tx, ctx) => {
        const now = ctx.services.clock.wallMs()
        const { inSync } = ctx.results['close_record'] as Closed
        for (const pair of await pairsOfGroup(tx, ctx.resourceId)) {
          if (pair.in_session === 0) continue
          // A pair whose copy was not proved may stop below 100; 99 is as near as one can know.
          const progress = inSync ? 100 : Math.min(pair.progress, 99)
          await updatePair(tx, pair.id, { in_session: 0, blank_epoch: null, progress }, now)
        }
        await settle(tx, ctx, 'stop', 'to')
        if (ctx.input.reserved === true) await moveGroup(tx, ctx.resourceId, 'updating', now)
      },
    }),
  ],
  failed: failed('stop'),
})

// ---------------------------------------------------------------- reverse

/** Longer than any drain that is worth waiting for; the agent ends it by itself. */
const HOLD_MS = 30_000

export const reverseGroup: OperationKind<Nothing> = operation('group.reverse', {
  version: 1,
  steps: [
    serversAreOff(),
    step('hold', {
      retry: { attemptsMax: 5 },
      act: async (ctx) => {
        const group = await theGroup(ctx.services.store.db, ctx.resourceId)
        const drained = await withRecord(ctx, group.id, async (record) => {
          if (record.writer !== productionAz(group)) return true // the repetition of one that had switched
          const answer = await ctx.services.sites.command(
            record.writer,
            'session.hold',
            { session: group.id, epoch: record.epoch, hold_ms: HOLD_MS },
            { signal: ctx.signal, timeoutMs: HOLD_MS + 5_000 },
          )
          return answer.drained
        })
        if (!drained) throw new Fault(HOLD_NOT_DRAINED, `holding the I/O of group ${group.id}`)
      },
    }),
    step('reverse_record', {
      act: async (ctx) => {
        const group = await theGroup(ctx.services.store.db, ctx.resourceId)
        const to = drAz(group)
        try {
          return await changeRecord(
            ctx,
            group.id,
            (record) => record.writer === to,
            ({ epoch }) => ({ kind: 'reverse', epoch, attempt: ctx.attemptId }),
          )
        } catch (error) {
          await release(ctx, group)
          throw error
        }
      },
    }),
    step('open_replica', {
      retry: OPEN_RETRY,
      act: async (ctx) => {
        const group = await theGroup(ctx.services.store.db, ctx.resourceId)
        await openAt(ctx, group, productionAz(group))
      },
    }),
    step('open_writer', {
      retry: OPEN_RETRY,
      act: async (ctx) => {
        const group = await theGroup(ctx.services.store.db, ctx.resourceId)
        await openAt(ctx, group, drAz(group))
      },
      record: async (tx, ctx) => {
        await swapStation(tx, ctx, 'swapped')
        await settle(tx, ctx, 'reverse', 'to')
      },
    }),
    defineServers(),
    startServers(),
  ],
  failed: failed('reverse'),
})

/** The hold would end by itself; ending it now spares the clients the wait. */
async function release(ctx: StepContext<unknown>, group: ProtectionGroupRow): Promise<void> {
  try {
    const record = await theRecord(ctx.services, group.id)
    await ctx.services.sites.command(
      record.writer,
      'session.release',
      { session: group.id, epoch: record.epoch },
      { timeoutMs: COURTESY_MS },
    )
  } catch (error) {
    ctx.services.log.warn({ err: error, group: group.id }, 'the hold will end by itself')
  }
}
