import { assert } from '#base/assert.ts'
import { fromJson, toJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { VolumeRow, VolumeTypeRow } from '#control/store/tables/resources.ts'
import { VOLUME_MOVES, type VolumeFacts, type VolumeStatus } from '#domain/volume.ts'

/** Queries about volumes. Every one that serves a caller is bound to the caller's project. */
type Db = Queries | Transaction

export interface Attachment {
  readonly id: string
  readonly server: string
  readonly device: string
  readonly host: string | null
  readonly mode: string
  readonly at: number
}

export const attachmentsOf = (row: VolumeRow): Attachment[] =>
  fromJson<Attachment[]>(row.attachments)

export const metadataOf = (row: VolumeRow): Record<string, string> =>
  fromJson<Record<string, string>>(row.metadata)

export const volumeFacts = (row: VolumeRow): VolumeFacts => ({
  status: row.status as VolumeStatus,
  sizeGb: row.size_gb,
  bootable: row.bootable === 1,
  multiattach: row.multiattach === 1,
  attached: attachmentsOf(row).length > 0,
  paired: row.pair !== null,
})

export async function findVolume(
  db: Db,
  project: string,
  id: string,
): Promise<VolumeRow | undefined> {
  return await db
    .selectFrom('volumes')
    .selectAll()
    .where('project', '=', project)
    .where('id', '=', id)
    .executeTakeFirst()
}

/** For operations, which know the volume and not the caller. */
export async function readVolume(db: Db, id: string): Promise<VolumeRow | undefined> {
  return await db.selectFrom('volumes').selectAll().where('id', '=', id).executeTakeFirst()
}

export async function readVolumes(db: Db, ids: readonly string[]): Promise<Map<string, VolumeRow>> {
  if (ids.length === 0) return new Map()
  const rows = await db
    .selectFrom('volumes')
    .selectAll()
    .where('id', 'in', [...ids])
    .execute()
  return new Map(rows.map((row) => [row.id, row]))
}

export async function listVolumes(db: Db, project: string): Promise<VolumeRow[]> {
  return await db.selectFrom('volumes').selectAll().where('project', '=', project).execute()
}

export interface NewVolume {
  readonly id: string
  readonly project: string
  readonly name: string | null
  readonly description: string | null
  readonly sizeGb: number
  readonly type: string
  readonly az: string
  readonly metadata: Readonly<Record<string, string>>
  readonly bootable: boolean
  readonly multiattach: boolean
  readonly pair: string | null
  /** The image that it is filled with. Default: none. */
  readonly image?: string | null
  /** The snapshot that it is filled from. Default: none. */
  readonly snapshot?: string | null
  readonly user: string
}

export async function insertVolume(
  tx: Transaction,
  volume: NewVolume,
  nowMs: number,
): Promise<VolumeRow> {
  const row: VolumeRow = {
    id: volume.id,
    project: volume.project,
    name: volume.name,
    description: volume.description,
    size_gb: volume.sizeGb,
    volume_type: volume.type,
    az: volume.az,
    status: 'creating',
    metadata: toJson(volume.metadata),
    bootable: volume.bootable ? 1 : 0,
    multiattach: volume.multiattach ? 1 : 0,
    attachments: toJson([]),
    pair: volume.pair,
    image: volume.image ?? null,
    snapshot: volume.snapshot ?? null,
    user_id: volume.user,
    created_at: nowMs,
    updated_at: nowMs,
  }
  await tx.insertInto('volumes').values(row).execute()
  return row
}

/** Moves along the table of moves, or stays. A repeated step finds the state it made and changes nothing. */
export async function moveVolume(
  tx: Transaction,
  id: string,
  to: VolumeStatus,
  nowMs: number,
): Promise<void> {
  const row = await readVolume(tx, id)
  if (row === undefined || row.status === to) return
  assert(
    VOLUME_MOVES[row.status as VolumeStatus].includes(to),
    `a volume does not move from ${row.status} to ${to}`,
  )
  await updateVolume(tx, id, { status: to }, nowMs)
}

export async function updateVolume(
  tx: Transaction,
  id: string,
  change: Partial<Omit<VolumeRow, 'id' | 'project' | 'updated_at' | 'created_at'>>,
  nowMs: number,
): Promise<void> {
  await tx
    .updateTable('volumes')
    .set({ ...change, updated_at: nowMs })
    .where('id', '=', id)
    .execute()
}

/** The row, its tags, and what was ordered about it. */
export async function deleteVolumeRow(tx: Transaction, id: string): Promise<void> {
  await tx.deleteFrom('tags').where('kind', '=', 'volume').where('resource', '=', id).execute()
  await tx.deleteFrom('volume_limits').where('volume', '=', id).execute()
  await tx.deleteFrom('volumes').where('id', '=', id).execute()
}

/** Volumes of a project and the gigabytes they take, by type. */
export async function countVolumes(
  db: Db,
  project: string,
): Promise<{ readonly type: string; readonly volumes: number; readonly gigabytes: number }[]> {
  const rows = await db
    .selectFrom('volumes')
    .select((eb) => [
      'volume_type',
      eb.fn.countAll<number>().as('volumes'),
      eb.fn.sum<number>('size_gb').as('gigabytes'),
    ])
    .where('project', '=', project)
    .groupBy('volume_type')
    .execute()
  return rows.map((row) => ({
    type: row.volume_type,
    volumes: Number(row.volumes),
    gigabytes: Number(row.gigabytes),
  }))
}

export async function listVolumeTypes(db: Db): Promise<VolumeTypeRow[]> {
  return await db.selectFrom('volume_types').selectAll().orderBy('name').execute()
}
