/** Our own API under /api/v1. Every answer is held against the document that the server itself hands out. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Ajv2020 } from 'ajv/dist/2020.js'
import formats from 'ajv-formats'
import { newHexId } from '#base/ids.ts'
import { ApiLab, REGION, type Request } from '../support/api.ts'

interface Document {
  readonly openapi: string
  readonly paths: Readonly<
    Record<
      string,
      Readonly<
        Record<
          string,
          {
            readonly summary?: string
            readonly responses: Readonly<
              Record<string, { readonly content?: Record<string, { readonly schema: object }> }>
            >
          }
        >
      >
    >
  >
}

let lab: ApiLab
let document: Document
let token = ''
const ajv = new Ajv2020({ strict: false, allErrors: true })
formats.default(ajv)

before(async () => {
  lab = await ApiLab.start()
  document = (await lab.call({ url: '/api/v1/openapi.json' })).body as Document
  token = await lab.adminToken()
})
after(async () => {
  await lab.stop()
})

/** One request as the administrator unless `by` says otherwise; the answer must be one that the document describes. */
async function call(request: Request, by = token) {
  const reply = await lab.call({ ...request, headers: { 'x-auth-token': by, ...request.headers } })
  const method = (request.method ?? 'GET').toLowerCase()
  const path = request.url.replace(/\?.*/, '').split('/')
  const [, operation] =
    Object.entries(document.paths).find(([template, operations]) => {
      const parts = template.split('/')
      const fits = parts.length === path.length && method in operations
      return fits && parts.every((part, at) => part.startsWith('{') || part === path[at])
    }) ?? []
  const responses = operation?.[method]?.responses
  assert.ok(responses !== undefined, `${method} ${request.url} is described`)
  const response =
    responses[reply.status] ?? (reply.status >= 400 ? responses['default'] : undefined)
  assert.ok(response !== undefined, `${method} ${request.url} → ${reply.status}: ${reply.text}`)
  const schema = response.content?.['application/json']?.schema
  assert.ok(schema !== undefined)
  const check = ajv.compile(schema)
  assert.ok(check(reply.body), `${request.url}: ${ajv.errorsText(check.errors)}\n${reply.text}`)
  return reply
}

const codeOf = async (request: Request, by = token) => {
  const { status, body } = await call(request, by)
  assert.ok(status >= 400, `${request.method} ${request.url}`)
  return [status, body.error.code]
}

test('the document describes every route of the API and says what each is for', () => {
  assert.equal(document.openapi, '3.1.0')
  const described = Object.entries(document.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, { summary }]) => {
      assert.ok(summary, `${method} ${path} has a summary`)
      return `${method.toUpperCase()} ${path}`
    }),
  )
  const routes = lab.app.routeTable
    .filter(({ dialect }) => dialect.name === 'native')
    .map(({ method, url }) => `${method} ${url.replaceAll(/:([a-z_]+)/g, '{$1}')}`)
  assert.deepEqual(described.toSorted(), routes.toSorted())
})

test('health needs no token and says which region this is', async () => {
  const { status, body } = await lab.call({ url: '/api/v1/health' })
  assert.deepEqual([status, body], [200, { status: 'ok', region: REGION, version: '0.0.0' }])
})

