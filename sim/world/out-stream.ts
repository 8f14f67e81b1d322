import type { BlockRange } from './site.ts'
import type { AgentView } from './views.ts'

/* What the writer sends to its replica: numbered frames in order, kept until they are acknowledged, and questions for flushes. While the writer
 * goes on alone, what it answered is kept as well, up to the limit of the frame log.
 */

export interface Frame {
  readonly sequence: number
  readonly blocks: readonly number[]
  readonly values: readonly number[]
  readonly copy: boolean
}

/** So many frames of the end of a frame log may still be on their way when it counts as caught up. */
const CAUGHT_UP_FRAMES = 2

export class OutStream {
  readonly #agent: AgentView
  /** Frames that the replica has not acknowledged; `#sentUpTo` of them are on this link. */
  #retained: Frame[] = []
  #open = false
  #sentUpTo = 0
  #flushId = 0
  readonly #flushes = new Map<number, () => void>()
  /** Answered frames that the replica lacks are kept, up to the limit. */
  #log = false
  #watching = false

  constructor(agent: AgentView) {
    this.#agent = agent
  }

  get open(): boolean {
    return this.#open
  }

  /** Frames that are kept. */
  get length(): number {
    return this.#retained.length
  }

  /** Everything behind this number is still here. */
  get logFrom(): number | null {
    const { gate } = this.#agent.session
    if (!this.#log && !gate.needsReplica) return null
    return (this.#retained[0]?.sequence ?? gate.sequence + 1) - 1
  }

  logFrames(on: boolean): void {
    this.#log = on
    if (on) this.#markRetained()
  }

  #markRetained(): void {
    const { changes } = this.#agent.site
    for (const frame of this.#retained) if (!frame.copy) changes.mark(frame.blocks)
  }

  forget(mark: boolean): void {
    if (mark) this.#markRetained()
    this.#retained = []
  }

  /** What is opened next begins with nothing. */
  renew(): void {
    this.#log = false
    this.#retained = []
    this.#open = false
  }

  watchCatchUp(): void {
    this.#watching = true
    this.watch()
  }

  /** The replica has acknowledged more, or it was asked for. */
  watch(): void {
    const { gate } = this.#agent.session
    if (!this.#watching || gate.sequence - gate.acknowledged > CAUGHT_UP_FRAMES) return
    this.#watching = false
    this.#agent.feed(() => ({ kind: 'caught_up', now: this.#agent.now() }))
  }

  /** The link carries frames from here on, the first of them behind `after`, which the replica has, as it has said when the link opened. */
  begin(after: number): void {
    this.#open = true
    this.#sentUpTo = after
    this.#retained = this.#retained.filter((frame) => frame.sequence > after)
  }

  gone(): void {
    this.#open = false
    this.#flushes.clear()
    this.#watching = false
  }

  add(frame: Frame): void {
    const { session, world } = this.#agent
    if (!session.linked && !session.gate.needsReplica && !this.#log) {
      this.#retained = []
      return
    }
    this.#retained.push(frame)
    if (this.#log && !session.gate.needsReplica && this.#retained.length > world.logFrames) {
      world.coverage.count('frame log dropped')
      this.#log = false
      if (!this.#open) this.#retained = []
      this.#agent.feed(() => ({ kind: 'log_dropped', now: this.#agent.now() }))
    }
    if (world.plan.logHole && this.#log && !this.#open && this.#retained.length === 9) {
      this.#retained.splice(4, 1)
    }
    this.send()
  }

  send(): void {
    if (!this.#open) return
    for (const frame of this.#retained) {
      if (frame.sequence <= this.#sentUpTo) continue
      this.#sentUpTo = frame.sequence
      this.#agent.link.send({ t: 'frame', ...frame })
    }
  }

  /** The replica has everything up to `sequence`. */
  acknowledged(sequence: number): void {
    const kept = this.#retained.findIndex((frame) => frame.sequence > sequence)
    if (kept < 0) this.#retained = []
    else if (kept > 0) this.#retained.splice(0, kept)
  }

  /** The replica makes durable what was sent so far, then `done`. False while no stream is open. */
  flush(range: BlockRange, done: () => void): boolean {
    if (!this.#open) return false
    const id = ++this.#flushId
    this.#flushes.set(id, done)
    this.#agent.link.send({ t: 'flush', id, range })
    return true
  }

  flushed(id: number): void {
    const done = this.#flushes.get(id)
    this.#flushes.delete(id)
    done?.()
  }
}
