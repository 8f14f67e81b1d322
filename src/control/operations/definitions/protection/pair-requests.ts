import { assert } from '#base/assert.ts'
import { newId } from '#base/ids.ts'
import { fromJson, toJson } from '#control/store/json.ts'
import { isDrillVolume } from '#control/resources/drills.ts'
import {
  drAz,
  findGroup,
  findPairOf,
  groupStation,
  groupStatus,
  insertPair,
  movePair,
  pairsOfGroup,
  pairStatus,
  productionAz,
  readGroup,
  updateGroup,
  updatePair,
  volumeAt,
} from '#control/resources/groups.ts'
import type { PairAttachment } from '#control/resources/instances.ts'
import { quotaLimit, quotaUsed } from '#control/resources/surroundings.ts'
import { findVolume, insertVolume, readVolumes, updateVolume } from '#control/resources/volumes.ts'
import type { Transaction } from '#control/store/store.ts'
import type {
  ProtectionGroupRow,
  ReplicationPairRow,
  VolumeRow,
} from '#control/store/tables/resources.ts'
import { fits } from '#domain/quota.ts'
import {
  decidePair,
  GROUP_STATES_FOR_CREATE,
  PAIRS_OF_GROUP_MAX,
  type PairFacts,
  type PairRefusal,
} from '#domain/replication-pair.ts'
import { hindersPairGrowth, shareReadOnly } from './pair-disks.ts'
import { type CreatePair, createPair, deletePair, expandPair, PAIR_RESOURCE } from './pairs.ts'
import { type Outcome, type RequestServices, refused } from '../requests.ts'

export interface NewPairRequest {
  readonly project: string
  readonly user: string
  readonly group: string
  /** The production disk. */
  readonly volume: string
  readonly name: string
  readonly description: string | null
}

export interface AcceptedPair {
  readonly pair: ReplicationPairRow
  readonly operation: string
}

export type CreatePairRefusal =
  | 'GROUP_UNKNOWN'
  | 'GROUP_STATE'
  | 'VOLUME_UNKNOWN'
  | 'VOLUME_PAIRED'
  | 'VOLUME_OF_DRILL'
  | 'VOLUME_NOT_AVAILABLE'
  | 'VOLUME_NOT_IN_PRODUCTION_AZ'
  | 'QUOTA_PAIRS'
  | 'GROUP_FULL'

export async function requestPair(
  services: RequestServices,
  request: NewPairRequest,
): Promise<Outcome<AcceptedPair, CreatePairRefusal>> {
  const { store, operations, clock } = services
  const { project } = request
  return await store.write(async (tx) => {
    const group = await findGroup(tx, project, request.group, 'sdrs')
    if (group === undefined) return refused('GROUP_UNKNOWN')
    const volume = await findVolume(tx, project, request.volume)
    if (volume === undefined) return refused('VOLUME_UNKNOWN')
    if (!GROUP_STATES_FOR_CREATE.has(groupStatus(group))) return refused('GROUP_STATE')
    if (await isDrillVolume(tx, volume.id)) return refused('VOLUME_OF_DRILL')
    if (volume.pair !== null) return refused('VOLUME_PAIRED')
    if (volume.status !== 'available') return refused('VOLUME_NOT_AVAILABLE')
    if (volume.az !== productionAz(group)) return refused('VOLUME_NOT_IN_PRODUCTION_AZ')
    const used = await quotaUsed(tx, project, 'replications')
    if (!fits(await quotaLimit(tx, project, 'replications'), used)) return refused('QUOTA_PAIRS')

    if ((await pairsOfGroup(tx, group.id)).length >= PAIRS_OF_GROUP_MAX)
      return refused('GROUP_FULL')

    const { pair, dr } = await insertNewPair(
      tx,
      { ...request, group, volume, attachments: [], madeBy: null },
      clock.wallMs(),
    )
    const operation = await operations.submit(tx, createPair, {
      project,
      resourceType: PAIR_RESOURCE,
      resourceId: pair.id,
      input: creationOf(pair, dr),
      entities: pairEntities(pair),
    })
    return { ok: true, pair, operation }
  })
}

export interface NewPairRows {
  readonly project: string
  readonly user: string
  readonly group: ProtectionGroupRow
  /** The production disk. It is in no pair. */
  readonly volume: VolumeRow
  readonly name: string
  readonly description: string | null
  readonly attachments: readonly PairAttachment[]
  /** The protected instance that it is made with; null: on its own. */
  readonly madeBy: string | null
}

/** The rows of a pair and of its DR disk, both in creation. The operation that makes them real is `createPair`. */
export async function insertNewPair(
  tx: Transaction,
  request: NewPairRows,
  now: number,
): Promise<{ readonly pair: ReplicationPairRow; readonly dr: VolumeRow }> {
  const { volume, project } = request
  // Several pairs may be made in one transaction: the number is read again each time.
  const group = await readGroup(tx, request.group.id)
  assert(group !== undefined, 'a pair has a group')
  const id = newId()
  const dr = await insertVolume(
    tx,
    {
      id: newId(),
      project,
      name: volume.name,
      description: volume.description,
      sizeGb: volume.size_gb,
      type: volume.volume_type,
      az: drAz(group),
      metadata: {},
      bootable: volume.bootable === 1,
      multiattach: volume.multiattach === 1,
      pair: id,
      image: volume.image,
      user: request.user,
    },
    now,
  )
  await updateVolume(tx, volume.id, { pair: id }, now)
  await shareReadOnly(tx, volume, dr, now)
  const fromSource = productionAz(group) === group.source_az
  const pair: ReplicationPairRow = {
    id,
    project,
    group_id: group.id,
    name: request.name,
    description: request.description,
    status: 'creating',
    source_volume: fromSource ? volume.id : dr.id,
    target_volume: fromSource ? dr.id : volume.id,
    target_first: 0,
    member: group.next_member,
    in_session: 0,
    added_epoch: 0,
    blank_epoch: null,
    never_replicated: 1,
    progress: 0,
    attachments: toJson(request.attachments),
    failure_detail: null,
    made_by: request.madeBy,
    created_at: now,
    updated_at: now,
  }
  await insertPair(tx, pair)
  await updateGroup(tx, group.id, { next_member: group.next_member + 1 }, now)
  return { pair, dr }
}

