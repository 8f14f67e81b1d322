import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from 'node:crypto'
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { Blake3Hasher } from '@napi-rs/blake-hash'
import { FLAG_ZSTD, ID_BYTES } from './entry.ts'

/* One chunk as it stands in a pack: nonce, ciphertext, tag. This file is what the threads of the vault spend their time in.
 *
 *   id     = BLAKE3 of the plain bytes, keyed. Keyed, so that nobody who can see ids can ask whether a known file is in the vault.
 *   key    = HKDF(data key, salt of the process that writes): nobody else ever encrypts with it.
 *   nonce  = number of the thread (4 bytes), count of its records (8 bytes): never twice under that key.
 *   bound  = id and flags are authenticated, so a record in the wrong place does not open. */

export const NONCE_BYTES = 12
const TAG_BYTES = 16
export const RECORD_OVERHEAD = NONCE_BYTES + TAG_BYTES

/** Below this many bytes saved of a block, it is kept as it is: reading it back is then cheaper. */
const GAIN_MIN = 1 / 32
const SAMPLE_BYTES = 4096

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

export interface SealedRecord {
  readonly bytes: readonly Buffer[]
  readonly length: number
  readonly flags: number
}

export interface RecordSealer {
  seal(id: Buffer, block: Buffer, kindFlags: number): SealedRecord
}

/** `thread` must be unique among the sealers of one key. */
export function createSealer(key: Buffer, thread: number, level: number): RecordSealer {
  let count = 0n
  // Made once: turning bytes into a key costs as much as encrypting 8 KiB.
  const secret = createSecretKey(key)
  return {
    seal(id, block, kindFlags) {
      const packed = compress(block, level)
      const flags = packed === undefined ? kindFlags : kindFlags | FLAG_ZSTD
      const nonce = Buffer.alloc(NONCE_BYTES)
      nonce.writeUInt32BE(thread, 0)
      nonce.writeBigUInt64BE(count++, 4)
      const cipher = createCipheriv('aes-256-gcm', secret, nonce)
      cipher.setAAD(boundTo(id, flags))
      const body = cipher.update(packed ?? block)
      cipher.final()
      const bytes = [nonce, body, cipher.getAuthTag()]
      return { bytes, length: body.length + RECORD_OVERHEAD, flags }
    },
  }
}

/** The block of a record; undefined when the record is damaged or not the one that belongs to this id. `bytesMax`: size of a block. */
export function openRecord(
  key: Buffer | KeyObject,
  id: Buffer,
  flags: number,
  record: Buffer,
  bytesMax: number,
): Buffer | undefined {
  if (record.length < RECORD_OVERHEAD) return undefined
  const decipher = createDecipheriv('aes-256-gcm', key, record.subarray(0, NONCE_BYTES), {
    authTagLength: TAG_BYTES,
  })
  decipher.setAAD(boundTo(id, flags))
  decipher.setAuthTag(record.subarray(record.length - TAG_BYTES))
  const body = decipher.update(record.subarray(NONCE_BYTES, record.length - TAG_BYTES))
  try {
    decipher.final()
  } catch {
    return undefined // the tag does not fit
  }
  if ((flags & FLAG_ZSTD) === 0) return body
  return zstdDecompressSync(body, { chunkSize: bytesMax + 64, maxOutputLength: bytesMax })
}

function boundTo(id: Buffer, flags: number): Buffer {
  const bound = Buffer.allocUnsafe(ID_BYTES + 1)
  id.copy(bound)
  bound[ID_BYTES] = flags
  return bound
}

/** Undefined when it would not become smaller. */
function compress(block: Buffer, level: number): Buffer | undefined {
  if (block.length < 64) return undefined
  if (block.length > 4 * SAMPLE_BYTES && looksRandom(block)) {
    const middle = (block.length - SAMPLE_BYTES) >> 1
    const sample = block.subarray(middle, middle + SAMPLE_BYTES)
    if (zstd(sample, level).length >= SAMPLE_BYTES) return undefined
  }
  const packed = zstd(block, level)
  return packed.length <= block.length * (1 - GAIN_MIN) ? packed : undefined
}

function zstd(block: Buffer, level: number): Buffer {
  return zstdCompressSync(block, {
    // Told the size, zstd takes tables that fit it: for 64 KiB that halves the time.
    pledgedSrcSize: block.length,
    chunkSize: block.length + 1024,
    params: { [constants.ZSTD_c_compressionLevel]: level },
  })
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
