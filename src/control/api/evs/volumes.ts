import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { unreachable } from '#base/assert.ts'
import {
  type CreateVolumeRefusal,
  type NewVolumeRequest,
  requestVolumes,
} from '#control/operations/definitions/volumes/volume-creation.ts'
import {
  attachVolume,
  changeVolume,
  detachVolume,
  requestReadOnly,
  requestRetype,
  requestVolumeDeletion,
  requestVolumeExtension,
  reserveVolume,
  type RetypeRefusal,
  type VolumeRequestRefusal,
} from '#control/operations/definitions/volumes/volume-requests.ts'
import { findVolume, listVolumes, listVolumeTypes, metadataOf } from '#control/resources/volumes.ts'
import type { Api } from '../http/dialect.ts'
import type { Refusal } from '../http/refusal.ts'
import { auditTarget, originOf, principalOf, projectOf } from '../http/request.ts'
import { isVolumeId, type LinkBase, volumeCreated, volumeDetail, volumeSummary } from './codec.ts'
import { type EvsCode, refuse } from './errors.ts'
import {
  booleanMember,
  checkMetadataChange,
  checkNewMetadata,
  envelope,
  isMembers,
  type Members,
  metadataMember,
  sizeOf,
  textMember,
} from './input.ts'
import { nextLink, type Query, selectVolumes } from './lists.ts'
import type { EvsServices } from './services.ts'

/** Disks in the form of Cinder: `/v2/{project}/volumes`, and the same under v3. */
export const VolumePath = Type.Object({ project_id: Type.String(), volume_id: Type.String() })

export const linkBase = (
  request: FastifyRequest,
  services: EvsServices,
  version: string,
): LinkBase => ({
  origin: originOf(request, services),
  version,
  project: projectOf(request),
})

export function volumeRoutes(app: Api, services: EvsServices, version: 'v2' | 'v3'): void {
  const base = `/${version}/:project_id/volumes`
  const { store } = services
  /** A name in the place of an id is simply not found: clients try that first. */
  const volumeId = (id: string): string => {
    if (!isVolumeId(id)) throw refuse('EVS.5404')
    return id
  }

  app.post(base, { config: { audit: 'volume.create' } }, async (request, reply) => {
    const members = envelope(request.body, 'volume', 'EVS.1008', 'EVS.1009')
    const { count, ...wanted } = await newVolume(request, members, services)
    const outcome = await requestVolumes(services, wanted, count)
    if (!outcome.ok) throw createRefusal(outcome.refusal, 'cinder')
    const [first] = outcome.volumes
    auditTarget(request, outcome.volumes.map(({ volume }) => volume.id).join(','))
    void reply.code(202)
    return {
      volume:
        first === undefined
          ? null
          : volumeCreated(first.volume, linkBase(request, services, version)),
    }
  })

  const list =
    (show: (row: Parameters<typeof volumeSummary>[0], base: LinkBase) => object) =>
    async (request: FastifyRequest) => {
      const query = request.query as Query
      const rows = await listVolumes(store.db, projectOf(request))
      const { page, more } = selectVolumes(rows, query, services.sites)
      const links = linkBase(request, services, version)
      const last = page.at(-1)
      return {
        volumes: page.map((row) => show(row, links)),
        ...(more && last !== undefined
          ? { volumes_links: nextLink(request.url, links.origin, last) }
          : {}),
      }
    }
  app.get(base, list(volumeSummary))
  app.get(`${base}/detail`, list(volumeDetail))

  app.get(`${base}/:volume_id`, { schema: { params: VolumePath } }, async (request) => {
    const id = volumeId(request.params.volume_id)
    const row = await findVolume(store.db, projectOf(request), id)
    if (row === undefined) throw refuse('EVS.5404')
    return { volume: volumeDetail(row, linkBase(request, services, version)) }
  })

  app.put(
    `${base}/:volume_id`,
    { schema: { params: VolumePath }, config: { audit: 'volume.update' } },
    async (request) => {
      const id = volumeId(request.params.volume_id)
      auditTarget(request, id)
      const members = envelope(request.body, 'volume', 'EVS.1001', 'EVS.5400')
      const name = given(members, ['name', 'display_name'], 'EVS.1003')
      const description = given(members, ['description', 'display_description'], 'EVS.1004')
      const metadata = metadataMember(members)
      if (name === undefined && description === undefined && metadata === null) {
        throw refuse('EVS.1001')
      }
      const before = await findVolume(store.db, projectOf(request), id)
      if (before === undefined) throw refuse('EVS.5404')
      checkMetadataChange(metadataOf(before), metadata ?? {})
      const outcome = await changeVolume(services, projectOf(request), id, {
        ...(name === undefined ? {} : { name }),
        ...(description === undefined ? {} : { description }),
        ...(metadata === null ? {} : { metadata }),
      })
      if (!outcome.ok) throw refuse('EVS.5404')
      return { volume: volumeCreated(outcome.volume, linkBase(request, services, version)) }
    },
  )

  app.delete(
    `${base}/:volume_id`,
    { schema: { params: VolumePath }, config: { audit: 'volume.delete' } },
    async (request, reply) => {
      const id = volumeId(request.params.volume_id)
      auditTarget(request, id)
      const outcome = await requestVolumeDeletion(services, projectOf(request), id)
      if (!outcome.ok) throw volumeRefusal(outcome.refusal, 'cinder')
      return await reply.code(202).send()
    },
  )

  app.post(
    `${base}/:volume_id/action`,
    { schema: { params: VolumePath }, config: { audit: 'volume.action' } },
    async (request, reply) => {
      const body: unknown = request.body
      const keys = isMembers(body) ? Object.keys(body) : []
      const [key] = keys
      if (!isMembers(body) || key === undefined || keys.length !== 1) throw refuse('EVS.5400')
      const id = volumeId(request.params.volume_id)
      auditTarget(request, id, { action: key })
      const value = body[key] ?? {}
      if (!isMembers(value)) throw refuse('EVS.5400')
      const status = await act(services, projectOf(request), id, key, value)
      return await reply.code(status).send()
    },
  )
}

