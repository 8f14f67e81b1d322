import type { OwnershipState } from './ownership.ts'

/**
 * Whether a group fails over by itself. Pure, and never when in doubt: it acts when every one of the facts speaks for it, and only the
 * facts of the witness and of the two agents count. A failover by an operator is always possible beside it.
 *
 *     stands_by   production is heard; it would act if that ended
 *     refuses     something stands against it, whether production is heard or not
 *     waits       everything speaks for it but time: it is waited for
 *     acts        the witness gives the group to the DR side, without force: nothing that was acknowledged is given up
 */
export type AutomaticVerdict = 'stands_by' | 'refuses' | 'waits' | 'acts'

export interface AutomaticFacts {
  /** An operator has armed it, and since then it has not acted. */
  readonly armed: boolean
  /** An operator holds it back, for maintenance. */
  readonly held: boolean
  /** The group is protected, and a failover without force would be accepted but for what is judged here. */
  readonly groupAccepts: boolean
  /** Something is being done to the group, to a pair or to an instance of it. */
  readonly busy: boolean
  /** Null: no replication was ever started. */
  readonly record: {
    readonly state: OwnershipState
    readonly mode: 'witness' | 'static-priority'
    readonly writerIsProduction: boolean
    /** False: the database was restored or taken over, or a site is ahead of the record. */
    readonly trusted: boolean
    /** Until every lease that was granted has certainly ended, ms. */
    readonly leaseLeftMs: number
  } | null
  /** Every pair of the group has been copied in full. */
  readonly copied: boolean
  readonly productionHeard: boolean
  /** For how long this control plane has listened to production in vain, without a break of its own; ms. */
  readonly silentMs: number
  /** How long it has to be. */
  readonly silenceNeededMs: number
  /** Null: nothing is heard from the DR site, or it has no session of the group. */
  readonly dr: {
    readonly sameEpoch: boolean
    readonly replica: boolean
    readonly consistent: boolean
    /** Its disk failed, or it has no room. */
    readonly unfit: boolean
    /** It hears production, over the link or beside it. */
    readonly hearsProduction: boolean
  } | null
}

export type AutomaticReason =
  | 'NOT_ARMED'
  | 'HELD'
  | 'GROUP_NOT_READY'
  | 'GROUP_BUSY'
  | 'NEVER_PROTECTED'
  | 'NOT_IN_SYNC'
  | 'NOT_BY_WITNESS'
  | 'RECORD_ELSEWHERE'
  | 'RECORD_IN_DOUBT'
  | 'NOT_COPIED'
  | 'PRODUCTION_HEARD'
  | 'DR_SILENT'
  | 'DR_BEHIND'
  | 'DR_NOT_REPLICA'
  | 'DR_NOT_CONSISTENT'
  | 'DR_UNFIT'
  | 'DR_HEARS_PRODUCTION'
  | 'SILENCE_TOO_SHORT'
  | 'LEASE_NOT_ENDED'

/** For people. */
export const AUTOMATIC_REASONS: Readonly<Record<AutomaticReason, string>> = {
  NOT_ARMED: 'It has acted and has not been armed again.',
  HELD: 'An operator holds it back.',
  GROUP_NOT_READY: 'A failover of the group without force would be refused.',
  GROUP_BUSY: 'Something is being done to the group, a pair or an instance of it.',
  NEVER_PROTECTED: 'The group was never protected.',
  NOT_IN_SYNC: 'By the record of the witness the DR side may lack writes.',
  NOT_BY_WITNESS: 'The group is not arbitrated by the witness: its preferred site may go on alone.',
  RECORD_ELSEWHERE: 'By the record of the witness another site than production writes.',
  RECORD_IN_DOUBT: 'The record of the witness is not trusted.',
  NOT_COPIED: 'A pair was never copied in full.',
  PRODUCTION_HEARD: 'The production site is heard.',
  DR_SILENT: 'Nothing is heard of the group from the DR site.',
  DR_BEHIND: 'The DR site does not act under the present record.',
  DR_NOT_REPLICA: 'The DR site is not the replica of the group.',
  DR_NOT_CONSISTENT: 'The copy of the DR site is not consistent.',
  DR_UNFIT: 'The disk of the DR site failed or is full.',
  DR_HEARS_PRODUCTION: 'The DR site hears the production site.',
  SILENCE_TOO_SHORT: 'The production site has not been silent for long enough.',
  LEASE_NOT_ENDED: 'A lease that was granted may not have ended.',
}

export interface AutomaticDecision {
  readonly verdict: AutomaticVerdict
  /** In the order of the type; empty when it acts. */
  readonly reasons: readonly AutomaticReason[]
}

export function decideAutomatic(facts: AutomaticFacts): AutomaticDecision {
  const against: AutomaticReason[] = []
  const demand = (fact: boolean, reason: AutomaticReason) => {
    if (!fact) against.push(reason)
  }
  const { record, dr, productionHeard } = facts
  demand(facts.armed, 'NOT_ARMED')
  demand(!facts.held, 'HELD')
  demand(facts.groupAccepts, 'GROUP_NOT_READY')
  demand(!facts.busy, 'GROUP_BUSY')
  if (record === null) against.push('NEVER_PROTECTED')
  else {
    // Not solo, resyncing or frozen: then the DR side lacks what production did alone.
    demand(record.state === 'in_sync', 'NOT_IN_SYNC')
    demand(record.mode === 'witness', 'NOT_BY_WITNESS')
    demand(record.writerIsProduction, 'RECORD_ELSEWHERE')
    demand(record.trusted, 'RECORD_IN_DOUBT')
  }
  demand(facts.copied, 'NOT_COPIED')
  if (productionHeard) {
    const verdict = against.length === 0 ? 'stands_by' : 'refuses'
    return { verdict, reasons: [...against, 'PRODUCTION_HEARD'] }
  }
  if (dr === null) against.push('DR_SILENT')
  else {
    demand(dr.sameEpoch, 'DR_BEHIND')
    demand(dr.replica, 'DR_NOT_REPLICA')
    demand(dr.consistent, 'DR_NOT_CONSISTENT')
    demand(!dr.unfit, 'DR_UNFIT')
    demand(!dr.hearsProduction, 'DR_HEARS_PRODUCTION')
  }
  if (against.length > 0) return { verdict: 'refuses', reasons: against }
  demand(facts.silentMs >= facts.silenceNeededMs, 'SILENCE_TOO_SHORT')
  demand(record !== null && record.leaseLeftMs === 0, 'LEASE_NOT_ENDED')
  return { verdict: against.length > 0 ? 'waits' : 'acts', reasons: against }
}

export type ArmRefusal = 'NOT_ENABLED' | 'ARMED_ALREADY' | 'COOLING_DOWN'

/** Whether an operator may arm it again; `actedAt` and `now` are wall clock, ms. */
export function decideArming(state: {
  readonly enabled: boolean
  readonly armed: boolean
  readonly actedAt: number | null
  readonly coolDownMs: number
  readonly now: number
}): ArmRefusal | null {
  if (!state.enabled) return 'NOT_ENABLED'
  if (state.armed) return 'ARMED_ALREADY'
  // A clock that was set back does not make it wait for longer than the whole of it.
  const since = state.actedAt === null ? state.coolDownMs : Math.abs(state.now - state.actedAt)
  return since < state.coolDownMs ? 'COOLING_DOWN' : null
}
