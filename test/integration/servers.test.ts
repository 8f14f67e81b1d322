/**
 * Servers from the control plane's side: real state, operations, command channel and volumes at two agents, whose guests are lines in
 * memory. What a guest really does is tested with the compute drivers.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { Outcome, RequestServices } from '#control/operations/definitions/requests.ts'
import {
  changeServer,
  type NewServerRequest,
  requestAttachment,
  requestDetachment,
  requestPower,
  requestServerDeletion,
  requestServers,
  type ServerRequestRefusal,
} from '#control/operations/definitions/servers/server-requests.ts'
import { imageId } from '#control/resources/images.ts'
import { defaultSubnetId, portsOf } from '#control/resources/networks.ts'
import { disksOf, faultOf, listServers, readServer } from '#control/resources/servers.ts'
import { readVolume } from '#control/resources/volumes.ts'
import type { ServerRow } from '#control/store/tables/servers.ts'
import { type FakeGuests, fakeGuests } from '../support/fake-guests.ts'
import { newDisk, newServer } from '../support/new-server.ts'
import { PROJECT, Region } from '../support/region.ts'

let region: Region
let services: RequestServices
const image = imageId('holdfast-tiny')
const sites: Readonly<Record<'az1' | 'az2', FakeGuests>> = { az1: fakeGuests(), az2: fakeGuests() }

before(async () => {
  region = await Region.start({ servers: sites })
  services = region.requests
})
after(async () => await region.stop())

function taken<T>(outcome: Outcome<T, ServerRequestRefusal>): T {
  assert.ok(outcome.ok, JSON.stringify(outcome))
  return outcome
}
const refusalOf = (outcome: Outcome<object, ServerRequestRefusal>): string | null =>
  outcome.ok ? null : outcome.refusal

async function ended(operation: string | null, status = 'succeeded'): Promise<void> {
  assert.ok(operation !== null)
  const view = await region.plane.operations.waitFor(operation)
  assert.equal(view.status, status, view.failReason ?? '')
}

async function row(id: string): Promise<ServerRow> {
  const found = await readServer(services.store.db, id)
  assert.ok(found !== undefined)
  return found
}

async function server(over: Partial<NewServerRequest> = {}): Promise<ServerRow> {
  const { servers, operation } = taken(await requestServers(services, newServer(over), 1))
  await ended(operation)
  const [made] = servers
  assert.ok(made !== undefined)
  return await row(made.id)
}

async function power(id: string, kind: 'start' | 'stop' | 'reboot', hard = false): Promise<void> {
  await ended(taken(await requestPower(services, PROJECT, id, { kind, hard })).operation)
}

async function remove(ids: readonly string[], deleteVolumes = true): Promise<void> {
  const request = await requestServerDeletion(services, PROJECT, ids, { deleteVolumes })
  await ended(taken(request).operation)
}

const disks = async (id: string) => (await disksOf(services.store.db, [id])).get(id) ?? []

/** Everything that a request could change. */
async function everything(): Promise<string> {
  const { db } = services.store
  const rows = await Promise.all([
    db.selectFrom('servers').selectAll().orderBy('id').execute(),
    db.selectFrom('server_disks').selectAll().orderBy('volume').execute(),
    db.selectFrom('ports').selectAll().orderBy('id').execute(),
    db.selectFrom('tags').selectAll().orderBy('resource').orderBy('key').execute(),
  ])
  return JSON.stringify(rows) + (await region.snapshot())
}

