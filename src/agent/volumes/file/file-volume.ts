import { read, readSync } from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { assert } from '#base/assert.ts'
import { Fault } from '#base/fault.ts'
import { cloneFile } from '#base/system/clone.ts'
import type { FileShape } from '#base/system/file-shape.ts'
import type { FileRanges } from '#base/system/libc.ts'
import { hasNoRoom, writeWholeSync } from '#base/system/whole-io.ts'
import { VOLUME_CLOSED, VOLUME_FAILED, VOLUME_NO_SPACE, VOLUME_READ_ERROR } from '../faults.ts'
import {
  type ChangeWatch,
  type Extent,
  type Volume,
  type VolumeGuard,
  ZERO_SYNC_BYTES_MAX,
} from '../volume.ts'
import { extentAt, isUnsupported } from './file-extents.ts'
import { CUT_OFF, fileThere } from './file-there.ts'
import {
  bigFstatInPool,
  closeInPool,
  fdatasyncInPool,
  fstatInPool,
  fsyncInPool,
  ftruncateInPool,
} from './pool-calls.ts'
import { SharedSyncs } from './shared-syncs.ts'

/* A volume on one sparse file.
 *
 * Holes come from fallocate; where the file system has none, zeroes are written and everything counts as data. Flushes share fdatasyncs (shared-syncs.ts).
 *
 * An fdatasync runs in the thread pool, and waking a thread takes about as long as a fast disk takes for a page. So when little
 * is dirty the disk gets it from the loop at once, or when the flush is expected (`prepareFlush`): a third less for a small commit.
 *
 * A file that somebody has removed or cut off under us would go on taking writes, and lose them all when the agent ends, or show zeroes. So each flush
 * looks whether it is still there in its whole length, before it says that anything is durable, and a read behind its end fails the volume.
 */

/** One step of `zero` off the loop. A fallocate holds the file's lock, and so delays writes to it, for some 10 ms at this size. */
const ZERO_STEP_BYTES = 64 * 1024 * 1024
/** The same while somebody guards the volume and may have to preserve what a step destroys. */
const GUARDED_STEP_BYTES = 4 * 1024 * 1024
/** Holes found by one turn of the loop in `extents`; each takes two system calls of half a microsecond. */
const EXTENTS_PER_TURN = 500
/** Longer reads go to the pool: copying them would take the loop as long as the trip costs, and two cores share the work. */
const CACHED_READ_BYTES_MAX = 128 * 1024
/** Given to the disk by the loop itself; more would make the loop wait for the disk's queue. */
const EARLY_WRITEBACK_BYTES_MAX = 64 * 1024
/** Dirty bytes between two beginnings of `writeBehind`. */
const WRITE_BEHIND_BYTES = 8 * 1024 * 1024
const ZEROES = Buffer.alloc(ZERO_SYNC_BYTES_MAX)

export interface FileVolumeParts {
  readonly id: string
  readonly fd: number
  readonly sizeBytes: number
  readonly failed: string | undefined
  readonly ranges: FileRanges
  /** Makes the failure durable before anything else happens. Synchronous: nothing may overtake it. Must not throw. */
  readonly onFailed: (reason: string) => void
  readonly watch?: ChangeWatch
}

export class FileVolume implements Volume {
  readonly id: string
  readonly #fd: number
  readonly #ranges: FileRanges
  readonly #onFailed: (reason: string) => void
  readonly #watch: ChangeWatch | undefined
  #sizeBytes: number
  #failed: string | undefined
  #closed = false
  #holes = true
  #cachedReads = true
  /** Calls in the thread pool; the descriptor may not be closed, and so reused, under them. */
  #running = 0
  #idle: (() => void) | undefined
  /** Written since the last fdatasync began. */
  #dirtyBytes = 0
  /** Of these, what `writeBehind` and `prepareFlush` have given to the disk. */
  #behindBytes = 0
  #writingBehind = false
  readonly #syncs = new SharedSyncs(() => this.#sync())
  #guard: VolumeGuard | null = null
  /** Steps of `zero` in the thread pool. */
  #changing = 0
  #unchanging: (() => void)[] = []

  constructor(parts: FileVolumeParts) {
    this.id = parts.id
    this.#fd = parts.fd
    this.#sizeBytes = parts.sizeBytes
    this.#failed = parts.failed
    this.#ranges = parts.ranges
    this.#onFailed = parts.onFailed
    this.#watch = parts.watch
    this.#ranges.adviseRandom(parts.fd)
  }

