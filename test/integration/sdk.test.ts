/** Real clients against a listening server: the Node SDK signing its requests, requests as the Go clients sign them, and the
 *  `openstack` command. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash, createHmac } from 'node:crypto'
import { connect } from 'node:net'
import { after, before, test } from 'node:test'
import { BasicCredentials } from '@huaweicloud/huaweicloud-sdk-core/auth/BasicCredentials.js'
import { HcClient } from '@huaweicloud/huaweicloud-sdk-core/HcClient.js'
import { DefaultHttpClient } from '@huaweicloud/huaweicloud-sdk-core/http/DefaultHttpClient.js'
import { Region } from '@huaweicloud/huaweicloud-sdk-core/region/region.js'
import { ApiLab, REGION } from '../support/api.ts'

let lab: ApiLab
let origin: string
before(async () => {
  lab = await ApiLab.start()
  origin = await lab.listen()
})
after(async () => {
  await lab.stop()
})

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')

// ---------------------------------------------------------------- the Node SDK

interface SdkRequest {
  readonly method: string
  readonly url: string
  readonly queryParams?: unknown
  readonly data?: unknown
  readonly contentType?: string
}

const nothing = () => {}
/** The SDK would print every refusal. */
const SILENT = { debug: nothing, info: nothing, warn: nothing, error: nothing } as never

/** What every generated client of that SDK does with its requests. */
function nodeSdk(options: { readonly projectId?: string; readonly secret?: string } = {}) {
  const credential = new BasicCredentials()
    .withAk(lab.admin.access_key)
    .withSk(options.secret ?? lab.admin.secret_key)
    .withIamEndpoint(origin)
  // The package's own builder adds a user agent and needs a module that the package forgets to bring.
  const settings = { disableSslVerification: false, axiosRequestConfig: {}, logger: SILENT }
  const client = new HcClient(new DefaultHttpClient(settings, [origin]), settings)
    .withCredential(credential)
    .withEndpoints([origin])
  if (options.projectId === undefined) client.withRegion(new Region(REGION, origin))
  else credential.withProjectId(options.projectId)
  return async ({ method, url, queryParams, data, contentType }: SdkRequest) =>
    (await client.sendRequest({
      method,
      url,
      contentType: contentType ?? 'application/json',
      queryParams: queryParams ?? {},
      pathParams: {},
      headers: {},
      data: data ?? {},
    })) as unknown as Record<string, unknown>
}

test('the Node SDK signs reads, writes and deletions that are accepted', async () => {
  const send = nodeSdk({ projectId: lab.admin.project_id })
  const groups = await send({ method: 'GET', url: '/v1/{project_id}/server-groups' })
  assert.deepEqual(groups['server_groups'], [])
  const odd = await send({
    method: 'GET',
    url: '/v1/{project_id}/server-groups',
    queryParams: { limit: 2, name: "my pair/1*~(!')", Status: 'x' },
  })
  assert.equal(odd['count'], 0)
  const created = (await send({
    method: 'POST',
    url: '/v2/{project_id}/volumes',
    data: { volume: { name: 'sdk', size: 1, availability_zone: 'az1', description: null } },
  })) as { volume: { id: string }; httpStatusCode: number }
  assert.equal(created.httpStatusCode, 202)
  const url = `/v2/{project_id}/volumes/${created.volume.id}`
  assert.equal(
    ((await send({ method: 'GET', url })) as typeof created).volume.id,
    created.volume.id,
  )
})

test('the Node SDK finds its project by the name of the region', async () => {
  const send = nodeSdk()
  const quotas = await send({ method: 'GET', url: '/v1/{project_id}/sdrs/quotas' })
  assert.ok('quotas' in quotas)
})

