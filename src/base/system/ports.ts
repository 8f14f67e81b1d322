import { randomInt } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { hasCode } from './files.ts'

/* Choosing TCP ports that are to be used again at every later start. They are taken below the range from which the
 * kernel serves outgoing connections: a port inside it may be busy as someone's local end at the next start. */

const LOWEST = 20_000
const TRIES_MAX = 200

/** `count` different ports that nobody listens on at `host` right now, none of them in `taken`. */
export async function pickPorts(
  host: string,
  count: number,
  taken: readonly number[] = [],
): Promise<number[]> {
  const range = await readFile('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').catch(
    () => '32768',
  )
  const below = Math.max(Number.parseInt(range, 10) || 32_768, LOWEST + 1000)
  const ports: number[] = []
  const held: Server[] = []
  try {
    for (let tries = 0; ports.length < count; tries++) {
      if (tries === TRIES_MAX) throw new Error(`no ${count} free ports found at ${host}`)
      const port = randomInt(LOWEST, below)
      if (taken.includes(port)) continue
      const server = await listen(host, port)
      if (server === undefined) continue
      held.push(server)
      ports.push(port)
    }
    return ports
  } finally {
    await Promise.all(held.map((server) => new Promise((done) => server.close(done))))
  }
}

/** True when `host:port` can be listened on right now. */
export async function isPortFree(host: string, port: number): Promise<boolean> {
  const server = await listen(host, port)
  if (server !== undefined) await new Promise((done) => server.close(done))
  return server !== undefined
}

function listen(host: string, port: number): Promise<Server | undefined> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', (error) => {
      if (hasCode(error, 'EADDRINUSE') || hasCode(error, 'EACCES')) resolve(undefined)
      else reject(error)
    })
    server.listen({ host, port, exclusive: true }, () => resolve(server))
  })
}
