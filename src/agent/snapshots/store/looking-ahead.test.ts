import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LookingAhead } from './looking-ahead.ts'

const STEP = 16

test('what is asked for in order is looked ahead of, a step at a time and never far behind its end', () => {
  const ahead = new LookingAhead(STEP, 4)
  let preserved = 0
  for (let first = 0; first < 40 * STEP; first += 4) {
    const stretch = ahead.asked(first, first + 3)
    // Asking once more, as whoever waited does, changes nothing.
    assert.equal(ahead.asked(first, first + 3), null)
    if (stretch === null) continue
    assert.equal(stretch.count, STEP)
    assert.ok(stretch.first >= preserved, 'nothing twice')
    preserved = stretch.first + stretch.count
    assert.ok(preserved - (first + 4) <= Math.min((first + 4) / 2, 4 * STEP))
  }
  assert.ok(preserved >= 42 * STEP, 'the end was looked beyond')
})

test('a stretch that comes in pieces out of order is one', () => {
  const ahead = new LookingAhead(STEP, 4)
  let found = 0
  for (let first = 0; first < 40 * STEP; first += 16) {
    for (const at of [first + 8, first + 12, first, first + 4]) {
      if (ahead.asked(at, at + 3) !== null) found++
    }
  }
  assert.ok(found >= 36)
})

test('single blocks here and there are not looked ahead of', () => {
  const ahead = new LookingAhead(STEP, 4)
  for (let i = 1; i < 1_000; i++) {
    const block = (i * 7919) % 100_003
    assert.equal(ahead.asked(block, block), null)
  }
})

test('neither are blocks of a stretch that leave some out', () => {
  const ahead = new LookingAhead(STEP, 4)
  for (let block = 0; block < 1_000; block++) {
    if (block % 4 !== 3) assert.equal(ahead.asked(block, block), null)
  }
})

test('a stretch is followed although blocks elsewhere are asked for in between', () => {
  const ahead = new LookingAhead(STEP, 4)
  let found = 0
  for (let first = 0; first < 20 * STEP; first += 4) {
    if (ahead.asked(first, first + 3) !== null) found++
    assert.equal(ahead.asked(1_000_000 + first * 100, 1_000_000 + first * 100), null)
  }
  assert.ok(found >= 18)
})
