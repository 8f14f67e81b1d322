import Type from 'typebox'
import { arrangeArbitration } from '#control/operations/definitions/protection/arbitration.ts'
import { findGroup } from '#control/resources/groups.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, principalOf, projectOf } from '../http/request.ts'
import { refuse } from './errors.ts'
import { unknownGroup } from './groups.ts'
import { ById, describe, Time, timeOf } from './route.ts'
import type { NativeServices } from './services.ts'

/* How a group is arbitrated, and everything that ever happened to its ownership. */

const Mode = Type.Union([Type.Literal('witness'), Type.Literal('static-priority')])
const Arbitration = Type.Object({
  mode: Mode,
  preferred: Type.String({
    description: 'Site that may go on alone without the witness, under static-priority.',
  }),
})
const Change = Type.Object({
  at: Time,
  epoch: Type.Integer(),
  kind: Type.String(),
  state: Type.String(),
  writer: Type.String(),
  replica: Type.String(),
  asked_by: Type.String({ description: '`site:NAME`, `operation:ID` or `user:ID`.' }),
  attempt: Type.String(),
  incarnation: Type.String(),
})

export function arbitrationRoutes(app: Api, services: NativeServices): void {
  const { store, witness } = services

  async function ownGroup(project: string, id: string): Promise<ProtectionGroupRow> {
    const row = await findGroup(store.db, project, id)
    if (row === undefined) throw unknownGroup()
    return row
  }

  const Shown = Type.Object({ arbitration: Arbitration })
  app.get(
    '/api/v1/groups/:id/arbitration',
    { schema: describe('Show how a group is arbitrated', 'groups', Shown, { params: ById }) },
    async (request) => {
      const group = await ownGroup(projectOf(request), request.params.id)
      const record = await witness.record(group.id)
      if (record === null) throw neverMade()
      return { arbitration: { mode: record.mode, preferred: record.preferred } }
    },
  )
  app.put(
    '/api/v1/groups/:id/arbitration',
    {
      config: { audit: 'group.arbitration' },
      schema: describe(
        'Change how a group is arbitrated; while it is protected, in sync only',
        'groups',
        Shown,
        {
          params: ById,
          body: Type.Object({
            mode: Mode,
            preferred: Type.Optional(Type.String({ maxLength: 64 })),
          }),
        },
      ),
    },
    async (request) => {
      const group = await ownGroup(projectOf(request), request.params.id)
      const record = await witness.record(group.id)
      if (record === null) throw neverMade()
      const { mode, preferred = record.preferred } = request.body
      if (preferred !== group.source_az && preferred !== group.target_az) {
        throw refuse(409, 'SITE_NOT_OF_GROUP', 'The group has no such site.', 'Show the group.')
      }
      auditTarget(request, group.id, { mode, preferred })
      const after = await arrangeArbitration(
        services,
        group.id,
        { mode, preferred },
        `user:${principalOf(request).user.id}`,
      )
      return { arbitration: { mode: after.mode, preferred: after.preferred } }
    },
  )

  app.get(
    '/api/v1/groups/:id/history',
    {
      schema: describe(
        'List every change of the ownership of a group, newest first',
        'groups',
        Type.Object({ changes: Type.Array(Change) }),
        {
          params: ById,
          querystring: Type.Object({
            limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1_000, default: 100 })),
          }),
        },
      ),
    },
    async (request) => {
      const group = await ownGroup(projectOf(request), request.params.id)
      const rows = await store.db
        .selectFrom('ownership_changes')
        .select(['at', 'epoch', 'kind', 'state', 'writer', 'replica'])
        .select(['asked_by', 'attempt', 'incarnation'])
        .where('session', '=', group.id)
        .orderBy('epoch', 'desc')
        .orderBy('at', 'desc')
        .limit(request.query.limit ?? 100)
        .execute()
      return {
        changes: rows.map(({ at, ...row }) => ({ at: timeOf(at), ...row })),
      }
    },
  )
}

const neverMade = () =>
  refuse(409, 'GROUP_NEVER_STARTED', 'The group is being created.', 'Repeat in a moment.')
