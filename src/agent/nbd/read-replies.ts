import type { Duplex } from 'node:stream'
import {
  DATA_CHUNK_BYTES,
  SIMPLE_REPLY_BYTES,
  writeDataChunkHeader,
  writeSimpleReply,
} from '#wire/nbd/transmission.ts'
import type { Io } from './device.ts'
import { forEachPart, type IoPool } from './io-pool.ts'
import type { Slab } from './slab.ts'

/* Replies with data that one connection has not sent yet. They leave from where the data was read to, behind a header in the room before it;
 * the memory is free again when the kernel has taken them. */
export class ReadReplies {
  readonly #structured: boolean
  readonly #ios: IoPool
  readonly #done: Io[] = []

  /** `structured`: structured replies were agreed on. `ios`: gets the requests back that were answered. */
  constructor(structured: boolean, ios: IoPool) {
    this.#structured = structured
    this.#ios = ios
  }

  get count(): number {
    return this.#done.length
  }

  add(io: Io): void {
    this.#done.push(io)
  }

  /** They will never be sent. Their memory is the caller's. */
  takeBack(): readonly Io[] {
    return this.#done.splice(0)
  }

  /** `sent`: so many bytes of data are in the kernel, or will never be, and take no memory here any more. */
  send(stream: Duplex, sent: (bytes: number) => void): void {
    const slabs: Slab[] = []
    let bytes = 0
    for (const io of this.#done) {
      bytes += io.length
      this.#writeHeader(io)
      let first = true
      forEachPart(io, (part) => {
        const slab = part.slab as Slab
        const start = first ? part.at - this.#headerBytes : part.at
        first = false
        stream.write(slab.bytes.subarray(start, part.at + part.length))
        slabs.push(slab)
        part.slab = undefined
      })
      this.#ios.giveRead(io)
    }
    this.#done.length = 0
    // An empty write is called back when everything before it has been handed to the kernel, or will never be.
    stream.write(NOTHING, () => {
      for (const slab of slabs) slab.release()
      sent(bytes)
    })
  }

  get #headerBytes(): number {
    return this.#structured ? DATA_CHUNK_BYTES : SIMPLE_REPLY_BYTES
  }

  #writeHeader(io: Io): void {
    const first = io.parts[0] ?? io
    const { bytes } = first.slab as Slab
    const { cookieHigh, cookieLow } = io
    if (this.#structured) {
      const at = first.at - DATA_CHUNK_BYTES
      writeDataChunkHeader(bytes, at, cookieHigh, cookieLow, io.offset, io.length)
    } else writeSimpleReply(bytes, first.at - SIMPLE_REPLY_BYTES, 0, cookieHigh, cookieLow)
  }
}

const NOTHING = Buffer.alloc(0)
