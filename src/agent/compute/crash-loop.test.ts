import assert from 'node:assert/strict'
import { test } from 'node:test'
import { afterDeath, DEATHS_KEPT_MS, START_AGAIN_MS } from './crash-loop.ts'

test('a guest that dies again and again is started later each time, and then not at all', () => {
  const deaths: number[] = []
  for (const delayMs of START_AGAIN_MS) {
    deaths.push(1_000)
    assert.deepEqual(afterDeath(deaths, 1_000), { kind: 'start_again', delayMs })
  }
  assert.deepEqual(afterDeath([...deaths, 1_000], 1_000), { kind: 'stay_off' })
})

test('deaths of long ago do not count', () => {
  const old = START_AGAIN_MS.map(() => 0)
  const now = DEATHS_KEPT_MS
  assert.deepEqual(afterDeath([...old, now], now), {
    kind: 'start_again',
    delayMs: START_AGAIN_MS[0],
  })
})
