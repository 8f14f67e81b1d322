import Type from 'typebox'
import { assert, unreachable } from '#base/assert.ts'
import {
  type CreatePairRefusal,
  type PairRequestRefusal,
  renamePair,
  requestPair,
  requestPairDeletion,
  requestPairExpansion,
} from '#control/operations/definitions/protection/pair-requests.ts'
import { findPairOf, productionAz, volumeAt } from '#control/resources/groups.ts'
import { pageOfPairs, syncGistsOf, readGroups } from '#control/resources/protection-lists.ts'
import { readVolumes } from '#control/resources/volumes.ts'
import type { Queries } from '#control/store/store.ts'
import type { ReplicationPairRow } from '#control/store/tables/resources.ts'
import { isPairStatus, PAIR_STATUSES } from '#domain/replication-pair.ts'
import { isDescription, isName } from '#domain/text.ts'
import { SYSTEM_DISK_GB_MAX, VOLUME_GB_MAX } from '#domain/volume.ts'
import type { Api } from '../http/dialect.ts'
import type { Refusal } from '../http/refusal.ts'
import { auditTarget, principalOf, projectOf } from '../http/request.ts'
import { optional } from '../http/validation.ts'
import { isId, pairObject } from './codec.ts'
import { absentInBody } from './errors.ts'
import {
  isAbnormal,
  pageOf,
  type Query,
  queryType,
  statusesWanted,
  statusFilter,
  text,
  wantedIds,
} from './lists.ts'
import { type SdrsContext, viewsOf } from './services.ts'

/** Replication pairs: `/v1/{project}/replications`. */
const Path = Type.Object({ project_id: Type.String(), replication_id: Type.String() })
const CreateBody = Type.Object({
  replication: Type.Object({
    server_group_id: Type.String(),
    volume_id: Type.String(),
    name: Type.String(),
    description: optional(Type.String()),
  }),
})
const RenameBody = Type.Object({ replication: Type.Object({ name: Type.String() }) })
const DeleteBody = Type.Object({
  replication: optional(
    Type.Object({
      server_group_id: optional(Type.String()),
      delete_target_volume: optional(Type.Boolean()),
    }),
  ),
})

export function pairRoutes(app: Api, context: SdrsContext): void {
  const { services, refuse } = context
  const pairId = (id: string): string => {
    if (!isId(id)) throw refuse('SDRS.0213')
    return id.toLowerCase()
  }

  /** In their order. A group is judged by all of its pairs, also when only one is shown. */
  async function objects(db: Queries, pairs: readonly ReplicationPairRow[]) {
    const ids = [...new Set(pairs.map((pair) => pair.group_id))]
    const groups = await readGroups(db, ids)
    const viewOf = await viewsOf(db, services, [...groups.values()], await syncGistsOf(db, ids))
    const disks = pairs.map((pair) => {
      const group = groups.get(pair.group_id)
      assert(group !== undefined, 'a pair has a group')
      return { pair, group, production: volumeAt(group, pair, productionAz(group)) }
    })
    const volumes = await readVolumes(
      db,
      disks.map(({ production }) => production),
    )
    return disks.map(({ pair, group, production }) => {
      const volume = volumes.get(production)
      assert(volume !== undefined, 'a pair has a production disk')
      return pairObject(pair, group, viewOf(pair.group_id), volume)
    })
  }

  async function show(project: string, id: string) {
    return await services.store.read(async (db) => {
      const found = await findPairOf(db, project, id, ['sdrs'])
      if (found === undefined) throw refuse('SDRS.1608')
      const [replication] = await objects(db, [found.pair])
      return { replication }
    })
  }

  app.post(
    '/v1/:project_id/replications',
    { schema: { body: CreateBody }, config: { audit: 'replication-pair.create' } },
    async (request) => {
      const { replication: body } = request.body
      if (!isName(body.name)) throw refuse('SDRS.0202')
      const description = body.description ?? null
      if (description !== null && !isDescription(description)) throw refuse('SDRS.0212')
      if (!isId(body.server_group_id)) throw refuse('SDRS.0207')
      if (!isId(body.volume_id)) throw refuse('SDRS.0211')
      const outcome = await requestPair(services, {
        project: projectOf(request),
        user: principalOf(request).user.id,
        group: body.server_group_id.toLowerCase(),
        volume: body.volume_id.toLowerCase(),
        name: body.name,
        description,
      })
      if (!outcome.ok) throw absentInBody(CREATE_CODES[outcome.refusal])
      auditTarget(request, outcome.pair.id)
      return { job_id: outcome.operation }
    },
  )

  app.get('/v1/:project_id/replications', async (request) => {
    const query = request.query as Query
    const page = pageOf(query, refuse)
    const status = statusFilter(query, isPairStatus, refuse)
    const preset = queryType(query, ['status_abnormal'], refuse)
    const filter = {
      form: 'sdrs',
      statuses: statusesWanted(
        status,
        preset === undefined ? undefined : PAIR_STATUSES.filter(isAbnormal),
      ),
      name: text(query, 'name'),
      az: text(query, 'availability_zone'),
      groups: wantedIds(query, 'server_group_id', refuse),
      instances: wantedIds(query, 'protected_instance_id', refuse),
    } as const
    return await services.store.read(async (db) => {
      const { rows, count } = await pageOfPairs(db, projectOf(request), filter, page)
      return { replications: await objects(db, rows), count }
    })
  })

  app.get(
    '/v1/:project_id/replications/:replication_id',
    { schema: { params: Path } },
    async (request) => await show(projectOf(request), pairId(request.params.replication_id)),
  )

  app.put(
    '/v1/:project_id/replications/:replication_id',
    { schema: { params: Path, body: RenameBody }, config: { audit: 'replication-pair.update' } },
    async (request) => {
      const id = pairId(request.params.replication_id)
      auditTarget(request, id)
      const { name } = request.body.replication
      if (!isName(name)) throw refuse('SDRS.0202')
      const outcome = await renamePair(services, projectOf(request), id, name)
      if (!outcome.ok) throw refuse('SDRS.1608')
      return await show(projectOf(request), id)
    },
  )

  app.delete(
    '/v1/:project_id/replications/:replication_id',
    {
      schema: { params: Path, body: DeleteBody },
      config: { audit: 'replication-pair.delete', emptyBody: true },
    },
    async (request) => {
      const id = pairId(request.params.replication_id)
      auditTarget(request, id)
      const group = request.body.replication?.server_group_id ?? null
      if (group !== null && !isId(group)) throw refuse('SDRS.0207')
      const outcome = await requestPairDeletion(services, projectOf(request), id, {
        group: group?.toLowerCase() ?? null,
        deleteTargetVolume: request.body.replication?.delete_target_volume ?? false,
      })
      if (!outcome.ok) throw pairRefusal(outcome.refusal, context)
      return { job_id: outcome.operation }
    },
  )

  app.post(
    '/v1/:project_id/replications/:replication_id/action',
    { schema: { params: Path }, config: { audit: 'replication-pair.expand' } },
    async (request) => {
      const newSizeGb = newSizeOf(request.body, context)
      const id = pairId(request.params.replication_id)
      auditTarget(request, id, { new_size: newSizeGb })
      const outcome = await requestPairExpansion(services, projectOf(request), id, newSizeGb)
      if (!outcome.ok) throw pairRefusal(outcome.refusal, context)
      return { job_id: outcome.operation }
    },
  )
}

