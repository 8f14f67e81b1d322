import { assert } from '#base/assert.ts'
import { ACK, FIN, PSH, RST, type Segment, SEGMENT_BYTES_MAX, SYN } from './tcp.ts'

/* One question over TCP: connect, say at most one segment, take the answer until the other side ends it. Decides; sends nothing and has no
 * clock: segments and the time come in, segments and in the end an outcome go out.
 *
 *     connecting ── SYN/ACK ──► open ── peer's FIN, or nothing to ask ──► ending ── both FINs acknowledged ──► over
 *         │                      │
 *         └─ RST: refused        └─ RST: reset            every state: the time is over: RST, over
 *
 * The outcome is there before the end: saying goodbye is politeness, and the asker need not wait for it. What was sent and not
 * acknowledged is sent again, with doubled pauses. What comes out of order is not kept: the peer sends it again after our repeated
 * acknowledgement. That costs time only where frames are lost, which is where a queue of the switch is full.
 */

/** More is no question but a transfer. */
export const QUESTION_BYTES_MAX = SEGMENT_BYTES_MAX
/** First pause before something is sent again; the network is one host. */
const AGAIN_MS_MIN = 300
const AGAIN_MS_MAX = 3_000
/** How long a goodbye is tried. */
const ENDING_MS = 3_000
const WINDOW_MAX = 65_535

export interface Question {
  readonly sourcePort: number
  readonly destinationPort: number
  /** First sequence number, unpredictable. */
  readonly sequence: number
  /** At most QUESTION_BYTES_MAX. Empty: only whether the connection is accepted. */
  readonly send: Buffer
  /** Of the answer; the rest is not waited for. */
  readonly answerBytesMax: number
  /** When the answer must be there, by the clock of the caller. */
  readonly endMs: number
}

/**
 * accepted  connected, and nothing was to be asked    answered  the peer ended its answer, or it is as long as is wanted
 * refused   nobody listens                            reset     the connection broke
 * silent    no answer to the connection request       late      connected, and the answer did not end in time
 */
export interface Outcome {
  readonly kind: 'accepted' | 'answered' | 'refused' | 'reset' | 'silent' | 'late'
  readonly answer: Buffer
}

type State = 'connecting' | 'open' | 'ending' | 'over'

export class TcpClient {
  readonly #question: Question
  #state: State = 'connecting'
  #outcome: Outcome | undefined
  /** Lowest number that is not acknowledged, and the next one to be given out. */
  #unacknowledged: number
  #next: number
  #expected = 0
  readonly #answer: Buffer[] = []
  #answerBytes = 0
  #finSent = false
  #finReceived = false
  #againMs: number
  #pauseMs = AGAIN_MS_MIN
  #endMs: number
  #out: Segment[] = []

  constructor(question: Question, nowMs: number) {
    assert(question.send.length <= QUESTION_BYTES_MAX, 'a question is one segment')
    this.#question = question
    this.#unacknowledged = question.sequence
    this.#next = plus(question.sequence, 1)
    this.#endMs = question.endMs
    this.#againMs = nowMs + AGAIN_MS_MIN
    this.#say(SYN, question.sequence)
  }

  /** undefined: not known yet. */
  get outcome(): Outcome | undefined {
    return this.#outcome
  }

  get over(): boolean {
    return this.#state === 'over'
  }

