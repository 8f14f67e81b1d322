import { Fault, fault } from '#base/fault.ts'
import { readGroup, volumeAt } from '#control/resources/groups.ts'
import { disksOf, readServer } from '#control/resources/servers.ts'
import { readOwnership } from '#control/resources/sync.ts'
import { readVolumes } from '#control/resources/volumes.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { VolumeRow } from '#control/store/tables/resources.ts'
import type { ServerDiskRow, ServerRow } from '#control/store/tables/servers.ts'
import { type DiskNow, runningServer } from './backup-target.ts'

/* Where a server's disks are read for a backup, and where they are written by a restore. */

type Db = Queries | Transaction

export const BACKUP_SERVER_GONE = fault({
  code: 'BACKUP_SERVER_GONE',
  retry: 'never',
  text: 'The server, or all of its disks, went away before its backup began.',
  hint: 'Nothing was backed up. Take it out of the policy.',
})

/** Disks that the guest has, in the order of their devices. */
export async function serverDisks(db: Db, server: string): Promise<DiskNow[]> {
  const disks = ((await disksOf(db, [server])).get(server) ?? []).filter(isIn)
  const volumes = await readVolumes(
    db,
    disks.map(({ volume }) => volume),
  )
  const found: DiskNow[] = []
  for (const disk of disks) {
    const volume = volumes.get(disk.volume)
    if (volume !== undefined) found.push(await described(db, disk, volume))
  }
  return found
}

const isIn = ({ state }: ServerDiskRow): boolean => state === 'attached'

async function described(db: Db, disk: ServerDiskRow, volume: VolumeRow): Promise<DiskNow> {
  const pair =
    volume.pair === null
      ? undefined
      : await db
          .selectFrom('replication_pairs')
          .select(['id', 'group_id', 'in_session', 'source_volume'])
          .where('id', '=', volume.pair)
          .executeTakeFirst()
  const session = pair?.in_session === 1 ? pair : undefined
  return {
    volume: disk.volume,
    kept: pair?.source_volume ?? disk.volume,
    name: volume.name,
    sizeGb: volume.size_gb,
    system: disk.boot_index === 0,
    shared: volume.multiattach === 1,
    pair: session?.id ?? null,
    group: session?.group_id ?? null,
  }
}

export interface BackupSource {
  readonly site: string
  /** As the site knows them, in the order of the disks. */
  readonly volumes: readonly string[]
  /** Under which they are kept: the server's own disks, whichever side is read. */
  readonly names: readonly string[]
  /** As whose copy they are read, at the DR side: without it they are what they were when it ended. Left out where they are written. */
  readonly session?: string
}

export interface BackupSources {
  readonly server: ServerRow
  readonly disks: readonly DiskNow[]
  /** In the order of preference. */
  readonly sources: readonly BackupSource[]
}

/**
 * The disks of a server that is protected as a whole, by one group that is in sync, are read at the DR side, where nobody waits for
 * them; when that turns out not to be consistent just then, and for every other server, at its own site. Throws BACKUP_SERVER_GONE.
 */
export async function backupSources(db: Db, serverId: string): Promise<BackupSources> {
  const named = await readServer(db, serverId)
  const server = named === undefined ? undefined : await runningServer(db, named)
  const disks = server === undefined ? [] : await serverDisks(db, server.id)
  if (server === undefined || disks.length === 0) {
    throw new Fault(BACKUP_SERVER_GONE, `backing up ${serverId}`)
  }
  const names = disks.map(({ kept }) => kept)
  const volumes = disks.map(({ volume }) => volume)
  const own = { site: server.az, volumes, names }
  const other = await otherSide(db, server, disks)
  return { server, disks, sources: other === null ? [own] : [{ ...other, names }, own] }
}

async function otherSide(
  db: Db,
  server: ServerRow,
  disks: readonly DiskNow[],
): Promise<Omit<BackupSource, 'names'> | null> {
  const [first] = disks
  const id = first?.group ?? null
  if (id === null || disks.some(({ group }) => group !== id)) return null
  const group = await readGroup(db, id)
  const record = (await readOwnership(db, [id])).get(id)
  if (group === undefined || record === undefined) return null
  if (record.state !== 'in_sync' || record.writer !== server.az) return null
  const site = group.source_az === server.az ? group.target_az : group.source_az
  const pairs = await db
    .selectFrom('replication_pairs')
    .selectAll()
    .where('group_id', '=', id)
    .execute()
  const byId = new Map(pairs.map((pair) => [pair.id, pair]))
  const volumes = disks.flatMap((disk) => {
    const pair = disk.pair === null ? undefined : byId.get(disk.pair)
    return pair === undefined ? [] : [volumeAt(group, pair, site)]
  })
  return volumes.length === disks.length ? { site, volumes, session: id } : null
}
