/** The judges of the torture, on made-up histories: what they must see, and what they must let pass. No process, no root. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Random } from '../../sim/world/random.ts'
import { Authority, type Trespass } from '../torture/load/authority.ts'
import { Ledger, type Op } from '../torture/load/ledger.ts'
import { BLOCK_BYTES, type Found, readStamp, writeStamp } from '../torture/load/stamp.ts'
import { ForgetfulTree } from '../torture/power/forgetful-tree.ts'
import { FAULT_KINDS, planRound } from '../torture/schedule.ts'

/** A ledger of two volumes and the disks that its operations are carried out on. */
function world(context: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'torture-oracle-'))
  const ledger = new Ledger(2, join(directory, 'ledger'))
  context.after(() => {
    ledger.close()
    rmSync(directory, { recursive: true })
  })
  const disk = new Map<string, Found>()
  const write = (volume: number, slot: number): { op: Op; stamp: Found } => {
    const depends = ledger.depends()
    const op = ledger.issue('write', volume, slot, 1, 0)
    const { sequence, issued } = op
    const stamp = { sequence, volume, slot, issued, depends }
    disk.set(`${volume} ${slot}`, stamp)
    return { op, stamp }
  }
  const found = (volume: number, slot: number): Found => disk.get(`${volume} ${slot}`) ?? 'empty'
  const ack = (op: Op) => ledger.acknowledge(op, 'az1', false, 0)
  return { ledger, disk, write, ack, found }
}

test('when everything is there the ledger finds nothing, also after it forgot the past', (context) => {
  const { ledger, write, ack, found } = world(context)
  for (let count = 0; count < 300; count++) ack(write(count % 2, (count * 7) % 50).op)
  for (let again = 0; again < 2; again++) {
    const { lost, damaged, disorder } = ledger.judge(found)
    assert.deepEqual([lost.length, damaged.length, disorder.length], [0, 0, 0])
    ledger.settle()
  }
})

test('an acknowledged write that is gone is lost, and out of order when a later one is there', (context) => {
  const { ledger, disk, write, ack, found } = world(context)
  const first = write(0, 1)
  ack(first.op)
  disk.delete('0 1')
  assert.deepEqual(ledger.judge(found).lost, [first.op])
  assert.deepEqual(ledger.judge(found).disorder, [])
  ack(write(1, 1).op)
  assert.deepEqual(ledger.judge(found).disorder, [first.op])
})

test('an older write where a newer one was acknowledged is a loss; one without an answer may be there or not', (context) => {
  const { ledger, disk, write, ack, found } = world(context)
  const old = write(0, 1)
  ack(old.op)
  const next = write(0, 1)
  assert.equal(ledger.judge(found).lost.length, 0)
  disk.set('0 1', old.stamp)
  assert.equal(ledger.judge(found).lost.length, 0)
  ack(next.op)
  assert.deepEqual(ledger.judge(found).lost, [next.op])
})

test('what was given up is not missed again, but only that', (context) => {
  const { ledger, disk, write, ack, found } = world(context)
  ack(write(0, 1).op)
  const gone = write(1, 2)
  ack(gone.op)
  disk.delete('1 2')
  assert.deepEqual(ledger.accept(found), [gone.op])
  assert.equal(ledger.givenUp, 1)
  assert.equal(ledger.judge(found).lost.length, 0)
  disk.delete('0 1')
  assert.equal(ledger.judge(found).lost.length, 1)
})

test('a flushed write is owed even when both sites lost their power', (context) => {
  const { ledger, disk, write, ack, found } = world(context)
  const flushed = write(0, 1)
  ack(flushed.op)
  ledger.flushed(0, ledger.tick)
  ack(write(0, 2).op)
  disk.clear()
  const { lost, lostDurable } = ledger.judge(found)
  assert.equal(lost.length, 2)
  assert.deepEqual(lostDurable, [flushed.op])
})

