import type { Coverage } from './coverage.ts'
import { FAULTS_MIN } from './fault-kinds.ts'
import { Faults } from './faults.ts'
import { Load } from './load.ts'
import type { OperationName } from './operations.ts'
import { Operator } from './operator.ts'
import type { OwnershipState } from '#domain/ownership.ts'
import { chooseOperation, hastyOperations, inARow } from './choices.ts'
import { HONEST, type Plan } from './plan.ts'
import { Violation } from './truth.ts'
import { World } from './world.ts'

/* One seed: chaos, then everything heals and the group must become whole within a bounded time. Safety is checked all
 * along by the observer; liveness only after the chaos.
 */

export interface Outcome {
  readonly seed: number
  /** Null when every promise was kept. */
  readonly broken: string | null
  readonly coverage: Coverage
  readonly events: number
  readonly virtualMs: number
  /** Faults that found something to break. */
  readonly faults: number
  readonly log: readonly string[]
}

/** An operation, once nothing is broken any more. */
const OPERATION_MS_MAX = 90_000
/** From the end of the last operation to in_sync. */
const HEALED_MS_MAX = 90_000
/** How long an agent may be behind before it is told again. */
const TELL_MS = 5_000
/** How long the sites' reports may take to restore the trust in a restored record before somebody vouches. */
const DOUBT_MS = 20_000
const QUIET_MS_MAX = 30_000
/** By then a link that died silently has been noticed. */
const SILENT_MS = 6_000
const HEAL_STEP_MS = 250

export function runSeed(seed: number, plan: Plan = HONEST, keepLog = false): Outcome {
  const world = new World(seed, plan, keepLog)
  const counted = { faults: 0 }
  let broken: string | null = null
  try {
    play(world, counted)
  } catch (error) {
    if (!(error instanceof Error)) throw error
    // An assertion of the product that fails is found by the simulator like any other broken promise.
    broken =
      error instanceof Violation
        ? error.message
        : `${error.name}: ${error.message}${keepLog ? `\n${error.stack}` : ''}`
    world.log(() => `BROKEN ${broken}`)
  }
  return {
    seed,
    broken,
    coverage: world.coverage,
    events: world.timeline.events,
    virtualMs: world.timeline.nowMs,
    faults: counted.faults,
    log: world.logLines,
  }
}

function play(world: World, counted: { faults: number }): void {
  const random = world.random.fork()
  world.copyStepMs = random.pick([1, 5, 60, 300, 1_500, 4_000])
  const operator = new Operator(world)
  const load = new Load(world)
  const plainMs = random.pick([50, 2_000])
  world.timeline.after(random.between(1, plainMs), () => operator.start('open'))
  const faults = new Faults(world, operator)
  // A site that seems dead is what failovers are made for, so they come together more often than by chance.
  const hasty = random.pick([0, 0.3, 0.8])
  const stops = world.plan.steady !== true && random.chance(0.2)
  faults.onSiteGone = (site) => {
    if (site.name !== world.witness.stored.writer || !random.chance(hasty)) return
    world.timeline.after(random.between(100, 9_000), () => {
      const { state } = world.witness.stored
      const can = state === 'in_sync' || state === 'resyncing' || state === 'solo'
      if (can && !operator.patient) inARow(world, operator, hastyOperations(random, stops))
    })
  }
  const operate = random.pick([1_500, 4_000, 10_000])
  const chaosMs = random.pick([10_000, 25_000, 50_000])
  const next = () => {
    world.timeline.after(random.between(0.2, 2) * operate, () => {
      if (operator.patient) return
      chooseOperation(world, operator, random, stops)
      next()
    })
  }
  next()
  if (random.chance(world.plan.glassShare ?? 0.1)) {
    // Rooms without a witness, and somebody who cannot wait.
    const site = random.pick(world.sites)
    world.timeline.after(random.between(0.3, 1) * chaosMs, () => {
      if (operator.patient) return
      if (random.chance(0.7)) faults.strike('witness-crash')
      operator.breakGlass(site)
    })
  }
  world.timeline.runUntil(chaosMs)
  while (faults.struck < FAULTS_MIN) {
    faults.strikeAny()
    world.timeline.runUntil(world.timeline.nowMs + random.between(50, 1_000))
  }
  counted.faults = faults.struck

  world.log(() => 'the chaos ends')
  faults.healAll()
  operator.patient = true
  world.copyStepMs = 5
  heal(world, operator)

  load.stop()
  const quietBy = world.timeline.nowMs + QUIET_MS_MAX
  while (load.inFlight > 0) {
    if (world.timeline.nowMs > quietBy) {
      throw new Violation(`liveness: ${load.inFlight} requests are never answered`)
    }
    world.timeline.runUntil(world.timeline.nowMs + HEAL_STEP_MS)
  }
  world.timeline.runUntil(world.timeline.nowMs + SILENT_MS)
  // A connection that went silent in the chaos looks like one that works until its silence is noticed.
  if (!isWhole(world)) heal(world, operator)
  verifyAll(world)
  world.timeline.runUntil(world.timeline.nowMs + 2_000)
  same(world)
}

