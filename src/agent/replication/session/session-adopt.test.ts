/** Ways into another role: break-glass, starts after a loss of power. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { OwnershipRecord } from '#wire/site/witness.ts'
import { NEXT_PHASES, type Phase } from './phases.ts'
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

test('every phase but closed can end in closed, and every move leads to a phase of the table', () => {
  const phases = Object.keys(NEXT_PHASES) as Phase[]
  for (const phase of phases) {
    for (const next of NEXT_PHASES[phase]) assert.ok(phases.includes(next))
    if (phase !== 'closed') assert.ok(NEXT_PHASES[phase].includes('closed'), phase)
  }
})

describe('break-glass', () => {
  const replica = () => {
    const side = new AbleSide(
      stored({ record: record(2, 'in_sync', 'az2'), consistent: true, baseEpoch: 2 }),
      10,
    )
    side.handle({ kind: 'start' })
    return side
  }

  test('jumps the epoch, waits out the old writer, serves, and asks the witness until it answers', () => {
    const side = replica()
    const order = { kind: 'promote', joined: true, force: true }
    const without = side.handle({ ...order, force: false })
    assert.equal(find(without, 'refuse_command').code, 'WRONG_STATE')
    side.session.silence.answered(side.now)
    const effects = side.handle(order)
    const { record: made, unwitnessed, promoted } = find(effects, 'persist').stored
    assert.deepEqual(
      [made.epoch, made.state, made.writer, unwitnessed, promoted],
      [1_000_002, 'failed_over', 'az1', true, true],
    )
    side.unreachable(effects, 4_000)
    assert.equal(side.session.gate.mayAnswer(side.now), false)
    side.unreachable(side.tick(), 400)
    assert.equal(side.session.gate.mode, 'unwitnessed')
    const asked = side.tick(2_000)
    const { ask } = find(asked, 'ask')
    assert.ok(ask.kind === 'promoted')
    assert.equal(ask.known, ask.record.epoch - 1_000_000, 'what it knew before the glass broke')
    const taken = side.answer(asked, made)
    assert.equal(side.session.gate.mayAnswer(side.now), true, 'until the lease is there')
    side.answer(taken, made)
    assert.equal(side.session.gate.mode, 'alone')
    assert.equal(side.session.stored.unwitnessed, false)
  })

  test('is refused to a side without a whole copy, and not repeated by a reboot', () => {
    const empty = new AbleSide(stored({ record: record(1, 'resyncing', 'az2') }), 10)
    empty.handle({ kind: 'start' })
    const order = { kind: 'promote', joined: true, force: true }
    assert.equal(find(empty.handle(order), 'refuse_command').code, 'NOT_CONSISTENT')
    const side = replica()
    side.handle(order)
    const rebooted = new AbleSide(side.session.stored, null)
    rebooted.unreachable(rebooted.handle({ kind: 'start' }), 60_000)
    assert.equal(rebooted.session.gate.mayAnswer(rebooted.now), false)
    rebooted.handle(order)
    rebooted.tick()
    assert.equal(rebooted.session.gate.mayAnswer(rebooted.now), true)
  })

  test('beside a site whose session had ended: what that one wrote to its plain volumes is kept when it is overwritten', () => {
    const side = new AbleSide(stored({ record: record(3, 'closed'), consistent: true }), null)
    side.handle({ kind: 'start' })
    const copied = record(1_000_003, 'resyncing', 'az2')
    const { ackedAlone, divergent } = find(side.open(copied), 'persist').stored
    assert.deepEqual([ackedAlone, divergent], [true, true])
    const hello = replicaHello(copied, { role: 'writer' })
    side.handle({ kind: 'link_up', hello, logFrom: null })
    const begin = side.handle({ kind: 'message', message: { kind: 'copy_begin', sequence: 3 } })
    const { id } = find(begin, 'keep_copy')
    side.handle({ kind: 'kept', id, ok: true })
    side.handle({ kind: 'message', message: { kind: 'rise', epoch: 1_000_004, members: [1] } })
    const epoch = { kind: 'epoch', record: record(1_000_004, 'in_sync', 'az2') }
    side.handle({ kind: 'message', message: epoch })
    assert.equal(find(side.tick(), 'release_kept').divergence, true)
  })
})

test('disks that were served plainly at the site that becomes the replica are kept, whatever its last record said', () => {
  const opened = (plain: boolean, ended = record(3, 'closed', 'az2')) => {
    const side = new AbleSide(stored({ record: ended, consistent: true }), null)
    side.handle({ kind: 'start' })
    const copied = record(ended.epoch + 1, 'resyncing', 'az2')
    if (plain) side.handle({ kind: 'served_plainly' })
    // The agent dies before it has opened the session.
    const again = new AbleSide(side.session.stored, null)
    again.handle({ kind: 'start' })
    const { ackedAlone, divergent, consistent } = find(again.open(copied), 'persist').stored
    const hello = replicaHello(copied, { role: 'writer' })
    again.handle({ kind: 'link_up', hello, logFrom: null })
    const begin = again.handle({ kind: 'message', message: { kind: 'copy_begin', sequence: 3 } })
    const keeps = begin.some(({ kind }) => kind === 'keep_copy')
    return { ackedAlone, divergent, consistent, keeps }
  }
  const own = { ackedAlone: true, divergent: true, consistent: false, keeps: true }
  assert.deepEqual(opened(true), own)
  const nothing = { ackedAlone: false, divergent: false, consistent: false, keeps: false }
  assert.deepEqual(opened(false), nothing)
  assert.deepEqual(opened(true, record(0, 'closed', 'az2')), nothing, 'the first session')
})

test('a site that loses its power while it is only becoming the writer lacks nothing; a writer of that state may', () => {
  for (const promoting of [true, false]) {
    const frozen = stored({ record: record(5, 'frozen'), consistent: true, promoting })
    const side = new Side(frozen, null)
    side.handle({ kind: 'start' })
    assert.equal(side.session.stored.whole, promoting)
  }
})

test('a writer that others put alone makes durable what it has answered before it keeps the record, as a loss of power would not tell any more', () => {
  const durableBefore = (side: Side, epoch: number, state: 'solo' | 'frozen') => {
    const done = kinds(side.open(record(epoch, state)))
    const durable = done.indexOf('make_durable')
    return durable >= 0 && durable < done.indexOf('persist')
  }
  assert.ok(durableBefore(following(), 4, 'solo'), 'frozen and thawed behind its back')
  const frozen = following()
  assert.equal(
    durableBefore(frozen, 3, 'frozen'),
    false,
    'frozen it is not whole after a loss of power anyway',
  )
  assert.ok(durableBefore(frozen, 4, 'solo'))
  assert.equal(durableBefore(following(), 3, 'solo'), false, 'its own wish, and its clients wait')
})

describe('a switch that neither site heard of until the one that is to write had lost its power', () => {
  const switched = record(3, 'in_sync', 'az2')

  test('finds all that was answered at the old writer, although its process is another: made durable before it says so', () => {
    for (const [known, holdsAll] of [
      [10, true],
      [null, false],
    ] as const) {
      const before = { record: record(2, 'in_sync'), consistent: true, base: true, baseEpoch: 2 }
      const side = new Side(stored(before), known)
      side.handle({ kind: 'start' })
      const done = kinds(side.open(switched))
      const durable = done.indexOf('make_durable')
      assert.equal(durable >= 0 && durable < done.indexOf('persist'), holdsAll)
      assert.equal(side.session.hello(true).complete === true, holdsAll)
      // Also after a loss of power.
      const next = new Side(side.session.stored, null)
      next.handle({ kind: 'start' })
      assert.equal(next.session.hello(true).complete === true, holdsAll)
      // And a failover back needs no force.
      const back = next.open(record(4, 'failed_over'))
      assert.equal(
        back.every(({ kind }) => kind !== 'refuse_command'),
        holdsAll,
      )
    }
  })

  test('makes the new writer fetch that before it drops the old one', () => {
    const before = { record: record(2, 'in_sync'), consistent: true, baseEpoch: 2 }
    const side = new Side(stored(before), null, 'az2')
    side.handle({ kind: 'start' })
    side.answer(side.open(switched), switched)
    assert.equal(side.session.stored.whole, false)
    const hello = replicaHello(switched, { clean: false, divergent: true, complete: true })
    const linked = side.handle({ kind: 'link_up', hello, logFrom: null })
    assert.equal(find(linked, 'reconcile').scope, 'all')
    const equal = side.handle({ kind: 'reconciled' })
    assert.equal(side.session.stored.whole, true)
    assert.equal(find(equal, 'ask').ask.kind, 'drop')
  })
})

describe('a writer in sync that an order of a history that the witness has lost sent away, and that the record names again', () => {
  const named = record(103, 'in_sync')
  const sentAway = (known: number | null, by: OwnershipRecord) => {
    const before = { record: record(2, 'in_sync'), consistent: true, base: true, baseEpoch: 2 }
    const side = new AbleSide(stored(before), known)
    side.handle({ kind: 'start' })
    side.open(by)
    return side
  }

  test('waits for its replica as before, with what it had; after a loss of power it goes not on alone', () => {
    for (const known of [null, 10]) {
      const side = sentAway(known, record(3, 'in_sync', 'az2'))
      const whole = known !== null
      assert.equal(side.session.stored.consistent, whole)
      assert.deepEqual(
        side.open(named).filter(({ kind }) => kind === 'refuse_command'),
        [],
      )
      assert.equal(side.session.phase, 'opening')
      assert.equal(side.session.stored.whole, whole)
      const hello = replicaHello(named, { applied: 10, baseEpoch: 2 })
      const fetched = side.handle({ kind: 'link_up', hello, logFrom: null })
      assert.equal(find(fetched, 'reconcile').scope, 'all')
    }
  })

  test('fetches what the replica has also when its numbers reach further: what was on its way is kept no longer', () => {
    const side = following()
    const applied = side.session.gate.next() - 1
    side.open(record(3, 'in_sync', 'az2'))
    side.open(named)
    const hello = replicaHello(named, { applied, baseEpoch: 2 })
    const linked = kinds(side.handle({ kind: 'link_up', hello, logFrom: null }))
    assert.ok(linked.includes('reconcile') && !linked.includes('resend'), linked.join(', '))
  })

  test('does so also when it was fenced', () => {
    const side = sentAway(10, record(3, 'failed_over', 'az2'))
    assert.equal(side.session.phase, 'fenced')
    side.open(named)
    assert.equal(side.session.phase, 'opening')
  })

  test('does not when a resync has begun to overwrite what it had, or when that holds writes of its own', () => {
    const away = { record: record(3, 'in_sync', 'az2'), divergent: true }
    for (const change of [{ kept: 'kept-3-1' }, { ackedAlone: true }, { divergent: false }]) {
      const side = new AbleSide(stored({ ...away, ...change }), 10)
      side.handle({ kind: 'start' })
      assert.equal(find(side.open(named), 'refuse_command').code, 'NOT_CONSISTENT')
    }
  })
})

test('what production wrote while its group was stopped is remembered when the first that it hears of the next start is a freeze', () => {
  const side = new AbleSide(stored({ record: record(6, 'closed'), consistent: true }), null)
  side.handle({ kind: 'start' })
  assert.equal(find(side.open(record(8, 'frozen')), 'persist').stored.ackedAlone, true)
  side.open(record(9, 'failed_over', 'az2'))
  assert.equal(side.session.phase, 'fenced')
  assert.equal(side.session.stored.ackedAlone, true)
})
