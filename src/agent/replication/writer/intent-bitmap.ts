import { fdatasync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { promisify } from 'node:util'
import { crc32c } from '@node-rs/crc32'
import { readWhole, writeWholeSync } from '#base/system/whole-io.ts'
import { REGION_BYTES, regionCount } from '../copy/regions.ts'

/* The intent bitmap of one member at its writer: which 4 MiB regions may differ between the sites, or may not be durable on
 * both. A bit is durable before the first touch of its region, and cleared lazily.
 *
 * The file is pages of 4096 bytes, each in two slots:
 *
 *     page p, slot s   at (2p + s) · 4096
 *         0    "HFIB", version u16, zero u16
 *         8    generation u64
 *         16   page number u32
 *         20   CRC32C of the page without these four bytes
 *         24   bits of 32,576 regions, least significant bit first
 *
 * A page is written into the slot with the older generation, and the first time into both: slot 0 as generation 1, slot 1 as 2. A write torn by power loss damages only a slot whose bits were
 * not relied on yet: the touch waits for the sync. But a slot that lost a bit by itself looks the same, and may have been the newer one. And a slot
 * that is empty beside a page that was written more than once is lost, with what may have been newer. So a slot that is neither valid nor empty,
 * an empty one beside a generation above 1, no valid slot, or a file that is too short for its volume: every region of that page counts as set.
 *
 * Clearing: a bit that is cleared in memory may stay set on disk, which is harmless; so the page goes to disk with the
 * next set, or with the next clearing round.
 */

const fdatasyncInPool = promisify(fdatasync)

const PAGE_BYTES = 4096
const HEAD_BYTES = 24
export const REGIONS_PER_PAGE = (PAGE_BYTES - HEAD_BYTES) * 8
/** Neighbours that are set with a region in one sync: 64 MiB in all. Comparing a few clean regions after a crash takes
 *  milliseconds; a sync before every first touch would cost a client its patience on a slow disk. Those that are not touched
 *  are cleared by the next round. */
const SET_TOGETHER = 16
const MAGIC = 0x48464942
const VERSION = 1

interface Page {
  readonly bits: Uint8Array
  generation: number
  slot: 0 | 1
}

export function encodeIntentPage(page: number, generation: number, bits: Uint8Array): Buffer {
  const buf = Buffer.alloc(PAGE_BYTES)
  buf.writeUInt32BE(MAGIC, 0)
  buf.writeUInt16BE(VERSION, 4)
  buf.writeBigUInt64BE(BigInt(generation), 8)
  buf.writeUInt32BE(page, 16)
  buf.set(bits, HEAD_BYTES)
  buf.writeUInt32BE(pageChecksum(buf), 20)
  return buf
}

/** null: damaged, or never written. */
export function decodeIntentPage(
  buf: Buffer,
  page: number,
): { readonly generation: number; readonly bits: Uint8Array } | null {
  if (buf.length < PAGE_BYTES || buf.readUInt32BE(0) !== MAGIC) return null
  if (buf.readUInt16BE(4) !== VERSION || buf.readUInt32BE(16) !== page) return null
  if (buf.readUInt32BE(20) !== pageChecksum(buf)) return null
  return {
    generation: Number(buf.readBigUInt64BE(8)),
    bits: new Uint8Array(buf.subarray(HEAD_BYTES)),
  }
}

/** Never written. */
const isEmpty = (buf: Buffer): boolean => buf.every((byte) => byte === 0)

const pageChecksum = (buf: Buffer): number =>
  crc32c(buf.subarray(HEAD_BYTES), crc32c(buf.subarray(0, 20)))

export class IntentBitmap {
  readonly #file: FileHandle
  readonly #pages: Page[]
  #regions: number
  /** Per region, the clearing round in which it was last touched. */
  #touched: Uint8Array
  #round = 1
  #count = 0
  readonly #unsaved = new Set<number>()
  /** Regions set in memory whose page has not been synced since. */
  readonly #pending = new Set<number>()
  #saving: Promise<void> | undefined
  #saveNext: Promise<void> | undefined
  /** fdatasyncs so far, for tests and statistics. */
  syncs = 0

  private constructor(file: FileHandle, pages: Page[], regions: number) {
    this.#file = file
    this.#pages = pages
    this.#regions = regions
    this.#touched = new Uint8Array(regions)
    for (let region = 0; region < regions; region++) if (this.has(region)) this.#count++
  }

  /**
   * Opens or creates the bitmap of a volume. `fresh`: this site has not written the volume in the session yet, so a file that
   * does not exist means no set bits; otherwise it means that all are.
   */
  static async open(path: string, sizeBytes: number, fresh: boolean): Promise<IntentBitmap> {
    const created = await open(path, 'a+', 0o600)
    const { size } = await created.stat()
    await created.close()
    const file = await open(path, 'r+')
    try {
      return await IntentBitmap.#load(file, sizeBytes, fresh, size)
    } catch (error) {
      await file.close()
      throw error
    }
  }

  static async #load(
    file: FileHandle,
    sizeBytes: number,
    fresh: boolean,
    size: number,
  ): Promise<IntentBitmap> {
    const regions = regionCount(sizeBytes)
    const pages: Page[] = []
    for (let page = 0; page * REGIONS_PER_PAGE < regions; page++) {
      const slots = [0, 1].map((slot) => ({ slot, buf: Buffer.alloc(PAGE_BYTES) }))
      for (const { slot, buf } of slots) {
        await readWhole(file, buf, (2 * page + slot) * PAGE_BYTES)
      }
      const [a = null, b = null] = slots.map(({ buf }) => decodeIntentPage(buf, page))
      const useA = a !== null && (b === null || a.generation > b.generation)
      const found = useA ? a : b
      const bits = found?.bits ?? new Uint8Array(PAGE_BYTES - HEAD_BYTES)
      // A slot that is damaged or lost may have been the newer one. Generation 1 alone is a first write that was torn, or a page of a version that began
      // with one slot.
      const damaged = slots.some(
        ({ slot, buf }) =>
          (slot === 0 ? a : b) === null && (!isEmpty(buf) || (found?.generation ?? 0) > 1),
      )
      if (damaged || (found === null && !(fresh && size === 0))) bits.fill(0xff)
      pages.push({ bits, generation: found?.generation ?? 0, slot: useA ? 0 : 1 })
    }
    const bitmap = new IntentBitmap(file, pages, regions)
    if (size === 0) {
      for (let page = 0; page < pages.length; page++) bitmap.#unsaved.add(page)
      await bitmap.save()
    }
    return bitmap
  }

  get regions(): number {
    return this.#regions
  }

  /** Set bits. */
  get count(): number {
    return this.#count
  }

  has(region: number): boolean {
    const page = this.#pages[Math.floor(region / REGIONS_PER_PAGE)] as Page
    const bit = region % REGIONS_PER_PAGE
    return ((page.bits[bit >> 3] as number) & (1 << (bit & 7))) !== 0
  }

  /** Hot path: true when every region of the range is set, durably; notes the touch. */
  touch(offset: number, length: number): boolean {
    const first = Math.floor(offset / REGION_BYTES)
    const last = length === 0 ? first : Math.floor((offset + length - 1) / REGION_BYTES)
    for (let region = first; region <= last; region++) {
      if (!this.has(region)) return false
      if (this.#pending.size > 0 && this.#pending.has(region)) return false
      this.#touched[region] = this.#round
    }
    return true
  }

  /** Sets the regions of the range; they count once `save` has resolved. */
  set(offset: number, length: number): void {
    const first = Math.floor(offset / REGION_BYTES)
    const last = length === 0 ? first : Math.floor((offset + length - 1) / REGION_BYTES)
    for (let region = first; region <= last; region++) {
      this.#touched[region] = this.#round
      if (!this.has(region)) this.#setGroup(region)
    }
  }

  #setGroup(region: number): void {
    const start = region - (region % SET_TOGETHER)
    for (let one = start; one < Math.min(start + SET_TOGETHER, this.#regions); one++) {
      if (this.has(one)) continue
      this.#flip(one, true)
      this.#pending.add(one)
    }
  }

  #flip(region: number, on: boolean): void {
    const number = Math.floor(region / REGIONS_PER_PAGE)
    const page = this.#pages[number] as Page
    const bit = region % REGIONS_PER_PAGE
    const byte = page.bits[bit >> 3] as number
    page.bits[bit >> 3] = on ? byte | (1 << (bit & 7)) : byte & ~(1 << (bit & 7))
    this.#count += on ? 1 : -1
    this.#unsaved.add(number)
  }

  /** Everything set before the call is durable when it resolves. Callers that come while a save runs share the next one. */
  save(): Promise<void> {
    if (this.#saving === undefined) {
      this.#saving = this.#save().finally(() => {
        this.#saving = undefined
      })
      return this.#saving
    }
    const again = () => {
      this.#saveNext = undefined
      return this.save()
    }
    // Also when this one fails: the next writes everything again that it was to write.
    this.#saveNext ??= this.#saving.then(again, again)
    return this.#saveNext
  }

  async #save(): Promise<void> {
    const pages = [...this.#unsaved]
    this.#unsaved.clear()
    const pending = [...this.#pending]
    const before = pages.map((number) => {
      const { generation, slot } = this.#pages[number] as Page
      return { number, generation, slot }
    })
    // Taken at once, so that a region set while the first page is being written waits for the next save.
    const writes = pages.flatMap((number) => this.#next(number))
    try {
      // Into the page cache at once: a client waits, and a trip to the pool costs more than the write.
      for (const { at, buf } of writes) writeWholeSync(this.#file.fd, buf, at)
      if (writes.length > 0) {
        this.syncs++
        await fdatasyncInPool(this.#file.fd)
      }
    } catch (error) {
      for (const { number, generation, slot } of before) {
        this.#unsaved.add(number)
        // The other slot is what the disk is known to hold: the next attempt does not go over that one.
        Object.assign(this.#pages[number] as Page, { generation, slot })
      }
      throw error
    }
    for (const region of pending) this.#pending.delete(region)
  }

  /** The page's next write: one slot, both the first time. */
  #next(number: number): { readonly at: number; readonly buf: Buffer }[] {
    const page = this.#pages[number] as Page
    const first = page.generation === 0
    page.generation++
    page.slot = page.slot === 0 ? 1 : 0
    const at = (2 * number + page.slot) * PAGE_BYTES
    const write = { at, buf: encodeIntentPage(number, page.generation, page.bits) }
    return first ? [write, ...this.#next(number)] : [write]
  }

  /** Begins a clearing round: bits touched from now on survive `endRound`. */
  beginRound(): void {
    this.#round = this.#round === 1 ? 2 : 1
  }

  /** Clears all bits not touched since `beginRound`. What was written before that is durable on both sides. */
  endRound(): void {
    for (let region = 0; region < this.#regions; region++) {
      if (this.#touched[region] !== this.#round && this.has(region)) this.#flip(region, false)
    }
  }

  /** All regions count as dirty again. */
  setAll(): void {
    for (let region = 0; region < this.#regions; region++)
      if (!this.has(region)) this.#flip(region, true)
  }

  /** The volume has grown; the new part is clean: it reads as zeroes on both sides. */
  grow(sizeBytes: number): void {
    const regions = regionCount(sizeBytes)
    if (regions <= this.#regions) return
    const touched = new Uint8Array(regions)
    touched.set(this.#touched)
    this.#touched = touched
    while (this.#pages.length * REGIONS_PER_PAGE < regions) {
      this.#pages.push({ bits: new Uint8Array(PAGE_BYTES - HEAD_BYTES), generation: 0, slot: 1 })
      this.#unsaved.add(this.#pages.length - 1)
    }
    this.#regions = regions
  }

  async close(): Promise<void> {
    await this.#saving
    await this.#file.close()
  }
}
