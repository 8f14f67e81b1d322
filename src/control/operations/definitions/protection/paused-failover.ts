import { fault, Fault, isFault } from '#base/fault.ts'
import { newId } from '#base/ids.ts'
import {
  drAz,
  findGroup,
  groupForm,
  groupStatus,
  moveGroup,
  movePair,
  pairsOfGroup,
  pairStatus,
  productionAz,
  updateGroup,
  updatePair,
  volumeAt,
} from '#control/resources/groups.ts'
import { insertSnapshot } from '#control/resources/snapshots.ts'
import { addChore, endDiskChores } from '#control/resources/surroundings.ts'
import { CLOSED_AGAIN, latestPause, readOwnership } from '#control/resources/sync.ts'
import { readVolumes } from '#control/resources/volumes.ts'
import { refusalCode, SITE_NEVER_SEEN, SITE_UNREACHABLE } from '#control/sites/client.ts'
import { toJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { ProtectionGroupRow, ReplicationPairRow } from '#control/store/tables/resources.ts'
import { describeGivenUp } from '#domain/failover.ts'
import type { Ownership, OwnershipRequest } from '#domain/ownership.ts'
import { followsGroup, PAIR_BUSY } from '#domain/replication-pair.ts'
import {
  childrenStep,
  type Failure,
  operation,
  step,
  type StepContext,
  StepWaits,
} from '../../operation.ts'
import { failed, settle, swapStation } from './group-settle.ts'
import { GROUP_RESOURCE } from './groups.ts'
import { type Outcome, type RequestServices, refused } from '../requests.ts'
import { changeRecord, endSession, theGroup, theRecord } from './session.ts'
import { createSnapshot, SNAPSHOT_RESOURCE } from '../volumes/snapshots.ts'

/* The failover of a consistency group that is paused: its DR disks are as they were when it was, at one moment for all of them, and become
 * production so. What production wrote since is given up, which takes the caller's word.
 *
 *   look_at_dr      the DR disks are there, whole, and nobody has been given them since
 *   fence           production, if it can be told, serves no longer
 *   switch_record   open → failed over → closed: paused as before, with the other site as the one that writes      (witness)
 *   serve_dr        the DR disks are plain ones that clients may open; roles swap
 *   fence_late      production serves no longer, said once more: it was silent, or an order to serve was on its way when it was fenced. Until it
 *                   is heard this waits, and with it every reprotection
 *   keep            a snapshot of the old production, for what it wrote since the pause: reprotecting overwrites it
 *
 * Until the record names the other site nothing is decided: a failure leaves the group paused as it was, and production is opened again if it was
 * told to refuse. From there on a failure is continued by repeating the command, and the DR disks may be in use already.
 *
 * There is no session before and none after, so no lease either: a paused production has none. That is why production that cannot be told makes
 * this a matter of force, as with any writer that nobody bounds.
 */

export interface PausedFailover {
  /** The operator's statement that the preferred site of a static-priority group is off. */
  readonly preferredOff?: boolean
}

export const DR_DISK_NOT_KEPT = fault({
  code: 'DR_DISK_NOT_KEPT',
  retry: 'never',
  text: 'A DR disk is not as it was when the group was paused.',
  hint: 'It is gone, has failed, or has been in use since. The group stays paused: bring production back, and sync the group.',
})

type Context = StepContext<PausedFailover>

/** An old production is looked for this often. */
const WAIT_MS = 5_000
/** So often production that reports, but whose command address does not answer, is told to refuse before this goes on without. */
const FENCE_TRIES = 5
/** About 40 s: a lease of before the pause has ended then. */
const SWITCH_TRIES = 40
/** About 15 minutes. The switch is decided, and neither site serves: only a site that is down for longer ends it. */
const SERVE_TRIES = 120

type Db = Queries | Transaction

export const failoverPausedGroup = operation<PausedFailover>('group.failover-paused', {
  version: 1,
  steps: [
    step('look_at_dr', { retry: { attemptsMax: 5 }, act: lookAtDr }),
    step('fence', {
      act: fence,
    }),
    step('switch_record', {
      retry: { attemptsMax: SWITCH_TRIES, pauseMostMs: 1_000 },
      act: switchRecord,
      record: async (tx, ctx) => {
        const group = await theGroup(tx, ctx.resourceId)
        // Of a try that failed: they would open the old production again.
        for (const site of [group.source_az, group.target_az]) {
          await endDiskChores(tx, site, await disksAt(tx, group, site))
        }
      },
    }),
    step('serve_dr', {
      retry: { attemptsMax: SERVE_TRIES },
      act: async (ctx) => await serveAt(ctx, drAz(await groupOf(ctx))),
      record: async (tx, ctx) => {
        await swapStation(tx, ctx, 'waits')
        await settle(tx, ctx, 'failover', 'to')
      },
    }),
    step('fence_late', {
      act: async (ctx) => {
        const old = drAz(await groupOf(ctx))
        if (!ctx.services.agents.heard(old)) throw new StepWaits(WAIT_MS)
        try {
          await refuseAt(ctx, old)
        } catch (error) {
          // Both sites would serve: this is not given up.
          if (isFault(error) && error.kind.retry === 'never') throw error
          ctx.services.log.warn({ err: error, site: old }, 'the old production is not fenced yet')
          throw new StepWaits(WAIT_MS)
        }
      },
    }),
    childrenStep('keep', {
      submit: async (tx, ctx, submit) => {
        const group = await theGroup(tx, ctx.resourceId)
        const site = drAz(group)
        const volumes = await disksAt(tx, group, site)
        const kept = await insertKept(tx, ctx, group, volumes)
        await submit(createSnapshot, {
          project: group.project,
          resourceType: SNAPSHOT_RESOURCE,
          resourceId: kept,
          input: { site, volumes },
          entities: { snapshot_id: kept },
        })
      },
    }),
  ],
  failed: async (tx, ctx, failure) => {
    const group = await theGroup(tx, ctx.resourceId)
    const undecided = groupStatus(group) === 'failing-over' && (await isUndecided(tx, group))
    if (undecided && failure.step !== null && failure.step !== 'look_at_dr') {
      await unfence(tx, ctx, group)
    }
    if (undecided && (await isClosed(tx, group))) await staysPaused(tx, ctx, group, failure)
    else await failed('failover')(tx, ctx, failure)
  },
})

const groupOf = (ctx: Context) => theGroup(ctx.services.store.db, ctx.resourceId)

/** Its pairs with two disks, which go along. */
async function membersOf(db: Db, group: string) {
  return (await pairsOfGroup(db, group)).filter((pair) => pairStatus(pair) !== 'error')
}

async function disksAt(db: Db, group: ProtectionGroupRow, site: string): Promise<string[]> {
  return (await membersOf(db, group.id)).map((pair) => volumeAt(group, pair, site))
}

async function lookAtDr(ctx: Context): Promise<void> {
  const { store, sites } = ctx.services
  const group = await groupOf(ctx)
  // A try that failed behind the switch may have opened some of them.
  if ((await theRecord(ctx.services, group.id)).writer === drAz(group)) return
  for (const volume of await disksAt(store.db, group, drAz(group))) {
    const info = await sites.command(drAz(group), 'volume.show', { volume }, { signal: ctx.signal })
    if (info.failed === null && info.serving === 'standby') continue
    throw new Fault(DR_DISK_NOT_KEPT, `failing over disk ${volume}`)
  }
}

async function serveAt(ctx: Context, site: string): Promise<void> {
  const { store, sites } = ctx.services
  const group = await groupOf(ctx)
  for (const volume of await disksAt(store.db, group, site)) {
    const request = { volume, serving: 'standalone', reason: '' } as const
    await sites.command(site, 'volume.serve', request, { signal: ctx.signal })
  }
}

/** True: production serves no longer. False: it cannot be told. */
async function fence(ctx: Context): Promise<boolean> {
  const site = productionAz(await groupOf(ctx))
  try {
    await refuseAt(ctx, site)
    return true
  } catch (error) {
    const away = isFault(error, SITE_UNREACHABLE) || isFault(error, SITE_NEVER_SEEN)
    const heard = ctx.services.agents.heard(site)
    if (!away || (heard && ctx.attempt < FENCE_TRIES)) throw error
    ctx.services.log.warn({ site, operation: ctx.id }, 'fails over without fencing production')
    return false
  }
}

async function refuseAt(ctx: Context, site: string): Promise<void> {
  const { store, sites } = ctx.services
  const group = await groupOf(ctx)
  for (const volume of await disksAt(store.db, group, site)) {
    const request = { volume, serving: 'standby', reason: FENCED } as const
    const refuse = () => sites.command(site, 'volume.serve', request, { signal: ctx.signal })
    try {
      await refuse()
    } catch (error) {
      const code = refusalCode(error)
      // A storage that was made anew has nothing to serve.
      if (code === 'VOLUME_UNKNOWN') continue
      const { state } = await theRecord(ctx.services, group.id)
      if (code !== 'VOLUME_BUSY' || state !== 'closed') throw error
      // It has not heard of the pause.
      await endSession(ctx, group.id, site)
      await refuse()
    }
  }
}

const FENCED = 'its group has failed over to the other site'

/** Whatever of the three changes an interrupted try has made is found made. */
async function switchRecord(ctx: Context): Promise<void> {
  const to = drAz(await groupOf(ctx))
  const by = {
    attempt: ctx.attemptId,
    consent: ctx.results['fence'] === true,
    preferredOff: ctx.input.preferredOff === true,
  }
  const done = (record: Ownership) => isHandedOver(record, to)
  let record: Ownership
  try {
    do {
      record = await changeRecord(ctx, ctx.resourceId, done, (now) => nextChange(now, to, by))
    } while (!done(record))
  } catch (error) {
    const last = ctx.attempt >= SWITCH_TRIES || (isFault(error) && error.kind.retry === 'never')
    if (last) await closeAgain(ctx, to)
    throw error
  }
}

/** The group stays paused: what was opened for the switch is closed again, unless the switch is made. */
async function closeAgain(ctx: Context, to: string): Promise<void> {
  const done = ({ state, writer }: Ownership) => state === 'closed' || writer === to
  try {
    await changeRecord(ctx, ctx.resourceId, done, ({ epoch }) => {
      return { kind: 'close', epoch, attempt: `${ctx.attemptId}${CLOSED_AGAIN}` }
    })
  } catch (error) {
    ctx.services.log.warn({ err: error, group: ctx.resourceId }, 'a record was left open')
  }
}

export const isHandedOver = ({ state, writer }: Ownership, to: string): boolean =>
  state === 'closed' && writer === to

/** `consent`: production has been told, and serves no longer. */
export function nextChange(
  { epoch, state, writer }: Ownership,
  to: string,
  by: { readonly attempt: string; readonly consent: boolean; readonly preferredOff: boolean },
): OwnershipRequest {
  const { attempt, consent, preferredOff } = by
  if (writer === to) return { kind: 'close', epoch, attempt: `${attempt}.close` }
  if (state === 'closed') {
    return { kind: 'open', epoch, attempt: `${attempt}.open`, writer, replica: to }
  }
  const name = `${attempt}.failover`
  return { kind: 'failover', epoch, attempt: name, force: true, consent, preferredOff }
}

/** Of users, who read it or delete it: what they lost is in it. */
async function insertKept(
  tx: Transaction,
  ctx: Context,
  group: ProtectionGroupRow,
  volumes: readonly string[],
): Promise<string> {
  const now = ctx.services.clock.wallMs()
  const sizes = [...(await readVolumes(tx, volumes)).values()]
  const id = newId()
  await insertSnapshot(tx, {
    id,
    project: group.project,
    name: `${group.name}-before-failover`.slice(0, 64),
    description: 'The old production disks, with what they held when the paused group failed over.',
    metadata: '{}',
    size_gb: sizes.reduce((total, { size_gb }) => total + size_gb, 0),
    group_id: group.id,
    site: drAz(group),
    volumes: toJson(volumes),
    status: 'creating',
    facts: null,
    failure_detail: null,
    created_at: now,
    updated_at: now,
  })
  return id
}

const rowOf = async (tx: Transaction, group: ProtectionGroupRow) =>
  (await readOwnership(tx, [group.id])).get(group.id)

/** It has not come to the switch. */
const isUndecided = async (tx: Transaction, group: ProtectionGroupRow) =>
  (await rowOf(tx, group))?.writer === productionAz(group)

const isClosed = async (tx: Transaction, group: ProtectionGroupRow) =>
  (await rowOf(tx, group))?.state === 'closed'

/** Production goes on: at the latest when its site is heard again. What the reconciler looks at before it says so is in disk-chores.ts. */
async function unfence(tx: Transaction, ctx: Context, group: ProtectionGroupRow): Promise<void> {
  const site = productionAz(group)
  for (const volume of await disksAt(tx, group, site)) {
    const request = { volume, serving: 'standalone', reason: '' }
    await addChore(tx, { site, command: 'volume.serve', request }, ctx.services.clock.wallMs())
  }
}

/** Paused as it was before, with the reason why it has not failed over. */
async function staysPaused(
  tx: Transaction,
  ctx: Context,
  group: ProtectionGroupRow,
  { code }: Failure,
): Promise<void> {
  const now = ctx.services.clock.wallMs()
  await moveGroup(tx, group.id, 'available', now)
  await updateGroup(tx, group.id, { failure_detail: code }, now)
  for (const pair of await pairsOfGroup(tx, group.id)) {
    if (pairStatus(pair) === 'failing-over') await movePair(tx, pair.id, 'available', now)
  }
}

// ---------------------------------------------------------------- request

export type PausedFailoverRefusal =
  | 'GROUP_UNKNOWN'
  | 'GROUP_STATE'
  | 'GROUP_WITHOUT_PAIRS'
  | 'GROUP_BUSY_PAIRS'
  | 'GROUP_NOT_EQUAL'
  | 'FORCE_NEEDED'
  | 'PREFERRED_MAY_RUN'
  | 'DR_SITE_SILENT'

/** A group that is paused: no session, and none being made. Also one whose failover out of that state has failed. */
export async function isPaused(db: Db, group: ProtectionGroupRow): Promise<boolean> {
  if (groupForm(group) !== 'evs') return false
  const row = (await readOwnership(db, [group.id])).get(group.id)
  if (row === undefined || row.epoch === 0) return false
  const paused = groupStatus(group) === 'available' || groupStatus(group) === 'error-updating'
  if (paused) return row.state === 'closed'
  if (groupStatus(group) !== 'error-failing-over') return false
  return (await pairsOfGroup(db, group.id)).every((pair) => pair.in_session === 0)
}

/** All of them were in the session that was ended, equal then: what their DR disks hold is of one moment. */
export const equalAtPause = (
  pairs: readonly Pick<ReplicationPairRow, 'progress' | 'added_epoch'>[],
): boolean => pairs.every(({ progress, added_epoch }) => progress === 100 && added_epoch > 0)

export async function requestPausedFailover(
  services: RequestServices,
  project: string,
  id: string,
  command: { readonly force: boolean; readonly preferredOff: boolean },
): Promise<Outcome<object, PausedFailoverRefusal> & { readonly pausedAt?: number | null }> {
  const { store, operations, clock, agents } = services
  return await store.write(async (tx) => {
    const group = await findGroup(tx, project, id, 'evs')
    if (group === undefined) return refused('GROUP_UNKNOWN')
    if (!(await isPaused(tx, group))) return refused('GROUP_STATE')
    const pairs = await membersOf(tx, id)
    if (pairs.length === 0) return refused('GROUP_WITHOUT_PAIRS')
    if (pairs.some((pair) => PAIR_BUSY.has(pairStatus(pair)))) return refused('GROUP_BUSY_PAIRS')
    if (!equalAtPause(pairs)) return refused('GROUP_NOT_EQUAL')
    if (!agents.heard(drAz(group))) return refused('DR_SITE_SILENT')
    const since = await latestPause(tx, id, productionAz(group))
    if (!command.force) return { ...refused('FORCE_NEEDED'), pausedAt: since }
    const record = (await readOwnership(tx, [id])).get(id)
    const preferred = record?.mode === 'static-priority' && record.preferred === productionAz(group)
    if (preferred && !command.preferredOff && !agents.heard(productionAz(group))) {
      return refused('PREFERRED_MAY_RUN')
    }
    const now = clock.wallMs()
    await moveGroup(tx, id, 'failing-over', now)
    await updateGroup(tx, id, { failure_detail: null }, now)
    for (const pair of pairs) {
      if (!followsGroup(pairStatus(pair))) continue
      await movePair(tx, pair.id, 'failing-over', now)
      await updatePair(tx, pair.id, { blank_epoch: null }, now)
    }
    const lost = { kind: 'unknown', bytes: null, since } as const
    await operations.submit(tx, failoverPausedGroup, {
      project,
      resourceType: GROUP_RESOURCE,
      resourceId: id,
      input: { preferredOff: command.preferredOff },
      entities: {
        server_group_id: id,
        name: group.name,
        given_up: lost,
        given_up_at_least: describeGivenUp(lost),
      },
    })
    return { ok: true }
  })
}
