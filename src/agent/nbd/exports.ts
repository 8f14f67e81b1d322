import { assert } from '#base/assert.ts'
import type { Device } from './device.ts'
import { type Bucket, isNoLimit, LimitedDevice } from './throttle.ts'

/* The exports of one agent: name → device, or the reason why the name may not be opened.
 *
 *     serve ──► open for connections ──► hold (drained, nothing new) ──► serve with another device, release
 *                     │
 *                     └──► refuse / remove: connections are dropped at once
 *
 * A name may stand for the same device as another name: a pair and its volume.
 *
 * A name with a limit (throttle.ts) has a limiting device in front of the one that serves it, whichever that is.
 *
 * Names with an offered prefix come into being when somebody opens them, and go with `remove`.
 */

/** The device behind a name that somebody wants to open, or why there is none. */
export type Offer = (name: string) => Device | string

/** An open connection, as its export sees it. */
export interface ExportConnection {
  /** Ends the connection at once; requests in flight are carried out but not answered. */
  drop(reason: string): void
  /** The hold is over: go on taking requests. */
  resume(): void
}

export class Export {
  readonly name: string
  /** What connections talk to: the device that serves, or the limit in front of it. */
  device: Device
  #served: Device
  #bucket: Bucket | undefined
  readonly connections = new Set<ExportConnection>()
  #held = false
  #inFlight = 0
  readonly #drained: (() => void)[] = []

  constructor(name: string, device: Device, bucket: Bucket | undefined) {
    this.name = name
    this.#served = device
    this.#bucket = bucket
    this.device = this.#front()
  }

  /** The device that serves. */
  get served(): Device {
    return this.#served
  }

  /** Gives it another device. The old one must be drained. */
  replace(device: Device): void {
    assert(this.#inFlight === 0, 'an export changes its device only when drained')
    this.#served = device
    this.device = this.#front()
  }

  /** Takes effect for the next request; what waited for the limit before is carried out now. */
  limit(bucket: Bucket | undefined): void {
    this.#unthrottle()
    this.#bucket = bucket
    this.device = this.#front()
  }

  #front(): Device {
    const bucket = this.#bucket
    const free = bucket === undefined || isNoLimit(bucket.limit)
    return free ? this.#served : new LimitedDevice(this.#served, bucket)
  }

