import { assert } from '#base/assert.ts'
import { loadSyncViews } from '#control/operations/definitions/sync-views.ts'
import {
  groupForm,
  groupStatus,
  pairStatus,
  productionAz,
  volumeAt,
} from '#control/resources/groups.ts'
import { latestChanges, readOwnership } from '#control/resources/sync.ts'
import { readVolumes } from '#control/resources/volumes.ts'
import type { Queries } from '#control/store/store.ts'
import type { ProtectionGroupRow, ReplicationPairRow } from '#control/store/tables/resources.ts'
import type { SyncView } from '#domain/sync-view.ts'
import { evsTime } from './codec.ts'
import {
  failureCode,
  GROUP_WORDS,
  groupReplication,
  LINKING,
  pairReplication,
  pairWord,
  shownProgress,
} from './replication-words.ts'
import type { EvsServices } from './services.ts'

/* From rows to the objects of pairs and consistency groups. */

const MODEL = 'hypermetro'

/** After every change of the record the two sides open their link anew. */
const LINK_MS = 2_000
/** An operation that brings the sites to each other takes no longer unless something is wrong. */
const LINKING_MS = 15_000

/** A row that nothing has happened to yet has no time of change. */
const changedAt = (created: number, updated: number): string | null =>
  updated > created ? evsTime(updated) : null

const idsOf = (pair: ReplicationPairRow, between: string): string => {
  const ids = [pair.source_volume, pair.target_volume]
  return (pair.target_first === 1 ? ids.toReversed() : ids).join(between)
}

const groupIdOf = (pair: ReplicationPairRow, group: ProtectionGroupRow): string | null =>
  groupForm(group) === 'evs' ? pair.group_id : null

/** As answered to creation. */
export const pairAccepted = (pair: ReplicationPairRow, group: ProtectionGroupRow) => ({
  id: pair.id,
  name: pair.name,
  description: pair.description,
  status: pairWord(pairStatus(pair)),
  replication_consistency_group_id: groupIdOf(pair, group),
  volume_ids: idsOf(pair, ', '),
  priority_station: productionAz(group),
  created_at: evsTime(pair.created_at),
  updated_at: changedAt(pair.created_at, pair.updated_at),
})

/** As answered to creation and update. */
export const groupAccepted = (group: ProtectionGroupRow) => ({
  id: group.id,
  name: group.name,
  description: group.description,
  status: GROUP_WORDS[groupStatus(group)],
  priority_station: productionAz(group),
  created_at: evsTime(group.created_at),
  updated_at: changedAt(group.created_at, group.updated_at),
})

export type ReplicationObject = Awaited<ReturnType<typeof replicationObjects>>['pairs'][number]
export type ConsistencyGroupObject = Awaited<
  ReturnType<typeof replicationObjects>
>['groups'][number]

/**
 * The objects of these groups and of these pairs, whose groups are among them. A group is judged by all of its pairs, so `pairs` has to have them
 * all. What changes the record of a session changes the group and its pairs, so `updated_at` follows it.
 */
