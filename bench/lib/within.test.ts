import assert from 'node:assert/strict'
import { test } from 'node:test'
import { within } from './within.ts'

test('what is done in time is passed on, also its failure', async () => {
  const state = () => assert.fail('nobody asks')
  assert.equal(await within(10_000, 'work', Promise.resolve(7), state), 7)
  await assert.rejects(
    within(10_000, 'work', Promise.reject(new Error('no')), state),
    /^Error: no$/,
  )
})

test('what never ends is an error that says how things stood', async () => {
  const never = new Promise<void>(() => undefined)
  const state = () => Promise.reject(new Error('the state is not known'))
  await assert.rejects(
    within(1, 'a write', never, () => 'az1 refuses'),
    /^Error: a write: not within 1 ms; az1 refuses$/,
  )
  await assert.rejects(within(1, 'a write', never, state), /the state is not known/)
})
