import { freezesFirst } from '#domain/failover.ts'
import type { OwnershipAnswer } from '#domain/ownership.ts'
import type { OwnershipRecord } from '#wire/site/witness.ts'
import { type Operation, RETRY_MS, type Steps, wireRecord } from './operator-steps.ts'
import { failOverPaused } from './paused-failover.ts'
import type { Random } from './random.ts'
import { Violation } from './truth.ts'
import type { World } from './world.ts'

/* What each operation of the control plane does, in the order of steps of docs/architecture/replication.md. operator.ts carries them out. */

export type OperationName =
  | 'tell'
  | 'open'
  | 'reverse'
  | 'failover'
  | 'failover-paused'
  | 'reprotect'
  | 'close'
  | 'freeze'
  | 'thaw'
  | 'arbitrate'
  | 'verify'
  | 'rebuild'

const HOLD_MS = 5_000

export class Operations {
  readonly #world: World
  readonly #random: Random
  readonly #do: Steps
  /** A failover is being decided or carried out. */
  deciding = false

  constructor(world: World, random: Random, steps: Steps) {
    this.#world = world
    this.#random = random
    this.#do = steps
  }

  begin(name: OperationName): Operation {
    this.deciding = false
    switch (name) {
      case 'tell':
        return this.#tell()
      case 'open':
        return this.#open()
      case 'reverse':
        return this.#reverse()
      case 'failover':
        return this.#failover()
      case 'failover-paused':
        return failOverPaused(this.#world, this.#do)
      case 'reprotect':
        return this.#reprotect()
      case 'close':
        return this.#close()
      case 'freeze':
        return this.#freeze()
      case 'thaw':
        return this.#thaw()
      case 'arbitrate':
        return this.#arbitrate()
      case 'verify':
        return this.#verify()
      case 'rebuild':
        return this.#rebuild()
    }
  }

  /** A report shows an older epoch than the record: the control plane sends that again. */
  *#tell(): Operation {
    const record = wireRecord(this.#do.record)
    for (const site of this.#world.sites) {
      const shown = yield* this.#do.agent(site, { kind: 'show' })
      if (shown === null || shown.status.epoch >= record.epoch) continue
      if (record.state === 'closed') {
        yield* this.#do.agent(site, { kind: 'close', record, mark: this.#do.mark })
        continue
      }
      const told = yield* this.#do.agent(site, { kind: 'open', record, force: false })
      if (told?.code !== 'NOT_CONSISTENT' || record.state === 'in_sync') continue
      this.#world.observer.allowLoss(site.name)
      yield* this.#do.agent(site, { kind: 'open', record, force: true })
    }
    return 'ok'
  }

  *#open(): Operation {
    const failed = this.#world.sites.find((site) => site.failed)
    if (failed?.name === this.#do.record.writer) return 'writer failed'
    if (failed !== undefined) {
      // As long as the old session is known there, its disk is its copy.
      if (failed.epoch.value.record.state !== 'closed') yield* this.#tell()
      if (failed.epoch.value.record.state !== 'closed') return 'failed disk'
      this.#world.observer.replaceDisk(failed)
    }
    const { writer, replica, epoch } = this.#do.record
    const attempt = this.#do.attempt('open')
    const again = epoch === 0 ? this.#world.arbitration : {}
    this.#do.enter('open_record')
    const answer = yield* this.#do.witness({
      kind: 'open',
      epoch,
      attempt,
      writer,
      replica,
      ...again,
    })
    if (!answer.ok) return answer.refusal
    const record = wireRecord(answer.record)
    const { world, other } = this.#sides(writer)
    this.#do.enter('open_replica')
    yield* this.#do.openAt(other, record, false)
    this.#do.enter('open_writer')
    return yield* this.#do.openAt(world.site(writer), record, false)
  }

  *#reprotect(): Operation {
    const { epoch } = this.#do.record
    this.#do.enter('reprotect_record')
    const answer = yield* this.#do.witness({
      kind: 'reprotect',
      epoch,
      attempt: this.#do.attempt('reprotect'),
    })
    if (!answer.ok) return answer.refusal
    const record = wireRecord(answer.record)
    const { here, other } = this.#sides(record.writer)
    this.#do.enter('open_replica')
    yield* this.#do.openAt(other, record, false, true)
    this.#do.enter('open_writer')
    return yield* this.#do.openAt(here, record, false, true)
  }

  *#close(): Operation {
    const { epoch, state, writer } = this.#do.record
    // In sync and the writer silent: stopping would give up the only copy that can be started.
    const production = this.#world.site(writer)
    const shown = yield* this.#do.agent(production, { kind: 'show' })
    if (shown === null && state === 'in_sync') return 'writer silent'
    // What it has is worth nothing: it is failed over from.
    if (production.failed) return 'writer failed'
    production.failing = false
    this.#do.enter('close_record')
    const answer = yield* this.#do.witness({
      kind: 'close',
      epoch,
      attempt: this.#do.attempt('close'),
    })
    if (!answer.ok) return answer.refusal
    const record = wireRecord(answer.record)
    const { here, other } = this.#sides(record.writer)
    for (const site of [here, other]) {
      this.#do.enter(site === here ? 'close_production' : 'close_dr')
      for (;;) {
        const closed = yield* this.#do.agent(site, { kind: 'close', record, mark: this.#do.mark })
        // An agent that waits for the old writer's silence cannot end yet.
        if (closed !== null && closed.code !== 'NOT_YET') break
        // A silent site does not hold up an end; it is told when it is heard again.
        if (closed === null && this.#do.givesUp()) break
        yield* this.#do.pause(RETRY_MS)
      }
    }
    return 'ok'
  }

  *#reverse(): Operation {
    const { writer, epoch } = this.#do.record
    const { here, other } = this.#sides(writer)
    other.failing = false
    this.#do.enter('hold')
    const held = yield* this.#do.agent(here, { kind: 'hold', epoch, holdMs: HOLD_MS })
    if (held === null || !held.ok) return held === null ? 'unreachable' : held.code
    for (let left = 20; ; left--) {
      const shown = yield* this.#do.agent(here, { kind: 'show' })
      if (shown?.status.drained === true) break
      if (shown === null || shown.status.phase !== 'draining' || left === 0) {
        yield* this.#do.agent(here, { kind: 'release' })
        return 'not drained'
      }
      yield* this.#do.pause(100)
    }
    this.#do.enter('reverse_record')
    const answer = yield* this.#do.witness({
      kind: 'reverse',
      epoch,
      attempt: this.#do.attempt('reverse'),
    })
    if (!answer.ok) {
      yield* this.#do.agent(here, { kind: 'release' })
      return answer.refusal
    }
    const record = wireRecord(answer.record)
    this.#do.enter('open_replica')
    yield* this.#do.openAt(here, record, false, true)
    this.#do.enter('open_writer')
    yield* this.#do.openAt(other, record, false, true)
    return 'ok'
  }

  /** Nobody is to write until it is decided who is to. */
  *#freeze(): Operation {
    const { epoch, writer } = this.#do.record
    const answer = yield* this.#do.witness({
      kind: 'freeze',
      epoch,
      attempt: this.#do.attempt('freeze'),
    })
    if (!answer.ok) return answer.refusal
    const record = wireRecord(answer.record)
    const { here, other } = this.#sides(writer)
    for (const site of [here, other]) {
      if (this.#random.chance(0.8)) {
        yield* this.#do.agent(site, { kind: 'open', record, force: false })
      }
    }
    return 'ok'
  }

  *#thaw(): Operation {
    const { epoch, writer } = this.#do.record
    const answer = yield* this.#do.witness({
      kind: 'thaw',
      epoch,
      attempt: this.#do.attempt('thaw'),
    })
    if (!answer.ok) return answer.refusal
    return yield* this.#do.openAsWriter(this.#world.site(writer), wireRecord(answer.record))
  }

  *#verify(): Operation {
    const answer = yield* this.#do.agent(this.#world.site(this.#do.record.writer), {
      kind: 'verify',
    })
    return answer === null ? 'goes on' : answer.ok ? 'ok' : answer.code
  }

  /** The failed copy at the replica is begun anew while the session goes on. */
  *#rebuild(): Operation {
    const { replica, epoch } = this.#do.record
    const site = this.#world.site(replica)
    if (!site.failed) return 'nothing to rebuild'
    const answer = yield* this.#do.agent(site, { kind: 'rebuild', epoch })
    return answer === null ? 'unreachable' : answer.ok ? 'ok' : answer.code
  }

  *#arbitrate(): Operation {
    const { writer, replica } = this.#do.record
    const mode = this.#random.chance(0.5) ? 'static-priority' : 'witness'
    const preferred = this.#random.chance(0.7) ? writer : replica
    const { here } = this.#sides(writer)
    const answer = yield* this.#do.agent(here, { kind: 'arbitrate', mode, preferred })
    return answer === null ? 'unreachable' : answer.ok ? 'ok' : answer.code
  }

  *#failover(): Operation {
    const world = this.#world
    const { writer, state: found } = this.#do.record
    const { here, other } = this.#sides(writer)
    this.#do.enter('choose_members')
    const shown = yield* this.#do.agent(other, { kind: 'show' })
    if (shown === null) return 'unreachable'
    // What was never copied in full is fragments.
    if (!shown.status.joined) return 'DR_SIDE_EMPTY'
    if (shown.status.failed) return 'DR_SIDE_FAILED'

    this.#do.enter('freeze_record')
    const from = world.stateBefore(this.#do.record)
    const wasInSync = from === 'in_sync'
    // Out of sync an operator gives something up on purpose; in sync some are just as impatient.
    const force = !wasInSync || this.#random.chance(0.2)
    // The witness's rules allow it without as well: then the lease alone ends the old writer.
    const direct = !wasInSync && this.#random.chance(0.4) && !this.#do.patient
    const mustFreeze = !direct && freezesFirst(this.#do.record, other.name, force)
    let frozenEpoch = found === 'frozen' ? this.#do.record.epoch : 0
    if (mustFreeze && !force) {
      const said = yield* this.#do.agent(here, { kind: 'show' })
      if (said?.status.unwitnessed !== false || !said.status.linked) return 'PREFERRED_MAY_RUN'
    }
    if (mustFreeze || (found === 'in_sync' && this.#random.chance(0.5))) {
      const { epoch } = this.#do.record
      const attempt = this.#do.attempt('freeze')
      const frozen = yield* this.#do.witness({ kind: 'freeze', epoch, attempt })
      if (!frozen.ok) return frozen.refusal
      frozenEpoch = frozen.record.epoch
    }

    this.#do.enter('ask_consent')
    let consentEpoch = 0
    if (this.#do.record.state === 'frozen') {
      const told = wireRecord(this.#do.record)
      const answer = yield* this.#do.agent(here, { kind: 'open', record: told, force: false })
      if (answer?.status.epoch === told.epoch && answer.status.state === 'frozen') {
        consentEpoch = told.epoch
        world.coverage.count('failover by consent')
      }
    }

    this.#do.enter('failover_record')
    const again = yield* this.#do.agent(other, { kind: 'show' })
    // Two failures at once are more than is promised: from here on this disk is needed.
    this.deciding = true
    other.failing = false
    // As is one that fails between its answer and the decision.
    if (again?.status.failed === true || other.failed) {
      if (this.#do.record.state === 'frozen') yield* this.#thaw()
      world.coverage.count('failover refused late')
      return 'DR_SIDE_FAILED'
    }
    let decided: OwnershipRecord | null = null
    let lacksNothing = false
    for (let tries = 3; decided === null; tries--) {
      const { epoch, state } = this.#do.record
      if (this.#do.record.writer !== writer) return 'overtaken'
      // It went on alone since, or was thawed: nobody has consented to this epoch.
      const again = !direct && freezesFirst(this.#do.record, other.name, force)
      const attempt = this.#do.attempt(`failover-${tries}`)
      lacksNothing = state === 'in_sync' || (wasInSync && frozenEpoch === epoch)
      const answer: OwnershipAnswer = yield* this.#do.witness(
        again
          ? { kind: 'freeze', epoch, attempt }
          : {
              kind: 'failover',
              epoch,
              attempt,
              force: force || lacksNothing,
              consent: consentEpoch === epoch,
              // Stated by somebody who stands before the machine in the moment of the decision.
              get preferredOff() {
                return !here.host.powered
              },
            },
      )
      if (answer.ok && !again) decided = wireRecord(answer.record)
      if (!answer.ok) {
        // A writer that goes on renewing its lease is waited for; whoever loses patience leaves it frozen, for another to thaw.
        if (answer.refusal === 'LEASE_HELD' || answer.refusal === 'WITNESS_WAITING') {
          return answer.refusal
        }
        if (this.#do.record.state === 'frozen') yield* this.#thaw()
        if (answer.refusal === 'PREFERRED_MAY_RUN' || tries <= 0) return answer.refusal
      }
    }

    this.#do.enter('open_dr')
    const record = decided
    const consent = consentEpoch > 0 && consentEpoch + 1 === record.epoch
    const told = yield* this.#do.openAt(other, record, force && !lacksNothing, false, consent)
    if (told === 'NOT_CONSISTENT') {
      const stored = other.epoch.value
      if (world.observer.wasPowerLost(other)) world.observer.allowLoss(other.name)
      else if (lacksNothing && !stored.divergent) {
        throw new Violation(`promise 1: ${other.name} is in sync, but refuses a failover`)
      }
      yield* this.#do.openAt(other, record, true)
    }

    this.#do.enter('tell_old_writer')
    // It is told when it can be reached; otherwise it finds out by itself.
    if (this.#random.chance(0.7))
      yield* this.#do.agent(here, { kind: 'open', record, force: false })
    return 'ok'
  }

  #sides(writer: string) {
    const world = this.#world
    const here = world.site(writer)
    return { world, here, other: world.peerOf(here) }
  }
}
