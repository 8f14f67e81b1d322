import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fits, QUOTAS, UNLIMITED } from './quota.ts'

test('the last unit of a quota may be used, one more may not', () => {
  assert.ok(fits(3, 2))
  assert.ok(!fits(3, 3))
  assert.ok(fits(10, 4, 6))
  assert.ok(!fits(10, 4, 7))
  assert.ok(!fits(0, 0))
})

test('an unlimited quota never refuses', () => {
  assert.ok(fits(UNLIMITED, 1_000_000, 1_000_000))
})

test('every default lies in the range that may be set', () => {
  for (const rule of Object.values(QUOTAS)) {
    if (rule.fallback !== UNLIMITED) assert.ok(rule.fallback >= rule.min)
    if (rule.max !== UNLIMITED) assert.ok(rule.fallback <= rule.max)
  }
})
