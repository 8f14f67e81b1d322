import { assert } from '#base/assert.ts'

/* The memory that the requests of all NBD clients of an agent may take: payload of writes that are not answered, and data of reads that is
 * not fetched.
 *
 *     0 ────────── half ────────── all
 *     │ first come, first served   │ only each connection's share: half / connections
 *
 * A group that is held (its link is lost, its disk stands still) keeps what its clients have sent. It may fill the first half; the second is
 * there so that the clients of other groups go on, each with its share.
 *
 * Nothing is refused: a connection whose next request does not fit is not read until there is room, so its client waits in front of a full
 * socket. Requests are let in whole, by the length in their header, because one that got half of its memory could wait for the other half
 * of somebody who waits for his.
 */

/** Room for the largest request in the first half, and then some. */
export const BUDGET_BYTES_MIN = 128 * 1024 * 1024
export const BUDGET_BYTES = 1024 * 1024 * 1024

/** Somebody who can be told that there is room again. */
export interface Waiting {
  resume(): void
}

export class MemoryBudget {
  readonly bytesMax: number
  #used = 0
  #connections = 0
  readonly #waiting = new Set<Waiting>()
  #waking = false

  constructor(bytesMax = BUDGET_BYTES) {
    this.bytesMax = bytesMax
  }

  /** Bytes of requests in memory. */
  get used(): number {
    return this.#used
  }

  /** Connections that wait for room. */
  get waiting(): number {
    return this.#waiting.size
  }

  /** A request of `length` fits without asking who wants it. */
  roomFor(length: number): boolean {
    return this.#used + length <= this.bytesMax / 2
  }

  connected(): void {
    this.#connections++
  }

  disconnected(who: Waiting): void {
    this.#connections--
    this.#waiting.delete(who)
  }

  /** Whether a connection that has `own` bytes in memory may take a request of `length`. If not, it is told when to ask again. */
  admits(who: Waiting, own: number, length: number): boolean {
    if (this.roomFor(length)) return true
    const share = this.bytesMax / 2 / Math.max(1, this.#connections)
    if (this.#used + length <= this.bytesMax && own + length <= share) return true
    this.#waiting.add(who)
    return false
  }

  take(bytes: number): void {
    this.#used += bytes
  }

  give(bytes: number): void {
    this.#used -= bytes
    assert(this.#used >= 0, 'no memory is given back twice')
    if (this.#waiting.size === 0 || this.#waking) return
    this.#waking = true
    // Once per turn, and not from within the work of whoever gave it back.
    setImmediate(() => {
      this.#waking = false
      const waiting = [...this.#waiting]
      this.#waiting.clear()
      for (const who of waiting) who.resume()
    })
  }
}
