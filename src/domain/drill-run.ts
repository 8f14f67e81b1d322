import {
  EMPTY_PLAN,
  hasSettled,
  newRun,
  plannedOf,
  type RecoveryPlan,
  type Run,
  type ServerState,
} from './recovery-plan.ts'

/**
 * The servers of a drill come up in the order of the recovery plan of their group, under the rules of recovery-plan.ts, but for what a
 * rehearsal must not do: nobody is there to end a pause, so it is left out, and scripts act on what is outside the drill, so none is run.
 *
 *     waiting ──► starting ──► probing ──► ready
 *        │            └───────────┴──────► not_ready
 *        └──► skipped
 */
export type DrillServerState = Extract<
  ServerState,
  'waiting' | 'starting' | 'probing' | 'ready' | 'not_ready' | 'skipped'
>

export const DRILL_SERVER_MOVES: Record<DrillServerState, readonly DrillServerState[]> = {
  waiting: ['starting', 'skipped'],
  starting: ['probing', 'not_ready'],
  probing: ['ready', 'not_ready'],
  ready: [],
  not_ready: [],
  skipped: [],
}

/** A plan as a drill follows it. A server that an operator would be asked about holds nobody up. */
export function rehearsed<Probe>(plan: RecoveryPlan<Probe>): RecoveryPlan<Probe> {
  const instances = Object.entries(plan.instances).map(([id, one]) => [
    id,
    {
      ...one,
      notReady: one.notReady === 'pause' ? ('go_on' as const) : one.notReady,
      scriptBefore: null,
      scriptAfter: null,
    },
  ])
  return {
    waves: plan.waves.map((wave) => ({ ...wave, pause: null })),
    instances: Object.fromEntries(instances),
  }
}

/** What of a plan a drill leaves out, for its report. */
export function leftOut(plan: RecoveryPlan): { scripts: string[]; pauses: number } {
  const scripts = Object.values(plan.instances).flatMap(({ scriptBefore, scriptAfter }) =>
    [scriptBefore?.script ?? [], scriptAfter?.script ?? []].flat(),
  )
  return {
    scripts: [...new Set(scripts)].sort(),
    pauses: plan.waves.filter(({ pause }) => pause !== null).length,
  }
}

/** Where the run of a drill stands. `plan` is a rehearsed one. */
export function drillRun(
  plan: RecoveryPlan | null,
  servers: readonly { readonly instance: string; readonly state: DrillServerState }[],
): Run {
  const run = newRun(
    plan ?? EMPTY_PLAN,
    servers.map(({ instance }) => instance),
  )
  const states = new Map(servers.map(({ instance, state }) => [instance, state]))
  const now = run.servers.map((one) => ({ ...one, state: states.get(one.instance) ?? one.state }))
  const stopped = now.some(({ state, notReady }) => state === 'not_ready' && notReady === 'stop')
  const done = now.every(({ state }) => hasSettled(state))
  return { ...run, servers: now, state: stopped ? 'stopped' : done ? 'done' : 'running' }
}

export interface WantedProbe<Probe> {
  readonly probe: Probe
  /** From the start of the server. */
  readonly timeoutMs: number
}

/** What is looked at in a server: what the drill names for it, else its plan, else what the drill names for all, else whether it booted. */
export function probesOfServer<Probe>(
  wish: {
    readonly probes: Readonly<Record<string, readonly Probe[]>>
    readonly timeoutMs: number
  },
  plan: RecoveryPlan<Probe> | null,
  instance: string,
  boot: Probe,
): readonly WantedProbe<Probe>[] {
  const own = Object.hasOwn(wish.probes, instance) ? wish.probes[instance] : undefined
  const planned = plan === null ? [] : plannedOf(plan, instance).probes
  if (own === undefined && planned.length > 0) return planned
  const { timeoutMs } = wish
  return (own ?? wish.probes['*'] ?? [boot]).map((probe) => ({ probe, timeoutMs }))
}

/**
 * passed          every server came up, and everything that was asked of it succeeded; there is one server at least, and a question to each
 * probes_failed   it was made, and a server is not ready
 * nothing_proved  nothing failed, and nothing shows that the servers come up: there is none, or one was asked nothing
 */
export type DrillVerdict = 'passed' | 'probes_failed' | 'nothing_proved'

export function verdictOf(
  servers: readonly {
    readonly state: string
    readonly probes: readonly { readonly ok: boolean }[]
  }[],
): DrillVerdict {
  const failed = servers.some(
    ({ state, probes }) => state !== 'ready' || probes.some(({ ok }) => !ok),
  )
  if (failed) return 'probes_failed'
  const proved = servers.length > 0 && servers.every(({ probes }) => probes.length > 0)
  return proved ? 'passed' : 'nothing_proved'
}

/**
 * When a server began to run, as far as it is known: what its site's clock says, but never before the site was asked nor after it
 * answered. All are wall clock, ms, the first of another machine.
 */
export const startedAt = (saidMs: number, askedMs: number, answeredMs: number): number =>
  Math.round(Math.min(Math.max(saidMs, askedMs), Math.max(askedMs, answeredMs)))

/** From the beginning of a drill to the success of a probe, ms. */
export const afterBegin = (beganMs: number, startedMs: number, sinceStartMs: number): number =>
  Math.max(0, Math.round(startedMs + sinceStartMs - beganMs))
