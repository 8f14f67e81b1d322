import assert from 'node:assert/strict'
import { test } from 'node:test'
import { judgeUnused, type VaultFacts } from './vault-orphan.ts'

const DAY = 86_400_000
const judge = (facts: Partial<VaultFacts>) =>
  judgeUnused({ nowMs: 100 * DAY, createdMs: 90 * DAY, item: null, ...facts })

test('only what a row speaks against is an orphan; a backup under way and what nobody knows are not', () => {
  assert.equal(judge({}), 'unknown')
  const item = (status: string, vaultCheckpoint: string | null) =>
    judge({ item: { status, vaultCheckpoint, finishedMs: 90 * DAY } })
  assert.equal(item('waiting_protect', null), 'waiting')
  assert.equal(item('protecting', null), 'waiting')
  assert.equal(item('error', null), 'orphan')
  assert.equal(item('available', 'another'), 'orphan')
  assert.equal(item('restoring', 'another'), 'orphan')
})

test('the checkpoint of a backup that failed is kept for a week, and one that was there long before is left to people', () => {
  const failed = (daysAgo: number | null, createdDaysAgo = daysAgo ?? 1) =>
    judge({
      createdMs: (100 - createdDaysAgo) * DAY,
      item: {
        status: 'error',
        vaultCheckpoint: null,
        finishedMs: daysAgo === null ? null : (100 - daysAgo) * DAY,
      },
    })
  assert.equal(failed(0), 'waiting')
  assert.equal(failed(7), 'waiting')
  assert.equal(failed(7.01), 'orphan')
  const quarterOfAnHour = 1 / 96
  assert.equal(failed(8, 8 + quarterOfAnHour), 'orphan')
  // A control plane that was given older rows, or a copy of them, says so of backups that had succeeded.
  assert.equal(failed(8, 8.02), 'unknown')
  assert.equal(failed(null), 'unknown')
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
  const item = { status: 'error', vaultCheckpoint: null, finishedMs: 1 }
  assert.equal(judge({ item, admission: { state: 'open', admittedMs: 100 * DAY } }), 'waiting')
})
