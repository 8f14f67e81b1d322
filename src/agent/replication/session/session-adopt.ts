import type { OwnershipRecord } from '#wire/site/witness.ts'
import type { Role } from './phases.ts'
import { ALONE, breakGlass, isRiseOf, preferredBy, roleOf } from './session-records.ts'
import type { SessionState } from './session-state.ts'
import type { SessionEvent, StoredSession } from './session-types.ts'
import { held } from './session-writer.ts'

/* Taking over a record of a higher epoch, wherever it came from: a command, the peer, the witness, or an operator's order.
 *
 * Order: what must stop (the gate, the link, the input) stops in `handle` itself; frames that the peer may lack are marked; then the record
 * is persisted; then anything is done under it.
 */

/** Takes over a record of a higher epoch (or one of this epoch that gives this site another role). `order`: what it comes with. */
export function adopt(
  s: SessionState,
  now: number,
  record: OwnershipRecord,
  order: Partial<StoredSession> = {},
): void {
  const before = s.role
  const after = roleOf(record, s.settings.site)
  const { stored } = s
  const { state } = stored.record
  s.askAgainMs = 0
  s.wantDrop = false
  s.wantResync = false
  s.wantSolo = false
  s.ready = null
  s.keeping = null
  if (before === 'writer' && after === 'writer') return adoptAsWriter(s, now, record, order)
  const keepsContent = handOver(s, before)
  // A switch that began drained, but then took in more, in this process or the one before: nothing acknowledged is missing here, though the new
  // writer may lack what came last. Good for a failover back, not for going on in step.
  const switched = before === 'writer' && stored.whole && record.state === 'in_sync'
  const nothingMissing = keepsContent || (switched && state === 'in_sync' && !stored.unwitnessed)
  const exact = exactAfter(s, before)
  // The writer of a session that ended served its volumes plainly since.
  const plain = before === 'none' && s.epoch > 0 && stored.record.writer === s.settings.site
  const answeredAlone = plain || (before === 'writer' && (ALONE.has(state) || stored.unwitnessed))
  const ackedAlone = stored.ackedAlone || answeredAlone
  // Before anything that takes time: what were numbered from here on would have no place in anybody's order.
  if (before === 'writer') s.do({ kind: 'input', open: false })
  s.gate.mode = 'closed'
  s.lease.end()
  s.contact.end()
  s.drained = false
  s.aloneFrom = null
  if (before === 'writer') {
    s.do({ kind: 'stop_copy' })
    if (after !== 'none') {
      s.dropLink(false)
      s.do({ kind: 'forget_frames', mark: true })
    }
  } else {
    s.do({ kind: 'dial', on: false })
    s.dropLink(false)
  }
  s.link = null
  const common = {
    record,
    riseAsked: false,
    clean: null,
    unwitnessed: false,
    promoted: false,
    wanted: null,
    offered: false,
    unconfirmed: preferredBy(record, s.settings.site),
  }
  const demoted = {
    ...common,
    base: false,
    // Volumes that were never the writer's are just empty, or what an earlier session has left there.
    divergent: stored.divergent || (before === 'none' ? plain : !keepsContent),
    exact,
    ackedAlone,
    whole: true,
    priorBase: 0,
  }
  switch (after) {
    case 'none':
      // The maps end with the session: what is opened next begins without a common history.
      s.persist({
        ...demoted,
        baseEpoch: 0,
        exact: true,
        promoting: false,
        outOfTouchMs: before === 'replica' ? leftBehindSince(s, now) : null,
      })
      return s.end()
    case 'writer':
      return becomeWriter(s, record, before, { ...common, exact, ackedAlone, ...order })
    case 'replica': {
      const rise = before === 'replica' && isRiseOf(stored, record)
      // Nothing tells a loss of power from now on, and the new writer may have to begin with what is here.
      if (nothingMissing && !keepsContent) s.do({ kind: 'make_durable' })
      s.persist({
        ...demoted,
        promoting: false,
        consistent: (nothingMissing || before === 'none') && s.stored.consistent,
        ...(before === 'none' && { baseEpoch: 0, exact: true }),
        ...(rise && { baseEpoch: record.epoch, exact: true }),
      })
      if (rise) s.do({ kind: 'clear_changes', epoch: record.epoch })
      stopServing(s)
      s.numbered = s.numbered && nothingMissing
      s.move('waiting')
      return s.do({ kind: 'dial', on: true })
    }
    case 'fenced':
      s.persist({ ...demoted, promoting: false })
      stopServing(s)
      return s.move('fenced')
  }
}

