/** What a side may still believe of itself after a stop: the mark of a clean one, what its maps name, and whether it is whole. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  AbleSide,
  type Change,
  find,
  following,
  inStep,
  kinds,
  record,
  replicaHello,
  solo,
  static1,
  stored,
} from './session-side.ts'

const toReplica = (state: 'in_sync' | 'solo' | 'resyncing', change: Change = {}) =>
  new AbleSide(
    stored({ record: record(4, state, 'az2'), consistent: true, baseEpoch: 2, ...change }),
    10,
  )

describe('the mark of a clean stop', () => {
  test('is left by a writer in step with its replica, and by a replica that knows what it applied', () => {
    assert.equal(inStep().session.cleanMark()?.clean, 10)
    assert.equal(toReplica('in_sync').session.cleanMark()?.clean, 10)
    const ahead = inStep()
    ahead.session.gate.next()
    assert.equal(ahead.session.cleanMark(), null, 'the replica lacks a write')
    const rebooted = new AbleSide(toReplica('in_sync').session.stored, null)
    assert.equal(rebooted.session.cleanMark(), null, 'nobody knows what it holds')
    const alone = inStep({}, static1)
    alone.unreachable(alone.handle({ kind: 'link_down' }), 8_000)
    assert.equal(alone.session.gate.mode, 'unwitnessed')
    alone.session.gate.acknowledge(alone.session.gate.sequence)
    assert.equal(alone.session.cleanMark(), null, 'in sync by the record alone')
  })

  test('is used up before anything may change, however the replica goes on', () => {
    const ways: [Parameters<typeof toReplica>[0], object[]][] = [
      ['in_sync', []],
      ['solo', [{ kind: 'message', message: { kind: 'catch_up', sequence: 10 } }]],
      [
        'resyncing',
        [
          { kind: 'message', message: { kind: 'copy_begin', sequence: 12 } },
          { kind: 'kept', id: 'kept-4-1', ok: true },
        ],
      ],
    ]
    for (const [state, events] of ways) {
      const side = toReplica(state, { clean: 10 })
      side.handle({ kind: 'start' })
      const hello = replicaHello(side.session.stored.record, { role: 'writer' })
      const effects = [...side.handle({ kind: 'link_up', hello, logFrom: null })]
      for (const event of events) effects.push(...side.handle(event))
      const done = kinds(effects)
      assert.equal(find(effects, 'persist').stored.clean, null, state)
      assert.ok(done.indexOf('persist') < done.indexOf('applied_from'), state)
    }
  })

  test('saves over a loss of power what was in step, and not the maps of who was alone or overwritten', () => {
    const started = (change: Change, site: string) => {
      const side = new AbleSide(stored({ consistent: true, clean: 10, ...change }), null, site)
      side.handle({ kind: 'start' })
      return side.session.stored.exact
    }
    for (const state of ['in_sync', 'solo', 'resyncing', 'failed_over'] as const) {
      assert.equal(started({ record: record(4, state) }, 'az1'), state === 'in_sync', state)
    }
    for (const state of ['in_sync', 'solo', 'resyncing'] as const) {
      assert.equal(started({ record: record(4, state) }, 'az2'), state !== 'resyncing', state)
    }
    assert.equal(started({ record: record(4, 'solo'), divergent: true }, 'az2'), false)
    assert.equal(started({ record: record(4, 'in_sync'), clean: null }, 'az1'), false)
  })
})

describe('whether the maps name all that may differ', () => {
  test('a rise that another process asked for leaves writes of that one in no map', () => {
    const asked = stored({ record: record(3, 'solo'), consistent: true, riseAsked: true })
    const side = new AbleSide(asked, 10)
    const told = side.answer(side.handle({ kind: 'start' }), record(4, 'in_sync'))
    assert.deepEqual(
      [find(told, 'persist').stored.exact, find(told, 'persist').stored.baseEpoch],
      [false, 4],
    )
    assert.ok(kinds(told).indexOf('persist') < kinds(told).indexOf('clear_changes'))
  })

  test('a demoted writer marks what was on its way, and says so only where it knows that', () => {
    const side = inStep()
    side.session.gate.next()
    side.answer(side.handle({ kind: 'link_down' }), record(2, 'in_sync'))
    const told = side.open(record(4, 'resyncing', 'az2'))
    const done = kinds(told)
    assert.deepEqual(find(told, 'forget_frames'), { kind: 'forget_frames', mark: true })
    assert.ok(
      done.indexOf('input') < done.indexOf('forget_frames'),
      'nothing is numbered behind it',
    )
    assert.deepEqual(find(told, 'input'), { kind: 'input', open: false })
    assert.ok(done.indexOf('forget_frames') < done.indexOf('persist'))
    const { exact, consistent, divergent } = find(told, 'persist').stored
    assert.deepEqual([exact, consistent, divergent], [true, false, true])
    assert.equal(side.session.hello(false).clean, false, 'its numbers were taken by nobody')
    const next = new AbleSide(inStep().session.stored, 10)
    next.handle({ kind: 'start' })
    next.open(record(4, 'resyncing', 'az2'))
    assert.equal(next.session.stored.exact, false)
  })

  test('a preferred writer that went on in sync holds what nobody else has, whatever was acknowledged', () => {
    const side = inStep({}, static1)
    side.unreachable(side.handle({ kind: 'link_down' }), 8_000)
    assert.equal(side.session.gate.settled, true)
    const told = side.open(record(4, 'resyncing', 'az2'))
    const { consistent, divergent, ackedAlone } = find(told, 'persist').stored
    assert.deepEqual([consistent, divergent, ackedAlone], [false, true, true])
  })

  test('they count from a rise that this side declared itself ready for, and from no other record in sync', () => {
    for (const [consistent, epoch, counts] of [
      [true, 5, true],
      [true, 6, false],
      [false, 5, false],
    ] as const) {
      const side = toReplica('resyncing', { consistent })
      side.handle({ kind: 'start' })
      const told = side.handle({ kind: 'peer_record', record: record(epoch, 'in_sync', 'az2') })
      assert.equal(side.session.stored.record.epoch, epoch)
      assert.equal(side.session.stored.baseEpoch, counts ? epoch : 2)
      assert.equal(kinds(told).includes('clear_changes'), counts)
    }
  })

  test('everything that a writer answers alone is marked', () => {
    assert.equal(inStep().session.marks, false)
    assert.equal(solo().session.marks, true)
    const preferred = inStep({}, static1)
    const effects = preferred.unreachable(preferred.handle({ kind: 'link_down' }), 8_000)
    assert.equal(preferred.session.marks, true)
    const done = kinds(effects)
    const marked = done.indexOf('log_frames')
    const decided = effects.findIndex(
      (effect) => effect.kind === 'persist' && effect.stored.unwitnessed,
    )
    assert.ok(marked >= 0 && marked < decided, 'what was on its way as well')
  })

  test('a preferred writer that goes on in a process that numbered nothing knows of no map that is complete', () => {
    for (const numbered of [true, false]) {
      const side = inStep({}, static1)
      const from = numbered ? side : new AbleSide(side.session.stored, 10)
      if (!numbered) from.answer(from.handle({ kind: 'start' }), side.session.stored.record)
      from.unreachable(numbered ? from.handle({ kind: 'link_down' }) : [], 20_000)
      assert.equal(from.session.stored.unwitnessed, true)
      assert.equal(from.session.stored.exact, numbered)
    }
  })

  test('what a writer numbered while it kept the record that puts it alone is marked as well', () => {
    const side = inStep()
    side.answer(side.handle({ kind: 'link_down' }), record(2, 'in_sync'))
    const done = kinds(side.answer(side.tick(1_000), record(3, 'solo')))
    const [first, last] = [done.indexOf('log_frames'), done.lastIndexOf('log_frames')]
    assert.ok(first < done.indexOf('persist') && done.indexOf('drop_link') < last)
  })

  test('where both sites count from is forgotten by none that was alone, and base is no more than in step', () => {
    const side = following()
    assert.equal(side.session.stored.base, true)
    const alone = solo(inStep())
    assert.equal(alone.session.stored.base, true)
    alone.open(record(4, 'resyncing'))
    assert.equal(alone.session.stored.base, false)
  })
})

describe('a writer that is not whole', () => {
  const lost = (change: Change = {}) => {
    const before = stored({ record: record(2, 'in_sync'), consistent: true, base: true, ...change })
    const side = new AbleSide(before, null)
    return { side, started: side.handle({ kind: 'start' }) }
  }

  test('is one that loses its power while its replica has all that it answered, or may have by the time; and no other', () => {
    const cases: [Change, boolean][] = [
      [{ record: record(2, 'in_sync') }, false],
      [{ record: record(2, 'in_sync'), unwitnessed: true }, true],
      [{ record: record(2, 'in_sync'), promoting: true }, true],
      [{ record: record(3, 'frozen') }, false],
      // What it answered alone nobody else has: it must not make itself equal to the replica.
      [{ record: record(3, 'frozen'), ackedAlone: true }, true],
      [{ record: record(3, 'solo') }, true],
      [{ record: record(3, 'solo'), riseAsked: true }, false],
      [{ record: record(3, 'failed_over') }, true],
    ]
    for (const [change, whole] of cases) {
      const { side } = lost(change)
      assert.equal(side.session.stored.whole, whole, JSON.stringify(change))
      const next = new AbleSide(side.session.stored, 10)
      next.handle({ kind: 'start' })
      assert.equal(next.session.stored.whole, whole, 'another process of the same boot')
    }
  })

  test('never asks to go on alone, however long it waits and however often the witness answers', () => {
    const { side, started } = lost()
    let asked = side.answer(started, record(2, 'in_sync'))
    for (let count = 0; count < 20; count++) {
      asked = side.tick(2_000)
      assert.equal(find(asked, 'ask').ask.kind, 'confirm')
      side.answer(asked, record(2, 'in_sync'))
    }
  })

  test('does not go on unwitnessed either, in sync or put alone by others', () => {
    for (const state of ['in_sync', 'solo'] as const) {
      const { side, started } = lost({ record: static1(record(2, state)), whole: false })
      side.answer(started, side.session.stored.record)
      side.unreachable([], 60_000)
      assert.equal(side.session.stored.unwitnessed, false, state)
    }
  })
})
