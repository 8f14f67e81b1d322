import Type, { type Static } from 'typebox'
import { unreachable } from '#base/assert.ts'
import { renameInstance } from '#control/operations/definitions/instances/instance-changes.ts'
import {
  type DeleteInstanceRefusal,
  requestInstanceDeletion,
  requestInstancesDeletion,
} from '#control/operations/definitions/instances/instance-deletion-requests.ts'
import {
  type CreateInstanceRefusal,
  requestInstance,
  requestInstances,
} from '#control/operations/definitions/instances/instance-requests.ts'
import { pageOfInstances } from '#control/resources/protection-lists.ts'
import { BATCH_MAX, isInstanceStatus, TAGS_AT_CREATION } from '#domain/protected-instance.ts'
import { isDescription, isName } from '#domain/text.ts'
import type { Api } from '../http/dialect.ts'
import type { Refusal } from '../http/refusal.ts'
import { auditTarget, principalOf, projectOf } from '../http/request.ts'
import { optional } from '../http/validation.ts'
import { isId } from './codec.ts'
import { absentInBody, type RefuseWith, type SdrsCode } from './errors.ts'
import { instanceObjects, showInstance, shownStatusOf } from './instance-views.ts'
import {
  isAbnormal,
  pageOf,
  pageRows,
  type Query,
  queryType,
  statusFilter,
  text,
  wantedIds,
} from './lists.ts'
import type { SdrsContext } from './services.ts'
import { TagInput, tagsFrom } from './tag-input.ts'

/** Protected instances: `/v1/{project}/protected-instances`. What happens to one of them is in instance-parts.ts and instance-tags.ts. */
const Path = Type.Object({ project_id: Type.String(), protected_instance_id: Type.String() })
const CreateBody = Type.Object({
  protected_instance: Type.Object({
    server_group_id: Type.String(),
    server_id: Type.String(),
    name: Type.String(),
    description: optional(Type.String()),
    primary_subnet_id: optional(Type.String()),
    primary_ip_address: optional(Type.String()),
    flavorRef: optional(Type.String()),
    tags: optional(Type.Array(TagInput)),
  }),
})
const BatchCreateBody = Type.Object({
  protected_instances: Type.Object({
    name_prefix: Type.String(),
    description: optional(Type.String()),
    server_group_id: Type.String(),
    primary_subnet_id: optional(Type.String()),
    servers: Type.Array(
      Type.Object({
        server_id: Type.String(),
        primary_ip_address: optional(Type.String()),
        flavorRef: optional(Type.String()),
      }),
    ),
    tags: optional(Type.Array(TagInput)),
  }),
})
const RenameBody = Type.Object({ protected_instance: Type.Object({ name: Type.String() }) })
const DeleteBody = Type.Object({
  delete_target_server: optional(Type.Boolean()),
  // There are no public addresses that could be released.
  delete_target_eip: optional(Type.Boolean()),
})
const BatchDeleteBody = Type.Object({
  protected_instances: Type.Array(Type.Object({ id: Type.String() })),
  delete_target_server: optional(Type.Boolean()),
  delete_target_eip: optional(Type.Boolean()),
})

/** States are no columns, so the database cannot cut a list of them. */
const EVERYTHING = { limit: Number.MAX_SAFE_INTEGER, offset: 0 }

/** `-0001` and so on. */
const SUFFIX_BYTES = 5
const NAME_BYTES = 64

export const instanceIdOf =
  (refuse: RefuseWith) =>
  (id: string): string => {
    if (!isId(id)) throw refuse('SDRS.0208')
    return id.toLowerCase()
  }

