import { drillsOfGroup } from '#control/resources/drills.ts'
import { groupStation, pairsOfGroup, productionAz } from '#control/resources/groups.ts'
import { readOwnership } from '#control/resources/sync.ts'
import type { AgentRegistry } from '#control/sites/agents.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { ProtectionGroupRow, ReplicationPairRow } from '#control/store/tables/resources.ts'
import type { ProtectedInstanceRow } from '#control/store/tables/servers.ts'
import type { OwnershipState } from '#domain/ownership.ts'
import type { GroupFacts, Station } from '#domain/protection-group.ts'
import { PAIR_BUSY, type PairStatus } from '#domain/replication-pair.ts'
import { type SessionView, type SideView, type SyncView, viewSync } from '#domain/sync-view.ts'
import { instanceFactsOf } from '../instances/instance-facts.ts'

/** Joins what the database, the witness and the agents know about groups into what may be said about them. */
export interface SyncSources {
  readonly agents: AgentRegistry
  /** A report older than this says nothing about the present, milliseconds. */
  readonly agentSilenceMs: number
}

type Db = Queries | Transaction

/** What the view of a group needs of its pairs. */
export type SyncedPair = Pick<ReplicationPairRow, 'id' | 'group_id' | 'in_session' | 'added_epoch'>

/** By group id. */
export async function loadSyncViews(
  db: Db,
  sources: SyncSources,
  groups: readonly ProtectionGroupRow[],
  pairs: readonly SyncedPair[],
): Promise<Map<string, SyncView>> {
  const records = await readOwnership(
    db,
    groups.map((group) => group.id),
  )
  const byGroup = Map.groupBy(pairs, (pair) => pair.group_id)
  return new Map(
    groups.map((group) => {
      const record = records.get(group.id)
      const view = viewSync({
        record:
          record === undefined || record.epoch === 0
            ? null
            : {
                epoch: record.epoch,
                state: record.state as OwnershipState,
                writer: record.writer,
                replica: record.replica,
              },
        members: (byGroup.get(group.id) ?? [])
          .filter((pair) => pair.in_session === 1)
          .map((pair) => ({ pair: pair.id, addedEpoch: pair.added_epoch })),
        sides: new Map(
          [group.source_az, group.target_az].map((site) => [
            site,
            sideView(sources.agents, group.id, site),
          ]),
        ),
        production: productionAz(group),
        silenceMs: sources.agentSilenceMs,
      })
      return [group.id, view]
    }),
  )
}

function sideView(agents: AgentRegistry, session: string, site: string): SideView {
  const status = agents.session(session, site)?.status
  return {
    ageMs: agents.at(site)?.ageMs ?? null,
    session: status === undefined ? null : toView(status),
  }
}

const toView = (status: {
  readonly epoch: number
  readonly link: 'up' | 'down'
  readonly unfit: string | null
  readonly held_ms: number | null
  readonly progress: number
  readonly members: readonly {
    readonly pair: string
    readonly joined: boolean
    readonly copied_bytes: number
    readonly size_bytes: number
  }[]
}): SessionView => ({
  epoch: status.epoch,
  link: status.link,
  replicaUnfit: status.unfit !== null,
  heldMs: status.held_ms,
  progress: status.progress,
  members: status.members.map((member) => ({
    pair: member.pair,
    joined: member.joined,
    copiedBytes: member.copied_bytes,
    sizeBytes: member.size_bytes,
  })),
})

/** States that a preferred site may leave behind by going on alone. */
const UNBOUNDED: ReadonlySet<string> = new Set(['in_sync', 'solo', 'resyncing', 'frozen'])

/** Everything by which a command on the group is judged, read in the caller's transaction. */
export async function groupFacts(
  tx: Db,
  sources: SyncSources,
  group: ProtectionGroupRow,
): Promise<{
  readonly facts: GroupFacts
  readonly pairs: readonly ReplicationPairRow[]
  readonly instances: readonly ProtectedInstanceRow[]
}> {
  const pairs = await pairsOfGroup(tx, group.id)
  const view = (await loadSyncViews(tx, sources, [group], pairs)).get(group.id)
  const record = (await readOwnership(tx, [group.id])).get(group.id)
  const { facts: ofInstances, instances } = await instanceFactsOf(tx, sources, group)
  return {
    pairs,
    instances,
    facts: {
      ...ofInstances,
      status: group.status as GroupFacts['status'],
      station: groupStation(group),
      reversingTo: group.reversing_to as Station | null,
      pairs: pairs.length,
      usablePairs: pairs.filter((pair) => pair.status !== 'error').length,
      drills: (await drillsOfGroup(tx, group.id)).length,
      busyPairs: pairs.filter((pair) => PAIR_BUSY.has(pair.status as PairStatus)).length,
      sync: view?.fact ?? 'idle',
      preferredMayRun:
        record !== undefined &&
        UNBOUNDED.has(record.state) &&
        record.mode === 'static-priority' &&
        record.preferred === record.writer &&
        record.writer === productionAz(group) &&
        view?.productionHeard !== true,
    },
  }
}
