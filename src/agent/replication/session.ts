import { assert, unreachable } from '#base/assert.ts'
import type { OwnershipRecord, WitnessAnswer, WitnessAsk } from '#wire/site/witness.ts'
import { AckGate } from './ack-gate.ts'
import { Contact, Silence } from './contact.ts'
import { Lease } from './lease.ts'
import { NEXT_PHASES, type Phase, type Role } from './phases.ts'
import type {
  PeerHello,
  PeerRefusal,
  RefusalCode,
  SessionEffect,
  SessionEvent,
  SessionMessage,
  SessionSettings,
  StoredSession,
} from './session-types.ts'

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
 *                     │                             `persist`, `make_durable` and `mark_joined` are finished before the
 *       gate, lease, contact, silence               next effect starts; the next event is handled after the last effect)
 *                     ▲
 *        hot path: one clock reading per release
 *
 * No I/O, no promises, no clock, no chance in here. Three things are decided outside of events, because they
 * happen per request: numbering a write, releasing answers (both in `gate`), and noting heartbeats (`contact.heard` at the
 * writer, `silence.answered` at the replica). They read what the events decided.
 *
 * Rules that the code below keeps:
 * - A record is adopted only when its epoch is higher. It is persisted before anything is done under it; what must
 *   stop (the gate) stops before it is persisted.
 * - A drop of the right to answer takes effect in `handle` itself, not when its effects are carried out.
 * - `rise` is asked only after `riseAsked` is persisted. From then on only an answer under a higher epoch settles what
 *   happened: a delayed first request may be carried out long after a later answer said that it was not.
 * - Attempt ids are made from the epoch: an epoch can be risen from, or dropped from, once, so a repeat by whichever
 *   process is the same attempt.
 */

type State = OwnershipRecord['state']

/** States in which the writer answers without its peer, under a lease. */
const ALONE: ReadonlySet<State> = new Set<State>(['resyncing', 'solo', 'failed_over'])
/** States in which the recorded replica takes the writer's stream. */
const LINKED: ReadonlySet<State> = new Set<State>(['resyncing', 'in_sync', 'solo', 'frozen'])

/** Phases in which a replica applies what the writer sends. */
const APPLYING: ReadonlySet<Phase> = new Set<Phase>(['receiving', 'catching_up', 'following'])

/** Wait of the witness's next question after it could not be reached, as a share of the renewal interval. */
const RETRY_SHARE = 0.25

/** The role that `record` gives to `site`. */
export function roleOf(record: OwnershipRecord, site: string): Role {
  if (record.state === 'closed') return 'none'
  if (record.writer === site) return 'writer'
  return record.replica === site && LINKED.has(record.state) ? 'replica' : 'fenced'
}

/** A session that was never opened at this site. */
export function unopened(session: string): StoredSession {
  const record: OwnershipRecord = {
    session,
    epoch: 0,
    state: 'closed',
    writer: '',
    replica: '',
    mode: 'witness',
    preferred: '',
  }
  return {
    record,
    consistent: false,
    base: false,
    riseAsked: false,
    divergent: false,
    promoting: false,
    clean: null,
    baseEpoch: 0,
    priorBase: 0,
    exact: true,
    kept: null,
    ackedAlone: false,
    unwitnessed: false,
    promoted: false,
    wanted: null,
    outOfTouchMs: null,
  }
}

export class Session {
  readonly settings: SessionSettings
  readonly lease: Lease
  readonly contact: Contact
  readonly silence: Silence
  readonly gate: AckGate
  #stored: StoredSession
  #phase: Phase = 'closed'
  #effects: SessionEffect[] = []
  /** The peer's hello while a link under the same epoch is up. */
  #link: PeerHello | null = null
  /** `gate.sequence` means the same here and at the peer. Replica: it is exact. */
  #numbered: boolean
  #served = false
  #asking: WitnessAsk | null = null
  #askAgainMs = 0
  /** The replica lost writes: the witness is to be asked for `drop`, all or only dirty regions to be copied. */
  #wantDrop = false
  #holdUntilMs = 0
  #drained = false

