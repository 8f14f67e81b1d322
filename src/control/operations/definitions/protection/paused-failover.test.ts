import assert from 'node:assert/strict'
import { test } from 'node:test'
import { closedRecord, decideOwnership, type Ownership } from '#domain/ownership.ts'
import { witnessTime } from '../../../../../test/support/witness-time.ts'
import { equalAtPause } from './paused-failover-requests.ts'
import { isHandedOver, nextChange } from './paused-failover.ts'

const paused = (over: Partial<Ownership> = {}): Ownership => ({
  ...closedRecord('group', 'az1', 'az2', 'one'),
  epoch: 7,
  ...over,
})

/** The states on the way, by a process that is killed after each change and begins again. */
function walk(record: Ownership, by: Partial<Parameters<typeof nextChange>[2]> = {}): string[] {
  const seen: string[] = []
  let now = record
  for (let round = 0; !isHandedOver(now, 'az2'); round++) {
    assert.ok(round < 4, 'it comes to an end')
    const full = { attempt: 'a', consent: true, preferredOff: false, ...by }
    const answer = decideOwnership(now, nextChange(now, 'az2', full), witnessTime())
    if (!answer.ok) return [...seen, answer.refusal]
    now = answer.record
    seen.push(`${now.state} ${now.writer} ${now.epoch}`)
  }
  return seen
}

test('a closed record is handed to the other site in three changes, from wherever the last try left it', () => {
  const ways = ['resyncing az1 8', 'failed_over az2 9', 'closed az2 10']
  assert.deepEqual(walk(paused()), ways)
  assert.deepEqual(walk(paused({ state: 'resyncing', epoch: 8 })), ways.slice(1))
  const over = { state: 'failed_over', writer: 'az2', replica: 'az1', epoch: 9 } as const
  assert.deepEqual(walk(paused(over)), ways.slice(2))
  assert.deepEqual(walk(paused({ ...over, state: 'closed', epoch: 10 })), [])
})

test('a lease of the time before the pause is waited for, unless production was told', () => {
  const lease = { holder: 'az1', endsBootMs: witnessTime().bootMs + 3_000 }
  assert.deepEqual(walk(paused({ lease }), { consent: false }), ['resyncing az1 8', 'LEASE_HELD'])
  assert.equal(walk(paused({ lease })).at(-1), 'closed az2 10')
})

test('a preferred site that was not told needs the statement that it is off', () => {
  const record = paused({ mode: 'static-priority', preferred: 'az1' })
  assert.equal(walk(record, { consent: false }).at(-1), 'PREFERRED_MAY_RUN')
  assert.equal(walk(record, { consent: false, preferredOff: true }).at(-1), 'closed az2 10')
  assert.equal(walk(record).at(-1), 'closed az2 10')
})

test('DR disks are of one moment when every pair was in the session that was ended, and equal then', () => {
  const whole = { progress: 100, added_epoch: 3 }
  assert.equal(equalAtPause([whole, whole]), true)
  assert.equal(equalAtPause([whole, { ...whole, progress: 99 }]), false)
  assert.equal(equalAtPause([whole, { ...whole, added_epoch: 0 }]), false)
})
