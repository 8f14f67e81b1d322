import { sleep } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import { FRAME_LENGTH_MAX } from '#wire/link/frame.ts'
import type { CommandRequest } from '#wire/site/commands.ts'
import type { VerifiedMember, VerifyState, VerifyStatus, VerifySummary } from '#wire/site/verify.ts'
import type { SessionCore } from '../core.ts'
import { NOT_WRITER, STALE_EPOCH, VERIFY_RUNNING } from '../faults.ts'
import type { Members, OpenMember } from '../members.ts'
import { type PeerQueries, QueryFailed } from '../peer-queries.ts'
import {
  type BlockFault,
  compareAtOnce,
  type ComparedStep,
  compareStep,
  sendBlock,
} from './verify-compare.ts'
import {
  NOTHING_VERIFIED,
  readVerifyFile,
  type StoredRun,
  type VerifyFile,
  writeVerifyFile,
} from './verify-file.ts'
import { PAUSE_MS_MAX, VerifyPace } from './verify-pace.ts'
import { blocksOf } from './verify-ranges.ts'
import { mismatchedBytes, newRun, shown, withRepaired, withStep } from './verify-run.ts'
import type { WriterEnd } from '../writer/writer-end.ts'
import type { Writer, WriterMember } from '../writer/writer.ts'

/* Online verification of a session: the life of a run.
 *
 *     session.verify ─► running ⇄ waiting (not in sync, no link) ─► done
 *                          └──────────► cancelled, failed (this site no longer writes)
 *
 *     steps of 1 MiB, a few at a time (verify-compare.ts) ─► committed in order: cursor, faults, repair ─► verify.json
 *
 * What is committed is a function of the cursor alone: a step that was compared behind one that was not counts for nothing. So a run that
 * a crash or a lost link interrupted goes on at the cursor and neither misses nor counts anything twice.
 *
 * Clients first: while they write, one step is under way at a time, and after it there is a pause as long as the step took. A rate limit
 * holds on top of that.
 *
 * Repair: the fault is on record before the block is sent again. Then: acknowledged, durable on both sides, compared once more, equal;
 * only that is called repaired.
 *
 * Owns verify.json and the loop. Runs at the writer only; what earlier runs found stays on record at the side where they ran.
 */

const STEPS_MAX = 4
const SAVE_EVERY_MS = 2_000

export interface VerifyingParts {
  readonly core: SessionCore
  readonly members: Members
  readonly link: WriterEnd
  readonly writer: () => Writer | null
  /** The session's folder. */
  readonly directory: string
}

const ACTIVE: ReadonlySet<VerifyState> = new Set<VerifyState>(['running', 'waiting'])

type Outcome =
  | { readonly ok: true; readonly step: ComparedStep }
  | { readonly ok: false; readonly error: QueryFailed | Fault }

interface Step {
  readonly member: OpenMember
  readonly offset: number
  readonly length: number
  readonly outcome: Promise<Outcome>
}

