/** VPCs, subnets, ports and security groups over both network APIs; every answer is held against the contract. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { newId } from '#base/ids.ts'
import {
  createPort,
  defaultSecurityGroupId,
  defaultSubnetId,
  defaultVpcId,
  deletePort,
} from '#control/resources/networks.ts'
import { setQuotaLimit } from '#control/resources/surroundings.ts'
import type { NetworkQuotaKind } from '#domain/quota.ts'
import { violations } from '../contracts/validate.ts'
import { ApiLab, type Reply, type Request } from '../support/api.ts'

let lab: ApiLab
let token: string
let project: string

before(async () => {
  lab = await ApiLab.start()
  token = await lab.adminToken()
  project = lab.admin.project_id
})
after(async () => await lab.stop())

/** What the contract leaves out and this server has: see docs/compatibility/network.md. */
const BEYOND = [
  /^POST \/v2\.0\/security-groups$/,
  /^DELETE \/v2\.0\/security-groups\/[^/]+$/,
  / \/v2\.0\/security-group-rules/,
  /^(?:POST|PUT|DELETE) \/v2\.0\/ports/,
  /^(?:GET|POST) \/v1\/[^/]+\/security-group-rules/,
]

async function call(method: string, url: string, body?: unknown): Promise<Reply> {
  const path = url.replace('{project}', project)
  const headers = { 'x-auth-token': token }
  const request = { method, url: path, headers, ...(body === undefined ? {} : { body }) } as Request
  const reply = await lab.call(request)
  const found = violations('compute', {
    method,
    path,
    status: reply.status,
    headers: reply.headers,
    text: reply.text,
  })
  const bare = `${method} ${path.replace(/\?.*$/s, '')}`
  if (!BEYOND.some((pattern) => pattern.test(bare))) {
    assert.deepEqual(found, [], `${method} ${path} → ${reply.status}: ${reply.text}`)
  }
  return reply
}

async function ok(
  method: string,
  url: string,
  body?: unknown,
  status = 200,
): Promise<Reply['body']> {
  const reply = await call(method, url, body)
  assert.equal(reply.status, status, `${method} ${url}: ${reply.text}`)
  return reply.body
}

const TABLES = ['vpcs', 'subnets', 'ports', 'security_groups', 'security_group_rules'] as const

async function snapshot(): Promise<string> {
  const { db } = lab.store
  return JSON.stringify(
    await Promise.all(
      TABLES.map((table) => db.selectFrom(table).selectAll().orderBy('id').execute()),
    ),
  )
}

/** Refused with this status and code, and nothing changed. */
async function refused(
  method: string,
  url: string,
  body: unknown,
  status: number,
  code: string,
): Promise<void> {
  const before = await snapshot()
  const reply = await call(method, url, body)
  const where = `${method} ${url} ${JSON.stringify(body)} → ${reply.text}`
  assert.equal(reply.status, status, where)
  assert.equal(reply.body.code ?? reply.body.NeutronError?.type, code, where)
  if (reply.body.NeutronError === undefined) {
    assert.deepEqual(reply.body.error, { code, message: reply.body.message })
  }
  assert.equal(await snapshot(), before, `${where} changed something`)
}

const VPCS = '/v1/{project}/vpcs'
const SUBNETS = '/v1/{project}/subnets'
const PORTS = '/v1/{project}/ports'
const GROUPS = '/v1/{project}/security-groups'
const RULES = '/v1/{project}/security-group-rules'

let serial = 0
async function vpc(cidr = '10.0.0.0/16'): Promise<string> {
  return (await ok('POST', VPCS, { vpc: { name: `vpc-${++serial}`, cidr } })).vpc.id as string
}

async function subnet(of: string, over: object = {}): Promise<Reply['body']> {
  const body = {
    name: `subnet-${++serial}`,
    cidr: '10.0.1.0/24',
    gateway_ip: '10.0.1.1',
    vpc_id: of,
    ...over,
  }
  return (await ok('POST', SUBNETS, { subnet: body })).subnet
}

async function port(of: string, over: object = {}): Promise<{ id: string; address: string }> {
  const made = await lab.store.write(
    async (tx) =>
      await createPort(
        tx,
        {
          project,
          subnet: of,
          address: null,
          server: null,
          place: 0,
          securityGroups: [],
          deleteWithServer: true,
          name: '',
          ...over,
        },
        lab.clock.wallMs(),
      ),
  )
  assert.ok(made.ok)
  return made.port
}

const dropPort = async (id: string) => await lab.store.write((tx) => deletePort(tx, id))

