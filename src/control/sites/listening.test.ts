import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Listening } from './listening.ts'

const AWAY_MS = 8_000
const GRACE_MS = 2_000
const listening = () => new Listening({ graceMs: GRACE_MS, awayMs: AWAY_MS })

test('a site that is heard for the first time waits for its peer, or for a moment', () => {
  const one = listening()
  assert.equal(one.informed('az1', 'az2', 100), false)
  one.reported('az1', 200)
  assert.equal(one.informed('az1', 'az2', 300), false)
  one.reported('az2', 400)
  assert.equal(one.informed('az1', 'az2', 500), true)
  const alone = listening()
  assert.equal(alone.informed('az1', 'az2', 100), false)
  assert.equal(
    alone.informed('az1', 'az2', 100 + GRACE_MS),
    true,
    'its questions are words as well',
  )
})

test('a site that is heard all along waits for nobody, dead or alive', () => {
  const one = listening()
  for (let now = 0; now < 60_000; now += 1_000) one.reported('az1', now)
  assert.equal(one.informed('az1', 'az2', 60_000), true)
})

test('both sites were away: whoever comes back first waits for the other, whatever it had said before', () => {
  const one = listening()
  for (let now = 0; now <= 5_000; now += 1_000) {
    one.reported('az1', now)
    one.reported('az2', now)
  }
  const back = 5_000 + AWAY_MS + 1
  assert.equal(one.informed('az1', 'az2', back), false)
  one.reported('az2', back + 100)
  assert.equal(one.informed('az1', 'az2', back + 200), true)
})

test('a site that no longer exists, or goes by another name now, is waited for no longer than any other', () => {
  const one = listening()
  one.reported('gone', 0)
  assert.equal(one.informed('az1', 'gone', 1), false)
  assert.equal(one.informed('az1', 'gone', 1 + GRACE_MS), true)
})

test('without a grace nobody waits', () => {
  assert.equal(new Listening({ graceMs: 0, awayMs: AWAY_MS }).informed('az1', 'az2', 0), true)
})
