import type { Session, SessionEffect, SessionEvent } from '#agent/replication/session/session.ts'
import type { OwnershipRecord, WitnessAnswer } from '#wire/site/witness.ts'
import type { ClientIo } from './client-io.ts'
import { ClientPath } from './client-path.ts'
import type { AgentCommand, AgentStatus, CommandAnswer, SessionCommand } from './commands.ts'
import { Process } from './host.ts'
import { Link } from './link.ts'
import type { Site } from './site.ts'
import type { AgentView, WorldView } from './views.ts'
import { Volumes } from './volumes.ts'

/* One life of an agent: the real session, and a shell around it that carries its effects out against the simulated disk,
 * network and witness. It decides nothing that the session can decide. Effects are carried out in order, slow ones
 * (fsync) before the next; events wait for their turn, as the session's contract says.
 */

const TICK_MS = 400
const TICKS_PER_REPORT = 5
const WITNESS_TIMEOUT_MS = 3_000

export class Agent implements AgentView {
  readonly world: WorldView
  readonly site: Site
  readonly process: Process
  /** Replaced when it has ended: nothing of a session is kept after its close. */
  session: Session
  readonly link: Link
  readonly clients: ClientPath
  readonly volumes: Volumes
  /** This life has begun to answer as the writer; the observer was told. */
  began = false
  /** What the last answer to a report carried. */
  mark: string | null = null
  /** A snapshot is being taken: what came behind copy_begin waits. */
  keeping = false
  readonly #events: { make: () => SessionEvent; done: () => void }[] = []
  #effects: readonly SessionEffect[] = []
  #effect = 0
  #busy = false
  #refusal: string | null = null
  #command = false
  #stopping = false
  #ticks = 0
  /** From then on no old writer can still answer because it was in touch with a session that has ended here. */
  #quietAtMs: number

  constructor(world: WorldView, site: Site) {
    this.world = world
    this.site = site
    this.process = new Process(site.host, world.timeline)
    const { run, host } = site
    const good = run !== null && (run.bootId === host.bootId || world.plan.trustsOldRunFile)
    const known = good ? run.sequence : null
    this.session = world.newSession(site, known, this.process.bootMs())
    this.#quietAtMs = this.session.silence.overAtMs()
    this.link = new Link(this)
    this.clients = new ClientPath(this)
    this.volumes = new Volumes(this)
    this.process.onDeath.push(() => this.clients.failAll())
    // As the runtime does: the end of a session takes its members with it.
    const over = this.session.role === 'none' && !site.taken
    this.feed(() => ({ kind: 'start', now: this.now(), over }))
    if (this.clients.plain && site.endedEpoch > 0) world.observer.begins(this)
    this.#tick()
    this.link.startBeating()
  }

  now(): number {
    return this.process.bootMs()
  }

  get peer(): Site {
    return this.world.peerOf(this.site)
  }

  /** Hands an event to the session when its turn comes; `done` after its last effect. */
  feed(make: () => SessionEvent, done: () => void = () => undefined): void {
    this.#events.push({ make, done })
    this.#pump()
  }

  submit(io: ClientIo): void {
    this.clients.submit(io)
  }

  status(): AgentStatus {
    const { session } = this
    const { record, consistent } = session.stored
    return {
      epoch: record.epoch,
      state: record.state,
      role: session.role,
      phase: session.shownPhase(this.now()),
      consistent: consistent && session.hello(this.site.intent.any).clean,
      drained: session.drained,
      answering: session.served && session.gate.mayAnswer(this.now()),
      unwitnessed: session.stored.unwitnessed,
      linked: session.linked,
      kept: session.stored.kept,
      joined: this.site.joined,
      failed: this.site.failed,
      left: this.site.left && !this.site.taken && consistent && !session.stored.divergent,
    }
  }

