/** What a writer concludes from how its replica introduces itself, and what a side says of itself. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { PeerHello } from './session.ts'
import {
  AbleSide,
  type Change,
  find,
  inStep,
  kinds,
  record,
  replicaHello,
  Side,
  solo,
  soloHello,
  stored,
} from './session-side.ts'

const inSync = { record: record(2, 'in_sync'), consistent: true, base: true, baseEpoch: 2 }

/** A writer in sync whose link is lost with a write on its way that the replica has acknowledged. */
function cutOff(): AbleSide {
  const side = inStep()
  side.session.gate.next()
  side.session.gate.acknowledge(11)
  side.answer(side.handle({ kind: 'link_down' }), record(2, 'in_sync'))
  return side
}

const back = (side: AbleSide, change: Partial<PeerHello>) => {
  const hello = replicaHello(record(2, 'in_sync'), { applied: 11, baseEpoch: 2, ...change })
  return side.handle({ kind: 'link_up', hello, logFrom: 10 })
}

describe('a replica that comes back in sync', () => {
  test('is followed when it has what it acknowledged, and gets what comes after all that it has', () => {
    const side = cutOff()
    side.session.gate.next()
    side.session.gate.next()
    assert.deepEqual(find(back(side, { applied: 12 }), 'resend'), { kind: 'resend', after: 12 })
    assert.equal(side.session.phase, 'following')
    assert.deepEqual([side.session.gate.acknowledged, side.session.gate.sequence], [12, 13])
  })

  test('is in contact when it has answered on this link', () => {
    const side = cutOff()
    side.session.contact.heard(side.now)
    back(side, {})
    assert.equal(side.session.gate.mayAnswer(side.now), false)
  })

  test('is dropped when it lacks what it acknowledged, has more than was numbered, or is no prefix', () => {
    for (const [change, keepsBase] of [
      [{ applied: 10 }, false],
      [{ applied: 12 }, false],
      [{ consistent: false }, true],
      [{ divergent: true }, true],
      [{ clean: false }, true],
    ] as const) {
      const side = cutOff()
      const asked = find(back(side, change), 'ask').ask
      assert.equal(asked.kind, 'drop', JSON.stringify(change))
      assert.equal(side.session.phase, 'held')
      assert.equal(side.session.stored.baseEpoch, keepsBase ? 2 : 0, 'its maps may be as old')
    }
  })

  test('is compared with what a writer that stopped cleanly was at, whichever of the two is behind', () => {
    for (const applied of [49, 51]) {
      const side = new AbleSide(stored({ ...inSync, clean: 50 }), null)
      side.answer(side.handle({ kind: 'start' }), inSync.record)
      const hello = replicaHello(inSync.record, { applied, baseEpoch: 2 })
      side.handle({ kind: 'link_up', hello, logFrom: null })
      assert.equal(side.session.phase, 'opening', `${applied}`)
      assert.equal(side.session.stored.baseEpoch, 0)
    }
  })

  test('is the source for a writer that lacks something; of all of it where no region says what may differ', () => {
    for (const base of [true, false]) {
      const side = new Side(stored({ ...inSync, base }))
      side.handle({ kind: 'start' })
      const hello = replicaHello(inSync.record, { applied: 50 })
      const { scope } = find(side.handle({ kind: 'link_up', hello }), 'reconcile')
      assert.equal(scope, base ? 'dirty' : 'all')
    }
  })

  test('gives a writer that lost its power what that lacks although it has written itself, and is copied then', () => {
    for (const state of ['in_sync', 'solo'] as const) {
      const side = new AbleSide(stored({ ...inSync, record: record(4, state), whole: false }), 7)
      side.answer(side.handle({ kind: 'start' }), record(4, state))
      const hello = replicaHello(record(4, state), { applied: 9, baseEpoch: 2, divergent: true })
      assert.ok(kinds(side.handle({ kind: 'link_up', hello, logFrom: null })).includes('reconcile'))
      assert.equal(side.session.stored.whole, false)
      side.handle({ kind: 'reconciled' })
      assert.equal(side.session.stored.whole, true)
      assert.equal(
        side.session.phase,
        'opening',
        'it takes no stream as the continuation of its own',
      )
    }
  })
})

describe('what a side says of itself', () => {
  const hello = (known: number | null, change: Change = {}, dirty = false) =>
    new Side(
      stored({ record: record(2, 'in_sync', 'az2'), consistent: true, ...change }),
      known,
    ).session.hello(dirty)

  test('a replica that lost its power is not clean, and holds writes of its own where its own regions are dirty', () => {
    assert.deepEqual([hello(9).clean, hello(9, {}, true).divergent], [true, false])
    assert.deepEqual([hello(null).clean, hello(null).divergent], [false, false])
    assert.equal(hello(null, {}, true).divergent, true)
    assert.equal(hello(9, { exact: false }).clean, false)
  })

  test('a replica follows a writer in sync only as a whole and known prefix of it', () => {
    const changes: Change[] = [{ consistent: false }, { divergent: true }, { exact: false }]
    for (const change of [{}, ...changes]) {
      const of = record(2, 'in_sync', 'az2')
      const side = new AbleSide(stored({ record: of, consistent: true, ...change }), 9)
      side.handle({ kind: 'start' })
      const writer = replicaHello(of, { role: 'writer' })
      side.handle({ kind: 'link_up', hello: writer, logFrom: null })
      assert.equal(side.session.phase, Object.keys(change).length === 0 ? 'following' : 'waiting')
    }
  })
})

describe('catching up in order', () => {
  test('is refused by a replica that is somewhere else, or no prefix', () => {
    const of = record(3, 'solo', 'az2')
    for (const [change, sequence] of [
      [{}, 8],
      [{ consistent: false }, 9],
      [{ divergent: true }, 9],
      [{ exact: false }, 9],
    ] as const) {
      const side = new AbleSide(stored({ record: of, consistent: true, ...change }), 9)
      side.handle({ kind: 'start' })
      const writer = replicaHello(of, { role: 'writer' })
      side.handle({ kind: 'link_up', hello: writer, logFrom: null })
      const told = side.handle({ kind: 'message', message: { kind: 'catch_up', sequence } })
      assert.deepEqual(kinds(told), ['drop_link'])
      assert.equal(side.session.phase, 'waiting')
    }
  })

  test('is not begun out of a log that was dropped while the link waited for a lease', () => {
    const side = solo()
    side.unreachable([], 9_000)
    const linked = side.handle({ kind: 'link_up', hello: soloHello(side), logFrom: 10 })
    assert.equal(side.session.phase, 'alone', 'no lease')
    const asked = [...linked, ...side.handle({ kind: 'log_dropped' }), ...side.tick(2_000)]
    const granted = side.answer(asked, record(3, 'solo'))
    assert.equal(find(granted, 'ask').ask.kind, 'resync')
    assert.equal(side.session.phase, 'alone')
  })
})
