import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { newId } from '#base/ids.ts'
import { firstInstant } from '#control/operations/definitions/backup/policy-requests.ts'
import {
  definitionOf,
  findPlan,
  insertSchedule,
  keepForGood,
  readPlan,
  readSchedule,
  readTrigger,
} from '#control/resources/backup-plans.ts'
import { listSchedules } from '#control/resources/backup-lists.ts'
import { toJson } from '#control/store/json.ts'
import type { Queries } from '#control/store/store.ts'
import type { BackupScheduleRow } from '#control/store/tables/checkpoints.ts'
import { invalid, refuse } from '../backup/errors.ts'
import {
  descriptionMember,
  isAnyUuid,
  type Members,
  textMember,
  uuidMember,
} from '../backup/input.ts'
import { afterMarker, flagOf, linksOf, one, pageFrom, type Query } from '../backup/lists.ts'
import type { BackupApiServices } from '../backup/services.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, originOf, projectOf } from '../http/request.ts'
import { KARBOR_KEYS, onlyMembers } from './input.ts'

/* Scheduled operations: what a trigger sets going. Those of policies are shown, and go with their policy. */

const BASE = '/v1/:project_id/scheduled_operations'
const SchedulePath = Type.Object({ scheduled_operation_id: Type.String() })

export function scheduleRoutes(app: Api, services: BackupApiServices): void {
  const { store, clock } = services

  app.get(BASE, async (request) => {
    const query = request.query as Query
    const page = pageFrom(query, KARBOR_KEYS)
    flagOf(query, 'all_tenants')
    const project = projectOf(request)
    return await store.read(async (db) => {
      const after = await afterMarker(page, project, (id) => readSchedule(db, id))
      const filters = {
        name: one(query, 'name'),
        operation_type: one(query, 'operation_type'),
        trigger_id: one(query, 'trigger_id'),
      }
      const shown = await listSchedules(db, project, filters, { ...page, after })
      const operations = []
      for (const row of shown) operations.push(await scheduleObject(db, row))
      const links = linksOf('operations', request.url, originOf(request, services), page, shown)
      return { operations, ...links }
    })
  })

  app.post(BASE, { config: { audit: 'backup-schedule.create' } }, async (request) => {
    const body = onlyMembers(request.body, ['scheduled_operation'])
    const members = onlyMembers(body['scheduled_operation'], [
      'name',
      'description',
      'operation_type',
      'trigger_id',
      'operation_definition',
    ])
    const project = projectOf(request)
    const name = textMember(members, 'name', 255)
    if (name === null || name === '') throw invalid('name: missing.')
    const kind = members['operation_type']
    if (kind !== 'protect' && kind !== 'retention_protect') {
      throw invalid('operation_type: protect or retention_protect.')
    }
    const definition = members['operation_definition']
    if (typeof definition !== 'object' || definition === null || Array.isArray(definition)) {
      throw invalid('operation_definition: an object is expected.')
    }
    const given = definition as Members
    const [plan, provider] = [uuidMember(given, 'plan_id'), uuidMember(given, 'provider_id')]
    const trigger = await readTrigger(store.db, uuidMember(members, 'trigger_id'))
    if (trigger === undefined || trigger.project !== project) {
      throw refuse('CSBS.3000', 'There is no such trigger.')
    }
    const known = await findPlan(store.db, project, plan, 'plan')
    if (known === undefined) throw refuse('CSBS.3000', 'There is no such plan.')
    if (known.provider !== provider) throw invalid('provider_id: not that of the plan.')
    const now = clock.wallMs()
    const row: BackupScheduleRow = {
      id: newId(),
      project,
      plan,
      trigger_id: trigger.id,
      name,
      description: descriptionMember(members),
      operation_type: kind,
      enabled: 1,
      definition: toJson({
        ...countOf(given, 'max_backups', 'max_backups'),
        ...countOf(given, 'retention_duration', 'retention_duration_days'),
      }),
      next_at: firstInstant(trigger, now),
      created_at: now,
      updated_at: now,
    }
    await store.write((tx) => insertSchedule(tx, row))
    auditTarget(request, row.id)
    return { scheduled_operation: await scheduleObject(store.db, row) }
  })

  app.get(
    `${BASE}/:scheduled_operation_id`,
    { schema: { params: SchedulePath } },
    async (request) => ({
      scheduled_operation: await scheduleObject(store.db, await known(services, request)),
    }),
  )

  app.delete(
    `${BASE}/:scheduled_operation_id`,
    { schema: { params: SchedulePath }, config: { audit: 'backup-schedule.delete' } },
    async (request, reply) => {
      const row = await known(services, request)
      const plan = await readPlan(store.db, row.plan)
      if (plan?.form === 'policy') throw invalid('A policy keeps its operation; disable it there.')
      await store.write(async (tx) => {
        await tx.deleteFrom('backup_schedules').where('id', '=', row.id).execute()
        // If another one lets them go, its next sweep says so.
        await keepForGood(tx, row.plan)
      })
      return await reply.code(200).send()
    },
  )
}

async function known(
  { store }: BackupApiServices,
  request: FastifyRequest,
): Promise<BackupScheduleRow> {
  const { scheduled_operation_id: id } = request.params as { scheduled_operation_id: string }
  auditTarget(request, id)
  const row = isAnyUuid(id) ? await readSchedule(store.db, id.toLowerCase()) : undefined
  if (row === undefined || row.project !== projectOf(request)) {
    throw refuse('CSBS.3000', 'There is no such scheduled operation.')
  }
  return row
}

/** A number, or one as text. */
function countOf(members: Members, name: string, as: string): Record<string, number> {
  const value = members[name] ?? null
  if (value === null) return {}
  const count = typeof value === 'string' && /^-?\d{1,6}$/.test(value) ? Number(value) : value
  if (!Number.isInteger(count) || (count as number) < -1 || (count as number) > 99_999) {
    throw invalid(`${name}: a whole number from -1 to 99999.`)
  }
  return { [as]: count as number }
}

async function scheduleObject(db: Queries, row: BackupScheduleRow) {
  const { retention_duration_days: days, ...definition } = definitionOf(row)
  const plan = await readPlan(db, row.plan)
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    operation_type: row.operation_type,
    trigger_id: row.trigger_id,
    operation_definition: {
      ...definition,
      ...(days === undefined ? {} : { retention_duration: days }),
      plan_id: row.plan,
      provider_id: plan?.provider ?? '',
    },
    enabled: row.enabled === 1,
  }
}
