/** The servers of a group come back as its recovery plan says: in order, asked whether they are ready, with pauses and scripts; and a group
 *  fails over by itself once. */
import assert from 'node:assert/strict'
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { createAutomaticFailover } from '#control/operations/automatic-failover.ts'
import {
  armAutomatic,
  changeAutomatic,
} from '#control/operations/definitions/recovery/automatic-requests.ts'
import type { PlanDocument } from '#control/operations/definitions/recovery/plan-format.ts'
import { preflightReport } from '#control/operations/definitions/recovery/preflight-report.ts'
import { requestGroupCommand } from '#control/operations/definitions/protection/group-requests.ts'
import { stopGroup } from '#control/operations/definitions/protection/groups.ts'
import {
  requestRecovery,
  requestRunCommand,
  showPlan,
  showRuns,
  storePlan,
} from '#control/operations/definitions/recovery/recovery-requests.ts'
import type { RequestServices } from '#control/operations/definitions/requests.ts'
import { requestPower } from '#control/operations/definitions/servers/server-requests.ts'
import {
  GROUP_RESOURCE,
  moveGroup,
  movePair,
  pairsOfGroup,
  readGroup,
} from '#control/resources/groups.ts'
import { moveInstance } from '#control/resources/instances.ts'
import { readServer } from '#control/resources/servers.ts'
import type { GroupAction } from '#domain/forecast.ts'
import type { ProbeRequest } from '#wire/site/probes.ts'
import { GROUPS, instanceLab } from '../support/instance-lab.ts'
import { PROJECT, type Region, STRANGE_PROJECT } from '../support/region.ts'

const kit = instanceLab()
const { sites, server, protect, show, inSync } = kit
let region: Region
/** Of the control plane that runs now. */
const services = (): RequestServices => ({
  ...region.plane,
  clock: region.plane.services.clock,
  sites: ['az1', 'az2'],
  agentSilenceMs: 1_000,
})
/** Instances by name, and the servers of both sites. */
const instances = new Map<string, { id: string; az1: string; az2: string }>()
let group: string

before(async () => {
  ;({ region } = await kit.start())
  const scripts = join(region.directory, 'scripts', PROJECT)
  await mkdir(scripts, { recursive: true })
  for (const [name, text] of [
    ['note', 'echo "$HOLDFAST_PHASE $HOLDFAST_SERVER" >> notes; echo noted'],
    ['fails', 'echo no such luck; exit 7'],
    ['waits', 'while ! test -e go; do sleep 0.1; done; echo gone'],
  ] as const) {
    await writeFile(join(scripts, name), `#!/bin/sh\n${text}\n`)
    await chmod(join(scripts, name), 0o700)
  }
  const made = await region.job('POST', GROUPS, {
    server_group: {
      name: 'g',
      source_availability_zone: 'az1',
      target_availability_zone: 'az2',
      domain_id: await region.domain(),
      source_vpc_id: region.vpc,
      start_servers: true,
    },
  })
  group = made.entities.server_group_id as string
  for (const name of ['db', 'app', 'web']) {
    const { id: az1 } = await server(name)
    const id = await protect(group, az1, { name })
    instances.set(name, { id, az1, az2: (await show(id)).target_server as string })
  }
  await region.act(group, 'start-server-group')
  for (const { id } of instances.values()) await inSync(id)
})
after(async () => await region.stop())

const at = (name: string, site: 'az1' | 'az2') => instances.get(name)?.[site] ?? ''
const nameAt = (site: 'az1' | 'az2', id: string) =>
  [...instances].find(([, one]) => one[site] === id)?.[0] ?? id

async function set(document: PlanDocument): Promise<void> {
  const outcome = await storePlan(services(), PROJECT, group, document, 'somebody')
  assert.ok(outcome.ok, JSON.stringify(outcome))
}

/** The newest run, with its servers by name. */
async function newest() {
  const found = await showRuns(services(), PROJECT, group, { limit: 1 })
  assert.ok(found.ok)
  const [run] = found.runs
  assert.ok(run !== undefined)
  return {
    ...run.row,
    servers: new Map(run.servers.map((one) => [found.names.get(one.instance) ?? '', one])),
    states: run.servers.map((one) => `${found.names.get(one.instance)} ${one.state}`),
  }
}

