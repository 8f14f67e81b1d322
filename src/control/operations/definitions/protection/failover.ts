import { Fault, isFault } from '#base/fault.ts'
import {
  drAz,
  movePair,
  pairsOfGroup,
  productionAz,
  updatePair,
} from '#control/resources/groups.ts'
import { latestRise } from '#control/resources/sync.ts'
import { OWNERSHIP_REFUSED } from '#control/sites/witness.ts'
import type { Store } from '#control/store/store.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import { describeGivenUp, freezesFirst, type GivenUp, givenUp } from '#domain/failover.ts'
import type { Ownership, OwnershipRequest } from '#domain/ownership.ts'
import type { SessionStatus } from '#wire/site/witness.ts'
import { type OperationKind, operation, step, type StepContext } from '../../operation.ts'
import { drWord, notCopied, rebuildsOf } from './copy-proof.ts'
import { foretell } from '../recovery/forecast.ts'
import { failed, settle, swapStation } from './group-settle.ts'
import { defineServers, fenceServers, startServers } from '../instances/instance-switch.ts'
import {
  changeRecord,
  COURTESY_MS,
  DR_SIDE_EMPTY,
  DR_SIDE_FAILED,
  DR_SIDE_NOT_IN_SYNC,
  endSession,
  openAt,
  PREFERRED_SITE_MAY_RUN,
  statusAt,
  theGroup,
  theRecord,
  withRecord,
} from './session.ts'

/* The forced switch: the DR side becomes writable.
 *
 *   choose_members     which pairs come along
 *   drop_left_behind   the others leave the DR side
 *   freeze_record      a writer that may be acknowledging alone: no lease is renewed from here on        (witness)
 *   ask_consent        it is told; when it has persisted the frozen record it answers nothing any more   (old writer, best effort)
 *   failover_record    with its consent at once, else when its lease has ended                           (witness)
 *   open_dr            the DR side serves, from its kept copy if it was in a resync; roles swap          (DR)
 *   tell_old_writer    so that its volumes say where to go                                               (old writer, best effort)
 *   fence_servers      the old production servers are powered off, see instance-switch.ts                (old site, best effort)
 *   define_servers     the new ones wear the NICs                                                        (both sites, best effort)
 *   start_servers      if the group is to                                                                (new site, best effort)
 *
 * Before `failover_record` has succeeded production can still go on: a refusal there thaws what was frozen. Should this process
 * never come to that, the reconciler thaws a record that is frozen while no operation of its group is at work.
 *
 * The consent of a writer is good for one epoch: the one that it persisted. With it the DR side need not wait out the writer's contact
 * either, so production that still answers is frozen also when it is in sync: that makes the switch a matter of a second.
 */
export interface Failover {
  readonly force: boolean
  /** The operator's statement that the preferred site of a static-priority group is off. */
  readonly preferredOff?: boolean
}

interface Frozen {
  /** State before; null: there was nothing to freeze. */
  readonly from: Ownership['state'] | null
  /** Epoch of the frozen record. */
  readonly epoch: number | null
  readonly givenUp: GivenUp
}

interface Consent {
  /** The frozen epoch that the old writer has persisted; null: it could not be reached. */
  readonly epoch: number | null
  /** Writes that it had acknowledged and the DR side had not, when it gave up; null: not known. */
  readonly writes: number | null
}

