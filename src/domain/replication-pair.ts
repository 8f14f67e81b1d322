import { unreachable } from '#base/assert.ts'
import { GROUP_STATES_FOR } from './group-states.ts'
import type { GroupStatus, Station } from './protection-group.ts'

/**
 * The life of a replication pair. While its group starts, stops, reverses, fails over or is reprotected, a pair shows
 * the group's state; creating, extending, attaching and deleting are its own.
 */
export type PairStatus =
  | 'creating'
  | 'available'
  | 'protected'
  | 'failed-over'
  | 'error'
  | 'deleting'
  | 'error-deleting'
  | 'extending'
  | 'error-extending'
  | 'attaching'
  | 'error-attaching'
  | 'detaching'
  | 'error-detaching'
  | 'starting'
  | 'error-starting'
  | 'stopping'
  | 'error-stopping'
  | 'reversing'
  | 'error-reversing'
  | 'failing-over'
  | 'error-failing-over'
  | 'reprotecting'
  | 'error-reprotecting'
  | 'invalid'
  | 'fault'

const MIRRORED = ['starting', 'stopping', 'reversing', 'failing-over', 'reprotecting'] as const

/** Every legal move. A pair follows its group only from settled states, so a pair that is being deleted stays so. */
export const PAIR_MOVES: Record<PairStatus, readonly PairStatus[]> = {
  creating: ['available', 'protected', 'failed-over', 'error'],
  available: ['extending', 'attaching', 'detaching', 'deleting', ...MIRRORED],
  protected: ['extending', 'attaching', 'detaching', 'deleting', 'fault', 'invalid', ...MIRRORED],
  'failed-over': ['detaching', 'deleting', ...MIRRORED],
  error: ['deleting'],
  deleting: ['error-deleting'],
  'error-deleting': ['deleting', 'detaching'],
  extending: ['available', 'protected', 'failed-over', 'error-extending'],
  'error-extending': ['extending', 'detaching', 'deleting', ...MIRRORED],
  attaching: ['available', 'protected', 'error-attaching'],
  'error-attaching': ['detaching', 'deleting', ...MIRRORED],
  detaching: ['available', 'protected', 'failed-over', 'error-detaching'],
  'error-detaching': ['detaching', ...MIRRORED],
  starting: ['protected', 'error-starting'],
  'error-starting': ['detaching', 'deleting', ...MIRRORED],
  stopping: ['available', 'error-stopping'],
  'error-stopping': ['detaching', 'deleting', ...MIRRORED],
  reversing: ['protected', 'error-reversing'],
  'error-reversing': ['detaching', 'deleting', ...MIRRORED],
  // error: a forced failover went without this pair, because its disk was never copied in full
  // available: its group was paused, and stays so
  'failing-over': ['failed-over', 'error-failing-over', 'error', 'available'],
  'error-failing-over': ['detaching', 'deleting', ...MIRRORED],
  reprotecting: ['protected', 'error-reprotecting'],
  'error-reprotecting': ['detaching', 'deleting', ...MIRRORED],
  invalid: ['detaching', 'deleting', ...MIRRORED],
  fault: ['protected', 'detaching', 'deleting', ...MIRRORED],
}

export const PAIR_STATUSES = Object.keys(PAIR_MOVES) as PairStatus[]

export const isPairStatus = (value: unknown): value is PairStatus =>
  typeof value === 'string' && Object.hasOwn(PAIR_MOVES, value)

/** An operation of the pair's own is under way. */
export const PAIR_BUSY: ReadonlySet<PairStatus> = new Set([
  'creating',
  'extending',
  'attaching',
  'detaching',
  'deleting',
])

/** Pairs that take part in what their group does. The others have no usable DR disk, or are about to vanish. */
export const followsGroup = (status: PairStatus): boolean =>
  status !== 'error' && status !== 'error-deleting' && !PAIR_BUSY.has(status)

/** As many as one session has members (`session.open`). */
export const PAIRS_OF_GROUP_MAX = 1_024

