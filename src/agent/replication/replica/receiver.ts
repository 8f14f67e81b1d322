import type { Socket } from 'node:net'
import type { Clock } from '#base/clock.ts'
import { type Fault, isFault } from '#base/fault.ts'
import {
  ACK,
  ack,
  BLOCK_BYTES,
  FLAG,
  FRAME,
  FRAME_BYTES,
  FrameHeader,
  STATUS,
  type Status,
} from '#wire/link/frame.ts'
import { decodeMessage, encodeMessage, type LinkMessage } from '#wire/link/messages.ts'
import { VOLUME_NO_SPACE } from '#agent/volumes/faults.ts'
import type { Volume } from '#agent/volumes/volume.ts'
import { checksumAtOnce, checksumsOf } from '../verify/checksums.ts'
import type { AckGate } from '../session/ack-gate.ts'
import { CommitHabit } from './commit-habit.ts'
import type { Silence } from '../session/contact.ts'
import type { DialledBuffer } from '../link.ts'
import type { RunFile } from '../run-file.ts'

/* The replica's end of a live link: applies frames in order and acknowledges.
 *
 *     socket ─► buffer ─► each complete frame ─► page cache, run file ─► ONE acknowledgement of the last one applied
 *                              │
 *                              └─ a message: nothing behind it is looked at until the session has dealt with it
 *
 * A write that comes in several frames (MORE) is applied when its last one is there, so that the volumes are a prefix of the
 * session's writes at every moment.
 *
 * Before a frame is applied, a snapshot of its volume may have to preserve what the frame overwrites. Then everything waits, so that the
 * order stays what it is; the frames behind it that are here already are announced, so that they share one sync.
 *
 * A frame that cannot be applied (disk full, disk failed) ends the link: what follows it must not be applied either. So does a
 * flush that fails. The last acknowledgement carries the reason, and the writer holds until a later link gets further or it may go
 * on alone; its clients hear nothing of it.
 */

/** Longest write in parts: NBD's 32 MiB. */
const PARTS_BYTES_MAX = 40 * 1024 * 1024
/** The writer hangs up when it has read why this side takes no more; it has this long for it. */
const LAST_WORD_MS = 1_000

export interface ReceiverParts {
  readonly socket: Socket
  readonly buffer: DialledBuffer
  readonly gate: AckGate
  readonly silence: Silence
  readonly run: RunFile
  readonly clock: Clock
  /** 'removed': was a member once, its frames are dropped. */
  readonly volume: (index: number) => Volume | 'removed' | undefined
  /** Everything before the message has been applied; nothing behind it is until the promise resolves. */
  readonly onMessage: (message: LinkMessage) => Promise<void>
  /** The session takes writes of this link now. */
  readonly applies: () => boolean
  /** Much comes and nobody waits for it to be durable: the flush at its end is to be short. */
  readonly copying: () => boolean
  /** What this side has changed itself: the answer to CHANGES, see wire/link/changes.ts. */
  readonly changes: (index: number, offset: number, regions: number) => Buffer
  /** A frame could not be applied, or what was applied not be made durable; `onClosed` follows. */
  readonly onRefused: (status: Status, reason: string) => void
  readonly onClosed: (reason: string) => void
}

export class Receiver {
  readonly #parts: ReceiverParts
  readonly #header = new FrameHeader()
  readonly #ahead = new FrameHeader()
  #open = true
  #started = false
  /** A message is being dealt with, or a snapshot preserves something. */
  #blocked = false
  /** It is a snapshot that is waited for. */
  #preserving = false
  /** Bytes of the stream that were dealt with, and up to where the volumes have been told what is coming. */
  #consumed = 0
  #announced = 0
  #pending: { volume: Volume | 'removed'; offset: number; data: Buffer }[] = []
  #pendingBytes = 0
  readonly #habits = new Map<number, CommitHabit>()
  /** The member that the last frame wrote to; null: a zero, or none. */
  #writtenTo: number | null = null
  /** CLOCK_BOOTTIME when bytes last arrived, ms. */
  heardMs: number
  /** Frames of writes applied, for statistics. */
  frames = 0

