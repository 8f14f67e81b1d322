import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  AT_ONCE,
  decideRun,
  hasEnded,
  hasSettled,
  newRun,
  type PlannedInstance,
  planFaults,
  type RecoveryPlan,
  type Run,
  RUN_MOVES,
  type RunEvent,
  SERVER_RECOVERY_MOVES,
  type ServerState,
  turnOf,
  whoseTurn,
} from './recovery-plan.ts'

const one = (over: Partial<PlannedInstance> = {}): PlannedInstance => ({
  after: [],
  probes: [],
  notReady: 'go_on',
  scriptBefore: null,
  scriptAfter: null,
  ...over,
})
const plan = (
  waves: readonly (readonly string[])[],
  instances: RecoveryPlan['instances'] = {},
  pauses: Readonly<Record<number, string>> = {},
): RecoveryPlan => ({
  waves: waves.map((of, index) => ({ instances: of, pause: pauses[index] ?? null })),
  instances,
})
const known = (...ids: string[]) => new Set(ids)

function after(run: Run, ...events: readonly RunEvent[]): Run {
  return events.reduce((now, event) => {
    const decision = decideRun(now, event)
    assert.ok(decision.ok, JSON.stringify([now, event, decision]))
    assert.ok(
      now.state === decision.run.state || RUN_MOVES[now.state].includes(decision.run.state),
      `${now.state} to ${decision.run.state}`,
    )
    return decision.run
  }, run)
}
const WAY = ['preparing', 'starting', 'probing', 'finishing', 'ready'] as const
const through = (instance: string, ...states: readonly ServerState[]): RunEvent[] =>
  states.map((to) => ({ kind: 'moved', instance, to }))
const ready = (instance: string) => through(instance, ...WAY)

test('a plan that can be followed has no faults, and each fault is named', () => {
  const good = plan([['a'], ['b', 'c']], { c: one({ after: ['b', 'a'] }), d: one() })
  assert.deepEqual(planFaults(good, known('a', 'b', 'c', 'd')), [])
  assert.deepEqual(planFaults(plan([['a'], ['a']]), known('a')), [
    { code: 'INSTANCE_TWICE', instance: 'a' },
  ])
  assert.deepEqual(planFaults(plan([['x']], { a: one({ after: ['y'] }) }), known('a')), [
    { code: 'INSTANCE_UNKNOWN', instance: 'x' },
    { code: 'INSTANCE_UNKNOWN', instance: 'y' },
  ])
  const round = { a: one({ after: ['b'] }), b: one({ after: ['c'] }), c: one({ after: ['a'] }) }
  assert.deepEqual(planFaults(plan([], round), known('a', 'b', 'c')), [
    { code: 'CYCLE', instances: ['a', 'b', 'c'] },
  ])
  assert.deepEqual(planFaults(plan([], { a: one({ after: ['a'] }) }), known('a')), [
    { code: 'CYCLE', instances: ['a'] },
  ])
  // One that is not named comes last.
  assert.deepEqual(planFaults(plan([['a']], { a: one({ after: ['b'] }) }), known('a', 'b')), [
    { code: 'LATER_WAVE', instance: 'a', after: 'b' },
  ])
})

test('waves follow each other, and inside a wave a server waits for those that it is after', () => {
  const of = plan([['db'], ['app', 'web']], { web: one({ after: ['app'] }) })
  let run = newRun(of, ['rest', 'web', 'app', 'db'])
  assert.deepEqual(whoseTurn(run), ['db'])
  run = after(run, ...ready('db'))
  assert.deepEqual(whoseTurn(run), ['app'])
  assert.equal(turnOf(run, 'web'), 'wait')
  run = after(run, ...ready('app'))
  assert.deepEqual(whoseTurn(run), ['web'])
  run = after(run, ...ready('web'))
  assert.deepEqual(whoseTurn(run), ['rest'])
  run = after(run, ...ready('rest'))
  assert.equal(run.state, 'done')
  assert.equal(newRun(of, []).state, 'done')
})

test('a server that another waits for and that has left the group holds nobody up', () => {
  const run = newRun(plan([], { web: one({ after: ['gone'] }) }), ['web'])
  assert.deepEqual(whoseTurn(run), ['web'])
})

