import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { hasCode, readTextIfPresent, writeFileWhole } from '#base/system/files.ts'
import {
  killAndWait,
  type ProcessFacts,
  processesWithArgumentPrefix,
  readProcess,
} from '#base/system/process.ts'
import type { ServerDefinition, ServerNic } from '#wire/site/servers.ts'
import {
  CONSOLE_BYTES_MAX,
  type ComputeDriver,
  type DriverDeps,
  GUEST_OFF,
  type GuestDevice,
  type GuestDeviceName,
  type GuestNetwork,
  type GuestState,
  type Netdev,
  type Switchboard,
} from '../driver.ts'
import { noteConsoleStart } from '../console-start.ts'
import { GUEST_FAILED } from '../faults.ts'
import { findAccelerator } from './accelerator.ts'
import {
  type Accelerator,
  AGENT_SOCKET,
  CONSOLE_LOG,
  diskId,
  guestArguments,
  nicId,
  PID_FILE_OPTION,
  QMP_SOCKET,
} from './arguments.ts'
import { readConsole, readConsoleSinceStart } from './console-log.ts'
import { Machine, type MachineDeps } from './machine.ts'
import { openSocket, QmpError, QmpGone } from './qmp.ts'
import { startGuestProcess } from './process.ts'

/* Guests as processes of qemu-system. A process is a Machine (machine.ts) as long as this agent holds it; what is here is the
 * way into and out of that state, and what lies in files besides.
 *
 *     RUN/SITE-guest-ID.pid      written and locked by QEMU itself; also how its process is recognised
 *     DATA/servers/ID/qmp.sock       QEMU's
 *                     agent.sock     QEMU's, to the guest agent
 *                     console.log    see console-log.ts
 *                     guest.log      what QEMU says, since its last start
 *                     netdevs.json   network backends that the running guest was given, so that they are kept for it
 */

export interface QemuOptions extends DriverDeps {
  readonly program: string
  readonly nice: number
  readonly bootId: string
  /** undefined: found out by trying. */
  readonly accelerator: Accelerator | undefined
  readonly switchboard: Switchboard & GuestNetwork
  /** What is kept of a console; CONSOLE_BYTES_MAX when left out. */
  readonly consoleBytes?: number
}

const GUEST_LOG = 'guest.log'
const NETDEVS = 'netdevs.json'
/** From the start of the process until QEMU takes commands; with much memory or a slow disk it is seconds. */
const START_LIMIT_MS = 60_000
/** A guest that does not answer an agent that starts is shown as unknown after this time. */
const ADOPT_LIMIT_MS = 5_000
const END_LIMIT_MS = 10_000
const LOG_TAIL_CHARS = 600
const POLL_MS = 1_000

export function qemuDriver(options: QemuOptions): ComputeDriver {
  return new QemuDriver(options)
}

interface Held {
  readonly machine: Machine
  /** How its process ended, if this agent started it. */
  exit(): string | undefined
}

class QemuDriver implements ComputeDriver {
  readonly name = 'qemu'
  readonly pollMs = POLL_MS
  readonly #options: QemuOptions
  readonly #clock: Clock
  readonly #log: Log
  /** Also those that are gone, until the next start: they know how they ended. */
  readonly #machines = new Map<string, Held>()
  /** Names of servers, which the network offers to guests. */
  readonly #names = new Map<string, string>()
  #netdevChanges: Promise<unknown> = Promise.resolve()
  #accelerator: Promise<Accelerator> | undefined
  #known: Accelerator | undefined
  #changed: (server: string) => void = () => undefined
  /** Guests that ran when this agent began; looked for once. */
  #found: readonly { readonly server: string; readonly facts: ProcessFacts }[] | undefined
  #closed = false

  constructor(options: QemuOptions) {
    this.#options = options
    this.#clock = options.clock
    this.#log = options.log
    this.#known = options.accelerator
  }

  accelerator(): string {
    return this.#known ?? 'none'
  }

  watch(changed: (server: string) => void): void {
    this.#changed = changed
  }

  async endStrays(servers: ReadonlySet<string>): Promise<void> {
    this.#found = await this.#processes()
    for (const { server, facts } of this.#found) {
      if (servers.has(server)) continue
      this.#log.warn({ server, pid: facts.pid }, 'ending a guest that no definition names')
      await this.#end(facts, server)
      await this.#clean(server)
    }
  }

