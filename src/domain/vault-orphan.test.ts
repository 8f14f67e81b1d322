import assert from 'node:assert/strict'
import { test } from 'node:test'
import { judgeUnused, type VaultFacts } from './vault-orphan.ts'

const DAY = 86_400_000
const judge = (facts: Partial<VaultFacts>) =>
  judgeUnused({ nowMs: 100 * DAY, item: null, ...facts })

test('only what a row speaks against is an orphan; a backup under way and what nobody knows are not', () => {
  assert.equal(judge({}), 'unknown')
  const item = (status: string, vaultCheckpoint: string | null) =>
    judge({ item: { status, vaultCheckpoint } })
  assert.equal(item('waiting_protect', null), 'waiting')
  assert.equal(item('protecting', null), 'waiting')
  assert.equal(item('error', null), 'orphan')
  assert.equal(item('available', 'another'), 'orphan')
  assert.equal(item('restoring', 'another'), 'orphan')
})

test('a copy has a week to become a backup', () => {
  const admission = (state: string, days: number) =>
    judge({ admission: { state, admittedMs: (100 - days) * DAY } })
  assert.equal(judge({ admission: null }), 'unknown')
  assert.equal(admission('open', 7), 'waiting')
  assert.equal(admission('open', 7.01), 'late')
  assert.equal(admission('ended', 0), 'orphan')
  assert.equal(admission('registered', 0), 'orphan')
  // Its item is that of the other region, whatever a row of this one says.
  const item = { status: 'error', vaultCheckpoint: null }
  assert.equal(judge({ item, admission: { state: 'open', admittedMs: 100 * DAY } }), 'waiting')
})
