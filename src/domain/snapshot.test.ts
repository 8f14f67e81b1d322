import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  decideSnapshot,
  SNAPSHOT_MOVES,
  type SnapshotCommand,
  type SnapshotStatus,
} from './snapshot.ts'

test('a snapshot is rolled back to only while it is available, and deleted from any settled state', () => {
  const allowed: Record<SnapshotCommand, readonly SnapshotStatus[]> = {
    rollback: ['available'],
    delete: ['available', 'error', 'error-deleting'],
  }
  for (const status of Object.keys(SNAPSHOT_MOVES) as SnapshotStatus[]) {
    for (const command of ['rollback', 'delete'] as const) {
      const decision = decideSnapshot(status, command)
      assert.equal(decision.ok, allowed[command].includes(status), `${command} while ${status}`)
      if (decision.ok) assert.ok(SNAPSHOT_MOVES[status].includes(decision.via))
    }
  }
})
