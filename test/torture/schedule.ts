import { Random } from '../../sim/world/random.ts'

/* The plan of a torture run: rounds, each made from the seed and its own number alone, so that `--seed S --from N` replays any
 * round without the ones before it. Faults name roles (production, dr), which stand for sites when they are carried out.
 *
 *     round:  fault ─► fault ─► ... (they overlap) ─► what the operator does meanwhile ─► heal ─► settle ─► audit
 */

export type Side = 'production' | 'dr'
export type Target = Side | 'control'
export type Pair = 'sites' | 'production-control' | 'dr-control'
export type Direction = 'both' | 'forth' | 'back'

export type Fault =
  /** SIGKILL; started again after `forMs`. */
  | { readonly kind: 'kill'; readonly target: Target; readonly forMs: number }
  /** SIGKILL of several parts in the same moment. */
  | { readonly kind: 'kill_together'; readonly targets: readonly Target[]; readonly forMs: number }
  /** SIGSTOP, then SIGCONT. */
  | { readonly kind: 'pause'; readonly target: Target; readonly forMs: number }
  | {
      readonly kind: 'cut'
      readonly pair: Pair
      readonly direction: Direction
      readonly forMs: number
    }
  /** The machine is cut from both others. */
  | { readonly kind: 'isolate'; readonly target: Target; readonly forMs: number }
  /** Short cuts, one after the other. */
  | { readonly kind: 'flap'; readonly pair: Pair; readonly times: number; readonly everyMs: number }
  | {
      readonly kind: 'reset'
      readonly pair: Pair
      readonly times: number
      readonly everyMs: number
    }
  | { readonly kind: 'fill_disk'; readonly side: Side; readonly forMs: number }
  /** The machines lose their power, and with it what was not durable; on again after `forMs`. */
  | { readonly kind: 'power'; readonly sides: readonly Side[]; readonly forMs: number }
  /** Production and control plane are gone together (`how`), and the operator breaks the glass at the DR site. */
  | { readonly kind: 'break_glass'; readonly how: 'kill' | 'isolate'; readonly forMs: number }
  /** The control plane dies and comes back with the state of the last settled moment but one. */
  | { readonly kind: 'old_state' }

export type FaultKind = Fault['kind']

/** What the operator does while the faults last. */
export type Act = 'none' | 'reverse' | 'failover' | 'failover_force'

export type Mode = 'witness' | 'static-priority'

export interface Round {
  readonly number: number
  /** How the group is arbitrated; the production site of the moment is preferred. */
  readonly mode: Mode
  /** Each begins `afterMs` after the one before. */
  readonly faults: readonly { readonly afterMs: number; readonly fault: Fault }[]
  readonly act: Act
  /** After the last fault began. */
  readonly actAfterMs: number
}

/** In the order in which the first rounds of every run show them. */
export const FAULT_KINDS: readonly FaultKind[] = [
  'kill',
  'cut',
  'pause',
  'reset',
  'isolate',
  'kill_together',
  'fill_disk',
  'flap',
  'old_state',
  'break_glass',
]

/** On disks that can lose their power. */
export const POWER_KINDS: readonly FaultKind[] = [
  'power',
  'kill',
  'power',
  'cut',
  'power',
  'pause',
  'power',
  'fill_disk',
]

const TARGETS: readonly Target[] = ['production', 'dr', 'control']
const PAIRS: readonly Pair[] = ['sites', 'production-control', 'dr-control']
const DIRECTIONS: readonly Direction[] = ['both', 'forth', 'back']

export interface PlanOptions {
  readonly seed: number
  /** Kinds that are used. */
  readonly kinds: readonly FaultKind[]
  /** Longest that a fault lasts. Longer than lease and contact, or the interesting things never happen. */
  readonly longMs: number
}

export function planRound({ seed, kinds, longMs }: PlanOptions, number: number): Round {
  const random = new Random(seed * 1_000_003 + number)
  const mode = random.chance(0.75) ? 'witness' : 'static-priority'
  const faults: { afterMs: number; fault: Fault }[] = []
  const count = random.chance(0.5) ? 1 : random.chance(0.6) ? 2 : 3
  for (let index = 0; index < count; index++) {
    // The first fault of round n is of the n-th kind, so that a run of as many rounds has met every kind.
    const kind = index === 0 ? (kinds[number % kinds.length] ?? 'kill') : random.pick(kinds)
    if (index > 0 && ALONE_KINDS.has(kind)) continue
    const fault = makeFault(kind, random, longMs)
    faults.push({
      afterMs: index === 0 ? 0 : Math.round(random.between(0, longMs / 3)),
      fault,
    })
    // What is owed after these is plain only when nothing else happens meanwhile.
    if (losesBoth(fault) || kind === 'break_glass') {
      return { number, mode: 'witness', faults, act: 'none', actAfterMs: 0 }
    }
  }
  return {
    number,
    mode,
    faults,
    act: chooseAct(
      faults.map(({ fault }) => fault),
      random,
    ),
    actAfterMs: Math.round(random.between(50, longMs / 2)),
  }
}

