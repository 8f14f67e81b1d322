import {
  closedRecord,
  decideOwnership,
  type Ownership,
  type OwnershipAnswer,
  type OwnershipRequest,
} from '#domain/ownership.ts'
import type { Host } from './host.ts'
import { Process } from './host.ts'
import type { Random } from './random.ts'
import type { Timeline } from './timeline.ts'

/* The witness: the real rules over a record that is persisted before each answer.
 *
 * It crashes at any point: before the commit, after the commit and before the answer, between two requests. After the
 * reboot of its host the recorded ends of leases mean nothing, so it drops them and lets nobody take over for one
 * lease and the drift. The decision function can be wrapped, which is how mistakes are planted.
 */

export interface Decided {
  readonly kind: string
  readonly from: Ownership
  readonly record: Ownership
  readonly atMs: number
}

export interface WitnessSettings {
  readonly leaseMs: number
  readonly driftMs: number
}

export class WitnessHost {
  readonly host: Host
  readonly #timeline: Timeline
  readonly #random: Random
  readonly #settings: WitnessSettings
  process: Process
  /** What the database holds. */
  stored: Ownership
  /** Every committed change of state, oldest first. */
  readonly history: Decided[] = []
  decide = decideOwnership
  onCommit: (decided: Decided) => void = () => undefined
  onRefusal: (kind: string, refusal: string) => void = () => undefined
  #waitUntilBootMs = 0
  #storedBootId: string
  #busyUntilMs = 0

  constructor(
    host: Host,
    timeline: Timeline,
    random: Random,
    settings: WitnessSettings,
    sites: readonly [string, string],
  ) {
    this.host = host
    this.#timeline = timeline
    this.#random = random
    this.#settings = settings
    this.stored = closedRecord('session', sites[0], sites[1], 'incarnation-1')
    this.#storedBootId = host.bootId
    this.process = new Process(host, timeline)
  }

  kill(): void {
    this.process.kill()
  }

  start(): void {
    this.process = new Process(this.host, this.#timeline)
    this.#busyUntilMs = 0
    const { leaseMs, driftMs } = this.#settings
    if (this.#storedBootId !== this.host.bootId) {
      this.stored = { ...this.stored, lease: null }
      this.#storedBootId = this.host.bootId
      this.#waitUntilBootMs = this.host.bootMs() + leaseMs + driftMs
    }
  }

  /** One request. `reply` may never come. Requests are decided one after the other, each behind a commit. */
  serve(request: OwnershipRequest, reply: (answer: OwnershipAnswer) => void): void {
    const process = this.process
    process.deliver(() => {
      const commitMs = this.#random.chance(0.03)
        ? this.#random.between(5, 500)
        : this.#random.between(0.3, 3)
      const start = Math.max(this.#busyUntilMs, this.#timeline.nowMs)
      this.#busyUntilMs = start + commitMs
      process.after(this.#busyUntilMs - this.#timeline.nowMs, () =>
        this.#decideNow(process, request, reply),
      )
    })
  }

  #decideNow(
    process: Process,
    request: OwnershipRequest,
    reply: (answer: OwnershipAnswer) => void,
  ): void {
    const before = this.stored
    const answer = this.decide(before, request, {
      bootMs: process.bootMs(),
      waitUntilBootMs: this.#waitUntilBootMs,
      historyTrusted: true,
      leaseMs: this.#settings.leaseMs,
      driftMs: this.#settings.driftMs,
      incarnation: 'incarnation-1',
    })
    if (!answer.ok) this.onRefusal(request.kind, answer.refusal)
    if (answer.record !== before) {
      this.stored = answer.record
      if (answer.record.epoch !== before.epoch) {
        const decided = {
          kind: request.kind,
          from: before,
          record: answer.record,
          atMs: this.#timeline.nowMs,
        }
        this.history.push(decided)
        this.onCommit(decided)
      }
    }
    // A crash in this moment has committed, and answers nothing.
    process.after(this.#random.between(0, 0.3), () => reply(answer))
  }
}