/** A verification of everything, with repair, while nothing is broken. */
function verifyAll(world: World): void {
  const writer = world.agentAt(world.site(world.witness.stored.writer))
  let complete: boolean | null = null
  const begin = () =>
    writer?.clients.verify.start((all) => {
      complete = all
    })
  const limit = world.timeline.nowMs + QUIET_MS_MAX
  begin()
  while (complete !== true) {
    if (world.timeline.nowMs > limit) throw new Violation('liveness: a verification does not end')
    world.timeline.runUntil(world.timeline.nowMs + HEAL_STEP_MS)
    if (complete === false) begin()
  }
}

/** In sync, and both sides in step. */
function isWhole(world: World): boolean {
  const { state, writer } = world.witness.stored
  if (state !== 'in_sync') return false
  const site = world.site(writer)
  const here = world.agentAt(site)?.status()
  const there = world.agentAt(world.peerOf(site))?.status()
  if (!world.sites.every(({ joined, failed }) => joined && !failed)) return false
  return here?.answering === true && here.phase === 'following' && there?.phase === 'following'
}

/** What an operator does to a group that does not get whole by itself. */
const FIRST_STEP: Partial<Record<OwnershipState, OperationName>> = {
  closed: 'open',
  failed_over: 'reprotect',
  frozen: 'thaw',
}

/** Production with a failed disk is failed over from. A failed copy is begun anew, and where that is refused (what was kept for the time of a
 *  resync lives from it) replaced while the group is stopped. */
function stepAgainst(failedIsWriter: boolean, operator: Operator): OperationName {
  if (failedIsWriter) return 'failover'
  const refused = operator.last === 'rebuild' && operator.result !== 'ok'
  return refused ? (operator.tells++ % 2 === 0 ? 'tell' : 'close') : 'rebuild'
}

/** Drives the group to in_sync, as an operator would, and demands that it gets there. */
function heal(world: World, operator: Operator): void {
  const { timeline, witness } = world
  let since = timeline.nowMs
  let replacing = false
  let tellAt = timeline.nowMs + TELL_MS
  for (;;) {
    timeline.runUntil(timeline.nowMs + HEAL_STEP_MS)
    if (operator.busy !== null) {
      if (timeline.nowMs - Math.max(operator.startedMs, since) > OPERATION_MS_MAX) {
        throw new Violation(`liveness: operation ${operator.busy} does not end`)
      }
      continue
    }
    if (!witness.trusted) {
      if (timeline.nowMs - since > DOUBT_MS) operator.vouch()
      if (timeline.nowMs - since <= HEALED_MS_MAX) continue
      throw new Violation('liveness: both sites are there, and the record stays in doubt')
    }
    const { state, writer } = witness.stored
    const failed = world.sites.find((one) => one.failed)
    const linkable = state === 'in_sync' || state === 'resyncing' || state === 'solo'
    if (failed !== undefined && (failed.name === writer || linkable)) {
      if (!replacing) since = timeline.nowMs
      replacing = true
      if (timeline.nowMs - since > HEALED_MS_MAX) {
        throw new Violation(`liveness: ${state} with a failed disk at ${failed.name} does not end`)
      }
      operator.start(stepAgainst(failed.name === writer, operator))
      continue
    }
    const first = FIRST_STEP[state]
    if (first !== undefined) {
      since = timeline.nowMs
      operator.start(first)
      continue
    }
    const site = world.site(writer)
    const here = world.agentAt(site)
    const there = world.agentAt(world.peerOf(site))
    if (isWhole(world)) return
    const behind = [here, there].some(
      (agent) => agent !== null && agent.session.stored.record.epoch < witness.stored.epoch,
    )
    if (behind && timeline.nowMs > tellAt) {
      tellAt = timeline.nowMs + TELL_MS
      operator.start('tell')
    }
    if (timeline.nowMs - since > HEALED_MS_MAX) {
      const phases = [here, there].map((agent) => `${agent?.site.name} ${agent?.session.phase}`)
      throw new Violation(`liveness: stays ${state} with ${phases.join(', ')}`)
    }
  }
}

function same(world: World): void {
  const [first, second] = world.sites
  const missing = world.truth.lacks(first.disk.current)
  if (missing !== null) throw new Violation(`promise 1: in the end ${first.name} ${missing}`)
  for (const site of world.sites) {
    const { disk, divergences } = site
    const forgotten = world.truth.forgotten(site.name, disk.current, divergences)
    if (forgotten !== null) throw new Violation(`promise 7: ${forgotten}`)
  }
  for (let block = 0; block < first.disk.current.length; block++) {
    if (first.disk.current[block] !== second.disk.current[block]) {
      throw new Violation(
        `in the end block ${block} differs: ${first.disk.current[block]} and ${second.disk.current[block]}`,
      )
    }
  }
}
