import { closeSync, fdatasyncSync, openSync, readSync, writeSync } from 'node:fs'
import { crc32c } from '@node-rs/crc32'
import { assert } from '#base/assert.ts'
import { mapShared, type SharedMemory } from '#base/system/shared-memory.ts'

/* The run file: number of the last write applied (replica) or given out (writer), exact across the death of the process.
 *
 *     0    "HFRN", version u16, zero u16
 *     8    boot id, 40 bytes, ASCII, zero padded
 *     48   CRC32C of [0, 48)
 *     64   the number, IEEE 754 double, little-endian
 *
 * The file is mapped into memory (MAP_SHARED): a store costs as much as any other, and what was stored survives the death of
 * the process because the page belongs to the kernel. It does not survive power loss, and need not: of another boot the
 * number is worthless. The number is a double because a single aligned store of 8 bytes is never half done, and because
 * a 64-bit integer would cost an allocation. Without mmap (no libc) every store is a pwrite.
 */

const MAGIC = 0x4846524e
const VERSION = 1
const BOOT_BYTES = 40
const NUMBER_AT = 64
const FILE_BYTES = 4096

export class RunFile {
  readonly #fd: number
  readonly #bootId: string
  #mapped: SharedMemory | null = null
  #number: Float64Array
  /** The number, when the file is of this boot; null otherwise. */
  readonly known: number | null

  constructor(path: string, bootId: string, options: { readonly map?: boolean } = {}) {
    assert(Buffer.byteLength(bootId) <= BOOT_BYTES, 'a boot id has at most 40 characters')
    this.#bootId = bootId
    this.#fd = openSync(path, 'a+', 0o600)
    closeSync(this.#fd)
    this.#fd = openSync(path, 'r+')
    const head = Buffer.alloc(NUMBER_AT + 8)
    // Real bytes behind what is there, because a store into a hole on a full disk would kill the process.
    const page = Buffer.alloc(FILE_BYTES)
    readSync(this.#fd, page, 0, FILE_BYTES, 0)
    writeSync(this.#fd, page, 0, FILE_BYTES, 0)
    page.copy(head)
    this.known = decodeRun(head, bootId)
    this.#number = new Float64Array(1)
    if (options.map !== false) this.#map()
    else this.#number[0] = this.known ?? 0
  }

  #map(): void {
    const shared = mapShared(this.#fd, FILE_BYTES)
    if (shared === null) {
      this.#number[0] = this.known ?? 0
      return
    }
    this.#mapped = shared
    this.#number = new Float64Array(shared.bytes, NUMBER_AT, 1)
  }

  /** From now on the file counts, for this boot, with this number. */
  begin(number: number): void {
    this.store(number)
    const head = encodeRunHead(this.#bootId)
    writeSync(this.#fd, head, 0, head.length, 0)
  }

  /** Hot path. Only after `begin`, or when `known` was not null. */
  store(number: number): void {
    this.#number[0] = number
    if (this.#mapped === null) {
      writeSync(this.#fd, new Uint8Array(this.#number.buffer, this.#number.byteOffset, 8), 0, 8, 64)
    }
  }

  /** The file no longer counts: the number is not exact any more. */
  forget(): void {
    writeSync(this.#fd, Buffer.alloc(NUMBER_AT), 0, NUMBER_AT, 0)
    fdatasyncSync(this.#fd)
  }

  close(): void {
    if (this.#mapped !== null) {
      // The view would point into nothing afterwards.
      this.#number = new Float64Array(1)
      this.#mapped.unmap()
      this.#mapped = null
    }
    closeSync(this.#fd)
  }
}

function encodeRunHead(bootId: string): Buffer {
  const head = Buffer.alloc(NUMBER_AT)
  head.writeUInt32BE(MAGIC, 0)
  head.writeUInt16BE(VERSION, 4)
  head.write(bootId, 8, 'latin1')
  head.writeUInt32BE(crc32c(head.subarray(0, 48)), 48)
  return head
}

function decodeRun(head: Buffer, bootId: string): number | null {
  if (!head.subarray(0, NUMBER_AT).equals(encodeRunHead(bootId))) return null
  const number = head.readDoubleLE(NUMBER_AT)
  return Number.isSafeInteger(number) && number >= 0 ? number : null
}
