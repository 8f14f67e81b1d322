import Type from 'typebox'
import { preflightReport } from '#control/operations/definitions/recovery/preflight-report.ts'
import {
  type Finding,
  refusalMessage,
} from '#control/operations/definitions/recovery/preflight-words.ts'
import { findGroup } from '#control/resources/groups.ts'
import { fromJson } from '#control/store/json.ts'
import { describeGivenUp } from '#domain/failover.ts'
import { GROUP_ACTIONS, type TimePart as ForecastPart } from '#domain/forecast.ts'
import type { Api } from '../http/dialect.ts'
import { projectOf } from '../http/request.ts'
import { unknownGroup } from './groups.ts'
import { ById, describe, nullable, Time, timeOf } from './route.ts'
import type { NativeServices } from './services.ts'

/* What an action on a group would do, before it is asked for; and how well that was foretold. */

const Action = Type.Union(GROUP_ACTIONS.map((action) => Type.Literal(action)))
const Finding = Type.Object({
  code: Type.String(),
  message: Type.String(),
  action: Type.String({ description: 'What to do about it.' }),
})
const TimePart = Type.Object({
  name: Type.String({ description: 'lease_wait, contact_wait, switch, servers or copy' }),
  ms: Type.Number(),
  p90_ms: nullable(
    Type.Number({ description: 'Nine of ten took no longer; null: not measured here.' }),
  ),
  basis: Type.String({ description: 'known, measured (of earlier runs) or assumed' }),
})
const Preflight = Type.Object({
  action: Type.String(),
  accepted: Type.Boolean({ description: 'The action would be accepted as asked.' }),
  blockers: Type.Array(Finding, { description: 'Each of them stands against the action.' }),
  warnings: Type.Array(Finding),
  expected_loss: nullable(
    Type.Object({
      bytes: nullable(Type.Number({ description: 'At least.' })),
      writes: nullable(Type.Number({ description: 'At least.' })),
      ms: nullable(Type.Number({ description: 'For so long the DR side has been behind.' })),
      text: Type.String(),
    }),
  ),
  expected_time: Type.Object({
    total_ms: nullable(Type.Number({ description: 'Until the job ends.' })),
    p90_ms: nullable(Type.Number({ description: 'No longer than this in nine of ten.' })),
    parts: Type.Array(TimePart),
    afterwards: Type.Array(TimePart, {
      description: 'What goes on by itself when the job has ended.',
    }),
  }),
  steps: Type.Array(Type.String(), { description: 'What happens, in order.' }),
  refusal: nullable(Type.Object({ code: Type.String(), message: Type.String() })),
  needs: Type.Array(Type.Union([Type.Literal('force'), Type.Literal('preferred_off')]), {
    description: 'What has to be stated for a failover to be accepted.',
  }),
  given_up: nullable(
    Type.Object({
      kind: Type.Union([
        Type.Literal('nothing'),
        Type.Literal('at_least'),
        Type.Literal('unknown'),
      ]),
      bytes: nullable(Type.Number()),
      since: nullable(Time),
      text: Type.String(),
    }),
  ),
  freezes: Type.Boolean({
    description:
      'The writer is frozen first. If it cannot be told, its lease has to end before the DR side opens.',
  }),
  leaves_behind: Type.Array(Type.String(), {
    description: 'Pairs that were never copied in full.',
  }),
  dr_copy: nullable(
    Type.Union([
      Type.Literal('consistent'),
      Type.Literal('kept'),
      Type.Literal('inconsistent'),
      Type.Literal('failed'),
    ]),
  ),
  copy: Type.Union([
    Type.Literal('none'),
    Type.Literal('delta'),
    Type.Literal('first'),
    Type.Literal('full'),
    Type.Literal('unknown'),
  ]),
  full_copy: Type.Boolean({
    description:
      'The sites have no common history: all blocks are compared, and copied where different.',
  }),
  paused: Type.Boolean({
    description:
      'The failover of a group that is paused: by `POST /api/v1/groups/{id}/failover`, to what its DR disks held then.',
  }),
})

const timePart = ({ name, ms, p90Ms, basis }: ForecastPart) => ({ name, ms, p90_ms: p90Ms, basis })

