import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import {
  changePolicy,
  deletePolicy,
  type NewSchedule,
  requestPolicy,
  type ScheduleChange,
} from '#control/operations/definitions/backup/policy-requests.ts'
import {
  findPlan,
  listPlans,
  type OperationDefinition,
  type PlanResource,
} from '#control/resources/backup-plans.ts'
import { SERVER_TYPE } from '#control/resources/checkpoints.ts'
import type { BackupPlanRow } from '#control/store/tables/checkpoints.ts'
import { invalid, refuse } from '../backup/errors.ts'
import {
  booleanMember,
  descriptionMember,
  envelope,
  given,
  integerMember,
  isAnyUuid,
  isMembers,
  type Members,
  nameMember,
  objectList,
  tagsMember,
  textMember,
  uuidMember,
} from '../backup/input.ts'
import { linksOf, one, pageFrom, pageOfRows, type Query } from '../backup/lists.ts'
import { policyRefused } from '../backup/refusals.ts'
import type { BackupApiServices } from '../backup/services.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, originOf, projectOf } from '../http/request.ts'
import { policyObjects } from './policy-codec.ts'

/* Backup policies. */

const BASE = '/v1/:project_id/policies'
const PolicyPath = Type.Object({ policy_id: Type.String() })
const KEYS = ['created_at', 'updated_at', 'name', 'status', 'id'] as const

export function policyRoutes(app: Api, services: BackupApiServices): void {
  const { store } = services

  app.post(BASE, { config: { audit: 'backup-policy.create' } }, async (request) => {
    const members = envelope(request.body, 'policy')
    const name = nameMember(members, 'name')
    if (name === null) throw invalid('name: missing.')
    for (const member of ['parameters', 'resources', 'scheduled_operations']) {
      if (!given(members, member)) throw invalid(`${member}: missing.`)
    }
    const outcome = await requestPolicy(services, {
      project: projectOf(request),
      user: request.principal?.user.id ?? '',
      name,
      description: descriptionMember(members),
      provider: uuidMember(members, 'provider_id'),
      parameters: parametersOf(members),
      resources: resourcesOf(members),
      schedules: objectList(members, 'scheduled_operations').map(newSchedule),
      tags: tagsMember(members),
    })
    if (!outcome.ok) throw policyRefused(outcome.refusal)
    auditTarget(request, outcome.policy.id)
    return { policy: await shown(services, outcome.policy, 'text') }
  })

  app.get(BASE, async (request) => {
    const query = request.query as Query
    const page = pageFrom(query, KEYS)
    const name = one(query, 'name')
    return await store.read(async (db) => {
      const rows = (await listPlans(db, projectOf(request), 'policy')).filter(
        (row) => name === undefined || row.name === name,
      )
      const paged = pageOfRows(rows, page, (row, key) => row[key])
      const policies = await policyObjects(db, paged, 'native')
      const links = linksOf('policies', request.url, originOf(request, services), page, paged)
      return { policies, ...links }
    })
  })

  app.get(`${BASE}/:policy_id`, { schema: { params: PolicyPath } }, async (request) => ({
    policy: await shown(services, await known(services, request), 'native'),
  }))

  app.put(
    `${BASE}/:policy_id`,
    { schema: { params: PolicyPath }, config: { audit: 'backup-policy.update' } },
    async (request) => {
      const { id, project } = await known(services, request)
      const members = envelope(request.body, 'policy')
      const name = nameMember(members, 'name')
      const outcome = await changePolicy(services, project, id, {
        ...(name === null ? {} : { name }),
        ...(given(members, 'description') ? { description: descriptionMember(members) } : {}),
        ...(given(members, 'resources') ? { resources: resourcesOf(members) } : {}),
        ...(given(members, 'scheduled_operations')
          ? { schedules: objectList(members, 'scheduled_operations').map(scheduleChange) }
          : {}),
      })
      if (!outcome.ok) throw policyRefused(outcome.refusal)
      return { policy: await shown(services, outcome.policy, 'text') }
    },
  )

  app.delete(
    `${BASE}/:policy_id`,
    { schema: { params: PolicyPath }, config: { audit: 'backup-policy.delete' } },
    async (request, reply) => {
      const { id, project } = await known(services, request)
      const outcome = await deletePolicy(services, project, id)
      if (!outcome.ok) throw policyRefused(outcome.refusal)
      return await reply.code(200).send()
    },
  )
}

