/** Granularity of the intent bitmap and of copies. */
export const REGION_BYTES = 4 * 1024 * 1024

export const regionCount = (sizeBytes: number): number => Math.ceil(sizeBytes / REGION_BYTES)

/** One bit per region. */
export class RegionSet {
  #bits: Uint8Array
  #count = 0
  #regions: number

  constructor(regions: number, full = false) {
    this.#regions = regions
    this.#bits = new Uint8Array(Math.ceil(regions / 8))
    if (full) this.addAll()
  }

  /** Number of regions in the set. */
  get count(): number {
    return this.#count
  }

  get regions(): number {
    return this.#regions
  }

  has(region: number): boolean {
    return ((this.#bits[region >> 3] as number) & (1 << (region & 7))) !== 0
  }

  /** True when it was not in the set before. */
  add(region: number): boolean {
    if (region >= this.#regions || this.has(region)) return false
    const at = region >> 3
    this.#bits[at] = (this.#bits[at] as number) | (1 << (region & 7))
    this.#count++
    return true
  }

  delete(region: number): boolean {
    if (!this.has(region)) return false
    const at = region >> 3
    this.#bits[at] = (this.#bits[at] as number) & ~(1 << (region & 7))
    this.#count--
    return true
  }

  addAll(): void {
    for (let region = 0; region < this.#regions; region++) this.add(region)
  }

  clear(): void {
    this.#bits.fill(0)
    this.#count = 0
  }

  /** The first member at or behind `from`; -1 when there is none. */
  next(from: number): number {
    for (let region = from; region < this.#regions; ) {
      if ((region & 7) === 0 && this.#bits[region >> 3] === 0) {
        region += 8
        continue
      }
      if (this.has(region)) return region
      region++
    }
    return -1
  }

  /** Adds every region that [offset, offset + length) touches. */
  addRange(offset: number, length: number): void {
    if (length === 0) return
    const last = Math.floor((offset + length - 1) / REGION_BYTES)
    for (let region = Math.floor(offset / REGION_BYTES); region <= last; region++) this.add(region)
  }

  /** Makes room for more regions; with `full`, the new ones are in the set. */
  grow(regions: number, full = false): void {
    if (regions <= this.#regions) return
    const bits = new Uint8Array(Math.ceil(regions / 8))
    bits.set(this.#bits)
    const from = this.#regions
    this.#bits = bits
    this.#regions = regions
    if (full) for (let region = from; region < regions; region++) this.add(region)
  }
}
