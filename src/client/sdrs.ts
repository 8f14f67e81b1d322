import { type Clock, sleep } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { ApiSession } from './api.ts'
import { API_UNREACHABLE, JOB_FAILED, TIMED_OUT } from './faults.ts'
import { allPages } from './pages.ts'

/* Protection groups, pairs and jobs over the SDRS v1 interface: what the commands and the demo need of it. */

export interface SdrsDomain {
  readonly id: string
  readonly name: string
  readonly local_replication_cluster: { readonly availability_zone: string }
  readonly remote_replication_cluster: { readonly availability_zone: string }
}

export interface SdrsGroup {
  readonly id: string
  readonly name: string
  readonly status: string
  readonly progress: number
  readonly source_availability_zone: string
  readonly target_availability_zone: string
  readonly priority_station: 'source' | 'target'
  readonly replication_num: number
}

export interface SdrsPair {
  readonly id: string
  readonly name: string
  readonly status: string
  readonly replication_status: string | null
  readonly progress: number
  readonly server_group_id: string
  /** Source-site volume, comma, target-site volume. */
  readonly volume_ids: string
  readonly priority_station: 'source' | 'target'
  readonly fault_level: string
}

export interface SdrsJob {
  readonly job_id: string
  readonly job_type: string
  readonly status: 'INIT' | 'RUNNING' | 'SUCCESS' | 'FAIL'
  readonly begin_time: string | null
  readonly end_time: string | null
  readonly error_code: string | null
  readonly fail_reason: string | null
  readonly entities: Readonly<Record<string, unknown>>
}

const id = encodeURIComponent

export async function listDomains(api: ApiSession): Promise<readonly SdrsDomain[]> {
  const { domains } = await api.get<{ domains: SdrsDomain[] }>('/v1/{project}/active-domains')
  return domains
}

/** The networks of the project; a protection group must name one. */
export async function listVpcs(
  api: ApiSession,
): Promise<readonly { readonly id: string; readonly name: string }[]> {
  const { vpcs } = await api.get<{ vpcs: { id: string; name: string }[] }>('/v1/{project}/vpcs')
  return vpcs
}

export interface GroupSpec {
  readonly name: string
  readonly description?: string
  readonly source: string
  readonly target: string
  readonly domainId: string
  readonly vpcId: string
  /** A failover or reversal starts the servers of the new production site. Default false. */
  readonly startServers?: boolean
}

/** Each of the calls that change something settles with the id of a job. */
export async function createGroup(api: ApiSession, spec: GroupSpec): Promise<string> {
  return await submit(api, '/v1/{project}/server-groups', {
    server_group: {
      name: spec.name,
      ...(spec.description === undefined ? {} : { description: spec.description }),
      source_availability_zone: spec.source,
      target_availability_zone: spec.target,
      domain_id: spec.domainId,
      source_vpc_id: spec.vpcId,
      dr_type: 'migration',
      ...(spec.startServers === true ? { start_servers: true } : {}),
    },
  })
}

export async function listGroups(api: ApiSession): Promise<readonly SdrsGroup[]> {
  return await allPages(api, '/v1/{project}/server-groups', 'server_groups')
}

export async function showGroup(api: ApiSession, group: string): Promise<SdrsGroup> {
  const { server_group } = await api.get<{ server_group: SdrsGroup }>(
    `/v1/{project}/server-groups/${id(group)}`,
  )
  return server_group
}

export async function deleteGroup(api: ApiSession, group: string): Promise<string> {
  const { job_id } = await api.delete<{ job_id: string }>(
    `/v1/{project}/server-groups/${id(group)}`,
  )
  return job_id
}

/** Starts protection, or protects again after a failover. */
export const startGroup = (api: ApiSession, group: string): Promise<string> =>
  act(api, group, { 'start-server-group': {} })

export const stopGroup = (api: ApiSession, group: string): Promise<string> =>
  act(api, group, { 'stop-server-group': {} })

/**
 * `force`: also to a side that is not known to hold every write. `preferredOff`: the operator states that the preferred site of a
 * static-priority group is off.
 */
