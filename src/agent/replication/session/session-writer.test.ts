/** The session of a writer, with its replica and with the witness. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { OwnershipRecord } from '#wire/site/witness.ts'
import { unopened } from './session.ts'
import {
  LEASE_MS,
  record,
  stored,
  kinds,
  find,
  replicaHello,
  Side,
  following,
} from './session-side.ts'

describe('the session of a writer', () => {
  test('answers nothing before the lease, and alone under it, by the clock', () => {
    const side = new Side()
    const effects = side.open(record(1, 'resyncing'))
    assert.deepEqual(kinds(effects).slice(-4), ['persist', 'input', 'serve', 'ask'])
    side.session.gate.next()
    assert.equal(side.session.gate.releasableUpTo(side.now), -1)
    side.answer(effects, record(1, 'resyncing'))
    assert.equal(side.session.gate.releasableUpTo(side.now), 1)
    assert.equal(side.session.gate.releasableUpTo(side.now + LEASE_MS - 1), 1)
    assert.equal(side.session.gate.releasableUpTo(side.now + LEASE_MS), -1)
  })

  test('persists that it may rise before it asks, and in_sync before it tells the replica', () => {
    const side = new Side()
    side.answer(side.open(record(1, 'resyncing')), record(1, 'resyncing'))
    const copying = side.handle({ kind: 'link_up', hello: replicaHello(record(1, 'resyncing')) })
    assert.deepEqual(kinds(copying), ['forget_frames', 'begin_copy', 'start_copy'])
    side.handle({ kind: 'copied', members: [1] })
    const risen = side.handle({ kind: 'message', message: { kind: 'risen', epoch: 2 } })
    assert.deepEqual(kinds(risen), ['make_durable', 'persist', 'ask'])
    assert.equal(find(risen, 'persist').stored.riseAsked, true)
    const told = side.answer(risen, record(2, 'in_sync'))
    assert.deepEqual(kinds(told), ['persist', 'clear_changes', 'log_frames', 'send'])
    assert.deepEqual(find(told, 'persist').stored.record, record(2, 'in_sync'))
    assert.equal(side.session.gate.mayAnswer(side.now), false)
  })

  test('a copy begins behind the last write of the moment in which it begins, not of the one in which the lease came', () => {
    const side = new Side()
    const ask = side.open(record(1, 'resyncing'))
    side.handle({ kind: 'link_up', hello: replicaHello(record(1, 'resyncing')) })
    const granted = kinds(side.answer(ask, record(1, 'resyncing')))
    assert.equal(side.session.phase, 'copying')
    // Clients are let in first, and number what they have waited with: a number decided upon before that would leave a gap.
    assert.ok(granted.indexOf('input') < granted.indexOf('begin_copy'))
    assert.ok(!granted.includes('send'))
    side.session.gate.next()
    assert.deepEqual([side.session.gate.sequence, side.session.gate.acknowledged], [1, 0])
  })

  test('answers in sync only what the replica acknowledged, while contact lasts', () => {
    const { session, now } = following()
    const base = session.gate.sequence
    session.gate.next()
    session.gate.next()
    session.gate.acknowledge(base + 1)
    assert.equal(session.gate.releasableUpTo(now), base + 1)
    assert.equal(session.gate.releasableUpTo(now + 3_999), base + 1)
    assert.equal(session.gate.releasableUpTo(now + 4_000), -1)
    assert.equal(session.shownPhase(now + 4_000), 'held')
  })

  test('a link that breaks while rising lets it go on alone only if the witness was not asked', () => {
    const early = new Side()
    early.answer(early.open(record(1, 'resyncing')), record(1, 'resyncing'))
    early.handle({ kind: 'link_up', hello: replicaHello(record(1, 'resyncing')) })
    early.handle({ kind: 'copied', members: [1] })
    early.handle({ kind: 'link_down' })
    assert.equal(early.session.phase, 'alone')
    assert.equal(early.session.gate.mode, 'alone')

    const late = new Side()
    late.answer(late.open(record(1, 'resyncing')), record(1, 'resyncing'))
    late.handle({ kind: 'link_up', hello: replicaHello(record(1, 'resyncing')) })
    late.handle({ kind: 'copied', members: [1] })
    const ask = late.handle({ kind: 'message', message: { kind: 'risen', epoch: 2 } })
    late.handle({ kind: 'link_down' })
    assert.equal(late.session.phase, 'rising')
    late.session.gate.next()
    assert.equal(late.session.gate.releasableUpTo(late.now), -1)
    // The witness did not answer: the same attempt again, also by the next process.
    const first = find(ask, 'ask').ask
    const next = new Side(late.session.stored)
    assert.deepEqual(find(next.handle({ kind: 'start' }), 'ask').ask, first)
    late.answer(ask, record(2, 'in_sync'))
    assert.equal(late.session.phase, 'held')
  })

  test('after an unclean stop in sync it reconciles before it serves, after a clean one it need not', () => {
    const before = stored({ record: record(2, 'in_sync'), consistent: true, base: true })
    const unclean = new Side(before)
    unclean.handle({ kind: 'start' })
    const hello = replicaHello(record(2, 'in_sync'), { applied: 50 })
    const effects = unclean.handle({ kind: 'link_up', hello })
    assert.deepEqual(effects, [{ kind: 'reconcile', scope: 'dirty' }])
    assert.equal(unclean.session.served, false)
    const done = unclean.handle({ kind: 'reconciled' })
    assert.ok(kinds(done).includes('serve'))
    assert.equal(unclean.session.gate.sequence, 50)

    const clean = new Side({ ...before, clean: 50 })
    clean.handle({ kind: 'start' })
    const served = clean.handle({ kind: 'link_up', hello })
    assert.ok(kinds(served).includes('serve'))
    assert.equal(find(served, 'persist').stored.clean, null, 'the mark is used up first')
  })

  test('after a loss of power it is not whole because an operator has put it alone meanwhile', () => {
    const before = stored({ record: record(2, 'in_sync'), consistent: true, base: true })
    const lost = new Side(before)
    lost.handle({ kind: 'start' })
    assert.equal(lost.session.stored.whole, false)
    // Frozen, thawed and reprotected while it was down: the replica may still have what is missing here.
    lost.open(record(5, 'resyncing'))
    assert.equal(lost.session.stored.whole, false)
    const dropped = new Side(before)
    dropped.handle({ kind: 'start' })
    dropped.open(record(3, 'resyncing'))
    assert.equal(dropped.session.stored.whole, true, 'the replica had lost something as well')
  })

  test('a replica that lost writes makes it ask for a drop, and copy only what has changed', () => {
    const side = following()
    const confirm = side.handle({ kind: 'link_down' })
    const hello = replicaHello(record(2, 'in_sync'), { clean: false })
    side.handle({ kind: 'link_up', hello })
    // One question at a time, but this one does not wait for the next interval.
    const ask = side.answer(confirm, record(2, 'in_sync'))
    assert.equal(find(ask, 'ask').ask.kind, 'drop')
    const dropped = side.answer(ask, record(3, 'resyncing'))
    assert.equal(find(dropped, 'persist').stored.base, true)
    side.session.gate.next()
    assert.equal(side.session.gate.releasableUpTo(side.now), -1, 'not before the lease')
    side.answer(dropped, record(3, 'resyncing'))
    const returned = replicaHello(record(3, 'resyncing'), { baseEpoch: 2 })
    assert.equal(
      find(side.handle({ kind: 'link_up', hello: returned }), 'start_copy').scope,
      'delta',
    )
  })

  test('a replica with writes of its own is compared in full', () => {
    const side = following()
    const confirm = side.handle({ kind: 'link_down' })
    const hello = replicaHello(record(2, 'in_sync'), { divergent: true })
    assert.equal(find(side.handle({ kind: 'link_up', hello }), 'persist').stored.base, false)
    const ask = side.answer(confirm, record(2, 'in_sync'))
    side.answer(side.answer(ask, record(3, 'resyncing')), record(3, 'resyncing'))
    const copy = side.handle({ kind: 'link_up', hello: replicaHello(record(3, 'resyncing')) })
    assert.equal(find(copy, 'start_copy').scope, 'all')
  })

  test('a record that names another writer fences it before anything is persisted', () => {
    const side = following()
    const effects = side.handle({ kind: 'peer_record', record: record(3, 'failed_over', 'az2') })
    assert.equal(side.session.gate.mayAnswer(side.now), false)
    assert.equal(side.session.phase, 'fenced')
    assert.ok(kinds(effects).indexOf('persist') < kinds(effects).indexOf('refuse'))
  })

  test('an unreachable witness demotes nobody, and an older record decides nothing', () => {
    const side = following()
    const ask = side.handle({ kind: 'link_down' })
    side.handle({ kind: 'witness', ask: find(ask, 'ask').ask, sentMs: side.now, answer: null })
    assert.equal(side.session.phase, 'held')
    side.now += 2_000
    side.answer(side.handle({ kind: 'tick' }), record(1, 'resyncing', 'az2'), false)
    assert.equal(side.session.phase, 'held')
    assert.equal(side.session.stored.record.epoch, 2)
  })

  test('lets in the replica of its own epoch and nobody else, and notices who knows more', () => {
    const { session } = following()
    const refused = (site: string, of: OwnershipRecord) => session.refusalOf(site, of)?.code ?? null
    assert.equal(refused('az2', record(2, 'in_sync')), null)
    assert.equal(refused('az3', record(2, 'in_sync')), 'WRONG_ROLE')
    assert.equal(refused('az2', record(1, 'resyncing')), 'STALE_EPOCH')
    assert.equal(refused('az2', record(3, 'in_sync', 'az2')), 'OLDER_EPOCH')
    const replica = new Side(unopened('s'), null, 'az2')
    replica.open(record(1, 'resyncing'))
    assert.equal(replica.session.refusalOf('az2', record(1, 'resyncing'))?.code, 'WRONG_ROLE')
    assert.equal(session.phase, 'following')
  })

  test('a hold ends by itself', () => {
    const side = following()
    const effects = side.handle({ kind: 'hold', epoch: 2, holdMs: 500 })
    assert.deepEqual(kinds(effects), ['persist', 'input', 'drain'])
    const last = side.session.gate.next()
    side.handle({ kind: 'drained' })
    assert.equal(side.session.drained, false, 'the replica lacks a write')
    side.session.gate.acknowledge(last)
    side.handle({ kind: 'drained' })
    assert.equal(side.session.drained, true)
    side.now += 500
    assert.deepEqual(find(side.handle({ kind: 'tick' }), 'input'), { kind: 'input', open: true })
    assert.equal(side.session.phase, 'following')
    assert.equal(side.session.drained, false)
  })

  test('reprotect under a valid lease does not interrupt it', () => {
    const side = new Side(stored({ record: record(3, 'failed_over'), consistent: true }))
    side.answer(side.handle({ kind: 'start' }), record(3, 'failed_over'))
    side.session.gate.next()
    const effects = side.open(record(4, 'resyncing'))
    assert.equal(side.session.gate.mayAnswer(side.now), true)
    assert.equal(find(effects, 'persist').stored.base, false)
    assert.equal(side.session.phase, 'alone')
  })
})
