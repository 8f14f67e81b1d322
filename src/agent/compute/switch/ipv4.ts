/* IPv4 headers and the checksum that IPv4, UDP and ICMP share. Addresses are unsigned 32-bit numbers. */

export const IPV4_HEADER_BYTES = 20
export const PROTOCOL_ICMP = 1
export const PROTOCOL_TCP = 6
export const PROTOCOL_UDP = 17
export const ADDRESS_ANY = 0
export const ADDRESS_BROADCAST = 0xffff_ffff
const DO_NOT_FRAGMENT = 0x4000
const MORE_FRAGMENTS = 0x2000
const FRAGMENT_OFFSET = 0x1fff
const ADDRESS = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/

export interface Ipv4 {
  readonly headerBytes: number
  readonly ttl: number
  readonly protocol: number
  readonly source: number
  readonly destination: number
  /** In units of 8 bytes; 0: this packet begins with the header of its protocol. */
  readonly fragmentOffset: number
  readonly moreFragments: boolean
  /** Of the header; false: damaged on the way, or never made. */
  readonly checksumRight: boolean
  /** The packet without what follows it in its frame. Shares memory. */
  readonly packet: Buffer
  readonly payload: Buffer
}

/** undefined: no IPv4, cut off, or its lengths contradict each other. */
export function parseIpv4(bytes: Buffer): Ipv4 | undefined {
  if (bytes.length < IPV4_HEADER_BYTES) return undefined
  const first = bytes.readUInt8(0)
  const headerBytes = (first & 0x0f) * 4
  const totalBytes = bytes.readUInt16BE(2)
  if (first >> 4 !== 4 || headerBytes < IPV4_HEADER_BYTES) return undefined
  if (totalBytes < headerBytes || totalBytes > bytes.length) return undefined
  const fragment = bytes.readUInt16BE(6)
  const packet = bytes.subarray(0, totalBytes)
  return {
    headerBytes,
    ttl: bytes.readUInt8(8),
    protocol: bytes.readUInt8(9),
    source: bytes.readUInt32BE(12),
    destination: bytes.readUInt32BE(16),
    fragmentOffset: fragment & FRAGMENT_OFFSET,
    moreFragments: (fragment & MORE_FRAGMENTS) !== 0,
    checksumRight: checksum(packet.subarray(0, headerBytes)) === 0,
    packet,
    payload: packet.subarray(headerBytes),
  }
}

/** A packet of this switch's own. */
export function buildIpv4(parts: {
  readonly source: number
  readonly destination: number
  readonly protocol: number
  readonly ttl: number
  readonly payload: Uint8Array
}): Buffer {
  const packet = Buffer.alloc(IPV4_HEADER_BYTES + parts.payload.length)
  packet[0] = 0x45
  packet.writeUInt16BE(packet.length, 2)
  packet.writeUInt16BE(DO_NOT_FRAGMENT, 6)
  packet[8] = parts.ttl
  packet[9] = parts.protocol
  packet.writeUInt32BE(parts.source, 12)
  packet.writeUInt32BE(parts.destination, 16)
  packet.writeUInt16BE(checksum(packet.subarray(0, IPV4_HEADER_BYTES)), 10)
  packet.set(parts.payload, IPV4_HEADER_BYTES)
  return packet
}

/** The packet one hop later: a copy with a lower time to live and the checksum that goes with it. `ttl` must be above 1. */
export function nextHop(ip: Ipv4): Buffer {
  const packet = Buffer.from(ip.packet)
  packet[8] = ip.ttl - 1
  packet.writeUInt16BE(0, 10)
  packet.writeUInt16BE(checksum(packet.subarray(0, ip.headerBytes)), 10)
  return packet
}

/** The internet checksum. Over data that carries a right one the answer is 0. `start` is a sum to go on from. */
export function checksum(bytes: Buffer, start = 0): number {
  let sum = start
  const even = bytes.length & ~1
  for (let at = 0; at < even; at += 2) sum += bytes.readUInt16BE(at)
  if (even < bytes.length) sum += bytes.readUInt8(even) << 8
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x1_0000)
  return ~sum & 0xffff
}

/** `10.0.0.1` as a number; undefined: not an address. */
export function parseAddress(text: string): number | undefined {
  const parts = ADDRESS.exec(text)?.slice(1).map(Number)
  if (parts === undefined || parts.some((part) => part > 255)) return undefined
  return parts.reduce((sum, part) => sum * 256 + part, 0)
}

export const formatAddress = (address: number): string =>
  [24, 16, 8, 0].map((shift) => (address >>> shift) & 0xff).join('.')

/** Of a prefix of 0 to 32 bits. */
export const maskOf = (prefixLength: number): number =>
  prefixLength === 0 ? 0 : (0xffff_ffff << (32 - prefixLength)) >>> 0
