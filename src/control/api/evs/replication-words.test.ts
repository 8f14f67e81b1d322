import assert from 'node:assert/strict'
import { test } from 'node:test'
import { GROUP_STATUSES, GROUP_TRANSIENT, GROUP_TRANSITIONS } from '#domain/protection-group.ts'
import { PAIR_STATUSES } from '#domain/replication-pair.ts'
import { ACTIONS } from './consistency-actions.ts'
import {
  failureCode,
  GROUP_WORDS,
  groupReplication,
  type PairKnowledge,
  pairReplication,
  pairWord,
  shownProgress,
} from './replication-words.ts'

const known = (over: Partial<PairKnowledge> = {}): PairKnowledge => ({
  pair: 'protected',
  group: 'protected',
  inSession: true,
  sync: 'active',
  awaited: false,
  progress: 100,
  ...over,
})

test('equal disks are claimed only when the sites say so, or when replication ended with them equal', () => {
  for (const pair of PAIR_STATUSES) {
    for (const group of GROUP_STATUSES) {
      for (const sync of ['inactive', 'copying', null] as const) {
        for (const inSession of [true, false]) {
          const shown = pairReplication(known({ pair, group, sync, inSession, progress: 50 }))
          const where = JSON.stringify({ pair, group, sync, inSession })
          assert.notEqual(shown, 'active', where)
          assert.equal(shown === null, pair === 'creating', where)
          if (shown === 'active-stopped') assert.equal(group, 'failed-over', where)
        }
      }
    }
  }
})

test('a pair is copying from the request on that sets it going, and not inactive on its way to active', () => {
  const starting = { pair: 'starting', group: 'starting' } as const
  for (const sync of ['active', 'inactive', 'active-stopped', null] as const) {
    assert.equal(pairReplication(known({ ...starting, sync, inSession: false })), 'copying')
    assert.equal(pairReplication(known({ ...starting, sync })), 'copying')
  }
  assert.equal(pairReplication(known({ sync: 'inactive', awaited: true })), 'copying')
  assert.equal(pairReplication(known({ sync: 'inactive' })), 'inactive')
  assert.equal(pairReplication(known()), 'active')
})

test('a paused pair tells whether its disks were equal, and a failed start is an error until the sites have put it right', () => {
  const paused = { pair: 'available', group: 'available', inSession: false, sync: null } as const
  assert.equal(pairReplication(known(paused)), 'active-stopped')
  assert.equal(pairReplication(known({ ...paused, progress: 99 })), 'inactive')
  const failed = { pair: 'error-starting', group: 'error-starting' } as const
  assert.equal(pairReplication(known({ ...failed, sync: 'inactive' })), 'error')
  assert.equal(pairReplication(known({ ...failed, sync: 'copying' })), 'copying')
  assert.equal(pairReplication(known({ ...failed, sync: 'active' })), 'active')
})

test('a group is as well off as its worst pair', () => {
  assert.equal(groupReplication('protected', ['active', 'active']), 'active')
  assert.equal(groupReplication('protected', ['active', 'copying']), 'copying')
  assert.equal(groupReplication('protected', ['copying', 'inactive']), 'inactive')
  assert.equal(groupReplication('available', ['active-stopped', 'error']), 'error')
  assert.equal(groupReplication('available', []), 'active-stopped')
  assert.equal(groupReplication('creating', ['active']), null)
})

test('progress is text without a sign, and 100 only of equal disks', () => {
  assert.equal(shownProgress('active', 99, 0), '100')
  assert.equal(shownProgress('copying', 100, 0), '99')
  assert.equal(shownProgress('copying', null, 0), '0')
  assert.equal(shownProgress('inactive', null, 0), null)
  assert.equal(shownProgress('active-stopped', null, 100), '100')
  assert.equal(shownProgress('error', 5, 5), null)
  assert.equal(shownProgress(null, null, 0), null)
})

test('what failed has a published code, and a group none that only pairs have', () => {
  assert.equal(failureCode(null, 'pair'), null)
  assert.equal(failureCode('SITE_UNREACHABLE', 'group'), '37100043')
  assert.equal(failureCode('PAIR_SIZES_DIFFER', 'pair'), '37100041')
  assert.equal(failureCode('PAIR_SIZES_DIFFER', 'group'), '37000212')
  assert.equal(failureCode('SESSION_SETTLING', 'pair'), '37000216')
  assert.equal(failureCode('ANYTHING_ELSE', 'pair'), '37000212')
})

/**
 * The published table: the status in which each action is accepted. Stop and sync have none published, and are taken where they mean something.
 * In `error` only after an update that failed: such a group is as paused as before, and would have no way out otherwise.
 */
const SHOWN_FROM: Record<keyof typeof ACTIONS, readonly string[]> = {
  failover: ['available', 'error', 'error_reversing', 'error_failovering'],
  sync: ['available', 'error'],
  reverse: ['available', 'error_reversing'],
  stop: ['available'],
  reprotect: ['failovered'],
}

test('an action is accepted in the published states, and leads along a transition of the group', () => {
  const transitions = {
    failover: [...GROUP_TRANSITIONS.failover.from, 'available', 'error-updating'],
    sync: GROUP_TRANSITIONS.start.from,
    reverse: GROUP_TRANSITIONS.reverse.from,
    stop: [...GROUP_TRANSITIONS.stop.from, 'error-starting'],
    reprotect: GROUP_TRANSITIONS.reprotect.from,
  }
  for (const [name, states] of Object.entries(ACTIONS)) {
    const action = name as keyof typeof ACTIONS
    const goes = Object.keys(states).filter((one) => states[one as keyof typeof states] === 'go')
    assert.deepEqual(goes.sort(), [...transitions[action]].sort(), name)
    const shown = Object.keys(states).map((one) => GROUP_WORDS[one as keyof typeof GROUP_WORDS])
    assert.deepEqual([...new Set(shown)].sort(), [...SHOWN_FROM[action]].sort(), name)
  }
})

test('states that clients wait for to pass are passed', () => {
  const waiting = new Set(['creating', 'updating', 'reversing', 'failovering', 'deleting'])
  for (const status of GROUP_STATUSES) {
    if (waiting.has(GROUP_WORDS[status])) assert.ok(GROUP_TRANSIENT.has(status), status)
  }
  assert.equal(pairWord('error-extending'), 'available')
  assert.equal(pairWord('error-deleting'), 'error_deleting')
})
