import { readFileSync } from 'node:fs'
import { type CpioMember, cpioArchive } from './cpio.ts'

/* What the tiny Linux finds in memory when it starts: busybox under many names, the kernel's modules for virtual disks and NICs, and
 * the scripts in guest/. */

/** In the order in which they must be loaded. One that the package does not have is part of its kernel. */
export const MODULES = [
  'virtio_ring',
  'virtio',
  'virtio_pci_modern_dev',
  'virtio_pci_legacy_dev',
  'virtio_pci',
  'virtio_blk',
  'failover',
  'net_failover',
  'virtio_net',
  'button',
  'evdev',
] as const

const PROGRAMS =
  'acpid cat cp cut date dd dmesg echo free grep head hostname httpd insmod ip kill ls mkdir mount mv nc ping poweroff printf reboot rm sed sh sha256sum sleep sync tail top touch tr udhcpc uevent umount uptime wc wget xzcat'.split(
    ' ',
  )

const SCRIPTS = ['init', 'changed', 'script', 'lease', 'power', 'job-none', 'job-write', 'job-net']

const script = (name: string) => readFileSync(new URL(`./guest/${name}`, import.meta.url))

/** All scripts in one, for telling whether they changed. */
export function guestScripts(): Buffer {
  return Buffer.concat(SCRIPTS.map(script))
}

/** `modules`: file name (virtio.ko, or virtio.ko.xz) → bytes. */
export function initialFiles(busybox: Buffer, modules: ReadonlyMap<string, Buffer>): Buffer {
  const members: CpioMember[] = []
  const directory = (name: string) =>
    members.push({ name, kind: 'directory', bytes: Buffer.alloc(0), mode: 0o755 })
  const file = (name: string, bytes: Buffer, mode = 0o755) =>
    members.push({ name, kind: 'file', bytes, mode })
  for (const name of 'bin data dev etc etc/acpi etc/acpi/PWRF jobs lib lib/modules proc run'.split(
    ' ',
  )) {
    directory(name)
  }
  for (const name of ['run/disk', 'run/nic', 'sys', 'tmp', 'www']) directory(name)
  file('bin/busybox', busybox)
  for (const program of PROGRAMS) {
    members.push({
      name: `bin/${program}`,
      kind: 'link',
      bytes: Buffer.from('busybox'),
      mode: 0o777,
    })
  }
  const order = MODULES.flatMap((name) =>
    [`${name}.ko`, `${name}.ko.xz`].filter((found) => modules.has(found)),
  )
  for (const name of order) file(`lib/modules/${name}`, modules.get(name) as Buffer, 0o644)
  file('lib/modules/order', Buffer.from(`${order.join('\n')}\n`), 0o644)
  for (const name of ['changed', 'script', 'lease']) file(`bin/${name}`, script(name))
  for (const job of ['none', 'write', 'net']) file(`jobs/${job}`, script(`job-${job}`))
  // The name is what acpid makes of the event of a power button.
  file('etc/acpi/PWRF/00000080', script('power'))
  file('init', script('init'))
  return cpioArchive(members)
}
