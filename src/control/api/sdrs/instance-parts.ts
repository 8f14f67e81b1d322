import Type from 'typebox'
import {
  type AddNicRefusal,
  type AttachPairRefusal,
  type DeleteNicRefusal,
  type DetachPairRefusal,
  requestInstanceResize,
  requestNic,
  requestNicDeletion,
  requestPairAttachment,
  requestPairDetachment,
  type ResizeRefusal,
} from '#control/operations/definitions/instances/instance-changes.ts'
import { NICS_MAX } from '#wire/site/servers.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { optional } from '../http/validation.ts'
import { isId } from './codec.ts'
import { absentInBody, type SdrsCode } from './errors.ts'
import { instanceIdOf, STATE_CODES } from './instances.ts'
import type { SdrsContext } from './services.ts'

/** Disks, NICs and flavors of one protected instance. */
const INSTANCE = '/v1/:project_id/protected-instances/:protected_instance_id'
const Path = Type.Object({ project_id: Type.String(), protected_instance_id: Type.String() })
const DetachPath = Type.Object({
  project_id: Type.String(),
  protected_instance_id: Type.String(),
  replication_id: Type.String(),
})
const AttachBody = Type.Object({
  replicationAttachment: Type.Object({ replication_id: Type.String(), device: Type.String() }),
})
const NicBody = Type.Object({
  subnet_id: Type.String(),
  security_groups: optional(Type.Array(Type.Object({ id: Type.String() }))),
  ip_address: optional(Type.String()),
})
const DeleteNicBody = Type.Object({ nic_id: Type.String() })
const ResizeBody = Type.Object({
  resize: Type.Object({
    flavorRef: optional(Type.String()),
    production_flavorRef: optional(Type.String()),
    dr_flavorRef: optional(Type.String()),
  }),
})

export function instancePartRoutes(app: Api, { services, refuse }: SdrsContext): void {
  const instanceId = instanceIdOf(refuse)

  app.post(
    `${INSTANCE}/attachreplication`,
    { schema: { params: Path, body: AttachBody }, config: { audit: 'protected-instance.attach' } },
    async (request) => {
      const id = instanceId(request.params.protected_instance_id)
      const { replication_id: pair, device } = request.body.replicationAttachment
      auditTarget(request, id, { pair, device })
      if (!isId(pair)) throw refuse('SDRS.0213')
      const wanted = { pair: pair.toLowerCase(), device }
      const outcome = await requestPairAttachment(services, projectOf(request), id, wanted)
      if (outcome.ok) return { job_id: outcome.operation }
      if (outcome.refusal === 'PAIR_UNKNOWN') throw absentInBody('SDRS.1608')
      if (outcome.refusal === 'DEVICE_WRONG') {
        throw refuse(
          'SDRS.0201',
          'The device must be one of /dev/vda to /dev/vdz, or the same with sd or xvd.',
        )
      }
      throw refuse(ATTACH_CODES[outcome.refusal])
    },
  )

  app.delete(
    `${INSTANCE}/detachreplication/:replication_id`,
    { schema: { params: DetachPath }, config: { audit: 'protected-instance.detach' } },
    async (request) => {
      const id = instanceId(request.params.protected_instance_id)
      const { replication_id: pair } = request.params
      auditTarget(request, id, { pair })
      if (!isId(pair)) throw refuse('SDRS.0213')
      const project = projectOf(request)
      const outcome = await requestPairDetachment(services, project, id, pair.toLowerCase())
      if (!outcome.ok) throw refuse(DETACH_CODES[outcome.refusal])
      return { job_id: outcome.operation }
    },
  )

  app.post(
    `${INSTANCE}/nic`,
    { schema: { params: Path, body: NicBody }, config: { audit: 'protected-instance.add-nic' } },
    async (request) => {
      const id = instanceId(request.params.protected_instance_id)
      const { subnet_id, ip_address, security_groups } = request.body
      auditTarget(request, id, { subnet: subnet_id })
      if (!isId(subnet_id)) throw refuse('SDRS.1335')
      const outcome = await requestNic(services, projectOf(request), id, {
        subnet: subnet_id.toLowerCase(),
        address: ip_address || null,
        securityGroups: (security_groups ?? []).map((group) => group.id),
      })
      if (outcome.ok) return { job_id: outcome.operation }
      if (outcome.refusal === 'GROUP_UNKNOWN') {
        throw refuse('SDRS.0201', 'There is no such security group.')
      }
      if (outcome.refusal === 'TOO_MANY_NICS') {
        throw refuse('SDRS.1340', `A server has at most ${NICS_MAX} NICs. Delete one first.`)
      }
      throw refuse(NIC_CODES[outcome.refusal])
    },
  )

  app.post(
    `${INSTANCE}/nic/delete`,
    {
      schema: { params: Path, body: DeleteNicBody },
      config: { audit: 'protected-instance.delete-nic' },
    },
    async (request) => {
      const id = instanceId(request.params.protected_instance_id)
      const { nic_id: nic } = request.body
      auditTarget(request, id, { nic })
      if (!isId(nic)) throw refuse('SDRS.0223')
      const project = projectOf(request)
      const outcome = await requestNicDeletion(services, project, id, nic.toLowerCase())
      if (!outcome.ok) throw refuse(DELETE_NIC_CODES[outcome.refusal])
      return { job_id: outcome.operation }
    },
  )

  app.post(
    `${INSTANCE}/resize`,
    { schema: { params: Path, body: ResizeBody }, config: { audit: 'protected-instance.resize' } },
    async (request) => {
      const id = instanceId(request.params.protected_instance_id)
      const { flavorRef, production_flavorRef, dr_flavorRef } = request.body.resize
      const both = flavorRef || null
      const production = both ?? (production_flavorRef || null)
      const dr = both ?? (dr_flavorRef || null)
      auditTarget(request, id, { production, dr })
      if (production === null && dr === null) {
        throw refuse('SDRS.0201', 'At least one flavor must be given.')
      }
      const wanted = { production, dr }
      const outcome = await requestInstanceResize(services, projectOf(request), id, wanted)
      if (!outcome.ok) throw refuse(RESIZE_CODES[outcome.refusal])
      return { job_id: outcome.operation }
    },
  )
}

