import type { AckGate } from '../session/ack-gate.ts'
import { FrameLog } from './frame-log.ts'
import type { Entry, WriteRing } from './write-ring.ts'
import type { WriterMember } from './writer-member.ts'

/* What of the numbered writes is kept for a replica that lacks it, and what is left to a copy.
 *
 *     in sync             the entry stays, unanswered, to be sent again
 *     alone, frame log    it is answered and goes into the frame log (frame-log.ts), to be sent in order later
 *     alone, no log       it is answered and forgotten; the copy sees to it
 *
 * The change map names every block that this side changed while the replica did not take part: a write is marked before it is carried
 * out when this side answers alone or has no link, and what the link had not acknowledged is marked when it is lost.
 */

export interface RetainedFramesParts {
  readonly ring: WriteRing
  readonly gate: AckGate
  readonly logBytes: number
  readonly linked: () => boolean
  /** Answers need nobody, and there is nothing to keep. */
  readonly plain: () => boolean
  readonly isMember: (member: WriterMember) => boolean
  /** The frame log grew too long and is gone. */
  readonly onLogDropped: () => void
}

export class RetainedFrames {
  readonly #parts: RetainedFramesParts
  readonly #ring: WriteRing
  readonly #gate: AckGate
  readonly #log: FrameLog
  /** Number of the last entry that was forgotten, which nobody can send any more. */
  #forgottenSeq = 0
  /** Both sides were equal but for what this process numbered. It cannot be said of what an earlier process did: of its last writes
   *  any may have reached the one side and not the other. */
  #inStep = false

  constructor(parts: RetainedFramesParts) {
    this.#parts = parts
    this.#ring = parts.ring
    this.#gate = parts.gate
    this.#log = new FrameLog(parts.logBytes)
  }

  /** Frames that are answered are kept in the log. */
  get logs(): boolean {
    return this.#log.on
  }

  get logBytes(): number {
    return this.#log.bytes
  }

  get logBytesMax(): number {
    return this.#log.limitBytes
  }

  /** Every frame numbered behind it is still here; null: no log is kept, or what went before is not known exactly. */
  get logFrom(): number | null {
    if (!this.#log.on || !this.#inStep) return null
    return Math.max(this.#gate.acknowledged, this.#forgottenSeq)
  }

  inStep(): void {
    this.#inStep = true
  }

  /** Every frame behind `after` is here. */
  reachesBackTo(after: number): boolean {
    const ring = this.#ring
    const first = ring.after(after)
    if (first === ring.tail) return this.#gate.sequence <= after
    if (ring.at(first).seq !== after + 1) return false
    for (let i = first; i < ring.tail; i++) if (ring.at(i).forgotten) return false
    return true
  }

  /** Payload of clients' writes that the replica has not acknowledged, bytes. */
  unacknowledgedBytes(): number {
    const ring = this.#ring
    let bytes = 0
    for (let i = ring.after(this.#gate.acknowledged); i < ring.tail; i++) {
      const { isCopy, length } = ring.at(i)
      if (!isCopy) bytes += length
    }
    return bytes
  }

  // -- the change map -------------------------------------------------------------------------------------------------

  markChanged(member: WriterMember | null, offset: number, length: number): void {
    const { plain, isMember } = this.#parts
    // The map of a member that was removed is closed.
    if (member === null || plain() || !isMember(member)) return
    member.changes.mark(offset, length)
  }

  /** What the replica lacks of the frames that are here is named by the change map, whatever happens to them. */
  mark(): void {
    const ring = this.#ring
    const { acknowledged } = this.#gate
    for (let i = ring.head; i < ring.tail; i++) {
      const { seq, forgotten, isCopy, member, offset, length } = ring.at(i)
      if (!forgotten && !isCopy && seq > acknowledged) this.markChanged(member, offset, length)
    }
  }

  leaveToCopy({ member, offset, length }: Entry): void {
    this.markChanged(member, offset, length)
    member?.todo.sendRange(offset, length)
  }

  // -- forgetting -----------------------------------------------------------------------------------------------------

  /** A new entry that nobody will ask for: the copy that follows the next link takes it along. */
  forgetNew(entry: Entry): void {
    this.#forget(entry)
    entry.member?.todo.sendRange(entry.offset, entry.length)
  }

  #forget(entry: Entry): void {
    entry.forgotten = true
    this.#forgottenSeq = entry.seq
  }

  /** The link no longer wants what it has not acknowledged; with `mark`, the copy will see to it. */
  forgetAll(mark: boolean): void {
    const ring = this.#ring
    for (let i = ring.head; i < ring.tail; i++) {
      const entry = ring.at(i)
      if (mark && !entry.forgotten) this.leaveToCopy(entry)
      this.#forget(entry)
    }
    this.trim()
  }

  /** Answered frames are gone for the link; those that are not answered yet stay until they are. */
  #forgetAnswered(): void {
    const ring = this.#ring
    for (let i = ring.head; i < ring.answered; i++) {
      const entry = ring.at(i)
      if (entry.seq > this.#gate.acknowledged) this.#forget(entry)
    }
  }

  /** Lets go of entries that are answered and that the link does not need. */
  trim(): void {
    const ring = this.#ring
    const { acknowledged } = this.#gate
    const plain = this.#parts.plain()
    while (ring.head < ring.answered) {
      const entry = ring.at(ring.head)
      if (!entry.forgotten && !plain && entry.seq > acknowledged) break
      if (entry.loggedBytes > 0) this.#log.leave(entry)
      ring.drop()
    }
  }

  // -- the frame log --------------------------------------------------------------------------------------------------

  /** Answered frames are kept until they are acknowledged, within the log's limit; or not any more. */
  log(on: boolean): void {
    const linked = this.#parts.linked()
    if (on) {
      this.#log.start()
      this.mark()
      if (!linked) this.#logAnswered()
      return
    }
    if (!this.#log.on) return
    this.#log.stop()
    // What is on its way will be acknowledged, or the link ends.
    if (!linked) this.#forgetAnswered()
    this.trim()
  }

  /** No frame is kept in the log any more; what is in it is let go of elsewhere. */
  stopLog(): void {
    this.#log.stop()
  }

  linkLost(): void {
    this.mark()
    if (this.#log.on) this.#logAnswered()
  }

  /** The entry was answered. */
  answered(entry: Entry): void {
    if (this.#log.on && !entry.forgotten && !this.#parts.linked()) this.#log.keep(entry)
  }

  /** What was answered and not acknowledged goes into the log. */
  #logAnswered(): void {
    const ring = this.#ring
    for (let i = ring.head; i < ring.answered; i++) this.answered(ring.at(i))
    this.keepWithinLimit()
  }

  keepWithinLimit(): void {
    if (!this.#log.tooLong || this.#parts.linked()) return
    // Every frame in it is marked in the change map already.
    this.#log.stop()
    this.forgetAll(true)
    this.#parts.onLogDropped()
  }
}
