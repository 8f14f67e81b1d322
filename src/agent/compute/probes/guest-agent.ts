import { randomInt } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { type Clock, sleep } from '#base/clock.ts'

/* A client of QEMU's guest agent (`qemu-ga`), over its virtio-serial channel: JSON lines, one command at a time. Nobody may be there, and what
 * an earlier client asked may still be answered first; so each connection begins with a number that only its own answer carries
 * (`guest-sync-delimited`; the byte 0xff makes the agent forget half a line, and stands before its answer).
 *
 * Source: QEMU's documentation of the guest agent protocol. */

const DELIMITER = 0xff
const LINE_FEED = 0x0a
/** Of one answer; an agent that says more is cut off. A command that prints more than about 700 KiB is one. */
export const LINE_BYTES_MAX = 1024 * 1024
/** Of everything that is said over one connection. A status is asked for ten times a second, for 20 s at most. */
export const TALK_BYTES_MAX = 4 * LINE_BYTES_MAX
const LINES_MAX = 1_000
const LOOK_MS = 100
/** An agent that is there answers a sync at once. */
const SYNC_MS = 1_500

export type GuestRun =
  | { readonly kind: 'no_agent' }
  /** The agent refused, or the command did not end in time. */
  | { readonly kind: 'failed'; readonly reason: string }
  | { readonly kind: 'exited'; readonly code: number; readonly output: Buffer }

/** Runs a command in the guest, at most `limitMs`. Ends the connection. A command that has not ended by then goes on in the guest. */
export async function runInGuest(
  connection: Duplex,
  command: readonly string[],
  limitMs: number,
  clock: Clock,
): Promise<GuestRun> {
  const endMs = clock.bootMs() + limitMs
  const lines = new Lines(connection)
  const left = () => Math.max(0, endMs - clock.bootMs())
  const ask = async (execute: string, args: object): Promise<Answer | undefined> => {
    connection.write(`${JSON.stringify({ execute, arguments: args })}\n`)
    return answerOf(await lines.next(left(), clock))
  }
  const cut = () => failed(undefined, lines.problem ?? 'it did not end in time')
  try {
    const mark = randomInt(1, 2 ** 31)
    connection.write(Buffer.from([DELIMITER]))
    connection.write(
      `${JSON.stringify({ execute: 'guest-sync-delimited', arguments: { id: mark } })}\n`,
    )
    const syncEndMs = Math.min(endMs, clock.bootMs() + SYNC_MS)
    for (;;) {
      const line = await lines.next(Math.max(0, syncEndMs - clock.bootMs()), clock)
      if (line === undefined) return lines.problem === undefined ? { kind: 'no_agent' } : cut()
      if (answerOf(line)?.value === mark) break
    }
    const [path, ...arg] = command
    const started = await ask('guest-exec', { path, arg, 'capture-output': true })
    const pid = fieldOf(started?.value, 'pid')
    if (typeof pid !== 'number') {
      return failed(started, lines.problem ?? 'the guest agent did not start it')
    }
    for (;;) {
      const status = await ask('guest-exec-status', { pid })
      if (status === undefined) return cut()
      if (fieldOf(status.value, 'exited') === true) return exited(status.value)
      if (status.problem !== undefined) return failed(status, '')
      if (left() === 0) return cut()
      await sleep(clock, Math.min(LOOK_MS, left()))
    }
  } finally {
    connection.destroy()
  }
}

interface Answer {
  readonly value: unknown
  readonly problem: string | undefined
}

function answerOf(line: string | undefined): Answer | undefined {
  if (line === undefined) return undefined
  try {
    const message: unknown = JSON.parse(line)
    const desc = fieldOf(fieldOf(message, 'error'), 'desc')
    return {
      value: fieldOf(message, 'return'),
      problem: typeof desc === 'string' ? desc : undefined,
    }
  } catch {
    return undefined // half a line of an earlier client's
  }
}

const failed = (answer: Answer | undefined, otherwise: string): GuestRun => ({
  kind: 'failed',
  reason: answer?.problem ?? otherwise,
})

