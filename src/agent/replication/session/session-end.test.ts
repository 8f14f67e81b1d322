/** The end of a session at a site, and a death in the middle of it. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Session, type SessionEffect, type StoredSession, unopened } from './session.ts'
import { AbleSide, find, replicaHello, record as recordOf, stored } from './session-side.ts'

const record = {
  session: 's',
  epoch: 5,
  state: 'resyncing',
  writer: 'az2',
  replica: 'az1',
  mode: 'witness',
  preferred: 'az1',
} as const
const SETTINGS = { session: 's', site: 'az1', silenceMs: 4_000, renewMs: 2_000, keepsCopies: true }

const begin = (stored: ReturnType<typeof unopened>) => {
  const session = new Session(SETTINGS, stored, 7, 0)
  return { session, started: session.handle({ kind: 'start', now: 0 }) }
}
const kinds = (effects: readonly SessionEffect[]) => effects.map(({ kind }) => kind)

test('a stop right after a switch waits until the old writer answers nothing any more, whoever orders it', () => {
  const following = { ...record, state: 'in_sync' } as const
  const { session } = begin({ ...unopened('s'), record: following, consistent: true })
  const switched = { ...following, epoch: 6, writer: 'az1', replica: 'az2' } as const
  const opened = session.handle({
    kind: 'open',
    now: 10,
    record: switched,
    force: false,
    joined: true,
  })
  assert.equal(session.phase, 'opening')
  const closed = { ...switched, epoch: 7, state: 'closed' } as const
  const refused = session.handle({ kind: 'close', now: 1_000, record: closed })
  assert.deepEqual(
    refused.map((effect) => 'code' in effect && effect.code),
    ['NOT_YET'],
  )
  const asked = opened.find((effect) => effect.kind === 'ask')
  assert.ok(asked?.kind === 'ask')
  const answer = { ok: true, record: closed, lease_ms: null } as const
  session.handle({ kind: 'witness', now: 1_000, sentMs: 990, ask: asked.ask, answer })
  assert.equal(session.phase, 'opening')
  const ended = session.handle({ kind: 'close', now: 4_400, record: closed })
  assert.ok(kinds(ended).includes('end'))
})

test('a stop in the middle of a resync that dies at any point never asks for a copy that it has released', () => {
  const stored = { ...unopened('s'), record, consistent: false, kept: 'kept-5-1', ackedAlone: true }
  const { session } = begin(stored)
  const closed = { ...record, epoch: 6, state: 'closed' } as const
  const effects = session.handle({ kind: 'close', now: 10, record: closed })
  assert(kinds(effects).includes('restore_kept'))
  for (let done = 0; done <= effects.length; done++) {
    const carriedOut = effects.slice(0, done)
    const last = carriedOut.findLast((effect) => effect.kind === 'persist')
    const released = carriedOut.some((effect) => effect.kind === 'release_kept')
    if (last?.kind !== 'persist' || last.stored.record.state !== 'closed') continue
    const again = kinds(begin(last.stored).started)
    assert(again.includes('end'), `after ${done} effects`)
    assert(!released || !again.includes('restore_kept'), `after ${done} effects`)
    // What this side answered alone is in its volumes: the next resync here has to keep it.
    assert.equal(last.stored.ackedAlone, true)
  }
})

/** A replica of az2 whose session has been ended: what its epoch file says then. */
function ended(from: Partial<StoredSession>) {
  const side = new AbleSide(stored({ consistent: true, baseEpoch: 2, ...from }), 10)
  side.handle({ kind: 'start' })
  side.tick()
  const effects = side.handle({ kind: 'close', record: recordOf(6, 'closed', 'az2') })
  return { effects, left: find(effects, 'end').copy, file: side.session.stored }
}

const following = { record: recordOf(5, 'in_sync', 'az2') }
const overwritten = { record: recordOf(5, 'resyncing', 'az2'), consistent: false }

