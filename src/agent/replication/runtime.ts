import { mkdir, open as openFile, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { assert, BrokenInvariant, unreachable } from '#base/assert.ts'
import { Fault, type FaultKind } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { STATUS } from '#wire/link/frame.ts'
import { FEATURES_HERE, type Hello, type LinkMessage, type Refuse } from '#wire/link/messages.ts'
import type { CommandAnswer, CommandRequest, SessionMember } from '#wire/site/commands.ts'
import type { SessionStatus, WitnessAsk } from '#wire/site/witness.ts'
import { IO_ERRORS } from '#agent/nbd/device.ts'
import { localDevice } from '#agent/nbd/local-device.ts'
import { VOLUME_UNKNOWN } from '#agent/volumes/faults.ts'
import type { Volume } from '#agent/volumes/volume.ts'
import { Copy, reconcileMember } from './copy.ts'
import { EpochFile } from './epoch-file.ts'
import {
  MEMBER_CHANGED,
  NOT_CONSISTENT,
  NOT_WRITER,
  NOT_YET,
  SESSION_FAILED,
  STALE_EPOCH,
  VOLUME_BUSY,
  WRONG_STATE,
} from './faults.ts'
import { IntentBitmap } from './intent-bitmap.ts'
import { type AcceptedLink, type DialledLink, dialLink } from './link.ts'
import {
  type MembersFile,
  NO_MEMBERS,
  readMembers,
  type StoredMember,
  writeMembers,
} from './members-file.ts'
import { PeerQueries, QueryFailed } from './peer-queries.ts'
import { Receiver } from './receiver.ts'
import { REGION_BYTES } from './regions.ts'
import { RunFile } from './run-file.ts'
import { Sender } from './sender.ts'
import {
  roleOf,
  Session,
  type SessionEffect,
  type SessionEvent,
  type SessionMessage,
  unopened,
} from './session.ts'
import type { SessionHostDeps } from './types.ts'
import { Writer, type WriterMember } from './writer.ts'

/* One session at one site: the shell around session.ts. It has no opinion; it feeds events, carries out effects, and owns the
 * session's files, its link, its writer and its copies.
 *
 * Everything that the session decides goes through one queue: an event's effects are carried out, in order and to their end,
 * before the next event is looked at. The hot path (writer, receiver) does not pass through the queue.
 *
 *     DIR/sessions/ID/epoch         record and what is known about this copy (epoch-file.ts)
 *                     run           last number, exact within one boot (run-file.ts)
 *                     members.json  members and the peer's address
 *                     intent-INDEX  dirty regions of each member (intent-bitmap.ts)
 */

/** How long `session.open` waits until the volumes can be written, before it asks to be repeated. */
const OPEN_WAIT_MS = 20_000
const DIAL_DELAY_MIN_MS = 50
const DIAL_DELAY_MAX_MS = 1_000
/** Buffer of a dialled link: several of the largest frames. */
const LINK_BUFFER_BYTES = 4 * 1024 * 1024
const DRAIN_AT_CLOSE_MS = 3_000
const REMOVE_WAIT_MS = 5_000

const REFUSALS: Record<string, FaultKind> = {
  STALE_EPOCH,
  NOT_CONSISTENT,
  NOT_WRITER,
  WRONG_STATE,
  NOT_YET,
}

interface OpenMember {
  stored: StoredMember
  readonly volume: Volume
  readonly intent: IntentBitmap
}

/** Name of the epoch file in the folder of its session. */
const EPOCH_FILE = 'epoch'

export class SessionRuntime {
  readonly id: string
  readonly session: Session
  readonly #deps: SessionHostDeps
  readonly #log: Log
  readonly #directory: string
  readonly #epochFile: EpochFile
  readonly #run: RunFile
  readonly #members = new Map<number, OpenMember>()
  #membersFile: MembersFile
  /** Called when the session has ended and its files are gone. */
  readonly #onEnded: () => void

  #queue: Promise<void> = Promise.resolve()
  #queued = 0
  #refused: { code: string; text: string } | null = null
  #closing = false
  #ended = false
  /** Why the session does nothing any more. */
  #broken: Fault | null = null
  /** Woken after every event. */
  readonly #watchers = new Set<() => void>()

  // Writer
  #writer: Writer | null = null
  #sender: Sender | null = null
  #queries: PeerQueries | null = null
  #copy: Copy | null = null
  #linkUpMs = 0
  #copyTotal = 0
  /** Members that the replica has in full. */
  readonly #peerJoined = new Set<number>()
  /** Members whose replica said that it is one hole when this link began. */
  readonly #blank = new Set<number>()
  /** Members that the last `rise` was about. */
  #rising: readonly number[] = []
  /** Raised to make answers of background work that was stopped count for nothing. */
  #work = 0
  #clearing = false
  #nextClearMs = 0

  // Replica
  #receiver: Receiver | null = null
  #dialling: AbortController | null = null

  private constructor(
    id: string,
    deps: SessionHostDeps,
    parts: {
      readonly directory: string
      readonly epochFile: EpochFile
      readonly run: RunFile
      readonly membersFile: MembersFile
    },
    onEnded: () => void,
  ) {
    this.id = id
    this.#deps = deps
    this.#log = deps.log.child({ session: id })
    this.#directory = parts.directory
    this.#epochFile = parts.epochFile
    this.#run = parts.run
    this.#membersFile = parts.membersFile
    this.#onEnded = onEnded
    this.session = new Session(
      {
        session: id,
        site: deps.site,
        silenceMs: deps.settings.peerSilenceMs,
        renewMs: deps.settings.renewMs,
      },
      parts.epochFile.found ?? unopened(id),
      parts.run.known,
      deps.clock.bootMs(),
    )
  }

  /** Opens or creates the session's files; nothing is served or dialled before `start`. */
  static async load(
    id: string,
    deps: SessionHostDeps,
    onEnded: () => void,
  ): Promise<SessionRuntime> {
    const directory = join(deps.dataDir, 'sessions', id)
    await mkdir(directory, { recursive: true, mode: 0o700 })
    let epochFile = await EpochFile.open(join(directory, EPOCH_FILE))
    let members = await readMembers(directory)
    if (epochFile.damaged || members === 'damaged') {
      // Nothing may be concluded from what is left. The control plane opens the session again; everything is compared.
      deps.log.error({ session: id, directory }, 'state of the session is damaged, set aside')
      await epochFile.close()
      const aside = `${directory}.damaged-${deps.clock.wallMs()}`
      await rename(directory, aside)
      await mkdir(directory, { recursive: true, mode: 0o700 })
      epochFile = await EpochFile.open(join(directory, EPOCH_FILE))
      members = null
    }
    await syncDirectory(directory)
    await syncDirectory(join(deps.dataDir, 'sessions'))
    const run = new RunFile(join(directory, 'run'), deps.bootId)
    const membersFile = members ?? NO_MEMBERS
    const runtime = new SessionRuntime(
      id,
      deps,
      { directory, epochFile, run, membersFile },
      onEnded,
    )
    for (const member of membersFile.members) await runtime.#openMember(member, false)
    return runtime
  }

  /** Goes on where the last process was. */
  start(): Promise<void> {
    return this.handle({ kind: 'start', now: this.#now() })
  }

  // -- queue ----------------------------------------------------------------------------------------------------------

  handle(event: SessionEvent): Promise<void> {
    return this.#enqueue(() => this.#process(event))
  }

  #enqueue<T>(work: () => Promise<T>): Promise<T> {
    this.#queued++
    const result = this.#queue.then(work)
    this.#queue = result.then(
      () => this.#dequeued(),
      () => this.#dequeued(),
    )
    return result
  }

  #dequeued(): void {
    this.#queued--
    for (const wake of this.#watchers) wake()
  }

  /** Events whose sender waits for nothing. A failure here is one of this site's disk, or a mistake of ours: end the process
   *  rather than go on with effects half done. */
  post(event: SessionEvent): void {
    this.handle(event).catch((error: unknown) => this.#fatal(error))
  }

  #fatal(error: unknown): void {
    this.session.gate.mode = 'closed'
    this.#log.fatal({ err: error }, 'effects of the session could not be carried out')
    process.nextTick(() => {
      throw error
    })
  }

  async #process(event: SessionEvent): Promise<void> {
    if (this.#ended) return
    if (this.#broken !== null) {
      // Commands must hear of it; events have nobody to tell.
      if (event.kind === 'open' || event.kind === 'hold' || event.kind === 'close')
        throw this.#broken
      return
    }
    const before = this.session.phase
    const effects = this.session.handle(event)
    if (before !== this.session.phase) {
      const { epoch, state } = this.session.stored.record
      this.#log.info(
        { from: before, to: this.session.phase, on: event.kind, epoch, state },
        'phase',
      )
    }
    if (this.session.role === 'writer' && this.#writer === null) await this.#becomeWriter()
    for (const effect of effects) {
      try {
        await this.#carryOut(effect)
      } catch (error) {
        if (error instanceof BrokenInvariant) throw error
        return this.#break(effect.kind, error)
      }
    }
  }

  /**
   * This site's disk did not do what the session has decided on. What is on disk and what the session believes may differ from now on, so
   * this session does nothing more until the agent is started again; the other sessions go on.
   */
  #break(doing: string, error: unknown): void {
    this.#log.error({ err: error, doing }, 'session stopped: its state could not be kept')
    this.#broken = new Fault(SESSION_FAILED, `${doing} of session ${this.id}`, {}, error)
    this.session.gate.mode = 'closed'
    this.#stopDialling()
    this.#stopCopy()
    this.#dropLink(false)
    for (const { stored } of this.#members.values()) {
      for (const name of this.#names(stored)) {
        this.#deps.exports.refuse(name, 'the session has failed at this site, see the log')
      }
    }
    this.#writer?.fail(IO_ERRORS.EIO)
  }

  #now(): number {
    return this.#deps.clock.bootMs()
  }

  // -- effects --------------------------------------------------------------------------------------------------------

  async #carryOut(effect: SessionEffect): Promise<void> {
    switch (effect.kind) {
      case 'persist':
        return this.#epochFile.write(effect.stored)
      case 'make_durable':
        await Promise.all([...this.#members.values()].map(({ volume }) => volume.flush()))
        return
      case 'mark_joined':
        return this.#markJoined(effect.members)
      case 'serve':
        return this.#serve()
      case 'refuse':
        return this.#refuse(effect.reason)
      case 'end':
        return this.#end(effect.serving)
      case 'input':
        this.#writer?.setInput(effect.open && !this.#closing)
        return
      case 'release':
        this.#writer?.release()
        return
      case 'ask':
        this.#ask(effect.ask)
        return
      case 'dial':
        if (effect.on) this.#startDialling()
        else this.#stopDialling()
        return
      case 'drop_link':
        this.#dropLink(effect.tell)
        return
      case 'send':
        this.#send(effect.message)
        return
      case 'applied_from':
        this.#run.begin(this.session.gate.sequence)
        return
      case 'resend':
        this.#writer?.setSender(this.#sender)
        this.#writer?.resend(effect.after)
        return
      case 'forget_frames':
        this.#writer?.forgetFrames(effect.mark)
        return
      case 'start_copy':
        this.#startCopy(effect.scope)
        return
      case 'stop_copy':
        this.#stopCopy()
        return
      case 'reconcile':
        this.#reconcile(effect.scope)
        return
      case 'drain':
        this.#drain()
        return
      case 'refuse_command':
        this.#refused = { code: effect.code, text: effect.text }
        return
      default:
        return unreachable(effect)
    }
  }

  #ask(ask: WitnessAsk): void {
    const sentMs = this.#now()
    this.#deps
      .askWitness(this.id, ask)
      .catch((error: unknown) => {
        this.#log.warn({ err: error, ask: ask.kind }, 'witness could not be asked')
        return null
      })
      .then((answer) => this.handle({ kind: 'witness', now: this.#now(), ask, sentMs, answer }))
      .catch((error: unknown) => this.#fatal(error))
  }

  #send(message: SessionMessage): void {
    if (message.kind === 'risen' || message.kind === 'epoch_accepted') {
      this.#receiver?.message(message)
      return
    }
    // `rise` lists members as the codec wants them: an array of its own.
    this.#sender?.message(
      message.kind === 'rise' ? { ...message, members: [...message.members] } : message,
    )
    if (message.kind === 'copy_begin') this.#writer?.setSender(this.#sender)
    if (message.kind === 'rise') {
      this.#rising = message.members
      this.#writer?.requirePeer()
    }
  }

  async #becomeWriter(): Promise<void> {
    const writer = new Writer({
      gate: this.session.gate,
      clock: this.#deps.clock,
      run: this.#run,
      holdBytes: this.#deps.settings.holdBytes,
      onLocalError: (member, error) => {
        this.#log.error({ member, err: error }, 'local write failed')
        this.#copy?.kick()
      },
    })
    this.#run.begin(this.session.gate.sequence)
    for (const [index, { volume, intent }] of this.#members) writer.addMember(index, volume, intent)
    this.#writer = writer
    // What this side writes from now on is the truth, also of a member that had only part of a copy (by force).
    await this.#markJoined([...this.#members.keys()])
  }

  // -- exports --------------------------------------------------------------------------------------------------------

  #names(member: StoredMember): readonly string[] {
    return [this.#volumeId(member), member.pair]
  }

  #volumeId(member: SessionMember): string {
    const volume = member.volumes[this.#deps.site]
    assert(volume !== undefined, 'a member has a volume at each site')
    return volume
  }

  async #serve(): Promise<void> {
    for (const member of this.#members.values()) await this.#serveMember(member)
  }

  /** A device that was served plainly until now is drained and swapped; its clients stay. */
  async #serveMember({ stored }: OpenMember): Promise<void> {
    const device = this.#writer?.members.get(stored.index)?.device
    assert(device !== undefined, 'the writer knows its members')
    const { exports } = this.#deps
    for (const name of this.#names(stored)) {
      const known = exports.open(name)
      if ('device' in known && known.device === device) continue
      await exports.hold(name)
      exports.serve(name, device)
      exports.release(name)
    }
  }

  #refuse(reason: string): void {
    for (const { stored } of this.#members.values()) {
      for (const name of this.#names(stored)) this.#deps.exports.refuse(name, reason)
    }
    if (this.session.role === 'writer') return
    this.#writer?.fail(IO_ERRORS.ESHUTDOWN)
    this.#writer = null
  }

  async #end(serving: 'standalone' | 'standby'): Promise<void> {
    this.#stopDialling()
    this.#stopCopy()
    this.#dropLink(true)
    if (serving === 'standby') this.#writer?.fail(IO_ERRORS.ESHUTDOWN)
    else this.#writer?.becomePlain()
    for (const { stored, volume } of this.#members.values()) {
      await this.#leaveMember(stored, volume, serving, 'the session of this volume has ended')
    }
    this.#writer = null
    this.#ended = true
    await this.#closeFiles()
    await this.#forgetButEpoch()
    this.#onEnded()
  }

  /**
   * Everything of the session goes, but the epoch under which it was closed stays: a command that was sent before the close and
   * comes late must be refused, or it would bring an epoch back that nobody may act under any more. A crash in between is
   * mended at the next start, which ends a closed session once more.
   */
  async #forgetButEpoch(): Promise<void> {
    for (const name of await readdir(this.#directory)) {
      if (name === EPOCH_FILE) continue
      await rm(join(this.#directory, name), { recursive: true, force: true })
    }
    await syncDirectory(this.#directory)
  }

  /** Recorded before it is served plainly, refused before it is recorded: a crash in between errs towards refusing. */
  async #leaveMember(
    stored: StoredMember,
    volume: Volume,
    serving: 'standalone' | 'standby',
    reason: string,
  ): Promise<void> {
    const { exports, volumes } = this.#deps
    const id = this.#volumeId(stored)
    if (serving === 'standby') {
      for (const name of this.#names(stored)) exports.refuse(name, reason)
      await volumes.setServing(id, { mode: 'standby', reason })
      return
    }
    await volumes.setServing(id, { mode: 'standalone' })
    const device = localDevice(volume)
    for (const name of this.#names(stored)) {
      await exports.hold(name)
      exports.serve(name, device)
      exports.release(name)
    }
  }

  // -- members --------------------------------------------------------------------------------------------------------

  async #openMember(stored: StoredMember, fresh: boolean): Promise<void> {
    const volume = await this.#deps.volumes.open(this.#volumeId(stored))
    const path = join(this.#directory, `intent-${stored.index}`)
    const intent = await IntentBitmap.open(path, volume.sizeBytes, fresh)
    this.#members.set(stored.index, { stored, volume, intent })
  }

  /** Adds, grows and keeps; true when something was added or grew. Refuses before anything is changed. */
  async #takeMembers(
    members: readonly SessionMember[],
    peerLink: string,
    asWriter: boolean,
  ): Promise<boolean> {
    const { volumes } = this.#deps
    for (const member of members) {
      const known = this.#members.get(member.index)?.stored
      const id = this.#volumeId(member)
      if (known !== undefined && (this.#volumeId(known) !== id || known.pair !== member.pair)) {
        throw new Fault(MEMBER_CHANGED, `member ${member.index} of session ${this.id}`)
      }
      if (this.#membersFile.removed.includes(member.index)) {
        throw new Fault(MEMBER_CHANGED, `member ${member.index} was removed before`)
      }
      const record = volumes.record(id)
      if (record === undefined) throw new Fault(VOLUME_UNKNOWN, `volume ${id}`, { volume: id })
      if (record.serving.mode === 'session' && record.serving.session !== this.id) {
        throw new Fault(VOLUME_BUSY, `volume ${id}`, { session: record.serving.session })
      }
    }
    let changed = false
    const stored = new Map(this.#membersFile.members.map((member) => [member.index, member]))
    for (const member of members) {
      const id = this.#volumeId(member)
      const known = stored.get(member.index)
      if ((volumes.record(id)?.sizeBytes ?? 0) < member.size_bytes) {
        await volumes.extend(id, member.size_bytes)
        changed = true
      }
      stored.set(member.index, { ...member, joined: known?.joined ?? asWriter })
      changed ||= known === undefined
    }
    this.#membersFile = {
      ...this.#membersFile,
      peer_link: peerLink === '' ? this.#membersFile.peer_link : peerLink,
      members: [...stored.values()].sort((a, b) => a.index - b.index),
    }
    await writeMembers(this.#directory, this.#membersFile)
    for (const member of this.#membersFile.members) {
      const known = this.#members.get(member.index)
      if (known !== undefined) {
        known.stored = member
        known.intent.grow(known.volume.sizeBytes)
        continue
      }
      await this.#deps.volumes.setServing(this.#volumeId(member), {
        mode: 'session',
        session: this.id,
        pair: member.pair,
      })
      await this.#openMember(member, true)
      const added = this.#members.get(member.index) as OpenMember
      if (this.#writer !== null) {
        this.#writer.addMember(member.index, added.volume, added.intent)
        if (this.session.served) await this.#serveMember(added)
      } else if (this.session.role === 'replica') {
        this.#refuse(`written at ${this.session.stored.record.writer}`)
      }
    }
    for (const member of this.#writer?.members.values() ?? []) {
      member.todo.grow(Math.ceil(member.volume.sizeBytes / REGION_BYTES))
    }
    return changed
  }

  async #markJoined(indexes: readonly number[]): Promise<void> {
    const now = new Set(indexes)
    if (this.#membersFile.members.every((member) => member.joined || !now.has(member.index))) return
    this.#membersFile = {
      ...this.#membersFile,
      members: this.#membersFile.members.map((member) =>
        now.has(member.index) ? { ...member, joined: true } : member,
      ),
    }
    await writeMembers(this.#directory, this.#membersFile)
    for (const member of this.#membersFile.members) {
      const open = this.#members.get(member.index)
      if (open !== undefined) open.stored = member
    }
  }

  // -- commands -------------------------------------------------------------------------------------------------------

  async open(request: CommandRequest<'session.open'>): Promise<SessionStatus> {
    const { record, members, peer_link, force } = request
    await this.#enqueue(async () => {
      if (this.#ended) throw new Fault(NOT_YET, `session ${this.id} is just ending`)
      if (record.epoch < this.session.stored.record.epoch) {
        throw new Fault(STALE_EPOCH, `opening session ${this.id}`, { epoch: record.epoch })
      }
      if (this.session.role === 'none' && record.state === 'failed_over' && !force) {
        // Before the members are taken: a site that knows nothing must not touch their volumes.
        throw new Fault(NOT_CONSISTENT, `opening session ${this.id}: it was never open here`)
      }
      const joined = this.#membersFile.members.every((member) => member.joined)
      const asWriter = roleOf(record, this.#deps.site) === 'writer'
      const changed = await this.#takeMembers(members, peer_link, asWriter)
      const now = this.#now()
      await this.#command({ kind: 'open', now, record, force, joined }, 'opening')
      if (changed) await this.#process({ kind: 'members_changed', now: this.#now() })
    })
    const becomesWriter = this.session.role === 'writer' && record.state !== 'resyncing'
    if (becomesWriter && !this.session.served) {
      const ready = () => this.session.role !== 'writer' || this.session.served
      if (!(await this.#until(ready, OPEN_WAIT_MS))) {
        throw new Fault(NOT_YET, `session ${this.id} is ${this.session.phase}`)
      }
    }
    return this.status()
  }

  async hold(request: CommandRequest<'session.hold'>): Promise<CommandAnswer<'session.hold'>> {
    const { epoch, hold_ms } = request
    await this.#enqueue(() =>
      this.#command({ kind: 'hold', now: this.#now(), epoch, holdMs: hold_ms }, 'holding'),
    )
    const ended = () => this.session.drained || this.session.phase !== 'draining'
    await this.#until(ended, hold_ms)
    return { drained: this.session.drained, sequence: this.session.gate.sequence }
  }

  async release(epoch: number): Promise<void> {
    await this.#enqueue(async () => {
      const known = this.session.stored.record.epoch
      if (epoch !== known) throw new Fault(STALE_EPOCH, `releasing session ${this.id}`, { epoch })
      await this.#process({ kind: 'release', now: this.#now() })
    })
  }

  async closeUnder(request: CommandRequest<'session.close'>): Promise<void> {
    const { record } = request
    await this.#enqueue(() => this.#command({ kind: 'close', now: this.#now(), record }, 'closing'))
  }

  async setRate(copyRateBytes: number): Promise<void> {
    await this.#enqueue(async () => {
      this.#membersFile = { ...this.#membersFile, copy_rate_bytes: copyRateBytes }
      await writeMembers(this.#directory, this.#membersFile)
      this.#copy?.kick()
    })
  }

  async remove(request: CommandRequest<'session.remove'>): Promise<void> {
    const { epoch, pairs, serving, reason } = request
    await this.#enqueue(async () => {
      if (epoch < this.session.stored.record.epoch) {
        throw new Fault(STALE_EPOCH, `removing from session ${this.id}`, { epoch })
      }
      const leaving = [...this.#members.values()].filter(({ stored }) =>
        pairs.includes(stored.pair),
      )
      for (const open of leaving) await this.#removeMember(open, serving, reason)
    })
  }

  async #removeMember(
    { stored, volume, intent }: OpenMember,
    serving: 'standalone' | 'standby',
    reason: string,
  ): Promise<void> {
    const { exports } = this.#deps
    const { index } = stored
    const names = this.#names(stored)
    if (this.#writer !== null && this.session.served) {
      if (serving === 'standby') for (const name of names) exports.refuse(name, reason)
      else {
        const drained = Promise.all(names.map((name) => exports.hold(name)))
        let done = false
        drained.then(
          () => (done = true),
          () => undefined,
        )
        const settled = await this.#waitFor(() => done, REMOVE_WAIT_MS)
        if (!settled) {
          for (const name of names) exports.release(name)
          throw new Fault(NOT_YET, `requests of pair ${stored.pair} are still held`)
        }
      }
    }
    this.#writer?.removeMember(index)
    this.#membersFile = {
      ...this.#membersFile,
      members: this.#membersFile.members.filter((member) => member.index !== index),
      removed: [...new Set([...this.#membersFile.removed, index])],
    }
    await writeMembers(this.#directory, this.#membersFile)
    this.#members.delete(index)
    await this.#leaveMember(stored, volume, serving, reason)
    exports.remove(stored.pair, reason)
    await intent.close()
    await rm(join(this.#directory, `intent-${index}`), { force: true })
    this.#copy?.kick()
  }

  async #command(event: SessionEvent, doing: string): Promise<void> {
    this.#refused = null
    await this.#process(event)
    const refused = this.#refused as { code: string; text: string } | null
    this.#refused = null
    if (this.#broken !== null) throw this.#broken
    if (refused === null) return
    throw new Fault(
      REFUSALS[refused.code] ?? WRONG_STATE,
      `${doing} session ${this.id}: ${refused.text}`,
    )
  }

  /** Resolves true as soon as `condition` holds after an event, false after `ms`. */
  #until(condition: () => boolean, ms: number): Promise<boolean> {
    if (condition()) return Promise.resolve(true)
    return new Promise((resolve) => {
      const end = (result: boolean) => {
        this.#watchers.delete(look)
        cancel()
        resolve(result)
      }
      const look = () => {
        if (condition()) end(true)
      }
      const cancel = this.#deps.clock.after(ms, () => end(condition()))
      this.#watchers.add(look)
    })
  }

  /** As `until`, for conditions that no event announces. */
  async #waitFor(condition: () => boolean, ms: number): Promise<boolean> {
    const end = this.#now() + ms
    while (!condition() && this.#now() < end) {
      await new Promise<void>((resolve) => void this.#deps.clock.after(20, resolve))
    }
    return condition()
  }

  // -- link, writer's end ---------------------------------------------------------------------------------------------

  /** Decides about a dialler, at once. */
  answerHello(hello: Hello): Hello | Refuse {
    const { record } = this.session.stored
    const refuse = (code: string, text: string): Refuse => ({ kind: 'refuse', code, text, record })
    if (this.#ended || this.#closing || this.#broken !== null)
      return refuse('NOT_READY', 'the session is closing')
    if (hello.record.epoch > record.epoch) {
      this.post({ kind: 'peer_record', now: this.#now(), record: hello.record })
      return refuse('OLDER_EPOCH', `epoch ${record.epoch} is known here`)
    }
    if (hello.record.epoch < record.epoch) {
      return refuse('STALE_EPOCH', `epoch ${record.epoch} is known here`)
    }
    if (this.session.role !== 'writer' || hello.site !== record.replica) {
      return refuse('WRONG_ROLE', `this site is ${this.session.role} in epoch ${record.epoch}`)
    }
    return this.#hello(new Set())
  }

  /** Members whose volume is one hole. */
  async #blankMembers(): Promise<ReadonlySet<number>> {
    const blank = new Set<number>()
    for (const [index, { volume }] of this.#members) {
      if (volume.failed !== undefined) continue
      const [first] = await volume.extents(0, volume.sizeBytes, 1)
      if (first?.hole === true && first.length === volume.sizeBytes) blank.add(index)
    }
    return blank
  }

  #hello(blank: ReadonlySet<number>): Hello {
    const dirty = [...this.#members.values()].some(({ intent }) => intent.count > 0)
    return {
      kind: 'hello',
      features: FEATURES_HERE,
      site: this.#deps.site,
      ...this.session.hello(dirty),
      bootId: this.#deps.bootId,
      runId: this.#deps.runId,
      members: this.#membersFile.members.map(({ index, size_bytes, joined }) => ({
        index,
        sizeBytes: size_bytes,
        joined,
        blank: blank.has(index),
      })),
    }
  }

  /** A replica's link whose hello was answered with ours. It replaces an older one. */
  accepted({ socket, hello, rest }: AcceptedLink): void {
    if (this.#sender !== null) {
      this.#loseSender()
      this.post({ kind: 'link_down', now: this.#now() })
    }
    const sender: Sender = new Sender(socket, {
      acknowledged: (sequence, status) => {
        if (sequence > this.session.gate.sequence) {
          return this.#linkBroken(sender, 'the replica acknowledged what was never sent')
        }
        this.#writer?.acknowledged(sequence)
        this.#copy?.acknowledged()
        if (status !== STATUS.OK) {
          this.#log.error({ sequence, status }, 'the replica cannot apply the next write')
        }
      },
      flushed: (id, status) => this.#writer?.flushed(id, status),
      message: (message) => this.#fromReplica(message),
      echoed: (sentMs) => {
        this.session.contact.heard(sentMs)
        this.#writer?.release()
      },
      checksums: (id, status, payload) => own.answered(id, status, payload),
      block: (id, status, payload) => own.answered(id, status, payload),
      closed: (reason) => this.#linkBroken(sender, reason),
    })
    const own = new PeerQueries(sender)
    this.#sender = sender
    this.#queries = own
    this.#linkUpMs = this.#now()
    this.#peerJoined.clear()
    this.#blank.clear()
    for (const { index, joined, blank } of hello.members) {
      if (joined) this.#peerJoined.add(index)
      if (blank) this.#blank.add(index)
    }
    this.handle({ kind: 'link_up', now: this.#now(), hello }).then(
      () => {
        if (this.#sender !== sender) return
        sender.start(rest)
        sender.heartbeat(this.#now())
      },
      (error: unknown) => this.#fatal(error),
    )
  }

  #linkBroken(sender: Sender, reason: string): void {
    if (this.#sender !== sender) return
    this.#log.info({ reason }, 'link lost')
    this.#loseSender()
    this.post({ kind: 'link_down', now: this.#now() })
  }

  #loseSender(): void {
    this.#sender?.destroy()
    this.#sender = null
    this.#queries?.end()
    this.#queries = null
    this.#writer?.setSender(null)
  }

  #fromReplica(message: LinkMessage): void {
    switch (message.kind) {
      case 'refuse':
        if (message.record !== null) {
          this.post({ kind: 'peer_record', now: this.#now(), record: message.record })
        }
        return
      case 'joined':
        this.#peerJoined.add(message.member)
        return
      case 'risen':
        for (const index of this.#rising) {
          this.#peerJoined.add(index)
        }
        return this.post({ kind: 'message', now: this.#now(), message })
      case 'epoch_accepted':
        return this.post({ kind: 'message', now: this.#now(), message })
      case 'copy_begin':
      case 'rise':
      case 'epoch':
      case 'join':
        if (this.#sender !== null)
          this.#linkBroken(this.#sender, `the replica sent ${message.kind}`)
    }
  }

  // -- copies ---------------------------------------------------------------------------------------------------------

  #startCopy(scope: 'all' | 'dirty' | 'joining'): void {
    const writer = this.#writer
    const sender = this.#sender
    const queries = this.#queries
    if (writer === null || sender === null || queries === null) return
    for (const [index, { intent }] of this.#members) {
      const member = writer.members.get(index)
      if (member === undefined) continue
      if (scope === 'all' || !this.#peerJoined.has(index)) {
        const begun = scope === 'joining' && this.#joining.has(index)
        if (!begun) member.todo.addAll()
        if (scope === 'joining') this.#joining.add(index)
      } else if (scope === 'dirty') {
        for (let region = 0; region < intent.regions; region++) {
          if (intent.has(region)) member.todo.add(region)
        }
      }
    }
    this.#copyTotal = this.#copyLeft()
    if (this.#copy === null) {
      this.#copy = new Copy({
        writer,
        gate: this.session.gate,
        sender,
        queries,
        clock: this.#deps.clock,
        blank: this.#blank,
        rateBytes: () => this.#copyRate(),
        onDone: () => this.#copyDone(),
        onError: (error) => this.#log.warn({ err: error }, 'copy could not read, trying again'),
      })
    }
    this.#copy.kick()
  }

  /** Members whose first copy this link has begun. */
  readonly #joining = new Set<number>()

  #copyDone(): void {
    if (this.session.phase === 'copying') {
      const members = [...(this.#writer?.members.keys() ?? [])]
      this.post({ kind: 'copied', now: this.#now(), members })
      return
    }
    for (const index of this.#joining) {
      if (!this.#peerJoined.has(index)) this.#sender?.message({ kind: 'join', member: index })
    }
    this.#joining.clear()
  }

  #stopCopy(): void {
    this.#work++
    this.#joining.clear()
    if (this.#copy === null) return
    this.#copy.stop()
    this.#copy = null
  }

  #copyRate(): number {
    return this.#membersFile.copy_rate_bytes ?? this.#deps.settings.syncRateBytes
  }

  #copyLeft(): number {
    let left = 0
    for (const member of this.#writer?.members.values() ?? []) {
      left += member.todo.count + (this.#copy?.openRegions(member) ?? 0)
    }
    return left
  }

  #reconcile(scope: 'all' | 'dirty'): void {
    const queries = this.#queries
    const writer = this.#writer
    if (queries === null || writer === null) return
    const work = ++this.#work
    const members = [...writer.members.values()].filter(({ index }) => this.#peerJoined.has(index))
    const run = async (): Promise<void> => {
      let fetched = 0
      for (const member of members) {
        const isDirty = (region: number) => scope === 'all' || member.intent.has(region)
        const result = await reconcileMember(member, queries, isDirty)
        fetched += result.fetchedBytes
      }
      this.#log.info({ fetched_bytes: fetched, scope }, 'reconciled from the replica')
      if (work === this.#work) await this.handle({ kind: 'reconciled', now: this.#now() })
    }
    run().catch((error: unknown) => {
      if (error instanceof QueryFailed) {
        // The link's end is reported on its own; a read error over there ends the link here.
        if (this.#sender !== null && work === this.#work) {
          this.#linkBroken(this.#sender, error.message)
        }
        return
      }
      this.#fatal(error)
    })
  }

  #drain(): void {
    const writer = this.#writer
    if (writer === null) return
    const work = ++this.#work
    writer.whenSettled(() => {
      if (work !== this.#work) return
      for (const { intent } of this.#members.values()) intent.beginRound()
      writer
        .flushAll()
        .then(async (durable) => {
          if (!durable || work !== this.#work || this.session.phase !== 'draining') return
          // Nothing was taken since: both sides are equal and durable everywhere.
          for (const { intent } of this.#members.values()) {
            intent.endRound()
            await intent.save()
          }
          await this.handle({ kind: 'drained', now: this.#now() })
        })
        .catch((error: unknown) => this.#fatal(error))
    })
  }

  /**
   * Clears the intent bits of regions that nobody has touched since the last call: their writes are all numbered below the number
   * of that time, so once that is acknowledged and both sides have flushed, they are equal and durable. Regions in use keep their bits,
   * so that a busy volume does not pay for the same first touch again and again.
   */
  #clearIntent(): void {
    const writer = this.#writer
    const bits = [...this.#members.values()].reduce((sum, { intent }) => sum + intent.count, 0)
    if (writer === null || this.#clearing || bits === 0) return
    this.#clearing = true
    const round = this.#round
    const sender = this.#sender
    const stable = () =>
      this.#sender === sender && this.session.phase === 'following' && !this.#closing
    const run = async (): Promise<void> => {
      const begun = round?.sender === sender && this.session.gate.acknowledged >= round.sequence
      if (begun) {
        const durable = await writer.flushAll()
        if (!durable || !stable()) return
        for (const [index, { intent, volume }] of this.#members) {
          const todo = writer.members.get(index)?.todo
          if (volume.failed !== undefined || (todo !== undefined && todo.count > 0)) continue
          intent.endRound()
          await intent.save()
        }
      }
      for (const { intent } of this.#members.values()) intent.beginRound()
      this.#round = { sender, sequence: this.session.gate.sequence }
    }
    run()
      .catch((error: unknown) => this.#fatal(error))
      .finally(() => {
        this.#clearing = false
        this.#nextClearMs = this.#now() + this.#clearEveryMs
      })
  }

  /** The clearing round that was begun last, on which link and at which number. */
  #round: { readonly sender: Sender | null; readonly sequence: number } | undefined

  get #clearEveryMs(): number {
    return this.#deps.settings.intentClearMs ?? 10_000
  }

  // -- link, replica's end --------------------------------------------------------------------------------------------

  #startDialling(): void {
    if (this.#dialling !== null || this.#closing) return
    const control = new AbortController()
    this.#dialling = control
    this.#dialForEver(control.signal).catch((error: unknown) => this.#fatal(error))
  }

  #stopDialling(): void {
    this.#dialling?.abort()
    this.#dialling = null
  }

  async #dialForEver(signal: AbortSignal): Promise<void> {
    let delayMs = DIAL_DELAY_MIN_MS
    while (!signal.aborted) {
      const address = parseAddress(this.#membersFile.peer_link)
      if (address !== null && this.session.role === 'replica') {
        const linked = await this.#dialOnce(address, signal)
        if (linked) delayMs = DIAL_DELAY_MIN_MS
      }
      if (signal.aborted) return
      await new Promise<void>((resolve) => void this.#deps.clock.after(delayMs, resolve))
      delayMs = Math.min(delayMs * 2, DIAL_DELAY_MAX_MS)
    }
  }

  /** True when there was a link. Resolves when it is over. */
  async #dialOnce(
    address: { readonly host: string; readonly port: number },
    signal: AbortSignal,
  ): Promise<boolean> {
    const { security } = this.#deps.link
    const peerSite = this.session.stored.record.writer
    let link: DialledLink | Refuse
    try {
      const blank = await this.#blankMembers()
      const hello = this.#hello(blank)
      link = await dialLink({
        ...address,
        security,
        hello,
        peerSite,
        bufferBytes: LINK_BUFFER_BYTES,
        signal,
      })
    } catch (error) {
      this.#log.debug({ err: error, peer: this.#membersFile.peer_link }, 'no link')
      return false
    }
    if ('kind' in link) {
      this.#log.debug({ code: link.code, text: link.text }, 'link refused by the peer')
      if (link.record !== null) {
        await this.handle({ kind: 'peer_record', now: this.#now(), record: link.record })
      }
      return false
    }
    const { socket, buffer, hello } = link
    if (signal.aborted) {
      socket.destroy()
      return false
    }
    let over: () => void = () => undefined
    const ended = new Promise<void>((resolve) => (over = resolve))
    const receiver: Receiver = new Receiver({
      socket,
      buffer,
      gate: this.session.gate,
      silence: this.session.silence,
      run: this.#run,
      clock: this.#deps.clock,
      volume: (index) =>
        this.#members.get(index)?.volume ??
        (this.#membersFile.removed.includes(index) ? 'removed' : undefined),
      onMessage: (message) => this.#fromWriter(message),
      onClosed: (reason) => {
        if (this.#receiver === receiver) {
          this.#log.info({ reason }, 'link lost')
          this.#receiver = null
          this.post({ kind: 'link_down', now: this.#now() })
        }
        over()
      },
    })
    this.#receiver = receiver
    signal.addEventListener('abort', over, { once: true })
    await this.handle({ kind: 'link_up', now: this.#now(), hello })
    if (this.#receiver === receiver && this.session.linked) receiver.start()
    else if (this.#receiver === receiver) this.#dropLink(false)
    if (receiver.open) await ended
    signal.removeEventListener('abort', over)
    return true
  }

  async #fromWriter(message: LinkMessage): Promise<void> {
    switch (message.kind) {
      case 'refuse':
        if (message.record !== null) {
          await this.handle({ kind: 'peer_record', now: this.#now(), record: message.record })
        }
        return
      case 'join':
        await this.#enqueue(async () => {
          const member = this.#members.get(message.member)
          if (member === undefined) return
          await member.volume.flush()
          await this.#markJoined([message.member])
          this.#receiver?.message({ kind: 'joined', member: message.member })
        })
        return
      case 'copy_begin':
      case 'rise':
      case 'epoch':
        await this.handle({ kind: 'message', now: this.#now(), message })
        return
      case 'risen':
      case 'epoch_accepted':
      case 'joined':
        throw new Error(`the writer sent ${message.kind}`)
    }
  }

  // -- both ends ------------------------------------------------------------------------------------------------------

  #dropLink(tell: boolean): void {
    const { record } = this.session.stored
    const text = `epoch ${record.epoch} is known here`
    const refuse: Refuse = { kind: 'refuse', code: 'STALE_EPOCH', text, record }
    if (this.#sender !== null) {
      const sender = this.#sender
      if (tell) {
        sender.message(refuse)
        sender.end()
      }
      this.#loseSender()
    }
    if (this.#receiver !== null) {
      const receiver = this.#receiver
      this.#receiver = null
      if (tell) receiver.message(refuse)
      receiver.destroy()
    }
  }

  /** From the host's timers. */
  tick(): void {
    if (this.#ended || this.#broken !== null || this.#queued > 0) return
    const now = this.#now()
    this.#checkSilence(now)
    this.post({ kind: 'tick', now })
    if (this.session.phase === 'following' && this.session.role === 'writer') {
      if (this.#nextClearMs === 0) this.#nextClearMs = now + this.#clearEveryMs
      if (now >= this.#nextClearMs) this.#clearIntent()
    } else this.#nextClearMs = 0
  }

  heartbeat(): void {
    this.#sender?.heartbeat(this.#now())
  }

  /** A link that says nothing is dead, whatever the socket thinks. */
  #checkSilence(now: number): void {
    const { peerSilenceMs } = this.#deps.settings
    if (this.#sender !== null) {
      const silence = this.session.contact.silenceMs(now) ?? Number.POSITIVE_INFINITY
      if (Math.min(silence, now - this.#linkUpMs) > peerSilenceMs) {
        this.#linkBroken(this.#sender, 'the replica is silent')
      }
    }
    const receiver = this.#receiver
    if (receiver !== null && now - receiver.heardMs > peerSilenceMs) {
      this.#receiver = null
      receiver.destroy()
      this.#log.info('the writer is silent, link given up')
      this.post({ kind: 'link_down', now })
      // Wakes the dialler, which waits for the end of this link.
      this.#stopDialling()
      this.#startDialling()
    }
  }

  status(): SessionStatus {
    const now = this.#now()
    const { session } = this
    const { record, consistent } = session.stored
    const writer = this.#writer
    const copying = this.#copy !== null && this.#copyTotal > 0
    const left = this.#copyLeft()
    const silence =
      session.role === 'writer'
        ? session.contact.silenceMs(now)
        : this.#receiver === null
          ? null
          : Math.max(0, now - this.#receiver.heardMs)
    const shown = session.shownPhase(now)
    this.#heldSinceMs = shown === 'held' ? (this.#heldSinceMs ?? now) : null
    const role = session.role === 'none' ? 'fenced' : session.role
    return {
      session: this.id,
      epoch: record.epoch,
      state: record.state,
      role,
      phase: this.#broken === null ? shown : 'failed',
      link: session.linked ? 'up' : 'down',
      peer_silence_ms: silence === null ? null : Math.round(silence),
      sequence: session.gate.sequence,
      acknowledged: session.gate.acknowledged,
      consistent,
      held_ms: this.#heldSinceMs === null ? null : Math.round(now - this.#heldSinceMs),
      progress: copying
        ? Math.floor(100 * (1 - Math.min(1, left / this.#copyTotal)))
        : progressOf(record.state),
      copy_rate_bytes: this.#copyRate(),
      members: [...this.#members.values()].map(({ stored, volume }) => {
        const member = writer?.members.get(stored.index)
        return {
          volume: this.#volumeId(stored),
          pair: stored.pair,
          joined: writer === null ? stored.joined : this.#peerJoined.has(stored.index),
          copied_bytes: copiedBytes(member, this.#copy, volume.sizeBytes),
          size_bytes: volume.sizeBytes,
        }
      }),
    }
  }

  #heldSinceMs: number | null = null

  usesVolume(id: string): boolean {
    return [...this.#members.values()].some(({ stored }) => this.#volumeId(stored) === id)
  }

  // -- end of the process ---------------------------------------------------------------------------------------------

  /** Drains what it can, makes it durable and marks it so. Without the peer the next start reconciles. */
  async close(): Promise<void> {
    if (this.#ended) return
    this.#closing = true
    this.#stopDialling()
    const writer = this.#writer
    if (writer !== null) {
      writer.setInput(false)
      if (this.session.linked) await this.#waitFor(() => writer.settled, DRAIN_AT_CLOSE_MS)
    }
    await this.#enqueue(async () => {
      if (this.#ended) return
      this.#stopCopy()
      this.#dropLink(false)
      const settled = writer === null || writer.settled
      this.session.gate.mode = 'closed'
      writer?.fail(IO_ERRORS.ESHUTDOWN)
      const volumes = [...this.#members.values()].map(({ volume }) => volume)
      const flushed = await Promise.allSettled(volumes.map((volume) => volume.flush()))
      const durable = flushed.every(({ status }) => status === 'fulfilled')
      const good = settled && durable && this.#broken === null
      const mark = good ? this.session.cleanMark() : null
      if (mark !== null) await this.#epochFile.write(mark)
      this.#ended = true
      await this.#closeFiles()
    })
  }

  /** For a session whose first `open` was refused: gives its volumes back as they were taken and removes its files. */
  async discard(): Promise<void> {
    await this.#enqueue(async () => {
      if (this.#ended) return
      this.#ended = true
      await this.#closeFiles()
      await rm(this.#directory, { recursive: true, force: true })
      this.#onEnded()
    })
  }

  /** Back to rest, after a command that did not open this closed session. */
  async retire(): Promise<void> {
    await this.#enqueue(async () => {
      if (this.#ended) return
      this.#ended = true
      await this.#closeFiles()
      await this.#forgetButEpoch()
      this.#onEnded()
    })
  }

  async #closeFiles(): Promise<void> {
    for (const { intent } of this.#members.values()) await intent.close()
    await this.#epochFile.close()
    this.#run.close()
  }
}

const progressOf = (state: string): number => (state === 'resyncing' ? 0 : 100)

function copiedBytes(
  member: WriterMember | undefined,
  copy: Copy | null,
  sizeBytes: number,
): number {
  if (member === undefined) return sizeBytes
  const left = (member.todo.count + (copy?.openRegions(member) ?? 0)) * REGION_BYTES
  return Math.max(0, sizeBytes - left)
}

/** `host:port`, with brackets around an IPv6 address. */
function parseAddress(text: string): { readonly host: string; readonly port: number } | null {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text)
  const host = match?.[1] ?? match?.[2]
  return host === undefined ? null : { host, port: Number(match?.[3]) }
}

async function syncDirectory(path: string): Promise<void> {
  const handle = await openFile(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
