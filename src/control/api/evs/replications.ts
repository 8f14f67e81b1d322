import Type from 'typebox'
import {
  requestLonePair,
  requestLonePairDeletion,
} from '#control/operations/definitions/protection/replication-requests.ts'
import {
  findPair,
  listGroups,
  listPairs,
  pairsOfGroup,
  readGroup,
} from '#control/resources/groups.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { isVolumeId } from './codec.ts'
import { refuse } from './errors.ts'
import { envelope } from './input.ts'
import type { Query } from './lists.ts'
import { arbitrationMember, demandModel, stationMember, textsOf } from './replication-input.ts'
import { idsMember, selectReplications } from './replication-lists.ts'
import { pairAccepted, replicationObjects } from './replication-objects.ts'
import { pairCreationRefusal, pairRefusal } from './replication-refusals.ts'
import { unlessHidden, untilShown } from './replication-waits.ts'
import type { EvsServices } from './services.ts'

/** Replication pairs: `/v2/{project}/os-vendor-replications`. Those of SDRS are shown, and not managed. */
const Path = Type.Object({ project_id: Type.String(), replication_id: Type.String() })
const BASE = '/v2/:project_id/os-vendor-replications'

const SORT_KEYS = [
  'id',
  'name',
  'description',
  'status',
  'replication_consistency_group_id',
  'volume_ids',
  'priority_station',
  'created_at',
  'updated_at',
  'replication_model',
  'replication_status',
  'progress',
  'failure_detail',
  'record_metadata',
  'fault_level',
]

export function replicationRoutes(app: Api, services: EvsServices): void {
  const { store } = services
  /** Also of words that are no id: there is no such pair. */
  const pairId = (id: string): string => {
    if (!isVolumeId(id)) throw refuse('EVS.5404')
    return id
  }

  app.post(BASE, { config: { audit: 'replication-pair.create' } }, async (request, reply) => {
    const members = envelope(request.body, 'replication', 'EVS.5400', 'EVS.5400')
    demandModel(members)
    const [first, second, ...rest] = idsMember(members['volume_ids'], 'volume_ids')
    if (first === undefined || second === undefined || rest.length > 0) {
      throw refuse('EVS.5400', 'volume_ids: the production disk and the DR disk.')
    }
    const production = stationMember(members)
    const arbitration = arbitrationMember(members, production)
    const outcome = await requestLonePair(services, {
      project: projectOf(request),
      ...textsOf(members),
      volumes: [first, second],
      production,
      ...(arbitration === undefined ? {} : { arbitration }),
    })
    if (!outcome.ok) throw pairCreationRefusal(outcome.refusal)
    auditTarget(request, outcome.pair.id)
    void reply.code(202)
    return { replication: pairAccepted(outcome.pair, outcome.group) }
  })

  app.get(BASE, async (request) => {
    const project = projectOf(request)
    const { pairs } = await replicationObjects(services, async (db) => ({
      groups: await listGroups(db, project),
      pairs: await listPairs(db, project),
    }))
    const query = request.query as Query
    const page = selectReplications(pairs, query, SORT_KEYS, (pair) => pair.volume_ids.split(','))
    return { replications: page }
  })

  app.get(`${BASE}/:replication_id`, { schema: { params: Path } }, async (request) => {
    const id = pairId(request.params.replication_id)
    const { pairs } = await replicationObjects(services, async (db) => {
      const pair = await findPair(db, projectOf(request), id)
      const group = pair === undefined ? undefined : await readGroup(db, pair.group_id)
      if (pair === undefined || group === undefined) throw refuse('EVS.5404')
      return { groups: [group], pairs: await pairsOfGroup(db, group.id) }
    })
    return { replication: pairs.find((one) => one.id === id) }
  })

  app.delete(
    `${BASE}/:replication_id`,
    { schema: { params: Path }, config: { audit: 'replication-pair.delete' } },
    async (request, reply) => {
      const id = pairId(request.params.replication_id)
      auditTarget(request, id)
      const project = projectOf(request)
      const pair = await findPair(store.db, project, id)
      const shown = await untilShown(services, project, pair === undefined ? [] : [pair.group_id])
      const outcome = await requestLonePairDeletion(services, project, id)
      if (!outcome.ok) throw unlessHidden(shown, outcome.refusal, pairRefusal(outcome.refusal))
      return await reply.code(202).send()
    },
  )
}