test('what a session leaves at the other site is a copy of the group, unless it ends in the middle of the first one', () => {
  assert.equal(ended(following).left, true)
  const { left, effects } = ended({ ...overwritten, kept: 'kept-5-1' })
  assert.equal(left, true)
  assert.ok(kinds(effects).indexOf('restore_kept') < kinds(effects).indexOf('end'))
  assert.equal(ended(overwritten).left, false)
  const demoted = { record: recordOf(5, 'failed_over', 'az2'), divergent: true }
  assert.equal(ended(demoted).left, true, 'what the old writer has is some state as well')
})

test('a session that is opened again keeps what it left before the resync overwrites it, and goes back to it when the source dies', () => {
  const { file } = ended(following)
  const side = new AbleSide(file, null)
  side.handle({ kind: 'start', over: true })
  const again = recordOf(7, 'resyncing', 'az2')
  const open = { kind: 'open', record: again, force: false, joined: false }
  const opened = find(side.handle({ ...open, left: true }), 'persist').stored
  assert.deepEqual(
    [opened.consistent, opened.divergent, opened.outOfTouchMs, opened.baseEpoch],
    [true, false, 1_001_000 + 400, 0],
  )
  side.handle({ kind: 'link_up', hello: replicaHello(again, { role: 'writer' }), logFrom: null })
  const begin = { kind: 'message', message: { kind: 'copy_begin', sequence: 3 } }
  const { id } = find(side.handle(begin), 'keep_copy')
  const receiving = find(side.handle({ kind: 'kept', id, ok: true }), 'persist').stored
  assert.deepEqual([receiving.consistent, receiving.kept], [false, id])
  assert.equal(receiving.outOfTouchMs, opened.outOfTouchMs, 'it lacks what came since the stop')
  side.handle({ kind: 'link_down' })
  const taken = side.open(recordOf(8, 'failed_over'), true)
  assert.equal(find(taken, 'restore_kept').id, id)
  assert.equal(find(taken, 'persist').stored.consistent, true)
})

test('a session that is opened again after its volumes were changed, or after the middle of a copy, keeps nothing', () => {
  const again = recordOf(7, 'resyncing', 'az2')
  for (const { file, left } of [
    { file: ended(following).file, left: false },
    { file: ended(overwritten).file, left: true },
  ]) {
    const side = new AbleSide(file, null)
    side.handle({ kind: 'start' })
    const opened = side.handle({ kind: 'open', record: again, force: false, joined: false, left })
    const { consistent, outOfTouchMs } = find(opened, 'persist').stored
    assert.deepEqual([consistent, outOfTouchMs], [false, null])
    side.handle({ kind: 'link_up', hello: replicaHello(again, { role: 'writer' }), logFrom: null })
    const begin = { kind: 'message', message: { kind: 'copy_begin', sequence: 3 } }
    assert.ok(!kinds(side.handle(begin)).includes('keep_copy'))
  }
})

test('a copy that was out of touch before its session was closed lacks what came since then', () => {
  const { file } = ended({ ...following, outOfTouchMs: 77 })
  assert.equal(file.outOfTouchMs, 77)
  const { file: behind } = ended({ record: recordOf(5, 'resyncing', 'az2') })
  assert.equal(behind.outOfTouchMs, null, 'how long production had been alone is not known here')
})

/** A resync of a replica that took part in the rise of `baseEpoch`, with its consistent copy kept. */
function resynced(baseEpoch: number) {
  const behind = stored({ record: recordOf(5, 'resyncing', 'az2'), consistent: true, baseEpoch })
  const side = new AbleSide(behind, 10)
  side.handle({ kind: 'start' })
  side.tick()
  const hello = replicaHello(behind.record, { role: 'writer' })
  side.handle({ kind: 'link_up', hello, logFrom: null })
  const begin = { kind: 'message', message: { kind: 'copy_begin', sequence: 3 } }
  const { id } = find(side.handle(begin), 'keep_copy')
  return { side, kept: find(side.handle({ kind: 'kept', id, ok: true }), 'persist').stored }
}

