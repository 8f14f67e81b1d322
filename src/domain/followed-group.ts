import type { OwnershipState } from './ownership.ts'
import type { GroupStatus, Station } from './protection-group.ts'

/**
 * What a group's row should say by its trusted record, when nobody is moving it. The tables of legal moves do not apply: it has happened.
 *
 * Two things change a record without an operation (decision 0099): a restored state database, and break-glass. And an operation can fail while
 * what it set going goes on: the agents and the reconciler bring a session into sync whose start was given up (decision 0143).
 */
export type GroupRow = {
  readonly status: GroupStatus
  readonly station: Station
  readonly sourceAz: string
}
type Record = { readonly state: OwnershipState; readonly writer: string }

/**
 * By status of the row, what it follows. Missing: it is left alone. The half-done states of switches among them: their row is behind the
 * record by design, and repeating the operation continues it.
 *
 * - `record`: production, and the settled status that fits
 * - `success`: production; and a record in sync ends the failed attempt, for then the group is protected, whatever the attempt lacked. An
 *   operator who wanted a stop orders it again. A start or stop in whose middle break-glass was used has failed over. In any other state of the record
 *   the same command continues the attempt.
 * - `writer`: production only
 */
const FOLLOWS: { readonly [status in GroupStatus]?: 'record' | 'success' | 'writer' } = {
  available: 'record',
  protected: 'record',
  'failed-over': 'record',
  'error-starting': 'success',
  'error-reprotecting': 'success',
  'error-stopping': 'success',
  'error-deleting': 'writer',
}

/** What the row should be; null: it agrees, or is not for us to change. */
export function followedBy(
  row: GroupRow,
  { state, writer }: Record,
): Pick<GroupRow, 'status' | 'station'> | null {
  const follows = FOLLOWS[row.status]
  if (follows === undefined || state === 'frozen') return null
  const station: Station = writer === row.sourceAz ? 'source' : 'target'
  const wanted = { record: settledStatus, success: succeeded, writer: unchanged }[follows]
  const status = wanted(row.status, state)
  return station === row.station && status === row.status ? null : { status, station }
}

const unchanged = (status: GroupStatus): GroupStatus => status

function succeeded(status: GroupStatus, state: OwnershipState): GroupStatus {
  if (state === 'in_sync') return 'protected'
  // A reprotection begins there.
  return state === 'failed_over' && status !== 'error-reprotecting' ? 'failed-over' : status
}

function settledStatus(status: GroupStatus, state: OwnershipState): GroupStatus {
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
