import { parseAddress } from './network.ts'

/* What a rule of a security group may say. Rules are stored and shown as given, so that tools which compare them with
 * their configuration see no difference; see docs/compatibility/network.md for what enforces them. */

export interface SecurityRule {
  readonly direction: string
  readonly ethertype: string
  /** A name, or a number from 0 to 255 as text; null: any. */
  readonly protocol: string | null
  /** Ports, or type and code of ICMP; null: any. */
  readonly portMin: number | null
  readonly portMax: number | null
  /** An address or a network; null: any. */
  readonly remotePrefix: string | null
  /** Id of a security group; null: any. */
  readonly remoteGroup: string | null
}

export type SecurityRuleFault =
  | 'DIRECTION'
  | 'ETHERTYPE'
  | 'PROTOCOL'
  | 'PORTS'
  | 'REMOTE_PREFIX'
  | 'TWO_REMOTES'

const ICMP = ['icmp', 'icmpv6', 'ipv6-icmp', '1', '58']
/** Protocols whose packets have port numbers. */
const WITH_PORTS = ['tcp', 'udp', 'sctp', 'dccp', 'udplite', '6', '17', '33', '132', '136']
const OTHERS = ['ah', 'egp', 'esp', 'gre', 'igmp', 'ipip', 'ipv6-encap', 'ipv6-frag']
const MORE = ['ipv6-nonxt', 'ipv6-opts', 'ipv6-route', 'ospf', 'pgm', 'rsvp', 'vrrp']
const NAMES = new Set([...ICMP, ...WITH_PORTS, ...OTHERS, ...MORE])

/** What is wrong with a rule; null: nothing. */
export function securityRuleFault(rule: SecurityRule): SecurityRuleFault | null {
  const { direction, ethertype, protocol, remotePrefix } = rule
  if (direction !== 'ingress' && direction !== 'egress') return 'DIRECTION'
  if (ethertype !== 'IPv4' && ethertype !== 'IPv6') return 'ETHERTYPE'
  if (protocol !== null && !isProtocol(protocol)) return 'PROTOCOL'
  if (!arePorts(rule)) return 'PORTS'
  if (remotePrefix !== null && rule.remoteGroup !== null) return 'TWO_REMOTES'
  if (remotePrefix !== null && !isPrefix(remotePrefix, ethertype)) return 'REMOTE_PREFIX'
  return null
}

const isProtocol = (text: string): boolean =>
  NAMES.has(text) || (/^(?:0|[1-9]\d{0,2})$/.test(text) && Number(text) <= 255)

function arePorts({ protocol, portMin, portMax }: SecurityRule): boolean {
  if (portMin === null && portMax === null) return true
  if (protocol !== null && ICMP.includes(protocol)) {
    // A code says nothing without its type.
    return isWithin(portMin, 0, 255) && (portMax === null || isWithin(portMax, 0, 255))
  }
  if (protocol === null || !WITH_PORTS.includes(protocol)) return false
  return (
    isWithin(portMin, 1, 65_535) &&
    isWithin(portMax, 1, 65_535) &&
    Number(portMin) <= Number(portMax)
  )
}

const isWithin = (value: number | null, min: number, max: number): boolean =>
  value !== null && Number.isInteger(value) && value >= min && value <= max

/** An address, or a network with or without bits behind its prefix, of the rule's own family. */
export function isPrefix(text: string, ethertype: 'IPv4' | 'IPv6'): boolean {
  const [address = '', length, ...rest] = text.split('/')
  if (rest.length > 0) return false
  const bits = ethertype === 'IPv4' ? 32 : 128
  if (length !== undefined && !(/^(?:0|[1-9]\d{0,2})$/.test(length) && Number(length) <= bits)) {
    return false
  }
  return ethertype === 'IPv4' ? parseAddress(address) !== null : isIpv6(address)
}

/** Judged by the parser of URLs, which takes an IPv6 address in brackets and nothing else there. */
const isIpv6 = (text: string): boolean =>
  /^[0-9a-fA-F:.]{2,45}$/.test(text) && text.includes(':') && URL.canParse(`http://[${text}]/`)
