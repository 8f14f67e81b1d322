/**
 * The real `openstack` command and openstacksdk against a complete system with real guests: one server from its creation to its deletion,
 * with a disk that its kernel sees come and go.
 */
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { Lab } from '../lab.ts'
import { testImages } from '../support/images.ts'
import { OpenStack } from '../support/openstack-cli.ts'

/** Without hardware support, on a machine that does other things as well. */
const BOOT_MS = 180_000

const images = await testImages()
const skip = 'skip' in images ? images.skip : OpenStack.missing()
let lab: Lab
let openstack: OpenStack

before(async () => {
  if ('skip' in images || skip !== false) return
  lab = await Lab.start({
    HOLDFAST_IMAGE_DIR: images.directory,
    HOLDFAST_QEMU_ACCELERATOR: 'tcg',
  })
  openstack = await OpenStack.start(lab.credentials)
})
after(async () => {
  if (skip !== false) return
  await openstack?.stop()
  await lab?.close()
})

const SERVERS = '/v2.1/{project}/servers'

async function show(id: string): Promise<{ status: string; name: string }> {
  const { server } = await lab.ok<{ server: { status: string; name: string } }>(
    200,
    'GET',
    `${SERVERS}/${id}`,
  )
  return server
}

async function becomes(id: string, status: string): Promise<void> {
  await lab.until(
    `${id} is ${status}`,
    () => show(id),
    (server) => server.status === status,
    BOOT_MS,
  )
}

/** Waits until the console has said it. */
async function says(id: string, pattern: RegExp): Promise<void> {
  const ask = async () => {
    const body = { 'os-getConsoleOutput': {} }
    const { output } = await lab.ok<{ output: string }>(
      200,
      'POST',
      `${SERVERS}/${id}/action`,
      body,
    )
    return output
  }
  await lab.until(`the console says ${pattern}`, ask, (output) => pattern.test(output), BOOT_MS)
}

const guests = (site: string): string[] =>
  readdirSync(join(lab.data, 'run')).filter((name) => name.startsWith(`${site}-guest-`))

let id = ''

test('a server is created from an image and waited for', { skip }, async () => {
  assert.match(await openstack.ok('keypair', 'create', 'key'), /PRIVATE KEY/)
  const words = 'server create --image holdfast-tiny --flavor t2.micro --network default'
  const more = ['--availability-zone', 'az1', '--key-name', 'key', '--property', 'role=web']
  const made = await openstack.json(...words.split(' '), ...more, '--wait', 'web')
  id = made.id as string
  assert.equal(made.status, 'ACTIVE')
  assert.equal(made.name, 'web')
  assert.match(JSON.stringify(made.addresses), /192\.168\./)
  assert.match(String(made.image), /holdfast-tiny/)
  await says(id, /^READY web 1\r?$/m)
})

test('it is found by name, and listed with what it is made of', { skip }, async () => {
  const shown = await openstack.json('server', 'show', 'web')
  assert.equal(shown.id, id)
  assert.deepEqual(shown.properties, { role: 'web' })
  const [listed] = await openstack.json('server', 'list')
  assert.equal(listed.ID, id)
  assert.equal(listed.Status, 'ACTIVE')
  assert.equal(listed.Image, 'holdfast-tiny')
  assert.equal(listed.Flavor, 't2.micro')
  const flavors = (await openstack.json('flavor', 'list')) as { Name: string }[]
  assert.ok(flavors.some(({ Name }) => Name === 't2.micro'))
  const zones = JSON.stringify(await openstack.json('availability', 'zone', 'list'))
  assert.match(zones, /az1.*az2/)
  const ports = (await openstack.json('port', 'list', '--server', 'web')) as object[]
  assert.equal(ports.length, 1)
  const unknown = await openstack.run('server', 'show', 'nobody')
  assert.notEqual(unknown.code, 0)
  assert.match(unknown.err, /nobody/)
})

