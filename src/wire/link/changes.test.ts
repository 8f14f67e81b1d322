import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { decodeChanges, encodeChanges } from './changes.ts'

describe('what a replica says it has changed', () => {
  test('reads back as it was written', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), fc.nat(255), (regions, byte) => {
        const compare = new Uint8Array(Math.ceil(regions / 8)).fill(byte)
        const send = new Uint8Array(regions * 8).fill(byte ^ 0xff)
        const read = decodeChanges(encodeChanges({ compare, send }), regions)
        assert.deepEqual(read && Buffer.from(read.compare), Buffer.from(compare))
        assert.deepEqual(read && Buffer.from(read.send), Buffer.from(send))
      }),
    )
  })

  test('nothing known, and anything that is not the answer to the question, means everything', () => {
    assert.equal(decodeChanges(encodeChanges(null), 3), null)
    const whole = encodeChanges({ compare: new Uint8Array(1), send: new Uint8Array(24) })
    assert.notEqual(decodeChanges(whole, 3), null)
    assert.equal(decodeChanges(whole, 4), null)
    assert.equal(decodeChanges(whole.subarray(0, whole.length - 1), 3), null)
    assert.equal(decodeChanges(Buffer.alloc(0), 3), null)
  })
})
