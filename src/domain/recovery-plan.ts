import { assert, unreachable } from '#base/assert.ts'

/**
 * How the servers of a group come back after a switch: the plan that an operator wrote, and the run that follows it. Pure.
 *
 * A plan names waves, each a list of protected instances; those that it does not name come last. A wave begins when every server before
 * it has ended, one way or the other; inside a wave a server waits for those that it is `after`. What is to happen when a server does
 * not become ready is said for each of them.
 *
 *     waiting ──► preparing ──► starting ──► probing ──► finishing ──► ready
 *        │            └────────────┴────────────┴────────────┴───────► not_ready
 *        └──► skipped
 *
 *     running ◄──► paused        running, paused ──► stopped · aborted · superseded        running ──► done
 *
 * A run that was stopped, aborted or superseded starts nothing more; what is under way is brought to its end, for half a start helps nobody.
 * It never fails the switch that it follows.
 */
export type NotReady = 'go_on' | 'stop' | 'pause'

export interface PlannedScript {
  /** Name of an executable that the operator of the control plane has put there for the project. */
  readonly script: string
  readonly timeoutMs: number
}

export interface PlannedProbe<Probe = unknown> {
  readonly probe: Probe
  /** From the moment in which the server was started. */
  readonly timeoutMs: number
}

export interface PlannedInstance<Probe = unknown> {
  /** Instances that have to have ended before. */
  readonly after: readonly string[]
  readonly probes: readonly PlannedProbe<Probe>[]
  readonly notReady: NotReady
  readonly scriptBefore: PlannedScript | null
  readonly scriptAfter: PlannedScript | null
}

export interface PlannedWave {
  readonly instances: readonly string[]
  /** Somebody has to say that it may begin; what for. Null: it begins by itself. */
  readonly pause: string | null
}

export interface RecoveryPlan<Probe = unknown> {
  readonly waves: readonly PlannedWave[]
  /** By instance. One that is left out is started and asked nothing. */
  readonly instances: Readonly<Record<string, PlannedInstance<Probe>>>
}

export const EMPTY_PLAN: RecoveryPlan<never> = { waves: [], instances: {} }

const PLAIN: PlannedInstance<never> = {
  after: [],
  probes: [],
  notReady: 'go_on',
  scriptBefore: null,
  scriptAfter: null,
}

export const plannedOf = <Probe>(
  plan: RecoveryPlan<Probe>,
  instance: string,
): PlannedInstance<Probe> =>
  Object.hasOwn(plan.instances, instance) ? (plan.instances[instance] ?? PLAIN) : PLAIN

/** The wave of an instance, from 0; that of those which are not named comes after all others. */
export function waveOf(plan: RecoveryPlan, instance: string): number {
  const wave = plan.waves.findIndex(({ instances }) => instances.includes(instance))
  return wave < 0 ? plan.waves.length : wave
}

// ---------------------------------------------------------------- what makes a plan unfit

export type PlanFault =
  | { readonly code: 'INSTANCE_UNKNOWN'; readonly instance: string }
  | { readonly code: 'INSTANCE_TWICE'; readonly instance: string }
  /** Each waits for the next, and the last for the first. */
  | { readonly code: 'CYCLE'; readonly instances: readonly string[] }
  /** It waits for one whose wave comes later, so neither would ever start. */
  | { readonly code: 'LATER_WAVE'; readonly instance: string; readonly after: string }

/** What is wrong with the plan for a group of these instances; nothing: it can be followed to its end. */
export function planFaults(plan: RecoveryPlan, known: ReadonlySet<string>): readonly PlanFault[] {
  const faults: PlanFault[] = []
  const named = plan.waves.flatMap(({ instances }) => instances)
  const settings = Object.entries(plan.instances)
  const all = new Set([
    ...named,
    ...settings.flatMap(([instance, { after }]) => [instance, ...after]),
  ])
  for (const instance of all) {
    if (!known.has(instance)) faults.push({ code: 'INSTANCE_UNKNOWN', instance })
  }
  for (const instance of new Set(named.filter((one, index) => named.indexOf(one) !== index))) {
    faults.push({ code: 'INSTANCE_TWICE', instance })
  }
  for (const [instance, { after }] of settings) {
    for (const other of after) {
      if (waveOf(plan, other) <= waveOf(plan, instance)) continue
      faults.push({ code: 'LATER_WAVE', instance, after: other })
    }
  }
  const cycle = findCycle(plan)
  if (cycle !== null) faults.push({ code: 'CYCLE', instances: cycle })
  return faults
}

