/**
 * The ownership rules, walked completely: every state, lease, request kind, sender, epoch, attempt, trust and wait,
 * some 10,000 combinations, each checked against the same list of properties. A second walk goes breadth-first from
 * the closed record, so that what is asserted about a single decision also holds for every chain of decisions.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { witnessTime } from '../../test/support/witness-time.ts'
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

const time = (more: Partial<WitnessTime> = {}): WitnessTime =>
  witnessTime({
    bootMs: NOW_MS,
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

type Arbitration = Pick<Ownership, 'mode' | 'preferred'>

const ARBITRATIONS: readonly Arbitration[] = [
  { mode: 'witness', preferred: 'az1' },
  { mode: 'static-priority', preferred: 'az1' },
  { mode: 'static-priority', preferred: 'az2' },
]

const recordIn = (
  state: OwnershipState,
  lease: Lease | null,
  arbitration: Arbitration = ARBITRATIONS[0] as Arbitration,
): Ownership => ({
  session: 's',
  epoch: EPOCH,
  state,
  writer: 'az1',
  replica: 'az2',
  lease,
  alone: null,
  ...arbitration,
  incarnation: 'one',
  attempt: 'last-change',
})

const SITES = ['az1', 'az2', 'stranger'] as const
const BY_WRITER = ['rise', 'drop', 'solo', 'resync'] as const
const BY_OPERATION = ['reverse', 'reprotect', 'freeze', 'thaw', 'close'] as const
const BOOLEANS = [false, true] as const

/** Every request there is, around `epoch`: by everybody, current and stale, new and repeated. */
function requests(
  epoch: number,
  lastAttempt: string,
  newAttempt = 'new-attempt',
): OwnershipRequest[] {
  const found: OwnershipRequest[] = []
  for (const site of SITES) found.push({ kind: 'confirm', site })
  for (const named of [epoch - 1, epoch, epoch + 1]) {
    for (const site of SITES) {
      found.push({ kind: 'renew', site, epoch: named })
      found.push({ kind: 'renew', site, epoch: named, alone: ALONE_WORK })
    }
    for (const attempt of [lastAttempt, newAttempt]) {
      const common = { epoch: named, attempt }
      for (const site of SITES) {
        for (const kind of BY_WRITER) found.push({ kind, site, ...common })
        for (const { mode, preferred } of ARBITRATIONS) {
          found.push({ kind: 'configure', site, mode, preferred, ...common })
        }
      }
      for (const kind of BY_OPERATION) found.push({ kind, ...common })
      for (const force of BOOLEANS) {
        for (const consent of BOOLEANS) {
          for (const preferredOff of BOOLEANS) {
            found.push({ kind: 'failover', force, consent, preferredOff, ...common })
          }
        }
      }
      found.push({ kind: 'open', writer: 'az1', replica: 'az2', ...common })
      found.push({ kind: 'open', writer: 'az2', replica: 'az1', ...common })
    }
  }
  for (const named of [epoch - 1, epoch, epoch + BREAK_GLASS]) {
    for (const attempt of [lastAttempt, newAttempt]) {
      for (const site of SITES) {
        for (const [writer, replica] of [
          ['az1', 'az2'],
          ['az2', 'az1'],
          ['az2', 'stranger'],
        ] as const) {
          for (const arbitration of ARBITRATIONS) {
            const record = { epoch: named, writer, replica, ...arbitration }
            for (const known of [undefined, epoch, epoch + 1]) {
              found.push({ kind: 'promoted', site, attempt, record, known })
            }
          }
        }
      }
    }
  }
  return found
}

const BREAK_GLASS = 1_000_000
const ALONE_WORK = { sequence: 12, bytes: 4_096, since: 1_000 }