  constructor(parts: ReceiverParts) {
    this.#parts = parts
    this.heardMs = parts.clock.bootMs()
    const { socket, buffer } = parts
    socket.on('end', () => this.#close('the writer hung up'))
    socket.on('error', (error) => this.#close(error.message))
    socket.on('close', () => this.#close('the link was closed'))
    buffer.onBytes = () => {
      this.heardMs = parts.clock.bootMs()
      if (this.#started && !this.#blocked) this.#parse()
      else if (this.#preserving) this.#announce()
      return !buffer.full
    }
  }

  /** Frames are taken from now on. */
  start(): void {
    this.#started = true
    this.#continue()
  }

  get open(): boolean {
    return this.#open
  }

  /** Frames wait for a disk of this side. */
  get blocked(): boolean {
    return this.#blocked
  }

  message(message: LinkMessage): void {
    this.#send(ack(ACK.MESSAGE, STATUS.OK, 0, encodeMessage(message)))
  }

  /** No event follows. Nothing that arrived and was not applied is applied any more. */
  destroy(): void {
    this.#open = false
    this.#parts.socket.destroy()
  }

  #send(bytes: Buffer): void {
    if (this.#open) this.#parts.socket.write(bytes)
  }

  #close(reason: string): void {
    if (!this.#open) return
    this.#open = false
    this.#parts.socket.destroy()
    this.#parts.onClosed(reason)
  }

  #continue(): void {
    if (!this.#open) return
    this.#parse()
    if (this.#open && !this.#blocked) this.#parts.socket.resume()
  }

  #parse(): void {
    const { buffer, gate } = this.#parts
    const { bytes } = buffer
    const header = this.#header
    const before = gate.sequence
    let at = buffer.start
    while (this.#open && !this.#blocked && buffer.filled - at >= FRAME_BYTES) {
      if (!header.read(bytes, at)) {
        this.#close('the writer sent something that is no frame')
        break
      }
      const start = at + FRAME_BYTES
      const end = start + header.payloadBytes
      if (end > buffer.filled) break
      if (header.type === FRAME.WRITE || header.type === FRAME.ZERO) {
        if (!this.#parts.applies()) {
          this.#close(`frame ${header.seq} came before it was wanted`)
          break
        }
        const wait = this.#guard(header)
        if (wait !== null) {
          this.#preserve(wait)
          break
        }
        const status = this.#apply(header, bytes, start)
        if (status !== STATUS.OK) {
          this.#refuse(status, this.#nextFrame)
          break
        }
      } else {
        this.#other(header, bytes.subarray(start, end))
      }
      at = end
    }
    if (gate.sequence !== before) {
      this.#send(ack(ACK.APPLIED, STATUS.OK, gate.sequence))
      this.#written()
    }
    this.#consumed += at - buffer.start
    buffer.start = at
    if (this.#preserving) this.#announce()
  }

  /** What was applied has been acknowledged, and nothing else is here. */
  #written(): void {
    const index = this.#writtenTo
    this.#writtenTo = null
    if (index === null) return
    const expected = this.#habitOf(index).wrote(this.heardMs)
    if (expected === 'nothing') return
    const volume = this.#parts.volume(index)
    if (volume !== undefined && volume !== 'removed') volume.prepareFlush(expected === 'flush')
  }

  #habitOf(index: number): CommitHabit {
    let habit = this.#habits.get(index)
    if (habit === undefined) this.#habits.set(index, (habit = new CommitHabit()))
    return habit
  }

  /** null: nothing has to be preserved before the frame is applied. */
  #guard({ seq, volume: index, offset, length, flags }: FrameHeader): Promise<void> | null {
    if (seq <= this.#parts.gate.sequence || (flags & FLAG.MORE) !== 0) return null
    for (const part of this.#pending) {
      if (part.volume === 'removed') continue
      const wait = part.volume.guard(part.offset, part.data.length)
      if (wait !== null) return wait
    }
    return this.#guardOf(index, offset, length)
  }

  #guardOf(index: number, offset: number, length: number): Promise<void> | null {
    const volume = this.#parts.volume(index)
    if (volume === undefined || volume === 'removed') return null
    return offset + length > volume.sizeBytes ? null : volume.guard(offset, length)
  }

  /** The writer's volume may have been extended, or be another one. */
  #isBeyond({ volume: index, offset, length }: FrameHeader): boolean {
    const volume = this.#parts.volume(index)
    return volume !== undefined && volume !== 'removed' && offset + length > volume.sizeBytes
  }

  /** Holds the stream up until `wait` is over; what is behind the frame is announced meanwhile. */
  #preserve(wait: Promise<void>): void {
    this.#blocked = true
    this.#preserving = true
    const over = () => {
      this.#blocked = false
      this.#preserving = false
    }
    wait.then(
      () => {
        over()
        this.#continue()
      },
      (error: unknown) => {
        if (!isFault(error)) throw error
        over()
        if (this.#open) this.#refuse(statusOf(error), this.#nextFrame)
      },
    )
  }

  /** Tells the volumes what will be written soon, once per frame. Each is asked again when its turn comes. */
  #announce(): void {
    const { buffer } = this.#parts
    const header = this.#ahead
    const origin = this.#consumed - buffer.start
    let at = Math.max(this.#announced, this.#consumed) - origin
    while (buffer.filled - at >= FRAME_BYTES) {
      if (!header.read(buffer.bytes, at)) break
      const end = at + FRAME_BYTES + header.payloadBytes
      if (end > buffer.filled) break
      if (header.type === FRAME.WRITE || header.type === FRAME.ZERO) {
        this.#guardOf(header.volume, header.offset, header.length)?.catch(ignoreEarlyAnswer)
      }
      at = end
    }
    this.#announced = origin + at
  }

  get #nextFrame(): string {
    return `frame ${this.#parts.gate.sequence + 1} could not be applied`
  }

  /** The last acknowledgement of this link: it says why there will be no other. */
  #refuse(status: Status, what: string): void {
    const { socket, clock, gate } = this.#parts
    const reason = `${what}: status ${status}`
    this.#send(ack(ACK.APPLIED, status, gate.sequence))
    this.#open = false
    // Not destroyed at once: with frames unread that is a reset, which may take the acknowledgement with it.
    socket.end()
    const cancel = clock.after(LAST_WORD_MS, () => socket.destroy())
    socket.once('close', cancel)
    this.#parts.onRefused(status, reason)
    this.#parts.onClosed(reason)
  }