test('a server is made from an image with its disks and its port, and runs', async () => {
  const request = newServer({
    name: 'web',
    disks: [newDisk({ deleteWithServer: true }), newDisk({ device: '/dev/sdd', sizeGb: 2 })],
    tags: { team: 'blue' },
    metadata: { role: 'front' },
  })
  const { servers, operation } = taken(await requestServers(services, request, 1))
  const id = servers[0]?.id ?? ''
  const begun = await row(id)
  assert.equal(begun.status, 'building')
  assert.notEqual(begun.task, null)
  await ended(operation)
  const made = await row(id)
  assert.deepEqual(
    [made.status, made.task, made.power, made.az, made.image, made.fault],
    ['active', null, 'running', 'az1', image, null],
  )
  assert.ok(made.launched_at !== null && made.power_at > 0)
  const names = await Promise.all(
    (await disks(id)).map(async ({ volume, device, boot_index, state }) => {
      const shown = (await region.ok('GET', `/v2/{project}/volumes/${volume}`)).volume
      return [
        device,
        boot_index,
        state,
        shown.name,
        shown.status,
        shown.bootable,
        shown.size,
        shown.attachments[0].server_id === id && shown.attachments[0].device === device,
        shown.volume_image_metadata.image_id ?? null,
      ]
    }),
  )
  assert.deepEqual(names, [
    ['/dev/vda', 0, 'attached', 'web', 'in-use', 'true', 1, true, image],
    ['/dev/vdb', null, 'attached', 'web-volume-0001', 'in-use', 'false', 1, true, null],
    ['/dev/vdd', null, 'attached', 'web-volume-0002', 'in-use', 'false', 2, true, null],
  ])
  const [port] = (await portsOf(services.store.db, [id])).get(id) ?? []
  const guest = sites.az1.guests.get(id)
  assert.deepEqual(guest?.definition.nics, [
    {
      port: port?.id,
      mac: port?.mac,
      address: port?.address,
      prefix_length: 20,
      gateway: '192.168.0.1',
      dns: [],
      network: defaultSubnetId(PROJECT),
      domain: made.vpc,
    },
  ])
  assert.deepEqual([guest?.definition.memory_mb, guest?.definition.name], [256, 'web'])
  const [child] = await region.plane.operations.list({ parent: operation })
  assert.equal(child?.entities['server_id'], id)

  // Nothing is left of it afterwards but the disk that nobody wanted gone.
  await remove([id], false)
  assert.equal(await readServer(services.store.db, id), undefined)
  assert.equal(sites.az1.guests.has(id), false)
  assert.deepEqual((await portsOf(services.store.db, [id])).get(id), [])
  const left = (await region.ok('GET', '/v2/{project}/volumes/detail')).volumes
  assert.deepEqual(
    left.map((volume: { name: string; status: string }) => [volume.name, volume.status]).toSorted(),
    [['web-volume-0002', 'available']],
  )
  const kept = left[0].id as string
  const again = await server({
    name: 'again',
    disks: [newDisk({ source: { kind: 'volume', volume: kept }, deleteWithServer: true })],
  })
  assert.equal((await disks(again.id)).length, 2)
  await remove([again.id], false)
  assert.deepEqual((await region.ok('GET', '/v2/{project}/volumes/detail')).volumes, [])
})

test('what cannot be made is refused, and then nothing was made', async () => {
  const elsewhere = await region.volume('elsewhere', 1, 'az2')
  const plain = await region.volume('plain')
  const other = await server({ name: 'other' })
  const [port] = (await portsOf(services.store.db, [other.id])).get(other.id) ?? []
  assert.ok(port !== undefined)
  const used = (await disks(other.id))[0]?.volume ?? ''
  const volume = (id: string, bootIndex: number | null = null) =>
    newDisk({ source: { kind: 'volume', volume: id }, bootIndex })
  const nic = (over: object) => ({
    port: null,
    subnet: null,
    address: null,
    securityGroups: [],
    ...over,
  })
  const cases: readonly (readonly [string, Partial<NewServerRequest>, number?])[] = [
    ['AZ_UNKNOWN', { az: 'az9' }],
    ['FLAVOR_UNKNOWN', { flavor: 'm1.tiny' }],
    ['IMAGE_UNKNOWN', { image: 'holdfast-tiny' }],
    ['KEYPAIR_UNKNOWN', { keyName: 'mine' }],
    ['NO_ROOT_DISK', { image: null }],
    ['NO_ROOT_DISK', { image: null, disks: [newDisk()] }],
    ['TWO_ROOT_DISKS', { disks: [newDisk({ bootIndex: 0 }), newDisk({ bootIndex: 0 })] }],
    ['TOO_MANY_DISKS', { disks: Array.from({ length: 24 }, () => newDisk()) }],
    ['TOO_MANY_NICS', { nics: Array.from({ length: 9 }, () => nic({})) }],
    ['DEVICE_TAKEN', { disks: [newDisk({ device: '/dev/vda' })] }],
    ['DEVICE_INVALID', { disks: [newDisk({ device: '/dev/disk1' })] }],
    ['SIZE_MISSING', { disks: [newDisk({ sizeGb: null })] }],
    ['SIZE_TOO_SMALL', { disks: [newDisk({ sizeGb: 0 })] }],
    ['SIZE_TOO_LARGE', { disks: [newDisk({ sizeGb: 32_769 })] }],
    ['TYPE_UNKNOWN', { disks: [newDisk({ type: 'tape' })] }],
    ['VOLUME_UNKNOWN', { disks: [volume('00000000-0000-4000-8000-000000000000')] }],
    ['VOLUME_OTHER_AZ', { disks: [volume(elsewhere)] }],
    ['VOLUME_NOT_AVAILABLE', { disks: [volume(used)] }],
    ['VOLUME_NOT_AVAILABLE', { disks: [volume(plain), volume(plain)] }],
    ['VOLUME_NOT_BOOTABLE', { image: null, disks: [volume(plain, 0)] }],
    ['PORT_UNKNOWN', { nics: [nic({ port: 'none' })] }],
    ['PORT_TAKEN', { nics: [nic({ port: port.id })] }],
    ['SUBNET_UNKNOWN', { nics: [nic({ subnet: 'none' })] }],
    ['ADDRESS_OUTSIDE', { nics: [nic({ address: '10.0.0.1' })] }],
    ['ADDRESS_TAKEN', { nics: [nic({}), nic({ address: port.address })] }],
    ['GROUP_UNKNOWN', { nics: [nic({ securityGroups: ['none'] })] }],
    ['NOT_FOR_SEVERAL', { disks: [volume(plain)] }, 2],
    ['QUOTA_INSTANCES', {}, 2000],
    [
      'TOO_MANY_TAGS',
      { tags: Object.fromEntries(Array.from({ length: 21 }, (_, at) => [`k${at}`, ''])) },
    ],
  ]
  const before = await everything()
  for (const [refusal, over, count = 1] of cases) {
    assert.equal(refusalOf(await requestServers(services, newServer(over), count)), refusal)
    assert.equal(await everything(), before, refusal)
  }
  await remove([other.id])
})

