import type { NbdClient } from '#client/nbd/client.ts'

/* A load of stamped writes: every block carries the number of its write, so that afterwards the newest acknowledged write of
 * each block, and the order of all of them, can be read off the disk. */

export const LOAD_BLOCK = 4096

export interface LoadResult {
  /** Highest number that was acknowledged, per block. */
  readonly acknowledged: Map<number, number>
  readonly started: Map<number, number>
  count: number
}

export class Load {
  readonly #client: NbdClient
  readonly #blocks: number
  readonly #depth: number
  readonly result: LoadResult = { acknowledged: new Map(), started: new Map(), count: 0 }
  #next: number
  #stopping = false
  #running: Promise<void>[] = []
  #random: number

  constructor(client: NbdClient, blocks: number, depth: number, first = 1) {
    this.#client = client
    this.#blocks = blocks
    this.#depth = depth
    this.#next = first
    this.#random = first * 2654435761
  }

  start(): void {
    this.#running = Array.from({ length: this.#depth }, (_, lane) => this.#lane(lane))
  }

  /** Ends after what is in flight; a broken connection ends it as well. */
  async stop(): Promise<LoadResult> {
    this.#stopping = true
    await Promise.all(this.#running)
    return this.result
  }

  /** Resolves when every lane has met an error. */
  async ended(): Promise<LoadResult> {
    await Promise.all(this.#running)
    return this.result
  }

  get next(): number {
    return this.#next
  }

  /** Each lane writes blocks of its own, so that two writes of one block are never in flight together. */
  async #lane(lane: number): Promise<void> {
    while (!this.#stopping) {
      this.#random = (Math.imul(this.#random, 1103515245) + 12345) >>> 0
      const block = (this.#random % Math.floor(this.#blocks / this.#depth)) * this.#depth + lane
      const number = this.#next++
      this.result.started.set(block, number)
      try {
        await this.#client.write(block * LOAD_BLOCK, stamp(block, number))
      } catch {
        this.#stopping = true
        return
      }
      this.result.acknowledged.set(block, number)
      this.result.count++
    }
  }
}

export function stamp(block: number, number: number): Buffer {
  const data = Buffer.alloc(LOAD_BLOCK, number & 0xff)
  data.writeUInt32BE(block, 0)
  data.writeUInt32BE(number, 4)
  data.writeUInt32BE(number, LOAD_BLOCK - 4)
  return data
}

/** Blocks whose acknowledged write is not on the disk. A newer one that was started may be there instead. */
export function lost(data: Buffer, result: LoadResult): number[] {
  const missing: number[] = []
  for (const [block, number] of result.acknowledged) {
    const at = block * LOAD_BLOCK
    const found = data.readUInt32BE(at + 4)
    const whole = data.readUInt32BE(at + LOAD_BLOCK - 4) === found
    const newest = result.started.get(block) ?? 0
    if (!whole || found < number || found > newest) missing.push(block)
  }
  return missing
}
