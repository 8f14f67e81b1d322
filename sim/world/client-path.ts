import type { ClientIo } from './client-io.ts'
import { CopyJob } from './copy.ts'
import { Intent } from './intent.ts'
import { OutStream } from './out-stream.ts'
import { ALL_BLOCKS, type BlockRange, volumeOf } from './site.ts'
import { Verify } from './verify.ts'
import type { AgentView } from './views.ts'

/* The writer's hot path: intent bit, number, local write, frame; and the gate asked with a fresh clock reading before
 * anything is answered.
 */

interface Pending {
  readonly io: ClientIo
  /** Releasable up to here before the answer. */
  sequence: number
  readonly number: number
  localDone: boolean
  /** Durable at the replica; asked for on this link. */
  remoteDone: boolean
  remoteAsked: boolean
  values: number[] | null
}

/** Requests that wait for input or an intent bit; beyond it clients are not read any more. */
const WAITING_MAX = 64
export class ClientPath {
  readonly #agent: AgentView
  readonly copy: CopyJob
  readonly verify: Verify
  readonly #stream: OutStream
  #exported = false
  #plain: boolean
  #input = false
  #stopped = false
  readonly #waiting: ClientIo[] = []
  /** Wait for an intent bit. */
  readonly #marking = new Set<ClientIo>()
  #pending: Pending[] = []
  readonly #intent: Intent
  #draining = false
  #drainSent = false

  constructor(agent: AgentView) {
    this.#agent = agent
    this.copy = new CopyJob(agent, this)
    this.verify = new Verify(agent, this)
    this.#stream = new OutStream(agent)
    this.#plain = agent.site.plain === 'standalone' && !agent.site.taken
    this.#intent = new Intent(agent, this)
  }

  get streamOpen(): boolean {
    return this.#stream.open
  }

  get logFrom(): number | null {
    return this.#stream.logFrom
  }

  logFrames(on: boolean): void {
    this.#stream.logFrames(on)
  }

  watchCatchUp(): void {
    this.#stream.watchCatchUp()
  }

  /** The intent bits of a replica were taken away. */
  clearBits(): void {
    this.#intent.forget()
  }

  renew(): void {
    this.#intent.forget()
    this.#stream.renew()
  }

  /** Nothing is on its way. */
  get quiet(): boolean {
    return this.#pending.length === 0 && this.#stream.length === 0
  }

  /** Volumes are served without a session. */
  get plain(): boolean {
    return this.#plain
  }

  // -- effects --------------------------------------------------------------------------------------------------------

  serve(): void {
    this.#plain = false
    this.#exported = true
    this.#takeWaiting()
  }

  refuse(): void {
    this.#plain = false
    this.#exported = false
    this.failAll()
  }

  /** The volumes are served without a session, and were not before. */
  servePlainly(): void {
    this.#plain = true
    this.#agent.world.observer.begins(this.#agent)
  }

