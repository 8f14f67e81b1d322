import type { Clock } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { BLOCK_BYTES, CHECKSUM_BYTES, FRAME_BYTES } from '#wire/link/frame.ts'
import type { AckGate } from './ack-gate.ts'
import { checksums, checksumsOf, differing, isZero, zeroChecksums } from './checksums.ts'
import { type PeerQueries, QueryFailed } from './peer-queries.ts'
import { REGION_BYTES } from './regions.ts'
import type { Sender } from './sender.ts'
import type { WatchedRange, Writer, WriterMember } from './writer.ts'

/* Copies the regions in `todo` of every member to the replica, in index order, while clients write.
 *
 *     region leaves todo ─► 1 MiB steps: what does the replica lack? ─► read ─► frames in the stream ─► acknowledged ─► done
 *                                                                         │
 *                                              a client wrote into it ────┘ read again
 *
 * What the replica lacks: where it is blank (it reads as zeroes) everything that is data here; otherwise the 64 KiB blocks whose
 * checksums differ. Checksums may be taken at any moment, on both sides, without stopping anybody: the writer's are newer than every
 * write that the replica can have applied, so if they are equal, what the replica still has to apply leads exactly to them; and a
 * block that is sent needlessly does no harm.
 *
 * Conflict rule: a block's bytes must be numbered in the same turn as they were known to be current. Clients' writes mark
 * watched ranges; a marked one is read again. After a few failures the block is read and sent within one turn.
 *
 * Client writes go first: a copy waits while the socket is behind or too much of the copy is unacknowledged.
 *
 * When it is stopped (link loss) the regions that were not acknowledged go back into `todo`.
 */

const STEP_BYTES = 1024 * 1024
/** Steps under way at one time. Each holds up to 2 MiB of memory. */
const STEPS_MAX = 4
/** Copy bytes on their way. Bounds how long a client's write waits behind the copy. */
const UNACKNOWLEDGED_BYTES_MAX = 4 * 1024 * 1024
const BACKLOG_BYTES_MAX = 1024 * 1024
const REREADS_MAX = 3
/** Longest copy frame. */
const RUN_BYTES_MAX = 512 * 1024

export interface CopyParts {
  readonly writer: Writer
  readonly gate: AckGate
  readonly sender: Sender
  readonly queries: PeerQueries
  readonly clock: Clock
  /** Members whose replica is known to be all zeroes where nothing was sent. */
  readonly blank: ReadonlySet<number>
  readonly rateBytes: () => number
  /** `todo` is empty and everything is acknowledged; called again whenever that becomes true again. */
  readonly onDone: () => void
  /** A local read failed, or the link answered with an error. Tried again after a while. */
  readonly onError: (error: unknown) => void
}

const RETRY_MS = 1_000

export class Copy {
  readonly #parts: CopyParts
  #stopped = false
  #running = 0
  /** Regions taken out of todo: number of steps not done, and the last copy number in them. */
  readonly #open = new Map<
    string,
    { member: WriterMember; region: number; steps: number; seq: number }
  >()
  #unacknowledged: { seq: number; bytes: number }[] = []
  #unacknowledgedBytes = 0
  #wake: (() => void) | undefined
  #nextAllowedMs = 0
  #looping = false
  /** Bytes of data sent. */
  sentBytes = 0

  constructor(parts: CopyParts) {
    this.#parts = parts
  }

  get stopped(): boolean {
    return this.#stopped
  }

