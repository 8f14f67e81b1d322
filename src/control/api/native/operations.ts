import Type from 'typebox'
import type { OperationView } from '#control/operations/engine.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, principalOf, projectOf } from '../http/request.ts'
import { refuse } from './errors.ts'
import { ById, describe, nullable, Time, timeOf } from './route.ts'
import type { NativeServices } from './services.ts'

/* Durable operations, events and the state backup. */

const Status = Type.Union([
  Type.Literal('pending'),
  Type.Literal('running'),
  Type.Literal('succeeded'),
  Type.Literal('failed'),
  Type.Literal('cancelled'),
])
const View = Type.Object({
  id: Type.String(),
  kind: Type.String(),
  resource_type: Type.String(),
  resource_id: Type.String(),
  parent: nullable(Type.String()),
  status: Status,
  step: nullable(Type.String()),
  progress: Type.Number(),
  error_code: nullable(Type.String()),
  fail_reason: nullable(Type.String()),
  failed_step: nullable(Type.String()),
  entities: Type.Record(Type.String(), Type.Unknown(), {
    description:
      'What it made or touched; of a failover also `given_up`, of a start what is copied (`copy`).',
  }),
  created_at: Time,
  begin_at: nullable(Time),
  end_at: nullable(Time),
})

const viewOf = (one: OperationView) => ({
  id: one.id,
  kind: one.kind,
  resource_type: one.resourceType,
  resource_id: one.resourceId,
  parent: one.parent,
  status: one.status,
  step: one.step,
  progress: one.progress,
  error_code: one.errorCode,
  fail_reason: one.failReason,
  failed_step: one.failedStep,
  entities: { ...one.entities },
  created_at: timeOf(one.createdAt),
  begin_at: one.beginAt === null ? null : timeOf(one.beginAt),
  end_at: one.endAt === null ? null : timeOf(one.endAt),
})

export function operationRoutes(app: Api, services: NativeServices): void {
  const { operations } = services

  const Filter = Type.Object({
    status: Type.Optional(Status),
    resource_type: Type.Optional(Type.String()),
    resource_id: Type.Optional(Type.String()),
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1_000, default: 100 })),
    after: Type.Optional(
      Type.String({ description: 'Id of the last operation of the page before.' }),
    ),
  })
  app.get(
    '/api/v1/operations',
    {
      schema: describe(
        'List operations of the project, newest first',
        'operations',
        Type.Object({ operations: Type.Array(View) }),
        { querystring: Filter },
      ),
    },
    async (request) => {
      const { status, resource_type, resource_id, limit, after } = request.query
      const found = await operations.list({
        project: projectOf(request),
        limit: limit ?? 100,
        ...(status === undefined ? {} : { status: [status] }),
        ...(resource_type === undefined ? {} : { resourceType: resource_type }),
        ...(resource_id === undefined ? {} : { resourceId: resource_id }),
        ...(after === undefined ? {} : { after }),
      })
      return { operations: found.map(viewOf) }
    },
  )

  async function ownOperation(project: string, id: string): Promise<OperationView> {
    const found = await operations.get(id)
    if (found !== null && found.project === project) return found
    throw refuse(
      404,
      'OPERATION_UNKNOWN',
      'There is no such operation in the project.',
      'List the operations.',
    )
  }
  const One = Type.Object({ operation: View })
  app.get(
    '/api/v1/operations/:id',
    { schema: describe('Show an operation', 'operations', One, { params: ById }) },
    async (request) => ({
      operation: viewOf(await ownOperation(projectOf(request), request.params.id)),
    }),
  )
  app.post(
    '/api/v1/operations/:id/cancel',
    {
      config: { audit: 'operation.cancel', emptyBody: true },
      schema: describe('Cancel an operation where its present step allows it', 'operations', One, {
        params: ById,
        body: Type.Object({}),
      }),
    },
    async (request) => {
      const project = projectOf(request)
      const { id } = request.params
      await ownOperation(project, id)
      auditTarget(request, id)
      await operations.cancel(id)
      return { operation: viewOf(await ownOperation(project, id)) }
    },
  )
}

