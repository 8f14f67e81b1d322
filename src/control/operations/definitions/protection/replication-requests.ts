import { assert } from '#base/assert.ts'
import { newId } from '#base/ids.ts'
import {
  GROUP_RESOURCE,
  findGroup,
  findPairOf,
  groupForm,
  groupStatus,
  insertGroup,
  insertPair,
  moveGroup,
  movePair,
  pairsOfGroup,
  pairStatus,
  productionAz,
  drAz,
  updateGroup,
} from '#control/resources/groups.ts'
import { listDomains, quotaLimit, quotaUsed } from '#control/resources/surroundings.ts'
import { findVolume, readVolumes, updateVolume } from '#control/resources/volumes.ts'
import type { Arbitration } from '#control/sites/witness.ts'
import type { Transaction } from '#control/store/store.ts'
import type { ProtectionGroupRow, ReplicationPairRow } from '#control/store/tables/resources.ts'
import {
  GROUP_MOVES,
  GROUP_TRANSIENT,
  GROUP_TRANSITIONS,
  type GroupStatus,
} from '#domain/protection-group.ts'
import { fits } from '#domain/quota.ts'
import {
  followsGroup,
  PAIR_BUSY,
  PAIR_DELETE_FROM,
  PAIRS_OF_GROUP_MAX,
  restingPairStatus,
} from '#domain/replication-pair.ts'
import { gatherPairs, type Newcomer, regroupPairs } from './consistency-groups.ts'
import { connectPair, insertLoneGroup } from './lone-pairs.ts'
import { type DiskRefusal, hindersPairGrowth, judgeDisks, shareReadOnly } from './pair-disks.ts'
import { deletePair, expandPair, PAIR_RESOURCE } from './pairs.ts'
import { type Outcome, type RequestServices, refused } from '../requests.ts'

/* What the volume API asks of pairs and consistency groups: judged, written down and submitted in one transaction each, like everything. What a group
 * does as a whole (start, stop, reverse, fail over, delete) is `requestGroupCommand`. */

export interface NewLonePair {
  readonly project: string
  readonly name: string
  readonly description: string | null
  /** In the order in which answers name them. */
  readonly volumes: readonly [string, string]
  /** Site of the production disk. */
  readonly production: string
  /** Default: by the witness. The preferred site is that of production. */
  readonly arbitration?: Arbitration
}

export interface AcceptedLonePair {
  readonly pair: ReplicationPairRow
  readonly group: ProtectionGroupRow
}

export type NewLonePairRefusal =
  | 'VOLUME_UNKNOWN'
  | 'STATION_UNKNOWN'
  | 'DOMAIN_UNKNOWN'
  | 'QUOTA_PAIRS'
  | DiskRefusal

export async function requestLonePair(
  services: RequestServices,
  request: NewLonePair,
): Promise<Outcome<AcceptedLonePair, NewLonePairRefusal>> {
  const { store, operations, clock } = services
  const { project, production, arbitration } = request
  return await store.write(async (tx) => {
    const found = await Promise.all(request.volumes.map((id) => findVolume(tx, project, id)))
    const [first, second] = found
    if (first === undefined || second === undefined) return refused('VOLUME_UNKNOWN')
    const writer = first.az === production ? first : second
    const copy = writer === first ? second : first
    if (writer.az !== production) return refused('STATION_UNKNOWN')
    const refusal = await judgeDisks(tx, services, writer, copy)
    if (refusal !== null) return refused(refusal)
    const sites = [writer.az, copy.az]
    const domain = (await listDomains(tx)).find(
      ({ local_az, remote_az }) => sites.includes(local_az) && sites.includes(remote_az),
    )
    if (domain === undefined) return refused('DOMAIN_UNKNOWN')
    const used = await quotaUsed(tx, project, 'replications')
    if (!fits(await quotaLimit(tx, project, 'replications'), used)) return refused('QUOTA_PAIRS')

    const now = clock.wallMs()
    const { name } = request
    const wanted = { project, name, production, dr: copy.az, domain: domain.id }
    const group = await insertLoneGroup(tx, wanted, now)
    const pair: ReplicationPairRow = {
      id: newId(),
      project,
      group_id: group.id,
      name,
      description: request.description,
      status: 'creating',
      source_volume: writer.id,
      target_volume: copy.id,
      target_first: copy === first ? 1 : 0,
      member: group.next_member,
      in_session: 0,
      added_epoch: 0,
      blank_epoch: null,
      // Nobody has made the DR disk for this pair: anything may be on it.
      never_replicated: 0,
      progress: 0,
      attachments: '[]',
      failure_detail: null,
      made_by: null,
      created_at: now,
      updated_at: now,
    }
    await insertPair(tx, pair)
    await updateGroup(tx, group.id, { next_member: group.next_member + 1 }, now)
    for (const { id } of [writer, copy]) await updateVolume(tx, id, { pair: pair.id }, now)
    await shareReadOnly(tx, writer, copy, now)
    await operations.submit(tx, connectPair, {
      project,
      resourceType: PAIR_RESOURCE,
      resourceId: pair.id,
      input: { group: group.id, ...(arbitration === undefined ? {} : { arbitration }) },
      entities: { replication_pair_id: pair.id, name },
    })
    return { ok: true, pair, group }
  })
}

