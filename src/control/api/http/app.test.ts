import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { after, test } from 'node:test'
import Type from 'typebox'
import type { Clock } from '#base/clock.ts'
import { createLog } from '#base/log.ts'
import type { Principal } from '#control/identity/principal.ts'
import { createApp } from './app.ts'
import type { AuditEntry } from './audit.ts'
import type { Api, Dialect } from './dialect.ts'
import { rateLimit } from './rate-limit.ts'
import { type CommonRefusal, COMMON_REFUSALS, Refusal } from './refusal.ts'
import { auditTarget, originOf, projectOf, requireRole } from './request.ts'
import { optional } from './validation.ts'

const clock: Clock = { wallMs: () => 1_700_000_000_000, bootMs: () => 5, after: () => () => {} }
const log = createLog('test', 'silent')

const STATUS: Record<CommonRefusal, number> = {
  unauthenticated: 401,
  foreign_project: 403,
  forbidden: 403,
  malformed_body: 400,
  invalid_input: 400,
  too_large: 413,
  unknown_path: 404,
  method_not_allowed: 405,
  too_many_requests: 429,
  unavailable: 503,
  internal: 500,
}

function dialect(name: string, prefixes: string[], mount: (app: Api) => void): Dialect {
  return {
    name,
    prefixes,
    common: Object.fromEntries(
      COMMON_REFUSALS.map((kind) => [kind, { status: STATUS[kind], code: `${name}.${kind}` }]),
    ) as Dialect['common'],
    envelope: (refusal) => ({ [name]: { code: refusal.code, message: refusal.message } }),
    mount,
  }
}

const things = dialect('things', ['/v1'], (app) => {
  const body = Type.Object({
    name: Type.String({ maxLength: 4 }),
    size: optional(Type.Integer()),
  })
  app.post(
    '/v1/:project_id/things',
    { schema: { body }, config: { audit: 'thing.create' } },
    async (request) => {
      auditTarget(request, 'thing-1')
      return { name: request.body.name, size: request.body.size ?? null, in: projectOf(request) }
    },
  )
  const querystring = Type.Object({ limit: Type.Optional(Type.Integer({ minimum: 0 })) })
  app.get('/v1/:project_id/things', { schema: { querystring } }, async (request) => ({
    limit: request.query.limit ?? null,
  }))
  app.delete(
    '/v1/:project_id/things/:id',
    {
      schema: { body: Type.Object({ flag: optional(Type.Boolean()) }) },
      config: { emptyBody: true },
    },
    async (request) => {
      if (request.body.flag === true) requireRole(request, 'admin')
      return { flag: request.body.flag ?? null }
    },
  )
  app.get('/v1/:project_id/broken', async () => {
    throw new TypeError('secret detail')
  })
  app.get('/v1/:project_id/refused', async () => {
    throw new Refusal(409, 'things.busy', 'It is busy.')
  })
})
const others = dialect('others', ['/', '/v1/deep'], (app) => {
  app.get('/', { config: { access: 'open' } }, async (request) => ({
    self: originOf(request, { publicUrl: 'https://public.test' }),
  }))
  app.get('/whoami', { config: { access: 'user' } }, async (request) => ({
    user: request.principal?.user.id,
  }))
})

const principal = (role: Principal['role']): Principal => ({
  user: { id: 'u', name: 'user' },
  domain: { id: 'd', name: 'domain' },
  project: { id: 'p1', name: 'one' },
  role,
  domainRole: null,
  by: 'token',
  accessKey: null,
})

const audited: AuditEntry[] = []
const app = createApp({
  clock,
  log,
  authenticator: {
    byToken: async (token) =>
      token === 'operator' || token === 'reader' || token === 'admin'
        ? principal(token)
        : { denied: 'The token is not known.', code: null },
    bySignature: async ({ body, projectInPath }) =>
      body.toString() === '{"name":"ab"}'
        ? {
            ...principal('operator'),
            by: 'signature',
            project: { id: projectInPath ?? 'p1', name: '' },
          }
        : { denied: 'The signature does not match.', code: 'APIGW.0301' },
  },
  audit: {
    write: async (entry) => {
      audited.push(entry)
    },
  },
  fallback: others,
  dialects: [things, others],
})
after(() => app.close())

const as = (token: string) => ({ 'x-auth-token': token })
const json = (token: string) => ({ ...as(token), 'content-type': 'application/json' })

