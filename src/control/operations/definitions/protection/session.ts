import { assert } from '#base/assert.ts'
import { type Fault, fault, isFault, Fault as FaultError } from '#base/fault.ts'
import { sleep } from '#base/clock.ts'
import { pairsOfGroup, readGroup, volumeAt } from '#control/resources/groups.ts'
import { readVolumes } from '#control/resources/volumes.ts'
import type { CommandOptions } from '#control/sites/client.ts'
import { refusalCode, SITE_NEVER_SEEN, SITE_UNREACHABLE } from '#control/sites/client.ts'
import type { Arbitration } from '#control/sites/witness.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { ProtectionGroupRow, ReplicationPairRow } from '#control/store/tables/resources.ts'
import type { Ownership, OwnershipRequest } from '#domain/ownership.ts'
import { GIB } from '#domain/volume.ts'
import type { CommandRequest, SessionMember } from '#wire/site/commands.ts'
import type { OwnershipRecord, SessionStatus } from '#wire/site/witness.ts'
import type { StepContext } from '../../operation.ts'
import type { OperationServices } from '../../services.ts'

/* What the steps of groups and pairs have in common: the way from the database's truth to the witness and the agents.
 *
 * Two rules make every step safe to run twice:
 *
 * - Before the witness is asked for a change, its record is compared with what the step wants. A step that was interrupted after
 *   its change finds it done, even when the agents have moved the record on since (a rise raises the epoch and
 *   replaces the attempt id, so the witness itself would no longer recognise the repetition).
 * - Agents get the whole wanted state (record and members), never a difference.
 */

export const GROUP_MOVED_ON = fault({
  code: 'GROUP_MOVED_ON',
  retry: 'never',
  text: 'The group was switched while the pair was being changed.',
  hint: 'Delete the pair, and create it again when the group is available or protected.',
})
export const SESSION_OPENED_MEANWHILE = fault({
  code: 'SESSION_OPENED_MEANWHILE',
  retry: 'never',
  text: 'While replication was being ended, an operator promoted a site that had not heard of it (break-glass).',
  hint: 'The group follows the promoted site by itself within seconds. Look at it (`holdfast group show GROUP`), and repeat what is still wanted.',
})
export const REPLICATION_NOT_ESTABLISHED = fault({
  code: 'REPLICATION_NOT_ESTABLISHED',
  retry: 'later',
  text: 'The two sites did not find each other in time.',
  hint: 'Check the replication link: both agents say in their logs which address they dial and why it fails.',
})
export const SESSION_SETTLING = fault({
  code: 'SESSION_SETTLING',
  retry: 'later',
  text: 'The site is in the middle of a change of roles.',
  hint: 'It is repeated by itself; the change takes a few seconds.',
})
export const HOLD_NOT_DRAINED = fault({
  code: 'HOLD_NOT_DRAINED',
  retry: 'later',
  text: 'The production site could not bring the DR site to its own state in time.',
  hint: 'Reduce the write load or check the link, then repeat.',
})
export const DR_SIDE_NOT_IN_SYNC = fault({
  code: 'DR_SIDE_NOT_IN_SYNC',
  retry: 'never',
  text: 'The DR side is not known to hold everything that production acknowledged.',
  hint: 'Wait for the synchronisation, or fail over with "force": true and accept the loss.',
})
export const DR_SIDE_EMPTY = fault({
  code: 'DR_SIDE_EMPTY',
  retry: 'never',
  text: 'No disk of the group was ever copied to the DR side in full.',
  hint: 'There is nothing to fail over to; bring the production site back.',
})

export const DR_SIDE_FAILED = fault({
  code: 'DR_SIDE_FAILED',
  retry: 'never',
  text: 'The disk of the DR side has failed, so it cannot become production.',
  hint: "Look at the log of the DR site's agent; replace the disk and rebuild the pair from production.",
})
export const PREFERRED_SITE_MAY_RUN = fault({
  code: 'PREFERRED_SITE_MAY_RUN',
  retry: 'never',
  text: 'The preferred site of this static-priority group may be writing alone, without the witness.',
  hint: 'Make sure that it is off; then fail over with force and with the statement that it is off (`holdfast group failover GROUP --force --preferred-site-is-off`).',
})

/** How long start and reprotect wait for the first sign of a working link. */
const ESTABLISH_MS = 10_000
const ESTABLISH_POLL_MS = 200
/** A silent site that is only told a courtesy is given this long. */
export const COURTESY_MS = 2_000

