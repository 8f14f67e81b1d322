import {
  GROUP_RESOURCE,
  drAz,
  findGroup,
  groupForm,
  groupStatus,
  moveGroup,
  movePair,
  pairsOfGroup,
  pairStatus,
  productionAz,
  updateGroup,
  updatePair,
} from '#control/resources/groups.ts'
import { instancesOfGroup } from '#control/resources/instances.ts'
import { latestPause, readOwnership } from '#control/resources/sync.ts'
import type { AgentRegistry } from '#control/sites/agents.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { ProtectionGroupRow, ReplicationPairRow } from '#control/store/tables/resources.ts'
import { followsGroup, PAIR_BUSY } from '#domain/replication-pair.ts'
import { type Outcome, type RequestServices, refused } from '../requests.ts'
import { failoverPausedGroup, lossSince, membersOf } from './paused-failover.ts'

/* The request for the failover of a paused group, of whichever API: judged, written down and submitted in one transaction. */

export type PausedFailoverRefusal =
  | 'GROUP_UNKNOWN'
  | 'GROUP_STATE'
  | 'GROUP_WITHOUT_PAIRS'
  | 'GROUP_BUSY_PAIRS'
  | 'GROUP_HAS_INSTANCES'
  | 'GROUP_NOT_EQUAL'
  | 'FORCE_NEEDED'
  | 'GROUP_PREFERRED_MAY_RUN'
  | 'DR_SITE_SILENT'

/** A group that is paused: no session, and none being made. Also one whose failover out of that state has failed. */
export async function isPaused(
  db: Queries | Transaction,
  group: ProtectionGroupRow,
): Promise<boolean> {
  if (groupForm(group) === 'lone') return false
  const row = (await readOwnership(db, [group.id])).get(group.id)
  if (row === undefined || row.epoch === 0) return false
  const status = groupStatus(group)
  if (status === 'available' || status === 'error-updating') return row.state === 'closed'
  if (status !== 'error-failing-over') return false
  return (await pairsOfGroup(db, group.id)).every((pair) => pair.in_session === 0)
}

/** All of them were in the session that was ended, equal then: what their DR disks hold is of one moment. */
export const equalAtPause = (
  pairs: readonly Pick<ReplicationPairRow, 'progress' | 'added_epoch'>[],
): boolean => pairs.every(({ progress, added_epoch }) => progress === 100 && added_epoch > 0)

interface Command {
  readonly force: boolean
  readonly preferredOff: boolean
}

interface Judged {
  /** Null: it would be accepted. */
  readonly refusal: Exclude<PausedFailoverRefusal, 'GROUP_UNKNOWN'> | null
  /** Since when everything would be given up, wall clock, ms; null: not known. */
  readonly pausedAt: number | null
}

export async function judgePausedFailover(
  db: Queries | Transaction,
  agents: AgentRegistry,
  group: ProtectionGroupRow,
  command: Command,
): Promise<Judged> {
  const production = productionAz(group)
  const pausedAt = await latestPause(db, group.id, production)
  const no = (refusal: Judged['refusal']): Judged => ({ refusal, pausedAt })
  if (!(await isPaused(db, group))) return no('GROUP_STATE')
  const pairs = await membersOf(db, group.id)
  if (pairs.length === 0) return no('GROUP_WITHOUT_PAIRS')
  if (pairs.some((pair) => PAIR_BUSY.has(pairStatus(pair)))) return no('GROUP_BUSY_PAIRS')
  // The operation knows nothing of servers: which of them may run afterwards, and with whose disks.
  if ((await instancesOfGroup(db, group.id)).length > 0) return no('GROUP_HAS_INSTANCES')
  if (!equalAtPause(pairs)) return no('GROUP_NOT_EQUAL')
  if (!agents.heard(drAz(group))) return no('DR_SITE_SILENT')
  if (!command.force) return no('FORCE_NEEDED')
  const record = (await readOwnership(db, [group.id])).get(group.id)
  const preferred = record?.mode === 'static-priority' && record.preferred === production
  if (preferred && !command.preferredOff && !agents.heard(production)) {
    return no('GROUP_PREFERRED_MAY_RUN')
  }
  return no(null)
}

export async function requestPausedFailover(
  services: RequestServices,
  project: string,
  id: string,
  command: Command,
): Promise<
  Outcome<{ readonly operation: string }, PausedFailoverRefusal> & {
    readonly pausedAt?: number | null
  }
> {
  const { store, operations, clock, agents } = services
  return await store.write(async (tx) => {
    const group = await findGroup(tx, project, id)
    if (group === undefined) return refused('GROUP_UNKNOWN')
    const { refusal, pausedAt } = await judgePausedFailover(tx, agents, group, command)
    if (refusal !== null) return { ...refused(refusal), pausedAt }
    const now = clock.wallMs()
    await moveGroup(tx, id, 'failing-over', now)
    await updateGroup(tx, id, { failure_detail: null }, now)
    for (const pair of await membersOf(tx, id)) {
      if (!followsGroup(pairStatus(pair))) continue
      await movePair(tx, pair.id, 'failing-over', now)
      await updatePair(tx, pair.id, { blank_epoch: null }, now)
    }
    const operation = await operations.submit(tx, failoverPausedGroup, {
      project,
      resourceType: GROUP_RESOURCE,
      resourceId: id,
      input: { preferredOff: command.preferredOff },
      entities: { server_group_id: id, name: group.name, ...lossSince(pausedAt) },
    })
    return { ok: true, operation }
  })
}
