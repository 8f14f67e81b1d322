import { assert, unreachable } from '#base/assert.ts'
import type { Hello, Refuse } from '#wire/link/messages.ts'
import type { CommandAnswer, CommandRequest } from '#wire/site/commands.ts'
import type { SessionStatus, WitnessAsk } from '#wire/site/witness.ts'
import { IO_ERRORS } from '#agent/nbd/device.ts'
import { BootTrust } from './session/boot-trust.ts'
import type { SessionCommands } from './commands.ts'
import type { Copying } from './copy/copying.ts'
import type { SessionCore, SessionEdge, WorldEffect } from './core.ts'
import type { Greeting } from './session/hello.ts'
import type { IntentClearing } from './writer/intent-clearing.ts'
import type { KeptCopy } from './session/kept-copy.ts'
import type { AcceptedLink } from './link.ts'
import { type Members, saveRound } from './members.ts'
import { assemble } from './parts.ts'
import { rebuildCopy } from './copy/rebuild.ts'
import type { ReplicaEnd } from './replica/replica-end.ts'
import type { ServedNames } from './served-names.ts'
import { SessionFiles } from './session/session-files.ts'
import type { Session, SessionMessage } from './session/session.ts'
import type { StatusView } from './status-view.ts'
import type { SessionHostDeps } from './types.ts'
import type { Verifying } from './verify/verifying.ts'
import type { WriterEnd } from './writer/writer-end.ts'
import { Writer } from './writer/writer.ts'

/* One session at one site: the shell around session.ts. It has no opinion; it puts the parts together, carries out what the
 * session decides, and ends them in the right order.
 *
 *     commands ─┐                                          ┌─► session-files   epoch, run
 *     timers ───┼─► core (queue) ─► session ─► effects ────┼─► members         volumes, intent bitmaps
 *     link ─────┘                                          ├─► served-names    what clients reach
 *                                                          ├─► writer          the hot path of a writer
 *                                                          ├─► writer-end, replica-end      the link
 *                                                          └─► copying         copy, reconcile, drain
 *
 * Owns the writer: made when the session becomes the writer, dropped when it is so no longer. Parts that need it ask for it each time.
 */

const DRAIN_AT_CLOSE_MS = 3_000
/** Unless the agent's settings say otherwise. */
const FRAME_LOG_BYTES = 64 * 1024 * 1024

export class SessionRuntime {
  readonly id: string
  readonly session: Session
  readonly #deps: SessionHostDeps
  readonly #files: SessionFiles
  readonly #trust: BootTrust
  readonly #core: SessionCore
  readonly #members: Members
  readonly #names: ServedNames
  readonly #greeting: Greeting
  readonly #writerEnd: WriterEnd
  readonly #replicaEnd: ReplicaEnd
  readonly #copying: Copying
  readonly #clearing: IntentClearing
  readonly #commands: SessionCommands
  readonly #verifying: Verifying
  readonly #keptCopy: KeptCopy | null
  readonly #view: StatusView
  /** Called when the session has ended and its files are gone. */
  readonly #onEnded: () => void
  #writer: Writer | null = null