type Db = Queries | Transaction
type Context = Pick<StepContext<unknown>, 'services' | 'attemptId' | 'id' | 'signal'>

/** A group that has an operation exists; only its own deletion ends it. */
export async function theGroup(db: Db, id: string): Promise<ProtectionGroupRow> {
  const group = await readGroup(db, id)
  assert(group !== undefined, 'a group with an operation exists')
  return group
}

/** A new group of the operation gets its record: its source is the writer. */
export async function registerGroup(
  tx: Transaction,
  ctx: StepContext<{ readonly arbitration?: Arbitration }>,
): Promise<void> {
  const { id, source_az: writer, target_az: replica } = await theGroup(tx, ctx.resourceId)
  await ctx.services.witness.register(tx, id, writer, replica, ctx.input.arbitration)
}

export const toWire = (record: Ownership): OwnershipRecord => ({
  session: record.session,
  epoch: record.epoch,
  state: record.state,
  writer: record.writer,
  replica: record.replica,
  mode: record.mode,
  preferred: record.preferred,
})

/** The session's members as the database wants them, for a record of this epoch. */
export async function sessionMembers(
  db: Db,
  group: ProtectionGroupRow,
  epoch: number,
): Promise<SessionMember[]> {
  const pairs = (await pairsOfGroup(db, group.id)).filter((pair) => pair.in_session === 1)
  return await membersOf(db, group, pairs, epoch)
}

async function membersOf(
  db: Db,
  group: ProtectionGroupRow,
  pairs: readonly ReplicationPairRow[],
  epoch: number,
): Promise<SessionMember[]> {
  const volumes = await readVolumes(
    db,
    pairs.flatMap((pair) => [pair.source_volume, pair.target_volume]),
  )
  return pairs.map((pair) => {
    const source = volumes.get(pair.source_volume)
    const target = volumes.get(pair.target_volume)
    assert(source !== undefined && target !== undefined, 'a member of a session has two volumes')
    return {
      index: pair.member,
      pair: pair.id,
      // While an extension has grown only one side, the session goes on with the size that both have.
      size_bytes: Math.min(source.size_gb, target.size_gb) * GIB,
      volumes: { [group.source_az]: pair.source_volume, [group.target_az]: pair.target_volume },
      replica_blank: pair.blank_epoch === epoch,
    }
  })
}

/** The record as it stands. Registered since the group was created. */
export async function theRecord(services: OperationServices, session: string): Promise<Ownership> {
  const record = await services.witness.record(session)
  assert(record !== null, 'the session of a group is registered with the witness')
  return record
}

/** Tries of a compare-and-set that loses against the agents' own changes (rise, drop). Two in a row are rare. */
const RACES_MAX = 10

/**
 * Brings the witness's record to what `done` accepts, with the request that `wanted` makes for the present record.
 * Returns the record that is in force then. Faults: the witness's.
 */
export async function changeRecord(
  ctx: Context,
  session: string,
  done: (record: Ownership) => boolean,
  wanted: (record: Ownership) => OwnershipRequest,
): Promise<Ownership> {
  for (let race = 1; ; race++) {
    const record = await theRecord(ctx.services, session)
    if (done(record)) return record
    try {
      return await ctx.services.witness.change(session, wanted(record), `operation:${ctx.id}`)
    } catch (error) {
      if (race >= RACES_MAX || !isStale(error)) throw error
    }
  }
}

const isStale = (error: unknown): boolean =>
  isFault(error) && (error as Fault).detail['refusal'] === 'STALE_EPOCH'

/**
 * Runs `act` with the present record, again with a newer one when the agent was already ahead: its own rise or drop
 * came between reading the record and sending the command.
 */
export async function withRecord<T>(
  ctx: Context,
  session: string,
  act: (record: Ownership) => Promise<T>,
): Promise<T> {
  for (let race = 1; ; race++) {
    try {
      return await act(await theRecord(ctx.services, session))
    } catch (error) {
      if (race >= RACES_MAX || refusalCode(error) !== 'STALE_EPOCH') throw error
    }
  }
}

export interface OpenOptions extends CommandOptions {
  /** Epoch of a frozen record that the old writer has persisted: the record right after it needs no wait for its contact. */
  readonly consentedEpoch?: number | null
}

