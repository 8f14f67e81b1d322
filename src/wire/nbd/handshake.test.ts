import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { OPT, REP } from './constants.ts'
import {
  decodeClientFlags,
  decodeExportName,
  decodeExportRequest,
  decodeGreeting,
  decodeInfo,
  decodeMetaContextRequest,
  decodeOptionHeader,
  decodeOptionReplyHeader,
  encodeClientFlags,
  encodeExportNameReply,
  encodeExportRequest,
  encodeGreeting,
  encodeInfo,
  encodeMetaContextRequest,
  encodeOption,
  encodeOptionReply,
  type Info,
  OPTION_HEADER_BYTES,
  OPTION_REPLY_HEADER_BYTES,
} from './handshake.ts'

const u16 = fc.integer({ min: 0, max: 0xffff })
const u32 = fc.integer({ min: 0, max: 0xffffffff })
const size = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER })
/** Whole code points without NUL, which is what a name may be. */
const name = fc
  .string({ unit: 'grapheme', maxLength: 200 })
  .filter((text) => !text.includes('\0') && text.isWellFormed())

test('the greeting and the client flags come back as they went out', () => {
  fc.assert(fc.property(u16, (flags) => assert.equal(decodeGreeting(encodeGreeting(flags)), flags)))
  for (const flags of [0, 1, 2, 3]) {
    assert.equal(decodeClientFlags(encodeClientFlags(flags)), flags)
  }
})

test('a client flag that was never offered is refused', () => {
  assert.equal(decodeClientFlags(encodeClientFlags(4)), undefined)
  assert.equal(decodeClientFlags(encodeClientFlags(0x80000001)), undefined)
})

test('option headers come back as they went out', () => {
  fc.assert(
    fc.property(u32, fc.uint8Array({ maxLength: 64 }), (option, data) => {
      const bytes = encodeOption(option, data)
      const header = decodeOptionHeader(bytes.subarray(0, OPTION_HEADER_BYTES))
      assert.deepEqual(header, { option, length: data.length })
      assert.deepEqual(new Uint8Array(bytes.subarray(OPTION_HEADER_BYTES)), data)
    }),
  )
})

test('option reply headers come back as they went out', () => {
  fc.assert(
    fc.property(u32, u32, fc.uint8Array({ maxLength: 64 }), (option, type, data) => {
      const bytes = encodeOptionReply(option, type, data)
      const header = decodeOptionReplyHeader(bytes.subarray(0, OPTION_REPLY_HEADER_BYTES))
      assert.deepEqual(header, { option, type, length: data.length })
    }),
  )
})

test('export requests come back as they went out', () => {
  fc.assert(
    fc.property(name, fc.array(u16, { maxLength: 20 }), (text, infos) => {
      const request = { name: text, infos }
      assert.deepEqual(decodeExportRequest(encodeExportRequest(request)), request)
    }),
  )
})

test('meta context requests come back as they went out', () => {
  fc.assert(
    fc.property(name, fc.array(name, { maxLength: 5 }), (text, queries) => {
      const request = { name: text, queries }
      assert.deepEqual(decodeMetaContextRequest(encodeMetaContextRequest(request)), request)
    }),
  )
})

test('information replies come back as they went out', () => {
  const info: fc.Arbitrary<Exclude<Info, { kind: 'other' }>> = fc.oneof(
    fc.record({ kind: fc.constant('export' as const), sizeBytes: size, flags: u16 }),
    fc.record({ kind: fc.constant('name' as const), name }),
    fc.record({
      kind: fc.constant('block_size' as const),
      minimum: u32,
      preferred: u32,
      maximum: u32,
    }),
  )
  fc.assert(fc.property(info, (one) => assert.deepEqual(decodeInfo(encodeInfo(one)), { ...one })))
})

test('no decoder throws or accepts trailing bytes, whatever the bytes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), (raw) => {
      const bytes = Buffer.from(raw)
      for (const decode of [
        decodeGreeting,
        decodeClientFlags,
        decodeOptionHeader,
        decodeOptionReplyHeader,
        decodeExportName,
        decodeInfo,
      ]) {
        decode(bytes)
      }
      const request = decodeExportRequest(bytes)
      if (request !== undefined) assert.deepEqual(encodeExportRequest(request), bytes)
      const query = decodeMetaContextRequest(bytes)
      if (query !== undefined) assert.deepEqual(encodeMetaContextRequest(query), bytes)
    }),
  )
})

test('names with NUL, broken UTF-8 or more than 4096 bytes are refused', () => {
  const request = (text: Buffer) => {
    const head = Buffer.alloc(4)
    head.writeUInt32BE(text.length)
    return Buffer.concat([head, text, Buffer.alloc(2)])
  }
  assert.equal(decodeExportRequest(request(Buffer.from('a\0b'))), undefined)
  assert.equal(decodeExportRequest(request(Buffer.from([0xc3, 0x28]))), undefined)
  assert.equal(decodeExportRequest(request(Buffer.alloc(4097, 97))), undefined)
  assert.equal(decodeExportRequest(request(Buffer.alloc(4096, 97)))?.name.length, 4096)
  assert.equal(decodeExportName(Buffer.alloc(4097, 97)), undefined)
})

test('a query count without queries behind it is refused at once', () => {
  const bytes = Buffer.from([0, 0, 0, 1, 97, 0xff, 0xff, 0xff, 0xff])
  assert.equal(decodeMetaContextRequest(bytes), undefined)
})

test('the old answer to EXPORT_NAME carries its zeroes unless they were agreed away', () => {
  assert.equal(encodeExportNameReply(1, 1, true).length, 10)
  assert.equal(encodeExportNameReply(1, 1, false).length, 134)
})

test('the bytes of a known exchange stay as they are', () => {
  assert.equal(encodeGreeting(3).toString('hex'), '4e42444d4147494349484156454f50540003')
  assert.equal(
    encodeOption(OPT.GO, encodeExportRequest({ name: 'v', infos: [3] })).toString('hex'),
    `49484156454f50540000000700000009${'00000001760001'}0003`,
  )
  assert.equal(
    encodeOptionReply(OPT.GO, REP.ACK).toString('hex'),
    '0003e889045565a9000000070000000100000000',
  )
})
