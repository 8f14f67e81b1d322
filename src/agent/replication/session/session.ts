import { unreachable } from '#base/assert.ts'
import type { OwnershipRecord } from '#wire/site/witness.ts'
import type { AckGate } from './ack-gate.ts'
import type { Contact, Silence } from './contact.ts'
import type { Lease } from './lease.ts'
import type { Phase, Role } from './phases.ts'
import {
  close,
  FROZEN,
  isShared,
  open,
  peerRecord,
  promote,
  servedPlainly,
} from './session-adopt.ts'
import {
  catchUp,
  copyBegin,
  keptCopy,
  linkedToWriter,
  readyToRise,
  replicaTick,
  riseCommitted,
  unlinkedFromWriter,
} from './session-replica.ts'
import { SessionState } from './session-state.ts'
import type {
  PeerHello,
  PeerRefusal,
  SessionEffect,
  SessionEvent,
  SessionMessage,
  SessionSettings,
  StoredSession,
} from './session-types.ts'
import { arbitrate, askIfDue, witnessAnswered, witnessTick } from './session-witness.ts'
import {
  accepted,
  caughtUp,
  copied,
  endHold,
  hold,
  linked,
  logDropped,
  membersChanged,
  reconciled,
  riseLater,
  risen,
  unlinked,
} from './session-writer.ts'

export { roleOf, unopened } from './session-records.ts'
export type {
  Arbitration,
  CopyScope,
  PeerHello,
  PeerRefusal,
  RefusalCode,
  SessionEffect,
  SessionEvent,
  SessionMessage,
  SessionSettings,
  StoredSession,
} from './session-types.ts'

/* What one site may do in one session: decides, does nothing.
 *
 *     events ──► Session.handle ──► effects        (the shell, or the simulator, carries the effects out IN ORDER;
 *                     │                             those that say so are finished before the
 *       gate, lease, contact, silence               next effect starts; the next event is handled after the last effect)
 *                     ▲
 *        hot path: one clock reading per release
 *
 * No I/O, no promises, no clock, no chance in here. Four things are decided outside of events, because they happen per request, or before there is
 * a link: numbering a write, releasing answers (both in `gate`), noting heartbeats (`contact.heard` at the writer, `silence.answered` at
 * the replica), and refusing a link (`refusalOf`). They read what the events decided.
 *
 *     session.ts          this: what can happen, and who decides about it
 *     session-types.ts    the words between session and shell
 *     session-state.ts    what is remembered
 *     session-records.ts  what follows from a record
 *     session-writer.ts   writer and replica · session-replica.ts  replica and writer
 *     session-adopt.ts    records of higher epochs · session-witness.ts  questions and answers
 *     phases.ts           phases and legal moves
 *     ack-gate.ts, lease.ts, contact.ts, flapping.ts   what they measure with
 *
 * The other files of this folder belong to the shell, which has files and sockets.
 *
 * Rules that they keep:
 * - A record is adopted only when its epoch is higher. It is persisted before anything is done under it; what must
 *   stop (the gate) stops before it is persisted.
 * - A drop of the right to answer takes effect in `handle` itself, not when its effects are carried out. A right that rests on
 *   something persisted is used by a later event than the one that persists it.
 * - `rise` is asked only after `riseAsked` is persisted. From then on only an answer under a higher epoch settles what
 *   happened: a delayed first request may be carried out long after a later answer said that it was not.
 * - Attempt ids are made from the epoch: an epoch can be risen from, or dropped from, once, so a repeat by whichever
 *   process is the same attempt.
 * - Change maps err to one side: blocks are marked before a record is persisted that relies on it, and cleared after one.
 * - A replica's last consistent state is kept before the first block of a resync, and goes when the rise is persisted.
 */

/** Phases in which a replica applies what the writer sends. */
const APPLYING: ReadonlySet<Phase> = new Set<Phase>(['receiving', 'catching_up', 'following'])
/** Phases in which a writer answers, if the gate lets it. */
const ANSWERING: ReadonlySet<Phase> = new Set<Phase>([
  'alone',
  'catching_up',
  'copying',
  'following',
])

export class Session {
  readonly #state: SessionState

  /**
   * `stored`: the epoch file. `known`: number of the last write applied (replica) or given out (writer) out of the run file;
   * null when it is of another boot, or missing. `now`: CLOCK_BOOTTIME at process start, ms.
   */
  constructor(settings: SessionSettings, stored: StoredSession, known: number | null, now: number) {
    this.#state = new SessionState(settings, stored, known, now)
  }

  get settings(): SessionSettings {
    return this.#state.settings
  }

  get lease(): Lease {
    return this.#state.lease
  }

  get contact(): Contact {
    return this.#state.contact
  }

