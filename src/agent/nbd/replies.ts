import type { Duplex } from 'node:stream'
import { assert } from '#base/assert.ts'
import type { ByteStream } from '#base/system/byte-stream.ts'
import { CMD } from '#wire/nbd/constants.ts'
import {
  encodeBlockStatus,
  encodeErrorChunk,
  type Request,
  SIMPLE_REPLY_BYTES,
  writeSimpleReply,
} from '#wire/nbd/transmission.ts'
import type { Io, IoError } from './device.ts'
import { ALLOCATION_CONTEXT_ID } from './negotiation.ts'

/* Replies without data that one connection has not sent yet.
 *
 * The simple ones, sixteen bytes each, are collected in a buffer and leave with one write per turn, so nothing is allocated for them. The
 * others (errors of structured reads, extents) are rare and are buffers of their own. Their order among each other does not matter: a
 * client tells replies apart by their cookies.
 */

/** A fresh buffer is taken when this one is used up. */
const REPLIES_BYTES = 64 * 1024

export class Replies {
  readonly #structured: boolean
  #short = Buffer.allocUnsafeSlow(REPLIES_BYTES)
  #start = 0
  #end = 0
  readonly #long: Buffer[] = []

  /** `structured`: structured replies were agreed on. */
  constructor(structured: boolean) {
    this.#structured = structured
  }

  /** Pieces that `send` would write. */
  get pieces(): number {
    return (this.#end > this.#start ? 1 : 0) + this.#long.length
  }

  simple(error: number, cookieHigh: number, cookieLow: number): void {
    if (this.#end + SIMPLE_REPLY_BYTES > this.#short.length) {
      if (this.#end > this.#start) this.#long.push(this.#short.subarray(this.#start, this.#end))
      // The old buffer may still be on its way into the socket, so it is left to it.
      this.#short = Buffer.allocUnsafeSlow(REPLIES_BYTES)
      this.#start = 0
      this.#end = 0
    }
    writeSimpleReply(this.#short, this.#end, error, cookieHigh, cookieLow)
    this.#end += SIMPLE_REPLY_BYTES
  }

  /** To a request that is not carried out. */
  refuse(type: number, error: number, { cookieHigh, cookieLow }: Request): void {
    if (type === CMD.READ) this.refuseRead(error, cookieHigh, cookieLow)
    else if (type === CMD.BLOCK_STATUS && this.#structured) {
      this.#long.push(encodeErrorChunk(error, cookieHigh, cookieLow))
    } else this.simple(error, cookieHigh, cookieLow)
  }

  /** Where structured replies were agreed on, a READ may be answered in no other way. */
  refuseRead(error: number, cookieHigh: number, cookieLow: number): void {
    if (this.#structured) this.#long.push(encodeErrorChunk(error, cookieHigh, cookieLow))
    else this.simple(error, cookieHigh, cookieLow)
  }

  extents(io: Io, error: IoError): void {
    const { cookieHigh, cookieLow } = io
    if (error !== 0) {
      this.#long.push(encodeErrorChunk(error, cookieHigh, cookieLow))
      return
    }
    const found = io.extents ?? []
    assert(found.length > 0, 'a device tells at least one extent')
    const extents = io.single ? found.slice(0, 1) : found
    this.#long.push(encodeBlockStatus(ALLOCATION_CONTEXT_ID, extents, cookieHigh, cookieLow))
  }

  /** Everything goes out. `alone`: nothing else is written with it. */
  send(bytes: ByteStream, stream: Duplex, alone: boolean): void {
    if (this.#end > this.#start) {
      const replies = this.#short.subarray(this.#start, this.#end)
      if (alone) bytes.send(replies)
      else stream.write(replies)
      this.#start = this.#end
    }
    if (this.#long.length === 0) return
    for (const reply of this.#long) stream.write(reply)
    this.#long.length = 0
  }
}
