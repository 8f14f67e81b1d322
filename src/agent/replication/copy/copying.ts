import { isFault } from '#base/fault.ts'
import { VOLUME_FAILED } from '#agent/volumes/faults.ts'
import { BLOCK_BYTES } from '#wire/link/frame.ts'
import { FEATURES } from '#wire/link/messages.ts'
import type { SessionStatus } from '#wire/site/witness.ts'
import { planBlank, planDelta } from './copy-plan.ts'
import { Copy, reconcileMember } from './copy.ts'
import type { SessionCore } from '../core.ts'
import { type Members, saveRound } from '../members.ts'
import { type PeerQueries, QueryFailed } from '../peer-queries.ts'
import type { Sender } from '../writer/sender.ts'
import type { CopyScope } from '../session/session.ts'
import type { Writer, WriterMember } from '../writer/writer.ts'
import type { WriterEnd } from '../writer/writer-end.ts'

/* The background work of a writer towards its replica, begun and stopped by the session:
 *
 *     copy         blocks to the replica (copy-plan.ts, copy.ts)        ─► copied, or `join` of members that came later
 *     reconcile    the other direction, before anything is served       ─► reconciled
 *     drain        wait until all is settled, make it durable everywhere ─► drained
 *
 * Owns which of them runs. There is at most one copy. `stop` ends whatever runs: a counter is raised, and what comes to its end
 * under an older count reports nothing.
 */

