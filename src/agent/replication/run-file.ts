import { closeSync, fdatasyncSync, openSync } from 'node:fs'
import { crc32c } from '@node-rs/crc32'
import { assert } from '#base/assert.ts'
import { readWholeSync, writeWholeSync } from '#base/system/whole-io.ts'
import { mapShared, type SharedMemory } from '#base/system/shared-memory.ts'

/* The run file: number of the last write applied (replica) or given out (writer), exact across the death of the process.
 *
 *     0    "HFRN", version u16, zero u16
 *     8    boot id, 40 bytes, ASCII, zero padded
 *     48   CRC32C of [0, 48)
 *     64   slot 0: the number n, then its twin -1 - n, IEEE 754 doubles, little-endian
 *     80   slot 1: the same
 *
 * The file is mapped into memory (MAP_SHARED): a store costs as much as any other, and what was stored survives the death of
 * the process because the page belongs to the kernel. It does not survive power loss, and need not: of another boot the
 * number is worthless. The numbers are doubles because a single aligned store of 8 bytes is never half done, and because
 * a 64-bit integer would cost an allocation. Without mmap (no libc) every store is a pwrite.
 *
 * Slots take turns, the number first and its twin after it. So a process that dies between the two leaves a slot that does not agree with
 * itself, and beside it a whole one with the number before; and a byte that changed by itself is noticed, because no checksum could
 * be kept at this price:
 *
 *     both slots whole                                         the higher number
 *     one whole (w), the other with number n and twin of m,    w: the store of n was cut off, and n counts as not stored
 *       m <= w <= n
 *     anything else                                            not known
 */

const MAGIC = 0x4846524e
const VERSION = 2
const BOOT_BYTES = 40
const NUMBERS_AT = 64
/** Doubles: two per slot. */
const NUMBERS = 4
const FILE_BYTES = 4096

export class RunFile {
  readonly #fd: number
  readonly #bootId: string
  #mapped: SharedMemory | null = null
  #numbers = new Float64Array(NUMBERS)
  /** Where the next store goes, in doubles: 0 or 2. Never the slot that holds the last number. */
  #next = 0
  /** The number, when the file is of this boot and whole; null otherwise. */
  readonly known: number | null

  constructor(path: string, bootId: string, options: { readonly map?: boolean } = {}) {
    assert(Buffer.byteLength(bootId) <= BOOT_BYTES, 'a boot id has at most 40 characters')
    this.#bootId = bootId
    this.#fd = openSync(path, 'a+', 0o600)
    closeSync(this.#fd)
    this.#fd = openSync(path, 'r+')
    // Real bytes behind what is there, because a store into a hole on a full disk would kill the process.
    const page = Buffer.alloc(FILE_BYTES)
    try {
      readWholeSync(this.#fd, page, 0)
      writeWholeSync(this.#fd, page, 0)
    } catch (error) {
      closeSync(this.#fd)
      throw error
    }
    const found = decodeRun(page, bootId)
    this.known = found?.number ?? null
    this.#next = found?.slot === 0 ? 2 : 0
    if (options.map !== false) this.#map()
    if (this.#mapped === null) {
      for (let i = 0; i < NUMBERS; i++) this.#numbers[i] = page.readDoubleLE(NUMBERS_AT + 8 * i)
    }
  }

  #map(): void {
    const shared = mapShared(this.#fd, FILE_BYTES)
    if (shared === null) return
    this.#mapped = shared
    this.#numbers = new Float64Array(shared.bytes, NUMBERS_AT, NUMBERS)
  }

  /** From now on the file counts, for this boot, with this number. Whoever dies in here leaves a file that does not count. */
  begin(number: number): void {
    this.#dropHead()
    this.store(number)
    this.store(number)
    const head = encodeRunHead(this.#bootId)
    writeWholeSync(this.#fd, head, 0)
  }

  /** Hot path. Only after `begin`, or when `known` was not null; numbers do not fall. */
  store(number: number): void {
    const at = this.#next
    const numbers = this.#numbers
    numbers[at] = number
    numbers[at + 1] = -1 - number
    this.#next = at ^ 2
    if (this.#mapped !== null) return
    writeWholeSync(this.#fd, new Uint8Array(numbers.buffer, at * 8, 16), NUMBERS_AT + at * 8)
  }

  /** The file no longer counts: the number is not exact any more. */
  forget(): void {
    this.#dropHead()
    fdatasyncSync(this.#fd)
  }

  #dropHead(): void {
    writeWholeSync(this.#fd, Buffer.alloc(NUMBERS_AT), 0)
  }

  close(): void {
    if (this.#mapped !== null) {
      // The view would point into nothing afterwards.
      this.#numbers = new Float64Array(NUMBERS)
      this.#mapped.unmap()
      this.#mapped = null
    }
    closeSync(this.#fd)
  }
}

function encodeRunHead(bootId: string): Buffer {
  const head = Buffer.alloc(NUMBERS_AT)
  head.writeUInt32BE(MAGIC, 0)
  head.writeUInt16BE(VERSION, 4)
  head.write(bootId, 8, 'latin1')
  head.writeUInt32BE(crc32c(head.subarray(0, 48)), 48)
  return head
}

interface Found {
  readonly number: number
  /** The slot that holds it. */
  readonly slot: 0 | 1
}

function decodeRun(page: Buffer, bootId: string): Found | null {
  if (!page.subarray(0, NUMBERS_AT).equals(encodeRunHead(bootId))) return null
  const [a, b, c, d] = [0, 8, 16, 24].map((at) => page.readDoubleLE(NUMBERS_AT + at))
  const slots = [
    { number: a as number, twin: -1 - (b as number), slot: 0 },
    { number: c as number, twin: -1 - (d as number), slot: 1 },
  ] as const
  const usable = slots.every(({ number, twin }) => isNumber(number) && isNumber(twin))
  if (!usable) return null
  const [first, second] = slots
  const firstWhole = first.number === first.twin
  const secondWhole = second.number === second.twin
  if (firstWhole && secondWhole) return first.number > second.number ? first : second
  if (!firstWhole && !secondWhole) return null
  const [whole, torn] = firstWhole ? slots : [second, first]
  return torn.twin <= whole.number && whole.number <= torn.number ? whole : null
}

const isNumber = (value: number): boolean => Number.isSafeInteger(value) && value >= 0