  command(command: AgentCommand, reply: (answer: CommandAnswer) => void): void {
    const answer = (code: string | null) =>
      reply({ ok: code === null, code: code ?? '', status: this.status() })
    if (this.#stopping) return
    if (command.kind === 'show') return answer(null)
    if (command.kind === 'verify') {
      return this.clients.verify.start((complete) => answer(complete ? null : 'NOT_YET'))
    }
    // As commands.ts does.
    const draws = command.kind === 'hold' && this.session.phase === 'following'
    if (draws && !this.link.peerJoined) return answer('NOT_YET')
    if (command.kind === 'serve') {
      if (command.late?.() === true) return
      return this.volumes.serve(command.serving, answer)
    }
    if (command.kind === 'rebuild') return this.volumes.rebuild(command.epoch, answer)
    // Closed already, or never opened here: there is nothing left to end.
    if (command.kind === 'close' && this.session.stored.record.epoch === 0) return answer(null)
    // As the command server of the agent does.
    if (command.kind === 'close' && command.mark !== this.mark) {
      this.world.coverage.count('command-refused of another history')
      return answer('NOT_YET')
    }
    // As the host of the sessions does.
    if (command.kind === 'close' && this.#oldWriterMayAnswer(command.record)) {
      this.world.coverage.count('command-refused of an old writer')
      return answer('NOT_YET')
    }
    if (command.kind === 'open' && this.volumes.writtenPlainly(command.record)) {
      this.world.coverage.count('opened after it was served plainly')
      this.feed(() => ({ kind: 'served_plainly', now: this.now() }))
    }
    if (command.kind === 'close' && this.volumes.writtenPlainly(command.record)) {
      // As commands.ts does: noted, refused, and only then told to the session.
      this.world.coverage.count('fenced after it was served plainly')
      const refuse = () => this.volumes.serve('standby', () => this.#queue(command, answer))
      return this.feed(() => ({ kind: 'served_plainly', now: this.now() }), refuse)
    }
    this.#queue(command, answer)
  }

  #queue(command: SessionCommand, answer: (code: string | null) => void): void {
    this.#events.push({
      make: () => {
        this.#refusal = null
        this.#command = true
        const now = this.now()
        switch (command.kind) {
          case 'open': {
            const left = this.volumes.take(command.record, command.force)
            return { ...command, now, joined: this.site.joined, left }
          }
          case 'promote':
            return { ...command, now, joined: this.site.joined }
          case 'hold':
          case 'release':
          case 'arbitrate':
          case 'close':
            return { ...command, now }
        }
      },
      done: () => {
        this.#command = false
        if (this.#refusal !== null) this.world.coverage.count(`command-refused ${this.#refusal}`)
        answer(this.#refusal)
      },
    })
    this.#pump()
  }

  /** SIGTERM: nothing new is taken, everything is made durable, the mark is left, the process ends. */
  stopCleanly(gone: () => void): void {
    if (this.#stopping) return
    this.#stopping = true
    this.clients.stopInput()
    const mark = this.site.disk.syncMark()
    this.process.after(this.world.syncMs(this.site), () => {
      // Only what was settled when the sync began may be called clean.
      this.site.disk.syncDone(mark)
      const stored = this.clients.quiet && !this.#busy ? this.session.cleanMark() : null
      if (stored !== null && mark === this.site.disk.syncMark()) {
        this.site.epoch.begin(stored)
        this.site.epoch.done()
        this.world.coverage.count('clean-mark left')
      }
      this.process.kill()
      gone()
    })
  }

  #tick(): void {
    this.process.after(TICK_MS, () => {
      if (this.#events.length === 0)
        this.feed(() => ({ kind: 'tick', now: this.now(), wallMs: this.process.wallMs() }))
      if (++this.#ticks % TICKS_PER_REPORT === 0) this.world.report(this)
      this.#tick()
    })
  }

  #pump(): void {
    while (!this.#busy) {
      if (this.#effect < this.#effects.length) {
        const effect = this.#effects[this.#effect++] as SessionEffect
        this.#carryOut(effect)
        continue
      }
      if (this.#ending !== null) {
        const done = this.#ending
        this.#ending = null
        done()
        if (this.#ended) this.#renew()
        this.clients.streamIfFollowing()
        continue
      }
      const next = this.#events.shift()
      if (next === undefined) return
      const before = this.session.phase
      const event = next.make()
      this.#effects = this.session.handle(event)
      this.#effect = 0
      this.#ending = next.done
      const after = this.session.phase
      if (before !== after) {
        this.world.coverage.count(`phase ${before}>${after}`)
        this.world.log(() => `${this.site.name} ${before} > ${after} (${event.kind})`)
      }
      this.world.observer.afterDecision(this)
    }
  }

  #ending: (() => void) | null = null
  #ended = false

  /** What is to be opened next at this site begins with a session that knows nothing. */
  #renew(): void {
    this.#ended = false
    this.#quietAtMs = this.session.silence.overAtMs()
    this.link.end()
    this.session = this.world.newSession(this.site, null, this.now())
    this.clients.renew()
  }

  /** An effect could not be carried out: what is stored and what the session believes differ, so it begins anew. */
  #breaks(): void {
    const { site, world } = this
    this.#busy = true
    world.coverage.count('session broken')
    world.killAgent(site)
    world.timeline.after(500, () => world.startAgent(site))
  }

  /** Goes on with the next effect after `ms`, unless the process dies before. */
  #takes(ms: number, finish: () => void): void {
    this.#busy = true
    this.process.after(ms, () => {
      finish()
      this.#busy = false
      this.#pump()
    })
  }

