import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { unreachable } from '#base/assert.ts'
import {
  type NewSnapshotRefusal,
  requestSnapshot,
  requestSnapshotChange,
  type SnapshotChangeRefusal,
} from '#control/operations/definitions/volumes/snapshot-requests.ts'
import {
  changeSnapshotTexts,
  findSnapshot,
  listSnapshots,
  snapshotMetadata,
  snapshotVolumes,
} from '#control/resources/snapshots.ts'
import { toJson } from '#control/store/json.ts'
import type { SnapshotRow } from '#control/store/tables/snapshots.ts'
import type { SnapshotStatus } from '#domain/snapshot.ts'
import type { Api } from '../http/dialect.ts'
import type { Refusal } from '../http/refusal.ts'
import { auditTarget, originOf, projectOf } from '../http/request.ts'
import { evsTime, isVolumeId } from './codec.ts'
import { refuse } from './errors.ts'
import {
  booleanMember,
  envelope,
  isMembers,
  type Members,
  metadataMember,
  textMember,
} from './input.ts'
import { nextLink, one, pageOf, type Query } from './lists.ts'
import type { EvsServices } from './services.ts'

/* Snapshots of one disk, in the form of Cinder (v2 and v3) and in the service's own (`cloudsnapshots`).
 *
 * A snapshot of several disks, or of a whole group, has no form here: the own API shows it, these lists leave it out. */

const SnapshotPath = Type.Object({ project_id: Type.String(), snapshot_id: Type.String() })

const STATUSES: Record<SnapshotStatus, string> = {
  creating: 'creating',
  available: 'available',
  'rolling-back': 'rollbacking',
  deleting: 'deleting',
  error: 'error',
  'error-deleting': 'error_deleting',
}

const isOfOneDisk = (row: SnapshotRow): boolean =>
  row.group_id === null && snapshotVolumes(row).length === 1

const statusOf = (row: SnapshotRow): string => STATUSES[row.status as SnapshotStatus]

const summaryOf = (row: SnapshotRow) => ({
  id: row.id,
  name: row.name === '' ? null : row.name,
  description: row.description,
  status: statusOf(row),
  volume_id: snapshotVolumes(row)[0] ?? '',
  size: row.size_gb,
  metadata: snapshotMetadata(row),
  created_at: evsTime(row.created_at),
  updated_at: evsTime(row.updated_at),
})

const detailOf = (row: SnapshotRow) => ({
  ...summaryOf(row),
  'os-extended-snapshot-attributes:progress': row.status === 'creating' ? '0%' : '100%',
  'os-extended-snapshot-attributes:project_id': row.project,
})

export function snapshotRoutes(app: Api, services: EvsServices, version: 'v2' | 'v3'): void {
  const base = `/${version}/:project_id/snapshots`
  oneSnapshot(app, services, base)
  metadataRoutes(app, services, base)
  app.get(base, async (request) => await listed(request, services, summaryOf))
  app.get(`${base}/detail`, async (request) => await listed(request, services, detailOf))
}

export function cloudSnapshotRoutes(app: Api, services: EvsServices): void {
  const base = '/v2/:project_id/cloudsnapshots'
  oneSnapshot(app, services, base)
  app.get(`${base}/detail`, async (request) => {
    const { count, ...page } = await found(request, services, (row) => ({
      ...detailOf(row),
      service_type: 'EVS',
    }))
    return { count, ...page }
  })
  app.post(
    `${base}/:snapshot_id/rollback`,
    { schema: { params: SnapshotPath }, config: { audit: 'snapshot.rollback' } },
    async (request, reply) => {
      const members = envelope(request.body, 'rollback', 'EVS.5400', 'EVS.5400')
      const row = await known(request, services, request.params.snapshot_id)
      const [volume] = snapshotVolumes(row)
      if (members['volume_id'] !== volume) {
        throw refuse('EVS.5400', 'volume_id: a snapshot is rolled back to its own disk only.')
      }
      const outcome = await requestSnapshotChange(services, row.project, row.id, 'rollback')
      if (!outcome.ok) throw changeRefusal(outcome.refusal)
      void reply.code(202)
      return { rollback: { volume_id: volume } }
    },
  )
}

/** Create, show, rename, delete: the same in both forms. */
function oneSnapshot(app: Api, services: EvsServices, base: string): void {
  app.post(base, { config: { audit: 'snapshot.create' } }, async (request, reply) => {
    const members = envelope(request.body, 'snapshot', 'EVS.5400', 'EVS.5400')
    const volume = members['volume_id']
    if (!isVolumeId(volume)) throw refuse('EVS.1002')
    booleanMember(members, 'force', 'EVS.5400')
    const outcome = await requestSnapshot(services, {
      project: projectOf(request),
      name: textMember(members, 'name', 'EVS.1003') ?? '',
      of: { volumes: [volume] },
      site: null,
      description: textMember(members, 'description', 'EVS.1004'),
      metadata: metadataMember(members) ?? {},
    })
    if (!outcome.ok) throw createRefusal(outcome.refusal)
    auditTarget(request, outcome.snapshot.id)
    void reply.code(202)
    return { snapshot: detailOf(outcome.snapshot) }
  })

  const path = `${base}/:snapshot_id`
  app.get(path, { schema: { params: SnapshotPath } }, async (request) => ({
    snapshot: detailOf(await known(request, services, request.params.snapshot_id)),
  }))

  app.put(
    path,
    { schema: { params: SnapshotPath }, config: { audit: 'snapshot.update' } },
    async (request) => {
      const members = envelope(request.body, 'snapshot', 'EVS.1001', 'EVS.5400')
      const texts = textsOf(members)
      if (Object.keys(texts).length === 0) throw refuse('EVS.1001')
      const row = await known(request, services, request.params.snapshot_id)
      await services.store.write(async (tx) => {
        await changeSnapshotTexts(tx, row.id, texts, services.clock.wallMs())
      })
      return { snapshot: detailOf(await known(request, services, row.id)) }
    },
  )

  app.delete(
    path,
    { schema: { params: SnapshotPath }, config: { audit: 'snapshot.delete' } },
    async (request, reply) => {
      const row = await known(request, services, request.params.snapshot_id)
      const outcome = await requestSnapshotChange(services, row.project, row.id, 'delete')
      if (!outcome.ok) throw changeRefusal(outcome.refusal)
      return await reply.code(202).send()
    },
  )
}

