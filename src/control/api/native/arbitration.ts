import Type from 'typebox'
import { arrangeArbitration } from '#control/operations/definitions/arbitration.ts'
import { type PreflightRefusal, preflight } from '#control/operations/definitions/preflight.ts'
import { findGroup } from '#control/resources/groups.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import { describeGivenUp } from '#domain/failover.ts'
import { type GroupRefusal, otherStation } from '#domain/protection-group.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, principalOf, projectOf } from '../http/request.ts'
import { refuse } from './errors.ts'
import { unknownGroup } from './groups.ts'
import { ById, describe, nullable, Time, timeOf } from './route.ts'
import type { NativeServices } from './services.ts'

/* What an action on a group would do, how a group is arbitrated, and everything that ever happened to its ownership. */

const Mode = Type.Union([Type.Literal('witness'), Type.Literal('static-priority')])
const Arbitration = Type.Object({
  mode: Mode,
  preferred: Type.String({
    description: 'Site that may go on alone without the witness, under static-priority.',
  }),
})
const Preflight = Type.Object({
  action: Type.String(),
  accepted: Type.Boolean({ description: 'The action would be accepted as asked.' }),
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

  app.get(
    '/api/v1/groups/:id/preflight',
    {
      schema: describe(
        'Show what an action on a group would do, and what it needs; changes nothing',
        'groups',
        Type.Object({ preflight: Preflight }),
        {
          params: ById,
          querystring: Type.Object({
            action: Type.Union([
              Type.Literal('start'),
              Type.Literal('stop'),
              Type.Literal('reverse'),
              Type.Literal('failover'),
            ]),
            force: Type.Optional(Type.Boolean()),
            preferred_off: Type.Optional(Type.Boolean()),
          }),
        },
      ),
    },
    async (request) => {
      const group = await ownGroup(projectOf(request), request.params.id)
      const { action, force = false, preferred_off: preferredOff = false } = request.query
      const to = otherStation(group.station === 'source' ? 'source' : 'target')
      const found = await preflight(
        services,
        group,
        action === 'failover'
          ? { kind: action, force, preferredOff }
          : action === 'reverse'
            ? { kind: action, to }
            : { kind: action },
      )
      const { givenUp } = found
      return {
        preflight: {
          action,
          accepted: found.refusal === null,
          refusal:
            found.refusal === null
              ? null
              : { code: found.refusal, message: REFUSALS[found.refusal] },
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
        },
      }
    },
  )

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

const REFUSALS: Readonly<Record<GroupRefusal | PreflightRefusal, string>> = {
  GROUP_STATE: 'The state of the group does not allow it.',
  GROUP_WITHOUT_PAIRS: 'The group has no replication pair with two usable disks.',
  GROUP_BUSY_PAIRS: 'A replication pair of the group is being changed.',
  GROUP_BUSY_INSTANCES: 'A protected instance of the group is being changed.',
  GROUP_BROKEN_INSTANCES: 'A server of a protected instance is gone.',
  GROUP_PRODUCTION_RUNS: 'A protected server at the production site runs. Shut it down first.',
  GROUP_DR_RUNS: 'A protected server at the DR site runs. Shut it down first.',
  GROUP_HAS_INSTANCES: 'The group has protected instances.',
  GROUP_HAS_DRILLS: 'The group has drills.',
  GROUP_HAS_PAIRS: 'The group has replication pairs.',
  GROUP_STATION: 'That site is production already.',
  GROUP_COPYING: 'The DR side does not hold everything yet.',
  GROUP_LINK_DOWN: 'The replication link is down while production works.',
  GROUP_PRODUCTION_SILENT: 'Nothing is heard from the production site.',
  GROUP_PREFERRED_MAY_RUN:
    'The preferred site of this static-priority group, of which nothing is heard, may be writing alone.',
  DR_SITE_SILENT: 'Nothing is heard from the DR site.',
  DR_COPY_FAILED: 'The disk of the DR side has failed.',
  DR_SIDE_EMPTY: 'No disk of the group was ever copied to the DR side in full.',
  RECORD_IN_DOUBT: 'The witness grants nothing for the group until its record is settled.',
}
