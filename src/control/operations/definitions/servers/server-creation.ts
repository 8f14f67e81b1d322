import { newId } from '#base/ids.ts'
import { findImage } from '#control/resources/images.ts'
import { createPort, findPort, isFreePort, movePort } from '#control/resources/networks.ts'
import {
  findKeypair,
  insertServer,
  putDiskIn,
  SERVER_RESOURCE,
} from '#control/resources/servers.ts'
import { quotaLimit, quotaUsed } from '#control/resources/surroundings.ts'
import { DEFAULT_VOLUME_TYPE } from '#domain/volume-type.ts'
import { setTags } from '#control/resources/tags.ts'
import { findVolume, insertVolume, listVolumeTypes } from '#control/resources/volumes.ts'
import { bit } from '#control/store/bit.ts'
import { toJson } from '#control/store/json.ts'
import type { Transaction } from '#control/store/store.ts'
import type { VolumeRow } from '#control/store/tables/resources.ts'
import type { ImageRow, ServerRow } from '#control/store/tables/servers.ts'
import { findFlavor } from '#domain/flavor.ts'
import { fits } from '#domain/quota.ts'
import { nameDisks } from '#domain/server-disks.ts'
import { SYSTEM_DISK_GB_MAX, VOLUME_GB_MAX } from '#domain/volume.ts'
import { DISKS_MAX, NICS_MAX } from '#wire/site/servers.ts'
import { type Outcome, type RequestServices, refused } from '../requests.ts'
import { type CreateServer, createServer, createServers, SERVER_BATCH } from './servers.ts'
import { attachable } from './server-volumes.ts'

/* New servers: what a request says, what is checked, and the rows that stand from then on. */

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
  | 'QUOTA_PORTS'
  | 'NO_ROOT_DISK'
  | 'TWO_ROOT_DISKS'
  | 'TOO_MANY_DISKS'
  | 'TOO_MANY_NICS'
  | 'TOO_MANY_TAGS'
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

/**
 * One server, or `count` of them with numbered names: all or none. The operation has a sub-operation for each (`entities.server_id`),
 * which ends when the server runs.
 */
export async function requestServers(
  services: RequestServices,
  request: NewServerRequest,
  count: number,
): Promise<
  Outcome<
    { readonly servers: readonly ServerRow[]; readonly operation: string },
    ServerCreationRefusal
  >
> {
  const { store, operations } = services
  try {
    return await store.write(async (tx) => {
      const plan = await makePlan(tx, services, request, count)
      const operation = await operations.submit(tx, createServers, {
        project: request.project,
        resourceType: SERVER_BATCH,
        resourceId: newId(),
        input: {},
      })
      const servers: ServerRow[] = []
      for (let index = 1; index <= count; index++) {
        const name =
          count === 1 ? request.name : `${request.name}-${String(index).padStart(4, '0')}`
        const { server, input } = await makeRows(tx, services, request, plan, name)
        await operations.submit(tx, createServer, {
          project: request.project,
          parent: operation,
          resourceType: SERVER_RESOURCE,
          resourceId: server.id,
          input,
          entities: { server_id: server.id, name },
        })
        servers.push(server)
      }
      return { ok: true, servers, operation }
    })
  } catch (error) {
    if (error instanceof CreationRefused) return refused(error.refusal)
    throw error
  }
}

/** Ends the transaction: some rows were made before the reason showed. */
class CreationRefused extends Error {
  override readonly name = 'CreationRefused'
  readonly refusal: ServerCreationRefusal
  constructor(refusal: ServerCreationRefusal) {
    super(refusal)
    this.refusal = refusal
  }
}

const refuse = (refusal: ServerCreationRefusal): never => {
  throw new CreationRefused(refusal)
}

// ---------------------------------------------------------------- checks

interface PlannedDisk {
  readonly device: string
  readonly bootIndex: number | null
  readonly deleteWithServer: boolean
  readonly made:
    | { readonly kind: 'new'; sizeGb: number; type: string; image: ImageRow | null }
    | { readonly kind: 'existing'; volume: VolumeRow }
}

interface Plan {
  readonly az: string
  readonly disks: readonly PlannedDisk[]
  /** Id of the root disk's image. */
  readonly image: string | null
}

