import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault, type FaultKind } from '#base/fault.ts'
import { judge, UNEXPECTED } from './retry.ts'

const policy = { attemptsMax: 5, pauseFirstMs: 100, pauseMostMs: 1_000 }
const faultOf = (retry: FaultKind['retry'], detail = {}) =>
  new Fault({ code: 'SAMPLE', retry, text: 'Text.', hint: 'Hint.' }, 'trying', detail)
const pauses = (error: unknown, chance: number) =>
  [1, 2, 3, 4].map((attempt) => {
    const verdict = judge(error, attempt, policy, chance)
    return verdict.kind === 'retry' ? verdict.pauseMs : null
  })

test('pauses double up to the longest, spread by a fifth', () => {
  assert.deepEqual(pauses(faultOf('later'), 0.5), [100, 200, 400, 800])
  assert.deepEqual(pauses(faultOf('later'), 0), [80, 160, 320, 640])
  assert.deepEqual(pauses(faultOf('later'), 1), [120, 240, 480, 960])
  const patient = { ...policy, attemptsMax: 1_000_000 }
  const late = judge(faultOf('later'), 999_999, patient, 0.5)
  assert.ok(late.kind === 'retry' && late.pauseMs === 1_000)
})

test('the last try fails with the code of its fault, others with one of their own', () => {
  const failed = judge(faultOf('later'), 5, policy, 0.5)
  assert.deepEqual(failed.kind === 'fail' && failed.code, 'SAMPLE')
  const odd = judge('a string was thrown', 5, policy, 0.5)
  assert.deepEqual(odd, { kind: 'fail', code: UNEXPECTED, message: 'a string was thrown' })
  assert.equal(judge(new TypeError('slip'), 4, policy, 0.5).kind, 'retry')
})

test('a fault that never passes fails at the first try, one to repeat now waits for nothing', () => {
  assert.equal(judge(faultOf('never'), 1, policy, 0.5).kind, 'fail')
  const now = judge(faultOf('now'), 1, policy, 0.5)
  assert.deepEqual(now.kind === 'retry' && now.pauseMs, 0)
})

test('a fault may ask for a longer pause, up to a minute', () => {
  const asking = (retryAfterMs: unknown) => pauses(faultOf('later', { retryAfterMs }), 0.5)[0]
  assert.equal(asking(2_500), 2_500)
  assert.equal(asking(50), 100)
  assert.equal(asking(3_600_000), 60_000)
  assert.equal(asking('soon'), 100)
})
