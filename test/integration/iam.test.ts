/** The identity API as real clients use it. Every answer is held against the contract. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { operationsOf, exercised, assertContract } from '../contracts/validate.ts'
import { ApiLab, REGION } from '../support/api.ts'

let lab: ApiLab
before(async () => {
  lab = await ApiLab.start()
})
after(async () => {
  await lab.stop()
})

const TOKENS = '/v3/auth/tokens'
const as = (token: string) => ({ 'x-auth-token': token })

test('the root lists the versions of all services, in words that each of their clients takes', async () => {
  const { status, body } = await lab.call({ url: '/' }, undefined)
  assert.equal(status, 200)
  const versions = body.versions as { id: string; status: string; links: { href: string }[] }[]
  assert.deepEqual(
    versions.map(({ id, status: word }) => [id, word]),
    [
      ['v3.14', 'CURRENT'],
      ['v1', 'CURRENT'],
      ['v2.0', 'CURRENT'],
    ],
  )
  const answer = {
    method: 'GET',
    path: '/',
    status,
    headers: { 'content-type': 'application/json' },
  }
  assertContract('sdrs', { ...answer, text: JSON.stringify(body) })
  assert.equal(versions[0]?.links[0]?.href, 'http://127.0.0.1:7410/v3/')
})

test('version 3 is described without a token, with links to where the client came', async () => {
  for (const url of ['/v3', '/v3/']) {
    const { body } = await lab.call({ url, headers: { host: 'cloud.test:443' } }, 'iam')
    assert.equal(body.version.id, 'v3.14')
    assert.equal(body.version.links[0].href, 'http://cloud.test:443/v3/')
  }
  assert.equal((await lab.call({ url: '/v2.0' })).status, 404)
  assert.equal((await lab.call({ url: '/v3/regions' }, 'iam')).body.regions[0].id, REGION)
})

test('a password buys a token for a project, the domain, or nothing in particular', async () => {
  const { user: name, password, project_id, project_name, domain } = lab.admin
  const issue = async (scope?: unknown) => {
    const body = lab.loginBody({ name, password }, scope)
    const reply = await lab.call({ method: 'POST', url: TOKENS, body }, 'iam')
    assert.equal(reply.status, 201)
    return reply.body.token
  }
  const project = { id: project_id }
  for (const scope of [
    { project },
    { project: { name: project_name, domain: { name: domain } } },
    { project: { name: project_name } },
    { project, domain: null },
    undefined,
  ]) {
    const token = await issue(scope)
    assert.equal(token.project.id, project_id)
    assert.equal(token.project.domain.name, domain)
    assert.match(token.expires_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/)
    const urls = token.catalog.map((entry: { type: string; endpoints: { url: string }[] }) => [
      entry.type,
      entry.endpoints.map(({ url }) => url).join(),
    ])
    const base = 'http://127.0.0.1:7410'
    assert.deepEqual(Object.fromEntries(urls), {
      identity: `${base}/v3`,
      sdrs: `${base}/v1/${project_id}`,
      'data-protect': `${base}/v1/${project_id}`,
      volumev2: `${base}/v2/${project_id}`,
      volumev3: `${base}/v3/${project_id}`,
      compute: `${base}/v2.1/${project_id}`,
      ecs: `${base}/v1/${project_id}`,
      image: `${base}/image`,
      network: base,
      vpc: `${base}/v1/${project_id}`,
    })
    for (const { endpoints } of token.catalog) {
      assert.equal(endpoints[0].region, REGION)
      assert.equal(endpoints[0].region_id, REGION)
    }
    assert.deepEqual(
      token.roles.map((role: { name: string }) => role.name),
      ['admin', 'operator', 'reader'],
    )
  }
  const ofDomain = await issue({ domain: { name: domain } })
  assert.equal(ofDomain.domain.name, domain)
  assert.equal(ofDomain.project, undefined)
  for (const scope of ['unscoped', { unscoped: {} }]) {
    const unscoped = await issue(scope)
    assert.deepEqual(
      [unscoped.project, unscoped.domain, unscoped.catalog],
      [undefined, undefined, undefined],
    )
  }
  const body = lab.loginBody({ name, password }, { project })
  const bare = await lab.call({ method: 'POST', url: `${TOKENS}?nocatalog`, body }, 'iam')
  assert.equal(bare.body.token.catalog, undefined)
})

test('a user may be named by id, and unknown members of the request are ignored', async () => {
  const { user, password, project_id } = lab.admin
  const token = await lab.adminToken()
  const shown = await lab.call(
    { url: TOKENS, headers: { ...as(token), 'x-subject-token': token } },
    'iam',
  )
  assert.equal(shown.headers['x-subject-token'], token)
  const { id } = shown.body.token.user
  const reply = await lab.call(
    {
      method: 'POST',
      url: `${TOKENS}/`,
      headers: { 'x-domain-id': 'whatever', 'content-type': 'application/json;charset=UTF-8' },
      body: {
        auth: {
          identity: {
            methods: ['password'],
            password: { user: { id, name: user, password, domain: null, extra: 1 } },
            token: null,
          },
          scope: { project: { id: project_id, name: null, more: [] } },
          ignored: true,
        },
      },
    },
    undefined,
  )
  assert.equal(reply.status, 201)
})

test('what is wrong, absent or not offered is 401; what cannot be understood is 400', async () => {
  const { user: name, password, domain, project_id } = lab.admin
  const whole = { name, password, domain: { name: domain } }
  const withUser = (user: unknown, scope?: unknown) => ({
    auth: {
      identity: { methods: ['password'], password: { user } },
      ...(scope === undefined ? {} : { scope }),
    },
  })
  const strange = await lab.project('strange')
  await lab.identity.management.createUser(await lab.domain(), {
    name: 'nobody-special',
    password: 'eight characters',
    defaultProject: null,
  })
  const plain = { ...whole, name: 'nobody-special', password: 'eight characters' }
  const cases: [number, unknown][] = [
    [401, withUser({ ...whole, password: 'wrong' })],
    [401, withUser({ ...whole, name: 'who' })],
    [401, withUser({ ...whole, domain: { name: 'where' } })],
    [401, withUser({ id: 'no such id', password })],
    [401, withUser(whole, { project: { id: 'f'.repeat(32) } })],
    [401, withUser(whole, { project: { name: 'nowhere' } })],
    [401, withUser(whole, { system: { all: true } })],
    [401, withUser(plain, { project: { id: strange } })],
    [401, withUser(plain, { domain: { name: domain } })],
    [401, { auth: { identity: { methods: ['totp'], totp: {} } } }],
    [401, { auth: { identity: { methods: ['token'], token: { id: 'hf-unknown' } } } }],
    [401, { auth: { identity: { methods: ['token'], token: { id: 'x'.repeat(1_000) } } } }],
    [400, withUser({ name, password })],
    [400, withUser({ password })],
    [400, withUser({ name, domain: { name: domain } })],
    [400, withUser({ ...whole, password: 5 })],
    [400, withUser(whole, { project: { id: project_id }, domain: { name: domain } })],
    [400, withUser(whole, { project: {} })],
    [400, withUser(whole, 'everything')],
    [400, { auth: { identity: { methods: [] } } }],
    [400, { auth: { identity: { methods: ['password'] } } }],
    [400, { auth: { identity: { methods: 'password' } } }],
    [400, { auth: {} }],
    [400, []],
  ]
  for (const [status, body] of cases) {
    const reply = await lab.call({ method: 'POST', url: TOKENS, body }, 'iam')
    assert.equal(reply.status, status, JSON.stringify(body))
    assert.equal(reply.body.error.code, status)
    assert.equal(reply.headers['x-subject-token'], undefined)
    assert.doesNotMatch(reply.text, new RegExp(password))
  }
})

test('a token can be exchanged for one of another scope, which ends no later and ends with it', async () => {
  const { user: name, password, project_id: id } = lab.admin
  const first = await lab.login({ name, password }, 'unscoped')
  assert.ok(first !== null)
  const exchange = async (token: string) =>
    await lab.call(
      {
        method: 'POST',
        url: TOKENS,
        body: {
          auth: {
            identity: { methods: ['token'], token: { id: token } },
            scope: { project: { id } },
          },
        },
      },
      'iam',
    )
  lab.clock.advance(60_000)
  const second = await exchange(first)
  const scoped = String(second.headers['x-subject-token'])
  assert.deepEqual(second.body.token.methods, ['token', 'password'])
  const third = String((await exchange(scoped)).headers['x-subject-token'])
  const about = (token: string, subject: string, method: 'GET' | 'HEAD' | 'DELETE' = 'GET') =>
    lab.call({ method, url: TOKENS, headers: { ...as(token), 'x-subject-token': subject } }, 'iam')
  const expiry = (await about(first, first)).body.token.expires_at
  assert.equal(second.body.token.expires_at, expiry)
  assert.equal((await about(third, first, 'HEAD')).status, 200)
  assert.equal((await about(scoped, first, 'DELETE')).status, 204)
  for (const token of [first, scoped, third]) {
    assert.equal(
      (await lab.call({ url: `/v1/${id}/server-groups`, headers: as(token) })).status,
      401,
    )
    assert.equal((await exchange(token)).status, 401)
  }
})

test('a token may be examined by its user and by administrators, and by nobody else', async () => {
  const { project_id } = lab.admin
  const admin = await lab.adminToken()
  const reader = await lab.userWith('reader', project_id)
  const other = await lab.userWith('reader', project_id)
  const look = async (token: string, subject?: string) =>
    (
      await lab.call(
        {
          url: TOKENS,
          headers: {
            ...as(token),
            ...(subject === undefined ? {} : { 'x-subject-token': subject }),
          },
        },
        'iam',
      )
    ).status
  assert.equal(await look(reader.token, reader.token), 200)
  assert.equal(await look(admin, reader.token), 200)
  assert.equal(await look(other.token, reader.token), 404)
  assert.equal(await look(reader.token, admin), 404)
  assert.equal(await look(admin, 'hf-unknown'), 404)
  assert.equal(await look(admin), 400)
  assert.equal(await look('hf-unknown', admin), 401)
  const revoke = { method: 'DELETE', url: TOKENS } as const
  const headers = { ...as(other.token), 'x-subject-token': reader.token }
  assert.equal((await lab.call({ ...revoke, headers }, 'iam')).status, 404)
  assert.equal(await look(reader.token, reader.token), 200)
})

test('a token ends with its time, its password, its user, and its role', async () => {
  const { project_id } = lab.admin
  const domain = await lab.domain()
  const { management } = lab.identity
  const works = async (token: string) => {
    const url = `/v1/${project_id}/server-groups`
    const { status } = await lab.call({ url, headers: as(token) }, 'sdrs')
    assert.ok([200, 401].includes(status))
    return status === 200
  }
  const renamed = await lab.userWith('reader', project_id)
  assert.equal(await works(renamed.token), true)
  await management.setPassword(domain, renamed.id, 'another password')
  assert.equal(await works(renamed.token), false)

  const disabled = await lab.userWith('reader', project_id)
  await management.enableUser(domain, disabled.id, false)
  assert.equal(await works(disabled.token), false)
  assert.equal(await lab.login(disabled), null)
  await management.enableUser(domain, disabled.id, true)
  assert.equal(await works(disabled.token), false)
  assert.notEqual(await lab.login(disabled), null)

  const demoted = await lab.userWith('operator', project_id)
  await management.revoke(domain, demoted.id, 'project', project_id)
  assert.equal(await works(demoted.token), false)

  const deleted = await lab.userWith('reader', project_id)
  await management.deleteUser(domain, deleted.id)
  assert.equal(await works(deleted.token), false)

  const old = await lab.userWith('reader', project_id)
  lab.clock.advance(24 * 3_600_000 - 10_000)
  assert.equal(await works(old.token), true)
  lab.clock.advance(20_000)
  assert.equal(await works(old.token), false)
})

test('guessing is stopped after five wrong passwords, for the guesser and not for others', async () => {
  const user = await lab.userWith('reader', lab.admin.project_id)
  const body = (password: string) => lab.loginBody({ name: user.name, password })
  const attempt = async (password: string, remoteAddress = '10.0.0.1') =>
    await lab.app.inject({
      method: 'POST',
      url: TOKENS,
      payload: body(password) as object,
      remoteAddress,
    })
  for (let guess = 0; guess < 5; guess++) {
    assert.equal((await attempt(`wrong ${guess}`)).headers['retry-after'], undefined)
  }
  const locked = await attempt(user.password)
  assert.equal(locked.statusCode, 401)
  assert.equal(locked.headers['retry-after'], '300')
  assert.equal((await attempt(user.password, '10.0.0.2')).statusCode, 201)
  lab.clock.advance(301_000)
  assert.equal((await attempt(user.password)).statusCode, 201)

  // Side by side: the right guess among too many is not told.
  const many = await Promise.all(
    [...Array.from({ length: 12 }, (_, at) => `guess ${at}`), user.password].map((guess) =>
      attempt(guess, '10.0.0.3'),
    ),
  )
  assert.deepEqual([...new Set(many.map(({ statusCode }) => statusCode))], [401])
})

test('failed and successful logins are in the audit log, without anything secret', async () => {
  const { user: name, password } = lab.admin
  await lab.login({ name, password: 'a wrong password' })
  await lab.login({ name, password })
  const rows = await lab.store.db
    .selectFrom('audit')
    .selectAll()
    .where('action', '=', 'token.issue')
    .orderBy('at', 'desc')
    .limit(2)
    .execute()
  assert.deepEqual(new Set(rows.map(({ result }) => result)), new Set([201, 401]))
  const text = JSON.stringify(await lab.store.db.selectFrom('audit').selectAll().execute())
  assert.ok(!text.includes(password) && !text.includes('a wrong password'))
  // In full length: ids in the log are random text, too, and three characters of a token are soon found in them.
  assert.doesNotMatch(text, /hf-[\w-]{43}/)
})

test('projects, domains and the catalogue show what the caller may see', async () => {
  const admin = as(await lab.adminToken())
  const other = await lab.project('elsewhere')
  const reader = await lab.userWith('reader', other)
  const ids = (reply: { body: { projects: { id: string }[] } }) =>
    reply.body.projects.map(({ id }) => id)
  const list = async (query: string, headers: Record<string, string>) =>
    ids(await lab.call({ url: `/v3/projects${query}`, headers }, 'iam'))

  assert.deepEqual(await list(`?name=${REGION}`, admin), [lab.admin.project_id])
  assert.deepEqual(await list('?name=local', admin), [])
  assert.ok((await list('', admin)).includes(other))
  assert.deepEqual(await list('?is_domain=true', admin), [])
  assert.deepEqual(await list('?enabled=false', admin), [])
  assert.equal((await list('?page=1&per_page=1', admin)).length, 1)
  assert.deepEqual(await list('', as(reader.token)), [other])
  assert.deepEqual(await list(`?name=${REGION}`, as(reader.token)), [])
  assert.equal((await lab.call({ url: '/v3/projects?page=x', headers: admin }, 'iam')).status, 400)

  const own = await lab.call({ url: '/v3/auth/projects', headers: as(reader.token) }, 'iam')
  assert.deepEqual(ids(own), [other])
  const show = async (id: string, headers: Record<string, string>) =>
    (await lab.call({ url: `/v3/projects/${id}`, headers }, 'iam')).status
  assert.equal(await show(other, admin), 200)
  assert.equal(await show(other, as(reader.token)), 200)
  assert.equal(await show(lab.admin.project_id, as(reader.token)), 404)
  assert.equal(await show(REGION, admin), 404)

  const { domain } = lab.admin
  for (const [name, count] of [
    [domain, 1],
    ['other', 0],
  ]) {
    const found = await lab.call({ url: `/v3/auth/domains?name=${name}`, headers: admin }, 'iam')
    assert.equal(found.body.domains.length, count)
  }
  const catalogue = await lab.call({ url: '/v3/auth/catalog', headers: as(reader.token) }, 'iam')
  assert.match(JSON.stringify(catalogue.body.catalog), new RegExp(`/v1/${other}"`))
  const unscoped = await lab.login(reader, 'unscoped')
  assert.ok(unscoped !== null)
  assert.equal(
    (await lab.call({ url: '/v3/auth/catalog', headers: as(unscoped) }, 'iam')).status,
    403,
  )
  assert.deepEqual(
    ids(await lab.call({ url: '/v3/auth/projects', headers: as(unscoped) }, 'iam')),
    [other],
  )
})

test('projects are made by administrators of the domain only, and their names are unique', async () => {
  const create = async (token: string, name: unknown) =>
    (
      await lab.call(
        { method: 'POST', url: '/v3/projects', headers: as(token), body: { project: { name } } },
        'iam',
      )
    ).status
  const admin = await lab.adminToken()
  const ofProject = await lab.userWith('admin', lab.admin.project_id)
  assert.equal(await create(admin, `${REGION}_made`), 201)
  assert.equal(await create(admin, `${REGION}_made`), 409)
  assert.equal(await create(admin, ' '), 400)
  assert.equal(await create(admin, 7), 400)
  assert.equal(await create(ofProject.token, `${REGION}_mine`), 403)
})

test('every operation of the contract was called above', async () => {
  const token = as(await lab.adminToken())
  await lab.call({ url: '/v3/auth/catalog', headers: token }, 'iam')
  const called = [...(exercised.get('iam') ?? [])].map((one) =>
    one.split(' ').slice(0, 2).join(' '),
  )
  const missing = operationsOf('iam')
    .map(({ method, path }) => `${method} ${path}`)
    .filter((one) => !called.includes(one))
  // The root answers in the form of the disaster recovery service, and version 2 belongs to the volume service.
  assert.deepEqual(missing, ['GET /', 'GET /v2'])
})