test('every project has a VPC, a subnet and a security group named default from the beginning', async () => {
  const other = await lab.project('local-1_fresh')
  const admin = await lab.userWith('reader', other)
  const headers = { 'x-auth-token': admin.token }
  const read = async (url: string) => (await lab.call({ url, headers }, 'compute')).body
  // Whichever is asked for first, and by a mere reader.
  const { networks } = await read('/v2.0/networks')
  assert.deepEqual(
    networks.map((one: { id: string; name: string }) => [one.id, one.name]),
    [[defaultSubnetId(other), 'default']],
  )
  const { vpcs } = await read(`/v1/${other}/vpcs`)
  assert.equal(vpcs.length, 1)
  assert.equal(vpcs[0].id, defaultVpcId(other))
  assert.equal(vpcs[0].name, 'default')
  assert.equal(vpcs[0].cidr, '192.168.0.0/16')
  const { subnets } = await read(`/v1/${other}/subnets`)
  assert.equal(subnets[0].vpc_id, vpcs[0].id)
  assert.equal(subnets[0].id, networks[0].id)
  assert.deepEqual(networks[0].subnets, [subnets[0].neutron_subnet_id])
  const { security_groups: groups } = await read(`/v1/${other}/security-groups`)
  assert.equal(groups[0].id, defaultSecurityGroupId(other))
  assert.equal(groups[0].security_group_rules.length, 4)
  for (const one of [
    `/v1/${other}/vpcs/${vpcs[0].id}`,
    `/v3/${other}/vpc/vpcs/${vpcs[0].id}`,
    `/v1/${other}/subnets/${subnets[0].id}`,
    `/v2.0/subnets/${subnets[0].neutron_subnet_id}`,
    `/v2.0/security-groups/${groups[0].id}`,
    `/v2.0/${other}/vpcs/${vpcs[0].id}/tags`,
  ]) {
    assert.equal((await lab.call({ url: one, headers }, 'compute')).status, 200, one)
  }
})

test('the default ones are there to stay', async () => {
  await ok('GET', VPCS)
  const [home, net] = [defaultVpcId(project), defaultSubnetId(project)]
  await refused('DELETE', `${VPCS}/${home}`, undefined, 409, 'VPC.0105')
  await refused('DELETE', `${VPCS}/${home}/subnets/${net}`, undefined, 409, 'VPC.0203')
  const group = defaultSecurityGroupId(project)
  await refused('DELETE', `${GROUPS}/${group}`, undefined, 409, 'VPC.0605')
  const neutron = `/v2.0/security-groups/${group}`
  await refused('DELETE', neutron, undefined, 409, 'SecurityGroupCannotRemoveDefault')
  const rename = { security_group: { name: 'other' } }
  await refused('PUT', neutron, rename, 400, 'InvalidInput')
})

test('a VPC is made, renamed, widened and deleted', async () => {
  const made = (
    await ok('POST', VPCS, {
      vpc: { name: 'a', cidr: '10.1.0.0/20', description: 'd', enterprise_project_id: '0' },
    })
  ).vpc
  assert.equal(made.status, 'OK')
  const { id } = made
  const changed = (
    await ok('PUT', `${VPCS}/${id}`, { vpc: { name: 'b', cidr: '10.1.0.0/16', description: '' } })
  ).vpc
  assert.deepEqual([changed.name, changed.cidr, changed.description], ['b', '10.1.0.0/16', ''])
  assert.deepEqual((await ok('GET', `${VPCS}/${id}`)).vpc, changed)
  const v3 = (await ok('GET', `/v3/{project}/vpc/vpcs/${id}`)).vpc
  assert.deepEqual(v3.extend_cidrs, [])
  await ok('DELETE', `${VPCS}/${id}`, undefined, 204)
  await refused('GET', `${VPCS}/${id}`, undefined, 404, 'VPC.0202')
  await refused('DELETE', `${VPCS}/${id}`, undefined, 404, 'VPC.0202')
})

test('a VPC that asks for no range has one, and a list by id finds it', async () => {
  const { id, cidr } = (await ok('POST', VPCS, { vpc: { name: 'plain' } })).vpc
  assert.equal(cidr, '192.168.0.0/16')
  const { vpcs } = await ok('GET', `${VPCS}?id=${id}&enterprise_project_id=all_granted_eps`)
  assert.deepEqual(
    vpcs.map((one: { id: string }) => one.id),
    [id],
  )
  await ok('DELETE', `${VPCS}/${id}`, undefined, 204)
})

test('a range that no VPC has is refused, and so is one that leaves a subnet outside', async () => {
  for (const cidr of [
    '10.0.0.1/16',
    '10.0.0.0/7',
    '10.0.0.0/29',
    '8.8.8.0/24',
    '10.0.0.0',
    '010.0.0.0/16',
    'fd00::/64',
    'x',
  ]) {
    await refused('POST', VPCS, { vpc: { name: 'v', cidr } }, 400, 'VPC.0101')
  }
  for (const body of [undefined, {}, { vpc: null }, { vpc: { name: 7 } }, { vpc: [] }]) {
    await refused('POST', VPCS, body, 400, 'VPC.0101')
  }
  const id = await vpc()
  const inside = await subnet(id)
  await refused('PUT', `${VPCS}/${id}`, { vpc: { cidr: '10.0.2.0/24' } }, 400, 'VPC.0107')
  await refused('DELETE', `${VPCS}/${id}`, undefined, 409, 'VPC.0106')
  await ok('DELETE', `${VPCS}/${id}/subnets/${inside.id}`, undefined, 204)
  await ok('DELETE', `${VPCS}/${id}`, undefined, 204)
})

