import { unreachable } from '#base/assert.ts'
import { GROUP_STATES_FOR } from './group-states.ts'
import {
  GROUP_STATUSES,
  GROUP_TRANSIENT,
  type GroupStatus,
  type Station,
} from './protection-group.ts'
import { PAIR_DELETE_FROM, type PairStatus, restingPairStatus } from './replication-pair.ts'

/**
 * The life of a protected instance: a production server, a stopped server at the DR site, and the pairs that replicate
 * the disks. While its group starts, stops, reverses, fails over or is reprotected, an instance shows the group's state;
 * creating, deleting, resizing and the changes of NICs are its own.
 *
 * `fault` and `invalid` are never stored: they are what a settled instance is called while one of its pairs has no usable
 * copy, or one of its servers is gone (`shownInstanceStatus`). So nothing has to be put back when the cause ends.
 */
export type InstanceStatus =
  | 'creating'
  | 'available'
  | 'protected'
  | 'failed-over'
  | 'error'
  | 'deleting'
  | 'error-deleting'
  | 'nic-creating'
  | 'nic-deleting'
  | 'resizing'
  | 'error-resizing'
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
/** Where a change of its own ends: in the state that the group has by then. */
const RESTING = [
  'available',
  'protected',
  'failed-over',
  'error-starting',
  'error-stopping',
  'error-reversing',
  'error-failing-over',
  'error-reprotecting',
  ...MIRRORED,
] as const

/** Every legal move. */
export const INSTANCE_MOVES: Record<InstanceStatus, readonly InstanceStatus[]> = {
  creating: [...RESTING, 'error'],
  available: ['deleting', 'nic-creating', 'nic-deleting', 'resizing', ...MIRRORED],
  protected: ['deleting', 'nic-creating', 'nic-deleting', 'resizing', ...MIRRORED],
  'failed-over': ['deleting', ...MIRRORED],
  error: ['deleting'],
  deleting: ['error-deleting'],
  'error-deleting': ['deleting'],
  'nic-creating': RESTING,
  'nic-deleting': RESTING,
  resizing: [...RESTING, 'error-resizing'],
  'error-resizing': ['resizing', 'deleting', ...MIRRORED],
  starting: ['protected', 'error-starting'],
  'error-starting': ['deleting', ...MIRRORED],
  stopping: ['available', 'error-stopping'],
  'error-stopping': ['deleting', ...MIRRORED],
  reversing: ['protected', 'error-reversing'],
  'error-reversing': ['deleting', ...MIRRORED],
  'failing-over': ['failed-over', 'error-failing-over'],
  'error-failing-over': ['deleting', ...MIRRORED],
  reprotecting: ['protected', 'error-reprotecting'],
  'error-reprotecting': ['deleting', ...MIRRORED],
  // Shown only; what is stored is settled.
  invalid: [],
  fault: [],
}

export const INSTANCE_STATUSES = Object.keys(INSTANCE_MOVES) as InstanceStatus[]

export const isInstanceStatus = (value: unknown): value is InstanceStatus =>
  typeof value === 'string' && Object.hasOwn(INSTANCE_MOVES, value)

/** An operation of the instance's own is under way. */
export const INSTANCE_BUSY: ReadonlySet<InstanceStatus> = new Set([
  'creating',
  'deleting',
  'nic-creating',
  'nic-deleting',
  'resizing',
])

/** Instances whose state is the group's. The others are at work on something, or were never complete. */
export const instanceFollowsGroup = (status: InstanceStatus): boolean =>
  status !== 'error' && status !== 'error-deleting' && !INSTANCE_BUSY.has(status)

/**
 * Instances whose NICs go with the production role. One that was never complete has no second server worth the name, and one
 * that is being taken apart becomes two plain servers.
 */
export const identityMoves = (status: InstanceStatus): boolean =>
  status !== 'creating' &&
  status !== 'error' &&
  status !== 'deleting' &&
  status !== 'error-deleting'

const SETTLED: ReadonlySet<InstanceStatus> = new Set(['available', 'protected', 'failed-over'])

/** What users see. `pairs`: states of the attached pairs; `servers`: how many of the two exist. */
export function shownInstanceStatus(
  status: InstanceStatus,
  pairs: readonly PairStatus[],
  servers: number,
): InstanceStatus {
  if (!SETTLED.has(status)) return status
  if (servers < 2) return 'invalid'
  return pairs.some((one) => one === 'error' || one === 'fault' || one === 'invalid')
    ? 'fault'
    : status
}

/** The state of an instance that rests, given its group's: the same as a pair's. */
export const restingInstanceStatus = (group: GroupStatus): InstanceStatus =>
  restingPairStatus(group) as InstanceStatus

// ---------------------------------------------------------------- commands

export type InstanceCommandKind =
  | 'delete'
  | 'add-nic'
  | 'delete-nic'
  | 'resize'
  | 'attach'
  | 'detach'
  | 'add-tags'
  | 'delete-tags'
  | 'rename'

export interface InstanceRule {
  readonly from: readonly InstanceStatus[]
  readonly groups: readonly GroupStatus[]
  /** State while it lasts; null: the instance stays as it is. */
  readonly via: InstanceStatus | null
  /** When the instance's state forbids it. */
  readonly refusal: InstanceRefusal
}

