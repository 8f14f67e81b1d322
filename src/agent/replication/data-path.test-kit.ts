import { EventEmitter } from 'node:events'
import type { Socket } from 'node:net'
import type { Clock } from '#base/clock.ts'
import type { Fault } from '#base/fault.ts'
import { BLOCK_BYTES, FRAME, FRAME_BYTES, FrameHeader } from '#wire/link/frame.ts'
import type { Extent } from '#agent/volumes/volume.ts'
import type { BlockSet } from './copy/block-set.ts'
import { REGION_BYTES } from './copy/regions.ts'
import type { DialledBuffer } from './link.ts'

/* What tests of the data path are made of: volumes with a page cache and a disk, maps that only remember, and a socket whose bytes stay where the sender
 * has them until the test lets them through. What must hold at a step is written into `broken` where it does not. */

/** A client's payload is made of its stamp: so each sector tells whose write it shows. 0 is nobody's. */
export const SECTOR_BYTES = 512

/** Failed beliefs, in words. Empty at the end of every test. */
export type Broken = string[]

/** A volume in memory. */
export class MemoryVolume {
  readonly id = 'v'
  sizeBytes: number
  readonly bytes: Buffer
  failed: string | undefined
  dirtyBytes = 0
  /** As `Volume.guard`; null: nothing lives from the volume. */
  guardWith: ((offset: number, length: number) => Promise<void> | null) | null = null
  /** Before each change. */
  onChange: (offset: number, length: number) => void = () => undefined
  /** While it is read off the loop, and when its extents have been told. */
  onRead: () => void = () => undefined
  onExtents: () => void = () => undefined
  /** Of writes and zeroes, of reads off the loop, of fdatasyncs. */
  fault: Fault | undefined
  readFault: Fault | undefined
  syncFault: Fault | undefined
  /** For each stamp, after how many changes it was here. */
  readonly #seen = new Map<number, number>()
  #changes = 0
  #durable = 0
  syncs = 0

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes
    this.bytes = Buffer.alloc(sizeBytes)
  }

  /** The write of this stamp has been carried out here. */
  saw(stamp: number): boolean {
    return this.#seen.has(stamp)
  }

  /** An fdatasync that began after the write of this stamp has ended. */
  isDurable(stamp: number): boolean {
    return (this.#seen.get(stamp) ?? Number.POSITIVE_INFINITY) <= this.#durable
  }

  guard(offset: number, length: number): Promise<void> | null {
    return this.guardWith?.(offset, length) ?? null
  }

  writeSync(buf: Uint8Array, at: number, length: number, offset: number): void {
    if (this.fault !== undefined) throw this.fault
    this.onChange(offset, length)
    this.bytes.set(buf.subarray(at, at + length), offset)
    this.#changes++
    for (const stamp of stampsOf(this.bytes.subarray(offset, offset + length))) {
      this.#seen.set(stamp, this.#changes)
    }
  }

  zeroSync(offset: number, length: number): void {
    if (this.fault !== undefined) throw this.fault
    this.onChange(offset, length)
    this.bytes.fill(0, offset, offset + length)
    this.#changes++
  }

  readSync(buf: Uint8Array, at: number, length: number, offset: number): void {
    buf.set(this.bytes.subarray(offset, offset + length), at)
  }

  readCached(): boolean {
    return false
  }

  /** What it held when it was asked, a turn later. */
  async read(buf: Uint8Array, at: number, length: number, offset: number): Promise<void> {
    if (this.readFault !== undefined) throw this.readFault
    const bytes = Buffer.from(this.bytes.subarray(offset, offset + length))
    this.onRead()
    await nextTurn()
    buf.set(bytes, at)
  }

  readThen(
    buf: Uint8Array,
    at: number,
    length: number,
    offset: number,
    done: (error: Error | null) => void,
  ): void {
    const bytes = Buffer.from(this.bytes.subarray(offset, offset + length))
    setImmediate(() => {
      buf.set(bytes, at)
      done(null)
    })
  }

  async flush(): Promise<void> {
    const begun = this.#changes
    this.syncs++
    await nextTurn()
    if (this.syncFault !== undefined) throw this.syncFault
    this.#durable = Math.max(this.#durable, begun)
  }

  /** Whole blocks of zeroes are holes. */
  extents(offset: number, length: number, countMax = 4096): Promise<readonly Extent[]> {
    const found: { offset: number; length: number; hole: boolean }[] = []
    for (let at = offset; at < offset + length; ) {
      const end = Math.min((Math.floor(at / BLOCK_BYTES) + 1) * BLOCK_BYTES, offset + length)
      const hole = this.bytes.subarray(at, end).equals(ZEROES.subarray(0, end - at))
      const last = found.at(-1)
      if (last?.hole === hole) last.length += end - at
      else if (found.length === countMax) break
      else found.push({ offset: at, length: end - at, hole })
      at = end
    }
    this.onExtents()
    return Promise.resolve(found)
  }

  prepareFlush(): void {
    return undefined
  }

  writeBehind(): void {
    return undefined
  }
}

const ZEROES = Buffer.alloc(BLOCK_BYTES)

/** The stamps that whole sectors of the bytes show. */
export function stampsOf(bytes: Buffer): Set<number> {
  const stamps = new Set<number>()
  for (let at = 0; at + 4 <= bytes.length; at += SECTOR_BYTES) stamps.add(bytes.readUInt32BE(at))
  stamps.delete(0)
  return stamps
}

