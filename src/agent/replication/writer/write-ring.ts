import type { Io, IoError } from '#agent/nbd/device.ts'
import type { Slab } from '#agent/nbd/slab.ts'
import type { WriterMember } from './writer-member.ts'

/* The numbered writes of a session that somebody still needs, in the order of their numbers.
 *
 *     head ... answered ... tail          [head, answered) is kept for the link only; [answered, tail) is not answered yet
 *
 * Positions only grow; an entry's place is its position modulo the ring's length. Entries are reused, so nothing is allocated
 * per write.
 */

const NOTHING = Buffer.alloc(0)

export class Entry {
  seq = 0
  /** Answered when this entry may be; null for copies, parts of a zero, and writes whose answer waits for a flush. */
  io: Io | null = null
  /** Where the frame's bytes lie, if that memory is used again after a release; null: the garbage collector sees to them. */
  slab: Slab | null = null
  /** The frame, header first: bytes[start, end). */
  bytes: Buffer = NOTHING
  start = 0
  end = 0
  member: WriterMember | null = null
  offset = 0
  length = 0
  error: IoError = 0
  /** The link will not ask for it. */
  forgotten = false
  isCopy = false
  isZero = false
  /** What it costs the frame log to keep it; 0: it is not in there. */
  loggedBytes = 0
}

export class WriteRing {
  #entries: Entry[] = Array.from({ length: 1024 }, () => new Entry())
  head = 0
  answered = 0
  tail = 0
  /** Payload between head and tail, bytes. */
  bytes = 0
  /** Payload between head and answered, bytes. */
  answeredBytes = 0

  at(position: number): Entry {
    return this.#entries[position & (this.#entries.length - 1)] as Entry
  }

  /** The next entry, as if it were new but for `bytes`, `start` and `end`. */
  push(seq: number, member: WriterMember, offset: number, length: number): Entry {
    if (this.tail - this.head === this.#entries.length) this.#grow()
    const entry = this.at(this.tail++)
    entry.seq = seq
    entry.io = null
    entry.slab = null
    entry.member = member
    entry.offset = offset
    entry.length = length
    entry.error = 0
    entry.isCopy = false
    entry.isZero = false
    entry.forgotten = false
    this.bytes += length
    return entry
  }

  /** The first entry that is not answered counts as answered. */
  answer(): Entry {
    const entry = this.at(this.answered++)
    this.answeredBytes += entry.length
    return entry
  }

  /** Lets go of the first entry, which is answered. */
  drop(): void {
    const entry = this.at(this.head++)
    this.bytes -= entry.length
    this.answeredBytes -= entry.length
    entry.slab?.release()
    entry.slab = null
    entry.member = null
    entry.bytes = NOTHING
    entry.loggedBytes = 0
  }

  /** Position of the first entry with a number above `seq`; the tail when there is none. */
  after(seq: number): number {
    let low = this.head
    let high = this.tail
    while (low < high) {
      const middle = low + Math.floor((high - low) / 2)
      if (this.at(middle).seq > seq) high = middle
      else low = middle + 1
    }
    return low
  }

  /** Number of the last unacknowledged write of a client that overlaps the range; 0 when there is none. */
  lastOverlapping(
    member: WriterMember,
    offset: number,
    length: number,
    acknowledged: number,
  ): number {
    for (let i = this.tail - 1; i >= this.head; i--) {
      const entry = this.at(i)
      if (entry.seq <= acknowledged) return 0
      if (entry.isCopy || entry.member !== member) continue
      if (offset < entry.offset + entry.length && entry.offset < offset + length) return entry.seq
    }
    return 0
  }

  #grow(): void {
    const old = this.#entries
    const size = old.length * 2
    const entries = Array.from<Entry>({ length: size })
    for (let i = this.head; i < this.head + size; i++) {
      entries[i & (size - 1)] = i < this.tail ? (old[i & (old.length - 1)] as Entry) : new Entry()
    }
    this.#entries = entries
  }
}