/** What must be true of one decision, whatever it was. */
function checkProperties(
  before: Ownership,
  request: OwnershipRequest,
  at: WitnessTime,
  answer: OwnershipAnswer,
): void {
  const after = answer.record
  const changed = after.epoch !== before.epoch
  const rise = request.kind === 'promoted' ? request.record.epoch - before.epoch : 1

  assert(!changed || after.epoch === before.epoch + rise, 'the epoch rises by one')
  assert(after.epoch >= before.epoch, 'the epoch never falls')
  assert.equal(after.session, before.session)
  assert.notEqual(after.writer, after.replica)
  assert(
    after.preferred === after.writer || after.preferred === after.replica,
    'the preferred site is one of the two',
  )
  if (!changed) {
    const rest = { lease: null, alone: null }
    assert.deepEqual({ ...after, ...rest }, { ...before, ...rest }, 'only a renewal is free')
  }
  if (!answer.ok) assert.equal(after, before, 'a refusal changes nothing')
  if (request.kind === 'confirm') assert.equal(after, before, 'a question changes nothing')

  assert(after.lease === null || after.state !== 'in_sync', 'nobody is alone in sync')
  assert(after.lease === null || after.lease.holder === after.writer, 'the writer holds the lease')
  assert(after.alone === null || after.state !== 'in_sync', 'in sync nobody lacks anything')

  const repeat = 'attempt' in request && request.attempt === before.attempt
  if (repeat) {
    assert(answer.ok, 'a repeat of the last change is answered with what it made')
    assert.equal(after, before)
  }
  if (changed) {
    assert(request.kind !== 'confirm' && request.kind !== 'renew')
    assert.equal(after.attempt, request.attempt)
    assert.equal(after.incarnation, at.incarnation)
    assert(answer.ok && answer.leaseMs === null)
    if (request.kind === 'promoted') {
      assert.equal(after.state, 'failed_over')
      assert.equal(after.writer, request.site, 'a site speaks for itself')
      assert(after.epoch > before.epoch, 'the higher epoch wins')
    } else {
      assert.equal(request.epoch, before.epoch, 'only the present epoch is changed')
      assert(OWNERSHIP_MOVES[request.kind].includes(before.state), 'only along the table')
      assert(at.historyTrusted, 'nothing changes without a trusted history')
      assert(!('site' in request) || request.site === before.writer, 'agents speak as the writer')
    }
    const arbitrated = after.mode !== before.mode || after.preferred !== before.preferred
    const first = request.kind === 'open' && before.epoch === 0
    const knewMore = request.kind === 'promoted' && (request.known ?? 0) > before.epoch
    assert(
      !arbitrated || first || request.kind === 'configure' || knewMore,
      'arbitration is changed by configure alone, or known from a site that was shown more',
    )
    if (request.kind === 'configure') assert.equal(before.state, 'in_sync')
  }
  if (after.lease !== before.lease && after.lease !== null) {
    assert(request.kind === 'renew' && request.site === before.writer)
    assert(ALONE.has(before.state), 'a lease is given only where the writer is alone')
    assert(at.historyTrusted)
    assert.equal(after.lease.endsBootMs, at.bootMs + at.leaseMs)
    assert.equal(answer.ok && answer.leaseMs, at.leaseMs)
  }
  // A writer that was not asked goes on under its lease until it hears of the change, so the lease stays in the record.
  if (after.lease === null && before.lease !== null && after.writer === before.writer) {
    assert(request.kind === 'rise', 'only the holder gives its lease up')
  }

  // One writer: who may acknowledge alone before, and who after?
  if (after.writer !== before.writer && before.epoch > 0 && request.kind !== 'promoted') {
    assert(request.kind === 'reverse' || request.kind === 'failover')
    // A reverse is asked for when the writer has drained under this epoch and waits, which is its consent.
    const consent = request.kind === 'reverse' || request.consent
    const off = request.kind === 'failover' && request.preferredOff === true
    if (request.kind === 'reverse') assert.equal(before.state, 'in_sync')
    assert(consent || leaseLeftMs(before, at) === 0, 'no second writer while a lease lives')
    assert(
      before.state === 'in_sync' || (request.kind === 'failover' && request.force),
      'a side that lacks writes becomes writer by force alone',
    )
    const mayRun = before.mode === 'static-priority' && before.preferred === before.writer
    assert(!mayRun || consent || off, 'nobody takes over from a preferred site that may run')
  }
  if (!answer.ok && answer.retryAfterMs !== null) {
    assert(Number.isInteger(answer.retryAfterMs) && answer.retryAfterMs > 0)
  }
}

test('no request, from anyone, at any time, breaks a property of the ownership record', () => {
  let walked = 0
  const seen = new Set<string>()
  const refusals = new Set<string>()
  for (const state of STATES) {
    for (const [leaseName, lease] of Object.entries(LEASES)) {
      if (lease !== null && state === 'in_sync') continue
      for (const arbitration of ARBITRATIONS) {
        for (const historyTrusted of BOOLEANS) {
          for (const waitUntilBootMs of [0, NOW_MS + 5_000]) {
            const before = recordIn(state, lease, arbitration)
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
              if (!answer.ok) refusals.add(answer.refusal)
              walked++
            }
          }
        }
      }
    }
  }
  const table = Object.entries(OWNERSHIP_MOVES).flatMap(([kind, from]) =>
    from.map((state) => `${kind} from ${state}`),
  )
  // Break-glass comes from outside: whatever the record says, the higher epoch wins.
  const promotions = STATES.map((state) => `promoted from ${state}`)
  assert.deepEqual([...seen].sort(), [...table, ...promotions].sort(), 'the table and no more')
  assert.deepEqual([...refusals].sort(), [
    'LEASE_HELD',
    'NOT_IN_SYNC',
    'NOT_WRITER',
    'PREFERRED_MAY_RUN',
    'STALE_EPOCH',
    'WITNESS_WAITING',
    'WRONG_STATE',
  ])
  assert(walked > 40_000, `only ${walked} combinations`)
})

test('every chain of up to six requests from the closed record keeps the properties', () => {
  const at = time()
  const late = time({ bootMs: NOW_MS + LEASE_MS + DRIFT_MS })
  const key = ({ epoch, attempt, session, incarnation, ...rest }: Ownership) =>
    JSON.stringify([rest, epoch === 0, attempt === '', session, incarnation])
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
  assert.deepEqual([...states].sort(), [...STATES].sort())
})

