import type { Fault } from '#base/fault.ts'
import type { Volume } from '../volume.ts'

/** Which calls can be made to fail. */
export type VolumeCall = 'write' | 'read' | 'zero' | 'flush' | 'extents'

/** Decides before each call: a Fault to fail with, or undefined to let it through. It may count, toss or look at a switch. */
export type FaultPlan = (call: VolumeCall, offset: number, length: number) => Fault | undefined

/** A volume whose calls fail by plan. For rehearsing what a broken disk does to a site; failing calls never reach the volume
 *  behind, and its own sticky failure is not touched. */
export function faultyVolume(inner: Volume, plan: FaultPlan): Volume {
  const check = (call: VolumeCall, offset: number, length: number): void => {
    const fault = plan(call, offset, length)
    if (fault !== undefined) throw fault
  }
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
    writeSync(buf, bufOffset, length, offset) {
      check('write', offset, length)
      inner.writeSync(buf, bufOffset, length, offset)
    },
    readCached(buf, bufOffset, length, offset) {
      check('read', offset, length)
      return inner.readCached(buf, bufOffset, length, offset)
    },
    readSync(buf, bufOffset, length, offset) {
      check('read', offset, length)
      inner.readSync(buf, bufOffset, length, offset)
    },
    async read(buf, bufOffset, length, offset) {
      check('read', offset, length)
      await inner.read(buf, bufOffset, length, offset)
    },
    readThen(buf, bufOffset, length, offset, done) {
      const fault = plan('read', offset, length)
      if (fault === undefined) inner.readThen(buf, bufOffset, length, offset, done)
      else queueMicrotask(() => done(fault))
    },
    zeroSync(offset, length, mayUnmap) {
      check('zero', offset, length)
      inner.zeroSync(offset, length, mayUnmap)
    },
    async zero(offset, length, mayUnmap, unguarded) {
      check('zero', offset, length)
      await inner.zero(offset, length, mayUnmap, unguarded)
    },
    async flush() {
      check('flush', 0, 0)
      await inner.flush()
    },
    async extents(offset, length, countMax) {
      check('extents', offset, length)
      return inner.extents(offset, length, countMax)
    },
    allocatedBytes: () => inner.allocatedBytes(),
    cloneTo: (fd) => inner.cloneTo(fd),
    cloneFrom: (fd, length) => inner.cloneFrom(fd, length),
    close: () => inner.close(),
  }
}
