import { assert, BrokenInvariant } from '#base/assert.ts'
import { type Clock, sleep } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import type { ServerBrief, ServerDefinition, ServerInfo } from '#wire/site/servers.ts'
import { VOLUME_UNKNOWN } from '#agent/volumes/faults.ts'
import { Deaths } from './crash-loop.ts'
import { newRecord, type ServerRecord } from './definition-file.ts'
import { missingOf, surplusOf } from './difference.ts'
import {
  type ComputeDriver,
  type DiskStandings,
  GUEST_OFF,
  type GuestDevice,
  type GuestState,
} from './driver.ts'
import { guestInfo } from './guest-info.ts'
import { notServed, type StartProblem, whyNoMemory, whyNotStart, whyStop } from './judgement.ts'
import type { Probed } from './probes/probes.ts'
import { NO_MEMORY, NOT_SERVED, SERVER_UNKNOWN, STALE_GENERATION } from './faults.ts'
import { Turns } from './turns.ts'

/* One server of the agent: its record, what its guest is known to be, and everything that happens to it, one after the other.
 *
 *     command ──┐                         ┌─► record (persisted first)
 *     event ────┼──► turns, one at a time ┤
 *     poll ─────┘                         └─► driver
 *
 * Commands change what is wanted. `settle` brings the guest to it, and draws conclusions from what the guest did by itself:
 *
 *     guest    wanted    disks           then
 *     off      running   all served      started (not at once after a death, and not for ever: crash-loop.ts)
 *     off      running   one waits       started when it is served
 *     off      running   one denied      wanted off, with the reason: who moved the disk away decides when the server runs again
 *     off      running   -               it powered itself off: wanted off
 *     runs     running   as defined      devices plugged and unplugged until it has what the definition says
 *     runs     off       -               a stop was cut off by a crash of the agent: powered down
 *     runs     any       one denied      fenced: stopped hard at once, wanted off
 *
 * Fencing goes before everything: it hurries a soft power-down whose turn it is. Its stop comes before its record, because a guest that runs where it
 * may not is worse than a record that says so for a moment longer; a crash between is found by the third row.
 */

/** How long `start` waits for disks that are not served yet. */
const SERVED_WAIT_MS = 5_000
const SERVED_LOOK_MS = 50
/** For a stop that a crash of the agent cut off; nobody remembers the time that was asked for. */
const CUT_OFF_GRACE_MS = 30_000
/** Between attempts to plug what could not be plugged. */
const CONVERGE_AGAIN_MS = 2_000

export interface GuestDeps {
  readonly driver: ComputeDriver
  readonly disks: DiskStandings
  readonly clock: Clock
  readonly log: Log
  save(record: ServerRecord): Promise<void>
  forget(server: string): Promise<void>
  /** Memory that other guests leave, MiB. */
  freeMemoryMb(except: Guest): number
  /** The agent powers its guests off and starts none. */
  resting(): boolean
}

export class Guest {
  readonly id: string
  readonly #deps: GuestDeps
  /** Undefined until the first definition was saved. */
  #record: ServerRecord | undefined
  #state: GuestState = GUEST_OFF
  #sinceMs: number
  /** Why it does not run although it is wanted; of this run of the agent. */
  #held: string | null = null
  readonly #turns = new Turns()
  #settling = false
  #memoryMb = 0
  readonly #deaths = new Deaths()
  #convergeAtMs = 0
  #removed = false
  /** Names of devices by volume, those of former definitions included. */
  readonly #devices = new Map<string, string>()

  constructor(id: string, record: ServerRecord | undefined, deps: GuestDeps) {
    this.id = id
    this.#record = record
    this.#deps = deps
    this.#sinceMs = record?.since_ms ?? deps.clock.wallMs()
    if (record !== undefined) this.#noteDevices(record.definition)
  }

  // ---------------------------------------------------------------- commands

