import type { Clock } from '#base/clock.ts'
import { drAz, productionAz } from '#control/resources/groups.ts'
import { latestRise, readOwnership } from '#control/resources/sync.ts'
import type { AgentRegistry } from '#control/sites/agents.ts'
import { trusted } from '#control/sites/history.ts'
import type { Witness } from '#control/sites/witness.ts'
import { readMeta } from '#control/store/meta.ts'
import type { Store } from '#control/store/store.ts'
import type { ProtectionGroupRow, ReplicationPairRow } from '#control/store/tables/resources.ts'
import { freezesFirst, type GivenUp, givenUp } from '#domain/failover.ts'
import type { Ownership } from '#domain/ownership.ts'
import {
  decideGroup,
  type GroupCommand,
  type GroupFacts,
  type GroupRefusal,
} from '#domain/protection-group.ts'
import type { SessionStatus } from '#wire/site/witness.ts'
import { drWord, notCopied, rebuildsOf } from '../protection/copy-proof.ts'
import {
  judgePausedFailover,
  type PausedFailoverRefusal,
} from '../protection/paused-failover-requests.ts'
import { groupFacts, type SyncSources } from '../protection/sync-views.ts'

/* What an action on a group would do, before it is asked for. It changes nothing and asks no agent: it is as old as the last reports, and
 * the action itself judges everything again. */

export interface PreflightServices extends SyncSources {
  readonly store: Store
  readonly agents: AgentRegistry
  readonly witness: Witness
  readonly clock: Clock
}

/** none: nothing is copied · delta: what changed · first: disks that were never copied · full: everything is compared · unknown: a site is silent */
export type CopyForecast = 'none' | 'delta' | 'first' | 'full' | 'unknown'

export interface Preflight {
  /** Null: the action would be accepted as asked. */
  readonly refusal: GroupRefusal | PreflightRefusal | PausedFailoverRefusal | null
  /** Members of the request with which a failover would be accepted. */
  readonly needs: readonly ('force' | 'preferred_off')[]
  /** Failover only. */
  readonly givenUp: GivenUp | null
  /** Failover only: the record is frozen first, and without the old writer's consent its lease is waited for. */
  readonly freezes: boolean
  /** Failover only: pairs whose DR disk was never copied in full. */
  readonly leavesBehind: readonly string[]
  /** Failover only: what the DR side said of its copy; null: nothing was heard from it. */
  readonly drCopy: 'consistent' | 'kept' | 'inconsistent' | 'failed' | null
  readonly copy: CopyForecast
  /** Failover only: the group is paused, see `preflightPaused`. */
  readonly paused: boolean
}

export type PreflightRefusal =
  | 'DR_SITE_SILENT'
  | 'DR_COPY_FAILED'
  | 'DR_SIDE_EMPTY'
  /** Pairs would be left behind, which takes force. */
  | 'DR_SIDE_NOT_IN_SYNC'
  | 'RECORD_IN_DOUBT'

export async function preflight(
  services: PreflightServices,
  group: ProtectionGroupRow,
  command: Exclude<GroupCommand, { readonly kind: 'rename' }>,
): Promise<Preflight & { readonly refusal: GroupRefusal | PreflightRefusal | null }> {
  const { store, witness, agents } = services
  const { facts, pairs } = await store.read((db) => groupFacts(db, services, group))
  const record = await witness.record(group.id)
  const heardAt = (site: string): SessionStatus | null =>
    agents.heard(site) ? (agents.session(group.id, site)?.status ?? null) : null
  const production = heardAt(productionAz(group))
  const dr = heardAt(drAz(group))
  const decision = decideGroup(facts, command)
  const copy = forecast(group, record, pairs, production, dr, command)
  const base = {
    refusal: decision.ok ? null : decision.refusal,
    needs: [],
    givenUp: null,
    freezes: false,
    leavesBehind: [],
    drCopy: copyAt(dr),
    copy,
    paused: false,
  } as const
  if (command.kind !== 'failover' || record === null) return base
  const leavesBehind = await neverCopied(services, group, record, pairs)
  const stops = stopsFailover(services, group, dr, pairs, leavesBehind, command.force)
  return {
    ...base,
    refusal: base.refusal ?? stops ?? ((await inDoubt(store, group.id)) ? 'RECORD_IN_DOUBT' : null),
    needs: needsOf(facts, leavesBehind),
    givenUp: givenUp(record, drWord(dr ?? undefined)),
    freezes: freezesFirst(record, drAz(group), command.force),
    leavesBehind,
  }
}

