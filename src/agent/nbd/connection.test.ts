import assert from 'node:assert/strict'
import { type Duplex, duplexPair } from 'node:stream'
import { test } from 'node:test'
import fc from 'fast-check'
import { fromDuplex } from '#base/system/byte-stream.ts'
import { type NbdClient, openNbd } from '#client/nbd/client.ts'
import { CMD, CMD_FLAG, OPT, SIMPLE_REPLY_MAGIC } from '#wire/nbd/constants.ts'
import { encodeClientFlags, encodeExportRequest, encodeOption } from '#wire/nbd/handshake.ts'
import { emptyRequest, REQUEST_BYTES, writeRequest } from '#wire/nbd/transmission.ts'
import { MemoryBudget } from './budget.ts'
import { Connection } from './connection.ts'
import { type Device, type Io, IO_ERRORS, type IoError } from './device.ts'
import { ExportTable } from './exports.ts'
import { shakeHands } from './handshake.ts'
import { ReceiveSlabs } from './receive-slabs.ts'

const MIB = 1024 * 1024

/** Keeps its bytes in memory, remembers what it was asked, and can hold requests back or fail them. */
class MemoryDevice implements Device {
  readonly bytes: Buffer
  readonly seen: (Pick<Io, 'kind' | 'offset' | 'length' | 'fua' | 'mayUnmap' | 'more'> & {
    readonly batch: number
  })[] = []
  held: Io[] = []
  hold = false
  error: IoError = IO_ERRORS.ok
  #batches = 0

  constructor(sizeBytes: number) {
    this.bytes = Buffer.alloc(sizeBytes)
  }

  get sizeBytes(): number {
    return this.bytes.length
  }

  submit(batch: readonly Io[], count: number): void {
    this.#batches++
    for (const io of batch.slice(0, count)) {
      const { kind, offset, length, fua, mayUnmap, more } = io
      this.seen.push({ kind, offset, length, fua, mayUnmap, more, batch: this.#batches })
      if (this.hold) this.held.push(io)
      else this.finish(io)
    }
  }

  finish(io: Io): void {
    const { offset, length, slab, at } = io
    if (this.error === 0) {
      if (io.kind === 'write') slab?.bytes.copy(this.bytes, offset, at, at + length)
      if (io.kind === 'read')
        this.bytes.copy(slab?.bytes ?? Buffer.alloc(0), at, offset, offset + length)
      if (io.kind === 'zero') this.bytes.fill(0, offset, offset + length)
      if (io.kind === 'extents') io.extents = [{ offset, length, hole: false }]
    }
    io.complete(this.error)
  }

  finishAll(): void {
    for (const io of this.held.splice(0)) this.finish(io)
  }
}

/** The server's side of one connection over any stream. */
async function serve(stream: Duplex, exports: ExportTable, slabs: ReceiveSlabs): Promise<void> {
  try {
    const established = await shakeHands(fromDuplex(stream), {
      tls: 'none',
      secure: () => Promise.reject(new Error('no TLS here')),
      open: (name) => exports.open(name),
      names: () => exports.names(),
    })
    if (established === undefined) return
    new Connection({ ...established, slabs, budget: new MemoryBudget(), onClosed: () => {} })
  } catch {
    stream.destroy()
  }
}

/** Two ends of a connection; the death of one is seen by the other, as with sockets. */
function socketPair(): [Duplex, Duplex] {
  const [near, far] = duplexPair({ allowHalfOpen: true })
  near.once('close', () => far.destroy())
  far.once('close', () => near.destroy())
  return [near, far]
}

async function connectTo(exports: ExportTable, slabs: ReceiveSlabs): Promise<NbdClient> {
  const [near, far] = socketPair()
  void serve(far, exports, slabs)
  return openNbd(near, 'vol')
}

/** What a client sends until its requests begin. */
const handshakeBytes = (name: string): Buffer =>
  Buffer.concat([
    encodeClientFlags(3),
    encodeOption(OPT.GO, encodeExportRequest({ name, infos: [] })),
  ])

function setUp(device = new MemoryDevice(64 * MIB)) {
  const exports = new ExportTable()
  exports.serve('vol', device)
  const slabs = new ReceiveSlabs()
  const open = () => connectTo(exports, slabs)
  return { device, exports, slabs, open }
}

/** Lets everything that is on its way arrive. */
const settle = async () => {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve))
}

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

// ── Hostile input ────────────────────────────────────────────────────────────────────────────────────────────────────────

const request = (fields: Partial<ReturnType<typeof emptyRequest>>): Buffer => {
  const bytes = Buffer.alloc(REQUEST_BYTES)
  writeRequest(bytes, 0, { ...emptyRequest(), ...fields })
  return bytes
}

/** A raw stream whose other end is the server. Collects what comes back. */
function raw(exports: ExportTable, slabs: ReceiveSlabs): { stream: Duplex; received: Buffer[] } {
  const [stream, other] = socketPair()
  const received: Buffer[] = []
  stream.on('data', (chunk: Buffer) => received.push(chunk))
  stream.on('error', () => {}) // hostile tests end streams in every way
  void serve(other, exports, slabs)
  return { stream, received }
}

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