export function instanceRoutes(app: Api, context: SdrsContext): void {
  const { services, refuse } = context
  const instanceId = instanceIdOf(refuse)

  async function show(project: string, id: string) {
    const shown = await services.store.read((db) => showInstance(db, services, project, id))
    if (shown === null) throw refuse('SDRS.1320')
    return { protected_instance: shown }
  }

  app.post(
    '/v1/:project_id/protected-instances',
    { schema: { body: CreateBody }, config: { audit: 'protected-instance.create' } },
    async (request) => {
      const { protected_instance: body } = request.body
      if (!isName(body.name)) throw refuse('SDRS.0202')
      const outcome = await requestInstance(services, {
        project: projectOf(request),
        user: principalOf(request).user.id,
        name: body.name,
        ...common(body),
        ...serverOf(body),
      })
      if (!outcome.ok) throw creationRefusal(outcome.refusal, refuse)
      auditTarget(request, outcome.instance.id, { server: body.server_id })
      return { job_id: outcome.operation }
    },
  )

  app.post(
    '/v1/:project_id/protected-instances/batch',
    { schema: { body: BatchCreateBody }, config: { audit: 'protected-instance.create-many' } },
    async (request) => {
      const { protected_instances: body } = request.body
      const { name_prefix: prefix, servers } = body
      if (!isName(prefix) || prefix.length > NAME_BYTES - SUFFIX_BYTES) throw refuse('SDRS.0202')
      if (servers.length === 0 || servers.length > BATCH_MAX) {
        throw refuse('SDRS.0201', `There must be 1 to ${BATCH_MAX} servers.`)
      }
      const outcome = await requestInstances(
        services,
        {
          project: projectOf(request),
          user: principalOf(request).user.id,
          ...common(body),
        },
        prefix,
        servers.map(serverOf),
      )
      if (!outcome.ok) throw creationRefusal(outcome.refusal, refuse)
      auditTarget(request, body.server_group_id, { count: servers.length })
      return { job_id: outcome.operation }
    },
  )

  function common(
    body: Pick<
      Static<typeof CreateBody>['protected_instance'],
      'description' | 'server_group_id' | 'primary_subnet_id' | 'tags'
    >,
  ) {
    const description = body.description ?? null
    if (description !== null && !isDescription(description)) throw refuse('SDRS.0212')
    if (!isId(body.server_group_id)) throw refuse('SDRS.0207')
    const tags = tagsFrom(body.tags ?? [], refuse)
    if (tags.length > TAGS_AT_CREATION) throw refuse('SDRS.2203')
    const subnet = body.primary_subnet_id || null
    if (subnet !== null && !isId(subnet)) throw refuse('SDRS.1335')
    return {
      group: body.server_group_id.toLowerCase(),
      description,
      subnet: subnet?.toLowerCase() ?? null,
      tags,
    }
  }

  function serverOf(
    body: Pick<
      Static<typeof CreateBody>['protected_instance'],
      'server_id' | 'primary_ip_address' | 'flavorRef'
    >,
  ) {
    if (!isId(body.server_id)) throw refuse('SDRS.0210')
    return {
      server: body.server_id.toLowerCase(),
      address: body.primary_ip_address || null,
      flavor: body.flavorRef || null,
    }
  }

  app.get('/v1/:project_id/protected-instances', async (request) => {
    const query = request.query as Query
    const page = pageOf(query, refuse)
    const status = statusFilter(query, isInstanceStatus, refuse)
    const preset = queryType(query, ['status_abnormal'], refuse)
    const groups = wantedIds(query, 'server_group_id', refuse)
    const ids = wantedIds(query, 'protected_instance_id', refuse)
    const filter = {
      name: text(query, 'name'),
      az: text(query, 'availability_zone'),
      groups,
      ids: groups === undefined ? ids : undefined,
    }
    const project = projectOf(request)
    return await services.store.read(async (db) => {
      if (status === undefined && preset === undefined) {
        const { rows, count } = await pageOfInstances(db, project, filter, page)
        return { protected_instances: await instanceObjects(db, services, rows), count }
      }
      const shownStatus = await shownStatusOf(db, project)
      const all = await pageOfInstances(db, project, filter, EVERYTHING)
      const rows = all.rows.filter((row) => {
        const shown = shownStatus(row)
        return (
          (status === undefined || shown === status) && (preset === undefined || isAbnormal(shown))
        )
      })
      const objects = await instanceObjects(db, services, pageRows(rows, page))
      return { protected_instances: objects, count: rows.length }
    })
  })

  app.get(
    '/v1/:project_id/protected-instances/:protected_instance_id',
    { schema: { params: Path } },
    async (request) =>
      await show(projectOf(request), instanceId(request.params.protected_instance_id)),
  )

  app.put(
    '/v1/:project_id/protected-instances/:protected_instance_id',
    { schema: { params: Path, body: RenameBody }, config: { audit: 'protected-instance.update' } },
    async (request) => {
      const id = instanceId(request.params.protected_instance_id)
      auditTarget(request, id)
      const { name } = request.body.protected_instance
      if (!isName(name)) throw refuse('SDRS.0202')
      const outcome = await renameInstance(services, projectOf(request), id, name)
      if (!outcome.ok) throw refuse('SDRS.1320')
      return await show(projectOf(request), id)
    },
  )

  app.delete(
    '/v1/:project_id/protected-instances/:protected_instance_id',
    {
      schema: { params: Path, body: DeleteBody },
      config: { audit: 'protected-instance.delete', emptyBody: true },
    },
    async (request) => {
      const id = instanceId(request.params.protected_instance_id)
      const deleteTargetServer = request.body.delete_target_server ?? false
      auditTarget(request, id, { delete_target_server: deleteTargetServer })
      const flags = { deleteTargetServer }
      const outcome = await requestInstanceDeletion(services, projectOf(request), id, flags)
      if (!outcome.ok) throw deletionRefusal(outcome.refusal, refuse)
      return { job_id: outcome.operation }
    },
  )

  app.post(
    '/v1/:project_id/protected-instances/delete',
    { schema: { body: BatchDeleteBody }, config: { audit: 'protected-instance.delete-many' } },
    async (request) => {
      const { protected_instances: listed } = request.body
      if (listed.length === 0 || listed.length > BATCH_MAX) {
        throw refuse('SDRS.0201', `There must be 1 to ${BATCH_MAX} protected instances.`)
      }
      const ids = listed.map(({ id }) => instanceId(id))
      const deleteTargetServer = request.body.delete_target_server ?? false
      auditTarget(request, ids[0] ?? '', { ids, delete_target_server: deleteTargetServer })
      const flags = { deleteTargetServer }
      const outcome = await requestInstancesDeletion(services, projectOf(request), ids, flags)
      if (!outcome.ok && outcome.refusal === 'INSTANCE_UNKNOWN') throw absentInBody('SDRS.1320')
      if (!outcome.ok) throw deletionRefusal(outcome.refusal, refuse)
      return { job_id: outcome.operation }
    },
  )
}