test('a subnet keeps what it was given, changes, and is a network of Neutron under the same name', async () => {
  const home = await vpc()
  const made = await subnet(home, {
    name: 'net',
    dnsList: ['10.0.1.2', '10.0.1.3', '10.0.1.4'],
    primary_dns: '10.0.1.2',
    secondary_dns: '10.0.1.3',
    availability_zone: 'az1',
    extra_dhcp_opts: [{ opt_name: 'ntp', opt_value: null }],
  })
  assert.equal(made.status, 'ACTIVE')
  assert.equal(made.id, made.neutron_network_id)
  assert.notEqual(made.id, made.neutron_subnet_id)
  assert.deepEqual(
    [made.primary_dns, made.secondary_dns, made.dnsList.length, made.dhcp_enable],
    ['10.0.1.2', '10.0.1.3', 3, true],
  )
  assert.equal(made.availability_zone, 'az1')
  const network = (await ok('GET', `/v2.0/networks/${made.id}`)).network
  assert.deepEqual([network.name, network.subnets], ['net', [made.neutron_subnet_id]])
  const shown = (await ok('GET', `/v2.0/subnets/${made.neutron_subnet_id}`)).subnet
  assert.equal(shown.network_id, made.id)
  assert.deepEqual(shown.allocation_pools, [{ start: '10.0.1.2', end: '10.0.1.254' }])
  const place = `${VPCS}/${home}/subnets/${made.id}`
  const changed = (
    await ok('PUT', place, { subnet: { name: 'net2', dhcp_enable: false, dnsList: [] } })
  ).subnet
  assert.deepEqual([changed.name, changed.dhcp_enable, changed.primary_dns], ['net2', false, ''])
  assert.deepEqual((await ok('GET', `${SUBNETS}/${made.id}`)).subnet, changed)
  await refused('GET', `${SUBNETS}/${made.neutron_subnet_id}`, undefined, 404, 'VPC.0202')
  await refused(
    'GET',
    `/v2.0/networks/${made.neutron_subnet_id}`,
    undefined,
    404,
    'NetworkNotFound',
  )
  await refused('GET', `/v2.0/subnets/${made.id}`, undefined, 404, 'SubnetNotFound')
  const elsewhere = `${VPCS}/${defaultVpcId(project)}/subnets/${made.id}`
  await refused('PUT', elsewhere, { subnet: { name: 'x' } }, 404, 'VPC.0202')
  await refused('DELETE', elsewhere, undefined, 404, 'VPC.0202')
  await ok('DELETE', place, undefined, 204)
  await refused('DELETE', place, undefined, 404, 'VPC.0202')
  await ok('DELETE', `${VPCS}/${home}`, undefined, 204)
})

test('subnets lie inside their VPC, beside each other, and have names of their own in the project', async () => {
  const home = await vpc()
  const first = await subnet(home)
  const good = { name: 'second', cidr: '10.0.2.0/24', gateway_ip: '10.0.2.1', vpc_id: home }
  const cases: [object, number, string][] = [
    [{ cidr: '10.0.1.128/25', gateway_ip: '10.0.1.129' }, 409, 'VPC.0204'],
    [{ cidr: '10.0.0.0/16', gateway_ip: '10.0.0.1' }, 409, 'VPC.0204'],
    [{ cidr: '10.1.0.0/24', gateway_ip: '10.1.0.1' }, 400, 'VPC.0101'],
    [{ cidr: '10.0.0.0/15', gateway_ip: '10.0.0.1' }, 400, 'VPC.0101'],
    [{ cidr: '10.0.2.0/29', gateway_ip: '10.0.2.1' }, 400, 'VPC.0101'],
    [{ cidr: '10.0.2.1/24' }, 400, 'VPC.0101'],
    [{ gateway_ip: '10.0.3.1' }, 400, 'VPC.0101'],
    [{ gateway_ip: '10.0.2.0' }, 400, 'VPC.0101'],
    [{ gateway_ip: '10.0.2.255' }, 400, 'VPC.0101'],
    [{ gateway_ip: '' }, 400, 'VPC.0101'],
    [{ name: '' }, 400, 'VPC.0101'],
    [{ name: first.name }, 400, 'VPC.0206'],
    [{ vpc_id: newId() }, 404, 'VPC.0202'],
    [{ vpc_id: 'default' }, 404, 'VPC.0202'],
    [{ ipv6_enable: true }, 400, 'VPC.0101'],
    [{ dnsList: ['dns.example'] }, 400, 'VPC.0101'],
    [{ dhcp_enable: 'yes' }, 400, 'VPC.0101'],
  ]
  for (const [over, status, code] of cases) {
    await refused('POST', SUBNETS, { subnet: { ...good, ...over } }, status, code)
  }
  const second = (await ok('POST', SUBNETS, { subnet: good })).subnet
  const place = `${VPCS}/${home}/subnets/${second.id}`
  await refused('PUT', place, { subnet: { name: first.name } }, 400, 'VPC.0206')
  const { subnets } = await ok('GET', `${SUBNETS}?vpc_id=${home}`)
  assert.equal(subnets.length, 2)
  assert.ok((await ok('GET', SUBNETS)).subnets.length > 2)
  for (const { id } of subnets) await ok('DELETE', `${VPCS}/${home}/subnets/${id}`, undefined, 204)
  await ok('DELETE', `${VPCS}/${home}`, undefined, 204)
})

