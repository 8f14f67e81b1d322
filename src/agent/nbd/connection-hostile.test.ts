import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { CMD, CMD_FLAG, SIMPLE_REPLY_MAGIC } from '#wire/nbd/constants.ts'
import { REQUEST_BYTES } from '#wire/nbd/transmission.ts'
import { handshakeBytes, MemoryDevice, raw, request, settle, setUp } from './connection.contract.ts'

const MIB = 1024 * 1024

test('a wrong magic or a write beyond 32 MiB ends the connection', async () => {
  for (const bytes of [
    Buffer.alloc(REQUEST_BYTES, 0x55),
    request({ type: CMD.WRITE, length: 32 * MIB + 1 }),
  ]) {
    const { exports, slabs } = setUp()
    const { stream } = raw(exports, slabs)
    stream.write(Buffer.concat([handshakeBytes('vol'), bytes]))
    await settle()
    assert.equal(exports.connectionCount('vol'), 0)
    assert.equal(slabs.inUse, 0)
  }
})

test('the payload of a refused write is skipped and the next request understood', async () => {
  const { exports, slabs } = setUp()
  const { stream, received } = raw(exports, slabs)
  stream.write(handshakeBytes('vol'))
  await settle()
  received.length = 0
  stream.write(
    Buffer.concat([
      request({ type: CMD.WRITE, offset: 2 ** 50, length: 100_000, cookieLow: 1 }),
      Buffer.alloc(100_000, 0x25),
      request({ type: CMD.WRITE, flags: 0x8000, length: 10, cookieLow: 2 }),
      Buffer.alloc(10),
      request({ type: 77, cookieLow: 3 }),
      request({ type: CMD.BLOCK_STATUS, length: 512, flags: CMD_FLAG.REQ_ONE, cookieLow: 4 }),
      request({ type: CMD.FLUSH, cookieLow: 5 }),
    ]),
  )
  await settle()
  const bytes = Buffer.concat(received)
  const answers: [number, number][] = []
  for (let at = 0; at < bytes.length; at += 16) {
    assert.equal(bytes.readUInt32BE(at), SIMPLE_REPLY_MAGIC)
    answers.push([bytes.readUInt32BE(at + 12), bytes.readUInt32BE(at + 4)])
  }
  assert.deepEqual(
    answers.toSorted((a, b) => a[0] - b[0]),
    [
      [1, 28],
      [2, 22],
      [3, 22],
      [4, 22],
      [5, 0],
    ],
  )
  stream.destroy()
})

test('requests cut into pieces anywhere mean the same', async () => {
  const stamped = (i: number) => Buffer.alloc(700, i + 1)
  const session = Buffer.concat([
    handshakeBytes('vol'),
    ...Array.from({ length: 6 }, (_, i) =>
      Buffer.concat([
        request({ type: CMD.WRITE, offset: i * 1000, length: 700, cookieLow: i }),
        stamped(i),
      ]),
    ),
  ])
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: session.length - 1 }), { maxLength: 12 }),
      async (cuts) => {
        const { device, exports, slabs } = setUp(new MemoryDevice(16_384))
        const { stream } = raw(exports, slabs)
        let from = 0
        for (const to of [...cuts.toSorted((a, b) => a - b), session.length]) {
          if (to > from) stream.write(session.subarray(from, to))
          from = to
          await new Promise((resolve) => setImmediate(resolve))
        }
        await settle()
        for (let i = 0; i < 6; i++) {
          assert.ok(device.bytes.subarray(i * 1000, i * 1000 + 700).equals(stamped(i)))
        }
        stream.destroy()
      },
    ),
    { numRuns: 40 },
  )
})

test('noise and damaged sessions hurt nobody else and leave no memory behind', async () => {
  const { device, exports, slabs, open } = setUp(new MemoryDevice(MIB))
  const healthy = await open()
  const valid = Buffer.concat([
    handshakeBytes('vol'),
    request({ type: CMD.WRITE, offset: 4096, length: 4096, cookieLow: 1 }),
    Buffer.alloc(4096, 1),
    request({ type: CMD.READ, offset: 4096, length: 8192, cookieLow: 2 }),
    request({ type: CMD.WRITE_ZEROES, offset: 0, length: 65_536, cookieLow: 3 }),
    request({ type: CMD.TRIM, offset: 0, length: 65_536, cookieLow: 4 }),
    request({ type: CMD.FLUSH, cookieLow: 5 }),
  ])
  const mutation = fc.record({
    at: fc.integer({ min: 0, max: valid.length - 1 }),
    value: fc.integer({ min: 0, max: 255 }),
  })
  const hostile = fc.oneof(
    fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.concat([handshakeBytes('vol'), bytes])),
    fc
      .tuple(
        fc.array(mutation, { minLength: 1, maxLength: 8 }),
        fc.integer({ min: 1, max: valid.length }),
      )
      .map(([mutations, length]) => {
        const bytes = Buffer.from(valid)
        for (const { at, value } of mutations) bytes[at] = value
        return bytes.subarray(0, length)
      }),
    // Damage aimed at what is parsed, not at payload.
    fc.array(mutation, { minLength: 1, maxLength: 4 }).map((mutations) => {
      const bytes = Buffer.from(valid)
      const heads = handshakeBytes('vol').length + REQUEST_BYTES
      for (const { at, value } of mutations) bytes[at % heads] = value
      return bytes
    }),
  )
  await fc.assert(
    fc.asyncProperty(hostile, async (bytes) => {
      const { stream } = raw(exports, slabs)
      stream.write(bytes)
      await settle()
      stream.destroy()
      await settle()
      await healthy.write(MIB - 1, Buffer.from([42]))
      assert.equal((await healthy.read(MIB - 1, 1))[0], 42)
    }),
    { numRuns: 400 },
  )
  await settle()
  healthy.destroy()
  await settle()
  assert.equal(device.held.length, 0)
  assert.equal(slabs.inUse, 0)
})
