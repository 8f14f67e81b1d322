import { unreachable } from '#base/assert.ts'

/**
 * The life of a group of pairs: its states, every legal move, and which command is allowed when.
 *
 *                     start                        failover
 *     available ───► starting ───► protected ───► failing-over ───► failed-over
 *         ▲              │          ▲  │  ▲ │                            │ start
 *         │              ▼          │  │  │ └► reversing ──┐             ▼
 *         │       error-starting    │  │  └────────────────┘       reprotecting
 *         └───── stopping ◄─────────┼──┘                                 │
 *                                   └────────────────────────────────────┘
 *
 * A command moves the group to a transient state at once, in the transaction that stores its operation. The
 * operation ends in the success or the error state of the table below. From an error state the same command may be
 * repeated; it continues, because every step of an operation may run twice.
 *
 * One deliberate addition to the published table: deleting is allowed from every settled state, the table says
 * nothing about it. The guards on children make that harmless.
 */
export type GroupStatus =
  | 'creating'
  | 'available'
  | 'protected'
  | 'deleting'
  | 'error-deleting'
  | 'error'
  | 'starting'
  | 'error-starting'
  | 'reprotecting'
  | 'error-reprotecting'
  | 'stopping'
  | 'error-stopping'
  | 'reversing'
  | 'error-reversing'
  | 'failing-over'
  | 'failed-over'
  | 'error-failing-over'
  | 'updating'
  | 'error-updating'

/**
 * The API that a group was made with. One domain stands behind all of them; an API shows and manages its own.
 *
 * - `sdrs`: a protection group
 * - `evs`: a consistency group of the volume API
 * - `lone`: what a pair of the volume API replicates with while it is in no consistency group. It has exactly that pair, is made and
 *   ends with its being alone, and that API does not show it.
 */
export type GroupForm = 'sdrs' | 'evs' | 'lone'

/** Which of the two configured sites is production. The configured roles (source, target) themselves never change. */
export type Station = 'source' | 'target'

export const otherStation = (station: Station): Station =>
  station === 'source' ? 'target' : 'source'

/** Every legal move. The documented table is printed from it. */
export const GROUP_MOVES: Record<GroupStatus, readonly GroupStatus[]> = {
  creating: ['available', 'error'],
  error: ['deleting'],
  // failing-over: of a paused group, by force
  available: ['starting', 'updating', 'failing-over', 'deleting'],
  starting: ['protected', 'error-starting'],
  'error-starting': ['starting', 'stopping', 'updating', 'deleting'],
  protected: ['stopping', 'reversing', 'failing-over', 'updating', 'deleting'],
  stopping: ['available', 'error-stopping'],
  'error-stopping': ['stopping', 'updating', 'deleting'],
  reversing: ['protected', 'error-reversing'],
  'error-reversing': ['reversing', 'failing-over', 'deleting'],
  // available: the failover of a paused group was given up before it was decided
  'failing-over': ['failed-over', 'error-failing-over', 'available'],
  'failed-over': ['reprotecting', 'deleting'],
  'error-failing-over': ['failing-over', 'deleting'],
  reprotecting: ['protected', 'error-reprotecting'],
  'error-reprotecting': ['reprotecting', 'deleting'],
  deleting: ['error-deleting'],
  'error-deleting': ['deleting'],
  // Of a paused consistency group: pairs come and leave. Of a lone group: its pair is about to go into one, for which its own session has to stop.
  updating: ['available', 'protected', 'stopping', 'error-updating'],
  // As paused as before the update.
  'error-updating': ['updating', 'starting', 'failing-over', 'deleting'],
}

export const GROUP_STATUSES = Object.keys(GROUP_MOVES) as GroupStatus[]

export const isGroupStatus = (value: unknown): value is GroupStatus =>
  typeof value === 'string' && Object.hasOwn(GROUP_MOVES, value)

/** States in which an operation of the group runs. */
export const GROUP_TRANSIENT: ReadonlySet<GroupStatus> = new Set([
  'creating',
  'starting',
  'stopping',
  'reversing',
  'failing-over',
  'reprotecting',
  'updating',
  'deleting',
])

/** What a group's operation is called, and the states that it passes and ends in. */
export interface GroupTransition {
  readonly from: readonly GroupStatus[]
  readonly via: GroupStatus
  /** null: the group is gone. */
  readonly to: GroupStatus | null
  readonly onError: GroupStatus
}

export type GroupTransitionName =
  | 'create'
  | 'start'
  | 'reprotect'
  | 'stop'
  | 'reverse'
  | 'failover'
  | 'update'
  | 'delete'

