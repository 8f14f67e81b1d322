/**
 * The request sequences of Go helpers and Terraform providers around servers, over real state, operations, commands and volumes; guests
 * are lines in memory. Every answer is held against the contract, and decoded as strictly as Go decodes it.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { findImageByName } from '#control/resources/images.ts'
import { defaultSubnetId, defaultVpcId } from '#control/resources/networks.ts'
import { type FakeGuests, fakeGuests } from '../support/fake-guests.ts'
import * as go from '../support/go-types.ts'
import { PROJECT, Region, type Reply } from '../support/region.ts'

let region: Region
let image: string
const sites: Readonly<Record<'az1' | 'az2', FakeGuests>> = { az1: fakeGuests(), az2: fakeGuests() }
const vpc = defaultVpcId(PROJECT)
const subnet = defaultSubnetId(PROJECT)

before(async () => {
  region = await Region.start({ servers: sites })
  image = (await findImageByName(region.plane.store.db, 'holdfast-tiny'))?.id ?? ''
  // Clients look networks up before they make servers, and that is when a project gets its default one.
  await region.ok('GET', '/v1/{project}/vpcs')
})
after(async () => await region.stop())

const ECS = '/v1/{project}/cloudservers'
const NOVA = '/v2.1/{project}/servers'

async function get(path: string): Promise<Reply['body']> {
  return await region.ok('GET', path)
}

/** Waits as clients do, by reading the job until it has ended. */
async function jobOf(id: string): Promise<Reply['body']> {
  await region.plane.operations.waitFor(id)
  const job = await get(`/v1/{project}/jobs/${id}`)
  go.assertGo(go.SERVER_JOB, job)
  assert.equal(job.status, 'SUCCESS', JSON.stringify(job))
  return job
}

async function submit(method: string, path: string, body?: unknown): Promise<Reply['body']> {
  const { job_id } = await region.ok(method, path, body)
  return await jobOf(job_id)
}

const ecsBody = (over: object = {}) => ({
  server: {
    name: 'web',
    imageRef: image,
    flavorRef: 's3.medium.1',
    vpcid: vpc,
    availability_zone: 'az1',
    nics: [{ subnet_id: subnet, ip_address: '' }],
    root_volume: { volumetype: 'sata', extendparam: {} },
    data_volumes: [{ volumetype: 'SSD', size: 1, metadata: { __system__encrypted: '0' } }],
    security_groups: [],
    user_data: '',
    count: 1,
    'os:scheduler_hints': {},
    ...over,
  },
})

/** The id is read where clients read it, without looking how many sub-jobs there are. */
async function ecsServer(over: object = {}, version = 'v1'): Promise<string> {
  const job = await submit('POST', `/${version}/{project}/cloudservers`, ecsBody(over))
  return job.entities.sub_jobs[0].entities.server_id as string
}

async function ecsDelete(...ids: string[]): Promise<void> {
  const servers = ids.map((id) => ({ id }))
  await submit('POST', `${ECS}/delete`, {
    servers,
    delete_volume: true,
    delete_publicip: true,
  })
  for (const id of ids) {
    for (const path of [ECS, NOVA]) {
      assert.equal((await region.call('GET', `${path}/${id}`)).status, 404)
    }
  }
}

test('the helper of the Go SDK makes a server, reads it through its job, and deletes it with its disks', async () => {
  const id = await ecsServer()
  const { server } = await get(`${ECS}/${id}`)
  go.assertGo(go.CLOUD_SERVER, server)
  assert.equal(server.status, 'ACTIVE')
  assert.equal(server.metadata.vpc_id, vpc)
  assert.deepEqual(Object.keys(server.addresses), [vpc])
  const [address] = server.addresses[vpc]
  assert.equal(address.primary, true)
  assert.equal(address.version, '4')
  const disks = server['os-extended-volumes:volumes_attached']
  assert.deepEqual(
    disks.map((disk: { bootIndex: string; device: string }) => [disk.bootIndex, disk.device]),
    [
      ['0', '/dev/vda'],
      ['-1', '/dev/vdb'],
    ],
  )
  await ecsDelete(id)
  for (const disk of disks) {
    assert.equal((await region.call('GET', `/v3/{project}/volumes/${disk.id}`)).status, 404)
  }
})

