import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { CMD } from '#wire/nbd/constants.ts'
import { handshakeBytes, MemoryDevice, raw, request, settle, setUp } from './connection.contract.ts'
import { IO_ERRORS } from './device.ts'

const MIB = 1024 * 1024

test('what is written is read back, at any offset and length', async () => {
  const { device, open } = setUp()
  const client = await open()
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 0, max: 8 * MIB }),
      fc.oneof(fc.integer({ min: 1, max: 9000 }), fc.integer({ min: MIB - 40, max: 5 * MIB })),
      fc.integer({ min: 0, max: 255 }),
      async (offset, length, seed) => {
        const data = Buffer.alloc(length, Buffer.from([seed, seed ^ 1, seed ^ 2, 7, 9]))
        await client.write(offset, data)
        assert.ok((await client.read(offset, length)).equals(data))
        assert.ok(device.bytes.subarray(offset, offset + length).equals(data))
      },
    ),
    { numRuns: 25 },
  )
  client.destroy()
})

test('a large write reaches the device in parts of at most 1 MiB, all in one batch', async () => {
  const { device, open } = setUp()
  const client = await open()
  await client.write(100, Buffer.alloc(2 * MIB + 5, 3), { fua: true })
  const writes = device.seen.filter((io) => io.kind === 'write')
  assert.deepEqual(
    writes.map(({ offset, length, more, fua, batch }) => ({ offset, length, more, fua, batch })),
    [
      { offset: 100, length: MIB, more: true, fua: true, batch: 1 },
      { offset: 100 + MIB, length: MIB, more: true, fua: true, batch: 1 },
      { offset: 100 + 2 * MIB, length: 5, more: false, fua: true, batch: 1 },
    ],
  )
  client.destroy()
})

test('requests in flight are answered in whatever order the device completes them', async () => {
  const { device, open } = setUp()
  device.hold = true
  const client = await open()
  const order: string[] = []
  const first = client.write(0, Buffer.from('a')).then(() => order.push('first'))
  const second = client.write(1, Buffer.from('b')).then(() => order.push('second'))
  await settle()
  assert.equal(device.held.length, 2)
  device.held.toReversed().forEach((io) => device.finish(io))
  await Promise.all([first, second])
  assert.deepEqual(order, ['second', 'first'])
  client.destroy()
})

test('writes of one turn lie back to back behind their header rooms', async () => {
  const { device, open } = setUp()
  device.hold = true
  const client = await open()
  const writes = [4096, 512, 8192].map((length, i) =>
    client.write(i * MIB, Buffer.alloc(length, i)),
  )
  await settle()
  const [a, b, c] = device.held
  assert.ok(a && b && c)
  assert.equal(b.at, a.at + a.length + 28)
  assert.equal(c.at, b.at + b.length + 28)
  assert.equal(a.slab, c.slab)
  device.finishAll()
  await Promise.all(writes)
  client.destroy()
})

test('device errors reach the client as NBD errors', async () => {
  const { device, open } = setUp()
  const client = await open()
  for (const [error, text] of [
    [IO_ERRORS.EIO, /error 5/],
    [IO_ERRORS.ENOSPC, /error 28/],
    [IO_ERRORS.ESHUTDOWN, /error 108/],
  ] as const) {
    device.error = error
    await assert.rejects(client.write(0, Buffer.alloc(10)), text)
    await assert.rejects(client.write(0, Buffer.alloc(2 * MIB)), text)
    await assert.rejects(client.read(0, 10), text)
    await assert.rejects(client.read(0, 2 * MIB), text)
    await assert.rejects(client.flush(), text)
    await assert.rejects(client.trim(0, 4096), text)
  }
  device.error = IO_ERRORS.ok
  await client.write(0, Buffer.alloc(10))
  client.destroy()
})

test('requests outside the volume, of length zero or of unknown kind are refused and the connection goes on', async () => {
  const { device, open } = setUp()
  const client = await open()
  const size = device.sizeBytes
  await assert.rejects(client.write(size - 1, Buffer.alloc(2)), /error 28/)
  await assert.rejects(client.write(size + 5, Buffer.alloc(3 * MIB)), /error 28/)
  await assert.rejects(client.read(size, 1), /error 22/)
  await assert.rejects(client.read(0, 0), /error 22/)
  await assert.rejects(client.trim(0, 0), /error 22/)
  await assert.rejects(client.zero(size, 4096), /error 28/)
  await assert.rejects(client.read(Number.MAX_SAFE_INTEGER, 1), /error 22/)
  assert.equal(device.seen.length, 0)
  await client.write(size - 1, Buffer.alloc(1, 7))
  client.destroy()
})

test('TRIM and WRITE_ZEROES differ only in what may be given back', async () => {
  const { device, open } = setUp()
  const client = await open()
  await client.write(0, Buffer.alloc(8192, 1))
  await client.trim(0, 4096, { fua: true })
  await client.zero(4096, 4096, { mayUnmap: false })
  await client.zero(0, 3 * MIB)
  const zeroes = device.seen.filter((io) => io.kind === 'zero')
  assert.deepEqual(
    zeroes.map(({ mayUnmap, fua, length }) => ({ mayUnmap, fua, length })),
    [
      { mayUnmap: true, fua: true, length: 4096 },
      { mayUnmap: false, fua: false, length: 4096 },
      { mayUnmap: true, fua: false, length: 3 * MIB },
    ],
  )
  client.destroy()
})

