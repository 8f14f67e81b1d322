import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { encodePackRecords } from '../format/pack.ts'
import { createKnownTable, findSlot } from './known-table.ts'

const entry = (id: Buffer, n: number) => ({
  id,
  pack: Buffer.alloc(16, 1 + (n % 7)),
  slot: n % 65_536,
  offset: n * 1000,
  length: 1 + (n % 60_000),
  flags: n % 4,
})

test('what was inserted is found with its place, also after the table has grown', () => {
  let memory: SharedArrayBuffer | undefined
  const table = createKnownTable(65_536, 0, (grown) => (memory = grown))
  const ids = Array.from({ length: 20_000 }, () => randomBytes(32))
  for (const [i, id] of ids.entries()) assert.equal(table.insert(entry(id, i)), true)
  for (const [i, id] of ids.entries()) assert.deepEqual(table.find(id), entry(id, i))
  assert.equal(table.insert(entry(ids[0] as Buffer, 5)), false)
  assert.equal(table.find(randomBytes(32)), undefined)
  // What the threads see.
  assert.equal(memory, table.memory)
  assert.ok(findSlot(new Uint32Array(table.memory), ids[77] as Buffer) >= 0)
})

test('at its limit the table refuses and stays right', () => {
  const table = createKnownTable(1024, 0, () => assert.fail('it must not grow'))
  const ids = Array.from({ length: 2000 }, () => randomBytes(32))
  const taken = ids.filter((id, i) => table.insert(entry(id, i)))
  assert.equal(taken.length, 768)
  for (const id of taken) assert.ok(table.has(id))
})

test('a pack is taken over as its footer lists it, wherever that lies in memory', () => {
  const pack = randomBytes(16)
  const records = Array.from({ length: 3000 }, (_, i) => ({
    id: randomBytes(32),
    offset: (i * 1_431_655) % 2 ** 32,
    length: (i * 5593) % 2 ** 24,
    flags: i % 256,
  }))
  for (const shift of [0, 1, 2, 3]) {
    const table = createKnownTable(65_536, 0, () => undefined)
    const memory = Buffer.alloc(4 + records.length * 40 + 8)
    const list = encodePackRecords(records).subarray(4)
    list.copy(memory, 4 + shift)
    table.insertPack(pack, memory.subarray(4 + shift, 4 + shift + list.length))
    assert.equal(table.size, records.length)
    for (const [slot, record] of records.entries()) {
      assert.deepEqual(table.find(record.id), { ...record, pack, slot })
    }
  }
})
