import { assert } from '#base/assert.ts'
import { FRAME_LENGTH_MAX } from '#wire/link/frame.ts'
import { type Io, IO_ERRORS, type IoError } from '#agent/nbd/device.ts'
import { ioError } from '#agent/nbd/local-device.ts'
import type { WriterMember } from './writer-member.ts'

/* Writes and zeroes that may not be numbered yet, in the order in which they came.
 *
 *     a region is touched for the first time ──► its intent bit, one fdatasync for everything that waits
 *     a snapshot lives from what is overwritten ──► preserved first, durably
 *     clients are ahead of the replica, or stand still for a switch ──► until that is over
 *
 * Who waits makes everybody wait who comes later, so that requests are numbered in the order in which they came.
 */

export interface WaitingRequestsParts {
  /** Requests are taken, and there is room for more. */
  readonly open: () => boolean
  /** Volumes are served without a session: there is nobody to keep intent bits for. */
  readonly plain: () => boolean
  readonly isMember: (member: WriterMember) => boolean
  /** Numbers them and carries them out. */
  readonly number: (member: WriterMember, ios: readonly Io[], count: number) => void
  /** A preparation is over, and what could go on has. */
  readonly onPrepared: () => void
  readonly onLocalError: (member: number, error: unknown) => void
}

export class WaitingRequests {
  readonly #parts: WaitingRequestsParts
  readonly #waiting: { member: WriterMember; io: Io }[] = []
  /** Something is being made durable before the first request that waits may be numbered. */
  #preparing = false
  #failed = false

  constructor(parts: WaitingRequestsParts) {
    this.#parts = parts
  }

  get count(): number {
    return this.#waiting.length
  }

  get preparing(): boolean {
    return this.#preparing
  }

  /** The requests [start, end) of the batch, which belong together, may be numbered at once. */
  mayNumber(member: WriterMember, batch: readonly Io[], start: number, end: number): boolean {
    if (this.#waiting.length > 0 || !this.#parts.open()) return false
    for (let i = start; i < end; i++) {
      if (this.#preparation(member, batch[i] as Io) !== null) return false
    }
    return true
  }

  add(member: WriterMember, io: Io): void {
    this.#waiting.push({ member, io })
  }

  /** What must be durable before the request is carried out; null: nothing. */
  #preparation(member: WriterMember, io: Io): 'intent' | Promise<void> | null {
    const { offset, length } = io
    if (!this.#parts.plain() && !member.intent.touch(offset, length)) return 'intent'
    // The pieces of a long zero are asked about one by one.
    if (io.kind === 'zero' && length > FRAME_LENGTH_MAX) return null
    return member.volume.guard(offset, length)
  }

  /** Takes requests that had to wait, in order. */
  pump(): void {
    const { open, isMember, number } = this.#parts
    while (this.#waiting.length > 0) {
      if (this.#preparing || !open()) return
      const first = this.#waiting[0] as { member: WriterMember; io: Io }
      const { member } = first
      let end = 1
      while ((this.#waiting[end - 1] as { io: Io }).io.more) end++
      const group = this.#waiting.slice(0, end).map(({ io }) => io)
      if (!isMember(member)) {
        this.#waiting.splice(0, end)
        for (const io of group) io.complete(IO_ERRORS.ESHUTDOWN)
        continue
      }
      for (const io of group) {
        const preparation = this.#preparation(member, io)
        if (preparation === 'intent') return this.#setIntent()
        if (preparation !== null) return this.#preserve(preparation, member, end)
      }
      this.#waiting.splice(0, end)
      number(member, group, end)
    }
  }

  /** One fdatasync for everything that waits. */
  #setIntent(): void {
    const members = new Set<WriterMember>()
    for (const { member, io } of this.#waiting) {
      member.intent.set(io.offset, io.length)
      members.add(member)
    }
    const saved = Promise.all([...members].map((member) => member.intent.save()))
    this.prepare(saved, (error) => {
      this.#parts.onLocalError((this.#waiting[0]?.member.index ?? 0) as number, error)
      for (const { io } of this.#waiting.splice(0)) io.complete(IO_ERRORS.EIO)
    })
  }

  /** A snapshot preserves what the first `count` requests overwrite. The others that wait are announced, to share its sync. */
  #preserve(wait: Promise<void>, member: WriterMember, count: number): void {
    for (const other of this.#waiting.slice(1)) {
      if (other.io.kind === 'zero' && other.io.length > FRAME_LENGTH_MAX) continue
      other.member.volume.guard(other.io.offset, other.io.length)?.catch(ignoreEarlyAnswer)
    }
    this.prepare(wait, (error) => {
      const failure = ioError(error)
      for (const one of this.#waiting.splice(0, count)) {
        assert(one.member === member, 'what waits stays in order')
        one.io.complete(failure)
      }
    })
  }

  /** Nothing that waits is numbered before `work` is over. `failed` sees to those whom its failure concerns. */
  prepare(work: Promise<unknown>, failed: (error: unknown) => void): void {
    this.#preparing = true
    const go = () => {
      this.pump()
      this.#parts.onPrepared()
    }
    work.then(
      () => {
        this.#preparing = false
        go()
      },
      (error: unknown) => {
        this.#preparing = false
        if (!this.#failed) failed(error)
        go()
      },
    )
  }

  /** Nobody waits any longer: all of them get `error`. */
  fail(error: IoError): void {
    this.#failed = true
    for (const { io } of this.#waiting.splice(0)) io.complete(error)
  }
}

/** What was announced is asked again when its turn comes, and fails then. */
const ignoreEarlyAnswer = (): void => undefined
