import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { createPasswords, LOGINS_BUSY } from './passwords.ts'

test('a password is kept as argon2id with its own salt, and only itself verifies', async () => {
  const passwords = createPasswords()
  const stored = await passwords.hash('correct horse')
  assert.match(stored, /^\$argon2id\$v=19\$m=19456,t=2,p=1\$/)
  assert.notEqual(await passwords.hash('correct horse'), stored)
  assert.equal(await passwords.verify(stored, 'correct horse'), true)
  assert.equal(await passwords.verify(stored, 'correct hors'), false)
  assert.equal(await passwords.verify(stored, 'x'.repeat(100_000)), false)
})

test('a user that does not exist takes the same work and is never right', async () => {
  const passwords = createPasswords()
  assert.equal(await passwords.verify(null, 'anything'), false)
  assert.equal(await passwords.verify(null, ''), false)
})

test('a flood of logins is refused beyond a queue, and the queue is worked off', async () => {
  const passwords = createPasswords()
  const outcomes = await Promise.allSettled(
    Array.from({ length: 60 }, () => passwords.verify(null, 'guess')),
  )
  const refused = outcomes.filter((one) => one.status === 'rejected')
  assert.equal(refused.length, 8)
  assert.ok(refused.every(({ reason }) => isFault(reason, LOGINS_BUSY)))
  assert.equal(await passwords.verify(null, 'guess'), false)
})
