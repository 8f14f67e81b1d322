import { newId } from '#base/ids.ts'
import {
  diskBackupsOf,
  GROUP_TYPE,
  itemFacts,
  readCheckpoint,
  updateItem,
} from '#control/resources/checkpoints.ts'
import { insertRestore } from '#control/resources/restores.ts'
import { findServer, serverFacts, serversOfVolume } from '#control/resources/servers.ts'
import { quotaLimit, quotaUsed } from '#control/resources/surroundings.ts'
import {
  attachmentsOf,
  findVolume,
  insertVolume,
  listVolumeTypes,
} from '#control/resources/volumes.ts'
import { toJson } from '#control/store/json.ts'
import type { Transaction } from '#control/store/store.ts'
import type {
  CheckpointItemRow,
  DiskBackupRow,
  RestoreRow,
} from '#control/store/tables/checkpoints.ts'
import { decideItem } from '#domain/checkpoint.ts'
import { fits } from '#domain/quota.ts'
import { DEFAULT_VOLUME_TYPE } from '#domain/volume-type.ts'
import { SERVER_BACKUP_RESOURCE } from './backup.ts'
import { findItemOrOnly } from './backup-requests.ts'
import { serverDisks } from './backup-source.ts'
import { placeOf, runningServer } from './backup-target.ts'
import { type Outcome, type RequestServices, refused } from '../requests.ts'
import { restoreItem } from './restore.ts'
import { checkRestore, originsOf, type RestoreRefusal } from './restore-requests.ts'
import { restoredKeys, restoreVolumes, type RestoreVolumes } from './restore-volumes.ts'

/* Restores in the forms that the published API does not have: some of the disks, volumes without a server, all disks of a group, new volumes. */

export type RestoreFormRefusal =
  | RestoreRefusal
  | 'SITE_UNKNOWN'
  | 'TYPE_UNKNOWN'
  | 'QUOTA_VOLUMES'
  | 'QUOTA_GIGABYTES'
  | 'VOLUME_UNKNOWN'
  /** Being made, deleted or grown, or neither side of its pair may write it. */
  | 'VOLUME_STATE'
  /** Somebody outside of this installation has it. */
  | 'VOLUME_ATTACHED'
  | 'VOLUMES_OF_TWO_SITES'

export interface RestoreForm {
  readonly project: string
  readonly user: string
  readonly item: string
  readonly provider: string
  /** Disk backups by their id, or by the id of the disk that they are of; empty: all. `volume` null: where it came from. */
  readonly disks: readonly { readonly backup: string; readonly volume: string | null }[]
  readonly to:
    | { readonly kind: 'server'; readonly server: string }
    /** The disks that are there. */
    | { readonly kind: 'volumes' }
    | {
        readonly kind: 'new'
        /** null: made up of the disks' names. */
        readonly name: string | null
        readonly type: string | null
        /** null: that of the server that the backup is of. */
        readonly site: string | null
      }
  readonly powerOn: boolean
  /** Bytes per second; 0: what the region allows. */
  readonly rateBytes: number
  /** As given, for whoever asks later. */
  readonly parameters: unknown
}

export interface AcceptedRestore {
  readonly restore: RestoreRow
  readonly operation: string
  readonly volumes: readonly string[]
}

type Chosen = readonly { readonly backup: DiskBackupRow; readonly volume: string | null }[]
type Services = Pick<RequestServices, 'store' | 'operations' | 'clock' | 'sites'>

export async function requestRestoreForm(
  services: Services,
  form: RestoreForm,
): Promise<Outcome<AcceptedRestore, RestoreFormRefusal>> {
  return await services.store.write(async (tx) => {
    const item = await findItemOrOnly(tx, form.project, form.item)
    if (item === undefined) return refused('ITEM_UNKNOWN')
    const decision = decideItem(itemFacts(item), 'restore')
    if (!decision.ok) return decision
    const backups = (await diskBackupsOf(tx, [item.id])).get(item.id) ?? []
    const chosen = choose(backups, form.disks)
    if (chosen === null) return refused('BACKUP_NOT_OF_ITEM')
    switch (form.to.kind) {
      case 'server':
        return await toServer(tx, services, form, item, chosen, form.to.server)
      case 'new':
        return await toNewVolumes(tx, services, form, item, chosen)
      case 'volumes':
        return await toVolumes(tx, services, form, item, chosen)
    }
  })
}

/** null: something is named that is not in the backup, or twice. */
function choose(backups: readonly DiskBackupRow[], wanted: RestoreForm['disks']): Chosen | null {
  if (wanted.length === 0) return backups.map((backup) => ({ backup, volume: null }))
  const found = wanted.flatMap(({ backup: id, volume }) => {
    const backup = backups.find((one) => one.id === id || one.volume === id)
    return backup === undefined ? [] : [{ backup, volume }]
  })
  const different = new Set(found.map(({ backup }) => backup.id)).size
  return different === wanted.length ? found : null
}