  /** When `tick` has something to do next. */
  get nextMs(): number {
    return Math.min(this.#endMs, this.#unanswered ? this.#againMs : this.#endMs)
  }

  /** What is to be sent now, once. */
  take(): readonly Segment[] {
    const out = this.#out
    this.#out = []
    return out
  }

  tick(nowMs: number): void {
    if (this.#state === 'over') return
    if (nowMs >= this.#endMs) {
      const connected = this.#state !== 'connecting'
      this.#settle(connected ? 'late' : 'silent')
      if (connected) this.#say(RST | ACK, this.#next)
      this.#state = 'over'
    } else if (this.#unanswered && nowMs >= this.#againMs) {
      this.#pauseMs = Math.min(this.#pauseMs * 2, AGAIN_MS_MAX)
      this.#againMs = nowMs + this.#pauseMs
      this.#sayAgain()
    }
  }

  /** A segment of this connection arrived. */
  receive(segment: Segment, nowMs: number): void {
    if (this.#state === 'over') return
    if (this.#state === 'connecting') return this.#connecting(segment, nowMs)
    // Far from what is expected: of an earlier connection, or made up.
    const ahead = distance(segment.sequence, this.#expected)
    if (ahead > WINDOW_MAX || ahead < -WINDOW_MAX) return
    if ((segment.flags & RST) !== 0) {
      // Only the exact number counts, so that nobody ends what it cannot see.
      if (ahead !== 0) return
      this.#settle('reset')
      this.#state = 'over'
      return
    }
    if ((segment.flags & SYN) !== 0) return this.#acknowledge() // our acknowledgement was lost
    if ((segment.flags & ACK) !== 0) this.#acknowledged(segment.acknowledgment, nowMs)
    this.#data(segment, ahead, nowMs)
    if (this.#finSent && this.#finReceived && !this.#unanswered) this.#state = 'over'
  }

  #connecting(segment: Segment, nowMs: number): void {
    const { flags, acknowledgment } = segment
    if ((flags & ACK) === 0 || acknowledgment !== this.#next) return
    if ((flags & RST) !== 0) {
      this.#settle('refused')
      this.#state = 'over'
      return
    }
    if ((flags & SYN) === 0) return
    this.#state = 'open'
    this.#unacknowledged = acknowledgment
    this.#expected = plus(segment.sequence, 1)
    const { send } = this.#question
    if (send.length === 0) {
      this.#settle('accepted')
      this.#end(nowMs)
      return
    }
    this.#next = plus(this.#next, send.length)
    this.#again(nowMs)
    this.#say(PSH | ACK, this.#unacknowledged, send)
  }

  #acknowledged(acknowledgment: number, nowMs: number): void {
    const news = distance(acknowledgment, this.#unacknowledged) > 0
    const known = distance(acknowledgment, this.#next) <= 0
    if (!news || !known) return
    this.#unacknowledged = acknowledgment
    this.#again(nowMs)
  }

  /** `ahead`: how far the segment begins after what is expected. */
  #data(segment: Segment, ahead: number, nowMs: number): void {
    const { payload } = segment
    const fin = (segment.flags & FIN) !== 0
    if (payload.length === 0 && !fin) return
    // Later than what is missing, or all known: the peer is told what is expected.
    if (ahead > 0 || -ahead > payload.length || (-ahead === payload.length && !fin)) {
      return this.#acknowledge()
    }
    const fresh = payload.subarray(-ahead, -ahead + this.#room)
    const cut = fresh.length < payload.length + ahead
    this.#expected = plus(this.#expected, fresh.length)
    if (this.#outcome === undefined) {
      this.#answer.push(Buffer.from(fresh))
      this.#answerBytes += fresh.length
    }
    if (this.#outcome === undefined && this.#answerBytes >= this.#question.answerBytesMax) {
      this.#settle('answered')
      this.#say(RST | ACK, this.#next)
      this.#state = 'over'
      return
    }
    if (!fin || cut) return this.#acknowledge()
    this.#expected = plus(this.#expected, 1)
    this.#finReceived = true
    this.#settle('answered')
    if (this.#finSent) this.#acknowledge()
    else this.#end(nowMs)
  }

  get #room(): number {
    // Of what comes after the outcome nothing is kept, but the peer may send it to its end.
    if (this.#outcome !== undefined) return WINDOW_MAX
    return Math.min(WINDOW_MAX, this.#question.answerBytesMax - this.#answerBytes)
  }

  get #unanswered(): boolean {
    return this.#unacknowledged !== this.#next
  }

  /** Our side says that it is done. */
  #end(nowMs: number): void {
    this.#state = 'ending'
    this.#finSent = true
    this.#endMs = nowMs + ENDING_MS
    this.#say(FIN | ACK, this.#next)
    this.#next = plus(this.#next, 1)
    this.#again(nowMs)
  }

  #again(nowMs: number): void {
    this.#pauseMs = AGAIN_MS_MIN
    this.#againMs = nowMs + this.#pauseMs
  }

  #sayAgain(): void {
    const from = this.#unacknowledged
    if (this.#state === 'connecting') return this.#say(SYN, from)
    const said = distance(from, plus(this.#question.sequence, 1))
    const rest = this.#question.send.subarray(said)
    if (rest.length > 0) this.#say(PSH | ACK, from, rest)
    if (this.#finSent) this.#say(FIN | ACK, plus(this.#next, -1))
  }

  #acknowledge(): void {
    this.#say(ACK, this.#next)
  }

  #say(flags: number, sequence: number, payload: Buffer = Buffer.alloc(0)): void {
    const { sourcePort, destinationPort } = this.#question
    const acknowledgment = this.#state === 'connecting' ? 0 : this.#expected
    const window = Math.max(0, this.#room)
    this.#out.push({
      sourcePort,
      destinationPort,
      sequence,
      acknowledgment,
      flags,
      window,
      payload,
    })
  }

  #settle(kind: Outcome['kind']): void {
    this.#outcome ??= { kind, answer: Buffer.concat(this.#answer) }
  }
}

const plus = (a: number, b: number): number => (a + b) >>> 0
/** How far `a` lies after `b`, on the circle of sequence numbers. */
const distance = (a: number, b: number): number => (a - b) | 0
