/** Becoming the writer, and ceasing to be it: what is waited for, what is refused, and what is given up. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { OwnershipRecord } from '#wire/site/witness.ts'
import {
  AbleSide,
  type Change,
  find,
  following,
  inStep,
  kinds,
  LEASE_MS,
  record,
  replicaHello,
  Side,
  solo,
  stored,
} from './session-side.ts'

const replica = (change: Change = {}, known: number | null = 9) => {
  const before = { record: record(2, 'in_sync', 'az2'), consistent: true, baseEpoch: 2 }
  const side = new AbleSide(stored({ ...before, ...change }), known)
  side.handle({ kind: 'start' })
  return side
}

describe('a replica that is switched to', () => {
  test('fetches what it lost with its power, all of it, before it may go on alone', () => {
    for (const known of [9, null]) {
      const side = replica({}, known)
      side.answer(side.open(record(3, 'in_sync')), record(3, 'in_sync'))
      const { whole, base } = side.session.stored
      assert.deepEqual([whole, base], [known !== null, known !== null])
      const hello = replicaHello(record(3, 'in_sync'), { applied: 9, baseEpoch: 2 })
      const linked = side.handle({ kind: 'link_up', hello, logFrom: null })
      if (known !== null) assert.deepEqual(find(linked, 'resend'), { kind: 'resend', after: 9 })
      else assert.deepEqual(linked, [{ kind: 'reconcile', scope: 'all' }])
    }
  })

  test('asks to go on alone only when the old writer is certainly silent', () => {
    const side = replica()
    side.now += 10_000
    side.session.silence.answered(side.now)
    side.answer(side.open(record(3, 'in_sync')), record(3, 'in_sync'))
    const over = side.session.silence.overAtMs()
    while (side.now + 400 < over) {
      const asked = side.tick().find((effect) => effect.kind === 'ask')
      if (asked?.kind !== 'ask') continue
      assert.equal(asked.ask.kind, 'confirm')
      side.answer([asked], record(3, 'in_sync'))
    }
    assert.equal(find([...side.tick(400), ...side.tick(2_000)], 'ask').ask.kind, 'solo')
  })

  test('and another process of a writer waits as long, since nobody knows what the one before has answered to', () => {
    const side = new AbleSide(inStep().session.stored, 10)
    let asked = side.handle({ kind: 'start' })
    const over = side.session.silence.overAtMs()
    assert.ok(over > side.now + 4_000)
    while (side.now + 400 < over) {
      if (kinds(asked).includes('ask')) {
        assert.equal(find(asked, 'ask').ask.kind, 'confirm')
        side.answer(asked, record(2, 'in_sync'))
      }
      asked = side.tick()
    }
  })

  test('waits as after a failover when the first that it hears is already of a reprotect', () => {
    const side = replica()
    side.now += 10_000
    side.session.silence.answered(side.now)
    const told = side.open(record(4, 'resyncing'))
    assert.equal(side.session.phase, 'promoting')
    assert.ok(!kinds(told).includes('serve') && !kinds(told).includes('ask'))
    assert.equal(side.session.stored.promoting, true)
    assert.equal(side.session.stored.base, false, 'the sites are equal nowhere but in sync')
  })

  test('goes on waiting when a newer record comes meanwhile', () => {
    const side = replica()
    side.now += 10_000
    side.session.silence.answered(side.now)
    side.open(record(3, 'failed_over'))
    const told = side.open(record(4, 'resyncing'))
    assert.equal(side.session.phase, 'promoting')
    assert.ok(!kinds(told).includes('ask'))
  })
})

describe('a site does not become the writer', () => {
  test('by the word of its peer, unless it is in step and the record says so', () => {
    const shown = (of: OwnershipRecord, change: Change = {}) => {
      const side = replica(change)
      side.handle({ kind: 'peer_record', record: of })
      return side.session.role
    }
    assert.equal(shown(record(3, 'in_sync')), 'writer')
    assert.equal(shown(record(3, 'in_sync'), { consistent: false }), 'replica')
    for (const state of ['failed_over', 'solo', 'frozen', 'resyncing'] as const) {
      assert.equal(shown(record(3, state)), 'replica', state)
    }
  })

  test('by an answer to what it asked when it was the writer before', () => {
    const side = inStep()
    const asked = side.handle({ kind: 'link_down' })
    side.open(record(3, 'failed_over', 'az2'))
    side.answer(asked, record(5, 'failed_over'))
    assert.equal(side.session.role, 'fenced')
    assert.equal(side.session.stored.record.epoch, 3)
  })

  test('without force, when it holds more than its successor was sent', () => {
    const behind = inStep()
    behind.session.gate.next()
    behind.answer(behind.handle({ kind: 'link_down' }), record(2, 'in_sync'))
    const { consistent, divergent } = find(
      behind.open(record(4, 'resyncing', 'az2')),
      'persist',
    ).stored
    assert.deepEqual([consistent, divergent], [false, true])
    assert.equal(
      find(behind.open(record(5, 'failed_over')), 'refuse_command').code,
      'NOT_CONSISTENT',
    )
  })

  test('by break-glass over a copy that was never complete', () => {
    for (const [joined, change] of [
      [false, {}],
      [true, { consistent: false }],
    ] as const) {
      const side = replica(change)
      const told = side.handle({ kind: 'promote', joined, force: true })
      assert.equal(find(told, 'refuse_command').code, 'NOT_CONSISTENT')
    }
  })

  test('out of what an ended session left, when that had diverged', () => {
    const file = stored({ record: record(6, 'closed', 'az2'), consistent: true, divergent: true })
    const side = new AbleSide(file, null)
    side.handle({ kind: 'start', over: true })
    const again = {
      kind: 'open',
      record: record(7, 'resyncing', 'az2'),
      force: false,
      joined: true,
    }
    assert.equal(find(side.handle({ ...again, left: true }), 'persist').stored.consistent, false)
  })
})

describe('the right to answer', () => {
  test('is given up with the lease and the contact by whoever is told of another writer, or frozen', () => {
    const [frozen, other] = [record(9, 'frozen'), record(10, 'failed_over', 'az2')]
    for (const begun of [solo, following]) {
      for (const told of [[frozen, other], [other]]) {
        const side = begun()
        for (const next of told) {
          side.open(next)
          const { lease, gate, contact, drained } = side.session
          assert.equal(lease.valid(side.now), false)
          assert.equal(gate.mode, 'closed')
          assert.equal(drained, false)
          if (next === other) assert.equal(contact.valid(side.now), false)
        }
      }
    }
  })

  test('counts from before the question', () => {
    const side = new Side()
    const { ask } = find(side.open(record(1, 'resyncing')), 'ask')
    const sentMs = side.now
    side.now += 3_000
    const answer = { ok: true, record: record(1, 'resyncing'), lease_ms: LEASE_MS }
    side.handle({ kind: 'witness', ask, sentMs, answer })
    assert.equal(side.session.lease.untilMs, sentMs + LEASE_MS)
    // A renewal moves the end, and adds nothing to it.
    const renewed = find(side.handle({ kind: 'tick', now: side.now + 2_000 }), 'ask').ask
    side.handle({ kind: 'witness', ask: renewed, sentMs: side.now, answer })
    assert.equal(side.session.lease.untilMs, side.now + LEASE_MS)
  })

  test('of another record of the same epoch is nobody’s: the site takes the witness’s word', () => {
    const side = following()
    const asked = side.handle({ kind: 'link_down' })
    side.answer(asked, record(2, 'in_sync', 'az2'))
    assert.equal(side.session.role, 'replica')
    assert.equal(side.session.gate.mayAnswer(side.now), false)
  })

  test('is not taken up by a frozen writer whose host starts', () => {
    for (const known of [9, null]) {
      const frozen = stored({ record: record(3, 'frozen'), consistent: true })
      const side = new AbleSide(frozen, known)
      assert.match(find(side.handle({ kind: 'start' }), 'refuse').reason, /^frozen/)
      assert.equal(side.session.phase, 'frozen')
    }
  })
})

test('a kept copy goes when the volumes are what it holds, and not before; also at a site that is made a frozen writer', () => {
  const cases = [
    ['resyncing', 'failed_over'],
    ['resyncing', 'frozen'],
    // It has missed that it was fenced in the middle of its copy.
    ['failed_over', 'failed_over'],
  ] as const
  for (const [from, state] of cases) {
    const receiving = { record: record(4, from, 'az2'), consistent: false, kept: 'kept-4-1' }
    const side = new AbleSide(stored(receiving), 9)
    side.handle({ kind: 'start' })
    const done = kinds(side.open(record(5, state), true))
    const order = ['restore_kept', 'persist', 'release_kept'].map((wanted) => done.indexOf(wanted))
    assert.ok(order[0] !== -1, state)
    assert.deepEqual(
      order,
      order.toSorted((one, other) => one - other),
      state,
    )
    assert.equal(done.filter((kind) => kind === 'release_kept').length, 1)
  }
})

test('a copy that was kept is released before it is forgotten, so that whoever dies in between does it again', () => {
  const risen = { record: record(5, 'in_sync', 'az2'), consistent: true, baseEpoch: 5 }
  const side = new AbleSide(stored({ ...risen, kept: 'kept-4-1', ackedAlone: true }), 9)
  side.handle({ kind: 'start' })
  const hello = replicaHello(side.session.stored.record, { role: 'writer' })
  side.handle({ kind: 'link_up', hello, logFrom: null })
  const released = side.tick()
  assert.deepEqual(kinds(released), ['release_kept', 'persist'])
  assert.equal(find(released, 'release_kept').divergence, true)
})

describe('drained', () => {
  const held = () => {
    const side = inStep()
    side.handle({ kind: 'hold', epoch: 2, holdMs: 500 })
    return side
  }

  test('is said of no hold that has ended, with its link or by itself', () => {
    const cut = held()
    cut.handle({ kind: 'drained' })
    assert.equal(cut.session.drained, true)
    const lost = cut.handle({ kind: 'link_down' })
    assert.equal(cut.session.drained, false)
    assert.deepEqual(find(lost, 'input'), { kind: 'input', open: true })
    const late = held()
    late.handle({ kind: 'release' })
    late.handle({ kind: 'drained' })
    assert.equal(late.session.drained, false)
  })
})
