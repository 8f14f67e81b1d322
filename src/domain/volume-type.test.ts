import assert from 'node:assert/strict'
import { test } from 'node:test'
import { mayRetype, ratesOf, UNLIMITED_TYPE, VOLUME_TYPES } from './volume-type.ts'

test('what a volume may do grows with its size, up to the most of its type', () => {
  const { usual } = VOLUME_TYPES['SSD'] ?? { usual: UNLIMITED_TYPE }
  assert.deepEqual(ratesOf(usual, 10), { iops: 2_300, bytesPerSecond: 125 * 1_048_576 })
  assert.deepEqual(ratesOf(usual, 32_768), { iops: 50_000, bytesPerSecond: 350 * 1_048_576 })
  const endless = { iops: { base: 0, perGb: 3, max: null }, mibps: null }
  assert.deepEqual(ratesOf(endless, 1_000), { iops: 3_000, bytesPerSecond: null })
  const slow = { iops: { base: 0, perGb: 0.01, max: null }, mibps: null }
  assert.deepEqual(ratesOf(slow, 1), { iops: 1, bytesPerSecond: null }, 'never nothing at all')
  assert.deepEqual(ratesOf(UNLIMITED_TYPE, 7), { iops: null, bytesPerSecond: null })
})

test('a volume moves to a higher type, never to the same, a lower or an unknown one', () => {
  const names = Object.keys(VOLUME_TYPES)
  for (const [i, from] of names.entries()) {
    for (const [j, to] of names.entries()) assert.equal(mayRetype(from, to), j > i, `${from} ${to}`)
  }
  assert.equal(mayRetype('SATA', 'TAPE'), false)
  assert.equal(mayRetype('TAPE', 'SSD'), false)
})
