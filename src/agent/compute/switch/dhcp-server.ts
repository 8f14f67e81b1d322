import {
  ACK,
  addresses,
  buildDhcp,
  DHCP_CLIENT_PORT,
  DHCP_SERVER_PORT,
  type DhcpReply,
  type DhcpRequest,
  DISCOVER,
  INFORM,
  NAK,
  OFFER,
  OPTION,
  parseDhcp,
  REQUEST,
  seconds,
} from './dhcp.ts'
import { buildEthernet, ETHERTYPE_IPV4, MAC_BROADCAST, MTU_BYTES } from './ethernet.ts'
import { ADDRESS_BROADCAST, buildIpv4, maskOf, PROTOCOL_UDP } from './ipv4.ts'
import type { Nic } from './table.ts'
import { buildUdp } from './udp.ts'

/* The DHCP server of every network: it has one answer per NIC, the address of the inventory, and keeps no leases. So a switch that
 * was started again, or one at another site, answers what the one before did. */

/** The address never changes while the NIC lives; a renewal only shows that the network is there. */
const LEASE_SECONDS = 24 * 3600
/** Who answers where there is no gateway: link-local, so no guest has it. */
const SERVER_WITHOUT_GATEWAY = 0xa9fe_a9fe
const TTL = 64

/** The frame to send back; undefined: no answer to this one. */
export function answerDhcp(nic: Nic, message: Buffer): Buffer | undefined {
  const request = parseDhcp(message)
  if (request === undefined || request.clientMac !== nic.mac) return undefined
  const reply = replyTo(nic, request)
  return reply && frameOf(nic, reply)
}

function replyTo(nic: Nic, request: DhcpRequest): DhcpReply | undefined {
  const server = nic.gateway ?? SERVER_WITHOUT_GATEWAY
  const reply = (type: number, more: Partial<DhcpReply>): DhcpReply => ({
    type,
    transaction: request.transaction,
    broadcast: request.broadcast,
    clientAddress: request.clientAddress,
    clientMac: nic.mac,
    yourAddress: nic.address,
    server,
    options: [...LEASE, ...settings(nic)],
    ...more,
  })
  switch (request.type) {
    case DISCOVER:
      return reply(OFFER, { clientAddress: 0 })
    case REQUEST: {
      // Said to another server.
      if (request.server !== null && request.server !== server) return undefined
      const wanted = request.requested ?? request.clientAddress
      if (wanted === nic.address) return reply(ACK, {})
      return reply(NAK, { broadcast: true, clientAddress: 0, yourAddress: 0, options: [] })
    }
    case INFORM:
      return reply(ACK, { yourAddress: 0, options: settings(nic) })
    default:
      // Declined, released: the address is the NIC's all the same.
      return undefined
  }
}

const LEASE: DhcpReply['options'] = [
  [OPTION.leaseSeconds, seconds(LEASE_SECONDS)],
  [OPTION.renewSeconds, seconds(LEASE_SECONDS / 2)],
  [OPTION.rebindSeconds, seconds((LEASE_SECONDS / 8) * 7)],
]

function settings(nic: Nic): DhcpReply['options'] {
  const mask = maskOf(nic.prefixLength)
  const mtu = Buffer.alloc(2)
  mtu.writeUInt16BE(MTU_BYTES)
  const broadcast = ((nic.address & mask) | ~mask) >>> 0
  return [
    [OPTION.mask, addresses([mask])],
    [OPTION.broadcast, addresses([broadcast])],
    [OPTION.mtu, mtu],
    ...(nic.gateway === null ? [] : [[OPTION.router, addresses([nic.gateway])] as const]),
    ...(nic.dns.length === 0 ? [] : [[OPTION.dns, addresses(nic.dns)] as const]),
    ...(nic.hostName === '' ? [] : [[OPTION.hostName, Buffer.from(nic.hostName)] as const]),
  ]
}

/** To the client's address where it has one or is about to, unless it asked for a broadcast. */
function frameOf(nic: Nic, reply: DhcpReply): Buffer {
  const known = reply.clientAddress !== 0 ? reply.clientAddress : reply.yourAddress
  const everybody = reply.broadcast || known === 0
  const destination = everybody ? ADDRESS_BROADCAST : known
  const source = reply.server
  const udp = buildUdp({
    source,
    destination,
    sourcePort: DHCP_SERVER_PORT,
    destinationPort: DHCP_CLIENT_PORT,
    payload: buildDhcp(reply),
  })
  return buildEthernet({
    destination: everybody ? MAC_BROADCAST : nic.mac,
    source: nic.gatewayMac,
    type: ETHERTYPE_IPV4,
    payload: buildIpv4({ source, destination, protocol: PROTOCOL_UDP, ttl: TTL, payload: udp }),
  })
}
