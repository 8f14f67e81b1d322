/** What is said about an action before it is asked for, at once also for large groups; and plans and automatic failover over the API. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { newId } from '#base/ids.ts'
import { GROUP_ACTIONS as CLIENT_ACTIONS } from '#client/native.ts'
import { GROUP_ACTIONS } from '#domain/forecast.ts'
import type { GroupRefusal } from '#domain/protection-group.ts'
import { requestGroupCommand } from '#control/operations/definitions/protection/group-requests.ts'
import { readGroup } from '#control/resources/groups.ts'
import { forgetOldRuns, insertRun, RUNS_KEPT } from '#control/resources/recovery.ts'
import { ApiLab, SITES } from '../support/api.ts'
import { drillRow, groupRow, ownershipRow, pairRow, volumeRow } from '../support/group-rows.ts'
import { SdrsWorld } from '../support/sdrs-world.ts'

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

/** What a preflight says besides what refuses a request: the request is accepted, and its job fails. */
const LATER: ReadonlySet<string> = new Set([
  'GROUP_BUSY',
  'PRODUCTION_SITE_SILENT',
  'DR_SITE_SILENT',
  'DR_COPY_FAILED',
  'DR_SIDE_EMPTY',
  'DR_SIDE_NOT_IN_SYNC',
  'RECORD_IN_DOUBT',
])

test('in every situation a preflight names what refuses the request, and calls acceptable what is accepted', async (t) => {
  const world = await SdrsWorld.start(lab)
  const { store, clock, agents, operations } = lab
  const services = { store, clock, agents, operations, sites: SITES, agentSilenceMs: 1_000 }
  const off = { status: 'stopped', power: 'off' }
  const inSync = async (over: Parameters<SdrsWorld['protect']>[0] = {}, what: object = {}) => {
    const made = await world.protect({ group: { status: 'protected' }, ...over })
    await world.replicate(made, what)
    return made
  }
  const SITUATIONS: Readonly<Record<string, () => Promise<string>>> = {
    'without anything': async () => (await world.group()).id,
    'stopped, with a server': async () => (await world.protect()).group.id,
    'stopped, with a pair alone': async () => {
      const made = await world.group()
      await world.pair(made, 1)
      return made.id
    },
    'in sync, production runs': async () => (await inSync()).group.id,
    'in sync, all servers off': async () => (await inSync({ production: off })).group.id,
    'in sync, the DR server runs': async () =>
      (await inSync({ production: off, dr: { status: 'active', power: 'running' } })).group.id,
    'failed over, the DR server runs': async () =>
      (await inSync({ group: { status: 'failed-over', station: 'target' } })).group.id,
    'a pair grows': async () => (await inSync({ pair: { status: 'extending' } })).group.id,
    'an instance is resized': async () =>
      (await inSync({ production: off, instance: { status: 'resizing' } })).group.id,
    'no usable pair': async () => (await inSync({ pair: { status: 'error' } })).group.id,
    'a server is gone': async () => {
      const { group: made, dr } = await inSync()
      await store.write(async (tx) => {
        await tx.deleteFrom('server_disks').where('server', '=', dr.server).execute()
        await tx.deleteFrom('servers').where('id', '=', dr.server).execute()
      })
      return made.id
    },
    copying: async () => (await inSync({ production: off }, { state: 'resyncing' })).group.id,
    'the link is down': async () =>
      (await inSync({ production: off }, { session: { link: 'down' } })).group.id,
    'a drill is left': async () => {
      const made = await world.group()
      await store.write((tx) => tx.insertInto('drills').values(drillRow(made)).execute())
      return made.id
    },
    'every command fails': async () =>
      (await world.protect({ group: { status: 'error-failing-over' }, production: off })).group.id,
    'under way': async () => (await world.protect({ group: { status: 'starting' } })).group.id,
  }
  const silent = async () => {
    const made = await inSync({ production: off })
    await world.report(['az2'])
    return made.group.id
  }
  const alone = async () => {
    const made = await inSync({ production: off })
    const mode = { mode: 'static-priority', preferred: 'az1' }
    await store.write((tx) =>
      tx.updateTable('ownership').set(mode).where('session', '=', made.group.id).execute(),
    )
    await world.report(['az2'])
    return made.group.id
  }
  class Undo extends Error {}
  /** What refuses the request; null: it is accepted, and undone. */
  const refusalOf = async (id: string, command: Command): Promise<string | null> => {
    try {
      const undo = () => Promise.reject(new Undo())
      const { project } = world
      const outcome = await requestGroupCommand(services, project, id, command, undefined, undo)
      assert.ok(!outcome.ok, 'an accepted one is undone')
      return outcome.refusal
    } catch (error) {
      if (!(error instanceof Undo)) throw error
      return null
    }
  }
  const seen = new Set<string>()
  let compared = 0
  // Sites are heard until the last two, of which one is silent.
  for (const [situation, make] of [
    ...Object.entries(SITUATIONS),
    ['production is silent', silent] as const,
    ['the preferred site is silent', alone] as const,
  ]) {
    const id = await make()
    const { station } = (await readGroup(store.db, id)) ?? {}
    const to = station === 'source' ? 'target' : 'source'
    const asked: readonly (readonly [query: string, command: Command])[] = [
      ['start', { kind: 'start' }],
      ['stop', { kind: 'stop' }],
      ['reverse', { kind: 'reverse', to }],
      ['delete', { kind: 'delete' }],
      ['failover', { kind: 'failover', force: false }],
      ['failover&force=true', { kind: 'failover', force: true }],
      [
        'failover&force=true&preferred_off=true',
        { kind: 'failover', force: true, preferredOff: true },
      ],
    ]
    for (const [query, command] of asked) {
      const refusal = await refusalOf(id, command)
      const { found } = await ask(query, id)
      const codes: string[] = found.blockers.map(({ code }: { code: string }) => code)
      const where = `${query} when ${situation}: ${codes.join(', ')}`
      if (refusal === null) {
        assert.deepEqual(
          codes.filter((code) => !LATER.has(code)),
          [],
          where,
        )
      } else assert.ok(codes.includes(refusal), `${refusal}: ${where}`)
      if (refusal !== null) seen.add(refusal)
      compared++
    }
  }
  t.diagnostic(`${compared} questions, ${seen.size} refusals`)
  // GROUP_STATION: a preflight asks for the other site and for no other.
  const expected = GROUP_REFUSALS.filter((code) => code !== 'GROUP_STATION')
  assert.deepEqual([...seen].toSorted(), expected.toSorted())
})

type Command = Parameters<typeof requestGroupCommand>[3]

const GROUP_REFUSALS = [
  'GROUP_STATE',
  'GROUP_WITHOUT_PAIRS',
  'GROUP_BUSY_PAIRS',
  'GROUP_BUSY_INSTANCES',
  'GROUP_BROKEN_INSTANCES',
  'GROUP_PRODUCTION_RUNS',
  'GROUP_DR_RUNS',
  'GROUP_HAS_INSTANCES',
  'GROUP_HAS_DRILLS',
  'GROUP_HAS_PAIRS',
  'GROUP_STATION',
  'GROUP_COPYING',
  'GROUP_LINK_DOWN',
  'GROUP_PRODUCTION_SILENT',
  'GROUP_PREFERRED_MAY_RUN',
] as const satisfies readonly GroupRefusal[]