const runIs = async (state: string) =>
  await region.until(`the run is ${state}`, async () => (await newest()).state === state)

const say = async (kind: 'continue' | 'abort') =>
  await requestRunCommand(services(), PROJECT, group, kind, 'somebody')

const starts = (site: 'az1' | 'az2', from = 0) =>
  sites[site].log
    .slice(from)
    .filter(({ command }) => command === 'server.start')
    .map((one) => nameAt(site, one.server))

async function stopAll(site: 'az1' | 'az2'): Promise<void> {
  for (const name of instances.keys()) {
    const order = { kind: 'stop', hard: true } as const
    const outcome = await requestPower(services(), PROJECT, at(name, site), order)
    assert.ok(outcome.ok, JSON.stringify(outcome))
    if (outcome.operation === null) continue
    assert.equal((await region.plane.operations.waitFor(outcome.operation)).status, 'succeeded')
  }
}

test('a plan that could not be followed is refused, and nobody else sees one', async () => {
  const refusal = async (document: PlanDocument) => {
    const outcome = await storePlan(services(), PROJECT, group, document, 'somebody')
    assert.ok(!outcome.ok)
    return outcome.faults?.map(({ code }) => code)
  }
  assert.deepEqual(await refusal({ waves: [{ instances: ['nobody'] }] }), ['INSTANCE_UNKNOWN'])
  assert.deepEqual(
    await refusal({ instances: { db: { after: ['app'] }, app: { after: ['db'] } } }),
    ['CYCLE'],
  )
  assert.deepEqual(await refusal({ instances: { db: {}, [instances.get('db')?.id ?? '']: {} } }), [
    'INSTANCE_TWICE',
  ])
  assert.equal(await showPlan(services(), PROJECT, group), null)
  await set({ waves: [{ instances: ['db'] }] })
  assert.equal(await showPlan(services(), STRANGE_PROJECT, group), undefined)
})

test('a preflight knows what the servers will miss at the other site, and what the plan is going to wait for', async () => {
  await set({
    waves: [{ instances: ['db'], pause: 'Look.' }],
    instances: {
      db: { script_before: { script: 'absent' } },
      web: { script_after: { script: 'note' } },
    },
  })
  const report = async (action: GroupAction) => {
    const row = await readGroup(region.plane.store.db, group)
    assert.ok(row !== undefined)
    const { witness, services: plane } = region.plane
    const sources = { ...services(), witness, scripts: plane.scripts }
    return await preflightReport(sources, row, action, { force: false, preferredOff: false })
  }
  const codes = (list: readonly { readonly code: string }[]) => list.map(({ code }) => code)
  const failover = await report('failover')
  assert.deepEqual(codes(failover.blockers), [])
  assert.deepEqual(codes(failover.warnings), ['SCRIPT_UNFIT', 'PLAN_PAUSES'])
  assert.deepEqual([failover.loss?.bytes, failover.loss?.writes, failover.loss?.ms], [0, 0, 0])
  assert.ok((failover.time.totalMs ?? 0) > 0)
  assert.deepEqual(
    failover.time.afterwards.map(({ name }) => name),
    ['servers'],
  )
  assert.match(failover.steps.at(-1) ?? '', /servers at az2 are started/)
  assert.deepEqual(codes((await report('reverse')).blockers), ['GROUP_PRODUCTION_RUNS'])
  assert.deepEqual(codes((await report('drill')).blockers), [])
  const status = sites.az2.status.bind(sites.az2)
  sites.az2.status = () => ({ ...status(), memory_mb: 300 })
  await region.until('the site has less memory', async () =>
    codes((await report('failover')).warnings).includes('MEMORY_SHORT'),
  )
  sites.az2.status = status
})

