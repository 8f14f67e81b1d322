import { alignedBuffer, alignedShared, type SharedPiece } from '#base/system/direct-io.ts'
import { BATCHES_PER_THREAD, PACKS_IN_FLIGHT, REST_MS } from '../limits.ts'

/* Memory that has nothing to do, in the manner of resting-threads.ts. Pages that are touched for the first time, and the collection of garbage that large pieces of
 * memory set off, cost a small backup more than its work: so who is done leaves its pieces here for a while. A piece is taken by who asks for just its size. */

class Resting<T> {
  readonly #make: (length: number) => T
  readonly #lengthOf: (piece: T) => number
  readonly #pieces = new Map<number, T[]>()
  readonly #piecesMax: number
  #end: NodeJS.Timeout | undefined

  /** `piecesMax`: of one size. */
  constructor(make: (length: number) => T, lengthOf: (piece: T) => number, piecesMax: number) {
    this.#make = make
    this.#lengthOf = lengthOf
    this.#piecesMax = piecesMax
  }

  /** Not zeroed. */
  take(length: number): T {
    return this.#pieces.get(length)?.pop() ?? this.#make(length)
  }

  /** Nobody may read or write the piece any more: no thread, and no system call that somebody stopped waiting for. */
  rest(piece: T): void {
    const length = this.#lengthOf(piece)
    const same = this.#pieces.get(length) ?? []
    if (same.length < this.#piecesMax) same.push(piece)
    this.#pieces.set(length, same)
    clearTimeout(this.#end)
    this.#end = setTimeout(() => this.#pieces.clear(), REST_MS)
    this.#end.unref()
  }
}

/** Pieces that threads share: what two threads go round with. */
export const restingShared = new Resting<SharedPiece>(
  alignedShared,
  ({ length }) => length,
  2 * BATCHES_PER_THREAD,
)
/** Buffers that begin with a page: what packs are made in. */
export const restingBuffers = new Resting<Buffer>(
  alignedBuffer,
  ({ length }) => length,
  PACKS_IN_FLIGHT + 1,
)
