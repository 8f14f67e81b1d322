/* DHCP messages, as far as one server that knows its clients needs them. */

export const DHCP_SERVER_PORT = 67
export const DHCP_CLIENT_PORT = 68
const BOOT_REQUEST = 1
const BOOT_REPLY = 2
const OPTIONS_AT = 240
const MAGIC = 0x6382_5363
/** Some clients drop anything shorter. */
const MESSAGE_BYTES_MIN = 300
const BROADCAST_FLAG = 0x8000

export const DISCOVER = 1
export const OFFER = 2
export const REQUEST = 3
export const ACK = 5
export const NAK = 6
export const INFORM = 8

export const OPTION = {
  pad: 0,
  mask: 1,
  router: 3,
  dns: 6,
  hostName: 12,
  mtu: 26,
  broadcast: 28,
  requested: 50,
  leaseSeconds: 51,
  type: 53,
  server: 54,
  renewSeconds: 58,
  rebindSeconds: 59,
  end: 255,
} as const

export interface DhcpRequest {
  readonly type: number
  readonly transaction: number
  /** The client cannot take a unicast answer yet. */
  readonly broadcast: boolean
  /** The address that the client has; 0: none. */
  readonly clientAddress: number
  readonly clientMac: number
  /** null: not given. */
  readonly requested: number | null
  readonly server: number | null
}

/** undefined: no request of an Ethernet client, cut off, or without a type. */
export function parseDhcp(message: Buffer): DhcpRequest | undefined {
  if (message.length < OPTIONS_AT || message.readUInt32BE(236) !== MAGIC) return undefined
  if (message[0] !== BOOT_REQUEST || message[1] !== 1 || message[2] !== 6) return undefined
  const options = parseOptions(message.subarray(OPTIONS_AT))
  const type = options.get(OPTION.type)
  if (type?.length !== 1) return undefined
  const address = (option: number): number | null => {
    const value = options.get(option)
    return value?.length === 4 ? value.readUInt32BE(0) : null
  }
  return {
    type: type.readUInt8(0),
    transaction: message.readUInt32BE(4),
    broadcast: (message.readUInt16BE(10) & BROADCAST_FLAG) !== 0,
    clientAddress: message.readUInt32BE(12),
    clientMac: message.readUIntBE(28, 6),
    requested: address(OPTION.requested),
    server: address(OPTION.server),
  }
}

/** By number; the first of each counts. Ends at what is cut off. Every byte is an own entry at most once, so no input takes long. */
export function parseOptions(bytes: Buffer): ReadonlyMap<number, Buffer> {
  const options = new Map<number, Buffer>()
  let at = 0
  while (at < bytes.length) {
    const option = bytes.readUInt8(at++)
    if (option === OPTION.pad) continue
    if (option === OPTION.end || at >= bytes.length) break
    const length = bytes.readUInt8(at++)
    if (at + length > bytes.length) break
    if (!options.has(option)) options.set(option, bytes.subarray(at, at + length))
    at += length
  }
  return options
}

export interface DhcpReply {
  readonly type: number
  readonly transaction: number
  readonly broadcast: boolean
  readonly clientAddress: number
  readonly clientMac: number
  /** What the client is given; 0: nothing. */
  readonly yourAddress: number
  readonly server: number
  readonly options: readonly (readonly [option: number, value: Uint8Array])[]
}

export function buildDhcp(reply: DhcpReply): Buffer {
  const options = [
    Buffer.from([OPTION.type, 1, reply.type]),
    option(OPTION.server, addresses([reply.server])),
    ...reply.options.map(([number, value]) => option(number, value)),
    Buffer.from([OPTION.end]),
  ]
  const head = Buffer.alloc(OPTIONS_AT)
  head.set([BOOT_REPLY, 1, 6], 0)
  head.writeUInt32BE(reply.transaction, 4)
  head.writeUInt16BE(reply.broadcast ? BROADCAST_FLAG : 0, 10)
  head.writeUInt32BE(reply.clientAddress, 12)
  head.writeUInt32BE(reply.yourAddress, 16)
  head.writeUInt32BE(reply.server, 20)
  head.writeUIntBE(reply.clientMac, 28, 6)
  head.writeUInt32BE(MAGIC, 236)
  const message = Buffer.concat([head, ...options])
  if (message.length >= MESSAGE_BYTES_MIN) return message
  return Buffer.concat([message], MESSAGE_BYTES_MIN)
}

const option = (number: number, value: Uint8Array): Buffer =>
  Buffer.concat([Buffer.from([number, value.length]), value])

/** Values of options. */
export function addresses(list: readonly number[]): Buffer {
  const bytes = Buffer.alloc(list.length * 4)
  for (const [index, address] of list.entries()) bytes.writeUInt32BE(address, index * 4)
  return bytes
}

export const seconds = (value: number): Buffer => addresses([value])
