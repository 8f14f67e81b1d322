import { createHash } from 'node:crypto'
import type { ServerNic } from '#wire/site/servers.ts'
import { parseMac } from './ethernet.ts'
import { maskOf, parseAddress } from './ipv4.ts'

/* What the switch knows: the NICs of this site's guests, from their definitions. Nothing is learnt from frames, so nothing that a guest
 * sends changes where others' frames go. A table is made anew for every change; there are some hundred NICs at most. */

/** One NIC, as the switch needs it. */
export interface Nic {
  /** Unique at the site; see switchboard.ts. */
  readonly key: string
  readonly mac: number
  readonly address: number
  readonly prefixLength: number
  /** null: a network without a way out. */
  readonly gateway: number | null
  /** Also the sender of DHCP answers where there is no gateway. */
  readonly gatewayMac: number
  readonly dns: readonly number[]
  /** For DHCP; empty: none is given. */
  readonly hostName: string
  readonly network: string
  readonly domain: string
}

/** undefined: an address in the definition is none. */
export function nicOf(key: string, serverName: string, nic: ServerNic): Nic | undefined {
  const mac = parseMac(nic.mac)
  const address = parseAddress(nic.address)
  const gateway = nic.gateway === null ? null : parseAddress(nic.gateway)
  const dns = nic.dns.map(parseAddress).filter((one) => one !== undefined)
  if (mac === undefined || address === undefined || gateway === undefined) return undefined
  if (dns.length < nic.dns.length) return undefined
  return {
    key,
    mac,
    address,
    prefixLength: nic.prefix_length,
    gateway,
    gatewayMac: gatewayMacOf(nic.network),
    dns,
    hostName: hostNameOf(serverName),
    network: nic.network,
    domain: nic.domain,
  }
}

/** The same at every site, so that what a guest remembers stays true after a failover. Locally administered. */
function gatewayMacOf(network: string): number {
  const digest = createHash('sha256').update(network).digest()
  return 0x02 * 2 ** 40 + digest.readUIntBE(0, 5)
}

/** One label of a host name, made from any text. */
export function hostNameOf(name: string): string {
  const label = name.toLowerCase().replace(/[^a-z0-9]+/g, '-')
  return label.slice(0, 64).replace(/^-/, '').slice(0, 63).replace(/-$/, '')
}

export class Table {
  readonly nics: ReadonlyMap<string, Nic>
  readonly #networks = new Map<string, Network>()
  readonly #domains = new Map<string, Domain>()

  constructor(nics: Iterable<Nic>) {
    this.nics = new Map([...nics].map((nic) => [nic.key, nic]))
    for (const nic of this.nics.values()) {
      const network = getOrMake(this.#networks, nic.network, () => ({
        nics: [],
        byMac: new Map<number, Nic>(),
      }))
      network.nics.push(nic)
      network.byMac.set(nic.mac, nic)
      const domain = getOrMake(this.#domains, nic.domain, () => ({
        byAddress: new Map<number, Nic>(),
        gateways: new Set<number>(),
        subnets: new Map<string, Subnet>(),
      }))
      domain.byAddress.set(nic.address, nic)
      if (nic.gateway !== null) domain.gateways.add(nic.gateway)
      const mask = maskOf(nic.prefixLength)
      domain.subnets.set(nic.network, { first: (nic.address & mask) >>> 0, mask })
    }
  }

  inNetwork(network: string): readonly Nic[] {
    return this.#networks.get(network)?.nics ?? []
  }

  byMac(network: string, mac: number): Nic | undefined {
    return this.#networks.get(network)?.byMac.get(mac)
  }

  byAddress(domain: string, address: number): Nic | undefined {
    return this.#domains.get(domain)?.byAddress.get(address)
  }

  isGateway(domain: string, address: number): boolean {
    return this.#domains.get(domain)?.gateways.has(address) ?? false
  }

  /** Whether a network of the domain that has a NIC here covers the address. */
  covers(domain: string, address: number): boolean {
    const subnets = this.#domains.get(domain)?.subnets.values() ?? []
    return [...subnets].some(({ first, mask }) => (address & mask) >>> 0 === first)
  }
}

interface Network {
  readonly nics: Nic[]
  readonly byMac: Map<number, Nic>
}

interface Subnet {
  readonly first: number
  readonly mask: number
}

interface Domain {
  readonly byAddress: Map<number, Nic>
  readonly gateways: Set<number>
  readonly subnets: Map<string, Subnet>
}

function getOrMake<V>(map: Map<string, V>, key: string, make: () => V): V {
  const found = map.get(key)
  if (found !== undefined) return found
  const made = make()
  map.set(key, made)
  return made
}
