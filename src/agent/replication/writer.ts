import { assert } from '#base/assert.ts'
import type { Clock } from '#base/clock.ts'
import { Anticipation } from '#base/system/anticipation.ts'
import {
  FLAG,
  FRAME,
  FRAME_LENGTH_MAX,
  frame,
  STATUS,
  type Status,
  writeFrameHeader,
} from '#wire/link/frame.ts'
import { HEADER_BYTES, type Device, type Io, IO_ERRORS, type IoError } from '#agent/nbd/device.ts'
import { ioError } from '#agent/nbd/local-device.ts'
import type { Slab } from '#agent/nbd/slab.ts'
import type { Volume } from '#agent/volumes/volume.ts'
import type { AckGate } from './ack-gate.ts'
import type { IntentBitmap } from './intent-bitmap.ts'
import { RegionSet, regionCount } from './regions.ts'
import type { RunFile } from './run-file.ts'
import type { Sender } from './sender.ts'

/* The write path of a session at its writer.
 *
 *   submit(batch) ─► intent bits set? ─► number, header over the NBD header ─► socket (one write) ─► page cache
 *                        │ no                                                                           │
 *                        └► waits for one fdatasync of the bitmap, then as above                        │
 *   acknowledgement of the replica ─► gate ─► io.complete ◄─────────────────────────────────────────────┘
 *
 * Every numbered write has an entry from its numbering until it was answered and, if the link wants it, acknowledged. Entries
 * are in a ring in the order of their numbers:
 *
 *     head ... answered ... tail          [head, answered) is kept for the link only; [answered, tail) is not answered yet
 *
 * While the link is down under in_sync the entries stay, to be sent again. While this side acknowledges alone without a
 * link no entry stays; instead the region is noted for the copy.
 *
 * What a read returns may be answered only when the replica holds it too: a client must never see a value that a failover
 * could take back. So a read waits for unacknowledged writes that overlap it.
 *
 * A zero request longer than a frame is carried out in pieces with a number each, a few per turn.
 */

class Entry {
  seq = 0
  /** Answered when this entry may be; null for copies, parts of a zero, and writes whose answer waits for a flush. */
  io: Io | null = null
  slab: Slab | null = null
  bytes: Buffer = NOTHING
  start = 0
  end = 0
  member: WriterMember | null = null
  offset = 0
  length = 0
  error: IoError = 0
  /** The link will not ask for it. */
  forgotten = false
  isCopy = false
}

const NOTHING = Buffer.alloc(0)

/** One fdatasync on both sides and everybody who waits for it. */
interface FlushRound {
  readonly member: WriterMember
  readonly ios: Io[]
  readonly waiters: ((error: IoError) => void)[]
  /** Numbers up to it must be releasable too: writes with FUA. */
  seq: number
  localDone: boolean
  peerDone: boolean
  /** Id on the present link; 0: not sent there. */
  id: number
  error: IoError
}

export interface WriterMember {
  readonly index: number
  readonly volume: Volume
  readonly intent: IntentBitmap
  /** Regions to be copied to the replica. */
  readonly todo: RegionSet
  /** Copies that run look here for writes into the range they are reading. */
  readonly watched: Set<WatchedRange>
  running: FlushRound | null
  next: FlushRound | null
  readonly device: Device
}

/** A range that a copy is reading; `hit` when a client wrote into it meanwhile. */
export interface WatchedRange {
  readonly offset: number
  readonly length: number
  hit: boolean
}

interface LongZero {
  readonly member: WriterMember
  readonly io: Io
  offset: number
  left: number
}

/** The loop stays awake for an acknowledgement, and for the next request of a client that was answered, this long. */
const ACKNOWLEDGEMENT_WINDOW_MS = 0.2
const REQUEST_WINDOW_MS = 0.05

/** Pieces of long zeroes numbered per turn, at up to 0.7 ms each. */
const ZERO_PIECES_PER_TURN = 4

export interface WriterParts {
  readonly gate: AckGate
  readonly clock: Clock
  readonly run: RunFile
  readonly holdBytes: number
  /** A local write or flush failed; the session goes on, the volume says what it thinks of it. */
  readonly onLocalError: (member: number, error: unknown) => void
}

export class Writer {
  readonly #gate: AckGate
  readonly #clock: Clock
  readonly #run: RunFile
  readonly #holdBytes: number
  readonly #onLocalError: (member: number, error: unknown) => void
  readonly members = new Map<number, WriterMember>()
  #sender: Sender | null = null
  #inputOpen = false
  /** After the session: answers need nobody any more. */
  #plain = false
  #failed = false