/** Group states in which a pair may be created. */
export const GROUP_STATES_FOR_CREATE: ReadonlySet<GroupStatus> = new Set(GROUP_STATES_FOR.change)

/** States that a pair may be deleted from: nothing of its own is under way that a deletion would cut short. */
export const PAIR_DELETE_FROM: ReadonlySet<PairStatus> = new Set([
  'available',
  'protected',
  'failed-over',
  'error',
  'error-starting',
  'error-stopping',
  'error-reversing',
  'error-failing-over',
  'error-deleting',
  'error-reprotecting',
  'error-attaching',
  'error-extending',
  'invalid',
  'fault',
])

const EXPAND_FROM: ReadonlySet<PairStatus> = new Set(['available', 'protected', 'error-extending'])

export interface PairFacts {
  readonly status: PairStatus
  readonly group: GroupStatus
  readonly station: Station
  readonly attached: boolean
  /** Size of the production disk. */
  readonly sizeGb: number
  /** Size of the larger disk: an extension that failed half way may have grown the DR disk already. */
  readonly grownGb: number
}

export type PairCommand =
  | { readonly kind: 'expand'; readonly newSizeGb: number }
  | { readonly kind: 'delete'; readonly deleteTargetVolume: boolean }
  | { readonly kind: 'rename' }

export type PairRefusal =
  | 'PAIR_STATE'
  | 'PAIR_GROUP_STATE'
  | 'PAIR_ATTACHED'
  | 'PAIR_ROLES_REVERSED'
  | 'PAIR_SIZE'

export type PairDecision =
  | { readonly ok: true; readonly via: PairStatus | null }
  | { readonly ok: false; readonly refusal: PairRefusal }

/** Decides; does nothing. */
export function decidePair(facts: PairFacts, command: PairCommand): PairDecision {
  switch (command.kind) {
    case 'rename':
      return { ok: true, via: null }
    case 'expand':
      if (!EXPAND_FROM.has(facts.status)) return refuse('PAIR_STATE')
      // The table names no group state, but a group in motion has no stable writer whose volume could be grown.
      if (!GROUP_STATES_FOR_CREATE.has(facts.group)) return refuse('PAIR_GROUP_STATE')
      if (command.newSizeGb <= facts.sizeGb || command.newSizeGb < facts.grownGb) {
        return refuse('PAIR_SIZE')
      }
      return { ok: true, via: 'extending' }
    case 'delete':
      if (facts.attached) return refuse('PAIR_ATTACHED')
      if (!PAIR_DELETE_FROM.has(facts.status)) return refuse('PAIR_STATE')
      if (!GROUP_STATES_FOR['delete-pair'].includes(facts.group)) return refuse('PAIR_GROUP_STATE')
      // The "target volume" is production now: deleting it would delete the only current copy.
      if (command.deleteTargetVolume && facts.station === 'target') {
        return refuse('PAIR_ROLES_REVERSED')
      }
      return { ok: true, via: 'deleting' }
    default:
      return unreachable(command)
  }
}

/**
 * The state of a pair that rests, given its group's: after creation, extension or a failed attempt at something else.
 * A group that failed at something leaves its pairs in the same error state.
 */
export function restingPairStatus(group: GroupStatus): PairStatus {
  switch (group) {
    case 'protected':
    case 'reversing':
    case 'failing-over':
    case 'failed-over':
    case 'starting':
    case 'stopping':
    case 'reprotecting':
    case 'error-starting':
    case 'error-stopping':
    case 'error-reversing':
    case 'error-failing-over':
    case 'error-reprotecting':
      return group
    case 'available':
    case 'creating':
    case 'deleting':
    case 'error':
    case 'error-deleting':
    case 'updating':
    case 'error-updating':
      return 'available'
    default:
      return unreachable(group)
  }
}

const refuse = (refusal: PairRefusal): PairDecision => ({ ok: false, refusal })
