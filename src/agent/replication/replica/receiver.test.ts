import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { describe, test, type TestContext } from 'node:test'
import { Fault } from '#base/fault.ts'
import { systemClock } from '#base/system/clock.ts'
import { ACK, ACK_BYTES, AckHeader, FLAG, FRAME, frame, STATUS } from '#wire/link/frame.ts'
import { VOLUME_FAILED, VOLUME_NO_SPACE } from '#agent/volumes/faults.ts'
import type { Volume } from '#agent/volumes/volume.ts'
import { AckGate } from '../session/ack-gate.ts'
import { Contact, Silence } from '../session/contact.ts'
import { Lease } from '../session/lease.ts'
import { DialledBuffer } from '../link.ts'
import { Receiver } from './receiver.ts'
import type { RunFile } from '../run-file.ts'

const SIZE = 1024 * 1024
const BLOCK = 4096

/** A volume in memory whose writes fail while `fault` is set, and whose flushes and reads while `syncFault` is. */
class TestVolume {
  readonly bytes = Buffer.alloc(SIZE)
  readonly sizeBytes = SIZE
  failed: string | undefined
  fault: Fault | undefined
  syncFault: Fault | undefined
  guarded: Promise<void> | null = null
  dirtyBytes = 0
  /** For each call, whether wholly. */
  readonly prepared: boolean[] = []

  guard(): Promise<void> | null {
    return this.guarded
  }

  writeSync(buf: Uint8Array, bufOffset: number, length: number, offset: number): void {
    if (this.fault !== undefined) throw this.fault
    this.bytes.set(buf.subarray(bufOffset, bufOffset + length), offset)
  }

  prepareFlush(wholly: boolean): void {
    this.prepared.push(wholly)
  }

  flush(): Promise<void> {
    return this.syncFault === undefined ? Promise.resolve() : Promise.reject(this.syncFault)
  }

  read(): Promise<void> {
    return this.flush()
  }
}

interface Answer {
  readonly type: number
  readonly status: number
  readonly number: number
}

interface World {
  readonly volume: TestVolume
  readonly gate: AckGate
  /** The writer's end. */
  readonly writer: Socket
  readonly answers: Answer[]
  readonly refused: string[]
  /** Numbers in the order in which they were noted. */
  readonly noted: number[]
  /** The reason for which the receiver gave the link up. */
  readonly closed: Promise<string>
  /** The writer's end has seen everything there will be. */
  readonly ended: Promise<unknown>
}

async function world(
  t: TestContext,
  bootMs: () => number = () => systemClock.bootMs(),
): Promise<World> {
  const server = createServer({ allowHalfOpen: true })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const buffer = new DialledBuffer(4 * SIZE)
  const accepted = once(server, 'connection') as Promise<[Socket]>
  const socket = connect({
    port: (server.address() as AddressInfo).port,
    host: '127.0.0.1',
    onread: {
      buffer: () => buffer.room(),
      callback: (count: number, place: Uint8Array) => buffer.added(count, place),
    },
  })
  const [writer] = await accepted
  t.after(() => {
    writer.destroy()
    socket.destroy()
    server.close()
  })
  const answers: Answer[] = []
  let carry = Buffer.alloc(0)
  writer.on('data', (chunk) => {
    carry = Buffer.concat([carry, chunk])
    const header = new AckHeader()
    while (carry.length >= ACK_BYTES && header.read(carry, 0)) {
      const { type, status, number, length } = header
      answers.push({ type, status, number })
      carry = carry.subarray(ACK_BYTES + length)
    }
  })
  const volume = new TestVolume()
  const gate = new AckGate(new Lease(), new Contact(1_000))
  const refused: string[] = []
  const noted: number[] = []
  const closed = new Promise<string>((resolve) => {
    const receiver = new Receiver({
      socket,
      buffer,
      gate,
      silence: new Silence(1_000, 0),
      run: { store: (number: number) => void noted.push(number) } as unknown as RunFile,
      clock: { ...systemClock, bootMs },
      volume: (index) =>
        index === 1 ? (volume as unknown as Volume) : index === 2 ? 'removed' : undefined,
      onMessage: () => Promise.resolve(),
      applies: () => true,
      copying: () => false,
      changes: () => Buffer.alloc(0),
      onRefused: (status, reason) => refused.push(`${status} ${reason}`),
      onClosed: resolve,
    })
    receiver.start()
  })
  const ended = once(writer, 'end')
  return { volume, gate, writer, answers, refused, noted, closed, ended }
}

const write = (seq: number, flags = 0): Buffer =>
  frame(FRAME.WRITE, flags, 1, seq, seq * BLOCK, BLOCK, Buffer.alloc(BLOCK, seq))
const flush = (id: number): Buffer => frame(FRAME.FLUSH, 0, 1, id, 0, 0)

const failed = () => new Fault(VOLUME_FAILED, 'volume b-1: fdatasync failed')

