/** The end of a session at a site, and a death in the middle of it. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Session, type SessionEffect, unopened } from './session.ts'

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
