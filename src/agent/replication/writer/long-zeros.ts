import { FRAME_LENGTH_MAX } from '#wire/link/frame.ts'
import type { Io, IoError } from '#agent/nbd/device.ts'
import type { WriterMember } from './writer-member.ts'

/* Zero requests longer than a frame: carried out in pieces with a number each, a few per turn, so that a trim of gigabytes does not
 * stand in the way of small writes. The last piece carries the answer. */

/** Pieces numbered per turn, at up to 0.7 ms each. */
const PIECES_PER_TURN = 4

interface LongZero {
  readonly member: WriterMember
  readonly io: Io
  offset: number
  left: number
}

/** wait: the piece cannot be numbered now; `resume` will be called. */
export type PieceOutcome = 'done' | 'wait'

export interface LongZerosParts {
  /** Numbers one piece; `io` when it is the last. `left`: bytes of the request from `offset` on. */
  readonly piece: (
    member: WriterMember,
    offset: number,
    length: number,
    left: number,
    io: Io | null,
    mayUnmap: boolean,
  ) => PieceOutcome
  /** Pieces may be numbered now. */
  readonly open: () => boolean
  /** Before the first and after the last piece of a turn. */
  readonly begin: () => void
  readonly end: () => void
}

export class LongZeros {
  readonly #parts: LongZerosParts
  #zeros: LongZero[] = []
  #planned = false

  constructor(parts: LongZerosParts) {
    this.#parts = parts
  }

  get count(): number {
    return this.#zeros.length
  }

  add(member: WriterMember, io: Io): void {
    this.#zeros.push({ member, io, offset: io.offset, left: io.length })
    this.resume()
  }

  /** Goes on in the next turn, if there is something to do and it may be done. */
  resume(): void {
    if (this.#planned || this.#zeros.length === 0 || !this.#parts.open()) return
    this.#planned = true
    setImmediate(() => {
      this.#planned = false
      this.#some()
    })
  }

  /** What has not been numbered is answered with `error`: all of it, or what is of `member`. */
  fail(error: IoError, member?: WriterMember): void {
    const failed = this.#zeros.filter((zero) => member === undefined || zero.member === member)
    this.#zeros = this.#zeros.filter((zero) => !failed.includes(zero))
    for (const { io } of failed) io.complete(error)
  }

  #some(): void {
    const zero = this.#zeros[0]
    const { open, begin, end, piece } = this.#parts
    if (zero === undefined || !open()) return
    const { member, io } = zero
    begin()
    let outcome: PieceOutcome = 'done'
    for (let n = 0; n < PIECES_PER_TURN && zero.left > 0 && outcome === 'done'; n++) {
      const length = Math.min(zero.left, FRAME_LENGTH_MAX)
      const last = zero.left === length
      outcome = piece(member, zero.offset, length, zero.left, last ? io : null, io.mayUnmap)
      if (outcome === 'wait') break
      zero.offset += length
      zero.left -= length
    }
    if (zero.left === 0) this.#zeros.shift()
    end()
    if (outcome === 'done') this.resume()
  }
}