export type InstanceRefusal =
  | 'INSTANCE_DELETE_STATE'
  | 'INSTANCE_NIC_STATE'
  | 'INSTANCE_STATE'
  | 'INSTANCE_ADD_TAGS_STATE'
  | 'INSTANCE_DELETE_TAGS_STATE'
  | 'INSTANCE_GROUP_STATE'
  | 'INSTANCE_DELETE_GROUP_STATE'
  | 'INSTANCE_ROLES_REVERSED'
  | 'INSTANCE_PAIR_STATE'

const TAGGABLE = INSTANCE_STATUSES.filter(
  (status) => status !== 'creating' && status !== 'deleting' && status !== 'error',
)

/** States that an instance may be deleted from. */
const DELETE_FROM: readonly InstanceStatus[] = [
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
  'error-resizing',
  'invalid',
  'fault',
]

export const INSTANCE_RULES: Record<InstanceCommandKind, InstanceRule> = {
  delete: {
    from: DELETE_FROM,
    // Nothing is published. A group in motion moves the servers and disks that a deletion takes apart.
    groups: GROUP_STATUSES.filter((status) => !GROUP_TRANSIENT.has(status)),
    via: 'deleting',
    refusal: 'INSTANCE_DELETE_STATE',
  },
  'add-nic': {
    from: ['available', 'protected'],
    groups: GROUP_STATES_FOR.change,
    via: 'nic-creating',
    refusal: 'INSTANCE_NIC_STATE',
  },
  'delete-nic': {
    from: ['available', 'protected'],
    groups: GROUP_STATES_FOR.change,
    via: 'nic-deleting',
    refusal: 'INSTANCE_NIC_STATE',
  },
  resize: {
    from: ['available', 'protected', 'error-resizing'],
    groups: GROUP_STATES_FOR.change,
    via: 'resizing',
    refusal: 'INSTANCE_STATE',
  },
  attach: {
    from: ['available', 'protected'],
    groups: GROUP_STATES_FOR.change,
    via: null,
    refusal: 'INSTANCE_STATE',
  },
  detach: {
    from: DELETE_FROM.filter((status) => status !== 'error'),
    groups: GROUP_STATES_FOR.detach,
    via: null,
    refusal: 'INSTANCE_STATE',
  },
  'add-tags': {
    from: TAGGABLE,
    groups: GROUP_STATUSES,
    via: null,
    refusal: 'INSTANCE_ADD_TAGS_STATE',
  },
  'delete-tags': {
    from: TAGGABLE,
    groups: GROUP_STATUSES,
    via: null,
    refusal: 'INSTANCE_DELETE_TAGS_STATE',
  },
  rename: { from: INSTANCE_STATUSES, groups: GROUP_STATUSES, via: null, refusal: 'INSTANCE_STATE' },
}

export interface InstanceFacts {
  /** As shown. */
  readonly status: InstanceStatus
  readonly group: GroupStatus
  readonly station: Station
  /** States of the pairs that a deletion takes with it. */
  readonly ownPairs: readonly PairStatus[]
}

export type InstanceCommand =
  | { readonly kind: Exclude<InstanceCommandKind, 'delete'> }
  | { readonly kind: 'delete'; readonly deleteTargetServer: boolean }

export type InstanceDecision =
  | { readonly ok: true; readonly via: InstanceStatus | null }
  | { readonly ok: false; readonly refusal: InstanceRefusal }

/** Decides; does nothing. The caller stores the state under way together with the operation. */
export function decideInstance(facts: InstanceFacts, command: InstanceCommand): InstanceDecision {
  const rule = INSTANCE_RULES[command.kind]
  if (!rule.from.includes(facts.status)) return refuse(rule.refusal)
  if (!rule.groups.includes(facts.group)) {
    return refuse(
      command.kind === 'delete' ? 'INSTANCE_DELETE_GROUP_STATE' : 'INSTANCE_GROUP_STATE',
    )
  }
  switch (command.kind) {
    case 'delete':
      // The "target server" is production now, with the only current disks.
      if (command.deleteTargetServer && facts.station === 'target') {
        return refuse('INSTANCE_ROLES_REVERSED')
      }
      if (facts.ownPairs.some((status) => !PAIR_DELETE_FROM.has(status))) {
        return refuse('INSTANCE_PAIR_STATE')
      }
      return { ok: true, via: rule.via }
    case 'add-nic':
    case 'delete-nic':
    case 'resize':
    case 'attach':
    case 'detach':
    case 'add-tags':
    case 'delete-tags':
    case 'rename':
      return { ok: true, via: rule.via }
    default:
      return unreachable(command)
  }
}

const refuse = (refusal: InstanceRefusal): InstanceDecision => ({ ok: false, refusal })

// ---------------------------------------------------------------- names and limits

/** Name of an automatically made pair: the instance's and the disk's, cut to what a name may have. */
export const pairNameFor = (instance: string, device: string): string => {
  const letter = device.replace('/dev/', '-')
  return `${instance.slice(0, 64 - letter.length)}${letter}`
}

/** Name of the n-th instance of a batch, from 1. */
export const batchName = (prefix: string, index: number): string =>
  `${prefix}-${String(index).padStart(4, '0')}`

/** Instances in a group: the stream of one group is one process's work. */
export const INSTANCES_PER_GROUP = 1_000
export const BATCH_MAX = 20
export const TAGS_AT_CREATION = 10
