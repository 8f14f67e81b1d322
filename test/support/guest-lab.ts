/** What the guests of one agent need, and nothing else of an agent: volumes, their NBD server, and a driver. All of it real. */
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { ComputeDriver, DiskStanding, DiskStandings } from '#agent/compute/driver.ts'
import { type QemuOptions, qemuDriver } from '#agent/compute/qemu/qemu-driver.ts'
import { unconnected } from '#agent/compute/qemu/unconnected.ts'
import { openServers, type Servers } from '#agent/compute/servers.ts'
import { ExportTable } from '#agent/nbd/exports.ts'
import { localDevice } from '#agent/nbd/local-device.ts'
import { NbdServer } from '#agent/nbd/server.ts'
import { openFileVolumeStore } from '#agent/volumes/file/file-volume-store.ts'
import type { VolumeStore } from '#agent/volumes/volume-store.ts'
import type { Clock } from '#base/clock.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import type { ServerDefinition, ServerDisk, ServerNic } from '#wire/site/servers.ts'
import { type TinyHabits, tinyGuest } from './tiny-guest.ts'

export const QEMU = '/usr/bin/qemu-system-x86_64'
/** Why tests with guests are skipped here, or false. */
export const NO_QEMU = existsSync(QEMU) ? false : `${QEMU} is not installed`
const DISK_BYTES = 2 * 1024 * 1024

export const labLog = createLog('guests', process.env['HOLDFAST_TEST_LOG'] ?? 'silent')

export interface GuestLab {
  readonly directory: string
  readonly volumes: VolumeStore
  readonly exports: ExportTable
  readonly driver: ComputeDriver
  /** What the standing of a volume is said to be instead of what it is. */
  readonly standings: Map<string, DiskStanding>
  readonly disks: DiskStandings
  /** Tells whoever watches that the standing of a volume changed. */
  standingChanged(volume: string): void
  servers(options?: { readonly memoryMb?: number; readonly clock?: Clock }): Promise<Servers>
  /** A volume that boots the tiny guest. Exists already: served as it is. */
  disk(volume: string, habits?: TinyHabits): Promise<ServerDisk>
  folder(server: string): string
  pidFile(server: string): string
  /** Everything of the agent ends; guests go on. */
  close(): Promise<void>
}

export async function openGuestLab(
  directory: string,
  more: Partial<QemuOptions> = {},
): Promise<GuestLab> {
  const clock = systemClock
  const log = labLog
  const at = (name: string) => join(directory, name)
  for (const name of ['run', 'compute', 'servers']) await mkdir(at(name), { recursive: true })
  const volumes = await openFileVolumeStore({ directory: at('volumes'), log, wallMs: () => 0 })
  const exports = new ExportTable()
  for (const { id } of volumes.list()) exports.serve(id, localDevice(await volumes.open(id)))
  const nbd = new NbdServer({
    exports,
    log,
    clock,
    mayOpen: () => undefined,
    memoryBytes: 256 * 1024 * 1024,
  })
  await nbd.listenUnix(at('nbd.sock'))
  const folder = (server: string) => join(at('servers'), server)
  const driver = qemuDriver({
    prefix: 'lab',
    runDir: at('run'),
    folder,
    directory: at('compute'),
    nbdSocket: at('nbd.sock'),
    clock,
    log,
    program: QEMU,
    nice: 0,
    bootId: 'lab',
    accelerator: 'tcg',
    switchboard: unconnected(),
    ...more,
  })
  const standings = new Map<string, DiskStanding>()
  const watchers: ((volume: string) => void)[] = []
  const disks: DiskStandings = {
    of: (volume) =>
      standings.get(volume) ?? {
        kind: volumes.record(volume) === undefined ? 'unknown' : 'served',
      },
    watch: (changed) => void watchers.push(changed),
  }
  return {
    directory,
    volumes,
    exports,
    driver,
    standings,
    disks,
    standingChanged: (volume) => {
      for (const watcher of watchers) watcher(volume)
    },
    servers: async (options = {}) =>
      await openServers({
        directory: at('servers'),
        driver,
        disks,
        memoryMb: 4_096,
        clock,
        log,
        ...options,
      }),
    disk: async (volume, habits = {}) => {
      await volumes.create(volume, DISK_BYTES, { mode: 'standalone' }, 'lab', async (data) => {
        await data.write(tinyGuest(habits), 0, 512, 0)
      })
      exports.serve(volume, localDevice(await volumes.open(volume)))
      return { volume, device: '/dev/vda', boot_index: 0 }
    },
    folder,
    pidFile: (server) => join(at('run'), `lab-guest-${server}.pid`),
    async close() {
      await driver.close()
      await nbd.close()
      await volumes.close()
    },
  }
}

/** A definition of 96 MiB; everything else as given. */
export const definitionOf = (
  server: string,
  disks: readonly ServerDisk[],
  more: Partial<ServerDefinition> = {},
): ServerDefinition => ({
  server,
  generation: 1,
  name: server,
  vcpus: 1,
  memory_mb: 96,
  disks: [...disks],
  nics: [],
  ...more,
})

export const nicOf = (port: string, last: number): ServerNic => ({
  port,
  mac: `fa:16:3e:00:00:${last.toString(16).padStart(2, '0')}`,
  address: `10.9.0.${last}`,
  prefix_length: 24,
  gateway: '10.9.0.1',
  dns: [],
  network: 'network-1',
  domain: 'vpc-1',
})