async function makePlan(
  tx: Transaction,
  services: RequestServices,
  request: NewServerRequest,
  count: number,
): Promise<Plan> {
  const { project } = request
  const flavor = findFlavor(request.flavor) ?? refuse('FLAVOR_UNKNOWN')
  if (request.nics.length > NICS_MAX) refuse('TOO_MANY_NICS')
  if (request.keyName !== null && (await findKeypair(tx, project, request.keyName)) === undefined) {
    refuse('KEYPAIR_UNKNOWN')
  }
  const fixed =
    request.disks.some(({ source }) => source.kind === 'volume') ||
    request.nics.some(({ port, address }) => port !== null || address !== null)
  if (count > 1 && fixed) refuse('NOT_FOR_SEVERAL')
  const wished = withImplicitRoot(request)
  if (wished.length > DISKS_MAX) refuse('TOO_MANY_DISKS')
  const named = nameDisks(wished)
  if (!named.ok) return refuse(named.refusal)
  const disks: PlannedDisk[] = []
  for (const [index, wish] of wished.entries()) {
    disks.push({
      device: named.devices[index] ?? '',
      bootIndex: wish.bootIndex,
      deleteWithServer: wish.deleteWithServer,
      made: await planDisk(tx, project, wish, flavor.memoryMb),
    })
  }
  const az = chooseAz(services, request, disks)
  await checkQuotas(tx, project, disks, count)
  const root = disks.find((disk) => disk.bootIndex === 0)?.made
  return { az, disks, image: root?.kind === 'new' ? (root.image?.id ?? null) : null }
}

/** The root disk of a request that names its image and no disk for it. It goes with the server: nobody asked for a volume. */
function withImplicitRoot({ image, disks }: NewServerRequest): readonly NewServerDisk[] {
  if (image === null || disks.some((disk) => disk.bootIndex === 0)) return disks
  const root: NewServerDisk = {
    source: { kind: 'image', image },
    sizeGb: null,
    bootIndex: 0,
    device: null,
    deleteWithServer: true,
    type: null,
  }
  return [root, ...disks]
}

async function planDisk(
  tx: Transaction,
  project: string,
  wish: NewServerDisk,
  memoryMb: number,
): Promise<PlannedDisk['made']> {
  const root = wish.bootIndex === 0
  if (wish.source.kind === 'volume') {
    const volume = (await findVolume(tx, project, wish.source.volume)) ?? refuse('VOLUME_UNKNOWN')
    if (root && volume.bootable !== 1) refuse('VOLUME_NOT_BOOTABLE')
    return { kind: 'existing', volume }
  }
  const image =
    wish.source.kind === 'image'
      ? ((await findImage(tx, wish.source.image)) ?? refuse('IMAGE_UNKNOWN'))
      : null
  if (image !== null && image.min_memory_mb > memoryMb) refuse('FLAVOR_TOO_SMALL')
  const least = image?.min_disk_gb ?? 1
  if (image === null && wish.sizeGb === null) refuse('SIZE_MISSING')
  if (wish.sizeGb !== null && wish.sizeGb < (image === null ? 1 : 0)) refuse('SIZE_TOO_SMALL')
  const sizeGb = Math.max(wish.sizeGb ?? 0, least)
  if (sizeGb > (root ? SYSTEM_DISK_GB_MAX : VOLUME_GB_MAX)) refuse('SIZE_TOO_LARGE')
  const types = (await listVolumeTypes(tx)).map(({ name }) => name)
  const asked = (wish.type ?? DEFAULT_VOLUME_TYPE).toLowerCase()
  const type = types.find((name) => name.toLowerCase() === asked) ?? refuse('TYPE_UNKNOWN')
  return { kind: 'new', sizeGb, type, image }
}

function chooseAz(
  services: RequestServices,
  request: NewServerRequest,
  disks: readonly PlannedDisk[],
): string {
  const volumes = disks.flatMap(({ made }) => (made.kind === 'existing' ? [made.volume] : []))
  const az = request.az ?? volumes[0]?.az ?? services.sites[0] ?? ''
  if (!services.sites.includes(az)) refuse('AZ_UNKNOWN')
  if (volumes.some((volume) => volume.az !== az)) refuse('VOLUME_OTHER_AZ')
  return az
}

async function checkQuotas(
  tx: Transaction,
  project: string,
  disks: readonly PlannedDisk[],
  count: number,
): Promise<void> {
  const sizes = disks.flatMap(({ made }) => (made.kind === 'new' ? [made.sizeGb] : []))
  const wanted = [
    ['instances', count, 'QUOTA_INSTANCES'],
    ['volumes', count * sizes.length, 'QUOTA_VOLUMES'],
    ['gigabytes', count * sizes.reduce((sum, size) => sum + size, 0), 'QUOTA_GIGABYTES'],
  ] as const
  for (const [kind, more, refusal] of wanted) {
    const used = await quotaUsed(tx, project, kind)
    if (!fits(await quotaLimit(tx, project, kind), used, more)) refuse(refusal)
  }
}

