import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { newId } from '#base/ids.ts'
import { firstInstant } from '#control/operations/definitions/backup/policy-requests.ts'
import { insertTrigger, readTrigger, updateSchedule } from '#control/resources/backup-plans.ts'
import { listTriggers } from '#control/resources/backup-lists.ts'
import type { BackupTriggerRow } from '#control/store/tables/checkpoints.ts'
import { WINDOW_DEFAULT_S, WINDOW_MAX_S } from '#domain/backup-policy.ts'
import { backupRecurrence } from '#domain/recurrence.ts'
import { invalid, refuse, refuseAs } from '../backup/errors.ts'
import { given, integerMember, isAnyUuid, type Members, textMember } from '../backup/input.ts'
import { afterMarker, flagOf, linksOf, one, pageFrom, type Query } from '../backup/lists.ts'
import type { BackupApiServices } from '../backup/services.ts'
import { blankTime, parseNaive } from '../backup/times.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, originOf, projectOf } from '../http/request.ts'
import { KARBOR_KEYS, onlyMembers } from './input.ts'

/* Triggers: when something is due. Those of policies are shown, and changed with their policy. */

const BASE = '/v1/:project_id/triggers'
/** The only one. */
const TYPE = 'time'
const TriggerPath = Type.Object({ trigger_id: Type.String() })
const PROPERTIES = ['format', 'pattern', 'start_time', 'end_time', 'window'] as const

export const triggerObject = (row: BackupTriggerRow) => ({
  id: row.id,
  name: row.name,
  type: TYPE,
  properties: {
    format: row.format,
    pattern: row.pattern,
    start_time: blankTime(row.start_at),
    end_time: row.end_at === null ? null : blankTime(row.end_at),
    window: row.window_s,
  },
})

export function triggerRoutes(app: Api, services: BackupApiServices): void {
  const { store, clock } = services

  app.get(BASE, async (request) => {
    const query = request.query as Query
    const page = pageFrom(query, KARBOR_KEYS)
    flagOf(query, 'all_tenants')
    const project = projectOf(request)
    const after = await afterMarker(page, project, (id) => readTrigger(store.db, id))
    const filters = { name: one(query, 'name') }
    const shown =
      (one(query, 'type') ?? TYPE) === TYPE
        ? await listTriggers(store.db, project, filters, { ...page, after })
        : []
    return {
      triggers: shown.map(triggerObject),
      ...linksOf('triggers', request.url, originOf(request, services), page, shown),
    }
  })

  app.post(BASE, { config: { audit: 'backup-trigger.create' } }, async (request) => {
    const members = infoOf(request.body)
    const properties = onlyMembers(members['properties'], PROPERTIES)
    if (members['type'] !== TYPE) throw invalid('type: time.')
    const name = textMember(members, 'name', 255)
    if (name === null) throw invalid('name: missing.')
    const now = clock.wallMs()
    const row: BackupTriggerRow = {
      id: newId(),
      project: projectOf(request),
      plan: null,
      name,
      ...patternOf(properties),
      // Whole seconds.
      start_at: timeOf(properties, 'start_time') ?? Math.floor(now / 1_000) * 1_000,
      end_at: timeOf(properties, 'end_time'),
      window_s: windowOf(properties) ?? WINDOW_DEFAULT_S,
      created_at: now,
    }
    checkEnd(row)
    await store.write((tx) => insertTrigger(tx, row))
    auditTarget(request, row.id)
    return { trigger_info: triggerObject(row) }
  })

  app.get(`${BASE}/:trigger_id`, { schema: { params: TriggerPath } }, async (request) => ({
    trigger_info: triggerObject(await known(services, request)),
  }))

  app.put(
    `${BASE}/:trigger_id`,
    { schema: { params: TriggerPath }, config: { audit: 'backup-trigger.update' } },
    async (request) => {
      const members = infoOf(request.body)
      const before = await known(services, request)
      if (before.plan !== null) throw invalid('The trigger of a policy is changed with the policy.')
      if (given(members, 'type') && members['type'] !== TYPE) throw invalid('type: time.')
      const row = changed(before, members)
      checkEnd(row)
      const { id, project: _, plan: __, created_at: ___, ...change } = row
      await store.write(async (tx) => {
        await tx.updateTable('backup_triggers').set(change).where('id', '=', id).execute()
        const now = clock.wallMs()
        const schedules = await tx
          .selectFrom('backup_schedules')
          .select('id')
          .where('trigger_id', '=', id)
          .execute()
        for (const schedule of schedules) {
          await updateSchedule(tx, schedule.id, { next_at: firstInstant(row, now) }, now)
        }
      })
      return { trigger_info: triggerObject(row) }
    },
  )

  app.delete(
    `${BASE}/:trigger_id`,
    { schema: { params: TriggerPath }, config: { audit: 'backup-trigger.delete' } },
    async (request, reply) => {
      const row = await known(services, request)
      const used = await store.write(async (tx) => {
        const schedule = await tx
          .selectFrom('backup_schedules')
          .select('id')
          .where('trigger_id', '=', row.id)
          .limit(1)
          .executeTakeFirst()
        if (schedule !== undefined) return true
        await tx.deleteFrom('backup_triggers').where('id', '=', row.id).execute()
        return false
      })
      if (used) throw refuseAs(424, 'CSBS.9001', 'A scheduled operation still refers to it.')
      return await reply.code(200).send()
    },
  )
}

