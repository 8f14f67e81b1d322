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
 * frozen        the record says that nobody answers: nothing is served, and connections are dropped
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
  | 'frozen'
  | 'waiting'
  | 'receiving'
  | 'promoting'
  | 'fenced'

/** Where any writer can be sent by a newer record. */
const DEMOTED = ['waiting', 'fenced', 'closed'] as const

export const NEXT_PHASES: Record<Phase, readonly Phase[]> = {
  closed: ['opening', 'promoting', 'waiting', 'fenced', 'frozen'],
  opening: ['reconciling', 'alone', 'catching_up', 'copying', 'following', 'frozen', ...DEMOTED],
  reconciling: ['opening', 'following', 'frozen', ...DEMOTED],
  alone: ['copying', 'catching_up', 'opening', 'frozen', ...DEMOTED],
  catching_up: ['alone', 'rising', 'following', 'promoting', 'frozen', ...DEMOTED],
  copying: ['alone', 'rising', 'frozen', ...DEMOTED],
  rising: ['alone', 'following', 'held', 'opening', 'frozen', ...DEMOTED],
  following: ['held', 'draining', 'opening', 'promoting', 'frozen', ...DEMOTED],
  held: ['following', 'alone', 'opening', 'frozen', ...DEMOTED],
  draining: ['following', 'held', 'opening', 'frozen', ...DEMOTED],
  frozen: ['opening', 'promoting', ...DEMOTED],
  waiting: [
    'receiving',
    'catching_up',
    'following',
    'promoting',
    'opening',
    'frozen',
    'fenced',
    'closed',
  ],
  receiving: ['waiting', 'following', 'promoting', 'frozen', 'fenced', 'closed'],
  promoting: ['alone', 'catching_up', 'copying', 'frozen', ...DEMOTED],
  fenced: ['waiting', 'opening', 'promoting', 'frozen', 'closed'],
}
