import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#base/fault.ts'
import { VAULT_DAMAGED } from '../faults.ts'
import { NODE_ENTRIES } from '../limits.ts'
import { type Entry, ENTRY_BYTES, readEntry, writeEntry } from './entry.ts'
import { decodeMoves, encodeMoves } from './moves.ts'
import { decodeNode, emptyNode, encodeNode, NodeUnreadable, treeDepth } from './node.ts'
import {
  decodePackHeader,
  decodePackRecords,
  encodePackHeader,
  encodePackRecords,
  packIdOf,
  packKey,
  packRecordsAt,
} from './pack.ts'
import { createHasher, createSealer, openRecord } from './record.ts'
import { seal, unseal } from './sealed.ts'

const bytes = (length: number) =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((array) => Buffer.from(array))
const entry: fc.Arbitrary<Entry> = fc.record({
  id: bytes(32),
  pack: fc.constantFrom(...Array.from({ length: 5 }, (_, i) => Buffer.alloc(16, i + 1))),
  slot: fc.integer({ min: 0, max: 0xffff }),
  offset: fc.integer({ min: 0, max: 0xffffffff }),
  length: fc.integer({ min: 0, max: 0xffffff }),
  flags: fc.constantFrom(0, 1, 2, 3),
})
const damaged = (error: unknown) => isFault(error, VAULT_DAMAGED)

test('entries survive being written and read', () => {
  fc.assert(
    fc.property(entry, fc.nat(100), (one, at) => {
      const target = Buffer.alloc(at + ENTRY_BYTES)
      writeEntry(target, at, one)
      assert.deepEqual(readEntry(target, at), { ...one })
    }),
  )
})

test('nodes survive being stored, with entries anywhere', () => {
  const places = fc.array(fc.tuple(fc.nat(NODE_ENTRIES - 1), entry), { maxLength: 40 })
  fc.assert(
    fc.property(places, fc.nat(5), (list, level) => {
      const node = emptyNode()
      for (const [index, one] of list) writeEntry(node, index * ENTRY_BYTES, one)
      assert.ok(decodeNode(encodeNode(node, level), level).equals(node))
    }),
    { numRuns: 50 },
  )
})

test('bytes that are no node are refused, never misread as one of another level', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (array) => {
      try {
        decodeNode(Buffer.from(array), 0)
      } catch (error) {
        assert.ok(error instanceof NodeUnreadable)
      }
    }),
  )
  assert.throws(() => decodeNode(encodeNode(emptyNode(), 1), 0), NodeUnreadable)
})

test('a tree is as deep as its blocks need', () => {
  assert.deepEqual(
    [1, 1024, 1025, 2 ** 20, 2 ** 20 + 1, 2 ** 27].map(treeDepth),
    [1, 1, 2, 2, 3, 3],
  )
})

test('lists of records and moves survive, and cut off lists are refused', () => {
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 20 }), (list) => {
      const records = list.map(({ id, offset, length, flags }) => ({ id, offset, length, flags }))
      const encoded = encodePackRecords(records)
      const { list: listed, next } = packRecordsAt(encoded, 0, 'x')
      assert.equal(next, encoded.length)
      assert.deepEqual(decodePackRecords(listed), records)
      if (list.length > 0) {
        assert.throws(() => packRecordsAt(encoded.subarray(0, -1), 0, 'x'), damaged)
      }
      const moves = list.map(({ pack, slot, offset, length, flags }, from) => ({
        from,
        pack,
        slot,
        offset,
        length,
        flags,
      }))
      assert.deepEqual([...decodeMoves(encodeMoves(moves), 'x').values()], moves)
    }),
  )
})

test('a pack header with any bit wrong, or under another name, is refused', () => {
  const header = {
    packId: randomBytes(16),
    keyId: randomBytes(16),
    salt: randomBytes(32),
    sessionId: randomBytes(16),
  }
  const name = packKey(header.packId)
  assert.deepEqual(packIdOf(name), header.packId)
  const good = encodePackHeader(header)
  assert.deepEqual(decodePackHeader(good, name), header)
  assert.throws(() => decodePackHeader(good, packKey(randomBytes(16))), damaged)
  for (let bit = 0; bit < good.length * 8; bit++) {
    const bad = Buffer.from(good)
    bad[bit >> 3] = (bad[bit >> 3] as number) ^ (1 << (bit & 7))
    assert.throws(() => decodePackHeader(bad, name), damaged, `bit ${bit}`)
  }
})

test('a sealed object opens under its own name, kind and key only, and with no bit wrong', () => {
  const key = { id: randomBytes(16), secret: randomBytes(32) }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 500 }), fc.nat(), (content, where) => {
      const good = seal(key, 'index', 'index/a', content)
      assert.ok(unseal(key, 'index', 'index/a', good).equals(content))
      assert.throws(() => unseal(key, 'index', 'index/b', good), damaged)
      assert.throws(() => unseal(key, 'footer', 'index/a', good), damaged)
      const other = { id: key.id, secret: randomBytes(32) }
      assert.throws(() => unseal(other, 'index', 'index/a', good), damaged)
      const bit = where % (good.length * 8)
      good[bit >> 3] = (good[bit >> 3] as number) ^ (1 << (bit & 7))
      assert.throws(() => unseal(key, 'index', 'index/a', good))
    }),
  )
})

test('records open with their own id and flags only, whatever the block is like', () => {
  const key = randomBytes(32)
  const hasher = createHasher(randomBytes(32))
  const sealer = createSealer(key, 3, 1)
  const nonces = new Set<string>()
  const blocks = fc.oneof(
    bytes(65_536),
    bytes(4096),
    fc.string({ minLength: 1, maxLength: 3000 }).map((text) => Buffer.alloc(65_536, text || 'x')),
    fc.uint8Array({ minLength: 1, maxLength: 100 }).map((array) => Buffer.from(array)),
  )
  fc.assert(
    fc.property(blocks, fc.nat(), (block, where) => {
      const id = hasher.id(block)
      const { bytes: pieces, length, flags } = sealer.seal(id, block, 0)
      const record = Buffer.concat(pieces)
      assert.equal(record.length, length)
      assert.ok(length <= block.length + 28)
      assert.ok(!nonces.has(record.toString('hex', 0, 12)), 'a nonce comes once')
      nonces.add(record.toString('hex', 0, 12))
      assert.ok(openRecord(key, id, flags, record, 65_536)?.equals(block))
      assert.equal(openRecord(key, randomBytes(32), flags, record, 65_536), undefined)
      assert.equal(openRecord(key, id, flags ^ 2, record, 65_536), undefined)
      const bit = where % (record.length * 8)
      record[bit >> 3] = (record[bit >> 3] as number) ^ (1 << (bit & 7))
      assert.equal(openRecord(key, id, flags, record, 65_536), undefined)
    }),
    { numRuns: 60 },
  )
})
