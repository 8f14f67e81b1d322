import {
  ALONE,
  type Ownership,
  type OwnershipRequest,
  type OwnershipState,
} from '#domain/ownership.ts'
import { Session, type SessionSettings } from '#agent/replication/session.ts'
import type { Arbitration } from '#agent/replication/session-types.ts'
import type { SessionStatus, WitnessAnswer, WitnessAsk } from '#wire/site/witness.ts'
import { Agent, type AgentCommand, type CommandAnswer } from './agent.ts'
import type { ClientIo } from './client-path.ts'
import { Coverage } from './coverage.ts'
import { Host, type Process } from './host.ts'
import { type Endpoint, Network } from './network.ts'
import { HONEST, type Plan } from './plan.ts'
import { Random } from './random.ts'
import { BLOCKS, Site } from './site.ts'
import { Timeline } from './timeline.ts'
import { Truth, Violation } from './truth.ts'
import { WitnessHost, type Word } from './witness-host.ts'

/* One group, two sites, a witness, and an observer who sees everything.
 *
 *        clients        clients                   operator
 *           │              │                         │
 *       ┌───▼───┐  link ┌──▼────┐            ┌───────▼──────┐
 *       │ az1   │◄─────►│ az2   │◄──────────►│ witness host │
 *       │ agent │       │ agent │  commands, │ decideOwner- │
 *       │ disk  │       │ disk  │  questions │ ship, record │
 *       └───────┘       └───────┘            └──────────────┘
 *
 * The observer is asked at every answer, every applied frame, every persisted claim and every loss of power, and throws a
 * `Violation` when a promise of docs/architecture/replication.md is broken.
 */

export const LEASE_MS = 8_000
export const DRIFT_MS = 500
const SILENCE_MS = 4_000
const RENEW_MS = 2_000
const SOLO_DELAY_MS = 1_000
const LOG_LINES_MAX = 400

export class World {
  readonly timeline = new Timeline()
  readonly random: Random
  readonly coverage = new Coverage()
  readonly network: Network
  readonly witness: WitnessHost
  readonly sites: readonly [Site, Site]
  readonly truth = new Truth(BLOCKS, 'az1')
  readonly plan: Plan
  readonly agents = new Map<string, Agent>()
  /** Sites that an operator made the writer by force, and that have not begun to serve yet. */
  readonly #forced = new Set<string>()
  /** Sites whose power was lost since both sides were last seen to hold everything. */
  readonly #powerLost = new Set<string>()
  /** Sites whose power was lost since they last began to serve. */
  readonly #cutSince = new Set<string>()
  /** Sites that hold some state of the group, or have one kept: a resync may not destroy it. */
  readonly #usable = new Set<string>()
  /** Sites whose volumes are in the middle of a resync. */
  readonly #overwritten = new Set<string>()
  /** Break-glass: the site that an operator made the writer, and the epoch it jumped to, until the other one is fenced. */
  #glass: { readonly site: string; readonly epoch: number; began: boolean } | null = null
  /** Epochs that were made by break-glass. */
  readonly #glassEpochs = new Set<number>()
  readonly arbitration: Arbitration
  /** Frames that a writer keeps for a replica that is away. */
  readonly logFrames: number
  /** Time that a copy takes for one region, ms. */
  copyStepMs = 2
  #lastAnswer = { epoch: 0, site: '' }
  readonly #logLines: string[] | null

