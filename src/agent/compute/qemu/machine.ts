import { join } from 'node:path'
import { type Clock, sleep } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { isAlive, killAndWait, type ProcessFacts } from '#base/system/process.ts'
import type { ServerDisk, ServerNic } from '#wire/site/servers.ts'
import type { GuestEnd, GuestState, Netdev } from '../driver.ts'
import { GUEST_FAILED } from '../faults.ts'
import {
  blockNode,
  CONSOLE_ID,
  CONSOLE_LOG,
  DISK_SLOTS,
  diskDevice,
  diskId,
  NIC_SLOTS,
  netId,
  nicDevice,
  nicId,
  nodeName,
  portOf,
  QMP_SOCKET,
  volumeOf,
} from './arguments.ts'
import { rotateConsole } from './console-log.ts'
import { asList, asRecord, Qmp, QmpError } from './qmp.ts'

/* One QEMU process that runs: what it has, what is plugged in and out, and how it comes to its end.
 *
 *     connect ──► alive ──────────────► gone
 *                  │  ▲                  ▲ the process has ended
 *     QMP hangs up │  │ connected again  │
 *                  └──┴──────────────────┘
 *
 * What the guest has is read from QEMU each time: devices are named after volumes and ports (arguments.ts). Only two things are
 * remembered here: which devices were asked back (QEMU does not tell), and that the guest powered itself off. QEMU stays after that
 * (`-no-shutdown`), so that an agent that was away learns it as well; then its process is ended from here.
 *
 * A process is ended by SIGKILL, never by `quit`: with a disk that is not served, `quit` would wait for it. Nothing acknowledged is lost by
 * that: QEMU keeps no writes of its own.
 */

const QMP_TIMEOUT_MS = 5_000
const END_LIMIT_MS = 10_000
const LOOK_MS = 10
const CONNECT_AGAIN_MS = 500
/** How long `unplug` waits for the guest to let go. */
export const RELEASE_WAIT_MS = 2_000
/** Between two presses of the power button: one that comes while the guest starts is lost. */
const PRESS_AGAIN_MS = 3_000
/** How often a guest that paused for want of space is let go on. */
const RESUME_MS = 5_000

export interface MachineDeps {
  readonly server: string
  readonly folder: string
  readonly nbdSocket: string
  readonly consoleBytes: number
  readonly clock: Clock
  readonly log: Log
  /** Something may be different now. */
  changed(): void
  /** The guest has released the NIC of this port for good. */
  released(port: string): Promise<void>
}

export class Machine {
  readonly #deps: MachineDeps
  readonly facts: ProcessFacts
  #qmp: Qmp | undefined
  #end: GuestEnd = 'died'
  #endReason: string | null = null
  #pauseReason: string | null = null
  #letGo = false
  #upkeep: (() => void) | undefined
  #resumeAtMs = 0
  readonly #releasing = new Set<string>()
  readonly #releaseWaiters = new Map<string, (() => void)[]>()
  readonly #gone: Promise<void>
  #isGone = false

  private constructor(facts: ProcessFacts, qmp: Qmp | undefined, deps: MachineDeps) {
    this.facts = facts
    this.#deps = deps
    if (qmp !== undefined) this.#take(qmp)
    this.#gone = this.#follow()
    this.#keepUp()
  }

  /**
   * Takes hold of a QEMU process, when it takes commands or `limitMs` are over: then its power is `unknown`, and connecting goes on.
   * Undefined: it ended before.
   */
  static async hold(
    facts: ProcessFacts,
    deps: MachineDeps,
    limitMs: number,
  ): Promise<Machine | undefined> {
    const endMs = deps.clock.bootMs() + limitMs
    while (await isAlive(facts)) {
      const qmp = await connectQmp(deps).catch(() => undefined) // not there yet, or hanging: the limit decides
      if (qmp !== undefined || deps.clock.bootMs() > endMs) {
        const machine = new Machine(facts, qmp, deps)
        if (qmp !== undefined) await machine.#begin()
        return machine
      }
      await sleep(deps.clock, LOOK_MS)
    }
    return undefined
  }

  /** Takes commands now. */
  get connected(): boolean {
    return this.#qmp?.open === true
  }

  /** Resolves when the process has ended, or when `letGo` was called. */
  get gone(): Promise<void> {
    return this.#gone
  }

  get isGone(): boolean {
    return this.#isGone
  }

