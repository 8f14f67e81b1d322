import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { closedRecord, decideOwnership, OWNERSHIP_MOVES } from '#domain/ownership.ts'
import type { ChangeKind, OwnershipRequest, OwnershipState } from '#domain/ownership.ts'
import { NEXT_PHASES } from '#agent/replication/session/phases.ts'
import { PLANTS } from './plants/plants.ts'
import { SELDOM } from './seldom.ts'
import { Coverage } from './world/coverage.ts'
import { FAULTS, FAULTS_MIN } from './world/fault-kinds.ts'
import { HONEST, type Plan } from './world/plan.ts'
import { runSeed } from './world/run.ts'

/* Many seeds, and what they must have exercised together: every change of the ownership record that can be reached, every
 * legal move between phases of a session, every kind of fault. A run of fewer seeds than `COVERAGE_SEEDS_MIN` only reports.
 */

/** With fewer seeds than this the rarer moves may be missed by chance, so their absence is no failure. */
export const COVERAGE_SEEDS_MIN = 2_000

export interface Campaign {
  readonly seeds: number
  readonly firstSeed: number
  /** What broke a promise, by seed. */
  readonly broken: readonly Broken[]
  readonly coverage: Coverage
  readonly missing: readonly string[]
  readonly events: number
  readonly virtualMs: number
  /** Faults that broke something, per seed. */
  readonly faults: FaultCounts
}

export interface FaultCounts {
  readonly least: number
  /** A seed that had so few. */
  readonly leastSeed: number
  readonly most: number
  readonly all: number
}

export interface Broken {
  readonly seed: number
  readonly what: string
}

export interface CampaignOptions {
  readonly firstSeed: number
  readonly seeds: number
  readonly plan?: Plan
  /** Ends the run after this many broken seeds. */
  readonly brokenMax?: number
  /** Worker threads; 0: in this thread. Default: as many as there are cores, but none for a few seeds. */
  readonly jobs?: number
  /** The run fails when a worker has not finished one batch of seeds after so long, ms. Default: it waits. */
  readonly stuckMs?: number
}

/** Seeds that a worker runs before it asks for more: about half a second. */
const BATCH_SEEDS = 50
const BROKEN_MAX = 5

/** What is sent to a worker; a plan has functions, so it goes by its name. */
export interface Work {
  readonly firstSeed: number
  readonly seeds: number
  readonly plan: string
}

/** What comes back. */
export interface Batch {
  readonly seeds: number
  readonly broken: readonly Broken[]
  readonly counts: ReadonlyMap<string, number>
  readonly events: number
  readonly virtualMs: number
  readonly faults: FaultCounts
}

const NO_FAULTS: FaultCounts = {
  least: Number.POSITIVE_INFINITY,
  leastSeed: 0,
  most: 0,
  all: 0,
}

const addFaults = (one: FaultCounts, other: FaultCounts): FaultCounts => {
  const fewest = other.least < one.least ? other : one
  const { least, leastSeed } = fewest
  return { least, leastSeed, most: Math.max(one.most, other.most), all: one.all + other.all }
}

/** Each seed is a run of its own, so neither the order nor the number of workers changes what is found. */
export async function runCampaign(options: CampaignOptions): Promise<Campaign> {
  const { firstSeed, seeds, plan = HONEST, brokenMax = BROKEN_MAX } = options
  const jobs = options.jobs ?? (seeds > 4 * BATCH_SEEDS ? availableParallelism() : 0)
  const coverage = new Coverage()
  const broken: Broken[] = []
  let done = 0
  let handedOut = 0
  let events = 0
  let virtualMs = 0
  let faults = NO_FAULTS
  const next = (): Work | null => {
    if (handedOut >= seeds || broken.length >= brokenMax) return null
    // One by one when the first mistake ends the run.
    const most = brokenMax === 1 && jobs === 0 ? 1 : BATCH_SEEDS
    const count = Math.min(most, seeds - handedOut)
    const work = { firstSeed: firstSeed + handedOut, seeds: count, plan: plan.name }
    handedOut += count
    return work
  }
  const take = (batch: Batch) => {
    done += batch.seeds
    events += batch.events
    virtualMs += batch.virtualMs
    faults = addFaults(faults, batch.faults)
    broken.push(...batch.broken)
    for (const [what, count] of batch.counts) coverage.count(what, count)
  }
  if (jobs === 0) {
    for (let work = next(); work !== null; work = next()) take(runBatch(work))
  } else {
    await Promise.all(Array.from({ length: jobs }, () => employ(next, take, options.stuckMs)))
  }
  broken.sort((one, other) => one.seed - other.seed)
  const missing = done >= COVERAGE_SEEDS_MIN ? coverage.missing(wantedCoverage(done)) : []
  if (faults.least < FAULTS_MIN && broken.length === 0) {
    missing.push(`seed ${faults.leastSeed} with ${FAULTS_MIN} faults: it had ${faults.least}`)
  }
  return { seeds: done, firstSeed, broken, coverage, missing, events, virtualMs, faults }
}

