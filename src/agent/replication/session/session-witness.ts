import type { WitnessAnswer, WitnessAsk } from '#wire/site/witness.ts'
import { adopt, oldWriterMayAnswer } from './session-adopt.ts'
import { ALONE, epochBefore, preferredHere, roleOf } from './session-records.ts'
import type { SessionState } from './session-state.ts'
import type { SessionEvent } from './session-types.ts'
import { bringUp } from './session-writer.ts'

/* The writer and the witness: one question at a time, and what an answer, or none, allows.
 *
 *     in sync, no link ── solo_delay ──► solo ──► a lease ──► alone
 *           │ no answer for long, static priority, preferred here
 *           └──► persist `unwitnessed` ──► (next tick) alone without a lease, until the witness answers
 */

/** Wait of the next question after the witness could not be reached, as a share of the renewal interval. */
const RETRY_SHARE = 0.25
/** A lease with less left than this many renewal intervals is renewed before anything else is asked. */
const LEASE_FIRST = 2

/** Asks what is to be asked now, if it is time. At the end of every event; `tick`: nothing else has happened. */
export function askIfDue(s: SessionState, now: number, tick: boolean): void {
  if (s.asking !== null || now < s.askAgainMs) return
  const ask = question(s, now, tick)
  if (ask === null) return
  s.asking = ask
  s.askedUnder = s.epoch
  s.do({ kind: 'ask', ask })
}

/** Something that does not wait for the next interval. */
function urgent(s: SessionState, now: number): WitnessAsk['kind'] | null {
  const { riseAsked, promoted, record, wanted } = s.stored
  if (riseAsked) return 'rise'
  if (promoted) return 'promoted'
  if (record.state === 'solo' && s.wantResync && leaseLasts(s, now)) return 'resync'
  if (record.state !== 'in_sync') return null
  if (s.wantDrop) return 'drop'
  if (maySolo(s, now)) return 'solo'
  return wanted === null ? null : 'configure'
}

const leaseLasts = (s: SessionState, now: number): boolean =>
  s.lease.valid(now + LEASE_FIRST * s.settings.renewMs)

/** The question this side has for the witness now; null when there is none. */
function question(s: SessionState, now: number, tick: boolean): WitnessAsk | null {
  if (s.role !== 'writer') return null
  const { record, wanted } = s.stored
  const { site } = s.settings
  const { epoch, state } = record
  const first = urgent(s, now)
  switch (first) {
    case 'rise':
    case 'drop':
    case 'solo':
    case 'resync':
      return { kind: first, site, epoch, attempt: `${first}-epoch-${epoch}` }
    case 'promoted':
      return {
        kind: 'promoted',
        site,
        attempt: `promoted-epoch-${epoch}`,
        record,
        known: epochBefore(record),
      }
    case 'configure':
      if (wanted === null) break
      return { kind: 'configure', site, epoch, attempt: `configure-epoch-${epoch}`, ...wanted }
    case 'confirm':
    case 'renew':
    case null:
  }
  if (ALONE.has(state)) {
    if (!s.stored.whole) return { kind: 'confirm', site }
    if (s.phase === 'promoting' && now < s.silence.overAtMs()) return null
    return { kind: 'renew', site, epoch, ...aloneWork(s) }
  }
  if (s.phase === 'rising') return null
  // Right after a link came up contact is only about to begin.
  const answering = s.phase === 'following' || s.phase === 'draining'
  const sure = !s.stored.unconfirmed && (!tick || s.contact.valid(now))
  return answering && sure ? null : { kind: 'confirm', site }
}

function aloneWork(s: SessionState): Pick<Extract<WitnessAsk, { kind: 'renew' }>, 'alone'> {
  if (s.aloneFrom === null || s.wallAheadMs === null) return {}
  const { atMs, bytes } = s.aloneFrom
  return {
    alone: {
      sequence: s.gate.sequence,
      bytes: s.gate.bytes - bytes,
      since: Math.round(atMs + s.wallAheadMs),
    },
  }
}

/** Without a link for long enough, with everything that was ever answered here, and with nobody left who may answer instead. */
function maySolo(s: SessionState, now: number): boolean {
  const { soloDelayMs } = s.settings
  if (soloDelayMs === undefined || s.link !== null) return false
  if (s.stored.unwitnessed) return true
  if (s.phase !== 'held' && s.phase !== 'opening') return false
  if (!s.stored.whole || now < s.silence.overAtMs()) return false
  return s.wantSolo || now >= s.lonelySinceMs + soloDelayMs
}

// -- answers ----------------------------------------------------------------------------------------------------------

export function witnessAnswered(
  s: SessionState,
  event: Extract<SessionEvent, { kind: 'witness' }>,
): void {
  const { answer, now } = event
  const { session, site, renewMs } = s.settings
  s.asking = null
  s.askAgainMs = now + renewMs * (answer === null ? RETRY_SHARE : 1)
  if (answer === null || answer.record.session !== session) {
    s.unreachableSinceMs ??= now
    return
  }
  s.unreachableSinceMs = null
  const { record } = answer
  // An older record is a restored witness that has not heard us yet. It decides nothing.
  if (record.epoch < s.epoch) return
  if (record.epoch > s.epoch) {
    const becomesWriter = roleOf(record, site) === 'writer'
    if (becomesWriter && s.role !== 'writer') return
    // Asked again, and told by a command as well.
    if (record.state === 'closed' && oldWriterMayAnswer(s, now)) return
    return adopt(s, now, record)
  }
  if (roleOf(record, site) !== s.role) return adopt(s, now, record)
  s.validated = true
  answeredHere(s, event, answer)
  // An answer to a question of before may have been given out of a history that the witness has lost since. Written last: what the answer allows need not
  // wait for it, and the frames that go out to the replica then may be gone after a slow write.
  if (s.askedUnder === s.epoch) s.settle({ unconfirmed: false })
}

