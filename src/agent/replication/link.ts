import { randomBytes } from 'node:crypto'
import { connect, createServer, type Server, type Socket } from 'node:net'
import {
  type ConnectionOptions,
  connect as tlsConnect,
  createServer as createTlsServer,
  type TLSSocket,
} from 'node:tls'
import type { AddressInfo } from 'node:net'
import { assert } from '#base/assert.ts'
import type { Log } from '#base/log.ts'
import { canAccept, startAcceptor } from '#base/system/acceptor.ts'
import { fromDescriptor, withDataEvents } from '#base/system/byte-stream.ts'
import { decodePreface, encodePreface, LINK_VERSION, linkKey, proof } from '#wire/link/handshake.ts'
import {
  decodeHello,
  encodeMessage,
  FEATURES_NEEDED,
  type Hello,
  MESSAGE_BYTES_MAX,
  type Refuse,
} from '#wire/link/messages.ts'
import { NONCE_BYTES, PREFACE_BYTES, PROOF_BYTES, proves } from '#wire/link/opening.ts'
import type { LinkTls } from './types.ts'

/* Sockets of the replication link: dial, listen, prove who is there, exchange hellos. What comes afterwards belongs to the
 * sender (writer, accepted socket) and the receiver (replica, dialled socket).
 *
 * The replica dials, because the side that dials may have its bytes delivered into memory of its own (`onread`), and the
 * replica is the side that receives in bulk.
 *
 * Everything before the two hellos is bounded by HANDSHAKE_MS and by the sizes of the messages: a stranger who connects and
 * says nothing, or too much, is gone after that.
 */

const HANDSHAKE_MS = 5_000
/** Handshakes of strangers at one time; more are hung up on at once. */
const HANDSHAKES_MAX = 256
/** The kernel's buffers decide how far the sender can be ahead without a turn of its event loop. */
const NO_DELAY = true

export type LinkSecurity =
  | { readonly kind: 'tls'; readonly tls: LinkTls }
  | { readonly kind: 'keyed'; readonly secret: Uint8Array }

/** Agents show a certificate `agent:SITE:ID`; the site must be the one that the hello names. */
function siteOfCertificate(socket: TLSSocket): string | undefined {
  const name = socket.getPeerCertificate().subject?.CN
  const text = Array.isArray(name) ? name[0] : name
  const [kind, site] = (text ?? '').split(':')
  return kind === 'agent' ? site : undefined
}

/** Reads the handshake's bytes from a socket whose bulk is read by others afterwards. */
class HandshakeBytes {
  #have = Buffer.alloc(0)
  #wanted = 0
  #resolve: ((bytes: Buffer) => void) | undefined
  #reject: ((error: Error) => void) | undefined
  #failed: Error | undefined

  push(bytes: Buffer): void {
    this.#have = this.#have.length === 0 ? Buffer.from(bytes) : Buffer.concat([this.#have, bytes])
    this.#serve()
  }

  fail(error: Error): void {
    this.#failed ??= error
    this.#reject?.(this.#failed)
  }

  take(count: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      if (this.#failed !== undefined) return reject(this.#failed)
      this.#wanted = count
      this.#resolve = resolve
      this.#reject = reject
      this.#serve()
    })
  }

  #serve(): void {
    if (this.#resolve === undefined || this.#have.length < this.#wanted) return
    const resolve = this.#resolve
    this.#resolve = undefined
    this.#reject = undefined
    const bytes = this.#have.subarray(0, this.#wanted)
    this.#have = this.#have.subarray(this.#wanted)
    resolve(bytes)
  }

  /** What arrived behind the handshake. */
  rest(): Buffer {
    return this.#have
  }
}

const handshakeError = (text: string): Error => new Error(`link handshake: ${text}`)

async function shake(
  socket: Socket,
  bytes: HandshakeBytes,
  side: 'dialler' | 'listener',
  security: LinkSecurity,
): Promise<void> {
  const keyed = security.kind === 'keyed'
  const nonce = randomBytes(NONCE_BYTES)
  const own = encodePreface({ version: LINK_VERSION, keyed, nonce })
  if (side === 'dialler') socket.write(own)
  const peer = decodePreface(await bytes.take(PREFACE_BYTES))
  if (peer === undefined) throw handshakeError('the peer speaks something else')
  if (side === 'listener') socket.write(own)
  if (peer.version !== LINK_VERSION) {
    throw handshakeError(`the peer speaks version ${peer.version}, this side ${LINK_VERSION}`)
  }
  if (peer.keyed !== keyed) throw handshakeError('one side wants TLS, the other a keyed link')
  if (security.kind !== 'keyed') return
  const key = linkKey(security.secret)
  const [dialler, listener] = side === 'dialler' ? [nonce, peer.nonce] : [peer.nonce, nonce]
  if (side === 'dialler') socket.write(proof(key, 'dialler', dialler, listener))
  const other = side === 'dialler' ? 'listener' : 'dialler'
  const given = await bytes.take(PROOF_BYTES)
  if (!proves(proof(key, other, dialler, listener), given)) {
    throw handshakeError('the peer does not know the link key')
  }
  if (side === 'listener') socket.write(proof(key, 'listener', dialler, listener))
}

