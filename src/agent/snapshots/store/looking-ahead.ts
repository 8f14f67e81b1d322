/* Which blocks will be asked for next, when they are asked for in order.
 *
 * A block is preserved before it is changed, and whoever changes it waits for that. When a long stretch is changed from its beginning to its end, as a
 * resync does, the next blocks of it can be preserved while those before them are being changed: then nobody waits. How far ahead follows how
 * long the stretch has been so far, so that what is preserved needlessly behind its end is at most half as much again.
 */

/** Who copies a stretch with several reads under way sends them as they end: so many blocks may be missing for the moment. */
const GAP_BLOCKS = 64
/** Stretches that are followed at one time; a new one takes the place of the one that was longest not heard of. */
const STREAMS_MAX = 4

interface Stream {
  readonly start: number
  /** All blocks from the start to here, exclusive, were asked for. */
  next: number
  /** Blocks behind that which were asked for already. */
  readonly early: Set<number>
  /** Up to here, exclusive, blocks were asked for or told to be preserved. */
  ahead: number
}

export interface Stretch {
  readonly first: number
  /** Not empty. */
  readonly count: number
}

export class LookingAhead {
  readonly #stepBlocks: number
  readonly #stepsMax: number
  /** The one heard of last comes first. */
  #streams: Stream[] = []

  /** Blocks of one step, and how many steps ahead it goes at most. */
  constructor(stepBlocks: number, stepsMax: number) {
    this.#stepBlocks = stepBlocks
    this.#stepsMax = stepsMax
  }

  /** Blocks [first, last] are going to be changed. Returns what should be preserved meanwhile, one step of it; null: nothing. */
  asked(first: number, last: number): Stretch | null {
    const stream = this.#streamOf(first, last)
    if (stream === null) return null
    const reach = Math.min((stream.next - stream.start) / 2, this.#stepBlocks * this.#stepsMax)
    if (stream.next + reach - stream.ahead < this.#stepBlocks) return null
    const stretch = { first: stream.ahead, count: this.#stepBlocks }
    stream.ahead += this.#stepBlocks
    return stretch
  }

  /** null: it was asked for before, or leads nowhere yet. */
  #streamOf(first: number, last: number): Stream | null {
    const at = this.#streams.findIndex(
      ({ start, next }) => first >= start - GAP_BLOCKS && first <= next + GAP_BLOCKS,
    )
    const stream = this.#streams[at]
    if (stream === undefined) {
      const begun = { start: first, next: last + 1, early: new Set<number>(), ahead: last + 1 }
      this.#streams = [begun, ...this.#streams].slice(0, STREAMS_MAX)
      return null
    }
    if (at > 0) {
      this.#streams.splice(at, 1)
      this.#streams.unshift(stream)
    }
    const { next, early } = stream
    for (let block = Math.max(first, next); block <= last; block++) early.add(block)
    while (early.delete(stream.next)) stream.next++
    if (stream.next === next) return null
    stream.ahead = Math.max(stream.ahead, stream.next)
    return stream
  }
}
