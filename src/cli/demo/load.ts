import { randomBytes } from 'node:crypto'
import { type Clock, sleep } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import type { NbdClient } from '#client/nbd/client.ts'
import { NBD_DISCONNECTED, NBD_REFUSED } from '#client/nbd/faults.ts'
import { Ledger } from './ledger.ts'
import { BLOCK_BYTES, readStamp, type Stamp, writeStamp } from './stamp.ts'

/* A running load: chains of stamped writes over several volumes, and the record of every acknowledgement.
 *
 * Each chain has one write in flight at a time, and issues the next one only when that was acknowledged; with many chains
 * there are always many in flight. When a connection ends, the chains connect again and repeat the write that had no
 * answer: the same bytes at the same place, so that twice is as good as once. A refusal is tried again too, because a
 * volume may for a moment belong to nobody. After `freeze` nothing is repeated: what had no answer then stays open.
 */

export interface LoadOptions {
  readonly clock: Clock
  readonly volumes: number
  readonly slotsPerVolume: number
  readonly chains: number
  /** Opens the volume where it may be written now. */
  connect(volume: number): Promise<NbdClient>
}

const RECONNECT_MS = 100
const FILLINGS = 64
/** Latencies kept for percentiles; beyond it, older ones are overwritten. */
const SAMPLES_MAX = 1 << 17

export interface LoadRate {
  readonly writes: number
  readonly seconds: number
  readonly p50Ms: number
  readonly p99Ms: number
}

export class Load {
  readonly ledger: Ledger
  readonly run = randomBytes(8)
  readonly #options: LoadOptions
  readonly #fillings = Array.from({ length: FILLINGS }, () => randomBytes(BLOCK_BYTES))
  readonly #connections: (Promise<NbdClient> | undefined)[]
  #chains: Promise<void>[] = []
  #frozen = false
  #stopping = false
  #markMs = 0
  #markWrites = 0
  readonly #latencies = new Float64Array(SAMPLES_MAX)
  #latencyCount = 0

  constructor(options: LoadOptions) {
    this.#options = options
    this.ledger = new Ledger(options.volumes, options.slotsPerVolume, options.chains)
    this.#connections = Array.from({ length: options.volumes }, () => undefined)
  }

  start(): void {
    this.#chains = Array.from({ length: this.#options.chains }, (_, chain) => this.#runChain(chain))
  }

  /** Begins a new measurement of the rate. */
  mark(): void {
    this.#markMs = this.#options.clock.bootMs()
    this.#markWrites = this.ledger.acknowledged
    this.#latencyCount = 0
  }

  /** The rate since `mark`. */
  rate(): LoadRate {
    const count = Math.min(this.#latencyCount, SAMPLES_MAX)
    const sorted = this.#latencies.slice(0, count).sort()
    const at = (share: number) => sorted[Math.min(count - 1, Math.floor(count * share))] ?? 0
    return {
      writes: this.ledger.acknowledged - this.#markWrites,
      seconds: (this.#options.clock.bootMs() - this.#markMs) / 1000,
      p50Ms: at(0.5),
      p99Ms: at(0.99),
    }
  }

  /** From now on nothing is sent that was not sent before. Call it right after the kill. */
  freeze(): void {
    this.#frozen = true
  }

  /** Settles when every chain has ended: at once after a freeze with dead connections, else after the last answer. */
  async stop(): Promise<void> {
    this.#stopping = true
    await Promise.all(this.#chains)
    for (const connection of this.#connections) {
      await connection?.then((client) => client.disconnect()).catch(ignoreEnded)
    }
  }

  async #runChain(chain: number): Promise<void> {
    const { clock } = this.#options
    const block = Buffer.alloc(BLOCK_BYTES)
    while (!this.#stopping && !this.#frozen) {
      const stamp = this.ledger.issue(chain)
      const filling = this.#fillings[stamp.sequence % FILLINGS] ?? block
      writeStamp(block, this.run, filling, stamp)
      const begunMs = clock.bootMs()
      if (!(await this.#write(stamp, block))) return
      this.ledger.acknowledge(stamp)
      this.#latencies[this.#latencyCount++ % SAMPLES_MAX] = clock.bootMs() - begunMs
    }
  }

  /** True when acknowledged, false when the load was frozen before that. */
  async #write(stamp: Stamp, block: Buffer): Promise<boolean> {
    for (;;) {
      const connection = (this.#connections[stamp.volume] ??= this.#options.connect(stamp.volume))
      try {
        const client = await connection
        await client.write(stamp.slot * BLOCK_BYTES, block)
        return true
      } catch (error) {
        if (!isFault(error, NBD_DISCONNECTED) && !isFault(error, NBD_REFUSED)) throw error
        if (this.#connections[stamp.volume] === connection) {
          this.#connections[stamp.volume] = undefined
        }
        if (this.#frozen) return false
        await sleep(this.#options.clock, RECONNECT_MS)
        if (this.#frozen) return false
      }
    }
  }
}

function ignoreEnded(error: unknown): void {
  if (!isFault(error, NBD_DISCONNECTED) && !isFault(error, NBD_REFUSED)) throw error
}

const READ_BYTES = 1024 * 1024
const READS_IN_FLIGHT = 4

/** Reads the whole area of the load on one volume and returns the stamp of each slot. */
export async function readStamps(
  client: NbdClient,
  slots: number,
  run: Buffer,
): Promise<(Stamp | 'empty' | 'damaged')[]> {
  const stamps: (Stamp | 'empty' | 'damaged')[] = Array.from({ length: slots }, () => 'empty')
  const perRead = READ_BYTES / BLOCK_BYTES
  let next = 0
  const reader = async () => {
    while (next < slots) {
      const first = next
      const count = Math.min(perRead, slots - first)
      next += count
      const data = await client.read(first * BLOCK_BYTES, count * BLOCK_BYTES)
      for (let index = 0; index < count; index++) {
        const block = data.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES)
        stamps[first + index] = readStamp(block, run)
      }
    }
  }
  await Promise.all(Array.from({ length: READS_IN_FLIGHT }, reader))
  return stamps
}