export type LonePairRefusal = 'PAIR_UNKNOWN' | 'PAIR_FOREIGN' | 'PAIR_IN_GROUP' | 'PAIR_STATE'

/** Both disks stay, as plain ones. */
export async function requestLonePairDeletion(
  services: RequestServices,
  project: string,
  id: string,
): Promise<Outcome<object, LonePairRefusal>> {
  const { store, operations, clock } = services
  return await store.write(async (tx) => {
    const found = await findPairOf(tx, project, id, ['sdrs', 'evs', 'lone'])
    if (found === undefined) return refused('PAIR_UNKNOWN')
    const { pair, group } = found
    if (groupForm(group) === 'sdrs') return refused('PAIR_FOREIGN')
    if (groupForm(group) === 'evs') return refused('PAIR_IN_GROUP')
    const deletable = GROUP_MOVES[groupStatus(group)].includes('deleting')
    if (!deletable || !PAIR_DELETE_FROM.has(pairStatus(pair))) return refused('PAIR_STATE')
    const now = clock.wallMs()
    await movePair(tx, id, 'deleting', now)
    // A failover of it would find its pair gone half way.
    await moveGroup(tx, group.id, 'deleting', now)
    await operations.submit(tx, deletePair, {
      project,
      resourceType: PAIR_RESOURCE,
      resourceId: id,
      input: { group: group.id, deleteTargetVolume: false },
      entities: { replication_pair_id: id, name: pair.name },
    })
    return { ok: true }
  })
}

// ---------------------------------------------------------------- consistency groups

export interface NewConsistencyGroup {
  readonly project: string
  readonly name: string
  readonly description: string | null
  readonly pairs: readonly string[]
  /** Site of the production disks. */
  readonly production: string
  /** Default: by the witness. The preferred site is that of production. */
  readonly arbitration?: Arbitration
}

export interface AcceptedConsistencyGroup {
  readonly group: ProtectionGroupRow
}

export type NewcomerRefusal =
  | 'PAIR_UNKNOWN'
  | 'PAIR_FOREIGN'
  | 'PAIR_IN_GROUP'
  | 'PAIR_STATE'
  | 'PAIR_OTHER_STATION'

export type NewConsistencyGroupRefusal = NewcomerRefusal | 'DOMAIN_UNKNOWN' | 'QUOTA_GROUPS'

/** Lone groups of which the pair may be taken: it replicates, is paused, or could not be started or stopped. */
const GIVES: ReadonlySet<GroupStatus> = new Set([
  'available',
  'protected',
  'error-starting',
  'error-stopping',
])

export async function requestConsistencyGroup(
  services: RequestServices,
  request: NewConsistencyGroup,
): Promise<Outcome<AcceptedConsistencyGroup, NewConsistencyGroupRefusal>> {
  const { store, operations, clock } = services
  const { project, production, arbitration } = request
  return await store.write(async (tx) => {
    const newcomers = await judgeNewcomers(tx, project, request.pairs, production, null)
    if (!newcomers.ok) return newcomers
    const [first] = newcomers.lones
    assert(first !== undefined, 'a group is made of at least one pair')
    const dr = drAz(first)
    const used = await quotaUsed(tx, project, 'server_groups')
    if (!fits(await quotaLimit(tx, project, 'server_groups'), used)) return refused('QUOTA_GROUPS')

    const now = clock.wallMs()
    const group: ProtectionGroupRow = {
      id: newId(),
      project,
      form: 'evs',
      name: request.name,
      description: request.description,
      status: 'creating',
      station: 'source',
      reversing_to: null,
      source_az: production,
      target_az: dr,
      domain: first.domain,
      vpc: '',
      start_servers: 0,
      next_member: 1,
      failure_detail: null,
      created_at: now,
      updated_at: now,
    }
    await insertGroup(tx, group)
    await reserve(tx, newcomers.lones, now)
    await operations.submit(tx, gatherPairs, {
      project,
      resourceType: GROUP_RESOURCE,
      resourceId: group.id,
      input: {
        newcomers: newcomers.list,
        ...(arbitration === undefined ? {} : { arbitration }),
      },
      entities: { server_group_id: group.id, name: group.name },
    })
    return { ok: true, group }
  })
}

