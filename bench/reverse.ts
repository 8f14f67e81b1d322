/* Question: how long does a write wait when production is moved to the other site as planned?
 *
 * A system as `holdfast up` starts it; groups of 1 and of 16 pairs. On every pair a client in this process has 4 random 4 KiB writes under way,
 * all the time. Then the group is reversed over the public API. The exports of the old production site end; the clients connect to whichever site
 * serves, tried every 5 ms, as a multipath client would. Figure: the longest time between two acknowledgements of one pair, over all pairs, the
 * way through the clients' new connections included. Bound: 1 s.
 *
 * What would make it meaningless: other processes (weighed, marked); a stall that has nothing to do with the switch: the longest one in the seconds
 * before is printed beside it; the clients, which use the processor that the switch needs. */
import { tmpdir } from 'node:os'
import type { NbdClient } from '#client/nbd/client.ts'
import { disturbedOf, Lines, medianOf, round, weighed, type Weighed } from './lib/lines.ts'
import { machineFacts } from './lib/machine.ts'
import { type Group, pause, type SiteName, SITES, System } from './lib/system.ts'
import { within } from './lib/within.ts'

const MIB = 1024 * 1024
const SPAN_BYTES = 64 * MIB
const BLOCK = 4096
const DEPTH = 4
const RETRY_MS = 5
const BEFORE_MS = 3_000
const AFTER_MS = 1_500
const BOUND_MS = 1_000
/** A client that is told to stop ends with the answers to what it has under way. One that waits longer waits for nothing. */
const STOP_MS = 60_000
/** The group is in sync before: its first writes are answered at once. */
const BEGIN_MS = 60_000
/** Of the whole operation, with what it waits for in steps. */
const SWITCH_MS = 150_000
const GROUPS = [1, 16]

interface Stalls {
  readonly beforeMs: number
  readonly switchMs: number
  readonly writes: number
}

export interface ReverseOptions {
  readonly json: boolean
  readonly pairs: number
}

export async function benchReverse(options: ReverseOptions): Promise<void> {
  const lines = new Lines(options.json, machineFacts(tmpdir()))
  const system = await System.start([])
  try {
    for (const count of GROUPS) {
      const [group] = await system.groups(1, count)
      if (group === undefined) throw new Error('no group')
      const samples: Weighed<Stalls>[] = []
      for (let i = 0; i < options.pairs; i++) {
        const to = i % 2 === 0 ? 'target' : 'source'
        samples.push(await weighed(system.pids, () => reverse(system, group, to)))
        await system.inSync(group.id)
      }
      const most = Math.max(...samples.map(({ value }) => value.switchMs))
      lines.show(
        {
          case: `longest write stall of a planned reverse, ${count} ${count === 1 ? 'pair' : 'pairs'}`,
          figure: round(medianOf(samples, ({ value }) => value.switchMs)),
          unit: 'ms',
          bound: BOUND_MS,
          samples: samples.length,
          disturbed: disturbedOf(samples),
          also: {
            most_ms: round(most),
            longest_without_switch_ms: round(medianOf(samples, ({ value }) => value.beforeMs)),
            writes: round(medianOf(samples, ({ value }) => value.writes)),
          },
        },
        'most',
      )
    }
  } finally {
    await system.close()
  }
}

async function reverse(system: System, group: Group, to: 'source' | 'target'): Promise<Stalls> {
  const writer: SiteName = to === 'target' ? 'az1' : 'az2'
  const clients = group.pairs.map((pair) => new Client(system, pair, writer))
  const worst = () => Math.max(...clients.map((client) => client.longestSince()))
  const stop = () => clients.map((client) => client.stop())
  try {
    const state = async () => {
      const shown = JSON.stringify(await system.show(group.id))
      return `${shown}; ${clients.map((client) => client.state).join('; ')}`
    }
    const begun = Promise.all(clients.map((client) => client.begun))
    await within(BEGIN_MS, 'the first write to each pair', begun, state)
    for (const client of clients) client.longestSince()
    await pause(BEFORE_MS)
    const beforeMs = worst()
    const switched = system.act(group.id, 'reverse-server-group', { priority_station: to })
    await within(SWITCH_MS, `the switch to ${to}`, switched, state)
    await pause(AFTER_MS)
    // A pair that has not been acknowledged yet counts with what it has waited until now.
    const stalls = {
      beforeMs,
      switchMs: worst(),
      writes: clients.reduce((sum, client) => sum + client.writes, 0),
    }
    await Promise.all(stop())
    return stalls
  } catch (error) {
    await Promise.allSettled(stop())
    throw error
  }
}

/** Writes to one pair, wherever it is served. */
class Client {
  readonly #system: System
  readonly #pair: string
  #site: SiteName
  #going = true
  #lastMs = performance.now()
  #longestMs = 0
  writes = 0
  readonly begun: Promise<void>
  readonly #run: Promise<void>
  #client: NbdClient | undefined
  #connections = 0
  #lastError = 'none'

  constructor(system: System, pair: string, site: SiteName) {
    this.#system = system
    this.#pair = pair
    this.#site = site
    const { promise, resolve } = Promise.withResolvers<void>()
    this.begun = promise
    this.#run = this.#connect(resolve)
  }

  /** For the error that says that nothing goes on. */
  get state(): string {
    const { inFlight } = this.#client ?? { inFlight: 0 }
    return `${this.#pair} at ${this.#site}: ${this.writes} writes, ${inFlight} under way, ${this.#connections} connections, last error ${this.#lastError}`
  }

  /** Longest wait since the last call, the one that lasts included; ms. */
  longestSince(): number {
    const now = performance.now()
    const longest = Math.max(this.#longestMs, now - this.#lastMs)
    this.#longestMs = 0
    return longest
  }

  /** Rejects, and does not wait for ever, when a site that took a write never answers it. */
  async stop(): Promise<void> {
    this.#going = false
    let late = false
    const timer = setTimeout(() => {
      late = true
      this.#client?.destroy()
    }, STOP_MS)
    await this.#run
    clearTimeout(timer)
    if (late) {
      throw new Error(`writes were not answered within ${STOP_MS} ms: ${this.state}`)
    }
  }

  async #connect(first: () => void): Promise<void> {
    while (this.#going) {
      try {
        const client = await this.#system.connect(this.#site, this.#pair)
        this.#client = client
        this.#connections++
        const lane = async (): Promise<void> => {
          const data = Buffer.alloc(BLOCK, 5)
          while (this.#going) {
            await client.write(Math.floor(Math.random() * (SPAN_BYTES / BLOCK)) * BLOCK, data)
            const now = performance.now()
            if (this.writes > 0) this.#longestMs = Math.max(this.#longestMs, now - this.#lastMs)
            this.#lastMs = now
            this.writes++
            first()
          }
        }
        try {
          await Promise.all(Array.from({ length: DEPTH }, lane))
        } finally {
          client.destroy()
        }
      } catch (error) {
        this.#lastError = String(error)
        // Refused or cut off: the other site may serve it now.
        this.#site = SITES.find((site) => site !== this.#site) ?? this.#site
        await pause(RETRY_MS)
      }
    }
  }
}
