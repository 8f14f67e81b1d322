import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { REGION_BYTES } from '../copy/regions.ts'
import { IntentBitmap } from './intent-bitmap.ts'

test('a round clears what nobody has touched since it began, and keeps what somebody has, whether its bit was set already or not', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-intent-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const bitmap = await IntentBitmap.open(join(directory, 'intent-1'), 64 * REGION_BYTES, true)
  const set = () => Array.from({ length: 64 }, (_, i) => i).filter((region) => bitmap.has(region))
  bitmap.set(0, 1)
  bitmap.set(20 * REGION_BYTES, 1)
  await bitmap.save()
  bitmap.beginRound()
  // Bits that are there: the hot path only touches them.
  assert.ok(bitmap.touch(REGION_BYTES - 1, 2))
  assert.ok(bitmap.touch(20 * REGION_BYTES, 512))
  bitmap.set(40 * REGION_BYTES, 1)
  bitmap.endRound()
  assert.deepEqual(set(), [0, 1, 20, 40])
  bitmap.beginRound()
  assert.ok(bitmap.touch(0, 1))
  bitmap.endRound()
  assert.deepEqual(set(), [0])
  await bitmap.close()
})
