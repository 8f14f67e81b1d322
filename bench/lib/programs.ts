import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, ftruncateSync, closeSync, openSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { createInterface } from 'node:readline'

/* The programs that are measured, each started for one sample or one run and stopped by its handle. */

export interface Program {
  readonly pids: readonly number[]
  stop(): Promise<void>
}

export interface NbdTarget extends Program {
  readonly uri: string
}

const WAIT_MS_MAX = 10_000

/** A free port of the loopback. Somebody else could take it before it is used; then the program fails to start. */
export async function freePort(): Promise<number> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

export function sparseFile(path: string, sizeBytes: number): string {
  const fd = openSync(path, 'w')
  ftruncateSync(fd, sizeBytes)
  closeSync(fd)
  return path
}

/** Starts a program and waits until `ready` holds. What it printed is shown when it ends early. */
export async function start(
  command: string,
  args: readonly string[],
  ready: (child: ChildProcess) => Promise<void>,
): Promise<Program> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let printed = ''
  child.stderr?.on('data', (chunk: Buffer) => (printed += chunk.toString()))
  const exited = once(child, 'exit')
  const early = exited.then(() => {
    throw new Error(`${command} ended at once: ${printed}`)
  })
  early.catch(() => undefined) // later ends are wanted ones
  await Promise.race([ready(child), early])
  child.stdout?.resume()
  const pid = child.pid
  if (pid === undefined) throw new Error(`${command} could not be started`)
  return {
    pids: [pid],
    async stop() {
      child.kill('SIGTERM')
      const timer = setTimeout(() => child.kill('SIGKILL'), 5000)
      await exited
      clearTimeout(timer)
    },
  }
}

export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const endMs = performance.now() + WAIT_MS_MAX
  while (!(await holds())) {
    if (performance.now() > endMs) throw new Error(`waited too long for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

const socketExists = (path: string) => () => until(path, () => existsSync(path))

export const answersAt = (port: number) => () =>
  until(`port ${port}`, async () => {
    const socket = connect(port, '127.0.0.1')
    try {
      await once(socket, 'connect')
      return true
    } catch {
      return false
    } finally {
      socket.destroy()
    }
  })

/** First line on standard output, as JSON. */
export async function firstLine<T>(child: ChildProcess): Promise<T> {
  if (child.stdout === null) throw new Error('no standard output')
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string]
  return JSON.parse(line) as T
}

export const unixUri = (socket: string, name = 'vol') => `nbd+unix:///${name}?socket=${socket}`

export async function nbdkitFile(socket: string, file: string): Promise<NbdTarget> {
  const args = ['-f', '-U', socket, 'file', file]
  return { ...(await start('nbdkit', args, socketExists(socket))), uri: unixUri(socket, '') }
}

export async function nbdkitFileTcp(port: number, file: string): Promise<Program> {
  const args = ['-f', '-i', '127.0.0.1', '-p', String(port), 'file', file]
  return start('nbdkit', args, answersAt(port))
}

export async function qemuNbd(socket: string, file: string): Promise<NbdTarget> {
  const args = ['-f', 'raw', '--cache=writeback', '-k', socket, '-t', '-e', '8', '-x', 'vol', file]
  return { ...(await start('qemu-nbd', args, socketExists(socket))), uri: unixUri(socket) }
}

/** QEMU's synchronous mirror at its best: a raw file exported over a unix socket, each write copied to nbdkit over TCP
 *  before it is acknowledged. */
export async function qemuMirror(paths: {
  readonly socket: string
  readonly qmp: string
  readonly file: string
  readonly copy: string
}): Promise<NbdTarget> {
  const port = await freePort()
  const target = await nbdkitFileTcp(port, paths.copy)
  const daemon = await start(
    'qemu-storage-daemon',
    [
      `--chardev=socket,path=${paths.qmp},server=on,wait=off,id=monitor`,
      '--monitor=chardev=monitor',
      `--blockdev=driver=file,node-name=file,filename=${paths.file}`,
      '--blockdev=driver=raw,node-name=source,file=file',
      `--blockdev=driver=nbd,node-name=target,server.type=inet,server.host=127.0.0.1,server.port=${port},export=`,
      `--nbd-server=addr.type=unix,addr.path=${paths.socket},max-connections=8`,
      // The mirror puts itself between the export and the source, so the export has to be there first.
      '--export=type=nbd,id=export,node-name=source,name=vol,writable=on',
    ],
    socketExists(paths.qmp),
  )
  await qmp(paths.qmp, 'blockdev-mirror', {
    'job-id': 'mirror',
    device: 'source',
    target: 'target',
    sync: 'none',
    'copy-mode': 'write-blocking',
  })
  return {
    uri: unixUri(paths.socket),
    pids: [...daemon.pids, ...target.pids],
    async stop() {
      await daemon.stop()
      await target.stop()
    },
  }
}

async function qmp(path: string, execute: string, args: object): Promise<void> {
  const socket = connect(path)
  try {
    await once(socket, 'connect')
    const lines = createInterface(socket)[Symbol.asyncIterator]()
    const ask = async (command: object) => {
      socket.write(`${JSON.stringify(command)}\n`)
      for (;;) {
        const { value, done } = await lines.next()
        if (done === true) throw new Error('QMP ended')
        const answer = JSON.parse(value) as { return?: unknown; error?: { desc: string } }
        if (answer.error !== undefined) throw new Error(`${execute}: ${answer.error.desc}`)
        if ('return' in answer) return
      }
    }
    await lines.next() // greeting
    await ask({ execute: 'qmp_capabilities' })
    await ask({ execute, arguments: args })
  } finally {
    socket.destroy()
  }
}
