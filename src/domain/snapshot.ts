/**
 * The life of a snapshot that a user took.
 *
 *     creating ─► available ⇄ rolling-back
 *         │           └─► deleting ─► (gone)
 *         └─► error ──────┘  │ └► error-deleting
 */
export type SnapshotStatus =
  | 'creating'
  | 'available'
  | 'rolling-back'
  | 'deleting'
  | 'error'
  | 'error-deleting'

/** Every legal move. A rollback that was refused leaves the snapshot available, and says why. */
export const SNAPSHOT_MOVES: Record<SnapshotStatus, readonly SnapshotStatus[]> = {
  creating: ['available', 'error'],
  available: ['rolling-back', 'deleting'],
  'rolling-back': ['available'],
  error: ['deleting'],
  deleting: ['error-deleting'],
  'error-deleting': ['deleting'],
}

/** Snapshots of one project. An agent bounds those of one volume on top of that. */
export const SNAPSHOTS_PER_PROJECT_MAX = 1_000

export type SnapshotCommand = 'rollback' | 'delete'

export type SnapshotRefusal = 'SNAPSHOT_STATE'

/** The transient state that the command moves to, or why it is refused. */
export function decideSnapshot(
  status: SnapshotStatus,
  command: SnapshotCommand,
):
  | { readonly ok: true; readonly via: SnapshotStatus }
  | { readonly ok: false; readonly refusal: SnapshotRefusal } {
  const via: SnapshotStatus = command === 'rollback' ? 'rolling-back' : 'deleting'
  if (!SNAPSHOT_MOVES[status].includes(via)) return { ok: false, refusal: 'SNAPSHOT_STATE' }
  return { ok: true, via }
}