test('one Terraform provider plans, makes, reads, renames and deletes an ECS server', async () => {
  const { volume_types } = await get('/v3/{project}/types')
  for (const { extra_specs } of volume_types) {
    assert.match(extra_specs['RESKEY:availability_zones'], /(^|,)az1(,|$)/)
  }
  const id = await ecsServer({ name: 'tf' })
  await region.ok(
    'POST',
    `${ECS}/${id}/tags/action`,
    { action: 'create', tags: [{ key: 'team', value: 'db' }] },
    204,
  )
  await region.ok('PUT', `${ECS}/${id}/autorecovery`, { support_auto_recovery: 'true' }, 204)

  const { server } = await get(`${ECS}/${id}`)
  go.assertGo(go.CLOUD_SERVER, server)
  assert.deepEqual(server.tags, ['team=db'])
  const roots: string[] = []
  for (const disk of server['os-extended-volumes:volumes_attached']) {
    const { volume } = await get(`/v3/{project}/os-vendor-volumes/${disk.id}`)
    go.assertGo(go.VENDOR_VOLUME, volume)
    assert.equal(volume.attachments[0].server_id, id)
    if (volume.bootable === 'true') {
      roots.push(volume.id)
      assert.equal(volume.volume_image_metadata.image_id, image)
      assert.equal(volume.volume_type, 'SATA')
    }
    assert.deepEqual(await get(`/v3/{project}/os-vendor-volumes/${disk.id}/tags`), { tags: [] })
  }
  assert.deepEqual(roots, [server['os-extended-volumes:volumes_attached'][0].id])
  assert.deepEqual(await get(`${ECS}/${id}/tags`), { tags: [{ key: 'team', value: 'db' }] })
  assert.deepEqual(await get(`${ECS}/${id}/autorecovery`), { support_auto_recovery: 'true' })
  const [nic] = server.addresses[vpc]
  const { port } = await get(`/v2.0/ports/${nic['OS-EXT-IPS:port_id']}`)
  assert.equal(port.mac_address, nic['OS-EXT-IPS-MAC:mac_addr'])
  assert.equal(port.device_id, id)

  const renamed = await region.ok('PUT', `${NOVA}/${id}`, { server: { name: 'tf-2' } })
  go.assertGo(go.NOVA_SERVER, renamed.server)
  assert.equal((await get(`${ECS}/${id}`)).server.name, 'tf-2')
  await ecsDelete(id)
})

test('the other Terraform provider makes a server under v1.1, reads every part of it, and stops it first', async () => {
  const { availabilityZoneInfo: zones } = await get('/v2.1/{project}/os-availability-zone')
  assert.deepEqual(
    zones.map((zone: { zoneName: string }) => zone.zoneName),
    ['az1', 'az2'],
  )
  const { flavors } = await get(`${ECS}/flavors?availability_zone=az2`)
  go.assertGo({ list: go.ECS_FLAVOR }, flavors)
  const flavor = flavors.find(
    (one: { vcpus: string; ram: number; os_extra_specs: Record<string, string> }) =>
      one.vcpus === '2' &&
      one.ram === 4096 &&
      one.os_extra_specs['ecs:performancetype'] === 'normal',
  )
  const { subnet: shown } = await get(`/v1/{project}/subnets/${subnet}`)
  assert.equal(shown.vpc_id, vpc)
  const created = await region.ok('POST', '/v1.1/{project}/cloudservers', {
    ...ecsBody({
      name: 'hw',
      flavorRef: flavor.id,
      availability_zone: 'az2',
      root_volume: { volumetype: 'SSD', size: 2, metadata: { __system__cmkid: '' } },
      security_groups: [{ id: (await get('/v2.0/security-groups')).security_groups[0].id }],
      extendparam: { chargingMode: 'postPaid', regionID: 'local-1', enterprise_project_id: '0' },
      metadata: { op_svc_userid: 'u' },
      server_tags: [{ key: 'k', value: 'v' }],
    }),
    dry_run: false,
  })
  const job = await jobOf(created.job_id)
  const id = job.entities.sub_jobs[0].entities.server_id as string
  assert.deepEqual(created.serverIds, [id])

  const { server } = await get(`${ECS}/${id}`)
  assert.equal(server.metadata.op_svc_userid, 'u')
  const [nic] = server.addresses[server.metadata.vpc_id]
  const { port } = await get(`/v1/{project}/ports/${nic['OS-EXT-IPS:port_id']}`)
  assert.equal(port.fixed_ips[0].ip_address, nic.addr)
  for (const disk of server['os-extended-volumes:volumes_attached']) {
    const { volume } = await get(`/v2/{project}/cloudvolumes/${disk.id}`)
    go.assertGo(go.VENDOR_VOLUME, volume)
    const { volumeAttachment } = await get(`${ECS}/${id}/block_device/${disk.id}`)
    go.assertGo(go.BLOCK_DEVICE, volumeAttachment)
    assert.equal(volumeAttachment.bootIndex === 0, volume.bootable === 'true')
  }
  const list = await get(`${ECS}/${id}/block_device`)
  assert.equal(list.volumeAttachments.length, 2)
  assert.equal(list.attachableQuantity.free_disk, 22)

  const stop = { 'os-stop': { type: 'HARD', servers: [{ id }] } }
  await submit('POST', `${ECS}/action`, stop)
  assert.equal((await get(`${ECS}/${id}`)).server.status, 'SHUTOFF')
  // A second time it is so already, which is success here and a conflict in the other API.
  const again = await submit('POST', `${ECS}/action`, stop)
  assert.equal(again.entities.sub_jobs[0].entities.server_id, id)
  const refused = await region.call('POST', `${NOVA}/${id}/action`, { 'os-stop': null })
  assert.equal(refused.status, 409)
  await ecsDelete(id)
})

