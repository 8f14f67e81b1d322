import { randomInt } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { type Clock, sleep } from '#base/clock.ts'

/* A client of QEMU's guest agent (`qemu-ga`), over its virtio-serial channel: JSON lines, one command at a time. Nobody may be there, and what
 * an earlier client asked may still be answered first; so each connection begins with a number that only its own answer carries
 * (`guest-sync-delimited`; the byte 0xff makes the agent forget half a line, and stands before its answer).
 *
 * Source: QEMU's documentation of the guest agent protocol. */

const DELIMITER = 0xff
const LINE_BYTES_MAX = 1024 * 1024
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
  try {
    const mark = randomInt(1, 2 ** 31)
    connection.write(Buffer.from([DELIMITER]))
    connection.write(
      `${JSON.stringify({ execute: 'guest-sync-delimited', arguments: { id: mark } })}\n`,
    )
    const syncEndMs = Math.min(endMs, clock.bootMs() + SYNC_MS)
    for (;;) {
      const line = await lines.next(Math.max(0, syncEndMs - clock.bootMs()), clock)
      if (line === undefined) return { kind: 'no_agent' }
      if (answerOf(line)?.value === mark) break
    }
    const [path, ...arg] = command
    const started = await ask('guest-exec', { path, arg, 'capture-output': true })
    const pid = fieldOf(started?.value, 'pid')
    if (typeof pid !== 'number') return failed(started, 'the guest agent did not start it')
    for (;;) {
      const status = await ask('guest-exec-status', { pid })
      if (status === undefined) return failed(status, 'it did not end in time')
      if (fieldOf(status.value, 'exited') === true) return exited(status.value)
      if (status.problem !== undefined) return failed(status, '')
      if (left() === 0) return failed(undefined, 'it did not end in time')
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

/** Lines as they come. A connection that ends has no more. */
class Lines {
  #bytes: Buffer = Buffer.alloc(0)
  readonly #lines: string[] = []
  #ended = false
  #wake: () => void = () => undefined

  constructor(connection: Duplex) {
    connection.on('data', (chunk: Buffer) => this.#take(chunk, connection))
    connection.on('error', () => undefined) // `close` follows
    connection.once('close', () => {
      this.#ended = true
      this.#wake()
    })
  }

  #take(chunk: Buffer, connection: Duplex): void {
    this.#bytes = Buffer.concat([this.#bytes, chunk])
    for (let end = this.#bytes.indexOf(10); end >= 0; end = this.#bytes.indexOf(10)) {
      const line = this.#bytes.subarray(0, end)
      this.#lines.push(line.subarray(line.lastIndexOf(DELIMITER) + 1).toString())
      this.#bytes = this.#bytes.subarray(end + 1)
    }
    if (this.#bytes.length > LINE_BYTES_MAX) connection.destroy()
    this.#wake()
  }

  /** undefined: none came within `limitMs`. */
  async next(limitMs: number, clock: Clock): Promise<string | undefined> {
    if (this.#lines.length === 0 && !this.#ended) {
      let cancel = () => {}
      await new Promise<void>((resolve) => {
        this.#wake = () => {
          if (this.#lines.length > 0 || this.#ended) resolve()
        }
        cancel = clock.after(limitMs, resolve)
      })
      cancel()
    }
    return this.#lines.shift()
  }
}
