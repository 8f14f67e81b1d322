import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault, fault } from './fault.ts'

const FULL = fault({ code: 'FULL', retry: 'later', text: 'It is full.', hint: 'Make room.' })

test('a fault says what was being done, what is wrong and what to do, each as one sentence', () => {
  const said = 'FULL: copying it. It is full. Make room.'
  assert.equal(new Fault(FULL, 'copying it').message, said)
  assert.equal(new Fault(FULL, 'copying it.').message, said)
})