test('a disk of its own is made, attached, seen, detached and deleted by jobs', async () => {
  const id = await ecsServer({ name: 'host' })
  const made = await region.ok(
    'POST',
    '/v2.1/{project}/cloudvolumes',
    {
      volume: {
        name: 'extra',
        size: 1,
        availability_zone: 'az1',
        volume_type: 'SSD',
        count: 1,
        tags: { a: 'b' },
      },
    },
    202,
  )
  const volume = made.volume_ids[0] as string
  await region.plane.operations.waitFor(made.job_id)
  assert.deepEqual(await get(`/v3/{project}/os-vendor-volumes/${volume}/tags`), {
    tags: [{ key: 'a', value: 'b' }],
  })
  const attachment = { volumeAttachment: { volumeId: volume, device: '/dev/sdf' } }
  await submit('POST', `${ECS}/${id}/attachvolume`, attachment)
  const shown = await get(`${ECS}/${id}/block_device/${volume}`)
  assert.equal(shown.volumeAttachment.device, '/dev/vdf')
  const { volume: seen } = await get(`/v2/{project}/cloudvolumes/${volume}`)
  assert.equal(seen.status, 'in-use')
  assert.deepEqual(seen.tags, { a: 'b' })
  for (const one of seen.attachments) {
    await submit('DELETE', `${ECS}/${one.server_id}/detachvolume/${volume}?delete_flag=0`)
  }
  assert.equal((await get(`/v2/{project}/cloudvolumes/${volume}`)).volume.status, 'available')
  await region.job('DELETE', `/v2/{project}/cloudvolumes/${volume}`)
  const { count } = await region.plane.store.db
    .selectFrom('tags')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('resource', '=', volume)
    .executeTakeFirstOrThrow()
  assert.equal(Number(count), 0)
  await ecsDelete(id)
})

test('the Nova resource of a Terraform provider makes a server from a mapped image, reads it from all sides and deletes it', async () => {
  const { networks } = await get(`/v2.0/networks?status=ACTIVE&id=${subnet}`)
  assert.equal(networks.length, 1)
  // It sends the image twice: as the image, and as a mapping to a local disk.
  const mapping = {
    source_type: 'image',
    destination_type: 'local',
    uuid: image,
    boot_index: 0,
    delete_on_termination: true,
  }
  const body = {
    server: {
      name: 'nova-tf',
      imageRef: image,
      flavorRef: 's2.medium.1',
      availability_zone: 'az1',
      networks: [{ uuid: subnet }],
      metadata: { foo: 'bar' },
      block_device_mapping_v2: [mapping],
    },
  }
  const created = await region.ok('POST', '/v2.1/{project}/os-volumes_boot', body, 202)
  const id = created.server.id as string
  await region.until('it is active', async () => {
    const { server } = await get(`${NOVA}/${id}`)
    go.assertGo(go.NOVA_SERVER, server)
    assert.notEqual(server.status, 'ERROR', JSON.stringify(server.fault))
    return server.status === 'ACTIVE'
  })
  const { server } = await get(`${NOVA}/${id}`)
  assert.deepEqual(Object.keys(server.addresses), [networks[0].name])
  assert.equal(server.addresses[networks[0].name][0].version, 4)
  assert.equal(server.image.id, image)
  const { interfaceAttachments } = await get(`${NOVA}/${id}/os-interface`)
  go.assertGo({ list: go.INTERFACE }, interfaceAttachments)
  assert.equal(interfaceAttachments[0].net_id, subnet)
  const flavor = await get(`/v2.1/{project}/flavors/${server.flavor.original_name}`)
  go.assertGo(go.NOVA_FLAVOR, flavor.flavor)
  const images = await region.call('GET', `/v2.1/{project}/cloudimages?id=${image}`)
  assert.ok(images.status === 404 || images.body.images.length === 1)
  const [root] = server['os-extended-volumes:volumes_attached']
  assert.equal(root.delete_on_termination, true)
  const { volume } = await get(`/v2/{project}/volumes/${root.id}`)
  assert.equal(volume.volume_image_metadata.image_id, image)
  assert.deepEqual(await get(`${NOVA}/${id}/os-server-password`), { password: '' })
  assert.deepEqual(await get(`${ECS}/${id}/tags`), { tags: [] })

  // A disk: attached means that it is shown, detached that it is not.
  const data = await region.volume('data', 1)
  const path = `${NOVA}/${id}/os-volume_attachments`
  const attached = await region.ok('POST', path, {
    volumeAttachment: { volumeId: data, device: null },
  })
  go.assertGo(go.VOLUME_ATTACHMENT, attached.volumeAttachment)
  assert.equal(attached.volumeAttachment.device, '/dev/vdb')
  assert.equal((await get(`${path}/${data}`)).volumeAttachment.id, data)
  await region.ok('DELETE', `${path}/${data}`, undefined, 202)
  await region.until('it is detached', async () => {
    return (await region.call('GET', `${path}/${data}`)).status === 404
  })
  const rootGone = await region.call('DELETE', `${path}/${root.id}`)
  assert.equal(rootGone.status, 400)

  await region.ok('DELETE', `${NOVA}/${id}`, undefined, 204)
  await region.until('it is gone', async () => {
    const reply = await region.call('GET', `${NOVA}/${id}`)
    if (reply.status === 200) assert.match(reply.body.server.status, /^(ACTIVE|SHUTOFF)$/)
    return reply.status === 404
  })
  assert.equal((await region.call('GET', `/v3/{project}/volumes/${root.id}`)).status, 404)
  assert.equal((await get(`/v3/{project}/volumes/${data}`)).volume.status, 'available')
})