  /** Regions that are being copied now, of one member. */
  openRegions(member: WriterMember): number {
    let count = 0
    for (const open of this.#open.values()) if (open.member === member) count++
    return count
  }

  /** There may be work. */
  kick(): void {
    this.#signal()
    if (this.#looping || this.#stopped) return
    this.#looping = true
    this.#loop().then(
      () => {
        this.#looping = false
      },
      (error: unknown) => {
        this.#looping = false
        throw error
      },
    )
  }

  stop(): void {
    if (this.#stopped) return
    this.#stopped = true
    for (const { member, region } of this.#open.values()) member.todo.add(region)
    this.#open.clear()
    this.#signal()
  }

  /** The replica acknowledged more. */
  acknowledged(): void {
    const { acknowledged } = this.#parts.gate
    let settled = 0
    while (settled < this.#unacknowledged.length) {
      const first = this.#unacknowledged[settled] as { seq: number; bytes: number }
      if (first.seq > acknowledged) break
      this.#unacknowledgedBytes -= first.bytes
      settled++
    }
    if (settled > 0) this.#unacknowledged.splice(0, settled)
    if (this.#open.size === 0) return
    for (const [key, open] of this.#open) {
      if (open.steps === 0 && open.seq <= acknowledged) this.#open.delete(key)
    }
    this.#signal()
  }

  #signal(): void {
    const wake = this.#wake
    this.#wake = undefined
    wake?.()
  }

  async #loop(): Promise<void> {
    while (!this.#stopped) {
      const next = this.#takeRegion()
      if (next === null) {
        if (this.#open.size === 0 && this.#running === 0) {
          this.#parts.onDone()
          return
        }
        await this.#change()
        continue
      }
      const { member, region } = next
      const start = region * REGION_BYTES
      const end = Math.min(start + REGION_BYTES, member.volume.sizeBytes)
      const key = `${member.index}:${region}`
      const open = { member, region, steps: Math.ceil((end - start) / STEP_BYTES), seq: 0 }
      this.#open.set(key, open)
      for (let at = start; at < end && !this.#stopped; at += STEP_BYTES) {
        while (!this.#stopped && !this.#mayBegin()) await this.#change()
        if (this.#stopped) break
        this.#running++
        this.#step(member, at, Math.min(STEP_BYTES, end - at))
          .then(
            (seq) => {
              open.steps--
              open.seq = Math.max(open.seq, seq)
            },
            (error: unknown) => this.#failed(open, error),
          )
          .finally(() => {
            this.#running--
            this.acknowledged()
            this.#signal()
          })
          .catch((error: unknown) => {
            // A broken belief of ours: not to be swallowed by the copy.
            process.nextTick(() => {
              throw error
            })
          })
      }
    }
  }

  #takeRegion(): { member: WriterMember; region: number } | null {
    for (const member of [...this.#parts.writer.members.values()].sort(
      (a, b) => a.index - b.index,
    )) {
      for (let region = member.todo.next(0); region >= 0; region = member.todo.next(region + 1)) {
        // Marked again while it is still under way: its turn comes when that is settled.
        if (this.#open.has(`${member.index}:${region}`)) continue
        member.todo.delete(region)
        return { member, region }
      }
    }
    return null
  }

  #failed(open: { member: WriterMember; region: number; steps: number }, error: unknown): void {
    if (!(error instanceof QueryFailed) && !isFault(error)) throw error
    open.steps--
    if (this.#stopped) return
    this.#parts.onError(error)
    // Not before a while, so that a disk that cannot be read does not keep two sites busy.
    this.#parts.clock.after(RETRY_MS, () => {
      open.member.todo.add(open.region)
      if (!this.#stopped) this.kick()
    })
    open.steps = Number.POSITIVE_INFINITY
    this.#parts.clock.after(RETRY_MS, () => {
      this.#open.delete(`${open.member.index}:${open.region}`)
      this.#signal()
    })
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }

  #mayBegin(): boolean {
    const { sender, clock, rateBytes } = this.#parts
    if (this.#running >= STEPS_MAX) return false
    if (this.#unacknowledgedBytes >= UNACKNOWLEDGED_BYTES_MAX) return false
    if (sender.backlogBytes > BACKLOG_BYTES_MAX) {
      clock.after(5, () => this.#signal())
      return false
    }
    if (rateBytes() > 0) {
      const waitMs = this.#nextAllowedMs - clock.bootMs()
      if (waitMs > 0) {
        clock.after(Math.min(waitMs, 1_000), () => this.#signal())
        return false
      }
    }
    return true
  }

  /** Returns the number of the last frame sent, 0 for none. */
  async #step(member: WriterMember, offset: number, length: number): Promise<number> {
    const { queries, blank } = this.#parts
    const isBlank = blank.has(member.index)
    const theirs = isBlank
      ? zeroChecksums(length)
      : await queries.checksums(member.index, offset, length)
    if (theirs.length !== Math.ceil(length / BLOCK_BYTES) * CHECKSUM_BYTES) {
      throw new QueryFailed('the replica answered with too few checksums')
    }
    for (let attempt = 0; attempt < REREADS_MAX && !this.#stopped; attempt++) {
      const watch: WatchedRange = { offset, length, hit: false }
      member.watched.add(watch)
      try {
        const [first] = await member.volume.extents(offset, length, 1)
        const hole = first?.hole === true && first.length === length
        const data = Buffer.allocUnsafeSlow(hole ? 0 : length)
        if (!hole) await member.volume.read(data, 0, length, offset)
        const ours = hole ? zeroChecksums(length) : isBlank ? theirs : await checksums(data)
        if (watch.hit || this.#stopped) continue
        // From here to the last frame nothing may come in between.
        member.watched.delete(watch)
        if (isBlank) return hole ? 0 : this.#sendRun(member, data, 0, length, offset, true)
        let seq = 0
        for (const run of differing(ours, theirs, length)) {
          seq = hole
            ? this.#sendZero(member, offset + run.at, run.length)
            : this.#sendRun(member, data, run.at, run.length, offset + run.at, false)
        }
        return seq
      } finally {
        member.watched.delete(watch)
      }
    }
    let seq = 0
    for (let at = 0; at < length && !this.#stopped; at += BLOCK_BYTES) {
      const size = Math.min(BLOCK_BYTES, length - at)
      const data = Buffer.allocUnsafeSlow(size)
      member.volume.readSync(data, 0, size, offset + at)
      seq = this.#sendRun(member, data, 0, size, offset + at, isBlank)
      await new Promise((resolve) => setImmediate(resolve))
    }
    return seq
  }

  /** Sends `data[at, at + length)` as the bytes at `offset`; zero blocks as zeroes, or not at all where the replica is blank. */
  #sendRun(
    member: WriterMember,
    data: Buffer,
    at: number,
    length: number,
    offset: number,
    skipZero: boolean,
  ): number {
    let seq = 0
    let from = 0
    const flush = (to: number) => {
      for (; from < to; ) {
        const size = Math.min(RUN_BYTES_MAX, to - from)
        const bytes = Buffer.allocUnsafeSlow(FRAME_BYTES + size)
        data.copy(bytes, FRAME_BYTES, at + from, at + from + size)
        seq = this.#send(member, bytes, offset + from, size, size)
        from += size
      }
    }
    for (let block = 0; block < length; block += BLOCK_BYTES) {
      const size = Math.min(BLOCK_BYTES, length - block)
      if (!isZero(data.subarray(at + block, at + block + size))) continue
      flush(block)
      if (!skipZero) seq = this.#sendZero(member, offset + block, size)
      from = block + size
    }
    flush(length)
    return seq
  }

  #sendZero(member: WriterMember, offset: number, length: number): number {
    return this.#send(member, Buffer.allocUnsafeSlow(FRAME_BYTES), offset, length, 0)
  }

  #send(member: WriterMember, bytes: Buffer, offset: number, length: number, sent: number): number {
    const { writer, clock, rateBytes } = this.#parts
    const seq = writer.sendCopy(member, bytes, offset, length)
    this.#unacknowledged.push({ seq, bytes: sent })
    this.#unacknowledgedBytes += sent
    this.sentBytes += sent
    const rate = rateBytes()
    if (rate > 0) {
      const now = clock.bootMs()
      this.#nextAllowedMs = Math.max(now, this.#nextAllowedMs) + (sent / rate) * 1_000
    }
    return seq
  }
}

/**
 * The other direction, before anything is served: makes this side's regions equal to the replica's. Returns when all of `dirty`
 * has been compared and fetched; the fetched bytes are in the page cache. Throws QueryFailed when the link goes away.
 */
export async function reconcileMember(
  member: WriterMember,
  queries: PeerQueries,
  isDirty: (region: number) => boolean,
): Promise<{ comparedBytes: number; fetchedBytes: number }> {
  const { volume } = member
  const steps: { offset: number; length: number }[] = []
  for (let region = 0; region * REGION_BYTES < volume.sizeBytes; region++) {
    if (!isDirty(region)) continue
    const end = Math.min((region + 1) * REGION_BYTES, volume.sizeBytes)
    for (let at = region * REGION_BYTES; at < end; at += STEP_BYTES) {
      steps.push({ offset: at, length: Math.min(STEP_BYTES, end - at) })
    }
  }
  let fetchedBytes = 0
  let comparedBytes = 0
  const work = async (): Promise<void> => {
    for (let step = steps.pop(); step !== undefined; step = steps.pop()) {
      const { offset, length } = step
      const [theirs, ours] = await Promise.all([
        queries.checksums(member.index, offset, length),
        checksumsOf(volume, offset, length),
      ])
      comparedBytes += length
      if (theirs.length !== ours.length) throw new QueryFailed('too few checksums')
      for (const run of differing(ours, theirs, length)) {
        const data = await queries.block(member.index, offset + run.at, run.length)
        if (data.length !== run.length) throw new QueryFailed('a block came back too short')
        volume.writeSync(data, 0, data.length, offset + run.at)
        fetchedBytes += data.length
      }
    }
  }
  await Promise.all(Array.from({ length: STEPS_MAX }, work))
  return { comparedBytes, fetchedBytes }
}
