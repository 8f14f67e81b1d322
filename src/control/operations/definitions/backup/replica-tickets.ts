import type { Clock } from '#base/clock.ts'
import type { AdmissionAnswer } from '#wire/replica.ts'
import type { ReplicaInfo } from '#wire/site/backups.ts'
import { isAway } from './backup-work.ts'

/* The right to send one copy, kept good. A ticket is good for a limited time, and a new one goes on where the old one stopped. Half way a new one is
 * asked for; as long as the other region does not answer, the old one is used to its end. */

type Admission = AdmissionAnswer['admission']

const PAUSE_MS_MIN = 1_000
const PAUSE_MS_MAX = 60_000
/** Tickets that may be refused in a row: an agent there that has lost its key refuses what it has given out, and one that is mistaken refuses all. */
const REFUSED_MAX = 3

export class Tickets {
  readonly #clock: Clock
  readonly #admit: () => Promise<Admission>
  #admission: Admission | undefined
  #madeMs = 0
  #askAtMs = 0
  #pauseMs = PAUSE_MS_MIN
  #failure: unknown
  #refused = 0

  constructor(clock: Clock, admit: () => Promise<Admission>) {
    this.#clock = clock
    this.#admit = admit
  }

  /** Rejects with what the other region said, or, between two attempts to ask it, with why it could not be asked. */
  async current(): Promise<Admission> {
    const nowMs = this.#clock.wallMs()
    const good = this.#admission !== undefined && nowMs < this.#admission.expires_at
    const fresh = good && nowMs < (this.#madeMs + (this.#admission?.expires_at ?? 0)) / 2
    if (!fresh && this.#clock.bootMs() >= this.#askAtMs) {
      try {
        this.#admission = await this.#admit()
        this.#madeMs = nowMs
        this.#pauseMs = PAUSE_MS_MIN
        return this.#admission
      } catch (error) {
        if (!isAway(error)) throw error
        this.#failure = error
        this.#askAtMs = this.#clock.bootMs() + this.#pauseMs
        this.#pauseMs = Math.min(PAUSE_MS_MAX, 2 * this.#pauseMs)
      }
    }
    if (good && this.#admission !== undefined) return this.#admission
    throw this.#failure
  }

  /** True: the work has ended because its ticket had; it goes on with another one. */
  wasRefused({ state, code }: Pick<ReplicaInfo, 'state' | 'code'>): boolean {
    if (state === 'running') return false
    if (code !== 'TICKET_REFUSED' || ++this.#refused > REFUSED_MAX) return false
    this.#admission = undefined
    return true
  }
}
