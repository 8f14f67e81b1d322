import assert from 'node:assert/strict'
import { availableParallelism } from 'node:os'
import { test } from 'node:test'
import { setTimeout as after } from 'node:timers/promises'
import { Anticipation } from './anticipation.ts'

/** Turns of the event loop in `ms`: a few when it sleeps, some hundreds per millisecond when it does not. */
async function turnsIn(ms: number): Promise<number> {
  const before = performance.nodeTiming.uvMetricsInfo.loopCount
  await after(ms)
  return performance.nodeTiming.uvMetricsInfo.loopCount - before
}

test('the loop stays awake for the window, and sleeps afterwards', async (t) => {
  if (availableParallelism() < 2) return t.skip('with one core nobody stays awake')
  const one = new Anticipation(50)
  one.expect()
  assert.ok((await turnsIn(40)) > 50)
  await after(30)
  assert.ok((await turnsIn(100)) < 50)
})

test('what took longer than the window is waited for asleep, until it is quick again', async (t) => {
  if (availableParallelism() < 2) return t.skip('with one core nobody stays awake')
  const one = new Anticipation(5)
  assert.equal(one.willing, true)
  one.expect()
  await after(20)
  one.came()
  assert.equal(one.willing, false)
  one.expect()
  assert.ok((await turnsIn(50)) < 50)
  one.came()
  one.expect()
  one.came()
  assert.equal(one.willing, true)
})

test('what does not come at all is soon waited for asleep', async () => {
  const one = new Anticipation(5)
  one.expect()
  await after(20)
  one.expect()
  assert.equal(one.willing, false)
})

test('what comes unexpected says nothing about the next wait', async () => {
  const one = new Anticipation(1_000)
  const { willing } = one
  await after(5)
  one.came()
  assert.equal(one.willing, willing)
})
