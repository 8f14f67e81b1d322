import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Refusal } from '../http/refusal.ts'
import { demandSuccess, unlessHidden } from './replication-waits.ts'

test('an operation that goes on or failed is no success, and the answer says which', () => {
  demandSuccess({ status: 'succeeded', failReason: null }, 'it goes on')
  const refused = (text: RegExp) => (error: unknown) =>
    error instanceof Refusal && error.status === 503 && text.test(error.message)
  assert.throws(() => demandSuccess(null, 'it goes on'), refused(/it goes on/))
  for (const status of ['failed', 'cancelled', 'running'] as const) {
    assert.throws(
      () => demandSuccess({ status, failReason: 'az2 is silent.' }, 'it goes on'),
      refused(/az2 is silent.*Repeat/),
    )
  }
})

test('only a state that was waited for in vain is answered as one that passes', () => {
  const conflict = new Refusal(409, 'EVS.5400', 'no')
  for (const [shown, refusal, status] of [
    [true, 'GROUP_STATE', 409],
    [true, 'PAIR_STATE', 409],
    [false, 'GROUP_STATE', 503],
    [false, 'PAIR_STATE', 503],
    [false, 'PAIR_UNKNOWN', 409],
  ] as const) {
    assert.equal(unlessHidden(shown, refusal, conflict).status, status, `${shown} ${refusal}`)
  }
})
