import type { Duplex } from 'node:stream'
import { unreachable } from '#base/assert.ts'
import type { ByteStream } from '#base/system/byte-stream.ts'
import { CMD, CMD_FLAG } from '#wire/nbd/constants.ts'
import { emptyRequest, readRequest, REQUEST_BYTES, type Request } from '#wire/nbd/transmission.ts'
import type { MemoryBudget } from './budget.ts'
import { type Io, type IoError, type IoOwner, WRITE_PART_BYTES_MAX } from './device.ts'
import type { ExportConnection } from './exports.ts'
import { forEachPart, IoPool, releaseSlab } from './io-pool.ts'
import { type Agreement, REQUEST_BYTES_MAX } from './negotiation.ts'
import { PayloadPlace } from './payload-place.ts'
import { ReadReplies } from './read-replies.ts'
import type { ReceiveSlabs } from './receive-slabs.ts'
import { Replies } from './replies.ts'
import { problemOf } from './request-check.ts'
import type { Slab } from './slab.ts'

/* The transmission phase of one connection. This is the hot path: a request costs a few microseconds in all, so
 * nothing is allocated per request, and system calls are made per turn and not per request.
 *
 *   data event ─► parse ALL complete requests ─► device.submit(batch) ─► done(io) ... ─► replies of the turn: one write
 *
 * What arrives is copied once, payload by payload, into memory that goes on to the device and the link (payload-place.ts).
 *
 * A request above WRITE_PART_BYTES_MAX becomes a parent and parts: the parts go to the device, the parent's reply goes out
 * when the last part is done.
 *
 * Back-pressure: when the limits below or the agent's memory (budget.ts) are reached, or the export is held, parsing stops in front of the next header and the
 * socket is not read. The kernel's buffers fill and the client waits. Nothing is refused and nothing dropped.
 *
 * Hostile input: a wrong magic or an oversized write ends this connection. Everything else that is wrong gets an error reply,
 * with the payload skipped. No length from the wire is used before it was checked.
 */

/** Requests taken and not answered. Clients use 16 to 256; beyond this one waits. */
const REQUESTS_IN_FLIGHT_MAX = 1024
/** Bytes of payload and read data in memory. Two of the largest requests; a client that wants more waits. One request may
 *  overshoot it, so one connection takes at most twice this plus a slab. */
const BYTES_IN_FLIGHT_MAX = 64 * 1024 * 1024
/** Replies the client has not fetched. Beyond it no further request is taken from this client. */
const UNSENT_BYTES_MAX = 8 * 1024 * 1024

export interface ConnectionParts {
  readonly stream: ByteStream
  /** Bytes that arrived behind the handshake. */
  readonly early: Buffer
  readonly agreement: Agreement
  readonly slabs: ReceiveSlabs
  /** Of all connections of the agent. */
  readonly budget: MemoryBudget
  /** Called once, with the reason for the log. */
  readonly onClosed: (reason: string) => void
}

export class Connection implements IoOwner, ExportConnection {
  readonly #bytes: ByteStream
  readonly #stream: Duplex
  readonly #agreement: Agreement
  readonly #budget: MemoryBudget
  readonly #onClosed: (reason: string) => void
  #closed = false
  /** The client said goodbye: no more requests, but the answers still go out. */
  #ending = false

  // Receiving
  readonly #request: Request = emptyRequest()
  readonly #header = Buffer.alloc(REQUEST_BYTES)
  #headerBytes = 0
  /** #request was read, and waits for room in the agent's memory. */
  #postponed = false
  /** The write, or part of one, whose payload is arriving. */
  #receiving: Io | undefined
  #receivedBytes = 0
  #parent: Io | undefined
  /** Parts of #parent that are complete; submitted when all are, so that no half write ever reaches a device. */
  #parts: Io[] = []
  /** Payload of a refused write that is still to be thrown away. */
  #skipBytes = 0
  /** Parsing stopped; #left is what had arrived by then. */
  #stalled = false
  #left: Buffer | undefined

  // Executing
  readonly #batch: Io[] = []
  #batchCount = 0
  #inFlight = 0
  #inFlightBytes = 0
  readonly #ios = new IoPool(this)
  readonly #place: PayloadPlace

  // Answering
  #parsing = false
  #flushPlanned = false
  readonly #replies: Replies
  readonly #reads: ReadReplies