test('after a failover servers start in order when those before them are ready, a pause outlives a restart, and the job did not wait', async () => {
  await set({
    waves: [{ instances: ['db'] }, { instances: ['web', 'app'], pause: 'Look at the data.' }],
    instances: {
      db: {
        probes: [{ probe: { kind: 'tcp', port: 5432 }, timeout_s: 60 }],
        script_before: { script: 'note' },
        script_after: { script: 'note' },
      },
      web: { after: ['app'] },
      app: { probes: [{ probe: { kind: 'boot' }, timeout_s: 60 }] },
    },
  })
  let tries = 0
  sites.az2.found = ({ server: id }: ProbeRequest) => {
    const ok = id !== at('db', 'az2') || ++tries > 2
    return { ok, detail: ok ? 'there' : 'connection refused', since_start_ms: 5, output: '' }
  }
  const job = await region.act(group, 'failover-server-group')
  const operation = await region.plane.operations.get(job.job_id as string)
  assert.equal((await region.show(group)).status, 'failed-over')
  assert.equal(typeof operation?.entities['forecast_ms'], 'number')
  assert.equal(operation?.entities['production_heard'], true)
  await runIs('paused')
  const paused = await newest()
  assert.deepEqual(paused.states, ['db ready', 'app waiting', 'web waiting'])
  assert.deepEqual(JSON.parse(paused.pauses), [
    { kind: 'planned', wave: 1, text: 'Look at the data.' },
  ])
  assert.equal(operation?.entities['recovery'], paused.id)
  const shown = await region.plane.operations.get(paused.id)
  assert.deepEqual(
    [shown?.status, shown?.entities['recovery'], shown?.entities['waits_for']],
    ['running', 'paused', 'Look at the data.'],
  )
  assert.ok((operation?.endAt ?? 0) <= (shown?.endAt ?? Number.MAX_SAFE_INTEGER))
  assert.deepEqual(starts('az2'), ['db'])
  assert.equal(tries, 3)

  await region.restartControl(async () => {})
  await region.until('both sites are heard', async () =>
    ['az1', 'az2'].every((site) => region.plane.agents.heard(site)),
  )
  assert.equal((await newest()).state, 'paused')
  assert.deepEqual(starts('az2'), ['db'])
  assert.ok((await say('continue')).ok)
  const ended = await region.plane.operations.waitFor(paused.id)
  assert.equal(ended.status, 'succeeded', ended.failReason ?? '')
  assert.deepEqual(starts('az2'), ['db', 'app', 'web'])
  const { servers, state, ended_at, touched_by } = await newest()
  assert.deepEqual([state, touched_by], ['done', 'somebody'])
  for (const one of servers.values()) {
    assert.equal(one.state, 'ready')
    assert.ok((one.started_at ?? 0) <= (one.ready_at ?? -1))
    assert.ok((one.ready_at ?? 0) <= (one.ended_at ?? -1))
    assert.ok((one.ended_at ?? 0) <= (ended_at ?? -1))
  }
  const [db, app, web] = ['db', 'app', 'web'].map((name) => servers.get(name))
  assert.ok((db?.ended_at ?? 0) <= (app?.started_at ?? -1))
  assert.ok((app?.ended_at ?? 0) <= (web?.started_at ?? -1))
  assert.equal(JSON.parse(db?.script_before ?? '{}').output, 'noted\n')
  assert.equal(
    await readFile(join(region.directory, 'scripts', PROJECT, 'notes'), 'utf8'),
    `before ${at('db', 'az2')}\nafter ${at('db', 'az2')}\n`,
  )
  assert.deepEqual(await say('continue'), { ok: false, refusal: 'RECOVERY_UNKNOWN' })
})

test('what cannot be foretold is done all the same', async () => {
  const { store, operations } = region.plane
  const kindOfFailovers = async (from: string, to: string, entities: string) => {
    await store.write((tx) =>
      tx
        .updateTable('operations')
        .set({ kind: to, entities })
        .where('kind', '=', from)
        .where('resource_id', '=', group)
        .execute(),
    )
  }
  // Earlier runs that nobody can read.
  await kindOfFailovers('group.failover', 'group.reprotect', '{"forecast":5}')
  await region.act(group, 'start-server-group')
  const [start] = await operations.list({ resourceId: group, limit: 1 })
  assert.deepEqual([start?.status, start?.entities['forecast_ms']], ['succeeded', undefined])
  await kindOfFailovers('group.reprotect', 'group.failover', '{}')
})

