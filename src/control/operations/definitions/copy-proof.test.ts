import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isAtWork, isOfThisCopy } from './copy-proof.ts'

test('a report about a copy that was never replaced counts', () => {
  assert.ok(isOfThisCopy(undefined, 0))
})

test('while a rebuild is at work no report counts, however new it is', () => {
  assert.ok(!isOfThisCopy({ status: 'running', endAt: null }, Number.MAX_SAFE_INTEGER))
  assert.ok(!isOfThisCopy({ status: 'pending', endAt: null }, Number.MAX_SAFE_INTEGER))
  assert.ok(isAtWork({ status: 'running', endAt: null }))
  assert.ok(!isAtWork({ status: 'failed', endAt: 1 }))
  assert.ok(!isAtWork(undefined))
})

test('a rebuild that ended well has seen the new copy whole, so an old report says nothing untrue', () => {
  assert.ok(isOfThisCopy({ status: 'succeeded', endAt: 50_000 }, 1_000))
})

test('after a rebuild that was given up only a report counts that cannot be of the time before', () => {
  for (const status of ['failed', 'cancelled'] as const) {
    const rebuild = { status, endAt: 50_000 }
    assert.ok(!isOfThisCopy(rebuild, 49_999), 'of the copy that is gone')
    assert.ok(!isOfThisCopy(rebuild, 50_500), 'it may have been on its way')
    assert.ok(isOfThisCopy(rebuild, 61_000))
  }
})