  constructor(seed: number, plan: Plan = HONEST, keepLog = false) {
    this.random = new Random(seed)
    this.plan = plan
    this.#logLines = keepLog ? [] : null
    this.network = new Network(this.timeline, this.random.fork())
    const hosts = ['az1', 'az2', 'witness'].map(
      (name) => new Host(name, this.timeline, this.random.fork()),
    )
    const [first, second, third] = hosts as [Host, Host, Host]
    this.sites = [new Site('az1', first, 'standalone'), new Site('az2', second, 'standby')]
    this.witness = new WitnessHost(
      third,
      this.timeline,
      this.random.fork(),
      { leaseMs: LEASE_MS, driftMs: DRIFT_MS },
      ['az1', 'az2'],
    )
    const chance = this.random.fork()
    const preferred = chance.chance(0.7) ? 'az1' : 'az2'
    const mode = chance.chance(plan.staticShare ?? 0.4) ? 'static-priority' : 'witness'
    this.arbitration = { mode, preferred }
    this.logFrames = chance.pick([30, 150, 600])
    this.witness.onCommit = ({ kind, from, record }) => {
      this.coverage.count(`move ${kind} from ${from.state}`)
      this.log(() => `witness ${kind}: epoch ${record.epoch} ${record.state} ${record.writer}`)
      if (kind === 'close' && this.#cutSince.has(record.writer)) {
        // Replication is stopped before the writer made itself equal to the replica again: a plain disk is left, with
        // what a plain disk keeps over a loss of power.
        this.coverage.count('closed before the reconcile')
        this.truth.settleForFlushed()
      }
      // What a preferred site did unwitnessed, the record knows nothing of.
      const unseen = from.mode === 'static-priority' && from.preferred === from.writer
      const lacks = this.stateBefore(from) !== 'in_sync' || unseen
      if (kind === 'failover' && lacks) this.allowLoss(record.writer)
    }
    this.witness.onRefusal = (kind, refusal) => this.coverage.count(`refused ${kind} ${refusal}`)
    this.witness.onAdopt = ({ record, from }, off) => {
      this.coverage.count(off === null ? 'record adopted' : 'record vouched for')
      if (record.epoch > from.epoch) this.coverage.count('record adopted from a later epoch')
      this.log(() => `witness adopts epoch ${record.epoch} ${record.state} ${record.writer}`)
    }
    plan.witness?.(this.witness)
    for (const site of this.sites) this.startAgent(site)
  }

  /** State of `record`, or the one that it was frozen out of. */
  stateBefore({ state, epoch }: Ownership): OwnershipState {
    if (state !== 'frozen') return state
    const { history } = this.witness
    return history.findLast((one) => one.record.epoch === epoch - 1)?.record.state ?? state
  }

  // -- parts ----------------------------------------------------------------------------------------------------------

  site(name: string): Site {
    return this.sites[0].name === name ? this.sites[0] : this.sites[1]
  }

  peerOf(site: Site): Site {
    return this.sites[0] === site ? this.sites[1] : this.sites[0]
  }

  /** The agent that lives at `site` now; null when it is dead. */
  agentAt(site: Site): Agent | null {
    const agent = this.agents.get(site.name)
    return agent?.process.alive ? agent : null
  }

  startAgent(site: Site): void {
    if (this.agentAt(site) !== null || !site.host.powered) return
    this.agents.set(site.name, new Agent(this, site))
    // The process, or the power, may have gone right after it was written.
    this.#noticesGlass(site)
  }

  killAgent(site: Site): void {
    const agent = this.agentAt(site)
    if (agent === null) return
    agent.process.kill()
    const before = site.epoch.value
    site.epoch.interrupted(this.random)
    // Written just before the end: everything that it speaks of had been made durable first.
    if (!before.consistent && site.epoch.value.consistent) this.#overwritten.delete(site.name)
  }

  newSession(site: Site, known: number | null, now: number): Session {
    const settings: SessionSettings = {
      session: 'session',
      site: site.name,
      silenceMs: SILENCE_MS,
      renewMs: RENEW_MS,
      soloDelayMs: SOLO_DELAY_MS,
      deltas: true,
      keepsCopies: true,
    }
    const session = new Session(settings, site.epoch.value, known, now)
    this.plan.session?.(session, this)
    return session
  }

  connect(from: Agent, opened: (end: Endpoint | null) => void): void {
    const to = from.peer
    let listening: Agent | null = null
    this.network.connect(
      from.process,
      () => {
        listening = this.agentAt(to)
        return listening?.process ?? null
      },
      to.name,
      (end) => listening?.link.accept(end),
      opened,
    )
  }

  askWitness(asker: Process, ask: WitnessAsk, answered: (answer: WitnessAnswer) => void): void {
    this.network.ask<OwnershipRequest, WitnessAnswer>(
      asker,
      'witness',
      ask,
      (request, reply) =>
        this.witness.serve(request, (answer) =>
          reply(
            answer.ok
              ? { ok: true, record: answer.record, lease_ms: answer.leaseMs }
              : {
                  ok: false,
                  refusal: answer.refusal,
                  record: answer.record,
                  retry_after_ms: answer.retryAfterMs,
                },
          ),
        ),
      answered,
    )
  }

