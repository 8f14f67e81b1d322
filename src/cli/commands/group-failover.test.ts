import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault } from '#base/fault.ts'
import { API_REFUSED } from '#client/faults.ts'
import { FORCE_HINT, PREFERRED_HINT } from '#control/api/sdrs/groups.ts'
import { toldInFlags } from './group-failover.ts'

const refused = (message: string) =>
  Promise.reject(new Fault(API_REFUSED, 'POST', { status: 409, code: 'SDRS.1830', message }))

test('a refusal that tells programs what to send tells people at a shell which flags to give', async () => {
  await assert.rejects(
    toldInFlags(refused(FORCE_HINT)),
    /409 SDRS\.1830.*repeat the command with --force\.$/,
  )
  await assert.rejects(
    toldInFlags(refused(PREFERRED_HINT)),
    /with --force --preferred-site-is-off\.$/,
  )
  await assert.rejects(toldInFlags(refused('It is deleted.')), /POST/)
})
