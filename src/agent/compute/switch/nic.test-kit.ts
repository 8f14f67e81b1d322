import { setImmediate as nextTurn } from 'node:timers/promises'
import type { ServerNic } from '#wire/site/servers.ts'
import type { Netdev } from '../driver.ts'
import { ARP_REQUEST, buildArp } from './arp.ts'
import { Inlet, Outlet } from './datagrams.ts'
import { DHCP_CLIENT_PORT, DHCP_SERVER_PORT, OPTION, parseOptions, REQUEST } from './dhcp.ts'
import {
  buildEthernet,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  MAC_BROADCAST,
  parseEthernet,
  parseMac,
} from './ethernet.ts'
import {
  ADDRESS_BROADCAST,
  buildIpv4,
  checksum,
  parseAddress,
  parseIpv4,
  PROTOCOL_ICMP,
  PROTOCOL_UDP,
} from './ipv4.ts'
import { type Nic, nicOf } from './table.ts'
import { buildUdp, parseUdp } from './udp.ts'

/* What tests of the switch are made of: NICs of two domains, frames as guests send them, and a NIC that speaks the sockets as QEMU does. */

/** `place` 10.DOMAIN.NETWORK.HOST; the MAC tells the same. Networks are /24 with the gateway at .1. */
export function definitionOf(domain: number, network: number, host: number): ServerNic {
  const hex = (byte: number) => byte.toString(16).padStart(2, '0')
  return {
    port: `port-${domain}-${network}-${host}`,
    mac: `fa:16:3e:${hex(domain)}:${hex(network)}:${hex(host)}`,
    address: `10.${domain}.${network}.${host}`,
    prefix_length: 24,
    gateway: `10.${domain}.${network}.1`,
    dns: ['10.255.0.1', '10.255.0.2'],
    network: `network-${domain}-${network}`,
    domain: `domain-${domain}`,
  }
}

export function testNic(domain: number, network: number, host: number): Nic {
  const definition = definitionOf(domain, network, host)
  return nicOf(definition.port, `server ${domain}.${network}.${host}`, definition) as Nic
}

export const mac = (text: string): number => parseMac(text) as number
export const address = (text: string): number => parseAddress(text) as number

interface Ends {
  readonly from: { readonly mac: number; readonly address: number }
  readonly toMac: number
  readonly to: number
}

export function ipFrame(ends: Ends, protocol: number, payload: Buffer, ttl = 64): Buffer {
  return buildEthernet({
    destination: ends.toMac,
    source: ends.from.mac,
    type: ETHERTYPE_IPV4,
    payload: buildIpv4({
      source: ends.from.address,
      destination: ends.to,
      protocol,
      ttl,
      payload,
    }),
  })
}

export function udpFrame(ends: Ends, ports: readonly [number, number], text: string): Buffer {
  const [sourcePort, destinationPort] = ports
  const payload = Buffer.from(text)
  const source = ends.from.address
  const parts = { source, destination: ends.to, sourcePort, destinationPort, payload }
  return ipFrame(ends, PROTOCOL_UDP, buildUdp(parts))
}

export function pingFrame(ends: Ends, text: string, ttl = 64): Buffer {
  const message = Buffer.concat([Buffer.from([8, 0, 0, 0, 0, 1, 0, 1]), Buffer.from(text)])
  message.writeUInt16BE(checksum(message), 2)
  return ipFrame(ends, PROTOCOL_ICMP, message, ttl)
}

export function arpFrame(from: Ends['from'], asks: number, operation = ARP_REQUEST): Buffer {
  return buildEthernet({
    destination: MAC_BROADCAST,
    source: from.mac,
    type: ETHERTYPE_ARP,
    payload: buildArp({
      operation,
      senderMac: from.mac,
      senderAddress: from.address,
      targetMac: 0,
      targetAddress: asks,
    }),
  })
}