function sendFirst(socket: Socket, message: Hello | Refuse): void {
  const body = encodeMessage(message)
  const head = Buffer.alloc(4)
  head.writeUInt32BE(body.length, 0)
  socket.write(Buffer.concat([head, body]))
}

async function readFirst(bytes: HandshakeBytes): Promise<Hello | Refuse> {
  const length = (await bytes.take(4)).readUInt32BE(0)
  if (length > MESSAGE_BYTES_MAX) throw handshakeError('the first message is too long')
  const message = decodeHello(await bytes.take(length))
  if (message === undefined) throw handshakeError('the first message is not understood')
  if (message.kind === 'hello' && (message.features & FEATURES_NEEDED) !== FEATURES_NEEDED) {
    throw handshakeError('the peer lacks a feature that this version needs')
  }
  return message
}

/** A dialled link with both hellos exchanged. `start` hands over the socket's bytes, from the first one behind the hello. */
export interface DialledLink {
  readonly socket: Socket
  readonly hello: Hello
  readonly buffer: DialledBuffer
}

/**
 * Memory that the socket of a dialled link reads into: `bytes[start, filled)` has not been used up.
 *
 * The socket asks for the place of its next bytes right after it has delivered some, and keeps to it. So what is left over may be
 * moved to the front only while it asks, or while that place is the side buffer: during the handshake, and when the memory is full.
 */
export class DialledBuffer {
  readonly bytes: Buffer
  start = 0
  filled = 0
  readonly #side = Buffer.allocUnsafeSlow(ROOM_BYTES_MIN)
  /** Set by the handshake while it takes the bytes. */
  taker: ((bytes: Buffer) => void) | undefined
  /** Called after bytes were added; advances `start`. Returns false to stop reading until `socket.resume()`. */
  onBytes: () => boolean = () => true

  constructor(size: number) {
    this.bytes = Buffer.allocUnsafeSlow(size)
  }

  /** Where the next bytes go. Called by the socket. */
  room(): Buffer {
    if (this.taker !== undefined) return this.#side
    this.#moveToFront()
    const left = this.bytes.length - this.filled
    return left < ROOM_BYTES_MIN ? this.#side : this.bytes.subarray(this.filled)
  }

  /** Reading has to stop until something has been used up. Some more may arrive after that: see FULL_MARGIN_BYTES. */
  get full(): boolean {
    return this.bytes.length - (this.filled - this.start) < FULL_MARGIN_BYTES
  }

