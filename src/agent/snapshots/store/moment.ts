import { type FileHandle, open } from 'node:fs/promises'
import { cannotClone } from '#base/system/clone.ts'
import type { Volume } from '#agent/volumes/volume.ts'
import type { SnapshotGuard } from './snapshot-guard.ts'

/* The moment of a snapshot: one synchronous step of the event loop, over all volumes.
 *
 *   reflink       flush ahead, in rounds, while writers go on ─► gates closed ─► steps of long zeroes end ─► MOMENT ─► clones ─► gates open
 *   before-image  (gates closed only while a long zero is under way) ─► MOMENT: from this step on writers preserve first
 *
 * A clone writes what is dirty to the disk first, while nobody can write: for a large dirty file that takes seconds. Hence the rounds.
 */

/** Rounds of flushing ahead. Under a writer that is faster than the disk it never gets clean; it gets as clean as it can in a few. */
const ROUNDS_MAX = 8
/** A flush of this much takes some milliseconds on a disk that does 500 MB/s. */
const CLEAN_ENOUGH_BYTES = 2 * 1024 * 1024
/** A round that leaves more than this share of what the last one left is not worth another. */
const WORTHWHILE = 0.7

/** Returns bytes still dirty, roughly. Rejects with the fault of a volume that cannot be flushed. */
export async function flushAhead(volumes: readonly Volume[]): Promise<number> {
  let dirty = Number.POSITIVE_INFINITY
  for (let round = 0; round < ROUNDS_MAX; round++) {
    await Promise.all(volumes.map((volume) => volume.flush()))
    const left = volumes.reduce((sum, volume) => sum + volume.dirtyBytes, 0)
    if (left <= CLEAN_ENOUGH_BYTES || left > dirty * WORTHWHILE) return left
    dirty = left
  }
  return dirty
}

/** Closes the gates and waits until nothing changes the volumes any more. */
export async function stopWriters(guards: readonly SnapshotGuard[]): Promise<void> {
  for (const guard of guards) guard.closeGate()
  for (const { volume } of guards) {
    // New steps wait at the gate, so one look is enough.
    await volume.changesEnded()
  }
}

/** Longest time that a writer waited, ms. One step: writes of a group that came in one order go on together. */
export const letWritersGo = (guards: readonly SnapshotGuard[]): number =>
  guards.reduce((longest, guard) => Math.max(longest, guard.openGate()), 0)

export interface CloneTarget {
  readonly volume: Volume
  readonly file: FileHandle
}

export async function openTargets(
  targets: readonly { readonly volume: Volume; readonly path: string }[],
): Promise<CloneTarget[]> {
  return await Promise.all(
    targets.map(async ({ volume, path }) => ({ volume, file: await open(path, 'wx+', 0o600) })),
  )
}

/** All of them at once. False: this file system cannot clone. */
export async function makeClones(targets: readonly CloneTarget[]): Promise<boolean> {
  const outcomes = await Promise.allSettled(
    targets.map(({ volume, file }) => volume.cloneTo(file.fd)),
  )
  const failures = outcomes.flatMap((one) => (one.status === 'rejected' ? [one.reason] : []))
  if (failures.length === 0) return true
  const real = failures.find((failure) => !cannotClone(failure))
  if (real !== undefined) throw real
  return false
}
