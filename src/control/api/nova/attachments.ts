import Type from 'typebox'
import {
  requestAttachment,
  requestDetachment,
} from '#control/operations/definitions/servers/server-requests.ts'
import type { DiskView } from '#control/resources/server-views.ts'
import { inputWith } from '../compute/input.ts'
import type { ComputeServices } from '../compute/services.ts'
import { endOf } from '../compute/wait.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { attachmentObject, interfaceObject } from './codec.ts'
import { badRequest, notFound, notOffered, refuse } from './errors.ts'
import { refusalOf, ServerPath, serverView } from './lookup.ts'

/* Disks and NICs of a server.
 *
 * Presence means attached, absence means not attached: one provider polls on that alone. So a disk is shown from when the guest has it
 * until the guest has released it, and attaching answers when it is there.
 */
const AttachmentPath = Type.Object({ ...ServerPath.properties, volume_id: Type.String() })
const PortPath = Type.Object({ ...ServerPath.properties, port_id: Type.String() })

/** Longest wait for a guest to take a disk. Beyond it the answer is given, and the disk is shown as soon as it is there. */
const ATTACH_MS = 20_000

const input = inputWith(badRequest)

const isThere = ({ state }: DiskView): boolean => state !== 'attaching'

export function attachmentRoutes(app: Api, services: ComputeServices): void {
  const base = '/v2.1/:project_id/servers/:server_id/os-volume_attachments'

  app.get(base, { schema: { params: ServerPath } }, async (request) => {
    const view = await serverView(services, projectOf(request), request.params.server_id)
    return { volumeAttachments: view.disks.filter(isThere).map(attachmentObject) }
  })

  app.post(
    base,
    { schema: { params: ServerPath }, config: { audit: 'server.attach-volume' } },
    async (request) => {
      const project = projectOf(request)
      const { server_id: id } = request.params
      const wanted = input.members(request.body, 'volumeAttachment')
      const volume = input.text(wanted, 'volumeId')
      auditTarget(request, id, { volume })
      const outcome = await requestAttachment(services, project, id, {
        volume,
        device: input.filledText(wanted, 'device'),
        deleteWithServer: input.boolean(wanted, 'delete_on_termination', false),
      })
      if (!outcome.ok) throw refusalOf(outcome.refusal)
      const end = await endOf(services, outcome.operation, ATTACH_MS)
      if (end !== null && end.status !== 'succeeded') {
        throw refuse(
          409,
          `The disk could not be attached: ${end.failReason ?? 'no reason is known'}`,
        )
      }
      const { device } = outcome
      const deletes = input.boolean(wanted, 'delete_on_termination', false)
      return {
        volumeAttachment: {
          id: volume,
          volumeId: volume,
          serverId: id,
          device,
          tag: null,
          delete_on_termination: deletes,
        },
      }
    },
  )

  app.get(`${base}/:volume_id`, { schema: { params: AttachmentPath } }, async (request) => {
    const { server_id: id, volume_id: volume } = request.params
    const view = await serverView(services, projectOf(request), id)
    const disk = view.disks.find((one) => one.volume === volume && isThere(one))
    if (disk === undefined) throw notFound('The volume is not attached to the server.')
    return { volumeAttachment: attachmentObject(disk) }
  })

  app.delete(
    `${base}/:volume_id`,
    { schema: { params: AttachmentPath }, config: { audit: 'server.detach-volume' } },
    async (request, reply) => {
      const { server_id: id, volume_id: volume } = request.params
      auditTarget(request, id, { volume })
      const outcome = await requestDetachment(services, projectOf(request), id, { volume })
      if (!outcome.ok) throw refusalOf(outcome.refusal)
      return await reply.code(202).send()
    },
  )
}

export function interfaceRoutes(app: Api, services: ComputeServices): void {
  const base = '/v2.1/:project_id/servers/:server_id/os-interface'

  app.get(base, { schema: { params: ServerPath } }, async (request) => {
    const view = await serverView(services, projectOf(request), request.params.server_id)
    return { interfaceAttachments: view.nics.map((nic) => interfaceObject(view, nic)) }
  })

  app.get(`${base}/:port_id`, { schema: { params: PortPath } }, async (request) => {
    const { server_id: id, port_id: port } = request.params
    const view = await serverView(services, projectOf(request), id)
    const nic = view.nics.find((one) => one.port.id === port)
    if (nic === undefined) throw notFound('The server has no such port.')
    return { interfaceAttachment: interfaceObject(view, nic) }
  })

  app.post(base, { config: { audit: 'server.add-interface' } }, async () => {
    throw notOffered('Adding an interface to a server that exists')
  })
  app.delete(`${base}/:port_id`, { config: { audit: 'server.remove-interface' } }, async () => {
    throw notOffered('Removing an interface from a server')
  })
}
