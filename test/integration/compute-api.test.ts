/** The server APIs request by request: versions, what creation takes and refuses, lists, pages, key pairs, quotas. No operation runs here. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { newId } from '#base/ids.ts'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { findImageByName } from '#control/resources/images.ts'
import { defaultSecurityGroupId, defaultSubnetId } from '#control/resources/networks.ts'
import { setQuotaLimit } from '#control/resources/surroundings.ts'
import { ApiLab, type Reply } from '../support/api.ts'
import * as go from '../support/go-types.ts'
import { computeCalls, type Method, version } from './compute/compute-calls.ts'
import { testKeyPairs } from './compute/key-pairs.ts'

let lab: ApiLab
let token: string
let P: string
let image: string
let subnet: string

before(async () => {
  lab = await ApiLab.start()
  token = await lab.adminToken()
  P = lab.admin.project_id
  image = (await findImageByName(lab.store.db, 'holdfast-tiny'))?.id ?? ''
  await get(`/v1/${P}/vpcs`)
  subnet = defaultSubnetId(P)
})
after(async () => await lab.stop())

const calls = computeCalls(() => ({ lab, token, project: P }))
const { call, ok, get } = calls

test('the version document tells the lowest and the highest version, without a token', async () => {
  const reply = await lab.call({ url: '/v2.1/' }, 'compute')
  assert.equal(reply.status, 200)
  const { version: found } = reply.body
  assert.deepEqual([found.id, found.min_version, found.version], ['v2.1', '2.1', '2.60'])
  assert.deepEqual(found.links, [{ rel: 'self', href: 'http://127.0.0.1:7410/v2.1/' }])
})

test('every version that is advertised is accepted and named in the answer; others are not acceptable', async () => {
  const url = `/v2.1/${P}/flavors`
  for (const [headers, applied] of [
    [{}, '2.1'],
    [version('2.55'), '2.55'],
    [{ 'openstack-api-version': 'compute 2.60' }, '2.60'],
    [{ 'openstack-api-version': 'volume 3.9, compute 2.7' }, '2.7'],
    [version('latest'), '2.60'],
    [{ 'openstack-api-version': 'volume 3.9' }, '2.1'],
  ] as const) {
    const reply = await lab.call({ url, headers: { 'x-auth-token': token, ...headers } })
    assert.equal(reply.status, 200)
    assert.equal(reply.headers['x-openstack-nova-api-version'], applied)
    assert.equal(reply.headers['openstack-api-version'], `compute ${applied}`)
    assert.match(String(reply.headers['vary']), /OpenStack-API-Version/)
  }
  for (const [text, status] of [
    ['2.61', 406],
    ['2.0', 406],
    ['3.1', 406],
    ['x', 400],
  ] as const) {
    const headers = { 'x-auth-token': token, ...version(text) }
    const reply = await lab.call({ url, headers })
    assert.equal(reply.status, status, text)
    assert.ok(Object.values(reply.body as Record<string, { message: string }>)[0]?.message)
  }
})

test('flavors are named by their ids, in the numbers of one API and the texts of the other', async () => {
  const { flavors } = await get(`/v2.1/${P}/flavors/detail?is_public=None`)
  go.assertGo({ list: go.NOVA_FLAVOR }, flavors)
  for (const name of ['s2.medium.1', 's3.medium.1', 's3.large.2']) {
    const { flavor } = await get(`/v2.1/${P}/flavors/${name}`)
    assert.equal(flavor.id, flavor.name)
    const { extra_specs } = await get(`/v2.1/${P}/flavors/${name}/os-extra_specs`)
    assert.equal(extra_specs['ecs:performancetype'], 'normal')
  }
  assert.equal((await call('GET', `/v2.1/${P}/flavors/nothing`)).status, 404)
  const paged = await get(`/v2.1/${P}/flavors/detail?limit=2&marker=${flavors[0].id}`)
  assert.deepEqual(
    paged.flavors.map((one: { id: string }) => one.id),
    [flavors[1].id, flavors[2].id],
  )
  assert.match(paged.flavors_links[0].href, new RegExp(`marker=${flavors[2].id}`))
  const last = await get(`/v2.1/${P}/flavors/detail?marker=${flavors.at(-1).id}`)
  assert.deepEqual(last, { flavors: [] })
  const { flavors: ecs } = await get(`/v1/${P}/cloudservers/flavors?availability_zone=az1`)
  go.assertGo({ list: go.ECS_FLAVOR }, ecs)
  assert.equal(ecs.length, flavors.length)
  const nowhere = await get(`/v1/${P}/cloudservers/flavors?availability_zone=az9`)
  assert.deepEqual(nowhere.flavors, [])
})

testKeyPairs(calls)

// ---------------------------------------------------------------- creation

const wish = (over: object = {}) => ({
  server: {
    name: 'box',
    flavorRef: 't2.micro',
    imageRef: image,
    networks: [{ uuid: subnet }],
    ...over,
  },
})

async function make(over: object = {}): Promise<string> {
  const { server } = await ok('POST', `/v2.1/${P}/servers`, wish(over), 202)
  return server.id as string
}

test('a new server is shown as being made, in both APIs, with what was asked for', async () => {
  const id = await make({
    name: ' web ',
    description: 'first',
    availability_zone: 'az2',
    key_name: 'made',
    metadata: { role: 'web' },
    tags: ['plain', 'team=db'],
    security_groups: [{ name: defaultSecurityGroupId(P) }],
    networks: [{ uuid: subnet, fixed_ip: '192.168.0.77' }],
    'OS-DCF:diskConfig': 'AUTO',
    config_drive: null,
    personality: [],
    unknown: { member: true },
  })
  const { server } = await get(`/v2.1/${P}/servers/${id}`)
  go.assertGo(go.NOVA_SERVER, server)
  assert.equal(server.name, 'web')
  assert.equal(server.status, 'BUILD')
  assert.equal(server['OS-EXT-STS:power_state'], 0)
  assert.equal(server['OS-EXT-AZ:availability_zone'], 'az2')
  assert.equal(server.key_name, 'made')
  assert.deepEqual(server.metadata, { role: 'web' })
  assert.deepEqual(server.tags, ['plain', 'team=db'])
  assert.deepEqual(server.security_groups, [{ name: 'default' }])
  assert.deepEqual(server.addresses, {})
  const { interfaceAttachments } = await get(`/v2.1/${P}/servers/${id}/os-interface`)
  assert.equal(interfaceAttachments[0].fixed_ips[0].ip_address, '192.168.0.77')
  assert.match(interfaceAttachments[0].mac_addr, /^fa:16:3e:/)
  const { server: ecs } = await get(`/v1/${P}/cloudservers/${id}`)
  go.assertGo(go.CLOUD_SERVER, ecs)
  assert.equal(ecs.status, 'BUILD')
  const busy = await call('POST', `/v2.1/${P}/servers/${id}/action`, { 'os-stop': null })
  assert.equal(busy.status, 409)
  await ok('DELETE', `/v2.1/${P}/servers/${id}`, undefined, 204)
  // Until it is gone, a repetition is no mistake.
  await ok('DELETE', `/v2.1/${P}/servers/${id}`, undefined, 204)
})

test('disks come from images, volumes and nothing; letters follow the boot order, then the list', async () => {
  const image0 = { source_type: 'image', destination_type: 'volume', uuid: image, boot_index: '0' }
  const blank = { source_type: 'blank', destination_type: 'volume', volume_size: '3' }
  const id = await make({
    imageRef: '',
    block_device_mapping_v2: [
      { ...blank, boot_index: -1 },
      { ...image0, volume_size: 5, volume_type: 'SSD', delete_on_termination: true },
      { ...blank, volume_size: 2, device_name: 'vdx' },
    ],
  })
  const { server } = await get(`/v1/${P}/cloudservers/${id}`)
  assert.deepEqual(
    server['os-extended-volumes:volumes_attached'].map(
      (disk: { device: string; bootIndex: string; delete_on_termination: string }) => [
        disk.device,
        disk.bootIndex,
        disk.delete_on_termination,
      ],
    ),
    [
      ['/dev/vda', '0', 'true'],
      ['/dev/vdb', '-1', 'false'],
      ['/dev/vdx', '-1', 'false'],
    ],
  )
  const { volumeAttachments } = await get(`/v1/${P}/cloudservers/${id}/block_device`)
  go.assertGo({ list: go.BLOCK_DEVICE }, volumeAttachments)
  assert.deepEqual(
    volumeAttachments.map((one: { size: number }) => one.size),
    [5, 3, 2],
  )
})

test('what cannot be made is refused with its reason, and nothing is changed', async () => {
  const rows = async () =>
    JSON.stringify([
      await lab.store.db.selectFrom('servers').selectAll().execute(),
      await lab.store.db.selectFrom('volumes').selectAll().execute(),
      await lab.store.db.selectFrom('ports').selectAll().execute(),
      await lab.store.db.selectFrom('operations').selectAll().execute(),
    ])
  const before = await rows()
  const id = newId()
  const root = { source_type: 'image', destination_type: 'volume', uuid: image, boot_index: 0 }
  const mapped = (...mappings: object[]) => ({ imageRef: '', block_device_mapping_v2: mappings })
  for (const [over, status] of [
    [{ name: '' }, 400],
    [{ name: 'x'.repeat(256) }, 400],
    [{ name: 5 }, 400],
    [{ flavorRef: 'nothing' }, 400],
    [{ flavorRef: undefined }, 400],
    [{ imageRef: id }, 400],
    [{ imageRef: 'a-name' }, 400],
    [{ imageRef: '' }, 400],
    [{ availability_zone: 'az9' }, 400],
    [{ availability_zone: 'az1:host' }, 400],
    [{ key_name: 'nobody' }, 400],
    [{ metadata: { a: 5 } }, 400],
    [{ metadata: [] }, 400],
    [{ tags: [''] }, 400],
    [{ user_data: 'IyEvYmluL3No' }, 400],
    [{ config_drive: true }, 400],
    [{ personality: [{ path: '/x', contents: '' }] }, 400],
    [{ networks: 'none' }, 400],
    [{ networks: [{ uuid: id }] }, 400],
    [{ networks: [{ port: id }] }, 400],
    [{ networks: [{}] }, 400],
    [{ networks: [{ uuid: subnet, fixed_ip: '10.0.0.1' }] }, 400],
    [{ networks: [{ uuid: subnet, fixed_ip: '192.168.0.1' }] }, 409],
    [{ security_groups: [{ name: 'nothing' }] }, 400],
    [{ min_count: 3, max_count: 2 }, 400],
    [{ max_count: 1_000 }, 400],
    [mapped(root, root), 400],
    [{ ...mapped(root), imageRef: id }, 400],
    [mapped({ source_type: 'blank', destination_type: 'local', volume_size: 1 }), 400],
    [mapped(root, { source_type: 'blank', destination_type: 'volume' }), 400],
    [mapped({ ...root, volume_size: 0 }), 400],
    [mapped({ ...root, source_type: 'snapshot' }), 400],
    [mapped({ ...root, source_type: 'volume', uuid: id }), 400],
    [
      mapped(root, {
        source_type: 'blank',
        destination_type: 'volume',
        volume_size: 1,
        device_name: '/dev/nothing',
      }),
      400,
    ],
  ] as const) {
    const reply = await call('POST', `/v2.1/${P}/servers`, wish(over))
    assert.equal(reply.status, status, `${JSON.stringify(over)}: ${reply.text}`)
    const [fault] = Object.values(reply.body as Record<string, { code: number; message: string }>)
    assert.equal(fault?.code, status)
    assert.ok((fault?.message ?? '').length > 5)
  }
  for (const body of [undefined, null, [], { server: null }, { server: [] }, {}]) {
    assert.equal((await call('POST', `/v2.1/${P}/servers`, body)).status, 400)
  }
  assert.equal(await rows(), before)
})

test('the other API refuses what would be bought elsewhere, and checks without making anything', async () => {
  const { vpcs } = await get(`/v1/${P}/vpcs`)
  const body = (over: object = {}, more: object = {}) => ({
    server: {
      name: 'ecs',
      imageRef: image,
      flavorRef: 't2.micro',
      vpcid: vpcs[0].id,
      nics: [{ subnet_id: subnet }],
      root_volume: { volumetype: 'ssd', size: 0 },
      ...over,
    },
    ...more,
  })
  const url = `/v1/${P}/cloudservers`
  for (const [over, status] of [
    [{ publicip: { eip: {} } }, 400],
    [{ extendparam: { chargingMode: 'prePaid' } }, 400],
    [{ user_data: 'IyEvYmluL3No' }, 400],
    [{ vpcid: newId() }, 400],
    [{ nics: [] }, 400],
    [{ nics: [{ subnet_id: newId() }] }, 400],
    [{ root_volume: { volumetype: 'floppy' } }, 400],
    [{ root_volume: { volumetype: 'SSD', metadata: { __system__encrypted: '1' } } }, 400],
    [{ data_volumes: [{ volumetype: 'SSD' }] }, 400],
    [{ data_volumes: [{ volumetype: 'SSD', size: 1, multiattach: true }] }, 400],
    [{ flavorRef: 'nothing' }, 400],
    [{ imageRef: newId() }, 400],
    [{ count: 0 }, 400],
    [{ server_tags: [{ key: ' ' }] }, 400],
  ] as const) {
    const reply = await call('POST', url, body(over))
    assert.equal(reply.status, status, `${JSON.stringify(over)}: ${reply.text}`)
    assert.match(reply.body.error.code, /^Ecs\.\d{4}$/)
  }
  const count = async () => (await get(`${url}/detail`)).count as number
  const before = await count()
  await ok('POST', url, body({}, { dry_run: true }), 202)
  assert.equal(await count(), before)
  const made = await ok('POST', url, body({ tags: ['a.b', 'c=d'], description: 'text' }))
  const { server } = await get(`${url}/${made.serverIds[0]}`)
  assert.deepEqual(server.tags, ['a=b', 'c=d'])
  assert.equal(server.description, 'text')
  assert.equal(await count(), before + 1)
})

test('a project with several networks has to name one, unless any will do', async () => {
  const { vpcs } = await get(`/v1/${P}/vpcs`)
  const second = await ok('POST', `/v1/${P}/subnets`, {
    subnet: {
      name: 'second',
      cidr: '192.168.32.0/24',
      gateway_ip: '192.168.32.1',
      vpc_id: vpcs[0].id,
    },
  })
  const reply = await call('POST', `/v2.1/${P}/servers`, wish({ networks: undefined }))
  assert.equal(reply.status, 409)
  const id = await make({ networks: 'auto' })
  const { interfaceAttachments } = await get(`/v2.1/${P}/servers/${id}/os-interface`)
  assert.equal(interfaceAttachments[0].net_id, subnet)
  const both = await make({ networks: [{ uuid: second.subnet.id }, { uuid: subnet }] })
  const nics = (await get(`/v2.1/${P}/servers/${both}/os-interface`)).interfaceAttachments
  assert.deepEqual(
    nics.map((nic: { net_id: string }) => nic.net_id),
    [second.subnet.id, subnet],
  )
})

test('several servers of one request are numbered, and the quota holds for all of them', async () => {
  const id = await make({ name: 'row', min_count: '2', max_count: 2 })
  const { servers } = await get(`/v2.1/${P}/servers?name=row-`)
  assert.equal(servers.length, 2)
  assert.ok(servers.some((one: { id: string }) => one.id === id))
  const { limits } = await get2(`/v2.1/${P}/limits`)
  const used = limits.absolute.totalInstancesUsed as number
  await lab.store.write((tx) => setQuotaLimit(tx, P, 'instances', used + 1))
  assert.equal((await call('POST', `/v2.1/${P}/servers`, wish({ max_count: 2 }))).status, 403)
  const { quota_set } = await get2(`/v2.1/${P}/os-quota-sets/${P}`)
  assert.equal(quota_set.instances, used + 1)
  const detail = await get2(`/v2.1/${P}/os-quota-sets/${P}/detail`)
  assert.deepEqual(detail.quota_set.instances, { limit: used + 1, in_use: used, reserved: 0 })
  await lab.store.write((tx) => setQuotaLimit(tx, P, 'instances', -1))
})

/** Paths that the contract does not have. */
async function get2(url: string): Promise<Reply['body']> {
  const reply = await lab.call({ url, headers: { 'x-auth-token': token } })
  assert.equal(reply.status, 200, reply.text)
  return reply.body
}