  /** `place`: what `room` returned last. Called by the socket. */
  added(count: number, place: Uint8Array): boolean {
    if (this.taker !== undefined) {
      this.taker(Buffer.from(this.#side.subarray(0, count)))
      return true
    }
    if (place.buffer === this.#side.buffer) {
      this.#moveToFront()
      this.add(this.#side.subarray(0, count))
    } else this.filled += count
    return this.onBytes()
  }

  add(bytes: Buffer): void {
    assert(
      this.bytes.length - this.filled >= bytes.length,
      'reading stops while the buffer is full',
    )
    bytes.copy(this.bytes, this.filled)
    this.filled += bytes.length
  }

  #moveToFront(): void {
    if (this.start === 0) return
    this.bytes.copyWithin(0, this.start, this.filled)
    this.filled -= this.start
    this.start = 0
  }
}

/** Also the size of the side buffer. */
const ROOM_BYTES_MIN = 64 * 1024
/** A TLS socket that was told to stop still delivers what it has taken from the kernel, one read of 64 KiB and the part of a record
 *  before it, in pieces of 16 KiB. */
const FULL_MARGIN_BYTES = 512 * 1024

export interface DialOptions {
  readonly host: string
  readonly port: number
  readonly security: LinkSecurity
  readonly hello: Hello
  /** Site that must answer. */
  readonly peerSite: string
  /** Holds the largest frame with its header and then some. */
  readonly bufferBytes: number
  readonly signal: AbortSignal
}

/** Resolves with the link, or with the peer's refusal; rejects when there is no link to be had. */
export async function dialLink(options: DialOptions): Promise<DialledLink | Refuse> {
  const { host, port, security, hello, peerSite, bufferBytes, signal } = options
  const bytes = new HandshakeBytes()
  const buffer = new DialledBuffer(bufferBytes)
  buffer.taker = (chunk) => bytes.push(chunk)
  const onread = {
    buffer: () => buffer.room(),
    callback: (count: number, place: Uint8Array): boolean => buffer.added(count, place),
  }
  const socket: Socket =
    security.kind === 'tls'
      ? tlsConnect({
          host,
          port,
          ...security.tls,
          minVersion: 'TLSv1.3',
          // Agents are named by their certificates and not by where they listen; checked below.
          checkServerIdentity: () => undefined,
          onread,
        } as ConnectionOptions)
      : connect({ host, port, onread })
  socket.setNoDelay(NO_DELAY)
  const end = (error: Error) => {
    bytes.fail(error)
    socket.destroy()
  }
  const onAbort = () => end(handshakeError('given up'))
  signal.addEventListener('abort', onAbort, { once: true })
  const timer = setTimeout(() => end(handshakeError('timed out')), HANDSHAKE_MS)
  socket.on('error', end)
  socket.on('close', () => bytes.fail(handshakeError('the peer hung up')))
  try {
    await shake(socket, bytes, 'dialler', security)
    if (security.kind === 'tls' && siteOfCertificate(socket as TLSSocket) !== peerSite) {
      throw handshakeError(`the certificate there is not of site ${peerSite}`)
    }
    sendFirst(socket, hello)
    const first = await readFirst(bytes)
    if (first.kind === 'refuse') {
      socket.destroy()
      return first
    }
    if (first.site !== peerSite) throw handshakeError(`site ${first.site} answered`)
    buffer.taker = undefined
    buffer.add(bytes.rest())
    return { socket, hello: first, buffer }
  } catch (error) {
    socket.destroy()
    throw error
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', onAbort)
    socket.removeListener('error', end)
    socket.on('error', () => socket.destroy())
  }
}

/** An accepted link: `answer` sends this side's hello, or a refusal and hangs up. */
export interface AcceptedLink {
  readonly socket: Socket
  readonly hello: Hello
  readonly rest: Buffer
}

export interface LinkListener {
  readonly address: { readonly host: string; readonly port: number }
  close(): Promise<void>
}

export async function listenForLinks(options: {
  readonly host: string
  readonly port: number
  readonly security: LinkSecurity
  readonly log: Log
  /** Decides about a dialler that has proved who it is; the answer is sent, and after a hello `accepted` is called in the
   *  same turn. */
  readonly answer: (hello: Hello) => Hello | Refuse
  readonly accepted: (link: AcceptedLink) => void
}): Promise<LinkListener> {
  const { host, port, security, log, answer, accepted } = options
  const open = new Set<Socket>()
  let handshakes = 0

  const take = async (socket: Socket): Promise<void> => {
    socket.setNoDelay(NO_DELAY)
    open.add(socket)
    const bytes = new HandshakeBytes()
    const push = (chunk: Buffer) => bytes.push(chunk)
    const end = (error: Error) => {
      bytes.fail(error)
      socket.destroy()
    }
    socket.on('data', push)
    socket.on('error', end)
    socket.on('close', () => {
      open.delete(socket)
      bytes.fail(handshakeError('the peer hung up'))
    })
    const timer = setTimeout(() => end(handshakeError('timed out')), HANDSHAKE_MS)
    try {
      await shake(socket, bytes, 'listener', security)
      const first = await readFirst(bytes)
      if (first.kind === 'refuse') throw handshakeError('a dialler begins with a hello')
      if (security.kind === 'tls' && siteOfCertificate(socket as TLSSocket) !== first.site) {
        throw handshakeError(`a certificate that is not of site ${first.site}`)
      }
      const reply = answer(first)
      sendFirst(socket, reply)
      socket.removeListener('data', push)
      if (reply.kind === 'refuse') {
        socket.end()
        setTimeout(() => socket.destroy(), 1_000).unref()
        return
      }
      accepted({ socket, hello: first, rest: bytes.rest() })
    } finally {
      clearTimeout(timer)
    }
  }
  const onSocket = (socket: Socket): void => {
    if (handshakes >= HANDSHAKES_MAX) {
      socket.destroy()
      return
    }
    handshakes++
    take(socket)
      .catch((error: unknown) => {
        log.info({ peer: socket.remoteAddress, err: error }, 'link refused')
        socket.destroy()
      })
      .finally(() => handshakes--)
  }
  if (security.kind === 'keyed' && canAccept()) {
    // Unencrypted, so nothing stands between the kernel and the bytes: see decision 0021.
    const acceptor = await startAcceptor({ host, port }, (fd) =>
      onSocket(withDataEvents(fromDescriptor(fd))),
    )
    return {
      address: { host, port: acceptor.port ?? port },
      close() {
        for (const socket of open) socket.destroy()
        return acceptor.close()
      },
    }
  }
  const server: Server =
    security.kind === 'tls'
      ? createTlsServer(
          {
            ...security.tls,
            requestCert: true,
            rejectUnauthorized: true,
            minVersion: 'TLSv1.3',
            handshakeTimeout: HANDSHAKE_MS,
          },
          onSocket,
        )
      : createServer(onSocket)
  server.on('tlsClientError', (error: Error) => log.info({ err: error }, 'link refused'))
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen({ host, port }, () => {
      server.removeListener('error', reject)
      resolve()
    })
  })
  const bound = server.address() as AddressInfo
  return {
    address: { host: bound.address, port: bound.port },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        for (const socket of open) socket.destroy()
      }),
  }
}