/** Properties as a resource of their own, which the OpenStack command uses to set and unset them. */
function metadataRoutes(app: Api, services: EvsServices, base: string): void {
  const path = `${base}/:snapshot_id/metadata`
  const KeyPath = Type.Object({ snapshot_id: Type.String(), key: Type.String() })
  const store = async (row: SnapshotRow, metadata: Readonly<Record<string, string>>) =>
    await services.store.write(async (tx) => {
      const change = { metadata: toJson(metadata) }
      await changeSnapshotTexts(tx, row.id, change, services.clock.wallMs())
    })

  app.get(path, { schema: { params: SnapshotPath } }, async (request) => ({
    metadata: snapshotMetadata(await known(request, services, request.params.snapshot_id)),
  }))
  app.post(
    path,
    { schema: { params: SnapshotPath }, config: { audit: 'snapshot.metadata' } },
    async (request) => {
      const added = metadataMember(isMembers(request.body) ? request.body : {})
      if (added === null) throw refuse('EVS.5400', 'metadata: missing.')
      const row = await known(request, services, request.params.snapshot_id)
      const metadata = { ...snapshotMetadata(row), ...added }
      await store(row, metadata)
      return { metadata }
    },
  )
  app.delete(
    `${path}/:key`,
    { schema: { params: KeyPath }, config: { audit: 'snapshot.metadata' } },
    async (request, reply) => {
      const { snapshot_id: id, key } = request.params
      const row = await known(request, services, id)
      const { [key]: gone, ...rest } = snapshotMetadata(row)
      if (gone === undefined) throw refuse('EVS.5404')
      await store(row, rest)
      return await reply.code(200).send()
    },
  )
}

async function known(
  request: FastifyRequest,
  { store }: EvsServices,
  id: string,
): Promise<SnapshotRow> {
  if (!isVolumeId(id)) throw refuse('EVS.5404')
  auditTarget(request, id)
  const row = await findSnapshot(store.db, projectOf(request), id)
  if (row === undefined || !isOfOneDisk(row)) throw refuse('EVS.5404')
  return row
}

function textsOf(members: Members): { name?: string; description?: string | null } {
  return {
    ...(Object.hasOwn(members, 'name')
      ? { name: textMember(members, 'name', 'EVS.1003') ?? '' }
      : {}),
    ...(Object.hasOwn(members, 'description')
      ? { description: textMember(members, 'description', 'EVS.1004') }
      : {}),
  }
}

async function listed(
  request: FastifyRequest,
  services: EvsServices,
  show: (row: SnapshotRow) => object,
) {
  const { snapshots, snapshots_links } = await found(request, services, show)
  return { snapshots, ...(snapshots_links === undefined ? {} : { snapshots_links }) }
}

async function found(
  request: FastifyRequest,
  services: EvsServices,
  show: (row: SnapshotRow) => object,
) {
  const query = request.query as Query
  const [name, status, volume] = ['name', 'status', 'volume_id'].map((key) => one(query, key))
  const az = one(query, 'availability_zone')
  const rows = (await listSnapshots(services.store.db, projectOf(request))).filter(
    (row) =>
      isOfOneDisk(row) &&
      (name === undefined || row.name === name) &&
      (status === undefined || statusOf(row) === status) &&
      (volume === undefined || snapshotVolumes(row).includes(volume)) &&
      (az === undefined || row.site === az),
  )
  const { page, more } = pageOf(rows, query)
  const last = page.at(-1)
  return {
    count: rows.length,
    snapshots: page.map(show),
    ...(more && last !== undefined
      ? { snapshots_links: nextLink(request.url, originOf(request, services), last) }
      : {}),
  }
}

function createRefusal(refusal: NewSnapshotRefusal): Refusal {
  switch (refusal) {
    case 'VOLUME_UNKNOWN':
      return refuse('EVS.5404', 'There is no such disk.')
    case 'SNAPSHOTS_FULL':
      return refuse('EVS.5413')
    case 'VOLUME_NOT_READY':
    case 'VOLUMES_OF_TWO_SITES':
    case 'GROUP_UNKNOWN':
    case 'GROUP_EMPTY':
    case 'SITE_NOT_OF_GROUP':
      return refuse('EVS.5400', 'The state of the disk does not allow a snapshot.')
    default:
      return unreachable(refusal)
  }
}

function changeRefusal(refusal: SnapshotChangeRefusal): Refusal {
  switch (refusal) {
    case 'SNAPSHOT_UNKNOWN':
      return refuse('EVS.5404')
    case 'SNAPSHOT_STATE':
      return refuse('EVS.1047')
    case 'VOLUME_PAIRED':
      return refuse('EVS.2089')
    case 'VOLUME_GONE':
      return refuse('EVS.5404', 'The disk of this snapshot has been deleted.')
    case 'VOLUME_ATTACHED':
      return refuse('EVS.5400', 'Detach the disk first: a running server does not survive this.')
    default:
      return unreachable(refusal)
  }
}
