import { fork } from 'node:child_process'
import { randomFillSync } from 'node:crypto'
import { once } from 'node:events'
import { type FileHandle, open, rm } from 'node:fs/promises'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { createServer as createTlsServer } from 'node:tls'
import { cannotClone, cloneFile } from '#base/system/clone.ts'
import type { Into } from './sink.ts'

/* What this machine can do without us, in the same run: what a bound is made of. */

const MIB = 1024 * 1024
/** As large as one step of a copy. */
const CHUNK_BYTES = 512 * 1024

export interface LinkTls {
  readonly ca: string
  readonly cert: string
  readonly key: string
}

/** Bytes per second through one TCP connection between two Node processes over the loopback, encrypted or not. Nothing is done at either end, or, with `into`,
 *  nothing but writing it to a file at the far one, until all of it is durable. */
export async function streamBytesPerSecond(
  totalBytes: number,
  tls?: LinkTls,
  into?: Into,
): Promise<number> {
  const server: Server =
    tls === undefined
      ? createServer({ noDelay: true })
      : createTlsServer({ ...tls, noDelay: true, requestCert: true })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  const sink = fork(join(import.meta.dirname, 'sink.ts'), [JSON.stringify({ port, tls, into })], {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  })
  const took = once(sink, 'message') as Promise<[number]>
  const [socket] = (await once(server, tls === undefined ? 'connection' : 'secureConnection')) as [
    Socket,
  ]
  const chunk = randomFillSync(Buffer.alloc(CHUNK_BYTES))
  const began = performance.now()
  for (let sent = 0; sent < totalBytes; sent += chunk.length) {
    if (!socket.write(chunk)) await once(socket, 'drain')
  }
  socket.end()
  const [bytes] = await took
  const seconds = (performance.now() - began) / 1000
  server.close()
  if (bytes < totalBytes) throw new Error(`only ${bytes} bytes came through`)
  return bytes / seconds
}

export interface DiskRates {
  /** Into a new file. */
  readonly fresh: number
  /** Over blocks that are allocated. */
  readonly over: number
  /** The same, when what they held must not be lost: over a file that was cloned right before; where that cannot be done, each stretch of
   *  PRESERVED_BYTES is read, written to another file and made durable there before it is overwritten. */
  readonly keeping: number
}

/** What one step of a kept copy preserves at a time. */
const PRESERVED_BYTES = 8 * MIB

/** Bytes per second of sequential writes of `totalBytes` and one fdatasync at their end, in a file of its own in `directory`. */
export async function diskBytesPerSecond(
  directory: string,
  totalBytes: number,
): Promise<DiskRates> {
  const path = join(directory, 'disk-rate')
  const file = await open(path, 'w+')
  const chunk = randomFillSync(Buffer.alloc(MIB))
  const pass = async (before: (at: number) => Promise<void> = noop): Promise<number> => {
    const began = performance.now()
    for (let at = 0; at < totalBytes; at += chunk.length) {
      await before(at)
      await file.write(chunk, 0, MIB, at)
    }
    await file.datasync()
    return totalBytes / ((performance.now() - began) / 1000)
  }
  const keptPath = `${path}-kept`
  const kept = await open(keptPath, 'w+')
  try {
    const fresh = await pass()
    const over = await pass()
    const preserves = !(await clone(kept, file))
    const keeping = await pass(preserves ? preserving(file, kept) : noop)
    return { fresh, over, keeping }
  } finally {
    await Promise.all([file.close(), kept.close()])
    await Promise.all([rm(path), rm(keptPath)])
  }
}

/** Link and disk at one time: bytes per second of a stream that a program at its end, which does nothing else, writes to a file in `directory`. */
export interface TogetherRates {
  readonly fresh: number
  /** As of `DiskRates`. */
  readonly keeping: number
}

export async function togetherBytesPerSecond(
  directory: string,
  totalBytes: number,
  tls?: LinkTls,
): Promise<TogetherRates> {
  const path = join(directory, 'together-rate')
  const keptPath = `${path}-kept`
  const fresh = await streamBytesPerSecond(totalBytes, tls, { path })
  const file = await open(path, 'r+')
  const kept = await open(keptPath, 'w+')
  try {
    const into = (await clone(kept, file)) ? { path } : { path, kept: keptPath }
    return { fresh, keeping: await streamBytesPerSecond(totalBytes, tls, into) }
  } finally {
    await Promise.all([file.close(), kept.close()])
    await Promise.all([rm(path), rm(keptPath)])
  }
}

const noop = (): Promise<void> => Promise.resolve()

async function clone(target: FileHandle, source: FileHandle): Promise<boolean> {
  try {
    await cloneFile(target.fd, source.fd)
    return true
  } catch (error) {
    if (cannotClone(error)) return false
    throw error
  }
}

/** To be called before each write, in order: at the beginning of a stretch it preserves all of it. */
function preserving(file: FileHandle, kept: FileHandle): (at: number) => Promise<void> {
  const stretch = Buffer.alloc(PRESERVED_BYTES)
  return async (at) => {
    if (at % PRESERVED_BYTES !== 0) return
    const { bytesRead } = await file.read(stretch, 0, PRESERVED_BYTES, at)
    await kept.write(stretch, 0, bytesRead, at)
    await kept.datasync()
  }
}

export interface PingPong {
  /** Microseconds that 32 bytes take there and back. One at a time. */
  once(): Promise<number>
  /** Each of `count`, one after the other. */
  times(count: number): Promise<number[]>
  end(): void
}

/** Over one connection to this port of this machine, whose other end must echo. */
export async function pingPong(port: number): Promise<PingPong> {
  const socket = connect({ host: '127.0.0.1', port, noDelay: true })
  await once(socket, 'connect')
  const ping = Buffer.alloc(32)
  const one = async (): Promise<number> => {
    const began = performance.now()
    socket.write(ping)
    await once(socket, 'data')
    return (performance.now() - began) * 1000
  }
  return {
    once: one,
    async times(count) {
      const times: number[] = []
      while (times.length < count) times.push(await one())
      return times
    },
    end: () => socket.destroy(),
  }
}
