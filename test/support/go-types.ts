/**
 * How typed clients decode answers. Go's JSON decoder is strict where scripting languages are not: a number where text belongs, or text
 * where a boolean belongs, fails the whole answer. Absent members and nulls are fine everywhere; a time must be one.
 *
 * The shapes below are those that the clients of this API declare, in our own notation.
 */
import assert from 'node:assert/strict'

export type GoType =
  | 'string'
  | 'int'
  | 'bool'
  | 'float'
  | 'any'
  | 'time'
  | { readonly list: GoType }
  | { readonly map: GoType }
  | { readonly struct: Readonly<Record<string, GoType>> }

const list = (of: GoType): GoType => ({ list: of })
const map = (of: GoType): GoType => ({ map: of })
const struct = (of: Readonly<Record<string, GoType>>): GoType => ({ struct: of })

/** Everything that the decoder would refuse; empty when it would not. */
export function goFaults(type: GoType, value: unknown, at = ''): string[] {
  if (value === null || value === undefined || type === 'any') return []
  const wrong = [`${at}: ${JSON.stringify(value)} is no ${JSON.stringify(type).slice(0, 40)}`]
  switch (type) {
    case 'string':
      return typeof value === 'string' ? [] : wrong
    case 'bool':
      return typeof value === 'boolean' ? [] : wrong
    case 'float':
      return typeof value === 'number' ? [] : wrong
    case 'int':
      return typeof value === 'number' && Number.isSafeInteger(value) ? [] : wrong
    case 'time':
      return typeof value === 'string' && RFC_3339.test(value) ? [] : wrong
    default:
  }
  if ('list' in type) {
    if (!Array.isArray(value)) return wrong
    return value.flatMap((one, index) => goFaults(type.list, one, `${at}[${index}]`))
  }
  if (typeof value !== 'object' || Array.isArray(value)) return wrong
  const members = value as Readonly<Record<string, unknown>>
  return 'map' in type
    ? Object.entries(members).flatMap(([key, one]) => goFaults(type.map, one, `${at}.${key}`))
    : Object.entries(type.struct).flatMap(([key, one]) =>
        goFaults(one, members[key], `${at}.${key}`),
      )
}

const RFC_3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/

export function assertGo(type: GoType, value: unknown): void {
  assert.deepEqual(goFaults(type, value), [])
}

/** `servers.Server` of the OpenStack form. */
export const NOVA_SERVER = struct({
  id: 'string',
  tenant_id: 'string',
  user_id: 'string',
  name: 'string',
  updated: 'time',
  created: 'time',
  hostId: 'string',
  status: 'string',
  progress: 'int',
  accessIPv4: 'string',
  accessIPv6: 'string',
  image: map('any'),
  flavor: map('any'),
  addresses: map('any'),
  metadata: map('string'),
  links: list('any'),
  key_name: 'string',
  adminPass: 'string',
  security_groups: list(map('any')),
  'os-extended-volumes:volumes_attached': list(
    struct({ id: 'string', delete_on_termination: 'bool' }),
  ),
  fault: struct({ code: 'int', created: 'time', details: 'string', message: 'string' }),
  tags: list('string'),
  'OS-EXT-AZ:availability_zone': 'string',
  'OS-EXT-STS:vm_state': 'string',
  'OS-EXT-STS:task_state': 'string',
  'OS-EXT-STS:power_state': 'int',
})

