import { requestGroupCommand } from '#control/operations/definitions/protection/group-requests.ts'
import {
  requestConsistencyGroup,
  requestConsistencyGroupChange,
} from '#control/operations/definitions/protection/replication-requests.ts'
import {
  findGroup,
  groupStatus,
  listGroups,
  listPairs,
  pairsOfGroup,
} from '#control/resources/groups.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { isVolumeId } from './codec.ts'
import { consistencyActionRoute } from './consistency-actions.ts'
import { refuse } from './errors.ts'
import { envelope, type Members } from './input.ts'
import type { Query } from './lists.ts'
import {
  arbitrationMember,
  demandModel,
  GroupPath,
  GROUPS_BASE,
  stationMember,
  textsOf,
} from './replication-input.ts'
import { idsMember, selectReplications } from './replication-lists.ts'
import { groupAccepted, replicationObjects } from './replication-objects.ts'
import {
  conflict,
  groupActionRefusal,
  groupChangeRefusal,
  groupCreationRefusal,
  groupUnknown,
} from './replication-refusals.ts'
import { unlessHidden, untilShown } from './replication-waits.ts'
import { GROUP_WORDS } from './replication-words.ts'
import type { EvsServices } from './services.ts'

/** Consistency groups: `/v2/{project}/os-vendor-replication-consistency-groups`. */
const ENVELOPE = 'replication_consistency_group'

const SORT_KEYS = [
  'id',
  'name',
  'description',
  'status',
  'priority_station',
  'created_at',
  'updated_at',
  'replication_model',
  'replication_status',
  'failure_detail',
  'fault_level',
]

/** `error_deleting` as well: to repeat what failed is an extension of ours. */
const DELETABLE: ReadonlySet<string> = new Set(['available', 'error', 'error_deleting'])

export function consistencyGroupRoutes(app: Api, services: EvsServices): void {
  const { store } = services
  const one = `${GROUPS_BASE}/:replication_consistency_group_id`
  const groupId = (params: { replication_consistency_group_id: string }): string => {
    const id = params.replication_consistency_group_id
    if (!isVolumeId(id)) throw groupUnknown()
    return id
  }

  app.post(
    GROUPS_BASE,
    { config: { audit: 'consistency-group.create' } },
    async (request, reply) => {
      const members = envelope(request.body, ENVELOPE, 'EVS.5400', 'EVS.5400')
      demandModel(members)
      const pairs = idsMember(members['replication_ids'], 'replication_ids')
      if (pairs.length === 0) throw refuse('EVS.5400', 'replication_ids: at least one pair.')
      const production = stationMember(members)
      const arbitration = arbitrationMember(members, production)
      const shown = await untilPairsShown(projectOf(request), pairs)
      const outcome = await requestConsistencyGroup(services, {
        project: projectOf(request),
        ...textsOf(members),
        pairs,
        production,
        ...(arbitration === undefined ? {} : { arbitration }),
      })
      if (!outcome.ok) {
        throw unlessHidden(shown, outcome.refusal, groupCreationRefusal(outcome.refusal))
      }
      auditTarget(request, outcome.group.id)
      void reply.code(202)
      return { [ENVELOPE]: groupAccepted(outcome.group) }
    },
  )

  app.get(GROUPS_BASE, async (request) => {
    const project = projectOf(request)
    const { groups, pairs } = await replicationObjects(services, async (db) => {
      const rows = await listGroups(db, project, 'evs')
      const ids = new Set(rows.map((group) => group.id))
      const own = (await listPairs(db, project)).filter((pair) => ids.has(pair.group_id))
      return { groups: rows, pairs: own }
    })
    const disks = new Map(pairs.map((pair) => [pair.id, pair.volume_ids.split(',')]))
    const query = request.query as Query
    const page = selectReplications(groups, query, SORT_KEYS, (group) =>
      group.replication_ids.flatMap((id) => disks.get(id) ?? []),
    )
    return { replication_consistency_groups: page }
  })

  app.get(one, { schema: { params: GroupPath } }, async (request) => {
    const id = groupId(request.params)
    const { groups } = await replicationObjects(services, async (db) => {
      const group = await findGroup(db, projectOf(request), id, 'evs')
      if (group === undefined) throw groupUnknown()
      return { groups: [group], pairs: await pairsOfGroup(db, id) }
    })
    return { [ENVELOPE]: groups[0] }
  })

  app.put(
    one,
    { schema: { params: GroupPath }, config: { audit: 'consistency-group.update' } },
    async (request, reply) => {
      const members = envelope(request.body, ENVELOPE, 'EVS.5400', 'EVS.5400')
      const id = groupId(request.params)
      auditTarget(request, id)
      const change = changeOf(members)
      const project = projectOf(request)
      await theGroup(project, id)
      const shown = await untilPairsShown(project, change.add, id)
      const outcome = await requestConsistencyGroupChange(services, project, id, change)
      if (!outcome.ok) {
        throw unlessHidden(shown, outcome.refusal, groupChangeRefusal(outcome.refusal))
      }
      void reply.code(202)
      return { [ENVELOPE]: groupAccepted(outcome.group) }
    },
  )

  app.delete(
    one,
    { schema: { params: GroupPath }, config: { audit: 'consistency-group.delete' } },
    async (request, reply) => {
      const id = groupId(request.params)
      auditTarget(request, id)
      const project = projectOf(request)
      await theGroup(project, id)
      const shown = await untilShown(services, project, [id])
      const group = await theGroup(project, id)
      if (!DELETABLE.has(GROUP_WORDS[groupStatus(group)])) {
        throw conflict('A group is deleted while its status is available or error.')
      }
      const outcome = await requestGroupCommand(services, project, id, { kind: 'delete' }, 'evs')
      if (!outcome.ok) {
        throw unlessHidden(
          shown,
          outcome.refusal,
          groupActionRefusal(outcome.refusal, 'the deletion'),
        )
      }
      return await reply.code(202).send()
    },
  )

  consistencyActionRoute(app, services, groupId)

  async function theGroup(project: string, id: string) {
    const group = await findGroup(store.db, project, id, 'evs')
    if (group === undefined) throw groupUnknown()
    return group
  }

  /** A pair shows itself as available while its own session is being started. One wait for all, and for the group that they come into. */
  async function untilPairsShown(
    project: string,
    pairs: readonly string[],
    group?: string,
  ): Promise<boolean> {
    const wanted = new Set(pairs)
    const rows = wanted.size === 0 ? [] : await listPairs(store.db, project)
    const groups = rows.filter(({ id }) => wanted.has(id)).map((pair) => pair.group_id)
    return await untilShown(services, project, group === undefined ? groups : [...groups, group])
  }
}

/** At least one member that means something. Pairs that come and leave in one request are two different ones. */
function changeOf(members: Members) {
  const add = idsMember(members['add_replication_ids'] ?? [], 'add_replication_ids')
  const remove = idsMember(members['remove_replication_ids'] ?? [], 'remove_replication_ids')
  if (add.some((id) => remove.includes(id))) {
    throw refuse('EVS.5400', 'A pair is either added or removed.')
  }
  if ((members['replication_model'] ?? null) !== null) demandModel(members)
  const texts = textsOf(members)
  const named = (name: 'name' | 'description') =>
    (members[name] ?? null) === null ? {} : { [name]: texts[name] }
  const change = { ...named('name'), ...named('description'), add, remove }
  if (Object.keys(change).length === 2 && add.length === 0 && remove.length === 0) {
    throw refuse('EVS.5400', 'The update names nothing to change.')
  }
  return change
}
