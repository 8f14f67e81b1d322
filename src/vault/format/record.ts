import { Blake3Hasher } from '@napi-rs/blake-hash'
import { assert } from '#base/assert.ts'
import { type Codec, NONCE_BYTES, openCodec, TAG_BYTES } from '#base/system/codec.ts'
import { FLAG_ZSTD, ID_BYTES } from './entry.ts'

/* One chunk as it stands in a pack: nonce, ciphertext, tag. This file is what the threads of the vault spend their time in.
 *
 *   id     = BLAKE3 of the plain bytes, keyed. Keyed, so that nobody who can see ids can ask whether a known file is in the vault.
 *   key    = HKDF(data key, salt of the process that writes): nobody else ever encrypts with it.
 *   nonce  = number of the thread (4 bytes), count of its records (8 bytes): never twice under that key.
 *   bound  = id and flags are authenticated, so a record in the wrong place does not open. */

export const RECORD_OVERHEAD = NONCE_BYTES + TAG_BYTES

/** Below this many bytes saved of a block, it is kept as it is: reading it back is then cheaper. */
const GAIN_MIN = 1 / 32
const SAMPLE_BYTES = 4096

/** The codec of this thread, made when it is first needed. */
let codec: Codec | undefined

/** To be called before a thread ends. */
export function closeCodec(): void {
  codec?.close()
  codec = undefined
  opened.fill(0)
}

export interface ChunkHasher {
  /** 32 bytes of its own. */
  id(block: Uint8Array): Buffer
}

export function createHasher(key: Buffer): ChunkHasher {
  const hasher = Blake3Hasher.newKeyed(key)
  return {
    id(block) {
      hasher.reset()
      hasher.update(block)
      return hasher.digestBuffer()
    },
  }
}

export interface SealedInto {
  /** Of the record. */
  readonly length: number
  readonly flags: number
}

export interface SealedRecord extends SealedInto {
  readonly bytes: readonly Buffer[]
}

export interface RecordSealer {
  seal(id: Buffer, block: Buffer, kindFlags: number): SealedRecord
  /** The same, from the beginning of `target` on, which has room for the block and RECORD_OVERHEAD. */
  sealInto(id: Buffer, block: Buffer, kindFlags: number, target: Buffer): SealedInto
}

/** `thread` must be unique among the sealers of one key. */
export function createSealer(key: Buffer, thread: number, level: number): RecordSealer {
  let count = 0n
  let scratch = Buffer.alloc(0)

  function sealInto(id: Buffer, block: Buffer, kindFlags: number, target: Buffer): SealedInto {
    codec ??= openCodec()
    if (scratch.length < block.length) scratch = Buffer.allocUnsafeSlow(block.length)
    const packed = compress(codec, block, scratch, level)
    const plain = packed ?? block
    const flags = packed === undefined ? kindFlags : kindFlags | FLAG_ZSTD
    const end = NONCE_BYTES + plain.length
    assert(target.length >= end + TAG_BYTES, 'there is room for the record')
    const nonce = target.subarray(0, NONCE_BYTES)
    nonce.writeUInt32BE(thread, 0)
    nonce.writeBigUInt64BE(count++, 4)
    codec.seal(
      key,
      nonce,
      boundTo(id, flags),
      plain,
      target.subarray(NONCE_BYTES, end),
      target.subarray(end, end + TAG_BYTES),
    )
    return { length: end + TAG_BYTES, flags }
  }

  return {
    sealInto,
    seal(id, block, kindFlags) {
      const target = Buffer.allocUnsafeSlow(block.length + RECORD_OVERHEAD)
      const { length, flags } = sealInto(id, block, kindFlags, target)
      return { bytes: [target.subarray(0, length)], length, flags }
    },
  }
}

/** What is decrypted before it is decompressed; no caller sees it. */
let opened = Buffer.alloc(0)

/**
 * Opens a record into `target`: the length of its block. undefined: the record is damaged, not the one that belongs to this id, or its block is longer than
 * `target`, which is then not defined.
 */
export function openRecordInto(
  key: Buffer,
  id: Buffer,
  flags: number,
  record: Buffer,
  target: Buffer,
): number | undefined {
  if (record.length < RECORD_OVERHEAD) return undefined
  codec ??= openCodec()
  const end = record.length - TAG_BYTES
  const body = record.subarray(NONCE_BYTES, end)
  const packed = (flags & FLAG_ZSTD) !== 0
  if (!packed && body.length > target.length) return undefined
  if (packed && opened.length < body.length) opened = Buffer.allocUnsafeSlow(body.length)
  const plain = (packed ? opened : target).subarray(0, body.length)
  const nonce = record.subarray(0, NONCE_BYTES)
  if (!codec.open(key, nonce, boundTo(id, flags), body, plain, record.subarray(end))) {
    return undefined
  }
  return packed ? codec.decompress(plain, target) : plain.length
}

/** The block of a record, in memory of its own; undefined as above. `bytesMax`: size of a block. */
export function openRecord(
  key: Buffer,
  id: Buffer,
  flags: number,
  record: Buffer,
  bytesMax: number,
): Buffer | undefined {
  const target = Buffer.allocUnsafeSlow(bytesMax)
  const length = openRecordInto(key, id, flags, record, target)
  return length === undefined ? undefined : target.subarray(0, length)
}

const bound = Buffer.alloc(ID_BYTES + 1)

/** Used at once: there is one for all. */
function boundTo(id: Buffer, flags: number): Buffer {
  id.copy(bound, 0, 0, ID_BYTES)
  bound[ID_BYTES] = flags
  return bound
}

/** A part of `scratch`, or undefined when it would not become smaller. */
function compress(codec: Codec, block: Buffer, scratch: Buffer, level: number): Buffer | undefined {
  if (block.length < 64) return undefined
  if (block.length > 4 * SAMPLE_BYTES && looksRandom(block)) {
    const middle = (block.length - SAMPLE_BYTES) >> 1
    const sample = block.subarray(middle, middle + SAMPLE_BYTES)
    if (codec.compress(sample, scratch.subarray(0, SAMPLE_BYTES - 1), level) === undefined) {
      return undefined
    }
  }
  const worth = scratch.subarray(0, Math.floor(block.length * (1 - GAIN_MIN)))
  const length = codec.compress(block, worth, level)
  return length === undefined ? undefined : scratch.subarray(0, length)
}

const counts = new Uint16Array(256)

/** 1024 bytes from all over the block: when nearly all of the 256 values come up about equally often, compressing is tried on a
 *  sample first. Text, tables and machine code are far from it. */
function looksRandom(block: Buffer): boolean {
  counts.fill(0)
  const step = block.length >> 10
  for (let i = 0, at = 0; i < 1024; i++, at += step) {
    const value = block[at] as number
    counts[value] = (counts[value] as number) + 1
  }
  let squares = 0
  for (const count of counts) squares += count * count
  // Expected of random bytes: 1024 + 1024²/256 = 5116, with a deviation of about 90.
  return squares < 5800
}