test('a disk is added to the running guest, and taken out of it', { skip }, async () => {
  const made = await openstack.json(
    ...'volume create --size 1 --availability-zone az1 data'.split(' '),
  )
  const status = async () => await openstack.json('volume', 'show', 'data')
  await lab.until('the disk is available', status, (volume) => volume.status === 'available')
  await openstack.ok('server', 'add', 'volume', 'web', 'data')
  await says(id, /^DISK vdb 1073741824 /m)
  const attached = await openstack.json('server', 'volume', 'list', 'web')
  assert.ok(JSON.stringify(attached).includes(made.id as string))
  assert.equal((await status()).status, 'in-use')
  const twice = await openstack.run('server', 'add', 'volume', 'web', 'data')
  assert.notEqual(twice.code, 0)
  await openstack.ok('server', 'remove', 'volume', 'web', 'data')
  await says(id, /^GONE vdb/m)
  await lab.until('the disk is free', status, (volume) => volume.status === 'available')
  await openstack.ok('volume', 'delete', 'data')
})

test('it is stopped, started, renamed and rebooted, and its console tells of it', {
  skip,
}, async () => {
  await openstack.ok('server', 'stop', 'web')
  await becomes(id, 'SHUTOFF')
  assert.deepEqual(guests('az1'), [])
  const again = await openstack.run('server', 'stop', 'web')
  assert.notEqual(again.code, 0)
  await openstack.ok('server', 'start', 'web')
  await becomes(id, 'ACTIVE')
  await openstack.ok('server', 'set', '--name', 'web-2', '--property', 'a=b', 'web')
  await openstack.ok('server', 'reboot', '--hard', '--wait', 'web-2')
  assert.equal((await show(id)).status, 'ACTIVE')
  // The boot before may have been cut short, so it need not have counted itself.
  await says(id, /^READY \S+ [23]\r?$/m)
  assert.match(await openstack.ok('console', 'log', 'show', 'web-2'), /READY \S+ [23]/)
  const last = await openstack.ok('console', 'log', 'show', '--lines', '1', 'web-2')
  assert.equal(last.trim().split('\n').length, 1)
  await openstack.ok('server', 'unset', '--property', 'a', 'web-2')
})

test('it is deleted with its root disk, and nothing of it is left', { skip }, async () => {
  await openstack.ok('server', 'delete', '--wait', 'web-2')
  assert.deepEqual(await openstack.json('server', 'list'), [])
  assert.deepEqual(await openstack.json('volume', 'list'), [])
  assert.deepEqual(await openstack.json('port', 'list'), [])
  assert.deepEqual(guests('az1'), [])
  await openstack.ok('keypair', 'delete', 'key')
})

test('openstacksdk makes a server, waits for it, and deletes it', { skip }, async () => {
  const seen = await openstack.sdk(`
cloud = openstack.connect()
server = cloud.create_server(
    'sdk', image='holdfast-tiny', flavor='t2.micro', network='default',
    availability_zone='az2', auto_ip=False, wait=True, timeout=${BOOT_MS / 1000})
found = cloud.compute.find_server('sdk')
disks = [d.volume_id for d in cloud.compute.volume_attachments(server.id)]
missing = cloud.compute.find_server('nobody')
names = [one.name for one in cloud.compute.servers(limit=1)]
deleted = cloud.delete_server('sdk', wait=True, timeout=${BOOT_MS / 1000})
print(json.dumps({
    'status': server.status, 'same': found.id == server.id, 'disks': len(disks), 'missing': missing,
    'address': server.addresses, 'names': names, 'deleted': deleted,
    'left': [one.name for one in cloud.compute.servers()]}))
`)
  assert.equal(seen.status, 'ACTIVE')
  assert.equal(seen.same, true)
  assert.equal(seen.disks, 1)
  assert.equal(seen.missing, null)
  assert.match(JSON.stringify(seen.address), /192\.168\./)
  assert.deepEqual(seen.names, ['sdk'])
  assert.equal(seen.deleted, true)
  assert.deepEqual(seen.left, [])
})

test('no answer that these clients got was one that the contract does not allow', { skip }, () => {
  assert.deepEqual(openstack.offences, [])
})
