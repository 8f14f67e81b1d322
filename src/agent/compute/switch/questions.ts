import { buildArp, ARP_REQUEST, parseArp } from './arp.ts'
import {
  buildEthernet,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  MAC_BROADCAST,
  parseEthernet,
} from './ethernet.ts'
import { ADDRESS_ANY, buildIpv4, type Ipv4, parseIpv4, PROTOCOL_TCP } from './ipv4.ts'
import type { Nic } from './table.ts'
import { buildTcp, parseTcp } from './tcp.ts'
import { type Outcome, type Question, TcpClient } from './tcp-client.ts'

/* What the switch asks a guest by itself, as the gateway of its network: whether it has its address, and whether a service in it answers. So
 * a probe comes from inside the guest's own network, and nothing else has to be let into it. */

const TTL = 64
/** Questions to one NIC at a time. A further one is refused. */
const QUESTIONS_MAX = 8

export type AskedKind = Outcome['kind'] | 'no_gateway' | 'busy' | 'unplugged'
export interface Asked {
  readonly kind: AskedKind
  readonly answer: Buffer
}
type Settle = (asked: Asked) => void

interface Open {
  readonly client: TcpClient
  settle: Settle | undefined
}

const nothing = (kind: AskedKind): Asked => ({ kind, answer: Buffer.alloc(0) })

/** The questions to one NIC. Frames to be sent to it are given to `send`. */
export class Questions {
  readonly #open = new Map<number, Open>()

  get idle(): boolean {
    return this.#open.size === 0
  }

  ask(nic: Nic, question: Question, nowMs: number, settle: Settle): readonly Buffer[] {
    if (nic.gateway === null) {
      settle(nothing('no_gateway'))
      return []
    }
    if (this.#open.size >= QUESTIONS_MAX || this.#open.has(question.sourcePort)) {
      settle(nothing('busy'))
      return []
    }
    const open: Open = { client: new TcpClient(question, nowMs), settle }
    this.#open.set(question.sourcePort, open)
    return this.#after(nic, question.sourcePort, open)
  }

  /** A TCP packet of the guest to its gateway. undefined: it belongs to no question. */
  receive(nic: Nic, ip: Ipv4, nowMs: number): readonly Buffer[] | undefined {
    const segment = parseTcp(ip.payload, ip.source, ip.destination)
    if (segment === undefined || ip.destination !== nic.gateway) return undefined
    const open = this.#open.get(segment.destinationPort)
    if (open === undefined) return undefined
    open.client.receive(segment, nowMs)
    return this.#after(nic, segment.destinationPort, open)
  }

  tick(nic: Nic, nowMs: number): readonly Buffer[] {
    return [...this.#open].flatMap(([port, open]) => {
      open.client.tick(nowMs)
      return this.#after(nic, port, open)
    })
  }

  nextMs(): number {
    return Math.min(...[...this.#open.values()].map(({ client }) => client.nextMs))
  }

  /** The NIC is no longer there. */
  end(): void {
    for (const { settle } of this.#open.values()) settle?.(nothing('unplugged'))
    this.#open.clear()
  }

  #after(nic: Nic, port: number, open: Open): readonly Buffer[] {
    const { client, settle } = open
    if (settle !== undefined && client.outcome !== undefined) {
      open.settle = undefined
      settle(client.outcome)
    }
    if (client.over) this.#open.delete(port)
    const source = nic.gateway ?? ADDRESS_ANY
    return client.take().map((segment) =>
      buildEthernet({
        destination: nic.mac,
        source: nic.gatewayMac,
        type: ETHERTYPE_IPV4,
        payload: buildIpv4({
          source,
          destination: nic.address,
          protocol: PROTOCOL_TCP,
          ttl: TTL,
          payload: buildTcp(segment, source, nic.address),
        }),
      }),
    )
  }
}

/** Asks whoever has the NIC's address to say so. Guests whose network has no gateway are asked by nobody in particular. */
export function whoHasItsAddress(nic: Nic): Buffer {
  return buildEthernet({
    destination: MAC_BROADCAST,
    source: nic.gatewayMac,
    type: ETHERTYPE_ARP,
    payload: buildArp({
      operation: ARP_REQUEST,
      senderMac: nic.gatewayMac,
      senderAddress: nic.gateway ?? ADDRESS_ANY,
      targetMac: 0,
      targetAddress: nic.address,
    }),
  })
}

/** Whether the guest shows with this frame that it has taken its address. */
export function usesItsAddress(nic: Nic, frame: Buffer): boolean {
  const ethernet = parseEthernet(frame)
  if (ethernet?.source !== nic.mac) return false
  if (ethernet.type === ETHERTYPE_ARP) {
    return parseArp(ethernet.payload)?.senderAddress === nic.address
  }
  return ethernet.type === ETHERTYPE_IPV4 && parseIpv4(ethernet.payload)?.source === nic.address
}
