import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from './clock.ts'
import { rounds } from './rounds.ts'

/** A clock of which tests fire the timers. */
function timers() {
  const waiting: { readonly delayMs: number; readonly fire: () => void }[] = []
  const clock: Clock = {
    wallMs: () => 0,
    bootMs: () => 0,
    after(delayMs, fire) {
      const one = { delayMs, fire }
      waiting.push(one)
      return () => void waiting.splice(waiting.indexOf(one), waiting.includes(one) ? 1 : 0)
    },
  }
  return { clock, waiting }
}
const settled = () => new Promise<void>((resolve) => setImmediate(resolve))

test('a round begins a pause after the one before it ended, also when that failed', async () => {
  const { clock, waiting } = timers()
  const failures: unknown[] = []
  const ends: ((error?: Error) => void)[] = []
  const round = () =>
    new Promise<void>((resolve, reject) => {
      ends.push((error) => (error === undefined ? resolve() : reject(error)))
    })
  const work = rounds(clock, 100, round, (error) => failures.push(error))
  work.start(7)
  assert.deepEqual([ends.length, waiting.map(({ delayMs }) => delayMs)], [0, [7]])
  waiting.pop()?.fire()
  assert.deepEqual([ends.length, waiting.length], [1, 0])
  const wrong = new Error('wrong')
  ends[0]?.(wrong)
  await settled()
  assert.deepEqual([failures, waiting.map(({ delayMs }) => delayMs)], [[wrong], [100]])
  waiting.pop()?.fire()
  let stopped = false
  const stopping = work.stop().then(() => (stopped = true))
  await settled()
  assert.deepEqual([work.stopping, stopped], [true, false], 'the round under way is waited for')
  ends[1]?.()
  await stopping
  assert.equal(waiting.length, 0, 'no round begins any more')
})

test('the first round begins at once, or after a pause, and none when it was stopped before', async () => {
  const { clock, waiting } = timers()
  let count = 0
  const round = async () => void count++
  const failed = () => assert.fail('no round failed')
  rounds(clock, 100, round, failed).start(0)
  assert.equal(count, 1)
  await settled()
  const later = rounds(clock, 50, round, failed)
  later.start()
  assert.deepEqual(
    waiting.map(({ delayMs }) => delayMs),
    [100, 50],
  )
  await later.stop()
  assert.equal(waiting.length, 1)
})
