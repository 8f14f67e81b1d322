import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { newHexId, newId } from '#base/ids.ts'
import { setQuotaLimit } from '#control/resources/surroundings.ts'
import { insertVolume, updateVolume } from '#control/resources/volumes.ts'
import type { OperationRow } from '#control/store/tables/operations.ts'
import type { VolumeRow } from '#control/store/tables/resources.ts'
import { ApiLab } from '../support/api.ts'
import {
  type Answered,
  assertComplete,
  assertOnPage,
  type Never,
  type Produced,
  tableLines,
} from '../support/codes.ts'
import { disksOfPairs, groupRow, insertRows, pairRow } from '../support/group-rows.ts'
import { insertServers } from '../support/server-rows.ts'

/** Every published error code of the volume API, with rows that are made for it and no agents. */
let lab: ApiLab
let token: string
let project: string
before(async () => {
  lab = await ApiLab.start()
  token = await lab.adminToken()
  project = lab.admin.project_id
})
after(async () => await lab.stop())

const PUBLISHED = [
  ...'0001 0002 0003 1001 1002 1003 1004 1005 1006 1007 1008 1009 1010 1011 1012 1013 1014 1015 1016 1018 1020'.split(
    ' ',
  ),
  ...'1021 1022 1023 1024 1025 1027 1031 1032 1033 1034 1036 1039 1040 1041 1042 1043 1044 1045 1046 1047 1048'.split(
    ' ',
  ),
  ...'1049 1051 1052 1053 1054 1057 1058 1061 1062 1063 1064 1065 1066 1070 2001 2002 2005 2007 2010 2011 2013'.split(
    ' ',
  ),
  ...'2014 2019 2020 2021 2023 2024 2025 2026 2029 2030 2031 2032 2033 2034 2035 2036 2040 2041 2042 2043 2044'.split(
    ' ',
  ),
  ...'2045 2046 2047 2050 2052 2053 2054 2055 2056 2068 2070 2071 2072 2078 2083 2084 2085 2087 2089 2093 2094'.split(
    ' ',
  ),
  ...'2096 2105 2108 2130 2131 2134 2142 2143 2144 2145 5400 5401 5403 5404 5413 5500 5503'.split(
    ' ',
  ),
]
  .map((number) => `EVS.${number}`)
  .concat('Common.0011', 'Common.0013', 'Common.0018')

type Method = 'GET' | 'POST' | 'PUT' | 'DELETE'

/** Held against the contract, except where the contract has no such path. */
async function send(
  method: Method,
  path: string,
  body?: unknown,
  as: string | null = token,
): Promise<Answered> {
  const url = path.replace('{project}', project)
  const headers: Record<string, string> = as === null ? {} : { 'x-auth-token': as }
  return await lab.call({ method, url, headers, ...(body === undefined ? {} : { body }) }, 'evs')
}

const VOLUMES = '/v2/{project}/volumes'
const CLOUD = '/v2/{project}/cloudvolumes'
const create = (volume: object, path = VOLUMES) =>
  send('POST', path, { volume: { size: 1, availability_zone: 'az1', ...volume } })

async function volumeRow(change: Partial<VolumeRow> = {}): Promise<string> {
  const id = newId()
  const made = {
    id,
    project,
    name: 'v',
    description: null,
    sizeGb: 2,
    type: 'SAS',
    az: 'az1',
    metadata: {},
    bootable: false,
    multiattach: false,
    pair: null,
    user: 'u',
  }
  await lab.store.write(async (tx) => {
    await insertVolume(tx, made, lab.clock.wallMs())
    await updateVolume(tx, id, { status: 'available', ...change }, lab.clock.wallMs())
  })
  return id
}

async function snapshotRow(status: string, site = 'az1'): Promise<string> {
  const id = newId()
  const row = {
    id,
    project,
    name: 's',
    description: null,
    metadata: '{}',
    size_gb: 2,
    group_id: null,
    site,
    volumes: JSON.stringify([await volumeRow({ az: site })]),
    status,
    facts: null,
    failure_detail: null,
    created_at: 1,
    updated_at: 1,
  }
  await lab.store.write((tx) => tx.insertInto('snapshots').values(row).execute())
  return id
}

