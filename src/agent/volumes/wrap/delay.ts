import { type Clock, sleep } from '#base/clock.ts'
import type { Volume } from '../volume.ts'

export interface Delays {
  /** Milliseconds before each of these calls begins. Default 0. */
  readonly readMs?: number
  readonly zeroMs?: number
  readonly flushMs?: number
}

/** A volume on a slow disk. Only calls that go through the thread pool are delayed: a synchronous write ends in the page
 *  cache and is fast on the slowest disk, its slowness shows in the flush. Cached reads always miss, so that reads are slow. */
export function delayedVolume(inner: Volume, clock: Clock, delays: Delays): Volume {
  const { readMs = 0, zeroMs = 0, flushMs = 0 } = delays
  return {
    get id() {
      return inner.id
    },
    get sizeBytes() {
      return inner.sizeBytes
    },
    get failed() {
      return inner.failed
    },
    get dirtyBytes() {
      return inner.dirtyBytes
    },
    writeBehind: () => inner.writeBehind(),
    prepareFlush: (wholly) => inner.prepareFlush(wholly),
    guard: (offset, length) => inner.guard(offset, length),
    attachGuard: (guard) => inner.attachGuard(guard),
    changesEnded: () => inner.changesEnded(),
    stamp: () => inner.stamp(),
    writeSync: (buf, bufOffset, length, offset) => inner.writeSync(buf, bufOffset, length, offset),
    readSync: (buf, bufOffset, length, offset) => inner.readSync(buf, bufOffset, length, offset),
    readCached: (buf, bufOffset, length, offset) =>
      readMs === 0 && inner.readCached(buf, bufOffset, length, offset),
    async read(buf, bufOffset, length, offset) {
      await sleep(clock, readMs)
      await inner.read(buf, bufOffset, length, offset)
    },
    readThen(buf, bufOffset, length, offset, done) {
      clock.after(readMs, () => inner.readThen(buf, bufOffset, length, offset, done))
    },
    zeroSync: (offset, length, mayUnmap) => inner.zeroSync(offset, length, mayUnmap),
    async zero(offset, length, mayUnmap, unguarded) {
      await sleep(clock, zeroMs)
      await inner.zero(offset, length, mayUnmap, unguarded)
    },
    async flush() {
      await sleep(clock, flushMs)
      await inner.flush()
    },
    extents: (offset, length, countMax) => inner.extents(offset, length, countMax),
    allocatedBytes: () => inner.allocatedBytes(),
    cloneTo: (fd) => inner.cloneTo(fd),
    cloneFrom: (fd, length) => inner.cloneFrom(fd, length),
    close: () => inner.close(),
  }
}
