import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import { writeAtOnce } from '#base/system/byte-stream.ts'
import {
  ACK,
  ACK_BYTES,
  AckHeader,
  FLAG,
  FRAME,
  frame,
  STATUS,
  type Status,
} from '#wire/link/frame.ts'
import { decodeMessage, encodeMessage, type LinkMessage } from '#wire/link/messages.ts'

/* The writer's end of a live link: puts bytes on the socket, takes acknowledgements apart. Decides nothing.
 *
 * What waits in the queue of an encrypted socket is put together in new memory before it is encrypted: right for small frames, which become one
 * system call, and for those of a copy as expensive as the encryption. So a large frame is given to such a socket by itself, when nothing waits
 * there, and what comes behind it waits here until it has left.
 */

/** From this size on a frame leaves an encrypted socket by itself. */
const LARGE_BYTES = 128 * 1024
/** Up to this, corked pieces are copied into one for an unencrypted socket: less than another system call costs, and the replica gets them together. */
const COPIED_BYTES_MAX = 16 * 1024

export interface SenderEvents {
  /** Everything up to `sequence` is applied there. `status` not OK: and the next one cannot be. */
  acknowledged(sequence: number, status: Status): void
  flushed(id: number, status: Status): void
  message(message: LinkMessage): void
  /** `sentMs`: this side's clock when it sent the heartbeat that came back. */
  echoed(sentMs: number): void
  checksums(id: number, status: Status, payload: Buffer): void
  block(id: number, status: Status, payload: Buffer): void
  changes(id: number, status: Status, payload: Buffer): void
  closed(reason: string): void
}

