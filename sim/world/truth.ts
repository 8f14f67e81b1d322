/* What an all-knowing observer holds against the system.
 *
 * Every write gets a number when the writing site gives it its place in the group's order; a block holds the number of the
 * write that made it. Numbers only rise, whoever writes, so "the image of a side is a prefix of the group's order" can
 * be decided by comparing numbers:
 *
 *     p(b)  the number that block b holds            q(b)  the next number written to block b after p(b)
 *     image = apply(first N)  for some N    ⇔    max p(b) < min q(b)  over all blocks
 *
 * (The N is max p. A write over several blocks is one number, so half of it fails the test as it should.)
 *
 * When a site starts to serve, the history goes on from the prefix that it holds. A site that holds no prefix (it lost
 * power, or was forced) begins a new history with its image as the base. A replica must be a prefix of the present
 * history, or of the one that it was a prefix of before, and never goes back.
 */

/** A promise was broken. The message names it; the seed replays it. */
export class Violation extends Error {
  override readonly name = 'Violation'
}

class History {
  readonly id: number
  readonly base: Int32Array
  /** Per block the numbers of its writes, rising. */
  readonly #writes: number[][]

  constructor(id: number, base: Int32Array) {
    this.id = id
    this.base = base.slice()
    this.#writes = Array.from(base, () => [])
  }

  append(blocks: readonly number[], number: number): void {
    for (const block of blocks) (this.#writes[block] as number[]).push(number)
  }

  /** Forgets what came after the first `last`: the writer that goes on from here never had it. */
  truncate(last: number): void {
    for (const writes of this.#writes) {
      while (writes.length > 0 && (writes.at(-1) as number) > last) writes.pop()
    }
  }

  /** The N for which `image` is apply(first N); or a sentence about why there is none. */
  prefix(image: Int32Array): number | string {
    let last = 0
    let lastBlock = -1
    let next = Number.POSITIVE_INFINITY
    let nextBlock = -1
    for (let block = 0; block < image.length; block++) {
      const value = image[block] as number
      const writes = this.#writes[block] as number[]
      let index = -1
      if (value !== this.base[block]) {
        index = indexOf(writes, value)
        if (index < 0) return `block ${block} holds ${value}, which is no write to it in this order`
        if (value > last) {
          last = value
          lastBlock = block
        }
      }
      const after = writes[index + 1]
      if (after !== undefined && after < next) {
        next = after
        nextBlock = block
      }
    }
    if (last < next) return last
    return `block ${lastBlock} has write ${last}, but block ${nextBlock} lacks the earlier ${next}`
  }
}

function indexOf(sorted: readonly number[], value: number): number {
  let low = 0
  let high = sorted.length - 1
  while (low <= high) {
    const middle = (low + high) >> 1
    const found = sorted[middle] as number
    if (found === value) return middle
    if (found < value) low = middle + 1
    else high = middle - 1
  }
  return -1
}

export interface FlushMark {
  readonly blocks: readonly number[]
  readonly must: readonly number[]
}

export class Truth {
  readonly #blocks: number
  #number = 0
  #history: History
  /** The one before: a replica may be just about to say that it is a prefix of that one. */
  #earlier: History | null = null
  /** The site that began to serve last. */
  #server: string
  /** Per block the last acknowledged write: what a reader must at least see. */
  readonly must: Int32Array
  /** The same, as of the last acknowledged flush: what must survive when all power was lost. */
  readonly mustSurvive: Int32Array
  /** Per block what was left of it when acknowledged writes to it were given up last, and the last number that was given out by then. */
  readonly #leftOf: Int32Array
  readonly #givenUpTo: Int32Array
  readonly #matched = new Map<string, { history: History; upTo: number }>()
  readonly #inFlight = new Map<number, readonly number[]>()
  /** Writes that a site acknowledged alone, and that the other one may lack. */
  readonly #ackedAlone = new Map<number, string>()
  /** Who gave each write its number. */
  readonly #orderedBy = new Map<number, string>()
  /** Of those, the ones that lost: they must be found in a divergence of the site that acknowledged them. */
  readonly #owed = new Map<string, Map<number, number>>()

