/** Every route of every dialect: nobody gets in without a credential, nobody into another project, nobody above their role. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { RouteEntry } from '#control/api/http/dialect.ts'
import { ApiLab, type Request } from '../support/api.ts'

let lab: ApiLab
let foreign: string
const tokens = { admin: '', operator: '', reader: '', unscoped: '', stranger: '' }

before(async () => {
  lab = await ApiLab.start()
  const { user: name, password, project_id } = lab.admin
  foreign = await lab.project('local-1_foreign')
  tokens.admin = await lab.adminToken()
  tokens.operator = (await lab.userWith('operator', project_id)).token
  tokens.reader = (await lab.userWith('reader', project_id)).token
  tokens.stranger = (await lab.userWith('admin', foreign)).token
  tokens.unscoped = (await lab.login({ name, password }, 'unscoped')) ?? ''
})
after(async () => {
  await lab.stop()
})

const ID = '0b5c2d5e-9d0a-4f57-8f7c-4a2f4c1f9a11'
/** Of a snapshot that the volume API could show. */
const NEUTRON_SUBNET = '0b5c2d5e-9d0a-4f57-8f7c-4a2f4c1f9a13'
const OF_ONE_DISK = '1b5c2d5e-9d0a-4f57-8f7c-4a2f4c1f9a11'
/** What a route is called with; some paths have parameters of a fixed set. */
const VALUES: Readonly<Record<string, string>> = { scope: 'project' }

function requestOf({ method, url }: RouteEntry, project: string, token: string | null): Request {
  const path = url.replaceAll(/:([a-z_]+)/g, (_, name: string) =>
    name === 'project_id' ? project : (VALUES[name] ?? ID),
  )
  return {
    method: method as 'GET',
    url: path,
    headers: token === null ? {} : { 'x-auth-token': token },
    ...(['POST', 'PUT', 'PATCH'].includes(method) ? { body: {} } : {}),
  }
}

const routes = (): readonly RouteEntry[] => lab.app.routeTable
const isOpen = ({ rules }: RouteEntry) => rules.access === 'open'
const isOfProject = ({ rules }: RouteEntry) => (rules.access ?? 'project') === 'project'
const isChanging = ({ method }: RouteEntry) => method !== 'GET' && method !== 'HEAD'

/** Everything a request could change. */
async function snapshot(): Promise<string> {
  const { db } = lab.store
  const tables = [
    'volumes',
    'protection_groups',
    'replication_pairs',
    'operations',
    'projects',
    'users',
    'role_grants',
    'access_keys',
    'tokens',
    'quotas',
    'dismissed_failures',
    'snapshots',
    'vpcs',
    'subnets',
    'ports',
    'security_groups',
    'security_group_rules',
    'tags',
    'servers',
    'server_disks',
    'keypairs',
    'tags',
    'ports',
  ] as const
  const rows = await Promise.all(tables.map((table) => db.selectFrom(table).selectAll().execute()))
  return JSON.stringify(rows)
}

test('the open routes are these and no others', () => {
  assert.deepEqual(
    routes()
      .filter(isOpen)
      .map(({ method, url }) => `${method} ${url}`)
      .toSorted(),
    [
      'GET /',
      'GET /api/v1/health',
      'GET /api/v1/metrics',
      'GET /api/v1/openapi.json',
      'GET /image',
      'GET /v1',
      'GET /v2',
      'GET /v2.0',
      'GET /v2.1',
      'GET /v3',
      'GET /v3/regions',
      'POST /v3/auth/tokens',
    ],
  )
})

test('every route that is not open refuses who has no token, or a wrong or empty one, with 401', async () => {
  const before = await snapshot()
  let checked = 0
  for (const route of routes().filter((one) => !isOpen(one))) {
    for (const token of [null, 'wrong', '']) {
      const reply = await lab.call(requestOf(route, lab.admin.project_id, token))
      assert.equal(reply.status, 401, `${route.method} ${route.url}`)
      if (route.method !== 'HEAD') assert.ok(reply.text.length > 2)
      checked++
    }
  }
  assert.ok(checked > 150, `only ${checked} requests`)
  assert.equal(await snapshot(), before)
})

