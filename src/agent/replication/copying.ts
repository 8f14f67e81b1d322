import { Copy, reconcileMember } from './copy.ts'
import type { SessionCore } from './core.ts'
import { type Members, saveRound } from './members.ts'
import { QueryFailed } from './peer-queries.ts'
import { REGION_BYTES } from './regions.ts'
import type { CopyScope } from './session.ts'
import type { Writer, WriterMember } from './writer.ts'
import type { WriterEnd } from './writer-end.ts'

/* The background work of a writer towards its replica, begun and stopped by the session:
 *
 *     copy         regions of this side to the replica (copy.ts)        ─► copied, or `join` of members that came later
 *     reconcile    the other direction, before anything is served       ─► reconciled
 *     drain        wait until all is settled, make it durable everywhere ─► drained
 *
 * Owns which of them runs. There is at most one copy. `stop` ends whatever runs: a counter is raised, and what comes to its end
 * under an older count reports nothing.
 */

export interface CopyingParts {
  readonly core: SessionCore
  readonly members: Members
  readonly link: WriterEnd
  readonly writer: () => Writer | null
  /** The agent's setting, for sessions that have no rate of their own; bytes per second, 0: no limit. */
  readonly syncRateBytes: number
}

export class Copying {
  readonly #parts: CopyingParts
  readonly #core: SessionCore
  #copy: Copy | null = null
  /** Regions that were left when the copy was begun last. */
  #total = 0
  /** Members whose first copy this link has begun. */
  readonly #joining = new Set<number>()
  /** Raised to make answers of background work that was stopped count for nothing. */
  #work = 0

  constructor(parts: CopyingParts) {
    this.#parts = parts
    this.#core = parts.core
  }

  // -- copy -----------------------------------------------------------------------------------------------------------

  /** Marks what `scope` names and goes on copying; a copy that runs takes it in. */
  start(scope: CopyScope): void {
    const writer = this.#parts.writer()
    const { members, link } = this.#parts
    const { sender, queries } = link
    if (writer === null || sender === null || queries === null) return
    for (const { index, intent } of members.values()) {
      const member = writer.members.get(index)
      if (member === undefined) continue
      if (scope === 'all' || !link.peerJoined.has(index)) {
        const begun = scope === 'joining' && this.#joining.has(index)
        if (!begun) member.todo.addAll()
        if (scope === 'joining') this.#joining.add(index)
      } else if (scope === 'dirty') {
        for (let region = 0; region < intent.regions; region++) {
          if (intent.has(region)) member.todo.add(region)
        }
      }
    }
    this.#total = this.#left()
    this.#copy ??= new Copy({
      writer,
      gate: this.#core.session.gate,
      sender,
      queries,
      clock: this.#core.clock,
      blank: link.blank,
      rateBytes: () => this.rateBytes,
      onDone: () => this.#copyDone(),
      onError: (error) => this.#core.log.warn({ err: error }, 'copy could not read, trying again'),
    })
    this.#copy.kick()
  }

  #copyDone(): void {
    const core = this.#core
    const { link } = this.#parts
    if (core.session.phase === 'copying') {
      const members = [...(this.#parts.writer()?.members.keys() ?? [])]
      core.post({ kind: 'copied', now: core.now(), members })
      return
    }
    for (const index of this.#joining) {
      if (!link.peerJoined.has(index)) link.join(index)
    }
    this.#joining.clear()
  }

  /** Ends the copy, a reconciliation and a drain; none of them reports anything any more. */
  stop(): void {
    this.#work++
    this.#joining.clear()
    if (this.#copy === null) return
    this.#copy.stop()
    this.#copy = null
  }

  /** There may be more to copy, or another rate to do it at. */
  kick(): void {
    this.#copy?.kick()
  }

  /** The replica has acknowledged more. */
  acknowledged(): void {
    this.#copy?.acknowledged()
  }

  /** Bytes per second; 0: no limit. */
  get rateBytes(): number {
    return this.#parts.members.copyRateBytes ?? this.#parts.syncRateBytes
  }

  /** Whole percent of the copy under way; null: there is none, or it had nothing to do. */
  get progress(): number | null {
    if (this.#copy === null || this.#total === 0) return null
    return Math.floor(100 * (1 - Math.min(1, this.#left() / this.#total)))
  }

  /** Bytes of the member that need not be copied any more. */
  copiedBytes(member: WriterMember, sizeBytes: number): number {
    return Math.max(0, sizeBytes - this.#leftOf(member) * REGION_BYTES)
  }

  #left(): number {
    let left = 0
    for (const member of this.#parts.writer()?.members.values() ?? []) left += this.#leftOf(member)
    return left
  }

  #leftOf(member: WriterMember): number {
    return member.todo.count + (this.#copy?.openRegions(member) ?? 0)
  }

  // -- reconcile and drain --------------------------------------------------------------------------------------------

  /** Fetches what differs from the replica. */
  reconcile(scope: 'all' | 'dirty'): void {
    const core = this.#core
    const { link } = this.#parts
    const { queries } = link
    const writer = this.#parts.writer()
    if (queries === null || writer === null) return
    const work = ++this.#work
    const members = [...writer.members.values()].filter(({ index }) => link.peerJoined.has(index))
    const run = async (): Promise<void> => {
      let fetched = 0
      for (const member of members) {
        const isDirty = (region: number) => scope === 'all' || member.intent.has(region)
        const result = await reconcileMember(member, queries, isDirty)
        fetched += result.fetchedBytes
      }
      core.log.info({ fetched_bytes: fetched, scope }, 'reconciled from the replica')
      if (work === this.#work) await core.handle({ kind: 'reconciled', now: core.now() })
    }
    run().catch((error: unknown) => {
      if (error instanceof QueryFailed) {
        // The link's end is reported on its own; a read error over there ends the link here.
        if (link.sender !== null && work === this.#work) link.broken(link.sender, error.message)
        return
      }
      core.fatal(error)
    })
  }

  drain(): void {
    const core = this.#core
    const { members } = this.#parts
    const writer = this.#parts.writer()
    if (writer === null) return
    const work = ++this.#work
    writer.whenSettled(() => {
      if (work !== this.#work) return
      members.beginRound()
      writer
        .flushAll()
        .then(async (durable) => {
          if (!durable || work !== this.#work || core.session.phase !== 'draining') return
          // Nothing was taken since: both sides are equal and durable everywhere.
          for (const member of members.values()) await saveRound(member)
          await core.handle({ kind: 'drained', now: core.now() })
        })
        .catch((error: unknown) => core.fatal(error))
    })
  }
}
