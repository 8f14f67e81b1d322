import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { ApiLab } from '../support/api.ts'
import { assertComplete, assertOnPage, type Produced, tableLines } from '../support/codes.ts'
import { EvsAsks } from '../support/evs-asks.ts'
import { NEVER, PUBLISHED } from '../support/evs-codes.ts'
import { evsProduced } from '../support/evs-produced.ts'

/** Every published error code of the volume API, with rows that are made for it and no agents. */
let lab: ApiLab
let produced: readonly Produced[]
before(async () => {
  lab = await ApiLab.start()
  produced = evsProduced(new EvsAsks(lab, await lab.adminToken()))
})
after(async () => await lab.stop())

test('every published code is produced or cannot occur', () => {
  assertComplete(PUBLISHED, produced, NEVER)
})

test('each code that can occur is answered in its situation', async () => {
  for (const { code, status, send } of produced) {
    const reply = await send()
    const found = [reply.body?.error?.code, reply.status]
    assert.deepEqual(found, [code, status], JSON.stringify(reply.body))
  }
})

test('the page lists the same codes for the same reasons', () => {
  const path = new URL('../../docs/compatibility/evs.md', import.meta.url)
  const lines = tableLines(produced, NEVER)
  assertOnPage(readFileSync(path, 'utf8'), lines, /^\| `(EVS|Common)\./)
})
