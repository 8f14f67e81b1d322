import { checksum, PROTOCOL_UDP } from './ipv4.ts'

export const UDP_HEADER_BYTES = 8

export interface Udp {
  readonly sourcePort: number
  readonly destinationPort: number
  readonly payload: Buffer
}

/** undefined: cut off. The checksum is not looked at: what a receiver takes is its own affair. */
export function parseUdp(bytes: Buffer): Udp | undefined {
  if (bytes.length < UDP_HEADER_BYTES) return undefined
  const length = bytes.readUInt16BE(4)
  if (length < UDP_HEADER_BYTES || length > bytes.length) return undefined
  return {
    sourcePort: bytes.readUInt16BE(0),
    destinationPort: bytes.readUInt16BE(2),
    payload: bytes.subarray(UDP_HEADER_BYTES, length),
  }
}

export function buildUdp(parts: {
  readonly source: number
  readonly destination: number
  readonly sourcePort: number
  readonly destinationPort: number
  readonly payload: Uint8Array
}): Buffer {
  const message = Buffer.alloc(UDP_HEADER_BYTES + parts.payload.length)
  message.writeUInt16BE(parts.sourcePort, 0)
  message.writeUInt16BE(parts.destinationPort, 2)
  message.writeUInt16BE(message.length, 4)
  message.set(parts.payload, UDP_HEADER_BYTES)
  const sum = udpChecksum(message, parts.source, parts.destination)
  // A sum of zero is sent as all ones: zero itself means that there is none.
  message.writeUInt16BE(sum === 0 ? 0xffff : sum, 6)
  return message
}

/** Over the message and the pseudo header of its packet; 0 for a message that carries a right one. */
export function udpChecksum(message: Buffer, source: number, destination: number): number {
  const pseudo =
    (source >>> 16) +
    (source & 0xffff) +
    (destination >>> 16) +
    (destination & 0xffff) +
    PROTOCOL_UDP +
    message.length
  return checksum(message, pseudo)
}