  #ring: Entry[] = Array.from({ length: 1024 }, () => new Entry())
  #head = 0
  #answered = 0
  #tail = 0
  /** Payload bytes between head and tail. */
  #bytes = 0

  readonly #waiting: { member: WriterMember; io: Io }[] = []
  #zeros: LongZero[] = []
  #zerosPlanned = false
  #savingIntent = false
  readonly #reads: { io: Io; seq: number }[] = []
  readonly #rounds: FlushRound[] = []
  #flushId = 0
  readonly #idle: (() => void)[] = []
  readonly #staged: Io[] = []
  /** Only for a client that waits for each write: with more in flight there is always something to do. */
  readonly #acknowledgement = new Anticipation(ACKNOWLEDGEMENT_WINDOW_MS)
  readonly #request = new Anticipation(REQUEST_WINDOW_MS)

  constructor({ gate, clock, run, holdBytes, onLocalError }: WriterParts) {
    this.#gate = gate
    this.#clock = clock
    this.#run = run
    this.#holdBytes = holdBytes
    this.#onLocalError = onLocalError
  }

  addMember(index: number, volume: Volume, intent: IntentBitmap): WriterMember {
    assert(!this.members.has(index), 'a member is added once')
    const submit = (of: WriterMember, batch: readonly Io[], count: number) =>
      this.#submit(of, batch, count)
    const member: WriterMember = {
      index,
      volume,
      intent,
      todo: new RegionSet(regionCount(volume.sizeBytes)),
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
    this.members.delete(index)
  }

  /** Unanswered and unacknowledged payload in memory, bytes. */
  get heldBytes(): number {
    return this.#bytes
  }

  /** Nothing is waiting for an answer, and the link has everything it should. */
  get idle(): boolean {
    return (
      this.#head === this.#tail &&
      this.#zeros.length === 0 &&
      !this.#savingIntent &&
      this.#rounds.length === 0
    )
  }

  /** All that was numbered is answered and acknowledged. Requests that are not numbered may wait. */
  get settled(): boolean {
    return this.#head === this.#tail
  }

  // -- control --------------------------------------------------------------------------------------------------------

  /** Frames go out on `sender` from now on; null: nowhere. */
  setSender(sender: Sender | null): void {
    this.#sender = sender
    for (const round of this.#rounds) round.id = 0
  }

  setInput(open: boolean): void {
    this.#inputOpen = open
    if (open) this.#pump()
  }

  /** Sends the retained frames behind `after` again, then whatever flushes wait for the replica. */
  resend(after: number): void {
    const sender = this.#sender
    if (sender === null) return
    sender.cork()
    for (let i = this.#head; i < this.#tail; i++) {
      const entry = this.#at(i)
      if (entry.seq > after && !entry.forgotten) {
        sender.write(entry.bytes.subarray(entry.start, entry.end))
      }
    }
    sender.uncork()
    this.requirePeer()
  }

  /** The link no longer wants what it has not acknowledged; with `mark`, the copy will see to it. */
  forgetFrames(mark: boolean): void {
    for (let i = this.#head; i < this.#tail; i++) {
      const entry = this.#at(i)
      if (mark && !entry.forgotten) entry.member?.todo.addRange(entry.offset, entry.length)
      entry.forgotten = true
    }
    this.#trim()
  }

  /** Answers need the replica from now on: rounds that were begun without it are taken there. */
  requirePeer(): void {
    const sender = this.#sender
    if (sender === null) return
    for (const round of this.#rounds) {
      if (round.peerDone || round.id !== 0) continue
      round.id = ++this.#flushId
      sender.flush(round.member.index, round.id)
    }
  }

  /** Everything that waits for an answer gets `error`; no further request is carried out. */
  fail(error: IoError): void {
    this.#failed = true
    this.#inputOpen = false
    for (let i = this.#answered; i < this.#tail; i++) {
      const entry = this.#at(i)
      const { io } = entry
      entry.io = null
      entry.forgotten = true
      io?.complete(error)
    }
    this.#answered = this.#tail
    for (let i = this.#head; i < this.#tail; i++) this.#at(i).forgotten = true
    this.#trim()
    for (const { io } of this.#waiting.splice(0)) io.complete(error)
    for (const { io } of this.#zeros.splice(0)) io.complete(error)
    for (const { io } of this.#reads.splice(0)) io.complete(error)
    for (const round of this.#rounds.splice(0)) {
      round.member.running = null
      const next = round.member.next
      round.member.next = null
      for (const io of round.ios) io.complete(error)
      for (const io of next?.ios ?? []) io.complete(error)
      for (const wake of [...round.waiters, ...(next?.waiters ?? [])]) wake(error)
    }
  }

  /** The session is over and this side keeps its volumes: answers need nobody any more. */
  becomePlain(): void {
    this.#plain = true
    this.#sender = null
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
            this.#joinFlush(member, null, 0).waiters.push(resolve)
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
        if (io.kind === 'flush') this.#joinFlush(member, io, 0)
      }
    }
    if (this.#waiting.length > 0) this.#pump()
    this.release()
  }

  #mayNumber(member: WriterMember, batch: readonly Io[], start: number, end: number): boolean {
    if (this.#waiting.length > 0 || !this.#inputOpen || this.#bytes >= this.#holdBytes) return false
    if (this.#plain) return true
    for (let i = start; i < end; i++) {
      const io = batch[i] as Io
      if (!member.intent.touch(io.offset, io.length)) return false
    }
    return true
  }

  /** Takes requests that had to wait, in order. */
  #pump(): void {
    while (this.#waiting.length > 0) {
      if (this.#savingIntent || !this.#inputOpen || this.#bytes >= this.#holdBytes) return
      const first = this.#waiting[0] as { member: WriterMember; io: Io }
      const { member } = first
      let end = 1
      while ((this.#waiting[end - 1] as { io: Io }).io.more) end++
      const group = this.#waiting.slice(0, end).map(({ io }) => io)
      const covered = this.#plain || group.every((io) => member.intent.touch(io.offset, io.length))
      if (!covered) return this.#setIntent()
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
    this.#savingIntent = true
    Promise.all([...members].map((member) => member.intent.save())).then(
      () => {
        this.#savingIntent = false
        this.#pump()
        this.release()
      },
      (error: unknown) => {
        this.#savingIntent = false
        this.#onLocalError((this.#waiting[0]?.member.index ?? 0) as number, error)
        for (const { io } of this.#waiting.splice(0)) io.complete(IO_ERRORS.EIO)
      },
    )
  }

  #number(member: WriterMember, ios: readonly Io[], count: number): void {
    const sender = this.#sender
    const first = this.#tail
    for (let i = 0; i < count; i++) {
      const io = ios[i] as Io
      if (io.kind === 'zero' && io.length > FRAME_LENGTH_MAX) {
        this.#zeros.push({ member, io, offset: io.offset, left: io.length })
        this.#planZeros()
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
    if (sender !== null) this.#sendFrom(sender, first)
    this.#writeLocally(first)
    this.#run.store(this.#gate.sequence)
    const single = this.#tail - this.#answered === 1
    if (single && sender !== null && this.#gate.needsReplica) this.#acknowledgement.expect()
  }

  #push(member: WriterMember, offset: number, length: number): Entry {
    if (this.#tail - this.#head === this.#ring.length) this.#grow()
    const entry = this.#at(this.#tail++)
    entry.seq = this.#gate.next()
    entry.io = null
    entry.slab = null
    entry.member = member
    entry.offset = offset
    entry.length = length
    entry.error = 0
    entry.isCopy = false
    entry.forgotten = false
    this.#bytes += length
    if (this.#sender === null && !this.#gate.needsReplica) {
      // Nobody will ask for it: the copy that follows the next link takes it along.
      entry.forgotten = true
      member.todo.addRange(offset, length)
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
  ): Entry {
    const entry = this.#push(member, offset, length)
    entry.io = io
    entry.bytes = frame(
      FRAME.ZERO,
      mayUnmap ? FLAG.MAY_UNMAP : 0,
      member.index,
      entry.seq,
      offset,
      length,
    )
    entry.start = 0
    entry.end = entry.bytes.length
    return entry
  }

  /** One socket write for all entries that lie back to back in memory. */
  #sendFrom(sender: Sender, first: number): void {
    sender.cork()
    for (let i = first; i < this.#tail; ) {
      const entry = this.#at(i)
      const { bytes, start } = entry
      let { end } = entry
      i++
      while (i < this.#tail) {
        const next = this.#at(i)
        if (next.bytes !== bytes || next.start !== end) break
        end = next.end
        i++
      }
      sender.write(bytes.subarray(start, end))
    }
    sender.uncork()
  }

  #writeLocally(first: number): void {
    for (let i = first; i < this.#tail; i++) {
      const entry = this.#at(i)
      const member = entry.member as WriterMember
      try {
        if (entry.slab === null) {
          const mayUnmap = ((entry.bytes[3] as number) & FLAG.MAY_UNMAP) !== 0
          member.volume.zeroSync(entry.offset, entry.length, mayUnmap)
        } else {
          member.volume.writeSync(
            entry.slab.bytes,
            entry.start + HEADER_BYTES,
            entry.length,
            entry.offset,
          )
        }
      } catch (error) {
        entry.error = ioError(error)
        // The replica may have it and this side not, or half of it. What this side reads is the truth.
        member.todo.addRange(entry.offset, entry.length)
        this.#onLocalError(member.index, error)
      }
      const { io } = entry
      if (io?.fua && entry.error === 0) {
        entry.io = null
        this.#joinFlush(member, io, entry.seq)
      }
    }
  }

  #planZeros(): void {
    if (this.#zerosPlanned) return
    this.#zerosPlanned = true
    setImmediate(() => {
      this.#zerosPlanned = false
      this.#zeroSome()
    })
  }

  #zeroSome(): void {
    const zero = this.#zeros[0]
    if (zero === undefined || this.#failed) return
    const { member, io } = zero
    if (this.#inputOpen && this.#bytes < this.#holdBytes) {
      const first = this.#tail
      for (let piece = 0; piece < ZERO_PIECES_PER_TURN && zero.left > 0; piece++) {
        const length = Math.min(zero.left, FRAME_LENGTH_MAX)
        // The bit may have been cleared since: then the last pieces wait for nobody, they set it again without waiting.
        if (!this.#plain && !member.intent.touch(zero.offset, length)) {
          this.#setZeroIntent(member, zero)
          break
        }
        const last = zero.left === length
        this.#pushZero(member, last ? io : null, zero.offset, length, io.mayUnmap)
        zero.offset += length
        zero.left -= length
      }
      if (this.#sender !== null) this.#sendFrom(this.#sender, first)
      this.#writeLocally(first)
      this.#run.store(this.#gate.sequence)
      if (zero.left === 0) this.#zeros.shift()
      this.release()
      if (this.#savingIntent) return
    }
    if (this.#zeros.length > 0 && this.#inputOpen && this.#bytes < this.#holdBytes)
      this.#planZeros()
  }

  #setZeroIntent(member: WriterMember, zero: LongZero): void {
    this.#savingIntent = true
    member.intent.set(zero.offset, zero.left)
    member.intent.save().then(
      () => {
        this.#savingIntent = false
        this.#planZeros()
        this.#pump()
        this.release()
      },
      (error: unknown) => {
        this.#savingIntent = false
        this.#onLocalError(member.index, error)
        this.#zeros = this.#zeros.filter((one) => one !== zero)
        zero.io.complete(IO_ERRORS.EIO)
        this.#pump()
      },
    )
  }

  // -- copies ---------------------------------------------------------------------------------------------------------

  /**
   * Numbers a block of a copy and sends it. `bytes`: frame header room and payload, owned by the writer from now on.
   * `done` when the replica has acknowledged it, or never.
   */
  sendCopy(member: WriterMember, bytes: Buffer, offset: number, length: number): number {
    const entry = this.#push(member, offset, length)
    entry.isCopy = true
    entry.bytes = bytes
    entry.start = 0
    entry.end = bytes.length
    const type = bytes.length > HEADER_BYTES ? FRAME.WRITE : FRAME.ZERO
    const flags = type === FRAME.ZERO ? FLAG.COPY | FLAG.MAY_UNMAP : FLAG.COPY
    writeFrameHeader(bytes, 0, type, flags, member.index, entry.seq, offset, length)
    if (this.#sender !== null) this.#sender.write(bytes)
    this.#run.store(this.#gate.sequence)
    this.release()
    return entry.seq
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
    const seq = this.#gate.needsReplica ? this.#lastOverlapping(member, io.offset, io.length) : 0
    if (this.#gate.releasableUpTo(this.#clock.bootMs()) >= seq) return io.complete(0)
    this.#reads.push({ io, seq })
  }

  /** Number of the last unacknowledged write that overlaps the range; 0 when there is none. */
  #lastOverlapping(member: WriterMember, offset: number, length: number): number {
    for (let i = this.#tail - 1; i >= this.#head; i--) {
      const entry = this.#at(i)
      if (entry.seq <= this.#gate.acknowledged) return 0
      if (entry.isCopy || entry.member !== member) continue
      if (offset < entry.offset + entry.length && entry.offset < offset + length) return entry.seq
    }
    return 0
  }

  // -- flushes --------------------------------------------------------------------------------------------------------

  #joinFlush(member: WriterMember, io: Io | null, seq: number): FlushRound {
    const round =
      member.running === null ? this.#newRound(member) : (member.next ??= emptyRound(member))
    if (io !== null) round.ios.push(io)
    if (seq > round.seq) round.seq = seq
    return round
  }

  /** Begins at the end of this turn, so that writes of the same turn are covered by one fdatasync. */
  #newRound(member: WriterMember): FlushRound {
    const round = emptyRound(member)
    member.running = round
    this.#rounds.push(round)
    queueMicrotask(() => this.#begin(round))
    return round
  }

  #begin(round: FlushRound): void {
    if (this.#failed) return
    const { member } = round
    if (this.#sender !== null && this.#gate.needsReplica && round.id === 0) {
      round.id = ++this.#flushId
      this.#sender.flush(member.index, round.id)
    }
    const ended = (error: IoError) => {
      round.localDone = true
      if (error !== 0) round.error = error
      this.release()
    }
    member.volume.flush().then(
      () => ended(0),
      (error: unknown) => {
        this.#onLocalError(member.index, error)
        ended(ioError(error))
      },
    )
  }

  flushed(id: number, status: Status): void {
    const round = this.#rounds.find((one) => one.id === id)
    if (round === undefined) return
    round.peerDone = true
    if (status !== STATUS.OK) round.error = IO_ERRORS.EIO
    this.release()
  }

  #endRounds(upTo: number): void {
    for (let i = 0; i < this.#rounds.length; ) {
      const round = this.#rounds[i] as FlushRound
      const peer = round.peerDone || this.#plain || !this.#gate.needsReplica
      if (!round.localDone || !peer || round.seq > upTo) {
        i++
        continue
      }
      this.#rounds.splice(i, 1)
      const { member } = round
      const { next } = member
      member.running = next
      member.next = null
      if (next !== null) {
        this.#rounds.push(next)
        this.#begin(next)
      }
      for (const io of round.ios) io.complete(round.error)
      for (const wake of round.waiters) wake(round.error)
    }
  }

  // -- answers --------------------------------------------------------------------------------------------------------

  /** The replica holds everything up to `sequence`. */
  acknowledged(sequence: number): void {
    this.#gate.acknowledge(sequence)
    this.#acknowledgement.came()
    this.release()
    if (this.idle) this.#request.expect()
  }

  /** Answers whatever may be answered at this moment. */
  release(): void {
    if (this.#failed) return
    const upTo = this.#plain
      ? Number.MAX_SAFE_INTEGER
      : this.#gate.releasableUpTo(this.#clock.bootMs())
    if (upTo >= 0) {
      while (this.#answered < this.#tail) {
        const entry = this.#at(this.#answered)
        if (entry.seq > upTo) break
        this.#answered++
        const { io } = entry
        entry.io = null
        io?.complete(entry.error)
      }
      if (this.#reads.length > 0) this.#answerReads(upTo)
      if (this.#rounds.length > 0) this.#endRounds(upTo)
    }
    this.#trim()
    if (this.#waiting.length > 0) this.#pump()
    if (this.#zeros.length > 0) this.#planZeros()
    if (this.#idle.length > 0 && this.settled) for (const wake of this.#idle.splice(0)) wake()
  }

  #answerReads(upTo: number): void {
    let kept = 0
    for (const read of this.#reads) {
      if (read.seq <= upTo) read.io.complete(0)
      else this.#reads[kept++] = read
    }
    this.#reads.length = kept
  }

  /** Lets go of entries that are answered and that the link does not need. */
  #trim(): void {
    const acknowledged = this.#gate.acknowledged
    while (this.#head < this.#answered) {
      const entry = this.#at(this.#head)
      if (!entry.forgotten && !this.#plain && entry.seq > acknowledged) break
      this.#head++
      this.#bytes -= entry.length
      entry.slab?.release()
      entry.slab = null
      entry.member = null
      entry.bytes = NOTHING
    }
  }

  #at(position: number): Entry {
    return this.#ring[position & (this.#ring.length - 1)] as Entry
  }

  #grow(): void {
    const old = this.#ring
    const size = old.length * 2
    const ring = Array.from<Entry>({ length: size })
    for (let i = this.#head; i < this.#head + size; i++) {
      ring[i & (size - 1)] = i < this.#tail ? (old[i & (old.length - 1)] as Entry) : new Entry()
    }
    this.#ring = ring
  }
}

/** Most extents told in one reply; clients ask again for the rest. */
const EXTENTS_COUNT_MAX = 4096

const emptyRound = (member: WriterMember): FlushRound => ({
  member,
  ios: [],
  waiters: [],
  seq: 0,
  localDone: false,
  peerDone: false,
  id: 0,
  error: 0,
})
