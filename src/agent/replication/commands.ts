import { Fault } from '#base/fault.ts'
import type { CommandAnswer, CommandRequest } from '#wire/site/commands.ts'
import type { OwnershipRecord } from '#wire/site/witness.ts'
import type { Copying } from './copy/copying.ts'
import type { SessionCore } from './core.ts'
import { NOT_CONSISTENT, NOT_YET, STALE_EPOCH } from './faults.ts'
import type { Members, OpenMember } from './members.ts'
import type { ServedNames, ServingAfter } from './served-names.ts'
import { roleOf } from './session/session.ts'
import type { Writer } from './writer/writer.ts'

/* What the control plane asks of a session. Each may be repeated, and each that comes late is refused by its epoch.
 *
 * A command takes its turn in the queue for what it changes, and waits outside of it for what takes time (clients drained,
 * volumes served): the events that it waits for need the queue. The exception is `remove`, which may hold the queue for a few seconds:
 * nothing may be decided while a member is half out.
 *
 * Owns no state.
 */

/** How long `session.open` waits until the volumes can be written, before it asks to be repeated. */
const OPEN_WAIT_MS = 20_000
const REMOVE_WAIT_MS = 5_000
const NOTHING_LEFT: ReadonlySet<number> = new Set()
/** Before a hold, what is dirty is flushed while clients go on: until one round of it took so little, or so many rounds are over. */
const AHEAD_SHORT_MS = 100
const AHEAD_ROUNDS_MAX = 3

export interface SessionCommandsParts {
  readonly core: SessionCore
  readonly members: Members
  readonly names: ServedNames
  readonly copying: Copying
  readonly writer: () => Writer | null
}

export class SessionCommands {
  readonly #parts: SessionCommandsParts
  readonly #core: SessionCore

  constructor(parts: SessionCommandsParts) {
    this.#parts = parts
    this.#core = parts.core
  }

  /** Resolves when the volumes are served, if the record makes this site the writer that takes over. */
  async open(request: CommandRequest<'session.open'>): Promise<void> {
    const core = this.#core
    const { session } = core
    const { record } = request
    await core.inTurn(() => this.#openInTurn(request))
    const becomesWriter =
      session.role === 'writer' && record.state !== 'resyncing' && record.state !== 'frozen'
    if (becomesWriter && !session.served) {
      const ready = () => session.role !== 'writer' || session.served
      if (!(await core.until(ready, OPEN_WAIT_MS))) {
        throw new Fault(NOT_YET, `session ${core.id} is ${session.phase}`)
      }
    }
  }

  async #openInTurn(request: CommandRequest<'session.open'>): Promise<void> {
    const core = this.#core
    const { session } = core
    const { members, names } = this.#parts
    const { record, force } = request
    if (core.ended) throw new Fault(NOT_YET, `session ${core.id} is just ending`)
    // Before the members are taken. A session that has ended is opened by a record behind the one that ended it.
    const { epoch } = session.stored.record
    const ended = session.role === 'none' && epoch > 0
    if (record.epoch < epoch || (ended && record.epoch === epoch)) {
      throw new Fault(STALE_EPOCH, `opening session ${core.id}`, { epoch: record.epoch })
    }
    const asWriter = roleOf(record, session.settings.site) === 'writer'
    const fences = ended && !asWriter
    if (session.role === 'none' && record.state === 'failed_over' && !fences && !force) {
      // Before the members are taken: a site that knows nothing must not touch their volumes.
      throw new Fault(NOT_CONSISTENT, `opening session ${core.id}: it is not open here`)
    }
    const joined = members.allJoined
    const left = session.role === 'none' ? members.leftBy(epoch, request.members) : NOTHING_LEFT
    const volumes = request.members.map((member) => members.volumeId(member))
    // Their clients may have written to these since no session had them.
    if (fences && names.plainOf(volumes).length > 0) {
      // Before they are taken, so that a crash forgets nothing. Whatever the record says: one that was restored does not know of a failover
      // without a session.
      await core.process({ kind: 'served_plainly', now: core.now() })
    }
    const changed = await members.take({
      members: request.members,
      peerLink: request.peer_link,
      asWriter,
      left,
      onAdded: (member) => this.#added(member),
    })
    for (const member of this.#parts.writer()?.members.values() ?? []) {
      member.todo.grow(member.volume.sizeBytes)
    }
    const gaveUp = request.old_writer_gave_up === true
    const now = core.now()
    const opens = { kind: 'open', record, force, joined, gaveUp, left: left.size > 0 } as const
    await core.command({ ...opens, now }, 'opening')
    if (changed) await core.process({ kind: 'members_changed', now: core.now() })
  }