test('a port has an address of its subnet, a MAC and groups, and keeps its subnet and groups from deletion', async () => {
  const home = await vpc()
  const net = await subnet(home, { cidr: '10.0.1.0/28' })
  const { id: group } = (await ok('POST', GROUPS, { security_group: { name: 'web' } }))
    .security_group
  const made = await port(net.id, { securityGroups: [group, 'default'], name: 'nic' })
  const shown = (await ok('GET', `${PORTS}/${made.id}`)).port
  assert.match(shown.mac_address, /^fa:16:3e(:[0-9a-f]{2}){3}$/)
  assert.deepEqual(shown.fixed_ips, [{ subnet_id: net.neutron_subnet_id, ip_address: '10.0.1.2' }])
  assert.deepEqual(shown.security_groups, [group, defaultSecurityGroupId(project)])
  assert.deepEqual([shown.device_id, shown.device_owner, shown.status], ['', '', 'DOWN'])
  assert.deepEqual((await ok('GET', `/v2.0/ports/${made.id}`)).port, shown)
  await refused('DELETE', `${VPCS}/${home}/subnets/${net.id}`, undefined, 409, 'VPC.0208')
  await refused('DELETE', `${GROUPS}/${group}`, undefined, 409, 'VPC.0606')

  const given = { port: { name: 'renamed', security_groups: [], allowed_address_pairs: [] } }
  const changed = (await ok('PUT', `${PORTS}/${made.id}`, given)).port
  assert.equal(changed.name, 'renamed')
  assert.deepEqual(changed.security_groups, [defaultSecurityGroupId(project)])
  const pairs = { port: { allowed_address_pairs: [{ ip_address: '1.1.1.1/0' }] } }
  await refused('PUT', `${PORTS}/${made.id}`, pairs, 400, 'VPC.0101')
  const strange = { port: { security_groups: [newId()] } }
  await refused('PUT', `${PORTS}/${made.id}`, strange, 400, 'VPC.0101')
  await refused('PUT', `${PORTS}/${newId()}`, given, 404, 'VPC.0202')

  const second = await port(net.id)
  for (const [query, ids] of [
    [`network_id=${net.id}`, [made.id, second.id]],
    [`network_id=${net.id}&limit=100`, [made.id, second.id]],
    [`network_id=${newId()}`, []],
    [`device_id=${newId()}`, []],
  ] as const) {
    const { ports } = await ok('GET', `${PORTS}?${query}`)
    const found = ports.map((one: { id: string }) => one.id)
    assert.deepEqual(new Set(found), new Set(ids), query)
    const neutron = (await ok('GET', `/v2.0/ports?${query}&fields=id&fields=name`)).ports
    assert.deepEqual(new Set(neutron.map((one: { id: string }) => one.id)), new Set(ids), query)
  }
  for (const [query, ids] of [
    [`fixed_ips=ip_address%3D${second.address}`, [second.id]],
    [`fixed_ips=subnet_id%3D${net.neutron_subnet_id}&fixed_ips=ip_address%3D10.0.1.2`, [made.id]],
    [`fixed_ips=subnet_id%3D${newId()}`, []],
    [`mac_address=${shown.mac_address}`, [made.id]],
    [`id=${made.id}&id=${second.id}&name=renamed`, [made.id]],
  ] as const) {
    const { ports } = await ok('GET', `/v2.0/ports?${query}`)
    assert.deepEqual(
      ports.map((one: { id: string }) => one.id),
      ids,
      query,
    )
  }
  for (const { id } of [made, second]) await dropPort(id)
  await ok('DELETE', `${GROUPS}/${group}`, undefined, 204)
  await ok('DELETE', `${VPCS}/${home}/subnets/${net.id}`, undefined, 204)
  await ok('DELETE', `${VPCS}/${home}`, undefined, 204)
})

