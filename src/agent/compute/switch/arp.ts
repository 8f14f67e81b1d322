/* ARP for IPv4 over Ethernet, the only one there is here. */

const ARP_BYTES = 28
const HARDWARE_ETHERNET = 1
const PROTOCOL_IPV4 = 0x0800
export const ARP_REQUEST = 1
export const ARP_REPLY = 2

export interface Arp {
  readonly operation: number
  readonly senderMac: number
  readonly senderAddress: number
  readonly targetMac: number
  readonly targetAddress: number
}

/** undefined: not ARP for IPv4 over Ethernet, or cut off. What follows the message is padding. */
export function parseArp(payload: Buffer): Arp | undefined {
  if (payload.length < ARP_BYTES) return undefined
  const fits =
    payload.readUInt16BE(0) === HARDWARE_ETHERNET &&
    payload.readUInt16BE(2) === PROTOCOL_IPV4 &&
    payload[4] === 6 &&
    payload[5] === 4
  if (!fits) return undefined
  return {
    operation: payload.readUInt16BE(6),
    senderMac: payload.readUIntBE(8, 6),
    senderAddress: payload.readUInt32BE(14),
    targetMac: payload.readUIntBE(18, 6),
    targetAddress: payload.readUInt32BE(24),
  }
}

export function buildArp(arp: Arp): Buffer {
  const message = Buffer.alloc(ARP_BYTES)
  message.writeUInt16BE(HARDWARE_ETHERNET, 0)
  message.writeUInt16BE(PROTOCOL_IPV4, 2)
  message[4] = 6
  message[5] = 4
  message.writeUInt16BE(arp.operation, 6)
  message.writeUIntBE(arp.senderMac, 8, 6)
  message.writeUInt32BE(arp.senderAddress, 14)
  message.writeUIntBE(arp.targetMac, 18, 6)
  message.writeUInt32BE(arp.targetAddress, 24)
  return message
}
