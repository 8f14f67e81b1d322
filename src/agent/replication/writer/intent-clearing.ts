import type { SessionCore } from '../core.ts'
import { type Members, saveRound } from '../members.ts'
import type { Sender } from './sender.ts'
import type { Writer } from './writer.ts'
import type { WriterEnd } from './writer-end.ts'

/* Clears intent bits while a writer follows in step, so that an unclean stop has little to compare.
 *
 * A round clears the bits of regions that nobody has touched since the round before: their writes are all numbered below the
 * number of that time, so once that is acknowledged and both sides have flushed, they are equal and durable. Regions in use keep
 * their bits, so that a busy volume does not pay for the same first touch again and again.
 *
 *     round n begins at number s ─► interval ─► s acknowledged? both flushed? ─► clear what round n left untouched ─► round n+1
 *
 * Owns the rounds. One that was begun on another link counts for nothing.
 */

/** Unless the agent's settings say otherwise. */
const CLEAR_EVERY_MS = 10_000

export interface IntentClearingParts {
  readonly core: SessionCore
  readonly members: Members
  readonly link: WriterEnd
  readonly writer: () => Writer | null
  readonly everyMs: number | undefined
}

export class IntentClearing {
  readonly #parts: IntentClearingParts
  readonly #everyMs: number
  #clearing = false
  /** 0: none is due. */
  #nextMs = 0
  /** The round that was begun last, on which link and at which number. */
  #round: { readonly sender: Sender | null; readonly sequence: number } | undefined

  constructor(parts: IntentClearingParts) {
    this.#parts = parts
    this.#everyMs = parts.everyMs ?? CLEAR_EVERY_MS
  }

  tick(now: number): void {
    const { session } = this.#parts.core
    if (session.phase !== 'following' || session.role !== 'writer') {
      this.#nextMs = 0
      return
    }
    if (this.#nextMs === 0) this.#nextMs = now + this.#everyMs
    if (now >= this.#nextMs) this.#clear()
  }

  #clear(): void {
    const { core, members } = this.#parts
    const writer = this.#parts.writer()
    if (writer === null || this.#clearing || members.dirtyRegions === 0) return
    this.#clearing = true
    this.#runRound(writer)
      .catch((error: unknown) => core.fatal(error))
      .finally(() => {
        this.#clearing = false
        this.#nextMs = core.now() + this.#everyMs
      })
  }

  async #runRound(writer: Writer): Promise<void> {
    const { core, members, link } = this.#parts
    const { session } = core
    const round = this.#round
    const { sender } = link
    const begun = round?.sender === sender && session.gate.acknowledged >= round.sequence
    if (begun) {
      const durable = await writer.flushAll()
      const stable = link.sender === sender && session.phase === 'following' && !core.closing
      if (!durable || !stable) return
      for (const member of members.values()) {
        const todo = writer.members.get(member.index)?.todo
        if (member.volume.failed !== undefined || (todo !== undefined && todo.count > 0)) continue
        await saveRound(member)
      }
    }
    members.beginRound()
    this.#round = { sender, sequence: session.gate.sequence }
  }
}
