/** Which request in which situation comes to which code of the volume API. */
import { newHexId, newId } from '#base/ids.ts'
import type { Produced } from './codes.ts'
import { CLOUD, type EvsAsks, VOLUMES } from './evs-asks.ts'

const ATTACHED = JSON.stringify([
  { id: newId(), server: newId(), device: '/dev/vdb', host: null, mode: 'rw', at: 1 },
])
const extend = (new_size: unknown) => ({ 'os-extend': { new_size } })

export function evsProduced(ask: EvsAsks): readonly Produced[] {
  return [
    {
      code: 'EVS.0001',
      status: 400,
      when: 'quotas of another project are asked for',
      send: () => ask.send('GET', `/v2/{project}/os-quota-sets/${newHexId()}`),
    },
    {
      code: 'EVS.1001',
      status: 400,
      when: 'an update without name, description and metadata',
      send: async () =>
        await ask.send('PUT', `${VOLUMES}/${await ask.volumeRow()}`, { volume: {} }),
    },
    {
      code: 'EVS.1002',
      status: 400,
      when: 'a malformed disk id, in the native form',
      send: () => ask.send('GET', `${CLOUD}/not-an-id`),
    },
    {
      code: 'EVS.1003',
      status: 400,
      when: 'a name of more than 255 bytes, or no text',
      send: () => ask.create({ name: 'ä'.repeat(128) }),
    },
    {
      code: 'EVS.1004',
      status: 400,
      when: 'a description of more than 255 bytes, or no text',
      send: () => ask.create({ description: 7 }),
    },
    {
      code: 'EVS.1005',
      status: 400,
      when: 'metadata of more than 1048576 bytes',
      send: () =>
        ask.create({
          metadata: Object.fromEntries(
            Array.from({ length: 4_200 }, (_, at) => [`k${at}`, 'x'.repeat(250)]),
          ),
        }),
    },
    {
      code: 'EVS.1006',
      status: 400,
      when: 'a disk from a backup: backups of volumes are restored by their own service',
      send: () => ask.create({ backup_id: newId() }),
    },
    {
      code: 'EVS.1007',
      status: 400,
      when: 'name and description both empty, in the native form',
      send: async () => await ask.send('PUT', `${CLOUD}/${await ask.volumeRow()}`, { volume: {} }),
    },
    {
      code: 'EVS.1008',
      status: 400,
      when: 'a creation without a body or without `volume`',
      send: () => ask.send('POST', VOLUMES, {}),
    },
    {
      code: 'EVS.1009',
      status: 400,
      when: 'a creation whose body or `volume` is no object',
      send: () => ask.send('POST', VOLUMES, { volume: 7 }),
    },
    {
      code: 'EVS.1010',
      status: 400,
      when: 'a size that is no number from 1 to 32768, or below that of the source',
      send: () => ask.create({ size: 0 }),
    },
    {
      code: 'EVS.1011',
      status: 400,
      when: 'an extension without a new size',
      send: () => ask.act({}, { 'os-extend': {} }),
    },
    {
      code: 'EVS.1015',
      status: 400,
      when: 'a new size that is not larger',
      send: () => ask.act({}, extend(2)),
    },
    {
      code: 'EVS.1016',
      status: 400,
      when: 'more than one source of a disk',
      send: () => ask.create({ snapshot_id: newId(), imageRef: newId() }),
    },
    {
      code: 'EVS.1018',
      status: 400,
      when: 'metadata or tags that are no map of text',
      send: () => ask.create({ metadata: { a: 1 } }),
    },
    {
      code: 'EVS.1020',
      status: 400,
      when: 'a disk type that is no text',
      send: () => ask.create({ volume_type: 7 }),
    },
    {
      code: 'EVS.1021',
      status: 400,
      when: 'a count that is no whole number from 1 to 100',
      send: () => ask.create({ count: 101 }),
    },
    {
      code: 'EVS.1024',
      status: 400,
      when: 'a marker that is no id',
      send: () => ask.send('GET', `${VOLUMES}?marker=x`),
    },
    {
      code: 'EVS.1025',
      status: 400,
      when: 'a metadata filter that cannot be read',
      send: () => ask.send('GET', `${VOLUMES}/detail?metadata=x`),
    },
    {
      code: 'EVS.1027',
      status: 403,
      when: 'a role that does not allow it',
      send: async () => {
        const reader = await ask.lab.userWith('reader', ask.project)
        return await ask.send('POST', VOLUMES, { volume: { size: 1 } }, reader.token)
      },
    },
    {
      code: 'EVS.1034',
      status: 400,
      when: 'the quota of disks is used up, in the native form',
      send: () => ask.withQuota('volumes', CLOUD),
    },
    {
      code: 'EVS.1036',
      status: 400,
      when: 'an unknown availability zone',
      send: () => ask.create({ availability_zone: 'az9' }),
    },
    {
      code: 'EVS.1039',
      status: 400,
      when: 'an unknown sort key',
      send: () => ask.send('GET', `${VOLUMES}?sort_key=colour`),
    },
    {
      code: 'EVS.1040',
      status: 400,
      when: 'an unknown sort direction',
      send: () => ask.send('GET', `${VOLUMES}?sort_dir=up`),
    },
    {
      code: 'EVS.1041',
      status: 400,
      when: 'a filter by an unknown availability zone',
      send: () => ask.send('GET', `${CLOUD}/detail?availability_zone=az9`),
    },
    {
      code: 'EVS.1042',
      status: 400,
      when: 'the quota of gigabytes is used up, in the native form',
      send: () => ask.withQuota('gigabytes', CLOUD),
    },
    {
      code: 'EVS.1043',
      status: 400,
      when: 'encryption or passthrough asked for a disk with a source',
      send: () => ask.create({ snapshot_id: newId(), metadata: { 'hw:passthrough': 'true' } }),
    },
    {
      code: 'EVS.1046',
      status: 400,
      when: 'deletion of a disk that is attached or at work',
      send: async () => {
        const id = await ask.volumeRow({ status: 'in-use', attachments: ATTACHED })
        return await ask.send('DELETE', `${VOLUMES}/${id}`)
      },
    },
    {
      code: 'EVS.1047',
      status: 400,
      when: 'deletion of, or rollback to, a snapshot that is at work, or from which a disk is being made',
      send: async () =>
        await ask.send('DELETE', `/v2/{project}/snapshots/${await ask.snapshotRow('creating')}`),
    },
    {
      code: 'EVS.1048',
      status: 400,
      when: 'extension of a disk that is not available, in use or left half extended',
      send: () => ask.act({ status: 'creating' }, extend(9)),
    },
    {
      code: 'EVS.1054',
      status: 400,
      when: '`multiattach` or `shareable` that is no truth value',
      send: () => ask.create({ multiattach: 'maybe' }),
    },
    {
      code: 'EVS.1057',
      status: 400,
      when: '`hw:passthrough` that is neither "true" nor "false"',
      send: () => ask.create({ metadata: { 'hw:passthrough': '1' } }),
    },
    {
      code: 'EVS.1061',
      status: 400,
      when: 'more tags than a disk may have',
      send: () =>
        ask.create(
          {
            tags: Object.fromEntries(Array.from({ length: 21 }, (_, at) => [`k${at}`, 'v'])),
          },
          CLOUD,
        ),
    },
    {
      code: 'EVS.1062',
      status: 400,
      when: 'a tag with a malformed key or value',
      send: () => ask.create({ tags: { '': 'v' } }, CLOUD),
    },
    {
      code: 'EVS.1063',
      status: 400,
      when: '`full_clone` that is neither "0" nor "1"',
      send: () => ask.create({ metadata: { full_clone: 'yes' } }),
    },
    {
      code: 'EVS.1065',
      status: 400,
      when: 'extension of a shared disk in use',
      send: () => ask.act({ status: 'in-use', multiattach: 1, attachments: ATTACHED }, extend(9)),
    },
    {
      code: 'EVS.1066',
      status: 400,
      when: 'extension of a disk whose server is being made, or in error',
      send: () => ask.serverWithoutState(),
    },
    {
      code: 'EVS.2020',
      status: 200,
      when: 'in a job: the deletion failed, the disk is error_deleting',
      send: () => ask.failedJob('volume.delete'),
    },
    {
      code: 'EVS.2024',
      status: 200,
      when: 'in a job: the creation failed, the disk is in error',
      send: () => ask.failedJob('volume.create'),
    },
    {
      code: 'EVS.2026',
      status: 200,
      when: 'in a job: the extension failed, the disk is error_extending',
      send: () => ask.failedJob('volume.extend'),
    },
    {
      code: 'EVS.2041',
      status: 400,
      when: '`__system__encrypted`: encryption is not offered, and an open disk is not given instead',
      send: () => ask.create({ metadata: { __system__encrypted: '1' } }),
    },
    {
      code: 'EVS.2043',
      status: 400,
      when: 'a disk from a snapshot that is not available',
      send: async () => await ask.create({ snapshot_id: await ask.snapshotRow('creating') }),
    },
    {
      code: 'EVS.2045',
      status: 400,
      when: 'a disk from a snapshot that does not exist, or holds several disks',
      send: () => ask.create({ snapshot_id: newId() }),
    },
    {
      code: 'EVS.2046',
      status: 400,
      when: 'a disk from an image that does not exist',
      send: () => ask.create({ imageRef: newId() }),
    },
    {
      code: 'EVS.2047',
      status: 400,
      when: 'change of a metadata key that is set when the disk is made, or by the service',
      send: async () =>
        await ask.send('PUT', `${VOLUMES}/${await ask.volumeRow()}`, {
          volume: { metadata: { __system__cmkid: 'k' } },
        }),
    },
    {
      code: 'EVS.2050',
      status: 200,
      when: 'in a job: the site did not take what the new type allows, the disk has its old type',
      send: () => ask.failedJob('volume.retype'),
    },
    {
      code: 'EVS.2054',
      status: 400,
      when: 'a disk in another availability zone than its source',
      send: async () =>
        await ask.create({ snapshot_id: await ask.snapshotRow('available', 'az2'), size: 2 }),
    },
    {
      code: 'EVS.2070',
      status: 400,
      when: 'an unknown disk type',
      send: () => ask.create({ volume_type: 'TAPE' }),
    },
    {
      code: 'EVS.2087',
      status: 400,
      when: 'change to a type that is not higher',
      send: () => ask.act({}, { 'os-retype': { new_type: 'SATA' } }),
    },
    {
      code: 'EVS.2089',
      status: 400,
      when: 'deletion, extension, retype, read-only flag or rollback of one disk of a replication pair; attachment of its DR disk',
      send: () => ask.act({ pair: newId() }, { 'os-retype': { new_type: 'ESSD' } }),
    },
    {
      code: 'EVS.2142',
      status: 400,
      when: 'a limit above 1000',
      send: () => ask.send('GET', `${VOLUMES}?limit=1001`),
    },
    {
      code: 'EVS.5400',
      status: 400,
      when: 'everything else that is malformed, and states that do not allow an action without a code of its own',
      send: () => ask.send('GET', `${VOLUMES}?limit=0`),
    },
    {
      code: 'EVS.5401',
      status: 401,
      when: 'no token or signature, or one that is not good',
      send: () => ask.send('GET', VOLUMES, undefined, 'no-token'),
    },
    {
      code: 'EVS.5404',
      status: 404,
      when: 'an unknown disk, snapshot, type or path; in the Cinder form also a malformed id',
      send: () => ask.send('GET', `${VOLUMES}/${newId()}`),
    },
    {
      code: 'EVS.5413',
      status: 413,
      when: 'a quota is used up, in the Cinder form',
      send: () => ask.withQuota('gigabytes', VOLUMES),
    },
    {
      code: 'EVS.5500',
      status: 500,
      when: 'a mistake of the server; the log has more under the request id',
      send: async () =>
        await ask.send('GET', `${VOLUMES}/${await ask.volumeRow({ metadata: '{' })}`),
    },
    {
      code: 'EVS.5503',
      status: 503,
      when: 'too much waits to be done, the database does not answer, or a site has not done in time what the answer waits for',
      send: () => ask.queueFull(),
    },
    {
      code: 'Common.0011',
      status: 404,
      when: 'an unknown job, or one of another project',
      send: () => ask.send('GET', `/v1/{project}/jobs/${newHexId()}`),
    },
  ]
}
