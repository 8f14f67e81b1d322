/** What is said about an action before it is asked for, at once also for large groups; and plans and automatic failover over the API. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { newId } from '#base/ids.ts'
import { GROUP_ACTIONS as CLIENT_ACTIONS } from '#client/native.ts'
import { GROUP_ACTIONS } from '#domain/forecast.ts'
import { forgetOldRuns, insertRun, RUNS_KEPT } from '#control/resources/recovery.ts'
import { ApiLab } from '../support/api.ts'
import { groupRow, ownershipRow, pairRow, volumeRow } from '../support/group-rows.ts'

let lab: ApiLab
let token: string
const PAIRS = 256
/** Most that an operator waits for an answer. */
const LIMIT_MS = 2_000
let group: string

before(async () => {
  lab = await ApiLab.start()
  token = await lab.adminToken()
  const project = lab.admin.project_id
  const row = groupRow(project, { status: 'protected', start_servers: 1 })
  group = row.id
  await lab.store.write(async (tx) => {
    await tx.insertInto('protection_groups').values(row).execute()
    for (let member = 1; member <= PAIRS; member++) {
      const [source, target] = [volumeRow(project, 'az1'), volumeRow(project, 'az2')]
      await tx.insertInto('volumes').values([source, target]).execute()
      const pair = pairRow(row, member, {
        status: 'protected',
        source_volume: source.id,
        target_volume: target.id,
        in_session: 1,
        added_epoch: 1,
      })
      await tx.insertInto('replication_pairs').values(pair).execute()
    }
    const now = lab.clock.wallMs()
    await tx
      .insertInto('ownership')
      .values({ ...ownershipRow(row, 'mark'), updated_at: now })
      .execute()
  })
})
after(async () => await lab.stop())

async function ask(action: string, id = group) {
  const beganMs = performance.now()
  const reply = await lab.call({
    method: 'GET',
    url: `/api/v1/groups/${id}/preflight?action=${action}`,
    headers: { 'x-auth-token': token },
  })
  return { ms: performance.now() - beganMs, status: reply.status, found: reply.body?.preflight }
}

test('every action on a group of 256 pairs is judged within two seconds, with what stands against it and what happens', async (t) => {
  assert.deepEqual(CLIENT_ACTIONS, GROUP_ACTIONS, 'the client knows the same actions')
  for (const action of GROUP_ACTIONS) {
    const { ms, status, found } = await ask(action)
    t.diagnostic(`${action}: ${ms.toFixed(0)} ms`)
    assert.equal(status, 200)
    assert.ok(ms < LIMIT_MS, `${action} took ${ms} ms`)
    assert.equal(found.action, action)
    assert.ok(found.steps.length > 0)
    // No agent was ever heard here.
    assert.equal(found.accepted, false, action)
    for (const { code, message, action: what } of found.blockers) {
      assert.match(code, /^[A-Z_]+$/)
      assert.match(message, /\.$/)
      assert.match(what, /\.$/)
    }
  }
  const codes = async (action: string) =>
    (await ask(action)).found.blockers.map(({ code }: { code: string }) => code)
  assert.ok((await codes('failover')).includes('DR_SITE_SILENT'))
  assert.ok((await codes('reprotect')).includes('GROUP_STATE'))
  assert.deepEqual(await codes('delete'), ['GROUP_HAS_PAIRS'])
  assert.equal((await ask('failover', newId())).status, 404)
  assert.equal((await ask('explode')).status, 400)
})