test('a resync that begins notes since when the copy that it keeps falls behind, if it was in step until then', () => {
  for (const [why, base] of [
    ['an older rise', 2],
    ['a session that had ended', 0],
  ] as const) {
    assert.equal(resynced(base).kept.outOfTouchMs, null, why)
  }
  const { side, kept } = resynced(4)
  assert.equal(kept.outOfTouchMs, 1_001_000 + 400)
  side.handle({ kind: 'message', message: { kind: 'rise', epoch: 6, members: [1] } })
  const risen = { kind: 'epoch', record: recordOf(6, 'in_sync', 'az2') }
  assert.equal(
    find(side.handle({ kind: 'message', message: risen }), 'persist').stored.outOfTouchMs,
    null,
  )
})

test('a copy that lost its power before the stop is left and kept as what it is, until a resync has made it whole', () => {
  const inSync = stored({ record: recordOf(2, 'in_sync', 'az2'), consistent: true, baseEpoch: 2 })
  const closed = recordOf(3, 'closed', 'az2')
  const stopped = (known: number | null, from = inSync) => {
    const side = new AbleSide(from, known)
    side.handle({ kind: 'start' })
    side.tick()
    const end = find(side.handle({ kind: 'close', record: closed }), 'end')
    const { torn, consistent, outOfTouchMs } = side.session.stored
    return { side, end, kept: { torn, consistent, since: outOfTouchMs !== null } }
  }
  const whole = { torn: false, consistent: true, since: true }
  assert.deepEqual(stopped(9).kept, whole, 'a process that died has lost nothing')
  assert.deepEqual(stopped(null, { ...inSync, clean: 9 }).kept, whole, 'stopped cleanly')
  const { side, end, kept } = stopped(null)
  assert.deepEqual(kept, { torn: true, consistent: true, since: false })
  assert.deepEqual(end, { kind: 'end', serving: 'standby', copy: true, torn: true })

  // Opened again, it is a copy to go back to, of which nobody says since when it lacks anything.
  const again = new AbleSide(side.session.stored, null)
  const opened = recordOf(4, 'resyncing', 'az2')
  again.handle({ kind: 'open', record: opened, force: false, joined: false, left: true })
  const hello = replicaHello(opened, { role: 'writer' })
  again.handle({ kind: 'link_up', hello, logFrom: null })
  again.tick()
  const begin = again.handle({ kind: 'message', message: { kind: 'copy_begin', sequence: 1 } })
  again.handle({ kind: 'kept', id: find(begin, 'keep_copy').id, ok: true })
  assert.equal(again.session.stored.torn, true)
  assert.equal(again.session.stored.outOfTouchMs, null)
  again.handle({ kind: 'message', message: { kind: 'rise', epoch: 5, members: [1] } })
  assert.equal(again.session.stored.torn, false)
})

test('a stop whose copy was not durable yet when the power went leaves a torn one; one that was carried out is what it was', () => {
  const ended = stored({ record: recordOf(3, 'closed', 'az2'), consistent: true })
  const started = (over: boolean) => {
    const side = new AbleSide(ended, null)
    return find(side.handle({ kind: 'start', over }), 'end').torn
  }
  assert.deepEqual([started(false), started(true)], [true, false])
})

test('the rest of an ended session keeps a newer end, and what was served plainly until then is kept from the next resync', () => {
  const before = stored({ record: recordOf(3, 'closed', 'az1'), consistent: true })
  const side = new AbleSide(before, null)
  const switched = recordOf(6, 'closed', 'az2')
  const told = side.handle({ kind: 'close', record: switched })
  assert.deepEqual(side.session.stored.record, switched)
  assert.ok(kinds(told).indexOf('persist') < kinds(told).indexOf('end'))
  const { divergent, ackedAlone } = side.session.stored
  assert.deepEqual([divergent, ackedAlone], [true, true], 'it was production until then')
  const late = side.handle({ kind: 'open', record: recordOf(4, 'resyncing'), force: false })
  assert.equal(find(late, 'refuse_command').code, 'STALE_EPOCH')
  const other = new AbleSide(before, null, 'az2')
  const takes = other.handle({ kind: 'close', record: switched })
  assert.equal(find(takes, 'end').serving, 'standalone')
  assert.equal(other.session.stored.divergent, false)
})