/** Of the failover of a group that is paused (`isPaused`): there is no session, and nothing to ask one. */
export async function preflightPaused(
  { store, agents }: PreflightServices,
  group: ProtectionGroupRow,
  command: { readonly force: boolean; readonly preferredOff: boolean },
): Promise<Preflight> {
  const judge = (by: typeof command) =>
    store.read((db) => judgePausedFailover(db, agents, group, by))
  const { refusal, pausedAt } = await judge(command)
  const forced = (await judge({ force: true, preferredOff: false })).refusal
  const doubt = (await inDoubt(store, group.id)) ? 'RECORD_IN_DOUBT' : null
  return {
    refusal: refusal ?? doubt,
    needs:
      forced === 'GROUP_PREFERRED_MAY_RUN'
        ? ['force', 'preferred_off']
        : forced === null
          ? ['force']
          : [],
    givenUp: { kind: 'unknown', bytes: null, since: pausedAt },
    freezes: false,
    leavesBehind: [],
    drCopy: null,
    copy: 'none',
    paused: true,
  }
}

/** What makes the job fail although its request is accepted. */
function stopsFailover(
  { agents }: PreflightServices,
  group: ProtectionGroupRow,
  dr: SessionStatus | null,
  pairs: readonly ReplicationPairRow[],
  leavesBehind: readonly string[],
  force: boolean,
): PreflightRefusal | null {
  if (!agents.heard(drAz(group))) return 'DR_SITE_SILENT'
  if (dr?.unfit === 'failed') return 'DR_COPY_FAILED'
  const members = pairs.filter((pair) => pair.in_session === 1).length
  if (members > 0 && leavesBehind.length === members) return 'DR_SIDE_EMPTY'
  return leavesBehind.length > 0 && !force ? 'DR_SIDE_NOT_IN_SYNC' : null
}

async function inDoubt(store: Store, session: string): Promise<boolean> {
  const row = (await readOwnership(store.db, [session])).get(session)
  return row !== undefined && !trusted(row, (await readMeta(store.db)).history_mark)
}

/** The least that has to be stated for the failover to be accepted. */
function needsOf(facts: GroupFacts, leavesBehind: readonly string[]): Preflight['needs'] {
  if (facts.preferredMayRun) return ['force', 'preferred_off']
  const plain = decideGroup(facts, { kind: 'failover', force: false })
  if (plain.ok && leavesBehind.length === 0) return []
  return decideGroup(facts, { kind: 'failover', force: true }).ok ? ['force'] : []
}

async function neverCopied(
  { store, agents, clock }: PreflightServices,
  group: ProtectionGroupRow,
  record: Ownership,
  pairs: readonly ReplicationPairRow[],
): Promise<string[]> {
  if (record.writer === drAz(group)) return []
  const word = (site: string) => {
    const view = agents.session(group.id, site)
    return view === null ? null : { status: view.status, receivedMs: clock.wallMs() - view.ageMs }
  }
  return notCopied(pairs, {
    epoch: record.epoch,
    rise: await latestRise(store.db, group.id),
    rebuilds: await rebuildsOf(
      store.db,
      pairs.map(({ id }) => id),
    ),
    dr: word(drAz(group)),
    production: word(productionAz(group)),
  })
}

function copyAt(dr: SessionStatus | null): Preflight['drCopy'] {
  if (dr === null) return null
  if (dr.unfit === 'failed') return 'failed'
  if (dr.kept !== null) return 'kept'
  return dr.consistent ? 'consistent' : 'inconsistent'
}

/** A delta needs the same last rise on both sides; what the agents find when they meet (a damaged map) can still make it full. */
function forecast(
  group: ProtectionGroupRow,
  record: Ownership | null,
  pairs: readonly ReplicationPairRow[],
  production: SessionStatus | null,
  dr: SessionStatus | null,
  command: GroupCommand,
): CopyForecast {
  if (command.kind !== 'start') return 'none'
  if (pairs.every((pair) => pair.never_replicated === 1)) return 'first'
  // Stopping protection ends the common history: nobody counts changes of plain volumes.
  if (record === null || record.state === 'closed') return 'full'
  if (group.status === 'available') return 'full'
  return copyOnReturn(production, dr)
}

/** What has to be copied when two sides of an open session find each other again. */
export function copyOnReturn(
  one: Pick<SessionStatus, 'base_epoch'> | null,
  other: Pick<SessionStatus, 'base_epoch'> | null,
): CopyForecast {
  const [a, b] = [one?.base_epoch, other?.base_epoch]
  if (a === undefined || b === undefined) return 'unknown'
  return a === b && a > 0 ? 'delta' : 'full'
}