test('every route with a project refuses callers of another project, whatever their role', async () => {
  const before = await snapshot()
  const bound = routes().filter(({ url }) => url.includes(':project_id'))
  assert.ok(bound.length > 50)
  for (const route of bound) {
    const say = `${route.method} ${route.url}`
    assert.ok(isOfProject(route), `${say} is bound to its project`)
    const { status, code } = route.dialect.common.foreign_project
    for (const [project, token] of [
      [lab.admin.project_id, tokens.stranger],
      [lab.admin.project_id, tokens.unscoped],
      [foreign, tokens.operator],
      // Even the domain's administrator, while the token is for another project.
      [foreign, tokens.admin],
      ['f'.repeat(32), tokens.admin],
      [encodeURIComponent(`${lab.admin.project_id}/..`), tokens.admin],
    ] as const) {
      const reply = await lab.call(requestOf(route, project, token))
      assert.equal(reply.status, status, say)
      assert.ok(reply.text.includes(code) || route.method === 'HEAD', `${say}: ${reply.text}`)
      assert.ok([400, 403].includes(status))
    }
  }
  assert.equal(await snapshot(), before)
})

test('routes of a project without it in the path need a credential that is bound to one', async () => {
  for (const route of routes().filter(
    (one) => isOfProject(one) && !one.url.includes(':project_id'),
  )) {
    const { status } = await lab.call(requestOf(route, '', tokens.unscoped))
    assert.equal(status, 403, `${route.method} ${route.url}`)
  }
})

test('a reader changes nothing, and the domain is managed by its administrators only', async () => {
  const before = await snapshot()
  for (const route of routes()) {
    const say = `${route.method} ${route.url}`
    if (isOfProject(route) && isChanging(route) && route.rules.role !== 'reader') {
      const reply = await lab.call(requestOf(route, lab.admin.project_id, tokens.reader))
      assert.equal(reply.status, route.dialect.common.forbidden.status, say)
    }
    if (route.rules.access === 'administrator') {
      const callers = [tokens.reader, tokens.operator, tokens.stranger]
      for (const token of callers) {
        assert.equal((await lab.call(requestOf(route, '', token))).status, 403, say)
      }
    }
  }
  assert.equal(await snapshot(), before)
})

test('changing routes that readers may call change nothing', () => {
  assert.deepEqual(
    routes()
      .filter((route) => isOfProject(route) && isChanging(route) && route.rules.role === 'reader')
      .filter(({ rules }) => rules.query !== true)
      .map(({ method, url }) => `${method} ${url}`),
    [],
  )
})