export const GROUP_TRANSITIONS: Record<GroupTransitionName, GroupTransition> = {
  create: { from: [], via: 'creating', to: 'available', onError: 'error' },
  start: {
    from: ['available', 'error-starting', 'error-updating'],
    via: 'starting',
    to: 'protected',
    onError: 'error-starting',
  },
  reprotect: {
    from: ['failed-over', 'error-reprotecting'],
    via: 'reprotecting',
    to: 'protected',
    onError: 'error-reprotecting',
  },
  stop: {
    from: ['protected', 'error-stopping'],
    via: 'stopping',
    to: 'available',
    onError: 'error-stopping',
  },
  reverse: {
    from: ['protected', 'error-reversing'],
    via: 'reversing',
    to: 'protected',
    onError: 'error-reversing',
  },
  failover: {
    from: ['protected', 'error-failing-over', 'error-reversing'],
    via: 'failing-over',
    to: 'failed-over',
    onError: 'error-failing-over',
  },
  /** Pairs come in and leave. */
  update: {
    from: ['available', 'error-updating'],
    via: 'updating',
    to: 'available',
    onError: 'error-updating',
  },
  delete: {
    from: GROUP_STATUSES.filter((status) => !GROUP_TRANSIENT.has(status)),
    via: 'deleting',
    to: null,
    onError: 'error-deleting',
  },
}

const UNFINISHED_STOP_FROM: readonly GroupStatus[] = [
  ...GROUP_TRANSITIONS.stop.from,
  'error-starting',
]

/** What is known about the group when a command is judged. */
export interface GroupFacts {
  readonly status: GroupStatus
  readonly station: Station
  /** Station that a reversal under way or failed was aiming at; null when there was none. */
  readonly reversingTo: Station | null
  readonly pairs: number
  /** Those with two disks that can take part: all but failed creations. */
  readonly usablePairs: number
  readonly instances: number
  readonly drills: number
  /** Pairs with an operation of their own under way (creating, extending, deleting ...). */
  readonly busyPairs: number
  /** Protected instances with one. */
  readonly busyInstances: number
  /** Instances of which a server is gone. */
  readonly brokenInstances: number
  /** Protected servers that run, or may, at the site that is production now, and at the other one. */
  readonly runningProduction: number
  readonly runningDr: number
  readonly sync: GroupSyncFact
  /**
   * Production is the preferred site of a static-priority group and nothing is heard from it: it may be writing without the witness's word,
   * for as long as it likes.
   */
  readonly preferredMayRun: boolean
}

/**
 * - `idle`: no replication, on purpose (never started, stopped, failed over)
 * - `in_sync`: both sites are known to hold the same, now
 * - `copying`: the DR side is being brought up, and the copy is moving
 * - `stalled`: a copy is needed, but the sites do not reach each other, or the DR side can hold none
 * - `settling`: the record says in sync and production is alive, but has not reported under this epoch yet
 * - `link_down`: was in sync; production is alive and does not reach a copy at the DR side
 * - `production_silent`: was in sync; nothing is heard from the production site
 */
export type GroupSyncFact =
  | 'idle'
  | 'in_sync'
  | 'copying'
  | 'stalled'
  | 'settling'
  | 'link_down'
  | 'production_silent'

export type GroupCommand =
  | { readonly kind: 'start' }
  /**
   * `unfinished`: a copy that is under way, or that could not be begun, is given up. An API that knows no such thing leaves it away, and
   * is refused while there is something to copy.
   */
  | { readonly kind: 'stop'; readonly unfinished?: boolean }
  | { readonly kind: 'reverse'; readonly to: Station }
  /**
   * `force` accepts a DR side that is not known to be in sync, and a production side that is still alive. `preferredOff`: the
   * operator states that the preferred site of a static-priority group is off.
   */
  | { readonly kind: 'failover'; readonly force: boolean; readonly preferredOff?: boolean }
  | { readonly kind: 'delete' }
  | { readonly kind: 'rename' }

export type GroupRefusal =
  | 'GROUP_STATE'
  | 'GROUP_WITHOUT_PAIRS'
  | 'GROUP_BUSY_PAIRS'
  | 'GROUP_BUSY_INSTANCES'
  | 'GROUP_BROKEN_INSTANCES'
  /** A planned switch needs the production servers off. */
  | 'GROUP_PRODUCTION_RUNS'
  | 'GROUP_DR_RUNS'
  | 'GROUP_HAS_INSTANCES'
  | 'GROUP_HAS_DRILLS'
  | 'GROUP_HAS_PAIRS'
  | 'GROUP_STATION'
  | 'GROUP_COPYING'
  | 'GROUP_LINK_DOWN'
  | 'GROUP_PRODUCTION_SILENT'
  | 'GROUP_PREFERRED_MAY_RUN'

export type GroupDecision =
  | {
      readonly ok: true
      /** null: nothing moves, the command is done at once (rename). */
      readonly transition: GroupTransitionName | null
    }
  | { readonly ok: false; readonly refusal: GroupRefusal }

