import { newId } from '#base/ids.ts'
import type { Clock } from '#base/clock.ts'
import {
  groupStation,
  groupStatus,
  pairsOfGroup,
  readGroup,
  updateGroup,
  updatePair,
} from '#control/resources/groups.ts'
import { instancesOfGroup, updateInstance } from '#control/resources/instances.ts'
import { readOwnership } from '#control/resources/sync.ts'
import { trusted } from '#control/sites/history.ts'
import { bit } from '#control/store/bit.ts'
import { toJson } from '#control/store/json.ts'
import { readMeta } from '#control/store/meta.ts'
import type { Store } from '#control/store/store.ts'
import type { OwnershipState } from '#domain/ownership.ts'
import { followedBy, type GroupRow } from '#domain/followed-group.ts'
import { GROUP_TRANSIENT } from '#domain/protection-group.ts'
import { PAIR_BUSY, type PairStatus } from '#domain/replication-pair.ts'
import { moveIdentities, wearSpares } from './definitions/instances/instance-identity.ts'

/* A group's row says what the record says.
 *
 * Operations keep the two together. What comes from elsewhere, and an attempt that failed and was put right since, the row follows here: the
 * site that writes is production, and the status is the one that fits (domain/followed-group.ts). Pairs and instances go along.
 */

const SETTLED: ReadonlySet<string> = new Set(['available', 'protected', 'failed-over'])

/**
 * Brings one group's row to its trusted record. `members`: pairs that the agents report in the session. Answers what was changed,
 * null: nothing.
 */
export async function followRecord(
  store: Store,
  clock: Clock,
  id: string,
  members: ReadonlySet<string>,
): Promise<Pick<GroupRow, 'status' | 'station'> | null> {
  return await store.write(async (tx) => {
    const group = await readGroup(tx, id)
    const record = (await readOwnership(tx, [id])).get(id)
    if (group === undefined || record === undefined || record.epoch === 0) return null
    if (GROUP_TRANSIENT.has(groupStatus(group))) return null
    if (!trusted(record, (await readMeta(tx)).history_mark)) return null
    const row = {
      status: groupStatus(group),
      station: groupStation(group),
      sourceAz: group.source_az,
    }
    const state = record.state as OwnershipState
    const wanted = followedBy(row, { state, writer: record.writer })
    const pairs = await pairsOfGroup(tx, id)
    if (wanted === null || pairs.some(({ status }) => PAIR_BUSY.has(status as PairStatus))) {
      return null
    }
    const now = clock.wallMs()
    // What failed has come true.
    const succeeded = wanted.status !== row.status && SETTLED.has(wanted.status)
    const cleared = succeeded ? { failure_detail: null } : {}
    await updateGroup(tx, id, { ...wanted, ...cleared, reversing_to: null }, now)
    const goesAlong = (status: string) =>
      SETTLED.has(wanted.status) && (SETTLED.has(status) || status === row.status)
    if (wanted.station !== row.station) {
      const spare = wanted.status === 'failed-over' ? 'waits' : 'swapped'
      await moveIdentities(tx, { ...group, ...wanted }, spare, now)
    }
    if (wanted.status !== 'failed-over') await wearSpares(tx, { ...group, ...wanted })
    for (const instance of await instancesOfGroup(tx, id)) {
      if (!goesAlong(instance.status)) continue
      await updateInstance(tx, instance.id, { status: wanted.status }, now)
    }
    for (const pair of pairs) {
      if (!SETTLED.has(pair.status) && !goesAlong(pair.status)) continue
      // The database may be older than the start, or the stop, of the session.
      const joins = state !== 'closed' && (pair.in_session === 1 || members.has(pair.id))
      const change = {
        status: goesAlong(pair.status) ? wanted.status : pair.status,
        in_session: bit(joins),
        blank_epoch: null,
        never_replicated: joins ? 0 : pair.never_replicated,
      }
      await updatePair(tx, pair.id, change, now)
    }
    await tx
      .insertInto('audit')
      .values({
        id: newId(),
        at: now,
        project: group.project,
        actor: 'system',
        source: null,
        action: 'protection-group.follow-record',
        target: id,
        result: 0,
        detail: toJson({ from: row, to: wanted, epoch: record.epoch, state: record.state }),
      })
      .execute()
    return wanted
  })
}
