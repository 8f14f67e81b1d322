/** Which words count about a record in doubt, and when a record that a site presents ends the doubt. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { closedRecord } from '#domain/ownership.ts'
import type { OwnershipRow } from '#control/store/tables/sites.ts'
import { aheadOf, doubtOf, provesNow, settledBy } from './history.ts'

const MARK = 'mark-2'

test('where the database may have lost its end only words of after that count', () => {
  for (const history of ['mark-1', doubtOf(MARK), doubtOf('mark-1'), aheadOf('mark-1')]) {
    const row = { history_mark: history }
    const counts = [undefined, 'mark-1', MARK].map((said) => provesNow(row, MARK, said))
    assert.deepEqual(counts, [false, false, true], history)
  }
  // The database is complete, and a site is ahead of it: that is no older for having been on its way.
  for (const history of [MARK, aheadOf(MARK)]) {
    assert.equal(provesNow({ history_mark: history }, MARK, undefined), true, history)
  }
})

test('a presented record settles what is complete but for it, unless a site is known to be further', () => {
  const presented = { ...closedRecord('s', 'az1', 'az2', 'i'), epoch: 1_000_004 }
  const settles = (history: string, epoch: number) => {
    const heard = JSON.stringify({ az1: { epoch, state: 'failed_over', role: 'writer' } })
    const row = { history_mark: history, heard } as OwnershipRow
    return settledBy(presented, row, MARK)
  }
  assert.equal(settles(MARK, 2_000_004), true, 'words of a doubt that is over')
  assert.equal(settles(aheadOf(MARK), 1_000_004), true)
  assert.equal(settles(aheadOf(MARK), 1_000_005), false)
  for (const history of ['mark-1', doubtOf(MARK), doubtOf('mark-1'), aheadOf('mark-1')]) {
    assert.equal(settles(history, 4), false, history)
  }
})