const CREATE_CODES = {
  GROUP_STATE: 'SDRS.1024',
  GROUP_FULL: 'SDRS.1358',
  SERVER_UNKNOWN: 'SDRS.1326',
  SERVER_STATE: 'SDRS.1333',
  SERVER_NOT_IN_PRODUCTION_AZ: 'SDRS.1303',
  SERVER_OTHER_VPC: 'SDRS.1304',
  SERVER_PROTECTED: 'SDRS.1305',
  SERVER_WITHOUT_DISK: 'SDRS.1321',
  SERVER_WITHOUT_SYSTEM_DISK: 'SDRS.1339',
  DISK_SHARED: 'SDRS.1806',
  DISK_NOT_AVAILABLE: 'SDRS.1801',
  DISK_PAIRED: 'SDRS.1811',
  DISK_OF_DRILL: 'SDRS.1825',
  FLAVOR_UNSUITABLE: 'SDRS.1353',
  SUBNET_UNKNOWN: 'SDRS.1335',
  SUBNET_FULL: 'SDRS.1312',
  ADDRESS_OUTSIDE: 'SDRS.0219',
  ADDRESS_TAKEN: 'SDRS.1334',
  QUOTA_PORTS: 'SDRS.1312',
  QUOTA_PAIRS: 'SDRS.0306',
  TOO_MANY_TAGS: 'SDRS.2203',
} as const satisfies Record<Exclude<CreateInstanceRefusal, 'GROUP_UNKNOWN'>, SdrsCode>

const creationRefusal = (refusal: CreateInstanceRefusal, refuse: RefuseWith): Refusal =>
  refusal === 'GROUP_UNKNOWN' ? absentInBody('SDRS.1013') : refuse(CREATE_CODES[refusal])

function deletionRefusal(refusal: DeleteInstanceRefusal, refuse: RefuseWith): Refusal {
  switch (refusal) {
    case 'INSTANCES_OF_SEVERAL_GROUPS':
      return refuse('SDRS.0201', 'All instances must be of one protection group.')
    case 'INSTANCE_UNKNOWN':
    case 'INSTANCE_DELETE_STATE':
    case 'INSTANCE_DELETE_GROUP_STATE':
    case 'INSTANCE_ROLES_REVERSED':
    case 'INSTANCE_PAIR_STATE':
    case 'INSTANCE_NIC_STATE':
    case 'INSTANCE_STATE':
    case 'INSTANCE_ADD_TAGS_STATE':
    case 'INSTANCE_DELETE_TAGS_STATE':
    case 'INSTANCE_GROUP_STATE':
      return refuse(STATE_CODES[refusal])
    default:
      return unreachable(refusal)
  }
}

/** Refusals that every command on an instance shares. */
export const STATE_CODES = {
  INSTANCE_UNKNOWN: 'SDRS.1320',
  INSTANCE_DELETE_STATE: 'SDRS.1301',
  INSTANCE_NIC_STATE: 'SDRS.1327',
  INSTANCE_STATE: 'SDRS.1328',
  INSTANCE_ADD_TAGS_STATE: 'SDRS.2221',
  INSTANCE_DELETE_TAGS_STATE: 'SDRS.2222',
  INSTANCE_GROUP_STATE: 'SDRS.1024',
  INSTANCE_DELETE_GROUP_STATE: 'SDRS.1324',
  INSTANCE_ROLES_REVERSED: 'SDRS.1330',
  INSTANCE_PAIR_STATE: 'SDRS.1601',
} as const satisfies Record<string, SdrsCode>