// ---------------------------------------------------------------- what a server has

test('metadata and tags of a server are resources of their own', async () => {
  const id = await make({ name: 'meta', metadata: { a: '1', b: '2' } })
  const own = async (method: Method, path: string, body?: unknown) =>
    await lab.call({
      method,
      url: `/v2.1/${P}/servers/${id}/${path}`,
      headers: { 'x-auth-token': token },
      ...(body === undefined ? {} : { body }),
    })
  assert.deepEqual((await own('POST', 'metadata', { metadata: { b: '3', c: '4' } })).body, {
    metadata: { a: '1', b: '3', c: '4' },
  })
  assert.equal((await own('DELETE', 'metadata/a')).status, 204)
  assert.equal((await own('DELETE', 'metadata/a')).status, 404)
  assert.deepEqual((await own('PUT', 'metadata', { metadata: { d: '5' } })).body, {
    metadata: { d: '5' },
  })
  assert.deepEqual((await own('PUT', 'metadata/e', { meta: { e: '6' } })).body, {
    meta: { e: '6' },
  })
  assert.equal((await own('PUT', 'metadata/e', { meta: { f: '6' } })).status, 400)
  assert.equal((await own('POST', 'metadata', { metadata: { a: 1 } })).status, 400)
  assert.deepEqual((await own('GET', 'metadata')).body, { metadata: { d: '5', e: '6' } })

  assert.deepEqual((await own('PUT', 'tags', { tags: ['x', 'k=v'] })).body, { tags: ['k=v', 'x'] })
  assert.equal((await own('PUT', 'tags/y')).status, 201)
  assert.equal((await own('PUT', 'tags/y')).status, 204)
  assert.equal((await own('GET', 'tags/y')).status, 204)
  assert.equal((await own('DELETE', 'tags/k=v')).status, 204)
  assert.equal((await own('DELETE', 'tags/k=v')).status, 404)
  assert.deepEqual((await own('GET', 'tags')).body, { tags: ['x', 'y'] })
  assert.deepEqual(await get(`/v1/${P}/cloudservers/${id}/tags`), {
    tags: [
      { key: 'x', value: '' },
      { key: 'y', value: '' },
    ],
  })
})

