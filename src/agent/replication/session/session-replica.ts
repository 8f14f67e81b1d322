import { ALONE, isRiseOf, nextKept, sameBase } from './session-records.ts'
import type { SessionState } from './session-state.ts'
import type { OwnershipRecord } from '#wire/site/witness.ts'

/* The replica and its writer: following, catching up in order, and being overwritten in a resync, which nothing is allowed to begin
 * before the last consistent state of this side is kept.
 *
 *     waiting ── in step ─► following
 *        │ └──── catch_up ─► catching_up ── rise ─► following      a prefix at every moment
 *        └── copy_begin ─► [keep_copy ─► kept] ─► receiving ── rise ─► following
 */

/** A replica without space for its kept copy asks again after this time. */
const UNFIT_MS = 10_000

/** The writer of this replica is there. In a resync the stream begins with copy_begin; before it this side is still what it was. */
export function linkedToWriter(s: SessionState): void {
  const { record, consistent, divergent } = s.stored
  if (record.state !== 'in_sync' || !consistent || divergent || !s.numbered || !s.stored.exact)
    return
  s.settle({ clean: null, outOfTouchMs: null })
  s.do({ kind: 'applied_from' })
  s.move('following')
}

export function unlinkedFromWriter(s: SessionState): void {
  s.keeping = null
  if (s.phase === 'following' || s.phase === 'receiving' || s.phase === 'catching_up') {
    s.move('waiting')
  }
}

/** The frames behind `sequence` follow in order. */
export function catchUp(s: SessionState, sequence: number): void {
  const { record, consistent, divergent, exact } = s.stored
  const here = s.numbered && exact && s.gate.sequence === sequence
  if (record.state !== 'solo' || s.phase !== 'waiting' || !consistent || divergent || !here) {
    return s.dropLink(false)
  }
  s.consumeCleanMark()
  s.do({ kind: 'applied_from' })
  s.move('catching_up')
}

/** A block resync begins behind `sequence`. */
export function copyBegin(s: SessionState, now: number, sequence: number): void {
  const { record, kept, ackedAlone } = s.stored
  if (record.state !== 'resyncing' || s.phase === 'receiving' || s.keeping !== null) return
  // In the middle of a resync the copy that was kept at its beginning is the one.
  if (s.settings.keepsCopies !== true || !s.holdsState) {
    return receive(s, now, sequence, kept, ackedAlone)
  }
  if (kept !== null) s.do({ kind: 'release_kept', id: kept, divergence: ackedAlone })
  s.keeping = { id: nextKept(s.stored), sequence }
  // Beside a writer that has lost something since (its power), or without a base, this side may have more alone than what it changed.
  const ownOnly = s.stored.exact && s.link?.exact === true && sameBase(s.stored, s.link)
  s.do({ kind: 'keep_copy', id: s.keeping.id, ownOnly })
}

/** The snapshot was taken, or cannot be. */
export function keptCopy(s: SessionState, now: number, id: string, ok: boolean): void {
  const { keeping } = s
  if (keeping === null || keeping.id !== id) {
    // The link went away meanwhile, and with it the copy that it was for.
    if (ok && s.stored.kept !== id) s.do({ kind: 'release_kept', id, divergence: false })
    return
  }
  s.keeping = null
  if (!ok) {
    s.unfitSinceMs = now
    return s.dropLink(false)
  }
  // What an older one preserved of this side's own writes was released as a divergence already.
  receive(s, now, keeping.sequence, id, s.stored.kept === null && s.stored.ackedAlone)
}

function receive(
  s: SessionState,
  now: number,
  sequence: number,
  kept: string | null,
  ackedAlone: boolean,
): void {
  // Whatever a loss of power took is not made good before the next rise, although the numbers are exact from here on.
  const exact = s.stored.exact && s.numbered
  // From here on the kept copy falls behind, if this side was in step until the writer dropped it. Otherwise it has done so for longer: since a
  // moment that was noted, or nobody knows since when.
  const { baseEpoch, record, torn } = s.stored
  const inStep = baseEpoch > 0 && record.epoch === baseEpoch + 1
  const since = s.stored.outOfTouchMs ?? (kept !== null && inStep ? s.wallMs(now) : null)
  // Of one that lost its power nobody knows: what it lacks may be older than that.
  const outOfTouchMs = torn ? null : since
  s.gate.applied(sequence)
  s.numbered = true
  s.persist({ consistent: false, clean: null, exact, kept, ackedAlone, outOfTouchMs })
  s.do({ kind: 'applied_from' })
  s.move('receiving')
}

/** Everything is here: declare it durably. */
export function readyToRise(s: SessionState, epoch: number, members: readonly number[]): void {
  if (s.phase !== 'receiving' && s.phase !== 'catching_up') return
  if (epoch !== s.epoch + 1) return
  s.do({ kind: 'make_durable' })
  s.do({ kind: 'mark_joined', members })
  s.persist({ consistent: true, divergent: false, exact: true, torn: false })
  s.do({ kind: 'send', message: { kind: 'risen', epoch } })
}

/** The witness has committed the rise. False: this record is something else. */
export function riseCommitted(s: SessionState, record: OwnershipRecord): boolean {
  const taking = s.phase === 'receiving' || s.phase === 'catching_up'
  if (!taking || !isRiseOf(s.stored, record)) return false
  const { epoch } = record
  s.persist({ record, baseEpoch: epoch, exact: true, outOfTouchMs: null })
  s.do({ kind: 'clear_changes', epoch })
  s.move('following')
  s.do({ kind: 'send', message: { kind: 'epoch_accepted', epoch } })
  return true
}

export function replicaTick(s: SessionState, now: number): void {
  const { record, kept, outOfTouchMs } = s.stored
  // Not in the rise itself, where clients wait.
  if (s.phase === 'following' && kept !== null) s.dropKept(false)
  if (s.unfitSinceMs !== null && s.link !== null && now >= s.unfitSinceMs + UNFIT_MS) {
    // Another hello, another try. Not without a link: one may be coming up whose hello has said that there is no space.
    s.unfitSinceMs = null
    s.dropLink(false)
  }
  const behind = record.state === 'in_sync' || (ALONE.has(record.state) && s.stored.consistent)
  const silent = now - s.silence.answeredMs
  const silentSinceMs = s.wallMs(now - silent)
  if (!behind || s.phase !== 'waiting' || outOfTouchMs !== null || silentSinceMs === null) return
  if (silent > s.settings.silenceMs) s.persist({ outOfTouchMs: silentSinceMs })
}