function findCycle(plan: RecoveryPlan): readonly string[] | null {
  const done = new Set<string>()
  const path: string[] = []
  const visit = (instance: string): readonly string[] | null => {
    if (done.has(instance)) return null
    const at = path.indexOf(instance)
    if (at >= 0) return path.slice(at)
    path.push(instance)
    for (const other of plannedOf(plan, instance).after) {
      const found = visit(other)
      if (found !== null) return found
    }
    path.pop()
    done.add(instance)
    return null
  }
  for (const instance of Object.keys(plan.instances)) {
    const found = visit(instance)
    if (found !== null) return found
  }
  return null
}

// ---------------------------------------------------------------- a run

export type ServerState =
  | 'waiting'
  | 'preparing'
  | 'starting'
  | 'probing'
  | 'finishing'
  | 'ready'
  | 'not_ready'
  | 'skipped'

export const SERVER_RECOVERY_MOVES: Record<ServerState, readonly ServerState[]> = {
  waiting: ['preparing', 'skipped', 'not_ready'],
  preparing: ['starting', 'not_ready'],
  starting: ['probing', 'not_ready'],
  probing: ['finishing', 'not_ready'],
  finishing: ['ready', 'not_ready'],
  ready: [],
  not_ready: [],
  skipped: [],
}

export type RunState = 'running' | 'paused' | 'stopped' | 'aborted' | 'superseded' | 'done'

export const RUN_MOVES: Record<RunState, readonly RunState[]> = {
  running: ['paused', 'stopped', 'aborted', 'superseded', 'done'],
  paused: ['running', 'stopped', 'aborted', 'superseded', 'done'],
  stopped: [],
  aborted: [],
  superseded: [],
  done: [],
}

/** What a paused run waits for. */
export type Pause =
  | { readonly kind: 'planned'; readonly wave: number; readonly text: string }
  | { readonly kind: 'not_ready'; readonly instance: string }

export interface RunServer {
  readonly instance: string
  readonly wave: number
  /** Those of the same run only. */
  readonly after: readonly string[]
  readonly notReady: NotReady
  readonly state: ServerState
}

export interface Run {
  readonly state: RunState
  /** Not empty while paused. */
  readonly pauses: readonly Pause[]
  /** Waves whose pause somebody has ended. */
  readonly passed: readonly number[]
  readonly waves: readonly PlannedWave[]
  readonly servers: readonly RunServer[]
}

/** The servers of these instances as the rules see them. */
export const serversOf = (
  plan: RecoveryPlan,
  instances: readonly { readonly instance: string; readonly state: ServerState }[],
): readonly RunServer[] => {
  const present = new Set(instances.map(({ instance }) => instance))
  return instances.map(({ instance, state }) => {
    const { after, notReady } = plannedOf(plan, instance)
    const wave = waveOf(plan, instance)
    // One that has left the group since holds nobody up.
    return { instance, wave, after: after.filter((other) => present.has(other)), notReady, state }
  })
}

/** The run of a plan over these instances, in the order in which they start when nothing holds them up. */
export function newRun(plan: RecoveryPlan, instances: readonly string[]): Run {
  const waiting = instances.map((instance) => ({ instance, state: 'waiting' as const }))
  const servers = serversOf(plan, waiting).toSorted((a, b) => a.wave - b.wave)
  return settle({ state: 'running', pauses: [], passed: [], waves: plan.waves, servers })
}

const SETTLED: ReadonlySet<ServerState> = new Set(['ready', 'not_ready', 'skipped'])
const RUN_ENDED: ReadonlySet<RunState> = new Set(['stopped', 'aborted', 'superseded', 'done'])

export const hasSettled = (state: ServerState): boolean => SETTLED.has(state)
export const hasEnded = (state: RunState): boolean => RUN_ENDED.has(state)

/**
 * Servers of one run on their way at the same time; more wait for one to end. Booting takes all that a host has: more at once make none
 * of them ready sooner.
 */
export const AT_ONCE = 16

export type Turn = 'go' | 'wait' | 'skip'

