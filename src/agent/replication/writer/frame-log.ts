import { FRAME_BYTES, FRAME_LENGTH_MAX } from '#wire/link/frame.ts'
import { type Slab, SlabPool } from '#agent/nbd/slab.ts'
import type { Entry } from './write-ring.ts'

/* The frame log: frames that were answered alone and that the replica lacks, kept so that it can catch up in order.
 *
 *     in the ring ──► answered ──► keep: copied behind the last one, receive memory given back ──► acknowledged: let go
 *                                     │ more than limitBytes
 *                                     └► everything is dropped: from now on only the change map knows
 *
 * The frames stay in the writer's ring; this is their memory. They are copied because the memory they arrived in is given back only as
 * a whole: one small write among many reads would keep 8 MiB alive, and the log's limit would say nothing about the memory it takes.
 * While this side answers alone nothing has to be sent, so there is time for it.
 *
 * It does not survive the process, and need not: every frame in it is marked in the change map.
 */

/** Unit of memory; several of the longest frames. */
const CHUNK_BYTES = 4 * (FRAME_LENGTH_MAX + FRAME_BYTES)
/** What an entry takes besides its bytes. */
const ENTRY_BYTES = 200

export class FrameLog {
  readonly #limitBytes: number
  #pool: SlabPool | null = null
  #chunk: Slab | null = null
  #used = 0
  #bytes = 0

  /** `limitBytes`: frames and what it takes to manage them. */
  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes
  }

  /** Frames are to be kept. */
  get on(): boolean {
    return this.#pool !== null
  }

  get bytes(): number {
    return this.#bytes
  }

  get limitBytes(): number {
    return this.#limitBytes
  }

  /** The log has grown too long. */
  get tooLong(): boolean {
    return this.#bytes > this.#limitBytes
  }

  start(): void {
    this.#pool ??= new SlabPool({ slabBytes: CHUNK_BYTES, idleCountMax: 2 })
  }

  /** Nothing more is kept. What is kept is let go by its owner. */
  stop(): void {
    this.#chunk?.release()
    this.#chunk = null
    this.#pool = null
  }

  /** Takes the frame of an answered entry into the log's own memory. */
  keep(entry: Entry): void {
    if (this.#pool === null || entry.loggedBytes > 0) return
    const length = entry.end - entry.start
    entry.loggedBytes = length + ENTRY_BYTES
    this.#bytes += entry.loggedBytes
    if (entry.slab === null) return
    let chunk = this.#chunk
    if (chunk === null || this.#used + length > CHUNK_BYTES) {
      chunk?.release()
      chunk = this.#pool.take()
      this.#chunk = chunk
      this.#used = 0
    }
    entry.bytes.copy(chunk.bytes, this.#used, entry.start, entry.end)
    chunk.retain()
    entry.slab.release()
    entry.slab = chunk
    entry.bytes = chunk.bytes
    entry.start = this.#used
    this.#used += length
    entry.end = this.#used
  }

  /** The entry is about to be let go of. */
  leave(entry: Entry): void {
    this.#bytes -= entry.loggedBytes
    entry.loggedBytes = 0
  }
}