test('a client beyond its limits waits, nothing is lost', async () => {
  const { device, open } = setUp()
  device.hold = true
  const client = await open()
  const writes: Promise<void>[] = []
  for (let i = 0; i < 1500; i++) writes.push(client.write(i * 512, Buffer.alloc(512, i & 255)))
  await settle()
  assert.equal(device.held.length, 1024)
  device.hold = false
  device.finishAll()
  await Promise.all(writes)
  for (let i = 0; i < 1500; i++) assert.equal(device.bytes[i * 512 + 511], i & 255)
  client.destroy()
})

test('bytes in flight are limited too', async () => {
  const { device, open, slabs } = setUp()
  device.hold = true
  const client = await open()
  const writes: Promise<void>[] = []
  for (let i = 0; i < 10; i++) writes.push(client.write(0, Buffer.alloc(16 * MIB, i)))
  await settle()
  assert.ok(device.held.reduce((sum, io) => sum + io.length, 0) <= 80 * MIB)
  assert.ok(slabs.inUse <= 13)
  device.hold = false
  device.finishAll()
  await Promise.all(writes)
  client.destroy()
})

test('a held export takes nothing new, drains, and goes on with another device', async () => {
  const { device, exports, open } = setUp()
  const client = await open()
  device.hold = true
  const before = client.write(0, Buffer.from('old'))
  await settle()
  let drained = false
  const hold = exports.hold('vol').then(() => (drained = true))
  const during = client.write(0, Buffer.from('new'))
  await settle()
  assert.equal(drained, false)
  assert.equal(device.held.length, 1)
  device.finishAll()
  await before
  await hold
  const next = new MemoryDevice(64 * MIB)
  exports.serve('vol', next)
  exports.release('vol')
  await during
  assert.equal(next.bytes.subarray(0, 3).toString(), 'new')
  assert.equal(device.bytes.subarray(0, 3).toString(), 'old')
  client.destroy()
})

test('a write that is still arriving when a hold begins reaches only the device after the hold', async () => {
  for (const length of [5000, 3 * MIB]) {
    const { device, exports, slabs } = setUp()
    const { stream } = raw(exports, slabs)
    const write = Buffer.concat([
      request({ type: CMD.WRITE, offset: 4096, length, cookieLow: 1 }),
      Buffer.alloc(length, 9),
    ])
    stream.write(Buffer.concat([handshakeBytes('vol'), write.subarray(0, write.length - 10)]))
    await settle()
    await exports.hold('vol')
    stream.write(write.subarray(write.length - 10))
    await settle()
    assert.equal(device.seen.length, 0)
    const next = new MemoryDevice(64 * MIB)
    exports.serve('vol', next)
    exports.release('vol')
    await settle()
    assert.equal(device.seen.length, 0)
    assert.equal(next.bytes[4096 + length - 1], 9)
    stream.destroy()
    await settle()
    assert.equal(slabs.inUse, 0)
  }
})

test('a connection that dies during a hold gives its memory back and writes nothing', async () => {
  const { device, exports, slabs } = setUp()
  const { stream } = raw(exports, slabs)
  const write = request({ type: CMD.WRITE, length: 5000, cookieLow: 1 })
  stream.write(Buffer.concat([handshakeBytes('vol'), write, Buffer.alloc(4999)]))
  await settle()
  await exports.hold('vol')
  stream.write(Buffer.alloc(1))
  await settle()
  stream.destroy()
  await settle()
  exports.release('vol')
  await settle()
  assert.equal(device.seen.length, 0)
  assert.equal(slabs.inUse, 0)
})

test('losing authority drops the connections and refuses new ones with the reason', async () => {
  const { device, exports, open } = setUp()
  device.hold = true
  const client = await open()
  const pending = client.write(0, Buffer.from('x'))
  await settle()
  exports.refuse('vol', 'the group was failed over to az2')
  await assert.rejects(pending, /NBD_DISCONNECTED/)
  await assert.rejects(open(), /failed over to az2/)
  device.finishAll() // completing for a client that has gone is fine
  assert.equal(exports.connectionCount('vol'), 0)
})

test('all memory comes back when a connection ends, whatever it was doing', async () => {
  const { device, open, slabs } = setUp()
  device.hold = true
  const client = await open()
  const lost = [
    client.write(0, Buffer.alloc(5 * MIB)),
    client.write(0, Buffer.alloc(100)),
    client.read(0, 3 * MIB),
    client.read(0, 4096),
  ]
  await settle()
  client.destroy()
  for (const one of lost) await assert.rejects(one)
  await settle()
  device.finishAll()
  await settle()
  assert.equal(slabs.inUse, 0)
})

test('DISC is obeyed after the answers have gone out', async () => {
  const { device, open, exports } = setUp()
  device.hold = true
  const client = await open()
  const write = client.write(0, Buffer.from('last'))
  await settle()
  const gone = client.disconnect()
  await settle()
  assert.equal(exports.connectionCount('vol'), 1)
  device.finishAll()
  await write
  await gone
  await settle()
  assert.equal(exports.connectionCount('vol'), 0)
})