/** A DHCP message of a client; `options` besides its type. */
export function dhcpFrame(
  from: Ends['from'],
  type: number,
  options: readonly (readonly [number, Uint8Array])[] = [],
): Buffer {
  const head = Buffer.alloc(240)
  head.set([1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef])
  head.writeUIntBE(from.mac, 28, 6)
  head.writeUInt32BE(0x6382_5363, 236)
  const bytes = [[OPTION.type, 1, type], ...options.map(([o, v]) => [o, v.length, ...v]), [255]]
  const payload = Buffer.concat([head, Buffer.from(bytes.flat())])
  const source = 0
  const ends = { from: { mac: from.mac, address: 0 }, toMac: MAC_BROADCAST, to: ADDRESS_BROADCAST }
  const ports = { sourcePort: DHCP_CLIENT_PORT, destinationPort: DHCP_SERVER_PORT }
  return ipFrame(
    ends,
    PROTOCOL_UDP,
    buildUdp({ source, destination: ADDRESS_BROADCAST, ...ports, payload }),
  )
}

export const requestFrame = (from: Ends['from'], wanted: number): Buffer => {
  const value = Buffer.alloc(4)
  value.writeUInt32BE(wanted)
  return dhcpFrame(from, REQUEST, [[OPTION.requested, value]])
}

export interface Answered {
  readonly type: number | undefined
  readonly yourAddress: number
  readonly options: ReadonlyMap<number, Buffer>
}

/** The DHCP answer in a frame. */
export function dhcpAnswer(frame: Buffer): Answered | undefined {
  const ip = parseIpv4(parseEthernet(frame)?.payload ?? Buffer.alloc(0))
  const udp = ip && parseUdp(ip.payload)
  if (udp?.destinationPort !== DHCP_CLIENT_PORT) return undefined
  const options = parseOptions(udp.payload.subarray(240))
  return {
    type: options.get(OPTION.type)?.[0],
    yourAddress: udp.payload.readUInt32BE(16),
    options,
  }
}

/** Does with the sockets what `-netdev dgram` does. */
export class SocketNic {
  readonly nic: Nic
  readonly #inlet: Inlet
  readonly #outlet: Outlet

  constructor(nic: Nic, netdev: Netdev) {
    const { local, remote } = netdev as unknown as Record<'local' | 'remote', { path: string }>
    this.nic = nic
    this.#inlet = new Inlet(local.path)
    this.#outlet = new Outlet(remote.path)
  }

  get ends(): Ends['from'] {
    return this.nic
  }

  /** Waits while the switch's queue is full, as a guest does. False: nobody is there. */
  async send(frame: Buffer): Promise<boolean> {
    for (;;) {
      const sent = this.#outlet.send(frame)
      if (sent === 'sent') return true
      // Also when nobody is there: a test that sends again and again has to let others go on.
      await nextTurn()
      if (sent === 'away') return false
    }
  }

  /** The next frame that fits; frames before it are forgotten. */
  async receive(fits: (frame: Buffer) => boolean, limitMs = 10_000): Promise<Buffer> {
    const endMs = performance.now() + limitMs
    while (performance.now() < endMs) {
      const frame = this.take()
      if (frame === undefined) await nextTurn()
      else if (fits(frame)) return frame
    }
    throw new Error(`no such frame within ${limitMs} ms`)
  }

  /** undefined: nothing has arrived. */
  take(): Buffer | undefined {
    const into = Buffer.alloc(2048)
    const length = this.#inlet.receive(into)
    return length < 0 ? undefined : into.subarray(0, length)
  }

  /** Resolves when everything sent before was dealt with: frames of one NIC are taken in order, and the gateway answers this one. */
  async settled(mark: string): Promise<void> {
    const to = this.nic.gateway ?? 0
    await this.send(pingFrame({ from: this.ends, toMac: this.nic.gatewayMac, to }, mark))
    await this.receive((frame) => frame.includes(mark))
  }

  close(): void {
    this.#inlet.close()
    this.#outlet.close()
  }
}