  async define(definition: ServerDefinition): Promise<ServerInfo> {
    return await this.#turn(async () => {
      const held = this.#record?.definition.generation ?? 0
      if (definition.generation < held) {
        const doing = `defining server ${this.id} of generation ${definition.generation}`
        throw new Fault(STALE_GENERATION, doing, { server: this.id, held })
      }
      if (definition.generation > held) {
        this.#refuseUnknownVolumes(definition)
        await this.#save(
          this.#record === undefined ? newRecord(definition, this.#sinceMs) : { definition },
        )
        this.#noteDevices(definition)
      }
      await this.#deps.driver.define(this.#known.definition)
      await this.#observe()
      if (this.#state.power === 'running') await this.#converge()
      return this.info()
    })
  }

  async start(): Promise<ServerInfo> {
    return await this.#turn(async () => {
      await this.#observe()
      await this.#startAsked()
      return this.info()
    })
  }

  async stop(hard: boolean, graceMs: number): Promise<ServerInfo> {
    if (hard) this.#turns.hurry()
    return await this.#turn(async () => {
      if (this.#known.wanted === 'running' || this.#known.reason !== null) {
        await this.#save({ wanted: 'off', reason: null })
      }
      this.#held = null
      await this.#off(hard ? 0 : graceMs)
      return this.info()
    })
  }

  async reboot(request: string, hard: boolean, graceMs: number): Promise<ServerInfo> {
    if (hard) this.#turns.hurry()
    return await this.#turn(async () => {
      await this.#observe()
      const { reboot, starts } = this.#known
      if (reboot?.request !== request) {
        if (!hard && this.#state.power === 'off') return this.info()
        await this.#save({ reboot: { request, after_starts: starts } })
      } else if (starts > reboot.after_starts) return this.info()
      this.#refuseUnserved(await this.#standingProblem())
      await this.#off(hard ? 0 : graceMs)
      await this.#startAsked()
      return this.info()
    })
  }

  async remove(): Promise<void> {
    this.#turns.hurry()
    await this.#turns.take(async () => {
      if (this.#removed) return
      if (this.#record?.wanted === 'running') await this.#save({ wanted: 'off' })
      await this.#deps.driver.remove(this.id)
      this.#removed = true
      this.#memoryMb = 0
      await this.#deps.forget(this.id)
    })
  }

  async console(): Promise<string> {
    return await this.#deps.driver.console(this.id)
  }

  /** Power off for the time that the agent is away; it is still wanted. */
  async rest(graceMs: number): Promise<void> {
    const cancel = this.#deps.clock.after(graceMs, () => this.#turns.hurry())
    try {
      await this.#turns.take(async () => {
        await this.#observe()
        await this.#off(graceMs)
      })
    } finally {
      cancel()
    }
  }

  // ---------------------------------------------------------------- what is known

  get memoryMb(): number {
    return this.#memoryMb
  }

  /** False: nobody ever defined it successfully, or it was removed. */
  get exists(): boolean {
    return this.#record !== undefined && !this.#removed
  }

  /** Something is under way or to be watched. */
  get active(): boolean {
    return this.exists && (this.#state.power !== 'off' || this.#record?.wanted === 'running')
  }

  /** What a probe looks at. */
  get probed(): Probed {
    return {
      definition: this.#known.definition,
      power: this.#state.power,
      sinceMs: this.#sinceMs,
    }
  }

  brief(): ServerBrief {
    const { power, reason } = this.#state
    return {
      server: this.id,
      generation: this.#known.definition.generation,
      power,
      power_since: this.#sinceMs,
      reason: power === 'off' ? (this.#held ?? this.#known.reason) : reason,
    }
  }

  info(): ServerInfo {
    return guestInfo(this.brief(), this.#known.definition, this.#state, this.#devices)
  }

  async show(): Promise<ServerInfo> {
    this.#note(await this.#deps.driver.state(this.id))
    return this.info()
  }

  // ---------------------------------------------------------------- duties

  /** Once, before anything else. */
  async adopt(): Promise<void> {
    await this.#turns.take(async () => {
      const { definition } = this.#known
      const state = await this.#deps.driver.adopt(definition)
      if (state.power !== 'off') this.#memoryMb = definition.memory_mb
      else if (this.#known.wanted === 'running') this.#sinceMs = this.#deps.clock.wallMs()
      this.#state = state
    })
  }

  /** Looks and acts, soon; while a look is waiting for its turn another one adds nothing. */
  settle(): void {
    this.#fenceIfDue()
    if (this.#settling || !this.exists) return
    this.#settling = true
    this.#turns
      .take(async () => {
        this.#settling = false
        if (this.exists) await this.#settle()
      })
      .catch((error: unknown) => {
        if (error instanceof BrokenInvariant) throw error
        if (error instanceof Fault) this.#held = error.message
        this.#deps.log.warn({ server: this.id, err: error }, 'a guest is not as it should be')
      })
  }

  /** The standing of a volume changed. */
  concerned(volume: string): boolean {
    const wants = this.#record?.definition.disks.some((disk) => disk.volume === volume) === true
    return this.active && (wants || this.#state.disks.includes(volume))
  }

  async idle(): Promise<void> {
    await this.#turns.idle()
  }

  async #settle(): Promise<void> {
    await this.#observe()
    const { power, end } = this.#state
    if (power !== 'off') {
      if (this.#known.wanted === 'off') return await this.#off(CUT_OFF_GRACE_MS)
      if (power === 'running' && this.#deps.clock.bootMs() >= this.#convergeAtMs) {
        this.#convergeAtMs = this.#deps.clock.bootMs() + CONVERGE_AGAIN_MS
        await this.#converge()
      }
      return
    }
    if (this.#known.wanted === 'off' || this.#deps.resting()) return
    if (end === 'itself') {
      await this.#save({ wanted: 'off', reason: 'it powered itself off' })
      return
    }
    if (!this.#deaths.mayStart(this.#deps.clock.bootMs())) return
    await this.#startAgain()
  }

  async #startAgain(): Promise<void> {
    const problem = this.#problem()
    if (problem !== undefined) {
      this.#held = problem.text
      if (!problem.lasting) return
      await this.#save({ wanted: 'off', reason: problem.text })
      this.#held = null
      return
    }
    const memory = this.#memoryProblem()
    if (memory !== undefined) {
      this.#held = memory
      return
    }
    try {
      await this.#startNow()
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      this.#died(error.message)
    }
  }

  #died(reason: string): void {
    const { clock, log } = this.#deps
    const next = this.#deaths.note(clock.bootMs())
    this.#held =
      next.kind === 'stay_off'
        ? `it ended ${this.#deaths.count} times and is not started again by itself; last: ${reason}`
        : reason
    log.warn({ server: this.id, reason, next }, 'a guest ended that should run')
  }

  #fenceIfDue(): void {
    if (!this.exists || this.#state.power === 'off') return
    const reason = this.#mayNotRun()
    if (reason === undefined) return
    this.#turns.hurry()
    this.#turns
      .take(async () => await this.#fence())
      .catch((error: unknown) => {
        if (error instanceof BrokenInvariant) throw error
        this.#deps.log.error({ server: this.id, err: error }, 'a guest could not be fenced')
      })
  }

  /** The standing may have changed back while this waited for its turn: then nothing is done. */
  async #fence(): Promise<void> {
    const reason = this.exists && this.#state.power !== 'off' ? this.#mayNotRun() : undefined
    if (reason === undefined) return
    this.#deps.log.warn({ server: this.id, reason }, 'stopping a guest that may not run here')
    this.#held = reason
    await this.#deps.driver.stop(this.id)
    await this.#observe()
    await this.#save({ wanted: 'off', reason })
    this.#held = null
  }

  // ---------------------------------------------------------------- steps

  /** A start that somebody waits for: refuses what `#startAgain` would wait for. */
  async #startAsked(): Promise<void> {
    if (this.#state.power !== 'off') {
      if (this.#known.wanted === 'off') await this.#save({ wanted: 'running', reason: null })
      return
    }
    this.#refuseUnserved(await this.#standingProblem())
    const memory = this.#memoryProblem()
    if (memory !== undefined) {
      throw new Fault(NO_MEMORY, `starting server ${this.id}: ${memory}`, { server: this.id })
    }
    this.#deaths.forget()
    try {
      await this.#startNow()
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      await this.#save({ wanted: 'off', reason })
      throw error
    }
  }

  async #startNow(): Promise<void> {
    const { definition, starts } = this.#known
    this.#memoryMb = definition.memory_mb
    try {
      const since_ms = this.#deps.clock.wallMs()
      await this.#save({ wanted: 'running', starts: starts + 1, since_ms, reason: null })
      await this.#deps.driver.start(definition)
      this.#held = null
    } finally {
      await this.#observe()
    }
    // It may have lost a disk while it was started; nobody has seen it run until now.
    this.#fenceIfDue()
  }

  async #off(graceMs: number): Promise<void> {
    const { driver } = this.#deps
    if (graceMs === 0) await driver.stop(this.id)
    else await this.#turns.patiently((hurry) => driver.powerDown(this.id, graceMs, hurry))
    await this.#observe()
  }

  /** Everything is tried; the first failure is thrown at the end. */
  async #converge(): Promise<void> {
    const { definition } = this.#known
    const failures: unknown[] = []
    const attempt = async (work: Promise<void>) => {
      await work.catch((error: unknown) => failures.push(error))
    }
    const surplus = surplusOf(definition, this.#state)
    if (surplus.length > 0) {
      const { driver } = this.#deps
      await this.#turns.patiently(async (hurry) => {
        await Promise.all(surplus.map((one) => attempt(driver.detach(this.id, one, hurry))))
      })
      await this.#observe()
    }
    const missing = missingOf(definition, this.#state)
    for (const device of missing) await attempt(this.#attach(device))
    if (missing.length > 0) await this.#observe()
    if (failures.length > 0) throw failures[0]
  }

  async #attach(device: GuestDevice): Promise<void> {
    if (device.kind === 'disk') {
      this.#refuseUnserved(notServed(device.disk.volume, this.#deps.disks)?.text)
    }
    await this.#deps.driver.attach(this.id, device)
  }

  async #observe(): Promise<void> {
    this.#note(await this.#deps.driver.state(this.id))
  }

  #note(state: GuestState): void {
    const before = this.#state
    if (state.power !== before.power) this.#sinceMs = this.#deps.clock.wallMs()
    // Whoever does not answer still has what it had.
    const { disks, nics, releasing } = state.power === 'unknown' ? before : state
    this.#state = { ...state, disks, nics, releasing }
    if (state.power !== 'off') return
    this.#memoryMb = 0
    const unasked = before.power !== 'off' && this.#record?.wanted === 'running'
    if (unasked && state.end === 'died') this.#died(state.reason ?? 'it ended')
  }

  // ---------------------------------------------------------------- disks and memory

  /** Why the guest must not go on: of the disks that it has, not of those that it should have. */
  #mayNotRun(): string | undefined {
    const { power, disks } = this.#state
    // Found at the start and silent: taken for what the definition says.
    const silent = power === 'unknown' && disks.length === 0
    const defined = this.#known.definition.disks.map(({ volume }) => volume)
    return whyStop(silent ? defined : disks, this.#deps.disks)
  }

  #problem(): StartProblem | undefined {
    return whyNotStart(this.#known.definition.disks, this.#deps.disks)
  }

  async #standingProblem(): Promise<string | undefined> {
    const { clock } = this.#deps
    const endMs = clock.bootMs() + SERVED_WAIT_MS
    for (;;) {
      const problem = this.#problem()
      if (problem === undefined || problem.lasting || clock.bootMs() > endMs) return problem?.text
      await sleep(clock, SERVED_LOOK_MS)
    }
  }

  #refuseUnserved(problem: string | undefined): void {
    if (problem === undefined) return
    throw new Fault(NOT_SERVED, `server ${this.id}: ${problem}`, { server: this.id })
  }

  #refuseUnknownVolumes({ disks }: ServerDefinition): void {
    const unknown = disks.find(({ volume }) => this.#deps.disks.of(volume).kind === 'unknown')
    if (unknown === undefined) return
    const doing = `defining server ${this.id} with volume ${unknown.volume}`
    throw new Fault(VOLUME_UNKNOWN, doing, { server: this.id, volume: unknown.volume })
  }

  #memoryProblem(): string | undefined {
    return whyNoMemory(this.#known.definition, this.#deps.freeMemoryMb(this))
  }

  // ---------------------------------------------------------------- record and turns

  get #known(): ServerRecord {
    assert(this.#record !== undefined, 'a server that is used was defined')
    return this.#record
  }

  async #save(change: Partial<ServerRecord> | ServerRecord): Promise<void> {
    const since_ms = this.#sinceMs
    const record = { ...this.#record, since_ms, ...change } as ServerRecord
    await this.#deps.save(record)
    this.#record = record
  }

  #noteDevices({ disks }: ServerDefinition): void {
    for (const { volume, device } of disks) this.#devices.set(volume, device)
  }

  async #turn<T>(work: () => Promise<T>): Promise<T> {
    return await this.#turns.take(async () => {
      if (!this.#removed) return await work()
      throw new Fault(SERVER_UNKNOWN, `server ${this.id}`, { server: this.id })
    })
  }
}
