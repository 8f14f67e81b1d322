import assert from 'node:assert/strict'
import { availableParallelism } from 'node:os'
import { test } from 'node:test'
import { setTimeout as after } from 'node:timers/promises'
import { Anticipation } from './anticipation.ts'

/** For how many of the next `ms` milliseconds the event loop did not sleep. */
async function awakeIn(ms: number): Promise<number> {
  const before = performance.eventLoopUtilization()
  await after(ms)
  return performance.eventLoopUtilization(before).active
}

test('the loop stays awake for the window, and sleeps afterwards', async (t) => {
  if (availableParallelism() < 2) return t.skip('with one core nobody stays awake')
  const one = new Anticipation(50)
  one.expect()
  assert.ok((await awakeIn(40)) > 20)
  await after(30)
  assert.ok((await awakeIn(100)) < 50)
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
  assert.ok((await awakeIn(50)) < 25)
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
