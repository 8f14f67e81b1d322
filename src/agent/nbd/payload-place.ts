import { HEADER_BYTES, type Io } from './device.ts'
import type { ReceiveSlabs } from './receive-slabs.ts'
import type { Slab } from './slab.ts'

/* Where the payloads of one connection lie in memory.
 *
 *   slab   [ room 28 | payload ][ room 28 | payload ][ room 28 | read data ] ...        ◄─ filled from left to right
 *
 * The room takes the link's frame header when the payload is replicated, and for reads the reply's own header, so that a reply with data
 * is one piece of memory.
 */
export class PayloadPlace {
  readonly #slabs: ReceiveSlabs
  #slab: Slab | undefined
  #at = 0

  constructor(slabs: ReceiveSlabs) {
    this.#slabs = slabs
  }

  /** Finds room for header and data in the slab, and holds a reference for the request. */
  give(io: Io, inFlightBytes: number): void {
    const wanted = HEADER_BYTES + io.length
    let slab = this.#slab
    // Nobody else uses the slab: beginning at its start again keeps a quiet connection within the processor's cache.
    if (slab?.references === 1) this.#at = 0
    if (slab === undefined || this.#at + wanted > slab.bytes.length) {
      slab?.release()
      slab = this.#slab = this.#slabs.take(wanted, inFlightBytes)
      this.#at = 0
    }
    slab.retain()
    io.slab = slab
    io.at = this.#at + HEADER_BYTES
    this.#at += wanted
  }

  /** The connection has nothing under way: others may need the memory more. */
  rest(): void {
    if (this.#slab !== undefined && this.#slabs.wantsBack(this.#slab)) this.release()
  }

  release(): void {
    this.#slab?.release()
    this.#slab = undefined
  }
}
