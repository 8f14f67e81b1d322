import { assert } from '#base/assert.ts'
import type { Clock } from '#base/clock.ts'
import { Fault, fault } from '#base/fault.ts'
import type { Child, ChildExit } from '#base/system/process.ts'
import type { PartSpec } from './layout.ts'
import { afterDeath, RUNNING_LIMITS, STARTING_LIMITS } from './restart.ts'

/* Keeps the parts of the embedded system running.
 *
 *              spawn                ready line
 *     waiting ───────► starting ─────────────────► ready
 *        ▲                │ death                    │ death
 *        └── back-off ────┴──────────────────────────┤
 *                         │ crash loop: failed       │ killed and not to be restarted: down
 *     any ── site kill / site stop ──► down ── site start ──► starting
 *     any ── stop() ──► stopping ──► down
 *
 * The pid file exists exactly while the process may run: written right after the spawn, removed when the death was seen.
 * With `restartSites` false (--no-restart) a part of a site that dies stays down; a control plane always comes back.
 */

export type PartState = 'waiting' | 'starting' | 'ready' | 'down' | 'failed' | 'stopping'

/** Every legal change of state; anything else is a mistake of the supervisor itself. */
export const PART_MOVES: Record<PartState, readonly PartState[]> = {
  waiting: ['starting', 'down'],
  starting: ['ready', 'waiting', 'failed', 'down', 'stopping'],
  ready: ['waiting', 'failed', 'down', 'stopping'],
  down: ['starting'],
  failed: ['starting', 'down'],
  stopping: ['down'],
}

export const PART_FAILED = fault({
  code: 'PART_FAILED',
  retry: 'later',
  text: 'A part of the system does not start.',
  hint: 'Its log says why; correct that and start again.',
})

export const SITE_UNKNOWN = fault({
  code: 'SITE_UNKNOWN',
  retry: 'never',
  text: 'There is no such site here.',
  hint: '`holdfast status --data DIR` lists the parts and their sites.',
})

export type SupervisorEvent =
  | { readonly event: 'part_started'; readonly part: string; readonly pid: number }
  | { readonly event: 'part_ready'; readonly part: string; readonly pid: number }
  | {
      readonly event: 'part_died'
      readonly part: string
      readonly how: string
      /** Milliseconds until it is started again; null when it is not. */
      readonly restart_in_ms: number | null
    }
  | { readonly event: 'part_failed'; readonly part: string; readonly how: string }
  | { readonly event: 'part_slow'; readonly part: string; readonly signal: string }

export interface SupervisorTools {
  readonly clock: Clock
  readonly restartSites: boolean
  spawn(part: PartSpec): Child
  writePid(part: PartSpec, pid: number): void
  removePid(part: PartSpec): void
  /** SIGKILL to the guests of a site; their names, when they are gone. */
  killGuests(site: string): Promise<readonly string[]>
  /** The end of a part's log, for messages. */
  logTail(part: PartSpec): Promise<string>
  tell(event: SupervisorEvent): void
}

export interface PartStatus {
  readonly part: string
  readonly kind: string
  readonly site: string | null
  readonly state: PartState
  readonly pid: number | null
  /** Deaths seen since the supervisor started. */
  readonly deaths: number
  readonly ready_for_ms: number | null
}

/** After SIGTERM a part has this long; then it is killed, which by design loses nothing acknowledged. */
export const STOP_GRACE_MS = 8_000

interface Part {
  readonly spec: PartSpec
  state: PartState
  child: Child | undefined
  failures: number
  deaths: number
  readySinceMs: number
  /** How the present process's death is to be taken when it was asked for. */
  wanted: 'running' | 'down'
  cancelTimer: (() => void) | undefined
  watchers: Set<(state: PartState) => void>
}

export class Supervisor {
  readonly #tools: SupervisorTools
  readonly #parts: readonly Part[]
  /** True until every part has answered once. */
  #starting = true
  #stopping = false

