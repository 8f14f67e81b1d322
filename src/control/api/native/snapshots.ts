import Type, { type Static } from 'typebox'
import {
  type NewSnapshotRefusal,
  requestSnapshot,
  requestSnapshotChange,
  type SnapshotChangeRefusal,
} from '#control/operations/definitions/volumes/snapshot-requests.ts'
import {
  findSnapshot,
  listSnapshots,
  snapshotFacts,
  snapshotVolumes,
} from '#control/resources/snapshots.ts'
import type { SnapshotRow } from '#control/store/tables/snapshots.ts'
import { SNAPSHOTS_PER_PROJECT_MAX } from '#domain/snapshot.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { refuse } from './errors.ts'
import { ById, describe, nullable, Time, timeOf } from './route.ts'
import type { NativeServices } from './services.ts'

/* Snapshots of a group's disks, or of volumes of one site, all at one moment. */

const View = Type.Object({
  id: Type.String(),
  name: Type.String(),
  group: nullable(Type.String()),
  site: Type.String(),
  status: Type.String({
    description: 'creating, available, rolling-back, deleting, error, error-deleting',
  }),
  reason: nullable(Type.String({ description: 'Why the last request for it failed.' })),
  created_at: Time,
  taken_at: nullable(Time),
  stall_ms: nullable(Type.Number({ description: 'Longest wait of a write because it was taken.' })),
  epoch: nullable(Type.Integer({ description: "Of the group's ownership, at that moment." })),
  sequence: nullable(Type.Number({ description: "Number of the group's last write in it." })),
  volumes: Type.Array(
    Type.Object({
      id: Type.String(),
      kind: nullable(Type.String({ description: 'reflink or before_image' })),
      size_bytes: nullable(Type.Number()),
    }),
  ),
})
type View = Static<typeof View>

function viewOf(row: SnapshotRow): View {
  const facts = snapshotFacts(row)
  const moment = facts?.moments[0]
  return {
    id: row.id,
    name: row.name,
    group: row.group_id,
    site: row.site,
    status: row.status,
    reason: row.failure_detail,
    created_at: timeOf(row.created_at),
    taken_at: facts === null ? null : timeOf(facts.info.taken_at),
    stall_ms: facts?.info.stall_ms ?? null,
    epoch: moment?.epoch ?? null,
    sequence: moment?.sequence ?? null,
    volumes: snapshotVolumes(row).map((id) => {
      const known = facts?.info.volumes.find(({ volume }) => volume === id)
      return { id, kind: known?.kind ?? null, size_bytes: known?.size_bytes ?? null }
    }),
  }
}

const REFUSALS: Record<
  NewSnapshotRefusal | SnapshotChangeRefusal,
  readonly [404 | 409, string, string]
> = {
  GROUP_UNKNOWN: [404, 'There is no such group.', 'List the groups.'],
  GROUP_EMPTY: [409, 'The group has no pairs.', 'Add one, or name volumes.'],
  SITE_NOT_OF_GROUP: [409, 'The group has no such site.', 'Show the group.'],
  VOLUME_UNKNOWN: [404, 'One of the volumes does not exist.', 'List the volumes.'],
  VOLUME_NOT_READY: [409, 'One of the volumes cannot be used.', 'Look at its status.'],
  VOLUMES_OF_TWO_SITES: [
    409,
    'The volumes are of different sites, so that there is no one moment for all of them.',
    'Take a snapshot at each site.',
  ],
  SNAPSHOTS_FULL: [
    409,
    `The project has ${SNAPSHOTS_PER_PROJECT_MAX} snapshots already.`,
    'Delete one first.',
  ],
  SNAPSHOT_UNKNOWN: [404, 'There is no such snapshot in the project.', 'List the snapshots.'],
  SNAPSHOT_STATE: [
    409,
    'The snapshot is not in a state in which this can be done.',
    'Look at its status.',
  ],
  VOLUME_PAIRED: [
    409,
    'A volume of the snapshot replicates: set back behind the back of the stream, its two sides would differ.',
    'Stop the protection of its group, roll back, and start it again: then what differs is copied.',
  ],
  VOLUME_GONE: [409, 'A volume of the snapshot has been deleted.', 'Delete the snapshot.'],
  VOLUME_ATTACHED: [
    409,
    'A volume of the snapshot is attached to a server.',
    'Detach it first: a running server does not survive that its disk is set back.',
  ],
}