/** `cloudservers.CloudServer` of both Go SDKs. */
export const CLOUD_SERVER = struct({
  status: 'string',
  updated: 'time',
  hostId: 'string',
  addresses: map(
    list(
      struct({
        version: 'string',
        addr: 'string',
        'OS-EXT-IPS-MAC:mac_addr': 'string',
        'OS-EXT-IPS:port_id': 'string',
        'OS-EXT-IPS:type': 'string',
        primary: 'bool',
      }),
    ),
  ),
  id: 'string',
  name: 'string',
  accessIPv4: 'string',
  accessIPv6: 'string',
  created: 'time',
  tags: list('string'),
  description: 'string',
  locked: 'bool',
  config_drive: 'string',
  tenant_id: 'string',
  user_id: 'string',
  host_status: 'string',
  enterprise_project_id: 'string',
  sys_tags: list(struct({ key: 'string', value: 'string' })),
  flavor: struct({ disk: 'string', vcpus: 'string', ram: 'string', id: 'string', name: 'string' }),
  metadata: map('string'),
  security_groups: list(struct({ name: 'string', id: 'string' })),
  key_name: 'string',
  image: struct({ id: 'string' }),
  progress: 'int',
  'OS-EXT-STS:power_state': 'int',
  'OS-EXT-STS:vm_state': 'string',
  'OS-EXT-STS:task_state': 'string',
  'OS-DCF:diskConfig': 'string',
  'OS-EXT-AZ:availability_zone': 'string',
  'OS-SRV-USG:launched_at': 'string',
  'OS-SRV-USG:terminated_at': 'string',
  'OS-EXT-SRV-ATTR:root_device_name': 'string',
  'OS-EXT-SRV-ATTR:ramdisk_id': 'string',
  'OS-EXT-SRV-ATTR:kernel_id': 'string',
  'OS-EXT-SRV-ATTR:launch_index': 'int',
  'OS-EXT-SRV-ATTR:reservation_id': 'string',
  'OS-EXT-SRV-ATTR:hostname': 'string',
  'OS-EXT-SRV-ATTR:user_data': 'string',
  'OS-EXT-SRV-ATTR:host': 'string',
  'OS-EXT-SRV-ATTR:instance_name': 'string',
  'OS-EXT-SRV-ATTR:hypervisor_hostname': 'string',
  'os-extended-volumes:volumes_attached': list(
    struct({
      id: 'string',
      delete_on_termination: 'string',
      bootIndex: 'string',
      device: 'string',
    }),
  ),
  'os:scheduler_hints': struct({
    group: list('string'),
    tenancy: list('string'),
    dedicated_host_id: list('string'),
  }),
  fault: struct({ code: 'int', message: 'string', created: 'string', details: 'string' }),
})

export const BLOCK_DEVICE = struct({
  pciAddress: 'string',
  volumeId: 'string',
  serverId: 'string',
  id: 'string',
  device: 'string',
  size: 'int',
  bootIndex: 'int',
  bus: 'string',
})

export const VOLUME_ATTACHMENT = struct({
  id: 'string',
  device: 'string',
  volumeId: 'string',
  serverId: 'string',
})

export const INTERFACE = struct({
  port_state: 'string',
  fixed_ips: list(struct({ subnet_id: 'string', ip_address: 'string' })),
  port_id: 'string',
  net_id: 'string',
  mac_addr: 'string',
})

export const NOVA_FLAVOR = struct({
  id: 'string',
  disk: 'int',
  ram: 'int',
  name: 'string',
  rxtx_factor: 'float',
  // Read by a decoder of its own, which takes a number or text.
  swap: 'any',
  vcpus: 'int',
  'os-flavor-access:is_public': 'bool',
  'OS-FLV-EXT-DATA:ephemeral': 'int',
})

export const ECS_FLAVOR = struct({
  id: 'string',
  name: 'string',
  vcpus: 'string',
  ram: 'int',
  disk: 'string',
  swap: 'string',
  'OS-FLV-EXT-DATA:ephemeral': 'int',
  'OS-FLV-DISABLED:disabled': 'bool',
  rxtx_factor: 'int',
  rxtx_quota: 'string',
  rxtx_cap: 'string',
  'os-flavor-access:is_public': 'bool',
  os_extra_specs: struct({
    'ecs:performancetype': 'string',
    resource_type: 'string',
    'ecs:generation': 'string',
    'ecs:virtualization_env_types': 'string',
    'cond:operation:status': 'string',
    'cond:operation:az': 'string',
  }),
})

const SUB_JOB = struct({
  job_id: 'string',
  job_type: 'string',
  status: 'string',
  begin_time: 'string',
  end_time: 'string',
  error_code: 'string',
  fail_reason: 'string',
  entities: map('string'),
})

export const SERVER_JOB = struct({
  job_id: 'string',
  job_type: 'string',
  status: 'string',
  begin_time: 'string',
  end_time: 'string',
  error_code: 'string',
  fail_reason: 'string',
  entities: struct({ sub_jobs_total: 'int', sub_jobs: list(SUB_JOB), volume_id: 'string' }),
})

/** A disk as one provider reads it beside its server. */
export const VENDOR_VOLUME = struct({
  id: 'string',
  name: 'string',
  status: 'string',
  size: 'int',
  bootable: 'string',
  volume_type: 'string',
  availability_zone: 'string',
  attachments: list(
    struct({
      server_id: 'string',
      attachment_id: 'string',
      device: 'string',
      id: 'string',
      volume_id: 'string',
    }),
  ),
  metadata: map('string'),
  volume_image_metadata: map('string'),
  multiattach: 'bool',
  encrypted: 'bool',
  tags: map('string'),
})

