import type { ApiSession } from './api.ts'
import { allPages } from './pages.ts'

/* Servers over the Nova v2.1 interface, and the images and networks that they are made of: what the commands and the demo need of it. */

export interface NovaServer {
  readonly id: string
  readonly name: string
  /** BUILD, ACTIVE, SHUTOFF, REBOOT, HARD_REBOOT, ERROR */
  readonly status: string
  readonly 'OS-EXT-STS:task_state': string | null
  readonly 'OS-EXT-AZ:availability_zone': string
  readonly flavor: { readonly id: string }
  readonly addresses: Readonly<Record<string, readonly { readonly addr: string }[]>>
  readonly 'os-extended-volumes:volumes_attached': readonly { readonly id: string }[]
  readonly fault?: { readonly message: string }
}

export interface NovaAttachment {
  readonly volumeId: string
  readonly device: string
}

const id = encodeURIComponent
const SERVERS = '/v2.1/{project}/servers'

export interface ServerSpec {
  readonly name: string
  readonly site: string
  readonly flavorId: string
  readonly imageId: string
  /** Left out: the default network of the project. */
  readonly networkId?: string
  /** GiB; left out: what the image needs. */
  readonly rootGib?: number
}

/** Settles with the id as soon as the server is being made. */
export async function createServer(api: ApiSession, spec: ServerSpec): Promise<string> {
  const root = {
    source_type: 'image',
    destination_type: 'volume',
    uuid: spec.imageId,
    boot_index: 0,
    volume_size: spec.rootGib,
    delete_on_termination: true,
  }
  const { server } = await api.post<{ server: { id: string } }>(SERVERS, {
    server: {
      name: spec.name,
      flavorRef: spec.flavorId,
      imageRef: spec.rootGib === undefined ? spec.imageId : '',
      availability_zone: spec.site,
      ...(spec.rootGib === undefined ? {} : { block_device_mapping_v2: [root] }),
      ...(spec.networkId === undefined ? {} : { networks: [{ uuid: spec.networkId }] }),
    },
  })
  return server.id
}

export async function showServer(api: ApiSession, server: string): Promise<NovaServer> {
  return (await api.get<{ server: NovaServer }>(`${SERVERS}/${id(server)}`)).server
}

export async function listServers(api: ApiSession): Promise<readonly NovaServer[]> {
  return await allPages(api, `${SERVERS}/detail`, 'servers')
}

export async function deleteServer(api: ApiSession, server: string): Promise<void> {
  await api.delete(`${SERVERS}/${id(server)}`)
}

const act = async (api: ApiSession, server: string, action: object): Promise<void> => {
  await api.post(`${SERVERS}/${id(server)}/action`, action)
}

export const startServer = (api: ApiSession, server: string): Promise<void> =>
  act(api, server, { 'os-start': null })

export const stopServer = (api: ApiSession, server: string): Promise<void> =>
  act(api, server, { 'os-stop': null })

export const rebootServer = (api: ApiSession, server: string, hard: boolean): Promise<void> =>
  act(api, server, { reboot: { type: hard ? 'HARD' : 'SOFT' } })

/** `lines`: that many from the end; left out: all that is kept. */
export async function readConsole(
  api: ApiSession,
  server: string,
  lines?: number,
): Promise<string> {
  const { output } = await api.post<{ output: string }>(`${SERVERS}/${id(server)}/action`, {
    'os-getConsoleOutput': lines === undefined ? {} : { length: lines },
  })
  return output
}

/** Settles when the server has the disk. */
export async function attachDisk(
  api: ApiSession,
  server: string,
  volume: string,
  device: string | null,
): Promise<NovaAttachment> {
  const { volumeAttachment } = await api.post<{ volumeAttachment: NovaAttachment }>(
    `${SERVERS}/${id(server)}/os-volume_attachments`,
    { volumeAttachment: { volumeId: volume, device } },
  )
  return volumeAttachment
}

/** Settles when the server was asked to release it; it is gone from `listDisks` when it has. */
export async function detachDisk(api: ApiSession, server: string, volume: string): Promise<void> {
  await api.delete(`${SERVERS}/${id(server)}/os-volume_attachments/${id(volume)}`)
}

export async function listDisks(
  api: ApiSession,
  server: string,
): Promise<readonly NovaAttachment[]> {
  const { volumeAttachments } = await api.get<{ volumeAttachments: NovaAttachment[] }>(
    `${SERVERS}/${id(server)}/os-volume_attachments`,
  )
  return volumeAttachments
}

export interface NovaFlavor {
  readonly id: string
  readonly vcpus: number
  /** MiB. */
  readonly ram: number
}

export async function listFlavors(api: ApiSession): Promise<readonly NovaFlavor[]> {
  const { flavors } = await api.get<{ flavors: NovaFlavor[] }>('/v2.1/{project}/flavors/detail')
  return flavors
}

export interface GlanceImage {
  readonly id: string
  readonly name: string
  readonly status: string
}

export async function listImages(api: ApiSession): Promise<readonly GlanceImage[]> {
  return await allPages(api, '/image/v2/images', 'images')
}

export async function listNetworks(
  api: ApiSession,
): Promise<readonly { readonly id: string; readonly name: string }[]> {
  const { networks } = await api.get<{ networks: { id: string; name: string }[] }>('/v2.0/networks')
  return networks
}
