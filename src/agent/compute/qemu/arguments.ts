import { createHash } from 'node:crypto'
import {
  DISKS_MAX,
  NICS_MAX,
  type ServerDefinition,
  type ServerDisk,
  type ServerNic,
} from '#wire/site/servers.ts'
import type { Netdev } from '../driver.ts'

/* What a definition is to QEMU: its command line, and the arguments with which the same devices are plugged in later. Pure.
 *
 * Names inside QEMU say what a device is, so that a restarted agent reads them instead of remembering:
 *
 *     disk-VOLUME   device of a disk        node-HASH   its block node (names of nodes have at most 31 characters)
 *     nic-PORT      device of a NIC         net-PORT    its network backend
 *     slot0-23      root ports for disks    slot24-31   root ports for NICs
 *
 * Every device sits behind a PCIe root port of its own, because a port is what a device can be plugged into. All 32 are there from
 * the start. They reserve no I/O space, of which there would not be enough; virtio devices behind them need none.
 */

/**
 * How long a guest's request waits for a disk that is not served, before the guest sees an I/O error: a day, in seconds. A restart of the agent takes
 * seconds, a freeze as long as somebody needs to decide; a guest whose disk will not come back is not left to wait, but fenced.
 */
export const RECONNECT_DELAY_S = 86_400

/** Memory for translated code, MiB: without a bound each guest takes up to a gigabyte. */
const TRANSLATION_MB = 64

const ROOT_PORTS = DISKS_MAX + NICS_MAX
const FUNCTIONS = 8

/** PCI device number of the first root ports; each carries eight as its functions. */
const FIRST_PORT_DEVICE = 2
const RANDOM_DEVICE = '0x1e'
const AGENT_DEVICE = '0x1d'

/** What stands before the path that a guest's process is recognised by; somebody who looks at the file has the path only. */
export const PID_FILE_OPTION = '-pidfile'
export const QMP_SOCKET = 'qmp.sock'
/** The guest agent's channel; a guest without an agent leaves it silent. */
export const AGENT_SOCKET = 'agent.sock'
const AGENT_NAME = 'org.qemu.guest_agent.0'
export const CONSOLE_LOG = 'console.log'
export const CONSOLE_OLD = 'console.old'
export const CONSOLE_ID = 'console'

export type Accelerator = 'tcg' | 'kvm'

export const diskId = (volume: string): string => `disk-${volume}`
export const nicId = (port: string): string => `nic-${port}`
export const netId = (port: string): string => `net-${port}`
export const nodeName = (volume: string): string =>
  `node-${createHash('sha256').update(volume).digest('hex').slice(0, 26)}`

export const DISK_SLOTS: readonly string[] = Array.from({ length: DISKS_MAX }, (_, i) => `slot${i}`)
export const NIC_SLOTS: readonly string[] = Array.from(
  { length: NICS_MAX },
  (_, i) => `slot${DISKS_MAX + i}`,
)

/** Undefined: QEMU named something that is not ours, such as a root port. */
export function volumeOf(id: string): string | undefined {
  return id.startsWith('disk-') ? id.slice(5) : undefined
}
export function portOf(id: string): string | undefined {
  return id.startsWith('nic-') ? id.slice(4) : undefined
}

/** Arguments of `blockdev-add`. */
export function blockNode(volume: string, nbdSocket: string): Readonly<Record<string, unknown>> {
  return {
    driver: 'nbd',
    'node-name': nodeName(volume),
    server: { type: 'unix', path: nbdSocket },
    export: volume,
    'reconnect-delay': RECONNECT_DELAY_S,
    discard: 'unmap',
  }
}

/**
 * Arguments of `device_add`. Errors are reported to the guest, as a disk reports them; only a site without space makes the
 * guest pause instead, since space can be made and nothing is lost meanwhile.
 */
export function diskDevice(disk: ServerDisk, slot: string): Readonly<Record<string, unknown>> {
  return {
    driver: 'virtio-blk-pci',
    id: diskId(disk.volume),
    drive: nodeName(disk.volume),
    bus: slot,
    serial: disk.volume.slice(0, 20),
    werror: 'enospc',
    rerror: 'report',
  }
}

