import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fits, judgeQuota, QUOTA_KINDS, QUOTA_LIMIT_MAX, QUOTAS, UNLIMITED } from './quota.ts'

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

test('a limit is a whole number from what is used up to the largest, or none', () => {
  for (const kind of QUOTA_KINDS) {
    assert.equal(judgeQuota(kind, UNLIMITED, 7), null)
    assert.equal(judgeQuota(kind, 7, 7), null)
    assert.equal(judgeQuota(kind, QUOTA_LIMIT_MAX, 7), null)
    assert.equal(judgeQuota(kind, 6, 7), 'QUOTA_BELOW_USAGE')
    for (const limit of [-2, 1.5, QUOTA_LIMIT_MAX + 1, Number.NaN]) {
      assert.equal(judgeQuota(kind, limit, 0), 'QUOTA_OUT_OF_RANGE')
    }
  }
})
