import { requestVolumes } from '#control/operations/definitions/volumes/volume-creation.ts'
import {
  changeVolume,
  requestVolumeDeletion,
  requestVolumeExtension,
} from '#control/operations/definitions/volumes/volume-requests.ts'
import { tagsByResource, tagsOf } from '#control/resources/tags.ts'
import { findVolume, listVolumes } from '#control/resources/volumes.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, originOf, projectOf } from '../http/request.ts'
import { isVolumeId, nativeVolume, volumeSummary } from './codec.ts'
import { refuse } from './errors.ts'
import { envelope, sizeOf, textMember } from './input.ts'
import { nextLink, type Query, selectVolumes } from './lists.ts'
import type { EvsServices } from './services.ts'
import { tagMap } from './tags.ts'
import { createRefusal, linkBase, newVolume, VolumePath, volumeRefusal } from './volumes.ts'

/** Disks in the service's own form: `/v2/{project}/cloudvolumes`. Changes answer with a job. */
export function cloudVolumeRoutes(app: Api, services: EvsServices): void {
  const { store } = services
  const volumeId = (id: string): string => {
    if (!isVolumeId(id)) throw refuse('EVS.1002')
    return id
  }

  // One client creates under v2.1, another under v3; both mean this.
  for (const version of ['v2', 'v2.1', 'v3']) {
    app.post(
      `/${version}/:project_id/cloudvolumes`,
      { config: { audit: 'volume.create' } },
      async (request, reply) => {
        const members = envelope(request.body, 'volume', 'EVS.1008', 'EVS.1009')
        const { count, ...wanted } = await newVolume(request, members, services)
        const tags = tagMap(members)
        const outcome = await requestVolumes(services, { ...wanted, tags }, count)
        if (!outcome.ok) throw createRefusal(outcome.refusal, 'native')
        const ids = outcome.volumes.map(({ volume }) => volume.id)
        auditTarget(request, ids.join(','))
        void reply.code(version === 'v2.1' ? 202 : 200)
        return { job_id: outcome.operation, order_id: null, volume_ids: ids }
      },
    )
  }

  for (const version of ['v2', 'v2.1']) {
    const base = `/${version}/:project_id/cloudvolumes`
    app.post(
      `${base}/:volume_id/action`,
      { schema: { params: VolumePath }, config: { audit: 'volume.extend' } },
      async (request, reply) => {
        const action = envelope(request.body, 'os-extend', 'EVS.1011', 'EVS.5400')
        const id = volumeId(request.params.volume_id)
        auditTarget(request, id)
        if (action['new_size'] === undefined) throw refuse('EVS.1011')
        const size = sizeOf(action['new_size'])
        const outcome = await requestVolumeExtension(services, projectOf(request), id, size)
        if (!outcome.ok) throw volumeRefusal(outcome.refusal, 'native')
        void reply.code(version === 'v2' ? 200 : 202)
        return { job_id: outcome.operation, order_id: null }
      },
    )
    app.get(base, async (request) => {
      const rows = await listVolumes(store.db, projectOf(request))
      const { page, more } = selectVolumes(rows, request.query as Query, services.sites)
      const last = page.at(-1)
      return {
        volumes: page.map((row) => volumeSummary(row, linkBase(request, services, 'v2'))),
        ...(more && last !== undefined
          ? { volumes_links: nextLink(request.url, originOf(request, services), last) }
          : {}),
      }
    })
    app.get(`${base}/detail`, async (request) => {
      const rows = await listVolumes(store.db, projectOf(request))
      const query = request.query as Query
      const { page, more, count } = selectVolumes(rows, query, services.sites)
      const tags = await tagsByResource(store.db, projectOf(request), 'volume')
      const last = page.at(-1)
      return {
        volumes: page.map((row) =>
          nativeVolume(row, linkBase(request, services, 'v2'), tags.get(row.id) ?? []),
        ),
        count,
        ...(more && last !== undefined
          ? { volumes_links: nextLink(request.url, originOf(request, services), last) }
          : {}),
      }
    })
    app.put(
      `${base}/:volume_id`,
      { schema: { params: VolumePath }, config: { audit: 'volume.update' } },
      async (request) => {
        const id = volumeId(request.params.volume_id)
        auditTarget(request, id)
        const members = envelope(request.body, 'volume', 'EVS.1001', 'EVS.5400')
        const name = textMember(members, 'name', 'EVS.1003')
        const description = textMember(members, 'description', 'EVS.1004')
        if (name === null && description === null) throw refuse('EVS.1007')
        const outcome = await changeVolume(services, projectOf(request), id, {
          ...(name === null ? {} : { name }),
          ...(description === null ? {} : { description }),
        })
        if (!outcome.ok) throw refuse('EVS.5404')
        const tags = await tagsOf(store.db, 'volume', id)
        return nativeVolume(outcome.volume, linkBase(request, services, 'v2'), tags)
      },
    )
    app.delete(
      `${base}/:volume_id`,
      { schema: { params: VolumePath }, config: { audit: 'volume.delete' } },
      async (request) => {
        const id = volumeId(request.params.volume_id)
        auditTarget(request, id)
        const outcome = await requestVolumeDeletion(services, projectOf(request), id)
        if (!outcome.ok) throw volumeRefusal(outcome.refusal, 'native')
        return { job_id: outcome.operation }
      },
    )
  }

  for (const path of [
    'v2/:project_id/cloudvolumes',
    'v2.1/:project_id/cloudvolumes',
    'v2/:project_id/os-vendor-volumes',
    'v2.1/:project_id/os-vendor-volumes',
    'v3/:project_id/os-vendor-volumes',
  ]) {
    app.get(`/${path}/:volume_id`, { schema: { params: VolumePath } }, async (request) => {
      const id = volumeId(request.params.volume_id)
      const row = await findVolume(store.db, projectOf(request), id)
      if (row === undefined) throw refuse('EVS.5404')
      const tags = await tagsOf(store.db, 'volume', id)
      return { volume: nativeVolume(row, linkBase(request, services, 'v2'), tags) }
    })
  }
}
