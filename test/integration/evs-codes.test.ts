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
  type Produced,
  tableLines,
} from '../support/codes.ts'
import { NEVER, PUBLISHED } from '../support/evs-codes.ts'
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
    when: 'deletion, extension, retype, read-only flag or rollback of one disk of a replication pair; attachment of its DR disk',
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
    when: 'too much waits to be done, the database does not answer, or a site has not done in time what the answer waits for',
    send: queueFull,
  },
  {
    code: 'Common.0011',
    status: 404,
    when: 'an unknown job, or one of another project',
    send: () => send('GET', `/v1/{project}/jobs/${newHexId()}`),
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

test('the page lists the same codes for the same reasons', () => {
  const path = new URL('../../docs/compatibility/evs.md', import.meta.url)
  const lines = tableLines(PRODUCED, NEVER)
  assertOnPage(readFileSync(path, 'utf8'), lines, /^\| `(EVS|Common)\./)
})
