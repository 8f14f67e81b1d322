import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault, isFault } from '#base/fault.ts'
import { VOLUME_FAILED, VOLUME_NO_SPACE } from '#agent/volumes/faults.ts'
import { asDiskRefusal, SITE_DISK_FAILED } from './disk-refusals.ts'

const system = (code: string) => Object.assign(new Error(`${code}: made up`), { code, errno: -5 })

test('what a disk says to a command reaches the control plane with a code, and worth a repeat', () => {
  for (const [code, kind] of [
    ['ENOSPC', VOLUME_NO_SPACE],
    ['EDQUOT', VOLUME_NO_SPACE],
    ['EFBIG', VOLUME_NO_SPACE],
    ['EIO', SITE_DISK_FAILED],
    ['EROFS', SITE_DISK_FAILED],
  ] as const) {
    const cause = system(code)
    const told = asDiskRefusal(cause, 'session.open')
    assert.ok(isFault(told, kind), code)
    assert.equal(told.cause, cause)
    assert.equal(kind.retry, 'later')
  }
})

test('other errors, and those that say what they are, stay', () => {
  const known = new Fault(VOLUME_FAILED, 'x', {}, system('EIO'))
  const mistake = new TypeError('a mistake of ours')
  for (const error of [known, mistake, system('ENOENT')]) {
    assert.equal(asDiskRefusal(error, 'x'), error)
  }
})