/** `romfile`: no boot from the network, which costs seconds before a guest starts from its disk. */
export function nicDevice(nic: ServerNic, slot: string): Readonly<Record<string, unknown>> {
  return {
    driver: 'virtio-net-pci',
    id: nicId(nic.port),
    netdev: netId(nic.port),
    mac: nic.mac,
    bus: slot,
    romfile: '',
  }
}

export interface GuestPlaces {
  readonly nbdSocket: string
  readonly pidFile: string
  readonly accelerator: Accelerator
  /** By port. */
  readonly netdevs: ReadonlyMap<string, Netdev>
}

/** Everything after the program's name. QEMU runs in the folder of the server, so that paths in it are short. */
export function guestArguments(definition: ServerDefinition, places: GuestPlaces): string[] {
  const { accelerator } = places
  const json = (option: string, value: unknown) => [option, JSON.stringify(value)]
  return [
    ['-name', `guest=${printable(definition.name).replaceAll(',', ',,')}`],
    UUID.test(definition.server) ? ['-uuid', definition.server] : [],
    ['-machine', 'q35'],
    accelerator === 'kvm'
      ? ['-accel', 'kvm', '-cpu', 'host']
      : ['-accel', `tcg,thread=multi,tb-size=${TRANSLATION_MB}`, '-cpu', 'max'],
    ['-m', String(definition.memory_mb), '-smp', String(definition.vcpus)],
    ['-nodefaults', '-no-user-config', '-display', 'none'],
    // A guest that powers itself off stays until it was seen: off by its own will is not the same as gone.
    ['-no-shutdown'],
    [PID_FILE_OPTION, places.pidFile],
    ['-qmp', `unix:${QMP_SOCKET},server=on,wait=off`],
    ['-chardev', `file,id=${CONSOLE_ID},path=${CONSOLE_LOG},append=on`],
    ['-serial', `chardev:${CONSOLE_ID}`],
    ['-chardev', `socket,id=agent,path=${AGENT_SOCKET},server=on,wait=off`],
    json('-device', {
      driver: 'virtio-serial-pci',
      id: 'agents',
      bus: 'pcie.0',
      addr: AGENT_DEVICE,
    }),
    json('-device', {
      driver: 'virtserialport',
      bus: 'agents.0',
      chardev: 'agent',
      name: AGENT_NAME,
    }),
    json('-device', { driver: 'virtio-rng-pci', bus: 'pcie.0', addr: RANDOM_DEVICE }),
    Array.from({ length: ROOT_PORTS }, (_, index) => json('-device', rootPort(index))).flat(),
    definition.disks.flatMap((disk, index) => [
      ...json('-blockdev', blockNode(disk.volume, places.nbdSocket)),
      ...json('-device', {
        ...diskDevice(disk, DISK_SLOTS[index] ?? ''),
        ...(disk.boot_index === null ? {} : { bootindex: disk.boot_index }),
      }),
    ]),
    definition.nics.flatMap((nic, index) => [
      ...json('-netdev', { ...places.netdevs.get(nic.port), id: netId(nic.port) }),
      ...json('-device', nicDevice(nic, NIC_SLOTS[index] ?? '')),
    ]),
  ].flat()
}

function rootPort(index: number): Readonly<Record<string, unknown>> {
  const device = FIRST_PORT_DEVICE + Math.floor(index / FUNCTIONS)
  const fn = index % FUNCTIONS
  return {
    driver: 'pcie-root-port',
    id: `slot${index}`,
    bus: 'pcie.0',
    chassis: index + 1,
    port: index,
    addr: `0x${device.toString(16)}.${fn}`,
    multifunction: fn === 0,
    'io-reserve': 0,
  }
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/** A command line holds no zero bytes, and a process list no line breaks. */
const printable = (name: string): string => name.replace(/\p{Cc}/gu, ' ')
