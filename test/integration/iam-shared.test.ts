/** Identity on a real PostgreSQL that two control planes share. */
import assert from 'node:assert/strict'
import { createHash, createHmac } from 'node:crypto'
import { after, before, test } from 'node:test'
import { ApiLab, REGION } from '../support/api.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'

const started = await startPostgres()
const postgres: Postgres | null = 'missing' in started ? null : started
const options = { skip: 'missing' in started ? started.missing : false }

let one: ApiLab
let two: ApiLab
before(async () => {
  if (postgres === null) return
  const database = await postgres.database('identity')
  one = await ApiLab.start({ database })
  two = await ApiLab.start({ database, beside: one })
})
after(async () => {
  if (postgres === null) return
  await two.stop()
  await one.stop()
  await postgres.stop()
})

const groups = () => `/v1/${one.admin.project_id}/server-groups`
const works = async (lab: ApiLab, token: string) =>
  (await lab.call({ url: groups(), headers: { 'x-auth-token': token } }, 'sdrs')).status

test('a token of one control plane is good at the other, and ends at both', options, async () => {
  const token = await one.adminToken()
  assert.equal(await works(two, token), 200)
  const headers = { 'x-auth-token': token, 'x-subject-token': token }
  const revoke = { method: 'DELETE', url: '/v3/auth/tokens', headers } as const
  assert.equal((await two.call(revoke, 'iam')).status, 204)
  assert.equal(await works(one, token), 401)
})

test('users, roles and keys changed at one hold at the other', options, async () => {
  const user = await one.userWith('reader', one.admin.project_id)
  assert.equal(await works(two, user.token), 200)
  const domain = await one.domain()
  await one.identity.management.grant(domain, user.id, 'project', one.admin.project_id, 'operator')
  const list = await two.identity.management.listGrants(domain, user.id)
  assert.deepEqual(
    list.map(({ role }) => role),
    ['operator'],
  )
  await two.identity.management.deleteUser(domain, user.id)
  assert.equal(await works(one, user.token), 401)
})

test('two users of one name are not made, even side by side', options, async () => {
  const domain = await one.domain()
  const create = (lab: ApiLab) =>
    lab.identity.management.createUser(domain, {
      name: 'twin',
      password: 'long enough',
      defaultProject: null,
    })
  const outcomes = await Promise.allSettled([create(one), create(two), create(one)])
  assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1)
  const refused = outcomes.filter((outcome) => outcome.status === 'rejected')
  assert.deepEqual(
    [...new Set(refused.map(({ reason }) => (reason as { code: string }).code))],
    ['NAME_TAKEN'],
  )
})

test('a signed change counts once, whichever control plane gets it', options, async () => {
  const url = `/v2/${one.admin.project_id}/volumes`
  const payload = '{"volume":{"name":"v","size":1,"availability_zone":"az1"}}'
  const date = new Date(one.clock.wallMs()).toISOString().replaceAll(/[-:]|\.\d+/g, '')
  const hash = (text: string) => createHash('sha256').update(text).digest('hex')
  const canonical = `POST\n${url}/\n\nx-sdk-date:${date}\n\nx-sdk-date\n${hash(payload)}`
  const signature = createHmac('sha256', one.admin.secret_key)
    .update(`SDK-HMAC-SHA256\n${date}\n${hash(canonical)}`)
    .digest('hex')
  const headers = {
    'x-sdk-date': date,
    authorization: `SDK-HMAC-SHA256 Access=${one.admin.access_key}, SignedHeaders=x-sdk-date, Signature=${signature}`,
  }
  const replies = await Promise.all(
    [one, two, one, two].map((lab) => lab.app.inject({ method: 'POST', url, headers, payload })),
  )
  const statuses = replies.map(({ statusCode }) => statusCode)
  assert.deepEqual(
    statuses.toSorted((a, b) => a - b),
    [202, 401, 401, 401],
  )
})

test('the catalogue, projects and the audit log work as on SQLite', options, async () => {
  const headers = { 'x-auth-token': await two.adminToken() }
  const projects = await two.call({ url: `/v3/projects?name=${REGION}`, headers }, 'iam')
  assert.equal(projects.body.projects[0].id, one.admin.project_id)
  await two.call({ url: '/v3/auth/projects', headers }, 'iam')
  const body = { project: { name: `${REGION}_pg` } }
  const made = await two.call({ method: 'POST', url: '/v3/projects', headers, body }, 'iam')
  assert.equal(made.status, 201)
  const entries = await one.call({ url: '/api/v1/audit?limit=5', headers })
  assert.ok(JSON.stringify(entries.body).includes('project.create'))
  assert.equal((await one.call({ url: '/api/v1/events', headers })).status, 200)
  assert.equal((await one.call({ url: '/api/v1/metrics', headers })).status, 200)
})
