import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { ownershipPage } from './ownership-page.ts'

test('the page about the ownership record says what the rules do', () => {
  const page = readFileSync(
    join(import.meta.dirname, '../docs/formats/ownership-record.md'),
    'utf8',
  )
  assert.equal(page, ownershipPage(), 'stale: run `npm run docs`')
})