describe('the receiver', () => {
  test("a flush that fails ends the link with the reason instead of failing the writer's client", async (t) => {
    const { volume, writer, answers, refused, closed, ended, gate } = await world(t)
    writer.write(write(1))
    await until(() => gate.sequence === 1)
    volume.syncFault = failed()
    writer.write(Buffer.concat([flush(7), write(2)]))
    const reason = await closed
    await ended
    assert.match(reason, /volume 1 failed/)
    assert.doesNotMatch(reason, /frame/)
    assert.deepEqual(refused, [`${STATUS.IO} ${reason}`])
    assert.deepEqual(
      answers.filter(({ type }) => type === ACK.FLUSHED),
      [],
    )
    assert.deepEqual(answers.at(-1), {
      type: ACK.APPLIED,
      status: STATUS.IO,
      number: gate.sequence,
    })
  })

  test('a block that cannot be read is an answer, a volume that failed over it ends the link', async (t) => {
    const { volume, writer, answers, closed } = await world(t)
    volume.syncFault = failed()
    writer.write(frame(FRAME.FETCH, 0, 1, 3, 0, BLOCK))
    await until(() => answers.length === 1)
    assert.deepEqual(answers, [{ type: ACK.BLOCK, status: STATUS.IO, number: 3 }])
    volume.failed = 'for ever'
    writer.write(frame(FRAME.FETCH, 0, 1, 4, 0, BLOCK))
    assert.match(await closed, /volume 1 failed/)
  })

  test('a frame that does not fit ends the link and says so, with more frames unread behind it', async (t) => {
    const { volume, writer, answers, closed, ended, gate } = await world(t)
    writer.write(write(1))
    await until(() => gate.sequence === 1)
    volume.fault = new Fault(VOLUME_NO_SPACE, 'writing volume b-1')
    for (let seq = 2; seq < 200; seq++) writer.write(write(seq))
    assert.match(await closed, /frame 2 could not be applied/)
    await ended
    assert.deepEqual(answers.at(-1), { type: ACK.APPLIED, status: STATUS.NO_SPACE, number: 1 })
  })

  test('the number is noted after every frame, also of those that came together', async (t) => {
    const { writer, gate, noted, answers } = await world(t)
    const parts = [write(3, FLAG.MORE), write(4)]
    writer.write(Buffer.concat([write(1), write(2), ...parts, write(5), flush(1)]))
    await until(() => answers.some(({ type }) => type === ACK.FLUSHED))
    assert.equal(gate.sequence, 5)
    assert.deepEqual(noted, [1, 2, 4, 5])
    assert.deepEqual(answers.filter(({ type }) => type === ACK.APPLIED).at(-1)?.number, 5)
  })

  for (const member of [1, 2]) {
    test(`a write and the FLUSH of member ${member} in one piece have one acknowledgement each, the write's first`, async (t) => {
      const { writer, answers } = await world(t)
      writer.write(Buffer.concat([write(1), frame(FRAME.FLUSH, 0, member, 7, 0, 0), flush(8)]))
      await until(() => answers.length >= 3)
      assert.deepEqual(answers, [
        { type: ACK.APPLIED, status: STATUS.OK, number: 1 },
        { type: ACK.FLUSHED, status: STATUS.OK, number: 7 },
        { type: ACK.FLUSHED, status: STATUS.OK, number: 8 },
      ])
    })
  }

  test('a write is made durable when the last one was flushed a journey later, and one flushed in its own piece tells nothing', async (t) => {
    let nowMs = 0
    const { volume, writer, answers } = await world(t, () => nowMs)
    const said = async (bytes: Buffer) => {
      const count = answers.length
      writer.write(bytes)
      await until(() => answers.length > count)
    }
    await said(write(1))
    nowMs += 2
    await said(flush(1))
    assert.deepEqual(volume.prepared, [])
    await said(write(2))
    assert.deepEqual(volume.prepared, [true])
    nowMs += 2
    await said(flush(2))
    const count = answers.length
    writer.write(Buffer.concat([write(3), flush(3)]))
    await until(() => answers.length === count + 2)
    assert.deepEqual(volume.prepared, [true], 'its flush is here already')
    await said(write(4))
    assert.deepEqual(volume.prepared, [true, true])
    await said(write(5))
    assert.deepEqual(volume.prepared, [true, true, false], 'one write more than the last time')
    await said(flush(5))
    await said(write(6))
    assert.equal(volume.prepared.length, 3, 'the last flush came at once')
  })

  test('a question about bytes that the volume does not have is answered, and asks nothing of it', async (t) => {
    const { writer, answers } = await world(t)
    writer.write(
      Buffer.concat([
        frame(FRAME.CHECKSUM, 0, 1, 5, SIZE, BLOCK),
        frame(FRAME.CHECKSUM, FLAG.AT_ONCE, 1, 6, SIZE - 1, BLOCK),
        frame(FRAME.FETCH, 0, 1, 7, SIZE - BLOCK + 512, BLOCK),
      ]),
    )
    await until(() => answers.length === 3)
    assert.deepEqual(answers, [
      { type: ACK.CHECKSUMS, status: STATUS.BEYOND_END, number: 5 },
      { type: ACK.CHECKSUMS, status: STATUS.BEYOND_END, number: 6 },
      { type: ACK.BLOCK, status: STATUS.BEYOND_END, number: 7 },
    ])
  })

  test('zeroes in the middle of a write in parts end the link, and nothing of either is applied', async (t) => {
    const { writer, gate, closed } = await world(t)
    writer.write(Buffer.concat([write(1, FLAG.MORE), frame(FRAME.ZERO, 0, 1, 2, 0, BLOCK)]))
    assert.match(await closed, /middle of a write in parts/)
    assert.equal(gate.sequence, 0)
  })

  test('what a snapshot has no room to preserve is not applied', async (t) => {
    const { volume, writer, answers, closed, ended, gate } = await world(t)
    volume.guarded = Promise.reject(new Fault(VOLUME_NO_SPACE, 'preserving'))
    volume.guarded.catch(() => undefined)
    writer.write(write(1, FLAG.COPY))
    await closed
    await ended
    assert.equal(gate.sequence, 0)
    assert.deepEqual(answers, [{ type: ACK.APPLIED, status: STATUS.NO_SPACE, number: 0 }])
  })
})

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve))
}
