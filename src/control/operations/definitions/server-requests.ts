import type { ServerRow } from '#control/store/tables/servers.ts'
import type { ServerRefusal } from '#domain/server.ts'
import { type Outcome, type RequestServices, refused } from './requests.ts'

/* What the dialects call to change servers. See requests.ts for what a request promises. */

export interface NewServerDisk {
  readonly source:
    | { readonly kind: 'image'; readonly image: string }
    | { readonly kind: 'volume'; readonly volume: string }
    | { readonly kind: 'blank' }
  /** Null: the least that its source needs. A blank disk needs one. */
  readonly sizeGb: number | null
  /** 0: the root disk. Null: not booted from. */
  readonly bootIndex: number | null
  /** Null: the next free one. */
  readonly device: string | null
  readonly deleteWithServer: boolean
  /** Volume type of a new disk; null: the default. */
  readonly type: string | null
}

export interface NewServerNic {
  /** A port that no server wears. Null: a new one is made and goes with the server. */
  readonly port: string | null
  /** Null: that of the project's default network. Not looked at when a port is given. */
  readonly subnet: string | null
  /** Null: a free one. */
  readonly address: string | null
  /** Empty: the project's default group. */
  readonly securityGroups: readonly string[]
}

export interface NewServerRequest {
  readonly project: string
  readonly user: string
  readonly name: string
  readonly description: string | null
  /** Null: that of its volumes, or the first site. */
  readonly az: string | null
  readonly flavor: string
  /** Image of a root disk that no entry of `disks` describes; null: one of them is the root. */
  readonly image: string | null
  readonly disks: readonly NewServerDisk[]
  /** Empty: one in the default subnet. */
  readonly nics: readonly NewServerNic[]
  readonly keyName: string | null
  readonly metadata: Readonly<Record<string, string>>
  readonly tags: Readonly<Record<string, string>>
  readonly autoRecovery: boolean
}

export type ServerCreationRefusal =
  | 'AZ_UNKNOWN'
  | 'FLAVOR_UNKNOWN'
  | 'IMAGE_UNKNOWN'
  /** The flavor has less memory than the image needs. */
  | 'FLAVOR_TOO_SMALL'
  | 'KEYPAIR_UNKNOWN'
  | 'TYPE_UNKNOWN'
  | 'QUOTA_INSTANCES'
  | 'QUOTA_VOLUMES'
  | 'QUOTA_GIGABYTES'
  | 'NO_ROOT_DISK'
  | 'TWO_ROOT_DISKS'
  | 'TOO_MANY_DISKS'
  | 'TOO_MANY_NICS'
  | 'DEVICE_INVALID'
  | 'DEVICE_TAKEN'
  | 'SIZE_MISSING'
  | 'SIZE_TOO_SMALL'
  | 'SIZE_TOO_LARGE'
  | 'VOLUME_UNKNOWN'
  | 'VOLUME_OTHER_AZ'
  | 'VOLUME_NOT_AVAILABLE'
  | 'VOLUME_NOT_BOOTABLE'
  | 'PORT_UNKNOWN'
  | 'PORT_TAKEN'
  | 'SUBNET_UNKNOWN'
  | 'ADDRESS_OUTSIDE'
  | 'ADDRESS_TAKEN'
  | 'SUBNET_FULL'
  | 'GROUP_UNKNOWN'
  /** Several servers at once, and a volume, port or address that only one of them can have. */
  | 'NOT_FOR_SEVERAL'

export type ServerRequestRefusal =
  | 'SERVER_UNKNOWN'
  | ServerRefusal
  | ServerCreationRefusal
  | 'VOLUME_NOT_ATTACHED'

/**
 * One server, or `count` of them with numbered names: all or none. The operation has a sub-operation for each (`entities.server_id`),
 * which ends when the server runs.
 */
export async function requestServers(
  _services: RequestServices,
  _request: NewServerRequest,
  _count: number,
): Promise<
  Outcome<
    { readonly servers: readonly ServerRow[]; readonly operation: string },
    ServerRequestRefusal
  >
> {
  return await Promise.resolve(refused('FLAVOR_UNKNOWN'))
}

/** All or none. One that is being deleted already is not deleted twice. `deleteVolumes`: also disks that were not marked to go with the server. */
export async function requestServerDeletion(
  _services: RequestServices,
  _project: string,
  _ids: readonly string[],
  _options: { readonly deleteVolumes: boolean },
): Promise<Outcome<{ readonly operation: string }, ServerRequestRefusal>> {
  return await Promise.resolve(refused('SERVER_UNKNOWN'))
}

export interface PowerRequest {
  readonly kind: 'start' | 'stop' | 'reboot'
  /** Without asking the guest. No meaning for a start. */
  readonly hard: boolean
  /** True: an operation that ends at once when it is so already, for callers that need one. Default false. */
  readonly always?: boolean
}

/** `operation` null: it is so already. */
export async function requestPower(
  _services: RequestServices,
  _project: string,
  _id: string,
  _power: PowerRequest,
): Promise<Outcome<{ readonly operation: string | null }, ServerRequestRefusal>> {
  return await Promise.resolve(refused('SERVER_UNKNOWN'))
}

export interface AttachmentRequest {
  readonly volume: string
  /** Null: the next free one. */
  readonly device: string | null
  readonly deleteWithServer: boolean
}

/** The disk's row exists from now on, in state `attaching` until the guest has it. */
export async function requestAttachment(
  _services: RequestServices,
  _project: string,
  _id: string,
  _attachment: AttachmentRequest,
): Promise<Outcome<{ readonly operation: string; readonly device: string }, ServerRequestRefusal>> {
  return await Promise.resolve(refused('SERVER_UNKNOWN'))
}

/** The disk's row is in state `detaching` until the guest has released it, and gone then. */
export async function requestDetachment(
  _services: RequestServices,
  _project: string,
  _id: string,
  _detachment: { readonly volume: string },
): Promise<Outcome<{ readonly operation: string }, ServerRequestRefusal>> {
  return await Promise.resolve(refused('SERVER_UNKNOWN'))
}

/** Another flavor, while it is off. */
export async function requestResize(
  _services: RequestServices,
  _project: string,
  _id: string,
  _flavor: string,
): Promise<Outcome<{ readonly operation: string }, ServerRequestRefusal>> {
  return await Promise.resolve(refused('SERVER_UNKNOWN'))
}

export interface ServerChange {
  readonly name?: string
  readonly description?: string | null
  /** Null removes a key; keys that are not named stay. */
  readonly metadata?: Readonly<Record<string, string | null>>
  readonly autoRecovery?: boolean
}

/** Done at once. A new name reaches the guest when its site is heard next. */
export async function changeServer(
  _services: RequestServices,
  _project: string,
  _id: string,
  _change: ServerChange,
): Promise<Outcome<{ readonly server: ServerRow }, ServerRequestRefusal>> {
  return await Promise.resolve(refused('SERVER_UNKNOWN'))
}
