import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CommitHabit } from './commit-habit.ts'

const KIB = 1024

test('a flush is expected after a little was written and flushed, a journey later, the last time', () => {
  const habit = new CommitHabit()
  assert.equal(habit.wrote(10), 'nothing', 'nothing is known yet')
  habit.flushed(11.2, 4 * KIB)
  assert.equal(habit.wrote(20), 'flush')
})

for (const [why, afterMs, dirtyBytes] of [
  ['the client is near', 0.1, 4 * KIB],
  ['it had nothing to do with the write', 3_000, 4 * KIB],
  ['it was for a batch', 1.2, 65 * KIB],
] as const) {
  test(`no further flush is expected when the last one told that ${why}`, () => {
    const habit = new CommitHabit()
    habit.wrote(0)
    habit.flushed(1, 4 * KIB)
    assert.equal(habit.wrote(10), 'flush')
    habit.flushed(10 + afterMs, dirtyBytes)
    assert.equal(habit.wrote(20), 'nothing')
  })
}

test('a flush without any write before it says nothing', () => {
  const habit = new CommitHabit()
  habit.flushed(5, 0)
  assert.equal(habit.wrote(6), 'nothing')
})

test('of a commit of several writes none is taken for the last, and of one that grows only the first', () => {
  const habit = new CommitHabit()
  habit.wrote(0)
  habit.wrote(2)
  habit.flushed(4, 8 * KIB)
  assert.equal(habit.wrote(10), 'more')
  habit.flushed(12, 4 * KIB)
  assert.equal(habit.wrote(20), 'flush')
  assert.equal(habit.wrote(22), 'more')
})

test('where the flush comes sooner than an fdatasync is over the write is only given to the disk', () => {
  const habit = new CommitHabit()
  habit.wrote(0)
  habit.flushed(0.6, 4 * KIB)
  assert.equal(habit.wrote(10), 'more')
})
