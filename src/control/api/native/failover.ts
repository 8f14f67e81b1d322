import Type from 'typebox'
import {
  isPaused,
  requestPausedFailover,
} from '#control/operations/definitions/protection/paused-failover-requests.ts'
import { requestGroupCommand } from '#control/operations/definitions/protection/group-requests.ts'
import { preflight } from '#control/operations/definitions/recovery/preflight.ts'
import {
  finding,
  type PreflightCode,
} from '#control/operations/definitions/recovery/preflight-words.ts'
import { findGroup, groupForm } from '#control/resources/groups.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { refuse } from './errors.ts'
import { unknownGroup } from './groups.ts'
import { ById, describe, timeOf } from './route.ts'
import type { NativeServices } from './services.ts'

/* The failover of a group of whichever API, a paused one included: by the decisions that those APIs go by, refused in the words of the preflight. */

export function failoverRoutes(app: Api, services: NativeServices): void {
  const { store } = services
  app.post(
    '/api/v1/groups/:id/failover',
    {
      config: { audit: 'group.failover', emptyBody: true },
      schema: describe(
        'Make the DR side of a group writable; a paused group only by force, with what its DR disks held when it was paused',
        'groups',
        Type.Object({ operation_id: Type.String() }),
        {
          params: ById,
          body: Type.Object({
            force: Type.Optional(
              Type.Boolean({ description: 'Accept the loss of what the DR side does not hold.' }),
            ),
            preferred_off: Type.Optional(
              Type.Boolean({
                description: 'You state that the preferred site of a static-priority group is off.',
              }),
            ),
          }),
        },
        202,
      ),
    },
    async (request, reply) => {
      const { force = false, preferred_off: preferredOff = false } = request.body
      const { id } = request.params
      const project = projectOf(request)
      auditTarget(request, id, { force, preferred_off: preferredOff })
      const group = await findGroup(store.db, project, id)
      if (group === undefined) throw unknownGroup()
      if (groupForm(group) === 'lone') throw pairAlone()
      const accepted = (operation: string) => reply.code(202).send({ operation_id: operation })
      if (await store.read((db) => isPaused(db, group))) {
        const outcome = await requestPausedFailover(services, project, id, { force, preferredOff })
        if (outcome.ok) return await accepted(outcome.operation)
        throw refusalOf(outcome.refusal, outcome.pausedAt ?? null)
      }
      const command = { kind: 'failover', force, preferredOff } as const
      // What would make it fail half way is said before anything is begun.
      const { refusal } = await preflight(services, group, command)
      if (refusal !== null) throw refusalOf(refusal)
      const outcome = await requestGroupCommand(services, project, id, command)
      if (!outcome.ok) throw refusalOf(outcome.refusal)
      return await accepted(outcome.operation)
    },
  )
}

/** `pausedAt`: wall clock, ms. */
function refusalOf(code: PreflightCode, pausedAt: number | null = null) {
  if (code === 'GROUP_UNKNOWN') return unknownGroup()
  const { message, action } = finding(code)
  const dated = code === 'FORCE_NEEDED' && pausedAt !== null
  const text = dated ? `The group is paused since ${timeOf(pausedAt)}. ${message}` : message
  return refuse(409, code, text, action)
}

const pairAlone = () =>
  refuse(
    409,
    'PAIR_ALONE',
    'A pair that is in no group has no failover.',
    'Delete the pair: that frees its DR disk, with everything that was acknowledged while both disks were equal.',
  )
