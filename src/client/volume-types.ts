import type { ApiSession } from './api.ts'

/** `base + per_gb * size`, and never more than `max` (null: no end). */
export interface Rate {
  readonly base: number
  readonly per_gb: number
  readonly max: number | null
}

/** Null: no limit. */
export interface TypeLimits {
  readonly iops: Rate | null
  readonly mib_per_second: Rate | null
}

export interface VolumeType {
  readonly id: string
  readonly name: string
  readonly rank: number
  readonly limits: TypeLimits
  /** What providers usually set for a type of this name. */
  readonly usual: TypeLimits
}

export async function listVolumeTypes(api: ApiSession): Promise<readonly VolumeType[]> {
  const { volume_types } = await api.get<{ volume_types: VolumeType[] }>('/api/v1/volume-types')
  return volume_types
}

export const setVolumeType = (
  api: ApiSession,
  name: string,
  limits: TypeLimits,
): Promise<VolumeType> =>
  api.put<VolumeType>(`/api/v1/volume-types/${encodeURIComponent(name)}`, limits)