test('a port that is made over Neutron waits for a server, with the address that was asked for', async () => {
  const {
    id: network,
    neutron_subnet_id: subnetId,
    ...net
  } = (await ok('GET', `${SUBNETS}/${defaultSubnetId(project)}`)).subnet
  const wish = { network_id: network, name: 'fixed', admin_state_up: true, device_id: '' }
  const fixed = { subnet_id: subnetId, ip_address: '192.168.7.7' }
  const { port: first } = await ok(
    'POST',
    '/v2.0/ports',
    {
      port: { ...wish, fixed_ips: [fixed], security_groups: ['default'] },
    },
    201,
  )
  assert.deepEqual(first.fixed_ips, [fixed])
  assert.deepEqual([first.device_id, first.status, first.name], ['', 'DOWN', 'fixed'])
  const { port: second } = await ok('POST', '/v2.0/ports', { port: wish }, 201)
  assert.notEqual(second.fixed_ips[0].ip_address, first.fixed_ips[0].ip_address)
  for (const [over, status, type] of [
    [{ network_id: newId() }, 404, 'NetworkNotFound'],
    [{ network_id: 'default' }, 404, 'NetworkNotFound'],
    [{ fixed_ips: [fixed] }, 409, 'IpAddressAlreadyAllocated'],
    [{ fixed_ips: [{ ip_address: net.gateway_ip }] }, 409, 'IpAddressAlreadyAllocated'],
    [{ fixed_ips: [{ ip_address: '10.0.0.1' }] }, 400, 'InvalidInput'],
    [{ fixed_ips: [{ subnet_id: newId() }] }, 400, 'InvalidInput'],
    [{ fixed_ips: [{}, {}] }, 400, 'InvalidInput'],
    [{ security_groups: [newId()] }, 404, 'SecurityGroupNotFound'],
    [{ mac_address: 'fa:16:3e:00:00:00' }, 400, 'InvalidInput'],
    [{ device_id: newId() }, 400, 'InvalidInput'],
    [{ port_security_enabled: false }, 400, 'InvalidInput'],
    [{ admin_state_up: false }, 400, 'InvalidInput'],
  ] as const) {
    await refused('POST', '/v2.0/ports', { port: { ...wish, ...over } }, status, type)
  }
  const url = `/v2.0/ports/${second.id}`
  const { port: changed } = await ok('PUT', url, { port: { name: 'x', security_groups: [] } })
  assert.deepEqual([changed.name, changed.security_groups.length], ['x', 1])
  const pairs = { port: { allowed_address_pairs: [{ ip_address: '1.1.1.1' }] } }
  await refused('PUT', url, pairs, 400, 'InvalidInput')
  await refused('PUT', `/v2.0/ports/${newId()}`, { port: {} }, 404, 'PortNotFound')
  for (const { id } of [first, second]) await ok('DELETE', `/v2.0/ports/${id}`, undefined, 204)
  await refused('DELETE', url, undefined, 404, 'PortNotFound')
  // Those of a server are the server's, even while nobody wears them.
  for (const over of [{ server: newId(), deleteWithServer: false }, {}]) {
    const kept = await port(network, over)
    await refused('DELETE', `/v2.0/ports/${kept.id}`, undefined, 409, 'PortInUse')
    await dropPort(kept.id)
  }
})

test('a security group comes with four rules that can be deleted, and takes others once each', async () => {
  const made = (
    await ok('POST', GROUPS, {
      security_group: { name: 'app', description: 'd', vpc_id: '', enterprise_project_id: '0' },
    })
  ).security_group
  const rules = made.security_group_rules
  assert.deepEqual(
    rules.map((rule: { direction: string; ethertype: string; remote_group_id: string | null }) => [
      rule.direction,
      rule.ethertype,
      rule.remote_group_id,
    ]),
    [
      ['egress', 'IPv4', null],
      ['egress', 'IPv6', null],
      ['ingress', 'IPv4', made.id],
      ['ingress', 'IPv6', made.id],
    ],
  )
  for (const { id } of rules) await ok('DELETE', `${RULES}/${id}`, undefined, 204)
  await refused('DELETE', `${RULES}/${rules[0].id}`, undefined, 404, 'VPC.0202')
  const body = {
    security_group_rule: {
      security_group_id: made.id,
      direction: 'ingress',
      protocol: 'TCP',
      port_range_min: 22,
      port_range_max: 22,
      remote_ip_prefix: '0.0.0.0/0',
    },
  }
  const rule = (await ok('POST', RULES, body)).security_group_rule
  assert.deepEqual([rule.ethertype, rule.protocol, rule.port_range_min], ['IPv4', 'tcp', 22])
  await refused('POST', RULES, body, 409, 'VPC.0607')
  await refused('POST', '/v2.0/security-group-rules', body, 409, 'SecurityGroupRuleExists')
  for (const [over, status, code] of [
    [{ direction: 'inwards' }, 400, 'VPC.0101'],
    [{ ethertype: 'IPX' }, 400, 'VPC.0101'],
    [{ protocol: 'smtp' }, 400, 'VPC.0101'],
    [{ protocol: 256 }, 400, 'VPC.0101'],
    [{ port_range_min: 23 }, 400, 'VPC.0101'],
    [{ port_range_max: 65_536 }, 400, 'VPC.0101'],
    [{ protocol: null }, 400, 'VPC.0101'],
    [{ remote_ip_prefix: '::/0' }, 400, 'VPC.0101'],
    [{ remote_group_id: made.id }, 400, 'VPC.0101'],
    [{ remote_ip_prefix: null, remote_group_id: newId() }, 404, 'VPC.0202'],
    [{ security_group_id: newId() }, 404, 'VPC.0202'],
  ] as const) {
    const wrong = { security_group_rule: { ...body.security_group_rule, ...over } }
    await refused('POST', RULES, wrong, status, code)
  }
  assert.deepEqual((await ok('GET', `${RULES}/${rule.id}`)).security_group_rule, rule)
  const list = await ok('GET', `${RULES}?security_group_id=${made.id}`)
  assert.deepEqual(list.security_group_rules, [rule])
  assert.deepEqual((await ok('GET', `${GROUPS}/${made.id}`)).security_group.security_group_rules, [
    rule,
  ])

  // Another group refers to it: it stays.
  const other = (
    await ok(
      'POST',
      '/v2.0/security-groups',
      {
        security_group: { name: 'front' },
      },
      201,
    )
  ).security_group
  const refers = (
    await ok(
      'POST',
      '/v2.0/security-group-rules',
      {
        security_group_rule: {
          security_group_id: other.id,
          direction: 'ingress',
          ethertype: 'IPv6',
          protocol: 'icmpv6',
          port_range_min: 128,
          remote_group_id: made.id,
          remote_ip_prefix: '',
        },
      },
      201,
    )
  ).security_group_rule
  await refused('DELETE', `${GROUPS}/${made.id}`, undefined, 409, 'VPC.0606')
  await ok('DELETE', `/v2.0/security-group-rules/${refers.id}`, undefined, 204)
  await ok('DELETE', `${GROUPS}/${made.id}`, undefined, 204)
  await refused('GET', `${GROUPS}/${made.id}`, undefined, 404, 'VPC.0202')
  await ok('DELETE', `/v2.0/security-groups/${other.id}`, undefined, 204)
  assert.deepEqual(
    (await ok('GET', '/v2.0/security-group-rules')).security_group_rules.filter(
      (one: { security_group_id: string }) => one.security_group_id === made.id,
    ),
    [],
  )
})

