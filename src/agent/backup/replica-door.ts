import { randomBytes } from 'node:crypto'
import { chmod, mkdir, readFile } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { Compile } from 'typebox/compile'
import type { Address } from '#base/config.ts'
import type { Clock } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { writeFileWhole } from '#base/system/files.ts'
import type { ReplicaAdmission, ReplicaAdmitRequest } from '#wire/site/backups.ts'
import {
  BODY_BYTES_MAX,
  decodeHave,
  decodePut,
  encodeWanted,
  EndVolume,
  JSON_BYTES_MAX,
  OpenTransfer,
  REPLICA_PATH,
  TICKET_SCHEME,
  TRANSFER_HEADER,
} from '#wire/replica/messages.ts'
import { NO_REPLICA_DOOR } from './faults.ts'
import { Refusal } from './refusal.ts'
import { Rooms } from './replica-rooms.ts'
import type { RegionVault } from './region-vault.ts'
import { makeTicket, readTicket, type Ticket } from './tickets.ts'

/* Where other regions bring replicas. Whoever comes has no certificate of this installation and needs none: the ticket says what it may do, which is to add one checkpoint.
 *
 *   open ──(ticket)──► transfer ──► have, put ... ──► volume ──► finish ──► checkpoint
 *     ▲                   │ line cut: kept for a while, the next `open` finds it
 *     └───────────────────┘ killed: chunks that are durable are known to the next one
 */

const TICKET_MS = 60 * 60_000
const CONNECTIONS_MAX = 64
const REQUEST_TIMEOUT_MS = 120_000

export interface ReplicaDoorParts {
  readonly directory: string
  readonly vault: RegionVault
  /** undefined: nobody is let in. */
  readonly listen: Address | undefined
  readonly advertiseHost: string
  /** PEM: this agent's certificate, and the authority that the others are told to trust. */
  readonly tls: { readonly ca: string; readonly cert: string; readonly key: string }
  readonly clock: Clock
  readonly log: Log
}

export interface ReplicaDoor {
  admit(request: ReplicaAdmitRequest): Promise<ReplicaAdmission>
  close(): Promise<void>
}

const checkOpen = Compile(OpenTransfer)
const checkEnd = Compile(EndVolume)

export async function openReplicaDoor(parts: ReplicaDoorParts): Promise<ReplicaDoor> {
  const { listen } = parts
  if (listen === undefined) {
    return {
      async admit({ replica }) {
        throw new Fault(NO_REPLICA_DOOR, `admitting replica ${replica}`)
      },
      close: async () => undefined,
    }
  }
  await mkdir(join(parts.directory, 'notes'), { recursive: true, mode: 0o700 })
  const key = await ticketKey(join(parts.directory, 'ticket.key'))
  const rooms = new Rooms(parts)
  const server = await serve(parts, listen, key, rooms)
  const { port } = server.address() as AddressInfo
  const host = parts.advertiseHost.includes(':') ? `[${parts.advertiseHost}]` : parts.advertiseHost
  return {
    async admit({ replica, labels }) {
      const expiresMs = parts.clock.wallMs() + TICKET_MS
      const ticket = makeTicket(key, { replica, labels: labels ?? {}, expiresMs })
      const url = `https://${host}:${port}`
      return { target: { url, authority: parts.tls.ca, ticket }, expires_at: expiresMs }
    },
    async close() {
      await new Promise<void>((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      })
      await rooms.close()
    },
  }
}

async function ticketKey(path: string): Promise<Buffer> {
  const known = await readFile(path).catch(() => undefined)
  if (known?.length === 32) return known
  const fresh = randomBytes(32)
  await writeFileWhole(path, fresh, 0o600)
  await chmod(path, 0o600)
  return fresh
}

// ---------------------------------------------------------------- requests

function serve(
  { tls, log, clock }: ReplicaDoorParts,
  listen: Address,
  key: Buffer,
  rooms: Rooms,
): Promise<Server> {
  const server = createServer(
    {
      cert: tls.cert,
      key: tls.key,
      minVersion: 'TLSv1.3',
      requestTimeout: REQUEST_TIMEOUT_MS,
    },
    (request, response) => {
      const name = (request.url ?? '').startsWith(REPLICA_PATH)
        ? (request.url ?? '').slice(REPLICA_PATH.length)
        : ''
      answer(name, request, key, clock.wallMs(), rooms).then(
        (body) => send(response, 200, body),
        (error: unknown) => {
          const { status, code, text } = refusalOf(error)
          // Headers are not logged: the ticket is one.
          log[status >= 500 ? 'warn' : 'info'](
            { request: name, status, code, text },
            'replica refused',
          )
          send(response, status, { code, text })
        },
      )
    },
  )
  server.maxConnections = CONNECTIONS_MAX
  server.on('tlsClientError', (error) => log.info({ err: error }, 'replica connection refused'))
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(listen.port, listen.host, () => resolve(server))
  })
}

