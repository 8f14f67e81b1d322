import { buildEthernet, ETHERTYPE_IPV4 } from './ethernet.ts'
import { echoReply, mayComplainAbout, timeExceeded, unreachable } from './icmp.ts'
import {
  buildIpv4,
  IPV4_HEADER_BYTES,
  type Ipv4,
  nextHop,
  PROTOCOL_ICMP,
  PROTOCOL_TCP,
} from './ipv4.ts'
import type { Nic, Table } from './table.ts'
import type { Verdict } from './verdict.ts'

/* The gateways of a domain are one router with an address in each of its networks. It leads from network to network of the domain and
 * nowhere else: the destination is looked up in the sender's domain only. It knows the networks that have a NIC at this site. */

const TTL = 64

/** `ip` was sent by `nic` to its gateway's MAC; its source is known to be the NIC's. */
export function route(table: Table, nic: Nic, ip: Ipv4): Verdict {
  if (!ip.checksumRight) return { kind: 'dropped', reason: 'malformed' }
  // Options make routers do things: a source route would be one.
  if (ip.headerBytes !== IPV4_HEADER_BYTES) return { kind: 'dropped', reason: 'malformed' }
  if (table.isGateway(nic.domain, ip.destination)) return toGateway(nic, ip)
  if (ip.ttl <= 1) return complain(nic, ip, timeExceeded)
  const receiver = table.byAddress(nic.domain, ip.destination)
  if (receiver === undefined || receiver === nic) {
    const what = table.covers(nic.domain, ip.destination) ? 'host' : 'network'
    return complain(nic, ip, (about) => unreachable(about, what))
  }
  const frame = buildEthernet({
    destination: receiver.mac,
    source: receiver.gatewayMac,
    type: ETHERTYPE_IPV4,
    payload: nextHop(ip),
  })
  return { kind: 'routed', to: [receiver], frame }
}

function toGateway(nic: Nic, ip: Ipv4): Verdict {
  const whole = ip.fragmentOffset === 0 && !ip.moreFragments
  if (whole && ip.protocol === PROTOCOL_TCP) return { kind: 'to_gateway', ip }
  const reply = whole && ip.protocol === PROTOCOL_ICMP ? echoReply(ip.payload) : undefined
  if (reply === undefined) return { kind: 'dropped', reason: 'gateway' }
  return answer(nic, ip.destination, reply)
}

function complain(nic: Nic, ip: Ipv4, about: (ip: Ipv4) => Buffer): Verdict {
  if (!mayComplainAbout(ip) || nic.gateway === null) return { kind: 'dropped', reason: 'nobody' }
  return answer(nic, nic.gateway, about(ip))
}

function answer(nic: Nic, source: number, payload: Buffer): Verdict {
  const packet = buildIpv4({
    source,
    destination: nic.address,
    protocol: PROTOCOL_ICMP,
    ttl: TTL,
    payload,
  })
  const frame = buildEthernet({
    destination: nic.mac,
    source: nic.gatewayMac,
    type: ETHERTYPE_IPV4,
    payload: packet,
  })
  return { kind: 'answered', to: [nic], frame }
}
