import { ARP_REPLY, ARP_REQUEST, buildArp, parseArp } from './arp.ts'
import { DHCP_CLIENT_PORT, DHCP_SERVER_PORT } from './dhcp.ts'
import { answerDhcp } from './dhcp-server.ts'
import {
  buildEthernet,
  type Ethernet,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  FRAME_BYTES_MAX,
  isGroupMac,
  parseEthernet,
} from './ethernet.ts'
import { ADDRESS_ANY, type Ipv4, parseIpv4, PROTOCOL_UDP } from './ipv4.ts'
import { route } from './router.ts'
import type { Nic, Table } from './table.ts'
import { parseUdp } from './udp.ts'
import type { DropReason, Verdict } from './verdict.ts'

/* What happens to one frame of one NIC. Decides; sends nothing.
 *
 *     size ─► its own MAC? ─► ARP: its own address? ─► gateway asked for: answered ──────► bridged or flooded in its network
 *                         └─► IPv4: its own address? ─► DHCP: answered ─► to the gateway: routed in its domain ─┘
 *                         └─► anything else: dropped
 *
 * Isolation holds by construction: receivers come from the sender's network, or through the router from its domain, and there is no
 * third source. Spoofing is stopped at the sender's side, because only there it is known who sends.
 *
 * IPv6 is dropped as a whole: the inventory has no IPv6 addresses, so a guest could claim any, and be its neighbours' router.
 */

const drop = (reason: DropReason): Verdict => ({ kind: 'dropped', reason })

/** `frame` as `nic` sent it. No content makes it throw. */
export function forward(table: Table, nic: Nic, frame: Buffer): Verdict {
  if (frame.length > FRAME_BYTES_MAX) return drop('size')
  const ethernet = parseEthernet(frame)
  if (ethernet === undefined) return drop('size')
  if (ethernet.source !== nic.mac) return drop('source_mac')
  switch (ethernet.type) {
    case ETHERTYPE_ARP:
      return arp(table, nic, ethernet, frame)
    case ETHERTYPE_IPV4:
      return ipv4(table, nic, ethernet, frame)
    default:
      return drop('kind')
  }
}

function arp(table: Table, nic: Nic, ethernet: Ethernet, frame: Buffer): Verdict {
  const message = parseArp(ethernet.payload)
  if (message === undefined) return drop('malformed')
  const { operation, senderMac, senderAddress, targetAddress } = message
  if (operation !== ARP_REQUEST && operation !== ARP_REPLY) return drop('malformed')
  // Nobody yet: a client that looks whether its new address is free.
  const own = senderAddress === nic.address || senderAddress === ADDRESS_ANY
  if (senderMac !== nic.mac || !own) return drop('source_address')
  if (targetAddress !== nic.gateway) return bridge(table, nic, ethernet, frame)
  if (operation !== ARP_REQUEST) return drop('gateway')
  const reply = buildArp({
    operation: ARP_REPLY,
    senderMac: nic.gatewayMac,
    senderAddress: targetAddress,
    targetMac: nic.mac,
    targetAddress: senderAddress,
  })
  const answer = buildEthernet({
    destination: nic.mac,
    source: nic.gatewayMac,
    type: ETHERTYPE_ARP,
    payload: reply,
  })
  return { kind: 'answered', to: [nic], frame: answer }
}

function ipv4(table: Table, nic: Nic, ethernet: Ethernet, frame: Buffer): Verdict {
  const ip = parseIpv4(ethernet.payload)
  if (ip === undefined) return drop('malformed')
  const dhcp = dhcpOf(ip)
  if (dhcp === 'malformed') return drop('malformed')
  // A client that has no address yet asks for one, and may do nothing else.
  const anonymous = ip.source === ADDRESS_ANY && dhcp?.to === 'server'
  if (ip.source !== nic.address && !anonymous) return drop('source_address')
  if (dhcp?.to === 'client') return drop('dhcp_server')
  if (dhcp?.to === 'server') {
    const answer = answerDhcp(nic, dhcp.message)
    return answer === undefined
      ? drop('dhcp_ignored')
      : { kind: 'answered', to: [nic], frame: answer }
  }
  if (nic.gateway !== null && ethernet.destination === nic.gatewayMac) return route(table, nic, ip)
  return bridge(table, nic, ethernet, frame)
}

/** Which way a DHCP message goes, by its ports; null: it is none. A later fragment has no ports, and without the first is nothing. */
function dhcpOf(ip: Ipv4): { to: 'server' | 'client'; message: Buffer } | null | 'malformed' {
  if (ip.protocol !== PROTOCOL_UDP || ip.fragmentOffset !== 0) return null
  // The first of several fragments is shorter than its header says; the ports count all the same.
  if (ip.moreFragments) {
    if (ip.payload.length < 8) return 'malformed'
    const ports = [ip.payload.readUInt16BE(0), ip.payload.readUInt16BE(2)]
    const touched = ports.includes(DHCP_SERVER_PORT) || ports.includes(DHCP_CLIENT_PORT)
    return touched ? 'malformed' : null
  }
  const udp = parseUdp(ip.payload)
  if (udp === undefined) return 'malformed'
  const { sourcePort, destinationPort, payload } = udp
  if (destinationPort === DHCP_CLIENT_PORT || sourcePort === DHCP_SERVER_PORT) {
    return { to: 'client', message: payload }
  }
  return destinationPort === DHCP_SERVER_PORT ? { to: 'server', message: payload } : null
}

/** Inside the sender's network, by the table. A destination that is not there is nobody: unlike a learning switch, nothing is tried. */
function bridge(table: Table, nic: Nic, { destination }: Ethernet, frame: Buffer): Verdict {
  if (isGroupMac(destination)) {
    const to = table.inNetwork(nic.network).filter((other) => other !== nic)
    return { kind: 'flooded', to, frame }
  }
  const to = table.byMac(nic.network, destination)
  return to === undefined || to === nic ? drop('nobody') : { kind: 'bridged', to: [to], frame }
}
