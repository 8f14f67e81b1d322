import { type Slab, SlabPool } from './slab.ts'

/* The receive memory of all connections of an agent, in slabs of three sizes.
 *
 *     under way on the connection, the new request included      slab
 *                                        up to  128 KiB       256 KiB
 *                                        up to    1 MiB         2 MiB
 *                                        more                   8 MiB
 *
 * A connection changes its slab when it is full, so it grows with its demand and not before. One that waits for each answer begins at the
 * start of its slab with each request and touches a few pages of it. Most connections are of that kind: a virtual disk each, with little under
 * way. With one large size for all, a crowd of them could neither keep its slabs (64 of 8 MiB each) nor give them back after each request:
 * memory of that size comes from the kernel anew every time, and the collector runs for every few that were dropped.
 *
 * Limits: slabs in use are bounded by the connections (server.ts) and the budget of their requests (budget.ts). A crowd, more than
 * CROWD_BYTES in use, makes connections that become idle give back what is larger than the least size. Of slabs that nobody uses
 * IDLE_COUNT_MAX of each size are kept, 64 MiB in all.
 */

const KIB = 1024
const SIZES = [256 * KIB, 2048 * KIB, 8192 * KIB] as const
const IDLE_COUNT_MAX = [64, 8, 4] as const
const CROWD_BYTES = 256 * KIB * KIB

export class ReceiveSlabs {
  readonly #pools = SIZES.map(
    (slabBytes, index) =>
      new SlabPool({ slabBytes, idleCountMax: IDLE_COUNT_MAX[index] as number }),
  )

  /** Slabs that somebody holds a reference to. */
  get inUse(): number {
    return this.#pools.reduce((sum, { inUse }) => sum + inUse, 0)
  }

  /** Slabs that were allocated so far, for metrics and tests. */
  get made(): number {
    return this.#pools.reduce((sum, { made }) => sum + made, 0)
  }

  /**
   * A slab with one reference, the caller's, that holds at least `wanted` bytes (up to 1 MiB and some room). `underWay`: bytes of all
   * requests of the connection that are not answered, the one that it is for included.
   */
  take(wanted: number, underWay: number): Slab {
    const last = this.#pools.length - 1
    let index = 0
    while (index < last && (SIZES[index] as number) < Math.max(wanted, 2 * underWay)) index++
    return (this.#pools[index] as SlabPool).take()
  }

  /** Whether a connection that has nothing under way gives `slab` back. */
  wantsBack(slab: Slab): boolean {
    if (slab.bytes.length === SIZES[0]) return false
    let bytes = 0
    for (const { inUse, slabBytes } of this.#pools) bytes += inUse * slabBytes
    return bytes > CROWD_BYTES
  }
}