type CopyKind = SessionStatus['copy_kind']

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
  /** What the copy under way, or the last one, is made after. `ready`: `todo` names all that is left of it. */
  #plan: { readonly key: string; ready: boolean; readonly members: ReadonlySet<number> } | null =
    null
  #kind: CopyKind = 'none'
  /** Bytes that were left when the plan was made. */
  #total = 0
  /** Bytes sent for this plan over links that are gone. */
  #sentBefore = 0
  /** Members whose first copy this link has begun. */
  readonly #joining = new Set<number>()
  /** Raised to make answers of background work that was stopped count for nothing. */
  #work = 0

  constructor(parts: CopyingParts) {
    this.#parts = parts
    this.#core = parts.core
  }

  // -- copy -----------------------------------------------------------------------------------------------------------

  /**
   * Looks at what `scope` names and goes on copying; a copy that runs takes it in. `regions`: at what the writer's own intent bitmap
   * names, too. The same again after a lost link, under the same epoch and with a replica that has not lost power since, goes on
   * where the last one ended.
   */
  start(scope: CopyScope, regions = false): void {
    const writer = this.#parts.writer()
    const { link } = this.#parts
    const { sender, queries } = link
    if (writer === null || sender === null || queries === null) return
    if (scope === 'joining') {
      this.#join(writer)
      // A plan in the making goes on with it, or the copy would seem to be done.
      if (this.#planned) this.#run(writer, sender, queries)
      return
    }
    const key = `${this.#core.session.stored.record.epoch} ${scope} ${regions} ${link.peerBootId}`
    if (this.#plan?.key === key && this.#plan.ready) {
      this.#total = Math.max(this.#total, this.#left())
      return this.#run(writer, sender, queries)
    }
    const plan = { key, ready: false, members: new Set(writer.members.keys()) }
    this.#plan = plan
    this.#total = 0
    this.#sentBefore = 0
    const work = this.#work
    this.#makePlan(writer, queries, scope, regions).then(
      () => {
        // What was begun on a link that is gone is begun again.
        if (work !== this.#work || this.#plan !== plan) return
        plan.ready = true
        this.#total = this.#left()
        this.#core.log.info({ kind: this.#kind, left_bytes: this.#total, scope }, 'copy begins')
        this.#run(writer, sender, queries)
      },
      (error: unknown) => {
        if (!(error instanceof QueryFailed) && !isFault(error)) return this.#core.fatal(error)
        if (work !== this.#work) return
        this.#core.log.warn({ err: error }, 'copy could not be planned')
        link.broken(sender, error.message)
      },
    )
  }

  async #makePlan(
    writer: Writer,
    queries: PeerQueries,
    scope: CopyScope,
    regions: boolean,
  ): Promise<void> {
    const { members, link } = this.#parts
    const { baseEpoch } = this.#core.session.stored
    let first = 0
    let full = 0
    const all = [...writer.members.values()]
    // Before anything takes time: what clients write from now on goes through the stream.
    for (const { todo } of all) todo.clear()
    for (const member of all) {
      const own = members.get(member.index)
      if (own === undefined) continue
      if (!link.peerJoined.has(member.index)) {
        first++
        await this.#planFirst(member)
      } else if (scope === 'all') {
        full++
        await this.#planFirst(member)
      } else {
        const asks = (link.peerFeatures & FEATURES.CHANGES) !== 0
        const known = await planDelta({ member, own, queries, baseEpoch, regions, asks })
        if (!known) full++
      }
    }
    this.#kind = full > 0 ? 'full' : first > 0 ? 'first' : 'delta'
  }

  async #planFirst(member: WriterMember): Promise<void> {
    if (this.#parts.link.blank.has(member.index)) await planBlank(member)
    else member.todo.compareAll()
  }

  /** `todo` names all that the copy has to see to. Outside of a resync there is nothing to plan. */
  get #planned(): boolean {
    return this.#core.session.phase !== 'copying' || this.#plan?.ready === true
  }

  /** Members that the replica does not have in full yet, and what was marked since. */
  #join(writer: Writer): void {
    const { link } = this.#parts
    const copying = this.#core.session.phase === 'copying'
    for (const member of writer.members.values()) {
      if (link.peerJoined.has(member.index) || this.#joining.has(member.index)) continue
      if (copying && this.#plan?.members.has(member.index) === true) continue
      this.#joining.add(member.index)
      this.#kind = 'first'
      member.todo.compareAll()
    }
    this.#total = this.#left()
  }

  #run(writer: Writer, sender: Sender, queries: PeerQueries): void {
    this.#copy ??= new Copy({
      writer,
      gate: this.#core.session.gate,
      sender,
      queries,
      clock: this.#core.clock,
      blank: this.#parts.link.blank,
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
      if (!this.#planned) return
      const members = [...(this.#parts.writer()?.members.keys() ?? [])]
      core.log.info({ kind: this.#kind, sent_bytes: this.sentBytes }, 'copy is done')
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
    this.#sentBefore += this.#copy.sentBytes
    this.#copy = null
  }

  /** In sync: the next copy has nothing to go on with. */
  changesCleared(): void {
    this.#plan = null
    this.#kind = 'none'
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

  get kind(): CopyKind {
    return this.#kind
  }

  /** Bytes of data that the copy under way, or the last one, has sent. */
  get sentBytes(): number {
    return this.#sentBefore + (this.#copy?.sentBytes ?? 0)
  }

  /** Whole percent of the copy under way; null: there is none, or it had nothing to do. */
  get progress(): number | null {
    if (this.#copy === null || this.#total === 0) return null
    return Math.floor(100 * (1 - Math.min(1, this.#left() / this.#total)))
  }

  /** Bytes of the member that need not be copied any more. */
  copiedBytes(member: WriterMember, sizeBytes: number): number {
    return Math.max(0, sizeBytes - this.#leftOf(member))
  }

  #left(): number {
    let left = 0
    for (const member of this.#parts.writer()?.members.values() ?? []) left += this.#leftOf(member)
    return left
  }

  #leftOf(member: WriterMember): number {
    return member.todo.count * BLOCK_BYTES + (this.#copy?.openBytes(member) ?? 0)
  }

  /** The replica has every member in full. */
  get wholeAtPeer(): boolean {
    const { link, writer } = this.#parts
    return [...(writer()?.members.keys() ?? [])].every((index) => link.peerJoined.has(index))
  }

  // -- reconcile and drain --------------------------------------------------------------------------------------------

  /**
   * Fetches what differs from the replica. A volume that has failed is left as it is: it answers every request with an error, and what it
   * lacks is safe at the replica.
   */
  reconcile(scope: 'all' | 'dirty'): void {
    const core = this.#core
    const { link } = this.#parts
    const { queries } = link
    const writer = this.#parts.writer()
    if (queries === null || writer === null) return
    const work = ++this.#work
    const members = [...writer.members.values()].filter(
      ({ index, volume }) => link.peerJoined.has(index) && volume.failed === undefined,
    )
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
      if (!isFault(error)) return core.fatal(error)
      // A disk of this side: it is no reason to end the process, which has other groups to serve.
      core.log.error({ err: error }, 'could not be reconciled from the replica')
      if (work !== this.#work) return
      const { message } = error
      if (isFault(error, VOLUME_FAILED)) this.reconcile(scope)
      else if (link.sender !== null) link.broken(link.sender, message)
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
          // Of all members at once: clients wait, and syncs at one time share a commit of the journal.
          await Promise.all([...members.values()].map(saveRound))
          await core.handle({ kind: 'drained', now: core.now() })
        })
        .catch((error: unknown) => core.fatal(error))
    })
  }
}
