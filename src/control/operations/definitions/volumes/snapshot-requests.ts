import { newId } from '#base/ids.ts'
import {
  drAz,
  findGroup,
  findPair,
  pairsOfGroup,
  productionAz,
  readGroup,
  updatePair,
  volumeAt,
} from '#control/resources/groups.ts'
import {
  countSnapshots,
  findSnapshot,
  insertSnapshot,
  moveSnapshot,
  snapshotStatus,
  snapshotVolumes,
} from '#control/resources/snapshots.ts'
import { readOwnership } from '#control/resources/sync.ts'
import { readVolumes } from '#control/resources/volumes.ts'
import { toJson } from '#control/store/json.ts'
import type { Transaction } from '#control/store/store.ts'
import type { SnapshotRow } from '#control/store/tables/snapshots.ts'
import { decideSnapshot, SNAPSHOTS_PER_PROJECT_MAX } from '#domain/snapshot.ts'
import { type Outcome, type RequestServices, refused } from '../requests.ts'
import { createSnapshot, deleteSnapshot, rollbackSnapshot, SNAPSHOT_RESOURCE } from './snapshots.ts'

/* What is checked before a snapshot operation begins, in the transaction that submits it. */

type Services = Pick<RequestServices, 'store' | 'operations' | 'clock' | 'sites'>

export interface AcceptedSnapshot {
  readonly snapshot: SnapshotRow
  readonly operation: string
}

export interface NewSnapshot {
  readonly project: string
  readonly name: string
  /** The group whose disks are taken, or volumes of one site. */
  readonly of: { readonly group: string } | { readonly volumes: readonly string[] }
  /** null: of a group the site that writes. */
  readonly site: string | null
  readonly description?: string | null
  readonly metadata?: Readonly<Record<string, string>>
}

export type NewSnapshotRefusal =
  | 'GROUP_UNKNOWN'
  | 'GROUP_EMPTY'
  | 'SITE_NOT_OF_GROUP'
  | 'VOLUME_UNKNOWN'
  | 'VOLUME_NOT_READY'
  | 'VOLUMES_OF_TWO_SITES'
  | 'SNAPSHOTS_FULL'

interface Chosen {
  readonly group: string | null
  readonly site: string
  readonly volumes: readonly string[]
}

export async function requestSnapshot(
  services: Services,
  request: NewSnapshot,
): Promise<Outcome<AcceptedSnapshot, NewSnapshotRefusal>> {
  const { store, operations, clock } = services
  const { project, name } = request
  return await store.write(async (tx) => {
    const chosen = 'group' in request.of ? await ofGroup(tx, request) : await ofVolumes(tx, request)
    if (typeof chosen === 'string') return refused(chosen)
    if ((await countSnapshots(tx, project)) >= SNAPSHOTS_PER_PROJECT_MAX) {
      return refused('SNAPSHOTS_FULL')
    }
    const sizes = [...(await readVolumes(tx, chosen.volumes)).values()]
    const now = clock.wallMs()
    const snapshot: SnapshotRow = {
      id: newId(),
      project,
      name,
      description: request.description ?? null,
      metadata: toJson(request.metadata ?? {}),
      size_gb: sizes.reduce((total, { size_gb }) => total + size_gb, 0),
      group_id: chosen.group,
      site: chosen.site,
      volumes: toJson(chosen.volumes),
      status: 'creating',
      facts: null,
      failure_detail: null,
      created_at: now,
      updated_at: now,
    }
    await insertSnapshot(tx, snapshot)
    const operation = await operations.submit(tx, createSnapshot, {
      project,
      resourceType: SNAPSHOT_RESOURCE,
      resourceId: snapshot.id,
      input: { site: chosen.site, volumes: chosen.volumes },
      entities: { snapshot_id: snapshot.id, name },
    })
    return { ok: true, snapshot, operation }
  })
}

async function ofGroup(
  tx: Transaction,
  { project, of, site }: NewSnapshot,
): Promise<Chosen | NewSnapshotRefusal> {
  const group = 'group' in of ? await findGroup(tx, project, of.group) : undefined
  if (group === undefined) return 'GROUP_UNKNOWN'
  const record = (await readOwnership(tx, [group.id])).get(group.id)
  const writes =
    record === undefined || record.state === 'closed' ? productionAz(group) : record.writer
  const at = site ?? writes
  if (at !== group.source_az && at !== group.target_az) return 'SITE_NOT_OF_GROUP'
  const pairs = (await pairsOfGroup(tx, group.id)).filter(
    ({ status }) => status !== 'creating' && status !== 'deleting',
  )
  if (pairs.length === 0) return 'GROUP_EMPTY'
  return { group: group.id, site: at, volumes: pairs.map((pair) => volumeAt(group, pair, at)) }
}

