import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from '#base/clock.ts'
import { throttle } from './throttle.ts'

function world() {
  let nowMs = 1_000
  const clock: Clock = { wallMs: () => 0, bootMs: () => nowMs, after: () => () => {} }
  const guard = throttle(clock, { failuresMax: 3, lockMs: 10_000 })
  return { guard, pass: (ms: number) => (nowMs += ms) }
}

test('failures in a row lock a name for a while, and it only', () => {
  const { guard, pass } = world()
  for (let failure = 0; failure < 3; failure++) {
    assert.equal(guard.lockedForS('a'), 0)
    guard.fail('a')
  }
  assert.equal(guard.lockedForS('a'), 10)
  assert.equal(guard.lockedForS('b'), 0)
  pass(9_500)
  assert.equal(guard.lockedForS('a'), 1)
  pass(500)
  assert.equal(guard.lockedForS('a'), 0)
})

test('a success starts the count again, and so does a pause', () => {
  const { guard, pass } = world()
  guard.fail('a')
  guard.fail('a')
  guard.succeed('a')
  guard.fail('a')
  guard.fail('a')
  assert.equal(guard.lockedForS('a'), 0)
  pass(10_000)
  guard.fail('a')
  assert.equal(guard.lockedForS('a'), 0)
})

test('what is remembered is bounded: the oldest failures are forgotten first', () => {
  const { guard } = world()
  for (let failure = 0; failure < 3; failure++) guard.fail('old')
  for (let name = 0; name < 20_000; name++) guard.fail(`name ${name}`)
  assert.equal(guard.lockedForS('old'), 0)
})