/** Input of the operation `createPair`. */
export const creationOf = (pair: ReplicationPairRow, dr: VolumeRow): CreatePair => ({
  group: pair.group_id,
  drVolume: dr.id,
  drAz: dr.az,
  sizeGb: dr.size_gb,
})

/** What jobs show of a pair. */
export const pairEntities = (pair: ReplicationPairRow) => ({
  server_group_id: pair.group_id,
  replication_pair_id: pair.id,
  volume_ids: `${pair.source_volume},${pair.target_volume}`,
  name: pair.name,
})

export type PairRequestRefusal =
  | 'PAIR_UNKNOWN'
  | 'PAIR_OTHER_GROUP'
  | 'PAIR_SIZE_MAX'
  /** A disk is on its way into a server or out of it, is shared and in use, or its server is being made or in error. */
  | 'PAIR_DISK_STATE'
  | PairRefusal

interface Found {
  readonly pair: ReplicationPairRow
  readonly group: ProtectionGroupRow
  readonly facts: PairFacts
  readonly disks: readonly VolumeRow[]
}

async function load(tx: Transaction, project: string, id: string): Promise<Found | undefined> {
  const found = await findPairOf(tx, project, id, ['sdrs'])
  if (found === undefined) return undefined
  const { pair, group } = found
  const volumes = await readVolumes(tx, [pair.source_volume, pair.target_volume])
  const production = volumes.get(volumeAt(group, pair, productionAz(group)))
  const disks = [...volumes.values()]
  const sizes = disks.map((volume) => volume.size_gb)
  assert(production !== undefined && sizes.length === 2, 'a pair has two volumes')
  return {
    pair,
    group,
    disks,
    facts: {
      status: pairStatus(pair),
      group: groupStatus(group),
      station: groupStation(group),
      attached: fromJson<unknown[]>(pair.attachments).length > 0,
      sizeGb: production.size_gb,
      grownGb: Math.max(...sizes),
    },
  }
}

export async function requestPairExpansion(
  services: RequestServices,
  project: string,
  id: string,
  newSizeGb: number,
): Promise<Outcome<AcceptedPair, PairRequestRefusal>> {
  const { store, operations, clock } = services
  return await store.write(async (tx) => {
    const found = await load(tx, project, id)
    if (found === undefined) return refused('PAIR_UNKNOWN')
    const decision = decidePair(found.facts, { kind: 'expand', newSizeGb })
    if (!decision.ok) return decision
    const hindrance = await hindersPairGrowth(tx, found.disks, newSizeGb)
    if (hindrance === 'VOLUME_TOO_LARGE') return refused('PAIR_SIZE_MAX')
    if (hindrance !== null) return refused('PAIR_DISK_STATE')
    await movePair(tx, id, 'extending', clock.wallMs())
    const operation = await operations.submit(tx, expandPair, {
      project,
      resourceType: PAIR_RESOURCE,
      resourceId: id,
      input: { group: found.group.id, newSizeGb },
      entities: pairEntities(found.pair),
    })
    return { ok: true, pair: found.pair, operation }
  })
}

export async function requestPairDeletion(
  services: RequestServices,
  project: string,
  id: string,
  options: { readonly group: string | null; readonly deleteTargetVolume: boolean },
): Promise<Outcome<AcceptedPair, PairRequestRefusal>> {
  const { store, operations, clock } = services
  const { deleteTargetVolume } = options
  return await store.write(async (tx) => {
    const found = await load(tx, project, id)
    if (found === undefined) return refused('PAIR_UNKNOWN')
    if (options.group !== null && options.group !== found.group.id) {
      return refused('PAIR_OTHER_GROUP')
    }
    const decision = decidePair(found.facts, { kind: 'delete', deleteTargetVolume })
    if (!decision.ok) return decision
    await movePair(tx, id, 'deleting', clock.wallMs())
    const operation = await operations.submit(tx, deletePair, {
      project,
      resourceType: PAIR_RESOURCE,
      resourceId: id,
      input: { group: found.group.id, deleteTargetVolume },
      entities: pairEntities(found.pair),
    })
    return { ok: true, pair: found.pair, operation }
  })
}

export async function renamePair(
  services: RequestServices,
  project: string,
  id: string,
  name: string,
): Promise<Outcome<object, 'PAIR_UNKNOWN'>> {
  return await services.store.write(async (tx) => {
    if ((await findPairOf(tx, project, id, ['sdrs'])) === undefined) {
      return refused('PAIR_UNKNOWN')
    }
    await updatePair(tx, id, { name }, services.clock.wallMs())
    return { ok: true }
  })
}
