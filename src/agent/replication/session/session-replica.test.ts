/** The session of a replica, in step and in a resync. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { PeerHello } from './session.ts'
import {
  record,
  stored,
  kinds,
  find,
  replicaHello,
  Side,
  AbleSide,
  type Change,
} from './session-side.ts'

describe('the session of a replica', () => {
  const inSync = stored({ record: record(2, 'in_sync', 'az2'), consistent: true })

  test('is inconsistent on disk before the first frame of a copy, and consistent again only when durable', () => {
    const side = new Side()
    side.open(record(1, 'resyncing', 'az2'))
    const writer = { ...replicaHello(record(1, 'resyncing', 'az2')), role: 'writer' as const }
    side.handle({ kind: 'link_up', hello: writer })
    const begin = side.handle({ kind: 'message', message: { kind: 'copy_begin', sequence: 7 } })
    assert.equal(find(begin, 'persist').stored.consistent, false)
    assert.equal(side.session.gate.sequence, 7)
    const message = { kind: 'rise', epoch: 2, members: [1] }
    const rise = side.handle({ kind: 'message', message })
    assert.deepEqual(kinds(rise), ['make_durable', 'mark_joined', 'persist', 'send'])
    assert.equal(find(rise, 'persist').stored.consistent, true)
  })

  test('waits out the old writer before it asks for the lease, also after a crash in between', () => {
    const side = new Side(inSync, 9)
    side.handle({ kind: 'start' })
    side.now += 1_000
    side.session.silence.answered(side.now)
    const effects = side.open(record(3, 'failed_over'))
    assert.ok(!kinds(effects).includes('ask'))
    side.now += 4_200
    assert.ok(!kinds(side.handle({ kind: 'tick' })).includes('ask'))
    const crashed = new Side(side.session.stored)
    assert.ok(!kinds(crashed.handle({ kind: 'start' })).includes('ask'))
    side.now += 101
    const asked = side.handle({ kind: 'tick' })
    const served = side.answer(asked, record(3, 'failed_over'))
    assert.ok(kinds(served).includes('serve'))
    assert.equal(side.session.phase, 'alone')
  })

  test('refuses to become the writer in the middle of a copy, after power loss, or with a partial member', () => {
    const copying = new Side(stored({ record: record(1, 'resyncing', 'az2') }), 3)
    assert.equal(
      find(copying.open(record(2, 'failed_over')), 'refuse_command').code,
      'NOT_CONSISTENT',
    )
    const rebooted = new Side(inSync, null)
    assert.equal(
      find(rebooted.open(record(3, 'failed_over')), 'refuse_command').code,
      'NOT_CONSISTENT',
    )
    const partial = new Side(inSync, 9)
    const command = { kind: 'open', record: record(3, 'failed_over'), force: false, joined: false }
    assert.equal(find(partial.handle(command), 'refuse_command').code, 'NOT_CONSISTENT')
    assert.equal(partial.session.stored.record.epoch, 2, 'nothing was changed')
    partial.handle({ ...command, force: true })
    assert.equal(partial.session.stored.record.epoch, 3)
  })

  test('takes over after a drained switch when the old writer has accepted the new epoch', () => {
    const side = new Side(inSync, 9)
    side.handle({ kind: 'start' })
    const effects = side.open(record(3, 'in_sync'))
    const [durable, persisted] = ['make_durable', 'persist'].map((k) => kinds(effects).indexOf(k))
    assert.ok(durable !== undefined && durable >= 0 && durable < (persisted ?? 0))
    assert.equal(side.session.served, false)
    const hello = replicaHello(record(3, 'in_sync'), { applied: 9 })
    assert.ok(kinds(side.handle({ kind: 'link_up', hello })).includes('serve'))
  })

  test('refuses what is older than what it holds', () => {
    const side = new Side(inSync, 9)
    assert.equal(find(side.open(record(1, 'resyncing')), 'refuse_command').code, 'STALE_EPOCH')
    const hello = { ...replicaHello(record(1, 'in_sync', 'az2')), role: 'writer' as const }
    assert.deepEqual(side.handle({ kind: 'link_up', hello }), [{ kind: 'drop_link', tell: true }])
  })
})

/** A writer with writes that its replica has not acknowledged, after a forced failover to that and a reprotect. */
function demoted(): { side: Side; hello: PeerHello } {
  const side = new AbleSide(stored({ record: record(2, 'in_sync'), baseEpoch: 2 }), 7)
  side.handle({ kind: 'start' })
  const inSync = replicaHello(record(2, 'in_sync'), { applied: 7, baseEpoch: 2 })
  side.handle({ kind: 'link_up', hello: inSync, logFrom: null })
  side.handle({ kind: 'reconciled' })
  assert.equal(side.session.phase, 'following')
  for (let count = 0; count < 5; count++) side.session.gate.next()
  side.handle({ kind: 'link_down' })
  const record4 = record(4, 'resyncing', 'az2')
  side.open(record4)
  assert.equal(side.session.phase, 'waiting')
  return { side, hello: replicaHello(record4, { role: 'writer' }) }
}