test('the Node SDK reads codes, messages and request ids of refusals', async () => {
  const send = nodeSdk({ projectId: lab.admin.project_id })
  const refusal = async (request: SdkRequest, by = send) =>
    await by(request).then(
      () => assert.fail('was not refused'),
      (error: {
        httpStatusCode: number
        errorCode: string
        errorMsg: string
        requestId: string
      }) => {
        assert.notEqual(error.errorMsg, '')
        assert.match(error.requestId, /^req-/)
        return [error.httpStatusCode, error.errorCode]
      },
    )
  const group = '/v1/{project_id}/server-groups/0b5c2d5e-9d0a-4f57-8f7c-4a2f4c1f9a11'
  assert.deepEqual(await refusal({ method: 'GET', url: group }), [404, 'SDRS.1013'])
  const foreign = { method: 'GET', url: `/v1/${'f'.repeat(32)}/server-groups` }
  assert.deepEqual(await refusal(foreign), [403, 'SDRS.0001'])
  const [status, code] = await refusal(
    { method: 'GET', url: '/v3/auth/projects' },
    nodeSdk({ projectId: lab.admin.project_id, secret: 'wrong' }),
  )
  assert.equal(status, 401)
  assert.ok(['401', 401, 'APIGW.0301'].includes(code as string))
})

test('the Node SDK reads every list with its filters, and deletes failed tasks', async () => {
  const send = nodeSdk({ projectId: lab.admin.project_id })
  const ids = ['0b5c2d5e-9d0a-4f57-8f7c-4a2f4c1f9a11', '0b5c2d5e-9d0a-4f57-8f7c-4a2f4c1f9a12']
  for (const [path, queryParams, member] of [
    ['server-groups', { limit: 10, offset: 0, query_type: ' stop_protected' }, 'server_groups'],
    ['replications', { server_group_ids: ids, status: 'protected' }, 'replications'],
    ['protected-instances', { protected_instance_ids: ids, name: 'x' }, 'protected_instances'],
    ['disaster-recovery-drills', { limit: 10 }, 'disaster_recovery_drills'],
    ['task-center/failure-jobs', { failure_status: 'createFail', limit: 10 }, 'failure_jobs'],
    [
      'resource/rpo-statistics',
      { start_time: '2024-04-01 12:00:00.000', resource_type: 'replication' },
      'resource_rpo_statistics',
    ],
  ] as const) {
    const found = await send({ method: 'GET', url: `/v1/{project_id}/${path}`, queryParams })
    assert.deepEqual([found[member], found['count']], [[], 0], path)
  }
  for (const path of [
    'failure-jobs/batch',
    `${ids[0]}/failure-jobs/batch`,
    `failure-jobs/${ids[1]}`,
  ]) {
    const gone = await send({ method: 'DELETE', url: `/v1/{project_id}/task-center/${path}` })
    assert.equal(gone['httpStatusCode'], 204, path)
  }
})

// ---------------------------------------------------------------- as the Go clients sign

interface Signed {
  readonly method: string
  readonly path: string
  readonly body?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly form?: 'access' | 'credential'
  readonly key?: { readonly access_key: string; readonly secret_key: string }
  /** Milliseconds that the client's clock is ahead. */
  readonly aheadMs?: number
}

/** Signs after the published description, with nothing from the server's own code. */
function sign(request: Signed): Record<string, string> {
  const { method, path, body = '', form = 'access', key = lab.admin } = request
  const now = new Date(lab.clock.wallMs() + (request.aheadMs ?? 0))
  const date = now.toISOString().replaceAll(/[-:]|\.\d+/g, '')
  const headers: Record<string, string> = {
    accept: 'application/json',
    ...(body === '' ? {} : { 'content-type': 'application/json' }),
    ...(form === 'credential' ? { host: new URL(origin).host } : {}),
    'user-agent': 'golangsdk/2.0.0',
    'x-sdk-date': date,
  }
  const names = Object.keys(headers).join(';')
  const block = Object.entries(headers).map(([name, value]) => `${name}:${value}\n`)
  const canonical = [method, `${path}/`, '', block.join(''), names, sha256(body)].join('\n')
  const day = date.slice(0, 8)
  const hmac = (secret: string | Buffer, text: string) =>
    createHmac('sha256', secret).update(text).digest()
  const [credential, text, secret] =
    form === 'access'
      ? [
          `Access=${key.access_key}`,
          `SDK-HMAC-SHA256\n${date}\n${sha256(canonical)}`,
          key.secret_key,
        ]
      : [
          `Credential=${key.access_key}/${day}///sdk_request`,
          `SDK-HMAC-SHA256\n${date}\n${day}///sdk_request\n${sha256(canonical)}`,
          ['', '', 'sdk_request'].reduce(hmac, hmac(`SDK${key.secret_key}`, day)),
        ]
  const signature = hmac(secret, text).toString('hex')
  return {
    ...headers,
    ...request.headers,
    authorization: `SDK-HMAC-SHA256 ${credential}, SignedHeaders=${names}, Signature=${signature}`,
  }
}

