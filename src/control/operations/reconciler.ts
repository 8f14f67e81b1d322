import { isFault } from '#base/fault.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import { rounds } from '#base/rounds.ts'
import {
  drAz,
  groupForm,
  groupStation,
  groupStatus,
  listAllGroups,
  pairsOfGroup,
  productionAz,
  updatePair,
} from '#control/resources/groups.ts'
import { endChore, failChore, listChores } from '#control/resources/surroundings.ts'
import { readOwnership } from '#control/resources/sync.ts'
import type { AgentRegistry } from '#control/sites/agents.ts'
import { refusalCode, type SiteClient } from '#control/sites/client.ts'
import type { Witness } from '#control/sites/witness.ts'
import { fromJson } from '#control/store/json.ts'
import type { Store } from '#control/store/store.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import type { Ownership } from '#domain/ownership.ts'
import { followedBy } from '#domain/followed-group.ts'
import { GROUP_TRANSIENT, type GroupStatus } from '#domain/protection-group.ts'
import { PAIR_BUSY, type PairStatus } from '#domain/replication-pair.ts'
import type { CommandName, CommandRequest } from '#wire/site/commands.ts'
import type { SessionStatus } from '#wire/site/witness.ts'
import { diskChore } from './disk-chores.ts'
import { isOfThisCopy, rebuildsOf } from './definitions/protection/copy-proof.ts'
import { closing, sessionMembers, toWire } from './definitions/protection/session.ts'
import { followRecord } from './follow-record.ts'

/* Brings agents to the record when their reports disagree with it.
 *
 * An agent looks after itself: after a start it asks the witness. This is for what it cannot know: a session that was
 * opened, closed, or lost a member while it was away, and commands of deletions that it missed (chores). An operation
 * that goes on without a silent site relies on this.
 *
 *   record               agent heard, reports             it is sent
 *   open                 no session, or an older epoch     session.open with record and members
 *   open                 a member is missing               session.open with record and members
 *   open                 a member too many                 session.remove
 *   in sync, resyncing   the link is down, both are heard  session.open: an address may have changed
 *   closed               a session                         session.close
 *   closed, not by it    the end of the session, older     session.close: it may serve its volumes plainly
 *
 * And the other way round: a group whose row does not say what a trusted record says follows it (follow-record.ts), a failed start among them that has come into sync, and a record that is
 * frozen while no operation of its group is at work is thawed, for then the failover that froze it was given up. In groups of the volume API the
 * preferred site is production, after a switch as well.
 *
 * It stays away from groups in transient states: their operation is at work. It only repeats what the database says, so doing it
 * twice, late, or from two control planes at once is harmless; agents refuse an older epoch.
 */
export interface ReconcilerOptions {
  readonly store: Store
  readonly clock: Clock
  readonly log: Log
  readonly agents: AgentRegistry
  readonly sites: SiteClient
  readonly witness: Witness
  /** Sites of this region. */
  readonly siteNames: readonly string[]
  /** Pause between two rounds. Default 2 s: longer than the pause between two reports. */
  readonly everyMs?: number
}

export interface Reconciler {
  start(): void
  /** Resolves when the round under way has ended. */
  stop(): Promise<void>
  /** One round now; for tests. */
  round(): Promise<void>
}

const EVERY_MS = 2_000
/** A command of a round gets this long: others wait for it. */
const COMMAND_MS = 5_000
/** A disagreement must be seen in so many rounds in a row: reports are up to a second behind the record, and links redial. */
const ROUNDS_BEFORE_ACTING = {
  open: 2,
  close: 2,
  remove: 2,
  redial: 4,
  follow: 2,
  thaw: 2,
  prefer: 1,
} as const

