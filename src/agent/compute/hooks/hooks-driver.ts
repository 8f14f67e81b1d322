import { join } from 'node:path'
import { Fault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import type { ServerDefinition } from '#wire/site/servers.ts'
import {
  CONSOLE_BYTES_MAX,
  type ComputeDriver,
  type DriverDeps,
  GUEST_OFF,
  type GuestDevice,
  type GuestDeviceName,
  type GuestState,
} from '../driver.ts'
import { type Looking, lookUntil } from '../look-until.ts'
import { GUEST_FAILED } from '../faults.ts'
import { listOf, stateOf } from './answers.ts'
import { type HookAnswer, type HookProgram, hookProgram } from './program.ts'

/* Guests by a program of the operator's own, for hypervisors and machines that no other driver knows. The program is asked one thing at a
 * time and keeps nothing running for us; the contract is in docs/operating/compute-hooks.md.
 *
 * What is easy to get wrong is done here, so that programs stay short: nothing is started, attached or detached that is so already; what
 * takes a guest's consent (powering down, releasing a device) is only asked for by the program and waited for here; a start that failed is
 * followed by a stop.
 */

export interface HooksOptions extends DriverDeps {
  /** Absolute path. */
  readonly program: string
  /** For one call that starts, stops or changes a guest, ms. */
  readonly limitMs: number
}

type Verb =
  | 'list'
  | 'define'
  | 'start'
  | 'power_down'
  | 'stop'
  | 'remove'
  | 'attach'
  | 'detach'
  | 'state'
  | 'console'

/** Raised when programs written for the contract of before would go wrong. */
const CONTRACT = 1
const POLL_MS = 5_000
/** Questions are asked all the time, so one must not take long. */
const QUESTION_LIMIT_MS = 15_000
/** At a time, so that a host of a hundred guests is not busy with asking after them. */
const QUESTIONS_MAX = 4
const RELEASE_MS = 5_000

export function hooksDriver(options: HooksOptions): ComputeDriver {
  return new HooksDriver(options)
}

class HooksDriver implements ComputeDriver {
  readonly name = 'hooks'
  readonly pollMs = POLL_MS
  readonly #options: HooksOptions
  readonly #looking: Looking
  readonly #log: Log
  readonly #program: HookProgram
  /** As given last. */
  readonly #definitions = new Map<string, ServerDefinition>()
  #questions = 0
  readonly #waiting: (() => void)[] = []
  #changed: (server: string) => void = () => undefined
  #closed = false

  constructor(options: HooksOptions) {
    this.#options = options
    this.#looking = {
      clock: options.clock,
      state: (server) => this.state(server),
      closed: () => this.#closed,
    }
    this.#log = options.log
    const { program, directory, clock } = options
    const mark = `holdfast-hook:${join(options.runDir, options.prefix)}`
    this.#program = hookProgram({ program, mark, directory, clock })
  }

  accelerator(): string {
    return 'none'
  }

  watch(changed: (server: string) => void): void {
    this.#changed = changed
  }

  async endStrays(servers: ReadonlySet<string>): Promise<void> {
    await this.#program.endLeftovers()
    const answer = await this.#ask('list', '')
    if (answer.kind === 'unsupported') {
      this.#log.warn('the hook program does not list guests: forgotten ones are not found')
      return
    }
    const found = answer.kind === 'done' ? listOf(answer.output) : undefined
    if (found === undefined) throw this.#fault('list', '', answer)
    for (const server of found.filter((one) => !servers.has(one))) {
      this.#log.warn({ server }, 'ending a guest that no definition names')
      await this.remove(server)
    }
  }

  async adopt(definition: ServerDefinition): Promise<GuestState> {
    this.#definitions.set(definition.server, definition)
    return await this.state(definition.server)
  }

  async define(definition: ServerDefinition): Promise<void> {
    this.#definitions.set(definition.server, definition)
    await this.#tell('define', definition.server, {}, 'may be left out')
  }

  async start(definition: ServerDefinition): Promise<void> {
    const { server } = definition
    this.#definitions.set(server, definition)
    if (isOn(await this.#known(server, 'start'))) return
    try {
      await this.#tell('start', server)
    } catch (error) {
      await this.stop(server).catch((problem: unknown) =>
        this.#log.error({ server, err: problem }, 'what a failed start left could not be stopped'),
      )
      throw error
    }
    this.#changed(server)
  }

  async powerDown(server: string, graceMs: number, hurry: AbortSignal): Promise<void> {
    if ((await this.state(server)).power === 'running' && !hurry.aborted) {
      try {
        await this.#tell('power_down', server, {}, 'may be left out')
        await lookUntil(this.#looking, server, (state) => !isOn(state), graceMs, hurry)
      } catch (error) {
        this.#log.warn({ server, err: error }, 'the guest could not be asked to power off')
      }
    }
    await this.stop(server)
  }

  async stop(server: string): Promise<void> {
    if ((await this.state(server)).power === 'off') return
    await this.#tell('stop', server)
    const { power, reason } = await this.state(server)
    this.#changed(server)
    if (power === 'off') return
    const text = `stopping server ${server}: it is ${power} afterwards${reason === null ? '' : `, ${reason}`}`
    throw new Fault(GUEST_FAILED, text, { server })
  }

  async remove(server: string): Promise<void> {
    await this.stop(server)
    await this.#tell('remove', server, {}, 'may be left out')
    this.#definitions.delete(server)
  }

  async attach(server: string, device: GuestDevice): Promise<void> {
    const before = await this.#known(server, 'attach')
    if (!isOn(before) || has(before, nameOf(device))) return
    await this.#tell('attach', server, { device })
    this.#changed(server)
  }

  async detach(server: string, device: GuestDeviceName, hurry: AbortSignal): Promise<void> {
    const before = await this.#known(server, 'detach')
    if (!isOn(before) || !has(before, device)) return
    await this.#tell('detach', server, { device })
    await lookUntil(
      this.#looking,
      server,
      (state) => !isOn(state) || !has(state, device),
      RELEASE_MS,
      hurry,
    )
    this.#changed(server)
  }

  async state(server: string): Promise<GuestState> {
    const answer = await this.#ask('state', server)
    const state = answer.kind === 'done' ? stateOf(answer.output) : undefined
    if (state !== undefined) return state
    const reason = `the hook program does not say: ${problemOf(answer)}`
    return { ...GUEST_OFF, power: 'unknown', reason }
  }

  readonly network = null
  guestAgent = async () => undefined

  async console(server: string): Promise<string> {
    const answer = await this.#ask('console', server)
    if (answer.kind === 'unsupported') return ''
    if (answer.kind !== 'done') throw this.#fault('console', server, answer)
    return answer.output.slice(-CONSOLE_BYTES_MAX)
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#program.close()
  }

  // ---------------------------------------------------------------- calls

  /** For what must not be done, or left out, by guess. */
  async #known(server: string, verb: Verb): Promise<GuestState> {
    const state = await this.state(server)
    if (state.power !== 'unknown') return state
    const doing = `hook ${verb} of server ${server}: ${state.reason ?? 'its state is not known'}`
    throw new Fault(GUEST_FAILED, doing, { server, verb })
  }

  /** Something that changes a guest. */
  async #tell(
    verb: Verb,
    server: string,
    more: Readonly<Record<string, unknown>> = {},
    unsupported?: 'may be left out',
  ): Promise<void> {
    const { limitMs } = this.#options
    const question = this.#question(verb, server, more)
    const answer = await this.#program.call({ verb, server, question, limitMs })
    if (answer.kind === 'done') return
    if (answer.kind === 'unsupported' && unsupported !== undefined) return
    throw this.#fault(verb, server, answer)
  }

  /** Something that changes nothing. */
  async #ask(verb: Verb, server: string): Promise<HookAnswer> {
    if (this.#questions >= QUESTIONS_MAX) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    } else this.#questions++
    try {
      const question = this.#question(verb, server, {})
      return await this.#program.call({ verb, server, question, limitMs: QUESTION_LIMIT_MS })
    } finally {
      const next = this.#waiting.shift()
      if (next === undefined) this.#questions--
      else next()
    }
  }

  #question(verb: Verb, server: string, more: Readonly<Record<string, unknown>>): unknown {
    const { prefix, runDir, directory, nbdSocket } = this.#options
    const ofServer = server === '' ? {} : this.#ofServer(server)
    const ofAgent = { agent: prefix, run_dir: runDir, directory, nbd_socket: nbdSocket }
    return { contract: CONTRACT, verb, ...ofAgent, ...ofServer, ...more }
  }

  #ofServer(server: string): Readonly<Record<string, unknown>> {
    const { prefix, runDir } = this.#options
    return {
      server,
      folder: this.#options.folder(server),
      pid_file: join(runDir, `${prefix}-guest-${server}.pid`),
      definition: this.#definitions.get(server) ?? null,
    }
  }

  #fault(verb: Verb, server: string, answer: HookAnswer): Fault {
    const of = server === '' ? '' : ` of server ${server}`
    return new Fault(GUEST_FAILED, `hook ${verb}${of}: ${problemOf(answer)}`, { server, verb })
  }
}

const isOn = ({ power }: GuestState): boolean => power !== 'off'

const nameOf = (device: GuestDevice): GuestDeviceName =>
  device.kind === 'disk'
    ? { kind: 'disk', volume: device.disk.volume }
    : { kind: 'nic', port: device.nic.port }

const has = ({ disks, nics }: GuestState, device: GuestDeviceName): boolean =>
  device.kind === 'disk'
    ? disks.includes(device.volume)
    : nics.some(({ port }) => port === device.port)

function problemOf(answer: HookAnswer): string {
  if (answer.kind === 'unsupported') return 'the program does not do that'
  return answer.kind === 'failed' ? answer.reason : 'its answer is not of the form asked for'
}