test('a name in the place of an id, and what a server has not, are not found anywhere', async () => {
  const id = await make({ name: 'findme' })
  for (const url of [
    `/v2.1/${P}/servers/findme`,
    `/v2.1/${P}/servers/${newId()}`,
    `/v2.1/${P}/servers/findme/os-interface`,
    `/v2.1/${P}/servers/findme/os-volume_attachments`,
    `/v2.1/${P}/servers/${id}/os-volume_attachments/${newId()}`,
    `/v2.1/${P}/servers/findme/os-server-password`,
    `/v2.1/${P}/os-keypairs/findme`,
    `/v1/${P}/cloudservers/findme`,
    `/v1/${P}/cloudservers/findme/block_device`,
    `/v1/${P}/cloudservers/${id}/block_device/findme`,
    `/v1/${P}/cloudservers/findme/tags`,
    `/v1/${P}/cloudservers/findme/autorecovery`,
  ]) {
    assert.equal((await call('GET', url)).status, 404, url)
  }
  for (const [url, body] of [
    [`/v2.1/${P}/servers/findme/action`, { 'os-start': null }],
    [`/v2.1/${P}/servers/findme/os-volume_attachments`, { volumeAttachment: { volumeId: 'x' } }],
    [`/v1/${P}/cloudservers/delete`, { servers: [{ id: 'findme' }] }],
    [`/v1/${P}/cloudservers/action`, { 'os-start': { servers: [{ id: 'findme' }] } }],
  ] as const) {
    assert.equal((await call('POST', url, body)).status, 404, url)
  }
  assert.equal((await call('DELETE', `/v2.1/${P}/servers/findme`)).status, 404)
})

