import type { Ipv4 } from './ipv4.ts'
import type { Nic } from './table.ts'

/** Why a frame goes nowhere; each NIC counts its own by reason. */
export const DROP_REASONS = [
  /** Larger than a frame may be, or too short to be one. */
  'size',
  'source_mac',
  /** The sender of an IPv4 packet or ARP message, or the client of a DHCP request, is not the NIC. */
  'source_address',
  /** Not ARP nor IPv4: IPv6, VLAN tags, bridge protocols. */
  'kind',
  'malformed',
  /** A guest that plays DHCP server. */
  'dhcp_server',
  /** A DHCP message that has no answer. */
  'dhcp_ignored',
  /** Nobody in the network has the destination MAC, or nobody in the domain the destination address. */
  'nobody',
  /** To a gateway, which answers echo requests and nothing else. */
  'gateway',
  /** The receiver's queue is full, or it takes no frames; counted at the sender. */
  'receiver',
] as const
export type DropReason = (typeof DROP_REASONS)[number]

/** What the switch does with one frame of one NIC. */
export type Verdict =
  | {
      readonly kind: 'bridged' | 'flooded' | 'routed' | 'answered'
      readonly to: readonly Nic[]
      /** May share the memory of the frame that was judged. */
      readonly frame: Buffer
    }
  | { readonly kind: 'dropped'; readonly reason: DropReason }
  /** TCP to the gateway: an answer to what the switch asks by itself, or nothing. */
  | { readonly kind: 'to_gateway'; readonly ip: Ipv4 }
