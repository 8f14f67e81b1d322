import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { ApiSession, type Fetch, type FetchInit } from './api.ts'
import { parseCredentials } from './credentials.ts'
import { API_REFUSED, API_UNAUTHORIZED, API_UNREACHABLE, JOB_FAILED, TIMED_OUT } from './faults.ts'
import { allPages } from './pages.ts'
import { type SdrsJob, waitForJob } from './sdrs.ts'

const LOGIN = {
  url: 'http://127.0.0.1:1',
  domain: 'd',
  user: 'u',
  password: 'secret',
  projectId: 'p1',
}

interface Call {
  readonly method: string
  readonly path: string
  readonly init: FetchInit
}

/** A server as a function; it records the calls, and answers logins by itself with token-1, token-2 ... */
function fake(answer: (call: Call) => { status: number; body?: unknown }): {
  fetch: Fetch
  calls: Call[]
} {
  const calls: Call[] = []
  let logins = 0
  const fetch: Fetch = async (url, init) => {
    const call = { method: init.method, path: url.slice(LOGIN.url.length), init }
    calls.push(call)
    const headers = new Map<string, string>()
    let reply = answer(call)
    if (call.path === '/v3/auth/tokens' && reply.status === 200) {
      headers.set('x-subject-token', `token-${++logins}`)
      reply = { status: 201, body: { token: { project: { id: 'p1' } } } }
    }
    return await Promise.resolve({
      status: reply.status,
      headers: { get: (name: string) => headers.get(name) ?? null },
      text: () => Promise.resolve(reply.body === undefined ? '' : JSON.stringify(reply.body)),
    })
  }
  return { fetch, calls }
}

test('a session logs in once, for its project, and puts the project into paths', async () => {
  const { fetch, calls } = fake(() => ({ status: 200, body: { ok: true } }))
  const api = new ApiSession(LOGIN, fetch)
  assert.deepEqual(await api.get('/v1/{project}/things'), { ok: true })
  await api.post('/v1/{project}/things', { a: 1 })
  assert.deepEqual(
    calls.map(({ method, path }) => `${method} ${path}`),
    ['POST /v3/auth/tokens', 'GET /v1/p1/things', 'POST /v1/p1/things'],
  )
  const login = JSON.parse(calls[0]?.init.body ?? '') as { auth: { scope: unknown } }
  assert.deepEqual(login.auth.scope, { project: { id: 'p1' } })
  assert.equal(calls[2]?.init.headers['X-Auth-Token'], 'token-1')
  assert.equal(calls[2]?.init.body, '{"a":1}')
})

test('a token that has ended is replaced once; a second refusal is final', async () => {
  let refusals = 1
  const { fetch, calls } = fake(({ path }) =>
    path === '/x' && refusals-- > 0 ? { status: 401 } : { status: 200, body: {} },
  )
  await new ApiSession(LOGIN, fetch).get('/x')
  assert.equal(calls.filter(({ path }) => path === '/v3/auth/tokens').length, 2)
  assert.equal(calls.at(-1)?.init.headers['X-Auth-Token'], 'token-2')

  refusals = 2
  await assert.rejects(new ApiSession(LOGIN, fetch).get('/x'), (error) =>
    isFault(error, API_UNAUTHORIZED),
  )
})

test('a list is read page by page to its end', async () => {
  const all = Array.from({ length: 2_000 }, (_, index) => ({ id: `i${index}` }))
  const { fetch, calls } = fake(({ path }) => {
    const query = new URL(path, 'http://x').searchParams
    const at = all.findIndex(({ id }) => id === query.get('marker')) + 1
    return { status: 200, body: { things: all.slice(at, at + Number(query.get('limit'))) } }
  })
  const filter = [
    ['group', 'a b'],
    ['plan', undefined],
  ] as const
  assert.deepEqual(await allPages(new ApiSession(LOGIN, fetch), '/things', 'things', filter), all)
  assert.deepEqual(
    calls.slice(1).map(({ path }) => path),
    ['', '&marker=i999', '&marker=i1999'].map((end) => `/things?limit=1000&group=a+b${end}`),
  )
})

test('the code and words of a refusal are told in every dialect', async () => {
  const bodies = [
    { error: { code: 'SDRS.1013', message: 'absent' } },
    { itemNotFound: { code: 'SDRS.1013', message: 'absent' } },
    { error_code: 'SDRS.1013', error_msg: 'absent' },
  ]
  for (const body of bodies) {
    const { fetch } = fake(({ path }) => (path === '/x' ? { status: 404, body } : { status: 200 }))
    await assert.rejects(new ApiSession(LOGIN, fetch).get('/x'), (error) => {
      assert.ok(isFault(error, API_REFUSED))
      assert.match(error.message, /GET \/x was answered with 404 SDRS\.1013: absent/)
      assert.equal(error.detail['status'], 404)
      assert.equal(error.detail['code'], 'SDRS.1013')
      return true
    })
  }
})

