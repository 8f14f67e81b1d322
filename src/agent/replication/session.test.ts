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
    assert.deepEqual(kinds(copying), ['forget_frames', 'send', 'start_copy'])
    side.handle({ kind: 'copied', members: [1] })
    const risen = side.handle({ kind: 'message', message: { kind: 'risen', epoch: 2 } })
    assert.deepEqual(kinds(risen), ['make_durable', 'persist', 'ask'])
    assert.equal(find(risen, 'persist').stored.riseAsked, true)
    const told = side.answer(risen, record(2, 'in_sync'))
    assert.deepEqual(kinds(told), ['persist', 'clear_changes', 'log_frames', 'send'])
    assert.deepEqual(find(told, 'persist').stored.record, record(2, 'in_sync'))
    assert.equal(side.session.gate.mayAnswer(side.now), false)
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