/** Whether a waiting server may begin now. */
export function turnOf(run: Run, instance: string): Turn {
  const server = run.servers.find((one) => one.instance === instance)
  assert(server?.state === 'waiting', 'a server waits for its turn')
  if (RUN_ENDED.has(run.state)) return 'skip'
  if (run.state === 'paused') return 'wait'
  const state = new Map(run.servers.map((one) => [one.instance, one.state]))
  const held =
    run.servers.some((one) => one.wave < server.wave && !SETTLED.has(one.state)) ||
    server.after.some((other) => !SETTLED.has(state.get(other) ?? 'skipped')) ||
    underWay(run) >= AT_ONCE
  return held ? 'wait' : 'go'
}

const underWay = ({ servers }: Run): number =>
  servers.filter(({ state }) => state !== 'waiting' && !SETTLED.has(state)).length

/** The waiting servers whose turn it is, not more than may go at once. */
export function whoseTurn(run: Run): readonly string[] {
  const waiting = run.servers.filter(({ state }) => state === 'waiting')
  if (RUN_ENDED.has(run.state)) return waiting.map(({ instance }) => instance)
  return waiting
    .filter(({ instance }) => turnOf(run, instance) === 'go')
    .slice(0, AT_ONCE - underWay(run))
    .map(({ instance }) => instance)
}

export type RunEvent =
  | { readonly kind: 'moved'; readonly instance: string; readonly to: ServerState }
  | { readonly kind: 'continue' }
  | { readonly kind: 'abort' }
  /** The group was switched again: the servers of this run are production no more. */
  | { readonly kind: 'supersede' }

export type RunRefusal = 'RUN_ENDED' | 'RUN_NOT_PAUSED'
export type RunDecision =
  | { readonly ok: true; readonly run: Run }
  | { readonly ok: false; readonly refusal: RunRefusal }

export function decideRun(run: Run, event: RunEvent): RunDecision {
  switch (event.kind) {
    case 'moved':
      return { ok: true, run: settle(moved(run, event.instance, event.to)) }
    case 'continue': {
      if (RUN_ENDED.has(run.state)) return { ok: false, refusal: 'RUN_ENDED' }
      if (run.state !== 'paused') return { ok: false, refusal: 'RUN_NOT_PAUSED' }
      const passed = run.pauses.flatMap((pause) => (pause.kind === 'planned' ? [pause.wave] : []))
      const going = { ...run, state: 'running' as const, pauses: [] }
      return { ok: true, run: settle({ ...going, passed: [...run.passed, ...passed] }) }
    }
    case 'abort':
    case 'supersede':
      if (RUN_ENDED.has(run.state)) return { ok: false, refusal: 'RUN_ENDED' }
      return {
        ok: true,
        run: { ...run, pauses: [], state: event.kind === 'abort' ? 'aborted' : 'superseded' },
      }
    default:
      return unreachable(event)
  }
}

function moved(run: Run, instance: string, to: ServerState): Run {
  const server = run.servers.find((one) => one.instance === instance)
  assert(server !== undefined, 'a server that moves is one of the run')
  assert(
    SERVER_RECOVERY_MOVES[server.state].includes(to),
    `a server does not move from ${server.state} to ${to}`,
  )
  const servers = run.servers.map((one) =>
    one.instance === instance ? { ...one, state: to } : one,
  )
  const next = { ...run, servers }
  if (to !== 'not_ready' || RUN_ENDED.has(run.state)) return next
  switch (server.notReady) {
    case 'go_on':
      return next
    case 'stop':
      return { ...next, state: 'stopped', pauses: [] }
    case 'pause':
      // The last one holds nobody up.
      if (servers.every(({ state }) => SETTLED.has(state))) return next
      return { ...next, state: 'paused', pauses: [...run.pauses, { kind: 'not_ready', instance }] }
    default:
      return unreachable(server.notReady)
  }
}

/** What follows by itself: the end, or the pause before the wave whose turn it is. */
function settle(run: Run): Run {
  if (RUN_ENDED.has(run.state)) return run
  const first = run.servers.find(({ state }) => !SETTLED.has(state))
  if (first === undefined) return { ...run, state: 'done', pauses: [] }
  if (run.state === 'paused') return run
  const text = run.waves[first.wave]?.pause ?? null
  const begun = run.servers.some(({ wave, state }) => wave === first.wave && state !== 'waiting')
  if (text === null || begun || run.passed.includes(first.wave)) return run
  return { ...run, state: 'paused', pauses: [{ kind: 'planned', wave: first.wave, text }] }
}
