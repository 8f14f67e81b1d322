import { pairsOfGroup, productionAz, readGroup, volumeAt } from '#control/resources/groups.ts'
import { productionServer, readInstance } from '#control/resources/instances.ts'
import { readServer } from '#control/resources/servers.ts'
import { readOwnership } from '#control/resources/sync.ts'
import { readVolumes } from '#control/resources/volumes.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { ProtectionGroupRow, VolumeRow } from '#control/store/tables/resources.ts'
import type { ServerRow } from '#control/store/tables/servers.ts'

/* Where what is backed up is just now: the server that runs in a protected server's place, and the side of a group that writes. */

type Db = Queries | Transaction

/**
 * After a switch a protected server stands by, and its counterpart at the other site runs with the same disks. Whoever names the server that was protected
 * means the one that runs; a server that was made to stand by stands for itself.
 */
export async function runningServer(db: Db, server: ServerRow): Promise<ServerRow> {
  if (server.instance === null) return server
  const instance = await readInstance(db, server.instance)
  if (instance === undefined || instance.source_server !== server.id) return server
  const group = await readGroup(db, instance.group_id)
  if (group === undefined) return server
  const running = productionServer(group, instance)
  if (running === server.id) return server
  return (await readServer(db, running)) ?? server
}

/** Whether a backup of `resource` is one of this server or of its counterpart. */
export async function isSameServer(db: Db, server: ServerRow, resource: string): Promise<boolean> {
  if (server.id === resource) return true
  if (server.instance === null) return false
  const instance = await readInstance(db, server.instance)
  return instance?.source_server === resource || instance?.target_server === resource
}

/** The side of a group that writes; null: neither may just now. */
export async function writingSite(db: Db, group: ProtectionGroupRow): Promise<string | null> {
  const record = (await readOwnership(db, [group.id])).get(group.id)
  if (record === undefined || record.state === 'closed') return productionAz(group)
  return record.state === 'frozen' ? null : record.writer
}

export interface Place {
  readonly site: string
  /** The disk at that site. */
  readonly volume: VolumeRow
  /** The pair while it replicates; null: written on its own. */
  readonly pair: string | null
}

/** Where a disk is written, whichever of its two sides is named; null: nowhere just now. */
export async function placeOf(db: Db, volume: VolumeRow): Promise<Place | null> {
  const pair =
    volume.pair === null
      ? undefined
      : await db
          .selectFrom('replication_pairs')
          .selectAll()
          .where('id', '=', volume.pair)
          .executeTakeFirst()
  const group = pair === undefined ? undefined : await readGroup(db, pair.group_id)
  if (pair === undefined || group === undefined) return { site: volume.az, volume, pair: null }
  const site = pair.in_session === 1 ? await writingSite(db, group) : productionAz(group)
  if (site === null) return null
  const id = volumeAt(group, pair, site)
  const there = id === volume.id ? volume : (await readVolumes(db, [id])).get(id)
  return there === undefined
    ? null
    : { site, volume: there, pair: pair.in_session === 1 ? pair.id : null }
}

/** A disk that is backed up, as it is just now. */
export interface DiskNow {
  readonly volume: string
  /** Its name in the vault: the same whichever site writes it. */
  readonly kept: string
  readonly name: string | null
  readonly sizeGb: number
  /** A server boots from it. */
  readonly system: boolean
  readonly shared: boolean
  /** Its replication pair while it is in a session; null: written on its own. */
  readonly pair: string | null
  /** Of that pair, or the group whose disks are asked for. */
  readonly group: string | null
}

export interface GroupSources {
  readonly disks: readonly DiskNow[]
  readonly sources: readonly {
    readonly site: string
    readonly volumes: readonly string[]
    readonly names: readonly string[]
    readonly session?: string
  }[]
}

/** All disks of a group: of one that is in sync at the DR side, where nobody waits for them, otherwise where it is written. null: it has none. */
export async function groupSources(
  db: Db,
  group: ProtectionGroupRow,
): Promise<GroupSources | null> {
  const pairs = (await pairsOfGroup(db, group.id)).filter(({ status }) => !PASSING.has(status))
  if (pairs.length === 0) return null
  const record = (await readOwnership(db, [group.id])).get(group.id)
  const inSession = pairs.every(({ in_session }) => in_session === 1)
  const open = record !== undefined && record.state !== 'closed'
  const site = open ? record.writer : productionAz(group)
  const volumes = pairs.map((pair) => volumeAt(group, pair, site))
  const rows = await readVolumes(db, volumes)
  const names = pairs.map(({ source_volume }) => source_volume)
  const disks = pairs.flatMap((pair): DiskNow[] => {
    const row = rows.get(volumeAt(group, pair, site))
    if (row === undefined) return []
    return [
      {
        volume: row.id,
        kept: pair.source_volume,
        name: row.name,
        sizeGb: row.size_gb,
        system: row.bootable === 1,
        shared: row.multiattach === 1,
        pair: pair.in_session === 1 ? pair.id : null,
        group: group.id,
      },
    ]
  })
  if (disks.length !== pairs.length) return null
  const own = { site, volumes, names }
  if (!open || record.state !== 'in_sync' || !inSession) return { disks, sources: [own] }
  const other = site === group.source_az ? group.target_az : group.source_az
  const copies = pairs.map((pair) => volumeAt(group, pair, other))
  const there = { site: other, volumes: copies, names, session: group.id }
  return { disks, sources: [there, own] }
}

const PASSING: ReadonlySet<string> = new Set(['creating', 'deleting'])