export const failoverGroup: OperationKind<Failover> = operation('group.failover', {
  version: 2,
  steps: [
    step<Failover, readonly string[]>('choose_members', {
      act: async (ctx) => {
        await foretell(ctx, 'failover', ctx.input.force)
        return await leftBehind(ctx)
      },
      record: async (tx, ctx, pairs) => {
        const now = ctx.services.clock.wallMs()
        for (const id of pairs) {
          await movePair(tx, id, 'error', now)
          await updatePair(tx, id, { in_session: 0, failure_detail: DR_SIDE_NOT_IN_SYNC.code }, now)
        }
      },
    }),
    step('drop_left_behind', { act: dropLeftBehind }),
    step<Failover, Frozen>('freeze_record', {
      act: freeze,
      entities: (_, { givenUp: lost }) => ({
        given_up: lost,
        given_up_at_least: describeGivenUp(lost),
      }),
    }),
    step<Failover, Consent>('ask_consent', {
      act: askConsent,
      entities: (_, { writes }) => (writes === null ? {} : { given_up_writes: writes }),
    }),
    step<Failover, Ownership>('failover_record', {
      // Longer than any lease, and than the wait of a witness that was just restored.
      retry: { attemptsMax: 40, pauseMostMs: 1_000 },
      act: switchRecord,
    }),
    step('open_dr', {
      act: async (ctx) => {
        const group = await theGroup(ctx.services.store.db, ctx.resourceId)
        const record = await theRecord(ctx.services, group.id)
        if (record.state === 'closed') await endSession(ctx, group.id, drAz(group))
        else {
          const { epoch } = ctx.results['ask_consent'] as Consent
          await openAt(ctx, group, drAz(group), ctx.input.force, { consentedEpoch: epoch })
        }
      },
      record: async (tx, ctx) => {
        const now = ctx.services.clock.wallMs()
        for (const pair of await pairsOfGroup(tx, ctx.resourceId)) {
          if (pair.in_session === 0) continue
          await updatePair(tx, pair.id, { progress: 100, blank_epoch: null }, now)
        }
        await swapStation(tx, ctx, 'waits')
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
    fenceServers(),
    defineServers(),
    startServers(),
  ],
  failed: failed('failover'),
})

// ---------------------------------------------------------------- who comes along

/**
 * The pairs that a forced failover goes without: those never copied in full. Their DR disks hold fragments, and copying them
 * back later would destroy the only good copy; so they leave the session and show the state error. Without force one
 * such pair refuses the whole failover.
 */
async function leftBehind(ctx: StepContext<Failover>): Promise<readonly string[]> {
  const { store, agents, clock } = ctx.services
  const group = await theGroup(store.db, ctx.resourceId)
  const record = await theRecord(ctx.services, group.id)
  if (record.writer === drAz(group)) return []
  const { members, rise, rebuilds } = await store.read(async (db) => {
    const pairs = await pairsOfGroup(db, group.id)
    return {
      members: pairs.filter((pair) => pair.in_session === 1),
      rise: await latestRise(db, group.id),
      rebuilds: await rebuildsOf(
        db,
        pairs.map((pair) => pair.id),
      ),
    }
  })
  // What the DR side says now, and what production said last.
  const asked = await statusAt(ctx, group.id, drAz(group))
  if (asked?.unfit === 'failed') throw new Fault(DR_SIDE_FAILED, `failing over group ${group.id}`)
  const said = agents.session(group.id, productionAz(group))
  const behind = notCopied(members, {
    epoch: record.epoch,
    rise,
    rebuilds,
    dr: asked === undefined ? null : { status: asked, receivedMs: null },
    production:
      said === null ? null : { status: said.status, receivedMs: clock.wallMs() - said.ageMs },
  })
  if (behind.length === members.length) {
    throw new Fault(DR_SIDE_EMPTY, `failing over group ${group.id}`)
  }
  if (behind.length > 0 && !ctx.input.force) {
    throw new Fault(DR_SIDE_NOT_IN_SYNC, `failing over group ${group.id}`)
  }
  return behind
}

async function dropLeftBehind(ctx: StepContext<Failover>): Promise<void> {
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
}

// ---------------------------------------------------------------- the witness

async function freeze(ctx: StepContext<Failover>): Promise<Frozen> {
  const { services, input } = ctx
  const group = await theGroup(services.store.db, ctx.resourceId)
  const to = drAz(group)
  const before = await theRecord(services, group.id)
  // Frozen already: by an earlier try of this step, or by a failover that was given up half way.
  const from =
    before.state === 'frozen'
      ? await stateBefore(services.store, group.id, before.epoch)
      : before.state
  const dr = drWord(await statusAt(ctx, group.id, drAz(group)))
  const lost = givenUp({ ...before, state: from }, dr)
  if (lost.kind !== 'nothing' && !input.force) {
    throw new Fault(DR_SIDE_NOT_IN_SYNC, `failing over group ${group.id}`)
  }
  if (before.state === 'frozen') return { from, epoch: before.epoch, givenUp: lost }
  const nothing = { from: null, epoch: null, givenUp: lost }
  const mustFreeze = (record: Ownership) => freezesFirst(record, to, input.force)
  // By its choice, not for safety: a production site that is heard can give up at once.
  const mayFreeze = (record: Ownership) =>
    record.state === 'in_sync' && record.writer !== to && services.agents.heard(record.writer)
  if (!mustFreeze(before) && !mayFreeze(before)) return nothing
  if (mustFreeze(before) && !input.force) await demandWitnessed(ctx, group)
  const record = await changeRecord(
    ctx,
    group.id,
    (now) => !mustFreeze(now) && !mayFreeze(now),
    ({ epoch }) => ({ kind: 'freeze', epoch, attempt: ctx.attemptId }),
  )
  if (record.state !== 'frozen') return nothing
  // The writer may have said more until it was frozen, and have gone on alone since it was looked at.
  const state = await stateBefore(services.store, group.id, record.epoch)
  return { from: state, epoch: record.epoch, givenUp: givenUp({ ...record, state }, dr) }
}

/** Out of which state the record was frozen. */
async function stateBefore(
  { db }: Store,
  session: string,
  epoch: number,
): Promise<Ownership['state']> {
  const row = await db
    .selectFrom('ownership_changes')
    .select('state')
    .where('session', '=', session)
    .where('epoch', '=', epoch - 1)
    .orderBy('at', 'desc')
    .executeTakeFirst()
  // A history that does not reach back proves nothing about what was acknowledged alone.
  return (row?.state ?? 'frozen') as Ownership['state']
}

/** Without force the preferred site must say itself, now, that it has acknowledged nothing alone. */
async function demandWitnessed(
  ctx: StepContext<Failover>,
  group: ProtectionGroupRow,
): Promise<void> {
  const status = await statusAt(ctx, group.id, productionAz(group))
  if (status?.unwitnessed === false && status.link === 'up') return
  throw new Fault(PREFERRED_SITE_MAY_RUN, `failing over group ${group.id}`)
}

/** What a writer needs to persist a record and to drop its clients; its lease is not longer than two of these. */
const CONSENT_MS = 4_000

async function askConsent(ctx: StepContext<Failover>): Promise<Consent> {
  const { services } = ctx
  const none = { epoch: null, writes: null }
  const group = await theGroup(services.store.db, ctx.resourceId)
  const record = await theRecord(services, group.id)
  if (record.state !== 'frozen') return none
  try {
    const status = await openAt(ctx, group, record.writer, false, { timeoutMs: CONSENT_MS })
    if (status?.epoch !== record.epoch || status.state !== 'frozen') return none
    return { epoch: record.epoch, writes: Math.max(0, status.sequence - status.acknowledged) }
  } catch (error) {
    ctx.signal.throwIfAborted()
    services.log.info({ err: error, group: group.id }, 'the old writer did not give up by itself')
    return none
  }
}

async function switchRecord(ctx: StepContext<Failover>): Promise<Ownership> {
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
  const switched = ({ state, writer }: Ownership) =>
    writer === to && (state === 'failed_over' || state === 'closed')
  await refuseFailedCopy(ctx, group, switched)
  for (;;) {
    try {
      const record = await changeRecord(ctx, group.id, switched, (now) => request(ctx, now, to))
      if (switched(record)) return record
    } catch (error) {
      if (!isFault(error, OWNERSHIP_REFUSED)) throw error
      await thaw(ctx, group)
      if (error.detail['refusal'] !== 'PREFERRED_MAY_RUN') throw error
      throw new Fault(PREFERRED_SITE_MAY_RUN, `failing over group ${group.id}`, {}, error)
    }
  }
}

/**
 * The DR side's disk may have failed since the members were chosen: a lease takes seconds to end. Then production goes on after all. A DR side
 * that cannot be asked at this moment is not refused: it was good, and is waited for as before.
 */
async function refuseFailedCopy(
  ctx: StepContext<Failover>,
  group: ProtectionGroupRow,
  switched: (record: Ownership) => boolean,
): Promise<void> {
  const record = await theRecord(ctx.services, group.id)
  if (switched(record) || record.writer === drAz(group)) return
  let unfit: SessionStatus['unfit'] | undefined
  try {
    unfit = (await statusAt(ctx, group.id, drAz(group)))?.unfit
  } catch (error) {
    ctx.services.log.info({ err: error, group: group.id }, 'the DR side was not asked again')
  }
  if (unfit !== 'failed') return
  await thaw(ctx, group)
  throw new Fault(DR_SIDE_FAILED, `failing over group ${group.id}`)
}

function request(ctx: StepContext<Failover>, record: Ownership, to: string): OwnershipRequest {
  const { epoch, writer, state } = record
  const { force, preferredOff } = ctx.input
  // After such a reversal the DR side may have gone on alone as well: it keeps what it has.
  if (writer === to) return { kind: 'close', epoch, attempt: ctx.attemptId }
  // The writer went on alone since, or was thawed: it is frozen again, and nobody has consented to this epoch.
  if (freezesFirst(record, to, force)) {
    return { kind: 'freeze', epoch, attempt: `${ctx.attemptId}.freeze` }
  }
  const frozen = ctx.results['freeze_record'] as Frozen
  const consent = ctx.results['ask_consent'] as Consent
  const wasInSync = state === 'frozen' && frozen.epoch === epoch && frozen.from === 'in_sync'
  return {
    kind: 'failover',
    epoch,
    attempt: ctx.attemptId,
    // Frozen by this operation out of `in_sync`, the DR side lacks nothing.
    force: force || wasInSync,
    consent: consent.epoch === epoch,
    preferredOff: preferredOff === true,
  }
}

/** Production goes on alone after all. */
async function thaw(ctx: StepContext<Failover>, group: ProtectionGroupRow): Promise<void> {
  const { log } = ctx.services
  const record = await changeRecord(
    ctx,
    group.id,
    ({ state }) => state !== 'frozen',
    ({ epoch }) => ({ kind: 'thaw', epoch, attempt: `${ctx.attemptId}.thaw` }),
  )
  try {
    await openAt(ctx, group, record.writer, false, { timeoutMs: COURTESY_MS })
  } catch (error) {
    log.info({ err: error, group: group.id }, 'the reconciler tells the thawed writer')
  }
}
