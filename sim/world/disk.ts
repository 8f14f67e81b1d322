import type { Random } from './random.ts'

/* What a site keeps, and what is left of it after each kind of death.
 *
 *                       process dies        power is lost
 *   volume block        stays               the synced value, or any value written since
 *   whole file          old or new          old or new (written, fsynced and renamed as one)
 *   mapped file         stays               gone
 *
 * A block holds the number of the write that made it, 0 for zeroes: contents are compared by comparing numbers.
 */

interface Version {
  readonly order: number
  readonly value: number
}

export class BlockDisk {
  /** What a reader sees. */
  readonly current: Int32Array
  /** What is sure to be there after power was lost. */
  readonly synced: Int32Array
  /** Blocks whose content has changed by itself. What they held is still in `current`: who reads one sees something else. */
  readonly rot = new Set<number>()
  readonly #unsynced = new Map<number, Version[]>()
  #order = 0

  constructor(blocks: number) {
    this.current = new Int32Array(blocks)
    this.synced = new Int32Array(blocks)
  }

  write(block: number, value: number): void {
    this.current[block] = value
    this.rot.delete(block)
    const version = { order: ++this.#order, value }
    const versions = this.#unsynced.get(block)
    if (versions === undefined) this.#unsynced.set(block, [version])
    else versions.push(version)
  }

  /** What somebody reads who compares: no write is negative. */
  read(block: number): number {
    const value = this.current[block] as number
    return this.rot.has(block) ? -1 - value : value
  }

  /** An fdatasync begins: its end makes everything up to here durable. */
  syncMark(): number {
    return this.#order
  }

  /** It ended. `from` and `to`: the blocks of the volume that it was for. */
  syncDone(mark: number, from = 0, to = this.current.length): void {
    for (const [block, versions] of this.#unsynced) {
      if (block < from || block >= to) continue
      let kept = 0
      for (const version of versions) {
        if (version.order > mark) break
        this.synced[block] = version.value
        kept++
      }
      if (kept === versions.length) this.#unsynced.delete(block)
      else if (kept > 0) versions.splice(0, kept)
    }
  }

  /** It is replaced by an empty one. */
  replace(): void {
    this.current.fill(0)
    this.synced.fill(0)
    this.rot.clear()
    this.#unsynced.clear()
  }

  /** The kernel wrote back what it liked: each block keeps its synced value or any later one. */
  losePower(random: Random): void {
    for (const [block, versions] of this.#unsynced) {
      const survivor = random.below(versions.length + 1)
      const version = survivor === 0 ? undefined : versions[survivor - 1]
      const value = version?.value ?? (this.synced[block] as number)
      this.current[block] = value
      this.synced[block] = value
    }
    this.#unsynced.clear()
  }
}

/** A small file that is replaced as a whole: written aside, fsynced, renamed. */
export class WholeFile<T> {
  value: T
  #pending: { value: T } | null = null

  constructor(value: T) {
    this.value = value
  }

  begin(value: T): void {
    this.#pending = { value }
  }

  /** The rename is durable. */
  done(): void {
    if (this.#pending !== null) this.value = this.#pending.value
    this.#pending = null
  }

  /** The process or the host died: a replacement under way happened, or did not. */
  interrupted(random: Random): void {
    if (this.#pending !== null && random.chance(0.5)) this.value = this.#pending.value
    this.#pending = null
  }
}
