import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type SessionView, type SyncInput, viewSync } from './sync-view.ts'

const session = (over: Partial<SessionView> = {}): SessionView => ({
  epoch: 5,
  link: 'up',
  replicaUnfit: false,
  heldMs: null,
  progress: 100,
  members: [{ pair: 'p1', joined: true, copiedBytes: 100, sizeBytes: 100 }],
  ...over,
})

const input = (over: Partial<SyncInput> = {}, told: SessionView | null = session()): SyncInput => ({
  record: { epoch: 5, state: 'in_sync', writer: 'az1', replica: 'az2' },
  members: [{ pair: 'p1', addedEpoch: 4 }],
  sides: new Map([
    ['az1', { ageMs: 500, session: told }],
    ['az2', { ageMs: 500, session: null }],
  ]),
  production: 'az1',
  silenceMs: 5_000,
  ...over,
})

const silent = (told: SessionView | null, ageMs: number | null) =>
  new Map([['az1', { ageMs, session: told }]])

test('in sync is shown when the record says so and the writer confirms it now', () => {
  const view = viewSync(input())
  assert.equal(view.fact, 'in_sync')
  assert.equal(view.faultLevel, '0')
  assert.deepEqual(view.pairs.get('p1'), { status: 'active', progress: 100 })
})

test('in sync is never shown on a stale report, another epoch, no session, or a link that is down', () => {
  const cases: SyncInput[] = [
    input({ sides: silent(session(), 5_001) }),
    input({ sides: silent(null, null) }),
    input({ sides: new Map() }),
    input({}, session({ epoch: 4 })),
    input({}, session({ epoch: 6 })),
    input({}, session({ link: 'down' })),
    input({}, session({ replicaUnfit: true })),
    input({}, null),
    input({ record: { epoch: 5, state: 'resyncing', writer: 'az1', replica: 'az2' } }),
    input({ record: { epoch: 5, state: 'solo', writer: 'az1', replica: 'az2' } }),
    input({ record: { epoch: 5, state: 'frozen', writer: 'az1', replica: 'az2' } }),
    input({ record: { epoch: 5, state: 'failed_over', writer: 'az1', replica: 'az2' } }),
    input({ record: { epoch: 5, state: 'closed', writer: 'az1', replica: 'az2' } }),
    input({ record: null }),
  ]
  for (const [index, one] of cases.entries()) {
    const view = viewSync(one)
    const pair = view.pairs.get('p1')
    assert.notEqual(view.fact, 'in_sync', `case ${index}`)
    assert.notEqual(pair?.status, 'active', `case ${index}`)
    assert.notEqual(pair?.progress, 100, `case ${index}`)
  }
})

test('a dead production site is fault level 2, a cut link with a living one is 5', () => {
  const dead = viewSync(input({ sides: silent(session(), 60_000) }))
  assert.equal(dead.faultLevel, '2')
  assert.equal(dead.fact, 'production_silent')
  const cut = viewSync(input({}, session({ link: 'down' })))
  assert.equal(cut.faultLevel, '5')
  assert.equal(cut.fact, 'link_down')
  const switching = viewSync(input({}, session({ epoch: 4 })))
  assert.equal(switching.faultLevel, '0')
  assert.equal(switching.fact, 'settling')
})

test('a copy shows its progress and never more than 99', () => {
  const record = { epoch: 5, state: 'resyncing', writer: 'az1', replica: 'az2' } as const
  const member = { pair: 'p1', joined: false, copiedBytes: 37, sizeBytes: 100 }
  const half = viewSync(input({ record }, session({ progress: 37, members: [member] })))
  assert.equal(half.fact, 'copying')
  assert.deepEqual(half.pairs.get('p1'), { status: 'copying', progress: 37 })
  const done = { ...member, copiedBytes: 100 }
  const rising = viewSync(input({ record }, session({ members: [done] })))
  assert.deepEqual(rising.pairs.get('p1'), { status: 'copying', progress: 99 })
  const empty = viewSync(input({ record }, session({ progress: 0, members: [] })))
  assert.deepEqual(empty.pairs.get('p1'), { status: 'copying', progress: 0 })
})

