import Type, { type Static } from 'typebox'
import {
  PlanDocument,
  storedPlan,
  toDocument,
} from '#control/operations/definitions/recovery/plan-format.ts'
import { pauseText } from '#control/operations/definitions/recovery/recovery.ts'
import type { SeenProbe } from '#control/operations/definitions/recovery/recovery-probes.ts'
import {
  removePlan,
  requestRecovery,
  requestRunCommand,
  type RecoverRefusal,
  type RunCommandRefusal,
  showPlan,
  showRuns,
  storePlan,
} from '#control/operations/definitions/recovery/recovery-requests.ts'
import type { KeptOutcome } from '#control/operations/definitions/recovery/recovery-scripts.ts'
import type { StoredRun } from '#control/resources/recovery.ts'
import { fromJson } from '#control/store/json.ts'
import { type Pause, type PlanFault, waveOf } from '#domain/recovery-plan.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, principalOf, projectOf } from '../http/request.ts'
import { refuse } from './errors.ts'
import { unknownGroup } from './groups.ts'
import { ById, describe, nullable, Time, timeOf } from './route.ts'
import type { NativeServices } from './services.ts'

/* How the servers of a group come back after a switch: the plan, and the runs that followed it. */

const Named = Type.Record(Type.String(), Type.String(), {
  description: 'Names of the instances that the group has now, by id.',
})
const PlanView = Type.Object({
  plan: PlanDocument,
  names: Named,
  updated_at: Time,
  updated_by: Type.String(),
})
const Script = nullable(
  Type.Object({
    ok: Type.Boolean(),
    reason: nullable(Type.String()),
    output: Type.String({ description: 'The end of what it printed.' }),
    attempts: Type.Integer({
      description: 'More than 1: the control plane died while it ran, and it was run again.',
    }),
  }),
)
const RunView = Type.Object({
  id: Type.String({ description: 'Also the id of its operation.' }),
  reason: Type.Union([Type.Literal('failover'), Type.Literal('reverse'), Type.Literal('operator')]),
  site: Type.String(),
  state: Type.String({
    description: 'running, paused, done, stopped (by the plan), aborted, superseded',
  }),
  waits_for: nullable(Type.String({ description: 'What has to be done before it goes on.' })),
  touched_by: nullable(Type.String()),
  started_at: Time,
  ended_at: nullable(Time),
  servers: Type.Array(
    Type.Object({
      instance: Type.String(),
      name: nullable(Type.String()),
      server: Type.String(),
      wave: Type.Integer(),
      state: Type.String({
        description:
          'waiting, preparing, starting, probing, finishing, ready, not_ready or skipped',
      }),
      started_at: nullable(Time),
      ready_at: nullable(Time),
      ended_at: nullable(Time),
      ready_after_ms: nullable(Type.Number({ description: 'From its start until it was ready.' })),
      reason: nullable(Type.Object({ code: Type.String(), message: Type.String() })),
      probes: Type.Array(
        Type.Object({
          ok: Type.Boolean(),
          detail: Type.String(),
          output: Type.String(),
          since_start_ms: nullable(Type.Number()),
        }),
      ),
      script_before: Script,
      script_after: Script,
    }),
  ),
})

