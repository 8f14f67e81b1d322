import Type from 'typebox'
import { rebuildPair } from '#control/operations/definitions/protection/rebuild.ts'
import { PAIR_RESOURCE } from '#control/operations/definitions/protection/pairs.ts'
import { VERIFY_RESOURCE, verifyGroup } from '#control/operations/definitions/protection/verify.ts'
import { drAz, findGroup, findPair, pairsOfGroup, readGroup } from '#control/resources/groups.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import { VerifiedMember, VerifyRun, type VerifyStatus, VerifyTotals } from '#wire/site/verify.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { refuse } from './errors.ts'
import { unknownGroup } from './groups.ts'
import { ById, describe, nullable } from './route.ts'
import type { NativeServices } from './services.ts'
import { atSite } from './site-refusals.ts'
import { verifiedOf } from './verified.ts'

/* Verification of a group and rebuild of a copy: both are durable operations, and the agents say how far they are. */

/** Verifications under way at one time, over all projects: each occupies a place among the running operations for as long as it takes. */
const VERIFICATIONS_MAX = 16

const Accepted = Type.Object({ operation_id: Type.String() })

const View = Type.Object({
  group: Type.String(),
  site: nullable(Type.String({ description: 'Where the shown run takes, or took, place.' })),
  operation_id: nullable(Type.String({ description: 'The operation under way.' })),
  run: nullable(VerifyRun),
  pairs: Type.Array(VerifiedMember),
  totals: nullable(VerifyTotals),
})