// ---------------------------------------------------------------- disaster recovery

const SDRS_TAGS = list(struct({ key: 'string', value: 'string' }))

export const SDRS_DOMAIN = struct({
  id: 'string',
  name: 'string',
  description: 'string',
  sold_out: 'bool',
  local_replication_cluster: struct({ availability_zone: 'string' }),
  remote_replication_cluster: struct({ availability_zone: 'string' }),
})

export const SDRS_GROUP = struct({
  id: 'string',
  name: 'string',
  description: 'string',
  status: 'string',
  progress: 'int',
  source_availability_zone: 'string',
  target_availability_zone: 'string',
  domain_id: 'string',
  domain_name: 'string',
  priority_station: 'string',
  protected_instance_num: 'int',
  replication_num: 'int',
  disaster_recovery_drill_num: 'int',
  protected_status: 'string',
  replication_status: 'string',
  health_status: 'string',
  source_vpc_id: 'string',
  target_vpc_id: 'string',
  test_vpc_id: 'string',
  dr_type: 'string',
  server_type: 'string',
  created_at: 'string',
  updated_at: 'string',
  protection_type: 'string',
  replication_model: 'string',
})

export const SDRS_PAIR = struct({
  id: 'string',
  name: 'string',
  description: 'string',
  replication_model: 'string',
  status: 'string',
  progress: 'int',
  replication_status: 'string',
  attachment: list(struct({ protected_instance: 'string', device: 'string' })),
  server_group_id: 'string',
  volume_ids: 'string',
  priority_station: 'string',
  fault_level: 'string',
  created_at: 'string',
  updated_at: 'string',
  failure_detail: 'string',
  record_metadata: struct({
    multiattach: 'bool',
    bootable: 'bool',
    volume_size: 'int',
    volume_type: 'string',
  }),
})

export const SDRS_INSTANCE = struct({
  id: 'string',
  name: 'string',
  description: 'string',
  server_group_id: 'string',
  status: 'string',
  progress: 'int',
  source_server: 'string',
  target_server: 'string',
  created_at: 'string',
  updated_at: 'string',
  priority_station: 'string',
  attachment: list(struct({ replication: 'string', device: 'string' })),
  tags: SDRS_TAGS,
  metadata: map('string'),
})

export const SDRS_DRILL = struct({
  id: 'string',
  name: 'string',
  status: 'string',
  drill_vpc_id: 'string',
  server_group_id: 'string',
  created_at: 'string',
  updated_at: 'string',
  drill_servers: list(struct({ protected_instance: 'string', drill_server_id: 'string' })),
})

const SDRS_JOB_FIELDS = {
  job_id: 'string',
  job_type: 'string',
  status: 'string',
  begin_time: 'time',
  end_time: 'time',
  error_code: 'string',
  fail_reason: 'string',
} as const

/** Of one pair or one instance: nothing but text among the entities. */
export const SDRS_FLAT_JOB = struct({ ...SDRS_JOB_FIELDS, entities: map('string') })

/** Of a group or of several instances: it may have children, which are flat. */
export const SDRS_JOB = struct({
  ...SDRS_JOB_FIELDS,
  entities: struct({
    server_group_id: 'string',
    disaster_recovery_drill_id: 'string',
    protected_instance_id: 'string',
    replication_pair_id: 'string',
    sub_jobs: list(SDRS_FLAT_JOB),
  }),
})

export const SDRS_FAILURE_JOB = struct({
  job_status: 'string',
  resource_id: 'string',
  resource_name: 'string',
  resource_type: 'string',
  failure_status: 'string',
  job_id: 'string',
  job_type: 'string',
  begin_time: 'time',
  error_code: 'string',
  fail_reason: 'string',
})

export const SDRS_QUOTAS = struct({
  quotas: struct({
    resources: list(struct({ type: 'string', used: 'int', quota: 'int', min: 'int', max: 'int' })),
  }),
})

export const SDRS_RPO = struct({
  id: 'string',
  point_time: 'string',
  resource_num: 'int',
  resource_type: 'string',
  created_at: 'string',
  updated_at: 'string',
})

/** A page of a list. */
export const sdrsPage = (member: string, of: GoType): GoType =>
  struct({ [member]: list(of), count: 'int' })
