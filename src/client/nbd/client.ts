import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { Duplex } from 'node:stream'
import { Fault } from '#base/fault.ts'
import { ByteReader } from '#base/system/byte-reader.ts'
import { type ByteStream, fromDuplex } from '#base/system/byte-stream.ts'
import {
  CMD,
  CMD_FLAG,
  HANDSHAKE,
  INFO,
  OPT,
  REP,
  REP_ERROR_BIT,
  SIMPLE_REPLY_MAGIC,
} from '#wire/nbd/constants.ts'
import {
  decodeGreeting,
  decodeInfo,
  decodeOptionReplyHeader,
  encodeClientFlags,
  encodeExportRequest,
  encodeOption,
  GREETING_BYTES,
  OPTION_REPLY_HEADER_BYTES,
} from '#wire/nbd/handshake.ts'
import { REQUEST_BYTES, SIMPLE_REPLY_BYTES, writeRequest } from '#wire/nbd/transmission.ts'
import { NBD_DISCONNECTED, NBD_IO_ERROR, NBD_PROTOCOL, NBD_REFUSED } from './faults.ts'

/* A small NBD client: many requests in flight, each a promise.
 *
 * A write that resolved was acknowledged by the server. When the connection ends, everything unanswered rejects with
 * NBD_DISCONNECTED and may or may not have been carried out. The client never reconnects by itself, because whether the same
 * write may be repeated, and where, is for the caller to know.
 */

/** Largest read or write; what servers accept by default. Larger ones are for the caller to cut. */
export const NBD_REQUEST_BYTES_MAX = 32 * 1024 * 1024

export type NbdAddress =
  | { readonly unix: string }
  | { readonly host: string; readonly port: number; readonly tls?: NbdTls }

export interface NbdTls {
  /** PEM of the authority that signed the server's certificate. */
  readonly ca: string
  /** PEM of the client's own certificate and key, when the server asks for one. */
  readonly cert?: string
  readonly key?: string
  /** Name in the server's certificate when it differs from `host`. */
  readonly serverName?: string
}

export interface NbdConnectOptions {
  readonly exportName: string
  /** Longest time until the export is open. Default 10 000 ms. */
  readonly timeoutMs?: number
}

interface Pending {
  readonly data: Buffer | undefined
  resolve(data: Buffer): void
  reject(error: Error): void
}

const NO_DATA = Buffer.alloc(0)

/** Connects, upgrades to TLS when asked, and opens the export. Rejects with NBD_REFUSED and the server's reason when it does
 *  not serve the export, NBD_DISCONNECTED when it cannot be reached or is too slow, NBD_PROTOCOL when it is no NBD server. */
export async function connectNbd(
  address: NbdAddress,
  { exportName, timeoutMs = 10_000 }: NbdConnectOptions,
): Promise<NbdClient> {
  const socket: Socket =
    'unix' in address ? connectTcp(address.unix) : connectTcp(address.port, address.host)
  socket.setNoDelay(true)
  const timer = setTimeout(() => {
    socket.destroy(new Error(`no answer within ${timeoutMs} ms`))
  }, timeoutMs)
  const tls = 'port' in address ? address.tls : undefined
  try {
    return await openNbd(
      socket,
      exportName,
      tls === undefined ? undefined : (raw) => secure(raw as Socket, address, tls),
    )
  } finally {
    clearTimeout(timer)
  }
}

/** The same over a stream that is connected already. `upgrade`: ask for TLS and continue on the stream that it makes. */
export async function openNbd(
  raw: Duplex,
  exportName: string,
  upgrade?: (raw: Duplex) => Promise<Duplex>,
): Promise<NbdClient> {
  try {
    let stream = fromDuplex(raw)
    let reader = new ByteReader(stream)
    const flags = decodeGreeting(await reader.take(GREETING_BYTES))
    if (flags === undefined || (flags & HANDSHAKE.FIXED_NEWSTYLE) === 0) {
      throw new Fault(NBD_PROTOCOL, 'reading the greeting')
    }
    raw.write(encodeClientFlags(flags & (HANDSHAKE.FIXED_NEWSTYLE | HANDSHAKE.NO_ZEROES)))
    if (upgrade !== undefined) {
      await startTls(raw, reader)
      // Bytes that came before the encryption was agreed on were not from the certificate's holder.
      if (reader.detach().length > 0) throw new Fault(NBD_PROTOCOL, 'starting TLS')
      stream = fromDuplex(await upgrade(raw))
      reader = new ByteReader(stream)
    }
    const opened = await openExport(stream.duplex, reader, exportName)
    return new NbdClient(stream, reader.detach(), opened)
  } catch (error) {
    raw.destroy()
    if (error instanceof Fault) throw error
    throw new Fault(NBD_DISCONNECTED, `opening ${exportName}`, {}, error)
  }
}

