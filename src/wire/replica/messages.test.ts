import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  decodeHave,
  decodePut,
  decodeWanted,
  encodeHave,
  encodePut,
  encodeWanted,
  HAVE_BLOCKS_MAX,
  type Put,
} from './messages.ts'

/** Objects as the code makes them. */
const record = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }) =>
  fc.record(model, { noNullPrototype: true })
const block = fc.integer({ min: 0, max: 2 ** 40 })
const id = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => Buffer.from(bytes))
const put: fc.Arbitrary<Put> = record({
  volume: fc.integer({ min: 0, max: 63 }),
  keys: fc.array(id, { minLength: 1, maxLength: 3 }),
  items: fc.array(
    fc.oneof(
      record({
        kind: fc.constant('zeroes' as const),
        block,
        count: fc.integer({ min: 0, max: 2 ** 31 }),
      }),
      record({
        kind: fc.constant('record' as const),
        block,
        id,
        key: fc.constant(0),
        flags: fc.integer({ min: 0, max: 255 }),
        bytes: fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
      }),
    ),
    { maxLength: 20 },
  ),
})

test('blocks by name, and the answer about them, are read as they were written', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 63 }),
      fc.array(record({ block, id }), { maxLength: 50 }),
      fc.array(fc.boolean(), { maxLength: 100 }),
      (volume, blocks, wanted) => {
        assert.deepEqual(decodeHave(encodeHave(volume, blocks)), { volume, blocks })
        assert.deepEqual(decodeWanted(encodeWanted(wanted), wanted.length), wanted)
      },
    ),
  )
})

test('records and zeroes are read as they were written', () => {
  fc.assert(fc.property(put, (one) => assert.deepEqual(decodePut(encodePut(one)), one)))
})

test('bodies that are cut short, too long, or nonsense are malformed, and nothing worse', () => {
  fc.assert(
    fc.property(put, fc.nat(), (one, at) => {
      const bytes = encodePut(one)
      assert.equal(decodePut(bytes.subarray(0, at % bytes.length)), undefined)
      assert.equal(decodePut(Buffer.concat([bytes, Buffer.alloc(1)])), undefined)
    }),
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      decodePut(Buffer.from(bytes))
      decodeHave(Buffer.from(bytes))
    }),
  )
  const many = Array.from({ length: HAVE_BLOCKS_MAX + 1 }, () => ({
    block: 0,
    id: Buffer.alloc(32),
  }))
  assert.equal(decodeHave(encodeHave(0, many)), undefined)
  // A record that names a key that is not there.
  const lost = { kind: 'record', block: 0, id: Buffer.alloc(32), key: 1, flags: 0 } as const
  const bytes = encodePut({
    volume: 0,
    keys: [Buffer.alloc(32)],
    items: [{ ...lost, bytes: Buffer.alloc(0) }],
  })
  assert.equal(decodePut(bytes), undefined)
})