  get silence(): Silence {
    return this.#state.silence
  }

  get gate(): AckGate {
    return this.#state.gate
  }

  get stored(): StoredSession {
    return this.#state.stored
  }

  get phase(): Phase {
    return this.#state.phase
  }

  get role(): Role {
    return this.#state.role
  }

  /** True while the peer is linked under the same epoch. */
  get linked(): boolean {
    return this.#state.link !== null
  }

  /** Volumes are exported through the session (answers may still wait). */
  get served(): boolean {
    return this.#state.served
  }

  /** Replica: frames of the writer are to be applied. False between `copy_begin` and the end of `kept`. */
  get applies(): boolean {
    return this.role === 'replica' && this.linked && APPLYING.has(this.phase)
  }

  /** Writer: the blocks of each write are set in the change map before it is carried out. */
  get marks(): boolean {
    return this.stored.record.state !== 'in_sync' || this.stored.unwitnessed
  }

  /** Everything numbered is durable on both sides, and nothing new is taken. */
  get drained(): boolean {
    return this.#state.drained
  }

  /** Why this side, or at a writer the linked replica, can hold no copy now; null: it can, as far as is known. */
  get unfit(): PeerHello['unfit'] {
    const { link, unfitSinceMs } = this.#state
    if (this.role === 'writer') return link?.unfit ?? null
    return unfitSinceMs === null ? null : 'no_space'
  }

  /** The phase as an operator should see it: a writer without the right to answer is `held`. */
  shownPhase(now: number): Phase {
    const answering = this.role === 'writer' && ANSWERING.has(this.phase)
    return answering && !this.gate.mayAnswer(now) ? 'held' : this.phase
  }

  /** What this side says of itself when a link opens. `ownRegionsDirty`: its own intent bitmap has set bits. `failed`: one of its
   *  volumes has failed for ever. */
  hello(ownRegionsDirty: boolean, failed = false): PeerHello {
    const { stored, numbered, complete } = this.#state
    const { record, divergent, consistent, baseEpoch, exact } = stored
    return {
      record,
      role: this.role,
      clean: numbered && exact,
      divergent: divergent || (!numbered && ownRegionsDirty),
      consistent,
      ...(complete && { complete }),
      ...(exact && { exact }),
      applied: this.gate.sequence,
      baseEpoch,
      unfit: failed ? 'failed' : this.role === 'replica' ? this.unfit : null,
    }
  }

  /**
   * Whether `site`, which dials and shows `record`, is refused a link; null: it is the replica of this writer. Changes
   * nothing, so that the answer need not wait for events: `link_up` looks at the records again.
   */
  refusalOf(site: string, record: OwnershipRecord): PeerRefusal | null {
    const { epoch } = this.#state
    const known = `epoch ${epoch} is known here`
    if (record.epoch > epoch) return { code: 'OLDER_EPOCH', text: known }
    if (record.epoch < epoch) return { code: 'STALE_EPOCH', text: known }
    if (this.role !== 'writer' || site !== this.stored.record.replica) {
      return { code: 'WRONG_ROLE', text: `this site is ${this.role} in epoch ${epoch}` }
    }
    if (!this.stored.unwitnessed) return null
    return {
      code: 'UNWITNESSED',
      text: 'this site writes alone, and the witness does not know yet',
    }
  }

  /** Decides; the caller carries the effects out in order before it hands over the next event. */
  handle(event: SessionEvent): readonly SessionEffect[] {
    const s = this.#state
    s.effects = []
    this.#decide(event)
    askIfDue(s, event.now, event.kind === 'tick')
    return s.effects
  }

