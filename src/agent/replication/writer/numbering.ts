import { FLAG, FRAME, frame, writeFrameHeader } from '#wire/link/frame.ts'
import { HEADER_BYTES, type Io } from '#agent/nbd/device.ts'
import { ioError } from '#agent/nbd/local-device.ts'
import type { Slab } from '#agent/nbd/slab.ts'
import type { AckGate } from '../session/ack-gate.ts'
import type { FlushRounds } from '../replica/flush-rounds.ts'
import type { FrameStream } from '../replica/frame-stream.ts'
import type { RetainedFrames } from './retained-frames.ts'
import type { RunFile } from '../run-file.ts'
import type { Entry, WriteRing } from './write-ring.ts'
import type { WriterMember } from './writer-member.ts'

/* Gives writes their place in the session's order, and carries them out.
 *
 *     add, add, ... ─► an entry each, its frame's header over the NBD header
 *     carryOut      ─► number noted (run file) ─► to the link, with FLUSH behind writes with FUA ─► into the page cache, while the replica is at it too
 *
 * All of one turn is added first: what lies back to back in memory leaves with one write to the socket.
 */

export interface NumberingParts {
  readonly ring: WriteRing
  readonly gate: AckGate
  readonly run: RunFile
  readonly stream: FrameStream
  readonly retained: RetainedFrames
  readonly flushes: FlushRounds
  readonly onLocalError: (member: number, error: unknown) => void
}

export class Numbering {
  readonly #parts: NumberingParts
  readonly #ring: WriteRing
  readonly #gate: AckGate
  readonly #stream: FrameStream
  readonly #retained: RetainedFrames
  /** Of the writes that were added and not carried out some have FUA. All are of one member. */
  #durable: WriterMember | null = null

  constructor(parts: NumberingParts) {
    this.#parts = parts
    this.#ring = parts.ring
    this.#gate = parts.gate
    this.#stream = parts.stream
    this.#retained = parts.retained
  }

  /** A write, or a zero no longer than a frame. */
  add(member: WriterMember, io: Io): void {
    if (io.kind === 'zero') return this.addZero(member, io, io.offset, io.length, io.mayUnmap)
    const slab = io.slab as Slab
    const entry = this.#push(member, io.offset, io.length)
    entry.io = io
    entry.slab = slab
    slab.retain()
    entry.bytes = slab.bytes
    entry.start = io.at - HEADER_BYTES
    entry.end = io.at + io.length
    const flags = io.more ? FLAG.MORE : 0
    if (io.fua) this.#durable = member
    const { seq, bytes, start } = entry
    writeFrameHeader(bytes, start, FRAME.WRITE, flags, member.index, seq, io.offset, io.length)
  }

  /** `io`: whose answer it carries; null for a part of a long zero that is not its last. */
  addZero(
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

  #push(member: WriterMember, offset: number, length: number): Entry {
    const gate = this.#gate
    const entry = this.#ring.push(gate.next(), member, offset, length)
    const { mode, needsReplica } = gate
    gate.bytes += length
    const { linked } = this.#stream
    if (!linked || (mode !== 'both' && mode !== 'closed')) {
      // Before it is carried out.
      this.#retained.markChanged(member, offset, length)
      if (!linked && !needsReplica && !this.#retained.logs) this.#retained.forgetNew(entry)
    }
    hitWatched(member, offset, length)
    return entry
  }

  /** Entries from position `first` on: their number noted, to the link, into the volume. */
  carryOut(first: number): void {
    // First: or the next process could give the number of a write that went out to another one.
    this.#parts.run.store(this.#gate.sequence)
    this.#send(first)
    this.#writeLocally(first)
  }

  #send(first: number): void {
    const durable = this.#durable
    this.#durable = null
    if (durable === null) return this.#stream.sendNew(first)
    this.#stream.together(() => {
      this.#stream.sendNew(first)
      this.#parts.flushes.askAhead(durable)
    })
  }

  #writeLocally(first: number): void {
    const { flushes, onLocalError } = this.#parts
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
        this.#retained.leaveToCopy(entry)
        onLocalError(member.index, error)
      }
      const { io } = entry
      if (io?.fua && entry.error === 0) {
        entry.io = null
        flushes.join(member, io, entry.seq)
      }
    }
  }

  /**
   * Numbers a block of a copy and sends it; returns its number. `bytes`: the frame, header room first, which stays as it is until the replica has
   * acknowledged it, or the link is gone; with `slab` it is part of that memory, and one reference is taken. No payload: zeroes.
   */
  copy(
    member: WriterMember,
    bytes: Buffer,
    offset: number,
    length: number,
    slab: Slab | null,
  ): number {
    const entry = this.#ring.push(this.#gate.next(), member, offset, length)
    hitWatched(member, offset, length)
    entry.isCopy = true
    entry.slab = slab
    slab?.retain()
    entry.bytes = bytes
    entry.start = 0
    entry.end = bytes.length
    const type = bytes.length > HEADER_BYTES ? FRAME.WRITE : FRAME.ZERO
    const flags = type === FRAME.ZERO ? FLAG.COPY | FLAG.MAY_UNMAP : FLAG.COPY
    writeFrameHeader(bytes, 0, type, flags, member.index, entry.seq, offset, length)
    this.#parts.run.store(this.#gate.sequence)
    this.#stream.sendCopy(bytes)
    // Nothing is released here: it could number a client's write between two frames that were read together.
    return entry.seq
  }
}

/** Copies that are reading there read again. */
function hitWatched({ watched }: WriterMember, offset: number, length: number): void {
  for (const range of watched) {
    if (offset < range.offset + range.length && range.offset < offset + length) range.hit = true
  }
}
