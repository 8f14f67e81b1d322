import type { Ownership, OwnershipRequest, OwnershipState } from '#domain/ownership.ts'
import { Session, type SessionSettings } from '#agent/replication/session/session.ts'
import type { Arbitration } from '#agent/replication/session/session-types.ts'
import type { SessionStatus, WitnessAnswer, WitnessAsk } from '#wire/site/witness.ts'
import { Agent } from './agent.ts'
import type { AgentCommand, CommandAnswer } from './commands.ts'
import { Coverage } from './coverage.ts'
import { Host, type Process } from './host.ts'
import { type Endpoint, Network } from './network.ts'
import { Observer } from './observer.ts'
import { HONEST, type Plan } from './plan.ts'
import { Random } from './random.ts'
import { BLOCKS, Site } from './site.ts'
import { Timeline } from './timeline.ts'
import { Truth } from './truth.ts'
import type { AgentView, WorldView } from './views.ts'
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
 * Whether the promises are kept judges the observer (observer.ts).
 */

export const LEASE_MS = 8_000
export const DRIFT_MS = 500
const SILENCE_MS = 4_000
const RENEW_MS = 2_000
const SOLO_DELAY_MS = 1_000
const LOG_LINES_MAX = 400

export class World implements WorldView {
  readonly timeline = new Timeline()
  readonly random: Random
  readonly coverage = new Coverage()
  readonly network: Network
  readonly witness: WitnessHost
  readonly sites: readonly [Site, Site]
  readonly truth = new Truth(BLOCKS, 'az1')
  readonly plan: Plan
  readonly agents = new Map<string, Agent>()
  readonly observer = new Observer(this)
  readonly arbitration: Arbitration
  /** Frames that a writer keeps for a replica that is away. */
  readonly logFrames: number
  /** Time that a copy takes for one region, ms. */
  copyStepMs = 2
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
      if (kind === 'close') this.observer.closed(record.writer)
      // What a preferred site did unwitnessed, the record knows nothing of.
      const unseen = from.mode === 'static-priority' && from.preferred === from.writer
      const lacks = this.stateBefore(from) !== 'in_sync' || unseen
      if (kind !== 'failover') return
      if (lacks) this.observer.allowLoss(record.writer)
      // A stopped production that was silent when its group was started, by an operation that a restored witness has forgotten: no lease bounds it.
      const old = this.site(from.writer)
      const forgotten = this.witness.mark !== 'mark-0' && !old.taken && old.plain === 'standalone'
      if (forgotten) this.observer.servesPlainly(this.site(record.writer), old, record.epoch)
    }
    this.witness.onRefusal = (kind, refusal) => this.coverage.count(`refused ${kind} ${refusal}`)
    this.witness.onAdopt = ({ record, from }, off) => {
      this.coverage.count(off === null ? 'record adopted' : 'record vouched for')
      if (record.epoch > from.epoch) this.coverage.count('record adopted from a later epoch')
      const said = this.site(record.writer).epoch.value
      if (said.unwitnessed && said.record.state === 'in_sync' && record.state === 'solo') {
        this.coverage.count('record adopted as solo')
      }
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
    this.observer.started(site)
  }

  killAgent(site: Site): void {
    const agent = this.agentAt(site)
    if (agent === null) return
    agent.process.kill()
    const before = site.epoch.value
    site.epoch.interrupted(this.random)
    if (!before.consistent && site.epoch.value.consistent) this.observer.copies.wasConsistent(site)
  }

  newSession(site: Site, known: number | null, now: number): Session {
    const settings: SessionSettings = {
      session: 'session',
      site: site.name,
      silenceMs: SILENCE_MS,
      renewMs: RENEW_MS,
      soloDelayMs: SOLO_DELAY_MS,
      keepsCopies: true,
    }
    const session = new Session(settings, site.epoch.value, known, now)
    this.plan.session?.(session, this)
    return session
  }

  connect(from: AgentView, opened: (end: Endpoint | null) => void): void {
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
  report(agent: AgentView): void {
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
  const { unwitnessed, promoted: presents } = stored
  const arbitration = { mode, preferred }
  if (role !== 'none') {
    return { status: { epoch, state, role, unwitnessed, presents, arbitration } as SessionStatus }
  }
  return epoch === 0 ? {} : { ended: { session: 'session', epoch, writer } }
}