test('several servers are made, switched and deleted by one job each', async () => {
  const { job_id, serverIds } = await region.ok('POST', ECS, ecsBody({ count: 3, name: 'many' }))
  const job = await jobOf(job_id)
  assert.equal(job.entities.sub_jobs_total, 3)
  const named = await get(`${ECS}/detail?name=many&limit=2`)
  assert.equal(named.count, 3)
  assert.equal(named.servers.length, 2)
  assert.equal((await get(`${ECS}/detail?name=many&limit=2&offset=2`)).servers.length, 1)
  assert.equal((await get(`${ECS}/detail?name=many&limit=2&offset=3`)).servers.length, 0)
  const servers = serverIds.map((id: string) => ({ id }))
  const stop = await submit('POST', `${ECS}/action`, { 'os-stop': { servers, type: 'SOFT' } })
  assert.equal(stop.entities.sub_jobs.length, 3)
  assert.equal((await get(`${ECS}/detail?status=SHUTOFF`)).count, 3)
  // One that does not exist: nothing is done to the others either.
  const unknown = [...servers, { id: subnet }]
  const refused = await region.call('POST', `${ECS}/action`, { 'os-start': { servers: unknown } })
  assert.equal(refused.status, 404)
  assert.equal((await get(`${ECS}/detail?status=SHUTOFF`)).count, 3)
  await submit('POST', `${ECS}/action`, { 'os-start': { servers } })
  assert.equal((await get(`${ECS}/detail?status=ACTIVE`)).count, 3)
  await ecsDelete(...(serverIds as string[]))
})

test('a server that could not be made says why, and its job fails', async () => {
  sites.az1.refusing.set('server.start', 1)
  const { job_id, serverIds } = await region.ok('POST', ECS, ecsBody({ name: 'bad' }))
  await region.plane.operations.waitFor(job_id)
  const job = await get(`/v1/{project}/jobs/${job_id}`)
  go.assertGo(go.SERVER_JOB, job)
  assert.equal(job.status, 'FAIL')
  assert.ok(job.fail_reason.length > 0)
  const [id] = serverIds
  const { server } = await get(`${NOVA}/${id}`)
  go.assertGo(go.NOVA_SERVER, server)
  assert.equal(server.status, 'ERROR')
  assert.ok(server.fault.message.length > 0)
  go.assertGo(go.CLOUD_SERVER, (await get(`${ECS}/${id}`)).server)
  await ecsDelete(id as string)
})

