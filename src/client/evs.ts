import type { ApiSession } from './api.ts'
import { allPages } from './pages.ts'

/* Volumes over the EVS v2 (Cinder) interface: what the commands and the demo need of it. */

export interface EvsVolume {
  readonly id: string
  readonly name: string | null
  readonly status: string
  /** GiB. */
  readonly size: number
  readonly availability_zone: string
  readonly created_at?: string
}

export async function createVolume(
  api: ApiSession,
  spec: { readonly name: string; readonly site: string; readonly sizeGib: number },
): Promise<EvsVolume> {
  const { volume } = await api.post<{ volume: EvsVolume }>('/v2/{project}/volumes', {
    volume: { name: spec.name, availability_zone: spec.site, size: spec.sizeGib },
  })
  return volume
}

export async function showVolume(api: ApiSession, id: string): Promise<EvsVolume> {
  const { volume } = await api.get<{ volume: EvsVolume }>(
    `/v2/{project}/volumes/${encodeURIComponent(id)}`,
  )
  return volume
}

export async function listVolumes(api: ApiSession): Promise<readonly EvsVolume[]> {
  return await allPages(api, '/v2/{project}/volumes/detail', 'volumes')
}

export async function extendVolume(api: ApiSession, id: string, sizeGib: number): Promise<void> {
  await api.post(`/v2/{project}/volumes/${encodeURIComponent(id)}/action`, {
    'os-extend': { new_size: sizeGib },
  })
}

export async function deleteVolume(api: ApiSession, id: string): Promise<void> {
  await api.delete(`/v2/{project}/volumes/${encodeURIComponent(id)}`)
}