/** Whether the change map of this side will name all that it did, once the retained frames are marked. */
function exactAfter(s: SessionState, before: Role): boolean {
  const { exact, clean, record } = s.stored
  if (before === 'replica') return exact && s.numbered
  if (before !== 'writer' || record.state !== 'in_sync') return exact
  return exact && (s.numbered || clean !== null)
}

/** Whether this side's content is what the peer has too, as far as this side can know. */
function handOver(s: SessionState, before: Role): boolean {
  switch (before) {
    case 'writer': {
      const { record, clean, unwitnessed } = s.stored
      if (record.state !== 'in_sync' || unwitnessed) return false
      if (!s.numbered) {
        s.numbered = clean !== null
        return clean !== null
      }
      return s.gate.settled
    }
    case 'replica':
      return true
    case 'none':
    case 'fenced':
      return false
  }
}

function stopServing(s: SessionState): void {
  s.served = false
  s.do({ kind: 'refuse', reason: `written at ${s.stored.record.writer}` })
}

function becomeWriter(
  s: SessionState,
  record: OwnershipRecord,
  before: Role,
  change: Partial<StoredSession> & Pick<StoredSession, 'ackedAlone'>,
): void {
  const { kept, consistent, divergent } = s.stored
  const { complete } = s
  const restores = kept !== null && !consistent && before !== 'none'
  if (restores) s.do({ kind: 'restore_kept', id: kept })
  // What this side applied as a replica must not be lost to a power cut now that the other side may go away; and an
  // intent bitmap that begins empty claims that everything is durable.
  if (before !== 'none') s.do({ kind: 'make_durable' })
  const begins = before === 'none' && record.state === 'resyncing'
  const frozen = record.state === 'frozen'
  const waitsOut = frozen || (ALONE.has(record.state) && !begins)
  const reversed = before === 'replica' && record.state === 'in_sync' && consistent
  // Frames that were on their way when it was sent away are kept no longer: what the replica has takes their place.
  const goesOn = reversed && s.numbered && !divergent
  s.persist({
    ...change,
    consistent: true,
    divergent: false,
    base: goesOn,
    promoting: waitsOut,
    whole: record.state !== 'in_sync' || s.numbered || complete,
    outOfTouchMs: null,
    torn: false,
    ...(before === 'none' && { baseEpoch: 0, priorBase: 0, exact: true }),
    // What it answered alone before is the truth again, unless it was overwritten since. A frozen writer may yet be failed over from.
    ackedAlone: change.ackedAlone && !restores && (frozen || kept !== null),
  })
  s.dropKept(restores)
  s.numbered = goesOn
  s.lonelySinceMs = s.silence.overAtMs()
  if (begins) {
    // Volumes that were served plainly until now keep their clients; answers wait for the lease.
    s.move('opening')
    return s.serve()
  }
  s.do({ kind: 'refuse', reason: frozen ? FROZEN : 'not ready: this site is taking over' })
  s.move(frozen ? 'frozen' : waitsOut ? 'promoting' : 'opening')
}

/** The writer itself has asked for it: nobody else makes one that acknowledges alone of a writer in sync in one step. */
const askedFor = (from: OwnershipRecord, to: OwnershipRecord): boolean =>
  from.state === 'in_sync' && ALONE.has(to.state) && to.epoch === from.epoch + 1

/** What a writer has answered may be in its page cache and at the replica alone: after a loss of power it is not whole. */
export const isShared = ({ record, unwitnessed, riseAsked }: StoredSession): boolean =>
  (record.state === 'in_sync' && !unwitnessed) || record.state === 'frozen' || riseAsked

export const FROZEN = 'frozen: nobody may write until the operator has decided'

