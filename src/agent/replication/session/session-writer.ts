import { continues, copyPlan } from './session-records.ts'
import type { SessionState } from './session-state.ts'
import type { PeerHello } from './session-types.ts'

/* The writer and its replica: what a link means in each state, copies, catching up, and the way up to in_sync.
 *
 *     alone ── log reaches back ──► catching_up ──┐
 *       │                                         ├─► rising ── replica ready ──► witness: rise ──► following
 *       └───── resyncing ─────────► copying ──────┘
 */

/** The replica of this writer is there. */
export function linked(s: SessionState, now: number, hello: PeerHello): void {
  switch (s.stored.record.state) {
    case 'in_sync':
      return linkedInSync(s, hello)
    case 'resyncing':
    case 'solo':
      if (!s.stored.whole) return makeWhole(s, hello)
      return bringUp(s, now)
    case 'closed':
    case 'frozen':
    case 'failed_over':
      return
  }
}

function linkedInSync(s: SessionState, hello: PeerHello): void {
  const { clean, base } = s.stored
  if (s.wantDrop) return
  if (hello.unfit !== null) {
    // It will say so again at the next link, under the record that the witness makes of it.
    s.dropLink(false)
    s.wantSolo = true
    s.askAgainMs = 0
    return
  }
  if (!s.stored.whole && hello.divergent && holdsAll(hello)) return fetch(s)
  if (!hello.clean || hello.divergent || !hello.consistent) {
    return wantToDrop(s, base && hello.consistent && !hello.divergent)
  }
  if (s.numbered) {
    const { acknowledged, sequence } = s.gate
    if (hello.applied < acknowledged || hello.applied > sequence) return lostHistory(s)
    s.gate.acknowledge(hello.applied)
    s.do({ kind: 'resend', after: hello.applied })
    return follow(s)
  }
  if (clean !== null) {
    if (clean !== hello.applied) return lostHistory(s)
    s.gate.numberFrom(clean)
    s.do({ kind: 'resend', after: clean })
    return follow(s)
  }
  fetch(s)
}

const holdsAll = ({ complete, clean, consistent }: PeerHello): boolean =>
  complete === true || (clean && consistent)

/** Becomes equal to the replica, which has everything that was ever answered. */
function fetch(s: SessionState): void {
  s.move('reconciling')
  s.do({ kind: 'reconcile', scope: s.stored.base ? 'dirty' : 'all' })
}

function wantToDrop(s: SessionState, keepsBase: boolean): void {
  s.wantDrop = true
  // Persisted before the witness is asked: the copy after the drop must not trust the bitmap when it cannot.
  if (!keepsBase) s.settle({ base: false })
  s.askAgainMs = 0
}

/** The replica calls itself clean and lacks what it acknowledged: its maps are of another time as well. */
function lostHistory(s: SessionState): void {
  s.settle({ baseEpoch: 0, priorBase: 0 })
  wantToDrop(s, false)
}

/**
 * The witness has put this side alone although it lost power in sync: it asked for that before, or the group was frozen meanwhile.
 * The replica has what is missing here, so it is fetched before anything is answered.
 */
function makeWhole(s: SessionState, hello: PeerHello): void {
  if (s.phase !== 'opening' || hello.unfit !== null) return
  if (!holdsAll(hello)) {
    // It has lost something as well: nothing better than what is here exists.
    s.persist({ whole: true })
    s.askAgainMs = 0
    return
  }
  fetch(s)
}

/** Every dirty region equals the replica's now. */
export function reconciled(s: SessionState): void {
  if (s.phase !== 'reconciling' || s.link === null) return
  s.gate.numberFrom(s.link.applied)
  if (s.stored.record.state !== 'in_sync') {
    s.persist({ whole: true })
    s.numbered = s.stored.record.state === 'solo'
    s.logFrom = s.gate.sequence
    s.do({ kind: 'log_frames', on: s.numbered })
    s.askAgainMs = 0
    return s.move('opening')
  }
  if (s.link.divergent) {
    // It holds what it wrote itself last, and would not take this stream for the continuation of that.
    s.persist({ whole: true })
    s.move('opening')
    return wantToDrop(s, false)
  }
  s.do({ kind: 'resend', after: s.gate.sequence })
  follow(s)
}