  private constructor(
    id: string,
    deps: SessionHostDeps,
    files: SessionFiles,
    trust: BootTrust,
    onEnded: () => void,
  ) {
    this.id = id
    this.#deps = deps
    this.#files = files
    this.#trust = trust
    this.#onEnded = onEnded
    const edge: SessionEdge = {
      isWriter: () => this.#writer !== null,
      becomeWriter: () => this.#becomeWriter(),
      carryOut: (effect) => this.#carryOut(effect),
      broken: () => this.#stopAll(),
      failed: (error) => this.#trust.failed(error, deps.clock.wallMs()),
    }
    const bootId = trust.bootId
    const parts = assemble({ id, deps, files, bootId, edge, writer: () => this.#writer })
    this.session = parts.session
    this.#core = parts.core
    this.#members = parts.members
    this.#names = parts.names
    this.#greeting = parts.greeting
    this.#writerEnd = parts.writerEnd
    this.#replicaEnd = parts.replicaEnd
    this.#copying = parts.copying
    this.#clearing = parts.clearing
    this.#commands = parts.commands
    this.#verifying = parts.verifying
    this.#keptCopy = parts.keptCopy
    this.#view = parts.view
  }

  /** Opens or creates the session's files; nothing is served or dialled before `start`. */
  static async load(
    id: string,
    deps: SessionHostDeps,
    onEnded: () => void,
  ): Promise<SessionRuntime> {
    const { dataDir, clock, log } = deps
    const trust = new BootTrust(id, deps.bootId, deps.marks, log)
    const { bootId } = trust
    if (bootId !== deps.bootId) {
      log.warn(
        { session: id },
        'the disk of this session failed in this boot: taken for another boot',
      )
    }
    let runtime: SessionRuntime | undefined
    try {
      const files = await SessionFiles.open({ id, dataDir, bootId, clock, log })
      runtime = new SessionRuntime(id, deps, files, trust, onEnded)
      await runtime.#members.openAll()
      await runtime.#verifying.load()
      await runtime.#keptCopy?.dropStray()
      return runtime
    } catch (error) {
      // It is tried again, by commands too: nothing is left open. What a disk lost before anybody asked it counts as well.
      trust.failed(error, clock.wallMs())
      if (runtime !== undefined) await runtime.#closeFiles().catch(() => undefined)
      throw error
    }
  }

  /** Goes on where the last process was. */
  start(): Promise<void> {
    // Of a session whose end was carried out only the epoch file is left.
    const over = this.session.role === 'none' && [...this.#members.values()].length === 0
    return this.#core.handle({ kind: 'start', now: this.#core.now(), over })
  }

  // -- effects --------------------------------------------------------------------------------------------------------

  async #carryOut(effect: WorldEffect): Promise<void> {
    switch (effect.kind) {
      case 'persist':
        return this.#files.epoch.write(effect.stored)
      case 'make_durable':
        return this.#members.flush()
      case 'mark_joined':
        return this.#members.markJoined(effect.members)
      case 'serve':
        return this.#serve()
      case 'refuse':
        return this.#refuse(effect.reason)
      case 'end':
        return this.#end(effect)
      case 'input':
        this.#writer?.setInput(effect.open && !this.#core.closing)
        return
      case 'release':
        this.#writer?.release()
        return
      case 'ask':
        return this.#ask(effect.ask)
      case 'dial':
        if (effect.on) this.#replicaEnd.startDialling()
        else this.#replicaEnd.stopDialling()
        return
      case 'drop_link':
        return this.#dropLink(effect.tell)
      case 'send':
        return this.#send(effect.message)
      case 'applied_from':
        this.#files.run.begin(this.session.gate.sequence)
        return
      case 'resend':
        return this.#writerEnd.resend(effect.after)
      case 'begin_copy':
        this.#writerEnd.send({ kind: 'copy_begin', sequence: this.session.gate.sequence })
        return
      case 'forget_frames':
        this.#writer?.forgetFrames(effect.mark)
        return
      case 'start_copy':
        return this.#copying.start(effect.scope, effect.regions)
      case 'stop_copy':
        return this.#copying.stop()
      case 'reconcile':
        return this.#copying.reconcile(effect.scope)
      case 'drain':
        return this.#copying.drain()
      case 'log_frames':
        this.#writer?.logFrames(effect.on)
        return
      case 'watch_catch_up':
        this.#writer?.watchCatchUp(() =>
          this.#core.post({ kind: 'caught_up', now: this.#core.now() }),
        )
        return
      case 'clear_changes':
        return this.#clearChanges(effect.epoch)
      case 'keep_copy':
        this.#kept.keep(effect.id, effect.ownOnly)
        return
      case 'restore_kept':
        return this.#kept.restore(effect.id)
      case 'release_kept':
        return this.#kept.release(effect.id, effect.divergence)
      default:
        return unreachable(effect)
    }
  }

  get #kept(): KeptCopy {
    assert(this.#keptCopy !== null, 'a session keeps copies only where there are snapshots')
    return this.#keptCopy
  }

  /** Both sides are equal but for what is in flight. */
  async #clearChanges(epoch: number): Promise<void> {
    for (const { changes } of this.#members.values()) changes.clear(epoch)
    this.#writer?.changesCleared()
    this.#copying.changesCleared()
    if (this.session.role !== 'replica') return
    this.#members.beginRound()
    for (const member of this.#members.values()) await saveRound(member)
  }

  #ask(ask: WitnessAsk): void {
    const core = this.#core
    const sentMs = core.now()
    this.#deps
      .askWitness(this.id, ask)
      .catch((error: unknown) => {
        core.log.warn({ err: error, ask: ask.kind }, 'witness could not be asked')
        return null
      })
      .then((answer) => core.handle({ kind: 'witness', now: core.now(), ask, sentMs, answer }))
      .catch((error: unknown) => core.fatal(error))
  }

  #send(message: SessionMessage): void {
    if (message.kind === 'risen' || message.kind === 'epoch_accepted') {
      this.#replicaEnd.send(message)
    } else this.#writerEnd.send(message)
  }