  async adopt(definition: ServerDefinition): Promise<GuestState> {
    const { server } = definition
    if (this.#running(server) !== undefined) return await this.state(server)
    const found = this.#found ?? (await this.#processes())
    for (const { facts } of found.filter((one) => one.server === server)) {
      await this.#plugAll(definition, await this.#heldNetdevs(server))
      const machine = await Machine.hold(facts, this.#machineDeps(server), ADOPT_LIMIT_MS)
      if (machine === undefined) continue
      this.#hold(server, machine, () => undefined)
      this.#log.info({ server, pid: facts.pid }, 'took hold of a guest that runs')
      return await this.state(server)
    }
    await this.#clean(server)
    return GUEST_OFF
  }

  async define(definition: ServerDefinition): Promise<void> {
    // Found out while there is time: the first start would have to wait for it.
    this.#findAccelerator().catch((error: unknown) =>
      this.#log.warn({ err: error }, 'the accelerator could not be found out'),
    )
    if (this.#running(definition.server) === undefined) return
    await this.#plugAll(definition, await this.#heldNetdevs(definition.server))
  }

  async start(definition: ServerDefinition): Promise<void> {
    const { server } = definition
    if (this.#running(server) !== undefined) return
    await this.#clean(server)
    this.#machines.delete(server)
    const netdevs = await this.#plugAll(definition, new Map())
    await this.#changeNetdevs(server, (held) => {
      for (const [port, netdev] of netdevs) held.set(port, netdev)
    })
    const { program, nice, nbdSocket } = this.#options
    const folder = this.#options.folder(server)
    const accelerator = await this.#findAccelerator()
    const pidFile = this.#pidFile(server)
    if (this.#closed) return
    await noteConsoleStart(folder, CONSOLE_LOG)
    const process = startGuestProcess({
      program,
      args: guestArguments(definition, { nbdSocket, pidFile, accelerator, netdevs }),
      nice,
      folder,
      log: join(folder, GUEST_LOG),
    })
    let exit: string | undefined
    const ended = process.ended.then((how) => {
      exit = how
      return how
    })
    const facts = process.pid === 0 ? undefined : await readProcess(process.pid)
    try {
      const deps = this.#machineDeps(server)
      const machine =
        facts === undefined ? undefined : await Machine.hold(facts, deps, START_LIMIT_MS)
      if (machine === undefined) throw new Error(await ended)
      if (!machine.connected) throw new Error('QEMU takes no commands')
      this.#hold(server, machine, () => exit)
    } catch (error) {
      if (facts !== undefined) await this.#end(facts, server)
      const said = await this.#lastWords(server)
      await this.#clean(server)
      const how = said === '' && error instanceof Error ? error.message : said
      throw new Fault(GUEST_FAILED, `starting server ${server}: ${how}`, { server }, error)
    }
  }

  async powerDown(server: string, graceMs: number, hurry: AbortSignal): Promise<void> {
    const { power } = await this.state(server)
    if (power === 'running') await this.#running(server)?.press(graceMs, hurry)
    await this.stop(server)
  }

  async stop(server: string): Promise<void> {
    await this.#running(server)?.kill()
    await this.#clean(server)
  }

  async remove(server: string): Promise<void> {
    await this.stop(server)
    // One that was being started when an agent died, and that nobody has taken hold of.
    for (const one of await this.#processes()) {
      if (one.server === server) await this.#end(one.facts, server)
    }
    await this.#clean(server)
    this.#machines.delete(server)
    this.#names.delete(server)
  }

  async attach(server: string, device: GuestDevice): Promise<void> {
    await this.#change(server, async (machine) => {
      if (device.kind === 'disk') return await machine.plugDisk(device.disk)
      const { nic } = device
      const given = (await this.#heldNetdevs(server)).get(nic.port)
      const netdev = await this.#plug(server, nic, given)
      await this.#changeNetdevs(server, (held) => held.set(nic.port, netdev))
      await machine.plugNic(nic, netdev)
    })
  }

  async detach(server: string, device: GuestDeviceName, hurry: AbortSignal): Promise<void> {
    const id = device.kind === 'disk' ? diskId(device.volume) : nicId(device.port)
    await this.#change(server, async (machine) => await machine.unplug(id, hurry))
  }

  async state(server: string): Promise<GuestState> {
    const held = this.#machines.get(server)
    if (held === undefined) return GUEST_OFF
    if (!held.machine.isGone) {
      const state = await held.machine.state()
      // It may have ended while it was asked.
      if (!held.machine.isGone) return { ...state, end: 'stopped' }
    }
    const how = held.exit()
    return {
      ...GUEST_OFF,
      ...held.machine.ending(how === undefined ? null : `its process ended: ${how}`),
    }
  }

  async console(server: string, since?: 'start'): Promise<string> {
    const read = since === 'start' ? readConsoleSinceStart : readConsole
    return await read(this.#options.folder(server), this.#consoleBytes)
  }

  get network(): GuestNetwork {
    return this.#options.switchboard
  }

  async guestAgent(server: string): Promise<Duplex | undefined> {
    if (this.#running(server) === undefined) return undefined
    try {
      return await openSocket(join(this.#options.folder(server), AGENT_SOCKET))
    } catch (error) {
      // Started by an earlier release, without a channel; or it ends just now.
      if (hasCode(error, 'ENOENT') || hasCode(error, 'ECONNREFUSED')) return undefined
      throw error
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.all([...this.#machines.values()].map(({ machine }) => machine.letGo()))
    this.#machines.clear()
  }

  // ---------------------------------------------------------------- processes

  get #consoleBytes(): number {
    return this.#options.consoleBytes ?? CONSOLE_BYTES_MAX
  }

  #pidFile(server: string): string {
    return `${this.#pidPrefix}${server}.pid`
  }

  get #pidPrefix(): string {
    return join(this.#options.runDir, `${this.#options.prefix}-guest-`)
  }

  async #processes(): Promise<{ readonly server: string; readonly facts: ProcessFacts }[]> {
    const found = await processesWithArgumentPrefix(this.#pidPrefix, PID_FILE_OPTION)
    return found
      .filter(({ rest }) => rest.endsWith('.pid'))
      .map(({ rest, facts }) => ({ server: rest.slice(0, -'.pid'.length), facts }))
  }

  #machineDeps(server: string): MachineDeps {
    return {
      server,
      folder: this.#options.folder(server),
      nbdSocket: this.#options.nbdSocket,
      consoleBytes: this.#consoleBytes,
      clock: this.#clock,
      log: this.#log,
      changed: () => this.#changed(server),
      released: async (port) => {
        await this.#options.switchboard.unplug(server, port)
        await this.#changeNetdevs(server, (held) => held.delete(port))
      },
    }
  }

  /** The guest's machine while its process lives. */
  #running(server: string): Machine | undefined {
    const held = this.#machines.get(server)
    return held?.machine.isGone === false ? held.machine : undefined
  }

  #hold(server: string, machine: Machine, exit: Held['exit']): void {
    if (this.#closed) return void machine.letGo()
    this.#machines.set(server, { machine, exit })
    void machine.gone.then(() => this.#changed(server))
  }

  /** A guest that ends meanwhile has nothing that could be changed. */
  async #change(server: string, work: (machine: Machine) => Promise<void>): Promise<void> {
    const machine = this.#running(server)
    if (machine === undefined) return
    try {
      await work(machine)
    } catch (error) {
      if (machine.isGone) return
      if (!(error instanceof QmpGone || error instanceof QmpError)) throw error
      const doing = `changing server ${server}: ${error.message}`
      throw new Fault(GUEST_FAILED, doing, { server }, error)
    }
  }

  async #end(facts: ProcessFacts, server: string): Promise<void> {
    if (await killAndWait(this.#clock, facts, END_LIMIT_MS)) return
    const doing = `ending process ${facts.pid} of server ${server}`
    throw new Fault(GUEST_FAILED, doing, { server })
  }

  /** After the end of a guest: its files, and its places in the network. The console stays. */
  async #clean(server: string): Promise<void> {
    // One that is let go of goes on, with its files.
    if (this.#closed || this.#running(server) !== undefined) return
    const folder = this.#options.folder(server)
    for (const port of (await this.#heldNetdevs(server)).keys()) {
      await this.#options.switchboard.unplug(server, port)
    }
    await rm(this.#pidFile(server), { force: true })
    await rm(join(folder, QMP_SOCKET), { force: true })
    await rm(join(folder, AGENT_SOCKET), { force: true })
    await rm(join(folder, NETDEVS), { force: true })
  }

  async #lastWords(server: string): Promise<string> {
    const log = join(this.#options.folder(server), GUEST_LOG)
    const text = await readFile(log, 'utf8').catch(() => '')
    return text.trim().slice(-LOG_TAIL_CHARS)
  }

  async #findAccelerator(): Promise<Accelerator> {
    const { program, directory, bootId } = this.#options
    this.#accelerator ??=
      this.#options.accelerator === undefined
        ? findAccelerator({ program, directory, bootId, clock: this.#clock, log: this.#log })
        : Promise.resolve(this.#options.accelerator)
    this.#known = await this.#accelerator
    return this.#known
  }

  // ---------------------------------------------------------------- networks

  async #plugAll(
    { server, name, nics }: ServerDefinition,
    held: ReadonlyMap<string, Netdev>,
  ): Promise<Map<string, Netdev>> {
    this.#names.set(server, name)
    const netdevs = new Map<string, Netdev>()
    for (const nic of nics) {
      netdevs.set(nic.port, await this.#plug(server, nic, held.get(nic.port)))
    }
    return netdevs
  }

  async #plug(server: string, nic: ServerNic, held: Netdev | undefined): Promise<Netdev> {
    const name = this.#names.get(server) ?? server
    return await this.#options.switchboard.plug(server, nic, { name, held })
  }

  async #heldNetdevs(server: string): Promise<Map<string, Netdev>> {
    const text = await readTextIfPresent(join(this.#options.folder(server), NETDEVS))
    return new Map(text === undefined ? [] : (JSON.parse(text) as [string, Netdev][]))
  }

  /** One change after the other: guests release NICs when they please. */
  async #changeNetdevs(server: string, change: (held: Map<string, Netdev>) => void): Promise<void> {
    const turn = this.#netdevChanges.then(async () => {
      const held = await this.#heldNetdevs(server)
      change(held)
      const file = join(this.#options.folder(server), NETDEVS)
      await writeFileWhole(file, `${JSON.stringify([...held])}\n`, 0o600)
    })
    this.#netdevChanges = turn.catch(() => undefined) // told to the one who asked
    await turn
  }
}
