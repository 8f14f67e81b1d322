import { chmod, rm } from 'node:fs/promises'
import { createServer, type ListenOptions, type Server, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { createServer as createTlsServer, type TLSSocket } from 'node:tls'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { Connection } from './connection.ts'
import type { ExportTable, OpenRefusal } from './exports.ts'
import { NBD_LISTEN_FAILED } from './faults.ts'
import { type HandshakeSettings, shakeHands } from './handshake.ts'
import { SlabPool } from './slab.ts'

/* Sockets of the NBD server: a unix socket, guarded by its file permissions, and TCP, guarded by TLS with client certificates
 * unless the operator opted out. What a connection says is understood in `handshake.ts` and `connection.ts`. */

/** Connections of one agent, in all phases. QEMU opens one per disk, bulk copiers four to sixteen. Beyond it, new ones are
 *  closed without a word and a warning is logged. */
const CONNECTIONS_MAX = 512
/** From accept to the opened export, TLS included. Slower clients are closed. */
const HANDSHAKE_MS_MAX = 10_000
/** A dead client's host is noticed by TCP keep-alive after this long without traffic (then nine probes of the kernel). */
const KEEP_ALIVE_MS = 60_000

export interface NbdTlsSettings {
  /** PEM. Clients must show a certificate of this authority unless `clientCertificates` is false. */
  readonly ca: string
  readonly cert: string
  readonly key: string
  readonly clientCertificates?: boolean
}

export interface NbdServerParts {
  readonly exports: ExportTable
  readonly log: Log
  readonly clock: Clock
  /** Says why the holder of a certificate (its common name) may not open an export; undefined: it may. Asked only on TLS
   *  connections with client certificates. Default: whoever the authority certified may open all. */
  readonly mayOpen?: (client: string, exportName: string) => string | undefined
  readonly connectionsMax?: number
  readonly handshakeMsMax?: number
}

export interface Listening {
  /** TCP only: the port that was given, also when 0 was asked for. */
  readonly port: number | undefined
  /** Takes no new connections; the open ones go on. */
  close(): void
}

export class NbdServer {
  readonly #parts: NbdServerParts
  readonly #pool = new SlabPool()
  readonly #open = new Set<Duplex>()
  readonly #listening = new Set<{ readonly server: Server; readonly listening: Listening }>()

  constructor(parts: NbdServerParts) {
    this.#parts = parts
  }

  get connectionCount(): number {
    return this.#open.size
  }

  /** Slabs of 8 MiB that requests hold on to, for metrics and leak tests. */
  get slabsInUse(): number {
    return this.#pool.inUse
  }

  /** Replaces a socket left by a dead process: the caller holds the lock of the agent's directory.
   *  `mode`: permissions of the socket; whoever may write to it may read and write all exports. */
  async listenUnix(path: string, mode = 0o600): Promise<Listening> {
    await rm(path, { force: true })
    const listening = await this.#listen({ path }, NO_TLS)
    await chmod(path, mode)
    return listening
  }

  /** `tls` undefined is the explicit opt-out: whoever reaches the port may read and write all exports. */
  async listenTcp(host: string, port: number, tls: NbdTlsSettings | undefined): Promise<Listening> {
    return this.#listen({ host, port }, tls === undefined ? NO_TLS : tlsUpgrade(tls))
  }

  /** Closes the doors and drops every connection. Requests in flight are carried out. */
  async close(): Promise<void> {
    const closed = [...this.#listening].map(
      ({ server }) => new Promise((resolve) => server.once('close', resolve)),
    )
    for (const one of this.#listening) one.listening.close()
    this.#parts.exports.dropAll('the agent is stopping')
    for (const stream of this.#open) stream.destroy()
    await Promise.all(closed)
  }

  async #listen(where: ListenOptions, upgrade: Upgrade): Promise<Listening> {
    const server = createServer({
      allowHalfOpen: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: KEEP_ALIVE_MS,
    })
    server.on('connection', (socket) => this.#accept(socket, upgrade))
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error) => {
        reject(new Fault(NBD_LISTEN_FAILED, `listening at ${JSON.stringify(where)}`, {}, error))
      })
      server.listen(where, resolve)
    })
    server.on('error', (error) => this.#parts.log.error({ err: error }, 'NBD listener failed'))
    const address = server.address()
    const entry = {
      server,
      listening: {
        port: typeof address === 'object' ? address?.port : undefined,
        close: () => {
          if (this.#listening.delete(entry)) server.close()
        },
      },
    }
    this.#listening.add(entry)
    return entry.listening
  }

  #accept(socket: Socket, upgrade: Upgrade): void {
    const { log, clock, connectionsMax = CONNECTIONS_MAX } = this.#parts
    if (this.#open.size >= connectionsMax) {
      log.warn({ connections: this.#open.size }, 'too many NBD connections, closing a new one')
      socket.destroy()
      return
    }
    this.#open.add(socket)
    socket.on('error', IGNORE) // whoever reads or writes notices; without a listener it would end the process
    socket.once('close', () => this.#open.delete(socket))
    const limitMs = this.#parts.handshakeMsMax ?? HANDSHAKE_MS_MAX
    const cancel = clock.after(limitMs, () => {
      socket.destroy(new Error(`no export opened within ${limitMs} ms`))
    })
    shakeHands(socket, this.#handshakeSettings(upgrade))
      .then((established) => {
        if (established === undefined) return
        const { agreement } = established
        const name = agreement.export.name
        // Between the reply to GO and this turn the export may have lost its authority.
        if (this.#parts.exports.open(name) !== agreement.export) {
          socket.destroy()
          return
        }
        const fields = { export: name, peer: socket.remoteAddress }
        log.info(fields, 'NBD connection opened')
        new Connection({
          ...established,
          pool: this.#pool,
          onClosed: (reason) => {
            log.info({ ...fields, reason }, 'NBD connection closed')
            socket.destroy()
          },
        })
      })
      .catch((error: unknown) => {
        log.info({ peer: socket.remoteAddress, reason: String(error) }, 'NBD handshake failed')
        socket.destroy()
      })
      .finally(cancel)
  }

  #handshakeSettings(upgrade: Upgrade): HandshakeSettings {
    const { exports, mayOpen } = this.#parts
    const refusal = (name: string, client: string | undefined): OpenRefusal | undefined => {
      const reason = client === undefined ? undefined : mayOpen?.(client, name)
      return reason === undefined ? undefined : { refusal: 'policy', reason }
    }
    return {
      tls: upgrade.tls,
      secure: upgrade.secure,
      open: (name, client) => refusal(name, client) ?? exports.open(name),
      names: (client) => exports.names().filter((name) => refusal(name, client) === undefined),
    }
  }
}

interface Upgrade {
  readonly tls: 'none' | 'required'
  readonly secure: HandshakeSettings['secure']
}

const NO_TLS: Upgrade = {
  tls: 'none',
  secure: () => Promise.reject(new Error('TLS is not offered here')),
}

/** One TLS server without a port of its own; connections are handed to it when the client says STARTTLS. It also does
 *  the judging of client certificates, which a bare TLSSocket on the server side does not. */
function tlsUpgrade(settings: NbdTlsSettings): Upgrade {
  const { ca, cert, key, clientCertificates = true } = settings
  const server = createTlsServer({
    ca,
    cert,
    key,
    requestCert: clientCertificates,
    rejectUnauthorized: clientCertificates,
    minVersion: 'TLSv1.2',
    allowHalfOpen: true,
    handshakeTimeout: HANDSHAKE_MS_MAX,
  })
  // The server does not say which raw socket an encrypted one belongs to; its two addresses do.
  const waiting = new Map<string, (secured: TLSSocket) => void>()
  server.on('secureConnection', (secured) => {
    const wake = waiting.get(addressesOf(secured))
    if (wake === undefined) secured.destroy()
    else wake(secured)
  })
  server.on('tlsClientError', (_error, secured) => secured.destroy())
  return {
    tls: 'required',
    secure: (raw) => {
      const socket = raw as Socket
      const addresses = addressesOf(socket)
      return new Promise((resolve, reject) => {
        const onClose = () => {
          waiting.delete(addresses)
          reject(new Error('the TLS handshake failed'))
        }
        socket.once('close', onClose)
        waiting.set(addresses, (secured) => {
          waiting.delete(addresses)
          socket.off('close', onClose)
          secured.on('error', IGNORE)
          const client = clientCertificates ? secured.getPeerCertificate().subject?.CN : undefined
          resolve({ stream: secured, client: Array.isArray(client) ? client[0] : client })
        })
        server.emit('connection', socket)
      })
    },
  }
}

const addressesOf = (socket: Socket): string =>
  `${socket.remoteAddress} ${socket.remotePort} ${socket.localAddress} ${socket.localPort}`

const IGNORE = () => {}
