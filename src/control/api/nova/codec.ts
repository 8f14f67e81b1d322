import { fromJson } from '#control/store/json.ts'
import type { DiskView, NicView, ServerView } from '#control/resources/server-views.ts'
import type { KeypairRow, ServerRow } from '#control/store/tables/servers.ts'
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

/** From rows to this API's objects. Types matter: numbers, text and booleans differ from those of the other server API on purpose. */

/** What links are made of. */
export interface LinkBase {
  readonly origin: string
  readonly project: string
  /** What many servers of one answer share, made once. */
  readonly shared: Map<string, object>
}

const links = (base: LinkBase, kind: 'servers' | 'flavors' | 'images', id: string) => [
  { rel: 'self', href: `${base.origin}/v2.1/${base.project}/${kind}/${id}` },
  { rel: 'bookmark', href: `${base.origin}/${base.project}/${kind}/${id}` },
]

export const serverRef = (row: ServerRow, base: LinkBase) => ({
  id: row.id,
  name: row.name,
  links: links(base, 'servers', row.id),
})

/** As answered to creation. There is no password to tell: nothing here can set one inside a guest. */
export const serverCreated = (view: ServerView, base: LinkBase) => ({
  id: view.server.id,
  links: links(base, 'servers', view.server.id),
  'OS-DCF:diskConfig': 'MANUAL',
  security_groups: groupNames(view),
})

export function serverObject(view: ServerView, base: LinkBase) {
  const { server, flavor } = view
  return {
    id: server.id,
    name: server.name,
    status: statusWord(server),
    tenant_id: server.project,
    user_id: server.user_id,
    created: secondTime(server.created_at),
    updated: secondTime(server.updated_at),
    hostId: hostId(server),
    progress: 0,
    accessIPv4: '',
    accessIPv6: '',
    addresses: addressesOf(view),
    // An object always: one provider reads its id without looking whether there is one.
    image: once(base, server.image ?? '', () => imageMember(server.image, base)),
    flavor: once(base, flavor.name, () => flavorMember(flavor, base)),
    metadata: metadataOf(server),
    key_name: server.key_name,
    config_drive: '',
    description: server.description,
    locked: false,
    tags: Object.entries(view.tags).map(tagText),
    links: links(base, 'servers', server.id),
    security_groups: groupNames(view),
    'os-extended-volumes:volumes_attached': view.disks.map((row) => ({
      id: row.volume,
      delete_on_termination: row.delete_with_server === 1,
    })),
    ...stateMembers(server),
    'OS-EXT-AZ:availability_zone': server.az,
    'OS-DCF:diskConfig': 'MANUAL',
    'OS-SRV-USG:launched_at': launchTime(server.launched_at),
    'OS-SRV-USG:terminated_at': null,
    ...faultMember(server),
  }
}

function once(base: LinkBase, key: string, make: () => object): object {
  const known = base.shared.get(key)
  if (known !== undefined) return known
  const made = make()
  base.shared.set(key, made)
  return made
}

const imageMember = (image: string | null, base: LinkBase) =>
  image === null ? { id: '' } : { id: image, links: links(base, 'images', image) }

const flavorMember = (flavor: Flavor, base: LinkBase) => ({
  id: flavor.name,
  links: links(base, 'flavors', flavor.name),
  original_name: flavor.name,
  vcpus: flavor.vcpus,
  ram: flavor.memoryMb,
  disk: 0,
  ephemeral: 0,
  swap: 0,
  extra_specs: EXTRA_SPECS,
})

const groupNames = (view: ServerView) => view.groups.map(({ name }) => ({ name }))

/** By network name. Empty while it is being made. */
function addressesOf(view: ServerView): Record<string, object[]> {
  const addresses: Record<string, object[]> = {}
  if (view.server.status === 'building') return addresses
  for (const { port, subnet } of view.nics) {
    const list = (addresses[subnet.name] ??= [])
    list.push({
      addr: port.address,
      version: 4,
      'OS-EXT-IPS:type': 'fixed',
      'OS-EXT-IPS-MAC:mac_addr': port.mac,
    })
  }
  return addresses
}

/** The attachment is named by its volume. */
export const attachmentObject = (row: DiskView) => ({
  id: row.volume,
  volumeId: row.volume,
  serverId: row.server,
  device: row.device,
  tag: null,
  delete_on_termination: row.delete_with_server === 1,
})

export const interfaceObject = ({ server }: ServerView, { port, subnet }: NicView) => ({
  port_id: port.id,
  net_id: subnet.id,
  mac_addr: port.mac,
  port_state:
    server.status === 'building' ? 'BUILD' : server.power === 'running' ? 'ACTIVE' : 'DOWN',
  fixed_ips: [{ subnet_id: subnet.neutron_subnet, ip_address: port.address }],
})

/** The same for every flavor: all run alike. */
export const EXTRA_SPECS: Readonly<Record<string, string>> = {
  'ecs:performancetype': 'normal',
  'ecs:virtualization_env_types': 'KVM',
}

export const flavorRef = (flavor: Flavor, base: LinkBase) => ({
  id: flavor.name,
  name: flavor.name,
  description: null,
  links: links(base, 'flavors', flavor.name),
})

/** Its id is its name: one provider asks for a flavor by the name that a server shows. */
export const flavorObject = (flavor: Flavor, base: LinkBase) => ({
  ...flavorRef(flavor, base),
  ram: flavor.memoryMb,
  vcpus: flavor.vcpus,
  disk: 0,
  swap: '',
  rxtx_factor: 1.0,
  'OS-FLV-EXT-DATA:ephemeral': 0,
  'OS-FLV-DISABLED:disabled': false,
  'os-flavor-access:is_public': true,
  extra_specs: EXTRA_SPECS,
})

export const keypairObject = (row: KeypairRow) => ({
  name: row.name,
  public_key: row.public_key,
  fingerprint: row.fingerprint,
  type: 'ssh',
  user_id: row.user_id,
})

export const keypairDetail = (row: KeypairRow) => ({
  ...keypairObject(row),
  created_at: secondTime(row.created_at),
  deleted: false,
})

/** Ids of a text column. */
export const idsOf = (text: string): string[] => fromJson<string[]>(text)