function adoptAsWriter(
  s: SessionState,
  now: number,
  record: OwnershipRecord,
  order: Partial<StoredSession>,
): void {
  s.drained = false
  if (record.state === 'in_sync') return adoptInSync(s, now, record)
  const from = s.stored
  const frozen = record.state === 'frozen'
  const exact = exactAfter(s, 'writer')
  const answeredAlone = ALONE.has(from.record.state) || from.unwitnessed
  // From one state of acknowledging alone to another (reprotect) the witness keeps the lease, and so do we.
  const keepsLease = !frozen && ALONE.has(from.record.state) && s.gate.mode === 'alone'
  // So that the first question for a lease says already what the other side lacks.
  if (!frozen) s.beginAlone(now)
  s.do({ kind: 'stop_copy' })
  // Under a record of acknowledging alone a loss of power would not tell any more that the replica has what is lost here.
  if (isShared(from) && !frozen && !askedFor(from.record, record)) s.do({ kind: 'make_durable' })
  if (!keepsLease) {
    s.gate.mode = 'closed'
    s.lease.end()
  }
  if (record.state === 'solo' || frozen) s.do({ kind: 'log_frames', on: true })
  else {
    s.do({ kind: 'forget_frames', mark: true })
    s.do({ kind: 'log_frames', on: false })
    s.numbered = false
  }
  s.persist({
    record,
    riseAsked: false,
    unwitnessed: false,
    promoted: false,
    wanted: null,
    offered: false,
    unconfirmed: preferredBy(record, s.settings.site),
    exact,
    base: (from.record.state === 'in_sync' || from.record.state === 'frozen') && from.base,
    // The replica was dropped, so both lost power: what is here is the best that there is. A record that came by another way says nothing about
    // what the replica has.
    whole: from.whole || (record.state === 'resyncing' && askedFor(from.record, record)),
    // A frozen writer may yet be made to go on: only then is what it answered alone continued.
    ackedAlone: frozen && (answeredAlone || from.ackedAlone),
    ...order,
  })
  s.dropLink(true)
  // What was numbered while the record was being persisted went out on a link that does not count any more.
  if (record.state === 'solo' || frozen) s.do({ kind: 'log_frames', on: true })
  if (frozen) {
    s.served = false
    s.aloneFrom = null
    s.do({ kind: 'refuse', reason: FROZEN })
    return s.move('frozen')
  }
  if (s.phase === 'draining') s.do({ kind: 'input', open: true })
  if (keepsLease) {
    if (s.phase !== 'alone') s.move('alone')
  } else if (s.phase !== 'promoting') s.move(from.promoting ? 'promoting' : 'opening')
}

function adoptInSync(s: SessionState, now: number, record: OwnershipRecord): void {
  const from = s.stored
  const risen = from.riseAsked && record.epoch === from.record.epoch + 1
  const inRise = risen && s.phase === 'rising'
  const { epoch } = record
  const unconfirmed = preferredBy(record, s.settings.site)
  s.gate.mode = 'closed'
  s.lease.end()
  s.aloneFrom = null
  if (risen) {
    s.persist({
      record,
      riseAsked: false,
      base: true,
      wanted: null,
      offered: false,
      unconfirmed,
      baseEpoch: epoch,
      priorBase: from.baseEpoch,
      // Writes on their way when another process of this session died are in no map once it is cleared.
      exact: inRise,
    })
    s.do({ kind: 'clear_changes', epoch })
    s.do({ kind: 'log_frames', on: false })
  } else s.persist({ record, riseAsked: false, wanted: null, offered: false, unconfirmed })
  if (inRise) {
    if (s.link !== null) return s.do({ kind: 'send', message: { kind: 'epoch', record } })
    s.gate.mode = 'both'
    s.flapping.risen(now)
    s.flapping.lost(now)
    return held(s, now)
  }
  // Back to the beginning of the writer's life under a new record, with clients kept waiting if there are any.
  s.do({ kind: 'stop_copy' })
  s.dropLink(true)
  s.lonelySinceMs = now
  if (s.phase === 'draining') s.do({ kind: 'input', open: true })
  s.move('opening')
}

// -- where records come from ------------------------------------------------------------------------------------------

export function open(s: SessionState, event: Extract<SessionEvent, { kind: 'open' }>): void {
  const { record, force, joined, now } = event
  if (record.state === 'closed') return s.refuse('WRONG_STATE', 'a closed record opens nothing')
  if (record.epoch < s.epoch) return s.refuseStale(record.epoch)
  if (record.epoch === s.epoch) {
    const { writer, state } = s.stored.record
    if (record.writer !== writer || record.state !== state) {
      s.refuse('STALE_EPOCH', `epoch ${s.epoch} is known here with another content`)
    } else if (force && s.role === 'writer' && ALONE.has(state) && !s.stored.whole) {
      s.persist({ whole: true })
      s.askAgainMs = 0
    }
    return
  }
  const becomesWriter = roleOf(record, s.settings.site) === 'writer'
  const begins = s.role === 'none' && record.state !== 'failed_over'
  if (becomesWriter && s.role !== 'writer' && !begins && !force) {
    if (!(s.stored.consistent || takesBack(s, record)) || !joined) {
      return s.refuse('NOT_CONSISTENT', 'the volumes here are no complete copy')
    }
    if (!s.numbered && !s.complete && record.state !== 'in_sync') {
      return s.refuse('NOT_CONSISTENT', 'this host stopped uncleanly since it was in step')
    }
  }
  if (becomesWriter && event.gaveUp === true) s.silence.endBy(now)
  if (s.role === 'none') reopens(s, event.left === true)
  adopt(s, now, record)
}