  constructor(blocks: number, server: string) {
    this.#blocks = blocks
    this.#server = server
    this.#history = new History(0, new Int32Array(blocks))
    this.must = new Int32Array(blocks)
    this.mustSurvive = new Int32Array(blocks)
    this.#leftOf = new Int32Array(blocks)
    this.#givenUpTo = new Int32Array(blocks)
  }

  /**
   * `site` gives a write its place in the order. Returns its number, which becomes the blocks' content. Who orders after
   * another site began to serve orders for nobody: such a write gets a number, but no place.
   */
  ordered(site: string, blocks: readonly number[]): number {
    const number = ++this.#number
    this.#orderedBy.set(number, site)
    if (site === this.#server) this.#history.append(blocks, number)
    this.#inFlight.set(number, blocks)
    return number
  }

  get server(): string {
    return this.#server
  }

  /** `alone`: the site that answered without its peer. */
  acknowledged(number: number, fua: boolean, alone: string | null): void {
    const blocks = this.#take(number)
    if (alone !== null) this.#ackedAlone.set(number, alone)
    for (const block of blocks) {
      if ((this.must[block] as number) < number) this.must[block] = number
      if (fua && (this.mustSurvive[block] as number) < number) this.mustSurvive[block] = number
    }
  }

  #take(number: number): readonly number[] {
    const blocks = this.#inFlight.get(number)
    if (blocks === undefined) throw new Violation(`write ${number} is acknowledged twice`)
    this.#inFlight.delete(number)
    return blocks
  }

  /** A write that is lost in the moment in which it is acknowledged: the other site serves already. */
  divergent(site: string, number: number): void {
    for (const block of this.#take(number)) this.#owes(site).set(block, number)
  }

  #owes(site: string): Map<number, number> {
    let owed = this.#owed.get(site)
    if (owed === undefined) this.#owed.set(site, (owed = new Map()))
    return owed
  }

