import Type, { type Static } from 'typebox'
import { drillOptions } from '#control/operations/definitions/drills/drill-facts.ts'
import {
  changeSchedule,
  createSchedule,
  removeSchedule,
} from '#control/operations/definitions/drills/drill-schedules.ts'
import { findSchedule, listSchedules } from '#control/resources/drills.ts'
import type { DrillScheduleRow } from '#control/store/tables/drills.ts'
import { Probe } from '#wire/site/probes.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, principalOf, projectOf } from '../http/request.ts'
import { Name, OptionsInput, optionsOf, refusalOf, Vpc } from './drill-input.ts'
import { ById, describe, nullable, Time, timeOf } from './route.ts'
import type { NativeServices } from './services.ts'

/* Drills that begin by themselves, and end by themselves when their report is written. */

const View = Type.Object({
  id: Type.String(),
  name: Type.String(),
  group: Type.String(),
  rule: Type.String(),
  zone: Type.String(),
  vpc: nullable(Type.String()),
  probes: Type.Record(Type.String(), Type.Array(Probe)),
  timeout_ms: Type.Integer(),
  plan: Type.String({ description: 'follow, ignore' }),
  enabled: Type.Boolean(),
  run_missed: Type.Boolean(),
  next_at: nullable(Time),
  last_at: nullable(Time),
  last_drill: nullable(Type.String()),
  last_outcome: nullable(
    Type.String({ description: 'started, started late, missed, or the code of a refusal' }),
  ),
  last_reason: nullable(Type.String({ description: 'Why it could not begin, and what to do.' })),
  last_result: nullable(
    Type.String({ description: 'What its last drill has come to, as in the report.' }),
  ),
  created_at: Time,
})
type View = Static<typeof View>

function viewOf(row: DrillScheduleRow): View {
  const { probes, timeoutMs, plan } = drillOptions(row)
  return {
    id: row.id,
    name: row.name,
    group: row.group_id,
    rule: row.rule,
    zone: row.zone,
    vpc: row.vpc,
    probes: Object.fromEntries(Object.entries(probes).map(([name, list]) => [name, [...list]])),
    timeout_ms: timeoutMs,
    plan: plan ?? 'follow',
    enabled: row.enabled === 1,
    run_missed: row.run_missed === 1,
    next_at: row.enabled === 0 || row.next_at === null ? null : timeOf(row.next_at),
    last_at: row.last_at === null ? null : timeOf(row.last_at),
    last_drill: row.last_drill,
    last_outcome: row.last_outcome,
    last_reason: row.last_reason,
    last_result: row.last_result,
    created_at: timeOf(row.created_at),
  }
}

const Rule = Type.String({
  minLength: 1,
  maxLength: 1_024,
  description: 'RFC 5545 rule, for example FREQ=MONTHLY;BYDAY=1SU;BYHOUR=3',
})
const Zone = Type.String({ minLength: 1, maxLength: 64, description: 'IANA name; UTC by default.' })
const More = {
  zone: Type.Optional(Zone),
  vpc: Type.Optional(Vpc),
  ...OptionsInput,
  enabled: Type.Optional(Type.Boolean()),
  run_missed: Type.Optional(
    Type.Boolean({
      description:
        'Make up, once, for what was missed while the control plane was down. Default true.',
    }),
  ),
}

export function drillScheduleRoutes(app: Api, services: NativeServices): void {
  const { db } = services.store
  const One = Type.Object({ schedule: View })

  app.post(
    '/api/v1/drill-schedules',
    {
      config: { audit: 'drill-schedule.create' },
      schema: describe(
        'Have drills of a group made, looked at and deleted again by themselves',
        'drills',
        One,
        {
          body: Type.Object({
            group: Type.String({ minLength: 1, maxLength: 64 }),
            name: Name,
            rule: Rule,
            ...More,
          }),
        },
        201,
      ),
    },
    async (request, reply) => {
      const { group, name, rule, zone, vpc, enabled, run_missed } = request.body
      const place = { project: projectOf(request), user: principalOf(request).user.id, group }
      const outcome = await createSchedule(services, place, {
        name,
        rule,
        zone: zone ?? 'UTC',
        options: optionsOf(request.body),
        vpc: vpc ?? null,
        enabled: enabled ?? true,
        runMissed: run_missed ?? true,
      })
      if (!outcome.ok) throw refusalOf(outcome.refusal)
      auditTarget(request, outcome.schedule.id, { group })
      return await reply.code(201).send({ schedule: viewOf(outcome.schedule) })
    },
  )

  app.get(
    '/api/v1/drill-schedules',
    {
      schema: describe(
        'List the schedules of drills of the project, newest first',
        'drills',
        Type.Object({ schedules: Type.Array(View) }),
        {},
      ),
    },
    async (request) => ({
      schedules: (await listSchedules(db, projectOf(request))).map(viewOf),
    }),
  )

  app.get(
    '/api/v1/drill-schedules/:id',
    { schema: describe('Show a schedule of drills', 'drills', One, { params: ById }) },
    async (request) => {
      const row = await findSchedule(db, projectOf(request), request.params.id)
      if (row === undefined) throw refusalOf('SCHEDULE_UNKNOWN')
      return { schedule: viewOf(row) }
    },
  )

  app.patch(
    '/api/v1/drill-schedules/:id',
    {
      config: { audit: 'drill-schedule.update' },
      schema: describe('Change a schedule of drills; what is left out stays', 'drills', One, {
        params: ById,
        body: Type.Object({ name: Type.Optional(Name), rule: Type.Optional(Rule), ...More }),
      }),
    },
    async (request) => {
      const { id } = request.params
      const { body } = request
      auditTarget(request, id)
      const outcome = await changeSchedule(services, projectOf(request), id, (before) => ({
        name: body.name ?? before.name,
        rule: body.rule ?? before.rule,
        zone: body.zone ?? before.zone,
        options: optionsOf(body, drillOptions(before)),
        vpc: body.vpc === undefined ? before.vpc : body.vpc,
        enabled: body.enabled ?? before.enabled === 1,
        runMissed: body.run_missed ?? before.run_missed === 1,
      }))
      if (!outcome.ok) throw refusalOf(outcome.refusal)
      return { schedule: viewOf(outcome.schedule) }
    },
  )

  app.delete(
    '/api/v1/drill-schedules/:id',
    {
      config: { audit: 'drill-schedule.delete', emptyBody: true },
      schema: describe(
        'Delete a schedule of drills; drills that it began go on',
        'drills',
        Type.Object({}),
        { params: ById },
      ),
    },
    async (request) => {
      const { id } = request.params
      auditTarget(request, id)
      const outcome = await removeSchedule(services, projectOf(request), id)
      if (!outcome.ok) throw refusalOf(outcome.refusal)
      return {}
    },
  )
}
