import { type OperationName, Operations } from './operations.ts'
import { type Operation, type Result, type Step, Steps } from './operator-steps.ts'
import type { Random } from './random.ts'
import type { Site } from './site.ts'
import type { World } from './world.ts'

/* The operations of the control plane, in the order of steps of docs/architecture/replication.md. An operation is durable:
 * when the control plane dies, the step that was under way is begun again with the same attempt id. One operation at a
 * time; each ends, in success or in a refusal that changed nothing.
 */

/** Some networks say at once that nobody is there, others say nothing. */
const STEADY_TIMEOUT_MS = 4_000
const STEP_TIMEOUTS_MS = [600, STEADY_TIMEOUT_MS, STEADY_TIMEOUT_MS]

export class Operator {
  readonly #world: World
  readonly #random: Random
  readonly #do: Steps
  readonly #operations: Operations
  readonly #stepMs: number
  #operation: Operation | null = null
  #name: OperationName | null = null
  #startedMs = 0
  #step: Step | null = null
  /** Raised with every step begun, so that late answers to an earlier try are ignored. */
  #try = 0
  #ended: (() => void) | null = null
  /** The last operation that was begun, and how it ended. */
  last: OperationName | null = null
  result = ''
  /** Of a heal: how often a refused rebuild was followed up. */
  tells = 0

  constructor(world: World) {
    this.#world = world
    this.#random = world.random.fork()
    this.#stepMs =
      world.plan.steady === true ? STEADY_TIMEOUT_MS : this.#random.pick(STEP_TIMEOUTS_MS)
    this.#do = new Steps(world, this.#random)
    this.#operations = new Operations(world, this.#random, this.#do)
  }

  /** A failover is being decided or carried out. */
  get deciding(): boolean {
    return this.#operations.deciding
  }

  /** Of the operation that began last. */
  get steps(): readonly string[] {
    return this.#do.names
  }

  get patient(): boolean {
    return this.#do.patient
  }

  set patient(patient: boolean) {
    this.#do.patient = patient
  }

  get busy(): OperationName | null {
    return this.#name
  }

  get startedMs(): number {
    return this.#startedMs
  }

  /** `next`: begun in a hurry, and called when it has ended, unless the database forgets it. */
  start(name: OperationName, next: (() => void) | null = null): void {
    if (this.#operation !== null) return
    this.#do.begin(next !== null)
    this.#name = name
    this.#ended = next
    this.last = name
    this.#startedMs = this.#world.timeline.nowMs
    this.#world.log(() => `operation ${name} begins`)
    this.#operation = this.#operations.begin(name)
    this.#advance(null)
  }

  /** The control plane lives again. */
  resume(): void {
    if (this.#operation === null) return
    this.#world.coverage.count('operation resumed')
    this.#begin()
  }

  /** The database was replaced by an older copy: it knows nothing of the operation. */
  forget(): void {
    if (this.#operation === null) return
    this.#world.log(() => `operation ${this.#name} is forgotten`)
    this.#world.coverage.count(`operation forgotten`)
    this.#try++
    this.#operation = null
    this.#name = null
    this.#step = null
  }

  /**
   * Vouches for a record in doubt, where that is true: the site that says nothing is off, and acted under nothing that is not known.
   * When both have spoken there is nothing to state but which of two claims counts: everything else settles itself.
   */
  vouch(): void {
    const { witness } = this.#world
    const [off] = witness.awaits
    if (witness.trusted) return
    if (off === undefined) {
      if (this.patient && witness.disputed) witness.vouch()
      return
    }
    const site = this.#world.site(off)
    if (witness.awaits.length > 1 || site.host.powered) return
    if (site.epoch.value.record.epoch <= witness.newestKnown) witness.vouch(off)
  }

  #advance(result: Result): void {
    const operation = this.#operation
    if (operation === null) return
    const next = operation.next(result)
    if (next.done === true) {
      this.#world.log(() => `operation ${this.#name} ends: ${next.value}`)
      this.#world.coverage.count(`operation ${this.#name} ${next.value}`)
      this.result = next.value
      this.#operation = null
      this.#name = null
      this.#step = null
      this.#ended?.()
      return
    }
    this.#step = next.value
    this.#begin()
  }

  #begin(): void {
    const step = this.#step
    const { witness } = this.#world
    const { process } = witness
    if (step === null || !process.alive) return
    const attempt = ++this.#try
    const settle = (result: Result) => {
      if (attempt !== this.#try || !process.alive) return
      this.#try++
      this.#advance(result)
    }
    if (step.to === 'sleep') {
      process.after(step.ms, () => settle(null))
      return
    }
    process.after(this.#stepMs, () => settle(null))
    if (step.to === 'witness') witness.serve(step.request, settle)
    else {
      // No epoch guards this one.
      const late = () => attempt !== this.#try
      const command = step.command.kind === 'serve' ? { ...step.command, late } : step.command
      this.#world.command(step.site, command, settle)
    }
  }

  /** Somebody at `site` breaks the glass: past the control plane, into the agent of that host. */
  breakGlass(site: Site): void {
    const world = this.#world
    const agent = world.agentAt(site)
    if (agent === null || agent.process.paused || site.failed) return
    world.log(() => `break-glass at ${site.name}`)
    agent.command({ kind: 'promote', force: true }, (answer) => {
      world.coverage.count(`break-glass ${answer.ok ? 'ok' : answer.code}`)
    })
  }
}
