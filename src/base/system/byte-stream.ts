import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import koffi from 'koffi'

/* A connection whose arriving bytes go to one listener at a time.
 *
 * Node's `data` events allocate 64 KiB for every read of a socket, however little arrives, and hand it to the garbage
 * collector. On the data path that is a third of all processor time. A socket made from a file descriptor can be
 * given one buffer to read into instead; its bytes are borrowed: they are overwritten by the next read of any socket. What is sent
 * while nothing is queued goes to the kernel at once, past the machinery of streams.
 */
export interface ByteStream {
  /** For the events end, error, close and drain, and for ending it. Its `data` events belong to this object. */
  readonly duplex: Duplex
  /** Bytes given to the listener are valid only until it returns. */
  readonly borrowed: boolean
  /** Begins paused; the listener of an earlier call gets nothing more. */
  receive(take: (bytes: Buffer) => void): void
  pause(): void
  resume(): void
  /** Sends after everything sent before. True: the bytes are in the kernel and their memory is free again. False: they are
   *  queued, and must stay as they are until `done`, if given, is called. */
  send(bytes: Buffer, done?: () => void): boolean
}

/** Any stream. Its bytes belong to the listener. */
export function fromDuplex(duplex: Duplex): ByteStream {
  let listener: (bytes: Buffer) => void = () => {}
  // A stream that was paused explicitly is not set flowing by its first listener.
  duplex.pause()
  duplex.on('data', (chunk: Buffer) => listener(chunk))
  return {
    duplex,
    borrowed: false,
    receive: (take) => (listener = take),
    pause: () => void duplex.pause(),
    resume: () => void duplex.resume(),
    send(bytes, done) {
      duplex.write(bytes, done)
      return false
    },
  }
}

/** Larger than what a socket usually has ready, small enough to stay in the processor's cache. One for all sockets: the
 *  kernel fills it and the listener empties it before anything else runs. */
const SHARED_BYTES = 256 * 1024
let shared: Buffer | undefined

/** Never waits; no signal when the other side is gone. */
const MSG_DONTWAIT_NOSIGNAL = 0x4040

type Send = (fd: number, bytes: Buffer, length: number, flags: number) => number | bigint
let kernelSend: Send | undefined

/** A connected socket by its descriptor, which it owns from here on. */
export function fromDescriptor(fd: number): ByteStream & { readonly duplex: Socket } {
  shared ??= Buffer.allocUnsafeSlow(SHARED_BYTES)
  // Through send() and not write(): should the descriptor ever be another file's by mistake, it is refused.
  kernelSend ??= koffi
    .load(null)
    .func('int64_t send(int fd, void *bytes, size_t length, int flags)') as unknown as Send
  const send = kernelSend
  const buffer = shared
  let listener: (bytes: Buffer) => void = () => {}
  const duplex = new Socket({
    fd,
    allowHalfOpen: true,
    onread: {
      buffer,
      callback: (count) => {
        listener(buffer.subarray(0, count))
        return true
      },
    },
  })
  duplex.pause()
  return {
    duplex,
    borrowed: true,
    receive: (take) => (listener = take),
    pause: () => void duplex.pause(),
    resume: () => void duplex.resume(),
    send(bytes, done) {
      // The descriptor is this socket's exactly as long as it is not destroyed: it closes it at once when it is.
      if (duplex.destroyed || !duplex.writable || duplex.writableLength > 0) {
        duplex.write(bytes, done)
        return false
      }
      // Negative: the kernel's buffer is full, or the connection broke, which the ordinary way reports.
      const sent = Math.max(0, Number(send(fd, bytes, bytes.length, MSG_DONTWAIT_NOSIGNAL)))
      if (sent === bytes.length) return true
      duplex.write(bytes.subarray(sent), done)
      return false
    },
  }
}

const byDuplex = new WeakMap<Duplex, ByteStream>()

/** The same socket with ordinary `data` events, each a buffer of its own and no larger than what arrived: for receivers of short
 *  messages. Nothing flows before the first listener was added and the caller has returned. */
export function withDataEvents(stream: ByteStream & { readonly duplex: Socket }): Socket {
  byDuplex.set(stream.duplex, stream)
  stream.receive((bytes) => stream.duplex.emit('data', Buffer.from(bytes)))
  queueMicrotask(() => stream.resume())
  return stream.duplex
}

/** `duplex.write`, but past the machinery of streams when `duplex` came from `withDataEvents`. */
export function writeAtOnce(duplex: Duplex, bytes: Buffer): void {
  const stream = byDuplex.get(duplex)
  if (stream === undefined) duplex.write(bytes)
  else stream.send(bytes)
}