function exited(status: unknown): GuestRun {
  const code = fieldOf(status, 'exitcode')
  const text = (name: string) => {
    const data = fieldOf(status, name)
    return typeof data === 'string' ? Buffer.from(data, 'base64') : Buffer.alloc(0)
  }
  if (typeof code !== 'number') {
    const signal = fieldOf(status, 'signal')
    return { kind: 'failed', reason: `it was ended by signal ${String(signal)}` }
  }
  return { kind: 'exited', code, output: Buffer.concat([text('out-data'), text('err-data')]) }
}

function fieldOf(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined
  return Object.entries(value).find(([key]) => key === name)?.[1]
}

/**
 * Lines as they come. A connection that ends has no more. What is on the other side is a guest: at most one line's worth of bytes is held, and
 * while a line waits to be read nothing more is taken from the channel.
 */
class Lines {
  readonly #connection: Duplex
  /** What came and was not read yet lies between the two. */
  #bytes: Buffer = Buffer.alloc(4 * 1024)
  #start = 0
  #end = 0
  #talkBytes = 0
  #lines = 0
  #over = false
  #wake: () => void = () => undefined
  /** Why nothing more is read; undefined: that is not so. */
  problem: string | undefined

  constructor(connection: Duplex) {
    this.#connection = connection
    connection.on('data', (chunk: Buffer) => this.#take(chunk))
    connection.on('error', () => undefined) // `close` follows
    connection.once('close', () => {
      this.#over = true
      this.#wake()
    })
  }

  #take(chunk: Buffer): void {
    this.#talkBytes += chunk.length
    const hasEnd = chunk.includes(LINE_FEED)
    if (this.#talkBytes > TALK_BYTES_MAX) return this.#cutOff('more than anybody asked for')
    if (!hasEnd && this.#end - this.#start + chunk.length > LINE_BYTES_MAX) {
      return this.#cutOff('more than fits into an answer')
    }
    this.#makeRoom(chunk.length)
    chunk.copy(this.#bytes, this.#end)
    this.#end += chunk.length
    if (hasEnd) this.#connection.pause()
    this.#wake()
  }

  #makeRoom(bytes: number): void {
    const held = this.#end - this.#start
    if (held + bytes > this.#bytes.length) {
      const larger = Buffer.alloc(2 ** Math.ceil(Math.log2(held + bytes)))
      this.#bytes.copy(larger, 0, this.#start, this.#end)
      this.#bytes = larger
    } else if (this.#end + bytes > this.#bytes.length) {
      this.#bytes.copyWithin(0, this.#start, this.#end)
    } else return
    this.#start = 0
    this.#end = held
  }

  #cutOff(what: string): void {
    this.problem = `the guest agent says ${what}`
    this.#start = this.#end
    this.#over = true
    this.#connection.destroy()
    this.#wake()
  }

  /** undefined: there is no whole line yet. */
  #line(): string | undefined {
    const held = this.#bytes.subarray(this.#start, this.#end)
    const length = held.indexOf(LINE_FEED)
    if (length < 0) {
      this.#connection.resume()
      return undefined
    }
    if (++this.#lines > LINES_MAX) {
      this.#cutOff('more than anybody asked for')
      return undefined
    }
    this.#start += length + 1
    const line = held.subarray(0, length)
    return line.subarray(line.lastIndexOf(DELIMITER) + 1).toString()
  }

  /** undefined: none came within `limitMs`, or none comes any more. */
  async next(limitMs: number, clock: Clock): Promise<string | undefined> {
    const ready = this.#line()
    if (ready !== undefined || this.#over) return ready
    return await new Promise<string | undefined>((resolve) => {
      const cancel = clock.after(limitMs, () => resolve(undefined))
      this.#wake = () => {
        const line = this.#line()
        if (line === undefined && !this.#over) return
        cancel()
        this.#wake = () => undefined
        resolve(line)
      }
    })
  }
}