export function recoveryRoutes(app: Api, services: NativeServices): void {
  const path = '/api/v1/groups/:id/recovery-plan'
  app.get(
    path,
    {
      schema: describe(
        'Show the recovery plan of a group',
        'recovery',
        Type.Object({ recovery_plan: nullable(PlanView) }),
        { params: ById },
      ),
    },
    async (request) => {
      const found = await showPlan(services, projectOf(request), request.params.id)
      if (found === undefined) throw unknownGroup()
      return { recovery_plan: found === null ? null : viewOf(found) }
    },
  )
  app.put(
    path,
    {
      config: { audit: 'group.recovery_plan' },
      schema: describe(
        'Set the recovery plan of a group: in which order its servers start after a switch',
        'recovery',
        Type.Object({ recovery_plan: PlanView }),
        { params: ById, body: PlanDocument },
      ),
    },
    async (request) => {
      const project = projectOf(request)
      const { id } = request.params
      const by = principalOf(request).user.name
      auditTarget(request, id)
      const outcome = await storePlan(services, project, id, request.body, by)
      if (!outcome.ok) {
        if (outcome.refusal === 'GROUP_UNKNOWN') throw unknownGroup()
        throw refuse(
          409,
          outcome.refusal,
          outcome.faults === undefined
            ? `Several instances of the group are named ${outcome.name}.`
            : outcome.faults.map(faultText).join(' '),
          outcome.faults === undefined
            ? 'Use their ids.'
            : 'Correct the plan; nothing was changed. `holdfast instance list` shows the instances.',
        )
      }
      const found = await showPlan(services, project, id)
      if (found === undefined || found === null) throw unknownGroup()
      return { recovery_plan: viewOf(found) }
    },
  )
  app.delete(
    path,
    {
      config: { audit: 'group.recovery_plan_delete' },
      schema: describe(
        'Delete the recovery plan of a group: its servers start all at once again',
        'recovery',
        Type.Object({}),
        { params: ById },
      ),
    },
    async (request) => {
      const { id } = request.params
      auditTarget(request, id)
      const outcome = await removePlan(services, projectOf(request), id)
      if (outcome.ok) return {}
      if (outcome.refusal === 'GROUP_UNKNOWN') throw unknownGroup()
      throw refuse(404, 'PLAN_UNKNOWN', 'The group has no recovery plan.', 'Nothing is to be done.')
    },
  )

  app.get(
    '/api/v1/groups/:id/recovery',
    {
      schema: describe(
        'List how the servers of a group came back after its switches, newest first',
        'recovery',
        Type.Object({
          recoveries: Type.Array(RunView),
          next_marker: nullable(
            Type.String({ description: 'There are older ones: ask for those behind it.' }),
          ),
        }),
        {
          params: ById,
          querystring: Type.Object({
            limit: Type.Optional(
              Type.Integer({
                minimum: 1,
                maximum: 100,
                default: 10,
                description: 'At most. Fewer are answered where they have more than 1000 servers.',
              }),
            ),
            marker: Type.Optional(
              Type.String({ maxLength: 64, description: 'Only those older than this recovery.' }),
            ),
          }),
        },
      ),
    },
    async (request) => {
      const { limit = 10, marker } = request.query
      const page = { limit, marker }
      const found = await showRuns(services, projectOf(request), request.params.id, page)
      if (!found.ok) {
        if (found.refusal === 'GROUP_UNKNOWN') throw unknownGroup()
        const text = 'The group has no recovery of this id.'
        throw refuse(404, found.refusal, text, 'Begin with the newest: leave the marker out.')
      }
      const { runs, names, more } = found
      return {
        recoveries: runs.map((run) => runView(run, names)),
        next_marker: more ? (runs.at(-1)?.row.id ?? null) : null,
      }
    },
  )
  const Begun = Type.Object({ operation: Type.String() })
  app.post(
    '/api/v1/groups/:id/recover',
    {
      config: { audit: 'group.recover', emptyBody: true },
      schema: describe(
        'Start the servers of the production site in the order of the plan',
        'recovery',
        Begun,
        { params: ById, body: Type.Object({}) },
        202,
      ),
    },
    async (request, reply) => {
      const { id } = request.params
      auditTarget(request, id)
      const outcome = await requestRecovery(services, projectOf(request), id)
      if (!outcome.ok) throw recoverRefusal(outcome.refusal)
      return await reply.code(202).send({ operation: outcome.operation })
    },
  )
  for (const kind of ['continue', 'abort'] as const) {
    app.post(
      `/api/v1/groups/:id/recovery/${kind}`,
      {
        config: { audit: `group.recovery_${kind}`, emptyBody: true },
        schema: describe(
          kind === 'continue'
            ? 'Let a paused recovery go on'
            : 'End a recovery: nothing more is started, what is under way comes to its end',
          'recovery',
          Begun,
          { params: ById, body: Type.Object({}) },
        ),
      },
      async (request) => {
        const { id } = request.params
        auditTarget(request, id)
        const by = principalOf(request).user.name
        const outcome = await requestRunCommand(services, projectOf(request), id, kind, by)
        if (!outcome.ok) throw runRefusal(outcome.refusal)
        return { operation: outcome.operation }
      },
    )
  }
}