  #apply(header: FrameHeader, bytes: Buffer, start: number): Status {
    const { gate } = this.#parts
    const { seq, flags, offset, length, type } = header
    // Resent although applied: happens when the acknowledgement was lost.
    if (seq <= gate.sequence) return STATUS.OK
    if (seq !== gate.sequence + this.#pending.length + 1) {
      this.#close(`frame ${seq} follows ${gate.sequence}`)
      return STATUS.OK
    }
    const volume = this.#parts.volume(header.volume)
    if (volume === undefined) return STATUS.UNKNOWN_MEMBER
    if (this.#isBeyond(header)) return STATUS.BEYOND_END
    const more = (flags & FLAG.MORE) !== 0
    try {
      if (type === FRAME.ZERO) {
        if (this.#pending.length > 0) {
          this.#close('zeroes came in the middle of a write in parts')
          return STATUS.OK
        }
        if (volume !== 'removed' && length > 0) {
          volume.zeroSync(offset, length, (flags & FLAG.MAY_UNMAP) !== 0)
        }
      } else if (more) {
        this.#pendingBytes += length
        if (this.#pendingBytes > PARTS_BYTES_MAX) {
          this.#close('a write in parts is too long')
          return STATUS.OK
        }
        this.#pending.push({
          volume,
          offset,
          data: Buffer.from(bytes.subarray(start, start + length)),
        })
        return STATUS.OK
      } else {
        for (const part of this.#pending) {
          if (part.volume !== 'removed') {
            part.volume.writeSync(part.data, 0, part.data.length, part.offset)
          }
        }
        if (volume !== 'removed') {
          volume.writeSync(bytes, start, length, offset)
          this.#writtenTo = header.volume
          if (this.#parts.copying()) volume.writeBehind()
        }
      }
    } catch (error) {
      if (!isFault(error)) throw error
      return statusOf(error)
    }
    if (this.#pending.length > 0) {
      this.#pending = []
      this.#pendingBytes = 0
    }
    gate.applied(seq)
    // After every frame: of those that came together only one may be applied again by the next process, or a resend that is cut off
    // would leave old content beside newer.
    this.#parts.run.store(seq)
    this.frames++
    return STATUS.OK
  }

  /** What answers a flush comes in a later turn, behind the acknowledgement of what was applied before it. */
  #other(header: FrameHeader, payload: Buffer): void {
    const { silence, clock } = this.#parts
    const { type, seq: id, volume: index, offset, length } = header
    switch (type) {
      case FRAME.HEARTBEAT:
        silence.answered(clock.bootMs())
        return this.#send(ack(ACK.ECHO, STATUS.OK, id))
      case FRAME.FLUSH:
        return this.#answer(ACK.FLUSHED, id, index, async (volume) => {
          // What came with its write, and flushes it now, says nothing of writes that a flush follows.
          if (this.#writtenTo === index) this.#writtenTo = null
          else this.#habitOf(index).flushed(this.heardMs, volume.dirtyBytes)
          await volume.flush()
          return undefined
        })
      case FRAME.CHECKSUM:
        if (this.#isBeyond(header)) return this.#send(ack(ACK.CHECKSUMS, STATUS.BEYOND_END, id))
        return this.#answer(ACK.CHECKSUMS, id, index, (volume) =>
          (header.flags & FLAG.AT_ONCE) !== 0 && length <= BLOCK_BYTES
            ? checksumAtOnce(volume, offset, length)
            : checksumsOf(volume, offset, length),
        )
      case FRAME.FETCH:
        if (this.#isBeyond(header)) return this.#send(ack(ACK.BLOCK, STATUS.BEYOND_END, id))
        return this.#answer(ACK.BLOCK, id, index, async (volume) => {
          const data = Buffer.allocUnsafe(length)
          await volume.read(data, 0, length, offset)
          return data
        })
      case FRAME.CHANGES:
        return this.#send(
          ack(ACK.CHANGES, STATUS.OK, id, this.#parts.changes(index, offset, length)),
        )
      case FRAME.MESSAGE: {
        const message = decodeMessage(payload)
        if (message === undefined) return this.#close('a message of the writer is not understood')
        this.#blocked = true
        this.#parts.onMessage(message).then(
          () => {
            this.#blocked = false
            this.#continue()
          },
          (error: unknown) => this.#close(`a message could not be dealt with: ${String(error)}`),
        )
        return
      }
      case FRAME.WRITE:
      case FRAME.ZERO:
        return
    }
  }

  /** Work that may take long and does not hold up the stream. */
  #answer(
    type: typeof ACK.FLUSHED | typeof ACK.CHECKSUMS | typeof ACK.BLOCK,
    id: number,
    index: number,
    work: (volume: Volume) => Promise<Buffer | undefined>,
  ): void {
    const volume = this.#parts.volume(index)
    if (volume === undefined || volume === 'removed') {
      const status = volume === undefined ? STATUS.UNKNOWN_MEMBER : STATUS.OK
      queueMicrotask(() => this.#send(ack(type, status, id)))
      return
    }
    work(volume).then(
      (payload) => this.#send(ack(type, STATUS.OK, id, payload)),
      (error: unknown) => {
        if (!isFault(error)) throw error
        if (!this.#open) return
        // A flush that failed has lost what was acknowledged as applied: this is no copy any more. That is not for the
        // writer's clients to hear, whose own disk is good; without this link they are answered as soon as it stands alone.
        if (type === ACK.FLUSHED || volume.failed !== undefined) {
          return this.#refuse(statusOf(error), `volume ${index} failed`)
        }
        this.#send(ack(type, STATUS.IO, id))
      },
    )
  }
}

const statusOf = (fault: Fault): Status =>
  isFault(fault, VOLUME_NO_SPACE) ? STATUS.NO_SPACE : STATUS.IO

/** What was announced is asked again when its turn comes, and fails then. */
const ignoreEarlyAnswer = (): void => undefined