test('what belongs to another project does not exist, by id and in lists', async () => {
  const { db } = lab.store
  const project = lab.admin.project_id
  const volume = {
    id: ID,
    project: foreign,
    name: 'theirs',
    description: null,
    size_gb: 1,
    volume_type: 'SSD',
    az: 'az1',
    status: 'available',
    metadata: '{}',
    bootable: 0,
    multiattach: 0,
    attachments: '[]',
    pair: null,
    user_id: 'u',
    created_at: 1,
    updated_at: 1,
  } as const
  const group = {
    id: ID,
    project: foreign,
    form: 'sdrs',
    name: 'theirs',
    description: null,
    status: 'available',
    station: 'source',
    reversing_to: null,
    source_az: 'az1',
    target_az: 'az2',
    domain: 'd',
    vpc: 'v',
    start_servers: 0,
    next_member: 1,
    failure_detail: null,
    created_at: 1,
    updated_at: 1,
  } as const
  const snapshotOfTheirs = {
    id: ID,
    project: foreign,
    name: 'theirs',
    group_id: ID,
    site: 'az1',
    volumes: JSON.stringify([ID]),
    status: 'available',
    facts: null,
    failure_detail: null,
    description: null,
    metadata: '{}',
    size_gb: 1,
    created_at: 1,
    updated_at: 1,
  } as const
  const server = {
    id: ID,
    project: foreign,
    user_id: 'u',
    name: 'theirs',
    description: null,
    az: 'az1',
    vpc: 'v',
    flavor: 't2.nano',
    image: null,
    key_name: 'theirs',
    status: 'stopped',
    task: null,
    generation: 1,
    power: 'off',
    power_at: 1,
    fault: null,
    metadata: '{"theirs":"theirs"}',
    auto_recovery: 0,
    instance: null,
    launched_at: null,
    created_at: 1,
    updated_at: 1,
  } as const
  const keypair = {
    project: foreign,
    user_id: 'u',
    name: 'theirs',
    public_key: 'ssh-rsa theirs',
    fingerprint: 'theirs',
    created_at: 1,
  } as const
  const common = { id: ID, project: foreign, name: 'theirs', description: '', created_at: 1 }
  const vpc = { ...common, cidr: '10.7.0.0/16' }
  const subnet = {
    ...common,
    neutron_subnet: NEUTRON_SUBNET,
    vpc: ID,
    cidr: '10.7.7.0/24',
    gateway: '10.7.7.1',
    dhcp: 1,
    dns: '[]',
    az: null,
  } as const
  const port = {
    id: ID,
    project: foreign,
    name: 'theirs',
    subnet: ID,
    mac: 'fa:16:3e:00:00:01',
    address: '10.7.7.7',
    server: null,
    place: 0,
    security_groups: '[]',
    delete_with_server: 0,
    created_at: 1,
  } as const
  const rule = {
    id: ID,
    project: foreign,
    security_group: ID,
    direction: 'ingress',
    ethertype: 'IPv4',
    protocol: null,
    port_min: null,
    port_max: null,
    remote_prefix: null,
    remote_group: null,
    description: 'theirs',
    created_at: 1,
  }
  const tag = { kind: 'vpc', resource: ID, project: foreign, key: 'theirs', value: 'theirs' }
  // Reading networks for the first time makes the project's default ones.
  await lab.call({ url: '/v2.0/networks', headers: { 'x-auth-token': tokens.admin } })
  await lab.store.write(async (tx) => {
    await tx.insertInto('vpcs').values(vpc).execute()
    await tx.insertInto('subnets').values(subnet).execute()
    await tx.insertInto('ports').values(port).execute()
    await tx.insertInto('security_groups').values(common).execute()
    await tx.insertInto('security_group_rules').values(rule).execute()
    await tx.insertInto('tags').values(tag).execute()
    await tx.insertInto('volumes').values(volume).execute()
    await tx.insertInto('servers').values(server).execute()
    await tx.insertInto('keypairs').values(keypair).execute()
    await tx.insertInto('protection_groups').values(group).execute()
    await tx.insertInto('snapshots').values(snapshotOfTheirs).execute()
    const ofOneDisk = { ...snapshotOfTheirs, id: OF_ONE_DISK, group_id: null }
    await tx.insertInto('snapshots').values(ofOneDisk).execute()
  })
  const before = await snapshot()
  const headers = { 'x-auth-token': tokens.admin }
  for (const url of [
    `/v2/${project}/volumes/${ID}`,
    `/v3/${project}/volumes/${ID}`,
    `/v1/${project}/server-groups/${ID}`,
    `/api/v1/groups/${ID}`,
    `/api/v1/volumes/${ID}/connection`,
    `/api/v1/groups/${ID}/verify`,
    `/api/v1/groups/${ID}/divergences`,
    `/api/v1/snapshots/${ID}`,
    `/v2/${project}/snapshots/${OF_ONE_DISK}`,
    `/v2/${project}/cloudsnapshots/${OF_ONE_DISK}`,
    `/v2.1/${project}/servers/${ID}`,
    `/v2.1/${project}/servers/${ID}/metadata`,
    `/v2.1/${project}/servers/${ID}/metadata/theirs`,
    `/v2.1/${project}/servers/${ID}/tags`,
    `/v2.1/${project}/servers/${ID}/os-volume_attachments`,
    `/v2.1/${project}/servers/${ID}/os-volume_attachments/${ID}`,
    `/v2.1/${project}/servers/${ID}/os-interface`,
    `/v2.1/${project}/servers/${ID}/os-server-password`,
    `/v2.1/${project}/os-keypairs/theirs`,
    `/v1/${project}/cloudservers/${ID}`,
    `/v1/${project}/cloudservers/${ID}/block_device`,
    `/v1/${project}/cloudservers/${ID}/detachvolume/${ID}`,
    `/v1/${project}/cloudservers/${ID}/tags`,
    `/v1/${project}/cloudservers/${ID}/autorecovery`,
    `/v1/${project}/vpcs/${ID}`,
    `/v3/${project}/vpc/vpcs/${ID}`,
    `/v1/${project}/subnets/${ID}`,
    `/v1/${project}/vpcs/${ID}/subnets/${ID}`,
    `/v1/${project}/ports/${ID}`,
    `/v1/${project}/security-groups/${ID}`,
    `/v1/${project}/security-group-rules/${ID}`,
    `/v2.0/networks/${ID}`,
    `/v2.0/subnets/${NEUTRON_SUBNET}`,
    `/v2.0/ports/${ID}`,
    `/v2.0/security-groups/${ID}`,
    `/v2.0/security-group-rules/${ID}`,
    `/v2.0/${project}/vpcs/${ID}/tags`,
    `/v2.0/${project}/subnets/${ID}/tags`,
    `/v2.0/${project}/security-groups/${ID}/tags`,
  ]) {
    for (const method of ['GET', 'DELETE'] as const) {
      const { status } = await lab.call({ method, url, headers })
      assert.ok([404, 405].includes(status), `${method} ${url}: ${status}`)
    }
  }
  for (const url of [
    `/v2/${project}/volumes`,
    `/v2/${project}/volumes/detail`,
    `/v1/${project}/server-groups`,
    '/api/v1/groups',
    '/api/v1/snapshots',
    `/v2/${project}/snapshots/detail`,
    `/v2/${project}/cloudsnapshots/detail`,
    `/api/v1/snapshots?group=${ID}`,
    '/api/v1/events',
    `/v2.1/${project}/servers`,
    `/v2.1/${project}/servers/detail?all_tenants=True`,
    `/v2.1/${project}/os-keypairs`,
    `/v1/${project}/cloudservers/detail`,
    `/v1/${project}/vpcs?id=${ID}`,
    `/v1/${project}/vpcs`,
    `/v1/${project}/subnets`,
    `/v1/${project}/subnets?vpc_id=${ID}`,
    `/v1/${project}/ports`,
    `/v1/${project}/security-groups`,
    `/v1/${project}/security-group-rules?security_group_id=${ID}`,
    `/v2.0/networks?project_id=${foreign}`,
    '/v2.0/networks',
    '/v2.0/subnets',
    '/v2.0/ports',
    '/v2.0/security-groups',
    '/v2.0/security-group-rules',
  ]) {
    const { text } = await lab.call({ url, headers })
    assert.doesNotMatch(text, /theirs/, url)
  }
  for (const [url, body] of [
    [`/api/v1/groups/${ID}/verify`, {}],
    [`/api/v1/groups/${ID}/verify/cancel`, {}],
    [`/api/v1/pairs/${ID}/rebuild`, { force: true }],
    [`/api/v1/snapshots/${ID}/rollback`, {}],
    ['/api/v1/snapshots', { name: 'mine', group: ID }],
    ['/api/v1/snapshots', { name: 'mine', volumes: [ID] }],
    [
      `/v2.0/${project}/vpcs/${ID}/tags/action`,
      { action: 'create', tags: [{ key: 'mine', value: '' }] },
    ],
    [
      `/v1/${project}/subnets`,
      { subnet: { name: 'n', cidr: '10.7.8.0/24', gateway_ip: '10.7.8.1', vpc_id: ID } },
    ],
    ['/v2.0/ports', { port: { network_id: ID } }],
    [
      '/v2.0/security-group-rules',
      { security_group_rule: { security_group_id: ID, direction: 'egress' } },
    ],
    [
      `/v1/${project}/security-group-rules`,
      { security_group_rule: { security_group_id: ID, direction: 'egress' } },
    ],
    [`/v2.1/${project}/servers/${ID}/action`, { 'os-start': null }],
    [`/v2.1/${project}/servers/${ID}/action`, { 'os-getConsoleOutput': {} }],
    [`/v2.1/${project}/servers/${ID}/metadata`, { metadata: { a: 'b' } }],
    [
      `/v2.1/${project}/servers/${ID}/os-volume_attachments`,
      { volumeAttachment: { volumeId: ID } },
    ],
    [`/v1/${project}/cloudservers/${ID}/attachvolume`, { volumeAttachment: { volumeId: ID } }],
    [`/v1/${project}/cloudservers/action`, { 'os-stop': { servers: [{ id: ID }] } }],
    [`/v1/${project}/cloudservers/delete`, { servers: [{ id: ID }] }],
    [
      `/v1/${project}/cloudservers/${ID}/tags/action`,
      { action: 'create', tags: [{ key: 'a', value: 'b' }] },
    ],
  ] as const) {
    const { status } = await lab.call({ method: 'POST', url, headers, body })
    assert.equal(status, 404, url)
  }
  assert.equal(await snapshot(), before)
  const rows = await db.selectFrom('volumes').selectAll().execute()
  assert.equal(rows.length, 1)
})

test('hostile input to any changing route is refused in its own envelope and changes nothing', async () => {
  const before = await snapshot()
  const bodies: (string | Buffer)[] = [
    '{',
    '[[[[',
    Buffer.from([0xc3, 0x28]),
    '{"a":'.repeat(2_000),
    '{"server_group":{"name":"a\\u0000b"}}',
    '5',
  ]
  for (const route of routes().filter((one) => isChanging(one) && !isOpen(one))) {
    const request = requestOf(route, lab.admin.project_id, tokens.admin)
    for (const payload of bodies) {
      const reply = await lab.app.inject({
        method: route.method as 'POST',
        url: request.url,
        headers: { ...request.headers, 'content-type': 'application/json' },
        payload,
      })
      const say = `${route.method} ${route.url} ${payload.toString().slice(0, 20)}: ${reply.body}`
      const { statusCode } = reply
      // A number is JSON; routes that look at no body, or are not offered, do not care.
      if (payload !== '5') assert.ok([400, 501].includes(statusCode), say)
      assert.ok(statusCode !== 401 && statusCode !== 500, say)
      if (statusCode >= 400) JSON.parse(reply.body)
    }
  }
  assert.equal(await snapshot(), before)
})
