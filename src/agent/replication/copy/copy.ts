import type { Clock } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { BLOCK_BYTES, CHECKSUM_BYTES, FRAME_BYTES } from '#wire/link/frame.ts'
import { type Slab, SlabPool } from '#agent/nbd/slab.ts'
import type { AckGate } from '../session/ack-gate.ts'
import { checksums, checksumsOf, differing, isZero, zeroChecksums } from '../verify/checksums.ts'
import { COPY_STEP_BYTES, CopyPace, STEPS_MAX, WINDOW_MAX } from './copy-pace.ts'
import type { CopyRun } from './copy-todo.ts'
import { type PeerQueries, QueryFailed } from '../peer-queries.ts'
import { REGION_BYTES } from './regions.ts'
import type { Sender } from '../writer/sender.ts'
import type { WatchedRange, Writer, WriterMember } from '../writer/writer.ts'

/* Copies the blocks in `todo` of every member to the replica, in index order, while clients write.
 *
 *     run of blocks leaves todo ─► compare? ask for checksums ─► read ─► frames in the stream ─► acknowledged ─► done
 *                                                                  │
 *                                       a client wrote into it ────┘ read again
 *
 * A block that is known to have changed is sent without a question. Of the others the replica is asked for the checksum, unless it is
 * blank: then what reads as zeroes here is left out. Checksums may be taken at any moment, on both sides, without stopping
 * anybody: the writer's are newer than every write that the replica can have applied, so if they are equal, what the replica
 * still has to apply leads exactly to them; and a block that is sent needlessly does no harm.
 *
 * Conflict rule: a block's bytes must be numbered in the same turn as they were known to be current. Clients' writes mark
 * watched ranges; a marked one is read again. After a few failures the block is read and sent within one turn.
 *
 * A run is read behind room for a frame's header, and leaves from there: no byte is copied. What is sent of it begins behind that
 * room, or behind a block that is not sent from here, whose last bytes the header may overwrite.
 *
 * Client writes go first, see copy-pace.ts. When the copy is stopped (link loss) what was not acknowledged goes back into `todo`, and
 * a later one goes on there.
 */

const BACKLOG_BYTES_MAX = 1024 * 1024
const BACKLOG_WAIT_MS = 2
const REREADS_MAX = 3
/** Read from the page cache within the turn: cheaper than the trip to a thread. */
const CACHED_BYTES_MAX = 128 * 1024
/** Buffers kept for reuse: as many as can be on their way, or each round would make new ones. */
const IDLE_SLABS = WINDOW_MAX / COPY_STEP_BYTES + STEPS_MAX
const RETRY_MS = 1_000
/** Of a reconciliation: bytes of one step, and steps under way. */
const RECONCILE_STEP_BYTES = 1024 * 1024
const RECONCILE_STEPS = 4

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

interface Open {
  readonly member: WriterMember
  readonly run: CopyRun
  /** Number of its last frame, 0 when none was needed; null: not known yet. */
  seq: number | null
}

