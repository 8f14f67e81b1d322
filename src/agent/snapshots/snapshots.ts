import type { Clock } from '#base/clock.ts'
import type { Extent } from '#agent/volumes/volume.ts'

/* Snapshots of the volumes of one agent: the one capability behind a resync's kept copy, divergence records, drills, backups and the
 * snapshots of users.
 *
 *              take ──► ready ──► seal ──► sealed ──► delete
 *                        │  ▲
 *               rollback ▼  │ done (also after a restart in the middle)
 *                     rolling_back
 *                        a store without space, purpose user, drill, backup: ready ──► failed ──► delete
 *
 * Two kinds, chosen per volume when the snapshot is taken
 *   reflink        the volume's file is cloned (XFS, Btrfs). Writers wait while the clones are made; then nothing costs anything but
 *                  the file system's copy-on-write.
 *   before_image   the snapshot is what was preserved plus what the live volume has not changed since. Taking it makes no writer wait. Each first
 *                  change of a 64 KiB block waits until what it held is durable in the snapshot's store.
 *
 * What writers must do. Whoever changes a volume calls `volume.guard(offset, length)` in the same synchronous step, directly before `writeSync` or
 * `zeroSync`: null means change it now, a promise means wait for it and ask again. (`volume.zero` asks for itself, step by step.) A null is worth
 * nothing any more after an await. That is all that is needed for a snapshot to be of one moment over all volumes: the data plane is one event loop, and
 * all volumes are armed in one synchronous step. A caller that applies writes in one order over several volumes (a replica) keeps that order across a wait.
 * Asking early and without waiting, for ranges that will be written soon, lets them share one sync: good for a receiver that sees the next frames already.
 *
 * What survives what: when `take`, `seal`, `rollback`, `delete` or `clone` resolves, its result survives power loss. A `take` or `clone` that did not resolve
 * leaves nothing; a `rollback`, `seal` or `delete` that did not is finished at the next start, before any volume can be opened.
 *
 * When the store of a before-image snapshot has no space, or its disk fails
 *   kept                 the write must not happen: `guard` rejects with VOLUME_NO_SPACE (a repeat may succeed once there is space) or
 *                        SNAPSHOT_BROKEN (never), and the snapshot stays as it is.
 *   user, drill, backup  the snapshot becomes `failed`, durably, first; then the write goes on. If even that mark cannot be stored, `guard` rejects.
 * Kept snapshots may use the last `reserveBytes` of the file system, the others fail before they touch them.
 *
 * For the sessions: SessionHostDeps has this as `snapshots`. `take` with purpose 'kept' before the first block of a resync; `rollback` of it for
 * `restore_kept`; `delete`, or `seal` when there is a divergence, for `release_kept`. A rollback changes blocks without going through the
 * stream: ask `changedRanges` before it and mark those (null: all of them) in the change map.
 */

/** kept: last consistent copy of a replica under resync · drill: base of clones · backup: read by a backup, then deleted */
export type SnapshotPurpose = 'user' | 'kept' | 'drill' | 'backup'

export type SnapshotKind = 'reflink' | 'before_image'

/**
 * ready         usable, follows its volumes
 * rolling_back  its volumes are being set back to it and must not be served; finished at the next start if it is cut off
 * sealed        no whole image any more: only the ranges that were kept, see `changedRanges`
 * failed        lost a block it would have needed, `reason` says why; can only be deleted
 */
export type SnapshotState = 'ready' | 'rolling_back' | 'sealed' | 'failed'

export interface SnapshotVolume {
  readonly volume: string
  readonly kind: SnapshotKind
  /** Size when the snapshot was taken. */
  readonly sizeBytes: number
  /** before_image and sealed: bytes of the blocks kept, holes included. reflink: 0, it shares what it has not lost. */
  readonly keptBytes: number
}

export interface Snapshot {
  readonly id: string
  readonly purpose: SnapshotPurpose
  readonly state: SnapshotState
  /** Why it failed; null while it is good. */
  readonly reason: string | null
  /** Moment of the snapshot, milliseconds since 1970. */
  readonly takenMs: number
  /** Longest time that a write was kept waiting because the snapshot was taken, ms. Waiting for before-images later on is not part of it. */
  readonly stallMs: number
  readonly volumes: readonly SnapshotVolume[]
}

/** A part of a volume, bytes. */
export interface Range {
  readonly offset: number
  readonly length: number
}

export interface TakeSnapshot {
  /** [0-9a-zA-Z-]{1,64}, chosen by the caller. Taken already with the same purpose and volumes: answered as it is, whatever has been
   *  written since. With others: SNAPSHOT_EXISTS. */
  readonly id: string
  readonly purpose: SnapshotPurpose
  readonly volumes: readonly string[]
  /** Called synchronously at the moment of the snapshot: every write before it is in, none after it. For noting sequence numbers, and for a last look:
   *  when it throws, nothing is taken, and `take` rejects with that. Not called when the snapshot exists already. */
  readonly atMoment?: () => void
}

