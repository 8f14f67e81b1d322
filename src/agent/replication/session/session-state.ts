import { assert } from '#base/assert.ts'
import type { WitnessAsk } from '#wire/site/witness.ts'
import { AckGate } from './ack-gate.ts'
import { Contact, Silence } from './contact.ts'
import { Flapping } from './flapping.ts'
import { Lease } from './lease.ts'
import { NEXT_PHASES, type Phase, type Role } from './phases.ts'
import { roleOf } from './session-records.ts'
import type {
  PeerHello,
  RefusalCode,
  SessionEffect,
  SessionSettings,
  StoredSession,
} from './session-types.ts'

/* What a session remembers between two events, and the few things that every part of it does. The parts that decide are functions
 * over it: session-writer.ts, session-replica.ts, session-adopt.ts, session-witness.ts. Nobody outside of them sees it.
 */

export class SessionState {
  readonly settings: SessionSettings
  readonly lease = new Lease()
  readonly contact: Contact
  readonly silence: Silence
  readonly gate: AckGate
  readonly flapping = new Flapping()
  /** The host has not lost its power since the last process of this session. */
  readonly sameBoot: boolean
  stored: StoredSession
  phase: Phase = 'closed'
  effects: SessionEffect[] = []
  /** The peer's hello while a link under the same epoch is up. */
  link: PeerHello | null = null
  linkUpMs = 0
  /** Writer: what the frame log of that link reached back to. */
  logFrom: number | null = null
  /** `gate.sequence` means the same here and at the peer. Replica: it is exact. */
  numbered: boolean
  /** Since the boot of this host the peer or the witness has shown that this record is the newest. */
  validated: boolean
  /** The operator gave the order for break-glass since the boot of this host. */
  ordered: boolean
  served = false
  drained = false
  holdUntilMs = 0

  asking: WitnessAsk | null = null
  /** Epoch under which that was asked. */
  askedUnder = 0
  askAgainMs = 0
  /** No answer of the witness since then; null: the last question was answered. */
  unreachableSinceMs: number | null = null
  /** The replica lost writes: the witness is to be asked for `drop`. */
  wantDrop = false
  /** The replica cannot be brought up in order: the witness is to be asked for `resync`. */
  wantResync = false
  /** The replica can hold no copy now, or the link has been away for long enough. */
  wantSolo = false
  /** Writer: the delay before `solo` counts from here on: since it has been without a link, or since the old writer's contact is over. */
  lonelySinceMs: number
  /** Writer: since when what it numbers is answered alone, with the bytes of then. */
  aloneFrom: { readonly atMs: number; readonly bytes: number } | null = null
  wallAheadMs: number | null = null

  /** The copy is complete, and the rise waits until the link has been up for long enough. */
  ready: { readonly members: readonly number[] } | null = null
  /** It was caught up when the rise had to wait: look again when the wait is over. */
  watchLater = false
  /** Replica: `copy_begin` waits for the snapshot of this id. */
  keeping: { readonly id: string; readonly sequence: number } | null = null
  /** Replica: no space for the kept copy, since. */
  unfitSinceMs: number | null = null

  constructor(settings: SessionSettings, stored: StoredSession, known: number | null, now: number) {
    this.settings = settings
    this.stored = stored
    this.contact = new Contact(settings.silenceMs)
    this.silence = new Silence(settings.silenceMs, now)
    this.gate = new AckGate(this.lease, this.contact)
    const sequence = known ?? stored.clean
    this.sameBoot = known !== null
    this.validated = this.sameBoot
    this.ordered = this.sameBoot
    this.numbered = this.role === 'replica' && sequence !== null
    this.gate.numberFrom(sequence ?? 0)
    this.lonelySinceMs = now
  }

  get role(): Role {
    return roleOf(this.stored.record, this.settings.site)
  }

  get epoch(): number {
    return this.stored.record.epoch
  }

  do(effect: SessionEffect): void {
    this.effects.push(effect)
  }