test('without credentials every address is 401 in the envelope of its dialect, known or not', async () => {
  for (const [method, url, name] of [
    ['GET', '/v1/p1/things', 'things'],
    ['GET', '/v1/nothing/here', 'things'],
    ['PATCH', '/v1/p1/things', 'things'],
    ['GET', '/v1/deep/x', 'others'],
    ['GET', '/elsewhere', 'others'],
    ['GET', '/v1/%ff/things', 'things'],
    ['GET', '/v1/p1/things/%zz', 'things'],
  ] as const) {
    for (const headers of [{}, as('wrong')]) {
      const answer = await app.inject({ method, url, headers })
      assert.equal(answer.statusCode, 401, `${method} ${url}`)
      assert.equal(answer.json()[name].code, `${name}.unauthenticated`)
      assert.match(answer.headers['content-type'] as string, /^application\/json/)
      assert.equal(answer.headers['x-request-id'], answer.headers['x-openstack-request-id'])
      assert.match(answer.headers['x-request-id'] as string, /^req-/)
    }
  }
})

test('with credentials unknown addresses are 404 and unknown methods 405 with the methods there are', async () => {
  const headers = as('reader')
  const missing = await app.inject({ url: '/v1/p1/nothing', headers })
  assert.equal(missing.statusCode, 404)
  assert.equal(missing.json().things.code, 'things.unknown_path')
  assert.equal(
    (await app.inject({ url: '/v2/p1/nothing', headers })).json().others.code,
    'others.unknown_path',
  )
  const wrong = await app.inject({ method: 'PUT', url: '/v1/p1/things/', headers })
  assert.equal(wrong.statusCode, 405)
  assert.equal(wrong.headers['allow'], 'POST, GET')
  const broken = await app.inject({ url: '/v1/p1/%zz', headers })
  assert.equal(broken.statusCode, 404)
  assert.match(broken.headers['x-request-id'] as string, /^req-/)
})

test('a foreign project is refused, and so is a role that is too weak', async () => {
  const foreign = await app.inject({ url: '/v1/p2/things', headers: as('admin') })
  assert.equal(foreign.statusCode, 403)
  assert.equal(foreign.json().things.code, 'things.foreign_project')
  const weak = await app.inject({
    method: 'POST',
    url: '/v1/p1/things',
    headers: json('reader'),
    payload: '{"name":"ab"}',
  })
  assert.equal(weak.json().things.code, 'things.forbidden')
  const byBody = { method: 'DELETE', url: '/v1/p1/things/1', payload: '{"flag":true}' } as const
  assert.equal((await app.inject({ ...byBody, headers: json('operator') })).statusCode, 403)
  assert.equal((await app.inject({ ...byBody, headers: json('admin') })).statusCode, 200)
})

test('bodies are taken as real clients send them', async () => {
  for (const [type, payload] of [
    ['application/json', '{"name":"ab"}\n'],
    ['application/json;charset=UTF-8', ' {"name":"ab","size":null,"unknown":{"x":[]}}'],
    ['text/plain', '\ufeff{"name":"ab","__proto__":{"size":7}}'],
    [undefined, '{"name":"ab"}'],
  ] as const) {
    const answer = await app.inject({
      method: 'POST',
      url: '/v1/p1/things/',
      headers: { ...as('operator'), ...(type === undefined ? {} : { 'content-type': type }) },
      payload,
    })
    assert.deepEqual(answer.json(), { name: 'ab', size: null, in: 'p1' }, String(type))
  }
})

test('GET and DELETE may announce JSON and send nothing, or send something', async () => {
  const empty = { ...json('reader'), 'content-length': '0' }
  assert.equal((await app.inject({ url: '/v1/p1/things?limit=5', headers: empty })).json().limit, 5)
  const bare = await app.inject({ url: '/v1/p1/things', headers: json('reader') })
  assert.equal(bare.statusCode, 200)
  const url = '/v1/p1/things/1'
  for (const payload of [undefined, '', '{}', 'null', '{"flag":false}']) {
    const answer = await app.inject({
      method: 'DELETE',
      url,
      headers: json('operator'),
      ...(payload === undefined ? {} : { payload }),
    })
    assert.equal(answer.statusCode, 200, `payload ${payload}`)
  }
})

test('hostile bodies are refused before anything walks them', async () => {
  const post = async (payload: string | Buffer) =>
    await app.inject({ method: 'POST', url: '/v1/p1/things', headers: json('operator'), payload })
  const cases: [string | Buffer, string, number][] = [
    ['', 'invalid_input', 400],
    ['{', 'malformed_body', 400],
    ['{"name":"ab"} x', 'malformed_body', 400],
    [Buffer.from([0x7b, 0xff, 0x7d]), 'malformed_body', 400],
    ['['.repeat(100_000), 'malformed_body', 400],
    ['{"a":'.repeat(50_000), 'malformed_body', 400],
    ['{"name":"a\\u0000"}', 'malformed_body', 400],
    ['{"name":"a\\ud800"}', 'malformed_body', 400],
    ['[]', 'invalid_input', 400],
    ['"text"', 'invalid_input', 400],
    ['{"name":5}', 'invalid_input', 400],
    ['{"name":"abcde"}', 'invalid_input', 400],
    ['{"name":"ab","size":"5"}', 'invalid_input', 400],
    ['{"name":"ab","size":1.5}', 'invalid_input', 400],
    [`{"name":"${'x'.repeat(2_200_000)}"}`, 'too_large', 413],
  ]
  for (const [payload, kind, status] of cases) {
    const answer = await post(payload)
    const shown = payload.toString().slice(0, 40)
    assert.equal(answer.json().things.code, `things.${kind}`, shown)
    assert.equal(answer.statusCode, status, shown)
  }
  for (const url of ['/v1/p1/things?limit=x', '/v1/p1/things?limit=-1', '/v1/p1/things?a=%00']) {
    const answer = await app.inject({ url, headers: as('reader') })
    assert.equal(answer.json().things.code, 'things.invalid_input', url)
  }
})

