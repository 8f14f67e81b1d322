import { closeSync, openSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { dirname, basename } from 'node:path'
import type { Clock } from '#base/clock.ts'

/* A client of QEMU's machine protocol: JSON lines over a unix socket, greeting and capabilities first, then commands answered by `id`
 * and events in between. One client at a time may be connected: a second one gets no greeting until the first has gone.
 *
 * The socket is reached through its directory's descriptor, so that no directory name is too long for it.
 */

export interface QmpEvent {
  readonly event: string
  readonly data: Readonly<Record<string, unknown>>
}

/** QEMU refused a command; `kind` is its error class. */
export class QmpError extends Error {
  override readonly name = 'QmpError'
  readonly kind: string
  constructor(kind: string, text: string) {
    super(text)
    this.kind = kind
  }
}

/** The connection is gone, or an answer did not come in time. */
export class QmpGone extends Error {
  override readonly name = 'QmpGone'
}

export interface QmpOptions {
  readonly path: string
  readonly clock: Clock
  /** Longest wait for the greeting and for each answer, ms. */
  readonly timeoutMs: number
}

interface Waiting {
  resolve(answer: unknown): void
  reject(error: Error): void
}

/** Longest line that is taken: the answer to a query about many block nodes is some hundred KiB. */
const LINE_CHARS_MAX = 8 * 1024 * 1024

export class Qmp {
  readonly #socket: Socket
  readonly #clock: Clock
  readonly #timeoutMs: number
  readonly #waiting = new Map<number, Waiting>()
  readonly #listeners = new Set<(event: QmpEvent) => void>()
  readonly #closed: Promise<void>
  #greeted: () => void = () => undefined
  #text = ''
  #lastId = 0
  #open = true

  private constructor(socket: Socket, { clock, timeoutMs }: QmpOptions) {
    this.#socket = socket
    this.#clock = clock
    this.#timeoutMs = timeoutMs
    socket.setEncoding('utf8')
    socket.on('data', (chunk: string) => this.#take(chunk))
    socket.on('error', () => socket.destroy()) // `close` follows and tells everybody
    this.#closed = new Promise((resolve) => {
      socket.once('close', () => {
        this.#open = false
        for (const one of this.#waiting.values()) one.reject(new QmpGone('QEMU hung up'))
        this.#waiting.clear()
        resolve()
      })
    })
  }

  /** Connects and makes the connection ready. Throws QmpGone or the system's error when nobody answers. */
  static async connect(options: QmpOptions): Promise<Qmp> {
    const socket = await openSocket(options.path)
    const qmp = new Qmp(socket, options)
    try {
      const greeting = new Promise<void>((resolve) => {
        qmp.#greeted = resolve
      })
      const gone = qmp.#closed.then(() => {
        throw new QmpGone('QEMU hung up before its greeting')
      })
      await qmp.#inTime(Promise.race([greeting, gone]), 'the greeting')
      await qmp.run('qmp_capabilities')
      return qmp
    } catch (error) {
      socket.destroy()
      throw error
    }
  }

  get open(): boolean {
    return this.#open
  }

  /** Resolves when the connection has ended, for whatever reason. */
  get closed(): Promise<void> {
    return this.#closed
  }

  onEvent(listen: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listen)
    return () => this.#listeners.delete(listen)
  }

  /** Throws QmpError when QEMU refuses, QmpGone when no answer comes. */
  async run(execute: string, args?: Readonly<Record<string, unknown>>): Promise<unknown> {
    if (!this.#open) throw new QmpGone('QEMU hung up')
    const id = ++this.#lastId
    const answer = new Promise<unknown>((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
    })
    const command = { execute, ...(args === undefined ? {} : { arguments: args }), id }
    this.#socket.write(`${JSON.stringify(command)}\n`)
    try {
      return await this.#inTime(answer, execute)
    } finally {
      this.#waiting.delete(id)
    }
  }

  close(): void {
    this.#socket.destroy()
  }

  async #inTime<T>(work: Promise<T>, what: string): Promise<T> {
    let cancel = () => {}
    const late = new Promise<never>((_, reject) => {
      cancel = this.#clock.after(this.#timeoutMs, () =>
        reject(new QmpGone(`no answer from QEMU to ${what} in ${this.#timeoutMs} ms`)),
      )
    })
    try {
      return await Promise.race([work, late])
    } finally {
      cancel()
    }
  }

  #take(chunk: string): void {
    this.#text += chunk
    for (let end = this.#text.indexOf('\n'); end >= 0; end = this.#text.indexOf('\n')) {
      const line = this.#text.slice(0, end).trim()
      this.#text = this.#text.slice(end + 1)
      if (line !== '') this.#line(line)
    }
    if (this.#text.length > LINE_CHARS_MAX) this.#socket.destroy()
  }

  #line(line: string): void {
    let message: Record<string, unknown>
    try {
      message = JSON.parse(line) as Record<string, unknown>
    } catch {
      // Whoever speaks here is not QEMU, or no longer in its right mind.
      this.#socket.destroy()
      return
    }
    if ('QMP' in message) return this.#greeted()
    if (typeof message['event'] === 'string') {
      const event = { event: message['event'], data: asRecord(message['data']) }
      for (const listen of this.#listeners) listen(event)
      return
    }
    const waiting = this.#waiting.get(Number(message['id']))
    if (waiting === undefined) return
    if ('error' in message) {
      const { class: kind, desc } = asRecord(message['error'])
      waiting.reject(new QmpError(String(kind), String(desc)))
    } else waiting.resolve(message['return'])
  }
}

export const asRecord = (value: unknown): Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}

export const asList = (value: unknown): readonly Readonly<Record<string, unknown>>[] =>
  Array.isArray(value) ? value.map(asRecord) : []

/** Also where the whole path is too long for a socket. Throws what the system says. */
export async function openSocket(path: string): Promise<Socket> {
  const directory = openSync(dirname(path), 'r')
  try {
    const socket = connect(`/proc/self/fd/${directory}/${basename(path)}`)
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve)
      socket.once('error', reject)
    })
    socket.removeAllListeners('error')
    return socket
  } finally {
    closeSync(directory)
  }
}