function viewOf({
  row,
  plan,
  names,
}: Exclude<Awaited<ReturnType<typeof showPlan>>, null | undefined>) {
  return {
    plan: toDocument(plan),
    names: Object.fromEntries(names),
    updated_at: timeOf(row.updated_at),
    updated_by: row.updated_by,
  }
}

function runView({ row, servers }: StoredRun, names: ReadonlyMap<string, string>) {
  const plan = storedPlan(row.plan)
  const time = (at: number | null) => (at === null ? null : timeOf(at))
  const script = (json: string | null) =>
    json === null ? null : { attempts: 1, ...fromJson<KeptOutcome>(json) }
  return {
    id: row.id,
    reason: row.reason as Static<typeof RunView>['reason'],
    site: row.site,
    state: row.state,
    waits_for: pauseText(fromJson<Pause[]>(row.pauses)),
    touched_by: row.touched_by,
    started_at: timeOf(row.started_at),
    ended_at: time(row.ended_at),
    servers: servers.map((one) => ({
      instance: one.instance,
      name: names.get(one.instance) ?? null,
      server: one.server,
      wave: waveOf(plan, one.instance),
      state: one.state,
      started_at: time(one.started_at),
      ready_at: time(one.ready_at),
      ended_at: time(one.ended_at),
      ready_after_ms:
        one.ready_at === null || one.started_at === null ? null : one.ready_at - one.started_at,
      reason:
        one.reason_code === null ? null : { code: one.reason_code, message: one.reason ?? '' },
      probes: fromJson<SeenProbe[]>(one.probes),
      script_before: script(one.script_before),
      script_after: script(one.script_after),
    })),
  }
}

function faultText(fault: PlanFault): string {
  switch (fault.code) {
    case 'INSTANCE_UNKNOWN':
      return `The group has no instance ${fault.instance}.`
    case 'INSTANCE_TWICE':
      return `Instance ${fault.instance} stands in the plan twice.`
    case 'CYCLE':
      return `These wait for each other: ${[...fault.instances, fault.instances[0]].join(' after ')}.`
    case 'LATER_WAVE':
      return `Instance ${fault.instance} is to start after ${fault.after}, whose wave comes later.`
  }
}

function recoverRefusal(refusal: RecoverRefusal) {
  switch (refusal) {
    case 'GROUP_UNKNOWN':
      return unknownGroup()
    case 'GROUP_STATE':
      return refuse(409, refusal, 'The group is being changed.', 'Wait for the end of its job.')
    case 'GROUP_WITHOUT_INSTANCES':
      return refuse(
        409,
        refusal,
        'The group has no protected instances.',
        'Protect a server first.',
      )
    case 'RECOVERY_RUNS':
      return refuse(
        409,
        refusal,
        'A recovery of the group is under way.',
        'Continue or abort it: see `holdfast group recovery`.',
      )
  }
}

function runRefusal(refusal: RunCommandRefusal) {
  switch (refusal) {
    case 'GROUP_UNKNOWN':
      return unknownGroup()
    case 'RECOVERY_UNKNOWN':
    case 'RUN_ENDED':
      return refuse(
        409,
        'RECOVERY_UNKNOWN',
        'No recovery of the group is under way.',
        'Start one with `holdfast group recover`, or look at the last: `holdfast group recovery`.',
      )
    case 'RUN_NOT_PAUSED':
      return refuse(409, refusal, 'The recovery is not paused.', 'Nothing waits for you.')
  }
}