/** Only as the first fault of a round. */
const ALONE_KINDS: ReadonlySet<FaultKind> = new Set(['old_state', 'power', 'break_glass'])

/** True when both copies lose what was not flushed. */
export const losesBoth = (fault: Fault): boolean => fault.kind === 'power' && fault.sides.length > 1

function makeFault(kind: FaultKind, random: Random, longMs: number): Fault {
  // Both sides of every limit: shorter than the silence that anything notices, and longer than the lease.
  const forMs = Math.round(
    random.chance(0.3) ? random.between(100, 1_000) : random.between(1_000, longMs),
  )
  switch (kind) {
    case 'kill':
    case 'pause':
    case 'isolate':
      return { kind, target: random.pick(TARGETS), forMs }
    case 'kill_together':
      return {
        kind,
        targets: random.pick([
          ['production', 'dr'],
          ['production', 'control'],
          ['dr', 'control'],
          ['production', 'dr', 'control'],
        ] as const),
        forMs: Math.round(random.between(100, 2_000)),
      }
    case 'cut':
      return { kind, pair: random.pick(PAIRS), direction: random.pick(DIRECTIONS), forMs }
    case 'flap':
    case 'reset':
      return {
        kind,
        pair: random.chance(0.7) ? 'sites' : random.pick(PAIRS),
        times: 2 + random.below(5),
        everyMs: Math.round(random.between(100, 700)),
      }
    case 'fill_disk':
      return { kind, side: random.chance(0.5) ? 'dr' : 'production', forMs: Math.round(forMs / 2) }
    case 'power':
      return {
        kind,
        sides: random.pick([['production'], ['dr'], ['production', 'dr']] as const),
        forMs: Math.round(random.between(100, longMs / 2)),
      }
    case 'break_glass':
      return {
        kind,
        how: random.pick(['kill', 'isolate'] as const),
        forMs: Math.round(random.between(1_000, longMs)),
      }
    case 'old_state':
      return { kind }
    default:
      return kind satisfies never
  }
}

/** An operator fails over when production is in trouble, and switches by plan when nothing seems to be wrong. */
function chooseAct(faults: readonly Fault[], random: Random): Act {
  const productionInTrouble = faults.some(
    (fault) =>
      ((fault.kind === 'kill' || fault.kind === 'pause' || fault.kind === 'isolate') &&
        fault.target === 'production' &&
        fault.forMs > 1_000) ||
      (fault.kind === 'kill_together' && fault.targets.includes('production')) ||
      (fault.kind === 'fill_disk' && fault.side === 'production') ||
      (fault.kind === 'power' && fault.sides.includes('production')),
  )
  if (faults.some(({ kind }) => kind === 'old_state')) return 'none'
  const split = faults.some(
    (fault) => fault.kind === 'cut' && fault.pair === 'sites' && fault.forMs > 3_000,
  )
  if (split) return random.pick(['failover_force', 'failover_force', 'none'] as const)
  if (productionInTrouble)
    return random.pick(['failover', 'failover', 'failover_force', 'none'] as const)
  return random.pick(['none', 'none', 'none', 'reverse', 'reverse', 'failover_force'] as const)
}

export function tell(fault: Fault): string {
  switch (fault.kind) {
    case 'kill':
    case 'pause':
    case 'isolate':
      return `${fault.kind} ${fault.target} for ${fault.forMs} ms`
    case 'kill_together':
      return `kill ${fault.targets.join(', ')} together for ${fault.forMs} ms`
    case 'cut':
      return `cut ${fault.pair} (${fault.direction}) for ${fault.forMs} ms`
    case 'flap':
    case 'reset':
      return `${fault.kind} ${fault.pair} ${fault.times} times, every ${fault.everyMs} ms`
    case 'fill_disk':
      return `fill the disk of ${fault.side} for ${fault.forMs} ms`
    case 'power':
      return `power of ${fault.sides.join(' and ')} lost for ${fault.forMs} ms`
    case 'break_glass':
      return `${fault.how} production and control plane for ${fault.forMs} ms, and break the glass`
    case 'old_state':
      return 'the control plane comes back with an old state'
    default:
      return fault satisfies never
  }
}