export function verifyRoutes(app: Api, services: NativeServices): void {
  const { store, agents, operations, witness, commands } = services

  async function ownGroup(project: string, id: string): Promise<ProtectionGroupRow> {
    const row = await findGroup(store.db, project, id)
    if (row === undefined) throw unknownGroup()
    return row
  }

  /** The operation under way for the group, if there is one. */
  async function underWay(project: string, group: string): Promise<string | null> {
    const [found] = await operations.list({
      project,
      resourceType: VERIFY_RESOURCE,
      resourceId: group,
      status: ['pending', 'running'],
      limit: 1,
    })
    return found?.id ?? null
  }

  app.post(
    '/api/v1/groups/:id/verify',
    {
      config: { audit: 'group.verify', emptyBody: true },
      schema: describe(
        'Compare both sites of a group while it is used; with `repair`, send again what differs from the writing site',
        'groups',
        Accepted,
        {
          params: ById,
          body: Type.Object({
            repair: Type.Optional(Type.Boolean({ default: false })),
            rate_bytes: Type.Optional(
              Type.Integer({
                minimum: 0,
                maximum: 1_099_511_627_776,
                description: 'Bytes per second at most; 0: as fast as clients leave room for.',
              }),
            ),
          }),
        },
        202,
      ),
    },
    async (request, reply) => {
      const project = projectOf(request)
      const group = await ownGroup(project, request.params.id)
      const { repair = false, rate_bytes: rateBytes = 0 } = request.body
      const record = await witness.record(group.id)
      const pairs = await pairsOfGroup(store.db, group.id)
      if (record === null || record.state === 'closed' || !pairs.some((one) => one.in_session)) {
        throw notProtected()
      }
      const id = await store.write(async (tx) => {
        const counted = await tx
          .selectFrom('operations')
          .select(['resource_id'])
          .where('resource_type', '=', VERIFY_RESOURCE)
          .where('status', 'in', ['pending', 'running'])
          .execute()
        if (counted.some((one) => one.resource_id === group.id)) return 'running'
        if (counted.length >= VERIFICATIONS_MAX) return 'full'
        return await operations.submit(tx, verifyGroup, {
          project,
          resourceType: VERIFY_RESOURCE,
          resourceId: group.id,
          input: { rateBytes, repair },
          entities: { server_group_id: group.id, name: group.name },
        })
      })
      if (id === 'running') {
        throw refuse(
          409,
          'VERIFY_RUNNING',
          'Another verification of the group is under way.',
          'Wait for its end, or cancel it.',
        )
      }
      if (id === 'full') {
        throw refuse(
          503,
          'VERIFICATIONS_FULL',
          `${VERIFICATIONS_MAX} groups are being verified already.`,
          'Repeat when one of them has ended.',
        )
      }
      auditTarget(request, group.id, { repair })
      return await reply.code(202).send({ operation_id: id })
    },
  )

  app.get(
    '/api/v1/groups/:id/verify',
    {
      schema: describe(
        'Show the verification of a group that is under way, or the last one, with the ranges that differed',
        'groups',
        Type.Object({ verify: View }),
        { params: ById },
      ),
    },
    async (request) => {
      const project = projectOf(request)
      const group = await ownGroup(project, request.params.id)
      const record = await witness.record(group.id)
      if (record === null || record.state === 'closed') throw notProtected()
      const shown = await newestRun(group.id, [record.writer, record.replica])
      const { pairs } = verifiedOf(agents, group.id, [record.writer, record.replica])
      for (const member of shown?.status.members ?? []) {
        const known = pairs.get(member.pair)
        if ((known?.last_verified_at ?? 0) <= (member.last_verified_at ?? 0)) {
          pairs.set(member.pair, member)
        }
      }
      return {
        verify: {
          group: group.id,
          site: shown?.site ?? null,
          operation_id: await underWay(project, group.id),
          run: shown?.status.run ?? null,
          pairs: [...pairs.values()],
          totals: shown?.status.totals ?? null,
        },
      }
    },
  )

  /** The writer has the run under way; the last one may have been at the other site. Fails when neither site can be asked. */
  async function newestRun(
    session: string,
    sites: readonly string[],
  ): Promise<{ readonly site: string; readonly status: VerifyStatus } | null> {
    let found: { site: string; status: VerifyStatus } | null = null
    let failure: unknown = null
    let answers = 0
    for (const site of sites) {
      try {
        const status = await commands.command(site, 'session.verify_show', { session })
        answers++
        const newer = (status.run?.started_at ?? -1) > (found?.status.run?.started_at ?? -1)
        if (found === null || newer) found = { site, status }
      } catch (error) {
        failure ??= error
      }
    }
    if (answers === 0) await atSite(() => Promise.reject(failure as Error))
    return found
  }

  app.post(
    '/api/v1/groups/:id/verify/cancel',
    {
      config: { audit: 'group.verify-cancel', emptyBody: true },
      schema: describe('Cancel the verification of a group', 'groups', Accepted, {
        params: ById,
        body: Type.Object({}),
      }),
    },
    async (request) => {
      const project = projectOf(request)
      const group = await ownGroup(project, request.params.id)
      const id = await underWay(project, group.id)
      if (id === null) {
        throw refuse(
          409,
          'VERIFY_NOT_RUNNING',
          'No verification of the group is under way.',
          'Show the last one, or begin one.',
        )
      }
      auditTarget(request, group.id)
      await operations.cancel(id)
      return { operation_id: id }
    },
  )

  app.post(
    '/api/v1/pairs/:id/rebuild',
    {
      config: { audit: 'pair.rebuild', emptyBody: true },
      schema: describe(
        "Replace a pair's copy at the DR site by an empty one, which then gets a first copy; a good copy only with `force`",
        'pairs',
        Accepted,
        {
          params: ById,
          body: Type.Object({ force: Type.Optional(Type.Boolean({ default: false })) }),
        },
        202,
      ),
    },
    async (request, reply) => {
      const project = projectOf(request)
      const pair = await findPair(store.db, project, request.params.id)
      const group = pair === undefined ? undefined : await readGroup(store.db, pair.group_id)
      if (pair === undefined || group === undefined) {
        throw refuse(404, 'PAIR_UNKNOWN', 'There is no such pair.', 'List the pairs.')
      }
      if (group.status !== 'protected' || pair.in_session !== 1 || pair.status !== 'protected') {
        throw refuse(
          409,
          'PAIR_NOT_PROTECTED',
          `The group is ${group.status}, the pair ${pair.status}.`,
          'A copy is rebuilt while its group is protected: start the protection first.',
        )
      }
      const { force = false } = request.body
      const there = agents.session(group.id, drAz(group))?.status
      const copy = there?.members.find((one) => one.pair === pair.id)
      // The agent has the last word; this answers at once what it would answer a little later.
      // A torn one is all that there is as well, as long as nothing better has come.
      const holds = there?.consistent === true || there?.torn === true
      if (!force && holds && there.unfit === null && copy?.joined === true) {
        throw refuse(
          409,
          'COPY_IS_GOOD',
          'This copy is good, and rebuilding it would leave the group without one until the new copy is complete.',
          'Verify it, with repair if need be. To replace it all the same, repeat with force.',
        )
      }
      const id = await store.write((tx) =>
        operations.submit(tx, rebuildPair, {
          project,
          resourceType: PAIR_RESOURCE,
          resourceId: pair.id,
          input: { group: group.id, force },
          entities: { replication_pair_id: pair.id, name: pair.name },
        }),
      )
      auditTarget(request, pair.id, { force })
      return await reply.code(202).send({ operation_id: id })
    },
  )
}

const notProtected = () =>
  refuse(
    409,
    'GROUP_NOT_PROTECTED',
    'The group does not replicate, so there are no two sides to compare.',
    'Start its protection.',
  )
