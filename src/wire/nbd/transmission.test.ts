import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { CMD, CMD_FLAG } from './constants.ts'
import {
  CHUNK_HEADER_BYTES,
  DATA_CHUNK_BYTES,
  emptyRequest,
  encodeBlockStatus,
  encodeErrorChunk,
  readOffset,
  readRequest,
  REQUEST_BYTES,
  SIMPLE_REPLY_BYTES,
  writeDataChunkHeader,
  writeOffset,
  writeRequest,
  writeSimpleReply,
} from './transmission.ts'

const u16 = fc.integer({ min: 0, max: 0xffff })
const u32 = fc.integer({ min: 0, max: 0xffffffff })
const offset = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER })

test('requests come back as they went out, anywhere in a buffer', () => {
  const request = fc.record(
    { flags: u16, type: u16, cookieHigh: u32, cookieLow: u32, offset, length: u32 },
    { noNullPrototype: true },
  )
  fc.assert(
    fc.property(request, fc.integer({ min: 0, max: 9 }), (one, at) => {
      const bytes = Buffer.alloc(REQUEST_BYTES + 10, 0xaa)
      writeRequest(bytes, at, one)
      const back = emptyRequest()
      assert.equal(readRequest(bytes, at, back), true)
      assert.deepEqual(back, one)
      assert.equal(bytes[at + REQUEST_BYTES], 0xaa)
    }),
  )
})

test('a request with the wrong magic is not read', () => {
  assert.equal(readRequest(Buffer.alloc(REQUEST_BYTES), 0, emptyRequest()), false)
})

test('an offset above 2^53 - 1 reads as NaN, which is inside no volume', () => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(Number.MAX_SAFE_INTEGER))
  assert.equal(readOffset(bytes, 0), Number.MAX_SAFE_INTEGER)
  bytes.writeBigUInt64BE(BigInt(Number.MAX_SAFE_INTEGER) + 1n)
  assert.equal(readOffset(bytes, 0), Number.NaN)
  bytes.fill(0xff)
  assert.equal(readOffset(bytes, 0), Number.NaN)
})

test('offsets are written as 64 bits', () => {
  fc.assert(
    fc.property(offset, (one) => {
      const bytes = Buffer.alloc(8)
      writeOffset(bytes, 0, one)
      assert.equal(bytes.readBigUInt64BE(0), BigInt(one))
    }),
  )
})

test('the bytes of known replies stay as they are', () => {
  const bytes = Buffer.alloc(DATA_CHUNK_BYTES)
  writeSimpleReply(bytes, 0, 5, 1, 2)
  assert.equal(
    bytes.subarray(0, SIMPLE_REPLY_BYTES).toString('hex'),
    '67446698000000050000000100000002',
  )
  writeDataChunkHeader(bytes, 0, 1, 2, 4096, 512)
  assert.equal(
    bytes.toString('hex'),
    '668e33ef0001000100000001000000020000020800000000' + '00001000',
  )
  assert.equal(
    encodeErrorChunk(22, 1, 2).toString('hex'),
    '668e33ef00018001000000010000000200000006000000160000',
  )
  const status = encodeBlockStatus(
    1,
    [
      { length: 4096, hole: false },
      { length: 2 ** 40, hole: true },
    ],
    1,
    2,
  )
  assert.equal(
    status.subarray(CHUNK_HEADER_BYTES).toString('hex'),
    '00000001' + '0000100000000000' + 'ffffffff00000003',
  )
})

test('a known write request stays as it is', () => {
  const bytes = Buffer.alloc(REQUEST_BYTES)
  writeRequest(bytes, 0, {
    flags: CMD_FLAG.FUA,
    type: CMD.WRITE,
    cookieHigh: 0x01020304,
    cookieLow: 0x05060708,
    offset: 0x1_0000_0000,
    length: 4096,
  })
  assert.equal(
    bytes.toString('hex'),
    '25609513' + '00010001' + '0102030405060708' + '0000000100000000' + '00001000',
  )
})
