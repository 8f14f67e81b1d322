/* A volume: a fixed range of bytes that one site keeps.
 *
 * Synchronous calls end in the page cache and are meant for small I/O on the hot path: one call costs about a microsecond,
 * less than a trip to the thread pool. They may still block for long when the kernel throttles writers or a block has to be
 * read first, therefore nothing that must never wait (heartbeats, leases) may share their thread.
 *
 * What survives what
 *   writeSync, zeroSync return   death of this process
 *   flush resolves               power loss, for everything that had returned before flush was called
 *
 * Sticky failure: the kernel reports a lost write once, on the next fdatasync, and then forgets it. A volume that has seen
 * EIO is therefore marked failed, durably, and refuses all further I/O, also after a restart, until it is deleted.
 * ENOSPC is not sticky: the write that did not fit was never acknowledged.
 *
 * Every failure is a Fault out of `faults.ts`: VOLUME_FAILED, VOLUME_NO_SPACE, VOLUME_READ_ERROR, VOLUME_CLOSED.
 * A range outside the volume is the caller's mistake and asserted.
 */
export interface Volume {
  readonly id: string
  /** Grows when the store extends the volume, never shrinks. */
  readonly sizeBytes: number
  /** Why all I/O is refused; undefined while the volume is good. */
  readonly failed: string | undefined

  /**
   * Call in the same synchronous step, directly before `writeSync` or `zeroSync` of the range (`zero` asks for itself): null (nearly
   * always) when it may be changed at once, else what is to be waited for: a snapshot of this volume lives from what the range holds now, and
   * preserves it first, durably. Afterwards ask again: a snapshot may have been taken meanwhile. Rejects with VOLUME_NO_SPACE or another
   * Fault when it cannot be preserved; the range must not be changed then.
   */
  guard(offset: number, length: number): Promise<void> | null
  /** Who is asked by `guard` from this step on; null: nobody. One at a time, and that is the snapshots of the site. */
  attachGuard(guard: VolumeGuard | null): void
  /** null when nothing changes the volume now; else resolves when the step of `zero` that is under way off the loop has ended. More
   *  may have begun by then unless the guard keeps them waiting. */
  changesEnded(): Promise<void> | null
  /** Bytes written since the last flush began; what a flush would have to write, roughly. */
  readonly dirtyBytes: number
  /** Call after writing when much is written without a flush, and the next flush is to be short: now and then begins to write what is dirty
   *  to the disk, off the loop. Nothing is durable by it, and what fails is told by the flush. */
  writeBehind(): void
  /** Call when a flush is expected and there is time until it comes: what is dirty, if it is little, is given to the disk by the loop itself. As
   *  with `writeBehind`, nothing is durable by it. `wholly`: nothing more is expected to be written until then, and what little is dirty is made durable
   *  off the loop; a flush that finds nothing changed since waits for that, if it is not over yet, and hears of its failure. */
  prepareFlush(wholly: boolean): void
  /** Writes `buf[bufOffset, bufOffset + length)` at byte `offset`, all of it or a Fault (then the range is undefined). */
  writeSync(buf: Uint8Array, bufOffset: number, length: number, offset: number): void
  /** Reads at once when everything is in the page cache and the range is short, else returns false and has read nothing
   *  of worth. Never waits for the disk. */
  readCached(buf: Uint8Array, bufOffset: number, length: number, offset: number): boolean
  /** In the thread pool, so that a slow disk does not stop the loop. */
  read(buf: Uint8Array, bufOffset: number, length: number, offset: number): Promise<void>
  /** `read` without promise: calls back once, with a Fault or null. */
  readThen(
    buf: Uint8Array,
    bufOffset: number,
    length: number,
    offset: number,
    done: (error: Error | null) => void,
  ): void
  readSync(buf: Uint8Array, bufOffset: number, length: number, offset: number): void
  /** Makes the range read as zeroes. With `mayUnmap` its space may be given back, without it stays reserved.
   *  At most ZERO_SYNC_BYTES_MAX; larger ranges go to `zero`. */
  zeroSync(offset: number, length: number, mayUnmap: boolean): void
  /** Any length, in steps off the loop, each of which asks the guard first. Not atomic: other I/O goes on between the steps.
   *  `unguarded` is for a rollback, which has seen to the snapshots itself. */
  zero(offset: number, length: number, mayUnmap: boolean, unguarded?: 'unguarded'): Promise<void>
  /** Everything written before this call is durable when it resolves. Concurrent calls share fdatasyncs. */
  flush(): Promise<void>
  /** Data and holes of the range in order, without gaps, clipped to it. A backend that cannot tell says data.
   *  With `countMax` only the first so many are found and the rest of the range is left out. */
  extents(offset: number, length: number, countMax?: number): Promise<readonly Extent[]>
  /** Differs from that of an earlier time when the volume was changed in between, also while no agent had it open. Only where nothing is written to it
   *  meanwhile. */
  stamp(): Promise<string>
  /** Bytes of disk taken. */
  allocatedBytes(): Promise<number>
  /** Makes the new, empty file of this descriptor a copy that shares the volume's space, as the volume is. The caller keeps writers away.
   *  Off the loop. Rejects with a system error: EOPNOTSUPP, EXDEV and EINVAL where that cannot be done, ENOSPC. Not durable by itself. */
  cloneTo(fd: number): Promise<void>
  /** The other way: the volume's first `length` bytes become those of the file, sharing its space. Not atomic and not durable by itself. */
  cloneFrom(fd: number, length: number): Promise<void>
  /** Waits for running I/O, then gives the file back. Later calls get VOLUME_CLOSED. Does not flush. */
  close(): Promise<void>
}

/** Is asked before every change of a volume. */
export interface VolumeGuard {
  /** As `Volume.guard`. */
  before(offset: number, length: number): Promise<void> | null
}

/** Is told of every change of one volume, in the step that makes it or before: writes, zeroes and trims, whoever makes them and for whatever reason. */
export interface ChangeWatch {
  changed(offset: number, length: number): void
}

/** Watches the volumes of a store. */
export interface ChangeWatcher {
  /** Before anybody can change the volume. */
  opened(volume: string): ChangeWatch
  /** What was said of a volume of this name is not of the next one. */
  deleted(volume: string): void
}

export interface Extent {
  readonly offset: number
  readonly length: number
  /** True: nothing is stored, the range reads as zeroes. */
  readonly hole: boolean
}

/** Longest range of one `zeroSync`: punching 1 MiB takes up to 0.7 ms, which is as long as the loop may stand still. */
export const ZERO_SYNC_BYTES_MAX = 1024 * 1024
