import assert from 'node:assert/strict'
import { test } from 'node:test'
import { EndedSessions } from './ended-sessions.ts'

const ended = (session: string) => ({ session, epoch: 3, writer: 'az1' })

test('few sessions that are over are all named in each report, without bounds', () => {
  const sessions = new EndedSessions(3)
  for (const id of ['b', 'a', 'c']) sessions.set(ended(id), 0)
  assert.deepEqual(Object.keys(sessions.part()), ['ended'])
  assert.equal(sessions.part().ended?.length, 3)
  sessions.delete('b')
  assert.equal(sessions.part().ended?.length, 2)
})

test('many are named in turn, and the bounds of the parts leave no id out', () => {
  const sessions = new EndedSessions(2)
  for (const id of ['e', 'b', 'a', 'd', 'c']) sessions.set(ended(id), 0)
  const parts = [1, 2, 3].map(() => sessions.part())
  assert.deepEqual(
    parts.map(({ ended: named, ended_after: after, ended_up_to: upTo }) => [
      after,
      named?.map(({ session }) => session).join(''),
      upTo,
    ]),
    [
      [undefined, 'ab', 'b'],
      ['b', 'cd', 'd'],
      ['d', 'e', undefined],
    ],
  )
  assert.equal(sessions.part().ended?.[0]?.session, 'a', 'and again')
})

test('a site is not given what another one wrote until that one has certainly fallen silent', () => {
  const sessions = new EndedSessions()
  sessions.set(ended('s'), 5_000)
  assert.equal(sessions.otherMayAnswer('s', 'az2', 4_999), true)
  assert.equal(sessions.otherMayAnswer('s', 'az2', 5_000), false)
  assert.equal(sessions.otherMayAnswer('s', 'az1', 0), false, 'it wrote itself')
  assert.equal(sessions.otherMayAnswer('other', 'az2', 0), false, 'it was never open here')
  sessions.delete('s')
  assert.equal(sessions.otherMayAnswer('s', 'az2', 0), false)
})
