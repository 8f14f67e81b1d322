import assert from 'node:assert/strict'
import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { resolveOptions } from '#base/config.ts'
import { newHexId } from '#base/ids.ts'
import { controlConfig, controlOptions } from '#control/config.ts'
import { startControl } from '#control/control.ts'
import { drillsAdrift, drillsInTheMaking } from '#control/resources/drills.ts'
import {
  forgetOldRuns,
  forgetRecovery,
  insertRun,
  lastReadyTimes,
  openRuns,
  pageOfRuns,
  putPlan,
  readyTimes,
  RUNS_KEPT,
  RUNS_KEPT_MS,
  updateRunServer,
} from '#control/resources/recovery.ts'
import { readShown, writeShown } from '#control/resources/shown-replications.ts'
import { quotaUsed } from '#control/resources/surroundings.ts'
import { latestPause } from '#control/resources/sync.ts'
import { openStore } from '#control/store/open.ts'
import type { Store } from '#control/store/store.ts'
import { QUOTA_KINDS } from '#domain/quota.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { groupRow, insertRows, pairRow, volumeRow } from '../support/group-rows.ts'
import { startPostgres } from '../support/postgres.ts'
import { makeCertificates } from '../support/region-parts.ts'

const postgres = await startPostgres()
after(async () => {
  if (!('missing' in postgres)) await postgres.stop()
})
const options = { timeout: 60_000, ...('missing' in postgres ? { skip: postgres.missing } : {}) }