const ATTACH_CODES = {
  ...STATE_CODES,
  PAIR_STATE: 'SDRS.1601',
  PAIR_OTHER_GROUP: 'SDRS.1611',
  PAIR_ATTACHED: 'SDRS.1603',
  DEVICE_TAKEN: 'SDRS.1603',
  TOO_MANY_DISKS: 'SDRS.1603',
  DISK_NOT_AVAILABLE: 'SDRS.1801',
  SERVER_BUSY: 'SDRS.1328',
} as const satisfies Record<Exclude<AttachPairRefusal, 'PAIR_UNKNOWN' | 'DEVICE_WRONG'>, SdrsCode>

const DETACH_CODES = {
  ...STATE_CODES,
  // The published code of every group state that forbids an action.
  INSTANCE_GROUP_STATE: 'SDRS.1002',
  PAIR_UNKNOWN: 'SDRS.1608',
  PAIR_NOT_ATTACHED: 'SDRS.1604',
  PAIR_STATE: 'SDRS.1601',
  SYSTEM_DISK_IN_USE: 'SDRS.1316',
} as const satisfies Record<DetachPairRefusal, SdrsCode>

const NIC_CODES = {
  ...STATE_CODES,
  SUBNET_UNKNOWN: 'SDRS.1335',
  SUBNET_FULL: 'SDRS.1334',
  ADDRESS_OUTSIDE: 'SDRS.0219',
  ADDRESS_TAKEN: 'SDRS.1334',
} as const satisfies Record<Exclude<AddNicRefusal, 'GROUP_UNKNOWN' | 'TOO_MANY_NICS'>, SdrsCode>

const DELETE_NIC_CODES = {
  ...STATE_CODES,
  NIC_UNKNOWN: 'SDRS.1310',
  NIC_PRIMARY: 'SDRS.1311',
} as const satisfies Record<DeleteNicRefusal, SdrsCode>

const RESIZE_CODES = {
  ...STATE_CODES,
  PRODUCTION_FLAVOR_UNSUITABLE: 'SDRS.1356',
  DR_FLAVOR_UNSUITABLE: 'SDRS.1353',
  SERVER_RUNS: 'SDRS.1316',
  FLAVOR_SAME: 'SDRS.1341',
} as const satisfies Record<ResizeRefusal, SdrsCode>
