import { GROUP_STATES_FOR } from './group-states.ts'
import type { GroupStatus, GroupSyncFact } from './protection-group.ts'

/**
 * The life of a drill: copies of the disks at the DR site, in servers of their own, in a network of their own.
 *
 *     creating ──► available ──► deleting ──► (gone)
 *         │                        │  ▲
 *         └──► error ──────────────┼──┤
 *                                  └► error-deleting
 *
 * `available`: the drill servers were started and looked at, whatever the probes found; the report has the verdict. `error-deleting`: the
 * site was asked and something is left there, or it did not answer; the report says what. A drill that somebody gave up in that state
 * (`forced`) is no longer its group's, and is deleted when its site is heard.
 */
export type DrillStatus = 'creating' | 'available' | 'error' | 'deleting' | 'error-deleting'

/** Every legal move. */
export const DRILL_MOVES: Record<DrillStatus, readonly DrillStatus[]> = {
  creating: ['available', 'error'],
  available: ['deleting'],
  error: ['deleting'],
  deleting: ['error-deleting'],
  'error-deleting': ['deleting'],
}

export const isDrillStatus = (value: unknown): value is DrillStatus =>
  typeof value === 'string' && Object.hasOwn(DRILL_MOVES, value)

export const mayDelete = (status: DrillStatus): boolean => DRILL_MOVES[status].includes('deleting')

/** What is known of a group when a drill of it is asked for. */
export interface DrillFacts {
  readonly group: GroupStatus
  readonly usablePairs: number
  /** Those whose DR disk has ever held what production had. */
  readonly copiedPairs: number
  readonly busyPairs: number
  readonly busyInstances: number
  readonly brokenInstances: number
  readonly sync: GroupSyncFact
  readonly siteHeard: boolean
  readonly copyFailed: boolean
}

export type DrillRefusal =
  | 'DRILL_GROUP_STATE'
  /** Nothing to clone. */
  | 'DRILL_NO_PAIRS'
  /** A pair or an instance of the group is being changed. */
  | 'DRILL_GROUP_BUSY'
  | 'DRILL_INSTANCE_BROKEN'
  /** The DR side is being brought up, or never was: there is no state of production to try. */
  | 'DRILL_NO_DATA'
  /** Nothing is heard from the DR site. */
  | 'DRILL_SITE_SILENT'
  /** The DR side's disk has failed. */
  | 'DRILL_COPY_FAILED'

export const DRILL_GROUP_STATES: ReadonlySet<GroupStatus> = new Set(GROUP_STATES_FOR.drill)

/** null: a drill may be made. */
export function judgeDrill(facts: DrillFacts): DrillRefusal | null {
  if (!DRILL_GROUP_STATES.has(facts.group)) return 'DRILL_GROUP_STATE'
  if (facts.usablePairs === 0) return 'DRILL_NO_PAIRS'
  if (facts.busyPairs > 0 || facts.busyInstances > 0) return 'DRILL_GROUP_BUSY'
  if (facts.brokenInstances > 0) return 'DRILL_INSTANCE_BROKEN'
  if (!facts.siteHeard) return 'DRILL_SITE_SILENT'
  if (facts.copyFailed) return 'DRILL_COPY_FAILED'
  if (facts.copiedPairs < facts.usablePairs || facts.sync === 'copying') return 'DRILL_NO_DATA'
  return null
}

/** Probes of one server. */
export const PROBES_MAX = 16
/** How long a drill waits for its probes when nothing is said, and at most, ms: a guest without hardware support takes minutes to boot. */
export const PROBE_TIMEOUT_MS = 300_000
export const PROBE_TIMEOUT_MS_MIN = 1_000
export const PROBE_TIMEOUT_MS_MAX = 3_600_000
/** Drills of one project at a time; each holds copies of disks. */
export const DRILLS_PER_PROJECT_MAX = 100
export const SCHEDULES_PER_PROJECT_MAX = 100

/** Drills that are being made at a time, at one DR site and in all: each clones and boots at the cost of the site's disk and cores. More wait. */
export const DRILLS_AT_SITE_MAX = 4
export const DRILLS_AT_ONCE_MAX = 16

export interface WaitingDrill {
  readonly id: string
  readonly az: string
  /** null: it waits. */
  readonly began_at: number | null
  readonly created_at: number
}

/** Of the drills that are being made: those that may begin now, in the order in which they were asked for. */
export function mayBegin(drills: readonly WaitingDrill[]): string[] {
  const atWork = drills.filter(({ began_at }) => began_at !== null)
  const atSite = new Map<string, number>()
  for (const { az } of atWork) atSite.set(az, (atSite.get(az) ?? 0) + 1)
  let free = DRILLS_AT_ONCE_MAX - atWork.length
  const waiting = drills
    .filter(({ began_at }) => began_at === null)
    .toSorted((a, b) => a.created_at - b.created_at || (a.id < b.id ? -1 : 1))
  return waiting.flatMap(({ id, az }) => {
    const there = atSite.get(az) ?? 0
    if (free <= 0 || there >= DRILLS_AT_SITE_MAX) return []
    free--
    atSite.set(az, there + 1)
    return [id]
  })
}

/** What is known of production and of the DR side at the moment of a drill's snapshot. */
export interface MomentFacts {
  /** Wall clock of the DR site, ms. */
  readonly takenAtMs: number
  /** Of the DR side's session at that very moment; null: none. */
  readonly replica: { readonly epoch: number; readonly sequence: number } | null
  /** What production's site said before the snapshot was asked for, and after it; null: it did not answer, or has no session. */
  readonly before: ProductionFact | null
  readonly after: ProductionFact | null
  /** Since when the DR side had not heard production, wall clock, ms; null: it was in touch, or nobody knows. */
  readonly outOfTouchSinceMs: number | null
}

export interface ProductionFact {
  readonly state: string
  readonly epoch: number
  /** Last number that both sites were known to hold. */
  readonly acknowledged: number
}

export interface DataAge {
  /** What production had acknowledged and the drill does not show is at most this old, ms; null: not known. */
  readonly ms: number | null
  /**
   * in_sync        both sides held the same before and after, under one epoch: nothing is missing
   * out_of_touch   the DR side is behind by at least the time for which it has not heard production
   * unknown        nothing replicates, or nobody could be asked
   */
  readonly basis: 'in_sync' | 'out_of_touch' | 'unknown'
}

/** In sync on both sides of the moment, a write that was acknowledged before it is in the snapshot, because it was on both sites first. */
export function dataAge({ replica, before, after, ...facts }: MomentFacts): DataAge {
  const proved =
    replica !== null &&
    before?.state === 'in_sync' &&
    after?.state === 'in_sync' &&
    before.epoch === after.epoch &&
    replica.epoch === before.epoch &&
    replica.sequence >= before.acknowledged
  if (proved) return { ms: 0, basis: 'in_sync' }
  if (facts.outOfTouchSinceMs === null) return { ms: null, basis: 'unknown' }
  return { ms: Math.max(0, facts.takenAtMs - facts.outOfTouchSinceMs), basis: 'out_of_touch' }
}
