import { chmodSync, closeSync } from 'node:fs'
import { lookup } from 'node:dns/promises'
import { Worker } from 'node:worker_threads'
import koffi from 'koffi'
import { systemError } from './system-error.ts'

/* Accepting connections as file descriptors.
 *
 * `net.Server` makes sockets that can only be read through `data` events; see byte-stream.ts for what that costs. Sockets made from a
 * descriptor can be read into a buffer of our own, but Node gives no way to accept one. So the listening socket is made through
 * libc, and a thread waits on it and reports what it accepts. Connections are rare, requests are not.
 */

export type ListenAddress =
  | { readonly path: string; readonly mode: number }
  | { readonly host: string; readonly port: number }

export interface Acceptor {
  /** The TCP port, also when 0 was asked for; undefined for a unix socket. */
  readonly port: number | undefined
  /** Nothing is accepted from here on. Resolves when the address is free again. */
  close(): Promise<void>
}

const AF_UNIX = 1
const AF_INET = 2
const AF_INET6 = 10
const STREAM_CLOSE_ON_EXEC = 0o2000001
const SOL_SOCKET = 1
const SO_REUSEADDR = 2
const SHUT_RDWR = 2
/** Connections that wait to be accepted; the kernel lowers it to its own limit. */
const BACKLOG = 511

/** False where there is no libc to call; the caller uses `net.Server` then. */
export function canAccept(): boolean {
  try {
    return library() !== undefined
  } catch {
    return false
  }
}

type Call = (...args: unknown[]) => number
interface Library {
  readonly socket: Call
  readonly bind: Call
  readonly listen: Call
  readonly setsockopt: Call
  readonly getsockname: Call
  readonly shutdown: Call
  readonly inetPton: Call
}
let loaded: Library | undefined

function library(): Library {
  if (loaded !== undefined) return loaded
  const libc = koffi.load(null)
  const call = (prototype: string) => libc.func(prototype) as unknown as Call
  loaded = {
    socket: call('int socket(int domain, int type, int protocol)'),
    bind: call('int bind(int fd, void *address, unsigned int length)'),
    listen: call('int listen(int fd, int backlog)'),
    setsockopt: call('int setsockopt(int fd, int level, int name, void *value, unsigned int size)'),
    getsockname: call('int getsockname(int fd, void *address, void *length)'),
    shutdown: call('int shutdown(int fd, int how)'),
    inetPton: call('int inet_pton(int family, const char *text, void *into)'),
  }
  return loaded
}

function check(call: string, result: number): number {
  if (result >= 0) return result
  throw systemError(call, koffi.errno())
}

/** Listens and hands every connection's descriptor to `onAccept`, which owns it. Rejects with the system's error. A unix
 *  socket's file must not exist; it gets its mode before anybody can connect. */
export async function startAcceptor(
  where: ListenAddress,
  onAccept: (fd: number) => void,
): Promise<Acceptor> {
  const libc = library()
  const { family, bytes } = await socketAddress(where)
  const fd = check('socket', libc.socket(family, STREAM_CLOSE_ON_EXEC, 0))
  try {
    if (family !== AF_UNIX) {
      const on = Buffer.from([1, 0, 0, 0])
      check('setsockopt', libc.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, on, on.length))
    }
    check('bind', libc.bind(fd, bytes, bytes.length))
    if ('mode' in where) chmodSync(where.path, where.mode)
    check('listen', libc.listen(fd, BACKLOG))
  } catch (error) {
    closeSync(fd)
    throw error
  }
  const thread = new Worker(new URL('./acceptor-thread.ts', import.meta.url), {
    workerData: { fd },
    execArgv: [], // flags of the main thread (profiling, input types) are not meant for this one
  })
  // No listener for `error`: an agent whose thread broke takes no clients any more and must not look alive.
  thread.unref()
  let open = true
  thread.on('message', (accepted: number) => (open ? onAccept(accepted) : closeSync(accepted)))
  // The number may be given to another file only when the thread can no longer use it.
  const ended = new Promise<void>((resolve) => {
    thread.once('exit', () => {
      closeSync(fd)
      resolve()
    })
  })
  return {
    port: 'port' in where ? portOf(fd, bytes.length) : undefined,
    close() {
      open = false
      libc.shutdown(fd, SHUT_RDWR)
      return ended
    },
  }
}

async function socketAddress(
  where: ListenAddress,
): Promise<{ readonly family: number; readonly bytes: Buffer }> {
  if ('path' in where) {
    const bytes = Buffer.concat([Buffer.from([AF_UNIX, 0]), Buffer.from(`${where.path}\0`)])
    return { family: AF_UNIX, bytes }
  }
  const { address, family } = await lookup(where.host)
  const bytes = Buffer.alloc(family === 6 ? 28 : 16)
  bytes.writeUInt16LE(family === 6 ? AF_INET6 : AF_INET, 0)
  bytes.writeUInt16BE(where.port, 2)
  const binary = Buffer.alloc(16)
  library().inetPton(family === 6 ? AF_INET6 : AF_INET, address, binary)
  binary.copy(bytes, family === 6 ? 8 : 4, 0, family === 6 ? 16 : 4)
  return { family: family === 6 ? AF_INET6 : AF_INET, bytes }
}

function portOf(fd: number, addressBytes: number): number {
  const address = Buffer.alloc(addressBytes)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(addressBytes)
  check('getsockname', library().getsockname(fd, address, length))
  return address.readUInt16BE(2)
}
