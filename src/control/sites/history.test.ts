import assert from 'node:assert/strict'
import { test } from 'node:test'
import { closedRecord, type Ownership } from '#domain/ownership.ts'
import type { OwnershipRow } from '#control/store/tables/sites.ts'
import type { SessionStatus } from '#wire/site/witness.ts'
import { adopt, doubtView, type Heard, hears, leapOf, speaksOf } from './history.ts'

const record = (change: Partial<Ownership> = {}): Ownership => ({
  ...closedRecord('s', 'az1', 'az2', 'i'),
  epoch: 4,
  state: 'in_sync',
  ...change,
})
const said = (epoch: number, state: string, role: SessionStatus['role']) =>
  ({ epoch, state, role }) as SessionStatus

function afterWords(
  of: Ownership,
  words: readonly [site: string, status: SessionStatus | undefined][],
) {
  let stored = '{}'
  for (const [site, status] of words) {
    const result = adopt(of, stored, (heard) => hears(heard, site, status))
    if (result.kind === 'trusted') return result.record
    stored = result.heard
  }
  return stored
}

test('one site alone restores no trust, however often it speaks', () => {
  const once: [string, SessionStatus] = ['az1', said(4, 'in_sync', 'writer')]
  assert.equal(typeof afterWords(record(), [once, once]), 'string')
})

test('two sites that know nothing newer leave the record as it is', () => {
  const before = record()
  const after = afterWords(before, [
    ['az1', said(4, 'in_sync', 'writer')],
    ['az2', said(3, 'resyncing', 'replica')],
  ])
  assert.deepEqual(after, before)
})

test('a session that no site knows of stays as recorded', () => {
  const before = record({ epoch: 1, state: 'resyncing' })
  assert.deepEqual(
    afterWords(before, [
      ['az1', undefined],
      ['az2', undefined],
    ]),
    before,
  )
})

test('the newest epoch wins, with its writer and its state', () => {
  const failedOver = afterWords(record(), [
    ['az1', said(4, 'in_sync', 'writer')],
    ['az2', said(7, 'failed_over', 'writer')],
  ])
  assert.deepEqual(failedOver, {
    ...record(),
    epoch: 7,
    state: 'failed_over',
    writer: 'az2',
    replica: 'az1',
    attempt: 'adopted-7',
  })
  const known = afterWords(record(), [
    ['az1', said(6, 'resyncing', 'replica')],
    ['az2', said(5, 'failed_over', 'writer')],
  ])
  assert.ok(typeof known === 'object')
  assert.deepEqual([known.epoch, known.writer, known.state], [6, 'az2', 'resyncing'])
})

test('a fenced site names its peer as writer', () => {
  const after = afterWords(record(), [
    ['az1', said(9, 'failed_over', 'fenced')],
    ['az2', said(4, 'in_sync', 'replica')],
  ])
  assert.ok(typeof after === 'object')
  assert.deepEqual([after.epoch, after.writer], [9, 'az2'])
})

test('two writers under one epoch are left to an operator', () => {
  const words: [string, SessionStatus][] = [
    ['az1', said(9, 'solo', 'writer')],
    ['az2', said(9, 'failed_over', 'writer')],
  ]
  const stored = afterWords(record(), words)
  assert.ok(typeof stored === 'string')
  const vouched = adopt(record(), stored, () => null)
  assert.equal(vouched.kind, 'trusted')
})

test('an operator may vouch with one site heard, and then its epoch counts', () => {
  const heard: Heard = { az2: { epoch: 8, state: 'failed_over', role: 'writer' } }
  const result = adopt(record(), JSON.stringify(heard), () => null)
  assert.ok(result.kind === 'trusted')
  assert.deepEqual([result.record.epoch, result.record.writer], [8, 'az2'])
})

test('a record restored from before a change of its arbitration takes the present one over', () => {
  const arbitration = { mode: 'static-priority', preferred: 'az1' } as const
  const known = afterWords(record(), [
    ['az1', { ...said(5, 'in_sync', 'writer'), arbitration }],
    ['az2', said(5, 'in_sync', 'replica')],
  ])
  assert.ok(typeof known === 'object')
  assert.deepEqual([known.epoch, known.mode, known.preferred], [5, 'static-priority', 'az1'])
})

test('a record restored from before a paused group failed over is closed at the site that writes, though nothing ran', () => {
  const before = record({ epoch: 5, state: 'closed' })
  const end = (epoch: number, writer: string) => ({ session: 's', epoch, writer })
  for (const old of [end(5, 'az1'), end(8, 'az2')]) {
    const one = hears({}, 'az1', undefined, old)
    const result = adopt(before, '{}', () => hears(one, 'az2', undefined, end(8, 'az2')))
    assert.ok(result.kind === 'trusted')
    const { state, writer, epoch } = result.record
    assert.deepEqual([state, writer, epoch], ['closed', 'az2', 8])
  }
})

test('what a writer had done alone by the restored record is not said of a newer one, but of the same one', () => {
  const alone = { sequence: 9, bytes: 4096, since: 3 }
  const known = (epoch: number) => {
    const words = [said(epoch, 'solo', 'writer'), said(epoch, 'solo', 'replica')] as const
    const result = afterWords(record({ epoch: 5, state: 'solo', alone }), [
      ['az1', words[0]],
      ['az2', words[1]],
    ])
    assert.ok(typeof result === 'object')
    return result.alone
  }
  assert.deepEqual(known(5), alone)
  assert.equal(known(8), null)
})

