/** The `openstack` command and openstacksdk against networks, security groups and images of a listening server. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { imageId } from '#control/resources/images.ts'
import { createPort, defaultSecurityGroupId, defaultSubnetId } from '#control/resources/networks.ts'
import type { PortRow } from '#control/store/tables/networks.ts'
import { ApiLab, REGION } from '../support/api.ts'

let lab: ApiLab
let origin: string
let project: string
let nic: PortRow

before(async () => {
  lab = await ApiLab.start()
  origin = await lab.listen()
  project = lab.admin.project_id
  const made = await lab.store.write(
    async (tx) =>
      await createPort(
        tx,
        {
          project,
          subnet: null,
          address: '192.168.3.3',
          server: null,
          place: 0,
          securityGroups: [],
          deleteWithServer: true,
          name: 'nic',
        },
        lab.clock.wallMs(),
      ),
  )
  assert.ok(made.ok)
  nic = made.port
})
after(async () => await lab.stop())

const cloud = () => ({
  OS_AUTH_URL: `${origin}/v3`,
  OS_USERNAME: lab.admin.user,
  OS_PASSWORD: lab.admin.password,
  OS_PROJECT_NAME: lab.admin.project_name,
  OS_USER_DOMAIN_NAME: lab.admin.domain,
  OS_PROJECT_DOMAIN_NAME: lab.admin.domain,
  OS_REGION_NAME: REGION,
  OS_IDENTITY_API_VERSION: '3',
})

async function run(command: string, args: readonly string[], input = '') {
  const env = { ...process.env, ...cloud() }
  const child = spawn(command, args, { env, stdio: ['pipe', 'pipe', 'pipe'] })
  const ended = once(child, 'close').then(
    ([code]) => code as number | null,
    (error: Error) => error.message,
  )
  child.stdin.on('error', () => {})
  child.stdin.end(input)
  const [code, out, err] = await Promise.all([ended, text(child.stdout), text(child.stderr)])
  return { code, out, err }
}

const hasOpenstack = once(spawn('openstack', ['--version'], { stdio: 'ignore' }), 'close').then(
  ([code]) => code === 0,
  () => false,
)

/** Runs commands one after the other in one process, since starting one takes longer than all of them. */
async function openstack(lines: readonly string[]): Promise<{ answers: unknown[]; err: string }> {
  const input = lines.map((line) => `${line}\n`).join('')
  const { out, err } = await run('openstack', [], input)
  const documents = out.split(/^(?=[[{])/m).filter((part) => part.trim() !== '')
  return {
    err,
    answers: documents.map((part) => {
      assert.match(part, /^[[{]/, `${out}\n${err}`)
      return JSON.parse(part) as unknown
    }),
  }
}

test('the openstack command shows networks and images, and manages security groups', async (t) => {
  if (!(await hasOpenstack))
    return t.skip('openstack is not installed: apt-get install python3-openstackclient')
  const { answers, err } = await openstack([
    'network list -f json',
    'network show default -f json',
    'subnet list -f json',
    'subnet show default -f json',
    'port list -f json',
    'port show nic -f json',
    'port create --network default --fixed-ip ip-address=192.168.4.4 made -f json',
    'port set --name renamed --security-group default made',
    'port delete renamed',
    'security group list -f json',
    'security group create web -f json',
    'security group rule create --proto tcp --dst-port 22 --remote-ip 10.0.0.0/8 web -f json',
    'security group rule create --proto icmp --remote-group default web -f json',
    'security group show web -f json',
    'security group rule list web -f json',
    'image list -f json',
    'image show holdfast-tiny -f json',
    'availability zone list -f json',
  ])
  assert.equal(err, '')
  assert.equal(answers.length, 16)
  const [networks, network, subnets, subnet, ports, port, own, groups, web, ssh, ping] =
    answers as [
      Record<string, unknown>[],
      Record<string, unknown>,
      Record<string, unknown>[],
      Record<string, unknown>,
      Record<string, unknown>[],
      Record<string, unknown>,
      { readonly fixed_ips: readonly { readonly ip_address: string }[] },
      Record<string, unknown>[],
      ...Record<string, unknown>[],
    ]
  const home = defaultSubnetId(project)
  assert.deepEqual(
    networks.map((one) => [one['ID'], one['Name']]),
    [[home, 'default']],
  )
  assert.deepEqual([network['id'], network['status']], [home, 'ACTIVE'])
  assert.deepEqual(
    subnets.map((one) => [one['Network'], one['Subnet']]),
    [[home, '192.168.0.0/20']],
  )
  assert.deepEqual([subnet['network_id'], subnet['gateway_ip']], [home, '192.168.0.1'])
  assert.deepEqual(
    ports.map((one) => [one['ID'], one['MAC Address'], one['Status']]),
    [[nic.id, nic.mac, 'DOWN']],
  )
  assert.deepEqual(
    [port['id'], port['security_group_ids']],
    [nic.id, [defaultSecurityGroupId(project)]],
  )
  assert.equal(own.fixed_ips[0]?.ip_address, '192.168.4.4')
  assert.deepEqual(
    groups.map((one) => one['Name']),
    ['default'],
  )
  assert.equal((web?.['rules'] as unknown[] | undefined)?.length, 4)
  assert.deepEqual([ssh?.['protocol'], ssh?.['port_range_max']], ['tcp', 22])
  assert.equal(ping?.['remote_group_id'], defaultSecurityGroupId(project))
  const [shown, rules, images, tiny] = answers.slice(11) as [
    Record<string, unknown>,
    unknown[],
    Record<string, unknown>[],
    Record<string, unknown>,
  ]
  assert.deepEqual([shown['name'], (shown['rules'] as unknown[]).length], ['web', 6])
  assert.equal(rules.length, 6)
  assert.deepEqual(
    new Set(images.map((one) => one['Name'])),
    new Set(['holdfast-counter', 'holdfast-tiny']),
  )
  assert.deepEqual([tiny['id'], tiny['status']], [imageId('holdfast-tiny'), 'active'])
})

test('the openstack command says why something is refused', async (t) => {
  if (!(await hasOpenstack))
    return t.skip('openstack is not installed: apt-get install python3-openstackclient')
  const { answers, err } = await openstack([
    'security group delete default',
    'security group rule create --proto tcp --dst-port 70000 default',
    'network show absent',
    'image show absent',
    'network create another',
  ])
  assert.deepEqual(answers, [])
  for (const said of [
    /default security group of a project is never deleted/,
    /port_range_min and port_range_max/,
    /No Network found for absent/,
    /No Image found for absent|Could not find resource absent/,
    /405/,
  ]) {
    assert.match(err, said)
  }
})

const PYTHON = `
import json
import openstack
conn = openstack.connect()
net = conn.network
found = net.find_network('default')
group = net.create_security_group(name='sdk', description='d')
rule = net.create_security_group_rule(security_group_id=group.id, direction='ingress',
  ethertype='IPv4', protocol='tcp', port_range_min=22, port_range_max=22, remote_ip_prefix='0.0.0.0/0')
seen = {
  'network': found.id,
  'subnet': net.find_subnet('default').network_id,
  'absent': net.find_network('absent'),
  'port': [p.fixed_ips[0]['ip_address'] for p in net.ports(network_id=found.id)],
  'paged': [n.name for n in net.networks(limit=1)],
  'groups': sorted(g.name for g in net.security_groups(limit=1)),
  'rules': len(list(net.security_group_rules(security_group_id=group.id))),
  'images': sorted(i.name for i in conn.image.images(limit=1)),
  'image': conn.get_image('holdfast-tiny').id,
  'group': conn.get_security_group('sdk').id == group.id,
}
net.delete_security_group_rule(rule)
seen['renamed'] = net.update_security_group(group, name='sdk2').name
net.delete_security_group(group)
seen['gone'] = net.find_security_group('sdk2')
print(json.dumps(seen))
`

test('openstacksdk finds networks and images, page by page, and manages security groups', async (t) => {
  if ((await run('/usr/bin/python3', ['-c', 'import openstack'])).code !== 0)
    return t.skip('openstacksdk is not installed: apt-get install python3-openstackclient')
  const { code, out, err } = await run('/usr/bin/python3', ['-c', PYTHON])
  assert.equal(code, 0, err)
  const { groups, ...seen } = JSON.parse(out) as Record<string, unknown>
  assert.ok((groups as string[]).includes('sdk'))
  assert.deepEqual(seen, {
    network: defaultSubnetId(project),
    subnet: defaultSubnetId(project),
    absent: null,
    port: ['192.168.3.3'],
    paged: ['default'],
    rules: 5,
    images: ['holdfast-counter', 'holdfast-tiny'],
    image: imageId('holdfast-tiny'),
    group: true,
    renamed: 'sdk2',
    gone: null,
  })
})
