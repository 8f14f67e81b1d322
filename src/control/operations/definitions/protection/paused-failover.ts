import { fault, Fault, isFault } from '#base/fault.ts'
import { newId } from '#base/ids.ts'
import {
  drAz,
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
import { CLOSED_AGAIN, readOwnership } from '#control/resources/sync.ts'
import { readVolumes } from '#control/resources/volumes.ts'
import { refusalCode, SITE_NEVER_SEEN, SITE_UNREACHABLE } from '#control/sites/client.ts'
import { toJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import { describeGivenUp } from '#domain/failover.ts'
import type { Ownership, OwnershipRequest } from '#domain/ownership.ts'
import {
  childrenStep,
  type Failure,
  operation,
  step,
  type StepContext,
  StepWaits,
} from '../../operation.ts'
import { failed, settle, swapStation } from './group-settle.ts'
import { changeRecord, endSession, theGroup, theRecord, unlessSilent } from './session.ts'
import { createSnapshot, SNAPSHOT_RESOURCE } from '../volumes/snapshots.ts'

/* The failover of a group that is paused (SDRS says stopped): its DR disks are as they were when it was, at one moment for all of them, and become
 * production so. What production wrote since is given up, which takes the caller's word.
 *
 *   look_at_dr      the DR disks are there, whole, and nobody has been given them since
 *   fence           production, if it can be told, serves no longer
 *   switch_record   open → failed over → closed: paused as before, with the other site as the one that writes      (witness)
 *   serve_dr        the DR disks are plain ones that clients may open; roles swap. One that was lost since it was looked at is left behind, with its
 *                   pair in error; when none is left production gets the record back, and the group stays paused
 *   fence_late      production serves no longer, said once more: it was silent, or an order to serve was on its way when it was fenced. Until it
 *                   is heard this waits, and with it every reprotection
 *   keep            a snapshot of the old production, for what it wrote since the pause: reprotecting overwrites it
 *
 * Until the record names the other site nothing is decided: a failure leaves the group paused as it was, and production is opened again if it was
 * told to refuse. From there on a failure is continued by repeating the command, and the DR disks may be in use already.
 *
 * Both sites are told the closed record that names the other site, and keep it as the last one of the session: the DR site before it serves, production when
 * it is fenced late. A state database that is restored from before the switch takes it over from their reports.
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

export const DR_DISKS_LOST = fault({
  code: 'DR_DISKS_LOST',
  retry: 'never',
  text: 'The DR disks were lost while the paused group failed over: there is nothing to serve.',
  hint: 'The group stays paused, and production is opened again as soon as its site is heard. Bring the disks of the DR site back and sync the group; or remove its pairs, and pair the disks of production anew.',
})
export const DR_DISK_LOST = fault({
  code: 'DR_DISK_LOST',
  retry: 'never',
  text: 'The DR disk of the pair was lost while its paused group failed over: the group went without it.',
  hint: 'What the pair had is on its old production disk, which nothing overwrites. Delete the pair to open that disk again; a pair of a consistency group has to be removed from it first.',
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
    step<PausedFailover, boolean>('look_at_dr', {
      retry: { attemptsMax: 5 },
      act: lookAtDr,
      entities: (_, torn) => (torn ? lossSince(null) : {}),
    }),
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
    step<PausedFailover, readonly string[]>('serve_dr', {
      retry: { attemptsMax: SERVE_TRIES },
      act: serveDr,
      entities: (_, lost) => (lost.length === 0 ? {} : { pairs_lost: lost }),
      record: async (tx, ctx, lost) => {
        const now = ctx.services.clock.wallMs()
        for (const pair of lost) {
          await movePair(tx, pair, 'error', now)
          await updatePair(tx, pair, { failure_detail: DR_DISK_LOST.code }, now)
        }
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
          await endSession(ctx, ctx.resourceId, old)
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

/** For the answer: what production acknowledged since; null: nobody knows since when, one of the DR disks went through a loss of power. */
export function lossSince(since: number | null) {
  const lost = { kind: 'unknown', bytes: null, since } as const
  return { given_up: lost, given_up_at_least: describeGivenUp(lost) }
}

const groupOf = (ctx: Context) => theGroup(ctx.services.store.db, ctx.resourceId)

/** Its pairs with two disks, which go along. */
export async function membersOf(db: Db, group: string) {
  return (await pairsOfGroup(db, group)).filter((pair) => pairStatus(pair) !== 'error')
}

async function disksAt(db: Db, group: ProtectionGroupRow, site: string): Promise<string[]> {
  return (await membersOf(db, group.id)).map((pair) => volumeAt(group, pair, site))
}

/** Returns whether one of them went through a loss of power before the pause: since when it lacks anything nobody knows then. */
async function lookAtDr(ctx: Context): Promise<boolean> {
  const { store } = ctx.services
  const group = await groupOf(ctx)
  // A try that failed behind the switch may have opened some of them.
  if ((await theRecord(ctx.services, group.id)).writer === drAz(group)) return false
  let torn = false
  for (const volume of await disksAt(store.db, group, drAz(group))) {
    const kept = await keptAs(ctx, drAz(group), volume)
    torn ||= kept === 'torn'
    if (kept !== null) continue
    // An earlier try may have died on its way back to production.
    await closeAgain(ctx, drAz(group))
    throw new Fault(DR_DISK_NOT_KEPT, `failing over disk ${volume}`)
  }
  return torn
}

/** As it was at the pause: null if it is not. */
async function keptAs(
  ctx: Context,
  site: string,
  volume: string,
): Promise<'whole' | 'torn' | null> {
  const { sites } = ctx.services
  try {
    const info = await sites.command(site, 'volume.show', { volume }, { signal: ctx.signal })
    if (info.failed !== null || info.serving !== 'standby') return null
    return info.torn === true ? 'torn' : 'whole'
  } catch (error) {
    if (isLost(error)) return null
    throw error
  }
}

const isLost = (error: unknown): boolean => {
  const code = refusalCode(error)
  return code === 'VOLUME_UNKNOWN' || code === 'VOLUME_FAILED'
}

/**
 * Returns the pairs whose DR disks were lost: the others serve without them, as with a forced failover that leaves fragments behind. A record that
 * is on its way back to production stays on it, whatever is found later.
 */
async function serveDr(ctx: Context): Promise<readonly string[]> {
  const { services } = ctx
  const group = await groupOf(ctx)
  const [old, to] = [productionAz(group), drAz(group)]
  const members = await membersOf(services.store.db, group.id)
  const record = await theRecord(services, group.id)
  if (isHandedOver(record, to)) {
    // Before it serves under it: a database that is restored from before this must hear of the switch from the sites.
    await endSession(ctx, group.id, to)
    const lost: string[] = []
    for (const pair of members) {
      if (!(await serveDisk(ctx, to, volumeAt(group, pair, to)))) lost.push(pair.id)
    }
    if (lost.length < members.length) {
      if (lost.length > 0) {
        services.log.warn({ group: group.id, pairs: lost }, 'a failover goes without lost DR disks')
      }
      return lost
    }
  }
  const attempt = `${ctx.attemptId}.back`
  await handOver(ctx, old, { attempt, consent: true, preferredOff: false }, CLOSED_AGAIN)
  // What they were told of the switch is no longer the newest.
  for (const site of [to, old]) {
    await unlessSilent(ctx, site, () => endSession(ctx, group.id, site))
  }
  throw new Fault(DR_DISKS_LOST, `failing over group ${group.id}`)
}

/** False: the site has no such disk any more, or only a failed one. */
async function serveDisk(ctx: Context, site: string, volume: string): Promise<boolean> {
  const request = { volume, serving: 'standalone', reason: '' } as const
  try {
    const options = { signal: ctx.signal }
    const info = await ctx.services.sites.command(site, 'volume.serve', request, options)
    return info.failed === null
  } catch (error) {
    if (isLost(error)) return false
    throw error
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

async function switchRecord(ctx: Context): Promise<void> {
  const to = drAz(await groupOf(ctx))
  try {
    await handOver(ctx, to, {
      attempt: ctx.attemptId,
      consent: ctx.results['fence'] === true,
      preferredOff: ctx.input.preferredOff === true,
    })
  } catch (error) {
    const last = ctx.attempt >= SWITCH_TRIES || (isFault(error) && error.kind.retry === 'never')
    if (last) await closeAgain(ctx, to)
    throw error
  }
}

/** Whatever of the three changes an interrupted try has made is found made. `closing`: how the attempt of the last one ends. */
async function handOver(ctx: Context, to: string, by: Switch, closing?: string): Promise<void> {
  const done = (record: Ownership) => isHandedOver(record, to)
  let record: Ownership
  do {
    record = await changeRecord(ctx, ctx.resourceId, done, (now) =>
      nextChange(now, to, by, closing),
    )
  } while (!done(record))
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

interface Switch {
  readonly attempt: string
  /** The site that wrote until now has been told, and serves no longer. */
  readonly consent: boolean
  readonly preferredOff: boolean
}

export function nextChange(
  { epoch, state, writer }: Ownership,
  to: string,
  { attempt, consent, preferredOff }: Switch,
  closing = '.close',
): OwnershipRequest {
  if (writer === to) return { kind: 'close', epoch, attempt: `${attempt}${closing}` }
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