test('a security group is renamed over Neutron, and nobody else becomes the default one', async () => {
  const { id } = (await ok('POST', GROUPS, { security_group: { name: 'old' } })).security_group
  const change = { security_group: { name: 'new', description: 'text' } }
  const { security_group: changed } = await ok('PUT', `/v2.0/security-groups/${id}`, change)
  assert.deepEqual([changed.name, changed.description], ['new', 'text'])
  const taken = { security_group: { name: 'default' } }
  await refused('POST', GROUPS, taken, 409, 'VPC.0602')
  await refused('PUT', `/v2.0/security-groups/${id}`, taken, 400, 'InvalidInput')
  await refused('POST', '/v2.0/security-groups', taken, 409, 'SecurityGroupDefaultAlreadyExists')
  const absent = `/v2.0/security-groups/${newId()}`
  await refused('PUT', absent, change, 404, 'SecurityGroupNotFound')
  await ok('DELETE', `${GROUPS}/${id}`, undefined, 204)
})

test('a name in the place of an id is not found, in any form of the API', async () => {
  for (const [url, code] of [
    [`${VPCS}/default`, 'VPC.0202'],
    ['/v3/{project}/vpc/vpcs/default', 'VPC.0202'],
    [`${SUBNETS}/default`, 'VPC.0202'],
    [`${PORTS}/nic`, 'VPC.0202'],
    [`${GROUPS}/default`, 'VPC.0202'],
    ['/v2.0/networks/default', 'NetworkNotFound'],
    ['/v2.0/subnets/default', 'SubnetNotFound'],
    ['/v2.0/ports/nic', 'PortNotFound'],
    ['/v2.0/security-groups/default', 'SecurityGroupNotFound'],
    ['/v2.0/{project}/vpcs/default/tags', 'ResourceNotFound'],
    ['/v2.0/{project}/subnets/default/tags', 'ResourceNotFound'],
    [`/v2.0/{project}/routers/${newId()}/tags`, 'ResourceNotFound'],
  ] as const) {
    await refused('GET', url, undefined, 404, code)
  }
})

