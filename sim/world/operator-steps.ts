import type { OwnershipAnswer, OwnershipRequest } from '#domain/ownership.ts'
import type { OwnershipRecord } from '#wire/site/witness.ts'
import type { AgentCommand, CommandAnswer } from './commands.ts'
import type { Random } from './random.ts'
import type { Site } from './site.ts'
import type { World } from './world.ts'

/* What the steps of an operation are made of: questions to the witness, commands to agents, and waits, each repeated as the control plane
 * repeats it. What has begun is carried out, and begun again after a crash, by operator.ts.
 */

export type Step =
  | { readonly to: 'witness'; readonly request: OwnershipRequest }
  | { readonly to: 'agent'; readonly site: Site; readonly command: AgentCommand }
  | { readonly to: 'sleep'; readonly ms: number }

export type Result = OwnershipAnswer | CommandAnswer | null
export type Operation = Generator<Step, string, Result>

export const RETRY_MS = 500
const LEASE_ASKS_MAX = 4

export class Steps {
  readonly #world: World
  readonly #random: Random
  #hurried = false
  /** Operations that were begun. */
  count = 0
  /** Of the operation that began last, as docs and code of the control plane name them. */
  readonly names: string[] = []
  /** The chaos is over: what an operator may give up then, it keeps trying. */
  patient = false

  constructor(world: World, random: Random) {
    this.#world = world
    this.#random = random
  }

  /** `hurried`: for somebody who does not wait for a silent site where it need not be waited for. */
  begin(hurried: boolean): void {
    this.count++
    this.#hurried = hurried
    this.names.length = 0
  }

  /** Whether a silent site is left to find out by itself. */
  givesUp(): boolean {
    return !this.patient && (this.#hurried || this.#random.chance(0.15))
  }

  get record() {
    return this.#world.witness.stored
  }

  /** Of the history that the control plane acts on. */
  get mark(): string {
    return this.#world.witness.mark
  }

  attempt(step: string): string {
    return `operation-${this.count}-${step}`
  }

  /** A step of src/control/operations/definitions begins; steps.test.ts compares the order. */
  enter(step: string): void {
    this.names.push(step)
  }

  *pause(ms: number): Generator<Step, void, Result> {
    yield { to: 'sleep', ms }
  }

  /** Asks until there is an answer that is not a request to wait. */
  *witness(request: OwnershipRequest): Generator<Step, OwnershipAnswer, Result> {
    // A writer that lives and goes on renewing its lease is not taken over from: then the refusal stands.
    let patience = LEASE_ASKS_MAX
    for (;;) {
      const answer = (yield { to: 'witness', request }) as OwnershipAnswer | null
      const wait = answer?.ok === false && answer.retryAfterMs !== null
      if (answer !== null && (!wait || --patience === 0)) return answer
      yield* this.pause(answer?.ok === false ? (answer.retryAfterMs ?? RETRY_MS) : RETRY_MS)
    }
  }

  *agent(site: Site, command: AgentCommand): Generator<Step, CommandAnswer | null, Result> {
    return (yield { to: 'agent', site, command }) as CommandAnswer | null
  }

  /**
   * Sends `record` until the agent has taken it, or is beyond it. `mayGiveUp`: an operation that was cancelled, or ran
   * into its deadline, leaves the agent to find out by itself.
   */
  *openAt(
    site: Site,
    record: OwnershipRecord,
    force: boolean,
    mayGiveUp = false,
    gaveUp = false,
  ): Generator<Step, string, Result> {
    for (;;) {
      const answer = yield* this.agent(site, { kind: 'open', record, force, gaveUp })
      if (answer !== null) return answer.ok ? 'ok' : answer.code
      if (mayGiveUp && this.givesUp()) return 'given up'
      yield* this.pause(RETRY_MS)
    }
  }

  /** A writer that was made so by force may not have heard of it before the record moved on. */
  *openAsWriter(site: Site, record: OwnershipRecord): Generator<Step, string, Result> {
    const told = yield* this.openAt(site, record, false, true)
    if (told !== 'NOT_CONSISTENT') return told
    this.#world.observer.allowLoss(site.name)
    return yield* this.openAt(site, record, true, true)
  }
}

export function wireRecord(record: OwnershipAnswer['record']): OwnershipRecord {
  const { session, epoch, state, writer, replica, mode, preferred } = record
  return { session, epoch, state, writer, replica, mode, preferred }
}
