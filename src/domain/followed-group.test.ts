import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { OwnershipState } from './ownership.ts'
import {
  GROUP_STATUSES,
  GROUP_TRANSIENT,
  type GroupStatus,
  type Station,
} from './protection-group.ts'
import { followedBy } from './followed-group.ts'

const row = (status: GroupStatus, station: Station = 'source') => ({
  status,
  station,
  sourceAz: 'az1',
})
const record = (state: OwnershipState, writer = 'az1') => ({ state, writer })

test('a group whose record names another writer than its row follows it', () => {
  const failedOver = { status: 'failed-over', station: 'target' }
  assert.deepEqual(followedBy(row('protected'), record('failed_over', 'az2')), failedOver)
  assert.deepEqual(followedBy(row('available'), record('failed_over', 'az2')), failedOver)
  const turned = { status: 'protected', station: 'target' }
  assert.deepEqual(followedBy(row('protected'), record('in_sync', 'az2')), turned)
  assert.deepEqual(followedBy(row('failed-over'), record('solo', 'az2')), turned)
  assert.deepEqual(followedBy(row('error-reprotecting', 'target'), record('failed_over')), {
    status: 'error-reprotecting',
    station: 'source',
  })
})

test('a group that was started or stopped after the backup follows as well', () => {
  assert.equal(followedBy(row('available'), record('resyncing'))?.status, 'protected')
  assert.equal(followedBy(row('protected'), record('closed'))?.status, 'available')
})

test('a failed start, reprotect or stop whose group has come into sync is protected, and only break-glass ends it otherwise', () => {
  const states = ['closed', 'resyncing', 'in_sync', 'solo', 'failed_over'] as const
  for (const status of ['error-starting', 'error-reprotecting', 'error-stopping'] as const) {
    const ends = states.map((state) => followedBy(row(status), record(state))?.status ?? status)
    const promoted = status === 'error-reprotecting' ? status : 'failed-over'
    assert.deepEqual(ends, [status, status, 'protected', status, promoted])
    const turned = { status: 'protected', station: 'target' }
    assert.deepEqual(followedBy(row(status), record('in_sync', 'az2')), turned)
  }
  assert.equal(followedBy(row('error-deleting'), record('in_sync')), null)
})

test('a row that agrees is left alone, and so is one in motion or half way through a switch', () => {
  assert.equal(followedBy(row('protected'), record('in_sync')), null)
  assert.equal(followedBy(row('protected'), record('solo')), null)
  assert.equal(followedBy(row('available'), record('closed')), null)
  assert.equal(followedBy(row('failed-over', 'target'), record('failed_over', 'az2')), null)
  assert.equal(followedBy(row('failed-over', 'target'), record('closed', 'az2')), null)
  const away = [...GROUP_TRANSIENT, 'error-failing-over', 'error-reversing', 'error'] as const
  for (const status of away) {
    assert.equal(followedBy(row(status), record('failed_over', 'az2')), null, status)
  }
  for (const status of GROUP_STATUSES) {
    assert.equal(followedBy(row(status), record('frozen', 'az2')), null, status)
  }
})
