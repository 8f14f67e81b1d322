import { closeSync, fdatasyncSync, openSync, writeSync, fstatSync } from 'node:fs'
import { crc32c } from '@node-rs/crc32'
import { assert } from '#base/assert.ts'
import { Fault } from '#base/fault.ts'
import { hasNoRoom, readWholeSync, writeWholeSync } from '#base/system/whole-io.ts'
import { mapShared, type SharedMemory } from '#base/system/shared-memory.ts'
import { BLOCK_BYTES } from '#wire/link/frame.ts'
import { VOLUME_NO_SPACE } from '#agent/volumes/faults.ts'
import { blockCount, type BlockSet } from './block-set.ts'

/* The change map of one member at one site: which 64 KiB blocks this side has changed and the other may lack, since the base, the epoch
 * of the last rise that both took part in.
 *
 *     page 0    header                                      docs/formats/change-map.md
 *     4096 ...  one bit per block, least significant first
 *
 * The file is mapped into memory (MAP_SHARED): a mark costs a few nanoseconds and survives the death of the process, exactly. After
 * another boot the map is worthless, since marks may be missing; then the intent bitmap says which regions to compare. Where
 * nothing can be mapped every bit that changes is a pwrite.
 *
 * Everything here errs to one side: a bit too many costs a block on the link, a bit too few is a lost write. So
 *   - a block is marked before it is changed;
 *   - clearing writes the new base first and takes the bits away after that: whoever dies in between leaves the new base with
 *     all of the old bits. A header that was torn has no valid checksum, and the map counts as damaged;
 *   - a map whose base is older than the one asked for is good: it names what changed since then, and more. One whose base is newer
 *     says nothing about the time before and counts as damaged;
 *   - the file's length and a valid header are made durable whenever they come to be: after a loss of power the map of another boot
 *     sends the resync to the intent regions, a map that is missing or cut short to everything.
 */

export const HEAD_BYTES = 4096
const MAGIC = 0x4846434d
const VERSION = 1
const BOOT_BYTES = 40
const CRC_AT = 64

/** exact: names every changed block · other_boot: marks may be missing, fall back to the intent regions · damaged: nothing is known */
export type ChangeMapTrust = 'exact' | 'other_boot' | 'damaged'

interface Head {
  readonly base: number
  readonly sizeBytes: number
  readonly bootId: string
}

export function encodeChangeHead({ base, sizeBytes, bootId }: Head): Buffer {
  const head = Buffer.alloc(CRC_AT + 4)
  head.writeUInt32BE(MAGIC, 0)
  head.writeUInt16BE(VERSION, 4)
  head.writeBigUInt64BE(BigInt(base), 8)
  head.writeBigUInt64BE(BigInt(sizeBytes), 16)
  head.write(bootId, 24, 'latin1')
  head.writeUInt32BE(crc32c(head.subarray(0, CRC_AT)), CRC_AT)
  return head
}

/** null: damaged, or never written. */
export function decodeChangeHead(head: Buffer): Head | null {
  if (head.length < CRC_AT + 4 || head.readUInt32BE(0) !== MAGIC) return null
  if (head.readUInt16BE(4) !== VERSION) return null
  if (head.readUInt32BE(CRC_AT) !== crc32c(head.subarray(0, CRC_AT))) return null
  const base = Number(head.readBigUInt64BE(8))
  const sizeBytes = Number(head.readBigUInt64BE(16))
  if (!Number.isSafeInteger(base) || !Number.isSafeInteger(sizeBytes)) return null
  const name = head.subarray(24, 24 + BOOT_BYTES)
  const end = name.indexOf(0)
  return { base, sizeBytes, bootId: name.toString('latin1', 0, end < 0 ? BOOT_BYTES : end) }
}

export interface ChangeMapOptions {
  readonly path: string
  readonly sizeBytes: number
  readonly bootId: string
  /** The session has not had this member before: a file that does not exist means that nothing has changed. Otherwise it is a
   *  loss. */
  readonly fresh: boolean
  /** false: as where files cannot be mapped. */
  readonly map?: boolean
}

/** Bytes of a file for a volume of that size: whole pages. */
const fileBytes = (sizeBytes: number): number =>
  HEAD_BYTES + Math.max(1, Math.ceil(blockCount(sizeBytes) / 8 / HEAD_BYTES)) * HEAD_BYTES

const ZEROES = Buffer.alloc(64 * 1024)

export class ChangeMap {
  readonly #fd: number
  readonly #bootId: string
  readonly #mayMap: boolean
  /** All but the last are what the map was before it grew. They stay mapped: somebody may still hold their bytes. */
  readonly #mappings: SharedMemory[] = []
  #bits: Uint8Array = new Uint8Array(0)
  #mapped = false
  #blocks = 0
  #sizeBytes = 0
  #base = 0
  #state: ChangeMapTrust = 'damaged'
  readonly #path: string