  persist(change: Partial<StoredSession>): void {
    this.stored = { ...this.stored, ...change }
    this.do({ kind: 'persist', stored: this.stored })
  }

  /** Persists what differs from what is stored, if anything does. */
  settle(change: Partial<StoredSession>): void {
    const keys = Object.keys(change) as (keyof StoredSession)[]
    if (keys.some((key) => change[key] !== this.stored[key])) this.persist(change)
  }

  move(to: Phase): void {
    assert(
      to === this.phase || NEXT_PHASES[this.phase].includes(to),
      `a session moves from ${this.phase} to ${to}`,
    )
    this.phase = to
  }

  /** The link is given up by this side. */
  dropLink(tell: boolean): void {
    this.do({ kind: 'drop_link', tell })
    this.link = null
    this.ready = null
    this.watchLater = false
    // The end of a link that this side drops is reported by no event: what waited for it would wait on the next one.
    this.keeping = null
  }

  /** What the replica has not acknowledged is going to be answered without it, what is held included. */
  beginAlone(now: number): void {
    const { bytes } = this.gate
    this.aloneFrom ??= { atMs: now, bytes: bytes - this.gate.unacknowledgedBytes() }
  }

  serve(): void {
    this.do({ kind: 'input', open: true })
    if (this.served) return
    this.served = true
    this.do({ kind: 'serve' })
  }

  /** The mark of a clean stop holds only until something may change. */
  consumeCleanMark(): void {
    this.settle({ clean: null })
  }

  refuse(code: RefusalCode, text: string): void {
    this.do({ kind: 'refuse_command', code, text })
  }

  refuseStale(epoch: number): void {
    this.refuse('STALE_EPOCH', `epoch ${epoch} is named, ${this.epoch} is known here`)
  }

  /**
   * The kept copy is not needed any more. `restored`: the volumes are what it holds, so nothing of it is lost yet. Released first and forgotten after that, so that
   * whoever dies in between releases it again, which is nothing.
   */
  dropKept(restored: boolean): void {
    const { kept, ackedAlone } = this.stored
    if (kept === null) return
    this.do({ kind: 'release_kept', id: kept, divergence: ackedAlone && !restored })
    this.persist({ kept: null, ackedAlone: ackedAlone && restored })
  }

  /**
   * What the volumes hold is some state of the group, which a resync must not destroy. A side that was the writer overwrites its own only
   * when that is kept, where copies are kept at all.
   */
  get holdsState(): boolean {
    const { consistent, divergent, kept } = this.stored
    return consistent || (divergent && kept === null && this.settings.keepsCopies === true)
  }

  /** Replica that was the writer until a switch, and may hold a few writes more than were answered: durably everything that was, and nobody has overwritten
   *  it since. Its numbers end there. */
  get complete(): boolean {
    const { consistent, divergent } = this.stored
    return this.role === 'replica' && consistent && divergent
  }

  /** The wall clock now, ms; null: no tick has told it yet. */
  wallMs(now: number): number | null {
    return this.wallAheadMs === null ? null : Math.round(now + this.wallAheadMs)
  }

  /** The session is over here. */
  end(): void {
    const { kept, consistent } = this.stored
    if (kept !== null && !consistent) {
      // What is left here should be some state of the group, not the middle of a copy. Noted before the copy is released: whoever dies
      // after that must not look for it again. (A copy that nobody names goes at the next start.)
      this.do({ kind: 'restore_kept', id: kept })
      this.persist({ consistent: true, kept: null })
      this.do({ kind: 'release_kept', id: kept, divergence: false })
    } else this.dropKept(false)
    this.served = false
    const here = this.stored.record.writer === this.settings.site
    const { torn } = this.stored
    if (here) this.do({ kind: 'end', serving: 'standalone', copy: false, torn: false })
    else this.do({ kind: 'end', serving: 'standby', copy: this.holdsState, torn })
    if (this.phase !== 'closed') this.move('closed')
  }
}
