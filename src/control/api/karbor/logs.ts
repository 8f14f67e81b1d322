import Type from 'typebox'
import { newId } from '#base/ids.ts'
import {
  VERIFICATION_RESOURCE,
  verifyCheckpoint,
} from '#control/operations/definitions/backup/checkpoint-verification.ts'
import { listLogs, listVerifications } from '#control/resources/backup-lists.ts'
import { findCheckpoint } from '#control/resources/checkpoints.ts'
import type { Queries } from '#control/store/store.ts'
import { fromJson, toJson } from '#control/store/json.ts'
import type { BackupLogRow, VerificationRow } from '#control/store/tables/checkpoints.ts'
import { invalid, refuse } from '../backup/errors.ts'
import { isAnyUuid, uuidMember } from '../backup/input.ts'
import { afterMarker, flagOf, linksOf, one, pageFrom, type Query } from '../backup/lists.ts'
import type { BackupApiServices } from '../backup/services.ts'
import { naiveOrNull } from '../backup/times.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, originOf, projectOf } from '../http/request.ts'
import { KARBOR_KEYS, onlyMembers, parametersMember } from './input.ts'

/* What was done, and whether it could be restored: logs of operations, and verifications of checkpoints. */

const LogPath = Type.Object({ operation_log_id: Type.String() })
const VerificationPath = Type.Object({ verification_id: Type.String() })

const readLog = async (db: Queries, id: string): Promise<BackupLogRow | undefined> =>
  await db.selectFrom('backup_logs').selectAll().where('id', '=', id).executeTakeFirst()

const readVerification = async (db: Queries, id: string): Promise<VerificationRow | undefined> =>
  await db.selectFrom('verifications').selectAll().where('id', '=', id).executeTakeFirst()

const logObject = (row: BackupLogRow) => ({
  id: row.id,
  operation_type: row.operation_type,
  checkpoint_id: row.checkpoint,
  plan_id: row.plan,
  provider_id: row.provider,
  restore_id: row.restore,
  scheduled_operation_id: row.schedule,
  status: row.status,
  started_at: naiveOrNull(row.started_at),
  ended_at: naiveOrNull(row.ended_at),
  error_info: row.error_info,
  extra_info: row.extra_info,
})

const verificationObject = (row: VerificationRow) => ({
  id: row.id,
  project_id: row.project,
  provider_id: row.provider,
  checkpoint_id: row.checkpoint,
  parameters: fromJson<Record<string, unknown>>(row.parameters),
  status: row.status,
  resources_status: fromJson<Record<string, string>>(row.resources_status),
  resources_reason: fromJson<Record<string, string>>(row.resources_reason),
})

export function logRoutes(app: Api, services: BackupApiServices): void {
  const { store } = services
  const base = '/v1/:project_id/operation_logs'

  app.get(base, async (request) => {
    const query = request.query as Query
    const page = pageFrom(query, KARBOR_KEYS)
    flagOf(query, 'all_tenants')
    const project = projectOf(request)
    const after = await afterMarker(page, project, (id) => readLog(store.db, id))
    const filters = {
      checkpoint: one(query, 'checkpoint_id'),
      plan: one(query, 'plan_id'),
      restore: one(query, 'restore_id'),
      status: one(query, 'status'),
    }
    const shown = await listLogs(store.db, project, filters, { ...page, after })
    return {
      operation_logs: shown.map(logObject),
      ...linksOf('operation_logs', request.url, originOf(request, services), page, shown),
    }
  })

  app.get(`${base}/:operation_log_id`, { schema: { params: LogPath } }, async (request) => {
    const { operation_log_id: id } = request.params
    const row = isAnyUuid(id) ? await readLog(store.db, id.toLowerCase()) : undefined
    if (row === undefined || row.project !== projectOf(request)) {
      throw refuse('CSBS.3001', 'There is no such operation log.')
    }
    return { operation_log: logObject(row) }
  })
}

export function verificationRoutes(app: Api, services: BackupApiServices): void {
  const { store, operations, clock } = services
  const base = '/v1/:project_id/verifications'

  app.get(base, async (request) => {
    const query = request.query as Query
    const page = pageFrom(query, KARBOR_KEYS)
    flagOf(query, 'all_tenants')
    const project = projectOf(request)
    const after = await afterMarker(page, project, (id) => readVerification(store.db, id))
    const filters = { status: one(query, 'status') }
    const shown = await listVerifications(store.db, project, filters, { ...page, after })
    return {
      verifications: shown.map(verificationObject),
      ...linksOf('verifications', request.url, originOf(request, services), page, shown),
    }
  })

  app.post(base, { config: { audit: 'backup.verify' } }, async (request) => {
    const body = onlyMembers(request.body, ['verification'])
    const members = onlyMembers(body['verification'], [
      'provider_id',
      'checkpoint_id',
      'parameters',
    ])
    const project = projectOf(request)
    const now = clock.wallMs()
    const row: VerificationRow = {
      id: newId(),
      project,
      provider: uuidMember(members, 'provider_id'),
      checkpoint: uuidMember(members, 'checkpoint_id'),
      parameters: toJson(parametersMember(members)),
      status: 'in_progress',
      resources_status: toJson({}),
      resources_reason: toJson({}),
      created_at: now,
      updated_at: now,
    }
    const refusal = await store.write(async (tx) => {
      const checkpoint = await findCheckpoint(tx, project, row.checkpoint)
      if (checkpoint === undefined) return 'CHECKPOINT_UNKNOWN'
      if (checkpoint.provider !== row.provider) return 'PROVIDER_OTHER'
      await tx.insertInto('verifications').values(row).execute()
      await operations.submit(tx, verifyCheckpoint, {
        project,
        resourceType: VERIFICATION_RESOURCE,
        resourceId: row.id,
        input: { checkpoint: checkpoint.id },
        entities: { verification_id: row.id, checkpoint_id: checkpoint.id },
      })
      return null
    })
    if (refusal === 'CHECKPOINT_UNKNOWN') throw refuse('CSBS.3001')
    if (refusal !== null) throw invalid('provider_id: not that of the checkpoint.')
    auditTarget(request, row.checkpoint)
    return { verification: verificationObject(row) }
  })

  app.get(`${base}/:verification_id`, { schema: { params: VerificationPath } }, async (request) => {
    const { verification_id: id } = request.params
    const row = isAnyUuid(id) ? await readVerification(store.db, id.toLowerCase()) : undefined
    if (row === undefined || row.project !== projectOf(request)) {
      throw refuse('CSBS.3001', 'There is no such verification.')
    }
    return { verification: verificationObject(row) }
  })
}
