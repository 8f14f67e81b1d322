import { constants } from 'node:os'
import koffi from 'koffi'

/* Unix datagram sockets, which Node has no interface to. Every call here is one system call of one or two microseconds and never waits,
 * except `poll`.
 *
 * Why these and not UDP: a socket file has permissions, so that no other user of the host can put frames into a guest; there are no
 * ports to run out of or to be taken by others; and a sender whose receiver's queue is full is told so, instead of losing the frame. */

const AF_UNIX = 1
const SOCK_DGRAM = 2
const CLOSE_ON_EXEC_NON_BLOCKING = 0o2004000
/** Never waits; no signal when the other side is gone. */
const MSG_DONTWAIT_NOSIGNAL = 0x4040
const MSG_DONTWAIT = 0x40
/** `recv` tells the whole length of what it had to cut. */
const MSG_TRUNC = 0x20
const { EAGAIN, EINTR, ENOBUFS, EMSGSIZE } = constants.errno

export const POLL_IN = 1
export const POLL_OUT = 4
export const POLL_ENTRY_BYTES = 8

/** Longest path of a unix socket on Linux. */
export const SOCKET_PATH_BYTES_MAX = 107

type Call<A extends unknown[]> = (...args: A) => number | bigint
interface Calls {
  readonly socket: Call<[domain: number, type: number, protocol: number]>
  readonly bind: Call<[fd: number, address: Buffer, length: number]>
  readonly connect: Call<[fd: number, address: Buffer, length: number]>
  readonly recv: Call<[fd: number, bytes: Buffer, length: number, flags: number]>
  readonly send: Call<[fd: number, bytes: Buffer, length: number, flags: number]>
  readonly poll: Call<[entries: Buffer, count: number, timeoutMs: number]>
  readonly close: Call<[fd: number]>
}

let loaded: Calls | undefined

function calls(): Calls {
  if (loaded !== undefined) return loaded
  const libc = koffi.load(null)
  const bound = (declaration: string) => libc.func(declaration) as unknown
  loaded = {
    socket: bound('int socket(int domain, int type, int protocol)') as Calls['socket'],
    bind: bound('int bind(int fd, void *address, uint32_t length)') as Calls['bind'],
    connect: bound('int connect(int fd, void *address, uint32_t length)') as Calls['connect'],
    recv: bound('int64_t recv(int fd, void *bytes, size_t length, int flags)') as Calls['recv'],
    send: bound('int64_t send(int fd, void *bytes, size_t length, int flags)') as Calls['send'],
    poll: bound('int poll(void *entries, unsigned long count, int timeoutMs)') as Calls['poll'],
    close: bound('int close(int fd)') as Calls['close'],
  }
  return loaded
}

/** Takes datagrams at a path. Whoever may write to the socket file may send, so the folder's permissions are the lock. */
export class Inlet {
  readonly fd: number

  /** The path must be free: see `rm` at the callers. Throws what the system says. */
  constructor(path: string) {
    this.fd = open()
    const address = addressOf(path)
    if (calls().bind(this.fd, address, address.length) !== 0) throw failed('bind', path, this.fd)
  }

  /** Bytes of the next datagram, more than `into` holds when it was cut; -1: there is none. */
  receive(into: Buffer): number {
    for (;;) {
      const length = Number(calls().recv(this.fd, into, into.length, MSG_DONTWAIT | MSG_TRUNC))
      if (length >= 0) return length
      if (koffi.errno() !== EINTR) return -1
    }
  }

  close(): void {
    calls().close(this.fd)
  }
}

/** sent · full: the receiver's queue is; its descriptor is ready to write when that is over · away: nobody is there */
export type Sent = 'sent' | 'full' | 'away'

/**
 * Sends to whoever is bound to a path: connects by itself, again after the receiver was replaced. A descriptor apart from the inlet's, since a
 * connected datagram socket takes datagrams of its peer only, and only of a connected one the kernel tells when the peer has room again.
 */
export class Outlet {
  readonly fd: number
  readonly #address: Buffer
  #connected = false

  constructor(path: string) {
    this.fd = open()
    this.#address = addressOf(path)
  }

  send(bytes: Buffer): Sent {
    if (!this.#connected && !this.#connect()) return 'away'
    const first = this.#once(bytes)
    if (first !== 'away') return first
    // The receiver that we knew is gone; there may be a new one at the same path.
    return this.#connect() ? this.#once(bytes) : 'away'
  }

  #once(bytes: Buffer): Sent {
    for (;;) {
      if (Number(calls().send(this.fd, bytes, bytes.length, MSG_DONTWAIT_NOSIGNAL)) >= 0) {
        return 'sent'
      }
      const errno = koffi.errno()
      if (errno === EAGAIN) return 'full'
      // No memory in the kernel: lost, as on any network.
      if (errno === ENOBUFS || errno === EMSGSIZE) return 'sent'
      if (errno !== EINTR) return 'away'
    }
  }

  #connect(): boolean {
    this.#connected = Number(calls().connect(this.fd, this.#address, this.#address.length)) === 0
    return this.#connected
  }

  close(): void {
    calls().close(this.fd)
  }
}

/** Waits until one of `count` entries (see `setPollEntry`) is ready, at most `timeoutMs`. The number of ready ones. */
export function poll(entries: Buffer, count: number, timeoutMs: number): number {
  // Interrupted counts as nothing ready: every caller polls again.
  return Math.max(0, Number(calls().poll(entries, count, timeoutMs)))
}

/** `fd` -1: an entry that is never ready. */
export function setPollEntry(entries: Buffer, index: number, fd: number, events: number): void {
  const at = index * POLL_ENTRY_BYTES
  entries.writeInt32LE(fd, at)
  entries.writeInt16LE(events, at + 4)
  entries.writeInt16LE(0, at + 6)
}

export const isReady = (entries: Buffer, index: number): boolean =>
  entries.readInt16LE(index * POLL_ENTRY_BYTES + 6) !== 0

function open(): number {
  const fd = Number(calls().socket(AF_UNIX, SOCK_DGRAM | CLOSE_ON_EXEC_NON_BLOCKING, 0))
  if (fd < 0) throw failed('socket', '')
  return fd
}

/** A `struct sockaddr_un`, path and its ending zero only. */
function addressOf(path: string): Buffer {
  const name = Buffer.from(path)
  const address = Buffer.alloc(2 + name.length + 1)
  address.writeUInt16LE(AF_UNIX, 0)
  address.set(name, 2)
  return address
}

function failed(call: string, path: string, fd?: number): Error {
  const errno = koffi.errno()
  if (fd !== undefined) calls().close(fd)
  const code = Object.entries(constants.errno).find(([, value]) => value === errno)?.[0]
  return Object.assign(new Error(`${code ?? errno}: ${call} ${path}`), { code, errno: -errno })
}
