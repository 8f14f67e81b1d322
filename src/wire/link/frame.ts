/* Byte codec of the replication stream after the handshake. Sockets and meaning are elsewhere; docs/formats/link.md has
 * the tables.
 *
 *     writer ──► replica   28-byte headers, the same length as an NBD request's, so that one is written over the other in
 *                          the memory where the request arrived, and header and payload leave in one piece
 *     replica ──► writer   16-byte headers
 *
 * All numbers are big-endian. Headers are read and written in place without allocation.
 */

export const FRAME_BYTES = 28
export const FRAME_MAGIC = 0x4846
/** Longest payload of a frame, and longest range of a zero frame. */
export const FRAME_LENGTH_MAX = 1024 * 1024

export const FRAME = {
  /** Payload written at offset. Numbered. */
  WRITE: 1,
  /** [offset, offset + length) reads as zeroes. No payload. Numbered. */
  ZERO: 2,
  /** Make the volume durable up to here, answer FLUSHED with `seq`, which is an id here. */
  FLUSH: 3,
  /** JSON payload, see messages.ts. */
  MESSAGE: 4,
  /** `seq` is the sender's clock in microseconds; answered by ECHO with the same. */
  HEARTBEAT: 5,
  /** Answer CHECKSUMS of the range's blocks as they are after the frames before this one; `seq` is an id. */
  CHECKSUM: 6,
  /** Answer BLOCK with the bytes of the range; `seq` is an id. */
  FETCH: 7,
  /** Answer CHANGES: what the replica has changed itself, of `length` regions from `offset` on; `seq` is an id. See changes.ts. */
  CHANGES: 8,
} as const
export type FrameType = (typeof FRAME)[keyof typeof FRAME]

export const FLAG = {
  /** Another part of the same write follows directly; applied only when the last is there. */
  MORE: 1,
  /** ZERO: the space may be given back. */
  MAY_UNMAP: 2,
  /** Sent by a copy, not by a client's write. */
  COPY: 4,
  /** CHECKSUM of one block: read before anything behind this frame is looked at. */
  AT_ONCE: 8,
} as const

export const ACK_BYTES = 16
export const ACK_MAGIC = 0x4841
/** Longest payload in this direction: a block fetched, a message, or changes. */
export const ACK_LENGTH_MAX = 4 * 1024 * 1024

export const ACK = {
  /** Everything up to `number` is applied. With a status other than 0 the next frame could not be. */
  APPLIED: 1,
  /** The flush with id `number` is durable, or failed (status). */
  FLUSHED: 2,
  MESSAGE: 4,
  ECHO: 5,
  CHECKSUMS: 6,
  BLOCK: 7,
  CHANGES: 8,
} as const
export type AckType = (typeof ACK)[keyof typeof ACK]

/** Status in acknowledgements. */
export const STATUS = { OK: 0, IO: 1, NO_SPACE: 2, UNKNOWN_MEMBER: 3, BEYOND_END: 4 } as const
export type Status = (typeof STATUS)[keyof typeof STATUS]

const TWO_32 = 0x1_0000_0000

function writeUint64(buf: Buffer, value: number, at: number): void {
  const high = Math.floor(value / TWO_32)
  buf.writeUInt32BE(high, at)
  buf.writeUInt32BE(value - high * TWO_32, at + 4)
}

/** Values above 2^53 lose their low bits; readers refuse them by `Number.isSafeInteger`. */
function readUint64(buf: Buffer, at: number): number {
  return buf.readUInt32BE(at) * TWO_32 + buf.readUInt32BE(at + 4)
}

/** Writes a frame header over `buf[at, at + 28)`. All numbers are non-negative safe integers. */
export function writeFrameHeader(
  buf: Buffer,
  at: number,
  type: FrameType,
  flags: number,
  volume: number,
  seq: number,
  offset: number,
  length: number,
): void {
  buf[at] = FRAME_MAGIC >> 8
  buf[at + 1] = FRAME_MAGIC & 0xff
  buf[at + 2] = type
  buf[at + 3] = flags
  buf.writeUInt32BE(volume, at + 4)
  writeUint64(buf, seq, at + 8)
  writeUint64(buf, offset, at + 16)
  buf.writeUInt32BE(length, at + 24)
}

/** A header without payload, or with `payload` behind it. */
export function frame(
  type: FrameType,
  flags: number,
  volume: number,
  seq: number,
  offset: number,
  length: number,
  payload?: Uint8Array,
): Buffer {
  const buf = Buffer.allocUnsafe(FRAME_BYTES + (payload?.length ?? 0))
  writeFrameHeader(buf, 0, type, flags, volume, seq, offset, length)
  if (payload !== undefined) buf.set(payload, FRAME_BYTES)
  return buf
}

/** One header, reused for every frame of a stream. */
export class FrameHeader {
  type: FrameType = FRAME.WRITE
  flags = 0
  volume = 0
  seq = 0
  offset = 0
  length = 0

  /** Reads 28 bytes. False: this is no frame of ours, the stream is broken and the link must be dropped. */
  read(buf: Buffer, at: number): boolean {
    if (buf[at] !== FRAME_MAGIC >> 8 || buf[at + 1] !== (FRAME_MAGIC & 0xff)) return false
    const type = buf[at + 2] as number
    if (type < FRAME.WRITE || type > FRAME.CHANGES) return false
    this.type = type as FrameType
    this.flags = buf[at + 3] as number
    this.volume = buf.readUInt32BE(at + 4)
    this.seq = readUint64(buf, at + 8)
    this.offset = readUint64(buf, at + 16)
    this.length = buf.readUInt32BE(at + 24)
    return (
      this.length <= FRAME_LENGTH_MAX &&
      Number.isSafeInteger(this.seq) &&
      Number.isSafeInteger(this.offset + this.length)
    )
  }

  /** Bytes that follow the header. */
  get payloadBytes(): number {
    return this.type === FRAME.WRITE || this.type === FRAME.MESSAGE ? this.length : 0
  }
}

/** A whole acknowledgement with its payload. */
export function ack(type: AckType, status: Status, number: number, payload?: Uint8Array): Buffer {
  const length = payload?.length ?? 0
  const buf = Buffer.allocUnsafe(ACK_BYTES + length)
  buf.writeUInt16BE(ACK_MAGIC, 0)
  buf[2] = type
  buf[3] = status
  buf.writeUInt32BE(length, 4)
  writeUint64(buf, number, 8)
  if (payload !== undefined) buf.set(payload, ACK_BYTES)
  return buf
}

export class AckHeader {
  type: AckType = ACK.APPLIED
  status: Status = STATUS.OK
  length = 0
  number = 0

  /** Reads 16 bytes. False: the stream is broken. */
  read(buf: Buffer, at: number): boolean {
    if (buf[at] !== ACK_MAGIC >> 8 || buf[at + 1] !== (ACK_MAGIC & 0xff)) return false
    const type = buf[at + 2] as number
    const status = buf[at + 3] as number
    if (type < ACK.APPLIED || type > ACK.CHANGES || type === 3) return false
    if (status > STATUS.BEYOND_END) return false
    this.type = type as AckType
    this.status = status as Status
    this.length = buf.readUInt32BE(at + 4)
    this.number = readUint64(buf, at + 8)
    return this.length <= ACK_LENGTH_MAX && Number.isSafeInteger(this.number)
  }
}

/** Blocks of a checksum query: 64 KiB each, the last may be shorter. */
export const BLOCK_BYTES = 64 * 1024
/** One checksum: the first 16 bytes of SHA-256. */
export const CHECKSUM_BYTES = 16