test('a wave with a pause waits for somebody, once', () => {
  const of = plan([['a'], ['b', 'c']], {}, { 0: 'Is the network there?', 1: 'Look at a.' })
  let run = newRun(of, ['a', 'b', 'c'])
  assert.deepEqual([run.state, whoseTurn(run)], ['paused', []])
  assert.deepEqual(run.pauses, [{ kind: 'planned', wave: 0, text: 'Is the network there?' }])
  run = after(run, { kind: 'continue' })
  assert.deepEqual(decideRun(run, { kind: 'continue' }), { ok: false, refusal: 'RUN_NOT_PAUSED' })
  run = after(run, ...ready('a'))
  assert.equal(run.state, 'paused')
  run = after(run, { kind: 'continue' }, ...ready('b'))
  assert.deepEqual([run.state, whoseTurn(run)], ['running', ['c']])
})

test('what follows a server that is not ready is what its plan says', () => {
  const states = (notReady: PlannedInstance['notReady']) => {
    const run = newRun(plan([['a'], ['b']], { a: one({ notReady }) }), ['a', 'b'])
    return after(run, ...through('a', 'preparing', 'not_ready'))
  }
  assert.deepEqual([states('go_on').state, whoseTurn(states('go_on'))], ['running', ['b']])
  assert.equal(states('stop').state, 'stopped')
  assert.equal(turnOf(states('stop'), 'b'), 'skip')
  const paused = states('pause')
  assert.deepEqual(paused.pauses, [{ kind: 'not_ready', instance: 'a' }])
  assert.deepEqual(whoseTurn(after(paused, { kind: 'continue' })), ['b'])
  assert.deepEqual(turnOf(after(paused, { kind: 'abort' }), 'b'), 'skip')
  const last = newRun(plan([], { a: one({ notReady: 'pause' }) }), ['a'])
  assert.equal(after(last, ...through('a', 'preparing', 'not_ready')).state, 'done')
})

test('no more servers than the limit are on their way at once', () => {
  const ids = Array.from({ length: AT_ONCE + 4 }, (_, index) => `i${index}`)
  let run = newRun(plan([]), ids)
  assert.equal(whoseTurn(run).length, AT_ONCE)
  for (const id of whoseTurn(run)) run = after(run, ...through(id, 'preparing'))
  assert.deepEqual(whoseTurn(run), [])
  run = after(run, ...through('i0', 'not_ready'))
  assert.deepEqual(whoseTurn(run), [`i${AT_ONCE}`])
})

test('whatever servers and operators do in whatever order, a run that goes on ends with every server settled', () => {
  let seed = 11
  const random = (below: number) => {
    seed = (seed * 48_271) % 2_147_483_647
    return seed % below
  }
  const ids = ['a', 'b', 'c', 'd', 'e', 'f']
  for (let round = 0; round < 500; round++) {
    const policies = ['go_on', 'stop', 'pause'] as const
    const of = plan(
      [ids.slice(0, 2), ids.slice(2, 4)],
      Object.fromEntries(
        ids.map((id, index) => [
          id,
          one({
            notReady: policies[random(3)] ?? 'go_on',
            after: ids.slice(0, index).filter(() => random(4) === 0),
          }),
        ]),
      ),
      random(2) === 0 ? { 1: 'look' } : {},
    )
    assert.deepEqual(planFaults(of, new Set(ids)), [])
    let run = newRun(of, ids)
    for (let turn = 0; turn < 200 && !run.servers.every((s) => hasSettled(s.state)); turn++) {
      const [first] = whoseTurn(run)
      const moving = run.servers.filter((s) => s.state !== 'waiting' && !hasSettled(s.state))
      const mover = moving[random(Math.max(1, moving.length))]
      if (mover !== undefined && (first === undefined || random(2) === 0)) {
        const ways = SERVER_RECOVERY_MOVES[mover.state]
        const to = ways[random(5) === 0 ? ways.length - 1 : 0]
        assert.ok(to !== undefined)
        run = after(run, { kind: 'moved', instance: mover.instance, to })
      } else if (first !== undefined) {
        const skip = turnOf(run, first) === 'skip'
        assert.equal(skip, hasEnded(run.state))
        run = after(run, { kind: 'moved', instance: first, to: skip ? 'skipped' : 'preparing' })
      } else {
        // Nobody can move by himself: then, and only then, somebody is waited for.
        assert.equal(run.state, 'paused')
        run = after(run, { kind: random(8) === 0 ? 'abort' : 'continue' })
      }
    }
    assert.ok(
      run.servers.every((s) => hasSettled(s.state)),
      JSON.stringify(run),
    )
    assert.ok(hasEnded(run.state))
  }
})