/** The metadata of one disk as a resource of its own, which the OpenStack command uses to set and unset properties. */
export function metadataRoutes(app: Api, services: EvsServices, version: 'v2' | 'v3'): void {
  const path = `/${version}/:project_id/volumes/:volume_id/metadata`
  const KeyPath = Type.Object({ volume_id: Type.String(), key: Type.String() })
  async function change(
    request: FastifyRequest,
    id: string,
    metadata: Readonly<Record<string, string | null>>,
  ) {
    auditTarget(request, id)
    checkMetadataChange(metadataOf(await find(request, id)), metadata)
    const outcome = await changeVolume(services, projectOf(request), id, { metadata })
    if (!outcome.ok) throw refuse('EVS.5404')
    return { metadata: metadataOf(outcome.volume) }
  }
  async function find(request: FastifyRequest, id: string) {
    const row = isVolumeId(id)
      ? await findVolume(services.store.db, projectOf(request), id)
      : undefined
    if (row === undefined) throw refuse('EVS.5404')
    return row
  }

  app.get(path, { schema: { params: VolumePath } }, async (request) => {
    return { metadata: metadataOf(await find(request, request.params.volume_id)) }
  })
  app.post(
    path,
    { schema: { params: VolumePath }, config: { audit: 'volume.metadata' } },
    async (request) => {
      const members = isMembers(request.body) ? request.body : {}
      const metadata = metadataMember(members)
      if (metadata === null) throw refuse('EVS.5400', 'metadata: missing.')
      return await change(request, request.params.volume_id, metadata)
    },
  )
  app.delete(
    `${path}/:key`,
    { schema: { params: KeyPath }, config: { audit: 'volume.metadata' } },
    async (request, reply) => {
      const { volume_id: id, key } = request.params
      if (!Object.hasOwn(metadataOf(await find(request, id)), key)) throw refuse('EVS.5404')
      await change(request, id, { [key]: null })
      return await reply.code(200).send()
    },
  )
}

