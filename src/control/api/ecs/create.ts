import type {
  NewServerDisk,
  NewServerNic,
  NewServerRequest,
} from '#control/operations/definitions/servers/server-requests.ts'
import { isTagKey, isTagValue, TAGS_MAX } from '#domain/tag.ts'
import { type Input, inputWith, type Members, SERVERS_MAX } from '../compute/input.ts'
import { badRequest } from './errors.ts'

/* `POST cloudservers` as a request to the inventory. The system disk is always made from the image and goes with the server; data disks
 * are new and empty. What would be bought elsewhere (addresses, periods, bandwidth) or never reaches a guest here is refused. */

export interface CreateRequest {
  readonly request: Omit<NewServerRequest, 'project' | 'user'>
  readonly count: number
  readonly vpc: string
  /** Checked, and nothing is made. */
  readonly dryRun: boolean
}

const input: Input = inputWith(badRequest)

/** `types`: names of the volume types there are; clients write them in any case. */
export function createRequest(body: unknown, types: readonly string[]): CreateRequest {
  const server = input.members(body, 'server')
  refuseUndeliverable(server)
  const extend = input.optionalMembers(server, 'extendparam') ?? {}
  const nics = input.objects(server, 'nics')
  if (nics.length === 0) throw badRequest('nics: at least one is required.')
  const securityGroups = input
    .objects(server, 'security_groups')
    .map((group) => input.text(group, 'id'))
  return {
    request: {
      name: input.text(server, 'name', 128).trim(),
      description: input.filledText(server, 'description'),
      az: input.filledText(server, 'availability_zone'),
      flavor: input.text(server, 'flavorRef'),
      image: null,
      disks: disksOf(server, types),
      nics: nics.map((nic) => nicOf(nic, securityGroups)),
      keyName: input.filledText(server, 'key_name'),
      metadata: textsOf(input.optionalMembers(server, 'metadata') ?? {}),
      tags: tagsOf(server),
      autoRecovery: input.boolean(extend, 'support_auto_recovery', false),
    },
    count: countOf(server),
    vpc: input.text(server, 'vpcid'),
    dryRun: input.boolean(body as Members, 'dry_run', false),
  }
}

function refuseUndeliverable(server: Members): void {
  if ((server['user_data'] ?? '') !== '') {
    throw badRequest('user_data: nothing here can hand it to a guest, so it is not accepted.')
  }
  if ((server['publicip'] ?? null) !== null) {
    throw badRequest('publicip: public addresses are not offered.')
  }
  const extend = input.optionalMembers(server, 'extendparam') ?? {}
  const charging = extend['chargingMode'] ?? 'postPaid'
  if (charging !== 'postPaid' && charging !== '0' && charging !== 0) {
    throw badRequest('extendparam.chargingMode: only postPaid is offered.')
  }
}

function countOf(server: Members): number {
  const count = input.integer(server, 'count') ?? 1
  if (count < 1 || count > SERVERS_MAX) throw badRequest(`count: 1 to ${SERVERS_MAX}.`)
  return count
}

function nicOf(nic: Members, securityGroups: readonly string[]): NewServerNic {
  if (input.boolean(nic, 'ipv6_enable', false)) throw badRequest('IPv6 is not offered.')
  return {
    port: null,
    subnet: input.text(nic, 'subnet_id'),
    address: input.filledText(nic, 'ip_address'),
    securityGroups,
  }
}

function disksOf(server: Members, types: readonly string[]): NewServerDisk[] {
  const root = input.members(server, 'root_volume')
  const size = input.integer(root, 'size') ?? 0
  if (size < 0) throw badRequest('root_volume.size: at least 1, or 0 for what the image needs.')
  const system: NewServerDisk = {
    source: { kind: 'image', image: input.text(server, 'imageRef') },
    sizeGb: size === 0 ? null : size,
    bootIndex: 0,
    device: null,
    deleteWithServer: true,
    type: typeOf(root, types),
  }
  return [system, ...input.objects(server, 'data_volumes').map((disk) => dataDisk(disk, types))]
}

function dataDisk(disk: Members, types: readonly string[]): NewServerDisk {
  const extend = input.optionalMembers(disk, 'extendparam') ?? {}
  // An empty disk where a copy was ordered would look like success.
  if (input.filledText(extend, 'snapshotId') !== null) {
    throw badRequest('data_volumes: disks are not made from snapshots here.')
  }
  if (input.filledText(disk, 'data_image_id') !== null) {
    throw badRequest('data_volumes: data disks are not made from images here.')
  }
  if (input.boolean(disk, 'multiattach', false)) {
    throw badRequest('data_volumes: a shared disk is made on its own and attached.')
  }
  const size = input.integer(disk, 'size')
  if (size === null || size < 1) throw badRequest('data_volumes.size: at least 1.')
  return {
    source: { kind: 'blank' },
    sizeGb: size,
    bootIndex: null,
    device: null,
    deleteWithServer: input.boolean(disk, 'delete_on_termination', false),
    type: typeOf(disk, types),
  }
}

function typeOf(disk: Members, types: readonly string[]): string {
  const wanted = input.text(disk, 'volumetype')
  const metadata = input.optionalMembers(disk, 'metadata') ?? {}
  const encrypted = metadata['__system__encrypted'] ?? '0'
  if (encrypted !== '0' && encrypted !== '') throw badRequest('Encrypted disks are not offered.')
  const known = types.find((type) => type.toLowerCase() === wanted.toLowerCase())
  if (known === undefined) throw badRequest(`volumetype: there is no type ${wanted}.`)
  return known
}

/** Clients put all kinds of values here; what is no text is kept as text. */
function textsOf(members: Members): Record<string, string> {
  const texts = Object.entries(members).flatMap(([key, value]) => {
    if (value === null || value === undefined) return []
    return [[key, typeof value === 'string' ? value : JSON.stringify(value)]]
  })
  return input.textMap({ metadata: Object.fromEntries(texts) as Members }, 'metadata') ?? {}
}

/** `server_tags` as pairs, and the older `tags` as `key.value` or `key=value`. */
function tagsOf(server: Members): Record<string, string> {
  const pairs = input
    .objects(server, 'server_tags')
    .map((tag) => [input.text(tag, 'key'), input.optionalText(tag, 'value') ?? ''] as const)
  const texts = input.list(server, 'tags').map((tag) => {
    if (typeof tag !== 'string') throw badRequest('tags: must be text.')
    const [, key = tag, value = ''] = /^([^=.]+)[=.](.*)$/s.exec(tag) ?? []
    return [key, value] as const
  })
  const tags = Object.fromEntries([...texts, ...pairs])
  for (const [key, value] of Object.entries(tags)) {
    if (!isTagKey(key) || !isTagValue(value)) {
      throw badRequest('tags: keys of 1 to 127 characters and values of at most 255.')
    }
  }
  if (Object.keys(tags).length > TAGS_MAX) throw badRequest(`tags: at most ${TAGS_MAX}.`)
  return tags
}