/** Intent bits that are durable a turn after they were saved. */
export class MemoryIntent {
  readonly #set = new Set<number>()
  readonly durable = new Set<number>()

  #regions(offset: number, length: number): number[] {
    return range(offset, length, REGION_BYTES)
  }

  touch(offset: number, length: number): boolean {
    return this.#regions(offset, length).every((region) => this.durable.has(region))
  }

  set(offset: number, length: number): void {
    for (const region of this.#regions(offset, length)) this.#set.add(region)
  }

  async save(): Promise<void> {
    const saved = [...this.#set]
    await nextTurn()
    for (const region of saved) this.durable.add(region)
  }

  clear(): void {
    this.#set.clear()
    this.durable.clear()
  }
}

export class MemoryChanges {
  readonly marked = new Set<number>()

  mark(offset: number, length: number): void {
    for (const block of range(offset, length, BLOCK_BYTES)) this.marked.add(block)
  }

  covers(offset: number, length: number): boolean {
    return range(offset, length, BLOCK_BYTES).every((block) => this.marked.has(block))
  }

  addTo(set: BlockSet): void {
    for (const block of this.marked) set.add(block)
  }
}

function range(offset: number, length: number, unit: number): number[] {
  const first = Math.floor(offset / unit)
  const last = Math.floor((offset + Math.max(length, 1) - 1) / unit)
  return Array.from({ length: last - first + 1 }, (_, i) => first + i)
}

export const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** A clock that the test moves. */
export class TestClock implements Clock {
  ms = 1_000
  #timers: { readonly atMs: number; readonly fire: () => void }[] = []

  wallMs(): number {
    return this.ms
  }

  bootMs(): number {
    return this.ms
  }

  after(delayMs: number, fire: () => void): () => void {
    const timer = { atMs: this.ms + delayMs, fire }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter((one) => one !== timer)
    }
  }

  pass(ms: number): void {
    this.ms += ms
    const due = this.#timers.filter(({ atMs }) => atMs <= this.ms)
    this.#timers = this.#timers.filter(({ atMs }) => atMs > this.ms)
    for (const { fire } of due) fire()
  }
}

/** One end of a link. What is written lies in the memory of who wrote it until it is let through. */
export class TestSocket extends EventEmitter {
  readonly queue: Buffer[] = []
  /** Told of each piece when it is written. */
  onWrite: (bytes: Buffer) => void = () => undefined
  destroyed = false
  /** As if each byte were so many. */
  weight = 1

  get writableLength(): number {
    return this.weight * this.queue.reduce((sum, { length }) => sum + length, 0)
  }

  write(bytes: Buffer): boolean {
    if (this.destroyed) return false
    this.onWrite(bytes)
    this.queue.push(bytes)
    return true
  }

  end(): void {
    return undefined
  }

  resume(): void {
    return undefined
  }

  destroy(): void {
    this.destroyed = true
    this.queue.length = 0
  }

  asSocket(): Socket {
    return this as unknown as Socket
  }
}

/** Lets up to `bytes` of what the writer has written arrive at the replica. */
export function deliver(from: TestSocket, to: DialledBuffer, bytes: number): void {
  let left = bytes
  while (left > 0 && !to.full) {
    const first = from.queue[0]
    if (first === undefined) return
    const place = to.room()
    const count = Math.min(left, first.length, place.length)
    place.set(first.subarray(0, count))
    if (count === first.length) from.queue.shift()
    else from.queue[0] = first.subarray(count)
    left -= count
    to.added(count, place)
  }
}

/** Looks at frames on their way: numbers follow each other, each was noted before, and none of another link comes in between. */
export class FrameWatch {
  readonly #header = new FrameHeader()
  readonly #broken: Broken
  readonly #noted: () => number
  #last: number | null = null

  constructor(broken: Broken, noted: () => number) {
    this.#broken = broken
    this.#noted = noted
  }

  look(bytes: Buffer): void {
    for (let at = 0; at + FRAME_BYTES <= bytes.length; ) {
      if (!this.#header.read(bytes, at)) return void this.#broken.push('no frame was sent')
      const { type, seq, payloadBytes } = this.#header
      at += FRAME_BYTES + payloadBytes
      if (type !== FRAME.WRITE && type !== FRAME.ZERO) continue
      if (seq > this.#noted()) this.#broken.push(`frame ${seq} was sent before it was noted`)
      if (this.#last !== null && seq !== this.#last + 1) {
        this.#broken.push(`frame ${seq} was sent behind ${this.#last}`)
      }
      this.#last = seq
    }
  }
}

/** A snapshot lives from the volume: each block is preserved, which takes a turn, before it is changed for the first time. */
export function guarded(volume: MemoryVolume, broken: Broken): void {
  const block = BLOCK_BYTES
  const preserved = new Set<number>()
  const lacking = (offset: number, length: number): number[] => {
    const last = Math.floor((offset + Math.max(length, 1) - 1) / block)
    const found: number[] = []
    for (let at = Math.floor(offset / block); at <= last; at++)
      if (!preserved.has(at)) found.push(at)
    return found
  }
  volume.guardWith = (offset, length) => {
    const blocks = lacking(offset, length)
    if (blocks.length === 0) return null
    return nextTurn().then(() => {
      for (const one of blocks) preserved.add(one)
    })
  }
  const inner = volume.onChange
  volume.onChange = (offset, length) => {
    if (lacking(offset, length).length > 0) broken.push('changed before it was preserved')
    inner(offset, length)
  }
}
