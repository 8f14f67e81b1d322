import { pairStatus } from '#control/resources/groups.ts'
import { type AttachedPair, instanceStatus, type PairGist } from '#control/resources/instances.ts'
import { fromJson } from '#control/store/json.ts'
import type { DrillRow, DrillServerRow } from '#control/store/tables/drills.ts'
import type {
  ActiveDomainRow,
  ProtectionGroupRow,
  ReplicationPairRow,
  VolumeRow,
} from '#control/store/tables/resources.ts'
import type { ProtectedInstanceRow } from '#control/store/tables/servers.ts'
import { type InstanceStatus, shownInstanceStatus } from '#domain/protected-instance.ts'
import type { SyncView } from '#domain/sync-view.ts'
import type { Tag } from '#domain/tag.ts'

/** From rows to the API's objects. The API's own words stop here. */

/** Groups, instances, drills: `2019-04-01 12:00:00.000`, UTC. */
export const spaceTime = (ms: number): string =>
  new Date(ms).toISOString().replace('T', ' ').slice(0, 23)

/** Pairs: `2019-04-01T12:00:00.000000`, UTC. */
export const microTime = (ms: number): string => `${new Date(ms).toISOString().slice(0, 23)}000`

/** Jobs: `2019-04-01T12:00:00.000Z`. */
export const jobTime = (ms: number): string => new Date(ms).toISOString()

const ID = /^(?:[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32})$/

/** UUID with hyphens, or the 32 hex digits of old ids. */
export const isId = (value: unknown): value is string => typeof value === 'string' && ID.test(value)

/** Progress of one pair: what is known now, or where it stood when replication last stopped. */
export const pairProgress = (
  pair: Pick<ReplicationPairRow, 'id' | 'progress'>,
  view: SyncView,
): number => view.pairs.get(pair.id)?.progress ?? pair.progress

export function groupObject(
  group: ProtectionGroupRow,
  pairs: readonly Pick<ReplicationPairRow, 'id' | 'progress'>[],
  view: SyncView,
  domainName: string,
  instances: number,
  drills: number,
) {
  return {
    id: group.id,
    name: group.name,
    description: group.description,
    status: group.status,
    progress: pairs.length === 0 ? 0 : Math.min(...pairs.map((pair) => pairProgress(pair, view))),
    source_availability_zone: group.source_az,
    target_availability_zone: group.target_az,
    domain_id: group.domain,
    domain_name: domainName,
    priority_station: group.station,
    protected_instance_num: instances,
    replication_num: pairs.length,
    disaster_recovery_drill_num: drills,
    protected_status: null,
    replication_status: null,
    health_status: null,
    source_vpc_id: group.vpc,
    target_vpc_id: group.vpc,
    test_vpc_id: null,
    dr_type: 'migration',
    server_type: 'ECS',
    created_at: spaceTime(group.created_at),
    updated_at: spaceTime(group.updated_at),
    protection_type: 'replication-pair',
    replication_model: null,
  }
}

export function pairObject(
  pair: ReplicationPairRow,
  group: ProtectionGroupRow,
  view: SyncView,
  production: VolumeRow,
) {
  const member = pair.in_session === 1
  const stopped = pair.never_replicated === 1 ? 'inactive' : 'active-stopped'
  return {
    id: pair.id,
    name: pair.name,
    description: pair.description,
    replication_model: 'hypermetro',
    status: pair.status,
    progress: pairProgress(pair, view),
    replication_status: member ? (view.pairs.get(pair.id)?.status ?? 'inactive') : stopped,
    attachment: fromJson<{ instance: string; device: string }[]>(pair.attachments).map((one) => ({
      device: one.device,
      protected_instance: one.instance,
    })),
    server_group_id: pair.group_id,
    volume_ids: `${pair.source_volume},${pair.target_volume}`,
    priority_station: group.station,
    fault_level: member ? view.faultLevel : '0',
    created_at: microTime(pair.created_at),
    updated_at: microTime(pair.updated_at),
    record_metadata: {
      multiattach: production.multiattach === 1,
      bootable: production.bootable === 1,
      volume_size: production.size_gb,
      volume_type: production.volume_type,
    },
    ...(pair.status === 'error' ? { failure_detail: pair.failure_detail } : {}),
  }
}

export const drillObject = (drill: DrillRow, servers: readonly DrillServerRow[]) => ({
  id: drill.id,
  name: drill.name,
  status: drill.status,
  server_group_id: drill.group_id,
  drill_vpc_id: drill.vpc,
  created_at: spaceTime(drill.created_at),
  updated_at: spaceTime(drill.updated_at),
  drill_servers: servers.map(({ instance, server }) => ({
    protected_instance: instance,
    drill_server_id: server,
  })),
})

/** What is shown of an instance besides its own row. */
export interface InstanceParts {
  readonly group: ProtectionGroupRow
  readonly attached: readonly AttachedPair<PairGist>[]
  readonly tags: readonly Tag[]
  /** How many of its two servers exist. */
  readonly servers: number
}

export const shownStatus = (instance: ProtectedInstanceRow, parts: InstanceParts): InstanceStatus =>
  shownInstanceStatus(
    instanceStatus(instance),
    parts.attached.map(({ pair }) => pairStatus(pair)),
    parts.servers,
  )

export function instanceObject(
  instance: ProtectedInstanceRow,
  parts: InstanceParts,
  view: SyncView,
) {
  const { attached, tags, group } = parts
  return {
    id: instance.id,
    name: instance.name,
    description: instance.description,
    server_group_id: instance.group_id,
    status: shownStatus(instance, parts),
    progress:
      attached.length === 0 ? 0 : Math.min(...attached.map(({ pair }) => pairProgress(pair, view))),
    source_server: instance.source_server,
    target_server: instance.target_server,
    created_at: spaceTime(instance.created_at),
    updated_at: spaceTime(instance.updated_at),
    priority_station: group.station,
    attachment: attached.map(({ pair, device }) => ({ replication: pair.id, device })),
    tags: tags.map(({ key, value }) => ({ key, value })),
    metadata: {},
  }
}

export const domainObject = (domain: ActiveDomainRow) => ({
  id: domain.id,
  name: domain.name,
  description: domain.description,
  sold_out: false,
  local_replication_cluster: { availability_zone: domain.local_az },
  remote_replication_cluster: { availability_zone: domain.remote_az },
})
