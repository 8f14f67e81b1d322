/** The real `openstack` command on disks, their types and their snapshots, against a complete system; each answer is held against the contract. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { connectNbd } from '#client/nbd/client.ts'
import { Lab } from '../lab.ts'
import { testImages } from '../support/images.ts'
import { OpenStack } from '../support/openstack-cli.ts'

const skip = OpenStack.missing()
const images = await testImages()
let lab: Lab
let openstack: OpenStack

before(async () => {
  if (skip !== false) return
  lab = await Lab.start('skip' in images ? {} : { HOLDFAST_IMAGE_DIR: images.directory })
  openstack = await OpenStack.start(lab.credentials)
})
after(async () => {
  if (skip !== false) return
  await openstack?.stop()
  await lab?.close()
})

const words = (text: string) => text.split(' ')

interface Shown {
  id: string
  name: string
  status: string
  size: number
  type: string
  description: string | null
  bootable: string
  snapshot_id: string | null
  properties: Record<string, string>
}
const show = async (name: string) => (await openstack.json('volume', 'show', name)) as Shown
const snapshot = async (name: string) =>
  (await openstack.json('volume', 'snapshot', 'show', name)) as Shown

async function available(name: string, look: (name: string) => Promise<Shown> = show) {
  const isSo = ({ status }: Shown) => status === 'available'
  return await lab.until(`${name} is available`, () => look(name), isSo)
}

async function isRefused(...argv: string[]): Promise<string> {
  const { code, err, out } = await openstack.run(...argv)
  assert.notEqual(code, 0, `openstack ${argv.join(' ')}: ${out}`)
  return err
}

const names = (list: { Name: string }[]) => list.map(({ Name }) => Name).toSorted()

test('types and zones are listed and shown', { skip }, async () => {
  const types = (await openstack.json('volume', 'type', 'list')) as { ID: string; Name: string }[]
  assert.deepEqual(names(types), ['ESSD', 'GPSSD', 'SAS', 'SATA', 'SSD'])
  const ssd = await openstack.json('volume', 'type', 'show', 'SSD')
  assert.equal(ssd.id, types.find(({ Name }) => Name === 'SSD')?.ID)
  const zones = await openstack.ok('availability', 'zone', 'list', '--volume')
  assert.match(zones, /az1[\s\S]*az2/)
})

test('a disk is created, listed, shown, changed in every way, and deleted', { skip }, async () => {
  const create = 'volume create --size 1 --type SAS --availability-zone az2 --description text'
  await openstack.json(...words(create), '--property', 'a=1', '--property', 'b=2', 'one')
  const made = await available('one')
  assert.deepEqual(
    [made.size, made.type, made.description, made.properties],
    [1, 'SAS', 'text', { a: '1', b: '2' }],
  )
  await openstack.ok(...words('volume create --size 1 other'))
  await available('other')
  const listed = async (...flags: string[]) =>
    names(await openstack.json('volume', 'list', ...flags))
  assert.deepEqual(await listed(), ['one', 'other'])
  assert.deepEqual(await listed('--name', 'one'), ['one'])
  assert.deepEqual(await listed('--status', 'error'), [])
  assert.deepEqual(await listed('--limit', '1', '--long'), ['other'])

  await openstack.ok(...words('volume set --name two --description new --size 2 one'))
  await lab.until(
    'grown',
    () => show('two'),
    ({ size, status }) => size === 2 && status === 'available',
  )
  await openstack.ok(...words('volume set --property c=3 --bootable --type SSD two'))
  await openstack.ok(...words('volume set --read-only two'))
  await openstack.ok(...words('volume unset --property a two'))
  const changed = await show('two')
  assert.deepEqual(
    [changed.name, changed.description, changed.type, changed.bootable],
    ['two', 'new', 'SSD', 'true'],
  )
  assert.deepEqual(changed.properties, { b: '2', c: '3', readonly: 'True' })
  await openstack.ok(...words('volume set --read-write --non-bootable two'))
  assert.match(await isRefused(...words('volume set --type SATA two')), /new_type|SATA/)
  assert.match(await isRefused(...words('volume show nobody')), /nobody/)
  assert.match(await isRefused(...words('volume create --size 0 none')), /size/i)
  await isRefused(...words('volume set --state error two'))

  await openstack.ok(...words('volume delete two other'))
  await lab.until(
    'both are gone',
    () => openstack.json('volume', 'list') as Promise<unknown[]>,
    (list) => list.length === 0,
  )
})

test('a snapshot is taken, listed, shown, changed, made a disk of, and deleted', {
  skip,
}, async () => {
  await openstack.ok(...words('volume create --size 1 origin'))
  await available('origin')
  await openstack.ok(
    ...words('volume snapshot create --volume origin --description d --property a=1 before'),
  )
  const taken = await available('before', snapshot)
  assert.deepEqual([taken.size, taken.properties], [1, { a: '1' }])
  const listed = async (...flags: string[]) =>
    names(await openstack.json('volume', 'snapshot', 'list', ...flags))
  assert.deepEqual(await listed('--volume', 'origin'), ['before'])
  assert.deepEqual(await listed('--name', 'none'), [])
  assert.deepEqual(await listed('--status', 'available', '--long'), ['before'])
  await openstack.ok(
    ...words('volume snapshot set --name old --description e --property b=2 before'),
  )
  await openstack.ok(...words('volume snapshot unset --property a old'))
  const changed = await snapshot('old')
  assert.deepEqual([changed.name, changed.properties], ['old', { b: '2' }])

  await openstack.ok(...words('volume create --snapshot old --size 2 copy'))
  await openstack.ok(...words('volume create --source origin twin'))
  const copy = await available('copy')
  assert.deepEqual([copy.size, copy.snapshot_id], [2, taken.id])
  assert.equal((await available('twin')).size, 1)

  await openstack.ok(...words('volume snapshot delete old'))
  await lab.until(
    'the snapshot is gone',
    () => openstack.json('volume', 'snapshot', 'list') as Promise<unknown[]>,
    (list) => list.length === 0,
  )
  await openstack.ok(...words('volume delete copy twin origin'))
})

test('a disk is made of an image', {
  skip: skip === false && 'skip' in images ? images.skip : skip,
}, async () => {
  await openstack.ok(...words('volume create --size 1 --image holdfast-tiny system'))
  const made = await available('system')
  assert.deepEqual([made.bootable, made.size], ['true', 1])
  const { unix } = await lab.connection(made.id)
  const client = await connectNbd({ unix }, { exportName: made.id })
  const start = await client.read(0, 4_096)
  await client.disconnect()
  assert.ok(
    start.some((byte) => byte !== 0),
    'it has the bytes of the image',
  )
  await openstack.ok('volume', 'delete', 'system')
})

test('limits say what is used', { skip }, async () => {
  const limits = (await openstack.json('limits', 'show', '--absolute')) as { Name: string }[]
  assert.ok(limits.some(({ Name }) => Name === 'maxTotalVolumes'))
})

test('no answer had anything that the contract does not allow', { skip }, () => {
  assert.deepEqual(openstack.offences, [])
})
