import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Turns } from './turns.ts'

const settled = () => new Promise<void>((resolve) => setImmediate(resolve))

test('turns are given in the order in which they were asked for, and who leaves the queue is passed over', async () => {
  const turns = new Turns(1)
  const never = new AbortController().signal
  const leaver = new AbortController()
  const had: string[] = []
  await turns.take(never)
  const first = turns.take(leaver.signal)
  const second = turns.take(never).then(() => had.push('second'))
  const third = turns.take(never).then(() => had.push('third'))
  leaver.abort(new Error('gone'))
  await assert.rejects(first, /gone/)
  await settled()
  assert.deepEqual(had, [])
  turns.give()
  await second
  await settled()
  assert.deepEqual(had, ['second'])
  turns.give()
  await third
  turns.give()
  await turns.take(never)
  await assert.rejects(turns.take(leaver.signal), /gone/)
})