/** The witness knows the record of this side, and its role. */
function answeredHere(
  s: SessionState,
  { ask, now, sentMs }: Extract<SessionEvent, { kind: 'witness' }>,
  answer: WitnessAnswer,
): void {
  const { record } = answer
  if (ask.kind === 'promoted' && answer.ok && s.stored.promoted) {
    // It goes on without a lease until the first one is granted.
    s.persist({ promoted: false })
    s.askAgainMs = 0
    return
  }
  const leased = ask.kind === 'renew' && answer.ok && ALONE.has(record.state)
  if (leased && answer.lease_ms !== null && s.role === 'writer' && !s.stored.riseAsked) {
    s.lease.granted(sentMs, answer.lease_ms)
    granted(s, now)
  }
  // Something that cannot wait came up while another question was on its way.
  const first = urgent(s, now)
  if (first !== null && first !== ask.kind) s.askAgainMs = 0
  else if (!answer.ok) {
    const { renewMs } = s.settings
    const soon = answer.retry_after_ms ?? renewMs * RETRY_SHARE
    s.askAgainMs = now + Math.min(soon, renewMs)
  }
}

/** The lease was granted or renewed. */
function granted(s: SessionState, now: number): void {
  if (s.stored.unwitnessed) s.persist({ unwitnessed: false })
  s.beginAlone(now)
  if (s.phase === 'opening' || s.phase === 'promoting') {
    s.move('alone')
    s.settle({ clean: null, promoting: false })
    s.serve()
  }
  if (s.phase !== 'rising') s.gate.mode = 'alone'
  s.do({ kind: 'release' })
  bringUp(s, now)
}

// -- time -------------------------------------------------------------------------------------------------------------

export function witnessTick(s: SessionState, now: number): void {
  if (s.stored.record.state === 'in_sync' && !s.wantSolo && maySolo(s, now)) {
    s.wantSolo = true
    s.askAgainMs = 0
  }
  if (s.gate.mode === 'unwitnessed') return
  // Persisted by one event, acted upon by a later one.
  if (s.stored.unwitnessed) {
    if (s.stored.promoted ? mayActPromoted(s, now) : mayActPreferred(s, now)) goUnwitnessed(s, now)
  } else if (mayActPreferred(s, now)) {
    if (s.stored.record.state === 'in_sync') s.do({ kind: 'log_frames', on: true })
    const exact = s.stored.exact && (s.stored.record.state !== 'in_sync' || s.numbered)
    s.persist({ unwitnessed: true, exact })
  }
}

/** After break-glass: when the old writer's contact is over, and not after a reboot, before which the world may have changed. */
function mayActPromoted(s: SessionState, now: number): boolean {
  return s.ordered && now >= s.silence.overAtMs()
}

/**
 * Static priority at the preferred site, which is the writer: the witness has been silent for long, nobody holds a right to answer by
 * contact or lease, no switch can have been committed, the witness itself has been heard under this record (decision 0195), and it is not one of before
 * a boot that nobody has confirmed since: an operator who states that this site is off is right about a host without power, and may have
 * made the other one the writer.
 */
function mayActPreferred(s: SessionState, now: number): boolean {
  const { silenceMs, soloDelayMs, site } = s.settings
  const { record, riseAsked, unwitnessed, offered, unconfirmed } = s.stored
  if (soloDelayMs === undefined || !preferredHere(s.stored, site)) return false
  if (riseAsked || offered || unconfirmed) return false
  if (!s.validated || !s.stored.whole || now < s.silence.overAtMs()) return false
  if (s.unreachableSinceMs === null || now < s.unreachableSinceMs + silenceMs) return false
  if (ALONE.has(record.state)) return !s.lease.valid(now)
  if (record.state !== 'in_sync') return false
  return unwitnessed || (maySolo(s, now) && !s.contact.valid(now))
}

function goUnwitnessed(s: SessionState, now: number): void {
  if (s.link !== null) {
    s.do({ kind: 'stop_copy' })
    s.dropLink(false)
  }
  if (s.phase !== 'alone') s.move('alone')
  s.beginAlone(now)
  s.settle({ clean: null, promoting: false })
  s.gate.mode = 'unwitnessed'
  s.serve()
  s.do({ kind: 'release' })
}

// -- an operator's wish -----------------------------------------------------------------------------------------------

export function arbitrate(
  s: SessionState,
  event: Extract<SessionEvent, { kind: 'arbitrate' }>,
): void {
  const { mode, preferred } = event
  const { record, wanted, unwitnessed } = s.stored
  const says = (one: { mode: string; preferred: string } | null) =>
    one !== null && one.mode === mode && one.preferred === preferred
  if (s.role !== 'writer') return s.refuse('NOT_WRITER', 'only the writer can change it')
  if (says(wanted) || (wanted === null && says(record))) return
  if (wanted !== null) return s.refuse('NOT_YET', 'another change of it is under way')
  if (record.state !== 'in_sync' || unwitnessed) {
    return s.refuse('WRONG_STATE', 'it can be changed while the sites are in sync')
  }
  if (preferred !== record.writer && preferred !== record.replica) {
    return s.refuse('WRONG_STATE', `${preferred} is not one of the two sites`)
  }
  s.persist({ wanted: { mode, preferred } })
  s.askAgainMs = 0
}
