import Type from 'typebox'
import {
  admitReplica,
  registerReplica,
} from '#control/operations/definitions/backup/replica-arrivals.ts'
import { hasReplica } from '#control/operations/definitions/backup/replica-presence.ts'
import { letReplicasGo } from '#control/operations/definitions/backup/replica-retention.ts'
import {
  AdmissionAnswer,
  AdmissionRequest,
  PresenceAnswer,
  ReplicaAnswer,
  ReplicaDescription,
  RetentionAnswer,
  RetentionRequest,
} from '#wire/replica.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { refuse } from './errors.ts'
import { describe } from './route.ts'
import type { NativeServices } from './services.ts'

/* Copies of backups that another region sends to a project of this one. The id is that of the sender's replication record. */

const Path = Type.Object({
  id: Type.String({ pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' }),
})
/** Of the checkpoints that are made of copies. */
const PROVIDER = 'fc4d5750-22e7-4798-8a46-f48f62c4c1da'

export function replicaRoutes(app: Api, services: NativeServices): void {
  app.post(
    '/api/v1/replicas/:id/presence',
    {
      schema: describe('Tell whether a copy is still there', 'backups', PresenceAnswer, {
        params: Path,
        body: Type.Object({}),
      }),
      config: { role: 'reader', query: true, emptyBody: true },
    },
    async (request) => ({
      present: await hasReplica(services.store.db, projectOf(request), request.params.id),
    }),
  )

  app.post(
    '/api/v1/replicas/retention',
    {
      schema: describe(
        'Delete what a policy of another region does not keep of the copies that its schedule sent',
        'backups',
        RetentionAnswer,
        { body: RetentionRequest },
      ),
      config: { audit: 'replica.retention' },
    },
    async (request) => {
      const { policy, source_region } = request.body
      auditTarget(request, policy, { source_region })
      return { removed: await letReplicasGo(services, projectOf(request), request.body) }
    },
  )

  app.post(
    '/api/v1/replicas/:id/admission',
    {
      schema: describe('Let a copy of a backup in', 'backups', AdmissionAnswer, {
        params: Path,
        body: AdmissionRequest,
      }),
      config: { audit: 'replica.admit' },
    },
    async (request) => {
      const { id } = request.params
      auditTarget(request, id, { source_region: request.body.source_region })
      const { store, agents, clock, commands: sites } = services
      const outcome = await admitReplica(
        { store, agents, clock, sites },
        projectOf(request),
        id,
        request.body,
      )
      if (!outcome.ok) throw outcome.refusal === 'BACKUPS_FULL' ? full() : notHere()
      return { admission: outcome.admission }
    },
  )

  app.put(
    '/api/v1/replicas/:id',
    {
      schema: describe('Make a copy that has arrived a backup', 'backups', ReplicaAnswer, {
        params: Path,
        body: ReplicaDescription,
      }),
      config: { audit: 'replica.register' },
    },
    async (request) => {
      const { id } = request.params
      auditTarget(request, id, { source_region: request.body.source_region })
      const project = projectOf(request)
      const made = await registerReplica(
        { ...services, sites: services.commands, provider: PROVIDER },
        project,
        id,
        request.body,
      )
      if (!made.ok) throw made.refusal === 'BACKUPS_FULL' ? full() : notHere()
      return { replica: { checkpoint_id: made.checkpoint, checkpoint_item_id: made.item } }
    },
  )
}

const full = () =>
  refuse(
    409,
    'BACKUPS_FULL',
    'The quota of backups of this project is used up.',
    'Delete some, or raise the quota.',
  )

const notHere = () =>
  refuse(
    409,
    'REPLICA_NOT_HERE',
    'No copy that was let in for this project under this id has arrived as this checkpoint.',
    'Ask for admission, send the copy, and name the checkpoint that it became.',
  )
