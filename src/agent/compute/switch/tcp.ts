import { checksum, PROTOCOL_TCP } from './ipv4.ts'

/* TCP segments, as far as a client of one question needs them: no options but the largest segment of a SYN. */

const HEADER_BYTES = 20
const SYN_OPTION_BYTES = 4
const OPTION_SEGMENT = 2
/** What fits into one frame behind both headers. */
export const SEGMENT_BYTES_MAX = 1460

export const FIN = 0x01
export const SYN = 0x02
export const RST = 0x04
export const PSH = 0x08
export const ACK = 0x10

export interface Segment {
  readonly sourcePort: number
  readonly destinationPort: number
  /** Unsigned 32 bits; so is `acknowledgment`, which means something with the flag ACK only. */
  readonly sequence: number
  readonly acknowledgment: number
  readonly flags: number
  readonly window: number
  readonly payload: Buffer
}

/** undefined: cut off, or damaged on the way. `source` and `destination` are the addresses of its packet. */
export function parseTcp(bytes: Buffer, source: number, destination: number): Segment | undefined {
  if (bytes.length < HEADER_BYTES) return undefined
  const headerBytes = (bytes.readUInt8(12) >> 4) * 4
  if (headerBytes < HEADER_BYTES || headerBytes > bytes.length) return undefined
  if (tcpChecksum(bytes, source, destination) !== 0) return undefined
  return {
    sourcePort: bytes.readUInt16BE(0),
    destinationPort: bytes.readUInt16BE(2),
    sequence: bytes.readUInt32BE(4),
    acknowledgment: bytes.readUInt32BE(8),
    flags: bytes.readUInt8(13),
    window: bytes.readUInt16BE(14),
    payload: bytes.subarray(headerBytes),
  }
}

export function buildTcp(segment: Segment, source: number, destination: number): Buffer {
  const options = (segment.flags & SYN) === 0 ? 0 : SYN_OPTION_BYTES
  const bytes = Buffer.alloc(HEADER_BYTES + options + segment.payload.length)
  bytes.writeUInt16BE(segment.sourcePort, 0)
  bytes.writeUInt16BE(segment.destinationPort, 2)
  bytes.writeUInt32BE(segment.sequence, 4)
  bytes.writeUInt32BE(segment.acknowledgment, 8)
  bytes[12] = ((HEADER_BYTES + options) / 4) << 4
  bytes[13] = segment.flags
  bytes.writeUInt16BE(segment.window, 14)
  if (options > 0) {
    bytes.set([OPTION_SEGMENT, SYN_OPTION_BYTES], HEADER_BYTES)
    bytes.writeUInt16BE(SEGMENT_BYTES_MAX, HEADER_BYTES + 2)
  }
  bytes.set(segment.payload, HEADER_BYTES + options)
  bytes.writeUInt16BE(tcpChecksum(bytes, source, destination), 16)
  return bytes
}

/** Over the segment and the pseudo header of its packet; 0 for a segment that carries a right one. */
function tcpChecksum(bytes: Buffer, source: number, destination: number): number {
  const pseudo =
    (source >>> 16) +
    (source & 0xffff) +
    (destination >>> 16) +
    (destination & 0xffff) +
    PROTOCOL_TCP +
    bytes.length
  return checksum(bytes, pseudo)
}