// ---------------------------------------------------------------- rows

async function makeRows(
  tx: Transaction,
  services: RequestServices,
  request: NewServerRequest,
  plan: Plan,
  name: string,
): Promise<{ readonly server: ServerRow; readonly input: CreateServer }> {
  const { project } = request
  const now = services.clock.wallMs()
  const id = newId()
  const server: ServerRow = {
    id,
    project,
    user_id: request.user,
    name,
    description: request.description,
    az: plan.az,
    vpc: await makeNics(tx, request, id, now),
    flavor: request.flavor,
    image: plan.image,
    key_name: request.keyName,
    status: 'building',
    task: 'scheduling',
    generation: 1,
    power: 'off',
    power_at: 0,
    fault: null,
    metadata: toJson(request.metadata),
    auto_recovery: bit(request.autoRecovery),
    instance: null,
    launched_at: null,
    created_at: now,
    updated_at: now,
  }
  await insertServer(tx, server)
  const tags = Object.entries(request.tags).map(([key, value]) => ({ key, value }))
  if (!(await setTags(tx, { kind: 'server', project, resource: id }, tags))) {
    refuse('TOO_MANY_TAGS')
  }
  const input: CreateServer['volumes'][number][] = []
  let dataDisks = 0
  for (const disk of plan.disks) {
    const root = disk.bootIndex === 0
    const diskName = root ? name : `${name}-volume-${String(++dataDisks).padStart(4, '0')}`
    const volume =
      disk.made.kind === 'new'
        ? await makeVolume(tx, request, plan.az, disk.made, diskName, root, now)
        : disk.made.volume
    // Not before: the row of the first server changes what the second may have.
    if (disk.made.kind === 'existing') {
      const present = await findVolume(tx, project, volume.id)
      const refusal =
        present === undefined ? 'VOLUME_UNKNOWN' : await attachable(tx, server, present)
      if (refusal !== null) refuse(refusal)
    } else {
      const { sizeGb, image } = disk.made
      const one = { volume: volume.id, sizeGb, content: image?.content ?? null }
      if (root) input.unshift(one)
      else input.push(one)
    }
    const { device, bootIndex, deleteWithServer } = disk
    await putDiskIn(
      tx,
      { server, volume, device, bootIndex, deleteWithServer, state: 'attaching' },
      now,
    )
  }
  return { server, input: { volumes: input } }
}

async function makeVolume(
  tx: Transaction,
  { project, user }: NewServerRequest,
  az: string,
  made: Extract<PlannedDisk['made'], { kind: 'new' }>,
  name: string,
  root: boolean,
  nowMs: number,
): Promise<VolumeRow> {
  return await insertVolume(
    tx,
    {
      id: newId(),
      project,
      user,
      name,
      description: null,
      sizeGb: made.sizeGb,
      type: made.type,
      az,
      metadata: {},
      bootable: root,
      multiattach: false,
      pair: null,
      image: made.image?.id ?? null,
    },
    nowMs,
  )
}

/** Makes or takes the ports; answers the VPC of the first. */
async function makeNics(
  tx: Transaction,
  { project, nics }: NewServerRequest,
  server: string,
  nowMs: number,
): Promise<string> {
  const wished: readonly NewServerNic[] =
    nics.length > 0 ? nics : [{ port: null, subnet: null, address: null, securityGroups: [] }]
  const subnets: string[] = []
  for (const [place, nic] of wished.entries()) {
    if (nic.port === null) {
      const { subnet, address, securityGroups } = nic
      const wanted = {
        project,
        subnet,
        address,
        server,
        place,
        securityGroups,
        deleteWithServer: true,
        name: '',
      }
      const made = await createPort(tx, wanted, nowMs)
      if (!made.ok) return refuse(made.refusal)
      subnets.push(made.port.subnet)
      continue
    }
    const port = (await findPort(tx, project, nic.port)) ?? refuse('PORT_UNKNOWN')
    if (!isFreePort(port)) refuse('PORT_TAKEN')
    await movePort(tx, port.id, server, place)
    subnets.push(port.subnet)
  }
  const { vpc } = await tx
    .selectFrom('subnets')
    .select('vpc')
    .where('id', '=', subnets[0] ?? '')
    .executeTakeFirstOrThrow()
  return vpc
}
