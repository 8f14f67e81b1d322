import Type from 'typebox'
import {
  backupRefusal,
  findItemOrOnly,
  requestBackup,
} from '#control/operations/definitions/backup/backup-requests.ts'
import { checkRestore } from '#control/operations/definitions/backup/restore-requests.ts'
import { policyOfServer } from '#control/resources/backup-plans.ts'
import { SERVER_TYPE } from '#control/resources/checkpoints.ts'
import { checkpointObject } from '../backup/codec.ts'
import { CSBS_CODES, type CsbsCode, invalid, refuse } from '../backup/errors.ts'
import {
  booleanMember,
  descriptionMember,
  envelope,
  given,
  isAnyUuid,
  isMembers,
  type Members,
  nameMember,
  objectList,
  tagsMember,
  uuidMember,
} from '../backup/input.ts'
import { backupCode, backupRefused, restoreCode } from '../backup/refusals.ts'
import type { BackupApiServices } from '../backup/services.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'

/* A backup of one server now, and whether servers could be backed up or restored. */

const BASE = '/v1/:project_id/providers/:provider_id/resources'
const Path = Type.Object({ provider_id: Type.String() })
const ServerPath = Type.Object({ provider_id: Type.String(), resource_id: Type.String() })
/** Of one request. */
const CHECKS_MAX = 1_000

export function resourceRoutes(app: Api, services: BackupApiServices): void {
  app.post(
    `${BASE}/:resource_id/action`,
    { schema: { params: ServerPath }, config: { audit: 'backup.create' } },
    async (request) => {
      const { provider_id: provider, resource_id: server } = request.params
      const members = envelope(request.body, 'protect')
      if (!isAnyUuid(provider)) throw invalid('provider_id: a UUID is expected.')
      if (!isAnyUuid(server)) throw invalid('resource_id: a UUID is expected.')
      if ((members['resource_type'] ?? SERVER_TYPE) !== SERVER_TYPE) throw refuse('CSBS.6003')
      const outcome = await requestBackup(services, {
        project: projectOf(request),
        server: server.toLowerCase(),
        provider: provider.toLowerCase(),
        name: nameMember(members, 'backup_name'),
        description: descriptionMember(members),
        incremental: booleanMember(members, 'incremental', true),
        tags: tagsMember(members),
        extraInfo: extraInfo(members),
      })
      if (!outcome.ok) throw backupRefused(outcome.refusal)
      auditTarget(request, outcome.checkpoint.id)
      return { checkpoint: checkpointObject(outcome.checkpoint) }
    },
  )

  app.post(
    `${BASE}/action`,
    { schema: { params: Path }, config: { role: 'reader', query: true } },
    async (request) => {
      const body = isMembers(request.body) ? request.body : {}
      const [name, ...others] = Object.keys(body)
      if (others.length > 0) throw invalid('The body has one member.')
      const project = projectOf(request)
      if (name === 'check_protectable') {
        return { protectable: await protectable(services, project, checksOf(body, name)) }
      }
      if (name === 'check_restorable') {
        return { restorable: await restorable(services, project, checksOf(body, name)) }
      }
      throw invalid('check_protectable or check_restorable is expected.')
    },
  )
}

function extraInfo(members: Members): unknown {
  if (!given(members, 'extra_info')) return {}
  if (!isMembers(members['extra_info'])) throw invalid('extra_info: an object is expected.')
  return members['extra_info']
}

function checksOf(body: Members, name: string): readonly Members[] {
  const list = objectList(body, name)
  if (list.length === 0 || list.length > CHECKS_MAX) {
    throw invalid(`${name}: 1 to ${CHECKS_MAX} entries.`)
  }
  return list
}

interface Verdict {
  readonly result: boolean
  readonly resource_id: string
  readonly resource_type: string
  readonly error_code?: CsbsCode
  readonly error_msg?: string
}

const verdict = (id: string, code: CsbsCode | null, note?: string): Verdict => ({
  result: code === null,
  resource_id: id,
  resource_type: SERVER_TYPE,
  ...(code === null
    ? note === undefined
      ? {}
      : { error_msg: note }
    : { error_code: code, error_msg: CSBS_CODES[code][1] }),
})

async function protectable(
  { store }: BackupApiServices,
  project: string,
  checks: readonly Members[],
): Promise<Verdict[]> {
  return await store.read(async (db) => {
    const verdicts: Verdict[] = []
    for (const check of checks) {
      const id = uuidMember(check, 'resource_id')
      if (check['resource_type'] !== SERVER_TYPE) {
        verdicts.push(verdict(id, 'CSBS.6003'))
        continue
      }
      const refusal = await backupRefusal(db, project, id)
      const policy = refusal === null ? await policyOfServer(db, id) : null
      const note = policy === null ? undefined : `The server belongs to policy ${policy}.`
      verdicts.push(verdict(id, refusal === null ? null : backupCode(refusal), note))
    }
    return verdicts
  })
}

async function restorable(
  { store }: BackupApiServices,
  project: string,
  checks: readonly Members[],
): Promise<Verdict[]> {
  return await store.read(async (db) => {
    const verdicts: Verdict[] = []
    for (const check of checks) {
      const target = isMembers(check['target']) ? check['target'] : {}
      const server = uuidMember(target, 'resource_id')
      if (target['resource_type'] !== SERVER_TYPE) {
        verdicts.push(verdict(server, 'CSBS.6013'))
        continue
      }
      const item = await findItemOrOnly(db, project, uuidMember(check, 'checkpoint_item_id'))
      if (item === undefined) throw refuse('CSBS.3001')
      const outcome = await checkRestore(db, {
        project,
        item: item.id,
        server,
        mapping: objectList(target, 'volumes').map((one) => ({
          backup: uuidMember(one, 'backup_id'),
          volume: uuidMember(one, 'volume_id'),
        })),
      })
      verdicts.push(verdict(server, outcome.ok ? null : restoreCode(outcome.refusal)))
    }
    return verdicts
  })
}