  #carryOut(effect: SessionEffect): void {
    const { site, world } = this
    switch (effect.kind) {
      case 'persist':
        site.epoch.begin(effect.stored)
        return this.#takes(world.syncMs(site), () => {
          site.epoch.done()
          world.observer.afterPersist(this)
        })
      case 'make_durable': {
        if (this.session.role === 'replica' && world.observer.syncFails(site)) return this.#breaks()
        const mark = site.disk.syncMark()
        return this.#takes(world.syncMs(site), () => site.disk.syncDone(mark))
      }
      case 'mark_joined':
        return this.#takes(world.syncMs(site), () => {
          if (effect.members.length > 0) site.joined = true
        })
      case 'serve':
        // What a writer has is whole by definition.
        site.joined = true
        return this.clients.serve()
      case 'refuse':
        return this.clients.refuse()
      case 'end':
        return this.#end(effect.serving, effect.copy)
      case 'input':
        return this.clients.input(effect.open)
      case 'release':
        return this.clients.pump()
      case 'ask':
        return this.#ask(effect.ask)
      case 'dial':
        return this.link.dial(effect.on)
      case 'drop_link':
        return this.link.drop(effect.tell)
      case 'send':
        if (this.link.current) this.link.send({ t: 'session', message: effect.message })
        return
      case 'applied_from':
        site.run = { bootId: site.host.bootId, sequence: this.session.gate.sequence }
        return
      case 'resend':
        return this.clients.resend(effect.after)
      case 'begin_copy': {
        const { sequence } = this.session.gate
        if (this.link.current) {
          this.link.send({ t: 'session', message: { kind: 'copy_begin', sequence } })
        }
        return
      }
      case 'forget_frames':
        return this.clients.forgetFrames(effect.mark)
      case 'log_frames':
        return this.clients.logFrames(effect.on)
      case 'watch_catch_up':
        return this.clients.watchCatchUp()
      case 'clear_changes':
        site.changes.begin(site.host.bootId)
        if (this.session.role === 'replica') {
          site.intent.clear()
          this.clients.clearBits()
        }
        return
      case 'keep_copy':
        return this.#keep(effect.id, effect.ownOnly)
      case 'restore_kept':
        return this.#restore(effect.id)
      case 'release_kept':
        return this.#takes(world.syncMs(site), () => {
          const image = site.kept.get(effect.id)
          if (image === undefined) return
          if (effect.divergence) {
            world.coverage.count('kept as a divergence')
            site.divergences.push({
              id: effect.id,
              image,
              noted: site.noted.get(effect.id) ?? null,
            })
          } else world.coverage.count('kept released')
          site.kept.delete(effect.id)
        })
      case 'start_copy':
        return this.clients.copy.start(effect.scope, effect.regions === true)
      case 'stop_copy':
        return this.clients.copy.stop()
      case 'reconcile':
        return this.clients.copy.reconcile(effect.scope)
      case 'drain':
        return this.clients.drain()
      case 'refuse_command':
        if (this.#command) this.#refusal = effect.code
        return
    }
  }

  /** As the runtime does: a copy that is left is durable before it is noted. Of one that has ended before, nothing is known any more. */
  #end(serving: Site['plain'], copy: boolean): void {
    const { site, world } = this
    if (!site.taken) {
      // It was over already: it learns who writes since, and its volumes are not its business any more.
      site.endedEpoch = this.session.stored.record.epoch
      this.#ended = true
      return
    }
    const leave = (left: boolean) => {
      site.plain = serving
      site.left = left
      world.observer.copies.ended(site)
      site.forget(this.session.stored.record.epoch)
      this.clients.end()
      this.#ended = true
    }
    if (!site.joined) return leave(site.left)
    if (!copy || site.failed) return leave(false)
    if (world.plan.leavesUnflushed === true) return leave(true)
    const mark = site.disk.syncMark()
    this.#takes(world.syncMs(site), () => {
      if (world.observer.syncFails(site)) return leave(false)
      site.disk.syncDone(mark)
      leave(true)
    })
  }

  /** As `EndedSessions.otherMayAnswer`. */
  #oldWriterMayAnswer(record: OwnershipRecord): boolean {
    const { session, site } = this
    const { epoch, writer } = session.stored.record
    const ended = session.role === 'none' && record.epoch > epoch
    return (
      ended && record.writer === site.name && writer !== site.name && this.now() < this.#quietAtMs
    )
  }

  #keep(id: string, ownOnly: boolean): void {
    const { site, world } = this
    this.keeping = true
    this.#takes(world.syncMs(site), () => {
      const ok = !site.full
      world.coverage.count(ok ? 'kept taken' : 'kept refused')
      if (ok) {
        // As KeptCopy.
        const known = ownOnly && site.changes.exact(site.host.bootId)
        site.noted.set(id, known ? site.changes.current.slice() : null)
        world.observer.keeps(this, id)
      }
      this.#events.unshift({
        make: () => ({ kind: 'kept', now: this.now(), id, ok }),
        done: () => {
          this.keeping = false
          this.link.resume()
        },
      })
    })
  }

  #restore(id: string): void {
    const { site, world } = this
    const image = site.kept.get(id)
    world.observer.believe(image !== undefined, `${site.name} has the kept copy ${id}`)
    this.#takes(world.syncMs(site), () => {
      world.coverage.count('kept restored')
      image?.forEach((value, block) => {
        if (site.disk.current[block] !== value) site.disk.write(block, value)
      })
      site.disk.syncDone(site.disk.syncMark())
      world.observer.copies.restored(site, id)
    })
  }

  #ask(ask: Extract<SessionEffect, { kind: 'ask' }>['ask']): void {
    const sentMs = this.now()
    let over = false
    const finish = (answer: WitnessAnswer | null) => {
      if (over) return
      over = true
      cancel()
      this.feed(() => ({ kind: 'witness', now: this.now(), ask, sentMs, answer }))
    }
    const cancel = this.process.after(WITNESS_TIMEOUT_MS, () => {
      this.world.coverage.count('witness timed-out')
      finish(null)
    })
    this.world.askWitness(this.process, ask, finish)
  }
}
