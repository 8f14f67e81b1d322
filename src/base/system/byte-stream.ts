import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'

/* A connection whose arriving bytes go to one listener at a time.
 *
 * Node's `data` events allocate 64 KiB for every read of a socket, however little arrives, and hand it to the garbage
 * collector. On the data path that is a third of all processor time. A socket made from a file descriptor can be
 * given one buffer to read into instead; its bytes are borrowed: they are overwritten by the next read of any socket.
 */
export interface ByteStream {
  /** For writing and for the events end, error, close and drain. Its `data` events belong to this object. */
  readonly duplex: Duplex
  /** Bytes given to the listener are valid only until it returns. */
  readonly borrowed: boolean
  /** Begins paused; the listener of an earlier call gets nothing more. */
  receive(take: (bytes: Buffer) => void): void
  pause(): void
  resume(): void
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
  }
}

/** Larger than what a socket usually has ready, small enough to stay in the processor's cache. One for all sockets: the
 *  kernel fills it and the listener empties it before anything else runs. */
const SHARED_BYTES = 256 * 1024
let shared: Buffer | undefined

/** A connected socket by its descriptor, which it owns from here on. */
export function fromDescriptor(fd: number): ByteStream & { readonly duplex: Socket } {
  shared ??= Buffer.allocUnsafeSlow(SHARED_BYTES)
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
  }
}