/** Carries out one action; answers with the status of success. */
async function act(
  services: EvsServices,
  project: string,
  id: string,
  key: string,
  value: Members,
): Promise<number> {
  const done = (outcome: { ok: true } | { ok: false; refusal: VolumeRequestRefusal }) => {
    if (!outcome.ok) throw volumeRefusal(outcome.refusal, 'cinder')
    return 202
  }
  switch (key) {
    case 'os-extend': {
      if (value['new_size'] === undefined) throw refuse('EVS.1011')
      return done(await requestVolumeExtension(services, project, id, sizeOf(value['new_size'])))
    }
    case 'os-reserve':
      return done(await reserveVolume(services, project, id, 'reserve'))
    case 'os-unreserve':
      return done(await reserveVolume(services, project, id, 'unreserve'))
    case 'os-attach': {
      const server = value['instance_uuid']
      const device = value['mountpoint']
      if (typeof server !== 'string' || typeof device !== 'string') throw refuse('EVS.5400')
      const mode = value['mode'] ?? 'rw'
      if (mode !== 'rw' && mode !== 'ro') throw refuse('EVS.5400', 'mode: rw or ro.')
      const host = textMember(value, 'host_name', 'EVS.5400')
      return done(await attachVolume(services, project, id, { server, device, mode, host }))
    }
    case 'os-detach': {
      const attachment = value['attachment_id'] ?? null
      if (attachment !== null && typeof attachment !== 'string') throw refuse('EVS.5400')
      return done(await detachVolume(services, project, id, attachment))
    }
    case 'os-set_bootable': {
      const bootable = value['bootable']
      if (typeof bootable !== 'boolean') throw refuse('EVS.5400', 'bootable: true or false.')
      const outcome = await changeVolume(services, project, id, { bootable })
      if (!outcome.ok) throw refuse('EVS.5404')
      return 200
    }
    case 'os-update_readonly_flag': {
      const readOnly = value['readonly']
      if (typeof readOnly !== 'boolean') throw refuse('EVS.5400', 'readonly: true or false.')
      return done(await requestReadOnly(services, project, id, readOnly))
    }
    case 'os-retype': {
      // Nothing ever has to be moved: every type stands for the same storage.
      const outcome = await requestRetype(services, project, id, newTypeOf(value))
      if (!outcome.ok) throw retypeRefusal(outcome.refusal)
      return 202
    }
    default:
      throw refuse('EVS.5400', `${key} is not an action of this server.`)
  }
}

/** The service's own form of a change of type: answers with a job. */
export function retypeRoute(app: Api, services: EvsServices, version: 'v2' | 'v3'): void {
  app.post(
    `/${version}/:project_id/volumes/:volume_id/retype`,
    { schema: { params: VolumePath }, config: { audit: 'volume.retype' } },
    async (request, reply) => {
      const wanted = envelope(request.body, 'os-retype', 'EVS.5400', 'EVS.5400')
      const id = request.params.volume_id
      if (!isVolumeId(id)) throw refuse('EVS.5404')
      auditTarget(request, id)
      const outcome = await requestRetype(services, projectOf(request), id, newTypeOf(wanted))
      if (!outcome.ok) throw retypeRefusal(outcome.refusal)
      void reply.code(202)
      return { job_id: outcome.operation }
    },
  )
}

function newTypeOf(members: Members): string {
  const type = members['new_type']
  if (typeof type !== 'string' || type === '') throw refuse('EVS.1020')
  return type
}

function retypeRefusal(refusal: RetypeRefusal): Refusal {
  if (refusal === 'TYPE_UNKNOWN') return refuse('EVS.2070')
  if (refusal === 'TYPE_NOT_HIGHER') return refuse('EVS.2087')
  return volumeRefusal(refusal, 'cinder')
}

/** Undefined: not in the request; null: to be emptied. */
function given(
  members: Members,
  names: readonly string[],
  code: EvsCode,
): string | null | undefined {
  const name = names.find((one) => Object.hasOwn(members, one))
  return name === undefined ? undefined : textMember(members, name, code)
}

/** A creation request, checked member by member. */
export async function newVolume(
  request: FastifyRequest,
  members: Members,
  services: EvsServices,
): Promise<NewVolumeRequest & { readonly count: number }> {
  const sources = ['snapshot_id', 'imageRef', 'source_volid', 'backup_id'].filter(
    (name) => (members[name] ?? null) !== null && members[name] !== '',
  )
  if (sources.length > 1) throw refuse('EVS.1016')
  const source = sourceOf(members, sources[0])
  const name = textMember(
    members,
    (members['name'] ?? null) === null ? 'display_name' : 'name',
    'EVS.1003',
  )
  const description = textMember(members, 'description', 'EVS.1004')
  const count = members['count'] ?? 1
  if (typeof count !== 'number' || !Number.isInteger(count) || count < 1 || count > 100) {
    throw refuse('EVS.1021')
  }
  // Numbered names grow by five bytes.
  if (count > 1 && name !== null && Buffer.byteLength(name) > 250) throw refuse('EVS.1003')
  const az = members['availability_zone'] ?? null
  if (az !== null && typeof az !== 'string') throw refuse('EVS.1036')
  const size = members['size'] ?? null
  if (source !== null) refuseSpecial(members)
  const metadata = metadataMember(members) ?? {}
  checkNewMetadata(metadata)
  return {
    project: projectOf(request),
    user: principalOf(request).user.id,
    name,
    description,
    // A copy has the size of its source unless it is to be larger.
    sizeGb: size === null && source !== null ? null : sizeOf(size),
    source,
    type: await typeName(members['volume_type'] ?? null, services),
    az,
    metadata,
    multiattach:
      booleanMember(members, 'multiattach', 'EVS.1054') ||
      booleanMember(members, 'shareable', 'EVS.1054'),
    count,
  }
}