test('a root disk outlives its server, and another server boots from it', async () => {
  const first = await region.ok(
    'POST',
    NOVA,
    {
      server: {
        name: 'first',
        flavorRef: 't2.micro',
        imageRef: '',
        networks: [{ uuid: subnet }],
        block_device_mapping_v2: [
          {
            source_type: 'image',
            destination_type: 'volume',
            uuid: image,
            boot_index: '0',
            volume_size: 2,
          },
        ],
      },
    },
    202,
  )
  const id = first.server.id as string
  const active = async (server: string) => {
    const shown = (await get(`${NOVA}/${server}`)).server
    return shown.status === 'ACTIVE'
  }
  await region.until('it is active', async () => await active(id))
  const [root] = (await get(`${NOVA}/${id}`)).server['os-extended-volumes:volumes_attached']
  const busy = await region.call('DELETE', `/v3/{project}/volumes/${root.id}`)
  assert.equal(busy.status, 400)
  await region.ok('DELETE', `${NOVA}/${id}`, undefined, 204)
  const gone = async () => (await region.call('GET', `${NOVA}/${id}`)).status === 404
  await region.until('the first is gone', gone)

  const { volumes } = await get('/v3/{project}/volumes/detail?all_tenants=1&name=first')
  assert.deepEqual(
    volumes.map((volume: { status: string; bootable: string; size: number }) => [
      volume.status,
      volume.bootable,
      volume.size,
    ]),
    [['available', 'true', 2]],
  )
  const mapping = {
    source_type: 'volume',
    destination_type: 'volume',
    uuid: root.id as string,
    boot_index: 0,
    delete_on_termination: true,
  }
  const wish = {
    name: 'second',
    flavorRef: 't2.micro',
    networks: 'auto',
    block_device_mapping_v2: [mapping],
  }
  const elsewhere = { server: { ...wish, availability_zone: 'az2' } }
  assert.equal((await region.call('POST', NOVA, elsewhere)).status, 400)
  const second = (await region.ok('POST', NOVA, { server: wish }, 202)).server.id as string
  await region.until('it is active', async () => await active(second))
  const { server } = await get(`${NOVA}/${second}`)
  go.assertGo(go.NOVA_SERVER, server)
  // An object with an empty id: one provider reads the id without looking.
  assert.deepEqual(server.image, { id: '' })
  assert.equal(server['OS-EXT-AZ:availability_zone'], 'az1')
  await ecsDelete(second)
  assert.equal((await region.call('GET', `/v3/{project}/volumes/${root.id}`)).status, 404)
})

test('a server of a protected instance is renamed and stopped, and not deleted', async () => {
  const id = await ecsServer({ name: 'kept' })
  const belongTo = async (instance: string | null) =>
    await region.plane.store.write(async (tx) => {
      await tx.updateTable('servers').set({ instance }).where('id', '=', id).execute()
    })
  await belongTo('00000000-0000-4000-8000-000000000001')
  assert.equal((await region.call('DELETE', `${NOVA}/${id}`)).status, 409)
  const refused = await region.call('POST', `${ECS}/delete`, { servers: [{ id }] })
  assert.equal(refused.status, 409)
  assert.equal(refused.body.error.code, 'Ecs.0100')
  await region.ok('PUT', `${ECS}/${id}`, { server: { name: 'kept-2', description: 'text' } })
  await region.ok('POST', `${NOVA}/${id}/action`, { 'os-stop': null }, 202)
  await region.until('it is off', async () => {
    return (await get(`${NOVA}/${id}`)).server.status === 'SHUTOFF'
  })
  const { server } = await get(`${NOVA}/${id}`)
  assert.deepEqual([server.name, server.description], ['kept-2', 'text'])
  assert.equal(server['OS-EXT-STS:power_state'], 4)
  await belongTo(null)
  await ecsDelete(id)
})

test('a disk that the hypervisor does not take is refused with the reason, and is free again', async () => {
  const id = await ecsServer({ name: 'full', data_volumes: [] })
  const data = await region.volume('unwanted', 1)
  sites.az1.refusing.set('server.define', 1)
  const body = { volumeAttachment: { volumeId: data, device: '/dev/vdq' } }
  const refused = await region.call('POST', `${NOVA}/${id}/os-volume_attachments`, body)
  assert.equal(refused.status, 409)
  assert.match(refused.body.conflictingRequest.message, /could not be attached/)
  // The guest may have it after all, so it is taken back before it is free.
  await region.until('the disk is free', async () => {
    return (await get(`/v3/{project}/volumes/${data}`)).volume.status === 'available'
  })
  assert.equal((await get(`${NOVA}/${id}/os-volume_attachments`)).volumeAttachments.length, 1)
  const attached = await region.ok('POST', `${NOVA}/${id}/os-volume_attachments`, body)
  assert.equal(attached.volumeAttachment.device, '/dev/vdq')
  await ecsDelete(id)
})
