import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Fault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { VOLUME_FAILED } from '#agent/volumes/faults.ts'
import { BootMarks } from '#agent/volumes/file/boot-marks.ts'
import { BootTrust, tellsOfLoss } from './boot-trust.ts'
import { RunFile } from '../run-file.ts'

const BOOT = '6b4a0d6c-8b1e-4d43-9d55-2f8d6a1c7e10'
const log = createLog('test', 'silent')

const failure = (code: string): Error =>
  Object.assign(new Error(`${code}: fdatasync`), { code, errno: -5, syscall: 'fdatasync' })

function lab(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-trust-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  const marks = new BootMarks({
    directories: [join(directory, 'boot')],
    store: join(directory, 'sessions'),
    log,
  })
  return { directory, trust: (session: string) => new BootTrust(session, BOOT, marks, log) }
}

test('a session whose disk failed takes the same boot for another one when it starts again, and others do not', (t) => {
  const { directory, trust } = lab(t)
  const path = join(directory, 'run')
  const first = trust('one')
  assert.equal(first.bootId, BOOT)
  const run = new RunFile(path, first.bootId)
  run.begin(41)
  run.store(42)
  run.close()
  first.failed(failure('EIO'), 1_700_000_000_000)

  const second = trust('one')
  assert.notEqual(second.bootId, BOOT)
  const later = new RunFile(path, second.bootId)
  assert.equal(later.known, null, 'the number may be one of some time before')
  later.begin(50)
  later.close()
  assert.equal(trust('other').bootId, BOOT)

  const third = trust('one')
  assert.equal(third.bootId, second.bootId, 'another process of that boot of its own')
  const again = new RunFile(path, third.bootId)
  assert.equal(again.known, 50)
  again.close()
  third.failed(failure('EROFS'), 1_700_000_000_001)
  assert.notEqual(trust('one').bootId, third.bootId, 'it failed once more')
  trust('one').forget()
  assert.equal(trust('one').bootId, BOOT)
})

test('a full disk, and a refusal of our own, are no loss; what a failed volume was caused by is one', (t) => {
  const { trust } = lab(t)
  const session = trust('one')
  session.failed(failure('ENOSPC'), 1)
  session.failed(new Fault(VOLUME_FAILED, 'writing'), 1)
  assert.equal(trust('one').bootId, BOOT)
  assert.ok(tellsOfLoss(new Fault(VOLUME_FAILED, 'writing', {}, failure('EIO'))))
})