  #refusal(tell: boolean): Refuse | null {
    const { record } = this.session.stored
    const text = `epoch ${record.epoch} is known here`
    return tell ? { kind: 'refuse', code: 'STALE_EPOCH', text, record } : null
  }

  #dropLink(tell: boolean): void {
    this.#writerEnd.drop(this.#refusal(tell))
    this.#replicaEnd.drop(this.#refusal(tell))
  }

  /** The session does nothing more: whatever link there is. */
  #hangUp(tell: boolean): void {
    this.#writerEnd.hangUp(this.#refusal(tell))
    this.#replicaEnd.hangUp(this.#refusal(tell))
  }

  async #becomeWriter(): Promise<void> {
    const { run } = this.#files
    const writer = new Writer({
      gate: this.session.gate,
      clock: this.#deps.clock,
      run,
      holdBytes: this.#deps.settings.holdBytes,
      frameLogBytes: this.#deps.settings.frameLogBytes ?? FRAME_LOG_BYTES,
      onLocalError: (member, error) => {
        this.#core.log.error({ member, err: error }, 'local write failed')
        this.#trust.failed(error, this.#deps.clock.wallMs())
        this.#copying.kick()
      },
      // After the loss of the link that may have brought it about.
      onLogDropped: () => {
        queueMicrotask(() => this.#core.post({ kind: 'log_dropped', now: this.#core.now() }))
      },
    })
    run.begin(this.session.gate.sequence)
    for (const member of this.#members.values()) {
      // By force, without a full copy: whatever the other side has, it differs from what is here now.
      if (!member.stored.joined) member.changes.markAll()
      writer.addMember(member)
    }
    this.#writer = writer
    // What this side writes from now on is the truth, also of a member that had only part of a copy (by force).
    await this.#members.markJoined(this.#members.indexes)
  }

  async #serve(): Promise<void> {
    for (const member of this.#members.values()) {
      const device = this.#writer?.members.get(member.index)?.device
      assert(device !== undefined, 'the writer knows its members')
      await this.#names.serve(member, device)
    }
  }

  #refuse(reason: string): void {
    this.#names.refuseAll(reason)
    if (this.session.role === 'writer') return
    this.#writer?.fail(IO_ERRORS.ESHUTDOWN)
    this.#writer = null
  }

  /** The session is over: its volumes go on without it, and only its last epoch stays. */
  async #end({ serving, copy, torn }: Extract<WorldEffect, { kind: 'end' }>): Promise<void> {
    this.#replicaEnd.stopDialling()
    this.#copying.stop()
    this.#hangUp(true)
    if (serving === 'standby') this.#writer?.fail(IO_ERRORS.ESHUTDOWN)
    else this.#writer?.becomePlain()
    // From here on whoever loses power loses nothing of the copy.
    const { session, epoch } = this.session.stored.record
    const note = { session, epoch, ...(torn ? { torn } : {}) }
    const left = copy && (await this.#members.flushOrNot()) ? note : undefined
    for (const member of this.#members.values()) {
      const whole = member.stored.joined ? left : undefined
      await this.#names.leave(member, serving, 'the session of this volume has ended', whole)
    }
    this.#writer = null
    this.#core.end()
    await this.#verifying.close(false)
    await this.#closeFiles()
    await this.#files.forgetButEpoch()
    this.#trust.forget()
    this.#onEnded()
  }

  /** Broken: nothing is done for clients or the peer until the agent is started again. */
  #stopAll(): void {
    this.#replicaEnd.stopDialling()
    this.#copying.stop()
    this.#hangUp(false)
    this.#names.refuseAll('the session has failed at this site, see the log')
    this.#writer?.fail(IO_ERRORS.EIO)
  }

  // -- commands -------------------------------------------------------------------------------------------------------

  async open(request: CommandRequest<'session.open'>): Promise<SessionStatus> {
    await this.#commands.open(request)
    return this.status()
  }

  hold(request: CommandRequest<'session.hold'>): Promise<CommandAnswer<'session.hold'>> {
    return this.#commands.hold(request)
  }

  release(epoch: number): Promise<void> {
    return this.#commands.release(epoch)
  }

  remove(request: CommandRequest<'session.remove'>): Promise<void> {
    return this.#commands.remove(request)
  }

  closeUnder(request: CommandRequest<'session.close'>): Promise<void> {
    return this.#commands.close(request)
  }

  async arbitrate(request: CommandRequest<'session.arbitrate'>): Promise<SessionStatus> {
    await this.#commands.arbitrate(request)
    return this.status()
  }

  async promote(request: CommandRequest<'session.promote'>): Promise<SessionStatus> {
    await this.#commands.promote(request)
    return this.status()
  }

  setRate(copyRateBytes: number): Promise<void> {
    return this.#commands.setRate(copyRateBytes)
  }

  async rebuild(request: CommandRequest<'volume.rebuild'>): Promise<SessionStatus> {
    const { snapshots } = this.#deps
    await rebuildCopy(
      {
        core: this.#core,
        members: this.#members,
        replicaEnd: this.#replicaEnd,
        snapshotsOf: (volume) => snapshots?.ofVolume(volume) ?? [],
      },
      request,
    )
    return this.status()
  }

  verify(request: CommandRequest<'session.verify'>): Promise<CommandAnswer<'session.verify'>> {
    return this.#verifying.begin(request)
  }

  cancelVerify(run: string): Promise<CommandAnswer<'session.verify_cancel'>> {
    return this.#verifying.cancel(run)
  }

  verifyStatus(): CommandAnswer<'session.verify_show'> {
    return this.#verifying.show()
  }

  status(): SessionStatus {
    return this.#view.show()
  }

  usesVolume(id: string): boolean {
    return [...this.#members.values()].some(({ stored }) => this.#members.volumeId(stored) === id)
  }

  // -- link and timers ------------------------------------------------------------------------------------------------

  /** Decides about a dialler, at once. */
  answerHello(hello: Hello): Hello | Refuse {
    return this.#greeting.answer(hello)
  }

  /** A replica's link whose hello was answered with ours. */
  accepted(link: AcceptedLink): void {
    this.#writerEnd.accept(link)
  }

  /** From the host's timers. */
  tick(): void {
    const core = this.#core
    if (core.ended || core.broken !== null || core.busy) return
    const now = core.now()
    this.#writerEnd.checkSilence(now)
    this.#replicaEnd.checkSilence(now)
    core.post({ kind: 'tick', now, wallMs: core.clock.wallMs() })
    this.#clearing.tick(now)
    this.#verifying.tick()
  }

  /** The stream of a link waits for a disk of this side. */
  get blocked(): boolean {
    return this.#replicaEnd.blocked
  }

  heartbeat(): void {
    this.#writerEnd.heartbeat()
  }

  // -- end of the process ---------------------------------------------------------------------------------------------

  /** Drains what it can, makes it durable and marks it so. Without the peer the next start reconciles. */
  async close(): Promise<void> {
    const core = this.#core
    if (core.ended) return
    core.beginClosing()
    this.#replicaEnd.stopDialling()
    const writer = this.#writer
    if (writer !== null) {
      writer.setInput(false)
      if (this.session.linked) await core.waitFor(() => writer.settled, DRAIN_AT_CLOSE_MS)
    }
    await core.inTurn(async () => {
      if (core.ended) return
      this.#copying.stop()
      this.#hangUp(false)
      const settled = writer === null || writer.settled
      this.session.gate.mode = 'closed'
      writer?.fail(IO_ERRORS.ESHUTDOWN)
      await this.#verifying.close(true)
      const durable = await this.#members.flushOrNot()
      const good = settled && durable && core.broken === null
      const mark = good ? this.session.cleanMark() : null
      if (mark !== null) await this.#files.epoch.write(mark)
      core.end()
      await this.#closeFiles()
    })
  }

  /** For a session whose first `open` was refused: gives its volumes back as they were taken and removes its files. */
  discard(): Promise<void> {
    return this.#leave(() => this.#files.removeAll())
  }

  /** Back to rest, after a command that did not open this closed session. */
  retire(): Promise<void> {
    return this.#leave(() => this.#files.forgetButEpoch())
  }

  async #leave(removeFiles: () => Promise<void>): Promise<void> {
    await this.#core.inTurn(async () => {
      if (this.#core.ended) return
      this.#core.end()
      await this.#closeFiles()
      await removeFiles()
      this.#onEnded()
    })
  }

  async #closeFiles(): Promise<void> {
    await this.#members.closeFiles()
    await this.#files.close()
  }
}
