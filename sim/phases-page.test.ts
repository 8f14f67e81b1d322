import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { phasesPage } from './phases-page.ts'

test('the page about the phases of a session shows the table that the session obeys', () => {
  const page = readFileSync(
    join(import.meta.dirname, '../docs/architecture/session-phases.md'),
    'utf8',
  )
  assert.equal(page, phasesPage(), 'stale: run `npm run docs`')
})