describe('a replica in a resync', () => {
  const behind = (change: Change = {}) =>
    stored({ record: record(4, 'resyncing', 'az2'), consistent: true, baseEpoch: 2, ...change })
  const writerHello = { ...replicaHello(record(4, 'resyncing', 'az2')), role: 'writer' as const }

  function begun(from = behind(), known: number | null = 10, hello: PeerHello = writerHello) {
    const side = new AbleSide(from, known)
    side.handle({ kind: 'start' })
    side.handle({ kind: 'link_up', hello, logFrom: null })
    const message = { kind: 'copy_begin', sequence: 20 }
    return { side, begin: side.handle({ kind: 'message', message }) }
  }

  test('has more alone than it changed itself where the writer lost something since, or the two have no base', () => {
    const ownOnly = (from: Change, hello: Partial<PeerHello>) =>
      find(begun(behind(from), 10, { ...writerHello, ...hello }).begin, 'keep_copy').ownOnly
    assert.equal(ownOnly({}, { exact: true, baseEpoch: 2 }), true)
    assert.equal(ownOnly({}, { baseEpoch: 2 }), false, 'it does not say that it lost nothing')
    assert.equal(ownOnly({}, { exact: true, baseEpoch: 3 }), false, 'another base')
    assert.equal(ownOnly({ baseEpoch: 0 }, { exact: true, baseEpoch: 0 }), false, 'none')
    assert.equal(ownOnly({ exact: false }, { exact: true, baseEpoch: 2 }), false, 'its own map')
  })

  test('keeps its last state before anything is applied, and says so before it is inconsistent', () => {
    const { side, begin } = begun()
    assert.deepEqual(kinds(begin), ['keep_copy'])
    assert.equal(side.session.applies, false)
    assert.equal(side.session.stored.consistent, true)
    const { id } = find(begin, 'keep_copy')
    const kept = side.handle({ kind: 'kept', id, ok: true })
    const { consistent, kept: name } = find(kept, 'persist').stored
    assert.deepEqual([consistent, name], [false, id])
    assert.equal(side.session.applies, true)
    // Interrupted and begun again: the copy of the beginning is the one.
    side.handle({ kind: 'link_down' })
    side.handle({ kind: 'link_up', hello: writerHello, logFrom: null })
    const again = side.handle({ kind: 'message', message: { kind: 'copy_begin', sequence: 25 } })
    assert.ok(!kinds(again).includes('keep_copy'))
    assert.equal(side.session.stored.kept, id)
  })

  test('begins to keep anew with every link, whatever became of the one before', () => {
    for (const lose of [
      (side: Side) => side.handle({ kind: 'link_down' }),
      // Dropped by this side, of which no event tells, and replaced without one.
      (side: Side) =>
        side.handle({
          kind: 'message',
          message: { kind: 'epoch', record: record(1, 'in_sync', 'az2') },
        }),
      () => [],
    ]) {
      const { side, hello } = demoted()
      side.handle({ kind: 'link_up', hello, logFrom: null })
      const first = side.handle({ kind: 'message', message: { kind: 'copy_begin', sequence: 40 } })
      assert.equal(find(first, 'keep_copy').id, 'kept-4-1')
      lose(side)
      side.handle({ kind: 'link_up', hello, logFrom: null })
      const again = side.handle({ kind: 'message', message: { kind: 'copy_begin', sequence: 50 } })
      const { id } = find(again, 'keep_copy')
      const kept = side.handle({ kind: 'kept', id, ok: true })
      assert.equal(find(kept, 'persist').stored.kept, id)
      assert.deepEqual(kinds(kept).slice(-1), ['applied_from'])
      assert.equal(side.session.phase, 'receiving')
      assert.equal(side.session.gate.sequence, 50)
    }
  })

  test('takes no copy without space for what it has, and asks again later', () => {
    const { side, begin } = begun()
    const { id } = find(begin, 'keep_copy')
    assert.deepEqual(kinds(side.handle({ kind: 'kept', id, ok: false })), ['drop_link'])
    assert.equal(side.session.hello(false).unfit, 'no_space')
    assert.equal(side.session.stored.consistent, true)
    // A link whose hello said so may be coming up when the time is over: it has to be opened anew.
    side.tick(10_000)
    assert.equal(side.session.hello(false).unfit, 'no_space')
    side.handle({ kind: 'link_up', hello: writerHello, logFrom: null })
    assert.deepEqual(kinds(side.tick(10_100)), ['drop_link'])
    assert.equal(side.session.hello(false).unfit, null)
  })

  test('that is made the writer half way goes back to what it kept', () => {
    const { side, begin } = begun()
    const { id } = find(begin, 'keep_copy')
    side.handle({ kind: 'kept', id, ok: true })
    assert.equal(
      find(side.open(record(5, 'failed_over')), 'refuse_command').code,
      'NOT_CONSISTENT',
      'not without force',
    )
    const forced = side.open(record(5, 'failed_over'), true)
    const order = kinds(forced)
    assert.ok(order.indexOf('drop_link') < order.indexOf('restore_kept'))
    assert.ok(order.indexOf('restore_kept') < order.indexOf('persist'))
    assert.deepEqual(find(forced, 'release_kept'), { kind: 'release_kept', id, divergence: false })
    assert.equal(side.session.stored.consistent, true)
  })

  test('lets the kept copy go after the rise, as a divergence when it had answered alone', () => {
    for (const ackedAlone of [false, true]) {
      const { side, begin } = begun(behind({ consistent: false, divergent: true, ackedAlone }))
      const { id } = find(begin, 'keep_copy')
      side.handle({ kind: 'kept', id, ok: true })
      side.handle({ kind: 'message', message: { kind: 'rise', epoch: 5, members: [1] } })
      const epoch = { kind: 'epoch', record: record(5, 'in_sync', 'az2') }
      const risen = side.handle({ kind: 'message', message: epoch })
      assert.deepEqual(kinds(risen), ['persist', 'clear_changes', 'send'])
      assert.equal(find(risen, 'persist').stored.baseEpoch, 5)
      const released = find(side.tick(), 'release_kept')
      assert.deepEqual(released, { kind: 'release_kept', id, divergence: ackedAlone })
      assert.equal(side.session.stored.kept, null)
    }
  })

  test('that lost power stays unclean until the rise, however often its process starts', () => {
    const { side } = begun(behind({ consistent: false, kept: 'kept-4-1' }), null)
    assert.equal(side.session.stored.exact, false)
    const next = new AbleSide(side.session.stored, 22)
    next.handle({ kind: 'start' })
    assert.equal(next.session.hello(false).clean, false)
  })

  test('notes since when it has not heard its writer', () => {
    const before = stored({ record: record(2, 'in_sync', 'az2'), consistent: true })
    const side = new AbleSide(before, 10)
    side.handle({ kind: 'start' })
    assert.ok(!kinds(side.tick(1_000)).includes('persist'))
    assert.equal(find(side.tick(5_000), 'persist').stored.outOfTouchMs, 1_001_000)
    assert.ok(!kinds(side.tick(5_000)).includes('persist'), 'once')
  })
})

test('a copy that is kept again before its rise has another name than the one that became a divergence', () => {
  const of = record(4, 'resyncing', 'az2')
  const side = new AbleSide(stored({ record: of, divergent: true, ackedAlone: true }), 7)
  side.handle({ kind: 'start' })
  const kept = () => {
    side.handle({ kind: 'link_up', hello: replicaHello(of, { role: 'writer' }), logFrom: null })
    const begin = side.handle({ kind: 'message', message: { kind: 'copy_begin', sequence: 9 } })
    const { id } = find(begin, 'keep_copy')
    side.handle({ kind: 'kept', id, ok: true })
    return { id, begin }
  }
  const first = kept()
  side.handle({ kind: 'message', message: { kind: 'rise', epoch: 5, members: [1] } })
  side.handle({ kind: 'link_down' })
  const second = kept()
  const released = find(second.begin, 'release_kept')
  assert.deepEqual([released.id, released.divergence], [first.id, true])
  assert.notEqual(second.id, first.id)
})
