import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { describe, test, type TestContext } from 'node:test'
import { createLog } from '#base/log.ts'
import { ACK, ack, STATUS, type Status } from '#wire/link/frame.ts'
import type { Hello } from '#wire/link/messages.ts'
import type { SessionCore } from '../core.ts'
import type { LinkSilence } from '../session/link-silence.ts'
import type { Sender } from './sender.ts'
import type { SessionEvent } from '../session/session.ts'
import type { Writer } from './writer.ts'
import { WriterEnd } from './writer-end.ts'

interface World {
  readonly end: WriterEnd
  readonly replica: Socket
  /** Statuses of flushes that the write path was told. */
  readonly flushed: Status[]
  readonly acknowledged: number[]
  /** The session has heard that the link is down. */
  readonly down: Promise<void>
  readonly sender: Sender | null
  /** What the write path was told about its link, in order, with what was written to it. */
  readonly told: string[]
  /** Another link of the replica, which replaces the first. */
  readonly again: (members: readonly object[]) => Promise<void>
}

/** An accepted link, with a session that does nothing but listen. */
async function world(
  t: TestContext,
  turn: () => Promise<unknown> = () => Promise.resolve(),
  queue: Promise<void> | null = null,
): Promise<World> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const accepted = once(server, 'connection') as Promise<[Socket]>
  const replica = connect((server.address() as AddressInfo).port, '127.0.0.1')
  const [socket] = await accepted
  // As the handshake leaves it: flowing, with nobody who listens.
  const push = () => undefined
  socket.on('data', push)
  socket.removeListener('data', push)
  t.after(() => {
    replica.destroy()
    socket.destroy()
    server.close()
  })
  let sayDown = () => {}
  const down = new Promise<void>((resolve) => (sayDown = resolve))
  const core = {
    now: () => 1,
    log: createLog('test', 'silent'),
    session: { gate: { sequence: 9, acknowledged: 0 } },
    post: ({ kind }: SessionEvent) => kind === 'link_down' && sayDown(),
    inTurn: (work: () => Promise<void>) => (queue === null ? work() : queue.then(work)),
    process: turn,
  } as unknown as SessionCore
  const flushed: Status[] = []
  const acknowledged: number[] = []
  const told: string[] = []
  const writer = {
    logFrom: null,
    acknowledged: (sequence: number) => acknowledged.push(sequence),
    flushed: (_id: number, status: Status) => flushed.push(status),
    setSender: (sender: Sender | null) => void told.push(sender === null ? 'no link' : 'link'),
    sendAll: () => void told.push('everything is sent'),
    requirePeer: () => void told.push('flushes are asked for'),
    resend: () => false,
  } as unknown as Writer
  const end = new WriterEnd({
    core,
    silenceOf: () => ({ end: () => undefined }) as unknown as LinkSilence,
    writer: () => writer,
    onAcknowledged: () => undefined,
  })
  const helloOf = (members: readonly object[]) =>
    ({ runId: 'r', bootId: 'b', features: 0, unfit: null, members }) as unknown as Hello
  end.accept({ socket, hello: helloOf(FIRST_MEMBERS), rest: Buffer.alloc(0) })
  const again = async (members: readonly object[]) => {
    const next = once(server, 'connection') as Promise<[Socket]>
    const other = connect((server.address() as AddressInfo).port, '127.0.0.1')
    const [link] = await next
    t.after(() => {
      other.destroy()
      link.destroy()
    })
    end.accept({ socket: link, hello: helloOf(members), rest: Buffer.alloc(0) })
  }
  return { end, replica, flushed, acknowledged, down, sender: end.sender, told, again }
}

const FIRST_MEMBERS = [
  { index: 1, joined: true, blank: true },
  { index: 2, joined: false, blank: true },
]

describe("the writer's end of the link", () => {
  for (const [status, unfit] of [
    [STATUS.IO, 'failed'],
    [STATUS.NO_SPACE, 'no_space'],
    [STATUS.BEYOND_END, null],
  ] as const) {
    test(`a last acknowledgement of status ${status} says that the replica is unfit: ${unfit}`, async (t) => {
      const { end, replica, down } = await world(t)
      replica.end(ack(ACK.APPLIED, status, 4))
      await down
      assert.equal(end.peerUnfit, unfit)
    })
  }

  test('a flush that failed at the replica ends the link and is nothing that a client hears of', async (t) => {
    const { end, replica, flushed, down } = await world(t)
    replica.write(Buffer.concat([ack(ACK.FLUSHED, STATUS.OK, 1), ack(ACK.FLUSHED, STATUS.IO, 2)]))
    await down
    assert.deepEqual(flushed, [STATUS.OK])
    assert.equal(end.peerUnfit, 'failed')
    assert.equal(end.sender, null)
  })

  test('what the replica says while the session is still busy with the new link is not lost', async (t) => {
    let goOn = () => {}
    const busy = new Promise<void>((resolve) => (goOn = resolve))
    const { replica, acknowledged, flushed, down } = await world(t, () => busy)
    replica.write(ack(ACK.APPLIED, STATUS.OK, 4))
    replica.end(ack(ACK.FLUSHED, STATUS.OK, 1))
    await once(replica, 'finish')
    // It has arrived: the other end of the same process has been told to hang up.
    for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual(acknowledged, [])
    goOn()
    await down
    assert.deepEqual(acknowledged, [4])
    assert.deepEqual(flushed, [STATUS.OK])
  })

  test('an effect of a decision from before this link does not end it', async (t) => {
    let goOn = () => {}
    const turn = new Promise<void>((resolve) => (goOn = resolve))
    const { end, replica, sender } = await world(t, undefined, turn)
    end.drop(null)
    assert.equal(end.sender, sender, 'the session has not heard of this link yet')
    goOn()
    await turn
    end.drop(null)
    assert.equal(end.sender, null)
    replica.destroy()
  })

  test('what a replica has in full, and what of it is one hole, is what it said on this very link', async (t) => {
    const { end, again, told } = await world(t)
    assert.deepEqual([[...end.peerJoined], [...end.blank]], [[1], [1, 2]])
    await again([
      { index: 1, joined: false, blank: false },
      { index: 2, joined: true, blank: false },
    ])
    assert.deepEqual([[...end.peerJoined], [...end.blank]], [[2], []])
    assert.deepEqual(told, ['no link'], 'the one before is lost first')
  })

  test('a rise goes out behind everything that is numbered, and flushes that wait are asked for behind it', async (t) => {
    const { end, told, sender } = await world(t)
    assert.ok(sender !== null)
    t.mock.method(sender, 'message', ({ kind }: { kind: string }) => void told.push(kind))
    end.send({ kind: 'rise', epoch: 4, members: [1, 2] })
    assert.deepEqual(told, ['everything is sent', 'rise', 'flushes are asked for'])
  })

  test('the writes of a copy go out behind the word that it begins', async (t) => {
    const { end, told, sender } = await world(t)
    assert.ok(sender !== null)
    t.mock.method(sender, 'message', ({ kind }: { kind: string }) => void told.push(kind))
    end.send({ kind: 'copy_begin', sequence: 9 })
    assert.deepEqual(told, ['copy_begin', 'link'])
  })

  test('a link whose frames are gone is of no use', async (t) => {
    const { end, down } = await world(t)
    end.resend(3)
    await down
    assert.equal(end.sender, null)
  })

  test('a replica that acknowledges what was never sent is not believed', async (t) => {
    const { replica, acknowledged, down } = await world(t)
    replica.write(ack(ACK.APPLIED, STATUS.OK, 10))
    await down
    assert.deepEqual(acknowledged, [])
  })
})
