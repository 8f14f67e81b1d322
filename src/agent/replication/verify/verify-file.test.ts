import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  NOTHING_VERIFIED,
  readVerifyFile,
  type VerifyFile,
  writeVerifyFile,
} from './verify-file.ts'

test('what verification remembers is read back as it was; what cannot be read is told from nothing', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-verify-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  assert.equal(await readVerifyFile(directory), null)
  await writeVerifyFile(directory, NOTHING_VERIFIED)
  assert.deepEqual(await readVerifyFile(directory), NOTHING_VERIFIED)
  const file: VerifyFile = {
    version: 1,
    run: {
      run: 'run-1',
      state: 'running',
      reason: null,
      repair: true,
      rate_bytes: 0,
      started_at: 1,
      ended_at: null,
      total_bytes: 10,
      compared_bytes: 5,
      rechecked_blocks: 1,
      mismatched_bytes: 4,
      repaired_bytes: 0,
      ranges: [{ pair: 'p', volume: 'v', offset: 0, length: 4, kind: 'differs', repaired: false }],
      ranges_left_out: 0,
      cursor: { member: 1, offset: 5 },
      unrepaired: { 1: 4 },
    },
    members: { 1: { last_verified_at: 7, mismatched_bytes: 0 } },
  }
  await writeVerifyFile(directory, file)
  assert.deepEqual(await readVerifyFile(directory), file)
  for (const text of ['', '{"version":2}', '{"version":1,"run":{},"members":{}}']) {
    await writeFile(join(directory, 'verify.json'), text)
    assert.equal(await readVerifyFile(directory), 'damaged', text)
  }
})
