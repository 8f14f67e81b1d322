import { rm } from 'node:fs/promises'
import type { Socket } from 'node:net'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import type { ListenAddress } from '#base/system/acceptor.ts'
import { MemoryBudget } from './budget.ts'
import { Connection } from './connection.ts'
import type { ExportTable, OpenRefusal } from './exports.ts'
import { type HandshakeSettings, shakeHands } from './handshake.ts'
import { type Arrival, type Door, openDoorAt } from './listen.ts'
import { ReceiveSlabs } from './receive-slabs.ts'
import { type NbdTlsSettings, NO_TLS, tlsUpgrade, type Upgrade } from './tls.ts'

/* Sockets of the NBD server: a unix socket, guarded by its file permissions, and TCP, guarded by TLS with client certificates
 * unless the operator opted out. What a connection says is understood in `handshake.ts` and `connection.ts`. */

/** Connections of one agent, in all phases. QEMU opens one per disk, bulk copiers four to sixteen. Beyond it, new ones are
 *  closed without a word and a warning is logged. */
const CONNECTIONS_MAX = 512
/** From accept to the opened export, TLS included. Slower clients are closed. */
const HANDSHAKE_MS_MAX = 10_000
export interface NbdServerParts {
  readonly exports: ExportTable
  readonly log: Log
  readonly clock: Clock
  /** Says why the holder of a certificate (its common name) may not open an export; undefined: it may. Asked only on TLS
   *  connections with client certificates. Default: whoever the authority certified may open all. */
  readonly mayOpen?: (client: string, exportName: string) => string | undefined
  readonly connectionsMax?: number
  readonly handshakeMsMax?: number
  /** Memory for the requests of all connections, bytes; default and least value: budget.ts. */
  readonly memoryBytes?: number
}

export type { Door as Listening } from './listen.ts'

export class NbdServer {
  readonly #parts: NbdServerParts
  readonly #slabs = new ReceiveSlabs()
  readonly #budget: MemoryBudget
  readonly #open = new Set<Socket>()
  readonly #doors = new Set<Door>()

  constructor(parts: NbdServerParts) {
    this.#parts = parts
    this.#budget = new MemoryBudget(parts.memoryBytes)
  }

  get connectionCount(): number {
    return this.#open.size
  }

  /** Bytes of requests in memory, over all connections. */
  get memoryUsed(): number {
    return this.#budget.used
  }

  /** Slabs that connections and requests hold on to, for metrics and leak tests. */
  get slabsInUse(): number {
    return this.#slabs.inUse
  }

  /** Slabs that were allocated so far. */
  get slabsMade(): number {
    return this.#slabs.made
  }

  /** Replaces a socket left by a dead process: the caller holds the lock of the agent's directory.
   *  `mode`: permissions of the socket; whoever may write to it may read and write all exports. */
  async listenUnix(path: string, mode = 0o600): Promise<Door> {
    await rm(path, { force: true })
    return this.#listen({ path, mode }, NO_TLS)
  }

  /** `tls` undefined is the explicit opt-out: whoever reaches the port may read and write all exports. */
  async listenTcp(host: string, port: number, tls: NbdTlsSettings | undefined): Promise<Door> {
    return this.#listen(
      { host, port },
      tls === undefined ? NO_TLS : tlsUpgrade(tls, HANDSHAKE_MS_MAX),
    )
  }

  /** Closes the doors and drops every connection. Requests in flight are carried out. */
  async close(): Promise<void> {
    const closed = [...this.#doors].map((door) => door.close())
    this.#doors.clear()
    this.#parts.exports.dropAll('the agent is stopping')
    for (const socket of this.#open) socket.destroy()
    await Promise.all(closed)
  }

  async #listen(where: ListenAddress, upgrade: Upgrade): Promise<Door> {
    const bulk = upgrade.tls === 'none'
    const door = await openDoorAt(where, { bulk }, (arrival) => this.#accept(arrival, upgrade))
    this.#doors.add(door)
    return door
  }

  #accept(arrival: Arrival, upgrade: Upgrade): void {
    const socket = arrival.duplex
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
    shakeHands(arrival, this.#handshakeSettings(upgrade))
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
          slabs: this.#slabs,
          budget: this.#budget,
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

const IGNORE = () => {}
