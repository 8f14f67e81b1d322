/** Networks with servers in them: what ports show, what stays while it is in use, and what can go afterwards. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { systemClock } from '#base/system/clock.ts'
import {
  deleteFreePort,
  requestPort,
} from '#control/operations/definitions/networks/network-requests.ts'
import { findImageByName } from '#control/resources/images.ts'
import { defaultSecurityGroupId, defaultVpcId } from '#control/resources/networks.ts'
import { fakeGuests } from '../support/fake-guests.ts'
import { PROJECT, Region, type Reply } from '../support/region.ts'

let region: Region
let image: string
const sites = { az1: fakeGuests(), az2: fakeGuests() }

before(async () => {
  region = await Region.start({ servers: sites })
  image = (await findImageByName(region.plane.store.db, 'holdfast-tiny'))?.id ?? ''
})
after(async () => await region.stop())

const services = () => ({ store: region.plane.store, clock: systemClock })

const NOVA = '/v2.1/{project}/servers'
const VPCS = '/v1/{project}/vpcs'

async function network(): Promise<{ vpc: string; subnet: string }> {
  const { vpc } = await region.ok('POST', VPCS, { vpc: { name: 'app', cidr: '10.9.0.0/16' } })
  const body = {
    name: 'app-net',
    cidr: '10.9.1.0/24',
    gateway_ip: '10.9.1.1',
    vpc_id: vpc.id as string,
  }
  const { subnet } = await region.ok('POST', '/v1/{project}/subnets', { subnet: body })
  return { vpc: vpc.id, subnet: subnet.id }
}

async function server(networks: readonly object[], groups: readonly object[] = []) {
  const body = {
    name: 'web',
    imageRef: image,
    flavorRef: 's3.medium.1',
    availability_zone: 'az1',
    networks,
    ...(groups.length === 0 ? {} : { security_groups: groups }),
  }
  const { id } = (await region.ok('POST', NOVA, { server: body }, 202)).server
  await region.until('the server runs', async () => {
    return (await region.ok('GET', `${NOVA}/${id}`)).server.status === 'ACTIVE'
  })
  return id as string
}

async function remove(id: string): Promise<void> {
  await region.ok('DELETE', `${NOVA}/${id}`, undefined, 204)
  await region.until('the server is gone', async () => {
    return (await region.call('GET', `${NOVA}/${id}`)).status === 404
  })
}

const portsOf = async (id: string): Promise<Reply['body'][]> =>
  (await region.ok('GET', `/v1/{project}/ports?device_id=${id}&limit=100`)).ports

async function inUse(path: string, code: string): Promise<void> {
  const { status, body } = await region.call('DELETE', path)
  assert.deepEqual([status, body.code], [409, code], path)
}

test('a network with a server in it stays; its port shows the server, and goes with it', async () => {
  const { vpc, subnet } = await network()
  const { id: group } = (
    await region.ok('POST', '/v1/{project}/security-groups', { security_group: { name: 'web' } })
  ).security_group
  const id = await server([{ uuid: subnet }], [{ name: 'web' }])
  const [nic, ...others] = await portsOf(id)
  assert.deepEqual(others, [])
  assert.deepEqual(
    [nic.device_id, nic.device_owner, nic.status, nic.network_id],
    [id, 'compute:az1', 'ACTIVE', subnet],
  )
  assert.equal(nic['binding:vif_details'].primary_interface, true)
  assert.deepEqual(nic.security_groups, [group])
  assert.equal(nic.fixed_ips[0].ip_address, '10.9.1.2')
  assert.deepEqual((await region.ok('GET', `/v2.0/ports?device_id=${id}`)).ports, [nic])

  await inUse(`${VPCS}/${vpc}/subnets/${subnet}`, 'VPC.0208')
  await inUse(`${VPCS}/${vpc}`, 'VPC.0106')
  await inUse(`/v1/{project}/security-groups/${group}`, 'VPC.0606')
  assert.deepEqual(await deleteFreePort(services(), PROJECT, nic.id), {
    ok: false,
    refusal: 'PORT_IN_USE',
  })

  await region.ok('POST', `${NOVA}/${id}/action`, { 'os-stop': null }, 202)
  await region.until('its port is down', async () => (await portsOf(id))[0].status === 'DOWN')
  await remove(id)
  assert.equal((await region.call('GET', `/v1/{project}/ports/${nic.id}`)).status, 404)
  await region.ok('DELETE', `/v1/{project}/security-groups/${group}`, undefined, 204)
  await region.ok('DELETE', `${VPCS}/${vpc}/subnets/${subnet}`, undefined, 204)
  await region.ok('DELETE', `${VPCS}/${vpc}`, undefined, 204)
})

test('a port that was there before its server outlives it, with its address and MAC', async () => {
  const { vpc, subnet } = await network()
  const made = await requestPort(services(), {
    project: PROJECT,
    subnet,
    address: '10.9.1.77',
    securityGroups: [],
    name: 'kept',
  })
  assert.ok(made.ok)
  const { id: port, mac } = made.port
  const show = async () => (await region.ok('GET', `/v2.0/ports/${port}`)).port
  for (let round = 0; round < 2; round++) {
    const id = await server([{ port }])
    const worn = await show()
    assert.deepEqual([worn.device_id, worn.mac_address], [id, mac])
    assert.equal(worn.fixed_ips[0].ip_address, '10.9.1.77')
    assert.deepEqual(worn.security_groups, [defaultSecurityGroupId(PROJECT)])
    await remove(id)
    const free = await show()
    assert.deepEqual([free.device_id, free.status, free.mac_address], ['', 'DOWN', mac])
  }
  await inUse(`${VPCS}/${vpc}/subnets/${subnet}`, 'VPC.0208')
  assert.ok((await deleteFreePort(services(), PROJECT, port)).ok)
  await region.ok('DELETE', `${VPCS}/${vpc}/subnets/${subnet}`, undefined, 204)
  await region.ok('DELETE', `${VPCS}/${vpc}`, undefined, 204)
})

test('a VPC that a protection group names stays until the group is gone', async () => {
  const { vpc, subnet } = await network()
  await region.ok('DELETE', `${VPCS}/${vpc}/subnets/${subnet}`, undefined, 204)
  assert.notEqual(vpc, defaultVpcId(PROJECT))
  const job = await region.job('POST', '/v1/{project}/server-groups', {
    server_group: {
      name: 'group',
      source_availability_zone: 'az1',
      target_availability_zone: 'az2',
      domain_id: await region.domain(),
      source_vpc_id: vpc,
    },
  })
  await inUse(`${VPCS}/${vpc}`, 'VPC.0106')
  await region.job('DELETE', `/v1/{project}/server-groups/${job.entities.server_group_id}`)
  await region.ok('DELETE', `${VPCS}/${vpc}`, undefined, 204)
})
