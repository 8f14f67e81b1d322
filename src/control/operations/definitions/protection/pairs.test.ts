import assert from 'node:assert/strict'
import { test } from 'node:test'
import { siteToGrow } from './pairs.ts'

const groupAt = (station: 'source' | 'target') => ({
  station,
  source_az: 'az1',
  target_az: 'az2',
})

test('each disk of a pair grows once, the DR disk first, also when the group fails over in between', () => {
  const pair = { source_volume: 'v1', target_volume: 'v2' }
  for (const [before, first, second] of [
    ['source', 'az2', 'az1'],
    ['target', 'az1', 'az2'],
  ] as const) {
    for (const after of ['source', 'target'] as const) {
      assert.equal(siteToGrow(groupAt(before), pair, null), first)
      const grown = first === 'az1' ? 'v1' : 'v2'
      assert.equal(siteToGrow(groupAt(after), pair, grown), second, `${before} to ${after}`)
    }
  }
})