let ordinal = 1_000
const operationRow = (change: Partial<OperationRow>): OperationRow => {
  const id = newHexId()
  return {
    id,
    kind: 'volume.create',
    version: 1,
    project,
    ordinal: ++ordinal,
    resource_type: 'volume',
    resource_id: newId(),
    parent: null,
    root: id,
    input: '{}',
    status: 'failed',
    step: 0,
    progress: 0,
    joining: 0,
    cancel_wanted: 0,
    attempts: 1,
    run_at: 0,
    error_code: 'SITE_REFUSED',
    fail_reason: 'the site refused',
    failed_step: 'create',
    entities: '{}',
    created_at: 1,
    begin_at: 1,
    end_at: 2,
    lease_owner: null,
    lease_beat: 0,
    lease_beat_at: null,
    ...change,
  }
}

/** The code stands in the job, not in an error. */
async function failedJob(kind: string): Promise<Answered> {
  const row = operationRow({ kind })
  await lab.store.write((tx) => tx.insertInto('operations').values(row).execute())
  const { status, body } = await send('GET', `/v1/{project}/jobs/${row.id}`)
  assert.equal(body.status, 'FAIL')
  return { status, body: { error: { code: body.error_code } } }
}

async function withQuota(kind: 'volumes' | 'gigabytes', path: string): Promise<Answered> {
  await lab.store.write((tx) => setQuotaLimit(tx, project, kind, 0))
  const reply = await create({}, path)
  await lab.store.write((tx) => setQuotaLimit(tx, project, kind, -1))
  return reply
}

async function serverWithoutState(): Promise<Answered> {
  const image = await lab.store.db.selectFrom('images').select('id').executeTakeFirstOrThrow()
  await insertServers(lab.store, project, 1, image.id)
  const { volume } = await lab.store.db
    .selectFrom('server_disks')
    .select('volume')
    .executeTakeFirstOrThrow()
  await lab.store.write((tx) => tx.updateTable('servers').set({ status: 'error' }).execute())
  return await send('POST', `${VOLUMES}/${volume}/action`, { 'os-extend': { new_size: 9 } })
}

/** As many operations wait as may. */
async function queueFull(): Promise<Answered> {
  await lab.store.write(async (tx) => {
    for (let at = 0; at < 10_000; at += 200) {
      const rows = Array.from({ length: 200 }, () =>
        operationRow({ status: 'pending', run_at: Number.MAX_SAFE_INTEGER, end_at: null }),
      )
      await tx.insertInto('operations').values(rows).execute()
    }
  })
  const reply = await create({})
  await lab.store.write((tx) =>
    tx.deleteFrom('operations').where('status', '=', 'pending').execute(),
  )
  return reply
}

const act = async (change: Partial<VolumeRow>, action: object) =>
  await send('POST', `${VOLUMES}/${await volumeRow(change)}/action`, action)
const ATTACHED = JSON.stringify([
  { id: newId(), server: newId(), device: '/dev/vdb', host: null, mode: 'rw', at: 1 },
])
const extend = (new_size: unknown) => ({ 'os-extend': { new_size } })