export const failOverGroup = (
  api: ApiSession,
  group: string,
  force = false,
  preferredOff = false,
): Promise<string> =>
  act(api, group, {
    'failover-server-group': {
      ...(force ? { force } : {}),
      ...(preferredOff ? { preferred_site_is_off: true } : {}),
    },
  })

export const reverseGroup = (
  api: ApiSession,
  group: string,
  station: 'source' | 'target',
): Promise<string> => act(api, group, { 'reverse-server-group': { priority_station: station } })

const act = (api: ApiSession, group: string, action: object): Promise<string> =>
  submit(api, `/v1/{project}/server-groups/${id(group)}/action`, action)

export async function createPair(
  api: ApiSession,
  spec: { readonly name: string; readonly group: string; readonly volume: string },
): Promise<string> {
  return await submit(api, '/v1/{project}/replications', {
    replication: { name: spec.name, server_group_id: spec.group, volume_id: spec.volume },
  })
}

export async function listPairs(api: ApiSession, group?: string): Promise<readonly SdrsPair[]> {
  const filter = [['server_group_id', group]] as const
  return await allPages(api, '/v1/{project}/replications', 'replications', filter)
}

export async function showPair(api: ApiSession, pair: string): Promise<SdrsPair> {
  const { replication } = await api.get<{ replication: SdrsPair }>(
    `/v1/{project}/replications/${id(pair)}`,
  )
  return replication
}

export async function deletePair(
  api: ApiSession,
  pair: SdrsPair,
  deleteTarget: boolean,
): Promise<string> {
  const { job_id } = await api.delete<{ job_id: string }>(
    `/v1/{project}/replications/${id(pair.id)}`,
    {
      replication: { server_group_id: pair.server_group_id, delete_target_volume: deleteTarget },
    },
  )
  return job_id
}

export const expandPair = (api: ApiSession, pair: string, sizeGib: number): Promise<string> =>
  submit(api, `/v1/{project}/replications/${id(pair)}/action`, {
    'extend-replication': { new_size: sizeGib },
  })

export const showJob = (api: ApiSession, job: string): Promise<SdrsJob> =>
  api.get<SdrsJob>(`/v1/{project}/jobs/${id(job)}`)

async function submit(api: ApiSession, path: string, body: object): Promise<string> {
  const { job_id } = await api.post<{ job_id: string }>(path, body)
  return job_id
}

export interface WaitOptions {
  readonly clock: Clock
  readonly limitMs: number
  /** Called with every state read, for progress. */
  readonly onState?: (state: unknown) => void
}

const POLL_MS = 200

/** Waits for a job's end and settles with it; throws JOB_FAILED with the job's own reason, TIMED_OUT when it takes longer. */
export async function waitForJob(
  api: ApiSession,
  job: string,
  options: WaitOptions,
): Promise<SdrsJob> {
  const ended = await waitFor(
    `job ${job}`,
    () => showJob(api, job),
    (state) => state.status === 'SUCCESS' || state.status === 'FAIL',
    options,
  )
  if (ended.status === 'FAIL') {
    const reason = `${ended.error_code ?? ''} ${ended.fail_reason ?? ''}`.trim()
    throw new Fault(JOB_FAILED, `job ${job} (${ended.job_type}): ${reason}`, { job })
  }
  return ended
}

/**
 * Reads a state again and again until it is as wanted. A control plane that does not answer for a while, because
 * it is just being restarted, is asked again; refusals end the wait.
 */
export async function waitFor<T>(
  what: string,
  read: () => Promise<T>,
  wanted: (state: T) => boolean,
  { clock, limitMs, onState }: WaitOptions,
): Promise<T> {
  const endMs = clock.bootMs() + limitMs
  let last = 'it was never answered'
  for (;;) {
    try {
      const state = await read()
      onState?.(state)
      if (wanted(state)) return state
      last = JSON.stringify(state)
    } catch (error) {
      if (!isFault(error, API_UNREACHABLE)) throw error
      last = error.message
    }
    if (clock.bootMs() > endMs) {
      throw new Fault(TIMED_OUT, `waiting ${limitMs / 1000} s for ${what}, last seen: ${last}`)
    }
    await sleep(clock, POLL_MS)
  }
}
