import assert from 'node:assert/strict'
import { test } from 'node:test'
import { afterDeath, RUNNING_LIMITS as limits } from './restart.ts'

const crash = { wasReady: false, readyForMs: 0, killed: false }

test('delays double up to their limit, and a crash loop ends', () => {
  const delays: number[] = []
  let failures = 0
  for (;;) {
    const verdict = afterDeath(failures, crash, limits)
    failures = verdict.failures
    if (verdict.kind === 'give_up') break
    delays.push(verdict.delayMs)
  }
  assert.deepEqual(delays, [200, 400, 800, 1600, 3200, 5000, 5000])
  assert.equal(failures, limits.failuresMax)
})

test('a part that was healthy starts with a clean record', () => {
  const death = { wasReady: true, readyForMs: limits.healthyMs, killed: false }
  assert.deepEqual(afterDeath(7, death, limits), { kind: 'restart', delayMs: 200, failures: 1 })
})

test('a part that answers and then crashes soon is still in its loop', () => {
  const death = { wasReady: true, readyForMs: limits.healthyMs - 1, killed: false }
  assert.equal(afterDeath(7, death, limits).kind, 'give_up')
})

test('a kill of a part that answered is no failing: it comes back at once, for ever', () => {
  const death = { wasReady: true, readyForMs: 1, killed: true }
  for (let failures = 0; failures < 50; failures++) {
    assert.deepEqual(afterDeath(failures, death, limits), {
      kind: 'restart',
      delayMs: 0,
      failures: 0,
    })
  }
})

test('a part killed again and again before it answers is delayed but not given up', () => {
  const verdict = afterDeath(500, { ...crash, killed: true }, limits)
  assert.deepEqual(verdict, { kind: 'restart', delayMs: limits.delayMaxMs, failures: 501 })
})
