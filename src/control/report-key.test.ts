import assert from 'node:assert/strict'
import { createPublicKey, verify } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { keyId } from '#wire/reports/sealed.ts'
import { openReportKey, REPORT_KEY_UNUSABLE } from './report-key.ts'

test('the key of reports is made at its first use, for its owner alone, and stays', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-key-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'report-key.pem')
  const signer = openReportKey(path)
  assert.equal(existsSync(path), false)
  const signature = signer.sign(Buffer.from('said'))
  assert.equal(statSync(path).mode & 0o777, 0o600)
  assert.deepEqual(readdirSync(directory), ['report-key.pem'])
  const open = createPublicKey(signer.publicKey())
  assert.equal(signer.key(), keyId(open))
  assert.ok(verify(null, Buffer.from('said'), open, signature))
  assert.ok(!verify(null, Buffer.from('not said'), open, signature))
  assert.equal(openReportKey(path).key(), signer.key())
})

test('a key that was damaged is not replaced by itself', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-key-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'report-key.pem')
  writeFileSync(path, 'not a key')
  assert.throws(
    () => openReportKey(path).key(),
    (error) => isFault(error, REPORT_KEY_UNUSABLE),
  )
})
