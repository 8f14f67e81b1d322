import type { DiskView, ServerView } from '#control/resources/server-views.ts'
import type { Flavor } from '#domain/flavor.ts'
import {
  faultMember,
  hostId,
  launchTime,
  metadataOf,
  secondTime,
  stateMembers,
  statusWord,
  tagText,
} from '../compute/words.ts'

/* From rows to this API's objects. Numbers of a flavor, versions of addresses and the flags of disks are text here, and numbers in the
 * other server API: typed clients of either break on the form of the other. */

const text = (value: boolean): 'true' | 'false' => (value ? 'true' : 'false')

export function cloudServer(view: ServerView) {
  const { server, flavor, disks } = view
  const root = disks.find((disk) => disk.boot_index === 0)
  return {
    id: server.id,
    name: server.name,
    status: statusWord(server),
    tenant_id: server.project,
    user_id: server.user_id,
    created: secondTime(server.created_at),
    updated: secondTime(server.updated_at),
    hostId: hostId(server),
    host_status: 'UP',
    progress: 0,
    accessIPv4: '',
    accessIPv6: '',
    description: server.description ?? '',
    locked: false,
    config_drive: '',
    key_name: server.key_name ?? '',
    enterprise_project_id: '0',
    addresses: addressesOf(view),
    image: { id: server.image ?? '' },
    flavor: {
      id: flavor.name,
      name: flavor.name,
      vcpus: String(flavor.vcpus),
      ram: String(flavor.memoryMb),
      disk: '0',
    },
    metadata: metadataWith(view),
    security_groups: view.groups.map(({ id, name }) => ({ id, name })),
    'os-extended-volumes:volumes_attached': disks.map((row) => ({
      id: row.volume,
      delete_on_termination: text(row.delete_with_server === 1),
      bootIndex: String(bootIndex(row.boot_index)),
      device: row.device,
    })),
    tags: Object.entries(view.tags).map(tagText),
    sys_tags: [],
    'os:scheduler_hints': {},
    ...stateMembers(server),
    'OS-EXT-AZ:availability_zone': server.az,
    'OS-DCF:diskConfig': 'MANUAL',
    'OS-SRV-USG:launched_at': launchTime(server.launched_at),
    'OS-SRV-USG:terminated_at': null,
    'OS-EXT-SRV-ATTR:root_device_name': root?.device ?? '',
    'OS-EXT-SRV-ATTR:hostname': server.name,
    'OS-EXT-SRV-ATTR:host': hostId(server),
    'OS-EXT-SRV-ATTR:instance_name': server.id,
    'OS-EXT-SRV-ATTR:hypervisor_hostname': hostId(server),
    'OS-EXT-SRV-ATTR:user_data': null,
    'OS-EXT-SRV-ATTR:reservation_id': '',
    'OS-EXT-SRV-ATTR:launch_index': 0,
    'OS-EXT-SRV-ATTR:kernel_id': '',
    'OS-EXT-SRV-ATTR:ramdisk_id': '',
    auto_terminate_time: '',
    enclave_options: null,
    ...faultMember(server),
  }
}

/** Not booted from: typed clients read an absent number as 0, which would be the system disk. */
const bootIndex = (index: number | null): number => index ?? -1

/** What clients look for among the caller's own. */
function metadataWith({ server, flavor, image }: ServerView): Record<string, string> {
  return {
    ...metadataOf(server),
    vpc_id: server.vpc,
    charging_mode: '0',
    'metering.image_id': server.image ?? '',
    'metering.imagetype': 'gold',
    'metering.resourcespeccode': `${flavor.name}.linux`,
    'metering.resourcetype': '1',
    image_name: image?.name ?? '',
    os_bit: '64',
    os_type: 'Linux',
    virtual_env_type: 'FusionCompute',
  }
}

/** One key, the VPC. Empty while it is being made, and without NICs. */
function addressesOf({ server, nics }: ServerView): Record<string, object[]> {
  if (server.status === 'building' || nics.length === 0) return {}
  return {
    [server.vpc]: nics.map(({ port }, index) => ({
      addr: port.address,
      version: '4',
      'OS-EXT-IPS:type': 'fixed',
      'OS-EXT-IPS-MAC:mac_addr': port.mac,
      'OS-EXT-IPS:port_id': port.id,
      primary: index === 0,
    })),
  }
}

export const blockDevice = (row: DiskView, sizeGb: number) => ({
  id: row.volume,
  volumeId: row.volume,
  serverId: row.server,
  device: row.device,
  pciAddress: '',
  size: sizeGb,
  bootIndex: bootIndex(row.boot_index),
  bus: 'virtio',
})

export const ecsFlavor = (
  flavor: Flavor,
  sites: readonly string[],
  origin: string,
  project: string,
) => ({
  id: flavor.name,
  name: flavor.name,
  vcpus: String(flavor.vcpus),
  ram: flavor.memoryMb,
  disk: '0',
  swap: '',
  'OS-FLV-EXT-DATA:ephemeral': 0,
  'OS-FLV-DISABLED:disabled': false,
  rxtx_factor: 1,
  rxtx_quota: null,
  rxtx_cap: null,
  'os-flavor-access:is_public': true,
  links: [{ rel: 'self', href: `${origin}/v2.1/${project}/flavors/${flavor.name}` }],
  os_extra_specs: {
    'ecs:performancetype': 'normal',
    'ecs:generation': flavor.name.split('.')[0] ?? '',
    'ecs:virtualization_env_types': 'KVM',
    resource_type: 'IOoptimized',
    'cond:operation:status': 'normal',
    'cond:operation:az': sites.map((site) => `${site}(normal)`).join(','),
  },
})