/** In step with the replica under in_sync, and linked: from now on answers flow with its acknowledgements. */
function follow(s: SessionState): void {
  s.numbered = true
  s.settle({ clean: null, priorBase: 0, exact: true, whole: true })
  s.move('following')
  s.gate.mode = 'both'
  s.serve()
  s.do({ kind: 'start_copy', scope: 'joining' })
  s.do({ kind: 'release' })
}

/** Alone under a valid lease, with a link: in order if that is possible, else block by block, which the witness has to record first. */
export function bringUp(s: SessionState, now: number): void {
  const hello = s.link
  if (s.phase !== 'alone' || hello === null || hello.unfit !== null || s.wantResync) return
  if (!s.lease.valid(now)) return
  if (s.stored.record.state === 'resyncing') return copy(s, hello)
  if (s.stored.record.state !== 'solo') return
  if (s.numbered && hello.clean && hello.applied < s.gate.acknowledged) {
    s.settle({ baseEpoch: 0, priorBase: 0 })
  } else if (s.numbered && continues(s.stored, hello, s.logFrom, s.gate.sequence)) {
    s.move('catching_up')
    s.gate.acknowledge(hello.applied)
    s.do({ kind: 'send', message: { kind: 'catch_up', sequence: hello.applied } })
    s.do({ kind: 'resend', after: hello.applied })
    s.do({ kind: 'watch_catch_up' })
    return
  }
  s.wantResync = true
  s.askAgainMs = 0
}

function copy(s: SessionState, hello: PeerHello): void {
  s.move('copying')
  s.do({ kind: 'forget_frames', mark: true })
  // What was numbered before is not awaited from this link: the copy sees to it.
  s.gate.numberFrom(s.gate.sequence)
  s.numbered = true
  s.do({ kind: 'begin_copy' })
  s.do({ kind: 'start_copy', ...copyPlan(s.stored, hello) })
}

// -- the way up -------------------------------------------------------------------------------------------------------

/** Nothing is left to copy. */
export function copied(s: SessionState, now: number, members: readonly number[]): void {
  if (s.phase !== 'copying' || s.link === null) return
  s.ready = { members }
  rise(s, now)
}

/** The replica has nearly everything. While the rise must wait it may fall behind again, so it is looked at again then. */
export function caughtUp(s: SessionState, now: number): void {
  if (s.phase !== 'catching_up' || s.link === null) return
  s.ready = { members: [] }
  rise(s, now)
  if (s.phase !== 'catching_up') return
  s.ready = null
  s.watchLater = true
}

const settledLink = (s: SessionState, now: number): boolean => now >= s.linkUpMs + s.flapping.waitMs

function rise(s: SessionState, now: number): void {
  if (s.ready === null || s.link === null || !settledLink(s, now)) return
  const { members } = s.ready
  s.ready = null
  s.move('rising')
  s.gate.mode = 'rising'
  s.do({ kind: 'send', message: { kind: 'rise', epoch: s.epoch + 1, members } })
}

/** From time to time: a rise that had to wait. */
export function riseLater(s: SessionState, now: number): void {
  if (s.phase === 'copying') return rise(s, now)
  if (s.phase !== 'catching_up' || !s.watchLater || !settledLink(s, now)) return
  s.watchLater = false
  s.do({ kind: 'watch_catch_up' })
}

