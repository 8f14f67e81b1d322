import { assert } from '#base/assert.ts'

/* Receive memory that is handed on without copying.
 *
 * A connection copies what arrives into the slab it is filling. A write's payload then stays where it landed until every
 * reader is done with it: the local file, and the replication link that sends the very same bytes. Each reader holds one
 * reference. Only the last release makes the memory reusable; releasing once too often would let a new request overwrite
 * bytes that are still on their way to the other site, which is silent corruption, hence the assertions.
 */

export class Slab {
  readonly bytes: Buffer
  readonly #pool: SlabPool
  #references = 0

  constructor(pool: SlabPool, bytes: Buffer) {
    this.#pool = pool
    this.bytes = bytes
  }

  get references(): number {
    return this.#references
  }

  /** One more reader. Whoever calls it must call `release` exactly once. */
  retain(): void {
    this.#references++
  }

  release(): void {
    assert(this.#references > 0, 'a slab is released at most as often as it was retained')
    if (--this.#references === 0) this.#pool.recycle(this)
  }
}

/** Hands out slabs of one size and keeps a few idle ones, because fresh memory costs page faults on its first use. */
export class SlabPool {
  readonly slabBytes: number
  readonly #idleCountMax: number
  readonly #idle: Slab[] = []
  #inUse = 0
  #made = 0

  /** `idleCountMax`: idle slabs kept for reuse; beyond it a released slab goes to the garbage collector. */
  constructor({ slabBytes, idleCountMax }: { slabBytes: number; idleCountMax: number }) {
    this.slabBytes = slabBytes
    this.#idleCountMax = idleCountMax
  }

  /** Slabs that somebody holds a reference to. */
  get inUse(): number {
    return this.#inUse
  }

  /** Slabs that were allocated so far. */
  get made(): number {
    return this.#made
  }

  /** A slab with one reference, the caller's. */
  take(): Slab {
    const slab = this.#idle.pop() ?? this.#make()
    assert(slab.references === 0, 'an idle slab has no reader')
    this.#inUse++
    slab.retain()
    return slab
  }

  #make(): Slab {
    this.#made++
    return new Slab(this, Buffer.allocUnsafeSlow(this.slabBytes))
  }

  /** Called by the slab itself on its last release. */
  recycle(slab: Slab): void {
    this.#inUse--
    if (this.#idle.length < this.#idleCountMax) this.#idle.push(slab)
  }
}