async function toServer(
  tx: Transaction,
  { operations, clock }: Services,
  form: RestoreForm,
  item: CheckpointItemRow,
  chosen: Chosen,
  serverId: string,
): Promise<Outcome<AcceptedRestore, RestoreFormRefusal>> {
  const { project } = form
  const named = await findServer(tx, project, serverId)
  if (named === undefined) return refused('TARGET_UNKNOWN')
  const server = (await runningServer(tx, named)).id
  const disks = await serverDisks(tx, server)
  const origins = new Map(
    originsOf(
      chosen.map(({ backup }) => backup),
      disks,
    ).map(({ backup, volume }) => [backup, volume]),
  )
  const pairs = chosen.map(({ backup, volume }) => ({
    backup: backup.id,
    volume: volume ?? origins.get(backup.id) ?? backup.volume,
  }))
  // Of a group's backup, a server gets what it has; of its own, nothing is left out silently.
  const all = form.disks.length === 0 && item.resource_type === GROUP_TYPE
  const mapping = all
    ? pairs.filter(({ volume }) => disks.some((disk) => disk.volume === volume))
    : pairs
  if (mapping.length === 0) return refused('DISK_NOT_ATTACHED')
  const target = { project, item: item.id, server, mapping, part: true }
  const checked = await checkRestore(tx, target)
  if (!checked.ok) return checked
  const now = clock.wallMs()
  const restore = restoreRow(form, item, [`OS::Nova::Server#${server}`], now)
  await insertRestore(tx, restore)
  await updateItem(tx, item.id, { status: 'waiting_restore', progress: 0 }, now)
  const operation = await operations.submit(tx, restoreItem, {
    project,
    resourceType: SERVER_BACKUP_RESOURCE,
    resourceId: server,
    input: {
      restore: restore.id,
      item: item.id,
      powerOn: form.powerOn,
      disks: checked.disks,
      rateBytes: form.rateBytes,
    },
    entities: { restore_id: restore.id, checkpoint_item_id: item.id, server_id: server },
  })
  return { ok: true, restore, operation, volumes: mapping.map(({ volume }) => volume) }
}

// ---------------------------------------------------------------- volumes that are there

async function toVolumes(
  tx: Transaction,
  services: Services,
  form: RestoreForm,
  item: CheckpointItemRow,
  chosen: Chosen,
): Promise<Outcome<AcceptedRestore, RestoreFormRefusal>> {
  const disks: { name: string; volume: string; sizeGb: number }[] = []
  const servers = new Set<string>()
  const sites = new Set<string>()
  for (const { backup, volume: named } of chosen) {
    const row = await findVolume(tx, form.project, named ?? backup.volume)
    if (row === undefined) return refused('VOLUME_UNKNOWN')
    const place = await placeOf(tx, row)
    if (place === null) return refused('VOLUME_STATE')
    const { volume, site } = place
    const wrong = await volumeRefusal(tx, form.project, backup, volume.id)
    if (wrong !== null) return refused(wrong)
    for (const { server } of await serversOfVolume(tx, volume.id)) servers.add(server)
    sites.add(site)
    disks.push({ name: backup.volume, volume: volume.id, sizeGb: backup.size_gb })
  }
  if (new Set(disks.map(({ volume }) => volume)).size < disks.length) {
    return refused('BACKUPS_UNMAPPED')
  }
  if (sites.size > 1) return refused('VOLUMES_OF_TWO_SITES')
  for (const id of servers) {
    const server = await findServer(tx, form.project, id)
    if (server === undefined) return refused('TARGET_UNKNOWN')
    const { status, task, production } = await serverFacts(tx, server)
    const settled = status === 'active' || status === 'stopped' || status === 'error'
    if (task !== null || !settled || !production) return refused('TARGET_STATE')
  }
  return await submit(tx, services, form, item, { site: null, disks, servers: [...servers] })
}

const USABLE: ReadonlySet<string> = new Set(['available', 'in-use'])

async function volumeRefusal(
  tx: Transaction,
  project: string,
  backup: DiskBackupRow,
  id: string,
): Promise<RestoreFormRefusal | null> {
  const volume = await findVolume(tx, project, id)
  if (volume === undefined) return 'VOLUME_UNKNOWN'
  if (!USABLE.has(volume.status)) return 'VOLUME_STATE'
  if (volume.multiattach === 1) return 'DISK_SHARED'
  if (volume.size_gb < backup.size_gb) return 'DISK_TOO_SMALL'
  const ours = await serversOfVolume(tx, id)
  const strange = attachmentsOf(volume).some(({ server }) =>
    ours.every((disk) => disk.server !== server),
  )
  if (strange) return 'VOLUME_ATTACHED'
  if (ours.some(({ state }) => state !== 'attached')) return 'VOLUME_STATE'
  const system = ours.some(({ boot_index: boot }) => boot === 0)
  return system && backup.system === 0 ? 'DISK_IS_SYSTEM' : null
}

