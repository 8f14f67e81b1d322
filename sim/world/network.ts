import type { Process } from './host.ts'
import type { Random } from './random.ts'
import type { Timeline } from './timeline.ts'

/* The network between hosts, as TCP shows it to a program.
 *
 * A path goes one way. While it is cut, what would arrive waits (the sender's kernel goes on retransmitting) and arrives
 * after the cut: late, in order, to whoever still has the connection open. That is how a message from another age
 * reaches a session, so nothing is thrown away here only because it is old.
 *
 *   cut            one way or both ways, ends with everything that waited
 *   reset          a connection breaks; both ends are told, what was on its way is lost
 *   silence        a connection goes dead without telling anybody (a middlebox forgot it); what is sent is lost
 *   process death  the kernel closes: the other end is told, after what had been sent
 *   power loss     nobody is told; whoever sends to the host after it is up again gets a reset
 */

class Path {
  cut = false
  slowMs = 0
  readonly stalled: (() => void)[] = []
}

export class Network {
  readonly #timeline: Timeline
  readonly #random: Random
  readonly #paths = new Map<string, Path>()
  /** Connections that are open at one end at least; faults choose from them. */
  readonly streams = new Set<Stream>()

  constructor(timeline: Timeline, random: Random) {
    this.#timeline = timeline
    this.#random = random
  }

  #path(from: string, to: string): Path {
    const key = `${from}>${to}`
    let path = this.#paths.get(key)
    if (path === undefined) this.#paths.set(key, (path = new Path()))
    return path
  }

  isCut(from: string, to: string): boolean {
    return this.#path(from, to).cut
  }

  cut(from: string, to: string): void {
    this.#path(from, to).cut = true
  }

  /** Adds delay to everything that is sent from now on. */
  slow(from: string, to: string, slowMs: number): void {
    this.#path(from, to).slowMs = slowMs
  }

  heal(from: string, to: string): void {
    const path = this.#path(from, to)
    path.slowMs = 0
    if (!path.cut) return
    path.cut = false
    // At once and in order, before anything that is sent from now on.
    for (const arrive of path.stalled.splice(0)) this.#timeline.after(0, arrive)
  }

  #delayMs(path: Path): number {
    const spike = this.#random.chance(0.01) ? this.#random.between(0, 80) : 0
    return path.slowMs + spike + this.#random.between(0.2, 2)
  }

  /** Carries `arrive` over the path; returns the moment at which it would arrive. */
  carry(from: string, to: string, notBeforeMs: number, arrive: () => void): number {
    const path = this.#path(from, to)
    const at = Math.max(notBeforeMs, this.#timeline.nowMs + this.#delayMs(path))
    this.#timeline.at(at, () => {
      if (path.cut) path.stalled.push(arrive)
      else arrive()
    })
    return at
  }

  /**
   * Asks `to` something over a connection of its own. The request may arrive long after the asker has given up;
   * `answered` may never be called. Nothing is retried here.
   */
  ask<Request, Answer>(
    asker: Process,
    to: string,
    request: Request,
    serve: (request: Request, reply: (answer: Answer) => void) => void,
    answered: (answer: Answer) => void,
  ): void {
    const from = asker.host.name
    // A cut mostly swallows a new connection; one that was open before delivers when the cut ends.
    if (this.isCut(from, to) && this.#random.chance(0.7)) return
    const late = this.#random.chance(0.02) ? this.#random.between(0, 15_000) : 0
    this.carry(from, to, this.#timeline.nowMs + late, () => {
      serve(request, (answer) => {
        this.carry(to, from, 0, () => asker.deliver(() => answered(answer)))
      })
    })
  }

  /** Opens a connection from one process to another. `accepted` and `opened` get the two ends. */
  connect(
    from: Process,
    listener: () => Process | null,
    to: string,
    accepted: (end: Endpoint) => void,
    opened: (end: Endpoint | null) => void,
  ): void {
    const here = from.host.name
    this.carry(here, to, 0, () => {
      const target = listener()
      if (target === null) {
        this.carry(to, here, 0, () => from.deliver(() => opened(null)))
        return
      }
      const stream = new Stream(this, this.#timeline, from, target)
      this.streams.add(stream)
      target.deliver(() => accepted(stream.second))
      this.carry(to, here, 0, () =>
        from.deliver(() => {
          opened(stream.first)
        }),
      )
    })
  }
}

/** A connection: two ends, messages in order each way. */
export class Stream {
  readonly network: Network
  readonly timeline: Timeline
  readonly first: Endpoint
  readonly second: Endpoint
  broken = false
  silent = false

  constructor(network: Network, timeline: Timeline, first: Process, second: Process) {
    this.network = network
    this.timeline = timeline
    this.first = new Endpoint(this, first)
    this.second = new Endpoint(this, second)
    this.first.peer = this.second
    this.second.peer = this.first
  }

  /** Both ends learn at once that it broke; what was on its way is lost. */
  reset(): void {
    if (this.broken) return
    this.broken = true
    this.network.streams.delete(this)
    this.first.told()
    this.second.told()
  }
}

export class Endpoint {
  readonly stream: Stream
  readonly process: Process
  peer!: Endpoint
  open = true
  #arrivesMs = 0
  #early: unknown[] = []
  #receive: ((message: unknown) => void) | null = null
  #closed: (() => void) | null = null
  #toldEarly = false

  constructor(stream: Stream, process: Process) {
    this.stream = stream
    this.process = process
    process.onDeath.push(() => {
      if (this.process.host.powered) this.close()
      else this.#vanish()
    })
  }

  /** Who gets messages and the news of the end. What came before is handed over now. */
  listen(receive: (message: unknown) => void, closed: () => void): void {
    this.#receive = receive
    this.#closed = closed
    for (const message of this.#early.splice(0)) receive(message)
    if (this.#toldEarly) closed()
  }

  send(message: unknown): void {
    if (!this.open) return
    this.#carry(() => this.peer.#arrive(message))
  }

  /** Closes this end; the other one is told after everything that was sent. */
  close(): void {
    if (!this.open) return
    this.#vanish()
    this.#carry(() => this.peer.told())
  }

  #vanish(): void {
    this.open = false
    if (!this.peer.open) this.stream.network.streams.delete(this.stream)
  }

  #carry(arrive: () => void): void {
    const { stream, process } = this
    if (stream.broken || stream.silent) return
    this.#arrivesMs = stream.network.carry(
      process.host.name,
      this.peer.process.host.name,
      this.#arrivesMs,
      () => {
        if (!stream.broken && !stream.silent) arrive()
      },
    )
  }

  #arrive(message: unknown): void {
    if (!this.open) {
      // The host is there but knows no such connection: it answers with a reset.
      if (this.process.host.powered && this.peer.open) this.#carry(() => this.peer.told())
      return
    }
    this.process.deliver(() => {
      if (!this.open) return
      if (this.#receive === null) this.#early.push(message)
      else this.#receive(message)
    })
  }

  /** The kernel reports the end of the connection. */
  told(): void {
    if (!this.open) return
    this.#vanish()
    this.process.deliver(() => {
      if (this.#closed === null) this.#toldEarly = true
      else this.#closed()
    })
  }
}
