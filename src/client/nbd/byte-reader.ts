import type { Duplex } from 'node:stream'
import { Fault } from '#base/fault.ts'
import { NBD_DISCONNECTED } from './faults.ts'

/** Reads exact amounts from a stream during a handshake, then hands the stream over with what is left. */
export class ByteReader {
  readonly #stream: Duplex
  #left = Buffer.alloc(0)
  #wanted = 0
  #wake: (() => void) | undefined
  #ended: Error | undefined

  constructor(stream: Duplex) {
    this.#stream = stream
    stream.on('data', this.#onData)
    stream.on('error', this.#onEnd)
    stream.on('close', this.#onClose)
  }

  /** Exactly `length` bytes; rejects when the stream ends first. One call at a time. */
  async take(length: number): Promise<Buffer> {
    while (this.#left.length < length) {
      if (this.#ended !== undefined) {
        throw new Fault(NBD_DISCONNECTED, 'waiting for the server', {}, this.#ended)
      }
      this.#wanted = length
      await new Promise<void>((resolve) => (this.#wake = resolve))
    }
    const bytes = this.#left.subarray(0, length)
    this.#left = this.#left.subarray(length)
    return bytes
  }

  /** Stops listening and returns what arrived but was not taken. The stream is paused. */
  detach(): Buffer {
    this.#stream.pause()
    this.#stream.off('data', this.#onData)
    this.#stream.off('error', this.#onEnd)
    this.#stream.off('close', this.#onClose)
    return this.#left
  }

  readonly #onData = (chunk: Buffer) => {
    this.#left = this.#left.length === 0 ? chunk : Buffer.concat([this.#left, chunk])
    if (this.#left.length >= this.#wanted) this.#wake?.()
  }

  readonly #onEnd = (error: Error) => {
    this.#ended ??= error
    this.#wake?.()
  }

  readonly #onClose = () => this.#onEnd(new Error('the server closed the connection'))
}