/** Decides; does nothing. The caller stores the transient state together with the operation. */
export function decideGroup(facts: GroupFacts, command: GroupCommand): GroupDecision {
  switch (command.kind) {
    case 'rename':
      return { ok: true, transition: null }
    case 'delete':
      if (!GROUP_TRANSITIONS.delete.from.includes(facts.status)) return refuse('GROUP_STATE')
      if (facts.instances > 0) return refuse('GROUP_HAS_INSTANCES')
      if (facts.drills > 0) return refuse('GROUP_HAS_DRILLS')
      if (facts.pairs > 0) return refuse('GROUP_HAS_PAIRS')
      return go('delete')
    case 'start': {
      const name = GROUP_TRANSITIONS.reprotect.from.includes(facts.status) ? 'reprotect' : 'start'
      if (!GROUP_TRANSITIONS[name].from.includes(facts.status)) return refuse('GROUP_STATE')
      if (facts.usablePairs === 0) return refuse('GROUP_WITHOUT_PAIRS')
      if (facts.busyPairs > 0) return refuse('GROUP_BUSY_PAIRS')
      if (facts.busyInstances > 0) return refuse('GROUP_BUSY_INSTANCES')
      // The disks of the DR site are about to be overwritten.
      if (name === 'reprotect' && facts.runningDr > 0) return refuse('GROUP_DR_RUNS')
      return go(name)
    }
    case 'stop': {
      const unfinished = command.unfinished === true
      const from = unfinished ? UNFINISHED_STOP_FROM : GROUP_TRANSITIONS.stop.from
      if (!from.includes(facts.status)) return refuse('GROUP_STATE')
      if (facts.busyPairs > 0) return refuse('GROUP_BUSY_PAIRS')
      if (facts.busyInstances > 0) return refuse('GROUP_BUSY_INSTANCES')
      // Only a copy that moves is worth waiting for. One that is stalled would lock the group until a dead site returns.
      if (facts.sync === 'copying' && !unfinished) return refuse('GROUP_COPYING')
      // Stopping would give up the DR copy at the moment it is needed: afterwards only production could be started.
      if (facts.sync === 'production_silent') return refuse('GROUP_PRODUCTION_SILENT')
      return go('stop')
    }
    case 'reverse':
      if (!GROUP_TRANSITIONS.reverse.from.includes(facts.status)) return refuse('GROUP_STATE')
      if (facts.usablePairs === 0) return refuse('GROUP_WITHOUT_PAIRS')
      if (!reverseTargetOk(facts, command.to)) return refuse('GROUP_STATION')
      if (facts.busyPairs > 0) return refuse('GROUP_BUSY_PAIRS')
      if (facts.busyInstances > 0) return refuse('GROUP_BUSY_INSTANCES')
      if (facts.runningProduction > 0) return refuse('GROUP_PRODUCTION_RUNS')
      if (facts.runningDr > 0) return refuse('GROUP_DR_RUNS')
      // A failed reversal may have turned the record already: then what looks like a fault is what repeating it cures. If it
      // has not, the drain that begins it finds out.
      if (facts.status === 'error-reversing') return go('reverse')
      return judgeReverseSync(facts.sync)
    case 'failover':
      if (!GROUP_TRANSITIONS.failover.from.includes(facts.status)) return refuse('GROUP_STATE')
      if (facts.usablePairs === 0) return refuse('GROUP_WITHOUT_PAIRS')
      if (facts.brokenInstances > 0) return refuse('GROUP_BROKEN_INSTANCES')
      if (facts.preferredMayRun && command.preferredOff !== true) {
        return refuse('GROUP_PREFERRED_MAY_RUN')
      }
      if (command.force) return go('failover')
      // What it did alone nobody else can know.
      if (facts.preferredMayRun) return refuse('GROUP_PREFERRED_MAY_RUN')
      return judgeFailoverSync(facts.sync)
    default:
      return unreachable(command)
  }
}

/** A failed reversal may already have switched; repeating it must name the same target then. */
function reverseTargetOk(facts: GroupFacts, to: Station): boolean {
  if (facts.status === 'error-reversing' && facts.reversingTo !== null) {
    return to === facts.reversingTo
  }
  return to !== facts.station
}

function judgeReverseSync(sync: GroupSyncFact): GroupDecision {
  switch (sync) {
    case 'in_sync':
    case 'settling': // the drain that begins a reversal finds out
      return go('reverse')
    case 'idle':
    case 'copying':
    case 'stalled':
      return refuse('GROUP_COPYING')
    case 'link_down':
      return refuse('GROUP_LINK_DOWN')
    case 'production_silent':
      return refuse('GROUP_PRODUCTION_SILENT')
    default:
      return unreachable(sync)
  }
}

function judgeFailoverSync(sync: GroupSyncFact): GroupDecision {
  switch (sync) {
    case 'in_sync':
    case 'settling':
    case 'production_silent':
    case 'idle': // reached in error-failing-over only, when the witness moved and the record must catch up
      return go('failover')
    case 'copying':
    case 'stalled':
      return refuse('GROUP_COPYING')
    case 'link_down':
      return refuse('GROUP_LINK_DOWN')
    default:
      return unreachable(sync)
  }
}

const go = (transition: GroupTransitionName): GroupDecision => ({ ok: true, transition })
const refuse = (refusal: GroupRefusal): GroupDecision => ({ ok: false, refusal })
