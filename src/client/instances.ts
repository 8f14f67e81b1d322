import type { ApiSession } from './api.ts'
import { allPages } from './pages.ts'

/* Protected instances over the SDRS v1 interface: what the commands and the demo need of it. */

export interface SdrsInstance {
  readonly id: string
  readonly name: string
  readonly status: string
  readonly progress: number
  readonly server_group_id: string
  readonly source_server: string
  readonly target_server: string
  readonly priority_station: 'source' | 'target'
  readonly attachment: readonly { readonly replication: string; readonly device: string }[]
}

const INSTANCES = '/v1/{project}/protected-instances'
const id = encodeURIComponent

/** Each of the calls that change something settles with the id of a job. */
export async function createInstance(
  api: ApiSession,
  spec: { readonly name: string; readonly group: string; readonly server: string },
): Promise<string> {
  const { job_id } = await api.post<{ job_id: string }>(INSTANCES, {
    protected_instance: {
      name: spec.name,
      server_group_id: spec.group,
      server_id: spec.server,
    },
  })
  return job_id
}

export async function listInstances(
  api: ApiSession,
  group?: string,
): Promise<readonly SdrsInstance[]> {
  return await allPages(api, INSTANCES, 'protected_instances', [['server_group_id', group]])
}

export async function showInstance(api: ApiSession, instance: string): Promise<SdrsInstance> {
  const { protected_instance } = await api.get<{ protected_instance: SdrsInstance }>(
    `${INSTANCES}/${id(instance)}`,
  )
  return protected_instance
}

export async function deleteInstance(
  api: ApiSession,
  instance: string,
  deleteTarget: boolean,
): Promise<string> {
  const { job_id } = await api.delete<{ job_id: string }>(`${INSTANCES}/${id(instance)}`, {
    delete_target_server: deleteTarget,
    delete_target_eip: false,
  })
  return job_id
}

export async function attachPair(
  api: ApiSession,
  instance: string,
  pair: string,
  device: string,
): Promise<string> {
  const { job_id } = await api.post<{ job_id: string }>(
    `${INSTANCES}/${id(instance)}/attachreplication`,
    { replicationAttachment: { replication_id: pair, device } },
  )
  return job_id
}

export async function detachPair(api: ApiSession, instance: string, pair: string): Promise<string> {
  const { job_id } = await api.delete<{ job_id: string }>(
    `${INSTANCES}/${id(instance)}/detachreplication/${id(pair)}`,
  )
  return job_id
}