/**
 * A writer in sync that was not whole, or had writes on their way, and was sent away by an order of a history that the witness has lost since. Nothing here
 * was overwritten, and nobody has answered anything: it waits for its replica as before, and begins with what that one has.
 */
const takesBack = (s: SessionState, record: OwnershipRecord): boolean =>
  record.state === 'in_sync' && s.holdsState && !s.stored.ackedAlone

/**
 * Of a session that ended here its last record is left, and what its epoch file said of the volumes. That is still true when they hold the copy
 * that it left: a resync keeps it before it is overwritten, and a failover in its middle goes back to it. Persisted with the record.
 */
function reopens(s: SessionState, left: boolean): void {
  const { consistent, divergent, outOfTouchMs, torn } = s.stored
  s.stored = {
    ...s.stored,
    consistent: left && consistent && !divergent,
    outOfTouchMs: left ? outOfTouchMs : null,
    torn: left && torn,
  }
}

/**
 * What the clients of plain volumes were told is on disk may be here and nowhere else, also where the record that ended the session named the other
 * site as the one that writes: a resync keeps it. (A first session takes disks as its operator names them.)
 */
export function servedPlainly(s: SessionState): void {
  if (s.role === 'none' && s.epoch > 0) {
    const written = { consistent: false, divergent: true, ackedAlone: true }
    s.settle({ ...written, outOfTouchMs: null, torn: false })
  }
}

/** Since when the copy that a replica leaves at its end may lack what the writer answers; null: not known. */
function leftBehindSince(s: SessionState, now: number): number | null {
  const { outOfTouchMs, record, torn } = s.stored
  if (torn) return null
  if (outOfTouchMs !== null) return outOfTouchMs
  return record.state === 'in_sync' ? s.wallMs(now) : null
}

export function close(s: SessionState, event: Extract<SessionEvent, { kind: 'close' }>): void {
  const { record, now } = event
  if (record.state !== 'closed')
    return s.refuse('WRONG_STATE', 'only a closed record ends a session')
  if (record.epoch < s.epoch) return s.refuseStale(record.epoch)
  if (record.epoch <= s.epoch) return
  if (oldWriterMayAnswer(s, now)) {
    return s.refuse('NOT_YET', 'the old writer may still answer: repeat in a few seconds')
  }
  adopt(s, now, record)
}

/**
 * The side that wrote before this one may still answer under contact, so this side must not serve plain volumes yet. After a failover, and after a
 * switch as long as nothing has been served under its record: the old writer may not have heard of it.
 */
export function oldWriterMayAnswer(s: SessionState, now: number): boolean {
  const takesOver = s.stored.promoting || (s.role === 'writer' && !s.served)
  return takesOver && now < s.silence.overAtMs()
}

/** Another record was shown by the peer. */
export function peerRecord(s: SessionState, now: number, record: OwnershipRecord): void {
  if (record.session !== s.settings.session) return
  if (record.epoch < s.epoch) return s.dropLink(true)
  if (record.epoch === s.epoch) return
  // A record that makes this site the writer comes with a command, which says whether force was given.
  const becomesWriter = roleOf(record, s.settings.site) === 'writer' && s.role !== 'writer'
  if (becomesWriter && (!s.stored.consistent || record.state !== 'in_sync')) {
    return s.dropLink(false)
  }
  adopt(s, now, record)
}

/** Break-glass: an operator makes this site the writer, whatever the witness would say. */
export function promote(s: SessionState, event: Extract<SessionEvent, { kind: 'promote' }>): void {
  const { now, joined, force } = event
  const { record, consistent, kept, divergent, promoted } = s.stored
  if (s.role === 'none') return s.refuse('WRONG_STATE', 'the session is closed here')
  if (!force) {
    return s.refuse('WRONG_STATE', 'without the witness only force makes this site the writer')
  }
  if (s.role === 'writer' && s.gate.mayAnswer(now)) {
    return s.refuse('WRONG_STATE', 'this site may write already')
  }
  if (s.role === 'writer' && promoted) {
    s.ordered = true
    return
  }
  const image = s.role === 'writer' || (joined && (consistent || kept !== null || divergent))
  if (!image) return s.refuse('NOT_CONSISTENT', 'the volumes here are no complete copy')
  s.ordered = true
  adopt(s, now, breakGlass(record, s.settings.site), {
    unwitnessed: true,
    promoted: true,
    whole: true,
  })
}