export async function replicationObjects(
  db: Queries,
  services: EvsServices,
  groups: readonly ProtectionGroupRow[],
  pairs: readonly ReplicationPairRow[],
) {
  const ids = groups.map((group) => group.id)
  const views = await loadSyncViews(db, services, groups, pairs)
  const records = await readOwnership(db, ids)
  const changes = await latestChanges(db, ids)
  const volumes = await readVolumes(
    db,
    pairs.map((pair) => pair.source_volume),
  )
  const byId = new Map(groups.map((group) => [group.id, group]))
  const byGroup = Map.groupBy(pairs, (pair) => pair.group_id)

  const nowMs = services.clock.wallMs()
  /** Production is heard, and has not reported since the two sides had time to take up what last changed: what it said is of before. */
  const awaited = (group: ProtectionGroupRow): boolean => {
    const record = records.get(group.id)
    if (record === undefined || !services.agents.heard(record.writer)) return false
    if (record.state !== 'resyncing' && record.state !== 'in_sync') return false
    const report = services.agents.session(group.id, record.writer)
    if (report?.status.epoch !== record.epoch) return true
    const changed = Math.max(group.updated_at, changes.get(group.id) ?? 0)
    return nowMs - report.ageMs <= changed + LINK_MS
  }
  const replicationOf = (
    pair: ReplicationPairRow,
    group: ProtectionGroupRow,
    view: SyncView | undefined,
  ) =>
    pairReplication({
      pair: pairStatus(pair),
      group: groupStatus(group),
      inSession: pair.in_session === 1,
      sync: view?.pairs.get(pair.id)?.status ?? null,
      awaited: awaited(group),
      progress: pair.progress,
    })
  const faultLevelOf = (
    members: readonly ReplicationPairRow[],
    group: ProtectionGroupRow,
    view: SyncView | undefined,
  ): '0' | '2' | '5' => {
    const level = members.some((pair) => pair.in_session === 1) ? (view?.faultLevel ?? '0') : '0'
    const begun = nowMs - group.updated_at < LINKING_MS
    const linking = (LINKING.has(groupStatus(group)) && begun) || awaited(group)
    return level === '5' && linking ? '0' : level
  }
  const times = (created: number, ...updated: (number | undefined)[]) => {
    const last = Math.max(...updated.map((ms) => ms ?? 0))
    return { created_at: evsTime(created), updated_at: changedAt(created, last) }
  }

  return {
    pairs: pairs.map((pair) => {
      const group = byId.get(pair.group_id)
      assert(group !== undefined, 'a pair has a group')
      const view = views.get(group.id)
      const replication = replicationOf(pair, group, view)
      const volume = volumes.get(volumeAt(group, pair, group.source_az))
      assert(volume !== undefined, 'a pair has two disks')
      const known = view?.pairs.get(pair.id)?.progress ?? null
      const failed = pairStatus(pair) === 'error'
      return {
        id: pair.id,
        name: pair.name,
        description: pair.description,
        status: pairWord(pairStatus(pair)),
        replication_consistency_group_id: groupIdOf(pair, group),
        volume_ids: idsOf(pair, ','),
        priority_station: productionAz(group),
        ...times(pair.created_at, pair.updated_at, group.updated_at, changes.get(group.id)),
        replication_model: MODEL,
        replication_status: replication,
        progress: shownProgress(replication, known, pair.progress),
        failure_detail: failed ? failureCode(pair.failure_detail, 'pair') : null,
        record_metadata: JSON.stringify({
          volume_size: volume.size_gb,
          volume_type: volume.volume_type,
          multiattach: volume.multiattach === 1,
          ...managedElsewhere(group),
        }),
        fault_level: faultLevelOf([pair], group, view),
      }
    }),
    groups: groups.map((group) => {
      const view = views.get(group.id)
      const own = byGroup.get(group.id) ?? []
      return {
        id: group.id,
        name: group.name,
        description: group.description,
        status: GROUP_WORDS[groupStatus(group)],
        priority_station: productionAz(group),
        ...times(group.created_at, group.updated_at, changes.get(group.id)),
        replication_model: MODEL,
        replication_status: groupReplication(
          groupStatus(group),
          own.map((pair) => replicationOf(pair, group, view)),
        ),
        replication_ids: own.map((pair) => pair.id),
        failure_detail: groupStatus(group).startsWith('error')
          ? failureCode(group.failure_detail, 'group')
          : null,
        fault_level: faultLevelOf(own, group, view),
      }
    }),
  }
}

/** Pairs of protection groups are shown here and not managed. */
const managedElsewhere = (group: ProtectionGroupRow) =>
  groupForm(group) === 'sdrs' ? { managed_by: 'sdrs', server_group_id: group.id } : {}
