import { randomBytes } from 'node:crypto'
import { chmod, mkdir, readdir, readFile, rm, stat } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { Compile } from 'typebox/compile'
import type { Address } from '#base/config.ts'
import type { Clock } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { readTextIfPresent, writeFileWhole } from '#base/system/files.ts'
import type { DataKey } from '#vault/keys/keyring.ts'
import type { Vault } from '#vault/vault.ts'
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
  type TransferFinished,
  type TransferOpened,
} from '#wire/replica/messages.ts'
import { OWNER_LABEL } from './backups.ts'
import { NO_REPLICA_DOOR } from './faults.ts'
import { IncomingTransfer } from './incoming-transfer.ts'
import { Refusal } from './refusal.ts'
import type { RegionVault } from './region-vault.ts'
import { makeTicket, readTicket, type Ticket } from './tickets.ts'

/* Where other regions bring replicas. Whoever comes has no certificate of this installation and needs none: the ticket says what it may do, which is to add one checkpoint.
 *
 *   open ──(ticket)──► transfer ──► have, put ... ──► volume ──► finish ──► checkpoint
 *     ▲                   │ line cut: kept for a while, the next `open` finds it
 *     └───────────────────┘ killed: chunks that are durable are known to the next one
 */

const TICKET_MS = 60 * 60_000
/** Transfers at a time: each is a backup session, with its memory. */
const TRANSFERS_MAX = 2
/** A transfer of which nothing was heard for so long keeps what it has and ends. */
const IDLE_MS = 5 * 60_000
const CONNECTIONS_MAX = 64
const REQUEST_TIMEOUT_MS = 120_000
/** Notes of replicas that came in. */
const NOTES_MAX = 1000
/** The label of a replica: vault and checkpoint that it is a copy of. */
export const REPLICA_OF_LABEL = 'replica_of'

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

interface Note {
  /** Session of the vault, and so id of the checkpoint, of the transfer that was open last. */
  readonly attempt: string
}

