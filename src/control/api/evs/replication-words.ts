import type { GroupStatus } from '#domain/protection-group.ts'
import type { PairStatus } from '#domain/replication-pair.ts'

/* The words of this API for the states of groups and pairs. A pure mapping: nothing is stored in these words.
 *
 * What other APIs call starting and stopping protection has no state here: the status stays `available`, and `replication_status` says what
 * goes on.
 */

export type ShownPairStatus = 'creating' | 'available' | 'error' | 'deleting' | 'error_deleting'
export type ShownGroupStatus =
  | ShownPairStatus
  | 'updating'
  | 'reversing'
  | 'error_reversing'
  | 'failovering'
  | 'failovered'
  | 'error_failovering'
export type Replication = 'active' | 'active-stopped' | 'copying' | 'inactive' | 'error'

export const GROUP_WORDS: Record<GroupStatus, ShownGroupStatus> = {
  creating: 'creating',
  error: 'error',
  available: 'available',
  starting: 'available',
  'error-starting': 'available',
  protected: 'available',
  stopping: 'available',
  'error-stopping': 'available',
  reversing: 'reversing',
  'error-reversing': 'error_reversing',
  'failing-over': 'failovering',
  'failed-over': 'failovered',
  'error-failing-over': 'error_failovering',
  // It is available again when the copy back has begun.
  reprotecting: 'failovered',
  'error-reprotecting': 'failovered',
  updating: 'updating',
  'error-updating': 'error',
  deleting: 'deleting',
  'error-deleting': 'error_deleting',
}

const PAIR_WORDS: Partial<Record<PairStatus, ShownPairStatus>> = {
  creating: 'creating',
  error: 'error',
  deleting: 'deleting',
  'error-deleting': 'error_deleting',
}

/** Everything else that happens to a pair is its group's, or shows in `replication_status`. */
export const pairWord = (status: PairStatus): ShownPairStatus => PAIR_WORDS[status] ?? 'available'

/** What is known about the replication of one pair. */
export interface PairKnowledge {
  readonly pair: PairStatus
  readonly group: GroupStatus
  /** It belongs to the session of its group. */
  readonly inSession: boolean
  /** As `viewSync` says; null: nothing is known of it there. */
  readonly sync: 'active' | 'inactive' | 'copying' | 'active-stopped' | null
  /** Production is alive, and has not spoken under the present record yet: what it did before says nothing. */
  readonly awaited: boolean
  /** 0-100 when replication last stopped. */
  readonly progress: number
}

const BROKEN: ReadonlySet<PairStatus> = new Set([
  'error-starting',
  'error-stopping',
  'error-reprotecting',
  'invalid',
  'fault',
])

/** The two sides are being brought to each other: that they have no link yet is no fault. */
export const LINKING: ReadonlySet<GroupStatus> = new Set(['starting', 'reprotecting', 'reversing'])

/** Null: only while the pair is being created. */
export function pairReplication(known: PairKnowledge): Replication | null {
  const { pair, group, inSession, sync, awaited, progress } = known
  if (pair === 'creating') return null
  if (pair === 'error') return 'error'
  if (group === 'failed-over') return 'active-stopped'
  if (group === 'starting') return 'copying'
  if (LINKING.has(group)) return sync === 'active' ? 'active' : 'copying'
  if (!inSession) {
    if (BROKEN.has(pair)) return 'error'
    return progress === 100 ? 'active-stopped' : 'inactive'
  }
  if (sync === 'active' || sync === 'copying') return sync
  // A failed attempt that the sites have put right by themselves since is none any more.
  if (BROKEN.has(pair)) return 'error'
  if (awaited) return 'copying'
  return sync ?? 'inactive'
}

/** Worst first: a group is as well off as its worst pair. */
const WORST: readonly Replication[] = ['error', 'inactive', 'copying', 'active-stopped', 'active']

/** Null: only while the group is being created. A group without pairs has nothing to replicate. */
export function groupReplication(
  status: GroupStatus,
  pairs: readonly (Replication | null)[],
): Replication | null {
  if (status === 'creating') return null
  return WORST.find((one) => pairs.includes(one)) ?? 'active-stopped'
}

/** `"0"` to `"100"`; null: there is nothing to report. */
export function shownProgress(
  replication: Replication | null,
  known: number | null,
  stored: number,
): string | null {
  if (replication === null || replication === 'error') return null
  if (replication === 'active') return '100'
  const percent = known ?? stored
  if (replication === 'inactive' && percent === 0) return null
  return String(replication === 'copying' ? Math.min(percent, 99) : percent)
}

const PEER_AWAY = '37100043'
const INTERNAL = '37000212'
const BUSY = '37000216'

/** Published codes for our faults; of what has none, `later` ones are busy and the others internal. */
const FAILURES: Readonly<Record<string, string>> = {
  PAIR_SIZES_DIFFER: '37100041',
  SITES_NOT_BOTH_HEARD: PEER_AWAY,
  SITE_UNREACHABLE: PEER_AWAY,
  SITE_NEVER_SEEN: PEER_AWAY,
  REPLICATION_NOT_ESTABLISHED: PEER_AWAY,
  PRODUCTION_DISK_UNKNOWN: '37100048',
  DR_DISK_UNKNOWN: '37100050',
  PRODUCTION_DISK_TAKEN: '37100053',
  DR_DISK_TAKEN: '37100054',
  DR_DISK_IN_USE: '37100058',
  PRODUCTION_DISK_FAILED: '37100177',
  DR_DISK_FAILED: '37100178',
  SITE_BUSY: BUSY,
  SESSION_SETTLING: BUSY,
  HOLD_NOT_DRAINED: BUSY,
  OWNERSHIP_WAIT: BUSY,
}

/** A group's own; of its pairs only these two say anything about it. */
const OF_GROUPS: ReadonlySet<string> = new Set([PEER_AWAY, INTERNAL, BUSY])

export function failureCode(fault: string | null, of: 'pair' | 'group'): string | null {
  if (fault === null) return null
  const code = FAILURES[fault] ?? INTERNAL
  return of === 'pair' || OF_GROUPS.has(code) ? code : INTERNAL
}