  /** What a site knows of the session, said to the witness. */
  report(agent: Agent): void {
    const { session, site } = agent
    const { mark } = agent
    this.network.ask<Word, string>(
      agent.process,
      'witness',
      { ...wordOf(session), ...(mark === null ? {} : { mark }) },
      (word, reply) => this.witness.report(site.name, word, reply),
      (answer) => {
        agent.mark = answer
      },
    )
  }

  /** From the control plane to an agent. */
  command(site: Site, command: AgentCommand, answered: (answer: CommandAnswer) => void): void {
    this.network.ask<AgentCommand, CommandAnswer>(
      this.witness.process,
      site.name,
      command,
      (request, reply) => {
        const agent = this.agentAt(site)
        agent?.process.deliver(() => agent.command(request, reply))
      },
      answered,
    )
  }

  /** How long one fdatasync takes at `site` now. */
  syncMs(site: Site): number {
    return this.random.between(0.3, site.syncMs)
  }

  copyMs(): number {
    return this.random.between(0.2, this.copyStepMs)
  }

  // -- the observer ---------------------------------------------------------------------------------------------------

  believe(condition: boolean, belief: string): void {
    if (!condition) throw new Violation(`broken belief: ${belief}`)
  }

  /** `agent` answers a client in this moment. */
  answers(agent: Agent, io: ClientIo, number: number, values: readonly number[] | null): void {
    const { site } = agent
    // Between a decision and its persistence one still answers under what was kept before.
    const { record } = site.epoch.value
    const plain = agent.clients.plain
    this.coverage.count(`answer ${io.kind}${io.fua ? ' fua' : ''}${plain ? ' plain' : ''}`)
    const alone = !plain && !agent.session.gate.needsReplica
    if (this.#split(agent)) {
      // Break-glass was used while the other writer lived: what that one still answers is lost, but not without a trace.
      this.coverage.count('answer beside break-glass')
      if (io.kind === 'write') this.truth.divergent(site.name, number)
      return
    }
    if (this.#glass === null) this.#onlyOneAnswers(agent, plain ? site.endedEpoch : record.epoch)
    if (!plain) this.#witnessed(agent)
    if (io.kind === 'write') this.truth.acknowledged(number, io.fua, alone ? site.name : null)
    if (io.kind === 'flush') this.truth.flushed(io.mark)
    values?.forEach((value, index) => {
      const needs = io.mark.must[index] as number
      if (value < needs) {
        throw new Violation(
          `promise 1: ${site.name} answers a read of block ${io.blocks[index]} with ${value}, but ${needs} was acknowledged before`,
        )
      }
    })
    this.#bothHold(agent, io, values)
  }

  /** Whether `agent` is the writer that break-glass left behind. */
  #split(agent: Agent): boolean {
    const glass = this.#glass
    return glass !== null && glass.site !== agent.site.name && glass.began
  }

  #onlyOneAnswers(agent: Agent, epoch: number): void {
    const { site } = agent
    if (epoch < this.#lastAnswer.epoch && this.#lastAnswer.site !== site.name) {
      throw new Violation(
        `promise 3: ${site.name} answers under epoch ${epoch}, after ${this.#lastAnswer.site} did under ${this.#lastAnswer.epoch}`,
      )
    }
    if (epoch >= this.#lastAnswer.epoch) this.#lastAnswer = { epoch, site: site.name }
    const other = this.agentAt(this.peerOf(site))
    if (other !== null && (other.status().answering || other.clients.plain)) {
      throw new Violation(
        `promise 3: ${site.name} answers under epoch ${epoch} while ${other.site.name} may answer under ${other.session.stored.record.epoch}`,
      )
    }
  }