  constructor(specs: readonly PartSpec[], tools: SupervisorTools) {
    this.#tools = tools
    this.#parts = specs.map((spec) => ({
      spec,
      state: 'down',
      child: undefined,
      failures: 0,
      deaths: 0,
      readySinceMs: 0,
      wanted: 'down',
      cancelTimer: undefined,
      watchers: new Set(),
    }))
  }

  /** Starts every part; settles when all of them answer, or with PART_FAILED when one does not get up. */
  async start(): Promise<void> {
    await this.#startParts(this.#parts)
    this.#starting = false
  }

  /** SIGKILL to every process of a site, guests included; they stay down until `startSite`. Settles when they are gone. */
  async killSite(site: string): Promise<readonly string[]> {
    const down = this.#bringDown(this.#siteParts(site), 'SIGKILL')
    const ended = (await Promise.all([down, this.#tools.killGuests(site)])).flat()
    // One that was being started when its agent died.
    return [...ended, ...(await this.#tools.killGuests(site))]
  }

  /** SIGTERM to every process of a site, SIGKILL after the grace period; they stay down until `startSite`. The agent powers its guests
   *  down; those that it left, or that had no agent any more, are killed. */
  async stopSite(site: string): Promise<readonly string[]> {
    const parts = await this.#bringDown(this.#siteParts(site), 'SIGTERM')
    return [...parts, ...(await this.#tools.killGuests(site))]
  }

  /** Starts the parts of a site that do not run; settles when all of them answer. */
  async startSite(site: string): Promise<readonly string[]> {
    const parts = this.#siteParts(site)
    await this.#startParts(parts)
    return parts.map((part) => part.spec.name)
  }

  /** Stops everything: first the agents, which still need their control plane to leave properly, then guests they left, then the rest. */
  async stop(): Promise<void> {
    this.#stopping = true
    await this.#bringDown(
      this.#parts.filter((part) => part.spec.kind === 'agent'),
      'SIGTERM',
    )
    const sites = new Set(this.#parts.flatMap(({ spec }) => spec.site ?? []))
    await Promise.all([...sites].map((site) => this.#tools.killGuests(site)))
    await this.#bringDown(
      this.#parts.filter((part) => part.spec.kind !== 'agent'),
      'SIGTERM',
    )
  }

  status(): PartStatus[] {
    return this.#parts.map((part) => ({
      part: part.spec.name,
      kind: part.spec.kind,
      site: part.spec.site ?? null,
      state: part.state,
      pid: part.child?.pid ?? null,
      deaths: part.deaths,
      ready_for_ms:
        part.state === 'ready' ? Math.round(this.#tools.clock.bootMs() - part.readySinceMs) : null,
    }))
  }

  #siteParts(site: string): Part[] {
    const parts = this.#parts.filter((part) => part.spec.site === site)
    if (parts.length === 0) {
      const known = [...new Set(this.#parts.map((part) => part.spec.site))].filter(Boolean)
      throw new Fault(SITE_UNKNOWN, `site ${site} (there are ${known.join(', ')})`, { site })
    }
    return parts
  }

  async #startParts(parts: readonly Part[]): Promise<void> {
    const ready = parts.map((part) => this.#whenSettled(part))
    for (const part of parts) {
      if (part.state === 'down' || part.state === 'failed') {
        part.failures = 0
        this.#spawn(part)
      } else if (part.state === 'ready') this.#move(part, 'ready')
    }
    const states = await Promise.all(ready)
    const failed = parts.find((_, index) => states[index] !== 'ready')
    if (failed !== undefined && !this.#stopping) {
      const { name, logFile } = failed.spec
      const tail = await this.#tools.logTail(failed.spec)
      const doing = `starting ${name}, whose log ${logFile} ends with:\n${tail}\n`
      throw new Fault(PART_FAILED, doing, { part: name, log: logFile })
    }
  }

  /** Settles at the next of: ready, failed, down. */
  #whenSettled(part: Part): Promise<PartState> {
    return new Promise((resolve) => {
      const watch = (state: PartState) => {
        if (state !== 'ready' && state !== 'failed' && state !== 'down') return
        part.watchers.delete(watch)
        resolve(state)
      }
      part.watchers.add(watch)
    })
  }

  #spawn(part: Part): void {
    part.wanted = 'running'
    this.#move(part, 'starting')
    const child = this.#tools.spawn(part.spec)
    part.child = child
    if (child.pid !== undefined) {
      this.#tools.writePid(part.spec, child.pid)
      this.#tools.tell({ event: 'part_started', part: part.spec.name, pid: child.pid })
    }
    child.onLine((line) => {
      if (part.child !== child || part.state !== 'starting' || !isReadyLine(line)) return
      part.readySinceMs = this.#tools.clock.bootMs()
      this.#move(part, 'ready')
      this.#tools.tell({ event: 'part_ready', part: part.spec.name, pid: child.pid ?? 0 })
    })
    child.onExit((exit) => this.#died(part, child, exit))
  }

  #died(part: Part, child: Child, exit: ChildExit): void {
    assert(part.child === child, 'a part has one process at a time')
    const { clock } = this.#tools
    const wasReady = part.state === 'ready'
    const how = describeExit(exit)
    part.child = undefined
    part.deaths++
    part.cancelTimer?.()
    part.cancelTimer = undefined
    this.#tools.removePid(part.spec)

    const stays = part.spec.kind === 'agent' && !this.#tools.restartSites && !this.#starting
    if (part.wanted === 'down' || this.#stopping || stays) {
      this.#move(part, 'down')
      this.#tools.tell({ event: 'part_died', part: part.spec.name, how, restart_in_ms: null })
      return
    }
    const verdict = afterDeath(
      part.failures,
      {
        wasReady,
        readyForMs: wasReady ? clock.bootMs() - part.readySinceMs : 0,
        killed: exit.signal === 'SIGKILL',
      },
      this.#starting ? STARTING_LIMITS : RUNNING_LIMITS,
    )
    part.failures = verdict.failures
    if (verdict.kind === 'give_up') {
      this.#tools.tell({ event: 'part_failed', part: part.spec.name, how })
      this.#move(part, 'failed')
      return
    }
    this.#tools.tell({
      event: 'part_died',
      part: part.spec.name,
      how,
      restart_in_ms: verdict.delayMs,
    })
    this.#move(part, 'waiting')
    part.cancelTimer = clock.after(verdict.delayMs, () => {
      part.cancelTimer = undefined
      this.#spawn(part)
    })
  }

  async #bringDown(parts: readonly Part[], signal: 'SIGTERM' | 'SIGKILL'): Promise<string[]> {
    const running = parts.filter((part) => part.state !== 'down')
    const gone = running.map((part) => this.#whenSettled(part))
    for (const part of running) {
      part.wanted = 'down'
      part.cancelTimer?.()
      part.cancelTimer = undefined
      if (part.child === undefined) {
        this.#move(part, 'down')
        continue
      }
      if (part.state !== 'stopping') this.#move(part, 'stopping')
      part.child.signal(signal)
      if (signal === 'SIGTERM') {
        part.cancelTimer = this.#tools.clock.after(STOP_GRACE_MS, () => {
          this.#tools.tell({ event: 'part_slow', part: part.spec.name, signal: 'SIGKILL' })
          part.child?.signal('SIGKILL')
        })
      }
    }
    await Promise.all(gone)
    return parts.map((part) => part.spec.name)
  }

  #move(part: Part, to: PartState): void {
    assert(
      part.state === to || PART_MOVES[part.state].includes(to),
      `part ${part.spec.name} cannot go from ${part.state} to ${to}`,
    )
    part.state = to
    for (const watch of part.watchers) watch(to)
  }
}

function isReadyLine(line: string): boolean {
  if (!line.startsWith('{')) return false
  try {
    const message: unknown = JSON.parse(line)
    return (
      typeof message === 'object' &&
      message !== null &&
      'event' in message &&
      message.event === 'ready'
    )
  } catch (error) {
    assert(error instanceof SyntaxError, 'parsing fails with a syntax error')
    return false
  }
}

function describeExit(exit: ChildExit): string {
  if (exit.failure !== undefined) return exit.failure
  return exit.signal === null ? `exit code ${exit.code}` : `signal ${exit.signal}`
}
