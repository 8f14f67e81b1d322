/** A writer without its replica: alone, in static priority, frozen. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type PeerHello } from './session.ts'
import {
  record,
  stored,
  kinds,
  find,
  replicaHello,
  AbleSide,
  static1,
  inStep,
  solo,
  soloHello,
} from './session-side.ts'

describe('a writer that has lost its link', () => {
  test('holds, asks for solo after a second and not before, and answers only under the lease', () => {
    const side = inStep()
    const held = side.handle({ kind: 'link_down' })
    assert.equal(find(held, 'ask').ask.kind, 'confirm')
    side.answer(held, record(2, 'in_sync'))
    assert.ok(!kinds(side.tick(999)).includes('ask'))
    const asked = side.tick(1)
    assert.deepEqual(find(asked, 'ask').ask, {
      kind: 'solo',
      site: 'az1',
      epoch: 2,
      attempt: 'solo-epoch-2',
    })
    side.session.gate.next()
    const adopted = side.answer(asked, record(3, 'solo'))
    const order = kinds(adopted)
    assert.ok(order.indexOf('log_frames') < order.indexOf('persist'), 'marked before it counts')
    assert.ok(!order.includes('refuse'), 'clients stay')
    assert.equal(side.session.gate.releasableUpTo(side.now), -1, 'not before the lease')
    side.answer(adopted, record(3, 'solo'))
    assert.equal(side.session.gate.releasableUpTo(side.now), 11)
  })

  test('is fenced by a refusal that names another writer', () => {
    const side = inStep()
    side.answer(side.handle({ kind: 'link_down' }), record(2, 'in_sync'))
    side.answer(side.tick(1_000), record(3, 'failed_over', 'az2'), false)
    assert.equal(side.session.phase, 'fenced')
    assert.equal(side.session.stored.ackedAlone, false, 'it had answered nothing alone')
  })

  test('stays held for ever without the witness', () => {
    const side = inStep()
    side.unreachable(side.handle({ kind: 'link_down' }), 60_000)
    assert.equal(side.session.phase, 'held')
    assert.equal(side.session.gate.mayAnswer(side.now), false)
  })

  test('that lost its power in sync does not ask: the replica has what it lacks', () => {
    const before = stored({ record: record(2, 'in_sync'), consistent: true, base: true })
    const side = new AbleSide(before, null)
    const started = side.handle({ kind: 'start' })
    assert.equal(find(started, 'persist').stored.whole, false)
    for (let count = 0; count < 40; count++) {
      const ask = side.tick().find((effect) => effect.kind === 'ask')
      assert.notEqual(ask?.kind === 'ask' && ask.ask.kind, 'solo')
    }
    // Another process of the same boot knows it still.
    const next = new AbleSide(side.session.stored, 10)
    next.handle({ kind: 'start' })
    assert.equal(next.session.stored.whole, false)
  })

  test('catches the replica up in order when the log reaches back, and rises out of solo', () => {
    const side = solo()
    const back = side.handle({ kind: 'link_up', hello: soloHello(side), logFrom: 10 })
    assert.deepEqual(kinds(back), ['send', 'resend', 'watch_catch_up'])
    assert.equal(side.session.phase, 'catching_up')
    assert.equal(side.session.gate.mode, 'alone', 'clients notice nothing')
    // A loss of the link within a minute of the rise: the next one waits.
    side.now += 1
    const risen = side.handle({ kind: 'caught_up' })
    assert.equal(find(risen, 'send').message.kind, 'rise')
    const ask = side.handle({ kind: 'message', message: { kind: 'risen', epoch: 4 } })
    const told = side.answer(ask, record(4, 'in_sync'))
    const { baseEpoch, priorBase } = find(told, 'persist').stored
    assert.deepEqual([baseEpoch, priorBase], [4, 2])
    assert.ok(kinds(told).indexOf('persist') < kinds(told).indexOf('clear_changes'))
    side.handle({ kind: 'message', message: { kind: 'epoch_accepted', epoch: 4 } })
    assert.equal(side.session.stored.priorBase, 0, 'the replica has the new base as well')
  })

  test('asks for a resync when the log does not reach back, or the replica is no prefix', () => {
    const reasons: [Partial<PeerHello>, number | null, boolean][] = [
      [{}, null, false],
      [{}, 11, false],
      [{ clean: false }, 10, true],
      [{ divergent: true }, 10, false],
      [{ consistent: false }, 10, false],
    ]
    for (const [change, logFrom, regions] of reasons) {
      const side = solo()
      const hello = soloHello(side, change)
      const asked = side.handle({ kind: 'link_up', hello, logFrom })
      assert.equal(find(asked, 'ask').ask.kind, 'resync')
      const adopted = side.answer(asked, record(4, 'resyncing'))
      assert.equal(side.session.gate.mode, 'alone', 'under the lease it has')
      assert.ok(kinds(adopted).includes('drop_link'))
      const again = { ...hello, record: record(4, 'resyncing') }
      const copy = side.handle({ kind: 'link_up', hello: again, logFrom: null })
      assert.deepEqual(find(copy, 'start_copy'), { kind: 'start_copy', scope: 'delta', regions })
    }
  })

  test('copies everything when the bases differ', () => {
    const side = solo()
    const hello = soloHello(side, { baseEpoch: 1 })
    const adopted = side.answer(
      side.handle({ kind: 'link_up', hello, logFrom: 10 }),
      record(4, 'resyncing'),
    )
    assert.ok(kinds(adopted).includes('persist'))
    const again = { ...hello, record: record(4, 'resyncing') }
    const copy = side.handle({ kind: 'link_up', hello: again, logFrom: null })
    assert.equal(find(copy, 'start_copy').scope, 'all')
  })

  test('a process that died in sync leaves writes in no map, so its regions are compared', () => {
    const before = { record: record(2, 'in_sync'), consistent: true, base: true, baseEpoch: 2 }
    const side = new AbleSide(stored(before), 10)
    side.answer(side.handle({ kind: 'start' }), before.record)
    side.now += 10_000
    const asked = side.tick()
    const adopted = side.answer(asked, record(3, 'solo'))
    assert.equal(find(adopted, 'persist').stored.exact, false)
    side.answer(adopted, record(3, 'solo'))
    const resync = side.handle({ kind: 'link_up', hello: soloHello(side), logFrom: 10 })
    assert.equal(find(resync, 'ask').ask.kind, 'resync', 'its numbers mean nothing any more')
    side.answer(resync, record(4, 'resyncing'))
    const hello = replicaHello(record(4, 'resyncing'), { applied: 10, baseEpoch: 2 })
    const copy = side.handle({ kind: 'link_up', hello, logFrom: null })
    assert.equal(find(copy, 'start_copy').regions, true)
  })

  test('goes on alone while the replica can hold no copy, and brings it up when it can', () => {
    const side = inStep()
    side.answer(side.handle({ kind: 'link_down' }), record(2, 'in_sync'))
    const hello = replicaHello(record(2, 'in_sync'), { applied: 10, unfit: 'failed' })
    const asked = side.handle({ kind: 'link_up', hello, logFrom: 10 })
    assert.equal(find(asked, 'ask').ask.kind, 'solo', 'at once')
    side.answer(side.answer(asked, record(3, 'solo')), record(3, 'solo'))
    const unfit = soloHello(side, { unfit: 'failed' })
    side.handle({ kind: 'link_up', hello: unfit, logFrom: 10 })
    assert.equal(side.session.phase, 'alone')
    assert.equal(side.session.unfit, 'failed')
    side.handle({ kind: 'link_down' })
    side.handle({ kind: 'link_up', hello: soloHello(side), logFrom: 10 })
    assert.equal(side.session.phase, 'catching_up')
  })

  test('tells the witness what it does alone', () => {
    const side = inStep()
    side.tick()
    solo(side)
    side.session.gate.bytes += 8_192
    const { ask } = find(side.tick(2_000), 'ask')
    assert.ok(ask.kind === 'renew' && ask.alone !== undefined)
    assert.equal(ask.alone.bytes, 8_192)
    assert.equal(ask.alone.sequence, side.session.gate.sequence)
  })

  test('counts what was held when it went alone, and says so with its first question for a lease', () => {
    const side = inStep()
    side.tick()
    side.session.gate.bytes += 1_000_000
    side.session.gate.unacknowledgedBytes = () => 4_096
    side.answer(side.handle({ kind: 'link_down' }), side.session.stored.record)
    const adopted = side.answer(side.tick(1_000), record(3, 'solo'))
    const first = find(adopted, 'ask').ask
    assert.ok(first.kind === 'renew')
    assert.equal(first.alone?.bytes, 4_096)
    side.answer(adopted, record(3, 'solo'))
    assert.equal(side.session.phase, 'alone')
    // In the frame log it is unacknowledged as long as the link is away: it is not counted twice.
    side.session.gate.bytes += 8_192
    side.session.gate.unacknowledgedBytes = () => 12_288
    const next = find(side.tick(2_000), 'ask').ask
    assert.ok(next.kind === 'renew')
    assert.equal(next.alone?.bytes, 12_288)
  })
})

describe('static priority', () => {
  const cutOff = () => inStep({}, static1)

  test('lets the preferred writer go on without the witness, persisted first, and fences the rest in doubt', () => {
    const side = cutOff()
    const effects = side.unreachable(side.handle({ kind: 'link_down' }), 3_600)
    assert.ok(!effects.some((effect) => effect.kind === 'persist' && effect.stored.unwitnessed))
    const first = side.tick()
    const more = [...first, ...side.unreachable(first, 2_000)]
    const persisted = more.findIndex(
      (effect) => effect.kind === 'persist' && effect.stored.unwitnessed,
    )
    assert.ok(persisted >= 0)
    assert.equal(side.session.gate.mode, 'unwitnessed')
    assert.equal(side.session.marks, true, 'every write is marked')
    const refused = side.session.refusalOf('az2', side.session.stored.record)
    assert.equal(refused?.code, 'UNWITNESSED')
    const asked = side.tick(2_000)
    assert.equal(find(asked, 'ask').ask.kind, 'solo', 'it goes on asking with the same attempt')
    side.answer(side.answer(asked, static1(record(3, 'solo'))), static1(record(3, 'solo')))
    assert.equal(side.session.gate.mode, 'alone')
    assert.equal(side.session.stored.unwitnessed, false)
  })

  test('does not, at another site, in the other mode, or with a wish that gives it up', () => {
    const others = [
      inStep({}, (of) => ({ ...static1(of), preferred: 'az2' })),
      inStep(),
      inStep({ wanted: { mode: 'witness', preferred: 'az1' } }, static1),
    ]
    for (const side of others) {
      side.unreachable(side.handle({ kind: 'link_down' }), 60_000)
      assert.equal(side.session.gate.mayAnswer(side.now), false)
      assert.equal(side.session.stored.unwitnessed, false)
    }
  })

  test('does not after a boot that nobody has confirmed the record since', () => {
    const of = static1(record(2, 'in_sync'))
    const side = new AbleSide(stored({ record: of, consistent: true, base: true, clean: 10 }), null)
    side.unreachable(side.handle({ kind: 'start' }), 60_000)
    assert.equal(side.session.stored.unwitnessed, false)
  })

  test('does not after it stood still for a switch, which may have been committed, not even in another process', () => {
    const side = cutOff()
    const held = side.handle({ kind: 'hold', epoch: 2, holdMs: 1_000 })
    assert.ok(kinds(held).indexOf('persist') < kinds(held).indexOf('drain'), 'known before it is')
    side.handle({ kind: 'release' })
    side.unreachable(side.handle({ kind: 'link_down' }), 60_000)
    assert.equal(side.session.stored.unwitnessed, false)
    const next = new AbleSide(side.session.stored, 10)
    next.unreachable(next.handle({ kind: 'start' }), 60_000)
    assert.equal(next.session.gate.mayAnswer(next.now), false)
    // Shown a newer record, it is what it was.
    next.handle({ kind: 'open', record: static1(record(3, 'in_sync')), force: false, joined: true })
    assert.equal(next.session.stored.offered, false)
  })

  test('does not under a record that was brought by a command or the peer, before the witness has answered under it, not even in another process', () => {
    for (const kind of ['open', 'peer_record'] as const) {
      const from = static1(record(2, 'in_sync', 'az2'))
      const side = new AbleSide(stored({ record: from, consistent: true, baseEpoch: 2 }), 10)
      side.handle({ kind: 'start' })
      const to = static1(record(3, 'in_sync'))
      const told = side.handle({ kind, record: to, force: false, joined: true })
      side.unreachable(told, 60_000)
      assert.equal(side.session.stored.unwitnessed, false)
      const next = new AbleSide(side.session.stored, 10)
      next.unreachable(next.handle({ kind: 'start' }), 60_000)
      assert.equal(next.session.gate.mayAnswer(next.now), false)
      // One that it has under its record is enough, also for another process.
      const third = new AbleSide(next.session.stored, 10)
      third.answer(third.handle({ kind: 'start' }), to)
      third.unreachable([], 60_000)
      assert.equal(third.session.gate.mode, 'unwitnessed')
    }
  })

  test('asks the witness under a new record although its replica is in step, and takes no answer to a question of before', () => {
    const side = cutOff()
    const asked = side.handle({ kind: 'link_down' })
    side.open(static1(record(3, 'in_sync')))
    side.answer(asked, static1(record(3, 'in_sync')))
    assert.equal(side.session.stored.unconfirmed, true)
    const hello = replicaHello(side.session.stored.record, { applied: 10, baseEpoch: 2 })
    side.handle({ kind: 'link_up', hello, logFrom: 10 })
    side.session.contact.heard(side.now)
    side.answer(side.tick(2_000), static1(record(3, 'in_sync')))
    assert.equal(side.session.phase, 'following')
    assert.equal(side.session.stored.unconfirmed, false)
  })

  test('sends its replica what it lacks with the lease, before anything is written because of the answer', () => {
    const side = cutOff()
    side.answer(side.handle({ kind: 'link_down' }), static1(record(2, 'in_sync')))
    const adopted = side.answer(side.tick(1_000), static1(record(3, 'solo')))
    side.handle({ kind: 'link_up', hello: soloHello(side), logFrom: 10 })
    const leased = kinds(side.answer(adopted, static1(record(3, 'solo'))))
    assert.ok(leased.includes('resend') && leased.includes('persist'))
    assert.ok(leased.indexOf('resend') < leased.indexOf('persist'), 'or the log may be gone')
  })

  test('is fenced and keeps in mind what it answered alone when the witness names another', () => {
    const side = cutOff()
    side.unreachable(side.handle({ kind: 'link_down' }), 8_000)
    assert.equal(side.session.gate.mode, 'unwitnessed')
    side.handle({ kind: 'peer_record', record: static1(record(4, 'failed_over', 'az2')) })
    assert.equal(side.session.phase, 'fenced')
    assert.equal(side.session.stored.ackedAlone, true)
    assert.equal(side.session.gate.mayAnswer(side.now), false)
  })

  test('is left by a writer before it asks the witness to record that', () => {
    const side = cutOff()
    const asked = side.handle({ kind: 'arbitrate', mode: 'witness', preferred: 'az1' })
    assert.deepEqual(kinds(asked), ['persist', 'ask'])
    assert.equal(find(asked, 'ask').ask.kind, 'configure')
    const other = side.handle({ kind: 'arbitrate', mode: 'witness', preferred: 'az2' })
    assert.equal(find(other, 'refuse_command').code, 'NOT_YET')
    const adopted = side.answer(asked, record(3, 'in_sync'))
    assert.equal(find(adopted, 'persist').stored.wanted, null)
    assert.equal(find(adopted, 'persist').stored.baseEpoch, 2, 'nothing was copied')
  })
})

describe('a frozen group', () => {
  test('is refused at once, keeps its log, and goes on alone after a thaw', () => {
    const side = solo()
    const frozen = side.open(record(4, 'frozen'))
    assert.equal(side.session.gate.mayAnswer(side.now), false)
    assert.equal(side.session.phase, 'frozen')
    assert.ok(kinds(frozen).indexOf('persist') < kinds(frozen).indexOf('refuse'))
    assert.equal(find(frozen, 'persist').stored.ackedAlone, true)
    side.answer(frozen, record(4, 'frozen'))
    const restarted = new AbleSide(side.session.stored, 10)
    restarted.handle({ kind: 'start' })
    assert.equal(restarted.session.phase, 'frozen')
    const thawed = side.open(record(5, 'solo'))
    assert.equal(find(thawed, 'persist').stored.ackedAlone, false)
    assert.ok(kinds(side.answer(thawed, record(5, 'solo'))).includes('serve'))
    side.handle({ kind: 'link_up', hello: soloHello(side), logFrom: 10 })
    assert.equal(side.session.phase, 'catching_up', 'nothing that it kept was lost')
  })

  test('that lost power in sync takes what it lacks from the replica before it goes on', () => {
    const frozen = { record: record(3, 'frozen'), consistent: true, base: true, baseEpoch: 2 }
    const side = new AbleSide(stored(frozen), null)
    side.answer(side.handle({ kind: 'start' }), frozen.record)
    const thawed = side.open(record(4, 'solo'))
    assert.equal(find(thawed, 'ask').ask.kind, 'confirm', 'no lease for half a copy')
    const fetched = side.handle({
      kind: 'link_up',
      hello: replicaHello(record(4, 'solo'), { applied: 12, baseEpoch: 2 }),
      logFrom: null,
    })
    assert.equal(find(fetched, 'reconcile').scope, 'dirty')
    side.answer(thawed, record(4, 'solo'))
    const whole = side.handle({ kind: 'reconciled' })
    assert.equal(find(whole, 'persist').stored.whole, true)
    assert.equal(find(whole, 'ask').ask.kind, 'renew')
  })
})