test('lists are paged by the last id, and those of Neutron link the next page', async () => {
  const home = await vpc()
  const nets = []
  for (const third of [1, 2, 3, 4]) {
    const over = { cidr: `10.0.${third}.0/24`, gateway_ip: `10.0.${third}.1` }
    nets.push((await subnet(home, over)).id)
  }
  const walk = async (url: string, list: string, limit: number) => {
    const ids: string[] = []
    for (let marker = ''; ; marker = ids.at(-1) ?? '') {
      const page = (await ok('GET', `${url}?limit=${limit}${marker && `&marker=${marker}`}`))[list]
      if (page.length === 0) return ids
      ids.push(...page.map((one: { id: string }) => one.id))
    }
  }
  for (const [url, list] of [
    [SUBNETS, 'subnets'],
    [VPCS, 'vpcs'],
    [GROUPS, 'security_groups'],
    ['/v2.0/networks', 'networks'],
    ['/v2.0/subnets', 'subnets'],
  ] as const) {
    const all = (await ok('GET', url))[list].map((one: { id: string }) => one.id)
    assert.deepEqual(await walk(url, list, 2), all, url)
    assert.deepEqual((await ok('GET', `${url}?marker=${newId()}`))[list], [])
    assert.deepEqual((await ok('GET', `${url}?limit=0`))[list].length, all.length)
  }
  const first = await ok('GET', '/v2.0/networks?limit=2&sort_key=name&sort_dir=desc')
  const [link] = first.networks_links
  assert.equal(link.rel, 'next')
  const next = new URL(link.href)
  assert.equal(next.host, '127.0.0.1:7410')
  const second = await ok('GET', next.pathname + next.search)
  const names = [...first.networks, ...second.networks].map((one: { name: string }) => one.name)
  assert.deepEqual(names, names.toSorted().toReversed())
  assert.equal((await ok('GET', '/v2.0/networks?limit=1000')).networks_links, undefined)
  for (const url of [`/v1/${project}/vpcs?limit=x`, '/v2.0/networks?limit=-1']) {
    const headers = { 'x-auth-token': token }
    assert.equal((await lab.call({ url, headers })).status, 400, url)
  }
  for (const id of nets) await ok('DELETE', `${VPCS}/${home}/subnets/${id}`, undefined, 204)
  await ok('DELETE', `${VPCS}/${home}`, undefined, 204)
})

test('networks are found by the members that clients ask for', async () => {
  const id = defaultSubnetId(project)
  for (const [query, found] of [
    [`name=default`, true],
    [`id=${id}&status=ACTIVE`, true],
    [`status=ACTIVE&id=${newId()}`, false],
    ['router:external=True', false],
    ['router%3Aexternal=false', true],
    ['shared=False', true],
    [`tenant_id=${project}`, true],
    [`project_id=${'f'.repeat(32)}`, false],
    ['provider:network_type=vlan', true],
    ['name=', true],
  ] as const) {
    const { networks } = await ok('GET', `/v2.0/networks?${query}`)
    assert.equal(
      networks.some((one: { id: string }) => one.id === id),
      found,
      query,
    )
  }
  const { subnets } = await ok(
    'GET',
    `/v2.0/subnets?network_id=${id}&ip_version=4&enable_dhcp=true`,
  )
  assert.equal(subnets.length, 1)
  assert.deepEqual(await ok('GET', '/v2.0/extensions'), { extensions: [] })
  assert.equal((await call('GET', '/v2.0/extensions')).status, 200)
})

test('what clients must be told is absent is absent, and what is not offered says so', async () => {
  const headers = { 'x-auth-token': token }
  for (const [method, url, status] of [
    ['GET', '/v2.0/extensions/Availability%20Zone', 404],
    ['POST', `/v3/${project}/vpc/security-groups`, 404],
    ['PUT', `/v3/${project}/vpc/security-groups/${newId()}`, 404],
    ['GET', `/v3/${project}/vpc/security-groups/${newId()}`, 404],
    ['GET', '/v2.0/routers', 404],
    ['POST', '/v2.0/networks', 405],
    ['POST', '/v2.0/subnets', 405],
    ['DELETE', `/v2.0/networks/${newId()}`, 405],
  ] as const) {
    const reply = await lab.call({
      method,
      url,
      headers,
      ...(method === 'GET' ? {} : { body: {} }),
    })
    assert.equal(reply.status, status, `${method} ${url}: ${reply.text}`)
  }
})

test('tags of VPCs, subnets and security groups are added, replaced, listed and removed', async () => {
  const home = await vpc()
  const { id: group } = (await ok('POST', GROUPS, { security_group: { name: 'tagged' } }))
    .security_group
  for (const path of [
    `vpcs/${home}`,
    `subnets/${defaultSubnetId(project)}`,
    `security-groups/${group}`,
  ]) {
    const url = `/v2.0/{project}/${path}/tags`
    assert.deepEqual((await ok('GET', url)).tags, [])
    const act = async (action: string, tags: readonly object[], status = 204) =>
      await ok('POST', `${url}/action`, { action, tags }, status)
    await act('create', [
      { key: 'b', value: '2' },
      { key: 'a', value: '' },
    ])
    await act('create', [{ key: 'b', value: '3' }])
    assert.deepEqual((await ok('GET', url)).tags, [
      { key: 'a', value: '' },
      { key: 'b', value: '3' },
    ])
    const many = Array.from({ length: 19 }, (_, at) => ({ key: `k${at}`, value: 'v' }))
    for (const [action, tags] of [
      ['create', many],
      ['create', [{ key: ' a', value: '' }]],
      ['create', [{ key: 'a' }, { key: 'a' }]],
      ['create', []],
      ['drop', [{ key: 'a' }]],
    ] as const) {
      await refused('POST', `${url}/action`, { action, tags }, 400, 'InvalidInput')
    }
    await act('delete', [{ key: 'a' }, { key: 'absent' }])
    assert.deepEqual((await ok('GET', url)).tags, [{ key: 'b', value: '3' }])
    await act('delete', [{ key: 'b' }])
  }
  await ok(
    'POST',
    `/v2.0/{project}/vpcs/${home}/tags/action`,
    {
      action: 'create',
      tags: [{ key: 'a', value: 'b' }],
    },
    204,
  )
  await ok('DELETE', `${GROUPS}/${group}`, undefined, 204)
  await ok('DELETE', `${VPCS}/${home}`, undefined, 204)
  const left = await lab.store.db.selectFrom('tags').selectAll().execute()
  assert.deepEqual(left, [], 'tags go with what they are on')
})

