import { lookup } from 'node:dns/promises'
import { type AddressInfo, connect, createServer, isIP, type Server, type Socket } from 'node:net'
import { connect as connectTls, createServer as createTlsServer } from 'node:tls'
import type { Clock } from '#base/clock.ts'
import { BEAT_MS_MAX, type Beat, type BeatGreeting } from '#wire/link/beat.ts'
import type { MomentCell, PeerCells } from './board.ts'
import { Connection, OPENING_MS } from './connection.ts'

/* All that the heartbeat thread does: listen, dial, beat, and note what it hears.
 *
 *     one timer, every heartbeat ─► beats out on every connection ─► the silent ones closed ─► missing ones dialled, with back-off
 *     a beat arrives             ─► the cells of its sender's run, which the main thread reads
 *
 * The side that dials the replication link dials here too; the other only answers. So there is one connection per pair of agents and
 * direction of replication, and beats flow in both directions on each.
 *
 * Nothing in here may touch a file or the thread pool once it runs: the pool's threads are what a stuck disk takes first. Host names are
 * looked up in the pool, therefore an address that was found once is used until it fails.
 */

/** How long a connection that no link needs any more is kept: links that flap need not wait for it. */
const LINGER_MS = 30_000
const DIAL_DELAY_MIN_MS = 250
const DIAL_DELAY_MAX_MS = 10_000
/** Accepted connections at one time; more are hung up on at once. */
const ACCEPTED_MAX = 1024
/** Of them, such that have not said who they are. */
const STRANGERS_MAX = 64

export interface Address {
  readonly host: string
  readonly port: number
}

export type BeatSecurity =
  | {
      readonly kind: 'tls'
      readonly tls: { readonly ca: string; readonly cert: string; readonly key: string }
    }
  | { readonly kind: 'keyed'; readonly secret: Uint8Array }

export interface ExchangeParts {
  readonly listen: Address
  readonly security: BeatSecurity
  readonly self: BeatGreeting
  readonly heartbeatMs: number
  /** After this silence a connection is taken for dead, ms. */
  readonly silenceMs: number
  readonly clock: Clock
  /** When this agent's data plane last moved; written by the main thread. */
  readonly moved: MomentCell
  /** For the log; carries no secret. */
  readonly note: (text: string, about: Readonly<Record<string, unknown>>) => void
}

/** A process that the main thread wants to know about. */
interface Watched {
  readonly cells: PeerCells
  dial: Address | null
  /** When it was last wanted, once it is not; CLOCK_BOOTTIME, ms. */
  endedMs: number | null
}

interface Dialled {
  readonly address: Address
  /** Found by the last lookup of a host name. */
  found: string | null
  connection: Connection | null
  looking: boolean
  delayMs: number
  nextMs: number
}

const keyOf = ({ host, port }: Address): string => `${host} ${port}`

export class Exchange {
  readonly #parts: ExchangeParts
  readonly #watched = new Map<string, Watched>()
  readonly #dialled = new Map<string, Dialled>()
  readonly #accepted = new Set<Connection>()
  #server: Server | undefined

  constructor(parts: ExchangeParts) {
    this.#parts = parts
  }

