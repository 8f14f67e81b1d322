import { Fault } from '#base/fault.ts'
import {
  deleteGroupRow,
  drAz,
  groupStatus,
  moveGroup,
  movePair,
  pairsOfGroup,
  pairStatus,
  productionAz,
  updateGroup,
  updatePair,
} from '#control/resources/groups.ts'
import { addChore } from '#control/resources/surroundings.ts'
import { latestRise } from '#control/resources/sync.ts'
import type { Transaction } from '#control/store/store.ts'
import type { ProtectionGroupRow, ReplicationPairRow } from '#control/store/tables/resources.ts'
import type { Ownership } from '#domain/ownership.ts'
import {
  GROUP_TRANSITIONS,
  type GroupTransitionName,
  otherStation,
} from '#domain/protection-group.ts'
import { followsGroup, type PairStatus } from '#domain/replication-pair.ts'
import { type OperationKind, operation, type Step, step, type StepContext } from '../operation.ts'
import {
  changeRecord,
  COURTESY_MS,
  DR_SIDE_EMPTY,
  DR_SIDE_NOT_IN_SYNC,
  endSession,
  established,
  HOLD_NOT_DRAINED,
  openAt,
  statusAt,
  theGroup,
  theRecord,
  toWire,
  unlessSilent,
  withRecord,
} from './session.ts'

/* Operations on protection groups. The request has moved group and pairs to their transient state already.
 *
 *   start      choose members → record open → replica → writer → link works
 *   reprotect  choose members → record reprotect → replica → writer → link works
 *   stop       record closed → production plain → DR refuses
 *   reverse    hold → record reverse → old writer becomes replica → new writer serves, roles swap
 *   failover   choose members → record failed over → DR serves, roles swap → old writer is told, if it hears
 *
 * `in_session` of a pair is set before any agent hears of it and cleared before any agent drops it, so that the
 * reconciler and a repeated step agree on what the session should be.
 */

/** The group's resource type: operations on one group run one after the other. */
export const GROUP_RESOURCE = 'protection-group'

type Nothing = Readonly<Record<string, never>>

/** About 16 s of trying: an agent that was just killed is back by then, and a person still waits for the answer. */
const OPEN_RETRY = { attemptsMax: 7 }

/** Ends an operation in its declared state: group, and every pair that went along. */
async function settle(
  tx: Transaction,
  ctx: StepContext<unknown>,
  name: GroupTransitionName,
  end: 'to' | 'onError',
): Promise<void> {
  const { via, [end]: status } = GROUP_TRANSITIONS[name]
  if (status === null) return
  const now = ctx.services.clock.wallMs()
  const group = await theGroup(tx, ctx.resourceId)
  if (groupStatus(group) !== via) return
  await moveGroup(tx, group.id, status, now)
  for (const pair of await pairsOfGroup(tx, group.id)) {
    if (pair.status === via) await movePair(tx, pair.id, status as PairStatus, now)
  }
}

const failed =
  (name: GroupTransitionName) =>
  (tx: Transaction, ctx: StepContext<unknown>): Promise<void> =>
    settle(tx, ctx, name, 'onError')

