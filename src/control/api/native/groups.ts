import Type, { type Static } from 'typebox'
import { assert } from '#base/assert.ts'
import { loadSyncViews } from '#control/operations/definitions/protection/sync-views.ts'
import {
  drAz,
  findGroup,
  listGroups,
  listPairs,
  pairsOfGroup,
  productionAz,
} from '#control/resources/groups.ts'
import { readOwnership } from '#control/resources/sync.ts'
import { doubtView } from '#control/sites/history.ts'
import { fromJson } from '#control/store/json.ts'
import { readMeta } from '#control/store/meta.ts'
import type { ProtectionGroupRow, ReplicationPairRow } from '#control/store/tables/resources.ts'
import type { OwnershipRow } from '#control/store/tables/sites.ts'
import { SessionStatus } from '#wire/site/witness.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, principalOf, projectOf } from '../http/request.ts'
import { refuse } from './errors.ts'
import { Age, ById, describe, nullable, rounded, Time, timeOf } from './route.ts'
import type { NativeServices } from './services.ts'
import { oldestOf, verifiedOf } from './verified.ts'

/* How well each group is protected, with the age of what is known: the record of the witness, and what either side last
 * said about its session. */

const AloneWork = Type.Object(
  {
    bytes: Type.Number({
      description: 'Payload bytes that the writer has written alone, at least.',
    }),
    since: Time,
  },
  { description: 'What the other site is known to lack.' },
)
const Record = Type.Object({
  epoch: Type.Integer(),
  state: Type.String(),
  writer: Type.String(),
  replica: Type.String(),
  mode: Type.String(),
  preferred: Type.String(),
  alone: nullable(AloneWork),
  trusted: Type.Boolean({ description: 'false: nothing is granted for the group, see `doubt`.' }),
  doubt: nullable(
    Type.Object({
      reason: Type.Union([Type.Literal('restored'), Type.Literal('agent_ahead')], {
        description:
          'restored: the database may have lost its end; both sites have to report, or somebody vouches. agent_ahead: a site acts under a higher epoch, after break-glass, and has to present its record.',
      }),
      awaits: Type.Array(Type.String(), { description: 'Sites whose word is awaited.' }),
      reported_epoch: nullable(Type.Integer()),
    }),
  ),
})
const Side = Type.Object({
  site: Type.String(),
  role: Type.Union([Type.Literal('production'), Type.Literal('dr')]),
  heard: Type.Boolean(),
  age_ms: Age,
  session: nullable(SessionStatus),
})
const GroupView = Type.Object({
  id: Type.String(),
  name: Type.String(),
  form: Type.String({
    description:
      'Who manages it: sdrs (protection group), evs (consistency group of the volume API), or lone (a replication pair of the volume API that is in no group).',
  }),
  status: Type.String(),
  sync: Type.String({
    description:
      'in_sync, copying, stalled, link_down, production_silent, settling or idle; in_sync is never claimed on old knowledge.',
  }),
  fault_level: Type.String(),
  age_ms: Age,
  record: nullable(Record),
  sides: Type.Array(Side),
  pairs: Type.Array(
    Type.Object({
      id: Type.String(),
      name: Type.String(),
      status: Type.String(),
      replication: Type.String(),
      progress: Type.Integer(),
      last_verified_at: nullable(Time),
      mismatched_bytes: Type.Number({
        description: 'What the last verification found different and did not repair.',
      }),
    }),
  ),
  last_verified_at: nullable(
    Type.String({
      format: 'date-time',
      description: 'Every replicating pair was verified then or later; null: one never was.',
    }),
  ),
  mismatched_bytes: Type.Number({
    description: 'Of all pairs, as their last verifications left it.',
  }),
  verification: nullable(
    Type.Object(
      { state: Type.String(), total_bytes: Type.Number(), compared_bytes: Type.Number() },
      { description: 'The one under way, or the last one.' },
    ),
  ),
})
type GroupView = Static<typeof GroupView>

