import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decide } from './reconciler.ts'

const member = (pair: string) => ({
  volume: `v-${pair}`,
  pair,
  joined: true,
  copied_bytes: 0,
  size_bytes: 1,
})
const told = (epoch: number, ...pairs: string[]) => ({
  epoch,
  link: 'up' as const,
  members: pairs.map(member),
})
const open = { state: 'in_sync', epoch: 5 } as const
const closed = { state: 'closed', epoch: 5 } as const

test('an agent that agrees with the record is left alone', () => {
  assert.equal(decide(open, ['a', 'b'], told(5, 'b', 'a'), true), null)
  assert.equal(decide(closed, [], null, true), null)
})

test('an agent without the session, behind, or lacking a member is opened', () => {
  assert.deepEqual(decide(open, ['a'], null, true), { kind: 'open' })
  assert.deepEqual(decide(open, ['a'], told(4, 'a'), true), { kind: 'open' })
  assert.deepEqual(decide(open, ['a', 'b'], told(5, 'a'), true), { kind: 'open' })
})

test('an agent that is ahead of the record that was read is left alone', () => {
  assert.equal(decide(open, ['a'], told(6, 'a'), true), null)
})

test('a member that left the group is removed', () => {
  assert.deepEqual(decide(open, ['a'], told(5, 'a', 'b'), true), { kind: 'remove', pairs: ['b'] })
})

test('a session that ended is closed, and none is opened without members', () => {
  assert.deepEqual(decide(closed, ['a'], told(4, 'a'), true), { kind: 'close' })
  assert.equal(decide(open, [], null, true), null)
})

test('an agent whose link stays down although its peer is heard is told the address again', () => {
  const cut = { ...told(5, 'a'), link: 'down' as const }
  assert.deepEqual(decide(open, ['a'], cut, true), { kind: 'redial' })
  assert.equal(decide(open, ['a'], cut, false), null)
  assert.equal(decide({ state: 'failed_over', epoch: 5 }, ['a'], cut, true), null)
})
