import { closeSync, fdatasyncSync, openSync, writeSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { once } from 'node:events'
import { fork } from 'node:child_process'
import { join } from 'node:path'
import { median } from './machine.ts'

/* The two numbers of physics that the latency of a durable replicated write is judged by. */

/** Median microseconds of a 4 KiB write and fdatasync on a file of 16 MiB that is already allocated, one right behind the other. */
export function fdatasyncUs(path: string): number {
  const fd = openSync(path, 'r+')
  const times = Array.from({ length: 500 }, (_, i) => writtenUs(fd, i))
  closeSync(fd)
  return median(times)
}

/** The same `count` times, each after `pause` has resolved. */
export async function fdatasyncAfterUs(
  path: string,
  count: number,
  pause: () => Promise<unknown>,
): Promise<number> {
  const fd = openSync(path, 'r+')
  const times: number[] = []
  for (let i = 0; i < count; i++) {
    await pause()
    times.push(writtenUs(fd, i))
  }
  closeSync(fd)
  return median(times)
}

const BLOCK = Buffer.alloc(4096, 1)

function writtenUs(fd: number, i: number): number {
  const began = performance.now()
  writeSync(fd, BLOCK, 0, BLOCK.length, ((i * 7919) % 4096) * 4096)
  fdatasyncSync(fd)
  return (performance.now() - began) * 1000
}

/** Median microseconds of 32 bytes there and back over TCP loopback between two Node processes. */
export async function roundTripUs(): Promise<number> {
  const child = fork(join(import.meta.dirname, 'echo.ts'), {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  })
  const [port] = (await once(child, 'message')) as [number]
  const socket = connect({ host: '127.0.0.1', port, noDelay: true })
  await once(socket, 'connect')
  const ping = Buffer.alloc(32)
  const times: number[] = []
  for (let i = 0; i < 2000; i++) {
    const began = performance.now()
    socket.write(ping)
    await once(socket, 'data')
    times.push((performance.now() - began) * 1000)
  }
  socket.destroy()
  child.kill()
  return median(times)
}

/** The other end of `roundTripUs`. */
export function echo(ready: (port: number) => void): void {
  const server = createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => socket.destroy())
    socket.pipe(socket)
  })
  server.listen(0, '127.0.0.1', () => {
    const address = server.address()
    if (typeof address === 'object' && address !== null) ready(address.port)
  })
}
