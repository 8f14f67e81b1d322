import Type, { type Static } from 'typebox'

/* Servers as the control plane and a site's agent speak of them. Only the control plane knows why a server exists; the agent carries
 * out a definition, whole and by number: a definition with a lower generation than the one held is refused (STALE_GENERATION), the same
 * one again changes nothing but repeats what has not been reached yet. */

const Id = Type.String({ minLength: 1, maxLength: 64, pattern: '^[0-9a-zA-Z-]+$' })
const Generation = Type.Integer({ minimum: 1, maximum: 4_294_967_295 })
const nullable = <T extends Type.TSchema>(schema: T) => Type.Union([schema, Type.Null()])

/** PCIe root ports of a guest, so also the most that can be plugged into it. */
export const DISKS_MAX = 24
export const NICS_MAX = 8

export const ServerDisk = Type.Object({
  /** A volume of this site. The guest sees the first 20 characters of its id as the disk's serial number. */
  volume: Id,
  /** `/dev/vda` ... Order and name in the inventory; the guest may see another letter. */
  device: Type.String({ pattern: '^/dev/vd[a-z]$' }),
  /** Place in the boot order from 0; null: not booted from. */
  boot_index: nullable(Type.Integer({ minimum: 0, maximum: DISKS_MAX })),
})
export type ServerDisk = Static<typeof ServerDisk>

export const ServerNic = Type.Object({
  port: Id,
  /** Lower case, with colons. */
  mac: Type.String({ pattern: '^[0-9a-f]{2}(:[0-9a-f]{2}){5}$' }),
  /** IPv4. Given out by DHCP; frames from another address are dropped. */
  address: Type.String({ pattern: '^[0-9]{1,3}(\\.[0-9]{1,3}){3}$' }),
  prefix_length: Type.Integer({ minimum: 8, maximum: 30 }),
  gateway: nullable(Type.String()),
  dns: Type.Array(Type.String(), { maxItems: 5 }),
  /** NICs of one network reach each other at layer 2. */
  network: Id,
  /** Networks of one domain (a VPC) reach each other through their gateways; nothing leaves a domain. */
  domain: Id,
})
export type ServerNic = Static<typeof ServerNic>

export const ServerDefinition = Type.Object({
  server: Id,
  generation: Generation,
  /** Host name offered by DHCP, and the name of the guest in process lists. */
  name: Type.String({ minLength: 1, maxLength: 255 }),
  vcpus: Type.Integer({ minimum: 1, maximum: 64 }),
  memory_mb: Type.Integer({ minimum: 96, maximum: 1_048_576 }),
  disks: Type.Array(ServerDisk, { maxItems: DISKS_MAX }),
  nics: Type.Array(ServerNic, { maxItems: NICS_MAX }),
})
export type ServerDefinition = Static<typeof ServerDefinition>

/** running: the hypervisor executes it · off · paused: the hypervisor stopped it, its disks failed say · unknown: it does not answer */
export const Power = Type.Union([
  Type.Literal('running'),
  Type.Literal('off'),
  Type.Literal('paused'),
  Type.Literal('unknown'),
])
export type Power = Static<typeof Power>

export const ServerInfo = Type.Object({
  server: Id,
  generation: Generation,
  power: Power,
  /** Wall clock of the site, ms, when `power` became so. */
  power_since: Type.Number(),
  /** Why the guest is not running although it was asked to; null: no reason to give. */
  reason: nullable(Type.String()),
  /** What the running guest has; of a server that is off, what its next start will have. */
  disks: Type.Array(Type.Object({ volume: Id, device: Type.String() })),
  nics: Type.Array(Type.Object({ port: Id, mac: Type.String() })),
  /** Volumes that the definition no longer has and the guest has not released yet. */
  releasing: Type.Array(Id),
})
export type ServerInfo = Static<typeof ServerInfo>

/** In every report of an agent. */
export const ServerBrief = Type.Object({
  server: Id,
  generation: Generation,
  power: Power,
  power_since: Type.Number(),
  reason: nullable(Type.String()),
})
export type ServerBrief = Static<typeof ServerBrief>

export const ComputeStatus = Type.Object({
  /** qemu, libvirt, hooks */
  driver: Type.String(),
  /** tcg, kvm; `none` when the driver does not say. */
  accelerator: Type.String(),
  /** Memory that guests may have together, and have, MiB. */
  memory_mb: Type.Number(),
  memory_used_mb: Type.Number(),
})
export type ComputeStatus = Static<typeof ComputeStatus>

export const ServerRequest = Type.Object({ server: Id })

export const StopRequest = Type.Object({
  server: Id,
  /** True: power off at once. False: ask the guest, and power off when it has not gone after `grace_ms`. */
  hard: Type.Boolean(),
  grace_ms: Type.Integer({ minimum: 0, maximum: 600_000 }),
})

export const RebootRequest = Type.Object({
  server: Id,
  /** Names the request: the same again is not a second reboot. */
  reboot: Id,
  hard: Type.Boolean(),
  grace_ms: Type.Integer({ minimum: 0, maximum: 600_000 }),
})

export const ConsoleRequest = Type.Object({
  server: Id,
  /** Lines from the end; 0: all that is kept. */
  lines: Type.Integer({ minimum: 0, maximum: 100_000 }),
})

export const FillRequest = Type.Object({
  volume: Id,
  /** Name of an image that the site has or can build. */
  image: Id,
  /** Names the request: the same again after it ended changes nothing. */
  fill: Id,
})

export const FillInfo = Type.Object({
  volume: Id,
  image: Id,
  state: Type.Union([Type.Literal('filling'), Type.Literal('filled')]),
  done_bytes: Type.Number(),
  total_bytes: Type.Number(),
})
export type FillInfo = Static<typeof FillInfo>

export const ImageInfo = Type.Object({
  image: Id,
  /** absent: built or fetched at first use · building · ready · failed */
  state: Type.Union([
    Type.Literal('absent'),
    Type.Literal('building'),
    Type.Literal('ready'),
    Type.Literal('failed'),
  ]),
  size_bytes: Type.Number(),
  /** Of the whole image, hex; null until it is ready. */
  sha256: nullable(Type.String()),
  reason: nullable(Type.String()),
})
export type ImageInfo = Static<typeof ImageInfo>