/** What happened, newest first: for the console, and for whoever wants to know why. */
export function eventRoutes(app: Api, services: NativeServices): void {
  const { db } = services.store
  const Page = Type.Object({
    since: Type.Optional(
      Type.Integer({ minimum: 0, description: 'Only events after this time, ms since 1970.' }),
    ),
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1_000, default: 100 })),
  })

  const Event = Type.Object({
    at: Time,
    kind: Type.String({ description: 'ownership.MOVE or operation.STATUS' }),
    resource_type: Type.String(),
    resource_id: Type.String(),
    text: Type.String(),
  })
  app.get(
    '/api/v1/events',
    {
      schema: describe(
        'List changes of ownership and ended operations of the project, newest first',
        'events',
        Type.Object({ events: Type.Array(Event) }),
        { querystring: Page },
      ),
    },
    async (request) => {
      const project = projectOf(request)
      const { since = 0, limit = 100 } = request.query
      const changes = await db
        .selectFrom('ownership_changes')
        .innerJoin('protection_groups', 'protection_groups.id', 'ownership_changes.session')
        .selectAll('ownership_changes')
        .where('protection_groups.project', '=', project)
        .where('at', '>', since)
        .orderBy('at', 'desc')
        .orderBy('epoch', 'desc')
        .limit(limit)
        .execute()
      const ended = await db
        .selectFrom('operations')
        .selectAll()
        .where('project', '=', project)
        .where('end_at', '>', since)
        .orderBy('end_at', 'desc')
        .limit(limit)
        .execute()
      const events = [
        ...changes.map((one) => ({
          ms: one.at,
          kind: `ownership.${one.kind}`,
          resource_type: 'group',
          resource_id: one.session,
          text: `Epoch ${one.epoch}: ${one.state}, ${one.writer} writes; asked by ${one.asked_by}.`,
        })),
        ...ended.map((one) => ({
          ms: one.end_at ?? 0,
          kind: `operation.${one.status}`,
          resource_type: one.resource_type,
          resource_id: one.resource_id,
          text: `${one.kind}${one.fail_reason === null ? '' : `: ${one.fail_reason}`}`,
        })),
      ]
      return {
        events: events
          .toSorted((a, b) => b.ms - a.ms)
          .slice(0, limit)
          .map(({ ms, ...event }) => ({ at: timeOf(ms), ...event })),
      }
    },
  )

  const AuditEntry = Type.Object({
    id: Type.String(),
    at: Time,
    project_id: nullable(Type.String()),
    actor: Type.String(),
    source: nullable(Type.String()),
    action: Type.String(),
    target: nullable(Type.String()),
    result: Type.Integer(),
  })
  app.get(
    '/api/v1/audit',
    {
      config: { access: 'administrator' },
      schema: describe(
        'List who changed what, newest first',
        'events',
        Type.Object({ entries: Type.Array(AuditEntry) }),
        { querystring: Page },
      ),
    },
    async (request) => {
      const { since = 0, limit = 100 } = request.query
      const rows = await db
        .selectFrom('audit')
        .selectAll()
        .where('at', '>', since)
        .orderBy('at', 'desc')
        .orderBy('id')
        .limit(limit)
        .execute()
      return {
        entries: rows.map((row) => ({
          id: row.id,
          at: timeOf(row.at),
          project_id: row.project,
          actor: row.actor,
          source: row.source,
          action: row.action,
          target: row.target,
          result: row.result,
        })),
      }
    },
  )
}

export function stateRoutes(app: Api, services: NativeServices): void {
  const Backup = Type.Object({
    file: Type.String({ description: 'On the disk of the control plane.' }),
    rows: Type.Integer(),
    bytes: Type.Integer(),
    incarnation: Type.String(),
  })
  app.post(
    '/api/v1/state/backup',
    {
      config: { access: 'administrator', audit: 'state.backup', emptyBody: true },
      schema: describe(
        'Write the whole state to a file beside the database',
        'state',
        Backup,
        { body: Type.Object({}) },
        201,
      ),
    },
    async (request, reply) => {
      const done = await services.stateBackup.run()
      auditTarget(request, done.file, { by: principalOf(request).user.name })
      return await reply.code(201).send(done)
    },
  )
}