  constructor({ stream, early, agreement, slabs, budget, onClosed }: ConnectionParts) {
    this.#bytes = stream
    this.#stream = stream.duplex
    this.#agreement = agreement
    this.#replies = new Replies(agreement.structured)
    this.#reads = new ReadReplies(agreement.structured, this.#ios)
    this.#place = new PayloadPlace(slabs)
    this.#budget = budget
    budget.connected()
    this.#onClosed = onClosed
    agreement.export.connections.add(this)
    stream.receive((chunk) => this.#take(chunk))
    const { duplex } = stream
    duplex.on('drain', () => this.resume())
    // A client that said goodbye may close its side while answers are on their way to it.
    duplex.on('end', () => this.#ending || this.drop('the client closed the connection'))
    duplex.on('error', (error) => this.drop(error.message))
    duplex.on('close', () => this.drop('the connection was closed'))
    if (early.length > 0) this.#take(early)
    if (!this.#stalled) stream.resume()
  }

  drop(reason: string): void {
    if (this.#closed) return
    this.#closed = true
    this.#agreement.export.connections.delete(this)
    this.#stream.destroy()
    this.#left = undefined
    // What the device has comes back through `done`, what is on its way to the client through the stream. The rest goes now.
    const reads = this.#reads.takeBack()
    const never = new Set<Io>(reads)
    if (this.#receiving !== undefined) {
      releaseSlab(this.#receiving)
      never.add(this.#parent ?? this.#receiving)
    }
    for (const part of this.#parts) releaseSlab(part)
    for (let i = 0; i < this.#batchCount; i++) {
      const io = this.#batch[i] as Io
      releaseSlab(io)
      never.add(io.parent ?? io)
    }
    this.#batchCount = 0
    for (const io of reads) forEachPart(io, (part) => releaseSlab(part))
    for (const io of never) this.#account(io, -1)
    this.#place.release()
    this.#budget.disconnected(this)
    this.#onClosed(reason)
  }

  resume(): void {
    if (this.#closed || this.#parsing) return
    if (this.#batchCount > 0 && !this.#agreement.export.held) {
      this.#parsing = true
      this.#submit()
      this.#parsing = false
      this.#flush()
    }
    if (!this.#stalled || !this.#mayTake()) return
    this.#stalled = false
    const left = this.#left
    this.#left = undefined
    if (this.#postponed) {
      this.#postponed = false
      if (!this.#begin(this.#request)) {
        return this.drop(`a write of more than ${REQUEST_BYTES_MAX} bytes`)
      }
      if (left === undefined) this.#take(NOTHING)
    }
    if (left !== undefined) this.#take(left)
    if (!this.#stalled && !this.#closed) this.#bytes.resume()
  }

  #mayTake(): boolean {
    return (
      this.#inFlight < REQUESTS_IN_FLIGHT_MAX &&
      this.#inFlightBytes < BYTES_IN_FLIGHT_MAX &&
      this.#stream.writableLength < UNSENT_BYTES_MAX &&
      !this.#agreement.export.held &&
      (!this.#postponed || this.#fits())
    )
  }

  /** There is memory for the payload of #request. */
  #fits(): boolean {
    const { type, length } = this.#request
    if ((type !== CMD.READ && type !== CMD.WRITE) || this.#budget.roomFor(length)) return true
    return (
      problemOf(this.#request, this.#agreement) !== 0 ||
      this.#budget.admits(this, this.#inFlightBytes, length)
    )
  }

  /** The payload of a read or write begins (1) or ends (-1) to take memory. */
  #account({ kind, length }: Io, sign: 1 | -1): void {
    if (kind !== 'read' && kind !== 'write') return
    this.#inFlightBytes += sign * length
    if (sign === 1) this.#budget.take(length)
    else this.#budget.give(length)
  }

  #stall(left: Buffer): void {
    this.#stalled = true
    this.#left = this.#bytes.borrowed ? Buffer.from(left) : left
    this.#bytes.pause()
  }

  // ── Receiving ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  #take(chunk: Buffer): void {
    if (this.#closed || this.#ending) return
    if (this.#stalled) {
      this.#left = Buffer.concat([this.#left ?? NOTHING, chunk])
      return
    }
    this.#parsing = true
    const end = chunk.length
    let at = 0
    while (at < end && !this.#ending) {
      if (this.#receiving !== undefined) {
        at += this.#receive(this.#receiving, chunk, at)
      } else if (this.#skipBytes > 0) {
        const skipped = Math.min(this.#skipBytes, end - at)
        this.#skipBytes -= skipped
        at += skipped
      } else if (!this.#mayTake()) {
        this.#stall(chunk.subarray(at))
        break
      } else {
        let good: boolean
        if (this.#headerBytes === 0 && end - at >= REQUEST_BYTES) {
          good = readRequest(chunk, at, this.#request)
          at += REQUEST_BYTES
        } else {
          const copied = chunk.copy(this.#header, this.#headerBytes, at)
          this.#headerBytes += copied
          at += copied
          if (this.#headerBytes < REQUEST_BYTES) break
          this.#headerBytes = 0
          good = readRequest(this.#header, 0, this.#request)
        }
        if (!good) {
          this.#parsing = false
          this.#submit()
          return this.drop('a request had the wrong magic')
        }
        if (!this.#fits()) {
          this.#postponed = true
          this.#stall(chunk.subarray(at))
          break
        }
        if (!this.#begin(this.#request)) {
          this.#parsing = false
          this.#submit()
          return this.drop(`a write of more than ${REQUEST_BYTES_MAX} bytes`)
        }
      }
    }
    this.#submit()
    this.#parsing = false
    this.#flush()
  }

  /** Copies payload; returns how many bytes it took from the chunk. */
  #receive(io: Io, chunk: Buffer, at: number): number {
    const slab = io.slab as Slab
    const wanted = io.length - this.#receivedBytes
    const take = Math.min(wanted, chunk.length - at)
    chunk.copy(slab.bytes, io.at + this.#receivedBytes, at, at + take)
    this.#receivedBytes += take
    if (take === wanted) this.#received(io)
    return take
  }

  #received(io: Io): void {
    this.#receiving = undefined
    this.#receivedBytes = 0
    const parent = this.#parent
    if (parent === undefined) return this.#push(io)
    this.#parts.push(io)
    const nextOffset = io.offset + io.length
    const left = parent.offset + parent.length - nextOffset
    if (left > 0) {
      this.#receiving = this.#part(parent, nextOffset, left)
      return
    }
    for (const part of this.#parts) this.#push(part)
    this.#parts = []
    this.#parent = undefined
  }

  /** One checked request. False: the connection must end. */
  #begin(request: Request): boolean {
    const { type, flags, length, offset } = request
    if (type === CMD.DISC) {
      this.#ending = true
      return true
    }
    const problem = problemOf(request, this.#agreement)
    if (problem !== 0) {
      if (type === CMD.WRITE) {
        if (length > REQUEST_BYTES_MAX) return false
        this.#skipBytes = length
      }
      this.#replies.refuse(type, problem, request)
      return true
    }
    const io = this.#ios.take()
    io.offset = offset
    io.length = length
    io.fua = (flags & CMD_FLAG.FUA) !== 0
    io.cookieHigh = request.cookieHigh
    io.cookieLow = request.cookieLow
    this.#inFlight++
    switch (type) {
      case CMD.READ:
        io.kind = 'read'
        this.#account(io, 1)
        this.#beginRead(io)
        return true
      case CMD.WRITE:
        io.kind = 'write'
        this.#account(io, 1)
        this.#beginWrite(io)
        return true
      case CMD.FLUSH:
        io.kind = 'flush'
        io.offset = 0
        io.length = 0
        break
      case CMD.TRIM:
        io.kind = 'zero'
        io.mayUnmap = true
        break
      case CMD.WRITE_ZEROES:
        io.kind = 'zero'
        io.mayUnmap = (flags & CMD_FLAG.NO_HOLE) === 0
        break
      default:
        io.kind = 'extents'
        io.single = (flags & CMD_FLAG.REQ_ONE) !== 0
    }
    this.#push(io)
    return true
  }

  #beginRead(io: Io): void {
    if (io.length <= WRITE_PART_BYTES_MAX) {
      this.#place.give(io, this.#inFlightBytes)
      return this.#push(io)
    }
    for (let done = 0; done < io.length; ) {
      const part = this.#part(io, io.offset + done, io.length - done)
      io.parts.push(part)
      done += part.length
      this.#push(part)
    }
  }

  #beginWrite(io: Io): void {
    if (io.length <= WRITE_PART_BYTES_MAX) {
      this.#place.give(io, this.#inFlightBytes)
      this.#receiving = io
      return
    }
    this.#parent = io
    this.#receiving = this.#part(io, io.offset, io.length)
  }

  /** The next part of a large request. */
  #part(parent: Io, offset: number, left: number): Io {
    const part = this.#ios.take()
    part.kind = parent.kind
    part.fua = parent.fua
    part.parent = parent
    part.offset = offset
    part.length = Math.min(left, WRITE_PART_BYTES_MAX)
    part.more = part.length < left && parent.kind === 'write'
    parent.partsLeft++
    this.#place.give(part, this.#inFlightBytes)
    return part
  }

  #push(io: Io): void {
    this.#batch[this.#batchCount++] = io
  }

  #submit(): void {
    const count = this.#batchCount
    const target = this.#agreement.export
    // A write whose payload was still arriving when the hold began waits here: whoever holds the export was told that
    // it is drained, and may be about to give it another device.
    if (count === 0 || target.held) return
    this.#batchCount = 0
    for (let i = 0; i < count; i++) (this.#batch[i] as Io).arm()
    target.began(count)
    target.device.submit(this.#batch, count)
  }

  // ── Answering ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Called by the device through `io.complete`. */
  done(io: Io, error: IoError): void {
    this.#agreement.export.ended()
    const { parent } = io
    if (parent === undefined) return this.#answer(io, error)
    if (error !== 0) parent.partsError = error
    if (io.kind === 'write') {
      releaseSlab(io)
      this.#ios.give(io)
    }
    if (--parent.partsLeft === 0) this.#answer(parent, parent.partsError)
  }

  #answer(io: Io, error: IoError): void {
    this.#inFlight--
    if (this.#closed) {
      forEachPart(io, (part) => releaseSlab(part))
      this.#account(io, -1)
      return
    }
    const { kind, cookieHigh, cookieLow } = io
    switch (kind) {
      case 'read':
        if (error === 0) {
          this.#reads.add(io)
        } else {
          this.#account(io, -1)
          this.#replies.refuseRead(error, cookieHigh, cookieLow)
          this.#ios.giveRead(io)
        }
        break
      case 'write':
        this.#account(io, -1)
        releaseSlab(io)
        this.#replies.simple(error, cookieHigh, cookieLow)
        this.#ios.give(io)
        break
      case 'zero':
      case 'flush':
        this.#replies.simple(error, cookieHigh, cookieLow)
        this.#ios.give(io)
        break
      case 'extents':
        this.#replies.extents(io, error)
        this.#ios.give(io)
        break
      default:
        unreachable(kind)
    }
    if (this.#parsing) return
    // Nothing else is coming: a client that waits for each answer gets it without another turn of the loop. New requests
    // are not taken here: the device that is calling would be called back in the middle of its own work.
    if (this.#inFlight === 0) this.#flush()
    else this.#planFlush()
  }

  /** Once per turn, however many requests complete in it. */
  #planFlush(): void {
    if (this.#flushPlanned) return
    this.#flushPlanned = true
    setImmediate(this.#flushNow)
  }

  readonly #flushNow = () => {
    this.#flushPlanned = false
    this.#flush()
    this.resume()
  }

  #flush(): void {
    if (this.#closed) return
    const stream = this.#stream
    const pieces = this.#replies.pieces + this.#reads.count
    if (pieces > 1) stream.cork()
    this.#replies.send(this.#bytes, stream, pieces === 1)
    if (this.#reads.count > 0) this.#reads.send(stream, this.#readsSent)
    if (pieces > 1) stream.uncork()
    if (this.#inFlight === 0) this.#place.rest()
    if (this.#ending && this.#inFlight === 0) {
      stream.end(() => this.drop('the client said goodbye'))
    }
    // After requests without answer in this turn nothing else would look at a stalled client again.
    if (this.#stalled && !this.#flushPlanned && this.#mayTake()) this.#planFlush()
  }

  readonly #readsSent = (bytes: number): void => {
    this.#inFlightBytes -= bytes
    this.#budget.give(bytes)
    this.resume()
  }
}

const NOTHING = Buffer.alloc(0)