export function createReconciler(options: ReconcilerOptions): Reconciler {
  const { store, clock, log, agents, sites, witness, siteNames, everyMs = EVERY_MS } = options
  const seen = new Map<string, number>()
  /** Epoch under which a full copy of a group was last warned of. */
  const warned = new Map<string, number>()
  const looks = rounds(clock, everyMs, round, (error) => {
    log.error({ err: error }, 'a round of the reconciler failed')
  })

  async function round(): Promise<void> {
    const disagreements = new Set<string>()
    for (const site of siteNames) {
      if (agents.heard(site)) await chores(site)
    }
    const groups = await listAllGroups(store.db)
    const records = await readOwnership(
      store.db,
      groups.map((group) => group.id),
    )
    for (const group of groups) {
      if (GROUP_TRANSIENT.has(group.status as GroupStatus)) continue
      const row = records.get(group.id)
      if (row === undefined || row.epoch === 0) continue
      if (await settleRow(group, disagreements)) continue
      for (const site of [productionAz(group), drAz(group)]) {
        if (!agents.heard(site)) continue
        try {
          await reconcile(group, site, disagreements)
        } catch (error) {
          if (!isFault(error)) throw error
          log.info({ err: error, group: group.id, site }, 'the agent was not brought to the record')
        }
      }
      await rememberJoined(group)
      await preferProduction(group, disagreements)
      warnOfFullCopy(group)
    }
    for (const key of seen.keys()) if (!disagreements.has(key)) seen.delete(key)
  }

  /** True in as many rounds in a row as `action` needs. */
  function persists(key: string, action: keyof typeof ROUNDS_BEFORE_ACTING, all: Set<string>) {
    all.add(key)
    const rounds = (seen.get(key) ?? 0) + 1
    seen.set(key, rounds)
    if (rounds < ROUNDS_BEFORE_ACTING[action]) return false
    seen.delete(key)
    return true
  }

  /** True: the row and the record disagree, so that no agent is to be told anything in this round. */
  async function settleRow(
    group: ProtectionGroupRow,
    disagreements: Set<string>,
  ): Promise<boolean> {
    const record = await witness.record(group.id)
    if (record === null) return false
    if (record.state === 'frozen') {
      await thaw(group, record, disagreements)
      return true
    }
    const row = {
      status: groupStatus(group),
      station: groupStation(group),
      sourceAz: group.source_az,
    }
    if (followedBy(row, record) === null) return false
    if (persists(`${group.id} follow ${record.epoch}`, 'follow', disagreements)) {
      const reported = [record.writer, record.replica].flatMap(
        (site) => agents.session(group.id, site)?.status.members ?? [],
      )
      const members = new Set(reported.map(({ pair }) => pair))
      const wanted = await followRecord(store, clock, group.id, members)
      if (wanted !== null) {
        const { epoch, state, writer } = record
        log.warn({ group: group.id, from: row, wanted, epoch, state, writer }, 'a group follows')
      }
    }
    return true
  }

  async function thaw(
    group: ProtectionGroupRow,
    { epoch }: Ownership,
    disagreements: Set<string>,
  ): Promise<void> {
    if (!persists(`${group.id} thaw ${epoch}`, 'thaw', disagreements)) return
    log.warn({ group: group.id, epoch }, 'a record was left frozen; its writer goes on alone')
    try {
      const attempt = `reconciler.thaw.${epoch}`
      await witness.change(group.id, { kind: 'thaw', epoch, attempt }, 'reconciler')
    } catch (error) {
      if (!isFault(error)) throw error
      log.info({ err: error, group: group.id }, 'the record was not thawed')
    }
  }

  /** Once for each epoch of a session. */
  function warnOfFullCopy(group: ProtectionGroupRow): void {
    for (const site of [group.source_az, group.target_az]) {
      const status = agents.session(group.id, site)?.status
      if (status?.copy_kind !== 'full' || warned.get(group.id) === status.epoch) continue
      warned.set(group.id, status.epoch)
      log.warn(
        { group: group.id, epoch: status.epoch },
        'the two sites have no common history: all blocks are compared',
      )
    }
  }

  async function reconcile(
    group: ProtectionGroupRow,
    site: string,
    disagreements: Set<string>,
  ): Promise<void> {
    const record = await witness.record(group.id)
    if (record === null) return
    const pairs = await pairsOfGroup(store.db, group.id)
    // A pair in motion is the business of its own operation.
    if (pairs.some((pair) => PAIR_BUSY.has(pair.status as PairStatus))) return
    const wanted = pairs.filter((pair) => pair.in_session === 1).map((pair) => pair.id)
    const status = agents.session(group.id, site)?.status ?? null
    const peer = site === record.writer ? record.replica : record.writer
    const action = decide(record, wanted, status, agents.heard(peer), leftBehind(record, site))
    if (action === null) return
    const key = `${group.id} ${site} ${action.kind}`
    if (!persists(key, action.kind, disagreements)) return
    log.info(
      { group: group.id, site, action: action.kind, epoch: record.epoch, told: status?.epoch },
      'an agent disagrees with the record and is brought to it',
    )
    switch (action.kind) {
      case 'open':
      case 'redial':
        return await open(group, record, site)
      case 'close':
        await send(site, 'session.close', await closing(store.db, record, site))
        return
      case 'remove':
        await send(site, 'session.remove', {
          session: group.id,
          epoch: record.epoch,
          pairs: [...action.pairs],
          serving: site === record.writer ? 'standalone' : 'standby',
          reason: 'its replication pair left the group',
        })
        return
    }
  }

  /** The session ended at `site` under an older record than the one that has closed it since, which names the other site as the writer. */
  function leftBehind({ session, state, epoch, writer }: Ownership, site: string): boolean {
    if (state !== 'closed' || site === writer) return false
    const ended = agents.at(site)?.report.ended?.find((one) => one.session === session)
    return ended !== undefined && ended.epoch < epoch
  }

  async function open(group: ProtectionGroupRow, record: Ownership, site: string): Promise<void> {
    const members = await store.read((db) => sessionMembers(db, group, record.epoch))
    if (members.length === 0) return
    const peer = site === record.writer ? record.replica : record.writer
    await send(site, 'session.open', {
      record: toWire(record),
      members,
      peer_link: agents.at(peer)?.report.link_address ?? '',
      force: false,
    })
  }

  async function send<Name extends CommandName>(
    site: string,
    name: Name,
    request: CommandRequest<Name>,
  ): Promise<void> {
    await sites.command(site, name, request, { timeoutMs: COMMAND_MS })
  }

  /** In order. One that is refused does not hold up the others: a disk cannot go before its session has been closed. */
  async function chores(site: string): Promise<void> {
    for (const chore of await listChores(store.db, site)) {
      const fit = await store.read((db) => diskChore(db, chore))
      if (fit === 'later') continue
      if (fit === 'never') {
        log.info(
          { site, request: chore.request },
          'a disk is not served: another site writes it, or a session',
        )
        await store.write((tx) => endChore(tx, chore.id))
        continue
      }
      try {
        const name = chore.command as CommandName
        await send(site, name, fromJson<CommandRequest<typeof name>>(chore.request))
      } catch (error) {
        const code = refusalCode(error)
        if (!isNothingThere(code, chore.command)) {
          if (!isFault(error)) throw error
          if (error.message !== chore.last_error) {
            log.info({ err: error, site, chore: chore.command }, 'a chore has to wait')
          }
          await store.write((tx) => failChore(tx, chore.id, error.message))
          if (code === null) return
          continue
        }
      }
      await store.write((tx) => endChore(tx, chore.id))
    }
  }

  /**
   * A pair that was added to a group in sync is proved by the writer's word, which is gone when its site is. Written down, it
   * still counts at a failover.
   */
  async function rememberJoined(group: ProtectionGroupRow): Promise<void> {
    const record = await witness.record(group.id)
    if (record?.state !== 'in_sync') return
    const view = agents.session(group.id, record.writer)
    if (view?.status.epoch !== record.epoch || !agents.heard(record.writer)) return
    const joined = new Set(view.status.members.filter((one) => one.joined).map((one) => one.pair))
    const receivedMs = clock.wallMs() - view.ageMs
    const said = (await pairsOfGroup(store.db, group.id)).filter(
      (pair) => pair.in_session === 1 && pair.added_epoch >= record.epoch && joined.has(pair.id),
    )
    const rebuilds = await rebuildsOf(
      store.db,
      said.map((pair) => pair.id),
    )
    const proved = said.filter((pair) => isOfThisCopy(rebuilds.get(pair.id), receivedMs))
    if (proved.length === 0) return
    await store.write(async (tx) => {
      for (const pair of proved) {
        await updatePair(tx, pair.id, { added_epoch: record.epoch - 1 }, pair.updated_at)
      }
    })
  }

  /** What the volume API calls the priority station is production and the preferred site in one, so the latter follows a switch. */
  async function preferProduction(
    group: ProtectionGroupRow,
    disagreements: Set<string>,
  ): Promise<void> {
    if (groupForm(group) === 'sdrs') return
    const record = await witness.record(group.id)
    if (record?.state !== 'in_sync' || record.mode !== 'static-priority') return
    const { mode, writer } = record
    if (record.preferred === writer || !agents.heard(writer)) return
    if (!persists(`${group.id} prefer ${writer}`, 'prefer', disagreements)) return
    try {
      await send(writer, 'session.arbitrate', { session: group.id, mode, preferred: writer })
    } catch (error) {
      if (!isFault(error)) throw error
      log.info({ err: error, group: group.id, writer }, 'the preferred site has to wait')
    }
  }

  return {
    start: () => looks.start(),
    stop: () => looks.stop(),
    round,
  }
}