test('repeating an attempt gives the same answer until another change has happened', () => {
  for (const kind of Object.keys(OWNERSHIP_MOVES) as ChangeKind[]) {
    for (const state of OWNERSHIP_MOVES[kind]) {
      const before = recordIn(state, null)
      const request = requests(EPOCH, 'other').find(
        (candidate) =>
          candidate.kind === kind &&
          'attempt' in candidate &&
          'epoch' in candidate &&
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
  const waiting = time({ waitUntilBootMs: NOW_MS + 5_000, incarnation: 'one' })
  const failover = (before: Ownership, at: WitnessTime) =>
    decideOwnership(
      before,
      { kind: 'failover', epoch: EPOCH, attempt: 'new-attempt', force: true, consent: false },
      at,
    )
  for (const state of OWNERSHIP_MOVES.failover) {
    const answer = failover(recordIn(state, null), waiting)
    if (state === 'in_sync') assert(answer.ok, 'nobody holds a lease there')
    else {
      assert(!answer.ok && answer.refusal === 'LEASE_HELD', state)
      assert.equal(answer.retryAfterMs, 5_000)
    }
    // Of a record out of a restored database not even in_sync says that nobody holds a lease.
    const restored = failover(recordIn(state, null), { ...waiting, incarnation: 'two' })
    assert(!restored.ok && restored.refusal === 'LEASE_HELD', state)
  }
})

test('a frozen group keeps the lease that its writer has, renews none, and a thaw does not shorten it', () => {
  const before = recordIn('solo', { holder: 'az1', endsBootMs: NOW_MS + 3_000 })
  const frozen = decideOwnership(
    before,
    { kind: 'freeze', epoch: EPOCH, attempt: 'freeze-attempt' },
    time(),
  )
  assert(frozen.ok && frozen.record.state === 'frozen')
  assert.deepEqual(frozen.record.lease, before.lease)
  for (const epoch of [EPOCH, EPOCH + 1]) {
    const renewed = decideOwnership(frozen.record, { kind: 'renew', site: 'az1', epoch }, time())
    assert(!renewed.ok)
    assert.equal(renewed.refusal, epoch === EPOCH ? 'STALE_EPOCH' : 'WRONG_STATE')
  }
  const force = { kind: 'failover', attempt: 'new-attempt', force: true } as const
  const takeover = (record: Ownership, consent: boolean) =>
    decideOwnership(record, { ...force, epoch: record.epoch, consent }, time())
  assert.equal(takeover(frozen.record, false).ok, false)
  assert.equal(takeover(frozen.record, true).ok, true, 'it has given up by itself')
  const thawed = decideOwnership(
    frozen.record,
    { kind: 'thaw', epoch: EPOCH + 1, attempt: 'thaw-attempt' },
    time(),
  )
  assert(thawed.ok && thawed.record.state === 'solo')
  assert.equal(takeover(thawed.record, false).ok, false, 'it may not have heard of either')
})

test('a lease outlives a close and the open after it, which its holder may both have missed', () => {
  const before = recordIn('resyncing', { holder: 'az1', endsBootMs: NOW_MS + 3_000 })
  const common = { epoch: EPOCH, attempt: 'close-attempt' }
  const closed = decideOwnership(before, { kind: 'close', ...common }, time())
  const opened = decideOwnership(
    closed.record,
    { kind: 'open', epoch: EPOCH + 1, attempt: 'open-attempt', writer: 'az1', replica: 'az2' },
    time(),
  )
  assert(opened.ok)
  assert(leaseLeftMs(opened.record, time()) > 0)
})

test('a preferred site of static priority is taken over from only with its consent or the word that it is off', () => {
  for (const state of OWNERSHIP_MOVES.failover) {
    for (const arbitration of ARBITRATIONS) {
      for (const consent of BOOLEANS) {
        for (const preferredOff of BOOLEANS) {
          const answer = decideOwnership(
            recordIn(state, null, arbitration),
            {
              kind: 'failover',
              epoch: EPOCH,
              attempt: 'new-attempt',
              force: true,
              consent,
              preferredOff,
            },
            time(),
          )
          const { mode, preferred } = arbitration
          const mayRun = mode === 'static-priority' && preferred === 'az1'
          if (mayRun && !consent && !preferredOff) {
            assert(!answer.ok && answer.refusal === 'PREFERRED_MAY_RUN', state)
          } else assert(answer.ok, state)
        }
      }
    }
  }
})

test('how a group is arbitrated is one thing at a time, changed in sync and under a new epoch', () => {
  let record = recordIn('in_sync', null)
  for (const { mode, preferred } of [...ARBITRATIONS].reverse()) {
    const answer = decideOwnership(
      record,
      {
        kind: 'configure',
        site: 'az1',
        epoch: record.epoch,
        attempt: `configure-epoch-${record.epoch}`,
        mode,
        preferred,
      },
      time(),
    )
    assert(answer.ok)
    assert.deepEqual(
      [answer.record.mode, answer.record.preferred, answer.record.state, answer.record.epoch],
      [mode, preferred, 'in_sync', record.epoch + 1],
    )
    record = answer.record
  }
})