const refusalOf = (code: NewSnapshotRefusal | SnapshotChangeRefusal) => {
  const [status, message, hint] = REFUSALS[code]
  return refuse(status, code, message, hint)
}

const Id = Type.String({ minLength: 1, maxLength: 64 })

export function snapshotRoutes(app: Api, services: NativeServices): void {
  const { db } = services.store
  const Accepted = Type.Object({ snapshot: View, operation_id: Type.String() })

  app.post(
    '/api/v1/snapshots',
    {
      config: { audit: 'snapshot.create' },
      schema: describe(
        'Take a snapshot of the disks of a group, or of volumes of one site, at one moment',
        'snapshots',
        Accepted,
        {
          body: Type.Object({
            name: Type.String({ minLength: 1, maxLength: 255 }),
            group: Type.Optional(Id),
            volumes: Type.Optional(Type.Array(Id, { minItems: 1, maxItems: 1024 })),
            site: Type.Optional(
              Type.String({
                maxLength: 64,
                description: 'Site of the group; by default the one that writes.',
              }),
            ),
          }),
        },
        202,
      ),
    },
    async (request, reply) => {
      const { name, group, volumes, site = null } = request.body
      if ((group === undefined) === (volumes === undefined)) {
        throw refuse(
          409,
          'SNAPSHOT_OF_WHAT',
          'A snapshot is of a group or of volumes.',
          'Give either `group` or `volumes`.',
        )
      }
      const of = group === undefined ? { volumes: volumes ?? [] } : { group }
      const project = projectOf(request)
      const outcome = await requestSnapshot(services, { project, name, of, site })
      if (!outcome.ok) throw refusalOf(outcome.refusal)
      const { snapshot, operation } = outcome
      auditTarget(request, snapshot.id, { group: snapshot.group_id })
      return await reply.code(202).send({ snapshot: viewOf(snapshot), operation_id: operation })
    },
  )

  app.get(
    '/api/v1/snapshots',
    {
      schema: describe(
        'List the snapshots of the project, newest first',
        'snapshots',
        Type.Object({ snapshots: Type.Array(View) }),
        { querystring: Type.Object({ group: Type.Optional(Id) }) },
      ),
    },
    async (request) => {
      const { group } = request.query
      const rows = await listSnapshots(db, projectOf(request))
      const wanted = group === undefined ? rows : rows.filter((row) => row.group_id === group)
      return { snapshots: wanted.map(viewOf) }
    },
  )

  app.get(
    '/api/v1/snapshots/:id',
    {
      schema: describe('Show a snapshot', 'snapshots', Type.Object({ snapshot: View }), {
        params: ById,
      }),
    },
    async (request) => {
      const row = await findSnapshot(db, projectOf(request), request.params.id)
      if (row === undefined) throw refusalOf('SNAPSHOT_UNKNOWN')
      return { snapshot: viewOf(row) }
    },
  )

  app.delete(
    '/api/v1/snapshots/:id',
    {
      config: { audit: 'snapshot.delete' },
      schema: describe('Delete a snapshot', 'snapshots', Accepted, { params: ById }, 202),
    },
    async (request, reply) => {
      const { id } = request.params
      const outcome = await requestSnapshotChange(services, projectOf(request), id, 'delete')
      if (!outcome.ok) throw refusalOf(outcome.refusal)
      auditTarget(request, id)
      const { snapshot, operation } = outcome
      return await reply.code(202).send({ snapshot: viewOf(snapshot), operation_id: operation })
    },
  )

  app.post(
    '/api/v1/snapshots/:id/rollback',
    {
      config: { audit: 'snapshot.rollback', emptyBody: true },
      schema: describe(
        'Set the volumes of a snapshot back to it; what was written since is gone, the snapshot stays',
        'snapshots',
        Accepted,
        { params: ById, body: Type.Object({}) },
        202,
      ),
    },
    async (request, reply) => {
      const { id } = request.params
      const outcome = await requestSnapshotChange(services, projectOf(request), id, 'rollback')
      if (!outcome.ok) throw refusalOf(outcome.refusal)
      auditTarget(request, id)
      const { snapshot, operation } = outcome
      return await reply.code(202).send({ snapshot: viewOf(snapshot), operation_id: operation })
    },
  )
}
