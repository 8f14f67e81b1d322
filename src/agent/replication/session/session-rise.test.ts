/** The way up to in_sync: what a rise waits for, what it is not, and what is left of one that was interrupted. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  AbleSide,
  find,
  following,
  kinds,
  record,
  replicaHello,
  Side,
  stored,
} from './session-side.ts'

/** A writer in a copy to its replica. */
function copying(): Side {
  const side = new Side()
  side.answer(side.open(record(1, 'resyncing')), record(1, 'resyncing'))
  side.handle({ kind: 'link_up', hello: replicaHello(record(1, 'resyncing')) })
  assert.equal(side.session.phase, 'copying')
  return side
}

/** The same when the rise was committed, and the replica has not said that it knows. */
function committed(): Side {
  const side = copying()
  side.handle({ kind: 'copied', members: [1] })
  const ask = side.handle({ kind: 'message', message: { kind: 'risen', epoch: 2 } })
  side.answer(ask, record(2, 'in_sync'))
  return side
}

describe('a rise', () => {
  test('answers from its beginning only what the replica has, under the lease and in contact with it', () => {
    const side = copying()
    const before = side.session.gate.sequence
    side.handle({ kind: 'copied', members: [1] })
    side.session.contact.heard(side.now)
    side.session.gate.next()
    assert.equal(side.session.phase, 'rising')
    assert.equal(side.session.gate.releasableUpTo(side.now), before)
    assert.equal(side.session.gate.releasableUpTo(side.now + 4_000), -1, 'no contact')
    side.session.contact.heard(side.now + 8_000)
    assert.equal(side.session.gate.releasableUpTo(side.now + 8_000), -1, 'no lease')
  })

  test('is preceded by a copy that begins, and ends with its link, with every frame in the map', () => {
    const side = new Side()
    side.answer(side.open(record(1, 'resyncing')), record(1, 'resyncing'))
    const begun = side.handle({ kind: 'link_up', hello: replicaHello(record(1, 'resyncing')) })
    const ended = side.handle({ kind: 'link_down' })
    for (const effects of [begun, ended]) {
      assert.deepEqual(find(effects, 'forget_frames'), { kind: 'forget_frames', mark: true })
    }
    assert.ok(kinds(ended).includes('stop_copy'))
  })

  test('is asked for when the replica is ready for this one, and over when it has kept this one', () => {
    const side = copying()
    side.handle({ kind: 'copied', members: [1] })
    for (const epoch of [1, 3]) {
      const told = side.handle({ kind: 'message', message: { kind: 'risen', epoch } })
      assert.ok(!kinds(told).includes('persist'))
    }
    const late = committed()
    for (const epoch of [1, 3]) {
      late.handle({ kind: 'message', message: { kind: 'epoch_accepted', epoch } })
      assert.equal(late.session.phase, 'rising')
    }
  })

  test('is declared by the replica for the coming epoch alone, and counts from when the witness has it', () => {
    const from = { record: record(4, 'resyncing', 'az2'), baseEpoch: 2, kept: 'kept-4-1' }
    const side = new AbleSide(stored(from), 9)
    side.handle({ kind: 'start' })
    const hello = replicaHello(side.session.stored.record, { role: 'writer' })
    side.handle({ kind: 'link_up', hello, logFrom: null })
    side.handle({ kind: 'message', message: { kind: 'copy_begin', sequence: 9 } })
    const rise = (epoch: number) =>
      side.handle({ kind: 'message', message: { kind: 'rise', epoch, members: [1] } })
    for (const epoch of [4, 6]) assert.deepEqual(rise(epoch), [])
    assert.equal(side.session.stored.consistent, false)
    assert.deepEqual(find(rise(5), 'send').message, { kind: 'risen', epoch: 5 })
    assert.equal(side.session.stored.baseEpoch, 2)
  })

  test('waits, after a link that was lost soon after the last one, until the next has stood for a while', () => {
    const side = following()
    side.answer(side.handle({ kind: 'link_down' }), record(2, 'in_sync'))
    side.answer(side.open(record(3, 'resyncing')), record(3, 'resyncing'))
    const hello = replicaHello(record(3, 'resyncing'))
    side.handle({ kind: 'link_up', hello })
    side.handle({ kind: 'copied', members: [1] })
    const after = (ms: number) => {
      side.handle({ kind: 'tick', now: side.now + ms })
      return side.session.phase
    }
    assert.deepEqual([after(0), after(1_999)], ['copying', 'copying'])
    // Lost while it waits: the next link begins with a copy of its own, which is not done yet.
    side.handle({ kind: 'link_down' })
    side.handle({ kind: 'link_up', hello })
    assert.equal(after(7_000), 'copying')
    side.handle({ kind: 'copied', members: [1], now: side.now + 7_000 })
    assert.equal(side.session.phase, 'rising')
  })

  test('waits for members that are added while it waits for its link', () => {
    const side = copying()
    side.session.handle({ kind: 'members_changed', now: side.now })
    side.handle({ kind: 'copied', members: [1] })
    assert.equal(side.session.phase, 'rising')

    const late = flapped()
    late.handle({ kind: 'copied', members: [1] })
    const told = late.handle({ kind: 'members_changed' })
    assert.deepEqual(told, [{ kind: 'start_copy', scope: 'joining' }])
    late.now += 10_000
    late.handle({ kind: 'tick' })
    assert.equal(late.session.phase, 'copying')
    late.handle({ kind: 'copied', members: [1, 2] })
    assert.equal(late.session.phase, 'rising')
  })

  test('that was committed while the link was lost leaves it in step, in contact as far as that goes', () => {
    const side = committed()
    side.session.contact.heard(side.now)
    side.handle({ kind: 'link_down' })
    assert.deepEqual([side.session.phase, side.session.gate.mode], ['held', 'both'])
  })
})