test('a signature is checked over the bytes received, before they are understood', async () => {
  const headers = { authorization: 'SDK-HMAC-SHA256 Access=a, SignedHeaders=b, Signature=c' }
  const post = { method: 'POST', url: '/v1/p1/things', headers } as const
  assert.equal((await app.inject({ ...post, payload: '{"name":"ab"}' })).statusCode, 200)
  for (const payload of ['{"name": "ab"}', '{']) {
    const answer = await app.inject({ ...post, payload })
    assert.equal(answer.statusCode, 401)
    assert.equal(answer.json().things.code, 'APIGW.0301')
  }
  const unknown = await app.inject({ ...post, url: '/v1/p1/nothing', payload: '{"name":"ab"}' })
  assert.equal(unknown.statusCode, 404)
})

test('changes are in the audit log with their result, queries and strangers are not', async () => {
  audited.length = 0
  const post = { method: 'POST', url: '/v1/p1/things' } as const
  await app.inject({ ...post, headers: json('operator'), payload: '{"name":"ab"}' })
  await app.inject({ ...post, headers: json('operator'), payload: '{' })
  await app.inject({ ...post, headers: json('wrong'), payload: '{"name":"ab"}' })
  await app.inject({ url: '/v1/p1/things', headers: as('reader') })
  assert.deepEqual(
    audited.map(({ action, actor, project, target, result }) => ({
      action,
      actor,
      project,
      target,
      result,
    })),
    [
      { action: 'thing.create', actor: 'u', project: 'p1', target: 'thing-1', result: 200 },
      { action: 'thing.create', actor: 'u', project: 'p1', target: null, result: 400 },
    ],
  )
})

test('a mistake of ours says where to look and nothing more', async () => {
  const answer = await app.inject({ url: '/v1/p1/broken', headers: as('reader') })
  assert.equal(answer.statusCode, 500)
  assert.equal(answer.json().things.code, 'things.internal')
  assert.doesNotMatch(answer.body, /secret detail/)
  assert.equal((await app.inject({ url: '/v1/p1/refused', headers: as('reader') })).statusCode, 409)
})

test('links follow the Host header unless it is no host', async () => {
  const self = async (host: string) =>
    (await app.inject({ url: '/', headers: { host } })).json().self
  assert.equal(await self('10.0.0.7:7410'), 'https://10.0.0.7:7410')
  assert.equal(await self('[::1]:80'), 'https://[::1]:80')
  assert.equal(await self('evil"><script>'), 'https://public.test')
})

test('a caller that is too fast is told so, and gets its share back with time', () => {
  let nowMs = 0
  const limit = rateLimit({ ...clock, bootMs: () => nowMs }, { burst: 2, perSecond: 1 })
  assert.deepEqual(
    [limit.take('a'), limit.take('a'), limit.take('a'), limit.take('b')],
    [true, true, false, true],
  )
  nowMs = 1_000
  assert.deepEqual([limit.take('a'), limit.take('a')], [true, false])
})

test('a connection that speaks no HTTP gets a JSON answer and is closed; one that asks to close is', async () => {
  await app.listen({ host: '127.0.0.1', port: 0 })
  const address = app.server.address()
  assert.ok(typeof address === 'object' && address !== null)
  const speak = async (text: string) =>
    await new Promise<string>((resolve, reject) => {
      let heard = ''
      const socket = connect(address.port, '127.0.0.1', () => socket.write(text))
      socket.on('data', (bytes) => {
        heard += bytes.toString()
      })
      socket.on('close', () => resolve(heard))
      socket.on('error', reject)
    })
  assert.match(await speak('\x16\x03\x01 hello\r\n\r\n'), /^HTTP\/1\.1 400 .*\r\n\r\n\{"error"/s)
  const closing =
    'GET /whoami HTTP/1.1\r\nHost: x\r\nX-Auth-Token: reader\r\nConnection: close\r\n\r\n'
  assert.match(await speak(closing), /^HTTP\/1\.1 200 .*connection: close.*\{"user":"u"\}$/is)
})