export class Verifying {
  readonly #parts: VerifyingParts
  #file: VerifyFile = NOTHING_VERIFIED
  #looping: Promise<void> | null = null
  #closed = false
  #saving: Promise<void> = Promise.resolve()
  #savedMs = 0
  readonly #pace: VerifyPace
  readonly #totals = {
    compared_bytes: 0,
    rechecked_blocks: 0,
    mismatched_blocks: 0,
    repaired_blocks: 0,
  }

  constructor(parts: VerifyingParts) {
    this.#parts = parts
    this.#pace = new VerifyPace(parts.core)
  }

  /** Reads what an earlier process left. Its run goes on with the next `tick`. */
  async load(): Promise<void> {
    const found = await readVerifyFile(this.#parts.directory)
    if (found === 'damaged') this.#parts.core.log.warn('verify.json is damaged, begun anew')
    else if (found !== null) this.#file = found
  }

  // -- commands -------------------------------------------------------------------------------------------------------

  async begin(request: CommandRequest<'session.verify'>): Promise<VerifyStatus> {
    const { core } = this.#parts
    const { run: wanted, epoch } = request
    const run = this.#file.run
    if (run !== null && run.run === wanted) return this.show()
    if (core.broken !== null) throw core.broken
    const doing = `verifying session ${core.id}`
    if (epoch < core.session.stored.record.epoch) throw new Fault(STALE_EPOCH, doing, { epoch })
    if (core.session.role !== 'writer') throw new Fault(NOT_WRITER, doing)
    if (run !== null && ACTIVE.has(run.state)) {
      throw new Fault(VERIFY_RUNNING, doing, { run: run.run })
    }
    this.#change(newRun(request, core.clock.wallMs(), this.#totalBytes()))
    await this.#save()
    this.tick()
    return this.show()
  }

  async cancel(name: string): Promise<VerifyStatus> {
    const run = this.#file.run
    if (run !== null && run.run === name && ACTIVE.has(run.state)) {
      this.#end('cancelled', null)
      await this.#save()
    }
    return this.show()
  }

  // -- what is known --------------------------------------------------------------------------------------------------

  show(): VerifyStatus {
    const { run } = this.#file
    return {
      session: this.#parts.core.id,
      run: run === null ? null : shown(run),
      members: this.#members(),
      totals: { ...this.#totals },
    }
  }

  /** For reports; null: never verified here, nothing to tell. */
  summary(): VerifySummary | null {
    const { run } = this.#file
    if (run === null) return null
    return {
      run: {
        run: run.run,
        state: run.state,
        total_bytes: run.total_bytes,
        compared_bytes: run.compared_bytes,
        mismatched_bytes: run.mismatched_bytes,
        repaired_bytes: run.repaired_bytes,
      },
      members: this.#members(),
      totals: { ...this.#totals },
    }
  }

  #members(): VerifiedMember[] {
    const { members } = this.#parts
    return [...members.values()].map(({ index, stored }) => {
      const known = this.#file.members[index]
      return {
        pair: stored.pair,
        volume: members.volumeId(stored),
        last_verified_at: known?.last_verified_at ?? null,
        mismatched_bytes: known?.mismatched_bytes ?? 0,
      }
    })
  }

  // -- life -----------------------------------------------------------------------------------------------------------

  /** A few times a second: begins, goes on, or sees that it cannot. */
  tick(): void {
    const run = this.#file.run
    if (run === null || !ACTIVE.has(run.state) || this.#looping !== null || this.#closed) return
    const { core } = this.#parts
    if (core.session.role !== 'writer' && core.session.role !== 'none') {
      this.#end('failed', 'another site writes now; verify again from there')
      this.#saveLater()
      return
    }
    if (!this.#ready()) return
    this.#looping = this.#loop(run.run).finally(() => {
      this.#looping = null
    })
    this.#looping.catch((error: unknown) => core.fatal(error))
  }

  /** Ends the work. `keep`: so that a later process goes on; otherwise the file is left alone, its folder is about to go. */
  async close(keep: boolean): Promise<void> {
    this.#closed = true
    await this.#looping
    await this.#saving
    if (keep && this.#file.run !== null && ACTIVE.has(this.#file.run.state)) {
      await writeVerifyFile(this.#parts.directory, this.#file)
    }
  }

  /** Both sides should be equal, and can be asked. */
  #ready(): boolean {
    const { core, link } = this.#parts
    return (
      !this.#closed &&
      !core.ended &&
      !core.closing &&
      core.broken === null &&
      core.session.phase === 'following' &&
      core.session.linked &&
      link.queries !== null
    )
  }

  /** The run of this name as it stands; null when it has ended or another one has begun. */
  #active(name: string): StoredRun | null {
    const { run } = this.#file
    return run !== null && run.run === name && ACTIVE.has(run.state) ? run : null
  }

  async #loop(name: string): Promise<void> {
    this.#patch(name, { state: 'running', reason: null })
    await this.#repairFound(name)
    const window: Step[] = []
    let next = this.#active(name)?.cursor ?? null
    for (;;) {
      const width = this.#pace.clientsAreActive() ? 1 : STEPS_MAX
      while (next !== null && window.length < width && this.#ready()) {
        const step = this.#takeStep(next)
        if (step === null) next = null
        else {
          window.push(step)
          next = { member: step.member.index, offset: step.offset + step.length }
        }
      }
      const step = window.shift()
      if (step === undefined) break
      const begunMs = this.#parts.core.now()
      const outcome = await step.outcome
      if (this.#active(name) === null || this.#closed) return
      if (!outcome.ok) return this.#interrupted(name, outcome.error)
      this.#commit(name, step, outcome.step)
      if (outcome.step.faults.length > 0) {
        await this.#save()
        await this.#repair(name, step.member, outcome.step.faults)
      }
      this.#saveNowAndThen()
      await this.#pause(name, step.length, this.#parts.core.now() - begunMs)
      if (this.#active(name) === null || this.#closed) return
    }
    if (!this.#ready()) return this.#interrupted(name, null)
    if (this.#active(name) === null) return
    this.#end('done', null)
    await this.#save()
  }

  /** `error` null: the session left the state in which it can be verified. */
  #interrupted(name: string, error: QueryFailed | Fault | null): void {
    const text = error === null ? 'the sites are not in sync' : error.message
    this.#patch(name, { state: 'waiting', reason: text.slice(0, 500) })
    this.#saveLater()
  }

  #end(state: VerifyState, reason: string | null): void {
    const { run } = this.#file
    if (run === null) return
    const endedAt = this.#parts.core.clock.wallMs()
    this.#change({ ...run, state, reason, ended_at: endedAt })
    const { compared_bytes, mismatched_bytes, repaired_bytes } = run
    this.#parts.core.log.info(
      { run: run.run, state, reason, compared_bytes, mismatched_bytes, repaired_bytes },
      'verification ended',
    )
  }

  // -- steps ----------------------------------------------------------------------------------------------------------

  /** Members that can be compared, in the order of their indexes. */
  #comparable(): OpenMember[] {
    const { members, link } = this.#parts
    const writer = this.#parts.writer()
    return [...members.values()]
      .filter(({ index }) => link.peerJoined.has(index) && writer?.members.has(index) === true)
      .sort((a, b) => a.index - b.index)
  }

  #totalBytes(): number {
    return this.#comparable().reduce((sum, { volume }) => sum + volume.sizeBytes, 0)
  }

  #takeStep(from: { readonly member: number; readonly offset: number }): Step | null {
    const queries = this.#parts.link.queries
    const writer = this.#parts.writer()
    if (queries === null || writer === null) return null
    for (const member of this.#comparable()) {
      if (member.index < from.member) continue
      const offset = member.index === from.member ? from.offset : 0
      const length = Math.min(FRAME_LENGTH_MAX, member.volume.sizeBytes - offset)
      const target = writer.members.get(member.index)
      if (length <= 0 || target === undefined) continue
      const outcome = compareStep(writer, target, queries, offset, length).then(
        (step): Outcome => ({ ok: true, step }),
        (error: unknown): Outcome => {
          if (error instanceof QueryFailed || isFault(error)) return { ok: false, error }
          throw error
        },
      )
      return { member, offset, length, outcome }
    }
    return null
  }

  #commit(name: string, { member, offset, length }: Step, step: ComparedStep): void {
    const run = this.#active(name)
    if (run === null) return
    const { index, stored } = member
    const volume = this.#parts.members.volumeId(stored)
    const mismatched = mismatchedBytes(step)
    this.#totals.compared_bytes += length
    this.#totals.rechecked_blocks += step.rechecked
    this.#totals.mismatched_blocks += step.faults.length
    const where = { member: index, offset, length }
    const next = withStep(run, where, { pair: stored.pair, volume }, step)
    // Members may have joined or grown.
    this.#change({ ...next, total_bytes: Math.max(next.compared_bytes, this.#totalBytes()) })
    if (offset + length >= member.volume.sizeBytes) this.#memberDone(member, next)
    if (mismatched > 0) {
      this.#parts.core.log.error(
        { member: member.index, offset, length, mismatched_bytes: mismatched, run: name },
        'verification found a difference between the sites',
      )
    }
  }

  #memberDone(member: OpenMember, run: StoredRun): void {
    this.#file = {
      ...this.#file,
      members: {
        ...this.#file.members,
        [member.index]: {
          last_verified_at: this.#parts.core.clock.wallMs(),
          mismatched_bytes: run.unrepaired[member.index] ?? 0,
        },
      },
    }
    this.#saveLater()
  }

  // -- repair ---------------------------------------------------------------------------------------------------------

  /** What was found and not repaired before the process, or the link, went away. */
  async #repairFound(name: string): Promise<void> {
    const run = this.#active(name)
    if (run === null || !run.repair) return
    for (const range of run.ranges) {
      if (range.repaired) continue
      const member = this.#comparable().find(({ stored }) => stored.pair === range.pair)
      if (member === undefined) continue
      await this.#repair(name, member, blocksOf(range))
    }
  }

  async #repair(name: string, member: OpenMember, faults: readonly BlockFault[]): Promise<void> {
    const writer = this.#parts.writer()
    const target = writer?.members.get(member.index)
    const { queries } = this.#parts.link
    if (this.#active(name)?.repair !== true || writer === null || target === undefined) return
    if (queries === null) return
    const blocks = faults.filter(({ kind }) => kind !== 'unreadable-here')
    try {
      for (const block of blocks) {
        if (!this.#ready()) return
        sendBlock(writer, target, block.offset, block.length)
        this.#pace.repaired()
        // A turn for everybody else after each block.
        await new Promise((resolve) => setImmediate(resolve))
      }
      if (blocks.length === 0 || !(await this.#settled(writer))) return
      for (const block of blocks) await this.#check(name, writer, target, queries, member, block)
    } catch (error) {
      // The range stays on record as not repaired; it is tried again when the link is back.
      if (!(error instanceof QueryFailed) && !isFault(error)) throw error
    }
    await this.#save()
  }

  /** Everything that was sent is acknowledged, and durable on both sides. */
  async #settled(writer: Writer): Promise<boolean> {
    const { core } = this.#parts
    const sequence = core.session.gate.sequence
    while (core.session.gate.acknowledged < sequence) {
      if (!this.#ready() || writer !== this.#parts.writer()) return false
      await sleep(core.clock, 2)
    }
    return await writer.flushAll()
  }

  async #check(
    name: string,
    writer: Writer,
    target: WriterMember,
    queries: PeerQueries,
    member: OpenMember,
    block: BlockFault,
  ): Promise<void> {
    if (writer !== this.#parts.writer()) return
    const fault = await compareAtOnce(writer, target, queries, block.offset, block.length)
    const run = this.#active(name)
    if (run === null) return
    const { index } = member
    if (fault !== null) {
      this.#parts.core.log.error(
        { member: index, offset: block.offset, fault, run: name },
        'a block still differs after it was sent again',
      )
      return
    }
    this.#totals.repaired_blocks++
    const next = withRepaired(run, index, member.stored.pair, block)
    this.#change(next)
    const known = this.#file.members[index]
    const memberEnded = run.cursor.member > index || run.cursor.offset >= member.volume.sizeBytes
    if (known !== undefined && memberEnded) {
      this.#file = {
        ...this.#file,
        members: {
          ...this.#file.members,
          [index]: { ...known, mismatched_bytes: next.unrepaired[index] ?? 0 },
        },
      }
    }
  }

  // -- pace -----------------------------------------------------------------------------------------------------------

  async #pause(name: string, bytes: number, tookMs: number): Promise<void> {
    const waitMs = this.#pace.waitMs(bytes, tookMs, this.#active(name)?.rate_bytes ?? 0)
    // In pieces, so that a cancellation or the end of the process does not wait for a slow rate.
    for (let left = waitMs; left > 0; left -= PAUSE_MS_MAX) {
      if (this.#closed || this.#active(name) === null) return
      await sleep(this.#parts.core.clock, Math.min(left, PAUSE_MS_MAX))
    }
  }

  // -- the file -------------------------------------------------------------------------------------------------------

  #change(run: StoredRun): void {
    this.#file = { ...this.#file, run }
  }

  #patch(name: string, change: Partial<Pick<StoredRun, 'state' | 'reason'>>): void {
    const run = this.#active(name)
    if (run !== null) this.#change({ ...run, ...change })
  }

  #saveNowAndThen(): void {
    if (this.#parts.core.now() - this.#savedMs >= SAVE_EVERY_MS) this.#saveLater()
  }

  #saveLater(): void {
    this.#save().catch((error: unknown) => this.#parts.core.fatal(error))
  }

  /** The newest state is on disk when it resolves. One write at a time. A disk that does not take it costs the run's place, no data. */
  #save(): Promise<void> {
    this.#savedMs = this.#parts.core.now()
    const save = async () => {
      if (this.#closed) return
      try {
        await writeVerifyFile(this.#parts.directory, this.#file)
      } catch (error) {
        this.#parts.core.log.warn({ err: error }, 'progress of the verification was not stored')
      }
    }
    this.#saving = this.#saving.then(save)
    return this.#saving
  }
}
