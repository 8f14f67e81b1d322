import Type, { type Static } from 'typebox'
import { drillFindings, drillOptions } from '#control/operations/definitions/drills/drill-facts.ts'
import {
  requestDrill,
  requestDrillDeletion,
} from '#control/operations/definitions/drills/drill-requests.ts'
import {
  drillServers,
  findDrill,
  findReport,
  listDrills,
  listReports,
  type ReportEntry,
} from '#control/resources/drills.ts'
import type { DrillRow, DrillServerRow } from '#control/store/tables/drills.ts'
import { DrillMoment, DrillStep, ServerFinding } from '#wire/reports/drill-report.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, principalOf, projectOf } from '../http/request.ts'
import { Name, OptionsInput, optionsOf, refusalOf, Vpc } from './drill-input.ts'
import { ById, describe, nullable, Time, timeOf } from './route.ts'
import type { NativeServices } from './services.ts'

/* Drills with all they can be told and all they found, and their reports. A report is given out as the bytes that were signed. */

const View = Type.Object({
  id: Type.String(),
  name: Type.String(),
  group: Type.String(),
  status: Type.String({ description: 'creating, available, error, deleting, error-deleting' }),
  reason: nullable(Type.String({ description: 'Why the status is an error.' })),
  site: Type.String(),
  vpc: Type.String(),
  schedule: nullable(Type.String()),
  delete_after: Type.Boolean(),
  timeout_ms: Type.Integer(),
  began_at: nullable(
    Type.String({ description: 'When its turn came; null: it waits while others are made.' }),
  ),
  given_up_at: nullable(
    Type.String({ description: 'It was deleted by force, and goes when its site is heard.' }),
  ),
  created_at: Time,
  updated_at: Time,
  servers: Type.Array(
    Type.Object({
      instance: Type.String(),
      server: Type.String(),
      name: Type.String(),
      state: Type.String({
        description: 'waiting, starting, probing, ready, not_ready, skipped',
      }),
      reason: nullable(Type.String()),
    }),
  ),
  /** As in its report; null: nothing was found yet. */
  findings: nullable(
    Type.Object({
      moment: DrillMoment,
      data_age_ms: nullable(Type.Integer()),
      data_age_basis: Type.String(),
      production_stall_ms: Type.Integer(),
      steps: Type.Array(DrillStep),
      servers: Type.Array(ServerFinding),
    }),
  ),
})
type View = Static<typeof View>

function viewOf(drill: DrillRow, servers: readonly DrillServerRow[]): View {
  const findings = drillFindings(drill)
  return {
    id: drill.id,
    name: drill.name,
    group: drill.group_id,
    status: drill.status,
    reason: drill.failure_detail,
    site: drill.az,
    vpc: drill.vpc,
    schedule: drill.schedule,
    delete_after: drill.auto_delete === 1,
    timeout_ms: drillOptions(drill).timeoutMs,
    began_at: drill.began_at === null ? null : timeOf(drill.began_at),
    given_up_at: drill.forced_at === null ? null : timeOf(drill.forced_at),
    created_at: timeOf(drill.created_at),
    updated_at: timeOf(drill.updated_at),
    servers: servers.map(({ instance, server, name, state, reason }) => ({
      instance,
      server,
      name,
      state,
      reason,
    })),
    findings:
      findings === null
        ? null
        : {
            moment: findings.moment,
            data_age_ms: findings.dataAgeMs,
            data_age_basis: findings.dataAgeBasis,
            production_stall_ms: findings.stallMs,
            steps: [...findings.steps],
            servers: [...findings.servers],
          },
  }
}

const ReportView = Type.Object({
  ordinal: Type.Integer({ description: 'Place in the chain of the installation.' }),
  drill: Type.String(),
  group: Type.String(),
  stage: Type.String({ description: 'ready, failed, ended' }),
  hash: Type.String(),
  created_at: Time,
})

const reportView = (entry: ReportEntry): Static<typeof ReportView> => ({
  ordinal: entry.ordinal,
  drill: entry.drill,
  group: entry.group_id,
  stage: entry.stage,
  hash: entry.hash,
  created_at: timeOf(entry.created_at),
})

/** Newest; whoever needs more asks for them by drill. */
const REPORTS_MAX = 1_000
const Id = Type.String({ minLength: 1, maxLength: 64 })

