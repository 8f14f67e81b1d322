import { mkdir } from 'node:fs/promises'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import type { ServerInfo } from '#wire/site/servers.ts'
import type { GuestCommands } from './commands.ts'
import { DefinitionFiles } from './definition-file.ts'
import type { ComputeDriver, DiskStandings } from './driver.ts'
import { SERVER_UNKNOWN } from './faults.ts'
import { Guest, type GuestDeps } from './guest.ts'
import { Probes } from './probes/probes.ts'

/* The servers of one agent: found again at its start, watched while it runs, and the commands about them. What happens to one server
 * is in guest.ts.
 *
 * Order of a start: what is no server's any more is ended → guests that run are taken hold of → those that may not run are stopped, those
 * that should are started → commands. */

export interface ServersOptions {
  /** `DATA/servers`; one folder per server. Made when missing. */
  readonly directory: string
  readonly driver: ComputeDriver
  readonly disks: DiskStandings
  /** Memory that guests may have together, MiB. */
  readonly memoryMb: number
  readonly clock: Clock
  readonly log: Log
}

export interface Servers extends GuestCommands {
  /** Asks every guest to power off, and stops it when it has not after `graceMs`. They are started at the next start of the agent. */
  rest(graceMs: number): Promise<void>
  /** Lets go of the guests, which go on. */
  close(): Promise<void>
}

/** Settles when every guest that runs is in hand. */
export async function openServers(options: ServersOptions): Promise<Servers> {
  const servers = new ServerTable(options)
  await servers.begin()
  return servers
}

class ServerTable implements Servers {
  readonly #options: ServersOptions
  readonly #files: DefinitionFiles
  readonly #guests = new Map<string, Guest>()
  readonly #deps: GuestDeps
  readonly #probes: Probes
  #resting = false
  #closed = false
  #cancelPoll: () => void = () => undefined

  constructor(options: ServersOptions) {
    this.#options = options
    const { directory, driver, disks, clock, log } = options
    this.#probes = new Probes(driver, clock)
    this.#files = new DefinitionFiles(directory)
    this.#deps = {
      driver,
      disks,
      clock,
      log,
      save: async (record) => await this.#files.save(record),
      forget: async (server) => {
        await this.#files.remove(server)
        this.#guests.delete(server)
      },
      freeMemoryMb: (except) =>
        [...this.#guests.values()].reduce(
          (free, guest) => free - (guest === except ? 0 : guest.memoryMb),
          options.memoryMb,
        ),
      resting: () => this.#resting,
    }
  }

  async begin(): Promise<void> {
    const { directory, driver, disks, log } = this.#options
    await mkdir(directory, { recursive: true, mode: 0o700 })
    const { records, unreadable } = await this.#files.load()
    for (const server of unreadable) {
      log.error({ server }, 'the definition of a server cannot be read; its guest is left alone')
    }
    const ids = records.map(({ definition }) => definition.server)
    await driver.endStrays(new Set([...ids, ...unreadable]))
    for (const record of records) {
      const { server } = record.definition
      this.#guests.set(server, new Guest(server, record, this.#deps))
    }
    await Promise.all([...this.#guests.values()].map((guest) => guest.adopt()))
    driver.watch((server) => this.#guests.get(server)?.settle())
    disks.watch((volume) => {
      for (const guest of this.#guests.values()) if (guest.concerned(volume)) guest.settle()
    })
    this.#poll()
  }

  #poll(): void {
    if (this.#closed) return
    for (const guest of this.#guests.values()) if (guest.active) guest.settle()
    const { clock, driver } = this.#options
    this.#cancelPoll = clock.after(driver.pollMs, () => this.#poll())
  }

  // ---------------------------------------------------------------- commands

  define: GuestCommands['define'] = async ({ definition }) => {
    const { server } = definition
    const known = this.#guests.get(server)
    if (known !== undefined) return await known.define(definition)
    const made = new Guest(server, undefined, this.#deps)
    this.#guests.set(server, made)
    try {
      return await made.define(definition)
    } finally {
      if (!made.exists && this.#guests.get(server) === made) this.#guests.delete(server)
    }
  }

  start: GuestCommands['start'] = async ({ server }) => await this.#known(server).start()

  stop: GuestCommands['stop'] = async ({ server, hard, grace_ms }) => {
    const guest = this.#guests.get(server)
    if (guest?.exists !== true) return unknownIsOff(server, this.#options.clock.wallMs())
    return await guest.stop(hard, grace_ms)
  }

  reboot: GuestCommands['reboot'] = async ({ server, reboot, hard, grace_ms }) =>
    await this.#known(server).reboot(reboot, hard, grace_ms)

  remove: GuestCommands['remove'] = async ({ server }) => {
    const guest = this.#guests.get(server)
    if (guest !== undefined) await guest.remove()
    else {
      // Not known, and still: whatever an earlier agent left of it goes.
      await this.#options.driver.remove(server)
      await this.#files.remove(server)
    }
    return {}
  }

  show: GuestCommands['show'] = async ({ server }) => await this.#known(server).show()

  console: GuestCommands['console'] = async ({ server, lines }) => {
    const output = await this.#known(server).console()
    return { output: lines === 0 ? output : lastLines(output, lines) }
  }

  probe: GuestCommands['probe'] = async ({ server, probe, wait_ms, watch }) => {
    const guest = () => this.#known(server).probed
    if (watch === true) return this.#probes.watch(guest, probe)
    return await this.#probes.probe(guest, probe, wait_ms)
  }

  briefs(): ReturnType<GuestCommands['briefs']> {
    return [...this.#guests.values()].filter(({ exists }) => exists).map((guest) => guest.brief())
  }

  status(): ReturnType<GuestCommands['status']> {
    const { driver, memoryMb } = this.#options
    const used = [...this.#guests.values()].reduce((sum, guest) => sum + guest.memoryMb, 0)
    return {
      driver: driver.name,
      accelerator: driver.accelerator(),
      memory_mb: memoryMb,
      memory_used_mb: used,
    }
  }

  #known(server: string): Guest {
    const guest = this.#guests.get(server)
    if (guest?.exists === true) return guest
    throw new Fault(SERVER_UNKNOWN, `server ${server}`, { server })
  }

  // ---------------------------------------------------------------- the end

  async rest(graceMs: number): Promise<void> {
    this.#resting = true
    await Promise.all([...this.#guests.values()].map((guest) => guest.rest(graceMs)))
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#resting = true
    this.#cancelPoll()
    this.#probes.close()
    // First the driver: whoever waits for a guest to power off stops waiting.
    await this.#options.driver.close()
    await Promise.all([...this.#guests.values()].map((guest) => guest.idle()))
  }
}

const unknownIsOff = (server: string, nowMs: number): ServerInfo => ({
  server,
  generation: 1,
  power: 'off',
  power_since: nowMs,
  reason: null,
  disks: [],
  nics: [],
  releasing: [],
})

function lastLines(text: string, lines: number): string {
  const ended = text.endsWith('\n') ? text.slice(0, -1) : text
  const kept = ended.split('\n').slice(-lines).join('\n')
  return text.endsWith('\n') && kept !== '' ? `${kept}\n` : kept
}
