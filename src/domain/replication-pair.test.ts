import assert from 'node:assert/strict'
import { test } from 'node:test'
import { GROUP_STATUSES, type GroupStatus } from './protection-group.ts'
import {
  decidePair,
  followsGroup,
  PAIR_BUSY,
  PAIR_MOVES,
  PAIR_STATUSES,
  type PairFacts,
  type PairStatus,
  restingPairStatus,
} from './replication-pair.ts'

const facts = (over: Partial<PairFacts> = {}): PairFacts => ({
  status: 'available',
  group: 'available',
  station: 'source',
  attached: false,
  sizeGb: 10,
  grownGb: 10,
  ...over,
})

const DELETABLE: PairStatus[] = [
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
]
const DELETABLE_IN: GroupStatus[] = [
  'available',
  'protected',
  'failed-over',
  'error-starting',
  'error-stopping',
  'error-reversing',
  'error-failing-over',
  'error-deleting',
  'error-reprotecting',
]

test('every command in every status of pair and group does what the published table says', () => {
  for (const status of PAIR_STATUSES) {
    for (const group of GROUP_STATUSES) {
      const where = `${status} in a group that is ${group}`
      const at = facts({ status, group })
      assert.equal(
        decidePair(at, { kind: 'delete', deleteTargetVolume: false }).ok,
        DELETABLE.includes(status) && DELETABLE_IN.includes(group),
        `delete ${where}`,
      )
      assert.equal(
        decidePair(at, { kind: 'expand', newSizeGb: 11 }).ok,
        ['available', 'protected', 'error-extending'].includes(status) &&
          ['available', 'protected'].includes(group),
        `expand ${where}`,
      )
      assert.deepEqual(decidePair(at, { kind: 'rename' }), { ok: true, via: null })
    }
  }
})

test('every transient state of a command is a legal move from where it began', () => {
  for (const status of PAIR_STATUSES) {
    for (const command of [
      { kind: 'expand', newSizeGb: 11 },
      { kind: 'delete', deleteTargetVolume: false },
    ] as const) {
      const decision = decidePair(facts({ status }), command)
      if (decision.ok && decision.via !== null) {
        assert.ok(PAIR_MOVES[status].includes(decision.via), `${status} → ${decision.via}`)
      }
    }
  }
})

test('a pair that follows its group may move to every state of a group action, the others to none', () => {
  const viaStates = ['starting', 'stopping', 'reversing', 'failing-over', 'reprotecting'] as const
  for (const status of PAIR_STATUSES) {
    for (const via of viaStates) {
      const settled = !(viaStates as readonly string[]).includes(status)
      if (settled) assert.equal(PAIR_MOVES[status].includes(via), followsGroup(status), status)
    }
  }
  for (const status of PAIR_BUSY) assert.equal(followsGroup(status), false)
})

test('an attached pair is not deleted', () => {
  const decision = decidePair(facts({ attached: true }), {
    kind: 'delete',
    deleteTargetVolume: false,
  })
  assert.deepEqual(decision, { ok: false, refusal: 'PAIR_ATTACHED' })
})

test('the DR disk is not deleted with its pair while it is production', () => {
  const at = facts({ status: 'failed-over', group: 'failed-over', station: 'target' })
  assert.deepEqual(decidePair(at, { kind: 'delete', deleteTargetVolume: true }), {
    ok: false,
    refusal: 'PAIR_ROLES_REVERSED',
  })
  assert.equal(decidePair(at, { kind: 'delete', deleteTargetVolume: false }).ok, true)
})

test('a pair only grows, and its repetition does not fall behind the disk that has grown', () => {
  const expand = (over: Partial<PairFacts>, newSizeGb: number) =>
    decidePair(facts(over), { kind: 'expand', newSizeGb })
  assert.equal(expand({}, 11).ok, true)
  for (const newSizeGb of [10, 9, 0, -1]) {
    assert.deepEqual(expand({}, newSizeGb), { ok: false, refusal: 'PAIR_SIZE' })
  }
  const half = { status: 'error-extending', sizeGb: 10, grownGb: 20 } as const
  assert.equal(expand(half, 20).ok, true)
  assert.deepEqual(expand(half, 15), { ok: false, refusal: 'PAIR_SIZE' })
})

test('a resting pair shows the state that its group has', () => {
  for (const group of GROUP_STATUSES) {
    const resting = restingPairStatus(group)
    assert.ok(PAIR_STATUSES.includes(resting))
    if (group === 'protected' || group === 'failed-over') assert.equal(resting, group)
    if (group === 'available') assert.equal(resting, 'available')
  }
})

test('every state of a pair can be left', () => {
  for (const status of PAIR_STATUSES) assert.ok(PAIR_MOVES[status].length > 0, status)
})