  /** Resolves with the port. Beats from then on. */
  async start(): Promise<number> {
    const { listen, security } = this.#parts
    const take = (socket: Socket) => this.#accept(socket)
    const server =
      security.kind === 'tls'
        ? createTlsServer(
            {
              ...security.tls,
              requestCert: true,
              rejectUnauthorized: true,
              minVersion: 'TLSv1.3',
              handshakeTimeout: OPENING_MS,
            },
            take,
          )
        : createServer(take)
    server.on('tlsClientError', (error: Error) => {
      this.#parts.note('heartbeat connection refused', { reason: error.message })
    })
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(listen, () => {
        server.removeListener('error', reject)
        resolve()
      })
    })
    // Shortage of descriptors and the like: the next connection may be accepted again.
    server.on('error', (error) => this.#parts.note('heartbeat listener', { reason: error.message }))
    this.#server = server
    this.#every()
    return (server.address() as AddressInfo).port
  }

  /** `dial` null: that process dials this one, or is dialled for another reason. */
  watch(run: string, cells: PeerCells, dial: Address | null): void {
    this.#watched.set(run, { cells, dial, endedMs: null })
    this.#look()
  }

  end(run: string): void {
    const watched = this.#watched.get(run)
    if (watched !== undefined) watched.endedMs = this.#now()
  }

  close(): void {
    this.#watched.clear()
    for (const connection of this.#connections()) connection.close('closing')
    this.#server?.close()
  }

  #now(): number {
    return this.#parts.clock.bootMs()
  }

  /** A list of its own: what is done with them may end some. */
  #connections(): Connection[] {
    const dialled = [...this.#dialled.values()].flatMap(({ connection }) => connection ?? [])
    return [...dialled, ...this.#accepted]
  }

  // -- time -----------------------------------------------------------------------------------------------------------

  #every(): void {
    const { clock, heartbeatMs, silenceMs } = this.#parts
    clock.after(heartbeatMs, () => this.#every())
    const stuckMs = this.#stuckMs()
    for (const connection of this.#connections()) {
      connection.beat(stuckMs)
      connection.checkSilence(silenceMs)
    }
    this.#look()
  }

  #stuckMs(): number {
    const moved = this.#parts.moved.get()
    return moved === null ? BEAT_MS_MAX : this.#now() - moved
  }

  /** Forgets what is no longer wanted, dials what is missing. */
  #look(): void {
    const now = this.#now()
    const wanted = new Set<string>()
    for (const [run, { endedMs, dial }] of this.#watched) {
      if (endedMs !== null && now - endedMs > LINGER_MS) this.#watched.delete(run)
      else if (dial !== null) {
        wanted.add(keyOf(dial))
        if (!this.#dialled.has(keyOf(dial))) this.#dialled.set(keyOf(dial), freshly(dial, now))
      }
    }
    for (const [key, dialled] of this.#dialled) {
      if (!wanted.has(key)) {
        this.#dialled.delete(key)
        dialled.connection?.close('no longer wanted')
      } else if (dialled.connection === null && !dialled.looking && now >= dialled.nextMs) {
        this.#dial(dialled)
      }
    }
  }

  // -- connections ----------------------------------------------------------------------------------------------------

  #dial(dialled: Dialled): void {
    const { host } = dialled.address
    dialled.nextMs = this.#now() + dialled.delayMs
    dialled.delayMs = Math.min(dialled.delayMs * 2, DIAL_DELAY_MAX_MS)
    if (isIP(host) !== 0) return this.#dialAt(dialled, host)
    if (dialled.found !== null) {
      this.#dialAt(dialled, dialled.found)
      // A name may point elsewhere by now: the next attempt looks again.
      dialled.found = null
      return
    }
    dialled.looking = true
    lookup(host).then(
      ({ address }) => {
        dialled.looking = false
        dialled.found = address
        if (this.#dialled.get(keyOf(dialled.address)) === dialled) this.#dialAt(dialled, address)
      },
      () => (dialled.looking = false),
    )
  }

  #dialAt(dialled: Dialled, host: string): void {
    const { security } = this.#parts
    const { port } = dialled.address
    const socket: Socket =
      security.kind === 'tls'
        ? connectTls({
            host,
            port,
            ...security.tls,
            minVersion: 'TLSv1.3',
            // Agents are named by their certificates and not by where they listen; the greeting is held against it.
            checkServerIdentity: () => undefined,
          })
        : connect({ host, port })
    dialled.connection = this.#connection(socket, 'dialler', (reason) => {
      dialled.connection = null
      this.#parts.note('heartbeats ended', { ...dialled.address, reason })
    })
    dialled.connection.onGreeted = () => {
      dialled.delayMs = DIAL_DELAY_MIN_MS
      dialled.found = host
    }
  }

  #accept(socket: Socket): void {
    const strangers = [...this.#accepted].filter((one) => !one.greeted).length
    if (this.#accepted.size >= ACCEPTED_MAX || strangers >= STRANGERS_MAX) {
      socket.on('error', () => socket.destroy())
      socket.destroy()
      return
    }
    const connection: Connection = this.#connection(socket, 'listener', () =>
      this.#accepted.delete(connection),
    )
    connection.onGreeted = (peer) => {
      // The same process dials again: what it dialled before is dead, whatever the socket thinks.
      for (const other of this.#accepted) {
        if (other !== connection && other.peer?.run_id === peer.run_id) other.close('replaced')
      }
    }
    this.#accepted.add(connection)
  }

  #connection(
    socket: Socket,
    side: 'dialler' | 'listener',
    closed: (reason: string) => void,
  ): Connection {
    const { self, security } = this.#parts
    return new Connection({
      socket,
      side,
      self,
      secret: security.kind === 'keyed' ? security.secret : null,
      now: () => this.#now(),
      stuckMs: () => this.#stuckMs(),
      onBeat: (connection, beat) => this.#heard(connection, beat),
      onClosed: (_, reason) => closed(reason),
    })
  }

  /** Times only go forward: a process may beat on two connections, and the better news counts. */
  #heard({ peer }: Connection, beat: Beat): void {
    const cells = peer === null ? undefined : this.#watched.get(peer.run_id)?.cells
    if (cells === undefined) return
    const now = this.#now()
    // Only what went both ways proves that the way is open both ways.
    if (beat.heardMs !== BEAT_MS_MAX) forward(cells.heard, now - beat.heardMs)
    if (beat.stuckMs !== BEAT_MS_MAX) forward(cells.moved, now - beat.stuckMs)
  }
}

function freshly(address: Address, now: number): Dialled {
  return {
    address,
    found: null,
    connection: null,
    looking: false,
    delayMs: DIAL_DELAY_MIN_MS,
    nextMs: now,
  }
}

function forward(cell: MomentCell, ms: number): void {
  if (ms > (cell.get() ?? 0)) cell.set(ms)
}