  get sizeBytes(): number {
    return this.#sizeBytes
  }

  get failed(): string | undefined {
    return this.#failed
  }

  get dirtyBytes(): number {
    return this.#dirtyBytes
  }

  writeBehind(): void {
    const enough = this.#dirtyBytes - this.#behindBytes >= WRITE_BEHIND_BYTES
    if (!enough || this.#writingBehind || this.#refusal() !== undefined) return
    this.#behindBytes = this.#dirtyBytes
    this.#writingBehind = true
    this.#running++
    void this.#ranges.startWritebackInPool(this.#fd).then(() => {
      this.#writingBehind = false
      this.#leave()
    })
  }

  prepareFlush(wholly: boolean): void {
    if (this.#refusal() !== undefined || this.#dirtyBytes === 0) return
    if (!wholly) this.#giveToDisk()
    else if (this.#dirtyBytes <= EARLY_WRITEBACK_BYTES_MAX) this.#syncs.ahead()
  }

  /** What little is dirty and has not been given to the disk. */
  #giveToDisk(): void {
    if (this.#dirtyBytes === this.#behindBytes) return
    if (this.#dirtyBytes > EARLY_WRITEBACK_BYTES_MAX) return
    this.#behindBytes = this.#dirtyBytes
    this.#ranges.startWriteback(this.#fd)
  }

  guard(offset: number, length: number): Promise<void> | null {
    return this.#guard === null ? null : this.#guard.before(offset, length)
  }

  attachGuard(guard: VolumeGuard | null): void {
    this.#guard = guard
  }

  changesEnded(): Promise<void> | null {
    if (this.#changing === 0) return null
    return new Promise((resolve) => this.#unchanging.push(resolve))
  }

  writeSync(buf: Uint8Array, bufOffset: number, length: number, offset: number): void {
    this.#check(offset, length)
    this.#changes(offset, length)
    this.#dirtyBytes += length
    try {
      writeWholeSync(this.#fd, buf, offset, bufOffset, length)
    } catch (error) {
      throw this.#writeFault(error, 'writing', offset)
    }
  }

  readSync(buf: Uint8Array, bufOffset: number, length: number, offset: number): void {
    this.#check(offset, length)
    let done = 0
    try {
      while (done < length) {
        const got = readSync(this.#fd, buf, bufOffset + done, length - done, offset + done)
        if (got === 0) throw this.#fail(CUT_OFF, undefined)
        done += got
      }
    } catch (error) {
      if (error instanceof Fault) throw error
      throw new Fault(VOLUME_READ_ERROR, `reading volume ${this.id}`, { offset }, error)
    }
  }

  readCached(buf: Uint8Array, bufOffset: number, length: number, offset: number): boolean {
    this.#check(offset, length)
    if (!this.#cachedReads || length > CACHED_READ_BYTES_MAX) return false
    try {
      return this.#ranges.readCached(this.#fd, buf, bufOffset, length, offset) === length
    } catch (error) {
      // The ordinary read that follows tells a real failure better.
      if (isUnsupported(error)) this.#cachedReads = false
      return false
    }
  }

  read(buf: Uint8Array, bufOffset: number, length: number, offset: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.readThen(buf, bufOffset, length, offset, (error) =>
        error === null ? resolve() : reject(error),
      )
    })
  }

  readThen(
    buf: Uint8Array,
    bufOffset: number,
    length: number,
    offset: number,
    done: (error: Error | null) => void,
  ): void {
    const refusal = this.#refusal()
    if (refusal !== undefined) {
      process.nextTick(done, refusal)
      return
    }
    this.#checkRange(offset, length)
    if (length === 0) {
      process.nextTick(done, null)
      return
    }
    this.#running++
    read(this.#fd, buf, bufOffset, length, offset, (error, got) => {
      this.#leave()
      // What a failed disk shows by now may be older than what was acknowledged.
      if (error === null && got === length) done(this.#refusal() ?? null)
      else if (error === null && got > 0) {
        this.readThen(buf, bufOffset + got, length - got, offset + got, done)
      } else if (error === null) done(this.#refusal() ?? this.#fail(CUT_OFF, undefined))
      else done(new Fault(VOLUME_READ_ERROR, `reading volume ${this.id}`, { offset }, error))
    })
  }

  zeroSync(offset: number, length: number, mayUnmap: boolean): void {
    this.#check(offset, length)
    assert(length <= ZERO_SYNC_BYTES_MAX, 'long ranges are zeroed off the loop')
    if (length === 0) return
    if (this.#holes) {
      this.#changes(offset, length)
      try {
        if (mayUnmap) this.#ranges.punchHoleSync(this.#fd, offset, length)
        else this.#ranges.zeroRangeSync(this.#fd, offset, length)
        return
      } catch (error) {
        if (!isUnsupported(error)) throw this.#writeFault(error, 'zeroing', offset)
        this.#holes = false
      }
    }
    this.writeSync(ZEROES, 0, length, offset)
  }

  async zero(
    offset: number,
    length: number,
    mayUnmap: boolean,
    unguarded?: 'unguarded',
  ): Promise<void> {
    this.#check(offset, length)
    const end = offset + length
    for (let at = offset; at < end; ) {
      const step = Math.min(this.#zeroStepBytes(), end - at)
      const wait = unguarded === undefined ? this.guard(at, step) : null
      if (wait !== null) {
        await wait
        continue
      }
      this.#check(at, step)
      if (!this.#holes) {
        this.writeSync(ZEROES, 0, step, at)
        at += step
        await nextTurn()
        continue
      }
      this.#changes(at, step)
      this.#running++
      this.#changing++
      try {
        if (mayUnmap) await this.#ranges.punchHole(this.#fd, at, step)
        else await this.#ranges.zeroRange(this.#fd, at, step)
        at += step
      } catch (error) {
        if (!isUnsupported(error)) throw this.#writeFault(error, 'zeroing', at)
        this.#holes = false
      } finally {
        this.#syncs.changed()
        this.#changed()
        this.#leave()
      }
    }
  }

  #zeroStepBytes(): number {
    if (!this.#holes) return ZERO_SYNC_BYTES_MAX
    return this.#guard === null ? ZERO_STEP_BYTES : GUARDED_STEP_BYTES
  }

  #changed(): void {
    if (--this.#changing === 0) for (const wake of this.#unchanging.splice(0)) wake()
  }

  /** Is being changed in this step, or in one that begins with it. */
  #changes(offset: number, length: number): void {
    this.#syncs.changed()
    this.#watch?.changed(offset, length)
  }

  async flush(): Promise<void> {
    this.#check(0, 0)
    const synced = this.#syncs.flush()
    this.#lookAtFile()
    await synced
    // What was lost since, by a write or with the file, is not durable.
    if (this.#failed !== undefined) throw this.#refusal() as Fault
  }

  async #sync(): Promise<void> {
    this.#check(0, 0)
    this.#running++
    this.#giveToDisk()
    this.#dirtyBytes = 0
    this.#behindBytes = 0
    const synced = fdatasyncInPool(this.#fd)
    this.#lookAtFile()
    try {
      await synced
    } catch (error) {
      // Whatever the number says: pages were thrown away, and nobody will be told again.
      throw this.#fail(`fdatasync failed: ${String(error)}`, error)
    } finally {
      this.#leave()
    }
  }

  async extents(
    offset: number,
    length: number,
    countMax = Number.POSITIVE_INFINITY,
  ): Promise<readonly Extent[]> {
    this.#check(offset, length)
    // Behind its end a file that was cut off looks like one hole.
    this.#checkFile()
    const end = offset + length
    const found: Extent[] = []
    let inTurn = 0
    for (let at = offset; at < end && found.length < countMax; ) {
      if (inTurn++ === EXTENTS_PER_TURN) {
        inTurn = 0
        await nextTurn()
      }
      this.#check(at, end - at)
      const extent = this.#extentAt(at, end)
      found.push(extent)
      at += extent.length
    }
    return found
  }

  #extentAt(offset: number, end: number): Extent {
    if (!this.#holes) return { offset, length: end - offset, hole: false }
    try {
      return extentAt(this.#ranges, this.#fd, offset, end)
    } catch (error) {
      throw new Fault(VOLUME_READ_ERROR, `mapping volume ${this.id}`, { offset }, error)
    }
  }

  /** Fails the volume when the file is lost. While the disk is at work, and so behind what sets it to work: a flush waits for the longer of the two. */
  #lookAtFile(): void {
    const found = fileThere(this.#ranges, this.#fd, this.#sizeBytes)
    if ('reason' in found) this.#fail(found.reason, found.cause)
  }

  /** Throws VOLUME_FAILED when the file is lost. */
  #checkFile(): FileShape {
    const found = fileThere(this.#ranges, this.#fd, this.#sizeBytes)
    if ('reason' in found) throw this.#fail(found.reason, found.cause)
    return found
  }

  /**
   * For the store: makes the file that long, durably, with zeroes behind the volume's end. The volume stays as large as it was until `grown`, because
   * its size is what the record says. Faults: VOLUME_NO_SPACE (then nothing has changed), VOLUME_FAILED.
   */
  async prepareSize(sizeBytes: number): Promise<void> {
    const old = this.#sizeBytes
    this.#check(0, 0)
    const { size } = this.#checkFile()
    this.#running++
    try {
      // What an extension left that did not come to its end is no part of the volume.
      for (const length of size > old ? [old, sizeBytes] : [sizeBytes]) {
        await ftruncateInPool(this.#fd, length).catch((error: unknown) => {
          throw this.#writeFault(error, 'extending', old)
        })
      }
      // As of every sync: whatever the number says, pages were thrown away.
      await fsyncInPool(this.#fd).catch((error: unknown) => {
        throw this.#fail(`fsync failed: ${String(error)}`, error)
      })
    } finally {
      this.#leave()
    }
  }

  /** The record says so by now, and the file is as long. */
  grown(sizeBytes: number): void {
    this.#sizeBytes = Math.max(this.#sizeBytes, sizeBytes)
  }

  async allocatedBytes(): Promise<number> {
    if (this.#closed) throw new Fault(VOLUME_CLOSED, `volume ${this.id}`)
    this.#running++
    try {
      return (await fstatInPool(this.#fd)).blocks * 512
    } finally {
      this.#leave()
    }
  }

  async stamp(): Promise<string> {
    this.#check(0, 0)
    this.#running++
    try {
      const { ino, size, ctimeNs } = await bigFstatInPool(this.#fd)
      return `${ino}.${size}.${ctimeNs}`
    } finally {
      this.#leave()
    }
  }

  async cloneTo(fd: number): Promise<void> {
    this.#check(0, 0)
    this.#running++
    try {
      await cloneFile(fd, this.#fd)
    } finally {
      this.#leave()
    }
  }

  async cloneFrom(fd: number, length: number): Promise<void> {
    this.#check(0, length)
    this.#changes(0, length)
    this.#running++
    try {
      await cloneFile(this.#fd, fd, length)
    } finally {
      this.#syncs.changed()
      this.#leave()
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    if (this.#running > 0) await new Promise<void>((resolve) => (this.#idle = resolve))
    await closeInPool(this.#fd)
  }

  /** For the store: the copy is worth nothing any more, for a reason that the volume cannot see. */
  fail(reason: string): void {
    this.#fail(reason, undefined)
  }

  #leave(): void {
    if (--this.#running === 0) this.#idle?.()
  }

  #refusal(): Fault | undefined {
    if (this.#closed) return new Fault(VOLUME_CLOSED, `volume ${this.id}`)
    if (this.#failed !== undefined) {
      return new Fault(VOLUME_FAILED, `volume ${this.id}: ${this.#failed}`)
    }
    return undefined
  }

  #check(offset: number, length: number): void {
    if (this.#closed || this.#failed !== undefined) throw this.#refusal() as Fault
    this.#checkRange(offset, length)
  }

  #checkRange(offset: number, length: number): void {
    assert(
      offset >= 0 && length >= 0 && offset + length <= this.#sizeBytes,
      'a request lies inside its volume',
    )
  }

  #writeFault(error: unknown, doing: string, offset: number): Fault {
    if (error instanceof Fault) return error
    if (hasNoRoom(error)) {
      return new Fault(VOLUME_NO_SPACE, `${doing} volume ${this.id}`, { offset }, error)
    }
    return this.#fail(`${doing} at ${offset} failed: ${String(error)}`, error)
  }

  #fail(reason: string, cause: unknown): Fault {
    if (this.#failed === undefined) {
      this.#failed = reason
      this.#onFailed(reason)
    }
    return new Fault(VOLUME_FAILED, `volume ${this.id}: ${reason}`, {}, cause)
  }
}