  /** Of a machine that is gone. `reason`: what is known better than from here, for example the exit code. */
  ending(reason: string | null): { readonly end: GuestEnd; readonly reason: string | null } {
    if (this.#end !== 'died') return { end: this.#end, reason: null }
    return { end: 'died', reason: this.#endReason ?? reason ?? 'its process ended' }
  }

  async state(): Promise<Omit<GuestState, 'end'>> {
    try {
      const status = await this.#status()
      const devices = await this.#devices()
      // One that the guest has released is its own until nothing here has the export open.
      const releasing = [...this.#releasing].flatMap((id) => volumeOf(id) ?? [])
      const held = devices.flatMap((id) => volumeOf(id) ?? [])
      const disks = [...new Set([...held, ...releasing])]
      const ports = devices.flatMap((id) => portOf(id) ?? [])
      const macs = await Promise.all(ports.map((port) => this.#property(nicId(port), 'mac')))
      const nics = ports.flatMap((port, index) => {
        const mac = macs[index]
        return typeof mac === 'string' ? [{ port, mac }] : []
      })
      return { ...this.#powerOf(status), disks, nics, releasing }
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      return { power: 'unknown', reason, disks: [], nics: [], releasing: [] }
    }
  }

  #powerOf(status: string): Pick<GuestState, 'power' | 'reason'> {
    switch (status) {
      // `shutdown`: its process is about to be ended.
      case 'running':
      case 'suspended':
      case 'shutdown':
        return { power: 'running', reason: null }
      case 'io-error':
        return { power: 'paused', reason: this.#pauseReason ?? 'a disk of it has no space' }
      default:
        return { power: 'paused', reason: `the hypervisor says ${status}` }
    }
  }

  // ---------------------------------------------------------------- devices

  async plugDisk(disk: ServerDisk): Promise<void> {
    const id = diskId(disk.volume)
    if (await this.#has(id)) return
    const node = nodeName(disk.volume)
    // Left by one that died between the two steps; it may belong to an export that has changed since.
    await this.#removeNode(node)
    await this.#run('blockdev-add', blockNode(disk.volume, this.#deps.nbdSocket))
    try {
      const slot = await this.#freeSlot(DISK_SLOTS, (one) => volumeOf(one) !== undefined)
      await this.#run('device_add', diskDevice(disk, slot))
    } catch (error) {
      await this.#removeNode(node)
      throw error
    }
  }

  async plugNic(nic: ServerNic, netdev: Netdev): Promise<void> {
    if (await this.#has(nicId(nic.port))) return
    await this.#removeNetdev(nic.port)
    await this.#run('netdev_add', { ...netdev, id: netId(nic.port) })
    try {
      const slot = await this.#freeSlot(NIC_SLOTS, (one) => portOf(one) !== undefined)
      await this.#run('device_add', nicDevice(nic, slot))
    } catch (error) {
      await this.#removeNetdev(nic.port)
      throw error
    }
  }

  /** Asks the guest to release a device. Resolves when it has, after RELEASE_WAIT_MS, or when `hurry` is aborted. */
  async unplug(id: string, hurry: AbortSignal): Promise<void> {
    if (!(await this.#devices()).includes(id)) return
    this.#releasing.add(id)
    const released = this.#whenReleased(id, hurry)
    try {
      await this.#run('device_del', { id })
    } catch (error) {
      // Asked before and not followed yet, or released in between: the event, or the next call, tells.
      if (!(error instanceof Fault)) throw error
      this.#deps.log.debug({ server: this.#deps.server, id, err: error }, 'unplug not taken')
    }
    await released
  }

  async #has(id: string): Promise<boolean> {
    if (!(await this.#devices()).includes(id)) return false
    if (!this.#releasing.has(id)) return true
    await this.#whenReleased(id)
    if (!(await this.#devices()).includes(id)) return false
    throw new Fault(GUEST_FAILED, `plugging ${id}: the guest is still to release it`, {
      server: this.#deps.server,
    })
  }

  /** Resolves when the guest has released the device and it was cleaned up after it, or when the wait is over. */
  async #whenReleased(id: string, hurry?: AbortSignal): Promise<void> {
    if (hurry?.aborted === true) return
    let cancel = () => {}
    await new Promise<void>((resolve) => {
      cancel = this.#deps.clock.after(RELEASE_WAIT_MS, resolve)
      hurry?.addEventListener('abort', () => resolve(), { once: true })
      const waiters = this.#releaseWaiters.get(id) ?? []
      this.#releaseWaiters.set(id, [...waiters, resolve])
    })
    cancel()
  }

  async #deviceDeleted(id: string): Promise<void> {
    const [volume, port] = [volumeOf(id), portOf(id)]
    if (volume !== undefined) await this.#removeNode(nodeName(volume))
    if (port !== undefined) {
      await this.#removeNetdev(port)
      await this.#deps.released(port)
    }
    this.#releasing.delete(id)
    const waiters = this.#releaseWaiters.get(id) ?? []
    this.#releaseWaiters.delete(id)
    for (const wake of waiters) wake()
    this.#deps.changed()
  }

  async #removeNode(node: string): Promise<void> {
    // Right after DEVICE_DELETED the node may be in use for a moment.
    for (let tries = 0; (await this.#nodes()).includes(node) && tries < 50; tries++) {
      if (await this.#succeeds('blockdev-del', { 'node-name': node })) return
      await sleep(this.#deps.clock, LOOK_MS)
    }
  }

  async #removeNetdev(port: string): Promise<void> {
    await this.#succeeds('netdev_del', { id: netId(port) })
  }

  /** What may have happened while nobody was connected. */
  async #begin(): Promise<void> {
    try {
      if ((await this.#status()) === 'shutdown') this.#poweredOff()
      else await this.#dropOrphans()
    } catch (error) {
      const { log, server } = this.#deps
      log.debug({ server, err: error }, 'QEMU hung up at once')
    }
  }

  /** Block nodes without their device: somebody died between the two steps. */
  async #dropOrphans(): Promise<void> {
    const wanted = new Set(
      (await this.#devices()).flatMap((id) => volumeOf(id) ?? []).map(nodeName),
    )
    for (const node of await this.#nodes()) {
      if (node.startsWith('node-') && !wanted.has(node)) await this.#removeNode(node)
    }
  }

  async #freeSlot(slots: readonly string[], ours: (id: string) => boolean): Promise<string> {
    const devices = (await this.#devices()).filter(ours)
    const taken = await Promise.all(
      devices.map(async (id) =>
        String(await this.#property(id, 'parent_bus'))
          .split('/')
          .at(-1),
      ),
    )
    const free = slots.find((slot) => !taken.includes(slot))
    if (free !== undefined) return free
    throw new Fault(GUEST_FAILED, `all ${slots.length} slots of the guest are taken`, {
      server: this.#deps.server,
    })
  }

  // ---------------------------------------------------------------- the end

  /** Presses the power button until the guest has gone, `graceMs` are over, or `hurry` is aborted. */
  async press(graceMs: number, hurry: AbortSignal): Promise<void> {
    const { clock } = this.#deps
    const endMs = clock.bootMs() + graceMs
    while (!this.#isGone && !hurry.aborted && clock.bootMs() < endMs) {
      await this.#succeeds('system_powerdown')
      const wait = Math.max(0, Math.min(PRESS_AGAIN_MS, endMs - clock.bootMs()))
      await Promise.race([this.#gone, sleep(clock, wait, hurry).catch(() => undefined)])
    }
  }

  /** Ends the process. Throws GUEST_FAILED when it does not end. */
  async kill(): Promise<void> {
    if (this.#isGone || this.#letGo) return
    if (this.#end === 'died') this.#end = 'stopped'
    if (!(await killAndWait(this.#deps.clock, this.facts, END_LIMIT_MS))) {
      const doing = `ending process ${this.facts.pid} of server ${this.#deps.server}`
      throw new Fault(GUEST_FAILED, doing, { server: this.#deps.server })
    }
    await this.#gone
  }

  /** Forgets the process, which goes on. */
  async letGo(): Promise<void> {
    this.#letGo = true
    this.#qmp?.close()
    await this.#gone
  }

  #poweredOff(): void {
    if (this.#end !== 'died') return
    this.#end = 'itself'
    this.kill().catch((error: unknown) =>
      this.#deps.log.error({ server: this.#deps.server, err: error }, 'a guest does not end'),
    )
  }

  // ---------------------------------------------------------------- QEMU

  #take(qmp: Qmp): void {
    this.#qmp = qmp
    qmp.onEvent(({ event, data }) => {
      switch (event) {
        case 'SHUTDOWN':
          // A guest's reset has the same event, with another reason, and runs on.
          if (data['reason'] === 'guest-shutdown') this.#poweredOff()
          else this.#endReason = `it was ended: ${String(data['reason'])}`
          return
        case 'DEVICE_DELETED': {
          // Parts of a device have events of their own, which carry a path only.
          const id = data['device']
          if (typeof id !== 'string') return
          this.#deviceDeleted(id).catch((error: unknown) =>
            this.#deps.log.warn({ server: this.#deps.server, id, err: error }, 'unplug unfinished'),
          )
          return
        }
        case 'BLOCK_IO_ERROR': {
          if (data['action'] !== 'stop') return
          const space = data['nospace'] === true ? 'has no space left' : 'answers with errors'
          this.#pauseReason = `a disk ${space}: ${String(data['reason'])}`
          return
        }
        case 'STOP':
        case 'RESUME':
          return this.#deps.changed()
        default:
          return
      }
    })
  }

  /** Waits for the end of the process. A connection that breaks while it lives is made again. */
  async #follow(): Promise<void> {
    for (;;) {
      await this.#qmp?.closed
      // The connection ends a moment before the process does.
      for (let looks = 0; looks < 3 && !this.#letGo; looks++) {
        if (!(await isAlive(this.facts))) break
        await sleep(this.#deps.clock, LOOK_MS)
      }
      if (this.#letGo || !(await isAlive(this.facts))) break
      await this.#connectAgain()
    }
    this.#isGone = !this.#letGo
    this.#upkeep?.()
    for (const wake of [...this.#releaseWaiters.values()].flat()) wake()
  }

  async #connectAgain(): Promise<void> {
    try {
      this.#take(await connectQmp(this.#deps))
      await this.#begin()
      this.#deps.changed()
    } catch (error) {
      this.#deps.log.debug({ server: this.#deps.server, err: error }, 'QEMU does not answer')
      await sleep(this.#deps.clock, CONNECT_AGAIN_MS)
    }
  }

  /** Once a second: the console is kept short, and a guest without space may try again. */
  #keepUp(): void {
    const { clock, consoleBytes, folder, log, server } = this.#deps
    const turn = () => {
      rotateConsole(folder, consoleBytes, () => this.#reopenConsole())
        .then(() => this.#resume())
        .catch((error: unknown) => log.debug({ server, err: error }, 'upkeep of a guest failed'))
        .finally(() => {
          if (!this.#isGone && !this.#letGo) this.#upkeep = clock.after(1_000, turn)
        })
    }
    this.#upkeep = clock.after(1_000, turn)
  }

  async #reopenConsole(): Promise<void> {
    const backend = { type: 'file', data: { out: CONSOLE_LOG, append: true } }
    await this.#run('chardev-change', { id: CONSOLE_ID, backend })
  }

  async #resume(): Promise<void> {
    const now = this.#deps.clock.bootMs()
    if (now < this.#resumeAtMs) return
    this.#resumeAtMs = now + RESUME_MS
    if (this.#qmp?.open === true && (await this.#status()) === 'io-error') await this.#run('cont')
  }

  async #status(): Promise<string> {
    return String(asRecord(await this.#ask('query-status'))['status'])
  }

  async #devices(): Promise<string[]> {
    const list = asList(await this.#ask('qom-list', { path: '/machine/peripheral' }))
    return list
      .map(({ name }) => String(name))
      .filter((id) => volumeOf(id) !== undefined || portOf(id) !== undefined)
  }

  async #nodes(): Promise<string[]> {
    const list = asList(await this.#ask('query-named-block-nodes', { flat: true }))
    return list.map((one) => String(one['node-name']))
  }

  /** Undefined: the device has gone meanwhile. */
  async #property(id: string, property: string): Promise<unknown> {
    try {
      return await this.#ask('qom-get', { path: `/machine/peripheral/${id}`, property })
    } catch (error) {
      if (error instanceof QmpError) return undefined
      throw error
    }
  }

  async #ask(command: string, args?: Readonly<Record<string, unknown>>): Promise<unknown> {
    if (this.#qmp === undefined) throw new Error('QEMU is not connected')
    return await this.#qmp.run(command, args)
  }

  /** As `#ask`, for commands that change something: failures are the caller's to report. */
  async #run(command: string, args?: Readonly<Record<string, unknown>>): Promise<void> {
    try {
      await this.#ask(command, args)
    } catch (error) {
      const said = error instanceof Error ? error.message : String(error)
      const { server } = this.#deps
      throw new Fault(GUEST_FAILED, `${command} at server ${server}: ${said}`, { server }, error)
    }
  }

  async #succeeds(command: string, args?: Readonly<Record<string, unknown>>): Promise<boolean> {
    try {
      await this.#ask(command, args)
      return true
    } catch (error) {
      if (!(error instanceof QmpError)) {
        this.#deps.log.debug({ server: this.#deps.server, command, err: error }, 'QEMU is silent')
      }
      return false
    }
  }
}

function connectQmp({ folder, clock }: MachineDeps): Promise<Qmp> {
  return Qmp.connect({ path: join(folder, QMP_SOCKET), clock, timeoutMs: QMP_TIMEOUT_MS })
}