/** A writer in a copy whose last rise was lost at once: the next has to wait. */
function flapped(): Side {
  const side = following()
  side.answer(side.handle({ kind: 'link_down' }), record(2, 'in_sync'))
  side.answer(side.open(record(3, 'resyncing')), record(3, 'resyncing'))
  side.handle({ kind: 'link_up', hello: replicaHello(record(3, 'resyncing')) })
  assert.equal(side.session.phase, 'copying')
  return side
}

describe('a replica that is overwritten', () => {
  const of = record(4, 'resyncing', 'az2')
  const waiting = () => {
    const side = new AbleSide(stored({ record: of, consistent: true, baseEpoch: 2 }), 9)
    side.handle({ kind: 'start' })
    side.handle({ kind: 'link_up', hello: replicaHello(of, { role: 'writer' }), logFrom: null })
    return side
  }
  const begin = { kind: 'message', message: { kind: 'copy_begin', sequence: 9 } }

  test('keeps one copy for one beginning, and waits for that one', () => {
    const side = waiting()
    const { id } = find(side.handle(begin), 'keep_copy')
    assert.deepEqual(side.handle(begin), [])
    side.handle({ kind: 'kept', id: 'kept-3-1', ok: true })
    assert.equal(side.session.phase, 'waiting')
    side.handle({ kind: 'kept', id, ok: true })
    assert.equal(side.session.phase, 'receiving')
  })

  test('without space for a copy asks again after a while, not with every link', () => {
    const side = waiting()
    const { id } = find(side.handle(begin), 'keep_copy')
    side.handle({ kind: 'kept', id, ok: false })
    side.handle({ kind: 'link_up', hello: replicaHello(of, { role: 'writer' }), logFrom: null })
    assert.ok(!kinds(side.tick(9_900)).includes('drop_link'))
    assert.equal(side.session.hello(false).unfit, 'no_space')
    assert.ok(kinds(side.tick(100)).includes('drop_link'))
  })

  test('lets a copy go that is taken when nobody waits for it any more, but not the one that it goes by', () => {
    const side = waiting()
    const { id } = find(side.handle(begin), 'keep_copy')
    side.handle({ kind: 'link_down' })
    const released = [{ kind: 'release_kept', id, divergence: false }]
    assert.deepEqual(side.handle({ kind: 'kept', id, ok: true }), released)
    assert.deepEqual(side.handle({ kind: 'kept', id, ok: false }), [])
    const other = new AbleSide(stored({ record: of, kept: id }), 9)
    other.handle({ kind: 'start' })
    assert.deepEqual(other.handle({ kind: 'kept', id, ok: true }), [])
  })
})

test('a replica that is in touch again lacks nothing any more', () => {
  const of = record(2, 'in_sync', 'az2')
  const side = new AbleSide(stored({ record: of, consistent: true, outOfTouchMs: 77 }), 9)
  side.handle({ kind: 'start' })
  const hello = replicaHello(of, { role: 'writer' })
  const linked = side.handle({ kind: 'link_up', hello, logFrom: null })
  assert.equal(find(linked, 'persist').stored.outOfTouchMs, null)
})