const written = (list: readonly Finding[]) => list.map((one) => ({ ...one }))

export function preflightRoutes(app: Api, services: NativeServices): void {
  app.get(
    '/api/v1/groups/:id/preflight',
    {
      schema: describe(
        'Show what an action on a group would do, what stands against it, and what it would take; changes nothing',
        'groups',
        Type.Object({ preflight: Preflight }),
        {
          params: ById,
          querystring: Type.Object({
            action: Action,
            force: Type.Optional(Type.Boolean()),
            preferred_off: Type.Optional(Type.Boolean()),
            vpc: Type.Optional(
              Type.String({
                minLength: 1,
                maxLength: 64,
                description: 'VPC for the servers of a drill; without it one is made.',
              }),
            ),
          }),
        },
      ),
    },
    async (request) => {
      const { action, force = false, preferred_off: preferredOff = false, vpc } = request.query
      const group = await findGroup(services.store.db, projectOf(request), request.params.id)
      if (group === undefined) throw unknownGroup()
      const statements = { force, preferredOff, drillVpc: vpc ?? null }
      const report = await preflightReport(services, group, action, statements)
      const { found, blockers, warnings, loss, time, steps } = report
      const { givenUp, refusal } = found
      return {
        preflight: {
          action,
          accepted: blockers.length === 0,
          blockers: written(blockers),
          warnings: written(warnings),
          expected_loss: loss === null ? null : { ...loss },
          expected_time: {
            total_ms: time.totalMs,
            p90_ms: time.p90Ms,
            parts: time.parts.map(timePart),
            afterwards: time.afterwards.map(timePart),
          },
          steps: [...steps],
          refusal: refusal === null ? null : { code: refusal, message: refusalMessage(refusal) },
          needs: [...found.needs],
          given_up:
            givenUp === null
              ? null
              : {
                  kind: givenUp.kind,
                  bytes: givenUp.bytes,
                  since: givenUp.since === null ? null : timeOf(givenUp.since),
                  text: describeGivenUp(givenUp),
                },
          freezes: found.freezes,
          leaves_behind: [...found.leavesBehind],
          dr_copy: found.drCopy,
          copy: found.copy,
          full_copy: found.copy === 'full',
          paused: found.paused,
        },
      }
    },
  )

  const Told = Type.Object({
    operation: Type.String(),
    kind: Type.String(),
    status: Type.String(),
    begin_at: nullable(Time),
    forecast_ms: nullable(Type.Number()),
    actual_ms: nullable(Type.Number({ description: 'null: it has not ended.' })),
    error_percent: nullable(
      Type.Number({ description: 'Of the actual time; positive: it was faster than foretold.' }),
    ),
  })
  app.get(
    '/api/v1/groups/:id/forecasts',
    {
      schema: describe(
        'List what actions on a group were expected to take, and what they took, newest first',
        'groups',
        Type.Object({ forecasts: Type.Array(Told) }),
        {
          params: ById,
          querystring: Type.Object({
            limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 100, default: 20 })),
          }),
        },
      ),
    },
    async (request) => {
      const { db } = services.store
      const group = await findGroup(db, projectOf(request), request.params.id)
      if (group === undefined) throw unknownGroup()
      const rows = await db
        .selectFrom('operations')
        .select(['id', 'kind', 'status', 'begin_at', 'end_at', 'entities'])
        .where('resource_type', '=', 'protection-group')
        .where('resource_id', '=', group.id)
        .orderBy('ordinal', 'desc')
        .limit(request.query.limit ?? 20)
        .execute()
      return {
        forecasts: rows.flatMap((row) => {
          const { forecast_ms: foretold } = fromJson<{ forecast_ms?: number | null }>(row.entities)
          if (foretold === undefined) return []
          const actual =
            row.end_at === null || row.begin_at === null ? null : row.end_at - row.begin_at
          return [
            {
              operation: row.id,
              kind: row.kind,
              status: row.status,
              begin_at: row.begin_at === null ? null : timeOf(row.begin_at),
              forecast_ms: foretold,
              actual_ms: actual,
              error_percent:
                actual === null || foretold === null
                  ? null
                  : Math.round((100 * (foretold - actual)) / Math.max(1, actual)),
            },
          ]
        }),
      }
    },
  )
}
