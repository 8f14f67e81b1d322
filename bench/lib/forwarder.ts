import type { Socket } from 'node:net'
import koffi from 'koffi'
import { startAcceptor } from '#base/system/acceptor.ts'
import { fromDescriptor, withDataEvents, writeAtOnce } from '#base/system/byte-stream.ts'

/* A link with latency: forwards TCP connections and hands every chunk on after a fixed time, in a process of its own.
 *
 *     forwarder.ts DELAY_MS PORT...      prints the ports where it listens, in the order of the targets
 *
 * Timers of the event loop have whole milliseconds, so while something is on its way the loop naps for at most SLICE_MS at a time. The kernel makes
 * such a nap 0.1 ms long, and a chunk is up to that much late; whoever measures must therefore hold a figure against a ping-pong through the
 * same forwarder, not against the delay asked for. Bytes that arrive end a nap: the time of a chunk counts from its arrival also when
 * another one is on its way, which a ping-pong never sees. Bandwidth is not limited, and nothing is lost. */

const SLICE_MS = 0.04

interface OnItsWay {
  readonly dueMs: number
  readonly to: Socket
  /** null: the other end has ended. */
  readonly chunk: Buffer | null
}

const [delay = '', ...targets] = process.argv.slice(2)
const delayMs = Number(delay)
// Every chunk waits equally long, so they leave in the order in which they came.
const queue: OnItsWay[] = []
let turning = false

// ── The kernel's side ────────────────────────────────────────────────────────────────────────────────────────────────────

const libc = koffi.load(null)
const kernelPoll = libc.func('int ppoll(void *fds, unsigned long count, void *timeout, void *mask)')
const kernelSocket = libc.func('int socket(int family, int type, int protocol)')
const kernelConnect = libc.func('int connect(int fd, void *address, unsigned int length)')

const AF_INET = 2
const SOCK_STREAM = 1
const POLLIN = 1
/** `struct pollfd`: the descriptor, then events and what happened, 16 bits each. */
const POLLFD_BYTES = 8
const OPEN_MAX = 64

/** Sockets that may deliver something, and the same for ppoll. */
const open = new Set<number>()
const polled = Buffer.alloc(OPEN_MAX * POLLFD_BYTES)
const timeout = new BigInt64Array(2)

function listen(fd: number): void {
  open.add(fd)
  list()
}

function deaf(fd: number): void {
  open.delete(fd)
  list()
}

function list(): void {
  if (open.size > OPEN_MAX) throw new Error(`more than ${OPEN_MAX} sockets`)
  let at = 0
  for (const fd of open) {
    polled.writeInt32LE(fd, at)
    polled.writeInt16LE(POLLIN, at + 4)
    at += POLLFD_BYTES
  }
}

/** Sleeps, at most until a socket has something. */
function nap(ms: number): void {
  timeout[1] = BigInt(Math.round(ms * 1e6))
  kernelPoll(polled, open.size, timeout, null)
}

/** To a port of this machine, where connecting does not wait. */
function connected(port: number): number {
  const fd = Number(kernelSocket(AF_INET, SOCK_STREAM, 0))
  const address = Buffer.alloc(16)
  address.writeUInt16LE(AF_INET, 0)
  address.writeUInt16BE(port, 2)
  address.writeUInt32BE(0x7f000001, 4)
  if (fd < 0 || kernelConnect(fd, address, address.length) !== 0) {
    throw new Error(`no connection to port ${port}`)
  }
  return fd
}

// ── Forwarding ───────────────────────────────────────────────────────────────────────────────────────────────────────────

function turn(): void {
  const now = performance.now()
  for (let first = queue[0]; first !== undefined && first.dueMs <= now; first = queue[0]) {
    queue.shift()
    if (first.chunk === null) first.to.end()
    else writeAtOnce(first.to, first.chunk)
  }
  const next = queue[0]
  turning = next !== undefined
  if (next === undefined) return
  nap(Math.max(0, Math.min(SLICE_MS, next.dueMs - performance.now())))
  setImmediate(turn)
}

function send(to: Socket, chunk: Buffer | null): void {
  queue.push({ dueMs: performance.now() + delayMs, to, chunk })
  if (turning) return
  turning = true
  setImmediate(turn)
}

function socketOf(fd: number): Socket {
  const socket = withDataEvents(fromDescriptor(fd))
  socket.setNoDelay(true)
  listen(fd)
  socket.on('end', () => deaf(fd))
  socket.on('close', () => deaf(fd))
  return socket
}

function forward(from: Socket, to: Socket): void {
  from.on('data', (chunk: Buffer) => send(to, chunk))
  from.on('end', () => send(to, null))
  from.on('error', () => to.destroy())
  from.on('close', () => to.destroy())
}

const ports = await Promise.all(
  targets.map(async (target) => {
    const { port } = await startAcceptor({ host: '127.0.0.1', port: 0 }, (fd) => {
      const near = socketOf(fd)
      const far = socketOf(connected(Number(target)))
      forward(near, far)
      forward(far, near)
    })
    return port
  }),
)
console.log(JSON.stringify(ports))
