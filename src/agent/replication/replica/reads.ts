import type { Clock } from '#base/clock.ts'
import { type Io, IO_ERRORS, type IoError } from '#agent/nbd/device.ts'
import { ioError } from '#agent/nbd/local-device.ts'
import type { Slab } from '#agent/nbd/slab.ts'
import type { AckGate } from '../session/ack-gate.ts'
import type { WriteRing } from '../writer/write-ring.ts'
import type { WriterMember } from '../writer/writer-member.ts'

/* Reads of a session's volumes, and questions for their extents.
 *
 * What a read returns may be answered only when the replica holds it too: a client must never see a value that a failover could
 * take back. So a read that was carried out waits for the unacknowledged writes that overlap it, and for the right to answer at all. */

export interface ReadsParts {
  readonly ring: WriteRing
  readonly gate: AckGate
  readonly clock: Clock
  /** Answers need nobody. */
  readonly plain: () => boolean
  /** Write `seq` of the member is nowhere any more. */
  readonly isLost: (member: WriterMember, seq: number) => boolean
}

/** Most extents told in one reply; clients ask again for the rest. */
const EXTENTS_COUNT_MAX = 4096

export class Reads {
  readonly #parts: ReadsParts
  readonly #held: { readonly member: WriterMember; readonly io: Io; readonly seq: number }[] = []
  #failed = false

  constructor(parts: ReadsParts) {
    this.#parts = parts
  }

  /** Reads that wait for their answer. */
  get count(): number {
    return this.#held.length
  }

  read(member: WriterMember, io: Io): void {
    const slab = io.slab as Slab
    try {
      if (member.volume.readCached(slab.bytes, io.at, io.length, io.offset)) {
        return this.#done(member, io, 0)
      }
    } catch (error) {
      return io.complete(ioError(error))
    }
    member.volume.readThen(slab.bytes, io.at, io.length, io.offset, (error) =>
      this.#done(member, io, error === null ? 0 : ioError(error)),
    )
  }

  extents(member: WriterMember, io: Io): void {
    member.volume.extents(io.offset, io.length, EXTENTS_COUNT_MAX).then(
      (extents) => {
        io.extents = extents
        this.#done(member, io, 0)
      },
      (error: unknown) => this.#done(member, io, ioError(error)),
    )
  }

  #done(member: WriterMember, io: Io, error: IoError): void {
    if (this.#failed) return io.complete(IO_ERRORS.ESHUTDOWN)
    const { ring, gate, clock, plain } = this.#parts
    if (error !== 0 || plain()) return io.complete(error)
    const seq = gate.needsReplica
      ? ring.lastOverlapping(member, io.offset, io.length, gate.acknowledged)
      : 0
    if (gate.releasableUpTo(clock.bootMs()) >= seq) return io.complete(0)
    this.#held.push({ member, io, seq })
  }

  /** Writes up to `upTo` may be answered; those that are lost show up in nobody's read. */
  answer(upTo: number): void {
    let kept = 0
    for (const read of this.#held) {
      const { member, io, seq } = read
      if (seq <= upTo) io.complete(this.#parts.isLost(member, seq) ? IO_ERRORS.EIO : 0)
      else this.#held[kept++] = read
    }
    this.#held.length = kept
  }

  /** Nobody waits any longer: what was carried out, and what comes, gets an error. */
  fail(error: IoError): void {
    this.#failed = true
    for (const { io } of this.#held.splice(0)) io.complete(error)
  }
}
