import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  checkpointStatus,
  copyingStatus,
  type CopyStatus,
  decideItem,
  ITEM_MOVES,
  type ItemFacts,
  type ItemStatus,
  mappingRefusal,
} from './checkpoint.ts'

const available: ItemFacts = {
  status: 'available',
  copy: 'na',
  replica: false,
  images: 0,
  stored: true,
  attached: false,
}
const STATUSES = Object.keys(ITEM_MOVES) as ItemStatus[]

test('what is accepted is a legal move, and only of items to which nothing happens', () => {
  for (const status of STATUSES) {
    for (const command of ['restore', 'delete', 'replicate'] as const) {
      const decision = decideItem({ ...available, status }, command)
      if (!decision.ok) continue
      assert.ok(status === 'available' || status === 'error', `${command} of ${status}`)
      assert.ok(decision.via === status || ITEM_MOVES[status].includes(decision.via))
    }
  }
})

test('each refusal has its reason', () => {
  const why = (facts: Partial<ItemFacts>, command: Parameters<typeof decideItem>[1]) => {
    const decision = decideItem({ ...available, ...facts }, command)
    return decision.ok ? decision.via : decision.refusal
  }
  assert.equal(why({}, 'delete'), 'waiting_delete')
  assert.equal(why({ status: 'error', stored: false }, 'delete'), 'waiting_delete')
  assert.equal(why({ images: 1 }, 'delete'), 'ITEM_IN_IMAGE')
  assert.equal(why({ copy: 'copying' }, 'delete'), 'ITEM_BUSY')
  assert.equal(why({ copy: 'waiting_copy' }, 'restore'), 'ITEM_BUSY')
  assert.equal(why({ status: 'deleting' }, 'delete'), 'ITEM_BUSY')
  assert.equal(why({ status: 'error' }, 'restore'), 'ITEM_STATE')
  assert.equal(why({ replica: true }, 'replicate'), 'ITEM_REPLICA')
  assert.equal(why({ copy: 'success' }, 'replicate'), 'available')
  assert.equal(why({ replica: true }, 'restore'), 'waiting_restore')
})

test('a checkpoint is protecting while one item is, and good while one item is', () => {
  assert.equal(checkpointStatus(['available', 'protecting', 'error']), 'protecting')
  assert.equal(checkpointStatus(['error', 'restoring']), 'available')
  assert.equal(checkpointStatus(['error', 'error']), 'error')
  assert.equal(checkpointStatus(['deleting', 'error']), 'deleting')
  assert.equal(checkpointStatus(['error'], true), 'error-deleting')
})

test('a checkpoint that is copied as a whole says how far that is, until every copy has ended', () => {
  const of = (...copies: CopyStatus[]) =>
    copyingStatus(copies.map((copy) => ({ status: 'available', copy })))
  assert.equal(of('waiting_copy', 'waiting_copy'), 'wait_copying')
  assert.equal(of('waiting_copy', 'copying'), 'copying')
  assert.equal(of('success', 'copying'), 'copying')
  assert.equal(of('success', 'waiting_copy'), 'wait_copying')
  assert.equal(of('success', 'success'), 'finished')
  assert.equal(of('success', 'fail'), 'available')
  assert.equal(copyingStatus([{ status: 'error', copy: 'na' }]), 'available')
})

test('every disk of a backup goes to a disk of its own that is large enough', () => {
  const backups = [
    { backup: 'b1', system: true, sizeGb: 10 },
    { backup: 'b2', system: false, sizeGb: 20 },
  ]
  const disks = [
    { volume: 'v1', system: true, shared: false, sizeGb: 20 },
    { volume: 'v2', system: false, shared: false, sizeGb: 20 },
    { volume: 'v3', system: false, shared: true, sizeGb: 20 },
    { volume: 'v4', system: false, shared: false, sizeGb: 19 },
  ]
  const map = (...pairs: [string, string][]) =>
    mappingRefusal(
      backups,
      disks,
      pairs.map(([backup, volume]) => ({ backup, volume })),
    )
  assert.equal(map(['b1', 'v1'], ['b2', 'v2']), null)
  assert.equal(map(['b1', 'v2'], ['b2', 'v4']), 'DISK_TOO_SMALL')
  assert.equal(map(['b1', 'v1'], ['b3', 'v2']), 'BACKUP_NOT_OF_ITEM')
  assert.equal(map(['b1', 'v1']), 'BACKUPS_UNMAPPED')
  const one = [{ backup: 'b2', volume: 'v2' }]
  assert.equal(mappingRefusal(backups, disks, one, true), null)
  assert.equal(mappingRefusal(backups, disks, [], true), 'BACKUPS_UNMAPPED')
  assert.equal(map(['b1', 'v1'], ['b2', 'v1']), 'BACKUPS_UNMAPPED')
  assert.equal(map(['b1', 'v1'], ['b2', 'v9']), 'DISK_NOT_ATTACHED')
  assert.equal(map(['b1', 'v1'], ['b2', 'v3']), 'DISK_SHARED')
  assert.equal(map(['b2', 'v1'], ['b1', 'v2']), 'DISK_IS_SYSTEM')
  assert.equal(mappingRefusal(backups, [], []), 'SERVER_WITHOUT_DISKS')
})