test('several servers at once have names, operations and disks of their own', async () => {
  const request = newServer({ name: 'many', disks: [newDisk()] })
  const { servers, operation } = taken(await requestServers(services, request, 3))
  await ended(operation)
  const children = await region.plane.operations.list({ parent: operation })
  assert.deepEqual(children.map((one) => String(one.entities['name'])).sort(), [
    'many-0001',
    'many-0002',
    'many-0003',
  ])
  const addresses = new Set<string>()
  for (const { id } of servers) {
    const made = await row(id)
    assert.equal(made.status, 'active')
    for (const port of (await portsOf(services.store.db, [id])).get(id) ?? []) {
      addresses.add(port.address)
    }
  }
  assert.equal(addresses.size, 3)
  await remove(servers.map(({ id }) => id))
  assert.deepEqual(await listServers(services.store.db, PROJECT), [])
})

test('a server is stopped, started and rebooted, and says so only when its site has', async () => {
  const { id } = await server({ name: 'power' })
  const ask = (kind: 'start' | 'stop' | 'reboot', hard = false) =>
    requestPower(services, PROJECT, id, { kind, hard })
  assert.equal(taken(await ask('start')).operation, null)
  const { operation } = taken(await ask('stop'))
  assert.deepEqual([(await row(id)).status, (await row(id)).task], ['active', 'powering-off'])
  assert.equal(refusalOf(await ask('start')), 'SERVER_BUSY')
  await ended(operation)
  assert.deepEqual([(await row(id)).status, (await row(id)).power], ['stopped', 'off'])
  assert.equal(refusalOf(await ask('reboot')), 'SERVER_STATE')
  const always = await requestPower(services, PROJECT, id, {
    kind: 'stop',
    hard: false,
    always: true,
  })
  await ended(taken(always).operation)
  await power(id, 'reboot', true)
  assert.deepEqual([(await row(id)).status, (await row(id)).power], ['active', 'running'])
  const since = (await row(id)).power_at
  await power(id, 'reboot')
  assert.ok((await row(id)).power_at > since)
  await power(id, 'stop', true)
  await power(id, 'start')
  assert.equal((await row(id)).status, 'active')

  // A refusal leaves it as it was, with the reason.
  await power(id, 'stop')
  sites.az1.refusing.set('server.start', 1)
  await ended(taken(await ask('start')).operation, 'failed')
  assert.deepEqual([(await row(id)).status, (await row(id)).task], ['stopped', null])
  assert.match(faultOf(await row(id))?.message ?? '', /NO_MEMORY/)
  await power(id, 'start')
  assert.equal((await row(id)).fault, null)
  await remove([id])
})

