import { createHash } from 'node:crypto'
import {
  DISKS_MAX,
  NICS_MAX,
  type ServerDefinition,
  type ServerDisk,
  type ServerNic,
} from '#wire/site/servers.ts'

/* What a definition is to libvirt, and what libvirt's description of a running domain says of its devices. Pure.
 *
 * Aliases of our own name the devices, so that they are found again whatever agent asks: ua-disk-VOLUME, ua-nic-PORT. (libvirt wants the
 * prefix.) Every device sits behind a PCIe root port of its own; all are there from the start, because a port is what can be plugged into.
 */

export interface DomainPlaces {
  readonly domain: string
  readonly nbdSocket: string
  readonly consoleFile: string
  /** libvirt's word: kvm, or qemu for emulation. */
  readonly type: 'kvm' | 'qemu'
  /** Network of libvirt for the NICs; undefined: they are plugged into nothing. */
  readonly network: string | undefined
}

/** How long a guest's request waits for a disk that is not served, s. libvirt 9.0 does not know it and leaves it out, therefore the policies:
 *  the guest is paused by the error that it must not see, and goes on when the driver says so. */
const RECONNECT_DELAY_S = 86_400

export const diskAlias = (volume: string): string => `ua-disk-${volume}`
export const nicAlias = (port: string): string => `ua-nic-${port}`

export function domainXml(
  { server, name, vcpus, memory_mb, disks, nics }: ServerDefinition,
  places: DomainPlaces,
): string {
  const ports = Array.from(
    { length: DISKS_MAX + NICS_MAX },
    (_, index) =>
      `<controller type='pci' index='${index + 1}' model='pcie-root-port'><target chassis='${index + 1}' port='0x${index.toString(16)}'/><address type='pci' domain='0x0000' bus='0x00' slot='0x${(2 + (index >> 3)).toString(16)}' function='0x${index & 7}'${(index & 7) === 0 ? " multifunction='on'" : ''}/></controller>`,
  )
  // Where nothing is said, libvirt puts a device at the first free port.
  const devices = [
    "<controller type='pci' index='0' model='pcie-root'/>",
    ...ports,
    "<controller type='usb' model='none'/>",
    ...disks.map((disk, index) => diskXml(disk, disk.boot_index, index, places.nbdSocket)),
    ...nics.map((nic) => nicXml(nic, places.network)),
    `<serial type='file'><source path='${text(places.consoleFile)}' append='on'/><target type='isa-serial' port='0'/></serial>`,
    "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>",
    "<memballoon model='none'/><video><model type='none'/></video>",
  ]
  return [
    `<domain type='${places.type}'>`,
    `<name>${text(places.domain)}</name><uuid>${uuidOf(server)}</uuid>`,
    `<title>${text(printable(name))}</title>`,
    `<memory unit='MiB'>${memory_mb}</memory><vcpu>${vcpus}</vcpu>`,
    "<os><type arch='x86_64' machine='q35'>hvm</type></os>",
    "<features><acpi/><apic/></features><clock offset='utc'/>",
    places.type === 'kvm' ? "<cpu mode='host-passthrough'/>" : "<cpu mode='maximum'/>",
    '<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>',
    `<devices>${devices.join('\n')}</devices>`,
    '</domain>',
  ].join('\n')
}

/** `place` in the order of the disks; the letter is libvirt's business only, the guest gives its own. */
export function diskXml(
  { volume }: ServerDisk,
  bootIndex: number | null,
  place: number,
  nbdSocket: string,
): string {
  const boot = bootIndex === null ? '' : `<boot order='${bootIndex + 1}'/>`
  return [
    "<disk type='network' device='disk'>",
    "<driver name='qemu' type='raw' discard='unmap' error_policy='stop' rerror_policy='stop'/>",
    `<source protocol='nbd' name='${text(volume)}'><host transport='unix' socket='${text(nbdSocket)}'/><reconnect delay='${RECONNECT_DELAY_S}'/></source>`,
    `<target dev='vd${letters(place)}' bus='virtio'/><serial>${text(volume.slice(0, 20))}</serial>${boot}`,
    `<alias name='${text(diskAlias(volume))}'/></disk>`,
  ].join('')
}

export function nicXml({ port, mac }: ServerNic, network: string | undefined): string {
  const source = network === undefined ? '' : `<source network='${text(network)}'/>`
  // A tap device that belongs to no bridge. (Type `null` would say it better; libvirt 9.0 crashes on it.)
  const type = network === undefined ? 'ethernet' : 'network'
  // Without a boot ROM: trying the network first would cost a guest seconds at each start.
  return `<interface type='${type}'><mac address='${mac}'/>${source}<model type='virtio'/><rom enabled='no'/><alias name='${text(nicAlias(port))}'/></interface>`
}

export interface DomainDevices {
  readonly disks: readonly string[]
  readonly nics: readonly { readonly port: string; readonly mac: string }[]
  /** Letters of disks that are taken. */
  readonly targets: readonly string[]
}

/** From the XML of a running domain, as libvirt writes it. */
export function devicesOf(xml: string): DomainDevices {
  const blocks = (element: string) =>
    [...xml.matchAll(new RegExp(`<${element}[ >][^]*?</${element}>`, 'g'))].map(([one]) => one)
  const disks: string[] = []
  const targets: string[] = []
  for (const block of blocks('disk')) {
    const alias = /<alias name='ua-disk-([^']+)'\/>/.exec(block)?.[1]
    if (alias !== undefined) disks.push(alias)
    const target = /<target dev='([^']+)'/.exec(block)?.[1]
    if (target !== undefined) targets.push(target)
  }
  const nics = blocks('interface').flatMap((block) => {
    const port = /<alias name='ua-nic-([^']+)'\/>/.exec(block)?.[1]
    const mac = /<mac address='([^']+)'/.exec(block)?.[1]
    return port === undefined || mac === undefined ? [] : [{ port, mac: mac.toLowerCase() }]
  })
  return { disks, nics, targets }
}

/** First place whose letters are free. */
export function freePlace(targets: readonly string[]): number {
  let place = 0
  while (targets.includes(`vd${letters(place)}`)) place++
  return place
}

const LETTERS = 'abcdefghijklmnopqrstuvwxyz'
const letters = (place: number): string =>
  place < LETTERS.length
    ? LETTERS.charAt(place)
    : letters(Math.floor(place / LETTERS.length) - 1) + LETTERS.charAt(place % LETTERS.length)

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/** libvirt names domains by UUID; servers that are not have one that follows from their name. */
function uuidOf(server: string): string {
  if (UUID.test(server)) return server
  const hex = createHash('sha256').update(`holdfast server ${server}`).digest('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}

const printable = (name: string): string => name.replace(/\p{Cc}/gu, ' ')

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  "'": '&apos;',
  '"': '&quot;',
}
const text = (value: string): string => value.replace(/[&<>'"]/g, (found) => ENTITIES[found] ?? '')
