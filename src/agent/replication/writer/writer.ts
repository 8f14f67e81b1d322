import { assert } from '#base/assert.ts'
import type { Clock } from '#base/clock.ts'
import { Anticipation } from '#base/system/anticipation.ts'
import { FRAME_LENGTH_MAX, type Status } from '#wire/link/frame.ts'
import { type Io, IO_ERRORS, type IoError } from '#agent/nbd/device.ts'
import { ioError } from '#agent/nbd/local-device.ts'
import type { Slab } from '#agent/nbd/slab.ts'
import type { AckGate } from '../session/ack-gate.ts'
import { CopyTodo } from '../copy/copy-todo.ts'
import { FlushRounds } from '../replica/flush-rounds.ts'
import { FrameStream } from '../replica/frame-stream.ts'
import { LongZeros, type PieceOutcome } from './long-zeros.ts'
import type { OpenMember } from '../members.ts'
import { Numbering } from './numbering.ts'
import { Reads } from '../replica/reads.ts'
import { RetainedFrames } from './retained-frames.ts'
import type { RunFile } from '../run-file.ts'
import type { Sender } from './sender.ts'
import { WaitingRequests } from './waiting-requests.ts'
import { WriteRing } from './write-ring.ts'
import type { WriterMember } from './writer-member.ts'

export type { WatchedRange, WriterMember } from './writer-member.ts'

/* The write path of a session at its writer.
 *
 *   submit(batch) ─► intent bits set? nothing to preserve? ─► number, header over the NBD header ─► socket (one write) ─► page cache
 *                        │ no                                                                                               │
 *                        └► waits for one fdatasync, then as above (waiting-requests.ts)                                    │
 *   acknowledgement of the replica ─► gate ─► io.complete ◄─────────────────────────────────────────────────────────────────┘
 *
 * Numbers are given, and what has one is carried out, in numbering.ts. Every numbered write has an entry in the ring (write-ring.ts) from its numbering until it was answered and, if the link wants it,
 * acknowledged. What of it is on the link says frame-stream.ts; what becomes of it without one, retained-frames.ts.
 *
 * What else waits: flushes (flush-rounds.ts), zeroes longer than a frame (long-zeros.ts), reads (reads.ts).
 */

/** The loop stays awake for an acknowledgement, and for the next request of a client that was answered, this long. */
const ACKNOWLEDGEMENT_WINDOW_MS = 0.2
const REQUEST_WINDOW_MS = 0.05

/** A replica that lacks no more than this has caught up: the rest fits into one turn of the link. */
const CAUGHT_UP_FRAMES = 256
const CAUGHT_UP_BYTES = 1024 * 1024

export interface WriterParts {
  readonly gate: AckGate
  readonly clock: Clock
  readonly run: RunFile
  readonly holdBytes: number
  readonly frameLogBytes: number
  /** A local write or flush failed; the session goes on, the volume says what it thinks of it. */
  readonly onLocalError: (member: number, error: unknown) => void
  /** The frame log grew too long and is gone. */
  readonly onLogDropped: () => void
}

export class Writer {
  readonly #gate: AckGate
  readonly #clock: Clock
  readonly #holdBytes: number
  readonly #onLocalError: (member: number, error: unknown) => void
  readonly members = new Map<number, WriterMember>()
  #inputOpen = false
  /** After the session: answers need nobody any more. */
  #plain = false
  #failed = false

  readonly #ring = new WriteRing()
  readonly #stream = new FrameStream(this.#ring)
  readonly #retained: RetainedFrames
  readonly #numbering: Numbering
  readonly #waiting: WaitingRequests
  readonly #zeros: LongZeros
  readonly #reads: Reads
  readonly #flushes: FlushRounds
  #onCaughtUp: (() => void) | null = null
  readonly #idle: (() => void)[] = []
  readonly #staged: Io[] = []
  /** Only for a client that waits for each write: with more in flight there is always something to do. */
  readonly #acknowledgement = new Anticipation(ACKNOWLEDGEMENT_WINDOW_MS)
  readonly #request = new Anticipation(REQUEST_WINDOW_MS)