test('a read may return what was under way, never what was older than the last acknowledgement', (context) => {
  const { ledger, write, ack } = world(context)
  const first = write(0, 1)
  ack(first.op)
  const second = write(0, 1)
  const least = ledger.expected(0, 1)
  assert.equal(ledger.mayRead(0, 1, least, first.stamp), true)
  assert.equal(ledger.mayRead(0, 1, least, second.stamp), true)
  ack(second.op)
  assert.equal(ledger.mayRead(0, 1, ledger.expected(0, 1), first.stamp), false)
  assert.equal(ledger.mayRead(0, 1, ledger.expected(0, 1), 'empty'), false)
})

test('a block in the wrong place, of another run, or with a flipped bit is damage', (context) => {
  const { ledger, disk, write, ack, found } = world(context)
  const { op, stamp } = write(0, 1)
  ack(op)
  disk.set('1 7', stamp)
  assert.equal(ledger.judge(found).damaged.length, 1)
  const block = Buffer.alloc(BLOCK_BYTES)
  const run = Buffer.from('12345678')
  const written = { sequence: 5, volume: 1, slot: 9, issued: 11, depends: [3, 4] }
  writeStamp(block, 0, run, written)
  assert.deepEqual(readStamp(Buffer.from(block), run), written)
  assert.equal(readStamp(Buffer.from(block), Buffer.from('87654321')), 'damaged')
  block[2000] = (block[2000] ?? 0) ^ 1
  assert.equal(readStamp(block, run), 'damaged')
})

test('the right to answer moves with an operation that was asked for, once, and not otherwise', () => {
  const seen: Trespass[] = []
  const authority = new Authority((trespass) => void seen.push(trespass))
  const answer = (site: 'az1' | 'az2', sentMs: number, seenMs: number) =>
    authority.answered({ site, kind: 'write', sentMs, seenMs })
  answer('az1', 0, 10)
  authority.mayMove('az2', 20)
  answer('az1', 15, 30)
  answer('az2', 1000, 1010)
  assert.equal(authority.moved, 1)
  assert.deepEqual(seen, [])
  answer('az1', 900, 1200)
  assert.equal(seen.length, 0, 'it may have been given before the other site took over')
  answer('az1', 1500, 1900)
  assert.equal(seen.length, 1, 'nobody asked for production to move back')
})

test('a plan depends on the seed and the number of the round alone, and early rounds meet every kind', () => {
  const options = { seed: 5, kinds: FAULT_KINDS, longMs: 8_000 }
  assert.deepEqual(planRound(options, 7), planRound(options, 7))
  const first = FAULT_KINDS.map((_, number) => planRound(options, number).faults[0]?.fault.kind)
  assert.deepEqual(first, FAULT_KINDS)
})

test('a disk without power keeps what was synced, and of the rest no more than was written', () => {
  for (let seed = 0; seed < 200; seed++) {
    const tree = new ForgetfulTree()
    const random = new Random(seed)
    const synced = tree.createFile(1, 'synced', 0o600)
    tree.write(synced.id, 0, Buffer.alloc(8192, 1))
    tree.sync(synced.id)
    tree.write(synced.id, 4096, Buffer.alloc(4096, 2))
    const fresh = tree.createFile(1, 'fresh', 0o600)
    tree.write(fresh.id, 0, Buffer.alloc(4096, 3))
    tree.rename(1, 'synced', 1, 'renamed')
    tree.cut(random)
    const names = [...tree.directory(1).entries.keys()]
    const name = names.includes('renamed') ? 'renamed' : 'synced'
    if (name === 'renamed') assert.ok(names.includes('fresh'), 'names are kept in order')
    const content = tree.read(tree.lookUp(1, name).id, 0, 10_000)
    assert.equal(content.length, 8192)
    assert.ok(content.subarray(0, 4096).equals(Buffer.alloc(4096, 1)))
    assert.ok(content.subarray(4096).every((byte) => byte === 1 || byte === 2))
    tree.cut(random)
    assert.ok(tree.read(tree.lookUp(1, name).id, 0, 10_000).equals(content), 'what is left stays')
  }
})