const PRODUCED: readonly Produced[] = [
  {
    code: 'EVS.0001',
    status: 400,
    when: 'quotas of another project are asked for',
    send: () => send('GET', `/v2/{project}/os-quota-sets/${newHexId()}`),
  },
  {
    code: 'EVS.1001',
    status: 400,
    when: 'an update without name, description and metadata',
    send: async () => await send('PUT', `${VOLUMES}/${await volumeRow()}`, { volume: {} }),
  },
  {
    code: 'EVS.1002',
    status: 400,
    when: 'a malformed disk id, in the native form',
    send: () => send('GET', `${CLOUD}/not-an-id`),
  },
  {
    code: 'EVS.1003',
    status: 400,
    when: 'a name of more than 255 bytes, or no text',
    send: () => create({ name: 'ä'.repeat(128) }),
  },
  {
    code: 'EVS.1004',
    status: 400,
    when: 'a description of more than 255 bytes, or no text',
    send: () => create({ description: 7 }),
  },
  {
    code: 'EVS.1005',
    status: 400,
    when: 'metadata of more than 1048576 bytes',
    send: () =>
      create({
        metadata: Object.fromEntries(
          Array.from({ length: 4_200 }, (_, at) => [`k${at}`, 'x'.repeat(250)]),
        ),
      }),
  },
  {
    code: 'EVS.1006',
    status: 400,
    when: 'a disk from a backup: backups of volumes are restored by their own service',
    send: () => create({ backup_id: newId() }),
  },
  {
    code: 'EVS.1007',
    status: 400,
    when: 'name and description both empty, in the native form',
    send: async () => await send('PUT', `${CLOUD}/${await volumeRow()}`, { volume: {} }),
  },
  {
    code: 'EVS.1008',
    status: 400,
    when: 'a creation without a body or without `volume`',
    send: () => send('POST', VOLUMES, {}),
  },
  {
    code: 'EVS.1009',
    status: 400,
    when: 'a creation whose body or `volume` is no object',
    send: () => send('POST', VOLUMES, { volume: 7 }),
  },
  {
    code: 'EVS.1010',
    status: 400,
    when: 'a size that is no number from 1 to 32768, or below that of the source',
    send: () => create({ size: 0 }),
  },
  {
    code: 'EVS.1011',
    status: 400,
    when: 'an extension without a new size',
    send: () => act({}, { 'os-extend': {} }),
  },
  {
    code: 'EVS.1015',
    status: 400,
    when: 'a new size that is not larger',
    send: () => act({}, extend(2)),
  },
  {
    code: 'EVS.1016',
    status: 400,
    when: 'more than one source of a disk',
    send: () => create({ snapshot_id: newId(), imageRef: newId() }),
  },
  {
    code: 'EVS.1018',
    status: 400,
    when: 'metadata or tags that are no map of text',
    send: () => create({ metadata: { a: 1 } }),
  },
  {
    code: 'EVS.1020',
    status: 400,
    when: 'a disk type that is no text',
    send: () => create({ volume_type: 7 }),
  },
  {
    code: 'EVS.1021',
    status: 400,
    when: 'a count that is no whole number from 1 to 100',
    send: () => create({ count: 101 }),
  },
  {
    code: 'EVS.1024',
    status: 400,
    when: 'a marker that is no id',
    send: () => send('GET', `${VOLUMES}?marker=x`),
  },
  {
    code: 'EVS.1025',
    status: 400,
    when: 'a metadata filter that cannot be read',
    send: () => send('GET', `${VOLUMES}/detail?metadata=x`),
  },
  {
    code: 'EVS.1027',
    status: 403,
    when: 'a role that does not allow it',
    send: async () => {
      const reader = await lab.userWith('reader', project)
      return await send('POST', VOLUMES, { volume: { size: 1 } }, reader.token)
    },
  },
  {
    code: 'EVS.1034',
    status: 400,
    when: 'the quota of disks is used up, in the native form',
    send: () => withQuota('volumes', CLOUD),
  },
  {
    code: 'EVS.1036',
    status: 400,
    when: 'an unknown availability zone',
    send: () => create({ availability_zone: 'az9' }),
  },
  {
    code: 'EVS.1039',
    status: 400,
    when: 'an unknown sort key',
    send: () => send('GET', `${VOLUMES}?sort_key=colour`),
  },
  {
    code: 'EVS.1040',
    status: 400,
    when: 'an unknown sort direction',
    send: () => send('GET', `${VOLUMES}?sort_dir=up`),
  },
  {
    code: 'EVS.1041',
    status: 400,
    when: 'a filter by an unknown availability zone',
    send: () => send('GET', `${CLOUD}/detail?availability_zone=az9`),
  },
  {
    code: 'EVS.1042',
    status: 400,
    when: 'the quota of gigabytes is used up, in the native form',
    send: () => withQuota('gigabytes', CLOUD),
  },
  {
    code: 'EVS.1043',
    status: 400,
    when: 'encryption or passthrough asked for a disk with a source',
    send: () => create({ snapshot_id: newId(), metadata: { 'hw:passthrough': 'true' } }),
  },
  {
    code: 'EVS.1046',
    status: 400,
    when: 'deletion of a disk that is attached or at work',
    send: async () => {
      const id = await volumeRow({ status: 'in-use', attachments: ATTACHED })
      return await send('DELETE', `${VOLUMES}/${id}`)
    },
  },
  {
    code: 'EVS.1047',
    status: 400,
    when: 'deletion of, or rollback to, a snapshot that is at work, or from which a disk is being made',
    send: async () =>
      await send('DELETE', `/v2/{project}/snapshots/${await snapshotRow('creating')}`),
  },
  {
    code: 'EVS.1048',
    status: 400,
    when: 'extension of a disk that is not available, in use or left half extended',
    send: () => act({ status: 'creating' }, extend(9)),
  },
  {
    code: 'EVS.1054',
    status: 400,
    when: '`multiattach` or `shareable` that is no truth value',
    send: () => create({ multiattach: 'maybe' }),
  },
  {
    code: 'EVS.1057',
    status: 400,
    when: '`hw:passthrough` that is neither "true" nor "false"',
    send: () => create({ metadata: { 'hw:passthrough': '1' } }),
  },
  {
    code: 'EVS.1061',
    status: 400,
    when: 'more tags than a disk may have',
    send: () =>
      create(
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
    send: () => create({ tags: { '': 'v' } }, CLOUD),
  },
  {
    code: 'EVS.1063',
    status: 400,
    when: '`full_clone` that is neither "0" nor "1"',
    send: () => create({ metadata: { full_clone: 'yes' } }),
  },
  {
    code: 'EVS.1065',
    status: 400,
    when: 'extension of a shared disk in use',
    send: () => act({ status: 'in-use', multiattach: 1, attachments: ATTACHED }, extend(9)),
  },
  {
    code: 'EVS.1066',
    status: 400,
    when: 'extension of a disk whose server is being made, or in error',
    send: serverWithoutState,
  },
  {
    code: 'EVS.2020',
    status: 200,
    when: 'in a job: the deletion failed, the disk is error_deleting',
    send: () => failedJob('volume.delete'),
  },
  {
    code: 'EVS.2024',
    status: 200,
    when: 'in a job: the creation failed, the disk is in error',
    send: () => failedJob('volume.create'),
  },
  {
    code: 'EVS.2026',
    status: 200,
    when: 'in a job: the extension failed, the disk is error_extending',
    send: () => failedJob('volume.extend'),
  },
  {
    code: 'EVS.2041',
    status: 400,
    when: '`__system__encrypted`: encryption is not offered, and an open disk is not given instead',
    send: () => create({ metadata: { __system__encrypted: '1' } }),
  },
  {
    code: 'EVS.2043',
    status: 400,
    when: 'a disk from a snapshot that is not available',
    send: async () => await create({ snapshot_id: await snapshotRow('creating') }),
  },
  {
    code: 'EVS.2045',
    status: 400,
    when: 'a disk from a snapshot that does not exist, or holds several disks',
    send: () => create({ snapshot_id: newId() }),
  },
  {
    code: 'EVS.2046',
    status: 400,
    when: 'a disk from an image that does not exist',
    send: () => create({ imageRef: newId() }),
  },
  {
    code: 'EVS.2047',
    status: 400,
    when: 'change of a metadata key that is set when the disk is made, or by the service',
    send: async () =>
      await send('PUT', `${VOLUMES}/${await volumeRow()}`, {
        volume: { metadata: { __system__cmkid: 'k' } },
      }),
  },
  {
    code: 'EVS.2050',
    status: 200,
    when: 'in a job: the site did not take what the new type allows, the disk has its old type',
    send: () => failedJob('volume.retype'),
  },
  {
    code: 'EVS.2054',
    status: 400,
    when: 'a disk in another availability zone than its source',
    send: async () => await create({ snapshot_id: await snapshotRow('available', 'az2'), size: 2 }),
  },
  {
    code: 'EVS.2070',
    status: 400,
    when: 'an unknown disk type',
    send: () => create({ volume_type: 'TAPE' }),
  },
  {
    code: 'EVS.2087',
    status: 400,
    when: 'change to a type that is not higher',
    send: () => act({}, { 'os-retype': { new_type: 'SATA' } }),
  },
  {
    code: 'EVS.2089',
    status: 400,
    when: 'deletion, extension, retype, read-only flag or rollback of one disk of a replication pair',
    send: () => act({ pair: newId() }, { 'os-retype': { new_type: 'ESSD' } }),
  },
  {
    code: 'EVS.2142',
    status: 400,
    when: 'a limit above 1000',
    send: () => send('GET', `${VOLUMES}?limit=1001`),
  },
  {
    code: 'EVS.5400',
    status: 400,
    when: 'everything else that is malformed, and states that do not allow an action without a code of its own',
    send: () => send('GET', `${VOLUMES}?limit=0`),
  },
  {
    code: 'EVS.5401',
    status: 401,
    when: 'no token or signature, or one that is not good',
    send: () => send('GET', VOLUMES, undefined, 'no-token'),
  },
  {
    code: 'EVS.5404',
    status: 404,
    when: 'an unknown disk, snapshot, type or path; in the Cinder form also a malformed id',
    send: () => send('GET', `${VOLUMES}/${newId()}`),
  },
  {
    code: 'EVS.5413',
    status: 413,
    when: 'a quota is used up, in the Cinder form',
    send: () => withQuota('gigabytes', VOLUMES),
  },
  {
    code: 'EVS.5500',
    status: 500,
    when: 'a mistake of the server; the log has more under the request id',
    send: async () => await send('GET', `${VOLUMES}/${await volumeRow({ metadata: '{' })}`),
  },
  {
    code: 'EVS.5503',
    status: 503,
    when: 'too much waits to be done, or the database does not answer',
    send: queueFull,
  },
  {
    code: 'Common.0011',
    status: 404,
    when: 'an unknown job, or one of another project',
    send: () => send('GET', `/v1/{project}/jobs/${newHexId()}`),
  },
]

const BODY = 'what cannot be read has `EVS.1008`, `EVS.1009`, `EVS.1018` or `EVS.5400`'
const BACKUP = 'disks are not made from backups here'
const KEYS = 'there is no key service: encryption is refused with `EVS.2041`'
const QUOTAS = 'quotas are rows of the same database'
const FORMS = 'belongs to a request that the contract does not have'
const NEVER: readonly Never[] = [
  { code: 'EVS.0002', why: 'a bad token is always 401, `EVS.5401`' },
  { code: 'EVS.0003', why: 'a token without a role in the project is not issued' },
  { code: 'EVS.1012', why: 'there are no temporary disks' },
  { code: 'EVS.1013', why: BODY },
  { code: 'EVS.1014', why: 'every disk can be extended' },
  { code: 'EVS.1022', why: BACKUP },
  { code: 'EVS.1023', why: 'a limit is refused with `EVS.2142` or `EVS.5400`' },
  { code: 'EVS.1031', why: 'an unknown status matches nothing' },
  { code: 'EVS.1032', why: 'ids are refused with `EVS.1002`, `EVS.1024` or `EVS.5404`' },
  { code: 'EVS.1033', why: QUOTAS },
  { code: 'EVS.1044', why: BACKUP },
  { code: 'EVS.1045', why: BACKUP },
  { code: 'EVS.1049', why: BACKUP },
  { code: 'EVS.1051', why: BACKUP },
  { code: 'EVS.1052', why: BODY },
  { code: 'EVS.1053', why: FORMS },
  { code: 'EVS.1058', why: 'a metadata filter is refused with `EVS.1025`' },
  { code: 'EVS.1064', why: 'the state of a disk that is extended is refused with `EVS.1048`' },
  { code: 'EVS.1070', why: BODY },
  {
    code: 'EVS.2001',
    why: 'an operation is stored with its request or the request is refused, `EVS.5503`',
  },
  { code: 'EVS.2002', why: 'is `EVS.5500`' },
  { code: 'EVS.2005', why: 'is `EVS.5503`' },
  { code: 'EVS.2007', why: 'metadata is a row of the same database' },
  { code: 'EVS.2010', why: 'no token is exchanged' },
  { code: 'EVS.2011', why: 'there are no orders' },
  { code: 'EVS.2013', why: 'roles are rows of the same database' },
  { code: 'EVS.2014', why: 'roles are rows of the same database' },
  { code: 'EVS.2019', why: 'snapshots have no jobs here; the snapshot says error_deleting' },
  { code: 'EVS.2021', why: 'a disk that is given back ends in-use when that fails' },
  {
    code: 'EVS.2023',
    why: 'a site that does not answer is asked again; the job ends with the code of its kind',
  },
  { code: 'EVS.2025', why: BACKUP },
  { code: 'EVS.2029', why: 'children are kept with their parents' },
  { code: 'EVS.2030', why: 'children are kept with their parents' },
  { code: 'EVS.2031', why: 'children are kept with their parents' },
  { code: 'EVS.2032', why: QUOTAS },
  { code: 'EVS.2033', why: QUOTAS },
  { code: 'EVS.2034', why: 'tokens are opaque' },
  { code: 'EVS.2035', why: 'tokens are opaque' },
  { code: 'EVS.2036', why: 'tokens are opaque' },
  { code: 'EVS.2040', why: KEYS },
  { code: 'EVS.2042', why: KEYS },
  { code: 'EVS.2044', why: KEYS },
  { code: 'EVS.2052', why: 'there are no orders' },
  { code: 'EVS.2053', why: 'is `EVS.1036`' },
  { code: 'EVS.2055', why: KEYS },
  { code: 'EVS.2056', why: 'what a role does not allow is `EVS.1027`' },
  { code: 'EVS.2068', why: 'disks are not locked: operations on one disk wait for each other' },
  { code: 'EVS.2071', why: 'every type is offered in every zone' },
  { code: 'EVS.2072', why: 'nothing is sold out: a site without space fails the job' },
  { code: 'EVS.2078', why: FORMS },
  { code: 'EVS.2083', why: FORMS },
  { code: 'EVS.2084', why: FORMS },
  { code: 'EVS.2085', why: FORMS },
  { code: 'EVS.2093', why: 'every disk is of this service' },
  { code: 'EVS.2094', why: 'a shared disk may be bootable' },
  { code: 'EVS.2096', why: 'a disk from a snapshot may have any type' },
  { code: 'EVS.2105', why: KEYS },
  { code: 'EVS.2108', why: BODY },
  { code: 'EVS.2130', why: BACKUP },
  { code: 'EVS.2131', why: 'servers are rows of the same database' },
  { code: 'EVS.2134', why: 'disks of servers are attached by the server API, with its codes' },
  { code: 'EVS.2143', why: KEYS },
  { code: 'EVS.2144', why: 'accounts are not billed: a disabled user is `EVS.5401`' },
  { code: 'EVS.2145', why: 'accounts are not billed: a disabled user is `EVS.5401`' },
  {
    code: 'EVS.5403',
    why: 'what a role does not allow is `EVS.1027`, protected metadata `EVS.2047`',
  },
  {
    code: 'Common.0013',
    why: 'a bad token is always 401, in the form of the service that the path belongs to',
  },
  {
    code: 'Common.0018',
    why: 'jobs are one store: another project in the path is refused by the service that the path belongs to',
  },
]

test('every published code is produced or cannot occur', () => {
  assertComplete(PUBLISHED, PRODUCED, NEVER)
})

test('each code that can occur is answered in its situation', async () => {
  for (const { code, status, send: produce } of PRODUCED) {
    const reply = await produce()
    const found = [reply.body?.error?.code, reply.status]
    assert.deepEqual(found, [code, status], JSON.stringify(reply.body))
  }
})

test('one disk of a pair that replicates is changed through no door, and is the same afterwards', async () => {
  const group = groupRow(project, { status: 'protected' })
  const pair = pairRow(group, 1, { in_session: 1, status: 'protected' })
  await insertRows(lab.store, {
    protection_groups: [group],
    replication_pairs: [pair],
    volumes: disksOfPairs(group, [pair]),
  })
  const volume = pair.source_volume
  const snapshot = await snapshotRow('available')
  const volumes = JSON.stringify([volume])
  await lab.store.write((tx) =>
    tx.updateTable('snapshots').set({ volumes }).where('id', '=', snapshot).execute(),
  )
  const state = async () => await lab.store.db.selectFrom('volumes').selectAll().execute()
  const before = await state()
  const doors: [Method, string, unknown][] = [
    ['DELETE', `${VOLUMES}/${volume}`, undefined],
    ['DELETE', `${CLOUD}/${volume}`, undefined],
    ['POST', `${VOLUMES}/${volume}/action`, extend(100)],
    ['POST', `${CLOUD}/${volume}/action`, extend(100)],
    ['POST', `${VOLUMES}/${volume}/action`, { 'os-retype': { new_type: 'ESSD' } }],
    ['POST', `${VOLUMES}/${volume}/retype`, { 'os-retype': { new_type: 'ESSD' } }],
    ['POST', `${VOLUMES}/${volume}/action`, { 'os-update_readonly_flag': { readonly: true } }],
    [
      'POST',
      `/v2/{project}/cloudsnapshots/${snapshot}/rollback`,
      { rollback: { volume_id: volume } },
    ],
  ]
  for (const [method, path, body] of doors) {
    const reply = await send(method, path, body)
    const found = [reply.status, reply.body?.error?.code]
    assert.deepEqual(found, [400, 'EVS.2089'], `${method} ${path} ${JSON.stringify(body)}`)
  }
  assert.deepEqual(await state(), before)
})

test('the page lists the same codes for the same reasons', () => {
  const path = new URL('../../docs/compatibility/evs.md', import.meta.url)
  const lines = tableLines(PRODUCED, NEVER)
  assertOnPage(readFileSync(path, 'utf8'), lines, /^\| `(EVS|Common)\./)
})