test('what is known of in sync, and its writer has gone on alone from, is solo under the next epoch, whoever speaks first', () => {
  const arbitration = { mode: 'static-priority', preferred: 'az1' } as const
  const alone = { unwitnessed: true, presents: false, arbitration }
  const writer: [string, SessionStatus] = ['az1', { ...said(20, 'in_sync', 'writer'), ...alone }]
  const replica: [string, SessionStatus] = [
    'az2',
    { ...said(20, 'in_sync', 'replica'), arbitration },
  ]
  // The other way round in the restored record, or as it is: the database may have lost everything, or nothing.
  const restored = [
    record({ epoch: 18, writer: 'az2', replica: 'az1' }),
    record({ epoch: 18 }),
    record({ epoch: 20, ...arbitration }),
  ]
  for (const before of restored) {
    for (const words of [
      [writer, replica],
      [replica, writer],
    ]) {
      const known = afterWords({ ...before, alone: { sequence: 1, bytes: 2, since: 3 } }, words)
      assert.ok(typeof known === 'object')
      assert.deepEqual(known, {
        ...record({ ...arbitration, epoch: 21, state: 'solo', attempt: 'adopted-21' }),
        lease: null,
        alone: null,
      })
    }
  }
})

test('a site that answers alone under a record that says so, or under one that is not the newest, changes nothing about it', () => {
  const cases: [SessionStatus, SessionStatus, [number, string, string]][] = [
    [said(20, 'solo', 'writer'), said(20, 'solo', 'replica'), [20, 'solo', 'az1']],
    [said(20, 'resyncing', 'writer'), said(19, 'solo', 'replica'), [20, 'resyncing', 'az1']],
    [said(20, 'in_sync', 'writer'), said(21, 'failed_over', 'writer'), [21, 'failed_over', 'az2']],
    [said(20, 'in_sync', 'writer'), said(21, 'frozen', 'replica'), [21, 'frozen', 'az1']],
  ]
  for (const [one, other, expected] of cases) {
    const known = afterWords(record(), [
      ['az1', { ...one, unwitnessed: true, presents: false }],
      ['az2', other],
    ])
    assert.ok(typeof known === 'object')
    assert.deepEqual([known.epoch, known.state, known.writer], expected)
  }
})

test('a site that broke the glass is waited for only while it presents its record, and so is one that does not say', () => {
  const words = (presents: boolean | undefined): [string, SessionStatus][] => [
    ['az1', said(4, 'in_sync', 'writer')],
    [
      'az2',
      {
        ...said(1_000_004, 'failed_over', 'writer'),
        unwitnessed: true,
        ...(presents === undefined ? {} : { presents }),
      },
    ],
  ]
  assert.equal(typeof afterWords(record(), words(true)), 'string')
  assert.equal(typeof afterWords(record(), words(undefined)), 'string')
  // The database has lost what was presented to it, and nobody repeats it.
  const known = afterWords(record(), words(false))
  assert.ok(typeof known === 'object')
  assert.deepEqual([known.epoch, known.state, known.writer], [1_000_004, 'failed_over', 'az2'])
})

test('whom a record in doubt waits for', () => {
  const row = { epoch: 4, writer: 'az1', replica: 'az2', history_mark: 'ahead:m' }
  const awaits = (words: Heard) =>
    doubtView({ ...row, heard: JSON.stringify(words) } as OwnershipRow, 'm')?.awaits
  const said2 = { epoch: 9, state: 'in_sync', role: 'writer', unwitnessed: true } as const
  assert.deepEqual(awaits({ az2: { ...said2, presents: true } }), ['az2'])
  assert.deepEqual(awaits({ az2: { ...said2, presents: false } }), ['az1'])
})

test('a record restored from before a stop does not come to life again', () => {
  const ended = { session: 's', epoch: 7, writer: 'az2' }
  const heard = hears({}, 'az1', undefined, ended)
  const result = adopt(record(), JSON.stringify(heard), (before) =>
    hears(before, 'az2', undefined, ended),
  )
  assert.ok(result.kind === 'trusted')
  const { epoch, state, writer, replica } = result.record
  assert.deepEqual([epoch, state, writer, replica], [7, 'closed', 'az2', 'az1'])
})

test('a record that lost its end goes on above every epoch that the lost end may have given out', () => {
  const heard = hears({}, 'az1', said(5, 'solo', 'writer'))
  const trust = (of: Ownership, leap: number) => {
    const result = adopt(of, JSON.stringify(heard), () => null, undefined, leap)
    assert.ok(result.kind === 'trusted')
    return result.record
  }
  const [first, second] = [leapOf('mark-1'), leapOf('mark-2')]
  assert.notEqual(first, second, 'two restores of one backup')
  assert.ok(Math.min(first, second) >= 100 && Math.max(first, second) < 10_000)
  assert.deepEqual(
    [trust(record(), first).epoch, trust(record(), first).state],
    [5 + first, 'solo'],
  )
  const never = adopt(record({ epoch: 0, state: 'closed' }), '{}', () => null, undefined, first)
  assert.ok(never.kind === 'trusted')
  assert.equal(never.record.epoch, 0, 'a group that was never opened')
})

test('of a session that a report does not name it is known that there is none only within the bounds of the report', () => {
  const sessions = [{ session: 'x' } as SessionStatus]
  assert.ok(speaksOf({ sessions: [] }, 'm'))
  const part = { sessions, ended_after: 'd', ended_up_to: 'm' }
  assert.deepEqual(
    ['d', 'e', 'm', 'n', 'x'].map((id) => speaksOf(part, id)),
    [false, true, true, false, true],
  )
})
