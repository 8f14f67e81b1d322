/**
 * The ownership rules, walked completely: every state, lease, request kind, sender, epoch, attempt, trust and wait,
 * some 10,000 combinations, each checked against the same list of properties. A second walk goes breadth-first from
 * the closed record, so that what is asserted about a single decision also holds for every chain of decisions.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  ALONE,
  type ChangeKind,
  decideOwnership,
  closedRecord,
  type Lease,
  leaseLeftMs,
  OWNERSHIP_MOVES,
  type Ownership,
  type OwnershipAnswer,
  type OwnershipRequest,
  type OwnershipState,
  type WitnessTime,
} from './ownership.ts'

const STATES: readonly OwnershipState[] = [
  'closed',
  'resyncing',
  'in_sync',
  'solo',
  'frozen',
  'failed_over',
]
const NOW_MS = 100_000
const LEASE_MS = 8_000
const DRIFT_MS = 100
const EPOCH = 7

const time = (more: Partial<WitnessTime> = {}): WitnessTime => ({
  bootMs: NOW_MS,
  waitUntilBootMs: 0,
  historyTrusted: true,
  leaseMs: LEASE_MS,
  driftMs: DRIFT_MS,
  incarnation: 'two',
  ...more,
})

const LEASES: Record<string, Lease | null> = {
  none: null,
  live: { holder: 'az1', endsBootMs: NOW_MS + 3_000 },
  drifting: { holder: 'az1', endsBootMs: NOW_MS - DRIFT_MS + 1 },
  ended: { holder: 'az1', endsBootMs: NOW_MS - DRIFT_MS },
}

const recordIn = (state: OwnershipState, lease: Lease | null): Ownership => ({
  session: 's',
  epoch: EPOCH,
  state,
  writer: 'az1',
  replica: 'az2',
  lease,
  alone: null,
  mode: 'witness',
  preferred: 'az1',
  incarnation: 'one',
  attempt: 'last-change',
})

function requests(
  epoch: number,
  lastAttempt: string,
  newAttempt = 'new-attempt',
): OwnershipRequest[] {
  const found: OwnershipRequest[] = []
  const sites = ['az1', 'az2', 'stranger']
  for (const site of sites) found.push({ kind: 'confirm', site })
  for (const named of [epoch - 1, epoch, epoch + 1]) {
    for (const site of sites) found.push({ kind: 'renew', site, epoch: named })
    for (const attempt of [lastAttempt, newAttempt]) {
      const common = { epoch: named, attempt }
      for (const site of sites) {
        found.push({ kind: 'rise', site, ...common }, { kind: 'drop', site, ...common })
      }
      for (const kind of ['reverse', 'reprotect', 'close'] as const) found.push({ kind, ...common })
      for (const force of [false, true]) {
        for (const consent of [false, true]) {
          found.push({ kind: 'failover', force, consent, ...common })
        }
      }
      found.push({ kind: 'open', writer: 'az1', replica: 'az2', ...common })
      found.push({ kind: 'open', writer: 'az2', replica: 'az1', ...common })
    }
  }
  return found
}

/** What must be true of one decision, whatever it was. */
function checkProperties(
  before: Ownership,
  request: OwnershipRequest,
  at: WitnessTime,
  answer: OwnershipAnswer,
): void {
  const after = answer.record
  const changed = after.epoch !== before.epoch

  assert(after.epoch === before.epoch || after.epoch === before.epoch + 1, 'the epoch rises by one')
  assert.equal(after.session, before.session)
  assert.notEqual(after.writer, after.replica)
  if (!changed) {
    assert.deepEqual({ ...after, lease: null }, { ...before, lease: null }, 'only a lease is free')
  }
  if (!answer.ok) assert.equal(after, before, 'a refusal changes nothing')
  if (request.kind === 'confirm') assert.equal(after, before, 'a question changes nothing')

  const mayLease = ALONE.has(after.state) || after.state === 'frozen'
  assert(after.lease === null || mayLease, 'a lease exists only where one is or was alone')
  assert(after.lease === null || after.lease.holder === after.writer, 'the writer holds the lease')
  assert(after.state !== 'in_sync' || after.lease === null)

  const repeat = 'attempt' in request && request.attempt === before.attempt
  if (repeat) {
    assert(answer.ok, 'a repeat of the last change is answered with what it made')
    assert.equal(after, before)
  }
  if (changed) {
    assert(request.kind !== 'confirm' && request.kind !== 'renew' && request.kind !== 'promoted')
    assert.equal(request.epoch, before.epoch, 'only the present epoch is changed')
    assert(OWNERSHIP_MOVES[request.kind].includes(before.state), 'only along the table')
    assert(at.historyTrusted, 'nothing changes without a trusted history')
    assert.equal(after.attempt, request.attempt)
    assert.equal(after.incarnation, at.incarnation)
    assert(!('site' in request) || request.site === before.writer, 'agents speak as the writer')
    assert(answer.ok && answer.leaseMs === null)
  }
  if (after.lease !== before.lease && after.lease !== null) {
    assert(request.kind === 'renew' && request.site === before.writer)
    assert(at.historyTrusted)
    assert.equal(after.lease.endsBootMs, at.bootMs + at.leaseMs)
    assert.equal(answer.ok && answer.leaseMs, at.leaseMs)
  }

  // One writer: who may acknowledge alone before, and who after?
  if (after.writer !== before.writer && before.epoch > 0) {
    const consent = request.kind === 'failover' && request.consent
    assert(request.kind === 'reverse' || request.kind === 'failover')
    if (request.kind === 'reverse') assert.equal(before.state, 'in_sync')
    assert(consent || leaseLeftMs(before, at) === 0, 'no second writer while a lease lives')
    assert(
      before.state === 'in_sync' || (request.kind === 'failover' && request.force),
      'a side that lacks writes becomes writer by force alone',
    )
  }
  if (!answer.ok && answer.retryAfterMs !== null) {
    assert(Number.isInteger(answer.retryAfterMs) && answer.retryAfterMs > 0)
  }
}

