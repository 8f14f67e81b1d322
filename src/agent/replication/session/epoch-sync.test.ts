import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { EpochFile } from './epoch-file.ts'
import { unopened } from './session.ts'

test('nothing is done under an epoch before the disk has it: each write of the file ends with a sync', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-epoch-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const file = await EpochFile.open(join(directory, 'epoch'))
  // The class of all open files, which has no name of its own.
  const any = await open(directory, 'r')
  const files = Object.getPrototypeOf(any) as typeof any
  await any.close()
  const writes = t.mock.method(files, 'write').mock
  const syncs = t.mock.method(files, 'sync').mock
  await file.write(unopened('s'))
  assert.deepEqual([writes.callCount(), syncs.callCount()], [2, 2], 'the first into both slots')
  await file.write(unopened('s'))
  assert.deepEqual([writes.callCount(), syncs.callCount()], [3, 3])
  await file.close()
})
