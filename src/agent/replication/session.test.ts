import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { OwnershipRecord, WitnessAnswer } from '#wire/site/witness.ts'
import { NEXT_PHASES, type Phase } from './phases.ts'
import {
  type PeerHello,
  Session,
  type SessionEffect,
  type SessionEvent,
  type StoredSession,
  unopened,
} from './session.ts'

const SETTINGS = { session: 's', site: 'az1', silenceMs: 4_000, renewMs: 2_000 }
const LEASE_MS = 8_000

const record = (
  epoch: number,
  state: OwnershipRecord['state'],
  writer = 'az1',
): OwnershipRecord => ({
  session: 's',
  epoch,
  state,
  writer,
  replica: writer === 'az1' ? 'az2' : 'az1',
  mode: 'witness',
  preferred: 'az1',
})

const stored = (change: Partial<StoredSession>): StoredSession => ({ ...unopened('s'), ...change })

const kinds = (effects: readonly SessionEffect[]): string[] => effects.map(({ kind }) => kind)

function find<K extends SessionEffect['kind']>(
  effects: readonly SessionEffect[],
  kind: K,
): Extract<SessionEffect, { kind: K }> {
  const found = effects.find((effect) => effect.kind === kind)
  assert.ok(found !== undefined, `${kind} among ${kinds(effects).join(', ')}`)
  return found as Extract<SessionEffect, { kind: K }>
}

const replicaHello = (of: OwnershipRecord, change: Partial<PeerHello> = {}): PeerHello => ({
  record: of,
  role: 'replica',
  clean: true,
  divergent: false,
  consistent: true,
  applied: 0,
  baseEpoch: 0,
  unfit: null,
  ...change,
})

/** One side with its answers from the witness. */
class Side {
  readonly session: Session
  now = 1_000

  constructor(from: StoredSession = unopened('s'), known: number | null = null, site = 'az1') {
    this.session = new Session({ ...SETTINGS, site }, from, known, this.now)
  }

  handle(event: object): readonly SessionEffect[] {
    return this.session.handle({ now: this.now, ...event } as SessionEvent)
  }

  open(of: OwnershipRecord, force = false): readonly SessionEffect[] {
    return this.handle({ kind: 'open', record: of, force, joined: true })
  }

  answer(
    effects: readonly SessionEffect[],
    of: OwnershipRecord,
    ok = true,
  ): readonly SessionEffect[] {
    const { ask } = find(effects, 'ask')
    const lease_ms = ask.kind === 'renew' ? LEASE_MS : null
    const answer: WitnessAnswer = ok
      ? { ok, record: of, lease_ms }
      : { ok, refusal: 'STALE_EPOCH', record: of, retry_after_ms: null }
    return this.handle({ kind: 'witness', ask, sentMs: this.now, answer })
  }
}

