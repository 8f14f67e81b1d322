/** What sites tell the witness of their own accord: a record made by break-glass, and what they have done alone. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { witnessTime } from '../../test/support/witness-time.ts'
import {
  closedRecord,
  decideOwnership,
  type Lease,
  type Ownership,
  type WitnessTime,
} from './ownership.ts'

const NOW_MS = 100_000
const EPOCH = 7

const time = (more: Partial<WitnessTime> = {}) =>
  witnessTime({ bootMs: NOW_MS, incarnation: 'two', ...more })

const recordIn = (state: Ownership['state'], lease: Lease | null): Ownership => ({
  ...closedRecord('s', 'az1', 'az2', 'one'),
  epoch: EPOCH,
  attempt: 'last-attempt',
  state,
  lease,
})

test('a record made by break-glass replaces whatever the witness decided below its epoch, once', () => {
  const promotion = {
    kind: 'promoted',
    site: 'az2',
    attempt: 'promoted-epoch-1000005',
    record: {
      epoch: 1_000_005,
      writer: 'az2',
      replica: 'az1',
      mode: 'static-priority',
      preferred: 'az2',
    },
  } as const
  const before = recordIn('solo', { holder: 'az1', endsBootMs: NOW_MS + 3_000 })
  const taken = decideOwnership(before, promotion, time({ historyTrusted: false }))
  assert(taken.ok && taken.record.epoch === 1_000_005 && taken.record.writer === 'az2')
  assert.equal(decideOwnership(taken.record, promotion, time()).ok, true, 'a repeat')
  const beyond = { ...taken.record, epoch: 1_000_006, attempt: 'reprotect-attempt' }
  const late = decideOwnership(beyond, promotion, time())
  assert(!late.ok && late.refusal === 'STALE_EPOCH')
  const arbitrated = (known?: number) => {
    const { mode, preferred } = decideOwnership(before, { ...promotion, known }, time()).record
    return [mode, preferred]
  }
  assert.deepEqual(arbitrated(EPOCH + 1), ['static-priority', 'az2'], 'restored from before that')
  const own = [before.mode, before.preferred]
  assert.deepEqual([arbitrated(EPOCH), arbitrated()], [own, own], 'it may have missed a change')
  const renewed = decideOwnership(
    taken.record,
    { kind: 'renew', site: 'az1', epoch: EPOCH },
    time(),
  )
  assert(!renewed.ok, 'the other writer is fenced')
})

test('what a writer says about its work alone is kept with the largest figures, and dropped in sync', () => {
  const renew = (record: Ownership, alone?: Ownership['alone']) =>
    decideOwnership(
      record,
      { kind: 'renew', site: 'az1', epoch: record.epoch, alone: alone ?? undefined },
      time(),
    ).record
  const first = renew(recordIn('solo', null), { sequence: 20, bytes: 9_000, since: 500 })
  const again = renew(renew(first), { sequence: 21, bytes: 100, since: 800 })
  assert.deepEqual(again.alone, { sequence: 21, bytes: 9_000, since: 500 })
  const risen = decideOwnership(
    again,
    { kind: 'rise', site: 'az1', epoch: EPOCH, attempt: 'rise-attempt' },
    time(),
  )
  assert.equal(risen.record.alone, null)
  const frozen = decideOwnership(
    again,
    { kind: 'freeze', epoch: EPOCH, attempt: 'freeze-attempt' },
    time(),
  )
  assert.deepEqual(frozen.record.alone, again.alone)
})