export class Sender {
  readonly #socket: Socket
  readonly #events: SenderEvents
  readonly #header = new AckHeader()
  #carry: Buffer | undefined
  #open = true
  /** What arrived before `start`; null: started. A socket that nobody listens to throws away what comes. */
  #early: Buffer[] | null = []
  #earlyEnd: string | null = null
  readonly #encrypted: boolean
  /** Behind a large frame of an encrypted socket, or such a frame that waits for its turn. */
  #waiting: Buffer[] = []
  #waitingBytes = 0
  #corks = 0
  /** Of an unencrypted socket, whose writes go past the queue that Node corks. */
  readonly #corked: Buffer[] = []
  #corkedBytes = 0
  /** The socket has a large one. */
  #large = false
  /** Writes of this sender that the socket has. Only their ends call for what waits: bytes of the handshake may lie before them. */
  #handed = 0
  readonly #written = (): void => {
    this.#handed--
    this.#pump()
  }

  constructor(socket: Socket, events: SenderEvents) {
    this.#socket = socket
    this.#events = events
    this.#encrypted = socket instanceof TLSSocket
    const ended = (reason: string) => {
      if (this.#early === null) this.#close(reason)
      else this.#earlyEnd ??= reason
    }
    socket.on('data', (chunk: Buffer) => {
      if (this.#early === null) this.#take(chunk)
      else this.#early.push(Buffer.from(chunk))
    })
    socket.on('error', (error) => ended(error.message))
    socket.on('end', () => ended('the replica hung up'))
    socket.on('close', () => ended('the link was closed'))
  }

  /** Begins to look at what the replica sends, and has sent since the construction; `rest` arrived behind the handshake, before that. */
  start(rest: Buffer): void {
    const bytes = Buffer.concat([rest, ...(this.#early ?? [])])
    this.#early = null
    if (bytes.length > 0) this.#take(bytes)
    if (this.#earlyEnd !== null) this.#close(this.#earlyEnd)
  }

  get open(): boolean {
    return this.#open
  }

  /** Bytes that the kernel has not taken yet. */
  get backlogBytes(): number {
    return this.#socket.writableLength + this.#waitingBytes + this.#corkedBytes
  }

  /** Several writes as one system call. */
  cork(): void {
    this.#corks++
    if (this.#encrypted) this.#socket.cork()
  }

  uncork(): void {
    this.#corks--
    if (this.#encrypted) this.#socket.uncork()
    else if (this.#corks === 0) this.#sendCorked()
  }

  #sendCorked(): void {
    const pieces = this.#corked.splice(0)
    const bytes = this.#corkedBytes
    this.#corkedBytes = 0
    if (!this.#open) return
    const together = pieces.length > 1 && bytes <= COPIED_BYTES_MAX
    for (const piece of together ? [Buffer.concat(pieces)] : pieces) {
      writeAtOnce(this.#socket, piece)
    }
  }

  /** Frames as they lie in memory; the memory must stay as it is until they are acknowledged. */
  write(bytes: Buffer): void {
    if (!this.#open) return
    if (!this.#encrypted) {
      if (this.#corks === 0) return writeAtOnce(this.#socket, bytes)
      this.#corked.push(bytes)
      this.#corkedBytes += bytes.length
      return
    }
    const free = this.#handed === 0
    if (this.#waiting.length === 0 && !this.#large && (free || bytes.length < LARGE_BYTES)) {
      return this.#hand(bytes)
    }
    this.#waiting.push(bytes)
    this.#waitingBytes += bytes.length
  }

  #hand(bytes: Buffer): void {
    this.#large = bytes.length >= LARGE_BYTES
    this.#handed++
    this.#socket.write(bytes, this.#written)
  }

  /** Something has left the socket. */
  #pump(): void {
    if (!this.#open || this.#handed > 0) return
    this.#large = false
    if (this.#waiting.length === 0) return
    this.#socket.cork()
    let count = 0
    while (count < this.#waiting.length && !this.#large) {
      const next = this.#waiting[count] as Buffer
      if (count > 0 && next.length >= LARGE_BYTES) break
      this.#hand(next)
      this.#waitingBytes -= next.length
      count++
    }
    this.#waiting.splice(0, count)
    this.#socket.uncork()
  }

  message(message: LinkMessage): void {
    const body = encodeMessage(message)
    this.write(frame(FRAME.MESSAGE, 0, 0, 0, 0, body.length, body))
  }

  heartbeat(nowMs: number): void {
    this.write(frame(FRAME.HEARTBEAT, 0, 0, Math.round(nowMs * 1000), 0, 0))
  }

  flush(volume: number, id: number): void {
    this.write(frame(FRAME.FLUSH, 0, volume, id, 0, 0))
  }

  checksum(volume: number, id: number, offset: number, length: number, atOnce: boolean): void {
    this.write(frame(FRAME.CHECKSUM, atOnce ? FLAG.AT_ONCE : 0, volume, id, offset, length))
  }

  fetch(volume: number, id: number, offset: number, length: number): void {
    this.write(frame(FRAME.FETCH, 0, volume, id, offset, length))
  }

  /** `regions` from byte `offset` on. */
  changes(volume: number, id: number, offset: number, regions: number): void {
    this.write(frame(FRAME.CHANGES, 0, volume, id, offset, regions))
  }

  /** No event follows. */
  destroy(): void {
    this.#open = false
    this.#socket.destroy()
  }

  /** Sends what was written, then ends. No event follows. */
  end(): void {
    this.#open = false
    for (const bytes of this.#waiting.splice(0)) this.#socket.write(bytes)
    this.#socket.end()
    const socket = this.#socket
    setTimeout(() => socket.destroy(), 1_000).unref()
  }

  #close(reason: string): void {
    if (!this.#open) return
    this.#open = false
    this.#socket.destroy()
    this.#events.closed(reason)
  }

  #take(chunk: Buffer): void {
    const carry = this.#carry
    const bytes = carry === undefined ? chunk : Buffer.concat([carry, chunk])
    this.#carry = undefined
    const header = this.#header
    let at = 0
    // Only the last of several cumulative acknowledgements matters.
    let applied = -1
    while (this.#open && bytes.length - at >= ACK_BYTES) {
      if (!header.read(bytes, at)) return this.#close('the replica sent something that is no frame')
      const end = at + ACK_BYTES + header.length
      if (end > bytes.length) break
      const payload = bytes.subarray(at + ACK_BYTES, end)
      at = end
      if (header.type === ACK.APPLIED && header.status === STATUS.OK) {
        applied = header.number
        continue
      }
      if (applied >= 0) this.#events.acknowledged(applied, STATUS.OK)
      applied = -1
      this.#dispatch(header, payload)
    }
    if (this.#open && applied >= 0) this.#events.acknowledged(applied, STATUS.OK)
    if (this.#open && at < bytes.length) this.#carry = Buffer.from(bytes.subarray(at))
  }

  #dispatch(header: AckHeader, payload: Buffer): void {
    const { type, status, number } = header
    switch (type) {
      case ACK.APPLIED:
        return this.#events.acknowledged(number, status)
      case ACK.FLUSHED:
        return this.#events.flushed(number, status)
      case ACK.ECHO:
        return this.#events.echoed(number / 1000)
      case ACK.CHECKSUMS:
        return this.#events.checksums(number, status, payload)
      case ACK.BLOCK:
        return this.#events.block(number, status, payload)
      case ACK.CHANGES:
        return this.#events.changes(number, status, payload)
      case ACK.MESSAGE: {
        const message = decodeMessage(payload)
        if (message === undefined) return this.#close('a message of the replica is not understood')
        return this.#events.message(message)
      }
    }
  }
}
