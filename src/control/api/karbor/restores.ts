import Type from 'typebox'
import { findItemOrOnly } from '#control/operations/definitions/backup/backup-requests.ts'
import { requestRestore } from '#control/operations/definitions/backup/restore-requests.ts'
import { listRestores } from '#control/resources/backup-lists.ts'
import { findCheckpoint, SERVER_TYPE } from '#control/resources/checkpoints.ts'
import { readRestore } from '#control/resources/restores.ts'
import { restoreObject } from '../backup/codec.ts'
import { invalid, refuse } from '../backup/errors.ts'
import {
  booleanMember,
  envelope,
  isAnyUuid,
  isMembers,
  type Members,
  objectList,
  textMember,
  uuidMember,
} from '../backup/input.ts'
import { afterMarker, flagOf, linksOf, one, pageFrom, type Query } from '../backup/lists.ts'
import { restoreRefused } from '../backup/refusals.ts'
import type { BackupApiServices } from '../backup/services.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, originOf, projectOf } from '../http/request.ts'
import { KARBOR_KEYS, parametersMember } from './input.ts'

/* Restores: of one backup to named disks, or of a whole checkpoint to where it came from. */

const BASE = '/v1/:project_id/restores'
const RestorePath = Type.Object({ restore_id: Type.String() })

export function restoreRoutes(app: Api, services: BackupApiServices): void {
  const { store } = services

  app.post(BASE, { config: { audit: 'backup.restore' } }, async (request) => {
    const members = envelope(request.body, 'restore')
    const project = projectOf(request)
    const parameters = members['parameters'] ?? {}
    if (!isMembers(parameters)) throw invalid('parameters: an object is expected.')
    const provider = uuidMember(members, 'provider_id')
    const checkpoint = uuidMember(members, 'checkpoint_id')
    const known = await findCheckpoint(store.db, project, checkpoint)
    if (known === undefined) throw refuse('CSBS.3001')
    if (known.provider !== provider) throw invalid('provider_id: not that of the checkpoint.')
    const outcome = await requestRestore(services, {
      project,
      provider,
      checkpoint,
      target:
        'checkpoint_item_id' in parameters ? await targetOf(services, project, parameters) : null,
      parameters: 'checkpoint_item_id' in parameters ? parameters : parametersMember(members),
      restoreTarget: textMember(members, 'restore_target', 1_024),
    })
    if (!outcome.ok) throw restoreRefused(outcome.refusal)
    auditTarget(request, outcome.restore.id, { checkpoint: outcome.restore.checkpoint })
    return { restore: restoreObject(outcome.restore) }
  })

  app.get(BASE, async (request) => {
    const query = request.query as Query
    const page = pageFrom(query, KARBOR_KEYS)
    flagOf(query, 'all_tenants')
    const project = projectOf(request)
    const after = await afterMarker(page, project, (id) => readRestore(store.db, id))
    const filters = { status: one(query, 'status') }
    const shown = await listRestores(store.db, project, filters, { ...page, after })
    return {
      restores: shown.map(restoreObject),
      ...linksOf('restores', request.url, originOf(request, services), page, shown),
    }
  })

  app.get(`${BASE}/:restore_id`, { schema: { params: RestorePath } }, async (request) => {
    const { restore_id: id } = request.params
    const row = isAnyUuid(id) ? await readRestore(store.db, id.toLowerCase()) : undefined
    if (row === undefined || row.project !== projectOf(request)) {
      throw refuse('CSBS.3001', 'There is no such restore.')
    }
    return { restore: restoreObject(row) }
  })
}

async function targetOf({ store }: BackupApiServices, project: string, parameters: Members) {
  const { targets } = parameters
  if (!isMembers(targets)) throw invalid('targets: an object is expected.')
  if ((targets['resource_type'] ?? SERVER_TYPE) !== SERVER_TYPE) throw refuse('CSBS.6013')
  const item = await findItemOrOnly(store.db, project, uuidMember(parameters, 'checkpoint_item_id'))
  if (item === undefined) throw refuse('CSBS.3001')
  return {
    item: item.id,
    server: uuidMember(targets, 'server_id'),
    mapping: objectList(targets, 'volumes').map((one) => ({
      backup: uuidMember(one, 'backup_id'),
      volume: uuidMember(one, 'volume_id'),
    })),
    powerOn: booleanMember(parameters, 'power_on', true),
  }
}