/**
 * What a snapshot says of one volume; read-only. A range outside `sizeBytes` is the caller's mistake and asserted. Rejects with SNAPSHOT_UNKNOWN once the
 * snapshot was deleted or sealed, SNAPSHOT_FAILED when it failed, or with the live volume's fault for what is still only there.
 * Of a sealed snapshot: what was kept; everything else reads as zeroes and is told as a hole.
 */
export interface SnapshotView {
  readonly sizeBytes: number
  read(buf: Uint8Array, bufOffset: number, length: number, offset: number): Promise<void>
  /** Reads at once when everything is in the page cache, else false and nothing of worth was read. Never waits for the disk. */
  readCached(buf: Uint8Array, bufOffset: number, length: number, offset: number): boolean
  /** Data and holes in order, without gaps, as `Volume.extents`. */
  extents(offset: number, length: number, countMax?: number): Promise<readonly Extent[]>
  /** Gives its files back. The snapshot stays. */
  close(): Promise<void>
}

export interface CloneProgress {
  readonly copiedBytes: number
  readonly totalBytes: number
}

/** All faults are of `faults.ts` here or of the volumes. Everything is idempotent: repeating it after a lost answer or a crash is safe. Changes of
 *  one snapshot wait for each other. */
export interface Snapshots {
  /** A snapshot of all named volumes at one moment, durable when it resolves. Refused: VOLUME_UNKNOWN, VOLUME_FAILED, SNAPSHOT_BUSY (a rollback has one), SNAPSHOT_LIMIT (too many
   *  of a volume), SNAPSHOT_NO_SPACE. */
  take(request: TakeSnapshot): Promise<Snapshot>
  list(): readonly Snapshot[]
  show(id: string): Snapshot | undefined
  /** An unknown id changes nothing. Views of it refuse from then on. Waits for a rollback to it; of one that could not be finished the volumes are
   *  marked failed, since they are neither the one nor the other. */
  delete(id: string): Promise<void>
  /**
   * All its volumes become what the snapshot holds, durably; the snapshot stays ready. A volume that has grown keeps its size, what lies
   * beyond the snapshot's becomes zero. The caller has seen to it that nobody reads or writes the volumes; guards of others wait until it is done. Other
   * snapshots of the same volumes stay what they are. Refused: SNAPSHOT_FAILED, SNAPSHOT_SEALED.
   */
  rollback(id: string): Promise<void>
  /** The volume as it was. Refused: SNAPSHOT_UNKNOWN, SNAPSHOT_FAILED. */
  open(id: string, volume: string): Promise<SnapshotView>
  /**
   * What may differ between snapshot and live volume, in order, whole 64 KiB blocks clipped to the snapshot's size. null: not known (reflink).
   * Beyond the snapshot's size (the volume grew) everything differs and is not told. Of a sealed snapshot: the ranges that were kept.
   */
  changedRanges(id: string, volume: string): readonly Range[] | null
  /**
   * Stops following: from the step in which this resolves, changes of the live volumes are not preserved any more. Kept is, per volume, what was preserved
   * (reflink: everything) inside `ranges[volume]`, widened to whole blocks; a volume that `ranges` does not name keeps all that was preserved
   * (reflink: nothing). The rest is given back to the file system. A sealed snapshot again: no change.
   */
  seal(id: string, ranges?: Readonly<Record<string, readonly Range[]>>): Promise<Snapshot>
  /**
   * A new writable volume `newVolume` with the content of the snapshot, refused to clients (standby) until the caller serves it. By reflink where the
   * snapshot is one, else by copying its data, which others go on beside. Exists with that size already: no change, so ids of clones are never used for
   * anything else. It does not follow the snapshot, which may be deleted.
   */
  clone(
    id: string,
    volume: string,
    newVolume: string,
    options?: {
      readonly owner?: string
      readonly onProgress?: (progress: CloneProgress) => void
      /** Aborting it leaves nothing. */
      readonly signal?: AbortSignal
      /** Copies at half the pace of the disk, in small pieces, so that whoever writes to it besides does not notice. */
      readonly gentle?: Clock
    },
  ): Promise<void>
  /** Ids of the snapshots (not the sealed ones) of a volume: it cannot be deleted while there are any. */
  ofVolume(volume: string): readonly string[]
  /** Closes files. Before the volume store is closed: writes of volumes with snapshots are refused (VOLUME_CLOSED) from then on. */
  close(): Promise<void>
}

/** Unit of preserving and of ranges. */
export const SNAPSHOT_BLOCK_BYTES = 64 * 1024