  /** A session that is open already serves or refuses the new member as it does the others. */
  async #added(member: OpenMember): Promise<void> {
    const { names } = this.#parts
    const { session } = this.#core
    const writer = this.#parts.writer()
    if (writer !== null) {
      const { device } = writer.addMember(member)
      if (session.served) await names.serve(member, device)
    } else if (session.role === 'replica') {
      names.refuseAll(`written at ${session.stored.record.writer}`)
    }
  }

  async hold(request: CommandRequest<'session.hold'>): Promise<CommandAnswer<'session.hold'>> {
    const core = this.#core
    const { session } = core
    const { epoch, hold_ms: holdMs } = request
    const endMs = core.now() + holdMs
    if (session.phase === 'following' && !this.#parts.copying.wholeAtPeer) {
      // After a switch the fragments of a first copy would be the truth.
      throw new Fault(NOT_YET, `holding session ${core.id}: a first copy is not complete`)
    }
    if (epoch === session.stored.record.epoch) await this.#flushAhead(core.now() + holdMs / 2)
    await core.inTurn(() =>
      core.command({ kind: 'hold', now: core.now(), epoch, holdMs }, 'holding'),
    )
    const settled = () => session.drained || session.phase !== 'draining'
    await core.until(settled, Math.max(0, endMs - core.now()))
    return { drained: session.drained, sequence: session.gate.sequence }
  }

  /** Makes what clients have written durable on both sides while they go on, so that the hold has only the rest to wait for. A flush
   *  that fails or lasts longer than until `endMs` changes nothing: the drain of the hold finds out. */
  async #flushAhead(endMs: number): Promise<void> {
    const core = this.#core
    for (let rounds = 0; rounds < AHEAD_ROUNDS_MAX; rounds++) {
      const writer = this.#parts.writer()
      if (writer === null || core.session.phase !== 'following') return
      const beganMs = core.now()
      let flushed = false
      writer.flushAll().then(
        () => (flushed = true),
        (error: unknown) => core.fatal(error),
      )
      const over = () => flushed || core.session.phase !== 'following'
      if (!(await core.waitFor(over, endMs - beganMs))) return
      if (core.now() - beganMs < AHEAD_SHORT_MS) return
    }
  }

  async release(epoch: number): Promise<void> {
    const core = this.#core
    await core.inTurn(async () => {
      const known = core.session.stored.record.epoch
      if (epoch !== known) throw new Fault(STALE_EPOCH, `releasing session ${core.id}`, { epoch })
      await core.process({ kind: 'release', now: core.now() })
    })
  }

  async arbitrate({ mode, preferred }: CommandRequest<'session.arbitrate'>): Promise<void> {
    const core = this.#core
    await core.inTurn(() =>
      core.command({ kind: 'arbitrate', now: core.now(), mode, preferred }, 'arbitrating'),
    )
  }

  /** Resolves when the volumes are served. */
  async promote({ force }: CommandRequest<'session.promote'>): Promise<void> {
    const core = this.#core
    const { session } = core
    const joined = this.#parts.members.allJoined
    await core.inTurn(() =>
      core.command({ kind: 'promote', now: core.now(), joined, force }, 'promoting'),
    )
    const ready = () => session.role !== 'writer' || session.served
    if (!(await core.until(ready, OPEN_WAIT_MS)) || session.role !== 'writer') {
      throw new Fault(NOT_YET, `session ${core.id} is ${session.phase}`)
    }
  }

  async close({ record, volumes = [] }: CommandRequest<'session.close'>): Promise<void> {
    const core = this.#core
    await core.inTurn(async () => {
      await this.#fence(record, volumes)
      await core.command({ kind: 'close', now: core.now(), record }, 'closing')
    })
  }

  /** Clients of a site that went on plainly when its session ended, and is named as the writer no more. First, so that whoever dies here is told again. */
  async #fence(record: OwnershipRecord, volumes: readonly string[]): Promise<void> {
    const core = this.#core
    const { names } = this.#parts
    const { session } = core
    const { epoch } = session.stored.record
    const over = session.role === 'none' && epoch > 0
    if (!over || record.epoch <= epoch || record.writer === session.settings.site) return
    const plain = names.plainOf(volumes)
    if (plain.length === 0) return
    // What they wrote is kept when a resync overwrites it.
    await core.process({ kind: 'served_plainly', now: core.now() })
    for (const id of plain) await names.fence(id, `written at ${record.writer}`)
  }

  async setRate(copyRateBytes: number): Promise<void> {
    await this.#core.inTurn(async () => {
      await this.#parts.members.setCopyRate(copyRateBytes)
      this.#parts.copying.kick()
    })
  }

  async remove(request: CommandRequest<'session.remove'>): Promise<void> {
    const core = this.#core
    const { epoch, pairs, serving, reason } = request
    await core.inTurn(async () => {
      if (epoch < core.session.stored.record.epoch) {
        throw new Fault(STALE_EPOCH, `removing from session ${core.id}`, { epoch })
      }
      const leaving = [...this.#parts.members.values()].filter(({ stored }) =>
        pairs.includes(stored.pair),
      )
      for (const member of leaving) await this.#removeMember(member, serving, reason)
    })
  }

  async #removeMember(member: OpenMember, serving: ServingAfter, reason: string): Promise<void> {
    const { members, names, copying } = this.#parts
    const writer = this.#parts.writer()
    if (writer !== null && this.#core.session.served) {
      if (serving === 'standby') names.refuse(member, reason)
      else await this.#drainMember(member)
    }
    writer?.removeMember(member.index)
    await members.forget(member.index)
    await names.leave(member, serving, reason)
    names.forgetPair(member, reason)
    await members.dropMaps(member)
    copying.kick()
  }

  /** Its clients stay, and wait; the hold ends when the volume is served plainly. */
  async #drainMember(member: OpenMember): Promise<void> {
    const { names } = this.#parts
    let drained = false
    names.hold(member).then(
      () => (drained = true),
      () => undefined,
    )
    if (await this.#core.waitFor(() => drained, REMOVE_WAIT_MS)) return
    names.release(member)
    throw new Fault(NOT_YET, `requests of pair ${member.stored.pair} are still held`)
  }
}