test('a disk comes and goes, and the volume says so at every moment', async () => {
  const { id } = await server({ name: 'disks' })
  const volume = await region.volume('data')
  const status = async () => (await readVolume(services.store.db, volume))?.status
  const attach = (device: string | null = null) =>
    requestAttachment(services, PROJECT, id, { volume, device, deleteWithServer: false })
  const detach = () => requestDetachment(services, PROJECT, id, { volume })
  assert.equal(refusalOf(await attach('/dev/vda')), 'DEVICE_TAKEN')
  assert.equal(refusalOf(await attach('floppy')), 'DEVICE_INVALID')
  const first = taken(await attach())
  assert.equal(first.device, '/dev/vdb')
  await ended(first.operation)
  assert.equal(await status(), 'in-use')
  assert.ok(sites.az1.guests.get(id)?.disks.includes(volume))
  assert.equal(refusalOf(await attach()), 'VOLUME_NOT_AVAILABLE')

  // By hand nothing can be said of it: the guest would not know.
  const by = (action: object) =>
    region.call('POST', `/v2/{project}/volumes/${volume}/action`, action)
  assert.equal((await by({ 'os-detach': {} })).status, 400)
  assert.equal(
    (await by({ 'os-attach': { instance_uuid: id, mountpoint: '/dev/vdz' } })).status,
    400,
  )
  assert.equal((await region.call('DELETE', `/v2/{project}/volumes/${volume}`)).status, 400)

  // A guest takes its time.
  sites.az1.clinging = true
  const { operation } = taken(await detach())
  assert.equal(await status(), 'detaching')
  assert.equal(taken(await detach()).operation, operation, 'the same again is the same operation')
  await region.until(
    'the agent was told',
    async () => (sites.az1.guests.get(id)?.definition.disks.length ?? 0) === 1,
  )
  assert.equal(await status(), 'detaching')
  sites.az1.clinging = false
  await ended(operation)
  assert.equal(await status(), 'available')
  assert.equal(refusalOf(await detach()), 'VOLUME_NOT_ATTACHED')

  // The disk that it boots from goes only while it is off.
  const root = (await disks(id))[0]?.volume ?? ''
  const detachRoot = () => requestDetachment(services, PROJECT, id, { volume: root })
  assert.equal(refusalOf(await detachRoot()), 'SERVER_ROOT_DISK')
  await power(id, 'stop')
  await ended(taken(await detachRoot()).operation)
  assert.deepEqual(await disks(id), [])
  const back = await requestAttachment(services, PROJECT, id, {
    volume: root,
    device: '/dev/sda',
    deleteWithServer: true,
  })
  await ended(taken(back).operation)
  assert.deepEqual(
    (await disks(id)).map(({ device, boot_index }) => [device, boot_index]),
    [['/dev/vda', 0]],
  )

  // Several at once queue, and have names of their own.
  const more = [volume, await region.volume('more')]
  const requests = await Promise.all(
    more.map((one) =>
      requestAttachment(services, PROJECT, id, {
        volume: one,
        device: null,
        deleteWithServer: true,
      }),
    ),
  )
  for (const request of requests) await ended(taken(request).operation)
  assert.deepEqual(
    (await disks(id)).map(({ device, state }) => [device, state]),
    [
      ['/dev/vda', 'attached'],
      ['/dev/vdb', 'attached'],
      ['/dev/vdc', 'attached'],
    ],
  )
  await remove([id], false)
  for (const one of more) assert.equal(await readVolume(services.store.db, one), undefined)
})

test('a disk that could not be attached is free as soon as the guest is known not to have it', async () => {
  const { id } = await server({ name: 'unlucky' })
  const volume = await region.volume('unplugged')
  sites.az1.refusing.set('server.define', 1)
  const request = { volume, device: null, deleteWithServer: false }
  const { operation } = taken(await requestAttachment(services, PROJECT, id, request))
  await ended(operation, 'failed')
  await region.until('the volume is available', async () => {
    return (await readVolume(services.store.db, volume))?.status === 'available'
  })
  assert.equal((await disks(id)).length, 1)
  const { definition } = sites.az1.guests.get(id) ?? assert.fail()
  assert.equal(definition.generation, (await row(id)).generation)
  await remove([id])
  await region.ok('DELETE', `/v2/{project}/volumes/${volume}`, undefined, 202)
})

test('a server whose start fails stays visible with the reason, and goes with all that was made', async () => {
  sites.az2.refusing.set('server.start', 1)
  const request = newServer({ name: 'broken', az: 'az2', disks: [newDisk()] })
  const { servers, operation } = taken(await requestServers(services, request, 1))
  await ended(operation, 'failed')
  const id = servers[0]?.id ?? ''
  assert.deepEqual([(await row(id)).status, (await row(id)).task], ['error', null])
  assert.match(faultOf(await row(id))?.message ?? '', /NO_MEMORY/)
  const volumes = (await disks(id)).map(({ volume }) => volume)
  assert.equal(volumes.length, 2)
  await remove([id])
  for (const volume of volumes) assert.equal(await readVolume(services.store.db, volume), undefined)
  assert.equal(sites.az2.guests.has(id), false)
})

