import assert from 'node:assert/strict'
import { test } from 'node:test'
import { encodeBatch } from './before-image.ts'
import {
  decodeMapHeader,
  decodeMapRecord,
  encodeMapHeader,
  MAP_HEADER_BYTES,
  MAP_RECORD_BYTES,
} from './map-log.ts'
import { flipped } from '../../../../test/support/flipped.ts'

const header = { state: 'following', sizeBytes: 1_312_256, blockBytes: 65_536 } as const

test('a header is the bytes of version 1', () => {
  const bytes = encodeMapHeader(header)
  assert.equal(bytes.length, MAP_HEADER_BYTES)
  assert.equal(
    bytes.subarray(0, 24).toString('hex'),
    '4846534d00010000000000000014060000010000784f21b8',
  )
  assert.ok(bytes.subarray(24).every((byte) => byte === 0))
})

test('a batch is the bytes of version 1', () => {
  const bytes = encodeBatch(
    [
      { kind: 'data', block: 3, value: 0xdeadbeef },
      { kind: 'hole', block: 7, value: 2 },
    ],
    5,
  )
  const records = [0, 16, 32].map((at) => bytes.subarray(at, at + 16).toString('hex'))
  assert.deepEqual(records, [
    'b63bba63000000000300000000000002',
    '541dd48a0000000301000000deadbeef',
    '1121268f000000070200000000000002',
  ])
})

test('headers and records come back as they went in, and a flipped bit is found', () => {
  for (const state of ['following', 'failed', 'sealed'] as const) {
    const bytes = encodeMapHeader({ ...header, state })
    assert.deepEqual(decodeMapHeader(bytes), { ...header, state })
    for (let bit = 0; bit < 24 * 8; bit++) {
      assert.equal(decodeMapHeader(flipped(bytes, bit)), null)
    }
  }
  const record = { kind: 'data', block: 4_000_000_000, value: 0xffffffff } as const
  const bytes = encodeBatch([record], 41).subarray(MAP_RECORD_BYTES)
  assert.deepEqual(decodeMapRecord(bytes, 0, 42), record)
  assert.equal(decodeMapRecord(bytes, 0, 43), null, 'in another place it is none')
  for (let bit = 0; bit < MAP_RECORD_BYTES * 8; bit++) {
    assert.equal(decodeMapRecord(flipped(bytes, bit), 0, 42), null)
  }
})
