import assert from 'node:assert/strict'
import { test } from 'node:test'
import { longestPath } from './forecast.ts'

const one = (instance: string, wave: number, ...after: string[]) => ({ instance, wave, after })

test('servers of a plan take as long as its longest path: wave after wave, and inside a wave one after the other', () => {
  const ms = new Map(Object.entries({ a: 10, b: 20, c: 5, d: 7 }))
  assert.equal(longestPath([], ms), 0)
  assert.equal(longestPath([one('a', 0), one('b', 0)], ms), 20)
  assert.equal(longestPath([one('a', 0), one('b', 1)], ms), 30)
  assert.equal(longestPath([one('a', 0), one('b', 0), one('c', 0, 'a'), one('d', 0, 'c')], ms), 22)
  assert.equal(longestPath([one('a', 0), one('b', 0), one('c', 1, 'a'), one('d', 2)], ms), 32)
})
