import { open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { hasCode, readTextIfPresent, writeFileWhole } from '#base/system/files.ts'
import type { ServerDefinition } from '#wire/site/servers.ts'
import {
  CONSOLE_BYTES_MAX,
  type ComputeDriver,
  type DriverDeps,
  GUEST_OFF,
  type GuestDevice,
  type GuestDeviceName,
  type GuestEnd,
  type GuestState,
} from '../driver.ts'
import { type Looking, lookUntil } from '../look-until.ts'
import { bytesBeforeStart, noteConsoleStart } from '../console-start.ts'
import { GUEST_FAILED } from '../faults.ts'
import {
  devicesOf,
  diskAlias,
  diskXml,
  domainXml,
  type DomainDevices,
  freePlace,
  nicAlias,
  nicXml,
} from './domain-xml.ts'
import { openVirsh, type Virsh, type VirshAnswer } from './virsh.ts'

/* Guests as domains of a libvirt on this host.
 *
 * A domain is called PREFIX-guest-SERVER and is defined at each start from the definition of that moment: nobody but the agent keeps what a
 * server is. It stays defined after its end, because libvirt then still tells how that came. Domains of other names are not touched.
 *
 * A guest whose disk does not answer is paused by QEMU, not told an error; each look at it lets it try again. So a guest waits while its agent is
 * away, as with the other drivers, for a few seconds longer.
 *
 *     DATA/servers/ID/domain.xml      what the last start or attachment gave to libvirt
 *                     console.log     written by QEMU, or by virtlogd, which also cuts it
 *                     releasing.json  volumes that the guest was asked to give back
 */

export interface LibvirtOptions extends DriverDeps {
  /** virsh */
  readonly program: string
  readonly uri: string
  readonly network: string | undefined
  /** Found out once, when the first guest is started. */
  readonly accelerator: () => Promise<'kvm' | 'tcg'>
}

const POLL_MS = 5_000
const RELEASE_MS = 5_000

export function libvirtDriver(options: LibvirtOptions): ComputeDriver {
  return new LibvirtDriver(options)
}

interface Look {
  readonly state: GuestState
  readonly targets: DomainDevices['targets']
}

/** `virsh domstate --reason`: the words of a domain that is off. */
const ENDS: Readonly<Record<string, GuestEnd>> = {
  shutdown: 'itself',
  crashed: 'died',
  failed: 'died',
  daemon: 'died',
}

class LibvirtDriver implements ComputeDriver {
  readonly name = 'libvirt'
  readonly pollMs = POLL_MS
  readonly #options: LibvirtOptions
  readonly #looking: Looking
  readonly #log: Log
  readonly #virsh: Virsh
  #accelerator: 'kvm' | 'tcg' | undefined
  #closed = false

  constructor(options: LibvirtOptions) {
    this.#options = options
    this.#looking = {
      clock: options.clock,
      state: (server) => this.state(server),
      closed: () => this.#closed,
    }
    this.#log = options.log
    this.#virsh = openVirsh(options.program, options.uri, options.clock)
  }

  accelerator(): string {
    return this.#accelerator ?? 'none'
  }

  watch(changed: (server: string) => void): void {
    this.#virsh.listen((domain) => {
      if (domain.startsWith(this.#prefix)) changed(domain.slice(this.#prefix.length))
    })
  }

  async endStrays(servers: ReadonlySet<string>): Promise<void> {
    const answer = await this.#virsh.call('list', '--all', '--name')
    if (answer.kind === 'failed') throw this.#fault('listing domains', '', answer)
    for (const domain of answer.output.split('\n').map((line) => line.trim())) {
      const server = domain.slice(this.#prefix.length)
      if (!domain.startsWith(this.#prefix) || servers.has(server)) continue
      this.#log.warn({ server, domain }, 'ending a guest that no definition names')
      await this.remove(server)
    }
  }

  async adopt({ server }: ServerDefinition): Promise<GuestState> {
    return await this.state(server)
  }

  async define(): Promise<void> {
    // Given to libvirt with the next start.
  }

  async start(definition: ServerDefinition): Promise<void> {
    const { server } = definition
    const doing = `starting server ${server}`
    if ((await this.#known(server, doing)).state.power !== 'off') return
    this.#accelerator ??= await this.#options.accelerator()
    await rm(this.#file(server, 'releasing.json'), { force: true })
    const xml = domainXml(definition, {
      domain: this.#domain(server),
      nbdSocket: this.#options.nbdSocket,
      consoleFile: this.#file(server, 'console.log'),
      type: this.#accelerator === 'kvm' ? 'kvm' : 'qemu',
      network: this.#options.network,
    })
    const file = await this.#give(server, xml)
    await noteConsoleStart(this.#options.folder(server), 'console.log')
    await this.#tell(doing, server, 'define', '--file', file)
    try {
      await this.#tell(doing, server, 'start', '--domain', this.#domain(server))
    } catch (error) {
      await this.#undefine(server)
      throw error
    }
  }

  async powerDown(server: string, graceMs: number, hurry: AbortSignal): Promise<void> {
    if ((await this.state(server)).power === 'running' && !hurry.aborted) {
      const asked = await this.#virsh.call('shutdown', this.#domain(server), '--mode', 'acpi')
      if (asked.kind === 'failed') {
        this.#log.warn(
          { server, reason: asked.reason },
          'the guest could not be asked to power off',
        )
      } else {
        await lookUntil(this.#looking, server, ({ power }) => power === 'off', graceMs, hurry)
      }
    }
    await this.stop(server)
  }

  async stop(server: string): Promise<void> {
    if ((await this.state(server)).power === 'off') return
    const answer = await this.#virsh.call('destroy', this.#domain(server))
    const { power } = await this.state(server)
    if (power !== 'off') throw this.#fault(`stopping server ${server}`, server, answer)
  }

  async remove(server: string): Promise<void> {
    await this.stop(server)
    await this.#undefine(server)
  }

  async #undefine(server: string): Promise<void> {
    const domain = this.#domain(server)
    const answer = await this.#virsh.call('undefine', domain)
    if (answer.kind === 'done' || isUnknown(answer.reason)) return
    throw this.#fault(`removing server ${server}`, server, answer)
  }

  async attach(server: string, device: GuestDevice): Promise<void> {
    const doing = `plugging a ${device.kind} into server ${server}`
    const seen = await this.#known(server, doing)
    if (seen.state.power === 'off' || has(seen.state, nameOf(device))) return
    const { nbdSocket, network } = this.#options
    // Notes of volumes that were released since would be true again.
    if (device.kind === 'disk') await this.#noteReleasing(server, seen.state.disks)
    const xml =
      device.kind === 'disk'
        ? diskXml(device.disk, null, freePlace(seen.targets), nbdSocket)
        : nicXml(device.nic, network)
    const file = await this.#give(server, xml)
    await this.#tell(doing, server, 'attach-device', this.#domain(server), file, '--live')
  }

  async detach(server: string, device: GuestDeviceName, hurry: AbortSignal): Promise<void> {
    const doing = `taking a ${device.kind} from server ${server}`
    const before = (await this.#known(server, doing)).state
    if (before.power === 'off' || !has(before, device)) return
    if (device.kind === 'disk') await this.#noteReleasing(server, before.disks, device.volume)
    const alias = device.kind === 'disk' ? diskAlias(device.volume) : nicAlias(device.port)
    const asked = await this.#virsh.call(
      'detach-device-alias',
      this.#domain(server),
      alias,
      '--live',
    )
    // Asked before and not answered yet, as a rule.
    if (asked.kind === 'failed')
      this.#log.info({ server, alias, reason: asked.reason }, 'detaching')
    await lookUntil(
      this.#looking,
      server,
      (state) => state.power === 'off' || !has(state, device),
      RELEASE_MS,
      hurry,
    )
  }

  async state(server: string): Promise<GuestState> {
    return (await this.#look(server)).state
  }

  readonly network = null
  guestAgent = async () => undefined

  async console(server: string, since?: 'start'): Promise<string> {
    try {
      const path = this.#file(server, 'console.log')
      const before =
        since === 'start' ? await bytesBeforeStart(this.#options.folder(server), path) : 0
      const file = await open(path, 'r')
      try {
        const { size } = await file.stat()
        const buffer = Buffer.alloc(Math.min(size - (before ?? 0), CONSOLE_BYTES_MAX))
        const { bytesRead } = await file.read(buffer, 0, buffer.length, size - buffer.length)
        return buffer.toString('utf8', 0, bytesRead)
      } finally {
        await file.close()
      }
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return ''
      throw error
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#virsh.close()
  }

  // ---------------------------------------------------------------- what libvirt says

  /** For what must not be done, or left out, by guess. */
  async #known(server: string, doing: string): Promise<Look> {
    const look = await this.#look(server)
    if (look.state.power !== 'unknown') return look
    const reason = look.state.reason ?? 'its state is not known'
    throw new Fault(GUEST_FAILED, `${doing}: ${reason}`, { server })
  }

  async #look(server: string): Promise<Look> {
    const domain = this.#domain(server)
    const answer = await this.#virsh.call(`domstate ${domain} --reason; dumpxml ${domain}`)
    if (answer.kind === 'failed') {
      if (isUnknown(answer.reason)) return { state: GUEST_OFF, targets: [] }
      const reason = `libvirt does not say: ${answer.reason}`
      return { state: { ...GUEST_OFF, power: 'unknown', reason }, targets: [] }
    }
    const [, word = '', reason = ''] = /^\s*([a-z ]+?) \(([^)]*)\)/.exec(answer.output) ?? []
    if (word === 'shut off' || word === 'crashed') {
      const end = word === 'crashed' ? 'died' : (ENDS[reason] ?? 'stopped')
      const text = end === 'died' ? `libvirt says: ${word}, ${reason}` : null
      return { state: { ...GUEST_OFF, end, reason: text }, targets: [] }
    }
    // Its disk did not answer, because this agent was away: the request is made again. Without success it is paused again.
    if (word === 'paused' && reason === 'I/O error') await this.#virsh.call('resume', domain)
    const { disks, nics, targets } = devicesOf(answer.output)
    const asked = await this.#releasing(server)
    const isRunning = word === 'running' || word === 'idle' || word === 'in shutdown'
    const state: GuestState = {
      power: isRunning ? 'running' : word === '' || word === 'no state' ? 'unknown' : 'paused',
      end: 'stopped',
      reason: isRunning ? null : `libvirt says: ${word}, ${reason}`,
      disks,
      nics,
      releasing: disks.filter((volume) => asked.includes(volume)),
    }
    return { state, targets }
  }

  // ---------------------------------------------------------------- calls and files

  get #prefix(): string {
    return `${this.#options.prefix}-guest-`
  }

  #domain(server: string): string {
    return `${this.#prefix}${server}`
  }

  #file(server: string, name: string): string {
    return join(this.#options.folder(server), name)
  }

  /** XML goes to libvirt in files. */
  async #give(server: string, xml: string): Promise<string> {
    const file = this.#file(server, 'domain.xml')
    await writeFileWhole(file, `${xml}\n`, 0o600)
    return file
  }

  async #releasing(server: string): Promise<readonly string[]> {
    const text = await readTextIfPresent(this.#file(server, 'releasing.json'))
    return text === undefined ? [] : (JSON.parse(text) as string[])
  }

  /** Replaces the notes by those of volumes that the guest still has, and perhaps one more. */
  async #noteReleasing(server: string, disks: readonly string[], more?: string): Promise<void> {
    const before = await this.#releasing(server)
    const now = before.filter((one) => one !== more && disks.includes(one))
    if (more !== undefined) now.push(more)
    if (now.length === 0 && before.length === 0) return
    await writeFileWhole(this.#file(server, 'releasing.json'), `${JSON.stringify(now)}\n`, 0o600)
  }

  async #tell(doing: string, server: string, ...args: readonly string[]): Promise<void> {
    const answer = await this.#virsh.call(...args)
    if (answer.kind === 'failed') throw this.#fault(doing, server, answer)
  }

  #fault(doing: string, server: string, answer: VirshAnswer): Fault {
    const reason = answer.kind === 'failed' ? answer.reason : 'libvirt did not do it'
    return new Fault(GUEST_FAILED, `${doing}: ${reason}`, { server })
  }
}

const isUnknown = (reason: string): boolean => /failed to get domain|domain not found/i.test(reason)

const nameOf = (device: GuestDevice): GuestDeviceName =>
  device.kind === 'disk'
    ? { kind: 'disk', volume: device.disk.volume }
    : { kind: 'nic', port: device.nic.port }

const has = ({ disks, nics }: GuestState, device: GuestDeviceName): boolean =>
  device.kind === 'disk'
    ? disks.includes(device.volume)
    : nics.some(({ port }) => port === device.port)