test('plans, recoveries and automatic failover are set and shown over the API, and what cannot be is refused with what to do', async () => {
  const call = async (method: 'GET' | 'PUT' | 'POST' | 'DELETE', path: string, body?: object) => {
    const url = `/api/v1/groups/${group}/${path}`
    const headers = { 'x-auth-token': token }
    const reply = await lab.call({ method, url, headers, ...(body === undefined ? {} : { body }) })
    return { status: reply.status, body: reply.body, code: reply.body?.error?.code }
  }
  assert.equal((await call('GET', 'recovery-plan')).body.recovery_plan, null)
  const unfit = await call('PUT', 'recovery-plan', { waves: [{ instances: ['nobody'] }] })
  assert.deepEqual([unfit.status, unfit.code], [409, 'PLAN_UNFIT'])
  const command = { instances: { a: { script_before: { script: '/bin/sh' } } } }
  assert.equal((await call('PUT', 'recovery-plan', command)).status, 400)
  const set = await call('PUT', 'recovery-plan', { waves: [{ instances: [], pause: 'Look.' }] })
  assert.deepEqual(set.body.recovery_plan.plan, {
    waves: [{ instances: [], pause: 'Look.' }],
    instances: {},
  })
  assert.equal((await call('DELETE', 'recovery-plan')).status, 200)
  assert.equal((await call('DELETE', 'recovery-plan')).code, 'PLAN_UNKNOWN')
  assert.deepEqual((await call('GET', 'recovery')).body, { recoveries: [], next_marker: null })
  assert.equal((await call('POST', 'recover', {})).code, 'GROUP_WITHOUT_INSTANCES')
  assert.equal((await call('POST', 'recovery/continue', {})).code, 'RECOVERY_UNKNOWN')
  assert.equal((await call('POST', 'recovery/abort', {})).code, 'RECOVERY_UNKNOWN')
  assert.deepEqual((await call('GET', 'forecasts')).body, { forecasts: [] })

  const path = 'automatic-failover'
  assert.equal((await call('GET', path)).body.automatic_failover.enabled, false)
  assert.equal((await call('POST', `${path}/rearm`, {})).code, 'NOT_ENABLED')
  assert.equal((await call('PUT', path, { silence_s: 0 })).status, 400)
  const on = await call('PUT', path, { enabled: true, silence_s: 45, hold: 'not yet' })
  const { enabled, armed, silence_s, cool_down_s, hold } = on.body.automatic_failover
  assert.deepEqual([enabled, armed, silence_s, cool_down_s, hold], [true, true, 45, 900, 'not yet'])
  assert.equal((await call('POST', `${path}/rearm`, {})).code, 'ARMED_ALREADY')
  const released = await call('PUT', path, { hold: null })
  assert.equal(released.body.automatic_failover.hold, null)
})

test('recoveries are read page by page, and of those that ended long ago the newest are kept', async () => {
  const row = groupRow(lab.admin.project_id, {})
  const [OLD, DAY] = [25, 86_400_000]
  const now = lab.clock.wallMs()
  const ids = Array.from({ length: OLD + 2 }, (_, index) => `run-${index}`.padStart(32, '0'))
  const open = (id: string) => ({
    id,
    group_id: row.id,
    project: row.project,
    site: 'az1',
    station: 'source',
    reason: 'operator',
    state: 'running',
    pauses: '[]',
    passed: '[]',
    plan: '{}',
    touched_by: null,
    started_at: now,
    ended_at: null,
  })
  await lab.store.write(async (tx) => {
    await tx.insertInto('protection_groups').values(row).execute()
    for (const [index, id] of ids.entries()) {
      const at = index < OLD ? now - 100 * DAY + index : now - DAY + index
      await insertRun(tx, { ...open(id), state: 'done', started_at: at, ended_at: at }, [])
    }
  })
  const page = async (query: string) => {
    const url = `/api/v1/groups/${row.id}/recovery?${query}`
    const reply = await lab.call({ method: 'GET', url, headers: { 'x-auth-token': token } })
    return { status: reply.status, body: reply.body }
  }
  const seen: string[] = []
  let marker: string | null = ''
  while (marker !== null) {
    const { body } = await page(`limit=10${marker === '' ? '' : `&marker=${marker}`}`)
    seen.push(...body.recoveries.map(({ id }: { id: string }) => id))
    marker = body.next_marker
  }
  assert.deepEqual(seen, ids.toReversed())
  const strange = await page(`marker=${newId()}`)
  assert.deepEqual([strange.status, strange.body.error.code], [404, 'MARKER_UNKNOWN'])

  const forgotten = await lab.store.write((tx) => forgetOldRuns(tx, row.id, now))
  assert.equal(forgotten, OLD + 2 - RUNS_KEPT)
  const left = (await page('limit=100')).body.recoveries.map(({ id }: { id: string }) => id)
  assert.deepEqual(left, ids.toReversed().slice(0, RUNS_KEPT))
  assert.equal(await lab.store.write((tx) => forgetOldRuns(tx, row.id, now)), 0)
  // The database itself lets no second one be under way.
  await lab.store.write((tx) => insertRun(tx, open('first'), []))
  await assert.rejects(
    lab.store.write((tx) => insertRun(tx, open('second'), [])),
    /UNIQUE|unique/,
  )
})
