import assert from 'node:assert/strict'
import { test } from 'node:test'
import { foretoldLines } from './group-detail.ts'

test('an action that has ended is shown with what it was expected to take, if that was foretold', () => {
  const told = { forecast_ms: 4_120, actual_ms: 3_810 }
  assert.deepEqual(foretoldLines(told), ['forecast 4.1 s, took 3.8 s'])
  assert.deepEqual(foretoldLines({ ...told, forecast_ms: null }), [])
  assert.deepEqual(foretoldLines({ ...told, actual_ms: null }), [])
  assert.deepEqual(foretoldLines(undefined), [])
})
