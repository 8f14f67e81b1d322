/*
 * Phases of a session at one site, and the legal moves. The design page explains them; the simulator's coverage is
 * counted against this table.
 */

export type Role = 'none' | 'writer' | 'replica' | 'fenced'

/**
 * closed        no session here (before the first open, after the last close)
 * Writer:
 * opening       role known, right to answer not yet proved with the peer (in_sync) or the witness (alone)
 * reconciling   after an unclean stop in sync: dirty regions are fetched from the replica
 * alone         answers under the lease; no copy under way
 * catching_up   as alone under solo, and the frame log is being sent in order (at the replica: a prefix, behind)
 * copying       as alone, and the copy to the replica is under way
 * rising        copy done; every answer waits for the replica; the witness is asked for in_sync
 * following     in sync (at the replica: a prefix, in step)
 * held          in sync, but no link: nothing is answered
 * draining      asked to hold for a planned switch
 * Replica:
 * waiting       no link to the writer
 * receiving     linked in a resync: the volumes are not consistent
 * promoting     becoming the writer: waits until the old writer's contact has run out, then for the lease
 * fenced        another site may write; this one answers nothing
 */
export type Phase =
  | 'closed'
  | 'opening'
  | 'reconciling'
  | 'alone'
  | 'catching_up'
  | 'copying'
  | 'rising'
  | 'following'
  | 'held'
  | 'draining'
  | 'waiting'
  | 'receiving'
  | 'promoting'
  | 'fenced'

/** Where any writer can be sent by a newer record. */
const DEMOTED = ['waiting', 'fenced', 'closed'] as const

export const NEXT_PHASES: Record<Phase, readonly Phase[]> = {
  closed: ['opening', 'promoting', 'waiting', 'fenced'],
  opening: ['reconciling', 'alone', 'copying', 'following', ...DEMOTED],
  reconciling: ['opening', 'following', ...DEMOTED],
  alone: ['copying', 'catching_up', ...DEMOTED],
  catching_up: ['alone', 'rising', 'opening', 'following', 'promoting', ...DEMOTED],
  copying: ['alone', 'rising', ...DEMOTED],
  rising: ['alone', 'following', 'held', 'opening', ...DEMOTED],
  following: ['held', 'draining', 'opening', 'promoting', ...DEMOTED],
  held: ['following', 'opening', ...DEMOTED],
  draining: ['following', 'held', 'opening', ...DEMOTED],
  waiting: ['receiving', 'catching_up', 'following', 'promoting', 'opening', 'fenced', 'closed'],
  receiving: ['waiting', 'following', 'promoting', 'fenced', 'closed'],
  promoting: ['alone', 'copying', ...DEMOTED],
  fenced: ['waiting', 'promoting', 'closed'],
}
