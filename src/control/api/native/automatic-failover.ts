import Type from 'typebox'
import {
  armAutomatic,
  type AutomaticView,
  changeAutomatic,
  DEFAULT_COOL_DOWN_MS,
  DEFAULT_SILENCE_MS,
  showAutomatic,
} from '#control/operations/definitions/recovery/automatic-requests.ts'
import { verdictOf } from '#control/resources/automatic-failovers.ts'
import { fromJson } from '#control/store/json.ts'
import { AUTOMATIC_REASONS, type AutomaticReason } from '#domain/automatic-failover.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, principalOf, projectOf } from '../http/request.ts'
import { refuse } from './errors.ts'
import { unknownGroup } from './groups.ts'
import { ById, describe, nullable, Time, timeOf } from './route.ts'
import type { NativeServices } from './services.ts'

/* Whether a group may fail over by itself, and why it did or did not. */

const Verdict = Type.String({
  description: 'stands_by, refuses, waits or acts; see docs/operating/automatic-failover.md',
})
const Reason = Type.Object({ code: Type.String(), message: Type.String() })
const View = Type.Object({
  enabled: Type.Boolean(),
  armed: Type.Boolean({ description: 'false: it has acted, and waits to be armed again.' }),
  hold: nullable(Type.String({ description: 'Why an operator holds it back.' })),
  silence_s: Type.Integer({
    description:
      'Shortest silence of the production site; never less than lease and report silence together.',
  }),
  cool_down_s: Type.Integer(),
  verdict: nullable(Verdict),
  reasons: Type.Array(Reason),
  acted_at: nullable(Time),
  operation: nullable(Type.String()),
  history: Type.Array(
    Type.Object({
      at: Time,
      verdict: Verdict,
      reasons: Type.Array(Reason),
      facts: Type.Unknown(),
      operation: nullable(Type.String()),
    }),
    { description: 'Every change of the verdict, newest first.' },
  ),
})
const Shown = Type.Object({ automatic_failover: View })
const Seconds = (maximum: number) => Type.Optional(Type.Integer({ minimum: 1, maximum }))

export function automaticFailoverRoutes(app: Api, services: NativeServices): void {
  const path = '/api/v1/groups/:id/automatic-failover'

  async function shown(project: string, id: string, limit = 20) {
    const found = await showAutomatic(services, project, id, limit)
    if (found === undefined) throw unknownGroup()
    return { automatic_failover: viewOf(found) }
  }

  app.get(
    path,
    {
      schema: describe(
        'Show whether a group may fail over by itself, and why it did or did not',
        'recovery',
        Shown,
        {
          params: ById,
          querystring: Type.Object({
            limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 500, default: 20 })),
          }),
        },
      ),
    },
    async (request) => shown(projectOf(request), request.params.id, request.query.limit),
  )
  app.put(
    path,
    {
      config: { audit: 'group.automatic_failover' },
      schema: describe(
        'Change whether and when a group may fail over by itself; what is left out stays',
        'recovery',
        Shown,
        {
          params: ById,
          body: Type.Object({
            enabled: Type.Optional(Type.Boolean()),
            silence_s: Seconds(3_600),
            cool_down_s: Seconds(7 * 86_400),
            hold: Type.Optional(nullable(Type.String({ minLength: 1, maxLength: 200 }))),
          }),
        },
      ),
    },
    async (request) => {
      const project = projectOf(request)
      const { id } = request.params
      const { enabled, silence_s, cool_down_s, hold } = request.body
      auditTarget(request, id, { ...request.body })
      const outcome = await changeAutomatic(
        services,
        project,
        id,
        {
          ...(enabled === undefined ? {} : { enabled }),
          ...(silence_s === undefined ? {} : { silenceMs: silence_s * 1_000 }),
          ...(cool_down_s === undefined ? {} : { coolDownMs: cool_down_s * 1_000 }),
          ...(hold === undefined ? {} : { hold }),
        },
        principalOf(request).user.name,
      )
      if (!outcome.ok) throw unknownGroup()
      return await shown(project, id)
    },
  )
  app.post(
    `${path}/rearm`,
    {
      config: { audit: 'group.automatic_failover_rearm', emptyBody: true },
      schema: describe(
        'Let a group that has failed over by itself do so once more',
        'recovery',
        Shown,
        { params: ById, body: Type.Object({}) },
      ),
    },
    async (request) => {
      const project = projectOf(request)
      const { id } = request.params
      auditTarget(request, id)
      const outcome = await armAutomatic(services, project, id, principalOf(request).user.name)
      if (outcome.ok) return await shown(project, id)
      switch (outcome.refusal) {
        case 'GROUP_UNKNOWN':
          throw unknownGroup()
        case 'NOT_ENABLED':
          throw refuse(409, outcome.refusal, 'Automatic failover is off.', 'Enable it first.')
        case 'ARMED_ALREADY':
          throw refuse(409, outcome.refusal, 'It is armed.', 'Nothing is to be done.')
        case 'COOLING_DOWN':
          throw refuse(
            409,
            outcome.refusal,
            `It acted a moment ago and cools down until ${timeOf(outcome.readyAt ?? 0)}.`,
            'Look for what happened first; then arm it, or set a shorter cool_down_s.',
          )
      }
    },
  )
}

const reasonsOf = (codes: readonly string[]) =>
  codes.map((code) => ({ code, message: AUTOMATIC_REASONS[code as AutomaticReason] ?? code }))

function viewOf({ row, verdicts }: AutomaticView) {
  const [verdict = null, ...reasons] = row === null || row.enabled === 0 ? [] : verdictOf(row)
  return {
    enabled: row?.enabled === 1,
    armed: row?.armed === 1,
    hold: row?.hold ?? null,
    silence_s: Math.round((row?.silence_ms ?? DEFAULT_SILENCE_MS) / 1_000),
    cool_down_s: Math.round((row?.cool_down_ms ?? DEFAULT_COOL_DOWN_MS) / 1_000),
    verdict,
    reasons: reasonsOf(reasons),
    acted_at: row?.acted_at === null || row === null ? null : timeOf(row.acted_at),
    operation: row?.operation ?? null,
    history: verdicts.map((one) => ({
      at: timeOf(one.at),
      verdict: one.verdict,
      reasons: reasonsOf(fromJson<string[]>(one.reasons)),
      facts: fromJson<unknown>(one.facts),
      operation: one.operation,
    })),
  }
}