  #decide(event: SessionEvent): void {
    const s = this.#state
    switch (event.kind) {
      case 'start':
        return this.#start(event)
      case 'open':
        return open(s, event)
      case 'served_plainly':
        return servedPlainly(s)
      case 'close':
        return close(s, event)
      case 'promote':
        return promote(s, event)
      case 'arbitrate':
        return arbitrate(s, event)
      case 'members_changed':
        return membersChanged(s)
      case 'hold':
        return hold(s, event.now, event.epoch, event.holdMs)
      case 'release':
        return endHold(s)
      case 'link_up':
        return this.#linkUp(event)
      case 'link_down':
        if (s.link === null) return
        s.link = null
        s.ready = null
        s.watchLater = false
        return this.role === 'writer' ? unlinked(s, event.now) : unlinkedFromWriter(s)
      case 'peer_record':
        return peerRecord(s, event.now, event.record)
      case 'message':
        if (s.link !== null) this.#message(event.now, event.message)
        return
      case 'witness':
        return witnessAnswered(s, event)
      case 'reconciled':
        return reconciled(s)
      case 'copied':
        return copied(s, event.now, event.members)
      case 'caught_up':
        return caughtUp(s, event.now)
      case 'log_dropped':
        return logDropped(s)
      case 'kept':
        return keptCopy(s, event.now, event.id, event.ok)
      case 'drained':
        if (s.phase === 'draining' && s.gate.settled) s.drained = true
        return
      case 'tick':
        return this.#tick(event)
      default:
        return unreachable(event)
    }
  }

  #start({ now, over }: Extract<SessionEvent, { kind: 'start' }>): void {
    const s = this.#state
    const { record, clean, consistent, divergent, promoting } = s.stored
    if (s.epoch === 0) return
    // A writer that lost its power is `divergent` when it is one no more, and what a resync keeps was made durable with its name.
    const copy = s.role !== 'writer' && over !== true && consistent && !divergent
    if (!s.sameBoot && clean === null && copy) s.settle({ torn: true })
    // A loss of power takes the change map, and what a replica applied, unless a clean stop left nothing to take.
    const prefix = record.state === 'solo' && s.role === 'replica' && !divergent
    const intact = clean !== null && (record.state === 'in_sync' || prefix)
    if (!s.sameBoot && !intact) {
      // Whoever is still becoming the writer has answered nothing that could be lost, and made durable what it had before.
      const lost = s.role === 'writer' && isShared(s.stored) && !promoting && !s.stored.ackedAlone
      s.settle({ exact: false, whole: s.stored.whole && !lost })
    }
    switch (s.role) {
      case 'none':
        return s.end()
      case 'writer':
        if (record.state === 'frozen') {
          s.do({ kind: 'refuse', reason: FROZEN })
          return s.move('frozen')
        }
        s.lonelySinceMs = now
        s.do({ kind: 'refuse', reason: 'not ready: the session is starting' })
        return s.move(promoting ? 'promoting' : 'opening')
      case 'replica':
        s.do({ kind: 'refuse', reason: `written at ${record.writer}` })
        s.move('waiting')
        return s.do({ kind: 'dial', on: true })
      case 'fenced':
        s.do({ kind: 'refuse', reason: `written at ${record.writer}` })
        return s.move('fenced')
    }
  }

  #linkUp(event: Extract<SessionEvent, { kind: 'link_up' }>): void {
    const s = this.#state
    const { now, hello, logFrom } = event
    if (hello.record.epoch !== s.epoch) return peerRecord(s, now, hello.record)
    if (s.role === 'writer' && hello.role === 'replica' && !s.stored.unwitnessed) {
      s.link = hello
      s.linkUpMs = now
      s.logFrom = logFrom
      s.validated = true
      s.contact.end()
      linked(s, now, hello)
    } else if (s.role === 'replica' && hello.role === 'writer') {
      s.link = hello
      s.validated = true
      // A copy begins with each link anew, whatever one before has begun to keep.
      s.keeping = null
      linkedToWriter(s)
    } else {
      // Same epoch, roles that do not fit: one of us holds a record the witness never wrote. Ask, do not talk.
      s.dropLink(false)
    }
  }

  #message(now: number, message: SessionMessage): void {
    const s = this.#state
    const writer = s.role === 'writer'
    switch (message.kind) {
      case 'catch_up':
        return writer ? undefined : catchUp(s, message.sequence)
      case 'copy_begin':
        return writer ? undefined : copyBegin(s, now, message.sequence)
      case 'rise':
        return writer ? undefined : readyToRise(s, message.epoch, message.members)
      case 'epoch':
        if (writer || !riseCommitted(s, message.record)) peerRecord(s, now, message.record)
        return
      case 'risen':
        return writer ? risen(s, message.epoch) : undefined
      case 'epoch_accepted':
        return writer ? accepted(s, now, message.epoch) : undefined
      default:
        return unreachable(message)
    }
  }

  #tick({ now, wallMs }: Extract<SessionEvent, { kind: 'tick' }>): void {
    const s = this.#state
    if (wallMs !== undefined) s.wallAheadMs = wallMs - now
    if (s.role === 'replica') return replicaTick(s, now)
    if (s.role !== 'writer') return
    if (s.phase === 'draining' && now >= s.holdUntilMs) endHold(s)
    s.do({ kind: 'release' })
    riseLater(s, now)
    witnessTick(s, now)
  }

  /** For the shell at a clean stop: what to persist last, after everything numbered or applied was made durable. */
  cleanMark(): StoredSession | null {
    const { numbered, gate, stored } = this.#state
    if (stored.unwitnessed) return null
    const settled = this.role === 'replica' ? numbered : numbered && gate.settled
    return settled ? { ...stored, clean: gate.sequence } : null
  }
}
