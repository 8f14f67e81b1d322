/* IPv4 addresses and networks, as arithmetic. An address is a whole number from 0 to 2^32 - 1; text is parsed once, at the
 * border. Bitwise operators are avoided: they are signed in JavaScript, and 192.168.0.0 would come out negative. */

/** A network in canonical form: no bit is set behind the prefix. */
export interface Cidr {
  /** The network's own address, its lowest. */
  readonly first: number
  /** 0-32 */
  readonly prefix: number
}

const ADDRESSES = 2 ** 32

/** Dotted decimal without leading zeros, which some readers take for octal; null: no address. */
export function parseAddress(text: string): number | null {
  const parts = text.split('.')
  if (parts.length !== 4) return null
  let address = 0
  for (const part of parts) {
    if (!/^(?:0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return null
    address = address * 256 + Number(part)
  }
  return address
}

export const formatAddress = (address: number): string =>
  [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join('.')

/** `192.168.0.0/24`; null: malformed, or bits are set behind the prefix, so that it is unclear what was meant. */
export function parseCidr(text: string): Cidr | null {
  const [base = '', length = '', ...rest] = text.split('/')
  const first = parseAddress(base)
  if (first === null || rest.length > 0 || !/^(?:0|[1-9]\d?)$/.test(length)) return null
  const prefix = Number(length)
  if (prefix > 32 || first % sizeOf({ prefix }) !== 0) return null
  return { first, prefix }
}

export const formatCidr = (cidr: Cidr): string => `${formatAddress(cidr.first)}/${cidr.prefix}`

/** How many addresses the network spans, from 1 to 2^32. */
export const sizeOf = ({ prefix }: Pick<Cidr, 'prefix'>): number => ADDRESSES / 2 ** prefix

/** The highest address; of a network of at least four, the broadcast address. */
export const lastOf = (cidr: Cidr): number => cidr.first + sizeOf(cidr) - 1

export const holds = (cidr: Cidr, address: number): boolean =>
  address >= cidr.first && address <= lastOf(cidr)

/** True when each address of `inner` is one of `outer`. */
export const contains = (outer: Cidr, inner: Cidr): boolean =>
  holds(outer, inner.first) && holds(outer, lastOf(inner))

export const overlaps = (a: Cidr, b: Cidr): boolean => a.first <= lastOf(b) && b.first <= lastOf(a)

/** What a NIC may wear: any address but the network's own and the broadcast. */
export const isHostAddress = (cidr: Cidr, address: number): boolean =>
  address > cidr.first && address < lastOf(cidr)

/** The lowest host address that is not taken, the gateway being taken always; null: the network is full. */
export function chooseAddress(
  cidr: Cidr,
  gateway: number,
  taken: ReadonlySet<number>,
): number | null {
  for (let address = cidr.first + 1; address < lastOf(cidr); address++) {
    if (address !== gateway && !taken.has(address)) return address
  }
  return null
}

// ---------------------------------------------------------------- rules

/** Smallest and largest networks: a /28 still has 13 addresses for servers, more than a /8 is no private range. */
export const PREFIX_MIN = 8
export const PREFIX_MAX = 28

const PRIVATE = ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16'].map(
  (text) => parseCidr(text) as Cidr,
)

/** A range that a VPC may have: private, between a /8 and a /28. */
export const isVpcRange = (cidr: Cidr): boolean =>
  cidr.prefix >= PREFIX_MIN &&
  cidr.prefix <= PREFIX_MAX &&
  PRIVATE.some((range) => contains(range, cidr))

export type SubnetFault = 'TOO_SMALL' | 'OUTSIDE_VPC' | 'OVERLAP' | 'GATEWAY'

/** What is wrong with a new subnet of a VPC; null: nothing. */
export function subnetFault(
  subnet: { readonly cidr: Cidr; readonly gateway: number },
  vpc: Cidr,
  others: readonly Cidr[],
): SubnetFault | null {
  if (subnet.cidr.prefix > PREFIX_MAX) return 'TOO_SMALL'
  if (!contains(vpc, subnet.cidr)) return 'OUTSIDE_VPC'
  if (others.some((other) => overlaps(other, subnet.cidr))) return 'OVERLAP'
  if (!isHostAddress(subnet.cidr, subnet.gateway)) return 'GATEWAY'
  return null
}

// ---------------------------------------------------------------- MAC

const MAC_PREFIX = 'fa:16:3e'
/** How many different MACs there are. */
export const MACS = 2 ** 24

/** `fa:16:3e:xx:xx:xx` from a number below 2^24: locally administered, unicast, known from other clouds of this API. */
export function macOf(serial: number): string {
  const hex = serial.toString(16).padStart(6, '0')
  return [MAC_PREFIX, hex.slice(0, 2), hex.slice(2, 4), hex.slice(4, 6)].join(':')
}

/** Lower case only: it is compared as text. */
export const isMac = (text: string): boolean => /^fa:16:3e(?::[0-9a-f]{2}){3}$/.test(text)
