import type { ByteStream } from './byte-stream.ts'

/** Reads exact amounts from a stream while a protocol is being negotiated, then gives the stream back with what is left.
 *  It buffers what nobody asked for yet, so it is meant for handshakes and not for bulk data. */
export class ByteReader {
  readonly #stream: ByteStream
  #left: Buffer = Buffer.alloc(0)
  #wanted = 0
  #wake: (() => void) | undefined
  #ended: Error | undefined

  constructor(stream: ByteStream) {
    this.#stream = stream
    stream.receive(this.#onBytes)
    stream.duplex.on('error', this.#onEnd)
    stream.duplex.on('close', this.#onClose)
    stream.duplex.on('end', this.#onClose)
  }

  /** Exactly `length` bytes; rejects with the stream's error, or a plain one, when it ends first. One call at a time. */
  async take(length: number): Promise<Buffer> {
    while (this.#left.length < length) {
      if (this.#ended !== undefined) throw this.#ended
      this.#wanted = length
      // A peer that sends much more than it was asked for waits in the kernel's buffers, not in ours.
      this.#stream.resume()
      await new Promise<void>((resolve) => (this.#wake = resolve))
    }
    const bytes = this.#left.subarray(0, length)
    this.#left = this.#left.subarray(length)
    return bytes
  }

  /** Stops listening and returns what arrived but was not taken. The stream is paused and has no error listener of ours. */
  detach(): Buffer {
    const { duplex } = this.#stream
    this.#stream.pause()
    this.#stream.receive(IGNORE)
    duplex.off('error', this.#onEnd)
    duplex.off('close', this.#onClose)
    duplex.off('end', this.#onClose)
    return this.#left
  }

  readonly #onBytes = (bytes: Buffer) => {
    if (this.#left.length > 0) this.#left = Buffer.concat([this.#left, bytes])
    else this.#left = this.#stream.borrowed ? Buffer.from(bytes) : bytes
    if (this.#left.length < this.#wanted) return
    this.#stream.pause()
    this.#wake?.()
  }

  readonly #onEnd = (error: Error) => {
    this.#ended ??= error
    this.#wake?.()
  }

  readonly #onClose = () => this.#onEnd(new Error('the other side closed the connection'))
}

const IGNORE = () => {}