const SOURCES = {
  snapshot_id: ['snapshot', 'EVS.2045'],
  imageRef: ['image', 'EVS.2046'],
  source_volid: ['volume', 'EVS.5404'],
} as const

function sourceOf(members: Members, name: string | undefined): NewVolumeRequest['source'] {
  if (name === undefined) return null
  if (name !== 'snapshot_id' && name !== 'imageRef' && name !== 'source_volid') {
    throw refuse('EVS.1006')
  }
  const [kind, unknown] = SOURCES[name]
  const id = members[name]
  if (!isVolumeId(id)) throw refuse(unknown)
  return { kind, id }
}

/** What a disk with content cannot be. Null and false keys count as absent. */
function refuseSpecial(members: Members): void {
  const metadata = isMembers(members['metadata']) ? members['metadata'] : {}
  const asked = (key: string, off: string) => (metadata[key] ?? off) !== off
  if (asked('__system__encrypted', '0') || asked('hw:passthrough', 'false')) {
    throw refuse('EVS.1043')
  }
}

/** Types are named by name or id. */
async function typeName(value: unknown, services: EvsServices): Promise<string | null> {
  if (value === null || value === '') return null
  if (typeof value !== 'string') throw refuse('EVS.1020')
  const types = await listVolumeTypes(services.store.db)
  return types.find((type) => type.id === value)?.name ?? value
}

export function createRefusal(refusal: CreateVolumeRefusal, form: 'cinder' | 'native'): Refusal {
  switch (refusal) {
    case 'AZ_UNKNOWN':
      return refuse('EVS.1036')
    case 'TYPE_UNKNOWN':
      return refuse('EVS.2070')
    case 'SIZE_MISSING':
      return refuse('EVS.1010')
    case 'SIZE_BELOW_SOURCE':
      return refuse('EVS.1010', 'size: at least that of what the disk is made from.')
    case 'SNAPSHOT_UNKNOWN':
      return refuse('EVS.2045')
    case 'SNAPSHOT_NOT_AVAILABLE':
      return refuse('EVS.2043')
    case 'SOURCE_OTHER_AZ':
      return refuse('EVS.2054')
    case 'IMAGE_UNKNOWN':
      return refuse('EVS.2046')
    case 'SOURCE_VOLUME_UNKNOWN':
      return refuse('EVS.5404', 'source_volid: there is no such disk.')
    case 'SOURCE_VOLUME_NOT_READY':
      return refuse('EVS.5400', 'source_volid: the state of the disk does not allow a copy.')
    case 'QUOTA_VOLUMES':
      return refuse(form === 'cinder' ? 'EVS.5413' : 'EVS.1034')
    case 'QUOTA_GIGABYTES':
      return refuse(form === 'cinder' ? 'EVS.5413' : 'EVS.1042')
    default:
      return unreachable(refusal)
  }
}

export function volumeRefusal(refusal: VolumeRequestRefusal, form: 'cinder' | 'native'): Refusal {
  switch (refusal) {
    case 'VOLUME_UNKNOWN':
      return refuse('EVS.5404')
    case 'VOLUME_PAIRED':
      return refuse('EVS.2089')
    case 'VOLUME_DELETE_STATE':
      return refuse('EVS.1046')
    case 'VOLUME_EXTEND_STATE':
      return refuse('EVS.1048')
    case 'VOLUME_SHARED_EXTEND_STATE':
      return refuse('EVS.1065')
    case 'VOLUME_NOT_LARGER':
      return refuse('EVS.1015')
    case 'VOLUME_TOO_LARGE':
      return refuse('EVS.1010')
    case 'VOLUME_RETYPE_STATE':
      return refuse('EVS.5400', 'Only a disk that is available or in use gets another type.')
    case 'SERVER_STATE':
      return refuse('EVS.1066')
    case 'VOLUME_ATTACH_STATE':
      return refuse('EVS.5400', 'The state of the disk does not allow this.')
    case 'VOLUME_NOT_ATTACHED':
      return refuse('EVS.5400', 'The disk is not attached so.')
    case 'QUOTA_GIGABYTES':
      return refuse(form === 'cinder' ? 'EVS.5413' : 'EVS.1042')
    default:
      return unreachable(refusal)
  }
}