test('a group that is stopped on its way into another one stays reserved until it is there', async () => {
  const { store, operations } = region.plane
  const stopped = await store.write(async (tx) => {
    const now = Date.now()
    await moveGroup(tx, group, 'stopping', now)
    for (const pair of await pairsOfGroup(tx, group)) await movePair(tx, pair.id, 'stopping', now)
    for (const { id } of instances.values()) await moveInstance(tx, id, 'stopping', now)
    return await operations.submit(tx, stopGroup, {
      project: PROJECT,
      resourceType: GROUP_RESOURCE,
      resourceId: group,
      input: { reserved: true },
    })
  })
  assert.equal((await operations.waitFor(stopped)).status, 'succeeded')
  assert.equal((await readGroup(store.db, group))?.status, 'updating')
  // What somebody else could begin with it now would find it gone in the midst.
  for (const command of [{ kind: 'start' }, { kind: 'delete' }] as const) {
    const asked = await requestGroupCommand(services(), PROJECT, group, command)
    assert.equal(asked.ok ? null : asked.refusal, 'GROUP_STATE')
  }
  await store.write((tx) => moveGroup(tx, group, 'available', Date.now()))
  await region.act(group, 'start-server-group')
  for (const { id } of instances.values()) await inSync(id)
})

test('after a reversal a server that is not ready stops the others, or pauses them, and an operator goes on or gives up', async () => {
  for (const { id } of instances.values()) await inSync(id)
  await stopAll('az2')
  await set({
    waves: [{ instances: ['db'] }],
    instances: { db: { not_ready: 'pause', script_before: { script: 'fails' } } },
  })
  const from = sites.az1.log.length
  await region.act(group, 'reverse-server-group', { priority_station: 'source' })
  await runIs('paused')
  const failed = (await newest()).servers.get('db')
  assert.deepEqual([failed?.state, failed?.reason_code], ['not_ready', 'SCRIPT_FAILED'])
  assert.match(failed?.reason ?? '', /ended with 7/)
  assert.equal(JSON.parse(failed?.script_before ?? '{}').output, 'no such luck\n')
  assert.deepEqual(await requestRecovery(services(), PROJECT, group), {
    ok: false,
    refusal: 'RECOVERY_RUNS',
  })
  assert.ok((await say('abort')).ok)
  const aborted = await region.plane.operations.waitFor((await newest()).id)
  assert.deepEqual([aborted.status, aborted.errorCode], ['failed', 'RECOVERY_INCOMPLETE'])
  assert.deepEqual((await newest()).states, ['db not_ready', 'app skipped', 'web skipped'])
  assert.deepEqual(starts('az1', from), [])
  assert.equal((await region.show(group)).status, 'protected', 'the switch has not failed')

  await set({
    waves: [{ instances: ['db'] }],
    instances: {
      db: { not_ready: 'stop', probes: [{ probe: { kind: 'tcp', port: 1 }, timeout_s: 1 }] },
    },
  })
  sites.az1.found = () => ({ ok: false, detail: 'refused', since_start_ms: null, output: '' })
  const again = await requestRecovery(services(), PROJECT, group)
  assert.ok(again.ok)
  await region.plane.operations.waitFor(again.operation)
  const stopped = await newest()
  assert.deepEqual([stopped.reason, stopped.state], ['operator', 'stopped'])
  assert.deepEqual(stopped.states, ['db not_ready', 'app skipped', 'web skipped'])
  assert.match(stopped.servers.get('db')?.reason ?? '', /tcp: refused, 1 s after the start/)
  assert.deepEqual(starts('az1', from), ['db'])

  // The one that runs already is asked again and not started again.
  sites.az1.found = () => ({ ok: true, detail: 'there', since_start_ms: 1, output: '' })
  const third = await requestRecovery(services(), PROJECT, group)
  assert.ok(third.ok)
  assert.equal((await region.plane.operations.waitFor(third.operation)).status, 'succeeded')
  assert.deepEqual(starts('az1', from).toSorted(), ['app', 'db', 'web'])
  for (const name of instances.keys()) {
    const { status } = (await readServer(region.plane.store.db, at(name, 'az1'))) ?? {}
    assert.equal(status, 'active')
  }
})