  /** Power was lost at `site`: what is not there any more cannot be asked back. */
  lost(site: string, image: Int32Array): void {
    for (const [block, number] of this.#owed.get(site) ?? []) {
      if (!this.#holds(site, image, block, number)) this.#owed.get(site)?.delete(block)
    }
  }

  /** The block holds that write, or one that the same site put over it. */
  #holds(site: string, image: Int32Array, block: number, number: number): boolean {
    const value = image[block] as number
    return value === number || (value > number && this.#orderedBy.get(value) === site)
  }

  /** Null, or a sentence: a write that was acknowledged alone, lost, and is in none of the divergences kept at `site`. */
  forgotten(
    site: string,
    image: Int32Array,
    divergences: readonly { readonly image: Int32Array; readonly noted: Uint8Array | null }[],
  ): string | null {
    for (const [block, number] of this.#owed.get(site) ?? []) {
      if (this.#holds(site, image, block, number)) continue
      const keeps = ({ image, noted }: (typeof divergences)[number]) =>
        noted?.[block] !== 0 && this.#holds(site, image, block, number)
      if (divergences.some(keeps)) continue
      return `write ${number} to block ${block} was acknowledged by ${site} alone, lost, and not kept`
    }
    return null
  }

  /** A client sends a flush of these blocks: what it covers, once acknowledged. */
  flushMark(blocks: readonly number[]): FlushMark {
    return { blocks, must: blocks.map((block) => this.must[block] as number) }
  }

  /**
   * What an answer to the request of `mark` owes: all that was acknowledged when it was sent, but for what was rightly given up since. (A site that is
   * opened by force takes requests before it answers any, and what its operator gave up is settled when it begins to answer.)
   */
  owed({ blocks, must }: FlushMark): readonly number[] {
    return blocks.map((block, index) => {
      const number = must[index] as number
      const left = this.#leftOf[block] as number
      return number > left && number <= (this.#givenUpTo[block] as number) ? left : number
    })
  }

  flushed(mark: FlushMark): void {
    const owed = this.owed(mark)
    mark.blocks.forEach((block, index) => {
      const number = owed[index] as number
      if ((this.mustSurvive[block] as number) < number) this.mustSurvive[block] = number
    })
  }

  /** Null, or a sentence: the first acknowledged write that `image` lacks. */
  lacks(image: Int32Array, must: Int32Array = this.must): string | null {
    for (let block = 0; block < this.#blocks; block++) {
      const has = image[block] as number
      const needs = must[block] as number
      if (has < needs) return `block ${block} holds ${has}, but ${needs} was acknowledged`
    }
    return null
  }

  /** No image is complete after power was lost everywhere: only what was flushed is owed. */
  settleForFlushed(): void {
    for (let block = 0; block < this.#blocks; block++) {
      this.#givesUp(block, this.mustSurvive[block] as number)
    }
  }

  /** Of the acknowledged writes to `block` only those up to `left` are owed any more. */
  #givesUp(block: number, left: number): void {
    if ((this.must[block] as number) <= left) return
    this.must[block] = left
    this.#leftOf[block] = left
    this.#givenUpTo[block] = this.#number
  }

  /**
   * An operator forced a failover to a side that lacks writes: what it has is the truth from now on. What `other` acknowledged alone
   * and still has is owed as a divergence. What it gave up was flushed; what it has instead need not be, so that counts as far as it is `durable`.
   */
  settleFor(image: Int32Array, durable: Int32Array, other: string, otherImage: Int32Array): void {
    for (let block = 0; block < this.#blocks; block++) {
      const has = image[block] as number
      const number = this.must[block] as number
      if (number > has && otherImage[block] === number && this.#ackedAlone.get(number) === other) {
        this.#owes(other).set(block, number)
      }
      this.#givesUp(block, has)
      if ((this.mustSurvive[block] as number) > has) {
        this.mustSurvive[block] = Math.min(has, durable[block] as number)
      }
    }
  }

  /** `site` begins to serve with this image. `lossy`: it may lack writes that others rightly still have. */
  serves(site: string, image: Int32Array, lossy: boolean): void {
    const missing = this.lacks(image)
    if (missing !== null) throw new Violation(`promise 1: ${site} begins to serve, ${missing}`)
    this.#owed.delete(site)
    this.#server = site
    const prefix = this.#history.prefix(image)
    if (typeof prefix === 'number' && !lossy) this.#history.truncate(prefix)
    else {
      this.#earlier = this.#history
      this.#history = new History(this.#history.id + 1, image)
    }
    const upTo = typeof prefix === 'number' && !lossy ? prefix : 0
    this.#matched.set(site, { history: this.#history, upTo })
  }

  /** `site` calls itself consistent with this image. */
  consistent(site: string, image: Int32Array): void {
    const before = this.#matched.get(site)
    const now = this.#history.prefix(image)
    if (typeof now === 'number') {
      if (before?.history === this.#history && now < before.upTo) {
        throw new Violation(`promise 2: ${site} went back from ${before.upTo} to ${now}`)
      }
      this.#matched.set(site, { history: this.#history, upTo: now })
      return
    }
    const history = before?.history ?? this.#earlier
    const earlier = history?.prefix(image) ?? 'there was no other order'
    if (history !== null && typeof earlier === 'number' && earlier >= (before?.upTo ?? 0)) {
      this.#matched.set(site, { history, upTo: earlier })
      return
    }
    throw new Violation(`promise 2: ${site} calls itself consistent; ${now} (before: ${earlier})`)
  }

  /** The image of `site` was changed in another way than in order (power loss, copy): it matches nothing now. */
  disturbed(site: string): void {
    this.#matched.delete(site)
  }
}
