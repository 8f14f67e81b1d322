/**
 * Every code of the published table: produced in its situation, or in the list of those that never come, with the reason. The API over rows, and a
 * queue of operations that nobody works through; sites are scripted reports.
 */
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, mock, test } from 'node:test'
import { Fault } from '#base/fault.ts'
import { newId } from '#base/ids.ts'
import { SDRS_CODES } from '#control/api/sdrs/errors.ts'
import { JOB_SPECS } from '#control/api/sdrs/jobs.ts'
import { OPERATIONS_FULL } from '#control/operations/engine.ts'
import { OWNERSHIP_WAIT } from '#control/sites/witness.ts'
import { STORE_BUSY } from '#control/store/store.ts'
import { ApiLab, type Reply } from '../support/api.ts'
import { assertGo, SDRS_FLAT_JOB, SDRS_JOB } from '../support/go-types.ts'
import { insertRows, pairRow } from '../support/group-rows.ts'
import { GROUPS, SdrsAsks, type Situation } from '../support/sdrs-asks.ts'
import {
  NEVER,
  neverAsPage,
  OTHER_STATUS,
  occurringAsPage,
  otherStatusAsPage,
  PUBLISHED,
} from '../support/sdrs-codes.ts'
import { sdrsFailedJobs, sdrsSituations } from '../support/sdrs-situations.ts'
import { SdrsWorld } from '../support/sdrs-world.ts'

let lab: ApiLab
let world: SdrsWorld
let asks: SdrsAsks
let situations: Readonly<Record<string, Situation>>
let failedJobs: Readonly<Record<string, Situation>>

before(async () => {
  lab = await ApiLab.start()
  world = await SdrsWorld.start(lab)
  const made = await world.machine()
  const { subnet } = await lab.store.db
    .selectFrom('ports')
    .select('subnet')
    .where('id', '=', made.port)
    .executeTakeFirstOrThrow()
  asks = new SdrsAsks(world, subnet)
  situations = sdrsSituations(asks)
  failedJobs = sdrsFailedJobs(asks)
})
after(async () => await lab.stop())

const MAY_HAVE_CHILDREN = /ProtectionGroup|^batch|Drill$/

/** Begins with a capital, ends with a stop. */
const SENTENCE = /^[A-Z].*[.!?}]$/s

const assertRefused = (reply: Reply, code: string, where: string) => {
  const body = reply.body as {
    error: { code: string; message: string }
    error_code: string
    error_msg: string
  }
  assert.equal(body?.error?.code, `SDRS.${code}`, `${where}: ${JSON.stringify(body)}`)
  const status = OTHER_STATUS.get(code)?.[0] ?? PUBLISHED.get(code)
  assert.equal(reply.status, status, where)
  assert.deepEqual([body.error_code, body.error_msg], [body.error.code, body.error.message])
  assert.match(body.error.message, SENTENCE)
}

test('every refusal comes in its situation, with the published code and status and a sentence', async () => {
  for (const [code, situation] of Object.entries(situations)) {
    const [method, path, body] = await situation()
    const reply = await world.call(method, path, body)
    assertRefused(reply, code, `${code}: ${method} ${path} ${JSON.stringify(body)}`)
    await asks.free()
  }
})

test('a group whose pairs are as many as one session has takes no instance with another disk', async () => {
  const group = await world.group()
  const pairs = Array.from({ length: 1_023 }, (_, at) => pairRow(group, at + 1))
  await insertRows(lab.store, { replication_pairs: pairs })
  const [method, path, body] = await asks.newInstance({ server_group_id: group.id })
  await insertRows(lab.store, { replication_pairs: [pairRow(group, 1_024)] })
  assertRefused(await world.call(method, path, body), '1358', 'no place for its disk')
})

test('who calls, and a service that cannot answer, have their codes', async () => {
  const ask = async (project: string, token?: string, method: 'GET' | 'POST' = 'GET') => {
    const headers = token === undefined ? {} : { 'x-auth-token': token }
    const body = method === 'POST' ? { body: asks.newGroup()[2] } : {}
    return await lab.call({ method, url: `/v1/${project}/${GROUPS}`, headers, ...body }, 'sdrs')
  }
  const reader = await lab.userWith('reader', world.project)
  assertRefused(await ask(newId().replaceAll('-', ''), world.token), '0001', 'foreign project')
  assertRefused(await ask(world.project), '0002', 'no token')
  assertRefused(await ask(world.project, reader.token, 'POST'), '0005', 'reader')
  for (const [code, error] of [
    ['0008', new Fault(STORE_BUSY, 'writing')],
    ['0404', new Fault(OPERATIONS_FULL, 'submitting')],
    ['0013', new Error('a mistake')],
  ] as const) {
    const broken = mock.method(lab.operations, 'submit', () => Promise.reject(error))
    assertRefused(await ask(world.project, world.token, 'POST'), code, code)
    broken.mock.restore()
  }
})