async function answer(
  name: string,
  request: IncomingMessage,
  key: Buffer,
  nowMs: number,
  rooms: Rooms,
): Promise<object | Buffer> {
  if (request.method !== 'POST') throw new Refusal(405, 'NO_SUCH_REQUEST', 'only POST')
  if (name === 'open') {
    const ticket = ticketOf(request, key, nowMs)
    const body: unknown = parse(await read(request, JSON_BYTES_MAX))
    if (!checkOpen.Check(body)) throw new Refusal(400, 'MALFORMED', 'this opens nothing')
    if (body.replica !== ticket.replica) {
      throw new Refusal(401, 'TICKET_REFUSED', 'the ticket is of another replica')
    }
    return await rooms.open(body, ticket)
  }
  const told = request.headers[TRANSFER_HEADER]
  const token = typeof told === 'string' ? told : ''
  // Before a body of megabytes is read for nobody.
  rooms.find(token)
  switch (name) {
    case 'have': {
      const have = decodeHave(await read(request, BODY_BYTES_MAX))
      if (have === undefined) throw new Refusal(400, 'MALFORMED', 'no list of blocks')
      return encodeWanted(
        await rooms.use(token, (transfer) => transfer.have(have.volume, have.blocks)),
      )
    }
    case 'put': {
      const put = decodePut(await read(request, BODY_BYTES_MAX))
      if (put === undefined) throw new Refusal(400, 'MALFORMED', 'no records')
      return { durable_bytes: await rooms.use(token, (transfer) => transfer.put(put)) }
    }
    case 'volume': {
      const end: unknown = parse(await read(request, JSON_BYTES_MAX))
      if (!checkEnd.Check(end)) throw new Refusal(400, 'MALFORMED', 'no volume')
      await rooms.use(token, (transfer) => transfer.endVolume(end.volume))
      return {}
    }
    case 'finish':
      return await rooms.finish(token)
    case 'end':
      await rooms.end(rooms.find(token).replica)
      return {}
    default:
      throw new Refusal(404, 'NO_SUCH_REQUEST', 'there is no such request')
  }
}

function ticketOf(request: IncomingMessage, key: Buffer, nowMs: number): Ticket {
  const [scheme, text = ''] = (request.headers.authorization ?? '').split(' ')
  const ticket = scheme === TICKET_SCHEME ? readTicket(key, text, nowMs) : undefined
  if (ticket === undefined) throw new Refusal(401, 'TICKET_REFUSED', 'unknown, or over')
  return ticket
}

async function read(request: IncomingMessage, bytesMax: number): Promise<Buffer> {
  const parts: Buffer[] = []
  let bytes = 0
  for await (const part of request as AsyncIterable<Buffer>) {
    bytes += part.length
    if (bytes > bytesMax) throw new Refusal(413, 'TOO_LARGE', `more than ${bytesMax} bytes`)
    parts.push(part)
  }
  return Buffer.concat(parts)
}

function parse(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString())
  } catch {
    throw new Refusal(400, 'MALFORMED', 'no JSON')
  }
}

function refusalOf(error: unknown): { status: number; code: string; text: string } {
  if (error instanceof Refusal) {
    return { status: error.status, code: error.code, text: error.message }
  }
  const text = error instanceof Error ? error.message : String(error)
  if (isFault(error)) {
    return { status: error.kind.retry === 'never' ? 409 : 503, code: error.code, text }
  }
  return { status: 503, code: 'INTERNAL', text }
}

function send(response: ServerResponse, status: number, body: object | Buffer): void {
  if (response.destroyed) return
  const bytes = Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body))
  const type = Buffer.isBuffer(body) ? 'application/octet-stream' : 'application/json'
  response.writeHead(status, {
    'content-type': type,
    'content-length': bytes.length,
    // What is left of a body that was refused is not read.
    ...(status === 413 ? { connection: 'close' } : {}),
  })
  response.end(bytes)
}