test('actions that are not offered, and more than one at once, are refused', async () => {
  const id = await make({ name: 'act' })
  const url = `/v2.1/${P}/servers/${id}/action`
  for (const body of [
    undefined,
    {},
    { resize: { flavorRef: 't2.micro' } },
    { 'os-start': null, 'os-stop': null },
    { reboot: {} },
    { reboot: { type: 'WARM' } },
    { rebuild: {} },
  ]) {
    assert.equal((await call('POST', url, body)).status, 400, JSON.stringify(body))
  }
  for (const [method, path] of [
    ['POST', `/v2.1/${P}/servers/${id}/os-interface`],
    ['DELETE', `/v2.1/${P}/servers/${id}/os-interface/${newId()}`],
    ['POST', `/v2.1/${P}/os-server-groups`],
  ] as const) {
    const reply = await lab.call({
      method,
      url: path,
      headers: { 'x-auth-token': token },
      body: {},
    })
    assert.equal(reply.status, 501, path)
    assert.ok(reply.body.notImplemented.message)
  }
})

test('every route is on the page of these APIs, and the page names no other', () => {
  const file = join(import.meta.dirname, '../../docs/compatibility/compute.md')
  const page = readFileSync(file, 'utf8')
  const plain = (path: string) => path.replaceAll(/\{[^}]*\}/g, '{}')
  const named = new Set([...page.matchAll(/`(\/v[^`\s]*)`/g)].map(([, path = '']) => plain(path)))
  const served = page
    .split('\n')
    .filter((line) => /^\| `\/.*\| (?:GET|POST|PUT|DELETE)/.test(line))
    .flatMap((line) => {
      const [, paths = '', methods = ''] = line.split('|')
      return [...paths.matchAll(/`([^`]+)`/g)].flatMap(([, path = '']) =>
        methods.split(',').map((method) => `${method.trim()} ${plain(path)}`),
      )
    })
  const mounted = (names: readonly string[]) =>
    lab.app.routeTable
      .filter(({ dialect }) => names.includes(dialect.name))
      .map(({ method, url }) => {
        const path = url.replace(':project_id', 'P').replaceAll(/:[a-z_]+/g, '{}')
        return { path, line: `${method} ${path}` }
      })
  const own = mounted(['nova', 'ecs'])
  assert.deepEqual(
    own.filter(({ path }) => !named.has(path)),
    [],
  )
  const known = new Set(mounted(['nova', 'ecs', 'glance', 'sdrs']).map(({ line }) => line))
  assert.deepEqual(
    served.filter((line) => !known.has(line)),
    [],
  )
})
