import Type from 'typebox'
import {
  requestAttachment,
  requestDetachment,
} from '#control/operations/definitions/servers/server-requests.ts'
import type { DiskView } from '#control/resources/server-views.ts'
import { readVolumes } from '#control/resources/volumes.ts'
import { DISKS_MAX } from '#wire/site/servers.ts'
import { inputWith } from '../compute/input.ts'
import type { ComputeServices } from '../compute/services.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { blockDevice } from './codec.ts'
import { badRequest, refusalOf, refuse } from './errors.ts'
import { ServerPath, serverView } from './lookup.ts'

/** Disks of a server: shown, attached and detached by jobs. */
const DiskPath = Type.Object({ ...ServerPath.properties, volume_id: Type.String() })

const input = inputWith(badRequest)

export function diskRoutes(app: Api, services: ComputeServices): void {
  const base = '/v1/:project_id/cloudservers/:server_id'

  async function shown(disks: readonly DiskView[]) {
    const ids = disks.map(({ volume }) => volume)
    const volumes = await readVolumes(services.store.db, ids)
    return disks.map((disk) => blockDevice(disk, volumes.get(disk.volume)?.size_gb ?? 0))
  }

  app.get(`${base}/block_device`, { schema: { params: ServerPath } }, async (request) => {
    const view = await serverView(services, projectOf(request), request.params.server_id)
    const free = DISKS_MAX - view.disks.length
    return {
      attachableQuantity: { free_disk: free, free_blk: free, free_scsi: 0 },
      volumeAttachments: await shown(view.disks),
    }
  })

  app.get(`${base}/block_device/:volume_id`, { schema: { params: DiskPath } }, async (request) => {
    const { server_id: id, volume_id: volume } = request.params
    const view = await serverView(services, projectOf(request), id)
    const [disk] = await shown(view.disks.filter((one) => one.volume === volume))
    if (disk === undefined) throw refuse('Ecs.0404', 'The disk is not attached to the server.')
    return { volumeAttachment: disk }
  })

  app.post(
    `${base}/attachvolume`,
    { schema: { params: ServerPath }, config: { audit: 'server.attach-volume' } },
    async (request) => {
      const { server_id: id } = request.params
      const wanted = input.members(request.body, 'volumeAttachment')
      const volume = input.text(wanted, 'volumeId')
      auditTarget(request, id, { volume })
      const outcome = await requestAttachment(services, projectOf(request), id, {
        volume,
        device: input.filledText(wanted, 'device'),
        deleteWithServer: false,
      })
      if (!outcome.ok) throw refusalOf(outcome.refusal)
      return { job_id: outcome.operation }
    },
  )

  app.delete(
    `${base}/detachvolume/:volume_id`,
    { schema: { params: DiskPath }, config: { audit: 'server.detach-volume' } },
    async (request) => {
      const { server_id: id, volume_id: volume } = request.params
      auditTarget(request, id, { volume })
      const outcome = await requestDetachment(services, projectOf(request), id, { volume })
      if (!outcome.ok) throw refusalOf(outcome.refusal)
      return { job_id: outcome.operation }
    },
  )
}
