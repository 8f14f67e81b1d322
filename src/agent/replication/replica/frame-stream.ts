import type { Sender } from '../writer/sender.ts'
import type { WriteRing } from '../writer/write-ring.ts'

/* The numbered writes on their way to the replica.
 *
 *     head ... sent ... tail           [sent, tail) has not been given to the link yet: a replica that catches up gets it as fast as it
 *                                      takes it, and a new write goes behind it
 */

/** Bytes of a log given to the socket ahead of what the kernel takes. */
const LINK_BACKLOG_BYTES = 1024 * 1024
/** Bytes of a log given to the socket in one go. */
const LOG_STEP_BYTES = 256 * 1024

export class FrameStream {
  readonly #ring: WriteRing
  #sender: Sender | null = null
  /** Position in the ring of the first entry that the link has not got; those before the ring's head are gone. */
  #sentTo = 0
  #flushId = 0

  constructor(ring: WriteRing) {
    this.#ring = ring
  }

  get linked(): boolean {
    return this.#sender !== null
  }

  /** Frames go out on `sender` from now on, new ones only; null: nowhere. */
  begin(sender: Sender | null): void {
    this.#sender = sender
    this.#sentTo = this.#ring.tail
  }

  get #sent(): number {
    return Math.max(this.#sentTo, this.#ring.head)
  }

  /** What is numbered behind `after` goes out once more, with `sendAll` or `sendMore`. */
  goBackTo(after: number): void {
    this.#sentTo = this.#ring.after(after)
  }

  /** What `work` gives to the link leaves in one piece. */
  together(work: () => void): void {
    const sender = this.#sender
    sender?.cork()
    try {
      work()
    } finally {
      sender?.uncork()
    }
  }

  /** The entries from position `first` on are new. */
  sendNew(first: number): void {
    if (this.#sender === null) return
    if (this.#sent === first) this.sendAll()
    else this.sendMore()
  }

  /** Everything numbered so far is given to the link. What is sent afterwards comes behind it. */
  sendAll(): void {
    const sender = this.#sender
    if (sender === null || this.#sent === this.#ring.tail) return
    this.#sendRange(sender, this.#sent, this.#ring.tail)
    this.#sentTo = this.#ring.tail
  }

  /** As much of what the link has not got as it takes now. Goes on with the next acknowledgement. */
  sendMore(): void {
    const sender = this.#sender
    const ring = this.#ring
    while (sender !== null && this.#sent < ring.tail && sender.backlogBytes < LINK_BACKLOG_BYTES) {
      const first = this.#sent
      let end = first
      for (let bytes = 0; end < ring.tail && bytes < LOG_STEP_BYTES; end++) {
        bytes += ring.at(end).length
      }
      this.#sendRange(sender, first, end)
      this.#sentTo = end
    }
  }

  /** One socket write for all entries that lie back to back in memory. */
  #sendRange(sender: Sender, first: number, end: number): void {
    const ring = this.#ring
    // A single one is not delayed by what it takes to collect several.
    const several = end - first > 1
    if (several) sender.cork()
    for (let i = first; i < end; ) {
      const entry = ring.at(i)
      const { bytes, start } = entry
      let { end: stop } = entry
      i++
      if (entry.forgotten) continue
      while (i < end) {
        const next = ring.at(i)
        if (next.bytes !== bytes || next.start !== stop || next.forgotten) break
        stop = next.end
        i++
      }
      sender.write(bytes.subarray(start, stop))
    }
    if (several) sender.uncork()
  }

  /** The last entry is one of a copy: if the link has everything before it, it goes out at once. */
  sendCopy(bytes: Buffer): void {
    if (this.#sender === null || this.#sent !== this.#ring.tail - 1) return
    this.#sender.write(bytes)
    this.#sentTo = this.#ring.tail
  }

  /** Puts FLUSH behind everything numbered before it, and returns its id; 0: there is no link. */
  flush(member: number): number {
    if (this.#sender === null) return 0
    this.sendAll()
    this.#sender.flush(member, ++this.#flushId)
    return this.#flushId
  }
}
