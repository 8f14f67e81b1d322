import type { Io, IoError } from '#agent/nbd/device.ts'

/* Reads that were carried out and wait for their answer.
 *
 * What a read returns may be answered only when the replica holds it too: a client must never see a value that a failover could
 * take back. So a read waits for the unacknowledged writes that overlap it, and for the right to answer at all. */

export class HeldReads {
  readonly #reads: { readonly io: Io; readonly seq: number }[] = []

  get count(): number {
    return this.#reads.length
  }

  hold(io: Io, seq: number): void {
    this.#reads.push({ io, seq })
  }

  /** Writes up to `upTo` may be answered. */
  answer(upTo: number): void {
    let kept = 0
    for (const read of this.#reads) {
      if (read.seq <= upTo) read.io.complete(0)
      else this.#reads[kept++] = read
    }
    this.#reads.length = kept
  }

  fail(error: IoError): void {
    for (const { io } of this.#reads.splice(0)) io.complete(error)
  }
}
