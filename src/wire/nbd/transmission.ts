import {
  REPLY_FLAG,
  REPLY_TYPE,
  REQUEST_MAGIC,
  SIMPLE_REPLY_MAGIC,
  STATE,
  STRUCTURED_REPLY_MAGIC,
} from './constants.ts'

/* The transmission phase.
 *
 *     request      magic u32 | flags u16 | type u16 | cookie u64 | offset u64 | length u32 | payload of WRITE     28 bytes
 *     simple       magic u32 | error u32 | cookie u64 | data of READ                                              16 bytes
 *     structured   magic u32 | flags u16 | type u16 | cookie u64 | length u32 | data                              20 bytes
 *
 * These run once per request, so they read from and write into buffers of the caller and allocate nothing. A cookie is 64
 * opaque bits and travels as two 32-bit numbers.
 */

export const REQUEST_BYTES = 28
export const SIMPLE_REPLY_BYTES = 16
export const CHUNK_HEADER_BYTES = 20
/** Structured header and the offset before the data of a READ. */
export const DATA_CHUNK_BYTES = CHUNK_HEADER_BYTES + 8

/** A request as it stands on the wire; one object is reused for all of a connection. */
export interface Request {
  flags: number
  type: number
  cookieHigh: number
  cookieLow: number
  /** NaN when the offset is above 2^53 - 1, which fits no volume. */
  offset: number
  length: number
}

export const emptyRequest = (): Request => ({
  flags: 0,
  type: 0,
  cookieHigh: 0,
  cookieLow: 0,
  offset: 0,
  length: 0,
})

/** Reads REQUEST_BYTES at `at` into `into`; false when the magic is wrong. */
export function readRequest(bytes: Buffer, at: number, into: Request): boolean {
  if (bytes.readUInt32BE(at) !== REQUEST_MAGIC) return false
  into.flags = bytes.readUInt16BE(at + 4)
  into.type = bytes.readUInt16BE(at + 6)
  into.cookieHigh = bytes.readUInt32BE(at + 8)
  into.cookieLow = bytes.readUInt32BE(at + 12)
  into.offset = readOffset(bytes, at + 16)
  into.length = bytes.readUInt32BE(at + 24)
  return true
}

export function writeRequest(bytes: Buffer, at: number, request: Readonly<Request>): void {
  bytes.writeUInt32BE(REQUEST_MAGIC, at)
  bytes.writeUInt16BE(request.flags, at + 4)
  bytes.writeUInt16BE(request.type, at + 6)
  bytes.writeUInt32BE(request.cookieHigh, at + 8)
  bytes.writeUInt32BE(request.cookieLow, at + 12)
  writeOffset(bytes, at + 16, request.offset)
  bytes.writeUInt32BE(request.length, at + 24)
}

export function writeSimpleReply(
  bytes: Buffer,
  at: number,
  error: number,
  cookieHigh: number,
  cookieLow: number,
): void {
  bytes.writeUInt32BE(SIMPLE_REPLY_MAGIC, at)
  bytes.writeUInt32BE(error, at + 4)
  bytes.writeUInt32BE(cookieHigh, at + 8)
  bytes.writeUInt32BE(cookieLow, at + 12)
}

export function writeChunkHeader(
  bytes: Buffer,
  at: number,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  length: number,
): void {
  bytes.writeUInt32BE(STRUCTURED_REPLY_MAGIC, at)
  bytes.writeUInt16BE(flags, at + 4)
  bytes.writeUInt16BE(type, at + 6)
  bytes.writeUInt32BE(cookieHigh, at + 8)
  bytes.writeUInt32BE(cookieLow, at + 12)
  bytes.writeUInt32BE(length, at + 16)
}

/** DATA_CHUNK_BYTES that stand before the data of a successful READ, as its only chunk. */
export function writeDataChunkHeader(
  bytes: Buffer,
  at: number,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
  dataLength: number,
): void {
  const { DONE } = REPLY_FLAG
  writeChunkHeader(bytes, at, DONE, REPLY_TYPE.OFFSET_DATA, cookieHigh, cookieLow, dataLength + 8)
  writeOffset(bytes, at + CHUNK_HEADER_BYTES, offset)
}

/** A whole structured error reply, without message. */
export function encodeErrorChunk(error: number, cookieHigh: number, cookieLow: number): Buffer {
  const bytes = Buffer.allocUnsafe(CHUNK_HEADER_BYTES + 6)
  writeChunkHeader(bytes, 0, REPLY_FLAG.DONE, REPLY_TYPE.ERROR, cookieHigh, cookieLow, 6)
  bytes.writeUInt32BE(error, CHUNK_HEADER_BYTES)
  bytes.writeUInt16BE(0, CHUNK_HEADER_BYTES + 4)
  return bytes
}

/** A whole BLOCK_STATUS reply. Lengths are clipped to 32 bits. */
export function encodeBlockStatus(
  contextId: number,
  extents: readonly { readonly length: number; readonly hole: boolean }[],
  cookieHigh: number,
  cookieLow: number,
): Buffer {
  const length = 4 + extents.length * 8
  const bytes = Buffer.allocUnsafe(CHUNK_HEADER_BYTES + length)
  const { DONE } = REPLY_FLAG
  writeChunkHeader(bytes, 0, DONE, REPLY_TYPE.BLOCK_STATUS, cookieHigh, cookieLow, length)
  let at = CHUNK_HEADER_BYTES
  bytes.writeUInt32BE(contextId, at)
  at += 4
  for (const extent of extents) {
    bytes.writeUInt32BE(Math.min(extent.length, 0xffffffff), at)
    bytes.writeUInt32BE(extent.hole ? STATE.HOLE | STATE.ZERO : 0, at + 4)
    at += 8
  }
  return bytes
}

/** 64 bits as a number, or NaN beyond what a number holds exactly. */
export function readOffset(bytes: Buffer, at: number): number {
  const high = bytes.readUInt32BE(at)
  return high > 0x1fffff ? Number.NaN : high * 0x100000000 + bytes.readUInt32BE(at + 4)
}

/** `offset`: 0 to 2^53 - 1. */
export function writeOffset(bytes: Buffer, at: number, offset: number): void {
  const low = offset >>> 0
  bytes.writeUInt32BE((offset - low) / 0x100000000, at)
  bytes.writeUInt32BE(low, at + 4)
}
