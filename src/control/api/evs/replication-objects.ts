import { assert } from '#base/assert.ts'
import { loadSyncViews } from '#control/operations/definitions/protection/sync-views.ts'
import {
  groupForm,
  groupStatus,
  pairStatus,
  productionAz,
  volumeAt,
} from '#control/resources/groups.ts'
import { latestChanges, readOwnership } from '#control/resources/sync.ts'
import { readShown, writeShown } from '#control/resources/shown-replications.ts'
import { readVolumes } from '#control/resources/volumes.ts'
import { toJson } from '#control/store/json.ts'
import type { Queries } from '#control/store/store.ts'
import type {
  ProtectionGroupRow,
  ReplicationPairRow,
  ShownReplicationRow,
} from '#control/store/tables/resources.ts'
import { stampOf } from '#domain/shown-stamp.ts'
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

/**
 * The objects of the groups and of the pairs that `read` finds; the groups of the pairs are among them. A group is judged by all of its pairs, so they
 * all have to be there. `updated_at` is since when they are shown so; how they are shown is kept before anybody sees it,
 * if it can be written.
 */
export async function replicationObjects(
  services: EvsServices,
  read: (db: Queries) => Promise<ReplicationRows>,
) {
  const { seen, last } = await services.store.read(async (db) => {
    const rows = await read(db)
    const seen = await lookAt(db, services, rows)
    const ids = [...seen.pairs, ...seen.groups].map(({ object }) => object.id)
    return { seen, last: await readShown(db, ids) }
  })
  const nowMs = services.clock.wallMs()
  const kept: ShownReplicationRow[] = []
  const stamped = <Shown extends Viewed>({ object, createdMs, recordedMs }: Seen<Shown>) => {
    const { id } = object
    const row = last.get(id)
    const before = row === undefined ? null : { shown: row.shown, changedAt: row.changed_at }
    const shown = viewOf(object)
    const { changedAt: at, keep } = stampOf(before, shown, recordedMs, nowMs)
    if (keep) kept.push({ id, shown, changed_at: at })
    return { ...object, updated_at: changedAt(createdMs, at) }
  }
  const objects = { pairs: seen.pairs.map(stamped), groups: seen.groups.map(stamped) }
  if (kept.length === 0) return objects
  try {
    await services.store.write((tx) => writeShown(tx, kept))
  } catch (error) {
    // Whoever looks next finds it changed then. That is no reason to show nothing.
    services.log.warn({ err: error }, 'how replications were shown was not written down')
  }
  return objects
}

export interface ReplicationRows {
  readonly groups: readonly ProtectionGroupRow[]
  readonly pairs: readonly ReplicationPairRow[]
}

interface Viewed {
  readonly id: string
  readonly status: string
  readonly priority_station: string
  readonly replication_status: string | null
  readonly failure_detail: string | null
  readonly fault_level: string
}

interface Seen<Shown extends Viewed> {
  readonly object: Shown
  readonly createdMs: number
  /** The latest time of change that is recorded anywhere. */
  readonly recordedMs: number
}

/** The states. What else is shown changes with a row; and the progress of a copy is no change of state. */
const viewOf = (object: Viewed): string =>
  toJson([
    object.status,
    object.replication_status,
    object.priority_station,
    object.failure_detail,
    object.fault_level,
  ])

async function lookAt(db: Queries, services: EvsServices, { groups, pairs }: ReplicationRows) {
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
  /** `updated_at` has its place among the members here, and its value when the object is stamped. */
  const times = (created: number) => ({
    created_at: evsTime(created),
    updated_at: null as string | null,
  })

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
      const recordedMs = Math.max(pair.updated_at, group.updated_at, changes.get(group.id) ?? 0)
      const object = {
        id: pair.id,
        name: pair.name,
        description: pair.description,
        status: pairWord(pairStatus(pair)),
        replication_consistency_group_id: groupIdOf(pair, group),
        volume_ids: idsOf(pair, ','),
        priority_station: productionAz(group),
        ...times(pair.created_at),
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
      return { object, createdMs: pair.created_at, recordedMs }
    }),
    groups: groups.map((group) => {
      const view = views.get(group.id)
      const own = byGroup.get(group.id) ?? []
      const recordedMs = Math.max(group.updated_at, changes.get(group.id) ?? 0)
      const object = {
        id: group.id,
        name: group.name,
        description: group.description,
        status: GROUP_WORDS[groupStatus(group)],
        priority_station: productionAz(group),
        ...times(group.created_at),
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
      return { object, createdMs: group.created_at, recordedMs }
    }),
  }
}

/** Pairs of protection groups are shown here and not managed. */
const managedElsewhere = (group: ProtectionGroupRow) =>
  groupForm(group) === 'sdrs' ? { managed_by: 'sdrs', server_group_id: group.id } : {}
