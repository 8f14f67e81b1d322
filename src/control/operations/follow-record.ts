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
import { GROUP_TRANSIENT, type GroupStatus, type Station } from '#domain/protection-group.ts'
import { PAIR_BUSY, type PairStatus } from '#domain/replication-pair.ts'
import { moveIdentities, wearSpares } from './definitions/instance-identity.ts'

/* A group's row says what the record says.
 *
 * Operations keep the two together. Two things come from elsewhere: a restored database is older than the record that the witness took over
 * from the agents, and break-glass is a failover of which no operation knows. Then the row follows: the site that writes is production, and
 * the status is the settled one that fits. The tables of legal moves do not apply, for nobody moves anything: it has happened.
 *
 * The half-done states of switches (error-failing-over, error-reversing) are left alone: repeating the operation continues it.
 */

type Row = { readonly status: GroupStatus; readonly station: Station; readonly sourceAz: string }
type Record = { readonly state: OwnershipState; readonly writer: string }

const FOLLOWS: ReadonlySet<GroupStatus> = new Set([
  'available',
  'protected',
  'failed-over',
  'error-starting',
  'error-stopping',
  'error-reprotecting',
  'error-deleting',
])

/** What the row should be; null: it agrees, or is not for us to change. */
export function followedBy(
  row: Row,
  { state, writer }: Record,
): Pick<Row, 'status' | 'station'> | null {
  if (!FOLLOWS.has(row.status) || state === 'frozen') return null
  const station: Station = writer === row.sourceAz ? 'source' : 'target'
  const status = settledStatus(row.status, state)
  return station === row.station && status === row.status ? null : { status, station }
}

function settledStatus(status: GroupStatus, state: OwnershipState): GroupStatus {
  // A failed attempt stays one: the same command continues it.
  if (status !== 'available' && status !== 'protected' && status !== 'failed-over') return status
  switch (state) {
    case 'closed':
      // A failover that ended a half-done reversal leaves a closed record behind.
      return status === 'failed-over' ? 'failed-over' : 'available'
    case 'failed_over':
      return 'failed-over'
    case 'resyncing':
    case 'in_sync':
    case 'solo':
    case 'frozen':
      return 'protected'
  }
}

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
): Promise<Pick<Row, 'status' | 'station'> | null> {
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
    await updateGroup(tx, id, { ...wanted, reversing_to: null }, now)
    if (wanted.station !== row.station) {
      const spare = wanted.status === 'failed-over' ? 'waits' : 'swapped'
      await moveIdentities(tx, { ...group, ...wanted }, spare, now)
    }
    if (wanted.status !== 'failed-over') await wearSpares(tx, { ...group, ...wanted })
    for (const instance of await instancesOfGroup(tx, id)) {
      if (!SETTLED.has(instance.status) || !SETTLED.has(wanted.status)) continue
      await updateInstance(tx, instance.id, { status: wanted.status }, now)
    }
    for (const pair of pairs) {
      if (!SETTLED.has(pair.status)) continue
      // The database may be older than the start, or the stop, of the session.
      const joins = state !== 'closed' && (pair.in_session === 1 || members.has(pair.id))
      const change = {
        status: SETTLED.has(wanted.status) ? wanted.status : pair.status,
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
