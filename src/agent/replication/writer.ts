import { assert } from '#base/assert.ts'
import type { Clock } from '#base/clock.ts'
import { Anticipation } from '#base/system/anticipation.ts'
import {
  FLAG,
  FRAME,
  FRAME_LENGTH_MAX,
  frame,
  type Status,
  writeFrameHeader,
} from '#wire/link/frame.ts'
import { HEADER_BYTES, type Io, IO_ERRORS, type IoError } from '#agent/nbd/device.ts'
import { ioError } from '#agent/nbd/local-device.ts'
import type { Slab } from '#agent/nbd/slab.ts'
import type { AckGate } from './ack-gate.ts'
import { CopyTodo } from './copy-todo.ts'
import { FlushRounds } from './flush-rounds.ts'
import { FrameLog } from './frame-log.ts'
import { HeldReads } from './held-reads.ts'
import { LongZeros, type PieceOutcome } from './long-zeros.ts'
import type { OpenMember } from './members.ts'
import type { RunFile } from './run-file.ts'
import type { Sender } from './sender.ts'
import { type Entry, WriteRing } from './write-ring.ts'
import type { WriterMember } from './writer-member.ts'

export type { WatchedRange, WriterMember } from './writer-member.ts'

/* The write path of a session at its writer.
 *
 *   submit(batch) ─► intent bits set? nothing to preserve? ─► number, header over the NBD header ─► socket (one write) ─► page cache
 *                        │ no                                                                                               │
 *                        └► waits for one fdatasync, then as above                                                          │
 *   acknowledgement of the replica ─► gate ─► io.complete ◄─────────────────────────────────────────────────────────────────┘
 *
 * Every numbered write has an entry in the ring (write-ring.ts) from its numbering until it was answered and, if the link wants it,
 * acknowledged. What becomes of it without a link depends on the gate:
 *
 *     in sync             the entry stays, unanswered, to be sent again
 *     alone, frame log    it is answered and goes into the frame log (frame-log.ts), to be sent in order later
 *     alone, no log       it is answered and gone; the copy sees to it
 *
 * The change map names every block that this side changed while the replica did not take part: a write is marked before it is carried
 * out when this side answers alone or has no link, and what the link had not acknowledged is marked when it is lost.
 *
 *     head ... sent ... tail           [sent, tail) has not been given to the link yet: a replica that catches up gets it as fast as it
 *                                      takes it, and a new write goes behind it
 *
 * What else waits in here: flushes (flush-rounds.ts), zeroes longer than a frame (long-zeros.ts), reads (held-reads.ts).
 */

/** The loop stays awake for an acknowledgement, and for the next request of a client that was answered, this long. */
const ACKNOWLEDGEMENT_WINDOW_MS = 0.2
const REQUEST_WINDOW_MS = 0.05

