/* Ethernet frames as a virtio NIC without offloads sends them: no preamble, no checksum, no VLAN tag.
 *
 * Addresses are numbers everywhere in this folder: 48 bits fit, and they compare and index without allocation. */

export const ETHERNET_BYTES = 14
/** Payload of one frame. Given to guests by DHCP, too. */
export const MTU_BYTES = 1500
export const FRAME_BYTES_MAX = ETHERNET_BYTES + MTU_BYTES

export const ETHERTYPE_IPV4 = 0x0800
export const ETHERTYPE_ARP = 0x0806
export const ETHERTYPE_IPV6 = 0x86dd

export const MAC_BROADCAST = 0xffff_ffff_ffff
/** In the highest byte of an address: for many receivers. */
const GROUP_BIT = 0x01
const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/

export interface Ethernet {
  readonly destination: number
  readonly source: number
  readonly type: number
  /** Shares the frame's memory. */
  readonly payload: Buffer
}

/** undefined: too short to be a frame. */
export function parseEthernet(frame: Buffer): Ethernet | undefined {
  if (frame.length < ETHERNET_BYTES) return undefined
  return {
    destination: frame.readUIntBE(0, 6),
    source: frame.readUIntBE(6, 6),
    type: frame.readUInt16BE(12),
    payload: frame.subarray(ETHERNET_BYTES),
  }
}

/** A new frame; copies the payload. */
export function buildEthernet(parts: {
  readonly destination: number
  readonly source: number
  readonly type: number
  readonly payload: Uint8Array
}): Buffer {
  const frame = Buffer.alloc(ETHERNET_BYTES + parts.payload.length)
  frame.writeUIntBE(parts.destination, 0, 6)
  frame.writeUIntBE(parts.source, 6, 6)
  frame.writeUInt16BE(parts.type, 12)
  frame.set(parts.payload, ETHERNET_BYTES)
  return frame
}

/** Broadcast counts as one, too. */
export const isGroupMac = (mac: number): boolean =>
  (Math.floor(mac / 0x100_0000_0000) & GROUP_BIT) === GROUP_BIT

/** `fa:16:3e:00:00:01` as a number; undefined: not an address. */
export const parseMac = (text: string): number | undefined =>
  MAC.test(text) ? Number.parseInt(text.replaceAll(':', ''), 16) : undefined

export const formatMac = (mac: number): string =>
  mac
    .toString(16)
    .padStart(12, '0')
    .replace(/..(?=.)/g, '$&:')