/** Two whole control planes on one PostgreSQL. */
test(
  'what one control plane was told the other one knows, and each stops without the other',
  options,
  async (t) => {
    assert.ok(!('missing' in postgres))
    const directory = await mkdtemp(join(tmpdir(), 'holdfast-control-'))
    t.after(() => rm(directory, { recursive: true, force: true }))
    await makeCertificates(directory)
    const database = await postgres.database('holdfast')
    const administrator = {
      domain: 'holdfast',
      user: 'admin',
      password: 'a password for tests',
      project_id: newHexId(),
      project_name: 'local-1',
      access_key: 'ACCESSKEYFORTESTS123',
      secret_key: 'secret key for tests',
    }
    const bootstrapFile = join(directory, 'bootstrap.json')
    await writeFile(bootstrapFile, JSON.stringify(administrator))
    const start = async (name: string) => {
      const dataDir = join(directory, name)
      const values = resolveOptions(controlOptions, {
        flags: {
          region: 'local-1',
          sites: 'az1,az2',
          dataDir,
          listen: '127.0.0.1:0',
          internalListen: '127.0.0.1:0',
          database,
          bootstrapFile,
          'pki.ca': join(directory, 'ca.crt'),
          'pki.cert': join(directory, 'control.crt'),
          'pki.key': join(directory, 'control.key'),
          logLevel: 'fatal',
        },
      })
      return await startControl(controlConfig(values))
    }
    const one = await start('one')
    // Access keys are sealed with a key that all of them have to hold.
    await mkdir(join(directory, 'two'))
    await copyFile(join(directory, 'one', 'identity.key'), join(directory, 'two', 'identity.key'))
    const two = await start('two')

    const { user: name, password, project_id: id } = administrator
    const body = {
      auth: {
        identity: {
          methods: ['password'],
          password: { user: { name, password, domain: { name: administrator.domain } } },
        },
        scope: { project: { id } },
      },
    }
    const login = await fetch(`${one.url}/v3/auth/tokens`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
    assert.equal(login.status, 201, await login.text())
    const token = login.headers.get('x-subject-token') ?? ''
    const volumes = (url: string) =>
      fetch(`${url}/v2/${id}/volumes`, { headers: { 'x-auth-token': token } })
    assert.equal((await volumes(two.url)).status, 200)
    await one.close()
    assert.equal((await volumes(two.url)).status, 200)
    const health = await fetch(`${two.url}/api/v1/health`)
    assert.equal(health.status, 200)
    await two.close()
    await two.close()
    await assert.rejects(fetch(`${two.url}/api/v1/health`))
  },
)

/** Ids of its own, so that both engines are told the very same. */
const OF = '00000000-0000-4000-8000-00000000000'

async function statements(store: Store): Promise<unknown> {
  const project = 'p'
  const group = groupRow(project, { id: `${OF}1`, domain: `${OF}2`, vpc: `${OF}3` })
  const disks = { source_volume: `${OF}4`, target_volume: `${OF}5` }
  const pair = pairRow(group, 1, { id: `${OF}6`, ...disks })
  const volumes = [
    { ...volumeRow(project, 'az1'), id: `${OF}4` },
    { ...volumeRow(project, 'az2'), id: `${OF}5` },
  ]
  await insertRows(store, { protection_groups: [group], replication_pairs: [pair], volumes })
  const seen: unknown[] = []

  const shown = (id: string, text: string, changed_at: number) => ({ id, shown: text, changed_at })
  await store.write((tx) => writeShown(tx, [shown(group.id, 'first', 5), shown('gone', 'x', 5)]))
  await store.write((tx) => writeShown(tx, [shown(group.id, 'later', 7), shown(pair.id, 'p', 1)]))
  await store.write((tx) => writeShown(tx, [shown(group.id, 'earlier', 6)]))
  const found = await readShown(store.db, [group.id, pair.id, 'gone'])
  assert.equal(found.size, 2, 'nothing is written down of what is gone')
  seen.push([found.get(group.id), found.get(pair.id)])

  const DAY = 86_400_000
  const now = 400 * DAY
  const plan = { group_id: group.id, project, plan: '{}', updated_by: 'u', updated_at: 1 }
  await store.write((tx) => putPlan(tx, plan))
  await store.write((tx) => putPlan(tx, { ...plan, updated_at: 2 }))
  seen.push(await store.db.selectFrom('recovery_plans').select('updated_at').execute())
  const run = (index: number, at: number, ended: boolean) => ({
    id: `run-${index}`,
    group_id: group.id,
    project,
    site: 'az1',
    station: 'source',
    reason: 'operator',
    state: ended ? 'done' : 'running',
    pauses: '[]',
    passed: '[]',
    plan: '{}',
    touched_by: null,
    started_at: at,
    ended_at: ended ? at + 1 : null,
  })
  const server = (of: string) => ({
    run: of,
    instance: 'i',
    server: 's',
    place: 0,
    state: 'probing',
    operation: 'o',
    started_at: now,
    ready_at: null,
    ended_at: null,
    reason_code: null,
    reason: null,
    probes: '[]',
    script_before: null,
    script_after: null,
    script_attempt: null,
  })
  await store.write(async (tx) => {
    for (let index = 0; index < RUNS_KEPT + 2; index++) {
      // Two at a time, so that the order among equals counts.
      await insertRun(tx, run(index, now - RUNS_KEPT_MS - DAY - (index >> 1), true), [])
    }
    await insertRun(tx, run(99, now, false), [server('run-99')])
  })
  const ids: string[] = []
  for (let marker: string | undefined; ; ) {
    const page = await pageOfRuns(store.db, group.id, { limit: 5, marker })
    assert.ok(page)
    ids.push(...page.runs.map(({ row }) => row.id))
    if (!page.more) break
    marker = ids.at(-1)
  }
  seen.push(
    ids,
    (await openRuns(store.db, group.id)).map(({ id }) => id),
  )
  seen.push(await store.write((tx) => forgetOldRuns(tx, group.id, now)))
  await store.write((tx) =>
    updateRunServer(tx, server('run-99'), { state: 'finishing', ready_at: now + 3 }),
  )
  const finishing = { ...server('run-99'), state: 'finishing' }
  await store.write((tx) => updateRunServer(tx, finishing, { state: 'ready' }))
  seen.push([...(await lastReadyTimes(store.db, ['s']))], await readyTimes(store.db, 5))
  seen.push(await drillsAdrift(store.db), await drillsInTheMaking(store.db))
  for (const kind of QUOTA_KINDS) seen.push([kind, await quotaUsed(store.db, project, kind)])
  seen.push(await latestPause(store.db, group.id, 'az1'))
  await store.write((tx) => forgetRecovery(tx, group.id))
  seen.push(await store.db.selectFrom('recovery_servers').select('run').execute())
  return seen
}

test(
  'what recovery, lists and quotas ask the database is answered alike by both engines',
  options,
  async (t) => {
    assert.ok(!('missing' in postgres))
    const directory = await mkdtemp(join(tmpdir(), 'holdfast-statements-'))
    t.after(() => rm(directory, { recursive: true, force: true }))
    const answers: unknown[] = []
    for (const url of [`sqlite:${join(directory, 'db')}`, await postgres.database('statements')]) {
      const store = await openStore({ url, clock: systemClock, log: createLog('test', 'silent') })
      t.after(() => store.close())
      answers.push(await statements(store))
    }
    assert.deepEqual(answers[1], answers[0])
    const [shown, plans, pages, open, forgotten] = answers[1] as unknown[][]
    assert.deepEqual(shown, [
      { id: `${OF}1`, shown: 'later', changed_at: 7 },
      { id: `${OF}6`, shown: 'p', changed_at: 1 },
    ])
    assert.deepEqual([plans, pages?.length, open], [[{ updated_at: 2 }], RUNS_KEPT + 3, ['run-99']])
    assert.equal(forgotten, 2)
  },
)