export class Copy {
  readonly #parts: CopyParts
  readonly #pace = new CopyPace()
  readonly #slabs = new SlabPool({
    slabBytes: FRAME_BYTES + COPY_STEP_BYTES,
    idleCountMax: IDLE_SLABS,
  })
  #stopped = false
  #running = 0
  readonly #open = new Set<Open>()
  #order: readonly WriterMember[] = []
  /** Where the search for the next run goes on: place in `#order`, byte of that member. */
  #place = 0
  #from = 0
  #wake: (() => void) | undefined
  #looping = false
  /** Frames of this copy, and numbers that others have taken since it began. */
  #frames = 0
  #others = 0
  readonly #firstSequence: number
  /** Bytes of data sent. */
  sentBytes = 0

  constructor(parts: CopyParts) {
    this.#parts = parts
    this.#firstSequence = parts.gate.sequence
  }

  get stopped(): boolean {
    return this.#stopped
  }

  /** Bytes of one member that are being copied now. */
  openBytes(member: WriterMember): number {
    let bytes = 0
    for (const open of this.#open) if (open.member === member) bytes += open.run.length
    return bytes
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
    for (const { member, run } of this.#open) member.todo.putBack(run)
    this.#open.clear()
    this.#signal()
  }

  /** The replica acknowledged more. */
  acknowledged(): void {
    const { gate, clock } = this.#parts
    const now = clock.bootMs()
    this.#lookForClients(now)
    this.#pace.acknowledged(gate.acknowledged, now)
    for (const open of this.#open) {
      if (open.seq !== null && open.seq <= gate.acknowledged) this.#open.delete(open)
    }
    this.#signal()
  }

  #lookForClients(now: number): void {
    const others = this.#parts.gate.sequence - this.#firstSequence - this.#frames
    if (others > this.#others) this.#pace.foreground(now)
    this.#others = others
  }

  #signal(): void {
    const wake = this.#wake
    this.#wake = undefined
    wake?.()
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }

  async #loop(): Promise<void> {
    while (!this.#stopped) {
      if (!this.#mayBegin()) {
        await this.#change()
        continue
      }
      const open = this.#take()
      if (open !== null) {
        this.#begin(open)
        continue
      }
      if (this.#open.size === 0 && this.#running === 0) return this.#parts.onDone()
      await this.#change()
    }
  }

  #begin(open: Open): void {
    this.#open.add(open)
    this.#running++
    this.#step(open.member, open.run)
      .then(
        (seq) => {
          open.seq = seq
        },
        (error: unknown) => this.#failed(open, error),
      )
      .finally(() => {
        this.#running--
        this.acknowledged()
      })
      .catch((error: unknown) => {
        // A broken belief of ours: not to be swallowed by the copy.
        process.nextTick(() => {
          throw error
        })
      })
  }

  /** The next run in index order, from where the last one ended; null when there is none in a whole round. */
  #take(): Open | null {
    const { writer, clock } = this.#parts
    const lengthMax = this.#pace.stepBytes(clock.bootMs())
    for (let rounds = 0; rounds < 2; rounds++) {
      for (; this.#place < this.#order.length; this.#place++, this.#from = 0) {
        const member = this.#order[this.#place] as WriterMember
        if (writer.members.get(member.index) !== member || member.todo.count === 0) continue
        const run = member.todo.take(this.#from, lengthMax)
        if (run === null) continue
        this.#from = run.offset + run.length
        return { member, run, seq: null }
      }
      this.#order = [...writer.members.values()].sort((a, b) => a.index - b.index)
      this.#place = 0
      this.#from = 0
    }
    return null
  }

  #failed(open: Open, error: unknown): void {
    if (!(error instanceof QueryFailed) && !isFault(error)) throw error
    if (this.#stopped) return
    this.#parts.onError(error)
    // Not before a while, so that a disk that cannot be read does not keep two sites busy.
    this.#parts.clock.after(RETRY_MS, () => {
      if (!this.#open.delete(open)) return
      open.member.todo.putBack(open.run)
      this.kick()
    })
  }

  #mayBegin(): boolean {
    const { sender, clock, rateBytes } = this.#parts
    const now = clock.bootMs()
    this.#lookForClients(now)
    if (this.#running >= this.#pace.steps(now) || !this.#pace.open) return false
    if (sender.backlogBytes > BACKLOG_BYTES_MAX) {
      clock.after(BACKLOG_WAIT_MS, () => this.#signal())
      return false
    }
    const waitMs = rateBytes() > 0 ? this.#pace.waitMs(now) : 0
    if (waitMs > 0) clock.after(Math.min(waitMs, 1_000), () => this.#signal())
    return waitMs <= 0
  }

  /** Returns the number of the last frame sent, 0 for none. */
  async #step(member: WriterMember, run: CopyRun): Promise<number> {
    const { queries, blank } = this.#parts
    const { offset, length, compare } = run
    const isBlank = compare && blank.has(member.index)
    let theirs: Buffer | null = null
    if (compare && !isBlank) {
      theirs = await queries.checksums(member.index, offset, length)
      if (theirs.length !== Math.ceil(length / BLOCK_BYTES) * CHECKSUM_BYTES) {
        throw new QueryFailed('the replica answered with too few checksums')
      }
    }
    for (let attempt = 0; attempt < REREADS_MAX && !this.#stopped; attempt++) {
      const watch: WatchedRange = { offset, length, hit: false }
      member.watched.add(watch)
      const slab = this.#slabs.take()
      try {
        const [first] = await member.volume.extents(offset, length, 1)
        const hole = first?.hole === true && first.length === length
        if (!hole) await this.#read(member, slab, offset, length)
        const data = slab.bytes.subarray(FRAME_BYTES, FRAME_BYTES + length)
        let ours: Buffer | null = null
        if (theirs !== null) ours = hole ? zeroChecksums(length) : await checksums(data)
        if (watch.hit || this.#stopped) continue
        // From here to the last frame nothing may come in between.
        const wanted =
          theirs === null || ours === null ? [{ at: 0, length }] : differing(ours, theirs, length)
        let seq = 0
        for (const part of wanted) {
          if (!hole) seq = this.#sendPart(member, slab, part, offset, isBlank)
          else if (!isBlank) seq = this.#sendZero(member, offset + part.at, part.length)
        }
        return seq
      } finally {
        member.watched.delete(watch)
        slab.release()
      }
    }
    return await this.#sendWithinTurns(member, offset, length)
  }

  async #read(member: WriterMember, slab: Slab, offset: number, length: number): Promise<void> {
    const { volume } = member
    const cached = length <= CACHED_BYTES_MAX
    if (cached && volume.readCached(slab.bytes, FRAME_BYTES, length, offset)) return
    await volume.read(slab.bytes, FRAME_BYTES, length, offset)
  }

  /** For a range that clients do not leave alone: each block is read and numbered without anything in between. */
  async #sendWithinTurns(member: WriterMember, offset: number, length: number): Promise<number> {
    let seq = 0
    for (let at = 0; at < length && !this.#stopped; at += BLOCK_BYTES) {
      const size = Math.min(BLOCK_BYTES, length - at)
      const slab = this.#slabs.take()
      try {
        member.volume.readSync(slab.bytes, FRAME_BYTES, size, offset + at)
        seq = this.#sendPart(member, slab, { at: 0, length: size }, offset + at, false)
      } finally {
        slab.release()
      }
      await new Promise((resolve) => setImmediate(resolve))
    }
    return seq
  }

  /** Sends a part of what was read for `offset`; zero blocks as zeroes, or not at all where the replica is blank. */
  #sendPart(
    member: WriterMember,
    slab: Slab,
    part: { readonly at: number; readonly length: number },
    offset: number,
    skipZero: boolean,
  ): number {
    let seq = 0
    const end = part.at + part.length
    const zeroAt = (at: number): boolean => {
      const from = FRAME_BYTES + at
      return isZero(slab.bytes.subarray(from, from + Math.min(BLOCK_BYTES, end - at)))
    }
    for (let at = part.at; at < end; ) {
      const zero = zeroAt(at)
      let stop = Math.min(at + BLOCK_BYTES, end)
      while (stop < end && zeroAt(stop) === zero) stop = Math.min(stop + BLOCK_BYTES, end)
      if (!zero) {
        const bytes = slab.bytes.subarray(at, FRAME_BYTES + stop)
        seq = this.#send(member, bytes, offset + at, stop - at, slab)
      } else if (!skipZero) seq = this.#sendZero(member, offset + at, stop - at)
      at = stop
    }
    return seq
  }

  #sendZero(member: WriterMember, offset: number, length: number): number {
    return this.#send(member, Buffer.allocUnsafeSlow(FRAME_BYTES), offset, length, null)
  }

  #send(
    member: WriterMember,
    bytes: Buffer,
    offset: number,
    length: number,
    slab: Slab | null,
  ): number {
    const { writer, clock, rateBytes } = this.#parts
    this.#frames++
    const seq = writer.sendCopy(member, bytes, offset, length, slab)
    const sent = bytes.length - FRAME_BYTES
    this.sentBytes += sent
    this.#pace.sent(seq, sent, clock.bootMs(), rateBytes())
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
    for (let at = region * REGION_BYTES; at < end; at += RECONCILE_STEP_BYTES) {
      steps.push({ offset: at, length: Math.min(RECONCILE_STEP_BYTES, end - at) })
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
        for (;;) {
          const wait = volume.guard(offset + run.at, run.length)
          if (wait === null) break
          await wait
        }
        volume.writeSync(data, 0, data.length, offset + run.at)
        fetchedBytes += data.length
      }
    }
  }
  await Promise.all(Array.from({ length: RECONCILE_STEPS }, work))
  return { comparedBytes, fetchedBytes }
}