  /** Opens or creates the map. Throws VOLUME_NO_SPACE when the disk has no room for it; a later try is a new one. */
  constructor(options: ChangeMapOptions) {
    const { path, bootId, map = true } = options
    assert(Buffer.byteLength(bootId) <= BOOT_BYTES, 'a boot id has at most 40 characters')
    this.#bootId = bootId
    this.#mayMap = map
    this.#path = path
    this.#fd = needsRoom(path, () => {
      closeSync(openSync(path, 'a+', 0o600))
      return openSync(path, 'r+')
    })
    try {
      needsRoom(path, () => this.#begin(options))
    } catch (error) {
      this.close()
      throw error
    }
  }

  #begin({ sizeBytes, bootId, fresh }: ChangeMapOptions): void {
    const begins = fresh && fstatSync(this.#fd).size === 0
    const page = Buffer.alloc(HEAD_BYTES)
    readWholeSync(this.#fd, page, 0)
    const head = decodeChangeHead(page)
    const whole = head !== null && fstatSync(this.#fd).size >= fileBytes(head.sizeBytes)
    if (begins) this.#state = 'exact'
    else if (!whole) this.#state = 'damaged'
    else this.#state = head.bootId === bootId ? 'exact' : 'other_boot'
    this.#base = begins ? 0 : (head?.base ?? 0)
    // Before the file is filled up: or a shortened one would look whole at the next start.
    if (this.#state === 'damaged') writeWholeSync(this.#fd, Buffer.alloc(HEAD_BYTES), 0)
    this.#fit(Math.max(sizeBytes, whole ? head.sizeBytes : 0))
    // A map of another boot keeps its header: only `clear` makes it count again.
    if (this.#state === 'exact') this.#writeHead()
    if (begins) fdatasyncSync(this.#fd)
  }

  /** Epoch that the marks count from. */
  get base(): number {
    return this.#base
  }

  /** What the map is worth to somebody who needs to know what changed since the rise to epoch `base`. */
  trust(base: number): ChangeMapTrust {
    return this.#state === 'exact' && this.#base > base ? 'damaged' : this.#state
  }

  /** Hot path: before bytes [offset, offset + length) are changed. */
  mark(offset: number, length: number): void {
    if (length === 0) return
    const bits = this.#bits
    const last = Math.floor((offset + length - 1) / BLOCK_BYTES)
    assert(last < this.#blocks, 'a map covers its volume')
    for (let block = Math.floor(offset / BLOCK_BYTES); block <= last; block++) {
      const at = block >>> 3
      const byte = bits[at] as number
      const bit = 1 << (block & 7)
      if ((byte & bit) !== 0) continue
      bits[at] = byte | bit
      if (!this.#mapped) writeSync(this.#fd, bits, at, 1, HEAD_BYTES + at)
    }
  }

  /** Everything may differ. */
  markAll(): void {
    this.#bits.fill(0xff)
    if (!this.#mapped) this.#writeBits()
  }

  has(block: number): boolean {
    return ((this.#bits[block >>> 3] as number) & (1 << (block & 7))) !== 0
  }

  /** Adds the marked blocks to `set`. */
  addTo(set: BlockSet): void {
    set.addBits(this.#bits, 0)
  }

  /** Marks of blocks [first, first + count) as they are now; both are multiples of 8. Zero where the volume ends. */
  slice(first: number, count: number): Buffer {
    assert(first % 8 === 0 && count % 8 === 0, 'marks are told in whole bytes')
    const bytes = Buffer.alloc(count / 8)
    bytes.set(this.#bits.subarray(first / 8, (first + count) / 8))
    return bytes
  }

  /** Both sides are equal as of the rise to epoch `base`: the map begins empty, and counts for this boot from now on. */
  clear(base: number): void {
    const healed = this.#state === 'damaged'
    this.#base = base
    this.#state = 'exact'
    this.#writeHead()
    this.#bits.fill(0)
    if (!this.#mapped) this.#writeBits()
    if (healed) fdatasyncSync(this.#fd)
  }

  /** The volume will have grown; call it before it can be written there. The new part reads as zeroes on both sides: unmarked.
   *  Throws VOLUME_NO_SPACE, and is then as it was. */
  grow(sizeBytes: number): void {
    if (sizeBytes <= this.#sizeBytes) return
    needsRoom(this.#path, () => {
      this.#fit(sizeBytes)
      if (this.#state === 'exact') this.#writeHead()
      fdatasyncSync(this.#fd)
    })
  }

  close(): void {
    this.#bits = new Uint8Array(0)
    this.#blocks = 0
    for (const mapping of this.#mappings) mapping.unmap()
    this.#mappings.length = 0
    closeSync(this.#fd)
  }

  /** File and memory cover a volume of `sizeBytes`. */
  #fit(sizeBytes: number): void {
    const bytes = fileBytes(sizeBytes)
    // Real zeroes, because a store into a hole on a full disk would kill the process.
    for (let at = fstatSync(this.#fd).size; at < bytes; ) {
      at += writeSync(this.#fd, ZEROES, 0, Math.min(ZEROES.length, bytes - at), at)
    }
    const stored = new Uint8Array(bytes - HEAD_BYTES)
    // Also where it is mapped: there a page that cannot be read kills the process, here it is an error.
    readWholeSync(this.#fd, stored, HEAD_BYTES)
    const shared = this.#mayMap ? mapShared(this.#fd, bytes) : null
    const old = this.#bits
    if (shared !== null) {
      this.#mappings.push(shared)
      this.#bits = new Uint8Array(shared.bytes, HEAD_BYTES)
    } else {
      this.#bits = stored
      if (this.#mapped) this.#bits.set(old)
    }
    this.#mapped = shared !== null
    this.#sizeBytes = sizeBytes
    this.#blocks = blockCount(sizeBytes)
  }

  #writeHead(): void {
    const { bootId, base, sizeBytes } = {
      bootId: this.#bootId,
      base: this.#base,
      sizeBytes: this.#sizeBytes,
    }
    const head = encodeChangeHead({ bootId, base, sizeBytes })
    writeWholeSync(this.#fd, head, 0)
  }

  #writeBits(): void {
    writeWholeSync(this.#fd, this.#bits, HEAD_BYTES)
  }
}

/** A disk that is full is one of the volumes' and no mistake of ours: whoever asked for a member hears of it. */
function needsRoom<T>(path: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    if (!hasNoRoom(error)) throw error
    throw new Fault(VOLUME_NO_SPACE, `making room for ${path}`, {}, error)
  }
}