/** Bytes of a log given to the socket ahead of what the kernel takes. */
const LINK_BACKLOG_BYTES = 1024 * 1024
/** Bytes of a log given to the socket in one go. */
const LOG_STEP_BYTES = 256 * 1024
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
  readonly #run: RunFile
  readonly #holdBytes: number
  readonly #onLocalError: (member: number, error: unknown) => void
  readonly #onLogDropped: () => void
  readonly members = new Map<number, WriterMember>()
  #sender: Sender | null = null
  #inputOpen = false
  /** After the session: answers need nobody any more. */
  #plain = false
  #failed = false

  readonly #ring = new WriteRing()
  /** Position in the ring of the first entry that the link has not got. */
  #sent = 0
  /** Number of the last entry that was forgotten, which nobody can send any more. */
  #forgottenSeq = 0
  readonly #log: FrameLog
  /** Both sides were equal but for what this process numbered. It cannot be said of what an earlier process did: of its last writes
   *  any may have reached the one side and not the other. */
  #inStep = false
  #onCaughtUp: (() => void) | null = null

  readonly #waiting: { member: WriterMember; io: Io }[] = []
  /** Something is being made durable before the first request that waits may be numbered. */
  #preparing = false
  readonly #zeros: LongZeros
  readonly #reads = new HeldReads()
  readonly #flushes: FlushRounds
  #flushId = 0
  readonly #idle: (() => void)[] = []
  readonly #staged: Io[] = []
  /** Only for a client that waits for each write: with more in flight there is always something to do. */
  readonly #acknowledgement = new Anticipation(ACKNOWLEDGEMENT_WINDOW_MS)
  readonly #request = new Anticipation(REQUEST_WINDOW_MS)

  constructor(parts: WriterParts) {
    this.#gate = parts.gate
    this.#clock = parts.clock
    this.#run = parts.run
    this.#holdBytes = parts.holdBytes
    this.#onLocalError = parts.onLocalError
    this.#onLogDropped = parts.onLogDropped
    this.#gate.unacknowledgedBytes = () => this.#unacknowledgedBytes()
    this.#log = new FrameLog(parts.frameLogBytes)
    this.#flushes = new FlushRounds({
      askReplica: (member) => this.#askFlush(member),
      needsReplica: () => !this.#plain && this.#gate.needsReplica,
      onLocalError: parts.onLocalError,
      onChange: () => this.release(),
    })
    let first = 0
    this.#zeros = new LongZeros({
      open: () => this.#inputOpen && !this.#failed && !this.#preparing && !this.#full,
      begin: () => (first = this.#ring.tail),
      piece: (member, offset, length, left, io, mayUnmap) =>
        this.#zeroPiece(member, offset, length, left, io, mayUnmap),
      end: () => {
        this.#carryOut(first)
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
    return this.#log.bytes
  }

  /** Nothing is waiting for an answer, and the link has everything it should. */
  get idle(): boolean {
    return (
      this.#ring.head === this.#ring.tail &&
      this.#zeros.count === 0 &&
      !this.#preparing &&
      this.#flushes.count === 0
    )
  }

  /** All that was numbered is answered and acknowledged. Requests that are not numbered may wait. */
  get settled(): boolean {
    return this.#ring.head === this.#ring.tail
  }

  /** Every frame numbered behind it is still here; null: no log is kept, or what went before is not known exactly. */
  get logFrom(): number | null {
    if (!this.#log.on || !this.#inStep) return null
    return Math.max(this.#gate.acknowledged, this.#forgottenSeq)
  }

  // -- control --------------------------------------------------------------------------------------------------------

  /** Frames go out on `sender` from now on; null: nowhere. */
  setSender(sender: Sender | null): void {
    this.#sender = sender
    this.#sent = this.#ring.tail
    this.#flushes.linkChanged()
    this.#onCaughtUp = null
    if (sender !== null) return
    this.markRetained()
    if (this.#log.on) this.#logAnswered()
  }

  setInput(open: boolean): void {
    this.#inputOpen = open
    if (!open) return
    this.#pump()
    this.#zeros.resume()
  }

  /**
   * Sends the retained frames behind `after` again, then whatever flushes wait for the replica. While this side answers alone they go
   * out as fast as the replica takes them. False: some are gone.
   */
  resend(after: number): boolean {
    if (this.#sender === null) return true
    if (!this.#reachesBackTo(after)) return false
    this.#sent = this.#ring.after(after)
    if (this.#gate.needsReplica) {
      this.#inStep = true
      this.sendAll()
    } else this.#sendMore()
    this.requirePeer()
    return true
  }

  #reachesBackTo(after: number): boolean {
    const ring = this.#ring
    const first = ring.after(after)
    if (first === ring.tail) return this.#gate.sequence <= after
    if (ring.at(first).seq !== after + 1) return false
    for (let i = first; i < ring.tail; i++) if (ring.at(i).forgotten) return false
    return true
  }

  /** Everything numbered so far is given to the link. What is sent afterwards comes behind it. */
  sendAll(): void {
    const sender = this.#sender
    if (sender === null || this.#sent === this.#ring.tail) return
    this.#sendRange(sender, this.#sent, this.#ring.tail)
    this.#sent = this.#ring.tail
  }

  /** The link no longer wants what it has not acknowledged; with `mark`, the copy will see to it. */
  forgetFrames(mark: boolean): void {
    const ring = this.#ring
    for (let i = ring.head; i < ring.tail; i++) {
      const entry = ring.at(i)
      if (mark && !entry.forgotten) this.#leaveToCopy(entry)
      entry.forgotten = true
      this.#forgottenSeq = entry.seq
    }
    this.#trim()
  }

  #unacknowledgedBytes(): number {
    const ring = this.#ring
    let bytes = 0
    for (let i = ring.after(this.#gate.acknowledged); i < ring.tail; i++) {
      const { isCopy, length } = ring.at(i)
      if (!isCopy) bytes += length
    }
    return bytes
  }

  /** What the replica lacks of the frames that are here is named by the change map, whatever happens to them. */
  markRetained(): void {
    const ring = this.#ring
    const { acknowledged } = this.#gate
    for (let i = ring.head; i < ring.tail; i++) {
      const { seq, forgotten, isCopy, member, offset, length } = ring.at(i)
      if (!forgotten && !isCopy && seq > acknowledged) this.#markChanged(member, offset, length)
    }
  }

  /** Answered frames are kept until they are acknowledged, within the log's limit; or not any more. */
  logFrames(on: boolean): void {
    if (on) {
      this.#log.start()
      this.markRetained()
      if (this.#sender === null) this.#logAnswered()
      return
    }
    if (!this.#log.on) return
    this.#log.stop()
    // What is on its way will be acknowledged, or the link ends.
    if (this.#sender === null) this.#forgetAnswered()
    this.#trim()
  }

  /** The session is in sync, and the change maps have been emptied. */
  changesCleared(): void {
    this.#inStep = true
    if (this.#sender === null) this.markRetained()
  }

  /** Calls back, once, when the replica has nearly everything. Ends with the link. */
  watchCatchUp(done: () => void): void {
    this.#onCaughtUp = done
    this.#lookCaughtUp()
  }

  /** Answers need the replica from now on: rounds that were begun without it are taken there. */
  requirePeer(): void {
    if (this.#sender !== null && this.#gate.needsReplica) this.#flushes.requirePeer()
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
    for (let i = ring.head; i < ring.tail; i++) ring.at(i).forgotten = true
    this.#trim()
    this.#log.stop()
    for (const { io } of this.#waiting.splice(0)) io.complete(error)
    this.#zeros.fail(error)
    this.#reads.fail(error)
    this.#flushes.fail(error)
  }

  /** The session is over and this side keeps its volumes: answers need nobody any more. */
  becomePlain(): void {
    this.#plain = true
    this.#sender = null
    this.#log.stop()
    this.forgetFrames(false)
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
        if (this.#mayNumber(member, batch, i, end)) {
          for (let j = i; j < end; j++) staged.push(batch[j] as Io)
        } else {
          for (let j = i; j < end; j++) this.#waiting.push({ member, io: batch[j] as Io })
        }
        i = end
        continue
      }
      if (io.kind === 'read') this.#read(member, io)
      else if (io.kind === 'extents') this.#extents(member, io)
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
    if (this.#waiting.length > 0) this.#pump()
    this.release()
  }

  /** No more is numbered until the replica, or the clients' answers, have caught up. */
  get #full(): boolean {
    const { bytes, answeredBytes } = this.#ring
    // Without a link the log is bounded by being dropped, not by making clients wait.
    if (this.#sender === null) return bytes - answeredBytes >= this.#holdBytes
    return bytes >= (this.#log.on ? this.#log.limitBytes : this.#holdBytes)
  }

  #mayNumber(member: WriterMember, batch: readonly Io[], start: number, end: number): boolean {
    if (this.#waiting.length > 0 || !this.#inputOpen || this.#full) return false
    for (let i = start; i < end; i++) {
      if (this.#preparation(member, batch[i] as Io) !== null) return false
    }
    return true
  }

  /** What must be durable before the request is carried out; null: nothing. */
  #preparation(member: WriterMember, io: Io): 'intent' | Promise<void> | null {
    const { offset, length } = io
    if (!this.#plain && !member.intent.touch(offset, length)) return 'intent'
    // The pieces of a long zero are asked about one by one.
    if (io.kind === 'zero' && length > FRAME_LENGTH_MAX) return null
    return member.volume.guard(offset, length)
  }

  /** Takes requests that had to wait, in order. */
  #pump(): void {
    while (this.#waiting.length > 0) {
      if (this.#preparing || !this.#inputOpen || this.#full) return
      const first = this.#waiting[0] as { member: WriterMember; io: Io }
      const { member } = first
      let end = 1
      while ((this.#waiting[end - 1] as { io: Io }).io.more) end++
      const group = this.#waiting.slice(0, end).map(({ io }) => io)
      if (this.members.get(member.index) !== member) {
        this.#waiting.splice(0, end)
        for (const io of group) io.complete(IO_ERRORS.ESHUTDOWN)
        continue
      }
      for (const io of group) {
        const preparation = this.#preparation(member, io)
        if (preparation === 'intent') return this.#setIntent()
        if (preparation !== null) return this.#preserve(preparation, member, end)
      }
      this.#waiting.splice(0, end)
      this.#number(member, group, end)
    }
  }

  /** One fdatasync for everything that waits. */
  #setIntent(): void {
    const members = new Set<WriterMember>()
    for (const { member, io } of this.#waiting) {
      member.intent.set(io.offset, io.length)
      members.add(member)
    }
    const saved = Promise.all([...members].map((member) => member.intent.save()))
    this.#prepare(saved, (error) => {
      this.#onLocalError((this.#waiting[0]?.member.index ?? 0) as number, error)
      for (const { io } of this.#waiting.splice(0)) io.complete(IO_ERRORS.EIO)
    })
  }

  /** A snapshot preserves what the first `count` requests overwrite. The others that wait are announced, to share its sync. */
  #preserve(wait: Promise<void>, member: WriterMember, count: number): void {
    for (const other of this.#waiting.slice(1)) {
      if (other.io.kind === 'zero' && other.io.length > FRAME_LENGTH_MAX) continue
      other.member.volume.guard(other.io.offset, other.io.length)?.catch(ignoreEarlyAnswer)
    }
    this.#prepare(wait, (error) => {
      const failure = ioError(error)
      for (const one of this.#waiting.splice(0, count)) {
        assert(one.member === member, 'what waits stays in order')
        one.io.complete(failure)
      }
    })
  }

  #prepare(work: Promise<unknown>, failed: (error: unknown) => void): void {
    this.#preparing = true
    const go = () => {
      this.#pump()
      this.#zeros.resume()
      this.release()
    }
    work.then(
      () => {
        this.#preparing = false
        go()
      },
      (error: unknown) => {
        this.#preparing = false
        if (!this.#failed) failed(error)
        go()
      },
    )
  }

  #number(member: WriterMember, ios: readonly Io[], count: number): void {
    const first = this.#ring.tail
    for (let i = 0; i < count; i++) {
      const io = ios[i] as Io
      if (io.kind === 'zero' && io.length > FRAME_LENGTH_MAX) {
        this.#zeros.add(member, io)
      } else if (io.kind === 'zero') {
        this.#pushZero(member, io, io.offset, io.length, io.mayUnmap)
      } else {
        const slab = io.slab as Slab
        const entry = this.#push(member, io.offset, io.length)
        entry.io = io
        entry.slab = slab
        slab.retain()
        entry.bytes = slab.bytes
        entry.start = io.at - HEADER_BYTES
        entry.end = io.at + io.length
        const flags = io.more ? FLAG.MORE : 0
        writeFrameHeader(
          slab.bytes,
          entry.start,
          FRAME.WRITE,
          flags,
          member.index,
          entry.seq,
          io.offset,
          io.length,
        )
      }
    }
    this.#carryOut(first)
    const single = this.#ring.tail - this.#ring.answered === 1
    if (single && this.#sender !== null && this.#gate.needsReplica) this.#acknowledgement.expect()
  }

  #push(member: WriterMember, offset: number, length: number): Entry {
    const gate = this.#gate
    const entry = this.#ring.push(gate.next(), member, offset, length)
    const { mode, needsReplica } = gate
    gate.bytes += length
    if (this.#sender === null || (mode !== 'both' && mode !== 'closed')) {
      // Before it is carried out.
      this.#markChanged(member, offset, length)
      if (this.#sender === null && !needsReplica && !this.#log.on) {
        // Nobody will ask for it: the copy that follows the next link takes it along.
        entry.forgotten = true
        this.#forgottenSeq = entry.seq
        member.todo.sendRange(offset, length)
      }
    }
    for (const range of member.watched) {
      if (offset < range.offset + range.length && range.offset < offset + length) range.hit = true
    }
    return entry
  }

  #pushZero(
    member: WriterMember,
    io: Io | null,
    offset: number,
    length: number,
    mayUnmap: boolean,
  ): void {
    const entry = this.#push(member, offset, length)
    entry.io = io
    entry.isZero = true
    const flags = mayUnmap ? FLAG.MAY_UNMAP : 0
    entry.bytes = frame(FRAME.ZERO, flags, member.index, entry.seq, offset, length)
    entry.start = 0
    entry.end = entry.bytes.length
  }

  #markChanged(member: WriterMember | null, offset: number, length: number): void {
    // The map of a member that was removed is closed.
    if (member === null || this.#plain || this.members.get(member.index) !== member) return
    member.changes.mark(offset, length)
  }

  #leaveToCopy({ member, offset, length }: Entry): void {
    this.#markChanged(member, offset, length)
    member?.todo.sendRange(offset, length)
  }

  /** Entries from position `first` on: their number noted, to the link, into the volume. */
  #carryOut(first: number): void {
    const sender = this.#sender
    // First: or the next process could give the number of a write that went out to another one.
    this.#run.store(this.#gate.sequence)
    if (sender !== null) {
      if (this.#sent === first) {
        this.#sendRange(sender, first, this.#ring.tail)
        this.#sent = this.#ring.tail
      } else this.#sendMore()
    }
    this.#writeLocally(first)
  }

  #writeLocally(first: number): void {
    const ring = this.#ring
    for (let i = first; i < ring.tail; i++) {
      const entry = ring.at(i)
      const member = entry.member as WriterMember
      const { bytes, start, offset, length } = entry
      try {
        if (entry.isZero) {
          member.volume.zeroSync(offset, length, ((bytes[3] as number) & FLAG.MAY_UNMAP) !== 0)
        } else member.volume.writeSync(bytes, start + HEADER_BYTES, length, offset)
      } catch (error) {
        entry.error = ioError(error)
        // The replica may have it and this side not, or half of it. What this side reads is the truth.
        this.#leaveToCopy(entry)
        this.#onLocalError(member.index, error)
      }
      const { io } = entry
      if (io?.fua && entry.error === 0) {
        entry.io = null
        this.#flushes.join(member, io, entry.seq)
      }
    }
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
      this.#prepare(member.intent.save(), (error) => {
        this.#onLocalError(member.index, error)
        this.#zeros.fail(IO_ERRORS.EIO, member)
      })
      return 'wait'
    }
    const wait = member.volume.guard(offset, length)
    if (wait !== null) {
      this.#prepare(wait, (error) => this.#zeros.fail(ioError(error), member))
      return 'wait'
    }
    this.#pushZero(member, io, offset, length, mayUnmap)
    return 'done'
  }

  // -- link -----------------------------------------------------------------------------------------------------------

  /** One socket write for all entries that lie back to back in memory. */
  #sendRange(sender: Sender, first: number, end: number): void {
    const ring = this.#ring
    sender.cork()
    for (let i = first; i < end; ) {
      const entry = ring.at(i)
      const { bytes, start } = entry
      let { end: stop } = entry
      i++
      if (entry.forgotten) continue
      while (i < end) {
        const next = ring.at(i)
        if (next.bytes !== bytes || next.start !== stop || next.forgotten) break
        stop = next.end
        i++
      }
      sender.write(bytes.subarray(start, stop))
    }
    sender.uncork()
  }

  /** As much of what the link has not got as it takes now. Goes on with the next acknowledgement. */
  #sendMore(): void {
    const sender = this.#sender
    const ring = this.#ring
    while (sender !== null && this.#sent < ring.tail && sender.backlogBytes < LINK_BACKLOG_BYTES) {
      let end = this.#sent
      for (let bytes = 0; end < ring.tail && bytes < LOG_STEP_BYTES; end++) {
        bytes += ring.at(end).length
      }
      this.#sendRange(sender, this.#sent, end)
      this.#sent = end
    }
  }

  #askFlush(member: WriterMember): number {
    if (this.#sender === null) return 0
    this.sendAll()
    this.#sender.flush(member.index, ++this.#flushId)
    return this.#flushId
  }

  flushed(id: number, status: Status): void {
    this.#flushes.flushed(id, status)
  }

  /**
   * Numbers a block of a copy and sends it. `bytes`: the frame, header room first, which stays as it is until the replica has
   * acknowledged it, or the link is gone; with `slab` it is part of that memory, and one reference is taken. No payload: zeroes.
   */
  sendCopy(
    member: WriterMember,
    bytes: Buffer,
    offset: number,
    length: number,
    slab: Slab | null = null,
  ): number {
    const entry = this.#ring.push(this.#gate.next(), member, offset, length)
    for (const range of member.watched) {
      if (offset < range.offset + range.length && range.offset < offset + length) range.hit = true
    }
    entry.isCopy = true
    entry.slab = slab
    slab?.retain()
    entry.bytes = bytes
    entry.start = 0
    entry.end = bytes.length
    const type = bytes.length > HEADER_BYTES ? FRAME.WRITE : FRAME.ZERO
    const flags = type === FRAME.ZERO ? FLAG.COPY | FLAG.MAY_UNMAP : FLAG.COPY
    writeFrameHeader(bytes, 0, type, flags, member.index, entry.seq, offset, length)
    this.#run.store(this.#gate.sequence)
    if (this.#sender !== null && this.#sent === this.#ring.tail - 1) {
      this.#sender.write(bytes)
      this.#sent = this.#ring.tail
    }
    // Nothing is released here: it could number a client's write between two frames that were read together.
    return entry.seq
  }

  /** The replica holds everything up to `sequence`. */
  acknowledged(sequence: number): void {
    this.#gate.acknowledge(sequence)
    this.#acknowledgement.came()
    this.release()
    if (this.#sent < this.#ring.tail) this.#sendMore()
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

  // -- reads ----------------------------------------------------------------------------------------------------------

  #read(member: WriterMember, io: Io): void {
    const slab = io.slab as Slab
    try {
      if (member.volume.readCached(slab.bytes, io.at, io.length, io.offset)) {
        return this.#readDone(member, io, 0)
      }
    } catch (error) {
      return io.complete(ioError(error))
    }
    member.volume.readThen(slab.bytes, io.at, io.length, io.offset, (error) =>
      this.#readDone(member, io, error === null ? 0 : ioError(error)),
    )
  }

  #extents(member: WriterMember, io: Io): void {
    member.volume.extents(io.offset, io.length, EXTENTS_COUNT_MAX).then(
      (extents) => {
        io.extents = extents
        this.#readDone(member, io, 0)
      },
      (error: unknown) => this.#readDone(member, io, ioError(error)),
    )
  }

  #readDone(member: WriterMember, io: Io, error: IoError): void {
    if (this.#failed) return io.complete(IO_ERRORS.ESHUTDOWN)
    if (error !== 0 || this.#plain) return io.complete(error)
    const gate = this.#gate
    const seq = gate.needsReplica
      ? this.#ring.lastOverlapping(member, io.offset, io.length, gate.acknowledged)
      : 0
    if (gate.releasableUpTo(this.#clock.bootMs()) >= seq) return io.complete(0)
    this.#reads.hold(member, io, seq)
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
        if (this.#sender === null && this.#log.on && !entry.forgotten) this.#log.keep(entry)
      }
      if (this.#reads.count > 0)
        this.#reads.answer(upTo, (member, seq) => this.#isLost(member, seq))
      if (this.#flushes.count > 0) this.#flushes.end(upTo)
    }
    if (this.#log.tooLong && this.#sender === null) this.#dropLog()
    this.#trim()
    if (this.#waiting.length > 0) this.#pump()
    if (this.#zeros.count > 0) this.#zeros.resume()
    if (this.#idle.length > 0 && this.settled) for (const wake of this.#idle.splice(0)) wake()
  }

  /** Carried out here before the disk failed, which may have dropped it, and not at the replica: nobody may be told that it is done. */
  #isLost(member: WriterMember, seq: number): boolean {
    return seq > this.#gate.acknowledged && member.volume.failed !== undefined
  }

  /** Lets go of entries that are answered and that the link does not need. */
  #trim(): void {
    const ring = this.#ring
    const { acknowledged } = this.#gate
    while (ring.head < ring.answered) {
      const entry = ring.at(ring.head)
      if (!entry.forgotten && !this.#plain && entry.seq > acknowledged) break
      if (entry.loggedBytes > 0) this.#log.leave(entry)
      ring.drop()
    }
    if (this.#sent < ring.head) this.#sent = ring.head
  }

  // -- frame log ------------------------------------------------------------------------------------------------------

  /** The link is gone: what was answered and not acknowledged goes into the log. */
  #logAnswered(): void {
    const ring = this.#ring
    for (let i = ring.head; i < ring.answered; i++) {
      const entry = ring.at(i)
      if (!entry.forgotten) this.#log.keep(entry)
    }
    if (this.#log.tooLong) this.#dropLog()
  }

  /** Answered frames are gone for the link; those that are not answered yet stay until they are. */
  #forgetAnswered(): void {
    const ring = this.#ring
    for (let i = ring.head; i < ring.answered; i++) {
      const entry = ring.at(i)
      if (entry.seq <= this.#gate.acknowledged) continue
      entry.forgotten = true
      this.#forgottenSeq = entry.seq
    }
  }

  /** Every frame in it is marked in the change map already. */
  #dropLog(): void {
    this.#log.stop()
    this.forgetFrames(true)
    this.#onLogDropped()
  }
}

/** Most extents told in one reply; clients ask again for the rest. */
const EXTENTS_COUNT_MAX = 4096

/** What was announced is asked again when its turn comes, and fails then. */
const ignoreEarlyAnswer = (): void => undefined