  /**
   * `stored`: the epoch file. `known`: number of the last write applied (replica) or given out (writer) out of the run file;
   * null when it is of another boot, or missing. `now`: CLOCK_BOOTTIME at process start, ms.
   */
  constructor(settings: SessionSettings, stored: StoredSession, known: number | null, now: number) {
    this.settings = settings
    this.#stored = stored
    this.lease = new Lease()
    this.contact = new Contact(settings.silenceMs)
    this.silence = new Silence(settings.silenceMs, now)
    this.gate = new AckGate(this.lease, this.contact)
    const sequence = known ?? stored.clean
    this.#numbered = this.role === 'replica' && sequence !== null
    this.gate.numberFrom(sequence ?? 0)
  }

  get stored(): StoredSession {
    return this.#stored
  }

  get phase(): Phase {
    return this.#phase
  }

  get role(): Role {
    return roleOf(this.#stored.record, this.settings.site)
  }

  /** True while the peer is linked under the same epoch. */
  get linked(): boolean {
    return this.#link !== null
  }

  /** Volumes are exported through the session (answers may still wait). */
  get served(): boolean {
    return this.#served
  }

  /** Replica: frames of the writer are to be applied. False between `copy_begin` and the end of `kept`. */
  get applies(): boolean {
    return this.role === 'replica' && this.#link !== null && APPLYING.has(this.#phase)
  }

  /** Writer: the blocks of each write are set in the change map before it is carried out. */
  get marks(): boolean {
    return this.#stored.record.state !== 'in_sync'
  }

  /** Everything numbered is durable on both sides, and nothing new is taken. */
  get drained(): boolean {
    return this.#drained
  }

  /** The phase as an operator should see it: a writer without the right to answer is `held`. */
  shownPhase(now: number): Phase {
    const answering =
      this.#phase === 'alone' || this.#phase === 'copying' || this.#phase === 'following'
    const held = this.role === 'writer' && answering && !this.gate.mayAnswer(now)
    return held ? 'held' : this.#phase
  }

  /** What this side says of itself when a link opens. `ownRegionsDirty`: its own intent bitmap has set bits. */
  hello(ownRegionsDirty: boolean): PeerHello {
    const { record, divergent, consistent, baseEpoch } = this.#stored
    return {
      record,
      role: this.role,
      clean: this.#numbered,
      divergent: divergent || (!this.#numbered && ownRegionsDirty),
      consistent,
      applied: this.gate.sequence,
      baseEpoch,
      unfit: null,
    }
  }

  /**
   * Whether `site`, which dials and shows `record`, is refused a link; null: it is the replica of this writer. Changes
   * nothing, so that the answer need not wait for events: `link_up` looks at the records again.
   */
  refusalOf(site: string, record: OwnershipRecord): PeerRefusal | null {
    const known = `epoch ${this.#epoch} is known here`
    if (record.epoch > this.#epoch) return { code: 'OLDER_EPOCH', text: known }
    if (record.epoch < this.#epoch) return { code: 'STALE_EPOCH', text: known }
    if (this.role === 'writer' && site === this.#stored.record.replica) return null
    return { code: 'WRONG_ROLE', text: `this site is ${this.role} in epoch ${this.#epoch}` }
  }

  /** Decides; the caller carries the effects out in order before it hands over the next event. */
  handle(event: SessionEvent): readonly SessionEffect[] {
    this.#effects = []
    switch (event.kind) {
      case 'start':
        this.#start(event.now)
        break
      case 'open':
        this.#open(event)
        break
      case 'close':
        this.#close(event)
        break
      case 'members_changed':
        if (this.#phase === 'following' && this.role === 'writer') {
          this.#do({ kind: 'start_copy', scope: 'joining' })
        } else if (this.#phase === 'copying') {
          this.#do({ kind: 'start_copy', scope: 'joining' })
        }
        break
      case 'hold':
        this.#hold(event)
        break
      case 'release':
        this.#endHold()
        break
      case 'link_up':
        this.#linkUp(event.now, event.hello)
        break
      case 'link_down':
        this.#linkDown(event.now)
        break
      case 'peer_record':
        this.#peerRecord(event.now, event.record)
        break
      case 'message':
        this.#message(event.now, event.message)
        break
      case 'witness':
        this.#witness(event)
        break
      case 'reconciled':
        if (this.#phase === 'reconciling' && this.#link !== null) {
          this.gate.numberFrom(this.#link.applied)
          this.#do({ kind: 'resend', after: this.gate.sequence })
          this.#follow()
        }
        break
      case 'copied':
        if (this.#phase === 'copying' && this.#link !== null) {
          this.#move('rising')
          this.gate.mode = 'rising'
          this.#do({
            kind: 'send',
            message: { kind: 'rise', epoch: this.#epoch + 1, members: event.members },
          })
        }
        break
      case 'caught_up':
      case 'log_dropped':
      case 'kept':
      case 'promote':
      case 'arbitrate':
        break
      case 'drained':
        if (this.#phase === 'draining' && this.gate.settled) this.#drained = true
        break
      case 'tick':
        this.#tick(event.now)
        break
      default:
        unreachable(event)
    }
    return this.#effects
  }

  // -- start, commands ------------------------------------------------------------------------------------------------

  #start(now: number): void {
    switch (this.role) {
      case 'none':
        if (this.#epoch > 0) this.#end()
        return
      case 'writer':
        this.#do({ kind: 'refuse', reason: 'not ready: the session is starting' })
        this.#move(this.#stored.promoting ? 'promoting' : 'opening')
        return this.#askIfDue(now)
      case 'replica':
        this.#do({ kind: 'refuse', reason: `written at ${this.#stored.record.writer}` })
        this.#move('waiting')
        return this.#do({ kind: 'dial', on: true })
      case 'fenced':
        this.#do({ kind: 'refuse', reason: `written at ${this.#stored.record.writer}` })
        return this.#move('fenced')
    }
  }

  #open(event: Extract<SessionEvent, { kind: 'open' }>): void {
    const { record, force, joined, now } = event
    if (record.state === 'closed') {
      return this.#refuse('WRONG_STATE', 'a closed record opens nothing')
    }
    if (record.epoch < this.#epoch) return this.#refuseStale(record.epoch)
    if (record.epoch === this.#epoch) {
      if (
        record.writer !== this.#stored.record.writer ||
        record.state !== this.#stored.record.state
      ) {
        this.#refuse('STALE_EPOCH', `epoch ${this.#epoch} is known here with another content`)
      }
      return
    }
    const becomesWriter = roleOf(record, this.settings.site) === 'writer'
    const begins = this.role === 'none' && record.state !== 'failed_over'
    if (becomesWriter && this.role !== 'writer' && !begins && !force) {
      if (!this.#stored.consistent || !joined) {
        return this.#refuse('NOT_CONSISTENT', 'the volumes here are no complete copy')
      }
      if (!this.#numbered && record.state !== 'in_sync') {
        return this.#refuse('NOT_CONSISTENT', 'this host stopped uncleanly since it was in step')
      }
    }
    this.#adopt(now, record)
  }

  #close(event: Extract<SessionEvent, { kind: 'close' }>): void {
    const { record, now } = event
    if (record.state !== 'closed') {
      return this.#refuse('WRONG_STATE', 'only a closed record ends a session')
    }
    if (record.epoch < this.#epoch) return this.#refuseStale(record.epoch)
    if (record.epoch <= this.#epoch) return
    // Plain volumes are served at once, but the old writer may still answer under contact. (The witness is not asked
    // before that time has passed, so a closed record comes from a command or not at all.)
    if (this.#stored.promoting && now < this.silence.overAtMs()) {
      return this.#refuse('NOT_YET', 'the old writer may still answer: repeat in a few seconds')
    }
    this.#adopt(now, record)
  }

  #hold(event: Extract<SessionEvent, { kind: 'hold' }>): void {
    if (event.epoch !== this.#epoch) return this.#refuseStale(event.epoch)
    if (this.role !== 'writer') return this.#refuse('NOT_WRITER', 'only the writer can drain')
    if (this.#phase === 'draining') {
      this.#holdUntilMs = event.now + event.holdMs
      return
    }
    if (this.#phase !== 'following') {
      return this.#refuse('WRONG_STATE', `cannot drain while ${this.#phase}`)
    }
    this.#holdUntilMs = event.now + event.holdMs
    this.#drained = false
    this.#move('draining')
    this.#do({ kind: 'input', open: false })
    this.#do({ kind: 'drain' })
  }

  #endHold(): void {
    if (this.#phase !== 'draining') return
    this.#drained = false
    this.#move(this.#link === null ? 'held' : 'following')
    this.#do({ kind: 'input', open: true })
  }

  // -- link -----------------------------------------------------------------------------------------------------------

  #linkUp(now: number, hello: PeerHello): void {
    if (hello.record.epoch !== this.#epoch) return this.#peerRecord(now, hello.record)
    if (this.role === 'writer' && hello.role === 'replica') {
      this.#link = hello
      this.contact.end()
      this.#writerLinked(now, hello)
    } else if (this.role === 'replica' && hello.role === 'writer') {
      this.#link = hello
      // In a resync the stream begins with copy_begin; before it this side is still what it was.
      const inStep = this.#stored.record.state === 'in_sync' && this.#stored.consistent
      if (inStep && this.#numbered && !this.#stored.divergent) {
        this.#consumeCleanMark()
        this.#do({ kind: 'applied_from' })
        this.#move('following')
      }
    } else {
      // Same epoch, roles that do not fit: one of us holds a record the witness never wrote. Ask, do not talk.
      this.#do({ kind: 'drop_link', tell: false })
    }
  }

  #writerLinked(now: number, hello: PeerHello): void {
    switch (this.#stored.record.state) {
      case 'in_sync':
        return this.#linkedInSync(now, hello)
      case 'resyncing':
        if (this.#phase === 'alone') this.#copy()
        return
      case 'closed':
      case 'solo':
      case 'frozen':
      case 'failed_over':
        return
    }
  }

  #linkedInSync(now: number, hello: PeerHello): void {
    const { clean, base } = this.#stored
    if (this.#wantDrop) return this.#askIfDue(now)
    if (!hello.clean || hello.divergent || !hello.consistent) {
      return this.#wantToDrop(now, base && hello.consistent && !hello.divergent)
    }
    if (this.#numbered) {
      if (hello.applied < this.gate.acknowledged || hello.applied > this.gate.sequence) {
        return this.#wantToDrop(now, false)
      }
      this.gate.acknowledge(hello.applied)
      this.#do({ kind: 'resend', after: hello.applied })
      return this.#follow()
    }
    if (clean !== null) {
      if (clean !== hello.applied) return this.#wantToDrop(now, false)
      this.gate.numberFrom(clean)
      this.#do({ kind: 'resend', after: clean })
      return this.#follow()
    }
    this.#move('reconciling')
    this.#do({ kind: 'reconcile', scope: base ? 'dirty' : 'all' })
  }

  /** In step with the replica under in_sync, and linked: from now on answers flow with its acknowledgements. */
  #follow(): void {
    this.#numbered = true
    this.#consumeCleanMark()
    this.#move('following')
    this.gate.mode = 'both'
    this.#serve()
    this.#do({ kind: 'start_copy', scope: 'joining' })
    this.#do({ kind: 'release' })
  }

  #copy(): void {
    this.#move('copying')
    this.#do({ kind: 'forget_frames', mark: true })
    const sequence = this.gate.sequence
    this.gate.numberFrom(sequence)
    this.#numbered = true
    this.#do({ kind: 'send', message: { kind: 'copy_begin', sequence } })
    this.#do({ kind: 'start_copy', scope: this.#stored.base ? 'dirty' : 'all' })
  }

  #linkDown(now: number): void {
    if (this.#link === null) return
    this.#link = null
    this.#askAgainMs = 0
    switch (this.#phase) {
      case 'following':
        if (this.role === 'replica') return this.#move('waiting')
        this.#do({ kind: 'stop_copy' })
        this.#move('held')
        return this.#askIfDue(now)
      case 'draining':
        this.#drained = false
        this.#move('held')
        this.#do({ kind: 'input', open: true })
        return this.#askIfDue(now)
      case 'copying':
        return this.#backToAlone()
      case 'rising':
        if (this.#stored.record.state === 'in_sync') {
          this.#move('held')
          this.gate.mode = 'both'
          return this.#askIfDue(now)
        }
        // Once the witness was asked, only its answer says whether acknowledging alone is allowed.
        if (!this.#stored.riseAsked) this.#backToAlone()
        return
      case 'reconciling':
        this.#do({ kind: 'stop_copy' })
        this.#move('opening')
        return this.#askIfDue(now)
      case 'receiving':
        return this.#move('waiting')
      case 'closed':
      case 'opening':
      case 'alone':
      case 'held':
      case 'waiting':
      case 'promoting':
      case 'fenced':
        return
    }
  }

  #backToAlone(): void {
    this.#do({ kind: 'stop_copy' })
    this.#do({ kind: 'forget_frames', mark: true })
    this.#move('alone')
    this.gate.mode = 'alone'
    this.#do({ kind: 'release' })
  }

  #peerRecord(now: number, record: OwnershipRecord): void {
    if (record.session !== this.settings.session) return
    if (record.epoch < this.#epoch) return this.#do({ kind: 'drop_link', tell: true })
    if (record.epoch === this.#epoch) return
    // A record that makes this site the writer comes with a command, which says whether force was given.
    const becomesWriter = roleOf(record, this.settings.site) === 'writer' && this.role !== 'writer'
    if (becomesWriter && (!this.#stored.consistent || record.state !== 'in_sync')) {
      return this.#do({ kind: 'drop_link', tell: false })
    }
    this.#adopt(now, record)
  }

  #message(now: number, message: SessionMessage): void {
    if (this.#link === null) return
    switch (message.kind) {
      case 'catch_up':
        return
      case 'copy_begin':
        if (this.role !== 'replica' || this.#stored.record.state !== 'resyncing') return
        this.gate.applied(message.sequence)
        this.#numbered = true
        this.#persist({ consistent: false, clean: null })
        this.#do({ kind: 'applied_from' })
        if (this.#phase !== 'receiving') this.#move('receiving')
        return
      case 'rise':
        if (this.#phase !== 'receiving' || message.epoch !== this.#epoch + 1) return
        this.#do({ kind: 'make_durable' })
        this.#do({ kind: 'mark_joined', members: message.members })
        this.#persist({ consistent: true, divergent: false })
        return this.#do({ kind: 'send', message: { kind: 'risen', epoch: message.epoch } })
      case 'risen':
        if (this.#phase !== 'rising' || this.#stored.riseAsked) return
        if (message.epoch !== this.#epoch + 1) return
        // Under in_sync everything outside the set intent regions counts as durable here as well, also what was written
        // before this session kept any bits.
        this.#do({ kind: 'make_durable' })
        this.#persist({ riseAsked: true })
        this.#askAgainMs = 0
        return this.#askIfDue(now)
      case 'epoch': {
        const { record } = message
        const next = record.epoch === this.#epoch + 1 && record.state === 'in_sync'
        const sameSides = record.writer === this.#stored.record.writer
        if (this.#phase !== 'receiving' || !next || !sameSides || !this.#stored.consistent) {
          return this.#peerRecord(now, record)
        }
        this.#persist({ record })
        this.#move('following')
        return this.#do({ kind: 'send', message: { kind: 'epoch_accepted', epoch: record.epoch } })
      }
      case 'epoch_accepted':
        if (this.#phase === 'rising' && message.epoch === this.#epoch) this.#follow()
        return
      default:
        return unreachable(message)
    }
  }

  // -- witness --------------------------------------------------------------------------------------------------------

  #witness(event: Extract<SessionEvent, { kind: 'witness' }>): void {
    const { ask, answer, now, sentMs } = event
    this.#asking = null
    this.#askAgainMs = now + this.settings.renewMs * (answer === null ? RETRY_SHARE : 1)
    if (answer === null || answer.record.session !== this.settings.session) return
    const { record } = answer
    // An older record is a restored witness that has not heard us yet. It decides nothing.
    if (record.epoch < this.#epoch) return
    if (record.epoch > this.#epoch) {
      const becomesWriter = roleOf(record, this.settings.site) === 'writer'
      if (becomesWriter && this.role !== 'writer') return
      return this.#adopt(now, record)
    }
    if (roleOf(record, this.settings.site) !== this.role) return this.#adopt(now, record)
    // Something that cannot wait came up while another question was on its way.
    const wanted = this.#stored.riseAsked ? 'rise' : this.#wantDrop ? 'drop' : ask.kind
    if (wanted !== ask.kind) {
      this.#askAgainMs = 0
      return this.#askIfDue(now)
    }
    if (!answer.ok) {
      const soon = answer.retry_after_ms ?? this.settings.renewMs * RETRY_SHARE
      this.#askAgainMs = now + Math.min(soon, this.settings.renewMs)
      return
    }
    if (ask.kind === 'renew' && answer.lease_ms !== null && ALONE.has(record.state)) {
      if (this.role !== 'writer' || this.#stored.riseAsked) return
      this.lease.granted(sentMs, answer.lease_ms)
      this.#leased()
    }
  }

  /** The lease was granted or renewed. */
  #leased(): void {
    if (this.#phase === 'opening' || this.#phase === 'promoting') {
      this.#move('alone')
      this.gate.mode = 'alone'
      this.#consumeCleanMark()
      if (this.#stored.promoting) this.#persist({ promoting: false })
      this.#serve()
    }
    this.#do({ kind: 'release' })
    if (
      this.#phase === 'alone' &&
      this.#stored.record.state === 'resyncing' &&
      this.#link !== null
    ) {
      this.#copy()
    }
  }

  /** The question this side has for the witness now; null when there is none. */
  #question(now: number): WitnessAsk | null {
    const { record, riseAsked } = this.#stored
    const site = this.settings.site
    const epoch = record.epoch
    if (this.role === 'fenced' || this.role === 'none') return null
    if (this.role === 'replica') return null
    if (riseAsked) return { kind: 'rise', site, epoch, attempt: `rise-epoch-${epoch}` }
    if (this.#wantDrop) return { kind: 'drop', site, epoch, attempt: `drop-epoch-${epoch}` }
    if (ALONE.has(record.state)) {
      if (this.#phase === 'promoting' && now < this.silence.overAtMs()) return null
      return { kind: 'renew', site, epoch }
    }
    const answering =
      (this.#phase === 'following' || this.#phase === 'draining') && this.contact.valid(now)
    return answering ? null : { kind: 'confirm', site }
  }

  #askIfDue(now: number): void {
    if (this.#asking !== null || now < this.#askAgainMs) return
    const ask = this.#question(now)
    if (ask === null) return
    this.#asking = ask
    this.#do({ kind: 'ask', ask })
  }

  #wantToDrop(now: number, keepsBase: boolean): void {
    this.#wantDrop = true
    // Persisted before the witness is asked: the copy after the drop must not trust the bitmap when it cannot.
    if (this.#stored.base && !keepsBase) this.#persist({ base: false })
    this.#askAgainMs = 0
    this.#askIfDue(now)
  }

  #tick(now: number): void {
    if (this.#phase === 'draining' && now >= this.#holdUntilMs) this.#endHold()
    if (this.role === 'writer') {
      this.#do({ kind: 'release' })
      this.#askIfDue(now)
    }
  }

  // -- records --------------------------------------------------------------------------------------------------------

  /** Takes over a record of a higher epoch (or one of this epoch that gives this site another role). */
  #adopt(now: number, record: OwnershipRecord): void {
    const before = this.role
    const after = roleOf(record, this.settings.site)
    this.#askAgainMs = 0
    if (before === 'writer' && after === 'writer') return this.#adoptAsWriter(now, record)
    const keepsContent = this.#handOver(before)
    // A switch that began drained, but then took in more: nothing acknowledged is missing here, though the new writer may
    // lack what came last. Good for a failover back, not for going on in step.
    const switched = before === 'writer' && this.#numbered && record.state === 'in_sync'
    const complete = keepsContent || (switched && this.#stored.record.state === 'in_sync')
    // Before anything that takes time: what were numbered from here on would have no place in anybody's order.
    if (before === 'writer') this.#do({ kind: 'input', open: false })
    this.gate.mode = 'closed'
    this.lease.end()
    this.contact.end()
    this.#link = null
    this.#wantDrop = false
    this.#drained = false
    if (before === 'writer') {
      this.#do({ kind: 'stop_copy' })
      if (after !== 'none') this.#do({ kind: 'drop_link', tell: false })
    } else {
      this.#do({ kind: 'dial', on: false })
      this.#do({ kind: 'drop_link', tell: false })
    }
    switch (after) {
      case 'none':
        this.#persist({ record, riseAsked: false, clean: null })
        return this.#end()
      case 'writer':
        return this.#becomeWriter(now, record, before)
      case 'replica':
        this.#persist({
          record,
          riseAsked: false,
          clean: null,
          base: false,
          promoting: false,
          divergent: !keepsContent || this.#stored.divergent,
          consistent: complete && this.#stored.consistent,
        })
        this.#stopServing(before)
        this.#numbered = this.#numbered && complete
        this.#move('waiting')
        return this.#do({ kind: 'dial', on: true })
      case 'fenced':
        this.#persist({
          record,
          riseAsked: false,
          clean: null,
          base: false,
          divergent: !keepsContent || this.#stored.divergent,
        })
        this.#stopServing(before)
        return this.#move('fenced')
    }
  }

  /** Whether this side's content is what the peer has too, as far as this side can know. */
  #handOver(before: Role): boolean {
    switch (before) {
      case 'writer': {
        if (this.#stored.record.state !== 'in_sync') return false
        if (!this.#numbered) {
          this.#numbered = this.#stored.clean !== null
          return this.#stored.clean !== null
        }
        return this.gate.settled
      }
      case 'replica':
        return true
      case 'none':
      case 'fenced':
        return false
    }
  }

  #stopServing(before: Role): void {
    this.#served = false
    if (before === 'writer') this.#do({ kind: 'forget_frames', mark: false })
    this.#do({ kind: 'refuse', reason: `written at ${this.#stored.record.writer}` })
  }

  #becomeWriter(now: number, record: OwnershipRecord, before: Role): void {
    // What this side applied as a replica must not be lost to a power cut now that the other side may go away; and an
    // intent bitmap that begins empty claims that everything is durable.
    if (before !== 'none') this.#do({ kind: 'make_durable' })
    const begins = before === 'none' && record.state === 'resyncing'
    const waitsOut = ALONE.has(record.state) && !begins
    const reversed = before === 'replica' && record.state === 'in_sync' && this.#stored.consistent
    this.#persist({
      record,
      riseAsked: false,
      clean: null,
      consistent: true,
      divergent: false,
      base: reversed && this.#numbered && !this.#stored.divergent,
      promoting: waitsOut,
    })
    this.#numbered = reversed && this.#numbered
    if (begins) {
      // Volumes that were served plainly until now keep their clients; answers wait for the lease.
      this.#move('opening')
      this.#serve()
    } else {
      this.#do({ kind: 'refuse', reason: 'not ready: this site is taking over' })
      this.#move(waitsOut ? 'promoting' : 'opening')
    }
    this.#askIfDue(now)
  }

  #adoptAsWriter(now: number, record: OwnershipRecord): void {
    const from = this.#stored
    const risen =
      from.riseAsked && record.state === 'in_sync' && record.epoch === from.record.epoch + 1
    this.#drained = false
    if (record.state === 'in_sync') {
      this.gate.mode = 'closed'
      this.lease.end()
      this.#wantDrop = false
      this.#persist({ record, riseAsked: false, base: risen || from.base })
      if (!risen || this.#phase !== 'rising') return this.#reopen(now)
      if (this.#link !== null) {
        return this.#do({ kind: 'send', message: { kind: 'epoch', record } })
      }
      this.#move('held')
      this.gate.mode = 'both'
      return this.#askIfDue(now)
    }
    // From one state of acknowledging alone to another (reprotect) the witness keeps the lease, and so do we.
    const keepsLease =
      ALONE.has(from.record.state) && ALONE.has(record.state) && this.gate.mode === 'alone'
    const dropped = from.record.state === 'in_sync' && record.state === 'resyncing'
    this.#do({ kind: 'stop_copy' })
    if (!keepsLease) {
      this.gate.mode = 'closed'
      this.lease.end()
    }
    this.#persist({ record, riseAsked: false, base: dropped && from.base })
    this.#wantDrop = false
    this.#do({ kind: 'forget_frames', mark: true })
    this.#do({ kind: 'drop_link', tell: true })
    this.#link = null
    if (keepsLease) {
      if (this.#phase === 'copying') this.#move('alone')
    } else {
      if (this.#phase === 'draining') this.#do({ kind: 'input', open: true })
      if (this.#phase !== 'promoting') this.#move('opening')
    }
    this.#askIfDue(now)
  }

  /** Back to the beginning of the writer's life under a new record, with clients kept waiting if there are any. */
  #reopen(now: number): void {
    this.#do({ kind: 'stop_copy' })
    this.#do({ kind: 'drop_link', tell: true })
    this.#link = null
    if (this.#phase === 'draining') this.#do({ kind: 'input', open: true })
    this.#move('opening')
    this.#askIfDue(now)
  }

  #end(): void {
    const here = this.#stored.record.writer === this.settings.site
    this.#served = false
    this.#do({ kind: 'end', serving: here ? 'standalone' : 'standby' })
    if (this.#phase !== 'closed') this.#move('closed')
  }

  // -- helpers --------------------------------------------------------------------------------------------------------

  get #epoch(): number {
    return this.#stored.record.epoch
  }

  #serve(): void {
    this.#do({ kind: 'input', open: true })
    if (this.#served) return
    this.#served = true
    this.#do({ kind: 'serve' })
  }

  /** The mark of a clean stop holds only until something may change. */
  #consumeCleanMark(): void {
    if (this.#stored.clean !== null) this.#persist({ clean: null })
  }

  #persist(change: Partial<StoredSession>): void {
    this.#stored = { ...this.#stored, ...change }
    this.#do({ kind: 'persist', stored: this.#stored })
  }

  /** For the shell at a clean stop: what to persist last, after everything numbered or applied was made durable. */
  cleanMark(): StoredSession | null {
    const settled = this.role === 'replica' ? this.#numbered : this.#numbered && this.gate.settled
    return settled ? { ...this.#stored, clean: this.gate.sequence } : null
  }

  #move(to: Phase): void {
    assert(
      to === this.#phase || NEXT_PHASES[this.#phase].includes(to),
      `a session moves from ${this.#phase} to ${to}`,
    )
    this.#phase = to
  }

  #do(effect: SessionEffect): void {
    this.#effects.push(effect)
  }

  #refuse(code: RefusalCode, text: string): void {
    this.#do({ kind: 'refuse_command', code, text })
  }

  #refuseStale(epoch: number): void {
    this.#refuse('STALE_EPOCH', `epoch ${epoch} is named, ${this.#epoch} is known here`)
  }
}
