import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import type { TestContext } from 'node:test'
import type { Fault } from '#base/fault.ts'
import { systemClock } from '#base/system/clock.ts'
import { ACK, ACK_BYTES, AckHeader, FRAME, frame } from '#wire/link/frame.ts'
import type { Volume } from '#agent/volumes/volume.ts'
import { AckGate } from '../session/ack-gate.ts'
import { Contact, Silence } from '../session/contact.ts'
import { Lease } from '../session/lease.ts'
import { DialledBuffer } from '../link.ts'
import { Receiver } from './receiver.ts'
import type { RunFile } from '../run-file.ts'

/* A receiver over a real socket, with volumes in memory, and the end of the writer in the hands of the test. */

export const SIZE = 1024 * 1024
export const BLOCK = 4096

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
  /** Ranges that the guard was asked about, and of writes, in their order. */
  readonly asked: [number, number][] = []
  readonly written: number[] = []
  /** As `guarded`, by range. */
  guardOf: (offset: number, length: number) => Promise<void> | null = () => this.guarded
  /** What a flush waits for. */
  syncing: Promise<void> = Promise.resolve()

  guard(offset: number, length: number): Promise<void> | null {
    this.asked.push([offset, length])
    return this.guardOf(offset, length)
  }

  zeroSync(offset: number, length: number): void {
    this.bytes.fill(0, offset, offset + length)
    this.written.push(offset)
  }

  readSync(buf: Uint8Array, bufOffset: number, length: number, offset: number): void {
    buf.set(this.bytes.subarray(offset, offset + length), bufOffset)
  }

  writeSync(buf: Uint8Array, bufOffset: number, length: number, offset: number): void {
    if (this.fault !== undefined) throw this.fault
    this.bytes.set(buf.subarray(bufOffset, bufOffset + length), offset)
    this.written.push(offset)
  }

  prepareFlush(wholly: boolean): void {
    this.prepared.push(wholly)
  }

  flush(): Promise<void> {
    return this.syncFault === undefined ? this.syncing : Promise.reject(this.syncFault)
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

/** What the session says. */
interface Says {
  applies: boolean
  onMessage: () => Promise<void>
}

interface World {
  readonly says: Says
  readonly silence: Silence
  readonly receiver: Receiver
  readonly volume: TestVolume
  readonly gate: AckGate
  /** The writer's end. */
  readonly writer: Socket
  readonly answers: Answer[]
  readonly sums: Buffer[]
  readonly refused: string[]
  /** Numbers in the order in which they were noted. */
  readonly noted: number[]
  /** The reason for which the receiver gave the link up. */
  readonly closed: Promise<string>
  /** The writer's end has seen everything there will be. */
  readonly ended: Promise<unknown>
}

export async function world(
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
  const sums: Buffer[] = []
  let carry = Buffer.alloc(0)
  writer.on('data', (chunk) => {
    carry = Buffer.concat([carry, chunk])
    const header = new AckHeader()
    while (carry.length >= ACK_BYTES && header.read(carry, 0)) {
      const { type, status, number, length } = header
      answers.push({ type, status, number })
      if (type === ACK.CHECKSUMS) sums.push(carry.subarray(ACK_BYTES, ACK_BYTES + length))
      carry = carry.subarray(ACK_BYTES + length)
    }
  })
  const volume = new TestVolume()
  const gate = new AckGate(new Lease(), new Contact(1_000))
  const refused: string[] = []
  const noted: number[] = []
  const says: Says = { applies: true, onMessage: () => Promise.resolve() }
  const silence = new Silence(1_000, 0)
  let close: (reason: string) => void = () => undefined
  const closed = new Promise<string>((resolve) => (close = resolve))
  const receiver = new Receiver({
    socket,
    buffer,
    gate,
    silence,
    run: { store: (number: number) => void noted.push(number) } as unknown as RunFile,
    clock: { ...systemClock, bootMs },
    volume: (index) =>
      index === 1 ? (volume as unknown as Volume) : index === 2 ? 'removed' : undefined,
    onMessage: () => says.onMessage(),
    applies: () => says.applies,
    copying: () => false,
    changes: () => Buffer.alloc(0),
    onRefused: (status, reason) => refused.push(`${status} ${reason}`),
    onClosed: close,
  })
  receiver.start()
  const ended = once(writer, 'end')
  return {
    says,
    silence,
    receiver,
    volume,
    gate,
    writer,
    answers,
    sums,
    refused,
    noted,
    closed,
    ended,
  }
}

export const write = (seq: number, flags = 0): Buffer =>
  frame(FRAME.WRITE, flags, 1, seq, seq * BLOCK, BLOCK, Buffer.alloc(BLOCK, seq))
export const flush = (id: number): Buffer => frame(FRAME.FLUSH, 0, 1, id, 0, 0)

export const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** Whoever waits for what never comes is to end before the whole run does. */
const LONGEST_MS = 60_000

export async function until(condition: () => boolean): Promise<void> {
  const endMs = performance.now() + LONGEST_MS
  while (!condition()) {
    if (performance.now() > endMs) throw new Error('it has not come')
    await nextTurn()
  }
}
