import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Flapping } from './flapping.ts'

test('each loss within a minute of a rise doubles the wait before the next, up to a minute', () => {
  const flapping = new Flapping()
  const waits: number[] = []
  for (let now = 0; waits.length < 8; now += 70_000) {
    waits.push(flapping.waitMs)
    flapping.risen(now)
    flapping.lost(now + 59_999)
  }
  assert.deepEqual(waits, [0, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000])
})

test('a link that held for a minute is forgiven, and losses between two rises say nothing', () => {
  const flapping = new Flapping()
  flapping.risen(0)
  flapping.lost(10)
  flapping.lost(20)
  flapping.lost(30)
  assert.equal(flapping.waitMs, 2_000)
  flapping.risen(100_000)
  flapping.lost(160_000)
  assert.equal(flapping.waitMs, 0)
})
