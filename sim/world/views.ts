import type { Session, SessionEvent } from '#agent/replication/session/session.ts'
import type { WitnessAnswer, WitnessAsk } from '#wire/site/witness.ts'
import type { ClientIo } from './client-io.ts'
import type { AgentStatus } from './commands.ts'
import type { Copies } from './copies.ts'
import type { Coverage } from './coverage.ts'
import type { Process } from './host.ts'
import type { LinkMessage } from './link-messages.ts'
import type { Endpoint } from './network.ts'
import type { Plan } from './plan.ts'
import type { Random } from './random.ts'
import type { BlockRange, Site } from './site.ts'
import type { Timeline } from './timeline.ts'
import type { Truth } from './truth.ts'
import type { WitnessHost } from './witness-host.ts'

/* What the parts of the world see of each other: whoever is made by another part knows that one by its view, so that imports go one way.
 *
 *     world ──► observer, agent ──► link, clients ──► copy, verify, intent, stream ──► views
 */

export interface WorldView {
  readonly timeline: Timeline
  readonly random: Random
  readonly coverage: Coverage
  readonly truth: Truth
  readonly plan: Plan
  readonly witness: WitnessHost
  readonly observer: ObserverView
  readonly sites: readonly [Site, Site]
  readonly logFrames: number
  site(name: string): Site
  peerOf(site: Site): Site
  agentAt(site: Site): AgentView | null
  startAgent(site: Site): void
  killAgent(site: Site): void
  newSession(site: Site, known: number | null, now: number): Session
  connect(from: AgentView, opened: (end: Endpoint | null) => void): void
  askWitness(asker: Process, ask: WitnessAsk, answered: (answer: WitnessAnswer) => void): void
  report(agent: AgentView): void
  syncMs(site: Site): number
  copyMs(): number
  log(line: () => string): void
}

export interface ObserverView {
  readonly copies: Copies
  believe(condition: boolean, belief: string): void
  answers(agent: AgentView, io: ClientIo, number: number, values: readonly number[] | null): void
  begins(agent: AgentView): void
  afterDecision(agent: AgentView): void
  afterApply(agent: AgentView): void
  afterPersist(agent: AgentView): void
  keeps(agent: AgentView, id: string): void
  rebuilds(site: Site): void
  syncFails(site: Site): boolean
}

export interface AgentView {
  readonly world: WorldView
  readonly site: Site
  readonly peer: Site
  readonly process: Process
  readonly session: Session
  readonly link: LinkView
  readonly clients: ClientsView
  /** This life has begun to answer as the writer; the observer was told. */
  began: boolean
  /** A snapshot is being taken: what came behind copy_begin waits. */
  readonly keeping: boolean
  /** What the last answer to a report carried. */
  mark: string | null
  now(): number
  feed(make: () => SessionEvent, done?: () => void): void
  status(): AgentStatus
}

export interface LinkView {
  /** The volumes at the peer have had their first copy in full. */
  peerJoined: boolean
  readonly ready: boolean
  readonly current: boolean
  send(message: LinkMessage): void
  accept(end: Endpoint): void
  lose(): void
}

export interface ClientsView {
  readonly copy: CopyView
  readonly verify: VerifyView
  readonly plain: boolean
  readonly quiet: boolean
  readonly streamOpen: boolean
  readonly logFrom: number | null
  refuse(): void
  servePlainly(): void
  streamIfFollowing(): void
  openStream(after: number): void
  copyFrame(blocks: readonly number[], values: readonly number[]): number
  remoteFlush(range: BlockRange, done: () => void): boolean
  applied(sequence: number): void
  flushed(id: number): void
  linkGone(): void
  pump(): void
}

export interface CopyView {
  /** The resync that runs, or ran last on this link, makes the copy whole. */
  copiesAll: boolean
  mapped(id: number, changed: readonly number[] | null, regions: readonly number[]): void
  seen(id: number, values: readonly number[]): void
}

export interface VerifyView {
  start(done: (complete: boolean) => void): void
  seen(id: number, values: readonly number[]): void
}