  end(): void {
    const { site } = this.#agent
    this.#exported = false
    this.#draining = false
    this.#input = false
    this.copy.stop()
    this.#stream.forget(false)
    this.#plain = site.plain === 'standalone'
    if (!this.#plain) return this.failAll()
    this.#agent.world.observer.begins(this.#agent)
    // Clients stay connected: what waits is answered by the plain volume, which has it already.
    const pending = this.#pending
    this.#pending = []
    for (const one of pending) this.#plainDone(one)
    for (const io of this.#waiting.splice(0)) this.submit(io)
  }

  input(open: boolean): void {
    this.#input = open
    if (open) this.#draining = false
    this.#takeWaiting()
  }

  stopInput(): void {
    this.#stopped = true
  }

  drain(): void {
    this.#draining = true
    this.#drainSent = false
    this.pump()
  }

  resend(after: number): void {
    this.openStream(after)
  }

  /** In step with a replica without any resending (after a reconcile, or a clean stop). */
  streamIfFollowing(): void {
    const { session, link } = this.#agent
    if (this.#stream.open || !link.ready || session.role !== 'writer') return
    if (session.phase === 'following') this.openStream(session.gate.acknowledged)
  }

  /** From here the link carries frames, the first of them behind `after`. */
  openStream(after: number): void {
    if (!this.#agent.link.current) return
    this.#stream.begin(after)
    this.#drainSent = false
    for (const one of this.#pending) one.remoteAsked = false
    this.#stream.send()
    this.pump()
  }

  linkGone(): void {
    this.#stream.gone()
    this.copy.stop()
    this.verify.stop()
  }

  forgetFrames(mark: boolean): void {
    this.#stream.forget(mark)
  }

  failAll(): void {
    const pending = this.#pending
    this.#pending = []
    const waiting = [...this.#waiting.splice(0), ...this.#marking]
    this.#marking.clear()
    for (const one of pending) one.io.done(false)
    for (const io of waiting) io.done(false)
  }

  // -- requests -------------------------------------------------------------------------------------------------------

  submit(io: ClientIo): void {
    if (this.#stopped || !this.#agent.process.alive) return io.done(false)
    if (this.#plain) return this.#plainIo(io)
    if (!this.#exported) return io.done(false)
    const { gate } = this.#agent.session
    if (!this.#input || (gate.needsReplica && this.#stream.length > WAITING_MAX)) {
      if (this.#waiting.length >= WAITING_MAX) return io.done(false)
      this.#waiting.push(io)
      return
    }
    this.#take(io)
  }

  #takeWaiting(): void {
    if (!this.#exported || !this.#input || this.#waiting.length === 0) return
    for (const io of this.#waiting.splice(0)) this.submit(io)
  }

  #take(io: ClientIo): void {
    const { process, site, world } = this.#agent
    if (site.failed && io.kind !== 'write') return io.done(false)
    switch (io.kind) {
      case 'write':
        return this.#write(io)
      case 'read': {
        const one = this.#add(io, 0, 0)
        process.after(world.random.between(0.05, 0.6), () => {
          if (site.failed) return this.#fails(one)
          one.values = io.blocks.map((block) => site.disk.current[block] as number)
          // Nobody may see what a failover could take back: the answer waits for what it shows.
          one.sequence = this.#lastTouching(io.blocks)
          one.localDone = true
          this.pump()
        })
        return
      }
      case 'flush':
        return this.#syncFor(this.#add(io, 0, 0))
    }
  }

  #add(io: ClientIo, sequence: number, number: number): Pending {
    const one: Pending = {
      io,
      sequence,
      number,
      localDone: false,
      remoteDone: false,
      remoteAsked: false,
      values: null,
    }
    this.#pending.push(one)
    return one
  }

  #lastTouching(blocks: readonly number[]): number {
    let last = 0
    for (const one of this.#pending) {
      if (one.io.kind !== 'write' || one.sequence <= last) continue
      if (one.io.blocks.some((block) => blocks.includes(block))) last = one.sequence
    }
    return last
  }

  #write(io: ClientIo): void {
    const { world } = this.#agent
    const missing = this.#intent.missing(io.blocks)
    if (missing.length === 0) return this.#number(io)
    if (world.plan.intentAfterTouch) {
      this.#intent.set(missing, () => undefined)
      return this.#number(io)
    }
    this.#marking.add(io)
    this.#intent.set(missing, () => {
      if (this.#marking.delete(io)) this.submit(io)
    })
  }

  #number(io: ClientIo): void {
    const { session, site, world } = this.#agent
    const sequence = session.gate.next()
    const number = world.truth.ordered(site.name, io.blocks)
    if (session.marks && !world.plan.forgetsMarks) site.changes.mark(io.blocks)
    session.gate.bytes += io.blocks.length
    if (!site.failed) for (const block of io.blocks) site.disk.write(block, number)
    this.copy.touched(io.blocks)
    site.run = { bootId: site.host.bootId, sequence }
    const one = this.#add(io, sequence, number)
    this.#stream.add({
      sequence,
      blocks: io.blocks,
      values: io.blocks.map(() => number),
      copy: false,
    })
    // The replica has it all the same.
    if (site.failed) return this.#fails(one)
    if (io.fua) this.#syncFor(one)
    else one.localDone = true
    this.pump()
  }

  /** A copy's blocks travel as a numbered frame, in their place between the clients' writes. */
  copyFrame(blocks: readonly number[], values: readonly number[]): number {
    const { session, site } = this.#agent
    const sequence = session.gate.next()
    site.run = { bootId: site.host.bootId, sequence }
    this.#stream.add({ sequence, blocks, values, copy: true })
    return sequence
  }

  #syncFor(one: Pending): void {
    const { process, site, world } = this.#agent
    const mark = site.disk.syncMark()
    const { from, to } = volumeOf(one.io.blocks[0] as number)
    process.after(world.syncMs(site), () => {
      if (world.observer.syncFails(site)) return this.#fails(one)
      site.disk.syncDone(mark, from, to)
      one.localDone = true
      this.pump()
    })
    this.#askRemote(one)
  }

  /** EIO. */
  #fails(one: Pending): void {
    const at = this.#pending.indexOf(one)
    if (at < 0) return
    this.#pending.splice(at, 1)
    one.io.done(false)
  }

  remoteFlush(range: BlockRange, done: () => void): boolean {
    return this.#stream.flush(range, done)
  }

  #askRemote(one: Pending): void {
    if (one.remoteAsked || one.remoteDone) return
    one.remoteAsked = this.remoteFlush(volumeOf(one.io.blocks[0] as number), () => {
      one.remoteDone = true
      this.pump()
    })
  }