test('of two recoveries that are asked for at once one begins, and it holds no place while its script runs', async () => {
  await set({
    waves: [{ instances: ['db'] }],
    instances: { db: { script_before: { script: 'waits', timeout_s: 60 } } },
  })
  const asked = await Promise.all([1, 2, 3].map(() => requestRecovery(services(), PROJECT, group)))
  const [begun] = asked.filter((one) => one.ok)
  assert.ok(begun?.ok)
  assert.deepEqual(
    asked.flatMap((one) => (one.ok ? [] : [one.refusal])),
    ['RECOVERY_RUNS', 'RECOVERY_RUNS'],
  )
  const { store, operations } = region.plane
  await region.until('its script runs and nobody holds its operation', async () => {
    const db = (await newest()).servers.get('db')
    if (db === undefined || db.script_attempt === null) return false
    const { lease_owner, status } = await store.db
      .selectFrom('operations')
      .select(['lease_owner', 'status'])
      .where('id', '=', db.operation)
      .executeTakeFirstOrThrow()
    return lease_owner === null && status === 'running'
  })
  await writeFile(join(region.directory, 'scripts', PROJECT, 'go'), '')
  assert.equal((await operations.waitFor(begun.operation)).status, 'succeeded')
  const db = (await newest()).servers.get('db')
  assert.deepEqual(JSON.parse(db?.script_before ?? '{}'), {
    ok: true,
    reason: null,
    output: 'gone\n',
    attempts: 1,
  })
  assert.equal(db?.script_attempt, null)
})

test('a recovery that waits when its group is switched again ends, and starts nothing at the site that is production no more', async () => {
  await stopAll('az1')
  await set({ waves: [{ instances: ['db'], pause: 'Wait for me.' }] })
  const waiting = await requestRecovery(services(), PROJECT, group)
  assert.ok(waiting.ok)
  await runIs('paused')
  const [from1, from2] = [sites.az1.log.length, sites.az2.log.length]
  for (const { id } of instances.values()) await inSync(id)
  await region.act(group, 'failover-server-group')
  const ended = await region.plane.operations.waitFor(waiting.operation)
  assert.equal(ended.status, 'failed')
  await runIs('paused')
  const found = await showRuns(services(), PROJECT, group, { limit: 2 })
  assert.ok(found.ok)
  assert.deepEqual(
    found.runs.map(({ row: { reason, state } }) => `${reason} ${state}`),
    ['failover paused', 'operator superseded'],
  )
  assert.ok((await say('continue')).ok)
  assert.equal((await region.plane.operations.waitFor((await newest()).id)).status, 'succeeded')
  assert.deepEqual(starts('az1', from1), [])
  assert.deepEqual(starts('az2', from2).toSorted(), ['app', 'db', 'web'])
})

test('of several control planes that look at once one begins the failover, and none begins another', async (t) => {
  await region.act(group, 'start-server-group')
  for (const { id } of instances.values()) await inSync(id)
  await set({ waves: [{ instances: ['db'] }] })
  const { operations, witness, store, services: plane } = region.plane
  const failovers = async () =>
    (await operations.list({ resourceId: group })).filter(({ kind }) => kind === 'group.failover')
  const before = (await failovers()).length
  const change = { enabled: true, silenceMs: 1_000, coolDownMs: 1_000 }
  assert.ok((await changeAutomatic(services(), PROJECT, group, change, 'somebody')).ok)
  const options = { services: { ...services(), witness }, clock: plane.clock, log: plane.log }
  const lookers = [1, 2, 3].map(() =>
    createAutomaticFailover({ ...options, leaseMs: 1_600, driftMs: 500, everyMs: 25 }),
  )
  for (const one of lookers) {
    one.start()
    t.after(() => one.stop())
  }
  // By now the group's production is az2.
  await region.stopSite('az2')
  await region.until('somebody acted', async () => (await failovers()).length > before)
  const [begun] = await failovers()
  assert.equal((await operations.waitFor(begun?.id ?? '')).status, 'succeeded')
  await runIs('done')
  for (const one of lookers) await one.round()
  assert.equal((await failovers()).length, before + 1)
  const rows = await store.db
    .selectFrom('automatic_failover_verdicts')
    .select(['verdict', 'operation'])
    .where('group_id', '=', group)
    .execute()
  assert.deepEqual(
    rows.filter(({ verdict }) => verdict === 'acts').map(({ operation }) => operation),
    [begun?.id],
  )
  const arm = () => armAutomatic(services(), PROJECT, group, 'somebody')
  await region.until('it has cooled down', async () => (await arm()).ok)
  const again = await arm()
  assert.equal(again.ok ? null : again.refusal, 'ARMED_ALREADY')
})
