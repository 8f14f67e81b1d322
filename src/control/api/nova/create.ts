import type {
  NewServerDisk,
  NewServerNic,
  NewServerRequest,
} from '#control/operations/definitions/servers/server-requests.ts'
import { type Input, inputWith, type Members, SERVERS_MAX } from '../compute/input.ts'
import { badRequest } from './errors.ts'
import { tagsFrom } from './tags.ts'

/* `POST servers` as a request to the inventory.
 *
 * A root disk is a volume always, since protection needs volumes: an image that is to be booted from, by `imageRef` or by a mapping to a
 * local disk, becomes a new volume that goes with the server. What a guest here would never get (files, a password, user data: there is
 * no metadata service) is refused when it is asked for, since a server without it would look like success.
 */

export interface CreateRequest {
  readonly request: Omit<NewServerRequest, 'project' | 'user'>
  readonly count: number
  /** True: no network was named, so the project must have only one. */
  readonly onlyNetwork: boolean
}

const input: Input = inputWith(badRequest)

export function createRequest(body: unknown): CreateRequest {
  const server = input.members(body, 'server')
  refuseUndeliverable(server)
  const disks = input.objects(server, 'block_device_mapping_v2').map(diskOf)
  const image = input.filledText(server, 'imageRef')
  const root = disks.find(({ bootIndex }) => bootIndex === 0)
  const mapped = root?.source.kind === 'image' ? root.source.image : null
  if (image !== null && root !== undefined && mapped !== image) {
    throw badRequest('imageRef and block_device_mapping_v2 name different root disks.')
  }
  const securityGroups = input
    .objects(server, 'security_groups')
    .map((group) => input.text(group, 'name'))
  const { nics, onlyNetwork } = nicsOf(server, securityGroups)
  return {
    request: {
      name: input.text(server, 'name').trim(),
      description: input.optionalText(server, 'description'),
      az: zoneOf(server),
      flavor: input.text(server, 'flavorRef'),
      // The provider that sends both means one disk.
      image: root === undefined ? image : null,
      disks,
      nics,
      keyName: input.filledText(server, 'key_name'),
      metadata: input.textMap(server, 'metadata') ?? {},
      tags: tagsFrom(input.list(server, 'tags')),
      autoRecovery: false,
    },
    count: countOf(server),
    onlyNetwork,
  }
}

function refuseUndeliverable(server: Members): void {
  const say = (name: string) =>
    badRequest(`${name}: nothing here can hand it to a guest, so it is not accepted.`)
  if ((server['user_data'] ?? '') !== '') throw say('user_data')
  if (input.list(server, 'personality').length > 0) throw say('personality')
  const drive = server['config_drive'] ?? false
  if (drive === true || (typeof drive === 'string' && /^true$/i.test(drive))) {
    throw say('config_drive')
  }
}

/** A zone may carry a host behind a colon; nobody chooses hosts here. */
function zoneOf(server: Members): string | null {
  const zone = input.filledText(server, 'availability_zone')
  if (zone?.includes(':') === true) {
    throw badRequest('availability_zone: a host cannot be chosen.')
  }
  return zone
}

function countOf(server: Members): number {
  const least = input.integer(server, 'min_count')
  const most = input.integer(server, 'max_count')
  const count = most ?? least ?? 1
  if (count < 1 || count > SERVERS_MAX || (least ?? 1) < 1 || (least ?? 1) > count) {
    throw badRequest(`min_count, max_count: 1 to ${SERVERS_MAX}, the least first.`)
  }
  return count
}

function nicsOf(
  server: Members,
  securityGroups: readonly string[],
): { nics: NewServerNic[]; onlyNetwork: boolean } {
  const networks = server['networks'] ?? null
  if (networks === 'none') throw badRequest('networks: a server without network is not offered.')
  const anyone = { port: null, subnet: null, address: null, securityGroups }
  if (networks === 'auto') return { nics: [anyone], onlyNetwork: false }
  const wanted = input.objects(server, 'networks')
  if (wanted.length === 0) return { nics: [anyone], onlyNetwork: true }
  const nics = wanted.map((network): NewServerNic => {
    const port = input.filledText(network, 'port')
    const subnet = input.filledText(network, 'uuid')
    const address = input.filledText(network, 'fixed_ip')
    if (port !== null) return { ...anyone, port }
    if (subnet === null) throw badRequest('networks: each needs a uuid or a port.')
    return { ...anyone, subnet, address }
  })
  return { nics, onlyNetwork: false }
}

function diskOf(mapping: Members): NewServerDisk {
  const source = input.text(mapping, 'source_type')
  const destination = input.filledText(mapping, 'destination_type') ?? DESTINATIONS[source]
  const local = destination === 'local'
  if (destination !== 'volume' && !local) {
    throw badRequest('destination_type: volume or local.')
  }
  const bootIndex = input.integer(mapping, 'boot_index')
  const disk = {
    sizeGb: input.integer(mapping, 'volume_size'),
    bootIndex: bootIndex === null || bootIndex < 0 ? null : bootIndex,
    device: input.filledText(mapping, 'device_name'),
    // A local disk goes with its server anywhere.
    deleteWithServer: local || input.boolean(mapping, 'delete_on_termination', false),
    type: input.filledText(mapping, 'volume_type'),
  }
  if (disk.sizeGb !== null && disk.sizeGb < 1) throw badRequest('volume_size: at least 1.')
  switch (source) {
    case 'image':
      return { ...disk, source: { kind: 'image', image: input.text(mapping, 'uuid') } }
    case 'volume':
      if (local) throw badRequest('A volume cannot become a local disk.')
      return { ...disk, source: { kind: 'volume', volume: input.text(mapping, 'uuid') } }
    case 'blank':
      if (local) throw badRequest('Local disks are not offered: map a blank one to a volume.')
      return { ...disk, source: { kind: 'blank' } }
    case 'snapshot':
      throw badRequest('Disks are not made from snapshots here.')
    default:
      throw badRequest('source_type: image, volume or blank.')
  }
}

/** What a mapping without destination means. */
const DESTINATIONS: Readonly<Record<string, string>> = {
  image: 'local',
  volume: 'volume',
  snapshot: 'volume',
  blank: 'local',
}