// ---------------------------------------------------------------- new volumes

async function toNewVolumes(
  tx: Transaction,
  services: Services,
  form: RestoreForm,
  item: CheckpointItemRow,
  chosen: Chosen,
): Promise<Outcome<AcceptedRestore, RestoreFormRefusal>> {
  const { project, user, to } = form
  if (to.kind !== 'new') return refused('VOLUME_UNKNOWN')
  const { sites, clock } = services
  // A replica may be of a server at a site that this region does not have.
  const home = sites.includes(item.resource_az) ? item.resource_az : (sites[0] ?? '')
  const site = to.site ?? home
  if (!sites.includes(site)) return refused('SITE_UNKNOWN')
  const type = to.type ?? DEFAULT_VOLUME_TYPE
  if (!(await listVolumeTypes(tx)).some(({ name }) => name === type)) return refused('TYPE_UNKNOWN')
  const sizeGb = chosen.reduce((sum, { backup }) => sum + backup.size_gb, 0)
  const [used, usedGb] = [
    await quotaUsed(tx, project, 'volumes'),
    await quotaUsed(tx, project, 'gigabytes'),
  ]
  if (!fits(await quotaLimit(tx, project, 'volumes'), used, chosen.length)) {
    return refused('QUOTA_VOLUMES')
  }
  if (!fits(await quotaLimit(tx, project, 'gigabytes'), usedGb, sizeGb)) {
    return refused('QUOTA_GIGABYTES')
  }
  const disks: { name: string; volume: string; sizeGb: number }[] = []
  for (const [index, { backup }] of chosen.entries()) {
    const base = to.name ?? `restored-${backup.volume_name ?? item.resource_name}`
    const name = to.name === null || chosen.length === 1 ? base : `${base}-${index + 1}`
    const row = await insertVolume(
      tx,
      {
        id: newId(),
        project,
        user,
        name: name.slice(0, 255),
        description: `From backup ${item.name}`.slice(0, 255),
        sizeGb: backup.size_gb,
        type,
        az: site,
        metadata: {},
        bootable: backup.system === 1,
        multiattach: false,
        pair: null,
      },
      clock.wallMs(),
    )
    disks.push({ name: backup.volume, volume: row.id, sizeGb: backup.size_gb })
  }
  return await submit(tx, services, form, item, { site, disks, servers: [] })
}

async function submit(
  tx: Transaction,
  { operations, clock }: Services,
  form: RestoreForm,
  item: CheckpointItemRow,
  { site, disks, servers }: Pick<RestoreVolumes, 'site' | 'disks' | 'servers'>,
): Promise<Outcome<AcceptedRestore, RestoreFormRefusal>> {
  const now = clock.wallMs()
  const checkpoint = await readCheckpoint(tx, item.checkpoint)
  if (checkpoint === undefined) return refused('CHECKPOINT_UNKNOWN')
  const restore = restoreRow(form, item, restoredKeys({ disks, servers }), now)
  await insertRestore(tx, restore)
  await updateItem(tx, item.id, { status: 'waiting_restore', progress: 0 }, now)
  const [server, ...others] = servers
  const operation = await operations.submit(tx, restoreVolumes, {
    project: form.project,
    resourceType: SERVER_BACKUP_RESOURCE,
    // Takes its turn with backups of the same; new volumes stand in nobody's way.
    resourceId:
      site !== null
        ? restore.id
        : server !== undefined && others.length === 0
          ? server
          : item.resource,
    input: {
      restore: restore.id,
      item: item.id,
      site,
      disks,
      servers,
      powerOn: form.powerOn,
      rateBytes: form.rateBytes,
    },
    entities: { restore_id: restore.id, checkpoint_item_id: item.id },
  })
  return { ok: true, restore, operation, volumes: disks.map(({ volume }) => volume) }
}

function restoreRow(
  { project, provider, parameters }: RestoreForm,
  item: CheckpointItemRow,
  keys: readonly string[],
  now: number,
): RestoreRow {
  return {
    id: newId(),
    project,
    provider,
    checkpoint: item.checkpoint,
    item: item.id,
    status: 'in_progress',
    target: null,
    parameters: toJson(parameters),
    resources_status: toJson(Object.fromEntries(keys.map((key) => [key, 'restoring']))),
    resources_reason: toJson({}),
    created_at: now,
    updated_at: now,
  }
}