test('a server is deleted while it is being made', async () => {
  const { servers } = taken(await requestServers(services, newServer({ name: 'brief' }), 2))
  const ids = servers.map(({ id }) => id)
  await remove(ids)
  assert.deepEqual(await listServers(services.store.db, PROJECT), [])
  for (const id of ids) assert.equal(sites.az1.guests.has(id), false)
  const { volumes } = await region.ok('GET', '/v2/{project}/volumes/detail')
  assert.deepEqual(
    volumes.filter((one: { name: string }) => one.name.startsWith('brief')),
    [],
  )
  const again = await requestServerDeletion(services, PROJECT, ids, { deleteVolumes: true })
  assert.equal(refusalOf(again), 'SERVER_UNKNOWN')
})

test('a guest that ends or begins by itself is shown so, and a lost definition is given again', async () => {
  const { id } = await server({ name: 'alone' })
  sites.az1.turn(id, 'off', 'the guest powered itself off')
  await region.until('it is stopped', async () => (await row(id)).status === 'stopped')
  assert.match(faultOf(await row(id))?.message ?? '', /powered itself off/)
  sites.az1.turn(id, 'running')
  await region.until('it is active', async () => (await row(id)).status === 'active')
  assert.equal((await row(id)).fault, null)
  sites.az1.turn(id, 'unknown')
  await region.until('nobody knows', async () => (await row(id)).power === 'unknown')
  assert.equal((await row(id)).status, 'active')
  sites.az1.turn(id, 'running')

  const renamed = await changeServer(services, PROJECT, id, {
    name: 'someone',
    metadata: { a: '1' },
  })
  assert.equal(taken(renamed).server.name, 'someone')
  await region.until('the agent knows the name', async () => {
    return sites.az1.guests.get(id)?.definition.name === 'someone'
  })
  // As after a restore of an older backup of the database.
  const guest = sites.az1.guests.get(id) ?? assert.fail()
  guest.definition = { ...guest.definition, generation: 50, name: 'forgotten' }
  await region.until('the definition has a number above', async () => {
    return guest.definition.generation === 51 && guest.definition.name === 'someone'
  })
  assert.equal((await row(id)).generation, 51)

  sites.az1.guests.delete(id)
  await region.until('it is defined again', async () => sites.az1.guests.has(id))
  await region.until('it is stopped', async () => (await row(id)).status === 'stopped')

  sites.az1.guests.delete(id)
  sites.az1.refusing.set('server.define', 1)
  await region.until('it is known to be lost', async () => (await row(id)).status === 'error')
  assert.equal((await row(id)).power, 'unknown')
  await power(id, 'reboot', true)
  assert.equal(sites.az1.guests.get(id)?.power, 'running')

  // An order that was slower than the deletion comes to the site after it.
  const late = sites.az1.guests.get(id)?.definition ?? assert.fail()
  await remove([id])
  await sites.az1.define({ definition: late })
  await region.until('it is gone for good', async () => !sites.az1.guests.has(id))
})

test('a silent site keeps its servers; one that is deleted meanwhile ends there before another gets its disk', async () => {
  const gone = await server({ name: 'far', az: 'az2', disks: [newDisk()] })
  const stays = await server({ name: 'stays', az: 'az2' })
  const volume = (await disks(gone.id)).find((one) => one.boot_index === null)?.volume ?? ''
  await region.stopSite('az2')
  assert.deepEqual(
    [(await row(stays.id)).status, (await row(stays.id)).power],
    ['active', 'running'],
  )
  await remove([gone.id], false)
  assert.equal(await readServer(services.store.db, gone.id), undefined)
  assert.ok(sites.az2.guests.has(gone.id), 'its guest runs on')
  const request = { volume, device: null, deleteWithServer: true }
  const attached = await requestAttachment(services, PROJECT, stays.id, request)
  sites.az2.log.length = 0
  await region.startSite('az2')
  await ended(taken(attached).operation)
  const [first] = sites.az2.log
  assert.deepEqual([first?.command, first?.server], ['server.remove', gone.id])
  assert.deepEqual([...sites.az2.guests.keys()], [stays.id])
  assert.ok(sites.az2.guests.get(stays.id)?.disks.includes(volume))
  await remove([stays.id])
  const { volumes } = await region.ok('GET', '/v2/{project}/volumes/detail')
  assert.deepEqual(
    volumes.filter(
      (one: { availability_zone: string; name: string }) =>
        one.availability_zone === 'az2' && one.name !== 'elsewhere',
    ),
    [],
  )
})