async function send(request: Signed, headers = sign(request)) {
  const { method, path, body } = request
  const { host: _, ...rest } = headers
  const reply = await fetch(origin + path, {
    method,
    headers: rest,
    ...(body === undefined ? {} : { body }),
  })
  const text = await reply.text()
  return { status: reply.status, body: text === '' ? undefined : (JSON.parse(text) as never) }
}

/** How the volume service is documented to answer a foreign project. */
const FOREIGN = 400
const volumes = () => `/v2/${lab.admin.project_id}/volumes`
const NEW_VOLUME = '{"volume":{"name":"go","size":1,"availability_zone":"az1"}}\n'

test('both Go forms are accepted, with the project header unsigned or absent', async () => {
  for (const form of ['access', 'credential'] as const) {
    const headers = { 'x-project-id': lab.admin.project_id }
    const list = { method: 'GET', path: volumes(), form }
    assert.equal((await send({ ...list, headers })).status, 200, form)
    assert.equal((await send(list)).status, 200, form)
    const create = { method: 'POST', path: volumes(), form, body: NEW_VOLUME }
    assert.equal((await send(create)).status, 202, form)
    const byDomain = { ...list, path: '/v3/auth/catalog', headers: { 'x-domain-id': 'd' } }
    assert.equal((await send(byDomain)).status, 200, form)
  }
})

test('the login of a Go client by key: catalogue with the project expanded, projects by name, domains', async () => {
  const headers = { 'x-project-id': lab.admin.project_id }
  const catalogue = await send({ method: 'GET', path: '/v3/auth/catalog', headers })
  assert.match(JSON.stringify(catalogue.body), new RegExp(`/v1/${lab.admin.project_id}"`))
  const foreign = { 'x-project-id': 'f'.repeat(32) }
  assert.equal(
    (await send({ method: 'GET', path: '/v3/auth/catalog', headers: foreign })).status,
    403,
  )
})

test('a connection is closed when the client asks for it, after a body that ends in a line break', async () => {
  const body = NEW_VOLUME.replace('go', 'closing')
  const request = { method: 'POST', path: volumes(), body, form: 'credential' } as const
  const { hostname, port } = new URL(origin)
  const headers = Object.entries(sign(request)).map(([name, value]) => `${name}: ${value}\r\n`)
  const wire = `POST ${volumes()} HTTP/1.1\r\n${headers.join('')}content-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`
  const answer = await new Promise<string>((resolve, reject) => {
    let heard = ''
    const socket = connect(Number(port), hostname, () => socket.write(wire))
    socket.on('data', (bytes) => {
      heard += bytes.toString()
    })
    socket.on('close', () => resolve(heard))
    socket.on('error', reject)
  })
  assert.match(answer, /^HTTP\/1\.1 202 .*connection: close/is)
})

test('a changing request counts once: its signature is refused when it comes again', async () => {
  const create = { method: 'POST', path: volumes(), body: NEW_VOLUME.replace('go', 'once') }
  const headers = sign(create)
  assert.equal((await send(create, headers)).status, 202)
  const again = await send(create, headers)
  assert.equal(again.status, 401)
  assert.match(JSON.stringify(again.body), /used before/)
  const list = { method: 'GET', path: volumes() }
  const reading = sign(list)
  assert.equal((await send(list, reading)).status, 200)
  assert.equal((await send(list, reading)).status, 200)
})

