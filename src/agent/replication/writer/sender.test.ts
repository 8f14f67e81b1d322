import assert from 'node:assert/strict'
import { randomFillSync } from 'node:crypto'
import { once } from 'node:events'
import { type TestContext, test } from 'node:test'
import {
  type AddressInfo,
  connect as connectPlainly,
  createServer as createPlainServer,
  type Socket,
} from 'node:net'
import { connect, createServer, type TLSSocket } from 'node:tls'
import { createAuthority, issueCertificate } from '#base/system/pki.ts'
import { Sender, type SenderEvents } from './sender.ts'

const KIB = 1024

/** An encrypted link: the writer's socket, and what arrives at the replica's. */
async function encrypted(t: TestContext) {
  const now = Date.now()
  const authority = await createAuthority('test', now)
  const identity = { kind: 'agent', site: 'az1', agent: 'az1-agent' } as const
  const leaf = await issueCertificate(
    authority,
    { identity, hosts: ['127.0.0.1'], lifetimeDays: 1 },
    now,
  )
  const server = createServer({ cert: leaf.cert, key: leaf.key })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const accepted = once(server, 'secureConnection') as Promise<[TLSSocket]>
  const replica = connect({ port, host: '127.0.0.1', ca: authority.cert })
  const [socket] = await accepted
  t.after(() => {
    replica.destroy()
    socket.destroy()
    server.close()
  })
  const arrived: Buffer[] = []
  replica.on('data', (chunk: Buffer) => void arrived.push(chunk))
  return { socket, replica, arrived }
}

test('over an encrypted socket large and small frames arrive in the order in which they were written', async (t) => {
  const { socket, replica, arrived } = await encrypted(t)
  const ended = once(replica, 'end')
  const sender = new Sender(socket, {} as SenderEvents)
  sender.start(Buffer.alloc(0))

  const sizes = [1, 512, 1, 2, 300, 512, 512, 3, 4, 512, 1].map((size) => size * KIB)
  const frames = sizes.map((size) => randomFillSync(Buffer.alloc(size)))
  for (const frame of frames.slice(0, 6)) sender.write(frame)
  assert.ok(sender.backlogBytes >= 300 * KIB, 'what waits for its turn counts')
  await new Promise((resolve) => setImmediate(resolve))
  sender.cork()
  for (const frame of frames.slice(6, 9)) sender.write(frame)
  sender.uncork()
  // The rest waits when the end is asked for, and goes out before it.
  for (const frame of frames.slice(9)) sender.write(frame)
  sender.end()
  await ended
  assert.ok(Buffer.concat(arrived).equals(Buffer.concat(frames)))
})

test('a large frame that comes first leaves although the answer to the hello is still in the socket, and so does what comes behind it', async (t) => {
  const { socket, replica, arrived } = await encrypted(t)
  const hello = Buffer.alloc(600, 1)
  socket.write(hello)
  assert.ok(socket.writableLength > 0, 'it has not left yet')
  const sender = new Sender(socket, {} as SenderEvents)
  const large = randomFillSync(Buffer.alloc(128 * KIB + 84))
  const small = Buffer.alloc(28, 2)
  sender.write(large)
  sender.write(small)
  const expected = Buffer.concat([hello, large, small])
  const limit = AbortSignal.timeout(5_000)
  const length = () => arrived.reduce((sum, { byteLength }) => sum + byteLength, 0)
  while (length() < expected.length) await once(replica, 'data', { signal: limit })
  assert.ok(Buffer.concat(arrived).equals(expected))
  assert.equal(sender.backlogBytes, 0)
})

test('over an unencrypted socket what is corked leaves in one piece if it is little, in its order if it is much, and only when the last cork is drawn', async (t) => {
  const server = createPlainServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const accepted = once(server, 'connection') as Promise<[Socket]>
  const replica = connectPlainly((server.address() as AddressInfo).port, '127.0.0.1')
  const [socket] = await accepted
  t.after(() => {
    replica.destroy()
    socket.destroy()
    server.close()
  })
  const written: Buffer[] = []
  t.mock.method(socket, 'write', (bytes: Buffer) => written.push(bytes) > 0)
  const sender = new Sender(socket, {} as SenderEvents)
  const frames = [4, 1, 12, 12].map((size) => randomFillSync(Buffer.alloc(size * KIB)))
  const [write, flush, first, second] = frames as [Buffer, Buffer, Buffer, Buffer]
  sender.cork()
  sender.write(write)
  sender.cork()
  sender.write(flush)
  sender.uncork()
  assert.equal(written.length, 0)
  assert.equal(sender.backlogBytes, 5 * KIB, 'what is corked counts')
  sender.uncork()
  assert.deepEqual(written, [Buffer.concat([write, flush])])
  assert.equal(sender.backlogBytes, 0)
  sender.cork()
  sender.write(first)
  sender.write(second)
  sender.uncork()
  assert.deepEqual(written.slice(1), [first, second])
  sender.write(flush)
  assert.deepEqual(written.slice(3), [flush])
})