const CREATE_CODES = {
  GROUP_UNKNOWN: 'SDRS.1013',
  GROUP_STATE: 'SDRS.1024',
  VOLUME_UNKNOWN: 'SDRS.1803',
  VOLUME_PAIRED: 'SDRS.1811',
  VOLUME_OF_DRILL: 'SDRS.1825',
  VOLUME_NOT_AVAILABLE: 'SDRS.1801',
  VOLUME_NOT_IN_PRODUCTION_AZ: 'SDRS.1810',
  QUOTA_PAIRS: 'SDRS.0306',
  GROUP_FULL: 'SDRS.0306',
} as const satisfies Record<CreatePairRefusal, string>

/** `{"extend-replication":{"new_size":N}}`, N in GB; a fraction is cut off. */
function newSizeOf(body: unknown, { refuse }: SdrsContext): number {
  const isObject = (value: unknown): value is Record<string, unknown> =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
  if (!isObject(body)) throw refuse('SDRS.0206')
  const action = body['extend-replication']
  if (Object.keys(body).length !== 1 || !isObject(action)) throw refuse('SDRS.0206')
  const size = action['new_size']
  if (typeof size !== 'number' || !(size >= 1) || size >= VOLUME_GB_MAX + 1) {
    throw refuse(
      'SDRS.0201',
      `The new_size must be a number of gigabytes from 1 to ${VOLUME_GB_MAX}.`,
    )
  }
  return Math.trunc(size)
}

function pairRefusal(refusal: PairRequestRefusal, { refuse }: SdrsContext): Refusal {
  switch (refusal) {
    case 'PAIR_UNKNOWN':
      return refuse('SDRS.1608')
    case 'PAIR_STATE':
      return refuse('SDRS.1601')
    case 'PAIR_GROUP_STATE':
      return refuse('SDRS.1002')
    case 'PAIR_ATTACHED':
      return refuse('SDRS.1605')
    case 'PAIR_ROLES_REVERSED':
      return refuse('SDRS.1809')
    case 'PAIR_OTHER_GROUP':
      return refuse('SDRS.1611')
    case 'PAIR_SIZE':
      return refuse('SDRS.0201', 'The new_size must be larger than the present size.')
    case 'PAIR_DISK_STATE':
      return refuse('SDRS.1817')
    case 'PAIR_SIZE_MAX':
      return refuse(
        'SDRS.0201',
        `The new_size may be ${VOLUME_GB_MAX} GB, of a bootable disk ${SYSTEM_DISK_GB_MAX} GB.`,
      )
    default:
      return unreachable(refusal)
  }
}
