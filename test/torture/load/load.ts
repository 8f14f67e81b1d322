import { randomBytes } from 'node:crypto'
import { type Clock, sleep } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { connectNbd, type NbdClient } from '#client/nbd/client.ts'
import { NBD_DISCONNECTED, NBD_IO_ERROR, NBD_REFUSED } from '#client/nbd/faults.ts'
import type { Random } from '../../../sim/world/random.ts'
import { otherSite, type Site } from '../lab/lab.ts'
import type { Authority } from './authority.ts'
import { offsetOf, SLOTS, slotsLeftInZone } from './layout.ts'
import type { Ledger, Op, OpKind } from './ledger.ts'
import { BLOCK_BYTES, type Found, readStamp, writeStamp } from './stamp.ts'

/* The clients of the group: chains of stamped writes, zeroes, trims and flushes over all volumes, and one reader per site that
 * never gives up on its site.
 *
 * A client finds the writing site as real ones do: it tries the socket that served it last and then the other one, under the
 * pair's name. An operation without an answer is repeated, where the pair is served then, until it has one. When production
 * moves, clients are told to leave the old site; what they had sent there stays open, and an answer that comes all the same is
 * put before the authority.
 */

export interface LoadOptions {
  readonly clock: Clock
  readonly random: Random
  readonly ledger: Ledger
  readonly authority: Authority
  /** Export names, by volume index. */
  readonly pairs: readonly string[]
  readonly chains: number
  /** Longest pause of a chain between two operations. */
  readonly thinkMs: number
  readonly socketOf: (site: Site) => string
  readonly onWrong: (what: string) => void
}

export interface LoadCounts {
  reads: number
  flushes: number
  /** Operations that had to be sent again. */
  repeated: number
  /** Answers of no space. */
  noSpace: number
  /** Other errors that the server answered. */
  ioErrors: number
}

interface Connection {
  readonly site: Site
  readonly client: NbdClient
  /** Settles when clients were told to leave. */
  readonly left: Promise<void>
  leave(): void
}

const CONNECT_MS = 1_500
const AGAIN_MS = 25
const READ_EVERY_MS = 40
const ENOSPC = 28

export class Load {
  readonly run = randomBytes(8)
  readonly counts: LoadCounts = { reads: 0, flushes: 0, repeated: 0, noSpace: 0, ioErrors: 0 }
  readonly #o: LoadOptions
  readonly #connections = new Map<number, Promise<Connection>>()
  readonly #open = new Set<Connection>()
  #preferred: Site = 'az1'
  #stopping = false
  #gate: Promise<void> = Promise.resolve()
  #openGate: () => void = () => {}
  #paused = false
  #underWay = 0
  #whenIdle: (() => void)[] = []
  #tasks: Promise<void>[] = []
  #lastAckMs = 0
  #longestStallMs = 0
  #readsTrusted = true

  constructor(options: LoadOptions) {
    this.#o = options
  }

  start(): void {
    this.#lastAckMs = this.#o.clock.bootMs()
    for (let chain = 0; chain < this.#o.chains; chain++) {
      this.#tasks.push(this.#runChain(this.#o.random.fork()))
    }
    for (const site of ['az1', 'az2'] as const) {
      this.#tasks.push(this.#runReader(site, this.#o.random.fork()))
    }
  }

  /** Longest time without any acknowledgement, audits left out, ms. */
  get longestStallMs(): number {
    return this.#longestStallMs
  }

  /** Begins a new measurement of the longest stall. */
  markStall(): void {
    this.#longestStallMs = 0
    this.#lastAckMs = this.#o.clock.bootMs()
  }