test('a clock may be minutes off and not more; a changed body or an unsigned date is found', async () => {
  const list = { method: 'GET', path: volumes() }
  for (const [minutes, status] of [
    [14, 200],
    [-14, 200],
    [16, 401],
    [-60, 401],
  ] as const) {
    const reply = await send({ ...list, aheadMs: minutes * 60_000 })
    assert.equal(reply.status, status, `${minutes} minutes`)
    if (status === 401) assert.match(JSON.stringify(reply.body), /APIGW\.0303/)
  }
  const create = { method: 'POST', path: volumes(), body: NEW_VOLUME }
  const changed = await send({ ...create, body: NEW_VOLUME.replace('1', '9') }, sign(create))
  assert.equal(changed.status, 401)
  assert.match(JSON.stringify(changed.body), /APIGW\.0301/)
  const headers = sign(list)
  for (const authorization of [
    headers['authorization']?.replace(';x-sdk-date', '') ?? '',
    'SDK-HMAC-SHA256 Access=x',
    'V11-HMAC-SHA256 Credential=a/20240102/r/s, SignedHeaders=host, Signature=00',
    'AWS4-HMAC-SHA256 Credential=a',
    'Basic dXNlcjpwYXNzd29yZA==',
  ]) {
    assert.equal((await send(list, { ...headers, authorization })).status, 401, authorization)
  }
  const { 'x-sdk-date': _, ...undated } = headers
  assert.equal((await send(list, undated)).status, 401)
})

test('a key acts for its user, in its own project if it has one, and no longer than the user', async () => {
  const domain = await lab.domain()
  const other = await lab.project(`${REGION}_other`)
  const user = await lab.userWith('operator', lab.admin.project_id)
  const { management } = lab.identity
  await management.grant(domain, user.id, 'project', other, 'reader')
  const make = async (project: string | null) => {
    const { key, secret } = await management.createAccessKey(domain, user.id, {
      project,
      description: '',
    })
    return { access_key: key.id, secret_key: secret }
  }
  const wide = await make(null)
  const narrow = await make(other)
  const list = async (key: typeof wide, project: string) =>
    (await send({ method: 'GET', path: `/v2/${project}/volumes`, key })).status
  assert.equal(await list(wide, lab.admin.project_id), 200)
  assert.equal(await list(wide, other), 200)
  assert.equal(await list(narrow, other), 200)
  assert.equal(await list(narrow, lab.admin.project_id), FOREIGN)
  assert.equal(await list(wide, 'f'.repeat(32)), FOREIGN)
  const elsewhere = { 'x-project-id': other }
  const mixed = { method: 'GET', path: volumes(), key: wide, headers: elsewhere }
  assert.equal((await send(mixed)).status, FOREIGN)
  const create = { method: 'POST', path: `/v2/${other}/volumes`, body: NEW_VOLUME, key: wide }
  assert.equal((await send(create)).status, 403)
  await management.enableUser(domain, user.id, false)
  assert.equal(await list(wide, other), 401)
  await management.enableUser(domain, user.id, true)
  assert.equal(await list(wide, other), 200)
  await management.deleteAccessKey(domain, user.id, wide.access_key)
  assert.equal(await list(wide, other), 401)
})

test('five wrong signatures lock a key for five minutes', async () => {
  const domain = await lab.domain()
  const user = await lab.userWith('reader', lab.admin.project_id)
  const { key, secret } = await lab.identity.management.createAccessKey(domain, user.id, {
    project: null,
    description: '',
  })
  const list = async (secret_key: string) =>
    await send({
      method: 'GET',
      path: volumes(),
      key: { access_key: key.id, secret_key },
    })
  for (let wrong = 0; wrong < 5; wrong++) assert.equal((await list('wrong')).status, 401)
  const locked = await list(secret)
  assert.equal(locked.status, 401)
  assert.match(JSON.stringify(locked.body), /Too many wrong signatures/)
  lab.clock.advance(301_000)
  assert.equal((await list(secret)).status, 200)
})

// ---------------------------------------------------------------- keystoneauth and the openstack command