const NOTHING_THERE: ReadonlySet<string> = new Set([
  'VOLUME_UNKNOWN',
  'SESSION_UNKNOWN',
  // It was never begun there, or ended long ago.
  'WORK_UNKNOWN',
])

/**
 * What a chore was to end is not there: it has nothing left to do. A site that has no vault (any more) backs nothing up and attaches nothing; but a restore that it
 * has noted would write its volume when the vault is back.
 */
const isNothingThere = (code: string | null, command: string): boolean =>
  code !== null &&
  (NOTHING_THERE.has(code) || (code === 'NO_VAULT' && command !== 'restore.cancel'))

type Action =
  | { readonly kind: 'open' }
  | { readonly kind: 'redial' }
  | { readonly kind: 'close' }
  | { readonly kind: 'remove'; readonly pairs: readonly string[] }

/** What an agent has to be told; null: its report agrees with the record. `left`: as `leftBehind`. Exported for its test. */
export function decide(
  record: Pick<Ownership, 'state' | 'epoch'>,
  wanted: readonly string[],
  status: Pick<SessionStatus, 'epoch' | 'members' | 'link'> | null,
  peerHeard: boolean,
  left: boolean,
): Action | null {
  if (record.state === 'closed') return status === null && !left ? null : { kind: 'close' }
  // An agent that is ahead has a rise or drop that this round's record does not show yet.
  if (status !== null && status.epoch > record.epoch) return null
  if (status === null || status.epoch < record.epoch) {
    return wanted.length === 0 ? null : { kind: 'open' }
  }
  const has = status.members.map((member) => member.pair)
  const extra = has.filter((pair) => !wanted.includes(pair))
  if (extra.length > 0) return { kind: 'remove', pairs: extra }
  if (wanted.some((pair) => !has.includes(pair))) return { kind: 'open' }
  const replicating = record.state === 'in_sync' || record.state === 'resyncing'
  return replicating && status.link === 'down' && peerHeard ? { kind: 'redial' } : null
}