test('every job that fails has the code of what it was to do, and a reason that one client can take apart', async () => {
  for (const [code, situation] of Object.entries(failedJobs)) {
    const [method, path, body] = await situation()
    const { job_id } = await world.ok(method, path, body)
    await lab.operations.cancel(job_id as string)
    const job = await world.ok('GET', `jobs/${job_id}`)
    assert.deepEqual([job.status, job.error_code], ['FAIL', `SDRS.${code}`], `${code}: ${path}`)
    assertGo(MAY_HAVE_CHILDREN.test(job.job_type as string) ? SDRS_JOB : SDRS_FLAT_JOB, job)
    const parts = (job.fail_reason as string).split('error : ')
    assert.equal(parts.length, 2, job.fail_reason)
    const { badRequest } = JSON.parse(parts[1] ?? '') as {
      badRequest: { message: string; code: number }
    }
    assert.match(badRequest.message, SENTENCE)
    assert.equal(badRequest.code, 400)
  }
})

test('an action that the witness could not allow in time says that the group is inconsistent', async () => {
  const { id } = await world.group()
  const { job_id } = await world.ok('DELETE', `${GROUPS}/${id}`)
  const failed = { status: 'failed', error_code: OWNERSHIP_WAIT.code, end_at: 1 } as const
  await lab.store.write((tx) =>
    tx.updateTable('operations').set(failed).where('id', '=', job_id).execute(),
  )
  assert.equal((await world.ok('GET', `jobs/${job_id}`)).error_code, 'SDRS.1015')
})

/** Codes of the tests above that have no row. */
const ELSEWHERE = ['0001', '0002', '0005', '0008', '0013', '0404', '1015']

/** Codes of jobs that fail in a step of their own, which tests with real sites produce. */
const BY_STEPS = Object.values(JOB_SPECS).flatMap(({ steps = {} }) => Object.values(steps))

test('every published code is produced or stands in the list of those that never come, and none in both', () => {
  const produced = new Set([
    ...Object.keys(situations),
    ...Object.keys(failedJobs),
    ...BY_STEPS.map((code) => code.replace('SDRS.', '')),
    ...ELSEWHERE,
  ])
  const never = NEVER.flatMap(([codes]) => codes.split(' '))
  assert.deepEqual(
    never.filter((code) => produced.has(code)),
    [],
  )
  assert.equal(new Set(never).size, never.length)
  assert.deepEqual([...produced, ...never].toSorted(), [...PUBLISHED.keys()].toSorted())
})

test('the program knows no code that is not produced here', () => {
  const produced = new Set([...Object.keys(situations), ...Object.keys(failedJobs), ...ELSEWHERE])
  const known = [
    ...Object.keys(SDRS_CODES),
    ...Object.values(JOB_SPECS).map(({ failure }) => failure),
  ].filter((code) => code.startsWith('SDRS.'))
  assert.deepEqual(
    known.filter((code) => !produced.has(code.replace('SDRS.', ''))),
    [],
  )
})

const root = join(import.meta.dirname, '../..')

test('the page of the API lists the codes that come and those that never do, as they are here', () => {
  const page = readFileSync(join(root, 'docs/compatibility/sdrs.md'), 'utf8')
  for (const list of [occurringAsPage(), otherStatusAsPage(), neverAsPage()]) {
    assert.ok(page.includes(list), `the page has to say:\n${list}`)
  }
})

test('no message sends anybody to a support desk, and every one is a sentence', () => {
  for (const [code, [, message]] of Object.entries(SDRS_CODES)) {
    assert.match(message, SENTENCE, code)
  }
  const sources = globSync('src/{control,base,domain}/**/*.ts', { cwd: root })
  const found = sources.filter((path) =>
    /(?:contact|call|ask)\b[^'`\n]{0,40}\bsupport\b|technical support/i.test(
      readFileSync(join(root, path), 'utf8'),
    ),
  )
  assert.deepEqual(found, [])
})