async function startTls(socket: Duplex, reader: ByteReader): Promise<void> {
  socket.write(encodeOption(OPT.STARTTLS))
  const reply = await readReply(reader, OPT.STARTTLS)
  if (reply.type !== REP.ACK) {
    throw new Fault(NBD_REFUSED, `the server refused TLS: ${reply.data.toString()}`)
  }
}

function secure(socket: Socket, address: NbdAddress, tls: NbdTls): Promise<Duplex> {
  const host = 'host' in address ? address.host : ''
  return new Promise((resolve, reject) => {
    const secured = connectTls({
      socket,
      ca: tls.ca,
      servername: tls.serverName ?? (/^[\d.]+$|:/.test(host) ? '' : host),
      host: tls.serverName ?? host,
      ...(tls.cert === undefined ? {} : { cert: tls.cert }),
      ...(tls.key === undefined ? {} : { key: tls.key }),
    })
    secured.once('secureConnect', () => {
      secured.off('error', reject)
      secured.off('close', onClose)
      resolve(secured)
    })
    const onClose = () => reject(new Error('the server closed the connection during TLS'))
    secured.once('error', reject)
    secured.once('close', onClose)
  })
}

interface Opened {
  readonly sizeBytes: number
  readonly flags: number
}

async function openExport(stream: Duplex, reader: ByteReader, exportName: string): Promise<Opened> {
  stream.write(
    encodeOption(OPT.GO, encodeExportRequest({ name: exportName, infos: [INFO.EXPORT] })),
  )
  let opened: Opened | undefined
  for (;;) {
    const reply = await readReply(reader, OPT.GO)
    if (reply.type === REP.ACK) {
      if (opened === undefined) throw new Fault(NBD_PROTOCOL, 'opening without a size')
      return opened
    }
    if (reply.type === REP.INFO) {
      const info = decodeInfo(reply.data)
      if (info?.kind === 'export') opened = info
    } else if ((reply.type & REP_ERROR_BIT) !== 0) {
      const reason = reply.data.toString()
      const code = reply.type >>> 0
      throw new Fault(NBD_REFUSED, `opening ${exportName}: ${reason}`, { reason, reply: code })
    } else throw new Fault(NBD_PROTOCOL, `opening ${exportName}`, { reply: reply.type })
  }
}

/** No server sends more in answer to one option. */
const OPTION_REPLY_BYTES_MAX = 64 * 1024

async function readReply(
  reader: ByteReader,
  option: number,
): Promise<{ type: number; data: Buffer }> {
  const header = decodeOptionReplyHeader(await reader.take(OPTION_REPLY_HEADER_BYTES))
  if (header?.option !== option || header.length > OPTION_REPLY_BYTES_MAX) {
    throw new Fault(NBD_PROTOCOL, 'reading an option reply')
  }
  return { type: header.type, data: await reader.take(header.length) }
}

export class NbdClient {
  readonly sizeBytes: number
  /** Transmission flags of the export, see TRANSMISSION. */
  readonly flags: number
  /** Resolves when the connection has ended, with the cause. Never rejects. */
  readonly closed: Promise<Error>
  readonly #stream: Duplex
  readonly #pending = new Map<number, Pending>()
  readonly #header = Buffer.alloc(SIMPLE_REPLY_BYTES)
  #headerBytes = 0
  #reading: Pending | undefined
  #readBytes = 0
  #nextCookie = 1
  #ended: Error | undefined
  #resolveClosed: (cause: Error) => void = () => {}

