/** Quotas of projects, as administrators see and set them: over our own API and on the command line. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { runCli } from '#cli/cli.ts'
import { QUOTA_KINDS } from '#domain/quota.ts'
import { ApiLab } from '../support/api.ts'
import { groupRow, insertRows } from '../support/group-rows.ts'

let lab: ApiLab
let token: string
let project: string

before(async () => {
  lab = await ApiLab.start()
  project = lab.admin.project_id
  token = await lab.adminToken()
  const groups = [groupRow(project), groupRow(project)]
  await insertRows(lab.store, { protection_groups: groups })
})
after(async () => await lab.stop())

const call = async (method: 'GET' | 'PUT', body?: unknown, id = project, as = token) =>
  await lab.call({
    method,
    url: `/api/v1/projects/${id}/quotas`,
    headers: { 'x-auth-token': as },
    ...(body === undefined ? {} : { body }),
  })

interface Quota {
  readonly kind: string
  readonly limit: number
  readonly used: number
  readonly default: number
}

const groupQuota = async (): Promise<Quota | undefined> =>
  ((await call('GET')).body.quotas as Quota[]).find(({ kind }) => kind === 'server_groups')

/** What the project itself sees. */
const seen = async (type: string) => {
  const url = `/v1/${project}/sdrs/quotas`
  const { body } = await lab.call({ url, headers: { 'x-auth-token': token } }, 'sdrs')
  return body.quotas.resources.find((one: { type: string }) => one.type === type)
}

test('every quota is shown with what is used, and a new limit holds at once', async () => {
  const { body } = await call('GET')
  assert.deepEqual(
    body.quotas.map(({ kind }: Quota) => kind),
    QUOTA_KINDS,
  )
  assert.deepEqual(await groupQuota(), {
    kind: 'server_groups',
    limit: 1000,
    used: 2,
    default: 1000,
    min: 0,
    max: -1,
  })
  const reply = await call('PUT', { quotas: { server_groups: 2, replications: -1 } })
  assert.equal(reply.status, 200, reply.text)
  assert.deepEqual(await seen('server_groups'), {
    type: 'server_groups',
    used: 2,
    quota: 2,
    min: 0,
    max: -1,
  })
  assert.equal((await seen('replications')).quota, -1)
  await call('PUT', { quotas: { server_groups: null, replications: null } })
  assert.equal((await seen('server_groups')).quota, 1000)
})

test('all limits of a request are set, or none: what is refused says what to do', async () => {
  const cases: [unknown, number, string][] = [
    [{ replications: 5, server_groups: 1 }, 409, 'QUOTA_BELOW_USAGE'],
    [{ replications: 5, server_groups: -2 }, 400, 'QUOTA_OUT_OF_RANGE'],
    [{ replications: 5, server_groups: 2.5 }, 400, 'QUOTA_OUT_OF_RANGE'],
    [{ replications: 5, shoes: 3 }, 400, 'QUOTA_KIND_UNKNOWN'],
    [{ replications: '5' }, 400, 'INVALID_INPUT'],
    [7, 400, 'INVALID_INPUT'],
  ]
  for (const [quotas, status, code] of cases) {
    const reply = await call('PUT', { quotas })
    assert.deepEqual([reply.status, reply.body.error.code], [status, code], reply.text)
    if (code !== 'INVALID_INPUT') assert.match(reply.body.error.hint, /\.$/)
  }
  assert.equal((await seen('replications')).quota, 10_000)
})

test('only administrators of the domain see and set them, for projects that there are', async () => {
  const operator = await lab.userWith('operator', project)
  for (const method of ['GET', 'PUT'] as const) {
    const body = method === 'PUT' ? { quotas: {} } : undefined
    assert.equal((await call(method, body, project, operator.token)).status, 403)
    assert.equal((await call(method, body, 'f'.repeat(32))).body.error.code, 'PROJECT_UNKNOWN')
  }
})

test('the command line sets limits by name, without one and back to the default', async () => {
  const origin = await lab.listen()
  const { user, password, domain } = lab.admin
  const env = {
    OS_AUTH_URL: `${origin}/v3`,
    OS_USERNAME: user,
    OS_PASSWORD: password,
    OS_USER_DOMAIN_NAME: domain,
    OS_PROJECT_ID: project,
  }
  const run = async (...args: string[]) => {
    let out = ''
    let err = ''
    const write = (to: (text: string) => void) =>
      ({ write: (text: string) => (to(text), true) }) as unknown as NodeJS.WriteStream
    const code = await runCli(['project', 'quota', ...args], {
      version: '0.0.0',
      streams: { out: write((text) => (out += text)), err: write((text) => (err += text)) },
      env,
      control: nothing('control'),
      agent: nothing('agent'),
      state: { backup: never, restore: never },
      self: [],
    })
    return { code, out, err }
  }
  const name = lab.admin.project_name
  const set = await run('set', name, 'server_groups=3', 'replications=unlimited')
  assert.equal(set.code, 0, set.err)
  assert.match(set.out, /server_groups +2 +3 +1000/)
  assert.match(set.out, /replications +0 +unlimited +10000/)
  assert.equal((await groupQuota())?.limit, 3)
  const shown = await run('show', name, '--json')
  assert.equal(JSON.parse(shown.out).quotas.length, QUOTA_KINDS.length)
  const refused = await run('set', name, 'server_groups=1')
  assert.notEqual(refused.code, 0)
  assert.match(refused.err, /has 2 of server_groups already/)
  assert.match((await run('set', name, 'server_groups')).err, /KIND=NUMBER/)
  assert.equal((await run('set', name, 'server_groups=default')).code, 0)
  assert.equal((await groupQuota())?.limit, 1000)
})

const never = () => Promise.reject(new Error('not here'))
const nothing = (about: string) => ({ about, options: {}, start: never })
