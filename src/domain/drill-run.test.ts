import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DRILLS_AT_ONCE_MAX, DRILLS_AT_SITE_MAX, mayBegin, type WaitingDrill } from './drill.ts'
import {
  afterBegin,
  DRILL_SERVER_MOVES,
  drillRun,
  type DrillServerState,
  leftOut,
  probesOfServer,
  rehearsed,
  startedAt,
  verdictOf,
} from './drill-run.ts'
import { type PlannedInstance, type RecoveryPlan, whoseTurn } from './recovery-plan.ts'

const one = (over: Partial<PlannedInstance<string>> = {}): PlannedInstance<string> => ({
  after: [],
  probes: [],
  notReady: 'go_on',
  scriptBefore: null,
  scriptAfter: null,
  ...over,
})

const PLAN: RecoveryPlan<string> = {
  waves: [
    { instances: ['db'], pause: null },
    { instances: ['app', 'web'], pause: 'Look at the data.' },
  ],
  instances: {
    db: one({ notReady: 'stop', probes: [{ probe: 'tcp', timeoutMs: 5_000 }] }),
    app: one({ notReady: 'pause', scriptBefore: { script: 'dns', timeoutMs: 1_000 } }),
    web: one({ after: ['app'], scriptAfter: { script: 'dns', timeoutMs: 1_000 } }),
  },
}

const states = (db: DrillServerState, app: DrillServerState, web: DrillServerState) => [
  { instance: 'db', state: db },
  { instance: 'app', state: app },
  { instance: 'web', state: web },
]

test('a drill follows the waves and the order of a plan, waits for nobody, and runs no script', () => {
  const plan = rehearsed(PLAN)
  const turn = (...all: Parameters<typeof states>) => whoseTurn(drillRun(plan, states(...all)))
  assert.deepEqual(turn('waiting', 'waiting', 'waiting'), ['db'])
  assert.deepEqual(turn('probing', 'waiting', 'waiting'), [])
  assert.deepEqual(turn('ready', 'waiting', 'waiting'), ['app'], 'the pause is left out')
  assert.deepEqual(turn('ready', 'not_ready', 'waiting'), ['web'], 'nobody is there to be asked')
  const ended = drillRun(plan, states('not_ready', 'waiting', 'waiting'))
  assert.equal(ended.state, 'stopped', 'what the plan stops for, the drill stops for')
  assert.equal(drillRun(plan, states('ready', 'ready', 'ready')).state, 'done')
  assert.equal(drillRun(null, []).state, 'done')
  const free = drillRun(null, states('waiting', 'waiting', 'waiting'))
  assert.equal(whoseTurn(free).length, 3)
  assert.deepEqual(leftOut(PLAN), { scripts: ['dns'], pauses: 1 })
  assert.ok(Object.values(plan.instances).every((all) => all.scriptBefore === all.scriptAfter))
})

test('every way of a server leads to an end', () => {
  const ends = new Set(['ready', 'not_ready', 'skipped'])
  for (const [from, to] of Object.entries(DRILL_SERVER_MOVES)) {
    assert.equal(to.length === 0, ends.has(from), from)
  }
})

test('what a drill names for a server counts more than its plan, and that more than what is for all', () => {
  const wish = { probes: { '*': ['http'], web: ['boot'] }, timeoutMs: 9_000 }
  const of = (instance: string, plan: typeof PLAN | null = PLAN) =>
    probesOfServer(wish, plan, instance, 'boot').map(({ probe, timeoutMs }) => [probe, timeoutMs])
  assert.deepEqual(of('db'), [['tcp', 5_000]])
  assert.deepEqual(of('db', null), [['http', 9_000]])
  assert.deepEqual(of('app'), [['http', 9_000]])
  assert.deepEqual(of('web'), [['boot', 9_000]])
  assert.deepEqual(probesOfServer({ probes: {}, timeoutMs: 1 }, null, 'db', 'boot'), [
    { probe: 'boot', timeoutMs: 1 },
  ])
  assert.deepEqual(probesOfServer({ probes: { db: [] }, timeoutMs: 1 }, PLAN, 'db', 'boot'), [])
})

test('a drill has passed only when every one of its servers has shown that it came up', () => {
  const up = { state: 'ready', probes: [{ ok: true }] }
  assert.equal(verdictOf([up, up]), 'passed')
  assert.equal(verdictOf([]), 'nothing_proved')
  assert.equal(verdictOf([up, { state: 'ready', probes: [] }]), 'nothing_proved')
  assert.equal(verdictOf([up, { state: 'not_ready', probes: [{ ok: false }] }]), 'probes_failed')
  assert.equal(verdictOf([up, { state: 'skipped', probes: [] }]), 'probes_failed')
})

test('a moment of a site counts between the question and the answer, whatever its clock says', () => {
  assert.equal(startedAt(150, 100, 200), 150)
  assert.equal(startedAt(90, 100, 200), 100)
  assert.equal(startedAt(9_000, 100, 200), 200)
  assert.equal(startedAt(50, 100, 80), 100, 'the clock here was set back')
  // Asked at 100, answered after a crash at 90,000: the crash is no part of the time.
  assert.equal(afterBegin(40, startedAt(150, 100, 90_000), 1_000), 1_110)
})

const waiting = (id: string, over: Partial<WaitingDrill> = {}): WaitingDrill => ({
  id,
  az: 'az2',
  began_at: null,
  created_at: 1,
  ...over,
})

test('so many drills are made at a site and in all, the others in the order in which they were asked for', () => {
  const all = [4, 2, 3, 1, 6, 5].map((at) => waiting(`d${at}`, { created_at: at }))
  assert.deepEqual(mayBegin(all), ['d1', 'd2', 'd3', 'd4'])
  const begun = all.map((row) => (row.id === 'd1' ? { ...row, began_at: 9 } : row))
  assert.deepEqual(mayBegin(begun), ['d2', 'd3', 'd4'])
  const elsewhere = waiting('e1', { az: 'az9', created_at: 99 })
  assert.ok(mayBegin([...all, elsewhere]).includes('e1'), 'a full site holds up no other')
  const many = Array.from({ length: 40 }, (_, index) =>
    waiting(`m${index}`, { az: `az${index % 10}`, created_at: index }),
  )
  assert.equal(mayBegin(many).length, DRILLS_AT_ONCE_MAX)
  assert.ok(DRILLS_AT_SITE_MAX < DRILLS_AT_ONCE_MAX)
})
