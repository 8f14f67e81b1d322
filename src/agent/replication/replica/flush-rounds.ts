import { STATUS, type Status } from '#wire/link/frame.ts'
import { type Io, IO_ERRORS, type IoError } from '#agent/nbd/device.ts'
import { ioError } from '#agent/nbd/local-device.ts'
import type { FlushRound, WriterMember } from '../writer/writer-member.ts'

/* Flushes of a writer: durable here and, unless this side answers alone, at the replica.
 *
 *     flush, FUA ──► round of the member ──► fdatasync here ─┬─► both done, its writes may be answered ──► answer
 *                        │                └► FLUSH there ────┘
 *     while it runs, newcomers share the member's next round
 *
 * A round begins at the end of the turn in which it was asked for, so that the writes of that turn are covered by one fdatasync. Of writes with
 * FUA it is known before they are carried out here that a flush follows: FLUSH leaves together with them, in one piece.
 */

export interface FlushRoundsParts {
  /** Puts FLUSH on the link, behind everything numbered before it, and returns its id; 0: not now. */
  readonly askReplica: (member: WriterMember) => number
  /** The last number that was given to a write. */
  readonly numbered: () => number
  /** Whether an answer needs the replica. */
  readonly needsReplica: () => boolean
  readonly onLocalError: (member: number, error: unknown) => void
  /** A round may be over. */
  readonly onChange: () => void
}

export class FlushRounds {
  readonly #parts: FlushRoundsParts
  readonly #rounds: FlushRound[] = []
  #failed = false

  constructor(parts: FlushRoundsParts) {
    this.#parts = parts
  }

  /** Rounds that are not over. */
  get count(): number {
    return this.#rounds.length
  }

  /** Takes part in the member's next flush. `io`: answered with it, if writes up to `seq` may be answered as well. */
  join(member: WriterMember, io: Io | null, seq: number): FlushRound {
    const { running } = member
    let round: FlushRound
    if (running === null) round = this.#newRound(member)
    else if (this.#coversAll(running)) round = running
    else round = member.next ??= emptyRound(member)
    if (io !== null) round.ios.push(io)
    if (seq > round.seq) round.seq = seq
    return round
  }

  /** All that has been numbered and carried out by now will be durable with it, on both sides. */
  #coversAll({ begun, id, askedAt }: FlushRound): boolean {
    return !begun && (id === 0 || askedAt === this.#parts.numbered())
  }

  /** Writes with FUA have just been given to the link, and join in this turn: FLUSH goes right behind them. */
  askAhead(member: WriterMember): void {
    if (this.#failed || member.running !== null || !this.#parts.needsReplica()) return
    this.#ask(this.#newRound(member))
  }

  /** The link that rounds were sent on is gone. */
  linkChanged(): void {
    for (const round of this.#rounds) round.id = 0
  }

  /** Answers need the replica from now on: rounds that were begun without it are taken there. */
  requirePeer(): void {
    for (const round of this.#rounds) {
      if (!round.peerDone && round.id === 0) this.#ask(round)
    }
  }

  /** Nobody waits any longer: what waits gets `error`. */
  fail(error: IoError): void {
    this.#failed = true
    for (const round of this.#rounds.splice(0)) {
      round.member.running = null
      const { next } = round.member
      round.member.next = null
      for (const io of round.ios) io.complete(error)
      for (const io of next?.ios ?? []) io.complete(error)
      for (const wake of [...round.waiters, ...(next?.waiters ?? [])]) wake(error)
    }
  }

  /** The replica's answer. */
  flushed(id: number, status: Status): void {
    const round = this.#rounds.find((one) => one.id === id)
    if (round === undefined) return
    round.peerDone = true
    if (status !== STATUS.OK) round.error = IO_ERRORS.EIO
    this.#parts.onChange()
  }

  /** Answers the rounds that are over; writes up to `upTo` may be answered. */
  end(upTo: number): void {
    for (let i = 0; i < this.#rounds.length; ) {
      const round = this.#rounds[i] as FlushRound
      const peer = round.peerDone || !this.#parts.needsReplica()
      if (!round.localDone || !peer || round.seq > upTo) {
        i++
        continue
      }
      this.#rounds.splice(i, 1)
      const { member } = round
      const { next } = member
      member.running = next
      member.next = null
      if (next !== null) {
        this.#rounds.push(next)
        this.#begin(next)
      }
      // The disk may have failed since, and the replica is not asked any more.
      const lost = !round.peerDone && member.volume.failed !== undefined
      const error = lost && round.error === 0 ? IO_ERRORS.EIO : round.error
      for (const io of round.ios) io.complete(error)
      for (const wake of round.waiters) wake(error)
    }
  }

  #newRound(member: WriterMember): FlushRound {
    const round = emptyRound(member)
    member.running = round
    this.#rounds.push(round)
    queueMicrotask(() => this.#begin(round))
    return round
  }

  #ask(round: FlushRound): void {
    round.askedAt = this.#parts.numbered()
    round.id = this.#parts.askReplica(round.member)
  }

  #begin(round: FlushRound): void {
    if (this.#failed) return
    const { member } = round
    const { needsReplica, onLocalError, onChange } = this.#parts
    if (needsReplica() && round.id === 0) this.#ask(round)
    round.begun = true
    const ended = (error: IoError) => {
      round.localDone = true
      if (error !== 0) round.error = error
      onChange()
    }
    member.volume.flush().then(
      () => ended(0),
      (error: unknown) => {
        onLocalError(member.index, error)
        ended(ioError(error))
      },
    )
  }
}

const emptyRound = (member: WriterMember): FlushRound => ({
  member,
  ios: [],
  waiters: [],
  seq: 0,
  localDone: false,
  peerDone: false,
  id: 0,
  askedAt: 0,
  begun: false,
  error: 0,
})