export function runBatch({ firstSeed, seeds, plan }: Work): Batch {
  const coverage = new Coverage()
  const broken: Broken[] = []
  let events = 0
  let virtualMs = 0
  let faults = NO_FAULTS
  for (let seed = firstSeed; seed < firstSeed + seeds; seed++) {
    const outcome = runSeed(seed, planOf(plan))
    coverage.add(outcome.coverage)
    events += outcome.events
    virtualMs += outcome.virtualMs
    if (outcome.broken !== null) broken.push({ seed, what: outcome.broken })
    else {
      const count = outcome.faults
      faults = addFaults(faults, { least: count, leastSeed: seed, most: count, all: count })
    }
  }
  return { seeds, broken, counts: coverage.counts, events, virtualMs, faults }
}

/** @throws Error when there is no plan of this name. */
export function planOf(name: string): Plan {
  const plan = [HONEST, ...PLANTS].find((one) => one.name === name)
  if (plan !== undefined) return plan
  throw new Error(
    `plant ${name} is not known; known are ${PLANTS.map((plant) => plant.name).join(', ')}`,
  )
}

/** A worker thread, for as long as there is work. Rejects when one batch takes longer than `stuckMs`. */
function employ(next: () => Work | null, take: (batch: Batch) => void, stuckMs = 0): Promise<void> {
  // A seed leaves much short-lived garbage: a large nursery halves the time spent on it.
  const resourceLimits = { maxYoungGenerationSizeMb: 64 }
  const worker = new Worker(new URL('./worker.ts', import.meta.url), { resourceLimits })
  return new Promise((resolve, reject) => {
    let watch: NodeJS.Timeout | undefined
    worker.once('error', reject)
    worker.once('exit', () => {
      clearTimeout(watch)
      resolve()
    })
    const more = () => {
      const work = next()
      if (work === null) return void worker.terminate()
      worker.postMessage(work)
      if (stuckMs === 0) return
      watch = setTimeout(() => {
        const { firstSeed, seeds } = work
        reject(new Error(`${seeds} seeds from ${firstSeed} do not end within ${stuckMs} ms`))
        void worker.terminate()
      }, stuckMs)
    }
    worker.on('message', (batch: Batch) => {
      clearTimeout(watch)
      take(batch)
      more()
    })
    more()
  })
}

/** What every sufficiently long run must have exercised. */
export function wantedCoverage(seeds = Number.POSITIVE_INFINITY): string[] {
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
    ...(seeds >= RARE_SEEDS_MIN ? RARE : []),
  ]
}

/** What the witness must have refused. */
const REFUSALS = [
  'renew WITNESS_WAITING',
  'solo WITNESS_WAITING',
  'failover WITNESS_WAITING',
  'failover LEASE_HELD',
  'failover PREFERRED_MAY_RUN',
  'open WRONG_STATE',
  'renew STALE_EPOCH',
  'rise STALE_EPOCH',
] as const

/** What takes several rare things at once, and is judged only in a run of so many seeds. */
const RARE_SEEDS_MIN = 20_000
const RARE = [
  'record adopted as solo',
  'refused rise WITNESS_WAITING',
  'failover refused late',
  'went back to what was left',
] as const

/** What must have happened besides. */
const EVENTS = [
  'answer preferred',
  'answer promoted',
  'answer beside break-glass',
  'break-glass ok',
  'disk failed',
  'disk failed at the writer',
  'disk replaced',
  'copy rebuilt',
  'copy joining',
  'copy joined',
  'verify complete',
  'verify found',
  'verify rechecked',
  'verify repaired',
  'rot taken over',
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
  'kept what was left',
  'torn copy keeps',
  'torn copy leaves',
  'link refused UNWITNESSED',
  'move promoted from failed_over',
  'out of touch noted',
  'record adopted',
  'record adopted from a later epoch',
  'record vouched for',
  'operation forgotten',
  'operation failover-paused ok',
  'volumes standalone',
  'volumes standby',
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