  /** What the answering side believes is in the witness's history. */
  #witnessed(agent: Agent): void {
    const { session, site } = agent
    const { epoch, state, writer, mode, preferred } = site.epoch.value.record
    const { unwitnessed } = site.epoch.value
    if (session.gate.mode === 'unwitnessed') {
      this.coverage.count(this.#glassEpochs.has(epoch) ? 'answer promoted' : 'answer preferred')
      const may = mode === 'static-priority' && preferred === site.name
      if (!unwitnessed || !(may || this.#glassEpochs.has(epoch))) {
        throw new Violation(`promise 4: ${site.name} answers unwitnessed as ${state}, in ${mode}`)
      }
      if (this.#glassEpochs.has(epoch)) return
    }
    const decided = this.witness.history.findLast((one) => one.record.epoch === epoch)?.record
    if (decided?.epoch !== epoch || decided.state !== state || decided.writer !== writer) {
      throw new Violation(
        `promise 4: ${site.name} answers as ${state} under epoch ${epoch}, which the witness never decided`,
      )
    }
    if (writer !== site.name) {
      throw new Violation(
        `promise 4: ${site.name} answers before it keeps the epoch that allows it`,
      )
    }
    if (!session.gate.needsReplica && !ALONE.has(state) && !unwitnessed) {
      throw new Violation(`promise 4: ${site.name} answers alone while the record says ${state}`)
    }
  }

  /** While the record says in_sync a failover may come at any moment, so both sides hold what was acknowledged. */
  #bothHold(agent: Agent, io: ClientIo, values: readonly number[] | null): void {
    if (this.witness.stored.state !== 'in_sync' || !this.witness.trusted) return
    if (agent.session.gate.mode === 'unwitnessed') return
    const peer = this.peerOf(agent.site)
    // Nobody fails over to a copy that is still being made.
    if (!peer.joined) return
    values?.forEach((value, index) => {
      const there = peer.disk.current[io.blocks[index] as number] as number
      if (there < value && !this.#powerLost.has(peer.name)) {
        throw new Violation(
          `promise 1: ${agent.site.name} shows write ${value} in sync, ${peer.name} lacks it`,
        )
      }
    })
    if (io.kind === 'read') return
    if (io.kind === 'write') {
      for (const block of io.blocks) {
        const needs = this.truth.must[block] as number
        if ((peer.disk.current[block] as number) < needs && !this.#powerLost.has(peer.name)) {
          throw new Violation(
            `promise 1: ${agent.site.name} acknowledges write ${needs} in sync, ${peer.name} lacks it`,
          )
        }
      }
    }
    if (io.kind === 'flush' || io.fua) {
      io.blocks.forEach((block, index) => {
        const needs = io.kind === 'flush' ? (io.mark.must[index] as number) : 0
        const must = io.kind === 'flush' ? needs : (this.truth.mustSurvive[block] as number)
        for (const site of this.sites) {
          if ((site.disk.synced[block] as number) < must && !this.#powerLost.has(site.name)) {
            throw new Violation(
              `promise 1: ${agent.site.name} acknowledges a flush of ${must} in sync, which is not durable at ${site.name}`,
            )
          }
        }
      })
    }
    for (const site of this.sites) {
      if (!this.#powerLost.has(site.name) || site.failed || !site.joined) continue
      const following = this.agentAt(site)?.session.phase === 'following'
      if (following && this.truth.lacks(site.disk.current) === null) {
        this.#powerLost.delete(site.name)
      }
    }
  }

  /** After the session has decided something. */
  afterDecision(agent: Agent): void {
    const { session } = agent
    if (session.role !== 'writer') {
      if (session.role !== 'none') agent.began = false
      return
    }
    // Whoever was frozen, or had to begin anew, may go on after others have written.
    if (session.phase === 'frozen' || session.phase === 'opening') agent.began = false
    if (!agent.began && session.gate.mode !== 'closed') this.begins(agent)
  }

  /** `agent` begins to answer clients. */
  begins(agent: Agent): void {
    const { site } = agent
    if (agent.began) return
    agent.began = true
    if (site.failed) {
      // It answers every request with an error. Where nothing is kept for the other site any more, the order goes on from what that has.
      const { current } = this.peerOf(site).disk
      if (agent.clients.quiet) this.truth.serves(site.name, current, false)
      return
    }
    // Nobody has compared before it became the truth.
    if (site.disk.rot.size > 0) this.coverage.count('rot taken over')
    site.disk.rot.clear()
    if (this.#overwritten.has(site.name) && this.#usable.has(site.name)) {
      throw new Violation(`promise 5: ${site.name} begins to serve the middle of a resync`)
    }
    this.#usable.add(site.name)
    this.#overwritten.delete(site.name)
    // Beside a site that was made the writer by break-glass nobody writes what counts.
    if (this.#split(agent)) return
    let lossy = this.#cutSince.delete(site.name)
    const glass = this.#glass?.site === site.name && !this.#glass.began
    if (glass && this.#glass !== null) this.#glass.began = true
    if (this.#forced.delete(site.name) || glass) {
      lossy = true
      this.coverage.count('loss allowed by force')
      const peer = this.peerOf(site)
      const { current, synced } = site.disk
      this.truth.settleFor(current, synced, peer.name, peer.disk.current)
    }
    this.truth.serves(site.name, site.disk.current, lossy)
  }

  allowLoss(site: string): void {
    this.#forced.clear()
    this.#forced.add(site)
  }

  afterApply(agent: Agent): void {
    const { site, session } = agent
    if (session.stored.consistent) return this.#claims(agent)
    this.truth.disturbed(site.name)
    this.#overwritten.add(site.name)
    if (!this.#usable.has(site.name)) return
    // What the side itself has persisted says where to go back to, whatever happens to its process now.
    const { kept } = site.epoch.value
    if (kept === null || !site.kept.has(kept)) {
      throw new Violation(`promise 5: ${site.name} is overwritten, and no consistent copy is kept`)
    }
  }

  afterPersist(agent: Agent): void {
    const { site, session } = agent
    if (site.epoch.value.outOfTouchMs !== null) this.coverage.count('out of touch noted')
    if (session.role === 'replica') this.#claims(agent)
    this.#noticesGlass(site)
    const glass = this.#glass
    if (
      glass !== null &&
      glass.site !== site.name &&
      site.epoch.value.record.epoch >= glass.epoch
    ) {
      if (!glass.began) this.allowLoss(glass.site)
      this.#glass = null
    }
  }

  /** `agent` takes the copy that a resync goes back to. */
  keeps(agent: Agent, id: string): void {
    const { site, session } = agent
    const { consistent, divergent } = session.stored
    if (consistent && !divergent && site.joined && session.hello(site.intent.any).clean) {
      this.truth.consistent(site.name, site.disk.current)
    }
    site.kept.set(id, site.disk.current.slice())
  }

  /** The volumes of `site` are what was kept. */
  restored(site: Site): void {
    this.#overwritten.delete(site.name)
    this.truth.disturbed(site.name)
  }

  /** The session of `site` has ended: what is left there counts for nothing more. */
  ended(site: Site): void {
    this.#usable.delete(site.name)
    this.#overwritten.delete(site.name)
  }

  #noticesGlass(site: Site): void {
    const { promoted, record } = site.epoch.value
    if (promoted && !this.#glassEpochs.has(record.epoch)) this.#breaksGlass(site, record.epoch)
  }

  /** An operator breaks the glass at `site`, whatever the witness and the other site do. */
  #breaksGlass(site: Site, epoch: number): void {
    this.#glass = { site: site.name, epoch, began: false }
    this.#glassEpochs.add(epoch)
    this.allowLoss(site.name)
    // A writer whose lease ran out begins anew, in whatever phase it is: others may have written since.
    const agent = this.agentAt(site)
    if (agent !== null) agent.began = false
  }

  #claims(agent: Agent): void {
    // Its hello and its status say that it is none, or not yet.
    if (agent.site.failed || !agent.site.joined) return
    if (agent.status().consistent && !agent.session.stored.divergent) {
      this.truth.consistent(agent.site.name, agent.site.disk.current)
      this.#usable.add(agent.site.name)
      this.#overwritten.delete(agent.site.name)
    }
  }

  /** The host of `site` loses its power. */
  losePower(site: Site): void {
    const { truth } = this
    const peer = this.peerOf(site)
    // While the writer may not have answered alone, both sides owe everything that was acknowledged, else it alone does.
    const writer = this.site(truth.server).epoch.value
    const { state } = writer.record
    const closed = this.witness.stored.state === 'closed'
    const inStep = state === 'in_sync' && !writer.unwitnessed
    const frozen = state === 'frozen' && !writer.ackedAlone
    const shared = !closed && (inStep || frozen || writer.riseAsked)
    const held = truth.lacks(site.disk.current) === null
    site.host.powered = false
    this.killAgent(site)
    const before = site.disk.current.slice()
    site.losePower(this.random)
    if (before.some((value, block) => value !== site.disk.current[block])) {
      truth.disturbed(site.name)
    }
    truth.lost(site.name, site.disk.current)
    const { kept } = site.epoch.value
    if (kept === null || !site.kept.has(kept)) this.#usable.delete(site.name)
    this.#powerLost.add(site.name)
    this.#cutSince.add(site.name)
    if (!held) return
    // A copy that was begun anew may hold everything before it is made durable and counts as whole.
    const owes = (shared && site.joined) || truth.server === site.name
    const unflushed = truth.lacks(site.disk.current, truth.mustSurvive)
    if (owes && unflushed !== null) {
      throw new Violation(`promise 1: power was lost at ${site.name}; flushed, but ${unflushed}`)
    }
    // A site that lost its power may have been lucky and lost nothing, but nobody can know that.
    const peerHolds =
      peer.joined && !this.#powerLost.has(peer.name) && truth.lacks(peer.disk.current) === null
    if (peerHolds && (shared || truth.server !== site.name)) return
    this.coverage.count('only flushed writes left')
    truth.settleForFlushed()
  }

  /**
   * Whether an fdatasync fails now at `site`. The kernel has dropped what was not durable and will say so only this once, so
   * the copy counts as failed for ever.
   */
  syncFails(site: Site): boolean {
    if (site.failed) return true
    if (!site.failing || this.#powerLost.has(this.peerOf(site).name)) return false
    const writes = this.agentAt(site)?.session.role === 'writer'
    if (writes && !this.mayFailAsWriter(site)) return false
    this.coverage.count(writes ? 'disk failed at the writer' : 'disk failed')
    this.log(() => `${site.name}: its disk fails`)
    site.failing = false
    site.failed = true
    site.disk.losePower(this.random)
    this.#nothingLeft(site)
    this.#powerLost.add(site.name)
    return true
  }

  /** Whether the disk of `site`, the writer, may fail: everything that was acknowledged is at the other site, which lacks nothing. */
  mayFailAsWriter(site: Site): boolean {
    const peer = this.peerOf(site)
    const { record, unwitnessed } = site.epoch.value
    const { stored, trusted } = this.witness
    return (
      trusted &&
      this.#glass === null &&
      stored.state === 'in_sync' &&
      stored.writer === site.name &&
      record.epoch === stored.epoch &&
      !unwitnessed &&
      peer.joined &&
      !peer.failed &&
      !this.#powerLost.has(peer.name) &&
      this.truth.server === site.name &&
      this.truth.lacks(peer.disk.current) === null
    )
  }

  /** The failed disk of `site` is replaced by an empty one. */
  replaceDisk(site: Site): void {
    this.coverage.count('disk replaced')
    site.failed = false
    site.disk.replace()
    this.#nothingLeft(site)
  }

  /** As `replaceDisk`, while the session goes on: the copy counts as never made. */
  rebuilds(site: Site): void {
    site.joined = false
    this.replaceDisk(site)
    this.#overwritten.delete(site.name)
  }

  #nothingLeft(site: Site): void {
    this.truth.disturbed(site.name)
    this.truth.lost(site.name, site.disk.current)
    this.#usable.delete(site.name)
  }

  wasPowerLost(site: Site): boolean {
    return this.#powerLost.has(site.name)
  }

  // -- the log --------------------------------------------------------------------------------------------------------

  log(line: () => string): void {
    if (this.#logLines === null) return
    if (this.#logLines.length > LOG_LINES_MAX * 50) this.#logLines.splice(0, LOG_LINES_MAX)
    this.#logLines.push(`${this.timeline.nowMs.toFixed(1).padStart(9)}  ${line()}`)
  }

  get logLines(): readonly string[] {
    return this.#logLines ?? []
  }
}

/** As the agent's host puts it into its report. */
function wordOf({ role, stored }: Session): Word {
  const { epoch, state, writer, mode, preferred } = stored.record
  const { unwitnessed } = stored
  const arbitration = { mode, preferred }
  if (role !== 'none') {
    return { status: { epoch, state, role, unwitnessed, arbitration } as SessionStatus }
  }
  return epoch === 0 ? {} : { ended: { session: 'session', epoch, writer } }
}