async function judgeNewcomers(
  tx: Transaction,
  project: string,
  pairs: readonly string[],
  production: string,
  /** The other site; null: that of the first. */
  dr: string | null,
): Promise<
  Outcome<
    { readonly list: readonly Newcomer[]; readonly lones: readonly ProtectionGroupRow[] },
    NewcomerRefusal
  >
> {
  const list: Newcomer[] = []
  const lones: ProtectionGroupRow[] = []
  for (const id of pairs) {
    const found = await findPairOf(tx, project, id, ['sdrs', 'evs', 'lone'])
    if (found === undefined) return refused('PAIR_UNKNOWN')
    const { pair, group } = found
    if (groupForm(group) === 'sdrs') return refused('PAIR_FOREIGN')
    if (groupForm(group) === 'evs') return refused('PAIR_IN_GROUP')
    if (!GIVES.has(groupStatus(group)) || !followsGroup(pairStatus(pair))) {
      return refused('PAIR_STATE')
    }
    const other = dr ?? drAz(lones[0] ?? group)
    if (productionAz(group) !== production || drAz(group) !== other) {
      return refused('PAIR_OTHER_STATION')
    }
    list.push({ pair: id, lone: group.id, was: groupStatus(group) })
    lones.push(group)
  }
  return { ok: true, list, lones }
}

/** Nobody else may begin anything with them. */
async function reserve(
  tx: Transaction,
  lones: readonly ProtectionGroupRow[],
  now: number,
): Promise<void> {
  for (const { id } of lones) await moveGroup(tx, id, 'updating', now)
}

export interface ConsistencyGroupChange {
  readonly name?: string
  readonly description?: string
  readonly add: readonly string[]
  readonly remove: readonly string[]
}

export type ConsistencyGroupChangeRefusal =
  | NewcomerRefusal
  | 'GROUP_UNKNOWN'
  | 'GROUP_STATE'
  | 'GROUP_NOT_PAUSED'
  | 'GROUP_BUSY_PAIRS'
  | 'PAIR_NOT_IN_GROUP'
  | 'GROUP_FULL'

/** Names are changed at once, in any settled state. Pairs come and leave while the group is paused. */
export async function requestConsistencyGroupChange(
  services: RequestServices,
  project: string,
  id: string,
  change: ConsistencyGroupChange,
): Promise<Outcome<AcceptedConsistencyGroup, ConsistencyGroupChangeRefusal>> {
  const { store, operations, clock } = services
  return await store.write(async (tx) => {
    const before = await findGroup(tx, project, id, 'evs')
    if (before === undefined) return refused('GROUP_UNKNOWN')
    const status = groupStatus(before)
    if (GROUP_TRANSIENT.has(status)) return refused('GROUP_STATE')
    const regroups = change.add.length > 0 || change.remove.length > 0
    const now = clock.wallMs()
    if (regroups) {
      if (!GROUP_TRANSITIONS.update.from.includes(status)) {
        return refused(status === 'protected' ? 'GROUP_NOT_PAUSED' : 'GROUP_STATE')
      }
      const pairs = await pairsOfGroup(tx, id)
      if (pairs.some((pair) => PAIR_BUSY.has(pairStatus(pair)))) return refused('GROUP_BUSY_PAIRS')
      const own = new Set(pairs.map((pair) => pair.id))
      if (change.remove.some((one) => !own.has(one))) return refused('PAIR_NOT_IN_GROUP')
      const size = pairs.length - change.remove.length + change.add.length
      if (size > PAIRS_OF_GROUP_MAX) return refused('GROUP_FULL')
      const newcomers = await judgeNewcomers(
        tx,
        project,
        change.add,
        productionAz(before),
        drAz(before),
      )
      if (!newcomers.ok) return newcomers
      await reserve(tx, newcomers.lones, now)
      await moveGroup(tx, id, 'updating', now)
      await operations.submit(tx, regroupPairs, {
        project,
        resourceType: GROUP_RESOURCE,
        resourceId: id,
        input: { newcomers: newcomers.list, leavers: [...change.remove] },
        entities: { server_group_id: id, name: before.name },
      })
    }
    const { name, description } = change
    const texts = {
      ...(name === undefined ? {} : { name }),
      ...(description === undefined ? {} : { description }),
    }
    await updateGroup(tx, id, texts, now)
    const group = await findGroup(tx, project, id, 'evs')
    assert(group !== undefined, 'a group does not vanish within a transaction')
    return { ok: true, group }
  })
}

