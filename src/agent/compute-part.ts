import { accessSync, constants, statSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { totalmem } from 'node:os'
import { delimiter, isAbsolute, join, resolve } from 'node:path'
import { Fault, fault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import type { GuestCommands } from '#agent/compute/commands.ts'
import type { ComputeDriver, DriverDeps } from '#agent/compute/driver.ts'
import { hooksDriver } from '#agent/compute/hooks/hooks-driver.ts'
import { noCompute } from '#agent/compute/no-compute.ts'
import { libvirtDriver } from '#agent/compute/libvirt/libvirt-driver.ts'
import { findAccelerator } from '#agent/compute/qemu/accelerator.ts'
import type { Accelerator } from '#agent/compute/qemu/arguments.ts'
import { qemuDriver } from '#agent/compute/qemu/qemu-driver.ts'
import { openServers } from '#agent/compute/servers.ts'
import { openSwitchboard } from '#agent/compute/switch/switchboard.ts'
import type { AgentConfig } from './config.ts'
import { type DiskStandingsParts, diskStandings } from './disk-standings.ts'

/* Puts together what runs the servers of an agent: driver, network between guests, and the store of definitions. */

export const DRIVER_ABSENT = fault({
  code: 'DRIVER_ABSENT',
  retry: 'never',
  text: 'What the configured compute driver needs is not there.',
  hint: 'Install it, correct the path, or configure computeDriver none for a site without servers.',
})

export interface ComputePart {
  readonly commands: GuestCommands
  /** What is to become of the guests, the configuration says. Their disks are served until this has settled. */
  close(): Promise<void>
}

export interface ComputePartOptions extends DiskStandingsParts {
  readonly config: AgentConfig
  readonly bootId: string
  readonly log: Log
}

/** Settles when the guests that run are in hand. Throws DRIVER_ABSENT. */
export async function openCompute(options: ComputePartOptions): Promise<ComputePart> {
  const { config, log } = options
  const made = await driverOf(options)
  if (made === undefined) return { commands: noCompute(), close: async () => {} }
  const servers = await openServers({
    directory: serversDirectory(config),
    driver: made.driver,
    disks: diskStandings(options),
    memoryMb: config.guestMemoryMb ?? Math.floor(totalmem() / 4 / 1024 / 1024),
    clock: systemClock,
    log,
  })
  return {
    commands: servers,
    async close() {
      if (config.guestsAtStop === 'power_down') await servers.rest(config.guestGraceMs)
      await servers.close()
      await made.close()
    },
  }
}

const serversDirectory = ({ dataDir }: AgentConfig): string => join(dataDir, 'servers')

interface MadeDriver {
  readonly driver: ComputeDriver
  close(): Promise<void>
}

async function driverOf({
  config,
  bootId,
  log,
}: ComputePartOptions): Promise<MadeDriver | undefined> {
  switch (config.computeDriver) {
    case 'none':
      return undefined
    case 'hooks': {
      const program = findProgram(config.hooksProgram ?? '')
      if (program === undefined) {
        const doing = `looking for the program ${config.hooksProgram}`
        throw new Fault(DRIVER_ABSENT, doing, { driver: 'hooks' })
      }
      const limitMs = config.hooksLimitMs
      const driver = hooksDriver({ ...(await driverDeps(config, log)), program, limitMs })
      return { driver, close: async () => {} }
    }
    case 'libvirt': {
      const program = findProgram('virsh')
      if (program === undefined) {
        throw new Fault(DRIVER_ABSENT, 'looking for virsh', { driver: 'libvirt' })
      }
      const deps = await driverDeps(config, log)
      const driver = libvirtDriver({
        ...deps,
        program,
        uri: config.libvirtUri,
        network: config.libvirtNetwork,
        accelerator: async () => {
          const known = accelerated(config)
          if (known !== undefined) return known
          const qemu = findProgram(config.qemuProgram)
          if (qemu === undefined) return 'tcg'
          return await findAccelerator({ ...deps, program: qemu, bootId })
        },
      })
      return { driver, close: async () => {} }
    }
    default: {
      const program = findProgram(config.qemuProgram)
      if (program === undefined) {
        if (config.computeDriver === 'auto') return undefined
        throw new Fault(DRIVER_ABSENT, `looking for ${config.qemuProgram}`, { driver: 'qemu' })
      }
      const switchboard = await openSwitchboard({
        directory: join(config.dataDir, 'net'),
        clock: systemClock,
        log,
      })
      const driver = qemuDriver({
        ...(await driverDeps(config, log)),
        program,
        nice: config.guestNice,
        bootId,
        accelerator: accelerated(config),
        switchboard,
      })
      return { driver, close: () => switchboard.close() }
    }
  }
}

/** undefined: to be found out. */
const accelerated = ({ qemuAccelerator }: AgentConfig): Accelerator | undefined =>
  qemuAccelerator === 'tcg' || qemuAccelerator === 'kvm' ? qemuAccelerator : undefined

/** What every driver gets. */
async function driverDeps(config: AgentConfig, log: Log): Promise<DriverDeps> {
  const directory = join(config.dataDir, 'compute')
  for (const one of [directory, config.runDir]) await mkdir(one, { recursive: true, mode: 0o700 })
  return {
    prefix: config.guestPrefix,
    runDir: config.runDir,
    folder: (server) => join(serversDirectory(config), server),
    directory,
    nbdSocket: config.nbdSocket,
    clock: systemClock,
    log,
  }
}

/** The file that would be executed for `program`, or undefined. */
function findProgram(program: string): string | undefined {
  const directories = (process.env['PATH'] ?? '').split(delimiter).filter((one) => one !== '')
  const places = program.includes('/')
    ? [isAbsolute(program) ? program : resolve(program)]
    : directories.map((directory) => join(directory, program))
  return places.find((path) => {
    try {
      accessSync(path, constants.X_OK)
      return statSync(path).isFile()
    } catch {
      return false // not there, or not ours to execute: the next place
    }
  })
}