async function ofVolumes(
  tx: Transaction,
  { project, of }: NewSnapshot,
): Promise<Chosen | NewSnapshotRefusal> {
  const ids = 'volumes' in of ? [...new Set(of.volumes)] : []
  const rows = [...(await readVolumes(tx, ids)).values()].filter((row) => row.project === project)
  const [first] = rows
  if (first === undefined || rows.length !== ids.length) return 'VOLUME_UNKNOWN'
  if (rows.some(({ status }) => NOT_READY.has(status))) return 'VOLUME_NOT_READY'
  if (rows.some(({ az }) => az !== first.az)) return 'VOLUMES_OF_TWO_SITES'
  return { group: null, site: first.az, volumes: ids }
}

const NOT_READY: ReadonlySet<string> = new Set(['creating', 'error', 'deleting', 'error_deleting'])

export type SnapshotChangeRefusal =
  | 'SNAPSHOT_UNKNOWN'
  | 'SNAPSHOT_STATE'
  | 'VOLUME_PAIRED'
  | 'VOLUME_GONE'
  | 'VOLUME_ATTACHED'

/** Deletes it, or sets its volumes back to it. */
export async function requestSnapshotChange(
  services: Services,
  project: string,
  id: string,
  command: 'delete' | 'rollback',
): Promise<Outcome<AcceptedSnapshot, SnapshotChangeRefusal>> {
  const { store, operations, clock } = services
  return await store.write(async (tx) => {
    const snapshot = await findSnapshot(tx, project, id)
    if (snapshot === undefined) return refused('SNAPSHOT_UNKNOWN')
    const decision = decideSnapshot(snapshotStatus(snapshot), command)
    if (!decision.ok) return decision
    if (command === 'delete' && (await isBeingCloned(tx, id))) return refused('SNAPSHOT_STATE')
    const hindrance = command === 'rollback' ? await hindranceOf(tx, snapshot) : null
    if (hindrance !== null) return refused(hindrance)
    if (command === 'rollback') await forgetEquality(tx, snapshot, clock.wallMs())
    await moveSnapshot(tx, id, decision.via, { failure_detail: null }, clock.wallMs())
    const kind = command === 'rollback' ? rollbackSnapshot : deleteSnapshot
    const operation = await operations.submit(tx, kind, {
      project,
      resourceType: SNAPSHOT_RESOURCE,
      resourceId: id,
      input: { site: snapshot.site },
      entities: { snapshot_id: id, name: snapshot.name },
    })
    return { ok: true, snapshot: { ...snapshot, status: decision.via }, operation }
  })
}

/** The DR disk of a paused pair that is set back is no longer what production was when the two parted. */
async function forgetEquality(tx: Transaction, snapshot: SnapshotRow, now: number): Promise<void> {
  for (const { id, pair, project } of (await readVolumes(tx, snapshotVolumes(snapshot))).values()) {
    const found = pair === null ? undefined : await findPair(tx, project, pair)
    const group = found === undefined ? undefined : await readGroup(tx, found.group_id)
    if (found?.progress !== 100 || group === undefined) continue
    if (volumeAt(group, found, drAz(group)) !== id) continue
    await updatePair(tx, found.id, { progress: 99 }, now)
  }
}

/** A volume that is being made from it would stay half made. */
async function isBeingCloned(tx: Transaction, snapshot: string): Promise<boolean> {
  const row = await tx
    .selectFrom('volumes')
    .select('id')
    .where('snapshot', '=', snapshot)
    .where('status', '=', 'creating')
    .executeTakeFirst()
  return row !== undefined
}

/** Blocks that change behind the back of replication would make the two sites differ for ever, so a paired volume is never set back. */
async function hindranceOf(
  tx: Transaction,
  snapshot: SnapshotRow,
): Promise<SnapshotChangeRefusal | null> {
  const ids = snapshotVolumes(snapshot)
  const rows = await readVolumes(tx, ids)
  if (ids.some((id) => rows.get(id) === undefined)) return 'VOLUME_GONE'
  for (const { pair, project, status } of rows.values()) {
    const found = pair === null ? undefined : await findPair(tx, project, pair)
    if (found?.in_session === 1) return 'VOLUME_PAIRED'
    if (status === 'in-use') return 'VOLUME_ATTACHED'
  }
  return null
}
