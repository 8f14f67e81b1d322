import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  DRILL_GROUP_STATES,
  DRILL_MOVES,
  type DrillFacts,
  type DrillStatus,
  dataAge,
  isDrillStatus,
  judgeDrill,
  mayDelete,
  type MomentFacts,
} from './drill.ts'
import { GROUP_STATUSES, GROUP_TRANSIENT } from './protection-group.ts'

const facts = (over: Partial<DrillFacts> = {}): DrillFacts => ({
  group: 'protected',
  usablePairs: 2,
  copiedPairs: 2,
  busyPairs: 0,
  busyInstances: 0,
  brokenInstances: 0,
  sync: 'in_sync',
  siteHeard: true,
  copyFailed: false,
  ...over,
})

test('every state of a drill leads to its end, and only settled ones are deleted', () => {
  const statuses = Object.keys(DRILL_MOVES) as DrillStatus[]
  for (const status of statuses) {
    assert.ok(DRILL_MOVES[status].every(isDrillStatus), status)
    const deletable = status !== 'creating' && status !== 'deleting'
    assert.equal(mayDelete(status), deletable, status)
  }
  assert.equal(isDrillStatus('protected'), false)
})

test('a drill is made in the published states of a group, and in no other', () => {
  for (const group of GROUP_STATUSES) {
    const allowed = DRILL_GROUP_STATES.has(group)
    assert.equal(judgeDrill(facts({ group })), allowed ? null : 'DRILL_GROUP_STATE', group)
    if (allowed) assert.ok(!GROUP_TRANSIENT.has(group), group)
  }
})

test('a drill needs something to clone that was whole once, and nothing that is being changed', () => {
  assert.equal(judgeDrill(facts({ usablePairs: 0, copiedPairs: 0 })), 'DRILL_NO_PAIRS')
  assert.equal(judgeDrill(facts({ copiedPairs: 1 })), 'DRILL_NO_DATA')
  assert.equal(judgeDrill(facts({ sync: 'copying' })), 'DRILL_NO_DATA')
  assert.equal(judgeDrill(facts({ busyPairs: 1 })), 'DRILL_GROUP_BUSY')
  assert.equal(judgeDrill(facts({ busyInstances: 1 })), 'DRILL_GROUP_BUSY')
  assert.equal(judgeDrill(facts({ brokenInstances: 1 })), 'DRILL_INSTANCE_BROKEN')
  assert.equal(judgeDrill(facts({ siteHeard: false })), 'DRILL_SITE_SILENT')
  assert.equal(judgeDrill(facts({ copyFailed: true })), 'DRILL_COPY_FAILED')
  // A dead link, or a dead production site, is what drills are for.
  for (const sync of ['link_down', 'production_silent', 'settling', 'idle', 'stalled'] as const) {
    assert.equal(judgeDrill(facts({ sync })), null, sync)
  }
})

const fact = (over: object = {}) => ({ state: 'in_sync', epoch: 4, acknowledged: 100, ...over })
const moment = (over: Partial<MomentFacts> = {}): MomentFacts => ({
  takenAtMs: 10_000,
  replica: { epoch: 4, sequence: 120 },
  before: fact(),
  after: fact({ acknowledged: 130 }),
  outOfTouchSinceMs: null,
  ...over,
})

test('nothing is missing only when both sides were in sync around the moment, under one epoch', () => {
  assert.deepEqual(dataAge(moment()), { ms: 0, basis: 'in_sync' })
  const unknown = { ms: null, basis: 'unknown' }
  for (const over of [
    { replica: null },
    { before: null },
    { after: null },
    { before: fact({ state: 'solo' }) },
    { after: fact({ state: 'solo' }) },
    { after: fact({ epoch: 5 }) },
    { replica: { epoch: 3, sequence: 120 } },
    { replica: { epoch: 4, sequence: 99 } },
  ]) {
    assert.deepEqual(dataAge(moment(over)), unknown, JSON.stringify(over))
  }
})

test('a DR side that does not hear production is behind by that time', () => {
  const cut = moment({ before: null, after: null, outOfTouchSinceMs: 4_000 })
  assert.deepEqual(dataAge(cut), { ms: 6_000, basis: 'out_of_touch' })
  assert.deepEqual(dataAge({ ...cut, outOfTouchSinceMs: 11_000 }).ms, 0)
})