  constructor(parts: WriterParts) {
    const { gate, clock, onLocalError } = parts
    this.#gate = gate
    this.#clock = clock
    this.#holdBytes = parts.holdBytes
    this.#onLocalError = onLocalError
    const ring = this.#ring
    const plain = () => this.#plain
    const isMember = (member: WriterMember) => this.members.get(member.index) === member
    this.#retained = new RetainedFrames({
      ring,
      gate,
      logBytes: parts.frameLogBytes,
      linked: () => this.#stream.linked,
      plain,
      isMember,
      onLogDropped: parts.onLogDropped,
    })
    gate.unacknowledgedBytes = () => this.#retained.unacknowledgedBytes()
    this.#waiting = new WaitingRequests({
      open: () => this.#inputOpen && !this.#full,
      plain,
      isMember,
      number: (member, ios, count) => this.#number(member, ios, count),
      onPrepared: () => {
        this.#zeros.resume()
        this.release()
      },
      onLocalError,
    })
    const isLost = (member: WriterMember, seq: number) => this.#isLost(member, seq)
    this.#reads = new Reads({ ring, gate, clock, plain, isLost })
    this.#flushes = new FlushRounds({
      askReplica: (member) => this.#stream.flush(member.index),
      numbered: () => gate.sequence,
      needsReplica: () => !this.#plain && gate.needsReplica,
      onLocalError,
      onChange: () => this.release(),
    })
    this.#numbering = new Numbering({
      ring,
      gate,
      run: parts.run,
      stream: this.#stream,
      retained: this.#retained,
      flushes: this.#flushes,
      onLocalError,
    })
    let first = 0
    this.#zeros = new LongZeros({
      open: () => this.#inputOpen && !this.#failed && !this.#waiting.preparing && !this.#full,
      begin: () => (first = ring.tail),
      piece: (member, offset, length, left, io, mayUnmap) =>
        this.#zeroPiece(member, offset, length, left, io, mayUnmap),
      end: () => {
        this.#numbering.carryOut(first)
        this.release()
      },
    })
  }

  addMember({ index, volume, intent, changes }: OpenMember): WriterMember {
    assert(!this.members.has(index), 'a member is added once')
    const submit = (of: WriterMember, batch: readonly Io[], count: number) =>
      this.#submit(of, batch, count)
    const member: WriterMember = {
      index,
      volume,
      intent,
      changes,
      todo: new CopyTodo(volume.sizeBytes),
      watched: new Set(),
      running: null,
      next: null,
      device: {
        get sizeBytes() {
          return volume.sizeBytes
        },
        submit(batch, count) {
          submit(member, batch, count)
        },
      },
    }
    this.members.set(index, member)
    return member
  }

  /** The member's device fails everything from now on; what is numbered goes its way. */
  removeMember(index: number): void {
    const member = this.members.get(index)
    this.members.delete(index)
    if (member !== undefined) this.#zeros.fail(IO_ERRORS.ESHUTDOWN, member)
  }

  /** Unanswered and unacknowledged payload in memory, bytes. */
  get heldBytes(): number {
    return this.#ring.bytes
  }

  /** Frames kept for a replica that is away, with what it takes to manage them, bytes. */
  get logBytes(): number {
    return this.#retained.logBytes
  }

  /** Nothing is waiting for an answer, and the link has everything it should. */
  get idle(): boolean {
    return (
      this.#ring.head === this.#ring.tail &&
      this.#zeros.count === 0 &&
      !this.#waiting.preparing &&
      this.#flushes.count === 0
    )
  }

  /** All that was numbered is answered and acknowledged. Requests that are not numbered may wait. */
  get settled(): boolean {
    return this.#ring.head === this.#ring.tail
  }

  /** Every frame numbered behind it is still here; null: no log is kept, or what went before is not known exactly. */
  get logFrom(): number | null {
    return this.#retained.logFrom
  }

  // -- control --------------------------------------------------------------------------------------------------------

  /** Frames go out on `sender` from now on; null: nowhere. */
  setSender(sender: Sender | null): void {
    this.#stream.begin(sender)
    this.#flushes.linkChanged()
    this.#onCaughtUp = null
    if (sender === null) this.#retained.linkLost()
  }

  setInput(open: boolean): void {
    this.#inputOpen = open
    if (!open) return
    this.#waiting.pump()
    this.#zeros.resume()
  }

  /**
   * Sends the retained frames behind `after` again, then whatever flushes wait for the replica. While this side answers alone they go
   * out as fast as the replica takes them. False: some are gone.
   */
  resend(after: number): boolean {
    if (!this.#stream.linked) return true
    if (!this.#retained.reachesBackTo(after)) return false
    this.#stream.goBackTo(after)
    if (this.#gate.needsReplica) {
      this.#retained.inStep()
      this.#stream.sendAll()
    } else this.#stream.sendMore()
    this.requirePeer()
    return true
  }

  /** Everything numbered so far is given to the link. What is sent afterwards comes behind it. */
  sendAll(): void {
    this.#stream.sendAll()
  }

  /** The link no longer wants what it has not acknowledged; with `mark`, the copy will see to it. */
  forgetFrames(mark: boolean): void {
    this.#retained.forgetAll(mark)
  }

  /** What the replica lacks of the frames that are here is named by the change map, whatever happens to them. */
  markRetained(): void {
    this.#retained.mark()
  }

  /** Answered frames are kept until they are acknowledged, within the log's limit; or not any more. */
  logFrames(on: boolean): void {
    this.#retained.log(on)
  }

  /** The session is in sync, and the change maps have been emptied. */
  changesCleared(): void {
    this.#retained.inStep()
    if (!this.#stream.linked) this.#retained.mark()
  }

  /** Calls back, once, when the replica has nearly everything. Ends with the link. */
  watchCatchUp(done: () => void): void {
    this.#onCaughtUp = done
    this.#lookCaughtUp()
  }

  /** Answers need the replica from now on: rounds that were begun without it are taken there. */
  requirePeer(): void {
    if (this.#stream.linked && this.#gate.needsReplica) this.#flushes.requirePeer()
  }

  /** Everything that waits for an answer gets `error`; no further request is carried out. */
  fail(error: IoError): void {
    this.#failed = true
    this.#inputOpen = false
    const ring = this.#ring
    while (ring.answered < ring.tail) {
      const entry = ring.answer()
      const { io } = entry
      entry.io = null
      io?.complete(error)
    }
    this.#retained.forgetAll(false)
    this.#retained.stopLog()
    this.#waiting.fail(error)
    this.#zeros.fail(error)
    this.#reads.fail(error)
    this.#flushes.fail(error)
  }

  /** The session is over and this side keeps its volumes: answers need nobody any more. */
  becomePlain(): void {
    this.#plain = true
    this.#stream.begin(null)
    this.#retained.stopLog()
    this.#retained.forgetAll(false)
    this.setInput(true)
    this.release()
  }

  /** Calls back when everything numbered is answered and acknowledged. */
  whenSettled(done: () => void): void {
    if (this.settled) done()
    else this.#idle.push(done)
  }

  /** Every member durable here and, unless this side acknowledges alone, there. False: not so. */
  flushAll(): Promise<boolean> {
    if (this.#failed) return Promise.resolve(false)
    return Promise.all(
      [...this.members.values()].map(
        (member) =>
          new Promise<IoError>((resolve) => {
            this.#flushes.join(member, null, 0).waiters.push(resolve)
          }),
      ),
    ).then((errors) => errors.every((error) => error === 0))
  }

  // -- requests -------------------------------------------------------------------------------------------------------

  #submit(member: WriterMember, batch: readonly Io[], count: number): void {
    if (this.#failed || !this.members.has(member.index)) {
      for (let i = 0; i < count; i++) (batch[i] as Io).complete(IO_ERRORS.ESHUTDOWN)
      return
    }
    this.#request.came()
    const staged = this.#staged
    let flushes = false
    for (let i = 0; i < count; ) {
      const io = batch[i] as Io
      if (io.kind === 'write' || io.kind === 'zero') {
        let end = i + 1
        while ((batch[end - 1] as Io).more && end < count) end++
        if (this.#waiting.mayNumber(member, batch, i, end)) {
          for (let j = i; j < end; j++) staged.push(batch[j] as Io)
        } else {
          for (let j = i; j < end; j++) this.#waiting.add(member, batch[j] as Io)
        }
        i = end
        continue
      }
      if (io.kind === 'read') this.#reads.read(member, io)
      else if (io.kind === 'extents') this.#reads.extents(member, io)
      else flushes = true
      i++
    }
    if (staged.length > 0) {
      this.#number(member, staged, staged.length)
      staged.length = 0
    }
    if (flushes) {
      for (let i = 0; i < count; i++) {
        const io = batch[i] as Io
        if (io.kind === 'flush') this.#flushes.join(member, io, 0)
      }
    }
    if (this.#waiting.count > 0) this.#waiting.pump()
    this.release()
  }

  /** No more is numbered until the replica, or the clients' answers, have caught up. */
  get #full(): boolean {
    const { bytes, answeredBytes } = this.#ring
    // Without a link the log is bounded by being dropped, not by making clients wait.
    if (!this.#stream.linked) return bytes - answeredBytes >= this.#holdBytes
    return bytes >= (this.#retained.logs ? this.#retained.logBytesMax : this.#holdBytes)
  }

  #number(member: WriterMember, ios: readonly Io[], count: number): void {
    const { tail } = this.#ring
    for (let i = 0; i < count; i++) {
      const io = ios[i] as Io
      if (io.kind === 'zero' && io.length > FRAME_LENGTH_MAX) this.#zeros.add(member, io)
      else this.#numbering.add(member, io)
    }
    this.#numbering.carryOut(tail)
    const single = this.#ring.tail - this.#ring.answered === 1
    if (single && this.#stream.linked && this.#gate.needsReplica) this.#acknowledgement.expect()
  }

  #zeroPiece(
    member: WriterMember,
    offset: number,
    length: number,
    left: number,
    io: Io | null,
    mayUnmap: boolean,
  ): PieceOutcome {
    // The bit may have been cleared since: then the last pieces wait for it again.
    if (!this.#plain && !member.intent.touch(offset, length)) {
      member.intent.set(offset, left)
      this.#waiting.prepare(member.intent.save(), (error) => {
        this.#onLocalError(member.index, error)
        this.#zeros.fail(IO_ERRORS.EIO, member)
      })
      return 'wait'
    }
    const wait = member.volume.guard(offset, length)
    if (wait !== null) {
      this.#waiting.prepare(wait, (error) => this.#zeros.fail(ioError(error), member))
      return 'wait'
    }
    this.#numbering.addZero(member, io, offset, length, mayUnmap)
    return 'done'
  }

  // -- link -----------------------------------------------------------------------------------------------------------

  flushed(id: number, status: Status): void {
    this.#flushes.flushed(id, status)
  }

  /** Numbers a block of a copy and sends it, as `Numbering.copy`. */
  sendCopy(
    member: WriterMember,
    bytes: Buffer,
    offset: number,
    length: number,
    slab: Slab | null = null,
  ): number {
    return this.#numbering.copy(member, bytes, offset, length, slab)
  }

  /** The replica holds everything up to `sequence`. */
  acknowledged(sequence: number): void {
    this.#gate.acknowledge(sequence)
    this.#acknowledgement.came()
    this.release()
    this.#stream.sendMore()
    if (this.#onCaughtUp !== null) this.#lookCaughtUp()
    if (this.idle) this.#request.expect()
  }

  #lookCaughtUp(): void {
    const { sequence, acknowledged } = this.#gate
    const near = sequence - acknowledged <= CAUGHT_UP_FRAMES && this.#ring.bytes <= CAUGHT_UP_BYTES
    if (!near) return
    const done = this.#onCaughtUp
    this.#onCaughtUp = null
    done?.()
  }

  // -- answers --------------------------------------------------------------------------------------------------------

  /** Answers whatever may be answered at this moment. */
  release(): void {
    if (this.#failed) return
    const ring = this.#ring
    const upTo = this.#plain
      ? Number.MAX_SAFE_INTEGER
      : this.#gate.releasableUpTo(this.#clock.bootMs())
    if (upTo >= 0) {
      while (ring.answered < ring.tail) {
        if (ring.at(ring.answered).seq > upTo) break
        const entry = ring.answer()
        const { io } = entry
        const lost = this.#isLost(entry.member as WriterMember, entry.seq)
        entry.io = null
        io?.complete(lost && entry.error === 0 ? IO_ERRORS.EIO : entry.error)
        this.#retained.answered(entry)
      }
      if (this.#reads.count > 0) this.#reads.answer(upTo)
      if (this.#flushes.count > 0) this.#flushes.end(upTo)
    }
    this.#retained.keepWithinLimit()
    this.#retained.trim()
    if (this.#waiting.count > 0) this.#waiting.pump()
    if (this.#zeros.count > 0) this.#zeros.resume()
    if (this.#idle.length > 0 && this.settled) for (const wake of this.#idle.splice(0)) wake()
  }

  /** Carried out here before the disk failed, which may have dropped it, and not at the replica: nobody may be told that it is done. */
  #isLost(member: WriterMember, seq: number): boolean {
    return seq > this.#gate.acknowledged && member.volume.failed !== undefined
  }
}
