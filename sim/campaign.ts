import { closedRecord, decideOwnership, OWNERSHIP_MOVES } from '#domain/ownership.ts'
import type { ChangeKind, OwnershipRequest, OwnershipState } from '#domain/ownership.ts'
import { NEXT_PHASES } from '#agent/replication/phases.ts'
import { SELDOM } from './seldom.ts'
import { Coverage } from './world/coverage.ts'
import { FAULTS } from './world/faults.ts'
import type { Plan } from './world/plan.ts'
import { type Outcome, runSeed } from './world/run.ts'

/* Many seeds, and what they must have exercised together: every change of the ownership record that can be reached, every
 * legal move between phases of a session, every kind of fault. A run of fewer seeds than `COVERAGE_SEEDS_MIN` only reports.
 */

/** With fewer seeds than this the rarer moves may be missed by chance, so their absence is no failure. */
export const COVERAGE_SEEDS_MIN = 400

export interface Campaign {
  readonly seeds: number
  readonly firstSeed: number
  /** Outcomes that broke a promise, without their logs. */
  readonly broken: readonly Outcome[]
  readonly coverage: Coverage
  readonly missing: readonly string[]
  readonly events: number
  readonly virtualMs: number
}

export interface CampaignOptions {
  readonly firstSeed: number
  readonly seeds: number
  readonly plan?: Plan
  /** Ends the run after this many broken seeds. */
  readonly brokenMax?: number
  readonly onSeed?: (outcome: Outcome, done: number) => void
}

export function runCampaign(options: CampaignOptions): Campaign {
  const { firstSeed, seeds, plan, brokenMax = 5, onSeed } = options
  const coverage = new Coverage()
  const broken: Outcome[] = []
  let events = 0
  let virtualMs = 0
  let done = 0
  while (done < seeds && broken.length < brokenMax) {
    const outcome = runSeed(firstSeed + done, plan)
    done++
    coverage.add(outcome.coverage)
    events += outcome.events
    virtualMs += outcome.virtualMs
    if (outcome.broken !== null) broken.push(outcome)
    onSeed?.(outcome, done)
  }
  const missing = done >= COVERAGE_SEEDS_MIN ? coverage.missing(wantedCoverage()) : []
  return { seeds: done, firstSeed, broken, coverage, missing, events, virtualMs }
}

/** What every sufficiently long run must have exercised. */
export function wantedCoverage(): string[] {
  const moves = reachableMoves().map(({ kind, from }) => `move ${kind} from ${from}`)
  const phases = Object.entries(NEXT_PHASES).flatMap(([from, targets]) =>
    targets.map((to) => `phase ${from}>${to}`).filter((name) => !(name in SELDOM)),
  )
  return [
    ...moves.filter((name) => !(name in SELDOM)),
    ...phases,
    ...FAULTS.map((kind) => `fault ${kind}`),
    ...REFUSALS.map((refusal) => `refused ${refusal}`),
    ...EVENTS,
  ]
}

/** What the witness must have refused. (WITNESS_WAITING needs a restored database, which this world does not have.) */
const REFUSALS = [
  'failover LEASE_HELD',
  'failover PREFERRED_MAY_RUN',
  'open WRONG_STATE',
  'renew STALE_EPOCH',
  'rise STALE_EPOCH',
] as const

/** What must have happened besides. */
const EVENTS = [
  'answer preferred',
  'answer promoted',
  'answer beside break-glass',
  'break-glass ok',
  'copy all',
  'copy delta',
  'copy delta with regions',
  'failover by consent',
  'frame log dropped',
  'kept as a divergence',
  'kept refused',
  'kept released',
  'kept restored',
  'kept taken',
  'link refused UNWITNESSED',
  'move promoted from failed_over',
  'out of touch noted',
] as const

/** The moves of the table whose states a group can be in: arbitration states have no way in yet. */
export function reachableMoves(): { kind: ChangeKind; from: OwnershipState }[] {
  const found: { kind: ChangeKind; from: OwnershipState }[] = []
  const known = new Set<OwnershipState>(['closed'])
  const queue = [closedRecord('s', 'a', 'b', 'i')]
  for (let record = queue.shift(); record !== undefined; record = queue.shift()) {
    for (const kind of Object.keys(OWNERSHIP_MOVES) as ChangeKind[]) {
      if (!OWNERSHIP_MOVES[kind].includes(record.state)) continue
      const { writer, replica, epoch } = record
      const arbitration = { mode: 'static-priority', preferred: writer }
      const who = { site: writer, writer, replica, force: true, consent: true, ...arbitration }
      const request = { kind, epoch, attempt: `attempt-${epoch}`, ...who } as OwnershipRequest
      const answer = decideOwnership(record, request, {
        bootMs: 0,
        waitUntilBootMs: 0,
        historyTrusted: true,
        leaseMs: 1,
        driftMs: 0,
        incarnation: 'i',
      })
      if (!answer.ok) continue
      found.push({ kind, from: record.state })
      if (known.has(answer.record.state)) continue
      known.add(answer.record.state)
      queue.push(answer.record)
    }
  }
  return found
}