test('a copy whose link is down is stalled, not copying', () => {
  const record = { epoch: 5, state: 'resyncing', writer: 'az1', replica: 'az2' } as const
  const view = viewSync(input({ record }, session({ link: 'down' })))
  assert.equal(view.fact, 'stalled')
  assert.equal(view.pairs.get('p1')?.status, 'inactive')
})

test('a pair added to a group in sync copies while the others stay in sync', () => {
  const members = [
    { pair: 'p1', addedEpoch: 4 },
    { pair: 'p2', addedEpoch: 5 },
  ]
  const added = { pair: 'p2', joined: false, copiedBytes: 10, sizeBytes: 100 }
  const told = session({ members: [...session().members, added] })
  const view = viewSync(input({ members }, told))
  assert.equal(view.fact, 'copying')
  assert.deepEqual(view.pairs.get('p1'), { status: 'active', progress: 100 })
  assert.deepEqual(view.pairs.get('p2'), { status: 'copying', progress: 10 })
  const joined = session({ members: [...session().members, { ...added, joined: true }] })
  assert.equal(viewSync(input({ members }, joined)).fact, 'in_sync')
})

test('with a dead production site only pairs that a rise has proved count as copied', () => {
  const proved = viewSync(input({ sides: silent(null, 60_000) }))
  assert.equal(proved.fact, 'production_silent')
  const members = [{ pair: 'p1', addedEpoch: 5 }]
  const unproved = viewSync(input({ members, sides: silent(null, 60_000) }))
  assert.equal(unproved.fact, 'stalled')
})

test('a group that never replicated is inactive, one that stopped or failed over is stopped', () => {
  assert.equal(viewSync(input({ record: null })).pairs.get('p1')?.status, 'inactive')
  for (const state of ['closed', 'failed_over'] as const) {
    const record = { epoch: 5, state, writer: 'az1', replica: 'az2' } as const
    assert.equal(viewSync(input({ record })).pairs.get('p1')?.status, 'active-stopped')
  }
})

test('after a link loss the DR side is inactive at fault level 5, then copying, and active only when the record has risen', () => {
  const record = (state: 'solo' | 'resyncing' | 'frozen') => ({
    epoch: 5,
    state,
    writer: 'az1',
    replica: 'az2',
  })
  const shown = (one: SyncInput) => {
    const view = viewSync(one)
    return [view.fact, view.faultLevel, view.pairs.get('p1')?.status]
  }
  const cut = session({ link: 'down' })
  assert.deepEqual(shown(input({ record: record('solo') }, cut)), ['stalled', '5', 'inactive'])
  // It has not spoken under this epoch yet.
  assert.deepEqual(shown(input({ record: record('solo') }, null)), ['stalled', '5', 'inactive'])
  const behind = session({ progress: 40 })
  assert.deepEqual(shown(input({ record: record('solo') }, behind)), ['copying', '0', 'copying'])
  assert.deepEqual(shown(input({ record: record('resyncing') }, behind)), [
    'copying',
    '0',
    'copying',
  ])
  assert.equal(viewSync(input({ record: record('solo') }, behind)).pairs.get('p1')?.progress, 40)
  assert.deepEqual(shown(input({ record: record('frozen') }, behind)), ['stalled', '2', 'inactive'])
  const gone = { record: record('solo'), sides: silent(cut, 6_000) }
  assert.deepEqual(shown(input(gone)), ['stalled', '2', 'inactive'])
})

test('a replica that can hold no copy is being copied to by nobody: stalled, as without a link', () => {
  const record = { epoch: 5, state: 'solo', writer: 'az1', replica: 'az2' } as const
  const view = viewSync(input({ record }, session({ replicaUnfit: true })))
  assert.equal(view.fact, 'stalled')
  assert.equal(view.faultLevel, '5')
  assert.equal(view.pairs.get('p1')?.status, 'inactive')
  assert.equal(viewSync(input({ record })).fact, 'copying')
})