test('where a refusal says what to do next, that is the end of what is told', async () => {
  const body = { error: { code: 'FORCE_NEEDED', message: 'All is lost.', hint: 'Wait a while.' } }
  const { fetch } = fake(({ path }) => (path === '/x' ? { status: 409, body } : { status: 200 }))
  await assert.rejects(new ApiSession(LOGIN, fetch).post('/x', {}), (error) => {
    assert.ok(isFault(error, API_REFUSED))
    assert.match(error.message, /with 409 FORCE_NEEDED: All is lost\. .* Wait a while\.$/)
    assert.doesNotMatch(error.message, /documentation/)
    return true
  })
})

test('a code and a hint that the words of a refusal repeat are told once', async () => {
  const message = 'BROKEN: reading the snapshot. It is broken. Delete it.'
  const body = { error: { code: 'BROKEN', message, hint: 'Delete it.' } }
  const { fetch } = fake(({ path }) => (path === '/x' ? { status: 409, body } : { status: 200 }))
  await assert.rejects(new ApiSession(LOGIN, fetch).get('/x'), (error) => {
    assert.ok(isFault(error, API_REFUSED))
    assert.match(error.message, /with 409 BROKEN: reading the snapshot\. It is broken\. /)
    assert.equal(error.message.split('Delete it.').length, 2)
    return true
  })
})

test('a server that cannot be reached is named, and the password is not', async () => {
  const fetch: Fetch = () =>
    Promise.reject(new TypeError('fetch failed', { cause: new Error('connect ECONNREFUSED') }))
  await assert.rejects(new ApiSession(LOGIN, fetch).get('/x'), (error) => {
    assert.ok(isFault(error, API_UNREACHABLE))
    assert.match(error.message, /http:\/\/127\.0\.0\.1:1.*connect ECONNREFUSED/)
    assert.ok(!error.message.includes('secret'))
    return true
  })
})

/** Time that passes only when somebody waits. */
function quickClock(): { clock: Parameters<typeof waitForJob>[2]['clock']; nowMs: () => number } {
  let nowMs = 0
  const clock = {
    wallMs: () => nowMs,
    bootMs: () => nowMs,
    after(delayMs: number, fire: () => void) {
      nowMs += delayMs
      queueMicrotask(fire)
      return () => {}
    },
  }
  return { clock, nowMs: () => nowMs }
}

const job = (status: SdrsJob['status']): SdrsJob => ({
  job_id: 'j',
  job_type: 'createProtectionGroupNoCG',
  status,
  begin_time: null,
  end_time: null,
  error_code: status === 'FAIL' ? 'SDRS.1014' : null,
  fail_reason: status === 'FAIL' ? 'no space' : null,
  entities: {},
})

test('a job is awaited through a restart of the control plane', async () => {
  let asked = 0
  const { fetch } = fake(() => ({ status: 200, body: job(++asked > 5 ? 'SUCCESS' : 'RUNNING') }))
  const flaky: Fetch = (url, init) =>
    asked === 2 || asked === 3
      ? (asked++, Promise.reject(new Error('connection refused')))
      : fetch(url, init)
  const { clock } = quickClock()
  const ended = await waitForJob(new ApiSession(LOGIN, flaky), 'j', { clock, limitMs: 10_000 })
  assert.equal(ended.status, 'SUCCESS')
})

test('a failed job is a failure with its own reason, an endless one runs into the limit', async () => {
  const { clock, nowMs } = quickClock()
  const failed = fake(() => ({ status: 200, body: job('FAIL') }))
  await assert.rejects(
    waitForJob(new ApiSession(LOGIN, failed.fetch), 'j', { clock, limitMs: 1_000 }),
    (error) => isFault(error, JOB_FAILED) && /SDRS\.1014 no space/.test(error.message),
  )
  const running = fake(() => ({ status: 200, body: job('RUNNING') }))
  await assert.rejects(
    waitForJob(new ApiSession(LOGIN, running.fetch), 'j', { clock, limitMs: 1_000 }),
    (error) => isFault(error, TIMED_OUT),
  )
  assert.ok(nowMs() >= 1_000)
})

test('a credentials file is taken whole or not at all', () => {
  const one = Object.fromEntries(
    [
      'url',
      'domain',
      'user',
      'password',
      'project_id',
      'project_name',
      'region',
      'access_key',
      'secret_key',
    ].map((name) => [name, name]),
  )
  assert.deepEqual(parseCredentials(one)?.regions, [])
  assert.equal(parseCredentials({ ...one, regions: [one] })?.regions.length, 1)
  for (const wrong of [
    null,
    [],
    {},
    { ...one, user: 1 },
    { ...one, regions: [{}] },
    { ...one, ca: 1 },
  ]) {
    assert.equal(parseCredentials(wrong), undefined)
  }
})