/** Brings one site to the record in force; see the command for when it answers. Null: there is no member to open. */
export async function openAt(
  ctx: Context,
  group: ProtectionGroupRow,
  site: string,
  force = false,
  { consentedEpoch = null, ...options }: OpenOptions = {},
): Promise<SessionStatus | null> {
  const { services } = ctx
  return await withRecord(ctx, group.id, async (record) => {
    const members = await services.store.read((db) => sessionMembers(db, group, record.epoch))
    if (members.length === 0) return null
    const peer = site === record.writer ? record.replica : record.writer
    // Nobody but the operation that asked takes a group out of `frozen`, so the record right behind it is the one that was consented to; any other has
    // come by another way (break-glass, a restored database), and its writer has promised nothing.
    const gaveUp = consentedEpoch !== null && record.epoch === consentedEpoch + 1
    return await services.sites.command(
      site,
      'session.open',
      {
        record: toWire(record),
        members,
        peer_link: services.agents.at(peer)?.report.link_address ?? '',
        force,
        ...(gaveUp ? { old_writer_gave_up: true } : {}),
      },
      { signal: ctx.signal, ...options },
    )
  })
}

/** What tells `site` that `record` has closed its session. */
export async function closing(
  db: Queries,
  record: Ownership,
  site: string,
): Promise<CommandRequest<'session.close'>> {
  const group = await readGroup(db, record.session)
  if (group === undefined) return { record: toWire(record) }
  const pairs = await pairsOfGroup(db, group.id)
  return { record: toWire(record), volumes: pairs.map((pair) => volumeAt(group, pair, site)) }
}

/** Ends the session at one site. The record is closed already, unless break-glass has opened it again since. */
export async function endSession(ctx: Context, session: string, site: string): Promise<void> {
  const record = await theRecord(ctx.services, session)
  if (record.state !== 'closed') {
    throw new FaultError(SESSION_OPENED_MEANWHILE, `ending session ${session} at ${site}`)
  }
  try {
    const request = await closing(ctx.services.store.db, record, site)
    await ctx.services.sites.command(site, 'session.close', request, { signal: ctx.signal })
  } catch (error) {
    // A side that was just made the writer first waits until the old one has certainly fallen silent.
    if (refusalCode(error) !== 'WRONG_STATE') throw error
    throw new FaultError(SESSION_SETTLING, `ending session ${session} at ${site}`, {}, error)
  }
}

/** Waits until the writer reports a working link under this record or a later one. */
export async function established(ctx: Context, session: string, site: string): Promise<void> {
  const { services, signal } = ctx
  const giveUpMs = services.clock.bootMs() + ESTABLISH_MS
  const { epoch } = await theRecord(services, session)
  for (;;) {
    const status = await services.sites.command(site, 'session.show', { session }, { signal })
    if (status.epoch >= epoch && status.link === 'up' && status.role === 'writer') return
    if (services.clock.bootMs() > giveUpMs) {
      throw new FaultError(REPLICATION_NOT_ESTABLISHED, `starting replication of ${session}`)
    }
    await sleep(services.clock, ESTABLISH_POLL_MS, signal)
  }
}

/** What the agent of `site` says about a session now; undefined when it does not have it. */
export async function statusAt(
  ctx: Context,
  session: string,
  site: string,
): Promise<SessionStatus | undefined> {
  try {
    return await ctx.services.sites.command(
      site,
      'session.show',
      { session },
      { signal: ctx.signal },
    )
  } catch (error) {
    if (refusalCode(error) === 'SESSION_UNKNOWN') return undefined
    throw error
  }
}

/**
 * Runs `act`, unless the site is silent: then nothing happens and the answer is false. What a silent site missed, the
 * reconciler makes up for when it returns.
 */
export async function unlessSilent(
  ctx: Context,
  site: string,
  act: () => Promise<unknown>,
): Promise<boolean> {
  try {
    await act()
    return true
  } catch (error) {
    const away = isFault(error, SITE_UNREACHABLE) || isFault(error, SITE_NEVER_SEEN)
    if (!away || ctx.services.agents.heard(site)) throw error
    ctx.services.log.warn({ site, operation: ctx.id }, 'went on without a silent site')
    return false
  }
}

/** The project of an operation on its resources. */
export function ownerOf(ctx: StepContext<unknown>): string {
  assert(ctx.project !== null, 'operations on resources belong to a project')
  return ctx.project
}
