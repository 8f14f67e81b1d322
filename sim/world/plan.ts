import type { Session } from '#agent/replication/session/session.ts'
import type { FaultKind } from './fault-kinds.ts'
import type { Site } from './site.ts'
import type { WitnessHost } from './witness-host.ts'

/** Mistakes to plant, all off in an honest world. The product's code is never changed: a plant wraps a method of one
 *  session or of the witness, or lets the simulated shell skip a step. */
export interface Plan {
  readonly name: string
  /** Faults of every seed, instead of a choice per seed: where a plant is to be looked for. */
  readonly faults?: readonly FaultKind[]
  /** Share of the seeds in mode static-priority. */
  readonly staticShare?: number
  /** Share of the seeds in which an operator may break the glass. */
  readonly glassShare?: number
  /** Nobody is in a hurry, stops the group often, or is told at once that a site is away; clients write everywhere. */
  readonly steady?: boolean
  /** Wraps methods of each new session. */
  readonly session?: (session: Session, world: Surroundings) => void
  /** Wraps the witness's decisions. */
  readonly witness?: (witness: WitnessHost) => void
  /** The shell numbers a write before its intent bit is durable. */
  readonly intentAfterTouch?: boolean
  /** The copy sends what it has read even when a write hit it meanwhile. */
  readonly copyIgnoresWrites?: boolean
  /** The shell asks only its own disk for a flush. */
  readonly flushHereOnly?: boolean
  /** The shell answers every heartbeat, whatever the session says of the link. */
  readonly echoesAnybody?: boolean
  /** The frame log loses a frame in the middle and says nothing. */
  readonly logHole?: boolean
  /** Writes of a writer that answers alone are not marked in its change map. */
  readonly forgetsMarks?: boolean
  /** A verification takes the first look for the truth. */
  readonly verifiesOnce?: boolean
  /** The shell notes the copy that an ended session leaves before it is durable. */
  readonly leavesUnflushed?: boolean
  /** The shell takes the run file of another boot for good. */
  readonly trustsOldRunFile?: boolean
}

/** What a plant sees of the world. */
export interface Surroundings {
  readonly sites: readonly Site[]
  agentAt(site: Site): { readonly session: Session; now(): number } | null
}

export const HONEST: Plan = { name: 'honest' }