interface Open {
  readonly transfer: IncomingTransfer
  /** What it was opened for. An attempt that asks for anything else begins anew: what one base implies, another does not. */
  readonly purpose: string
  cancelIdle: () => void
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
  const token = request.headers[TRANSFER_HEADER]
  const room = rooms.find(typeof token === 'string' ? token : '')
  switch (name) {
    case 'have': {
      const have = decodeHave(await read(request, BODY_BYTES_MAX))
      if (have === undefined) throw new Refusal(400, 'MALFORMED', 'no list of blocks')
      return encodeWanted(await room.transfer.have(have.volume, have.blocks))
    }
    case 'put': {
      const put = decodePut(await read(request, BODY_BYTES_MAX))
      if (put === undefined) throw new Refusal(400, 'MALFORMED', 'no records')
      return { durable_bytes: await room.transfer.put(put) }
    }
    case 'volume': {
      const end: unknown = parse(await read(request, JSON_BYTES_MAX))
      if (!checkEnd.Check(end)) throw new Refusal(400, 'MALFORMED', 'no volume')
      await room.transfer.endVolume(end.volume)
      return {}
    }
    case 'finish':
      return await rooms.finish(room.replica)
    case 'end':
      await rooms.end(room.replica)
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

// ---------------------------------------------------------------- transfers

/** The transfers that are open, by replica. */
class Rooms {
  readonly #parts: ReplicaDoorParts
  readonly #open = new Map<string, Open>()
  #opening: Promise<unknown> = Promise.resolve()

  constructor(parts: ReplicaDoorParts) {
    this.#parts = parts
  }

  open(request: OpenTransfer, ticket: Ticket): Promise<TransferOpened> {
    const work = () => this.#openOne(request, ticket)
    const result = this.#opening.then(work, work)
    this.#opening = result.catch(() => undefined)
    return result
  }

  async #openOne(request: OpenTransfer, ticket: Ticket): Promise<TransferOpened> {
    const { replica } = request
    const vault = await this.#parts.vault.open()
    const found = this.#open.get(replica)
    const same = found?.purpose === purposeOf(request)
    if (found !== undefined && !same) await this.end(replica)
    const known = same ? found : undefined
    if (known !== undefined) {
      await known.transfer.reopen()
      // It was finished, or ended, while this waited for it.
      if (this.#open.get(replica) !== known) return await this.#openOne(request, ticket)
    } else {
      const done = await this.#committed(vault, replica)
      if (done !== undefined) return { state: 'done', checkpoint: done }
      if (this.#open.size >= TRANSFERS_MAX) {
        throw new Refusal(503, 'TRANSFER_BUSY', `${TRANSFERS_MAX} replicas are coming in`)
      }
    }
    const room = known ?? (await this.#begin(vault, request, ticket))
    this.#open.set(replica, room)
    this.#heard(replica, room)
    const { token, session, based, volumesDone } = room.transfer
    return { state: 'open', transfer: token, session, based, volumes_done: volumesDone }
  }

  /** Throws a Refusal when there is none of this token. */
  find(token: string): { readonly replica: string; readonly transfer: IncomingTransfer } {
    for (const [replica, room] of this.#open) {
      if (room.transfer.token !== token) continue
      this.#heard(replica, room)
      return { replica, transfer: room.transfer }
    }
    throw new Refusal(410, 'TRANSFER_BUSY', 'this transfer has ended or was taken over')
  }

  #heard(replica: string, room: Open): void {
    room.cancelIdle()
    room.cancelIdle = this.#parts.clock.after(IDLE_MS, () => void this.end(replica))
  }

  async finish(replica: string): Promise<TransferFinished> {
    const room = this.#open.get(replica)
    if (room === undefined) throw new Refusal(410, 'TRANSFER_BUSY', 'this transfer has ended')
    const { log } = this.#parts
    const { id, storedBytes } = await room.transfer.finish()
    room.cancelIdle()
    this.#open.delete(replica)
    log.info({ replica, checkpoint: id, bytes: storedBytes }, 'a replica has come in')
    return { checkpoint: id, arrived_bytes: room.transfer.arrivedBytes }
  }

  async end(replica: string): Promise<void> {
    const room = this.#open.get(replica)
    if (room === undefined) return
    this.#open.delete(replica)
    room.cancelIdle()
    try {
      await room.transfer.close()
    } catch (error) {
      this.#parts.log.warn({ replica, err: error }, 'a transfer could not be ended')
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.#open.keys()].map((replica) => this.end(replica)))
  }

  async #begin(vault: Vault, request: OpenTransfer, ticket: Ticket): Promise<Open> {
    const transfer = await begin(vault, request, ticket)
    await this.#note(request.replica, { attempt: transfer.session })
    return { transfer, purpose: purposeOf(request), cancelIdle: () => {} }
  }

  /** The checkpoint of a transfer that is not open any more; if it came to none, it never will. */
  async #committed(vault: Vault, replica: string): Promise<string | undefined> {
    const text = await readTextIfPresent(this.#noteOf(replica))
    if (text === undefined) return undefined
    const { attempt } = JSON.parse(text) as Note
    return (await vault.revoke(attempt)) ? undefined : attempt
  }

  async #note(replica: string, note: Note): Promise<void> {
    await writeFileWhole(this.#noteOf(replica), `${JSON.stringify(note)}\n`, 0o600)
    const directory = join(this.#parts.directory, 'notes')
    const names = (await readdir(directory)).filter((name) => name.endsWith('.json'))
    if (names.length <= NOTES_MAX) return
    const aged = await Promise.all(
      names.map(async (name) => ({ name, ms: (await stat(join(directory, name))).mtimeMs })),
    )
    const old = aged.toSorted((a, b) => b.ms - a.ms).slice(NOTES_MAX)
    for (const { name } of old) await rm(join(directory, name), { force: true })
  }

  #noteOf(replica: string): string {
    return join(this.#parts.directory, 'notes', `${replica}.json`)
  }
}

async function begin(
  vault: Vault,
  request: OpenTransfer,
  ticket: Ticket,
): Promise<IncomingTransfer> {
  const blockBytes = vault.header.block_bytes
  if (request.block_bytes !== blockBytes) {
    throw new Refusal(409, 'BLOCK_SIZE', `blocks here have ${blockBytes} bytes`)
  }
  const dataKey = await adopted(vault, request.data_key)
  const { [OWNER_LABEL]: _, ...labels } = request.labels
  const volumes = request.volumes.map(({ id, size_bytes }) => ({ id, sizeBytes: size_bytes }))
  const parent = await baseOf(vault, request, ticket)
  const session = await vault.begin({
    dataKey,
    labels: {
      ...labels,
      ...ticket.labels,
      [REPLICA_OF_LABEL]: `${request.vault}/${request.checkpoint}`,
    },
    createdMs: request.created_ms,
    inlineBatches: 0,
    threads: 1,
    ...(parent === undefined ? {} : { parent }),
  })
  return new IncomingTransfer({ session, blockBytes, volumes, based: parent !== undefined })
}

/** The source's key, wrapped by our own master key from now on. It must not be able to pass for ours: then it would know what our backups are encrypted with. */
async function adopted(vault: Vault, told: OpenTransfer['data_key']): Promise<DataKey> {
  const key: DataKey = {
    id: Buffer.from(told.id, 'hex'),
    secret: Buffer.from(told.secret, 'base64'),
    naming: Buffer.from(told.naming, 'base64'),
    generation: told.generation,
    origin: told.origin,
  }
  const find = () => vault.dataKeys().find(({ id }) => id.equals(key.id))
  if (find() === undefined) {
    if (key.origin === vault.header.id) {
      throw new Refusal(409, 'KEY_REFUSED', 'this vault has no such key')
    }
    await vault.adoptDataKeys([key])
  }
  const known = find()
  if (known?.secret.equals(key.secret) !== true || !known.naming.equals(key.naming)) {
    throw new Refusal(409, 'KEY_REFUSED', 'another key has this id')
  }
  return known
}

const purposeOf = ({ vault, checkpoint, base, volumes, data_key }: OpenTransfer): string =>
  JSON.stringify([
    vault,
    checkpoint,
    base === null ? null : [base.checkpoint, base.replica_checkpoint],
    volumes.map(({ id, size_bytes }) => [id, size_bytes]),
    data_key.id,
  ])

/** The checkpoint to build on, when it is here, of the same volumes, a replica of what the source says, and of the same owner. */
async function baseOf(
  vault: Vault,
  request: OpenTransfer,
  ticket: Ticket,
): Promise<string | undefined> {
  if (request.base === null) return undefined
  try {
    const { manifest } = await vault.checkpoint(request.base.replica_checkpoint)
    const isOf = manifest.labels[REPLICA_OF_LABEL] === `${request.vault}/${request.base.checkpoint}`
    const fits = request.volumes.every(({ id, size_bytes }) => {
      const before = manifest.volumes.find((one) => one.id === id)
      return before === undefined || before.sizeBytes <= size_bytes
    })
    const ours = manifest.labels[OWNER_LABEL] === ticket.labels[OWNER_LABEL]
    return isOf && fits && ours ? manifest.id : undefined
  } catch (error) {
    if (isFault(error)) return undefined
    throw error
  }
}