  flushed(id: number): void {
    this.#stream.flushed(id)
  }

  applied(sequence: number): void {
    const { session } = this.#agent
    if (!this.#stream.open || sequence > session.gate.sequence) return
    session.gate.acknowledge(sequence)
    this.#stream.acknowledged(sequence)
    this.copy.applied(session.gate.acknowledged)
    this.#stream.watch()
    this.#takeWaiting()
    this.pump()
  }

  /** Answers what may be answered at this moment. */
  pump(): void {
    const { session, site, world } = this.#agent
    const { gate } = session
    if (this.#pending.length > 0 && this.#exported) {
      const upTo = gate.releasableUpTo(this.#agent.now())
      if (upTo >= 0) {
        const both = gate.needsReplica
        const released: Pending[] = []
        const kept: Pending[] = []
        for (const one of this.#pending) {
          if (this.#mayRelease(one, upTo, both)) released.push(one)
          else kept.push(one)
        }
        if (released.length > 0) {
          this.#pending = kept
          for (const one of released) {
            // Done here before the disk failed, and not at the replica.
            if (!both && site.failed) {
              one.io.done(false)
              continue
            }
            world.observer.answers(this.#agent, one.io, one.number, one.values)
            one.io.done(true)
          }
        }
      }
    }
    if (this.#draining) this.#drainStep()
  }

  #mayRelease(one: Pending, upTo: number, both: boolean): boolean {
    const { kind, fua } = one.io
    if (!one.localDone) return false
    if (one.sequence > upTo) return false
    const remote = both && !this.#agent.world.plan.flushHereOnly
    if (remote && (fua || kind === 'flush') && !one.remoteDone) {
      this.#askRemote(one)
      return false
    }
    return true
  }

  #drainStep(): void {
    const { process, site, world } = this.#agent
    if (this.#drainSent || !this.quiet || !this.#stream.open) return
    let left = 2
    const done = () => {
      if (--left === 0 && this.#draining && this.quiet) {
        this.#draining = false
        this.#agent.feed(() => ({ kind: 'drained', now: this.#agent.now() }))
      }
    }
    this.#drainSent = this.remoteFlush(ALL_BLOCKS, done)
    const mark = site.disk.syncMark()
    process.after(world.syncMs(site), () => {
      if (site.failed) return
      site.disk.syncDone(mark)
      done()
    })
  }

  // -- plain volumes --------------------------------------------------------------------------------------------------

  #plainIo(io: ClientIo): void {
    const { process, site, world } = this.#agent
    const number = io.kind === 'write' ? world.truth.ordered(site.name, io.blocks) : 0
    if (io.kind === 'write') {
      for (const block of io.blocks) site.disk.write(block, number)
    }
    const one = this.#add(io, 0, number)
    const sync = io.kind === 'flush' || io.fua
    const mark = site.disk.syncMark()
    const { from, to } = volumeOf(io.blocks[0] as number)
    process.after(sync ? world.syncMs(site) : 0.1, () => {
      if (sync) site.disk.syncDone(mark, from, to)
      if (!this.#pending.includes(one)) return
      if (!this.#plain) {
        // A session took the volume over in between; its gate answers.
        one.localDone = true
        one.values = this.#look(io)
        return this.pump()
      }
      this.#pending = this.#pending.filter((other) => other !== one)
      world.observer.answers(this.#agent, io, number, this.#look(io))
      io.done(true)
    })
  }

  #look(io: ClientIo): number[] {
    const { disk } = this.#agent.site
    return io.kind === 'read' ? io.blocks.map((block) => disk.current[block] as number) : []
  }

  #plainDone(one: Pending): void {
    const { io } = one
    if (io.kind === 'flush' || io.fua) {
      const { site, process, world } = this.#agent
      const mark = site.disk.syncMark()
      const { from, to } = volumeOf(io.blocks[0] as number)
      // A session that takes over meanwhile numbers from the beginning.
      one.sequence = 0
      this.#pending.push(one)
      process.after(world.syncMs(site), () => {
        site.disk.syncDone(mark, from, to)
        if (!this.#pending.includes(one)) return
        if (!this.#plain) {
          one.localDone = true
          return this.pump()
        }
        this.#pending = this.#pending.filter((other) => other !== one)
        world.observer.answers(this.#agent, io, one.number, null)
        io.done(true)
      })
      return
    }
    this.#agent.world.observer.answers(this.#agent, io, one.number, this.#look(io))
    io.done(true)
  }
}
