import { type Io, IO_ERRORS, type IoError } from '#agent/nbd/device.ts'
import type { WriterMember } from './writer-member.ts'

/* Reads that were carried out and wait for their answer.
 *
 * What a read returns may be answered only when the replica holds it too: a client must never see a value that a failover could
 * take back. So a read waits for the unacknowledged writes that overlap it, and for the right to answer at all. */

export class HeldReads {
  readonly #reads: { readonly member: WriterMember; readonly io: Io; readonly seq: number }[] = []

  get count(): number {
    return this.#reads.length
  }

  hold(member: WriterMember, io: Io, seq: number): void {
    this.#reads.push({ member, io, seq })
  }

  /** Writes up to `upTo` may be answered; those that are lost show up in nobody's read. */
  answer(upTo: number, isLost: (member: WriterMember, seq: number) => boolean): void {
    let kept = 0
    for (const read of this.#reads) {
      const { member, io, seq } = read
      if (seq <= upTo) io.complete(isLost(member, seq) ? IO_ERRORS.EIO : 0)
      else this.#reads[kept++] = read
    }
    this.#reads.length = kept
  }

  fail(error: IoError): void {
    for (const { io } of this.#reads.splice(0)) io.complete(error)
  }
}
