import { rm } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { Fault, fault } from '../fault.ts'
import { hasCode, SOCKET_PATH_BYTES_MAX } from './files.ts'

/* A door: a unix socket at which a running process takes requests from the same user's other commands. One JSON line
 * asks, one JSON line answers, then the connection ends. File permissions decide who may knock. */

export const NOBODY_THERE = fault({
  code: 'NOBODY_THERE',
  retry: 'later',
  text: 'No process answers there.',
  hint: 'Check the directory, or start the system with `holdfast up --data DIR`.',
})

export const PATH_TOO_LONG = fault({
  code: 'PATH_TOO_LONG',
  retry: 'never',
  text: `A unix socket's path has at most ${SOCKET_PATH_BYTES_MAX} bytes.`,
  hint: 'Choose a directory with a shorter path.',
})

/** Refuses with PATH_TOO_LONG what the kernel would cut off or refuse. */
export function checkSocketPath(path: string): void {
  const bytes = Buffer.byteLength(path)
  if (bytes > SOCKET_PATH_BYTES_MAX) {
    throw new Fault(PATH_TOO_LONG, `${path} has ${bytes} bytes`, { path, bytes })
  }
}

const REQUEST_BYTES_MAX = 64 * 1024

/**
 * Opens a door at `path`, replacing a socket that a dead process left. The caller holds a lock that makes sure
 * that no living one is replaced. `answer` may throw: that is sent as `{"error": text, "code": code}`.
 */
export async function openDoor(
  path: string,
  answer: (request: unknown) => Promise<unknown>,
): Promise<{ close(): Promise<void> }> {
  checkSocketPath(path)
  await rm(path, { force: true })
  const visitors = new Set<Socket>()
  const server = createServer((socket) => {
    visitors.add(socket)
    socket.once('close', () => visitors.delete(socket))
    socket.on('error', () => socket.destroy())
    readLine(socket)
      .then(async (line) => await answer(JSON.parse(line)))
      .catch(describeError)
      .then((reply) => socket.end(`${JSON.stringify(reply)}\n`))
      .catch(() => socket.destroy())
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen({ path, readableAll: false, writableAll: false }, resolve)
  })
  return {
    close: () =>
      new Promise((resolve) => {
        for (const socket of visitors) socket.destroy()
        server.close(() => resolve())
      }),
  }
}

function describeError(error: unknown): object {
  if (error instanceof Fault) {
    return { error: error.message.slice(error.code.length + 2), code: error.code }
  }
  return { error: error instanceof Error ? error.message : String(error), code: 'INTERNAL' }
}

/** Asks at a door. Throws Fault NOBODY_THERE when no process listens. */
export async function knock(path: string, request: unknown): Promise<unknown> {
  checkSocketPath(path)
  const socket = connect(path)
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve)
      socket.once('error', reject)
    })
    socket.write(`${JSON.stringify(request)}\n`)
    return JSON.parse(await readLine(socket)) as unknown
  } catch (error) {
    if (hasCode(error, 'ENOENT') || hasCode(error, 'ECONNREFUSED')) {
      throw new Fault(NOBODY_THERE, `asking at ${path}`, { path }, error)
    }
    throw error
  } finally {
    socket.destroy()
  }
}

function readLine(socket: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = ''
    socket.setEncoding('utf8')
    socket.on('data', (chunk: string) => {
      text += chunk
      const end = text.indexOf('\n')
      if (end >= 0) resolve(text.slice(0, end))
      else if (text.length > REQUEST_BYTES_MAX) reject(new Error('the request is too long'))
    })
    socket.once('error', reject)
    socket.once('close', () => reject(new Error('the other side hung up without an answer')))
  })
}