  #unthrottle(): void {
    if (this.device instanceof LimitedDevice) this.device.release()
  }

  /** While true, connections take no further requests; what they have taken runs to its end. */
  get held(): boolean {
    return this.#held
  }

  /** Requests given to the device and not completed, also those of connections that are gone. */
  get inFlight(): number {
    return this.#inFlight
  }

  began(count: number): void {
    this.#inFlight += count
  }

  ended(): void {
    this.#inFlight--
    assert(this.#inFlight >= 0, 'a request ends once')
    if (this.#inFlight === 0) for (const wake of this.#drained.splice(0)) wake()
  }

  /** Resolves when no request is in flight any more. */
  async hold(): Promise<void> {
    this.#held = true
    this.#unthrottle()
    if (this.#inFlight > 0) await new Promise<void>((resolve) => this.#drained.push(resolve))
  }

  release(): void {
    if (!this.#held) return
    this.#held = false
    for (const connection of this.connections) connection.resume()
  }

  drop(reason: string): void {
    this.#unthrottle()
    for (const connection of this.connections) connection.drop(reason)
  }
}

/** Why a name cannot be opened. policy: it exists but not for this client or not here now. */
export interface OpenRefusal {
  readonly refusal: 'unknown' | 'policy'
  readonly reason: string
}

/** Exports of one agent. Bounded by the volumes and pairs that the control plane placed here. */
export class ExportTable {
  readonly #exports = new Map<string, Export>()
  readonly #refusals = new Map<string, string>()
  readonly #offers = new Map<string, Offer>()
  readonly #reserved = new Map<string, string>()
  readonly #watchers = new Set<(name: string) => void>()
  #bucketOf: (name: string) => Bucket | undefined = () => undefined

  /** `changed` is called after a name began or ceased to be served, or is refused for another reason, until the returned function is. */
  watch(changed: (name: string) => void): () => void {
    this.#watchers.add(changed)
    return () => this.#watchers.delete(changed)
  }

  #tell(name: string): void {
    for (const watcher of this.#watchers) watcher(name)
  }

  /** Who knows which names have a limit. Asked when a name begins to be served. */
  limitBy(bucketOf: (name: string) => Bucket | undefined): void {
    this.#bucketOf = bucketOf
  }

  /** The limits of these names have changed. */
  relimit(names: readonly string[]): void {
    for (const name of names) this.#exports.get(name)?.limit(this.#bucketOf(name))
  }

  /** Opens `name`, or gives an open one another device. The old device must have been drained with `hold` unless no
   *  connection is open; a hold stays until `release`. */
  serve(name: string, device: Device): Export {
    this.#refusals.delete(name)
    const known = this.#exports.get(name)
    if (known === undefined) {
      const made = new Export(name, device, this.#bucketOf(name))
      this.#exports.set(name, made)
      this.#tell(name)
      return made
    }
    if (known.served !== device) known.replace(device)
    return known
  }

  /** Takes no new requests and resolves when all that were taken are completed. Unknown name: nothing to do. */
  async hold(name: string): Promise<void> {
    await this.#exports.get(name)?.hold()
  }

  release(name: string): void {
    this.#exports.get(name)?.release()
  }

  /** Drops the connections of `name` and refuses new ones with `reason`, a sentence for the client's operator. */
  refuse(name: string, reason: string): void {
    this.#end(name, reason)
    this.#refusals.set(name, reason)
    this.#tell(name)
  }

  /** Drops the connections of `name` and forgets it. */
  remove(name: string, reason: string): void {
    this.#end(name, reason)
    this.#refusals.delete(name)
    this.#tell(name)
  }

  #end(name: string, reason: string): void {
    const known = this.#exports.get(name)
    // First out of the table: a client that reconnects at once must not find it.
    this.#exports.delete(name)
    known?.drop(reason)
  }

  /** Names that begin with `prefix` are made by `offer` when they are opened. */
  offer(prefix: string, offer: Offer): void {
    this.#offers.set(prefix, offer)
  }

  /** Keeps clients out of `name`, whoever serves it, until `unreserve`: the agent itself writes it. Those that have it open stay. */
  reserve(name: string, reason: string): void {
    this.#reserved.set(name, reason)
  }

  unreserve(name: string): void {
    this.#reserved.delete(name)
  }

  /** The export itself, for the agent's own use; undefined while nobody serves the name. */
  find(name: string): Export | undefined {
    return this.#exports.get(name)
  }

  open(name: string): Export | OpenRefusal {
    const reserved = this.#reserved.get(name)
    if (reserved !== undefined) return { refusal: 'policy', reason: reserved }
    const known = this.#exports.get(name)
    if (known !== undefined) return known
    for (const [prefix, offer] of this.#offers) {
      if (!name.startsWith(prefix)) continue
      const device = offer(name)
      return typeof device === 'string'
        ? { refusal: 'unknown', reason: device }
        : this.serve(name, device)
    }
    const reason = this.#refusals.get(name)
    if (reason !== undefined) return { refusal: 'policy', reason }
    return { refusal: 'unknown', reason: 'this site has no export of that name' }
  }

  /** Names that can be opened now. */
  names(): string[] {
    return [...this.#exports.keys()]
  }

  connectionCount(name: string): number {
    return this.#exports.get(name)?.connections.size ?? 0
  }

  /** Drops every connection, for shutting down. */
  dropAll(reason: string): void {
    for (const one of this.#exports.values()) one.drop(reason)
  }
}
