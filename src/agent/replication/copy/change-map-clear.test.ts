import assert from 'node:assert/strict'
import fs, { mkdtempSync, rmSync } from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { BLOCK_BYTES } from '#wire/link/frame.ts'
import { ChangeMap } from './change-map.ts'

test('a process that dies while it clears a change map leaves all marks under one of the two bases', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-clear-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const options = {
    path: join(directory, 'changes-1'),
    sizeBytes: 64 * BLOCK_BYTES,
    bootId: 'boot',
  }
  const map = new ChangeMap({ ...options, fresh: true })
  map.mark(3 * BLOCK_BYTES, 1)
  // The first write of the clearing is the last thing that happens.
  const mocked = t.mock.method(fs, 'writeSync', () => {
    throw new Error('killed')
  })
  syncBuiltinESMExports()
  try {
    assert.throws(() => map.clear(9), /killed/)
  } finally {
    mocked.mock.restore()
    syncBuiltinESMExports()
  }
  const next = new ChangeMap({ ...options, fresh: false })
  assert.equal(next.has(3), true)
  next.close()
  map.close()
})