const infoOf = (body: unknown): Members =>
  onlyMembers(onlyMembers(body, ['trigger_info'])['trigger_info'], ['name', 'type', 'properties'])

async function known(
  { store }: BackupApiServices,
  request: FastifyRequest,
): Promise<BackupTriggerRow> {
  const { trigger_id: id } = request.params as { trigger_id: string }
  auditTarget(request, id)
  const row = isAnyUuid(id) ? await readTrigger(store.db, id.toLowerCase()) : undefined
  if (row === undefined || row.project !== projectOf(request)) {
    throw refuse('CSBS.3000', 'There is no such trigger.')
  }
  return row
}

function changed(before: BackupTriggerRow, members: Members): BackupTriggerRow {
  const name = textMember(members, 'name', 255)
  const named = name === null ? before : { ...before, name }
  if (!given(members, 'properties')) return named
  const properties = onlyMembers(members['properties'], PROPERTIES)
  const start = timeOf(properties, 'start_time')
  if (start === null) throw invalid('start_time: missing.')
  return {
    ...named,
    ...(given(properties, 'pattern') ? patternOf({ format: before.format, ...properties }) : {}),
    start_at: start,
    ...(given(properties, 'end_time') ? { end_at: timeOf(properties, 'end_time') } : {}),
    window_s: windowOf(properties) ?? before.window_s,
  }
}

function patternOf(properties: Members): Pick<BackupTriggerRow, 'pattern' | 'format'> {
  const { format, pattern } = properties
  if (format !== 'calendar' && format !== 'ical') {
    throw invalid('format: calendar. Crontab is not offered by this server.')
  }
  if (typeof pattern !== 'string') throw invalid('pattern: text is expected.')
  const parsed = backupRecurrence(pattern)
  if (!parsed.ok) {
    throw invalid(
      'pattern: a calendar with one daily or weekly rule, at most 24 instants a day and an hour between two of them.',
    )
  }
  return { pattern, format }
}

function timeOf(properties: Members, name: string): number | null {
  const text = textMember(properties, name, 32)
  if (text === null) return null
  const ms = parseNaive(text, ' ')
  if (ms === null) throw invalid(`${name}: a time like 2026-01-31 23:59:59, in UTC.`)
  return ms
}

const windowOf = (properties: Members): number | undefined =>
  integerMember(properties, 'window', [WINDOW_DEFAULT_S, WINDOW_MAX_S])

function checkEnd({ start_at, end_at }: BackupTriggerRow): void {
  if (end_at !== null && end_at <= start_at) throw invalid('end_time: later than start_time.')
}