  /** Made by `connectNbd`. `early` are bytes that came after the handshake. */
  constructor(bytes: ByteStream, early: Buffer, { sizeBytes, flags }: Opened) {
    const stream = bytes.duplex
    this.sizeBytes = sizeBytes
    this.flags = flags
    this.#stream = stream
    this.closed = new Promise((resolve) => (this.#resolveClosed = resolve))
    bytes.receive((chunk) => this.#take(chunk))
    stream.on('error', (error) => this.#end(error))
    stream.on('close', () => this.#end(new Error('the server closed the connection')))
    if (early.length > 0) this.#take(early)
    bytes.resume()
  }

  /** Requests without an answer yet. */
  get inFlight(): number {
    return this.#pending.size
  }

  read(offset: number, length: number): Promise<Buffer> {
    return this.#request(CMD.READ, 0, offset, length, undefined, Buffer.allocUnsafe(length))
  }

  /** Resolves when acknowledged. The caller must leave `data` alone until then. `fua`: durable when it resolves. */
  async write(offset: number, data: Uint8Array, { fua = false } = {}): Promise<void> {
    await this.#request(CMD.WRITE, fua ? CMD_FLAG.FUA : 0, offset, data.length, data)
  }

  /** Everything acknowledged before is durable when it resolves. */
  async flush(): Promise<void> {
    await this.#request(CMD.FLUSH, 0, 0, 0)
  }

  async trim(offset: number, length: number, { fua = false } = {}): Promise<void> {
    await this.#request(CMD.TRIM, fua ? CMD_FLAG.FUA : 0, offset, length)
  }

  /** Makes the range read as zeroes; with `mayUnmap` (the default) its space may be given back. */
  async zero(offset: number, length: number, { fua = false, mayUnmap = true } = {}): Promise<void> {
    const flags = (fua ? CMD_FLAG.FUA : 0) | (mayUnmap ? 0 : CMD_FLAG.NO_HOLE)
    await this.#request(CMD.WRITE_ZEROES, flags, offset, length)
  }

  /** Says goodbye and ends the connection after all answers have come. */
  async disconnect(): Promise<void> {
    if (this.#ended === undefined) {
      this.#send(CMD.DISC, 0, 0, 0, 0, undefined)
      this.#stream.end()
    }
    await this.closed
  }

  /** Ends the connection at once; unanswered requests reject. */
  destroy(): void {
    this.#end(new Error('closed by the caller'))
  }

  #request(
    type: number,
    flags: number,
    offset: number,
    length: number,
    payload?: Uint8Array,
    data?: Buffer,
  ): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      if (this.#ended !== undefined) {
        reject(new Fault(NBD_DISCONNECTED, 'sending a request', {}, this.#ended))
        return
      }
      if (length > NBD_REQUEST_BYTES_MAX && (type === CMD.READ || type === CMD.WRITE)) {
        reject(new RangeError(`a request of ${length} bytes is above ${NBD_REQUEST_BYTES_MAX}`))
        return
      }
      const cookie = this.#nextCookie
      this.#nextCookie = cookie === 0xffffffff ? 1 : cookie + 1
      this.#pending.set(cookie, { data, resolve, reject })
      this.#send(type, flags, cookie, offset, length, payload)
    })
  }

  #send(
    type: number,
    flags: number,
    cookie: number,
    offset: number,
    length: number,
    payload: Uint8Array | undefined,
  ): void {
    const header = Buffer.allocUnsafe(REQUEST_BYTES)
    writeRequest(header, 0, { type, flags, cookieHigh: 0, cookieLow: cookie, offset, length })
    if (payload === undefined) this.#stream.write(header)
    else {
      this.#stream.cork()
      this.#stream.write(header)
      this.#stream.write(payload)
      this.#stream.uncork()
    }
  }

  #take(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length && this.#ended === undefined) {
      const reading = this.#reading
      if (reading?.data !== undefined) {
        const copied = chunk.copy(reading.data, this.#readBytes, at)
        at += copied
        this.#readBytes += copied
        if (this.#readBytes === reading.data.length) this.#finishRead(reading)
      } else {
        const copied = chunk.copy(this.#header, this.#headerBytes, at)
        at += copied
        this.#headerBytes += copied
        if (this.#headerBytes === SIMPLE_REPLY_BYTES) this.#takeReply()
      }
    }
  }

  #finishRead(reading: Pending): void {
    this.#reading = undefined
    reading.resolve(reading.data ?? NO_DATA)
  }

  #takeReply(): void {
    this.#headerBytes = 0
    const error = this.#header.readUInt32BE(4)
    const cookie = this.#header.readUInt32BE(12)
    const pending = this.#pending.get(cookie)
    if (this.#header.readUInt32BE(0) !== SIMPLE_REPLY_MAGIC || pending === undefined) {
      this.#end(new Fault(NBD_PROTOCOL, 'reading a reply'))
      return
    }
    this.#pending.delete(cookie)
    if (error !== 0) pending.reject(new Fault(NBD_IO_ERROR, `error ${error}`, { error }))
    else if (pending.data === undefined || pending.data.length === 0) pending.resolve(NO_DATA)
    else {
      this.#reading = pending
      this.#readBytes = 0
    }
  }

  #end(cause: Error): void {
    if (this.#ended !== undefined) return
    this.#ended = cause
    this.#stream.destroy()
    const unanswered = [...this.#pending.values()]
    if (this.#reading !== undefined) unanswered.push(this.#reading)
    this.#pending.clear()
    for (const pending of unanswered) {
      pending.reject(new Fault(NBD_DISCONNECTED, 'waiting for an answer', {}, cause))
    }
    this.#resolveClosed(cause)
  }
}