  /** Nothing is sent any more, neither new nor again. What was sent may still be answered. */
  pause(): void {
    if (this.#paused) return
    this.#paused = true
    this.#gate = new Promise((resolve) => (this.#openGate = resolve))
  }

  resume(): void {
    if (!this.#paused) return
    this.#paused = false
    this.#openGate()
  }

  /** No new operations; resolves when every one that was begun is acknowledged, or rejects after the limit. */
  async drain(limitMs: number): Promise<void> {
    const { clock } = this.#o
    const endMs = clock.bootMs() + limitMs
    this.#draining = true
    try {
      while (this.#underWay > 0) {
        const leftMs = endMs - clock.bootMs()
        if (leftMs <= 0) throw new Error(`${this.#underWay} operations are without an answer`)
        const waited = new AbortController()
        const late = sleep(clock, leftMs, waited.signal).catch(() => undefined)
        await Promise.race([new Promise<void>((resolve) => this.#whenIdle.push(resolve)), late])
        waited.abort()
      }
    } catch (error) {
      this.#undrain()
      throw error
    }
  }

  /** After `drain`. */
  flow(): void {
    this.#lastAckMs = this.#o.clock.bootMs()
    this.#undrain()
  }

  #draining = false
  #whenFlowing: (() => void)[] = []

  #undrain(): void {
    this.#draining = false
    for (const wake of this.#whenFlowing.splice(0)) wake()
  }

  /** Clients leave `site`; the next operations go to the other one first. */
  leave(site: Site): void {
    this.#preferred = otherSite(site)
    for (const connection of this.#open) if (connection.site === site) connection.leave()
  }

  /** While false, what readers see is not compared: an announced loss has not been measured yet. */
  trustReads(trusted: boolean): void {
    this.#readsTrusted = trusted
  }

  async stop(): Promise<void> {
    this.#stopping = true
    this.#undrain()
    this.resume()
    for (const connection of this.#open) connection.client.destroy()
    await Promise.all(this.#tasks)
  }

  // ---------------------------------------------------------------- chains

  async #runChain(random: Random): Promise<void> {
    const { clock, ledger, thinkMs } = this.#o
    while (!this.#stopping) {
      if (this.#draining) {
        await new Promise<void>((resolve) => this.#whenFlowing.push(resolve))
        continue
      }
      await this.#gate
      if (this.#stopping || this.#draining) continue
      const planned = this.#plan(random)
      if (planned === undefined) {
        await sleep(clock, 1)
        continue
      }
      this.#underWay++
      try {
        const { kind, volume, slot, slots } = planned
        if (random.chance(0.03)) await this.#flush(volume)
        // The pause may have begun, and others may have taken the place, while the flush waited.
        await this.#gate
        if (this.#stopping || this.#isTaken(planned)) continue
        const op = ledger.issue(kind, volume, slot, slots, clock.bootMs())
        await this.#carryOut(op, random.chance(0.05))
      } finally {
        this.#underWay--
        if (this.#underWay === 0) for (const wake of this.#whenIdle.splice(0)) wake()
      }
      if (thinkMs > 0) await sleep(clock, random.between(0, thinkMs))
    }
  }

  #plan(random: Random): { kind: OpKind; volume: number; slot: number; slots: number } | undefined {
    const volume = random.below(this.#o.pairs.length)
    const slot = random.below(SLOTS)
    const wanted = random.chance(0.9) ? 1 : random.chance(0.9) ? 2 + random.below(30) : 300
    const slots = Math.min(wanted, slotsLeftInZone(slot))
    const kind = random.chance(0.92) ? 'write' : random.chance(0.5) ? 'zero' : 'trim'
    const planned = { kind, volume, slot, slots } as const
    return this.#isTaken(planned) ? undefined : planned
  }

  #isTaken({ volume, slot, slots }: { volume: number; slot: number; slots: number }): boolean {
    for (let at = slot; at < slot + slots; at++) {
      if (this.#o.ledger.isBusy(volume, at)) return true
    }
    return false
  }

  async #carryOut(op: Op, fua: boolean): Promise<void> {
    const { ledger, clock } = this.#o
    const data = op.kind === 'write' ? this.#dataOf(op) : undefined
    const offset = offsetOf(op.slot)
    const length = op.slots * BLOCK_BYTES
    await this.#untilAnswered(
      'write',
      op.volume,
      (client) => {
        if (data !== undefined) return client.write(offset, data, { fua })
        return op.kind === 'zero'
          ? client.zero(offset, length, { fua })
          : client.trim(offset, length, { fua })
      },
      (site) => {
        const nowMs = clock.bootMs()
        this.#longestStallMs = Math.max(this.#longestStallMs, nowMs - this.#lastAckMs)
        this.#lastAckMs = nowMs
        ledger.acknowledge(op, site, fua, nowMs)
      },
    )
  }

  #dataOf(op: Op): Buffer {
    const data = Buffer.allocUnsafe(op.slots * BLOCK_BYTES)
    const depends = this.#o.ledger.depends()
    for (let index = 0; index < op.slots; index++) {
      const { sequence, volume, issued } = op
      const stamp = { sequence, volume, slot: op.slot + index, issued, depends }
      writeStamp(data, index * BLOCK_BYTES, this.run, stamp)
    }
    return data
  }

  async #flush(volume: number): Promise<void> {
    const { ledger } = this.#o
    const { tick } = ledger
    await this.#untilAnswered(
      'flush',
      volume,
      (client) => client.flush(),
      () => {
        this.counts.flushes++
        ledger.flushed(volume, tick)
      },
    )
  }

  /** Sends until there is an answer. `onAnswer` is called in the same turn in which the answer was seen. */
  async #untilAnswered(
    kind: 'write' | 'flush',
    volume: number,
    send: (client: NbdClient) => Promise<void>,
    onAnswer: (site: Site) => void,
  ): Promise<void> {
    const { clock } = this.#o
    let settled = false
    for (let first = true; !this.#stopping; first = false) {
      await this.#gate
      if (this.#stopping) return
      if (!first) this.counts.repeated++
      const connection = await this.#connect(volume)
      if (connection === undefined) {
        await sleep(clock, AGAIN_MS)
        continue
      }
      if (this.#paused) continue
      const { site, client, left } = connection
      const sentMs = clock.bootMs()
      const answer = send(client).then(
        () => {
          const seenMs = clock.bootMs()
          this.#o.authority.answered({ site, kind, sentMs, seenMs })
          if (settled) return 'late' as const
          settled = true
          onAnswer(site)
          return 'done' as const
        },
        (error: unknown) => this.#judgeError(error),
      )
      const outcome = await Promise.race([answer, left])
      if (outcome === 'done') return
      if (outcome === 'refused') await sleep(clock, AGAIN_MS)
    }
  }

  #judgeError(error: unknown): 'gone' | 'refused' {
    if (isFault(error, NBD_DISCONNECTED)) return 'gone'
    if (isFault(error, NBD_IO_ERROR)) {
      if (error.detail['error'] === ENOSPC) this.counts.noSpace++
      else this.counts.ioErrors++
      return 'refused'
    }
    throw error
  }

  /** Undefined: neither site serves the pair now. */
  async #connect(volume: number): Promise<Connection | undefined> {
    const known = this.#connections.get(volume)
    if (known !== undefined) return await known.catch(() => undefined)
    const opening = this.#openSomewhere(this.#o.pairs[volume] ?? '')
    this.#connections.set(volume, opening)
    const forget = () => {
      if (this.#connections.get(volume) === opening) this.#connections.delete(volume)
    }
    try {
      const connection = await opening
      this.#open.add(connection)
      void connection.left.then(forget)
      void connection.client.closed.then(() => {
        this.#open.delete(connection)
        forget()
      })
      return connection
    } catch (error) {
      forget()
      if (isFault(error, NBD_REFUSED) || isFault(error, NBD_DISCONNECTED)) return undefined
      throw error
    }
  }

  async #openSomewhere(exportName: string): Promise<Connection> {
    const first = this.#preferred
    try {
      return await this.#openAt(first, exportName)
    } catch (error) {
      if (!isFault(error, NBD_REFUSED) && !isFault(error, NBD_DISCONNECTED)) throw error
      return await this.#openAt(otherSite(first), exportName)
    }
  }

  async #openAt(site: Site, exportName: string): Promise<Connection> {
    const client = await connectNbd(
      { unix: this.#o.socketOf(site) },
      { exportName, timeoutMs: CONNECT_MS },
    )
    let leave = () => {}
    const left = new Promise<void>((resolve) => (leave = resolve))
    return { site, client, left, leave }
  }

  // ---------------------------------------------------------------- readers

  async #runReader(site: Site, random: Random): Promise<void> {
    const { clock, ledger, pairs, authority, onWrong } = this.#o
    while (!this.#stopping) {
      const volume = random.below(pairs.length)
      const client = await this.#openAt(site, pairs[volume] ?? '').then(
        (connection) => connection.client,
        () => undefined,
      )
      if (client === undefined) {
        await sleep(clock, READ_EVERY_MS * 4)
        continue
      }
      for (let count = 0; count < 200 && !this.#stopping; count++) {
        const slot = random.below(SLOTS)
        const least = ledger.expected(volume, slot)
        const trusted = this.#readsTrusted
        const sentMs = clock.bootMs()
        const data = await Promise.race([
          client.read(offsetOf(slot), BLOCK_BYTES).catch(() => undefined),
          client.closed.then(() => undefined),
        ])
        if (data === undefined) break
        authority.answered({ site, kind: 'read', sentMs, seenMs: clock.bootMs() })
        this.counts.reads++
        const found: Found = readStamp(data, this.run)
        if (trusted && this.#readsTrusted && !ledger.mayRead(volume, slot, least, found)) {
          onWrong(
            `${site} returned ${describe(found)} for volume ${volume} slot ${slot}, where operation ${least} or a later one had been acknowledged before the read was sent`,
          )
        }
        await sleep(clock, READ_EVERY_MS)
      }
      client.destroy()
    }
  }
}

export const describe = (found: Found): string =>
  typeof found === 'string' ? found : `operation ${found.sequence}`