test('no request, from anyone, at any time, breaks a property of the ownership record', () => {
  let walked = 0
  const seen = new Set<string>()
  for (const state of STATES) {
    for (const [leaseName, lease] of Object.entries(LEASES)) {
      if (lease !== null && !ALONE.has(state)) continue
      for (const historyTrusted of [true, false]) {
        for (const waitUntilBootMs of [0, NOW_MS + 5_000]) {
          const before = recordIn(state, lease)
          const at = time({ historyTrusted, waitUntilBootMs })
          for (const request of requests(EPOCH, before.attempt)) {
            const answer = decideOwnership(before, request, at)
            try {
              checkProperties(before, request, at, answer)
            } catch (error) {
              const where = JSON.stringify({ state, leaseName, at, request, answer })
              throw new Error(`broken at ${where}`, { cause: error })
            }
            if (answer.record.epoch > before.epoch) seen.add(`${request.kind} from ${state}`)
            walked++
          }
        }
      }
    }
  }
  const table = Object.entries(OWNERSHIP_MOVES).flatMap(([kind, from]) =>
    from.map((state) => `${kind} from ${state}`),
  )
  assert.deepEqual([...seen].sort(), table.sort(), 'every move of the table happens, and no other')
  assert(walked > 4_000, `only ${walked} combinations`)
})

test('every chain of up to six requests from the closed record keeps the properties', () => {
  const at = time()
  const late = time({ bootMs: NOW_MS + LEASE_MS + DRIFT_MS })
  const key = (record: Ownership) =>
    JSON.stringify([record.state, record.writer, record.lease, record.epoch === 0])
  let layer = [closedRecord('s', 'az1', 'az2', 'one')]
  const known = new Set(layer.map(key))
  const states = new Set<OwnershipState>()
  for (let depth = 0; depth < 6; depth++) {
    const next: Ownership[] = []
    for (const before of layer) {
      for (const moment of [at, late]) {
        const attempt = `attempt-at-${before.epoch}`
        for (const request of requests(before.epoch, before.attempt, attempt)) {
          const answer = decideOwnership(before, request, moment)
          checkProperties(before, request, moment, answer)
          states.add(answer.record.state)
          if (known.has(key(answer.record))) continue
          known.add(key(answer.record))
          next.push(answer.record)
        }
      }
    }
    layer = next
  }
  // Arbitration after a loss of the link will use the other two; no request leads there yet.
  assert.deepEqual([...states].sort(), ['closed', 'failed_over', 'in_sync', 'resyncing'])
})

test('repeating an attempt gives the same answer until another change has happened', () => {
  for (const kind of Object.keys(OWNERSHIP_MOVES) as ChangeKind[]) {
    for (const state of OWNERSHIP_MOVES[kind]) {
      const before = recordIn(state, null)
      const request = requests(EPOCH, 'other').find(
        (candidate) =>
          candidate.kind === kind &&
          'attempt' in candidate &&
          candidate.attempt === 'new-attempt' &&
          candidate.epoch === EPOCH &&
          (!('site' in candidate) || candidate.site === 'az1') &&
          (candidate.kind !== 'failover' || candidate.force) &&
          (candidate.kind !== 'open' || candidate.writer === 'az1'),
      )
      assert(request !== undefined, kind)
      const first = decideOwnership(before, request, time())
      assert(first.ok, `${kind} from ${state}`)
      const again = decideOwnership(first.record, request, time({ bootMs: NOW_MS + 60_000 }))
      assert.deepEqual(again, first)

      const moved = { ...first.record, epoch: first.record.epoch + 1, attempt: 'somebody-else' }
      const stale = decideOwnership(moved, request, time())
      assert.equal(!stale.ok && stale.refusal, 'STALE_EPOCH')
    }
  }
})

test('a failover waits for exactly the lease and the drift, unless the holder consents', () => {
  const before = recordIn('resyncing', { holder: 'az1', endsBootMs: NOW_MS + 3_000 })
  const ask = (bootMs: number, consent = false) =>
    decideOwnership(
      before,
      { kind: 'failover', epoch: EPOCH, attempt: 'new-attempt', force: true, consent },
      time({ bootMs }),
    )
  const early = ask(NOW_MS)
  assert(!early.ok && early.refusal === 'LEASE_HELD')
  assert.equal(early.retryAfterMs, 3_000 + DRIFT_MS)
  assert.equal(ask(NOW_MS + 3_000 + DRIFT_MS - 1).ok, false)
  assert.equal(ask(NOW_MS + 3_000 + DRIFT_MS).ok, true)
  assert.equal(ask(NOW_MS, true).ok, true)
})

test('a witness that has just started lets nobody take over from a writer whose lease it may not know', () => {
  const waiting = time({ waitUntilBootMs: NOW_MS + 5_000 })
  for (const state of STATES) {
    const answer = decideOwnership(
      recordIn(state, null),
      { kind: 'failover', epoch: EPOCH, attempt: 'new-attempt', force: true, consent: false },
      waiting,
    )
    if (ALONE.has(state) && state !== 'failed_over') {
      assert(!answer.ok && answer.refusal === 'LEASE_HELD', state)
      assert.equal(answer.retryAfterMs, 5_000)
    } else if (state === 'in_sync' || state === 'frozen') {
      assert(answer.ok, 'nobody holds a lease there')
    }
  }
})
