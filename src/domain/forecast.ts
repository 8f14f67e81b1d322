/**
 * How long an action on a group is going to take, out of what the same action took here before. Pure.
 *
 * A forecast has parts. What has to be waited for is known but for a constant that the control plane does not know (how long agents wait for
 * a silent peer, what a witness adds to a lease): it is assumed as long as nobody has waited for it here, and learned from then on, each
 * time from how wrong the last word was. What is done besides is measured. Of everything measured there are two numbers: the median, which is
 * the forecast, and the ninth decile, which says how far off that may be.
 */
export const GROUP_ACTIONS = [
  'start',
  'reprotect',
  'stop',
  'reverse',
  'failover',
  'delete',
  'drill',
] as const
export type GroupAction = (typeof GROUP_ACTIONS)[number]

export type WaitName = 'lease_wait' | 'contact_wait'

export interface TimePart {
  readonly name: WaitName | 'switch' | 'servers' | 'copy'
  readonly ms: number
  /** Nine of ten were done in so many ms; null: nobody has measured it here. */
  readonly p90Ms: number | null
  /** known: by the record or the plan · measured: of earlier runs · assumed: nobody has measured it here */
  readonly basis: 'known' | 'measured' | 'assumed'
  /** Of a wait: what was taken for its constant, ms. Kept with the operation: what it took says what the constant is. */
  readonly constantMs?: number
}

/** Two numbers about the same thing, ms. */
export interface Measure {
  readonly medianMs: number
  readonly p90Ms: number
}

/** One earlier run of the same action, under like circumstances. */
export interface Sample {
  /** Time in steps that may wait for a silent site, ms. */
  readonly waitingMs: number
  /** Time in all other steps, but for those that start servers, ms. */
  readonly workingMs: number
  /** What was foretold of its waits. */
  readonly waits: readonly {
    readonly name: WaitName
    readonly ms: number
    readonly constantMs: number
  }[]
}

/** Of the newest runs; older ones may be of another machine, or of another release. */
export const SAMPLES_MAX = 20

/**
 * Defaults of the parts that know better: how long after the last word of its peer a writer may still answer (agents), and what a witness
 * adds to a lease at most. Used until somebody has waited for one.
 */
export const FIRST_CONSTANT_MS: Readonly<Record<WaitName, number>> = {
  contact_wait: 4_000,
  lease_wait: 500,
}
/** The waiting steps when there is nothing to wait for, ms; until it was measured. */
const FIRST_STEADY_MS = 100

/** Null: of nothing. */
export function measure(all: readonly number[]): Measure | null {
  if (all.length === 0) return null
  const sorted = all.toSorted((a, b) => a - b)
  const at = (share: number) => sorted[Math.ceil(share * sorted.length) - 1] ?? 0
  return { medianMs: at(0.5), p90Ms: at(0.9) }
}

/**
 * The constant behind a wait. `steadyMs`: the waiting steps of runs that had nothing to wait for. A run teaches something about the
 * constant if it was going to wait for that and for nothing else; one that came so late that nothing was left to wait for does not.
 */
export function learnConstant(
  name: WaitName,
  samples: readonly Sample[],
  steadyMs: number | null,
): Measure | null {
  const steady = steadyMs ?? FIRST_STEADY_MS
  return measure(
    samples.flatMap(({ waitingMs, waits }) => {
      const [wait, ...others] = waits.filter(({ ms }) => ms > 0)
      if (wait?.name !== name || others.length > 0) return []
      return [Math.max(0, wait.constantMs + waitingMs - steady - wait.ms)]
    }),
  )
}

/** What is left of a wait that began `sinceMs` ago, or, for a lease, that ends in `-sinceMs` but for the constant. */
export function waitPart(name: WaitName, sinceMs: number, learned: Measure | null): TimePart {
  const constantMs = Math.round(learned?.medianMs ?? FIRST_CONSTANT_MS[name])
  const left = (constant: number) => Math.max(0, Math.ceil(constant - sinceMs))
  return {
    name,
    ms: left(constantMs),
    p90Ms: learned === null ? null : left(learned.p90Ms),
    basis: learned === null ? 'assumed' : 'measured',
    constantMs,
  }
}

/** Everything that is done besides waiting and starting servers; null: nobody knows. */
export function switchPart(
  samples: readonly Sample[],
  steadyMs: number | null,
  assumedMs: number | null,
): TimePart | null {
  // Of a run that waited, only a part of the waiting steps was work.
  const work = measure(
    samples.map(({ waitingMs, workingMs, waits }) =>
      waits.some(({ ms }) => ms > 0)
        ? workingMs + Math.min(waitingMs, steadyMs ?? FIRST_STEADY_MS)
        : workingMs + waitingMs,
    ),
  )
  if (work !== null) {
    return { name: 'switch', ms: work.medianMs, p90Ms: work.p90Ms, basis: 'measured' }
  }
  if (assumedMs === null) return null
  return { name: 'switch', ms: assumedMs, p90Ms: null, basis: 'assumed' }
}

export interface Forecast {
  /** Until the job has ended; null: nobody can say. */
  readonly totalMs: number | null
  /** Not more than this in about nine of ten; null: too little was measured here. */
  readonly p90Ms: number | null
  readonly parts: readonly TimePart[]
  /** What goes on when the job has ended: the copy, or the servers of a recovery plan. */
  readonly afterwards: readonly TimePart[]
}

/** `switched` null: what the action itself takes is not known, so neither is the sum. */
export function sumUp(
  waits: readonly TimePart[],
  switched: TimePart | null,
  servers: TimePart | null,
  afterwards: readonly TimePart[],
): Forecast {
  const parts = [
    ...waits,
    ...(switched === null ? [] : [switched]),
    ...(servers === null ? [] : [servers]),
  ]
  const unmeasured = parts.some(({ p90Ms, basis }) => p90Ms === null && basis !== 'known')
  const sum = (msOf: (part: TimePart) => number) => parts.reduce((all, one) => all + msOf(one), 0)
  return {
    totalMs: switched === null ? null : sum(({ ms }) => ms),
    // A sum of ninth deciles is more than the ninth decile of the sum: it errs to the side on which nobody is surprised.
    p90Ms: switched === null || unmeasured ? null : sum(({ ms, p90Ms }) => p90Ms ?? ms),
    parts,
    afterwards,
  }
}

/** Waves follow each other; inside one a server waits for those that it is after. Pauses are as long as they are. */
export function longestPath(
  servers: readonly {
    readonly instance: string
    readonly wave: number
    readonly after: readonly string[]
  }[],
  msOf: ReadonlyMap<string, number>,
): number {
  const byId = new Map(servers.map((one) => [one.instance, one]))
  const ends = new Map<string, number>()
  const beginOf = new Map<number, number>()
  const endOf = (instance: string): number => {
    const known = ends.get(instance)
    if (known !== undefined) return known
    const one = byId.get(instance)
    if (one === undefined) return 0
    const begin = Math.max(waveBegins(one.wave), ...one.after.map(endOf))
    const end = begin + (msOf.get(instance) ?? 0)
    ends.set(instance, end)
    return end
  }
  const waveBegins = (wave: number): number => {
    const known = beginOf.get(wave)
    if (known !== undefined) return known
    const before = servers.filter((one) => one.wave < wave).map(({ instance }) => endOf(instance))
    const begin = Math.max(0, ...before)
    beginOf.set(wave, begin)
    return begin
  }
  return Math.max(0, ...servers.map(({ instance }) => endOf(instance)))
}
