import type { Clock } from '#base/clock.ts'
import { BrokenInvariant } from '#base/assert.ts'
import { Fault, type FaultKind } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import {
  NOT_CONSISTENT,
  NOT_WRITER,
  NOT_YET,
  SESSION_FAILED,
  STALE_EPOCH,
  WRONG_STATE,
} from './faults.ts'
import type { Session, SessionEffect, SessionEvent } from './session/session.ts'

/* The queue between the world and the pure session.
 *
 *     event ──► queue ──► Session.handle ──► effects ──► edge.carryOut, one after the other ──► next event
 *
 * Owns the order: everything that the session decides goes through one queue, and an event's effects are carried out, in order
 * and to their end, before the next event is looked at. The hot path (writer, receiver) does not pass through it.
 *
 * Owns how a session stops being one as well, in three degrees:
 *
 *     closing    the agent stops: nothing new is begun (links, dialling, input), what is in flight is settled
 *     ended      closed files: every event that is still queued is dropped
 *     broken     an effect could not be carried out. What is on disk and what the session believes may differ from now on, so it
 *                does nothing more until the agent is started again; the other sessions go on
 */

/** An effect that reaches the world; what a command is refused for stays with the queue. */
export type WorldEffect = Exclude<SessionEffect, { kind: 'refuse_command' }>

/** What the queue asks of the shell around it. */
export interface SessionEdge {
  /** There is a writer. */
  isWriter(): boolean
  /** The session has decided to be one: before the first effect of that event. A failure is not survived. */
  becomeWriter(): Promise<void>
  carryOut(effect: WorldEffect): Promise<void>
  /** The session is broken: stop serving, linking and copying, at once. */
  broken(): void
  /** Before the session or the process stops over it: this site's disk may have lost something. */
  failed(error: unknown): void
}

export interface SessionCoreParts {
  readonly session: Session
  readonly clock: Clock
  readonly log: Log
  readonly edge: SessionEdge
}

const REFUSALS: Record<string, FaultKind> = {
  STALE_EPOCH,
  NOT_CONSISTENT,
  NOT_WRITER,
  WRONG_STATE,
  NOT_YET,
}

export class SessionCore {
  readonly session: Session
  readonly clock: Clock
  readonly log: Log
  readonly #edge: SessionEdge
  #queue: Promise<void> = Promise.resolve()
  #queued = 0
  #refused: { code: string; text: string } | null = null
  #closing = false
  #ended = false
  #broken: Fault | null = null
  /** Woken after every event. */
  readonly #watchers = new Set<() => void>()

  constructor({ session, clock, log, edge }: SessionCoreParts) {
    this.session = session
    this.clock = clock
    this.log = log
    this.#edge = edge
  }

  get id(): string {
    return this.session.settings.session
  }

  /** CLOCK_BOOTTIME, ms. */
  now(): number {
    return this.clock.bootMs()
  }

  // -- how far the session has stopped --------------------------------------------------------------------------------

  get closing(): boolean {
    return this.#closing
  }

  get ended(): boolean {
    return this.#ended
  }

  /** Why the session does nothing any more. */
  get broken(): Fault | null {
    return this.#broken
  }

  /** Events wait, or one is being carried out. */
  get busy(): boolean {
    return this.#queued > 0
  }

  beginClosing(): void {
    this.#closing = true
  }

  end(): void {
    this.#ended = true
  }

  // -- events ---------------------------------------------------------------------------------------------------------

  /** Resolves when the effects have been carried out. Not from within `inTurn`: it would wait for itself. */
  handle(event: SessionEvent): Promise<void> {
    return this.inTurn(() => this.process(event))
  }

  /** Events whose sender waits for nothing. A failure here is one of this site's disk, or a mistake of ours: end the process
   *  rather than go on with effects half done. */
  post(event: SessionEvent): void {
    this.handle(event).catch((error: unknown) => this.fatal(error))
  }

  /** Runs `work` when everything queued before it is done, and holds up what comes after it. */
  inTurn<T>(work: () => Promise<T>): Promise<T> {
    this.#queued++
    const result = this.#queue.then(work)
    this.#queue = result.then(
      () => this.#dequeued(),
      () => this.#dequeued(),
    )
    return result
  }

  #dequeued(): void {
    this.#queued--
    for (const wake of this.#watchers) wake()
  }

  /** Only from within `inTurn`. */
  async process(event: SessionEvent): Promise<void> {
    if (this.#ended) return
    if (this.#broken !== null) {
      // Commands must hear of it; events have nobody to tell.
      if (event.kind === 'open' || event.kind === 'hold' || event.kind === 'close')
        throw this.#broken
      return
    }
    const before = this.session.phase
    const effects = this.session.handle(event)
    if (before !== this.session.phase) {
      const { epoch, state } = this.session.stored.record
      this.log.info({ from: before, to: this.session.phase, on: event.kind, epoch, state }, 'phase')
    }
    if (this.session.role === 'writer' && !this.#edge.isWriter()) await this.#edge.becomeWriter()
    for (const effect of effects) {
      if (effect.kind === 'refuse_command') {
        this.#refused = { code: effect.code, text: effect.text }
        continue
      }
      try {
        await this.#edge.carryOut(effect)
      } catch (error) {
        if (error instanceof BrokenInvariant) throw error
        return this.#break(effect.kind, error)
      }
    }
  }

  /** As `process`, for an event that the session may refuse: rejects with the Fault. `doing`: as in "opening session 7". */
  async command(event: SessionEvent, doing: string): Promise<void> {
    this.#refused = null
    await this.process(event)
    const refused = this.#refused as { code: string; text: string } | null
    this.#refused = null
    if (this.#broken !== null) throw this.#broken
    if (refused === null) return
    throw new Fault(
      REFUSALS[refused.code] ?? WRONG_STATE,
      `${doing} session ${this.id}: ${refused.text}`,
    )
  }

  /** This site's disk did not do what the session has decided on. */
  #break(doing: string, error: unknown): void {
    this.log.error({ err: error, doing }, 'session stopped: its state could not be kept')
    this.#broken = new Fault(SESSION_FAILED, `${doing} of session ${this.id}`, {}, error)
    this.session.gate.mode = 'closed'
    this.#edge.failed(error)
    this.#edge.broken()
  }

  /** Ends the process: nobody who could be told is waiting, and going on would be on effects half done. */
  fatal(error: unknown): void {
    this.session.gate.mode = 'closed'
    this.#edge.failed(error)
    this.log.fatal({ err: error }, 'effects of the session could not be carried out')
    process.nextTick(() => {
      throw error
    })
  }

  // -- waiting --------------------------------------------------------------------------------------------------------

  /** Resolves true as soon as `condition` holds after an event, false after `ms`. */
  until(condition: () => boolean, ms: number): Promise<boolean> {
    if (condition()) return Promise.resolve(true)
    return new Promise((resolve) => {
      const end = (result: boolean) => {
        this.#watchers.delete(look)
        cancel()
        resolve(result)
      }
      const look = () => {
        if (condition()) end(true)
      }
      const cancel = this.clock.after(ms, () => end(condition()))
      this.#watchers.add(look)
    })
  }

  /** As `until`, for conditions that no event announces. */
  async waitFor(condition: () => boolean, ms: number): Promise<boolean> {
    const end = this.now() + ms
    while (!condition() && this.now() < end) {
      await new Promise<void>((resolve) => void this.clock.after(20, resolve))
    }
    return condition()
  }
}