export const createGroup: OperationKind<Nothing> = operation('group.create', {
  version: 1,
  steps: [
    step('register', {
      record: async (tx, ctx) => {
        const group = await theGroup(tx, ctx.resourceId)
        await ctx.services.witness.register(tx, group.id, group.source_az, group.target_az)
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
    step('forget', {
      record: async (tx, ctx) => {
        const group = await theGroup(tx, ctx.resourceId)
        const { record } = ctx.results['close_record'] as Closed
        for (const site of [group.source_az, group.target_az]) {
          // A silent agent may still have the session. After this the witness no longer knows it and could not say so.
          if (record.epoch === 0 || ctx.services.agents.heard(site)) continue
          const request = { record: toWire(record) }
          await addChore(
            tx,
            { site, command: 'session.close', request },
            ctx.services.clock.wallMs(),
          )
        }
        await ctx.services.witness.forget(tx, ctx.resourceId)
        await deleteGroupRow(tx, ctx.resourceId)
      },
    }),
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
  ],
  failed: failed('reprotect'),
})

const openRequest = (
  ctx: StepContext<unknown>,
  group: ProtectionGroupRow,
  { epoch }: Ownership,
) => ({
  kind: 'open' as const,
  epoch,
  attempt: ctx.attemptId,
  writer: productionAz(group),
  replica: drAz(group),
})

const isOpen =
  (group: ProtectionGroupRow) =>
  (record: Ownership): boolean =>
    (record.state === 'resyncing' || record.state === 'in_sync') &&
    record.writer === productionAz(group)

/** Every pair with two usable disks joins. The others (failed creations) stay out until they are deleted. */
function chooseMembers(): Step<Nothing> {
  return step('choose_members', {
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
      record: (tx, ctx) => settle(tx, ctx, name, 'to'),
    }),
  ]
}

// ---------------------------------------------------------------- stop

/** Result of closing: whether both sides were known to be equal at that moment. */
interface Closed {
  readonly record: Ownership
  readonly inSync: boolean
}

function closeRecord(): Step<Nothing> {
  return step<Nothing, Closed>('close_record', {
    act: async (ctx) => {
      const before = await theRecord(ctx.services, ctx.resourceId)
      const record = await changeRecord(
        ctx,
        ctx.resourceId,
        ({ state }) => state === 'closed',
        ({ epoch }) => ({ kind: 'close', epoch, attempt: ctx.attemptId }),
      )
      return { record, inSync: before.state === 'in_sync' }
    },
  })
}

function closeAt(name: string, site: (group: ProtectionGroupRow) => string): Step<Nothing> {
  return step(name, {
    act: async (ctx) => {
      const group = await theGroup(ctx.services.store.db, ctx.resourceId)
      await unlessSilent(ctx, site(group), () => endSession(ctx, group.id, site(group)))
    },
  })
}

export const stopGroup: OperationKind<Nothing> = operation('group.stop', {
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
        await swapStation(tx, ctx)
        await settle(tx, ctx, 'reverse', 'to')
      },
    }),
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

async function swapStation(tx: Transaction, ctx: StepContext<unknown>): Promise<void> {
  const group = await theGroup(tx, ctx.resourceId)
  const station = otherStation(group.station === 'source' ? 'source' : 'target')
  const now = ctx.services.clock.wallMs()
  await updateGroup(tx, group.id, { station, reversing_to: null }, now)
}

// ---------------------------------------------------------------- failover

export interface Failover {
  readonly force: boolean
}

export const failoverGroup: OperationKind<Failover> = operation('group.failover', {
  version: 1,
  steps: [
    step<Failover, readonly string[]>('choose_members', {
      act: (ctx) => leftBehind(ctx),
      record: async (tx, ctx, pairs) => {
        const now = ctx.services.clock.wallMs()
        for (const id of pairs) {
          await movePair(tx, id, 'error', now)
          await updatePair(tx, id, { in_session: 0, failure_detail: DR_SIDE_NOT_IN_SYNC.code }, now)
        }
      },
    }),
    step('drop_left_behind', {
      act: async (ctx) => {
        const pairs = ctx.results['choose_members'] as readonly string[]
        if (pairs.length === 0) return
        const group = await theGroup(ctx.services.store.db, ctx.resourceId)
        // Before the DR side may write: it would serve the fragments with the rest.
        await withRecord(ctx, group.id, async ({ epoch }) => {
          await ctx.services.sites.command(
            drAz(group),
            'session.remove',
            {
              session: group.id,
              epoch,
              pairs: [...pairs],
              serving: 'standby',
              reason: 'the failover went without this pair: its disk was never copied in full',
            },
            { signal: ctx.signal },
          )
        })
      },
    }),
    step('failover_record', {
      retry: { attemptsMax: 40, pauseMostMs: 1_000 },
      act: async (ctx) => {
        const group = await theGroup(ctx.services.store.db, ctx.resourceId)
        const to = drAz(group)
        // A reversal that failed half way may have named the DR side already, which would wait for its replica for ever. It
        // is turned back first: only a failover makes the new writer wait out the old one's last answers.
        await changeRecord(
          ctx,
          group.id,
          ({ state, writer }) => writer !== to || state !== 'in_sync',
          ({ epoch }) => ({ kind: 'reverse', epoch, attempt: `${ctx.attemptId}.back` }),
        )
        return await changeRecord(
          ctx,
          group.id,
          ({ state, writer }) => writer === to && (state === 'failed_over' || state === 'closed'),
          ({ epoch, writer }) =>
            // After such a reversal the DR side may have gone on alone as well: it keeps what it has.
            writer === to
              ? { kind: 'close', epoch, attempt: ctx.attemptId }
              : {
                  kind: 'failover',
                  epoch,
                  attempt: ctx.attemptId,
                  force: ctx.input.force,
                  consent: false,
                },
        )
      },
    }),
    step('open_dr', {
      act: async (ctx) => {
        const group = await theGroup(ctx.services.store.db, ctx.resourceId)
        const record = await theRecord(ctx.services, group.id)
        if (record.state === 'closed') await endSession(ctx, group.id, drAz(group))
        else await openAt(ctx, group, drAz(group), ctx.input.force)
      },
      record: async (tx, ctx) => {
        const now = ctx.services.clock.wallMs()
        for (const pair of await pairsOfGroup(tx, ctx.resourceId)) {
          if (pair.in_session === 0) continue
          await updatePair(tx, pair.id, { progress: 100, blank_epoch: null }, now)
        }
        await swapStation(tx, ctx)
        await settle(tx, ctx, 'failover', 'to')
      },
    }),
    step('tell_old_writer', {
      act: async (ctx) => {
        const group = await theGroup(ctx.services.store.db, ctx.resourceId)
        try {
          await openAt(ctx, group, drAz(group), false, { timeoutMs: COURTESY_MS })
        } catch (error) {
          // It cannot write any more whether it hears this or not; the reconciler tells it again.
          ctx.services.log.info({ err: error, group: group.id }, 'the old writer was not told')
        }
      },
    }),
  ],
  failed: failed('failover'),
})

/**
 * The pairs that a forced failover goes without: those never copied in full. Their DR disks hold fragments, and copying them
 * back later would destroy the only good copy; so they leave the session and show the state error. Without force one
 * such pair refuses the whole failover.
 */
async function leftBehind(ctx: StepContext<Failover>): Promise<readonly string[]> {
  const { store, agents } = ctx.services
  const group = await theGroup(store.db, ctx.resourceId)
  const record = await theRecord(ctx.services, group.id)
  if (record.writer === drAz(group)) return []
  const { members, rise } = await store.read(async (db) => ({
    members: (await pairsOfGroup(db, group.id)).filter((pair) => pair.in_session === 1),
    rise: await latestRise(db, group.id),
  }))
  // What the DR side says now, and what production said last. After a restart reports may be of an older epoch, and must not
  // make a good copy look like a fragment.
  const said = [
    await statusAt(ctx, group.id, drAz(group)),
    agents.session(group.id, productionAz(group))?.status,
  ]
  const reports = said.flatMap((one) => (one?.epoch === record.epoch ? [one] : []))
  const copied = (pair: ReplicationPairRow) =>
    (rise !== null && rise > pair.added_epoch) ||
    reports.some((one) => one.members.some((member) => member.pair === pair.id && member.joined))
  const behind = members.filter((pair) => !copied(pair))
  if (behind.length === members.length) {
    throw new Fault(DR_SIDE_EMPTY, `failing over group ${group.id}`)
  }
  if (behind.length > 0 && !ctx.input.force) {
    throw new Fault(DR_SIDE_NOT_IN_SYNC, `failing over group ${group.id}`)
  }
  return behind.map((pair) => pair.id)
}
