/** VPCs, subnets, ports and security groups over both network APIs; every answer is held against the contract. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { newId } from '#base/ids.ts'
import {
  defaultSecurityGroupId,
  defaultSubnetId,
  defaultVpcId,
} from '#control/resources/networks.ts'
import { testsInCommon } from './network/in-common.ts'
import { GROUPS, NetworkApi, PORTS, RULES, SUBNETS, VPCS } from './network/network-api.ts'

let api: NetworkApi
before(async () => {
  api = await NetworkApi.start()
})
after(async () => await api.lab.stop())

test('every project has a VPC, a subnet and a security group named default from the beginning', async () => {
  const other = await api.lab.project('local-1_fresh')
  const admin = await api.lab.userWith('reader', other)
  const headers = { 'x-auth-token': admin.token }
  const read = async (url: string) => (await api.lab.call({ url, headers }, 'compute')).body
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
    assert.equal((await api.lab.call({ url: one, headers }, 'compute')).status, 200, one)
  }
})

test('the default ones are there to stay', async () => {
  await api.ok('GET', VPCS)
  const [home, net] = [defaultVpcId(api.project), defaultSubnetId(api.project)]
  await api.refused('DELETE', `${VPCS}/${home}`, undefined, 409, 'VPC.0105')
  await api.refused('DELETE', `${VPCS}/${home}/subnets/${net}`, undefined, 409, 'VPC.0203')
  const group = defaultSecurityGroupId(api.project)
  await api.refused('DELETE', `${GROUPS}/${group}`, undefined, 409, 'VPC.0605')
  const neutron = `/v2.0/security-groups/${group}`
  await api.refused('DELETE', neutron, undefined, 409, 'SecurityGroupCannotRemoveDefault')
  const rename = { security_group: { name: 'other' } }
  await api.refused('PUT', neutron, rename, 400, 'InvalidInput')
})

test('a VPC is made, renamed, widened and deleted', async () => {
  const made = (
    await api.ok('POST', VPCS, {
      vpc: { name: 'a', cidr: '10.1.0.0/20', description: 'd', enterprise_project_id: '0' },
    })
  ).vpc
  assert.equal(made.status, 'OK')
  const { id } = made
  const changed = (
    await api.ok('PUT', `${VPCS}/${id}`, {
      vpc: { name: 'b', cidr: '10.1.0.0/16', description: '' },
    })
  ).vpc
  assert.deepEqual([changed.name, changed.cidr, changed.description], ['b', '10.1.0.0/16', ''])
  assert.deepEqual((await api.ok('GET', `${VPCS}/${id}`)).vpc, changed)
  const v3 = (await api.ok('GET', `/v3/{project}/vpc/vpcs/${id}`)).vpc
  assert.deepEqual(v3.extend_cidrs, [])
  await api.ok('DELETE', `${VPCS}/${id}`, undefined, 204)
  await api.refused('GET', `${VPCS}/${id}`, undefined, 404, 'VPC.0202')
  await api.refused('DELETE', `${VPCS}/${id}`, undefined, 404, 'VPC.0202')
})

test('a VPC that asks for no range has one, and a list by id finds it', async () => {
  const { id, cidr } = (await api.ok('POST', VPCS, { vpc: { name: 'plain' } })).vpc
  assert.equal(cidr, '192.168.0.0/16')
  const { vpcs } = await api.ok('GET', `${VPCS}?id=${id}&enterprise_project_id=all_granted_eps`)
  assert.deepEqual(
    vpcs.map((one: { id: string }) => one.id),
    [id],
  )
  await api.ok('DELETE', `${VPCS}/${id}`, undefined, 204)
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
    await api.refused('POST', VPCS, { vpc: { name: 'v', cidr } }, 400, 'VPC.0101')
  }
  for (const body of [undefined, {}, { vpc: null }, { vpc: { name: 7 } }, { vpc: [] }]) {
    await api.refused('POST', VPCS, body, 400, 'VPC.0101')
  }
  const id = await api.vpc()
  const inside = await api.subnet(id)
  await api.refused('PUT', `${VPCS}/${id}`, { vpc: { cidr: '10.0.2.0/24' } }, 400, 'VPC.0107')
  await api.refused('DELETE', `${VPCS}/${id}`, undefined, 409, 'VPC.0106')
  await api.ok('DELETE', `${VPCS}/${id}/subnets/${inside.id}`, undefined, 204)
  await api.ok('DELETE', `${VPCS}/${id}`, undefined, 204)
})

test('a subnet keeps what it was given, changes, and is a network of Neutron under the same name', async () => {
  const home = await api.vpc()
  const made = await api.subnet(home, {
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
  const network = (await api.ok('GET', `/v2.0/networks/${made.id}`)).network
  assert.deepEqual([network.name, network.subnets], ['net', [made.neutron_subnet_id]])
  const shown = (await api.ok('GET', `/v2.0/subnets/${made.neutron_subnet_id}`)).subnet
  assert.equal(shown.network_id, made.id)
  assert.deepEqual(shown.allocation_pools, [{ start: '10.0.1.2', end: '10.0.1.254' }])
  const place = `${VPCS}/${home}/subnets/${made.id}`
  const changed = (
    await api.ok('PUT', place, { subnet: { name: 'net2', dhcp_enable: false, dnsList: [] } })
  ).subnet
  assert.deepEqual([changed.name, changed.dhcp_enable, changed.primary_dns], ['net2', false, ''])
  assert.deepEqual((await api.ok('GET', `${SUBNETS}/${made.id}`)).subnet, changed)
  await api.refused('GET', `${SUBNETS}/${made.neutron_subnet_id}`, undefined, 404, 'VPC.0202')
  await api.refused(
    'GET',
    `/v2.0/networks/${made.neutron_subnet_id}`,
    undefined,
    404,
    'NetworkNotFound',
  )
  await api.refused('GET', `/v2.0/subnets/${made.id}`, undefined, 404, 'SubnetNotFound')
  const elsewhere = `${VPCS}/${defaultVpcId(api.project)}/subnets/${made.id}`
  await api.refused('PUT', elsewhere, { subnet: { name: 'x' } }, 404, 'VPC.0202')
  await api.refused('DELETE', elsewhere, undefined, 404, 'VPC.0202')
  await api.ok('DELETE', place, undefined, 204)
  await api.refused('DELETE', place, undefined, 404, 'VPC.0202')
  await api.ok('DELETE', `${VPCS}/${home}`, undefined, 204)
})

test('subnets lie inside their VPC, beside each other, and have names of their own in the project', async () => {
  const home = await api.vpc()
  const first = await api.subnet(home)
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
    await api.refused('POST', SUBNETS, { subnet: { ...good, ...over } }, status, code)
  }
  const second = (await api.ok('POST', SUBNETS, { subnet: good })).subnet
  const place = `${VPCS}/${home}/subnets/${second.id}`
  await api.refused('PUT', place, { subnet: { name: first.name } }, 400, 'VPC.0206')
  const { subnets } = await api.ok('GET', `${SUBNETS}?vpc_id=${home}`)
  assert.equal(subnets.length, 2)
  assert.ok((await api.ok('GET', SUBNETS)).subnets.length > 2)
  for (const { id } of subnets)
    await api.ok('DELETE', `${VPCS}/${home}/subnets/${id}`, undefined, 204)
  await api.ok('DELETE', `${VPCS}/${home}`, undefined, 204)
})

test('a port has an address of its subnet, a MAC and groups, and keeps its subnet and groups from deletion', async () => {
  const home = await api.vpc()
  const net = await api.subnet(home, { cidr: '10.0.1.0/28' })
  const { id: group } = (await api.ok('POST', GROUPS, { security_group: { name: 'web' } }))
    .security_group
  const made = await api.port(net.id, { securityGroups: [group, 'default'], name: 'nic' })
  const shown = (await api.ok('GET', `${PORTS}/${made.id}`)).port
  assert.match(shown.mac_address, /^fa:16:3e(:[0-9a-f]{2}){3}$/)
  assert.deepEqual(shown.fixed_ips, [{ subnet_id: net.neutron_subnet_id, ip_address: '10.0.1.2' }])
  assert.deepEqual(shown.security_groups, [group, defaultSecurityGroupId(api.project)])
  assert.deepEqual([shown.device_id, shown.device_owner, shown.status], ['', '', 'DOWN'])
  assert.deepEqual((await api.ok('GET', `/v2.0/ports/${made.id}`)).port, shown)
  await api.refused('DELETE', `${VPCS}/${home}/subnets/${net.id}`, undefined, 409, 'VPC.0208')
  await api.refused('DELETE', `${GROUPS}/${group}`, undefined, 409, 'VPC.0606')

  const given = { port: { name: 'renamed', security_groups: [], allowed_address_pairs: [] } }
  const changed = (await api.ok('PUT', `${PORTS}/${made.id}`, given)).port
  assert.equal(changed.name, 'renamed')
  assert.deepEqual(changed.security_groups, [defaultSecurityGroupId(api.project)])
  const pairs = { port: { allowed_address_pairs: [{ ip_address: '1.1.1.1/0' }] } }
  await api.refused('PUT', `${PORTS}/${made.id}`, pairs, 400, 'VPC.0101')
  const strange = { port: { security_groups: [newId()] } }
  await api.refused('PUT', `${PORTS}/${made.id}`, strange, 400, 'VPC.0101')
  await api.refused('PUT', `${PORTS}/${newId()}`, given, 404, 'VPC.0202')

  const second = await api.port(net.id)
  for (const [query, ids] of [
    [`network_id=${net.id}`, [made.id, second.id]],
    [`network_id=${net.id}&limit=100`, [made.id, second.id]],
    [`network_id=${newId()}`, []],
    [`device_id=${newId()}`, []],
  ] as const) {
    const { ports } = await api.ok('GET', `${PORTS}?${query}`)
    const found = ports.map((one: { id: string }) => one.id)
    assert.deepEqual(new Set(found), new Set(ids), query)
    const neutron = (await api.ok('GET', `/v2.0/ports?${query}&fields=id&fields=name`)).ports
    assert.deepEqual(new Set(neutron.map((one: { id: string }) => one.id)), new Set(ids), query)
  }
  for (const [query, ids] of [
    [`fixed_ips=ip_address%3D${second.address}`, [second.id]],
    [`fixed_ips=subnet_id%3D${net.neutron_subnet_id}&fixed_ips=ip_address%3D10.0.1.2`, [made.id]],
    [`fixed_ips=subnet_id%3D${newId()}`, []],
    [`mac_address=${shown.mac_address}`, [made.id]],
    [`id=${made.id}&id=${second.id}&name=renamed`, [made.id]],
  ] as const) {
    const { ports } = await api.ok('GET', `/v2.0/ports?${query}`)
    assert.deepEqual(
      ports.map((one: { id: string }) => one.id),
      ids,
      query,
    )
  }
  for (const { id } of [made, second]) await api.dropPort(id)
  await api.ok('DELETE', `${GROUPS}/${group}`, undefined, 204)
  await api.ok('DELETE', `${VPCS}/${home}/subnets/${net.id}`, undefined, 204)
  await api.ok('DELETE', `${VPCS}/${home}`, undefined, 204)
})

test('a port that is made over Neutron waits for a server, with the address that was asked for', async () => {
  const {
    id: network,
    neutron_subnet_id: subnetId,
    ...net
  } = (await api.ok('GET', `${SUBNETS}/${defaultSubnetId(api.project)}`)).subnet
  const wish = { network_id: network, name: 'fixed', admin_state_up: true, device_id: '' }
  const fixed = { subnet_id: subnetId, ip_address: '192.168.7.7' }
  const { port: first } = await api.ok(
    'POST',
    '/v2.0/ports',
    {
      port: { ...wish, fixed_ips: [fixed], security_groups: ['default'] },
    },
    201,
  )
  assert.deepEqual(first.fixed_ips, [fixed])
  assert.deepEqual([first.device_id, first.status, first.name], ['', 'DOWN', 'fixed'])
  const { port: second } = await api.ok('POST', '/v2.0/ports', { port: wish }, 201)
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
    await api.refused('POST', '/v2.0/ports', { port: { ...wish, ...over } }, status, type)
  }
  const url = `/v2.0/ports/${second.id}`
  const { port: changed } = await api.ok('PUT', url, { port: { name: 'x', security_groups: [] } })
  assert.deepEqual([changed.name, changed.security_groups.length], ['x', 1])
  const pairs = { port: { allowed_address_pairs: [{ ip_address: '1.1.1.1' }] } }
  await api.refused('PUT', url, pairs, 400, 'InvalidInput')
  await api.refused('PUT', `/v2.0/ports/${newId()}`, { port: {} }, 404, 'PortNotFound')
  for (const { id } of [first, second]) await api.ok('DELETE', `/v2.0/ports/${id}`, undefined, 204)
  await api.refused('DELETE', url, undefined, 404, 'PortNotFound')
  // Those of a server are the server's, even while nobody wears them.
  for (const over of [{ server: newId(), deleteWithServer: false }, {}]) {
    const kept = await api.port(network, over)
    await api.refused('DELETE', `/v2.0/ports/${kept.id}`, undefined, 409, 'PortInUse')
    await api.dropPort(kept.id)
  }
})

test('a security group comes with four rules that can be deleted, and takes others once each', async () => {
  const made = (
    await api.ok('POST', GROUPS, {
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
  for (const { id } of rules) await api.ok('DELETE', `${RULES}/${id}`, undefined, 204)
  await api.refused('DELETE', `${RULES}/${rules[0].id}`, undefined, 404, 'VPC.0202')
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
  const rule = (await api.ok('POST', RULES, body)).security_group_rule
  assert.deepEqual([rule.ethertype, rule.protocol, rule.port_range_min], ['IPv4', 'tcp', 22])
  await api.refused('POST', RULES, body, 409, 'VPC.0607')
  await api.refused('POST', '/v2.0/security-group-rules', body, 409, 'SecurityGroupRuleExists')
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
    await api.refused('POST', RULES, wrong, status, code)
  }
  assert.deepEqual((await api.ok('GET', `${RULES}/${rule.id}`)).security_group_rule, rule)
  const list = await api.ok('GET', `${RULES}?security_group_id=${made.id}`)
  assert.deepEqual(list.security_group_rules, [rule])
  assert.deepEqual(
    (await api.ok('GET', `${GROUPS}/${made.id}`)).security_group.security_group_rules,
    [rule],
  )

  // Another group refers to it: it stays.
  const other = (
    await api.ok(
      'POST',
      '/v2.0/security-groups',
      {
        security_group: { name: 'front' },
      },
      201,
    )
  ).security_group
  const refers = (
    await api.ok(
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
  await api.refused('DELETE', `${GROUPS}/${made.id}`, undefined, 409, 'VPC.0606')
  await api.ok('DELETE', `/v2.0/security-group-rules/${refers.id}`, undefined, 204)
  await api.ok('DELETE', `${GROUPS}/${made.id}`, undefined, 204)
  await api.refused('GET', `${GROUPS}/${made.id}`, undefined, 404, 'VPC.0202')
  await api.ok('DELETE', `/v2.0/security-groups/${other.id}`, undefined, 204)
  assert.deepEqual(
    (await api.ok('GET', '/v2.0/security-group-rules')).security_group_rules.filter(
      (one: { security_group_id: string }) => one.security_group_id === made.id,
    ),
    [],
  )
})

test('a security group is renamed over Neutron, and nobody else becomes the default one', async () => {
  const { id } = (await api.ok('POST', GROUPS, { security_group: { name: 'old' } })).security_group
  const change = { security_group: { name: 'new', description: 'text' } }
  const { security_group: changed } = await api.ok('PUT', `/v2.0/security-groups/${id}`, change)
  assert.deepEqual([changed.name, changed.description], ['new', 'text'])
  const taken = { security_group: { name: 'default' } }
  await api.refused('POST', GROUPS, taken, 409, 'VPC.0602')
  await api.refused('PUT', `/v2.0/security-groups/${id}`, taken, 400, 'InvalidInput')
  await api.refused(
    'POST',
    '/v2.0/security-groups',
    taken,
    409,
    'SecurityGroupDefaultAlreadyExists',
  )
  const absent = `/v2.0/security-groups/${newId()}`
  await api.refused('PUT', absent, change, 404, 'SecurityGroupNotFound')
  await api.ok('DELETE', `${GROUPS}/${id}`, undefined, 204)
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
    await api.refused('GET', url, undefined, 404, code)
  }
})

testsInCommon(() => api)