test('metrics are for this machine without a proxy, or for a token', async () => {
  const metrics = async (headers: Record<string, string>, remoteAddress: string) =>
    await lab.app.inject({ url: '/api/v1/metrics', headers, remoteAddress })
  const local = await metrics({}, '127.0.0.1')
  assert.equal(local.statusCode, 200)
  assert.match(local.body, /^holdfast_site_heard\{site="az1"\} 0$/m)
  assert.match(local.body, /^holdfast_http_answers_total\{/m)
  assert.match(local.body, /^process_resident_memory_bytes /m)
  assert.equal((await metrics({}, '10.0.0.1')).statusCode, 401)
  assert.equal((await metrics({ 'x-forwarded-for': '1.2.3.4' }, '127.0.0.1')).statusCode, 401)
  assert.equal((await metrics({ 'x-auth-token': 'wrong' }, '10.0.0.1')).statusCode, 401)
  assert.equal((await metrics({ 'x-auth-token': token }, '10.0.0.1')).statusCode, 200)
})

test('a user is created, works within its role, loses it, and is gone', async () => {
  const users = '/api/v1/identity/users'
  const made = await call({
    method: 'POST',
    url: users,
    body: { name: 'eve', password: 'long enough', default_project_id: lab.admin.project_id },
  })
  assert.equal(made.status, 201)
  const { id } = made.body.user
  const user = { name: 'eve', password: 'long enough' }
  assert.equal((await call({ url: users })).body.users.length, 2)
  assert.equal((await call({ url: `${users}/${id}` })).body.user.name, 'eve')

  const role = `${users}/${id}/roles/project/${lab.admin.project_id}`
  await call({ method: 'PUT', url: role, body: { role: 'reader' } })
  const scope = { project: { id: lab.admin.project_id } }
  const eve = await lab.login(user, scope)
  assert.ok(eve !== null)
  assert.deepEqual((await call({ url: `${users}/${id}/roles` })).body.roles, [
    { scope: 'project', scope_id: lab.admin.project_id, role: 'reader' },
  ])
  assert.equal((await call({ url: '/api/v1/groups' }, eve)).status, 200)
  const credentials = { method: 'POST', url: '/api/v1/nbd-credentials', body: {} } as const
  assert.deepEqual(await codeOf(credentials, eve), [403, 'FORBIDDEN'])
  await call({ method: 'PUT', url: role, body: { role: 'operator' } })
  assert.deepEqual(await codeOf(credentials, eve), [409, 'NO_SIGNING_KEY'])
  assert.deepEqual(await codeOf({ url: users }, eve), [403, 'FORBIDDEN'])

  await call({ method: 'PUT', url: `${users}/${id}/password`, body: { password: 'other words' } })
  assert.equal((await call({ url: '/api/v1/groups' }, eve)).status, 401)
  assert.equal(await lab.login(user, scope), null)
  const again = await lab.login({ ...user, password: 'other words' }, scope)
  assert.ok(again !== null)
  await call({ method: 'PUT', url: `${users}/${id}`, body: { enabled: false } })
  assert.equal((await call({ url: '/api/v1/groups' }, again)).status, 401)
  await call({ method: 'DELETE', url: role })
  await call({ method: 'DELETE', url: `${users}/${id}` })
  assert.deepEqual(await codeOf({ url: `${users}/${id}` }), [404, 'USER_UNKNOWN'])
})

test('what cannot be done to users, projects and keys says why and what to do', async () => {
  const identity = '/api/v1/identity'
  const me = (await call({ url: `${identity}/users` })).body.users[0].id as string
  const { domain_id } = (await call({ url: `${identity}/projects` })).body
  const post = (path: string, body: unknown) =>
    ({ method: 'POST', url: identity + path, body }) as const
  const put = (path: string, body: unknown) =>
    ({ method: 'PUT', url: identity + path, body }) as const
  const remove = (path: string) => ({ method: 'DELETE', url: identity + path }) as const
  const password = 'long enough'
  const cases: [Request, number, string][] = [
    [post('/users', { name: lab.admin.user, password }), 409, 'NAME_TAKEN'],
    [post('/users', { name: ' x', password }), 400, 'NAME_UNFIT'],
    [post('/users', { name: 'a/b', password }), 400, 'NAME_UNFIT'],
    [post('/users', { name: 'x', password: 'short' }), 400, 'PASSWORD_UNFIT'],
    [post('/users', { name: 'samesame', password: 'samesame' }), 400, 'PASSWORD_UNFIT'],
    [post('/users', { name: 'x', password: 'x'.repeat(257) }), 400, 'PASSWORD_UNFIT'],
    [post('/users', { name: 'x', password, default_project_id: 'none' }), 404, 'PROJECT_UNKNOWN'],
    [post('/users', { name: 'x' }), 400, 'INVALID_INPUT'],
    [post('/users', { name: 7, password }), 400, 'INVALID_INPUT'],
    [put(`/users/${me}`, { enabled: false }), 409, 'LAST_ADMINISTRATOR'],
    [remove(`/users/${me}`), 409, 'LAST_ADMINISTRATOR'],
    [remove(`/users/${me}/roles/domain/${domain_id}`), 409, 'LAST_ADMINISTRATOR'],
    [put(`/users/${me}/roles/domain/${domain_id}`, { role: 'reader' }), 409, 'LAST_ADMINISTRATOR'],
    [put(`/users/${me}/roles/domain/other`, { role: 'reader' }), 404, 'PROJECT_UNKNOWN'],
    [put(`/users/${me}/roles/planet/${domain_id}`, { role: 'reader' }), 400, 'INVALID_INPUT'],
    [put(`/users/${me}/roles/domain/${domain_id}`, { role: 'god' }), 400, 'INVALID_INPUT'],
    [put('/users/nobody/password', { password }), 404, 'USER_UNKNOWN'],
    [post('/projects', { name: REGION }), 409, 'NAME_TAKEN'],
    [remove('/projects/none'), 404, 'PROJECT_UNKNOWN'],
    [remove(`/users/${me}/access-keys/NONE`), 404, 'ACCESS_KEY_UNKNOWN'],
    [post(`/users/${me}/access-keys`, { project_id: 'none' }), 404, 'PROJECT_UNKNOWN'],
    [post('/nothing', {}), 404, 'UNKNOWN_PATH'],
  ]
  for (const [request, status, code] of cases) {
    if (code === 'UNKNOWN_PATH') {
      const reply = await lab.call({ ...request, headers: { 'x-auth-token': token } })
      assert.deepEqual([reply.status, reply.body.error.code], [status, code])
    } else {
      assert.deepEqual(await codeOf(request), [status, code], `${request.method} ${request.url}`)
    }
  }
  // Nothing of it happened: the administrator still is one.
  assert.equal((await call({ url: `${identity}/users` })).status, 200)
})

test('an access key is shown once, listed without its secret, and limited in number', async () => {
  const me = (await call({ url: '/api/v1/identity/users' })).body.users[0].id as string
  const url = `/api/v1/identity/users/${me}/access-keys`
  const made: string[] = []
  for (let count = 1; count < 10; count++) {
    const reply = await call({ method: 'POST', url, body: { description: `key ${count}` } })
    assert.equal(reply.status, 201)
    assert.ok(reply.body.secret_key.length >= 40)
    made.push(reply.body.access_key.access_key)
    const stored = JSON.stringify(
      await lab.store.db.selectFrom('access_keys').selectAll().execute(),
    )
    assert.ok(!stored.includes(reply.body.secret_key))
  }
  assert.deepEqual(await codeOf({ method: 'POST', url, body: {} }), [409, 'ACCESS_KEYS_FULL'])
  assert.equal((await call({ url })).body.access_keys.length, 10)
  for (const key of made) await call({ method: 'DELETE', url: `${url}/${key}` })
  assert.equal((await call({ url })).body.access_keys.length, 1)
})

test('a project with volumes stays, an empty one goes with its roles, keys and tokens', async () => {
  const projects = '/api/v1/identity/projects'
  const made = await call({
    method: 'POST',
    url: projects,
    body: { name: `${REGION}_gone`, description: null },
  })
  const { id } = made.body.project
  const user = await lab.userWith('operator', id)
  const volume = await lab.call({
    method: 'POST',
    url: `/v2/${id}/volumes`,
    headers: { 'x-auth-token': user.token },
    body: { volume: { name: 'v', size: 1, availability_zone: 'az1' } },
  })
  assert.equal(volume.status, 202)
  const remove = { method: 'DELETE', url: `${projects}/${id}` } as const
  assert.deepEqual(await codeOf(remove), [409, 'PROJECT_IN_USE'])
  await lab.store.write(async (tx) => {
    await tx.deleteFrom('volumes').where('project', '=', id).execute()
  })
  assert.equal((await call(remove)).status, 200)
  assert.equal((await call({ url: '/api/v1/groups' }, user.token)).status, 401)
})

test('sites are listed with how long nothing was heard of them', async () => {
  const { body } = await call({ url: '/api/v1/sites' })
  assert.deepEqual(
    body.sites.map((site: { name: string; heard: boolean; age_ms: null }) => [
      site.name,
      site.heard,
      site.age_ms,
    ]),
    [
      ['az1', false, null],
      ['az2', false, null],
    ],
  )
})

test('operations are listed with filters and pages, shown, and not cancelled without reason', async () => {
  const project = lab.admin.project_id
  const made: string[] = []
  for (const name of ['one', 'two', 'three']) {
    const { body } = await lab.call({
      method: 'POST',
      url: `/v2/${project}/volumes`,
      headers: { 'x-auth-token': token },
      body: { volume: { name, size: 1, availability_zone: 'az1' } },
    })
    made.push(body.volume.id)
  }
  const list = async (query = '') =>
    (await call({ url: `/api/v1/operations${query}` })).body.operations as {
      id: string
      resource_id: string
      status: string
    }[]
  const all = await list()
  assert.deepEqual(all.map(({ resource_id }) => resource_id).toSorted(), made.toSorted())
  const first = await list('?limit=2')
  const rest = await list(`?limit=2&after=${first[1]?.id}`)
  assert.deepEqual([...first, ...rest], all)
  assert.equal((await list(`?resource_id=${made[0]}`)).length, 1)
  assert.deepEqual(await list('?status=failed'), [])
  assert.deepEqual(await codeOf({ url: '/api/v1/operations?status=odd' }), [400, 'INVALID_INPUT'])
  assert.deepEqual(await codeOf({ url: '/api/v1/operations?limit=0' }), [400, 'INVALID_INPUT'])
  const { id } = all[0] ?? { id: '' }
  assert.equal((await call({ url: `/api/v1/operations/${id}` })).body.operation.status, 'pending')
  const stranger = await lab.userWith('admin', await lab.project(`${REGION}_stranger`))
  const missing = [404, 'OPERATION_UNKNOWN']
  assert.deepEqual(await codeOf({ url: `/api/v1/operations/${id}` }, stranger.token), missing)
  const cancel = { method: 'POST', url: `/api/v1/operations/${id}/cancel` } as const
  assert.deepEqual(await codeOf(cancel, stranger.token), missing)
  assert.deepEqual(await codeOf({ url: `/api/v1/operations/${newHexId()}` }), missing)
})

test('the connection of a volume is refused with the reason while nothing serves it', async () => {
  const missing = { url: '/api/v1/volumes/0b5c2d5e-9d0a-4f57-8f7c-4a2f4c1f9a11/connection' }
  assert.deepEqual(await codeOf(missing), [404, 'VOLUME_UNKNOWN'])
  const { body } = await lab.call({
    method: 'POST',
    url: `/v2/${lab.admin.project_id}/volumes`,
    headers: { 'x-auth-token': token },
    body: { volume: { name: 'waiting', size: 1, availability_zone: 'az1' } },
  })
  const url = `/api/v1/volumes/${body.volume.id}/connection`
  assert.deepEqual(await codeOf({ url }), [409, 'VOLUME_NOT_WRITABLE'])
})

test('the state is backed up on request of an administrator, and the audit log says so', async () => {
  assert.equal((await call({ method: 'POST', url: '/api/v1/state/backup' })).status, 201)
  const { entries } = (await call({ url: '/api/v1/audit?limit=1' })).body
  assert.equal(entries[0].action, 'state.backup')
  assert.equal((await call({ url: '/api/v1/events' })).status, 200)
})

test('the audit log cannot be changed, not even by us', async () => {
  await assert.rejects(
    lab.store.write(async (tx) => {
      await tx.deleteFrom('audit').execute()
    }),
    /only ever grows/,
  )
})