/** The replica is ready for `epoch`. */
export function risen(s: SessionState, epoch: number): void {
  if (s.phase !== 'rising' || s.stored.riseAsked || epoch !== s.epoch + 1) return
  // Under in_sync everything outside the set intent regions counts as durable here as well, also what was written
  // before this session kept any bits.
  s.do({ kind: 'make_durable' })
  s.persist({ riseAsked: true })
  s.askAgainMs = 0
}

/** The replica has persisted that the two are in sync. */
export function accepted(s: SessionState, now: number, epoch: number): void {
  if (s.phase !== 'rising' || epoch !== s.epoch) return
  s.flapping.risen(now)
  follow(s)
}

/** Writes came faster than the link takes them: only a block resync helps now. */
export function logDropped(s: SessionState): void {
  s.logFrom = null
  if (s.phase !== 'catching_up') return
  s.move('alone')
  s.wantResync = true
  s.askAgainMs = 0
}

export function membersChanged(s: SessionState): void {
  if (s.role !== 'writer') return
  if (s.phase !== 'following' && s.phase !== 'copying') return
  s.ready = null
  s.do({ kind: 'start_copy', scope: 'joining' })
}

// -- the link is lost -------------------------------------------------------------------------------------------------

export function unlinked(s: SessionState, now: number): void {
  s.askAgainMs = 0
  s.flapping.lost(now)
  switch (s.phase) {
    case 'following':
      s.do({ kind: 'stop_copy' })
      return held(s, now)
    case 'draining':
      s.drained = false
      held(s, now)
      return s.do({ kind: 'input', open: true })
    case 'catching_up':
    case 'copying':
      return backToAlone(s)
    case 'rising':
      if (s.stored.record.state === 'in_sync') {
        s.gate.mode = 'both'
        return held(s, now)
      }
      // Once the witness was asked, only its answer says whether acknowledging alone is allowed.
      if (!s.stored.riseAsked) backToAlone(s)
      return
    case 'reconciling':
      s.do({ kind: 'stop_copy' })
      s.lonelySinceMs = now
      return s.move('opening')
    case 'opening':
      s.lonelySinceMs = now
      return
    case 'closed':
    case 'alone':
    case 'held':
    case 'frozen':
    case 'waiting':
    case 'receiving':
    case 'promoting':
    case 'fenced':
      return
  }
}

/** In sync without a link. */
export function held(s: SessionState, now: number): void {
  s.lonelySinceMs = now
  s.wantSolo = false
  s.move('held')
}

function backToAlone(s: SessionState): void {
  s.do({ kind: 'stop_copy' })
  if (s.stored.record.state === 'resyncing') {
    s.do({ kind: 'forget_frames', mark: true })
    s.numbered = false
  }
  s.move('alone')
  s.gate.mode = 'alone'
  s.do({ kind: 'release' })
}

// -- draining ---------------------------------------------------------------------------------------------------------

export function hold(s: SessionState, now: number, epoch: number, holdMs: number): void {
  if (epoch !== s.epoch) return s.refuseStale(epoch)
  if (s.role !== 'writer') return s.refuse('NOT_WRITER', 'only the writer can drain')
  if (s.phase === 'draining') {
    s.holdUntilMs = now + holdMs
    return
  }
  if (s.phase !== 'following') {
    // In sync by the record, the link just lost or not up yet: a repeat in a moment may find it following.
    const soon = s.stored.record.state === 'in_sync'
    return s.refuse(soon ? 'NOT_YET' : 'WRONG_STATE', `cannot drain while ${s.phase}`)
  }
  s.holdUntilMs = now + holdMs
  s.drained = false
  // Before it can be drained: from then on the switch may be committed, at any time and whether this side hears of it or not.
  s.settle({ offered: true })
  s.move('draining')
  s.do({ kind: 'input', open: false })
  s.do({ kind: 'drain' })
}

export function endHold(s: SessionState): void {
  if (s.phase !== 'draining') return
  s.drained = false
  s.move(s.link === null ? 'held' : 'following')
  s.do({ kind: 'input', open: true })
}