async function known(
  { store }: BackupApiServices,
  request: FastifyRequest,
): Promise<BackupPlanRow> {
  const { policy_id: id } = request.params as { policy_id: string }
  auditTarget(request, id)
  const row = isAnyUuid(id)
    ? await findPlan(store.db, projectOf(request), id.toLowerCase(), 'policy')
    : undefined
  if (row === undefined) throw refuse('CSBS.3000')
  return row
}

async function shown({ store }: BackupApiServices, row: BackupPlanRow, kind: 'text' | 'native') {
  const [policy] = await store.read((db) => policyObjects(db, [row], kind))
  return policy
}

function parametersOf(members: Members): unknown {
  const value = members['parameters']
  if (!isMembers(value)) throw invalid('parameters: an object is expected.')
  const common = value['common'] ?? {}
  if (!isMembers(common)) throw invalid('parameters.common: an object is expected.')
  return { common }
}

function resourcesOf(members: Members): PlanResource[] {
  return objectList(members, 'resources').map((one) => {
    const type = one['type']
    if (type !== SERVER_TYPE) throw refuse('CSBS.6003')
    const id = uuidMember(one, 'id')
    const extraInfo = one['extra_info'] ?? {}
    if (!isMembers(extraInfo)) throw invalid('extra_info: an object is expected.')
    return { id, type, name: textMember(one, 'name', 255) ?? `resource_${id}`, extraInfo }
  })
}

function newSchedule(members: Members): NewSchedule {
  const operationType = members['operation_type']
  if (operationType !== 'backup' && operationType !== 'replication') {
    throw invalid('operation_type: backup or replication.')
  }
  const definition = members['operation_definition']
  if (!isMembers(definition)) throw invalid('operation_definition: an object is expected.')
  return {
    name: nameMember(members, 'name'),
    description: descriptionMember(members),
    enabled: booleanMember(members, 'enabled', true),
    operationType,
    definition: definitionFrom(definition),
    pattern: patternOf(members) ?? fail('trigger.properties.pattern: missing.'),
  }
}

function fail(message: string): never {
  throw invalid(message)
}

function scheduleChange(members: Members): ScheduleChange {
  const name = nameMember(members, 'name')
  const pattern = patternOf(members)
  const definition = members['operation_definition'] ?? undefined
  if (definition !== undefined && !isMembers(definition)) {
    throw invalid('operation_definition: an object is expected.')
  }
  return {
    id: uuidMember(members, 'id'),
    ...(name === null ? {} : { name }),
    ...(given(members, 'description') ? { description: descriptionMember(members) } : {}),
    ...(given(members, 'enabled') ? { enabled: booleanMember(members, 'enabled', true) } : {}),
    ...(definition === undefined ? {} : { definition: definitionFrom(definition) }),
    ...(pattern === null ? {} : { pattern }),
  }
}

function patternOf(members: Members): string | null {
  const trigger = members['trigger'] ?? null
  if (trigger === null) return null
  const properties = isMembers(trigger) ? trigger['properties'] : undefined
  if (!isMembers(properties)) throw invalid('trigger.properties: an object is expected.')
  const pattern = properties['pattern']
  if (typeof pattern !== 'string') throw invalid('trigger.properties.pattern: text is expected.')
  return pattern
}

const COUNT = [-1, 99_999] as const
const SLOTS = [0, 100] as const

/** Members that were not given stay absent, so that they are not shown either. */
function definitionFrom(members: Members): OperationDefinition {
  const wanted: Record<string, unknown> = {
    max_backups: integerMember(members, 'max_backups', COUNT),
    retention_duration_days: integerMember(members, 'retention_duration_days', COUNT),
    day_backups: integerMember(members, 'day_backups', SLOTS),
    week_backups: integerMember(members, 'week_backups', SLOTS),
    month_backups: integerMember(members, 'month_backups', SLOTS),
    year_backups: integerMember(members, 'year_backups', SLOTS),
    permanent: given(members, 'permanent') ? booleanMember(members, 'permanent', false) : undefined,
    timezone: textMember(members, 'timezone', 32) ?? undefined,
    destination_region: textMember(members, 'destination_region', 255) ?? undefined,
    destination_project_id: textMember(members, 'destination_project_id', 64) ?? undefined,
    enable_acceleration: given(members, 'enable_acceleration')
      ? booleanMember(members, 'enable_acceleration', false)
      : undefined,
  }
  const entries = Object.entries(wanted).filter(([, value]) => value !== undefined)
  return Object.fromEntries(entries) as OperationDefinition
}
