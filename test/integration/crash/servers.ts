/** The life of a server over a control plane that dies at every boundary of it. */
import assert from 'node:assert/strict'
import { imageId } from '#control/resources/images.ts'
import { defaultSubnetId } from '#control/resources/networks.ts'
import type { FakeGuests } from '../../support/fake-guests.ts'
import { PROJECT } from '../../support/region-parts.ts'
import type { Answer, Lives } from './lives.ts'

const SERVERS = '/v2.1/{project}/servers'
const VOLUMES = '/v3/{project}/volumes'

/** What somebody at last answers. */
const told = async (lives: Lives, path: string): Promise<Answer> =>
  await lives.until(`${path} is answered`, async () => {
    const answer = await lives.ask('GET', path)
    return answer === null || answer.status >= 500 ? null : answer
  })

/** Makes a server from an image, switches it, gives it a disk and takes it away, and deletes it with all it had. */
export async function serverLife(lives: Lives, guests: FakeGuests): Promise<void> {
  const name = 'mortal'
  const named = async () => {
    const { body } = await told(lives, `${SERVERS}/detail?name=${name}`)
    return body.servers as Answer['body'][]
  }
  await lives.change(
    'POST',
    SERVERS,
    {
      server: {
        name,
        imageRef: imageId('holdfast-tiny'),
        flavorRef: 't2.micro',
        availability_zone: 'az1',
        // The network of a drill is there as well.
        networks: [{ uuid: defaultSubnetId(PROJECT) }],
        block_device_mapping_v2: [
          {
            source_type: 'image',
            uuid: imageId('holdfast-tiny'),
            destination_type: 'volume',
            boot_index: 0,
            volume_size: 1,
            delete_on_termination: true,
          },
          {
            source_type: 'blank',
            destination_type: 'volume',
            boot_index: -1,
            volume_size: 1,
            delete_on_termination: true,
          },
        ],
      },
    },
    async () => (await named()).length > 0,
  )
  const [{ id }] = await named()
  const path = `${SERVERS}/${id}`
  const show = async () => (await told(lives, path)).body.server
  const settled = async (status: string) =>
    await lives.until(`the server is ${status}`, async () => {
      const server = await show()
      assert.notEqual(server.status, 'ERROR', JSON.stringify(server))
      const task = server['OS-EXT-STS:task_state']
      return server.status === status && task === null ? server : null
    })
  await settled('ACTIVE')
  assert.equal(guests.guests.get(id)?.power, 'running')

  const disk = 'mortal-data'
  const volumes = async () =>
    (await told(lives, `${VOLUMES}/detail?name=${disk}`)).body.volumes as Answer['body'][]
  await lives.change(
    'POST',
    VOLUMES,
    { volume: { name: disk, size: 1, availability_zone: 'az1' } },
    async () => (await volumes()).length > 0,
  )
  const placed = async (status: string) =>
    await lives.until(`the disk is ${status}`, async () => {
      const [volume] = await volumes()
      return volume?.status === status ? (volume.id as string) : null
    })
  const volumeId = await placed('available')
  const attachments = `${path}/os-volume_attachments`
  await lives.change(
    'POST',
    attachments,
    { volumeAttachment: { volumeId } },
    async () => (await volumes())[0]?.status !== 'available',
  )
  await placed('in-use')
  assert.ok(guests.guests.get(id)?.disks.includes(volumeId))
  await lives.change(
    'DELETE',
    `${attachments}/${volumeId}`,
    undefined,
    async () => (await volumes())[0]?.status !== 'in-use',
  )
  await placed('available')
  assert.equal(guests.guests.get(id)?.disks.includes(volumeId), false)

  const act = async (action: object, changes: (server: Answer['body']) => boolean) =>
    await lives.change('POST', `${path}/action`, action, async () => changes(await show()))
  await lives.change(
    'POST',
    '/v1/{project}/cloudservers/action',
    { 'os-stop': { type: 'HARD', servers: [{ id }] } },
    async () => {
      const server = await show()
      return server.status === 'SHUTOFF' || server['OS-EXT-STS:task_state'] !== null
    },
  )
  await settled('SHUTOFF')
  assert.equal(guests.guests.get(id)?.power, 'off')
  await act(
    { 'os-start': null },
    (server) => server.status === 'ACTIVE' || server['OS-EXT-STS:task_state'] !== null,
  )
  await settled('ACTIVE')
  const since = guests.guests.get(id)?.since ?? 0
  await act(
    { reboot: { type: 'HARD' } },
    (server) =>
      server['OS-EXT-STS:task_state'] !== null || (guests.guests.get(id)?.since ?? 0) > since,
  )
  await settled('ACTIVE')
  assert.ok((guests.guests.get(id)?.since ?? 0) > since)

  await lives.change('DELETE', path, undefined, async () => {
    const answer = await told(lives, path)
    return answer.status === 404 || answer.body.server['OS-EXT-STS:task_state'] === 'deleting'
  })
  await lives.until('the server is gone', async () =>
    (await told(lives, path)).status === 404 ? true : null,
  )
  assert.equal(guests.guests.has(id), false)
  await lives.change('DELETE', `${VOLUMES}/${volumeId}`, undefined, async () => {
    const [volume] = await volumes()
    return volume === undefined || volume.status === 'deleting'
  })
  await lives.until('no disk of it is left', async () => {
    const { body } = await told(lives, `${VOLUMES}/detail`)
    const left = (body.volumes as Answer['body'][]).filter((one) => one.name.startsWith(name))
    return left.length === 0 ? true : null
  })
}
