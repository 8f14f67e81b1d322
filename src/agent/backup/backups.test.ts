import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { SessionStatus } from '#wire/site/witness.ts'
import { sessionStatus } from '../../../test/support/session-status.ts'
import { unfitCopy } from './backups.ts'

const status = (more: Partial<SessionStatus>) =>
  sessionStatus({
    role: 'replica',
    members: [{ volume: 'v', pair: 'p', joined: true, copied_bytes: 0, size_bytes: 1 }],
    ...more,
  })

test('a copy is backed up when it is of one moment, in sync and in touch, and no other', () => {
  const code = (more: Partial<SessionStatus>, volumes = ['v']) =>
    unfitCopy([status(more)], { volumes })?.code
  assert.equal(code({}), undefined)
  assert.equal(code({ consistent: false, state: 'resyncing' }), 'NOT_CONSISTENT')
  assert.equal(code({ state: 'solo' }), 'COPY_BEHIND')
  assert.equal(code({ link: 'down' }), 'COPY_BEHIND')
  assert.equal(code({ out_of_touch_ms: 1_700_000_000_000 }), 'COPY_BEHIND')
  assert.equal(code({ role: 'fenced' }), 'COPY_BEHIND')
  // The writer has it all, whatever became of the other side; and other volumes are not concerned.
  assert.equal(code({ role: 'writer', state: 'solo', link: 'down' }), undefined)
  assert.equal(code({ state: 'solo' }, ['w']), undefined)
})

test('what is to be read as the copy of a session is not read once that session has let it go', () => {
  const code = (statuses: readonly SessionStatus[], volumes = ['v']) =>
    unfitCopy(statuses, { volumes, session: 's' })?.code
  assert.equal(code([status({})]), undefined)
  assert.equal(code([]), 'COPY_BEHIND')
  assert.equal(code([status({ session: 'another' })]), 'COPY_BEHIND')
  assert.equal(code([status({})], ['v', 'w']), 'COPY_BEHIND')
  // It has been switched: this side may have been left by the other one since.
  assert.equal(code([status({ role: 'writer', state: 'solo' })]), 'COPY_BEHIND')
  assert.equal(code([status({ link: 'down' })]), 'COPY_BEHIND')
})
