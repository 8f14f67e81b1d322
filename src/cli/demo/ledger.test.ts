import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Ledger } from './ledger.ts'
import { BLOCK_BYTES, readStamp, type Stamp, writeStamp } from './stamp.ts'

const RUN = Buffer.from('12345678')
const SLOTS = 64

/** Two volumes as slot tables, and a ledger that wrote `writes` writes by 4 chains in turn, all acknowledged. */
function world(writes: number): {
  ledger: Ledger
  disks: Map<number, Stamp>[]
  issued: Stamp[]
  judge: () => ReturnType<Ledger['judge']>
} {
  const ledger = new Ledger(2, SLOTS, 4)
  const disks = [new Map<number, Stamp>(), new Map<number, Stamp>()]
  const issued: Stamp[] = []
  for (let count = 0; count < writes; count++) {
    const stamp = ledger.issue(count % 4)
    issued.push(stamp)
    disks[stamp.volume]?.set(stamp.slot, stamp)
    ledger.acknowledge(stamp)
  }
  const judge = () => ledger.judge((volume, slot) => disks[volume]?.get(slot) ?? 'empty')
  return { ledger, disks, issued, judge }
}

test('when every write is found, nothing is lost, also after slots were used again', () => {
  for (const writes of [0, 1, 50, 1000]) {
    assert.deepEqual(world(writes).judge(), {
      issued: writes,
      acknowledged: writes,
      lost: 0,
      damaged: 0,
      outOfOrder: 0,
      unacknowledgedPresent: 0,
    })
  }
})

test('one acknowledged write that is missing is one lost, and breaks the order of its chain', () => {
  const { disks, issued, judge } = world(50)
  const gone = issued[20]
  assert.ok(gone)
  disks[gone.volume]?.delete(gone.slot)
  assert.equal(judge().lost, 1)
  assert.equal(judge().outOfOrder, 1)
})

test('an older write where a newer one was acknowledged is a loss', () => {
  const { disks, issued, judge } = world(400)
  const newest = issued.at(-1)
  assert.ok(newest)
  const older = issued.findLast(
    (one) => one.slot === newest.slot && one.volume === newest.volume && one !== newest,
  )
  assert.ok(older)
  disks[newest.volume]?.set(newest.slot, older)
  assert.equal(judge().lost, 1)
})

test('a write in flight may be there or not', () => {
  const { ledger, disks, judge } = world(50)
  const flying = ledger.issue(2)
  assert.equal(judge().lost, 0)
  assert.equal(judge().outOfOrder, 0)
  disks[flying.volume]?.set(flying.slot, flying)
  const judgement = judge()
  assert.equal(judgement.lost, 0)
  assert.equal(judgement.unacknowledgedPresent, 1)
})

test('an unacknowledged write present without the one before it in its chain is out of order', () => {
  const { ledger, disks, judge } = world(50)
  ledger.issue(1)
  const second = ledger.issue(1)
  disks[second.volume]?.set(second.slot, second)
  assert.equal(judge().outOfOrder, 1)
  assert.equal(judge().lost, 0)
})

test('a block in the wrong place, or a damaged one, is counted', () => {
  const { ledger, disks, issued } = world(50)
  const moved = issued[0]
  assert.ok(moved)
  const judgement = ledger.judge((volume, slot) => {
    if (volume === 1 && slot === 63) return { ...moved, volume: 1, slot: 63 }
    if (volume === 0 && slot === 63) return 'damaged'
    return disks[volume]?.get(slot) ?? 'empty'
  })
  assert.equal(judgement.damaged, 2)
})

test('a stamp survives the way through a block; a flipped bit or another run does not', () => {
  const block = Buffer.alloc(BLOCK_BYTES)
  assert.equal(readStamp(block, RUN), 'empty')
  const stamp: Stamp = { sequence: 7, volume: 1, slot: 99, chain: 3, step: 2 }
  const write = () => writeStamp(block, RUN, Buffer.alloc(BLOCK_BYTES, 0xab), stamp)
  write()
  assert.deepEqual(readStamp(block, RUN), stamp)
  for (const at of [0, 16, 36, 40, 4095]) {
    write()
    block[at] = (block[at] ?? 0) ^ 1
    assert.equal(readStamp(block, RUN), 'damaged')
  }
  write()
  assert.equal(readStamp(block, Buffer.from('87654321')), 'damaged')
})