async function run(command: string, args: readonly string[], env: Record<string, string>) {
  const child = spawn(command, args, {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const [out, err] = [child.stdout, child.stderr].map(async (stream) => {
    let text = ''
    for await (const chunk of stream) text += String(chunk)
    return text
  })
  const code = await new Promise<number | string>((resolve) => {
    child.on('close', (status) => resolve(status ?? -1))
    child.on('error', (error) => resolve(error.message))
  })
  return { code, out: (await out) ?? '', err: (await err) ?? '' }
}

const cloud = (extra: Record<string, string> = {}) => ({
  OS_AUTH_URL: `${origin}/v3`,
  OS_USERNAME: lab.admin.user,
  OS_PASSWORD: lab.admin.password,
  OS_PROJECT_NAME: lab.admin.project_name,
  OS_USER_DOMAIN_NAME: lab.admin.domain,
  OS_PROJECT_DOMAIN_NAME: lab.admin.domain,
  OS_REGION_NAME: REGION,
  OS_IDENTITY_API_VERSION: '3',
  ...extra,
})

test('the openstack command logs in, shows the catalogue and projects, and manages volumes', async (t) => {
  const openstack = async (args: string, extra?: Record<string, string>) => {
    const { code, out, err } = await run(
      'openstack',
      [...args.split(' '), '-f', 'json'],
      cloud(extra),
    )
    assert.equal(code, 0, `openstack ${args}: ${err}`)
    return JSON.parse(out) as never
  }
  const version = await run('openstack', ['--version'], {})
  if (version.code !== 0)
    return t.skip('openstack is not installed: apt-get install python3-openstackclient')

  const token = (await openstack('token issue')) as { project_id: string; expires: string }
  assert.equal(token.project_id, lab.admin.project_id)
  // With an address that names no version the list at the root decides.
  const bare = (await openstack('token issue', { OS_AUTH_URL: origin })) as typeof token
  assert.equal(bare.project_id, lab.admin.project_id)
  const catalogue = (await openstack('catalog list')) as { Type: string }[]
  assert.ok(catalogue.some(({ Type }) => Type === 'sdrs'))
  const projects = (await openstack('project list')) as { ID: string }[]
  assert.ok(projects.some(({ ID }) => ID === lab.admin.project_id))
  const shown = (await openstack(`project show ${REGION}`)) as { id: string }
  assert.equal(shown.id, lab.admin.project_id)
  const volume = (await openstack('volume create --size 1 --availability-zone az1 from-cli')) as {
    id: string
  }
  const list = (await openstack('volume list')) as { ID: string; Name: string }[]
  assert.ok(list.some(({ ID, Name }) => ID === volume.id && Name === 'from-cli'))
})

const PYTHON = `
import json, sys
import openstack
conn = openstack.connect()
made = conn.block_storage.create_volume(name='from-sdk', size=1, availability_zone='az1')
print(json.dumps({
  'project': conn.current_project_id,
  'volumes': [v.name for v in conn.block_storage.volumes(details=True)],
  'found': conn.block_storage.find_volume('from-sdk').id == made.id,
  'missing': conn.block_storage.find_volume('no such volume'),
  'groups': conn.session.get('/server-groups', endpoint_filter={'service_type': 'sdrs', 'region_name': '${REGION}'}).json(),
  'projects': [p.name for p in conn.identity.projects()],
}))
`

test('openstacksdk finds the services through the catalogue and discovery', async (t) => {
  const present = await run('/usr/bin/python3', ['-c', 'import openstack'], {})
  if (present.code !== 0)
    return t.skip('openstacksdk is not installed: apt-get install python3-openstackclient')
  const { code, out, err } = await run('/usr/bin/python3', ['-c', PYTHON], cloud())
  assert.equal(code, 0, err)
  const seen = JSON.parse(out) as Record<string, unknown>
  assert.equal(seen['project'], lab.admin.project_id)
  assert.ok((seen['volumes'] as string[]).includes('from-sdk'))
  assert.equal(seen['found'], true)
  assert.equal(seen['missing'], null)
  assert.deepEqual(seen['groups'], { server_groups: [], count: 0 })
  assert.ok((seen['projects'] as string[]).includes(REGION))
})
