import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { describe, test } from 'node:test'
import { SlabPool } from '#agent/nbd/slab.ts'
import { FrameLog } from './frame-log.ts'
import { WriteRing } from './write-ring.ts'
import type { WriterMember } from './writer-member.ts'

const MIB = 1024 * 1024
// The ring only hands it back.
const MEMBER = {} as WriterMember

const newPool = () => new SlabPool({ slabBytes: 8 * MIB, idleCountMax: 2 })

/** Entries with random frames of the given lengths, answered. */
function answered(ring: WriteRing, pool: SlabPool, lengths: readonly number[]): Buffer[] {
  const slab = pool.take()
  let at = 0
  const frames = lengths.map((length, n) => {
    const frame = randomBytes(28 + length)
    frame.copy(slab.bytes, at)
    const entry = ring.push(n + 1, MEMBER, 0, length)
    slab.retain()
    entry.slab = slab
    entry.bytes = slab.bytes
    entry.start = at
    entry.end = at + frame.length
    at = entry.end
    ring.answer()
    return frame
  })
  slab.release()
  return frames
}

describe('the frame log', () => {
  test('keeps frames as they were, in memory of its own, until they are let go', () => {
    const pool = newPool()
    const ring = new WriteRing()
    const log = new FrameLog(16 * MIB)
    log.start()
    const frames = answered(ring, pool, [4096, 1, 1024 * 1024, 512, 900_000, 1024 * 1024, 700_000])
    for (let i = ring.head; i < ring.tail; i++) log.keep(ring.at(i))
    assert.equal(pool.inUse, 0, 'the memory that the frames arrived in is free again')
    // Somebody else's requests arrive in it.
    pool.take().bytes.fill(7)
    for (const [i, frame] of frames.entries()) {
      const { bytes, start, end } = ring.at(i)
      assert.ok(bytes.subarray(start, end).equals(frame), `frame ${i}`)
    }
    const bytes = frames.reduce((sum, frame) => sum + frame.length + 200, 0)
    assert.equal(log.bytes, bytes)
    while (ring.head < ring.answered) {
      log.leave(ring.at(ring.head))
      ring.drop()
    }
    assert.equal(log.bytes, 0)
    assert.equal(ring.bytes, 0)
    log.stop()
  })

  test('knows when it has grown too long, counting what small frames cost to manage', () => {
    const pool = newPool()
    const ring = new WriteRing()
    const log = new FrameLog(100 * (28 + 1 + 200))
    log.start()
    answered(ring, pool, Array<number>(101).fill(1))
    for (let i = 0; i < 100; i++) log.keep(ring.at(i))
    assert.equal(log.tooLong, false)
    log.keep(ring.at(99))
    assert.equal(log.tooLong, false, 'a frame is counted once')
    log.keep(ring.at(100))
    assert.equal(log.tooLong, true)
  })

  test('keeps nothing while it is off', () => {
    const pool = newPool()
    const ring = new WriteRing()
    const log = new FrameLog(MIB)
    answered(ring, pool, [10])
    log.keep(ring.at(0))
    assert.equal(log.bytes, 0)
    assert.equal(pool.inUse, 1)
  })
})

describe('the ring of entries', () => {
  test('finds the first entry behind a number, also after it has grown and moved on', () => {
    const ring = new WriteRing()
    for (let seq = 1; seq <= 5000; seq++) {
      ring.push(seq, MEMBER, seq * 10, 10)
      if (seq % 3 === 0) {
        ring.answer()
        ring.drop()
      }
    }
    const first = ring.at(ring.head).seq
    for (const seq of [0, first - 1, first, 2500, 4999, 5000, 6000]) {
      const found = ring.after(seq)
      if (seq >= 5000) assert.equal(found, ring.tail)
      else assert.equal(ring.at(found).seq, Math.max(first, seq + 1))
    }
    assert.equal(ring.lastOverlapping(MEMBER, 40_005, 1, 0), 4000)
    assert.equal(ring.lastOverlapping(MEMBER, 40_005, 1, 4000), 0)
    assert.equal(ring.bytes, (ring.tail - ring.head) * 10)
  })
})