test('a project has as much of each as its quota says, and not one more', async () => {
  const other = await lab.project('local-1_small')
  const { token: small } = await lab.userWith('operator', other)
  const limit = async (kind: NetworkQuotaKind, most: number) =>
    await lab.store.write((tx) => setQuotaLimit(tx, other, kind, most))
  const post = async (url: string, body: unknown) => {
    const headers = { 'x-auth-token': small }
    return await lab.call({ method: 'POST', url: `/v1/${other}/${url}`, headers, body })
  }
  const full = async (url: string, body: unknown) => {
    const reply = await post(url, body)
    assert.deepEqual([reply.status, reply.body.code], [409, 'VPC.0114'], `${url}: ${reply.text}`)
  }
  await limit('vpcs', 2)
  const made = await post('vpcs', { vpc: { name: 'a', cidr: '10.0.0.0/16' } })
  assert.equal(made.status, 200)
  await full('vpcs', { vpc: { name: 'b', cidr: '10.0.0.0/16' } })

  await limit('subnets', 1)
  const net = { name: 'n', cidr: '10.0.0.0/24', gateway_ip: '10.0.0.1', vpc_id: made.body.vpc.id }
  await full('subnets', { subnet: net })
  await limit('subnets', 2)
  assert.equal((await post('subnets', { subnet: net })).status, 200)

  await limit('security_groups', 1)
  await full('security-groups', { security_group: { name: 'g' } })
  await limit('security_groups', 2)
  await limit('security_group_rules', 7)
  await full('security-groups', { security_group: { name: 'g' } })
  await limit('security_group_rules', 8)
  const group = await post('security-groups', { security_group: { name: 'g' } })
  assert.equal(group.status, 200)
  await full('security-group-rules', {
    security_group_rule: {
      security_group_id: group.body.security_group.id,
      direction: 'ingress',
      protocol: 'icmp',
    },
  })
  await limit('ports', 0)
  const outcome = await lab.store.write(
    async (tx) =>
      await createPort(
        tx,
        {
          project: other,
          subnet: null,
          address: null,
          server: null,
          place: 0,
          securityGroups: [],
          deleteWithServer: false,
          name: '',
        },
        1,
      ),
  )
  assert.deepEqual(outcome, { ok: false, refusal: 'QUOTA_PORTS' })
})

test('networks, security groups and tags go with their project', async () => {
  const other = await lab.project('local-1_passing')
  const { token: theirs } = await lab.userWith('operator', other)
  const headers = { 'x-auth-token': theirs }
  const url = `/v2.0/${other}/vpcs/${defaultVpcId(other)}/tags/action`
  const body = { action: 'create', tags: [{ key: 'a', value: 'b' }] }
  assert.equal((await lab.call({ method: 'POST', url, headers, body })).status, 204)
  await lab.identity.management.deleteProject(await lab.domain(), other)
  for (const table of [...TABLES, 'tags'] as const) {
    const left = lab.store.db.selectFrom(table).select('project').where('project', '=', other)
    assert.deepEqual(await left.execute(), [], table)
  }
})

test('every route is on the page of its API, with its method, and nothing else is', () => {
  for (const [page, dialects] of [
    ['network.md', ['vpc', 'neutron']],
    ['image.md', ['glance']],
  ] as const) {
    const file = join(import.meta.dirname, '../../docs/compatibility', page)
    const served = readFileSync(file, 'utf8')
      .split('\n')
      .filter((line) => /^\| `\/.*\| (?:GET|POST|PUT|DELETE)/.test(line))
      .flatMap((line) => {
        const [, paths = '', methods = ''] = line.split('|')
        return [...paths.matchAll(/`([^`]+)`/g)].flatMap(([, path = '']) =>
          methods
            .split(',')
            .map((method) => `${method.trim()} ${path.replaceAll(/\{[^}]*\}/g, '{}')}`),
        )
      })
    const mounted = lab.app.routeTable
      .filter(({ dialect }) => dialects.some((name) => name === dialect.name))
      .map(({ method, url }) => {
        const path = url.replace(':project_id', 'P').replaceAll(/:[a-z_]+/g, '{}')
        return `${method} ${path}`
      })
    assert.deepEqual(served.toSorted(), mounted.toSorted(), page)
  }
})