// ---------------------------------------------------------------- growth

export interface Growth {
  readonly pair: string
  readonly newSizeGb: number
}

export type GrowthRefusal =
  | 'GROUP_UNKNOWN'
  | 'GROUP_STATE'
  | 'PAIR_NOT_IN_GROUP'
  | 'PAIR_STATE'
  | 'PAIR_SIZE'
  | 'VOLUME_EXTEND_STATE'
  | 'VOLUME_SHARED_EXTEND_STATE'
  | 'VOLUME_TOO_LARGE'
  | 'SERVER_STATE'
  | 'QUOTA_GIGABYTES'

/** States in which both disks of a pair have a stable role. */
const GROWS: ReadonlySet<GroupStatus> = new Set(['available', 'protected'])

/**
 * Both disks of each pair. All are accepted or none. A pair that has its new size already is left out, so that a request of which a part
 * failed can be repeated; if that is so of all, there is nothing larger in it: PAIR_SIZE.
 */
export async function requestGrowth(
  services: RequestServices,
  project: string,
  id: string,
  wanted: readonly Growth[],
): Promise<Outcome<{ readonly operations: readonly string[] }, GrowthRefusal>> {
  const { store, operations, clock } = services
  return await store.write(async (tx) => {
    const group = await findGroup(tx, project, id, 'evs')
    if (group === undefined) return refused('GROUP_UNKNOWN')
    if (!GROWS.has(groupStatus(group))) return refused('GROUP_STATE')
    const pairs = new Map((await pairsOfGroup(tx, id)).map((pair) => [pair.id, pair]))
    const grows: { readonly pair: ReplicationPairRow; readonly newSizeGb: number }[] = []
    let added = 0
    for (const { pair: pairId, newSizeGb } of wanted) {
      const pair = pairs.get(pairId)
      if (pair === undefined) return refused('PAIR_NOT_IN_GROUP')
      // One that failed while it grew is the one that is repeated.
      const ready = pair.status === restingPairStatus(groupStatus(group))
      if (!ready && pair.status !== 'error-extending') return refused('PAIR_STATE')
      const disks = [...(await readVolumes(tx, [pair.source_volume, pair.target_volume])).values()]
      const sizes = disks.map((disk) => disk.size_gb)
      if (newSizeGb < Math.max(...sizes)) return refused('PAIR_SIZE')
      const hindrance = await hindersPairGrowth(tx, disks, newSizeGb)
      if (hindrance !== null) return refused(hindrance)
      if (ready && sizes.every((size) => size === newSizeGb)) continue
      added += sizes.reduce((sum, size) => sum + newSizeGb - size, 0)
      grows.push({ pair, newSizeGb })
    }
    if (grows.length === 0) return refused('PAIR_SIZE')
    const used = await quotaUsed(tx, project, 'gigabytes')
    if (!fits(await quotaLimit(tx, project, 'gigabytes'), used, added)) {
      return refused('QUOTA_GIGABYTES')
    }
    const submitted: string[] = []
    for (const { pair, newSizeGb } of grows) {
      await movePair(tx, pair.id, 'extending', clock.wallMs())
      submitted.push(
        await operations.submit(tx, expandPair, {
          project,
          resourceType: PAIR_RESOURCE,
          resourceId: pair.id,
          input: { group: id, newSizeGb },
          entities: { server_group_id: id, replication_pair_id: pair.id, name: pair.name },
        }),
      )
    }
    return { ok: true, operations: submitted }
  })
}