export function groupRoutes(app: Api, services: NativeServices): void {
  const { agents, store } = services

  async function viewsOf(
    groups: readonly ProtectionGroupRow[],
    allPairs: readonly ReplicationPairRow[],
  ): Promise<GroupView[]> {
    const ids = groups.map((group) => group.id)
    const records = await readOwnership(store.db, ids)
    const { history_mark } = await readMeta(store.db)
    const views = await loadSyncViews(store.db, services, groups, allPairs)
    return groups.map((group) => {
      const record = records.get(group.id)
      const view = views.get(group.id)
      const verified = verifiedOf(agents, group.id, [group.source_az, group.target_az])
      const pairs = allPairs.filter((pair) => pair.group_id === group.id)
      const replicating = pairs.filter((pair) => pair.in_session === 1).map((pair) => pair.id)
      const oldest = oldestOf(verified, replicating)
      const leftOf = (pair: string) => verified.pairs.get(pair)?.mismatched_bytes ?? 0
      const timeOfPair = (pair: string) => verified.pairs.get(pair)?.last_verified_at ?? null
      const { run } = verified
      return {
        id: group.id,
        name: group.name,
        form: group.form,
        status: group.status,
        sync: view?.fact ?? 'idle',
        fault_level: view?.faultLevel ?? '0',
        age_ms: rounded(view?.ageMs),
        record:
          record === undefined
            ? null
            : {
                epoch: record.epoch,
                state: record.state,
                writer: record.writer,
                replica: record.replica,
                mode: record.mode,
                preferred: record.preferred,
                alone: aloneOf(record.alone),
                trusted: record.history_mark === history_mark,
                doubt: doubtOf(record, history_mark),
              },
        sides: [
          { site: productionAz(group), role: 'production' as const },
          { site: drAz(group), role: 'dr' as const },
        ].map(({ site, role }) => ({
          site,
          role,
          heard: agents.heard(site),
          age_ms: rounded(agents.at(site)?.ageMs),
          session: agents.session(group.id, site)?.status ?? null,
        })),
        pairs: pairs.map((pair) => {
          const at = timeOfPair(pair.id)
          return {
            id: pair.id,
            name: pair.name,
            status: pair.status,
            replication: view?.pairs.get(pair.id)?.status ?? 'inactive',
            progress: view?.pairs.get(pair.id)?.progress ?? pair.progress,
            last_verified_at: at === null ? null : timeOf(at),
            mismatched_bytes: leftOf(pair.id),
          }
        }),
        last_verified_at: oldest === null ? null : timeOf(oldest),
        mismatched_bytes: replicating.reduce((sum, pair) => sum + leftOf(pair), 0),
        verification:
          run === null
            ? null
            : {
                state: run.state,
                total_bytes: run.total_bytes,
                compared_bytes: run.compared_bytes,
              },
      }
    })
  }

  app.get(
    '/api/v1/groups',
    {
      schema: describe(
        'List the groups of the project, of every API, and how well each is protected',
        'groups',
        Type.Object({ groups: Type.Array(GroupView) }),
        {},
      ),
    },
    async (request) => {
      const project = projectOf(request)
      const groups = await listGroups(store.db, project)
      return { groups: await viewsOf(groups, await listPairs(store.db, project)) }
    },
  )
  app.get(
    '/api/v1/groups/:id',
    {
      schema: describe(
        'Show how well a protection group is protected',
        'groups',
        Type.Object({ group: GroupView }),
        { params: ById },
      ),
    },
    async (request) => {
      const project = projectOf(request)
      const row = await findGroup(store.db, project, request.params.id)
      const [group] =
        row === undefined ? [] : await viewsOf([row], await pairsOfGroup(store.db, row.id))
      if (group === undefined) throw unknownGroup()
      return { group }
    },
  )
  app.post(
    '/api/v1/groups/:id/vouch',
    {
      config: { role: 'admin', audit: 'group.vouch' },
      schema: describe(
        'State that a silent site of the group is off, so that the witness trusts its record without hearing it',
        'groups',
        Type.Object({ group: GroupView }),
        { params: ById, body: Type.Object({ site_off: Type.String({ maxLength: 64 }) }) },
      ),
    },
    async (request) => {
      const project = projectOf(request)
      const row = await findGroup(store.db, project, request.params.id)
      if (row === undefined) throw unknownGroup()
      const { site_off: site } = request.body
      if (site !== row.source_az && site !== row.target_az) {
        throw refuse(409, 'SITE_NOT_OF_GROUP', 'The group has no such site.', 'Show the group.')
      }
      if (agents.heard(site)) {
        throw refuse(
          409,
          'SITE_HEARD',
          'The site reports, so it is not off.',
          'Wait a few seconds: the record is trusted when both sites have reported.',
        )
      }
      if ((await services.witness.record(row.id)) === null) {
        throw refuse(409, 'GROUP_NEVER_STARTED', 'The group was never protected.', 'Start it.')
      }
      auditTarget(request, row.id, { site_off: site })
      await services.witness.trust(row.id, `user:${principalOf(request).user.id}`, site)
      const [group] = await viewsOf([row], await pairsOfGroup(store.db, row.id))
      assert(group !== undefined, 'a found group has a view')
      return { group }
    },
  )
}

function aloneOf(stored: string | null): Static<typeof AloneWork> | null {
  if (stored === null) return null
  const { bytes, since } = fromJson<{ bytes: number; since: number }>(stored)
  return { bytes, since: timeOf(since) }
}

function doubtOf(row: OwnershipRow, mark: string) {
  const view = doubtView(row, mark)
  if (view === null) return null
  const { reason, awaits, reportedEpoch } = view
  return { reason, awaits: [...awaits], reported_epoch: reportedEpoch }
}

export const unknownGroup = () =>
  refuse(404, 'GROUP_UNKNOWN', 'There is no such group.', 'List the groups.')