export function drillRoutes(app: Api, services: NativeServices): void {
  const { db } = services.store
  const Accepted = Type.Object({ drill: View, operation_id: Type.String() })
  const serversOf = async (drill: DrillRow) =>
    (await drillServers(db, [drill.id])).get(drill.id) ?? []

  app.post(
    '/api/v1/drills',
    {
      config: { audit: 'drill.create' },
      schema: describe(
        'Try a failover of a group: copies of its disks at the DR site, booted in a network of their own, and looked at',
        'drills',
        Accepted,
        {
          body: Type.Object({
            group: Id,
            name: Name,
            vpc: Type.Optional(Vpc),
            ...OptionsInput,
            delete_after: Type.Optional(
              Type.Boolean({ description: 'Delete it when its report is written.' }),
            ),
          }),
        },
        202,
      ),
    },
    async (request, reply) => {
      const { group, name, vpc = null, delete_after = false } = request.body
      const outcome = await requestDrill(services, {
        project: projectOf(request),
        user: principalOf(request).user.id,
        group,
        name,
        vpc,
        options: optionsOf(request.body),
        schedule: null,
        autoDelete: delete_after,
      })
      if (!outcome.ok) throw refusalOf(outcome.refusal)
      const { drill, operation } = outcome
      auditTarget(request, drill.id, { group })
      const view = viewOf(drill, await serversOf(drill))
      return await reply.code(202).send({ drill: view, operation_id: operation })
    },
  )

  app.get(
    '/api/v1/drills',
    {
      schema: describe(
        'List the drills of the project, newest first',
        'drills',
        Type.Object({ drills: Type.Array(View) }),
        { querystring: Type.Object({ group: Type.Optional(Id) }) },
      ),
    },
    async (request) => {
      const { group } = request.query
      const rows = (await listDrills(db, projectOf(request))).filter(
        (drill) => group === undefined || drill.group_id === group,
      )
      const servers = await drillServers(
        db,
        rows.map(({ id }) => id),
      )
      return { drills: rows.map((drill) => viewOf(drill, servers.get(drill.id) ?? [])) }
    },
  )

  app.get(
    '/api/v1/drills/:id',
    { schema: describe('Show a drill', 'drills', Type.Object({ drill: View }), { params: ById }) },
    async (request) => {
      const drill = await findDrill(db, projectOf(request), request.params.id)
      if (drill === undefined) throw refusalOf('DRILL_UNKNOWN')
      return { drill: viewOf(drill, await serversOf(drill)) }
    },
  )

  app.delete(
    '/api/v1/drills/:id',
    {
      config: { audit: 'drill.delete', emptyBody: true },
      schema: describe(
        'Delete a drill with its servers and disks, and ask the site whether anything is left',
        'drills',
        Accepted,
        {
          params: ById,
          querystring: Type.Object({
            force: Type.Optional(
              Type.Boolean({
                description:
                  'Do not wait for a silent site: the report says what may be left there, the group is free of the drill, and it is cleaned up when the site is heard.',
              }),
            ),
          }),
        },
        202,
      ),
    },
    async (request, reply) => {
      const { id } = request.params
      const { force = false } = request.query
      const outcome = await requestDrillDeletion(services, projectOf(request), id, force)
      if (!outcome.ok) throw refusalOf(outcome.refusal)
      auditTarget(request, id, { force })
      const { drill, operation } = outcome
      const view = viewOf(drill, await serversOf(drill))
      return await reply.code(202).send({ drill: view, operation_id: operation })
    },
  )

  // ---------------------------------------------------------------- reports

  const Report = Type.Unknown({
    description: 'The file as it was signed, see docs/formats/drill-report.md.',
  })

  app.get(
    '/api/v1/drills/:id/report',
    {
      schema: describe(
        'The newest report of a drill, also after its deletion; exactly the bytes that were signed',
        'drills',
        Report,
        { params: ById },
      ),
    },
    async (request, reply) => {
      const found = await findReport(db, projectOf(request), { drill: request.params.id })
      if (found === undefined) throw refusalOf('REPORT_UNKNOWN')
      return await reply.type('application/json').send(found.document)
    },
  )

  app.get(
    '/api/v1/drill-reports',
    {
      schema: describe(
        `The newest ${REPORTS_MAX} reports of the project`,
        'drills',
        Type.Object({ reports: Type.Array(ReportView) }),
        { querystring: Type.Object({ drill: Type.Optional(Id) }) },
      ),
    },
    async (request) => {
      const { drill } = request.query
      const wanted = drill === undefined ? {} : { drill }
      const rows = await listReports(db, projectOf(request), { ...wanted, limit: REPORTS_MAX })
      return { reports: rows.map(reportView) }
    },
  )

  app.get(
    '/api/v1/drill-reports/key',
    {
      schema: describe(
        'The public key that reports are checked with',
        'drills',
        Type.Object({ key: Type.String(), public_key: Type.String({ description: 'PEM' }) }),
        {},
      ),
    },
    async () => ({ key: services.reports.key(), public_key: services.reports.publicKey() }),
  )

  app.get(
    '/api/v1/drill-reports/:ordinal',
    {
      schema: describe(
        'A report by its place in the chain; exactly the bytes that were signed',
        'drills',
        Report,
        { params: Type.Object({ ordinal: Type.Integer({ minimum: 1, maximum: 2_147_483_647 }) }) },
      ),
    },
    async (request, reply) => {
      const { ordinal } = request.params
      const found = await findReport(db, projectOf(request), { ordinal })
      if (found === undefined) throw refusalOf('REPORT_UNKNOWN')
      return await reply.type('application/json').send(found.document)
    },
  )
}
