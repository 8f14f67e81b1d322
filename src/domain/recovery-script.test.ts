import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  ATTEMPTS_MAX,
  DEAD_MS,
  decideScript,
  GIVE_UP_MS,
  type ScriptAttempt,
} from './recovery-script.ts'

const facts = {
  phase: 'before',
  unwanted: false,
  owner: 'me',
  runsHere: false,
  alone: false,
  quietMs: 0,
} as const
const kept = (over: Partial<ScriptAttempt> = {}): ScriptAttempt => ({
  phase: 'before',
  attempt: 2,
  owner: 'other',
  beat: 7,
  ...over,
})
const attemptOf = (turn: ReturnType<typeof decideScript>) =>
  turn.kind === 'begin' ? turn.attempt.attempt : turn.kind

test('a script is begun once, waited for while somebody is at it, and begun again with the next number when nobody is', () => {
  assert.deepEqual(decideScript(null, facts), {
    kind: 'begin',
    attempt: { phase: 'before', attempt: 1, owner: 'me', beat: 0 },
  })
  assert.equal(
    attemptOf(decideScript(kept({ phase: 'after' }), facts)),
    1,
    'the other script ended',
  )
  for (const one of [null, kept(), kept({ owner: 'me' })]) {
    assert.equal(attemptOf(decideScript(one, { ...facts, runsHere: true })), 'wait')
  }
  // This process began it and is not at it: its end was not kept.
  assert.equal(attemptOf(decideScript(kept({ owner: 'me' }), facts)), 3)
  // No other process can be alive.
  assert.equal(attemptOf(decideScript(kept(), { ...facts, alone: true })), 3)
  assert.equal(attemptOf(decideScript(kept(), { ...facts, quietMs: DEAD_MS - 1 })), 'wait')
  assert.equal(attemptOf(decideScript(kept(), { ...facts, quietMs: DEAD_MS })), 3)
})

test('a script is not begun without end, and not when its recovery has ended; what runs comes to its end', () => {
  const mine = (attempt: number) => kept({ owner: 'me', attempt })
  assert.equal(attemptOf(decideScript(mine(ATTEMPTS_MAX - 1), facts)), ATTEMPTS_MAX)
  assert.equal(attemptOf(decideScript(mine(ATTEMPTS_MAX), facts)), 'exhausted')
  const unwanted = { ...facts, unwanted: true }
  for (const one of [null, mine(1)])
    assert.equal(attemptOf(decideScript(one, unwanted)), 'unwanted')
  assert.equal(attemptOf(decideScript(mine(1), { ...unwanted, runsHere: true })), 'wait')
  assert.equal(attemptOf(decideScript(kept(), unwanted)), 'wait', 'another is at it')
})

test('an owner that cannot say that it is alive has ended its script before another begins it', () => {
  // Two seconds between the polite end of a script and the other one, and as much for whoever has to find time for it.
  assert.ok(GIVE_UP_MS + 2 * 2_000 < DEAD_MS)
})