/** A writer in sync under epoch 2, linked, with contact. */
function following(): Side {
  const side = new Side()
  side.answer(side.open(record(1, 'resyncing')), record(1, 'resyncing'))
  side.handle({ kind: 'link_up', hello: replicaHello(record(1, 'resyncing')) })
  side.handle({ kind: 'copied', members: [1] })
  const risen = side.handle({ kind: 'message', message: { kind: 'risen', epoch: 2 } })
  side.answer(risen, record(2, 'in_sync'))
  side.handle({ kind: 'message', message: { kind: 'epoch_accepted', epoch: 2 } })
  side.session.contact.heard(side.now)
  assert.equal(side.session.phase, 'following')
  return side
}

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

  test('a replica that lost writes makes it ask for a drop, and copy only what is dirty', () => {
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
    const copy = side.handle({ kind: 'link_up', hello: replicaHello(record(3, 'resyncing')) })
    assert.equal(find(copy, 'start_copy').scope, 'dirty')
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
    assert.deepEqual(kinds(effects), ['input', 'drain'])
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
    assert.ok(kinds(effects).indexOf('make_durable') < kinds(effects).indexOf('persist'))
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

test('every phase but closed can end in closed, and every move leads to a phase of the table', () => {
  const phases = Object.keys(NEXT_PHASES) as Phase[]
  for (const phase of phases) {
    for (const next of NEXT_PHASES[phase]) assert.ok(phases.includes(next))
    if (phase !== 'closed') assert.ok(NEXT_PHASES[phase].includes('closed'), phase)
  }
})

// -- arbitration ------------------------------------------------------------------------------------------------------

const ABLE = { soloDelayMs: 1_000, deltas: true, keepsCopies: true }

/** As `Side`, with a shell that can carry out everything. */
class AbleSide extends Side {
  override readonly session: Session

  constructor(
    from: StoredSession = unopened('s'),
    known: number | null = null,
    site = 'az1',
    now = 1_000,
  ) {
    super(from, known, site)
    this.now = now
    this.session = new Session({ ...SETTINGS, ...ABLE, site }, from, known, now)
  }

  tick(byMs = 400): readonly SessionEffect[] {
    this.now += byMs
    return this.handle({ kind: 'tick', wallMs: 1_000_000 + this.now })
  }

  /** No answer to the question that is open now, for `ms`. */
  unreachable(effects: readonly SessionEffect[], ms: number): readonly SessionEffect[] {
    const end = this.now + ms
    let open = effects
    const all: SessionEffect[] = []
    for (;;) {
      const asked = open.find((effect) => effect.kind === 'ask')
      if (asked?.kind === 'ask') {
        const { ask } = asked
        all.push(...this.handle({ kind: 'witness', ask, sentMs: this.now, answer: null }))
      }
      if (this.now >= end) return all
      open = this.tick()
      all.push(...open)
    }
  }
}

type Change = Partial<StoredSession>
const static1 = (of: OwnershipRecord): OwnershipRecord => ({ ...of, mode: 'static-priority' })

/** A writer in sync under epoch 2 whose process was there when it rose. */
function inStep(change: Change = {}, arbitrated = (of: OwnershipRecord) => of): AbleSide {
  const before = { record: arbitrated(record(2, 'in_sync')), consistent: true, base: true }
  const side = new AbleSide(stored({ ...before, baseEpoch: 2, clean: 10, ...change }), 10)
  side.answer(side.handle({ kind: 'start' }), before.record)
  const hello = replicaHello(side.session.stored.record, { applied: 10, baseEpoch: 2 })
  side.now += 10_000
  side.handle({ kind: 'link_up', hello, logFrom: 10 })
  assert.equal(side.session.phase, 'following')
  side.session.contact.heard(side.now)
  return side
}

/** The same, alone under solo, epoch 3, with a lease. */
function solo(side = inStep()): AbleSide {
  const held = side.handle({ kind: 'link_down' })
  side.answer(held, side.session.stored.record)
  const asked = side.tick(1_000)
  assert.equal(find(asked, 'ask').ask.kind, 'solo')
  const adopted = side.answer(asked, { ...side.session.stored.record, epoch: 3, state: 'solo' })
  side.answer(adopted, side.session.stored.record)
  assert.equal(side.session.phase, 'alone')
  return side
}

const soloHello = (side: AbleSide, change: Partial<PeerHello> = {}) =>
  replicaHello(side.session.stored.record, { applied: 10, baseEpoch: 2, ...change })

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

  function begun(from = behind(), known: number | null = 10) {
    const side = new AbleSide(from, known)
    side.handle({ kind: 'start' })
    side.handle({ kind: 'link_up', hello: writerHello, logFrom: null })
    const message = { kind: 'copy_begin', sequence: 20 }
    return { side, begin: side.handle({ kind: 'message', message }) }
  }

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
    side.tick(10_000)
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
    assert.equal(find(asked, 'ask').ask.kind, 'promoted')
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

test('a site that loses its power while it is only becoming the writer lacks nothing; a writer of that state may', () => {
  for (const promoting of [true, false]) {
    const frozen = stored({ record: record(5, 'frozen'), consistent: true, promoting })
    const side = new Side(frozen, null)
    side.handle({ kind: 'start' })
    assert.equal(side.session.stored.whole, promoting)
  }
})
