import assert from 'node:assert/strict'
import { test } from 'node:test'
import { describeGivenUp, type DrWord, freezesFirst, givenUp } from './failover.ts'
import { closedRecord, type Ownership, OWNERSHIP_MOVES, type OwnershipState } from './ownership.ts'

const record = (over: Partial<Ownership>): Ownership => ({
  ...closedRecord('s', 'az1', 'az2', 'i'),
  epoch: 5,
  ...over,
})
const dr = (outOfTouchMs: number | null, over: Partial<DrWord> = {}): DrWord => ({
  outOfTouchMs,
  torn: false,
  risen: true,
  ...over,
})
const STATES: OwnershipState[] = ['closed', 'resyncing', 'in_sync', 'solo', 'frozen', 'failed_over']

test('a writer that may be alone is frozen first, and only where the record can be frozen', () => {
  for (const state of STATES) {
    for (const force of [false, true]) {
      for (const mode of ['witness', 'static-priority'] as const) {
        for (const preferred of ['az1', 'az2']) {
          const one = record({ state, mode, preferred })
          const freezes = freezesFirst(one, 'az2', force)
          const alone = state === 'solo' || state === 'resyncing'
          const unbounded = state === 'in_sync' && mode === 'static-priority' && preferred === 'az1'
          assert.equal(freezes, (alone && force) || unbounded, `${state} ${mode} ${preferred}`)
          if (freezes) assert.ok(OWNERSHIP_MOVES.freeze.includes(state))
          assert.equal(freezesFirst(one, 'az1', force), false)
        }
      }
    }
  }
})

test('in sync nothing is given up, unless a preferred site may have gone on without the witness', () => {
  assert.equal(givenUp(record({ state: 'in_sync' }), dr(1_000)).kind, 'nothing')
  const preferred = record({ state: 'in_sync', mode: 'static-priority' })
  assert.equal(givenUp(preferred, null).kind, 'nothing')
  assert.deepEqual(givenUp(preferred, dr(1_000)), { kind: 'unknown', bytes: null, since: 1_000 })
  const other = record({ state: 'in_sync', mode: 'static-priority', preferred: 'az2' })
  assert.equal(givenUp(other, dr(1_000)).kind, 'nothing')
})

test('of a writer that went on alone at least its last words are given up, since the earlier of both clocks', () => {
  const alone = { sequence: 9, bytes: 4096, since: 2_000 }
  for (const state of ['solo', 'resyncing', 'frozen'] as const) {
    assert.deepEqual(givenUp(record({ state, alone }), dr(1_500)), {
      kind: 'at_least',
      bytes: 4096,
      since: 1_500,
    })
    assert.deepEqual(givenUp(record({ state, alone }), null).since, 2_000)
    assert.equal(givenUp(record({ state }), null).kind, 'unknown')
  }
  const said = describeGivenUp({ kind: 'at_least', bytes: 4096, since: 0 })
  assert.equal(
    said,
    'At least 4096 bytes that production wrote alone since 1970-01-01T00:00:00.000Z.',
  )
})

test('nothing counted yet is not nothing given up, and no time is said that the DR side does not know', () => {
  const alone = { sequence: 0, bytes: 0, since: 2_000 }
  const behind = { state: 'resyncing', alone } as const
  const unknown = { kind: 'unknown', bytes: null }
  assert.deepEqual(givenUp(record(behind), dr(null)), { ...unknown, since: 2_000 })
  const reopened = dr(null, { risen: false })
  assert.deepEqual(givenUp(record(behind), reopened), { ...unknown, since: null })
  // Stopped in step: it knows since when.
  const left = dr(1_000, { risen: false })
  assert.deepEqual(givenUp(record(behind), left), { ...unknown, since: 1_000 })
  assert.equal(
    describeGivenUp({ kind: 'unknown', bytes: null, since: null }),
    'Whatever production acknowledged that the DR side does not hold; how much that is only production knows.',
  )
})

test('of a copy that went through a loss of power nobody says since when it lacks anything, in sync neither', () => {
  const torn = dr(1_000, { torn: true })
  const unknown = { kind: 'unknown', bytes: null, since: null }
  assert.deepEqual(givenUp(record({ state: 'in_sync' }), torn), unknown)
  const alone = { sequence: 9, bytes: 4096, since: 2_000 }
  const lost = { kind: 'at_least', bytes: 4096, since: null }
  assert.deepEqual(givenUp(record({ state: 'solo', alone }), torn), lost)
})
